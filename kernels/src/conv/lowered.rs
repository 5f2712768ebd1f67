//! Classic lowering, for comparison: im2col and im2row write every input once per tap.
//!
//! The lowered matrix holds k x pixels values of the call: 9 times the input for a 3x3 layer,
//! which is what makes it the worst choice under a memory budget; packed planes (`plane.rs`) give
//! the inner kernels the same view without it. im2col stores a line per k and runs a pixel per
//! lane, im2row a line per pixel and runs a channel per lane. Made anew for each tile. Both run the dense
//! kernel's register tiles, blocks and order of summation: same bits. Chellapilla et al. (2006).

use super::blocks::{Block, KBlocks};
use super::gemm::{CHUNK, Panels, Room};
use super::plane::{Band, Plane};
use super::pointwise::Scratch;
use super::store::{Target, Vectors};
use super::{Call, ConvShape, Start, block_weights, chunks, pointwise};
use crate::shape::View;
use crate::simd::Isa;
use crate::weights::{KOrder, WeightTile};
use std::ops::Range;

/// How the matrix lies.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Lines {
    /// A line of pixels for each k.
    Columns,
    /// A line of k for each pixel.
    Rows,
}

/// Anything dense whose matrix can be indexed with 32 bits.
pub(super) fn supports(shape: &ConvShape) -> bool {
    !shape.is_depthwise() && u32::try_from(matrix(shape, shape.out_h)).is_ok()
}

/// Elements of the matrix; vectors may be read behind the last pixel.
fn matrix(shape: &ConvShape, rows: usize) -> usize {
    let pixels = rows.saturating_mul(shape.out_w);
    pixels.saturating_mul(shape.k()).saturating_add(8)
}

/// f32 elements of scratch.
pub(super) fn workspace(shape: &ConvShape, panels: usize, rows: usize) -> usize {
    pointwise::workspace(panels).saturating_add(matrix(shape, rows))
}

/// Runs the call.
pub(super) fn run(isa: Isa, lines: Lines, call: Call<'_, '_>) {
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
    let pixels = rows.len() * shape.out_w;
    let (matrix, scratch) = scratch.split_at_mut(pixels * tile.k_len + 8);
    let mut room = Room::new();
    let (space, scratch) = Scratch::new(tile.panels, scratch, &mut room);
    // Distance of two k, and of two pixels.
    let (of_k, of_pixel) = match lines {
        Lines::Columns => (pixels, 1),
        Lines::Rows => (1, tile.k_len),
    };
    let plane = Plane::plain(shape.out_w * of_pixel, of_pixel);
    let pairs = lines == Lines::Rows && isa.has_long();
    let mut lowered = None;
    for (group, chunk) in chunks(shape, tile, CHUNK) {
        if lowered != Some(group) {
            let first = group * shape.in_per_group();
            lower(shape, tile, input, first, &rows, [of_k, of_pixel], matrix);
            lowered = Some(group);
        }
        for block in KBlocks::new(tile, shape.in_per_group(), shape.taps()) {
            let weights = block_weights(isa, tiles, chunk.clone(), block.rows, space, pairs);
            fill_offsets(&block, of_k, scratch.offsets);
            let panels = Panels {
                shape,
                first: tile.first_panel + chunk.start,
                count: chunk.len(),
                weights: &weights,
                block: &block,
                offsets: &scratch.offsets[..block.len],
                plane: &plane,
                data: &*matrix,
            };
            let band = Band {
                rows: rows.clone(),
                columns: 0..shape.out_w,
            };
            let vectors = Vectors::new(&band, true);
            let mut target = Target {
                out: &mut *out,
                first_row: rows.start,
                band,
                accumulate: !block.first || start == Start::Accumulate,
                epilogue: epilogue.filter(|_| block.last),
                plain: false,
            };
            match lines {
                Lines::Columns => {
                    panels.pixel_lanes(isa, vectors, &mut target, &mut scratch.room.sums);
                }
                Lines::Rows => {
                    panels.channel_lanes(isa, &mut target, &mut scratch.room.stage);
                }
            }
        }
    }
}

/// Where each k of a block lies: rows of the tile are lines of the matrix.
fn fill_offsets(block: &Block, of_k: usize, offsets: &mut [u32]) {
    let runs = block.rows.runs;
    for (run, offsets) in offsets.chunks_mut(block.rows.run).take(runs).enumerate() {
        let first = block.rows.first + run * block.rows.stride;
        for (i, offset) in offsets.iter_mut().enumerate() {
            *offset = ((first + i) * of_k) as u32;
        }
    }
}

/// Writes the matrix of the tile's k, channels counted from `first`.
fn lower(
    shape: &ConvShape,
    tile: &WeightTile<'_>,
    input: View<'_>,
    first: usize,
    rows: &Range<usize>,
    [of_k, of_pixel]: [usize; 2],
    matrix: &mut [f32],
) {
    for i in 0..tile.k_len {
        let k = tile.k0 + i;
        let (channel, tap) = match tile.order {
            KOrder::ChannelMajor => (k / shape.taps(), k % shape.taps()),
            KOrder::TapMajor => (k % shape.in_per_group(), k / shape.in_per_group()),
        };
        let (ky, kx) = (tap / shape.kernel[1], tap % shape.kernel[1]);
        for (j, y) in rows.clone().enumerate() {
            let y = (y * shape.stride[0] + ky * shape.dilation[0]).checked_sub(shape.pad_top);
            let from = y
                .filter(|&y| y < shape.in_h)
                .map(|y| &input.data[input.map.at(0, first + channel, y)..][..shape.in_w]);
            for x in 0..shape.out_w {
                let at =
                    (x * shape.stride[1] + kx * shape.dilation[1]).wrapping_sub(shape.pad_left);
                let value = from.and_then(|from| from.get(at)).copied();
                matrix[i * of_k + (j * shape.out_w + x) * of_pixel] = value.unwrap_or(0.0);
            }
        }
    }
}
