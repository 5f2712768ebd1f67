//! The defaults: how a layer is coded when the user says nothing about it.
//!
//! Everything that is a matter of judgement is in this file. There is no data to measure accuracy with, so the rule
//! spends a budget of noise. With rounding noise `e_i` (error power over weight power) in layer `i`, the output's cosine
//! falls by about half the sum of all `e_i`, and a layer of `n_i` weights costs `n_i / 2 * log2(1 / e_i)` bits. The
//! cheapest way to spend a budget is then `e_i` proportional to `n_i`, bounded below by what 8 bits per output channel
//! give: large layers get coarse steps, small ones fine steps (reverse water-filling).
//!
//! Trained embedding networks bear far more noise than that budget: their last layer averages tens of thousands of
//! inputs into each of a few hundred outputs that are compared by angle. They are recognised by shape, and by weights
//! that are not noise: in a random matrix the largest eigenvalue of `W W^T` lies at the Marchenko-Pastur edge, in a
//! trained one far above it. Measured on SFace: 38.5 MB to 2.4 MB, accuracy on 99.75 % of LFW pairs as in float, where
//! the general rule needs 6 MB. The rule loses where a trained network of that shape is unusually sensitive: then say
//! `--step`.

use dcz_format::layer::Steps;

use crate::import::FloatLayer;
use crate::prune::standard_deviation;

/// Bits of a min/max code when none are given (the seed's value for convolutions).
pub const MINMAX_BITS: u8 = 7;

/// What a layer is to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads the network's input.
    First,
    /// A convolution with one input channel per group.
    Depthwise,
    /// Any other convolution.
    Convolution,
    /// The last linear layer.
    LastLinear,
    /// Another linear layer.
    Linear,
}

/// The default grid of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DefaultGrid {
    /// One step of so many standard deviations.
    Scaled(f64),
    /// 8 bits over the range of each output channel.
    PerChannel,
}

/// Sum of rounding noise over the layers of a network: a cosine of about 0.9993 on the output.
const NOISE_BUDGET: f64 = 0.0014;
/// Largest step in standard deviations.
const COARSEST: f64 = 2.0;
/// Step of a trained embedding network's layers.
const EMBEDDING_STEP: f64 = 0.25;
/// Step of its wide last layer.
const EMBEDDING_LAST_STEP: f64 = 2.0;
/// Layers of fewer weights are coded with 8 bits per channel in embedding networks.
const SMALL: usize = 2048;
/// A last layer is wide when it has so many inputs per output.
const WIDE: usize = 32;
/// Largest eigenvalue over the edge of a random matrix, above which weights are taken as trained.
const TRAINED: f64 = 1.2;

/// The default grids of all layers of a network.
pub fn plan(layers: &[FloatLayer], roles: &[Role]) -> Vec<DefaultGrid> {
    if is_trained_embedding(layers, roles) {
        embedding_plan(layers, roles)
    } else {
        budget_plan(layers)
    }
}

/// Noise proportional to the number of weights, within the budget, with the floor of 8 bits per channel.
fn budget_plan(layers: &[FloatLayer]) -> Vec<DefaultGrid> {
    let floors: Vec<f64> = layers.iter().map(channel_noise).collect();
    let sizes: Vec<f64> = layers.iter().map(|l| l.weights.len() as f64).collect();
    let total = |lambda: f64| {
        floors
            .iter()
            .zip(&sizes)
            .map(|(f, n)| f.max(lambda * n))
            .sum::<f64>()
    };
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if total(middle) < NOISE_BUDGET {
            low = middle
        } else {
            high = middle
        }
    }
    layers
        .iter()
        .zip(floors.iter().zip(&sizes))
        .map(|(layer, (&floor, n))| {
            let noise = low * n;
            // A step D has noise D^2 / 12.
            let step = (12.0 * noise).sqrt();
            let needed = f64::from(largest(&layer.weights)) / 127.0;
            let fits = step * standard_deviation(&layer.weights) >= needed;
            if layer.shape.is_depthwise() || noise <= floor || !fits {
                DefaultGrid::PerChannel
            } else {
                DefaultGrid::Scaled(step.min(COARSEST))
            }
        })
        .collect()
}

/// Noise of 8 bits per output channel, relative to the layer's power.
fn channel_noise(layer: &FloatLayer) -> f64 {
    let power = standard_deviation(&layer.weights).powi(2);
    let k = layer.shape.k().max(1);
    let steps = layer
        .weights
        .chunks(k)
        .map(|channel| (f64::from(largest(channel)) / 127.0).powi(2))
        .sum::<f64>();
    let channels = layer.weights.len().div_ceil(k).max(1) as f64;
    if power > 0.0 {
        steps / channels / 12.0 / power
    } else {
        0.0
    }
}

fn embedding_plan(layers: &[FloatLayer], roles: &[Role]) -> Vec<DefaultGrid> {
    let last = layers.len().saturating_sub(1);
    layers
        .iter()
        .zip(roles)
        .enumerate()
        .map(|(index, (layer, role))| {
            if matches!(role, Role::Depthwise | Role::First) || layer.weights.len() < SMALL {
                DefaultGrid::PerChannel
            } else {
                DefaultGrid::Scaled(if index == last {
                    EMBEDDING_LAST_STEP
                } else {
                    EMBEDDING_STEP
                })
            }
        })
        .collect()
}

fn is_trained_embedding(layers: &[FloatLayer], roles: &[Role]) -> bool {
    let Some((last, role)) = layers.last().zip(roles.last()) else {
        return false;
    };
    let outputs = last.shape.out_channels as usize;
    if *role != Role::LastLinear
        || !(64..=1024).contains(&outputs)
        || last.shape.k() < WIDE * outputs
    {
        return false;
    }
    let (mut trained, mut all) = (0, 0);
    for layer in layers
        .iter()
        .filter(|l| !l.shape.is_depthwise() && l.weights.len() >= 16_384)
    {
        all += layer.weights.len();
        if eigenvalue_excess(layer) > TRAINED {
            trained += layer.weights.len();
        }
    }
    2 * trained > all
}

/// Largest eigenvalue of `W W^T` over the Marchenko-Pastur edge of a random matrix of the same size and power, of at
/// most 512 x 4096 weights of the layer; power iteration.
fn eigenvalue_excess(layer: &FloatLayer) -> f64 {
    let k = layer.shape.k().max(1);
    let rows: Vec<&[f32]> = layer
        .weights
        .chunks_exact(k)
        .take(512)
        .map(|row| &row[..k.min(4096)])
        .collect();
    let (m, n) = (rows.len(), k.min(4096));
    let power: f64 = rows
        .iter()
        .flat_map(|row| row.iter())
        .map(|&w| f64::from(w).powi(2))
        .sum();
    if m == 0 || power == 0.0 {
        return 0.0;
    }
    // A start without structure of its own: golden-ratio steps.
    let mut v: Vec<f64> = (0..m)
        .map(|i| ((i + 1) as f64 * 0.618_033_988_749_895).fract() - 0.5)
        .collect();
    let mut eigenvalue = 0.0;
    for _ in 0..40 {
        let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        v.iter_mut().for_each(|x| *x /= norm.max(f64::MIN_POSITIVE));
        let mut columns = vec![0.0f64; n];
        for (row, &x) in rows.iter().zip(&v) {
            columns
                .iter_mut()
                .zip(row.iter())
                .for_each(|(c, &w)| *c += x * f64::from(w));
        }
        let next: Vec<f64> = rows
            .iter()
            .map(|row| {
                row.iter()
                    .zip(&columns)
                    .map(|(&w, c)| f64::from(w) * c)
                    .sum()
            })
            .collect();
        eigenvalue = next.iter().zip(&v).map(|(a, b)| a * b).sum();
        v = next;
    }
    // Power per row times (1 + sqrt(m / n))^2 where rows are fewer than columns; the same edge in both cases.
    let edge = power / m as f64 * (1.0 + (m as f64 / n as f64).sqrt()).powi(2);
    eigenvalue / edge
}

/// One step: `c` standard deviations, but large enough for the largest weight.
pub fn scaled_step(weights: &[f32], c: f64) -> f32 {
    positive(((standard_deviation(weights) * c) as f32).max(largest(weights) / 127.0))
}

/// One step that spends `levels` positive codes on the largest magnitude.
pub fn ranged_step(weights: &[f32], levels: f32) -> f32 {
    positive(largest(weights) / levels)
}

/// [`ranged_step`] per output channel.
pub fn channel_steps(layer: &FloatLayer, weights: &[f32], levels: f32) -> Steps {
    Steps::Channel(
        weights
            .chunks_exact(layer.shape.k().max(1))
            .map(|channel| ranged_step(channel, levels))
            .collect(),
    )
}

fn largest(weights: &[f32]) -> f32 {
    weights.iter().fold(0.0f32, |m, w| m.max(w.abs()))
}

/// A step must be positive and normal: a layer of zeros gets 1.
fn positive(step: f32) -> f32 {
    if step.is_normal() && step > 0.0 {
        step
    } else {
        1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dcz_format::layer::LayerShape;

    /// Sums of uniform numbers: nearly normal, independent.
    fn noise(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut uniform = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5
        };
        (0..count)
            .map(|_| (0..6).map(|_| uniform()).sum())
            .collect()
    }

    fn layer(out: u32, k: u32, weights: Vec<f32>) -> FloatLayer {
        FloatLayer {
            name: "l".into(),
            shape: LayerShape {
                out_channels: out,
                in_per_group: k,
                kernel: [1, 1],
                groups: 1,
            },
            weights,
        }
    }

    #[test]
    fn large_layers_get_coarse_steps() {
        let layers = [
            layer(16, 64, noise(1024, 1)),
            layer(256, 1024, noise(262_144, 2)),
        ];
        let [small, large] = budget_plan(&layers).try_into().unwrap();
        let DefaultGrid::Scaled(step) = large else {
            panic!("{large:?}")
        };
        // The whole budget in one layer would be sqrt(12 * 0.0014).
        assert!(step > 0.08 && step < 0.13, "{step}");
        assert!(
            small == DefaultGrid::PerChannel || matches!(small, DefaultGrid::Scaled(s) if s < step)
        );
    }

    #[test]
    fn trained_embeddings_are_told_from_noise() {
        let roles = [Role::First, Role::LastLinear];
        let random = [
            layer(64, 512, noise(32_768, 3)),
            layer(64, 4096, noise(262_144, 4)),
        ];
        assert!(!is_trained_embedding(&random, &roles));
        // Add a direction that many rows share.
        let mut trained = random.clone();
        for layer in &mut trained {
            let k = layer.shape.k();
            for (i, w) in layer.weights.iter_mut().enumerate() {
                *w += 0.35 * ((i % k) as f32 * 0.37).sin();
            }
        }
        assert!(is_trained_embedding(&trained, &roles));
        assert!(!is_trained_embedding(&trained[..1], &roles[..1]));
    }
}
