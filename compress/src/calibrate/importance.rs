//! Which rows of which layers, and which places of the image, matter to the output.

use std::collections::BTreeMap;

use dcz::shape::Dims;
use dcz_format::graph::{Meaning, Metric, TensorId};
use ndarray::linalg::general_mat_mul;

use super::frontier::Source;
use super::gradient::{self, LayerGradient, Values, by_position};
use super::linalg::{view, view_mut};
use super::patches::Patches;
use super::segment::{Segment, in_parallel};
use crate::error::Error;
use crate::import::FloatNetwork;

/// Of one layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Importance {
    /// Per output channel: mean squared length of the gradient with respect to the channel's weights, inputs centred.
    pub rows: Vec<f64>,
    /// Per output position: its share in the squared gradient; mean 1.
    pub positions: Vec<f32>,
    /// Correlations of the gradients of output channels, `[channel][channel]`, shrunk to what the images can tell; empty
    /// for grouped layers, layers of one position and layers of very many channels.
    pub coupling: Vec<f32>,
}

/// Layers of more channels than this are rounded row by row on their own.
const COUPLED: usize = 1024;

/// Images whose inputs are averaged to centre the others.
const MEAN_IMAGES: usize = 32;

/// Measures every layer on some images, in the order of layer ids.
pub fn measure(
    float: &FloatNetwork,
    dims: &[Dims],
    source: &Source,
    images: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Importance>, Error> {
    let network = &float.network;
    let all: Vec<TensorId> = network.nodes.iter().map(|n| n.output).collect();
    let segment = Segment::new(float, dims, 0..network.nodes.len(), &network.inputs, &all)?;
    let nodes: BTreeMap<usize, Patches> = network
        .nodes
        .iter()
        .enumerate()
        .filter_map(|(index, node)| {
            let layer = float.layers.get(node.op.layer()?.0 as usize)?;
            let input = dims.get(node.inputs.first()?.0 as usize)?;
            Some(Patches::of(node, layer.shape, input).map(|p| (index, p)))
        })
        .collect::<Result<_, _>>()?;
    let forward = |image: usize| -> Result<Values, Error> {
        let input = source(image)?;
        let results = segment.run(&[&input])?;
        let mut values: Values = all.iter().copied().zip(results).collect();
        values.extend(network.inputs.first().map(|&id| (id, input)));
        Ok(values)
    };
    let mut done = 0;
    let means = means(float, &nodes, images.min(MEAN_IMAGES), &forward)?;
    let mut sums: BTreeMap<usize, Importance> = BTreeMap::new();
    let mut squares: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
    const CHUNK: usize = 8;
    for first in (0..images).step_by(CHUNK) {
        let range = first..(first + CHUNK).min(images);
        let results = in_parallel(range.clone(), &|image| {
            let values = forward(image)?;
            let outputs = directions(float, &values, image as u64);
            let mut found: Vec<(usize, Importance)> = Vec::new();
            gradient::backward(float, dims, &values, outputs, &mut |layer| {
                let patches = &nodes[&layer.node];
                found.push((
                    layer.node,
                    one(float, patches, &layer, &means[&layer.node])?,
                ));
                Ok(())
            })?;
            Ok(found)
        })?;
        for (node, one) in results.into_iter().flatten() {
            let sum = sums.entry(node).or_default();
            sum.rows.resize(one.rows.len(), 0.0);
            sum.positions.resize(one.positions.len(), 0.0);
            sum.coupling.resize(one.coupling.len(), 0.0);
            let square = squares
                .entry(node)
                .or_insert_with(|| vec![0.0; one.coupling.len()]);
            let both = sum.coupling.iter_mut().zip(square).zip(&one.coupling);
            both.for_each(|((s, q), v)| {
                *s += v;
                *q += v * v;
            });
            sum.rows
                .iter_mut()
                .zip(&one.rows)
                .for_each(|(s, v)| *s += v);
            sum.positions
                .iter_mut()
                .zip(&one.positions)
                .for_each(|(s, v)| *s += v);
        }
        done += range.len();
        progress(done, images);
    }
    let mut layers = vec![Importance::default(); float.layers.len()];
    for (node, mut sum) in sums {
        sum.rows.iter_mut().for_each(|v| *v /= images.max(1) as f64);
        let mean = sum.positions.iter().sum::<f32>() / sum.positions.len().max(1) as f32;
        sum.positions
            .iter_mut()
            .for_each(|v| *v = if mean > 0.0 { *v / mean } else { 1.0 });
        let square = squares.remove(&node).unwrap_or_default();
        shrink(&mut sum.coupling, &square, sum.rows.len(), images as f32);
        if let Some(id) = network.nodes[node].op.layer() {
            layers[id.0 as usize] = sum;
        }
    }
    Ok(layers)
}

/// Sums over images of products and their squares, to correlations shrunk by as much as chance would make of none.
fn shrink(sums: &mut Vec<f32>, squares: &[f32], m: usize, n: f32) {
    let diagonal: Vec<f32> = (0..m)
        .filter_map(|i| sums.get(i * m + i).copied())
        .collect();
    if diagonal.len() < m || diagonal.iter().any(|&d| d <= 0.0) {
        sums.clear();
        return;
    }
    let (mut chance, mut seen) = (0.0f64, 0.0f64);
    for i in 0..m {
        for j in (0..m).filter(|&j| j != i) {
            let (sum, square) = (sums[i * m + j], squares[i * m + j]);
            let scale = f64::from(diagonal[i]) * f64::from(diagonal[j]);
            seen += f64::from(sum).powi(2) / scale;
            // n times the variance of one image's product.
            chance += f64::from((square - sum * sum / n).max(0.0)) / scale;
        }
    }
    let keep = 1.0 - (chance / seen.max(f64::MIN_POSITIVE)).clamp(0.05, 1.0) as f32;
    for i in 0..m {
        for j in 0..m {
            let correlation = sums[i * m + j] / (diagonal[i] * diagonal[j]).sqrt();
            sums[i * m + j] = if i == j { 1.0 } else { keep * correlation };
        }
    }
    if keep < 0.05 {
        sums.clear();
    }
}

/// Mean patches, by node.
fn means(
    float: &FloatNetwork,
    nodes: &BTreeMap<usize, Patches>,
    images: usize,
    forward: &(dyn Fn(usize) -> Result<Values, Error> + Sync),
) -> Result<BTreeMap<usize, Vec<f32>>, Error> {
    let per_image = in_parallel(0..images, &|image| {
        let values = forward(image)?;
        let mut all = Vec::new();
        for (&index, patches) in nodes {
            let id = float.network.nodes[index].inputs[0];
            let input = values.get(&id).map_or(&[][..], Vec::as_slice);
            let mut sum = vec![0.0f32; patches.width()];
            let mut patch = sum.clone();
            for position in 0..patches.positions() {
                patches.gather(input, position, &mut patch);
                sum.iter_mut().zip(&patch).for_each(|(s, v)| *s += v);
            }
            let n = patches.positions().max(1) as f32;
            sum.iter_mut().for_each(|s| *s /= n);
            all.push(sum);
        }
        Ok(all)
    })?;
    let mut means: Vec<Vec<f32>> = Vec::new();
    for image in per_image {
        if means.is_empty() {
            means = image;
            continue;
        }
        for (sum, one) in means.iter_mut().zip(image) {
            sum.iter_mut().zip(one).for_each(|(s, v)| *s += v);
        }
    }
    for mean in &mut means {
        mean.iter_mut().for_each(|v| *v /= images.max(1) as f32);
    }
    Ok(nodes.keys().copied().zip(means).collect())
}

/// A random direction of every output, scaled so that an error along it counts relative to the output's length; at right
/// angles to the output where only the angle matters.
fn directions(float: &FloatNetwork, values: &Values, seed: u64) -> Vec<Vec<f32>> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x0dc2;
    let mut sign = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        if (z ^ (z >> 31)) & 1 == 0 {
            1.0f32
        } else {
            -1.0
        }
    };
    float
        .network
        .outputs
        .iter()
        .map(|output| {
            let y = values.get(&output.tensor).map_or(&[][..], Vec::as_slice);
            let power: f32 = y.iter().map(|v| v * v).sum::<f32>().max(f32::MIN_POSITIVE);
            let mut v: Vec<f32> = y.iter().map(|_| sign()).collect();
            let angle = matches!(
                output.meaning,
                Meaning::Unknown
                    | Meaning::Embedding {
                        metric: Metric::Cosine,
                        ..
                    }
            );
            if angle && y.len() > 1 {
                let along = v.iter().zip(y).map(|(v, y)| v * y).sum::<f32>() / power;
                v.iter_mut().zip(y).for_each(|(v, y)| *v -= along * y);
            }
            v.iter_mut().for_each(|v| *v /= power.sqrt());
            v
        })
        .collect()
}

/// Squared lengths of the rows of one image's gradient, and where the gradient is.
fn one(
    float: &FloatNetwork,
    patches: &Patches,
    layer: &LayerGradient,
    mean: &[f32],
) -> Result<Importance, Error> {
    let op = &float.network.nodes[layer.node].op;
    let g = by_position(patches, layer.output, op);
    let (positions, width, k) = (patches.positions(), patches.width(), patches.k());
    let (groups, m) = (patches.shape.groups as usize, patches.rows_per_group());
    let channels = groups * m;
    let places = g
        .chunks_exact(channels.max(1))
        .map(|g| g.iter().map(|g| g * g).sum())
        .collect();
    let mut x = vec![0.0f32; positions * width];
    for (p, patch) in x.chunks_exact_mut(width.max(1)).enumerate() {
        patches.gather(layer.input, p, patch);
        patch.iter_mut().zip(mean).for_each(|(x, m)| *x -= m);
    }
    let mut rows = vec![0.0f64; channels];
    if positions == 1 {
        let power: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
        let lengths = g.iter().map(|&g| f64::from(g).powi(2) * power);
        return Ok(Importance {
            rows: lengths.collect(),
            positions: places,
            coupling: Vec::new(),
        });
    }
    let mut product = vec![0.0f32; m * k];
    for group in 0..groups {
        if m == 1 {
            product.fill(0.0);
            for p in 0..positions {
                let g = g[p * channels + group];
                let x = &x[p * width + group * k..][..k];
                product.iter_mut().zip(x).for_each(|(s, x)| *s += g * x);
            }
        } else {
            let left = view(&g[group * m..], positions, m, channels)?;
            let right = view(&x[group * k..], positions, k, width)?;
            let mut to = view_mut(&mut product, m, k, k)?;
            general_mat_mul(1.0, &left.t(), &right, 0.0, &mut to);
        }
        for (row, product) in rows[group * m..]
            .iter_mut()
            .zip(product.chunks_exact(k.max(1)))
        {
            *row = product.iter().map(|&v| f64::from(v).powi(2)).sum();
        }
    }
    let mut coupling = Vec::new();
    if groups == 1 && m > 1 && m <= COUPLED {
        coupling = vec![0.0f32; m * m];
        let g = view(&g, positions, m, m)?;
        general_mat_mul(1.0, &g.t(), &g, 0.0, &mut view_mut(&mut coupling, m, m, m)?);
    }
    Ok(Importance {
        rows,
        positions: places,
        coupling,
    })
}
