//! What operations cost, by tier: the committed tables, and what they have in common.
//!
//! A table belongs to one instruction set (a choice may depend on it) and one machine, which it names. `bench fit` writes
//! them from measurements (benches/README.md), `bench pick` checks the choices that follow. Nanoseconds per unit, one
//! thread. Only ratios matter to a choice; another machine shifts all of them alike.

use dcz_kernels::sparse::Tiling;
use dcz_kernels::{ConvAlgo, Isa, winograd};

mod avx2;
mod avx512;

/// The table of an instruction set. The portable tier has that of AVX2: ratios are what counts.
pub(crate) fn of(isa: Isa) -> &'static Table {
    match isa.name() {
        "avx512" => &avx512::TABLE,
        _ => &avx2::TABLE,
    }
}

/// Costs on one instruction set.
#[derive(Debug)]
pub struct Table {
    /// Convolutions by tiles of weights. Algorithms that are not here are never chosen.
    pub tiles: &'static [TileCost],
    /// Convolutions from resident lists.
    pub lists: &'static [ListCost],
    /// Linear layers.
    pub linear: LinearCost,
    /// Convolutions by FFT.
    pub fft: FftCost,
}

/// Costs of convolutions by FFT.
#[derive(Clone, Debug)]
pub struct FftCost {
    /// An operation of a transform.
    pub transform: f32,
    /// A multiply-add of frequencies.
    pub product: f32,
    /// An output.
    pub output: f32,
}

/// Where a convolution finds its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// Codes with steps.
    I8,
    /// Codes of a table of at most 16 values.
    Lut,
    /// Codes of a larger table.
    Wide,
    /// f32.
    Float,
    /// Transformed for Winograd.
    Transformed,
    /// The same in 16 bits.
    Transformed16,
}

/// All of [`Weights`], in the order of the columns of [`TileCost::weight`].
pub const WEIGHTS: [Weights; 6] = [
    Weights::I8,
    Weights::Lut,
    Weights::Wide,
    Weights::Float,
    Weights::Transformed,
    Weights::Transformed16,
];

/// Costs of an algorithm that reads tiles of weights.
#[derive(Clone, Debug)]
pub struct TileCost {
    /// Which one.
    pub algorithm: ConvAlgo,
    /// How pixels (of Winograd: tiles) become vectors.
    pub vectors: Vectors,
    /// A multiply-add (of Winograd: in the transformed domain, tiles filled up to vectors).
    pub product: f32,
    /// The same, where inputs are not neighbours because of a stride: on top. Where zeros are skipped: a piece of a row of the
    /// input that is collected one by one.
    pub strided: f32,
    /// A multiply-add with a weight that is not zero, where zeros are skipped.
    pub present: f32,
    /// A multiply-add with a panel that is not there, where panels are taken in pairs.
    pub odd: f32,
    /// An input element (of Winograd: transformed), each time it is packed.
    pub input: f32,
    /// A piece of a row of the input, copied, where zeros are skipped.
    pub copy: f32,
    /// An output element (of Winograd: transformed), each time it is stored.
    pub output: f32,
    /// The same on top, where the outputs have more than `FAR_BYTES`.
    pub far: f32,
    /// A row of an output channel, each time it is stored.
    pub row: f32,
    /// A pixel, for each block of k and each 8 panels: finding its place.
    pub pixel: f32,
    /// The same for each call: of tiles that are not computed together.
    pub call: f32,
    /// A weight, each time it is read and expanded or transformed, by [`Weights`].
    pub weight: [f32; WEIGHTS.len()],
    /// A transformed weight each further time it is read, where all of them are more than the L2 cache holds.
    pub again: f32,
    /// A tile of the map and block of k, where zeros are skipped.
    pub tile: f32,
    /// The same of Winograd on at most `few_tiles` tiles, which products do not hide.
    pub few: [f32; WEIGHTS.len()],
    /// Winograd only; 0: no number of tiles is few.
    pub few_tiles: usize,
}

/// How pixels become vectors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vectors {
    /// Lanes of a vector, where zeros are not skipped; 1: every pixel counts as one.
    pub lanes: usize,
    /// Vectors that are computed together, as often as they fit: the largest number, and what is tried for the rest.
    pub sizes: [usize; 3],
    /// What fewer vectors than this cost too: they wait for each other.
    pub least: f64,
}

impl Vectors {
    /// What the tiles of a map cost, in vectors.
    pub(crate) fn of_tiles(&self, tiling: &Tiling) -> f64 {
        let tiles = tiling.tiles.iter().enumerate();
        tiles.map(|(n, &tiles)| tiles as f64 * self.cost(n)).sum()
    }

    /// What so many vectors cost, in vectors.
    fn cost(&self, vectors: usize) -> f64 {
        let (mut left, mut cost) = (vectors, 0.0);
        for size in self.sizes.into_iter().chain([1]) {
            let size = size.max(1);
            cost += (left / size) as f64 * self.least.max(size as f64);
            left %= size;
        }
        cost
    }
}

/// Costs of resident lists.
#[derive(Clone, Debug)]
pub struct ListCost {
    /// Output channels of a group.
    pub group: usize,
    /// How pixels become vectors.
    pub vectors: Vectors,
    /// An entry times a vector of 16.
    pub product: f32,
    /// An entry, once: read from memory.
    pub entry: f32,
    /// A list, for each tile of the map.
    pub list: f32,
    /// A tile of the map and block of k.
    pub tile: f32,
    /// An input element.
    pub input: f32,
    /// A piece of a row of the input, copied.
    pub copy: f32,
    /// The same on top where it is collected one by one.
    pub strided: f32,
    /// An output element.
    pub output: f32,
    /// The same on top, where the outputs have more than `FAR_BYTES`.
    pub far: f32,
    /// A row of an output channel.
    pub row: f32,
    /// A byte of lists each further time it is read, where they are more than the L2 cache holds.
    pub again: f32,
}

/// Costs of linear layers, per multiply-add of the first row.
#[derive(Clone, Debug)]
pub struct LinearCost {
    /// Of weights decoded just before.
    pub decoded: f64,
    /// Of codes read from memory.
    pub codes: f64,
    /// Of f32 read from memory.
    pub float: f64,
    /// Of codes of a look-up table, on top.
    pub lut: f64,
    /// Of a further row.
    pub further: f64,
    /// An entry of lists, read from memory.
    pub entry: f64,
    /// The same for further rows.
    pub entry_further: f64,
}

/// Bytes of an output that does not stay in the caches.
pub(crate) const FAR_BYTES: usize = 8 << 20;

/// Bytes of weights that the L2 cache holds beside other things.
pub(crate) const NEAR_BYTES: usize = 1 << 20;

/// Share of weights that are not zero up to which lists made in a call are considered for 1x1 kernels: beyond it they take
/// up to 2.3 times as long as the pointwise kernel (MobileFaceNet under its smallest budget).
pub(crate) const MOST_OF_ONE_TAP: f64 = 0.15;

/// Share of weights that are not zero up to which resident lists are considered. Lists are five times as large as codes: of dense layers
/// they were sometimes the quickest when measured alone, and made no network faster (ResNet-50, 1x1 layers of 7x7: no difference).
pub(crate) const MOST_IN_LISTS: f64 = 0.75;

/// What Winograd loses with less scratch than it wants, by level: times its time.
pub(crate) const LEVELS: [f64; winograd::LEVELS] = [1.0, 1.0, 1.02, 1.05, 1.2];

/// Decoding one weight, by index mode.
pub(crate) const DECODE_RAW: f64 = 0.25;
pub(crate) const DECODE_DENSE: f64 = 0.55;
pub(crate) const DECODE_MASK: f64 = 0.50;
pub(crate) const DECODE_GAPS: f64 = 0.90;
/// What a value costs more that is decoded to f32.
pub(crate) const DECODE_TO_F32: f64 = 0.8;
/// Building the code tables of a layer, and beginning a tile.
pub(crate) const DECODE_LAYER: f64 = 12_000.0;
pub(crate) const DECODE_TILE: f64 = 1_000.0;

/// Errors, largest error over largest output, beyond those of the dense order of sums: of Winograd and FFT the limits that
/// the tests of the kernels enforce; sparse kernels and kn2 have an order of sums of their own, which a limit of zero excludes.
#[rustfmt::skip]
pub(crate) const ERRORS: &[(ConvAlgo, f64)] = &[
    (ConvAlgo::Winograd2, 1e-6),
    (ConvAlgo::Winograd4, 3e-6),
    (ConvAlgo::Winograd6, 2e-5),
    (ConvAlgo::Fft, 2e-6),
    (ConvAlgo::DirectSparse, 2e-7),
    (ConvAlgo::BlockSparse2, 2e-7),
    (ConvAlgo::BlockSparse4, 2e-7),
    (ConvAlgo::Kn2row, 2e-7),
    (ConvAlgo::Kn2col, 2e-7),
];

/// One element of a step without weights.
pub(crate) const ELEMENT: f64 = 0.3;
