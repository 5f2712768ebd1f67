//! AMD EPYC, Zen 5 (48 KiB L1, 1 MiB L2, AVX-512), 30 November 2026; one thread, release build.
//!
//! Written by `bench fit`; do not edit. Linear layers are of a Zen 4 of the same day, put in by hand
//! after their kernel fetched weights ahead: those in memory as the contest network and SFace take them within a run, where other layers'
//! weights have pushed them out of the caches, the others by `bench conv --fit --case linear`. On Zen 5 an entry had cost 0.26 and a code 0.11.

use super::{FftCost, LinearCost, ListCost, Table, TileCost, Vectors};
use dcz_kernels::ConvAlgo;

#[rustfmt::skip]
pub(super) static TABLE: Table = Table {
    tiles: &[
        TileCost { algorithm: ConvAlgo::Gemm, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.007708, strided: 0.0001867, present: 0.0, odd: 0.000542, input: 0.1976, copy: 0.0, output: 0.102, far: 1.0, row: 0.0, pixel: 0.0, call: 2.053,
            weight: [0.1217, 0.2643, 0.2873, 0.2737, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::DirectSparse, vectors: Vectors { lanes: 16, sizes: [12, 8, 4], least: 6.0 },
            product: 0.001575, strided: 11.75, present: 0.009724, odd: 0.0, input: 0.2339, copy: 1.74, output: 0.08542, far: 1.0, row: 2.497, pixel: 2.34, call: 0.0,
            weight: [0.5677, 0.5277, 0.706, 0.7525, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::BlockSparse2, vectors: Vectors { lanes: 16, sizes: [8, 4, 2], least: 6.0 },
            product: 0.001137, strided: 11.76, present: 0.006491, odd: 0.0, input: 0.2478, copy: 1.664, output: 0.08745, far: 1.0, row: 2.843, pixel: 2.682, call: 0.0,
            weight: [0.1812, 0.1561, 0.3373, 0.3718, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::BlockSparse4, vectors: Vectors { lanes: 16, sizes: [4, 1, 1], least: 2.0 },
            product: 0.001214, strided: 11.49, present: 0.007382, odd: 0.0, input: 0.2614, copy: 1.664, output: 0.08965, far: 1.0, row: 2.219, pixel: 2.953, call: 0.0,
            weight: [0.1234, 0.1166, 0.2857, 0.296, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Pointwise, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.005766, strided: 0.0, present: 0.0, odd: 0.0, input: 0.06966, copy: 0.0, output: 0.2279, far: 1.0, row: 3.001, pixel: 0.4329, call: 0.0,
            weight: [0.0343, 0.1141, 0.1029, 0.1759, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Depthwise, vectors: Vectors { lanes: 16, sizes: [1, 1, 1], least: 1.0 },
            product: 0.02676, strided: 0.04157, present: 0.0, odd: 0.0, input: 0.003648, copy: 0.0, output: 0.0, far: 1.0, row: 0.0, pixel: 7.28, call: 0.0,
            weight: [0.3614, 0.3558, 0.5452, 0.8146, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Direct, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.01723, strided: 0.01065, present: 0.0, odd: 0.0175, input: 0.0, copy: 0.0, output: 0.4213, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [1.418, 1.433, 1.598, 1.602, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Im2col, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.002635, strided: 0.0006134, present: 0.0, odd: 0.01461, input: 0.7741, copy: 0.0, output: 0.03868, far: 1.0, row: 0.0, pixel: 4.981, call: 0.0,
            weight: [0.5824, 0.5906, 0.7569, 0.7346, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Im2row, vectors: Vectors { lanes: 1, sizes: [1, 1, 1], least: 1.0 },
            product: 0.0, strided: 0.0001042, present: 0.0, odd: 0.04548, input: 0.914, copy: 0.0, output: 0.09858, far: 1.0, row: 0.0, pixel: 7.286, call: 0.0,
            weight: [0.1217, 0.2643, 0.2873, 0.2737, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Kn2row, vectors: Vectors { lanes: 16, sizes: [1, 1, 1], least: 1.0 },
            product: 0.006357, strided: 0.0, present: 0.0, odd: 0.0, input: 0.3079, copy: 0.0, output: 0.1606, far: 1.0, row: 0.0, pixel: 0.0, call: 0.4331,
            weight: [0.4976, 0.491, 0.662, 1.054, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Kn2col, vectors: Vectors { lanes: 16, sizes: [1, 1, 1], least: 1.0 },
            product: 0.006435, strided: 0.0, present: 0.0, odd: 0.00708, input: 0.2394, copy: 0.0, output: 0.2263, far: 1.0, row: 0.0, pixel: 0.0, call: 2.939,
            weight: [0.1217, 0.2643, 0.2873, 0.5126, 0.0, 0.0], again: 0.0, tile: 0.0, few: [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], few_tiles: 0 },
        TileCost { algorithm: ConvAlgo::Winograd2, vectors: Vectors { lanes: 16, sizes: [1, 1, 1], least: 1.0 },
            product: 0.005303, strided: 0.0, present: 0.0, odd: 0.0, input: 0.2825, copy: 0.0, output: 0.2404, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.0, 0.0, 0.0, 0.2525, 0.5263, 0.4621], again: 0.1097, tile: 0.0, few: [0.2189, 0.2263, 0.2249, 0.4556, 0.1209, 0.08579], few_tiles: 16 },
        TileCost { algorithm: ConvAlgo::Winograd4, vectors: Vectors { lanes: 16, sizes: [1, 1, 1], least: 1.0 },
            product: 0.007036, strided: 0.0, present: 0.0, odd: 0.0, input: 0.2281, copy: 0.0, output: 0.2879, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.1134, 0.1255, 0.126, 0.2593, 0.0812, 0.08698], again: 0.3077, tile: 0.0, few: [0.2238, 0.2304, 0.2305, 0.356, 0.1138, 0.05995], few_tiles: 4 },
        TileCost { algorithm: ConvAlgo::Winograd6, vectors: Vectors { lanes: 4, sizes: [1, 1, 1], least: 1.0 },
            product: 0.01102, strided: 0.0, present: 0.0, odd: 0.0, input: 0.2197, copy: 0.0, output: 0.3395, far: 1.0, row: 0.0, pixel: 0.0, call: 0.0,
            weight: [0.1281, 0.1451, 0.1445, 0.191, 0.06251, 0.05892], again: 0.2951, tile: 0.0, few: [0.229, 0.2481, 0.2523, 0.2829, 0.08968, 0.03992], few_tiles: 4 },
    ],
    lists: &[
        ListCost { group: 1, vectors: Vectors { lanes: 16, sizes: [4, 1, 1], least: 6.0 }, product: 0.1107, entry: 0.2038, list: 5.924, tile: 337.2, input: 0.1113, copy: 2.281, strided: 11.48, output: 0.1182, far: 0.1744, row: 1.324, again: 0.0 },
        ListCost { group: 2, vectors: Vectors { lanes: 16, sizes: [4, 1, 1], least: 3.0 }, product: 0.2292, entry: 0.4109, list: 6.904, tile: 325.2, input: 0.1086, copy: 2.535, strided: 11.18, output: 0.1444, far: 0.2072, row: 1.088, again: 0.01394 },
        ListCost { group: 4, vectors: Vectors { lanes: 16, sizes: [4, 1, 1], least: 2.0 }, product: 0.4663, entry: 0.7879, list: 6.249, tile: 373.6, input: 0.06486, copy: 2.633, strided: 10.72, output: 0.1529, far: 0.185, row: 1.188, again: 0.0123 },
    ],
    linear: LinearCost { decoded: 0.105, codes: 0.118, float: 0.27, lut: 0.0, further: 0.115, entry: 0.58, entry_further: 0.39 },
    fft: FftCost { transform: 0.0401, product: 0.07742, output: 2.212 },
};
