//! Sums of a strip, `[position][lane][tile]`, to output rows: the inverse transform 8 tiles at a
//! time, transposed into lines, which are then added and finished like any other output.

use super::points::{self, MOST, Size};
use super::strip::Strip;
use crate::activation::{Epilogue, finish_vectors};
use crate::conv::ConvShape;
use crate::conv::store::Line;
use crate::shape::ViewMut;
use crate::simd::{Simd, Work};
use std::ops::Range;

/// Elements of the lines of a strip of `rows` x `columns` tiles.
pub(super) fn buffer<K: Size>(rows: usize, columns: usize) -> usize {
    rows.saturating_mul(K::M).saturating_mul(line::<K>(columns))
}

/// Distance of two lines: a vector may start at the last tile and end behind it.
fn line<K: Size>(columns: usize) -> usize {
    columns.saturating_mul(K::M).saturating_add(16)
}

/// Transforms one panel back and writes output rows `rows`.
pub(super) struct Output<'a, 'b, K> {
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
    pub size: std::marker::PhantomData<K>,
}

impl<K: Size> Work for Output<'_, '_, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Output {
            shape,
            strip,
            sums,
            stride,
            rows,
            out,
            buffer,
            ..
        } = self;
        let simple = self.epilogue.filter(|e| e.is_simple());
        let slow = self.epilogue.filter(|_| simple.is_none());
        let (line, pitch) = (line::<K>(strip.columns.len()), strip.pitch());
        let top = strip.rows.start * K::M;
        let left = strip.columns.start * K::M;
        let width = (strip.columns.end * K::M).min(shape.out_w) - left;
        let first_row = rows.start;
        let rows = rows.start.max(top)..rows.end.min(strip.rows.end * K::M);
        for (lane, channel) in self.channels.enumerate() {
            for group in (0..strip.tiles()).step_by(8) {
                let at = lane * pitch + group;
                let mut tall = [[simd.splat(0.0); MOST]; MOST];
                for j in 0..K::T {
                    let mut m = [simd.splat(0.0); MOST];
                    for i in 0..K::T {
                        let from = (i * K::T + j) * stride + at;
                        m[i] = simd.load(&sums[from..from + 8].as_chunks().0[0]);
                    }
                    let m = points::output::<K, S>(simd, m);
                    for i in 0..K::M {
                        tall[i][j] = m[i];
                    }
                }
                let tiles = (strip.tiles() - group).min(8);
                let mut places = [0; 8];
                for (i, place) in places.iter_mut().enumerate() {
                    let (row, column) = strip.place(group + i);
                    *place = row * K::M * line + column * K::M;
                }
                for i in 0..K::M {
                    let y = points::output::<K, S>(simd, tall[i]);
                    let y = simd.transpose(y);
                    // In ascending order: what is stored too much is overwritten by the next.
                    for (v, place) in y.into_iter().zip(places).take(tiles) {
                        let to = &mut buffer[place + i * line..][..8];
                        simd.store(v, &mut to.as_chunks_mut().0[0]);
                    }
                }
            }
            for y in rows.clone() {
                let at = out.map.at(0, channel, y - first_row) + left;
                let from = &buffer[(y - top) * line..][..width + 8];
                let line = Line {
                    simd,
                    accumulate: self.accumulate,
                    out: &mut out.data[at..],
                    sums: from,
                    len: width,
                };
                finish_vectors(simple, channel, line);
                if let Some(epilogue) = slow {
                    epilogue.apply(channel, &mut out.data[at..at + width]);
                }
            }
        }
    }
}
