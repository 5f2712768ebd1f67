//! Inputs and sampling positions of the self-test.
//!
//! The input stream is SplitMix64 (Steele, Lea, Flood 2014): value `i` of the stream (one stream over all inputs of
//! the network in their order, each in row-major order) mixes `seed + (i + 1) * 0x9E3779B97F4A7C15`, so that any part can be made
//! alone. The top 24 bits `u` give `low + (high - low) * (u / 2^24)`, every operation rounded to f32: the same bits
//! everywhere. Expectations sample an output at `i * len / n`.

use crate::graph::{Generator, SelfTest};

/// Most samples of one output.
pub const MAX_SAMPLES: usize = 64;
/// Most bytes of a serialised self-test.
pub const MAX_BYTES: usize = 1024;

/// Fills `out` with stream values `offset..offset + out.len()`.
pub fn generate(test: &SelfTest, offset: u64, out: &mut [f32]) {
    let Generator::SplitMix64 = test.generator;
    let [low, high] = test.range;
    for (index, value) in (offset..).zip(out) {
        let unit = (splitmix64(test.seed, index) >> 40) as f32 / (1u32 << 24) as f32;
        *value = low + (high - low) * unit;
    }
}

fn splitmix64(seed: u64, index: u64) -> u64 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Positions sampled from an output of `len` elements when `n` samples are kept: `i * len / n`.
pub fn sample_positions(len: usize, n: usize) -> impl Iterator<Item = usize> {
    (0..n).map(move |i| (i as u128 * len as u128 / n.max(1) as u128) as usize)
}

/// How many samples of an output of `len` elements fit when the network has `outputs` outputs: at most
/// [`MAX_SAMPLES`], and so few that the whole self-test stays within [`MAX_BYTES`].
pub fn samples_per_output(outputs: usize, len: usize) -> usize {
    // fixed part: generator, seed, range, count; per output: length, magnitude, norm, count.
    let room = (MAX_BYTES - 24) / outputs.max(1);
    (room.saturating_sub(16) / 4).clamp(1, MAX_SAMPLES).min(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test() -> SelfTest {
        SelfTest {
            generator: Generator::SplitMix64,
            seed: 1_234_567,
            range: [-1.0, 1.0],
            expected: Vec::new(),
        }
    }

    #[test]
    fn splitmix_matches_the_published_sequence() {
        // First outputs of the reference implementation for seed 1234567.
        let first: Vec<u64> = (0..3).map(|i| splitmix64(1_234_567, i)).collect();
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn parts_equal_the_whole() {
        let mut whole = [0.0; 100];
        generate(&test(), 0, &mut whole);
        let mut part = [0.0; 40];
        generate(&test(), 60, &mut part);
        assert_eq!(whole[60..], part);
        assert!(whole.iter().all(|v| (-1.0..1.0).contains(v)));
    }

    #[test]
    fn samples() {
        assert_eq!(sample_positions(10, 4).collect::<Vec<_>>(), [0, 2, 5, 7]);
        assert_eq!(samples_per_output(1, 128), 64);
        assert_eq!(samples_per_output(1, 5), 5);
        assert_eq!(samples_per_output(12, 100), 16);
    }
}
