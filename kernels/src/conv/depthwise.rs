//! Depthwise convolution: one input channel per output channel, 8 channels of `[tap][8]` weights
//! per panel.
//!
//! The input channels of a panel are packed as for the dense kernel (halo, phases of the stride);
//! a chain runs over the taps for 4 vectors of pixels of 2 channels, or for one vector of all 8
//! channels where rows are short. With nine taps and rows of 16 and more, weights stay in registers and sums are stored at once. Output channel `o` reads input channel `o / multiplier`. Bound by
//! loads, one per multiply-add; a 3x3 layer moves about as many bytes as it computes.

use super::blocks::{K_BLOCK, KBlocks};
use super::gemm::{eight, windows};
use super::plane::{Band, Offsets, Plane};
use super::store::{GROUP, Last, Pixels, Sums, Target, Vectors};
use super::{Call, ConvShape, Start, depthwise_lanes, depthwise3, split_scratch};
use crate::activation::{self, VectorFunction, finish_vectors};
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
        if isa.is_fast()
            && columns >= MIN_NINE
            && self.weights.len() == NINE
            && let Some(offsets) = self.offsets.first_chunk::<NINE>()
        {
            return isa.run(Nine {
                weights: self.weights,
                offsets,
                data: self.data,
                planes: self.planes,
                plane: self.plane,
                channels: self.channels,
                target: &mut self.target,
            });
        }
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

/// Columns of rows that are worth it: on narrower ones four vectors of several rows keep the registers busier.
const MIN_NINE: usize = 16;
/// Taps of a 3x3 kernel.
const NINE: usize = 9;

/// Nine taps: the weights of a channel stay in registers, and sums go straight to the output, row after row.
struct Nine<'a, 'b, 'c> {
    weights: &'a [[f32; PANEL]],
    offsets: &'a [u32; NINE],
    data: &'a [f32],
    planes: [usize; PANEL],
    plane: &'a Plane,
    channels: Range<usize>,
    target: &'a mut Target<'b, 'c>,
}

impl Work for Nine<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if !S::FAST {
            return;
        }
        let Nine {
            weights,
            offsets,
            data,
            planes,
            plane,
            channels,
            target,
        } = self;
        let simple = target.epilogue.filter(|e| e.is_simple());
        for (lane, channel) in channels.enumerate() {
            let mut own = [simd.splat(0.0); NINE];
            for (own, w) in own.iter_mut().zip(weights) {
                *own = simd.splat(w[lane]);
            }
            let rows = NineRows {
                simd,
                weights: own,
                offsets,
                data: &data[planes[lane]..],
                plane,
                channel,
                target: &mut *target,
            };
            finish_vectors(simple, channel, rows);
            if let Some(epilogue) = target.epilogue.filter(|_| simple.is_none()) {
                let len = target.band.columns.len();
                for row in 0..target.band.rows.len() {
                    epilogue.apply(channel, &mut target.place(channel, row, 0)[..len]);
                }
            }
        }
    }
}

/// The rows of one channel.
struct NineRows<'a, 'b, 'c, S: Simd> {
    simd: S,
    weights: [S::V; NINE],
    offsets: &'a [u32; NINE],
    data: &'a [f32],
    plane: &'a Plane,
    channel: usize,
    target: &'a mut Target<'b, 'c>,
}

impl<S: Simd> activation::Vectors for NineRows<'_, '_, '_, S> {
    const FAST: bool = S::FAST;

    #[inline(always)]
    fn finish<F: VectorFunction>(self, bias: Option<f32>, function: F) {
        let (simd, target) = (self.simd, self.target);
        let last = Last {
            simd,
            accumulate: target.accumulate,
            bias: bias.map(|bias| simd.splat(bias)),
            function,
        };
        let columns = target.band.columns.len();
        let (whole, vectors) = (columns / 8, columns.div_ceil(8));
        for row in 0..target.band.rows.len() {
            let data = &self.data[self.plane.base(row, 0)..];
            let mut taps = [&[][..]; NINE];
            for (tap, &offset) in taps.iter_mut().zip(self.offsets) {
                *tap = &data[offset as usize..].as_chunks::<8>().0[..vectors];
            }
            let out = target.place(self.channel, row, 0);
            for (j, out) in out.as_chunks_mut::<8>().0[..whole].iter_mut().enumerate() {
                let sum = nine(simd, &self.weights, &taps, j);
                simd.store(last.of(sum, || simd.load(out)), out);
            }
            if whole < vectors {
                let sum = nine(simd, &self.weights, &taps, whole);
                last.part(&mut out[whole * 8..], sum, columns - whole * 8);
            }
        }
    }
}

/// One chain, for vector `j` of a row.
#[inline(always)]
fn nine<S: Simd>(simd: S, weights: &[S::V; NINE], taps: &[&[[f32; 8]]; NINE], j: usize) -> S::V {
    let mut acc = simd.splat(0.0);
    for t in 0..NINE {
        acc = simd.mul_add(weights[t], simd.load(&taps[t][j]), acc);
    }
    acc
}

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
