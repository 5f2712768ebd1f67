//! x86-64 with AVX2 and FMA: with `avx512.rs` the only file of this crate with `unsafe`.
//!
//! Every method is `#[inline(always)]` and meant to be inlined into [`Avx2Fma::run`]'s inner
//! function, whose feature list must match the detector's.

use super::{First, LongWork, Simd, Work};
use std::arch::x86_64::*;

/// Proof that this processor has AVX2 and FMA, and whether it has AVX-512 too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx2Fma {
    avx512: bool,
}

impl Avx2Fma {
    /// The proof, if the processor has both.
    pub fn detect() -> Option<Avx2Fma> {
        let present = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        present.then_some(Avx2Fma { avx512: false })
    }

    /// The same with AVX-512 (F and VL).
    pub fn detect_avx512() -> Option<Avx2Fma> {
        let present = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
        Avx2Fma::detect()
            .filter(|_| present)
            .map(|_| Avx2Fma { avx512: true })
    }

    /// Whether there are registers of 16 values.
    pub(super) fn has_long(self) -> bool {
        self.avx512
    }

    /// Runs `work` in a function compiled for AVX2 and FMA.
    #[inline(always)]
    pub(super) fn run<W: Work>(self, work: W) -> W::Output {
        #[target_feature(enable = "avx2,fma")]
        fn inner<W: Work>(work: W) -> W::Output {
            work.run(Ymm::<16>(()))
        }
        // SAFETY: `self` exists, so the processor has AVX2 and FMA.
        unsafe { inner(work) }
    }

    /// With registers of 16 values, where the processor has them.
    #[inline(always)]
    pub(super) fn run_long<W: LongWork>(self, work: W) -> Option<W::Output> {
        #[target_feature(enable = "avx2,fma,avx512f,avx512vl")]
        fn inner<W: LongWork>(work: W) -> W::Output {
            work.run(Ymm::<32>(()))
        }
        // SAFETY: the processor has them.
        self.avx512.then(|| unsafe { inner(work) })
    }
}

/// Vectors in that many registers, with 32 those of AVX-512; made by [`Avx2Fma`] only, so that it is as good a proof.
#[derive(Clone, Copy)]
pub(super) struct Ymm<const REGISTERS: usize>(());

impl<const N: usize> Simd for Ymm<N> {
    const FAST: bool = true;
    type V = __m256;

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    fn load(self, from: &[f32; 8]) -> __m256 {
        // SAFETY: `self` proves AVX2; 8 readable values, no alignment needed.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn prefetch<T>(self, place: *const T, bytes: usize) {
        // SAFETY: nothing is read; a place that does not exist is ignored.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(place.wrapping_byte_add(bytes).cast()) }
    }

    #[inline(always)]
    fn first(self, n: usize) -> First<__m256> {
        let lanes = n.min(8);
        // SAFETY: `self` proves AVX2.
        unsafe {
            let numbers = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes as i32), numbers);
            First {
                lanes,
                mask: _mm256_castsi256_ps(mask),
            }
        }
    }

    #[inline(always)]
    fn load_first(self, lanes: First<__m256>, from: &[f32]) -> __m256 {
        let from = &from[..lanes.lanes];
        // SAFETY: `self` proves AVX2; the mask has exactly the slice's lanes (see `first`), no other is read.
        unsafe { _mm256_maskload_ps(from.as_ptr(), _mm256_castps_si256(lanes.mask)) }
    }

    #[inline(always)]
    fn select_first(self, lanes: First<__m256>, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_blendv_ps(b, a, lanes.mask) }
    }

    #[inline(always)]
    fn store(self, v: __m256, to: &mut [f32; 8]) {
        // SAFETY: `self` proves AVX2; 8 writable values, no alignment needed.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: `self` proves FMA.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn widen_i8(self, q: &[i8; 8]) -> __m256 {
        // SAFETY: `self` proves AVX2; `_mm_loadl_epi64` reads exactly the 8 bytes.
        unsafe {
            let bytes = _mm_loadl_epi64(q.as_ptr().cast());
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))
        }
    }

    #[inline(always)]
    fn widen_i16(self, q: &[i16; 8]) -> __m256 {
        // SAFETY: `self` proves AVX2; `_mm_loadu_si128` reads exactly the 16 bytes.
        unsafe {
            let words = _mm_loadu_si128(q.as_ptr().cast());
            _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(words))
        }
    }

    #[inline(always)]
    fn widen_u8(self, q: &[u8; 8]) -> __m256 {
        // SAFETY: `self` proves AVX2; `_mm_loadl_epi64` reads exactly the 8 bytes.
        unsafe {
            let bytes = _mm_loadl_epi64(q.as_ptr().cast());
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes))
        }
    }

    #[inline(always)]
    fn widen_third(self, q: &[u8; 24], first: usize) -> __m256 {
        // SAFETY: `self` proves AVX2; the loads read bytes 0..16 and 8..24.
        unsafe {
            let low = _mm_loadu_si128(q.as_ptr().cast());
            let high = _mm_loadu_si128(q[8..].as_ptr().cast());
            // Bytes 0, 3, 6 and 9 of the one, 4, 7, 10 and 13 of the other; an index with its sign bit set gives zero.
            let first = _mm_set1_epi8(first as i8);
            let of_low = _mm_setr_epi8(0, 3, 6, 9, -9, -9, -9, -9, -9, -9, -9, -9, -9, -9, -9, -9);
            let of_high =
                _mm_setr_epi8(-9, -9, -9, -9, 4, 7, 10, 13, -9, -9, -9, -9, -9, -9, -9, -9);
            let low = _mm_shuffle_epi8(low, _mm_add_epi8(of_low, first));
            let high = _mm_shuffle_epi8(high, _mm_add_epi8(of_high, first));
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_or_si128(low, high)))
        }
    }

    #[inline(always)]
    fn lookup(self, lut: &[f32; 256], codes: &[u8; 8]) -> __m256 {
        // SAFETY: `self` proves AVX2; `_mm_loadl_epi64` reads exactly the 8 bytes; every index is
        // a byte, so every gathered element lies within the 256 values.
        unsafe {
            let bytes = _mm_loadl_epi64(codes.as_ptr().cast());
            _mm256_i32gather_ps::<4>(lut.as_ptr(), _mm256_cvtepu8_epi32(bytes))
        }
    }

    #[inline(always)]
    fn lookup_16(self, lut: &[f32; 16], codes: &[u8; 8]) -> __m256 {
        // SAFETY: `self` proves AVX2; `_mm_loadl_epi64` reads exactly the 8 bytes, the loads the 16 values.
        unsafe {
            let codes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(codes.as_ptr().cast()));
            let low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(lut.as_ptr()), codes);
            let high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(lut[8..].as_ptr()), codes);
            // Bit 3 of the code as the sign chooses the half.
            let half = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(codes));
            _mm256_blendv_ps(low, high, half)
        }
    }

    #[inline(always)]
    fn lookup_bytes(self, table: &[[i8; 16]], codes: &[u8; 32], out: &mut [i8; 32]) {
        // SAFETY: `self` proves AVX2; the loads read exactly the 32 codes and 16 elements of the table, the store
        // writes exactly the 32 bytes of `out`.
        unsafe {
            let codes = _mm256_loadu_si256(codes.as_ptr().cast());
            let mut sum = _mm256_setzero_si256();
            for (segment, elements) in table.iter().enumerate() {
                let elements = _mm_loadu_si128(elements.as_ptr().cast());
                // Codes of this segment become 0x70 to 0x7f, others set the bit that makes a shuffle give 0.
                let high = _mm256_set1_epi8((segment << 4) as i8);
                let index = _mm256_adds_epu8(_mm256_xor_si256(codes, high), _mm256_set1_epi8(0x70));
                let found = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(elements), index);
                sum = _mm256_or_si256(sum, found);
            }
            _mm256_storeu_si256(out.as_mut_ptr().cast(), sum);
        }
    }

    #[inline(always)]
    fn select_less(self, a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) }
    }

    #[inline(always)]
    fn at_least(self, v: __m256, low: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2. The instruction gives its second operand where neither is larger.
        unsafe { _mm256_max_ps(low, v) }
    }

    #[inline(always)]
    fn at_most(self, v: __m256, high: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_min_ps(high, v) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe {
            // The instruction gives `b` where either is NaN.
            let larger = _mm256_max_ps(a, b);
            _mm256_blendv_ps(larger, a, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a))
        }
    }

    #[inline(always)]
    fn blend(self, n: usize, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), lanes);
            _mm256_blendv_ps(b, a, _mm256_castsi256_ps(mask))
        }
    }

    #[inline(always)]
    fn evens_apart(self, from: &[f32; 16]) -> __m256 {
        let [low, high] = from.as_chunks().0 else {
            return self.splat(0.0);
        };
        let (low, high) = (self.load(low), self.load(high));
        // SAFETY: `self` proves AVX2. Values 0 2 | 8 10 | 4 6 | 12 14.
        unsafe { _mm256_shuffle_ps::<0x88>(low, high) }
    }

    #[inline(always)]
    fn in_order(self, apart: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_castpd_ps(_mm256_permute4x64_pd::<0xd8>(_mm256_castps_pd(apart))) }
    }

    #[inline(always)]
    fn transpose(self, r: [__m256; 8]) -> [__m256; 8] {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let pairs = [
                _mm256_unpacklo_ps(r[0], r[1]),
                _mm256_unpackhi_ps(r[0], r[1]),
                _mm256_unpacklo_ps(r[2], r[3]),
                _mm256_unpackhi_ps(r[2], r[3]),
                _mm256_unpacklo_ps(r[4], r[5]),
                _mm256_unpackhi_ps(r[4], r[5]),
                _mm256_unpacklo_ps(r[6], r[7]),
                _mm256_unpackhi_ps(r[6], r[7]),
            ];
            let quads = [
                _mm256_shuffle_ps::<0x44>(pairs[0], pairs[2]),
                _mm256_shuffle_ps::<0xee>(pairs[0], pairs[2]),
                _mm256_shuffle_ps::<0x44>(pairs[1], pairs[3]),
                _mm256_shuffle_ps::<0xee>(pairs[1], pairs[3]),
                _mm256_shuffle_ps::<0x44>(pairs[4], pairs[6]),
                _mm256_shuffle_ps::<0xee>(pairs[4], pairs[6]),
                _mm256_shuffle_ps::<0x44>(pairs[5], pairs[7]),
                _mm256_shuffle_ps::<0xee>(pairs[5], pairs[7]),
            ];
            [
                _mm256_permute2f128_ps::<0x20>(quads[0], quads[4]),
                _mm256_permute2f128_ps::<0x20>(quads[1], quads[5]),
                _mm256_permute2f128_ps::<0x20>(quads[2], quads[6]),
                _mm256_permute2f128_ps::<0x20>(quads[3], quads[7]),
                _mm256_permute2f128_ps::<0x31>(quads[0], quads[4]),
                _mm256_permute2f128_ps::<0x31>(quads[1], quads[5]),
                _mm256_permute2f128_ps::<0x31>(quads[2], quads[6]),
                _mm256_permute2f128_ps::<0x31>(quads[3], quads[7]),
            ]
        }
    }
}
