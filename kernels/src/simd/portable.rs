//! The portable tier over `wide`. Multiplication and addition stay separate: `wide`'s fused form
//! depends on compile flags, and this tier promises equal bits everywhere. What takes many scalar instructions is
//! called, not inlined: this tier is for every processor, and half of a program's kernels would be its copies.

use super::{First, Simd};
use wide::f32x8;

/// The instruction set every processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portable;

impl Simd for Portable {
    const FAST: bool = false;
    type V = f32x8;

    #[inline(always)]
    fn splat(self, value: f32) -> f32x8 {
        f32x8::splat(value)
    }

    #[inline(always)]
    fn load(self, from: &[f32; 8]) -> f32x8 {
        f32x8::new(*from)
    }

    #[inline(always)]
    fn first(self, n: usize) -> First<f32x8> {
        First {
            lanes: n.min(8),
            mask: f32x8::splat(0.0),
        }
    }

    #[inline(never)]
    fn load_first(self, lanes: First<f32x8>, from: &[f32]) -> f32x8 {
        let mut all = [0.0; 8];
        all[..lanes.lanes].copy_from_slice(&from[..lanes.lanes]);
        f32x8::new(all)
    }

    #[inline(always)]
    fn select_first(self, lanes: First<f32x8>, a: f32x8, b: f32x8) -> f32x8 {
        self.blend(lanes.lanes, a, b)
    }

    #[inline(always)]
    fn store(self, v: f32x8, to: &mut [f32; 8]) {
        *to = v.to_array();
    }

    #[inline(always)]
    fn add(self, a: f32x8, b: f32x8) -> f32x8 {
        a + b
    }

    #[inline(always)]
    fn sub(self, a: f32x8, b: f32x8) -> f32x8 {
        a - b
    }

    #[inline(always)]
    fn mul(self, a: f32x8, b: f32x8) -> f32x8 {
        a * b
    }

    #[inline(always)]
    fn mul_add(self, a: f32x8, b: f32x8, c: f32x8) -> f32x8 {
        a * b + c
    }

    #[inline(always)]
    fn widen_i8(self, q: &[i8; 8]) -> f32x8 {
        f32x8::new(q.map(f32::from))
    }

    #[inline(always)]
    fn widen_i16(self, q: &[i16; 8]) -> f32x8 {
        f32x8::new(q.map(f32::from))
    }

    #[inline(always)]
    fn widen_u8(self, q: &[u8; 8]) -> f32x8 {
        f32x8::new(q.map(f32::from))
    }

    #[inline(never)]
    fn widen_third(self, q: &[u8; 24], first: usize) -> f32x8 {
        f32x8::new(std::array::from_fn(|i| f32::from(q[3 * i + first])))
    }

    #[inline(never)]
    fn lookup(self, lut: &[f32; 256], codes: &[u8; 8]) -> f32x8 {
        f32x8::new(codes.map(|code| lut[usize::from(code)]))
    }

    #[inline(never)]
    fn lookup_16(self, lut: &[f32; 16], codes: &[u8; 8]) -> f32x8 {
        f32x8::new(codes.map(|code| lut[usize::from(code % 16)]))
    }

    #[inline(never)]
    fn lookup_bytes(self, table: &[[i8; 16]], codes: &[u8; 32], out: &mut [i8; 32]) {
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = table
                .as_flattened()
                .get(usize::from(code))
                .copied()
                .unwrap_or(0);
        }
    }

    #[inline(always)]
    fn select_less(self, a: f32x8, b: f32x8, x: f32x8, y: f32x8) -> f32x8 {
        a.simd_lt(b).select(x, y)
    }

    #[inline(never)]
    fn max(self, a: f32x8, b: f32x8) -> f32x8 {
        let (a, b) = (a.to_array(), b.to_array());
        let larger = |i| {
            let (a, b): (f32, f32) = (a[i], b[i]);
            if b > a || b.is_nan() { b } else { a }
        };
        f32x8::new(std::array::from_fn(larger))
    }

    #[inline(never)]
    fn blend(self, n: usize, a: f32x8, b: f32x8) -> f32x8 {
        let (a, b) = (a.to_array(), b.to_array());
        f32x8::new(std::array::from_fn(|i| if i < n { a[i] } else { b[i] }))
    }

    #[inline(never)]
    fn evens_apart(self, from: &[f32; 16]) -> f32x8 {
        f32x8::new(std::array::from_fn(|i| from[2 * i]))
    }

    #[inline(always)]
    fn in_order(self, apart: f32x8) -> f32x8 {
        apart
    }

    #[inline(never)]
    fn transpose(self, rows: [f32x8; 8]) -> [f32x8; 8] {
        f32x8::transpose(rows)
    }
}
