//! The program as a user sees it: results, files, one line of JSON, exit codes.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use dcz::Model;
use dcz::graph::*;
use dcz::oracle::{Array, ContainerWeights};
use dcz_format::layer::{KOrder, LayerShape, Values};
use dcz_format::selftest::{generate, sample_positions};
use dcz_format::writer::{IndexChoice, LayerInput, NetworkInput, Weights, WriteOptions, encode};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// One convolution and a linear layer on a 3x8x8 image; the embedding has 6 values.
fn network(name: &str, outputs: usize) -> NetworkInput {
    let tensor = |name: &str, dims: &[u32]| Tensor {
        name: name.into(),
        dims: dims.iter().map(|&d| Dim::Fixed(d)).collect(),
        quant: None,
    };
    let node = |name: &str, op: Op, input: u32, output: u32| Node {
        name: name.into(),
        op,
        inputs: vec![TensorId(input)],
        output: TensorId(output),
    };
    let conv = Conv {
        layer: LayerId(0),
        bias: None,
        strides: [2, 2],
        dilations: [1, 1],
        pads: Pads::Explicit([1; 4]),
    };
    let dims = vec![ReshapeDim::Input { from: 0, to: 1 }, ReshapeDim::Rest];
    let layer = |name: &str, shape: LayerShape| LayerInput {
        name: name.into(),
        shape,
        k_order: KOrder::ChannelMajor,
        values: Values::Raw32,
        weights: Weights::F32(
            (0..shape.weights())
                .map(|i| ((i * 37 % 101) as f32 - 50.0) / 200.0)
                .collect(),
        ),
        index: IndexChoice::Auto,
        cosine: 1.0,
        max_error: 0.0,
    };
    let embedding = Meaning::Embedding {
        metric: Metric::Cosine,
        threshold: Some(0.999),
    };
    let list = [(3, embedding), (1, Meaning::Unknown)]
        .into_iter()
        .take(outputs);
    NetworkInput {
        network: Network {
            name: name.into(),
            tensors: vec![
                tensor("data", &[1, 3, 8, 8]),
                tensor("map/1", &[]),
                tensor("flat", &[]),
                tensor("embedding", &[]),
            ],
            nodes: vec![
                node("conv", Op::Conv(conv), 0, 1),
                node("flatten", Op::Reshape { dims }, 1, 2),
                node(
                    "fc",
                    Op::Linear {
                        layer: LayerId(1),
                        bias: None,
                    },
                    2,
                    3,
                ),
            ],
            inputs: vec![TensorId(0)],
            outputs: list
                .map(|(t, meaning)| dcz::graph::Output {
                    tensor: TensorId(t),
                    meaning,
                })
                .collect(),
            preprocess: Some(Preprocess {
                size: [8, 8],
                channels: ChannelOrder::Rgb,
                mean: [127.5; 3],
                scale: [1.0 / 128.0; 3],
                resize: ResizeRule::Stretch,
                filter: Filter::Bilinear,
            }),
            ..Network::default()
        },
        layers: vec![
            layer(
                "conv",
                LayerShape {
                    out_channels: 4,
                    in_per_group: 3,
                    kernel: [3, 3],
                    groups: 1,
                },
            ),
            layer(
                "fc",
                LayerShape {
                    out_channels: 6,
                    in_per_group: 64,
                    kernel: [1, 1],
                    groups: 1,
                },
            ),
        ],
        constants: Vec::new(),
    }
}

fn write(path: &Path, networks: Vec<NetworkInput>, self_test: bool) {
    let mut encoded = encode(networks, &WriteOptions::default(), &mut |_, _| {}).unwrap();
    if self_test {
        let model = Model::from_bytes(encoded.to_bytes().unwrap()).unwrap();
        let mut test = SelfTest {
            generator: Generator::SplitMix64,
            seed: 5,
            range: [-1.0, 1.0],
            expected: vec![],
        };
        let mut data = vec![0.0; 192];
        generate(&test, 0, &mut data);
        let input = Array {
            dims: vec![1, 3, 8, 8],
            values: data.into_iter().map(f64::from).collect(),
        };
        let mut weights = ContainerWeights::new(model.container(), 0);
        let network = &model.networks()[0];
        let exact =
            dcz::oracle::run(network, &[input], &mut weights, &|_| false, &mut |_, _| {}).unwrap();
        test.expected = network
            .outputs
            .iter()
            .map(|o| {
                let values = &exact[&o.tensor].values;
                Expected {
                    len: values.len() as u32,
                    max_abs: values.iter().fold(0.0, |m: f64, v| m.max(v.abs())) as f32,
                    norm: values.iter().map(|v| v * v).sum::<f64>().sqrt() as f32,
                    samples: sample_positions(values.len(), 4)
                        .map(|i| values[i] as f32)
                        .collect(),
                }
            })
            .collect();
        encoded.set_self_test(0, test).unwrap();
    }
    encoded.write_atomic(path).unwrap();
}

struct Bench {
    folder: TempDir,
}

impl Bench {
    /// A folder with `one.dcz`, `two.dcz` (two outputs), `several.dcz` (two networks), an image and a tensor.
    fn new() -> Bench {
        let folder = TempDir::new().unwrap();
        let bench = Bench { folder };
        write(&bench.path("one.dcz"), vec![network("face", 1)], true);
        write(&bench.path("two.dcz"), vec![network("face", 2)], false);
        write(
            &bench.path("several.dcz"),
            vec![network("a", 1), network("b", 1)],
            false,
        );
        let colour =
            |x: u32, y: u32| image::Rgb([(x * 20) as u8, (y * 16) as u8, ((x * y) % 256) as u8]);
        image::RgbImage::from_fn(12, 16, colour)
            .save(bench.path("a.png"))
            .unwrap();
        image::RgbImage::from_fn(16, 12, |x, y| colour(y, x))
            .save(bench.path("b.bmp"))
            .unwrap();
        bench.npy("x.npy", &[1, 3, 8, 8], 192);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn npy(&self, name: &str, shape: &[u64], count: usize) {
        use npyz::WriterBuilder;
        let mut bytes = Vec::new();
        let mut writer = npyz::WriteOptions::new()
            .default_dtype()
            .shape(shape)
            .writer(&mut bytes)
            .begin_nd()
            .unwrap();
        writer
            .extend((0..count).map(|i| i as f32 / 100.0 - 1.0))
            .unwrap();
        writer.finish().unwrap();
        std::fs::write(self.path(name), bytes).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
        command
            .current_dir(self.folder.path())
            .args(arguments)
            .output()
            .unwrap()
    }

    /// Standard output of a run that ends with `code`.
    fn ends(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        if ![0, 1, 2].contains(&code) {
            assert_eq!(
                error.trim_end().lines().count(),
                1,
                "{arguments:?}: {error}"
            );
        }
        String::from_utf8(output.stdout).unwrap()
    }

    /// The only line of standard output, parsed.
    fn json(&self, code: i32, arguments: &[&str]) -> serde_json::Value {
        let text = self.ends(code, arguments);
        assert_eq!(text.trim_end().lines().count(), 1, "{arguments:?}: {text}");
        serde_json::from_str(&text).unwrap()
    }
}

#[test]
fn image_gives_an_embedding() {
    let bench = Bench::new();
    let text = bench.ends(0, &["--model", "one.dcz", "a.png"]);
    assert_eq!(
        text.split_whitespace()
            .filter_map(|v| v.parse::<f32>().ok())
            .count(),
        6
    );
    let json = bench.json(0, &["--model", "one.dcz", "a.png", "--json"]);
    assert_eq!(json["outputs"][0]["values"].as_array().unwrap().len(), 6);
    assert_eq!(json["outputs"][0]["name"], "embedding");
    let whole = bench.json(
        0,
        &[
            "--model",
            "one.dcz",
            "a.png",
            "--json",
            "--rect",
            "0,0,12,16",
        ],
    );
    assert_eq!(json["outputs"], whole["outputs"]);
    let part = bench.json(
        0,
        &["--model", "one.dcz", "a.png", "--json", "--rect", "1,2,5,6"],
    );
    assert_ne!(json["outputs"], part["outputs"]);
    // Any format, any number of threads, any instruction set name.
    for format in ["jpg", "webp", "bmp"] {
        let name = format!("c.{format}");
        image::open(bench.path("a.png"))
            .unwrap()
            .into_rgb8()
            .save(bench.path(&name))
            .unwrap();
        bench.ends(0, &["--model", "one.dcz", &name]);
    }
    for threads in ["1", "3"] {
        let same = bench.json(
            0,
            &[
                "--model",
                "one.dcz",
                "a.png",
                "--json",
                "--threads",
                threads,
            ],
        );
        assert_eq!(json["outputs"], same["outputs"]);
    }
}

#[test]
fn two_images_are_compared() {
    let bench = Bench::new();
    let text = bench.ends(0, &["--model", "one.dcz", "a.png", "a.png"]);
    assert!(
        text.contains("similarity 1.000000") && text.contains("same person"),
        "{text}"
    );
    let json = bench.json(1, &["--model", "one.dcz", "a.png", "b.bmp", "--json"]);
    assert_eq!(json["same"], false);
    assert!(json["similarity"].as_f64().unwrap() < 0.999);
    let rects = ["--rect", "0,0,4,4", "--rect", "2,2,4,4"];
    bench.ends(
        1,
        &[&["--model", "one.dcz", "a.png", "a.png"][..], &rects].concat(),
    );
}

#[test]
fn tensors_in_and_out() {
    let bench = Bench::new();
    bench.ends(
        0,
        &[
            "--model", "one.dcz", "--input", "x.npy", "--output", "y.npy",
        ],
    );
    let file = std::fs::read(bench.path("y.npy")).unwrap();
    let array = npyz::NpyFile::new(file.as_slice()).unwrap();
    assert_eq!(array.shape(), [1, 6]);
    bench.ends(
        0,
        &[
            "--model",
            "one.dcz",
            "--input",
            "data=x.npy",
            "--output",
            "y2.npy",
        ],
    );
    assert_eq!(file, std::fs::read(bench.path("y2.npy")).unwrap());
    bench.ends(
        0,
        &["--model", "two.dcz", "--input", "x.npy", "--output", "all"],
    );
    assert_eq!(
        file,
        std::fs::read(bench.path("all/embedding.npy")).unwrap()
    );
    assert!(bench.path("all/map_1.npy").is_file());
}

#[test]
fn plan_profile_and_bench() {
    let bench = Bench::new();
    let plan = bench.ends(0, &["--model", "one.dcz", "--plan"]);
    assert!(
        plan.contains("numeric id") && plan.contains("<- peak"),
        "{plan}"
    );
    assert!(
        bench
            .ends(0, &["--model", "one.dcz", "--profile", "--input", "x.npy"])
            .contains("decode ms")
    );
    for model in ["one.dcz", "two.dcz"] {
        let json = bench.json(
            0,
            &[
                "--model",
                model,
                "--bench",
                "5",
                "--json",
                "--plan",
                "--profile",
            ],
        );
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
            assert!(json[key].is_number(), "{key}: {json}");
        }
    }
    let refused = bench.ends(
        3,
        &["--model", "one.dcz", "--bench", "5", "--max-error", "1e-12"],
    );
    assert_eq!(refused, "");
}

#[test]
fn several_networks_need_a_name() {
    let bench = Bench::new();
    let output = bench.run(&["--model", "several.dcz", "a.png"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("a, b"));
    bench.ends(0, &["--model", "several.dcz", "--network", "b", "a.png"]);
    bench.ends(2, &["--model", "several.dcz", "--network", "c", "a.png"]);
}

#[test]
fn bad_input_has_its_exit_code_and_leaves_nothing() {
    let bench = Bench::new();
    let write = |name: &str, bytes: &[u8]| std::fs::write(bench.path(name), bytes).unwrap();
    write("empty", b"");
    write("text", b"this is no model\n");
    bench.npy("small.npy", &[1, 3, 4, 4], 48);
    let model = std::fs::read(bench.path("one.dcz")).unwrap();
    write("cut.dcz", &model[..model.len() / 2]);
    let npy = std::fs::read(bench.path("x.npy")).unwrap();
    write("cut.npy", &npy[..npy.len() - 40]);
    let png = std::fs::read(bench.path("a.png")).unwrap();
    write("cut.png", &png[..png.len() / 2]);
    // A PNG whose header says 0 x 0, with a right checksum or not: no image of this size exists.
    let mut zero = png.clone();
    zero[16..24].fill(0);
    write("zero.png", &zero);
    for (code, arguments) in [
        (2, &["--model", "one.dcz"][..]),
        (2, &["a.png"]),
        (2, &["--model", "one.dcz", "a.png", "--threads", "0"]),
        (
            2,
            &["--model", "one.dcz", "a.png", "--memory-budget", "lots"],
        ),
        (2, &["--model", "one.dcz", "a.png", "--rect", "1,2,3"]),
        (
            2,
            &[
                "--model", "one.dcz", "--input", "a=x.npy", "--input", "b=x.npy",
            ],
        ),
        (
            2,
            &["--model", "two.dcz", "--input", "x.npy", "--input", "x.npy"],
        ),
        (3, &["--model", "empty", "a.png"]),
        (3, &["--model", "text", "a.png"]),
        (3, &["--model", "cut.dcz", "a.png"]),
        (5, &["--model", "one.dcz", "empty"]),
        (5, &["--model", "one.dcz", "text"]),
        (5, &["--model", "one.dcz", "cut.png"]),
        (5, &["--model", "one.dcz", "zero.png"]),
        (5, &["--model", "one.dcz", "a.png", "--rect", "0,0,13,1"]),
        (5, &["--model", "one.dcz", "a.png", "--rect", "0,0,0,0"]),
        (5, &["--model", "one.dcz", "--input", "small.npy"]),
        (5, &["--model", "one.dcz", "--input", "cut.npy"]),
        (5, &["--model", "one.dcz", "--input", "text"]),
        (
            6,
            &["--model", "one.dcz", "a.png", "--memory-budget", "1kB"],
        ),
        (7, &["--model", "missing.dcz", "a.png"]),
        (7, &["--model", "one.dcz", "missing.png"]),
        (7, &["--model", "one.dcz", "--input", "missing.npy"]),
        (
            7,
            &[
                "--model",
                "one.dcz",
                "--input",
                "x.npy",
                "--output",
                "no/such/y.npy",
            ],
        ),
    ] {
        assert_eq!(bench.ends(code, arguments), "", "{arguments:?}");
    }
    let names = std::fs::read_dir(bench.folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name());
    assert!(
        names
            .into_iter()
            .all(|n| !n.to_string_lossy().contains("tmp"))
    );
}
