//! Predicted time of steps, from the committed tables. In milliseconds on one thread.
//!
//! The model of a convolution: multiply-adds, each weight expanded once per image, the input packed once per 8 panels of
//! a tile, the output added to once per block of k. Winograd: the same in the transformed domain. [`Work`] counts, a
//! [`TileCost`] prices. Public for `bench fit`, which finds the prices.

use crate::cost_table as table;
pub use crate::cost_table::{
    FftCost, LinearCost, ListCost, Table, TileCost, Vectors, WEIGHTS, Weights,
};
use crate::fft;
use crate::weights::{self, LayerInfo};
use dcz_format::TileForm;
use dcz_format::layer::{Index, Layer, PANEL};
use dcz_kernels::conv::blocks::K_BLOCK;
use dcz_kernels::winograd::{self, Winograd};
use dcz_kernels::{ConvAlgo, ConvShape, Isa, sparse};

/// Panels that share packed input.
const CHUNK: usize = 8;
/// Strides beyond this are collected one by one where zeros are skipped.
const COLLECTED: usize = 2;

/// Algorithms that are seldom the quickest: candidates only where they are predicted to beat the packed kernels. Some need hardly any
/// scratch, and would be what the smallest budget takes, however slow.
pub const SELDOM: [ConvAlgo; 5] = [
    ConvAlgo::Direct,
    ConvAlgo::Kn2row,
    ConvAlgo::Kn2col,
    ConvAlgo::Im2col,
    ConvAlgo::Im2row,
];

/// What a convolution of one image does, as often as it does it: the columns of a [`TileCost`] say what each costs.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "as in TileCost")]
pub struct Work {
    pub product: f64,
    pub strided: f64,
    pub present: f64,
    pub odd: f64,
    pub input: f64,
    pub copy: f64,
    pub output: f64,
    pub far: f64,
    pub row: f64,
    pub pixel: f64,
    pub call: f64,
    pub weight: f64,
    pub again: f64,
    pub tile: f64,
    pub few: f64,
}

impl TileCost {
    /// Counts the work of a convolution of one image.
    pub fn work(&self, shape: &ConvShape, weights: Weights, calls: Calls, density: f64) -> Work {
        let ways = (self.vectors, self.few_tiles);
        work(self.algorithm, ways, shape, weights, calls, density)
    }

    /// Nanoseconds.
    pub fn ns(&self, work: &Work, weights: Weights) -> f64 {
        let column = weights as usize;
        let of = |costs: &[f32; WEIGHTS.len()]| costs.get(column).copied().unwrap_or(0.0);
        total(&[
            (self.product, work.product),
            (self.strided, work.strided),
            (self.present, work.present),
            (self.odd, work.odd),
            (self.copy, work.copy),
            (self.call, work.call),
            (self.input, work.input),
            (self.output, work.output),
            (self.far, work.far),
            (self.row, work.row),
            (self.pixel, work.pixel),
            (of(&self.weight), work.weight),
            (self.again, work.again),
            (self.tile, work.tile),
            (of(&self.few), work.few),
        ])
    }
}

/// The sum of amounts times prices.
fn total(items: &[(f32, f64)]) -> f64 {
    items
        .iter()
        .map(|(price, amount)| f64::from(*price) * amount)
        .sum()
}

/// Which tiles an algorithm that joins them (`dcz_kernels::joins`) computes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// All, which are kept.
    All,
    /// Runs of neighbours, decoded together.
    Runs,
    /// None.
    No,
}

/// A convolution of `images` images whose weights lie decoded in memory; `None` when the table does not know the
/// algorithm. `cut` is how Winograd goes about it at a level, and that level's [`table::LEVELS`].
#[expect(
    clippy::too_many_arguments,
    reason = "what a layer is and how it is computed"
)]
pub(crate) fn conv(
    costs: &Table,
    algorithm: ConvAlgo,
    shape: &ConvShape,
    images: usize,
    layer: &Layer,
    (form, joined): (TileForm, Joined),
    info: &LayerInfo,
    cut: Option<(winograd::TileCut, f64)>,
) -> Option<f64> {
    let cost = costs.tiles.iter().find(|c| c.algorithm == algorithm)?;
    let density = match algorithm {
        ConvAlgo::BlockSparse2 => info.groups[0],
        ConvAlgo::BlockSparse4 => info.groups[1],
        _ => info.density,
    };
    // Lists made in a call for one tap need less scratch than anything else, and much more time.
    if group(algorithm).is_some() && shape.taps() == 1 && density > table::MOST_OF_ONE_TAP {
        return None;
    }
    let runs = weights::runs(layer, joined == Joined::Runs);
    let tiles = runs.map(|run| {
        let k_len = layer.tiles.get(run.start).map_or(0, |t| t.k_len as usize);
        [weights::run_panels(layer, run), k_len]
    });
    let (cut, slower) = cut.unzip();
    let calls = if joined == Joined::All && dcz_kernels::joins(algorithm) {
        Calls::joined(shape)
    } else {
        Calls::new(shape, tiles, cut.as_ref())
    };
    let weights = match form {
        TileForm::I8 => Weights::I8,
        TileForm::Lut if info.wide_lut() => Weights::Wide,
        TileForm::Lut => Weights::Lut,
        TileForm::F32 => Weights::Float,
    };
    let ns = cost.ns(&cost.work(shape, weights, calls, density), weights);
    Some(ms(slower.unwrap_or(1.0) * ns * images as f64))
}

/// How a layer is cut into calls of its kernel.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// How often its input is packed or transformed: a tile that is a part of k packs a part of the channels.
    pub passes: f64,
    /// Panels that are missing for pairs, over those there are.
    pub odd: f64,
}

impl Calls {
    /// Of tiles of so many panels and so much of k. `cut` is how Winograd goes about it.
    pub fn new(
        shape: &ConvShape,
        tiles: impl Iterator<Item = [usize; 2]>,
        cut: Option<&winograd::TileCut>,
    ) -> Calls {
        let (mut passes, mut odd, mut all) = (0.0, 0.0, 0.0);
        let k = shape.k().max(1) as f64;
        for [panels, k_len] in tiles {
            let share = k_len as f64 / k;
            passes += match cut {
                Some(cut) => panels.div_ceil(cut.panels.max(1)) as f64,
                None => panels.div_ceil(CHUNK) as f64 * share,
            };
            odd += (panels % 2) as f64 * share;
            all += panels as f64 * share;
        }
        // Depthwise: once. On one strip it stays transformed from tile to tile.
        let once = shape.is_depthwise() || cut.is_some_and(|cut| cut.single && shape.groups == 1);
        let passes = if once {
            1.0
        } else {
            (passes / shape.groups.max(1) as f64).max(1.0)
        };
        let odd = odd / f64::max(all, 1.0);
        Calls { passes, odd }
    }

    /// The same where all tiles are there and computed together.
    pub fn joined(shape: &ConvShape) -> Calls {
        let panels = shape.panels_per_group().max(1);
        Calls {
            passes: panels.div_ceil(CHUNK) as f64,
            odd: (panels % 2) as f64 / panels as f64,
        }
    }

    /// All in one.
    pub const ONE: Calls = Calls {
        passes: 1.0,
        odd: 0.0,
    };
}

/// A convolution with transformed weights in memory, in f32 or 16 bits.
pub(crate) fn transformed(
    costs: &Table,
    algorithm: ConvAlgo,
    shape: &ConvShape,
    images: usize,
    narrow: bool,
    level: usize,
) -> Option<f64> {
    let cost = costs.tiles.iter().find(|c| c.algorithm == algorithm)?;
    let weights = if narrow {
        Weights::Transformed16
    } else {
        Weights::Transformed
    };
    let ns = cost.ns(&cost.work(shape, weights, Calls::ONE, 1.0), weights);
    Some(ms(level_factor(level) * ns * images as f64))
}

/// What a convolution from lists does: columns of a [`ListCost`].
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "as in ListCost")]
pub struct ListWork {
    pub product: f64,
    pub entry: f64,
    pub list: f64,
    pub tile: f64,
    pub input: f64,
    pub copy: f64,
    pub strided: f64,
    pub output: f64,
    pub far: f64,
    pub row: f64,
    pub again: f64,
}

/// Counts the work of lists of groups of `group` output channels with so many entries.
pub fn list_work(group: usize, vectors: Vectors, shape: &ConvShape, entries: u64) -> ListWork {
    let tiling = sparse::tiling(shape);
    let lists = sparse::starts_len(shape, group).saturating_sub(1) as f64;
    let tiles = tiling.tiles.iter().sum::<usize>() as f64;
    let copy = (shape.in_channels * tiling.pieces) as f64;
    let collected = shape.stride[1] > COLLECTED;
    let outputs = (shape.out_channels * shape.out_h * shape.out_w) as f64;
    let far = outputs * size_of::<f32>() as f64 > table::FAR_BYTES as f64;
    let bytes = entries as f64 * (size_of::<u16>() + group * size_of::<f32>()) as f64;
    let near = bytes <= table::NEAR_BYTES as f64;
    ListWork {
        product: entries as f64 * vectors.of_tiles(&tiling),
        entry: entries as f64,
        list: lists * tiles,
        tile: tiles * sparse::input_blocks(shape) as f64,
        input: shape.in_channels as f64 * seen(shape),
        copy,
        strided: if collected { copy } else { 0.0 },
        output: outputs,
        far: if far { outputs } else { 0.0 },
        row: (shape.out_channels * shape.out_h) as f64,
        again: if near { 0.0 } else { bytes * (tiles - 1.0) },
    }
}

impl ListCost {
    /// Nanoseconds.
    pub fn ns(&self, work: &ListWork) -> f64 {
        total(&[
            (self.product, work.product),
            (self.entry, work.entry),
            (self.list, work.list),
            (self.tile, work.tile),
            (self.input, work.input),
            (self.copy, work.copy),
            (self.strided, work.strided),
            (self.output, work.output),
            (self.far, work.far),
            (self.row, work.row),
            (self.again, work.again),
        ])
    }
}

/// Whether so few of the weights are there, in groups of `group` channels, that lists are considered.
pub(crate) fn worth_listing(weights: u64, group: usize, entries: u64) -> bool {
    entries as f64 * group as f64 <= table::MOST_IN_LISTS * weights as f64
}

/// A convolution from resident lists of groups of `group` output channels.
pub(crate) fn lists(
    costs: &Table,
    group: usize,
    shape: &ConvShape,
    images: usize,
    entries: u64,
) -> Option<f64> {
    let cost = costs.lists.iter().find(|c| c.group == group)?;
    let ns = cost.ns(&list_work(group, cost.vectors, shape, entries));
    Some(ms(ns * images as f64))
}

/// A linear layer of `rows` rows from resident lists.
pub(crate) fn linear_lists(costs: &Table, entries: u64, rows: usize) -> f64 {
    let (first, further) = (costs.linear.entry, costs.linear.entry_further);
    ms(entries as f64 * (first + further * rows.saturating_sub(1) as f64))
}

/// The table of an instruction set.
pub fn table(isa: Isa) -> &'static Table {
    table::of(isa)
}

/// Output channels of a group of an algorithm that skips zeros.
pub(crate) fn group(algorithm: ConvAlgo) -> Option<usize> {
    match algorithm {
        ConvAlgo::DirectSparse => Some(1),
        ConvAlgo::BlockSparse2 => Some(2),
        ConvAlgo::BlockSparse4 => Some(4),
        _ => None,
    }
}

/// How much slower than with all the scratch it wants Winograd is at a level.
pub(crate) fn level_factor(level: usize) -> f64 {
    table::LEVELS.get(level).copied().unwrap_or(1.0)
}

/// What a convolution by FFT does: columns of an [`FftCost`].
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "as in FftCost")]
pub struct FftWork {
    pub transform: f64,
    pub product: f64,
    pub output: f64,
}

/// Counts the work of a convolution by FFT; `None` where it is not possible.
pub fn fft_work(shape: &ConvShape) -> Option<FftWork> {
    let [transform, product] = fft::work(shape)?;
    Some(FftWork {
        transform,
        product,
        output: (shape.out_channels * shape.out_h * shape.out_w) as f64,
    })
}

/// A convolution by FFT.
pub(crate) fn fft(costs: &Table, shape: &ConvShape, images: usize) -> Option<f64> {
    let (cost, work) = (&costs.fft, fft_work(shape)?);
    let ns = total(&[
        (cost.transform, work.transform),
        (cost.product, work.product),
        (cost.output, work.output),
    ]);
    Some(ms(ns * images as f64))
}

/// See [`TileCost::work`], with how pixels or tiles become vectors and how many tiles are few.
pub fn work(
    algorithm: ConvAlgo,
    (vectors, few_tiles): (Vectors, usize),
    shape: &ConvShape,
    from: Weights,
    calls: Calls,
    density: f64,
) -> Work {
    let passes = match algorithm {
        // Every panel reads the input where it lies.
        ConvAlgo::Direct => shape.panels_per_group() as f64,
        _ => calls.passes,
    };
    let pixels = (shape.out_h * shape.out_w) as f64;
    let (inputs, outputs) = (shape.in_channels as f64, shape.out_channels as f64);
    let far = outputs * pixels * size_of::<f32>() as f64 > table::FAR_BYTES as f64;
    let far = if far { 1.0 } else { 0.0 };
    let lanes = vectors.lanes.max(1);
    if let Some(size) = transform(algorithm) {
        let (m, positions) = (size.tile(), size.positions() as f64);
        let tiles = shape.out_h.div_ceil(m) * shape.out_w.div_ceil(m);
        let weights = (shape.panels() * PANEL * shape.in_per_group()) as f64 * positions;
        let few = tiles <= few_tiles;
        let [strips, filled] = winograd::strips(size, shape, 0, lanes);
        // At most 4 are multiplied with a channel per lane.
        let filled = if tiles <= 4 { 4 } else { filled };
        let bytes = match from {
            Weights::Transformed => size_of::<f32>(),
            Weights::Transformed16 => size_of::<i16>(),
            // Transformed a few panels at a time.
            _ => 0,
        };
        let again = if weights * bytes as f64 > table::NEAR_BYTES as f64 {
            weights * strips.saturating_sub(1) as f64
        } else {
            0.0
        };
        let (weight, few) = if few { (0.0, weights) } else { (weights, 0.0) };
        let tiles = tiles as f64 * positions;
        return Work {
            product: weights * filled as f64,
            weight,
            again,
            few,
            input: tiles * inputs * passes,
            output: tiles * outputs,
            far: far * outputs * pixels,
            ..Work::default()
        };
    }
    let tiling = group(algorithm).map(|_| sparse::tiling(shape));
    let computed = match &tiling {
        Some(tiling) => 16.0 * vectors.of_tiles(tiling),
        None => (shape.out_h * shape.out_w.div_ceil(lanes) * lanes) as f64,
    };
    let macs = outputs * shape.k() as f64 * computed;
    let seen = match algorithm {
        ConvAlgo::Im2col | ConvAlgo::Im2row => inputs * shape.taps() as f64 * pixels,
        _ => inputs * seen(shape),
    };
    let blocks = match algorithm {
        _ if tiling.is_some() => sparse::input_blocks(shape),
        // Each tap adds to the output.
        ConvAlgo::Kn2row | ConvAlgo::Kn2col => {
            shape.taps() * shape.in_per_group().div_ceil(K_BLOCK)
        }
        _ => shape.k().div_ceil(K_BLOCK),
    };
    let blocks = blocks.max(1) as f64;
    let (chunks, groups) = if shape.is_depthwise() {
        (1.0, 1.0)
    } else {
        let chunks = shape.panels_per_group().div_ceil(CHUNK) * shape.groups;
        (chunks as f64, shape.groups as f64)
    };
    let stored = outputs * pixels * blocks;
    let copies = |t: &sparse::Tiling| inputs * passes * t.pieces as f64;
    let copy = tiling.as_ref().map_or(0.0, copies);
    let strided = match &tiling {
        Some(_) if shape.stride[1] > COLLECTED => copy,
        None if shape.stride != [1, 1] => macs,
        _ => 0.0,
    };
    let tiles = |t: &sparse::Tiling| t.tiles.iter().sum::<usize>() as f64 * blocks * passes;
    Work {
        product: macs,
        strided,
        present: macs * density,
        odd: macs * calls.odd,
        input: seen * passes,
        copy,
        output: stored,
        far: far * stored,
        row: outputs * shape.out_h as f64 * blocks,
        pixel: pixels * blocks * chunks,
        call: pixels * blocks * passes * groups,
        weight: (shape.panels() * PANEL * shape.k()) as f64,
        again: 0.0,
        tile: tiling.as_ref().map_or(0.0, tiles),
        few: 0.0,
    }
}

/// Pixels of the input that are looked at: a small kernel with a stride does not see all.
fn seen(shape: &ConvShape) -> f64 {
    let seen = |axis: usize, size: usize, out: usize| size.min(out * shape.kernel[axis]);
    (seen(0, shape.in_h, shape.out_h) * seen(1, shape.in_w, shape.out_w)) as f64
}

/// A linear layer of `rows` rows whose weights lie decoded in memory: a tile decoded just before, or all of them `kept`.
pub(crate) fn linear(costs: &Table, layer: &Layer, form: TileForm, kept: bool, rows: usize) -> f64 {
    let costs = &costs.linear;
    let first = match (kept, form) {
        (false, _) => costs.decoded,
        (true, TileForm::F32) => costs.float,
        (true, TileForm::I8 | TileForm::Lut) => costs.codes,
    };
    let lut = match form {
        TileForm::Lut => costs.lut,
        TileForm::I8 | TileForm::F32 => 0.0,
    };
    let further = costs.further * rows.saturating_sub(1) as f64;
    ms(weights(layer) * (first + lut + further))
}

/// Decoding a layer once, to codes or to f32 as its values demand.
pub(crate) fn decode(layer: &Layer) -> f64 {
    let weight = match layer.index {
        Index::Raw => table::DECODE_RAW,
        Index::Dense { .. } => table::DECODE_DENSE,
        Index::Mask { .. } => table::DECODE_MASK,
        Index::Gaps { .. } => table::DECODE_GAPS,
        // Tables are built for every tile and class: a third of the speed of gaps on real files.
        Index::Classes(_) => 3.0 * table::DECODE_GAPS,
    };
    let coded = !matches!(layer.index, Index::Raw);
    let wide = if coded && layer.form() == TileForm::F32 {
        table::DECODE_TO_F32
    } else {
        0.0
    };
    let tiles = table::DECODE_LAYER + table::DECODE_TILE * layer.tiles.len() as f64;
    ms((weight + wide) * weights(layer) + tiles)
}

/// A step without weights that touches so many elements.
pub(crate) fn elements(count: usize) -> f64 {
    ms(table::ELEMENT * count as f64)
}

/// Largest error of an algorithm in one layer, over the largest output, beyond what every order of sums has.
pub(crate) fn error(algorithm: ConvAlgo) -> f64 {
    let found = table::ERRORS.iter().find(|(a, _)| *a == algorithm);
    found.map_or(0.0, |(_, error)| *error)
}

/// The transform of an algorithm.
pub(crate) fn transform(algorithm: ConvAlgo) -> Option<Winograd> {
    match algorithm {
        ConvAlgo::Winograd2 => Some(Winograd::F2),
        ConvAlgo::Winograd4 => Some(Winograd::F4),
        ConvAlgo::Winograd6 => Some(Winograd::F6),
        _ => None,
    }
}

fn weights(layer: &Layer) -> f64 {
    layer.tiles.iter().map(|t| t.weights() as f64).sum()
}

fn ms(ns: f64) -> f64 {
    ns / 1e6
}
