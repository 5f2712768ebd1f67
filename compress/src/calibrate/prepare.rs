//! Before the walk: what matters, and scales of channels that make one step per layer suit all of it.

use dcz::shape::Dims;
use ndarray::Array2;

use super::equalise::{self, Link};
use super::frontier::{Frontier, Source};
use super::gram::Gram;
use super::importance::{self, Importance};
use super::patches::Patches;
use super::solve::Factor;
use super::treatment::Treatment;
use super::walk::{Knowledge, WIDE, couple, own_bias, position, positions_per_image};
use super::{gradient, segment};
use crate::error::Error;
use crate::import::FloatNetwork;

/// Options of [`prepare`].
#[derive(Clone, Debug)]
pub struct PrepareOptions {
    /// Images whose gradients are taken.
    pub gradients: usize,
    /// Images whose inputs are looked at.
    pub images: usize,
    /// As in the walk.
    pub damping: f64,
    /// Bytes of activations that may be kept.
    pub budget: usize,
}

/// Measures every layer and scales the channels of `float`. Gives the knowledge, by layer, that the walk needs.
pub fn prepare(
    float: &mut FloatNetwork,
    dims: &[Dims],
    source: &Source,
    treatments: &[Treatment],
    options: &PrepareOptions,
    progress: &mut dyn FnMut(&str, usize, usize),
) -> Result<Vec<Knowledge>, Error> {
    let importance = match gradient::unsupported(float) {
        None => importance::measure(float, dims, source, options.gradients, &mut |done, all| {
            progress("gradients", done, all)
        })?,
        Some(node) => {
            float.notes.push(format!(
                "node '{node}' has no gradient here: every layer's error counts relative to its own output"
            ));
            vec![Importance::default(); float.layers.len()]
        }
    };
    let spectra = spectra(float, dims, &importance, source, options, progress)?;
    let mut knowledge: Vec<Knowledge> = importance
        .into_iter()
        .zip(&spectra)
        .zip(&float.layers)
        .map(|((importance, spectrum), layer)| Knowledge {
            rows: rows(&importance, spectrum, layer),
            positions: importance.positions,
            left: couple(&vec![1.0; importance.rows.len()], &importance.coupling)
                .map(|factor| factor.variances().to_vec())
                .unwrap_or_default(),
            coupling: importance.coupling,
            columns: spectrum.left.iter().map(|v| v * v).collect(),
        })
        .collect();
    for link in equalise::links(float) {
        let fixed = |n: usize| {
            let id = float.network.nodes[n].op.layer();
            id.is_none_or(|id| treatments[id.0 as usize].is_fixed())
        };
        if !fixed(link.first) && !fixed(link.second) {
            scale(float, link, &spectra, &mut knowledge);
        }
    }
    Ok(knowledge)
}

/// Squared output error per squared error of a channel: the gradient's share of it, or where there is none, the
/// channel's error relative to the power of the layer's output.
fn rows(
    importance: &Importance,
    spectrum: &Spectrum,
    layer: &crate::import::FloatLayer,
) -> Vec<f64> {
    let channels = layer.shape.out_channels as usize;
    let per_group = channels / (layer.shape.groups as usize).max(1);
    if importance.rows.len() == channels {
        let power = |row: usize| spectrum.power[row / per_group.max(1)];
        return importance
            .rows
            .iter()
            .enumerate()
            .map(|(row, v)| {
                if power(row) > 0.0 {
                    v / power(row)
                } else {
                    0.0
                }
            })
            .collect();
    }
    // White weights: the output's power is that of the weights times that of the inputs.
    let weights: f64 = layer.weights.iter().map(|&w| f64::from(w).powi(2)).sum();
    let mean = spectrum.power.iter().sum::<f64>() / spectrum.power.len().max(1) as f64;
    let output = weights / layer.weights.len().max(1) as f64 * mean;
    vec![1.0 / (output * channels as f64).max(f64::MIN_POSITIVE); channels]
}

/// Of a layer's inputs.
#[derive(Clone, Debug, Default)]
struct Spectrum {
    /// Per input: standard deviation of what later inputs cannot make up for.
    left: Vec<f64>,
    /// Per group: sum of the variances.
    power: Vec<f64>,
}

fn spectra(
    float: &FloatNetwork,
    dims: &[Dims],
    importance: &[Importance],
    source: &Source,
    options: &PrepareOptions,
    progress: &mut dyn FnMut(&str, usize, usize),
) -> Result<Vec<Spectrum>, Error> {
    let mut frontier = Frontier::new(source, options.images, dims.to_vec(), options.budget);
    let mut all = vec![Spectrum::default(); float.layers.len()];
    let nodes = float.network.nodes.iter().enumerate();
    for (n, node) in nodes {
        let (Some(id), Some(&x)) = (node.op.layer(), node.inputs.first()) else {
            continue;
        };
        let id = id.0 as usize;
        progress("inputs", id, float.layers.len());
        let patches = Patches::of(node, float.layers[id].shape, &dims[x.0 as usize])?;
        let slot = segment::live(&float.network, n)
            .iter()
            .position(|&t| t == x)
            .unwrap_or(0);
        let weight = |p: usize| importance[id].positions.get(p).copied().unwrap_or(1.0);
        let count = positions_per_image(patches.positions(), patches.k(), options.images);
        if patches.k() > WIDE {
            let mut moments = Diagonal::new(patches.width());
            let mut patch = vec![0.0; patches.width()];
            frontier.advance(float, None, n, &mut |_, x, _| {
                for p in 0..patches.positions() {
                    patches.gather(&x[slot], p, &mut patch);
                    moments.add(&patch, weight(p));
                }
                Ok(())
            })?;
            all[id] = moments.spectrum(patches.shape.groups as usize);
            continue;
        }
        let mut gram = Gram::new(patches.clone(), true);
        frontier.advance(float, None, n, &mut |image, x, _| {
            for p in 0..count {
                let p = position(p, count, patches.positions(), image);
                gram.add(&x[slot], &x[slot], p, weight(p))?;
            }
            Ok(())
        })?;
        for moments in gram.finish(own_bias(float, node).is_some())?.moments {
            let k = patches.k();
            let trace: f64 = (0..k).map(|i| moments.square[(i, i)]).sum();
            all[id].power.push(trace);
            let factor = Factor::new(&moments.square, options.damping)
                .or_else(|| Factor::new(&Array2::eye(k), 0.0));
            if let Some(factor) = factor {
                all[id]
                    .left
                    .extend(factor.variances().iter().map(|v| v.sqrt()));
            }
        }
    }
    Ok(all)
}

/// Means and variances only.
struct Diagonal {
    sum: Vec<f64>,
    square: Vec<f64>,
    weight: f64,
}

impl Diagonal {
    fn new(width: usize) -> Diagonal {
        Diagonal {
            sum: vec![0.0; width],
            square: vec![0.0; width],
            weight: 0.0,
        }
    }

    fn add(&mut self, patch: &[f32], weight: f32) {
        let weight = f64::from(weight);
        self.weight += weight;
        for ((v, s), q) in patch.iter().zip(&mut self.sum).zip(&mut self.square) {
            *s += weight * f64::from(*v);
            *q += weight * f64::from(*v).powi(2);
        }
    }

    fn spectrum(&self, groups: usize) -> Spectrum {
        let weight = self.weight.max(f64::MIN_POSITIVE);
        let variances = self.sum.iter().zip(&self.square);
        let variances: Vec<f64> = variances
            .map(|(s, q)| (q / weight - (s / weight).powi(2)).max(0.0))
            .collect();
        let k = variances.len() / groups.max(1);
        Spectrum {
            left: variances.iter().map(|v| v.sqrt()).collect(),
            power: variances.chunks(k.max(1)).map(|c| c.iter().sum()).collect(),
        }
    }
}

/// Chooses and applies the scales of one link.
fn scale(float: &mut FloatNetwork, link: Link, spectra: &[Spectrum], knowledge: &mut [Knowledge]) {
    let nodes = &float.network.nodes;
    let id = |n: usize| nodes[n].op.layer().map(|l| l.0 as usize);
    let (Some(a), Some(b)) = (id(link.first), id(link.second)) else {
        return;
    };
    let has_bias = !matches!(
        &nodes[link.first].op,
        dcz_format::graph::Op::Conv(dcz_format::graph::Conv { bias: Some(_), .. })
            | dcz_format::graph::Op::Linear { bias: Some(_), .. }
    ) || own_bias(float, &nodes[link.first]).is_some();
    let channels = float.layers[a].shape.out_channels as usize;
    let left = &spectra[b].left;
    if !has_bias || channels == 0 || !left.len().is_multiple_of(channels) {
        return;
    }
    let wanted: Vec<f64> = if float.layers[b].shape.is_depthwise() {
        let known = &knowledge[a];
        let left = known.left.iter().copied().chain(std::iter::repeat(1.0));
        known
            .rows
            .iter()
            .zip(left)
            .map(|(v, l)| (v * l).sqrt())
            .collect()
    } else {
        // Geometric means over the inputs that belong to a channel.
        left.chunks_exact(left.len() / channels)
            .map(|part| {
                let log = part.iter().map(|v| v.max(1e-12).ln()).sum::<f64>();
                (-log / part.len() as f64).exp()
            })
            .collect()
    };
    let scales = equalise::normalised(&wanted);
    if scales.len() == channels && equalise::apply(float, link, &scales) {
        let rows = knowledge[a].rows.iter_mut().zip(&scales);
        rows.for_each(|(v, &s)| *v /= f64::from(s).powi(2));
        let columns = &mut knowledge[b].columns;
        let part = (columns.len() / channels).max(1);
        for (i, v) in columns.iter_mut().enumerate() {
            *v *= f64::from(scales[i / part]).powi(2);
        }
    }
}
