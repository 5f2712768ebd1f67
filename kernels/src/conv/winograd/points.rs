//! The transforms of F(m, 3) along one axis, for interpolation at 0, plus and minus a few rational
//! points, and infinity. Pairs of opposite points share their even and odd halves.
//!
//! Positions: 0, then +a and -a of each pair, infinity last. With `P(y)` the product of
//! `y - a_j^2`: the input transform takes the coefficients of the polynomials that vanish at all
//! other points, the output transform evaluates powers, the weight transform evaluates the kernel
//! and divides by the normaliser. Weights are kept as `q^2 w(p/q)`, integers when the weights
//! are, and the division is a factor per position: a transformed code is exact.
//!
//! The points decide the error. Measured on F(4, 3) with 64 channels, largest error over largest
//! output: 1, 2: 6.4e-6; 1, 1/2: 5e-6; 1/2, 3/2: 2.0e-6; 2/3, 3/2: 1.3e-6; 3/4, 3/2: 1.2e-6, whose
//! integers do not fit 16 bits. See Barabasz et al., "Error analysis and improving the accuracy of
//! Winograd convolution", 2020.

use super::lanes::Lanes;

/// Most positions along an axis.
pub(super) const MOST: usize = 8;

/// A tile size.
pub(super) trait Size {
    /// Outputs along an axis.
    const M: usize;
    /// Inputs, and positions, along an axis.
    const T: usize = Self::M + 2;
    /// Pairs of points.
    const PAIRS: usize = Self::M / 2;
    /// Coefficients.
    const C: Coefficients;
}

/// F(2x2, 3x3).
pub(super) struct F2;
/// F(4x4, 3x3).
pub(super) struct F4;
/// F(6x6, 3x3).
pub(super) struct F6;

impl Size for F2 {
    const M: usize = 2;
    const C: Coefficients = Coefficients::new([(1, 1), (0, 1), (0, 1)], 1);
}

impl Size for F4 {
    const M: usize = 4;
    const C: Coefficients = Coefficients::new([(2, 3), (3, 2), (0, 1)], 2);
}

impl Size for F6 {
    const M: usize = 6;
    const C: Coefficients = Coefficients::new([(1, 1), (2, 1), (1, 2)], 3);
}

/// What the transforms multiply with.
pub(super) struct Coefficients {
    /// The points.
    a: [f32; 3],
    /// `P(y)`, lowest power first.
    full: [f32; 4],
    /// `P(y) / (y - a_i^2)`.
    others: [[f32; 3]; 3],
    /// `a_i^k`.
    powers: [[f32; MOST]; 3],
    /// `q^2`, `p q`, `p^2` of a point `p / q`.
    integers: [[f32; 3]; 3],
    /// What a position's integer form is multiplied with, per axis.
    factors: [f64; MOST],
}

impl Coefficients {
    const fn new(points: [(i32, i32); 3], pairs: usize) -> Coefficients {
        let mut c = Coefficients {
            a: [0.0; 3],
            full: [0.0; 4],
            others: [[0.0; 3]; 3],
            powers: [[0.0; MOST]; 3],
            integers: [[0.0; 3]; 3],
            factors: [1.0; MOST],
        };
        let mut squares = [0f64; 3];
        let mut i = 0;
        while i < pairs {
            let (p, q) = (points[i].0 as f64, points[i].1 as f64);
            squares[i] = p * p / (q * q);
            c.a[i] = (p / q) as f32;
            c.integers[i] = [(q * q) as f32, (p * q) as f32, (p * p) as f32];
            let (mut k, mut power) = (0, 1f64);
            while k < MOST {
                c.powers[i][k] = power as f32;
                power = power * p / q;
                k += 1;
            }
            i += 1;
        }
        let full = product(squares, pairs, 3);
        let mut e = 0;
        while e < 4 {
            c.full[e] = full[e] as f32;
            e += 1;
        }
        c.factors[0] = 1.0 / full[0];
        let mut i = 0;
        while i < pairs {
            let others = product(squares, pairs, i);
            // The normaliser of +a and -a: 2 a^2 times the others at a^2.
            let (mut e, mut at, mut power) = (0, 0f64, 1f64);
            while e < 3 {
                c.others[i][e] = others[e] as f32;
                at += others[e] * power;
                power *= squares[i];
                e += 1;
            }
            let q = points[i].1 as f64;
            let factor = 1.0 / (2.0 * squares[i] * at * q * q);
            c.factors[1 + 2 * i] = factor;
            c.factors[2 + 2 * i] = factor;
            i += 1;
        }
        c
    }
}

/// Coefficients of the product of `y - squares[j]` over all `j < pairs` but `without`.
const fn product(squares: [f64; 3], pairs: usize, without: usize) -> [f64; 4] {
    let mut out = [1.0, 0.0, 0.0, 0.0];
    let mut j = 0;
    while j < pairs {
        if j != without {
            let mut e = 3;
            while e > 0 {
                out[e] = out[e - 1] - squares[j] * out[e];
                e -= 1;
            }
            out[0] *= -squares[j];
        }
        j += 1;
    }
    out
}

/// What position (i, j) of the integer form is multiplied with.
pub(super) fn factor<K: Size>(i: usize, j: usize) -> f32 {
    (K::C.factors[i] * K::C.factors[j]) as f32
}

/// The largest magnitude that [`weights`] makes of three weights of magnitude 1.
pub(super) fn reach<K: Size>() -> f32 {
    let sums = K::C.integers.iter().take(K::PAIRS);
    sums.map(|i| i.iter().sum()).fold(1.0, f32::max)
}

/// Input transform of `T` values.
#[inline(always)]
pub(super) fn input<K: Size, S: Lanes>(simd: S, d: [S::V; MOST]) -> [S::V; MOST] {
    let c = const { &K::C };
    let n = K::PAIRS;
    let mut out = d;
    let (mut zero, mut infinity) = (d[2 * n], d[2 * n + 1]);
    for e in 0..n {
        let f = simd.splat(c.full[e]);
        zero = simd.mul_add(f, d[2 * e], zero);
        infinity = simd.mul_add(f, d[2 * e + 1], infinity);
    }
    (out[0], out[K::T - 1]) = (zero, infinity);
    for i in 0..n {
        let (mut even, mut odd) = (d[2 * n], d[2 * n - 1]);
        for e in 0..n - 1 {
            let f = simd.splat(c.others[i][e]);
            even = simd.mul_add(f, d[2 * e + 2], even);
            odd = simd.mul_add(f, d[2 * e + 1], odd);
        }
        out[1 + 2 * i] = simd.mul_add(simd.splat(c.a[i]), odd, even);
        out[2 + 2 * i] = simd.mul_add(simd.splat(-c.a[i]), odd, even);
    }
    out
}

/// Output transform of `T` sums to `M` values.
#[inline(always)]
pub(super) fn output<K: Size, S: Lanes>(simd: S, m: [S::V; MOST]) -> [S::V; MOST] {
    let c = const { &K::C };
    let n = K::PAIRS;
    let mut halves = [[m[0]; 3]; 2];
    for i in 0..n {
        halves[0][i] = simd.add(m[1 + 2 * i], m[2 + 2 * i]);
        halves[1][i] = simd.sub(m[1 + 2 * i], m[2 + 2 * i]);
    }
    let mut out = m;
    for i in 0..n {
        out[0] = simd.add(out[0], halves[0][i]);
    }
    for k in 1..K::M {
        let half = &halves[k % 2];
        let mut sum = if k == K::M - 1 {
            simd.mul_add(simd.splat(c.powers[0][k]), half[0], m[K::T - 1])
        } else {
            simd.mul(simd.splat(c.powers[0][k]), half[0])
        };
        for i in 1..n {
            sum = simd.mul_add(simd.splat(c.powers[i][k]), half[i], sum);
        }
        out[k] = sum;
    }
    out
}

/// Weight transform of 3 weights to `T` values, without the factors.
#[inline(always)]
pub(super) fn weights<K: Size, S: Lanes>(simd: S, g: [S::V; 3]) -> [S::V; MOST] {
    let c = const { &K::C };
    let mut out = [g[0]; MOST];
    out[K::T - 1] = g[2];
    for i in 0..K::PAIRS {
        let [q2, pq, p2] = c.integers[i];
        let even = simd.mul_add(simd.splat(p2), g[2], simd.mul(simd.splat(q2), g[0]));
        let odd = simd.mul(simd.splat(pq), g[1]);
        out[1 + 2 * i] = simd.add(even, odd);
        out[2 + 2 * i] = simd.sub(even, odd);
    }
    out
}
