//! Direct sparse convolution: zero weights are skipped.
//!
//! The blocks, planes and sums are those of the dense kernel; per block and channel of a panel the
//! non-zero weights become a list of (offset, weight), and a chain runs over 32 pixels at once.
//! A skipped product is exactly zero, so the result equals the dense kernel's. One load per
//! multiply-add bounds it near half of the dense kernel's rate on the remaining products: it wins
//! from about 55 % zeros on large maps and 75 % on 8x8 ones (measured: `docs/algorithms.md`), and
//! loses on few pixels, where making the lists costs as much as using
//! them. After SkimCaffe (Park et al., ICLR 2017) and Fast Sparse ConvNets (Elsen et al., 2020).

use super::blocks::{K_BLOCK, KBlocks};
use super::gemm::{eight, windows};
use super::plane::{Band, Offsets, Plane};
use super::store::{GROUP, Pixels, SUMS, Sums, Target, Vectors};
use super::{Call, ConvShape, Start, chunks, split_scratch};
use crate::expand::expand;
use crate::simd::{Isa, Simd, Work};
use crate::weights::PANEL;

/// Panels that share a packed plane.
const CHUNK: usize = 4;

/// (offset, bits of the weight)
type Entry = [u32; 2];

/// f32 elements of scratch.
pub(super) fn workspace(shape: &ConvShape, panels: usize, rows: usize) -> usize {
    let lists = panels.clamp(1, CHUNK) * PANEL * K_BLOCK * 2;
    let plane = Plane::workspace(shape, rows);
    K_BLOCK * PANEL + lists + K_BLOCK + plane
}

/// Runs the call.
pub(super) fn run(isa: Isa, call: Call<'_, '_>) {
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
    let (weights, scratch) = split_scratch::<PANEL>(scratch, K_BLOCK);
    let (lists, scratch) = split_scratch::<2>(scratch, tile.panels.min(CHUNK) * PANEL * K_BLOCK);
    let lists: &mut [Entry] = bytemuck::cast_slice_mut(lists);
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
                let lists = &mut lists[i * PANEL * K_BLOCK..][..PANEL * K_BLOCK];
                counts[i] = collect(&weights[..block.len], offsets, lists);
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
                    let wide = left >= GROUP;
                    let mut pixels = [Pixels::default(); GROUP];
                    let mut bases = [0; GROUP];
                    let count = if wide { GROUP } else { 1 };
                    for j in 0..count {
                        pixels[j] = vectors.next();
                        bases[j] = plane.base(pixels[j].row, pixels[j].column);
                    }
                    left -= count;
                    let spots = target.spots(&pixels[..count]);
                    for (i, p) in chunk.clone().enumerate() {
                        let (first, lanes) = shape.panel_channels(tile.first_panel + p);
                        for (lane, &len) in counts[i].iter().enumerate().take(lanes) {
                            let list = &lists[(i * PANEL + lane) * K_BLOCK..][..len];
                            let sums = &mut sums.0[lane];
                            if wide {
                                let windows = windows(plane_data, bases);
                                isa.run(Chains {
                                    list,
                                    windows,
                                    sums,
                                });
                            } else {
                                let windows = windows(plane_data, [bases[0]]);
                                isa.run(Chains {
                                    list,
                                    windows,
                                    sums,
                                });
                            }
                        }
                        target.store(isa, first..first + lanes, &mut sums, &spots);
                    }
                }
            }
        }
    }
}

/// Splits a block of a panel into one list of non-zero weights per channel; returns their lengths.
fn collect(weights: &[[f32; PANEL]], offsets: &[u32], lists: &mut [Entry]) -> [usize; PANEL] {
    let mut counts = [0; PANEL];
    for (w, &offset) in weights.iter().zip(offsets) {
        for (lane, &w) in w.iter().enumerate() {
            // Written always, kept when not zero: no branch to mispredict.
            lists[lane * K_BLOCK + counts[lane]] = [offset, w.to_bits()];
            counts[lane] += usize::from(w != 0.0);
        }
    }
    counts
}

/// The chain of one channel for `NV` vectors of pixels.
struct Chains<'a, const NV: usize> {
    list: &'a [Entry],
    windows: [&'a [f32]; NV],
    sums: &'a mut [f32; SUMS],
}

impl<const NV: usize> Work for Chains<'_, NV> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut acc = [simd.splat(0.0); NV];
        for &[offset, w] in self.list {
            let w = simd.splat(f32::from_bits(w));
            for j in 0..NV {
                let x = simd.load(eight(self.windows[j], offset as usize));
                acc[j] = simd.mul_add(w, x, acc[j]);
            }
        }
        for (v, to) in acc.into_iter().zip(self.sums.as_chunks_mut().0) {
            simd.store(v, to);
        }
    }
}
