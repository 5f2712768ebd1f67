//! Windowed and global pooling.
//!
//! Max pooling ignores padding (a window without any input gives negative infinity). The mean is
//! a sum in window order, top-down and left to right, divided once.

use crate::shape::{View, ViewMut};
use crate::simd::{Isa, Simd, Work};
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
pub fn pool(
    isa: Isa,
    shape: &PoolShape,
    input: View<'_>,
    rows: Range<usize>,
    out: &mut ViewMut<'_>,
) {
    let (im, om) = (input.map, out.map);
    let (mut channels, mut widths) = (om.c, [im.w, om.w]);
    // Windows side by side that fill rows: the rows of all channels are one.
    let across = [shape.stride[1], shape.dilation[1], shape.pads[1]] == [shape.kernel[1], 1, 0];
    if across && [im.channel, om.channel, om.w * shape.stride[1]] == [im.w, om.w, im.w] {
        (channels, widths) = (1, [im.c * im.w, om.c * om.w]);
    }
    for n in 0..om.n {
        for (i, oy) in rows.clone().enumerate() {
            let (taps, count_y) = window(shape, 0, oy, im.h);
            for c in 0..channels {
                let to = om.at(n, c, i);
                let line = &mut out.data[to..to + widths[1]];
                let top = oy * shape.stride[0] + taps.start * shape.dilation[0];
                let from = input
                    .data
                    .get(im.at(n, c, top.saturating_sub(shape.pads[0]))..);
                let rows = Rows {
                    data: from.unwrap_or(&[]),
                    count: taps.len(),
                    step: shape.dilation[0] * im.row,
                    width: widths[0],
                };
                let mean = shape.kind == PoolKind::Average;
                let count = |(kx, count_x): (Range<usize>, usize)| match shape.count_include_pad {
                    true => (count_y * count_x).max(1) as f32,
                    false => (taps.len() * kx.len()).max(1) as f32,
                };
                let first = shape.pads[1].div_ceil(shape.stride[1]).min(line.len());
                let inner = (0..shape.kernel[1], shape.kernel[1]);
                let work = Windows {
                    shape,
                    rows,
                    first,
                    mean: mean.then(|| count(inner)),
                    line,
                };
                let end = match shape.stride[1] {
                    1 | 2 => isa.run(work),
                    _ => first,
                };
                for ox in (0..first).chain(end..widths[1]) {
                    let all = window(shape, 1, ox, widths[0]);
                    let (columns, x) = (all.0.clone(), ox * shape.stride[1]);
                    let values = rows.each().flat_map(|row| {
                        columns
                            .clone()
                            .map(move |kx| row[x + kx * shape.dilation[1] - shape.pads[1]])
                    });
                    line[ox] = match mean {
                        true => values.fold(0.0, |sum, v| sum + v) / count(all),
                        false => values.fold(f32::NEG_INFINITY, larger),
                    };
                }
            }
        }
    }
}

/// The rows of a channel that a window meets.
#[derive(Clone, Copy)]
struct Rows<'a> {
    /// From the first row on.
    data: &'a [f32],
    count: usize,
    /// Distance of two rows.
    step: usize,
    width: usize,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn each(self) -> impl Iterator<Item = &'a [f32]> {
        (0..self.count).map(move |i| &self.data[i * self.step..][..self.width])
    }
}

#[inline(always)]
fn larger(best: f32, v: f32) -> f32 {
    if v > best || v.is_nan() { v } else { best }
}

/// The largest values of windows from output column `first` on, in vectors as far as windows lie within the rows (the
/// last one may repeat some); answers the first column that is left. Stride 1 or 2.
struct Windows<'a, 'b> {
    shape: &'a PoolShape,
    rows: Rows<'a>,
    first: usize,
    /// Means instead: what the sum of a whole window is divided by.
    mean: Option<f32>,
    line: &'b mut [f32],
}

impl Work for Windows<'_, '_> {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> usize {
        let Windows {
            shape,
            rows,
            first,
            mean,
            line,
        } = self;
        let (stride, pad, len) = (shape.stride[1], shape.pads[1], line.len());
        // Columns that a vector reads beyond its first window's first one.
        let reach = (shape.kernel[1] - 1) * shape.dilation[1] + 7 * stride + 1;
        let mut column = first;
        if shape.kernel == [2, 2] && (stride, shape.dilation, rows.count, pad) == (2, [1, 1], 2, 0)
        {
            column = halves(simd, rows, mean, line);
        }
        while column < len && len >= first + 8 {
            let at = column.min(len - 8);
            let from = at * stride - pad;
            if from + reach > rows.width {
                break;
            }
            let mut best = simd.splat(if mean.is_some() {
                0.0
            } else {
                f32::NEG_INFINITY
            });
            for i in 0..rows.count {
                let row = &rows.data[i * rows.step..][..rows.width];
                for kx in 0..shape.kernel[1] {
                    let values = &row[from + kx * shape.dilation[1]..];
                    let values = match (stride, values.first_chunk::<16>()) {
                        (1, _) => simd.load(&values.as_chunks().0[0]),
                        (_, Some(pairs)) => simd.evens(pairs),
                        (_, None) => {
                            let mut pairs = [0.0; 16];
                            pairs[..15].copy_from_slice(&values[..15]);
                            simd.evens(&pairs)
                        }
                    };
                    best = match mean {
                        Some(_) => simd.add(best, values),
                        None => simd.max(best, values),
                    };
                }
            }
            let out = &mut line[at..at + 8].as_chunks_mut::<8>().0[0];
            simd.store(best, out);
            if let Some(count) = mean {
                for v in out {
                    *v /= count;
                }
            }
            column = at + 8;
        }
        column
    }
}

/// The usual case by itself: windows of 2x2 without padding, side by side.
#[inline(always)]
fn halves<S: Simd>(simd: S, rows: Rows<'_>, mean: Option<f32>, line: &mut [f32]) -> usize {
    // Odd columns are even ones from the second on, so one value more is read.
    let vectors = (rows.width.saturating_sub(1) / 16).min(line.len() / 8);
    let above = &rows.data[..16 * vectors + 1];
    let below = &rows.data[rows.step..][..16 * vectors + 1];
    for (j, out) in line.as_chunks_mut::<8>().0[..vectors]
        .iter_mut()
        .enumerate()
    {
        let above = &above[16 * j..][..17];
        let below = &below[16 * j..][..17];
        let mut best = simd.splat(if mean.is_some() {
            0.0
        } else {
            f32::NEG_INFINITY
        });
        for from in [&above[..16], &above[1..], &below[..16], &below[1..]] {
            let values = simd.evens(&from.as_chunks().0[0]);
            best = match mean {
                Some(_) => simd.add(best, values),
                None => simd.max(best, values),
            };
        }
        simd.store(best, out);
        if let Some(count) = mean {
            for v in out {
                *v /= count;
            }
        }
    }
    8 * vectors
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
                PoolKind::Max => rows
                    .flatten()
                    .fold(f32::NEG_INFINITY, |best, &v| larger(best, v)),
                PoolKind::Average => {
                    // Row sums first: shorter chains, smaller error.
                    let sum: f32 = rows.map(|row| row.iter().sum::<f32>()).sum();
                    sum / (map.h * map.w).max(1) as f32
                }
            };
        }
    }
}
