//! Data-aware compression: rounding and pruning that know what the layers read and what the output feels.
//!
//! No labels and no training: some hundred images, the float network, and second-order statistics.
//!
//! 1. [`prepare`](mod@prepare): gradients of the output say how much an error of every output channel matters
//!    ([`importance`]); Gram matrices of what the layers read say how much an error of every input matters ([`gram`]).
//!    Channels between layers are scaled so that one step per layer suits both ([`equalise`]).
//! 2. [`walk`](mod@walk): layer by layer, on what the compressed layers before it produce, the weights are first moved
//!    to make up for earlier errors, then rounded one column after the other ([`solve`], [`wide`]), each to the code with the
//!    least error + lambda * bits, later columns making up for what is lost; at last the bias takes the mean error.
//! 3. [`search`](mod@search): one lambda, the squared output error that a bit is worth, rules all layers; it is searched
//!    until the file meets the target.
//!
//! Activations stream from layer to layer within a budget ([`frontier`]). Results depend on the images only, not on the
//! number of threads.

pub mod equalise;
pub mod frontier;
pub mod gradient;
pub mod gram;
pub mod images;
pub mod importance;
pub mod linalg;
pub mod patches;
pub mod prepare;
pub mod rate;
pub mod search;
pub mod segment;
pub mod solve;
pub mod target;
pub mod treatment;
pub mod walk;
pub mod wide;

#[cfg(test)]
mod tests;

pub use images::Images;
pub use search::{Calibrated, Options, Point, compress};
pub use target::Target;
