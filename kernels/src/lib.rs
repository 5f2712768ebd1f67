//! CNN kernels over strided f32 slices.
pub mod shape;
pub mod weights;
