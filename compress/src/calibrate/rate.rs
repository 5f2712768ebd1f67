//! What codes cost: bits of each code from how often the layer uses it.
//!
//! The coder of the container comes within a few percent of the order-0 entropy of a layer's codes in whichever of its
//! index modes is smallest, so the entropy stands for it while weights are rounded; the size of a file is always that of
//! the file.

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
        let total = self.counts.iter().sum::<u64>().max(1) as f64;
        let used = self.counts.iter().filter(|&&n| n > 0);
        used.map(|&n| n as f64 * (total / n as f64).log2()).sum()
    }
}

fn slot(code: i8) -> usize {
    (i16::from(code) + 128) as usize
}
