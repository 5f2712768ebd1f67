//! AMD EPYC, Zen 5 (48 KiB L1, 1 MiB L2, AVX-512), 29 November 2026; one thread, release build.
//!
//! Written by `bench fit`; do not edit.

use super::{FftCost, LinearCost, ListCost, Table, TileCost, Vectors};
use dcz_kernels::ConvAlgo;

#[rustfmt::skip]
pub(super) static TABLE: Table = Table {
    tiles: &[
        TileCost { algorithm: ConvAlgo::Gemm, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.00682, strided: 0.0004431, present: 0.0, odd: 0.0, input: 0.1122, copy: 0.0, output: 0.344, far: 1.0, row: 0.0, pixel: 0.0, call: 2.798,
            weight: [0.1355, 0.5373, 0.5255, 0.2734, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::DirectSparse, vectors: Vectors { lanes: 16, sizes: [8, 4, 2], least: 8.0 },
            product: 0.001203, strided: 11.59, present: 0.007656, odd: 0.0, input: 0.0131, copy: 1.804, output: 0.0928, far: 1.0, row: 5.926, pixel: 6.289, call: 0.0,
            weight: [0.601, 0.5546, 0.7407, 0.7802, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::BlockSparse2, vectors: Vectors { lanes: 16, sizes: [8, 4, 2], least: 8.0 },
            product: 0.0009643, strided: 11.52, present: 0.005215, odd: 0.0, input: 0.03873, copy: 1.691, output: 0.1567, far: 1.0, row: 4.324, pixel: 6.622, call: 0.0,
            weight: [0.2501, 0.2181, 0.4059, 0.4183, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::BlockSparse4, vectors: Vectors { lanes: 16, sizes: [8, 4, 2], least: 6.0 },
            product: 0.001052, strided: 11.34, present: 0.005896, odd: 0.0, input: 0.01709, copy: 1.638, output: 0.1628, far: 1.0, row: 3.853, pixel: 7.071, call: 0.0,
            weight: [0.1581, 0.1397, 0.3167, 0.3454, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Pointwise, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.002778, strided: 0.0, present: 0.0, odd: 0.0, input: 0.07633, copy: 0.0, output: 0.4336, far: 1.0, row: 7.596, pixel: 0.0000885, call: 0.0,
            weight: [0.0, 0.03753, 0.04219, 0.09454, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Depthwise, vectors: Vectors { lanes: 16, sizes: [1, 1, 1], least: 1.0 },
            product: 0.02598, strided: 0.02164, present: 0.0, odd: 0.0, input: 0.02475, copy: 0.0, output: 0.1025, far: 1.0, row: 2.546, pixel: 11.5, call: 0.0,
            weight: [0.3266, 0.2959, 0.4939, 0.6913, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Direct, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.01685, strided: 0.01061, present: 0.0, odd: 0.01985, input: 0.0, copy: 0.0, output: 0.5424, far: 1.0, row: 0.0, pixel: 0.1055, call: 0.0,
            weight: [1.449, 1.455, 1.611, 1.645, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Im2col, vectors: Vectors { lanes: 16, sizes: [1, 1, 1], least: 1.0 },
            product: 0.001602, strided: 0.002128, present: 0.0, odd: 0.003811, input: 0.8577, copy: 0.0, output: 0.1202, far: 1.0, row: 0.0, pixel: 8.005, call: 0.0,
            weight: [0.4263, 0.5373, 0.6053, 0.5231, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Im2row, vectors: Vectors { lanes: 8, sizes: [1, 1, 1], least: 1.0 },
            product: 0.0, strided: 0.0, present: 0.0, odd: 0.0, input: 1.305, copy: 0.0, output: 0.2362, far: 1.0, row: 0.0, pixel: 2.968, call: 0.0,
            weight: [0.1355, 0.5373, 0.5255, 0.2734, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Kn2row, vectors: Vectors { lanes: 16, sizes: [1, 1, 1], least: 1.0 },
            product: 0.005936, strided: 0.0, present: 0.0, odd: 0.0, input: 0.453, copy: 0.0, output: 0.1758, far: 1.0, row: 0.0, pixel: 0.2781, call: 0.2482,
            weight: [0.479, 0.5373, 0.6654, 1.047, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Kn2col, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.006032, strided: 0.0, present: 0.0, odd: 0.01174, input: 0.3024, copy: 0.0, output: 0.2484, far: 1.0, row: 0.0, pixel: 0.0, call: 3.003,
            weight: [0.5576, 0.6245, 0.5944, 1.014, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Winograd2, vectors: Vectors { lanes: 4, sizes: [1, 1, 1], least: 1.0 },
            product: 0.00611, strided: 0.0, present: 0.0, odd: 0.0, input: 0.2958, copy: 0.0, output: 0.2797, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.00541, 0.0, 0.0, 0.2536, 0.5435, 0.5426], again: 0.08291, tile: 0.0, few: [0.2279, 0.2484, 0.2522, 0.4522, 0.1129, 0.09443], few_tiles: 16 },
        TileCost { algorithm: ConvAlgo::Winograd4, vectors: Vectors { lanes: 4, sizes: [1, 1, 1], least: 1.0 },
            product: 0.008469, strided: 0.0, present: 0.0, odd: 0.0, input: 0.2998, copy: 0.0, output: 0.339, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.1287, 0.1588, 0.147, 0.285, 0.07468, 0.09261], again: 0.2166, tile: 0.0, few: [0.2438, 0.2397, 0.2352, 0.3647, 0.1174, 0.06455], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::Winograd6, vectors: Vectors { lanes: 4, sizes: [1, 1, 1], least: 1.0 },
            product: 0.009301, strided: 0.0, present: 0.0, odd: 0.0, input: 0.1458, copy: 0.0, output: 0.5475, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.4522, 0.4664, 0.4841, 0.514, 0.6448, 0.4544], again: 0.07559, tile: 0.0, few: [0.2348, 0.263, 0.2724, 0.3059, 0.1028, 0.06111], few_tiles: 16 },
    ],
    lists: &[
        ListCost { group: 1, vectors: Vectors { lanes: 16, sizes: [4, 1, 1], least: 6.0 }, product: 0.1072, entry: 0.267, list: 5.259, tile: 1152.6, input: 0.02385, copy: 1.941, strided: 11.49, output: 0.1187, far: 0.07807, row: 3.506, again: 0.0 },
        ListCost { group: 2, vectors: Vectors { lanes: 16, sizes: [4, 1, 1], least: 3.0 }, product: 0.2179, entry: 0.4972, list: 5.967, tile: 1226.7, input: 0.0, copy: 2.04, strided: 11.15, output: 0.18, far: 0.07702, row: 2.907, again: 0.01665 },
        ListCost { group: 4, vectors: Vectors { lanes: 16, sizes: [2, 1, 1], least: 2.0 }, product: 0.4571, entry: 0.8895, list: 7.173, tile: 1260.8, input: 0.0, copy: 2.138, strided: 10.55, output: 0.1766, far: 0.0687, row: 3.066, again: 0.03142 },
    ],
    linear: LinearCost { decoded: 0.05836, codes: 0.1069, float: 0.1352, lut: 0.0, further: 0.05218, entry: 0.2528, entry_further: 0.205 },
    fft: FftCost { transform: 0.04145, product: 0.08409, output: 2.441 },
};
