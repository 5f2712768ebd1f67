//! Retraining of a compressed network with the original as its teacher.
//!
//! [`retrain`] takes a network's records with float weights and what is to become of every layer (sparsity, grid), and
//! gives weights back that lie on the grid. It depends on the records of `dcz-format` only; `dcz-compress` calls it between
//! import and coding. The libraries of the runtime do not depend on it.
//!
//! Packages: `candle-core` (tensors, autograd, safetensors for checkpoints), `ndarray` (matrix products of views; `matrixmultiply`
//! below it is named for its AVX-512 kernels), `pulp` (loops
//! compiled once per instruction set), `rayon` (threads).
//!
//! Autograd is candle's; chains of convolutions, pooling and quantisation are operations of our own ([`ops`]), for the
//! reasons and measurements in `docs/decisions/0009-training-library.md`. How to use it: `docs/retraining.md`.

pub mod augment;
pub mod checkpoint;
pub mod data;
pub mod error;
pub mod graph;
pub mod loss;
pub mod mask;
pub mod ops;
pub mod optim;
pub mod rate;
mod retrain;
pub mod schedule;
pub mod student;
mod task;

pub use error::Error;
pub use loss::{LossKind, Losses};
pub use retrain::{Coded, retrain};
pub use task::{
    Budget, Control, Event, Grid, Options, Outcome, Record, Retrained, Source, Task, TrainConstant,
    TrainLayer,
};
