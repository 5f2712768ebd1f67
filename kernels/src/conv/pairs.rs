//! A channel per lane in registers of 16 f32: `channels.rs` with two panels a vector.
//!
//! ```text
//! for group of at most 64 pixels        (whole rows, or a piece of a row)
//!   for 4 pairs of panels, or what is left
//!     for 6 pixels, across rows         64 channels x 6 pixels from registers, to the stage
//!                                       (48 x 7, 32 x 8, 16 x 8)
//!     for row, for 8 pixels             bias and activation, then transposed, to the output
//! ```
//! Expanded weights lie pair after pair, `[k][16]` (`gemm::Weights`). Bias and activation come before the transposition,
//! where a lane is a channel, unless sums are added to what is there. Same chains and bits. A lone panel meets two neighbouring pixels at a time: lanes are each
//! channel twice, inputs both pixels in turns, which one load spreads. Half a vector is lost to it only where pixels are
//! not neighbours.

use super::blocks::{Block, K_BLOCK};
use super::channels::{GROUP, Group};
use super::gemm::{Panels, windows};
use super::store::{Lasts, Target};
use crate::activation::Epilogue;
use crate::simd::{Isa, Long, LongWork};
use crate::weights::PANEL;
use std::ops::Range;

/// Channels of a pair.
pub(super) const PAIR: usize = 2 * PANEL;
/// Most pairs at a time.
const MOST: usize = 4;
/// Tiles may run this far over the end of a group.
const SLACK: usize = 8;

/// Sums of a group, `[pair][pixel][16]`.
#[repr(align(64))]
pub(super) struct Stage([[[f32; PAIR]; GROUP + SLACK]; MOST]);

impl Stage {
    #[inline(always)]
    pub fn new() -> Stage {
        Stage([[[0.0; PAIR]; GROUP + SLACK]; MOST])
    }
}

impl Panels<'_> {
    /// What happens to the sums of all panels.
    pub fn lasts(&self, epilogue: Option<&Epilogue<'_>>) -> Lasts {
        let (first, _) = self.shape.panel_channels(self.first);
        let (last, lanes) = self.shape.panel_channels(self.first + self.count - 1);
        Lasts::new(epilogue, first..last + lanes)
    }

    /// All panels times a group.
    pub fn pairs(
        &self,
        isa: Isa,
        target: &mut Target<'_, '_>,
        group: &Group,
        lasts: &Lasts,
        stage: &mut Stage,
    ) {
        let pairs = self.count.div_ceil(2);
        let mut pair = 0;
        while pair < pairs {
            let count = match pairs - pair {
                4.. => self.tiles::<4>(isa, pair, group.bases(), stage),
                1 if self.is_lone(pair, group) => self.lone(isa, pair, group, stage),
                1 => self.tiles::<1>(isa, pair, group.bases(), stage),
                3 => self.tiles::<3>(isa, pair, group.bases(), stage),
                _ => self.tiles::<2>(isa, pair, group.bases(), stage),
            };
            for (sums, pair) in stage.0.iter_mut().zip(pair..pair + count) {
                let (first, mut lanes) = self.shape.panel_channels(self.first + 2 * pair);
                if 2 * pair + 1 < self.count {
                    lanes += self.shape.panel_channels(self.first + 2 * pair + 1).1;
                }
                let channels = first..first + lanes;
                let of_pair = (lasts, pair * PAIR);
                store(isa, self.block, target, channels, group, sums, of_pair);
            }
            pair += count;
        }
    }

    /// `P` pairs from pair `pair` on; returns `P`.
    fn tiles<const P: usize>(
        &self,
        isa: Isa,
        pair: usize,
        bases: &[u32],
        stage: &mut Stage,
    ) -> usize {
        // Of two pairs 12 pixels, of three 8, are more than the registers hold once all their inputs are loaded. Of one 12
        // would do, but compilers do not always unroll so many, and then it takes ten times as long.
        let most = [8, 8, 8, 7, 6][P];
        let pixels = bases.len();
        let tiles = pixels.div_ceil(most);
        for t in 0..tiles {
            let (at, end) = (pixels * t / tiles, pixels * (t + 1) / tiles);
            let tile = Tile {
                weights: &self.weights.pairs[pair * K_BLOCK..],
                offsets: self.offsets,
                data: self.data,
                bases,
                at,
                stage: &mut *stage,
            };
            match (P, end - at) {
                (4, 6) => isa.run_long(Pixels::<P, 6>(tile)),
                (4, _) => isa.run_long(Pixels::<P, 5>(tile)),
                (3, _) => isa.run_long(Pixels::<P, 7>(tile)),
                _ => isa.run_long(Pixels::<P, 8>(tile)),
            };
        }
        P
    }

    /// Whether a pair is a panel without a partner whose pixels are neighbours in the packed input.
    fn is_lone(&self, pair: usize, group: &Group) -> bool {
        2 * pair + 1 == self.count && group.columns.len() >= 2 && self.plane.has_neighbours()
    }

    /// A pair that [is lone](Panels::is_lone); returns 1.
    fn lone(&self, isa: Isa, pair: usize, group: &Group, stage: &mut Stage) -> usize {
        let (width, bases) = (group.columns.len(), group.bases());
        // Two pixels each; the last one of an odd row has been there before.
        let in_row = width.div_ceil(2);
        let pixel = |i: usize| i / in_row * width + (i % in_row * 2).min(width - 2);
        let pixels = group.rows.len() * in_row;
        for first in (0..pixels).step_by(NEIGHBOURS) {
            isa.run_long(Lone {
                weights: &self.weights.pairs[pair * K_BLOCK..],
                offsets: self.offsets,
                data: self.data,
                places: std::array::from_fn(|j| {
                    let pixel = pixel((first + j).min(pixels - 1));
                    (pixel, bases[pixel] as usize)
                }),
                sums: &mut stage.0[0],
            });
        }
        1
    }
}

/// Vectors of a tile of a lone panel.
const NEIGHBOURS: usize = 8;

/// Chains of one panel, in rows of 16 of which the low half counts, times [`NEIGHBOURS`] pairs of neighbouring pixels.
struct Lone<'a> {
    weights: &'a [[f32; PAIR]],
    offsets: &'a [u32],
    data: &'a [f32],
    /// The first pixel of each pair within the group, and where its window starts.
    places: [(usize, usize); NEIGHBOURS],
    sums: &'a mut [[f32; PAIR]; GROUP + SLACK],
}

impl LongWork for Lone<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Long>(self, simd: S) {
        let windows = windows(self.data, self.places.map(|(_, base)| base));
        let mut acc = [simd.splat16(0.0); NEIGHBOURS];
        for (w, &offset) in self.weights.iter().zip(self.offsets) {
            let (w, at) = (simd.twice16(simd.load16(w)), offset as usize);
            for j in 0..NEIGHBOURS {
                let x = simd.splat_pair(&windows[j][at..at + 2].as_chunks().0[0]);
                acc[j] = simd.mul_add16(w, x, acc[j]);
            }
        }
        for ((pixel, _), acc) in self.places.into_iter().zip(acc) {
            let [low, high] = simd.split(simd.part16(acc));
            for (i, v) in [low, high].into_iter().enumerate() {
                simd.store(v, &mut self.sums[pixel + i].as_chunks_mut().0[0]);
            }
        }
    }
}

/// Pairs of panels, `K_BLOCK` rows each, and the pixels they meet, from pixel `at` on.
struct Tile<'a> {
    weights: &'a [[f32; PAIR]],
    offsets: &'a [u32],
    data: &'a [f32],
    bases: &'a [u32],
    at: usize,
    stage: &'a mut Stage,
}

/// Chains of `P` pairs times `N` pixels of a tile; behind the last pixel it is repeated.
struct Pixels<'a, const P: usize, const N: usize>(Tile<'a>);

impl<const P: usize, const N: usize> LongWork for Pixels<'_, P, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Long>(self, simd: S) {
        if P * N > 24 {
            return;
        }
        let tile = self.0;
        let mut bases = [0; N];
        for (j, base) in bases.iter_mut().enumerate() {
            *base = tile.bases[(tile.at + j).min(tile.bases.len() - 1)] as usize;
        }
        let windows = windows(tile.data, bases);
        let len = tile.offsets.len();
        let weights = &tile.weights[..(P - 1) * K_BLOCK + len];
        let mut pairs = [weights; P];
        for i in 0..P {
            pairs[i] = &weights[i * K_BLOCK..][..len];
        }
        let mut acc = [[simd.splat16(0.0); N]; P];
        for k in 0..len {
            let offset = tile.offsets[k] as usize;
            let mut w = [simd.splat16(0.0); P];
            for i in 0..P {
                w[i] = simd.load16(&pairs[i][k]);
            }
            for j in 0..N {
                let x = simd.splat16(windows[j][offset]);
                for i in 0..P {
                    acc[i][j] = simd.mul_add16(w[i], x, acc[i][j]);
                }
            }
        }
        for i in 0..P {
            let to = &mut tile.stage.0[i][tile.at..tile.at + N];
            for j in 0..N {
                simd.store16(acc[i][j], &mut to[j]);
            }
        }
    }
}

/// Brings the sums of a pair to the output.
fn store(
    isa: Isa,
    block: &Block,
    target: &mut Target<'_, '_>,
    channels: Range<usize>,
    group: &Group,
    sums: &mut [[f32; PAIR]],
    lasts: (&Lasts, usize),
) {
    // Between blocks, sums lie pixel after pixel: the rows of these channels are one stretch.
    let plain = target.plain && channels.len() == PAIR;
    let between = plain && !(block.first && block.last);
    if between {
        if target.accumulate && block.first {
            isa.run_long(AddOld {
                target: &mut *target,
                channel: channels.start,
                group,
                sums: &mut *sums,
            });
        }
        isa.run_long(Between {
            target: &mut *target,
            channel: channels.start,
            group,
            sums: &mut *sums,
            block,
        });
        if !block.last {
            return;
        }
    }
    let adds = target.accumulate && !between;
    let finish = Finish {
        target: &mut *target,
        channels: channels.clone(),
        group,
        sums,
        lasts,
    };
    if adds {
        isa.run_long(AddTo(finish));
    } else {
        isa.run_long(finish);
    }
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

/// Sums of whole blocks so far, pixel after pixel in the rows of the pair's channels.
struct Between<'a, 'b, 'c> {
    target: &'a mut Target<'b, 'c>,
    channel: usize,
    group: &'a Group,
    sums: &'a mut [[f32; PAIR]],
    block: &'a Block,
}

impl LongWork for Between<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Long>(self, simd: S) {
        let width = self.group.columns.len();
        for (i, row) in self.group.rows.clone().enumerate() {
            let sums = &mut self.sums[i * width..][..width];
            let out = &mut self.target.place(self.channel, row, 0)[..width * PAIR];
            for (sum, out) in sums.iter_mut().zip(out.as_chunks_mut().0) {
                let mut v = simd.load16(sum);
                if !self.block.first {
                    v = simd.add16(simd.load16(out), v);
                }
                simd.store16(v, if self.block.last { sum } else { out });
            }
        }
    }
}

/// Adds the output so far, of a whole pair, to the sums.
struct AddOld<'a, 'b, 'c> {
    target: &'a mut Target<'b, 'c>,
    channel: usize,
    group: &'a Group,
    sums: &'a mut [[f32; PAIR]],
}

impl LongWork for AddOld<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Long>(self, simd: S) {
        let width = self.group.columns.len();
        let stride = self.target.out.map.channel;
        for (i, row) in self.group.rows.clone().enumerate() {
            let place = self.group.columns.start;
            let old = &*self.target.place(self.channel, row, place);
            for column in (0..width).step_by(8) {
                // Vectors may run over the end of a row, but not over that of the output.
                let mut ends = [[0.0; 8]; PAIR];
                let mut rows = [&[0.0; 8]; PAIR];
                for (lane, (row, end)) in rows.iter_mut().zip(&mut ends).enumerate() {
                    let from = &old[lane * stride + column..];
                    *row = match from.first_chunk() {
                        Some(row) => row,
                        None => {
                            end[..from.len()].copy_from_slice(from);
                            end
                        }
                    };
                }
                let count = (width - column).min(8);
                let sums = &mut self.sums[i * width + column..][..count];
                for (old, sum) in simd.columns16(rows).into_iter().zip(sums) {
                    simd.store16(simd.add16(old, simd.load16(sum)), sum);
                }
            }
        }
    }
}

/// The rows of a group, for one pair.
struct Finish<'a, 'b, 'c> {
    target: &'a mut Target<'b, 'c>,
    channels: Range<usize>,
    group: &'a Group,
    sums: &'a [[f32; PAIR]],
    /// And the pair's first channel there.
    lasts: (&'a Lasts, usize),
}

impl LongWork for Finish<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Long>(self, simd: S) {
        let group = self.group;
        let width = group.columns.len();
        let (lasts, first) = self.lasts;
        let (lanes, stride) = (self.channels.len(), self.target.out.map.channel);
        for (i, row) in group.rows.clone().enumerate() {
            let place = group.columns.start;
            let out = self.target.place(self.channels.start, row, place);
            for column in (0..width).step_by(8) {
                // The last vector of a row ends with it.
                let column = column.min(width.saturating_sub(8));
                let from = &self.sums[i * width + column..][..8];
                let mut sums = [simd.splat16(0.0); 8];
                for j in 0..8 {
                    sums[j] = simd.load16(&from[j]);
                }
                let channels = simd.transpose16(lasts.of(simd, first, sums));
                let out = &mut out[column..];
                let count = (width - column).min(8);
                // Channel `c` and channel `c + 8` are halves.
                if count == 8 && lanes == PAIR {
                    for c in 0..PANEL {
                        let [low, high] = simd.split(channels[c]);
                        let out = &mut out[c * stride..];
                        simd.store(low, &mut out[..8].as_chunks_mut().0[0]);
                        let out = &mut out[PANEL * stride..];
                        simd.store(high, &mut out[..8].as_chunks_mut().0[0]);
                    }
                    continue;
                }
                for c in 0..PANEL {
                    let [low, high] = simd.split(channels[c]);
                    if c < lanes {
                        simd.store_first(count, low, &mut out[c * stride..]);
                    }
                    if c + PANEL < lanes {
                        simd.store_first(count, high, &mut out[(c + PANEL) * stride..]);
                    }
                }
            }
        }
    }
}

/// The same, added to what is there before anything else happens to it.
struct AddTo<'a, 'b, 'c>(Finish<'a, 'b, 'c>);

impl LongWork for AddTo<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Long>(self, simd: S) {
        let Finish { group, .. } = self.0;
        let width = group.columns.len();
        let (lasts, first) = self.0.lasts;
        let (lanes, stride) = (self.0.channels.len(), self.0.target.out.map.channel);
        for (i, row) in group.rows.clone().enumerate() {
            let place = group.columns.start;
            let out = self.0.target.place(self.0.channels.start, row, place);
            for column in (0..width).step_by(8) {
                let from = &self.0.sums[i * width + column..][..8];
                let mut sums = [simd.splat16(0.0); 8];
                for j in 0..8 {
                    sums[j] = simd.load16(&from[j]);
                }
                let mut rows = [[0.0; 8]; PAIR];
                for (c, v) in simd.transpose16(sums).into_iter().enumerate() {
                    // Channel `c` and channel `c + 8` are halves.
                    let [low, high] = simd.split(v);
                    simd.store(low, &mut rows[c]);
                    simd.store(high, &mut rows[c + PANEL]);
                }
                let count = (width - column).min(8);
                let some = simd.first(count);
                for (c, row) in rows.iter().enumerate().take(lanes) {
                    let out = &mut out[c * stride + column..];
                    let sum = simd.load(row);
                    if count < 8 {
                        let sum = simd.add(simd.load_first(some, out), sum);
                        simd.store_first(count, lasts.of_channel(simd, first + c, sum), out);
                    } else {
                        let out = &mut out[..8].as_chunks_mut().0[0];
                        let sum = simd.add(simd.load(out), sum);
                        simd.store(lasts.of_channel(simd, first + c, sum), out);
                    }
                }
            }
        }
    }
}
