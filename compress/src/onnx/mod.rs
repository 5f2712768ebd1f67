//! Reading ONNX files: the protobuf messages, tensors as arrays, attributes.

pub mod attributes;
pub mod proto;
pub mod tensor;

use std::path::{Path, PathBuf};

use prost::Message;
use prost::bytes::Bytes;

use crate::error::Error;
use proto::ModelProto;

/// Reads an ONNX file.
///
/// Errors: [`Error::Io`] when it cannot be read, [`Error::Malformed`] when it is not an ONNX model.
pub fn load(path: &Path) -> Result<ModelProto, Error> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, &e))?;
    parse(Bytes::from(bytes)).map_err(|e| match e {
        Error::Malformed(text) => Error::Malformed(format!("{}: {text}", path.display())),
        other => other,
    })
}

/// The files beside a model that hold constants of its graph, each once; `folder` is the model's.
pub fn external_files(model: &ModelProto, folder: &Path) -> Vec<PathBuf> {
    let tensors = model.graph.iter().flat_map(|graph| &graph.initializer);
    let entries = tensors.flat_map(|tensor| &tensor.external_data);
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| entry.key == "location")
        .map(|entry| folder.join(&entry.value))
        .collect();
    files.sort();
    files.dedup();
    files
}

/// Parses an ONNX model.
pub fn parse(bytes: Bytes) -> Result<ModelProto, Error> {
    if bytes.is_empty() {
        return Err(Error::Malformed(
            "not an ONNX model: the file is empty".into(),
        ));
    }
    let model = ModelProto::decode(bytes)
        .map_err(|e| Error::Malformed(format!("not an ONNX model: {e}")))?;
    if model.graph.is_none() || model.opset_import.is_empty() {
        return Err(Error::Malformed(
            "not an ONNX model: it has no graph or names no operator set".into(),
        ));
    }
    Ok(model)
}
