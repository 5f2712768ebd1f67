//! Reading ONNX files: the protobuf messages, tensors as arrays, attributes.

pub mod attributes;
pub mod proto;
pub mod tensor;

use std::path::Path;

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
