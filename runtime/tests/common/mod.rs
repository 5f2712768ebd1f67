//! Builds small networks in memory and compares sessions with the f64 oracle.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use dcz::graph::*;
use dcz::oracle::{self, Array, ContainerWeights};
use dcz::{Model, Session, SessionOptions, TensorRef, Threads};
use dcz_format::layer::{KOrder, LayerShape, Steps, Values};
use dcz_format::writer::{
    ConstantInput, IndexChoice, LayerInput, NetworkInput, Weights, WriteOptions, encode,
};

/// How the weights of a test layer are coded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Coding {
    Raw32,
    Raw16,
    GridLayer,
    GridChannel,
    GridBlock,
    Codebook,
    Minmax,
    /// Grid with one weight in eight.
    Sparse,
}

pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((self.0 >> 40) as f32) / (1u32 << 23) as f32 - 1.0
    }
    pub fn list(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next()).collect()
    }
}

pub struct Net {
    pub network: Network,
    pub layers: Vec<LayerInput>,
    pub constants: Vec<ConstantInput>,
    pub coding: Coding,
    pub k_order: KOrder,
    pub tile_weights: usize,
    pub rng: Rng,
}

impl Net {
    pub fn new(name: &str) -> Net {
        Net {
            network: Network {
                name: name.into(),
                ..Network::default()
            },
            layers: Vec::new(),
            constants: Vec::new(),
            coding: Coding::Raw32,
            k_order: KOrder::ChannelMajor,
            tile_weights: 65536,
            rng: Rng(1),
        }
    }

    fn tensor(&mut self, name: String, dims: Vec<Dim>) -> TensorId {
        self.network.tensors.push(Tensor {
            name,
            dims,
            quant: None,
        });
        TensorId(self.network.tensors.len() as u32 - 1)
    }

    pub fn input(&mut self, dims: &[u32]) -> TensorId {
        let dims = dims.iter().map(|&d| Dim::Fixed(d)).collect();
        self.input_dims(dims)
    }

    /// Dimensions with a symbolic batch.
    pub fn batch_input(&mut self, rest: &[u32]) -> TensorId {
        let symbol = self.symbol("N", 1, 16, 1, 1);
        let dims = [Dim::Symbol(symbol)].into_iter();
        self.input_dims(dims.chain(rest.iter().map(|&d| Dim::Fixed(d))).collect())
    }

    pub fn symbol(
        &mut self,
        name: &str,
        min: u32,
        max: u32,
        multiple: u32,
        default: u32,
    ) -> SymbolId {
        self.network.symbols.push(Symbol {
            name: name.into(),
            min,
            max,
            multiple,
            default,
        });
        SymbolId(self.network.symbols.len() as u32 - 1)
    }

    pub fn input_dims(&mut self, dims: Vec<Dim>) -> TensorId {
        let id = self.tensor(format!("in{}", self.network.inputs.len()), dims);
        self.network.inputs.push(id);
        id
    }

    pub fn node(&mut self, op: Op, inputs: &[TensorId]) -> TensorId {
        let index = self.network.nodes.len();
        let output = self.tensor(format!("t{index}"), Vec::new());
        self.network.nodes.push(Node {
            name: format!("n{index}"),
            op,
            inputs: inputs.to_vec(),
            output,
        });
        output
    }

    pub fn output(&mut self, tensor: TensorId) {
        self.network.outputs.push(Output {
            tensor,
            meaning: Meaning::Unknown,
        });
    }

    pub fn constant(&mut self, dims: &[u32]) -> ConstId {
        let n = dims.iter().product::<u32>() as usize;
        let values = self.rng.list(n);
        self.constant_values(dims, values)
    }

    pub fn constant_values(&mut self, dims: &[u32], values: Vec<f32>) -> ConstId {
        let name = format!("c{}", self.constants.len());
        let dims = dims.to_vec();
        self.constants.push(ConstantInput {
            name,
            dims,
            precision: Precision::F32,
            values,
        });
        ConstId(self.constants.len() as u32 - 1)
    }

    pub fn layer(&mut self, out: u32, in_per_group: u32, kernel: [u32; 2], groups: u32) -> LayerId {
        let shape = LayerShape {
            out_channels: out,
            in_per_group,
            kernel,
            groups,
        };
        let (n, k) = (shape.weights() as usize, shape.k());
        let rng = &mut self.rng;
        let scale = 1.5 / (k as f32).sqrt();
        let coded = |rng: &mut Rng, levels: i32, density: f32| {
            let codes: Vec<i32> = (0..n)
                .map(|_| {
                    let q = (rng.next() * levels as f32) as i32;
                    if rng.next() > 2.0 * density - 1.0 {
                        0
                    } else {
                        q
                    }
                })
                .collect();
            codes
        };
        let signed = |codes: Vec<i32>| {
            let absent = codes.iter().map(|&q| q == 0).collect();
            Weights::Codes {
                codes: codes.into_iter().map(|q| q as i8 as u8).collect(),
                absent,
            }
        };
        let positive = |rng: &mut Rng| rng.next().abs() * scale / 50.0 + 1e-3;
        let (values, weights) = match self.coding {
            Coding::Raw32 | Coding::Raw16 => {
                let values = rng.list(n).into_iter().map(|v| v * scale).collect();
                let kind = if self.coding == Coding::Raw32 {
                    Values::Raw32
                } else {
                    Values::Raw16
                };
                (kind, Weights::F32(values))
            }
            Coding::GridLayer => {
                let steps = Steps::Layer(scale / 40.0);
                (Values::Grid { steps }, signed(coded(rng, 60, 0.6)))
            }
            Coding::Sparse => {
                let steps = Steps::Layer(scale / 40.0);
                (Values::Grid { steps }, signed(coded(rng, 60, 0.12)))
            }
            Coding::GridChannel => {
                let steps = Steps::Channel((0..out).map(|_| positive(rng)).collect());
                (Values::Grid { steps }, signed(coded(rng, 60, 0.6)))
            }
            Coding::GridBlock => {
                let blocks = k.div_ceil(5);
                let steps = (0..out as usize * blocks).map(|_| positive(rng)).collect();
                (
                    Values::Grid {
                        steps: Steps::Block { len: 5, steps },
                    },
                    signed(coded(rng, 60, 0.6)),
                )
            }
            Coding::Codebook => {
                let values: Vec<f32> = (0..31)
                    .map(|i| {
                        if i == 7 {
                            0.0
                        } else {
                            (i - 15) as f32 * scale / 15.0 + 0.001
                        }
                    })
                    .collect();
                let codes = (0..n)
                    .map(|_| ((rng.next() + 1.0) * 15.4) as u8)
                    .collect::<Vec<u8>>();
                let absent = codes.iter().map(|&c| c == 7).collect();
                (
                    Values::Codebook {
                        values,
                        zero_code: Some(7),
                    },
                    Weights::Codes { codes, absent },
                )
            }
            Coding::Minmax => {
                let codes: Vec<u8> = (0..n).map(|_| ((rng.next() + 1.0) * 15.9) as u8).collect();
                let absent = (0..n).map(|i| i % 3 == 0).collect();
                let (min, delta) = (-scale, 2.0 * scale / 31.0);
                let values = Values::Minmax {
                    min,
                    delta,
                    bits: 5,
                    zero_code: None,
                };
                (values, Weights::Codes { codes, absent })
            }
        };
        self.layers.push(LayerInput {
            name: format!("l{}", self.layers.len()),
            shape,
            k_order: self.k_order,
            values,
            weights,
            index: IndexChoice::Auto,
            cosine: 1.0,
            max_error: 0.0,
        });
        LayerId(self.layers.len() as u32 - 1)
    }

    /// A convolution of `x` with `c` channels.
    pub fn conv(
        &mut self,
        x: TensorId,
        c: u32,
        out: u32,
        k: u32,
        stride: u32,
        groups: u32,
    ) -> TensorId {
        let layer = self.layer(out, c / groups, [k; 2], groups);
        let bias = Some(self.constant(&[out]));
        let pads = Pads::Explicit([k / 2; 4]);
        let conv = Conv {
            layer,
            bias,
            strides: [stride; 2],
            dilations: [1; 2],
            pads,
        };
        self.node(Op::Conv(conv), &[x])
    }

    pub fn relu(&mut self, x: TensorId) -> TensorId {
        self.node(Op::Activation(Activation::Relu), &[x])
    }

    pub fn add(&mut self, a: TensorId, b: TensorId) -> TensorId {
        self.node(Op::Binary(BinaryKind::Add), &[a, b])
    }

    pub fn linear(&mut self, x: TensorId, inputs: u32, outputs: u32) -> TensorId {
        let layer = self.layer(outputs, inputs, [1, 1], 1);
        let bias = Some(self.constant(&[outputs]));
        self.node(Op::Linear { layer, bias }, &[x])
    }

    pub fn flatten(&mut self, x: TensorId) -> TensorId {
        let dims = vec![ReshapeDim::Input { from: 0, to: 1 }, ReshapeDim::Rest];
        self.node(Op::Reshape { dims }, &[x])
    }

    pub fn bytes(self) -> Vec<u8> {
        let mut options = WriteOptions::default();
        options.tile_weights = self.tile_weights;
        let input = NetworkInput {
            network: self.network,
            layers: self.layers,
            constants: self.constants,
        };
        encode(vec![input], &options, &mut |_, _| {})
            .unwrap()
            .to_bytes()
            .unwrap()
    }

    pub fn model(self) -> Model {
        Model::from_bytes(self.bytes()).unwrap()
    }
}

/// Outputs of a session, in network order.
pub fn run(session: &mut Session, inputs: &[(Vec<usize>, Vec<f32>)]) -> Vec<Vec<f32>> {
    let network = session.network().clone();
    let name = |id: TensorId| network.tensors[id.0 as usize].name.as_str();
    let shapes: Vec<(&str, &[usize])> = network
        .inputs
        .iter()
        .zip(inputs)
        .map(|(id, (d, _))| (name(*id), d.as_slice()))
        .collect();
    let plan = session.prepare(&shapes).unwrap();
    let mut results: Vec<Vec<f32>> = plan
        .outputs
        .iter()
        .map(|(_, d)| vec![f32::NAN; d.iter().product()])
        .collect();
    let tensors: Vec<(&str, TensorRef<'_>)> = (network.inputs.iter().zip(inputs))
        .map(|(id, (dims, data))| (name(*id), TensorRef { dims, data }))
        .collect();
    let mut outputs: Vec<(&str, &mut [f32])> = (network.outputs.iter().zip(&mut results))
        .map(|(o, r)| (name(o.tensor), r.as_mut_slice()))
        .collect();
    session.run(&tensors, &mut outputs).unwrap();
    results
}

pub fn session(model: &Model, threads: Threads) -> Session {
    Session::new(model, SessionOptions::default().with_threads(threads)).unwrap()
}

pub fn oracle_outputs(model: &Model, inputs: &[(Vec<usize>, Vec<f32>)]) -> Vec<Vec<f64>> {
    let network = &model.networks()[0];
    let arrays: Vec<Array> = inputs
        .iter()
        .map(|(dims, data)| Array {
            dims: dims.clone(),
            values: data.iter().map(|&v| f64::from(v)).collect(),
        })
        .collect();
    let mut weights = ContainerWeights::new(model.container(), 0);
    let kept = oracle::run(network, &arrays, &mut weights, &|_| false, &mut |_, _| {}).unwrap();
    network
        .outputs
        .iter()
        .map(|o| kept[&o.tensor].values.clone())
        .collect()
}

/// Largest difference relative to the largest magnitude.
pub fn error(got: &[f32], wanted: &[f64]) -> f64 {
    assert_eq!(got.len(), wanted.len());
    let unit = wanted.iter().fold(1e-30, |m: f64, v| m.max(v.abs()));
    got.iter()
        .zip(wanted)
        .map(|(&g, &w)| (f64::from(g) - w).abs() / unit)
        .fold(0.0, |a, b| if b <= a { a } else { b })
}

pub fn noise(seed: u64, dims: &[usize]) -> (Vec<usize>, Vec<f32>) {
    (dims.to_vec(), Rng(seed).list(dims.iter().product()))
}

/// Compares with the oracle on 1, 2 and 3 threads and for a rerun; results must have equal bits.
pub fn check(name: &str, model: &Model, inputs: &[(Vec<usize>, Vec<f32>)]) -> Vec<Vec<f32>> {
    let wanted = oracle_outputs(model, inputs);
    let mut first: Option<Vec<Vec<f32>>> = None;
    for threads in [Threads::Inline, Threads::Own(2), Threads::Own(3)] {
        let mut session = session(model, threads.clone());
        for _ in 0..2 {
            let got = run(&mut session, inputs);
            for (g, w) in got.iter().zip(&wanted) {
                let e = error(g, w);
                assert!(
                    e < 1e-5,
                    "{name}, {threads:?}: error {e}\n{}",
                    plan_text(&mut session, inputs)
                );
            }
            match &first {
                Some(f) => assert_eq!(f, &got, "{name}, {threads:?}: bits differ"),
                None => first = Some(got),
            }
        }
    }
    first.unwrap()
}

fn plan_text(session: &mut Session, inputs: &[(Vec<usize>, Vec<f32>)]) -> String {
    let network = session.network().clone();
    let shapes: Vec<(&str, &[usize])> = (network.inputs.iter().zip(inputs))
        .map(|(id, (d, _))| (network.tensors[id.0 as usize].name.as_str(), d.as_slice()))
        .collect();
    session.prepare(&shapes).unwrap().to_string()
}
