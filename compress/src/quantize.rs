//! Quantisation of one layer: float weights to codes, and the values the codes stand for.
//!
//! * `grid`: `w = q * step` with a dead zone. Zero is code 0, so pruning and quantisation share one step. Rounding is
//!   biased towards zero (`sign * floor(|w| / step + 0.5 - dz)`) for coarse steps, which saves bits where most weights
//!   are; the bias fades for large codes, where it would only cost accuracy.
//! * `minmax`: `w = min + q * delta` over the surviving weights. Zero is carried by the index, so the range need not
//!   contain it.
//! * `codebook`: the layer's own values when there are at most 256, bit-exact.

use std::collections::BTreeMap;

use dcz_format::layer::{LayerShape, Steps, Values};
use dcz_format::writer::Weights;

/// Dead zone of coarse grids: how far the threshold of code 1 lies above one half.
pub const DEAD_ZONE: f32 = 0.12;
/// Steps below this many standard deviations are fine.
const FINE_STEP: f64 = 0.3;

/// A quantised layer: what codes mean, the codes, and the weights they decode to (OIHW).
#[derive(Clone, Debug)]
pub struct Quantised {
    /// Meaning of the codes.
    pub values: Values,
    /// Codes.
    pub weights: Weights,
    /// Decoded weights.
    pub decoded: Vec<f32>,
}

/// No quantisation.
pub fn raw(weights: Vec<f32>) -> Quantised {
    Quantised {
        values: Values::Raw32,
        decoded: weights.clone(),
        weights: Weights::F32(weights),
    }
}

/// Distinct values of a layer and how many weights have each; none when there are more than 257 (256 and zero).
pub fn distinct(weights: &[f32]) -> Option<BTreeMap<u32, u64>> {
    let mut counts = BTreeMap::new();
    let mut last: Option<(u32, u64)> = None;
    for bits in weights.iter().map(|w| w.to_bits()) {
        match &mut last {
            Some((value, run)) if *value == bits => *run += 1,
            _ => {
                if let Some((value, run)) = last.replace((bits, 1)) {
                    *counts.entry(value).or_insert(0) += run;
                    if counts.len() > 257 {
                        return None;
                    }
                }
            }
        }
    }
    if let Some((value, run)) = last {
        *counts.entry(value).or_insert(0) += run;
    }
    let zero = usize::from(counts.contains_key(&0));
    (counts.len() - zero <= 256).then_some(counts)
}

/// The layer's own values as a codebook, when there are at most 256 (zero not counted when it has no code).
pub fn codebook(weights: &[f32]) -> Option<Quantised> {
    let counts = distinct(weights)?;
    let has_zero = counts.contains_key(&0);
    // With 256 other values zero has no code and is carried by the index alone.
    let keep_zero = has_zero && counts.len() <= 256;
    let mut values: Vec<f32> = counts
        .keys()
        .map(|&bits| f32::from_bits(bits))
        .filter(|v| keep_zero || v.to_bits() != 0)
        .collect();
    values.sort_by(f32::total_cmp);
    let code_of: BTreeMap<u32, u8> = values
        .iter()
        .enumerate()
        .map(|(code, v)| (v.to_bits(), code as u8))
        .collect();
    let codes = weights
        .iter()
        .map(|w| code_of.get(&w.to_bits()).copied().unwrap_or(0))
        .collect();
    let absent = if has_zero {
        weights.iter().map(|w| w.to_bits() == 0).collect()
    } else {
        Vec::new()
    };
    let zero_code = if keep_zero {
        code_of.get(&0).copied()
    } else {
        None
    };
    Some(Quantised {
        values: Values::Codebook { values, zero_code },
        weights: Weights::Codes { codes, absent },
        decoded: weights.to_vec(),
    })
}

/// Bytes a codebook takes at least: its values, and the codes at their entropy.
pub fn codebook_bytes(counts: &BTreeMap<u32, u64>) -> f64 {
    let total: u64 = counts.values().sum();
    let bits: f64 = counts
        .values()
        .map(|&n| n as f64 * (total as f64 / n as f64).log2())
        .sum();
    // Four bytes a value, and about five bits for its code length.
    bits / 8.0 + counts.len() as f64 * 4.6
}

/// `min + q * delta` with `bits` bits over the weights that are not zero.
pub fn minmax(weights: &[f32], bits: u8) -> Quantised {
    let bits = bits.clamp(1, 8);
    let last = (1u32 << bits) - 1;
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    for &w in weights.iter().filter(|&&w| w != 0.0) {
        low = low.min(w);
        high = high.max(w);
    }
    if low > high {
        (low, high) = (0.0, 0.0);
    }
    let delta = ((f64::from(high) - f64::from(low)) / f64::from(last)) as f32;
    let zeros = weights.contains(&0.0);
    let code = |w: f32| {
        let q = if delta > 0.0 {
            ((f64::from(w) - f64::from(low)) / f64::from(delta)).round()
        } else {
            0.0
        };
        q.clamp(0.0, f64::from(last)) as u8
    };
    let codes: Vec<u8> = weights
        .iter()
        .map(|&w| if w == 0.0 { 0 } else { code(w) })
        .collect();
    let decoded = weights
        .iter()
        .zip(&codes)
        .map(|(&w, &q)| {
            if w == 0.0 {
                0.0
            } else {
                low + f32::from(q) * delta
            }
        })
        .collect();
    let absent = if zeros {
        weights.iter().map(|&w| w == 0.0).collect()
    } else {
        Vec::new()
    };
    Quantised {
        values: Values::Minmax {
            min: low,
            delta,
            bits,
            zero_code: None,
        },
        weights: Weights::Codes { codes, absent },
        decoded,
    }
}

/// The dead zone that goes with a step of `c` standard deviations: fine grids are rounded to the nearest, since there
/// a dead zone costs accuracy and saves next to nothing.
pub fn dead_zone(c: f64) -> f32 {
    if c >= FINE_STEP { DEAD_ZONE } else { 0.0 }
}

/// `q * step` with `|q| <= limit <= 127`, rounded with a dead zone (0: to the nearest).
pub fn grid(
    weights: &[f32],
    shape: &LayerShape,
    steps: Steps,
    dead_zone: f32,
    limit: u8,
) -> Quantised {
    let k = shape.k().max(1);
    let limit = f32::from(limit.clamp(1, 127));
    let mut codes = Vec::with_capacity(weights.len());
    let mut decoded = Vec::with_capacity(weights.len());
    for (channel, row) in weights.chunks(k).enumerate() {
        for (position, &w) in row.iter().enumerate() {
            let step = match &steps {
                Steps::Layer(step) => *step,
                Steps::Channel(steps) => steps[channel],
                Steps::Block { len, steps } => {
                    steps[channel * k.div_ceil(*len as usize) + position / *len as usize]
                }
            };
            let q = dead_zone_round(w / step, dead_zone).clamp(-limit, limit);
            codes.push(q as i8 as u8);
            decoded.push(q * step);
        }
    }
    Quantised {
        values: Values::Grid { steps },
        weights: Weights::Codes {
            codes,
            absent: Vec::new(),
        },
        decoded,
    }
}

/// A grid of one step, where codes are found with `step` and the stored step is the one that fits the weights best with
/// these codes (least squares). Matters for coarse steps, whose codes stand for wide ranges.
pub fn fitted_grid(
    weights: &[f32],
    shape: &LayerShape,
    step: f32,
    dead_zone: f32,
    limit: u8,
) -> Quantised {
    let mut result = grid(weights, shape, Steps::Layer(step), dead_zone, limit);
    let Weights::Codes { codes, .. } = &result.weights else {
        return result;
    };
    let (mut dot, mut squares) = (0.0f64, 0.0f64);
    for (&code, &w) in codes.iter().zip(weights) {
        let q = f64::from(code as i8);
        dot += q * f64::from(w);
        squares += q * q;
    }
    let fitted = if squares > 0.0 {
        (dot / squares) as f32
    } else {
        step
    };
    if fitted.is_normal() && fitted > 0.0 {
        result.decoded = codes
            .iter()
            .map(|&code| f32::from(code as i8) * fitted)
            .collect();
        result.values = Values::Grid {
            steps: Steps::Layer(fitted),
        };
    }
    result
}

/// Rounds with a dead zone that fades between 2 and 10.
fn dead_zone_round(x: f32, dead_zone: f32) -> f32 {
    let magnitude = x.abs();
    let bias = dead_zone * ((10.0 - magnitude) / 8.0).clamp(0.0, 1.0);
    (magnitude + 0.5 - bias).floor().copysign(x) + 0.0
}

/// Cosine between two lists of weights; 1 when both are zero.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let (mut dot, mut aa, mut bb) = (0.0f64, 0.0f64, 0.0f64);
    for (&x, &y) in a.iter().zip(b) {
        let (x, y) = (f64::from(x), f64::from(y));
        dot += x * y;
        aa += x * x;
        bb += y * y;
    }
    if aa == 0.0 && bb == 0.0 {
        return 1.0;
    }
    if aa == 0.0 || bb == 0.0 {
        return 0.0;
    }
    (dot / (aa.sqrt() * bb.sqrt())) as f32
}

/// Largest absolute difference.
pub fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |m, (x, y)| m.max((x - y).abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: LayerShape = LayerShape {
        out_channels: 2,
        in_per_group: 3,
        kernel: [1, 1],
        groups: 1,
    };

    #[test]
    fn a_codebook_is_bit_exact() {
        let weights = [0.0f32, 1.5, -2.25, 1.5, -0.0, 0.0];
        let q = codebook(&weights).unwrap();
        let (Values::Codebook { values, zero_code }, Weights::Codes { codes, absent }) =
            (&q.values, &q.weights)
        else {
            panic!()
        };
        assert_eq!(values.len(), 4);
        assert_eq!(zero_code.map(|c| values[usize::from(c)].to_bits()), Some(0));
        for (i, w) in weights.iter().enumerate() {
            assert_eq!(values[usize::from(codes[i])].to_bits(), w.to_bits());
            assert_eq!(absent[i], w.to_bits() == 0);
        }
    }

    #[test]
    fn codebooks_hold_256_values_beside_zero() {
        let with_zero: Vec<f32> = (0..257).map(|i| i as f32).collect();
        assert!(
            matches!(codebook(&with_zero).unwrap().values, Values::Codebook { values, zero_code: None } if values.len() == 256)
        );
        let too_many: Vec<f32> = (1..258).map(|i| i as f32).collect();
        assert!(codebook(&too_many).is_none());
    }

    #[test]
    fn minmax_spans_the_survivors() {
        let q = minmax(&[0.0, 1.0, 2.0, 4.0], 2);
        assert_eq!(q.decoded, [0.0, 1.0, 2.0, 4.0]);
        let Values::Minmax {
            min,
            delta,
            bits: 2,
            zero_code: None,
        } = q.values
        else {
            panic!()
        };
        assert_eq!((min, delta), (1.0, 1.0));
        // One value, and none at all.
        assert_eq!(minmax(&[3.0, 0.0], 4).decoded, [3.0, 0.0]);
        assert_eq!(minmax(&[0.0, 0.0], 4).decoded, [0.0, 0.0]);
    }

    #[test]
    fn the_grid_has_a_dead_zone_and_exact_zero() {
        let q = grid(
            &[0.61, -0.63, 1.0, 100.4, -300.0, 0.0],
            &SHAPE,
            Steps::Layer(1.0),
            DEAD_ZONE,
            127,
        );
        assert_eq!(q.decoded, [0.0, -1.0, 1.0, 100.0, -127.0, 0.0]);
        assert!(q.decoded[0].is_sign_positive());
        let q = grid(
            &[1.0, 2.0, 3.0, 10.0, 20.0, 30.0],
            &SHAPE,
            Steps::Channel(vec![1.0, 10.0]),
            0.0,
            127,
        );
        assert_eq!(q.decoded, [1.0, 2.0, 3.0, 10.0, 20.0, 30.0]);
    }

    #[test]
    fn a_coarse_step_is_fitted_to_what_its_codes_stand_for() {
        let weights = [1.3f32, -1.5, 0.2, 0.1, 1.4, -1.2];
        let q = fitted_grid(&weights, &SHAPE, 2.0, DEAD_ZONE, 127);
        let Values::Grid {
            steps: Steps::Layer(step),
        } = q.values
        else {
            panic!()
        };
        assert!((step - (1.3 + 1.5 + 1.4) / 3.0).abs() < 1e-6, "{step}");
        assert_eq!(q.decoded[5], 0.0);
    }
}
