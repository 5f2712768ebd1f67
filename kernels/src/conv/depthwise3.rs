//! Depthwise 3x3, stride 1 or 2, straight from the map: no packing.
//!
//! Vectors of the three columns of taps are loaded where they lie, once for two output rows (one
//! load serves up to two multiply-adds); the nine weights stay in registers. Vectors at the ends of
//! a row are masked to zero where the padding is. Output rows that meet padding above or below are
//! left to `depthwise.rs`. Half of the time goes into the multiply-adds, a fourth into the ends of
//! rows. Same chains and bits as there.

use super::ConvShape;
use super::blocks::K_BLOCK;
use super::store::Target;
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
/// Values that a vector sees of a row.
const WINDOW: usize = 18;
/// Columns of rows that are worth it: on narrower ones the ends of rows weigh too much.
const MIN_COLUMNS: usize = 33;
/// Columns whose sums are made before they are stored.
const COLUMNS: usize = 512;

/// The output rows among `rows` that this can do; none if the layer is another one.
pub(super) fn rows(isa: Isa, shape: &ConvShape, rows: &Range<usize>) -> Range<usize> {
    let [stride, across] = shape.stride;
    let fits = shape.kernel == [3, 3]
        && shape.dilation == [1, 1]
        && stride == across
        && shape.pad_left == 1
        && shape.out_per_group() == 1
        && matches!(stride, 1 | 2)
        && shape.out_w >= MIN_COLUMNS
        && shape.out_w == shape.in_w.div_ceil(stride);
    let first = shape.pad_top.div_ceil(stride.max(1)).max(rows.start);
    let end = (shape.in_h + shape.pad_top + stride).saturating_sub(3) / stride.max(1);
    let end = end.min(rows.end);
    if fits && isa.is_fast() && first + ROWS <= end {
        first..end
    } else {
        rows.start..rows.start
    }
}

/// Panels whose weights fit into a block of them.
pub(super) const PANELS: usize = K_BLOCK / NINE;

/// Rows of the output of at most [`PANELS`] panels, at least two: the band of the target, in all columns. Rows are outside,
/// channels inside: the order in memory.
pub(super) struct Direct<'a, 'b, 'c> {
    pub isa: Isa,
    /// Nine rows for each panel.
    pub weights: &'a [[f32; PANEL]],
    pub input: View<'a>,
    pub shape: &'a ConvShape,
    pub channels: Range<usize>,
    pub target: &'a mut Target<'b, 'c>,
}

impl Work for Direct<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if !S::FAST {
            return;
        }
        let Direct {
            isa,
            weights,
            input,
            shape,
            channels,
            target,
        } = self;
        let stride = shape.stride[0];
        let height = target.band.rows.len();
        let mut sums = [[0.0; COLUMNS]; ROWS];
        let mut own = [[0.0; NINE]; PANELS * PANEL];
        for (panel, own) in weights.chunks(NINE).zip(own.chunks_mut(PANEL)) {
            for (lane, own) in own.iter_mut().enumerate() {
                for (w, of) in own.iter_mut().zip(panel) {
                    *w = of[lane];
                }
            }
        }
        for row in (0..height).step_by(ROWS) {
            // The last row may come with the one before it, whose sums are thrown away.
            let first = row.min(height - ROWS);
            let top = stride * (target.band.rows.start + first) - shape.pad_top;
            for (weights, channel) in own.iter().zip(channels.clone()) {
                let pair = Pair {
                    isa,
                    weights,
                    data: input.data,
                    from: input.map.at(0, channel, top),
                    step: input.map.row,
                    in_w: shape.in_w,
                };
                for column in (0..shape.out_w).step_by(COLUMNS) {
                    let len = COLUMNS.min(shape.out_w - column);
                    if stride == 1 {
                        pair.sums::<S, 1>(simd, column, len, &mut sums);
                    } else {
                        pair.sums::<S, 2>(simd, column, len, &mut sums);
                    }
                    for (i, sums) in sums.iter().enumerate().skip(row - first) {
                        target.finish(isa, channel, [first + i, column, len], sums);
                    }
                }
            }
        }
    }
}

/// Two output rows of a channel.
struct Pair<'a> {
    isa: Isa,
    weights: &'a [f32; NINE],
    data: &'a [f32],
    /// Where the first input row begins, and the distance to the next.
    from: usize,
    step: usize,
    in_w: usize,
}

impl Pair<'_> {
    /// Sums of `len` columns from `column` on; `T` is the stride.
    #[inline(always)]
    fn sums<S: Simd, const T: usize>(
        &self,
        simd: S,
        column: usize,
        len: usize,
        sums: &mut [[f32; COLUMNS]; ROWS],
    ) {
        let mut weights = [simd.splat(0.0); NINE];
        for (to, w) in weights.iter_mut().zip(self.weights) {
            *to = simd.splat(*w);
        }
        let [above, below] = sums.each_mut().map(|sums| sums.as_chunks_mut::<8>().0);
        // Vectors between `first` and `end` see nothing beyond the row.
        let vectors = len.div_ceil(8);
        let first = usize::from(column == 0);
        let whole = (self.in_w / T).saturating_sub(column + 1) / 8;
        let end = whole.clamp(first, vectors);
        for j in (0..first).chain(end..vectors) {
            let column = T * (column + j * 8);
            let mut ends = [[0.0; WINDOW]; SEEN];
            let mut rows = [&[][..]; SEEN];
            for (i, (row, end)) in rows[..T + 3].iter_mut().zip(&mut ends).enumerate() {
                *row = self.window::<T>(self.from + i * self.step + column, end);
            }
            let left = usize::from(column == 0);
            let right = (self.in_w - column - 1).div_ceil(T).min(8);
            let acc = two_rows::<S, T, true>(simd, &weights, rows, [left, right]);
            simd.store(acc[0], &mut above[j]);
            simd.store(acc[1], &mut below[j]);
        }
        if first >= end {
            return;
        }
        let mut lines = [&[][..]; SEEN];
        for (i, line) in lines[..T + 3].iter_mut().enumerate() {
            let from = self.from + i * self.step + T * (column + first * 8) - 1;
            *line = &self.data[from..][..T * 8 * (end - first) + 2];
        }
        self.isa.run(Between::<T> {
            weights: self.weights,
            lines,
            above: &mut above[first..end],
            below: &mut below[first..end],
        });
    }

    /// What a vector sees of a row: `at` is the place of its middle column of taps.
    #[inline(always)]
    fn window<'w, const T: usize>(&'w self, at: usize, end: &'w mut [f32; WINDOW]) -> &'w [f32] {
        let len = T * 8 + 2;
        if at > 0 && at - 1 + len <= self.data.len() {
            return &self.data[at - 1..][..len];
        }
        // The row lies at an end of the map.
        copy(self.data, at, end);
        &end[..len]
    }
}

/// The vectors that see nothing beyond the rows. By itself, so that weights stay in registers.
struct Between<'a, const T: usize> {
    weights: &'a [f32; NINE],
    lines: [&'a [f32]; SEEN],
    above: &'a mut [[f32; 8]],
    below: &'a mut [[f32; 8]],
}

impl<const T: usize> Work for Between<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if !S::FAST {
            return;
        }
        let mut weights = [simd.splat(0.0); NINE];
        for (to, w) in weights.iter_mut().zip(self.weights) {
            *to = simd.splat(*w);
        }
        for (j, (above, below)) in self.above.iter_mut().zip(self.below).enumerate() {
            let mut rows = self.lines;
            for row in &mut rows[..T + 3] {
                *row = &row[T * 8 * j..][..T * 8 + 2];
            }
            let acc = two_rows::<S, T, false>(simd, &weights, rows, [0, 8]);
            simd.store(acc[0], above);
            simd.store(acc[1], below);
        }
    }
}

/// Copies the values from the one before `at` on, zeros where there are none.
#[cold]
#[inline(never)]
fn copy(data: &[f32], at: usize, to: &mut [f32; WINDOW]) {
    let skipped = usize::from(at == 0);
    let there = &data[at + skipped - 1..];
    for (to, value) in to[skipped..].iter_mut().zip(there) {
        *to = *value;
    }
}

/// A vector of both rows. Of the columns of taps on the left the first `left` values are padding, on the right those from
/// `right` on.
#[inline(always)]
fn two_rows<S: Simd, const T: usize, const ENDS: bool>(
    simd: S,
    weights: &[S::V; NINE],
    rows: [&[f32]; SEEN],
    [left, right]: [usize; 2],
) -> [S::V; ROWS] {
    let mut acc = [simd.splat(0.0); ROWS];
    for i in 0..T + 3 {
        let row = rows[i];
        let mut taps = [
            load::<S, T>(simd, &row[..T * 8]),
            load::<S, T>(simd, &row[1..T * 8 + 1]),
            load::<S, T>(simd, &row[2..T * 8 + 2]),
        ];
        if ENDS {
            let zero = simd.splat(0.0);
            taps[0] = simd.blend(left, zero, taps[0]);
            taps[2] = simd.blend(right, taps[2], zero);
        }
        for out in 0..ROWS {
            if i >= T * out && i < T * out + 3 {
                let w = 3 * (i - T * out);
                acc[out] = simd.mul_add(weights[w], taps[0], acc[out]);
                acc[out] = simd.mul_add(weights[w + 1], taps[1], acc[out]);
                acc[out] = simd.mul_add(weights[w + 2], taps[2], acc[out]);
            }
        }
    }
    acc
}

/// 8 values, `T` apart.
#[inline(always)]
fn load<S: Simd, const T: usize>(simd: S, from: &[f32]) -> S::V {
    match T {
        1 => simd.load(&from.as_chunks().0[0]),
        _ => simd.evens(&from.as_chunks().0[0]),
    }
}
