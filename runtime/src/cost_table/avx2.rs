//! Intel Xeon (Granite Rapids core, 48 KiB L1, 2 MiB L2, AVX2), 29 November 2026; one thread, release build.
//!
//! Written by `bench fit`; do not edit.

use super::{FftCost, LinearCost, ListCost, Table, TileCost, Vectors};
use dcz_kernels::ConvAlgo;

#[rustfmt::skip]
pub(super) static TABLE: Table = Table {
    tiles: &[
        TileCost { algorithm: ConvAlgo::Gemm, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.02083, strided: 0.00114, present: 0.0, odd: 0.0008181, input: 0.1693, copy: 0.0, output: 0.03249, far: 1.0, row: 6.76, pixel: 1.802, call: 1.709,
            weight: [0.0243, 0.3165, 0.3385, 0.1519, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::DirectSparse, vectors: Vectors { lanes: 16, sizes: [6, 4, 2], least: 4.0 },
            product: 0.002545, strided: 11.05, present: 0.02115, odd: 0.0, input: 0.1539, copy: 3.155, output: 0.1627, far: 1.0, row: 6.263, pixel: 3.542, call: 0.5276,
            weight: [1.049, 0.9462, 1.069, 1.322, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::BlockSparse2, vectors: Vectors { lanes: 16, sizes: [6, 4, 2], least: 4.0 },
            product: 0.002621, strided: 10.88, present: 0.01965, odd: 0.0, input: 0.2315, copy: 3.108, output: 0.2404, far: 1.0, row: 4.508, pixel: 4.229, call: 0.2969,
            weight: [0.3606, 0.4096, 0.4891, 0.7242, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::BlockSparse4, vectors: Vectors { lanes: 16, sizes: [4, 2, 1], least: 6.0 },
            product: 0.002436, strided: 10.73, present: 0.01335, odd: 0.0, input: 0.2064, copy: 3.124, output: 0.4143, far: 1.0, row: 3.834, pixel: 5.834, call: 0.0,
            weight: [0.1702, 0.1645, 0.2516, 0.532, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Pointwise, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.01842, strided: 0.0, present: 0.0, odd: 0.0, input: 0.09699, copy: 0.0, output: 0.2858, far: 1.0, row: 5.431, pixel: 0.0001612, call: 0.0,
            weight: [0.0, 0.03914, 0.04605, 0.06784, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Depthwise, vectors: Vectors { lanes: 16, sizes: [1, 1, 1], least: 1.0 },
            product: 0.03688, strided: 0.0004096, present: 0.0, odd: 0.0, input: 0.1873, copy: 0.0, output: 0.09955, far: 1.0, row: 2.146, pixel: 0.0, call: 0.0,
            weight: [0.0, 0.07369, 0.09119, 0.3834, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Direct, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.02368, strided: 0.01709, present: 0.0, odd: 0.02192, input: 0.0, copy: 0.0, output: 0.6022, far: 1.0, row: 3.572, pixel: 0.4501, call: 0.0,
            weight: [1.581, 0.0, 0.0, 2.028, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Im2col, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.02356, strided: 0.002092, present: 0.0, odd: 0.0, input: 1.094, copy: 0.0, output: 0.05189, far: 1.0, row: 0.0, pixel: 3.715, call: 0.0,
            weight: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Im2row, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.01295, strided: 0.0, present: 0.0, odd: 0.07161, input: 2.095, copy: 0.0, output: 0.0, far: 1.0, row: 0.0, pixel: 20.1, call: 0.0,
            weight: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Kn2row, vectors: Vectors { lanes: 8, sizes: [1, 1, 1], least: 1.0 },
            product: 0.01998, strided: 0.0, present: 0.0, odd: 0.0, input: 0.4806, copy: 0.0, output: 0.2254, far: 1.0, row: 0.0, pixel: 0.0, call: 1.122,
            weight: [0.3427, 0.0, 0.0, 0.0, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Kn2col, vectors: Vectors { lanes: 8, sizes: [1, 1, 1], least: 1.0 },
            product: 0.01838, strided: 0.0, present: 0.0, odd: 0.005069, input: 0.424, copy: 0.0, output: 0.3451, far: 1.0, row: 0.0, pixel: 0.0, call: 2.083,
            weight: [0.333, 0.0, 0.0, 0.0, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Winograd2, vectors: Vectors { lanes: 16, sizes: [1, 1, 1], least: 1.0 },
            product: 0.01738, strided: 0.0, present: 0.0, odd: 0.0, input: 0.4261, copy: 0.0, output: 0.402, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.294, 0.3956, 0.4371, 0.5399, 0.4764, 0.3469], again: 0.2493, tile: 0.0, few: [0.28, 0.4175, 0.4312, 0.5591, 0.3435, 0.2005], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::Winograd4, vectors: Vectors { lanes: 8, sizes: [1, 1, 1], least: 1.0 },
            product: 0.02079, strided: 0.0, present: 0.0, odd: 0.0, input: 0.4729, copy: 0.0, output: 0.5021, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.2448, 0.3162, 0.3302, 0.3745, 0.4442, 0.2932], again: 0.2678, tile: 0.0, few: [0.2772, 0.3311, 0.3523, 0.3714, 0.3267, 0.182], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::Winograd6, vectors: Vectors { lanes: 8, sizes: [1, 1, 1], least: 1.0 },
            product: 0.02706, strided: 0.0, present: 0.0, odd: 0.0, input: 0.3173, copy: 0.0, output: 0.6207, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [1.014, 3.305, 2.936, 3.247, 0.8391, 0.5371], again: 0.2973, tile: 0.0, few: [0.4391, 0.4534, 0.4443, 0.4787, 0.366, 0.2449], few_tiles: 16 },
    ],
    lists: &[
        ListCost { group: 1, vectors: Vectors { lanes: 16, sizes: [6, 4, 2], least: 3.0 }, product: 0.3709, entry: 0.1484, list: 10.57, tile: 588.4, input: 0.03943, copy: 4.072, strided: 10.56, output: 0.2448, far: 0.6349, row: 1.374, again: 0.0 },
        ListCost { group: 2, vectors: Vectors { lanes: 16, sizes: [2, 1, 1], least: 3.0 }, product: 0.4969, entry: 0.451, list: 19.76, tile: 716.0, input: 0.07491, copy: 3.763, strided: 11.54, output: 0.3093, far: 0.2203, row: 0.9258, again: 0.003781 },
        ListCost { group: 4, vectors: Vectors { lanes: 16, sizes: [2, 1, 1], least: 2.0 }, product: 1.483, entry: 0.9286, list: 45.22, tile: 847.8, input: 0.01594, copy: 4.002, strided: 9.815, output: 0.5206, far: 0.1539, row: 1.546, again: 0.0 },
    ],
    linear: LinearCost { decoded: 0.07233, codes: 0.09396, float: 0.1741, lut: 0.05161, further: 0.04989, entry: 0.4009, entry_further: 0.3093 },
    fft: FftCost { transform: 0.06598, product: 0.2462, output: 0.0 },
};
