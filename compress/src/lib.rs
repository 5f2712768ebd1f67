//! Makes `.dcz` files.
//!
//! `ONNX file -> [onnx] -> [import] -> float network -> [prune] -> [quantize] -> [encode]`. The importer produces the
//! graph records of `dcz-format` directly; there is no intermediate representation of its own. Everything a library
//! user needs is here; the command line `dcz` is a thin layer over it.
//!
//! ```no_run
//! # fn main() -> Result<(), dcz_compress::error::Error> {
//! use dcz_compress::{encode, import, onnx};
//! let model = onnx::load("face.onnx".as_ref())?;
//! let float = import::import(&model, &import::ImportOptions::default())?;
//! let encoded = encode::compress(float, &encode::CompressOptions::default(), &mut |_, _, _| {})?;
//! encoded.write_atomic("face.dcz".as_ref())?;
//! # Ok(()) }
//! ```
//!
//! With images, [`calibrate`] takes the place of pruning and quantisation.
//!
//! Beyond the packages of the other crates this one uses `ndarray` (products of matrices in calibration), `prost` (the protobuf wire format, no code generation),
//! `half` (float16 weights), `toml` and `serde` (settings and preprocessing files), `npyz` (arrays), `image`
//! (everything that takes images), `indicatif` (progress), `signal-hook` (Ctrl-C while retraining) and `clap` (the command line).

pub mod accuracy;
pub mod array;
pub mod calibrate;
pub mod chart;
pub mod compare;
pub mod defaults;
pub mod encode;
pub mod error;
pub mod evaluate;
pub mod export;
pub mod html;
pub mod import;
pub mod npy;
pub mod onnx;
pub mod preprocess;
pub mod prune;
pub mod quantize;
pub mod report;
pub mod retrain;
pub mod score;
pub mod sensitivity;
pub mod settings;
