//! How much an error in a layer's weights moves the output: gradients by reverse accumulation.
//!
//! For a random direction v in the space of outputs (for an embedding compared by angle: at right angles to it, over its
//! length), the gradient G of v . output with respect to a layer's weights says that a small change D of the weights
//! changes the output by <D, G> in that direction; averaged over images and directions, E <D, G>^2 is the squared error
//! of the output (for an angle: 2 (1 - cosine)). Rows of D are weighted by E |G_row|^2: the Gauss-Newton
//! approximation of the curvature, with the input side taken from the Gram matrix of the layer's inputs.
//!
//! The forward pass is the runtime's; the backward pass is written here, for the operators that networks of
//! convolutions have. A network with another one gets no gradients, and every layer counts alike.

use std::collections::BTreeMap;

use dcz::shape::{self, Dims};
use dcz_format::graph::{Activation, BinaryKind, ConstId, Node, Op, Pool, PoolKind, TensorId};
use ndarray::linalg::general_mat_mul;

use super::linalg::{view, view_mut};
use super::patches::Patches;
use crate::error::Error;
use crate::import::FloatNetwork;

/// Values of every tensor of one image, by tensor.
pub type Values = BTreeMap<TensorId, Vec<f32>>;

/// What a layer's gradient is made of: its node, the gradient of its output `[channel][position]` and its input.
pub struct LayerGradient<'a> {
    /// Index of the node.
    pub node: usize,
    /// Gradient of the output, row-major as the output.
    pub output: &'a [f32],
    /// The layer's input.
    pub input: &'a [f32],
}

/// Whether all operators that lie between weights and outputs can be differentiated.
pub fn unsupported(float: &FloatNetwork) -> Option<String> {
    float.network.nodes.iter().find_map(|node| {
        let known = !matches!(
            node.op,
            Op::Resize(_) | Op::Softmax { .. } | Op::Binary(BinaryKind::Div)
        );
        (!known).then(|| node.name.clone())
    })
}

/// Propagates gradients of the outputs to all layers; `seen` is called for every node with weights, last one first.
///
/// `values` holds every tensor of the forward pass, `outputs` the gradients of the network's outputs.
pub fn backward(
    float: &FloatNetwork,
    dims: &[Dims],
    values: &Values,
    outputs: Vec<Vec<f32>>,
    seen: &mut dyn FnMut(LayerGradient) -> Result<(), Error>,
) -> Result<(), Error> {
    let network = &float.network;
    let first_layer = network
        .nodes
        .iter()
        .position(|n| n.op.layer().is_some())
        .unwrap_or(0);
    let mut gradients: BTreeMap<TensorId, Vec<f32>> = BTreeMap::new();
    for (output, gradient) in network.outputs.iter().zip(outputs) {
        add(&mut gradients, output.tensor, gradient);
    }
    for (index, node) in network.nodes.iter().enumerate().rev() {
        let Some(gradient) = gradients.remove(&node.output) else {
            continue;
        };
        let missing = || Error::Malformed(format!("node '{}': no input", node.name));
        if node.op.layer().is_some() {
            let input = node.inputs.first().and_then(|id| values.get(id));
            seen(LayerGradient {
                node: index,
                output: &gradient,
                input: input.ok_or_else(missing)?,
            })?;
        }
        if index <= first_layer {
            break;
        }
        let pass = Pass {
            float,
            dims,
            values,
            node,
            gradient: &gradient,
        };
        for (id, gradient) in pass.inputs()? {
            add(&mut gradients, id, gradient);
        }
    }
    Ok(())
}

fn add(all: &mut BTreeMap<TensorId, Vec<f32>>, id: TensorId, gradient: Vec<f32>) {
    match all.get_mut(&id) {
        Some(sum) => sum.iter_mut().zip(&gradient).for_each(|(s, g)| *s += g),
        None => {
            all.insert(id, gradient);
        }
    }
}

/// One node of the backward pass.
struct Pass<'a> {
    float: &'a FloatNetwork,
    dims: &'a [Dims],
    values: &'a Values,
    node: &'a Node,
    gradient: &'a [f32],
}

impl Pass<'_> {
    fn dims(&self, id: TensorId) -> &[usize] {
        self.dims.get(id.0 as usize).map_or(&[], Vec::as_slice)
    }

    fn value(&self, id: TensorId) -> Result<&[f32], Error> {
        self.values.get(&id).map(Vec::as_slice).ok_or_else(|| {
            Error::Malformed(format!("node '{}': a value is missing", self.node.name))
        })
    }

    fn constant(&self, id: ConstId) -> &[f32] {
        self.float
            .constants
            .get(id.0 as usize)
            .map_or(&[], |c| c.values.as_slice())
    }

    /// Gradients of the node's inputs.
    fn inputs(&self) -> Result<Vec<(TensorId, Vec<f32>)>, Error> {
        let Some(&x) = self.node.inputs.first() else {
            return Ok(Vec::new());
        };
        let one = |gradient: Vec<f32>| Ok(vec![(x, gradient)]);
        let in_dims = self.dims(x);
        let out_dims = self.dims(self.node.output);
        match &self.node.op {
            Op::Conv(_) | Op::Linear { .. } => one(self.layer(in_dims)?),
            Op::Activation(activation) => {
                let values = self.value(x)?.iter().zip(self.gradient);
                one(values.map(|(&x, g)| g * slope(*activation, x)).collect())
            }
            Op::Prelu { slope } => {
                let slopes = self.constant(*slope);
                let channels = in_dims.get(1).copied().unwrap_or(1);
                let plane: usize = in_dims.iter().skip(2).product();
                let values = self.value(x)?.iter().zip(self.gradient).enumerate();
                one(values
                    .map(|(i, (&x, &g))| {
                        let channel = i / plane.max(1) % channels;
                        let slope = slopes.get(channel).or(slopes.first());
                        if x < 0.0 {
                            g * slope.copied().unwrap_or(1.0)
                        } else {
                            g
                        }
                    })
                    .collect())
            }
            Op::Binary(kind) => self.binary(*kind, out_dims),
            Op::BinaryConst {
                kind,
                constant,
                constant_first,
            } => one(self.with_constant(*kind, *constant, *constant_first, x, out_dims)?),
            Op::Pool(pool) => one(self.pool(pool, in_dims, out_dims, self.value(x)?)?),
            Op::GlobalPool(kind) => one(self.global_pool(*kind, in_dims, self.value(x)?)),
            Op::Reshape { .. } => one(self.gradient.to_vec()),
            Op::LpNormalize { axis, p, epsilon } => {
                one(self.normalize(*axis as usize, *p, *epsilon, in_dims, self.value(x)?))
            }
            Op::Pad { amounts, .. } => {
                let strides = row_major(out_dims);
                let first = amounts
                    .iter()
                    .zip(&strides)
                    .map(|(&(b, _), s)| b as usize * s);
                one(take(in_dims, &strides, first.sum(), self.gradient))
            }
            Op::Concat { axis } => {
                let strides = row_major(out_dims);
                let mut first = 0;
                let mut all = Vec::new();
                for &id in &self.node.inputs {
                    let dims = self.dims(id);
                    let step = strides.get(*axis as usize).copied().unwrap_or(1);
                    all.push((id, take(dims, &strides, first * step, self.gradient)));
                    first += dims.get(*axis as usize).copied().unwrap_or(0);
                }
                Ok(all)
            }
            Op::Transpose { perm } => {
                let from = row_major(in_dims);
                let strides: Vec<usize> = perm.iter().map(|&p| from[p as usize]).collect();
                one(put(in_dims, out_dims, &strides, 0, self.gradient))
            }
            Op::Slice { ranges } => {
                let (mut strides, mut first) = (row_major(in_dims), 0);
                for range in ranges {
                    let axis = range.axis as usize;
                    let start = shape::slice_axis(range, in_dims[axis])
                        .map_err(|e| Error::Malformed(e.to_string()))?;
                    first += start.0 * strides[axis];
                    strides[axis] *= (range.step as usize).min(in_dims[axis]);
                }
                one(put(in_dims, out_dims, &strides, first, self.gradient))
            }
            Op::Resize(_) | Op::Softmax { .. } => Err(Error::Usage(format!(
                "node '{}': no gradient for this operator",
                self.node.name
            ))),
        }
    }

    /// Convolutions and linear layers: `W^T` times the gradient, patch by patch.
    fn layer(&self, in_dims: &[usize]) -> Result<Vec<f32>, Error> {
        let layer = self
            .node
            .op
            .layer()
            .and_then(|id| self.float.layers.get(id.0 as usize))
            .ok_or_else(|| Error::Malformed("a layer is missing".into()))?;
        let patches = Patches::of(self.node, layer.shape, in_dims)?;
        let mut input = vec![0.0; in_dims.iter().product()];
        let positions = patches.positions();
        let gradient = by_position(&patches, self.gradient, &self.node.op);
        let (k, m, groups) = (
            patches.k(),
            patches.rows_per_group(),
            patches.shape.groups as usize,
        );
        let mut all = vec![0.0f32; positions * patches.width()];
        for group in 0..groups {
            let weights = &layer.weights[group * m * k..(group + 1) * m * k];
            if m == 1 {
                for p in 0..positions {
                    let g = gradient[p * groups + group];
                    let to = &mut all[p * groups * k + group * k..][..k];
                    to.iter_mut().zip(weights).for_each(|(t, w)| *t = g * w);
                }
                continue;
            }
            let (width, channels) = (patches.width(), groups * m);
            let mut to = view_mut(&mut all[group * k..], positions, k, width)?;
            let from = view(&gradient[group * m..], positions, m, channels)?;
            general_mat_mul(1.0, &from, &view(weights, m, k, k)?, 0.0, &mut to);
        }
        for (p, patch) in all.chunks_exact(patches.width().max(1)).enumerate() {
            patches.scatter(patch, p, &mut input);
        }
        Ok(input)
    }

    fn binary(&self, kind: BinaryKind, out: &[usize]) -> Result<Vec<(TensorId, Vec<f32>)>, Error> {
        let [a, b] = self.node.inputs[..] else {
            return Ok(Vec::new());
        };
        let reduce = |id: TensorId, gradient: Vec<f32>| (id, sum_to(out, self.dims(id), &gradient));
        let g = self.gradient;
        Ok(match kind {
            BinaryKind::Add => vec![reduce(a, g.to_vec()), reduce(b, g.to_vec())],
            BinaryKind::Sub => {
                vec![
                    reduce(a, g.to_vec()),
                    reduce(b, g.iter().map(|g| -g).collect()),
                ]
            }
            BinaryKind::Mul => {
                let wide = |id| Ok::<_, Error>(spread(self.dims(id), out, self.value(id)?));
                let times = |v: Vec<f32>| v.iter().zip(g).map(|(v, g)| v * g).collect::<Vec<f32>>();
                vec![reduce(a, times(wide(b)?)), reduce(b, times(wide(a)?))]
            }
            BinaryKind::Div => {
                return Err(Error::Usage(format!(
                    "node '{}': no gradient for this operator",
                    self.node.name
                )));
            }
        })
    }

    fn with_constant(
        &self,
        kind: BinaryKind,
        constant: ConstId,
        first: bool,
        x: TensorId,
        out: &[usize],
    ) -> Result<Vec<f32>, Error> {
        let dims = self
            .float
            .constants
            .get(constant.0 as usize)
            .map_or(&[][..], |c| &c.dims);
        let c = spread(dims, out, self.constant(constant));
        let g = self.gradient.iter().zip(&c);
        let gradient: Vec<f32> = match kind {
            BinaryKind::Add => self.gradient.to_vec(),
            BinaryKind::Sub if first => self.gradient.iter().map(|g| -g).collect(),
            BinaryKind::Sub => self.gradient.to_vec(),
            BinaryKind::Mul => g.map(|(g, c)| g * c).collect(),
            BinaryKind::Div if first => {
                let x = spread(self.dims(x), out, self.value(x)?);
                g.zip(&x).map(|((g, c), x)| -g * c / (x * x)).collect()
            }
            BinaryKind::Div => g.map(|(g, c)| g / c).collect(),
        };
        Ok(sum_to(out, self.dims(x), &gradient))
    }

    fn pool(
        &self,
        pool: &Pool,
        dims: &[usize],
        out: &[usize],
        x: &[f32],
    ) -> Result<Vec<f32>, Error> {
        let wrong = |e: &dyn std::fmt::Display| Error::Malformed(e.to_string());
        let [batch, channels, h, w] = shape::nchw(dims).map_err(|e| wrong(&e))?;
        let [_, _, oh, ow] = shape::nchw(out).map_err(|e| wrong(&e))?;
        let windows = shape::pool_windows(pool, h, w).map_err(|e| wrong(&e))?;
        let mut gradient = vec![0.0; x.len()];
        for plane in 0..batch * channels {
            for (position, g) in self.gradient[plane * oh * ow..][..oh * ow]
                .iter()
                .enumerate()
            {
                let mut cells = Vec::new();
                let at = [position / ow, position % ow];
                let start = |axis: usize| {
                    (at[axis] * pool.strides[axis] as usize).wrapping_sub(windows[axis].pad)
                };
                for ky in 0..pool.kernel[0] as usize {
                    for kx in 0..pool.kernel[1] as usize {
                        let y = start(0).wrapping_add(ky * pool.dilations[0] as usize);
                        let x = start(1).wrapping_add(kx * pool.dilations[1] as usize);
                        if y < h && x < w {
                            cells.push(plane * h * w + y * w + x);
                        }
                    }
                }
                share(
                    pool.kind,
                    &cells,
                    pool_divisor(pool, cells.len()),
                    *g,
                    x,
                    &mut gradient,
                );
            }
        }
        Ok(gradient)
    }

    fn global_pool(&self, kind: PoolKind, dims: &[usize], x: &[f32]) -> Vec<f32> {
        let plane: usize = dims.iter().skip(2).product();
        let mut gradient = vec![0.0; x.len()];
        for (i, g) in self.gradient.iter().enumerate() {
            let cells: Vec<usize> = (i * plane..(i + 1) * plane).collect();
            share(kind, &cells, plane, *g, x, &mut gradient);
        }
        gradient
    }

    fn normalize(&self, axis: usize, p: u8, epsilon: f32, dims: &[usize], x: &[f32]) -> Vec<f32> {
        let len = dims.get(axis).copied().unwrap_or(1);
        let inner: usize = dims.iter().skip(axis + 1).product();
        let mut gradient = vec![0.0; x.len()];
        for start in (0..x.len() / len.max(1)).map(|i| i / inner * len * inner + i % inner) {
            let at = |i: usize| start + i * inner;
            let norm: f32 = if p == 1 {
                (0..len).map(|i| x[at(i)].abs()).sum()
            } else {
                (0..len).map(|i| x[at(i)].powi(2)).sum::<f32>().sqrt()
            };
            let dot: f32 = (0..len).map(|i| x[at(i)] * self.gradient[at(i)]).sum();
            let scale = norm.max(epsilon).max(f32::MIN_POSITIVE);
            for i in 0..len {
                let along = match p {
                    _ if norm <= epsilon => 0.0,
                    1 => x[at(i)].signum() * dot / (scale * scale),
                    _ => x[at(i)] * dot / (scale * scale * scale),
                };
                gradient[at(i)] = self.gradient[at(i)] / scale - along;
            }
        }
        gradient
    }
}

/// The gradient of a layer's output as `[position][channel]`.
pub fn by_position(patches: &Patches, gradient: &[f32], op: &Op) -> Vec<f32> {
    if !matches!(op, Op::Conv(_)) {
        return gradient.to_vec();
    }
    let (positions, channels) = (patches.positions(), patches.shape.out_channels as usize);
    let mut all = vec![0.0; positions * channels];
    for (c, plane) in gradient.chunks_exact(positions.max(1)).enumerate() {
        for (p, g) in plane.iter().enumerate() {
            all[p * channels + c] = *g;
        }
    }
    all
}

fn pool_divisor(pool: &Pool, inside: usize) -> usize {
    if pool.count_include_pad {
        (pool.kernel[0] * pool.kernel[1]) as usize
    } else {
        inside
    }
}

fn share(kind: PoolKind, cells: &[usize], divisor: usize, g: f32, x: &[f32], to: &mut [f32]) {
    match kind {
        PoolKind::Average => cells
            .iter()
            .for_each(|&i| to[i] += g / divisor.max(1) as f32),
        PoolKind::Max => {
            if let Some(&i) = cells.iter().max_by(|&&a, &&b| x[a].total_cmp(&x[b])) {
                to[i] += g;
            }
        }
    }
}

/// Derivative of an activation.
fn slope(activation: Activation, x: f32) -> f32 {
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Relu => f32::from(x > 0.0),
        Activation::LeakyRelu { alpha } => {
            if x < 0.0 {
                alpha
            } else {
                1.0
            }
        }
        Activation::Clip { min, max } => f32::from(x > min && x < max),
        Activation::Sigmoid => sigmoid(x) * (1.0 - sigmoid(x)),
        Activation::HardSigmoid { alpha, beta } => {
            let y = alpha * x + beta;
            if y > 0.0 && y < 1.0 { alpha } else { 0.0 }
        }
        Activation::HardSwish => {
            if x <= -3.0 {
                0.0
            } else if x >= 3.0 {
                1.0
            } else {
                x / 3.0 + 0.5
            }
        }
        Activation::Silu => sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x))),
        Activation::Tanh => 1.0 - x.tanh().powi(2),
        Activation::Sqrt => {
            if x > 0.0 {
                0.5 / x.sqrt()
            } else {
                0.0
            }
        }
        Activation::Exp => x.exp(),
        Activation::Mish => {
            let softplus = if x > 20.0 { x } else { x.exp().ln_1p() };
            let t = softplus.tanh();
            t + x * (1.0 - t * t) * sigmoid(x)
        }
    }
}

fn row_major(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    strides
}

/// Calls `visit(i, place)` for element `i` of a tensor, at `first` plus its index times the strides.
fn places(dims: &[usize], strides: &[usize], first: usize, mut visit: impl FnMut(usize, usize)) {
    let mut index = vec![0; dims.len()];
    let mut place = first;
    for i in 0..dims.iter().product::<usize>() {
        visit(i, place);
        for axis in (0..dims.len()).rev() {
            index[axis] += 1;
            place += strides[axis];
            if index[axis] < dims[axis] {
                break;
            }
            place -= index[axis] * strides[axis];
            index[axis] = 0;
        }
    }
}

fn take(dims: &[usize], strides: &[usize], first: usize, from: &[f32]) -> Vec<f32> {
    let mut all = vec![0.0; dims.iter().product()];
    places(dims, strides, first, |i, place| all[i] = from[place]);
    all
}

fn put(to: &[usize], dims: &[usize], strides: &[usize], first: usize, from: &[f32]) -> Vec<f32> {
    let mut all = vec![0.0; to.iter().product()];
    places(dims, strides, first, |i, place| all[place] += from[i]);
    all
}

/// Strides of a tensor seen with the dimensions it is broadcast to.
fn broadcast_strides(dims: &[usize], out: &[usize]) -> Vec<usize> {
    let own = row_major(dims);
    let missing = out.len() - dims.len().min(out.len());
    (0..out.len())
        .map(|axis| match axis.checked_sub(missing) {
            Some(i) if dims[i] > 1 => own[i],
            _ => 0,
        })
        .collect()
}

fn spread(dims: &[usize], out: &[usize], values: &[f32]) -> Vec<f32> {
    take(out, &broadcast_strides(dims, out), 0, values)
}

fn sum_to(out: &[usize], dims: &[usize], gradient: &[f32]) -> Vec<f32> {
    if out == dims {
        return gradient.to_vec();
    }
    put(dims, out, &broadcast_strides(dims, out), 0, gradient)
}
