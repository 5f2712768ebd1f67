//! `dcz sensitivity` as a user meets it: curves and a proposal that `dcz compress` takes, and every kind of bad input.

use dcz_tests::{Ran, generated, run};
use std::path::Path;

const PREPROCESS: &[u8] =
    b"[image]\nsize = [16, 16]\nscale = 0.0078125\n[output]\nkind = \"embedding\"\n";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    std::fs::create_dir(&images).unwrap();
    for number in 0..5u32 {
        let shade = |x: u32| ((x * (5 + number * 37) + number) % 256) as u8;
        image::RgbImage::from_fn(16, 16, |x, y| {
            image::Rgb([shade(x), shade(y * 3), shade(x + y)])
        })
        .save(images.join(format!("{number}.png")))
        .unwrap();
    }
    generated::write(folder.path(), "m.onnx", &generated::small(generated::dense));
    generated::write(folder.path(), "p.toml", PREPROCESS);
    folder
}

fn sensitivity(folder: &Path, more: &[&str]) -> Ran {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (model, toml, images) = (at("m.onnx"), at("p.toml"), at("images"));
    let mut arguments = vec!["sensitivity", &model, "--images", &images];
    if !more.contains(&"--preprocess") {
        arguments.extend(["--preprocess", &toml]);
    }
    arguments.extend(more);
    run("dcz", &arguments)
}

#[test]
fn curves_and_a_proposal_that_compress_takes() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (proposal, svg) = (at("s.toml"), at("s.svg"));
    std::fs::write(folder.path().join("images/broken.png"), b"no image").unwrap();
    let more = [
        "--propose",
        &proposal,
        "--svg",
        &svg,
        "--json",
        "--cosine",
        "0.99",
    ];
    let ran = sensitivity(folder.path(), &more).expect_code(0);
    assert!(ran.stderr.contains("1 of 6 images"), "{}", ran.stderr);
    let line = ran.json();
    assert_eq!(line["images"], 5);
    let layers = line["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 5);
    for layer in layers {
        for (axis, points) in [("sparsity", 6), ("steps", 8), ("bits", 5)] {
            let list = layer[axis].as_array().unwrap();
            assert_eq!(list.len(), points);
            let error = |i: usize| list[i]["mean_error"].as_f64().unwrap();
            // The coarsest point hurts more than the finest.
            assert!(
                error(points - 1) > 2.0 * error(0),
                "{axis} of {}",
                layer["name"]
            );
            let worst = list[0]["largest_error"].as_f64().unwrap();
            assert!(worst >= error(0));
        }
        let bytes = |i: usize| layer["steps"][i]["bytes"].as_u64().unwrap();
        assert!(bytes(7) < bytes(0));
    }
    assert_eq!(line["proposal"]["reached"], true);
    let cosine = line["proposal"]["mean_cosine"].as_f64().unwrap();
    assert!((0.99..1.0).contains(&cosine), "{cosine}");
    assert!(std::fs::read_to_string(&svg).unwrap().contains("embedding"));
    // The proposal is what compress makes of it: the same layers, as large as was said.
    let (model, out) = (at("m.onnx"), at("o.dcz"));
    let made = run(
        "dcz",
        &[
            "compress",
            &model,
            "--settings",
            &proposal,
            "-o",
            &out,
            "--json",
        ],
    );
    let made = made.expect_code(0).json();
    let tiles = made["total"]["tile_bytes"].as_u64().unwrap();
    let said = line["proposal"]["bytes"].as_u64().unwrap();
    assert!(tiles <= said && said < tiles + 2000, "{tiles} {said}");
}

#[test]
fn bad_input_is_named() {
    let folder = folder();
    let images = folder.path().join("images");
    std::fs::write(images.join("broken.png"), b"no image").unwrap();
    sensitivity(folder.path(), &["--strict", "--limit", "6"]).expect_code(5);
    for (more, why) in [
        (["--cosine", "1.5"], "--cosine"),
        (["--steps", "-1"], "--steps"),
        (["--bits", "9"], "--bits"),
        (["--sparsity", "101"], "--sparsity"),
        (["--prune-block", "3"], "--prune-block"),
    ] {
        let more = [more[0].to_owned() + "=" + more[1]];
        let ran = sensitivity(folder.path(), &[&more[0]]).expect_code(2);
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
    }
    generated::write(
        folder.path(),
        "no.toml",
        b"[output]\nkind = \"embedding\"\n",
    );
    let no = folder.path().join("no.toml");
    let ran = sensitivity(folder.path(), &["--preprocess", no.to_str().unwrap()]).expect_code(2);
    assert!(ran.stderr.contains("[image]"), "{}", ran.stderr);
    for entry in std::fs::read_dir(&images).unwrap() {
        std::fs::write(entry.unwrap().path(), b"no image").unwrap();
    }
    sensitivity(folder.path(), &[]).expect_code(5);
    std::fs::remove_dir_all(&images).unwrap();
    sensitivity(folder.path(), &[]).expect_code(7);
}
