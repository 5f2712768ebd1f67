//! Containers for tests and for the generator of the sample files: every operator, every kind of value, every index
//! mode, in a few kilobytes.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use dcz_format::graph::*;
use dcz_format::layer::*;
use dcz_format::pipeline::*;
use dcz_format::writer::*;
use dcz_format::{Container, Error, Limits, MemoryBytes, NamedText, TileDecoder, TileOut};
use std::sync::Arc;

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 24) as f32
    }
    /// Roughly normal, in -1..1.
    pub fn bell(&mut self) -> f32 {
        (0..4).map(|_| self.unit()).sum::<f32>() / 2.0 - 1.0
    }
}

pub fn shape(out: u32, input: u32, kernel: [u32; 2], groups: u32) -> LayerShape {
    LayerShape {
        out_channels: out,
        in_per_group: input,
        kernel,
        groups,
    }
}

/// A layer with random weights; `zeros` is the share of weights that are zero.
pub fn layer(
    name: &str,
    shape: LayerShape,
    k_order: KOrder,
    values: Values,
    index: IndexChoice,
    zeros: f32,
    random: &mut Random,
) -> LayerInput {
    let count = shape.weights() as usize;
    let weights = match &values {
        Values::Raw32 | Values::Raw16 => Weights::F32(
            (0..count)
                .map(|_| {
                    if random.unit() < zeros {
                        0.0
                    } else {
                        random.bell()
                    }
                })
                .collect(),
        ),
        Values::Grid { .. } => {
            let code = |r: &mut Random| (r.bell() * 40.0).round() as i8 as u8;
            let codes = (0..count).map(|_| {
                if random.unit() < zeros {
                    0
                } else {
                    code(random)
                }
            });
            Weights::Codes {
                codes: codes.collect(),
                absent: Vec::new(),
            }
        }
        Values::Codebook { .. } | Values::Minmax { .. } => {
            let number = match &values {
                Values::Codebook { values, .. } => values.len(),
                Values::Minmax { bits, .. } => 1 << bits,
                _ => 0,
            };
            let codes = (0..count)
                .map(|_| ((random.bell() + 1.0) * 0.499_9 * number as f32) as u8)
                .collect();
            Weights::Codes {
                codes,
                absent: (0..count).map(|_| random.unit() < zeros).collect(),
            }
        }
    };
    LayerInput {
        name: name.into(),
        shape,
        k_order,
        values,
        weights,
        index,
        cosine: 0.999,
        max_error: 0.01,
    }
}

pub fn codebook(len: usize, zero_code: Option<u8>) -> Values {
    let values = (0..len).map(|i| match zero_code {
        Some(zero) => (i as f32 - f32::from(zero)) * 0.125,
        None => i as f32 * 0.125 + 0.0625,
    });
    Values::Codebook {
        values: values.collect(),
        zero_code,
    }
}

pub fn minmax(bits: u8, zero_code: Option<u8>) -> Values {
    let delta = 0.03;
    let min = zero_code.map_or(-0.5, |code| -f32::from(code) * delta);
    Values::Minmax {
        min,
        delta,
        bits,
        zero_code,
    }
}

pub fn steps(count: usize) -> Vec<f32> {
    (0..count).map(|i| 0.001 + i as f32 * 0.0001).collect()
}

/// One layer of every kind.
pub fn layers(random: &mut Random) -> Vec<LayerInput> {
    use IndexChoice::{Auto, Dense, Gaps, Mask};
    use KOrder::{ChannelMajor, TapMajor};
    let grid = |steps| Values::Grid { steps };
    let mut layer = |name, shape, order, values, index, zeros| {
        layer(name, shape, order, values, index, zeros, random)
    };
    vec![
        layer(
            "raw32",
            shape(3, 2, [3, 2], 1),
            ChannelMajor,
            Values::Raw32,
            Auto,
            0.2,
        ),
        layer(
            "raw16.depthwise",
            shape(10, 1, [3, 3], 10),
            TapMajor,
            Values::Raw16,
            Auto,
            0.0,
        ),
        layer(
            "grid.dense",
            shape(9, 2, [3, 3], 1),
            ChannelMajor,
            grid(Steps::Layer(0.01)),
            Dense,
            0.3,
        ),
        layer(
            "grid.mask",
            shape(16, 3, [3, 3], 1),
            TapMajor,
            grid(Steps::Channel(steps(16))),
            Mask,
            0.5,
        ),
        layer(
            "grid.block",
            shape(4, 40, [1, 1], 1),
            ChannelMajor,
            grid(Steps::Block {
                len: 16,
                steps: steps(12),
            }),
            Gaps { bits: Some(5) },
            0.7,
        ),
        layer(
            "codebook.spare",
            shape(8, 4, [2, 2], 2),
            ChannelMajor,
            codebook(7, None),
            Mask,
            0.4,
        ),
        layer(
            "codebook.gaps",
            shape(8, 6, [1, 3], 1),
            TapMajor,
            codebook(16, Some(5)),
            Gaps { bits: Some(2) },
            0.8,
        ),
        layer(
            "codebook.full",
            shape(5, 16, [2, 2], 1),
            ChannelMajor,
            codebook(256, None),
            Mask,
            0.5,
        ),
        layer(
            "minmax.zero",
            shape(8, 20, [1, 1], 1),
            ChannelMajor,
            minmax(7, Some(64)),
            Mask,
            0.6,
        ),
        layer(
            "minmax.spare",
            shape(6, 12, [2, 1], 2),
            TapMajor,
            minmax(4, None),
            Gaps { bits: None },
            0.6,
        ),
        layer(
            "minmax.dense",
            shape(8, 5, [2, 2], 1),
            ChannelMajor,
            minmax(5, None),
            Dense,
            0.0,
        ),
        layer(
            "auto",
            shape(11, 7, [3, 3], 1),
            TapMajor,
            grid(Steps::Layer(0.02)),
            Auto,
            0.9,
        ),
    ]
}

/// Every operator, in a chain (shapes are not a matter of the format).
pub fn operators() -> Vec<Op> {
    let pads = Pads::Explicit([1, 0, 1, 2]);
    let conv = |layer, pads| Conv {
        layer: LayerId(layer),
        bias: None,
        strides: [1, 2],
        dilations: [1, 1],
        pads,
    };
    let pool = |kind, pads| Pool {
        kind,
        kernel: [3, 2],
        strides: [2, 2],
        dilations: [1, 2],
        pads,
        ceil_mode: true,
        count_include_pad: false,
    };
    let resize = |mode, coordinates, size| {
        Op::Resize(Resize {
            mode,
            coordinates,
            size,
        })
    };
    let mut ops = vec![
        Op::Conv(Conv {
            bias: Some(ConstId(0)),
            ..conv(0, pads)
        }),
        Op::Conv(conv(1, Pads::SameUpper)),
        Op::Conv(conv(2, Pads::SameLower)),
        Op::Linear {
            layer: LayerId(8),
            bias: Some(ConstId(1)),
        },
        Op::Linear {
            layer: LayerId(4),
            bias: None,
        },
        Op::Prelu { slope: ConstId(2) },
        Op::BinaryConst {
            kind: BinaryKind::Sub,
            constant: ConstId(3),
            constant_first: true,
        },
        Op::Pool(pool(PoolKind::Max, pads)),
        Op::Pool(pool(PoolKind::Average, Pads::SameUpper)),
        Op::GlobalPool(PoolKind::Max),
        Op::GlobalPool(PoolKind::Average),
        Op::Pad {
            amounts: vec![(0, 0), (1, 0), (2, 3), (0, 1)],
            value: f32::NEG_INFINITY,
        },
        Op::Reshape {
            dims: vec![
                ReshapeDim::Input { from: 0, to: 1 },
                ReshapeDim::Fixed(2),
                ReshapeDim::Rest,
            ],
        },
        Op::Transpose {
            perm: vec![0, 2, 1],
        },
        Op::Slice {
            ranges: vec![SliceRange {
                axis: 1,
                start: 3,
                start_from_end: true,
                end: u32::MAX,
                end_from_end: false,
                step: 2,
            }],
        },
        resize(
            ResizeMode::NearestFloor,
            ResizeCoordinates::Asymmetric,
            ResizeSize::Scales([2.0, 2.0]),
        ),
        resize(
            ResizeMode::NearestCeil,
            ResizeCoordinates::HalfPixel,
            ResizeSize::Fixed([4, 4]),
        ),
        resize(
            ResizeMode::NearestPreferFloor,
            ResizeCoordinates::PytorchHalfPixel,
            ResizeSize::Fixed([4, 300]),
        ),
        resize(
            ResizeMode::NearestPreferCeil,
            ResizeCoordinates::AlignCorners,
            ResizeSize::Fixed([4, 4]),
        ),
        resize(
            ResizeMode::Linear,
            ResizeCoordinates::HalfPixel,
            ResizeSize::Scales([1.5, 0.5]),
        ),
        Op::Softmax {
            axis: 1,
            axis_end: 2,
        },
        Op::LpNormalize {
            axis: 1,
            p: 2,
            epsilon: 1e-12,
        },
    ];
    let activations = [
        Activation::Relu,
        Activation::LeakyRelu { alpha: 0.1 },
        Activation::Clip {
            min: 0.0,
            max: f32::INFINITY,
        },
        Activation::Sigmoid,
        Activation::HardSigmoid {
            alpha: 0.2,
            beta: 0.5,
        },
        Activation::HardSwish,
        Activation::Mish,
        Activation::Silu,
        Activation::Tanh,
        Activation::Sqrt,
        Activation::Exp,
    ];
    ops.extend(activations.map(Op::Activation));
    ops.extend(
        [
            BinaryKind::Add,
            BinaryKind::Sub,
            BinaryKind::Mul,
            BinaryKind::Div,
        ]
        .map(Op::Binary),
    );
    ops.push(Op::Concat { axis: 1 });
    ops
}

/// A network that uses everything.
pub fn network(name: &str, seed: u64) -> NetworkInput {
    let mut random = Random(seed);
    let tensor = |name: String, dims: Vec<Dim>| Tensor {
        name,
        dims,
        quant: None,
    };
    let mut tensors = vec![tensor(
        "input".into(),
        vec![
            Dim::Symbol(SymbolId(0)),
            Dim::Fixed(3),
            Dim::Fixed(16),
            Dim::Fixed(16),
        ],
    )];
    let mut nodes = Vec::new();
    for (index, op) in operators().into_iter().enumerate() {
        let inputs = (0..op.arity().0.max(if matches!(op, Op::Concat { .. }) {
            3
        } else {
            1
        }))
            .map(|i| TensorId((tensors.len() - 1).saturating_sub(i) as u32))
            .collect();
        nodes.push(Node {
            name: format!("n{index}"),
            op,
            inputs,
            output: TensorId(tensors.len() as u32),
        });
        tensors.push(tensor(format!("t{index}"), Vec::new()));
    }
    tensors[1].quant = Some(ActivationQuant {
        signed: true,
        axis: Some(1),
        scales: vec![0.5, 0.25],
        zero_points: vec![-128, 3],
    });
    let last = tensors.len() as u32 - 1;
    let constant = |name: &str, dims: &[u32], precision| ConstantInput {
        name: name.into(),
        dims: dims.to_vec(),
        precision,
        values: (0..dims.iter().product::<u32>())
            .map(|i| i as f32 * 0.5 - 1.0)
            .collect(),
    };
    NetworkInput {
        network: Network {
            name: name.into(),
            symbols: vec![Symbol {
                name: "N".into(),
                min: 1,
                max: 64,
                multiple: 1,
                default: 1,
            }],
            tensors,
            nodes,
            inputs: vec![TensorId(0)],
            outputs: vec![
                Output {
                    tensor: TensorId(last),
                    meaning: Meaning::Embedding {
                        metric: Metric::Cosine,
                        threshold: Some(0.4),
                    },
                },
                Output {
                    tensor: TensorId(last - 1),
                    meaning: Meaning::Classes {
                        labels: vec!["cat".into(), "dög".into()],
                    },
                },
                Output {
                    tensor: TensorId(1),
                    meaning: Meaning::Unknown,
                },
            ],
            layers: Vec::new(),
            constants: Vec::new(),
            preprocess: Some(Preprocess {
                size: [112, 96],
                channels: ChannelOrder::Bgr,
                mean: [127.5, 127.5, 127.0],
                scale: [0.007_812_5; 3],
                resize: ResizeRule::Letterbox { fill: 114 },
                filter: Filter::Bilinear,
            }),
            self_test: Some(SelfTest {
                generator: Generator::SplitMix64,
                seed: 0x1234_5678_9abc_def0,
                range: [-1.0, 1.0],
                expected: (1..=3)
                    .map(|n| Expected {
                        len: 10 * n,
                        max_abs: 2.0,
                        norm: 3.5,
                        samples: vec![0.25; n as usize],
                    })
                    .collect(),
            }),
            provenance: Provenance {
                source: "random".into(),
                producer: "tests".into(),
                licence: "MIT OR Apache-2.0".into(),
            },
        },
        layers: layers(&mut random),
        constants: vec![
            constant("bias", &[3], Precision::F32),
            constant("bias of linear", &[8], Precision::F16),
            constant("slope", &[1], Precision::F16),
            constant("operand", &[3, 1, 1], Precision::F32),
        ],
    }
}

/// The smallest network there is: one input, one linear layer.
pub fn small(name: &str, layer: LayerInput) -> NetworkInput {
    let tensor = |name: &str, dims: &[u32]| Tensor {
        name: name.into(),
        dims: dims.iter().map(|dim| Dim::Fixed(*dim)).collect(),
        quant: None,
    };
    NetworkInput {
        network: Network {
            name: name.into(),
            tensors: vec![
                tensor("x", &[1, layer.shape.in_per_group]),
                tensor("y", &[]),
            ],
            nodes: vec![Node {
                name: "n".into(),
                op: Op::Linear {
                    layer: LayerId(0),
                    bias: None,
                },
                inputs: vec![TensorId(0)],
                output: TensorId(1),
            }],
            inputs: vec![TensorId(0)],
            outputs: vec![Output {
                tensor: TensorId(1),
                meaning: Meaning::Unknown,
            }],
            ..Network::default()
        },
        layers: vec![layer],
        constants: Vec::new(),
    }
}

/// A network whose only layer is pruned in blocks of four: every other block is empty.
pub fn blocks() -> NetworkInput {
    let mut random = Random(31);
    let shape = shape(32, 40, [1, 1], 1);
    let values = Values::Grid {
        steps: Steps::Layer(0.5),
    };
    let index = IndexChoice::Auto;
    let mut input = layer(
        "fc",
        shape,
        KOrder::ChannelMajor,
        values,
        index,
        0.0,
        &mut random,
    );
    if let Weights::Codes { codes, .. } = &mut input.weights {
        for (at, code) in codes.iter_mut().enumerate() {
            let (channel, k) = (at / 40, at % 40);
            *code = if (channel / 4 + k) % 2 == 0 {
                0
            } else {
                *code | 1
            };
        }
    }
    small("blocks", input)
}

pub fn options() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.tile_weights = 128;
    options.texts = vec![NamedText {
        name: "LICENSE".into(),
        text: "Do what you like.".into(),
    }];
    options
}

pub fn encoded(networks: Vec<NetworkInput>, options: &WriteOptions) -> Encoded {
    encode(networks, options, &mut |_, _| {}).unwrap()
}

pub fn write(networks: Vec<NetworkInput>, options: &WriteOptions) -> Vec<u8> {
    encoded(networks, options).to_bytes().unwrap()
}

/// Networks 0 and 1 as detector and embedder.
pub fn pipeline() -> Pipeline {
    let pixels = |channels| Pixels {
        channels,
        mean: [1.0, 2.0, 3.0],
        scale: [0.5, 1.0, 0.25],
    };
    Pipeline {
        detect: Detect {
            network: 0,
            pixels: pixels(ChannelOrder::Bgr),
            size: InputSize::LongestSide(640),
            multiple: 32,
            strides: vec![8, 16, 32],
            score: 0.75,
            nms: 0.25,
            max_faces: 1000,
        },
        align: Align {
            size: [112, 96],
            template: [
                [30.0, 50.0],
                [70.5, 51.0],
                [50.0, 70.0],
                [35.0, 90.0],
                [65.0, 91.0],
            ],
            weights: [1.0; 5],
        },
        embed: Embed {
            network: 1,
            pixels: pixels(ChannelOrder::Rgb),
        },
        compare: Compare {
            metric: Metric::Euclidean,
            threshold: Some(0.625),
            fpr: Some(0.001),
        },
    }
}

/// Two networks with everything.
pub fn sample() -> Vec<u8> {
    write(vec![network("first", 1), network("second", 2)], &options())
}

pub fn open(bytes: &[u8]) -> Result<Container, Error> {
    Container::open(Arc::new(MemoryBytes::new(bytes)), &Limits::default())
}

/// What a layer's weights must decode to, OIHW.
pub fn expected(layer: &LayerInput) -> Vec<f32> {
    match (&layer.values, &layer.weights) {
        (Values::Raw32, Weights::F32(values)) => values.clone(),
        (_, Weights::F32(values)) => values
            .iter()
            .map(|v| half::f16::from_f32(*v).to_f32())
            .collect(),
        (values, Weights::Codes { codes, absent }) => {
            let k = layer.shape.k();
            let value = |(i, code): (usize, &u8)| {
                if absent.get(i).is_some_and(|absent| *absent) {
                    return 0.0;
                }
                let q = f32::from(*code as i8);
                match values {
                    Values::Raw32 | Values::Raw16 => unreachable!(),
                    Values::Codebook { values, .. } => values[usize::from(*code)],
                    Values::Minmax { zero_code, .. } if *zero_code == Some(*code) => 0.0,
                    Values::Minmax { min, delta, .. } => min + f32::from(*code) * delta,
                    Values::Grid {
                        steps: Steps::Layer(step),
                    } => q * step,
                    Values::Grid {
                        steps: Steps::Channel(steps),
                    } => q * steps[i / k],
                    Values::Grid {
                        steps: Steps::Block { len, steps },
                    } => {
                        let blocks = k.div_ceil(*len as usize);
                        // blocks count k in the layer's own order
                        let inner = i % k;
                        let taps = (layer.shape.kernel[0] * layer.shape.kernel[1]) as usize;
                        let in_order = match layer.k_order {
                            KOrder::ChannelMajor => inner,
                            KOrder::TapMajor => {
                                (inner % taps) * layer.shape.in_per_group as usize + inner / taps
                            }
                        };
                        q * steps[(i / k) * blocks + in_order / *len as usize]
                    }
                }
            };
            codes.iter().enumerate().map(value).collect()
        }
    }
}

/// Everything that can be read from a container the lazy way: records, constants, weights.
pub fn read_lazily(container: &Container) -> Result<(Vec<Network>, Vec<u32>), Error> {
    let mut bits = Vec::new();
    for (net, network) in container.networks().iter().enumerate() {
        for (id, constant) in network.constants.iter().enumerate() {
            let mut values = vec![0.0; constant.value_count().unwrap()];
            container.constant(net, ConstId(id as u32), &mut values)?;
            bits.extend(values.iter().map(|v| v.to_bits()));
        }
        let mut decoder = TileDecoder::new(container, net)?;
        let mut keeping = TileDecoder::keeping_tables(container, net)?;
        for (id, layer) in network.layers.iter().enumerate() {
            let id = LayerId(id as u32);
            for (index, tile) in layer.tiles.iter().enumerate() {
                let mut values = vec![0.0; tile.weights()];
                let mut again = values.clone();
                decoder.decode(container, net, id, index, TileOut::F32(&mut values))?;
                keeping.decode(container, net, id, index, TileOut::F32(&mut again))?;
                assert!(
                    values
                        .iter()
                        .map(|v| v.to_bits())
                        .eq(again.iter().map(|v| v.to_bits()))
                );
                bits.extend(values.iter().map(|v| v.to_bits()));
            }
        }
    }
    Ok((container.networks().to_vec(), bits))
}

/// What a file decodes to, in a few words: networks, layers, and a 64-bit FNV-1a hash of the bits of all constants and
/// weights.
pub fn digest(bytes: &[u8]) -> String {
    let container = open(bytes).unwrap();
    let (networks, bits) = read_lazily(&container).unwrap();
    let bytes = bits.iter().flat_map(|bits| bits.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let layers: usize = networks.iter().map(|network| network.layers.len()).sum();
    format!(
        "{} networks, {layers} layers, {} values, {hash:016x}",
        networks.len(),
        bits.len()
    )
}
