//! A channel per lane: vectors of weights times single inputs, for a chunk of panels and a band.
//!
//! ```text
//! for group of at most 64 pixels        (whole rows, or a piece of a row)
//!   for 2 panels
//!     for 6 or 5 pixels, across rows    16 channels x 6 pixels from registers, to the stage
//!     for row, for 8 pixels             bias and activation, then transposed, to the output
//! ```
//! An input is read wherever it lies, so neither the width of a map nor a stride leaves lanes
//! unused; the price is a transposition of every sum. Equal tiles cover a group: 49 pixels are
//! 4 x 6 + 5 x 5. A single panel left over takes tiles of 8 pixels. Same chains and bits as a pixel per lane
//! (`gemm.rs`). After XNNPACK's GEMM, whose weights are the vectors too.

use super::blocks::Block;
use super::gemm::{Panels, windows};
use super::pairs;
use super::store::{Lasts, Target, store_part};
use crate::simd::{Isa, Simd, Work};
use crate::weights::PANEL;
use std::ops::Range;

/// Pixels of a group.
pub(super) const GROUP: usize = 64;
/// Most panels at a time.
const MOST: usize = 2;
/// Tiles and vectors may run this far over the end of a group.
const SLACK: usize = 8;

/// Sums of a group, `[panel][pixel][8]`.
#[repr(align(32))]
struct Stage([[[f32; PANEL]; GROUP + SLACK]; MOST]);

/// Pixels of a band.
pub(super) struct Group {
    pub rows: Range<usize>,
    pub columns: Range<usize>,
    /// Where their windows start.
    bases: [u32; GROUP],
}

impl Group {
    pub fn bases(&self) -> &[u32] {
        &self.bases[..self.rows.len() * self.columns.len()]
    }
}

impl Panels<'_> {
    /// All pixels of the target's band.
    pub fn channel_lanes(&self, isa: Isa, target: &mut Target<'_, '_>, room: &mut pairs::Stage) {
        let lasts = self.lasts(target.epilogue);
        if isa.has_long() {
            self.groups(target, |target, group| {
                self.pairs(isa, target, group, &lasts, room);
            });
        } else {
            let mut stage = Stage([[[0.0; PANEL]; GROUP + SLACK]; MOST]);
            self.groups(target, |target, group| {
                self.group(isa, target, group, &lasts, &mut stage);
            });
        }
    }

    /// Cuts the band into groups.
    fn groups<'a, 'b>(
        &self,
        target: &mut Target<'a, 'b>,
        mut body: impl FnMut(&mut Target<'a, 'b>, &Group),
    ) {
        let (rows, columns) = (target.band.rows.len(), target.band.columns.len());
        // Pieces of equal width, in whole vectors.
        let wide = columns
            .div_ceil(columns.div_ceil(GROUP))
            .next_multiple_of(8)
            .min(columns);
        let high = GROUP / wide;
        target.plain &= wide == columns;
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
                        *base = self.plane.base(row, column) as u32;
                    }
                }
                body(target, &group);
            }
        }
    }

    /// All panels times a group.
    fn group(
        &self,
        isa: Isa,
        target: &mut Target<'_, '_>,
        group: &Group,
        lasts: &Lasts,
        stage: &mut Stage,
    ) {
        let mut i = 0;
        while i < self.count {
            let count = match self.count - i {
                _ if !isa.is_fast() => self.sums::<1>(isa, i, group.bases(), stage),
                1 => self.sums::<1>(isa, i, group.bases(), stage),
                _ => self.sums::<2>(isa, i, group.bases(), stage),
            };
            for (sums, i) in stage.0.iter_mut().zip(i..i + count) {
                let (first, lanes) = self.shape.panel_channels(self.first + i);
                let channels = first..first + lanes;
                let of_panel = (lasts, i * PANEL);
                store(isa, self.block, target, channels, group, sums, of_panel);
            }
            i += count;
        }
    }

    /// `P` panels from panel `i` on; returns `P`.
    fn sums<const P: usize>(&self, isa: Isa, i: usize, bases: &[u32], stage: &mut Stage) -> usize {
        let mut weights = [self.weights(i); P];
        for (j, w) in weights.iter_mut().enumerate() {
            *w = self.weights(i + j);
        }
        let most = match P {
            _ if !isa.is_fast() => 4,
            1 => 8,
            _ => 6,
        };
        // Equal tiles, but for one pixel.
        let tiles = bases.len().div_ceil(most);
        let (least, larger) = (bases.len() / tiles, bases.len() % tiles);
        let mut at = 0;
        for t in 0..tiles {
            let tile = Tile {
                weights,
                offsets: self.offsets,
                data: self.data,
                bases,
                at,
                stage: &mut *stage,
            };
            let pixels = if t < larger { least + 1 } else { least };
            match (P, pixels) {
                (1, 5..) if isa.is_fast() => isa.run(Pixels::<P, 8, true>(tile)),
                (2, 6) => isa.run(Pixels::<P, 6, true>(tile)),
                (2, 5) => isa.run(Pixels::<P, 5, true>(tile)),
                _ => isa.run(Pixels::<P, 4, false>(tile)),
            }
            at += pixels;
        }
        P
    }
}

/// `P` panels and the pixels they meet, from pixel `at` on.
struct Tile<'a, const P: usize> {
    weights: [&'a [[f32; PANEL]]; P],
    offsets: &'a [u32],
    data: &'a [f32],
    bases: &'a [u32],
    at: usize,
    stage: &'a mut Stage,
}

/// Chains of `N` pixels of a tile, `FAST`: for fast instruction sets only; behind the last pixel it is repeated.
struct Pixels<'a, const P: usize, const N: usize, const FAST: bool>(Tile<'a, P>);

impl<const P: usize, const N: usize, const FAST: bool> Work for Pixels<'_, P, N, FAST> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if FAST && !S::FAST {
            return;
        }
        let tile = self.0;
        let mut bases = [0; N];
        for (j, base) in bases.iter_mut().enumerate() {
            *base = tile.bases[(tile.at + j).min(tile.bases.len() - 1)] as usize;
        }
        let windows = windows(tile.data, bases);
        let len = tile.offsets.len();
        let mut panels = tile.weights;
        for i in 0..P {
            panels[i] = &tile.weights[i][..len];
        }
        let mut acc = [[simd.splat(0.0); N]; P];
        for k in 0..len {
            let offset = tile.offsets[k] as usize;
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
            let to = &mut tile.stage.0[i][tile.at..tile.at + N];
            for j in 0..N {
                simd.store(acc[i][j], &mut to[j]);
            }
        }
    }
}

/// Brings the sums of a panel to the output.
fn store(
    isa: Isa,
    block: &Block,
    target: &mut Target<'_, '_>,
    channels: Range<usize>,
    group: &Group,
    sums: &mut [[f32; PANEL]],
    lasts: (&Lasts, usize),
) {
    // Between blocks, sums lie pixel after pixel: the rows of these channels are one stretch.
    let plain = target.plain && channels.len() == PANEL;
    if target.accumulate && (block.first || !plain) {
        isa.run(AddOld {
            target: &mut *target,
            channels: channels.clone(),
            group,
            sums: &mut *sums,
        });
    }
    if plain && !(block.first && block.last) {
        isa.run(Between {
            target: &mut *target,
            channel: channels.start,
            group,
            sums: &mut *sums,
            first: block.first,
            last: block.last,
        });
        if !block.last {
            return;
        }
    }
    isa.run(Finish {
        target: &mut *target,
        channels: channels.clone(),
        group,
        sums,
        lasts,
    });
    if let Some(epilogue) = target.epilogue.filter(|e| !e.is_simple()) {
        let width = group.columns.len();
        for row in group.rows.clone() {
            for channel in channels.clone() {
                let out = target.place(channel, row, group.columns.start);
                epilogue.apply(channel, &mut out[..width]);
            }
        }
    }
}

/// Sums of whole blocks so far, pixel after pixel in the rows of the panel's channels.
struct Between<'a, 'b, 'c> {
    target: &'a mut Target<'b, 'c>,
    channel: usize,
    group: &'a Group,
    sums: &'a mut [[f32; PANEL]],
    /// There are none so far.
    first: bool,
    /// They are wanted in `sums`.
    last: bool,
}

impl Work for Between<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let width = self.group.columns.len();
        for (i, row) in self.group.rows.clone().enumerate() {
            let sums = &mut self.sums[i * width..][..width];
            let out = &mut self.target.place(self.channel, row, 0)[..width * PANEL];
            for (sum, out) in sums.iter_mut().zip(out.as_chunks_mut().0) {
                let mut v = simd.load(sum);
                if !self.first {
                    v = simd.add(simd.load(out), v);
                }
                simd.store(v, if self.last { sum } else { out });
            }
        }
    }
}

/// Adds the output so far to the sums.
struct AddOld<'a, 'b, 'c> {
    target: &'a mut Target<'b, 'c>,
    channels: Range<usize>,
    group: &'a Group,
    sums: &'a mut [[f32; PANEL]],
}

impl Work for AddOld<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let columns = self.group.columns.clone();
        let width = columns.len();
        for (i, row) in self.group.rows.clone().enumerate() {
            let sums = &mut self.sums[i * width..][..width];
            for (column, sums) in columns.clone().step_by(8).zip(sums.chunks_mut(8)) {
                let mut old = [simd.splat(0.0); 8];
                for (channel, old) in self.channels.clone().zip(&mut old) {
                    let from = self.target.place(channel, row, column);
                    *old = match from.first_chunk() {
                        Some(from) => simd.load(from),
                        None => {
                            let mut short = [0.0; 8];
                            short[..from.len()].copy_from_slice(from);
                            simd.load(&short)
                        }
                    };
                }
                for (old, sum) in simd.transpose(old).into_iter().zip(sums) {
                    simd.store(simd.add(old, simd.load(sum)), sum);
                }
            }
        }
    }
}

/// The rows of a group, for one panel.
struct Finish<'a, 'b, 'c> {
    target: &'a mut Target<'b, 'c>,
    channels: Range<usize>,
    group: &'a Group,
    sums: &'a [[f32; PANEL]],
    /// And the panel's first channel there.
    lasts: (&'a Lasts, usize),
}

impl Work for Finish<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let width = self.group.columns.len();
        let (lasts, first) = self.lasts;
        let (lanes, stride) = (self.channels.len(), self.target.out.map.channel);
        for (i, row) in self.group.rows.clone().enumerate() {
            let out = self
                .target
                .place(self.channels.start, row, self.group.columns.start);
            // The end of a row first: what runs over it is where the next channel's row starts, which is still to come.
            for column in (0..width).step_by(8).rev() {
                let from = &self.sums[i * width + column..][..8];
                let mut sums = [simd.splat(0.0); 8];
                for j in 0..8 {
                    sums[j] = simd.load(&from[j]);
                }
                let count = (width - column).min(8);
                let channels = simd.transpose(lasts.of_panel(simd, first, sums));
                for c in 0..PANEL {
                    if c >= lanes {
                        break;
                    }
                    let over = stride == width && (lanes - c) * width >= column + 8;
                    let out = &mut out[c * stride + column..];
                    match out.first_chunk_mut() {
                        Some(out) if over || count == 8 => simd.store(channels[c], out),
                        _ => store_part(simd, simd.first(count), channels[c], out),
                    }
                }
            }
        }
    }
}
