//! `dcz score` as a user meets it: the score of a small network on drawn pictures, and why there may be none.

use dcz_tests::{Ran, generated, run};
use std::path::Path;

const PREPROCESS: &[u8] =
    b"[image]\nsize = [16, 16]\nscale = 0.0078125\n[output]\nkind = \"embedding\"\n";
const PEOPLE: u32 = 56;
const EACH: u32 = 5;

/// Pictures of many people, all pairs of one person listed, a model and its compressed form.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    std::fs::create_dir(&images).unwrap();
    let mut pairs = String::from("p0 1 p1 1\n");
    for person in 0..PEOPLE {
        for number in 1..=EACH {
            let shade = |x: u32| ((x * (3 + person * 29) + person * 41 + number) % 256) as u8;
            image::RgbImage::from_fn(16, 16, |x, y| {
                image::Rgb([shade(x), shade(y * 3), shade(x + y)])
            })
            .save(images.join(format!("p{person}_{number:04}.png")))
            .unwrap();
            for other in number + 1..=EACH {
                pairs += &format!("p{person} {number} {other}\n");
            }
        }
    }
    std::fs::write(folder.path().join("pairs.txt"), pairs).unwrap();
    generated::write(folder.path(), "m.onnx", &generated::small(generated::dense));
    generated::write(folder.path(), "p.toml", PREPROCESS);
    compress(folder.path(), &["--preprocess", "p.toml"]);
    folder
}

fn compress(folder: &Path, more: &[&str]) {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let mut arguments = vec![
        "compress".to_owned(),
        at("m.onnx"),
        "-o".into(),
        at("m.dcz"),
    ];
    let more = more
        .iter()
        .map(|m| if m.contains('.') { at(m) } else { (*m).into() });
    arguments.extend(more);
    run("dcz", &arguments).expect_code(0);
}

fn score(folder: &Path, more: &[&str]) -> Ran {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (model, file, pairs, images) = (at("m.onnx"), at("m.dcz"), at("pairs.txt"), at("images"));
    let mut arguments = vec!["score", "--original", &model, "--compressed", &file];
    arguments.extend(["--pairs", &pairs, "--images", &images, "--json"]);
    arguments.extend(more);
    run("dcz", &arguments)
}

#[test]
#[cfg(target_os = "linux")]
fn everything_in_the_score_is_measured() {
    let folder = folder();
    let line = score(folder.path(), &[]).expect_code(0).json();
    let number = |key: &str| line[key].as_f64().unwrap();
    let size = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().len() as f64;
    assert_eq!(number("S"), size("m.onnx"));
    assert_eq!(number("s"), size("m.dcz"));
    assert_eq!(
        number("positives"),
        f64::from(PEOPLE * EACH * (EACH - 1) / 2)
    );
    assert!(number("negatives") >= 100_000.0);
    assert!(number("removed") > 0.0);
    // A process is more than a megabyte and less than what this network could fill.
    for key in ["M", "m"] {
        assert!((1e6..1e8).contains(&number(key)), "{key} {}", number(key));
    }
    let a = match number("z") {
        z if z >= 0.97 => 1.0,
        z if z >= 0.965 => 0.9,
        _ => 0.0,
    };
    assert_eq!((number("A"), number("B")), (a, 1.0));
    let (saved_m, saved_s) = (
        1.0 - number("m") / number("M"),
        1.0 - number("s") / number("S"),
    );
    let wanted = (20.0 * saved_m + 80.0 * saved_s) * a;
    assert!((number("score") - wanted).abs() < 1e-9, "{line}");
    let given = score(folder.path(), &["--baseline-peak", "1000000000"]);
    let given = given.expect_code(0).json();
    assert_eq!(given["M"], 1_000_000_000u64);
    assert_eq!(given["M_given"], true);
    assert!(given["memory_points"].as_f64().unwrap() > 19.0);
}

#[test]
fn bad_input_is_named() {
    let folder = folder();
    let pairs = folder.path().join("pairs.txt");
    let text = std::fs::read_to_string(&pairs).unwrap();
    let few: Vec<&str> = text.lines().take(400).collect();
    std::fs::write(&pairs, few.join("\n")).unwrap();
    let ran = score(folder.path(), &[]).expect_code(5);
    assert!(ran.stderr.contains("500 are needed"), "{}", ran.stderr);
    std::fs::write(&pairs, text).unwrap();
    std::fs::write(folder.path().join("images/x.png"), b"no image").unwrap();
    score(folder.path(), &["--strict"]).expect_code(5);
    compress(folder.path(), &[]);
    let ran = score(folder.path(), &[]).expect_code(2);
    assert!(ran.stderr.contains("--preprocess"), "{}", ran.stderr);
    std::fs::write(folder.path().join("m.dcz"), b"something else").unwrap();
    let ran = score(folder.path(), &[]).expect_code(2);
    assert!(ran.stderr.contains("not a .dcz file"), "{}", ran.stderr);
}
