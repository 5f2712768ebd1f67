//! ONNX to the project's graph records.
//!
//! One walk over the live nodes in file order. A node whose inputs are known is evaluated away
//! ([`crate::evaluate`]); every other node becomes final operators or pseudo-operators of a [`draft::Draft`]. Then
//! patterns of exporters are recognised (`patterns`), batch normalisations and constants after a layer are folded
//! (`fold`), and what is left becomes a [`Network`]. What is not supported is collected over the whole network and
//! reported at once.

mod conv;
pub mod draft;
mod elementwise;
mod finish;
mod fold;
mod inputs;
mod layout;
mod patterns;
mod pool;
mod resize;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::rc::Rc;

use dcz_format::graph::{Network, Op};

use crate::array::Array;
use crate::error::{Error, Unsupported};
use crate::evaluate::{evaluate, shape_of};
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto};
use crate::onnx::tensor::to_array;
use draft::{Draft, DraftNode, DraftOp, Shapes, TensorIndex};
pub use draft::{FloatConstant, FloatLayer};
pub use inputs::Dynamic;

/// Operator sets that are read.
pub const OPSETS: std::ops::RangeInclusive<i64> = 7..=21;

/// What the caller wants of an import.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Name of the network within the container; empty: the graph's name.
    pub name: String,
    /// Dimensions that stay symbolic.
    pub dynamic: Vec<Dynamic>,
    /// Folder of the model, for weights in files of their own.
    pub folder: Option<PathBuf>,
}

/// An imported network: records, and the float weights and constants that its ids refer to.
#[derive(Clone, Debug)]
pub struct FloatNetwork {
    /// Graph records; `layers` and `constants` are empty, ids index the two lists below.
    pub network: Network,
    /// Weights by layer id.
    pub layers: Vec<FloatLayer>,
    /// Constants by constant id.
    pub constants: Vec<FloatConstant>,
    /// Things the user should know, one line each.
    pub notes: Vec<String>,
}

/// Imports a model.
///
/// Errors: [`Error::Malformed`], [`Error::Unsupported`] with everything that is not supported, [`Error::Usage`] for
/// `--dynamic` that does not fit, [`Error::Io`] for weights in files of their own.
pub fn import(model: &ModelProto, options: &ImportOptions) -> Result<FloatNetwork, Error> {
    let graph = model
        .graph
        .as_ref()
        .ok_or_else(|| Error::Malformed("the model has no graph".into()))?;
    let opset = model
        .opset_import
        .iter()
        .filter(|set| is_standard(&set.domain))
        .map(|set| set.version)
        .max()
        .ok_or_else(|| {
            Error::Malformed("the model names no version of the standard operators".into())
        })?;
    if !OPSETS.contains(&opset) {
        return Err(Error::Unsupported(vec![Unsupported {
            node: graph.name.clone(),
            operator: "model".into(),
            attribute: format!("operator set {opset}"),
            nearest: format!("operator sets {} to {}", OPSETS.start(), OPSETS.end()),
        }]));
    }
    let mut importer = Importer::new(graph, opset, options)?;
    importer.walk()?;
    importer.finish(model)
}

fn is_standard(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// Why a node cannot be imported.
enum Fail {
    /// It is valid, but not supported.
    Unsupported {
        /// The obstacle.
        attribute: String,
        /// What would work.
        nearest: String,
    },
    /// It breaks a rule of ONNX.
    Malformed(String),
    /// An error of its own.
    Other(Error),
}

impl From<String> for Fail {
    fn from(text: String) -> Fail {
        Fail::Malformed(text)
    }
}

impl From<Error> for Fail {
    fn from(error: Error) -> Fail {
        Fail::Other(error)
    }
}

fn unsupported(attribute: impl Into<String>, nearest: impl Into<String>) -> Fail {
    Fail::Unsupported {
        attribute: attribute.into(),
        nearest: nearest.into(),
    }
}

/// Imports one node.
type Handler<'m> = fn(&mut Importer<'m>, &NodeProto) -> Result<(), Fail>;

/// A known value: one array, or one per sample when it depends on a symbolic dimension.
type Known = Vec<Rc<Array>>;

/// What a name stands for.
#[derive(Clone)]
enum Value {
    Tensor(TensorIndex),
    Known(Known),
    /// Read when it is used, so that large weights exist once.
    Initializer(usize),
    /// Something upstream is not supported.
    Failed,
}

struct Importer<'m> {
    graph: &'m GraphProto,
    opset: i64,
    options: &'m ImportOptions,
    draft: Draft,
    values: HashMap<String, Value>,
    tensor_names: HashSet<String>,
    /// Names read by live nodes or listed as outputs.
    read: HashSet<String>,
    problems: Vec<Unsupported>,
    /// Tensors that nodes read which are not supported: kept alive, so that pseudo-operators before them are reported.
    failed_reads: Vec<TensorIndex>,
    notes: Vec<String>,
}

impl<'m> Importer<'m> {
    fn new(
        graph: &'m GraphProto,
        opset: i64,
        options: &'m ImportOptions,
    ) -> Result<Importer<'m>, Error> {
        let mut importer = Importer {
            graph,
            opset,
            options,
            draft: Draft::default(),
            values: HashMap::new(),
            tensor_names: HashSet::new(),
            read: HashSet::new(),
            problems: Vec::new(),
            failed_reads: Vec::new(),
            notes: Vec::new(),
        };
        for (index, tensor) in graph.initializer.iter().enumerate() {
            importer
                .values
                .insert(tensor.name.clone(), Value::Initializer(index));
        }
        for tensor in &graph.sparse_initializer {
            let name = tensor
                .values
                .as_ref()
                .map(|v| v.name.clone())
                .unwrap_or_default();
            importer.problems.push(Unsupported {
                node: name.clone(),
                operator: "initializer".into(),
                attribute: "sparse storage".into(),
                nearest: "a dense initializer (zeros are found and coded sparsely here)".into(),
            });
            importer.values.insert(name, Value::Failed);
        }
        Ok(importer)
    }

    fn walk(&mut self) -> Result<(), Error> {
        let graph = self.graph;
        let live = self.live_nodes();
        self.add_inputs()?;
        for &index in &live {
            let node = &graph.node[index];
            if let Some(missing) = node
                .input
                .iter()
                .find(|name| !name.is_empty() && !self.values.contains_key(*name))
            {
                return Err(Error::Malformed(format!(
                    "node '{}' reads '{missing}', which nothing before it writes",
                    node.label()
                )));
            }
            match self.import_node(node) {
                Ok(()) => {}
                Err(Fail::Malformed(text)) => {
                    return Err(Error::Malformed(format!(
                        "node '{}' ({}): {text}",
                        node.label(),
                        node.op_type
                    )));
                }
                Err(Fail::Other(error)) => return Err(error),
                Err(Fail::Unsupported { attribute, nearest }) => {
                    let operator = if is_standard(&node.domain) {
                        node.op_type.clone()
                    } else {
                        format!("{}.{}", node.domain, node.op_type)
                    };
                    self.problems.push(Unsupported {
                        node: node.label(),
                        operator,
                        attribute,
                        nearest,
                    });
                    self.fail_outputs(node);
                    for name in &node.input {
                        if let Some(Value::Tensor(tensor)) = self.values.get(name) {
                            self.failed_reads.push(*tensor);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Nodes that some graph output depends on, in file order; also fills `read`.
    fn live_nodes(&mut self) -> Vec<usize> {
        let graph = self.graph;
        self.read
            .extend(graph.output.iter().map(|output| output.name.clone()));
        let mut live = Vec::new();
        for (index, node) in graph.node.iter().enumerate().rev() {
            if node.output.iter().any(|name| self.read.contains(name)) {
                self.read
                    .extend(node.input.iter().filter(|name| !name.is_empty()).cloned());
                live.push(index);
            }
        }
        live.reverse();
        live
    }

    fn fail_outputs(&mut self, node: &NodeProto) {
        for name in &node.output {
            self.values.insert(name.clone(), Value::Failed);
        }
    }

    fn import_node(&mut self, node: &NodeProto) -> Result<(), Fail> {
        if node.output.first().is_none_or(String::is_empty) {
            return Err(Fail::Malformed("writes nothing".into()));
        }
        if let Some(name) = node
            .output
            .iter()
            .find(|name| self.values.contains_key(*name))
        {
            return Err(Fail::Malformed(format!("writes '{name}' a second time")));
        }
        if !is_standard(&node.domain) {
            return Err(unsupported(
                format!("operator of the domain '{}'", node.domain),
                "the standard operators of ONNX",
            ));
        }
        if node
            .input
            .iter()
            .any(|name| matches!(self.values.get(name), Some(Value::Failed)))
        {
            self.fail_outputs(node);
            return if self.handler(node).is_some() {
                Ok(())
            } else {
                Err(unknown_operator(node))
            };
        }
        if self.try_evaluate(node)? {
            return Ok(());
        }
        let handler = self.handler(node).ok_or_else(|| unknown_operator(node))?;
        if node.op_type != "Split"
            && let Some(extra) = node
                .output
                .iter()
                .skip(1)
                .find(|name| self.read.contains(*name))
        {
            return Err(unsupported(
                format!("the further output '{extra}' is used"),
                format!("{} with its first output only", node.op_type),
            ));
        }
        handler(self, node)
    }

    /// The importer of an operator.
    fn handler(&self, node: &NodeProto) -> Option<Handler<'m>> {
        Some(match node.op_type.as_str() {
            "Conv" => Importer::conv,
            "BatchNormalization" => Importer::batch_normalization,
            "Gemm" => Importer::gemm,
            "MatMul" => Importer::mat_mul,
            "Relu" | "LeakyRelu" | "Sigmoid" | "HardSigmoid" | "HardSwish" | "Mish" | "Tanh"
            | "Sqrt" | "Exp" | "Softplus" | "Reciprocal" | "Neg" => Importer::activation,
            "Clip" => Importer::clip,
            "PRelu" => Importer::prelu,
            "Softmax" => Importer::softmax,
            "LpNormalization" => Importer::lp_normalization,
            "Add" | "Sub" | "Mul" | "Div" => Importer::binary,
            "Sum" => Importer::sum,
            "Min" | "Max" => Importer::min_max,
            "Pow" => Importer::pow,
            "Identity" | "Dropout" => Importer::alias,
            "Cast" => Importer::cast,
            "MaxPool" | "AveragePool" => Importer::pool,
            "GlobalAveragePool" | "GlobalMaxPool" => Importer::global_pool,
            "ReduceMean" | "ReduceMax" | "ReduceSum" | "ReduceL1" | "ReduceL2" => Importer::reduce,
            "Pad" => Importer::pad,
            "Concat" => Importer::concat,
            "Flatten" | "Squeeze" | "Unsqueeze" => Importer::regroup,
            "Reshape" => Importer::reshape,
            "Transpose" => Importer::transpose,
            "Slice" => Importer::slice,
            "Split" => Importer::split,
            "Expand" => Importer::expand,
            "Resize" | "Upsample" => Importer::resize,
            "Shape" | "Size" => Importer::shape,
            "DequantizeLinear" | "QuantizeLinear" => Importer::quantised_activation,
            "Constant" | "ConstantOfShape" | "Gather" => Importer::not_constant,
            _ => return None,
        })
    }

    /// Evaluates the node when everything it reads is known.
    fn try_evaluate(&mut self, node: &NodeProto) -> Result<bool, Fail> {
        if node
            .input
            .iter()
            .any(|name| matches!(self.values.get(name), Some(Value::Tensor(_))))
        {
            return Ok(false);
        }
        let known: Vec<Option<Known>> = (0..node.input.len())
            .map(|index| self.known(node, index))
            .collect::<Result<_, _>>()?;
        let samples = if known.iter().flatten().any(|k| k.len() > 1) {
            self.samples()
        } else {
            1
        };
        let mut results: Vec<Known> = vec![Vec::new(); node.output.len()];
        for sample in 0..samples {
            let inputs: Vec<Option<&Array>> = known
                .iter()
                .map(|k| k.as_ref().and_then(|k| at_sample(k, sample)))
                .collect();
            match evaluate(node, &inputs) {
                None => return Ok(false),
                Some(arrays) => {
                    for (slot, array) in results.iter_mut().zip(arrays?) {
                        slot.push(Rc::new(array));
                    }
                }
            }
        }
        for (name, mut known) in node.output.iter().zip(results) {
            if known.is_empty() {
                continue;
            }
            if known.windows(2).all(|pair| pair[0] == pair[1]) {
                known.truncate(1);
            }
            self.values.insert(name.clone(), Value::Known(known));
        }
        Ok(true)
    }

    fn samples(&self) -> usize {
        self.draft
            .inputs
            .first()
            .map_or(1, |&t| self.draft.tensors[t].shapes.len())
    }

    /// The known value of an input; none when it is absent or computed.
    fn known(&self, node: &NodeProto, index: usize) -> Result<Option<Known>, Fail> {
        let Some(name) = node.input_name(index) else {
            return Ok(None);
        };
        Ok(match self.values.get(name) {
            Some(Value::Known(known)) => Some(known.clone()),
            Some(Value::Initializer(i)) => Some(vec![Rc::new(to_array(
                &self.graph.initializer[*i],
                self.options.folder.as_deref(),
            )?)]),
            _ => None,
        })
    }

    /// A known value that is the same at every sample; none when the input is absent.
    fn constant(&self, node: &NodeProto, index: usize) -> Result<Option<Array>, Fail> {
        if node.input_name(index).is_none() {
            return Ok(None);
        }
        match self.known(node, index)? {
            Some(mut known) if known.len() == 1 => Ok(known
                .pop()
                .map(|array| Rc::try_unwrap(array).unwrap_or_else(|shared| (*shared).clone()))),
            Some(_) => Err(unsupported(
                format!("input {index} depends on a symbolic dimension"),
                "a fixed value",
            )),
            None => Err(unsupported(
                format!("input {index} is computed"),
                format!("{} with a constant input {index}", node.op_type),
            )),
        }
    }

    /// Integers given as an attribute in old operator sets and as a constant input in new ones.
    fn list(
        &self,
        node: &NodeProto,
        attribute: &str,
        index: usize,
    ) -> Result<Option<Vec<i64>>, Fail> {
        match node.ints(attribute) {
            Some(list) => Ok(Some(list.to_vec())),
            None => Ok(self.constant(node, index)?.map(|a| a.to_i64())),
        }
    }

    /// The activation that an input names.
    fn tensor(&self, node: &NodeProto, index: usize) -> Result<TensorIndex, Fail> {
        match node
            .input_name(index)
            .and_then(|name| self.values.get(name))
        {
            Some(Value::Tensor(tensor)) => Ok(*tensor),
            Some(_) => Err(unsupported(
                format!("input {index} is a constant"),
                format!("{} of a computed value", node.op_type),
            )),
            None => Err(Fail::Malformed(format!("input {index} is missing"))),
        }
    }

    fn shapes(&self, tensor: TensorIndex) -> &Shapes {
        &self.draft.tensors[tensor].shapes
    }

    /// Makes the node's first output stand for an existing tensor.
    fn set_alias(&mut self, node: &NodeProto, tensor: TensorIndex) {
        if let Some(name) = node.output.first() {
            self.values.insert(name.clone(), Value::Tensor(tensor));
        }
    }

    /// Adds a final operator that writes the node's output number `index`.
    fn emit(
        &mut self,
        node: &NodeProto,
        index: usize,
        op: Op,
        inputs: Vec<TensorIndex>,
    ) -> Result<(), Fail> {
        let shapes = self.infer(&op, &inputs)?;
        self.emit_draft(node, index, DraftOp::Final(op), inputs, shapes);
        Ok(())
    }

    /// Adds an operator of the draft that writes the node's output number `index`.
    fn emit_draft(
        &mut self,
        node: &NodeProto,
        index: usize,
        op: DraftOp,
        inputs: Vec<TensorIndex>,
        shapes: Shapes,
    ) {
        let Some(name) = node.output.get(index).cloned() else {
            return;
        };
        let tensor = self.push(node, &name, op, inputs, shapes);
        self.values.insert(name, Value::Tensor(tensor));
    }

    /// Adds a final operator whose result has no name in the ONNX graph.
    fn emit_hidden(
        &mut self,
        node: &NodeProto,
        op: Op,
        inputs: Vec<TensorIndex>,
    ) -> Result<TensorIndex, Fail> {
        let shapes = self.infer(&op, &inputs)?;
        let name = node.output.first().cloned().unwrap_or_default();
        Ok(self.push(
            node,
            &format!("{name}#"),
            DraftOp::Final(op),
            inputs,
            shapes,
        ))
    }

    fn infer(&self, op: &Op, inputs: &[TensorIndex]) -> Result<Shapes, Fail> {
        self.draft.infer(op, inputs).map_err(|reason| {
            unsupported(
                reason,
                "operands of 1 to 6 dimensions, not empty, that fit together",
            )
        })
    }

    fn push(
        &mut self,
        node: &NodeProto,
        name: &str,
        op: DraftOp,
        inputs: Vec<TensorIndex>,
        shapes: Shapes,
    ) -> TensorIndex {
        let name = self.unique_tensor_name(name);
        let output = self.draft.add_tensor(name, shapes);
        self.draft.nodes.push(DraftNode {
            name: node.label(),
            operator: node.op_type.clone(),
            op,
            inputs,
            output,
        });
        output
    }

    fn unique_tensor_name(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_string();
        let mut count = 1;
        while !self.tensor_names.insert(name.clone()) {
            count += 1;
            name = format!("{wanted}{count}");
        }
        name
    }

    fn shape(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let tensor = self.tensor(node, 0)?;
        let mut known: Known = Vec::new();
        for dims in self.shapes(tensor) {
            known.push(Rc::new(match node.op_type.as_str() {
                "Shape" => shape_of(node, dims)?,
                _ => Array::int(vec![], vec![dims.iter().product::<usize>() as i64]),
            }));
        }
        if known.windows(2).all(|pair| pair[0] == pair[1]) {
            known.truncate(1);
        }
        self.values
            .insert(node.output[0].clone(), Value::Known(known));
        Ok(())
    }

    fn not_constant(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let nearest = if node.op_type == "Gather" {
            "Slice, or Gather of a shape or another constant"
        } else {
            "the same with constant inputs"
        };
        Err(unsupported("reads a computed value", nearest))
    }

    fn quantised_activation(&mut self, _node: &NodeProto) -> Result<(), Fail> {
        Err(unsupported(
            "quantises a computed value",
            "quantised weights only; export the network with float activations",
        ))
    }
}

fn at_sample(known: &Known, sample: usize) -> Option<&Array> {
    known.get(sample).or_else(|| known.first()).map(Rc::as_ref)
}

fn unknown_operator(node: &NodeProto) -> Fail {
    let nearest = match node.op_type.as_str() {
        "ConvTranspose" => "Resize followed by Conv",
        "InstanceNormalization" | "LayerNormalization" | "GroupNormalization" => {
            "BatchNormalization"
        }
        "Erf" | "Gelu" => "Sigmoid, HardSwish, Mish or SiLU",
        "Elu" | "Selu" | "Celu" | "ThresholdedRelu" => "LeakyRelu or PRelu",
        "LogSoftmax" => "Softmax",
        "LpPool" => "AveragePool or MaxPool",
        "DepthToSpace" | "SpaceToDepth" => "Reshape and Transpose",
        "LSTM" | "GRU" | "RNN" | "Loop" | "If" | "Scan" => {
            "a network without recurrence and control flow"
        }
        "QLinearConv" | "ConvInteger" | "QLinearMatMul" | "MatMulInteger" => {
            "DequantizeLinear of the weights followed by Conv or MatMul"
        }
        _ => "none; see the list of operators in the documentation",
    };
    unsupported("the operator itself", nearest)
}
