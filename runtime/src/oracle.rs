//! Executes a network in f64: the truth that the runtime, the self-test and the compressor are measured against.
//!
//! Convolutions and linear layers are plain loops ordered so that the innermost one runs along a row (tested against
//! the naive oracle of the kernels); everything else is `kernels::reference`. Nothing is fused, planned or kept longer
//! than its last reader. Output channels are spread over the current rayon pool. Cost: about 1 GMAC/s per core and
//! eight bytes per live activation; weights are asked for one layer at a time.

use crate::convert;
use crate::error::{Error, Result};
use crate::shape::{self, Dims, elements};
use dcz_format::Container;
use dcz_format::graph::{ConstId, LayerId, Network, Node, Op, TensorId};
use dcz_kernels::{Activation, ConvShape, reference};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// A tensor in row-major (NCHW) order.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Dimensions, outermost first.
    pub dims: Dims,
    /// As many values as the dimensions say.
    pub values: Vec<f64>,
}

/// Where the oracle gets weights and constants from.
pub trait WeightProvider {
    /// Weights of a layer, OIHW.
    fn layer(&mut self, network: &Network, id: LayerId) -> Result<Vec<f32>>;
    /// Values of a constant.
    fn constant(&mut self, network: &Network, id: ConstId) -> Result<Vec<f32>>;
}

/// The decoded weights of an opened container.
#[derive(Debug)]
pub struct ContainerWeights<'a> {
    container: &'a Container,
    net: usize,
}

impl<'a> ContainerWeights<'a> {
    /// Of the network with this index.
    pub fn new(container: &'a Container, net: usize) -> Self {
        ContainerWeights { container, net }
    }
}

impl WeightProvider for ContainerWeights<'_> {
    fn layer(&mut self, _: &Network, id: LayerId) -> Result<Vec<f32>> {
        Ok(self.container.dense_weights(self.net, id)?)
    }
    fn constant(&mut self, network: &Network, id: ConstId) -> Result<Vec<f32>> {
        let len = shape::constant_elements(network, id).map_err(|_| Error::internal("constant"))?;
        let mut values = vec![0.0; len];
        self.container.constant(self.net, id, &mut values)?;
        Ok(values)
    }
}

/// Two closures: weights of a layer (OIHW), values of a constant.
impl<L, C> WeightProvider for (L, C)
where
    L: FnMut(LayerId) -> Result<Vec<f32>>,
    C: FnMut(ConstId) -> Result<Vec<f32>>,
{
    fn layer(&mut self, _: &Network, id: LayerId) -> Result<Vec<f32>> {
        (self.0)(id)
    }
    fn constant(&mut self, _: &Network, id: ConstId) -> Result<Vec<f32>> {
        (self.1)(id)
    }
}

/// Runs `network` and returns the tensors that `keep` selects, and always the graph outputs.
///
/// `inputs` are in the order of [`Network::inputs`]. `progress` is called with (nodes done, nodes).
pub fn run(
    network: &Network,
    inputs: &[Array],
    weights: &mut dyn WeightProvider,
    keep: &dyn Fn(TensorId) -> bool,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<BTreeMap<TensorId, Array>> {
    let mut kept = BTreeMap::new();
    let total = network.nodes.len();
    let mut done = 0;
    visit(network, inputs, weights, &mut |id, array| {
        if keep(id) || network.outputs.iter().any(|o| o.tensor == id) {
            kept.insert(id, array.clone());
        }
        if !network.inputs.contains(&id) {
            done += 1;
            progress(done, total);
        }
    })?;
    Ok(kept)
}

/// Runs `network` and shows every tensor (inputs first, then node by node) to `seen`; only live tensors are held.
pub fn visit(
    network: &Network,
    inputs: &[Array],
    weights: &mut dyn WeightProvider,
    seen: &mut dyn FnMut(TensorId, &Array),
) -> Result<()> {
    let input_dims: Vec<Dims> = inputs.iter().map(|a| a.dims.clone()).collect();
    let shapes = shape::infer(network, &input_dims)?;
    let mut readers = vec![0usize; network.tensors.len()];
    for id in network.nodes.iter().flat_map(|n| &n.inputs) {
        *readers.get_mut(id.0 as usize).ok_or_else(inconsistent)? += 1;
    }
    let mut live: BTreeMap<TensorId, Array> = BTreeMap::new();
    for (id, input) in network.inputs.iter().zip(inputs) {
        if elements(&input.dims).ok() != Some(input.values.len()) {
            return Err(inconsistent());
        }
        seen(*id, input);
        live.insert(*id, input.clone());
    }
    for node in &network.nodes {
        let out_dims = shapes
            .get(node.output.0 as usize)
            .ok_or_else(inconsistent)?;
        let out = execute(network, node, &live, out_dims, weights)?;
        seen(node.output, &out);
        live.insert(node.output, out);
        for id in node.inputs.iter().chain([&node.output]) {
            let left = readers.get_mut(id.0 as usize).ok_or_else(inconsistent)?;
            if *id != node.output {
                *left = left.saturating_sub(1);
            }
            if *left == 0 {
                live.remove(id);
            }
        }
    }
    Ok(())
}

fn inconsistent() -> Error {
    Error::internal("oracle: inconsistent tensors")
}

fn execute(
    network: &Network,
    node: &Node,
    live: &BTreeMap<TensorId, Array>,
    out_dims: &[usize],
    weights: &mut dyn WeightProvider,
) -> Result<Array> {
    let operand = |i: usize| {
        node.inputs
            .get(i)
            .and_then(|id| live.get(id))
            .ok_or_else(inconsistent)
    };
    let x = operand(0)?;
    let at = |reason| shape::ShapeError {
        place: node.name.clone(),
        reason,
    };
    let bias = |weights: &mut dyn WeightProvider, id: Option<ConstId>| {
        id.map(|id| weights.constant(network, id)).transpose()
    };
    let values = match &node.op {
        Op::Conv(conv) => {
            let layer = shape::layer_shape(network, conv.layer).map_err(at)?;
            let geometry = convert::conv_shape(conv, &layer, &x.dims).map_err(at)?;
            let w = layer_weights(network, conv.layer, weights)?;
            let bias = bias(weights, conv.bias)?;
            let image = geometry.in_channels * geometry.in_h * geometry.in_w;
            let mut out = Vec::with_capacity(out_dims.iter().product());
            for input in x.values.chunks_exact(image) {
                out.append(&mut convolve(&geometry, &w, bias.as_deref(), input));
            }
            out
        }
        Op::Linear { layer, bias: id } => {
            let w = layer_weights(network, *layer, weights)?;
            let bias = bias(weights, *id)?;
            let k = x.dims.last().copied().unwrap_or(1);
            let mut out = Vec::with_capacity(out_dims.iter().product());
            for row in x.values.chunks_exact(k) {
                out.par_extend(w.par_chunks_exact(k).enumerate().map(|(o, w)| {
                    let sum: f64 = w.iter().zip(row).map(|(&w, &x)| f64::from(w) * x).sum();
                    sum + bias.as_ref().map_or(0.0, |b| f64::from(b[o]))
                }));
            }
            out
        }
        Op::Activation(activation) => {
            let function = convert::function(*activation);
            x.values
                .iter()
                .map(|&v| reference::activate(&function, 0, v))
                .collect()
        }
        Op::Prelu { slope } => {
            let slopes = weights.constant(network, *slope)?;
            let function = Activation::Prelu(&slopes);
            let channels = x.dims.get(1).copied().unwrap_or(1);
            let plane: usize = x.dims.iter().skip(2).product();
            let channel = |i: usize| i / plane % channels;
            x.values
                .iter()
                .enumerate()
                .map(|(i, &v)| reference::activate(&function, channel(i), v))
                .collect()
        }
        Op::Binary(kind) => {
            let (y, kind) = (operand(1)?, convert::binary_kind(*kind));
            broadcast(out_dims, x, y, |a, b| reference::binary(kind, a, b))
        }
        Op::BinaryConst {
            kind,
            constant,
            constant_first,
        } => {
            let dims = shape::constant_dims(network, *constant).map_err(at)?;
            let values = weights
                .constant(network, *constant)?
                .into_iter()
                .map(f64::from)
                .collect();
            let (y, kind) = (Array { dims, values }, convert::binary_kind(*kind));
            let (a, b) = if *constant_first { (&y, x) } else { (x, &y) };
            broadcast(out_dims, a, b, |a, b| reference::binary(kind, a, b))
        }
        Op::Pool(pool) => {
            let geometry = convert::pool_shape(pool, &x.dims).map_err(at)?;
            let [_, _, h, w] = shape::nchw(&x.dims).map_err(at)?;
            let [_, _, oh, ow] = shape::nchw(out_dims).map_err(at)?;
            reference::pool(&geometry, &x.values, [h, w], [oh, ow])
        }
        Op::GlobalPool(kind) => reference::global_pool(
            convert::pool_kind(*kind),
            &x.values,
            x.dims.iter().skip(2).product(),
        ),
        Op::Pad { amounts, value } => {
            let mut out = vec![f64::from(*value); out_dims.iter().product()];
            let strides = convert::row_major(out_dims);
            let before: usize = amounts
                .iter()
                .zip(&strides)
                .map(|(&(b, _), s)| b as usize * s)
                .sum();
            gather(&x.dims, &strides, before, |i, at| out[at] = x.values[i]);
            out
        }
        Op::Concat { axis } => {
            let mut out = vec![0.0; out_dims.iter().product()];
            let strides = convert::row_major(out_dims);
            let mut first = 0;
            for i in 0..node.inputs.len() {
                let part = operand(i)?;
                let axis = *axis as usize;
                gather(&part.dims, &strides, first * strides[axis], |i, at| {
                    out[at] = part.values[i]
                });
                first += part.dims[axis];
            }
            out
        }
        Op::Reshape { .. } => x.values.clone(),
        Op::Transpose { perm } => {
            let from = convert::row_major(&x.dims);
            let strides: Vec<usize> = perm.iter().map(|&p| from[p as usize]).collect();
            pick(out_dims, &strides, 0, &x.values)
        }
        Op::Slice { ranges } => {
            let (mut strides, mut first) = (convert::row_major(&x.dims), 0);
            for range in ranges {
                let axis = range.axis as usize;
                first += shape::slice_axis(range, x.dims[axis]).map_err(at)?.0 * strides[axis];
                strides[axis] *= (range.step as usize).min(x.dims[axis]);
            }
            pick(out_dims, &strides, first, &x.values)
        }
        Op::Resize(resize) => {
            let [_, _, h, w] = shape::nchw(&x.dims).map_err(at)?;
            let (geometry, out_w) = convert::resize_shape(resize, &x.dims).map_err(at)?;
            reference::resize(&geometry, &x.values, [h, w], out_w)
        }
        Op::Softmax { axis, axis_end } => reference::softmax(
            convert::axis(&x.dims, *axis as usize, *axis_end as usize),
            &x.values,
        ),
        Op::LpNormalize { axis, p, epsilon } => {
            let axis = *axis as usize;
            reference::lp_normalize(
                convert::norm(*p),
                *epsilon,
                convert::axis(&x.dims, axis, axis + 1),
                &x.values,
            )
        }
    };
    if values.len() != out_dims.iter().product::<usize>() {
        return Err(inconsistent());
    }
    Ok(Array {
        dims: out_dims.to_vec(),
        values,
    })
}

fn layer_weights(
    network: &Network,
    id: LayerId,
    weights: &mut dyn WeightProvider,
) -> Result<Vec<f32>> {
    let values = weights.layer(network, id)?;
    let wanted = network.layers.get(id.0 as usize).map(|l| l.shape.weights());
    if wanted == Some(values.len() as u64) {
        Ok(values)
    } else {
        Err(Error::internal("oracle: number of weights"))
    }
}

/// One image; `[out_channels][out_h][out_w]`.
fn convolve(shape: &ConvShape, weights: &[f32], bias: Option<&[f32]>, input: &[f64]) -> Vec<f64> {
    let (per_group, [kh, kw]) = (shape.in_per_group(), shape.kernel);
    let (plane, in_plane) = (shape.out_h * shape.out_w, shape.in_h * shape.in_w);
    let mut out = vec![0.0; shape.out_channels * plane];
    out.par_chunks_exact_mut(plane)
        .enumerate()
        .for_each(|(oc, out)| {
            out.fill(bias.map_or(0.0, |b| f64::from(b[oc])));
            let first = oc / shape.out_per_group() * per_group;
            for (k, &w) in weights[oc * shape.k()..][..shape.k()].iter().enumerate() {
                if w == 0.0 {
                    continue;
                }
                let (ic, ky, kx) = (k / (kh * kw), k / kw % kh, k % kw);
                let source = &input[(first + ic) * in_plane..][..in_plane];
                // Output columns whose input column exists.
                let (step, shift) = (shape.stride[1], kx * shape.dilation[1]);
                let from = shape.pad_left.saturating_sub(shift).div_ceil(step);
                let to = (shape.in_w + shape.pad_left)
                    .saturating_sub(shift)
                    .div_ceil(step)
                    .min(shape.out_w);
                for oy in 0..shape.out_h {
                    let y =
                        (oy * shape.stride[0] + ky * shape.dilation[0]).checked_sub(shape.pad_top);
                    let Some(y) = y.filter(|&y| y < shape.in_h && from < to) else {
                        continue;
                    };
                    let row = &source[y * shape.in_w..][..shape.in_w];
                    let begin = from * step + shift - shape.pad_left;
                    let out = &mut out[oy * shape.out_w + from..oy * shape.out_w + to];
                    if step == 1 {
                        out.iter_mut()
                            .zip(&row[begin..])
                            .for_each(|(o, &x)| *o += f64::from(w) * x);
                    } else {
                        out.iter_mut()
                            .zip(row[begin..].iter().step_by(step))
                            .for_each(|(o, &x)| *o += f64::from(w) * x);
                    }
                }
            }
        });
    out
}

/// Calls `f(i, offset)` for every element `i` (row-major) of `dims`.
fn gather(dims: &[usize], strides: &[usize], first: usize, mut f: impl FnMut(usize, usize)) {
    for i in 0..dims.iter().product() {
        let (mut rest, mut at) = (i, first);
        for (&d, &s) in dims.iter().zip(strides).rev() {
            at += rest % d * s;
            rest /= d;
        }
        f(i, at);
    }
}

fn pick(dims: &[usize], strides: &[usize], first: usize, values: &[f64]) -> Vec<f64> {
    let mut out = Vec::with_capacity(dims.iter().product());
    gather(dims, strides, first, |_, at| out.push(values[at]));
    out
}

fn broadcast(dims: &[usize], a: &Array, b: &Array, f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let strides = |x: &Array| {
        let lead = dims.len() - x.dims.len();
        let own = convert::row_major(&x.dims);
        let own = own
            .iter()
            .zip(&x.dims)
            .map(|(&s, &d)| if d == 1 { 0 } else { s });
        std::iter::repeat_n(0, lead)
            .chain(own)
            .collect::<Vec<usize>>()
    };
    let a = pick(dims, &strides(a), 0, &a.values);
    let b = pick(dims, &strides(b), 0, &b.values);
    a.into_iter().zip(b).map(|(a, b)| f(a, b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn convolution_equals_the_naive_oracle() {
        let mut shape = ConvShape {
            in_channels: 4,
            out_channels: 6,
            groups: 1,
            kernel: [3, 2],
            stride: [1, 1],
            dilation: [1, 1],
            pad_top: 0,
            pad_left: 0,
            in_h: 9,
            in_w: 11,
            out_h: 7,
            out_w: 10,
        };
        let noise = |n: usize| {
            (0..n)
                .map(|i| ((i * 2654435761) % 1000) as f32 / 500.0 - 1.0)
                .collect::<Vec<_>>()
        };
        let variants = [
            (1, [1, 1], [1, 1], 0, 0),
            (2, [2, 3], [1, 2], 1, 2),
            (1, [1, 2], [2, 1], 2, 1),
        ];
        for (groups, stride, dilation, pad_top, pad_left) in variants {
            shape = ConvShape {
                groups,
                stride,
                dilation,
                pad_top,
                pad_left,
                ..shape
            };
            let extent = |axis: usize| (shape.kernel[axis] - 1) * dilation[axis] + 1;
            shape.out_h = (shape.in_h + 2 * pad_top - extent(0)) / stride[0] + 1;
            shape.out_w = (shape.in_w + 2 * pad_left - extent(1)) / stride[1] + 1;
            let weights = noise(shape.out_channels * shape.k());
            let input = noise(shape.in_channels * shape.in_h * shape.in_w);
            let wide: Vec<f64> = input.iter().map(|&v| f64::from(v)).collect();
            let (naive, _) = reference::conv(&shape, &weights, &input);
            let ours = convolve(&shape, &weights, None, &wide);
            assert_eq!(naive.len(), ours.len());
            assert!(
                naive.iter().zip(&ours).all(|(a, b)| (a - b).abs() < 1e-12),
                "{shape:?}"
            );
        }
    }
}
