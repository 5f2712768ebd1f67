//! Pieces of a network as models of their own: what lies between two places, run on tensors held in memory.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use dcz::shape::{self, Dims};
use dcz::{Model, Session, SessionOptions, TensorRef};
use dcz_format::graph::{
    ConstId, Constant, Dim, LayerId, Meaning, Network, Node, Op, Output, Precision, Tensor,
    TensorId,
};

use crate::encode::float_model;
use crate::error::Error;
use crate::import::FloatNetwork;
use crate::import::draft::placeholder;
use crate::preprocess::Description;

/// Tensors alive between two nodes: written (or given) before `node`, read at or after it, or outputs of the network.
pub fn live(network: &Network, node: usize) -> Vec<TensorId> {
    let mut before: BTreeSet<TensorId> = network.inputs.iter().copied().collect();
    before.extend(network.nodes[..node].iter().map(|n| n.output));
    let after = network.nodes[node..].iter().flat_map(|n| &n.inputs);
    let outputs = network.outputs.iter().map(|o| &o.tensor);
    let read: BTreeSet<TensorId> = after.chain(outputs).copied().collect();
    before.intersection(&read).copied().collect()
}

/// The dimensions of every tensor for inputs of default size.
pub fn shapes(float: &FloatNetwork) -> Result<Vec<Dims>, Error> {
    let wrong = |e: shape::ShapeError| Error::Malformed(e.to_string());
    // Shape inference reads the geometry of layers and constants from the records.
    let mut network = float.network.clone();
    let layers = float.layers.iter();
    network.layers = layers.map(|l| placeholder(&l.name, l.shape)).collect();
    let constants = float.constants.iter().map(|c| Constant {
        name: c.name.clone(),
        dims: c.dims.iter().map(|&d| d as u32).collect(),
        precision: Precision::F32,
        offset: 0,
        crc: 0,
    });
    network.constants = constants.collect();
    let inputs = shape::default_inputs(&network).map_err(wrong)?;
    shape::infer(&network, &inputs).map_err(wrong)
}

/// A piece of a network, ready to run from several threads.
pub struct Segment {
    model: Model,
    inputs: Vec<(String, Dims)>,
    outputs: Vec<(String, usize)>,
    sessions: Mutex<Vec<Session>>,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Segment({:?} -> {:?})", self.inputs, self.outputs)
    }
}

impl Segment {
    /// The nodes of a range, from tensors that exist before it to tensors it writes, with the weights of `float`.
    pub fn new(
        float: &FloatNetwork,
        dims: &[Dims],
        nodes: Range<usize>,
        from: &[TensorId],
        to: &[TensorId],
    ) -> Result<Segment, Error> {
        let part = cut(float, dims, nodes, from, to);
        let name = |id: &TensorId| float.network.tensors[id.0 as usize].name.clone();
        Ok(Segment {
            inputs: from
                .iter()
                .map(|id| (name(id), dims[id.0 as usize].clone()))
                .collect(),
            outputs: to
                .iter()
                .map(|id| (name(id), dims[id.0 as usize].iter().product()))
                .collect(),
            model: float_model(part, &Description::default())?,
            sessions: Mutex::new(Vec::new()),
        })
    }

    /// Runs it once; inputs and outputs in the order given to [`Segment::new`].
    pub fn run(&self, inputs: &[&[f32]]) -> Result<Vec<Vec<f32>>, Error> {
        let idle = self.sessions.lock().ok().and_then(|mut s| s.pop());
        let mut session = match idle {
            Some(session) => session,
            None => {
                let mut session = Session::new(&self.model, SessionOptions::default())?;
                let shapes: Vec<(&str, &[usize])> = self
                    .inputs
                    .iter()
                    .map(|(name, dims)| (name.as_str(), dims.as_slice()))
                    .collect();
                session.prepare(&shapes)?;
                session
            }
        };
        let given: Vec<_> = self
            .inputs
            .iter()
            .zip(inputs)
            .map(|((name, dims), data)| (name.as_str(), TensorRef { dims, data }))
            .collect();
        let mut results: Vec<Vec<f32>> = self
            .outputs
            .iter()
            .map(|(_, len)| vec![0.0; *len])
            .collect();
        let mut wanted: Vec<(&str, &mut [f32])> = self
            .outputs
            .iter()
            .zip(&mut results)
            .map(|((name, _), values)| (name.as_str(), values.as_mut_slice()))
            .collect();
        session.run(&given, &mut wanted)?;
        if let Ok(mut sessions) = self.sessions.lock() {
            sessions.push(session);
        }
        Ok(results)
    }
}

/// A network of its own, made of some nodes of another.
fn cut(
    float: &FloatNetwork,
    dims: &[Dims],
    nodes: Range<usize>,
    from: &[TensorId],
    to: &[TensorId],
) -> FloatNetwork {
    let whole = &float.network;
    let mut part = Network {
        name: "part".into(),
        ..Network::default()
    };
    let mut ids: HashMap<TensorId, TensorId> = HashMap::new();
    let mut tensor = |id: TensorId, given: bool, part: &mut Network| {
        *ids.entry(id).or_insert_with(|| {
            let fixed = |&d: &usize| Dim::Fixed(d as u32);
            part.tensors.push(Tensor {
                name: whole.tensors[id.0 as usize].name.clone(),
                dims: if given {
                    dims[id.0 as usize].iter().map(fixed).collect()
                } else {
                    Vec::new()
                },
                quant: None,
            });
            TensorId(part.tensors.len() as u32 - 1)
        })
    };
    part.inputs = from.iter().map(|&id| tensor(id, true, &mut part)).collect();
    let (mut layers, mut constants) = (Vec::new(), Vec::new());
    let mut layer = |id: LayerId| {
        layers.push(float.layers[id.0 as usize].clone());
        LayerId(layers.len() as u32 - 1)
    };
    let mut constant = |id: ConstId| {
        constants.push(float.constants[id.0 as usize].clone());
        ConstId(constants.len() as u32 - 1)
    };
    for index in needed(whole, nodes, to) {
        let node = &whole.nodes[index];
        let mut op = node.op.clone();
        match &mut op {
            Op::Conv(conv) => {
                conv.layer = layer(conv.layer);
                conv.bias = conv.bias.map(&mut constant);
            }
            Op::Linear { layer: id, bias } => {
                *id = layer(*id);
                *bias = bias.map(&mut constant);
            }
            Op::Prelu { slope } => *slope = constant(*slope),
            Op::BinaryConst { constant: id, .. } => *id = constant(*id),
            _ => {}
        }
        let inputs = node
            .inputs
            .iter()
            .map(|&id| tensor(id, false, &mut part))
            .collect();
        let output = tensor(node.output, false, &mut part);
        part.nodes.push(Node {
            name: node.name.clone(),
            op,
            inputs,
            output,
        });
    }
    part.outputs = to
        .iter()
        .map(|&id| Output {
            tensor: tensor(id, false, &mut part),
            meaning: Meaning::Unknown,
        })
        .collect();
    FloatNetwork {
        network: part,
        layers,
        constants,
        notes: Vec::new(),
    }
}

/// The nodes of a range that the tensors depend on, in order.
fn needed(network: &Network, nodes: Range<usize>, to: &[TensorId]) -> Vec<usize> {
    let mut wanted: BTreeSet<TensorId> = to.iter().copied().collect();
    let mut list: Vec<usize> = nodes
        .rev()
        .filter(|&index| {
            let node = &network.nodes[index];
            let used = wanted.contains(&node.output);
            if used {
                wanted.extend(&node.inputs);
            }
            used
        })
        .collect();
    list.reverse();
    list
}

/// Calls `work(i)` for every `i` of a range on all cores; results in order, or the first error.
pub fn in_parallel<T: Send>(
    range: Range<usize>,
    work: &(dyn Fn(usize) -> Result<T, Error> + Sync),
) -> Result<Vec<T>, Error> {
    let next = AtomicUsize::new(range.start);
    let results: Mutex<Vec<Option<Result<T, Error>>>> =
        Mutex::new(range.clone().map(|_| None).collect());
    let failed = crate::accuracy::embed::parallel(&|| {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= range.end {
                return Ok(());
            }
            let result = work(index);
            let stop = result.is_err();
            if let Ok(mut results) = results.lock() {
                results[index - range.start] = Some(result);
            }
            if stop {
                next.store(range.end, Ordering::Relaxed);
            }
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let mut all = Vec::with_capacity(range.len());
    for result in results
        .into_inner()
        .unwrap_or_default()
        .into_iter()
        .flatten()
    {
        all.push(result?);
    }
    Ok(all)
}
