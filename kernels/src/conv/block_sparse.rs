//! Direct sparse convolution for weights that are zero in groups of output channels, as pruned in
//! blocks of 2, 4 or 8.
//!
//! Per block of k and group of `L` channels, the steps at which any channel of the group has a
//! weight become a list of (offset, `L` weights); a chain of such steps runs over `L` channels
//! times 24 or 32 pixels, so an input loaded once is used `L` times. With `L` = 4 this is the inner
//! kernel of the dense algorithm on fewer steps; blocks of 8 are two groups of 4. It is right for
//! any weights, and wastes the zeros within a group: unstructured zeros belong to `sparse.rs`.
//! Blocks, planes and order of summation are the dense kernel's, and so are the bits. It loses
//! where lists cost as much as using them: few pixels.

use super::blocks::{K_BLOCK, KBlocks};
use super::gemm::{eight, windows};
use super::plane::{Band, Offsets, Plane};
use super::store::{Pixels, Sums, Target, Vectors};
use super::{Call, ConvShape, Start, chunks, split_scratch};
use crate::expand::expand;
use crate::simd::{Isa, Simd, Work};
use crate::weights::PANEL;

/// Panels that share a packed plane.
const CHUNK: usize = 4;

/// f32 elements of scratch for groups of any length.
pub(super) fn workspace(shape: &ConvShape, panels: usize, rows: usize) -> usize {
    let lists = panels.clamp(1, CHUNK) * K_BLOCK * (PANEL + PANEL / 2);
    K_BLOCK * PANEL + lists + K_BLOCK + Plane::workspace(shape, rows)
}

/// Runs the call with groups of `L` channels and `NV` vectors of pixels. (Never inlined: the table of algorithms would get a
/// copy of its own.)
#[inline(never)]
pub(super) fn run<const L: usize, const NV: usize>(isa: Isa, call: Call<'_, '_>) {
    let Call {
        shape,
        tile,
        input,
        rows,
        out,
        start,
        epilogue,
        scratch,
        ..
    } = call;
    let groups = PANEL / L;
    let lists = tile.panels.min(CHUNK) * groups;
    let (weights, scratch) = split_scratch::<PANEL>(scratch, K_BLOCK);
    let (values, scratch) = split_scratch::<L>(scratch, lists * K_BLOCK);
    let (places, scratch) = scratch.split_at_mut(lists * K_BLOCK);
    let places: &mut [u32] = bytemuck::cast_slice_mut(places);
    let (offsets, plane_data) = scratch.split_at_mut(K_BLOCK);
    let mut offsets = Offsets::new(offsets);
    let mut sums = Sums::new();
    let mut counts = [[0usize; PANEL]; CHUNK];
    for (group, chunk) in chunks(shape, tile, CHUNK) {
        for block in KBlocks::new(tile, shape.in_per_group(), shape.taps()) {
            let plane = Plane::new(shape, &block, rows.len());
            let offsets = offsets.of(&plane, shape, &block, tile.order);
            for (i, p) in chunk.clone().enumerate() {
                expand(isa, tile, p, block.rows, weights);
                for g in 0..groups {
                    let list = (i * groups + g) * K_BLOCK;
                    counts[i][g] = collect(
                        &weights[..block.len],
                        g * L,
                        offsets,
                        &mut values[list..][..K_BLOCK],
                        &mut places[list..][..K_BLOCK],
                    );
                }
            }
            let channels = group * shape.in_per_group() + block.channels.start;
            let channels = channels..channels + block.channels.len();
            for band in Band::all(shape, &plane, &rows) {
                plane.pack(isa, shape, input, channels.clone(), &band, plane_data);
                let mut vectors = Vectors::new(&band, plane.is_flat(band.columns.len()));
                let mut target = Target {
                    out: &mut *out,
                    first_row: rows.start,
                    band,
                    accumulate: !block.first || start == Start::Accumulate,
                    epilogue: epilogue.filter(|_| block.last),
                    plain: false,
                };
                let mut left = vectors.count();
                while left > 0 {
                    let mut pixels = [Pixels::default(); NV];
                    let mut bases = [0; NV];
                    let count = if left >= NV { NV } else { 1 };
                    for j in 0..count {
                        pixels[j] = vectors.next();
                        bases[j] = plane.base(pixels[j].row, pixels[j].column);
                    }
                    left -= count;
                    let spots = target.spots(&pixels[..count]);
                    for (i, p) in chunk.clone().enumerate() {
                        for g in 0..groups {
                            let at = (i * groups + g) * K_BLOCK;
                            let list = List {
                                weights: &values[at..][..counts[i][g]],
                                offsets: &places[at..][..counts[i][g]],
                                lane: g * L,
                                sums: &mut sums,
                            };
                            if count == NV {
                                let windows = windows(plane_data, bases);
                                isa.run(Group { list, windows });
                            } else {
                                let windows = windows(plane_data, [bases[0]]);
                                isa.run(Group { list, windows });
                            }
                        }
                        let (first, lanes) = shape.panel_channels(tile.first_panel + p);
                        target.store(isa, first..first + lanes, &mut sums, &spots);
                    }
                }
            }
        }
    }
}

/// Lists the steps of a block at which one of the `L` lanes from `lane` on has a weight.
fn collect<const L: usize>(
    weights: &[[f32; PANEL]],
    lane: usize,
    offsets: &[u32],
    values: &mut [[f32; L]],
    places: &mut [u32],
) -> usize {
    let mut count = 0;
    for (w, &offset) in weights.iter().zip(offsets) {
        let mut lanes = [0.0; L];
        lanes.copy_from_slice(&w[lane..lane + L]);
        // Written always, kept when not zero: no branch to mispredict.
        values[count] = lanes;
        places[count] = offset;
        count += usize::from(lanes.iter().fold(0, |bits, w| bits | (w.to_bits() << 1)) != 0);
    }
    count
}

/// The steps of one group.
struct List<'a, const L: usize> {
    weights: &'a [[f32; L]],
    offsets: &'a [u32],
    /// First lane.
    lane: usize,
    sums: &'a mut Sums,
}

/// The chains of a group for `NV` vectors of pixels.
struct Group<'a, const L: usize, const NV: usize> {
    list: List<'a, L>,
    windows: [&'a [f32]; NV],
}

impl<const L: usize, const NV: usize> Work for Group<'_, L, NV> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let List {
            weights,
            offsets,
            lane,
            sums,
        } = self.list;
        let mut acc = [[simd.splat(0.0); NV]; L];
        for (w, &offset) in weights.iter().zip(offsets) {
            let mut x = [simd.splat(0.0); NV];
            for j in 0..NV {
                x[j] = simd.load(eight(self.windows[j], offset as usize));
            }
            for i in 0..L {
                let w = simd.splat(w[i]);
                for j in 0..NV {
                    acc[i][j] = simd.mul_add(w, x[j], acc[i][j]);
                }
            }
        }
        for (acc, sums) in acc.into_iter().zip(&mut sums.0[lane..lane + L]) {
            for (v, to) in acc.into_iter().zip(sums.as_chunks_mut().0) {
                simd.store(v, to);
            }
        }
    }
}
