//! Fully connected layers from lists of weights that are not zero.
//!
//! A list belongs to one output and one block of `BLOCK` inputs, whose 16 KiB stay in the L1 cache while all
//! outputs are computed: places of inputs in 16 bits, and weights. 8 entries are a step: their inputs are collected
//! into a vector, so 8 sums run side by side. Made once for a layer ([`count`], [`finish_count`], [`fill`],
//! [`finish_fill`]), read in order. It wins by what is not read: 6 bytes per weight that is not zero against one per weight, so
//! from about 70 % zeros on, for one row. More rows read the lists again.
//!
//! Order of summation: entries of a list by input, every eighth one in a sum, the eight sums in order; lists by block.

pub use crate::conv::sparse::{Lists, finish_count};

use crate::activation::Epilogue;
use crate::conv::Start;
use crate::conv::blocks::{K_BLOCK, Rows};
use crate::expand::expand;
use crate::simd::{Isa, Simd, Work};
use crate::weights::{PANEL, WeightTile};
use std::ops::Range;

/// Inputs of a block.
const BLOCK: usize = 4096;

fn outputs_of(outputs: usize) -> usize {
    outputs.next_multiple_of(PANEL)
}

/// Number of lists and one: the length of [`Lists::starts`].
pub fn starts_len(inputs: usize, outputs: usize) -> usize {
    inputs.div_ceil(BLOCK) * outputs_of(outputs) + 1
}

/// f32 elements of scratch that [`count`] and [`fill`] need.
pub const FILL_WORKSPACE: usize = K_BLOCK * (PANEL * 2 + PANEL / 2);

/// Counts the entries of a tile of a layer of so many outputs; after all tiles comes [`finish_count`]. `starts` was zero before
/// the first one.
pub fn count(
    isa: Isa,
    outputs: usize,
    tile: &WeightTile<'_>,
    starts: &mut [u32],
    scratch: &mut [f32],
) {
    each(isa, outputs, tile, scratch, |run, _| {
        let mut counts = [0u32; PANEL];
        for row in run.weights {
            for lane in 0..PANEL {
                counts[lane] += u32::from(row[lane] != 0.0);
            }
        }
        for lane in 0..PANEL {
            starts[run.list + lane + 1] += counts[lane];
        }
    });
}

/// Writes the entries of a tile; tiles of a panel come in the order of k. After all tiles comes [`finish_fill`].
pub fn fill(
    isa: Isa,
    outputs: usize,
    tile: &WeightTile<'_>,
    starts: &mut [u32],
    places: &mut [u16],
    values: &mut [f32],
    scratch: &mut [f32],
) {
    each(isa, outputs, tile, scratch, |run, scratch| {
        let (own_values, own_places) = scratch.split_at_mut(K_BLOCK * PANEL);
        let own_places: &mut [u16] = bytemuck::cast_slice_mut(own_places);
        let mut counts = [0; PANEL];
        for (i, row) in run.weights.iter().enumerate() {
            for lane in 0..PANEL {
                // Written always, kept when not zero: no branch to mispredict.
                let at = lane * K_BLOCK + counts[lane];
                own_places[at] = run.place + i as u16;
                own_values[at] = row[lane];
                counts[lane] += usize::from(row[lane] != 0.0);
            }
        }
        for lane in 0..PANEL {
            let start = &mut starts[run.list + lane];
            let (to, from, len) = (*start as usize, lane * K_BLOCK, counts[lane]);
            places[to..to + len].copy_from_slice(&own_places[from..from + len]);
            values[to..to + len].copy_from_slice(&own_values[from..from + len]);
            *start += len as u32;
        }
    });
}

/// Filling has moved every start to its list's end.
pub fn finish_fill(starts: &mut [u32]) {
    starts.rotate_right(1);
    if let Some(first) = starts.first_mut() {
        *first = 0;
    }
}

/// Some inputs of a panel, within one block.
struct Run<'a> {
    /// List of lane 0.
    list: usize,
    /// Place of the first input in the block.
    place: u16,
    weights: &'a [[f32; PANEL]],
}

/// Calls `f(run, scratch)` for all weights of a tile.
fn each(
    isa: Isa,
    outputs: usize,
    tile: &WeightTile<'_>,
    scratch: &mut [f32],
    mut f: impl FnMut(Run<'_>, &mut [f32]),
) {
    let (weights, scratch) = scratch.split_at_mut(K_BLOCK * PANEL);
    let weights = weights.as_chunks_mut().0;
    for panel in 0..tile.panels {
        let output = (tile.first_panel + panel) * PANEL;
        let mut at = 0;
        while at < tile.k_len {
            let k = tile.k0 + at;
            let len = K_BLOCK.min(tile.k_len - at).min(BLOCK - k % BLOCK);
            let rows = Rows {
                first: at,
                run: len,
                runs: 1,
                stride: 0,
            };
            expand(isa, tile, panel, rows, weights);
            let run = Run {
                list: k / BLOCK * outputs_of(outputs) + output,
                place: (k % BLOCK) as u16,
                weights: &weights[..len],
            };
            f(run, scratch);
            at += len;
        }
    }
}

/// Computes outputs `range` of a layer of so many `outputs` for one row `x`. `y` and `epilogue` are those of the range.
///
/// # Panics
/// When a slice is too short: a mistake of the caller.
#[expect(clippy::too_many_arguments)]
pub fn run(
    isa: Isa,
    lists: Lists<'_>,
    outputs: usize,
    range: Range<usize>,
    x: &[f32],
    y: &mut [f32],
    start: Start,
    epilogue: Option<&Epilogue<'_>>,
) {
    let y = &mut y[..range.len()];
    if start == Start::Zero {
        y.fill(0.0);
    }
    for (block, x) in x.chunks(BLOCK).enumerate() {
        let first = block * outputs_of(outputs) + range.start;
        isa.run(Block {
            starts: &lists.starts[first..=first + range.len()],
            lists,
            x,
            y: &mut *y,
        });
    }
    if let Some(epilogue) = epilogue {
        for (i, y) in y.iter_mut().enumerate() {
            epilogue.apply(i, std::slice::from_mut(y));
        }
    }
}

/// A block of inputs times its lists.
struct Block<'a> {
    /// Of the outputs `y`, and one more.
    starts: &'a [u32],
    lists: Lists<'a>,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Work for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let x = self.x;
        for i in 0..self.y.len() {
            let list = self.starts[i] as usize..self.starts[i + 1] as usize;
            let (places, last_places) = self.lists.places[list.clone()].as_chunks::<8>();
            let (values, last_values) = self.lists.values[list].as_chunks::<8>();
            let mut acc = simd.splat(0.0);
            for j in 0..places.len().min(values.len()) {
                let p = &places[j];
                let x = [
                    x[p[0] as usize],
                    x[p[1] as usize],
                    x[p[2] as usize],
                    x[p[3] as usize],
                    x[p[4] as usize],
                    x[p[5] as usize],
                    x[p[6] as usize],
                    x[p[7] as usize],
                ];
                acc = simd.mul_add(simd.load(&values[j]), simd.load(&x), acc);
            }
            let (mut short, mut weights) = ([0.0; 8], [0.0; 8]);
            for j in 0..last_places.len().min(last_values.len()) {
                short[j] = x[last_places[j] as usize];
                weights[j] = last_values[j];
            }
            acc = simd.mul_add(simd.load(&weights), simd.load(&short), acc);
            let mut lanes = [0.0; 8];
            simd.store(acc, &mut lanes);
            let mut sum = 0.0;
            for lane in lanes {
                sum += lane;
            }
            self.y[i] += sum;
        }
    }
}
