//! Matrices as views of slices, and their products.
//!
//! Products are `matrixmultiply`'s, through ndarray's safe views: it writes into a part of a larger matrix and can add to what is
//! there, and for the short sums of small layers it is two to four times as fast as the product below candle (without AVX-512 there).
//! It uses one thread, so operations divide their work before. The package is named among ours only for its feature `avx512`, which
//! ndarray leaves off.

use candle_core::{Error, Result};
use ndarray::{ArrayView2, ArrayViewMut2};

/// Groups that the columns of a layer are divided into for sums over columns: fixed, so that the result does not
/// depend on the number of threads.
pub(crate) const GROUPS: usize = 4;
/// Values of a strip of columns (256 KiB), so that it stays in the cache while it is used.
const STRIP: usize = 64 << 10;

/// A matrix of whole rows.
pub(crate) fn matrix(values: &[f32], rows: usize, columns: usize) -> Result<ArrayView2<'_, f32>> {
    ArrayView2::from_shape((rows, columns), values).map_err(|e| Error::Msg(e.to_string()))
}

/// The same, to be written.
pub(crate) fn matrix_mut(
    values: &mut [f32],
    rows: usize,
    columns: usize,
) -> Result<ArrayViewMut2<'_, f32>> {
    ArrayViewMut2::from_shape((rows, columns), values).map_err(|e| Error::Msg(e.to_string()))
}

/// Columns of a strip of a matrix with so many rows.
pub(crate) fn strip(rows: usize) -> usize {
    (STRIP / rows.max(1)).clamp(128, 4096) / 16 * 16
}
