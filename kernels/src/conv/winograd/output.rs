//! Sums of a strip, `[position][lane][tile]`, to output rows: the inverse transform a vector of tiles at
//! a time, transposed into lines, which are then added and finished like any other output.

use super::GAP;
use super::lanes::{Eight, Lanes, Sixteen};
use super::points::{self, MOST, Size};
use super::strip::Strip;
use crate::activation::{Epilogue, finish_vectors};
use crate::conv::ConvShape;
use crate::conv::store::Line;
use crate::shape::ViewMut;
use crate::simd::{Isa, Long, LongWork, Simd, Work};
use std::ops::Range;

/// Elements of the lines of a strip of `rows` x `columns` tiles.
pub(super) fn buffer(m: usize, rows: usize, columns: usize) -> usize {
    rows.saturating_mul(m).saturating_mul(line(m, columns))
}

/// Distance of two lines: a vector may start at the last tile and end behind it.
fn line(m: usize, columns: usize) -> usize {
    columns.saturating_mul(m).saturating_add(16)
}

/// Transforms one panel back and writes output rows `rows`.
pub(super) struct Output<'a, 'b> {
    pub isa: Isa,
    pub shape: &'a ConvShape,
    pub strip: &'a Strip,
    pub sums: &'a [f32],
    /// Distance of two positions in `sums`.
    pub stride: usize,
    /// Output channels of the panel.
    pub channels: Range<usize>,
    pub rows: Range<usize>,
    pub out: &'a mut ViewMut<'b>,
    pub accumulate: bool,
    pub epilogue: Option<&'a Epilogue<'a>>,
    pub buffer: &'a mut [f32],
}

impl Output<'_, '_> {
    pub fn run<K: Size>(self) {
        let Output {
            isa, strip, buffer, ..
        } = self;
        let line = line(K::M, strip.columns.len());
        let top = strip.rows.start * K::M;
        let left = strip.columns.start * K::M;
        let rows = self.rows.start.max(top)..self.rows.end.min(strip.rows.end * K::M);
        let places = strip.places(K::M * line, K::M);
        for (lane, channel) in self.channels.enumerate() {
            let back = Back::<K> {
                places: &places[..strip.tiles()],
                sums: &self.sums[lane * strip.pitch()..],
                stride: self.stride,
                line,
                buffer: &mut *buffer,
                size: std::marker::PhantomData,
            };
            if isa.has_long() {
                isa.run_long(back);
            } else {
                isa.run(back);
            }
            isa.run(Lines {
                channel,
                accumulate: self.accumulate,
                epilogue: self.epilogue,
                from: &buffer[(rows.start - top) * line..],
                line,
                width: (strip.columns.end * K::M).min(self.shape.out_w) - left,
                at: self.out.map.at(0, channel, rows.start - self.rows.start) + left,
                rows: rows.len(),
                out: &mut *self.out,
            });
        }
    }
}

/// One channel from sums to lines.
struct Back<'a, K> {
    /// Of the tiles in `buffer`.
    places: &'a [u32],
    sums: &'a [f32],
    stride: usize,
    line: usize,
    buffer: &'a mut [f32],
    size: std::marker::PhantomData<K>,
}

impl<K: Size> Work for Back<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.transform(Eight(simd));
    }
}

impl<K: Size> LongWork for Back<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Long>(self, simd: S) {
        self.transform(Sixteen(simd));
    }
}

impl<K: Size> Back<'_, K> {
    #[inline(always)]
    fn transform<L: Lanes>(self, simd: L) {
        // The last vector of a channel may end behind its tiles.
        const { assert!(GAP + 8 >= L::N) };
        let (places, line) = (self.places, self.line);
        let mut tall = [[simd.splat(0.0); MOST]; MOST];
        for group in (0..places.len()).step_by(L::N) {
            for j in 0..K::T {
                let mut m = [simd.splat(0.0); MOST];
                let mut from = &self.sums[j * self.stride + group..];
                for i in 0..K::T {
                    m[i] = simd.load(from);
                    from = from.get(K::T * self.stride..).unwrap_or_default();
                }
                let m = points::output::<K, L>(simd, m);
                for i in 0..K::M {
                    tall[i][j] = m[i];
                }
            }
            let places = &places[group..];
            let places = &places[..places.len().min(L::N)];
            for i in 0..K::M {
                let y = points::output::<K, L>(simd, tall[i]);
                // In ascending order: what is stored too much is overwritten by the next.
                simd.scatter(K::M, y, &mut self.buffer[i * line..], places);
            }
        }
    }
}

/// The lines of a channel to the output.
struct Lines<'a, 'b> {
    channel: usize,
    accumulate: bool,
    epilogue: Option<&'a Epilogue<'a>>,
    from: &'a [f32],
    line: usize,
    width: usize,
    out: &'a mut ViewMut<'b>,
    /// Where the first line goes.
    at: usize,
    rows: usize,
}

impl Work for Lines<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let simple = self.epilogue.filter(|e| e.is_simple());
        let slow = self.epilogue.filter(|_| simple.is_none());
        let (width, step) = (self.width, self.out.map.row);
        for y in 0..self.rows {
            let at = self.at + y * step;
            let line = Line {
                simd,
                accumulate: self.accumulate,
                out: &mut self.out.data[at..],
                sums: &self.from[y * self.line..][..width + 8],
                len: width,
            };
            finish_vectors(simple, self.channel, line);
            if let Some(epilogue) = slow {
                epilogue.apply(self.channel, &mut self.out.data[at..at + width]);
            }
        }
    }
}
