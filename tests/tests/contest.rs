//! The contest network from ONNX to a running file: the seed's table, bit-exact coding, memory of a fresh process.

use dcz_tests::generated::{self, CONTEST_SPARSITY};
use dcz_tests::{Ran, root, run};
use serde_json::Value;
use std::path::Path;

fn compress(model: &Path, out: &Path, more: &[&str]) -> (Ran, Value) {
    let mut arguments: Vec<&str> = vec![
        "compress",
        model.to_str().unwrap(),
        "-o",
        out.to_str().unwrap(),
        "--json",
    ];
    arguments.extend(more);
    let ran = run("dcz", &arguments).expect_code(0);
    let json = ran.json();
    (ran, json)
}

fn layer<'a>(report: &'a Value, name: &str) -> &'a Value {
    let layers = report["layers"].as_array().expect("layers");
    layers
        .iter()
        .find(|l| l["name"] == name)
        .unwrap_or_else(|| panic!("no layer {name} in {report}"))
}

/// Pruned and quantised by `dcz` with the contest's settings: sparsity, bits and P+Q as in the seed's table.
#[test]
fn seed_settings_reproduce_the_seed_table() {
    let folder = tempfile::tempdir().unwrap();
    let model = generated::write(
        folder.path(),
        "contest.onnx",
        &generated::contest(generated::dense),
    );
    let settings = root().join("compress/presets/contest.toml");
    let settings = settings.to_str().unwrap();
    let gaps = folder.path().join("gaps.dcz");
    let (_, report) = compress(
        &model,
        &gaps,
        &["--settings", settings, "--index", "gaps:5"],
    );
    // Rate P+Q of the table, to two decimals.
    let rates = [
        91.59, 93.32, 87.81, 83.36, 82.73, 84.39, 80.53, 82.19, 82.25, 83.63, 83.03, 80.32, 82.04,
        80.87, 81.93, 82.73, 80.51, 80.10, 80.65, 80.95, 92.68,
    ];
    for ((name, sparsity), rate) in CONTEST_SPARSITY.iter().zip(rates) {
        let row = layer(&report, name);
        let close = |key: &str, wanted: f64| {
            let found = row[key].as_f64().unwrap_or(f64::NAN);
            // To two decimals, as the table prints it.
            assert_eq!(
                format!("{found:.2}"),
                format!("{wanted:.2}"),
                "{name}: {key} is {found}"
            );
        };
        close("sparsity_percent", *sparsity);
        close("rate_pq_percent", rate);
        close("weight_bits", if *name == "fc5" { 4.0 } else { 7.0 });
        close("index_bits", 5.0);
    }
    let total = report["total"]["rate_pqh_percent"].as_f64().unwrap();
    assert!(total >= 90.81, "P+Q+H is {total} %, the table says 90.81 %");

    let auto = folder.path().join("auto.dcz");
    compress(&model, &auto, &["--settings", settings]);
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    assert!(
        size(&auto) < size(&gaps),
        "auto {} is not smaller than gaps {}",
        size(&auto),
        size(&gaps)
    );
}

/// Already pruned and quantised weights are coded bit by bit as they are; a fresh `infer` stays small.
#[test]
fn quantised_file_is_exact_and_runs_in_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let model = generated::write(
        folder.path(),
        "contest.onnx",
        &generated::contest(generated::pruned_and_quantised),
    );
    let file = folder.path().join("contest.dcz");
    let (_, report) = compress(&model, &file, &[]);
    for (name, _) in CONTEST_SPARSITY {
        assert_eq!(
            layer(&report, name)["max_error"],
            0.0,
            "{name} is not bit-exact"
        );
    }
    // The smallest budget, so that the pages of the mapped file are given back as in a single run.
    let file = file.to_str().unwrap();
    let ran = run(
        "infer",
        &[
            "--model",
            file,
            "--bench",
            "1",
            "--memory-budget",
            "min",
            "--json",
        ],
    );
    let bench = ran.expect_code(0).json();
    let bytes = |key: &str| {
        bench[key]
            .as_u64()
            .unwrap_or_else(|| panic!("no {key} in {bench}"))
    };
    assert!(
        bytes("peak_rss_bytes") <= 16_000_000,
        "high-water mark {}",
        bytes("peak_rss_bytes")
    );
    assert!(
        bytes("arena_bytes") <= 5 << 20,
        "arena and decode buffers {}",
        bytes("arena_bytes")
    );
    let error = bench["output_error"].as_f64().unwrap();
    assert!(error <= 2e-5, "output error {error}");
}
