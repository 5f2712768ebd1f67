//! Which weights are kept.
//!
//! A unit is one weight, or with blocks the weights of `block` consecutive output channels at the same place of the kernel;
//! units of the smallest sum of squares go first. A weight that is gone does not come back: sparsity only grows.

use rayon::prelude::*;

/// Output channels and inputs per output channel of a layer, and the channels pruned together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Units {
    /// Inputs of one output channel.
    pub k: usize,
    /// Channels of a unit.
    pub block: usize,
}

impl Units {
    /// Magnitude of every unit, units in the order of their first weight.
    fn magnitudes(&self, weights: &[f32]) -> Vec<f32> {
        let rows = self.k * self.block;
        weights
            .par_chunks(rows.max(1))
            .flat_map_iter(|block| {
                (0..self.k.min(block.len())).map(|i| {
                    let squares = block[i..].iter().step_by(self.k).map(|w| w * w);
                    squares.sum::<f32>()
                })
            })
            .collect()
    }

    /// Drops units until the share `sparsity` of them is gone; `mask` is 1 where a weight is kept.
    pub fn prune(&self, weights: &mut [f32], mask: &mut [u8], sparsity: f64) {
        let magnitudes = self.magnitudes(weights);
        let count = (magnitudes.len() as f64 * sparsity).round() as usize;
        if count == 0 || magnitudes.is_empty() {
            return;
        }
        let mut order: Vec<u32> = (0..magnitudes.len() as u32).collect();
        let place = count.min(order.len()) - 1;
        // Equal magnitudes in the order of their place: the result does not depend on the selection.
        order.select_nth_unstable_by(place, |&a, &b| {
            magnitudes[a as usize]
                .total_cmp(&magnitudes[b as usize])
                .then(a.cmp(&b))
        });
        for &unit in &order[..=place] {
            let (block, i) = (unit as usize / self.k, unit as usize % self.k);
            let first = block * self.k * self.block + i;
            let end = (first + self.k * self.block).min(weights.len());
            for at in (first..end).step_by(self.k) {
                weights[at] = 0.0;
                mask[at] = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_weights() {
        let mut w = [3.0, -1.0, 0.5, 2.0, -4.0, 0.0];
        let mut mask = [1; 6];
        let units = Units { k: 3, block: 1 };
        units.prune(&mut w, &mut mask, 0.5);
        assert_eq!(w, [3.0, 0.0, 0.0, 2.0, -4.0, 0.0]);
        assert_eq!(mask, [1, 0, 0, 1, 1, 0]);
        units.prune(&mut w, &mut mask, 1.0);
        assert_eq!(mask, [0; 6]);
    }

    #[test]
    fn blocks_of_channels_go_together() {
        // Two blocks of two channels and a half one; k = 2.
        let mut w = [1.0, 9.0, 1.0, 0.0, 5.0, 0.1, 5.0, 0.1, 0.5, 7.0];
        let mut mask = [1; 10];
        Units { k: 2, block: 2 }.prune(&mut w, &mut mask, 0.5);
        assert_eq!(w, [0.0, 9.0, 0.0, 0.0, 5.0, 0.0, 5.0, 0.0, 0.0, 7.0]);
        assert_eq!(mask, [0, 1, 0, 1, 1, 0, 1, 0, 0, 1]);
    }
}
