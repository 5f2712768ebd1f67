//! The seed's relative index: for each present weight, the number of zeros since the previous one, in n bits.
//!
//! A tile is a list of (gap, value) pairs over its memory order `[panel][k][8]` (the lane runs fastest). A gap g, from 0 to
//! 2^n - 1, skips g zeros; then the value is written. A run of 2^n zeros or more first emits pairs (2^n - 1, filler), each
//! of which covers 2^n zeros: those skipped and the filler, whose value is the code of zero. The run starts anew with each
//! tile, and zeros after the last present weight need nothing. Two symbols per present weight make it slower than a mask,
//! and smaller only where the tile is very sparse. Source: Han et al. 2016 (Deep Compression), EIE.

use super::CodecError;
use super::expand::splat;

/// Smallest and largest gap width.
pub const GAP_BITS: std::ops::RangeInclusive<u8> = 2..=8;

/// Splits a run of zeros before a present weight: number of fillers, then the gap of the weight.
pub(super) fn split_run(run: usize, bits: u8) -> (usize, u8) {
    (run >> bits, (run & ((1 << bits) - 1)) as u8)
}

/// Calls `pair(gap, position or none for a filler)` for each pair of a tile.
pub(super) fn for_each_pair(mask: &[u8], bits: u8, mut pair: impl FnMut(u8, Option<usize>)) {
    let longest = ((1u16 << bits) - 1) as u8;
    for_each_run(mask, |run, position| {
        let (fillers, gap) = split_run(run, bits);
        for _ in 0..fillers {
            pair(longest, None);
        }
        pair(gap, Some(position));
    });
}

/// Calls `present(zeros before, position)` for each present weight.
pub(super) fn for_each_run(mask: &[u8], mut present: impl FnMut(usize, usize)) {
    let mut next = 0usize;
    for (group, &byte) in mask.iter().enumerate() {
        let mut left = byte;
        while left != 0 {
            let position = group * 8 + left.trailing_zeros() as usize;
            present(position - next, position);
            next = position + 1;
            left &= left - 1;
        }
    }
}

/// Writes the values to their places and `fill` elsewhere; the mask of what differs from `fill`.
///
/// None when the gaps lead past the end.
pub(super) fn scatter(
    gaps: &[u8],
    values: &[u8],
    fill: u8,
    codes: &mut [u8],
    mask: &mut [u8],
) -> Option<()> {
    codes.fill(fill);
    let mut position = 0usize;
    for (&gap, &value) in gaps.iter().zip(values) {
        position += usize::from(gap);
        *codes.get_mut(position)? = value;
        position += 1;
    }
    let fills = splat(fill);
    for (bits, group) in mask.iter_mut().zip(codes.as_chunks::<8>().0) {
        *bits = nonzero_bytes(u64::from_le_bytes(*group) ^ fills);
    }
    Some(())
}

/// Bit i: byte i is not zero.
pub(super) fn nonzero_bytes(word: u64) -> u8 {
    const HIGH: u64 = splat(0x80);
    let high = (((word & !HIGH) + !HIGH) | word) & HIGH;
    ((high >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8
}

/// Checks a gap width.
pub(super) fn check_bits(bits: u8) -> Result<(), CodecError> {
    if GAP_BITS.contains(&bits) {
        Ok(())
    } else {
        Err(CodecError::GapBits { bits })
    }
}
