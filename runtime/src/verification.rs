//! Comparing two embeddings and deciding by a threshold: the one place for it, used by tools and by the face pipeline.

use dcz_format::graph::Metric;

/// What came of comparing two embeddings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verification {
    /// How they were compared.
    pub metric: Metric,
    /// Cosine similarity (0 when a vector is zero) or Euclidean distance.
    pub value: f64,
    /// The threshold in force.
    pub threshold: Option<f32>,
    /// The decision; `None` without a threshold.
    pub same: Option<bool>,
}

impl Verification {
    /// Compares two vectors of one network, in f64; elements beyond the shorter one do not count.
    pub fn new(metric: Metric, threshold: Option<f32>, a: &[f32], b: &[f32]) -> Verification {
        let pairs = || a.iter().zip(b).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        let limit = threshold.map(f64::from);
        let (value, same) = match metric {
            Metric::Cosine => {
                let (dot, aa, bb) = pairs().fold((0.0, 0.0, 0.0), |(dot, aa, bb), (a, b)| {
                    (dot + a * b, aa + a * a, bb + b * b)
                });
                let size = f64::sqrt(aa * bb);
                let value = if size > 0.0 { dot / size } else { 0.0 };
                (value, limit.map(|limit| value >= limit))
            }
            Metric::Euclidean => {
                let value = pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
                (value, limit.map(|limit| value <= limit))
            }
        };
        Verification {
            metric,
            value,
            threshold,
            same,
        }
    }

    /// How alike the two are, for ranking: larger is more alike, whatever the metric.
    pub fn closeness(&self) -> f64 {
        match self.metric {
            Metric::Cosine => self.value,
            Metric::Euclidean => -self.value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_and_decisions() {
        let decide = |metric, threshold, a: &[f32], b: &[f32]| {
            let result = Verification::new(metric, threshold, a, b);
            (result.value, result.same)
        };
        let (x, y) = ([3.0, 0.0], [3.0, 4.0]);
        assert_eq!(decide(Metric::Cosine, Some(0.6), &x, &x), (1.0, Some(true)));
        assert_eq!(
            decide(Metric::Cosine, Some(0.75), &x, &y),
            (0.6, Some(false))
        );
        assert_eq!(decide(Metric::Cosine, None, &x, &[0.0, 0.0]), (0.0, None));
        assert_eq!(
            decide(Metric::Euclidean, Some(4.0), &x, &y),
            (4.0, Some(true))
        );
        assert_eq!(
            decide(Metric::Euclidean, Some(3.0), &x, &y),
            (4.0, Some(false))
        );
        for metric in [Metric::Cosine, Metric::Euclidean] {
            let closeness = |b| Verification::new(metric, None, &x, b).closeness();
            assert!(closeness(&x) > closeness(&y));
        }
    }
}
