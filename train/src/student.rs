//! The student: weights, steps, masks and constants as plain vectors, and what an optimiser keeps about them.
//!
//! A step makes tensors of them, runs the network, and takes the gradients; nothing but these vectors lives from one step to
//! the next, so a checkpoint is these vectors.

use std::collections::HashSet;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use dcz_format::graph::Op;

use crate::error::Error;
use crate::graph::Parameters;
use crate::mask::Units;
use crate::ops::quantise::Quantise;
use crate::ops::{tensor, with_floats};
use crate::optim::Moments;
use crate::rate::Costs;
use crate::schedule;
use crate::task::{Grid, Options, Retrained, Task, TrainLayer};

/// Largest step the wanted size may lead to at the start, in standard deviations.
const COARSEST: f64 = 2.5;
/// From this many standard deviations on, a step gets a dead zone (as in the compressor's quantiser).
const COARSE: f64 = 0.3;
const DEAD_ZONE: f32 = 0.12;
/// A start that is larger than wanted by no more than this is not made coarser first.
const STARTED_SLACK: f64 = 1.2;
/// Steps are learnt so much more slowly than weights, as a relative change.
const STEP_RATE: f64 = 0.5;

/// A layer in training.
#[derive(Clone, Debug)]
pub struct Layer {
    /// `[O, K]`.
    pub weights: Vec<f32>,
    /// Of the weights.
    pub moments: Moments,
    /// Logarithm of the steps; empty without a grid.
    pub log_steps: Vec<f32>,
    /// Of the steps.
    pub step_moments: Moments,
    /// 0 where a weight is gone; empty when none ever goes.
    pub mask: Vec<u8>,
    /// Costs of its codes.
    pub costs: Costs,
    outputs: usize,
    k: usize,
    scale: f64,
    sparsity: (f64, f64),
    units: Units,
    dead_zone: f32,
    limit: u8,
}

/// A constant in training.
#[derive(Clone, Debug)]
pub struct Constant {
    /// Values.
    pub values: Vec<f32>,
    /// Of the values; empty for constants that stay.
    pub moments: Moments,
    scale: f64,
}

/// All that is trained.
#[derive(Clone, Debug)]
pub struct Student {
    /// By layer id.
    pub layers: Vec<Layer>,
    /// By constant id.
    pub constants: Vec<Constant>,
    fixed_bytes: f64,
}

/// Tensors of a step: what the network runs on, and the variables behind it.
pub struct Leaves {
    /// What the network runs on.
    pub parameters: Parameters,
    weights: Vec<Var>,
    log_steps: Vec<Option<Var>>,
    constants: Vec<Option<Var>>,
}

fn spread(values: &[f32]) -> f64 {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let variance = values
        .iter()
        .map(|&v| (f64::from(v) - mean).powi(2))
        .sum::<f64>()
        / n;
    variance.sqrt()
}

impl Layer {
    fn new(layer: &TrainLayer) -> Layer {
        let weights = layer.start.clone().unwrap_or_else(|| layer.weights.clone());
        let scale = spread(&weights);
        let (log_steps, dead_zone, limit) = match &layer.grid {
            Some(Grid {
                steps,
                dead_zone,
                limit,
            }) => (
                steps.iter().map(|s| s.ln()).collect(),
                *dead_zone,
                (*limit).clamp(1, 127),
            ),
            None => (Vec::new(), 0.0, 127),
        };
        let zeros = weights.iter().filter(|w| **w == 0.0).count() as f64;
        let first = zeros / weights.len().max(1) as f64;
        let pruned = layer.sparsity > 0.0;
        Layer {
            moments: Moments::new(weights.len()),
            step_moments: Moments::new(log_steps.len()),
            mask: if pruned {
                vec![1; weights.len()]
            } else {
                Vec::new()
            },
            costs: Costs::default(),
            outputs: layer.shape.out_channels as usize,
            k: layer.shape.k(),
            scale: if scale > 0.0 { scale } else { 1e-3 },
            sparsity: (first.min(layer.sparsity), layer.sparsity),
            units: Units::new(&layer.shape, if pruned { layer.block } else { 1 }),
            weights,
            log_steps,
            dead_zone,
            limit,
        }
    }

    fn steps(&self) -> Vec<f32> {
        self.log_steps.iter().map(|s| s.exp()).collect()
    }

    fn op(&self) -> Quantise {
        Quantise {
            dead_zone: self.dead_zone,
            limit: f32::from(self.limit),
        }
    }

    fn measure(&mut self) {
        if !self.log_steps.is_empty() {
            let steps = self.steps();
            self.costs = Costs::measure(&self.weights, self.k, &steps, self.dead_zone, self.limit);
        }
    }

    /// One step for the layer: it may be made coarser from the start.
    fn scalable(&self) -> bool {
        self.log_steps.len() == 1
    }

    fn rounded(&self) -> Retrained {
        if self.log_steps.is_empty() {
            return Retrained {
                weights: self.weights.clone(),
                steps: None,
            };
        }
        let steps = self.steps();
        let mut weights = vec![0.0f32; self.weights.len()];
        let rows = weights
            .chunks_mut(self.k.max(1))
            .zip(self.weights.chunks(self.k.max(1)));
        for (row, (y, w)) in rows.enumerate() {
            self.op().row(y, w, steps[row % steps.len()]);
        }
        Retrained {
            weights,
            steps: Some(steps),
        }
    }
}

impl Student {
    /// Where training begins.
    pub fn new(task: &Task, options: &Options) -> Student {
        let trained: HashSet<usize> = task
            .network
            .nodes
            .iter()
            .filter_map(|node| match &node.op {
                Op::Conv(conv) => conv.bias,
                Op::Linear { bias, .. } => *bias,
                Op::Prelu { slope } => Some(*slope),
                _ => None,
            })
            .map(|id| id.0 as usize)
            .collect();
        let constants = task.constants.iter().enumerate().map(|(i, c)| {
            let values = c.start.as_ref().unwrap_or(&c.values);
            let power = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
            let scale = (power / c.values.len().max(1) as f64).sqrt();
            Constant {
                values: values.clone(),
                moments: Moments::new(if trained.contains(&i) {
                    c.values.len()
                } else {
                    0
                }),
                scale: if scale > 0.0 { scale } else { 1e-2 },
            }
        });
        let mut student = Student {
            layers: task.layers.iter().map(Layer::new).collect(),
            constants: constants.collect(),
            fixed_bytes: options.fixed_bytes as f64,
        };
        student.measure();
        if let Some(size) = options.size {
            // Weights that are rounded already would be rounded twice: what is a little too large is left to training.
            let started = task.layers.iter().any(|l| l.start.is_some());
            let slack = if started { STARTED_SLACK } else { 1.0 };
            if student.bytes() > slack * size as f64 {
                student.coarsen(size as f64);
            }
        }
        student
    }

    /// Multiplies the steps of all layers that have one by a common factor until the estimate fits: training then only has to
    /// move bytes between layers.
    fn coarsen(&mut self, wanted: f64) {
        let original = self.layers.clone();
        let (mut low, mut high) = (0.0f64, 4.0f64);
        for _ in 0..9 {
            let factor = 0.5 * (low + high);
            for (layer, original) in self.layers.iter_mut().zip(&original) {
                if !layer.scalable() {
                    continue;
                }
                let most = (COARSEST * layer.scale)
                    .ln()
                    .max(f64::from(original.log_steps[0]));
                let step = (f64::from(original.log_steps[0]) + factor).min(most);
                layer.log_steps[0] = step as f32;
                layer.dead_zone = if step.exp() >= COARSE * layer.scale {
                    DEAD_ZONE
                } else {
                    original.dead_zone
                };
            }
            self.measure();
            if self.bytes() > wanted {
                low = factor;
            } else {
                high = factor;
            }
        }
    }

    /// Counts the codes of all layers.
    pub fn measure(&mut self) {
        self.layers.iter_mut().for_each(Layer::measure);
    }

    /// Estimated bytes of the file.
    pub fn bytes(&self) -> f64 {
        let coded: f64 = self.layers.iter().map(|l| l.costs.bytes()).sum();
        let constants: usize = self.constants.iter().map(|c| c.values.len()).sum();
        coded + self.fixed_bytes + 2.0 * constants as f64
    }

    /// Share of weights that are zero, after rounding.
    pub fn zeros(&self) -> f64 {
        let count: usize = self.layers.iter().map(|l| l.weights.len()).sum();
        let zeros: u64 = self
            .layers
            .iter()
            .map(|l| match l.log_steps.is_empty() {
                false => l.costs.zeros,
                true => l.weights.iter().filter(|w| **w == 0.0).count() as u64,
            })
            .sum();
        zeros as f64 / count.max(1) as f64
    }

    /// Removes weights as the schedule says.
    pub fn prune(&mut self, progress: f64) {
        for layer in &mut self.layers {
            if layer.mask.is_empty() {
                continue;
            }
            let (first, last) = layer.sparsity;
            let share = schedule::sparsity(first, last, progress);
            layer
                .units
                .prune(&mut layer.weights, &mut layer.mask, share);
        }
    }

    /// Variables for a step.
    pub fn leaves(&self) -> Result<Leaves, Error> {
        let mut leaves = Leaves {
            parameters: Parameters::default(),
            weights: Vec::new(),
            log_steps: Vec::new(),
            constants: Vec::new(),
        };
        for layer in &self.layers {
            let w = tensor(layer.weights.clone(), &[layer.outputs, layer.k])?;
            let w = Var::from_tensor(&w)?;
            if layer.log_steps.is_empty() {
                leaves.parameters.layers.push(w.as_tensor().clone());
                leaves.log_steps.push(None);
            } else {
                let steps = tensor(layer.log_steps.clone(), &[layer.log_steps.len()])?;
                let steps = Var::from_tensor(&steps)?;
                leaves
                    .parameters
                    .layers
                    .push(w.as_tensor().apply_op2(steps.as_tensor(), layer.op())?);
                leaves.log_steps.push(Some(steps));
            }
            leaves.weights.push(w);
        }
        for constant in &self.constants {
            let t = tensor(constant.values.clone(), &[constant.values.len()])?;
            if constant.moments.m.is_empty() {
                leaves.parameters.constants.push(t);
                leaves.constants.push(None);
            } else {
                let var = Var::from_tensor(&t)?;
                leaves.parameters.constants.push(var.as_tensor().clone());
                leaves.constants.push(Some(var));
            }
        }
        Ok(leaves)
    }

    /// The same without variables: nothing is recorded.
    pub fn fixed(&self) -> Result<Parameters, Error> {
        let mut parameters = Parameters::default();
        for layer in &self.layers {
            parameters
                .layers
                .push(tensor(layer.rounded().weights, &[layer.outputs, layer.k])?);
        }
        for constant in &self.constants {
            parameters
                .constants
                .push(tensor(constant.values.clone(), &[constant.values.len()])?);
        }
        Ok(parameters)
    }

    /// One step of the optimiser. `multiplier` is loss per bit and weight.
    pub fn update(
        &mut self,
        leaves: &Leaves,
        gradients: &GradStore,
        rate: f64,
        multiplier: f64,
        step: u64,
    ) -> Result<(), Error> {
        let count: usize = self.layers.iter().map(|l| l.weights.len()).sum();
        let per_bit = (multiplier / count.max(1) as f64) as f32;
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let Some(mut dw) = values(gradients, &leaves.weights[i])? else {
                continue;
            };
            if let Some(var) = &leaves.log_steps[i] {
                let steps = layer.steps();
                let mut ds = values(gradients, var)?.unwrap_or_else(|| vec![0.0; steps.len()]);
                layer.costs.add_gradient(
                    &layer.weights,
                    layer.k,
                    &steps,
                    per_bit,
                    &mut dw,
                    &mut ds,
                );
                let rate = (rate * STEP_RATE) as f32;
                layer
                    .step_moments
                    .step(&mut layer.log_steps, &ds, &[], rate, step);
            }
            let rate = (rate * layer.scale) as f32;
            layer
                .moments
                .step(&mut layer.weights, &dw, &layer.mask, rate, step);
        }
        for (constant, var) in self.constants.iter_mut().zip(&leaves.constants) {
            if let Some(var) = var
                && let Some(d) = values(gradients, var)?
            {
                let rate = (rate * constant.scale) as f32;
                constant
                    .moments
                    .step(&mut constant.values, &d, &[], rate, step);
            }
        }
        Ok(())
    }

    /// What the file gets.
    pub fn rounded(&self) -> Vec<Retrained> {
        self.layers.iter().map(Layer::rounded).collect()
    }
}

fn values(gradients: &GradStore, var: &Var) -> Result<Option<Vec<f32>>, Error> {
    let gradient: Option<&Tensor> = gradients.get(var.as_tensor());
    gradient
        .map(|g| Ok(with_floats(g, |g| Ok(g.to_vec()))?))
        .transpose()
}
