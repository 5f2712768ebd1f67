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
            let (ky, count_y) = window(shape, 0, oy, im.h);
            for c in 0..om.c {
                let to = om.at(n, c, i);
                let line = &mut out.data[to..to + om.w];
                for (ox, value) in line.iter_mut().enumerate() {
                    let (kx, count_x) = window(shape, 1, ox, im.w);
                    let taps_y = ky.clone().map(|k| source(shape, 0, oy, k));
                    *value = match shape.kind {
                        PoolKind::Max => {
                            let mut best = f32::NEG_INFINITY;
                            for y in taps_y {
                                let row = &input.data[im.at(n, c, y)..][..im.w];
                                for k in kx.clone() {
                                    let v = row[source(shape, 1, ox, k)];
                                    best = if v > best || v.is_nan() { v } else { best };
                                }
                            }
                            best
                        }
                        PoolKind::Average => {
                            let mut sum = 0f32;
                            for y in taps_y {
                                let row = &input.data[im.at(n, c, y)..][..im.w];
                                for k in kx.clone() {
                                    sum += row[source(shape, 1, ox, k)];
                                }
                            }
                            let count = if shape.count_include_pad {
                                count_y * count_x
                            } else {
                                ky.len() * kx.len()
                            };
                            sum / count.max(1) as f32
                        }
                    };
                }
            }
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

/// Input index of a tap that falls into the input.
fn source(shape: &PoolShape, axis: usize, o: usize, k: usize) -> usize {
    o * shape.stride[axis] + k * shape.dilation[axis] - shape.pads[axis]
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
