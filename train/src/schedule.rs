//! Schedules over the progress `p` of training, 0 to 1.
//!
//! * Learning rate: a short linear start, then half a cosine to zero (Loshchilov & Hutter 2017).
//! * Sparsity: `s_t = s_f + (s_i - s_f) (1 - p')^3` (Zhu & Gupta 2017), `p'` running from 0 to 1 over the first part of
//!   training: many weights go early, while there is most redundancy, few in the end, and the rest of the time heals.
//! * Size, of a student that begins as a larger file: by the same factor in every step of the first part of training, so that
//!   what is pressed out heals on the way instead of all at once.

/// Share of training over which weights are removed.
pub const PRUNING_ENDS: f64 = 0.6;
/// Share of training over which a larger file shrinks to the wanted size.
pub const SHRINKING_ENDS: f64 = 0.4;
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

/// Bytes wanted at `progress` when training began with `initial` and is to end with `last`.
pub fn size(initial: f64, last: f64, progress: f64) -> f64 {
    let left = 1.0 - (progress / SHRINKING_ENDS).clamp(0.0, 1.0);
    last * (initial / last).max(1.0).powf(left)
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
    fn the_size_shrinks_by_equal_factors() {
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        near(size(4e6, 1e6, 0.0), 4e6);
        near(size(4e6, 1e6, SHRINKING_ENDS / 2.0), 2e6);
        near(size(4e6, 1e6, SHRINKING_ENDS), 1e6);
        // A start that is small enough has nothing to shrink.
        near(size(0.9e6, 1e6, 0.1), 1e6);
    }

    #[test]
    fn the_learning_rate_rises_and_falls_to_zero() {
        assert!(learning_rate(0.0) < 0.06);
        assert!(learning_rate(0.03) > 0.99);
        assert!((learning_rate(0.5) - 0.5).abs() < 1e-12);
        assert!(learning_rate(1.0).abs() < 1e-12);
    }
}
