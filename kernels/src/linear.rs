//! Fully connected layers: a panel of weights times a row of inputs, one output channel per lane.
//!
//! A chain of multiply-adds is as slow as its latency, so 8 chains run at once. They are (panel,
//! block of k) pairs: blocks are independent sums by the bit rule of [`crate::conv`], so even a
//! single long panel keeps 8 chains busy, and their results are added in block order. Weights are
//! expanded once for all rows, and on the way to the chains for one row. Cost: the weights are read
//! once; bound by decoding and memory for one row, and not meant for many rows (a 1x1 convolution does that better).

use crate::activation::Epilogue;
use crate::conv::Start;
use crate::conv::blocks::{K_BLOCK, KBlocks, Rows as BlockRows};
use crate::expand::expand;
use crate::simd::{Isa, Long, LongWork, Simd, Work};
use crate::weights::{KOrder, PANEL, Steps, TileValues, WeightTile};

/// Chains at once.
const CHAINS: usize = 8;

/// f32 elements of scratch [`linear_tile`] needs for tiles of at most `tile_panels` panels and
/// `tile_k` inputs and any number of rows. (Today's kernel needs the same for all.)
pub fn linear_workspace(tile_panels: usize, tile_k: usize) -> usize {
    let _ = (tile_panels, tile_k);
    CHAINS * K_BLOCK * PANEL
}

/// Adds one tile's products to `n` rows of outputs.
///
/// `out_channels` is the layer's (it says how many lanes of the last panel are real). Row `i` of
/// the input is `x[i * in_stride..]` and holds all inputs of the layer; row `i` of the output is
/// `y[i * out_stride..]` and holds the tile's own outputs only: `y[0]` is lane 0 of the first
/// panel. The slices of `epilogue` are the tile's channels too; it comes with the last k-range.
///
/// # Panics
/// When a slice or the scratch is too short: a mistake of the caller.
#[expect(clippy::too_many_arguments)]
pub fn linear_tile(
    isa: Isa,
    tile: &WeightTile<'_>,
    out_channels: usize,
    x: &[f32],
    n: usize,
    in_stride: usize,
    y: &mut [f32],
    out_stride: usize,
    start: Start,
    epilogue: Option<&Epilogue<'_>>,
    scratch: &mut [f32],
) {
    let channels = out_channels
        .saturating_sub(tile.first_panel * PANEL)
        .min(tile.panels * PANEL);
    let rows = Rows {
        n,
        x,
        in_stride,
        y,
        out_stride,
    };
    let weights = scratch[..CHAINS * K_BLOCK * PANEL].as_chunks_mut().0;
    Linear {
        isa,
        tile,
        channels,
        rows,
        start,
        epilogue,
        weights,
    }
    .run();
}

/// Inputs and outputs of a call.
struct Rows<'a> {
    n: usize,
    x: &'a [f32],
    in_stride: usize,
    y: &'a mut [f32],
    out_stride: usize,
}

struct Linear<'a> {
    isa: Isa,
    tile: &'a WeightTile<'a>,
    channels: usize,
    rows: Rows<'a>,
    start: Start,
    epilogue: Option<&'a Epilogue<'a>>,
    weights: &'a mut [[f32; PANEL]],
}

/// One chain: a block of a panel.
#[derive(Clone, Copy, Default)]
struct Chain {
    panel: usize,
    at: usize,
    len: usize,
}

impl Linear<'_> {
    fn run(mut self) {
        // One tap: the two orders of k are the same.
        let order = WeightTile {
            order: KOrder::ChannelMajor,
            ..*self.tile
        };
        let blocks = KBlocks::new(&order, 1, 1);
        let mut pairs = (0..self.tile.panels).flat_map(|panel| {
            blocks.clone().map(move |b| Chain {
                panel,
                at: b.rows.first,
                len: b.len,
            })
        });
        loop {
            let mut chains = [Chain::default(); CHAINS];
            let mut count = 0;
            for (chain, next) in chains.iter_mut().zip(&mut pairs) {
                *chain = next;
                count += 1;
            }
            if count == 0 {
                break;
            }
            if self.rows.n == 1 && self.straight(&chains, count) {
                continue;
            }
            for (i, c) in chains[..count].iter().enumerate() {
                let to = &mut self.weights[i * K_BLOCK..];
                let rows = BlockRows {
                    first: c.at,
                    run: c.len,
                    runs: 1,
                    stride: 0,
                };
                expand(self.isa, self.tile, c.panel, rows, to);
            }
            for row in 0..self.rows.n {
                let x = &self.rows.x[row * self.rows.in_stride + self.tile.k0..];
                let sums = self.isa.run(Chains {
                    weights: self.weights,
                    x: &x[..self.tile.k_len],
                    chains: &chains[..count],
                });
                self.add(row, &chains[..count], &sums);
            }
        }
    }

    /// One row: weights need not be expanded first. False where they must be.
    fn straight(&mut self, chains: &[Chain; CHAINS], count: usize) -> bool {
        let straight = Straight {
            tile: self.tile,
            x: &self.rows.x[self.tile.k0..][..self.tile.k_len],
            chains,
            count,
        };
        let sums = match self.tile.values {
            TileValues::Lut { codes, lut } if self.isa.has_long() => match lut.small() {
                Some(lut) => self
                    .isa
                    .run_long(StraightTwo(straight, codes, lut))
                    .flatten(),
                None => self.isa.run(straight),
            },
            _ => self.isa.run(straight),
        };
        if let Some(sums) = &sums {
            self.add(0, &chains[..count], sums);
        }
        sums.is_some()
    }

    /// Adds the sums of the chains to one row.
    fn add(&mut self, row: usize, chains: &[Chain], sums: &[[f32; PANEL]; CHAINS]) {
        let y = &mut self.rows.y[row * self.rows.out_stride..][..self.channels];
        for (chain, sums) in chains.iter().zip(sums) {
            let first = chain.panel * PANEL;
            let overwrite = chain.at == 0 && self.start == Start::Zero;
            let finished = chain.at + chain.len == self.tile.k_len;
            for (lane, y) in y[first..].iter_mut().take(PANEL).enumerate() {
                *y = if overwrite {
                    sums[lane]
                } else {
                    *y + sums[lane]
                };
            }
            if let Some(epilogue) = self.epilogue.filter(|_| finished) {
                for (lane, y) in y[first..].iter_mut().take(PANEL).enumerate() {
                    epilogue.apply(first + lane, std::slice::from_mut(y));
                }
            }
        }
    }
}

/// The sums of up to 8 chains.
struct Chains<'a> {
    weights: &'a [[f32; PANEL]],
    x: &'a [f32],
    chains: &'a [Chain],
}

impl Work for Chains<'_> {
    type Output = [[f32; PANEL]; CHAINS];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let Chains { weights, x, chains } = self;
        let mut sums = [[0.0; PANEL]; CHAINS];
        // All chains side by side as far as the shortest reaches, the rest one by one.
        let mut common = 0;
        if chains.len() == CHAINS {
            common = chains.iter().map(|c| c.len).min().unwrap_or(0);
            let mut w = [weights; CHAINS];
            let mut xs = [x; CHAINS];
            for i in 0..CHAINS {
                w[i] = &weights[i * K_BLOCK..][..common];
                xs[i] = &x[chains[i].at..][..common];
            }
            let mut acc = [simd.splat(0.0); CHAINS];
            for k in 0..common {
                for i in 0..CHAINS {
                    acc[i] = simd.mul_add(simd.load(&w[i][k]), simd.splat(xs[i][k]), acc[i]);
                }
            }
            for i in 0..CHAINS {
                simd.store(acc[i], &mut sums[i]);
            }
        }
        for (i, chain) in chains.iter().enumerate() {
            let mut acc = simd.load(&sums[i]);
            for k in common..chain.len {
                let w = simd.load(&weights[i * K_BLOCK + k]);
                acc = simd.mul_add(w, simd.splat(x[chain.at + k]), acc);
            }
            simd.store(acc, &mut sums[i]);
        }
        sums
    }
}

/// The sums of `count` chains of one row, from the tile as it is; none for steps per block and on the portable tier.
struct Straight<'a> {
    tile: &'a WeightTile<'a>,
    x: &'a [f32],
    chains: &'a [Chain; CHAINS],
    count: usize,
}

impl Work for Straight<'_> {
    type Output = Option<[[f32; PANEL]; CHAINS]>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        if !S::FAST {
            return None;
        }
        Some(match self.tile.values {
            TileValues::F32(values) => self.sums(simd, values, |_, w| simd.load(w)),
            TileValues::Lut { codes, lut } => match lut.small() {
                Some(lut) => self.sums(simd, codes, |_, w| simd.lookup_16(lut, w)),
                None => self.sums(simd, codes, |_, w| simd.lookup(lut.values(), w)),
            },
            TileValues::I8 { q, steps } => match steps {
                Steps::Layer(step) => {
                    let step = simd.splat(step);
                    self.sums(simd, q, |_, w| simd.mul(simd.widen_i8(w), step))
                }
                Steps::Channel(steps) => {
                    let steps = steps.as_chunks().0;
                    let mut own = [[0.0; PANEL]; CHAINS];
                    for (own, chain) in own.iter_mut().zip(&self.chains[..self.count]) {
                        *own = steps[chain.panel];
                    }
                    self.sums(simd, q, |i, w| {
                        simd.mul(simd.widen_i8(w), simd.load(&own[i]))
                    })
                }
                Steps::Block { .. } => return None,
            },
        })
    }
}

/// Weights of 8 outputs, `[k][8]`.
type Panel<'v, T> = &'v [[T; PANEL]];

impl<'a> Straight<'a> {
    /// `weight` makes chain `i`'s next weights of what the tile holds.
    #[inline(always)]
    fn sums<S: Simd, T>(
        &self,
        simd: S,
        values: &[T],
        weight: impl Fn(usize, &[T; PANEL]) -> S::V,
    ) -> [[f32; PANEL]; CHAINS] {
        let values = values.as_chunks::<PANEL>().0;
        let (w, xs, common) = self.side_by_side(values);
        let mut acc = [simd.splat(0.0); CHAINS];
        for k in 0..common {
            for i in 0..CHAINS {
                acc[i] = simd.mul_add(weight(i, &w[i][k]), simd.splat(xs[i][k]), acc[i]);
            }
        }
        let mut sums = [[0.0; PANEL]; CHAINS];
        for i in 0..CHAINS {
            simd.store(acc[i], &mut sums[i]);
        }
        self.rest(simd, values, common, weight, &mut sums);
        sums
    }

    /// Weights and inputs of all chains as far as the shortest reaches, which is the last result; places without a chain
    /// beside the first one.
    #[inline(always)]
    fn side_by_side<'v, T>(
        &self,
        values: &'v [[T; PANEL]],
    ) -> ([Panel<'v, T>; CHAINS], [&'a [f32]; CHAINS], usize) {
        let chains = &self.chains[..self.count];
        let common = chains.iter().map(|c| c.len).min().unwrap_or(0);
        let mut w = [values; CHAINS];
        let mut xs = [self.x; CHAINS];
        for i in 0..CHAINS {
            let chain = chains[if i < chains.len() { i } else { 0 }];
            w[i] = &values[chain.panel * self.tile.k_len + chain.at..][..common];
            xs[i] = &self.x[chain.at..][..common];
        }
        (w, xs, common)
    }

    /// The rest of each chain, from `common` on, alone.
    #[inline(always)]
    fn rest<S: Simd, T>(
        &self,
        simd: S,
        values: &[[T; PANEL]],
        common: usize,
        weight: impl Fn(usize, &[T; PANEL]) -> S::V,
        sums: &mut [[f32; PANEL]; CHAINS],
    ) {
        for (i, (chain, sums)) in self.chains[..self.count].iter().zip(sums).enumerate() {
            let mut acc = simd.load(sums);
            let own = &values[chain.panel * self.tile.k_len + chain.at..][..chain.len];
            for (w, x) in own.iter().zip(&self.x[chain.at..]).skip(common) {
                acc = simd.mul_add(weight(i, w), simd.splat(*x), acc);
            }
            simd.store(acc, sums);
        }
    }
}

/// The same from codes of a small table, with two chains in a vector of 16.
struct StraightTwo<'a>(Straight<'a>, &'a [u8], &'a [f32; 16]);

impl LongWork for StraightTwo<'_> {
    type Output = Option<[[f32; PANEL]; CHAINS]>;

    #[inline(always)]
    fn run<S: Long>(self, simd: S) -> Self::Output {
        let StraightTwo(straight, codes, lut) = self;
        let codes = codes.as_chunks().0;
        let (w, xs, common) = straight.side_by_side(codes);
        let mut acc = [simd.splat16(0.0); CHAINS / 2];
        for k in 0..common {
            for i in 0..CHAINS / 2 {
                let (a, b) = (2 * i, 2 * i + 1);
                let w = simd.lookup_16_two(lut, &w[a][k], &w[b][k]);
                let x = simd.splat_two(xs[a][k], xs[b][k]);
                acc[i] = simd.mul_add16(w, x, acc[i]);
            }
        }
        let mut sums = [[0.0; PANEL]; CHAINS];
        for (acc, sums) in acc.into_iter().zip(sums.as_chunks_mut::<2>().0) {
            let halves = simd.split(acc);
            for (v, to) in halves.into_iter().zip(sums) {
                simd.store(v, to);
            }
        }
        straight.rest(
            simd,
            codes,
            common,
            |_, w| simd.lookup_16(lut, w),
            &mut sums,
        );
        Some(sums)
    }
}
