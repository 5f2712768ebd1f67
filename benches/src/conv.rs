//! `bench conv`: every convolution algorithm on shapes of well-known networks.
//!
//! Iterates the kernels' own table, so a new algorithm appears by itself. Weights are i8 codes with one step, cut into
//! tiles as the writer cuts them and expanded anew in every call, as in a plan that keeps nothing; activations have the
//! runtime's layout. The algorithms of a shape run in turn, one convolution each, until every one has had its share of
//! time: a disturbance of the machine hits all of them. The baseline of a shape is the first algorithm of the table
//! that supports it, which is dense.

use crate::Result;
use crate::cases;
use crate::record::{Output, Report};
use crate::stats::Times;
use dcz_kernels::{
    ALGOS, Activation, Algo, ConvShape, Epilogue, Isa, KOrder, Map, Start, Steps, TileValues, View,
    ViewMut, WeightTile, conv_tile, kernel_name, weights::PANEL, workspace,
};
use serde::Deserialize;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Weights of a tile.
const TILE: usize = 65_536;

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
    /// Time for each algorithm on each shape, in milliseconds.
    #[arg(long, default_value_t = 150)]
    millis: u64,
    /// Instruction set: portable or avx2; by default the best this processor has.
    #[arg(long)]
    isa: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// The file of shapes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shapes {
    /// Percentages of zero weights.
    zeros: Vec<u64>,
    #[serde(rename = "shape")]
    shapes: Vec<Shape>,
}

/// A square convolution.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    /// Where it comes from.
    network: String,
    /// Its layer, or what is special about it.
    name: String,
    /// Input and output channels.
    channels: [usize; 2],
    #[serde(default = "one")]
    groups: usize,
    kernel: usize,
    #[serde(default = "one")]
    stride: usize,
    /// Half the kernel unless given.
    pad: Option<usize>,
    /// Rows and columns of the input.
    size: usize,
}

fn one() -> usize {
    1
}

impl Shape {
    fn geometry(&self) -> Result<ConvShape> {
        let pad = self.pad.unwrap_or(self.kernel / 2);
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
    kernel: String,
    workspace_bytes: usize,
    times: Times,
    /// Largest difference from the baseline's output, relative to the largest magnitude of that.
    difference: f32,
}

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
            "{:<14} {:<22} {:>5}  {:<34} {:>8} {:>8} {:>7} {:>11} {:>8}",
            "network",
            "shape",
            "zeros",
            "algorithm",
            "min ms",
            "GMAC/s",
            "time",
            "workspace",
            "differs"
        );
    }
    for shape in shapes.shapes.iter().filter(wanted) {
        let geometry = shape.geometry()?;
        let macs = geometry.out_channels * geometry.k() * geometry.out_h * geometry.out_w;
        for &percent in zeros {
            let rows = measure(isa, &geometry, percent.min(100), args.millis);
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
                        "{:<14} {:<22} {:>4}%  {:<34} {:>8.3} {:>8.1} {:>7.2} {:>7} KiB {:>8.0e}{}",
                        shape.network,
                        shape.name,
                        percent,
                        row.kernel,
                        row.times.min_ms,
                        rate,
                        relative,
                        row.workspace_bytes / 1024,
                        row.difference,
                        if row.times.min_ms <= best { " *" } else { "" }
                    );
                }
                report.row(json!({
                    "network": shape.network, "shape": shape.name, "channels": shape.channels, "groups": shape.groups,
                    "kernel": shape.kernel, "stride": shape.stride, "size": shape.size, "zeros_percent": percent,
                    "algorithm": row.kernel, "times": row.times, "gmac_per_s": rate, "relative_time": relative,
                    "workspace_bytes": row.workspace_bytes, "difference": row.difference,
                }));
            }
        }
    }
    if !args.output.json {
        println!(
            "time: relative to the first algorithm of the shape; *: the fastest; GMAC/s: dense"
        );
    }
    report.finish(&args.output)?;
    Ok(ExitCode::SUCCESS)
}

/// A convolution with its weights cut into tiles.
struct Layer {
    shape: ConvShape,
    /// `[tile][panel][k][8]`
    codes: Vec<i8>,
    /// First panel, panels, first k, length in k.
    tiles: Vec<[usize; 4]>,
    step: f32,
}

impl Layer {
    fn new(shape: ConvShape, zeros: u64) -> Layer {
        let (k, panels) = (shape.k(), shape.panels());
        let per_tile = (TILE / (k * PANEL)).max(1);
        let range = k.min(TILE / PANEL);
        let mut tiles = Vec::new();
        for first in (0..panels).step_by(per_tile) {
            let count = per_tile.min(panels - first);
            tiles.extend(
                (0..k)
                    .step_by(range)
                    .map(|k0| [first, count, k0, range.min(k - k0)]),
            );
        }
        let mut random = Random(1);
        let codes = (0..panels * k * PANEL)
            .map(|_| match random.next() % 100 < zeros {
                true => 0,
                // -127..=127 without 0
                false => {
                    let code = (random.next() % 254) as i16 - 127;
                    (code + i16::from(code >= 0)) as i8
                }
            })
            .collect();
        Layer {
            shape,
            codes,
            tiles,
            step: 0.01 / (k as f32).sqrt(),
        }
    }

    fn workspace(&self, algo: &Algo) -> usize {
        let rows = self.shape.out_h;
        let tile =
            |&[_, panels, _, k]: &[usize; 4]| workspace(algo.algo, &self.shape, panels, k, rows);
        self.tiles.iter().map(tile).max().unwrap_or(0)
    }

    fn run(&self, isa: Isa, algo: &Algo, input: View<'_>, out: &mut [f32], scratch: &mut [f32]) {
        let shape = &self.shape;
        let map = Map::rows(1, shape.out_channels, shape.out_h, shape.out_w);
        let epilogue = Epilogue {
            bias: None,
            activation: Activation::Relu,
        };
        let mut rest = self.codes.as_slice();
        for &[first_panel, panels, k0, k_len] in &self.tiles {
            let (q, after) = rest.split_at(panels * k_len * PANEL);
            rest = after;
            let tile = WeightTile {
                first_panel,
                panels,
                k0,
                k_len,
                order: KOrder::ChannelMajor,
                values: TileValues::I8 {
                    q,
                    steps: Steps::Layer(self.step),
                },
            };
            let start = match k0 {
                0 => Start::Zero,
                _ => Start::Accumulate,
            };
            let last = k0 + k_len == shape.k();
            conv_tile(
                isa,
                algo.algo,
                shape,
                &tile,
                input,
                0..shape.out_h,
                &mut ViewMut { data: out, map },
                start,
                last.then_some(&epilogue),
                scratch,
            );
        }
    }
}

fn measure(isa: Isa, shape: &ConvShape, zeros: u64, millis: u64) -> Vec<Row> {
    let layer = Layer::new(*shape, zeros);
    let map = Map::rows(1, shape.in_channels, shape.in_h, shape.in_w);
    let mut random = Random(2);
    let input: Vec<f32> = (0..map.span())
        .map(|_| (random.next() % 2048) as f32 / 1024.0 - 1.0)
        .collect();
    let input = View { data: &input, map };
    let outputs = shape.out_channels * shape.out_h * shape.out_w;
    let algorithms: Vec<&Algo> = ALGOS.iter().filter(|algo| (algo.supports)(shape)).collect();
    let mut runs: Vec<(Vec<f32>, Vec<f32>, Vec<f64>)> = algorithms
        .iter()
        .map(|algo| {
            (
                vec![0.0; outputs],
                vec![0.0; layer.workspace(algo)],
                Vec::new(),
            )
        })
        .collect();
    let mut round = 0;
    let spent = |times: &[f64]| times.iter().sum::<f64>();
    // The first round warms up and gives the outputs to compare.
    while round < 4
        || runs
            .iter()
            .any(|(_, _, times)| spent(times) < millis as f64)
    {
        for (algo, (out, scratch, times)) in algorithms.iter().zip(&mut runs) {
            if round >= 4 && spent(times) >= millis as f64 {
                continue;
            }
            let begin = Instant::now();
            layer.run(isa, algo, input, out, scratch);
            if round > 0 {
                times.push(begin.elapsed().as_secs_f64() * 1e3);
            }
        }
        round += 1;
    }
    let baseline = runs.first().map_or(Vec::new(), |(out, _, _)| out.clone());
    let unit = baseline
        .iter()
        .fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    let rows = algorithms
        .iter()
        .zip(&mut runs)
        .filter_map(|(algo, (out, scratch, times))| {
            let differences = out.iter().zip(&baseline).map(|(a, b)| (a - b).abs() / unit);
            Some(Row {
                kernel: kernel_name(algo.algo, isa),
                workspace_bytes: size_of_val(scratch.as_slice()),
                times: Times::of(times)?,
                difference: differences.fold(0.0, f32::max),
            })
        });
    rows.collect()
}

/// A linear congruential generator; the upper bits are used.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
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
    fn algorithms_agree_on_tiles_of_part_of_k() {
        let shape = Shape {
            network: String::new(),
            name: String::new(),
            channels: [16, 8],
            groups: 1,
            kernel: 31,
            stride: 1,
            pad: None,
            size: 8,
        };
        let geometry = shape.geometry().unwrap();
        assert!(Layer::new(geometry, 50).tiles.len() > 1);
        for row in measure(Isa::detect(), &geometry, 50, 0) {
            assert!(row.difference < 1e-3, "{} {}", row.kernel, row.difference);
        }
    }
}
