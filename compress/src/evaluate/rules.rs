//! ONNX rules about shapes and axes that folding and importing share.

use crate::array::{Array, checked_product};
use crate::onnx::proto::NodeProto;

use super::to_dims;

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
