//! Transcendental functions in plain f32 arithmetic: the same bits on every processor, unlike the
//! platform's libm. Range reduction and polynomials after Cephes (S. Moshier, `expf.c`,
//! `tanhf.c`); relative error below 1e-6 wherever the result is a normal number (tests measure it).

/// `e^x`; 0 far below, infinity far above, NaN for NaN.
#[inline]
pub fn exp(x: f32) -> f32 {
    // Beyond these limits the result is 0 or infinity; clamping keeps the integer steps in range.
    let clamped = x.clamp(-104.0, 89.0);
    // Rounds to the nearest integer for |v| < 2^22 without a rounding instruction.
    const SHIFT: f32 = 12_582_912.0;
    let shifted = clamped * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = (clamped - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4 * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 0.166_666_65;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    // 2^n in two factors, so that both are normal numbers (|n| <= 151).
    // The same integer from the last bits of the sum, which vectors can do; of NaN some other, which changes nothing.
    let n = (shifted.to_bits() as i32).wrapping_sub(SHIFT.to_bits() as i32);
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// `2^n` for -126 <= n <= 127.
#[inline]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// `1 / (1 + e^-x)`
#[inline]
pub fn sigmoid(x: f32) -> f32 {
    let e = exp(-x.abs());
    let numerator = if x < 0.0 { e } else { 1.0 };
    numerator / (1.0 + e)
}

/// Hyperbolic tangent.
#[inline]
pub fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let p = -5.704_988e-3 * z + 2.063_909e-2;
    let p = p * z - 5.373_971_6e-2;
    let p = p * z + 1.333_144_2e-1;
    let p = p * z - 0.333_332_8;
    let small = p * z * x + x;
    let large = 1.0 - 2.0 / (exp(a + a) + 1.0);
    let large = if x < 0.0 { -large } else { large };
    if a < 0.625 { small } else { large }
}

/// `x * tanh(ln(1 + e^x))`
#[inline]
pub fn mish(x: f32) -> f32 {
    // tanh(ln(1 + e)) = (e^2 + 2e) / (e^2 + 2e + 2); beyond 20 the quotient rounds to 1.
    let e = exp(if x > 20.0 { 20.0 } else { x });
    let n = e * (e + 2.0);
    x * (n / (n + 2.0))
}
