//! Blocks of k: the unit of summation order and of weight expansion.
//!
//! A block is a rectangle, some input channels times some taps, of at most [`K_BLOCK`] products:
//! whole channels when k is channel-major (whole taps when tap-major), or a part of one when it is
//! longer than a block. Sizes are balanced, so that no short block is left over. The cut depends
//! on the layer's geometry and the tile's k-range only; this is what makes results independent of
//! everything else.

use crate::weights::{KOrder, WeightTile};
use std::ops::Range;

/// Most products of one block: 24 pixels of input and a panel of weights stay in the L1 cache.
pub const K_BLOCK: usize = 192;

/// One block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// First k, counted from the tile's.
    pub at: usize,
    /// Number of k: `channels.len() * taps.len()`.
    pub len: usize,
    /// Input channels within the group.
    pub channels: Range<usize>,
    /// Taps, `ky * kw + kx`.
    pub taps: Range<usize>,
}

/// The blocks of a tile, in order.
#[derive(Clone, Debug)]
pub struct KBlocks {
    order: KOrder,
    /// Length of the inner index of k: taps when channel-major, channels when tap-major.
    inner: usize,
    k: usize,
    first: usize,
    end: usize,
    /// Products of a full block.
    per: usize,
}

impl KBlocks {
    /// `channels` and `taps` of the layer (of one group).
    pub fn new(tile: &WeightTile<'_>, channels: usize, taps: usize) -> KBlocks {
        let inner = match tile.order {
            KOrder::ChannelMajor => taps,
            KOrder::TapMajor => channels,
        }
        .max(1);
        let per = if inner <= K_BLOCK {
            let units = (tile.k_len / inner).max(1);
            units.div_ceil(units.div_ceil(K_BLOCK / inner)) * inner
        } else {
            inner.div_ceil(inner.div_ceil(K_BLOCK))
        };
        let end = tile.k0 + tile.k_len;
        KBlocks {
            order: tile.order,
            inner,
            k: tile.k0,
            first: tile.k0,
            end,
            per,
        }
    }
}

impl Iterator for KBlocks {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
        if self.k >= self.end {
            return None;
        }
        let (outer, inside) = (self.k / self.inner, self.k % self.inner);
        let left = self.end - self.k;
        // From the middle of a unit, or when units are longer than blocks, or when the tile ends
        // within the first unit: a part of one unit. Else whole units.
        let (outer_range, inner_range) =
            if inside != 0 || self.per < self.inner || left < self.inner {
                let len = self.per.min(self.inner - inside).min(left);
                (outer..outer + 1, inside..inside + len)
            } else {
                (
                    outer..outer + self.per.min(left) / self.inner,
                    0..self.inner,
                )
            };
        let at = self.k - self.first;
        let len = outer_range.len() * inner_range.len();
        self.k += len;
        Some(match self.order {
            KOrder::ChannelMajor => Block {
                at,
                len,
                channels: outer_range,
                taps: inner_range,
            },
            KOrder::TapMajor => Block {
                at,
                len,
                channels: inner_range,
                taps: outer_range,
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
    fn blocks_cover_the_range_in_order() {
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
                    let mut next = 0;
                    for b in cut(order, channels, taps, range.clone()) {
                        assert_eq!(b.at, next);
                        assert_eq!(b.len, b.channels.len() * b.taps.len());
                        assert!((1..=K_BLOCK).contains(&b.len), "{b:?}");
                        let (c, t) = (b.channels.start, b.taps.start);
                        let first = match order {
                            KOrder::ChannelMajor => c * taps + t,
                            KOrder::TapMajor => t * channels + c,
                        };
                        assert_eq!(first, range.start + b.at);
                        next += b.len;
                    }
                    assert_eq!(next, range.len());
                }
            }
        }
    }

    #[test]
    fn blocks_are_balanced() {
        let blocks = cut(KOrder::ChannelMajor, 64, 9, 0..576);
        assert!(blocks.iter().all(|b| b.len == 144), "{blocks:?}");
    }
}
