//! Finished sums of a group of pixels to the output map: adds what is there, applies the epilogue.

use super::gemm::CHUNK;
use super::plane::Band;
use crate::activation::{self, Epilogue, VectorFunction, finish_vectors};
use crate::shape::ViewMut;
use crate::simd::{First, Isa, Long, Simd, Work};
use crate::weights::PANEL;
use std::ops::Range;

/// Vectors of pixels of the widest group.
pub(super) const GROUP: usize = 4;
/// Length of a row of sums: room for a vector to start at the last sum.
pub(super) const SUMS: usize = GROUP * 8 + 8;
/// Columns of a row that is worth being computed by itself.
const MIN_LINE: usize = 40;
/// Sums of a group: one row per channel of a panel; vectors do not straddle cache lines.
#[repr(align(32))]
pub(super) struct Sums(pub [[f32; SUMS]; PANEL]);

impl Sums {
    pub fn new() -> Sums {
        Sums([[0.0; SUMS]; PANEL])
    }
}

/// Consecutive pixels of a band in row-major order, starting at (row, column) of the band.
#[derive(Clone, Copy, Default)]
pub(super) struct Pixels {
    pub row: usize,
    pub column: usize,
    pub len: usize,
}

/// The groups of a band, for kernels with one pixel per lane: vectors of 8 pixels that do not
/// cross a row unless `flat`.
pub(super) struct Vectors {
    flat: bool,
    rows: usize,
    columns: usize,
    row: usize,
    column: usize,
}

impl Vectors {
    pub fn new(band: &Band, flat: bool) -> Vectors {
        Vectors {
            flat,
            rows: band.rows.len(),
            columns: band.columns.len(),
            row: 0,
            column: 0,
        }
    }

    /// Vectors cross rows.
    pub fn is_flat(&self) -> bool {
        self.flat
    }

    /// Number of vectors.
    pub fn count(&self) -> usize {
        if self.flat {
            (self.rows * self.columns).div_ceil(8)
        } else {
            self.rows * self.columns.div_ceil(8)
        }
    }

    /// The next vector.
    #[inline(always)]
    pub fn next(&mut self) -> Pixels {
        let (row, column) = (self.row, self.column);
        let left = if self.flat {
            (self.rows - row) * self.columns
        } else {
            self.columns
        } - column;
        let len = left.min(8);
        self.column += len;
        while self.column >= self.columns && self.row < self.rows {
            self.column -= self.columns;
            self.row += 1;
        }
        Pixels { row, column, len }
    }
}

/// Where sums go.
pub(super) struct Target<'a, 'b> {
    pub out: &'a mut ViewMut<'b>,
    /// The output row that `out` starts with.
    pub first_row: usize,
    /// The band the pixels belong to.
    pub band: Band,
    /// Add to what is there.
    pub accumulate: bool,
    /// With the last block only.
    pub epilogue: Option<&'a Epilogue<'a>>,
    /// Between blocks, sums of whole panels may lie in their rows pixel after pixel (`channels.rs`).
    pub plain: bool,
}

/// Whether that is possible: the whole map is computed by channel lanes, and rows of channels follow each other.
pub(super) fn plain(out: &ViewMut<'_>, band: &Band) -> bool {
    out.map.channel == out.map.w && band.columns.len() == out.map.w
}

/// The stretches of the output that a group covers.
pub(super) struct Spots {
    segments: [Segment; GROUP * 8],
    count: usize,
    /// Every segment is a whole vector.
    whole: bool,
}

/// Pixels of one row.
#[derive(Clone, Copy, Default)]
struct Segment {
    /// Offset in channel 0 of the output.
    at: usize,
    /// Place within the sums, and length: at most 8.
    sum: u32,
    len: u32,
}

impl Target<'_, '_> {
    /// Finds the places of a group's vectors.
    #[inline]
    pub fn spots(&self, vectors: &[Pixels]) -> Spots {
        let columns = self.band.columns.len();
        let mut spots = Spots {
            segments: [Segment::default(); GROUP * 8],
            count: 0,
            whole: true,
        };
        for (j, pixels) in vectors.iter().enumerate() {
            let Pixels {
                mut row,
                mut column,
                len,
            } = *pixels;
            let mut done = 0;
            while done < len {
                let n = (columns - column).min(len - done);
                let above = self.band.rows.start - self.first_row + row;
                let at = self.out.map.at(0, 0, above) + self.band.columns.start + column;
                let sum = (j * 8 + done) as u32;
                spots.segments[spots.count] = Segment {
                    at,
                    sum,
                    len: n as u32,
                };
                spots.count += 1;
                spots.whole &= n == 8;
                done += n;
                row += 1;
                column = 0;
            }
        }
        spots
    }

    /// Whether rows are best computed one after the other ([`Target::finish`]).
    pub fn by_lines(&self, flat: bool) -> bool {
        let columns = self.band.columns.len();
        columns >= MIN_LINE && (!flat || columns.is_multiple_of(8))
    }

    /// Writes neighbouring sums (row and column within the band, number) of a channel, on fast instruction sets. A vector may
    /// be read behind the last one.
    pub fn finish(
        &mut self,
        isa: Isa,
        channel: usize,
        [row, column, len]: [usize; 3],
        sums: &[f32],
    ) {
        let (accumulate, epilogue) = (self.accumulate, self.epilogue);
        let simple = epilogue.filter(|e| e.is_simple());
        let out = self.place(channel, row, column);
        let finish = Finish {
            accumulate,
            simple,
            channel,
            out: &mut *out,
            sums,
            len,
        };
        isa.run(finish);
        if let Some(epilogue) = epilogue.filter(|_| simple.is_none()) {
            epilogue.apply(channel, &mut out[..len]);
        }
    }

    /// The output from a pixel of the band on.
    #[inline(always)]
    pub fn place(&mut self, channel: usize, row: usize, column: usize) -> &mut [f32] {
        let at = self.at(channel, row, column);
        &mut self.out.data[at..]
    }

    /// Where a pixel of the band lies in the output.
    #[inline(always)]
    pub fn at(&self, channel: usize, row: usize, column: usize) -> usize {
        let above = self.band.rows.start - self.first_row + row;
        self.out.map.at(0, channel, above) + self.band.columns.start + column
    }

    /// Writes the sums of a group for channels `channels`, one row of sums each.
    pub fn store(&mut self, isa: Isa, channels: Range<usize>, sums: &mut Sums, spots: &Spots) {
        isa.run(Store {
            target: self,
            channels,
            sums,
            spots,
        });
    }
}

struct Store<'a, 'b, 'c> {
    target: &'a mut Target<'b, 'c>,
    channels: Range<usize>,
    sums: &'a mut Sums,
    spots: &'a Spots,
}

impl Work for Store<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Store {
            target,
            channels,
            sums,
            spots,
        } = self;
        let simple = target.epilogue.filter(|e| e.is_simple());
        let segments = &spots.segments[..spots.count];
        let stride = target.out.map.channel;
        for (channel, sums) in channels.zip(&mut sums.0) {
            let out = &mut target.out.data[channel * stride..];
            let row = Row {
                simd,
                accumulate: target.accumulate,
                out,
                sums,
                segments,
                whole: spots.whole,
            };
            finish_vectors(simple, channel, row);
            if let Some(epilogue) = target.epilogue.filter(|_| simple.is_none()) {
                let out = &mut target.out.data[channel * stride..];
                for s in segments {
                    epilogue.apply(channel, &mut out[s.at..][..s.len as usize]);
                }
            }
        }
    }
}

/// The segments of one channel.
struct Row<'a, S> {
    simd: S,
    accumulate: bool,
    out: &'a mut [f32],
    sums: &'a [f32; SUMS],
    segments: &'a [Segment],
    whole: bool,
}

impl<S: Simd> activation::Vectors for Row<'_, S> {
    const FAST: bool = S::FAST;

    #[inline(always)]
    fn finish<F: VectorFunction>(self, bias: Option<f32>, function: F) {
        let Row {
            simd,
            accumulate,
            out,
            sums,
            ..
        } = self;
        let last = Last {
            simd,
            accumulate,
            bias: bias.map(|bias| simd.splat(bias)),
            function,
        };
        if self.whole {
            for (v, s) in sums.as_chunks().0.iter().zip(self.segments) {
                let out = &mut out[s.at..s.at + 8].as_chunks_mut().0[0];
                simd.store(last.of(simd.load(v), || simd.load(out)), out);
            }
            return;
        }
        for s in self.segments {
            let first = s.sum as usize;
            let sum = simd.load(&sums[first..first + 8].as_chunks().0[0]);
            last.part(&mut out[s.at..], sum, s.len as usize);
        }
    }
}

/// What happens to sums before they are written, in one pass.
#[derive(Clone, Copy)]
pub(super) struct Last<S: Simd, F> {
    pub simd: S,
    /// Add to what is there.
    pub accumulate: bool,
    pub bias: Option<S::V>,
    pub function: F,
}

impl<S: Simd, F: VectorFunction> Last<S, F> {
    #[inline(always)]
    pub fn of(&self, sum: S::V, old: impl Fn() -> S::V) -> S::V {
        let simd = self.simd;
        let sum = if self.accumulate {
            simd.add(old(), sum)
        } else {
            sum
        };
        let sum = match self.bias {
            Some(bias) => simd.add(sum, bias),
            None => sum,
        };
        self.function.apply(simd, sum)
    }

    /// A vector of which the first `len` count; what lies behind them keeps its value.
    #[inline(always)]
    pub fn part(&self, out: &mut [f32], sum: S::V, len: usize) {
        let simd = self.simd;
        if let Some(out) = out.first_chunk_mut::<8>() {
            let old = simd.load(out);
            let new = self.of(sum, || old);
            let new = if len < 8 {
                simd.blend(len, new, old)
            } else {
                new
            };
            simd.store(new, out);
            return;
        }
        // The end of the output is nearer than that.
        let mut short = [0.0; 8];
        for (to, from) in short.iter_mut().zip(&*out) {
            *to = *from;
        }
        simd.store(self.of(sum, || simd.load(&short)), &mut short);
        for (to, from) in out.iter_mut().zip(short).take(len) {
            *to = from;
        }
    }
}

/// [`Line`] as work: one copy of its code for all kernels.
struct Finish<'a> {
    accumulate: bool,
    simple: Option<&'a Epilogue<'a>>,
    channel: usize,
    out: &'a mut [f32],
    sums: &'a [f32],
    len: usize,
}

impl Work for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if !S::FAST {
            return;
        }
        let line = Line {
            simd,
            accumulate: self.accumulate,
            out: self.out,
            sums: self.sums,
            len: self.len,
        };
        finish_vectors(self.simple, self.channel, line);
    }
}

/// What happens to finished sums of `N` channels, a channel per lane: bias (-0.0 changes nothing), then the limits if
/// there are some, else the slopes. Nothing if the epilogue is not a simple one.
pub(super) struct Lasts<const N: usize = OF_CHUNK> {
    pub bias: [f32; N],
    pub slope: [f32; N],
    pub limits: Option<(f32, f32)>,
    /// Some slope is not 1.
    leaky: bool,
}

/// Channels of a chunk of panels.
const OF_CHUNK: usize = CHUNK * PANEL;

impl<const N: usize> Lasts<N> {
    pub fn new(epilogue: Option<&Epilogue<'_>>, channels: Range<usize>) -> Self {
        let mut lasts = Lasts {
            bias: [-0.0; N],
            slope: [1.0; N],
            limits: None,
            leaky: false,
        };
        if let Some(e) = epilogue.filter(|e| e.is_simple()) {
            for (channel, bias) in channels.clone().zip(&mut lasts.bias) {
                *bias = e.bias.map_or(-0.0, |bias| bias[channel]);
            }
            for (channel, slope) in channels.zip(&mut lasts.slope) {
                *slope = e.activation.slope(channel);
                lasts.leaky |= *slope != 1.0;
            }
            lasts.limits = e.activation.limits();
        }
        lasts
    }

    /// Sums of the 16 channels from channel `first` of the chunk on, one to a lane.
    #[inline(always)]
    pub fn of<S: Long>(&self, simd: S, first: usize, mut sums: [S::L; 8]) -> [S::L; 8] {
        let bias = simd.load16(&self.bias[first..][..16].as_chunks().0[0]);
        for i in 0..8 {
            sums[i] = simd.add16(sums[i], bias);
        }
        if let Some((low, high)) = self.limits {
            let (low, high) = (simd.splat16(low), simd.splat16(high));
            for i in 0..8 {
                sums[i] = simd.clip16(sums[i], low, high);
            }
        } else if self.leaky {
            let slope = simd.load16(&self.slope[first..][..16].as_chunks().0[0]);
            for i in 0..8 {
                sums[i] = simd.leaky16(sums[i], slope);
            }
        }
        sums
    }
}

impl<const N: usize> Lasts<N> {
    /// Sums of channel `channel` of the chunk.
    #[inline(always)]
    pub fn of_channel<S: Simd>(&self, simd: S, channel: usize, sum: S::V) -> S::V {
        let sum = simd.add(sum, simd.splat(self.bias[channel]));
        if let Some((low, high)) = self.limits {
            simd.at_most(simd.at_least(sum, simd.splat(low)), simd.splat(high))
        } else if self.leaky {
            let scaled = simd.mul(simd.splat(self.slope[channel]), sum);
            simd.select_less(sum, simd.splat(0.0), scaled, sum)
        } else {
            sum
        }
    }

    /// Sums of the panel whose first channel is channel `first` of the chunk, one to a lane.
    #[inline(always)]
    pub fn of_panel<S: Simd>(&self, simd: S, first: usize, mut sums: [S::V; 8]) -> [S::V; 8] {
        let bias = simd.load(&self.bias[first..][..PANEL].as_chunks().0[0]);
        for i in 0..8 {
            sums[i] = simd.add(sums[i], bias);
        }
        if let Some((low, high)) = self.limits {
            let (low, high) = (simd.splat(low), simd.splat(high));
            for i in 0..8 {
                sums[i] = simd.at_most(simd.at_least(sums[i], low), high);
            }
        } else if self.leaky {
            let slope = simd.load(&self.slope[first..][..PANEL].as_chunks().0[0]);
            for i in 0..8 {
                let scaled = simd.mul(slope, sums[i]);
                sums[i] = simd.select_less(sums[i], simd.splat(0.0), scaled, sums[i]);
            }
        }
        sums
    }
}

/// Stores these first lanes to the start of `out`; what lies behind them keeps its value.
#[inline(always)]
pub(super) fn store_part<S: Simd>(simd: S, lanes: First<S::V>, v: S::V, out: &mut [f32]) {
    match out.first_chunk_mut() {
        Some(out) => simd.store(simd.select_first(lanes, v, simd.load(out)), out),
        // The end of the output is nearer than that.
        None => {
            let mut short = [0.0; 8];
            simd.store(v, &mut short);
            let count = lanes.count();
            out[..count].copy_from_slice(&short[..count]);
        }
    }
}

/// Sums that lie one behind the other, to the start of `out`.
pub(super) struct Line<'a, S> {
    pub simd: S,
    pub accumulate: bool,
    pub out: &'a mut [f32],
    /// A vector may be read behind the last one.
    pub sums: &'a [f32],
    pub len: usize,
}

impl<S: Simd> activation::Vectors for Line<'_, S> {
    const FAST: bool = S::FAST;

    #[inline(always)]
    fn finish<F: VectorFunction>(self, bias: Option<f32>, function: F) {
        let Line {
            simd,
            accumulate,
            out,
            sums,
            len,
        } = self;
        let last = Last {
            simd,
            accumulate,
            bias: bias.map(|bias| simd.splat(bias)),
            function,
        };
        let whole = out[..len].as_chunks_mut::<8>().0.iter_mut();
        let whole = whole.zip(sums.as_chunks().0);
        if let (false, Some(bias)) = (accumulate, last.bias) {
            // The usual case by itself: nothing to ask for each vector.
            for (out, sums) in whole {
                let sum = simd.add(simd.load(sums), bias);
                simd.store(last.function.apply(simd, sum), out);
            }
        } else {
            for (out, sums) in whole {
                simd.store(last.of(simd.load(sums), || simd.load(out)), out);
            }
        }
        let done = len / 8 * 8;
        if done < len {
            let sum = simd.load(&sums[done..done + 8].as_chunks().0[0]);
            last.part(&mut out[done..], sum, len - done);
        }
    }
}
