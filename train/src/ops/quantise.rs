//! Quantisation with a straight-through estimator and a learnable step.
//!
//! Forward: `y = q s` with `q = round(w / s)` clamped to `-limit..=limit`, the grid of the file format with its exact zero;
//! for coarse steps rounding is biased towards zero (the dead zone of the compressor's own quantiser). Backward (LSQ, Esser
//! et al. 2020): `dw = dy` inside the range and 0 outside; `ds = dy (q - w / s)` inside and `dy q` outside. The parameter
//! is `log s`, so that a step stays positive and an optimiser's step is a relative change.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{floats, tensor, with_floats};

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
    /// Rounds one row with a step.
    pub fn row(&self, y: &mut [f32], w: &[f32], step: f32) {
        let inverse = 1.0 / step;
        for (y, w) in y.iter_mut().zip(w) {
            // Not -0.0: an exact zero is the value of code 0.
            *y = code(w * inverse, self.dead_zone, self.limit) * step + 0.0;
        }
    }

    /// Gradient of the weights of one row; returns that of the step.
    #[inline(always)]
    fn row_backward(&self, dw: &mut [f32], w: &[f32], dy: &[f32], step: f32) -> f32 {
        let inverse = 1.0 / step;
        let edge = self.limit + 0.5;
        let mut lanes = [0.0f32; 16];
        let blocks = dw.chunks_mut(16).zip(w.chunks(16).zip(dy.chunks(16)));
        for (dw, (w, dy)) in blocks {
            for (((dw, w), dy), lane) in dw.iter_mut().zip(w).zip(dy).zip(&mut lanes) {
                let u = w * inverse;
                let q = code(u, self.dead_zone, self.limit);
                let inside = u.abs() <= edge;
                *dw = if inside { *dy } else { 0.0 };
                *lane += dy * if inside { q - u } else { q };
            }
        }
        lanes.iter().sum()
    }
}

impl CustomOp2 for Quantise {
    fn name(&self) -> &'static str {
        "quantise"
    }

    fn cpu_fwd(
        &self,
        w: &CpuStorage,
        w_layout: &Layout,
        log_step: &CpuStorage,
        step_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (w, log_step) = (floats(w, w_layout)?, floats(log_step, step_layout)?);
        let (_, k) = w_layout.shape().dims2()?;
        let arch = pulp::Arch::new();
        let mut y = vec![0.0f32; w.len()];
        y.par_chunks_mut(k.max(1))
            .zip(w.par_chunks(k.max(1)))
            .enumerate()
            .for_each(|(o, (y, w))| {
                let step = log_step[o % log_step.len()].exp();
                arch.dispatch(|| self.row(y, w, step));
            });
        Ok((CpuStorage::F32(y), w_layout.shape().clone()))
    }

    fn bwd(
        &self,
        w: &Tensor,
        log_step: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (_, k) = w.dims2()?;
        let k = k.max(1);
        let arch = pulp::Arch::new();
        let steps = log_step.elem_count();
        let (dw, ds) = with_floats(dy, |dy| {
            with_floats(w, |w| {
                with_floats(log_step, |log_step| {
                    let mut dw = vec![0.0f32; w.len()];
                    let rows: Vec<f32> = dw
                        .par_chunks_mut(k)
                        .zip(w.par_chunks(k).zip(dy.par_chunks(k)))
                        .enumerate()
                        .map(|(o, (dw, (w, dy)))| {
                            let step = log_step[o % log_step.len()].exp();
                            // d / d log s = s d / d s
                            step * arch.dispatch(|| self.row_backward(dw, w, dy, step))
                        })
                        .collect();
                    let mut ds = vec![0.0f32; steps];
                    for (o, value) in rows.iter().enumerate() {
                        ds[o % steps] += value;
                    }
                    Ok((dw, ds))
                })
            })
        })?;
        Ok((
            Some(tensor(dw, w.dims())?),
            Some(tensor(ds, log_step.dims())?),
        ))
    }
}
