//! 1x1 convolution, straight from the input: no copy, no halo.
//!
//! The dense kernel's register tiles read the input where it lies, channels one stride apart; only
//! a block of expanded weights is in scratch. A pixel per lane where rows fill vectors (joined
//! where the layout allows), else a channel per lane, for which strides cost nothing (`gemm::lanes_fill`). [`product`],
//! a 1x1 product on a rectangle of pixels, is what `kn2.rs` shifts about. Same blocks and bits as
//! `gemm.rs`.

use super::blocks::{Block, K_BLOCK, KBlocks};
use super::gemm::{ALIGN, CHUNK, Panels, Room, Weights, lanes_fill, weights_space};
use super::plane::{Band, Plane};
use super::store::{Target, Vectors, plain};
use super::{Call, ConvShape, Start, block_weights, chunks};
use crate::activation::Epilogue;
use crate::shape::{View, ViewMut};
use crate::simd::Isa;
use crate::weights::PANEL;

/// 1x1, no padding.
pub(super) fn supports(shape: &ConvShape) -> bool {
    let covered = |axis: usize, size: usize, out: usize| {
        out > 0 && (out - 1).saturating_mul(shape.stride[axis]) < size
    };
    shape.kernel == [1, 1]
        && (shape.pad_top, shape.pad_left) == (0, 0)
        && covered(0, shape.in_h, shape.out_h)
        && covered(1, shape.in_w, shape.out_w)
        && !shape.is_depthwise()
}

/// f32 elements of scratch.
pub(super) fn workspace(panels: usize) -> usize {
    ALIGN + panels.clamp(1, CHUNK).next_multiple_of(2) * K_BLOCK * PANEL + K_BLOCK
}

/// Runs the call.
pub(super) fn run(isa: Isa, call: Call<'_, '_>) {
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
    let by_pixels = shape.stride[1] == 1 && lanes_fill(isa, shape, rows.len(), tile.panels);
    let lanes = if by_pixels {
        Lanes::Pixels
    } else {
        Lanes::Channels
    };
    for (group, chunk) in chunks(shape, tile, CHUNK) {
        for block in KBlocks::new(tile, shape.in_per_group(), 1) {
            let weights = block_weights(
                isa,
                tiles,
                chunk.clone(),
                block.rows,
                space,
                lanes.pairs(isa),
            );
            let first = group * shape.in_per_group() + block.channels.start;
            let rectangle = Rectangle {
                input,
                at: input.map.at(0, first, rows.start * shape.stride[0]),
                steps: shape.stride,
                band: Band {
                    rows: rows.clone(),
                    columns: 0..shape.out_w,
                },
                first_row: rows.start,
                accumulate: !block.first || start == Start::Accumulate,
                epilogue: epilogue.filter(|_| block.last),
                lanes,
                between: true,
            };
            let first = tile.first_panel + chunk.start;
            let panels = (first, chunk.len(), &weights);
            product(isa, shape, panels, &block, rectangle, out, &mut scratch);
        }
    }
}

/// Offsets and sums.
pub(super) struct Scratch<'a> {
    pub offsets: &'a mut [u32],
    pub room: &'a mut Room,
}

impl<'a> Scratch<'a> {
    /// And room for the weights of a chunk.
    pub fn new(
        panels: usize,
        scratch: &'a mut [f32],
        room: &'a mut Room,
    ) -> (&'a mut [[f32; PANEL]], Scratch<'a>) {
        let (weights, rest) = weights_space(panels, scratch);
        let scratch = Scratch {
            offsets: bytemuck::cast_slice_mut(&mut rest[..K_BLOCK]),
            room,
        };
        (weights, scratch)
    }
}

/// Which of the two inner kernels.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Lanes {
    /// A pixel per lane, where reading whole vectors stays within the slice.
    Pixels,
    /// A channel per lane.
    Channels,
}

impl Lanes {
    /// Whether weights are wanted in pairs of panels.
    pub fn pairs(self, isa: Isa) -> bool {
        self == Lanes::Channels && isa.has_long()
    }
}

/// Where a product reads and adds.
pub(super) struct Rectangle<'a> {
    pub input: View<'a>,
    /// Offset of the input of the rectangle's first pixel and the block's first channel.
    pub at: usize,
    /// Input rows and columns between two output rows and columns; lanes of pixels need neighbours.
    pub steps: [usize; 2],
    pub band: Band,
    /// Output row the output starts with.
    pub first_row: usize,
    pub accumulate: bool,
    pub epilogue: Option<&'a Epilogue<'a>>,
    pub lanes: Lanes,
    /// The product is that of whole blocks on the whole width.
    pub between: bool,
}

/// Weights (`panels`: first of the layer, count, weights) times a rectangle of pixels.
pub(super) fn product(
    isa: Isa,
    shape: &ConvShape,
    panels: (usize, usize, &Weights<'_>),
    block: &Block,
    rectangle: Rectangle<'_>,
    out: &mut ViewMut<'_>,
    scratch: &mut Scratch<'_>,
) {
    let Rectangle {
        input,
        at,
        steps: [down, right],
        band,
        first_row,
        accumulate,
        epilogue,
        lanes,
        between,
    } = rectangle;
    let map = input.map;
    for (c, offset) in scratch.offsets[..block.len].iter_mut().enumerate() {
        *offset = (c * map.channel) as u32;
    }
    // Vectors may be read behind the last pixel of a row: where that leaves the slice, one by one.
    let data = &input.data[at..];
    let row = map.row * down;
    let last = (block.len - 1) * map.channel + band.columns.len().next_multiple_of(8);
    let whole = (data.len() + row).saturating_sub(last) / row.max(1);
    let whole = match lanes {
        Lanes::Pixels if !isa.has_long() => whole.min(band.rows.len()),
        _ => band.rows.len(),
    };
    let flat = row == band.columns.len();
    let split = band.rows.start + whole;
    for (rows, whole) in [
        (band.rows.start..split, true),
        (split..band.rows.end, false),
    ] {
        if rows.is_empty() {
            continue;
        }
        let plane = Plane::plain(row, right);
        let of_rows = Panels {
            shape,
            first: panels.0,
            count: panels.1,
            weights: panels.2,
            block,
            offsets: &scratch.offsets[..block.len],
            plane: &plane,
            data: &data[(rows.start - band.rows.start) * row..],
        };
        let band = Band {
            rows,
            columns: band.columns.clone(),
        };
        let vectors = Vectors::new(&band, flat);
        let between = between && lanes == Lanes::Channels;
        let mut target = Target {
            first_row,
            accumulate,
            epilogue,
            plain: between && plain(out, &band),
            out: &mut *out,
            band,
        };
        if whole && lanes == Lanes::Pixels {
            of_rows.pixel_lanes(isa, vectors, &mut target, &mut scratch.room.sums);
        } else {
            of_rows.channel_lanes(isa, &mut target, &mut scratch.room.stage);
        }
    }
}
