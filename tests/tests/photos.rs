//! Photographs through a bundled file, as a user runs them: a detector and an embedder whose answers can be worked out by
//! hand (`dcz_tests::markers`), drawn images, every option of photos.

use dcz_tests::markers::{Canvas, WINDOW};
use dcz_tests::photos::{Folder, close, faces, infer, landmarks, numbers, two};
use dcz_tests::{Ran, run};
use serde_json::Value;

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
    let nothing = infer(&model, &[]).expect_code(2);
    assert!(nothing.stderr.contains("photo"), "{}", nothing.stderr);
    for wrong in [
        &["verify", "--model", &model, &a][..],
        &["verify", "--model", &model, &a, &b, &c],
        &["verify", "--model", &model, &a, &b, "--each"],
    ] {
        run("infer", wrong).expect_code(2);
    }
    // What a comparison would not do is refused, and nothing is written.
    let picture = folder.text("drawn.png");
    for ignored in [
        ["--draw", &picture],
        ["--save-crops", &picture],
        ["--faces", "largest"],
        ["--landmarks", "1,2,3,4,5,6,7,8,9,10"],
    ] {
        let ran = infer(&model, &[&[a.as_str(), &b], &ignored[..]].concat()).expect_code(2);
        assert!(ran.stderr.contains(ignored[0]), "{}", ran.stderr);
        assert!(ran.stderr.contains("--each"), "{}", ran.stderr);
    }
    infer(&model, &[&a, &b, "--faces", "main"]).expect_code(0);
    assert!(!folder.path("drawn.png").exists());
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
    // Steps of both networks, timed or not.
    for more in [&["--bench", "2"][..], &[]] {
        let ran = infer(&model, &[&[photo.as_str(), "--profile"], more].concat()).expect_code(0);
        for word in ["detector\n", "embedder\n", "decode ms"] {
            assert!(ran.stdout.contains(word), "{word}: {}", ran.stdout);
        }
    }
    infer(&model, &[&photo, &photo, "--profile"]).expect_code(2);
    infer(&model, &[&photo, &photo, "--bench", "2"]).expect_code(2);
}
