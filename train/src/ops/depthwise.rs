//! Depthwise convolution: every output channel reads one input channel.
//!
//! Channel by channel, image by image, in a padded copy of the plane that stays in the innermost cache. Values are read
//! through [`Entry`]. With 3x3 taps all three passes are the same loops over whole padded planes, nine taps at a time
//! (`ops::taps`): outputs are sums of nine shifted rows; the gradient of the input is the same with the taps reversed, of
//! gradients with zeros between them for stride 2; that of a tap is the inner product of two shifted planes. Other kernels go
//! row by row and tap by tap.

use rayon::prelude::*;

use super::entry::{Entry, Point};
use super::geometry::Window;
use super::param::Param;
use super::taps::{Padded, Planes};
use super::{axpy, dot, vectorised};

/// `x [C, N H W]`, `w [O, kh kw]` to `[O, N OH OW]`; `O` is a multiple of `C`.
#[derive(Clone, Debug)]
pub struct Depthwise {
    /// Sizes of the window.
    pub window: Window,
    /// Input channels.
    pub channels: usize,
    /// Output channels per input channel.
    pub multiplier: usize,
    /// Images.
    pub images: usize,
    /// The weights.
    pub weights: Param,
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

    #[inline(always)]
    fn forward_plane(&self, y: &mut [f32], x: &[f32], w: &[f32]) {
        let stride = self.window.x.stride;
        y.fill(0.0);
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

    #[inline(always)]
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

    #[inline(always)]
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

    /// The layout of padded planes, when the loops for nine taps fit.
    fn nine(&self) -> Option<Padded> {
        (self.multiplier == 1)
            .then(|| Padded::new(&self.window))
            .flatten()
    }

    pub(crate) fn forward(&self, entry: &Entry, x: &[f32], y: &mut [f32]) {
        let (plane, out_plane) = (self.window.plane(), self.window.out_plane());
        let taps = self.window.taps();
        let points = entry.points(self.channels);
        let nine = self.nine();
        y.par_chunks_mut((self.images * out_plane).max(1))
            .enumerate()
            .for_each_init(Planes::default, |planes, (o, y)| {
                let c = o / self.multiplier;
                let x = &x[c * self.images * plane..][..self.images * plane];
                let w = &self.weights.values[o * taps..][..taps];
                let mut pairs = y.chunks_exact_mut(out_plane).zip(x.chunks_exact(plane));
                if let Some(padded) = &nine {
                    padded.prepare(planes);
                    pairs.for_each(|(y, x)| padded.forward(planes, points[c], y, x, w));
                    return;
                }
                vectorised(
                    #[inline(always)]
                    || {
                        for (y, x) in pairs.by_ref() {
                            let a = planes.read(points[c], x);
                            self.forward_plane(y, a, w);
                        }
                    },
                );
            });
    }

    /// Gradients from `dy`: of the input into `dx`, of parameters into their sinks.
    pub(crate) fn backward(&self, entry: &Entry, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        let row = self.images * self.window.plane();
        let taps = self.window.taps();
        let points = entry.points(self.channels);
        let nine = self.nine();
        let mut dw = vec![0.0f32; self.channels * self.multiplier * taps];
        let mut sums = vec![[0.0f32; 2]; self.channels];
        dx.par_chunks_mut(row.max(1))
            .zip(dw.par_chunks_mut((self.multiplier * taps).max(1)))
            .zip(&mut sums)
            .enumerate()
            .for_each_init(Planes::default, |planes, (c, ((dx, dw), sums))| {
                let x = &x[c * row..][..row];
                *sums = match &nine {
                    Some(padded) => {
                        self.nine_backward(padded, planes, points[c], c, [x, dy], dx, dw)
                    }
                    None => self.channel_backward(planes, points[c], c, [x, dy], dx, dw),
                };
            });
        self.weights.add(dw);
        entry.learn(&sums);
    }

    #[expect(clippy::too_many_arguments)]
    fn nine_backward(
        &self,
        padded: &Padded,
        planes: &mut Planes,
        point: Point,
        c: usize,
        [x, dy]: [&[f32]; 2],
        dx: &mut [f32],
        dw: &mut [f32],
    ) -> [f32; 2] {
        let (plane, out_plane) = (self.window.plane(), self.window.out_plane());
        let w = &self.weights.values[c * 9..][..9];
        let dy = &dy[c * self.images * out_plane..][..self.images * out_plane];
        let mut sums = [0.0f32; 2];
        padded.prepare(planes);
        let pairs = dx.chunks_exact_mut(plane).zip(x.chunks_exact(plane));
        for ((dx, x), dy) in pairs.zip(dy.chunks_exact(out_plane)) {
            let [bias, slope] = padded.backward(planes, point, x, dy, w, dx, dw);
            sums[0] += bias;
            sums[1] += slope;
        }
        sums
    }

    fn channel_backward(
        &self,
        planes: &mut Planes,
        point: Point,
        c: usize,
        [x, dy]: [&[f32]; 2],
        dx: &mut [f32],
        dw: &mut [f32],
    ) -> [f32; 2] {
        let (plane, out_plane) = (self.window.plane(), self.window.out_plane());
        let (taps, out_row) = (self.window.taps(), self.images * out_plane);
        let mut sums = [0.0f32; 2];
        vectorised(
            #[inline(always)]
            || {
                let pairs = dx.chunks_exact_mut(plane).zip(x.chunks_exact(plane));
                for (n, (dx, x)) in pairs.enumerate() {
                    dx.fill(0.0);
                    let a = planes.read(point, x);
                    for (m, dw) in dw.chunks_exact_mut(taps).enumerate() {
                        let o = c * self.multiplier + m;
                        let w = &self.weights.values[o * taps..][..taps];
                        let dy = &dy[o * out_row + n * out_plane..][..out_plane];
                        self.input_plane(dx, dy, w);
                        self.weight_plane(dw, dy, a);
                    }
                    let [bias, slope] = point.backward(dx, x);
                    sums[0] += bias;
                    sums[1] += slope;
                }
            },
        );
        sums
    }
}
