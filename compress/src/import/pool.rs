//! Pooling and reductions.

use dcz_format::graph::{Op, Pads, Pool, PoolKind, ReshapeDim};

use super::conv::{pads, pair};
use super::draft::{DraftOp, Reduction};
use super::{Fail, Importer, unsupported};
use crate::evaluate::axis_index;
use crate::onnx::proto::NodeProto;

impl Importer<'_> {
    pub(super) fn pool(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let x = self.tensor(node, 0)?;
        if self.draft.rank(x) != 4 {
            return Err(unsupported(
                format!("input of {} dimensions", self.draft.rank(x)),
                "pooling over two spatial dimensions (input NCHW)",
            ));
        }
        if node.ints("kernel_shape").is_none() {
            return Err(Fail::Malformed("no kernel_shape".into()));
        }
        let pool = Pool {
            kind: if node.op_type == "MaxPool" {
                PoolKind::Max
            } else {
                PoolKind::Average
            },
            kernel: pair(node, "kernel_shape", 1)?,
            strides: pair(node, "strides", 1)?,
            dilations: pair(node, "dilations", 1)?,
            pads: pads(node)?,
            ceil_mode: node.int("ceil_mode").unwrap_or(0) != 0,
            count_include_pad: node.op_type == "AveragePool"
                && node.int("count_include_pad").unwrap_or(0) != 0,
        };
        if let Pads::Explicit([top, left, bottom, right]) = pool.pads {
            // A window must never lie in the padding alone: it would have no value.
            let extent = |axis: usize| {
                (pool.kernel[axis] - 1)
                    .saturating_mul(pool.dilations[axis])
                    .saturating_add(1)
            };
            if top.max(bottom) >= extent(0) || left.max(right) >= extent(1) {
                return Err(unsupported(
                    format!(
                        "pads = {:?} with a window of {}x{}",
                        [top, left, bottom, right],
                        extent(0),
                        extent(1)
                    ),
                    "padding smaller than the window",
                ));
            }
        }
        self.emit(node, 0, Op::Pool(pool), vec![x])
    }

    pub(super) fn global_pool(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let x = self.tensor(node, 0)?;
        let kind = if node.op_type == "GlobalMaxPool" {
            PoolKind::Max
        } else {
            PoolKind::Average
        };
        self.emit(node, 0, Op::GlobalPool(kind), vec![x])
    }

    pub(super) fn reduce(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let x = self.tensor(node, 0)?;
        let rank = self.draft.rank(x);
        let mut axes = match self.list(node, "axes", 1)?.filter(|axes| !axes.is_empty()) {
            Some(axes) => axes
                .iter()
                .map(|&a| axis_index(a, rank))
                .collect::<Result<Vec<_>, _>>()?,
            None if node.int("noop_with_empty_axes").unwrap_or(0) != 0 => return self.alias(node),
            None => (0..rank).collect(),
        };
        axes.sort_unstable();
        axes.dedup();
        let keep = node.int("keepdims").unwrap_or(1) != 0;
        let spatial = rank >= 3 && axes.iter().copied().eq(2..rank);
        match (node.op_type.as_str(), axes.as_slice()) {
            ("ReduceMean" | "ReduceMax", _) if spatial => {
                let op = Op::GlobalPool(if node.op_type == "ReduceMax" {
                    PoolKind::Max
                } else {
                    PoolKind::Average
                });
                if keep {
                    return self.emit(node, 0, op, vec![x]);
                }
                let pooled = self.emit_hidden(node, op, vec![x])?;
                let dims = vec![
                    ReshapeDim::Input { from: 0, to: 1 },
                    ReshapeDim::Input { from: 1, to: 2 },
                ];
                self.emit(node, 0, Op::Reshape { dims }, vec![pooled])
            }
            ("ReduceSum" | "ReduceL1" | "ReduceL2", &[axis]) if keep => {
                let kind = match node.op_type.as_str() {
                    "ReduceSum" => Reduction::Sum,
                    "ReduceL1" => Reduction::L1,
                    _ => Reduction::L2,
                };
                let mut shapes = self.shapes(x).clone();
                shapes.iter_mut().for_each(|dims| dims[axis] = 1);
                self.emit_draft(node, 0, DraftOp::Reduce { kind, axis }, vec![x], shapes);
                Ok(())
            }
            ("ReduceMean" | "ReduceMax", _) => Err(unsupported(
                format!("axes = {axes:?} of {rank} dimensions"),
                "all spatial axes (2 and 3 of NCHW)",
            )),
            _ => Err(unsupported(
                format!("axes = {axes:?}, keepdims = {}", i32::from(keep)),
                "one axis with keepdims = 1, as part of a normalisation x / norm(x)",
            )),
        }
    }
}
