//! x86-64 with AVX-512: registers of 16 f32, for the tiles that multiply. With `avx2.rs` the only file of this crate with
//! `unsafe`.
//!
//! Meant to be inlined into `Avx2Fma::run_long`, whose feature list must match the detector's.

use super::avx2::Ymm;
use super::{First, Long, Seen, Simd};
use std::arch::x86_64::*;
use std::ops::Range;

/// The first lane of a mask, and the lanes of the mask among the `n` from there on.
#[inline(always)]
fn neighbours(mask: __mmask16, n: usize) -> (usize, __mmask16) {
    let skip = mask.trailing_zeros() as usize;
    let first = (1u32 << n.min(16)) - 1;
    (skip, mask & (first << skip) as u16)
}

impl Long for Ymm<32> {
    type L = __m512;
    type M = __mmask16;

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
    fn widen_i8_two(self, low: &[i8; 8], high: &[i8; 8]) -> __m512 {
        // SAFETY: `self` proves AVX-512F; `_mm_loadl_epi64` reads exactly the 8 bytes.
        unsafe {
            let low = _mm_loadl_epi64(low.as_ptr().cast());
            let high = _mm_loadl_epi64(high.as_ptr().cast());
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_unpacklo_epi64(low, high)))
        }
    }

    #[inline(always)]
    fn lookup_two(self, lut: &[f32; 256], low: &[u8; 8], high: &[u8; 8]) -> __m512 {
        let table = lut.as_chunks::<16>().0;
        // SAFETY: `self` proves AVX-512F; `_mm_loadl_epi64` reads exactly the 8 bytes, the other loads 16 values.
        unsafe {
            let low = _mm_loadl_epi64(low.as_ptr().cast());
            let high = _mm_loadl_epi64(high.as_ptr().cast());
            let codes = _mm512_cvtepu8_epi32(_mm_unpacklo_epi64(low, high));
            let mut quarters = [_mm512_setzero_ps(); 4];
            for i in 0..4 {
                let low = _mm512_loadu_ps(table[2 * i].as_ptr());
                let high = _mm512_loadu_ps(table[2 * i + 1].as_ptr());
                quarters[i] = _mm512_permutex2var_ps(low, codes, high);
            }
            let odd = _mm512_test_epi32_mask(codes, _mm512_set1_epi32(32));
            let upper = _mm512_test_epi32_mask(codes, _mm512_set1_epi32(64));
            let low = _mm512_mask_blend_ps(odd, quarters[0], quarters[1]);
            let high = _mm512_mask_blend_ps(odd, quarters[2], quarters[3]);
            _mm512_mask_blend_ps(upper, low, high)
        }
    }

    #[inline(always)]
    fn lookup_16_two(self, lut: &[f32; 16], low: &[u8; 8], high: &[u8; 8]) -> __m512 {
        // SAFETY: `self` proves AVX-512F; `_mm_loadl_epi64` reads exactly the 8 bytes, the other load 16 values.
        unsafe {
            let low = _mm_loadl_epi64(low.as_ptr().cast());
            let high = _mm_loadl_epi64(high.as_ptr().cast());
            let codes = _mm512_cvtepu8_epi32(_mm_unpacklo_epi64(low, high));
            _mm512_permutexvar_ps(codes, _mm512_loadu_ps(lut.as_ptr()))
        }
    }

    #[inline(always)]
    fn splat_two(self, low: f32, high: f32) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_mask_broadcastss_ps(_mm512_set1_ps(low), 0xff00, _mm_set_ss(high)) }
    }

    #[inline(always)]
    fn widen_i16_two(self, low: &[i16; 8], high: &[i16; 8]) -> __m512 {
        // SAFETY: `self` proves AVX-512F; the loads read exactly the 16 bytes.
        unsafe {
            let low = _mm_loadu_si128(low.as_ptr().cast());
            let high = _mm_loadu_si128(high.as_ptr().cast());
            let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high);
            _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(both))
        }
    }

    #[inline(always)]
    fn columns16(self, rows: [&[f32; 8]; 16]) -> [__m512; 8] {
        // Quarters of `low[j]`: column j of rows 0 to 3, j + 4 of the same, j and j + 4 of rows 4 to 7.
        let low = self.quads16([
            self.join(self.load(rows[0]), self.load(rows[4])),
            self.join(self.load(rows[1]), self.load(rows[5])),
            self.join(self.load(rows[2]), self.load(rows[6])),
            self.join(self.load(rows[3]), self.load(rows[7])),
        ]);
        let high = self.quads16([
            self.join(self.load(rows[8]), self.load(rows[12])),
            self.join(self.load(rows[9]), self.load(rows[13])),
            self.join(self.load(rows[10]), self.load(rows[14])),
            self.join(self.load(rows[11]), self.load(rows[15])),
        ]);
        let mut columns = [low[0]; 8];
        for j in 0..4 {
            // SAFETY: `self` proves AVX-512F.
            unsafe {
                columns[j] = _mm512_shuffle_f32x4::<0x88>(low[j], high[j]);
                columns[j + 4] = _mm512_shuffle_f32x4::<0xdd>(low[j], high[j]);
            }
        }
        columns
    }

    #[inline(always)]
    fn quads16(self, v: [__m512; 4]) -> [__m512; 4] {
        // SAFETY: `self` proves AVX-512F.
        unsafe {
            let pairs = [
                _mm512_unpacklo_ps(v[0], v[1]),
                _mm512_unpackhi_ps(v[0], v[1]),
                _mm512_unpacklo_ps(v[2], v[3]),
                _mm512_unpackhi_ps(v[2], v[3]),
            ];
            [
                _mm512_shuffle_ps::<0x44>(pairs[0], pairs[2]),
                _mm512_shuffle_ps::<0xee>(pairs[0], pairs[2]),
                _mm512_shuffle_ps::<0x44>(pairs[1], pairs[3]),
                _mm512_shuffle_ps::<0xee>(pairs[1], pairs[3]),
            ]
        }
    }

    #[inline(always)]
    fn store_quarter(self, quarter: usize, v: __m512, to: &mut [f32; 4]) {
        // SAFETY: `self` proves AVX-512F; 4 writable values, no alignment needed.
        unsafe {
            let v = match quarter {
                0 => _mm512_castps512_ps128(v),
                1 => _mm512_extractf32x4_ps::<1>(v),
                2 => _mm512_extractf32x4_ps::<2>(v),
                _ => _mm512_extractf32x4_ps::<3>(v),
            };
            _mm_storeu_ps(to.as_mut_ptr(), v);
        }
    }
    fn first16(self, n: usize) -> First<__mmask16> {
        let lanes = n.min(16);
        First {
            lanes,
            mask: ((1u32 << lanes) - 1) as u16,
        }
    }

    #[inline(always)]
    fn mask16(self, from: usize, n: usize) -> First<__mmask16> {
        let from = from.min(16);
        let First { lanes, mask } = self.first16(n.min(16 - from));
        First {
            lanes,
            mask: (u32::from(mask) << from) as u16,
        }
    }

    #[inline(always)]
    fn spread16(self, lanes: First<__mmask16>, v: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_maskz_expand_ps(lanes.mask, v) }
    }

    #[inline(always)]
    fn splat_pair(self, pair: &[f32; 2]) -> __m512 {
        // SAFETY: `self` proves AVX-512F; two readable values of 4 bytes, no alignment needed.
        unsafe {
            let pair = pair.as_ptr().cast::<f64>().read_unaligned();
            _mm512_castpd_ps(_mm512_set1_pd(pair))
        }
    }

    #[inline(always)]
    fn twice16(self, v: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe {
            let places = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
            _mm512_permutexvar_ps(places, v)
        }
    }

    #[inline(always)]
    fn part16(self, v: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe {
            let places = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
            _mm512_permutexvar_ps(places, v)
        }
    }

    #[inline(always)]
    fn evens_of16(self, low: __m512, high: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe {
            let places =
                _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            _mm512_permutex2var_ps(low, places, high)
        }
    }

    #[inline(always)]
    fn store16_masked(self, lanes: First<__mmask16>, v: __m512, to: &mut [f32]) {
        let to = &mut to[..lanes.lanes];
        // A mask of other lanes than the first ones chooses some of these.
        // SAFETY: `self` proves AVX-512F; only lanes that the slice has are written.
        unsafe {
            let mask = lanes.mask & ((1u32 << to.len().min(16)) - 1) as u16;
            _mm512_mask_storeu_ps(to.as_mut_ptr(), mask, v);
        }
    }

    #[inline(always)]
    fn load16_masked(self, lanes: First<__mmask16>, from: &[f32]) -> __m512 {
        let from = &from[..lanes.lanes];
        // SAFETY: `self` proves AVX-512F; only lanes that the slice has are read.
        unsafe {
            let mask = lanes.mask & ((1u32 << from.len().min(16)) - 1) as u16;
            _mm512_maskz_loadu_ps(mask, from.as_ptr())
        }
    }

    #[inline(always)]
    fn store16_at(self, lanes: First<__mmask16>, v: __m512, to: &mut [f32]) {
        let to = &mut to[..lanes.lanes];
        let (skip, mask) = neighbours(lanes.mask, to.len());
        // SAFETY: `self` proves AVX-512F; the mask chooses lanes from `skip` on, no more than the slice has.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr().wrapping_sub(skip), mask, v) }
    }

    #[inline(always)]
    fn load16_at(self, lanes: First<__mmask16>, from: &[f32]) -> __m512 {
        let from = &from[..lanes.lanes];
        let (skip, mask) = neighbours(lanes.mask, from.len());
        // SAFETY: `self` proves AVX-512F; the mask chooses lanes from `skip` on, no more than the slice has.
        unsafe { _mm512_maskz_loadu_ps(mask, from.as_ptr().wrapping_sub(skip)) }
    }

    #[inline(always)]
    fn leaky16(self, v: __m512, slope: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe {
            let negative = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(v, _mm512_setzero_ps());
            _mm512_mask_mul_ps(v, negative, v, slope)
        }
    }

    #[inline(always)]
    fn clip16(self, v: __m512, low: __m512, high: __m512) -> __m512 {
        // The second operand where they are equal or one is NaN.
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_min_ps(high, _mm512_max_ps(low, v)) }
    }

    #[inline(always)]
    fn transpose16(self, rows: [__m512; 8]) -> [__m512; 8] {
        let mut out = rows;
        // SAFETY: `self` proves AVX-512F.
        unsafe {
            // Quarter `q` of a quad holds channel `4 * q + i` of four rows: those of two quads become neighbours.
            let low = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
            let high = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
            let mut quads = [[rows[0]; 4]; 2];
            for (i, quads) in quads.iter_mut().enumerate() {
                let [a, b, c, d] = [
                    rows[4 * i],
                    rows[4 * i + 1],
                    rows[4 * i + 2],
                    rows[4 * i + 3],
                ];
                let (ab, cd) = (_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
                quads[0] = _mm512_shuffle_ps::<0x44>(ab, cd);
                quads[1] = _mm512_shuffle_ps::<0xee>(ab, cd);
                let (ab, cd) = (_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
                quads[2] = _mm512_shuffle_ps::<0x44>(ab, cd);
                quads[3] = _mm512_shuffle_ps::<0xee>(ab, cd);
            }
            for i in 0..4 {
                let (a, b) = (_mm512_castps_pd(quads[0][i]), _mm512_castps_pd(quads[1][i]));
                out[i] = _mm512_castpd_ps(_mm512_permutex2var_pd(a, low, b));
                out[i + 4] = _mm512_castpd_ps(_mm512_permutex2var_pd(a, high, b));
            }
        }
        out
    }

    #[inline(always)]
    fn store_first(self, n: usize, v: __m256, to: &mut [f32]) {
        let to = &mut to[..n];
        // SAFETY: `self` proves AVX-512VL; the mask has the first `n` lanes at most, which the slice has, no other is written.
        unsafe { _mm256_mask_storeu_ps(to.as_mut_ptr(), ((1u32 << (n & 15)) - 1) as u8, v) }
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

    #[inline(always)]
    fn taps16<const T: usize>(self, seen: Seen, from: &[f32]) -> [__m512; 3] {
        let from = seen.of(from).as_ptr().wrapping_sub(seen.skip);
        let mask = seen.mask;
        // SAFETY: `self` proves AVX-512F; the mask has exactly the slice's values (see `Seen::new`), no other is read.
        unsafe {
            let first = _mm512_maskz_loadu_ps(mask as u16, from);
            if T == 1 {
                return [
                    first,
                    _mm512_maskz_loadu_ps((mask >> 1) as u16, from.wrapping_add(1)),
                    _mm512_maskz_loadu_ps((mask >> 2) as u16, from.wrapping_add(2)),
                ];
            }
            let high = _mm512_maskz_loadu_ps((mask >> 16) as u16, from.wrapping_add(16));
            let behind = _mm512_maskz_loadu_ps((mask >> 32) as u16, from.wrapping_add(32));
            let evens =
                _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odds = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
            let [left, middle] =
                [evens, odds].map(|places| _mm512_permutex2var_ps(first, places, high));
            let (moved, last) = (_mm512_castps_si512(left), _mm512_castps_si512(behind));
            let right = _mm512_castsi512_ps(_mm512_alignr_epi32::<1>(last, moved));
            [left, middle, right]
        }
    }
}
