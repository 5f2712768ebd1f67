//! What the importer makes of small networks built in memory: folding that is exact happens, folding that is not does
//! not, patterns become one operator, shapes follow symbolic dimensions, mistakes are named.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use dcz_compress::error::Error;
use dcz_compress::import::{Dynamic, FloatNetwork, ImportOptions, import};
use dcz_compress::onnx::proto::*;
use dcz_format::graph::{Activation, BinaryKind, Dim, Op, Pads, PoolKind, ReshapeDim};

/// A model under construction.
struct Net {
    graph: GraphProto,
    opset: i64,
}

impl Net {
    fn new(opset: i64, input: &[&str]) -> Net {
        let dim = |text: &&str| match text.parse() {
            Ok(size) => DimensionProto {
                dim_value: Some(size),
                dim_param: None,
            },
            Err(_) => DimensionProto {
                dim_value: None,
                dim_param: Some(text.to_string()),
            },
        };
        let shape = TensorShapeProto {
            dim: input.iter().map(dim).collect(),
        };
        let tensor_type = Some(TensorTypeProto {
            elem_type: 1,
            shape: Some(shape),
        });
        let x = ValueInfoProto {
            name: "x".into(),
            r#type: Some(TypeProto { tensor_type }),
        };
        Net {
            graph: GraphProto {
                name: "net".into(),
                input: vec![x],
                ..Default::default()
            },
            opset,
        }
    }

    fn floats(&mut self, name: &str, dims: &[i64], values: &[f32]) -> &mut Net {
        let count = dims.iter().product::<i64>() as usize;
        let values = (0..count).map(|i| values[i % values.len()]).collect();
        let tensor = TensorProto {
            name: name.into(),
            dims: dims.to_vec(),
            data_type: 1,
            float_data: values,
            ..Default::default()
        };
        self.graph.initializer.push(tensor);
        self
    }

    fn ints(&mut self, name: &str, values: &[i64]) -> &mut Net {
        let dims = vec![values.len() as i64];
        let tensor = TensorProto {
            name: name.into(),
            dims,
            data_type: 7,
            int64_data: values.to_vec(),
            ..Default::default()
        };
        self.graph.initializer.push(tensor);
        self
    }

    /// `"Conv a w b -> y"`; the node is called as its first output.
    fn node(&mut self, text: &str, attribute: Vec<AttributeProto>) -> &mut Net {
        let (left, right) = text.split_once(" -> ").unwrap();
        let mut words = left.split(' ');
        let op_type = words.next().unwrap().to_string();
        let input = words
            .map(|w| {
                if w == "_" {
                    String::new()
                } else {
                    w.to_string()
                }
            })
            .collect();
        let output: Vec<String> = right.split(' ').map(str::to_string).collect();
        self.graph.node.push(NodeProto {
            input,
            name: output[0].clone(),
            output,
            op_type,
            attribute,
            domain: String::new(),
        });
        self
    }

    fn model(&self, outputs: &[&str]) -> ModelProto {
        let mut graph = self.graph.clone();
        graph.output = outputs
            .iter()
            .map(|name| ValueInfoProto {
                name: name.to_string(),
                r#type: None,
            })
            .collect();
        let opset_import = vec![OperatorSetIdProto {
            domain: String::new(),
            version: self.opset,
        }];
        ModelProto {
            ir_version: 7,
            opset_import,
            graph: Some(graph),
            ..Default::default()
        }
    }

    fn import(&self, outputs: &[&str]) -> Result<FloatNetwork, Error> {
        import(&self.model(outputs), &ImportOptions::default())
    }

    fn import_dynamic(&self, outputs: &[&str], dynamic: &[&str]) -> Result<FloatNetwork, Error> {
        let dynamic = dynamic
            .iter()
            .map(|text| text.parse::<Dynamic>().unwrap())
            .collect();
        import(
            &self.model(outputs),
            &ImportOptions {
                dynamic,
                ..ImportOptions::default()
            },
        )
    }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        i,
        ..Default::default()
    }
}

fn list(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        ints: ints.to_vec(),
        ..Default::default()
    }
}

fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        f,
        ..Default::default()
    }
}

/// A convolution 2 -> 4 channels on `x`, with the given padding on every side.
fn with_conv(pad: i64) -> Net {
    let mut net = Net::new(13, &["1", "2", "5", "5"]);
    net.floats("w", &[4, 2, 3, 3], &[0.5, -1.0, 0.25, 2.0, 0.125])
        .floats("b", &[4], &[1.0, 2.0, 3.0, 4.0]);
    net.floats("scale", &[4], &[2.0])
        .floats("shift", &[4], &[1.0])
        .floats("mean", &[4], &[3.0])
        .floats("var", &[4], &[4.0]);
    net.node("Conv x w b -> conv", vec![list("pads", &[pad; 4])]);
    net
}

fn ops(float: &FloatNetwork) -> Vec<&Op> {
    float.network.nodes.iter().map(|n| &n.op).collect()
}

fn output_name(float: &FloatNetwork) -> &str {
    &float.network.tensors[float.network.outputs[0].tensor.0 as usize].name
}

#[test]
fn batch_normalisation_after_a_convolution_is_folded() {
    let mut net = with_conv(1);
    net.node(
        "BatchNormalization conv scale shift mean var -> bn",
        vec![float("epsilon", 0.0)],
    );
    let float = net.import(&["bn"]).unwrap();
    let [Op::Conv(conv)] = ops(&float)[..] else {
        panic!("{:?}", ops(&float))
    };
    // scale / sqrt(var) = 1: weights stay; bias + (1 - 3).
    assert_eq!(float.layers[0].weights[..3], [0.5, -1.0, 0.25]);
    assert_eq!(
        float.constants[conv.bias.unwrap().0 as usize].values,
        [-1.0, 0.0, 1.0, 2.0]
    );
    assert_eq!(output_name(&float), "bn");
    assert_eq!(float.layers[0].name, "conv");
}

#[test]
fn a_result_read_twice_is_not_folded() {
    let mut net = with_conv(1);
    net.node("BatchNormalization conv scale shift mean var -> bn", vec![])
        .node("Add bn conv -> y", vec![]);
    let float = net.import(&["y"]).unwrap();
    assert!(matches!(
        ops(&float)[..],
        [
            Op::Conv(_),
            Op::BinaryConst {
                kind: BinaryKind::Mul,
                ..
            },
            Op::BinaryConst {
                kind: BinaryKind::Add,
                ..
            },
            Op::Binary(BinaryKind::Add)
        ]
    ));
    // The convolution itself as an output counts as a reader.
    let mut net = with_conv(1);
    net.node("BatchNormalization conv scale shift mean var -> bn", vec![]);
    assert_eq!(net.import(&["conv", "bn"]).unwrap().network.nodes.len(), 3);
}

/// A batch normalisation of 2 channels before a convolution.
fn normalised_first(pad: i64, shift: f32) -> FloatNetwork {
    let mut net = Net::new(13, &["1", "2", "5", "5"]);
    net.floats("w", &[1, 2, 1, 1], &[3.0, 5.0])
        .floats("scale", &[2], &[2.0, 4.0])
        .floats("shift", &[2], &[shift]);
    net.floats("mean", &[2], &[0.0]).floats("var", &[2], &[1.0]);
    net.node(
        "BatchNormalization x scale shift mean var -> bn",
        vec![float("epsilon", 0.0)],
    );
    net.node("Conv bn w -> y", vec![list("pads", &[pad; 4])]);
    net.import(&["y"]).unwrap()
}

#[test]
fn batch_normalisation_before_a_convolution_is_folded_where_exact() {
    let float = normalised_first(0, 1.0);
    let [Op::Conv(conv)] = ops(&float)[..] else {
        panic!("{:?}", ops(&float))
    };
    assert_eq!(float.layers[0].weights, [6.0, 20.0]);
    assert_eq!(float.constants[conv.bias.unwrap().0 as usize].values, [8.0]);
    // Padding is zero after the normalisation, not before it.
    assert_eq!(normalised_first(1, 1.0).network.nodes.len(), 3);
    assert_eq!(normalised_first(1, 0.0).network.nodes.len(), 1);
}

#[test]
fn batch_normalisation_reaches_a_linear_layer_through_flatten() {
    let mut net = Net::new(13, &["1", "2", "1", "2"]);
    net.floats("w", &[1, 4], &[1.0])
        .floats("scale", &[2], &[2.0, 3.0])
        .floats("shift", &[2], &[0.5, 0.25]);
    net.floats("mean", &[2], &[0.0]).floats("var", &[2], &[1.0]);
    net.node(
        "BatchNormalization x scale shift mean var -> bn",
        vec![float("epsilon", 0.0)],
    );
    net.node("Flatten bn -> flat", vec![])
        .node("Gemm flat w -> y", vec![int("transB", 1)]);
    let float = net.import(&["y"]).unwrap();
    let [
        Op::Reshape { .. },
        Op::Linear {
            bias: Some(bias), ..
        },
    ] = ops(&float)[..]
    else {
        panic!("{:?}", ops(&float))
    };
    assert_eq!(float.layers[0].weights, [2.0, 2.0, 3.0, 3.0]);
    assert_eq!(float.constants[bias.0 as usize].values, [1.5]);
}

#[test]
fn input_scaling_stays_in_the_network() {
    let mut net = Net::new(13, &["1", "2", "5", "5"]);
    net.floats("w", &[1, 2, 1, 1], &[3.0, 5.0])
        .floats("mean", &[1], &[127.5])
        .floats("factor", &[1], &[0.0078125]);
    net.node("Sub x mean -> a", vec![])
        .node("Mul a factor -> b", vec![])
        .node("Conv b w -> y", vec![]);
    let float = net.import(&["y"]).unwrap();
    assert!(matches!(
        ops(&float)[..],
        [
            Op::BinaryConst {
                kind: BinaryKind::Sub,
                ..
            },
            Op::BinaryConst {
                kind: BinaryKind::Mul,
                ..
            },
            Op::Conv(_)
        ]
    ));
    assert_eq!(float.layers[0].weights, [3.0, 5.0]);
}

#[test]
fn padding_joins_the_convolution() {
    let mut net = Net::new(13, &["1", "2", "5", "5"]);
    net.floats("w", &[1, 2, 3, 3], &[1.0])
        .ints("pads", &[0, 0, 1, 2, 0, 0, 3, 4]);
    net.node("Pad x pads -> p", vec![])
        .node("Conv p w -> y", vec![list("pads", &[1, 1, 1, 1])]);
    let float = net.import(&["y"]).unwrap();
    assert!(
        matches!(ops(&float)[..], [Op::Conv(conv)] if conv.pads == Pads::Explicit([2, 3, 4, 5]))
    );
}

#[test]
fn activations_of_exporters() {
    let check = |build: &dyn Fn(&mut Net), wanted: Activation| {
        let mut net = Net::new(13, &["1", "4"]);
        net.floats("three", &[], &[3.0])
            .floats("zero", &[], &[0.0])
            .floats("six", &[], &[6.0])
            .floats("sixth", &[], &[1.0 / 6.0]);
        build(&mut net);
        let float = net.import(&["y"]).unwrap();
        assert!(
            matches!(ops(&float)[..], [Op::Activation(found)] if *found == wanted),
            "{:?}",
            ops(&float)
        );
    };
    let shifted = |net: &mut Net| {
        net.node("Add three x -> a", vec![])
            .node("Clip a zero six -> c", vec![]);
    };
    check(
        &|n| {
            n.node("Sigmoid x -> s", vec![])
                .node("Mul s x -> y", vec![]);
        },
        Activation::Silu,
    );
    check(
        &|n| {
            n.node("Softplus x -> s", vec![])
                .node("Tanh s -> t", vec![])
                .node("Mul x t -> y", vec![]);
        },
        Activation::Mish,
    );
    check(
        &|n| {
            shifted(n);
            n.node("Mul x c -> m", vec![])
                .node("Div m six -> y", vec![]);
        },
        Activation::HardSwish,
    );
    check(
        &|n| {
            shifted(n);
            n.node("Mul c sixth -> h", vec![])
                .node("Mul x h -> y", vec![]);
        },
        Activation::HardSwish,
    );
    check(
        &|n| {
            shifted(n);
            n.node("Div c six -> y", vec![]);
        },
        Activation::HardSigmoid {
            alpha: 1.0 / 6.0,
            beta: 0.5,
        },
    );
    check(
        &|n| {
            n.node("Max x zero -> y", vec![]);
        },
        Activation::Relu,
    );
}

#[test]
fn normalisations_of_exporters() {
    let check = |build: &dyn Fn(&mut Net), wanted: f32| {
        let mut net = Net::new(13, &["1", "4"]);
        net.floats("eps", &[], &[1e-6])
            .floats("two", &[], &[2.0])
            .ints("one", &[1]);
        build(&mut net);
        let float = net.import(&["y"]).unwrap();
        let [
            Op::LpNormalize {
                axis: 1,
                p: 2,
                epsilon,
            },
        ] = ops(&float)[..]
        else {
            panic!("{:?}", ops(&float))
        };
        assert!((epsilon - wanted).abs() <= 1e-9, "{epsilon}");
    };
    let axis = || list("axes", &[1]);
    check(
        &|n| {
            n.node("ReduceL2 x -> n", vec![axis()])
                .node("Div x n -> y", vec![]);
        },
        0.0,
    );
    check(
        &|n| {
            n.node("ReduceL2 x -> n", vec![axis()])
                .node("Clip n eps -> c", vec![])
                .node("Shape x -> s", vec![]);
            n.node("Expand c s -> e", vec![])
                .node("Div x e -> y", vec![]);
        },
        1e-6,
    );
    check(
        &|n| {
            n.node("Pow x two -> q", vec![])
                .node("ReduceSum q one -> r", vec![])
                .node("Max r eps -> m", vec![]);
            n.node("Sqrt m -> n", vec![])
                .node("Reciprocal n -> i", vec![])
                .node("Mul x i -> y", vec![]);
        },
        1e-3,
    );
}

#[test]
fn left_over_parts_of_patterns_are_reported_all_at_once() {
    let mut net = Net::new(13, &["1", "4"]);
    net.node("Softplus x -> a", vec![])
        .node("ReduceL2 a -> b", vec![list("axes", &[1])])
        .node("Erf b -> c", vec![])
        .node("Det c -> y", vec![]);
    let Err(Error::Unsupported(list)) = net.import(&["y"]) else {
        panic!()
    };
    let mut operators: Vec<&str> = list.iter().map(|u| u.operator.as_str()).collect();
    operators.sort_unstable();
    assert_eq!(operators, ["Det", "Erf", "ReduceL2", "Softplus"]);
}

#[test]
fn reshapes_follow_symbolic_dimensions() {
    let mut net = Net::new(13, &["N", "6", "H", "4"]);
    net.ints("zero", &[0])
        .ints("two", &[2])
        .ints("rest", &[-1])
        .ints("start", &[0])
        .ints("axis", &[0]);
    net.node("Shape x -> s", vec![])
        .node("Gather s zero -> n", vec![int("axis", 0)]);
    net.node("Concat n rest -> target", vec![int("axis", 0)])
        .node("Reshape x target -> y", vec![]);
    let float = net
        .import_dynamic(&["y"], &["N=0:1..8", "H=2:8..64:8"])
        .unwrap();
    let [Op::Reshape { dims }] = ops(&float)[..] else {
        panic!("{:?}", ops(&float))
    };
    assert_eq!(dims[0], ReshapeDim::Input { from: 0, to: 1 });
    assert_eq!(dims[1], ReshapeDim::Input { from: 1, to: 4 });
    let input = &float.network.tensors[float.network.inputs[0].0 as usize];
    assert!(matches!(
        input.dims[..],
        [Dim::Symbol(_), Dim::Fixed(6), Dim::Symbol(_), Dim::Fixed(4)]
    ));
    let h = float
        .network
        .symbols
        .iter()
        .find(|s| s.name == "H")
        .unwrap();
    assert_eq!((h.min, h.max, h.multiple, h.default), (8, 64, 8, 8));
    // The batch alone is fixed at 1, and said so; another open dimension needs a range.
    let mut batch = Net::new(13, &["N", "4"]);
    batch.node("Relu x -> y", vec![]);
    let float = batch.import(&["y"]).unwrap();
    assert!(float.notes[0].contains("fixed at 1"), "{:?}", float.notes);
    assert!(matches!(net.import(&["y"]), Err(Error::Usage(_))));
    assert!(matches!(
        batch.import_dynamic(&["y"], &["M=0"]),
        Err(Error::Usage(_))
    ));
}

#[test]
fn spatial_means_are_pooling() {
    let mut net = Net::new(13, &["1", "3", "4", "4"]);
    net.node(
        "ReduceMean x -> y",
        vec![list("axes", &[-1, 2]), int("keepdims", 0)],
    );
    let float = net.import(&["y"]).unwrap();
    assert!(matches!(
        ops(&float)[..],
        [Op::GlobalPool(PoolKind::Average), Op::Reshape { .. }]
    ));
}

#[test]
fn dead_nodes_and_stale_inputs_disappear() {
    let mut net = Net::new(13, &["1", "4"]);
    net.graph.input.push(ValueInfoProto {
        name: "stale".into(),
        r#type: None,
    });
    net.node("Relu x -> y", vec![])
        .node("Erf x -> unused", vec![])
        .node("Identity y -> z", vec![]);
    let float = net.import(&["z"]).unwrap();
    assert_eq!(float.network.nodes.len(), 1);
    assert_eq!(float.network.inputs.len(), 1);
    assert_eq!(output_name(&float), "z");
}

#[test]
fn outputs_that_share_a_tensor_are_copied() {
    let mut net = Net::new(13, &["1", "4"]);
    net.node("Relu x -> y", vec![])
        .node("Identity y -> z", vec![])
        .node("Identity x -> same", vec![]);
    let float = net.import(&["y", "z", "same"]).unwrap();
    let names: Vec<&str> = float
        .network
        .outputs
        .iter()
        .map(|o| float.network.tensors[o.tensor.0 as usize].name.as_str())
        .collect();
    assert_eq!(names, ["y", "z", "same"]);
    assert_eq!(float.network.nodes.len(), 3);
}

#[test]
fn malformed_models_are_told_from_unsupported_ones() {
    let malformed = |build: &dyn Fn(&mut Net)| {
        let mut net = with_conv(0);
        build(&mut net);
        assert!(
            matches!(net.import(&["y"]), Err(Error::Malformed(_))),
            "{:?}",
            net.import(&["y"]).err()
        );
    };
    malformed(&|n| {
        n.node("Relu nothing -> y", vec![]);
    });
    malformed(&|_| {});
    malformed(&|n| {
        n.node("Relu conv -> conv", vec![])
            .node("Relu conv -> y", vec![]);
    });
    malformed(&|n| {
        n.node("Conv x w b -> y", vec![int("group", 3)]);
    });
    malformed(&|n| {
        n.node("Conv x w b -> y", vec![list("kernel_shape", &[5, 5])]);
    });
    malformed(&|n| {
        n.ints("t", &[7]).node("Reshape conv t -> y", vec![]);
    });
    malformed(&|n| {
        n.graph.initializer[0].float_data.pop();
        n.node("Relu conv -> y", vec![]);
    });
    let mut net = Net::new(22, &["1", "4"]);
    net.node("Relu x -> y", vec![]);
    assert!(matches!(net.import(&["y"]), Err(Error::Unsupported(_))));
}
