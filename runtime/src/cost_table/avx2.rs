//! AMD EPYC (Zen 3 core, 32 KiB L1, 512 KiB L2, AVX2), 29 November 2026; one thread, release build.
//!
//! Written by `bench fit`; do not edit.

use super::{FftCost, LinearCost, ListCost, Table, TileCost, Vectors};
use dcz_kernels::ConvAlgo;

#[rustfmt::skip]
pub(super) static TABLE: Table = Table {
    tiles: &[
        TileCost { algorithm: ConvAlgo::Gemm, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.02225, strided: 0.001268, present: 0.0, odd: 0.0, input: 0.6889, copy: 0.0, output: 0.8743, far: 1.0, row: 0.0, pixel: 4.127, call: 0.3455,
            weight: [0.3398, 0.5529, 0.8163, 0.3985, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::DirectSparse, vectors: Vectors { lanes: 16, sizes: [8, 4, 2], least: 8.0 },
            product: 0.00145, strided: 19.84, present: 0.0268, odd: 0.0, input: 0.0, copy: 3.775, output: 0.8254, far: 1.0, row: 7.592, pixel: 12.42, call: 1.138,
            weight: [2.282, 2.465, 2.904, 2.678, 0.0, 0.0], again: 0.0, tile: 342.6, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::BlockSparse2, vectors: Vectors { lanes: 16, sizes: [8, 4, 2], least: 8.0 },
            product: 0.002037, strided: 20.11, present: 0.0208, odd: 0.0, input: 0.0, copy: 2.855, output: 1.276, far: 1.0, row: 0.0, pixel: 14.31, call: 0.0,
            weight: [1.47, 1.521, 1.811, 1.992, 0.0, 0.0], again: 0.0, tile: 572.4, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::BlockSparse4, vectors: Vectors { lanes: 16, sizes: [8, 4, 2], least: 8.0 },
            product: 0.0, strided: 22.25, present: 0.01954, odd: 0.0, input: 0.4253, copy: 4.091, output: 1.72, far: 1.0, row: 0.0, pixel: 23.93, call: 0.0,
            weight: [0.499, 0.4942, 0.8746, 0.8074, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Pointwise, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.02023, strided: 0.02764, present: 0.0, odd: 0.0, input: 0.3442, copy: 0.0, output: 0.6173, far: 1.0, row: 16.89, pixel: 12.35, call: 0.0,
            weight: [0.0, 0.0, 0.06901, 0.0, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Depthwise, vectors: Vectors { lanes: 8, sizes: [1, 1, 1], least: 1.0 },
            product: 0.04823, strided: 0.07415, present: 0.0, odd: 0.0, input: 0.4532, copy: 0.0, output: 0.0, far: 1.0, row: 13.02, pixel: 0.0, call: 0.0,
            weight: [0.5522, 0.7379, 1.515, 1.333, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Direct, vectors: Vectors { lanes: 16, sizes: [1, 1, 1], least: 1.0 },
            product: 0.02519, strided: 0.0396, present: 0.0, odd: 0.04112, input: 0.0, copy: 0.0, output: 1.473, far: 1.0, row: 23.09, pixel: 4.064, call: 0.0,
            weight: [0.7289, 0.7444, 1.32, 1.005, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Im2col, vectors: Vectors { lanes: 16, sizes: [1, 1, 1], least: 1.0 },
            product: 0.02401, strided: 0.003103, present: 0.0, odd: 0.0, input: 1.447, copy: 0.0, output: 0.8528, far: 1.0, row: 0.0, pixel: 24.25, call: 0.0,
            weight: [0.0, 0.0, 0.1291, 0.0, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Im2row, vectors: Vectors { lanes: 8, sizes: [1, 1, 1], least: 1.0 },
            product: 0.006927, strided: 0.0, present: 0.0, odd: 0.0, input: 2.876, copy: 0.0, output: 1.571, far: 1.0, row: 1.731, pixel: 2.349, call: 0.0,
            weight: [0.0, 0.3982, 0.5916, 0.0, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Kn2row, vectors: Vectors { lanes: 8, sizes: [1, 1, 1], least: 1.0 },
            product: 0.02296, strided: 0.0, present: 0.0, odd: 0.0, input: 1.086, copy: 0.0, output: 0.367, far: 1.0, row: 4.181, pixel: 0.0, call: 1.784,
            weight: [0.1691, 0.1514, 0.3078, 1.959, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Kn2col, vectors: Vectors { lanes: 8, sizes: [1, 1, 1], least: 1.0 },
            product: 0.02106, strided: 0.0, present: 0.0, odd: 0.005957, input: 1.3, copy: 0.0, output: 0.4147, far: 1.0, row: 0.0, pixel: 0.0, call: 4.424,
            weight: [0.3127, 0.6018, 0.7043, 1.733, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Winograd2, vectors: Vectors { lanes: 16, sizes: [1, 1, 1], least: 1.0 },
            product: 0.02406, strided: 0.0, present: 0.0, odd: 0.0, input: 0.5559, copy: 0.0, output: 0.7342, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.4218, 0.521, 0.5053, 0.632, 0.4398, 0.5043], again: 0.3313, tile: 0.0, few: [0.3811, 0.5677, 0.5552, 0.6228, 0.2646, 0.1678], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::Winograd4, vectors: Vectors { lanes: 8, sizes: [1, 1, 1], least: 1.0 },
            product: 0.02366, strided: 0.0, present: 0.0, odd: 0.0, input: 1.032, copy: 0.0, output: 0.8874, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.387, 0.4471, 0.4729, 0.556, 0.4283, 0.478], again: 0.8249, tile: 0.0, few: [0.3606, 0.4365, 0.4298, 0.5231, 0.2687, 0.167], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::Winograd6, vectors: Vectors { lanes: 8, sizes: [1, 1, 1], least: 1.0 },
            product: 0.02465, strided: 0.0, present: 0.0, odd: 0.0, input: 0.724, copy: 0.0, output: 1.244, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.9108, 1.131, 1.078, 1.041, 0.9162, 1.118], again: 0.607, tile: 0.0, few: [0.3699, 0.4094, 0.3963, 0.4674, 0.2577, 0.1555], few_tiles: 16 },
    ],
    lists: &[
        ListCost { group: 1, vectors: Vectors { lanes: 16, sizes: [4, 2, 1], least: 6.0 }, product: 0.3398, entry: 0.09264, list: 14.27, tile: 3132.5, input: 0.1069, copy: 4.348, strided: 21.58, output: 0.8552, far: 0.0, row: 7.729, again: 0.0 },
        ListCost { group: 2, vectors: Vectors { lanes: 16, sizes: [4, 2, 1], least: 3.0 }, product: 0.8132, entry: 0.09383, list: 40.32, tile: 2777.0, input: 0.1892, copy: 5.17, strided: 19.0, output: 1.265, far: 0.0, row: 8.853, again: 0.0 },
        ListCost { group: 4, vectors: Vectors { lanes: 16, sizes: [4, 1, 1], least: 2.0 }, product: 1.528, entry: 0.4441, list: 136.3, tile: 1959.8, input: 1.131, copy: 7.149, strided: 21.88, output: 1.647, far: 0.0007816, row: 3.576, again: 0.0 },
    ],
    linear: LinearCost { decoded: 0.1338, codes: 0.2998, float: 0.3537, lut: 0.01214, further: 0.07209, entry: 0.818, entry_further: 0.5433 },
    fft: FftCost { transform: 0.1, product: 0.2868, output: 0.0 },
};
