//! Folding of batch normalisations and constants into the weights and bias of a neighbouring layer.
//!
//! After a layer: `(W x + b) * s + t` is a layer with weights `s W` and bias `s b + t`, whatever the padding, so batch
//! normalisations, additions and multiplications per channel are absorbed when nothing else reads the layer's result.
//! Before a layer only batch normalisation is absorbed, and only where that is exact: the shift must not reach padding,
//! which is zero after it. Scaling at the head of a network written as plain arithmetic is what the user's images go
//! through; it is never folded. Products are formed in f64 and rounded once.

use dcz_format::graph::{BinaryKind, ConstId, Op, Pads};

use super::draft::{Draft, DraftOp};
use super::elementwise::per_channel;

/// Folds until nothing changes.
pub(super) fn apply(draft: &mut Draft) {
    while pad_before(draft) || after(draft) || before(draft) {}
}

/// `y = x * scale + shift`, one pair per channel.
struct PerChannel {
    scale: Vec<f64>,
    shift: Vec<f64>,
}

/// Folds one normalisation or constant that follows a layer.
fn after(draft: &mut Draft) -> bool {
    let (uses, producers) = (draft.uses(), draft.producers());
    for index in 0..draft.nodes.len() {
        let &[input] = draft.nodes[index].inputs.as_slice() else {
            continue;
        };
        let Some(layer_node) = producers[input].filter(|_| uses[input] == 1) else {
            continue;
        };
        let axis_is_last = match &draft.nodes[layer_node].op {
            DraftOp::Final(Op::Conv(_)) => false,
            DraftOp::Final(Op::Linear { .. }) => true,
            _ => continue,
        };
        // The channels of a linear layer are the last axis; only for matrices that is also axis 1.
        if axis_is_last && draft.rank(input) != 2 {
            continue;
        }
        let Some(map) = per_channel_map(draft, index) else {
            continue;
        };
        absorb_after(draft, layer_node, &map);
        draft.nodes[layer_node].output = draft.nodes[index].output;
        draft.nodes.remove(index);
        return true;
    }
    false
}

fn per_channel_map(draft: &Draft, index: usize) -> Option<PerChannel> {
    let node = &draft.nodes[index];
    match &node.op {
        DraftOp::Affine { scale, shift } => Some(PerChannel {
            scale: scale.clone(),
            shift: shift.clone(),
        }),
        DraftOp::Final(Op::BinaryConst {
            kind,
            constant,
            constant_first,
        }) => {
            let &[input] = node.inputs.as_slice() else {
                return None;
            };
            let shapes = &draft.tensors[input].shapes;
            if *shapes != draft.tensors[node.output].shapes {
                return None;
            }
            let constant = draft.constant(*constant);
            let values: Vec<f64> = per_channel(&constant.dims, &constant.values, shapes.first()?)?
                .iter()
                .map(|&v| f64::from(v))
                .collect();
            let ones = || vec![1.0; values.len()];
            let zeros = || vec![0.0; values.len()];
            let negated = || values.iter().map(|v| -v).collect();
            Some(match (kind, constant_first) {
                (BinaryKind::Add, _) => PerChannel {
                    scale: ones(),
                    shift: values,
                },
                (BinaryKind::Sub, false) => PerChannel {
                    scale: ones(),
                    shift: negated(),
                },
                (BinaryKind::Sub, true) => PerChannel {
                    scale: values.iter().map(|_| -1.0).collect(),
                    shift: values,
                },
                (BinaryKind::Mul, _) => PerChannel {
                    shift: zeros(),
                    scale: values,
                },
                (BinaryKind::Div, false) => PerChannel {
                    shift: zeros(),
                    scale: values.iter().map(|v| 1.0 / v).collect(),
                },
                (BinaryKind::Div, true) => return None,
            })
        }
        _ => None,
    }
}

fn absorb_after(draft: &mut Draft, node: usize, map: &PerChannel) {
    let Some(op) = final_op(draft, node) else {
        return;
    };
    let Some(id) = op.layer() else { return };
    let layer = &mut draft.layers[id.0 as usize];
    let per_output = layer.shape.k();
    for (weights, &scale) in layer.weights.chunks_exact_mut(per_output).zip(&map.scale) {
        if scale != 1.0 {
            weights
                .iter_mut()
                .for_each(|w| *w = (f64::from(*w) * scale) as f32);
        }
    }
    let bias = bias_of(draft, &op, map.scale.len());
    let folded = bias
        .iter()
        .zip(map.scale.iter().zip(&map.shift))
        .map(|(b, (s, t))| b * s + t)
        .collect();
    set_bias(draft, node, folded);
}

/// Folds one batch normalisation that precedes a layer.
fn before(draft: &mut Draft) -> bool {
    let (uses, producers) = (draft.uses(), draft.producers());
    for layer_node in 0..draft.nodes.len() {
        let Some(op) = final_op(draft, layer_node) else {
            continue;
        };
        let Some(id) = op.layer() else { continue };
        let &[mut input] = draft.nodes[layer_node].inputs.as_slice() else {
            continue;
        };
        // A linear layer may see the channels through a flattening.
        let mut flattened = None;
        if let (Op::Linear { .. }, Some(index)) = (&op, producers[input])
            && let Some(Op::Reshape { .. }) = final_op(draft, index)
            && uses[input] == 1
        {
            flattened = Some(index);
            input = draft.nodes[index].inputs[0];
        }
        let Some(affine_node) = producers[input].filter(|_| uses[input] == 1) else {
            continue;
        };
        let DraftOp::Affine { scale, shift } = &draft.nodes[affine_node].op else {
            continue;
        };
        let layer = draft.layer(id);
        let (channels, taps) = (
            scale.len(),
            layer.shape.kernel.iter().product::<u32>() as usize,
        );
        let (in_per_group, groups) = (
            layer.shape.in_per_group as usize,
            layer.shape.groups as usize,
        );
        let k = layer.shape.k();
        // Channel of every k, per group.
        let channel_of: Box<dyn Fn(usize, usize) -> usize> = match &op {
            Op::Conv(conv) => {
                let padded = conv.pads != Pads::Explicit([0; 4]);
                if padded && shift.iter().any(|&t| t != 0.0) {
                    continue;
                }
                Box::new(move |group, k| group * in_per_group + k / taps)
            }
            _ => {
                let fits = match flattened {
                    // The batch must be kept and the channels come first: [N, C, ...] -> [N, C * ...].
                    Some(index) => {
                        let (from, to) = (
                            &draft.tensors[input].shapes,
                            &draft.tensors[draft.nodes[index].output].shapes,
                        );
                        from.iter()
                            .zip(to)
                            .all(|(f, t)| t.len() == 2 && f.first() == t.first())
                    }
                    None => draft.rank(input) == 2,
                };
                if !fits || !k.is_multiple_of(channels) {
                    continue;
                }
                let run = k / channels;
                Box::new(move |_, k| k / run)
            }
        };
        let (scale, shift) = (scale.clone(), shift.clone());
        let layer = &mut draft.layers[id.0 as usize];
        let out = layer.shape.out_channels as usize;
        let out_per_group = out / groups;
        let mut added = vec![0.0f64; out];
        for (output, weights) in layer.weights.chunks_exact_mut(k).enumerate() {
            for (position, weight) in weights.iter_mut().enumerate() {
                let channel = channel_of(output / out_per_group, position);
                added[output] += f64::from(*weight) * shift[channel];
                *weight = (f64::from(*weight) * scale[channel]) as f32;
            }
        }
        if added.iter().any(|&a| a != 0.0) {
            let bias = bias_of(draft, &op, out)
                .iter()
                .zip(&added)
                .map(|(b, a)| b + a)
                .collect();
            set_bias(draft, layer_node, bias);
        }
        let source = draft.nodes[affine_node].inputs[0];
        draft.nodes[flattened.unwrap_or(layer_node)].inputs[0] = source;
        draft.nodes.remove(affine_node);
        return true;
    }
    false
}

/// Folds one zero padding of the spatial axes into the convolution that alone reads it.
fn pad_before(draft: &mut Draft) -> bool {
    let (uses, producers) = (draft.uses(), draft.producers());
    for index in 0..draft.nodes.len() {
        let Some(conv) = draft.conv(index) else {
            continue;
        };
        let Pads::Explicit(own) = conv.pads else {
            continue;
        };
        let Some(pad_node) = draft.nodes[index]
            .inputs
            .first()
            .and_then(|&t| producers[t].filter(|_| uses[t] == 1))
        else {
            continue;
        };
        let Some(Op::Pad { amounts, value }) = final_op(draft, pad_node) else {
            continue;
        };
        let &[(0, 0), (0, 0), (top, bottom), (left, right)] = amounts.as_slice() else {
            continue;
        };
        let sums = [
            (own[0], top),
            (own[1], left),
            (own[2], bottom),
            (own[3], right),
        ]
        .map(|(a, b)| a.checked_add(b));
        let [Some(top), Some(left), Some(bottom), Some(right)] = sums else {
            continue;
        };
        if value != 0.0 {
            continue;
        }
        let source = draft.nodes[pad_node].inputs[0];
        if let DraftOp::Final(Op::Conv(conv)) = &mut draft.nodes[index].op {
            conv.pads = Pads::Explicit([top, left, bottom, right]);
        }
        draft.nodes[index].inputs[0] = source;
        draft.nodes.remove(pad_node);
        return true;
    }
    false
}

fn final_op(draft: &Draft, node: usize) -> Option<Op> {
    match &draft.nodes[node].op {
        DraftOp::Final(op) => Some(op.clone()),
        _ => None,
    }
}

fn bias_id(op: &Op) -> Option<ConstId> {
    match op {
        Op::Conv(conv) => conv.bias,
        Op::Linear { bias, .. } => *bias,
        _ => None,
    }
}

fn bias_of(draft: &Draft, op: &Op, channels: usize) -> Vec<f64> {
    match bias_id(op) {
        Some(id) => draft
            .constant(id)
            .values
            .iter()
            .map(|&v| f64::from(v))
            .collect(),
        None => vec![0.0; channels],
    }
}

fn set_bias(draft: &mut Draft, node: usize, values: Vec<f64>) {
    let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
    let name = format!("{}.bias", draft.nodes[node].name);
    let id = (values.iter().any(|&v| v != 0.0))
        .then(|| draft.add_constant(&name, vec![values.len()], values));
    match &mut draft.nodes[node].op {
        DraftOp::Final(Op::Conv(conv)) => conv.bias = id,
        DraftOp::Final(Op::Linear { bias, .. }) => *bias = id,
        _ => {}
    }
}
