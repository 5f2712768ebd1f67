//! Scales of channels that cost nothing: between two layers with only positively homogeneous operators in between, a
//! channel may be multiplied by a positive number in the first layer and divided by it in the second.
//!
//! One step per layer suits weights whose errors count alike. Errors of the second layer's column c count by what is left
//! of its input's variance once later columns make up for it (d_c^2), those of the first layer's row c by that row's
//! importance. Where the second layer is the larger one per channel, its columns are scaled by d_c (the layer then is
//! coded as if every column had a step of its own, at no cost: reverse water-filling over the inputs' spectrum); where
//! the second layer is depthwise, the first one's rows by their importance.

use dcz_format::graph::{Activation, Op, TensorId};

use crate::import::FloatNetwork;

/// Two layers whose common channels can be scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The node that writes the channels.
    pub first: usize,
    /// The node that reads them.
    pub second: usize,
}

/// All pairs of layers with nothing but homogeneous operators and single readers in between.
pub fn links(float: &FloatNetwork) -> Vec<Link> {
    let nodes = &float.network.nodes;
    let readers = |id: TensorId| nodes.iter().filter(|n| n.inputs.contains(&id)).count();
    let is_output = |id: TensorId| float.network.outputs.iter().any(|o| o.tensor == id);
    let writer = |id: TensorId| nodes.iter().position(|n| n.output == id);
    let mut all = Vec::new();
    for (second, node) in nodes.iter().enumerate() {
        if node.op.layer().is_none() {
            continue;
        }
        let mut at = node.inputs.first().copied();
        while let Some(id) = at.take() {
            let Some(index) = writer(id) else { break };
            if readers(id) != 1 || is_output(id) {
                break;
            }
            let passes = match &nodes[index].op {
                Op::Conv(_) | Op::Linear { .. } => {
                    all.push(Link {
                        first: index,
                        second,
                    });
                    false
                }
                Op::Activation(Activation::Relu | Activation::LeakyRelu { .. })
                | Op::Prelu { .. }
                | Op::Pool(_)
                | Op::GlobalPool(_) => true,
                // Only channels stay together when a map becomes a row; the length is checked when scales are applied.
                Op::Reshape { .. } => matches!(node.op, Op::Linear { .. }),
                Op::Pad { amounts, value } => {
                    *value == 0.0 && amounts.get(1).is_none_or(|&pad| pad == (0, 0))
                }
                _ => false,
            };
            if passes {
                at = nodes[index].inputs.first().copied();
            }
        }
    }
    all
}

/// Multiplies the channels of a link by `scales` (positive, one per output channel of the first layer).
///
/// Does nothing and says so when the second layer's inputs are not whole channels.
pub fn apply(float: &mut FloatNetwork, link: Link, scales: &[f32]) -> bool {
    let nodes = &float.network.nodes;
    let (first, second) = (&nodes[link.first].op, &nodes[link.second].op);
    let (Some(a), Some(b)) = (first.layer(), second.layer()) else {
        return false;
    };
    let bias = match first {
        Op::Conv(conv) => conv.bias,
        Op::Linear { bias, .. } => *bias,
        _ => None,
    };
    let shape = float.layers[b.0 as usize].shape;
    let inputs = shape.k() * shape.groups as usize;
    if scales.is_empty() || !inputs.is_multiple_of(scales.len()) {
        return false;
    }
    let per_channel = inputs / scales.len();
    let layer = &mut float.layers[a.0 as usize];
    let k = layer.shape.k().max(1);
    for (row, scale) in layer.weights.chunks_exact_mut(k).zip(scales) {
        row.iter_mut().for_each(|w| *w *= scale);
    }
    if let Some(bias) = bias {
        let values = &mut float.constants[bias.0 as usize].values;
        values.iter_mut().zip(scales).for_each(|(b, s)| *b *= s);
    }
    let per_group = (shape.out_channels / shape.groups.max(1)) as usize;
    let k = shape.k().max(1);
    let layer = &mut float.layers[b.0 as usize];
    for (row, weights) in layer.weights.chunks_exact_mut(k).enumerate() {
        let group = row / per_group.max(1);
        for (i, w) in weights.iter_mut().enumerate() {
            *w /= scales[(group * k + i) / per_channel];
        }
    }
    true
}

/// Scales whose logarithms have mean zero, within 1000 of each other; what is not positive and finite becomes 1.
pub fn normalised(wanted: &[f64]) -> Vec<f32> {
    let good = |v: f64| v.is_finite() && v > 0.0;
    let logs: Vec<f64> = wanted
        .iter()
        .filter(|&&v| good(v))
        .map(|v| v.ln())
        .collect();
    let mean = logs.iter().sum::<f64>() / logs.len().max(1) as f64;
    wanted
        .iter()
        .map(|&v| {
            if good(v) {
                (v.ln() - mean).clamp(-3.5, 3.5).exp() as f32
            } else {
                1.0
            }
        })
        .collect()
}
