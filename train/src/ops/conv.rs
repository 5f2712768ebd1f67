//! Dense convolution as patches times weights: `Y = W * im2col(X)` for the whole batch.
//!
//! Patches of a few images at a time (at most 32 MiB), and again in the backward pass instead of keeping them:
//! copying a patch is far cheaper than its product with the weights, and they would be nine times as large as the maps.
//! Gradients: `dW = dY * im2col(X)^T`, `dX = col2im(W^T * dY)`.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::geometry::Window;
use super::{floats, tensor, with_floats};

/// Most values of a patch matrix (32 MiB).
const PATCHES: usize = 8 << 20;

/// `x [C, N H W]`, `w [O, C kh kw]` to `[O, N OH OW]`; one group.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    /// Sizes of the window.
    pub window: Window,
    /// Input channels.
    pub channels: usize,
    /// Images.
    pub images: usize,
}

impl Conv {
    fn k(&self) -> usize {
        self.channels * self.window.taps()
    }

    /// Ranges of images whose patches fit.
    fn chunks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let one = (self.k() * self.window.out_plane()).max(1);
        let step = (PATCHES / one).max(1);
        let images = self.images;
        (0..images)
            .step_by(step)
            .map(move |from| (from, step.min(images - from)))
    }

    /// Patches of `count` images: `[C kh kw, count OH OW]`.
    fn patches(&self, x: &[f32], from: usize, count: usize) -> Vec<f32> {
        let w = &self.window;
        let (plane, out_plane, taps) = (w.plane(), w.out_plane(), w.taps());
        let mut patches = vec![0.0f32; self.k() * count * out_plane];
        patches
            .par_chunks_mut((count * out_plane).max(1))
            .enumerate()
            .for_each(|(row, out)| {
                let (c, ky, kx) = (row / taps, row % taps / w.x.kernel, row % w.x.kernel);
                let (x_from, x_to, x_first) = w.x.range(kx);
                for (n, out) in out.chunks_exact_mut(out_plane).enumerate() {
                    let start = (c * self.images + from + n) * plane;
                    let source = &x[start..start + plane];
                    for (oy, out) in out.chunks_exact_mut(w.x.output).enumerate() {
                        let Some(iy) = w.y.source(oy, ky) else {
                            continue;
                        };
                        let line = &source[iy * w.x.input + x_first..(iy + 1) * w.x.input];
                        let out = &mut out[x_from..x_to];
                        if w.x.stride == 1 {
                            let len = out.len();
                            out.copy_from_slice(&line[..len]);
                        } else {
                            for (o, i) in out.iter_mut().zip(line.iter().step_by(w.x.stride)) {
                                *o = *i;
                            }
                        }
                    }
                }
            });
        patches
    }

    /// Adds gradients of patches to those of the input.
    fn add_patches(&self, dx: &mut [f32], patches: &[f32], from: usize, count: usize) {
        let w = &self.window;
        let (plane, out_plane, taps) = (w.plane(), w.out_plane(), w.taps());
        let row_len = count * out_plane;
        dx.par_chunks_mut((self.images * plane).max(1))
            .enumerate()
            .for_each(|(c, dx)| {
                for tap in 0..taps {
                    let (ky, kx) = (tap / w.x.kernel, tap % w.x.kernel);
                    let (x_from, x_to, x_first) = w.x.range(kx);
                    let row = &patches[(c * taps + tap) * row_len..][..row_len];
                    for (n, row) in row.chunks_exact(out_plane).enumerate() {
                        let target = &mut dx[(from + n) * plane..][..plane];
                        for (oy, row) in row.chunks_exact(w.x.output).enumerate() {
                            let Some(iy) = w.y.source(oy, ky) else {
                                continue;
                            };
                            let line = &mut target[iy * w.x.input + x_first..(iy + 1) * w.x.input];
                            for (i, o) in
                                line.iter_mut().step_by(w.x.stride).zip(&row[x_from..x_to])
                            {
                                *i += *o;
                            }
                        }
                    }
                }
            });
    }
}

impl CustomOp2 for Conv {
    fn name(&self) -> &'static str {
        "conv"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = floats(x, x_layout)?;
        let (outputs, k) = w_layout.shape().dims2()?;
        let out_plane = self.window.out_plane();
        let mut y = vec![0.0f32; outputs * self.images * out_plane];
        for (from, count) in self.chunks() {
            let columns = count * out_plane;
            let patches = CpuStorage::F32(self.patches(x, from, count));
            let layout = Layout::contiguous((k, columns));
            let part = w.matmul(&patches, (1, outputs, columns, k), w_layout, &layout)?;
            let part = part.as_slice::<f32>()?;
            y.chunks_exact_mut(self.images * out_plane)
                .zip(part.chunks_exact(columns))
                .for_each(|(y, part)| y[from * out_plane..][..columns].copy_from_slice(part));
        }
        Ok((
            CpuStorage::F32(y),
            (outputs, self.images * out_plane).into(),
        ))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let out_plane = self.window.out_plane();
        let dy = dy.contiguous()?;
        let mut dw: Option<Tensor> = None;
        let needs_dx = x.track_op();
        let mut dx = vec![0.0f32; if needs_dx { x.elem_count() } else { 0 }];
        for (from, count) in self.chunks() {
            let columns = count * out_plane;
            let patches = with_floats(x, |x| Ok(self.patches(x, from, count)))?;
            let patches = tensor(patches, &[self.k(), columns])?;
            let part = dy.narrow(1, from * out_plane, columns)?;
            let product = part.matmul(&patches.t()?)?;
            dw = Some(match dw {
                Some(sum) => (sum + product)?,
                None => product,
            });
            if needs_dx {
                let back = w.t()?.matmul(&part)?;
                with_floats(&back, |back| {
                    self.add_patches(&mut dx, back, from, count);
                    Ok(())
                })?;
            }
        }
        let dx = if needs_dx {
            Some(tensor(dx, x.dims())?)
        } else {
            None
        };
        Ok((dx, dw))
    }
}
