//! A channel per lane: vectors of weights times single inputs, for a chunk of panels and a band.
//!
//! ```text
//! for group of at most 64 pixels        (whole rows, or a piece of a row)
//!   for 2 panels
//!     for 6 or 5 pixels, across rows    16 channels x 6 pixels from registers, to the stage
//!     for row, for 8 pixels             the stage, transposed, is added to the output
//! ```
//! An input is read wherever it lies, so neither the width of a map nor a stride leaves lanes
//! unused; the price is a transposition of every sum. Equal tiles cover a group: 49 pixels are
//! 4 x 6 + 5 x 5. Three panels left over take tiles of 4 pixels, a single one of 8. Same chains and
//! bits as a pixel per lane (`gemm.rs`). After XNNPACK's GEMM, whose weights are the vectors too.

use super::blocks::Block;
use super::gemm::{Panels, windows};
use super::store::{Last, Target};
use crate::activation::{self, VectorFunction, finish_panel};
use crate::simd::{Isa, Simd, Work};
use crate::weights::PANEL;
use std::ops::Range;

/// Pixels of a group.
const GROUP: usize = 64;
/// Most panels at a time.
const MOST: usize = 3;
/// Tiles and vectors may run this far over the end of a group.
const SLACK: usize = 8;

impl Panels<'_> {
    /// All pixels of the target's band.
    pub fn channel_lanes(&self, isa: Isa, target: &mut Target<'_, '_>) {
        isa.run(ChannelLanes {
            panels: self,
            target,
        });
    }
}

struct ChannelLanes<'a, 'b, 'c> {
    panels: &'a Panels<'a>,
    target: &'a mut Target<'b, 'c>,
}

/// Sums of a group, `[panel][pixel][8]`.
#[repr(align(32))]
struct Stage([[[f32; PANEL]; GROUP + SLACK]; MOST]);

/// Pixels of a band.
struct Group {
    rows: Range<usize>,
    columns: Range<usize>,
    /// Where their windows start.
    bases: [u32; GROUP],
}

impl Group {
    fn bases(&self) -> &[u32] {
        &self.bases[..self.rows.len() * self.columns.len()]
    }
}

impl Work for ChannelLanes<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let ChannelLanes { panels, target } = self;
        let (rows, columns) = (target.band.rows.len(), target.band.columns.len());
        // Pieces of equal width, in whole vectors.
        let wide = columns
            .div_ceil(columns.div_ceil(GROUP))
            .next_multiple_of(8)
            .min(columns);
        let high = GROUP / wide;
        target.plain &= wide == columns;
        let mut stage = Stage([[[0.0; PANEL]; GROUP + SLACK]; MOST]);
        for row in (0..rows).step_by(high) {
            for column in (0..columns).step_by(wide) {
                let mut group = Group {
                    rows: row..(row + high).min(rows),
                    columns: column..(column + wide).min(columns),
                    bases: [0; GROUP],
                };
                let mut bases = group.bases.iter_mut();
                for row in group.rows.clone() {
                    for (column, base) in group.columns.clone().zip(&mut bases) {
                        *base = panels.plane.base(row, column) as u32;
                    }
                }
                let mut i = 0;
                while i < panels.count {
                    let (bases, stage) = (group.bases(), &mut stage);
                    let count = match panels.count - i {
                        _ if !S::FAST => of_panels::<S, 1>(simd, panels, i, bases, stage),
                        1 => of_panels::<S, 1>(simd, panels, i, bases, stage),
                        3 => of_panels::<S, 3>(simd, panels, i, bases, stage),
                        _ => of_panels::<S, 2>(simd, panels, i, bases, stage),
                    };
                    for (sums, i) in stage.0.iter_mut().zip(i..i + count) {
                        let (first, lanes) = panels.shape.panel_channels(panels.first + i);
                        let channels = first..first + lanes;
                        store(simd, panels.block, target, channels, &group, sums);
                    }
                    i += count;
                }
            }
        }
    }
}

/// `P` panels from panel `i` on; returns `P`.
#[inline(always)]
fn of_panels<S: Simd, const P: usize>(
    simd: S,
    panels: &Panels<'_>,
    i: usize,
    bases: &[u32],
    stage: &mut Stage,
) -> usize {
    let mut weights = [panels.weights(i); P];
    for (j, w) in weights.iter_mut().enumerate() {
        *w = panels.weights(i + j);
    }
    let most = match P {
        _ if !S::FAST => 4,
        1 => 8,
        2 => 6,
        _ => 4,
    };
    let tile = Tile {
        weights,
        offsets: panels.offsets,
        data: panels.data,
        bases,
    };
    let pixels = bases.len();
    let tiles = pixels.div_ceil(most);
    for t in 0..tiles {
        let (at, end) = (pixels * t / tiles, pixels * (t + 1) / tiles);
        match (P, end - at) {
            (1, 5..) if S::FAST => tile.run::<S, 8>(simd, at, stage),
            (2, 6) if S::FAST => tile.run::<S, 6>(simd, at, stage),
            (2, 5) if S::FAST => tile.run::<S, 5>(simd, at, stage),
            _ => tile.run::<S, 4>(simd, at, stage),
        }
    }
    P
}

/// `P` panels and the pixels they meet.
struct Tile<'a, const P: usize> {
    weights: [&'a [[f32; PANEL]]; P],
    offsets: &'a [u32],
    data: &'a [f32],
    bases: &'a [u32],
}

impl<const P: usize> Tile<'_, P> {
    /// Chains of `N` pixels from pixel `at` on; behind the last pixel it is repeated.
    #[inline(always)]
    fn run<S: Simd, const N: usize>(&self, simd: S, at: usize, stage: &mut Stage) {
        let mut bases = [0; N];
        for (j, base) in bases.iter_mut().enumerate() {
            *base = self.bases[(at + j).min(self.bases.len() - 1)] as usize;
        }
        let windows = windows(self.data, bases);
        let len = self.offsets.len();
        let mut panels = self.weights;
        for i in 0..P {
            panels[i] = &self.weights[i][..len];
        }
        let mut acc = [[simd.splat(0.0); N]; P];
        for k in 0..len {
            let offset = self.offsets[k] as usize;
            let mut w = [simd.splat(0.0); P];
            for i in 0..P {
                w[i] = simd.load(&panels[i][k]);
            }
            for j in 0..N {
                let x = simd.splat(windows[j][offset]);
                for i in 0..P {
                    acc[i][j] = simd.mul_add(w[i], x, acc[i][j]);
                }
            }
        }
        for i in 0..P {
            let to = &mut stage.0[i][at..at + N];
            for j in 0..N {
                simd.store(acc[i][j], &mut to[j]);
            }
        }
    }
}

/// Brings the sums of a panel to the output.
#[inline(always)]
fn store<S: Simd>(
    simd: S,
    block: &Block,
    target: &mut Target<'_, '_>,
    channels: Range<usize>,
    group: &Group,
    sums: &mut [[f32; PANEL]],
) {
    let width = group.columns.len();
    // Between blocks, sums lie pixel after pixel: the rows of these channels are one stretch.
    let plain = target.plain && channels.len() == PANEL;
    if plain && !block.first {
        for (i, row) in group.rows.clone().enumerate() {
            let old = &target.place(channels.start, row, 0)[..width * PANEL];
            for (sum, old) in sums[i * width..].iter_mut().zip(old.as_chunks().0) {
                simd.store(simd.add(simd.load(old), simd.load(sum)), sum);
            }
        }
    } else if target.accumulate {
        add_old(simd, target, channels.clone(), group, sums);
    }
    if plain && !block.last {
        for (i, row) in group.rows.clone().enumerate() {
            let out = &mut target.place(channels.start, row, 0)[..width * PANEL];
            for (sum, out) in sums[i * width..].iter().zip(out.as_chunks_mut().0) {
                simd.store(simd.load(sum), out);
            }
        }
        return;
    }
    let simple = target.epilogue.filter(|e| e.is_simple());
    let rows = Rows {
        simd,
        target: &mut *target,
        channels: channels.clone(),
        group,
        sums: &*sums,
    };
    finish_panel(simple, channels.clone(), rows);
    if let Some(epilogue) = target.epilogue.filter(|_| simple.is_none()) {
        for row in group.rows.clone() {
            for channel in channels.clone() {
                let out = target.place(channel, row, group.columns.start);
                epilogue.apply(channel, &mut out[..width]);
            }
        }
    }
}

/// Adds the output so far to the sums.
#[inline(always)]
fn add_old<S: Simd>(
    simd: S,
    target: &mut Target<'_, '_>,
    channels: Range<usize>,
    group: &Group,
    sums: &mut [[f32; PANEL]],
) {
    let (width, stride) = (group.columns.len(), target.out.map.channel);
    for (i, row) in group.rows.clone().enumerate() {
        let out = &*target.place(channels.start, row, group.columns.start);
        for column in (0..width).step_by(8) {
            let mut old = [simd.splat(0.0); 8];
            for (lane, old) in old.iter_mut().enumerate().take(channels.len()) {
                let from = &out[lane * stride + column..];
                *old = match from.first_chunk() {
                    Some(from) => simd.load(from),
                    None => {
                        let mut short = [0.0; 8];
                        short[..from.len()].copy_from_slice(from);
                        simd.load(&short)
                    }
                };
            }
            let len = (width - column).min(8);
            let sums = &mut sums[i * width + column..][..len];
            for (old, sum) in simd.transpose(old).into_iter().zip(sums) {
                simd.store(simd.add(old, simd.load(sum)), sum);
            }
        }
    }
}

/// The rows of a group, for one panel.
struct Rows<'a, 'b, 'c, S> {
    simd: S,
    target: &'a mut Target<'b, 'c>,
    channels: Range<usize>,
    group: &'a Group,
    sums: &'a [[f32; PANEL]],
}

impl<S: Simd> activation::PanelVectors for Rows<'_, '_, '_, S> {
    const FAST: bool = S::FAST;

    #[inline(always)]
    fn finish<F: VectorFunction>(self, bias: Option<&[f32]>, function: impl Fn(usize) -> F) {
        let (simd, group, target) = (self.simd, self.group, self.target);
        let width = group.columns.len();
        let (lanes, stride) = (self.channels.len(), target.out.map.channel);
        // The end of a row may be written over by the next channel's.
        let joined = stride == width;
        let mut transposed = [[[0.0; 8]; PANEL]; GROUP / 8];
        for (i, row) in group.rows.clone().enumerate() {
            for (to, column) in transposed.iter_mut().zip((0..width).step_by(8)) {
                let from = &self.sums[i * width + column..][..8];
                let mut sums = [simd.splat(0.0); 8];
                for j in 0..8 {
                    sums[j] = simd.load(&from[j]);
                }
                for (v, to) in simd.transpose(sums).into_iter().zip(to) {
                    simd.store(v, to);
                }
            }
            let out = target.place(self.channels.start, row, group.columns.start);
            for lane in 0..lanes {
                let last = Last {
                    simd,
                    accumulate: false,
                    bias: bias.map(|bias| simd.splat(bias[lane])),
                    function: function(lane),
                };
                let out = &mut out[lane * stride..];
                // Vectors that may be stored whole, and what is left of the last one.
                let room = if joined {
                    (lanes - lane) * width
                } else {
                    width
                };
                let count = width.div_ceil(8).min(room / 8);
                let whole = out.as_chunks_mut::<8>().0.iter_mut().take(count);
                for (out, from) in whole.zip(&transposed) {
                    simd.store(last.of(simd.load(&from[lane]), || simd.splat(0.0)), out);
                }
                if count * 8 < width {
                    let sum = simd.load(&transposed[count][lane]);
                    last.part(&mut out[count * 8..], sum, width - count * 8);
                }
            }
        }
    }
}
