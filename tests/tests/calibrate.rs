//! `dcz compress --calibration` as a user meets it: every target on a small network, and every kind of bad input.

use dcz_tests::{Ran, generated, run};
use std::path::Path;

const PREPROCESS: &[u8] =
    b"[image]\nsize = [16, 16]\nscale = 0.0078125\n[output]\nkind = \"embedding\"\n";

/// Drawn pictures `p0_0001.png` and on, a model and a description.
fn folder(images: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let pictures = folder.path().join("images");
    std::fs::create_dir(&pictures).unwrap();
    for number in 0..images {
        let shade = |x: u32| ((x * (5 + number * 37) + number * number) % 256) as u8;
        image::RgbImage::from_fn(16, 16, |x, y| {
            image::Rgb([shade(x), shade(y * 3), shade(x + y)])
        })
        .save(pictures.join(format!("p{}_{:04}.png", number / 2, number % 2)))
        .unwrap();
    }
    generated::write(folder.path(), "m.onnx", &generated::small(generated::dense));
    generated::write(folder.path(), "p.toml", PREPROCESS);
    folder
}

fn compress(folder: &Path, more: &[&str]) -> Ran {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (model, toml, images, out) = (at("m.onnx"), at("p.toml"), at("images"), at("o.dcz"));
    let mut arguments = vec!["compress", &model, "-o", &out];
    if !more.contains(&"--no-preprocess") {
        arguments.extend(["--preprocess", &toml]);
    }
    if !more.contains(&"--calibration") {
        arguments.extend(["--calibration", &images]);
    }
    arguments.extend(more.iter().filter(|a| **a != "--no-preprocess"));
    run("dcz", &arguments)
}

fn frontier(ran: &Ran) -> (serde_json::Value, Vec<serde_json::Value>) {
    let line = ran.json();
    let points = line["calibration"]["frontier"].as_array().unwrap().clone();
    let taken = line["calibration"]["taken"].as_u64().unwrap() as usize;
    (points[taken].clone(), points)
}

#[test]
fn every_target_is_met_and_the_frontier_told() {
    let folder = folder(24);
    let svg = folder.path().join("f.svg");
    let ran = compress(
        folder.path(),
        &["--json", "--frontier", svg.to_str().unwrap()],
    )
    .expect_code(0);
    let plain = ran.json()["bytes"].as_u64().unwrap();
    let (taken, _) = frontier(&ran);
    assert_eq!(taken["bytes"].as_u64().unwrap(), plain);
    assert!(ran.stderr.contains("taken"), "{}", ran.stderr);
    assert!(std::fs::read_to_string(&svg).unwrap().starts_with("<svg"));

    let size = plain * 8 / 10;
    let target = format!("size={size}");
    let ran = compress(folder.path(), &["--json", "--target", &target]).expect_code(0);
    let bytes = ran.json()["bytes"].as_u64().unwrap();
    assert!(bytes <= size && bytes > size / 2, "{bytes} of {size}");
    // The same images give the same file.
    let file = std::fs::read(folder.path().join("o.dcz")).unwrap();
    compress(folder.path(), &["--target", &target]).expect_code(0);
    assert_eq!(file, std::fs::read(folder.path().join("o.dcz")).unwrap());

    let ran = compress(folder.path(), &["--json", "--target", "cosine=0.99"]).expect_code(0);
    let (taken, points) = frontier(&ran);
    assert!(taken["cosine"].as_f64().unwrap() >= 0.99);
    assert_eq!(taken["meets"], true);
    assert!(points.iter().all(|p| p["bytes"].as_u64().unwrap() > 0));
    let ratio = ran.json()["float_bytes"].as_f64().unwrap() / plain as f64 * 1.1;
    let target = format!("ratio={ratio:.2}");
    let ran = compress(folder.path(), &["--json", "--target", &target]).expect_code(0);
    let line = ran.json();
    assert!(
        line["float_bytes"].as_f64().unwrap() / line["bytes"].as_f64().unwrap() >= ratio - 0.01
    );
    let out = folder.path().join("o.dcz");
    run("dcz", &["check", out.to_str().unwrap()]).expect_code(0);
}

#[test]
fn pruning_and_single_layers_go_with_it() {
    let folder = folder(16);
    let more = [
        "--json",
        "--prune",
        "percentile=60",
        "--target",
        "cosine=0.5",
    ];
    let ran = compress(folder.path(), &more).expect_code(0);
    let zeros = ran.json()["total"]["sparsity_percent"].as_f64();
    let zeros = zeros.unwrap_or_else(|| panic!("{}", ran.json()["total"]));
    assert!(zeros >= 59.0, "{zeros}");
    let ran = compress(folder.path(), &["--quantize", "minmax"]).expect_code(2);
    assert!(ran.stderr.contains("grids"), "{}", ran.stderr);
    let ran = compress(folder.path(), &["--step", "0.1"]).expect_code(2);
    assert!(ran.stderr.contains("--target"), "{}", ran.stderr);
}

#[test]
fn unreadable_images_are_skipped_and_counted() {
    let folder = folder(12);
    std::fs::write(folder.path().join("images/broken.png"), b"no image").unwrap();
    let ran = compress(folder.path(), &["--json"]).expect_code(0);
    assert!(
        ran.stderr.contains("1 images skipped, 12 used"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.json()["calibration"]["skipped"][0]
            .as_str()
            .unwrap()
            .contains("broken.png")
    );
    std::fs::remove_file(folder.path().join("o.dcz")).unwrap();
    compress(folder.path(), &["--strict"]).expect_code(5);
    assert!(!folder.path().join("o.dcz").exists());
}

#[test]
fn what_cannot_be_is_said() {
    let folder = folder(12);
    let out = folder.path().join("o.dcz");
    let says = |more: &[&str], code: i32, why: &str| {
        let ran = compress(folder.path(), more).expect_code(code);
        assert!(ran.stderr.contains(why), "{more:?}: {}", ran.stderr);
        assert!(!out.exists());
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 3, "nothing else is left behind");
    };
    says(&["--no-preprocess"], 2, "--preprocess");
    says(&["--target", "size=100"], 5, "nearest");
    says(&["--target", "tpr-drop=0.002"], 2, "cannot be measured");
    says(&["--target", "speed=2"], 2, "expected size");
    says(&["--calibration", "/nonexistent"], 7, "nonexistent");
    let few = generated::small(generated::few_values);
    generated::write(folder.path(), "m.onnx", &few);
    says(&[], 2, "nothing to calibrate");
    for entry in std::fs::read_dir(folder.path().join("images"))
        .unwrap()
        .skip(1)
    {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    says(&[], 5, "1 of 1 images can be used");
    for entry in std::fs::read_dir(folder.path().join("images")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    says(&[], 5, "no PNG");
}
