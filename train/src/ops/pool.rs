//! Windowed pooling of planes.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use dcz_format::graph::PoolKind;
use rayon::prelude::*;

use super::geometry::Window;
use super::{floats, tensor, with_floats};

/// `x [C, N H W]` to `[C, N OH OW]`.
#[derive(Clone, Copy, Debug)]
pub struct Pooling {
    /// Sizes of the window.
    pub window: Window,
    /// Largest value or mean.
    pub kind: PoolKind,
    /// Mean only: padding counts in the divisor.
    pub count_padding: bool,
}

impl Pooling {
    /// Input positions of an output, within a plane.
    fn taps(&self, oy: usize, ox: usize) -> impl Iterator<Item = usize> + '_ {
        let w = &self.window;
        (0..w.y.kernel).flat_map(move |ky| {
            let iy = w.y.source(oy, ky);
            (0..w.x.kernel).filter_map(move |kx| Some(iy? * w.x.input + w.x.source(ox, kx)?))
        })
    }

    fn divisor(&self, inside: usize) -> f32 {
        if self.count_padding {
            self.window.taps() as f32
        } else {
            inside.max(1) as f32
        }
    }

    /// The first position of the largest value.
    fn best(&self, x: &[f32], oy: usize, ox: usize) -> Option<usize> {
        self.taps(oy, ox).fold(None, |best, i| match best {
            Some(b) if x[b] >= x[i] => Some(b),
            _ => Some(i),
        })
    }

    fn forward_plane(&self, y: &mut [f32], x: &[f32]) {
        let columns = self.window.x.output;
        for (o, y) in y.iter_mut().enumerate() {
            let (oy, ox) = (o / columns, o % columns);
            *y = match self.kind {
                PoolKind::Max => self.best(x, oy, ox).map_or(f32::NEG_INFINITY, |i| x[i]),
                PoolKind::Average => {
                    let (sum, count) = self
                        .taps(oy, ox)
                        .fold((0.0, 0), |(sum, count), i| (sum + x[i], count + 1));
                    sum / self.divisor(count)
                }
            };
        }
    }

    fn backward_plane(&self, dx: &mut [f32], x: &[f32], dy: &[f32]) {
        let columns = self.window.x.output;
        for (o, dy) in dy.iter().enumerate() {
            let (oy, ox) = (o / columns, o % columns);
            match self.kind {
                PoolKind::Max => {
                    if let Some(i) = self.best(x, oy, ox) {
                        dx[i] += dy;
                    }
                }
                PoolKind::Average => {
                    let share = dy / self.divisor(self.taps(oy, ox).count());
                    self.taps(oy, ox).for_each(|i| dx[i] += share);
                }
            }
        }
    }
}

impl CustomOp1 for Pooling {
    fn name(&self) -> &'static str {
        "pooling"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = floats(x, layout)?;
        let (plane, out_plane) = (self.window.plane(), self.window.out_plane());
        let (channels, columns) = layout.shape().dims2()?;
        let planes = channels * columns / plane.max(1);
        let mut y = vec![0.0f32; planes * out_plane];
        y.par_chunks_mut(out_plane.max(1))
            .zip(x.par_chunks(plane.max(1)))
            .for_each(|(y, x)| self.forward_plane(y, x));
        let shape = (channels, planes / channels.max(1) * out_plane);
        Ok((CpuStorage::F32(y), shape.into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (plane, out_plane) = (self.window.plane(), self.window.out_plane());
        let dx = with_floats(dy, |dy| {
            with_floats(x, |x| {
                let mut dx = vec![0.0f32; x.len()];
                dx.par_chunks_mut(plane.max(1))
                    .zip(x.par_chunks(plane.max(1)))
                    .zip(dy.par_chunks(out_plane.max(1)))
                    .for_each(|((dx, x), dy)| self.backward_plane(dx, x, dy));
                Ok(dx)
            })
        })?;
        Ok(Some(tensor(dx, x.dims())?))
    }
}
