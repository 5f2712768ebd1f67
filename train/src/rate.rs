//! How many bytes a layer will take, and where that falls fastest.
//!
//! The codes of a layer are coded with a Huffman code over their values, so a weight costs about `-log2` of the share of its
//! code. Between two codes the cost is interpolated, which gives a gradient: a weight of `u` steps saves
//! `cost(k + 1) - cost(k)` bits per step towards zero, `k = floor(|u|)`, and a larger step saves `|u|` times that, relative to
//! the step. Added to the loss with a multiplier this is rate-distortion optimisation with the layer's own measured costs: the
//! network decides which layers can do with fewer bits.
//!
//! The multiplier is found by a controller that holds the estimate at the wanted size.

use rayon::prelude::*;

use crate::ops::quantise::{Quantise, code};
use crate::ops::vectorised;

/// Bytes of a coded layer over the entropy of its codes: Huffman codes, tables, tiles. Measured on SFace.
const OVERHEAD: f64 = 1.05;
/// Magnitudes of codes, and one more.
pub const CODES: usize = 128;
/// Codes counted at a time.
const BLOCK: usize = 256;
/// Rows of a layer that a thread takes at least.
const ROWS: usize = 16;
/// Steepest slope that is followed, in bits per step.
const STEEPEST: f32 = 3.0;
/// Below this many steps a weight is left alone: it is zero already.
const AT_REST: f32 = 0.45;

fn counts() -> Vec<u64> {
    vec![0; CODES]
}

fn sum(mut a: Vec<u64>, b: Vec<u64>) -> Vec<u64> {
    a.iter_mut().zip(&b).for_each(|(a, b)| *a += b);
    a
}

/// Counts the magnitudes of codes.
fn count(counts: &mut [u64], weights: &[f32], inverse: f32, op: Quantise) {
    let mut codes = [0u8; BLOCK];
    for weights in weights.chunks(BLOCK) {
        vectorised(
            #[inline(always)]
            || {
                for (q, w) in codes.iter_mut().zip(weights) {
                    *q = code(w * inverse, op.dead_zone, op.limit).abs() as i32 as u8;
                }
            },
        );
        for q in &codes[..weights.len()] {
            counts[usize::from(*q & 127)] += 1;
        }
    }
}

/// Costs of a layer's codes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Costs {
    /// Bits of all codes of the layer.
    pub bits: f64,
    /// Weights that are zero.
    pub zeros: u64,
    /// `cost(k + 1) - cost(k)` for `k` from 0, clamped to what is followed.
    pub slopes: Vec<f32>,
}

impl Costs {
    /// Counts the codes of `[O, K]` weights with one step or one per row.
    pub fn measure(weights: &[f32], k: usize, steps: &[f32], op: Quantise) -> Costs {
        let rows = weights.par_chunks(k.max(1)).enumerate().with_min_len(ROWS);
        let counts = rows.fold(counts, |mut counts, (row, weights)| {
            count(&mut counts, weights, 1.0 / steps[row % steps.len()], op);
            counts
        });
        Costs::of(&counts.reduce(self::counts, sum))
    }

    /// Rounds them as well.
    pub fn round(
        values: &mut [f32],
        weights: &[f32],
        k: usize,
        steps: &[f32],
        op: Quantise,
    ) -> Costs {
        let rows = values
            .par_chunks_mut(k.max(1))
            .zip(weights.par_chunks(k.max(1)))
            .enumerate()
            .with_min_len(ROWS);
        let counts = rows.fold(counts, |mut counts, (row, (values, weights))| {
            let step = steps[row % steps.len()];
            for (values, weights) in values.chunks_mut(BLOCK).zip(weights.chunks(BLOCK)) {
                count(&mut counts, weights, 1.0 / step, op);
                vectorised(
                    #[inline(always)]
                    || op.row(values, weights, step),
                );
            }
            counts
        });
        Costs::of(&counts.reduce(self::counts, sum))
    }

    /// From how many weights have each magnitude of code; signs are taken as evenly divided.
    fn of(counts: &[u64]) -> Costs {
        let total: u64 = counts.iter().sum();
        let cost = |k: usize| {
            let share = (counts[k] as f64 + 0.5) / (total as f64 + 1.0);
            (1.0 / share).log2() + if k > 0 { 1.0 } else { 0.0 }
        };
        let bits = (0..counts.len())
            .filter(|&k| counts[k] > 0)
            .map(|k| counts[k] as f64 * cost(k))
            .sum();
        let slopes = (0..counts.len() - 1)
            .map(|k| (cost(k + 1) - cost(k)).clamp(0.0, f64::from(STEEPEST)) as f32)
            .collect();
        Costs {
            bits,
            zeros: counts[0],
            slopes,
        }
    }

    /// Bytes in the file.
    pub fn bytes(&self) -> f64 {
        self.bits / 8.0 * OVERHEAD
    }

    /// The slopes by the magnitude of a code; beyond the last one, the last one.
    pub fn table(&self) -> [f32; CODES] {
        let last = self.slopes.last().copied().unwrap_or(0.0);
        std::array::from_fn(|k| self.slopes.get(k).copied().unwrap_or(last))
    }
}

/// Adds `scale` times the gradient of the bits to gradients of weights that share a step, given its inverse and the table of
/// slopes; returns what a larger step would save, in bits per relative change.
#[inline(always)]
pub fn add_gradient(
    table: &[f32; CODES],
    weights: &[f32],
    inverse: f32,
    scale: f32,
    dw: &mut [f32],
) -> f32 {
    let mut saved = [0.0f32; 16];
    for (dw, weights) in dw.chunks_mut(16).zip(weights.chunks(16)) {
        for ((dw, w), saved) in dw.iter_mut().zip(weights).zip(&mut saved) {
            let u = w * inverse;
            let magnitude = u.abs();
            let place = magnitude.min((CODES - 1) as f32) as i32;
            let slope = table[place as usize & (CODES - 1)];
            let slope = if magnitude < AT_REST { 0.0 } else { slope };
            *dw += (scale * slope * inverse).copysign(u);
            *saved += slope * magnitude;
        }
    }
    saved.iter().sum()
}

/// Finds the multiplier that holds the estimate at the wanted size.
///
/// The size answers slowly: weights must travel half a step before a code changes, so that at a price `x` times too low (in
/// logarithms) a file grows by about `1e-4 x` of itself in a step, and no faster than `1e-4` at any. A proportional part of 80
/// brings it back within some 120 steps; a large integral part makes it swing (seen with 0.5 beside 12: from 8 % too small to 8 %
/// too large in 2,000 steps, and back). Short runs take a larger one, since they have no time to swing. No price below a share of
/// the loss makes a file grow faster, so the integral part stops there: a start that is too small does not wind it up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Controller {
    /// Logarithm of the multiplier without the proportional part.
    pub integral: f64,
}

const PROPORTIONAL: f64 = 80.0;
const INTEGRAL_PER_STEP: f64 = 0.1;
/// The same over a whole training, for short ones.
const INTEGRAL_PER_RUN: f64 = 10.0;
/// Of the first price at this loss.
const LEAST_PRICE: f64 = 0.02;

impl Controller {
    /// Starts from the first loss: at high rates the error falls by `2 ln 2` of itself per bit and weight.
    pub fn new(loss: f64) -> Controller {
        Controller {
            integral: (0.5 * loss.max(1e-6)).ln(),
        }
    }

    /// The multiplier, in loss per bit and weight, for an estimate, the wanted size and the loss now; `share` is what one step
    /// is of the training.
    pub fn update(&mut self, bytes: f64, wanted: f64, loss: f64, share: f64) -> f64 {
        let error = (bytes / wanted.max(1.0)).max(1e-3).ln();
        let gain = (INTEGRAL_PER_STEP + INTEGRAL_PER_RUN * share).min(0.5);
        self.integral += (gain * error).clamp(-0.05, 0.05);
        let least = Controller::new(loss * LEAST_PRICE).integral;
        self.integral = self.integral.clamp(least, 5.0);
        (self.integral + (PROPORTIONAL * error).clamp(-4.0, 4.0)).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_the_entropy_of_codes() {
        // Half zeros, a quarter +1, a quarter -1: 1.5 bits a weight.
        let weights: Vec<f32> = (0..4096).map(|i| [0.0, 1.0, 0.1, -1.1][i % 4]).collect();
        let costs = Costs::measure(
            &weights,
            64,
            &[1.0],
            Quantise {
                dead_zone: 0.0,
                limit: 127.0,
            },
        );
        assert_eq!(costs.zeros, 2048);
        assert!((costs.bits / 4096.0 - 1.5).abs() < 1e-3, "{}", costs.bits);
        assert!((costs.slopes[0] - 1.0).abs() < 1e-3);
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_interpolated_cost() {
        let costs = Costs {
            bits: 0.0,
            zeros: 0,
            slopes: vec![1.0, 2.0, 0.5],
        };
        let weights = [0.1f32, 0.8, -1.4, 7.0];
        let mut dw = [0.0f32; 4];
        let saved = add_gradient(&costs.table(), &weights, 2.0, 1.0, &mut dw);
        // In steps: 0.2 (at rest), 1.6, -2.8, 14.
        assert_eq!(dw, [0.0, 4.0, -1.0, 1.0]);
        assert!((saved - (2.0 * 1.6 + 0.5 * 2.8 + 0.5 * 14.0)).abs() < 1e-5);
    }

    #[test]
    fn the_controller_presses_when_too_large() {
        let mut c = Controller::new(0.1);
        let first = c.update(2.0, 1.0, 0.1, 0.01);
        assert!(c.update(2.0, 1.0, 0.1, 0.01) > first);
        for _ in 0..50 {
            c.update(0.9, 1.0, 0.1, 0.01);
        }
        assert!(c.update(0.9, 1.0, 0.1, 0.01) < first);
    }

    /// A file that grows and shrinks as one was seen to do, from 3 % too small and a price seven times too low.
    #[test]
    fn the_controller_does_not_swing() {
        let mut c = Controller { integral: -2.0 };
        let (mut size, mut largest) = (0.97f64.ln(), f64::MIN);
        for step in 0..4000 {
            let price = c.update(size.exp(), 1.0, 2.0, 1.0 / 4000.0).ln();
            size -= 1e-4 * price.clamp(-1.0, 4.0);
            largest = largest.max(size);
            assert!(step < 3500 || size.abs() < 0.002, "{step}: {size}");
        }
        assert!(largest < 0.05, "{largest}");
    }
}
