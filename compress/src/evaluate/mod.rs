//! Constant folding: evaluates an ONNX node whose inputs are all known.
//!
//! This is what makes shape sub-graphs (`Shape -> Gather -> Mul -> Concat -> Reshape`), dequantised weights and
//! exporter-made scalars disappear at import. Integers are computed in i64 (division truncates as in ONNX), floats in
//! their own precision. Everything here runs once per model, so clarity wins over speed; element-wise work on equal
//! shapes is a plain pass so that dequantising millions of weights stays cheap.

mod arithmetic;
mod movement;
mod quantisation;
mod rules;

use crate::array::{Array, Data, ElementType, checked_product};
use crate::onnx::proto::NodeProto;
use crate::onnx::tensor::{data_type, element_type, to_array};

pub use rules::{
    axis_index, permutation, regrouped, reshape_target, shape_of, slice_indices, split_sizes,
};

/// Most elements a folded constant may have.
const MAX_ELEMENTS: usize = 1 << 28;

/// Most elements of a constant that is made from next to nothing (`ConstantOfShape`, `Expand`, `Range`, `Tile`).
const MAX_MADE: usize = 1 << 24;

/// The outputs of a node with known inputs; `None` entries in `inputs` are absent optional inputs.
///
/// Returns none when the operator is not one that is folded (the caller then imports it as a node or reports it), and an
/// error text when it is but its operands are wrong.
pub fn evaluate(node: &NodeProto, inputs: &[Option<&Array>]) -> Option<Result<Vec<Array>, String>> {
    let context = Context { node, inputs };
    Some(match node.op_type.as_str() {
        "Constant" => context.constant(),
        "Identity" | "Dropout" => context.input(0).map(|a| vec![a.clone()]),
        "Shape" => context
            .input(0)
            .and_then(|a| shape_of(node, &a.dims))
            .map(one),
        "Size" => context
            .input(0)
            .map(|a| one(Array::int(vec![], vec![a.len() as i64]))),
        "Cast" => context.cast().map(one),
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Mod" | "Equal" | "Greater" | "GreaterOrEqual"
        | "Less" | "LessOrEqual" | "And" | "Or" => context.binary().map(one),
        "Min" | "Max" | "Sum" => context.variadic().map(one),
        "Neg" | "Abs" | "Floor" | "Ceil" | "Round" | "Sqrt" | "Exp" | "Log" | "Reciprocal"
        | "Not" | "Relu" | "Sigmoid" | "Tanh" => context.unary().map(one),
        "Clip" => context.clip().map(one),
        "Reshape" => context.reshape().map(one),
        "Flatten" | "Squeeze" | "Unsqueeze" => context.regroup().map(one),
        "Transpose" => context.transpose().map(one),
        "Gather" => context.gather().map(one),
        "Slice" => context.slice().map(one),
        "Split" => context.split(),
        "Concat" => context.concat().map(one),
        "Expand" => context.expand().map(one),
        "Tile" => context.tile().map(one),
        "Where" => context.select().map(one),
        "Range" => context.range().map(one),
        "ConstantOfShape" => context.constant_of_shape().map(one),
        "ReduceProd" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceMean" => {
            context.reduce().map(one)
        }
        "DequantizeLinear" => context.dequantize().map(one),
        "QuantizeLinear" => context.quantize().map(one),
        _ => return None,
    })
}

fn one(array: Array) -> Vec<Array> {
    vec![array]
}

struct Context<'a> {
    node: &'a NodeProto,
    inputs: &'a [Option<&'a Array>],
}

impl Context<'_> {
    fn optional(&self, index: usize) -> Option<&Array> {
        self.inputs.get(index).copied().flatten()
    }

    fn input(&self, index: usize) -> Result<&Array, String> {
        self.optional(index)
            .ok_or_else(|| format!("input {index} is missing"))
    }

    /// A list of integers given as an attribute in old operator sets and as an input in new ones.
    fn list(&self, attribute: &str, input: usize) -> Option<Vec<i64>> {
        self.node
            .ints(attribute)
            .map(<[i64]>::to_vec)
            .or_else(|| self.optional(input).map(Array::to_i64))
    }

    fn constant(&self) -> Result<Vec<Array>, String> {
        let node = self.node;
        if let Some(tensor) = node.tensor("value") {
            return to_array(tensor, None).map(one).map_err(|e| e.to_string());
        }
        Ok(one(if let Some(v) = node.float("value_float") {
            Array::f32(vec![], vec![v])
        } else if let Some(v) = node.floats("value_floats") {
            Array::f32(vec![v.len()], v.to_vec())
        } else if let Some(v) = node.int("value_int") {
            Array::int(vec![], vec![v])
        } else if let Some(v) = node.ints("value_ints") {
            Array::ints(v.to_vec())
        } else {
            return Err("a constant that is neither a tensor nor numbers".into());
        }))
    }

    fn cast(&self) -> Result<Array, String> {
        let array = self.input(0)?;
        let to = self
            .node
            .int("to")
            .and_then(|t| i32::try_from(t).ok())
            .ok_or("no target type")?;
        let kind = element_type(to).ok_or_else(|| format!("target type {to}"))?;
        let data = match kind {
            ElementType::F32 => Data::F32(match to {
                data_type::FLOAT16 => array
                    .to_f32()
                    .iter()
                    .map(|&x| half::f16::from_f32(x).to_f32())
                    .collect(),
                data_type::BFLOAT16 => array
                    .to_f32()
                    .iter()
                    .map(|&x| half::bf16::from_f32(x).to_f32())
                    .collect(),
                _ => array.to_f32(),
            }),
            ElementType::F64 => Data::F64(array.to_f64()),
            ElementType::Bool => Data::Int(
                array
                    .to_f64()
                    .iter()
                    .map(|&x| i64::from(x != 0.0))
                    .collect(),
            ),
            _ => Data::Int(array.to_i64()),
        };
        Ok(Array {
            dims: array.dims.clone(),
            kind,
            data,
        })
    }
}

fn to_dims(values: &[i64]) -> Result<Vec<usize>, String> {
    values
        .iter()
        .map(|&v| usize::try_from(v).map_err(|_| format!("negative dimension {v}")))
        .collect()
}

fn limit(dims: &[usize], most: usize) -> Result<(), String> {
    match checked_product(dims) {
        Some(count) if count <= most => Ok(()),
        _ => Err("too many elements".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::AttributeProto;

    fn node(op: &str, attributes: &[(&str, i64)], lists: &[(&str, &[i64])]) -> NodeProto {
        let mut attribute: Vec<_> = attributes
            .iter()
            .map(|&(name, i)| AttributeProto {
                name: name.into(),
                i,
                ..Default::default()
            })
            .collect();
        attribute.extend(lists.iter().map(|&(name, ints)| AttributeProto {
            name: name.into(),
            ints: ints.to_vec(),
            ..Default::default()
        }));
        NodeProto {
            op_type: op.into(),
            attribute,
            output: vec!["y".into()],
            ..Default::default()
        }
    }

    fn run(node: &NodeProto, inputs: &[&Array]) -> Array {
        let inputs: Vec<_> = inputs.iter().map(|&a| Some(a)).collect();
        evaluate(node, &inputs).unwrap().unwrap().remove(0)
    }

    #[test]
    fn a_shape_subgraph() {
        let shape = shape_of(&node("Shape", &[], &[]), &[2, 3, 4]).unwrap();
        let batch = run(
            &node("Gather", &[("axis", 0)], &[]),
            &[&shape, &Array::int(vec![], vec![0])],
        );
        assert_eq!(batch, Array::int(vec![], vec![2]));
        let list = run(&node("Unsqueeze", &[], &[("axes", &[0])]), &[&batch]);
        let target = run(
            &node("Concat", &[("axis", 0)], &[]),
            &[&list, &Array::ints(vec![-1])],
        );
        assert_eq!(target, Array::ints(vec![2, -1]));
        assert_eq!(
            reshape_target(&[2, 3, 4], &target.to_i64(), false).unwrap(),
            [2, 12]
        );
    }

    #[test]
    fn slices_clamp_as_onnx_does() {
        assert_eq!(slice_indices(5, 1, i64::MAX, 2).unwrap(), [1, 3]);
        assert_eq!(slice_indices(5, -1, i64::MIN, -1).unwrap(), [4, 3, 2, 1, 0]);
        assert_eq!(slice_indices(5, -2, 9, 1).unwrap(), [3, 4]);
        assert_eq!(slice_indices(3, 2, 1, 1).unwrap(), [0usize; 0]);
        assert_eq!(slice_indices(0, -1, i64::MIN, -1).unwrap(), [0usize; 0]);
    }

    #[test]
    fn dequantisation_by_tensor_axis_and_block() {
        let codes = Array {
            dims: vec![2, 4],
            kind: ElementType::I8,
            data: Data::Int(vec![1, 2, 3, 4, 5, 6, 7, 8]),
        };
        let run_with = |attributes: &[(&str, i64)], scales: Array| {
            run(
                &node("DequantizeLinear", attributes, &[]),
                &[&codes, &scales],
            )
            .to_f32()
        };
        assert_eq!(
            run_with(&[], Array::f32(vec![], vec![0.5])),
            [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]
        );
        assert_eq!(
            run_with(&[("axis", 0)], Array::f32(vec![2], vec![1.0, 2.0])),
            [1.0, 2.0, 3.0, 4.0, 10.0, 12.0, 14.0, 16.0]
        );
        let blocked = run_with(
            &[("axis", 1), ("block_size", 2)],
            Array::f32(vec![2, 2], vec![1.0, 2.0, 3.0, 4.0]),
        );
        assert_eq!(blocked, [1.0, 2.0, 6.0, 8.0, 15.0, 18.0, 28.0, 32.0]);
    }

    #[test]
    fn transposition_and_reduction() {
        let a = Array::ints(vec![1, 2, 3, 4, 5, 6])
            .reshaped(vec![2, 3])
            .unwrap();
        assert_eq!(
            run(&node("Transpose", &[], &[]), &[&a]).to_i64(),
            [1, 4, 2, 5, 3, 6]
        );
        assert_eq!(
            run(
                &node("ReduceProd", &[("keepdims", 0)], &[("axes", &[1])]),
                &[&a]
            ),
            Array::ints(vec![6, 120])
        );
        assert_eq!(
            run(
                &node("Tile", &[], &[]),
                &[&Array::ints(vec![1, 2]), &Array::ints(vec![2])]
            )
            .to_i64(),
            [1, 2, 1, 2]
        );
    }

    #[test]
    fn hostile_operands_are_errors() {
        let huge = Array::ints(vec![1 << 40, 1 << 40]);
        assert!(
            evaluate(&node("ConstantOfShape", &[], &[]), &[Some(&huge)])
                .unwrap()
                .is_err()
        );
        assert!(
            evaluate(
                &node("Div", &[], &[]),
                &[Some(&Array::ints(vec![1])), Some(&Array::ints(vec![0]))]
            )
            .unwrap()
            .is_err()
        );
        assert!(
            evaluate(
                &node("Gather", &[], &[]),
                &[Some(&Array::ints(vec![1])), Some(&Array::ints(vec![7]))]
            )
            .unwrap()
            .is_err()
        );
        assert!(evaluate(&node("Erf", &[], &[]), &[]).is_none());
    }
}
