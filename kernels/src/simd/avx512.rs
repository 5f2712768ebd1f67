//! x86-64 with AVX-512: registers of 16 f32, for the tiles that multiply. With `avx2.rs` the only file of this crate with
//! `unsafe`.
//!
//! Meant to be inlined into `Avx2Fma::run_long`, whose feature list must match the detector's.

use super::avx2::Ymm;
use super::{Long, Simd};
use std::arch::x86_64::*;
use std::ops::Range;

impl Long for Ymm<32> {
    type L = __m512;

    #[inline(always)]
    fn splat16(self, value: f32) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn load16(self, from: &[f32; 16]) -> __m512 {
        // SAFETY: `self` proves AVX-512F; 16 readable values, no alignment needed.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store16(self, v: __m512, to: &mut [f32; 16]) {
        // SAFETY: `self` proves AVX-512F; 16 writable values, no alignment needed.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn load16_first(self, n: usize, from: &[f32]) -> __m512 {
        let n = n.min(16).min(from.len());
        // SAFETY: `self` proves AVX-512F; the mask has the first `n` lanes, which the slice has, no other is read.
        unsafe { _mm512_maskz_loadu_ps(((1u32 << n) - 1) as u16, from.as_ptr()) }
    }

    #[inline(always)]
    fn store16_first(self, n: usize, v: __m512, to: &mut [f32]) {
        let n = n.min(16).min(to.len());
        // SAFETY: `self` proves AVX-512F; the mask has the first `n` lanes, which the slice has, no other is written.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), ((1u32 << n) - 1) as u16, v) }
    }

    #[inline(always)]
    fn join(self, low: __m256, high: __m256) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe {
            let (low, high) = (_mm512_castps256_ps512(low), _mm256_castps_pd(high));
            _mm512_castpd_ps(_mm512_insertf64x4::<1>(_mm512_castps_pd(low), high))
        }
    }

    #[inline(always)]
    fn split(self, v: __m512) -> [__m256; 2] {
        // SAFETY: `self` proves AVX-512F.
        unsafe {
            let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(v));
            [_mm512_castps512_ps256(v), _mm256_castpd_ps(high)]
        }
    }

    #[inline(always)]
    fn evens16(self, from: &[f32; 32]) -> __m512 {
        let [low, high] = from.as_chunks().0 else {
            return self.splat16(0.0);
        };
        let (low, high) = (self.load16(low), self.load16(high));
        // SAFETY: `self` proves AVX-512F.
        unsafe {
            let places =
                _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            _mm512_permutex2var_ps(low, places, high)
        }
    }

    #[inline(always)]
    fn add16(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub16(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul16(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add16(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn load16_lanes(self, lanes: Range<usize>, from: &[f32], at: isize) -> __m512 {
        let (start, end) = (lanes.start.min(16), lanes.end.min(16));
        if start >= end {
            return self.splat16(0.0);
        }
        let first = at.wrapping_add_unsigned(start) as usize;
        let there = &from[first..][..end - start];
        let mask = (1u32 << end) - (1u32 << start);
        // SAFETY: `self` proves AVX-512F; the mask has exactly the slice's lanes, no other is read.
        unsafe { _mm512_maskz_loadu_ps(mask as u16, there.as_ptr().wrapping_sub(start)) }
    }

    #[inline(always)]
    fn evens16_lanes(self, lanes: Range<usize>, from: &[f32], at: isize) -> __m512 {
        let (start, end) = (lanes.start.min(16) * 2, lanes.end.min(16) * 2);
        if start >= end {
            return self.splat16(0.0);
        }
        let first = at.wrapping_add_unsigned(start) as usize;
        let there = &from[first..][..end - start - 1];
        let from = there.as_ptr().wrapping_sub(start);
        let mask = (1u64 << (end - 1)) - (1u64 << start);
        // SAFETY: `self` proves AVX-512F; the masks have exactly the slice's lanes, no other is read.
        unsafe {
            let low = _mm512_maskz_loadu_ps(mask as u16, from);
            let high = _mm512_maskz_loadu_ps((mask >> 16) as u16, from.wrapping_add(16));
            let places =
                _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            _mm512_permutex2var_ps(low, places, high)
        }
    }
}
