//! Input of a strip to Winograd's positions: `[position][channel][tile]`.
//!
//! Per channel: columns first, a vector of neighbouring pixels at a time, into a small buffer with
//! its halo of zeros; then a vector of tiles at a time, transposed so that a lane is a tile.

use super::GAP;
use super::lanes::{Eight, Lanes, Sixteen};
use super::points::{self, MOST, Size};
use super::strip::Strip;
use crate::conv::ConvShape;
use crate::shape::View;
use crate::simd::{Long, LongWork, Simd, Work};
use std::ops::Range;

/// Elements of the buffer for a strip of `rows` x `columns` tiles.
pub(super) fn buffer(m: usize, rows: usize, columns: usize) -> usize {
    rows.saturating_mul(m + 2).saturating_mul(line(m, columns))
}

/// Distance of two buffer rows: the tiles' columns, and room for a vector that starts in the last.
fn line(m: usize, columns: usize) -> usize {
    columns.saturating_mul(m).saturating_add(16)
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
        self.transform(Eight(simd));
    }
}

impl<K: Size> LongWork for Input<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Long>(self, simd: S) {
        self.transform(Sixteen(simd));
    }
}

impl<K: Size> Input<'_, K> {
    #[inline(always)]
    fn transform<L: Lanes>(self, simd: L) {
        // The last vector of a channel may end behind its tiles.
        const { assert!(GAP + 8 >= L::N) };
        let Input {
            shape,
            input,
            strip,
            stride,
            out,
            buffer,
            ..
        } = self;
        let line = line(K::M, strip.columns.len());
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
        let places = strip.places(tile_row, K::M);
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
                    // The last vector overlaps the one before it, or is cut.
                    let n = width.min(L::N);
                    x = x.min(width - n);
                    let mut d = [simd.splat(0.0); MOST];
                    for r in 0..K::T {
                        if let Some(from) = rows[r] {
                            d[r] = simd.load_first(n, &input.data[from + x..]);
                        }
                    }
                    let d = points::input::<K, L>(simd, d);
                    for r in 0..K::T {
                        let to = &mut to[r * line + before + x..];
                        if n == L::N {
                            simd.store(d[r], to);
                        } else {
                            simd.store_first(n, d[r], to);
                        }
                    }
                    x += n;
                }
            }
            for group in (0..pitch).step_by(L::N) {
                let places = &places[group..];
                let mut to = &mut out[at * pitch + group..];
                for r in 0..K::T {
                    let tiles = simd.gather(&buffer[r * line..], places);
                    let d = points::input::<K, L>(simd, tiles);
                    for j in 0..K::T {
                        simd.store(d[j], to);
                        to = to.get_mut(stride..).unwrap_or_default();
                    }
                }
            }
        }
    }
}
