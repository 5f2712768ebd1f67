//! The score of the contest that dcz began with: memory, size and accuracy of a compressed network beside the original.
//!
//! `score = ((M - m)/M * 20 + (S - s)/S * 80) * A(z) * B(s)`: M, m peak memory of the original and of the compressed network,
//! S, s their sizes, z accuracy of the compressed one. `A` is 1 for z >= 0.97, 0.9 from 0.965, else 0; `B` is 1 for s <= 40 MB,
//! 0.9 to 50 MB, 0.8 to 63 MB, else 0, with MB of 10^6 bytes. The contest's slides print the size term as (S - s)/s and B as a
//! function of z; both are read as slips, since the text's intent and thresholds in MB are clear.

use serde_json::{Value, json};

use crate::accuracy::figures::Contest;

/// What the score is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Peak memory of the original, in bytes.
    pub original_peak: u64,
    /// Peak memory of the compressed network.
    pub compressed_peak: u64,
    /// Size of the original's files.
    pub original_bytes: u64,
    /// Size of the compressed file.
    pub compressed_bytes: u64,
    /// Accuracy of the compressed network.
    pub contest: Contest,
}

impl Score {
    /// Share of memory saved, at most 1; negative when more is needed.
    pub fn memory_saved(&self) -> f64 {
        saved(self.original_peak, self.compressed_peak)
    }
    /// Share of size saved.
    pub fn size_saved(&self) -> f64 {
        saved(self.original_bytes, self.compressed_bytes)
    }
    /// The factor for accuracy.
    pub fn a(&self) -> f64 {
        self.contest.a()
    }
    /// The factor for size.
    pub fn b(&self) -> f64 {
        b(self.compressed_bytes)
    }
    /// The score, at most 100.
    pub fn value(&self) -> f64 {
        (self.memory_saved() * 20.0 + self.size_saved() * 80.0) * self.a() * self.b()
    }

    /// Everything as JSON.
    pub fn json(&self) -> Value {
        json!({
            "kind": "score",
            "score": self.value(),
            "M": self.original_peak,
            "m": self.compressed_peak,
            "S": self.original_bytes,
            "s": self.compressed_bytes,
            "z": self.contest.z,
            "A": self.a(),
            "B": self.b(),
            "memory_points": 20.0 * self.memory_saved(),
            "size_points": 80.0 * self.size_saved(),
            "positives": self.contest.positives,
            "negatives": self.contest.negatives,
            "removed": self.contest.removed,
            "rank": self.contest.rank,
            "threshold": self.contest.threshold,
        })
    }
}

fn saved(original: u64, compressed: u64) -> f64 {
    1.0 - compressed as f64 / original.max(1) as f64
}

fn b(bytes: u64) -> f64 {
    const MB: u64 = 1_000_000;
    match bytes {
        _ if bytes <= 40 * MB => 1.0,
        _ if bytes <= 50 * MB => 0.9,
        _ if bytes <= 63 * MB => 0.8,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(z: f64, compressed_bytes: u64) -> Score {
        Score {
            original_peak: 100_000_000,
            compressed_peak: 10_000_000,
            original_bytes: 80_000_000,
            compressed_bytes,
            contest: Contest {
                z,
                positives: 500,
                negatives: 100_000,
                removed: 0,
                rank: 10,
                threshold: 0.3,
            },
        }
    }

    #[test]
    fn the_formula() {
        // 90 % of memory and of size saved.
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        close(score(0.97, 8_000_000).value(), 90.0);
        close(score(0.969, 8_000_000).value(), 81.0);
        close(score(0.9649, 8_000_000).value(), 0.0);
        close(score(1.0, 40_000_000).value(), 58.0);
        close(score(1.0, 40_000_001).b(), 0.9);
        close(score(1.0, 50_000_001).b(), 0.8);
        close(score(1.0, 63_000_001).b(), 0.0);
        // Larger than the original: less than nothing for size.
        assert!(score(1.0, 160_000_000).size_saved() < 0.0);
        assert_eq!(score(0.97, 8_000_000).json()["A"], 1.0);
    }
}
