//! Operators that move, repeat or make elements of constants.

use crate::array::{
    Array, Data, broadcast_positions, broadcast_shape, row_major, strided_positions,
};
use crate::onnx::tensor::to_array;

use super::{
    Context, MAX_ELEMENTS, MAX_MADE, axis_index, limit, permutation, regrouped, reshape_target,
    slice_indices, split_sizes, to_dims,
};

impl Context<'_> {
    pub(super) fn reshape(&self) -> Result<Array, String> {
        let array = self.input(0)?;
        let target = reshape_target(
            &array.dims,
            &self.input(1)?.to_i64(),
            self.node.int("allowzero") == Some(1),
        )?;
        array.reshaped(target).ok_or_else(|| "element count".into())
    }

    pub(super) fn regroup(&self) -> Result<Array, String> {
        let array = self.input(0)?;
        let dims = regrouped(self.node, &array.dims, self.list("axes", 1).as_deref())?;
        array.reshaped(dims).ok_or_else(|| "element count".into())
    }

    pub(super) fn transpose(&self) -> Result<Array, String> {
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

    pub(super) fn gather(&self) -> Result<Array, String> {
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

    pub(super) fn slice(&self) -> Result<Array, String> {
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

    pub(super) fn split(&self) -> Result<Vec<Array>, String> {
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

    pub(super) fn concat(&self) -> Result<Array, String> {
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

    pub(super) fn expand(&self) -> Result<Array, String> {
        let array = self.input(0)?;
        let target = to_dims(&self.input(1)?.to_i64())?;
        let dims = broadcast_shape(&array.dims, &target).ok_or("dimensions do not broadcast")?;
        limit(&dims, MAX_MADE)?;
        array
            .pick(dims.clone(), &broadcast_positions(&array.dims, &dims))
            .ok_or_else(|| "element count".into())
    }

    pub(super) fn tile(&self) -> Result<Array, String> {
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

    pub(super) fn range(&self) -> Result<Array, String> {
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

    pub(super) fn constant_of_shape(&self) -> Result<Array, String> {
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
}
