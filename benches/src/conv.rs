//! `bench conv`: every convolution algorithm on shapes of well-known networks.
//!
//! Iterates the kernels' own table, so a new algorithm appears by itself. There the weights are i8 codes with one step,
//! cut into tiles as the writer cuts them and expanded anew in every call, as in a plan that keeps nothing. Rows that
//! say `kept` have their weights made ready before: as codes or f32, whose tiles are computed together where the
//! algorithm can, Winograd transformed to f32 or 16 bits. `--fit` measures what `bench fit` needs: with weights cold, as
//! in a network larger than the caches, and activations and scratch warm, from look-up tables too, and linear layers.
//! Activations have the runtime's layout. The candidates of a shape run in turn, one convolution each, until every one
//! has had its share of time: a disturbance of the machine hits all of them. Times are relative to the direct algorithm,
//! or the first of the table where there is none; both are dense.

use crate::Result;
use crate::cases;
use crate::record::{Output, Report};
use crate::stats::Times;
use dcz::cost;
#[cfg(feature = "fft")]
use dcz_kernels::fft::FftPlan;
use dcz_kernels::winograd::{self, Resident, Winograd};
use dcz_kernels::{
    ALGOS, Activation, Algo, ConvAlgo, ConvShape, Epilogue, Isa, KOrder, Lut, Map, Start, Steps,
    TileValues, View, ViewMut, WeightTile, conv_tiles, kernel_name, sparse, weights::PANEL,
    workspace,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

mod linear;

/// Weights of a tile.
const TILE: usize = 65_536;
/// Least number of timed runs.
const RUNS: usize = 3;
/// Most of them with cold caches: filling those takes longer than quick layers.
const COLD_RUNS: usize = 40;

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
    /// For `bench fit`: weights cold, in all forms, dense algorithms without zeros only, and linear layers.
    #[arg(long)]
    fit: bool,
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
#[derive(Clone, Debug, Deserialize, Serialize)]
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
    model: Option<Model>,
    times: Times,
    /// Largest difference from the baseline's output, relative to the largest magnitude of that.
    difference: f32,
}

/// What a row is to the planner's model of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Model {
    /// As the kernels' enum names it; of linear layers empty.
    pub(crate) algorithm: String,
    pub(crate) weights: Source,
    /// Tiles are computed together.
    pub(crate) joined: bool,
    /// Share of weights that are not skipped.
    pub(crate) present: f64,
    /// Of lists.
    pub(crate) entries: u64,
    /// Of a linear layer.
    pub(crate) rows: usize,
}

/// Where weights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Source {
    I8,
    /// A table of 16 values.
    Lut,
    /// A table of 64.
    Wide,
    Float,
    Transformed,
    Transformed16,
    Lists,
    Fft,
    /// Of a linear layer: codes in the caches.
    Decoded,
}

/// A way to compute the shape.
pub(crate) struct Candidate<'a> {
    pub(crate) name: String,
    /// Elements of scratch.
    workspace: usize,
    kept_bytes: usize,
    /// Within the error limit of a session, alone in its network, for all codes.
    pub(crate) legal: bool,
    model: Option<Model>,
    run: Compute<'a>,
}

/// Computes the shape into an output, with scratch.
type Compute<'a> = Box<dyn FnMut(&mut [f32], &mut [f32]) + 'a>;

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
    let mut caches = Caches::new(args.fit);
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
            let mut candidates = layer.candidates(args.fit);
            if args.fit {
                candidates.retain(|c| c.model.as_ref().is_some_and(|m| m.skips() == (percent > 0)));
            }
            let rows = measure(&layer, candidates, args.millis, &mut caches);
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
                    "geometry": shape, "model": row.model,
                }));
            }
        }
    }
    if args.fit
        && args
            .case
            .as_ref()
            .is_none_or(|part| "linear".contains(part.as_str()))
    {
        linear::run(isa, args.millis, &mut caches, &mut report);
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
pub(crate) struct Cut {
    first_panel: usize,
    pub(crate) panels: usize,
    k0: usize,
    pub(crate) k_len: usize,
}

/// The tiles of a layer.
pub(crate) fn cuts(shape: &ConvShape) -> Vec<Cut> {
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
    tiles
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
        let tiles = cuts(&shape);
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

    /// All ways to compute it, the baseline first; with `all_forms` from look-up tables too, which a session does not have
    /// for weights that are i8 codes.
    pub(crate) fn candidates(&self, all_forms: bool) -> Vec<Candidate<'_>> {
        let mut candidates = Vec::new();
        let Some(baseline) = self.baseline() else {
            return candidates;
        };
        let others = ALGOS
            .iter()
            .filter(|algo| algo.algo != baseline.algo && (algo.supports)(&self.shape));
        for algo in std::iter::once(baseline).chain(others) {
            candidates.push(self.by_tiles(algo, Values::I8, false));
        }
        let priced = cost::table(self.isa).tiles;
        for algo in ALGOS.iter().filter(|algo| (algo.supports)(&self.shape)) {
            let known = priced.iter().any(|cost| cost.algorithm == algo.algo);
            if known && dcz_kernels::joins(algo.algo) {
                candidates.push(self.by_tiles(algo, Values::I8, true));
            }
            if known || algo.algo == baseline.algo {
                candidates.push(self.by_tiles(algo, Values::Float(self.expanded()), true));
            }
            if known && all_forms {
                candidates.push(self.by_tiles(algo, self.looked_up(16), false));
                candidates.push(self.by_tiles(algo, self.looked_up(64), false));
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

    fn expanded(&self) -> Vec<f32> {
        let expanded = self.codes.iter().map(|&q| f32::from(q) * self.step);
        expanded.collect()
    }

    /// The codes as those of a table of so many values, zero among them.
    fn looked_up(&self, len: i32) -> Values {
        let half = len / 2;
        let values: Vec<f32> = (0..len).map(|c| (c - half) as f32 * self.step).collect();
        let code = |&q: &i8| (i32::from(q) * half / 128 + half) as u8;
        let codes = self.codes.iter().map(code).collect();
        Values::Lut(codes, Box::new(Lut::new(&values)))
    }

    /// Share of groups of output channels that an algorithm does not skip.
    fn present(&self, algo: ConvAlgo) -> f64 {
        let group = match algo {
            ConvAlgo::DirectSparse => 1,
            ConvAlgo::BlockSparse2 => 2,
            ConvAlgo::BlockSparse4 => 4,
            _ => return 1.0,
        };
        let groups = || self.codes.chunks(group);
        let present = groups().filter(|codes| codes.iter().any(|&q| q != 0));
        present.count() as f64 / groups().count().max(1) as f64
    }

    fn model(&self, algo: ConvAlgo, weights: Source) -> Model {
        Model {
            algorithm: format!("{algo:?}"),
            weights,
            joined: false,
            present: self.present(algo),
            entries: 0,
            rows: 0,
        }
    }

    /// Tile by tile, as the runtime does, or as many together as it joins where all are `kept`.
    fn by_tiles(&self, algo: &'static Algo, values: Values, kept: bool) -> Candidate<'_> {
        let (shape, isa) = (&self.shape, self.isa);
        let joined = kept && dcz_kernels::joins(algo.algo);
        let most = if joined { dcz_kernels::JOINED } else { 1 };
        // Numbers of neighbouring tiles of the same k that are computed together.
        let mut groups: Vec<usize> = Vec::new();
        let mut at = 0;
        while let Some(first) = self.tiles.get(at) {
            let (mut panels, mut count) = (0, 0);
            for next in &self.tiles[at..] {
                panels += next.panels;
                let alike = (next.k0, next.k_len) == (first.k0, first.k_len);
                if count > 0 && (!alike || panels > most) {
                    break;
                }
                count += 1;
            }
            groups.push(count);
            at += count;
        }
        let panels = |t: &Cut| {
            if joined {
                most.max(t.panels).min(shape.panels())
            } else {
                t.panels
            }
        };
        let sizes =
            (self.tiles.iter()).map(|t| workspace(algo.algo, shape, panels(t), shape.out_h));
        let workspace = sizes.max().unwrap_or(0);
        let (form, source, kept_bytes) = match &values {
            Values::I8 if kept => (", kept codes", Source::I8, self.codes.len()),
            Values::I8 => ("", Source::I8, 0),
            Values::Float(weights) => (", kept f32", Source::Float, size_of_val(&**weights)),
            Values::Lut(_, lut) if lut.codes() <= 16 => (", table of 16", Source::Lut, 0),
            Values::Lut(..) => (", table of 64", Source::Wide, 0),
        };
        let model = self.model(algo.algo, source);
        Candidate {
            name: kernel_name(algo.algo, isa) + form,
            workspace,
            kept_bytes,
            legal: true,
            model: Some(Model { joined, ..model }),
            run: Box::new(move |out, scratch| {
                let (mut at, mut index) = (0, 0);
                let mut before = None;
                for &count in &groups {
                    let cut = self.tiles[index];
                    let like = Some((cut.panels, cut.k0, cut.k_len));
                    let warm = like == std::mem::replace(&mut before, like);
                    let tiles: Vec<WeightTile<'_>> = (self.tiles[index..index + count].iter())
                        .map(|cut| {
                            let range = at..at + cut.weights();
                            at = range.end;
                            cut.tile(values.part(self, range))
                        })
                        .collect();
                    index += count;
                    let start = match cut.k0 {
                        0 => Start::Zero,
                        _ => Start::Accumulate,
                    };
                    let last = cut.k0 + cut.k_len == shape.k();
                    conv_tiles(
                        isa,
                        algo.algo,
                        shape,
                        &tiles,
                        self.input(),
                        0..shape.out_h,
                        &mut self.output(out),
                        start,
                        last.then_some(&RELU),
                        warm,
                        scratch,
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
        let mut scratch = vec![0.0; plan.transform_workspace()];
        plan.transform(&self.whole(), &mut weights, &mut scratch);
        Some(Candidate {
            name: kernel_name(ConvAlgo::Fft, isa),
            workspace: plan.workspace(),
            kept_bytes: size_of_val(weights.as_slice()) + plan.bytes(),
            legal: true,
            model: Some(self.model(ConvAlgo::Fft, Source::Fft)),
            run: Box::new(move |out, scratch| {
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
                    scratch,
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
        let workspace = sparse::run_workspace(shape, panels, shape.out_h);
        let kept = [
            size_of_val(starts.as_slice()),
            size_of_val(places.as_slice()),
            size_of_val(values.as_slice()),
        ];
        Candidate {
            name: format!("{}, lists", kernel_name(algo, isa)),
            workspace,
            kept_bytes: kept.iter().sum(),
            legal: true,
            model: Some(Model {
                entries: entries as u64,
                ..self.model(algo, Source::Lists)
            }),
            run: Box::new(move |out, scratch| {
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
                    scratch,
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
        let (algo, weights) = (
            match size {
                Winograd::F2 => ConvAlgo::Winograd2,
                Winograd::F4 => ConvAlgo::Winograd4,
                Winograd::F6 => ConvAlgo::Winograd6,
            },
            match form {
                "f32" => Source::Transformed,
                _ => Source::Transformed16,
            },
        );
        let workspace = winograd::workspace(size, shape, panels, shape.out_h, 0);
        Candidate {
            name: format!("conv_winograd{}_{}, kept {form}", size.tile(), isa.name()),
            workspace,
            kept_bytes,
            legal,
            model: Some(self.model(algo, weights)),
            run: Box::new(move |out, scratch| {
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
                        scratch,
                    );
                });
            }),
        }
    }
}

/// Weights of tiles.
enum Values {
    I8,
    Float(Vec<f32>),
    Lut(Vec<u8>, Box<Lut>),
}

impl Values {
    fn part<'a>(&'a self, layer: &'a Layer, range: std::ops::Range<usize>) -> TileValues<'a> {
        match self {
            Values::I8 => TileValues::I8 {
                q: &layer.codes[range],
                steps: Steps::Layer(layer.step),
            },
            Values::Float(weights) => TileValues::F32(&weights[range]),
            Values::Lut(codes, lut) => TileValues::Lut {
                codes: &codes[range],
                lut,
            },
        }
    }
}

impl Model {
    /// Zeros are skipped, which makes it faster.
    pub(crate) fn skips(&self) -> bool {
        self.weights == Source::Lists || self.algorithm.contains("Sparse")
    }
}

/// Memory that pushes everything else out of the caches.
pub(crate) struct Caches(Vec<u64>);

impl Caches {
    /// Does nothing unless `cold`.
    pub(crate) fn new(cold: bool) -> Caches {
        const BYTES: usize = 48 << 20;
        Caches(vec![0; if cold { BYTES / 8 } else { 0 }])
    }

    /// Fills the caches with something else.
    pub(crate) fn sweep(&mut self) {
        let words = self.0.iter_mut().step_by(8);
        words.for_each(|word| *word = word.wrapping_add(1));
    }

    fn is_cold(&self) -> bool {
        !self.0.is_empty()
    }
}

/// Where candidates of a layer put their output and their scratch, as a session's arena has room for all its steps.
pub(crate) struct Arena {
    out: Vec<f32>,
    scratch: Vec<f32>,
}

impl Arena {
    /// Room for any of them.
    pub(crate) fn new(layer: &Layer, candidates: &[Candidate<'_>]) -> Arena {
        let most = candidates.iter().map(|c| c.workspace).max();
        Arena {
            out: vec![0.0; layer.outputs()],
            scratch: vec![0.0; most.unwrap_or(0)],
        }
    }

    /// Computes the layer.
    pub(crate) fn run(&mut self, candidate: &mut Candidate<'_>) {
        (candidate.run)(&mut self.out, &mut self.scratch[..candidate.workspace]);
    }

    /// Reads what a run of the candidate writes.
    fn touch(&self, candidate: &Candidate<'_>) -> f32 {
        let scratch = &self.scratch[..candidate.workspace];
        scratch.iter().chain(&self.out).sum()
    }
}

/// Milliseconds of runs of each candidate, in turn, until each has had its time: `wants(its times)`. With cold caches what a
/// layer finds warm in a network is read again before a run: its input, and of the arena its output's place and its scratch.
pub(crate) fn in_turn(
    layer: &Layer,
    candidates: &mut [Candidate<'_>],
    arena: &mut Arena,
    caches: &mut Caches,
    wants: impl Fn(&[f64]) -> bool,
) -> Vec<Vec<f64>> {
    let mut times = vec![Vec::new(); candidates.len()];
    while times.iter().any(|times| wants(times)) {
        for (candidate, times) in candidates.iter_mut().zip(&mut times) {
            if wants(times) {
                if caches.is_cold() {
                    caches.sweep();
                    std::hint::black_box((arena.touch(candidate), layer.touch_input()));
                }
                let begin = Instant::now();
                arena.run(candidate);
                times.push(begin.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    times
}

fn measure(
    layer: &Layer,
    mut candidates: Vec<Candidate<'_>>,
    millis: u64,
    caches: &mut Caches,
) -> Vec<Row> {
    let mut arena = Arena::new(layer, &candidates);
    let (mut baseline, mut differences) = (Vec::new(), Vec::new());
    // The first run warms up and gives the output to compare.
    for candidate in &mut candidates {
        arena.out.fill(f32::NAN);
        arena.run(candidate);
        if baseline.is_empty() {
            baseline.clone_from(&arena.out);
        }
        differences.push(difference(&arena.out, &baseline));
    }
    let most = if caches.is_cold() {
        COLD_RUNS
    } else {
        usize::MAX
    };
    let wants = |times: &[f64]| {
        let more = times.iter().sum::<f64>() < millis as f64;
        times.len() < RUNS || (more && times.len() < most)
    };
    let mut times = in_turn(layer, &mut candidates, &mut arena, caches, wants);
    let rows = candidates.into_iter().zip(&mut times).zip(differences);
    rows.filter_map(|((candidate, times), difference)| {
        Some(Row {
            name: candidate.name,
            workspace_bytes: candidate.workspace * size_of::<f32>(),
            kept_bytes: candidate.kept_bytes,
            model: candidate.model,
            times: Times::of(times)?,
            difference,
        })
    })
    .collect()
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
        for row in measure(&layer, layer.candidates(false), 0, &mut Caches::new(false)) {
            assert!(row.difference < 1e-4, "{} {}", row.name, row.difference);
        }
        // Weights that are kept.
        let geometry = shape(3).geometry().unwrap();
        let layer = Layer::new(Isa::detect(), geometry, 50, 4);
        let candidates = layer.candidates(false);
        let rows = measure(&layer, candidates, 0, &mut Caches::new(false));
        assert!(rows.iter().filter(|row| row.kept_bytes > 0).count() > 1);
        for row in rows {
            assert!(row.difference < 1e-4, "{} {}", row.name, row.difference);
        }
    }
}
