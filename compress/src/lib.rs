//! Makes `.dcz` files.
//!
//! `ONNX file -> [onnx] -> [import] -> float network -> prune -> quantise -> encode`. The importer produces the graph
//! records of `dcz-format` directly; there is no intermediate representation of its own. Everything a library user
//! needs is here; the command line `dcz` is a thin layer over it.
//!
//! Beyond the packages of the other crates this one uses `prost` (the protobuf wire format, no code generation),
//! `half` (float16 weights), `toml` and `serde` (settings and preprocessing files), `npyz` (arrays), `image`
//! (`dcz compare --images`), `indicatif` (progress) and `clap` (the command line).

pub mod array;
pub mod error;
pub mod evaluate;
pub mod import;
pub mod onnx;
