//! Images of every kind, bad ones with their exit code and one line, and networks that do not fit a pipeline.

use dcz_tests::markers::{self, Canvas};
use dcz_tests::photos::{Folder, close, faces, infer, landmarks, numbers, two};
use dcz_tests::{generated, run};

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
    // A folder as the file.
    let ran = infer(&album, &[&good]).expect_code(5);
    assert!(
        ran.stderr.contains("a folder, where a .dcz"),
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
        (2, ["--draw", "drawn.jpg"]),
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
            4,
            "stranger.onnx",
            "embedder.onnx",
            &[][..],
            "no output cls_8",
        ),
        (4, "small.onnx", "embedder.onnx", &[], "is it the embedder?"),
        (2, "detector.onnx", "small.onnx", &[], "--template"),
        (
            4,
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
