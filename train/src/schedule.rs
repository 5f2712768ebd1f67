//! Schedules over the progress `p` of training, 0 to 1.
//!
//! * Learning rate: a short linear start, then half a cosine to zero (Loshchilov & Hutter 2017).
//! * Sparsity: `s_t = s_f + (s_i - s_f) (1 - p')^3` (Zhu & Gupta 2017), `p'` running from 0 to 1 over the first part of
//!   training: many weights go early, while there is most redundancy, few in the end, and the rest of the time heals.

/// Share of training over which weights are removed.
pub const PRUNING_ENDS: f64 = 0.6;
/// Share of training in which the learning rate rises.
const WARM_UP: f64 = 0.03;

/// Factor of the learning rate.
pub fn learning_rate(progress: f64) -> f64 {
    let p = progress.clamp(0.0, 1.0);
    let rise = (p / WARM_UP).min(1.0);
    rise.max(0.05) * 0.5 * (1.0 + (std::f64::consts::PI * p).cos())
}

/// Sparsity between `initial` and `last` at `progress`.
pub fn sparsity(initial: f64, last: f64, progress: f64) -> f64 {
    let p = (progress / PRUNING_ENDS).clamp(0.0, 1.0);
    last + (initial - last) * (1.0 - p).powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cubic_schedule() {
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        near(sparsity(0.1, 0.9, 0.0), 0.1);
        // Half way: 0.9 - 0.8 / 8.
        near(sparsity(0.1, 0.9, PRUNING_ENDS / 2.0), 0.8);
        near(sparsity(0.1, 0.9, PRUNING_ENDS / 4.0), 0.9 - 0.8 * 0.421875);
        near(sparsity(0.1, 0.9, PRUNING_ENDS), 0.9);
        near(sparsity(0.1, 0.9, 1.0), 0.9);
    }

    #[test]
    fn the_learning_rate_rises_and_falls_to_zero() {
        assert!(learning_rate(0.0) < 0.06);
        assert!(learning_rate(0.03) > 0.99);
        assert!((learning_rate(0.5) - 0.5).abs() < 1e-12);
        assert!(learning_rate(1.0).abs() < 1e-12);
    }
}
