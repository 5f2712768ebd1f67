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

use crate::ops::quantise::code;

/// Bytes of a coded layer over the entropy of its codes: Huffman codes, tables, tiles. Measured on SFace.
const OVERHEAD: f64 = 1.05;
/// Codes counted at a time.
const BLOCK: usize = 256;
/// Steepest slope that is followed, in bits per step.
const STEEPEST: f32 = 3.0;
/// Below this many steps a weight is left alone: it is zero already.
const AT_REST: f32 = 0.45;

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
    pub fn measure(weights: &[f32], k: usize, steps: &[f32], dead_zone: f32, limit: u8) -> Costs {
        let limit_f = f32::from(limit);
        let arch = pulp::Arch::new();
        let counts = weights
            .par_chunks(k.max(1))
            .enumerate()
            .fold(
                || vec![0u64; 128],
                |mut counts, (row, weights)| {
                    let inverse = 1.0 / steps[row % steps.len()];
                    let mut codes = [0u8; BLOCK];
                    for weights in weights.chunks(BLOCK) {
                        arch.dispatch(|| {
                            for (q, w) in codes.iter_mut().zip(weights) {
                                *q = code(w * inverse, dead_zone, limit_f).abs() as u8;
                            }
                        });
                        for q in &codes[..weights.len()] {
                            counts[usize::from(*q & 127)] += 1;
                        }
                    }
                    counts
                },
            )
            .reduce(
                || vec![0u64; 128],
                |mut a, b| {
                    a.iter_mut().zip(&b).for_each(|(a, b)| *a += b);
                    a
                },
            );
        Costs::of(&counts)
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

    /// Adds `scale` times the gradient of the layer's bits to gradients of weights and of log steps.
    pub fn add_gradient(
        &self,
        weights: &[f32],
        k: usize,
        steps: &[f32],
        scale: f32,
        dw: &mut [f32],
        d_log_step: &mut [f32],
    ) {
        if self.slopes.is_empty() || scale == 0.0 {
            return;
        }
        let per_row: Vec<f64> = dw
            .par_chunks_mut(k.max(1))
            .zip(weights.par_chunks(k.max(1)))
            .enumerate()
            .map(|(row, (dw, weights))| {
                let inverse = 1.0 / steps[row % steps.len()];
                let mut saved = 0.0f64;
                for (dw, w) in dw.iter_mut().zip(weights) {
                    let u = w * inverse;
                    let magnitude = u.abs();
                    if magnitude < AT_REST {
                        continue;
                    }
                    let place = (magnitude as usize).min(self.slopes.len() - 1);
                    let slope = self.slopes[place];
                    *dw += scale * slope * inverse * u.signum();
                    saved += f64::from(slope * magnitude);
                }
                saved
            })
            .collect();
        let count = d_log_step.len();
        for (row, saved) in per_row.iter().enumerate() {
            d_log_step[row % count] -= scale * *saved as f32;
        }
    }
}

/// Finds the multiplier that holds the estimate at the wanted size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Controller {
    /// Logarithm of the multiplier without the proportional part.
    pub integral: f64,
}

impl Controller {
    /// Starts from the first loss: at high rates the error falls by `2 ln 2` of itself per bit and weight.
    pub fn new(loss: f64) -> Controller {
        Controller {
            integral: (0.5 * loss.max(1e-6)).ln(),
        }
    }

    /// The multiplier, in loss per bit and weight, for an estimate and the wanted size.
    pub fn update(&mut self, bytes: f64, wanted: f64) -> f64 {
        let error = (bytes / wanted.max(1.0)).max(1e-3).ln();
        self.integral += (0.5 * error).clamp(-0.05, 0.05);
        self.integral = self.integral.clamp(-25.0, 5.0);
        (self.integral + (12.0 * error).clamp(-4.0, 4.0)).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_the_entropy_of_codes() {
        // Half zeros, a quarter +1, a quarter -1: 1.5 bits a weight.
        let weights: Vec<f32> = (0..4096).map(|i| [0.0, 1.0, 0.1, -1.1][i % 4]).collect();
        let costs = Costs::measure(&weights, 64, &[1.0], 0.0, 127);
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
        let (mut dw, mut ds) = ([0.0f32; 4], [0.0f32; 1]);
        costs.add_gradient(&weights, 4, &[0.5], 1.0, &mut dw, &mut ds);
        // In steps: 0.2 (at rest), 1.6, -2.8, 14.
        assert_eq!(dw, [0.0, 4.0, -1.0, 1.0]);
        assert!((ds[0] + (2.0 * 1.6 + 0.5 * 2.8 + 0.5 * 14.0)).abs() < 1e-5);
    }

    #[test]
    fn the_controller_presses_when_too_large() {
        let mut c = Controller::new(0.1);
        let first = c.update(2.0, 1.0);
        assert!(c.update(2.0, 1.0) > first);
        for _ in 0..50 {
            c.update(0.9, 1.0);
        }
        assert!(c.update(0.9, 1.0) < first);
    }
}
