//! Real networks and faces, where they are: parity with the f64 oracle, size and accuracy of the default file.

use dcz::{Model, Session, SessionOptions, TensorRef};
use dcz_tests::faces::{Pairs, best_threshold_accuracy, true_positive_rate};
use dcz_tests::{run, shared};
use std::collections::HashMap;
use std::path::Path;

/// Every real network, weights as they are: the self-test's samples (f64 oracle) within 2e-5 of the largest magnitude.
#[test]
fn float_networks_agree_with_the_oracle() {
    let Some(shared) = shared("float_networks_agree_with_the_oracle") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "sface_float",
        "face_recognition_sface_2021dec_int8bq",
        "dlib_resnet29_150",
        "yunet_float_640",
        "face_detection_yunet_2023mar_int8bq",
    ] {
        let model = shared.join("models").join(format!("{name}.onnx"));
        let file = folder.path().join(format!("{name}.dcz"));
        let file = file.to_str().unwrap();
        run(
            "dcz",
            &[
                "compress",
                model.to_str().unwrap(),
                "-o",
                file,
                "--quantize",
                "none",
            ],
        )
        .expect_code(0);
        run("dcz", &["check", file]).expect_code(0);
        let bench = run("infer", &["--model", file, "--bench", "1", "--json"])
            .expect_code(0)
            .json();
        let error = bench["output_error"].as_f64().unwrap();
        assert!(error <= 2e-5, "{name}: error {error}");
    }
}

/// SFace with the defaults: at most 2.5 MB, accuracy kept on LFW pairs.
#[test]
fn sface_with_the_defaults() {
    let Some(shared) = shared("sface_with_the_defaults") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sface.dcz");
    let model = shared.join("models/sface_float.onnx");
    run(
        "dcz",
        &[
            "compress",
            model.to_str().unwrap(),
            "-o",
            file.to_str().unwrap(),
        ],
    )
    .expect_code(0);
    let size = std::fs::metadata(&file).unwrap().len();
    assert!(size <= 2_500_000, "{size} bytes");

    let pairs = Pairs::read(&shared.join("faces/pairs.txt"));
    let embeddings = embed(&file, &shared.join("faces/pairs_112"));
    let accuracy = best_threshold_accuracy(&pairs, &embeddings);
    let rate = true_positive_rate(&embeddings, 1e-3);
    println!("SFace, {size} bytes: accuracy {accuracy:.4}, TPR at FPR 1e-3 {rate:.4}");
    assert!(accuracy >= 0.993, "accuracy {accuracy}");
    assert!(rate >= 0.984, "TPR at FPR 1e-3 {rate}");
}

/// Embeddings of every image of a folder, raw pixels 0..=255 in RGB order, on all cores.
fn embed(file: &Path, folder: &Path) -> HashMap<String, Vec<f32>> {
    let model = Model::open(file).unwrap();
    let network = model.network(None).unwrap();
    let input = network.tensors[network.inputs[0].0 as usize].name.clone();
    let output = network.tensors[network.outputs[0].tensor.0 as usize]
        .name
        .clone();
    let mut images: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    images.sort();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let share = images.len().div_ceil(workers).max(1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = images
            .chunks(share)
            .map(|images| {
                let (model, input, output) = (&model, input.as_str(), output.as_str());
                scope.spawn(move || {
                    let mut session = Session::new(model, SessionOptions::default()).unwrap();
                    session.prepare(&[(input, &[1, 3, 112, 112])]).unwrap();
                    images
                        .iter()
                        .map(|path| (name(path), embed_one(&mut session, path, input, output)))
                        .collect()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| -> Vec<_> { thread.join().unwrap() })
            .collect()
    })
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn embed_one(session: &mut Session, path: &Path, input: &str, output: &str) -> Vec<f32> {
    let image = image::open(path).unwrap().to_rgb8();
    let mut pixels = vec![0.0; 3 * 112 * 112];
    for (x, y, pixel) in image.enumerate_pixels() {
        for (channel, value) in pixel.0.into_iter().enumerate() {
            pixels[(channel * 112 + y as usize) * 112 + x as usize] = f32::from(value);
        }
    }
    let mut embedding = vec![0.0; 128];
    let dims = [1, 3, 112, 112];
    session
        .run(
            &[(
                input,
                TensorRef {
                    data: &pixels,
                    dims: &dims,
                },
            )],
            &mut [(output, &mut embedding)],
        )
        .unwrap();
    embedding
}
