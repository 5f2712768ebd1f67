//! Packed input of the sparse kernels: every vector of 8 output columns has a line of its own.
//!
//! A load that crosses a cache line costs two, and neighbouring pixels of a 3x3 kernel would cross
//! one in every other load. So the columns that 8 neighbouring outputs can see are copied to a line
//! of 16 values (64 bytes): any tap within a reach of 8 columns is one load from within a line.
//!
//! ```text
//! [channel of the block][column phase][row phase][row][vector of 8 columns][16]
//! ```
//! Rows and columns are sorted by phase (y mod stride, x mod stride), so that the vectors of a band of
//! output rows follow each other at a distance of one line for every tap, across rows and whatever
//! the stride: kernels see one base per group of vectors and a constant offset per weight, of 16 bits. An
//! input element is stored twice.

use super::super::ConvShape;
use crate::shape::View;
use crate::simd::{Simd, Work};
use std::ops::Range;

/// Elements of a line.
pub(super) const LINE: usize = 16;
/// Offsets are below this.
const OFFSETS: usize = 1 << 16;
/// Elements of lines that the products of one group of vectors touch: 24 of 32 KiB of L1 cache.
const NEAR: usize = 6 * 1024;
/// Sets of an L1 cache of 32 KiB and 8 ways, and how many of them channels are apart.
const SETS: usize = 64;
const APART: usize = 16;
/// Vectors of a group for which [`NEAR`] is meant.
const GROUP: usize = 8;

/// The lines of a block of input channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lines {
    /// Input channels of a full block, the last one may have fewer.
    pub channels: usize,
    /// Output rows of a full band.
    pub rows: usize,
    /// Vectors of a row.
    pub vectors: usize,
    /// (vertical, horizontal) phases.
    phases: [usize; 2],
    /// Rows of a phase.
    phase_rows: usize,
    /// Columns that a tap can be away from a line's first one.
    reach: usize,
    /// Distance of two channels.
    channel: usize,
}

/// Rows and columns, divided by the stride, that taps reach beyond the first.
fn reach(shape: &ConvShape) -> [usize; 2] {
    [0, 1].map(|axis| {
        let taps = shape.kernel[axis].saturating_sub(1);
        taps.saturating_mul(shape.dilation[axis]) / shape.stride[axis].max(1)
    })
}

impl Lines {
    /// Whether lines hold what taps reach, and 16 bits the offsets.
    pub fn supports(shape: &ConvShape) -> bool {
        reach(shape)[1] <= 8 && Lines::sized(shape, 1, 1).channel <= OFFSETS
    }

    /// As many channels as stay in the L1 cache while a group of vectors is computed, and as many of `rows` output rows
    /// as `room` elements hold, and `sums` elements at `row_sums` for each row.
    pub fn new(shape: &ConvShape, rows: usize, room: usize, sums: usize, row_sums: usize) -> Lines {
        let one = Lines::sized(shape, 1, 1);
        let [py, px] = one.phases;
        let seen = GROUP.div_ceil(one.vectors) + reach(shape)[0];
        let near = py * px * seen * one.vectors.min(GROUP) * LINE;
        let inputs = shape.in_per_group().max(1);
        let most = (NEAR / near).min(OFFSETS / one.channel).clamp(1, inputs);
        let rows = rows.max(1);
        // Padding included.
        let row = one.vectors * py * px * LINE;
        let first = (reach(shape)[0] * row).saturating_add((APART * 2 + 1) * LINE);
        let rows_of = |channels: usize| {
            let most = (room.min(OFFSETS) / channels).saturating_sub(first) / row;
            most.min(sums / row_sums.max(1)).clamp(1, rows)
        };
        // Fewer channels rather than less than a group of vectors.
        let group = GROUP.div_ceil(one.vectors).min(rows);
        let mut blocks = inputs.div_ceil(most);
        while blocks < inputs && rows_of(inputs.div_ceil(blocks)) < group {
            blocks += 1;
        }
        let channels = inputs.div_ceil(blocks);
        let most = rows_of(channels);
        // Balanced, and in groups of four vectors if that fits: vectors left over are computed one by one.
        let balanced = rows.div_ceil(rows.div_ceil(most));
        let unit = (1..4)
            .find(|n| (n * one.vectors).is_multiple_of(4))
            .unwrap_or(4);
        let even = balanced.next_multiple_of(unit);
        let even = if even <= most {
            even
        } else {
            (most / unit * unit).max(balanced.min(unit))
        };
        Lines::sized(shape, channels, even)
    }

    fn sized(shape: &ConvShape, channels: usize, rows: usize) -> Lines {
        let [reach_y, reach_x] = reach(shape);
        let phases = [0, 1].map(|axis| {
            let taps = shape.kernel[axis].saturating_sub(1);
            let reach = taps.saturating_mul(shape.dilation[axis]);
            shape.stride[axis].min(reach.saturating_add(1)).max(1)
        });
        let vectors = shape.out_w.div_ceil(8).max(1);
        let phase_rows = rows.saturating_add(reach_y);
        let lines = vectors.saturating_mul(phases[0] * phases[1]);
        let lines = phase_rows.saturating_mul(lines);
        // Neighbouring channels must not share the sets of the L1 cache.
        let apart = (GROUP + reach_y * vectors.min(GROUP)).min(APART);
        let pad = match lines % SETS {
            set if set < apart => apart - set,
            set if set > SETS - apart => SETS - set + apart,
            _ => 0,
        };
        Lines {
            channels,
            rows,
            vectors,
            phases,
            phase_rows,
            reach: reach_x,
            channel: lines.saturating_add(pad).saturating_mul(LINE),
        }
    }

    /// Elements of a block.
    pub fn len(&self) -> usize {
        self.channels.saturating_mul(self.channel)
    }

    /// Distance from a vector's line to what tap `tap` of channel `c` of the block reads.
    pub fn offset(&self, shape: &ConvShape, c: usize, tap: usize) -> usize {
        let (ky, kx) = (tap / shape.kernel[1], tap % shape.kernel[1]);
        let (y, x) = (ky * shape.dilation[0], kx * shape.dilation[1]);
        let [sy, sx] = shape.stride;
        let phase = x % sx * self.phases[0] + y % sy;
        let row = phase * self.phase_rows + y / sy;
        c * self.channel + row * self.vectors * LINE + x / sx
    }
}

/// Copies the input of `channels` (of the whole input) for a band of output rows.
pub(super) struct Pack<'a> {
    pub lines: &'a Lines,
    pub shape: &'a ConvShape,
    pub input: View<'a>,
    pub channels: Range<usize>,
    pub band: Range<usize>,
    pub out: &'a mut [f32],
}

impl Work for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let (lines, shape) = (self.lines, self.shape);
        let sy = shape.stride[0];
        let top = (self.band.start * sy) as isize - shape.pad_top as isize;
        let row = lines.vectors * LINE;
        for phase in 0..lines.phases[0] {
            for r in 0..self.band.len() + lines.phase_rows - lines.rows {
                let y = top + (r * sy + phase) as isize;
                for px in 0..lines.phases[1] {
                    let at = ((px * lines.phases[0] + phase) * lines.phase_rows + r) * row;
                    if y < 0 || y as usize >= shape.in_h {
                        for c in 0..self.channels.len() {
                            self.out[c * lines.channel + at..][..row].fill(0.0);
                        }
                        continue;
                    }
                    let left = px as isize - shape.pad_left as isize;
                    self.row(simd, at, y as usize, left);
                }
            }
        }
    }
}

impl Pack<'_> {
    /// One row and phase of all channels, `left` being its first column.
    #[inline(always)]
    fn row<S: Simd>(&mut self, simd: S, at: usize, y: usize, left: isize) {
        let lines = self.lines;
        let (step, width) = (self.shape.stride[1], self.shape.in_w as isize);
        let first = self.input.map.at(0, self.channels.start, y) as isize;
        let halves = lines.vectors + usize::from(lines.reach > 0);
        let x = |half: usize| left + (half * 8 * step) as isize;
        // Lanes of a half that are within the row.
        let lanes = |half: usize| {
            let to = |to: isize| (to - x(half)).max(0).unsigned_abs().div_ceil(step).min(8);
            to(0)..to(width)
        };
        let whole = |half: &usize| lanes(*half).len() == 8;
        let low = (0..halves).find(whole).unwrap_or(halves);
        let high = (low..halves).find(|half| !whole(half)).unwrap_or(halves);
        for c in 0..self.channels.len() {
            // In the order of the input.
            let from = first + (c * self.input.map.channel) as isize;
            for half in low..high {
                let v = self.eight(simd, from + x(half), 0..8);
                self.store(simd, c * lines.channel + at, half, v);
            }
        }
        for half in (0..low).chain(high..halves) {
            let lanes = lanes(half);
            for c in 0..self.channels.len() {
                let zero = simd.splat(0.0);
                let v = if lanes.is_empty() {
                    zero
                } else {
                    let from = first + (c * self.input.map.channel) as isize + x(half);
                    let v = self.eight(simd, from, lanes.clone());
                    simd.blend(lanes.start, zero, simd.blend(lanes.end, v, zero))
                };
                self.store(simd, c * lines.channel + at, half, v);
            }
        }
    }

    /// 8 columns belong to the first half of a line and to the second of the one before.
    #[inline(always)]
    fn store<S: Simd>(&mut self, simd: S, row: usize, half: usize, v: S::V) {
        let lines = self.lines;
        let to = &mut self.out[row..][..lines.vectors * LINE];
        if half < lines.vectors {
            simd.store(v, &mut to[half * LINE..].as_chunks_mut().0[0]);
        }
        if half > 0 && lines.reach > 0 {
            simd.store(v, &mut to[half * LINE - 8..].as_chunks_mut().0[0]);
        }
    }

    /// Values `from`, one stride further and so on; only `lanes` need be right.
    #[inline(always)]
    fn eight<S: Simd>(&self, simd: S, from: isize, lanes: Range<usize>) -> S::V {
        let data = self.input.data;
        let all = usize::try_from(from).ok().and_then(|from| data.get(from..));
        let step = self.shape.stride[1];
        match (step, all) {
            (1, Some(head)) if head.len() >= 8 => simd.load(&head.as_chunks().0[0]),
            (2, Some(head)) if head.len() >= 16 => simd.evens(&head.as_chunks().0[0]),
            _ => {
                let mut short = [0.0; 8];
                for lane in lanes {
                    short[lane] = data[(from + (lane * step) as isize) as usize];
                }
                simd.load(&short)
            }
        }
    }
}
