//! Intervals for the difference between two networks on the same images: a paired bootstrap over identities.
//!
//! Pairs of one list share people, so people are drawn, not pairs (with replacement, as many as there are). A person drawn
//! w times gives every pair of its own images the weight w, and a pair of two people the weight w v. Both networks are
//! measured with the same draw; the interval is that of the central 95 % of the differences. Cost: one pass over the sorted
//! listed pairs, positives, and best few percent of the negatives per draw and network.

use rayon::prelude::*;
use serde_json::{Value, json};

use super::figures::{Measured, RATES};

/// Draws.
pub const RESAMPLES: usize = 1000;

/// A figure of two networks and what is known about its difference.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// What was measured.
    pub what: String,
    /// First and second network.
    pub values: [f64; 2],
    /// First minus second, from the 2.5th to the 97.5th percentile of the draws.
    pub interval: [f64; 2],
}

impl Difference {
    /// As JSON.
    pub fn json(&self) -> Value {
        json!({ "what": self.what, "values": self.values, "difference": self.values[0] - self.values[1], "interval95": self.interval })
    }
}

/// Differences in best-threshold accuracy on the listed pairs and in true positive rates over all pairs. Both networks must
/// have been measured on the same images and pairs.
pub fn differences(a: &Measured, b: &Measured, seed: u64) -> Vec<Difference> {
    let views = [View::new(a), View::new(b)];
    let people = a.people.len();
    let whole = [0, 1].map(|n| views[n].figures(&vec![1; people]));
    let mut draws: Vec<[f64; FIGURES]> = (0..RESAMPLES as u64)
        .into_par_iter()
        .map(|draw| {
            let weights = resample(people, seed ^ draw.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let [x, y] = [0, 1].map(|n| views[n].figures(&weights));
            std::array::from_fn(|i| x[i] - y[i])
        })
        .collect();
    let names = std::iter::once("accuracy, best threshold".to_string())
        .chain(RATES.iter().map(|fpr| format!("TPR at FPR {fpr:e}")));
    names
        .enumerate()
        .map(|(i, what)| {
            draws.sort_by(|x, y| x[i].total_cmp(&y[i]));
            let at = |share: f64| draws[(share * (RESAMPLES - 1) as f64).round() as usize][i];
            Difference {
                what,
                values: [whole[0][i], whole[1][i]],
                interval: [at(0.025), at(0.975)],
            }
        })
        .collect()
}

const FIGURES: usize = 1 + RATES.len();

/// How often each person is drawn.
fn resample(people: usize, seed: u64) -> Vec<u32> {
    let mut weights = vec![0; people];
    let mut state = seed;
    for _ in 0..people {
        // SplitMix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let index = (u128::from(z) * people as u128) >> 64;
        if let Some(weight) = weights.get_mut(index as usize) {
            *weight += 1;
        }
    }
    weights
}

/// A network's pairs, sorted once.
struct View<'a> {
    measured: &'a Measured,
    /// Similarity, people, same; descending.
    listed: Vec<(f64, [u32; 2], bool)>,
}

impl View<'_> {
    fn new(measured: &Measured) -> View<'_> {
        let mut listed: Vec<_> = measured
            .listed
            .iter()
            .map(|s| (s.score, s.people, s.same))
            .collect();
        listed.sort_by(|x, y| y.0.total_cmp(&x.0).then(x.2.cmp(&y.2)));
        View { measured, listed }
    }

    /// Accuracy and true positive rates with a weight per person.
    fn figures(&self, weights: &[u32]) -> [f64; FIGURES] {
        let weight = |person: u32| f64::from(weights.get(person as usize).copied().unwrap_or(0));
        let mut figures = [0.0; FIGURES];
        figures[0] = self.accuracy(&weight);
        let counts = self.measured.people.iter().zip(weights);
        let (sum, squares) = counts.fold((0.0, 0.0), |(sum, squares), (&n, &w)| {
            let drawn = f64::from(n) * f64::from(w);
            (sum + drawn, squares + drawn * drawn)
        });
        let negatives = (sum * sum - squares) / 2.0;
        let positives: f64 = self.measured.same.iter().map(|s| weight(s.1)).sum();
        for (figure, fpr) in figures[1..].iter_mut().zip(RATES) {
            let threshold = self.threshold(&weight, fpr * negatives);
            let at = self.measured.same.partition_point(|s| s.0 >= threshold);
            let passed: f64 = self.measured.same[..at].iter().map(|s| weight(s.1)).sum();
            *figure = if positives > 0.0 {
                passed / positives
            } else {
                0.0
            };
        }
        figures
    }

    fn accuracy(&self, weight: &dyn Fn(u32) -> f64) -> f64 {
        let of = |people: [u32; 2], same: bool| {
            if same {
                weight(people[0])
            } else {
                weight(people[0]) * weight(people[1])
            }
        };
        let (mut all, mut correct) = (0.0, 0.0);
        for &(_, people, same) in &self.listed {
            let w = of(people, same);
            all += w;
            correct += if same { 0.0 } else { w };
        }
        let mut best = correct;
        for &(_, people, same) in &self.listed {
            let w = of(people, same);
            correct += if same { w } else { -w };
            best = f64::max(best, correct);
        }
        if all > 0.0 { best / all } else { 0.0 }
    }

    /// The similarity above which negatives weigh at most `allowed`.
    fn threshold(&self, weight: &dyn Fn(u32) -> f64, allowed: f64) -> f64 {
        let mut passed = 0.0;
        for &(score, people) in &self.measured.top {
            passed += weight(people[0]) * weight(people[1]);
            if passed > allowed {
                return score;
            }
        }
        self.measured.top.last().map_or(f64::INFINITY, |t| t.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accuracy::embed::Embeddings;
    use crate::accuracy::pairs::Pairs;
    use dcz_format::graph::Metric;

    /// 60 people with two images each: a direction per person with noise.
    fn measured(noise: f32) -> Measured {
        let (mut e, mut text) = (Embeddings::default(), String::new());
        let mut state = 7u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        for p in 0..60 {
            let base: Vec<f32> = (0..8).map(|_| random()).collect();
            for i in 1..=2 {
                e.names.push(format!("p{p}_{i:04}"));
                e.rows
                    .push(base.iter().map(|b| b + noise * random()).collect());
            }
            text.push_str(&format!("p{p} 1 2\np{p} 1 p{} 1\n", (p + 1) % 60));
        }
        Measured::new(&e, &Pairs::parse(&text).unwrap(), Metric::Cosine).unwrap()
    }

    #[test]
    fn a_network_does_not_differ_from_itself() {
        let m = measured(0.5);
        for d in differences(&m, &m, 1) {
            assert_eq!(
                (d.values[0] - d.values[1], d.interval),
                (0.0, [0.0, 0.0]),
                "{d:?}"
            );
        }
    }

    #[test]
    fn worse_is_told_from_better() {
        let (good, bad) = (measured(0.1), measured(1.5));
        let all = differences(&good, &bad, 1);
        assert_eq!(all, differences(&good, &bad, 1));
        let d = &all[1];
        assert!(
            d.interval[0] > 0.0 && d.interval[0] <= d.values[0] - d.values[1],
            "{d:?}"
        );
        assert!(d.interval[1] >= d.values[0] - d.values[1], "{d:?}");
        // Weights of one give the unweighted figures.
        assert_eq!(d.values[0], good.rates()[0].tpr);
        assert_eq!(all[0].values[1], bad.accuracy().value());
    }

    #[test]
    fn as_many_people_are_drawn_as_there_are() {
        let w = resample(100, 3);
        assert_eq!(w.iter().sum::<u32>(), 100);
        assert!(w.contains(&0) && w.iter().any(|&w| w > 1));
    }
}
