//! Lists of non-zero weights: what they look like, and how they are made of tiles.
//!
//! A list belongs to one group of `L` neighbouring output channels (1, 2 or 4) and one block of input channels;
//! it has an entry for each input channel and tap at which any channel of the group has a weight: the
//! offset of the input in the lines of the block, and `L` weights. Entries go by input channel, then by
//! tap, whatever the order of k in the file.

use super::super::ConvShape;
use super::lines::Lines;
use crate::conv::blocks::Rows;
use crate::expand::expand;
use crate::simd::Isa;
use crate::weights::{KOrder, PANEL, WeightTile};
use std::ops::Range;

/// Lists of a layer, or of a block of it: block after block, in a block group after group.
#[derive(Clone, Copy, Debug)]
pub struct Lists<'a> {
    /// Where each list starts, and the end of the last one.
    pub starts: &'a [u32],
    /// Offsets of inputs.
    pub places: &'a [u16],
    /// Weights, `L` to a place.
    pub values: &'a [f32],
}

/// The blocks of input channels that a tile has a part of.
pub(super) fn blocks(
    shape: &ConvShape,
    tile: &WeightTile<'_>,
    lines: &Lines,
) -> impl Iterator<Item = Range<usize>> + use<> {
    let (channels, taps) = (shape.in_per_group(), shape.taps().max(1));
    let range = match tile.order {
        KOrder::ChannelMajor => tile.k0 / taps..(tile.k0 + tile.k_len).div_ceil(taps),
        KOrder::TapMajor => 0..channels,
    };
    let (step, end) = (lines.channels, range.end);
    range.step_by(step).map(move |c| c..(c + step).min(end))
}

/// Weights of a block of input channels of one panel of a tile, by tap and channel as the tile has them; zero where the
/// tile ends. `out` holds `channels * taps` rows.
pub(super) fn expand_block(
    isa: Isa,
    shape: &ConvShape,
    tile: &WeightTile<'_>,
    panel: usize,
    channels: &Range<usize>,
    out: &mut [[f32; PANEL]],
) {
    let (all, taps) = (shape.in_per_group(), shape.taps());
    let tile_k = tile.k0..tile.k0 + tile.k_len;
    if tile.order == KOrder::TapMajor && tile_k == (0..all * taps) {
        let rows = Rows {
            first: channels.start,
            run: channels.len(),
            runs: taps,
            stride: all,
        };
        return expand(isa, tile, panel, rows, out);
    }
    // Runs of k, and how many.
    let (first, run, runs) = match tile.order {
        KOrder::ChannelMajor => (channels.start * taps, channels.len() * taps, 1),
        KOrder::TapMajor => (channels.start, channels.len(), taps),
    };
    for (i, out) in out[..run * runs].chunks_exact_mut(run.max(1)).enumerate() {
        let start = first + i * all;
        let low = start.clamp(tile_k.start, tile_k.end);
        let high = (start + run).clamp(low, tile_k.end);
        out.fill([0.0; PANEL]);
        let rows = Rows {
            first: low - tile_k.start,
            run: high - low,
            runs: 1,
            stride: 0,
        };
        if high > low {
            expand(isa, tile, panel, rows, &mut out[low - start..]);
        }
    }
}

/// Whether any of these is a weight: neither 0 nor -0.
#[inline(always)]
pub(super) fn any<const L: usize>(group: &[f32; L]) -> bool {
    let mut bits = 0;
    for w in group {
        bits |= w.to_bits() << 1;
    }
    bits != 0
}
