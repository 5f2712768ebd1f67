//! Magnitude pruning: small weights become zero.
//!
//! One rule, three ways to its threshold: set by hand, by the share of weights to drop, or by the spread of the layer
//! (`std * s`; Han et al. 2015). A weight is dropped when its magnitude is below the threshold, so equal magnitudes are
//! kept or dropped together and the result does not depend on the order of weights. There is no retraining here; beyond
//! half of the weights of an untrained network accuracy is lost.

use crate::settings::Prune;

/// The threshold for a layer; weights of smaller magnitude are dropped.
pub fn threshold(weights: &[f32], prune: Prune) -> f32 {
    match prune {
        Prune::None => 0.0,
        Prune::Manual(threshold) => threshold as f32,
        Prune::Sensitivity(s) => (standard_deviation(weights) * s) as f32,
        Prune::Percentile(percent) => {
            let count = (weights.len() as f64 * percent / 100.0).round() as usize;
            if count >= weights.len() {
                return f32::INFINITY;
            }
            let mut magnitudes: Vec<f32> = weights.iter().map(|w| w.abs()).collect();
            let (_, threshold, _) = magnitudes.select_nth_unstable_by(count, f32::total_cmp);
            *threshold
        }
    }
}

/// Sets the weights of magnitude below `threshold` to zero; gives the number of zeros afterwards.
pub fn apply(weights: &mut [f32], threshold: f32) -> usize {
    let mut zeros = 0;
    for weight in weights {
        if weight.abs() < threshold || *weight == 0.0 {
            *weight = 0.0;
            zeros += 1;
        }
    }
    zeros
}

/// Population standard deviation, zeros included.
pub fn standard_deviation(weights: &[f32]) -> f64 {
    if weights.is_empty() {
        return 0.0;
    }
    let n = weights.len() as f64;
    let mean = weights.iter().map(|&w| f64::from(w)).sum::<f64>() / n;
    let variance = weights
        .iter()
        .map(|&w| (f64::from(w) - mean).powi(2))
        .sum::<f64>()
        / n;
    variance.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds() {
        let weights = [-4.0f32, 1.0, -2.0, 3.0];
        let dropped = |prune| {
            let mut w = weights;
            let t = threshold(&w, prune);
            apply(&mut w, t);
            w
        };
        assert_eq!(dropped(Prune::None), weights);
        assert_eq!(dropped(Prune::Manual(2.0)), [-4.0, 0.0, -2.0, 3.0]);
        assert_eq!(dropped(Prune::Percentile(50.0)), [-4.0, 0.0, 0.0, 3.0]);
        assert_eq!(dropped(Prune::Percentile(0.0)), weights);
        assert_eq!(dropped(Prune::Percentile(100.0)), [0.0; 4]);
        // std of these is 2.69...
        assert_eq!(dropped(Prune::Sensitivity(1.0)), [-4.0, 0.0, 0.0, 3.0]);
    }

    #[test]
    fn percentiles_drop_the_rounded_share() {
        let mut weights: Vec<f32> = (0..10_000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 + 1.0)
            .collect();
        let t = threshold(&weights, Prune::Percentile(73.97));
        assert_eq!(apply(&mut weights, t), 7397);
    }
}
