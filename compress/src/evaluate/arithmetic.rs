//! Element-wise arithmetic, comparisons and reductions of constants.

use crate::array::{Array, Data, ElementType, broadcast_positions, broadcast_shape};

use super::{Context, MAX_ELEMENTS, MAX_MADE, axis_index, limit};

impl Context<'_> {
    pub(super) fn binary(&self) -> Result<Array, String> {
        binary(&self.node.op_type, self.input(0)?, self.input(1)?)
    }

    pub(super) fn variadic(&self) -> Result<Array, String> {
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

    pub(super) fn unary(&self) -> Result<Array, String> {
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

    pub(super) fn clip(&self) -> Result<Array, String> {
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

    pub(super) fn select(&self) -> Result<Array, String> {
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

    pub(super) fn reduce(&self) -> Result<Array, String> {
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
