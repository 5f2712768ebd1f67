//! The network while it is being imported: final operators with their float weights beside them, and a few pseudo-
//! operators that only exist until a pattern absorbs them.
//!
//! Shapes are kept for several *samples*: sizes of the symbolic dimensions. Sample 0 is the default; the others change
//! every symbol at once. A reshape target or a resize factor is understood by what it does at all samples alike, so the
//! importer needs no symbolic algebra.

use dcz::shape;
use dcz_format::graph::{ConstId, Constant, Conv, Dim, LayerId, Network, Op, Precision, Symbol};
use dcz_format::layer::{CompressionRecord, Index, KOrder, Layer, LayerShape, Values};

use crate::array::Array;

/// Index into [`Draft::tensors`].
pub type TensorIndex = usize;

/// A shape per sample.
pub type Shapes = Vec<Vec<usize>>;

/// A tensor of the draft.
#[derive(Clone, Debug)]
pub struct DraftTensor {
    /// Name in the ONNX graph.
    pub name: String,
    /// Shape at every sample.
    pub shapes: Shapes,
    /// Dimensions of a graph input; empty for node outputs.
    pub dims: Vec<Dim>,
}

/// Reductions that only occur inside normalisations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Sum.
    Sum,
    /// Sum of magnitudes.
    L1,
    /// Square root of the sum of squares.
    L2,
}

/// An operator of the draft.
#[derive(Clone, Debug)]
pub enum DraftOp {
    /// A final operator.
    Final(Op),
    /// Batch normalisation: `x * scale + shift` per channel (axis 1).
    Affine {
        /// One value per channel.
        scale: Vec<f64>,
        /// One value per channel.
        shift: Vec<f64>,
    },
    /// `ln(1 + exp(x))`; part of Mish.
    Softplus,
    /// `1 / sqrt(x)` when `sqrt`, else `1 / x`; part of normalisations.
    Reciprocal {
        /// Root first.
        sqrt: bool,
    },
    /// Reduction over one axis with the axis kept; part of normalisations.
    Reduce {
        /// Which.
        kind: Reduction,
        /// The axis, from the front.
        axis: usize,
    },
    /// Broadcast to the shape of the output; part of normalisations.
    Expand,
}

/// A node of the draft.
#[derive(Clone, Debug)]
pub struct DraftNode {
    /// Name of the ONNX node.
    pub name: String,
    /// ONNX operator, for messages about pseudo-operators that no pattern absorbed.
    pub operator: String,
    /// What it does.
    pub op: DraftOp,
    /// What it reads.
    pub inputs: Vec<TensorIndex>,
    /// What it writes.
    pub output: TensorIndex,
}

/// Weights of a layer as imported, OIHW.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatLayer {
    /// Name of the ONNX node.
    pub name: String,
    /// Geometry.
    pub shape: LayerShape,
    /// Values.
    pub weights: Vec<f32>,
}

/// A constant as imported.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatConstant {
    /// Name, for messages.
    pub name: String,
    /// Dimensions.
    pub dims: Vec<usize>,
    /// Values.
    pub values: Vec<f32>,
}

/// The network being imported.
#[derive(Debug, Default)]
pub struct Draft {
    /// Symbolic dimensions.
    pub symbols: Vec<Symbol>,
    /// Graph inputs and node outputs.
    pub tensors: Vec<DraftTensor>,
    /// In execution order.
    pub nodes: Vec<DraftNode>,
    /// Graph inputs.
    pub inputs: Vec<TensorIndex>,
    /// Graph outputs.
    pub outputs: Vec<TensorIndex>,
    /// Weights.
    pub layers: Vec<FloatLayer>,
    /// Constants.
    pub constants: Vec<FloatConstant>,
    /// Records of layers and constants, as [`shape::infer_op`] looks them up.
    records: Network,
}

impl Draft {
    /// Adds a layer. `weights.len()` is the product of the shape.
    pub fn add_layer(&mut self, name: &str, shape: LayerShape, weights: Vec<f32>) -> LayerId {
        let id = LayerId(self.layers.len() as u32);
        self.records.layers.push(placeholder(name, shape));
        self.layers.push(FloatLayer {
            name: name.to_string(),
            shape,
            weights,
        });
        id
    }

    /// Adds a constant.
    pub fn add_constant(&mut self, name: &str, dims: Vec<usize>, values: Vec<f32>) -> ConstId {
        let id = ConstId(self.constants.len() as u32);
        self.records.constants.push(Constant {
            name: name.to_string(),
            dims: dims.iter().map(|&d| d as u32).collect(),
            precision: Precision::F32,
            offset: 0,
            crc: 0,
        });
        self.constants.push(FloatConstant {
            name: name.to_string(),
            dims,
            values,
        });
        id
    }

    /// Adds a constant from an array.
    pub fn add_array(&mut self, name: &str, array: &Array) -> ConstId {
        self.add_constant(name, array.dims.clone(), array.to_f32())
    }

    /// Weights of a layer.
    pub fn layer(&self, id: LayerId) -> &FloatLayer {
        &self.layers[id.0 as usize]
    }

    /// A constant.
    pub fn constant(&self, id: ConstId) -> &FloatConstant {
        &self.constants[id.0 as usize]
    }

    /// Shape of a final operator's output at every sample, or why there is none.
    pub fn infer(&self, op: &Op, inputs: &[TensorIndex]) -> Result<Shapes, String> {
        let samples = inputs.first().map_or(0, |&i| self.tensors[i].shapes.len());
        (0..samples)
            .map(|sample| {
                let operands: Vec<&[usize]> = inputs
                    .iter()
                    .map(|&i| self.tensors[i].shapes[sample].as_slice())
                    .collect();
                shape::infer_op(&self.records, op, &operands).map_err(|reason| reason.to_string())
            })
            .collect()
    }

    /// Adds a tensor.
    pub fn add_tensor(&mut self, name: String, shapes: Shapes) -> TensorIndex {
        self.tensors.push(DraftTensor {
            name,
            shapes,
            dims: Vec::new(),
        });
        self.tensors.len() - 1
    }

    /// Rank of a tensor.
    pub fn rank(&self, tensor: TensorIndex) -> usize {
        self.tensors[tensor].shapes.first().map_or(0, Vec::len)
    }

    /// The size of an axis when it is the same at every sample.
    pub fn fixed_dim(&self, tensor: TensorIndex, axis: usize) -> Option<usize> {
        let mut sizes = self.tensors[tensor]
            .shapes
            .iter()
            .map(|dims| dims.get(axis).copied());
        let first = sizes.next()??;
        sizes.all(|size| size == Some(first)).then_some(first)
    }

    /// How many nodes and graph outputs read each tensor.
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.tensors.len()];
        for &tensor in self
            .nodes
            .iter()
            .flat_map(|node| &node.inputs)
            .chain(&self.outputs)
        {
            uses[tensor] += 1;
        }
        uses
    }

    /// Index of the node that writes each tensor.
    pub fn producers(&self) -> Vec<Option<usize>> {
        let mut producers = vec![None; self.tensors.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            producers[node.output] = Some(index);
        }
        producers
    }

    /// Removes the nodes whose result nothing reads.
    pub fn remove_dead(&mut self) {
        let mut live = vec![false; self.tensors.len()];
        for &output in &self.outputs {
            live[output] = true;
        }
        for node in self.nodes.iter().rev() {
            if live[node.output] {
                for &input in &node.inputs {
                    live[input] = true;
                }
            }
        }
        self.nodes.retain(|node| live[node.output]);
    }

    /// The convolution of a node, if it is one.
    pub fn conv(&self, node: usize) -> Option<&Conv> {
        match &self.nodes[node].op {
            DraftOp::Final(Op::Conv(conv)) => Some(conv),
            _ => None,
        }
    }
}

/// A layer record with nothing but name and geometry.
pub fn placeholder(name: &str, shape: LayerShape) -> Layer {
    Layer {
        name: name.to_string(),
        shape,
        k_order: KOrder::ChannelMajor,
        values: Values::Raw32,
        index: Index::Raw,
        max_abs_q: 0,
        symmetric_i8: false,
        q_sums: Vec::new(),
        tiles: Vec::new(),
        record: CompressionRecord::default(),
    }
}
