//! Constant arrays of the importer: what initializers, `Constant` nodes and folded sub-graphs hold.
//!
//! Float16 and bfloat16 are widened to f32, every integer type and bool to i64 (with the original type remembered, since
//! quantisation saturates by type). Elements are in row-major order.

/// Element type as far as folding cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// float, float16, bfloat16
    F32,
    /// double
    F64,
    /// int64, int32, int16 and uint16 to uint64
    Int,
    /// int8
    I8,
    /// uint8
    U8,
    /// int4
    I4,
    /// uint4
    U4,
    /// bool, as 0 or 1
    Bool,
}

impl ElementType {
    /// Least and largest value of a quantised type.
    pub fn quantised_range(self) -> Option<(i64, i64)> {
        match self {
            ElementType::I8 => Some((-128, 127)),
            ElementType::U8 => Some((0, 255)),
            ElementType::I4 => Some((-8, 7)),
            ElementType::U4 => Some((0, 15)),
            _ => None,
        }
    }
}

/// Elements.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
    /// Integers and booleans.
    Int(Vec<i64>),
}

/// A constant array.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Dimensions; empty for a scalar.
    pub dims: Vec<usize>,
    /// Element type.
    pub kind: ElementType,
    /// Elements; as many as the product of the dimensions.
    pub data: Data,
}

impl Array {
    /// Single-precision values. `values.len()` is the product of `dims`.
    pub fn f32(dims: Vec<usize>, values: Vec<f32>) -> Array {
        debug_assert_eq!(dims.iter().product::<usize>(), values.len());
        Array {
            dims,
            kind: ElementType::F32,
            data: Data::F32(values),
        }
    }
    /// Double-precision values.
    pub fn f64(dims: Vec<usize>, values: Vec<f64>) -> Array {
        debug_assert_eq!(dims.iter().product::<usize>(), values.len());
        Array {
            dims,
            kind: ElementType::F64,
            data: Data::F64(values),
        }
    }
    /// Integers.
    pub fn int(dims: Vec<usize>, values: Vec<i64>) -> Array {
        debug_assert_eq!(dims.iter().product::<usize>(), values.len());
        Array {
            dims,
            kind: ElementType::Int,
            data: Data::Int(values),
        }
    }
    /// A list of integers.
    pub fn ints(values: Vec<i64>) -> Array {
        Array::int(vec![values.len()], values)
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::F32(v) => v.len(),
            Data::F64(v) => v.len(),
            Data::Int(v) => v.len(),
        }
    }
    /// No elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Floating point?
    pub fn is_float(&self) -> bool {
        !matches!(self.data, Data::Int(_))
    }
    /// As single precision; integers are converted.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            Data::F32(v) => v.clone(),
            Data::F64(v) => v.iter().map(|&x| x as f32).collect(),
            Data::Int(v) => v.iter().map(|&x| x as f32).collect(),
        }
    }
    /// As single precision, without a copy when it is that already.
    pub fn into_f32(self) -> Vec<f32> {
        match self.data {
            Data::F32(v) => v,
            _ => self.to_f32(),
        }
    }
    /// As double precision; integers are converted.
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.data {
            Data::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::F64(v) => v.clone(),
            Data::Int(v) => v.iter().map(|&x| x as f64).collect(),
        }
    }
    /// As integers; floats are truncated.
    pub fn to_i64(&self) -> Vec<i64> {
        match &self.data {
            Data::F32(v) => v.iter().map(|&x| x as i64).collect(),
            Data::F64(v) => v.iter().map(|&x| x as i64).collect(),
            Data::Int(v) => v.clone(),
        }
    }
    /// The only element, if there is exactly one.
    pub fn scalar_f32(&self) -> Option<f32> {
        match (&self.data, self.len()) {
            (Data::F32(v), 1) => v.first().copied(),
            (Data::F64(v), 1) => v.first().map(|&x| x as f32),
            (Data::Int(v), 1) => v.first().map(|&x| x as f32),
            _ => None,
        }
    }
    /// The only element, if there is exactly one and it is an integer.
    pub fn scalar_i64(&self) -> Option<i64> {
        match (&self.data, self.len()) {
            (Data::Int(v), 1) => v.first().copied(),
            _ => None,
        }
    }
    /// The same elements with other dimensions of the same product.
    pub fn reshaped(&self, dims: Vec<usize>) -> Option<Array> {
        (checked_product(&dims)? == self.len()).then(|| Array {
            dims,
            kind: self.kind,
            data: self.data.clone(),
        })
    }
    /// Elements at the given positions, as an array of shape `dims`; none when a position is out of range.
    pub fn pick(&self, dims: Vec<usize>, positions: &[usize]) -> Option<Array> {
        fn take<T: Copy>(values: &[T], positions: &[usize]) -> Option<Vec<T>> {
            positions.iter().map(|&p| values.get(p).copied()).collect()
        }
        let data = match &self.data {
            Data::F32(v) => Data::F32(take(v, positions)?),
            Data::F64(v) => Data::F64(take(v, positions)?),
            Data::Int(v) => Data::Int(take(v, positions)?),
        };
        (checked_product(&dims)? == positions.len()).then_some(Array {
            dims,
            kind: self.kind,
            data,
        })
    }
}

/// Product of dimensions; none when it does not fit, even with the empty dimensions left out (so that strides fit too).
pub fn checked_product(dims: &[usize]) -> Option<usize> {
    let others = dims
        .iter()
        .try_fold(1usize, |product, &dim| product.checked_mul(dim.max(1)))?;
    Some(if dims.contains(&0) { 0 } else { others })
}

/// NumPy broadcasting of two shapes.
pub fn broadcast_shape(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let dim = |shape: &[usize], axis: usize| {
        (axis + shape.len())
            .checked_sub(rank)
            .and_then(|i| shape.get(i).copied())
            .unwrap_or(1)
    };
    (0..rank)
        .map(|axis| match (dim(a, axis), dim(b, axis)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// Positions of `from`'s elements for every element of the broadcast shape `to`, in row-major order.
pub fn broadcast_positions(from: &[usize], to: &[usize]) -> Vec<usize> {
    let lead = to.len().saturating_sub(from.len());
    let mut strides = vec![0usize; to.len()];
    let mut stride = 1;
    for axis in (0..from.len()).rev() {
        strides[lead + axis] = if from[axis] == 1 { 0 } else { stride };
        stride *= from[axis];
    }
    strided_positions(to, &strides)
}

/// Positions `sum(index * stride)` for every index of a shape, in row-major order.
pub fn strided_positions(shape: &[usize], strides: &[usize]) -> Vec<usize> {
    let total = shape.iter().product::<usize>();
    let mut positions = Vec::with_capacity(total);
    let mut index = vec![0usize; shape.len()];
    let mut position = 0usize;
    for _ in 0..total {
        positions.push(position);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            position += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            position -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    positions
}

/// Row-major strides.
pub fn row_major(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_follows_numpy() {
        assert_eq!(broadcast_shape(&[2, 1, 3], &[4, 1]), Some(vec![2, 4, 3]));
        assert_eq!(broadcast_shape(&[], &[4]), Some(vec![4]));
        assert_eq!(broadcast_shape(&[2], &[3]), None);
        assert_eq!(broadcast_positions(&[2, 1], &[2, 3]), [0, 0, 0, 1, 1, 1]);
        assert_eq!(broadcast_positions(&[3], &[2, 3]), [0, 1, 2, 0, 1, 2]);
        assert_eq!(broadcast_positions(&[], &[2]), [0, 0]);
    }

    #[test]
    fn strides_walk_in_row_major_order() {
        assert_eq!(row_major(&[2, 3, 4]), [12, 4, 1]);
        assert_eq!(strided_positions(&[3, 2], &[1, 3]), [0, 3, 1, 4, 2, 5]);
        assert_eq!(strided_positions(&[], &[]), [0]);
    }
}
