//! `dcz evaluate` as a user meets it: figures of a small network on drawn pictures, and every kind of bad input.

use dcz_tests::{generated, run};
use std::path::Path;

const PREPROCESS: &[u8] =
    b"[image]\nsize = [16, 16]\nscale = 0.0078125\n[output]\nkind = \"embedding\"\n";

/// Two pictures of each of three people, a list of pairs, a model and a description.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    std::fs::create_dir(&images).unwrap();
    for person in 0..3u32 {
        for number in 1..=2u32 {
            let shade = |x: u32| ((x * (5 + person * 37) + number) % 256) as u8;
            image::RgbImage::from_fn(16, 16, |x, y| {
                image::Rgb([shade(x), shade(y * 3), shade(x + y)])
            })
            .save(images.join(format!("p{person}_{number:04}.png")))
            .unwrap();
        }
    }
    std::fs::write(
        folder.path().join("pairs.txt"),
        "p0 1 2\np1 1 2\np2 1 2\np0 1 p1 1\np1 2 p2 1\np2 2 p0 2\n",
    )
    .unwrap();
    generated::write(folder.path(), "m.onnx", &generated::small(generated::dense));
    generated::write(folder.path(), "p.toml", PREPROCESS);
    folder
}

fn evaluate(folder: &Path, more: &[&str]) -> dcz_tests::Ran {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (model, pairs, images) = (at("m.onnx"), at("pairs.txt"), at("images"));
    let mut arguments = vec!["evaluate", &model, "--pairs", &pairs, "--images", &images];
    arguments.extend(more);
    run("dcz", &arguments)
}

#[test]
fn figures_curve_and_differences() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (toml, model, svg) = (at("p.toml"), at("m.onnx"), at("roc.svg"));
    std::fs::write(folder.path().join("images/broken_0001.png"), b"no image").unwrap();
    let ran = evaluate(
        folder.path(),
        &[
            "--preprocess",
            &toml,
            "--against",
            &model,
            "--svg",
            &svg,
            "--json",
        ],
    )
    .expect_code(0);
    assert!(ran.stderr.contains("1 of 7 images"), "{}", ran.stderr);
    let line = ran.json();
    let first = &line["networks"][0];
    assert_eq!(first["listed"]["pairs"], 6);
    assert_eq!(first["all"]["same"], 3);
    assert_eq!(first["all"]["different"], 12);
    assert!(
        first["contest"]["refused"]
            .as_str()
            .unwrap()
            .contains("500")
    );
    let accuracy = first["listed"]["accuracy"]["accuracy"].as_f64().unwrap();
    assert!((0.5..=1.0).contains(&accuracy));
    assert!(line["agreement"]["least_cosine"].as_f64().unwrap() > 0.999_999);
    for difference in line["differences"].as_array().unwrap() {
        assert_eq!(difference["difference"], 0.0);
        assert_eq!(difference["interval95"], serde_json::json!([0.0, 0.0]));
    }
    assert!(std::fs::read_to_string(&svg).unwrap().starts_with("<svg"));
    evaluate(folder.path(), &["--preprocess", &toml, "--strict"]).expect_code(5);
}

#[test]
fn bad_input_is_named() {
    let folder = folder();
    let toml = folder.path().join("p.toml");
    let toml = toml.to_str().unwrap();
    let ran = evaluate(folder.path(), &[]).expect_code(2);
    assert!(ran.stderr.contains("--preprocess"), "{}", ran.stderr);
    let pairs = folder.path().join("pairs.txt");
    let with = ["--preprocess", toml];
    for (text, why) in [
        ("", "no pair"),
        ("p0 1 x\n", "line 1"),
        ("z 1 2\nz 1 y 1\n", "not there"),
    ] {
        std::fs::write(&pairs, text).unwrap();
        let ran = evaluate(folder.path(), &with).expect_code(5);
        assert!(ran.stderr.contains(why), "{text:?}: {}", ran.stderr);
    }
    std::fs::remove_dir_all(folder.path().join("images")).unwrap();
    std::fs::write(&pairs, "p0 1 2\n").unwrap();
    evaluate(folder.path(), &with).expect_code(7);
    std::fs::create_dir(folder.path().join("images")).unwrap();
    evaluate(folder.path(), &with).expect_code(5);
}
