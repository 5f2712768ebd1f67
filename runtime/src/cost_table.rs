//! What operations cost on the machine the planner's figures come from: an AMD EPYC (Zen 4 core, AVX2+FMA tier, 32 KiB
//! L1, 1 MiB L2), one thread, rustc 1.95 release build.
//!
//! Fitted (non-negative least squares of relative error) to `kernels/examples/conv_table.rs` with 50 and 80 percent of
//! zeros, Winograd to its 3x3 layers of 64 and more channels. Most dense and sparse layers are predicted within 15
//! percent, stems, 7x7 maps, strided 1x1 and very large maps worse; Winograd mostly within 10, worst 22. Kept f32 weights
//! and wide decoding are guesses. Nanoseconds per unit. Only ratios matter to a choice; another machine shifts all of them alike.

use dcz_kernels::ConvAlgo;

/// Costs of an algorithm that reads tiles of weights.
pub(crate) struct TileCost {
    pub algorithm: ConvAlgo,
    /// A multiply-add (of Winograd: in the transformed domain, tiles filled up to vectors).
    pub product: f64,
    /// The same, where inputs are not neighbours because of a stride: on top.
    pub strided: f64,
    /// A multiply-add with a weight that is not zero, where zeros are skipped.
    pub present: f64,
    /// A weight, each time it is expanded or transformed.
    pub weight: f64,
    /// An input element (of Winograd: transformed), each time it is packed.
    pub input: f64,
    /// An output element (of Winograd: transformed), each time it is stored.
    pub output: f64,
}

/// Weights as they come from the file. Algorithms that are not here are never chosen: where they are faster than these
/// is not known yet, or (direct convolution without scratch) what they save is not worth what they cost.
#[rustfmt::skip]
pub(crate) const TILES: &[TileCost] = &[
    TileCost { algorithm: ConvAlgo::Gemm,         product: 0.0172, strided: 0.0030, present: 0.0,    weight: 0.65, input: 0.018, output: 0.60 },
    TileCost { algorithm: ConvAlgo::DirectSparse, product: 0.0029, strided: 0.0030, present: 0.0384, weight: 0.71, input: 0.39,  output: 0.0 },
    TileCost { algorithm: ConvAlgo::Pointwise,    product: 0.0175, strided: 0.0, present: 0.0,    weight: 0.40, input: 0.0,   output: 0.45 },
    TileCost { algorithm: ConvAlgo::Depthwise,    product: 0.0, strided: 0.0,    present: 0.0,    weight: 0.5,  input: 1.10,  output: 0.0 },
    TileCost { algorithm: ConvAlgo::Winograd2,    product: 0.0249, strided: 0.0, present: 0.0,    weight: 0.69, input: 0.18, output: 0.19 },
    TileCost { algorithm: ConvAlgo::Winograd4,    product: 0.0136, strided: 0.0, present: 0.0,    weight: 0.60, input: 0.05, output: 1.10 },
    TileCost { algorithm: ConvAlgo::Winograd6,    product: 0.0123, strided: 0.0, present: 0.0,    weight: 0.46, input: 0.21, output: 1.51 },
];

/// Winograd with transformed weights kept: weights are read only, from main memory when a network has more than the caches
/// hold, and the input is transformed once.
#[rustfmt::skip]
pub(crate) const TRANSFORMED: &[TileCost] = &[
    TileCost { algorithm: ConvAlgo::Winograd2,    product: 0.0231, strided: 0.0, present: 0.0,    weight: 0.080, input: 0.163, output: 0.163 },
    TileCost { algorithm: ConvAlgo::Winograd4,    product: 0.0140, strided: 0.0, present: 0.0,    weight: 0.250, input: 0.510, output: 0.510 },
    TileCost { algorithm: ConvAlgo::Winograd6,    product: 0.0214, strided: 0.0, present: 0.0,    weight: 0.250, input: 0.260, output: 0.260 },
];

/// The same in 16 bits: half the memory to read, and what widening costs.
#[rustfmt::skip]
pub(crate) const TRANSFORMED_16: &[TileCost] = &[
    TileCost { algorithm: ConvAlgo::Winograd2,    product: 0.0231, strided: 0.0, present: 0.0,    weight: 0.050, input: 0.163, output: 0.163 },
    TileCost { algorithm: ConvAlgo::Winograd4,    product: 0.0140, strided: 0.0, present: 0.0,    weight: 0.150, input: 0.510, output: 0.510 },
    TileCost { algorithm: ConvAlgo::Winograd6,    product: 0.0214, strided: 0.0, present: 0.0,    weight: 0.150, input: 0.260, output: 0.260 },
];

/// A multiply-add of a linear layer for the first row: with weights decoded just before, kept as codes and read from
/// memory, kept as f32; and for further rows.
pub(crate) const LINEAR_DECODED: f64 = 0.115;
pub(crate) const LINEAR_CODES: f64 = 0.13;
pub(crate) const LINEAR_F32: f64 = 0.40;
pub(crate) const LINEAR_FURTHER: f64 = 0.035;

/// What expanding one weight costs more than with i8 codes: from a look-up table, from f32 beyond the caches.
pub(crate) const EXPAND_LUT: f64 = 0.06;
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

/// Errors of Winograd: the limits that the tests of the kernels enforce, largest error over largest output.
#[rustfmt::skip]
pub(crate) const ERRORS: &[(ConvAlgo, f64)] = &[
    (ConvAlgo::Winograd2, 1e-6),
    (ConvAlgo::Winograd4, 3e-6),
    (ConvAlgo::Winograd6, 2e-5),
];

/// One element of a step without weights.
pub(crate) const ELEMENT: f64 = 0.3;
