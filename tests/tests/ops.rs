//! Every operator fixture from ONNX to output: imported, coded losslessly, run by the runtime, compared with the
//! committed onnxruntime reference; and the ones that must be refused, with the reason.

use dcz::{Model, Session, SessionOptions, TensorRef};
use dcz_compress::encode::{CompressOptions, compress};
use dcz_compress::error::Error;
use dcz_compress::import::{Dynamic, ImportOptions, import};
use dcz_compress::settings::Quantize;
use dcz_compress::{npy, onnx};
use std::path::{Path, PathBuf};

struct Case {
    name: String,
    folder: PathBuf,
    inputs: Vec<String>,
    outputs: Vec<String>,
    tolerance: f64,
    expect: String,
}

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/ops");
    let text = std::fs::read_to_string(root.join("manifest.json")).expect("manifest");
    let list: Vec<serde_json::Value> = serde_json::from_str(&text).expect("manifest");
    let names = |value: &serde_json::Value| {
        let list = value.as_array().expect("a list");
        list.iter()
            .map(|v| v.as_str().expect("a name").to_string())
            .collect::<Vec<_>>()
    };
    list.iter()
        .map(|case| {
            let name = case["name"].as_str().expect("a name").to_string();
            Case {
                folder: root.join(&name),
                inputs: names(&case["inputs"]),
                outputs: names(&case["outputs"]),
                tolerance: case["tolerance"].as_f64().expect("a tolerance"),
                expect: case["expect"].as_str().expect("a word").to_string(),
                name,
            }
        })
        .collect()
}

/// A fresh session of the case's network, coded without loss.
fn session(case: &Case) -> Result<Session, Error> {
    let model = onnx::load(&case.folder.join("model.onnx"))?;
    let mut import_options = ImportOptions::default();
    if case.name.ends_with("symbolic_batch") {
        // Symbolic dimensions are fixed at 1 unless asked for.
        import_options.dynamic.push(
            format!("{}=0:1..8", case.inputs[0])
                .parse::<Dynamic>()
                .map_err(Error::Usage)?,
        );
    }
    let float = import(&model, &import_options)?;
    let mut options = CompressOptions::default();
    options.settings.general.quantize = Some(Quantize::None);
    let encoded = compress(float, &options, &mut |_, _, _| {})?;
    Ok(Session::new(
        &Model::from_bytes(encoded.to_bytes()?)?,
        SessionOptions::default(),
    )?)
}

/// Largest error of any output, relative to that output's largest magnitude.
fn run(case: &Case) -> Result<f64, Error> {
    let mut session = session(case)?;
    let read = |kind: &str, i: usize| npy::read(&case.folder.join(format!("{kind}_{i}.npy")));
    let inputs: Vec<(Vec<usize>, Vec<f32>)> = (0..case.inputs.len())
        .map(|i| read("input", i))
        .collect::<Result<_, _>>()?;
    let expected: Vec<(Vec<usize>, Vec<f32>)> = (0..case.outputs.len())
        .map(|i| read("output", i))
        .collect::<Result<_, _>>()?;
    let shapes: Vec<(&str, &[usize])> = case
        .inputs
        .iter()
        .zip(&inputs)
        .map(|(name, (dims, _))| (name.as_str(), dims.as_slice()))
        .collect();
    let planned = session.prepare(&shapes)?.outputs.clone();
    for ((dims, _), name) in expected.iter().zip(&case.outputs) {
        let output = planned.iter().find(|(n, _)| n == name);
        let (_, found) = output.unwrap_or_else(|| panic!("{}: no output {name}", case.name));
        assert_eq!(found, dims, "{}: shape of {name}", case.name);
    }
    let tensors: Vec<(&str, TensorRef<'_>)> = case
        .inputs
        .iter()
        .zip(&inputs)
        .map(|(name, (dims, data))| (name.as_str(), TensorRef { dims, data }))
        .collect();
    let mut buffers: Vec<Vec<f32>> = expected
        .iter()
        .map(|(_, v)| vec![f32::NAN; v.len()])
        .collect();
    let mut outputs: Vec<(&str, &mut [f32])> = case
        .outputs
        .iter()
        .zip(&mut buffers)
        .map(|(name, b)| (name.as_str(), b.as_mut_slice()))
        .collect();
    session.run(&tensors, &mut outputs)?;
    let mut worst = 0.0f64;
    for (buffer, (_, reference)) in buffers.iter().zip(&expected) {
        let scale = reference
            .iter()
            .fold(0.0f32, |m, v| m.max(v.abs()))
            .max(f32::MIN_POSITIVE);
        for (a, b) in buffer.iter().zip(reference) {
            let error = f64::from((a - b).abs() / scale);
            worst = if error.is_nan() {
                f64::INFINITY
            } else {
                worst.max(error)
            };
        }
    }
    Ok(worst)
}

#[test]
fn operators_match_onnxruntime() {
    let mut failed = Vec::new();
    let mut count = 0;
    for case in cases().iter().filter(|case| case.expect == "match") {
        count += 1;
        match run(case) {
            Ok(error) if error <= case.tolerance => {}
            Ok(error) => failed.push(format!("{}: error {error:.2e}", case.name)),
            Err(error) => failed.push(format!("{}: {error}", case.name)),
        }
    }
    assert!(count > 250, "only {count} cases");
    assert!(
        failed.is_empty(),
        "{} of {count} fail:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

#[test]
fn what_is_not_supported_is_named() {
    let cases = cases();
    for case in cases.iter().filter(|case| case.expect != "match") {
        let Err(Error::Unsupported(list)) = session(case) else {
            panic!("{} is accepted", case.name)
        };
        let text = Error::Unsupported(list.clone()).to_string();
        let wanted: &[&str] = match case.expect.as_str() {
            // Both at once.
            "unsupported_operator" => &["Erf", "Det"],
            "unsupported_weights" => &["Conv", "computed"],
            "unsupported_shape" => &["3 dimensions", "two spatial dimensions"],
            "unsupported_attribute" => &["mode = reflect", "mode = constant"],
            other => panic!("unknown expectation {other}"),
        };
        assert!(
            list.iter()
                .all(|item| !item.node.is_empty() && !item.nearest.is_empty()),
            "{text}"
        );
        assert!(wanted.iter().all(|word| text.contains(word)), "{text}");
        assert!(!text.contains('\n'));
    }
}
