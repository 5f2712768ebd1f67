//! Dense linear algebra: products, Cholesky factors and triangular solves, blocked over products of small matrices.
//!
//! Products are `ndarray`'s (`matrixmultiply` underneath), spread over the cores by blocks of rows whose size does not
//! depend on their number, so that results do not either.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, LinalgScalar, ShapeBuilder, s};
use rayon::prelude::*;

use crate::error::Error;

/// Rows of a result that one task computes.
const ROWS: usize = 128;
/// Columns of a Cholesky panel.
const PANEL: usize = 64;

fn misfit(error: ndarray::ShapeError) -> Error {
    Error::Malformed(format!("a matrix of weights or activations: {error}"))
}

/// A matrix within a slice: rows begin `stride` values apart.
pub fn view<T>(
    values: &[T],
    rows: usize,
    columns: usize,
    stride: usize,
) -> Result<ArrayView2<'_, T>, Error> {
    ArrayView2::from_shape((rows, columns).strides((stride, 1)), values).map_err(misfit)
}

/// [`view`], to be written.
pub fn view_mut<T>(
    values: &mut [T],
    rows: usize,
    columns: usize,
    stride: usize,
) -> Result<ArrayViewMut2<'_, T>, Error> {
    ArrayViewMut2::from_shape((rows, columns).strides((stride, 1)), values).map_err(misfit)
}

/// `c = beta * c + alpha * a * b`.
pub fn multiply<T: LinalgScalar + Send + Sync>(
    alpha: T,
    a: ArrayView2<T>,
    b: ArrayView2<T>,
    beta: T,
    mut c: ArrayViewMut2<T>,
) {
    let pairs: Vec<_> = c
        .axis_chunks_iter_mut(Axis(0), ROWS)
        .zip(a.axis_chunks_iter(Axis(0), ROWS))
        .collect();
    pairs
        .into_par_iter()
        .for_each(|(mut c, a)| general_mat_mul(alpha, &a, &b, beta, &mut c));
}

/// The lower triangle of `a^T * a` (what lies above the diagonal is partly filled too).
pub fn square<T: LinalgScalar + Send + Sync>(a: ArrayView2<T>, mut c: ArrayViewMut2<T>) {
    let chunks: Vec<_> = c.axis_chunks_iter_mut(Axis(0), ROWS).enumerate().collect();
    chunks.into_par_iter().for_each(|(index, mut c)| {
        let (first, rows) = (index * ROWS, c.nrows());
        let left = a.slice(s![.., first..first + rows]);
        let right = a.slice(s![.., ..first + rows]);
        let mut c = c.slice_mut(s![.., ..first + rows]);
        general_mat_mul(T::one(), &left.t(), &right, T::zero(), &mut c);
    });
}

/// Overwrites the lower triangle of a symmetric matrix with L of `L L^T`; only the lower triangle is read, zeros are
/// written above. False when the matrix is not positive definite.
pub fn cholesky(a: &mut Array2<f64>) -> bool {
    let n = a.nrows();
    for first in (0..n).step_by(PANEL) {
        let last = (first + PANEL).min(n);
        // What earlier panels explain.
        let (left, mut right) = a.view_mut().split_at(Axis(1), first);
        let left = left.slice(s![first.., ..]);
        let mut panel = right.slice_mut(s![first.., ..last - first]);
        if first > 0 {
            let top = left.slice(s![..last - first, ..]);
            multiply(-1.0, left, top.t(), 1.0, panel.view_mut());
        }
        let width = last - first;
        for j in 0..width {
            let mut pivot = panel[(j, j)];
            for i in 0..j {
                pivot -= panel[(j, i)] * panel[(j, i)];
            }
            if !(pivot.is_finite() && pivot > 0.0) {
                return false;
            }
            panel[(j, j)] = pivot.sqrt();
            for row in j + 1..width {
                let mut value = panel[(row, j)];
                for i in 0..j {
                    value -= panel[(row, i)] * panel[(j, i)];
                }
                panel[(row, j)] = value / panel[(j, j)];
            }
            panel.slice_mut(s![j, j + 1..]).fill(0.0);
        }
        let (head, mut tail) = panel.split_at(Axis(0), width);
        solve_rows(head.view(), tail.view_mut());
        a.slice_mut(s![first..last, last..]).fill(0.0);
    }
    true
}

/// `rows = rows * L^-T`, row by row, for a small L.
fn solve_rows(lower: ArrayView2<f64>, mut rows: ArrayViewMut2<f64>) {
    let n = lower.nrows();
    let lower = lower.as_standard_layout();
    let mut list: Vec<_> = rows.axis_iter_mut(Axis(0)).collect();
    list.par_iter_mut().with_min_len(16).for_each(|row| {
        for j in 0..n {
            let mut value = row[j];
            for i in 0..j {
                value -= row[i] * lower[(j, i)];
            }
            row[j] = value / lower[(j, j)];
        }
    });
}

/// `rows = rows * L^-T`: solves `y L^T = rows`.
pub fn solve_transposed(lower: ArrayView2<f64>, mut rows: ArrayViewMut2<f64>) {
    let n = lower.nrows();
    for first in (0..n).step_by(PANEL) {
        let last = (first + PANEL).min(n);
        let (done, mut rest) = rows.view_mut().split_at(Axis(1), first);
        let mut block = rest.slice_mut(s![.., ..last - first]);
        if first > 0 {
            let l = lower.slice(s![first..last, ..first]);
            multiply(-1.0, done.view(), l.t(), 1.0, block.view_mut());
        }
        solve_rows(lower.slice(s![first..last, first..last]), block);
    }
}

/// `rows = rows * L^-1`: solves `y L = rows`.
pub fn solve(lower: ArrayView2<f64>, mut rows: ArrayViewMut2<f64>) {
    let n = lower.nrows();
    let starts: Vec<usize> = (0..n).step_by(PANEL).collect();
    for &first in starts.iter().rev() {
        let last = (first + PANEL).min(n);
        let (mut head, done) = rows.view_mut().split_at(Axis(1), last);
        let mut block = head.slice_mut(s![.., first..]);
        if last < n {
            let l = lower.slice(s![last.., first..last]);
            multiply(-1.0, done.view(), l, 1.0, block.view_mut());
        }
        let l = lower.slice(s![first..last, first..last]);
        let mut list: Vec<_> = block.axis_iter_mut(Axis(0)).collect();
        list.par_iter_mut().with_min_len(16).for_each(|row| {
            for j in (0..last - first).rev() {
                let mut value = row[j];
                for i in j + 1..last - first {
                    value -= row[i] * l[(i, j)];
                }
                row[j] = value / l[(j, j)];
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
        let mut state = seed;
        Array2::from_shape_fn((rows, columns), |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f64 / (1u64 << 24) as f64 - 0.5
        })
    }

    fn close(a: &Array2<f64>, b: &Array2<f64>) {
        let worst = a
            .iter()
            .zip(b)
            .map(|(x, y)| (x - y).abs())
            .fold(0.0, f64::max);
        assert!(worst < 1e-9, "{worst}");
    }

    #[test]
    fn factors_and_solves_of_all_block_shapes() {
        for n in [1, 5, 64, 65, 130, 300] {
            let a = noise(2 * n + 3, n, n as u64);
            let mut lower = Array2::zeros((n, n));
            square(a.view(), lower.view_mut());
            let full = a.t().dot(&a);
            for i in 0..n {
                for j in 0..=i {
                    assert!((lower[(i, j)] - full[(i, j)]).abs() < 1e-9);
                }
            }
            assert!(cholesky(&mut lower));
            close(&lower.dot(&lower.t()), &full);
            let rows = noise(7, n, 9);
            let mut y = rows.clone();
            solve_transposed(lower.view(), y.view_mut());
            close(&y.dot(&lower.t()), &rows);
            let mut y = rows.clone();
            solve(lower.view(), y.view_mut());
            close(&y.dot(&lower), &rows);
        }
    }

    #[test]
    fn what_is_not_positive_definite_is_refused() {
        let mut a = Array2::eye(3);
        a[(1, 1)] = -1.0;
        assert!(!cholesky(&mut a));
        let mut a = Array2::eye(3);
        a[(2, 2)] = f64::NAN;
        assert!(!cholesky(&mut a));
    }

    #[test]
    fn products_of_many_rows() {
        let (a, b) = (noise(300, 20, 1), noise(20, 30, 2));
        let mut c = noise(300, 30, 3);
        let expected = &c * 2.0 + a.dot(&b) * 3.0;
        multiply(3.0, a.view(), b.view(), 2.0, c.view_mut());
        close(&c, &expected);
    }
}
