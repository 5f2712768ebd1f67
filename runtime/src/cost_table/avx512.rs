//! AMD EPYC (Zen 5 core, 48 KiB L1, 1 MiB L2, AVX-512), 28 November 2026; one thread, release build.
//!
//! Written by `bench fit`; do not edit.

use super::{LinearCost, ListCost, Table, TileCost, Vectors};
use dcz_kernels::ConvAlgo;

#[rustfmt::skip]
pub(super) static TABLE: Table = Table {
    tiles: &[
        TileCost { algorithm: ConvAlgo::Gemm, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.01766, strided: 0.002542, present: 0.0, odd: 0.0, input: 0.233, copy: 0.0, output: 0.1184, far: 1.0, row: 2.547, pixel: 2.573, call: 0.0,
            weight: [0.1133, 0.3409, 0.4862, 0.1489, 0.0, 0.0], few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::DirectSparse, vectors: Vectors { lanes: 8, sizes: [12, 8, 4], least: 8.0 },
            product: 0.00101, strided: 0.00194, present: 0.01827, odd: 0.0, input: 0.4274, copy: 0.0, output: 0.3802, far: 1.0, row: 1.854, pixel: 3.663, call: 0.0,
            weight: [0.9459, 0.8634, 1.093, 1.18, 0.0, 0.0], few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::BlockSparse2, vectors: Vectors { lanes: 8, sizes: [4, 1, 1], least: 3.0 },
            product: 0.0006938, strided: 0.001839, present: 0.01658, odd: 0.0, input: 0.3872, copy: 0.0, output: 0.5378, far: 1.0, row: 2.008, pixel: 4.987, call: 0.0,
            weight: [0.7208, 0.6738, 0.8925, 0.9534, 0.0, 0.0], few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::BlockSparse4, vectors: Vectors { lanes: 8, sizes: [2, 1, 1], least: 3.0 },
            product: 0.0006926, strided: 0.001212, present: 0.01107, odd: 0.0, input: 0.2755, copy: 0.0, output: 0.8314, far: 1.0, row: 2.154, pixel: 5.876, call: 0.0,
            weight: [0.6326, 0.6033, 0.798, 0.8545, 0.0, 0.0], few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::Pointwise, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.01207, strided: 0.0009207, present: 0.0, odd: 0.0, input: 0.1187, copy: 0.0, output: 0.3598, far: 1.0, row: 5.996, pixel: 1.415, call: 0.0,
            weight: [0.0, 0.0, 0.1633, 0.04133, 0.0, 0.0], few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::Depthwise, vectors: Vectors { lanes: 8, sizes: [1, 1, 1], least: 1.0 },
            product: 0.03701, strided: 0.0, present: 0.0, odd: 0.0, input: 0.349, copy: 0.0, output: 0.1516, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.2898, 0.3516, 0.5251, 0.651, 0.0, 0.0], few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::Winograd2, vectors: Vectors { lanes: 16, sizes: [1, 1, 1], least: 1.0 },
            product: 0.01834, strided: 0.0, present: 0.0, odd: 0.0, input: 0.4162, copy: 0.0, output: 0.3888, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.1631, 0.322, 0.3373, 0.3449, 0.2369, 0.2174], few: [0.2537, 0.4368, 0.4401, 0.4391, 0.09595, 0.09716], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::Winograd4, vectors: Vectors { lanes: 8, sizes: [1, 1, 1], least: 1.0 },
            product: 0.02103, strided: 0.0, present: 0.0, odd: 0.0, input: 0.4255, copy: 0.0, output: 0.3791, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.1408, 0.2077, 0.2346, 0.2551, 0.1496, 0.2], few: [0.2209, 0.2907, 0.2968, 0.3147, 0.08899, 0.07832], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::Winograd6, vectors: Vectors { lanes: 16, sizes: [1, 1, 1], least: 1.0 },
            product: 0.02647, strided: 0.0, present: 0.0, odd: 0.0, input: 0.2867, copy: 0.0, output: 0.4454, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.0182, 0.09646, 0.08862, 0.115, 0.08978, 0.1037], few: [0.1725, 0.2089, 0.2136, 0.2265, 0.08568, 0.04782], few_tiles: 4 },
    ],
    lists: &[
        ListCost { group: 1, vectors: Vectors { lanes: 8, sizes: [12, 8, 4], least: 4.0 }, product: 0.1564, entry: 0.1152, list: 9.781, copy: 2.0, output: 0.4, row: 0.918 },
        ListCost { group: 2, vectors: Vectors { lanes: 8, sizes: [12, 8, 4], least: 2.0 }, product: 0.2666, entry: 0.1249, list: 11.39, copy: 2.0, output: 0.7614, row: 2.33 },
        ListCost { group: 4, vectors: Vectors { lanes: 8, sizes: [6, 4, 2], least: 2.0 }, product: 0.5518, entry: 0.106, list: 18.0, copy: 2.0, output: 1.036, row: 0.0 },
    ],
    linear: LinearCost { decoded: 0.07211, codes: 0.1104, float: 0.1489, lut: 0.009164, further: 0.05647, entry: 0.2435, entry_further: 0.208 },
    fft_operation: 0.0899,
};
