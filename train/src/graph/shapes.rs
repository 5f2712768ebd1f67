//! Operators that move elements or normalise along axes; rarely large, so they use the library's own operations.

use candle_core::Tensor;
use dcz_format::graph::{Node, ReshapeDim, SliceRange};

use super::{Result, Value, refuse};

/// Zeros around.
pub(super) fn pad(node: &Node, x: &Value, amounts: &[(u32, u32)], value: f32) -> Result<Value> {
    if value != 0.0 || amounts.first().is_some_and(|a| *a != (0, 0)) {
        return Err(refuse(
            node,
            "padding of the batch or with another value than 0",
        ));
    }
    let mut t = x.plain()?;
    for (axis, &(before, after)) in amounts.iter().enumerate() {
        if (before, after) != (0, 0) {
            t = t.pad_with_zeros(axis, before as usize, after as usize)?;
        }
    }
    to_map(t, x)
}

/// A plain value as a map again when `like` is one.
fn to_map(t: Tensor, like: &Value) -> Result<Value> {
    if !matches!(like, Value::Map { .. }) || t.rank() != 4 {
        return Ok(Value::Plain(t));
    }
    let (n, c, h, w) = t.dims4()?;
    let t = t.permute((1, 0, 2, 3))?.contiguous()?;
    Ok(Value::Map {
        t: t.reshape((c, n * h * w))?,
        size: [h, w],
    })
}

/// Joined along an axis.
pub(super) fn concat(node: &Node, inputs: &[&Value], axis: usize) -> Result<Value> {
    if axis == 0 {
        return Err(refuse(node, "it joins batches"));
    }
    if let (1, Some(Value::Map { size, .. })) = (axis, inputs.first()) {
        let maps: Option<Vec<&Tensor>> = inputs
            .iter()
            .map(|v| match v {
                Value::Map { t, size: s } if s == size => Some(t),
                _ => None,
            })
            .collect();
        if let Some(maps) = maps {
            return Ok(Value::Map {
                t: Tensor::cat(&maps, 0)?,
                size: *size,
            });
        }
    }
    let parts: Vec<Tensor> = inputs.iter().map(|v| v.plain()).collect::<Result<_>>()?;
    Ok(Value::Plain(Tensor::cat(&parts, axis)?))
}

/// Other dimensions, the batch stays the first.
pub(super) fn reshape(node: &Node, x: &Value, dims: &[ReshapeDim]) -> Result<Value> {
    let t = x.plain()?;
    let input = t.dims();
    let batch = input.first().copied().unwrap_or(1);
    // The records are for one image: a leading 1 is the batch.
    let size = |i: usize, dim: &ReshapeDim| match *dim {
        ReshapeDim::Fixed(1) if i == 0 => Some(batch),
        ReshapeDim::Fixed(d) => Some(d as usize),
        ReshapeDim::Input { from, to } => Some(
            input
                .get(usize::from(from)..usize::from(to))
                .map_or(0, |d| d.iter().product()),
        ),
        ReshapeDim::Rest => None,
    };
    let mut out: Vec<Option<usize>> = dims.iter().enumerate().map(|(i, d)| size(i, d)).collect();
    if out.first() == Some(&None) && !dims[1..].contains(&ReshapeDim::Rest) {
        out[0] = Some(batch);
    }
    let known: usize = out.iter().flatten().product();
    let out: Vec<usize> = out
        .iter()
        .map(|d| d.unwrap_or(t.elem_count() / known.max(1)))
        .collect();
    if out.iter().product::<usize>() != t.elem_count() || out.first() != Some(&batch) {
        return Err(refuse(node, "it reshapes the batch"));
    }
    Ok(Value::Plain(t.reshape(out)?))
}

/// Ranges of axes.
pub(super) fn slice(node: &Node, x: &Value, ranges: &[SliceRange]) -> Result<Value> {
    let mut t = x.plain()?;
    for range in ranges {
        let axis = usize::from(range.axis);
        if axis == 0 || range.step == 0 {
            return Err(refuse(node, "it cuts the batch"));
        }
        let len = t.dim(axis)?;
        let place = |at: u32, from_end: bool| {
            let at = (at as usize).min(len);
            if from_end { len - at } else { at }
        };
        let (start, end) = (
            place(range.start, range.start_from_end),
            place(range.end, range.end_from_end),
        );
        if start >= end {
            return Err(refuse(node, "an empty range"));
        }
        t = if range.step == 1 {
            t.narrow(axis, start, end - start)?
        } else {
            let picks: Vec<u32> = (start..end)
                .step_by(range.step as usize)
                .map(|i| i as u32)
                .collect();
            let picks = Tensor::new(picks, t.device())?;
            t.contiguous()?.index_select(&picks, axis)?
        };
    }
    to_map(t.contiguous()?, x)
}

/// Softmax over consecutive axes.
pub(super) fn softmax(node: &Node, x: &Value, axis: usize, end: usize) -> Result<Value> {
    let t = x.plain()?;
    let dims = t.dims().to_vec();
    if axis == 0 || axis >= end || end > dims.len() {
        return Err(refuse(node, "a softmax over the batch"));
    }
    let outer: usize = dims[..axis].iter().product();
    let middle: usize = dims[axis..end].iter().product();
    let t = t.reshape((outer, middle, ()))?;
    let t = t.broadcast_sub(&t.max_keepdim(1)?.detach())?.exp()?;
    let t = t.broadcast_div(&t.sum_keepdim(1)?)?;
    Ok(Value::Plain(t.reshape(dims)?))
}
