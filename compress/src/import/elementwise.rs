//! Activations, arithmetic, softmax and normalisation.

use dcz_format::graph::{Activation, BinaryKind, Op};

use super::draft::{DraftOp, TensorIndex};
use super::{Fail, Importer, Value, unsupported};
use crate::array::{Array, broadcast_positions};
use crate::evaluate::axis_index;
use crate::onnx::proto::NodeProto;
use crate::onnx::tensor::data_type;

impl Importer<'_> {
    pub(super) fn activation(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let x = self.tensor(node, 0)?;
        let activation = match node.op_type.as_str() {
            "Relu" => Activation::Relu,
            "LeakyRelu" => Activation::LeakyRelu {
                alpha: node.float("alpha").unwrap_or(0.01),
            },
            "Sigmoid" => Activation::Sigmoid,
            "HardSigmoid" => Activation::HardSigmoid {
                alpha: node.float("alpha").unwrap_or(0.2),
                beta: node.float("beta").unwrap_or(0.5),
            },
            "HardSwish" => Activation::HardSwish,
            "Mish" => Activation::Mish,
            "Tanh" => Activation::Tanh,
            "Sqrt" => Activation::Sqrt,
            "Exp" => Activation::Exp,
            "Neg" => {
                return self.binary_const(
                    node,
                    BinaryKind::Mul,
                    x,
                    &Array::f32(vec![], vec![-1.0]),
                    false,
                );
            }
            other => {
                let op = if other == "Softplus" {
                    DraftOp::Softplus
                } else {
                    DraftOp::Reciprocal { sqrt: false }
                };
                let shapes = self.shapes(x).clone();
                self.emit_draft(node, 0, op, vec![x], shapes);
                return Ok(());
            }
        };
        self.emit(node, 0, Op::Activation(activation), vec![x])
    }

    pub(super) fn clip(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let x = self.tensor(node, 0)?;
        let bound = |attribute: &str, index: usize, missing: f32| -> Result<f32, Fail> {
            if self.opset < 11 {
                return Ok(node.float(attribute).unwrap_or(missing));
            }
            match self.constant(node, index)? {
                None => Ok(missing),
                Some(array) => array
                    .scalar_f32()
                    .ok_or_else(|| Fail::Malformed(format!("{attribute} is not one value"))),
            }
        };
        // The operator's own defaults are the largest finite values; infinity is the same for finite inputs.
        let open = |value: f32| {
            if value.abs() == f32::MAX {
                value.signum() * f32::INFINITY
            } else {
                value
            }
        };
        let (min, max) = (
            open(bound("min", 1, f32::NEG_INFINITY)?),
            open(bound("max", 2, f32::INFINITY)?),
        );
        if min.is_nan() || max.is_nan() || min > max {
            return Err(unsupported(
                format!("min = {min}, max = {max}"),
                "bounds in order",
            ));
        }
        self.clip_between(node, x, min, max)
    }

    fn clip_between(
        &mut self,
        node: &NodeProto,
        x: TensorIndex,
        min: f32,
        max: f32,
    ) -> Result<(), Fail> {
        let activation = if min == 0.0 && max == f32::INFINITY {
            Activation::Relu
        } else {
            Activation::Clip { min, max }
        };
        self.emit(node, 0, Op::Activation(activation), vec![x])
    }

    pub(super) fn min_max(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let nearest = format!("{} of a computed value and one number", node.op_type);
        let wrong = || unsupported("the operands", nearest.clone());
        if node.input.len() != 2 {
            return Err(wrong());
        }
        let (x, bound) = match (self.tensor(node, 0), self.tensor(node, 1)) {
            (Ok(x), Err(_)) => (x, self.constant(node, 1)?),
            (Err(_), Ok(x)) => (x, self.constant(node, 0)?),
            _ => return Err(wrong()),
        };
        let bound = bound.and_then(|b| b.scalar_f32()).ok_or_else(wrong)?;
        if node.op_type == "Max" {
            self.clip_between(node, x, bound, f32::INFINITY)
        } else {
            self.clip_between(node, x, f32::NEG_INFINITY, bound)
        }
    }

    pub(super) fn pow(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let nearest = "Pow with the exponent 0.5, 1 or 2";
        let x = self.tensor(node, 0)?;
        let exponent = self
            .constant(node, 1)?
            .and_then(|e| e.scalar_f32())
            .ok_or_else(|| unsupported("the exponent", nearest))?;
        match exponent {
            0.5 => self.emit(node, 0, Op::Activation(Activation::Sqrt), vec![x]),
            1.0 => self.alias(node),
            2.0 => self.emit(node, 0, Op::Binary(BinaryKind::Mul), vec![x, x]),
            other => Err(unsupported(format!("exponent {other}"), nearest)),
        }
    }

    pub(super) fn prelu(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let x = self.tensor(node, 0)?;
        let slope = self
            .constant(node, 1)?
            .ok_or_else(|| Fail::Malformed("no slope".into()))?;
        let rank = self.draft.rank(x);
        let name = format!("{}.slope", node.label());
        if let Some(values) = self.channel_slope(x, &slope, rank) {
            let slope = self.draft.add_constant(&name, vec![values.len()], values);
            return self.emit(node, 0, Op::Prelu { slope }, vec![x]);
        }
        // Any other broadcast: max(x, 0) + slope * min(x, 0).
        let constant = self.draft.add_array(&name, &slope);
        let positive = self.emit_hidden(node, Op::Activation(Activation::Relu), vec![x])?;
        let negative = self.emit_hidden(
            node,
            Op::Activation(Activation::Clip {
                min: f32::NEG_INFINITY,
                max: 0.0,
            }),
            vec![x],
        )?;
        let scaled = self.emit_hidden(
            node,
            Op::BinaryConst {
                kind: BinaryKind::Mul,
                constant,
                constant_first: false,
            },
            vec![negative],
        )?;
        self.emit(node, 0, Op::Binary(BinaryKind::Add), vec![positive, scaled])
    }

    /// The slopes as one value or one per channel, if that is what they are.
    ///
    /// By the standard a slope `[C]` belongs to the last axis; exporters of old meant the channels. The two are told
    /// apart by size, and where both fit, the standard holds.
    fn channel_slope(&self, x: TensorIndex, slope: &Array, rank: usize) -> Option<Vec<f32>> {
        if slope.len() == 1 && slope.dims.len() <= rank {
            return Some(slope.to_f32());
        }
        let channels = self.draft.fixed_dim(x, 1)?;
        if slope.len() != channels {
            return None;
        }
        let lead = rank.checked_sub(slope.dims.len())?;
        let per_channel = slope
            .dims
            .iter()
            .enumerate()
            .all(|(i, &d)| d == if lead + i == 1 { channels } else { 1 });
        let old_form = slope.dims.len() == 1 && self.draft.fixed_dim(x, rank - 1) != Some(channels);
        (per_channel || old_form).then(|| slope.to_f32())
    }

    pub(super) fn softmax(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let x = self.tensor(node, 0)?;
        let rank = self.draft.rank(x);
        let axis = axis_index(
            node.int("axis")
                .unwrap_or(if self.opset < 13 { 1 } else { -1 }),
            rank,
        )?;
        // Before operator set 13 everything from the axis on is one range.
        let end = if self.opset < 13 { rank } else { axis + 1 };
        self.emit(
            node,
            0,
            Op::Softmax {
                axis: axis as u8,
                axis_end: end as u8,
            },
            vec![x],
        )
    }

    pub(super) fn lp_normalization(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let x = self.tensor(node, 0)?;
        let axis = axis_index(node.int("axis").unwrap_or(-1), self.draft.rank(x))?;
        let p = match node.int("p").unwrap_or(2) {
            p @ (1 | 2) => p as u8,
            p => return Err(Fail::Malformed(format!("p = {p}"))),
        };
        self.emit(
            node,
            0,
            Op::LpNormalize {
                axis: axis as u8,
                p,
                epsilon: 0.0,
            },
            vec![x],
        )
    }

    pub(super) fn binary(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let kind = match node.op_type.as_str() {
            "Add" => BinaryKind::Add,
            "Sub" => BinaryKind::Sub,
            "Mul" => BinaryKind::Mul,
            _ => BinaryKind::Div,
        };
        match (self.tensor(node, 0), self.tensor(node, 1)) {
            (Ok(a), Ok(b)) => self.emit(node, 0, Op::Binary(kind), vec![a, b]),
            (Ok(x), Err(_)) => {
                let constant = self
                    .constant(node, 1)?
                    .ok_or_else(|| Fail::Malformed("one operand".into()))?;
                self.binary_const(node, kind, x, &constant, false)
            }
            (Err(_), Ok(x)) => {
                let constant = self
                    .constant(node, 0)?
                    .ok_or_else(|| Fail::Malformed("one operand".into()))?;
                self.binary_const(node, kind, x, &constant, true)
            }
            (Err(fail), Err(_)) => Err(fail),
        }
    }

    fn binary_const(
        &mut self,
        node: &NodeProto,
        kind: BinaryKind,
        x: TensorIndex,
        constant: &Array,
        constant_first: bool,
    ) -> Result<(), Fail> {
        // x + 0, x * 1 and the like change nothing when the shape stays.
        let neutral = match (kind, constant_first) {
            (BinaryKind::Add, _) | (BinaryKind::Sub, false) => Some(0.0),
            (BinaryKind::Mul, _) | (BinaryKind::Div, false) => Some(1.0),
            _ => None,
        };
        let values = constant.to_f32();
        let constant = self
            .draft
            .add_array(&format!("{}.constant", node.label()), constant);
        let op = Op::BinaryConst {
            kind,
            constant,
            constant_first,
        };
        if neutral.is_some_and(|n| values.iter().all(|&v| v == n))
            && self.infer(&op, &[x])? == *self.shapes(x)
        {
            self.set_alias(node, x);
            return Ok(());
        }
        self.emit(node, 0, op, vec![x])
    }

    pub(super) fn sum(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let tensors: Vec<TensorIndex> = (0..node.input.len())
            .map(|i| self.tensor(node, i))
            .collect::<Result<_, _>>()?;
        let Some((&last, rest)) = tensors.split_last() else {
            return Err(Fail::Malformed("no operands".into()));
        };
        let Some((&first, middle)) = rest.split_first() else {
            return self.alias(node);
        };
        let mut sum = first;
        for &tensor in middle {
            sum = self.emit_hidden(node, Op::Binary(BinaryKind::Add), vec![sum, tensor])?;
        }
        self.emit(node, 0, Op::Binary(BinaryKind::Add), vec![sum, last])
    }

    pub(super) fn alias(&mut self, node: &NodeProto) -> Result<(), Fail> {
        if node.op_type == "Dropout"
            && let Some(Value::Known(_) | Value::Initializer(_)) =
                node.input_name(2).and_then(|name| self.values.get(name))
            && self.constant(node, 2)?.and_then(|a| a.scalar_i64()) == Some(1)
        {
            return Err(unsupported(
                "training_mode = true",
                "training_mode = false (inference)",
            ));
        }
        let x = self.tensor(node, 0)?;
        self.set_alias(node, x);
        Ok(())
    }

    pub(super) fn cast(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let to = node.int("to").unwrap_or(0);
        let floats = [
            data_type::FLOAT,
            data_type::FLOAT16,
            data_type::BFLOAT16,
            data_type::DOUBLE,
        ]
        .map(i64::from);
        if !floats.contains(&to) {
            return Err(unsupported(
                format!("to = {to}"),
                "casts between floating-point types (all are float32 here)",
            ));
        }
        self.alias(node)
    }

    pub(super) fn expand(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let x = self.tensor(node, 0)?;
        let target = self.known(node, 1)?.ok_or_else(|| {
            unsupported("the target shape is computed", "Expand to a known shape")
        })?;
        let mut shapes = Vec::new();
        for (sample, dims) in self.shapes(x).iter().enumerate() {
            let wanted = super::at_sample(&target, sample)
                .map(Array::to_i64)
                .unwrap_or_default();
            let wanted: Vec<usize> = wanted
                .iter()
                .map(|&d| usize::try_from(d))
                .collect::<Result<_, _>>()
                .map_err(|_| Fail::Malformed("negative dimension".into()))?;
            shapes.push(crate::array::broadcast_shape(dims, &wanted).ok_or_else(|| {
                Fail::Malformed(format!("{dims:?} does not broadcast to {wanted:?}"))
            })?);
        }
        if shapes == *self.shapes(x) {
            self.set_alias(node, x);
            return Ok(());
        }
        self.emit_draft(node, 0, DraftOp::Expand, vec![x], shapes);
        Ok(())
    }
}

/// The values of a constant that is one value, or one per channel of a tensor of shape `dims`, as one per channel.
pub(super) fn per_channel(
    constant_dims: &[usize],
    values: &[f32],
    dims: &[usize],
) -> Option<Vec<f32>> {
    let channels = *dims.get(1)?;
    let lead = dims.len().checked_sub(constant_dims.len())?;
    let fits = constant_dims
        .iter()
        .enumerate()
        .all(|(i, &d)| d == 1 || lead + i == 1 && d == channels);
    if !fits {
        return None;
    }
    let positions = broadcast_positions(&[values.len()], &[channels]);
    positions.iter().map(|&p| values.get(p).copied()).collect()
}
