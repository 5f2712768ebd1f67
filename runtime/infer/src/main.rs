//! `infer`: runs a `.dcz` file on photos, or one network of it on images or `.npy` tensors.
//!
//! Results go to standard output; with `--json` exactly one line does, and everything else goes to
//! standard error. Exit codes: 0 ok or same person; 1 different person; 2 usage; 3 malformed or
//! corrupt file; 4 unsupported; 5 bad input; 6 budget; 7 input or output;
//! 8 some of many images failed; 9 no face.
//!
//! Packages: `image` decodes, `npyz` reads and writes arrays, `indicatif` draws the progress of many photos (on a terminal
//! only), `clap` and `serde_json` are the command line and its results.

mod arguments;
mod arrays;
mod bench;
mod failure;
mod images;
mod photo_bench;
mod photos;
mod report;

use arguments::Arguments;
use dcz::graph::{Meaning, Network};
use dcz::{Model, Session, TensorRef, Verification};
use failure::Failure;
use report::Console;
use serde_json::json;
use std::process::ExitCode;
use std::time::Instant;

/// A network input: name, dimensions, values.
pub struct Input {
    name: String,
    dims: Vec<usize>,
    data: Vec<f32>,
}

/// A network output: name, dimensions, values.
pub struct Output {
    name: String,
    dims: Vec<usize>,
    data: Vec<f32>,
}

fn main() -> ExitCode {
    let arguments = Arguments::read();
    match run(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("infer: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn run(arguments: &Arguments) -> Result<u8, Failure> {
    arguments.check()?;
    let console = Console {
        json: arguments.json,
    };
    let begin = Instant::now();
    if arguments.model.is_dir() {
        return Err(Failure::input(
            &arguments.model,
            "a folder, where a .dcz file is needed",
        ));
    }
    let model = Model::open(&arguments.model)?;
    let load_ms = begin.elapsed().as_secs_f64() * 1e3;
    if arguments.wants_pipeline() && model.container().pipeline().is_some() {
        return photos::run(arguments, &model, &console);
    }
    arguments.check_plain()?;
    if model.container().pipeline().is_some() && arguments.names_nothing() {
        return Err(Failure::usage(
            "a photo is needed (or --network NAME: one network by itself)",
        ));
    }
    let network = model.network(arguments.network.as_deref())?;
    let sets = inputs(arguments, network)?;
    if let Some(runs) = arguments.bench {
        let first = sets
            .first()
            .ok_or_else(|| Failure::usage("--bench wants one input"))?;
        return bench::run(arguments, &model, first, runs, load_ms, &console);
    }
    let mut session = Session::new(&model, arguments.options()?)?;
    let mut results = Vec::with_capacity(sets.len());
    for set in &sets {
        prepare(&mut session, set)?;
        if arguments.plan && results.is_empty() {
            console.text(&report::plan(&mut session, set)?);
        }
        session.set_profiling(arguments.profile);
        results.push(execute(&mut session, set)?);
    }
    if let (true, Some(profile)) = (arguments.profile, session.profile()) {
        console.text(&profile.to_string());
    }
    if let Some(path) = &arguments.output {
        let outputs = results.first().map_or(&[][..], Vec::as_slice);
        let files = arrays::write(path, outputs)?;
        console.line(&files);
    }
    match results.as_slice() {
        [one] => one_result(arguments, network, one, &console),
        [first, second] => compare(arguments, network, first, second, &console),
        _ => Ok(0),
    }
}

/// The inputs of each run: one set, or two for two images.
fn inputs(arguments: &Arguments, network: &Network) -> Result<Vec<Vec<Input>>, Failure> {
    if !arguments.input.is_empty() {
        return Ok(vec![arrays::read(&arguments.input, network)?]);
    }
    if !arguments.images.is_empty() {
        let rects = arguments.rects()?;
        let images = arguments.images.iter().enumerate();
        return images
            .map(|(i, path)| Ok(vec![images::read(path, rects.get(i).copied(), network)?]))
            .collect();
    }
    if arguments.bench.is_some() || arguments.plan || arguments.profile {
        return Ok(vec![bench::generated(network)?]);
    }
    Err(Failure::usage(
        "an image or --input is needed (or --bench, --plan, --profile)",
    ))
}

/// Plans for a set of inputs.
pub fn prepare<'s>(session: &'s mut Session, set: &[Input]) -> Result<&'s dcz::Plan, Failure> {
    let shapes: Vec<(&str, &[usize])> = set
        .iter()
        .map(|i| (i.name.as_str(), i.dims.as_slice()))
        .collect();
    Ok(session.prepare(&shapes)?)
}

/// Runs a prepared set of inputs.
pub fn execute(session: &mut Session, set: &[Input]) -> Result<Vec<Output>, Failure> {
    let plan = prepare(session, set)?;
    let mut results: Vec<Output> = plan
        .outputs
        .iter()
        .map(|(name, dims)| Output {
            name: name.clone(),
            dims: dims.clone(),
            data: vec![0.0; dims.iter().product()],
        })
        .collect();
    run_into(session, set, &mut results)?;
    Ok(results)
}

/// Runs a prepared set of inputs into existing outputs.
pub fn run_into(
    session: &mut Session,
    set: &[Input],
    results: &mut [Output],
) -> Result<(), Failure> {
    let inputs: Vec<(&str, TensorRef<'_>)> = set
        .iter()
        .map(|i| {
            (
                i.name.as_str(),
                TensorRef {
                    dims: &i.dims,
                    data: &i.data,
                },
            )
        })
        .collect();
    let mut outputs: Vec<(&str, &mut [f32])> = results
        .iter_mut()
        .map(|o| (o.name.as_str(), o.data.as_mut_slice()))
        .collect();
    Ok(session.run(&inputs, &mut outputs)?)
}

fn one_result(
    arguments: &Arguments,
    network: &Network,
    outputs: &[Output],
    console: &Console,
) -> Result<u8, Failure> {
    let written = arguments.output.is_some();
    for (output, record) in outputs.iter().zip(&network.outputs) {
        console.text(&report::output(output, &record.meaning, written));
    }
    let list: Vec<_> = (outputs.iter().zip(&network.outputs))
        .map(|(output, record)| report::output_json(output, &record.meaning, written))
        .collect();
    let peak = dcz::process_memory().peak;
    console.result(&json!({ "network": network.name, "outputs": list, "peak_rss_bytes": peak }));
    Ok(0)
}

/// Similarity of two embeddings, and the decision when the file has a threshold.
fn compare(
    arguments: &Arguments,
    network: &Network,
    first: &[Output],
    second: &[Output],
    console: &Console,
) -> Result<u8, Failure> {
    let embeddings = first.iter().zip(second).zip(&network.outputs);
    for ((a, b), record) in embeddings {
        let Meaning::Embedding { metric, threshold } = record.meaning else {
            continue;
        };
        let threshold = arguments.threshold.or(threshold);
        let result = Verification::new(metric, threshold, &a.data, &b.data);
        let (mut fields, code) = report::verification(console, &result);
        fields.insert("network".into(), json!(network.name));
        console.result(&fields.into());
        return match result.same {
            None if arguments.verify => Err(report::undecided()),
            _ => Ok(code),
        };
    }
    Err(Failure::usage(format!(
        "{} makes no embedding: two images cannot be compared",
        network.name
    )))
}
