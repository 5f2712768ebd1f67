//! Predicted time of steps, from the committed table ([`crate::cost_table`]). In milliseconds on one thread.
//!
//! The model of a convolution: multiply-adds, each weight expanded once per image, the input packed once per 8 panels of
//! a tile, the output added to once per block of k. Winograd: the same in the transformed domain.

use crate::cost_table::{self as table, TileCost};
use crate::weights::LayerInfo;
use dcz_format::TileForm;
use dcz_format::layer::{Index, Layer, PANEL};
use dcz_kernels::conv::blocks::K_BLOCK;
use dcz_kernels::winograd::{self, Winograd};
use dcz_kernels::{ConvAlgo, ConvShape, sparse};

/// Panels that share packed input.
const CHUNK: usize = 8;

/// A convolution of `images` images whose weights lie decoded in memory; `None` when the table does not know the
/// algorithm. `cut` is how Winograd goes about it at a level, and that level's [`table::LEVELS`].
pub(crate) fn conv(
    algorithm: ConvAlgo,
    shape: &ConvShape,
    images: usize,
    layer: &Layer,
    form: TileForm,
    info: &LayerInfo,
    cut: Option<(winograd::TileCut, f64)>,
) -> Option<f64> {
    let cost = table::TILES.iter().find(|c| c.algorithm == algorithm)?;
    // How often the input is packed: a tile that is a part of k packs a part of the channels.
    let k = shape.k().max(1) as f64;
    let packed = |t: &dcz_format::layer::Tile| {
        (t.panels as usize).div_ceil(CHUNK) as f64 * t.k_len as f64 / k
    };
    let passes: f64 = match cut {
        _ if shape.is_depthwise() => 1.0,
        // Stays transformed from tile to tile.
        Some((cut, _)) if cut.single && shape.groups == 1 => 1.0,
        Some((cut, _)) => {
            let chunks = |t: &dcz_format::layer::Tile| (t.panels as usize).div_ceil(cut.panels);
            layer.tiles.iter().map(chunks).sum::<usize>() as f64 / shape.groups.max(1) as f64
        }
        None => layer.tiles.iter().map(packed).sum::<f64>() / shape.groups.max(1) as f64,
    };
    let density = match algorithm {
        ConvAlgo::BlockSparse2 => info.groups[0],
        ConvAlgo::BlockSparse4 => info.groups[1],
        _ => info.density,
    };
    // Lists made in a call for one tap need less scratch than anything else, and much more time.
    if group(algorithm).is_some() && shape.taps() == 1 && density > table::MOST_OF_ONE_TAP {
        return None;
    }
    let slower = cut.map_or(1.0, |(_, slower)| slower);
    let ns = slower * work(cost, shape, passes.max(1.0), density);
    let expand = match (transform(algorithm), form) {
        (Some(_), TileForm::Lut) => table::TRANSFORM_LUT,
        (None, TileForm::Lut) if info.wide_lut() => table::EXPAND_WIDE,
        _ => extra(form),
    } * weights(layer);
    Some(ms((ns + expand) * images as f64))
}

/// A convolution with transformed weights in memory, in f32 or 16 bits.
pub(crate) fn transformed(
    algorithm: ConvAlgo,
    shape: &ConvShape,
    images: usize,
    narrow: bool,
    level: usize,
) -> Option<f64> {
    let mut costs = if narrow {
        table::TRANSFORMED_16.iter()
    } else {
        table::TRANSFORMED.iter()
    };
    let cost = costs.find(|c| c.algorithm == algorithm)?;
    let slower = level_factor(level);
    Some(ms(slower * work(cost, shape, 1.0, 1.0) * images as f64))
}

/// A convolution from resident lists of groups of `group` output channels.
pub(crate) fn lists(group: usize, shape: &ConvShape, images: usize, entries: u64) -> Option<f64> {
    let cost = table::LISTS.iter().find(|c| c.group == group)?;
    let vectors = shape.out_h * shape.out_w.div_ceil(8);
    let groups = vectors.div_ceil(cost.vectors) as f64;
    let lists = sparse::starts_len(shape, group).saturating_sub(1) as f64;
    let inputs = (shape.in_channels * shape.in_h * shape.in_w) as f64;
    let outputs = (shape.out_channels * shape.out_h * shape.out_w) as f64;
    let ns = entries as f64 * (cost.product * vectors as f64 + cost.entry)
        + cost.list * lists * groups
        + cost.input * inputs
        + cost.output * outputs;
    Some(ms(ns * images as f64))
}

/// A linear layer of `rows` rows from resident lists.
pub(crate) fn linear_lists(entries: u64, rows: usize) -> f64 {
    ms(entries as f64
        * (table::LINEAR_ENTRY + table::LINEAR_ENTRY_FURTHER * rows.saturating_sub(1) as f64))
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

/// A convolution by FFT of so many operations per image.
pub(crate) fn fft(operations: f64, images: usize) -> f64 {
    ms(table::FFT_OPERATION * operations * images as f64)
}

fn work(cost: &TileCost, shape: &ConvShape, passes: f64, density: f64) -> f64 {
    let pixels = (shape.out_h * shape.out_w) as f64;
    let (inputs, outputs) = (shape.in_channels as f64, shape.out_channels as f64);
    if let Some(size) = transform(cost.algorithm) {
        let (m, positions) = (size.tile(), size.positions() as f64);
        let tiles = shape.out_h.div_ceil(m) * shape.out_w.div_ceil(m);
        // Tiles are computed in vectors of 8, up to 4 of them one by one.
        let filled = if tiles <= 4 {
            tiles.max(4)
        } else {
            tiles.next_multiple_of(8)
        };
        let weights = (shape.panels() * PANEL * shape.in_per_group()) as f64 * positions;
        let weight = if tiles <= 4 { cost.few } else { cost.weight };
        let tiles = tiles as f64 * positions;
        return cost.product * weights * filled as f64
            + weight * weights
            + cost.input * tiles * inputs * passes
            + cost.output * tiles * outputs;
    }
    let k = shape.k() as f64;
    let computed = match cost.group {
        (0, _) => pixels,
        (together, single) => {
            let vectors = shape.out_h * shape.out_w.div_ceil(8);
            let left = (vectors % together) as f64;
            8.0 * ((vectors / together * together) as f64 + left * single)
        }
    };
    let macs = outputs * k * computed;
    let weights = (shape.panels() * PANEL * shape.k()) as f64;
    // A small kernel with a stride does not look at everything.
    let seen = |axis: usize, size: usize, out: usize| size.min(out * shape.kernel[axis]);
    let area = (seen(0, shape.in_h, shape.out_h) * seen(1, shape.in_w, shape.out_w)) as f64;
    let strided = if shape.stride == [1, 1] {
        0.0
    } else {
        cost.strided
    };
    let blocks = match group(cost.algorithm) {
        Some(_) => sparse::input_blocks(shape),
        None => shape.k().div_ceil(K_BLOCK),
    };
    let blocks = blocks.max(1) as f64;
    let chunks = (shape.panels_per_group().div_ceil(CHUNK) * shape.groups) as f64;
    let chunks = if shape.is_depthwise() { 1.0 } else { chunks };
    let far = outputs * pixels * size_of::<f32>() as f64 > table::FAR_BYTES as f64;
    let output = cost.output + if far { table::FAR_OUTPUT } else { 0.0 };
    (cost.product + strided) * macs
        + cost.present * macs * density
        + cost.weight * weights
        + cost.input * inputs * area * passes
        + output * outputs * pixels * blocks
        + cost.pixel * pixels * blocks * chunks
}

/// A linear layer of `rows` rows whose weights lie decoded in memory: a tile decoded just before, or all of them `kept`.
pub(crate) fn linear(layer: &Layer, form: TileForm, kept: bool, rows: usize) -> f64 {
    let weights = weights(layer);
    let first = match (kept, form) {
        (false, _) => table::LINEAR_DECODED,
        (true, TileForm::F32) => table::LINEAR_F32,
        (true, TileForm::I8 | TileForm::Lut) => table::LINEAR_CODES,
    };
    let expand = match form {
        TileForm::Lut => table::EXPAND_LUT,
        TileForm::I8 | TileForm::F32 => 0.0,
    };
    let first = first + expand;
    ms(weights * (first + table::LINEAR_FURTHER * rows.saturating_sub(1) as f64))
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

fn extra(form: TileForm) -> f64 {
    match form {
        TileForm::I8 => 0.0,
        TileForm::Lut => table::EXPAND_LUT,
        TileForm::F32 => table::EXPAND_F32,
    }
}

fn weights(layer: &Layer) -> f64 {
    layer.tiles.iter().map(|t| t.weights() as f64).sum()
}

fn ms(ns: f64) -> f64 {
    ns / 1e6
}
