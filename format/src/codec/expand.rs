//! From a mask and the present values to a dense tile, in place.
//!
//! The present values stand packed at the end of the tile's own buffer and move forward to their places: after a group of
//! eight is written, at least as many bytes remain ahead as values are unread, so a value is never overwritten before it
//! is read, and no second buffer is needed. One step spreads up to eight values over the eight lanes of one mask byte: by
//! `pdep` where the CPU has it (`expand_bmi2.rs`), else by three conditional moves of bytes within a word; with AVX-512 one
//! instruction spreads 64. All give the same bytes. Eight weights cost a few cycles at most, far less than decoding them.

use super::streams::load_padded;

/// Eight times the same byte.
pub(super) const fn splat(byte: u8) -> u64 {
    byte as u64 * 0x0101_0101_0101_0101
}

/// For each mask byte: 0xff in the byte of every lane set.
pub(super) static LANES: [u64; 256] = lanes();

const fn lanes() -> [u64; 256] {
    let mut table = [0; 256];
    let mut mask = 0;
    while mask < 256 {
        let mut lane = 0;
        while lane < 8 {
            if (mask >> lane) & 1 == 1 {
                table[mask] |= 0xff << (8 * lane);
            }
            lane += 1;
        }
        mask += 1;
    }
    table
}

/// For each mask byte: the bytes that receive a value when values move up by 4, then by 2, then by 1 lanes.
///
/// The value of lane l starts at the number of present lanes below l and moves up by the number of absent ones; the bits
/// of that distance, from the highest, say in which steps it moves (the "expand" of Hacker's Delight, 7-5, on bytes).
/// As masks of lanes, see [`LANES`].
static MOVES: [[u8; 3]; 256] = moves();

const fn moves() -> [[u8; 3]; 256] {
    let mut table = [[0; 3]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut from) = (0, 0);
        while lane < 8 {
            if (mask >> lane) & 1 == 1 {
                let (mut at, mut step) = (from, 0);
                while step < 3 {
                    let distance = 4 >> step;
                    if (lane - from) & distance != 0 {
                        at += distance;
                        table[mask][step] |= 1 << at;
                    }
                    step += 1;
                }
                from += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
}

/// Spreads the last `present` bytes of `codes` over the lanes that `mask` sets and writes `fill` to the others.
///
/// `codes` has eight bytes per mask byte, `present` is the number of bits set.
pub(super) fn expand_portable(codes: &mut [u8], mask: &[u8], present: usize, fill: u8) {
    let fills = splat(fill);
    let spread = |values, mask: u8| {
        let [by_4, by_2, by_1] = MOVES[usize::from(mask)].map(|lanes| LANES[usize::from(lanes)]);
        let values = (values & !by_4) | ((values << 32) & by_4);
        let values = (values & !by_2) | ((values << 16) & by_2);
        let values = (values & !by_1) | ((values << 8) & by_1);
        let lanes = LANES[usize::from(mask)];
        (values & lanes) | (fills & !lanes)
    };
    expand_groups(codes, mask, present, spread);
}

/// Groups per iteration of the fast loop.
const BLOCK: usize = 8;
/// Their places, or as many values.
pub(super) type Places = [u8; 8 * BLOCK];

/// The loop of the expansion, blocks as well group by group.
#[inline(always)]
pub(super) fn expand_groups(
    codes: &mut [u8],
    mask: &[u8],
    present: usize,
    spread: impl Fn(u64, u8) -> u64 + Copy,
) {
    let block = |places: &mut Places, values: &Places, mask: &[u8; BLOCK]| {
        let mut next = 0usize;
        let places = places.as_chunks_mut::<8>().0;
        for i in 0..BLOCK {
            let packed = values[next..].first_chunk().copied().unwrap_or_default();
            places[i] = spread(u64::from_le_bytes(packed), mask[i]).to_le_bytes();
            next += mask[i].count_ones() as usize;
        }
        next
    };
    expand_with(codes, mask, present, block, spread);
}

/// The loop of the expansion; `block` places the values of a block and says how many they are, `spread` those of one group.
///
/// While a block's places end before its values begin, eight groups share one bounds check; the rest goes one by one.
#[inline(always)]
pub(super) fn expand_with(
    codes: &mut [u8],
    mask: &[u8],
    present: usize,
    block: impl Fn(&mut Places, &Places, &[u8; BLOCK]) -> usize,
    spread: impl Fn(u64, u8) -> u64,
) {
    let mut read = codes.len().saturating_sub(present);
    let mut group = 0;
    let (blocks, _) = mask.as_chunks::<BLOCK>();
    for bits in blocks {
        let Some((places, values)) = codes.split_at_mut_checked(read) else {
            break;
        };
        let Some(places) = places
            .get_mut(group * 8..)
            .and_then(<[u8]>::first_chunk_mut::<{ 8 * BLOCK }>)
        else {
            break;
        };
        let Some(values) = values.first_chunk::<{ 8 * BLOCK }>() else {
            break;
        };
        read += block(places, values, bits);
        group += BLOCK;
    }
    for &bits in mask.iter().skip(group) {
        let spread = spread(load_padded(codes, read), bits);
        if let Some(place) = codes
            .get_mut(group * 8..)
            .and_then(<[u8]>::first_chunk_mut::<8>)
        {
            *place = spread.to_le_bytes();
        }
        read += bits.count_ones() as usize;
        group += 1;
    }
}

/// Number of bits set.
#[inline(always)]
pub(super) fn count_bits(mask: &[u8]) -> usize {
    let (words, rest) = mask.as_chunks::<8>();
    let ones: u32 = words
        .iter()
        .map(|word| u64::from_le_bytes(*word).count_ones())
        .sum();
    (ones + rest.iter().map(|byte| byte.count_ones()).sum::<u32>()) as usize
}
