//! Photographs through a bundled file, as a user runs them: a detector and an embedder whose answers can be worked out by
//! hand (`dcz_tests::markers`), drawn images, every option of photos, and every kind of bad input with its exit code.

use dcz_tests::markers::{self, Canvas, WINDOW};
use dcz_tests::{Ran, example, generated, run, run_program};
use serde_json::Value;
use std::path::PathBuf;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.write("detector.onnx", &markers::detector());
        folder.write("embedder.onnx", &markers::embedder());
        folder
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
    fn write(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.text(name)
    }
    fn draw(&self, name: &str, canvas: &Canvas) -> String {
        canvas.save(&self.path(name));
        self.text(name)
    }
    /// `face.dcz` of the marker networks, weights as they are, with a threshold.
    fn bundle(&self) -> String {
        self.bundle_with(&["--threshold", "0.95"])
    }
    fn bundle_with(&self, more: &[&str]) -> String {
        let (out, detector) = (self.text("face.dcz"), self.text("detector.onnx"));
        let embedder = self.text("embedder.onnx");
        let mut arguments = vec!["bundle", "--detector", &detector, "--embedder", &embedder];
        arguments.extend([
            "--detector-quantize",
            "none",
            "--quantize",
            "none",
            "-o",
            &out,
        ]);
        arguments.extend(more);
        run("dcz", &arguments).expect_code(0);
        out
    }
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// `infer --model MODEL ...`.
fn infer(model: &str, arguments: &[&str]) -> Ran {
    run("infer", &[&["--model", model], arguments].concat())
}

/// The faces of one photo.
fn faces(model: &str, arguments: &[&str]) -> Vec<Value> {
    let json = infer(model, &[arguments, &["--json"]].concat())
        .expect_code(0)
        .json();
    json["faces"].as_array().unwrap().clone()
}

fn numbers(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(list) => list.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap() as f32],
    }
}

#[track_caller]
fn close(found: &Value, wanted: &[f32], tolerance: f32) {
    let found = numbers(found);
    assert_eq!(found.len(), wanted.len());
    for (a, b) in found.iter().zip(wanted) {
        assert!((a - b).abs() <= tolerance, "{found:?}\n{wanted:?}");
    }
}

/// Landmarks of a marker whose cell's corner is (x, y).
fn landmarks([x, y]: [usize; 2]) -> Vec<f32> {
    let corner = [x, y].map(|v| v as f32 + 4.0 - (WINDOW / 2) as f32);
    let template = dcz_face::align::arcface112().template;
    let moved = template.map(|[u, v]| [corner[0] + u, corner[1] + v]);
    moved.as_flattened().to_vec()
}

/// Two persons: one in the middle, one at the edge with a larger box and a lower score.
fn two() -> (Canvas, [usize; 2], [usize; 2]) {
    let (middle, aside) = ([152, 120], [360, 200]);
    let canvas = Canvas::new(430, 250)
        .face(middle, 1, 0, 0)
        .face(aside, 2, 64, 100);
    (canvas, middle, aside)
}

#[test]
fn boxes_landmarks_scores_and_embeddings() {
    let folder = Folder::new();
    let model = folder.bundle();
    let (canvas, middle, aside) = two();
    let photo = folder.draw("two.png", &canvas);
    let found = faces(&model, &[&photo]);
    assert_eq!(found.len(), 2);
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    let sides = [64.0, 64.0 * 4f32.powf(64.0 / 255.0)];
    let scores = [sigmoid(10.0), sigmoid(10.0 - 2000.0 / 255.0)];
    for ((face, at), (side, score)) in found
        .iter()
        .zip([middle, aside])
        .zip(sides.into_iter().zip(scores))
    {
        let corner = at.map(|v| v as f32 + 4.0 - side / 2.0);
        close(&face["box"], &[corner[0], corner[1], side, side], 0.01);
        close(&face["score"], &[score], 1e-4);
        close(&face["landmarks"], &landmarks(at), 0.01);
        close(&face["embedding"], &canvas.embedding(at), 0.3);
    }
    // Text says the same as JSON, one face after the other.
    let text = infer(&model, &[&photo]).expect_code(0).stdout;
    for word in [
        "face 1",
        "face 2",
        "box 124.00 92.00 64.00 64.00",
        "landmarks",
        "embedding",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    // Neither threads nor a budget change what is found.
    for more in [
        ["--threads", "2"],
        ["--memory-budget", "8MiB"],
        ["--memory-budget", "max"],
    ] {
        let again = faces(&model, &[&[photo.as_str()], &more[..]].concat());
        assert_eq!(again.len(), 2);
        for (a, b) in again.iter().zip(&found) {
            close(&a["box"], &numbers(&b["box"]), 1e-3);
            close(&a["embedding"], &numbers(&b["embedding"]), 1e-2);
        }
    }
}

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
    // Without a threshold there is a similarity and no decision.
    let verdict = infer(&out, &["--json", &photo, &photo])
        .expect_code(0)
        .json();
    assert_eq!(verdict["same"], Value::Null);
    close(&verdict["similarity"], &[1.0], 1e-4);
}

#[test]
fn every_stride_answers() {
    let folder = Folder::new();
    let model = folder.bundle();
    let mut canvas = Canvas::new(224, 160).face([48, 48], 3, 0, 0);
    canvas.fill([160, 96, 32, 32], [0, 0, 255]);
    let found = faces(&model, &[&folder.draw("strides.png", &canvas)]);
    assert_eq!(found.len(), 2);
    // Equal scores: the lower stride first.
    close(&found[0]["box"], &[20.0, 20.0, 64.0, 64.0], 0.01);
    close(&found[1]["box"], &[160.0, 96.0, 32.0, 32.0], 0.01);
}

#[test]
fn faces_are_selected() {
    let folder = Folder::new();
    let model = folder.bundle();
    let (canvas, middle, aside) = two();
    let photo = folder.draw("two.png", &canvas);
    let first = |selection: &str| {
        let found = faces(&model, &[&photo, "--faces", selection]);
        (found.len(), numbers(&found[0]["landmarks"]))
    };
    let near = |(count, found): (usize, Vec<f32>), n: usize, at: [usize; 2]| {
        assert_eq!(count, n);
        assert!((found[0] - landmarks(at)[0]).abs() < 0.01);
    };
    near(first("all"), 2, middle);
    near(first("main"), 1, middle);
    near(first("largest"), 1, aside);
    near(first("2"), 2, aside);
    near(first("9"), 2, aside);
    assert_eq!(faces(&model, &[&photo, "--score", "0.95"]).len(), 1);
    assert_eq!(faces(&model, &[&photo, "--max-faces", "1"]).len(), 1);
}

#[test]
fn overlapping_faces_are_one() {
    let folder = Folder::new();
    let model = folder.bundle();
    let mut canvas = Canvas::new(160, 160).face([80, 72], 1, 0, 0);
    canvas.fill([72, 72, 8, 8], [255, 0, 40]);
    let photo = folder.draw("overlap.png", &canvas);
    let found = faces(&model, &[&photo]);
    assert_eq!(found.len(), 1);
    close(&found[0]["box"], &[52.0, 44.0, 64.0, 64.0], 0.01);
    assert_eq!(faces(&model, &[&photo, "--nms", "0.9"]).len(), 2);
}

#[test]
fn large_photos_are_scaled_down() {
    let folder = Folder::new();
    let model = folder.bundle();
    let small = Canvas::new(200, 136).face([96, 64], 1, 0, 0);
    let photo = folder.draw("large.png", &small.doubled());
    let found = faces(&model, &[&photo, "--size", "200"]);
    assert_eq!(found.len(), 1);
    // Four pixels make one again. Boxes are edges, landmarks centres of pixels.
    close(&found[0]["box"], &[136.0, 72.0, 128.0, 128.0], 0.05);
    let doubled: Vec<f32> = landmarks([96, 64]).iter().map(|v| 2.0 * v + 0.5).collect();
    close(&found[0]["landmarks"], &doubled, 0.05);
    close(&found[0]["embedding"], &small.embedding([96, 64]), 3.0);
    // At its own size the blocks are of 16 x 16: four markers each; the file's 640 leaves it as it is too.
    let native = faces(&model, &[&photo, "--size", "native"]);
    assert_eq!(native, faces(&model, &[&photo]));
    assert_ne!(native, found);
}

#[test]
fn landmarks_instead_of_a_detection() {
    let folder = Folder::new();
    let model = folder.bundle();
    let (canvas, _, aside) = two();
    let photo = folder.draw("two.png", &canvas);
    let list: Vec<String> = landmarks(aside).iter().map(f32::to_string).collect();
    let list = list.join(",");
    let found = faces(&model, &[&photo, "--landmarks", &list]);
    assert_eq!(found.len(), 1);
    close(&found[0]["embedding"], &canvas.embedding(aside), 0.3);
    infer(&model, &[&photo, "--landmarks", "1,2,3"]).expect_code(2);
    infer(&model, &[&photo, "--landmarks", "5,5,5,5,5,5,5,5,5,5"]).expect_code(5);
}

#[test]
fn pictures_and_crops() {
    let folder = Folder::new();
    let model = folder.bundle();
    let (canvas, middle, aside) = two();
    let photo = folder.draw("two.png", &canvas);
    let (drawn, crops) = (folder.text("drawn.png"), folder.text("crops"));
    let arguments = [&photo, "--draw", &drawn, "--save-crops", &crops];
    infer(&model, &arguments).expect_code(0);
    let picture = image::open(&drawn).unwrap().into_rgb8();
    assert_eq!(picture.dimensions(), (430, 250));
    let green = |x: u32, y: u32| picture.get_pixel(x, y).0 == [0, 255, 0];
    // Corners of the box in the middle, and a landmark.
    assert!(green(124, 92) && green(187, 92) && green(124, 155) && green(187, 155));
    assert!(!green(122, 90) && !green(150, 100));
    let eye = landmarks(middle);
    assert!(green(eye[0].round() as u32, eye[1].round() as u32));
    for (index, at) in [middle, aside].into_iter().enumerate() {
        let name = folder.path("crops").join(format!("two_{}.png", index + 1));
        let crop = image::open(name).unwrap().into_rgb8();
        let mut wanted = Canvas::new(WINDOW, WINDOW);
        let [x, y] = at.map(|v| v + 4 - WINDOW / 2);
        for (row, line) in wanted.pixels.chunks_exact_mut(WINDOW * 3).enumerate() {
            for (column, rgb) in line.chunks_exact_mut(3).enumerate() {
                let from = ((y + row).min(249) * 430 + x + column) * 3;
                if y + row < 250 && x + column < 430 {
                    rgb.copy_from_slice(&canvas.pixels[from..from + 3]);
                }
            }
        }
        let worst = crop.iter().zip(&wanted.pixels).map(|(a, b)| a.abs_diff(*b));
        assert!(worst.max().unwrap() <= 1);
    }
    infer(&model, &[&photo, "--draw", &folder.text("no/such/x.png")]).expect_code(7);
}

#[test]
fn verify_decides_and_says_so_in_the_exit_code() {
    let folder = Folder::new();
    let model = folder.bundle();
    let draw = |name: &str, at: [usize; 2], person: u64| {
        folder.draw(name, &Canvas::new(250, 250).face(at, person, 0, 0))
    };
    let (a, b, c) = (
        draw("a.png", [120, 120], 1),
        draw("b.png", [96, 128], 1),
        draw("c.png", [120, 120], 2),
    );
    let none = folder.draw("none.png", &Canvas::new(64, 64));
    for (code, first, second) in [(0, &a, &b), (1, &a, &c), (9, &a, &none), (9, &none, &a)] {
        let long = run("infer", &["verify", "--model", &model, first, second]).expect_code(code);
        let short = infer(&model, &[first, second]).expect_code(code);
        assert_eq!(long.stdout, short.stdout);
        let error = long.stderr.lines().count();
        assert_eq!(error, usize::from(code == 9), "{}", long.stderr);
    }
    let same = infer(&model, &[&a, &b]).expect_code(0).stdout;
    assert!(
        same.contains("similarity") && same.contains("threshold 0.95"),
        "{same}"
    );
    assert!(same.contains("same person"), "{same}");
    let json = infer(&model, &["--json", &a, &c]).expect_code(1).json();
    assert_eq!(json["same"], false);
    close(&json["threshold"], &[0.95], 1e-6);
    // The main face counts, not a larger one at the edge.
    let crowd = Canvas::new(430, 250)
        .face([208, 120], 1, 0, 0)
        .face([392, 216], 2, 64, 0);
    let crowd = folder.draw("crowd.png", &crowd);
    infer(&model, &[&a, &crowd]).expect_code(0);
    // Two photos, described one by one.
    let lines = infer(&model, &[&a, &c, "--each"]).expect_code(0).stdout;
    assert_eq!(lines.lines().count(), 2);
    for wrong in [
        &["verify", "--model", &model, &a][..],
        &["verify", "--model", &model, &a, &b, &c],
    ] {
        run("infer", wrong).expect_code(2);
    }
}

#[test]
fn many_photos_give_a_line_each() {
    let folder = Folder::new();
    let model = folder.bundle();
    std::fs::create_dir(folder.path("photos")).unwrap();
    let (canvas, _, _) = two();
    folder.draw("photos/b.png", &canvas);
    folder.draw("photos/a.bmp", &Canvas::new(96, 64));
    folder.write("photos/notes.txt", b"no image");
    let photos = folder.text("photos");
    let lines = |ran: &Ran| -> Vec<Value> {
        let lines = ran.stdout.lines();
        lines.map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    let ran = infer(&model, &[&photos]).expect_code(0);
    let found = lines(&ran);
    let counts: Vec<usize> = found
        .iter()
        .map(|l| l["faces"].as_array().unwrap().len())
        .collect();
    assert_eq!(counts, [0, 2]);
    assert!(found[0]["file"].as_str().unwrap().ends_with("a.bmp"));
    assert_eq!(ran.stderr, "", "no bar where there is no terminal");
    // One cannot be read: the others are done, and the code says so.
    folder.write("photos/c.jpg", b"\xff\xd8\xff\xe0 broken");
    let ran = infer(&model, &[&photos, "--faces", "main"]).expect_code(8);
    let found = lines(&ran);
    assert_eq!(found.len(), 3);
    assert_eq!(found[1]["faces"].as_array().unwrap().len(), 1);
    assert!(found[2]["error"].as_str().unwrap().contains("c.jpg"));
    assert_eq!(ran.stderr.lines().count(), 1);
    assert!(ran.stderr.contains("1 of 3"), "{}", ran.stderr);
    // Files and folders mixed; a missing file is one of many.
    let (b, missing) = (folder.text("photos/b.png"), folder.text("missing.png"));
    let ran = infer(&model, &[&b, &missing, &photos]).expect_code(8);
    assert_eq!(lines(&ran).len(), 5);
    infer(&model, &[&photos, &b, "--draw", &folder.text("x.png")]).expect_code(2);
    std::fs::create_dir(folder.path("empty")).unwrap();
    infer(&model, &[&folder.text("empty")]).expect_code(5);
}

#[test]
fn a_hundred_faces() {
    let folder = Folder::new();
    let model = folder.bundle();
    let mut canvas = Canvas::new(800, 800);
    for i in 0..100 {
        canvas.fill([i % 10 * 80 + 32, i / 10 * 80 + 32, 8, 8], [255, 0, 0]);
    }
    let photo = folder.draw("hundred.png", &canvas);
    let found = faces(&model, &[&photo, "--size", "native"]);
    assert_eq!(found.len(), 100);
    // Equal scores: by position, row by row.
    let corners: Vec<f32> = found
        .iter()
        .flat_map(|f| numbers(&f["box"])[..2].to_vec())
        .collect();
    assert_eq!(corners[..4], [4.0, 4.0, 84.0, 4.0]);
    assert_eq!(
        faces(&model, &[&photo, "--size", "native", "--max-faces", "7"]).len(),
        7
    );
    let ten = faces(&model, &[&photo, "--size", "native", "--faces", "10"]);
    assert_eq!(ten.len(), 10);
}

#[test]
fn images_of_every_kind() {
    let folder = Folder::new();
    let model = folder.bundle();
    let canvas = Canvas::new(160, 128).face([72, 56], 1, 0, 0);
    let at = landmarks([72, 56]);
    let png = folder.draw("a.png", &canvas);
    let image = image::open(&png).unwrap();
    let save = |name: &str, image: image::DynamicImage| {
        image.save(folder.path(name)).unwrap();
        folder.text(name)
    };
    let kinds = [
        save("sixteen.png", image.to_rgb16().into()),
        save("alpha.png", image.to_rgba8().into()),
        save("a.bmp", image.clone()),
        save("a.webp", image.clone()),
        fixture("animated.webp"),
        fixture("animated.png"),
    ];
    for photo in &kinds {
        let found = faces(&model, &[photo]);
        assert_eq!(found.len(), 1, "{photo}");
        close(&found[0]["landmarks"], &at, 0.5);
    }
    // Grey has no red: it is an image without a face.
    let grey = save("grey.png", image.to_luma8().into());
    infer(&model, &[&grey]).expect_code(9);
    // The four inks of print, 16 x 16 blocks so that compression leaves them red.
    assert_eq!(
        faces(&model, &[&fixture("cmyk.jpg"), "--faces", "main"]).len(),
        1
    );
}

/// A committed image, made by `tests/fixtures/images/generate.py`.
fn fixture(name: &str) -> String {
    let folder = dcz_tests::root().join("tests/fixtures/images");
    folder.join(name).to_str().unwrap().to_owned()
}

#[test]
fn the_camera_was_turned() {
    let folder = Folder::new();
    let model = folder.bundle();
    // The sensor's image, a quarter turn to the left of what the camera saw.
    let seen = Canvas::new(160, 256).face([64, 160], 1, 0, 0);
    let pixels = image::RgbImage::from_raw(160, 256, seen.pixels.clone()).unwrap();
    let turned = image::imageops::rotate270(&pixels);
    let mut jpeg = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 100)
        .encode_image(&turned)
        .unwrap();
    let plain = folder.write("plain.jpg", &jpeg);
    // Orientation 6: turn a quarter to the right to see it upright.
    let exif = [
        &b"\xff\xe1\x00\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"[..],
        &b"\0\0\0\0"[..],
    ]
    .concat();
    jpeg.splice(2..2, exif);
    let marked = folder.write("marked.jpg", &jpeg);
    let found = faces(&model, &[&marked]);
    assert_eq!(found.len(), 1);
    close(&found[0]["landmarks"], &landmarks([64, 160]), 1.0);
    let unmarked = faces(&model, &[&plain]);
    assert!((numbers(&unmarked[0]["landmarks"])[0] - landmarks([64, 160])[0]).abs() > 20.0);
}

#[test]
fn bad_photos_have_their_exit_code_and_one_line() {
    let folder = Folder::new();
    let model = folder.bundle();
    let (canvas, _, _) = two();
    let good = folder.draw("good.png", &canvas);
    let png = std::fs::read(&good).unwrap();
    let mut jpeg = Vec::new();
    image::open(&good)
        .unwrap()
        .write_to(
            &mut std::io::Cursor::new(&mut jpeg),
            image::ImageFormat::Jpeg,
        )
        .unwrap();
    // 20,000 x 20,000 by its header; the rest would be decoded later.
    let mut huge = jpeg.clone();
    let frame = huge.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    huge[frame + 5..frame + 9].copy_from_slice(&[0x4e, 0x20, 0x4e, 0x20]);
    let before = folder.names();
    let cases = [
        (
            9,
            folder.draw("black.png", &Canvas::new(300, 200)),
            "no face",
        ),
        (9, folder.draw("one.png", &Canvas::new(1, 1)), "no face"),
        (9, folder.draw("thin.png", &Canvas::new(5000, 1)), "no face"),
        (
            5,
            folder.write("huge.jpg", &huge),
            "20000x20000 are more than",
        ),
        (
            5,
            folder.write("cut.jpg", &jpeg[..jpeg.len() / 3]),
            "cut off",
        ),
        (5, folder.write("cut.png", &png[..png.len() / 2]), "cut.png"),
        (5, folder.write("empty.png", b""), "empty.png"),
        (
            5,
            folder.write("text.jpg", b"these are words\n"),
            "text.jpg",
        ),
        (
            5,
            folder.write("a.gif", b"GIF89a\x01\0\x01\0\0\0\0;"),
            "a.gif",
        ),
        (7, folder.text("missing.png"), "missing.png"),
    ];
    for (code, photo, why) in &cases {
        let ran = infer(&model, &[photo]).expect_code(*code);
        assert_eq!(ran.stdout, "", "{photo}");
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
        // As one of two, the same.
        let ran = infer(&model, &[&good, photo]).expect_code(*code);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    }
    // A JSON line even for a photo without a face.
    let ran = infer(&model, &["--json", &cases[0].1]).expect_code(9);
    assert_eq!(ran.json()["faces"], serde_json::json!([]));
    std::fs::create_dir(folder.path("album")).unwrap();
    let album = folder.text("album");
    let ran = run("infer", &["verify", "--model", &model, &good, &album]).expect_code(5);
    assert!(
        ran.stderr.contains("a folder, where an image is needed"),
        "{}",
        ran.stderr
    );
    // Limits and options.
    infer(&model, &[&good, "--max-pixels", "1000"]).expect_code(5);
    for (code, more) in [
        (2, ["--score", "1.5"]),
        (2, ["--nms", "-0.1"]),
        (2, ["--faces", "none"]),
        (2, ["--size", "0"]),
        (2, ["--size", "huge"]),
        (2, ["--rect", "0,0,4,4"]),
        (6, ["--memory-budget", "20kB"]),
        (6, ["--memory-budget", "700kB"]),
    ] {
        let joined = format!("{}={}", more[0], more[1]);
        let ran = infer(&model, &[&good, &joined]).expect_code(code);
        assert_eq!(ran.stdout, "", "{more:?}");
    }
    let after: Vec<String> = folder.names();
    assert!(
        after
            .iter()
            .all(|n| !n.contains("tmp") && !n.contains(".part")),
        "{before:?} {after:?}"
    );
}

#[test]
fn files_without_a_pipeline_say_so() {
    let folder = Folder::new();
    let plain = folder.text("plain.dcz");
    let detector = folder.text("detector.onnx");
    run("dcz", &["compress", &detector, "-o", &plain]).expect_code(0);
    let photo = folder.draw("a.png", &Canvas::new(64, 64));
    for more in [&["--faces", "main"][..], &["--draw", "x.png"], &["--each"]] {
        let ran = infer(&plain, &[&[photo.as_str()], more].concat()).expect_code(2);
        assert!(ran.stderr.contains("dcz bundle"), "{}", ran.stderr);
    }
}

#[test]
fn networks_that_do_not_fit_are_refused_and_nothing_is_written() {
    let folder = Folder::new();
    folder.write("small.onnx", &generated::small(generated::dense));
    folder.write("stranger.onnx", &markers::stranger());
    folder.write("bad.toml", b"size = [112, 112]\npoints = [[1, 2]]\n");
    folder.write(
        "odd.toml",
        b"size = [64, 64]\npoints = [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]\n",
    );
    let out = folder.text("out.dcz");
    let before = folder.names();
    for (code, detector, embedder, more, why) in [
        (
            5,
            "stranger.onnx",
            "embedder.onnx",
            &[][..],
            "no output cls_8",
        ),
        (4, "small.onnx", "embedder.onnx", &[], "Gemm"),
        (2, "detector.onnx", "small.onnx", &[], "--template"),
        (
            5,
            "detector.onnx",
            "embedder.onnx",
            &["--template", "odd.toml"],
            "embedder",
        ),
        (
            5,
            "detector.onnx",
            "embedder.onnx",
            &["--template", "bad.toml"],
            "bad.toml",
        ),
        (
            7,
            "detector.onnx",
            "embedder.onnx",
            &["--template", "none.toml"],
            "none.toml",
        ),
        (7, "missing.onnx", "embedder.onnx", &[], "missing.onnx"),
        (
            2,
            "detector.onnx",
            "embedder.onnx",
            &["--size", "9000"],
            "--size",
        ),
        (
            2,
            "detector.onnx",
            "embedder.onnx",
            &["--score", "2"],
            "score",
        ),
    ] {
        let more: Vec<String> = more
            .iter()
            .map(|m| {
                if m.ends_with("toml") {
                    folder.text(m)
                } else {
                    (*m).into()
                }
            })
            .collect();
        let (detector, embedder) = (folder.text(detector), folder.text(embedder));
        let mut arguments = vec![
            "bundle",
            "--detector",
            &detector,
            "--embedder",
            &embedder,
            "-o",
            &out,
        ];
        arguments.extend(more.iter().map(String::as_str));
        let ran = run("dcz", &arguments).expect_code(code);
        assert!(ran.stderr.contains(why), "{why}: {}", ran.stderr);
        assert_eq!(folder.names(), before);
    }
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

#[test]
fn times_of_the_stages() {
    let folder = Folder::new();
    let model = folder.bundle();
    let (canvas, _, _) = two();
    let photo = folder.draw("two.png", &canvas);
    let ran = infer(&model, &[&photo, "--bench", "2", "--json"]).expect_code(0);
    let json = ran.json();
    assert_eq!(json["faces"], 2);
    for key in [
        "detect_ms",
        "embed_ms",
        "total_ms",
        "prepare_ms",
        "memory_bytes",
        "peak_rss_bytes",
    ] {
        assert!(json[key].is_number(), "{key}: {json}");
    }
    assert!(ran.stderr.contains("detect: median"), "{}", ran.stderr);
    infer(&model, &[&photo, &photo, "--bench", "2"]).expect_code(2);
}
