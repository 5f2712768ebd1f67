//! Depthwise 3x3, stride 1 or 2, straight from the map in registers of 8 f32: no packing.
//!
//! Vectors of the three columns of taps are loaded where they lie, once for two output rows (one
//! load serves up to two multiply-adds); the nine weights stay in registers. The last vector of a row is moved back to end with
//! it. Vectors at the ends of a row are masked to zero where the padding is, rows above and below the map are zeros. It is bound by
//! loads, of which every other one straddles cache lines, and needs rows of at least 8 outputs. Same chains and bits as
//! `depthwise_lanes.rs`.

use super::ConvShape;
use super::blocks::K_BLOCK;
use super::store::{Lasts, Target};
use crate::shape::View;
use crate::simd::{Isa, Simd, Work};
use crate::weights::PANEL;
use std::ops::Range;

/// Taps.
pub(super) const NINE: usize = 9;
/// Output rows at a time.
const ROWS: usize = 2;
/// Most input rows that they see.
const SEEN: usize = 5;
/// Most values of an input row, with one before and one behind it: beyond, buffers would outgrow the L1 cache.
const LINE: usize = 1026;

/// Whether this can compute `rows` rows of a layer, which are not added to what is there.
pub(super) fn fits(isa: Isa, shape: &ConvShape, rows: usize) -> bool {
    let [stride, across] = shape.stride;
    isa.is_fast()
        && shape.kernel == [3, 3]
        && shape.dilation == [1, 1]
        && stride == across
        && shape.pad_left == 1
        && shape.out_per_group() == 1
        && matches!(stride, 1 | 2)
        && shape.out_w >= 8
        && line(shape) <= LINE
        && shape.out_w == shape.in_w.div_ceil(stride)
        && rows >= ROWS
}

/// Whether rows are so long that this is faster than registers of 16: with stride 1, 24 and 26 instead of 18 and 21 G multiply-adds
/// a second on 56x56 and 112x112, but 18 instead of 27 on 28x28 (Zen 4).
pub(super) fn is_wide(shape: &ConvShape) -> bool {
    shape.stride[1] == 1 && shape.out_w > 32
}

/// Values that two rows of the output see of a row.
fn line(shape: &ConvShape) -> usize {
    shape.out_w.saturating_mul(shape.stride[1]) + 2
}

/// Panels whose weights fit into a block of them.
pub(super) const PANELS: usize = K_BLOCK / NINE;

/// Rows of the output of at most [`PANELS`] panels, at least two: the band of the target, in all columns. Rows are outside,
/// channels inside: the order in memory.
pub(super) struct Direct<'a, 'b, 'c> {
    /// Nine rows for each panel.
    pub weights: &'a [[f32; PANEL]],
    pub input: View<'a>,
    pub shape: &'a ConvShape,
    pub channels: Range<usize>,
    pub target: &'a mut Target<'b, 'c>,
}

impl Direct<'_, '_, '_> {
    /// Two rows after the other; what [`fits`] says.
    pub fn run(self, isa: Isa) {
        let Direct {
            weights,
            input,
            shape,
            channels,
            target,
        } = self;
        let lasts = Lasts::new(target.epilogue, channels.clone());
        let (rows, map) = (target.band.rows.clone(), target.out.map);
        let (stride, line) = (shape.stride[0], line(shape));
        let zeros = [0.0; LINE];
        for first in rows.clone().step_by(ROWS) {
            // The last row may be computed twice.
            let first = first.min(rows.end - ROWS);
            let seen = (0..stride + 3).map(|i| {
                let y = (stride * first + i).checked_sub(shape.pad_top);
                let y = y.filter(|&y| y < shape.in_h)?;
                Some(input.map.at(0, channels.start, y))
            });
            let places = |row| map.at(0, channels.start, first + row - target.first_row);
            let pair = Pair {
                weights,
                lasts: &lasts,
                shape,
                places: std::array::from_fn(places),
                stride: map.channel,
            };
            let out = &mut *target.out.data;
            // Channels all whose lines have values before and behind them; those of the map's first and last row have not.
            let mut inside = 0..channels.len();
            for at in seen.clone().flatten() {
                let last = channels.len() - 1;
                inside.start = inside.start.max(usize::from(at == 0));
                if at + last * input.map.channel + line > input.data.len() + 1 {
                    inside.end = inside.end.min(last);
                }
            }
            let ends = [0..inside.start, inside.end..channels.len()];
            for channel in ends.into_iter().flatten() {
                let mut copies = [[0.0; LINE]; SEEN];
                for (at, copy) in seen.clone().zip(&mut copies) {
                    if let Some(at) = at {
                        let at = at + channel * input.map.channel;
                        let from = &input.data[at.saturating_sub(1)..];
                        let to = &mut copy[usize::from(at == 0)..line];
                        let len = from.len().min(to.len());
                        to[..len].copy_from_slice(&from[..len]);
                    }
                }
                let lines = Lines {
                    lines: copies.each_ref().map(|copy| &copy[..]),
                    steps: [0; SEEN],
                    channels: channel..channel + 1,
                };
                pair.run(isa, lines, out);
            }
            let mut lines = Lines {
                lines: [&zeros; SEEN],
                steps: [0; SEEN],
                channels: inside.clone(),
            };
            for (i, at) in seen.enumerate() {
                if let Some(at) = at {
                    let start = at + inside.start * input.map.channel;
                    lines.lines[i] = input.data.get(start - 1..).unwrap_or_default();
                    lines.steps[i] = input.map.channel;
                }
            }
            pair.run(isa, lines, out);
        }
        if let Some(epilogue) = target.epilogue.filter(|e| !e.is_simple()) {
            for row in 0..rows.len() {
                for channel in channels.clone() {
                    let out = &mut target.place(channel, row, 0)[..shape.out_w];
                    epilogue.apply(channel, out);
                }
            }
        }
    }
}

/// Two output rows.
struct Pair<'a> {
    weights: &'a [[f32; PANEL]],
    lasts: &'a Lasts<{ PANELS * PANEL }>,
    shape: &'a ConvShape,
    /// Where the rows of channel 0 begin, and how far it is to the next channel.
    places: [usize; ROWS],
    stride: usize,
}

/// The input rows that they see in some channels.
struct Lines<'a> {
    /// From the value before the first one of the first of these channels on.
    lines: [&'a [f32]; SEEN],
    /// How far it is to the next channel.
    steps: [usize; SEEN],
    channels: Range<usize>,
}

impl Pair<'_> {
    fn run(&self, isa: Isa, lines: Lines<'_>, out: &mut [f32]) {
        if self.shape.stride[0] == 1 {
            isa.run(Stride::<1>(self, lines, out));
        } else {
            isa.run(Stride::<2>(self, lines, out));
        }
    }
}

/// Both rows of these channels; `T` is the stride.
struct Stride<'a, const T: usize>(&'a Pair<'a>, Lines<'a>, &'a mut [f32]);

impl<const T: usize> Work for Stride<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if !S::FAST {
            return;
        }
        let Stride(pair, from, out) = self;
        let (in_w, width) = (pair.shape.in_w, pair.shape.out_w);
        let len = line(pair.shape);
        let (low, high) = pair.lasts.limits.unwrap_or_default();
        let mut sums = [[[0.0; 8]; LINE / 8]; ROWS];
        let last = (width - 1) / 8;
        for (at, channel) in from.channels.enumerate() {
            let own = &pair.weights[channel / PANEL * NINE..][..NINE];
            let mut w = [simd.splat(0.0); NINE];
            for k in 0..NINE {
                w[k] = simd.splat(own[k][channel % PANEL]);
            }
            let mut lines = from.lines;
            for i in 0..T + 3 {
                lines[i] = &from.lines[i][at * from.steps[i]..][..len];
            }
            for vector in [0, last] {
                let column = (vector * 8).min(width - 8);
                let right = (in_w - T * column - 1).div_ceil(T).min(8);
                let ends = [usize::from(column == 0), right];
                let both = two_rows::<S, T, true>(simd, &w, lines, column, ends);
                for row in 0..ROWS {
                    simd.store(both[row], &mut sums[row][vector]);
                }
            }
            for vector in 1..last {
                let both = two_rows::<S, T, false>(simd, &w, lines, vector * 8, [0, 8]);
                for row in 0..ROWS {
                    simd.store(both[row], &mut sums[row][vector]);
                }
            }
            // By themselves, so that the weights stay in registers. `Lasts::of_channel` for every vector is a tenth slower.
            let bias = simd.splat(pair.lasts.bias[channel]);
            let slope = simd.splat(pair.lasts.slope[channel]);
            for row in 0..ROWS {
                let out = &mut out[pair.places[row] + channel * pair.stride..][..width];
                for (vector, sums) in sums[row][..=last].iter().enumerate() {
                    let column = (vector * 8).min(width - 8);
                    let v = simd.add(simd.load(sums), bias);
                    let v = if pair.lasts.limits.is_some() {
                        simd.at_most(simd.at_least(v, simd.splat(low)), simd.splat(high))
                    } else {
                        simd.select_less(v, simd.splat(0.0), simd.mul(slope, v), v)
                    };
                    let out = &mut out[column..column + 8];
                    simd.store(v, &mut out.as_chunks_mut().0[0]);
                }
            }
        }
    }
}

/// A vector of both rows from column `column` on. Of the columns of taps on the left the first `left` values are padding, on the
/// right those from `right` on: with stride 2 one at most.
#[inline(always)]
fn two_rows<S: Simd, const T: usize, const ENDS: bool>(
    simd: S,
    weights: &[S::V; NINE],
    lines: [&[f32]; SEEN],
    column: usize,
    [left, right]: [usize; 2],
) -> [S::V; ROWS] {
    let zero = simd.splat(0.0);
    let mut acc = [zero; ROWS];
    for i in 0..T + 3 {
        let row = &lines[i][T * column..][..T * 8 + 2];
        let mut taps = [zero; 3];
        for j in 0..3 {
            taps[j] = load::<S, T>(simd, &row[j..][..T * 8]);
        }
        if ENDS {
            taps[0] = simd.blend(left, zero, taps[0]);
            taps[2] = simd.blend(right, taps[2], zero);
        }
        for out in 0..ROWS {
            if i >= T * out && i < T * out + 3 {
                let w = 3 * (i - T * out);
                for j in 0..3 {
                    acc[out] = simd.mul_add(weights[w + j], taps[j], acc[out]);
                }
            }
        }
    }
    if T == 2 {
        acc = acc.map(|sums| simd.in_order(sums));
    }
    acc
}

/// 8 values, `T` apart; with stride 2 in the order of [`Simd::evens_apart`], whose first and last value are in their places.
#[inline(always)]
fn load<S: Simd, const T: usize>(simd: S, from: &[f32]) -> S::V {
    match T {
        1 => simd.load(&from.as_chunks().0[0]),
        _ => simd.evens_apart(&from.as_chunks().0[0]),
    }
}
