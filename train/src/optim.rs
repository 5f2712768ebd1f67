//! Adam (Kingma & Ba 2015) on plain vectors.
//!
//! The library's optimiser keeps its moments to itself, so a run could not be continued exactly from a checkpoint; these are
//! twenty lines. Pruned weights (mask 0) stay exactly zero, and so do their moments.

use crate::ops::vectorised;
use rayon::prelude::*;

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.99;
const EPSILON: f32 = 1e-12;
const CHUNK: usize = 1 << 15;

/// First and second moments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Mean of the gradient.
    pub m: Vec<f32>,
    /// Mean of its square.
    pub v: Vec<f32>,
}

impl Moments {
    /// Zeros.
    pub fn new(len: usize) -> Moments {
        Moments {
            m: vec![0.0; len],
            v: vec![0.0; len],
        }
    }

    /// One step of size `rate`; `step` counts from 1. `mask` is empty or 0 where a value stays zero.
    pub fn step(
        &mut self,
        values: &mut [f32],
        gradient: &[f32],
        mask: &[u8],
        rate: f32,
        step: u64,
    ) {
        let adam = Adam::new(rate, step);
        let moments = self
            .m
            .par_chunks_mut(CHUNK)
            .zip(self.v.par_chunks_mut(CHUNK));
        values
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(moments)
            .enumerate()
            .for_each(|(chunk, ((values, gradient), (m, v)))| {
                let mask = mask.get(chunk * CHUNK..).unwrap_or_default();
                vectorised(
                    #[inline(always)]
                    || adam.apply(values, gradient, m, v, mask),
                );
            });
    }
}

/// A step for some values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adam {
    rate: f32,
    correct1: f32,
    correct2: f32,
}

impl Adam {
    pub(crate) fn new(rate: f32, step: u64) -> Adam {
        let t = step.min(100_000) as i32;
        Adam {
            rate,
            correct1: 1.0 / (1.0 - BETA1.powi(t)),
            correct2: 1.0 / (1.0 - BETA2.powi(t)),
        }
    }

    /// `mask` is empty or 0 where a value stays zero.
    #[inline(always)]
    pub(crate) fn apply(
        self,
        values: &mut [f32],
        gradient: &[f32],
        m: &mut [f32],
        v: &mut [f32],
        mask: &[u8],
    ) {
        let n = values.len().min(gradient.len()).min(m.len()).min(v.len());
        let (w, g) = (&mut values[..n], &gradient[..n]);
        let (m, v) = (&mut m[..n], &mut v[..n]);
        for i in 0..n {
            m[i] = BETA1 * m[i] + (1.0 - BETA1) * g[i];
            v[i] = BETA2 * v[i] + (1.0 - BETA2) * g[i] * g[i];
            w[i] -= self.rate * (m[i] * self.correct1) / ((v[i] * self.correct2).sqrt() + EPSILON);
        }
        for i in 0..n.min(mask.len()) {
            if mask[i] == 0 {
                (w[i], m[i], v[i]) = (0.0, 0.0, 0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_has_the_size_of_the_rate() {
        let mut moments = Moments::new(3);
        let mut w = [1.0f32, 1.0, 0.0];
        moments.step(&mut w, &[0.3, -5.0, 7.0], &[1, 1, 0], 0.1, 1);
        assert!((w[0] - 0.9).abs() < 1e-6 && (w[1] - 1.1).abs() < 1e-6);
        assert_eq!(w[2].to_bits(), 0);
        assert_eq!(moments.m[2], 0.0);
    }

    #[test]
    fn a_parabola_is_descended() {
        let mut moments = Moments::new(1);
        let mut w = [2.0f32];
        for step in 1..=500 {
            let g = [2.0 * (w[0] - 0.5)];
            moments.step(&mut w, &g, &[], 0.02, step);
        }
        assert!((w[0] - 0.5).abs() < 0.02, "{}", w[0]);
    }
}
