//! Which weights are kept.
//!
//! A unit is one weight, or with blocks the weights of `block` consecutive output channels at the same place of the kernel;
//! units of the smallest mean square go first. A weight that is gone does not come back: sparsity only grows.

use dcz_format::layer::LayerShape;
use rayon::prelude::*;

/// The units of a layer. Blocks lie within the panels of the file, so that a kernel can skip them whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Units {
    /// First channel and number of channels of each block.
    rows: Vec<(usize, usize)>,
    /// Inputs of one output channel.
    k: usize,
}

impl Units {
    /// Units of `block` output channels (1: single weights) of a layer.
    pub fn new(shape: &LayerShape, block: usize) -> Units {
        let rows = shape.channel_blocks(block);
        Units { rows, k: shape.k() }
    }

    /// Mean square of every unit, units in the order of their channels, then of k.
    fn magnitudes(&self, weights: &[f32]) -> Vec<f32> {
        self.rows
            .par_iter()
            .flat_map_iter(|&(first, channels)| {
                let block = &weights[first * self.k..(first + channels) * self.k];
                (0..self.k).map(move |i| {
                    let squares = block[i..].iter().step_by(self.k).map(|w| w * w);
                    squares.sum::<f32>() / channels as f32
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
            let (first, channels) = self.rows[unit as usize / self.k];
            for channel in first..first + channels {
                let at = channel * self.k + unit as usize % self.k;
                weights[at] = 0.0;
                mask[at] = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(out_channels: u32, k: u32, groups: u32) -> LayerShape {
        LayerShape {
            out_channels,
            in_per_group: k,
            kernel: [1, 1],
            groups,
        }
    }

    #[test]
    fn single_weights() {
        let mut w = [3.0, -1.0, 0.5, 2.0, -4.0, 0.0];
        let mut mask = [1; 6];
        let units = Units::new(&shape(2, 3, 1), 1);
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
        Units::new(&shape(5, 2, 1), 2).prune(&mut w, &mut mask, 0.5);
        assert_eq!(w, [0.0, 9.0, 0.0, 0.0, 5.0, 0.0, 5.0, 0.0, 0.0, 7.0]);
        assert_eq!(mask, [0, 1, 0, 1, 1, 0, 1, 0, 0, 1]);
    }

    #[test]
    fn blocks_stay_within_groups() {
        // Six channels in two groups of three: blocks 0..2, 2..3, 3..5, 5..6.
        let units = Units::new(&shape(6, 2, 2), 2);
        assert_eq!(units.rows, [(0, 2), (2, 1), (3, 2), (5, 1)]);
    }
}
