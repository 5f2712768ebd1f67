//! Comparison of a compressed file with the float network it was made from, layer by layer.
//!
//! Both sides run in f64 on the same inputs, so that only weights and constants differ: what is measured is the effect of
//! compression on every layer's output, with the errors of the layers before it included. The float side runs first and
//! keeps the outputs of layers; the compressed side is compared as it goes.
//!
//! Calibration scales channels between two layers where that changes nothing in the end. Such a map differs from the float
//! one in its scales and is as good. So beside the plain cosine there is one for which every channel of the compressed map
//! is first multiplied by the factor that fits best over all inputs (never below zero). It tells nothing about outputs of the
//! network, which are never scaled, and forgives a layer whose channels are off by constant factors: whatever that does shows
//! in the outputs.

use dcz::oracle::{self, Array, ContainerWeights};
use dcz_format::Container;
use dcz_format::graph::TensorId;

use crate::error::Error;
use crate::import::FloatNetwork;

/// How one tensor of the compressed network differs from the float one, over all inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The node that writes it.
    pub node: String,
    /// Its tensor.
    pub tensor: String,
    /// The node has weights; else it writes a graph output.
    pub has_weights: bool,
    /// Cosine between the outputs of all inputs taken as one vector.
    pub cosine: f64,
    /// Least cosine of a single input.
    pub least_cosine: f64,
    /// The same with every channel scaled to fit; of an output the plain one.
    pub least_fitted: f64,
    /// Largest absolute error.
    pub max_error: f64,
    /// Largest magnitude of the float output.
    pub max_abs: f64,
}

impl Difference {
    /// Largest error relative to the largest magnitude; 0 when both are zero.
    pub fn relative_error(&self) -> f64 {
        if self.max_error == 0.0 {
            0.0
        } else {
            self.max_error / self.max_abs
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Sums {
    dot: f64,
    float: f64,
    coded: f64,
    least_cosine: Option<f64>,
    max_error: f64,
    max_abs: f64,
}

/// Products of one channel of one input.
#[derive(Clone, Copy, Default)]
struct Products {
    dot: f64,
    float: f64,
    coded: f64,
}

/// Products of every channel (the second axis), one list per input.
#[derive(Clone, Default)]
struct Channels(Vec<Vec<Products>>);

impl Channels {
    fn add(&mut self, dims: &[usize], float: &[f64], coded: &[f64]) {
        let channels = dims.get(1).copied().unwrap_or(1).max(1);
        let inner = dims.iter().skip(2).product::<usize>().max(1);
        let mut own = vec![Products::default(); channels];
        for (at, (&a, &b)) in float.iter().zip(coded).enumerate() {
            let sums = &mut own[at / inner % channels];
            sums.dot += a * b;
            sums.float += a * a;
            sums.coded += b * b;
        }
        self.0.push(own);
    }

    /// Least cosine of an input once every channel is scaled to fit; none without inputs.
    fn least(&self) -> Option<f64> {
        let count = self.0.iter().map(Vec::len).max()?;
        let scale = |channel: usize| {
            let own = self.0.iter().filter_map(|input| input.get(channel));
            let (dot, coded) = own.fold((0.0, 0.0), |(dot, coded), sums| {
                (dot + sums.dot, coded + sums.coded)
            });
            if coded > 0.0 {
                (dot / coded).max(0.0)
            } else {
                1.0
            }
        };
        let scales: Vec<f64> = (0..count).map(scale).collect();
        let of_input = |input: &Vec<Products>| {
            let (mut dot, mut aa, mut bb) = (0.0, 0.0, 0.0);
            for (sums, scale) in input.iter().zip(&scales) {
                dot += scale * sums.dot;
                aa += sums.float;
                bb += scale * scale * sums.coded;
            }
            cosine(dot, aa, bb)
        };
        self.0.iter().map(of_input).min_by(f64::total_cmp)
    }
}

impl Sums {
    fn add(&mut self, float: &[f64], coded: &[f64]) {
        let (mut dot, mut aa, mut bb) = (0.0, 0.0, 0.0);
        for (&a, &b) in float.iter().zip(coded) {
            dot += a * b;
            aa += a * a;
            bb += b * b;
            self.max_error = self.max_error.max((a - b).abs());
            self.max_abs = self.max_abs.max(a.abs());
        }
        let cosine = cosine(dot, aa, bb);
        self.least_cosine = Some(self.least_cosine.map_or(cosine, |least| least.min(cosine)));
        self.dot += dot;
        self.float += aa;
        self.coded += bb;
    }
}

fn cosine(dot: f64, aa: f64, bb: f64) -> f64 {
    if aa == 0.0 && bb == 0.0 {
        1.0
    } else if aa == 0.0 || bb == 0.0 {
        0.0
    } else {
        dot / (aa.sqrt() * bb.sqrt())
    }
}

/// Compares network `net` of a container with the float network, on every set of inputs. `progress(done, all)` counts
/// sets.
///
/// Errors: [`Error::Input`] when the file was not made from this network.
pub fn compare(
    float: &FloatNetwork,
    container: &Container,
    net: usize,
    inputs: &[Vec<Array>],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Difference>, Error> {
    let network = container
        .networks()
        .get(net)
        .ok_or_else(|| Error::Usage(format!("no network {net}")))?;
    same_network(float, network)?;
    let outputs: Vec<TensorId> = network.outputs.iter().map(|o| o.tensor).collect();
    let watched: Vec<usize> = (0..network.nodes.len())
        .filter(|&i| {
            network.nodes[i].op.layer().is_some() || outputs.contains(&network.nodes[i].output)
        })
        .collect();
    let mut sums = vec![Sums::default(); watched.len()];
    let mut channels = vec![Channels::default(); watched.len()];
    for (done, set) in inputs.iter().enumerate() {
        progress(done, inputs.len());
        let mut float_weights = (
            |id: dcz_format::graph::LayerId| {
                Ok(float
                    .layers
                    .get(id.0 as usize)
                    .map(|l| l.weights.clone())
                    .unwrap_or_default())
            },
            |id: dcz_format::graph::ConstId| {
                Ok(float
                    .constants
                    .get(id.0 as usize)
                    .map(|c| c.values.clone())
                    .unwrap_or_default())
            },
        );
        let keep = |id: TensorId| watched.iter().any(|&i| network.nodes[i].output == id);
        let mut reference = oracle::run(network, set, &mut float_weights, &keep, &mut |_, _| {})?;
        let mut coded_weights = ContainerWeights::new(container, net);
        oracle::visit(network, set, &mut coded_weights, &mut |id, array| {
            let slot = watched.iter().position(|&i| network.nodes[i].output == id);
            if let (Some(slot), Some(expected)) = (slot, reference.remove(&id)) {
                sums[slot].add(&expected.values, &array.values);
                channels[slot].add(&array.dims, &expected.values, &array.values);
            }
        })?;
    }
    progress(inputs.len(), inputs.len());
    Ok(watched
        .iter()
        .zip(sums.into_iter().zip(channels))
        .map(|(&index, (sums, channels))| {
            let node = &network.nodes[index];
            let least_cosine = sums.least_cosine.unwrap_or(1.0);
            let inner = !outputs.contains(&node.output);
            Difference {
                node: node.name.clone(),
                tensor: network
                    .tensors
                    .get(node.output.0 as usize)
                    .map(|t| t.name.clone())
                    .unwrap_or_default(),
                has_weights: node.op.layer().is_some(),
                cosine: cosine(sums.dot, sums.float, sums.coded),
                least_cosine,
                least_fitted: channels.least().filter(|_| inner).unwrap_or(least_cosine),
                max_error: sums.max_error,
                max_abs: sums.max_abs,
            }
        })
        .collect())
}

/// The structure must be the same: ids of layers and constants then mean the same on both sides.
fn same_network(float: &FloatNetwork, network: &dcz_format::graph::Network) -> Result<(), Error> {
    let other =
        |what: String| Error::Input(format!("the file was not made from this model: {what}"));
    for (ours, theirs) in float.network.nodes.iter().zip(&network.nodes) {
        if ours != theirs {
            return Err(other(format!(
                "node '{}' of the model, '{}' of the file",
                ours.name, theirs.name
            )));
        }
    }
    if float.network.nodes.len() != network.nodes.len() {
        return Err(other(format!(
            "{} nodes in the model, {} in the file",
            float.network.nodes.len(),
            network.nodes.len()
        )));
    }
    for (ours, theirs) in float.layers.iter().zip(&network.layers) {
        if ours.name != theirs.name || ours.shape != theirs.shape {
            return Err(other(format!(
                "layer '{}' of the model, '{}' of the file",
                ours.name, theirs.name
            )));
        }
    }
    let elements = |dims: &[usize]| dims.iter().product::<usize>();
    let same_constants = float.constants.len() == network.constants.len()
        && float
            .constants
            .iter()
            .zip(&network.constants)
            .all(|(a, b)| {
                a.dims
                    .iter()
                    .copied()
                    .eq(b.dims.iter().map(|&d| d as usize))
                    && elements(&a.dims) == a.values.len()
            });
    if float.layers.len() != network.layers.len() || !same_constants {
        return Err(other("layers or constants differ in number or size".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaled_channels_are_as_good() {
        // Two inputs of two channels; the second channel is scaled by 8, and its sign may not be.
        let float = [[1.0, 2.0, 3.0, -1.0], [0.5, -2.0, 1.0, 4.0]];
        let mut scaled = Channels::default();
        let mut turned = Channels::default();
        let mut wrong = Channels::default();
        for values in float {
            let [a, b, c, d] = values;
            scaled.add(&[1, 2, 2], &values, &[a, b, 8.0 * c, 8.0 * d]);
            turned.add(&[1, 2, 2], &values, &[a, b, -c, -d]);
            wrong.add(&[1, 2, 2], &values, &[b, a, c, d]);
        }
        assert!((scaled.least().unwrap() - 1.0).abs() < 1e-12);
        assert!(turned.least().unwrap() < 0.7);
        assert!(wrong.least().unwrap() < 0.95);
        assert_eq!(Channels::default().least(), None);
    }
}
