//! What operations cost on the machine the planner's figures come from: an AMD EPYC (Zen 4 core, AVX2+FMA tier, 32 KiB
//! L1, 1 MiB L2), one thread, rustc 1.95 release build.
//!
//! Fitted (non-negative least squares of relative error, outliers weighed down) to `bench conv --zeros 0,50,80 --json`.
//! Median error: dense 6 percent, sparse 5, Winograd 6 (worst 30 with 4 channels). What kept weights of Winograd cost is more than
//! fitted, since they come from main memory in a network; wide decoding is a guess. `bench pick` checks the
//! choices. Nanoseconds per unit. Only ratios matter to a choice; another machine shifts all of them alike.

use dcz_kernels::{ConvAlgo, winograd};

/// Costs of an algorithm that reads tiles of weights.
pub(crate) struct TileCost {
    pub algorithm: ConvAlgo,
    /// A multiply-add (of Winograd: in the transformed domain, tiles filled up to vectors).
    pub product: f64,
    /// The same, where inputs are not neighbours because of a stride: on top.
    pub strided: f64,
    /// A multiply-add with a weight that is not zero, where zeros are skipped.
    pub present: f64,
    /// A weight, each time it is expanded or transformed (of transformed weights that are kept: read).
    pub weight: f64,
    /// The same of Winograd on at most 4 tiles, where a lane is a channel.
    pub few: f64,
    /// An input element (of Winograd: transformed), each time it is packed.
    pub input: f64,
    /// An output element (of Winograd: transformed), each time it is stored.
    pub output: f64,
    /// A pixel, for each block of k and each 8 panels: finding its place.
    pub pixel: f64,
    /// Vectors of pixels that are computed together, and what one left over costs, in vectors; 0: every pixel counts as one.
    pub group: (usize, f64),
}

/// Weights as they come from the file. Algorithms that are not here are never chosen: where they are faster than these
/// is not known yet, or (direct convolution without scratch) what they save is not worth what they cost.
#[rustfmt::skip]
pub(crate) const TILES: &[TileCost] = &[
    TileCost { algorithm: ConvAlgo::Gemm,         product: 0.0184, strided: 0.0,    present: 0.0,    weight: 0.64, few: 0.0, input: 0.191, output: 0.23, pixel: 3.1, group: (0, 0.0) },
    TileCost { algorithm: ConvAlgo::DirectSparse, product: 0.0010, strided: 0.0024, present: 0.0264, weight: 0.97, few: 0.0, input: 0.985, output: 0.21, pixel: 2.6, group: (8, 2.5) },
    TileCost { algorithm: ConvAlgo::BlockSparse2, product: 0.0006, strided: 0.0011, present: 0.0203, weight: 0.90, few: 0.0, input: 0.704, output: 0.52, pixel: 0.0, group: (4, 1.5) },
    TileCost { algorithm: ConvAlgo::BlockSparse4, product: 0.0004, strided: 0.0003, present: 0.0191, weight: 0.70, few: 0.0, input: 0.607, output: 0.89, pixel: 6.6, group: (2, 1.5) },
    TileCost { algorithm: ConvAlgo::Pointwise,    product: 0.0188, strided: 0.0,    present: 0.0,    weight: 0.27, few: 0.0, input: 0.0,   output: 0.17, pixel: 1.0, group: (0, 0.0) },
    TileCost { algorithm: ConvAlgo::Depthwise,    product: 0.0385, strided: 0.115,  present: 0.0,    weight: 1.19, few: 0.0, input: 0.0,   output: 0.50, pixel: 0.0, group: (0, 0.0) },
    TileCost { algorithm: ConvAlgo::Winograd2,    product: 0.0214, strided: 0.0, present: 0.0, weight: 0.204, few: 0.311, input: 0.540, output: 0.552, pixel: 0.0, group: (0, 0.0) },
    TileCost { algorithm: ConvAlgo::Winograd4,    product: 0.0190, strided: 0.0, present: 0.0, weight: 0.229, few: 0.252, input: 0.525, output: 0.566, pixel: 0.0, group: (0, 0.0) },
    TileCost { algorithm: ConvAlgo::Winograd6,    product: 0.0243, strided: 0.0, present: 0.0, weight: 0.151, few: 0.228, input: 0.584, output: 0.519, pixel: 0.0, group: (0, 0.0) },
];

/// What an output element costs more, each time it is stored, where the outputs have more than [`FAR_BYTES`].
pub(crate) const FAR_OUTPUT: f64 = 1.0;
pub(crate) const FAR_BYTES: usize = 8 << 20;

/// Winograd with transformed weights kept: weights are read only, and the input is transformed once.
#[rustfmt::skip]
pub(crate) const TRANSFORMED: &[TileCost] = &[
    TileCost { algorithm: ConvAlgo::Winograd2,    product: 0.0214, strided: 0.0, present: 0.0, weight: 0.160, few: 0.110, input: 0.540, output: 0.552, pixel: 0.0, group: (0, 0.0) },
    TileCost { algorithm: ConvAlgo::Winograd4,    product: 0.0190, strided: 0.0, present: 0.0, weight: 0.120, few: 0.170, input: 0.525, output: 0.566, pixel: 0.0, group: (0, 0.0) },
    TileCost { algorithm: ConvAlgo::Winograd6,    product: 0.0243, strided: 0.0, present: 0.0, weight: 0.090, few: 0.160, input: 0.584, output: 0.519, pixel: 0.0, group: (0, 0.0) },
];

/// The same in 16 bits: half the memory to read, and what widening costs.
#[rustfmt::skip]
pub(crate) const TRANSFORMED_16: &[TileCost] = &[
    TileCost { algorithm: ConvAlgo::Winograd2,    product: 0.0214, strided: 0.0, present: 0.0, weight: 0.260, few: 0.060, input: 0.540, output: 0.552, pixel: 0.0, group: (0, 0.0) },
    TileCost { algorithm: ConvAlgo::Winograd4,    product: 0.0190, strided: 0.0, present: 0.0, weight: 0.235, few: 0.080, input: 0.525, output: 0.566, pixel: 0.0, group: (0, 0.0) },
    TileCost { algorithm: ConvAlgo::Winograd6,    product: 0.0243, strided: 0.0, present: 0.0, weight: 0.205, few: 0.060, input: 0.584, output: 0.519, pixel: 0.0, group: (0, 0.0) },
];

/// Costs of resident lists.
pub(crate) struct ListCost {
    /// Output channels of a group.
    pub group: usize,
    /// Vectors of pixels computed together.
    pub vectors: usize,
    /// An entry times a vector of 8 pixels.
    pub product: f64,
    /// An entry, once: read from memory.
    pub entry: f64,
    /// A list, for each group of vectors.
    pub list: f64,
    /// An input element, packed.
    pub input: f64,
    /// An output element.
    pub output: f64,
}

/// From `sparse_speed` and profiles of the contest network; groups of 4 count more than alone, as they do there.
#[rustfmt::skip]
pub(crate) const LISTS: &[ListCost] = &[
    ListCost { group: 1, vectors: 8, product: 0.176, entry: 0.6, list: 8.0, input: 0.3, output: 0.3 },
    ListCost { group: 2, vectors: 4, product: 0.27,  entry: 1.0, list: 8.0, input: 0.3, output: 0.3 },
    ListCost { group: 4, vectors: 2, product: 0.60,  entry: 1.8, list: 10.0, input: 0.3, output: 0.3 },
];

/// Share of weights that are not zero up to which lists made in a call are considered for 1x1 kernels: beyond it they take
/// up to 2.3 times as long as the pointwise kernel (MobileFaceNet under its smallest budget).
pub(crate) const MOST_OF_ONE_TAP: f64 = 0.15;

/// What Winograd loses with less scratch than it wants, by level: times its time.
pub(crate) const LEVELS: [f64; winograd::LEVELS] = [1.0, 1.0, 1.02, 1.05, 1.2];

/// A multiply-add of a linear layer for the first row: with weights decoded just before, kept as codes and read from
/// memory, kept as f32; and for further rows.
pub(crate) const LINEAR_DECODED: f64 = 0.115;
pub(crate) const LINEAR_CODES: f64 = 0.13;
pub(crate) const LINEAR_F32: f64 = 0.40;
pub(crate) const LINEAR_FURTHER: f64 = 0.035;

/// An entry of the lists of a linear layer for the first row, read from memory, and for further rows.
pub(crate) const LINEAR_ENTRY: f64 = 0.55;
pub(crate) const LINEAR_ENTRY_FURTHER: f64 = 0.35;

/// What expanding one weight costs more than with i8 codes: from a look-up table, from f32 beyond the caches.
pub(crate) const EXPAND_LUT: f64 = 0.06;
/// The same from a table of more than 16 values.
pub(crate) const EXPAND_WIDE: f64 = 0.35;
/// The same for transforming one.
pub(crate) const TRANSFORM_LUT: f64 = 0.2;
pub(crate) const EXPAND_F32: f64 = 0.10;

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
/// the tests of the kernels enforce; sparse kernels have an order of sums of their own, which a limit of zero excludes.
#[rustfmt::skip]
pub(crate) const ERRORS: &[(ConvAlgo, f64)] = &[
    (ConvAlgo::Winograd2, 1e-6),
    (ConvAlgo::Winograd4, 3e-6),
    (ConvAlgo::Winograd6, 2e-5),
    (ConvAlgo::Fft, 2e-6),
    (ConvAlgo::DirectSparse, 2e-7),
    (ConvAlgo::BlockSparse2, 2e-7),
    (ConvAlgo::BlockSparse4, 2e-7),
];

/// An operation of a convolution by FFT (0.06 to 0.13 with kernels from 5x5 to 31x31).
pub(crate) const FFT_OPERATION: f64 = 0.11;

/// One element of a step without weights.
pub(crate) const ELEMENT: f64 = 0.3;
