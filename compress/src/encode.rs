//! From a float network to a coded container: prune, quantise, encode, self-test.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use dcz::Model;
use dcz::oracle::{Array, ContainerWeights};
use dcz::shape;
use dcz_format::graph::{
    Expected, Generator, Network, Op, Precision, ResizeRule, SelfTest, TensorId,
};
use dcz_format::layer::{KOrder, Steps, Values};
use dcz_format::selftest::{generate, sample_positions, samples_per_output};
use dcz_format::writer::{
    ConstantInput, Encoded, IndexChoice, LayerInput, NetworkInput, Weights, WriteOptions, encode,
};
use dcz_format::{Container, Limits, MemoryBytes, NamedText};
use half::f16;
use rayon::prelude::*;

use crate::defaults::{self, DefaultGrid, MINMAX_BITS, Role};
use crate::error::Error;
use crate::import::{FloatConstant, FloatLayer, FloatNetwork};
use crate::preprocess::Description;
use crate::prune;
use crate::quantize::{self, Quantised};
use crate::settings::{AllSettings, IndexSetting, Prune, Quantize, Settings};

/// Seed of the generated self-test input.
const SELF_TEST_SEED: u64 = 0x0dc2_2019;

/// Options of [`compress`].
#[derive(Clone, Debug, Default)]
pub struct CompressOptions {
    /// What to do with each layer.
    pub settings: AllSettings,
    /// Preprocessing, meaning of the outputs, origin.
    pub description: Description,
}

/// Parts of the work, for progress displays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Pruning and quantising layers.
    Quantise,
    /// Coding layers.
    Encode,
    /// Running the network in f64 for the self-test.
    SelfTest,
}

/// Called with a stage, steps done and steps in all.
pub type Progress<'a> = dyn FnMut(Stage, usize, usize) + 'a;

/// Prunes, quantises and encodes a network and gives it a self-test.
///
/// Errors: [`Error::Usage`] for settings of layers that do not exist or contradict each other, [`Error::Malformed`] for
/// weights that are not finite.
pub fn compress(
    float: FloatNetwork,
    options: &CompressOptions,
    progress: &mut Progress,
) -> Result<Encoded, Error> {
    compress_ready(float, options, &BTreeMap::new(), progress)
}

/// Weights of a layer that pruning and training are done with.
#[derive(Clone, Debug, PartialEq)]
pub struct Ready {
    /// OIHW.
    pub weights: Vec<f32>,
    /// The grid on which every weight lies; without it they are quantised as the settings say.
    pub steps: Option<Steps>,
}

/// [`compress`] for a network some of whose layers, by name, have new weights: these are not pruned again, and where they
/// lie on a grid only coded.
///
/// Errors: as [`compress`].
pub fn compress_ready(
    float: FloatNetwork,
    options: &CompressOptions,
    ready: &BTreeMap<String, Ready>,
    progress: &mut Progress,
) -> Result<Encoded, Error> {
    let (network, layers, constants) = quantised(float, options, ready, progress)?;
    finish(network, layers, constants, options, progress)
}

/// Bytes of the file that [`compress_ready`] would make, but for its self-test.
///
/// Errors: as [`compress`].
pub fn coded_bytes(
    float: FloatNetwork,
    options: &CompressOptions,
    ready: &BTreeMap<String, Ready>,
) -> Result<u64, Error> {
    let quiet = &mut |_, _, _| ();
    let (network, layers, constants) = quantised(float, options, ready, quiet)?;
    let (encoded, _) = written(network, layers, constants, options, quiet)?;
    Ok(encoded.to_bytes()?.len() as u64)
}

fn quantised(
    float: FloatNetwork,
    options: &CompressOptions,
    ready: &BTreeMap<String, Ready>,
    progress: &mut Progress,
) -> Result<(Network, Vec<LayerInput>, Vec<FloatConstant>), Error> {
    let FloatNetwork {
        mut network,
        layers,
        constants,
        ..
    } = float;
    options
        .settings
        .check_names(layers.iter().map(|l| l.name.as_str()))?;
    options.description.apply(&mut network)?;
    network.provenance.producer = concat!("dcz-compress ", env!("CARGO_PKG_VERSION")).into();
    let roles = roles(&network, &layers);
    let total = layers.len();
    progress(Stage::Quantise, 0, total);
    let mut inputs = Vec::with_capacity(total);
    let plan = defaults::plan(&layers, &roles);
    let mut layers = layers.into_iter().zip(roles.into_iter().zip(plan));
    // A few at a time: weights of the layers behind are freed while those ahead are still float.
    loop {
        let batch: Vec<_> = layers
            .by_ref()
            .take(rayon::current_num_threads().max(1))
            .collect();
        if batch.is_empty() {
            break;
        }
        let coded: Vec<_> = batch
            .into_par_iter()
            .map(|(layer, (role, default))| {
                let ready = ready.get(&layer.name);
                quantise_layer(layer, role, default, &options.settings, ready)
            })
            .collect::<Result<_, Error>>()?;
        inputs.extend(coded);
        progress(Stage::Quantise, inputs.len(), total);
    }
    Ok((network, inputs, constants))
}

/// Encodes layers that are quantised already and gives the network a self-test.
///
/// Errors: as [`compress`]; the description has been applied to the network.
pub fn finish(
    network: Network,
    layers: Vec<LayerInput>,
    constants: Vec<FloatConstant>,
    options: &CompressOptions,
    progress: &mut Progress,
) -> Result<Encoded, Error> {
    let (mut encoded, range) = written(network, layers, constants, options, progress)?;
    let test = self_test(&encoded, range, progress)?;
    encoded.set_self_test(0, test)?;
    Ok(encoded)
}

/// Without a self-test, and the range of inputs for one.
fn written(
    network: Network,
    layers: Vec<LayerInput>,
    constants: Vec<FloatConstant>,
    options: &CompressOptions,
    progress: &mut Progress,
) -> Result<(Encoded, [f32; 2]), Error> {
    let exact = options.settings.general.quantize == Some(Quantize::None);
    let constants = constants
        .into_iter()
        .map(|c| store_constant(c, exact))
        .collect::<Result<Vec<_>, Error>>()?;
    let range = input_range(&network, &constants);
    let mut write = WriteOptions::default();
    write.texts = options
        .description
        .licence_text()
        .map(|text| NamedText {
            name: "LICENSE".into(),
            text: text.into(),
        })
        .into_iter()
        .collect();
    let input = NetworkInput {
        network,
        layers,
        constants,
    };
    let encoded = encode(vec![input], &write, &mut |done, total| {
        progress(Stage::Encode, done, total)
    })?;
    Ok((encoded, range))
}

/// A network with its weights as they are, in memory, to be run; it has no self-test.
///
/// Errors: [`Error::Malformed`] for weights that are not finite, [`Error::Input`] for a description that does not fit.
pub fn float_model(float: FloatNetwork, description: &Description) -> Result<Model, Error> {
    let mut network = float.network;
    description.apply(&mut network)?;
    let layers = float.layers.into_iter().map(raw_layer).collect();
    let constants = float
        .constants
        .into_iter()
        .map(|c| store_constant(c, true))
        .collect::<Result<Vec<_>, Error>>()?;
    let input = NetworkInput {
        network,
        layers,
        constants,
    };
    let encoded = encode(vec![input], &WriteOptions::default(), &mut |_, _| {})?;
    Ok(Model::from_bytes(encoded.to_bytes()?)?)
}

/// A layer with its weights as they are.
pub(crate) fn raw_layer(layer: FloatLayer) -> LayerInput {
    LayerInput {
        name: layer.name,
        shape: layer.shape,
        k_order: KOrder::ChannelMajor,
        values: Values::Raw32,
        weights: Weights::F32(layer.weights),
        index: IndexChoice::Auto,
        cosine: 1.0,
        max_error: 0.0,
    }
}

/// What every layer is to the network.
pub fn roles(network: &Network, layers: &[FloatLayer]) -> Vec<Role> {
    // Tensors computed from a graph input without passing a layer.
    let mut early: HashSet<TensorId> = network.inputs.iter().copied().collect();
    let mut roles = vec![Role::Convolution; layers.len()];
    let mut last_linear = None;
    for node in &network.nodes {
        let from_input = node.inputs.iter().any(|t| early.contains(t));
        let Some(id) = node.op.layer() else {
            if from_input {
                early.insert(node.output);
            }
            continue;
        };
        let index = id.0 as usize;
        let (Some(role), Some(layer)) = (roles.get_mut(index), layers.get(index)) else {
            continue;
        };
        *role = match node.op {
            _ if from_input => Role::First,
            Op::Linear { .. } => Role::Linear,
            _ if layer.shape.is_depthwise() => Role::Depthwise,
            _ => Role::Convolution,
        };
        if *role == Role::Linear {
            last_linear = Some(index);
        }
    }
    if let Some(role) = last_linear.and_then(|index| roles.get_mut(index)) {
        *role = Role::LastLinear;
    }
    roles
}

/// Prunes and quantises a layer as the settings say, or codes weights that are ready.
pub(crate) fn quantise_layer(
    layer: FloatLayer,
    role: Role,
    default: DefaultGrid,
    all: &AllSettings,
    ready: Option<&Ready>,
) -> Result<LayerInput, Error> {
    quantise_with_weights(layer, role, default, all, ready).map(|(input, _)| input)
}

/// [`quantise_layer`], and the weights that the codes stand for.
pub(crate) fn quantise_with_weights(
    layer: FloatLayer,
    role: Role,
    default: DefaultGrid,
    all: &AllSettings,
    ready: Option<&Ready>,
) -> Result<(LayerInput, Vec<f32>), Error> {
    let settings = all.of(&layer.name);
    settings
        .check()
        .map_err(|e| Error::Usage(format!("layer '{}': {e}", layer.name)))?;
    if let Some(position) = layer.weights.iter().position(|w| !w.is_finite()) {
        return Err(Error::Malformed(format!(
            "layer '{}': weight {position} is {}",
            layer.name, layer.weights[position]
        )));
    }
    let own = all.layers.get(&layer.name).copied().unwrap_or_default();
    if own.step.is_some() && settings.quantize == Some(Quantize::Minmax) {
        return Err(Error::Usage(format!(
            "layer '{}': step belongs to quantize=grid",
            layer.name
        )));
    }
    let quantised = match ready {
        Some(Ready {
            weights,
            steps: Some(steps),
        }) => quantize::grid(weights, &layer.shape, steps.clone(), 0.0, 127),
        Some(Ready {
            weights,
            steps: None,
        }) => quantise(&layer, weights.clone(), role, default, settings)?,
        None => {
            let mut weights = layer.weights.clone();
            let prune = settings.prune.unwrap_or_default();
            let prune = by_role(prune, role, own.prune.is_some());
            let block = settings.prune_block.unwrap_or(1);
            prune::prune_layer(&mut weights, &layer.shape, prune, block);
            quantise(&layer, weights, role, default, settings)?
        }
    };
    let input = LayerInput {
        cosine: quantize::cosine(&layer.weights, &quantised.decoded),
        max_error: quantize::largest_difference(&layer.weights, &quantised.decoded),
        name: layer.name,
        shape: layer.shape,
        k_order: KOrder::ChannelMajor,
        values: quantised.values,
        weights: quantised.weights,
        index: settings
            .index
            .map_or(IndexChoice::Auto, |IndexSetting(choice)| choice),
    };
    Ok((input, quantised.decoded))
}

/// A general sensitivity spares the first layer and is doubled for the last linear one, as in the contest entry.
pub(crate) fn by_role(prune: Prune, role: Role, own: bool) -> Prune {
    match (prune, role) {
        (Prune::Sensitivity(_), Role::First) if !own => Prune::None,
        (Prune::Sensitivity(s), Role::LastLinear) if !own => Prune::Sensitivity(2.0 * s),
        _ => prune,
    }
}

fn quantise(
    layer: &FloatLayer,
    weights: Vec<f32>,
    role: Role,
    default: DefaultGrid,
    settings: Settings,
) -> Result<Quantised, Error> {
    let wrong = |why: &str| Error::Usage(format!("layer '{}': {why}", layer.name));
    match settings.quantize {
        Some(Quantize::None) => Ok(quantize::raw(weights)),
        Some(Quantize::Minmax) => Ok(quantize::minmax(
            &weights,
            settings.bits.unwrap_or(MINMAX_BITS),
        )),
        Some(Quantize::Grid) => Ok(grid(layer, &weights, role, default, settings)),
        Some(Quantize::Codebook) => quantize::codebook(&weights)
            .ok_or_else(|| wrong("more than 256 distinct values, quantize=codebook is for fewer")),
        None => match quantize::distinct(&weights) {
            // Few distinct values: bit-exact, in the smaller of the two exact forms.
            Some(counts) if quantize::codebook_bytes(&counts) < 4.0 * weights.len() as f64 => {
                quantize::codebook(&weights).ok_or_else(|| wrong("codebook"))
            }
            Some(_) => Ok(quantize::raw(weights)),
            None => Ok(grid(layer, &weights, role, default, settings)),
        },
    }
}

fn grid(
    layer: &FloatLayer,
    weights: &[f32],
    role: Role,
    default: DefaultGrid,
    settings: Settings,
) -> Quantised {
    let levels = |bits: u8| ((1u16 << (bits - 1)) - 1).max(1) as u8;
    let limit = settings.bits.map_or(127, levels);
    let scaled = |c: f64| {
        quantize::fitted_grid(
            weights,
            &layer.shape,
            defaults::scaled_step(weights, c),
            quantize::dead_zone(c),
            limit,
        )
    };
    let per_channel = || {
        quantize::grid(
            weights,
            &layer.shape,
            defaults::channel_steps(layer, weights, f32::from(limit)),
            0.0,
            limit,
        )
    };
    match (settings.step, settings.bits, default) {
        (Some(step), ..) => scaled(f64::from(step)),
        (None, Some(_), _) if role == Role::Depthwise || role == Role::First => per_channel(),
        (None, Some(_), _) => quantize::grid(
            weights,
            &layer.shape,
            Steps::Layer(defaults::ranged_step(weights, f32::from(limit))),
            0.0,
            limit,
        ),
        (None, None, DefaultGrid::Scaled(c)) => scaled(c),
        (None, None, DefaultGrid::PerChannel) => per_channel(),
    }
}

/// Stores a constant as f16 where that is accurate, else as f32.
pub(crate) fn store_constant(constant: FloatConstant, exact: bool) -> Result<ConstantInput, Error> {
    if let Some(value) = constant.values.iter().find(|v| !v.is_finite()) {
        return Err(Error::Malformed(format!(
            "constant '{}' holds {value}",
            constant.name
        )));
    }
    let precision = if !exact && f16_is_enough(&constant.values) {
        Precision::F16
    } else {
        Precision::F32
    };
    Ok(ConstantInput {
        name: constant.name,
        dims: constant.dims.iter().map(|&d| d as u32).collect(),
        precision,
        values: constant.values,
    })
}

/// Every value is kept to 2^-11 of itself, or to 2^-20 of the largest (tiny values beside normal ones).
fn f16_is_enough(values: &[f32]) -> bool {
    let largest = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    values.iter().all(|&v| {
        let stored = f16::from_f32(v).to_f32();
        let error = (stored - v).abs();
        stored.is_finite() && (error <= v.abs() / 2048.0 || error <= largest / 1_048_576.0)
    })
}

/// The range of values a network expects: from its preprocessing, else guessed from a scaling at its head.
fn input_range(network: &Network, constants: &[ConstantInput]) -> [f32; 2] {
    if let Some(p) = &network.preprocess {
        let fill = match p.resize {
            ResizeRule::Letterbox { fill } => f32::from(fill),
            _ => 0.0,
        };
        let ends: Vec<f32> = p
            .mean
            .iter()
            .zip(&p.scale)
            .flat_map(|(m, s)| [(0.0 - m) * s, (255.0 - m) * s, (fill - m) * s])
            .collect();
        return [
            ends.iter().copied().fold(f32::INFINITY, f32::min),
            ends.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        ];
    }
    // A subtraction of about 127 or a factor of about 1/255 at the head wants 0..255.
    let wants_pixels = network
        .nodes
        .iter()
        .take_while(|n| matches!(n.op, Op::BinaryConst { .. }))
        .any(|node| match &node.op {
            Op::BinaryConst { kind, constant, .. } => {
                let Some(values) = constants.get(constant.0 as usize).map(|c| &c.values) else {
                    return false;
                };
                let largest = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                match kind {
                    dcz_format::graph::BinaryKind::Sub
                    | dcz_format::graph::BinaryKind::Add
                    | dcz_format::graph::BinaryKind::Div => largest > 32.0,
                    dcz_format::graph::BinaryKind::Mul => largest < 1.0 / 32.0,
                }
            }
            _ => false,
        });
    if wants_pixels {
        [0.0, 255.0]
    } else {
        [-1.0, 1.0]
    }
}

/// Runs the coded network in f64 on a generated input and samples its outputs.
fn self_test(
    encoded: &Encoded,
    range: [f32; 2],
    progress: &mut Progress,
) -> Result<SelfTest, Error> {
    let container = Container::open(
        Arc::new(MemoryBytes::new(encoded.to_bytes()?)),
        &Limits::default(),
    )?;
    let network = container
        .networks()
        .first()
        .ok_or_else(|| Error::Malformed("no network".into()))?;
    let mut test = SelfTest {
        generator: Generator::SplitMix64,
        seed: SELF_TEST_SEED,
        range,
        expected: Vec::new(),
    };
    let inputs = generated_inputs(network, &test)?;
    let mut weights = ContainerWeights::new(&container, 0);
    let outputs = dcz::oracle::run(
        network,
        &inputs,
        &mut weights,
        &|_| false,
        &mut |done, total| progress(Stage::SelfTest, done, total),
    )?;
    for output in &network.outputs {
        let array = outputs
            .get(&output.tensor)
            .ok_or_else(|| Error::SelfTest("an output was not computed".into()))?;
        if let Some(value) = array
            .values
            .iter()
            .find(|v| !(v.is_finite() && v.abs() <= f64::from(f32::MAX)))
        {
            let name = network
                .tensors
                .get(output.tensor.0 as usize)
                .map_or("", |t| t.name.as_str());
            return Err(Error::SelfTest(format!(
                "output '{name}' is {value} for a generated input in {range:?}; is the range right (--preprocess)?"
            )));
        }
        let len = array.values.len();
        let samples = sample_positions(len, samples_per_output(network.outputs.len(), len))
            .map(|at| array.values[at] as f32)
            .collect();
        let max_abs = array.values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let norm = array.values.iter().map(|v| v * v).sum::<f64>().sqrt();
        test.expected.push(Expected {
            len: u32::try_from(len)
                .map_err(|_| Error::SelfTest("an output is too large".into()))?,
            max_abs: max_abs as f32,
            norm: norm as f32,
            samples,
        });
    }
    Ok(test)
}

/// The self-test's inputs on the default shapes, in the order of the network's inputs.
pub fn generated_inputs(network: &Network, test: &SelfTest) -> Result<Vec<Array>, Error> {
    let mut offset = 0u64;
    let shapes = shape::default_inputs(network).map_err(|e| Error::Malformed(e.to_string()))?;
    Ok(shapes
        .into_iter()
        .map(|dims| {
            let mut values = vec![0f32; dims.iter().product()];
            generate(test, offset, &mut values);
            offset += values.len() as u64;
            Array {
                dims,
                values: values.into_iter().map(f64::from).collect(),
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_only_where_it_is_accurate() {
        assert!(f16_is_enough(&[1.0, -0.333, 0.0, 1000.0]));
        assert!(!f16_is_enough(&[70_000.0]));
        assert!(!f16_is_enough(&[1e-6]));
        // Tiny beside large is lost in the sum it enters.
        assert!(f16_is_enough(&[1e-8, 1.0]));
    }

    #[test]
    fn sensitivity_by_role() {
        let s = Prune::Sensitivity(0.5);
        assert_eq!(by_role(s, Role::First, false), Prune::None);
        assert_eq!(by_role(s, Role::LastLinear, false), Prune::Sensitivity(1.0));
        assert_eq!(by_role(s, Role::LastLinear, true), s);
        assert_eq!(
            by_role(Prune::Manual(0.1), Role::First, false),
            Prune::Manual(0.1)
        );
    }
}
