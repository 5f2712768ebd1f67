//! From codes to f32, one block of k of one panel at a time.

use crate::simd::{Isa, Simd, Work};
use crate::weights::{PANEL, Steps, TileValues, WeightTile};

/// Writes `len` rows of 8 weights of panel `panel` of the tile, from k `at` of the tile on.
pub(crate) fn expand(
    isa: Isa,
    tile: &WeightTile<'_>,
    panel: usize,
    at: usize,
    len: usize,
    out: &mut [[f32; PANEL]],
) {
    isa.run(Expand {
        tile,
        panel,
        at,
        len,
        out,
    });
}

struct Expand<'a> {
    tile: &'a WeightTile<'a>,
    panel: usize,
    at: usize,
    len: usize,
    out: &'a mut [[f32; PANEL]],
}

impl Work for Expand<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Expand {
            tile,
            panel,
            at,
            len,
            out,
        } = self;
        let first = (panel * tile.k_len + at) * PANEL;
        let range = first..first + len * PANEL;
        let out = &mut out[..len];
        match tile.values {
            TileValues::F32(values) => out.copy_from_slice(values[range].as_chunks().0),
            TileValues::Lut { codes, lut } => {
                for (to, codes) in out.iter_mut().zip(codes[range].as_chunks().0) {
                    simd.store(simd.lookup(lut, codes), to);
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
}

#[inline(always)]
fn scale<S: Simd>(simd: S, q: &[[i8; PANEL]], step: S::V, out: &mut [[f32; PANEL]]) {
    for (to, q) in out.iter_mut().zip(q) {
        simd.store(simd.mul(simd.from_i8(q), step), to);
    }
}
