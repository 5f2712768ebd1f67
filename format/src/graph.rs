//! Graph records: what a network computes, as plain data.
//!
//! This is the one intermediate representation of the project: the importer of `dcz-compress` produces it, the
//! container stores it, the runtime lowers it. It knows no kernel and no file offset. A [`Network`] is a list of
//! [`Node`]s in execution order over numbered [`Tensor`]s; weights live in [`crate::layer::Layer`]s, everything small
//! (biases, slopes, constant operands) in [`Constant`]s.
//!
//! All activations are float32, 1 to 6 dimensions, NCHW by meaning (memory layout is the runtime's business).

/// Index into [`Network::tensors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub u32);
/// Index into [`Network::layers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(pub u32);
/// Index into [`Network::constants`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConstId(pub u32);
/// Index into [`Network::symbols`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SymbolId(pub u32);

/// One named network of a container.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Network {
    /// Unique within the file; not empty.
    pub name: String,
    /// Symbolic dimensions that inputs refer to.
    pub symbols: Vec<Symbol>,
    /// Every graph input and every node output.
    pub tensors: Vec<Tensor>,
    /// In execution order: a node reads only inputs and outputs of earlier nodes; every node writes a tensor of its own.
    pub nodes: Vec<Node>,
    /// Graph inputs, in the order of the original network.
    pub inputs: Vec<TensorId>,
    /// Graph outputs with their meaning.
    pub outputs: Vec<Output>,
    /// Coded weights.
    pub layers: Vec<crate::layer::Layer>,
    /// Small constants.
    pub constants: Vec<Constant>,
    /// How an image becomes the first input; absent when the user did not say.
    pub preprocess: Option<Preprocess>,
    /// Generated input and sampled expectation.
    pub self_test: Option<SelfTest>,
    /// Where the network came from.
    pub provenance: Provenance,
}

/// A symbolic dimension of the inputs: legal sizes are `min..=max` in steps of `multiple`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Name, as in the original network or as the user called it.
    pub name: String,
    /// Smallest legal size, at least 1.
    pub min: u32,
    /// Largest legal size.
    pub max: u32,
    /// Every legal size is a multiple of this; at least 1.
    pub multiple: u32,
    /// Size used by the self-test and by tools when none is given; legal.
    pub default: u32,
}

/// One dimension of a tensor record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Known when the file was made.
    Fixed(u32),
    /// One of the network's symbols.
    Symbol(SymbolId),
}

/// An activation: graph input or node output.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Name in the original network (unique within the network, not empty).
    pub name: String,
    /// Dimensions of a graph input; empty for node outputs, whose shapes follow from the inputs.
    pub dims: Vec<Dim>,
    /// Room for an integer path; absent in files of this version's compressor.
    pub quant: Option<ActivationQuant>,
}

/// Quantisation of an activation, for integer execution.
#[derive(Clone, Debug, PartialEq)]
pub struct ActivationQuant {
    /// `true`: signed 8-bit codes.
    pub signed: bool,
    /// Axis of per-channel parameters, or none for one pair per tensor.
    pub axis: Option<u8>,
    /// One scale, or one per channel; finite, positive.
    pub scales: Vec<f32>,
    /// One zero point per scale, within the code's range.
    pub zero_points: Vec<i16>,
}

/// A step of the computation.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Name in the original network (may be made up by the importer; not empty).
    pub name: String,
    /// What it does.
    pub op: Op,
    /// Tensors it reads; how many follows from [`Op::arity`].
    pub inputs: Vec<TensorId>,
    /// The tensor it writes.
    pub output: TensorId,
}

/// The closed set of operators. Adding one makes the compiler list the places to edit.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// 2-D convolution of an NCHW tensor with a layer's weights.
    Conv(Conv),
    /// `y = x W^T + b` over the last axis; the layer has kernel 1x1 and one group.
    Linear {
        /// Weights `[out][in]`.
        layer: LayerId,
        /// `[out]` values.
        bias: Option<ConstId>,
    },
    /// Element-wise function of one tensor.
    Activation(Activation),
    /// `x < 0 ? slope * x : x`; the slope has one value or one per channel (axis 1).
    Prelu {
        /// 1 or C values.
        slope: ConstId,
    },
    /// Element-wise arithmetic of two tensors with NumPy broadcasting.
    Binary(BinaryKind),
    /// Element-wise arithmetic with a constant, NumPy broadcasting by the constant's dims.
    BinaryConst {
        /// The operation.
        kind: BinaryKind,
        /// The other operand.
        constant: ConstId,
        /// `true`: constant op x, `false`: x op constant.
        constant_first: bool,
    },
    /// Windowed pooling of an NCHW tensor.
    Pool(Pool),
    /// Pooling over all spatial positions; keeps the rank, spatial dimensions become 1.
    GlobalPool(PoolKind),
    /// Constant padding, NCHW: amounts before and after each axis.
    Pad {
        /// One (before, after) pair per axis.
        amounts: Vec<(u32, u32)>,
        /// The value written.
        value: f32,
    },
    /// Concatenation of any number of tensors.
    Concat {
        /// Axis, from the front.
        axis: u8,
    },
    /// New dimensions, same elements in NCHW (row-major) order.
    Reshape {
        /// Target dimensions.
        dims: Vec<ReshapeDim>,
    },
    /// Permutation of the axes: output axis `i` is input axis `perm[i]`.
    Transpose {
        /// A permutation of `0..rank`.
        perm: Vec<u8>,
    },
    /// Strided sub-range of axes.
    Slice {
        /// Ranges, at most one per axis.
        ranges: Vec<SliceRange>,
    },
    /// Spatial resampling of an NCHW tensor.
    Resize(Resize),
    /// `exp(x) / sum(exp(x))` along an axis.
    Softmax {
        /// First axis of the normalised range, from the front.
        axis: u8,
        /// One past the last axis of the range (`axis + 1` since opset 13; the rank before it).
        axis_end: u8,
    },
    /// `x / max(norm_p(x), epsilon)` along an axis.
    LpNormalize {
        /// Axis, from the front.
        axis: u8,
        /// 1 or 2.
        p: u8,
        /// Lower bound of the norm; 0 leaves a zero vector zero.
        epsilon: f32,
    },
}

impl Op {
    /// Number of input tensors: `(least, most)`.
    pub fn arity(&self) -> (usize, usize) {
        match self {
            Op::Binary(_) => (2, 2),
            Op::Concat { .. } => (1, 1024),
            _ => (1, 1),
        }
    }
    /// The layer whose weights the operator uses.
    pub fn layer(&self) -> Option<LayerId> {
        match self {
            Op::Conv(conv) => Some(conv.layer),
            Op::Linear { layer, .. } => Some(*layer),
            _ => None,
        }
    }
}

/// Attributes of a convolution; kernel size, channels and groups are the layer's.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// Weights.
    pub layer: LayerId,
    /// One value per output channel.
    pub bias: Option<ConstId>,
    /// (vertical, horizontal), at least 1.
    pub strides: [u32; 2],
    /// (vertical, horizontal), at least 1.
    pub dilations: [u32; 2],
    /// top, left, bottom, right.
    pub pads: Pads,
}

/// Spatial padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pads {
    /// Amounts: top, left, bottom, right.
    Explicit([u32; 4]),
    /// Output = ceil(input / stride); an odd total puts the extra row or column at the end.
    SameUpper,
    /// The same with the extra at the beginning.
    SameLower,
}

/// Element-wise functions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `max(x, 0)`
    Relu,
    /// `x < 0 ? alpha * x : x`
    LeakyRelu {
        /// Slope below zero.
        alpha: f32,
    },
    /// `min(max(x, min), max)`
    Clip {
        /// Lower bound (may be -inf).
        min: f32,
        /// Upper bound (may be +inf).
        max: f32,
    },
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `clip(alpha * x + beta, 0, 1)`
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Offset.
        beta: f32,
    },
    /// `x * clip(x / 6 + 0.5, 0, 1)`
    HardSwish,
    /// `x * tanh(ln(1 + exp(x)))`
    Mish,
    /// `x * sigmoid(x)`
    Silu,
    /// Hyperbolic tangent.
    Tanh,
    /// Square root (of a norm or of a score).
    Sqrt,
    /// `exp(x)`
    Exp,
}

/// Element-wise arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryKind {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a * b
    Mul,
    /// a / b
    Div,
}

/// Windowed pooling.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Largest value or mean.
    pub kind: PoolKind,
    /// (height, width) of the window.
    pub kernel: [u32; 2],
    /// (vertical, horizontal), at least 1.
    pub strides: [u32; 2],
    /// (vertical, horizontal), at least 1.
    pub dilations: [u32; 2],
    /// Padding; never counts for `Max`.
    pub pads: Pads,
    /// Round the output size up (ONNX `ceil_mode`); a window starts inside the input or its leading padding.
    pub ceil_mode: bool,
    /// Mean only: padding counts in the divisor.
    pub count_include_pad: bool,
}

/// Pooling functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// Largest value.
    Max,
    /// Mean.
    Average,
}

/// A target dimension of a reshape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReshapeDim {
    /// This size, at least 1.
    Fixed(u32),
    /// The product of the input dimensions `from..to`.
    Input {
        /// First axis.
        from: u8,
        /// One past the last axis; larger than `from`.
        to: u8,
    },
    /// What remains; at most one.
    Rest,
}

/// A range of one axis. Indices are already normalised (no negatives); the end is clamped to the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceRange {
    /// Axis, from the front.
    pub axis: u8,
    /// First index; from the end when `start_from_end` (0 = one past the last).
    pub start: u32,
    /// `true`: `start` counts backwards from the end.
    pub start_from_end: bool,
    /// One past the last index; `u32::MAX`: the end of the axis; from the end when `end_from_end`.
    pub end: u32,
    /// `true`: `end` counts backwards from the end.
    pub end_from_end: bool,
    /// Step, at least 1.
    pub step: u32,
}

/// Spatial resampling; sizes by scale (dynamic shapes) or fixed.
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    /// Interpolation.
    pub mode: ResizeMode,
    /// Where an output coordinate lies in the input.
    pub coordinates: ResizeCoordinates,
    /// Output height and width.
    pub size: ResizeSize,
}

/// Interpolation of [`Resize`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeMode {
    /// Rounds down.
    NearestFloor,
    /// Rounds up.
    NearestCeil,
    /// Half rounds down.
    NearestPreferFloor,
    /// Half rounds up.
    NearestPreferCeil,
    /// Bilinear, edges clamped.
    Linear,
}

/// ONNX `coordinate_transformation_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeCoordinates {
    /// `x / scale`
    Asymmetric,
    /// `(x + 0.5) / scale - 0.5`
    HalfPixel,
    /// HalfPixel, and 0 where the output has one element.
    PytorchHalfPixel,
    /// `x * (in - 1) / (out - 1)`
    AlignCorners,
}

/// Output size of [`Resize`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ResizeSize {
    /// `floor(in * scale)` for (height, width); finite, positive. The scale itself enters the coordinates.
    Scales([f32; 2]),
    /// (height, width); the scale is `out / in`.
    Fixed([u32; 2]),
}

/// A small constant: bias, slope, operand.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// Name in the original network, for messages.
    pub name: String,
    /// Dimensions (broadcasting of `BinaryConst`); the product is the number of values; empty = scalar.
    pub dims: Vec<u32>,
    /// How the values are stored.
    pub precision: Precision,
    /// Byte offset within the network's constants section.
    pub offset: u64,
    /// CRC-32C of the stored bytes.
    pub crc: u32,
}

/// Storage of a constant's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// IEEE binary16.
    F16,
    /// IEEE binary32.
    F32,
}

/// A graph output.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The tensor.
    pub tensor: TensorId,
    /// What its values are.
    pub meaning: Meaning,
}

/// What an output's values are.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    /// Not stated.
    Unknown,
    /// A vector to compare with others of the same network.
    Embedding {
        /// How two vectors are compared.
        metric: Metric,
        /// Decision threshold on the metric (similarity for cosine, distance for Euclidean).
        threshold: Option<f32>,
    },
    /// One score per class.
    Classes {
        /// Class names; empty when not known.
        labels: Vec<String>,
    },
}

/// Comparison of embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Cosine similarity; the same when >= threshold.
    Cosine,
    /// Euclidean distance; the same when <= threshold.
    Euclidean,
}

/// How an image becomes the first input. Value: `(channel - mean) * scale`, per channel in the stated order.
/// The network's own input scaling stays in the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    /// Width and height handed to the network, in pixels.
    pub size: [u32; 2],
    /// Order of the channels.
    pub channels: ChannelOrder,
    /// Subtracted, in units of 0..=255.
    pub mean: [f32; 3],
    /// Multiplied after the subtraction.
    pub scale: [f32; 3],
    /// How the image is brought to `size`.
    pub resize: ResizeRule,
    /// Sampling filter.
    pub filter: Filter,
}

/// Order of the colour channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelOrder {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One channel, ITU-R BT.601 luma.
    Gray,
}

/// How an image is brought to the network's size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ResizeRule {
    /// Width and height scaled independently.
    Stretch,
    /// Scaled to fit, the rest filled with `fill` (0..=255).
    Letterbox {
        /// The fill value of every channel.
        fill: u8,
    },
    /// Shorter side scaled to `short`, then the centre cut out.
    CenterCrop {
        /// Length of the shorter side after scaling, at least the larger side of `size`.
        short: u32,
    },
}

/// Sampling filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Bilinear; averages over the covered area when shrinking (triangle filter).
    Bilinear,
    /// The nearest sample.
    Nearest,
}

/// Generated input, sampled expectation. See `docs/format.md` for the generator.
#[derive(Clone, Debug, PartialEq)]
pub struct SelfTest {
    /// The integer generator.
    pub generator: Generator,
    /// Seed of the generator.
    pub seed: u64,
    /// Input values are spread uniformly over this range (low, high).
    pub range: [f32; 2],
    /// One entry per output of the network.
    pub expected: Vec<Expected>,
}

/// Named generators of self-test inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generator {
    /// SplitMix64; the top 24 bits of each output scaled to the range (see [`crate::selftest`]).
    SplitMix64,
}

/// Expectation of one output.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// Number of elements of the output.
    pub len: u32,
    /// Largest magnitude of the whole output: the unit of the tolerance.
    pub max_abs: f32,
    /// Euclidean norm of the whole output.
    pub norm: f32,
    /// Values at positions `i * len / n` for `i in 0..n` (at most 64), in NCHW order.
    pub samples: Vec<f32>,
}

/// Where a network came from.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Provenance {
    /// Free text: source, version, digest of the original file.
    pub source: String,
    /// Tool that made this file, with version.
    pub producer: String,
    /// Licence identifier or text of the weights.
    pub licence: String,
}

impl Precision {
    /// Bytes of one value.
    pub fn bytes(self) -> u64 {
        match self {
            Precision::F16 => 2,
            Precision::F32 => 4,
        }
    }
}

impl Constant {
    /// Number of values; [`None`] when it does not fit (never in an opened container).
    pub fn value_count(&self) -> Option<usize> {
        let values = crate::limits::product(self.dims.iter().map(|dim| u64::from(*dim)))?;
        usize::try_from(values).ok()
    }
}
