//! Depthwise convolution: every output channel reads one input channel.
//!
//! Row by row and tap by tap: a tap adds a scaled row to an output row (`y += w x`, contiguous for stride 1). The gradient of
//! the input is the same loop with the rows exchanged, that of a weight the inner product of two rows. All three read and write
//! whole planes of one channel, so threads divide channels.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::geometry::Window;
use super::{axpy, dot, floats, tensor, with_floats};

/// `x [C, N H W]`, `w [O, kh kw]` to `[O, N OH OW]`; `O` is a multiple of `C`.
#[derive(Clone, Copy, Debug)]
pub struct Depthwise {
    /// Sizes of the window.
    pub window: Window,
    /// Input channels.
    pub channels: usize,
    /// Output channels per input channel.
    pub multiplier: usize,
    /// Images.
    pub images: usize,
}

impl Depthwise {
    /// Calls `row(y row start, x row start, tap, length)` for every pair of rows that a tap joins within one plane.
    #[inline(always)]
    fn rows(&self, mut row: impl FnMut(usize, usize, usize, usize)) {
        let w = &self.window;
        for kx in 0..w.x.kernel {
            let (from, to, first) = w.x.range(kx);
            if from == to {
                continue;
            }
            for ky in 0..w.y.kernel {
                let (y_from, y_to, y_first) = w.y.range(ky);
                let mut iy = y_first;
                for oy in y_from..y_to {
                    row(
                        oy * w.x.output + from,
                        iy * w.x.input + first,
                        ky * w.x.kernel + kx,
                        to - from,
                    );
                    iy += w.y.stride;
                }
            }
        }
    }

    fn forward_plane(&self, y: &mut [f32], x: &[f32], w: &[f32]) {
        let stride = self.window.x.stride;
        self.rows(|oy, ix, tap, len| {
            let (y, x) = (&mut y[oy..oy + len], &x[ix..]);
            if stride == 1 {
                axpy(y, w[tap], &x[..len]);
            } else {
                for (y, x) in y.iter_mut().zip(x.iter().step_by(stride)) {
                    *y += w[tap] * x;
                }
            }
        });
    }

    fn input_plane(&self, dx: &mut [f32], dy: &[f32], w: &[f32]) {
        let stride = self.window.x.stride;
        self.rows(|oy, ix, tap, len| {
            let (dy, dx) = (&dy[oy..oy + len], &mut dx[ix..]);
            if stride == 1 {
                axpy(&mut dx[..len], w[tap], dy);
            } else {
                for (dx, dy) in dx.iter_mut().step_by(stride).zip(dy) {
                    *dx += w[tap] * dy;
                }
            }
        });
    }

    fn weight_plane(&self, dw: &mut [f32], dy: &[f32], x: &[f32]) {
        let stride = self.window.x.stride;
        self.rows(|oy, ix, tap, len| {
            let (dy, x) = (&dy[oy..oy + len], &x[ix..]);
            dw[tap] += if stride == 1 {
                dot(dy, &x[..len])
            } else {
                dy.iter()
                    .zip(x.iter().step_by(stride))
                    .map(|(a, b)| a * b)
                    .sum()
            };
        });
    }

    fn forward(&self, x: &[f32], w: &[f32]) -> Vec<f32> {
        let (plane, out_plane) = (self.window.plane(), self.window.out_plane());
        let taps = self.window.taps();
        let arch = pulp::Arch::new();
        let mut y = vec![0.0f32; self.channels * self.multiplier * self.images * out_plane];
        y.par_chunks_mut((self.images * out_plane).max(1))
            .enumerate()
            .for_each(|(o, y)| {
                let x = &x[o / self.multiplier * self.images * plane..][..self.images * plane];
                let w = &w[o * taps..][..taps];
                arch.dispatch(|| {
                    for (y, x) in y.chunks_exact_mut(out_plane).zip(x.chunks_exact(plane)) {
                        self.forward_plane(y, x, w);
                    }
                });
            });
        y
    }

    fn backward(&self, x: &[f32], w: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (plane, out_plane) = (self.window.plane(), self.window.out_plane());
        let taps = self.window.taps();
        let arch = pulp::Arch::new();
        let (row, out_row) = (self.images * plane, self.images * out_plane);
        let mut dx = vec![0.0f32; self.channels * row];
        let mut dw = vec![0.0f32; self.channels * self.multiplier * taps];
        dx.par_chunks_mut(row.max(1))
            .zip(dw.par_chunks_mut(self.multiplier * taps))
            .enumerate()
            .for_each(|(c, (dx, dw))| {
                let x = &x[c * row..][..row];
                for (m, dw) in dw.chunks_exact_mut(taps).enumerate() {
                    let o = c * self.multiplier + m;
                    let w = &w[o * taps..][..taps];
                    let dy = &dy[o * out_row..][..out_row];
                    arch.dispatch(|| {
                        for (n, dy) in dy.chunks_exact(out_plane).enumerate() {
                            let at = n * plane..(n + 1) * plane;
                            self.input_plane(&mut dx[at.clone()], dy, w);
                            self.weight_plane(dw, dy, &x[at]);
                        }
                    });
                }
            });
        (dx, dw)
    }
}

impl CustomOp2 for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let y = self.forward(floats(x, x_layout)?, floats(w, w_layout)?);
        let dims = (
            self.channels * self.multiplier,
            self.images * self.window.out_plane(),
        );
        Ok((CpuStorage::F32(y), dims.into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dw) = with_floats(dy, |dy| {
            with_floats(x, |x| with_floats(w, |w| Ok(self.backward(x, w, dy))))
        })?;
        Ok((Some(tensor(dx, x.dims())?), Some(tensor(dw, w.dims())?)))
    }
}
