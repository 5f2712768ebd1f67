//! From codes to f32, one block of k of one panel at a time.

use crate::conv::blocks::Rows;
use crate::simd::{Isa, Simd, Work};
use crate::weights::{PANEL, Steps, TileValues, WeightTile};

/// Writes the rows of a block of panel `panel` of the tile, 8 weights each, one behind the other.
pub(crate) fn expand(
    isa: Isa,
    tile: &WeightTile<'_>,
    panel: usize,
    rows: Rows,
    out: &mut [[f32; PANEL]],
) {
    expand_to(isa, tile, panel, rows, 1, out);
}

/// The same with the rows `step` behind each other.
pub(crate) fn expand_to(
    isa: Isa,
    tile: &WeightTile<'_>,
    panel: usize,
    rows: Rows,
    step: usize,
    out: &mut [[f32; PANEL]],
) {
    isa.run(Expand {
        tile,
        panel,
        rows,
        step,
        out,
    });
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
    step: usize,
    out: &'a mut [[f32; PANEL]],
}

impl Work for Expand<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for run in 0..self.rows.runs {
            let at = self.rows.first + run * self.rows.stride;
            let out = &mut self.out[run * self.rows.run * self.step..];
            expand_run(
                simd,
                self.tile,
                self.panel,
                [at, self.rows.run],
                self.step,
                out,
            );
        }
    }
}

/// `len` consecutive rows from row `at` of the tile's panel on.
#[inline(always)]
fn expand_run<S: Simd>(
    simd: S,
    tile: &WeightTile<'_>,
    panel: usize,
    [at, len]: [usize; 2],
    step: usize,
    out: &mut [[f32; PANEL]],
) {
    let mut out = out
        .chunks_mut(step)
        .take(len)
        .filter_map(|rows| rows.first_mut());
    let first = (panel * tile.k_len + at) * PANEL;
    let range = first..first + len * PANEL;
    match tile.values {
        TileValues::F32(values) => {
            for (to, from) in out.zip(values[range].as_chunks().0) {
                *to = *from;
            }
        }
        TileValues::Lut { codes, lut } => {
            let codes = codes[range].as_chunks().0;
            match lut.small() {
                Some(lut) => {
                    for (to, codes) in out.zip(codes) {
                        simd.store(simd.lookup_16(lut, codes), to);
                    }
                }
                None => {
                    for (to, codes) in out.zip(codes) {
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
                        scale(simd, &q[done..done + n], step, out.by_ref());
                        done += n;
                        k += n;
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn scale<'a, S: Simd>(
    simd: S,
    q: &[[i8; PANEL]],
    step: S::V,
    out: impl Iterator<Item = &'a mut [f32; PANEL]>,
) {
    // The codes first: a pair of iterators takes one from the first before it finds the second at its end.
    for (q, to) in q.iter().zip(out) {
        simd.store(simd.mul(simd.widen_i8(q), step), to);
    }
}
