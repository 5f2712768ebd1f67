//! Packed input of the sparse kernels: for every column of taps a copy, so that every load is one whole cache line.
//!
//! A load that crosses a cache line costs two, and neighbouring taps of a row would cross one nearly always with
//! vectors as long as a line. So 16 neighbouring outputs, one line of 64 bytes, see every column of taps in a copy of their
//! own, shifted by it; 16 outputs are one row, or two or four where rows are narrow (`height`), whichever leaves the fewest
//! lanes empty. A tile of up to 12 such vectors, one below the other, sees few rows beyond its own, so that a block of many
//! input channels fits into the L1 cache.
//!
//! ```text
//! [channel of the block][column of taps][row phase][group of rows][16]
//! ```
//! Rows are sorted by phase (y mod stride times height), so that the vectors of a tile follow each other for every tap,
//! whatever the stride: kernels see one base per group of vectors and a constant offset per weight, of 16 bits, in lines. An
//! input element is stored as often as the kernel has columns (over the stride), times up to `height`.

use super::super::ConvShape;
use crate::shape::View;
use crate::simd::{Simd, Work};
use std::ops::Range;

/// Elements of a line.
pub(super) const LINE: usize = 16;
/// Most vectors of a tile.
pub(super) const TILE: usize = 12;
/// Offsets are below this.
const OFFSETS: usize = 1 << 16;
/// Lines of a block: 32 KiB, the L1 cache or two thirds of it.
const NEAR: usize = 512;

/// The lines of a block of input channels, for a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lines {
    /// Input channels of a full block, the last one may have fewer.
    pub channels: usize,
    /// Output rows of a vector: 1, 2 or 4.
    pub height: usize,
    /// Row phases.
    phases: usize,
    /// Groups of rows of a phase.
    groups: usize,
    /// Distance of two channels, in lines.
    channel: usize,
}

/// Rows that taps reach below the first.
fn reach(shape: &ConvShape) -> usize {
    let taps = shape.kernel[0].saturating_sub(1);
    taps.saturating_mul(shape.dilation[0])
}

impl Lines {
    /// Whether 16 bits hold the offsets.
    pub fn supports(shape: &ConvShape) -> bool {
        Lines::new(shape).channel <= OFFSETS
    }

    /// As many channels as stay in the L1 cache.
    pub fn new(shape: &ConvShape) -> Lines {
        // Lanes of vectors of `height` rows.
        let lanes = |height: &usize| {
            let columns = shape.out_w.max(1).next_multiple_of(LINE / height);
            columns.saturating_mul(shape.out_h.max(1).next_multiple_of(*height))
        };
        let height = [1, 2, 4].into_iter().min_by_key(lanes).unwrap_or(1);
        let mut lines = Lines {
            channels: 1,
            height,
            phases: 1,
            groups: 1,
            channel: 1,
        };
        let (reach, step) = (reach(shape), lines.step(shape));
        lines.phases = step.min(reach.saturating_add(1));
        let groups = shape.out_h.div_ceil(height).clamp(1, TILE);
        lines.groups = groups.saturating_add(reach / step);
        let copies = lines.phases.saturating_mul(shape.kernel[1].max(1));
        lines.channel = copies.saturating_mul(lines.groups);
        let inputs = shape.in_per_group().max(1);
        let near = std::env::var("NEAR").ok().and_then(|v| v.parse().ok()).unwrap_or(NEAR);
        let most = (near / lines.channel).clamp(1, inputs);
        lines.channels = inputs.div_ceil(inputs.div_ceil(most));
        lines
    }

    /// Input rows between two vectors.
    fn step(&self, shape: &ConvShape) -> usize {
        self.height.saturating_mul(shape.stride[0]).max(1)
    }

    /// Columns of a vector.
    pub fn width(&self) -> usize {
        LINE / self.height
    }

    /// Most vectors of a tile of so many rows.
    pub fn most(&self, rows: usize) -> usize {
        rows.div_ceil(self.height).min(TILE)
    }

    /// Elements of a block.
    pub fn len(&self) -> usize {
        let lines = self.channels.saturating_mul(self.channel);
        lines.saturating_mul(LINE)
    }

    /// Lines from a vector's first one to what tap `tap` of channel `c` of the block reads.
    pub fn offset(&self, shape: &ConvShape, c: usize, tap: usize) -> usize {
        let (ky, kx) = (tap / shape.kernel[1], tap % shape.kernel[1]);
        let (y, step) = (ky * shape.dilation[0], self.step(shape));
        let copy = kx * self.phases + y % step;
        c * self.channel + copy * self.groups + y / step
    }
}

/// Vectors below each other.
#[derive(Clone, Debug)]
pub(super) struct Tile {
    /// Output rows.
    pub rows: Range<usize>,
    /// The first output column.
    pub column: usize,
}

/// Copies the input of `channels` (of the whole input) for a tile.
pub(super) struct Pack<'a> {
    pub lines: &'a Lines,
    pub shape: &'a ConvShape,
    pub input: View<'a>,
    pub channels: Range<usize>,
    pub tile: &'a Tile,
    pub out: &'a mut [f32],
}

impl Work for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let (lines, shape) = (self.lines, self.shape);
        let (step, rows) = (lines.step(shape), &self.tile.rows);
        let top = (rows.start * shape.stride[0]) as isize - shape.pad_top as isize;
        let left = (self.tile.column * shape.stride[1]) as isize - shape.pad_left as isize;
        // The last input row that is seen.
        let last = (rows.len().div_ceil(lines.height) - 1) * step + reach(shape);
        for phase in 0..lines.phases {
            for group in (0..).take_while(|group| group * step + phase <= last) {
                for row in 0..lines.height {
                    let y = top + (group * step + phase + row * shape.stride[0]) as isize;
                    for kx in 0..shape.kernel[1] {
                        let at = (kx * lines.phases + phase) * lines.groups + group;
                        let at = at * LINE + row * lines.width();
                        let left = left + (kx * shape.dilation[1]) as isize;
                        for eight in (0..lines.width()).step_by(8) {
                            let x = left + (eight * shape.stride[1]) as isize;
                            self.column(simd, at + eight, y, x);
                        }
                    }
                }
            }
        }
    }
}

impl Pack<'_> {
    /// Eight columns, or the four of a narrow vector, of all channels.
    #[inline(always)]
    fn column<S: Simd>(&mut self, simd: S, at: usize, y: isize, x: isize) {
        let (step, width) = (self.shape.stride[1], self.shape.in_w as isize);
        // Lanes that are within the map.
        let there = y >= 0 && (y as usize) < self.shape.in_h;
        let to = |to: isize| (to - x).max(0).unsigned_abs().div_ceil(step).min(8);
        let lanes = to(0)..if there { to(width) } else { to(0) };
        let pitch = self.lines.channel * LINE;
        let out = self.out[at..].chunks_mut(pitch).take(self.channels.len());
        if lanes.is_empty() {
            out.for_each(|out| self.lines.store(simd, simd.splat(0.0), out));
            return;
        }
        let y = y.max(0) as usize;
        let from = self.input.map.at(0, self.channels.start, y) as isize + x;
        for (c, out) in out.enumerate() {
            let from = from + (c * self.input.map.channel) as isize;
            let mut v = eight(simd, self.input.data, from, step, lanes.clone());
            if lanes.len() < 8 {
                let zero = simd.splat(0.0);
                v = simd.blend(lanes.start, zero, simd.blend(lanes.end, v, zero));
            }
            self.lines.store(simd, v, out);
        }
    }
}

impl Lines {
    #[inline(always)]
    fn store<S: Simd>(&self, simd: S, v: S::V, out: &mut [f32]) {
        if self.height < 4 {
            simd.store(v, &mut out[..8].as_chunks_mut().0[0]);
            return;
        }
        let mut columns = [0.0; 8];
        simd.store(v, &mut columns);
        out[..4].copy_from_slice(&columns[..4]);
    }
}

/// Values `from`, one `step` further and so on; only `lanes` need be right.
#[inline(always)]
fn eight<S: Simd>(simd: S, data: &[f32], from: isize, step: usize, lanes: Range<usize>) -> S::V {
    let all = usize::try_from(from).ok().and_then(|from| data.get(from..));
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
