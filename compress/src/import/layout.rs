//! Operators that move elements: reshapes, transposition, slices, concatenation, padding.

use dcz_format::graph::{BinaryKind, Op, ReshapeDim, SliceRange};

use super::draft::{Shapes, TensorIndex};
use super::{Fail, Importer, Value, at_sample, unsupported};
use crate::array::Array;
use crate::evaluate::{axis_index, permutation, regrouped, reshape_target, split_sizes};
use crate::onnx::proto::NodeProto;

/// Most single elements that a slice with a negative step is taken apart into.
const MAX_REVERSED: usize = 64;

impl Importer<'_> {
    pub(super) fn reshape(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let x = self.tensor(node, 0)?;
        let target = self.known(node, 1)?.ok_or_else(|| {
            unsupported("the target shape is computed", "Reshape to a known shape")
        })?;
        let allow_zero = node.int("allowzero").unwrap_or(0) != 0;
        let mut shapes = Vec::new();
        for (sample, dims) in self.shapes(x).iter().enumerate() {
            let wanted = at_sample(&target, sample)
                .map(Array::to_i64)
                .unwrap_or_default();
            shapes.push(
                reshape_target(dims, &wanted, allow_zero)
                    .map_err(|text| self.at_sizes(sample, text))?,
            );
        }
        self.emit_reshape(node, x, shapes)
    }

    /// A shape that does not fit is the model's fault at its own sizes, and a limit of ours at the others.
    fn at_sizes(&self, sample: usize, text: String) -> Fail {
        if sample == 0 {
            return Fail::Malformed(text);
        }
        unsupported(
            format!("{text}, once a dimension given by --dynamic changes"),
            "a target that follows the input (0, -1, or computed from Shape)",
        )
    }

    pub(super) fn regroup(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let x = self.tensor(node, 0)?;
        let axes = if node.op_type == "Flatten" {
            None
        } else {
            self.list(node, "axes", 1)?
        };
        let mut shapes = Vec::new();
        for (sample, dims) in self.shapes(x).iter().enumerate() {
            shapes.push(
                regrouped(node, dims, axes.as_deref())
                    .map_err(|text| self.at_sizes(sample, text))?,
            );
        }
        self.emit_reshape(node, x, shapes)
    }

    /// A reshape to the given shapes, or an alias when nothing changes.
    fn emit_reshape(
        &mut self,
        node: &NodeProto,
        x: TensorIndex,
        shapes: Shapes,
    ) -> Result<(), Fail> {
        if shapes == *self.shapes(x) {
            self.set_alias(node, x);
            return Ok(());
        }
        let nearest = "a target whose symbolic dimensions are products of neighbouring input dimensions, at most one other";
        let dims = reshape_dims(self.shapes(x), &shapes)
            .ok_or_else(|| unsupported("the target shape", nearest))?;
        let op = Op::Reshape { dims };
        if self.infer(&op, &[x])? != shapes {
            return Err(unsupported("the target shape", nearest));
        }
        self.emit(node, 0, op, vec![x])
    }

    pub(super) fn transpose(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let x = self.tensor(node, 0)?;
        let perm = permutation(node, self.draft.rank(x))?;
        if perm.iter().enumerate().all(|(i, &p)| i == p) {
            self.set_alias(node, x);
            return Ok(());
        }
        self.emit(
            node,
            0,
            Op::Transpose {
                perm: perm.iter().map(|&p| p as u8).collect(),
            },
            vec![x],
        )
    }

    pub(super) fn slice(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let x = self.tensor(node, 0)?;
        let rank = self.draft.rank(x);
        let missing = || Fail::Malformed("no starts or ends".into());
        let starts = self.slice_list(node, "starts", 1)?.ok_or_else(missing)?;
        let ends = self.slice_list(node, "ends", 2)?.ok_or_else(missing)?;
        let count = starts.first().map_or(0, Vec::len);
        let axes = self
            .list(node, "axes", 3)?
            .unwrap_or_else(|| (0..count as i64).collect());
        let steps = self
            .constant(node, 4)?
            .map_or_else(|| vec![1; count], |a| a.to_i64());
        if starts.iter().chain(&ends).any(|list| list.len() != count)
            || axes.len() != count
            || steps.len() != count
        {
            return Err(Fail::Malformed(
                "starts, ends, axes and steps differ in length".into(),
            ));
        }
        let mut ranges = Vec::new();
        let mut current = x;
        for (i, (&axis, &step)) in axes.iter().zip(&steps).enumerate() {
            let axis = axis_index(axis, rank)?;
            let of = |lists: &[Vec<i64>]| lists.iter().map(|list| list[i]).collect::<Vec<i64>>();
            if step < 0 {
                current = self.reversed(node, current, axis, &of(&starts), &of(&ends), step)?;
                continue;
            }
            let step = u32::try_from(step)
                .ok()
                .filter(|&s| s > 0)
                .ok_or_else(|| Fail::Malformed("step 0".into()))?;
            let sizes: Vec<usize> = self.shapes(x).iter().map(|dims| dims[axis]).collect();
            let (start, start_from_end) = bound(&of(&starts), &sizes)?;
            let (end, end_from_end) = bound(&of(&ends), &sizes)?;
            let end = if !end_from_end
                && end as usize >= sizes.iter().copied().max().unwrap_or(0)
                && of(&ends)[0] >= i64::from(i32::MAX)
            {
                u32::MAX
            } else {
                end
            };
            ranges.push(SliceRange {
                axis: axis as u8,
                start,
                start_from_end,
                end,
                end_from_end,
                step,
            });
        }
        let forward = ranges.iter().all(|r| r.step == 1);
        let op = Op::Slice { ranges };
        if self.infer(&op, &[current])? == *self.shapes(current) && forward {
            self.set_alias(node, current);
            return Ok(());
        }
        self.emit(node, 0, op, vec![current])
    }

    /// Starts or ends per sample.
    fn slice_list(
        &self,
        node: &NodeProto,
        attribute: &str,
        index: usize,
    ) -> Result<Option<Vec<Vec<i64>>>, Fail> {
        if let Some(list) = node.ints(attribute) {
            return Ok(Some(vec![list.to_vec()]));
        }
        match self.known(node, index)? {
            Some(known) => Ok(Some(known.iter().map(|array| array.to_i64()).collect())),
            None if node.input_name(index).is_some() => Err(unsupported(
                format!("{attribute} is computed"),
                format!("constant {attribute}"),
            )),
            None => Ok(None),
        }
    }

    /// A slice that runs backwards: its elements one by one, concatenated.
    fn reversed(
        &mut self,
        node: &NodeProto,
        x: TensorIndex,
        axis: usize,
        starts: &[i64],
        ends: &[i64],
        step: i64,
    ) -> Result<TensorIndex, Fail> {
        let nearest =
            format!("step > 0, or at most {MAX_REVERSED} elements of an axis of fixed size");
        let wrong = || unsupported(format!("step = {step}"), nearest.clone());
        let (Some(size), &[start], &[end]) = (self.draft.fixed_dim(x, axis), starts, ends) else {
            return Err(wrong());
        };
        let indices = crate::evaluate::slice_indices(size, start, end, step)?;
        if indices.is_empty() || indices.len() > MAX_REVERSED {
            return Err(wrong());
        }
        let mut parts = Vec::with_capacity(indices.len());
        for &index in &indices {
            parts.push(self.emit_hidden(
                node,
                Op::Slice {
                    ranges: vec![range(axis, index, index + 1)],
                },
                vec![x],
            )?);
        }
        self.emit_hidden(node, Op::Concat { axis: axis as u8 }, parts)
    }

    pub(super) fn split(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let x = self.tensor(node, 0)?;
        let axis = axis_index(node.int("axis").unwrap_or(0), self.draft.rank(x))?;
        let split = self.list(node, "split", 1)?;
        let size = self.draft.fixed_dim(x, axis).ok_or_else(|| {
            unsupported(
                format!("axis {axis} is symbolic"),
                "Split of an axis of fixed size",
            )
        })?;
        let sizes = split_sizes(node, size, split.as_deref())?;
        let mut start = 0;
        for (index, size) in sizes.into_iter().enumerate() {
            if node
                .output
                .get(index)
                .is_some_and(|name| self.read.contains(name))
            {
                self.emit(
                    node,
                    index,
                    Op::Slice {
                        ranges: vec![range(axis, start, start + size)],
                    },
                    vec![x],
                )?;
            }
            start += size;
        }
        Ok(())
    }

    pub(super) fn concat(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let first = (0..node.input.len()).find_map(|i| self.tensor(node, i).ok());
        let Some(first) = first else {
            return Err(Fail::Malformed("no inputs".into()));
        };
        let axis = axis_index(node.int("axis").unwrap_or(1), self.draft.rank(first))?;
        if node.input.iter().any(|name| {
            matches!(
                self.values.get(name),
                Some(Value::Known(_) | Value::Initializer(_))
            )
        }) {
            return self.concat_constants(node, axis);
        }
        let tensors: Vec<TensorIndex> = (0..node.input.len())
            .map(|i| self.tensor(node, i))
            .collect::<Result<_, _>>()?;
        if let &[only] = tensors.as_slice() {
            self.set_alias(node, only);
            return Ok(());
        }
        self.emit(node, 0, Op::Concat { axis: axis as u8 }, tensors)
    }

    /// Concatenation with constants: the computed parts are joined and padded apart with zeros, then the constants added.
    ///
    /// Works when the computed parts are neighbours and the other axes have fixed sizes.
    fn concat_constants(&mut self, node: &NodeProto, axis: usize) -> Result<(), Fail> {
        let wrong = || {
            unsupported(
                "constant operands",
                "constants before or after the computed operands, all dimensions fixed",
            )
        };
        let parts: Vec<Result<TensorIndex, Array>> = (0..node.input.len())
            .map(|i| match self.tensor(node, i) {
                Ok(tensor) => Ok(Ok(tensor)),
                Err(_) => self
                    .constant(node, i)
                    .and_then(|a| a.map(Err).ok_or_else(wrong)),
            })
            .collect::<Result<_, Fail>>()?;
        let from = parts.iter().position(Result::is_ok).ok_or_else(wrong)?;
        let to = parts.iter().rposition(Result::is_ok).ok_or_else(wrong)?;
        let tensors: Vec<TensorIndex> = parts[from..=to]
            .iter()
            .filter_map(|p| p.as_ref().ok().copied())
            .collect();
        if tensors.len() != to - from + 1 {
            return Err(wrong());
        }
        let x = match tensors.as_slice() {
            &[only] => only,
            _ => self.emit_hidden(node, Op::Concat { axis: axis as u8 }, tensors)?,
        };
        let rank = self.draft.rank(x);
        let dims: Vec<usize> = (0..rank)
            .map(|i| self.draft.fixed_dim(x, i))
            .collect::<Option<_>>()
            .ok_or_else(wrong)?;
        let fits = |array: &Array| {
            array.dims.len() == rank
                && array
                    .dims
                    .iter()
                    .zip(&dims)
                    .enumerate()
                    .all(|(i, (a, b))| i == axis || a == b)
        };
        let constants: Vec<&Array> = parts.iter().filter_map(|p| p.as_ref().err()).collect();
        if !constants.iter().all(|c| fits(c)) {
            return Err(Fail::Malformed("operands of different dimensions".into()));
        }
        let extent = |list: &[Result<TensorIndex, Array>]| {
            list.iter()
                .filter_map(|p| p.as_ref().err())
                .map(|a| a.dims[axis])
                .sum::<usize>()
        };
        let (before, after) = (extent(&parts[..from]), extent(&parts[to + 1..]));
        let mut whole = dims.clone();
        whole[axis] += before + after;
        let mut values = vec![0.0f32; whole.iter().product()];
        let (outer, inner) = (
            dims[..axis].iter().product::<usize>(),
            dims[axis + 1..].iter().product::<usize>(),
        );
        let mut offset = 0;
        for part in &parts {
            match part {
                Ok(tensor) => offset += self.draft.fixed_dim(*tensor, axis).ok_or_else(wrong)?,
                Err(array) => {
                    let (source, run) = (array.to_f32(), array.dims[axis] * inner);
                    for o in 0..outer {
                        let at = (o * whole[axis] + offset) * inner;
                        values[at..at + run].copy_from_slice(&source[o * run..(o + 1) * run]);
                    }
                    offset += array.dims[axis];
                }
            }
        }
        let mut amounts = vec![(0, 0); rank];
        amounts[axis] = (before as u32, after as u32);
        let padded = self.emit_hidden(
            node,
            Op::Pad {
                amounts,
                value: 0.0,
            },
            vec![x],
        )?;
        let constant =
            self.draft
                .add_constant(&format!("{}.constant", node.label()), whole, values);
        self.emit(
            node,
            0,
            Op::BinaryConst {
                kind: BinaryKind::Add,
                constant,
                constant_first: false,
            },
            vec![padded],
        )
    }

    pub(super) fn pad(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let x = self.tensor(node, 0)?;
        let rank = self.draft.rank(x);
        match node.string("mode").as_deref() {
            None | Some("" | "constant") => {}
            Some(mode) => return Err(unsupported(format!("mode = {mode}"), "mode = constant")),
        }
        let pads = self
            .list(node, "pads", 1)?
            .ok_or_else(|| Fail::Malformed("no pads".into()))?;
        let axes = match self.constant(node, 3)? {
            Some(axes) => axes
                .to_i64()
                .iter()
                .map(|&a| axis_index(a, rank))
                .collect::<Result<Vec<_>, _>>()?,
            None => (0..rank).collect(),
        };
        if pads.len() != 2 * axes.len() {
            return Err(Fail::Malformed(format!(
                "{} pads for {} axes",
                pads.len(),
                axes.len()
            )));
        }
        let value = match node.float("value") {
            Some(value) => value,
            None => self
                .constant(node, 2)?
                .map_or(Some(0.0), |a| a.scalar_f32())
                .ok_or_else(|| Fail::Malformed("the value is not one number".into()))?,
        };
        let mut amounts = vec![(0u32, 0u32); rank];
        for (i, &axis) in axes.iter().enumerate() {
            match (u32::try_from(pads[i]), u32::try_from(pads[i + axes.len()])) {
                (Ok(before), Ok(after)) => amounts[axis] = (before, after),
                _ => {
                    return Err(unsupported(
                        format!("pads = {pads:?}"),
                        "pads that are not negative (Slice removes elements)",
                    ));
                }
            }
        }
        if amounts.iter().all(|&a| a == (0, 0)) {
            self.set_alias(node, x);
            return Ok(());
        }
        self.emit(node, 0, Op::Pad { amounts, value }, vec![x])
    }
}

fn range(axis: usize, start: usize, end: usize) -> SliceRange {
    SliceRange {
        axis: axis as u8,
        start: start as u32,
        start_from_end: false,
        end: end as u32,
        end_from_end: false,
        step: 1,
    }
}

/// A slice bound that means the same at every sample: an index from the front or from the end.
fn bound(values: &[i64], sizes: &[usize]) -> Result<(u32, bool), Fail> {
    let value = |sample: usize| values.get(sample).or(values.first()).copied().unwrap_or(0);
    let index = |v: i64| u32::try_from(v.clamp(0, i64::from(u32::MAX) - 1)).unwrap_or(u32::MAX - 1);
    let first = value(0);
    if (0..sizes.len()).all(|sample| value(sample) == first) {
        return Ok(if first < 0 {
            (index(first.saturating_neg()), true)
        } else {
            (index(first), false)
        });
    }
    // Computed from the size: the distance from the end must be the same everywhere.
    let distance = |sample: usize| sizes[sample] as i64 - value(sample);
    if (0..sizes.len()).all(|sample| distance(sample) == distance(0)) && distance(0) >= 0 {
        return Ok((index(distance(0)), true));
    }
    Err(unsupported(
        "a bound depends on a symbolic dimension",
        "bounds at a fixed distance from the start or the end",
    ))
}

/// Target dimensions that give `to` for `from` at every sample.
fn reshape_dims(from: &Shapes, to: &Shapes) -> Option<Vec<ReshapeDim>> {
    let rank = to.first()?.len();
    let from_rank = from.first()?.len();
    if to.iter().any(|dims| dims.len() != rank) {
        return None;
    }
    let mut open = false;
    (0..rank)
        .map(|axis| {
            let sizes: Vec<usize> = to.iter().map(|dims| dims[axis]).collect();
            if sizes.iter().all(|&s| s == sizes[0]) {
                return u32::try_from(sizes[0]).ok().map(ReshapeDim::Fixed);
            }
            let spans = (1..=from_rank)
                .flat_map(|len| (0..=from_rank - len).map(move |first| (first, first + len)));
            for (first, last) in spans {
                if from
                    .iter()
                    .zip(&sizes)
                    .all(|(dims, &size)| dims[first..last].iter().product::<usize>() == size)
                {
                    return Some(ReshapeDim::Input {
                        from: first as u8,
                        to: last as u8,
                    });
                }
            }
            (!std::mem::replace(&mut open, true)).then_some(ReshapeDim::Rest)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_follow_symbolic_dimensions() {
        use ReshapeDim::{Fixed, Input, Rest};
        let from = vec![vec![1, 6, 3, 4], vec![2, 6, 3, 4], vec![3, 6, 3, 4]];
        assert_eq!(
            reshape_dims(&from, &vec![vec![1, 72], vec![2, 72], vec![3, 72]]),
            Some(vec![Input { from: 0, to: 1 }, Fixed(72)])
        );
        assert_eq!(
            reshape_dims(&from, &vec![vec![6, 12], vec![12, 12], vec![18, 12]]),
            Some(vec![Input { from: 0, to: 2 }, Fixed(12)])
        );
        let halves = vec![vec![4, 3], vec![8, 3], vec![12, 3]];
        assert_eq!(
            reshape_dims(&halves, &vec![vec![2, 6], vec![4, 6], vec![6, 6]]),
            Some(vec![Rest, Fixed(6)])
        );
    }

    #[test]
    fn bounds_from_either_end() {
        assert!(matches!(bound(&[-2], &[5]), Ok((2, true))));
        assert!(matches!(bound(&[3], &[5, 6]), Ok((3, false))));
        assert!(matches!(bound(&[4, 5], &[5, 6]), Ok((1, true))));
        assert!(bound(&[4, 7], &[5, 6]).is_err());
    }
}
