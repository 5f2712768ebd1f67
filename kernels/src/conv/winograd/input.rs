//! Input of a strip to Winograd's positions: `[position][channel][tile]`.
//!
//! Per channel: columns first, a vector of neighbouring pixels at a time, into a small buffer with
//! its halo of zeros; then 8 tiles at a time, transposed so that a lane is a tile.

use super::points::{self, MOST, Size};
use super::strip::Strip;
use crate::conv::ConvShape;
use crate::shape::View;
use crate::simd::{Simd, Work};
use std::ops::Range;

/// Elements of the buffer for a strip of `rows` x `columns` tiles.
pub(super) fn buffer<K: Size>(rows: usize, columns: usize) -> usize {
    rows.saturating_mul(K::T).saturating_mul(line::<K>(columns))
}

/// Distance of two buffer rows: the tiles' columns, and room for a vector that starts in the last.
fn line<K: Size>(columns: usize) -> usize {
    columns.saturating_mul(K::M).saturating_add(16)
}

/// Transforms `channels` (of the whole input).
pub(super) struct Input<'a, K> {
    pub shape: &'a ConvShape,
    pub input: View<'a>,
    pub channels: Range<usize>,
    pub strip: &'a Strip,
    /// Distance of two positions in `out`.
    pub stride: usize,
    pub out: &'a mut [f32],
    pub buffer: &'a mut [f32],
    pub size: std::marker::PhantomData<K>,
}

impl<K: Size> Work for Input<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Input {
            shape,
            input,
            strip,
            stride,
            out,
            buffer,
            ..
        } = self;
        let line = line::<K>(strip.columns.len());
        let tile_row = K::T * line;
        let buffer = &mut buffer[..strip.rows.len() * tile_row];
        // The halo stays zero: zeros transform to zeros.
        buffer.fill(0.0);
        // Columns of the input that the strip reads, and where the first lies in a buffer row.
        let left = (strip.columns.start * K::M) as isize - shape.pad_left as isize;
        let first = left.max(0) as usize;
        let before = (first as isize - left) as usize;
        let reach = strip.columns.len() * K::M + 2;
        let width = shape
            .in_w
            .saturating_sub(first)
            .min(reach.saturating_sub(before));
        let pitch = strip.pitch();
        for (at, channel) in self.channels.enumerate() {
            for (i, row) in strip.rows.clone().enumerate() {
                let top = (row * K::M) as isize - shape.pad_top as isize;
                let mut rows = [None; MOST];
                for (r, from) in rows.iter_mut().enumerate().take(K::T) {
                    let y = top + r as isize;
                    if y >= 0 && (y as usize) < shape.in_h && width > 0 {
                        *from = Some(input.map.at(0, channel, y as usize) + first);
                    }
                }
                let to = &mut buffer[i * tile_row..][..tile_row];
                let mut x = 0;
                while x < width {
                    let n = (width - x).min(8);
                    // The last vector overlaps the one before it, or is cut.
                    let (x0, n) = if n < 8 && width >= 8 {
                        (width - 8, 8)
                    } else {
                        (x, n)
                    };
                    let mut d = [simd.splat(0.0); MOST];
                    for (d, from) in d.iter_mut().zip(&rows) {
                        if let Some(from) = from {
                            *d = load(simd, input.data, from + x0, n);
                        }
                    }
                    let d = points::input::<K, S>(simd, d);
                    for r in 0..K::T {
                        let to = &mut to[r * line + before + x0..][..8];
                        simd.store(d[r], &mut to.as_chunks_mut().0[0]);
                    }
                    x = x0 + n;
                }
            }
            for group in (0..pitch).step_by(8) {
                let mut places = [0; 8];
                for (lane, place) in places.iter_mut().enumerate() {
                    let (row, column) = strip.place(group + lane);
                    *place = row * tile_row + column * K::M;
                }
                for r in 0..K::T {
                    let mut tiles = [simd.splat(0.0); 8];
                    for (v, place) in tiles.iter_mut().zip(places) {
                        let from = &buffer[place + r * line..][..8];
                        *v = simd.load(&from.as_chunks().0[0]);
                    }
                    let d = points::input::<K, S>(simd, simd.transpose(tiles));
                    for j in 0..K::T {
                        let to = (r * K::T + j) * stride + at * pitch + group;
                        simd.store(d[j], &mut out[to..to + 8].as_chunks_mut().0[0]);
                    }
                }
            }
        }
    }
}

/// `n` values, zeros behind them.
#[inline(always)]
fn load<S: Simd>(simd: S, data: &[f32], at: usize, n: usize) -> S::V {
    let from = &data[at..];
    match from.first_chunk::<8>() {
        Some(eight) if n == 8 => simd.load(eight),
        Some(eight) => simd.blend(n, simd.load(eight), simd.splat(0.0)),
        None => {
            let mut short = [0.0; 8];
            for (to, v) in short.iter_mut().zip(from).take(n) {
                *to = *v;
            }
            simd.load(&short)
        }
    }
}
