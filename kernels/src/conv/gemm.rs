//! Dense convolution: register tiles of channels x pixels over packed planes.
//!
//! ```text
//! for chunk of at most 8 panels of one group
//!   for block of k                      (blocks.rs: at most 192 products)
//!     expand the chunk's weights        (codes -> f32, once per block; f32 is used where it lies)
//!     for band of pixels                (plane.rs: at most 64 KiB of input, packed once)
//!       for group of 24 pixels
//!         for panel of the chunk        8 channels x 24 pixels from registers, then add to out
//! ```
//! Two kernels with the same bits: a pixel per lane (vectors of input, weights broadcast) where a
//! row of output fills vectors well, and a channel per lane (vectors of weights, input broadcast)
//! where it does not (`channels.rs`). Cost: k x pixels x channels multiply-adds plus one copy of the input per 8
//! panels and tile. It loses to sparse kernels when most weights are zero, and to Winograd on
//! large 3x3 maps with memory to spare. After Goto & van de Geijn (2008), and the indirect
//! convolution of Dukhan (2019), whose pointers are offsets here.

use super::blocks::{Block, K_BLOCK, KBlocks};
use super::plane::{Band, Offsets, Plane};
use super::store::{Pixels, Sums, Target, Vectors, plain};
use super::{Call, ConvShape, block_weights, chunks, split_scratch};
use crate::simd::{Isa, Simd, Work};
use crate::weights::PANEL;

/// Panels that share a packed plane.
pub(super) const CHUNK: usize = 8;

/// f32 elements of scratch.
pub(super) fn workspace(shape: &ConvShape, panels: usize, rows: usize) -> usize {
    let weights = panels.clamp(1, CHUNK) * K_BLOCK * PANEL;
    weights + K_BLOCK + Plane::workspace(shape, rows)
}

/// Runs the call.
pub(super) fn run(isa: Isa, call: Call<'_, '_>) {
    let Call {
        shape,
        tile,
        tiles,
        input,
        rows,
        out,
        start,
        epilogue,
        scratch,
        ..
    } = call;
    let (weights, scratch) = split_scratch::<PANEL>(scratch, tile.panels.min(CHUNK) * K_BLOCK);
    let (offsets, plane_data) = scratch.split_at_mut(K_BLOCK);
    let mut offsets = Offsets::new(offsets);
    let mut sums: [Sums; CHUNK] = std::array::from_fn(|_| Sums::new());
    let by_pixels = lanes_fill(shape.out_w, tile.panels);
    for (group, chunk) in chunks(shape, tile, CHUNK) {
        for block in KBlocks::new(tile, shape.in_per_group(), shape.taps()) {
            let weights = block_weights(isa, tiles, chunk.clone(), block.rows, weights);
            let plane = Plane::new(shape, &block, rows.len());
            let offsets = offsets.of(&plane, shape, &block, tile.order);
            let channels = group * shape.in_per_group() + block.channels.start;
            let channels = channels..channels + block.channels.len();
            for band in Band::all(shape, &plane, &rows) {
                plane.pack(isa, shape, input, channels.clone(), &band, plane_data);
                let panels = Panels {
                    shape,
                    first: tile.first_panel + chunk.start,
                    weights: &weights,
                    count: chunk.len(),
                    block: &block,
                    offsets,
                    plane: &plane,
                    data: &*plane_data,
                };
                let mut target = Target {
                    first_row: rows.start,
                    accumulate: !block.first || start == super::Start::Accumulate,
                    epilogue: epilogue.filter(|_| block.last),
                    plain: !by_pixels && plain(out, &band),
                    out: &mut *out,
                    band,
                };
                if by_pixels {
                    let flat = plane.is_flat(target.band.columns.len());
                    let vectors = Vectors::new(&target.band, flat);
                    panels.pixel_lanes(isa, vectors, &mut target, &mut sums);
                } else {
                    panels.channel_lanes(isa, &mut target);
                }
            }
        }
    }
}

/// Weights of a block, panel after panel of a chunk.
pub(super) type Weights<'a> = [&'a [[f32; PANEL]]; CHUNK];

/// A chunk of panels and a packed band.
pub(super) struct Panels<'a> {
    pub shape: &'a ConvShape,
    /// First panel within the layer, and how many.
    pub first: usize,
    pub count: usize,
    pub weights: &'a Weights<'a>,
    pub block: &'a Block,
    pub offsets: &'a [u32],
    pub plane: &'a Plane,
    pub data: &'a [f32],
}

impl Panels<'_> {
    #[inline(always)]
    pub fn weights(&self, i: usize) -> &[[f32; PANEL]] {
        self.weights[i]
    }

    pub fn pixel_lanes(
        &self,
        isa: Isa,
        mut vectors: Vectors,
        target: &mut Target<'_, '_>,
        sums: &mut [Sums; CHUNK],
    ) {
        if isa.is_fast() && target.by_lines(vectors.is_flat()) {
            return self.lines(isa, target);
        }
        let mut left = vectors.count();
        while left > 0 {
            match left {
                1 => self.pixel_group::<1>(isa, &mut vectors, target, sums),
                // Two groups of two keep the registers busier than three and one.
                2 | 4 => self.pixel_group::<2>(isa, &mut vectors, target, sums),
                _ => self.pixel_group::<3>(isa, &mut vectors, target, sums),
            }
            left -= match left {
                1 => 1,
                2 | 4 => 2,
                _ => 3,
            };
        }
    }

    /// `NV` vectors of pixels times every panel.
    fn pixel_group<const NV: usize>(
        &self,
        isa: Isa,
        vectors: &mut Vectors,
        target: &mut Target<'_, '_>,
        sums: &mut [Sums; CHUNK],
    ) {
        let mut pixels = [Pixels::default(); NV];
        let mut bases = [0; NV];
        for j in 0..NV {
            pixels[j] = vectors.next();
            bases[j] = self.plane.base(pixels[j].row, pixels[j].column);
        }
        let windows = windows(self.data, bases);
        let offsets = self.offsets;
        let spots = target.spots(&pixels);
        for i in 0..self.count {
            let weights = self.weights(i);
            if NV == 1 {
                // One vector: all 8 channels at once, or the chains would be too few.
                isa.run(PixelTile::<NV, 8, 0> {
                    weights,
                    offsets,
                    windows,
                    sums: &mut sums[0],
                });
            } else {
                isa.run(PixelTile::<NV, 4, 0> {
                    weights,
                    offsets,
                    windows,
                    sums: &mut sums[0],
                });
                isa.run(PixelTile::<NV, 4, 4> {
                    weights,
                    offsets,
                    windows,
                    sums: &mut sums[0],
                });
            }
            let (first, lanes) = self.shape.panel_channels(self.first + i);
            target.store(isa, first..first + lanes, &mut sums[0], &spots);
        }
    }
}

/// Pixels of a row whose sums are made before they are stored: five groups of three vectors.
const STRETCH: usize = 120;
/// Products of a stretch that are worth it: with more, the input of one group is read from the L1 cache by every panel instead.
const MOST_PRODUCTS: usize = 128;

/// Sums of a stretch, one row per channel of a panel, with room for a vector behind.
#[repr(align(32))]
struct Stretch([[f32; STRETCH + 8]; PANEL]);

impl Panels<'_> {
    /// Row after row of a band that is wide enough, a stretch at a time: places and epilogues are found once per stretch.
    fn lines(&self, isa: Isa, target: &mut Target<'_, '_>) {
        let mut sums = Stretch([[0.0; STRETCH + 8]; PANEL]);
        let columns = target.band.columns.len();
        let longest = if self.block.len <= MOST_PRODUCTS {
            STRETCH
        } else {
            24
        };
        for row in 0..target.band.rows.len() {
            let mut first = 0;
            while first < columns {
                // No single vector is left for the last stretch.
                let len = match columns - first {
                    left if left > longest && left <= longest + 8 => longest - 8,
                    left => left.min(longest),
                };
                let data = &self.data[self.plane.base(row, first)..];
                for i in 0..self.count {
                    let (weights, offsets) = (self.weights(i), self.offsets);
                    let mut at = 0;
                    while at < len {
                        let data = &data[self.plane.base(0, at)..];
                        let left = (len - at).div_ceil(8);
                        // Two groups of two keep the registers busier than three and one.
                        let wide = isa.has_32();
                        at += match left {
                            2 | 4 if wide => {
                                isa.run_wide(LineTile::<2, 8, 0>(
                                    weights, offsets, data, &mut sums, at,
                                ));
                                16
                            }
                            3.. if wide => {
                                isa.run_wide(LineTile::<3, 8, 0>(
                                    weights, offsets, data, &mut sums, at,
                                ));
                                24
                            }
                            1 => {
                                isa.run(LineTile::<1, 8, 0>(weights, offsets, data, &mut sums, at));
                                8
                            }
                            2 | 4 => {
                                isa.run(LineTile::<2, 4, 0>(weights, offsets, data, &mut sums, at));
                                isa.run(LineTile::<2, 4, 4>(weights, offsets, data, &mut sums, at));
                                16
                            }
                            _ => {
                                isa.run(LineTile::<3, 4, 0>(weights, offsets, data, &mut sums, at));
                                isa.run(LineTile::<3, 4, 4>(weights, offsets, data, &mut sums, at));
                                24
                            }
                        };
                    }
                    let (channel, lanes) = self.shape.panel_channels(self.first + i);
                    for (channel, sums) in (channel..channel + lanes).zip(&sums.0) {
                        target.finish(isa, channel, [row, first, len], sums);
                    }
                }
                first += len;
            }
        }
    }
}

/// Chains of `MR` channels from lane `LANE` of the panel on, times `NV` neighbouring vectors of pixels: weights, offsets,
/// input, and where the sums go. A function of its own, or the chains do not stay in registers.
struct LineTile<'a, const NV: usize, const MR: usize, const LANE: usize>(
    &'a [[f32; PANEL]],
    &'a [u32],
    &'a [f32],
    &'a mut Stretch,
    usize,
);

impl<const NV: usize, const MR: usize, const LANE: usize> Work for LineTile<'_, NV, MR, LANE> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if !S::FAST || NV * MR > S::REGISTERS * 3 / 4 {
            return;
        }
        let LineTile(weights, offsets, data, sums, at) = self;
        let mut acc = [[simd.splat(0.0); NV]; MR];
        for (w, &offset) in weights.iter().zip(offsets) {
            let from = data[offset as usize..][..NV * 8].as_chunks().0;
            let mut x = [simd.splat(0.0); NV];
            for j in 0..NV {
                x[j] = simd.load(&from[j]);
            }
            for i in 0..MR {
                let w = simd.splat(w[LANE + i]);
                for j in 0..NV {
                    acc[i][j] = simd.mul_add(w, x[j], acc[i][j]);
                }
            }
        }
        for i in 0..MR {
            let to = sums.0[LANE + i][at..at + NV * 8].as_chunks_mut().0;
            for j in 0..NV {
                simd.store(acc[i][j], &mut to[j]);
            }
        }
    }
}

/// The data from each base on, all of one length, so that one comparison checks an offset for all.
#[inline(always)]
pub(super) fn windows<const N: usize>(data: &[f32], bases: [usize; N]) -> [&[f32]; N] {
    let mut last = 0;
    for base in bases {
        last = last.max(base);
    }
    let len = data.len() - last;
    let mut windows = [data; N];
    for j in 0..N {
        windows[j] = &data[bases[j]..][..len];
    }
    windows
}

/// 8 values of a window.
#[inline(always)]
pub(super) fn eight(window: &[f32], offset: usize) -> &[f32; 8] {
    &window[offset..offset + 8].as_chunks().0[0]
}

/// Chains of `MR` channels, from lane `LANE` of the panel on, times `NV` vectors of pixels.
pub(super) struct PixelTile<'a, const NV: usize, const MR: usize, const LANE: usize> {
    pub weights: &'a [[f32; PANEL]],
    pub offsets: &'a [u32],
    pub windows: [&'a [f32]; NV],
    pub sums: &'a mut Sums,
}

impl<const NV: usize, const MR: usize, const LANE: usize> Work for PixelTile<'_, NV, MR, LANE> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut acc = [[simd.splat(0.0); NV]; MR];
        for (w, &offset) in self.weights.iter().zip(self.offsets) {
            let mut x = [simd.splat(0.0); NV];
            for j in 0..NV {
                x[j] = simd.load(eight(self.windows[j], offset as usize));
            }
            for i in 0..MR {
                let w = simd.splat(w[LANE + i]);
                for j in 0..NV {
                    acc[i][j] = simd.mul_add(w, x[j], acc[i][j]);
                }
            }
        }
        for i in 0..MR {
            let to = self.sums.0[LANE + i].as_chunks_mut().0;
            for j in 0..NV {
                simd.store(acc[i][j], &mut to[j]);
            }
        }
    }
}

/// Whether a pixel per lane is the faster kernel: rows of that many pixels leave few lanes unused. A single panel gives a
/// channel per lane too few chains.
pub(super) fn lanes_fill(columns: usize, panels: usize) -> bool {
    let percent = if panels == 1 { 87 } else { 95 };
    columns * 100 >= columns.next_multiple_of(8) * percent
}
