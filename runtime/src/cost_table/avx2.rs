//! AMD EPYC (Zen 4 core, 32 KiB L1, 1 MiB L2), one thread, rustc 1.95 release build.
//!
//! Fitted (non-negative least squares of relative error, outliers weighed down) to `bench conv --zeros 0,50,80 --json` of
//! November 2026. Median error: dense 6 percent, sparse 5, Winograd 6 (worst 30 with 4 channels). What kept weights of
//! Winograd cost is more than fitted, since they come from main memory in a network; wide tables are a guess.
//! The rows of sparse kernels are older than these kernels, and packing for lists is a guess, until `bench fit` has run there.

use super::{LinearCost, ListCost, Table, TileCost, Vectors};
use dcz_kernels::ConvAlgo;

#[rustfmt::skip]
pub(super) static TABLE: Table = Table {
    tiles: &[
        TileCost { algorithm: ConvAlgo::Gemm, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 }, product: 0.0184, strided: 0.0, present: 0.0, odd: 0.0, input: 0.191, copy: 0.0, output: 0.23, far: 1.0, row: 0.0, pixel: 3.1, call: 0.0,
            weight: [0.64, 0.70, 0.99, 0.74, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0; 6], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::DirectSparse, vectors: Vectors { lanes: 8, sizes: [8, 1, 1], least: 2.5 }, product: 0.0010, strided: 0.0024, present: 0.0264, odd: 0.0, input: 0.985, copy: 0.0, output: 0.21, far: 1.0, row: 0.0, pixel: 2.6, call: 0.0,
            weight: [0.97, 1.03, 1.32, 1.07, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0; 6], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::BlockSparse2, vectors: Vectors { lanes: 8, sizes: [4, 1, 1], least: 1.5 }, product: 0.0006, strided: 0.0011, present: 0.0203, odd: 0.0, input: 0.704, copy: 0.0, output: 0.52, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.90, 0.96, 1.25, 1.00, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0; 6], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::BlockSparse4, vectors: Vectors { lanes: 8, sizes: [2, 1, 1], least: 1.5 }, product: 0.0004, strided: 0.0003, present: 0.0191, odd: 0.0, input: 0.607, copy: 0.0, output: 0.89, far: 1.0, row: 0.0, pixel: 6.6, call: 0.0,
            weight: [0.70, 0.76, 1.05, 0.80, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0; 6], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::Pointwise, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 }, product: 0.0188, strided: 0.0, present: 0.0, odd: 0.0, input: 0.0, copy: 0.0, output: 0.17, far: 1.0, row: 0.0, pixel: 1.0, call: 0.0,
            weight: [0.27, 0.33, 0.62, 0.37, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0; 6], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::Depthwise, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 }, product: 0.0385, strided: 0.115, present: 0.0, odd: 0.0, input: 0.0, copy: 0.0, output: 0.50, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [1.19, 1.25, 1.54, 1.29, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0; 6], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::Winograd2, vectors: Vectors { lanes: 8, sizes: [1, 1, 1], least: 1.0 }, product: 0.0214, strided: 0.0, present: 0.0, odd: 0.0, input: 0.540, copy: 0.0, output: 0.552, far: 0.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.204, 0.317, 0.317, 0.260, 0.160, 0.260], again: 0.0, tile: 0.0, few: [0.311, 0.424, 0.424, 0.367, 0.110, 0.060], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::Winograd4, vectors: Vectors { lanes: 8, sizes: [1, 1, 1], least: 1.0 }, product: 0.0190, strided: 0.0, present: 0.0, odd: 0.0, input: 0.525, copy: 0.0, output: 0.566, far: 0.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.229, 0.279, 0.279, 0.254, 0.120, 0.235], again: 0.0, tile: 0.0, few: [0.252, 0.302, 0.302, 0.277, 0.170, 0.080], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::Winograd6, vectors: Vectors { lanes: 8, sizes: [1, 1, 1], least: 1.0 }, product: 0.0243, strided: 0.0, present: 0.0, odd: 0.0, input: 0.584, copy: 0.0, output: 0.519, far: 0.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.151, 0.179, 0.179, 0.165, 0.090, 0.205], again: 0.0, tile: 0.0, few: [0.228, 0.256, 0.256, 0.242, 0.160, 0.060], few_tiles: 4 },
    ],
    // From `sparse_speed` and profiles of the contest network; groups of 4 count more than alone, as they do there.
    lists: &[
        ListCost { group: 1, vectors: Vectors { lanes: 8, sizes: [8, 1, 1], least: 1.0 }, product: 0.176, entry: 0.6, list: 8.0, tile: 0.0, input: 0.0, copy: 2.0, strided: 0.0, output: 0.3, row: 0.0 },
        ListCost { group: 2, vectors: Vectors { lanes: 8, sizes: [4, 1, 1], least: 1.0 }, product: 0.27,  entry: 1.0, list: 8.0, tile: 0.0, input: 0.0, copy: 2.0, strided: 0.0, output: 0.3, row: 0.0 },
        ListCost { group: 4, vectors: Vectors { lanes: 8, sizes: [2, 1, 1], least: 1.0 }, product: 0.60,  entry: 1.8, list: 10.0, tile: 0.0, input: 0.0, copy: 2.0, strided: 0.0, output: 0.3, row: 0.0 },
    ],
    linear: LinearCost { decoded: 0.115, codes: 0.13, float: 0.40, lut: 0.06, further: 0.035, entry: 0.55, entry_further: 0.35 },
    // 0.06 to 0.13 with kernels from 5x5 to 31x31.
    fft_operation: 0.11,
};
