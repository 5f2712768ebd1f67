//! Winograd's minimal filtering F(m x m, 3 x 3), m = 2, 4, 6: fewer multiplications for 3x3
//! kernels with stride 1.
//!
//! ```text
//! for strip of tiles (m x m outputs each)
//!   transform (m + 2)^2 inputs of every tile and channel    (input.rs)
//!   for group of panels
//!     for each of the (m + 2)^2 positions: channels x tiles matrix product  (multiply.rs)
//!     transform back, add, finish                           (output.rs)
//! ```
//! Multiplications per output and channel fall from 9 to 4, 2.25 and 1.78; the price is
//! `(m + 2)^2 / 9` times the weights, transforms of input and output, and rounding errors that
//! grow with m (points.rs). Weights may be resident in f32 or in 16 bits ([`transform`],
//! [`transform_16`], [`run`]), or transformed from a decoded tile in every call
//! ([`crate::conv_tile`]); scaled codes give equal bits in all three ways. The scratch holds one
//! strip, not the map. It loses on few channels, on maps that tiles cover badly, with tiles of one panel
//! (each transforms the input anew), and on 512 channels of 4x4, where weights outweigh products.
//!
//! Order of summation: per position one chain over a block of at most 128 channels, blocks in
//! order, then the output transform; tiles lie on the grid of the whole output, so rows, strips
//! and threads change nothing. Lavin & Gray (2016).

mod input;
mod multiply;
mod output;
mod points;
mod strip;
mod weights;

use self::multiply::{BLOCK, FEW, Products};
use self::points::{F2, F4, F6, Size, reach};
use self::strip::{Cut, Strip};
use super::{Call, ConvShape, Start};
use crate::activation::Epilogue;
use crate::shape::{View, ViewMut};
use crate::simd::Isa;
use crate::weights::{PANEL, WeightTile};
use std::marker::PhantomData;
use std::ops::Range;

/// Panels whose sums are kept side by side: they share a block of input in the L1 cache.
const CHUNK: usize = 4;
/// Elements of weights that [`crate::conv_tile`] transforms at a time (1 MiB), but at least 2
/// panels and at most 8.
const TILE_TARGET: usize = 256 * 1024;
/// Elements of transformed input of a strip to aim at: 512 KiB.
const TARGET: usize = 128 * 1024;
/// Elements between two positions beyond the data: keeps them out of each other's cache sets.
const GAP: usize = 16;

/// Output tile of an algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Winograd {
    /// F(2x2, 3x3)
    F2,
    /// F(4x4, 3x3)
    F4,
    /// F(6x6, 3x3)
    F6,
}

/// Calls a generic function for the type that stands for a size.
macro_rules! sized {
    ($size:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match $size {
            Winograd::F2 => $function::<F2>($($argument),*),
            Winograd::F4 => $function::<F4>($($argument),*),
            Winograd::F6 => $function::<F6>($($argument),*),
        }
    };
}

impl Winograd {
    /// Output rows and columns of a tile; calls whose rows start at multiples of it waste nothing.
    pub fn tile(self) -> usize {
        match self {
            Winograd::F2 => F2::M,
            Winograd::F4 => F4::M,
            Winograd::F6 => F6::M,
        }
    }

    /// Positions: weights of a transformed kernel.
    pub fn positions(self) -> usize {
        (self.tile() + 2) * (self.tile() + 2)
    }
}

/// 3x3, stride 1, no dilation; groups of more than one channel, any padding.
pub fn supports(shape: &ConvShape) -> bool {
    shape.kernel == [3, 3]
        && shape.stride == [1, 1]
        && shape.dilation == [1, 1]
        && !shape.is_depthwise()
}

/// Elements of one transformed panel.
pub fn panel_len(size: Winograd, shape: &ConvShape) -> usize {
    let stride = weights::stride(shape.in_per_group());
    size.positions().saturating_mul(stride)
}

/// Scales of one panel of [`transform_16`].
pub fn scales_len(size: Winograd) -> usize {
    size.positions() * PANEL
}

/// Transformed weights of whole panels.
#[derive(Clone, Copy, Debug)]
pub enum Resident<'a> {
    /// `[panel][position][channel of the group][8]`, 16 unused elements behind each position, made
    /// by [`transform`].
    F32(&'a [f32]),
    /// The same as integers, and a scale for each `[panel][position][8]`, made by
    /// [`transform_16`].
    I16 {
        /// Integers.
        q: &'a [i16],
        /// Scales.
        scales: &'a [f32],
    },
}

/// Transforms the panels of a tile that holds their whole k: `out` takes [`panel_len`] elements
/// for each.
///
/// # Panics
/// When the tile holds a part of k only or `out` is too short: a mistake of the caller.
pub fn transform(
    isa: Isa,
    size: Winograd,
    shape: &ConvShape,
    tile: &WeightTile<'_>,
    out: &mut [f32],
) {
    assert!(supports(shape) && (tile.k0, tile.k_len) == (0, shape.k()));
    let out = &mut out[..tile.panels * panel_len(size, shape)];
    let (panels, channels) = (0..tile.panels, 0..shape.in_per_group());
    sized!(
        size,
        transform_panels(isa, shape, tile, panels, channels, out)
    );
}

use self::weights::transform as transform_panels;

/// Whether [`transform_16`] loses nothing for integer codes (or multiples of the step of a look-up
/// table) of at most this magnitude, whatever they are.
pub fn fits_16(size: Winograd, max_abs: u8) -> bool {
    let reach = sized!(size, reach());
    reach * reach * f32::from(max_abs) <= f32::from(i16::MAX)
}

/// The same in 16 bits. `q` takes [`panel_len`], `scales` [`scales_len`] elements per panel,
/// `scratch` one [`panel_len`].
///
/// Returns true when nothing was lost, which then gives the same bits as [`transform`]: i8 codes
/// with one step per layer or channel are integers in the transformed domain too, at most 45,847
/// where 32,767 fit (only kernels with nearly all codes at the limit do not). All other weights
/// are rounded to 16 bits of the largest in their channel and position.
///
/// # Panics
/// As [`transform`].
pub fn transform_16(
    isa: Isa,
    size: Winograd,
    shape: &ConvShape,
    tile: &WeightTile<'_>,
    q: &mut [i16],
    scales: &mut [f32],
    scratch: &mut [f32],
) -> bool {
    assert!(supports(shape) && (tile.k0, tile.k_len) == (0, shape.k()));
    sized!(
        size,
        transform_16_sized(isa, shape, tile, q, scales, scratch)
    )
}

fn transform_16_sized<K: Size>(
    isa: Isa,
    shape: &ConvShape,
    tile: &WeightTile<'_>,
    q: &mut [i16],
    scales: &mut [f32],
    scratch: &mut [f32],
) -> bool {
    let positions = K::T * K::T;
    let len = positions * weights::stride(shape.in_per_group());
    let form = &mut scratch[..len];
    let mut exact = true;
    for panel in 0..tile.panels {
        weights::Transform::<K> {
            shape,
            tile,
            panel,
            channels: 0..shape.in_per_group(),
            scaled: false,
            out: form,
            size: PhantomData,
        }
        .run_on(isa);
        let q = &mut q[panel * len..][..len];
        let scales = &mut scales[panel * positions * PANEL..][..positions * PANEL];
        exact &= weights::narrow::<K>(tile, panel, form, q, scales);
    }
    exact
}

/// f32 elements of scratch [`run`] needs for `panels` panels and `rows` output rows of a call, with
/// strips of at most `tiles` tiles; 0 takes what is fastest. Fewer tiles need less and change no
/// bit.
pub fn workspace(
    size: Winograd,
    shape: &ConvShape,
    panels: usize,
    rows: usize,
    tiles: usize,
) -> usize {
    sized!(size, workspace_sized(shape, panels, rows, tiles))
}

fn workspace_sized<K: Size>(shape: &ConvShape, panels: usize, rows: usize, tiles: usize) -> usize {
    Parts::new::<K>(shape, panels, rows, tiles).len()
}

/// How scratch is divided.
struct Parts {
    cut: Cut,
    input: usize,
    sums: usize,
    buffer: usize,
    widened: usize,
}

impl Parts {
    fn new<K: Size>(shape: &ConvShape, panels: usize, rows: usize, tiles: usize) -> Parts {
        let positions = K::T * K::T;
        let channels = shape.in_per_group().max(1);
        let tiles = match tiles {
            0 => {
                let most = TARGET / (positions * channels) / 8 * 8;
                most.clamp(24, 96)
            }
            n => n,
        };
        let cut = Cut::new::<K>(shape, rows, tiles);
        let pitch = (cut.rows * cut.columns).next_multiple_of(8);
        let panels = panels.clamp(1, CHUNK);
        Parts {
            cut,
            input: positions.saturating_mul(channels.saturating_mul(pitch).saturating_add(GAP)),
            sums: panels * positions * (PANEL * pitch + GAP),
            buffer: input::buffer::<K>(cut.rows, cut.columns)
                .max(output::buffer::<K>(cut.rows, cut.columns)),
            widened: panels * BLOCK * PANEL,
        }
    }

    fn len(&self) -> usize {
        self.input
            .saturating_add(self.sums + self.buffer + self.widened + BLOCK)
    }
}

/// What a convolution reads and writes; as for [`crate::conv_tile`].
struct Job<'a, 'b> {
    isa: Isa,
    shape: &'a ConvShape,
    input: View<'a>,
    rows: Range<usize>,
    out: &'a mut ViewMut<'b>,
    start: Start,
    epilogue: Option<&'a Epilogue<'a>>,
}

/// Adds the products of `panels` (of the layer; `weights` starts with the first of them) to output
/// rows `rows`; the other arguments are those of [`crate::conv_tile`]. Strips are as large as
/// `tiles` says, see [`workspace`].
///
/// # Panics
/// As [`crate::conv_tile`].
#[expect(clippy::too_many_arguments)]
pub fn run(
    isa: Isa,
    size: Winograd,
    shape: &ConvShape,
    weights: Resident<'_>,
    panels: Range<usize>,
    input: View<'_>,
    rows: Range<usize>,
    out: &mut ViewMut<'_>,
    start: Start,
    epilogue: Option<&Epilogue<'_>>,
    tiles: usize,
    scratch: &mut [f32],
) {
    assert!(supports(shape), "Winograd does not support {shape:?}");
    super::check_maps(shape, &input, &rows, out);
    assert!(panels.end <= shape.panels());
    if out.map.is_empty() || panels.is_empty() || shape.in_per_group() == 0 {
        return;
    }
    let job = Job {
        isa,
        shape,
        input,
        rows,
        out,
        start,
        epilogue,
    };
    sized!(size, run_sized(job, weights, panels, tiles, scratch));
}

fn run_sized<K: Size>(
    mut job: Job<'_, '_>,
    weights: Resident<'_>,
    panels: Range<usize>,
    tiles: usize,
    scratch: &mut [f32],
) {
    let shape = job.shape;
    let parts = Parts::new::<K>(shape, panels.len(), job.rows.len(), tiles);
    let mut scratch = Scratch::new(&parts, scratch);
    let channels = 0..shape.in_per_group();
    for strip in parts.cut.strips::<K>(shape, &job.rows) {
        let mut panel = panels.start;
        while panel < panels.end {
            let (group, end) = group_of(shape, panel, panels.end);
            job.transform_input::<K>(group, &channels, &strip, &mut scratch);
            let within = panel - panels.start..end - panels.start;
            job.multiply::<K>(
                weights,
                within,
                panels.start,
                &channels,
                &strip,
                &mut scratch,
            );
            panel = end;
        }
    }
}

/// The group of a panel, and the end of the group's panels, at most `end`.
fn group_of(shape: &ConvShape, panel: usize, end: usize) -> (usize, usize) {
    let per_group = shape.panels_per_group();
    let group = panel / per_group;
    (group, ((group + 1) * per_group).min(end))
}

/// The parts of the scratch.
struct Scratch<'a> {
    input: &'a mut [f32],
    sums: &'a mut [f32],
    buffer: &'a mut [f32],
    widened: &'a mut [[f32; PANEL]],
    offsets: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    fn new(parts: &Parts, scratch: &'a mut [f32]) -> Scratch<'a> {
        let (input, scratch) = scratch.split_at_mut(parts.input);
        let (sums, scratch) = scratch.split_at_mut(parts.sums);
        let (buffer, scratch) = scratch.split_at_mut(parts.buffer);
        let (offsets, scratch) = scratch.split_at_mut(BLOCK);
        Scratch {
            input,
            sums,
            buffer,
            offsets,
            widened: scratch[..parts.widened].as_chunks_mut().0,
        }
    }
}

impl Job<'_, '_> {
    fn transform_input<K: Size>(
        &self,
        group: usize,
        channels: &Range<usize>,
        strip: &Strip,
        scratch: &mut Scratch<'_>,
    ) {
        let first = group * self.shape.in_per_group();
        self.isa.run(input::Input::<K> {
            shape: self.shape,
            input: self.input,
            channels: first + channels.start..first + channels.end,
            strip,
            stride: channels.len() * strip.pitch() + GAP,
            out: scratch.input,
            buffer: scratch.buffer,
            size: PhantomData,
        });
    }

    /// All positions of panels `panels` of `weights` (which begin with panel `first` of the
    /// layer) for a strip.
    fn multiply<K: Size>(
        &mut self,
        weights: Resident<'_>,
        panels: Range<usize>,
        first: usize,
        channels: &Range<usize>,
        strip: &Strip,
        scratch: &mut Scratch<'_>,
    ) {
        let (positions, count, pitch) = (K::T * K::T, channels.len(), strip.pitch());
        let (in_stride, stride) = (count * pitch + GAP, PANEL * pitch + GAP);
        let weights_stride = weights::stride(count);
        let block = count.div_ceil(count.div_ceil(BLOCK));
        let widened = &mut *scratch.widened;
        let offsets: &mut [u32] = bytemuck::cast_slice_mut(scratch.offsets);
        for (k, offset) in offsets.iter_mut().enumerate() {
            *offset = (k * pitch) as u32;
        }
        for chunk in panels.clone().step_by(CHUNK) {
            let chunk = chunk..(chunk + CHUNK).min(panels.end);
            for position in 0..positions {
                for channel in (0..count).step_by(block) {
                    let len = block.min(count - channel);
                    let input = &scratch.input[position * in_stride + channel * pitch..];
                    let products = Products {
                        input: &input[..len * pitch],
                        pitch,
                        offsets: bytemuck::cast_slice(scratch.offsets),
                        tiles: strip.tiles(),
                        first: channel == 0,
                    };
                    let sums = &mut scratch.sums[position * stride..];
                    let at = |i: usize| {
                        ((chunk.start + i) * positions + position) * weights_stride
                            + channel * PANEL
                    };
                    match weights {
                        Resident::F32(values) => {
                            let weights = |i| values[at(i)..][..len * PANEL].as_chunks().0;
                            let stride = positions * stride;
                            products.run(self.isa, chunk.len(), weights, sums, stride);
                        }
                        Resident::I16 { q, scales } if strip.tiles() <= FEW => {
                            let weights = |i| {
                                let scale = (chunk.start + i) * positions + position;
                                let q = q[at(i)..][..len * PANEL].as_chunks().0;
                                (q, &scales.as_chunks().0[scale])
                            };
                            let stride = positions * stride;
                            products.run_few_16(self.isa, chunk.len(), weights, sums, stride);
                        }
                        Resident::I16 { q, scales } => {
                            for i in 0..chunk.len() {
                                let scale = (chunk.start + i) * positions + position;
                                self.isa.run(weights::Widen {
                                    q: &q[at(i)..][..len * PANEL],
                                    scale: &scales.as_chunks().0[scale],
                                    out: &mut widened[i * BLOCK..][..len],
                                });
                            }
                            let weights = |i| &widened[i * BLOCK..][..len];
                            let stride = positions * stride;
                            products.run(self.isa, chunk.len(), weights, sums, stride);
                        }
                    }
                }
            }
            for panel in chunk.clone() {
                let (channel, lanes) = self.shape.panel_channels(first + panel);
                let at = (panel - chunk.start) * positions * stride;
                self.isa.run(output::Output::<K> {
                    shape: self.shape,
                    strip,
                    sums: &scratch.sums[at..],
                    stride,
                    channels: channel..channel + lanes,
                    rows: self.rows.clone(),
                    out: &mut *self.out,
                    accumulate: self.start == Start::Accumulate,
                    epilogue: self.epilogue,
                    buffer: &mut *scratch.buffer,
                    size: PhantomData,
                });
            }
        }
    }
}

/// Panels that are transformed at a time.
fn tile_chunk(panel_len: usize) -> usize {
    (TILE_TARGET / panel_len.max(1)).clamp(2, 8)
}

/// Scratch of [`run_tile`].
pub(super) fn tile_workspace(
    size: Winograd,
    shape: &ConvShape,
    panels: usize,
    rows: usize,
) -> usize {
    let len = panel_len(size, shape);
    let weights = tile_chunk(len).min(panels).saturating_mul(len);
    weights.saturating_add(workspace(size, shape, panels, rows, 0))
}

/// A tile's weights are transformed, once, then used.
pub(super) fn run_tile(size: Winograd, isa: Isa, call: Call<'_, '_>) {
    sized!(size, run_tile_sized(isa, call));
}

fn run_tile_sized<K: Size>(isa: Isa, call: Call<'_, '_>) {
    let Call { shape, tile, .. } = call;
    let channels = weights::channels(shape, tile);
    let len = K::T * K::T * weights::stride(channels.len());
    let most = tile_chunk(K::T * K::T * weights::stride(shape.in_per_group()));
    let (transformed, scratch) = call.scratch.split_at_mut(tile.panels.min(most) * len);
    let parts = Parts::new::<K>(shape, tile.panels, call.rows.len(), 0);
    let mut scratch = Scratch::new(&parts, scratch);
    let strips = parts.cut.strips::<K>(shape, &call.rows);
    let single = strips.clone().nth(1).is_none();
    let mut job = Job {
        isa,
        shape,
        input: call.input,
        rows: call.rows,
        out: call.out,
        start: call.start,
        epilogue: call.epilogue,
    };
    let (mut panel, mut ready) = (0, None);
    while panel < tile.panels {
        let first = tile.first_panel + panel;
        let (group, end) = group_of(shape, first, tile.first_panel + tile.panels);
        let chunk = panel..(end - tile.first_panel).min(panel + most);
        panel = chunk.end;
        let weights = &mut transformed[..chunk.len() * len];
        let panels = 0..chunk.len();
        weights::transform::<K>(isa, shape, tile, chunk, channels.clone(), weights);
        for strip in strips.clone() {
            // The input of a map of one strip stays transformed for all panels of a group.
            if !single || ready != Some(group) {
                job.transform_input::<K>(group, &channels, &strip, &mut scratch);
                ready = Some(group);
            }
            let weights = Resident::F32(weights);
            job.multiply::<K>(
                weights,
                panels.clone(),
                first,
                &channels,
                &strip,
                &mut scratch,
            );
        }
    }
}
