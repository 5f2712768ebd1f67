//! Magnitude pruning: small weights become zero.
//!
//! One rule, three ways to its threshold: set by hand, by the share of weights to drop, or by the spread of the layer
//! (`std * s`; Han et al. 2015). A weight is dropped when its magnitude is below the threshold, so equal magnitudes are
//! kept or dropped together and the result does not depend on the order of weights. There is no retraining here; beyond
//! half of the weights of an untrained network accuracy is lost.
//!
//! In blocks (Gray, Radford and Kingma 2017; Narang, Undersander and Diamos 2017) the weights of 2, 4 or 8 neighbouring
//! output channels at the same input channel and tap live or die together, by the root of their mean square: the same
//! thresholds mean the same magnitudes then. Blocks lie as the file's panels do, so that the runtime's block-sparse kernels
//! skip them whole. The price is that large weights go with small neighbours: more accuracy is lost at equal sparsity.

use dcz_format::layer::LayerShape;

use crate::settings::Prune;

/// The threshold for a layer; weights of smaller magnitude are dropped.
pub fn threshold(weights: &[f32], prune: Prune) -> f32 {
    match prune {
        Prune::None => 0.0,
        Prune::Manual(threshold) => threshold as f32,
        Prune::Sensitivity(s) => (standard_deviation(weights) * s) as f32,
        Prune::Percentile(percent) => {
            percentile(weights.iter().map(|w| w.abs()).collect(), percent)
        }
    }
}

/// The magnitude below which `percent` of the magnitudes lie; infinite for all of them.
fn percentile(mut magnitudes: Vec<f32>, percent: f64) -> f32 {
    let count = (magnitudes.len() as f64 * percent / 100.0).round() as usize;
    if count >= magnitudes.len() {
        return f32::INFINITY;
    }
    let (_, threshold, _) = magnitudes.select_nth_unstable_by(count, f32::total_cmp);
    *threshold
}

/// Sets the weights of magnitude below `threshold` to zero; gives the number of zeros afterwards.
pub fn apply(weights: &mut [f32], threshold: f32) -> usize {
    let mut zeros = 0;
    for weight in weights {
        if weight.abs() < threshold || *weight == 0.0 {
            *weight = 0.0;
            zeros += 1;
        }
    }
    zeros
}

/// Prunes a layer (OIHW) by `prune` in blocks of `block` output channels (1: every weight alone); gives the number of zeros
/// afterwards. With [`Prune::None`] nothing changes.
pub fn prune_layer(weights: &mut [f32], shape: &LayerShape, prune: Prune, block: u8) -> usize {
    if prune != Prune::None && block > 1 {
        let blocks = Blocks::new(shape, block);
        let norms = blocks.norms(weights);
        let threshold = match prune {
            Prune::Percentile(percent) => percentile(norms.clone(), percent),
            _ => threshold(weights, prune),
        };
        blocks.clear(weights, |index| norms[index] < threshold);
        return apply(weights, 0.0);
    }
    let threshold = threshold(weights, prune);
    apply(weights, threshold)
}

/// The blocks of a layer: neighbouring output channels of one panel at one input channel and tap, in the order of their
/// channels, then of k. Where the number of channels is no multiple, the last block of a group is smaller.
#[derive(Clone, Debug)]
pub struct Blocks {
    /// First channel and number of channels.
    rows: Vec<(usize, usize)>,
    k: usize,
}

impl Blocks {
    /// Blocks of `size` channels (2, 4 or 8) of a layer.
    pub fn new(shape: &LayerShape, size: u8) -> Blocks {
        let rows = shape.channel_blocks(size.into());
        Blocks { rows, k: shape.k() }
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.rows.len() * self.k
    }

    /// There are no weights.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions of a block's weights in OIHW.
    pub fn positions(&self, block: usize) -> impl Iterator<Item = usize> + use<> {
        let k = self.k.max(1);
        let (first, channels) = self.rows.get(block / k).copied().unwrap_or_default();
        (first..first + channels).map(move |channel| channel * k + block % k)
    }

    /// Root of the mean square of every block's weights.
    pub fn norms(&self, weights: &[f32]) -> Vec<f32> {
        (0..self.len())
            .map(|block| {
                let squares = self
                    .positions(block)
                    .map(|at| f64::from(weights[at]).powi(2));
                let (sum, count) = squares.fold((0.0, 0), |(s, n), square| (s + square, n + 1));
                (sum / f64::from(count.max(1))).sqrt() as f32
            })
            .collect()
    }

    /// Sets the weights of the blocks that are to be dropped to zero.
    pub fn clear(&self, weights: &mut [f32], drop: impl Fn(usize) -> bool) {
        for block in (0..self.len()).filter(|&block| drop(block)) {
            self.positions(block).for_each(|at| weights[at] = 0.0);
        }
    }

    /// Number of blocks in which every weight is zero.
    pub fn zeros(&self, weights: &[f32]) -> usize {
        (0..self.len())
            .filter(|&block| self.positions(block).all(|at| weights[at] == 0.0))
            .count()
    }
}

/// Population standard deviation, zeros included.
pub fn standard_deviation(weights: &[f32]) -> f64 {
    if weights.is_empty() {
        return 0.0;
    }
    let n = weights.len() as f64;
    let mean = weights.iter().map(|&w| f64::from(w)).sum::<f64>() / n;
    let variance = weights
        .iter()
        .map(|&w| (f64::from(w) - mean).powi(2))
        .sum::<f64>()
        / n;
    variance.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds() {
        let weights = [-4.0f32, 1.0, -2.0, 3.0];
        let dropped = |prune| {
            let mut w = weights;
            let t = threshold(&w, prune);
            apply(&mut w, t);
            w
        };
        assert_eq!(dropped(Prune::None), weights);
        assert_eq!(dropped(Prune::Manual(2.0)), [-4.0, 0.0, -2.0, 3.0]);
        assert_eq!(dropped(Prune::Percentile(50.0)), [-4.0, 0.0, 0.0, 3.0]);
        assert_eq!(dropped(Prune::Percentile(0.0)), weights);
        assert_eq!(dropped(Prune::Percentile(100.0)), [0.0; 4]);
        // std of these is 2.69...
        assert_eq!(dropped(Prune::Sensitivity(1.0)), [-4.0, 0.0, 0.0, 3.0]);
    }

    #[test]
    fn percentiles_drop_the_rounded_share() {
        let mut weights: Vec<f32> = (0..10_000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 + 1.0)
            .collect();
        let t = threshold(&weights, Prune::Percentile(73.97));
        assert_eq!(apply(&mut weights, t), 7397);
    }

    /// 12 channels in 2 groups: blocks of 4 are channels 0..4, 4..6, 6..10, 10..12.
    const SHAPE: LayerShape = LayerShape {
        out_channels: 12,
        in_per_group: 2,
        kernel: [1, 1],
        groups: 2,
    };

    #[test]
    fn blocks_stay_within_groups_and_cover_every_weight_once() {
        for size in [2, 4, 8] {
            let blocks = Blocks::new(&SHAPE, size);
            let mut seen = vec![0; 24];
            for block in 0..blocks.len() {
                let at: Vec<usize> = blocks.positions(block).collect();
                assert!(at.len() <= usize::from(size));
                assert!(
                    at.iter()
                        .all(|p| p / 12 == at[0] / 12 && p % 2 == at[0] % 2)
                );
                at.iter().for_each(|&p| seen[p] += 1);
            }
            assert_eq!(seen, [1; 24]);
        }
        let depthwise = LayerShape {
            out_channels: 10,
            in_per_group: 1,
            kernel: [3, 3],
            groups: 10,
        };
        assert_eq!(Blocks::new(&depthwise, 4).len(), 3 * 9);
    }

    #[test]
    fn blocks_die_by_their_norm() {
        // Channels 0..4 of k = 0: one large weight saves its block; of k = 1: four middling ones.
        let mut weights = vec![0.1f32; 24];
        weights[0] = 10.0;
        for channel in 0..4 {
            weights[channel * 2 + 1] = 2.0;
        }
        let dropped = |prune| {
            let mut w = weights.clone();
            let zeros = prune_layer(&mut w, &SHAPE, prune, 4);
            assert_eq!(zeros, w.iter().filter(|w| **w == 0.0).count());
            w
        };
        // Norms are 5.0007, 2 and 0.1.
        let manual = dropped(Prune::Manual(3.0));
        assert_eq!(manual[..8], [10.0, 0.0, 0.1, 0.0, 0.1, 0.0, 0.1, 0.0]);
        assert_eq!(manual[8..], [0.0; 16]);
        assert_eq!(dropped(Prune::Manual(1.0))[..8], weights[..8]);
        // 6 of 8 blocks are equal: none or all of them go.
        assert_eq!(dropped(Prune::Percentile(75.0))[..8], weights[..8]);
        assert_eq!(dropped(Prune::Percentile(87.5)), manual);
        let s = 3.0 / standard_deviation(&weights);
        assert_eq!(dropped(Prune::Sensitivity(s)), manual);
        assert_eq!(dropped(Prune::None), weights);
    }
}
