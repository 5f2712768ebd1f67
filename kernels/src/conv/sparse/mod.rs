//! Sparse convolution: zero weights are skipped, one by one or in groups of 2 or 4 output channels as
//! pruned in blocks.
//!
//! ```text
//! for tile of output pixels             (lines.rs: up to 12 vectors of 16)
//!   for block of input channels         (packed, 42 KiB of the L1 cache)
//!     for group of vectors
//!       for output channel, or group of L    acc += weight * line, for the entries of its list
//! ```
//! An entry costs one load of a weight and a multiply-add from memory per vector: loads, whole cache lines, bound it at
//! about two thirds of the multiply-add rate with single channels; with groups of 4 an
//! input is used four times, and multiply-adds are the bound. With AVX-512 a vector is one register, else two. Sums go to
//! the L2 cache between blocks, which weighs where few weights are left. Lists ([`Lists`]) are resident ([`count`], [`fill`],
//! [`run`]: made once, 16 bits for a place and 32 for a weight), or made of a
//! decoded tile in every call ([`crate::conv_tile`]). Both give the same bits. It loses to dense kernels below about 60 %
//! zeros, on few pixels and on kernels wider than 9 columns, which it leaves to others. After
//! Fast Sparse ConvNets (Elsen et al., 2020) and SkimCaffe (Park et al., ICLR 2017).
//!
//! Order of summation: one chain per output, from what is there, by input channel and tap. Neither
//! blocks, bands nor groups change a bit.

mod kernel;
mod lines;
mod lists;

use self::kernel::{Channels, Groups, Job, Part, Place, Sums, tiles};
use self::lines::{LINE, Lines, TILE};
use super::{Call, ConvShape, Start, chunks, split_scratch};
use crate::activation::Epilogue;
use crate::shape::{View, ViewMut};
use crate::simd::Isa;
use crate::weights::{KOrder, PANEL, WeightTile};
pub use lists::Lists;
use lists::{any, blocks, expand_block};
use std::ops::Range;

/// Panels of a tile that share packed input.
const CHUNK: usize = 8;
/// Most taps: lists of a block are made in the scratch.
const TAPS: usize = 192;

/// Whether the shape can be computed from lists.
pub fn supports(shape: &ConvShape) -> bool {
    !shape.is_depthwise() && (1..=TAPS).contains(&shape.taps()) && Lines::supports(shape)
}

/// The same for resident lists.
pub fn supports_resident(shape: &ConvShape) -> bool {
    shape.groups == 1 && supports(shape)
}

/// Blocks of input channels of a call on a tile: how often sums go to the output.
pub fn input_blocks(shape: &ConvShape) -> usize {
    let inputs = shape.in_per_group();
    inputs.div_ceil(Lines::new(shape).channels)
}

/// What the tiles of a map take beside products, for predictions.
#[derive(Clone, Copy, Debug)]
pub struct Tiling {
    /// Tiles by their number of vectors of 16 outputs.
    pub tiles: [usize; TILE + 1],
    /// Pieces of rows that are copied, for each input channel.
    pub pieces: usize,
}

/// See [`Tiling`].
pub fn tiling(shape: &ConvShape) -> Tiling {
    let lines = Lines::new(shape);
    let mut tiling = Tiling {
        tiles: [0; TILE + 1],
        pieces: 0,
    };
    for tile in tiles(&lines, shape, &(0..shape.out_h)) {
        let [vectors, pieces] = lines.amounts(shape, &tile);
        tiling.tiles[vectors.min(TILE)] += 1;
        tiling.pieces += pieces;
    }
    tiling
}

/// Rows of weights of a block.
fn products(shape: &ConvShape, lines: &Lines) -> usize {
    lines.channels.saturating_mul(shape.taps())
}

/// f32 elements of scratch of a call on a tile, for groups of any length.
pub(super) fn workspace(shape: &ConvShape, panels: usize) -> usize {
    let lines = Lines::new(shape);
    let products = products(shape, &lines);
    // Values and places: most of both with single channels.
    let lists = panels.clamp(1, CHUNK) * PANEL * (products + products.div_ceil(2));
    products * PANEL + lists + lines.len() + LINE
}

/// Runs the call with groups of `L` channels.
#[inline(never)]
pub(super) fn run_tile<const L: usize>(isa: Isa, call: Call<'_, '_>)
where
    Channels<L>: Groups<L>,
{
    let (shape, tile) = (call.shape, call.tile);
    let lines = Lines::new(shape);
    let products = products(shape, &lines);
    let most = tile.panels.min(CHUNK) * (PANEL / L);
    let (weights, scratch) = split_scratch::<PANEL>(call.scratch, products);
    let (values, scratch) = scratch.split_at_mut(most * products * L);
    let (places, data) = scratch.split_at_mut((most * products).div_ceil(2));
    let places: &mut [u16] = bytemuck::cast_slice_mut(places);
    let data = aligned(data);
    let mut job = Job {
        isa,
        shape,
        lines: &lines,
        input: call.input,
        first_row: call.rows.start,
        out: call.out,
        epilogue: None,
        data,
        sums: &mut [],
        own: Sums::new(),
    };
    for (group, chunk) in chunks(shape, tile, CHUNK) {
        let mut fresh = call.start == Start::Zero;
        let blocks = blocks(shape, tile, &lines);
        let mut blocks = blocks.peekable();
        while let Some(channels) = blocks.next() {
            let (mut starts, mut ends) = ([0u32; CHUNK * PANEL], [0u32; CHUNK * PANEL]);
            for (i, panel) in chunk.clone().enumerate() {
                expand_block(isa, shape, tile, panel, &channels, weights);
                let block = Block {
                    shape,
                    lines: &lines,
                    order: tile.order,
                    channels: channels.len(),
                    weights,
                };
                let first = i * (PANEL / L);
                let places = &mut places[first * products..];
                let values = &mut values[first * products * L..];
                let counts = block.collect::<L>(products, places, values);
                for (i, count) in (first..).zip(counts).take(PANEL / L) {
                    starts[i] = (i * products) as u32;
                    ends[i] = starts[i] + count as u32;
                }
            }
            let lists = Part {
                starts: &starts[..chunk.len() * (PANEL / L)],
                ends: &ends[..chunk.len() * (PANEL / L)],
                places,
                values,
                first_panel: tile.first_panel + chunk.start,
            };
            let last = blocks.peek().is_none();
            job.epilogue = call.epilogue.filter(|_| last);
            let first = group * shape.in_per_group();
            let channels = first + channels.start..first + channels.end;
            for tile in tiles(&lines, shape, &call.rows) {
                job.pack(&channels, &tile);
                let from = if fresh { Place::Zero } else { Place::Out };
                job.tile::<L>(&lists, &tile, from, Place::Out);
            }
            fresh = false;
        }
    }
}

/// From the first cache line on; a line more than is needed must be there.
fn aligned(data: &mut [f32]) -> &mut [f32] {
    let first = data.as_ptr().align_offset(LINE * size_of::<f32>());
    &mut data[first.min(LINE)..]
}

/// The weights of a block of one panel.
struct Block<'a> {
    shape: &'a ConvShape,
    lines: &'a Lines,
    order: KOrder,
    channels: usize,
    weights: &'a [[f32; PANEL]],
}

impl Block<'_> {
    /// Numbers of entries of the lists.
    fn count<const L: usize>(&self) -> [usize; PANEL] {
        let mut counts = [0u32; PANEL];
        for w in &self.weights[..self.channels * self.shape.taps()] {
            for (count, group) in counts.iter_mut().zip(w.as_chunks::<L>().0) {
                *count += u32::from(any(group));
            }
        }
        counts.map(|n| n as usize)
    }

    /// Writes the lists, each `room` entries behind the one before; returns their lengths.
    fn collect<const L: usize>(
        &self,
        room: usize,
        places: &mut [u16],
        values: &mut [f32],
    ) -> [usize; PANEL] {
        let mut counts = [0; PANEL];
        let taps = self.shape.taps();
        let values = values.as_chunks_mut::<L>().0;
        let mut offsets = [0u16; TAPS];
        for (tap, offset) in offsets[..taps].iter_mut().enumerate() {
            *offset = self.lines.offset(self.shape, 0, tap) as u16;
        }
        let channel = self.lines.offset(self.shape, 1, 0);
        let (along, across) = match self.order {
            KOrder::ChannelMajor => (1, taps),
            KOrder::TapMajor => (self.channels, 1),
        };
        for c in 0..self.channels {
            let first = (c * channel) as u16;
            for (tap, &offset) in offsets[..taps].iter().enumerate() {
                let w = &self.weights[c * across + tap * along];
                // Written always, kept when not zero: no branch to mispredict.
                for (list, group) in w.as_chunks::<L>().0.iter().enumerate() {
                    let at = list * room + counts[list];
                    places[at] = first + offset;
                    values[at] = *group;
                    counts[list] += usize::from(any(group));
                }
            }
        }
        counts
    }
}

/// Number of lists of a layer with groups of `group` channels, and one: the length of [`Lists::starts`].
pub fn starts_len(shape: &ConvShape, group: usize) -> usize {
    let blocks = shape.in_per_group().div_ceil(Lines::new(shape).channels);
    blocks * (shape.panels() * PANEL / group.max(1)) + 1
}

/// f32 elements of scratch that [`count`] and [`fill`] need.
pub fn fill_workspace(shape: &ConvShape) -> usize {
    let products = products(shape, &Lines::new(shape));
    // Weights, and values and places of their lists.
    products.saturating_mul(PANEL * 2 + PANEL / 2)
}

/// Counts the entries of the lists of a tile of whole panels; `starts` holds [`starts_len`] elements. After all
/// tiles, [`finish_count`].
pub fn count(
    isa: Isa,
    shape: &ConvShape,
    group: usize,
    tile: &WeightTile<'_>,
    starts: &mut [u32],
    scratch: &mut [f32],
) {
    each_block(isa, shape, group, tile, scratch, |first, block, _| {
        let counts = match group {
            1 => block.count::<1>(),
            2 => block.count::<2>(),
            _ => block.count::<4>(),
        };
        for (start, count) in starts[first + 1..]
            .iter_mut()
            .zip(counts)
            .take(PANEL / group)
        {
            *start = count as u32;
        }
    });
}

/// Makes starts of counts; returns the number of entries, unless it is beyond 32 bits.
pub fn finish_count(starts: &mut [u32]) -> Option<usize> {
    let mut sum = 0u32;
    for start in starts {
        sum = sum.checked_add(*start)?;
        *start = sum;
    }
    Some(sum as usize)
}

/// Writes the entries of the lists of a tile that has been counted.
#[expect(clippy::too_many_arguments, reason = "the parts of a layer's lists")]
pub fn fill(
    isa: Isa,
    shape: &ConvShape,
    group: usize,
    tile: &WeightTile<'_>,
    starts: &[u32],
    places: &mut [u16],
    values: &mut [f32],
    scratch: &mut [f32],
) {
    each_block(isa, shape, group, tile, scratch, |first, block, scratch| {
        let room = block.channels * shape.taps();
        let (own_values, own_places) = scratch.split_at_mut(room * PANEL);
        let own_places: &mut [u16] = bytemuck::cast_slice_mut(own_places);
        match group {
            1 => block.collect::<1>(room, own_places, own_values),
            2 => block.collect::<2>(room, own_places, own_values),
            _ => block.collect::<4>(room, own_places, own_values),
        };
        for i in 0..PANEL / group {
            let to = starts[first + i] as usize..starts[first + i + 1] as usize;
            let (from, len) = (i * room, to.len());
            places[to.clone()].copy_from_slice(&own_places[from..from + len]);
            values[to.start * group..to.end * group]
                .copy_from_slice(&own_values[from * group..(from + len) * group]);
        }
    });
}

/// Calls `f(first list, block, scratch)` for every panel and block of a tile.
fn each_block(
    isa: Isa,
    shape: &ConvShape,
    group: usize,
    tile: &WeightTile<'_>,
    scratch: &mut [f32],
    mut f: impl FnMut(usize, &Block<'_>, &mut [f32]),
) {
    let lines = Lines::new(shape);
    let per_block = shape.panels() * PANEL / group;
    let (weights, scratch) = split_scratch::<PANEL>(scratch, products(shape, &lines));
    for panel in 0..tile.panels {
        for (b, channels) in blocks(shape, tile, &lines).enumerate() {
            expand_block(isa, shape, tile, panel, &channels, weights);
            let block = Block {
                shape,
                lines: &lines,
                order: tile.order,
                channels: channels.len(),
                weights,
            };
            let list = (tile.first_panel + panel) * (PANEL / group);
            f(b * per_block + list, &block, scratch);
        }
    }
}

/// f32 elements of scratch of [`run`] for so many panels and rows.
pub fn run_workspace(shape: &ConvShape, panels: usize, rows: usize) -> usize {
    let lines = Lines::new(shape);
    lines.len() + LINE + sums_len(shape, &lines, panels, rows)
}

fn sums_len(shape: &ConvShape, lines: &Lines, panels: usize, rows: usize) -> usize {
    if lines.channels >= shape.in_per_group() {
        return 0;
    }
    panels * PANEL * LINE * lines.most(rows)
}

/// Computes output rows `rows` of output channels of `panels` from the lists of a layer with groups of `group` channels.
/// Lists were made for `whole`, from which `shape` may differ in rows of input and output and padding above. `out` and `epilogue`
/// belong to a layer of these panels alone; otherwise like [`crate::conv_tile`].
///
/// # Panics
/// When a slice, a map or the scratch is smaller than the shape demands: a mistake of the caller.
#[expect(clippy::too_many_arguments)]
pub fn run(
    isa: Isa,
    whole: &ConvShape,
    shape: &ConvShape,
    group: usize,
    lists: Lists<'_>,
    panels: Range<usize>,
    input: View<'_>,
    rows: Range<usize>,
    out: &mut ViewMut<'_>,
    start: Start,
    epilogue: Option<&Epilogue<'_>>,
    scratch: &mut [f32],
) {
    super::check_maps(shape, &input, &rows, out);
    assert!(supports_resident(whole) && panels.end <= whole.panels());
    if out.map.is_empty() || panels.is_empty() {
        return;
    }
    let lines = Lines::new(whole);
    let (data, sums) = scratch.split_at_mut(lines.len() + LINE);
    let data = aligned(data);
    let len = sums_len(whole, &lines, panels.len(), rows.len());
    let job = Job {
        isa,
        shape,
        lines: &lines,
        input,
        first_row: rows.start,
        out,
        epilogue: None,
        data,
        sums: &mut sums[..len],
        own: Sums::new(),
    };
    let whole = Whole {
        lists,
        panels,
        all: whole.panels(),
        start,
        epilogue,
    };
    match group {
        1 => whole.run::<1>(job, &rows),
        2 => whole.run::<2>(job, &rows),
        _ => whole.run::<4>(job, &rows),
    }
}

/// Resident lists, and what to compute.
struct Whole<'a> {
    lists: Lists<'a>,
    panels: Range<usize>,
    /// Panels of the layer.
    all: usize,
    start: Start,
    epilogue: Option<&'a Epilogue<'a>>,
}

impl<'a> Whole<'a> {
    fn run<const L: usize>(&self, mut job: Job<'a, '_>, rows: &Range<usize>)
    where
        Channels<L>: Groups<L>,
    {
        let inputs = job.shape.in_per_group();
        let (step, lists) = (job.lines.channels, PANEL / L);
        for tile in tiles(job.lines, job.shape, rows) {
            for (b, first) in (0..inputs).step_by(step).enumerate() {
                let channels = first..(first + step).min(inputs);
                job.pack(&channels, &tile);
                let last = channels.end == inputs;
                let from = match (b, self.start) {
                    (0, Start::Zero) => Place::Zero,
                    (0, Start::Accumulate) => Place::Out,
                    _ => Place::Sums,
                };
                let to = if last { Place::Out } else { Place::Sums };
                job.epilogue = self.epilogue.filter(|_| last);
                let starts = &self.lists.starts[(b * self.all + self.panels.start) * lists..];
                let count = self.panels.len() * lists;
                let part = Part {
                    starts: &starts[..count],
                    ends: &starts[1..=count],
                    places: self.lists.places,
                    values: self.lists.values,
                    first_panel: 0,
                };
                job.tile::<L>(&part, &tile, from, to);
            }
        }
    }
}
