//! Packed input of the sparse kernels: for every column of taps a copy, so that every load is one whole cache line.
//!
//! A load that crosses a cache line costs two, and neighbouring taps of a row would cross one nearly always with
//! vectors as long as a line. So 16 neighbouring outputs, one line of 64 bytes, see every column of taps in a copy of their
//! own, shifted by it; 16 outputs are one row, or two or four where rows are narrow (`height`), whichever leaves the fewest
//! lanes empty. A tile of up to 12 such vectors is high rather than wide: it sees few rows beyond its own, so that a block of
//! many input channels fits into the L1 cache.
//!
//! ```text
//! [channel of the block][column of taps][row phase][group of rows][16]
//! ```
//! Rows are sorted by phase (y mod stride times height), so that the vectors of a tile follow each other for every tap,
//! whatever the stride: kernels see one base per group of vectors and a constant offset per weight, of 16 bits, in lines. An
//! input element is stored as often as the kernel has columns (over the stride), times up to `height`.

use super::super::ConvShape;
use crate::shape::View;
use crate::simd::{Long, LongWork, Simd, Work};
use std::ops::Range;

/// Elements of a line.
pub(super) const LINE: usize = 16;
/// Most vectors of a tile.
pub(super) const TILE: usize = 12;
/// Offsets are below this.
const OFFSETS: usize = 1 << 16;
/// Columns over the stride that taps may reach: other algorithms gain more from wider kernels.
const REACH: usize = 8;
/// Lines of a block: 42 of 48 KiB of L1 cache; where there are 32, a part comes from the L2 cache.
const NEAR: usize = 672;
/// Vectors across a tile whose taps see no rows but its own: nothing speaks for high ones then.
const WIDE: usize = 4;
/// The lines of a block of input channels, for a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lines {
    /// Input channels of a full block, the last one may have fewer.
    pub channels: usize,
    /// Output rows of a vector: 1, 2 or 4.
    pub height: usize,
    /// Vectors of a row of a tile.
    pub across: usize,
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
    /// Whether columns of taps are few enough for copies, and 16 bits hold the offsets.
    pub fn supports(shape: &ConvShape) -> bool {
        let taps = shape.kernel[1].saturating_sub(1);
        let wide = taps.saturating_mul(shape.dilation[1]) / shape.stride[1].max(1);
        wide <= REACH && Lines::new(shape).channel <= OFFSETS
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
            across: 1,
            phases: 1,
            groups: 1,
            channel: 1,
        };
        let (reach, step) = (reach(shape), lines.step(shape));
        lines.phases = step.min(reach.saturating_add(1));
        let vectors = shape.out_w.div_ceil(lines.width()).max(1);
        let most = if reach == 0 { WIDE } else { 1 };
        lines.across = vectors.div_ceil(vectors.div_ceil(most));
        let groups = shape.out_h.div_ceil(height).clamp(1, TILE / lines.across);
        lines.groups = groups.saturating_add(reach / step);
        let copies = lines.phases.saturating_mul(shape.kernel[1].max(1));
        lines.channel = copies.saturating_mul(lines.groups.saturating_mul(lines.across));
        let inputs = shape.in_per_group().max(1);
        let most = (NEAR / lines.channel).clamp(1, inputs);
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
        rows.div_ceil(self.height).min(TILE / self.across) * self.across
    }

    /// Vectors of a tile, and pieces of rows that are copied for it from each input channel.
    pub fn amounts(&self, shape: &ConvShape, tile: &Tile) -> [usize; 2] {
        let step = self.step(shape);
        let groups = tile.rows.len().div_ceil(self.height);
        let last = groups.saturating_sub(1) * step + reach(shape);
        let rows = (0..self.phases).map(|phase| (last + step).saturating_sub(phase) / step);
        let pieces = rows.sum::<usize>() * self.height * shape.kernel[1];
        [groups, pieces].map(|n| n * self.across)
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
        c * self.channel + (copy * self.groups + y / step) * self.across
    }
}

/// Some vectors of some output rows.
#[derive(Clone, Debug)]
pub(super) struct Tile {
    pub rows: Range<usize>,
    /// Its first column.
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

/// What a vector sees of a row of the input, in all channels.
struct Piece<'a> {
    input: &'a [f32],
    /// Of the first lane, in the first channel.
    at: isize,
    step: usize,
    /// Those within the map.
    lanes: Range<usize>,
}

/// How a line is copied. No closure: it has to be compiled for the instruction set.
trait Copies {
    /// The piece of the channel that lies at `at`.
    fn copy(&self, piece: &Piece<'_>, at: isize, out: &mut [f32]);
}

/// In registers of 16.
struct Sixteen<S>(S);

impl<S: Long> Copies for Sixteen<S> {
    #[inline(always)]
    fn copy(&self, piece: &Piece<'_>, at: isize, out: &mut [f32]) {
        let simd = self.0;
        let lanes = piece.lanes.clone();
        let v = match piece.step {
            1 => simd.load16_lanes(lanes, piece.input, at),
            2 => simd.evens16_lanes(lanes, piece.input, at),
            _ => simd.load16(&piece.gather(at)),
        };
        match (out.len(), out.first_chunk_mut()) {
            (_, Some(out)) => simd.store16(v, out),
            (8, _) => simd.store(simd.split(v)[0], &mut out.as_chunks_mut().0[0]),
            (width, _) => simd.store16_first(width, v, out),
        }
    }
}

/// In registers of 8.
struct Eight<S>(S);

impl<S: Simd> Copies for Eight<S> {
    #[inline(always)]
    fn copy(&self, piece: &Piece<'_>, at: isize, out: &mut [f32]) {
        let (eights, rest) = out.as_chunks_mut::<8>();
        for (i, out) in eights.iter_mut().enumerate() {
            self.0.store(piece.eight(self.0, at, i * 8), out);
        }
        if !rest.is_empty() {
            rest.copy_from_slice(&piece.gather(at)[..rest.len()]);
        }
    }
}

impl LongWork for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Long>(self, simd: S) {
        self.each(&Sixteen(simd));
    }
}

impl Work for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.each(&Eight(simd));
    }
}

impl Piece<'_> {
    /// The values of a channel from lane `first` on.
    #[inline(always)]
    fn eight<S: Simd>(&self, simd: S, at: isize, first: usize) -> S::V {
        let start = self.lanes.start.saturating_sub(first).min(8);
        let end = self.lanes.end.saturating_sub(first).min(8);
        let zero = simd.splat(0.0);
        if start >= end {
            return zero;
        }
        let from = (at + (first * self.step) as isize) as usize;
        let from = self.input.get(from..).unwrap_or(&[]);
        let v = match self.step {
            1 if from.len() >= 8 => simd.load(&from.as_chunks().0[0]),
            2 if from.len() >= 16 => simd.evens(&from.as_chunks().0[0]),
            _ => return simd.load(&self.gather(at).as_chunks().0[first / 8]),
        };
        if end - start == 8 {
            return v;
        }
        simd.blend(start, zero, simd.blend(end, v, zero))
    }

    /// The values of a channel, one by one.
    #[inline(never)]
    fn gather(&self, at: isize) -> [f32; LINE] {
        let mut line = [0.0; LINE];
        for lane in self.lanes.clone() {
            line[lane] = self.input[(at + (lane * self.step) as isize) as usize];
        }
        line
    }
}

impl Pack<'_> {
    /// Every vector of every row.
    #[inline(always)]
    fn each(self, copies: &impl Copies) {
        let Pack {
            lines,
            shape,
            input,
            channels,
            tile,
            out,
        } = self;
        let [down, across] = shape.stride;
        let (step, width, map) = (lines.step(shape), lines.width(), input.map);
        let top = (tile.rows.start * down) as isize - shape.pad_top as isize;
        let left = (tile.column * across) as isize - shape.pad_left as isize;
        // The last input row that is seen.
        let last = (tile.rows.len().div_ceil(lines.height) - 1) * step + reach(shape);
        for phase in 0..lines.phases {
            for group in (0..).take_while(|group| group * step + phase <= last) {
                for row in 0..lines.height {
                    let y = top + (group * step + phase + row * down) as isize;
                    let there = y >= 0 && (y as usize) < shape.in_h;
                    let from = map.at(0, channels.start, y.max(0) as usize) as isize;
                    for (kx, v) in pairs(shape.kernel[1], lines.across) {
                        let x = left + (v * width * across + kx * shape.dilation[1]) as isize;
                        let to = |to: isize| {
                            let columns = (to - x).max(0).unsigned_abs();
                            columns.div_ceil(across).min(width)
                        };
                        let piece = Piece {
                            input: input.data,
                            at: from + x,
                            step: across,
                            lanes: to(0)..if there {
                                to(shape.in_w as isize)
                            } else {
                                to(0)
                            },
                        };
                        let at = (kx * lines.phases + phase) * lines.groups + group;
                        let at = (at * lines.across + v) * LINE + row * width;
                        let mut from = piece.at;
                        let all = out[at..].chunks_mut(lines.channel * LINE);
                        for out in all.take(channels.len()) {
                            copies.copy(&piece, from, &mut out[..width]);
                            from += map.channel as isize;
                        }
                    }
                }
            }
        }
    }
}

fn pairs(a: usize, b: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..a).flat_map(move |i| (0..b).map(move |j| (i, j)))
}
