//! What codes cost: bits of each code from how often the layer uses it.
//!
//! The coder of the container comes within a few percent of the order-0 entropy of a layer's codes in whichever of its
//! index modes is smallest, so the entropy stands for it while weights are rounded. Where inputs differ much it divides them
//! into classes and needs less: [`coded_bits`] is the estimate for a whole layer. The size of a file is always that of the file.

/// Longest code of the container, in bits; a code never seen costs a little more, for its place in the table.
const LONGEST: f32 = 13.0;

/// How often each grid code occurs, and what it costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    counts: Vec<u64>,
    bits: Vec<f32>,
}

impl Rate {
    /// From the codes of a layer.
    pub fn of(codes: &[i8]) -> Rate {
        let mut rate = Rate {
            counts: vec![0; 256],
            bits: vec![0.0; 256],
        };
        rate.add(codes);
        rate
    }

    /// Counts further codes; costs follow all codes counted so far.
    pub fn add(&mut self, codes: &[i8]) {
        for &code in codes {
            self.counts[slot(code)] += 1;
        }
        let total = self.counts.iter().sum::<u64>().max(1) as f32;
        for (bits, &count) in self.bits.iter_mut().zip(&self.counts) {
            *bits = (total / (count as f32 + 0.5)).log2().clamp(0.0, LONGEST);
        }
    }

    /// Forgets a share of the counts, so that newer codes weigh more.
    pub fn fade(&mut self, keep: f64) {
        for count in &mut self.counts {
            *count = (*count as f64 * keep) as u64;
        }
    }

    /// Bits of a code.
    pub fn bits(&self, code: i8) -> f32 {
        self.bits[slot(code)]
    }

    /// Order-0 entropy of all codes counted, in bits.
    pub fn total(&self) -> f64 {
        entropy(&self.counts)
    }
}

/// Inputs of a class of [`coded_bits`] need at least so many codes, so that a class is not made of chance.
const CODES_PER_INPUT: usize = 32;
/// Classes, and bits of each one's tables and of each input's class.
const CLASSES: usize = 8;
const CLASS_BITS: f64 = 800.0;
const INPUT_BITS: f64 = 1.5;

/// Estimated bits of a layer's codes `[rows][k]`: their entropy in one class, or in classes of equally many inputs, from those
/// with the smallest codes to those with the largest; whichever is less.
pub fn coded_bits(codes: &[i8], k: usize) -> f64 {
    let single = Rate::of(codes).total();
    let rows = codes.len() / k.max(1);
    if rows < CODES_PER_INPUT || k < CLASSES {
        return single;
    }
    let mut sizes = vec![0u32; k];
    for row in codes.chunks_exact(k) {
        let sums = sizes.iter_mut().zip(row);
        // Zero or not matters most.
        sums.for_each(|(sum, q)| *sum += 8 * u32::from(*q != 0) + u32::from(q.unsigned_abs()));
    }
    let mut order: Vec<u32> = (0..k as u32).collect();
    order.sort_by_key(|input| sizes[*input as usize]);
    let mut class = vec![0usize; k];
    for (rank, input) in order.into_iter().enumerate() {
        class[input as usize] = rank * CLASSES / k;
    }
    let mut counts = vec![[0u64; 256]; CLASSES];
    for row in codes.chunks_exact(k) {
        let codes = row.iter().zip(&class);
        codes.for_each(|(code, class)| counts[*class][slot(*code)] += 1);
    }
    let divided: f64 = counts.iter().map(|counts| entropy(counts)).sum();
    single.min(divided + CLASS_BITS * CLASSES as f64 + INPUT_BITS * k as f64)
}

/// Of all symbols counted, in bits.
fn entropy(counts: &[u64]) -> f64 {
    let total = counts.iter().sum::<u64>().max(1) as f64;
    let used = counts.iter().filter(|&&n| n > 0);
    used.map(|&n| n as f64 * (total / n as f64).log2()).sum()
}

fn slot(code: i8) -> usize {
    (i16::from(code) + 128) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_that_differ_cost_less() {
        // 64 rows; half of 1000 inputs are zero, the others +1 and -1 in turn.
        let k = 1000;
        let code = |i: usize| match (i % k < 500, (i / k + i) % 2) {
            (true, _) => 0,
            (false, 0) => 1,
            (false, _) => -1,
        };
        let codes: Vec<i8> = (0..64 * k).map(code).collect();
        let single = Rate::of(&codes).total();
        assert!((single - 64_000.0 * 1.5).abs() < 1.0, "{single}");
        let divided = coded_bits(&codes, k);
        assert!(
            (divided - 32_000.0 - 1500.0 - 6400.0).abs() < 1.0,
            "{divided}"
        );
        // The same codes without order among the inputs, and few rows: nothing to gain.
        let mixed: Vec<i8> = (0..64 * k)
            .map(|i| code(i * 7919 % (64 * k) / 64 + i % 2 * 500))
            .collect();
        assert!(coded_bits(&mixed, k) <= Rate::of(&mixed).total());
        assert_eq!(
            coded_bits(&codes[..8 * k], k),
            Rate::of(&codes[..8 * k]).total()
        );
    }
}
