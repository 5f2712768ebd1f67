//! Tiles: the fast decoder against the slow one, on good, broken and hostile bytes.
#![allow(clippy::unwrap_used)]
#[path = "slow/codec.rs"]
#[allow(dead_code)]
mod slow;

use dcz_format::codec::{
    BuildSpace, CodeLengths, CodecError, CodecScratch, DecodeTable, LayerHistogram, TileCoding,
    TileEncoding, TileStats, decode_tile, encode_tile, gap_histogram,
};
use proptest::prelude::*;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Codes and mask of a tile; `zeros` is the share of absent weights, `spread` the scale of the codes.
#[derive(Clone, Debug)]
struct Plain {
    panels: usize,
    k_len: usize,
    fill: u8,
    codes: Vec<u8>,
    mask: Vec<u8>,
}

fn plain(panels: usize, k_len: usize, zeros: f64, spread: f64, fill: u8, seed: u64) -> Plain {
    let mut random = Random(seed);
    let rows = panels * k_len;
    let (mut codes, mut mask) = (vec![fill; rows * 8], vec![0u8; rows]);
    for (i, code) in codes.iter_mut().enumerate() {
        if random.unit() >= zeros {
            let size = 1.0 - spread * (1.0 - random.unit()).ln();
            let q = if random.next() & 1 == 0 { size } else { -size } as i64;
            let drawn = (q.clamp(-127, 127) as u8).wrapping_add(fill);
            *code = if drawn == fill {
                fill.wrapping_add(1)
            } else {
                drawn
            };
            mask[i / 8] |= 1 << (i % 8);
        }
    }
    Plain {
        panels,
        k_len,
        fill,
        codes,
        mask,
    }
}

/// A coded tile with what is needed to decode it both ways.
#[derive(Clone, Debug)]
struct Coded {
    mode: &'static str,
    bits: u8,
    index: Option<CodeLengths>,
    values: CodeLengths,
    width: u8,
    stats: TileStats,
    bytes: Vec<u8>,
}

const MODES: [&str; 4] = ["dense", "raw mask", "coded mask", "gaps"];

fn encode(plain: &Plain, mode: &'static str, bits: u8, width: u8) -> Coded {
    let mut histogram = LayerHistogram::new();
    histogram.add_tile(&plain.codes, &plain.mask);
    let cost = match mode {
        "dense" => histogram.dense(width),
        "gaps" => histogram.gaps(bits, plain.fill, width),
        _ => histogram.mask(mode == "coded mask", width),
    };
    let encoding = match mode {
        "dense" => TileEncoding::Dense {
            values: &cost.values,
        },
        "gaps" => TileEncoding::Gaps {
            bits,
            gaps: cost.index.as_ref().unwrap(),
            values: &cost.values,
        },
        _ => TileEncoding::Mask {
            mask: cost.index.as_ref(),
            values: &cost.values,
        },
    };
    let mut bytes = vec![0xaa, 0xbb];
    let stats = encode_tile(
        &encoding,
        plain.panels,
        plain.k_len,
        &plain.codes,
        &plain.mask,
        plain.fill,
        &mut bytes,
    )
    .unwrap();
    assert_eq!(stats.bytes as usize, bytes.len() - 2);
    assert_eq!(
        (stats.index_bits, stats.value_bits),
        (cost.index_bits, cost.value_bits)
    );
    assert_eq!(
        (u64::from(stats.present), u64::from(stats.fillers)),
        (cost.present, cost.fillers)
    );
    let bytes = bytes.split_off(2);
    Coded {
        mode,
        bits,
        index: cost.index,
        values: cost.values,
        width,
        stats,
        bytes,
    }
}

/// Decodes with both compilations of the fast decoder and with the slow one, which must agree; what the fast one says.
fn decode(
    plain: &Plain,
    coded: &Coded,
    bytes: &[u8],
    present: u32,
) -> Result<(Vec<u8>, Vec<u8>), CodecError> {
    let mut tables = [DecodeTable::new(coded.width), DecodeTable::new(coded.width)];
    let mut space = BuildSpace::new(coded.width);
    tables[0]
        .build(&coded.values, coded.width, &mut space)
        .unwrap();
    if let Some(index) = &coded.index {
        tables[1].build(index, coded.width, &mut space).unwrap();
    }
    decode_with(plain, coded, &tables, bytes, present)
}

fn decode_with(
    plain: &Plain,
    coded: &Coded,
    tables: &[DecodeTable; 2],
    bytes: &[u8],
    present: u32,
) -> Result<(Vec<u8>, Vec<u8>), CodecError> {
    let [values, index] = tables;
    let coding = match coded.mode {
        "dense" => TileCoding::Dense { values },
        "raw mask" => TileCoding::Mask { mask: None, values },
        "coded mask" => TileCoding::Mask {
            mask: Some(index),
            values,
        },
        _ => TileCoding::Gaps {
            bits: coded.bits,
            gaps: index,
            values,
        },
    };
    let slow_table = |lengths: &'static str| match lengths {
        "values" => slow::Table {
            lengths: &coded.values.0,
            width: coded.width,
        },
        _ => slow::Table {
            lengths: &coded.index.as_ref().unwrap().0,
            width: coded.width,
        },
    };
    let slow_mode = match coded.mode {
        "dense" => slow::Mode::Dense {
            values: slow_table("values"),
        },
        "raw mask" => slow::Mode::Mask {
            mask: None,
            values: slow_table("values"),
        },
        "coded mask" => slow::Mode::Mask {
            mask: Some(slow_table("index")),
            values: slow_table("values"),
        },
        _ => slow::Mode::Gaps {
            bits: coded.bits,
            gaps: slow_table("index"),
            values: slow_table("values"),
        },
    };
    let rows = plain.panels * plain.k_len;
    let slow = slow::decode(slow_mode, rows, present as usize, plain.fill, bytes);
    let run = |mut scratch: CodecScratch| {
        let (mut codes, mut mask) = (vec![0x5a; rows * 8], vec![0xa5; rows]);
        decode_tile(
            &coding,
            plain.panels,
            plain.k_len,
            present,
            plain.fill,
            bytes,
            &mut codes,
            &mut mask,
            &mut scratch,
        )
        .map(|()| (codes, mask))
    };
    let fast = run(CodecScratch::new(rows * 8));
    let portable = run(CodecScratch::portable(rows * 8));
    assert_eq!(
        fast, portable,
        "{}: the two compilations differ",
        coded.mode
    );
    match (&fast, slow) {
        (Ok(fast), Some(slow)) => assert_eq!(
            *fast, slow,
            "{}: other output than the slow decoder",
            coded.mode
        ),
        (Err(error), None) => {
            assert!(!error.is_misuse(), "{error}");
            assert!(
                error.offset().is_none_or(|offset| offset <= bytes.len()),
                "{error}"
            );
        }
        (fast, slow) => panic!(
            "{}: fast {fast:?}, slow accepts: {}",
            coded.mode,
            slow.is_some()
        ),
    }
    fast
}

fn check_round_trip(plain: &Plain, mode: &'static str, bits: u8, width: u8) {
    let coded = encode(plain, mode, bits, width);
    let (codes, mask) = decode(plain, &coded, &coded.bytes, coded.stats.present).unwrap();
    assert_eq!(codes, plain.codes);
    if mode == "dense" {
        assert!(mask.iter().all(|byte| *byte == 0xff));
    } else {
        assert_eq!(mask, plain.mask);
    }
}

#[test]
fn smallest_tile() {
    let plain = Plain {
        panels: 1,
        k_len: 1,
        fill: 0,
        codes: vec![0, 1, 0, 2, 0, 0, 0, 0],
        mask: vec![0b1010],
    };
    let dense = encode(&plain, "dense", 0, 11);
    // Codes 0, 10, 11; quarters 01, 02, 00, 00: bits 010, 011, 00, 00.
    assert_eq!(dense.bytes, [1, 0, 1, 0, 1, 0, 1, 0, 0b010, 0b110, 0, 0]);
    let mask = encode(&plain, "raw mask", 0, 11);
    // Values 1, 2 with codes 0, 1, one per sub-stream, the last two empty.
    assert_eq!(mask.bytes, [0b1010, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1]);
    for mode in MODES {
        check_round_trip(&plain, mode, 2, 11);
    }
    // Four zeros before the weight: a filler (gap 3), then gap 0.
    let plain = Plain {
        panels: 1,
        k_len: 1,
        fill: 0,
        codes: vec![0, 0, 0, 0, 5, 0, 0, 0],
        mask: vec![0b1_0000],
    };
    let gaps = encode(&plain, "gaps", 2, 11);
    assert_eq!(
        gaps.bytes,
        [1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    );
    check_round_trip(&plain, "gaps", 2, 11);
}

#[test]
fn every_mode_round_trips() {
    for (panels, k_len) in [
        (1, 1),
        (1, 2),
        (2, 1),
        (1, 9),
        (3, 25),
        (8, 27),
        (2, 300),
        (1, 8192),
        (64, 128),
    ] {
        for (zeros, spread) in [
            (0.0, 3.0),
            (0.3, 60.0),
            (0.5, 15.0),
            (0.75, 0.2),
            (0.97, 4.0),
            (0.999, 1.0),
            (1.0, 1.0),
        ] {
            for fill in [0, 3, 255] {
                let plain = plain(
                    panels,
                    k_len,
                    zeros,
                    spread,
                    fill,
                    7 + panels as u64 + k_len as u64,
                );
                for mode in MODES {
                    for width in [11, 12] {
                        check_round_trip(&plain, mode, 5, width);
                    }
                }
                for bits in 2..=8 {
                    check_round_trip(&plain, "gaps", bits, 11);
                }
            }
        }
    }
}

#[test]
fn quarters_of_different_density() {
    // One sub-stream finishes long before the others.
    let (panels, k_len) = (4, 512);
    for dense_panel in 0..4 {
        let mut all = plain(panels, k_len, 0.95, 0.1, 0, 1);
        let busy = plain(panels, k_len, 0.0, 80.0, 0, 2);
        let range = dense_panel * k_len * 8..(dense_panel + 1) * k_len * 8;
        all.codes[range.clone()].copy_from_slice(&busy.codes[range.clone()]);
        all.mask[range.start / 8..range.end / 8].fill(0xff);
        for mode in MODES {
            check_round_trip(&all, mode, 4, 12);
        }
    }
}

#[test]
fn no_weights() {
    for (panels, k_len) in [(0, 0), (0, 5), (5, 0)] {
        let plain = plain(panels, k_len, 0.5, 3.0, 0, 0);
        for mode in MODES {
            check_round_trip(&plain, mode, 5, 11);
        }
    }
}

#[test]
fn fillers() {
    // One present weight after r zeros: r / 2^n fillers.
    for run in [0usize, 2, 3, 4, 7, 8, 31, 32, 255, 256, 1000, 4095] {
        for bits in 2..=8u8 {
            let mut plain = plain(1, 512, 1.0, 1.0, 9, 0);
            plain.codes[run] = 200;
            plain.mask[run / 8] |= 1 << (run % 8);
            let coded = encode(&plain, "gaps", bits, 11);
            assert_eq!(coded.stats.fillers as usize, run >> bits);
            assert_eq!(coded.stats.present as usize, (run >> bits) + 1);
            let mut counts = [0; 256];
            assert_eq!(
                gap_histogram(&plain.mask, bits, &mut counts),
                Ok((run >> bits) as u64)
            );
            assert_eq!(counts.iter().sum::<u64>(), u64::from(coded.stats.present));
            check_round_trip(&plain, "gaps", bits, 11);
        }
    }
    assert_eq!(
        gap_histogram(&[], 9, &mut [0; 256]),
        Err(CodecError::GapBits { bits: 9 })
    );
}

#[test]
fn a_present_weight_of_value_zero_counts_as_absent_in_gaps() {
    let plain = Plain {
        panels: 1,
        k_len: 1,
        fill: 0,
        codes: vec![1, 0, 0, 2, 0, 0, 0, 0],
        mask: vec![0b1011],
    };
    let coded = encode(&plain, "gaps", 2, 11);
    let (codes, mask) = decode(&plain, &coded, &coded.bytes, 3).unwrap();
    assert_eq!((codes, mask), (plain.codes, vec![0b1001]));
}

/// Small tiles that exercise the fast loop, the tail, and both widths.
fn small_tiles() -> Vec<(Plain, Coded)> {
    let mut tiles = Vec::new();
    for (panels, k_len, zeros, spread) in [
        (1, 1, 0.5, 3.0),
        (1, 9, 0.5, 1.0),
        (2, 12, 0.6, 20.0),
        (1, 40, 0.8, 0.5),
        (1, 60, 0.4, 0.2),
        (1, 30, 1.0, 1.0),
    ] {
        for mode in MODES {
            let plain = plain(panels, k_len, zeros, spread, 2, 99);
            let coded = encode(&plain, mode, 3, if k_len % 2 == 0 { 11 } else { 12 });
            tiles.push((plain, coded));
        }
    }
    tiles
}

fn tables(coded: &Coded) -> [DecodeTable; 2] {
    let mut tables = [DecodeTable::new(coded.width), DecodeTable::new(coded.width)];
    let mut space = BuildSpace::new(coded.width);
    tables[0]
        .build(&coded.values, coded.width, &mut space)
        .unwrap();
    if let Some(index) = &coded.index {
        tables[1].build(index, coded.width, &mut space).unwrap();
    }
    tables
}

#[test]
fn every_truncation_is_refused() {
    for (plain, coded) in small_tiles() {
        let tables = tables(&coded);
        for len in 0..coded.bytes.len() {
            decode_with(
                &plain,
                &coded,
                &tables,
                &coded.bytes[..len],
                coded.stats.present,
            )
            .unwrap_err();
        }
        for extra in [0, 255] {
            let longer = [&coded.bytes[..], &[extra]].concat();
            decode_with(&plain, &coded, &tables, &longer, coded.stats.present).unwrap_err();
        }
    }
}

#[test]
fn every_value_of_every_byte() {
    for (plain, coded) in small_tiles() {
        let tables = tables(&coded);
        let mut bytes = coded.bytes.clone();
        for i in 0..bytes.len() {
            let good = bytes[i];
            let flips = (0..8).map(|bit| good ^ (1 << bit));
            let values: Vec<u8> = if i < 24 {
                (0..=255).collect()
            } else {
                flips.chain([0, 1, 127, 128, 254, 255]).collect()
            };
            for value in values {
                bytes[i] = value;
                let result = decode_with(&plain, &coded, &tables, &bytes, coded.stats.present);
                assert!(value != good || result.is_ok());
            }
            bytes[i] = good;
        }
    }
}

#[test]
fn every_stated_number_of_present_weights() {
    for (plain, coded) in small_tiles() {
        let tables = tables(&coded);
        for present in (0..=plain.codes.len() as u32 + 2).chain([u32::MAX]) {
            let result = decode_with(&plain, &coded, &tables, &coded.bytes, present);
            // In gaps a wrong number may pass: padding can read as one more code.
            if coded.mode != "gaps" || present == coded.stats.present {
                assert_eq!(
                    result.is_ok(),
                    present == coded.stats.present,
                    "{}",
                    coded.mode
                );
            }
        }
    }
}

#[test]
fn errors_are_typed_and_placed() {
    let plain = plain(1, 16, 0.5, 10.0, 0, 5);
    let dense = encode(&plain, "dense", 0, 11);
    let mask = encode(&plain, "raw mask", 0, 11);
    let gaps = encode(&plain, "gaps", 3, 11);
    let mutated = |coded: &Coded, at: usize, value: u8| {
        let mut bytes = coded.bytes.clone();
        bytes[at] = value;
        decode(&plain, coded, &bytes, coded.stats.present).unwrap_err()
    };
    let end = dense.bytes.len();
    assert_eq!(
        decode(&plain, &dense, &[], 128),
        Err(CodecError::Truncated {
            offset: 0,
            needed: 8,
            available: 0
        })
    );
    assert_eq!(
        decode(&plain, &dense, &dense.bytes[..end - 1], 128),
        Err(CodecError::Truncated {
            offset: end - usize::from(dense.bytes[6]),
            needed: usize::from(dense.bytes[6]),
            available: usize::from(dense.bytes[6]) - 1
        })
    );
    assert_eq!(
        decode(&plain, &dense, &[&dense.bytes[..], &[0]].concat(), 128),
        Err(CodecError::TrailingBytes { offset: end })
    );
    let mut longer = [&dense.bytes[..], &[0]].concat();
    longer[6] += 1;
    assert_eq!(
        decode(&plain, &dense, &longer, 128),
        Err(CodecError::SubStreamUnused { offset: end })
    );
    let mut shorter = dense.bytes.clone();
    shorter[6] -= 1;
    shorter.pop();
    assert_eq!(
        decode(&plain, &dense, &shorter, 128),
        Err(CodecError::SubStreamOverrun { offset: end - 1 })
    );
    assert_eq!(
        decode(&plain, &dense, &dense.bytes, 127),
        Err(CodecError::PresentCount {
            present: 127,
            weights: 128
        })
    );
    let present = mask.stats.present as usize;
    assert_eq!(
        mutated(&mask, 0, mask.bytes[0] ^ 1),
        CodecError::MaskCount {
            offset: 0,
            present,
            counted: if mask.bytes[0] & 1 == 1 {
                present - 1
            } else {
                present + 1
            }
        }
    );
    // A gap table that reaches beyond the width, and gaps that lead past the end.
    let narrow = Coded {
        bits: 2,
        ..gaps.clone()
    };
    assert_eq!(
        decode(&plain, &narrow, &gaps.bytes, gaps.stats.present),
        Err(CodecError::GapSymbol {
            symbol: gaps.index.unwrap().largest_symbol(),
            bits: 2
        })
    );
    for bits in [0, 1, 9, 255] {
        let odd = Coded {
            bits,
            ..gaps.clone()
        };
        assert_eq!(
            decode(&plain, &odd, &gaps.bytes, gaps.stats.present),
            Err(CodecError::GapBits { bits })
        );
    }
    let smaller = Plain {
        k_len: 15,
        codes: plain.codes[..120].to_vec(),
        mask: plain.mask[..15].to_vec(),
        ..plain.clone()
    };
    assert_eq!(
        decode(&smaller, &gaps, &gaps.bytes, gaps.stats.present),
        Err(CodecError::GapOverrun { offset: 0 })
    );
}

#[test]
fn padding_and_single_symbol_codes() {
    let plain = Plain {
        panels: 1,
        k_len: 3,
        fill: 0,
        codes: vec![7; 24],
        mask: vec![0xff; 3],
    };
    let coded = encode(&plain, "dense", 0, 12);
    assert_eq!(coded.values.single(), Some(7));
    assert_eq!(coded.bytes, [1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0]);
    for bit in 0..8 {
        let mut bytes = coded.bytes.clone();
        bytes[10] = 1 << bit;
        assert_eq!(
            decode(&plain, &coded, &bytes, 24),
            Err(CodecError::InvalidCode { offset: 10 })
        );
    }
    let mixed = Plain {
        codes: (0..24).map(|i| i % 2).collect(),
        ..plain
    };
    let coded = encode(&mixed, "dense", 0, 12);
    for (bit, error) in [
        (6, CodecError::Padding { offset: 9 }),
        (7, CodecError::Padding { offset: 9 }),
    ] {
        let mut bytes = coded.bytes.clone();
        bytes[9] |= 1 << bit;
        assert_eq!(decode(&mixed, &coded, &bytes, 24), Err(error));
    }
}

#[test]
fn misuse_is_told_apart() {
    let plain = plain(1, 16, 0.5, 10.0, 0, 5);
    let coded = encode(&plain, "gaps", 3, 11);
    let built = tables(&coded);
    let unbuilt = DecodeTable::new(11);
    let run = |values, gaps, panels, k_len, codes: usize, mask: usize, pairs| {
        decode_tile(
            &TileCoding::Gaps {
                bits: 3,
                gaps,
                values,
            },
            panels,
            k_len,
            coded.stats.present,
            0,
            &coded.bytes,
            &mut vec![0; codes],
            &mut vec![0; mask],
            &mut CodecScratch::new(pairs),
        )
    };
    assert_eq!(run(&built[0], &built[1], 1, 16, 128, 16, 128), Ok(()));
    let present = coded.stats.present as usize;
    let cases = [
        (
            run(&built[0], &built[1], 1, 16, 127, 16, 128),
            CodecError::BufferLength {
                len: 127,
                needed: 128,
            },
        ),
        (
            run(&built[0], &built[1], 1, 16, 128, 17, 128),
            CodecError::BufferLength {
                len: 17,
                needed: 16,
            },
        ),
        (
            run(&built[0], &built[1], 1, 16, 128, 16, present - 1),
            CodecError::ScratchCapacity {
                capacity: present - 1,
                needed: present,
            },
        ),
        (
            run(&unbuilt, &built[1], 1, 16, 128, 16, 128),
            CodecError::TableNotBuilt,
        ),
        (
            run(&built[0], &unbuilt, 1, 16, 128, 16, 128),
            CodecError::TableNotBuilt,
        ),
    ];
    for (result, error) in cases {
        assert_eq!(result, Err(error));
        assert!(error.is_misuse());
    }
    for (panels, k_len) in [(1, 8193), (8193, 1), (usize::MAX, 2), (1 << 61, 1)] {
        assert_eq!(
            run(&built[0], &built[1], panels, k_len, 128, 16, 128),
            Err(CodecError::TileSize { panels, k_len })
        );
    }
    let empty = Vec::new();
    let mut out = vec![1, 2, 3];
    let encoding = TileEncoding::Dense {
        values: &coded.values,
    };
    assert_eq!(
        encode_tile(&encoding, 1, 1, &empty, &empty, 0, &mut out),
        Err(CodecError::BufferLength { len: 0, needed: 8 })
    );
    let unknown = coded
        .values
        .0
        .iter()
        .position(|length| *length == 0)
        .unwrap() as u8;
    assert_eq!(
        encode_tile(&encoding, 1, 1, &[unknown; 8], &[0], 0, &mut out),
        Err(CodecError::MissingCode { symbol: unknown })
    );
    assert_eq!(out, [1, 2, 3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_tiles(
        panels in 1usize..6, k_len in 1usize..70, zeros in 0.0f64..1.0, spread in 0.05f64..60.0, fill: u8, seed: u64,
        bits in 2u8..=8, width in 11u8..=12,
    ) {
        let plain = plain(panels, k_len, zeros, spread, fill, seed);
        for mode in MODES {
            check_round_trip(&plain, mode, bits, width);
        }
    }

    #[test]
    fn mutated_tiles(
        panels in 1usize..4, k_len in 1usize..60, zeros in 0.0f64..1.0, spread in 0.05f64..60.0, seed: u64,
        bits in 2u8..=8, width in 11u8..=12, mode in 0usize..4,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let plain = plain(panels, k_len, zeros, spread, 0, seed);
        let mut coded = encode(&plain, MODES[mode], bits, width);
        for (at, value) in edits {
            let at = at.index(coded.bytes.len());
            coded.bytes[at] = value;
        }
        let _ = decode(&plain, &coded, &coded.bytes, coded.stats.present);
    }

    /// Random bits behind a plausible header: the fast loop sees garbage, and now and then all of it is valid.
    #[test]
    fn random_streams(
        rows in 1usize..40, symbols in 1usize..256, seed: u64, width in 11u8..=12,
        lengths in proptest::array::uniform4(0u8..80), mode in 0usize..4,
    ) {
        let mut random = Random(seed);
        let mut counts = [0u64; 256];
        for _ in 0..symbols {
            counts[(random.next() % 256) as usize] = 1 << (random.next() % 16);
        }
        let values = CodeLengths::from_counts(&counts, width);
        let plain = Plain { panels: 1, k_len: rows, fill: 0, codes: vec![], mask: vec![] };
        let mut bytes = Vec::new();
        for _ in 0..2 {
            bytes.extend(lengths.iter().flat_map(|length| [*length, 0]));
            let len: usize = lengths.iter().map(|length| usize::from(*length)).sum();
            bytes.extend((0..len).map(|_| random.next() as u8));
        }
        let coded = Coded {
            mode: MODES[mode], bits: 8, index: Some(values), values, width, stats: TileStats::default(), bytes,
        };
        let present = if mode == 0 { rows * 8 } else { (random.next() % (rows as u64 * 8 + 1)) as usize };
        let _ = decode(&plain, &coded, &coded.bytes, present as u32);
    }
}
