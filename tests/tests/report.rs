//! `dcz compress --report` and `dcz export`: what the run leaves for people and for other programs.

use dcz::Model;
use dcz_format::graph::LayerId;
use dcz_tests::{generated, run};
use std::path::Path;

fn compress(folder: &Path, model: Vec<u8>, more: &[&str]) -> dcz_tests::Ran {
    let model = generated::write(folder, "m.onnx", &model);
    let out = folder.join("m.dcz");
    let mut arguments = vec![
        "compress",
        model.to_str().unwrap(),
        "-o",
        out.to_str().unwrap(),
    ];
    arguments.extend(more);
    run("dcz", &arguments)
}

fn model_of(path: &Path) -> Model {
    Model::open(path).unwrap()
}

/// Every element is closed in its turn, and nothing is fetched or run.
#[track_caller]
fn check_page(html: &str) {
    let mut open: Vec<&str> = Vec::new();
    for part in html.split('<').skip(1) {
        let (tag, _) = part.split_once('>').expect("a tag ends");
        let name = tag.split([' ', '\n', '/']).next().unwrap_or_default();
        if tag.starts_with("!DOCTYPE") || name == "meta" || tag.ends_with('/') {
            continue;
        }
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
    for forbidden in ["<script", "src=", "href=", "url(", "@import"] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    assert!(
        !html
            .replace("http://www.w3.org/2000/svg", "")
            .contains("http")
    );
}

#[test]
fn a_page_shows_the_run_and_what_lies_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let path = report.to_str().unwrap();
    let more = [
        "--report",
        path,
        "--quantize",
        "minmax",
        "--prune",
        "percentile=50",
        "--layer",
        "stem:quantize=none",
    ];
    let ran = compress(folder.path(), generated::small(generated::dense), &more);
    ran.expect_code(0);
    let page = || std::fs::read_to_string(report.join("report.html")).unwrap();
    check_page(&page());
    for layer in [
        "stem",
        "block_a",
        "block_b",
        "wide",
        "embedding",
        "total of compressed",
    ] {
        assert!(page().contains(&format!("<td>{layer}</td>")), "{layer}");
    }
    assert!(page().contains("<td>50.00</td><td>7</td>"));
    // The layer that is not compressed, as the contest prints it.
    assert!(page().contains("<td>raw</td><td>-</td><td>-</td>"));
    assert!(!page().contains("<h2>ROC</h2>"));

    let roc = r#"[[0.0001, 0.5], [0.01, 0.9], [1.0, 1.0]]"#;
    let network = |name: &str, bytes: u32| {
        format!(
            r#"{{"model": "{name}", "bytes": {bytes}, "listed": {{"accuracy": {{"accuracy": 0.99}}}},
            "all": {{"tpr": [{{"fpr": 0.01, "tpr": 0.9}}, {{"fpr": 0.001, "tpr": 0.8}}, {{"fpr": 0.0001, "tpr": 0.7}}]}},
            "contest": {{"refused": "few"}}, "roc": {roc}}}"#
        )
    };
    let evaluated = format!(
        r#"{{"networks": [{}, {}]}}"#,
        network("<small> & more.dcz", 1000),
        network("float.onnx", 9000)
    );
    std::fs::write(report.join("evaluate.json"), evaluated).unwrap();
    let point = r#"[{"value": 50, "mean_error": 0.1}, {"value": 90, "mean_error": 0.5}]"#;
    let curves = format!(
        r#"{{"kind": "sensitivity", "layers": [{{"name": "stem", "sparsity": {point}, "steps": {point}}}]}}"#
    );
    std::fs::write(report.join("sensitivity.json"), curves).unwrap();
    let score = r#"{"kind": "score", "score": 91.5, "M": 5, "m": 1, "S": 5, "s": 1, "z": 0.98, "A": 1, "B": 1}"#;
    std::fs::write(report.join("score.json"), score).unwrap();
    std::fs::write(report.join("broken.json"), "{").unwrap();
    let ran = compress(
        folder.path(),
        generated::small(generated::dense),
        &["--report", path],
    );
    assert!(ran.expect_code(0).stderr.contains("broken.json"));
    let html = page();
    check_page(&html);
    for part in [
        "<h2>ROC</h2>",
        "Accuracy against size",
        "One layer pruned",
        "91.50",
        "&lt;small&gt; &amp; more.dcz",
    ] {
        assert!(html.contains(part), "{part}");
    }
    let svgs = html.matches("<svg").count();
    // Accuracy, ROC, and two stacked charts in a third.
    assert_eq!(svgs, 5);
}

#[test]
fn a_folder_that_cannot_be_is_refused_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let file = generated::write(folder.path(), "file", b"");
    let more = ["--report", file.to_str().unwrap()];
    compress(folder.path(), generated::small(generated::dense), &more).expect_code(7);
    assert!(!folder.path().join("m.dcz").exists());
}

#[test]
fn exported_arrays_are_the_weights_and_their_integers() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        "--layer",
        "stem:quantize=none",
        "--layer",
        "block_a:bits=5",
        "--layer",
        "block_b:step=0.5",
        "--layer",
        "wide:quantize=minmax",
        "--layer",
        "wide:prune=percentile=40",
    ];
    compress(folder.path(), generated::small(generated::dense), &settings).expect_code(0);
    let (file, out) = (folder.path().join("m.dcz"), folder.path().join("arrays"));
    let arguments = [
        "export",
        file.to_str().unwrap(),
        "-o",
        out.to_str().unwrap(),
    ];
    run("dcz", &arguments).expect_code(0);
    let text = std::fs::read_to_string(out.join("layers.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&text).unwrap();
    let model = Model::open(&file).unwrap();
    let layers = index["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 5);
    let open =
        |name: &str| npyz::NpyFile::new(std::fs::File::open(out.join(name)).unwrap()).unwrap();
    for (i, layer) in layers.iter().enumerate() {
        let weights = open(layer["weights"].as_str().unwrap());
        let shape: Vec<u64> = serde_json::from_value(layer["shape"].clone()).unwrap();
        assert_eq!(weights.shape(), shape);
        let weights: Vec<f32> = weights.into_vec().unwrap();
        let own = model
            .container()
            .dense_weights(0, LayerId(i as u32))
            .unwrap();
        assert_eq!(weights, own);
        let Some(codes) = layer["codes"].as_str() else {
            assert_eq!(
                (layer["name"].as_str(), layer["values"].as_str()),
                (Some("stem"), Some("raw32"))
            );
            continue;
        };
        let codes: Vec<i16> = open(codes).into_vec().unwrap();
        let number = |key: &str| layer["meaning"][key].as_f64().unwrap() as f32;
        let k = weights.len() / shape[0] as usize;
        for (at, (&w, &code)) in weights.iter().zip(&codes).enumerate() {
            let value = match (layer["values"].as_str().unwrap(), code) {
                ("minmax", 0) => 0.0,
                ("minmax", code) => number("min") + f32::from(code - 1) * number("delta"),
                _ => match layer["meaning"]["step_per_channel"].as_array() {
                    Some(steps) => f32::from(code) * steps[at / k].as_f64().unwrap() as f32,
                    None => f32::from(code) * number("step"),
                },
            };
            assert_eq!(w, value, "{} at {at}", layer["name"]);
        }
    }
    // Put back, they give the same weights.
    let again = folder.path().join("again.dcz");
    let (model, path) = (folder.path().join("m.onnx"), out.to_str().unwrap());
    let base = [
        "compress",
        model.to_str().unwrap(),
        "-o",
        again.to_str().unwrap(),
    ];
    let more = ["--weights", path, "--quantize", "none"];
    run("dcz", &[&base[..], &more].concat()).expect_code(0);
    let other = Model::open(&again).unwrap();
    for id in (0..5).map(LayerId) {
        let weights = |m: &Model| m.container().dense_weights(0, id).unwrap();
        assert_eq!(weights(&model_of(&file)), weights(&other));
    }
    let text = text.replacen("embedding", "no such layer", 1);
    std::fs::write(out.join("layers.json"), text).unwrap();
    let ran = run("dcz", &[&base[..], &more].concat()).expect_code(5);
    assert!(ran.stderr.contains("no such layer"), "{}", ran.stderr);
    // Nothing is overwritten.
    run("dcz", &arguments).expect_code(7);
}
