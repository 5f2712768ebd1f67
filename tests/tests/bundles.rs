//! `dcz bundle` with its defaults and with a threshold from photographs, and the example programs of `dcz-face`.

use dcz_tests::markers::Canvas;
use dcz_tests::photos::{Folder, close, faces, infer, landmarks, numbers, two};
use dcz_tests::{example, run, run_program};
use serde_json::Value;

#[test]
fn the_networks_compressed_as_by_default() {
    let folder = Folder::new();
    let out = folder.text("q.dcz");
    let (detector, embedder) = (folder.text("detector.onnx"), folder.text("embedder.onnx"));
    let json = run(
        "dcz",
        &[
            "bundle",
            "--detector",
            &detector,
            "--embedder",
            &embedder,
            "-o",
            &out,
            "--json",
        ],
    )
    .expect_code(0)
    .json();
    assert_eq!(json["threshold"], Value::Null);
    assert_eq!(json["networks"].as_array().unwrap().len(), 2);
    run("dcz", &["check", &out]).expect_code(0);
    let (canvas, middle, _) = two();
    let photo = folder.draw("two.png", &canvas);
    let found = faces(&out, &[&photo]);
    assert_eq!(found.len(), 2);
    close(&found[0]["landmarks"], &landmarks(middle), 1.0);
    // Without a threshold there is a similarity and no decision, which nobody must take for "same person".
    let ran = infer(&out, &["--json", &photo, &photo]).expect_code(2);
    assert_eq!(ran.json()["same"], Value::Null);
    close(&ran.json()["similarity"], &[1.0], 1e-4);
    assert!(ran.stderr.contains("--threshold"), "{}", ran.stderr);
    // The caller may have one.
    for (threshold, code) in [("0.9", 0), ("1.5", 1)] {
        let pair = [&photo, &photo, "--threshold", threshold];
        assert_eq!(
            infer(&out, &pair).expect_code(code).stdout.lines().count(),
            3
        );
    }
    infer(&out, &[&photo, &photo, "--threshold", "nan"]).expect_code(2);
    infer(&out, &[&photo, "--threshold", "0.5"]).expect_code(2);
}

#[test]
fn a_threshold_from_photographs() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("album")).unwrap();
    // Two photographs of each of 16 persons: 480 pairs of different ones, 16 of one.
    let mut list = String::new();
    for person in 0..16 {
        for shot in 0..2 {
            let name = format!("p{person}_{shot}.png");
            let at = [120, 120 + 8 * shot];
            let canvas = Canvas::new(256, 256).face(at, person, 0, 0);
            folder.draw(&format!("album/{name}"), &canvas);
            list += &format!("{name} person{person}\n");
        }
    }
    folder.draw("album/nobody.png", &Canvas::new(64, 64));
    list += "nobody.png person99\n";
    let (list, album) = (
        folder.write("list.txt", list.as_bytes()),
        folder.text("album"),
    );
    let model = folder.bundle_with(&["--calibrate", &list, "--images", &album, "--fpr", "0.05"]);
    let json = run("dcz", &["inspect", &model, "--json"])
        .expect_code(0)
        .json();
    let compare = &json["pipeline"]["compare"];
    close(&compare["fpr"], &[0.05], 1e-6);
    let threshold = compare["threshold"].as_f64().unwrap();
    assert!(threshold > 0.0 && threshold < 1.0, "{threshold}");
    let text = run("dcz", &["inspect", &model]).expect_code(0).stdout;
    for word in [
        "detect",
        "align: 112x112",
        "embed",
        "false positive rate 0.05",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    // The share it was chosen for, counted again.
    let lines = infer(&model, &[&album]).expect_code(0).stdout;
    let vectors: Vec<(String, Vec<f32>)> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| !line["faces"].as_array().unwrap().is_empty())
        .map(|line| {
            let file = line["file"].as_str().unwrap();
            let name = file.rsplit('/').next().unwrap().split('_').next().unwrap();
            (name.to_string(), numbers(&line["faces"][0]["embedding"]))
        })
        .collect();
    let (mut negatives, mut accepted, mut lost) = (0, 0, 0);
    for (i, (person, a)) in vectors.iter().enumerate() {
        for (other, b) in &vectors[i + 1..] {
            let dot =
                |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(p, q)| f64::from(p * q)).sum::<f64>();
            let value = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
            let same = value >= threshold - 1e-6;
            negatives += usize::from(person != other);
            accepted += usize::from(person != other && same);
            lost += usize::from(person == other && !same);
        }
    }
    assert_eq!((negatives, accepted, lost), (480, 24, 0));
    // Too few, and lists that are none.
    let refused = |arguments: &[&str], code: i32, why: &str| {
        let (detector, embedder) = (folder.text("detector.onnx"), folder.text("embedder.onnx"));
        let out = folder.text("refused.dcz");
        let fixed = [
            "bundle",
            "--detector",
            &detector,
            "--embedder",
            &embedder,
            "-o",
            &out,
        ];
        let ran = run("dcz", &[&fixed[..], arguments].concat()).expect_code(code);
        assert!(ran.stderr.contains(why), "{why}: {}", ran.stderr);
        assert!(!folder.path("refused.dcz").exists());
    };
    let bad = folder.write("bad.txt", b"a b c d e\n");
    let gone = folder.write("gone.txt", list_of_missing().as_bytes());
    refused(&["--calibrate", &list, "--images", &album], 5, "too few");
    refused(&["--calibrate", &bad, "--images", &album], 5, "line 1");
    refused(
        &["--calibrate", &gone, "--images", &album, "--fpr", "0.5"],
        7,
        "gone0.png",
    );
    refused(&["--calibrate", &list], 2, "--images");
}

fn list_of_missing() -> String {
    (0..20)
        .map(|i| format!("gone{i}.png person{i}\n"))
        .collect()
}

#[test]
fn the_example_programs() {
    let folder = Folder::new();
    let model = folder.bundle();
    std::fs::create_dir_all(folder.path("people/bob")).unwrap();
    let draw = |name: &str, at: [usize; 2], person: u64| {
        folder.draw(name, &Canvas::new(250, 250).face(at, person, 0, 0))
    };
    let ann = draw("people/ann.png", [120, 120], 1);
    draw("people/bob/1.png", [120, 120], 2);
    folder.write("people/bob/2.png", b"broken");
    let (again, bob) = (
        draw("again.png", [128, 112], 1),
        draw("b.png", [120, 128], 2),
    );
    let stranger = draw("c.png", [120, 120], 3);
    let verify = |a: &str, b: &str| run_program(&example("verify"), &[&model, a, b]);
    assert!(
        verify(&ann, &again)
            .expect_code(0)
            .stdout
            .contains("threshold")
    );
    verify(&ann, &bob).expect_code(1);
    let none = folder.draw("none.png", &Canvas::new(64, 64));
    assert!(
        verify(&ann, &none)
            .expect_code(2)
            .stderr
            .contains("no face")
    );
    verify(&ann, "missing.png").expect_code(2);
    let people = folder.text("people");
    let ran = run_program(
        &example("identify"),
        &[&model, &people, &again, &bob, &stranger],
    )
    .expect_code(0);
    let answers: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(answers.len(), 3, "{answers:?}");
    for (answer, name) in answers.iter().zip(["ann", "bob", "nobody"]) {
        assert!(answer.contains(&format!("): {name}")), "{answer}");
    }
    assert!(ran.stderr.contains("2.png"), "{}", ran.stderr);
}
