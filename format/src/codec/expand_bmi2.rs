//! The decoder's inner loops compiled for CPUs with BMI2 (and BMI1, LZCNT, POPCNT): bit deposit for the expansion, shifts
//! by any register, hardware bit counts. A [`Bmi2`] value is the proof that the CPU has them.
//!
//! AMD CPUs before Zen 3 have a slow `pdep` (microcode); they still gain from the other instructions and get equal bytes.
//! This is the only file of the codec with `unsafe`.

use std::arch::x86_64::*;

use super::expand::{LANES, Places, count_bits, expand_groups, expand_with, splat};
use super::streams::{self, Cursor};
use super::{CodecError, DecodeTable};

/// Proof of BMI1, BMI2, LZCNT and POPCNT, and whether there is AVX-512 with VBMI2 too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bmi2 {
    vbmi2: bool,
}

impl Bmi2 {
    /// The proof, if this CPU gives it.
    pub(super) fn detect() -> Option<Bmi2> {
        (is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt"))
        .then(|| Bmi2 {
            vbmi2: is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vbmi2"),
        })
    }

    /// [`streams::decode`].
    pub(super) fn decode(
        self,
        table: &DecodeTable,
        bytes: &[u8],
        cursor: &mut Cursor,
        out: &mut [u8],
    ) -> Result<(), CodecError> {
        // SAFETY: `self` exists only where `detect` found every feature that `decode` is compiled for.
        unsafe { decode(table, bytes, cursor, out) }
    }

    /// [`super::expand::expand_portable`].
    pub(super) fn expand(self, codes: &mut [u8], mask: &[u8], present: usize, fill: u8) {
        if self.vbmi2 {
            // SAFETY: `detect` found every feature that `expand_long` is compiled for.
            unsafe { expand_long(codes, mask, present, fill) }
        } else {
            // SAFETY: `self` exists only where `detect` found every feature that `expand` is compiled for.
            unsafe { expand(codes, mask, present, fill) }
        }
    }

    /// [`count_bits`].
    pub(super) fn count_bits(self, mask: &[u8]) -> usize {
        // SAFETY: `self` exists only where `detect` found every feature that `count` is compiled for.
        unsafe { count(mask) }
    }
}

#[target_feature(enable = "bmi1,bmi2,lzcnt,popcnt")]
fn decode(
    table: &DecodeTable,
    bytes: &[u8],
    cursor: &mut Cursor,
    out: &mut [u8],
) -> Result<(), CodecError> {
    streams::decode::<true>(table, bytes, cursor, out)
}

#[target_feature(enable = "bmi1,bmi2,lzcnt,popcnt")]
fn expand(codes: &mut [u8], mask: &[u8], present: usize, fill: u8) {
    let fills = splat(fill);
    expand_groups(codes, mask, present, |v, mask| deposit(v, mask, fills));
}

/// Places the values of one group.
#[inline]
#[target_feature(enable = "bmi2")]
fn deposit(values: u64, mask: u8, fills: u64) -> u64 {
    let lanes = LANES[usize::from(mask)];
    _pdep_u64(values, lanes) | (fills & !lanes)
}

#[target_feature(enable = "bmi1,bmi2,lzcnt,popcnt,avx512f,avx512vbmi2")]
fn expand_long(codes: &mut [u8], mask: &[u8], present: usize, fill: u8) {
    let (fills, all) = (splat(fill), _mm512_set1_epi8(fill as i8));
    let block = |places: &mut Places, values: &Places, mask: &[u8; 8]| {
        let mask = u64::from_le_bytes(*mask);
        // SAFETY: 64 readable and 64 writable bytes, no alignment needed.
        unsafe {
            let values = _mm512_loadu_si512(values.as_ptr().cast());
            let spread = _mm512_mask_expand_epi8(all, mask, values);
            _mm512_storeu_si512(places.as_mut_ptr().cast(), spread);
        }
        mask.count_ones() as usize
    };
    expand_with(codes, mask, present, block, |v, mask| {
        deposit(v, mask, fills)
    });
}

#[target_feature(enable = "bmi1,bmi2,lzcnt,popcnt")]
fn count(mask: &[u8]) -> usize {
    count_bits(mask)
}
