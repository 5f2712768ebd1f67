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

/// The median of any values, of an even number the mean of the two in the middle: few rounds must not show the better one. `None`
/// without any.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    Some((values.get(low)? + values.get(high)?) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::{Times, median};

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

    #[test]
    fn a_median_takes_no_side() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[9.0, 1.0, 2.0, 4.0]), Some(3.0));
    }
}
