//! From graph records and shapes to steps over buffers.
//!
//! One pass over the nodes in their order. What it decides:
//!
//! * **Fusion.** A convolution or linear layer whose result has one reader takes over that reader's work: an
//!   addition, when the other operand is complete by then and dies there (the sums are accumulated onto it in place,
//!   so a residual block needs no third map), then an activation or PReLU.
//! * **In place.** An element-wise step writes over an operand that dies with it.
//! * **Layout.** Results of 4-D operators are `[row][channel][column]`; callers' tensors and everything of another rank
//!   are row-major. A copy is made only where the bytes really differ: before `Reshape` (which is free otherwise),
//!   before normalisations, and inside `Transpose`, `Slice`, `Concat` and `Pad`, which copy anyway.
//! * A 1x1 convolution of 1x1 maps is a linear layer.
//!
//! Buffers are reference-counted by their pending readers while lowering, which is how "dies here" is known.

use crate::convert;
use crate::error::{Error, ErrorKind, Result};
use crate::liveness::{Life, Span};
use crate::program::{
    ConvWork, Epilogue, Function, Layout, LinearWork, Place, Program, Rearrange, Source, Step,
    Strides, Value, Work, align, broadcast_strides,
};
use crate::shape::{self, Dims, MAX_RANK};
use dcz_format::graph::{BinaryKind, ConstId, Conv, LayerId, Network, Node, Op, TensorId};
use dcz_kernels::ConvAlgo;

/// Lowers `network` for inputs of the given shapes. `constants` are the ranges of the constant pool. The planner
/// sets the algorithms. `by_rows`: 4-D inputs are made row by row, by steps of their own.
pub(crate) fn lower(
    network: &Network,
    inputs: &[Dims],
    constants: &[Span],
    by_rows: bool,
) -> Result<Program> {
    let shapes = shape::infer(network, inputs)?;
    let mut users = vec![Vec::new(); network.tensors.len()];
    for (index, node) in network.nodes.iter().enumerate() {
        for id in &node.inputs {
            entry(&mut users, *id)?.push(index);
        }
    }
    let mut exports = vec![Vec::new(); network.tensors.len()];
    for (index, output) in network.outputs.iter().enumerate() {
        entry(&mut exports, output.tensor)?.push(index);
    }
    let mut lowering = Lowering {
        network,
        constants,
        values: vec![None; network.tensors.len()],
        fused: vec![false; network.nodes.len()],
        pending: Vec::new(),
        program: Program::default(),
        shapes,
        users,
        exports,
    };
    lowering.run(by_rows)?;
    Ok(lowering.finish())
}

struct Lowering<'a> {
    network: &'a Network,
    shapes: Vec<Dims>,
    constants: &'a [Span],
    /// Nodes that read each tensor (once per operand).
    users: Vec<Vec<usize>>,
    /// Graph outputs that each tensor is.
    exports: Vec<Vec<usize>>,
    /// Where the tensors computed so far are.
    values: Vec<Option<Value>>,
    /// Nodes whose work an earlier step does.
    fused: Vec<bool>,
    /// Readers still to come, per buffer.
    pending: Vec<usize>,
    program: Program,
}

/// The tail of a convolution or linear layer after fusion.
struct Tail {
    function: Function,
    /// The operand that the sums are added to.
    residual: Option<(TensorId, Value)>,
    fused: Vec<usize>,
    /// The tensor finally produced.
    tensor: TensorId,
}

impl Lowering<'_> {
    fn run(&mut self, by_rows: bool) -> Result<()> {
        let network = self.network;
        for (index, id) in network.inputs.iter().enumerate() {
            let mut value = Value::new(Place::Input(index), Layout::Plain, self.dims(*id)?);
            self.program.input_lens.push(value.len());
            if by_rows && value.rank == 4 {
                let whole = value;
                value = self.allocate(Layout::Rows, whole.dims())?;
                self.push_step(Step {
                    node: None,
                    fused: Vec::new(),
                    work: Work::Rows(index),
                    inputs: Vec::new(),
                    source: Source::default(),
                    threads: 1,
                    scratch: Span::default(),
                    tiles: 0,
                    output: value,
                })?;
            }
            self.define(*id, value)?;
        }
        for (index, node) in network.nodes.iter().enumerate() {
            if self.fused.get(index) == Some(&false)
                && let Some(value) = self.node(index, node)?
            {
                self.define(node.output, value)?;
            }
        }
        for output in &network.outputs {
            let len = self.dims(output.tensor)?.iter().product();
            self.program.output_lens.push(len);
        }
        Ok(())
    }

    fn finish(self) -> Program {
        let mut program = self.program;
        program.place();
        program
    }

    /// Emits the steps of a node. Answers where its result is, unless a fused reader's result was defined already.
    fn node(&mut self, index: usize, node: &Node) -> Result<Option<Value>> {
        let network = self.network;
        let out_dims = self.dims(node.output)?.to_vec();
        let first = *node.inputs.first().ok_or(INTERNAL)?;
        let result = match &node.op {
            Op::Conv(conv) => {
                self.conv(index, node, conv, first)?;
                return Ok(None);
            }
            Op::Linear { layer, bias } => {
                let x = self.plain(index, first)?;
                let shape = shape::layer_shape(network, *layer).map_err(|_| INTERNAL)?;
                let (inputs, outputs) = (shape.in_per_group as usize, shape.out_channels as usize);
                self.linear(index, node, *layer, *bias, x, inputs, outputs)?;
                return Ok(None);
            }
            Op::Activation(activation) => {
                let x = self.take(first)?;
                self.in_place_or_new(index, Work::Function(Function::Fixed(*activation)), x)?
            }
            Op::Prelu { slope } => {
                let slope = self.constant(*slope)?;
                let x = self.take(first)?;
                self.in_place_or_new(index, Work::Function(Function::Prelu(slope)), x)?
            }
            Op::Binary(kind) => {
                let second = *node.inputs.get(1).ok_or(INTERNAL)?;
                let (a, b) = (self.take(first)?, self.take(second)?);
                let layout = result_layout(&out_dims, &[a, b]);
                // In place where an operand covers the result in the same order and dies here; never
                // when the other operand lies in the same buffer.
                let reuse = [a, b].into_iter().find(|v| {
                    let covers = v.dims() == out_dims && v.layout == layout;
                    covers && a.place != b.place && self.dead(v)
                });
                let out = match reuse {
                    Some(v) => v,
                    None => self.allocate(layout, &out_dims)?,
                };
                self.push(
                    index,
                    Work::Binary(convert::binary_kind(*kind)),
                    vec![a, b],
                    out,
                )?
            }
            Op::BinaryConst {
                kind,
                constant,
                constant_first,
            } => {
                let x = self.take(first)?;
                let span = self.constant(*constant)?;
                let dims = shape::constant_dims(network, *constant).map_err(|_| INTERNAL)?;
                let strides = broadcast_strides(&convert::row_major(&dims), &dims);
                let layout = result_layout(&out_dims, &[x]);
                let out = if x.dims() == out_dims && x.layout == layout && self.dead(&x) {
                    x
                } else {
                    self.allocate(layout, &out_dims)?
                };
                let kind = convert::binary_kind(*kind);
                let work = Work::BinaryConst {
                    kind,
                    constant: span,
                    strides,
                    constant_first: *constant_first,
                };
                self.push(index, work, vec![x], out)?
            }
            Op::Pool(pool) => {
                let x = self.take(first)?;
                let work = Work::Pool(convert::pool_shape(pool, x.dims()).map_err(|_| INTERNAL)?);
                let out = self.allocate(Layout::Rows, &out_dims)?;
                self.push(index, work, vec![x], out)?
            }
            Op::GlobalPool(kind) => {
                let x = self.take(first)?;
                let out = self.allocate(Layout::Plain, &out_dims)?;
                self.push(
                    index,
                    Work::GlobalPool(convert::pool_kind(*kind)),
                    vec![x],
                    out,
                )?
            }
            Op::Pad { amounts, value } => {
                let x = self.take(first)?;
                let out = self.allocate(result_layout(&out_dims, &[x]), &out_dims)?;
                self.push(index, Work::Fill(*value), Vec::new(), out)?;
                let strides = out.strides();
                let offset = amounts
                    .iter()
                    .zip(strides)
                    .map(|(&(before, _), s)| before as usize * s)
                    .sum();
                let copy = rearrange(x.dims(), (0, x.strides()), (offset, strides));
                self.push(index, Work::Rearrange(copy), vec![x], out)?
            }
            Op::Concat { axis } => {
                let mut parts = Vec::with_capacity(node.inputs.len());
                for id in &node.inputs {
                    parts.push(self.take(*id)?);
                }
                let out = self.allocate(result_layout(&out_dims, &parts), &out_dims)?;
                let strides = out.strides();
                let step = *strides.get(*axis as usize).ok_or(INTERNAL)?;
                let mut at = 0;
                for x in parts {
                    let copy = rearrange(x.dims(), (0, x.strides()), (at * step, strides));
                    at += x.dims().get(*axis as usize).copied().unwrap_or(0);
                    self.push(index, Work::Rearrange(copy), vec![x], out)?;
                }
                out
            }
            Op::Reshape { .. } => {
                let x = self.plain(index, first)?;
                Value::new(x.place, Layout::Plain, &out_dims)
            }
            Op::Transpose { perm } => {
                let x = self.take(first)?;
                let out = self.allocate(Layout::Plain, &out_dims)?;
                let from = x.strides();
                let mut strides = [0; MAX_RANK];
                for (slot, &p) in strides.iter_mut().zip(perm) {
                    *slot = *from.get(p as usize).ok_or(INTERNAL)?;
                }
                let copy = rearrange(&out_dims, (0, strides), (0, out.strides()));
                self.push(index, Work::Rearrange(copy), vec![x], out)?
            }
            Op::Slice { ranges } => {
                let x = self.take(first)?;
                let out = self.allocate(result_layout(&out_dims, &[x]), &out_dims)?;
                let (mut strides, mut offset) = (x.strides(), 0);
                for range in ranges {
                    let axis = range.axis as usize;
                    let len = *x.dims().get(axis).ok_or(INTERNAL)?;
                    let (start, _) = shape::slice_axis(range, len).map_err(|_| INTERNAL)?;
                    let stride = strides.get_mut(axis).ok_or(INTERNAL)?;
                    offset += start * *stride;
                    // A step beyond the axis selects one element; its stride is never used.
                    *stride *= (range.step as usize).min(len);
                }
                let copy = rearrange(&out_dims, (offset, strides), (0, out.strides()));
                self.push(index, Work::Rearrange(copy), vec![x], out)?
            }
            Op::Resize(resize) => {
                let x = self.take(first)?;
                let out = self.allocate(Layout::Rows, &out_dims)?;
                let (shape, _) = convert::resize_shape(resize, x.dims()).map_err(|_| INTERNAL)?;
                self.push(index, Work::Resize(shape), vec![x], out)?
            }
            Op::Softmax { axis, axis_end } => {
                let x = self.plain(index, first)?;
                let axis = convert::axis(x.dims(), *axis as usize, *axis_end as usize);
                self.in_place_or_new(index, Work::Softmax(axis), x)?
            }
            Op::LpNormalize { axis, p, epsilon } => {
                let x = self.plain(index, first)?;
                let axis = convert::axis(x.dims(), *axis as usize, *axis as usize + 1);
                let work = Work::LpNormalize {
                    axis,
                    norm: convert::norm(*p),
                    epsilon: *epsilon,
                };
                self.in_place_or_new(index, work, x)?
            }
        };
        Ok(Some(result))
    }

    fn conv(&mut self, index: usize, node: &Node, conv: &Conv, input: TensorId) -> Result<()> {
        let layer = shape::layer_shape(self.network, conv.layer).map_err(|_| INTERNAL)?;
        let x = self.take(input)?;
        let shape = convert::conv_shape(conv, &layer, x.dims()).map_err(|_| INTERNAL)?;
        let one_pixel =
            [shape.in_h, shape.in_w, shape.out_h, shape.out_w] == [1; 4] && shape.kernel == [1, 1];
        if one_pixel && shape.groups == 1 && shape.pad_top == 0 && shape.pad_left == 0 {
            return self.linear(
                index,
                node,
                conv.layer,
                conv.bias,
                x,
                shape.in_channels,
                shape.out_channels,
            );
        }
        let bias = conv.bias.map(|id| self.constant(id)).transpose()?;
        let tail = self.tail(node, x, Layout::Rows)?;
        let work = Work::Conv(ConvWork {
            layer: conv.layer.0 as usize,
            algorithm: ConvAlgo::Gemm,
            level: 0,
            shape,
            images: x.dims().first().copied().unwrap_or(1),
            epilogue: Epilogue {
                bias,
                function: tail.function,
            },
            accumulate: tail.residual.is_some(),
            by_panels: false,
        });
        self.emit_tail(index, work, x, Layout::Rows, tail)
    }

    /// `x` is row-major and already taken.
    #[expect(
        clippy::too_many_arguments,
        reason = "called from the two operators that are linear layers"
    )]
    fn linear(
        &mut self,
        index: usize,
        node: &Node,
        layer: LayerId,
        bias: Option<ConstId>,
        x: Value,
        inputs: usize,
        outputs: usize,
    ) -> Result<()> {
        let bias = bias.map(|id| self.constant(id)).transpose()?;
        let tail = self.tail(node, x, Layout::Plain)?;
        let work = Work::Linear(LinearWork {
            layer: layer.0 as usize,
            rows: x.len() / inputs.max(1),
            inputs,
            outputs,
            epilogue: Epilogue {
                bias,
                function: tail.function,
            },
            accumulate: tail.residual.is_some(),
        });
        self.emit_tail(index, work, x, Layout::Plain, tail)
    }

    /// Follows the single reader of `node`'s result as far as its work can be fused. `x` is the input of `node`,
    /// `layout` the order of the result.
    fn tail(&mut self, node: &Node, x: Value, layout: Layout) -> Result<Tail> {
        let mut tail = Tail {
            function: Function::Identity,
            residual: None,
            fused: Vec::new(),
            tensor: node.output,
        };
        let dims = self.dims(node.output)?.to_vec();
        while let Some(reader) = self.single_reader(tail.tensor) {
            let next = self.network.nodes.get(reader).ok_or(INTERNAL)?;
            match &next.op {
                Op::Binary(BinaryKind::Add) if tail.residual.is_none() => {
                    let other = next.inputs.iter().copied().find(|id| *id != tail.tensor);
                    let Some((id, value)) = other.and_then(|id| Some((id, self.value(id)?))) else {
                        break;
                    };
                    let Place::Buffer(buffer) = value.place else {
                        break;
                    };
                    let last_reader = self.pending.get(buffer) == Some(&1);
                    let same_order = if layout == Layout::Rows {
                        value.is_rows()
                    } else {
                        value.is_plain()
                    };
                    if !last_reader || !same_order || value.dims() != dims || value.place == x.place
                    {
                        break;
                    }
                    tail.residual = Some((id, value));
                }
                Op::Activation(activation) => {
                    tail.function = Function::Fixed(*activation);
                }
                Op::Prelu { slope } => {
                    let span = self.constant(*slope)?;
                    // Slopes go with axis 1; in a linear layer of another rank the channels are elsewhere.
                    if span.len != 1 && dims.len() != 2 && !matches!(node.op, Op::Conv(_)) {
                        break;
                    }
                    tail.function = Function::Prelu(span);
                }
                _ => break,
            }
            tail.fused.push(reader);
            tail.tensor = next.output;
            if tail.function != Function::Identity {
                break;
            }
        }
        for &reader in &tail.fused {
            *self.fused.get_mut(reader).ok_or(INTERNAL)? = true;
        }
        Ok(tail)
    }

    fn emit_tail(
        &mut self,
        index: usize,
        work: Work,
        x: Value,
        layout: Layout,
        tail: Tail,
    ) -> Result<()> {
        let dims = self.dims(tail.tensor)?.to_vec();
        let out = match tail.residual {
            Some((id, value)) => {
                self.take(id)?;
                Value::new(value.place, layout, &dims)
            }
            None => self.allocate(layout, &dims)?,
        };
        self.push_step(Step {
            node: Some(index),
            fused: tail.fused,
            work,
            inputs: vec![x],
            source: Source::default(),
            threads: 1,
            scratch: Span::default(),
            tiles: 0,
            output: out,
        })?;
        self.define(tail.tensor, out)
    }

    /// The only reader of a tensor that is no graph output, if it has exactly one.
    fn single_reader(&self, id: TensorId) -> Option<usize> {
        let exported = !self.exports.get(id.0 as usize)?.is_empty();
        match self.users.get(id.0 as usize)?.as_slice() {
            [reader] if !exported && !*self.fused.get(*reader)? => Some(*reader),
            _ => None,
        }
    }

    fn in_place_or_new(&mut self, index: usize, work: Work, x: Value) -> Result<Value> {
        let out = if self.dead(&x) {
            x
        } else {
            self.allocate(x.layout, x.dims())?
        };
        self.push(index, work, vec![x], out)
    }

    /// Reads a tensor: one reader fewer is pending.
    fn take(&mut self, id: TensorId) -> Result<Value> {
        let value = self.value(id).ok_or(INTERNAL)?;
        if let Place::Buffer(buffer) = value.place {
            let pending = self.pending.get_mut(buffer).ok_or(INTERNAL)?;
            *pending = pending.checked_sub(1).ok_or(INTERNAL)?;
        }
        Ok(value)
    }

    /// Reads a tensor in row-major order, copying it when its bytes are in another one.
    fn plain(&mut self, index: usize, id: TensorId) -> Result<Value> {
        let x = self.take(id)?;
        if x.is_plain() {
            return Ok(Value::new(x.place, Layout::Plain, x.dims()));
        }
        let out = self.allocate(Layout::Plain, x.dims())?;
        let copy = rearrange(x.dims(), (0, x.strides()), (0, out.strides()));
        self.push(index, Work::Rearrange(copy), vec![x], out)?;
        Ok(out)
    }

    /// Nobody reads the buffer of a value any more.
    fn dead(&self, value: &Value) -> bool {
        matches!(value.place, Place::Buffer(buffer) if self.pending.get(buffer) == Some(&0))
    }

    fn allocate(&mut self, layout: Layout, dims: &[usize]) -> Result<Value> {
        let layout = if dims.len() == 4 {
            layout
        } else {
            Layout::Plain
        };
        let value = Value::new(Place::Buffer(self.pending.len()), layout, dims);
        let step = self.program.steps.len();
        self.program.lives.push(Life {
            len: value.len(),
            first: step,
            last: step,
        });
        self.pending.push(0);
        Ok(value)
    }

    /// Appends a step and answers its output.
    fn push(
        &mut self,
        node: usize,
        work: Work,
        inputs: Vec<Value>,
        output: Value,
    ) -> Result<Value> {
        self.push_step(Step {
            node: Some(node),
            fused: Vec::new(),
            work,
            inputs,
            source: Source::default(),
            threads: 1,
            scratch: Span::default(),
            tiles: 0,
            output,
        })?;
        Ok(output)
    }

    fn push_step(&mut self, step: Step) -> Result<()> {
        let index = self.program.steps.len();
        for value in step.inputs.iter().chain([&step.output]) {
            if let Place::Buffer(buffer) = value.place {
                self.program.lives.get_mut(buffer).ok_or(INTERNAL)?.last = index;
            }
        }
        self.program.steps.push(step);
        Ok(())
    }

    /// Says where a finished tensor is, counts its readers and exports it when it is a graph output.
    fn define(&mut self, id: TensorId, value: Value) -> Result<()> {
        *entry(&mut self.values, id)? = Some(value);
        if let Place::Buffer(buffer) = value.place {
            let readers = entry(&mut self.users, id)?.len();
            *self.pending.get_mut(buffer).ok_or(INTERNAL)? += readers;
        }
        for output in std::mem::take(entry(&mut self.exports, id)?) {
            let target = Value::new(value.place, Layout::Plain, value.dims()).strides();
            let copy = rearrange(value.dims(), (0, value.strides()), (0, target));
            let work = Work::Export { output, copy };
            self.push_step(Step {
                node: None,
                fused: Vec::new(),
                work,
                inputs: vec![value],
                source: Source::default(),
                threads: 1,
                scratch: Span::default(),
                tiles: 0,
                output: value,
            })?;
        }
        Ok(())
    }

    fn value(&self, id: TensorId) -> Option<Value> {
        *self.values.get(id.0 as usize)?
    }

    fn dims(&self, id: TensorId) -> Result<&[usize]> {
        Ok(self.shapes.get(id.0 as usize).ok_or(INTERNAL)?)
    }

    fn constant(&self, id: ConstId) -> Result<Span> {
        Ok(*self.constants.get(id.0 as usize).ok_or(INTERNAL)?)
    }
}

/// Shape inference has checked what this stands for.
struct Invariant;
const INTERNAL: Invariant = Invariant;

impl From<Invariant> for Error {
    fn from(_: Invariant) -> Error {
        ErrorKind::Internal("inconsistent records while lowering").into()
    }
}

fn entry<T>(list: &mut [T], id: TensorId) -> Result<&mut T> {
    Ok(list.get_mut(id.0 as usize).ok_or(INTERNAL)?)
}

/// Row by row when a full-size operand is; row-major otherwise.
fn result_layout(dims: &[usize], operands: &[Value]) -> Layout {
    let rows = operands
        .iter()
        .any(|v| v.rank == 4 && v.layout == Layout::Rows);
    if dims.len() == 4 && rows {
        Layout::Rows
    } else {
        Layout::Plain
    }
}

/// Strides are given per axis of `dims`.
fn rearrange(dims: &[usize], from: (usize, Strides), to: (usize, Strides)) -> Rearrange {
    let rank = dims.len();
    Rearrange {
        dims: align(dims, 1),
        in_offset: from.0,
        in_strides: align(&from.1[..rank], 0),
        out_offset: to.0,
        out_strides: align(&to.1[..rank], 0),
    }
}
