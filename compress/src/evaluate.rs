//! Constant folding: evaluates an ONNX node whose inputs are all known.
//!
//! This is what makes shape sub-graphs (`Shape -> Gather -> Mul -> Concat -> Reshape`), dequantised weights and
//! exporter-made scalars disappear at import. Integers are computed in i64 (division truncates as in ONNX), floats in
//! their own precision. Everything here runs once per model, so clarity wins over speed; element-wise work on equal
//! shapes is a plain pass so that dequantising millions of weights stays cheap.

use crate::array::{
    Array, Data, ElementType, broadcast_positions, broadcast_shape, checked_product, row_major,
    strided_positions,
};
use crate::onnx::proto::NodeProto;
use crate::onnx::tensor::{data_type, element_type, to_array};

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

/// The value of a `Shape` node for known dimensions.
pub fn shape_of(node: &NodeProto, dims: &[usize]) -> Result<Array, String> {
    let rank = dims.len() as i64;
    let bound = |value: i64| (if value < 0 { value + rank } else { value }).clamp(0, rank) as usize;
    let (start, end) = (
        bound(node.int("start").unwrap_or(0)),
        bound(node.int("end").unwrap_or(rank)),
    );
    Ok(Array::ints(
        dims.get(start..end.max(start))
            .unwrap_or_default()
            .iter()
            .map(|&d| d as i64)
            .collect(),
    ))
}

/// A possibly negative axis as an index below `rank`.
pub fn axis_index(axis: i64, rank: usize) -> Result<usize, String> {
    let shifted = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(shifted)
        .ok()
        .filter(|&a| a < rank)
        .ok_or_else(|| format!("axis {axis} of a tensor of rank {rank}"))
}

/// The dimensions that a `Reshape` asks for.
pub fn reshape_target(
    dims: &[usize],
    target: &[i64],
    allow_zero: bool,
) -> Result<Vec<usize>, String> {
    let total = checked_product(dims).ok_or("too many elements")?;
    let mut out = Vec::with_capacity(target.len());
    let mut open = None;
    for (i, &size) in target.iter().enumerate() {
        out.push(match size {
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            0 if !allow_zero => *dims
                .get(i)
                .ok_or("a zero copies a dimension that does not exist")?,
            size => usize::try_from(size).map_err(|_| format!("target dimensions {target:?}"))?,
        });
    }
    let known = checked_product(&out).ok_or("too many elements")?;
    if let Some(i) = open {
        out[i] = total
            .checked_div(known)
            .ok_or("an open dimension beside an empty one")?;
    }
    if checked_product(&out) == Some(total) {
        Ok(out)
    } else {
        Err(format!("dimensions {dims:?} cannot become {target:?}"))
    }
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

    fn binary(&self) -> Result<Array, String> {
        binary(&self.node.op_type, self.input(0)?, self.input(1)?)
    }

    fn variadic(&self) -> Result<Array, String> {
        let mut result = self.input(0)?.clone();
        let op = if self.node.op_type == "Sum" {
            "Add"
        } else {
            &self.node.op_type
        };
        for index in 1..self.inputs.len() {
            result = binary(op, &result, self.input(index)?)?;
        }
        Ok(result)
    }

    fn unary(&self) -> Result<Array, String> {
        let array = self.input(0)?;
        let op = self.node.op_type.as_str();
        let float = |x: f64| match op {
            "Neg" => -x,
            "Abs" => x.abs(),
            "Floor" => x.floor(),
            "Ceil" => x.ceil(),
            "Round" => x.round_ties_even(),
            "Sqrt" => x.sqrt(),
            "Exp" => x.exp(),
            "Log" => x.ln(),
            "Reciprocal" => 1.0 / x,
            "Relu" => x.max(0.0),
            "Sigmoid" => 1.0 / (1.0 + (-x).exp()),
            _ => x.tanh(),
        };
        let data = match (&array.data, op) {
            (Data::Int(v), "Neg") => Data::Int(v.iter().map(|x| x.wrapping_neg()).collect()),
            (Data::Int(v), "Abs") => Data::Int(v.iter().map(|x| x.wrapping_abs()).collect()),
            (Data::Int(v), "Not") => Data::Int(v.iter().map(|&x| i64::from(x == 0)).collect()),
            (Data::Int(v), "Floor" | "Ceil" | "Round") => Data::Int(v.clone()),
            (Data::Int(v), "Relu") => Data::Int(v.iter().map(|&x| x.max(0)).collect()),
            (_, "Not") | (Data::Int(_), _) => return Err("element type".into()),
            (Data::F32(v), _) => Data::F32(v.iter().map(|&x| float(f64::from(x)) as f32).collect()),
            (Data::F64(v), _) => Data::F64(v.iter().map(|&x| float(x)).collect()),
        };
        Ok(Array {
            dims: array.dims.clone(),
            kind: array.kind,
            data,
        })
    }

    fn clip(&self) -> Result<Array, String> {
        let mut result = self.input(0)?.clone();
        let bound = |attribute: &str, index: usize| {
            self.node
                .float(attribute)
                .map(|v| Array::f32(vec![], vec![v]))
                .or_else(|| self.optional(index).cloned())
        };
        if let Some(min) = bound("min", 1) {
            result = binary("Max", &result, &min)?;
        }
        if let Some(max) = bound("max", 2) {
            result = binary("Min", &result, &max)?;
        }
        Ok(result)
    }

    fn reshape(&self) -> Result<Array, String> {
        let array = self.input(0)?;
        let target = reshape_target(
            &array.dims,
            &self.input(1)?.to_i64(),
            self.node.int("allowzero") == Some(1),
        )?;
        array.reshaped(target).ok_or_else(|| "element count".into())
    }

    fn regroup(&self) -> Result<Array, String> {
        let array = self.input(0)?;
        let dims = regrouped(self.node, &array.dims, self.list("axes", 1).as_deref())?;
        array.reshaped(dims).ok_or_else(|| "element count".into())
    }

    fn transpose(&self) -> Result<Array, String> {
        let array = self.input(0)?;
        let rank = array.dims.len();
        let perm = permutation(self.node, rank)?;
        let strides = row_major(&array.dims);
        let dims: Vec<usize> = perm.iter().map(|&p| array.dims[p]).collect();
        let order: Vec<usize> = perm.iter().map(|&p| strides[p]).collect();
        array
            .pick(dims.clone(), &strided_positions(&dims, &order))
            .ok_or_else(|| "element count".into())
    }

    fn gather(&self) -> Result<Array, String> {
        let (array, indices) = (self.input(0)?, self.input(1)?);
        let axis = axis_index(self.node.int("axis").unwrap_or(0), array.dims.len())?;
        let size = array.dims[axis] as i64;
        let picks: Vec<usize> = indices
            .to_i64()
            .iter()
            .map(|&i| {
                usize::try_from(if i < 0 { i + size } else { i })
                    .ok()
                    .filter(|&i| i < size as usize)
            })
            .collect::<Option<_>>()
            .ok_or("index out of range")?;
        let dims = [&array.dims[..axis], &indices.dims, &array.dims[axis + 1..]].concat();
        limit(&dims, MAX_ELEMENTS)?;
        let (outer, inner) = (
            array.dims[..axis].iter().product::<usize>(),
            array.dims[axis + 1..].iter().product::<usize>(),
        );
        let mut positions = Vec::with_capacity(outer * picks.len() * inner);
        for o in 0..outer {
            for &p in &picks {
                let first = (o * size as usize + p) * inner;
                positions.extend(first..first + inner);
            }
        }
        array
            .pick(dims, &positions)
            .ok_or_else(|| "index out of range".into())
    }

    fn slice(&self) -> Result<Array, String> {
        let array = self.input(0)?;
        let rank = array.dims.len();
        let starts = self.list("starts", 1).ok_or("no starts")?;
        let ends = self.list("ends", 2).ok_or("no ends")?;
        let axes = self
            .list("axes", 3)
            .unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = self
            .optional(4)
            .map_or_else(|| vec![1; starts.len()], Array::to_i64);
        if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
            return Err("starts, ends, axes and steps differ in length".into());
        }
        let mut indices: Vec<Vec<usize>> = array.dims.iter().map(|&d| (0..d).collect()).collect();
        for (((&start, &end), &axis), &step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
            let axis = axis_index(axis, rank)?;
            indices[axis] = slice_indices(array.dims[axis], start, end, step)?;
        }
        let strides = row_major(&array.dims);
        let dims: Vec<usize> = indices.iter().map(Vec::len).collect();
        let mut positions = vec![0usize];
        for (list, &stride) in indices.iter().zip(&strides) {
            positions = positions
                .iter()
                .flat_map(|&p| list.iter().map(move |&i| p + i * stride))
                .collect();
        }
        array
            .pick(dims, &positions)
            .ok_or_else(|| "element count".into())
    }

    fn split(&self) -> Result<Vec<Array>, String> {
        let array = self.input(0)?;
        let axis = axis_index(self.node.int("axis").unwrap_or(0), array.dims.len())?;
        let sizes = split_sizes(
            self.node,
            array.dims[axis],
            self.list("split", 1).as_deref(),
        )?;
        let mut first = 0;
        let (outer, inner) = (
            array.dims[..axis].iter().product::<usize>(),
            array.dims[axis + 1..].iter().product::<usize>(),
        );
        let mut parts = Vec::with_capacity(sizes.len());
        for size in sizes {
            let positions: Vec<usize> = (0..outer)
                .flat_map(|o| {
                    let from = (o * array.dims[axis] + first) * inner;
                    from..from + size * inner
                })
                .collect();
            let mut dims = array.dims.clone();
            dims[axis] = size;
            parts.push(array.pick(dims, &positions).ok_or("element count")?);
            first += size;
        }
        Ok(parts)
    }

    fn concat(&self) -> Result<Array, String> {
        let parts: Vec<&Array> = (0..self.inputs.len())
            .map(|i| self.input(i))
            .collect::<Result<_, _>>()?;
        let first = parts.first().ok_or("no inputs")?;
        let axis = axis_index(self.node.int("axis").unwrap_or(0), first.dims.len())?;
        let mut dims = first.dims.clone();
        dims[axis] = 0;
        for part in &parts {
            let fits = part.dims.len() == dims.len()
                && part
                    .dims
                    .iter()
                    .zip(&first.dims)
                    .enumerate()
                    .all(|(i, (a, b))| i == axis || a == b);
            if !fits {
                return Err(format!(
                    "dimensions {:?} beside {:?}",
                    part.dims, first.dims
                ));
            }
            dims[axis] += part.dims[axis];
        }
        let outer = dims[..axis].iter().product::<usize>();
        fn join<T: Copy>(slices: &[&[T]], outer: usize) -> Vec<T> {
            let mut out = Vec::with_capacity(slices.iter().map(|s| s.len()).sum());
            for o in 0..outer {
                for slice in slices {
                    let run = slice.len() / outer;
                    out.extend_from_slice(&slice[o * run..(o + 1) * run]);
                }
            }
            out
        }
        if outer == 0 {
            return Err("an empty dimension".into());
        }
        let data = if parts.iter().all(|p| matches!(p.data, Data::Int(_))) {
            let owned: Vec<Vec<i64>> = parts.iter().map(|p| p.to_i64()).collect();
            Data::Int(join(
                &owned.iter().map(Vec::as_slice).collect::<Vec<_>>(),
                outer,
            ))
        } else if parts.iter().any(|p| matches!(p.data, Data::F64(_))) {
            let owned: Vec<Vec<f64>> = parts.iter().map(|p| p.to_f64()).collect();
            Data::F64(join(
                &owned.iter().map(Vec::as_slice).collect::<Vec<_>>(),
                outer,
            ))
        } else {
            let owned: Vec<Vec<f32>> = parts.iter().map(|p| p.to_f32()).collect();
            Data::F32(join(
                &owned.iter().map(Vec::as_slice).collect::<Vec<_>>(),
                outer,
            ))
        };
        Ok(Array {
            dims,
            kind: first.kind,
            data,
        })
    }

    fn expand(&self) -> Result<Array, String> {
        let array = self.input(0)?;
        let target = to_dims(&self.input(1)?.to_i64())?;
        let dims = broadcast_shape(&array.dims, &target).ok_or("dimensions do not broadcast")?;
        limit(&dims, MAX_MADE)?;
        array
            .pick(dims.clone(), &broadcast_positions(&array.dims, &dims))
            .ok_or_else(|| "element count".into())
    }

    fn tile(&self) -> Result<Array, String> {
        let array = self.input(0)?;
        let repeats = to_dims(&self.input(1)?.to_i64())?;
        if repeats.len() != array.dims.len() {
            return Err("one repeat per axis".into());
        }
        // Every axis as (repeat, size) with stride 0 along the repeats.
        let strides = row_major(&array.dims);
        let (mut shape, mut steps, mut dims) = (Vec::new(), Vec::new(), Vec::new());
        for ((&repeat, &size), &stride) in repeats.iter().zip(&array.dims).zip(&strides) {
            shape.extend([repeat, size]);
            steps.extend([0, stride]);
            dims.push(repeat.checked_mul(size).ok_or("too many elements")?);
        }
        limit(&dims, MAX_MADE)?;
        array
            .pick(dims, &strided_positions(&shape, &steps))
            .ok_or_else(|| "element count".into())
    }

    fn select(&self) -> Result<Array, String> {
        let (condition, a, b) = (self.input(0)?, self.input(1)?, self.input(2)?);
        let dims = broadcast_shape(&a.dims, &b.dims)
            .and_then(|d| broadcast_shape(&condition.dims, &d))
            .ok_or("dimensions do not broadcast")?;
        limit(&dims, MAX_MADE)?;
        let spread = |x: &Array| {
            x.pick(dims.clone(), &broadcast_positions(&x.dims, &dims))
                .ok_or("element count")
        };
        let (condition, a, b) = (spread(condition)?.to_i64(), spread(a)?, spread(b)?);
        fn choose<T: Copy>(condition: &[i64], a: &[T], b: &[T]) -> Vec<T> {
            condition
                .iter()
                .zip(a.iter().zip(b))
                .map(|(&c, (&a, &b))| if c != 0 { a } else { b })
                .collect()
        }
        let data = match (&a.data, &b.data) {
            (Data::F32(x), Data::F32(y)) => Data::F32(choose(&condition, x, y)),
            (Data::F64(x), Data::F64(y)) => Data::F64(choose(&condition, x, y)),
            (Data::Int(x), Data::Int(y)) => Data::Int(choose(&condition, x, y)),
            _ => return Err("element types differ".into()),
        };
        Ok(Array {
            dims,
            kind: a.kind,
            data,
        })
    }

    fn range(&self) -> Result<Array, String> {
        let (start, limit, delta) = (self.input(0)?, self.input(1)?, self.input(2)?);
        let first = |a: &Array| a.to_f64().first().copied().ok_or("an empty operand");
        let (from, to, step) = (first(start)?, first(limit)?, first(delta)?);
        let count = ((to - from) / step).ceil().max(0.0);
        if !count.is_finite() || count > MAX_MADE as f64 {
            return Err("too many elements".into());
        }
        let count = count as usize;
        Ok(match &start.data {
            Data::Int(_) => Array::ints(
                (0..count)
                    .map(|i| from as i64 + i as i64 * step as i64)
                    .collect(),
            ),
            Data::F32(_) => Array::f32(
                vec![count],
                (0..count)
                    .map(|i| (from + i as f64 * step) as f32)
                    .collect(),
            ),
            Data::F64(_) => Array::f64(
                vec![count],
                (0..count).map(|i| from + i as f64 * step).collect(),
            ),
        })
    }

    fn constant_of_shape(&self) -> Result<Array, String> {
        let dims = to_dims(&self.input(0)?.to_i64())?;
        limit(&dims, MAX_MADE)?;
        let value = match self.node.tensor("value") {
            Some(tensor) => to_array(tensor, None).map_err(|e| e.to_string())?,
            None => Array::f32(vec![1], vec![0.0]),
        };
        let count = dims.iter().product();
        value
            .pick(dims, &vec![0; count])
            .ok_or_else(|| "the value has no element".into())
    }

    fn reduce(&self) -> Result<Array, String> {
        let array = self.input(0)?;
        let rank = array.dims.len();
        let axes = match self.list("axes", 1).filter(|axes| !axes.is_empty()) {
            Some(axes) => axes
                .iter()
                .map(|&a| axis_index(a, rank))
                .collect::<Result<Vec<_>, _>>()?,
            None if self.node.int("noop_with_empty_axes") == Some(1) => return Ok(array.clone()),
            None => (0..rank).collect(),
        };
        let kept: Vec<usize> = (0..rank)
            .map(|i| if axes.contains(&i) { 1 } else { array.dims[i] })
            .collect();
        let targets = broadcast_positions(&kept, &array.dims);
        let count = kept.iter().product::<usize>();
        let op = self.node.op_type.as_str();
        let start = match op {
            "ReduceProd" => 1.0,
            "ReduceMax" => f64::NEG_INFINITY,
            "ReduceMin" => f64::INFINITY,
            _ => 0.0,
        };
        let mut sums = vec![start; count];
        for (&target, value) in targets.iter().zip(array.to_f64()) {
            let slot = &mut sums[target];
            *slot = match op {
                "ReduceProd" => *slot * value,
                "ReduceMax" => slot.max(value),
                "ReduceMin" => slot.min(value),
                _ => *slot + value,
            };
        }
        if op == "ReduceMean" {
            let n = (array.len() / count.max(1)).max(1) as f64;
            sums.iter_mut().for_each(|s| *s /= n);
        }
        let dims = if self.node.int("keepdims").unwrap_or(1) != 0 {
            kept
        } else {
            (0..rank)
                .filter(|i| !axes.contains(i))
                .map(|i| array.dims[i])
                .collect()
        };
        let data = match &array.data {
            Data::F32(_) => Data::F32(sums.iter().map(|&x| x as f32).collect()),
            Data::F64(_) => Data::F64(sums),
            Data::Int(_) => Data::Int(sums.iter().map(|&x| x as i64).collect()),
        };
        Ok(Array {
            dims,
            kind: array.kind,
            data,
        })
    }

    /// Index into scales and zero points for every element: per tensor, per axis, or per block of an axis.
    fn scale_positions(
        &self,
        dims: &[usize],
        scales: &Array,
    ) -> Result<Option<Vec<usize>>, String> {
        if scales.len() == 1 {
            return Ok(None);
        }
        let axis = axis_index(self.node.int("axis").unwrap_or(1), dims.len())?;
        let block = usize::try_from(self.node.int("block_size").unwrap_or(0))
            .map_err(|_| "negative block_size")?;
        let (outer, size, inner) = (
            dims[..axis].iter().product::<usize>(),
            dims[axis],
            dims[axis + 1..].iter().product::<usize>(),
        );
        let mut positions = Vec::with_capacity(outer * size * inner);
        if block == 0 {
            if scales.len() != size {
                return Err(format!("{} scales for an axis of {size}", scales.len()));
            }
            for _ in 0..outer {
                for i in 0..size {
                    positions.extend(std::iter::repeat_n(i, inner));
                }
            }
        } else {
            let blocks = size.div_ceil(block);
            if scales.len() != outer * blocks * inner {
                return Err(format!(
                    "{} scales for {} blocks",
                    scales.len(),
                    outer * blocks * inner
                ));
            }
            for o in 0..outer {
                for i in 0..size {
                    let first = (o * blocks + i / block) * inner;
                    positions.extend(first..first + inner);
                }
            }
        }
        Ok(Some(positions))
    }

    fn dequantize(&self) -> Result<Array, String> {
        let (codes, scales) = (self.input(0)?, self.input(1)?);
        let Data::Int(values) = &codes.data else {
            return Err("the codes are not integers".into());
        };
        let positions = self.scale_positions(&codes.dims, scales)?;
        let scale = scales.to_f32();
        let zero = self
            .optional(2)
            .map(Array::to_i64)
            .unwrap_or_else(|| vec![0; scale.len()]);
        if zero.len() != scale.len() {
            return Err("scales and zero points differ in number".into());
        }
        let at = |i: usize| positions.as_ref().map_or(0, |p| p[i]);
        let out = values
            .iter()
            .enumerate()
            .map(|(i, &q)| (q - zero[at(i)]) as f32 * scale[at(i)])
            .collect();
        Ok(Array::f32(codes.dims.clone(), out))
    }

    fn quantize(&self) -> Result<Array, String> {
        let (array, scales) = (self.input(0)?, self.input(1)?);
        let zero = self.optional(2);
        let kind = match (
            zero,
            self.node
                .int("output_dtype")
                .and_then(|t| i32::try_from(t).ok())
                .filter(|&t| t != 0),
        ) {
            (Some(zero), _) => zero.kind,
            (None, Some(number)) => element_type(number).ok_or("output type")?,
            (None, None) => ElementType::U8,
        };
        let (low, high) = kind
            .quantised_range()
            .ok_or("output type is not int8, uint8, int4 or uint4")?;
        let positions = self.scale_positions(&array.dims, scales)?;
        let scale = scales.to_f32();
        let zero = zero
            .map(Array::to_i64)
            .unwrap_or_else(|| vec![0; scale.len()]);
        if zero.len() != scale.len() {
            return Err("scales and zero points differ in number".into());
        }
        let at = |i: usize| positions.as_ref().map_or(0, |p| p[i]);
        let codes = array
            .to_f32()
            .iter()
            .enumerate()
            .map(|(i, &x)| {
                ((x / scale[at(i)]).round_ties_even() as i64)
                    .saturating_add(zero[at(i)])
                    .clamp(low, high)
            })
            .collect();
        Ok(Array {
            dims: array.dims.clone(),
            kind,
            data: Data::Int(codes),
        })
    }
}

/// Element-wise arithmetic or comparison with broadcasting.
fn binary(op: &str, a: &Array, b: &Array) -> Result<Array, String> {
    let dims = broadcast_shape(&a.dims, &b.dims)
        .ok_or_else(|| format!("dimensions {:?} and {:?} do not broadcast", a.dims, b.dims))?;
    limit(&dims, MAX_ELEMENTS)?;
    let pa = (a.dims != dims).then(|| broadcast_positions(&a.dims, &dims));
    let pb = (b.dims != dims).then(|| broadcast_positions(&b.dims, &dims));
    let count = dims.iter().product::<usize>();
    let at = |positions: &Option<Vec<usize>>, i: usize| positions.as_ref().map_or(i, |p| p[i]);
    let compares = matches!(
        op,
        "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or"
    );
    if let (Data::Int(x), Data::Int(y)) = (&a.data, &b.data) {
        let values = (0..count)
            .map(|i| integer(op, x[at(&pa, i)], y[at(&pb, i)]))
            .collect::<Option<Vec<_>>>()
            .ok_or("integer overflow or division by zero")?;
        return Ok(Array {
            dims,
            kind: if compares { ElementType::Bool } else { a.kind },
            data: Data::Int(values),
        });
    }
    if let (Data::F32(x), Data::F32(y)) = (&a.data, &b.data)
        && !compares
    {
        let values = (0..count)
            .map(|i| single(op, x[at(&pa, i)], y[at(&pb, i)]))
            .collect();
        return Ok(Array {
            dims,
            kind: ElementType::F32,
            data: Data::F32(values),
        });
    }
    let (x, y) = (a.to_f64(), b.to_f64());
    let values: Vec<f64> = (0..count)
        .map(|i| double(op, x[at(&pa, i)], y[at(&pb, i)]))
        .collect();
    if compares {
        return Ok(Array {
            dims,
            kind: ElementType::Bool,
            data: Data::Int(values.iter().map(|&v| v as i64).collect()),
        });
    }
    // The mixed forms (Pow with an integer exponent) keep the type of the first operand.
    let data = match a.data {
        Data::F32(_) => Data::F32(values.iter().map(|&v| v as f32).collect()),
        Data::F64(_) => Data::F64(values),
        Data::Int(_) => Data::Int(values.iter().map(|&v| v as i64).collect()),
    };
    Ok(Array {
        dims,
        kind: a.kind,
        data,
    })
}

fn integer(op: &str, x: i64, y: i64) -> Option<i64> {
    Some(match op {
        "Add" => x.checked_add(y)?,
        "Sub" => x.checked_sub(y)?,
        "Mul" => x.checked_mul(y)?,
        "Div" => x.checked_div(y)?,
        "Mod" => x.checked_rem_euclid(y)?,
        "Pow" => x.checked_pow(u32::try_from(y).ok()?)?,
        "Min" => x.min(y),
        "Max" => x.max(y),
        "And" => i64::from(x != 0 && y != 0),
        "Or" => i64::from(x != 0 || y != 0),
        "Equal" => i64::from(x == y),
        "Greater" => i64::from(x > y),
        "GreaterOrEqual" => i64::from(x >= y),
        "Less" => i64::from(x < y),
        "LessOrEqual" => i64::from(x <= y),
        _ => return None,
    })
}

fn single(op: &str, x: f32, y: f32) -> f32 {
    match op {
        "Add" => x + y,
        "Sub" => x - y,
        "Mul" => x * y,
        "Div" => x / y,
        "Mod" => x % y,
        "Pow" => x.powf(y),
        "Min" => x.min(y),
        _ => x.max(y),
    }
}

fn double(op: &str, x: f64, y: f64) -> f64 {
    let flag = |b: bool| f64::from(u8::from(b));
    match op {
        "Add" => x + y,
        "Sub" => x - y,
        "Mul" => x * y,
        "Div" => x / y,
        "Mod" => x % y,
        "Pow" => x.powf(y),
        "Min" => x.min(y),
        "Max" => x.max(y),
        "And" => flag(x != 0.0 && y != 0.0),
        "Or" => flag(x != 0.0 || y != 0.0),
        "Equal" => flag(x == y),
        "Greater" => flag(x > y),
        "GreaterOrEqual" => flag(x >= y),
        "Less" => flag(x < y),
        _ => flag(x <= y),
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

/// Output dimensions of `Flatten`, `Squeeze` and `Unsqueeze`; `axes` as given by attribute or input.
pub fn regrouped(
    node: &NodeProto,
    dims: &[usize],
    axes: Option<&[i64]>,
) -> Result<Vec<usize>, String> {
    let rank = dims.len();
    match node.op_type.as_str() {
        "Flatten" => {
            let axis = node.int("axis").unwrap_or(1);
            let axis = if axis == rank as i64 {
                rank
            } else {
                axis_index(axis, rank)?
            };
            Ok(vec![
                dims[..axis].iter().product(),
                dims[axis..].iter().product(),
            ])
        }
        "Squeeze" => {
            let axes = match axes {
                Some(axes) => axes
                    .iter()
                    .map(|&a| axis_index(a, rank))
                    .collect::<Result<Vec<_>, _>>()?,
                None => (0..rank).filter(|&i| dims[i] == 1).collect(),
            };
            if let Some(&axis) = axes.iter().find(|&&a| dims[a] != 1) {
                return Err(format!("axis {axis} has {} elements", dims[axis]));
            }
            Ok((0..rank)
                .filter(|i| !axes.contains(i))
                .map(|i| dims[i])
                .collect())
        }
        _ => {
            let axes = axes.ok_or("no axes")?;
            let full = rank + axes.len();
            let axes = axes
                .iter()
                .map(|&a| axis_index(a, full))
                .collect::<Result<Vec<_>, _>>()?;
            let mut old = dims.iter();
            (0..full)
                .map(|i| {
                    if axes.contains(&i) {
                        Ok(1)
                    } else {
                        old.next()
                            .copied()
                            .ok_or_else(|| "an axis twice".to_string())
                    }
                })
                .collect()
        }
    }
}

/// The permutation of a `Transpose`.
pub fn permutation(node: &NodeProto, rank: usize) -> Result<Vec<usize>, String> {
    let perm = match node.ints("perm") {
        Some(perm) => perm
            .iter()
            .map(|&p| axis_index(p, rank))
            .collect::<Result<Vec<_>, _>>()?,
        None => (0..rank).rev().collect(),
    };
    let mut seen = vec![false; rank];
    perm.iter().for_each(|&p| seen[p] = true);
    if perm.len() == rank && seen.iter().all(|&s| s) {
        Ok(perm)
    } else {
        Err(format!("perm {perm:?} is not a permutation"))
    }
}

/// The indices that a slice of an axis of `size` elements picks (ONNX clamping rules).
pub fn slice_indices(size: usize, start: i64, end: i64, step: i64) -> Result<Vec<usize>, String> {
    let n = size as i64;
    let wrap = |v: i64| if v < 0 { v.saturating_add(n) } else { v };
    if size == 0 {
        return Ok(Vec::new());
    }
    match step {
        0 => Err("step 0".into()),
        1.. => Ok((wrap(start).clamp(0, n)..wrap(end).clamp(0, n))
            .step_by(step as usize)
            .map(|i| i as usize)
            .collect()),
        _ => {
            let (first, last) = (wrap(start).clamp(0, n - 1), wrap(end).clamp(-1, n - 1));
            let stride = usize::try_from(step.unsigned_abs()).map_err(|_| "step")?;
            Ok((last + 1..=first)
                .rev()
                .step_by(stride)
                .map(|i| i as usize)
                .collect())
        }
    }
}

/// The sizes of the parts of a `Split`.
pub fn split_sizes(
    node: &NodeProto,
    size: usize,
    split: Option<&[i64]>,
) -> Result<Vec<usize>, String> {
    if let Some(split) = split.filter(|s| !s.is_empty()) {
        let sizes = to_dims(split)?;
        return if sizes.iter().sum::<usize>() == size && sizes.len() == node.output.len() {
            Ok(sizes)
        } else {
            Err(format!(
                "split {split:?} of {size} elements into {} outputs",
                node.output.len()
            ))
        };
    }
    let parts = node.int("num_outputs").map_or(Ok(node.output.len()), |n| {
        usize::try_from(n).map_err(|_| "num_outputs")
    })?;
    let chunk = if parts == 0 { 0 } else { size.div_ceil(parts) };
    // Operator set 18: equal parts, the last one smaller.
    let sizes: Vec<usize> = (0..parts)
        .map(|i| chunk.min(size.saturating_sub(i * chunk)))
        .collect();
    if parts == node.output.len() && sizes.iter().all(|&s| s > 0) {
        Ok(sizes)
    } else {
        Err(format!("{size} elements into {parts} parts"))
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
