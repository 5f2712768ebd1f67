//! Blocks of k: the unit of summation order and of weight expansion.
//!
//! A block is a rectangle, some input channels times some taps, of at most [`K_BLOCK`] products.
//! It takes as many taps as the tile has, because packed input is shared between taps, and as many
//! channels as then fit; a channel with more taps than a block is cut. Within a block the products
//! follow the order of k. Sizes are balanced, so that no short block is left over. The cut depends
//! on the layer's geometry and the tile's k-range only; this is what makes results independent of
//! everything else.

use crate::weights::{KOrder, WeightTile};
use std::ops::Range;

/// Most products of one block: 24 pixels of input and a panel of weights stay in the L1 cache.
pub const K_BLOCK: usize = 192;

/// One block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The first of the tile.
    pub first: bool,
    /// The last of the tile.
    pub last: bool,
    /// Number of k: `channels.len() * taps.len()`.
    pub len: usize,
    /// Input channels within the group.
    pub channels: Range<usize>,
    /// Taps, `ky * kw + kx`.
    pub taps: Range<usize>,
    /// Rows of the tile's panels that make up the block: `runs` times `run` rows, each `stride`
    /// behind the previous one.
    pub rows: Rows,
}

/// Equally spaced runs of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// First row of the first run.
    pub first: usize,
    /// Rows of a run.
    pub run: usize,
    /// Number of runs.
    pub runs: usize,
    /// Distance of two runs.
    pub stride: usize,
}

/// The blocks of a tile, in order.
#[derive(Clone, Debug)]
pub struct KBlocks {
    order: KOrder,
    /// Length of the inner index of k: taps when channel-major, channels when tap-major.
    inner: usize,
    first: usize,
    end: usize,
    /// Next k; when `across`, next position along the inner index.
    next: usize,
    /// Tap-major with whole taps: blocks are ranges of channels that run across all taps.
    across: bool,
    /// Products of a full block; when `across`, channels.
    per: usize,
}

impl KBlocks {
    /// `channels` and `taps` of the layer (of one group).
    pub fn new(tile: &WeightTile<'_>, channels: usize, taps: usize) -> KBlocks {
        let (first, end) = (tile.k0, tile.k0 + tile.k_len);
        let inner = match tile.order {
            KOrder::ChannelMajor => taps,
            KOrder::TapMajor => channels,
        }
        .max(1);
        let units = (tile.k_len / inner).max(1);
        let across = tile.order == KOrder::TapMajor
            && first % inner == 0
            && end % inner == 0
            && units <= K_BLOCK;
        let balanced = |n: usize, most: usize| n.div_ceil(n.div_ceil(most));
        let per = if across {
            balanced(inner, K_BLOCK / units)
        } else if inner <= K_BLOCK {
            balanced(units, K_BLOCK / inner) * inner
        } else {
            balanced(inner, K_BLOCK)
        };
        let next = if across { 0 } else { first };
        KBlocks {
            order: tile.order,
            inner,
            first,
            end,
            next,
            across,
            per,
        }
    }

    /// A range of channels and all taps of a tap-major tile.
    fn next_across(&mut self) -> Option<Block> {
        let taps = self.first / self.inner..self.end / self.inner;
        let channels = self.next..(self.next + self.per).min(self.inner);
        if channels.is_empty() || taps.is_empty() {
            return None;
        }
        self.next = channels.end;
        Some(Block {
            first: channels.start == 0,
            last: channels.end == self.inner,
            len: channels.len() * taps.len(),
            rows: Rows {
                first: channels.start,
                run: channels.len(),
                runs: taps.len(),
                stride: self.inner,
            },
            channels,
            taps,
        })
    }
}

impl Iterator for KBlocks {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
        if self.across {
            return self.next_across();
        }
        if self.next >= self.end {
            return None;
        }
        let (outer, inside) = (self.next / self.inner, self.next % self.inner);
        let left = self.end - self.next;
        // From the middle of a unit, or when units are longer than blocks, or when the tile ends
        // within the first unit: a part of one unit. Else whole units.
        let part = inside != 0 || self.per < self.inner || left < self.inner;
        let (outer, inner) = if part {
            let len = self.per.min(self.inner - inside).min(left);
            (outer..outer + 1, inside..inside + len)
        } else {
            (
                outer..outer + self.per.min(left) / self.inner,
                0..self.inner,
            )
        };
        let at = self.next - self.first;
        let len = outer.len() * inner.len();
        self.next += len;
        let (channels, taps) = match self.order {
            KOrder::ChannelMajor => (outer, inner),
            KOrder::TapMajor => (inner, outer),
        };
        Some(Block {
            first: at == 0,
            last: self.next == self.end,
            len,
            channels,
            taps,
            rows: Rows {
                first: at,
                run: len,
                runs: 1,
                stride: 0,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::TileValues;

    fn cut(order: KOrder, channels: usize, taps: usize, k: Range<usize>) -> Vec<Block> {
        let tile = WeightTile {
            first_panel: 0,
            panels: 1,
            k0: k.start,
            k_len: k.len(),
            order,
            values: TileValues::F32(&[]),
        };
        KBlocks::new(&tile, channels, taps).collect()
    }

    #[test]
    fn blocks_cover_the_range_once() {
        let sizes = [
            (1, 1),
            (3, 9),
            (64, 9),
            (512, 9),
            (7, 49),
            (2, 225),
            (500, 1),
            (192, 3),
        ];
        for (channels, taps) in sizes {
            for order in [KOrder::ChannelMajor, KOrder::TapMajor] {
                let k = channels * taps;
                for range in [0..k, 0..k / 2, k / 2..k, k / 3..k / 3 + 1] {
                    let mut seen = vec![false; range.len()];
                    let blocks = cut(order, channels, taps, range.clone());
                    for (i, b) in blocks.iter().enumerate() {
                        assert_eq!((b.first, b.last), (i == 0, i + 1 == blocks.len()));
                        assert_eq!(b.len, b.channels.len() * b.taps.len());
                        assert!((1..=K_BLOCK).contains(&b.len), "{b:?}");
                        // The rows are the rectangle's k, in ascending order.
                        let rows = (0..b.rows.runs)
                            .flat_map(|r| (0..b.rows.run).map(move |i| (r, i)))
                            .map(|(r, i)| b.rows.first + r * b.rows.stride + i);
                        let mut expected: Vec<usize> = (b.channels.clone())
                            .flat_map(|c| b.taps.clone().map(move |t| (c, t)))
                            .map(|(c, t)| match order {
                                KOrder::ChannelMajor => c * taps + t,
                                KOrder::TapMajor => t * channels + c,
                            })
                            .collect();
                        expected.sort_unstable();
                        let rows: Vec<usize> = rows.collect();
                        let shifted: Vec<usize> = rows.iter().map(|r| r + range.start).collect();
                        assert_eq!(shifted, expected);
                        for row in rows {
                            assert!(!std::mem::replace(&mut seen[row], true));
                        }
                    }
                    assert!(seen.into_iter().all(|s| s));
                }
            }
        }
    }

    #[test]
    fn blocks_are_balanced() {
        for order in [KOrder::ChannelMajor, KOrder::TapMajor] {
            let blocks = cut(order, 64, 9, 0..576);
            assert!(blocks.iter().all(|b| b.len == 144), "{blocks:?}");
        }
    }
}
