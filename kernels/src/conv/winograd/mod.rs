//! Winograd's minimal filtering F(m x m, 3 x 3), m = 2, 4, 6: fewer multiplications for 3x3
//! kernels with stride 1.
//!
//! ```text
//! for strip of tiles (m x m outputs each)
//!   transform (m + 2)^2 inputs of every tile and channel    (input.rs)
//!   for chunk of panels
//!     for each of the (m + 2)^2 positions: channels x tiles matrix product  (multiply.rs)
//!     transform back, add, finish                           (output.rs)
//! ```
//! Multiplications per output and channel fall from 9 to 4, 2.25 and 1.78; the price is
//! `(m + 2)^2 / 9` times the weights, transforms of input and output, and rounding errors that
//! grow with m (points.rs). With AVX-512 all four parts work on vectors of 16 (lanes.rs). Weights may be resident in f32 or in 16 bits ([`transform`],
//! [`transform_16`], [`run`]), or transformed from a decoded tile in every call
//! ([`crate::conv_tile`], a block of channels at a time); scaled codes give equal bits in all three
//! ways. The scratch holds one strip, not the map; how large strips and chunks are depends on the scratch
//! there is. It loses on few channels, on maps that tiles cover badly, and on 512 channels of 4x4,
//! where weights outweigh products.
//!
//! Order of summation: per position one chain over a block of at most 128 channels, blocks in
//! order, then the output transform; tiles lie on the grid of the whole output, so rows, strips
//! and threads change nothing. Lavin & Gray (2016).

mod input;
mod lanes;
mod multiply;
mod output;
mod points;
mod strip;
mod weights;

use self::multiply::{BLOCK, Panel, Products};
use self::points::{F2, F4, F6, Size, reach};
use self::strip::{Cut, MOST_TILES, Strip};
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
/// panels.
const TILE_TARGET: usize = 256 * 1024;

/// How a call is cut to the scratch it gets.
#[derive(Clone, Copy)]
struct Blocking {
    /// Most tiles of a strip; 0: as many as [`TARGET`] holds.
    tiles: usize,
    /// But at least so many: below, every strip reads the weights for too few products.
    least: usize,
    /// Most panels that are transformed at a time, or whose sums are kept.
    panels: usize,
}

/// Fastest first; each next one needs no more scratch.
const BLOCKINGS: [Blocking; LEVELS] = {
    const fn to(tiles: usize, least: usize, panels: usize) -> Blocking {
        Blocking {
            tiles,
            least,
            panels,
        }
    }
    [
        to(0, 48, 8),
        to(0, 24, 2),
        to(0, 24, 1),
        to(24, 24, 1),
        to(8, 8, 1),
    ]
};

/// Ways to cut a call to its scratch, see [`workspace`].
pub const LEVELS: usize = 5;
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
        exact &= weights::narrow::<K>(isa, tile, panel, form, q, scales);
    }
    exact
}

/// f32 elements of scratch [`run`] needs for `panels` panels and `rows` output rows of a call.
/// `level` 0 is fastest, each next one below [`LEVELS`] needs less. A call takes the first level
/// that fits its scratch; which one changes no bit.
pub fn workspace(
    size: Winograd,
    shape: &ConvShape,
    panels: usize,
    rows: usize,
    level: usize,
) -> usize {
    let cut = Weights::Resident { panels };
    parts(size.tile(), shape, cut, rows, level).len()
}

/// How [`crate::conv_tile`] goes about tiles of `panels` panels and calls of `rows` rows at a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileCut {
    /// f32 elements of scratch.
    pub scratch: usize,
    /// All of the call's input is transformed at once, and need not be for a warm call.
    pub single: bool,
    /// Panels for which the input is transformed once otherwise.
    pub panels: usize,
}

/// See [`TileCut`].
pub fn tile_cut(
    size: Winograd,
    shape: &ConvShape,
    panels: usize,
    rows: usize,
    level: usize,
) -> TileCut {
    let parts = parts(size.tile(), shape, Weights::Coded { panels }, rows, level);
    TileCut {
        scratch: parts.len(),
        single: parts.single,
        panels: parts.panels,
    }
}

/// Strips that cover a map at a level, each of which reads all weights, and their tiles filled up to vectors of `lanes`, for
/// predictions.
pub fn strips(size: Winograd, shape: &ConvShape, level: usize, lanes: usize) -> [usize; 2] {
    sized!(size, strips_sized(shape, level, lanes))
}

fn strips_sized<K: Size>(shape: &ConvShape, level: usize, lanes: usize) -> [usize; 2] {
    let parts = parts(
        K::M,
        shape,
        Weights::Resident { panels: 1 },
        shape.out_h,
        level,
    );
    let strips = parts.cut.strips(K::M, shape, &(0..shape.out_h));
    strips.fold([0, 0], |[count, tiles], strip| {
        [
            count + 1,
            tiles + strip.tiles().next_multiple_of(lanes.max(1)),
        ]
    })
}

/// Where weights come from.
#[derive(Clone, Copy)]
enum Weights {
    Resident {
        panels: usize,
    },
    /// Transformed in the call.
    Coded {
        panels: usize,
    },
}

/// How scratch is divided. The input comes first, so that it stays where it is when only the number
/// of panels changes.
struct Parts {
    cut: Cut,
    /// One strip is all there is.
    single: bool,
    /// Panels at a time.
    panels: usize,
    /// Most channels whose weights are transformed at a time.
    channels: usize,
    input: usize,
    weights: usize,
    sums: usize,
    buffer: usize,
    widened: usize,
}

/// For tiles of `m` x `m` outputs.
fn parts(m: usize, shape: &ConvShape, weights: Weights, rows: usize, level: usize) -> Parts {
    let Blocking {
        tiles,
        least,
        panels,
    } = BLOCKINGS[level.min(LEVELS - 1)];
    let positions = (m + 2) * (m + 2);
    let channels = shape.in_per_group().max(1);
    let tiles = match tiles {
        0 => (TARGET / (positions * channels) / 8 * 8).clamp(least, MOST_TILES),
        n => n,
    };
    let cut = Cut::new(m, shape, rows, tiles);
    let single = cut.is_all(m, shape, rows);
    let pitch = (cut.rows * cut.columns).next_multiple_of(8);
    let input = positions.saturating_mul(channels.saturating_mul(pitch).saturating_add(GAP));
    let of_channels = |n: usize| positions.saturating_mul(weights::stride(n));
    // The weights of a single strip need not be there for all channels at once.
    let block = if single {
        channels.min(BLOCK)
    } else {
        channels
    };
    let (panels, weights) = match weights {
        Weights::Resident { panels: all } => (all.min(panels).min(CHUNK), 0),
        Weights::Coded { panels: all } => {
            let most = if single { CHUNK } else { panels };
            let target = (TILE_TARGET / of_channels(block)).max(2);
            let panels = all.min(panels).min(most).min(target);
            (panels, panels.saturating_mul(of_channels(block)))
        }
    };
    let panels = panels.max(1);
    Parts {
        cut,
        single,
        panels,
        channels: block,
        input,
        weights,
        sums: panels.min(CHUNK) * positions * (PANEL * pitch + GAP),
        buffer: input::buffer(m, cut.rows, cut.columns).max(output::buffer(
            m,
            cut.rows,
            cut.columns,
        )),
        widened: panels.min(CHUNK) * BLOCK * PANEL,
    }
}

/// The first level that fits.
///
/// # Panics
/// When none does.
fn fitting(m: usize, shape: &ConvShape, weights: Weights, rows: usize, scratch: usize) -> Parts {
    let all = (0..LEVELS).map(|level| parts(m, shape, weights, rows, level));
    let mut fitting = all.filter(|parts| parts.len() <= scratch);
    let Some(parts) = fitting.next() else {
        panic!("{scratch} elements of scratch are fewer than any level's");
    };
    parts
}

impl Parts {
    fn len(&self) -> usize {
        self.input
            .saturating_add(self.weights)
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
/// rows `rows`; the other arguments are those of [`crate::conv_tile`]. The length of the scratch
/// decides the level, see [`workspace`].
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
    sized!(size, run_sized(job, weights, panels, scratch));
}

fn run_sized<K: Size>(
    mut job: Job<'_, '_>,
    weights: Resident<'_>,
    panels: Range<usize>,
    scratch: &mut [f32],
) {
    let shape = job.shape;
    let resident = Weights::Resident {
        panels: panels.len(),
    };
    let parts = fitting(K::M, shape, resident, job.rows.len(), scratch.len());
    let mut scratch = Scratch::new(&parts, scratch);
    let channels = 0..shape.in_per_group();
    for strip in parts.cut.strips(K::M, shape, &job.rows) {
        let mut panel = panels.start;
        while panel < panels.end {
            let (group, end) = group_of(shape, panel, panels.end);
            job.transform_input::<K>(group, &channels, &strip, &mut scratch);
            while panel < end {
                let chunk = panel..end.min(panel + parts.panels);
                let loaded = Loaded {
                    weights,
                    panel: panel - panels.start,
                    channels: channels.clone(),
                    count: channels.len(),
                };
                job.multiply(K::T * K::T, loaded, chunk.len(), &strip, &mut scratch);
                panel = chunk.end;
                job.finish::<K>(chunk, &strip, &mut scratch);
            }
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
    weights: &'a mut [f32],
    sums: &'a mut [f32],
    buffer: &'a mut [f32],
    widened: &'a mut [[f32; PANEL]],
    offsets: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    fn new(parts: &Parts, scratch: &'a mut [f32]) -> Scratch<'a> {
        let (input, scratch) = scratch.split_at_mut(parts.input);
        let (weights, scratch) = scratch.split_at_mut(parts.weights);
        let (sums, scratch) = scratch.split_at_mut(parts.sums);
        let (buffer, scratch) = scratch.split_at_mut(parts.buffer);
        let (offsets, scratch) = scratch.split_at_mut(BLOCK);
        Scratch {
            input,
            weights,
            sums,
            buffer,
            offsets,
            widened: scratch[..parts.widened].as_chunks_mut().0,
        }
    }
}

/// Transformed weights of some channels.
struct Loaded<'a> {
    weights: Resident<'a>,
    /// The first panel to use, counted in `weights`.
    panel: usize,
    /// Channels that `weights` hold, counted from the first that is transformed.
    channels: Range<usize>,
    /// Channels of transformed input.
    count: usize,
}

/// Channels of a chain of multiply-adds: equal parts.
fn chain(count: usize) -> usize {
    count.div_ceil(count.div_ceil(BLOCK).max(1)).max(1)
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
        let input = input::Input::<K> {
            shape: self.shape,
            input: self.input,
            channels: first + channels.start..first + channels.end,
            strip,
            stride: channels.len() * strip.pitch() + GAP,
            out: scratch.input,
            buffer: scratch.buffer,
            size: PhantomData,
        };
        if self.isa.has_long() {
            self.isa.run_long(input);
        } else {
            self.isa.run(input);
        }
    }

    /// All positions of `panels` (at most [`CHUNK`]) panels for a strip: sums over the channels that are loaded.
    fn multiply(
        &mut self,
        positions: usize,
        loaded: Loaded<'_>,
        panels: usize,
        strip: &Strip,
        scratch: &mut Scratch<'_>,
    ) {
        let (count, pitch) = (loaded.count, strip.pitch());
        let (in_stride, stride) = (count * pitch + GAP, PANEL * pitch + GAP);
        let weights_stride = weights::stride(loaded.channels.len());
        let block = chain(count);
        let widened = &mut *scratch.widened;
        let offsets: &mut [u32] = bytemuck::cast_slice_mut(scratch.offsets);
        for (k, offset) in offsets.iter_mut().enumerate() {
            *offset = (k * pitch) as u32;
        }
        for position in 0..positions {
            for channel in loaded.channels.clone().step_by(block) {
                let len = block.min(count - channel);
                let input = &scratch.input[position * in_stride + channel * pitch..];
                let products = Products {
                    input: &input[..len * pitch],
                    pitch,
                    offsets: bytemuck::cast_slice(scratch.offsets),
                    tiles: strip.tiles(),
                    first: channel == 0,
                };
                let place = |i: usize| (loaded.panel + i) * positions + position;
                let before = (channel - loaded.channels.start) * PANEL;
                let mut own = [Panel::F32(&[]); CHUNK];
                let rows = widened.chunks_exact_mut(BLOCK);
                for (i, (own, widened)) in own[..panels].iter_mut().zip(rows).enumerate() {
                    let at = place(i) * weights_stride + before;
                    *own = match loaded.weights {
                        Resident::F32(values) => {
                            Panel::F32(values[at..][..len * PANEL].as_chunks().0)
                        }
                        Resident::I16 { q, scales } => {
                            let q = q[at..][..len * PANEL].as_chunks().0;
                            let scale = &scales.as_chunks().0[place(i)];
                            if strip.tiles() <= multiply::few(self.isa) {
                                Panel::I16(q, scale)
                            } else {
                                let out = &mut widened[..len];
                                weights::Widen { q, scale, out }.run_on(self.isa);
                                Panel::F32(&widened[..len])
                            }
                        }
                    };
                }
                let sums = &mut scratch.sums[position * stride..];
                products.run(self.isa, &own[..panels], sums, positions * stride);
            }
        }
    }

    /// Transforms the sums of panels `panels` of the layer back.
    fn finish<K: Size>(&mut self, panels: Range<usize>, strip: &Strip, scratch: &mut Scratch<'_>) {
        let (positions, stride) = (K::T * K::T, PANEL * strip.pitch() + GAP);
        for (i, panel) in panels.enumerate() {
            let (channel, lanes) = self.shape.panel_channels(panel);
            let output = output::Output {
                isa: self.isa,
                shape: self.shape,
                strip,
                sums: &scratch.sums[i * positions * stride..],
                stride,
                channels: channel..channel + lanes,
                rows: self.rows.clone(),
                out: &mut *self.out,
                accumulate: self.start == Start::Accumulate,
                epilogue: self.epilogue,
                buffer: &mut *scratch.buffer,
            };
            output.run::<K>();
        }
    }
}

/// A tile's weights are transformed, once, then used.
pub(super) fn run_tile(size: Winograd, isa: Isa, call: Call<'_, '_>) {
    sized!(size, run_tile_sized(isa, call));
}

fn run_tile_sized<K: Size>(isa: Isa, call: Call<'_, '_>) {
    let Call { shape, tile, .. } = call;
    let channels = weights::channels(shape, tile);
    let coded = Weights::Coded {
        panels: tile.panels,
    };
    let parts = fitting(K::M, shape, coded, call.rows.len(), call.scratch.len());
    let mut scratch = Scratch::new(&parts, call.scratch);
    let strips = parts.cut.strips(K::M, shape, &call.rows);
    let mut job = Job {
        isa,
        shape,
        input: call.input,
        rows: call.rows,
        out: call.out,
        start: call.start,
        epilogue: call.epilogue,
    };
    let count = channels.len();
    // Weights are transformed for whole chains; those of several strips, for all of them.
    let block = if parts.single {
        parts.channels / chain(count) * chain(count)
    } else {
        count
    };
    // The group whose input is transformed: that of one strip stays for all panels.
    let mut ready = (call.warm && parts.single && shape.groups == 1).then_some(0);
    let mut panel = 0;
    while panel < tile.panels {
        let first = tile.first_panel + panel;
        let (group, end) = group_of(shape, first, tile.first_panel + tile.panels);
        let chunk = panel..(end - tile.first_panel).min(panel + parts.panels);
        panel = chunk.end;
        for part in (0..count).step_by(block.max(1)) {
            let part = part..count.min(part + block);
            let len = chunk.len() * K::T * K::T * weights::stride(part.len());
            let absolute = channels.start + part.start..channels.start + part.end;
            let weights = &mut scratch.weights[..len];
            weights::transform::<K>(isa, shape, tile, chunk.clone(), absolute, weights);
            for strip in strips.clone() {
                if !parts.single || ready != Some(group) {
                    job.transform_input::<K>(group, &channels, &strip, &mut scratch);
                    ready = Some(group);
                }
                let weights = std::mem::take(&mut scratch.weights);
                for own in (0..chunk.len()).step_by(CHUNK) {
                    let panels = CHUNK.min(chunk.len() - own);
                    let loaded = Loaded {
                        weights: Resident::F32(weights),
                        panel: own,
                        channels: part.clone(),
                        count,
                    };
                    job.multiply(K::T * K::T, loaded, panels, &strip, &mut scratch);
                    if part.end == count {
                        let panels = first + own..first + own + panels;
                        job.finish::<K>(panels, &strip, &mut scratch);
                    }
                }
                scratch.weights = weights;
            }
        }
    }
}
