//! Faces in photographs, from one `.dcz` file: detection, alignment, embedding, decision.
//!
//! ```no_run
//! # fn main() -> Result<(), dcz_face::Error> {
//! # let (first, second) = (vec![0u8; 640 * 480 * 3], vec![0u8; 640 * 480 * 3]);
//! use dcz_face::{FacePipeline, Image, Options};
//! let mut faces = FacePipeline::open("face.dcz", Options::default())?;
//! let verdict = faces.verify(&Image::new(640, 480, &first)?, &Image::new(640, 480, &second)?)?;
//! println!("{} {:?}", verdict.value, verdict.same);
//! # Ok(()) }
//! ```
//!
//! Images are the caller's RGB buffers; this crate decodes no files. Beyond the packages of `dcz` it uses `thiserror` only.

pub mod align;
pub mod detect;
mod error;
mod image;
mod input;
mod options;
mod pipeline;
mod stages;

pub use align::{LANDMARKS, Landmarks};
pub use dcz::{MemoryBudget, Model, SessionOptions, Threads, Verification};
pub use dcz_format::pipeline::InputSize;
pub use detect::Detection;
pub use error::{Error, Result};
pub use image::Image;
pub use options::{Options, Selection, prominence};
pub use pipeline::{Face, FacePipeline, Memory};
