//! Fully connected layers: `Y = X W^T` with rows of a batch.
//!
//! With few rows every product reads all weights once and is limited by memory, so the gradients of input and weights are made
//! together, strip by strip of the columns.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use ndarray::linalg::general_mat_mul;
use ndarray::{Axis, s};
use rayon::prelude::*;

use super::matrix::{matrix, matrix_mut};
use super::param::Param;
use super::{floats, tensor, with_floats};

/// Columns at a time.
const COLUMNS: usize = 2048;
/// Parts that the outputs are divided into: fixed, so that the result does not depend on threads.
const PARTS: usize = 2;

/// `x [N, K]`, `w [O, K]` to `[N, O]`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// The weights.
    pub weights: Param,
    /// Their rows.
    pub outputs: usize,
    /// Whether the gradient of the input is wanted.
    pub input_gradient: bool,
}

impl Linear {
    fn forward(&self, x: &[f32], images: usize, k: usize) -> Result<Vec<f32>> {
        let mut y = vec![0.0; images * self.outputs];
        let (x, w) = (
            matrix(x, images, k)?,
            matrix(&self.weights.values, self.outputs, k)?,
        );
        let mut y_view = matrix_mut(&mut y, images, self.outputs)?;
        let rows = self.outputs.div_ceil(PARTS).max(1);
        let parts: Vec<_> = y_view.axis_chunks_iter_mut(Axis(1), rows).collect();
        parts.into_par_iter().enumerate().for_each(|(i, mut y)| {
            let w = w.slice(s![i * rows..i * rows + y.ncols(), ..]);
            general_mat_mul(1.0, &w, &x.t(), 0.0, &mut y.view_mut().reversed_axes());
        });
        Ok(y)
    }

    /// Gradients of input and weights.
    fn backward(&self, x: &[f32], dy: &[f32], images: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        let k = x.len() / images.max(1);
        let mut dx = vec![0.0; if self.input_gradient { x.len() } else { 0 }];
        let mut dw = vec![0.0; self.outputs * k];
        let (x, dy) = (matrix(x, images, k)?, matrix(dy, images, self.outputs)?);
        let w = matrix(&self.weights.values, self.outputs, k)?;
        let mut dw_view = matrix_mut(&mut dw, self.outputs, k)?;
        let strips: Vec<_> = dw_view.axis_chunks_iter_mut(Axis(1), COLUMNS).collect();
        strips.into_par_iter().enumerate().for_each(|(i, mut dw)| {
            let x = x.slice(s![.., i * COLUMNS..i * COLUMNS + dw.ncols()]);
            general_mat_mul(1.0, &dy.t(), &x, 0.0, &mut dw);
        });
        if self.input_gradient {
            let mut dx_view = matrix_mut(&mut dx, images, k)?;
            let strips: Vec<_> = dx_view.axis_chunks_iter_mut(Axis(1), COLUMNS).collect();
            strips.into_par_iter().enumerate().for_each(|(i, mut dx)| {
                let w = w.slice(s![.., i * COLUMNS..i * COLUMNS + dx.ncols()]);
                general_mat_mul(1.0, &dy, &w, 0.0, &mut dx);
            });
        }
        Ok((dx, dw))
    }
}

impl CustomOp1 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (images, k) = layout.shape().dims2()?;
        let y = self.forward(floats(x, layout)?, images, k)?;
        Ok((CpuStorage::F32(y), (images, self.outputs).into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (images, _) = x.dims2()?;
        let (dx, dw) = with_floats(dy, |dy| with_floats(x, |x| self.backward(x, dy, images)))?;
        self.weights.add(dw);
        if !self.input_gradient {
            return Ok(None);
        }
        Ok(Some(tensor(dx, x.dims())?))
    }
}
