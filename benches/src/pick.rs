//! `bench pick`: is the planner's choice for a layer the fastest there is?
//!
//! For every shape of `bench conv` a network of this one layer is coded in memory and planned with unlimited memory on one
//! thread; its algorithm and the form of its weights are then measured beside everything else that the session could run
//! within its error limit. Rounds alternate, so that a disturbance of the machine hits all; before each run the caches are
//! filled with something else and the input is read again, as in a network that is larger than the caches (not with
//! `--warm`). A choice that is slower than the best by more than the allowed share is measured again, twice, beside those
//! that beat it. Fails when one stays behind.

use crate::Result;
use crate::cases;
use crate::conv::{Arena, Caches, Candidate, Layer, Shape, Shapes, in_turn};
use crate::record::{Output, Report};
use crate::stats::median;
use dcz::{MemoryBudget, Model, Session, SessionOptions, Threads, Tier};
use dcz_format::graph::{Conv, Dim, Meaning, Network, Node, Op, Pads, Tensor, TensorId};
use dcz_format::layer::{KOrder, LayerShape, Steps, Values};
use dcz_format::writer::{IndexChoice, LayerInput, NetworkInput, Weights, WriteOptions, encode};
use dcz_kernels::{ALGOS, Algo, Isa};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

/// Least number of rounds.
const ROUNDS: usize = 5;
/// Most of them: quick layers need no more, and the caches are filled before each.
const MOST_ROUNDS: usize = 40;
/// Measurements before a choice fails.
const ATTEMPTS: usize = 3;

/// Options of `bench pick`.
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
    /// How much slower than the best a choice may be, in percent.
    #[arg(long, default_value_t = 10.0)]
    allowed: f64,
    /// Time for each algorithm on each shape, in milliseconds.
    #[arg(long, default_value_t = 30)]
    millis: u64,
    /// Leave the weights in the caches between runs.
    #[arg(long)]
    warm: bool,
    /// Times from what `--json` printed before instead of measuring: the choices of new prices. Of several the median.
    #[arg(long, value_name = "JSON")]
    times: Vec<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Measures and prints; fails when a choice is too slow.
pub fn run(args: &Args) -> Result<ExitCode> {
    let built_in = include_str!("../cases/conv.toml");
    let shapes: Shapes = cases::read(args.cases.as_deref(), built_in)?;
    let zeros = if args.zeros.is_empty() {
        &shapes.zeros
    } else {
        &args.zeros
    };
    let recorded = recorded(&args.times)?;
    let mut report = Report::begin("pick");
    let mut caches = Caches::new(!args.warm);
    let (mut failed, mut measured) = (0, 0);
    for shape in &shapes.shapes {
        let title = format!("{} {}", shape.network, shape.name);
        let wanted = args.case.as_ref().is_none_or(|part| title.contains(part));
        for &percent in zeros.iter().filter(|_| wanted) {
            let (picked, isa) = pick(shape, percent.min(100))?;
            let verdict = if args.times.is_empty() {
                judge(shape, percent.min(100), (&picked, isa), args, &mut caches)?
            } else {
                let key = (title.clone(), percent);
                match recorded.get(&key) {
                    Some(times) => Verdict::of(&picked, times.clone())?,
                    None => continue,
                }
            };
            let ratio = verdict.chosen_ms / verdict.best_ms;
            let slow = ratio > 1.0 + args.allowed / 100.0;
            measured += 1;
            failed += usize::from(slow);
            if !args.output.json {
                println!(
                    "{title:<36} {percent:>3}%  {picked:<42} {:>8.3} ms  best {:<42} {:>8.3} ms  {ratio:>5.2}{}",
                    verdict.chosen_ms,
                    verdict.best,
                    verdict.best_ms,
                    if slow { "  SLOW" } else { "" }
                );
            }
            report.row(json!({
                "network": shape.network, "shape": shape.name, "zeros_percent": percent, "warm": args.warm,
                "chosen": picked, "chosen_ms": verdict.chosen_ms, "best": verdict.best, "best_ms": verdict.best_ms,
                "ratio": ratio, "slow": slow, "times": verdict.times,
            }));
        }
    }
    if !args.output.json {
        println!(
            "{failed} of {measured} choices slower than the best by more than {} %",
            args.allowed
        );
    }
    report.finish(&args.output)?;
    Ok(if failed > 0 || measured == 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Milliseconds by algorithm.
type All = BTreeMap<String, f64>;

/// What was measured.
struct Verdict {
    chosen_ms: f64,
    best: String,
    best_ms: f64,
    /// Of all algorithms, at the first attempt.
    times: All,
}

impl Verdict {
    fn of(picked: &str, times: All) -> Result<Verdict> {
        let least = times.iter().min_by(|a, b| a.1.total_cmp(b.1));
        let (best, best_ms) = least
            .map(|(name, ms)| (name.clone(), *ms))
            .ok_or("no algorithm")?;
        let chosen = times.get(picked).copied();
        Ok(Verdict {
            chosen_ms: chosen.ok_or_else(|| format!("{picked} is not measured"))?,
            best,
            best_ms,
            times,
        })
    }
}

/// A row of what `--json` printed.
#[derive(Deserialize)]
struct Recorded {
    network: String,
    shape: String,
    zeros_percent: u64,
    times: All,
}

#[derive(Deserialize)]
struct Run {
    rows: Vec<Recorded>,
}

/// Medians of recorded times, by title and percentage of zeros.
fn recorded(files: &[PathBuf]) -> Result<BTreeMap<(String, u64), All>> {
    let mut all: BTreeMap<(String, u64), BTreeMap<String, Vec<f64>>> = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let run: Run = serde_json::from_str(line)
                .map_err(|e| format!("{}: not from `bench pick --json`: {e}", file.display()))?;
            for row in run.rows {
                let title = format!("{} {}", row.network, row.shape);
                let times = all.entry((title, row.zeros_percent)).or_default();
                for (name, ms) in row.times {
                    times.entry(name).or_default().push(ms);
                }
            }
        }
    }
    let middle = |times: BTreeMap<String, Vec<f64>>| {
        let times = times.into_iter();
        times
            .filter_map(|(name, ms)| Some((name, median(&ms)?)))
            .collect()
    };
    Ok(all
        .into_iter()
        .map(|(k, times)| (k, middle(times)))
        .collect())
}

fn judge(
    shape: &Shape,
    zeros: u64,
    (picked, isa): (&str, Isa),
    args: &Args,
    caches: &mut Caches,
) -> Result<Verdict> {
    let layer = Layer::new(isa, shape.geometry()?, zeros, 1);
    let mut candidates = layer.candidates(false);
    candidates.retain(|c| c.legal);
    if !candidates.iter().any(|c| c.name == picked) {
        return Err(format!("{}: {picked} is not measured", shape.name).into());
    }
    let mut verdict: Option<Verdict> = None;
    for _ in 0..ATTEMPTS {
        let times = measure(&layer, &mut candidates, args.millis, caches);
        let names = candidates.iter().map(|c| c.name.clone());
        let mut now = Verdict::of(picked, names.zip(times.iter().copied()).collect())?;
        let chosen_ms = now.chosen_ms;
        let slow = chosen_ms > now.best_ms * (1.0 + args.allowed / 100.0);
        if let Some(first) = verdict {
            now.times = first.times;
        }
        verdict = Some(now);
        if !slow {
            break;
        }
        let mut times = times.into_iter();
        candidates.retain(|_| times.next().is_some_and(|ms| ms <= chosen_ms));
    }
    verdict.ok_or_else(|| "not measured".into())
}

/// Median milliseconds of each candidate.
fn measure(
    layer: &Layer,
    candidates: &mut [Candidate<'_>],
    millis: u64,
    caches: &mut Caches,
) -> Vec<f64> {
    let mut arena = Arena::new(layer, candidates);
    candidates.iter_mut().for_each(|c| arena.run(c));
    let wants = |times: &[f64]| {
        let more = times.iter().sum::<f64>() < millis as f64;
        times.len() < ROUNDS || (more && times.len() < MOST_ROUNDS)
    };
    let times = in_turn(layer, candidates, &mut arena, caches, wants);
    let medians = times.iter().map(|times| median(times).unwrap_or(f64::NAN));
    medians.collect()
}

/// The planner's choice for a layer, named as `bench conv` names its rows, and the instruction set that it is for.
fn pick(shape: &Shape, zeros: u64) -> Result<(String, Isa)> {
    let model = Model::from_bytes(one_layer(shape, zeros)?)?;
    let options = SessionOptions::default()
        .with_memory_budget(MemoryBudget::Max)
        .with_threads(Threads::Inline);
    let mut session = Session::new(&model, options)?;
    let [channels, _] = shape.channels;
    let dims = [1, channels, shape.size, shape.size];
    let plan = session.prepare(&[("input", &dims)])?;
    let step = plan.steps.iter().find(|step| step.algorithm.is_some());
    let step = step.ok_or("a plan without an algorithm")?;
    let algorithm = step.algorithm.clone().unwrap_or_default();
    let joins =
        |algo: &Algo, name: &str| name.starts_with(algo.name) && dcz_kernels::joins(algo.algo);
    let transformed = |form: &str| {
        let size = algorithm.trim_start_matches("conv_winograd").chars().next();
        let size = size.unwrap_or('?');
        format!("conv_winograd{size}_{}, kept {form}", plan.isa)
    };
    let isa = Isa::from_name(plan.isa).ok_or("a plan for another processor")?;
    let name = match step.tier {
        // Tiles that are there together are computed together.
        Some(Tier::Codes) if ALGOS.iter().any(|a| joins(a, &algorithm)) => {
            format!("{algorithm}, kept codes")
        }
        Some(Tier::Float) => format!("{algorithm}, kept f32"),
        Some(Tier::Winograd) => transformed("f32"),
        Some(Tier::Winograd16) => transformed("i16"),
        Some(Tier::Lists) => format!("{algorithm}, lists"),
        _ => algorithm,
    };
    Ok((name, isa))
}

/// A container with this convolution, i8 codes of one step, so many percent of them zero.
fn one_layer(shape: &Shape, zeros: u64) -> Result<Vec<u8>> {
    let [inputs, outputs] = shape.channels.map(|c| c as u32);
    let kernel = shape.kernel as u32;
    let geometry = LayerShape {
        out_channels: outputs,
        in_per_group: inputs / shape.groups as u32,
        kernel: [kernel; 2],
        groups: shape.groups as u32,
    };
    let mut random = crate::conv::Random(3);
    let codes: Vec<u8> = (0..geometry.weights())
        .map(|_| {
            let zero = random.next() % 100 < zeros;
            if zero {
                0
            } else {
                (random.next() % 127) as u8 + 1
            }
        })
        .collect();
    let absent = codes.iter().map(|&code| code == 0).collect();
    let layer = LayerInput {
        name: "conv".into(),
        shape: geometry,
        k_order: KOrder::ChannelMajor,
        values: Values::Grid {
            steps: Steps::Layer(0.01),
        },
        weights: Weights::Codes { codes, absent },
        index: IndexChoice::Auto,
        cosine: 1.0,
        max_error: 0.0,
    };
    let tensor = |name: &str, dims: Vec<Dim>| Tensor {
        name: name.into(),
        dims,
        quant: None,
    };
    let size = shape.size as u32;
    let dims = [1, inputs, size, size].map(Dim::Fixed).to_vec();
    let conv = Conv {
        layer: dcz_format::graph::LayerId(0),
        bias: None,
        strides: [shape.stride.max(1) as u32; 2],
        dilations: [1; 2],
        pads: Pads::Explicit([shape.padding() as u32; 4]),
    };
    let network = Network {
        name: "one layer".into(),
        tensors: vec![tensor("input", dims), tensor("output", Vec::new())],
        nodes: vec![Node {
            name: "conv".into(),
            op: Op::Conv(conv),
            inputs: vec![TensorId(0)],
            output: TensorId(1),
        }],
        inputs: vec![TensorId(0)],
        outputs: vec![dcz_format::graph::Output {
            tensor: TensorId(1),
            meaning: Meaning::Unknown,
        }],
        ..Network::default()
    };
    let input = NetworkInput {
        network,
        layers: vec![layer],
        constants: Vec::new(),
    };
    let written = encode(vec![input], &WriteOptions::default(), &mut |_, _| {})?;
    Ok(written.to_bytes()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_of_the_suite_is_among_the_measured_ones() {
        let shapes: Shapes = cases::read(None, include_str!("../cases/conv.toml")).unwrap();
        // The large ones only take longer to code.
        for shape in shapes.shapes.iter().filter(|s| s.weights() < 300_000) {
            for zeros in [0, 80] {
                let (picked, isa) = pick(shape, zeros).unwrap();
                let layer = Layer::new(isa, shape.geometry().unwrap(), zeros, 1);
                let candidates = layer.candidates(false);
                let found = candidates.iter().find(|c| c.name == picked);
                assert!(found.is_some_and(|c| c.legal), "{}: {picked}", shape.name);
            }
        }
    }
}
