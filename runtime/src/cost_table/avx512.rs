//! AMD EPYC (Zen 5 core, 48 KiB L1, 1 MiB L2, AVX-512), 29 November 2026; one thread, release build.
//!
//! Written by `bench fit`; do not edit.

use super::{LinearCost, ListCost, Table, TileCost, Vectors};
use dcz_kernels::ConvAlgo;

#[rustfmt::skip]
pub(super) static TABLE: Table = Table {
    tiles: &[
        TileCost { algorithm: ConvAlgo::Gemm, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.007489, strided: 0.001194, present: 0.0, odd: 0.01822, input: 0.1596, copy: 0.0, output: 0.3813, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.1284, 0.6379, 0.8318, 0.2836, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::DirectSparse, vectors: Vectors { lanes: 16, sizes: [8, 4, 2], least: 8.0 },
            product: 0.001033, strided: 12.46, present: 0.008733, odd: 0.0, input: 0.0, copy: 1.758, output: 0.2476, far: 1.0, row: 4.999, pixel: 5.31, call: 0.0,
            weight: [0.6958, 0.6462, 0.8498, 0.951, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::BlockSparse2, vectors: Vectors { lanes: 16, sizes: [8, 4, 2], least: 8.0 },
            product: 0.0008203, strided: 12.15, present: 0.005916, odd: 0.0, input: 0.0, copy: 1.706, output: 0.3596, far: 1.0, row: 2.622, pixel: 5.385, call: 0.0,
            weight: [0.4226, 0.3907, 0.5912, 0.654, 0.0, 0.0], again: 0.0, tile: 11.8, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::BlockSparse4, vectors: Vectors { lanes: 16, sizes: [4, 1, 1], least: 2.0 },
            product: 0.0006799, strided: 11.96, present: 0.007886, odd: 0.0, input: 0.0, copy: 1.608, output: 0.3834, far: 1.0, row: 2.828, pixel: 5.823, call: 0.0,
            weight: [0.3836, 0.3683, 0.5552, 0.5955, 0.0, 0.0], again: 0.0, tile: 59.36, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Pointwise, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.004571, strided: 0.0002803, present: 0.0, odd: 0.0, input: 0.09399, copy: 0.0, output: 0.3875, far: 1.0, row: 5.461, pixel: 2.197, call: 0.0,
            weight: [0.0, 0.2587, 0.4145, 0.138, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Depthwise, vectors: Vectors { lanes: 8, sizes: [1, 1, 1], least: 1.0 },
            product: 0.03576, strided: 0.0, present: 0.0, odd: 0.0, input: 0.3147, copy: 0.0, output: 0.248, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.3188, 0.329, 0.6039, 0.8011, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Winograd2, vectors: Vectors { lanes: 4, sizes: [1, 1, 1], least: 1.0 },
            product: 0.00651, strided: 0.0, present: 0.0, odd: 0.0, input: 0.3026, copy: 0.0, output: 0.3104, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.06838, 0.1882, 0.2195, 0.2493, 0.5969, 0.5525], again: 0.1138, tile: 0.0, few: [0.2817, 0.4141, 0.4481, 0.5092, 0.1261, 0.1021], few_tiles: 16 },
        TileCost { algorithm: ConvAlgo::Winograd4, vectors: Vectors { lanes: 16, sizes: [1, 1, 1], least: 1.0 },
            product: 0.006262, strided: 0.0, present: 0.0, odd: 0.0, input: 0.2816, copy: 0.0, output: 0.3998, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.5537, 0.6319, 0.645, 0.6374, 0.7567, 0.5406], again: 0.1322, tile: 0.0, few: [0.2632, 0.3429, 0.3406, 0.3859, 0.137, 0.08967], few_tiles: 16 },
        TileCost { algorithm: ConvAlgo::Winograd6, vectors: Vectors { lanes: 4, sizes: [1, 1, 1], least: 1.0 },
            product: 0.008766, strided: 0.0, present: 0.0, odd: 0.0, input: 0.1778, copy: 0.0, output: 0.6298, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.5327, 0.5549, 0.5424, 0.6396, 0.7907, 0.6068], again: 0.05234, tile: 0.0, few: [0.2396, 0.2818, 0.2884, 0.3195, 0.1271, 0.07963], few_tiles: 16 },
    ],
    lists: &[
        ListCost { group: 1, vectors: Vectors { lanes: 16, sizes: [4, 2, 1], least: 3.0 }, product: 0.1737, entry: 0.3146, list: 5.838, tile: 952.4, input: 0.0, copy: 2.241, strided: 12.27, output: 0.2387, row: 3.701 },
        ListCost { group: 2, vectors: Vectors { lanes: 16, sizes: [4, 2, 1], least: 3.0 }, product: 0.2331, entry: 0.602, list: 7.092, tile: 945.3, input: 0.0, copy: 2.408, strided: 11.61, output: 0.3605, row: 2.577 },
        ListCost { group: 4, vectors: Vectors { lanes: 16, sizes: [2, 1, 1], least: 3.0 }, product: 0.3383, entry: 0.9092, list: 14.94, tile: 927.0, input: 0.0, copy: 2.259, strided: 11.47, output: 0.3746, row: 2.663 },
    ],
    linear: LinearCost { decoded: 0.07698, codes: 0.1159, float: 0.1523, lut: 0.0007544, further: 0.05616, entry: 0.2432, entry_further: 0.2074 },
    fft_operation: 0.08986,
};
