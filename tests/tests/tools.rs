//! The two tools as a user meets them: the normal way, and every kind of bad input with its exit code, one line on
//! stderr and no partial file.

use dcz_tests::{Ran, generated, run};
use std::path::{Path, PathBuf};

struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    fn new() -> Folder {
        Folder {
            folder: tempfile::tempdir().unwrap(),
        }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
    fn model(&self) -> String {
        let path = generated::write(
            self.folder.path(),
            "small.onnx",
            &generated::small(generated::dense),
        );
        path.to_str().unwrap().to_owned()
    }
    fn compressed(&self) -> String {
        let out = self.text("small.dcz");
        run("dcz", &["compress", &self.model(), "-o", &out]).expect_code(0);
        out
    }
    /// Compressed with preprocessing and an embedding as output, so that it takes images.
    fn compressed_for_images(&self) -> String {
        let preprocess = b"[image]\nsize = [16, 16]\nchannels = \"rgb\"\nmean = [127.5, 127.5, 127.5]\n\
            scale = [0.0078125, 0.0078125, 0.0078125]\n[output]\nkind = \"embedding\"\nmetric = \"cosine\"\nthreshold = 0.9\n";
        let toml = generated::write(self.folder.path(), "preprocess.toml", preprocess);
        let out = self.text("images.dcz");
        let model = self.model();
        run(
            "dcz",
            &[
                "compress",
                &model,
                "-o",
                &out,
                "--preprocess",
                toml.to_str().unwrap(),
            ],
        )
        .expect_code(0);
        out
    }
    /// A picture of `size`; `phase` makes different ones. The format follows from the name.
    fn picture(&self, name: &str, size: [u32; 2], phase: u32) -> String {
        let path = self.path(name);
        let shade = |x: u32| ((x * 13 + phase * 97) % 256) as u8;
        image::RgbImage::from_fn(size[0], size[1], |x, y| {
            image::Rgb([shade(x), shade(y * phase), shade(x + y)])
        })
        .save(&path)
        .unwrap();
        path.to_str().unwrap().to_owned()
    }
    fn npy(&self, name: &str, dims: &[u64], values: &[f32]) -> String {
        use npyz::WriterBuilder;
        let path = self.path(name);
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = npyz::WriteOptions::new()
            .default_dtype()
            .shape(dims)
            .writer(file)
            .begin_nd()
            .unwrap();
        writer.extend(values.iter().copied()).unwrap();
        writer.finish().unwrap();
        path.to_str().unwrap().to_owned()
    }
    fn input(&self) -> String {
        let values: Vec<f32> = (0..3 * 16 * 16)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0)
            .collect();
        self.npy("x.npy", &[1, 3, 16, 16], &values)
    }
}

fn read_npy(path: &Path) -> Vec<f32> {
    let file = npyz::NpyFile::new(std::fs::File::open(path).unwrap()).unwrap();
    file.into_vec::<f32>().unwrap()
}

#[track_caller]
fn refused(ran: Ran, code: i32) {
    let ran = ran.expect_code(code);
    assert_eq!(
        ran.stderr.trim_end().lines().count(),
        1,
        "not one line on stderr: {}",
        ran.stderr
    );
}

#[test]
fn compress_check_inspect_compare_infer() {
    let folder = Folder::new();
    let (file, model, input) = (folder.compressed(), folder.model(), folder.input());
    run("dcz", &["check", &file]).expect_code(0);
    let inspected = run("dcz", &["inspect", &file, "--json"])
        .expect_code(0)
        .json();
    assert_eq!(
        inspected["networks"].as_array().map(Vec::len),
        Some(1),
        "{inspected}"
    );
    run("dcz", &["inspect", &file]).expect_code(0);
    run("dcz", &["compare", &model, &file, "--input", &input]).expect_code(0);
    // No cosine reaches 1.1: every layer is bad.
    let strict = [
        "compare",
        &model,
        &file,
        "--input",
        &input,
        "--bad-below",
        "1.1",
    ];
    refused(run("dcz", &strict), 9);
    let out = folder.path("y.npy");
    run(
        "infer",
        &[
            "--model",
            &file,
            "--input",
            &input,
            "--output",
            out.to_str().unwrap(),
        ],
    )
    .expect_code(0);
    assert_eq!(read_npy(&out).len(), 24);
    let bench = run("infer", &["--model", &file, "--bench", "3", "--json"])
        .expect_code(0)
        .json();
    for key in [
        "median_ms",
        "min_ms",
        "p90_ms",
        "first_ms",
        "load_ms",
        "prepare_ms",
        "arena_bytes",
        "resident_bytes",
        "peak_rss_bytes",
        "output_error",
    ] {
        assert!(bench[key].is_number(), "{key} is missing in {bench}");
    }
}

/// Threads and the way of reading do not change a bit; neither does compressing twice.
#[test]
fn same_input_same_bits() {
    let folder = Folder::new();
    let (file, input) = (folder.compressed(), folder.input());
    let first = std::fs::read(&file).unwrap();
    folder.compressed();
    assert_eq!(
        first,
        std::fs::read(&file).unwrap(),
        "compressing twice gives different files"
    );
    let mut results = Vec::new();
    for threads in ["1", "2", "3"] {
        let out = folder.path("y.npy");
        let arguments = [
            "--model",
            &file,
            "--input",
            &input,
            "--output",
            out.to_str().unwrap(),
            "--threads",
            threads,
        ];
        run("infer", &arguments).expect_code(0);
        results.push(
            read_npy(&out)
                .iter()
                .map(|v| v.to_bits())
                .collect::<Vec<_>>(),
        );
    }
    assert!(
        results.windows(2).all(|pair| pair[0] == pair[1]),
        "threads change bits"
    );
}

#[test]
fn usage_errors() {
    let folder = Folder::new();
    let file = folder.compressed();
    run("infer", &["--no-such-flag"]).expect_code(2);
    run("dcz", &["compress"]).expect_code(2);
    run("dcz", &["no-such-command"]).expect_code(2);
    run(
        "infer",
        &["--model", &file, "--threads", "0", "--bench", "1"],
    )
    .expect_code(2);
    run("infer", &["--help"]).expect_code(0);
    run("dcz", &["--help"]).expect_code(0);
}

#[test]
fn bad_containers() {
    let folder = Folder::new();
    let (file, input) = (folder.compressed(), folder.input());
    let whole = std::fs::read(&file).unwrap();
    let cases: [(&str, Vec<u8>); 4] = [
        ("empty.dcz", vec![]),
        ("text.dcz", b"this is not a container\n".repeat(10)),
        ("short.dcz", whole[..whole.len() - 1].to_vec()),
        ("half.dcz", whole[..whole.len() / 2].to_vec()),
    ];
    for (name, bytes) in cases {
        let path = generated::write(folder.folder.path(), name, &bytes);
        let path = path.to_str().unwrap();
        refused(run("dcz", &["check", path]), 3);
        refused(run("infer", &["--model", path, "--input", &input]), 3);
    }
    let missing = folder.text("missing.dcz");
    refused(run("infer", &["--model", &missing, "--input", &input]), 7);
    refused(
        run("dcz", &["check", folder.folder.path().to_str().unwrap()]),
        7,
    );
}

/// `dcz check` refuses flips everywhere (a sample here; every bit is tested in the format crate); `infer` refuses or
/// gives the same bits.
#[test]
fn flipped_bits() {
    let folder = Folder::new();
    let (file, input) = (folder.compressed(), folder.input());
    let whole = std::fs::read(&file).unwrap();
    let out = folder.path("y.npy");
    let infer = |model: &str| {
        let _ = std::fs::remove_file(&out);
        run(
            "infer",
            &[
                "--model",
                model,
                "--input",
                &input,
                "--output",
                out.to_str().unwrap(),
            ],
        )
    };
    infer(&file).expect_code(0);
    let expected = std::fs::read(&out).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 24) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let path = generated::write(folder.folder.path(), "flipped.dcz", &bytes);
        let path = path.to_str().unwrap();
        let checked = run("dcz", &["check", path]);
        assert!(
            matches!(checked.code, 3 | 4),
            "flip at {at}: check gives {}",
            checked.code
        );
        let ran = infer(path);
        match ran.code {
            0 => assert_eq!(
                std::fs::read(&out).unwrap(),
                expected,
                "flip at {at} changed the output"
            ),
            code => {
                assert!(
                    matches!(code, 3 | 4),
                    "flip at {at}: infer gives {code}: {}",
                    ran.stderr
                );
                assert!(!out.exists(), "flip at {at}: a failed run left an output");
            }
        }
    }
}

#[test]
fn bad_models() {
    let folder = Folder::new();
    let out = folder.text("out.dcz");
    let unsupported = generated::write(
        folder.folder.path(),
        "unsupported.onnx",
        &generated::unsupported(),
    );
    let ran = run(
        "dcz",
        &["compress", unsupported.to_str().unwrap(), "-o", &out],
    )
    .expect_code(4);
    for name in ["strange_one", "strange_two", "Quaternionise"] {
        assert!(
            ran.stderr.contains(name),
            "{name} is not named: {}",
            ran.stderr
        );
    }
    let text = generated::write(folder.folder.path(), "text.onnx", b"not a model");
    refused(
        run("dcz", &["compress", text.to_str().unwrap(), "-o", &out]),
        3,
    );
    let empty = generated::write(folder.folder.path(), "empty.onnx", b"");
    refused(
        run("dcz", &["compress", empty.to_str().unwrap(), "-o", &out]),
        3,
    );
    refused(
        run("dcz", &["compress", &folder.text("none.onnx"), "-o", &out]),
        7,
    );
    assert!(!Path::new(&out).exists());

    // Outputs that cannot be written.
    let model = folder.model();
    refused(
        run(
            "dcz",
            &[
                "compress",
                &model,
                "-o",
                &folder.text("no/such/folder/out.dcz"),
            ],
        ),
        7,
    );
    refused(
        run(
            "dcz",
            &[
                "compress",
                &model,
                "-o",
                folder.folder.path().to_str().unwrap(),
            ],
        ),
        7,
    );
    let leftovers: Vec<_> = std::fs::read_dir(folder.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".onnx"))
        .collect();
    assert!(leftovers.is_empty(), "left behind: {leftovers:?}");
}

#[test]
fn bad_inputs() {
    let folder = Folder::new();
    let file = folder.compressed();
    let wrong = folder.npy("wrong.npy", &[1, 3, 8, 16], &[0.0; 3 * 8 * 16]);
    refused(run("infer", &["--model", &file, "--input", &wrong]), 5);
    let text = generated::write(folder.folder.path(), "text.npy", b"not an array");
    refused(
        run(
            "infer",
            &["--model", &file, "--input", text.to_str().unwrap()],
        ),
        5,
    );
    let takes_images = folder.compressed_for_images();
    let mut no_pixels = std::fs::read(folder.picture("whole.bmp", [20, 20], 1)).unwrap();
    no_pixels[18..26].fill(0); // width and height
    let whole = std::fs::read(folder.picture("whole.png", [20, 20], 1)).unwrap();
    for (name, bytes) in [
        ("empty.png", &[][..]),
        ("text.jpg", b"text"),
        ("zero.bmp", &no_pixels),
        ("short.png", &whole[..whole.len() / 2]),
    ] {
        let image = generated::write(folder.folder.path(), name, bytes);
        refused(
            run(
                "infer",
                &["--model", &takes_images, image.to_str().unwrap()],
            ),
            5,
        );
    }
    let image = folder.picture("a.png", [40, 30], 1);
    refused(
        run(
            "infer",
            &["--model", &takes_images, &image, "--rect", "35,0,20,20"],
        ),
        5,
    );
    refused(
        run(
            "infer",
            &["--model", &takes_images, &folder.text("none.png")],
        ),
        7,
    );
    // The file does not say how an image becomes its input.
    refused(run("infer", &["--model", &file, &image]), 2);
    let good = folder.input();
    refused(
        run(
            "infer",
            &[
                "--model",
                &file,
                "--input",
                &good,
                "--output",
                &folder.text("no/such/y.npy"),
            ],
        ),
        7,
    );
    refused(
        run(
            "infer",
            &[
                "--model",
                &file,
                "--input",
                &good,
                "--memory-budget",
                "1KiB",
            ],
        ),
        6,
    );
    let other = format!("nobody={good}");
    run("infer", &["--model", &file, "--input", &other]).expect_code(2);
}

/// Images of every format; two images of one person and of two; a rectangle.
#[test]
fn images() {
    let folder = Folder::new();
    let file = folder.compressed_for_images();
    for name in ["a.png", "a.jpg", "a.webp", "a.bmp"] {
        let image = folder.picture(name, [40, 30], 1);
        let json = run("infer", &["--model", &file, &image, "--json"])
            .expect_code(0)
            .json();
        let values = json["outputs"][0]["values"].as_array();
        assert_eq!(values.map(Vec::len), Some(24), "{name}: {json}");
    }
    let (a, b) = (
        folder.picture("a.png", [40, 30], 1),
        folder.picture("b.png", [40, 30], 2),
    );
    let same = run("infer", &["--model", &file, &a, &a, "--json"])
        .expect_code(0)
        .json();
    assert!(
        (same["similarity"].as_f64().unwrap() - 1.0).abs() < 1e-5,
        "{same}"
    );
    assert!(
        (same["threshold"].as_f64().unwrap() - 0.9).abs() < 1e-6,
        "{same}"
    );
    let other = run("infer", &["--model", &file, &a, &b, "--json"]);
    let similarity = other.json()["similarity"].as_f64().unwrap();
    assert_eq!(other.code, i32::from(similarity < 0.9), "{similarity}");
    run(
        "infer",
        &[
            "--model",
            &file,
            &a,
            &b,
            "--rect",
            "5,5,20,20",
            "--rect",
            "1,2,16,16",
        ],
    );
    // A rectangle that is the whole image changes nothing.
    let whole = run("infer", &["--model", &file, &a, "--json"])
        .expect_code(0)
        .json();
    let rect = run(
        "infer",
        &["--model", &file, &a, "--rect", "0,0,40,30", "--json"],
    )
    .expect_code(0)
    .json();
    assert!(whole["outputs"].is_array());
    assert_eq!(whole["outputs"], rect["outputs"]);
}
