//! Activations and normalisations as exporters write them.
//!
//! Networks are trained with SiLU, Mish, HardSwish or an L2 normalisation and exported as several primitive nodes. Each
//! rule here looks at one node and its producers and rewrites it to the one operator it means; the producers die when
//! nothing else reads them. Scalars are compared with a tolerance of a few units in the last place (1/6 is written in
//! many ways), and the rewritten form is the mathematical one.

use dcz_format::graph::{Activation, BinaryKind, Op};

use super::draft::{Draft, DraftOp, Reduction, TensorIndex};

/// Applies every rule until nothing changes.
pub(super) fn apply(draft: &mut Draft) {
    loop {
        let producers = draft.producers();
        let found = (0..draft.nodes.len()).find_map(|index| {
            let view = View {
                draft,
                producers: &producers,
            };
            view.rewrite(index).map(|rewrite| (index, rewrite))
        });
        let Some((index, (op, inputs))) = found else {
            return;
        };
        draft.nodes[index].op = DraftOp::Final(op);
        draft.nodes[index].inputs = inputs;
        draft.remove_dead();
    }
}

type Rewrite = (Op, Vec<TensorIndex>);

struct View<'a> {
    draft: &'a Draft,
    producers: &'a [Option<usize>],
}

impl View<'_> {
    fn rewrite(&self, index: usize) -> Option<Rewrite> {
        self.gate(index)
            .or_else(|| self.hard_sigmoid(index))
            .or_else(|| self.scaled_hard_swish(index))
            .or_else(|| self.normalisation(index))
    }

    fn producer(&self, tensor: TensorIndex) -> Option<(&DraftOp, &[TensorIndex])> {
        let node = &self.draft.nodes[self.producers[tensor]?];
        Some((&node.op, &node.inputs))
    }

    /// The activation that writes a tensor, and what it reads.
    fn activation(&self, tensor: TensorIndex) -> Option<(Activation, TensorIndex)> {
        match self.producer(tensor)? {
            (DraftOp::Final(Op::Activation(activation)), &[x]) => Some((*activation, x)),
            _ => None,
        }
    }

    /// `x op number` that writes a tensor.
    fn with_number(&self, tensor: TensorIndex) -> Option<(BinaryKind, f32, bool, TensorIndex)> {
        match self.producer(tensor)? {
            (DraftOp::Final(op), &[x]) => self
                .number(op)
                .map(|(kind, number, first)| (kind, number, first, x)),
            _ => None,
        }
    }

    fn number(&self, op: &Op) -> Option<(BinaryKind, f32, bool)> {
        let Op::BinaryConst {
            kind,
            constant,
            constant_first,
        } = op
        else {
            return None;
        };
        match self.draft.constant(*constant).values.as_slice() {
            &[value] => Some((*kind, value, *constant_first)),
            _ => None,
        }
    }

    /// A multiplication or division by a number, as a factor.
    fn factor(&self, op: &Op) -> Option<f32> {
        match self.number(op)? {
            (BinaryKind::Mul, value, _) => Some(value),
            (BinaryKind::Div, value, false) => Some(1.0 / value),
            _ => None,
        }
    }

    /// `clip(x + 3, 0, 6)` that writes a tensor.
    fn relu6_of_shifted(&self, tensor: TensorIndex) -> Option<TensorIndex> {
        let (Activation::Clip { min: 0.0, max: 6.0 }, shifted) = self.activation(tensor)? else {
            return None;
        };
        match self.with_number(shifted)? {
            (BinaryKind::Add, 3.0, _, x) => Some(x),
            _ => None,
        }
    }

    /// `x * g(x)`: SiLU, Mish, HardSwish.
    fn gate(&self, index: usize) -> Option<Rewrite> {
        let node = &self.draft.nodes[index];
        let (DraftOp::Final(Op::Binary(BinaryKind::Mul)), &[a, b]) =
            (&node.op, node.inputs.as_slice())
        else {
            return None;
        };
        let gated = |x: TensorIndex, gate: TensorIndex| {
            let (activation, source) = self.activation(gate)?;
            let op = match activation {
                Activation::Sigmoid if source == x => Activation::Silu,
                Activation::HardSigmoid { alpha, beta }
                    if source == x && close(alpha, 1.0 / 6.0) && beta == 0.5 =>
                {
                    Activation::HardSwish
                }
                Activation::Tanh => match self.producer(source)? {
                    (DraftOp::Softplus, &[inner]) if inner == x => Activation::Mish,
                    _ => return None,
                },
                _ => return None,
            };
            Some((Op::Activation(op), vec![x]))
        };
        gated(a, b).or_else(|| gated(b, a))
    }

    /// `clip(x + 3, 0, 6) / 6`.
    fn hard_sigmoid(&self, index: usize) -> Option<Rewrite> {
        let node = &self.draft.nodes[index];
        let (DraftOp::Final(op), &[inner]) = (&node.op, node.inputs.as_slice()) else {
            return None;
        };
        if !close(self.factor(op)?, 1.0 / 6.0) {
            return None;
        }
        let x = self.relu6_of_shifted(inner)?;
        Some((
            Op::Activation(Activation::HardSigmoid {
                alpha: 1.0 / 6.0,
                beta: 0.5,
            }),
            vec![x],
        ))
    }

    /// `x * clip(x + 3, 0, 6) / 6`.
    fn scaled_hard_swish(&self, index: usize) -> Option<Rewrite> {
        let node = &self.draft.nodes[index];
        let (DraftOp::Final(op), &[product]) = (&node.op, node.inputs.as_slice()) else {
            return None;
        };
        if !close(self.factor(op)?, 1.0 / 6.0) {
            return None;
        }
        let (DraftOp::Final(Op::Binary(BinaryKind::Mul)), &[a, b]) = self.producer(product)? else {
            return None;
        };
        let x = if self.relu6_of_shifted(b) == Some(a) {
            a
        } else if self.relu6_of_shifted(a) == Some(b) {
            b
        } else {
            return None;
        };
        Some((Op::Activation(Activation::HardSwish), vec![x]))
    }

    /// `x / norm(x)` and `x * (1 / norm(x))`.
    fn normalisation(&self, index: usize) -> Option<Rewrite> {
        let node = &self.draft.nodes[index];
        let &[a, b] = node.inputs.as_slice() else {
            return None;
        };
        let (x, norm) = match &node.op {
            DraftOp::Final(Op::Binary(BinaryKind::Div)) => (a, self.norm_of(b, a)?),
            DraftOp::Final(Op::Binary(BinaryKind::Mul)) => match (self.inverse(b), self.inverse(a))
            {
                (Some((inner, sqrt)), _) => (a, self.norm_under(inner, a, sqrt)?),
                (_, Some((inner, sqrt))) => (b, self.norm_under(inner, b, sqrt)?),
                _ => return None,
            },
            _ => return None,
        };
        let same_shape = self.draft.tensors[x].shapes == self.draft.tensors[node.output].shapes;
        same_shape.then(|| {
            (
                Op::LpNormalize {
                    axis: norm.axis as u8,
                    p: norm.p,
                    epsilon: norm.epsilon,
                },
                vec![x],
            )
        })
    }

    fn inverse(&self, tensor: TensorIndex) -> Option<(TensorIndex, bool)> {
        match self.producer(self.unexpanded(tensor))? {
            (DraftOp::Reciprocal { sqrt }, &[inner]) => Some((inner, *sqrt)),
            _ => None,
        }
    }

    fn unexpanded(&self, tensor: TensorIndex) -> TensorIndex {
        match self.producer(tensor) {
            Some((DraftOp::Expand, &[inner])) => inner,
            _ => tensor,
        }
    }

    fn norm_under(&self, tensor: TensorIndex, x: TensorIndex, sqrt: bool) -> Option<Norm> {
        if sqrt {
            self.squares_of(tensor, x)
        } else {
            self.norm_of(tensor, x)
        }
    }

    /// The norm of `x` that a tensor holds: with a lower bound, broadcast, as a reduction or as a root of squares.
    fn norm_of(&self, tensor: TensorIndex, x: TensorIndex) -> Option<Norm> {
        let (tensor, epsilon) = self.bounded(self.unexpanded(tensor));
        let norm = match self.producer(self.unexpanded(tensor))? {
            (
                DraftOp::Reduce {
                    kind: Reduction::L2,
                    axis,
                },
                &[source],
            ) if source == x => Norm {
                axis: *axis,
                p: 2,
                epsilon: 0.0,
            },
            (
                DraftOp::Reduce {
                    kind: Reduction::L1,
                    axis,
                },
                &[source],
            ) if source == x => Norm {
                axis: *axis,
                p: 1,
                epsilon: 0.0,
            },
            (DraftOp::Final(Op::Activation(Activation::Sqrt)), &[squares]) => {
                self.squares_of(squares, x)?
            }
            _ => return None,
        };
        Some(Norm {
            epsilon: norm.epsilon.max(epsilon),
            ..norm
        })
    }

    /// The norm whose square a tensor holds: `sum(x * x)`, with a lower bound.
    fn squares_of(&self, tensor: TensorIndex, x: TensorIndex) -> Option<Norm> {
        let (tensor, bound) = self.bounded(tensor);
        let (
            DraftOp::Reduce {
                kind: Reduction::Sum,
                axis,
            },
            &[squares],
        ) = self.producer(tensor)?
        else {
            return None;
        };
        match self.producer(squares)? {
            (DraftOp::Final(Op::Binary(BinaryKind::Mul)), &[a, b]) if a == x && b == x => {
                Some(Norm {
                    axis: *axis,
                    p: 2,
                    epsilon: bound.sqrt(),
                })
            }
            _ => None,
        }
    }

    /// A lower bound on a tensor, and the tensor below it.
    fn bounded(&self, tensor: TensorIndex) -> (TensorIndex, f32) {
        match self.activation(tensor) {
            Some((
                Activation::Clip {
                    min,
                    max: f32::INFINITY,
                },
                inner,
            )) if min >= 0.0 => (inner, min),
            _ => (tensor, 0.0),
        }
    }
}

struct Norm {
    axis: usize,
    p: u8,
    epsilon: f32,
}

fn close(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-6 * b.abs()
}
