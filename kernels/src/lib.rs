//! CNN kernels over strided f32 slices: no files, no graph, no threads, no allocation.
//!
//! * [`conv`]: convolution of a decoded weight tile, one table of algorithms ([`conv::ALGOS`]);
//!   [`linear`]: the same for fully connected layers.
//! * [`activation`], [`pool`], [`binary`], [`layout`], [`resize`], [`norm`]: everything else.
//! * [`mod@reference`]: one naive f64 oracle per operation.
//!
//! Every function is told its [`Isa`] or is scalar code that gives the same bits everywhere. A sum
//! is always evaluated in an order that depends on the layer and on its tiles only, never on rows,
//! threads, batch or layout, so splitting work differently cannot change a result.

// Register tiles are arrays indexed by constants; index loops over several of them at once say so.
#![allow(clippy::needless_range_loop)]

pub mod activation;
pub mod binary;
pub mod conv;
mod expand;
pub mod layout;
pub mod linear;
pub mod linear_sparse;
pub mod math;
pub mod norm;
pub mod pixels;
pub mod pool;
pub mod reference;
pub mod resize;
pub mod shape;
mod simd;
pub mod weights;

pub use activation::{Activation, Epilogue};
#[cfg(feature = "fft")]
pub use conv::fft;
pub use conv::{
    ALGOS, Algo, ConvAlgo, ConvShape, JOINED, Start, Sums, conv_tile, conv_tiles, joins,
    kernel_name, sparse, supports, winograd, workspace,
};
pub use linear::{linear_tile, linear_workspace};
pub use shape::{Map, View, ViewMut};
pub use simd::Isa;
pub use weights::{KOrder, Lut, PANEL, Steps, TileValues, WeightTile};
