//! A network's records as differentiable tensor operations, for a whole batch.
//!
//! The records describe one image (batch 1); here the first dimension becomes the batch. Maps are `[C, N H W]` matrices
//! ([`crate::ops`]), everything else is `[N, ...]`. The same walk serves the teacher (constant tensors, nothing is
//! recorded) and the student (variables).

mod chains;
mod shapes;

use std::sync::Arc;

use candle_core::{D, Tensor, Var};
use dcz_format::graph::{BinaryKind, Network, Node, Op, PoolKind, TensorId};
use dcz_format::layer::LayerShape;

use crate::error::Error;
use crate::ops::activation::Elementwise;
use crate::ops::geometry::Window;
use crate::ops::linear::Linear;
use crate::ops::param::{Param, Pool};
use crate::ops::pool::Pooling;
use crate::ops::rows::{RowKind, Rows};

/// An activation.
#[derive(Clone, Debug)]
pub enum Value {
    /// `[C, N H W]`
    Map {
        /// The matrix.
        t: Tensor,
        /// Height and width.
        size: [usize; 2],
    },
    /// `[N, ...]`
    Plain(Tensor),
}

/// Weights `[O, K]` per layer and constants.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    /// By layer id.
    pub layers: Vec<Param>,
    /// By constant id.
    pub constants: Vec<Constant>,
    /// Whether gradients are wanted.
    pub trained: bool,
}

/// A constant, for operations of ours and of the library.
#[derive(Clone, Debug)]
pub struct Constant {
    /// For ours.
    pub param: Param,
    /// Flat; a variable when it is trained.
    pub tensor: Tensor,
}

impl Constant {
    /// One that is not trained.
    ///
    /// Errors: the library's.
    pub fn fixed(values: &[f32]) -> Result<Constant> {
        Ok(Constant {
            param: Param::fixed(values.to_vec()),
            tensor: crate::ops::tensor(values.to_vec(), &[values.len()])?,
        })
    }
}

/// What the walk needs to know beside the tensors.
#[derive(Clone, Debug)]
pub struct Graph<'a> {
    /// The records.
    pub network: &'a Network,
    /// By layer id.
    pub shapes: Vec<LayerShape>,
    /// Dimensions by constant id.
    pub constant_dims: Vec<Vec<usize>>,
    /// Buffers of maps.
    pub pool: Arc<Pool>,
}

type Result<T> = std::result::Result<T, Error>;

fn refuse(node: &Node, why: impl std::fmt::Display) -> Error {
    Error::Unsupported(format!("'{}' cannot be trained: {why}", node.name))
}

/// A batch of images `[C, N H W]` from one `[C, H, W]` array each.
///
/// Errors: [`Error::Input`] when an array has another length.
pub fn batch(images: &[Vec<f32>], dims: [usize; 3]) -> Result<Value> {
    let [channels, height, width] = dims;
    let plane = height * width;
    let mut values = Vec::with_capacity(images.len() * channels * plane);
    for c in 0..channels {
        for image in images {
            let part = image
                .get(c * plane..(c + 1) * plane)
                .filter(|_| image.len() == channels * plane)
                .ok_or_else(|| {
                    Error::Input(format!(
                        "an image has {} values, the network takes {}",
                        image.len(),
                        channels * plane
                    ))
                })?;
            values.extend_from_slice(part);
        }
    }
    Ok(Value::Map {
        t: crate::ops::tensor(values, &[channels, images.len() * plane])?,
        size: [height, width],
    })
}

impl Value {
    /// `[N, C, H, W]`, or what a plain value is.
    fn plain(&self) -> Result<Tensor> {
        Ok(match self {
            Value::Plain(t) => t.clone(),
            Value::Map { t, size } => {
                let c = t.dim(0)?;
                let [h, w] = *size;
                t.reshape((c, (), h, w))?
                    .permute((1, 0, 2, 3))?
                    .contiguous()?
            }
        })
    }

    /// The matrix, height and width.
    fn map(&self, node: &Node) -> Result<(Tensor, [usize; 2])> {
        match self {
            Value::Map { t, size } => Ok((t.clone(), *size)),
            Value::Plain(t) => {
                let (n, c, h, w) = t
                    .dims4()
                    .map_err(|_| refuse(node, "its input is not an image map"))?;
                let t = t.permute((1, 0, 2, 3))?.contiguous()?;
                Ok((t.reshape((c, n * h * w))?, [h, w]))
            }
        }
    }

    /// The same kind of value with other elements.
    fn with(&self, t: Tensor) -> Value {
        match self {
            Value::Map { size, .. } => Value::Map { t, size: *size },
            Value::Plain(_) => Value::Plain(t),
        }
    }

    fn tensor(&self) -> &Tensor {
        match self {
            Value::Map { t, .. } | Value::Plain(t) => t,
        }
    }
}

impl Graph<'_> {
    /// Runs the network; every graph output as `[N, D]`.
    ///
    /// Errors: [`Error::Unsupported`] naming the node.
    pub fn run(&self, input: &Value, parameters: &Parameters) -> Result<Vec<Tensor>> {
        let mut values: Vec<Option<Value>> = vec![None; self.network.tensors.len()];
        let first = self.network.inputs.first().map(|id| id.0 as usize);
        match (
            first.and_then(|i| values.get_mut(i)),
            self.network.inputs.len(),
        ) {
            (Some(slot), 1) => *slot = Some(input.clone()),
            _ => {
                return Err(Error::Unsupported(format!(
                    "retraining is for networks with one input, '{}' has {}",
                    self.network.name,
                    self.network.inputs.len()
                )));
            }
        }
        let mut last_use = vec![usize::MAX; self.network.tensors.len()];
        for (i, node) in self.network.nodes.iter().enumerate() {
            for id in &node.inputs {
                last_use[id.0 as usize] = i;
            }
        }
        for output in &self.network.outputs {
            last_use[output.tensor.0 as usize] = usize::MAX;
        }
        let uses = self.uses();
        let mut done = vec![false; self.network.nodes.len()];
        for (i, node) in self.network.nodes.iter().enumerate() {
            if done[i] {
                continue;
            }
            let get = |id: &TensorId| {
                values
                    .get(id.0 as usize)
                    .and_then(Option::as_ref)
                    .ok_or_else(|| refuse(node, "an input is not computed"))
            };
            let inputs: Vec<&Value> = node.inputs.iter().map(get).collect::<Result<_>>()?;
            let run = self.run_from(i, inputs.first().copied(), &uses);
            let result = match inputs.first() {
                Some(x) if !run.is_empty() => self.chain(&run, x, parameters),
                _ => self.node(node, &inputs, parameters),
            };
            let result = result.map_err(|e| match e {
                Error::Numeric(text) => refuse(node, text),
                other => other,
            })?;
            let last = run.last().copied().unwrap_or(i);
            run.iter().for_each(|&i| done[i] = true);
            values[self.network.nodes[last].output.0 as usize] = Some(result);
            for id in &node.inputs {
                if last_use[id.0 as usize] == i {
                    values[id.0 as usize] = None;
                }
            }
        }
        self.network
            .outputs
            .iter()
            .map(|output| {
                let value = values
                    .get(output.tensor.0 as usize)
                    .and_then(Option::as_ref)
                    .ok_or_else(|| Error::Unsupported("an output is not computed".into()))?;
                Ok(value.plain()?.flatten_from(1)?)
            })
            .collect()
    }

    fn node(&self, node: &Node, inputs: &[&Value], p: &Parameters) -> Result<Value> {
        let x = *inputs.first().ok_or_else(|| refuse(node, "no input"))?;
        match &node.op {
            Op::Conv(_) => Err(refuse(node, "it is not part of a chain")),
            Op::Linear { layer, bias } => {
                let y = self.linear(node, x, layer.0 as usize, p)?;
                match bias {
                    Some(id) => {
                        let b = &p.constants[id.0 as usize].tensor;
                        Ok(Value::Plain(y.tensor().broadcast_add(b)?))
                    }
                    None => Ok(y),
                }
            }
            Op::Activation(kind) => {
                Ok(x.with(x.tensor().contiguous()?.apply_op1(Elementwise(*kind))?))
            }
            Op::Prelu { slope } => prelu(x, &p.constants[slope.0 as usize].tensor),
            Op::Binary(kind) => {
                let y = inputs.get(1).ok_or_else(|| refuse(node, "one input"))?;
                let same = matches!((x, y), (Value::Map { t: a, size: s }, Value::Map { t: b, size: r })
                    if a.dims() == b.dims() && s == r);
                if same {
                    return Ok(x.with(binary(*kind, x.tensor(), y.tensor())?));
                }
                Ok(Value::Plain(binary(*kind, &x.plain()?, &y.plain()?)?))
            }
            Op::BinaryConst {
                kind,
                constant,
                constant_first,
            } => self.binary_const(x, *kind, constant.0 as usize, *constant_first, p),
            Op::Pool(pool) => {
                let (t, size) = x.map(node)?;
                let window = Window::new(
                    size,
                    pool.kernel,
                    pool.strides,
                    pool.dilations,
                    pool.pads,
                    pool.ceil_mode,
                )
                .ok_or_else(|| refuse(node, "the window does not fit"))?;
                if pool.count_include_pad && pool.ceil_mode {
                    return Err(refuse(node, "count_include_pad with ceil_mode"));
                }
                let op = Pooling {
                    window,
                    kind: pool.kind,
                    count_padding: pool.count_include_pad,
                };
                Ok(Value::Map {
                    t: t.contiguous()?.apply_op1(op)?,
                    size: [window.y.output, window.x.output],
                })
            }
            Op::GlobalPool(kind) => {
                let (t, [h, w]) = x.map(node)?;
                let t = t.reshape((t.dim(0)?, (), h * w))?;
                let t = match kind {
                    PoolKind::Average => t.mean(2)?,
                    PoolKind::Max => t.max(2)?,
                };
                Ok(Value::Map { t, size: [1, 1] })
            }
            Op::Pad { amounts, value } => shapes::pad(node, x, amounts, *value),
            Op::Concat { axis } => shapes::concat(node, inputs, usize::from(*axis)),
            Op::Reshape { dims } => shapes::reshape(node, x, dims),
            Op::Transpose { perm } => {
                if perm.first() != Some(&0) {
                    return Err(refuse(node, "it moves the batch"));
                }
                let perm: Vec<usize> = perm.iter().map(|&a| usize::from(a)).collect();
                Ok(Value::Plain(x.plain()?.permute(perm)?.contiguous()?))
            }
            Op::Slice { ranges } => shapes::slice(node, x, ranges),
            Op::Resize(_) => Err(refuse(node, "Resize has no gradient here")),
            Op::Softmax { axis, axis_end } => {
                shapes::softmax(node, x, usize::from(*axis), usize::from(*axis_end))
            }
            Op::LpNormalize { axis, p, epsilon } => {
                let t = x.plain()?;
                let axis = usize::from(*axis);
                let norm = match p {
                    1 => t.abs()?.sum_keepdim(axis)?,
                    2 => t.sqr()?.sum_keepdim(axis)?.sqrt()?,
                    _ => return Err(refuse(node, "a norm other than 1 and 2")),
                };
                let norm = norm.maximum(f64::from(epsilon.max(1e-12)))?;
                Ok(Value::Plain(t.broadcast_div(&norm)?))
            }
        }
    }

    /// `y = x W^T`
    fn linear(&self, node: &Node, x: &Value, layer: usize, p: &Parameters) -> Result<Value> {
        let x = x.plain()?;
        let mut dims = x.dims().to_vec();
        let shape = self.shapes[layer];
        let (outputs, k) = (shape.out_channels as usize, shape.k());
        match dims.last_mut() {
            Some(last) if *last == k => *last = outputs,
            _ => return Err(refuse(node, format!("its input is not {k} long"))),
        }
        let x = x.reshape(((), k))?;
        let op = Linear {
            weights: p.layers[layer].clone(),
            outputs,
            input_gradient: x.track_op(),
        };
        let y = recorded(&x, p)?.apply_op1(op)?;
        Ok(Value::Plain(y.reshape(dims)?))
    }

    fn binary_const(
        &self,
        x: &Value,
        kind: BinaryKind,
        constant: usize,
        constant_first: bool,
        p: &Parameters,
    ) -> Result<Value> {
        let dims = &self.constant_dims[constant];
        let c = &p.constants[constant].tensor;
        let per_channel = dims.iter().product::<usize>() == 1
            || (dims.len() >= 3 && dims[dims.len() - 3] == c.elem_count());
        let (a, c) = match x {
            Value::Map { t, .. } if per_channel => (t.clone(), c.reshape(((), 1))?),
            _ => (x.plain()?, c.reshape(dims.as_slice())?),
        };
        let y = if constant_first {
            binary(kind, &c, &a)?
        } else {
            binary(kind, &a, &c)?
        };
        Ok(if y.dims() == x.tensor().dims() {
            x.with(y)
        } else {
            Value::Plain(y)
        })
    }
}

fn binary(kind: BinaryKind, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(match kind {
        BinaryKind::Add => a.broadcast_add(b)?,
        BinaryKind::Sub => a.broadcast_sub(b)?,
        BinaryKind::Mul => a.broadcast_mul(b)?,
        BinaryKind::Div => a.broadcast_div(b)?,
    })
}

/// Slopes of values that are no maps.
fn prelu(x: &Value, slopes: &Tensor) -> Result<Value> {
    let t = x.tensor().contiguous()?;
    let op = Rows {
        kind: RowKind::Prelu,
        channels: t.dim(1)?,
        inner: t.dims()[2..].iter().product(),
    };
    Ok(x.with(t.apply_op2(slopes, op)?))
}

/// Operations whose parameters the library does not know are only recorded when it thinks that their input is trained.
fn recorded(t: &Tensor, p: &Parameters) -> Result<Tensor> {
    Ok(if p.trained && !t.track_op() {
        Var::from_tensor(t)?.into_inner()
    } else {
        t.clone()
    })
}

/// Logarithm of the softmax over the last axis.
pub(crate) fn log_softmax(t: &Tensor) -> Result<Tensor> {
    let t = t.broadcast_sub(&t.max_keepdim(D::Minus1)?.detach())?;
    Ok(t.broadcast_sub(&t.exp()?.sum_keepdim(D::Minus1)?.log()?)?)
}
