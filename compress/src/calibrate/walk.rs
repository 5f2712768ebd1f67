//! From layer to layer: inputs of the float network and of its compressed prefix, targets, rounding, bias.

use dcz::shape::Dims;
use dcz_format::graph::{ConstId, Node, Op};
use dcz_format::layer::{LayerShape, Steps};
use ndarray::Array2;

use super::frontier::{Frontier, Source};
use super::gram::{Gram, Inputs};
use super::linalg::{self, view, view_mut};
use super::patches::Patches;
use super::rate::{Rate, coded_bits};
use super::segment::live;
use super::solve::{Factor, Rounding, alone, lost, round, round_coupled};
use super::treatment::Treatment;
use super::wide::round_wide;
use crate::error::Error;
use crate::import::FloatNetwork;

/// What is known of a layer before the walk.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    /// Importance of the error of each output channel: squared output error per squared error of the channel.
    pub rows: Vec<f64>,
    /// Weight of each output position; mean 1.
    pub positions: Vec<f32>,
    /// Correlations of the output channels' gradients, `[channel][channel]`; empty: rows are rounded on their own.
    pub coupling: Vec<f32>,
    /// Per output channel: the share of its importance that is left once later channels have made up for its error; empty:
    /// all of it.
    pub left: Vec<f64>,
    /// Per input of all groups: what is left of its variance once later inputs have made up for its error.
    pub columns: Vec<f64>,
}

/// What is asked of a layer's codes.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Weights that must become zero; empty: none.
    pub zeros: &'a [bool],
    /// Largest code.
    pub limit: i8,
}

/// What walks have in common.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    /// The float network, its channels scaled.
    pub float: &'a FloatNetwork,
    /// Dimensions of its tensors.
    pub dims: &'a [Dims],
    /// What happens to each layer.
    pub treatments: &'a [Treatment],
    /// What is known of each layer.
    pub knowledge: &'a [Knowledge],
    /// The images.
    pub source: &'a Source<'a>,
}

/// Options of a walk.
#[derive(Clone, Debug)]
pub struct WalkOptions {
    /// Squared output error that a bit is worth.
    pub lambda: f64,
    /// Share of the mean of the diagonal that is added to it.
    pub damping: f64,
    /// How much of what earlier layers did wrong is corrected, 0 to 1.
    pub correction: f64,
    /// Images walked.
    pub images: usize,
    /// Images for layers with more inputs than that.
    pub wide_images: usize,
    /// Factor on the shrinkage of such layers' second moments.
    pub shrink: f64,
    /// Bytes of activations that may be kept.
    pub budget: usize,
}

/// A rounded layer.
#[derive(Clone, Debug)]
pub struct Rounded {
    /// Grid codes, OIHW.
    pub codes: Vec<i8>,
    /// Steps of the grid.
    pub steps: Steps,
    /// Codes times steps.
    pub decoded: Vec<f32>,
    /// Entropy of the codes, in bits.
    pub bits: f64,
    /// Predicted squared error of the output.
    pub error: f64,
}

/// A step for a given price of bits: of a uniform grid with step s the error is s^2 / 12, and a bit more per weight
/// divides it by 4, so that s^2 / 12 * 2 ln 2 = lambda.
pub fn step_for(lambda: f64, weight: f64) -> f64 {
    (lambda * 6.0 / std::f64::consts::LN_2 / weight.max(f64::MIN_POSITIVE)).sqrt()
}

/// Times a layer is rounded, each with the costs of the codes before.
const PASSES: usize = 3;

/// Inputs of more columns than this are not handled by a matrix of all of them.
pub const WIDE: usize = 6144;

/// Positions taken per image, of so many, for patches of so many inputs.
pub fn positions_per_image(positions: usize, k: usize, images: usize) -> usize {
    let wanted = (16 * k).clamp(8192, 49_152);
    wanted.div_ceil(images.max(1)).clamp(1, positions)
}

/// The `n`-th of `count` positions spread over an image, shifted from image to image.
pub fn position(n: usize, count: usize, positions: usize, image: usize) -> usize {
    let shift = (image as f64 * 0.618_033_988_749_895).fract();
    let at = (n as f64 + shift) / count as f64 * positions as f64;
    (at as usize).min(positions.saturating_sub(1))
}

/// The bias of a node that no other node uses.
pub fn own_bias(float: &FloatNetwork, node: &Node) -> Option<ConstId> {
    let bias = bias_of(node)?;
    let users = float.network.nodes.iter().filter(|n| {
        bias_of(n) == Some(bias)
            || matches!(&n.op, Op::Prelu { slope } if *slope == bias)
            || matches!(&n.op, Op::BinaryConst { constant, .. } if *constant == bias)
    });
    (users.count() == 1).then_some(bias)
}

fn bias_of(node: &Node) -> Option<ConstId> {
    match &node.op {
        Op::Conv(conv) => conv.bias,
        Op::Linear { bias, .. } => *bias,
        _ => None,
    }
}

/// Rounds every layer of `float`; `coded` receives decoded weights and corrected biases.
pub fn walk(
    ground: &Ground,
    coded: &mut FloatNetwork,
    options: &WalkOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Option<Rounded>>, Error> {
    let Ground {
        float,
        dims,
        treatments,
        knowledge,
        source,
    } = *ground;
    let nodes: Vec<usize> = (0..float.network.nodes.len())
        .filter(|&n| float.network.nodes[n].op.layer().is_some())
        .collect();
    let mut frontier = Frontier::new(source, options.images, dims.to_vec(), options.budget);
    let mut rounded: Vec<Option<Rounded>> = float.layers.iter().map(|_| None).collect();
    for (done, &n) in nodes.iter().enumerate() {
        progress(done, nodes.len());
        let node = &float.network.nodes[n];
        let (Some(id), Some(&x)) = (node.op.layer(), node.inputs.first()) else {
            continue;
        };
        let id = id.0 as usize;
        let patches = Patches::of(node, float.layers[id].shape, &dims[x.0 as usize])?;
        let known = &knowledge[id];
        let bias = own_bias(float, node);
        let asked = match &treatments[id] {
            Treatment::Round { zeros, limit } => Some(Asked {
                zeros,
                limit: *limit,
            }),
            Treatment::Fixed { weights, .. } => {
                coded.layers[id].weights.clone_from(weights);
                None
            }
        };
        if patches.k() > WIDE {
            if let Some(asked) = asked {
                let images = options.wide_images.max(options.images);
                let mut frontier = Frontier::new(source, images, dims.to_vec(), 0);
                let result = round_wide(
                    &mut frontier,
                    float,
                    coded,
                    n,
                    &patches,
                    known,
                    asked,
                    options,
                )?;
                rounded[id] = Some(result);
            }
            continue;
        }
        let slot = live(&float.network, n)
            .iter()
            .position(|&t| t == x)
            .unwrap_or(0);
        let mut gram = Gram::new(patches.clone(), false);
        let count = positions_per_image(patches.positions(), patches.k(), options.images);
        frontier.advance(float, Some(coded), n, &mut |image, x, y| {
            for p in 0..count {
                let p = position(p, count, patches.positions(), image);
                let weight = known.positions.get(p).copied().unwrap_or(1.0);
                gram.add(&x[slot], &y[slot], p, weight)?;
            }
            Ok(())
        })?;
        let inputs = gram.finish(bias.is_some())?;
        if let Some(asked) = asked {
            let result = round_layer(float, id, &patches, known, &inputs, asked, options)?;
            coded.layers[id].weights.clone_from(&result.decoded);
            rounded[id] = Some(result);
        }
        if let Some(bias) = bias {
            correct_bias(float, coded, id, bias, &patches, &inputs);
        }
    }
    progress(nodes.len(), nodes.len());
    Ok(rounded)
}

/// Moves the bias so that the mean output is that of the float network.
pub fn correct_bias(
    float: &FloatNetwork,
    coded: &mut FloatNetwork,
    layer: usize,
    bias: ConstId,
    patches: &Patches,
    inputs: &Inputs,
) {
    let (k, m) = (patches.k(), patches.rows_per_group().max(1));
    let original = &float.constants[bias.0 as usize].values;
    let values = (0..original.len()).map(|row| {
        let start = row / m * k;
        let w = &float.layers[layer].weights[row * k..(row + 1) * k];
        let q = &coded.layers[layer].weights[row * k..(row + 1) * k];
        let mut shift = 0.0;
        for i in 0..k {
            let y = inputs.mean[start + i];
            let x = y + inputs.mean_difference[start + i];
            shift += f64::from(w[i]) * x - f64::from(q[i]) * y;
        }
        (f64::from(original[row]) + shift) as f32
    });
    let values = values.collect();
    coded.constants[bias.0 as usize].values = values;
}

fn round_layer(
    float: &FloatNetwork,
    id: usize,
    patches: &Patches,
    known: &Knowledge,
    inputs: &Inputs,
    asked: Asked,
    options: &WalkOptions,
) -> Result<Rounded, Error> {
    let layer = &float.layers[id];
    let (k, m) = (patches.k(), patches.rows_per_group());
    let mut factors = Vec::new();
    for moments in &inputs.moments {
        factors.push(match Factor::new(&moments.square, options.damping) {
            Some(factor) => factor,
            // Inputs that never vary: every error is invisible; rounding to the nearest.
            None => Factor::new(&Array2::eye(k), 0.0).ok_or_else(|| {
                Error::Malformed(format!("layer '{}': inputs are not finite", layer.name))
            })?,
        });
    }
    let mut targets = layer.weights.clone();
    if options.correction > 0.0 {
        for (group, (moments, factor)) in inputs.moments.iter().zip(&factors).enumerate() {
            let range = group * m * k..(group + 1) * m * k;
            correct(
                &mut targets[range],
                m,
                k,
                &moments.cross,
                factor,
                options.correction,
            )?;
        }
    }
    let mut rows = rows_of(known, &layer.shape);
    let coupled = couple(&rows, &known.coupling);
    if let Some(coupled) = &coupled {
        rows = coupled.variances().to_vec();
    }
    let variance: Vec<f64> = factors
        .iter()
        .map(|f| f.variances().iter().sum::<f64>() / k as f64)
        .collect();
    let prices: Vec<f64> = rows
        .iter()
        .enumerate()
        .map(|(row, weight)| weight * variance[row / m])
        .collect();
    let steps = choose_steps(&targets, k, &prices, options.lambda, asked.limit);
    let per_row: Vec<f32> = (0..rows.len()).map(|row| step_of(&steps, row)).collect();
    let mut rate = Rate::of(&nearest(&targets, k, &per_row));
    let how = |group: usize| {
        let range = group * m..(group + 1) * m;
        Rounding {
            steps: &per_row[range.clone()],
            weights: &rows[range.clone()],
            lambda: options.lambda,
            limit: asked.limit,
            zeros: asked
                .zeros
                .get(range.start * k..range.end * k)
                .unwrap_or(&[]),
        }
    };
    let (mut codes, mut error) = (Vec::new(), 0.0);
    for _ in 0..PASSES {
        codes.clear();
        error = 0.0;
        for (group, factor) in factors.iter().enumerate() {
            let mut work = targets[group * m * k..(group + 1) * m * k].to_vec();
            let part = match &coupled {
                Some(rows) => round_coupled(&mut work, factor, rows, &how(group), &rate),
                None => round(&mut work, factor, &how(group), &rate),
            };
            let weights = &rows[group * m..(group + 1) * m];
            error += lost(&work, &part, &how(group), factor.variances(), weights);
            codes.extend(part);
        }
        rate = Rate::of(&codes);
    }
    let decoded = codes
        .iter()
        .enumerate()
        .map(|(i, &q)| f32::from(q) * per_row[i / k])
        .collect();
    Ok(Rounded {
        bits: coded_bits(&codes, k),
        codes,
        steps,
        decoded,
        error,
    })
}

/// The factor of what the output makes of the channels' errors.
pub fn couple(rows: &[f64], coupling: &[f32]) -> Option<Factor> {
    let m = rows.len();
    if coupling.len() != m * m {
        return None;
    }
    let matrix = Array2::from_shape_fn((m, m), |(i, j)| {
        f64::from(coupling[i * m + j]) * (rows[i] * rows[j]).sqrt()
    });
    Factor::new(&matrix, 0.0)
}

/// The importance of every row; alike where it is not known.
pub fn rows_of(known: &Knowledge, shape: &LayerShape) -> Vec<f64> {
    let channels = shape.out_channels as usize;
    let mean = known.rows.iter().sum::<f64>() / known.rows.len().max(1) as f64;
    if known.rows.len() != channels || !(mean.is_finite() && mean > 0.0) {
        return vec![1.0; channels];
    }
    // A row that seems not to matter at all is only one that was not seen to.
    known.rows.iter().map(|&v| v.max(1e-3 * mean)).collect()
}

/// Rounding to the nearest, to begin with.
pub fn nearest(weights: &[f32], k: usize, steps: &[f32]) -> Vec<i8> {
    let code = |(i, w): (usize, &f32)| (w / steps[i / k.max(1)]).round().clamp(-127.0, 127.0) as i8;
    weights.iter().enumerate().map(code).collect()
}

fn step_of(steps: &Steps, row: usize) -> f32 {
    match steps {
        Steps::Layer(step) => *step,
        Steps::Channel(steps) => steps[row],
        Steps::Block { .. } => 1.0,
    }
}

/// One step for the layer, or one per output channel where that costs less in error and bits.
///
/// `prices[row]`: what the squared error of one weight of the row costs.
pub fn choose_steps(weights: &[f32], k: usize, prices: &[f64], lambda: f64, limit: i8) -> Steps {
    let k = k.max(1);
    let positive = |step: f64| {
        let step = step as f32;
        if step.is_normal() && step > 0.0 {
            step
        } else {
            1.0
        }
    };
    let limit = f64::from(limit);
    let least = |row: &[f32]| f64::from(row.iter().fold(0.0f32, |m, w| m.max(w.abs()))) / limit;
    let mean = prices.iter().sum::<f64>() / prices.len().max(1) as f64;
    let one = step_for(lambda, mean);
    // A few weights beyond the largest code are clipped, and later ones make up for it.
    let clipped = |row: &[f32]| {
        let beyond = |w: &f32| (f64::from(w.abs()) - limit * one).max(0.0).powi(2);
        row.iter().map(beyond).sum::<f64>()
    };
    let mut each = Vec::with_capacity(prices.len());
    // Cost of one step, of one per row: error of a uniform grid, and bits of weights of the row's spread.
    let (mut cost_one, mut cost_each) = (0.0, 0.0);
    for (row, &price) in weights.chunks_exact(k).zip(prices) {
        let own = step_for(lambda, price).max(least(row));
        let power = row.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>() / k as f64;
        let cost = |step: f64| {
            let error = (step * step / 12.0).min(power);
            let bits = 0.5 * (1.0 + 12.0 * power / (step * step)).log2();
            k as f64 * (price * error + lambda * bits)
        };
        cost_one += cost(one) + price * clipped(row);
        cost_each += cost(own) + 32.0 * lambda;
        each.push(positive(own));
    }
    if cost_each < cost_one {
        Steps::Channel(each)
    } else {
        Steps::Layer(positive(one))
    }
}

/// Bits that all layers would take at a price, roughly: each weight alone, nothing made up for.
pub fn dry(ground: &Ground, lambda: f64) -> f64 {
    let Ground {
        float,
        treatments,
        knowledge,
        ..
    } = *ground;
    let layers = float.layers.iter().zip(treatments).zip(knowledge);
    layers
        .map(|((layer, treatment), known)| {
            let (k, groups) = (layer.shape.k().max(1), layer.shape.groups.max(1) as usize);
            let mut rows = rows_of(known, &layer.shape);
            rows.iter_mut().zip(&known.left).for_each(|(r, l)| *r *= l);
            let m = (rows.len() / groups).max(1);
            let column =
                |row: usize, i: usize| known.columns.get(row / m * k + i).copied().unwrap_or(1.0);
            let mean = |row: usize| (0..k).map(|i| column(row, i)).sum::<f64>() / k as f64;
            let (zeros, limit) = match treatment {
                Treatment::Round { zeros, limit } => (zeros, *limit),
                Treatment::Fixed { .. } => return 0.0,
            };
            let prices: Vec<f64> = rows
                .iter()
                .enumerate()
                .map(|(row, w)| w * mean(row))
                .collect();
            let steps = choose_steps(&layer.weights, k, &prices, lambda, limit);
            let per_row: Vec<f32> = (0..rows.len()).map(|row| step_of(&steps, row)).collect();
            let mut codes = nearest(&layer.weights, k, &per_row);
            for _ in 0..2 {
                let rate = Rate::of(&codes);
                let how = Rounding {
                    steps: &per_row,
                    weights: &rows,
                    lambda,
                    limit,
                    zeros,
                };
                codes = alone(&layer.weights, k, &how, &rate, &column);
            }
            let own = if matches!(steps, Steps::Channel(_)) {
                32.0 * rows.len() as f64
            } else {
                0.0
            };
            coded_bits(&codes, k) + own
        })
        .sum()
}

/// Adds to the weights what makes the outputs on the compressed prefix's inputs closest to the float network's:
/// share * W C (H + damping)^-1.
fn correct(
    weights: &mut [f32],
    m: usize,
    k: usize,
    cross: &Array2<f64>,
    factor: &Factor,
    share: f64,
) -> Result<(), Error> {
    let wide: Vec<f64> = weights.iter().map(|&w| f64::from(w)).collect();
    let mut shift = vec![0.0f64; m * k];
    linalg::multiply(
        share,
        view(&wide, m, k, k)?,
        cross.view(),
        0.0,
        view_mut(&mut shift, m, k, k)?,
    );
    factor.solve(&mut shift)?;
    weights
        .iter_mut()
        .zip(&shift)
        .for_each(|(w, s)| *w += *s as f32);
    Ok(())
}
