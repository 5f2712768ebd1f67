//! Depthwise convolution: one input channel per output channel, 8 channels of `[tap][8]` weights per panel.
//!
//! 3x3 kernels run straight from the map, a pixel per lane: with registers of 16 maps of any width
//! (`depthwise3_long.rs`), but wide ones with stride 1, and with registers of 8 such of 8 to 1,024 columns, in registers of 8
//! (`depthwise3.rs`). Everything else, and what is added to sums that are there, runs with a channel per lane (`depthwise_lanes.rs`). Every sum is one chain over the taps of a block, so the bits do not depend on which of the three ran.
//! Bound by memory: a 3x3 layer moves about as many bytes as it
//! computes.

use super::blocks::{K_BLOCK, KBlocks};
use super::plane::Band;
use super::store::Target;
use super::{Call, ConvShape, Start, depthwise_lanes, depthwise3, depthwise3_long, split_scratch};
use crate::expand::expand;
use crate::simd::Isa;

/// f32 elements of scratch.
pub(super) fn workspace(shape: &ConvShape) -> usize {
    depthwise_lanes::workspace(shape)
}

/// Runs the call.
pub(super) fn run(isa: Isa, mut call: Call<'_, '_>) {
    if !straight(isa, &mut call) {
        depthwise_lanes::run(isa, call);
    }
}

/// Whether `depthwise3_long.rs` or `depthwise3.rs` computes it, done then.
fn straight(isa: Isa, call: &mut Call<'_, '_>) -> bool {
    let Call {
        shape, tile, input, ..
    } = *call;
    let block = KBlocks::new(tile, 1, shape.taps()).next();
    let Some(block) = block.filter(|block| block.len == shape.taps()) else {
        return false;
    };
    if call.start == Start::Accumulate {
        return false;
    }
    let short = depthwise3::fits(isa, shape, call.rows.len());
    let long = depthwise3_long::fits(isa, shape) && !(short && depthwise3::is_wide(shape));
    if !long && !short {
        return false;
    }
    let (weights, _) = split_scratch(call.scratch, K_BLOCK);
    for chunk in (0..tile.panels).step_by(depthwise3::PANELS) {
        let end = tile.panels.min(chunk + depthwise3::PANELS);
        for (i, p) in (chunk..end).enumerate() {
            expand(isa, tile, p, block.rows, &mut weights[i * block.len..]);
        }
        let (first, _) = shape.panel_channels(tile.first_panel + chunk);
        let (last, lanes) = shape.panel_channels(tile.first_panel + end - 1);
        let mut target = Target {
            out: &mut *call.out,
            first_row: call.rows.start,
            band: Band {
                rows: call.rows.clone(),
                columns: 0..shape.out_w,
            },
            accumulate: false,
            epilogue: call.epilogue,
            plain: false,
        };
        let direct = depthwise3::Direct {
            weights: &weights[..(end - chunk) * block.len],
            input,
            shape,
            channels: first..last + lanes,
            target: &mut target,
        };
        if long {
            depthwise3_long::run(isa, direct);
        } else {
            direct.run(isa);
        }
    }
    true
}
