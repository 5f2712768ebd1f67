//! Second-order rounding of a layer: every weight is rounded in turn, and those not yet rounded make up for its error.
//!
//! The error of an output channel with weights w, rounded to q, is (w - q) H (w - q)^T with H the second moments of the
//! layer's inputs (Hassibi & Stork 1993; Frantar & Alistarh, OBC and GPTQ, 2022). With H = R R^T, R upper triangular, it
//! is the sum over j of R_jj^2 (t_j - q_j)^2 where t_j = w_j + sum over i < j of (w_i - q_i) R_ij / R_jj: column j is
//! rounded at t_j, which contains what is left of all errors before it. No inverse is needed.
//!
//! Errors of different output channels add up as well where what follows mixes them. With G = S S^T what the output makes
//! of them (the second moments of the gradients of the channels), the error is that of the Kronecker product of G and H,
//! and the same holds for the rows: with F_p = (w_p - q_p) R, row o is rounded with sum over p < o of S_po / S_oo F_p
//! added to its columns' t ([`round_coupled`]; Tseng et al., 2025, use such two-sided feedback for language models).
//!
//! The code of a column is the one with the least R_jj^2 (t_j - q_j)^2 * weight + lambda * bits(q_j): a weight goes to a
//! cheaper code when the output allows. Bits come from the layer's own codes ([`Rate`]), so a layer is rounded a few times.

use ndarray::Array2;
use rayon::prelude::*;

use super::linalg::{self, view_mut};
use super::rate::Rate;
use crate::error::Error;

/// A damped matrix of second moments, factored.
#[derive(Debug)]
pub struct Factor {
    lower: Array2<f64>,
    /// Row i: R_ij / R_jj for j > i, else 0.
    shares: Vec<f32>,
    /// R_jj^2: what column j's own error costs once later columns have made up for it.
    variances: Vec<f64>,
}

impl Factor {
    /// Adds `damping` times the mean of the diagonal and factors; more where that does not do. None for a matrix of zeros
    /// or one that is not finite.
    pub fn new(moments: &Array2<f64>, damping: f64) -> Option<Factor> {
        let k = moments.nrows();
        let mean = (0..k).map(|i| moments[(i, i)]).sum::<f64>() / k.max(1) as f64;
        if !(mean.is_finite() && mean > 0.0) {
            return None;
        }
        let mut damping = damping;
        // Last to first, so that the lower factor becomes the upper one.
        let turned = |extra: f64| {
            Array2::from_shape_fn((k, k), |(i, j)| {
                let own = if i == j { extra } else { 0.0 };
                moments[(k - 1 - i, k - 1 - j)] + own
            })
        };
        for _ in 0..8 {
            let mut lower = turned(damping * mean);
            if linalg::cholesky(&mut lower) {
                return Some(Factor::from_lower(lower));
            }
            damping *= 10.0;
        }
        None
    }

    fn from_lower(lower: Array2<f64>) -> Factor {
        let k = lower.nrows();
        let variances: Vec<f64> = (0..k)
            .map(|j| lower[(k - 1 - j, k - 1 - j)].powi(2))
            .collect();
        let mut shares = vec![0.0f32; k * k];
        for i in 0..k {
            for j in i + 1..k {
                let diagonal = lower[(k - 1 - j, k - 1 - j)];
                shares[i * k + j] = (lower[(k - 1 - i, k - 1 - j)] / diagonal) as f32;
            }
        }
        Factor {
            lower,
            shares,
            variances,
        }
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.variances.len()
    }

    /// No columns.
    pub fn is_empty(&self) -> bool {
        self.variances.is_empty()
    }

    /// What the error of each column costs after compensation.
    pub fn variances(&self) -> &[f64] {
        &self.variances
    }

    /// `rows` times the inverse of the damped matrix, in place; `rows` is `[rows][k]`.
    pub fn solve(&self, rows: &mut [f64]) -> Result<(), Error> {
        let k = self.len();
        let count = rows.len() / k.max(1);
        rows.chunks_exact_mut(k.max(1)).for_each(<[f64]>::reverse);
        linalg::solve_transposed(self.lower.view(), view_mut(rows, count, k, k)?);
        linalg::solve(self.lower.view(), view_mut(rows, count, k, k)?);
        rows.chunks_exact_mut(k.max(1)).for_each(<[f64]>::reverse);
        Ok(())
    }
}

/// How the rows of a layer are rounded.
#[derive(Clone, Copy, Debug)]
pub struct Rounding<'a> {
    /// Distance of neighbouring codes, one per row.
    pub steps: &'a [f32],
    /// How much a row's error counts, one per row.
    pub weights: &'a [f64],
    /// Error that a bit is worth.
    pub lambda: f64,
    /// Largest code.
    pub limit: i8,
    /// Weights that must become zero, `[rows][k]`; empty: none.
    pub zeros: &'a [bool],
}

/// Rounds rows `[rows][k]`; `targets` become the columns' values at the time they were rounded.
pub fn round(targets: &mut [f32], factor: &Factor, how: &Rounding, rate: &Rate) -> Vec<i8> {
    let k = factor.len().max(1);
    let mut codes = vec![0i8; targets.len()];
    let variances: Vec<f32> = factor.variances.iter().map(|&v| v as f32).collect();
    targets
        .par_chunks_exact_mut(k)
        .zip(codes.par_chunks_exact_mut(k))
        .enumerate()
        .for_each(|(row, (target, codes))| {
            let choice = Choice::new(how, row, rate);
            let original = target.to_vec();
            let zeros = how.zeros.get(row * k..(row + 1) * k).unwrap_or(&[]);
            let weight = how.weights[row] as f32;
            round_row(
                &original, target, codes, factor, &variances, weight, &choice, zeros,
            );
        });
    codes
}

/// [`round`] for rows whose errors add up: `rows` is the factor of what the output makes of the channels' errors, and takes
/// the place of the weights.
pub fn round_coupled(
    targets: &mut [f32],
    factor: &Factor,
    rows: &Factor,
    how: &Rounding,
    rate: &Rate,
) -> Vec<i8> {
    let (k, m) = (factor.len().max(1), rows.len());
    let mut codes = vec![0i8; targets.len()];
    let variances: Vec<f32> = factor.variances.iter().map(|&v| v as f32).collect();
    let original = targets.to_vec();
    let mut rest = &mut targets[..];
    for row in 0..m {
        let (target, later) = rest.split_at_mut(k);
        let range = row * k..(row + 1) * k;
        let choice = Choice::new(how, row, rate);
        let zeros = how.zeros.get(range.clone()).unwrap_or(&[]);
        // What earlier rows ask of this one; its own errors propagate beside it.
        let asked: Vec<f32> = target
            .iter()
            .zip(&original[range.clone()])
            .map(|(t, w)| t - w)
            .collect();
        let weight = rows.variances[row] as f32;
        let codes = &mut codes[range.clone()];
        round_row(
            &original[range],
            target,
            codes,
            factor,
            &variances,
            weight,
            &choice,
            zeros,
        );
        // F of this row: what is left of its columns' errors without what was asked.
        let left: Vec<f32> = target
            .iter()
            .zip(codes.iter())
            .zip(&asked)
            .map(|((t, &q), c)| t - f32::from(q) * choice.step - c)
            .collect();
        let shares = &rows.shares[row * m + row + 1..(row + 1) * m];
        let next = later.par_chunks_exact_mut(k).zip(shares).with_min_len(16);
        next.for_each(|(t, share)| t.iter_mut().zip(&left).for_each(|(t, l)| *t += share * l));
        rest = later;
    }
    codes
}

/// One row: `target` starts as the weights plus whatever else the columns are to make up for.
#[expect(
    clippy::too_many_arguments,
    reason = "one row's slices of buffers that the callers divide among threads"
)]
fn round_row(
    original: &[f32],
    target: &mut [f32],
    codes: &mut [i8],
    factor: &Factor,
    variances: &[f32],
    weight: f32,
    choice: &Choice,
    zeros: &[bool],
) {
    let k = target.len();
    for j in 0..k {
        let code = match zeros.get(j) {
            Some(true) => 0,
            _ => choice.choose(target[j], weight * variances[j]),
        };
        codes[j] = code;
        let error = original[j] - f32::from(code) * choice.step;
        if error != 0.0 {
            let shares = &factor.shares[j * k + j + 1..(j + 1) * k];
            let later = target[j + 1..].iter_mut();
            later.zip(shares).for_each(|(t, s)| *t += error * s);
        }
    }
}

/// The error of rounded rows: what was left of every column when it was rounded, times what that costs.
pub fn lost(targets: &[f32], codes: &[i8], how: &Rounding, columns: &[f64], rows: &[f64]) -> f64 {
    let k = columns.len().max(1);
    let rows = targets
        .par_chunks_exact(k)
        .zip(codes.par_chunks_exact(k))
        .zip(rows)
        .enumerate();
    let each: Vec<f64> = rows
        .map(|(row, ((t, q), weight))| {
            let left = |(t, &q): (&f32, &i8)| f64::from(t - f32::from(q) * how.steps[row]).powi(2);
            weight
                * t.iter()
                    .zip(q)
                    .map(left)
                    .zip(columns)
                    .map(|(e, c)| e * c)
                    .sum::<f64>()
        })
        .collect();
    each.iter().sum()
}

/// Rounds every weight for itself; `column(row, i)` is what the squared error of an input counts.
pub fn alone(
    weights: &[f32],
    k: usize,
    how: &Rounding,
    rate: &Rate,
    column: &(dyn Fn(usize, usize) -> f64 + Sync),
) -> Vec<i8> {
    let mut codes = vec![0i8; weights.len()];
    let rows = codes
        .par_chunks_exact_mut(k.max(1))
        .zip(weights.par_chunks_exact(k.max(1)));
    rows.enumerate().for_each(|(row, (codes, weights))| {
        let choice = Choice::new(how, row, rate);
        for (i, (code, &w)) in codes.iter_mut().zip(weights).enumerate() {
            if how.zeros.get(row * k + i) != Some(&true) {
                *code = choice.choose(w, (how.weights[row] * column(row, i)) as f32);
            }
        }
    });
    codes
}

/// Chooses codes of one row.
struct Choice<'a> {
    step: f32,
    lambda: f32,
    limit: f32,
    rate: &'a Rate,
}

impl<'a> Choice<'a> {
    fn new(how: &Rounding, row: usize, rate: &'a Rate) -> Choice<'a> {
        Choice {
            step: how.steps[row],
            lambda: how.lambda as f32,
            limit: f32::from(how.limit),
            rate,
        }
    }

    /// The code for a value whose squared error counts `weight`.
    fn choose(&self, value: f32, weight: f32) -> i8 {
        let nearest = (value / self.step).round().clamp(-self.limit, self.limit);
        let inward = nearest - nearest.signum();
        let outward = (nearest
            + if value >= nearest * self.step {
                1.0
            } else {
                -1.0
            })
        .clamp(-self.limit, self.limit);
        let mut best = (0i8, f32::INFINITY);
        for code in [nearest, inward, inward - inward.signum(), 0.0, outward] {
            let error = value - code * self.step;
            let cost = weight * error * error + self.lambda * self.rate.bits(code as i8);
            if cost < best.1 {
                best = (code as i8, cost);
            }
        }
        best.0
    }
}
