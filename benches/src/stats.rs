//! Summaries of measured times.

use serde::{Deserialize, Serialize};

/// Milliseconds of a series of runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Half of the runs took at most this.
    pub median_ms: f64,
    /// The shortest.
    pub min_ms: f64,
    /// Nine of ten runs took at most this.
    pub p90_ms: f64,
    /// Runs measured.
    pub runs: usize,
}

impl Times {
    /// The summary of `times` (sorted on the way); `None` without any.
    pub fn of(times: &mut [f64]) -> Option<Times> {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len().max(1));
            times.get(index - 1).copied()
        };
        Some(Times {
            median_ms: at(0.5)?,
            min_ms: at(0.0)?,
            p90_ms: at(0.9)?,
            runs: times.len(),
        })
    }
}

/// The median of any values; `None` without any.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    Times::of(&mut values).map(|times| times.median_ms)
}

#[cfg(test)]
mod tests {
    use super::Times;

    #[test]
    fn quantiles() {
        assert_eq!(Times::of(&mut []), None);
        let mut ten: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        let times = Times::of(&mut ten).unwrap();
        assert_eq!(
            (times.median_ms, times.min_ms, times.p90_ms),
            (5.0, 1.0, 9.0)
        );
        let one = Times::of(&mut [3.0]).unwrap();
        assert_eq!((one.median_ms, one.p90_ms), (3.0, 3.0));
    }
}
