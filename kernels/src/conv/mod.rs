//! Convolution of a decoded tile of weights.
//!
//! One table, [`ALGOS`], lists the algorithms; a new one is a file and a line there, and the test
//! suite runs it by itself. Names follow `conv_{algo}_{dtype}_{tile}_{isa}` ([`kernel_name`]).
//!
//! Bit rule: an output is a sum over k in the order of the tile, cut into blocks by
//! [`blocks::KBlocks`] (which looks at the layer and the tile only); a block is one chain of
//! multiply-adds from zero, and its result is added to the output. Algorithms of this order follow it, so
//! they agree bit for bit, whatever the split into rows, the layout or the position of a pixel. Where [`Sums`] says
//! so the order is another one, with the same independence.

pub mod blocks;
mod channels;
mod depthwise;
mod depthwise3;
mod depthwise3_long;
mod depthwise_lanes;
mod direct;
#[cfg(feature = "fft")]
pub mod fft;
mod gemm;
mod kn2;
mod lowered;
mod pairs;
mod plane;
mod pointwise;
pub mod sparse;
mod store;
pub mod winograd;

use crate::activation::Epilogue;
use crate::expand::{expand, expand_pair, in_place};
use crate::shape::{View, ViewMut};
use crate::simd::Isa;
use crate::weights::{PANEL, WeightTile};
use std::ops::Range;
use winograd::Winograd;

/// Geometry of a convolution of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// Input channels, all groups together.
    pub in_channels: usize,
    /// Output channels, all groups together.
    pub out_channels: usize,
    /// Groups.
    pub groups: usize,
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// (vertical, horizontal)
    pub stride: [usize; 2],
    /// (vertical, horizontal)
    pub dilation: [usize; 2],
    /// Rows of zeros above the input.
    pub pad_top: usize,
    /// Columns of zeros left of the input.
    pub pad_left: usize,
    /// Input rows.
    pub in_h: usize,
    /// Input columns.
    pub in_w: usize,
    /// Output rows.
    pub out_h: usize,
    /// Output columns.
    pub out_w: usize,
}

impl ConvShape {
    /// Input channels of a group.
    pub fn in_per_group(&self) -> usize {
        self.in_channels / self.groups.max(1)
    }
    /// Output channels of a group.
    pub fn out_per_group(&self) -> usize {
        self.out_channels / self.groups.max(1)
    }
    /// One input channel per group and more than one group: panels run across groups.
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.in_channels
    }
    /// Positions of the kernel.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }
    /// Inputs of one output.
    pub fn k(&self) -> usize {
        self.in_per_group() * self.taps()
    }
    /// Panels of a group (of the layer when depthwise).
    pub fn panels_per_group(&self) -> usize {
        let channels = if self.is_depthwise() {
            self.out_channels
        } else {
            self.out_per_group()
        };
        channels.div_ceil(PANEL)
    }
    /// Panels of the layer.
    pub fn panels(&self) -> usize {
        self.panels_per_group() * if self.is_depthwise() { 1 } else { self.groups }
    }
    /// First output channel of a panel and how many of its lanes are real.
    pub fn panel_channels(&self, panel: usize) -> (usize, usize) {
        if self.is_depthwise() {
            return (
                panel * PANEL,
                (self.out_channels - panel * PANEL).min(PANEL),
            );
        }
        let (group, inner) = (
            panel / self.panels_per_group(),
            panel % self.panels_per_group(),
        );
        let first = inner * PANEL;
        (
            group * self.out_per_group() + first,
            (self.out_per_group() - first).min(PANEL),
        )
    }
}

/// The algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConvAlgo {
    /// Packed input, register tiles of channels x pixels.
    Gemm,
    /// Zero weights are skipped.
    DirectSparse,
    /// One input channel per output channel.
    Depthwise,
    /// Dense, no scratch at all.
    Direct,
    /// Classic: the whole lowered matrix, a line per k.
    Im2col,
    /// Classic: the whole lowered matrix, a line per pixel.
    Im2row,
    /// Steps whose weights are zero for 2 neighbouring channels are skipped.
    BlockSparse2,
    /// Steps whose weights are zero for 4 neighbouring channels are skipped.
    BlockSparse4,
    /// 1x1 and stride 1, from the input where it lies.
    Pointwise,
    /// Shifted 1x1 products, a pixel per lane.
    Kn2row,
    /// Shifted 1x1 products, a channel per lane.
    Kn2col,
    /// F(2x2, 3x3), weights transformed in the call.
    Winograd2,
    /// F(4x4, 3x3), weights transformed in the call.
    Winograd4,
    /// F(6x6, 3x3), weights transformed in the call.
    Winograd6,
    /// Through the frequency domain: not by tiles of weights, see `fft`.
    Fft,
}

/// What the output holds before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Anything: it is overwritten.
    Zero,
    /// Something to add to: the sum of earlier k-ranges, or a residual.
    Accumulate,
}

/// The order of summation of an algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sums {
    /// Chains over the blocks of [`blocks::KBlocks`].
    Blocks,
    /// One chain by input channel and tap, from what is there: zeros are skipped.
    Chain,
    /// Tap after tap, chains over channels.
    Taps,
    /// Chains over channels, in the transformed domain.
    Winograd(Winograd),
}

/// One algorithm of the table.
pub struct Algo {
    /// Which one.
    pub algo: ConvAlgo,
    /// `conv_{algo}_{dtype}_{tile}`
    pub name: &'static str,
    /// Algorithms with equal order give equal bits for the same cut into tiles.
    pub sums: Sums,
    /// Whether it can compute the shape.
    pub supports: fn(&ConvShape) -> bool,
    /// f32 elements of scratch for (shape, panels of a tile, output rows of a call).
    workspace: fn(&ConvShape, usize, usize) -> usize,
    run: for<'a, 'b> fn(Isa, Call<'a, 'b>),
}

/// Every algorithm. The first one that supports a shape is a sound default.
pub const ALGOS: &[Algo] = &[
    Algo {
        algo: ConvAlgo::Gemm,
        name: "conv_gemm_f32_8x24",
        sums: Sums::Blocks,
        supports: |shape| !shape.is_depthwise(),
        workspace: gemm::workspace,
        run: gemm::run,
    },
    Algo {
        algo: ConvAlgo::DirectSparse,
        name: "conv_sparse_f32_1x64",
        sums: Sums::Chain,
        supports: sparse::supports,
        workspace: |shape, panels, _| sparse::workspace(shape, panels),
        run: sparse::run_tile::<1>,
    },
    Algo {
        algo: ConvAlgo::Depthwise,
        name: "conv_depthwise_f32_8x8",
        sums: Sums::Blocks,
        supports: ConvShape::is_depthwise,
        workspace: |shape, _, _| depthwise::workspace(shape),
        run: depthwise::run,
    },
    Algo {
        algo: ConvAlgo::Direct,
        name: "conv_direct_f32_4x24",
        sums: Sums::Blocks,
        supports: |shape| !shape.is_depthwise(),
        workspace: |_, _, _| 0,
        run: direct::run,
    },
    Algo {
        algo: ConvAlgo::Im2col,
        name: "conv_im2col_f32_8x24",
        sums: Sums::Blocks,
        supports: lowered::supports,
        workspace: lowered::workspace,
        run: |isa, call| lowered::run(isa, lowered::Lines::Columns, call),
    },
    Algo {
        algo: ConvAlgo::Im2row,
        name: "conv_im2row_f32_8x8",
        sums: Sums::Blocks,
        supports: lowered::supports,
        workspace: lowered::workspace,
        run: |isa, call| lowered::run(isa, lowered::Lines::Rows, call),
    },
    Algo {
        algo: ConvAlgo::BlockSparse2,
        name: "conv_blocksparse_f32_2x32",
        sums: Sums::Chain,
        supports: sparse::supports,
        workspace: |shape, panels, _| sparse::workspace(shape, panels),
        run: sparse::run_tile::<2>,
    },
    Algo {
        algo: ConvAlgo::BlockSparse4,
        name: "conv_blocksparse_f32_4x16",
        sums: Sums::Chain,
        supports: sparse::supports,
        workspace: |shape, panels, _| sparse::workspace(shape, panels),
        run: sparse::run_tile::<4>,
    },
    Algo {
        algo: ConvAlgo::Pointwise,
        name: "conv_pointwise_f32_8x24",
        sums: Sums::Blocks,
        supports: pointwise::supports,
        workspace: |_, panels, _| pointwise::workspace(panels),
        run: pointwise::run,
    },
    Algo {
        algo: ConvAlgo::Kn2row,
        name: "conv_kn2row_f32_8x24",
        sums: Sums::Taps,
        supports: kn2::supports,
        workspace: |_, panels, _| kn2::workspace(panels),
        run: |isa, call| kn2::run(isa, pointwise::Lanes::Pixels, call),
    },
    Algo {
        algo: ConvAlgo::Kn2col,
        name: "conv_kn2col_f32_8x8",
        sums: Sums::Taps,
        supports: kn2::supports,
        workspace: |_, panels, _| kn2::workspace(panels),
        run: |isa, call| kn2::run(isa, pointwise::Lanes::Channels, call),
    },
    Algo {
        algo: ConvAlgo::Winograd2,
        name: "conv_winograd2_f32_8x24",
        sums: Sums::Winograd(Winograd::F2),
        supports: winograd::supports,
        workspace: |s, panels, rows| winograd::tile_cut(Winograd::F2, s, panels, rows, 0).scratch,
        run: |isa, call| winograd::run_tile(Winograd::F2, isa, call),
    },
    Algo {
        algo: ConvAlgo::Winograd4,
        name: "conv_winograd4_f32_8x24",
        sums: Sums::Winograd(Winograd::F4),
        supports: winograd::supports,
        workspace: |s, panels, rows| winograd::tile_cut(Winograd::F4, s, panels, rows, 0).scratch,
        run: |isa, call| winograd::run_tile(Winograd::F4, isa, call),
    },
    Algo {
        algo: ConvAlgo::Winograd6,
        name: "conv_winograd6_f32_8x24",
        sums: Sums::Winograd(Winograd::F6),
        supports: winograd::supports,
        workspace: |s, panels, rows| winograd::tile_cut(Winograd::F6, s, panels, rows, 0).scratch,
        run: |isa, call| winograd::run_tile(Winograd::F6, isa, call),
    },
];

fn entry(algo: ConvAlgo) -> Option<&'static Algo> {
    ALGOS.iter().find(|a| a.algo == algo)
}

/// Full name of a kernel.
pub fn kernel_name(algo: ConvAlgo, isa: Isa) -> String {
    let name = entry(algo).map_or("conv_fft_f32", |a| a.name);
    format!("{name}_{}", isa.name())
}

/// Whether an algorithm can compute a shape.
pub fn supports(algo: ConvAlgo, shape: &ConvShape) -> bool {
    entry(algo).is_some_and(|a| (a.supports)(shape))
}

/// f32 elements of scratch [`conv_tile`] needs for tiles of at most `tile_panels` panels and
/// calls of at most `rows` output rows.
pub fn workspace(algo: ConvAlgo, shape: &ConvShape, tile_panels: usize, rows: usize) -> usize {
    entry(algo).map_or(0, |a| (a.workspace)(shape, tile_panels, rows))
}

/// The arguments of [`conv_tiles`], checked.
struct Call<'a, 'b> {
    shape: &'a ConvShape,
    /// The tile; of several, the first one with the panels of all.
    tile: &'a WeightTile<'a>,
    /// All tiles, for algorithms that join them ([`joins`]).
    tiles: &'a [WeightTile<'a>],
    input: View<'a>,
    rows: Range<usize>,
    out: &'a mut ViewMut<'b>,
    start: Start,
    epilogue: Option<&'a Epilogue<'a>>,
    warm: bool,
    scratch: &'a mut [f32],
}

/// Adds one tile's products to output rows `rows` of one image (`input.map.n == 1`).
///
/// `out.map.h == rows.len()` and `out.data` starts at row `rows.start`; only the channels of the
/// tile's panels are touched. `epilogue` (its slices cover all output channels) comes with the
/// last k-range only. `scratch` may hold anything, see [`workspace`]; `warm` says that it is as the call
/// before left it, which differed in the tile's place among the panels (and the weights) only.
///
/// # Panics
/// When a slice, a map or the scratch is smaller than the shape demands, or the algorithm does
/// not support the shape: a mistake of the caller, never of a file.
#[expect(clippy::too_many_arguments)]
pub fn conv_tile(
    isa: Isa,
    algo: ConvAlgo,
    shape: &ConvShape,
    tile: &WeightTile<'_>,
    input: View<'_>,
    rows: Range<usize>,
    out: &mut ViewMut<'_>,
    start: Start,
    epilogue: Option<&Epilogue<'_>>,
    warm: bool,
    scratch: &mut [f32],
) {
    let tiles = std::slice::from_ref(tile);
    conv_tiles(
        isa, algo, shape, tiles, input, rows, out, start, epilogue, warm, scratch,
    );
}

/// Most panels of tiles that are computed together.
pub const JOINED: usize = gemm::CHUNK;

/// Whether an algorithm computes neighbouring tiles of the same k together, which packs the input once for all of them.
pub fn joins(algo: ConvAlgo) -> bool {
    matches!(algo, ConvAlgo::Gemm | ConvAlgo::Pointwise)
}

/// [`conv_tile`] for neighbouring tiles of the same k, with the same bits. The scratch is that of one tile with all panels.
///
/// # Panics
/// As [`conv_tile`], and when tiles do not follow each other or the algorithm does not join more than one.
#[expect(clippy::too_many_arguments)]
pub fn conv_tiles(
    isa: Isa,
    algo: ConvAlgo,
    shape: &ConvShape,
    tiles: &[WeightTile<'_>],
    input: View<'_>,
    rows: Range<usize>,
    out: &mut ViewMut<'_>,
    start: Start,
    epilogue: Option<&Epilogue<'_>>,
    warm: bool,
    scratch: &mut [f32],
) {
    let Some(entry) = entry(algo).filter(|a| (a.supports)(shape)) else {
        panic!("{algo:?} does not support {shape:?}");
    };
    let Some(first) = tiles.first() else {
        return;
    };
    let mut tile = *first;
    for next in &tiles[1..] {
        assert!(joins(algo), "{algo:?} does not join tiles");
        assert_eq!(
            (next.first_panel, next.k0, next.k_len, next.order),
            (
                tile.first_panel + tile.panels,
                tile.k0,
                tile.k_len,
                tile.order
            ),
            "neighbouring tiles"
        );
        tile.panels += next.panels;
    }
    check_maps(shape, &input, &rows, out);
    assert!(tile.first_panel + tile.panels <= shape.panels());
    assert!(
        tile.k0 + tile.k_len <= shape.k(),
        "tile beyond the layer's k"
    );
    if out.map.is_empty() || tile.panels == 0 || tile.k_len == 0 {
        return;
    }
    (entry.run)(
        isa,
        Call {
            shape,
            tile: &tile,
            tiles,
            input,
            rows,
            out,
            start,
            epilogue,
            warm,
            scratch,
        },
    );
}

/// The same rows of the panels of a chunk (at most [`gemm::CHUNK`]): f32 weights stay where they are, others are expanded, panel
/// `i` at `i * K_BLOCK` of `space`. In `pairs`, all are expanded, two panels to a row of 16.
fn block_weights<'a>(
    isa: Isa,
    tiles: &[WeightTile<'a>],
    chunk: Range<usize>,
    rows: blocks::Rows,
    space: &'a mut [[f32; PANEL]],
    pairs: bool,
) -> gemm::Weights<'a> {
    let mut weights: gemm::Weights<'a> = gemm::Weights::default();
    let tile_of = |mut panel: usize| {
        let tile = tiles.iter().find(|tile| {
            let here = panel < tile.panels;
            panel -= if here { 0 } else { tile.panels };
            here
        });
        tile.map(|tile| (tile, panel))
    };
    if pairs {
        let space = space.as_flattened_mut().as_chunks_mut().0;
        let spaces = space.chunks_mut(blocks::K_BLOCK);
        for (panel, space) in chunk.clone().step_by(2).zip(spaces) {
            // A panel without a partner is its own.
            let [a, b] = [panel, (panel + 1).min(chunk.end - 1)].map(tile_of);
            if let (Some(a), Some(b)) = (a, b) {
                expand_pair(isa, [a, b], rows, space);
            }
        }
        weights.pairs = space;
        return weights;
    }
    let spaces = space.chunks_mut(blocks::K_BLOCK);
    for ((panel, space), weights) in chunk.zip(spaces).zip(&mut weights.panels) {
        if let Some((tile, panel)) = tile_of(panel) {
            *weights = match in_place(tile, panel, rows) {
                Some(weights) => weights,
                None => {
                    expand(isa, tile, panel, rows, space);
                    &space[..rows.run * rows.runs]
                }
            };
        }
    }
    weights
}

/// The maps are those of the shape, and lie within their slices.
fn check_maps(shape: &ConvShape, input: &View<'_>, rows: &Range<usize>, out: &ViewMut<'_>) {
    let (im, om) = (input.map, out.map);
    assert_eq!(
        (im.c, im.h, im.w),
        (shape.in_channels, shape.in_h, shape.in_w),
        "input map"
    );
    assert_eq!(
        (om.c, om.h, om.w),
        (shape.out_channels, rows.len(), shape.out_w),
        "output map"
    );
    assert!(
        im.span() <= input.data.len() && om.span() <= out.data.len(),
        "maps beyond slices"
    );
    assert!(rows.end <= shape.out_h, "output rows");
}

/// The panels of a tile in runs of at most `most` that belong to one group: `(group, panels of the tile)`.
fn chunks(
    shape: &ConvShape,
    tile: &WeightTile<'_>,
    most: usize,
) -> impl Iterator<Item = (usize, Range<usize>)> {
    let (per_group, first, panels) = (shape.panels_per_group(), tile.first_panel, tile.panels);
    let mut panel = 0;
    std::iter::from_fn(move || {
        let start = panel;
        let in_group = per_group - (first + start) % per_group;
        panel += in_group.min(most).min(panels - start);
        (start < panels).then(|| ((first + start) / per_group, start..panel))
    })
}

/// The first `rows` rows of `N` elements of the scratch, and the rest.
fn split_scratch<const N: usize>(
    scratch: &mut [f32],
    rows: usize,
) -> (&mut [[f32; N]], &mut [f32]) {
    let (head, rest) = scratch.split_at_mut(rows * N);
    (head.as_chunks_mut().0, rest)
}
