//! Depthwise convolution: one input channel per output channel, 8 channels of `[tap][8]` weights
//! per panel.
//!
//! Narrow maps go to `depthwise_lanes.rs`, rows of 3x3 layers that see no padding above or below to
//! `depthwise3.rs`. For all others the input channels of a panel are packed as for the dense kernel
//! (halo, phases of the stride); a chain runs over the taps for 4 vectors of pixels of 2 channels, or
//! for one vector of all 8 channels where rows are short. Output channel `o` reads input channel
//! `o / multiplier`. Bound by loads, one per multiply-add.

use super::blocks::{K_BLOCK, KBlocks};
use super::gemm::{eight, windows};
use super::plane::{Band, Offsets, Plane};
use super::store::{GROUP, Pixels, Sums, Target, Vectors};
use super::{Call, ConvShape, Start, depthwise_lanes, depthwise3, split_scratch};
use crate::expand::expand;
use crate::simd::{Isa, Simd, Work};
use crate::weights::PANEL;
use std::ops::Range;

/// f32 elements of scratch.
pub(super) fn workspace(shape: &ConvShape, rows: usize) -> usize {
    let packed = K_BLOCK * PANEL + K_BLOCK + Plane::workspace_depthwise(shape, PANEL, rows);
    // Either, on whatever instruction set.
    packed.max(depthwise_lanes::workspace(shape))
}

/// Runs the call.
pub(super) fn run(isa: Isa, call: Call<'_, '_>) {
    if depthwise_lanes::suits(isa, call.shape) {
        return depthwise_lanes::run(isa, call);
    }
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
    let (offsets, plane_data) = scratch.split_at_mut(K_BLOCK);
    let mut offsets = Offsets::new(offsets);
    let mut sums = Sums::new();
    let multiplier = shape.out_per_group();
    let whole = KBlocks::new(tile, 1, shape.taps()).next();
    let whole = whole.filter(|block| block.len == NINE && shape.taps() == NINE);
    let own = match whole {
        Some(_) => depthwise3::rows(isa, shape, &rows),
        None => rows.start..rows.start,
    };
    for chunk in (0..tile.panels).step_by(depthwise3::PANELS) {
        let end = tile.panels.min(chunk + depthwise3::PANELS);
        let Some(block) = whole.as_ref().filter(|_| !own.is_empty()) else {
            break;
        };
        for (i, p) in (chunk..end).enumerate() {
            expand(isa, tile, p, block.rows, &mut weights[i * NINE..]);
        }
        let (first, _) = shape.panel_channels(tile.first_panel + chunk);
        let (last, lanes) = shape.panel_channels(tile.first_panel + end - 1);
        let mut target = Target {
            out: &mut *out,
            first_row: rows.start,
            band: Band {
                rows: own.clone(),
                columns: 0..shape.out_w,
            },
            accumulate: start == Start::Accumulate,
            epilogue,
            plain: false,
        };
        isa.run(depthwise3::Direct {
            isa,
            weights: &*weights,
            input,
            shape,
            channels: first..last + lanes,
            target: &mut target,
        });
    }
    if own == rows {
        return;
    }
    for p in 0..tile.panels {
        let (first, lanes) = shape.panel_channels(tile.first_panel + p);
        let channels = first / multiplier..(first + lanes - 1) / multiplier + 1;
        for mut block in KBlocks::new(tile, 1, shape.taps()) {
            expand(isa, tile, p, block.rows, weights);
            for rest in [rows.start..own.start, own.end..rows.end] {
                if rest.is_empty() {
                    continue;
                }
                block.channels = channels.clone();
                let plane = Plane::new(shape, &block, rest.len());
                block.channels = 0..1;
                let offsets = offsets.of(&plane, shape, &block, tile.order);
                let mut planes = [0; PANEL];
                for (lane, plane_at) in planes.iter_mut().enumerate().take(lanes) {
                    *plane_at = ((first + lane) / multiplier - channels.start) * plane.channel;
                }
                for band in Band::all(shape, &plane, &rest) {
                    plane.pack(isa, shape, input, channels.clone(), &band, plane_data);
                    let packed = Packed {
                        weights: &weights[..block.len],
                        offsets,
                        data: &*plane_data,
                        planes,
                        plane: &plane,
                        channels: first..first + lanes,
                        target: Target {
                            out: &mut *out,
                            first_row: rows.start,
                            band,
                            accumulate: !block.first || start == Start::Accumulate,
                            epilogue: epilogue.filter(|_| block.last),
                            plain: false,
                        },
                    };
                    packed.run(isa, &mut sums);
                }
            }
        }
    }
}

/// A packed band of a panel.
struct Packed<'a, 'b, 'c> {
    weights: &'a [[f32; PANEL]],
    offsets: &'a [u32],
    data: &'a [f32],
    planes: [usize; PANEL],
    plane: &'a Plane,
    channels: Range<usize>,
    target: Target<'b, 'c>,
}

impl Packed<'_, '_, '_> {
    fn run(mut self, isa: Isa, sums: &mut Sums) {
        let columns = self.target.band.columns.len();
        let mut vectors = Vectors::new(&self.target.band, self.plane.is_flat(columns));
        let mut left = vectors.count();
        while left > 0 {
            let mut pixels = [Pixels::default(); GROUP];
            let mut bases = [0; GROUP];
            let count = if left >= GROUP { GROUP } else { 1 };
            for j in 0..count {
                pixels[j] = vectors.next();
                bases[j] = self.plane.base(pixels[j].row, pixels[j].column);
            }
            left -= count;
            let spots = self.target.spots(&pixels[..count]);
            let taps = Taps {
                weights: self.weights,
                offsets: self.offsets,
                data: self.data,
                planes: self.planes,
                sums: &mut *sums,
            };
            if count == GROUP {
                isa.run(Wide { taps, bases });
            } else {
                isa.run(Narrow {
                    taps,
                    base: bases[0],
                });
            }
            self.target.store(isa, self.channels.clone(), sums, &spots);
        }
    }
}

/// Taps of a 3x3 kernel.
const NINE: usize = 9;

/// The taps of a block of one panel, and its planes.
struct Taps<'a> {
    weights: &'a [[f32; PANEL]],
    offsets: &'a [u32],
    data: &'a [f32],
    /// Where the plane of each lane starts.
    planes: [usize; PANEL],
    sums: &'a mut Sums,
}

/// All channels for four vectors of pixels, two channels at a time.
struct Wide<'a> {
    taps: Taps<'a>,
    bases: [usize; GROUP],
}

impl Work for Wide<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        self.taps.chains::<S, 2, GROUP, 0>(simd, self.bases);
        self.taps.chains::<S, 2, GROUP, 2>(simd, self.bases);
        self.taps.chains::<S, 2, GROUP, 4>(simd, self.bases);
        self.taps.chains::<S, 2, GROUP, 6>(simd, self.bases);
    }
}

/// All channels for one vector of pixels.
struct Narrow<'a> {
    taps: Taps<'a>,
    base: usize,
}

impl Work for Narrow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        self.taps.chains::<S, 8, 1, 0>(simd, [self.base]);
    }
}

impl Taps<'_> {
    /// Chains of `L` channels from lane `LANE` on, times `NV` vectors of pixels.
    #[inline(always)]
    fn chains<S: Simd, const L: usize, const NV: usize, const LANE: usize>(
        &mut self,
        simd: S,
        bases: [usize; NV],
    ) {
        let mut acc = [[simd.splat(0.0); NV]; L];
        let mut last = 0;
        for i in 0..L {
            last = last.max(self.planes[LANE + i]);
        }
        let len = self.data.len() - last;
        let mut channels = [[self.data; NV]; L];
        for i in 0..L {
            channels[i] = windows(&self.data[self.planes[LANE + i]..][..len], bases);
        }
        for (w, &offset) in self.weights.iter().zip(self.offsets) {
            for i in 0..L {
                let w = simd.splat(w[LANE + i]);
                for j in 0..NV {
                    let x = simd.load(eight(channels[i][j], offset as usize));
                    acc[i][j] = simd.mul_add(w, x, acc[i][j]);
                }
            }
        }
        for i in 0..L {
            for (v, to) in acc[i]
                .into_iter()
                .zip(self.sums.0[LANE + i].as_chunks_mut().0)
            {
                simd.store(v, to);
            }
        }
    }
}
