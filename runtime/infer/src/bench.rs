//! `--bench`: correctness first, then time.

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::report::Console;
use crate::{Input, Output, execute, prepare, run_into};
use dcz::graph::Network;
use dcz::oracle::{Array, ContainerWeights};
use dcz::{Model, Session, shape};
use serde_json::json;
use std::time::Instant;

/// Runs before the timed ones.
const WARM_UP: u32 = 3;

/// The self-test's input, or noise between 0 and 1 for a file without one.
pub fn generated(network: &Network) -> Result<Vec<Input>, Failure> {
    let noise = dcz::graph::SelfTest {
        generator: dcz::graph::Generator::SplitMix64,
        seed: 1,
        range: [0.0, 1.0],
        expected: Vec::new(),
    };
    let test = network.self_test.as_ref().unwrap_or(&noise);
    let shapes = shape::default_inputs(network).map_err(dcz::Error::from)?;
    let mut offset = 0;
    let mut inputs = Vec::with_capacity(shapes.len());
    for (id, dims) in network.inputs.iter().zip(shapes) {
        let mut data = vec![0.0; dims.iter().product()];
        dcz::session::generate(test, offset, &mut data);
        offset += data.len() as u64;
        let name = network
            .tensors
            .get(id.0 as usize)
            .map_or(String::new(), |t| t.name.clone());
        inputs.push(Input { name, dims, data });
    }
    Ok(inputs)
}

/// Checks, then times `runs` runs.
pub fn run(
    arguments: &Arguments,
    model: &Model,
    set: &[Input],
    runs: u32,
    load_ms: f64,
    console: &Console,
) -> Result<u8, Failure> {
    let output_error = check(arguments, model, set)?;
    if output_error.is_nan() || output_error > f64::from(arguments.max_error) {
        return Err(Failure::corrupt(format!(
            "output error {output_error:.2e} exceeds the limit {:.0e}: no time is reported",
            arguments.max_error
        )));
    }
    let mut session = Session::new(model, arguments.options()?)?;
    let begin = Instant::now();
    let plan = prepare(&mut session, set)?.clone();
    let prepare_ms = milliseconds(begin);
    if arguments.plan {
        console.text(&plan.to_string());
    }
    let begin = Instant::now();
    let mut results = execute(&mut session, set)?;
    let first_ms = milliseconds(begin);
    for _ in 0..WARM_UP {
        run_into(&mut session, set, &mut results)?;
    }
    let mut times = Vec::with_capacity(runs as usize);
    for _ in 0..runs {
        let begin = Instant::now();
        run_into(&mut session, set, &mut results)?;
        times.push(milliseconds(begin));
    }
    if arguments.profile {
        session.set_profiling(true);
        for _ in 0..runs.min(20) {
            run_into(&mut session, set, &mut results)?;
        }
        if let Some(profile) = session.profile() {
            console.text(&profile.to_string());
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len());
        times.get(index - 1).copied().unwrap_or(0.0)
    };
    let (median_ms, min_ms, p90_ms) = (at(0.5), at(0.0), at(0.9));
    let memory = session.memory();
    let process = dcz::process_memory();
    console.line(&format!(
        "median {median_ms:.3} ms, min {min_ms:.3} ms, p90 {p90_ms:.3} ms of {runs} runs on {} thread(s), {}",
        plan.threads, plan.isa
    ));
    console.line(&format!(
        "load {load_ms:.3} ms, prepare {prepare_ms:.3} ms, first run {first_ms:.3} ms"
    ));
    console.line(&format!(
        "arena {} B, all the session holds {} B, peak of the process {} B, output error {output_error:.1e}",
        memory.arena,
        memory.total,
        process.peak.map_or("unknown".to_string(), |v| v.to_string())
    ));
    console.result(&json!({
        "network": plan.network,
        "threads": plan.threads,
        "isa": plan.isa,
        "runs": runs,
        "median_ms": median_ms,
        "min_ms": min_ms,
        "p90_ms": p90_ms,
        "first_ms": first_ms,
        "load_ms": load_ms,
        "prepare_ms": prepare_ms,
        "arena_bytes": memory.arena,
        "decode_bytes": memory.decode,
        "workspace_bytes": memory.workspace,
        "resident_bytes": memory.total - memory.arena,
        "peak_rss_bytes": process.peak,
        "anonymous_bytes": process.anonymous,
        "file_bytes": process.file,
        "numeric_id": format!("{:016x}", plan.numeric_id),
        "output_error": output_error,
    }));
    Ok(0)
}

fn milliseconds(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e3
}

/// The output error, from the self-test or, for a file without one, from the f64 oracle on `set`.
/// Uses a session of its own, so that the timed one starts cold.
fn check(arguments: &Arguments, model: &Model, set: &[Input]) -> Result<f64, Failure> {
    let mut session = Session::new(model, arguments.options()?)?;
    if session.network().self_test.is_some() {
        let report = session.self_test()?;
        if !report.passed() {
            return Err(Failure::corrupt(format!(
                "self-test failed: output error {:.2e}, norm error {:.2e}, tolerance {:.0e}",
                report.output_error, report.norm_error, report.tolerance
            )));
        }
        return Ok(report.output_error);
    }
    prepare(&mut session, set)?;
    let results = execute(&mut session, set)?;
    let net = model.find(arguments.network.as_deref())?;
    let network = session.network();
    let arrays: Vec<Array> = set
        .iter()
        .map(|i| Array {
            dims: i.dims.clone(),
            values: i.data.iter().map(|&v| v.into()).collect(),
        })
        .collect();
    let mut weights = ContainerWeights::new(model.container(), net);
    let exact = dcz::oracle::run(network, &arrays, &mut weights, &|_| false, &mut |_, _| {})?;
    let errors = network
        .outputs
        .iter()
        .zip(&results)
        .map(|(record, output)| {
            exact
                .get(&record.tensor)
                .map_or(f64::NAN, |exact| relative_error(output, &exact.values))
        });
    Ok(errors.fold(0.0, |worst, e| if e <= worst { worst } else { e }))
}

fn relative_error(output: &Output, exact: &[f64]) -> f64 {
    let unit = exact.iter().fold(f64::MIN_POSITIVE, |m, v| m.max(v.abs()));
    let differences = output
        .data
        .iter()
        .zip(exact)
        .map(|(&a, &b)| (f64::from(a) - b).abs() / unit);
    differences.fold(0.0, |worst, e| if e <= worst { worst } else { e })
}
