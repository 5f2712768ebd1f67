//! Windowed and global pooling.
//!
//! Max pooling ignores padding (a window without any input gives negative infinity). The mean is
//! a sum in window order, top-down and left to right, divided once.

use crate::shape::{View, ViewMut};
use std::ops::Range;

/// The function of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// Largest value.
    Max,
    /// Mean.
    Average,
}

/// Geometry of a windowed pooling; the output's height and width are given by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolShape {
    /// The function.
    pub kind: PoolKind,
    /// (height, width) of the window.
    pub kernel: [usize; 2],
    /// (vertical, horizontal)
    pub stride: [usize; 2],
    /// (vertical, horizontal)
    pub dilation: [usize; 2],
    /// top, left, bottom, right
    pub pads: [usize; 4],
    /// Mean: positions in the padding (but not beyond it) count in the divisor.
    pub count_include_pad: bool,
}

/// Output rows `rows` of every image and channel: `out.map.h == rows.len()`, `out.data` starts at
/// row `rows.start`.
pub fn pool(shape: &PoolShape, input: View<'_>, rows: Range<usize>, out: &mut ViewMut<'_>) {
    let (im, om) = (input.map, out.map);
    for n in 0..om.n {
        for (i, oy) in rows.clone().enumerate() {
            let (taps, count_y) = window(shape, 0, oy, im.h);
            for c in 0..om.c {
                let to = om.at(n, c, i);
                let line = &mut out.data[to..to + om.w];
                let lines = taps.clone().map(|ky| {
                    let y = oy * shape.stride[0] + ky * shape.dilation[0] - shape.pads[0];
                    &input.data[im.at(n, c, y)..][..im.w]
                });
                match shape.kind {
                    PoolKind::Max => {
                        line.fill(f32::NEG_INFINITY);
                        lines.for_each(|row| {
                            each_tap(shape, row, line, |best, v| {
                                if v > best || v.is_nan() { v } else { best }
                            });
                        });
                    }
                    PoolKind::Average => {
                        line.fill(0.0);
                        lines.for_each(|row| each_tap(shape, row, line, |sum, v| sum + v));
                        for (ox, value) in line.iter_mut().enumerate() {
                            let (kx, count_x) = window(shape, 1, ox, im.w);
                            let inside = taps.len() * kx.len();
                            let padded = count_y * count_x;
                            let count = if shape.count_include_pad {
                                padded
                            } else {
                                inside
                            };
                            *value /= count.max(1) as f32;
                        }
                    }
                }
            }
        }
    }
}

/// Folds the columns of one input row into an output row, tap by tap: long inner loops, and the
/// same order for every element.
fn each_tap(shape: &PoolShape, row: &[f32], line: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    let (stride, pad) = (shape.stride[1], shape.pads[1]);
    for kx in 0..shape.kernel[1] {
        let shift = kx * shape.dilation[1];
        // Output columns whose tap falls into the input.
        let first = pad.saturating_sub(shift).div_ceil(stride);
        let end = (row.len() + pad)
            .saturating_sub(shift)
            .div_ceil(stride)
            .min(line.len());
        if first >= end {
            continue;
        }
        let from = &row[first * stride + shift - pad..];
        let line = &mut line[first..end];
        if stride == 1 {
            line.iter_mut().zip(from).for_each(|(l, &v)| *l = f(*l, v));
        } else {
            line.iter_mut()
                .zip(from.iter().step_by(stride))
                .for_each(|(l, &v)| *l = f(*l, v));
        }
    }
}

/// The taps of a window that fall into the input, and how many fall into input or padding.
fn window(shape: &PoolShape, axis: usize, o: usize, len: usize) -> (Range<usize>, usize) {
    let (kernel, dilation) = (shape.kernel[axis], shape.dilation[axis]);
    let (before, after) = (shape.pads[axis], shape.pads[axis + 2]);
    let start = o * shape.stride[axis];
    let below = |limit: usize| limit.saturating_sub(start).div_ceil(dilation).min(kernel);
    let first = below(before);
    let last = below(before + len).max(first);
    (first..last, below(before + len + after))
}

/// One value per image and channel, `out[n * c_count + c]`.
pub fn global_pool(kind: PoolKind, input: View<'_>, out: &mut [f32]) {
    let map = input.map;
    for n in 0..map.n {
        for c in 0..map.c {
            let rows = (0..map.h).map(|h| &input.data[map.at(n, c, h)..][..map.w]);
            out[n * map.c + c] = match kind {
                PoolKind::Max => rows.flatten().fold(f32::NEG_INFINITY, |best, &v| {
                    if v > best || v.is_nan() { v } else { best }
                }),
                PoolKind::Average => {
                    // Row sums first: shorter chains, smaller error.
                    let sum: f32 = rows.map(|row| row.iter().sum::<f32>()).sum();
                    sum / (map.h * map.w).max(1) as f32
                }
            };
        }
    }
}
