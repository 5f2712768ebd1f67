//! 1x1 convolution with stride 1, straight from the input: no copy, no halo.
//!
//! The dense kernel's register tiles read the input where it lies, channels one stride apart; only
//! a block of expanded weights is in scratch. Rows are joined where the layout allows (planes
//! without gaps), else a row whose width is no multiple of 8 leaves lanes unused. It wins where
//! copying costs more than that: few output channels per call, wide rows. [`product`], a 1x1
//! product on a rectangle of pixels, is what `kn2.rs` shifts about. Same blocks and bits as
//! `gemm.rs`.

use super::blocks::{Block, K_BLOCK, KBlocks, Rows};
use super::gemm::{CHUNK, Panels};
use super::plane::{Band, Plane};
use super::store::{Sums, Target, Vectors};
use super::{Call, ConvShape, Start, chunks, split_scratch};
use crate::activation::Epilogue;
use crate::expand::expand;
use crate::shape::{View, ViewMut};
use crate::simd::Isa;
use crate::weights::{PANEL, WeightTile};
use std::ops::Range;

/// 1x1, stride 1, no padding.
pub(super) fn supports(shape: &ConvShape) -> bool {
    shape.kernel == [1, 1]
        && shape.stride == [1, 1]
        && (shape.pad_top, shape.pad_left) == (0, 0)
        && (shape.out_h, shape.out_w) == (shape.in_h, shape.in_w)
        && !shape.is_depthwise()
}

/// f32 elements of scratch.
pub(super) fn workspace(panels: usize) -> usize {
    panels.clamp(1, CHUNK) * K_BLOCK * PANEL + K_BLOCK
}

/// Runs the call.
pub(super) fn run(isa: Isa, call: Call<'_, '_>) {
    let Call {
        shape,
        tile,
        input,
        rows,
        out,
        start,
        epilogue,
        scratch,
        ..
    } = call;
    let mut scratch = Scratch::new(tile.panels, scratch);
    for (group, chunk) in chunks(shape, tile, CHUNK) {
        for block in KBlocks::new(tile, shape.in_per_group(), 1) {
            scratch.expand(isa, tile, chunk.clone(), block.rows);
            let first = group * shape.in_per_group() + block.channels.start;
            let rectangle = Rectangle {
                input,
                at: input.map.at(0, first, rows.start),
                band: Band {
                    rows: rows.clone(),
                    columns: 0..shape.out_w,
                },
                first_row: rows.start,
                accumulate: !block.first || start == Start::Accumulate,
                epilogue: epilogue.filter(|_| block.last),
                lanes: Lanes::Any,
            };
            let first = tile.first_panel + chunk.start;
            let panels = (first, chunk.len());
            product(isa, shape, panels, &block, rectangle, out, &mut scratch);
        }
    }
}

/// Expanded weights of a chunk of panels, offsets and sums.
pub(super) struct Scratch<'a> {
    pub weights: &'a mut [[f32; PANEL]],
    pub offsets: &'a mut [u32],
    pub sums: [Sums; CHUNK],
}

impl<'a> Scratch<'a> {
    pub fn new(panels: usize, scratch: &'a mut [f32]) -> Scratch<'a> {
        let (weights, rest) = split_scratch::<PANEL>(scratch, panels.min(CHUNK) * K_BLOCK);
        Scratch {
            weights,
            offsets: bytemuck::cast_slice_mut(&mut rest[..K_BLOCK]),
            sums: std::array::from_fn(|_| Sums::new()),
        }
    }

    /// The same rows of every panel of a chunk.
    pub fn expand(&mut self, isa: Isa, tile: &WeightTile<'_>, chunk: Range<usize>, rows: Rows) {
        for (i, p) in chunk.enumerate() {
            expand(isa, tile, p, rows, &mut self.weights[i * K_BLOCK..]);
        }
    }
}

/// Which of the two inner kernels.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Lanes {
    /// The faster one.
    Any,
    /// A pixel per lane, where reading whole vectors stays within the slice.
    Pixels,
    /// A channel per lane.
    Channels,
}

/// Where a product reads and adds.
pub(super) struct Rectangle<'a> {
    pub input: View<'a>,
    /// Offset of the input of the rectangle's first pixel and the block's first channel.
    pub at: usize,
    pub band: Band,
    /// Output row the output starts with.
    pub first_row: usize,
    pub accumulate: bool,
    pub epilogue: Option<&'a Epilogue<'a>>,
    pub lanes: Lanes,
}

/// Expanded weights (`panels`: first of the layer, count) times a rectangle of pixels.
pub(super) fn product(
    isa: Isa,
    shape: &ConvShape,
    panels: (usize, usize),
    block: &Block,
    rectangle: Rectangle<'_>,
    out: &mut ViewMut<'_>,
    scratch: &mut Scratch<'_>,
) {
    let Rectangle {
        input,
        at,
        band,
        first_row,
        accumulate,
        epilogue,
        lanes,
    } = rectangle;
    let map = input.map;
    for (c, offset) in scratch.offsets[..block.len].iter_mut().enumerate() {
        *offset = (c * map.channel) as u32;
    }
    // Vectors may be read behind the last pixel of a row: where that leaves the slice, one by one.
    let data = &input.data[at..];
    let last = (block.len - 1) * map.channel + band.columns.len().next_multiple_of(8);
    let whole = (data.len() + map.row).saturating_sub(last) / map.row.max(1);
    let whole = whole.min(band.rows.len());
    let flat = map.row == band.columns.len();
    let split = band.rows.start + whole;
    for (rows, whole) in [
        (band.rows.start..split, true),
        (split..band.rows.end, false),
    ] {
        if rows.is_empty() {
            continue;
        }
        let plane = Plane::plain(map.row, 1);
        let panels = Panels {
            shape,
            first: panels.0,
            count: panels.1,
            weights: &*scratch.weights,
            block,
            offsets: &scratch.offsets[..block.len],
            plane: &plane,
            data: &data[(rows.start - band.rows.start) * map.row..],
        };
        let band = Band {
            rows,
            columns: band.columns.clone(),
        };
        let pixels = band.rows.len() * band.columns.len();
        let vectors = Vectors::new(&band, flat);
        let full = pixels * 10 >= vectors.count() * 8 * 7;
        let mut target = Target {
            out: &mut *out,
            first_row,
            band,
            accumulate,
            epilogue,
        };
        if whole && (lanes == Lanes::Pixels || lanes == Lanes::Any && full) {
            panels.pixel_lanes(isa, vectors, &mut target, &mut scratch.sums);
        } else {
            panels.channel_lanes(isa, pixels, &mut target, &mut scratch.sums);
        }
    }
}
