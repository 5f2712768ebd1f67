//! The end of an import: outputs, leftovers, unique names, and the graph records.

use std::collections::{HashMap, HashSet};

use dcz_format::graph::{
    BinaryKind, ConstId, LayerId, Meaning, Network, Node, Op, Output, Provenance, ReshapeDim,
    Tensor, TensorId,
};

use super::draft::{Draft, DraftNode, DraftOp, TensorIndex};
use super::{FloatNetwork, Importer, Value, fold, patterns};
use crate::error::{Error, Unsupported};
use crate::onnx::proto::ModelProto;

impl Importer<'_> {
    /// Turns the draft into graph records.
    pub(super) fn finish(mut self, model: &ModelProto) -> Result<FloatNetwork, Error> {
        self.bind_outputs()?;
        let outputs = self.draft.outputs.clone();
        // What unsupported nodes read stays alive until pseudo-operators are reported.
        self.draft.outputs.extend(self.failed_reads.iter().copied());
        self.draft.remove_dead();
        patterns::apply(&mut self.draft);
        fold::apply(&mut self.draft);
        self.report_leftovers();
        self.draft.outputs = outputs;
        if !self.problems.is_empty() {
            return Err(Error::Unsupported(self.problems));
        }
        self.draft.remove_dead();
        let graph = model.graph.as_ref();
        let mut name = self.options.name.clone();
        if name.is_empty() {
            name = graph
                .map(|g| g.name.clone())
                .filter(|n| !n.is_empty())
                .unwrap_or_else(|| "main".into());
        }
        let producer = [
            model.producer_name.as_str(),
            model.producer_version.as_str(),
        ]
        .iter()
        .filter(|t| !t.is_empty())
        .copied()
        .collect::<Vec<_>>()
        .join(" ");
        let mut finished = records(self.draft, name)?;
        finished.network.provenance = Provenance {
            source: producer,
            ..Provenance::default()
        };
        finished.notes = self.notes;
        Ok(finished)
    }

    /// Gives every graph output a tensor of its own under its own name.
    fn bind_outputs(&mut self) -> Result<(), Error> {
        let graph = self.graph;
        for output in &graph.output {
            let tensor = match self.values.get(&output.name) {
                Some(Value::Tensor(tensor)) => *tensor,
                Some(Value::Failed) => continue,
                Some(_) => {
                    self.problems.push(Unsupported {
                        node: output.name.clone(),
                        operator: "output".into(),
                        attribute: "a constant".into(),
                        nearest: "outputs that depend on an input".into(),
                    });
                    continue;
                }
                None => {
                    return Err(Error::Malformed(format!(
                        "nothing writes the output '{}'",
                        output.name
                    )));
                }
            };
            let taken = self.draft.inputs.contains(&tensor) || self.draft.outputs.contains(&tensor);
            if !taken {
                if self.draft.tensors[tensor].name != output.name {
                    self.draft.tensors[tensor].name = self.unique_tensor_name(&output.name);
                }
                self.draft.outputs.push(tensor);
                continue;
            }
            // An output that is an input, or the same as another output: a copy.
            let dims = (0..self.draft.rank(tensor))
                .map(|i| ReshapeDim::Input {
                    from: i as u8,
                    to: i as u8 + 1,
                })
                .collect();
            let shapes = self.draft.tensors[tensor].shapes.clone();
            let name = self.unique_tensor_name(&output.name);
            let copy = self.draft.add_tensor(name.clone(), shapes);
            self.draft.nodes.push(DraftNode {
                name,
                operator: "Identity".into(),
                op: DraftOp::Final(Op::Reshape { dims }),
                inputs: vec![tensor],
                output: copy,
            });
            self.draft.outputs.push(copy);
        }
        Ok(())
    }

    /// Pseudo-operators that no pattern absorbed become plain arithmetic or are reported.
    fn report_leftovers(&mut self) {
        let mut index = 0;
        while index < self.draft.nodes.len() {
            let node = &self.draft.nodes[index];
            let (name, operator) = (node.name.clone(), node.operator.clone());
            let nearest = match node.op {
                DraftOp::Final(_) => {
                    index += 1;
                    continue;
                }
                DraftOp::Affine { .. } => {
                    index = self.lower_affine(index);
                    continue;
                }
                DraftOp::Softplus => "Softplus as part of Mish: x * tanh(softplus(x))",
                DraftOp::Reciprocal { sqrt: false } => {
                    let constant =
                        self.draft
                            .add_constant(&format!("{name}.one"), Vec::new(), vec![1.0]);
                    self.draft.nodes[index].op = DraftOp::Final(Op::BinaryConst {
                        kind: BinaryKind::Div,
                        constant,
                        constant_first: true,
                    });
                    continue;
                }
                DraftOp::Reciprocal { sqrt: true } | DraftOp::Reduce { .. } => {
                    "as part of a normalisation x / max(norm(x), epsilon)"
                }
                DraftOp::Expand => {
                    "Expand inside a normalisation; broadcasting arithmetic needs no Expand"
                }
            };
            self.problems.push(Unsupported {
                node: name,
                operator,
                attribute: "the operator on its own".into(),
                nearest: nearest.into(),
            });
            index += 1;
        }
    }

    /// A batch normalisation without a layer to go into: a multiplication and an addition. Returns the next index.
    fn lower_affine(&mut self, index: usize) -> usize {
        let node = self.draft.nodes[index].clone();
        let DraftOp::Affine { scale, shift } = &node.op else {
            return index + 1;
        };
        // [C, 1, 1, ...] lines the values up with axis 1.
        let mut dims = vec![1; self.draft.rank(node.output).saturating_sub(1)];
        if let Some(first) = dims.first_mut() {
            *first = scale.len();
        }
        let narrow = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
        let scale =
            self.draft
                .add_constant(&format!("{}.scale", node.name), dims.clone(), narrow(scale));
        let shift = self
            .draft
            .add_constant(&format!("{}.shift", node.name), dims, narrow(shift));
        let shapes = self.draft.tensors[node.output].shapes.clone();
        let wanted = format!("{}#", self.draft.tensors[node.output].name);
        let name = self.unique_tensor_name(&wanted);
        let scaled = self.draft.add_tensor(name, shapes);
        let constant_op = |kind, constant| {
            DraftOp::Final(Op::BinaryConst {
                kind,
                constant,
                constant_first: false,
            })
        };
        let multiply = DraftNode {
            op: constant_op(BinaryKind::Mul, scale),
            output: scaled,
            ..node.clone()
        };
        let add = DraftNode {
            op: constant_op(BinaryKind::Add, shift),
            inputs: vec![scaled],
            ..node
        };
        self.draft.nodes.splice(index..=index, [multiply, add]);
        index + 2
    }
}

/// The draft as records, with unused tensors, layers and constants left out and names made unique.
fn records(draft: Draft, name: String) -> Result<FloatNetwork, Error> {
    let Draft {
        symbols,
        tensors,
        nodes,
        inputs,
        outputs,
        layers,
        constants,
        ..
    } = draft;
    let mut tensor_ids: HashMap<TensorIndex, TensorId> = HashMap::new();
    let mut network = Network {
        name,
        symbols,
        ..Network::default()
    };
    let mut add_tensor = |index: TensorIndex, network: &mut Network| {
        *tensor_ids.entry(index).or_insert_with(|| {
            let tensor = &tensors[index];
            network.tensors.push(Tensor {
                name: tensor.name.clone(),
                dims: tensor.dims.clone(),
                quant: None,
            });
            TensorId(network.tensors.len() as u32 - 1)
        })
    };
    network.inputs = inputs
        .iter()
        .map(|&index| add_tensor(index, &mut network))
        .collect();
    let mut layer_slots: Vec<Option<_>> = layers.into_iter().map(Some).collect();
    let mut constant_slots: Vec<Option<_>> = constants.into_iter().map(Some).collect();
    let (mut kept_layers, mut kept_constants) = (Vec::new(), Vec::new());
    let mut constant_ids: HashMap<ConstId, ConstId> = HashMap::new();
    let (mut layer_names, mut node_names) = (HashSet::new(), HashSet::new());
    for node in nodes {
        let DraftOp::Final(mut op) = node.op else {
            return Err(Error::Malformed(format!(
                "node '{}': left unresolved",
                node.name
            )));
        };
        if let Some(LayerId(old)) = op.layer() {
            let mut layer: super::FloatLayer =
                layer_slots[old as usize].take().ok_or_else(|| {
                    Error::Malformed(format!("node '{}': its weights are used twice", node.name))
                })?;
            layer.name = unique(&layer.name, &mut layer_names);
            let id = LayerId(kept_layers.len() as u32);
            kept_layers.push(layer);
            match &mut op {
                Op::Conv(conv) => conv.layer = id,
                Op::Linear { layer, .. } => *layer = id,
                _ => {}
            }
        }
        if let Some(slot) = constant_slot(&mut op) {
            let old = *slot;
            *slot = *constant_ids.entry(old).or_insert_with(|| {
                if let Some(constant) = constant_slots[old.0 as usize].take() {
                    kept_constants.push(constant);
                }
                ConstId(kept_constants.len() as u32 - 1)
            });
        }
        let inputs = node
            .inputs
            .iter()
            .map(|&index| add_tensor(index, &mut network))
            .collect();
        let output = add_tensor(node.output, &mut network);
        network.nodes.push(Node {
            name: unique(&node.name, &mut node_names),
            op,
            inputs,
            output,
        });
    }
    network.outputs = outputs
        .iter()
        .map(|&index| Output {
            tensor: add_tensor(index, &mut network),
            meaning: Meaning::Unknown,
        })
        .collect();
    Ok(FloatNetwork {
        network,
        layers: kept_layers,
        constants: kept_constants,
        notes: Vec::new(),
    })
}

/// The constant an operator refers to.
fn constant_slot(op: &mut Op) -> Option<&mut ConstId> {
    match op {
        Op::Conv(conv) => conv.bias.as_mut(),
        Op::Linear { bias, .. } => bias.as_mut(),
        Op::Prelu { slope } => Some(slope),
        Op::BinaryConst { constant, .. } => Some(constant),
        _ => None,
    }
}

fn unique(wanted: &str, taken: &mut HashSet<String>) -> String {
    let mut name = wanted.to_string();
    let mut count = 1;
    while !taken.insert(name.clone()) {
        count += 1;
        name = format!("{wanted}#{count}");
    }
    name
}
