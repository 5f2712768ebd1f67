//! kn2row and kn2col, accumulating: a k x k convolution as a sum of shifted 1x1 convolutions.
//!
//! For each tap, the 1x1 product of all input pixels the tap can see is added to the output, moved
//! by the tap: no lowered matrix, no halo, and no scratch but a block of weights. The price is
//! one addition to the output per tap and block instead of per block: bound by
//! that on few input channels and large maps, and never better than packed planes where those fit in
//! a cache. kn2row has a pixel per lane (for rows of pixels), kn2col a channel per lane. Stride 1
//! only: with a larger stride most shifted products are thrown away.
//!
//! Order of summation: taps in order; per tap blocks of at most 192 channels, one chain each.
//! Vasudevan, Anderson & Gregg (2017); Anderson et al., "Low-memory GEMM-based convolution
//! algorithms" (2017).

use super::blocks::{Block, K_BLOCK, Rows};
use super::gemm::{CHUNK, Room};
use super::plane::Band;
use super::pointwise::{Lanes, Rectangle, Scratch, product};
use super::{Call, ConvShape, Start, block_weights, chunks};
use crate::simd::Isa;
use crate::weights::{KOrder, WeightTile};
use std::ops::Range;

pub(super) use super::pointwise::workspace;

/// Stride 1.
pub(super) fn supports(shape: &ConvShape) -> bool {
    shape.stride == [1, 1] && !shape.is_depthwise()
}

/// Runs the call.
pub(super) fn run(isa: Isa, lanes: Lanes, call: Call<'_, '_>) {
    let Call {
        shape,
        tile,
        tiles,
        input,
        rows,
        out,
        start,
        epilogue,
        scratch,
        ..
    } = call;
    let mut room = Room::new();
    let (space, mut scratch) = Scratch::new(tile.panels, scratch, &mut room);
    for (group, chunk) in chunks(shape, tile, CHUNK) {
        let (first, _) = shape.panel_channels(tile.first_panel + chunk.start);
        let (last, lanes_of_last) = shape.panel_channels(tile.first_panel + chunk.end - 1);
        let outputs = first..last + lanes_of_last;
        if start == Start::Zero {
            for y in 0..rows.len() {
                for c in outputs.clone() {
                    let at = out.map.at(0, c, y);
                    out.data[at..at + shape.out_w].fill(0.0);
                }
            }
        }
        for tap in 0..shape.taps() {
            let of_tap = channels(shape, tile, tap);
            let (y, x) = seen(shape, tap);
            let y = y.start.max(rows.start)..y.end.min(rows.end);
            if of_tap.is_empty() || y.is_empty() || x.is_empty() {
                continue;
            }
            let step = of_tap.len().div_ceil(of_tap.len().div_ceil(K_BLOCK));
            for c in of_tap.clone().step_by(step) {
                let channels = c..(c + step).min(of_tap.end);
                let block = block_of(shape, tile, tap, channels.clone());
                let weights = block_weights(
                    isa,
                    tiles,
                    chunk.clone(),
                    block.rows,
                    space,
                    lanes.pairs(isa),
                );
                let first = group * shape.in_per_group() + channels.start;
                let (ky, kx) = (tap / shape.kernel[1], tap % shape.kernel[1]);
                let from_y = y.start + ky * shape.dilation[0] - shape.pad_top;
                let from_x = x.start + kx * shape.dilation[1] - shape.pad_left;
                let rectangle = Rectangle {
                    input,
                    at: input.map.at(0, first, from_y) + from_x,
                    steps: [1, 1],
                    band: Band {
                        rows: y.clone(),
                        columns: x.clone(),
                    },
                    first_row: rows.start,
                    accumulate: true,
                    epilogue: None,
                    lanes,
                    between: false,
                };
                let panels = (tile.first_panel + chunk.start, chunk.len(), &weights);
                product(isa, shape, panels, &block, rectangle, out, &mut scratch);
            }
        }
        if let Some(epilogue) = epilogue {
            for y in 0..rows.len() {
                for c in outputs.clone() {
                    let at = out.map.at(0, c, y);
                    epilogue.apply(c, &mut out.data[at..at + shape.out_w]);
                }
            }
        }
    }
}

/// Output rows and columns for which a tap lies within the input.
fn seen(shape: &ConvShape, tap: usize) -> (Range<usize>, Range<usize>) {
    let range = |tap: usize, dilation: usize, pad: usize, size: usize, out: usize| {
        let shift = tap * dilation;
        let end = (size + pad).saturating_sub(shift).min(out);
        pad.saturating_sub(shift).min(end)..end
    };
    let (ky, kx) = (tap / shape.kernel[1], tap % shape.kernel[1]);
    let y = range(
        ky,
        shape.dilation[0],
        shape.pad_top,
        shape.in_h,
        shape.out_h,
    );
    let x = range(
        kx,
        shape.dilation[1],
        shape.pad_left,
        shape.in_w,
        shape.out_w,
    );
    (y, x)
}

/// Channels of which the tile holds the weight of a tap.
fn channels(shape: &ConvShape, tile: &WeightTile<'_>, tap: usize) -> Range<usize> {
    let (first, end) = (tile.k0, tile.k0 + tile.k_len);
    let (taps, n) = (shape.taps(), shape.in_per_group());
    match tile.order {
        KOrder::ChannelMajor => {
            first.saturating_sub(tap).div_ceil(taps)..end.saturating_sub(tap).div_ceil(taps)
        }
        KOrder::TapMajor => {
            first.saturating_sub(tap * n).min(n)..end.saturating_sub(tap * n).min(n)
        }
    }
}

/// One tap of some channels.
fn block_of(shape: &ConvShape, tile: &WeightTile<'_>, tap: usize, channels: Range<usize>) -> Block {
    let len = channels.len();
    let rows = match tile.order {
        KOrder::ChannelMajor => Rows {
            first: channels.start * shape.taps() + tap - tile.k0,
            run: 1,
            runs: len,
            stride: shape.taps(),
        },
        KOrder::TapMajor => Rows {
            first: tap * shape.in_per_group() + channels.start - tile.k0,
            run: len,
            runs: 1,
            stride: len,
        },
    };
    Block {
        first: false,
        last: false,
        len,
        channels,
        taps: tap..tap + 1,
        rows,
    }
}
