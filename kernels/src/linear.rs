//! Fully connected layers: a panel of weights times a row of inputs, one output channel per lane.
//!
//! A chain of multiply-adds is as slow as its latency, so 8 chains run at once. They are (panel,
//! block of k) pairs: one block of 8 panels, or 8 blocks of one panel, since blocks are independent sums by the bit rule of
//! [`crate::conv`], whose results are added in block order. So even a single long panel keeps 8 chains busy. Weights are
//! expanded once for all rows, and on the way to the chains for one row. Cost: the weights are read
//! once; bound by decoding and memory for one row, and not meant for many rows (a 1x1 convolution does that better).

use crate::activation::Epilogue;
use crate::conv::Start;
use crate::conv::blocks::{Block, K_BLOCK, KBlocks, Rows as BlockRows};
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

impl Chain {
    fn new(panel: usize, block: &Block) -> Chain {
        Chain {
            panel,
            at: block.rows.first,
            len: block.len,
        }
    }
}

/// How 8 chains lie beside each other.
#[derive(Clone, Copy)]
enum Side {
    /// The same block of neighbouring panels.
    Panels,
    /// Neighbouring blocks of a panel, of one length.
    Blocks,
}

impl Linear<'_> {
    fn run(mut self) {
        // One tap: the two orders of k are the same.
        let order = WeightTile {
            order: KOrder::ChannelMajor,
            ..*self.tile
        };
        let panels = self.tile.panels;
        let blocks = KBlocks::new(&order, 1, 1);
        // Eight panels at a time, a block of each.
        let eights = panels - panels % CHAINS;
        for first in (0..eights).step_by(CHAINS) {
            for block in blocks.clone() {
                let chains: [_; CHAINS] = std::array::from_fn(|i| Chain::new(first + i, &block));
                self.multiply(&chains, Some(Side::Panels));
            }
        }
        // Of each panel that is left, as many blocks as go into eights of one length.
        let len = blocks.clone().next().map_or(1, |block| block.len);
        let whole = self.tile.k_len / (CHAINS * len) * CHAINS;
        for panel in eights..panels {
            for first in (0..whole).step_by(CHAINS) {
                let chains: [_; CHAINS] = std::array::from_fn(|i| Chain {
                    panel,
                    at: (first + i) * len,
                    len,
                });
                self.multiply(&chains, Some(Side::Blocks));
            }
        }
        // Then what is left of all of them.
        let mut left = (eights..panels).flat_map(|panel| {
            let blocks = blocks.clone().skip(whole);
            blocks.map(move |block| Chain::new(panel, &block))
        });
        loop {
            let mut chains = [Chain::default(); CHAINS];
            let mut count = 0;
            for (chain, next) in chains.iter_mut().zip(&mut left) {
                *chain = next;
                count += 1;
            }
            if count == 0 {
                break;
            }
            self.multiply(&chains[..count], None);
        }
    }

    /// All rows times up to 8 chains.
    fn multiply(&mut self, chains: &[Chain], side: Option<Side>) {
        if let Some(side) = side.filter(|_| self.rows.n == 1)
            && self.straight(chains, side)
        {
            return;
        }
        for (i, c) in chains.iter().enumerate() {
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
                chains,
            });
            self.add(row, chains, &sums);
        }
    }

    /// One row: weights need not be expanded first. False where they must be.
    fn straight(&mut self, chains: &[Chain], side: Side) -> bool {
        let straight = Straight {
            tile: self.tile,
            x: &self.rows.x[self.tile.k0..][..self.tile.k_len],
            first: chains[0],
            side,
        };
        let sums = match self.tile.values {
            TileValues::Lut { codes, lut } if self.isa.has_long() => match lut.small() {
                Some(lut) => self.isa.run_long(StraightTwo(straight, codes, lut)),
                None => self.isa.run(straight),
            },
            _ => self.isa.run(straight),
        };
        if let Some(sums) = &sums {
            self.add(0, chains, sums);
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
        // All chains side by side as far as the shortest reaches (the first one where there is none), the rest one by one.
        let common = chains.iter().map(|c| c.len).min().unwrap_or(0);
        let mut w = [weights; CHAINS];
        let mut xs = [x; CHAINS];
        for i in 0..CHAINS {
            let of = if i < chains.len() { i } else { 0 };
            w[i] = &weights[of * K_BLOCK..][..common];
            xs[i] = &x[chains[of].at..][..common];
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

/// The sums of 8 chains of one row, from the tile as it is; none for steps per block and on the portable tier.
struct Straight<'a> {
    tile: &'a WeightTile<'a>,
    x: &'a [f32],
    first: Chain,
    side: Side,
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
                    for (i, own) in own.iter_mut().enumerate() {
                        *own = steps[match self.side {
                            Side::Panels => self.first.panel + i,
                            Side::Blocks => self.first.panel,
                        }];
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

impl Straight<'_> {
    /// `weight` makes chain `i`'s next weights of what the tile holds.
    #[inline(always)]
    fn sums<S: Simd, T>(
        &self,
        simd: S,
        values: &[T],
        weight: impl Fn(usize, &[T; PANEL]) -> S::V,
    ) -> [[f32; PANEL]; CHAINS] {
        let (values, x) = self.start_of(values);
        let (k_len, len) = (self.tile.k_len, self.first.len);
        let mut w = [values; CHAINS];
        let mut acc = [simd.splat(0.0); CHAINS];
        match self.side {
            Side::Panels => {
                for i in 0..CHAINS {
                    w[i] = &values[i * k_len..][..len];
                }
                for (k, x) in x[..len].iter().enumerate() {
                    let x = simd.splat(*x);
                    for i in 0..CHAINS {
                        acc[i] = simd.mul_add(weight(i, &w[i][k]), x, acc[i]);
                    }
                }
            }
            Side::Blocks => {
                let mut xs = [x; CHAINS];
                for i in 0..CHAINS {
                    w[i] = &values[i * len..][..len];
                    xs[i] = &x[i * len..][..len];
                }
                // The next eight lie behind these.
                let lines = size_of::<T>();
                let next = values[CHAINS * len..].as_ptr();
                for k in 0..len {
                    for line in 0..lines {
                        simd.prefetch(next, (k * lines + line) * CACHE_LINE);
                    }
                    for i in 0..CHAINS {
                        acc[i] = simd.mul_add(weight(i, &w[i][k]), simd.splat(xs[i][k]), acc[i]);
                    }
                }
            }
        }
        let mut sums = [[0.0; PANEL]; CHAINS];
        for i in 0..CHAINS {
            simd.store(acc[i], &mut sums[i]);
        }
        sums
    }

    /// Weights, `[k][8]`, and inputs: the first chain's start and what lies behind it.
    #[inline(always)]
    fn start_of<'v, T>(&self, values: &'v [T]) -> (&'v [[T; PANEL]], &[f32]) {
        let values = values.as_chunks::<PANEL>().0;
        let Chain { panel, at, .. } = self.first;
        (&values[panel * self.tile.k_len + at..], &self.x[at..])
    }
}

/// Bytes.
const CACHE_LINE: usize = 64;

/// The same from codes of a small table, with two chains in a vector of 16.
struct StraightTwo<'a>(Straight<'a>, &'a [u8], &'a [f32; 16]);

impl LongWork for StraightTwo<'_> {
    type Output = [[f32; PANEL]; CHAINS];

    #[inline(always)]
    fn run<S: Long>(self, simd: S) -> Self::Output {
        let StraightTwo(straight, codes, lut) = self;
        let (codes, x) = straight.start_of(codes);
        let (k_len, len) = (straight.tile.k_len, straight.first.len);
        // Between two chains.
        let (weights, inputs) = match straight.side {
            Side::Panels => (k_len, 0),
            Side::Blocks => (len, len),
        };
        let (mut w, mut xs) = ([codes; CHAINS], [x; CHAINS]);
        for i in 0..CHAINS {
            w[i] = &codes[i * weights..][..len];
            xs[i] = &x[i * inputs..][..len];
        }
        // The next eight blocks lie behind these. Panels are streams that need no help: only the first one's line is asked for.
        let ahead = match straight.side {
            Side::Panels => 0,
            Side::Blocks => CHAINS * len * PANEL,
        };
        let mut acc = [simd.splat16(0.0); CHAINS / 2];
        for k in 0..len {
            simd.prefetch(codes.as_ptr(), ahead + k * CACHE_LINE);
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
        sums
    }
}
