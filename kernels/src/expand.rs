//! From codes to f32, one block of k of one panel at a time.

use crate::conv::blocks::{K_BLOCK, Rows};
use crate::simd::{Isa, Long, LongWork, Simd, Work};
use crate::weights::{PANEL, Steps, TileValues, WeightTile};

/// Writes the rows of a block of panel `panel` of the tile, 8 weights each, one behind the other.
pub(crate) fn expand(
    isa: Isa,
    tile: &WeightTile<'_>,
    panel: usize,
    rows: Rows,
    out: &mut [[f32; PANEL]],
) {
    isa.run(Expand {
        tile,
        panel,
        rows,
        out,
    });
}

/// The rows of two panels (tile, and panel of the tile) of one layer as rows of 16, where there are such registers.
pub(crate) fn expand_pair(
    isa: Isa,
    panels: [(&WeightTile<'_>, usize); 2],
    rows: Rows,
    out: &mut [[f32; 2 * PANEL]],
) {
    let alike = matches!(
        panels.map(|(tile, _)| tile.values),
        [TileValues::F32(_), TileValues::F32(_)] | [TileValues::I8 { .. }, TileValues::I8 { .. }]
    ) || matches!(
        panels.map(|(tile, _)| tile.values),
        [TileValues::Lut { lut: a, .. }, TileValues::Lut { lut: b, .. }] if a.is_half() && std::ptr::eq(a, b)
    );
    if !alike {
        let mut own = [[0.0; PANEL]; K_BLOCK];
        let own = &mut own[..rows.run * rows.runs];
        for (i, (tile, panel)) in panels.into_iter().enumerate() {
            expand(isa, tile, panel, rows, own);
            for (to, from) in out.iter_mut().zip(&*own) {
                to[i * PANEL..(i + 1) * PANEL].copy_from_slice(from);
            }
        }
        return;
    }
    isa.run_long(ExpandPair { panels, rows, out });
}

/// The rows of a block of panel `panel` where they lie, if they are one stretch of f32.
pub(crate) fn in_place<'a>(
    tile: &WeightTile<'a>,
    panel: usize,
    rows: Rows,
) -> Option<&'a [[f32; PANEL]]> {
    match tile.values {
        TileValues::F32(values) if rows.runs == 1 => {
            let first = panel * tile.k_len + rows.first;
            Some(&values.as_chunks().0[first..first + rows.run])
        }
        _ => None,
    }
}

struct Expand<'a> {
    tile: &'a WeightTile<'a>,
    panel: usize,
    rows: Rows,
    out: &'a mut [[f32; PANEL]],
}

impl Work for Expand<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for run in 0..self.rows.runs {
            let at = self.rows.first + run * self.rows.stride;
            let out = &mut self.out[run * self.rows.run..][..self.rows.run];
            expand_run(simd, self.tile, self.panel, at, out);
        }
    }
}

/// Consecutive rows from row `at` of the tile's panel on.
#[inline(always)]
fn expand_run<S: Simd>(
    simd: S,
    tile: &WeightTile<'_>,
    panel: usize,
    at: usize,
    out: &mut [[f32; PANEL]],
) {
    let len = out.len();
    let first = (panel * tile.k_len + at) * PANEL;
    let range = first..first + len * PANEL;
    match tile.values {
        TileValues::F32(values) => out.copy_from_slice(values[range].as_chunks().0),
        TileValues::Lut { codes, lut } => {
            let codes = codes[range].as_chunks().0;
            match lut.small() {
                Some(lut) => {
                    for (to, codes) in out.iter_mut().zip(codes) {
                        simd.store(simd.lookup_16(lut, codes), to);
                    }
                }
                None => {
                    for (to, codes) in out.iter_mut().zip(codes) {
                        simd.store(simd.lookup(lut.values(), codes), to);
                    }
                }
            }
        }
        TileValues::I8 { q, steps } => {
            let q = q[range].as_chunks().0;
            match steps {
                Steps::Layer(step) => scale(simd, q, simd.splat(step), out),
                Steps::Channel(steps) => {
                    scale(simd, q, simd.load(&steps.as_chunks().0[panel]), out);
                }
                Steps::Block {
                    len: block,
                    blocks,
                    steps,
                } => {
                    let steps = &steps.as_chunks().0[panel * blocks..][..blocks];
                    let (mut done, mut k) = (0, tile.k0 + at);
                    while done < len {
                        let n = (block - k % block).min(len - done);
                        let step = simd.load(&steps[k / block]);
                        scale(simd, &q[done..done + n], step, &mut out[done..done + n]);
                        done += n;
                        k += n;
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn scale<S: Simd>(simd: S, q: &[[i8; PANEL]], step: S::V, out: &mut [[f32; PANEL]]) {
    for (to, q) in out.iter_mut().zip(q) {
        simd.store(simd.mul(simd.widen_i8(q), step), to);
    }
}

struct ExpandPair<'a> {
    panels: [(&'a WeightTile<'a>, usize); 2],
    rows: Rows,
    out: &'a mut [[f32; 2 * PANEL]],
}

impl LongWork for ExpandPair<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Long>(self, simd: S) {
        let len = self.rows.run;
        for run in 0..self.rows.runs {
            let at = self.rows.first + run * self.rows.stride;
            let out = &mut self.out[run * len..][..len];
            let (mut done, [a, b]) = (0, self.panels);
            while done < len {
                let (from, n) = Piece::new(simd, a, [at + done, at + len]);
                let (and, m) = Piece::new(simd, b, [at + done, at + len]);
                let n = n.min(m);
                let out = &mut out[done..done + n];
                match (from, and) {
                    (Piece::I8(from, step), Piece::I8(and, and_step)) => {
                        let step = simd.join(step, and_step);
                        for ((to, from), and) in out.iter_mut().zip(from).zip(and) {
                            let v = simd.mul16(simd.widen_i8_two(from, and), step);
                            simd.store16(v, to);
                        }
                    }
                    (Piece::F32(from), Piece::F32(and)) => {
                        for ((to, from), and) in out.iter_mut().zip(from).zip(and) {
                            simd.store16(simd.join(simd.load(from), simd.load(and)), to);
                        }
                    }
                    (Piece::Codes(from, lut), Piece::Codes(and, _)) => {
                        for ((to, from), and) in out.iter_mut().zip(from).zip(and) {
                            simd.store16(simd.lookup_two(lut, from, and), to);
                        }
                    }
                    // Mixtures are none of this work.
                    _ => return,
                }
                done += n;
            }
        }
    }
}

/// Rows of a panel that have one step.
enum Piece<'a, V> {
    F32(&'a [[f32; PANEL]]),
    I8(&'a [[i8; PANEL]], V),
    Codes(&'a [[u8; PANEL]], &'a [f32; 256]),
}

impl<'a, V: Copy> Piece<'a, V> {
    /// The next rows, and how many they are, of those from `at` to `end`.
    #[inline(always)]
    fn new<S: Simd<V = V>>(
        simd: S,
        (tile, panel): (&WeightTile<'a>, usize),
        [at, end]: [usize; 2],
    ) -> (Piece<'a, V>, usize) {
        let range = (panel * tile.k_len + at) * PANEL..(panel * tile.k_len + end) * PANEL;
        match tile.values {
            TileValues::F32(values) => (Piece::F32(values[range].as_chunks().0), end - at),
            TileValues::Lut { codes, lut } => {
                let codes = codes[range].as_chunks().0;
                (Piece::Codes(codes, lut.values()), end - at)
            }
            TileValues::I8 { q, steps } => {
                let (step, n) = match steps {
                    Steps::Layer(step) => (simd.splat(step), end - at),
                    Steps::Channel(steps) => (simd.load(&steps.as_chunks().0[panel]), end - at),
                    Steps::Block { len, blocks, steps } => {
                        let k = tile.k0 + at;
                        let step = &steps.as_chunks().0[panel * blocks..][k / len];
                        (simd.load(step), (len - k % len).min(end - at))
                    }
                };
                (Piece::I8(q[range].as_chunks().0, step), n)
            }
        }
    }
}
