//! Quantisation with a straight-through estimator and a learnable step.
//!
//! Forward: `y = q s` with `q = round(w / s)` clamped to `-limit..=limit`, the grid of the file format with its exact zero;
//! for coarse steps rounding is biased towards zero (the dead zone of the compressor's own quantiser). Backward (LSQ, Esser
//! et al. 2020): `dw = dy` inside the range and 0 outside; `ds = dy (q - w / s)` inside and `dy q` outside. The parameter
//! is `log s`, so that a step stays positive and an optimiser's step is a relative change.

use super::LANES;

/// The code of a weight. Dead zone as in the compressor: it fades between codes 2 and 10.
#[inline(always)]
pub fn code(u: f32, dead_zone: f32, limit: f32) -> f32 {
    let magnitude = u.abs();
    let bias = dead_zone * ((10.0 - magnitude) * 0.125).clamp(0.0, 1.0);
    // Truncation is the floor of what is not negative, and needs no call where rounding instructions are missing.
    let whole = (magnitude + 0.5 - bias).min(limit) as i32;
    (whole as f32).copysign(u)
}

/// Rounds `w [O, K]` to the grid of `log_step [1]` or `[O]`.
#[derive(Clone, Copy, Debug)]
pub struct Quantise {
    /// How far the threshold of code 1 lies above one half.
    pub dead_zone: f32,
    /// Largest code, at most 127.
    pub limit: f32,
}

impl Quantise {
    /// Rounds weights that share a step.
    #[inline(always)]
    pub fn row(&self, y: &mut [f32], w: &[f32], step: f32) {
        let inverse = 1.0 / step;
        let n = y.len().min(w.len());
        let (y, w) = (&mut y[..n], &w[..n]);
        for i in 0..n {
            // Not -0.0: an exact zero is the value of code 0.
            y[i] = code(w[i] * inverse, self.dead_zone, self.limit) * step + 0.0;
        }
    }

    /// Turns gradients of rounded weights that share a step into those of the weights; returns that of the logarithm of the step.
    #[inline(always)]
    pub fn row_backward(&self, d: &mut [f32], w: &[f32], step: f32) -> f32 {
        let inverse = 1.0 / step;
        let mut lanes = [0.0f32; LANES];
        let n = d.len().min(w.len());
        let (d, w) = (&mut d[..n], &w[..n]);
        let whole = n / LANES * LANES;
        for at in (0..whole).step_by(LANES) {
            let (d, w) = (&mut d[at..at + LANES], &w[at..at + LANES]);
            for i in 0..LANES {
                lanes[i] += self.value_backward(&mut d[i], w[i] * inverse);
            }
        }
        for i in whole..n {
            lanes[i - whole] += self.value_backward(&mut d[i], w[i] * inverse);
        }
        // d / d log s = s d / d s
        step * lanes.iter().sum::<f32>()
    }

    /// The same of a weight of `u` steps: its part of the step's gradient.
    #[inline(always)]
    fn value_backward(&self, d: &mut f32, u: f32) -> f32 {
        let q = code(u, self.dead_zone, self.limit);
        let inside = u.abs() <= self.limit + 0.5;
        let part = *d * if inside { q - u } else { q };
        *d = if inside { *d } else { 0.0 };
        part
    }
}
