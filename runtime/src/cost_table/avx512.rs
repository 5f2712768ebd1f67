//! Intel Xeon (Granite Rapids core, 48 KiB L1, 2 MiB L2, AVX-512), 29 November 2026; one thread, release build.
//!
//! Written by `bench fit`; do not edit.

use super::{FftCost, LinearCost, ListCost, Table, TileCost, Vectors};
use dcz_kernels::ConvAlgo;

#[rustfmt::skip]
pub(super) static TABLE: Table = Table {
    tiles: &[
        TileCost { algorithm: ConvAlgo::Gemm, vectors: Vectors { lanes: 8, sizes: [1, 1, 1], least: 1.0 },
            product: 0.01078, strided: 0.001965, present: 0.0, odd: 0.01129, input: 0.32, copy: 0.0, output: 0.1616, far: 1.0, row: 0.4949, pixel: 0.0, call: 0.8075,
            weight: [0.0, 0.2063, 0.3438, 0.2379, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::DirectSparse, vectors: Vectors { lanes: 16, sizes: [8, 4, 2], least: 8.0 },
            product: 0.001687, strided: 13.97, present: 0.01236, odd: 0.0, input: 0.01319, copy: 3.543, output: 0.06215, far: 1.0, row: 12.65, pixel: 4.163, call: 0.0,
            weight: [0.3913, 0.1622, 0.274, 0.5398, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::BlockSparse2, vectors: Vectors { lanes: 16, sizes: [8, 4, 2], least: 8.0 },
            product: 0.001762, strided: 14.41, present: 0.009551, odd: 0.0, input: 0.04583, copy: 3.1, output: 0.08672, far: 1.0, row: 9.523, pixel: 4.006, call: 0.3234,
            weight: [0.0, 0.0, 0.01363, 0.2124, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::BlockSparse4, vectors: Vectors { lanes: 16, sizes: [4, 1, 1], least: 2.0 },
            product: 0.001991, strided: 14.66, present: 0.01082, odd: 0.0, input: 0.05637, copy: 3.2, output: 0.09067, far: 1.0, row: 8.813, pixel: 4.22, call: 0.0,
            weight: [0.0, 0.0, 0.06553, 0.1986, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Pointwise, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.009703, strided: 0.0, present: 0.0, odd: 0.0, input: 0.1165, copy: 0.0, output: 0.1036, far: 1.0, row: 5.559, pixel: 2.206, call: 0.0,
            weight: [0.0, 0.0, 0.05129, 0.2108, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Depthwise, vectors: Vectors { lanes: 8, sizes: [1, 1, 1], least: 1.0 },
            product: 0.0381, strided: 0.04245, present: 0.0, odd: 0.0, input: 0.0, copy: 0.0, output: 0.0, far: 1.0, row: 7.363, pixel: 0.0, call: 0.0,
            weight: [0.3623, 0.475, 0.5184, 0.6977, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Direct, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.02202, strided: 0.01643, present: 0.0, odd: 0.02217, input: 0.0, copy: 0.0, output: 0.5089, far: 1.0, row: 6.472, pixel: 0.4726, call: 0.0,
            weight: [1.445, 0.0, 0.0, 1.843, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Im2col, vectors: Vectors { lanes: 16, sizes: [1, 1, 1], least: 1.0 },
            product: 0.01181, strided: 0.001111, present: 0.0, odd: 0.0, input: 1.232, copy: 0.0, output: 0.0, far: 1.0, row: 0.0, pixel: 0.1536, call: 0.0,
            weight: [0.2213, 0.0, 0.0, 0.0, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Im2row, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.0, strided: 0.0, present: 0.0, odd: 0.06981, input: 2.137, copy: 0.0, output: 0.0, far: 1.0, row: 0.0, pixel: 22.31, call: 0.0,
            weight: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Kn2row, vectors: Vectors { lanes: 16, sizes: [1, 1, 1], least: 1.0 },
            product: 0.01375, strided: 0.0, present: 0.0, odd: 0.0002956, input: 0.4541, copy: 0.0, output: 0.09331, far: 1.0, row: 4.781, pixel: 0.0, call: 1.292,
            weight: [0.3513, 0.0, 0.0, 0.0, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Kn2col, vectors: Vectors { lanes: 8, sizes: [1, 1, 1], least: 1.0 },
            product: 0.009078, strided: 0.0, present: 0.0, odd: 0.01948, input: 0.403, copy: 0.0, output: 0.4838, far: 1.0, row: 0.0, pixel: 0.0, call: 3.42,
            weight: [0.2513, 0.0, 0.0, 0.0, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Winograd2, vectors: Vectors { lanes: 16, sizes: [1, 1, 1], least: 1.0 },
            product: 0.007608, strided: 0.0, present: 0.0, odd: 0.0, input: 0.4256, copy: 0.0, output: 0.3946, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.268, 0.3094, 0.3309, 0.6132, 0.4127, 0.2476], again: 0.2507, tile: 0.0, few: [0.3883, 0.4306, 0.4338, 0.7819, 0.2448, 0.1381], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::Winograd4, vectors: Vectors { lanes: 16, sizes: [1, 1, 1], least: 1.0 },
            product: 0.00966, strided: 0.0, present: 0.0, odd: 0.0, input: 0.5134, copy: 0.0, output: 0.4359, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.2893, 0.2804, 0.2395, 0.3475, 0.3704, 0.268], again: 0.4387, tile: 0.0, few: [0.3788, 0.3642, 0.3641, 0.4968, 0.2931, 0.1577], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::Winograd6, vectors: Vectors { lanes: 16, sizes: [1, 1, 1], least: 1.0 },
            product: 0.01211, strided: 0.0, present: 0.0, odd: 0.0, input: 0.477, copy: 0.0, output: 0.543, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [1.033, 0.7873, 0.8219, 0.8945, 0.6488, 0.729], again: 0.6133, tile: 0.0, few: [0.5377, 0.4969, 0.5148, 0.5462, 0.3656, 0.2227], few_tiles: 16 },
    ],
    lists: &[
        ListCost { group: 1, vectors: Vectors { lanes: 16, sizes: [4, 1, 1], least: 3.0 }, product: 0.2362, entry: 0.1791, list: 10.49, tile: 569.9, input: 0.0, copy: 3.713, strided: 14.09, output: 0.1888, far: 0.6539, row: 2.611, again: 0.01056 },
        ListCost { group: 2, vectors: Vectors { lanes: 16, sizes: [4, 1, 1], least: 2.0 }, product: 0.3822, entry: 0.3555, list: 9.021, tile: 499.6, input: 0.0, copy: 4.297, strided: 14.1, output: 0.2113, far: 0.7109, row: 3.048, again: 0.04554 },
        ListCost { group: 4, vectors: Vectors { lanes: 16, sizes: [4, 1, 1], least: 2.0 }, product: 0.6541, entry: 0.8279, list: 7.123, tile: 492.8, input: 0.0, copy: 4.252, strided: 14.5, output: 0.2181, far: 0.6814, row: 3.862, again: 0.04929 },
    ],
    linear: LinearCost { decoded: 0.07559, codes: 0.08351, float: 0.1591, lut: 0.04243, further: 0.0389, entry: 0.3576, entry_further: 0.3003 },
    fft: FftCost { transform: 0.06566, product: 0.2588, output: 0.0 },
};
