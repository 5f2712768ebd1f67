//! A bias or a slope per channel.
//!
//! Values are `[outer][channel][inner]`: `outer` is 1 for maps (`[C, N H W]`) and the batch for rows (`[N, C, ...]`).

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{floats, sum, tensor, vectorised, with_floats};

/// What one value per channel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// `x + p`
    Bias,
    /// `x < 0 ? p x : x`
    Prelu,
}

/// An operation with one parameter per channel, or one for all.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// What it does.
    pub kind: RowKind,
    /// Channels.
    pub channels: usize,
    /// Elements of a channel in a row.
    pub inner: usize,
}

impl Rows {
    fn forward(&self, x: &[f32], p: &[f32]) -> Vec<f32> {
        let mut y = vec![0.0f32; x.len()];
        y.par_chunks_mut(self.inner.max(1))
            .zip(x.par_chunks(self.inner.max(1)))
            .enumerate()
            .for_each(|(i, (y, x))| {
                let p = p[i % self.channels % p.len()];
                vectorised(
                    #[inline(always)]
                    || match self.kind {
                        RowKind::Bias => y.iter_mut().zip(x).for_each(|(y, x)| *y = x + p),
                        RowKind::Prelu => y
                            .iter_mut()
                            .zip(x)
                            .for_each(|(y, x)| *y = if *x < 0.0 { p * x } else { *x }),
                    },
                );
            });
        y
    }

    /// Gradients of the input and, per row, of the parameter.
    fn prelu_backward(&self, x: &[f32], p: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let inner = self.inner.max(1);
        let mut dx = vec![0.0f32; x.len()];
        let mut sums = vec![0.0f32; x.len() / inner];
        dx.par_chunks_mut(inner)
            .zip(sums.par_iter_mut())
            .enumerate()
            .for_each(|(i, (dx, total))| {
                let (x, dy) = (&x[i * inner..][..inner], &dy[i * inner..][..inner]);
                let p = p[i % self.channels % p.len()];
                vectorised(
                    #[inline(always)]
                    || {
                        let mut lanes = [0.0f32; 16];
                        let blocks = dx.chunks_mut(16).zip(x.chunks(16).zip(dy.chunks(16)));
                        for (dx, (x, dy)) in blocks {
                            for (((dx, x), dy), lane) in
                                dx.iter_mut().zip(x).zip(dy).zip(&mut lanes)
                            {
                                let below = *x < 0.0;
                                *dx = if below { p * dy } else { *dy };
                                *lane += if below { x * dy } else { 0.0 };
                            }
                        }
                        *total = lanes.iter().sum();
                    },
                );
            });
        (dx, sums)
    }

    /// Sums of rows, per parameter.
    fn reduce(&self, rows: &[f32], parameters: usize) -> Vec<f32> {
        let mut total = vec![0.0f32; parameters];
        for (i, row) in rows.iter().enumerate() {
            total[i % self.channels % parameters] += row;
        }
        total
    }
}

impl CustomOp2 for Rows {
    fn name(&self) -> &'static str {
        "rows"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        p: &CpuStorage,
        p_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let y = self.forward(floats(x, x_layout)?, floats(p, p_layout)?);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        p: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let parameters = p.elem_count();
        let (dx, rows) = match self.kind {
            RowKind::Bias => {
                let inner = self.inner.max(1);
                let rows = with_floats(dy, |dy| {
                    Ok(dy
                        .par_chunks(inner)
                        .map(|row| {
                            vectorised(
                                #[inline(always)]
                                || sum(row),
                            )
                        })
                        .collect::<Vec<f32>>())
                })?;
                (dy.clone(), rows)
            }
            RowKind::Prelu => {
                let (dx, rows) = with_floats(dy, |dy| {
                    with_floats(x, |x| with_floats(p, |p| Ok(self.prelu_backward(x, p, dy))))
                })?;
                (tensor(dx, x.dims())?, rows)
            }
        };
        let dp = tensor(self.reduce(&rows, parameters), p.dims())?;
        Ok((Some(dx), Some(dp)))
    }
}
