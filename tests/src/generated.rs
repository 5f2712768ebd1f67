//! Networks with generated weights, written as ONNX: the contest network and small ones, so that a fresh clone tests the
//! whole way from a model file to an output without any download.

use dcz_compress::onnx::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use prost::Message;
use std::path::Path;

/// Share of zeros per layer in the contest's table, in percent (see the seed's per-layer result).
pub const CONTEST_SPARSITY: [(&str, f64); 21] = [
    ("res2a_1", 77.56),
    ("res2a_2a", 82.18),
    ("res2a_2b", 67.48),
    ("res2b_2a", 55.63),
    ("res2b_2b", 53.96),
    ("res3a_1", 58.36),
    ("res3a_2a", 48.08),
    ("res3a_2b", 52.51),
    ("res3b_2a", 52.68),
    ("res3b_2b", 56.35),
    ("res4a_1", 54.75),
    ("res4a_2a", 47.52),
    ("res4a_2b", 52.11),
    ("res4b_2a", 48.99),
    ("res4b_2b", 51.80),
    ("res5a_1", 53.95),
    ("res5a_2a", 48.01),
    ("res5a_2b", 46.93),
    ("res5b_2a", 48.41),
    ("res5b_2b", 49.19),
    ("fc5", 73.97),
];

/// What happens to freshly drawn weights before they are written: `(layer name, weights)`.
pub type Edit = fn(&str, &mut [f32]);

/// Leaves the weights as drawn.
pub fn dense(_: &str, _: &mut [f32]) {}

/// Prunes to the contest's sparsity and quantises to 7 bits (4 in fc5) with an exact zero, as the contest's files were.
pub fn pruned_and_quantised(name: &str, weights: &mut [f32]) {
    let Some((_, percent)) = CONTEST_SPARSITY.iter().find(|(layer, _)| *layer == name) else {
        return;
    };
    let zeros = (weights.len() as f64 * percent / 100.0).round() as usize;
    let mut magnitudes: Vec<f32> = weights.iter().map(|w| w.abs()).collect();
    magnitudes.select_nth_unstable_by(zeros, f32::total_cmp);
    let threshold = magnitudes[zeros];
    let kept = || weights.iter().copied().filter(|w| w.abs() >= threshold);
    let (low, high) = (
        kept().fold(f32::MAX, f32::min),
        kept().fold(f32::MIN, f32::max),
    );
    let levels = if name == "fc5" { 14.0 } else { 126.0 };
    let delta = (high - low) / levels;
    for w in weights {
        *w = if w.abs() < threshold {
            0.0
        } else {
            low + ((*w - low) / delta).round() * delta
        };
    }
}

/// Rounds to multiples of 1/32 of the largest magnitude: few distinct values, many zeros.
pub fn few_values(_: &str, weights: &mut [f32]) {
    let step = weights.iter().fold(0.0f32, |most, w| most.max(w.abs())) / 32.0;
    for w in weights {
        *w = (*w / step).round() * step;
    }
}

/// The contest network: input `input` 1x3x128x128, output `output` 1x256, 19.6 M weights.
pub fn contest(edit: Edit) -> Vec<u8> {
    let mut net = Builder::new(2019, edit);
    let mut x = net.conv_relu("input", "conv1", [64, 3, 3], 2);
    let mut channels = 64;
    for (stage, (width, stride)) in [(64, 1), (128, 2), (256, 2), (512, 2)]
        .into_iter()
        .enumerate()
    {
        let name = format!("res{}", stage + 2);
        let shortcut = net.conv(&x, &format!("{name}a_1"), [width, channels, 1], stride);
        let y = net.conv_relu(&x, &format!("{name}a_2a"), [width, channels, 3], stride);
        let y = net.conv(&y, &format!("{name}a_2b"), [width, width, 3], 1);
        let sum = net.node("Add", &[&shortcut, &y], &format!("{name}a"), vec![]);
        x = net.node("Relu", &[&sum], &format!("{name}a_relu"), vec![]);
        let y = net.conv_relu(&x, &format!("{name}b_2a"), [width, width, 3], 1);
        let y = net.conv(&y, &format!("{name}b_2b"), [width, width, 3], 1);
        x = net.node("Add", &[&x, &y], &format!("{name}b"), vec![]);
        if stage < 3 {
            x = net.node("Relu", &[&x], &format!("{name}b_relu"), vec![]);
        }
        channels = width;
    }
    let flat = net.node("Flatten", &[&x], "flat", vec![int("axis", 1)]);
    net.linear(&flat, "fc5", 256, 512 * 8 * 8);
    net.finish(&[1, 3, 128, 128], &[1, 256])
}

/// A few layers of every kind a face network has: input `input` 1x3x16x16, output `output` 1x24.
pub fn small(edit: Edit) -> Vec<u8> {
    let mut net = Builder::new(7, edit);
    let x = net.conv_relu("input", "stem", [16, 3, 3], 2);
    let y = net.conv_relu(&x, "block_a", [16, 16, 3], 1);
    let y = net.conv(&y, "block_b", [16, 16, 3], 1);
    let x = net.node("Add", &[&x, &y], "sum", vec![]);
    let x = net.node("Relu", &[&x], "sum_relu", vec![]);
    let x = net.conv_relu(&x, "wide", [24, 16, 1], 1);
    let flat = net.node("Flatten", &[&x], "flat", vec![int("axis", 1)]);
    net.linear(&flat, "embedding", 24, 24 * 8 * 8);
    net.finish(&[1, 3, 16, 16], &[1, 24])
}

/// Convolutions large enough that the planner has a choice: input `input` 1x3x32x32, output `output` 1x16.
pub fn wide(edit: Edit) -> Vec<u8> {
    let mut net = Builder::new(11, edit);
    let x = net.conv_relu("input", "stem", [64, 3, 3], 1);
    let x = net.conv_relu(&x, "first", [64, 64, 3], 1);
    let x = net.conv_relu(&x, "second", [64, 64, 3], 2);
    let flat = net.node("Flatten", &[&x], "flat", vec![int("axis", 1)]);
    net.linear(&flat, "embedding", 16, 64 * 16 * 16);
    net.finish(&[1, 3, 32, 32], &[1, 16])
}

/// Like [`small`] with an operator that nobody implements in the middle.
pub fn unsupported() -> Vec<u8> {
    let mut net = Builder::new(7, dense);
    let x = net.conv_relu("input", "stem", [16, 3, 3], 2);
    let x = net.node("Quaternionise", &[&x], "strange_one", vec![]);
    let x = net.node("Quaternionise", &[&x], "strange_two", vec![]);
    net.nodes.push(NodeProto {
        input: vec![x],
        output: vec!["output".into()],
        op_type: "Relu".into(),
        ..Default::default()
    });
    net.finish(&[1, 3, 16, 16], &[1, 16, 8, 8])
}

/// Writes a model into a folder and returns its path.
///
/// # Panics
/// When it cannot be written.
pub fn write(folder: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

pub(crate) struct Builder {
    random: Random,
    edit: Edit,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
}

impl Builder {
    pub(crate) fn new(seed: u64, edit: Edit) -> Builder {
        Builder {
            random: Random(seed),
            edit,
            nodes: Vec::new(),
            initializers: Vec::new(),
        }
    }

    pub(crate) fn constant(&mut self, name: String, dims: &[usize], values: &[f32]) -> String {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializers.push(TensorProto {
            dims: dims.iter().map(|d| *d as i64).collect(),
            data_type: 1,
            name: name.clone(),
            raw_data: raw.into(),
            ..Default::default()
        });
        name
    }

    pub(crate) fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        name: &str,
        attributes: Vec<AttributeProto>,
    ) -> String {
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|i| (*i).into()).collect(),
            output: vec![name.into()],
            name: name.into(),
            op_type: op.into(),
            attribute: attributes,
            domain: String::new(),
        });
        name.into()
    }

    /// A constant of integers: the shape of a Reshape.
    pub(crate) fn integers(&mut self, name: String, values: &[i64]) -> String {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializers.push(TensorProto {
            dims: vec![values.len() as i64],
            data_type: 7,
            name: name.clone(),
            raw_data: raw.into(),
            ..Default::default()
        });
        name
    }

    fn weights(&mut self, name: &str, dims: &[usize], fan_in: usize) -> String {
        let scale = (2.0 / fan_in as f64).sqrt();
        let mut values: Vec<f32> = (0..dims.iter().product())
            .map(|_| (self.random.gaussian() * scale) as f32)
            .collect();
        (self.edit)(name, &mut values);
        self.constant(format!("{name}_w"), dims, &values)
    }

    /// `shape`: output channels, input channels, kernel size; "same" padding.
    fn conv(&mut self, x: &str, name: &str, [out, input, k]: [usize; 3], stride: i64) -> String {
        let w = self.weights(name, &[out, input, k, k], input * k * k);
        let bias: Vec<f32> = (0..out)
            .map(|_| (self.random.gaussian() * 0.05) as f32)
            .collect();
        let b = self.constant(format!("{name}_b"), &[out], &bias);
        let pad = k as i64 / 2;
        let attributes = vec![
            ints("kernel_shape", &[k as i64; 2]),
            ints("strides", &[stride; 2]),
            ints("pads", &[pad; 4]),
        ];
        self.node("Conv", &[x, &w, &b], name, attributes)
    }

    fn conv_relu(&mut self, x: &str, name: &str, shape: [usize; 3], stride: i64) -> String {
        let y = self.conv(x, name, shape, stride);
        self.node("Relu", &[&y], &format!("{name}_relu"), vec![])
    }

    fn linear(&mut self, x: &str, name: &str, out: usize, input: usize) {
        let w = self.weights(name, &[out, input], input);
        self.node("Gemm", &[x, &w], name, vec![int("transB", 1)]);
        if let Some(last) = self.nodes.last_mut() {
            last.output = vec!["output".into()];
        }
    }

    fn finish(self, input: &[i64], output: &[i64]) -> Vec<u8> {
        self.finish_all(input, &[("output", output)])
    }

    pub(crate) fn finish_all(self, input: &[i64], outputs: &[(&str, &[i64])]) -> Vec<u8> {
        let graph = GraphProto {
            node: self.nodes,
            name: "generated".into(),
            initializer: self.initializers,
            input: vec![value("input", input)],
            output: outputs
                .iter()
                .map(|(name, dims)| value(name, dims))
                .collect(),
            ..Default::default()
        };
        ModelProto {
            ir_version: 7,
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: 13,
            }],
            graph: Some(graph),
            ..Default::default()
        }
        .encode_to_vec()
    }
}

pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        i: value,
        kind: 2,
        ..Default::default()
    }
}

pub(crate) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        ints: values.into(),
        kind: 7,
        ..Default::default()
    }
}

fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = dims
        .iter()
        .map(|d| DimensionProto {
            dim_value: Some(*d),
            dim_param: None,
        })
        .collect();
    let tensor = TensorTypeProto {
        elem_type: 1,
        shape: Some(TensorShapeProto { dim }),
    };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            tensor_type: Some(tensor),
        }),
    }
}

/// SplitMix64 with a Box-Muller transform: the same weights on every machine up to the last bit of `ln` and `cos`.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn gaussian(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}
