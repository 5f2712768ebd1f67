//! Face verification figures on LFW-style pairs: best-threshold accuracy over listed pairs, and the true positive rate
//! at a false positive rate over all pairs of the images.

use std::collections::HashMap;
use std::path::Path;

/// Listed pairs by image file name: `(first, second, same person)`.
pub struct Pairs(pub Vec<(String, String, bool)>);

impl Pairs {
    /// Reads the standard format: `name i j` for a pair of one person, `a i b j` for two persons, after a header.
    ///
    /// # Panics
    /// When the file is not of that form.
    pub fn read(path: &Path) -> Pairs {
        let text = std::fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = |name: &str, number: &str| format!("{name}_{:0>4}.jpg", number);
        let pairs = text
            .lines()
            .skip(1)
            .filter(|line| !line.trim().is_empty())
            .map(
                |line| match line.split_whitespace().collect::<Vec<_>>()[..] {
                    [name, i, j] => (file(name, i), file(name, j), true),
                    [a, i, b, j] => (file(a, i), file(b, j), false),
                    _ => panic!("not a pair: {line}"),
                },
            );
        Pairs(pairs.collect())
    }
}

/// How alike two embeddings are: larger is more alike.
pub type Score = fn(&[f32], &[f32]) -> f64;

/// Share of the listed pairs decided correctly at the best single threshold.
///
/// # Panics
/// When a listed image has no embedding.
pub fn best_threshold_accuracy(
    pairs: &Pairs,
    embeddings: &HashMap<String, Vec<f32>>,
    score: Score,
) -> f64 {
    let mut scored: Vec<(f64, bool)> = pairs
        .0
        .iter()
        .map(|(a, b, same)| {
            (
                score(&embeddings[a.as_str()], &embeddings[b.as_str()]),
                *same,
            )
        })
        .collect();
    scored.sort_by(|x, y| y.0.total_cmp(&x.0));
    let positives = scored.iter().filter(|(_, same)| *same).count();
    // Everything at or above the threshold is called "same": walk the threshold down.
    let mut correct = scored.len() - positives;
    let mut best = correct;
    for (_, same) in &scored {
        if *same {
            correct += 1
        } else {
            correct -= 1
        }
        best = best.max(correct);
    }
    best as f64 / scored.len() as f64
}

/// Share of same-person pairs at or above the threshold that lets `fpr` of the different-person pairs through, over all
/// pairs of the images. The person is the file name up to its last underscore.
///
/// # Panics
/// When there is no pair of either kind.
pub fn true_positive_rate(embeddings: &HashMap<String, Vec<f32>>, fpr: f64, score: Score) -> f64 {
    let mut named: Vec<(&str, &Vec<f32>)> = embeddings
        .iter()
        .map(|(file, e)| {
            (
                file.rsplit_once('_')
                    .map_or(file.as_str(), |(name, _)| name),
                e,
            )
        })
        .collect();
    named.sort_by_key(|(name, _)| *name);
    let (mut same, mut different) = (Vec::new(), Vec::new());
    for (i, (name, a)) in named.iter().enumerate() {
        for (other, b) in &named[i + 1..] {
            if name == other {
                same.push(score(a, b))
            } else {
                different.push(score(a, b))
            }
        }
    }
    different.sort_by(|x, y| y.total_cmp(x));
    let threshold = different[(different.len() as f64 * fpr) as usize];
    same.iter().filter(|score| **score >= threshold).count() as f64 / same.len() as f64
}

/// Cosine of the angle.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| {
        x.iter()
            .zip(y)
            .map(|(p, q)| f64::from(*p) * f64::from(*q))
            .sum::<f64>()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
}

/// Minus the Euclidean distance.
pub fn closeness(a: &[f32], b: &[f32]) -> f64 {
    let square = |(p, q): (&f32, &f32)| (f64::from(*p) - f64::from(*q)).powi(2);
    -a.iter().zip(b).map(square).sum::<f64>().sqrt()
}
