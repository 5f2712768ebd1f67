//! What the transforms need of vectors, of 8 or of 16 lanes: a lane is a pixel or a tile, so that both give the same bits.

use super::points::MOST;
use crate::simd::{Long, Simd};

/// Vectors of `N` lanes.
pub(super) trait Lanes: Copy {
    /// Lanes.
    const N: usize;
    /// A vector.
    type V: Copy;
    /// The instruction set.
    type S: Simd;
    fn simd(self) -> Self::S;
    fn splat(self, value: f32) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `N` values.
    fn load(self, from: &[f32]) -> Self::V;
    /// The first `n` values, at most `N`; zeros in the other lanes.
    fn load_first(self, n: usize, from: &[f32]) -> Self::V;
    /// `N` values.
    fn store(self, v: Self::V, to: &mut [f32]);
    /// The first `n` lanes; the others of the first 8 may be written too.
    fn store_first(self, n: usize, v: Self::V, to: &mut [f32]);
    /// As many rows of 8 as there is room for.
    fn rows(self, rows: [<Self::S as Simd>::V; 2]) -> Self::V;
    /// The same of signed bytes.
    fn rows_i8(self, rows: [&[i8; 8]; 2]) -> Self::V;
    /// The same of codes of a table, below 128 where there is room for two rows.
    fn lookup(self, lut: &[f32; 256], rows: [&[u8; 8]; 2]) -> Self::V;
    /// `MOST` neighbours of each of `N` places: vector `j` holds value `j` of each.
    fn gather(self, from: &[f32], places: &[u32]) -> [Self::V; MOST];
    /// The first `m` values of each lane to its place, ascending; up to `MOST` are written, for the next place to overwrite.
    fn scatter(self, m: usize, columns: [Self::V; MOST], to: &mut [f32], places: &[u32]);
}

/// Vectors of 8.
#[derive(Clone, Copy)]
pub(super) struct Eight<S>(pub S);

/// Vectors of 16.
#[derive(Clone, Copy)]
pub(super) struct Sixteen<S>(pub S);

impl<S: Simd> Lanes for Eight<S> {
    const N: usize = 8;
    type V = S::V;
    type S = S;

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn splat(self, value: f32) -> S::V {
        self.0.splat(value)
    }

    #[inline(always)]
    fn add(self, a: S::V, b: S::V) -> S::V {
        self.0.add(a, b)
    }

    #[inline(always)]
    fn sub(self, a: S::V, b: S::V) -> S::V {
        self.0.sub(a, b)
    }

    #[inline(always)]
    fn mul(self, a: S::V, b: S::V) -> S::V {
        self.0.mul(a, b)
    }

    #[inline(always)]
    fn mul_add(self, a: S::V, b: S::V, c: S::V) -> S::V {
        self.0.mul_add(a, b, c)
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> S::V {
        self.0.load(&from[..8].as_chunks().0[0])
    }

    #[inline(always)]
    fn load_first(self, n: usize, from: &[f32]) -> S::V {
        match from.first_chunk::<8>() {
            Some(eight) if n == 8 => self.0.load(eight),
            Some(eight) => self.0.blend(n, self.0.load(eight), self.0.splat(0.0)),
            None => {
                let mut short = [0.0; 8];
                for (to, v) in short.iter_mut().zip(from).take(n) {
                    *to = *v;
                }
                self.0.load(&short)
            }
        }
    }

    #[inline(always)]
    fn store(self, v: S::V, to: &mut [f32]) {
        self.0.store(v, &mut to[..8].as_chunks_mut().0[0]);
    }

    #[inline(always)]
    fn store_first(self, _: usize, v: S::V, to: &mut [f32]) {
        self.store(v, to);
    }

    #[inline(always)]
    fn rows(self, [row, _]: [S::V; 2]) -> S::V {
        row
    }

    #[inline(always)]
    fn rows_i8(self, [row, _]: [&[i8; 8]; 2]) -> S::V {
        self.0.widen_i8(row)
    }

    #[inline(always)]
    fn lookup(self, lut: &[f32; 256], [row, _]: [&[u8; 8]; 2]) -> S::V {
        self.0.lookup(lut, row)
    }

    #[inline(always)]
    fn gather(self, from: &[f32], places: &[u32]) -> [S::V; MOST] {
        let mut rows = [self.0.splat(0.0); 8];
        for (row, &place) in rows.iter_mut().zip(&places[..8]) {
            *row = self.load(&from[place as usize..]);
        }
        self.0.transpose(rows)
    }

    #[inline(always)]
    fn scatter(self, _: usize, columns: [S::V; MOST], to: &mut [f32], places: &[u32]) {
        for (v, &place) in self.0.transpose(columns).into_iter().zip(places) {
            self.store(v, &mut to[place as usize..]);
        }
    }
}

impl<S: Long> Lanes for Sixteen<S> {
    const N: usize = 16;
    type V = S::L;
    type S = S;

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn splat(self, value: f32) -> S::L {
        self.0.splat16(value)
    }

    #[inline(always)]
    fn add(self, a: S::L, b: S::L) -> S::L {
        self.0.add16(a, b)
    }

    #[inline(always)]
    fn sub(self, a: S::L, b: S::L) -> S::L {
        self.0.sub16(a, b)
    }

    #[inline(always)]
    fn mul(self, a: S::L, b: S::L) -> S::L {
        self.0.mul16(a, b)
    }

    #[inline(always)]
    fn mul_add(self, a: S::L, b: S::L, c: S::L) -> S::L {
        self.0.mul_add16(a, b, c)
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> S::L {
        self.0.load16(&from[..16].as_chunks().0[0])
    }

    #[inline(always)]
    fn load_first(self, n: usize, from: &[f32]) -> S::L {
        match from.first_chunk::<16>() {
            Some(all) if n == 16 => self.0.load16(all),
            _ => self.0.load16_first(n, from),
        }
    }

    #[inline(always)]
    fn store(self, v: S::L, to: &mut [f32]) {
        self.0.store16(v, &mut to[..16].as_chunks_mut().0[0]);
    }

    #[inline(always)]
    fn store_first(self, n: usize, v: S::L, to: &mut [f32]) {
        self.0.store16_first(n, v, to);
    }

    #[inline(always)]
    fn rows(self, [low, high]: [S::V; 2]) -> S::L {
        self.0.join(low, high)
    }

    #[inline(always)]
    fn rows_i8(self, [low, high]: [&[i8; 8]; 2]) -> S::L {
        self.0.widen_i8_two(low, high)
    }

    #[inline(always)]
    fn lookup(self, lut: &[f32; 256], [low, high]: [&[u8; 8]; 2]) -> S::L {
        self.0.lookup_two(lut, low, high)
    }

    #[inline(always)]
    fn gather(self, from: &[f32], places: &[u32]) -> [S::L; MOST] {
        let Some(p) = places.first_chunk::<16>() else {
            return [self.0.splat16(0.0); MOST];
        };
        // Written out: a loop would go through memory, where halves cannot be read as a whole.
        self.0.columns16([
            eight(from, p[0]),
            eight(from, p[1]),
            eight(from, p[2]),
            eight(from, p[3]),
            eight(from, p[4]),
            eight(from, p[5]),
            eight(from, p[6]),
            eight(from, p[7]),
            eight(from, p[8]),
            eight(from, p[9]),
            eight(from, p[10]),
            eight(from, p[11]),
            eight(from, p[12]),
            eight(from, p[13]),
            eight(from, p[14]),
            eight(from, p[15]),
        ])
    }

    #[inline(always)]
    fn scatter(self, m: usize, columns: [S::L; MOST], to: &mut [f32], places: &[u32]) {
        let [a, b, c, d, e, f, g, h] = columns;
        let first = self.0.quads16([a, b, c, d]);
        // Nothing is done with these unless they are stored.
        let second = self.0.quads16([e, f, g, h]);
        let all = places.len() >= 16;
        for quarter in 0..4 {
            for tile in 0..4 {
                let i = 4 * quarter + tile;
                if !all && i >= places.len() {
                    return;
                }
                let to = to[places[i] as usize..][..MOST].as_chunks_mut().0;
                self.0.store_quarter(quarter, first[tile], &mut to[0]);
                if m > 4 {
                    self.0.store_quarter(quarter, second[tile], &mut to[1]);
                }
            }
        }
    }
}

/// 8 values from a place on.
#[inline(always)]
fn eight(from: &[f32], place: u32) -> &[f32; 8] {
    &from[place as usize..][..8].as_chunks().0[0]
}
