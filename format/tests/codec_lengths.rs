//! Code lengths: optimality, canonical codes, stored form, decode tables.
#![allow(clippy::unwrap_used)]
#[path = "slow/codec.rs"]
#[allow(dead_code)]
mod slow;

use dcz_format::codec::{BuildSpace, CodeLengths, CodecError, DecodeTable};
use proptest::prelude::*;

fn lengths_of(pairs: &[(u8, u8)]) -> CodeLengths {
    let mut lengths = [0; 256];
    for &(symbol, length) in pairs {
        lengths[usize::from(symbol)] = length;
    }
    CodeLengths(lengths)
}

fn counts_of(pairs: &[(u8, u64)]) -> [u64; 256] {
    let mut counts = [0; 256];
    for &(symbol, count) in pairs {
        counts[usize::from(symbol)] = count;
    }
    counts
}

/// Unlimited Huffman cost: merge the two lightest until one is left.
fn huffman_cost(counts: &[u64; 256]) -> u64 {
    let mut heap: Vec<u64> = counts.iter().copied().filter(|c| *c > 0).collect();
    let mut cost = 0;
    while heap.len() > 1 {
        heap.sort_unstable_by(|a, b| b.cmp(a));
        let merged = heap.pop().unwrap() + heap.pop().unwrap();
        cost += merged;
        heap.push(merged);
    }
    cost
}

/// Optimal cost under a limit by exhaustive search over the number of codes of each length (few symbols only).
fn limited_cost(counts: &[u64], limit: u32) -> u64 {
    fn search(sorted: &[u64], length: u32, free: u64, limit: u32) -> Option<u64> {
        if sorted.is_empty() {
            return Some(0);
        }
        if length > limit {
            return None;
        }
        (0..=free.min(sorted.len() as u64))
            .filter_map(|take| {
                let (now, later) = sorted.split_at(take as usize);
                let cost: u64 = now.iter().sum::<u64>() * u64::from(length);
                search(later, length + 1, (free - take) * 2, limit).map(|rest| rest + cost)
            })
            .min()
    }
    let mut sorted = counts.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    search(&sorted, 1, 2, limit).unwrap()
}

#[test]
fn golden_vector_of_the_seed() {
    let code = CodeLengths::from_counts(&counts_of(&[(0, 5), (1, 1), (2, 1)]), 12);
    assert_eq!(code, lengths_of(&[(0, 1), (1, 2), (2, 2)]));
    assert_eq!(
        [code.code(0), code.code(1), code.code(2), code.code(3)],
        [(0b0, 1), (0b10, 2), (0b11, 2), (0, 0)]
    );
    let mut bytes = Vec::new();
    assert_eq!(
        code.write_symbols(&[0, 1, 0, 2, 0, 0, 0], &mut bytes)
            .unwrap(),
        9
    );
    let bits: String = (0..9)
        .map(|i| {
            if bytes[i / 8] >> (i % 8) & 1 == 1 {
                '1'
            } else {
                '0'
            }
        })
        .collect();
    assert_eq!(bits, "010011000");
    assert_eq!(bytes, [0x32, 0x00]);
}

#[test]
fn codes_match_the_slow_rule() {
    let counts: [u64; 256] = std::array::from_fn(|i| {
        if i % 3 == 0 {
            (i as u64 * i as u64) % 911
        } else {
            0
        }
    });
    let code = CodeLengths::from_counts(&counts, 12);
    let slow = slow::canonical(&code.0, 12).unwrap();
    assert_eq!(slow.len(), counts.iter().filter(|c| **c > 0).count());
    for (length, bits, symbol) in slow {
        assert_eq!(code.code(symbol), (bits as u16, length));
    }
}

#[test]
fn degenerate_counts() {
    assert_eq!(
        CodeLengths::from_counts(&[0; 256], 12),
        lengths_of(&[(0, 1)])
    );
    assert_eq!(
        CodeLengths::from_counts(&counts_of(&[(77, 9)]), 12),
        lengths_of(&[(77, 1)])
    );
    assert_eq!(
        CodeLengths::from_counts(&counts_of(&[(0, 1), (255, u64::MAX)]), 12),
        lengths_of(&[(0, 1), (255, 1)])
    );
    let all_equal = CodeLengths::from_counts(&[u64::MAX; 256], 3);
    assert!(all_equal.0.iter().all(|length| *length == 8));
}

#[test]
fn fibonacci_counts_are_limited() {
    let mut counts = [0u64; 256];
    let (mut a, mut b) = (1, 1);
    for count in counts.iter_mut().take(40) {
        *count = a;
        (a, b) = (b, a + b);
    }
    for limit in [8, 11, 12] {
        let code = CodeLengths::from_counts(&counts, limit);
        code.validate().unwrap();
        assert!(code.longest() <= limit);
        assert!(code.payload_bits(&counts) >= huffman_cost(&counts));
    }
    assert_eq!(limited_cost(&counts[..14], 8), {
        let mut few = [0; 256];
        few[..14].copy_from_slice(&counts[..14]);
        CodeLengths::from_counts(&few, 8).payload_bits(&few)
    });
}

#[test]
fn payload_of_a_symbol_without_code() {
    let code = lengths_of(&[(0, 1), (1, 1)]);
    assert_eq!(code.payload_bits(&counts_of(&[(0, 3), (1, 4)])), 7);
    assert_eq!(code.payload_bits(&counts_of(&[(0, 3), (2, 1)])), u64::MAX);
    let mut out = vec![9];
    assert_eq!(
        code.write_symbols(&[0, 1, 2], &mut out),
        Err(CodecError::MissingCode { symbol: 2 })
    );
    assert_eq!(out, [9]);
}

#[test]
fn invalid_lengths() {
    assert_eq!(lengths_of(&[]).validate(), Err(CodecError::TableIncomplete));
    assert_eq!(
        lengths_of(&[(5, 2)]).validate(),
        Err(CodecError::TableIncomplete)
    );
    assert_eq!(
        lengths_of(&[(5, 1), (6, 2)]).validate(),
        Err(CodecError::TableIncomplete)
    );
    assert_eq!(
        lengths_of(&[(5, 1), (6, 1), (7, 1)]).validate(),
        Err(CodecError::TableIncomplete)
    );
    assert_eq!(
        lengths_of(&[(5, 13), (6, 1)]).validate(),
        Err(CodecError::TableLength { symbol: 5 })
    );
    lengths_of(&[(5, 1)]).validate().unwrap();
}

#[test]
fn table_builds_and_refuses() {
    let long = {
        let counts: [u64; 256] = std::array::from_fn(|i| if i < 20 { 1 << i } else { 0 });
        CodeLengths::from_counts(&counts, 12)
    };
    assert_eq!(long.longest(), 12);
    let mut table = DecodeTable::new(11);
    let mut space = BuildSpace::new(12);
    assert_eq!((table.bytes(), space.bytes()), (8 << 11, 8 << 12));
    assert!(table.lengths().is_none());
    assert_eq!(
        table.build(&long, 11, &mut space),
        Err(CodecError::TableWidth {
            width: 11,
            longest: 12
        })
    );
    assert_eq!(
        table.build(&long, 12, &mut space),
        Err(CodecError::TableCapacity {
            width: 12,
            capacity: 11
        })
    );
    assert!(table.build(&long, 12, &mut space).unwrap_err().is_misuse());
    for width in [0, 10, 13, 255] {
        let longest = 1;
        assert_eq!(
            table.build(&lengths_of(&[(0, 1), (9, 1)]), width, &mut space),
            Err(CodecError::TableWidth { width, longest })
        );
    }
    assert_eq!(
        table.build(&lengths_of(&[(0, 2)]), 11, &mut space),
        Err(CodecError::TableIncomplete)
    );
    assert!(table.lengths().is_none());
    table
        .build(&lengths_of(&[(0, 1), (9, 1)]), 11, &mut space)
        .unwrap();
    assert_eq!(table.width(), 11);
    assert_eq!(table.lengths(), Some(&lengths_of(&[(0, 1), (9, 1)])));
    let mut table = DecodeTable::new(200);
    assert_eq!(table.bytes(), 8 << 12);
    let capacity = 11;
    assert_eq!(
        table.build(&long, 12, &mut BuildSpace::new(11)),
        Err(CodecError::TableCapacity {
            width: 12,
            capacity
        })
    );
    table.build(&long, 12, &mut space).unwrap();
}

#[test]
fn stored_forms_are_compact() {
    // Signed grid, -31..=31, geometric: neighbours predict well.
    let grid: [u64; 256] = std::array::from_fn(|i| {
        let q = i64::from(i as u8 as i8).unsigned_abs();
        if q <= 31 {
            (1e6 * 0.85f64.powi(q as i32)) as u64
        } else {
            0
        }
    });
    assert!(CodeLengths::from_counts(&grid, 12).table_bits() <= 8 * (3 + 14));
    // Mask bytes of independent lanes at 75 % zeros: the number of bits set predicts well.
    let masks: [u64; 256] = std::array::from_fn(|i| {
        let ones = (i as u8).count_ones();
        (1e6 * 0.25f64.powi(ones as i32) * 0.75f64.powi(8 - ones as i32)) as u64 + 1
    });
    assert!(CodeLengths::from_counts(&masks, 12).table_bits() <= 8 * 56);
    // Scattered symbols fall back to four bits each.
    let scattered: [u64; 256] = std::array::from_fn(|i| if i % 7 == 0 { 1 << (i % 11) } else { 0 });
    assert!(CodeLengths::from_counts(&scattered, 12).table_bits() <= 8 * 131);
}

/// These bytes must be read, and given these lengths written, for good.
#[test]
fn golden_stored_tables() {
    let form_2 = {
        // Ranks 13, 13, 0, 13 for lengths 2 at symbols 0 to 3: predictions 8, 8, 2, 8.
        let bits: Vec<u8> = [13, 13, 0, 13]
            .into_iter()
            .flat_map(|rank| [vec![1; rank], vec![0]].concat())
            .collect();
        let bytes = bits
            .chunks(8)
            .map(|chunk| chunk.iter().rev().fold(0, |byte, bit| 2 * byte + bit));
        [2, 0, 3].into_iter().chain(bytes).collect::<Vec<u8>>()
    };
    let golden = [
        (
            &[(0u8, 1u8), (1, 2), (2, 2)][..],
            &[0u8, 0, 2, 0x21, 0x02][..],
        ),
        (&[(255, 1), (0, 1)], &[0, 255, 1, 0x11]),
        (&[(77, 1)], &[0, 77, 0, 0x01]),
        (&[(0, 2), (1, 2), (2, 2), (3, 2)], &[0, 0, 3, 0x22, 0x22]),
    ];
    for (pairs, bytes) in golden {
        let code = lengths_of(pairs);
        let mut written = Vec::new();
        code.serialize(&mut written);
        assert_eq!(written, bytes);
        assert_eq!(CodeLengths::parse(bytes), Ok((code, bytes.len())));
    }
    assert_eq!(
        CodeLengths::parse(&form_2),
        Ok((lengths_of(golden[3].0), form_2.len()))
    );
    assert_eq!(
        slow::parse_table(&form_2),
        Some((lengths_of(golden[3].0).0, form_2.len()))
    );
    let mut flat = Vec::new();
    CodeLengths([8; 256]).serialize(&mut flat);
    assert_eq!(flat, [&[1, 0, 255][..], &[0; 32]].concat());
}

#[test]
fn malformed_stored_tables() {
    let parse = |bytes: &[u8]| {
        let result = CodeLengths::parse(bytes);
        assert_eq!(result.is_ok(), slow::parse_table(bytes).is_some());
        result.map(|_| ()).unwrap_err()
    };
    assert_eq!(parse(&[]), CodecError::TableTruncated { offset: 0 });
    assert_eq!(parse(&[0, 0]), CodecError::TableTruncated { offset: 2 });
    assert_eq!(parse(&[3, 0, 0, 1]), CodecError::TableForm { form: 3 });
    assert_eq!(parse(&[0, 0, 1]), CodecError::TableTruncated { offset: 3 });
    assert_eq!(parse(&[0, 7, 0, 13]), CodecError::TableLength { symbol: 7 });
    assert_eq!(
        parse(&[0, 0, 0, 0x11]),
        CodecError::TablePadding { offset: 3 }
    );
    assert_eq!(parse(&[0, 0, 1, 0x21]), CodecError::TableIncomplete);
    assert_eq!(
        parse(&[1, 9, 0, 0xff, 0xff, 0xff, 0x01]),
        CodecError::TableLength { symbol: 9 }
    );
    assert_eq!(
        parse(&[1, 9, 0, 0xff, 0xff, 0xff]),
        CodecError::TableTruncated { offset: 6 }
    );
    assert_eq!(parse(&[1, 9, 0, 0x00]), CodecError::TableIncomplete);
}

/// Counts of several shapes: few or many symbols, even or steep.
fn any_counts() -> impl Strategy<Value = [u64; 256]> {
    (1usize..=256, 0u32..40, any::<u64>()).prop_map(|(symbols, steepness, seed)| {
        let mut state = seed | 1;
        let mut next = move || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            state >> 33
        };
        let mut counts = [0u64; 256];
        for _ in 0..symbols {
            counts[(next() % 256) as usize] =
                1 + (next() % 1000) + (1 << (next() % u64::from(steepness + 1)));
        }
        counts
    })
}

proptest! {
    #[test]
    fn lengths_are_complete_and_optimal(counts in any_counts(), limit in 8u8..=12) {
        let code = CodeLengths::from_counts(&counts, limit);
        code.validate().unwrap();
        prop_assert!(code.longest() <= limit);
        for (length, count) in code.0.iter().zip(&counts) {
            prop_assert_eq!(*length > 0, *count > 0);
        }
        let least = huffman_cost(&counts);
        if code.0.iter().filter(|l| **l > 0).count() > 1 {
            prop_assert!(code.payload_bits(&counts) >= least);
            if code.longest() < limit {
                prop_assert_eq!(code.payload_bits(&counts), least);
            }
        }
    }

    #[test]
    fn few_symbols_against_exhaustive_search(counts in proptest::collection::vec(1u64..5000, 2..12), limit in 4u8..=12) {
        let mut all = [0; 256];
        all[..counts.len()].copy_from_slice(&counts);
        prop_assert_eq!(CodeLengths::from_counts(&all, limit).payload_bits(&all), limited_cost(&counts, u32::from(limit)));
    }

    #[test]
    fn stored_form_round_trips(counts in any_counts(), limit in 8u8..=12, tail in proptest::collection::vec(any::<u8>(), 0..4)) {
        let code = CodeLengths::from_counts(&counts, limit);
        let mut bytes = Vec::new();
        code.serialize(&mut bytes);
        prop_assert_eq!(code.table_bits(), 8 * bytes.len() as u64);
        let len = bytes.len();
        bytes.extend(&tail);
        prop_assert_eq!(CodeLengths::parse(&bytes), Ok((code, len)));
        prop_assert_eq!(slow::parse_table(&bytes), Some((code.0, len)));
        for cut in 0..len {
            prop_assert!(CodeLengths::parse(&bytes[..cut]).is_err());
        }
        for bit in 0..len * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let fast = CodeLengths::parse(&bad).ok().map(|(lengths, used)| (lengths.0, used));
            prop_assert_eq!(fast, slow::parse_table(&bad));
        }
    }

    #[test]
    fn random_stored_tables(form in 0u8..4, bytes in proptest::collection::vec(any::<u8>(), 2..140)) {
        let bytes = [&[form][..], &bytes].concat();
        let fast = CodeLengths::parse(&bytes).ok().map(|(lengths, used)| (lengths.0, used));
        prop_assert_eq!(fast, slow::parse_table(&bytes));
    }
}
