//! Verification figures of a network's embeddings: accuracy on the listed pairs, true positive rates on the listed pairs
//! and over all pairs of the images, the contest's z, the ROC curve.
//!
//! Accuracy is that of ten-fold cross-validation when the list has ten folds (the threshold is chosen on nine, the tenth is
//! judged), else that of the single best threshold. The contest's z takes the listed pairs of one person as (a_i, b_i);
//! negatives are all (a_i, b_j) with i != j. LFW repeats people, so those of one person are taken out of the negatives:
//! literally applied the rule would call a network bad for recognising them. Cost: n^2/2 similarities for n images.

use std::collections::HashMap;

use dcz_format::graph::Metric;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::embed::Embeddings;
use super::pairs::{Pairs, person};
use crate::error::Error;

/// False positive rates that are reported.
pub const RATES: [f64; 3] = [1e-2, 1e-3, 1e-4];
/// Fewest positives of the contest's z.
const LEAST_POSITIVES: usize = 500;
/// Fewest negatives of the contest's z.
const LEAST_NEGATIVES: usize = 100_000;
/// Share of the negatives whose identities are kept for the bootstrap.
const TOP: f64 = 0.05;

/// A listed pair with its similarity.
#[derive(Clone, Copy, Debug)]
pub struct Scored {
    /// Similarity, larger is more alike.
    pub score: f64,
    /// Numbers of the two people.
    pub people: [u32; 2],
    /// They are one.
    pub same: bool,
    /// Part of the list.
    pub fold: usize,
}

/// The similarities of a network on a set of images.
#[derive(Debug)]
pub struct Measured {
    /// Listed pairs of which both images are there.
    pub listed: Vec<Scored>,
    /// Number of listed pairs of which one is not.
    pub missing: usize,
    /// Folds of the list.
    pub folds: usize,
    /// All pairs of images of one person, descending, with the person's number.
    pub same: Vec<(f64, u32)>,
    /// All similarities between images of different people, descending.
    pub different: Vec<f32>,
    /// The largest of them with the numbers of the people, descending.
    pub top: Vec<(f64, [u32; 2])>,
    /// Images per person.
    pub people: Vec<u32>,
    /// The contest's z, or why there is none.
    pub contest: Result<Contest, String>,
}

/// The contest's measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contest {
    /// Share of positives at or above the threshold.
    pub z: f64,
    /// Number of positives.
    pub positives: usize,
    /// Number of negatives.
    pub negatives: usize,
    /// Pairs (a_i, b_j) of one person, i != j, that were taken out of the negatives.
    pub removed: usize,
    /// The threshold's rank among the negatives, from 0.
    pub rank: usize,
    /// The threshold.
    pub threshold: f64,
}

impl Contest {
    /// The factor A of the contest's score.
    pub fn a(&self) -> f64 {
        match self.z {
            z if z >= 0.97 => 1.0,
            z if z >= 0.965 => 0.9,
            _ => 0.0,
        }
    }
}

/// A true positive rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Wanted false positive rate.
    pub fpr: f64,
    /// Share of positives at or above the threshold.
    pub tpr: f64,
    /// The similarity at rank floor(fpr * negatives).
    pub threshold: f64,
    /// There are at least 1 / fpr negatives; else the threshold is the largest of too few.
    pub resolved: bool,
}

/// Accuracy on the listed pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Accuracy {
    /// At the best single threshold.
    Best {
        /// Share of pairs decided correctly.
        accuracy: f64,
        /// The threshold.
        threshold: f64,
    },
    /// Mean and standard deviation over ten folds.
    TenFold {
        /// Mean.
        accuracy: f64,
        /// Standard deviation.
        deviation: f64,
    },
}

impl Accuracy {
    /// The share.
    pub fn value(&self) -> f64 {
        match self {
            Accuracy::Best { accuracy, .. } | Accuracy::TenFold { accuracy, .. } => *accuracy,
        }
    }
}

/// Embeddings made comparable: unit vectors for the cosine, as they are for the distance.
struct Space {
    rows: Vec<Vec<f64>>,
    metric: Metric,
}

impl Space {
    fn new(embeddings: &Embeddings, metric: Metric) -> Result<Space, Error> {
        let mut rows = Vec::with_capacity(embeddings.rows.len());
        for (name, row) in embeddings.names.iter().zip(&embeddings.rows) {
            let mut row: Vec<f64> = row.iter().copied().map(f64::from).collect();
            let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            if !norm.is_finite() {
                return Err(Error::Input(format!(
                    "the embedding of {name} is not finite"
                )));
            }
            if metric == Metric::Cosine && norm > 0.0 {
                row.iter_mut().for_each(|v| *v /= norm);
            }
            rows.push(row);
        }
        Ok(Space { rows, metric })
    }

    fn similarity(&self, i: usize, j: usize) -> f64 {
        let pairs = self.rows[i].iter().zip(&self.rows[j]);
        match self.metric {
            Metric::Cosine => pairs.map(|(a, b)| a * b).sum(),
            Metric::Euclidean => -pairs.map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt(),
        }
    }
}

impl Measured {
    /// Computes the similarities.
    ///
    /// Errors: [`Error::Input`] for embeddings that are not finite, fewer than two images, no listed pair of either kind.
    pub fn new(embeddings: &Embeddings, pairs: &Pairs, metric: Metric) -> Result<Measured, Error> {
        let space = Space::new(embeddings, metric)?;
        let (who, people) = number_people(&embeddings.names);
        let index: HashMap<&str, usize> = embeddings
            .names
            .iter()
            .enumerate()
            .map(|(i, name)| (name.as_str(), i))
            .collect();
        let found: Vec<(usize, usize, bool, usize)> = pairs
            .list
            .iter()
            .filter_map(|p| {
                let at = |name: &str| index.get(name).copied();
                Some((at(&p.first)?, at(&p.second)?, p.same, p.fold))
            })
            .collect();
        let listed: Vec<Scored> = found
            .iter()
            .map(|&(i, j, same, fold)| Scored {
                score: space.similarity(i, j),
                people: [who[i], who[j]],
                same,
                fold,
            })
            .collect();
        for (same, what) in [(true, "of one person"), (false, "of different people")] {
            if !listed.iter().any(|s| s.same == same) {
                return Err(Error::Input(format!(
                    "no listed pair {what} has both images: {} of {} pairs have an image that is not there",
                    pairs.list.len() - listed.len(),
                    pairs.list.len()
                )));
            }
        }
        let (same, different, top) = all_pairs(&space, &who);
        let positives: Vec<(usize, usize)> = found
            .iter()
            .filter(|(.., same, _)| *same)
            .map(|&(i, j, ..)| (i, j))
            .collect();
        Ok(Measured {
            missing: pairs.list.len() - listed.len(),
            listed,
            folds: pairs.folds,
            same,
            different,
            top,
            people,
            contest: contest(&space, &who, &positives),
        })
    }

    /// Accuracy on the listed pairs.
    pub fn accuracy(&self) -> Accuracy {
        if self.folds != 10 {
            let (correct, threshold) =
                best_threshold(self.listed.iter().map(|s| (s.score, s.same)));
            return Accuracy::Best {
                accuracy: correct / self.listed.len().max(1) as f64,
                threshold,
            };
        }
        let shares: Vec<f64> = (0..10)
            .filter_map(|fold| {
                let part = |inside: bool| {
                    self.listed
                        .iter()
                        .filter(move |s| (s.fold == fold) == inside)
                };
                let (_, threshold) = best_threshold(part(false).map(|s| (s.score, s.same)));
                let correct = part(true)
                    .filter(|s| (s.score >= threshold) == s.same)
                    .count();
                let all = part(true).count();
                (all > 0).then(|| correct as f64 / all as f64)
            })
            .collect();
        let mean = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
        let square = shares.iter().map(|s| (s - mean).powi(2)).sum::<f64>();
        Accuracy::TenFold {
            accuracy: mean,
            deviation: (square / shares.len().max(1) as f64).sqrt(),
        }
    }

    /// True positive rates on the listed pairs.
    pub fn listed_rates(&self) -> Vec<Rate> {
        let part = |same: bool| {
            let scores = self.listed.iter().filter(|s| s.same == same);
            descending(scores.map(|s| s.score).collect())
        };
        let (same, different) = (part(true), part(false));
        RATES
            .map(|fpr| rate(&same, different.len(), |rank| different[rank], fpr))
            .to_vec()
    }

    /// True positive rates over all pairs of the images; empty when there is no pair of either kind.
    pub fn rates(&self) -> Vec<Rate> {
        if self.same.is_empty() || self.different.is_empty() {
            return Vec::new();
        }
        let same: Vec<f64> = self.same.iter().map(|(s, _)| *s).collect();
        RATES.map(|fpr| self.rate(&same, fpr)).to_vec()
    }

    fn rate(&self, same: &[f64], fpr: f64) -> Rate {
        let exact = |rank: usize| match self.top.get(rank) {
            Some((score, _)) => *score,
            None => f64::from(self.different[rank]),
        };
        rate(same, self.different.len(), exact, fpr)
    }

    /// False and true positive rates over all pairs of the images, with logarithmic steps.
    pub fn roc(&self) -> Vec<(f64, f64)> {
        if self.same.is_empty() || self.different.is_empty() {
            return Vec::new();
        }
        let same: Vec<f64> = self.same.iter().map(|(s, _)| *s).collect();
        let least = (1.0 / self.different.len() as f64).max(1e-6).log10();
        const STEPS: usize = 120;
        (0..=STEPS)
            .map(|i| {
                let fpr = 10f64.powf(least * (1.0 - i as f64 / STEPS as f64));
                (fpr, self.rate(&same, fpr.min(0.999_999)).tpr)
            })
            .collect()
    }

    /// Everything as JSON.
    pub fn json(&self) -> Value {
        let rates = |rates: Vec<Rate>| -> Value {
            rates.iter().map(|r| json!({ "fpr": r.fpr, "tpr": r.tpr, "threshold": r.threshold, "resolved": r.resolved })).collect()
        };
        let accuracy = match self.accuracy() {
            Accuracy::Best {
                accuracy,
                threshold,
            } => json!({ "rule": "best threshold", "accuracy": accuracy, "threshold": threshold }),
            Accuracy::TenFold {
                accuracy,
                deviation,
            } => json!({ "rule": "ten folds", "accuracy": accuracy, "deviation": deviation }),
        };
        let contest = match &self.contest {
            Ok(c) => {
                json!({ "z": c.z, "a": c.a(), "positives": c.positives, "negatives": c.negatives, "removed": c.removed, "rank": c.rank, "threshold": c.threshold })
            }
            Err(why) => json!({ "refused": why }),
        };
        json!({
            "images": self.people.iter().sum::<u32>(),
            "people": self.people.len(),
            "listed": { "pairs": self.listed.len(), "missing": self.missing, "accuracy": accuracy, "tpr": rates(self.listed_rates()) },
            "all": { "same": self.same.len(), "different": self.different.len(), "tpr": rates(self.rates()) },
            "contest": contest,
            "roc": self.roc(),
        })
    }
}

/// A number per image, and images per number.
fn number_people(names: &[String]) -> (Vec<u32>, Vec<u32>) {
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    let mut people = Vec::new();
    let who = names
        .iter()
        .map(|name| {
            let next = numbers.len() as u32;
            let number = *numbers.entry(person(name)).or_insert(next);
            if number == next {
                people.push(0);
            }
            people[number as usize] += 1;
            number
        })
        .collect();
    (who, people)
}

type AllPairs = (Vec<(f64, u32)>, Vec<f32>, Vec<(f64, [u32; 2])>);

/// Similarities of all pairs of images: same person, different people, and the largest of those with their identities.
fn all_pairs(space: &Space, who: &[u32]) -> AllPairs {
    let images = who.len();
    let row =
        |i: usize, wanted: bool| (i + 1..images).filter(move |&j| (who[i] == who[j]) == wanted);
    let mut same: Vec<(f64, u32)> = (0..images)
        .into_par_iter()
        .flat_map_iter(|i| row(i, true).map(move |j| (space.similarity(i, j), who[i])))
        .collect();
    same.par_sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut different: Vec<f32> = (0..images)
        .into_par_iter()
        .flat_map_iter(|i| row(i, false).map(move |j| space.similarity(i, j) as f32))
        .collect();
    different.par_sort_unstable_by(|a, b| b.total_cmp(a));
    let kept = ((different.len() as f64 * TOP) as usize).max(1000);
    let least = different.get(kept).copied().unwrap_or(f32::NEG_INFINITY);
    let mut top: Vec<(f64, [u32; 2])> = (0..images)
        .into_par_iter()
        .flat_map_iter(|i| {
            row(i, false).filter_map(move |j| {
                let score = space.similarity(i, j);
                (score as f32 >= least).then_some((score, [who[i], who[j]]))
            })
        })
        .collect();
    top.par_sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    (same, different, top)
}

fn contest(space: &Space, who: &[u32], pairs: &[(usize, usize)]) -> Result<Contest, String> {
    if pairs.len() < LEAST_POSITIVES {
        return Err(format!(
            "{} listed pairs of one person, {LEAST_POSITIVES} are needed",
            pairs.len()
        ));
    }
    let rows: Vec<(Vec<f64>, usize)> = pairs
        .par_iter()
        .enumerate()
        .map(|(i, &(a, _))| {
            let others = pairs.iter().enumerate().filter(|(j, _)| *j != i);
            let (same, different): (Vec<usize>, Vec<usize>) = others
                .map(|(_, &(_, b))| b)
                .partition(|&b| who[a] == who[b]);
            let scores = different.into_iter().map(|b| space.similarity(a, b));
            (scores.collect(), same.len())
        })
        .collect();
    let removed = rows.iter().map(|(_, same)| same).sum();
    let negatives = descending(rows.into_iter().flat_map(|(scores, _)| scores).collect());
    if negatives.len() < LEAST_NEGATIVES {
        return Err(format!(
            "{} pairs (a_i, b_j) of different people, {LEAST_NEGATIVES} are needed",
            negatives.len()
        ));
    }
    let rank = (1e-4 * negatives.len() as f64) as usize;
    let threshold = negatives[rank];
    let passed = pairs
        .iter()
        .filter(|&&(a, b)| space.similarity(a, b) >= threshold);
    Ok(Contest {
        z: passed.count() as f64 / pairs.len() as f64,
        positives: pairs.len(),
        negatives: negatives.len(),
        removed,
        rank,
        threshold,
    })
}

fn descending(mut scores: Vec<f64>) -> Vec<f64> {
    scores.sort_by(|a, b| b.total_cmp(a));
    scores
}

/// `same` descends; `score(rank)` is the negative at a rank below `negatives`, which is not 0.
fn rate(same: &[f64], negatives: usize, score: impl Fn(usize) -> f64, fpr: f64) -> Rate {
    let rank = ((fpr * negatives as f64) as usize).min(negatives - 1);
    let threshold = score(rank);
    let passed = same.partition_point(|s| *s >= threshold);
    Rate {
        fpr,
        tpr: passed as f64 / same.len().max(1) as f64,
        threshold,
        resolved: fpr * negatives as f64 >= 1.0,
    }
}

/// The most pairs that one threshold decides correctly, and that threshold.
fn best_threshold(pairs: impl Iterator<Item = (f64, bool)>) -> (f64, f64) {
    let mut scored: Vec<(f64, bool)> = pairs.collect();
    // Of equal similarities the positives come last: all of them fall together.
    scored.sort_by(|x, y| y.0.total_cmp(&x.0).then(x.1.cmp(&y.1)));
    let mut correct = scored.iter().filter(|(_, same)| !same).count() as f64;
    let mut best = (correct, f64::INFINITY);
    for (i, (score, same)) in scored.iter().enumerate() {
        correct += if *same { 1.0 } else { -1.0 };
        let tied = scored.get(i + 1).is_some_and(|next| next.0 == *score);
        if correct > best.0 && !tied {
            best = (correct, *score);
        }
    }
    best
}

/// Mean and least cosine between the embeddings of two networks, and the image of the least.
pub fn agreement(a: &Embeddings, b: &Embeddings) -> Option<(f64, f64, String)> {
    let cosines = a
        .rows
        .iter()
        .zip(&b.rows)
        .map(|(x, y)| dcz::Verification::new(Metric::Cosine, None, x, y).value);
    let cosines: Vec<f64> = cosines.collect();
    let worst = cosines
        .iter()
        .enumerate()
        .min_by(|x, y| x.1.total_cmp(y.1))?;
    let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
    Some((mean, *worst.1, a.names.get(worst.0)?.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embeddings(list: &[(&str, [f32; 2])]) -> Embeddings {
        Embeddings {
            names: list.iter().map(|(n, _)| n.to_string()).collect(),
            rows: list.iter().map(|(_, v)| v.to_vec()).collect(),
            skipped: Vec::new(),
        }
    }

    #[test]
    fn known_figures() {
        let e = embeddings(&[
            ("A_0001", [1.0, 0.0]),
            ("A_0002", [1.0, 0.1]),
            ("B_0001", [0.0, 1.0]),
            ("B_0002", [1.0, 1.0]),
            ("C_0001", [1.0, 0.9]),
        ]);
        let pairs = Pairs::parse("A 1 2\nB 1 2\nA 1 B 1\nB 2 C 1\nA 1 Z 1\n").unwrap();
        let m = Measured::new(&e, &pairs, Metric::Cosine).unwrap();
        assert_eq!((m.listed.len(), m.missing), (4, 1));
        // Descending: B2-C1 (different), A1-A2 (same), B1-B2 (same), A1-B1: three of four at best.
        assert_eq!(m.accuracy().value(), 0.75);
        assert_eq!((m.same.len(), m.different.len()), (2, 8));
        // Over all pairs the largest of the negatives is B2-C1, above both positives.
        assert_eq!(m.rates()[0].tpr, 0.0);
        assert!(!m.rates()[0].resolved);
        let same: Vec<f64> = m.same.iter().map(|s| s.0).collect();
        assert_eq!(m.rate(&same, 0.2).tpr, 0.5);
        assert!(m.contest.as_ref().is_err_and(|why| why.contains("500")));
        assert!(
            m.roc()
                .windows(2)
                .all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1)
        );
    }

    #[test]
    fn equal_similarities_fall_together() {
        let (correct, threshold) =
            best_threshold([(0.5, true), (0.5, false), (0.5, true)].into_iter());
        assert_eq!((correct, threshold), (2.0, 0.5));
        let (correct, threshold) =
            best_threshold([(0.5, true), (0.5, false), (0.5, false)].into_iter());
        assert_eq!((correct, threshold), (2.0, f64::INFINITY));
    }

    #[test]
    fn ten_folds_judge_by_the_others() {
        let listed = (0..40).map(|i| Scored {
            score: if i % 2 == 0 { 0.9 } else { 0.1 } + if i < 4 { -0.85 } else { 0.0 },
            people: [i, i + 100],
            same: i % 2 == 0,
            fold: i as usize / 4,
        });
        let m = Measured {
            listed: listed.collect(),
            missing: 0,
            folds: 10,
            same: Vec::new(),
            different: Vec::new(),
            top: Vec::new(),
            people: Vec::new(),
            contest: Err(String::new()),
        };
        // The first fold's positives lie below everybody else's threshold.
        let Accuracy::TenFold {
            accuracy,
            deviation,
        } = m.accuracy()
        else {
            panic!()
        };
        assert!((accuracy - 0.95).abs() < 1e-12 && (deviation - 0.15).abs() < 1e-12);
        assert!(m.rates().is_empty() && m.roc().is_empty());
    }

    #[test]
    fn the_contest_takes_one_person_out_of_the_negatives() {
        // 25 people with 20 pairs each; embeddings by person, so that (a_i, b_j) of one person are as alike as (a_i, b_i).
        let (mut list, mut text) = (Vec::new(), String::new());
        for p in 0..25 {
            for i in 0..20 {
                let angle = p as f32 * 0.05 + i as f32 * 1e-4;
                let at = |k: usize| {
                    (
                        format!("p{p}_{:04}", 2 * i + k + 1),
                        [angle.cos(), angle.sin()],
                    )
                };
                list.extend([at(0), at(1)]);
                text.push_str(&format!("p{p} {} {}\n", 2 * i + 1, 2 * i + 2));
            }
        }
        text.push_str("p0 1 p1 1\n");
        let e = Embeddings {
            names: list.iter().map(|(n, _)| n.clone()).collect(),
            rows: list.iter().map(|(_, v)| v.to_vec()).collect(),
            skipped: Vec::new(),
        };
        let m = Measured::new(&e, &Pairs::parse(&text).unwrap(), Metric::Cosine).unwrap();
        let c = m.contest.unwrap();
        assert_eq!((c.positives, c.removed), (500, 25 * 20 * 19));
        assert_eq!(c.negatives, 500 * 499 - 25 * 20 * 19);
        assert_eq!((c.rank, c.z, c.a()), (24, 1.0, 1.0));
    }

    #[test]
    fn useless_input_is_an_error() {
        let pairs = Pairs::parse("A 1 2\nA 1 B 1\n").unwrap();
        for (list, why) in [
            (embeddings(&[("A_0001", [1.0, 0.0])]), "of one person"),
            (
                embeddings(&[("A_0001", [1.0, 0.0]), ("A_0002", [f32::NAN, 0.0])]),
                "not finite",
            ),
        ] {
            let error = Measured::new(&list, &pairs, Metric::Cosine).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
