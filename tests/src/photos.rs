//! What the tests of photographs share: a folder with the marker networks, the tools run on it, and answers read.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::new_without_default,
    reason = "helpers of tests: a failed unwrap is a failed test"
)]

use crate::markers::{self, Canvas, WINDOW};
use crate::{Ran, run};
use serde_json::Value;
use std::path::PathBuf;

/// A temporary folder with the marker networks in it.
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// A new one, with `detector.onnx` and `embedder.onnx`.
    pub fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.write("detector.onnx", &markers::detector());
        folder.write("embedder.onnx", &markers::embedder());
        folder
    }
    /// Path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    /// The same as text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
    /// Writes a file and answers its path.
    pub fn write(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.text(name)
    }
    /// Writes a picture and answers its path.
    pub fn draw(&self, name: &str, canvas: &Canvas) -> String {
        canvas.save(&self.path(name));
        self.text(name)
    }
    /// `face.dcz` of the marker networks, weights as they are, with a threshold.
    pub fn bundle(&self) -> String {
        self.bundle_with(&["--threshold", "0.95"])
    }
    /// The same with other options instead of the threshold.
    pub fn bundle_with(&self, more: &[&str]) -> String {
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
    /// Names of the files in it, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// `infer --model MODEL ...`.
pub fn infer(model: &str, arguments: &[&str]) -> Ran {
    run("infer", &[&["--model", model], arguments].concat())
}

/// The faces of one photo.
pub fn faces(model: &str, arguments: &[&str]) -> Vec<Value> {
    let json = infer(model, &[arguments, &["--json"]].concat())
        .expect_code(0)
        .json();
    json["faces"].as_array().unwrap().clone()
}

/// All numbers of a value, in order.
pub fn numbers(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(list) => list.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap() as f32],
    }
}

/// Asserts that the numbers are those, within a tolerance.
#[track_caller]
pub fn close(found: &Value, wanted: &[f32], tolerance: f32) {
    let found = numbers(found);
    assert_eq!(found.len(), wanted.len());
    for (a, b) in found.iter().zip(wanted) {
        assert!((a - b).abs() <= tolerance, "{found:?}\n{wanted:?}");
    }
}

/// Landmarks of a marker whose cell's corner is (x, y).
pub fn landmarks([x, y]: [usize; 2]) -> Vec<f32> {
    let corner = [x, y].map(|v| v as f32 + 4.0 - (WINDOW / 2) as f32);
    let template = dcz_face::align::arcface112().template;
    let moved = template.map(|[u, v]| [corner[0] + u, corner[1] + v]);
    moved.as_flattened().to_vec()
}

/// Two persons: one in the middle, one at the edge with a larger box and a lower score.
pub fn two() -> (Canvas, [usize; 2], [usize; 2]) {
    let (middle, aside) = ([152, 120], [360, 200]);
    let canvas = Canvas::new(430, 250)
        .face(middle, 1, 0, 0)
        .face(aside, 2, 64, 100);
    (canvas, middle, aside)
}
