//! Runs convolutional networks from `.dcz` files: weights are decoded tile by tile from the mapped
//! file while they are used, into a small arena.
//!
//! ```no_run
//! # fn main() -> Result<(), dcz::Error> {
//! # let pixels = vec![0f32; 3 * 112 * 112];
//! use dcz::{Model, Session, SessionOptions, TensorRef};
//! let mut session = Session::new(&Model::open("face.dcz")?, SessionOptions::default())?;
//! session.prepare(&[("data", &[1, 3, 112, 112])])?;
//! let mut embedding = [0.0; 128];
//! let input = TensorRef { dims: &[1, 3, 112, 112], data: &pixels };
//! session.run(&[("data", input)], &mut [("embedding", &mut embedding)])?;
//! # Ok(()) }
//! ```
//!
//! * [`Model`]: an opened file; cheap to clone, `Send + Sync`, decodes nothing.
//! * [`Session`]: [`prepare`](Session::prepare) plans and allocates, [`run`](Session::run) allocates
//!   nothing. Plans with equal `numeric_id` give equal bits for any threads and batch.
//! * [`preprocess`]: from an image to the input, as the file describes it.
//! * [`shape`], [`oracle`]: shape inference and an f64 executor, shared with the compressor.

mod arena;
mod band;
mod convert;
pub mod cost;
mod cost_table;
pub mod error;
mod exec;
#[cfg(feature = "fft")]
mod fft;
#[cfg(not(feature = "fft"))]
#[path = "no_fft.rs"]
mod fft;
mod fuse;
mod input;
mod liveness;
mod lower;
pub mod memory;
pub mod model;
pub mod oracle;
mod parts;
pub mod plan;
mod planner;
pub mod preprocess;
pub mod profile;
mod program;
mod resident;
pub mod session;
pub mod shape;
pub mod threads;
mod verification;
mod weights;

pub use dcz_format::graph;
pub use dcz_kernels::Isa;
pub use error::{Error, ErrorKind};
pub use input::{RowSource, RowsRef, TensorRef};
pub use liveness::Span;
pub use memory::{ProcessMemory, process_memory};
pub use model::Model;
pub use plan::{Memory, Plan, Tier};
pub use profile::Profile;
pub use session::{MemoryBudget, SelfTestReport, Session, SessionOptions};
pub use threads::Threads;
pub use verification::Verification;
