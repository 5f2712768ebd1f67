//! `dcz compress --retrain` as a user meets it: a file that works and repeats, a run that goes on after a kill, the size that
//! was asked for, and every kind of bad input.

use dcz_tests::{Ran, generated, run, tool};
use std::path::Path;
use std::process::{Command, Stdio};

const PREPROCESS: &[u8] =
    b"[image]\nsize = [16, 16]\nscale = 0.0078125\n[output]\nkind = \"embedding\"\n";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for class in ["", "classes/a", "classes/b"] {
        let images = folder
            .path()
            .join(if class.is_empty() { "images" } else { class });
        std::fs::create_dir_all(&images).unwrap();
        for number in 0..20u32 {
            let shade = |x: u32| ((x * (5 + number * 37) + number) % 256) as u8;
            image::RgbImage::from_fn(16, 16, |x, y| {
                image::Rgb([shade(x), shade(y * 3), shade(x + y)])
            })
            .save(images.join(format!("{number}.png")))
            .unwrap();
        }
    }
    generated::write(folder.path(), "m.onnx", &generated::small(generated::dense));
    generated::write(folder.path(), "p.toml", PREPROCESS);
    folder
}

fn arguments(folder: &Path, out: &str, more: &[&str]) -> Vec<String> {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let mut list = vec!["compress".to_owned(), at("m.onnx"), "-o".into(), at(out)];
    list.extend(["--preprocess".into(), at("p.toml"), "--json".into()]);
    if !more.contains(&"--retrain") {
        list.extend(["--retrain".into(), at("images")]);
    }
    list.extend(["--batch".into(), "4".into()]);
    for word in more {
        list.push(match word.strip_prefix("@") {
            Some(name) => at(name),
            None => (*word).to_owned(),
        });
    }
    list
}

fn retrain(folder: &Path, out: &str, more: &[&str]) -> Ran {
    run("dcz", &arguments(folder, out, more))
}

#[test]
fn a_retrained_file_works_repeats_and_is_as_small_as_asked() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("images/broken.png"), b"no image").unwrap();
    let all = [
        "--steps",
        "30",
        "--seed",
        "3",
        "--loss",
        "cosine=1,l2=0.1,relational=0.1",
    ];
    let ran = retrain(folder.path(), "a.dcz", &all).expect_code(0);
    assert!(ran.stderr.contains("1 images skipped"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("retrained with 30 steps of 4 images"),
        "{}",
        ran.stderr
    );
    let whole = ran.json()["bytes"].as_u64().unwrap();
    retrain(folder.path(), "b.dcz", &all).expect_code(0);
    assert!(std::fs::read(path("a.dcz")).unwrap() == std::fs::read(path("b.dcz")).unwrap());

    let size = (whole * 8 / 10).to_string();
    let more = [
        "--steps",
        "60",
        "--retrain-size",
        &size,
        "--start",
        "@a.dcz",
    ];
    let small = retrain(folder.path(), "c.dcz", &more).expect_code(0);
    let bytes = small.json()["bytes"].as_u64().unwrap();
    assert!(bytes < whole * 9 / 10, "{bytes} of {whole}");

    // Measured on a folder of its own, trained on all others.
    let more = [
        "--steps",
        "8",
        "--held-out",
        "@classes/a",
        "--variants",
        "2",
        "--augment",
        "blend=0.5,paste=0.5",
        "--loss",
        "cosine=1,features=0.5",
    ];
    let ran = retrain(folder.path(), "h.dcz", &more).expect_code(0);
    let text = "retraining on 20 images, measuring on 20";
    assert!(ran.stderr.contains(text), "{}", ran.stderr);

    let more = [
        "--steps",
        "20",
        "--prune",
        "percentile=75",
        "--prune-block",
        "4",
    ];
    let pruned = retrain(folder.path(), "d.dcz", &more).expect_code(0).json();
    let sparsity = pruned["total"]["sparsity_percent"].as_f64().unwrap();
    assert!(sparsity >= 74.0, "{sparsity}");
    let labels = ["--steps", "3", "--loss", "ce,kl", "--retrain", "@classes"];
    retrain(folder.path(), "e.dcz", &labels).expect_code(0);
}

/// Killed without warning somewhere in the middle, then run again: the same file as without the kill.
#[test]
fn a_killed_run_goes_on() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let plain = ["--steps", "40"];
    retrain(folder.path(), "whole.dcz", &plain).expect_code(0);
    let kept = [
        "--steps",
        "40",
        "--checkpoint",
        "@run",
        "--checkpoint-seconds",
        "0",
    ];
    let mut child = Command::new(tool("dcz"))
        .args(arguments(folder.path(), "killed.dcz", &kept))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !path("run/checkpoint.safetensors").exists() {
        if child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::yield_now();
    }
    let _ = child.kill();
    child.wait().unwrap();
    retrain(folder.path(), "killed.dcz", &kept).expect_code(0);
    assert!(
        std::fs::read(path("whole.dcz")).unwrap() == std::fs::read(path("killed.dcz")).unwrap()
    );
    let curve = std::fs::read_to_string(path("run/curve.tsv")).unwrap();
    assert!(
        curve.lines().count() > 2 && curve.contains("\n40\t"),
        "{curve}"
    );
    assert!(
        std::fs::read_to_string(path("run/curve.svg"))
            .unwrap()
            .starts_with("<svg")
    );
}

#[test]
fn bad_input_is_told_apart() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let fails = |code: i32, text: &str, more: &[&str]| {
        let mut all = vec!["--steps", "1"];
        all.extend(more);
        let ran = retrain(folder.path(), "x.dcz", &all).expect_code(code);
        assert!(ran.stderr.contains(text), "{}", ran.stderr);
        assert!(!path("x.dcz").exists());
    };
    fails(2, "expected ce, l2", &["--loss", "mse"]);
    fails(2, "expected none, or flip", &["--augment", "spin=1"]);
    fails(7, "none", &["--held-out", "@none"]);
    fails(5, "one folder per class", &["--loss", "ce"]);
    fails(7, "none", &["--retrain", "@none"]);
    std::fs::create_dir(path("few")).unwrap();
    fails(5, "no PNG", &["--retrain", "@few"]);
    std::fs::copy(path("images/0.png"), path("few/0.png")).unwrap();
    fails(5, "at least 4 images", &["--retrain", "@few"]);
    std::fs::write(path("images/broken.png"), b"no image").unwrap();
    fails(5, "broken.png", &["--strict"]);
    fails(3, "signature", &["--start", "@m.onnx"]);
}
