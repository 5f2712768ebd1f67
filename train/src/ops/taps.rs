//! The loops of a depthwise convolution with nine taps, on padded planes.
//!
//! `a` holds a plane of the input with its padding, `u` one of the gradients of the output with two columns and rows of zeros
//! before it and zeros between elements for stride 2. Both have rows of the same length (`pitch`), so that shifting by a tap is
//! adding to an index, and a whole plane is one long loop, whatever the width of its rows: what is computed for the columns
//! between the rows is not used. With `t = y pitch + x`:
//!
//! ```text
//! y[t]     = sum over ky, kx of w[ky][kx] a[t + ky pitch + kx]
//! da[t]    = sum over ky, kx of w[2 - ky][2 - kx] u[t + ky pitch + kx]
//! dw[tap]  = sum over t of u[t + 2 pitch + 2] a[t + ky pitch + kx]
//! ```

use pulp::{Simd, WithSimd};

use super::entry::Point;
use super::geometry::Window;
use super::vectorised;

/// Loops run over whole vectors: so many values are read after the last row.
const SLACK: usize = 64;
/// Most lanes of a vector.
const WIDEST: usize = 16;
/// Rows of at least so many outputs are computed one by one, straight into the result.
const LONG_ROW: usize = 48;

/// Layout of padded planes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Padded {
    window: Window,
    pitch: usize,
    rows: usize,
}

/// Working memory: planes of one image and channel.
#[derive(Debug, Default)]
pub(crate) struct Planes {
    a: Vec<f32>,
    u: Vec<f32>,
    out: Vec<f32>,
}

impl Planes {
    /// A plane of the input, not padded, as the layer reads it.
    #[inline(always)]
    pub(crate) fn read(&mut self, point: Point, x: &[f32]) -> &[f32] {
        self.out.resize(x.len(), 0.0);
        point.apply(&mut self.out, x);
        &self.out
    }
}

impl Padded {
    /// None when the window is not 3x3 with the same stride in both directions, or dilated.
    pub(crate) fn new(window: &Window) -> Option<Padded> {
        let fits = [&window.y, &window.x]
            .into_iter()
            .all(|a| a.kernel == 3 && a.dilation == 1 && a.stride == window.x.stride);
        if !fits || window.out_plane() == 0 {
            return None;
        }
        let size = |a: &super::geometry::Axis| {
            let reach = (a.output - 1) * a.stride + 3;
            reach.max(a.input + a.before + 2)
        };
        let (pitch, rows) = (size(&window.x), size(&window.y));
        // A vector that begins in a row must end before the next row that is not zero.
        (window.x.stride == 1 || pitch >= WIDEST).then_some(Padded {
            window: *window,
            pitch,
            rows,
        })
    }

    /// Clears what is not written for every plane.
    pub(crate) fn prepare(&self, planes: &mut Planes) {
        let len = self.rows * self.pitch + 2 * self.pitch + 2 + SLACK;
        for plane in [&mut planes.a, &mut planes.u, &mut planes.out] {
            plane.clear();
            plane.resize(len, 0.0);
        }
    }

    /// Fills the inside of `a`.
    fn fill(&self, planes: &mut Planes, point: Point, x: &[f32]) {
        let w = &self.window;
        vectorised(
            #[inline(always)]
            || {
                for (iy, x) in x.chunks_exact(w.x.input).enumerate() {
                    let at = (iy + w.y.before) * self.pitch + w.x.before;
                    point.apply(&mut planes.a[at..at + w.x.input], x);
                }
            },
        );
    }

    pub(crate) fn forward(
        &self,
        planes: &mut Planes,
        point: Point,
        y: &mut [f32],
        x: &[f32],
        weights: &[f32],
    ) {
        self.fill(planes, point, x);
        let (w, pitch) = (&self.window, self.pitch);
        let stride = w.x.stride;
        let Planes { a, out, .. } = planes;
        let sums = |out: &mut [f32], at: usize| nine(out, &a[at..], pitch, weights, false);
        if stride == 1 && w.x.output >= LONG_ROW {
            for (oy, y) in y.chunks_exact_mut(w.x.output).enumerate() {
                sums(y, oy * pitch);
            }
            return;
        }
        if stride == 1 {
            sums(&mut out[..w.y.output * pitch], 0);
        }
        for (oy, y) in y.chunks_exact_mut(w.x.output).enumerate() {
            if stride == 1 {
                y.copy_from_slice(&out[oy * pitch..][..w.x.output]);
            } else {
                let out = &mut out[..(w.x.output - 1) * stride + 1];
                sums(out, oy * stride * pitch);
                for (y, out) in y.iter_mut().zip(out.iter().step_by(stride)) {
                    *y = *out;
                }
            }
        }
    }

    /// Adds to `dw`, sets `dx`; returns the gradients of bias and slope.
    #[expect(clippy::too_many_arguments)]
    pub(crate) fn backward(
        &self,
        planes: &mut Planes,
        point: Point,
        x: &[f32],
        dy: &[f32],
        weights: &[f32],
        dx: &mut [f32],
        dw: &mut [f32],
    ) -> [f32; 2] {
        self.fill(planes, point, x);
        let (w, pitch, stride) = (&self.window, self.pitch, self.window.x.stride);
        let Planes { a, u, out } = planes;
        for (oy, dy) in dy.chunks_exact(w.x.output).enumerate() {
            let at = (oy * stride + 2) * pitch + 2;
            if stride == 1 {
                u[at..at + w.x.output].copy_from_slice(dy);
            } else {
                for (u, dy) in u[at..].iter_mut().step_by(stride).zip(dy) {
                    *u = *dy;
                }
            }
        }
        // Without zeros between rows all of a plane is one product, else each of its rows.
        let (parts, len) = if stride == 1 {
            (1, (w.y.output - 1) * pitch + w.x.output)
        } else {
            (w.y.output, (w.x.output - 1) * stride + 1)
        };
        for part in 0..parts {
            let at = part * stride * pitch;
            pulp::Arch::new().dispatch(Products {
                u: &u[at + 2 * pitch + 2..],
                a: &a[at..],
                pitch,
                len,
                dw,
            });
        }
        let start = w.y.before * pitch + w.x.before;
        if w.x.input >= LONG_ROW {
            for (iy, dx) in dx.chunks_exact_mut(w.x.input).enumerate() {
                nine(dx, &u[start + iy * pitch..], pitch, weights, true);
            }
        } else {
            let out = &mut out[..w.y.input * pitch];
            nine(out, &u[start..], pitch, weights, true);
            for (dx, out) in dx.chunks_exact_mut(w.x.input).zip(out.chunks_exact(pitch)) {
                dx.copy_from_slice(&out[..w.x.input]);
            }
        }
        vectorised(
            #[inline(always)]
            || point.backward(dx, x),
        )
    }
}

/// `out[t] = sum of w[ky][kx] a[t + ky pitch + kx]`, or with the taps in reverse order.
fn nine(out: &mut [f32], a: &[f32], pitch: usize, weights: &[f32], reverse: bool) {
    let mut w = [0.0f32; 9];
    w.copy_from_slice(&weights[..9]);
    if reverse {
        w.reverse();
    }
    pulp::Arch::new().dispatch(Sums { out, a, pitch, w });
}

/// Nine shifted rows of `a` from `n` values on.
#[inline(always)]
fn shifted(a: &[f32], pitch: usize, n: usize) -> [&[f32]; 9] {
    let mut rows = [a; 9];
    for (tap, row) in rows.iter_mut().enumerate() {
        *row = &a[tap / 3 * pitch + tap % 3..][..n];
    }
    rows
}

/// Rows as vectors; a loop, since a closure would be compiled for the least machine.
#[inline(always)]
fn vectors<S: Simd>(rows: [&[f32]; 9], count: usize) -> [&[S::f32s]; 9] {
    let mut result: [&[S::f32s]; 9] = [&[]; 9];
    for (result, row) in result.iter_mut().zip(rows) {
        *result = &S::as_simd_f32s(row).0[..count];
    }
    result
}

/// Sums of nine shifted rows.
struct Sums<'a> {
    out: &'a mut [f32],
    a: &'a [f32],
    pitch: usize,
    w: [f32; 9],
}

impl WithSimd for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let rows = shifted(self.a, self.pitch, self.out.len());
        let (out, rest) = S::as_mut_simd_f32s(self.out);
        let done = out.len();
        let [a0, a1, a2, a3, a4, a5, a6, a7, a8] = vectors::<S>(rows, done);
        let mut w = [simd.splat_f32s(0.0); 9];
        for (w, value) in w.iter_mut().zip(self.w) {
            *w = simd.splat_f32s(value);
        }
        for i in 0..done {
            let mut top = simd.mul_f32s(w[0], a0[i]);
            let mut bottom = simd.mul_f32s(w[1], a1[i]);
            top = simd.mul_add_f32s(w[2], a2[i], top);
            bottom = simd.mul_add_f32s(w[3], a3[i], bottom);
            top = simd.mul_add_f32s(w[4], a4[i], top);
            bottom = simd.mul_add_f32s(w[5], a5[i], bottom);
            top = simd.mul_add_f32s(w[6], a6[i], top);
            bottom = simd.mul_add_f32s(w[7], a7[i], bottom);
            top = simd.mul_add_f32s(w[8], a8[i], top);
            out[i] = simd.add_f32s(top, bottom);
        }
        let done = done * S::F32_LANES;
        for (i, out) in rest.iter_mut().enumerate() {
            let mut sum = 0.0;
            for (w, row) in self.w.iter().zip(rows) {
                sum += w * row[done + i];
            }
            *out = sum;
        }
    }
}

/// Nine inner products of `u` with shifted `a`.
struct Products<'a> {
    u: &'a [f32],
    a: &'a [f32],
    pitch: usize,
    len: usize,
    dw: &'a mut [f32],
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Whole vectors: after the last row `u` is zero.
        let n = self.len.next_multiple_of(S::F32_LANES);
        let (u, _) = S::as_simd_f32s(&self.u[..n]);
        let a = vectors::<S>(shifted(self.a, self.pitch, n), u.len());
        let mut sums = [simd.splat_f32s(0.0); 9];
        for (i, u) in u.iter().enumerate() {
            for tap in 0..9 {
                sums[tap] = simd.mul_add_f32s(*u, a[tap][i], sums[tap]);
            }
        }
        for (dw, sum) in self.dw.iter_mut().zip(sums) {
            *dw += simd.reduce_sum_f32s(sum);
        }
    }
}
