//! `bench conv`: every convolution algorithm on shapes of well-known networks.
//!
//! Iterates the kernels' own table, so a new algorithm appears by itself. There the weights are i8 codes with one step,
//! cut into tiles as the writer cuts them and expanded anew in every call, as in a plan that keeps nothing. Rows that
//! say `kept` have their weights made ready before: the dense default as f32, Winograd transformed to f32 or 16 bits.
//! Activations have the runtime's layout. The candidates of a shape run in turn, one convolution each, until every one
//! has had its share of time: a disturbance of the machine hits all of them. Times are relative to the direct algorithm,
//! or the first of the table where there is none; both are dense.

use crate::Result;
use crate::cases;
use crate::record::{Output, Report};
use crate::stats::Times;
#[cfg(feature = "fft")]
use dcz_kernels::fft::FftPlan;
use dcz_kernels::winograd::{self, Resident, Winograd};
use dcz_kernels::{
    ALGOS, Activation, Algo, ConvAlgo, ConvShape, Epilogue, Isa, KOrder, Map, Start, Steps,
    TileValues, View, ViewMut, WeightTile, conv_tile, kernel_name, sparse, weights::PANEL,
    workspace,
};
use serde::Deserialize;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Weights of a tile.
const TILE: usize = 65_536;
/// Least number of timed runs.
const RUNS: usize = 3;

/// Options of `bench conv`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Shapes instead of the built-in ones (benches/cases/conv.toml).
    #[arg(long, value_name = "TOML")]
    cases: Option<PathBuf>,
    /// Only shapes whose network or name contains this.
    #[arg(long, value_name = "TEXT")]
    case: Option<String>,
    /// Percentages of zero weights instead of those of the cases.
    #[arg(long, value_delimiter = ',', value_name = "P,..")]
    zeros: Vec<u64>,
    /// Output channels of a block that are zero together: 1, 2, 4 or 8.
    #[arg(long, default_value_t = 1)]
    block: usize,
    /// Time for each algorithm on each shape, in milliseconds.
    #[arg(long, default_value_t = 150)]
    millis: u64,
    /// Instruction set: portable, avx2 or avx512; by default the best this processor has.
    #[arg(long)]
    isa: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// The file of shapes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shapes {
    /// Percentages of zero weights.
    pub(crate) zeros: Vec<u64>,
    #[serde(rename = "shape")]
    pub(crate) shapes: Vec<Shape>,
}

/// A square convolution.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shape {
    /// Where it comes from.
    pub(crate) network: String,
    /// Its layer, or what is special about it.
    pub(crate) name: String,
    /// Input and output channels.
    pub(crate) channels: [usize; 2],
    #[serde(default = "one")]
    pub(crate) groups: usize,
    pub(crate) kernel: usize,
    #[serde(default = "one")]
    pub(crate) stride: usize,
    /// Half the kernel unless given.
    pad: Option<usize>,
    /// Rows and columns of the input.
    pub(crate) size: usize,
}

fn one() -> usize {
    1
}

impl Shape {
    /// Zeros on each side.
    pub(crate) fn padding(&self) -> usize {
        self.pad.unwrap_or(self.kernel / 2)
    }

    /// Weights of the layer.
    #[cfg(test)]
    pub(crate) fn weights(&self) -> usize {
        let [inputs, outputs] = self.channels;
        inputs / self.groups * outputs * self.kernel * self.kernel
    }

    pub(crate) fn geometry(&self) -> Result<ConvShape> {
        let pad = self.padding();
        let span = (self.size + 2 * pad).checked_sub(self.kernel);
        let out = span.ok_or_else(|| format!("{}: kernel beyond input", self.name))?
            / self.stride.max(1)
            + 1;
        let [in_channels, out_channels] = self.channels;
        if self.groups == 0 || in_channels % self.groups != 0 || out_channels % self.groups != 0 {
            return Err(format!("{}: groups do not divide the channels", self.name).into());
        }
        Ok(ConvShape {
            in_channels,
            out_channels,
            groups: self.groups,
            kernel: [self.kernel; 2],
            stride: [self.stride.max(1); 2],
            dilation: [1, 1],
            pad_top: pad,
            pad_left: pad,
            in_h: self.size,
            in_w: self.size,
            out_h: out,
            out_w: out,
        })
    }
}

/// One algorithm on one shape.
struct Row {
    name: String,
    workspace_bytes: usize,
    /// Weights that stay between runs.
    kept_bytes: usize,
    times: Times,
    /// Largest difference from the baseline's output, relative to the largest magnitude of that.
    difference: f32,
}

/// A way to compute the shape.
pub(crate) struct Candidate<'a> {
    pub(crate) name: String,
    workspace_bytes: usize,
    kept_bytes: usize,
    /// Within the error limit of a session, alone in its network, for all codes.
    pub(crate) legal: bool,
    pub(crate) run: Compute<'a>,
}

/// Computes the shape into an output.
pub(crate) type Compute<'a> = Box<dyn FnMut(&mut [f32]) + 'a>;

/// Measures and prints.
pub fn run(args: &Args) -> Result<ExitCode> {
    let built_in = include_str!("../cases/conv.toml");
    let shapes: Shapes = cases::read(args.cases.as_deref(), built_in)?;
    let isa = match &args.isa {
        Some(name) => Isa::from_name(name)
            .ok_or_else(|| format!("no instruction set {name} on this processor"))?,
        None => Isa::detect(),
    };
    let zeros = if args.zeros.is_empty() {
        &shapes.zeros
    } else {
        &args.zeros
    };
    let wanted = |shape: &&Shape| {
        let text = format!("{} {}", shape.network, shape.name);
        args.case
            .as_ref()
            .is_none_or(|part| text.contains(part.as_str()))
    };
    let mut report = Report::begin("conv");
    if !args.output.json {
        println!(
            "{:<14} {:<22} {:>5}  {:<40} {:>8} {:>7} {:>6} {:>9} {:>9} {:>8}",
            "network",
            "shape",
            "zeros",
            "algorithm",
            "min ms",
            "GMAC/s",
            "time",
            "work KiB",
            "kept KiB",
            "differs"
        );
    }
    for shape in shapes.shapes.iter().filter(wanted) {
        let geometry = shape.geometry()?;
        let macs = geometry.out_channels * geometry.k() * geometry.out_h * geometry.out_w;
        for &percent in zeros {
            let layer = Layer::new(isa, geometry, percent.min(100), args.block.clamp(1, PANEL));
            let rows = layer.measure(args.millis);
            let baseline = rows.first().map_or(f64::NAN, |row| row.times.min_ms);
            let best = rows
                .iter()
                .map(|row| row.times.min_ms)
                .fold(f64::MAX, f64::min);
            for row in &rows {
                let rate = macs as f64 / row.times.min_ms / 1e6;
                let relative = row.times.min_ms / baseline;
                if !args.output.json {
                    println!(
                        "{:<14} {:<22} {:>4}%  {:<40} {:>8.3} {:>7.1} {:>6.2} {:>9} {:>9} {:>8.0e}{}",
                        shape.network,
                        shape.name,
                        percent,
                        row.name,
                        row.times.min_ms,
                        rate,
                        relative,
                        row.workspace_bytes.div_ceil(1024),
                        row.kept_bytes.div_ceil(1024),
                        row.difference,
                        if row.times.min_ms <= best { " *" } else { "" }
                    );
                }
                report.row(json!({
                    "network": shape.network, "shape": shape.name, "channels": shape.channels, "groups": shape.groups,
                    "kernel": shape.kernel, "stride": shape.stride, "size": shape.size, "zeros_percent": percent, "block": args.block,
                    "algorithm": row.name, "times": row.times, "gmac_per_s": rate, "relative_time": relative,
                    "workspace_bytes": row.workspace_bytes, "kept_bytes": row.kept_bytes, "difference": row.difference,
                }));
            }
        }
    }
    if !args.output.json {
        println!("time: relative to the first row of the shape; *: the fastest; GMAC/s: dense");
    }
    report.finish(&args.output)?;
    Ok(ExitCode::SUCCESS)
}

/// A convolution with its input, and its weights cut into tiles.
pub(crate) struct Layer {
    isa: Isa,
    shape: ConvShape,
    input: Vec<f32>,
    /// `[tile][panel][k][8]`
    codes: Vec<i8>,
    tiles: Vec<Cut>,
    step: f32,
}

/// A tile of a layer.
#[derive(Clone, Copy)]
struct Cut {
    first_panel: usize,
    panels: usize,
    k0: usize,
    k_len: usize,
}

impl Cut {
    fn weights(self) -> usize {
        self.panels * self.k_len * PANEL
    }
}

const RELU: Epilogue<'_> = Epilogue {
    bias: None,
    activation: Activation::Relu,
};

impl Layer {
    pub(crate) fn new(isa: Isa, shape: ConvShape, zeros: u64, block: usize) -> Layer {
        let (k, panels) = (shape.k(), shape.panels());
        let per_tile = (TILE / (k * PANEL)).max(1);
        let range = k.min(TILE / PANEL);
        let mut tiles = Vec::new();
        for first_panel in (0..panels).step_by(per_tile) {
            tiles.extend((0..k).step_by(range).map(|k0| Cut {
                first_panel,
                panels: per_tile.min(panels - first_panel),
                k0,
                k_len: range.min(k - k0),
            }));
        }
        let mut random = Random(1);
        let len = panels * k * PANEL;
        let mut codes = Vec::with_capacity(len);
        while codes.len() < len {
            let zero = random.next() % 100 < zeros;
            // -127..=127 without 0
            codes.extend((0..block).map(|_| {
                let code = (random.next() % 254) as i16 - 127;
                if zero {
                    0
                } else {
                    (code + i16::from(code >= 0)) as i8
                }
            }));
        }
        codes.truncate(len);
        let mut random = Random(2);
        let inputs = shape.in_channels * shape.in_h * shape.in_w;
        Layer {
            isa,
            shape,
            input: (0..inputs)
                .map(|_| (random.next() % 2048) as f32 / 1024.0 - 1.0)
                .collect(),
            codes,
            tiles,
            step: 0.01 / (k as f32).sqrt(),
        }
    }

    fn input(&self) -> View<'_> {
        let s = &self.shape;
        View {
            data: &self.input,
            map: Map::rows(1, s.in_channels, s.in_h, s.in_w),
        }
    }

    fn output<'a>(&self, data: &'a mut [f32]) -> ViewMut<'a> {
        let s = &self.shape;
        let map = Map::rows(1, s.out_channels, s.out_h, s.out_w);
        ViewMut { data, map }
    }

    /// The direct algorithm, or the first.
    fn baseline(&self) -> Option<&'static Algo> {
        let supported = || ALGOS.iter().filter(|algo| (algo.supports)(&self.shape));
        let direct = supported().find(|algo| algo.name.starts_with("conv_direct_"));
        direct.or_else(|| supported().next())
    }

    /// Elements of the output.
    pub(crate) fn outputs(&self) -> usize {
        self.shape.out_channels * self.shape.out_h * self.shape.out_w
    }

    /// Reads the input.
    pub(crate) fn touch_input(&self) -> f32 {
        self.input.iter().sum()
    }

    /// All ways to compute it, the baseline first.
    pub(crate) fn candidates(&self) -> Vec<Candidate<'_>> {
        let mut candidates = Vec::new();
        let Some(baseline) = self.baseline() else {
            return candidates;
        };
        let others = ALGOS
            .iter()
            .filter(|algo| algo.algo != baseline.algo && (algo.supports)(&self.shape));
        for algo in std::iter::once(baseline).chain(others) {
            candidates.push(self.by_tiles(algo, None));
        }
        let kept = [
            ConvAlgo::Gemm,
            ConvAlgo::Pointwise,
            ConvAlgo::DirectSparse,
            ConvAlgo::Depthwise,
        ];
        for algo in ALGOS.iter().filter(|algo| (algo.supports)(&self.shape)) {
            if algo.algo == baseline.algo || kept.contains(&algo.algo) {
                let expanded = self.codes.iter().map(|&q| f32::from(q) * self.step);
                candidates.push(self.by_tiles(algo, Some(expanded.collect())));
            }
        }
        if winograd::supports(&self.shape) {
            for size in [Winograd::F2, Winograd::F4, Winograd::F6] {
                candidates.push(self.winograd_f32(size));
                candidates.push(self.winograd_16(size));
            }
        }
        if sparse::supports_resident(&self.shape) {
            let groups = [
                (ConvAlgo::DirectSparse, 1),
                (ConvAlgo::BlockSparse2, 2),
                (ConvAlgo::BlockSparse4, 4),
            ];
            candidates.extend(groups.map(|(algo, group)| self.lists(algo, group)));
        }
        #[cfg(feature = "fft")]
        candidates.extend(self.fft());
        candidates
    }

    /// Tile by tile, as the runtime does; with weights kept in f32, or expanded from codes.
    fn by_tiles(&self, algo: &'static Algo, kept: Option<Vec<f32>>) -> Candidate<'_> {
        let (shape, isa) = (&self.shape, self.isa);
        let sizes = (self.tiles.iter()).map(|t| workspace(algo.algo, shape, t.panels, shape.out_h));
        let mut scratch = vec![0.0; sizes.max().unwrap_or(0)];
        Candidate {
            name: kernel_name(algo.algo, isa) + if kept.is_some() { ", kept f32" } else { "" },
            workspace_bytes: size_of_val(scratch.as_slice()),
            kept_bytes: kept
                .as_ref()
                .map_or(0, |weights| size_of_val(weights.as_slice())),
            legal: true,
            run: Box::new(move |out| {
                let mut at = 0;
                let mut before = None;
                for cut in &self.tiles {
                    let like = Some((cut.panels, cut.k0, cut.k_len));
                    let warm = like == std::mem::replace(&mut before, like);
                    let range = at..at + cut.weights();
                    at = range.end;
                    let values = match &kept {
                        Some(weights) => TileValues::F32(&weights[range]),
                        None => TileValues::I8 {
                            q: &self.codes[range],
                            steps: Steps::Layer(self.step),
                        },
                    };
                    let start = match cut.k0 {
                        0 => Start::Zero,
                        _ => Start::Accumulate,
                    };
                    let last = cut.k0 + cut.k_len == shape.k();
                    conv_tile(
                        isa,
                        algo.algo,
                        shape,
                        &cut.tile(values),
                        self.input(),
                        0..shape.out_h,
                        &mut self.output(out),
                        start,
                        last.then_some(&RELU),
                        warm,
                        &mut scratch,
                    );
                }
            }),
        }
    }

    /// By FFT with kept weights, where the planner would consider it: small kernels have transforms much larger than themselves.
    #[cfg(feature = "fft")]
    fn fft(&self) -> Option<Candidate<'_>> {
        const LEAST_TAPS: usize = 16;
        let (shape, isa) = (&self.shape, self.isa);
        let plan = FftPlan::new(isa, shape).filter(|_| shape.taps() >= LEAST_TAPS)?;
        let panels = shape.panels();
        let mut weights = vec![0.0; panels * plan.panel_len()];
        let mut scratch = vec![0.0; plan.workspace().max(plan.transform_workspace())];
        plan.transform(&self.whole(), &mut weights, &mut scratch);
        Some(Candidate {
            name: kernel_name(ConvAlgo::Fft, isa),
            workspace_bytes: size_of_val(scratch.as_slice()),
            kept_bytes: size_of_val(weights.as_slice()) + plan.bytes(),
            legal: true,
            run: Box::new(move |out| {
                let (rows, out) = (0..shape.out_h, &mut self.output(out));
                let (input, relu) = (self.input(), Some(&RELU));
                plan.run(
                    &weights,
                    0..panels,
                    input,
                    rows,
                    out,
                    Start::Zero,
                    relu,
                    &mut scratch,
                );
            }),
        })
    }

    /// The layer as one tile.
    fn whole(&self) -> WeightTile<'_> {
        let whole = Cut {
            first_panel: 0,
            panels: self.shape.panels(),
            k0: 0,
            k_len: self.shape.k(),
        };
        whole.tile(TileValues::I8 {
            q: &self.codes,
            steps: Steps::Layer(self.step),
        })
    }

    fn winograd_f32(&self, size: Winograd) -> Candidate<'_> {
        let (shape, isa) = (&self.shape, self.isa);
        let mut weights = vec![0.0; shape.panels() * winograd::panel_len(size, shape)];
        winograd::transform(isa, size, shape, &self.whole(), &mut weights);
        let bytes = size_of_val(weights.as_slice());
        let with = move |run: &mut dyn FnMut(Resident<'_>)| run(Resident::F32(&weights));
        self.winograd(size, "f32", bytes, within_default(size), with)
    }

    fn winograd_16(&self, size: Winograd) -> Candidate<'_> {
        let (shape, isa) = (&self.shape, self.isa);
        let (panels, len) = (shape.panels(), winograd::panel_len(size, shape));
        let (mut q, mut scales) = (vec![0i16; panels * len], Vec::new());
        scales.resize(panels * winograd::scales_len(size), 0.0);
        let mut form = vec![0.0; len];
        winograd::transform_16(
            isa,
            size,
            shape,
            &self.whole(),
            &mut q,
            &mut scales,
            &mut form,
        );
        let bytes = size_of_val(q.as_slice()) + size_of_val(scales.as_slice());
        let legal = within_default(size) && winograd::fits_16(size, 127);
        self.winograd(size, "i16", bytes, legal, move |run| {
            run(Resident::I16 {
                q: &q,
                scales: &scales,
            });
        })
    }

    /// From lists that are kept.
    fn lists(&self, algo: ConvAlgo, group: usize) -> Candidate<'_> {
        let (shape, isa, tile) = (&self.shape, self.isa, self.whole());
        let mut scratch = vec![0.0; sparse::fill_workspace(shape)];
        let mut starts = vec![0; sparse::starts_len(shape, group)];
        sparse::count(isa, shape, group, &tile, &mut starts, &mut scratch);
        // Of layers that fit into memory, the number of entries fits 32 bits.
        let entries = sparse::finish_count(&mut starts).unwrap_or(0);
        let (mut places, mut values) = (vec![0u16; entries], vec![0.0; entries * group]);
        let (p, v) = (&mut places, &mut values);
        sparse::fill(isa, shape, group, &tile, &starts, p, v, &mut scratch);
        let panels = shape.panels();
        scratch = vec![0.0; sparse::run_workspace(shape, panels, shape.out_h)];
        let kept = [
            size_of_val(starts.as_slice()),
            size_of_val(places.as_slice()),
            size_of_val(values.as_slice()),
        ];
        Candidate {
            name: format!("{}, lists", kernel_name(algo, isa)),
            workspace_bytes: size_of_val(scratch.as_slice()),
            kept_bytes: kept.iter().sum(),
            legal: true,
            run: Box::new(move |out| {
                let lists = sparse::Lists {
                    starts: &starts,
                    places: &places,
                    values: &values,
                };
                sparse::run(
                    isa,
                    shape,
                    shape,
                    group,
                    lists,
                    0..panels,
                    self.input(),
                    0..shape.out_h,
                    &mut self.output(out),
                    Start::Zero,
                    Some(&RELU),
                    &mut scratch,
                );
            }),
        }
    }

    /// Winograd with kept weights, which `with` hands over.
    fn winograd<'a>(
        &'a self,
        size: Winograd,
        form: &str,
        kept_bytes: usize,
        legal: bool,
        with: impl Fn(&mut dyn FnMut(Resident<'_>)) + 'a,
    ) -> Candidate<'a> {
        let (shape, isa) = (&self.shape, self.isa);
        let panels = shape.panels();
        let mut scratch = vec![0.0; winograd::workspace(size, shape, panels, shape.out_h, 0)];
        Candidate {
            name: format!("conv_winograd{}_{}, kept {form}", size.tile(), isa.name()),
            workspace_bytes: size_of_val(scratch.as_slice()),
            kept_bytes,
            legal,
            run: Box::new(move |out| {
                with(&mut |weights| {
                    winograd::run(
                        isa,
                        size,
                        shape,
                        weights,
                        0..panels,
                        self.input(),
                        0..shape.out_h,
                        &mut self.output(out),
                        Start::Zero,
                        Some(&RELU),
                        &mut scratch,
                    );
                });
            }),
        }
    }

    fn measure(&self, millis: u64) -> Vec<Row> {
        let len = self.outputs();
        let mut candidates = self.candidates();
        let (mut baseline, mut out) = (Vec::new(), vec![0.0; len]);
        let mut differences = Vec::new();
        // The first run warms up and gives the output to compare.
        for candidate in &mut candidates {
            out.fill(f32::NAN);
            (candidate.run)(&mut out);
            if baseline.is_empty() {
                baseline.clone_from(&out);
            }
            differences.push(difference(&out, &baseline));
        }
        let mut times = vec![Vec::new(); candidates.len()];
        let least = Duration::from_millis(millis).as_secs_f64() * 1e3;
        let wants = |times: &[f64]| times.len() < RUNS || times.iter().sum::<f64>() < least;
        while times.iter().any(|times| wants(times)) {
            for (candidate, times) in candidates.iter_mut().zip(&mut times) {
                if wants(times) {
                    let begin = Instant::now();
                    (candidate.run)(&mut out);
                    times.push(begin.elapsed().as_secs_f64() * 1e3);
                }
            }
        }
        let rows = candidates.into_iter().zip(&mut times).zip(differences);
        rows.filter_map(|((candidate, times), difference)| {
            Some(Row {
                name: candidate.name,
                workspace_bytes: candidate.workspace_bytes,
                kept_bytes: candidate.kept_bytes,
                times: Times::of(times)?,
                difference,
            })
        })
        .collect()
    }
}

impl Cut {
    fn tile(self, values: TileValues<'_>) -> WeightTile<'_> {
        WeightTile {
            first_panel: self.first_panel,
            panels: self.panels,
            k0: self.k0,
            k_len: self.k_len,
            order: KOrder::ChannelMajor,
            values,
        }
    }
}

/// Whether a session accepts the error of a size with its default limit.
fn within_default(size: Winograd) -> bool {
    size != Winograd::F6
}

/// The largest, relative to the largest magnitude of `expected`; not a number if one of `out` is not.
fn difference(out: &[f32], expected: &[f32]) -> f32 {
    let unit = (expected.iter()).fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    let differences = out.iter().zip(expected).map(|(a, b)| (a - b).abs() / unit);
    differences.fold(0.0, |worst, d| if d <= worst { worst } else { d })
}

/// A linear congruential generator; the upper bits are used.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = (self.0)
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 40
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_shapes_are_convolutions_of_the_promised_networks() {
        let shapes: Shapes = cases::read(None, include_str!("../cases/conv.toml")).unwrap();
        assert!(shapes.shapes.len() >= 24);
        for shape in &shapes.shapes {
            assert!(shape.geometry().unwrap().out_h > 0, "{}", shape.name);
        }
        for network in ["contest", "sface", "mobilefacenet", "resnet50", "vgg16"] {
            assert!(
                shapes.shapes.iter().any(|s| s.network == network),
                "{network}"
            );
        }
        for kernel in [5, 7, 11, 31] {
            assert!(shapes.shapes.iter().any(|s| s.kernel == kernel), "{kernel}");
        }
        assert!(shapes.shapes.iter().any(|s| s.stride == 2));
    }

    #[test]
    fn algorithms_agree() {
        let shape = |kernel| Shape {
            network: String::new(),
            name: String::new(),
            channels: [16, 20],
            groups: 1,
            kernel,
            stride: 1,
            pad: None,
            size: 8,
        };
        // Tiles that hold a part of k only.
        let geometry = shape(31).geometry().unwrap();
        let layer = Layer::new(Isa::detect(), geometry, 50, 1);
        assert!(layer.tiles.len() > 1);
        for row in layer.measure(0) {
            assert!(row.difference < 1e-4, "{} {}", row.name, row.difference);
        }
        // Weights that are kept.
        let geometry = shape(3).geometry().unwrap();
        let rows = Layer::new(Isa::detect(), geometry, 50, 4).measure(0);
        assert!(rows.iter().filter(|row| row.kept_bytes > 0).count() > 1);
        for row in rows {
            assert!(row.difference < 1e-4, "{} {}", row.name, row.difference);
        }
    }
}
