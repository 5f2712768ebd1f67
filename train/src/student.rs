//! The student: weights, steps, masks and constants as plain vectors, and what an optimiser keeps about them.
//!
//! A step makes tensors of them, runs the network, and takes the gradients; nothing but these vectors lives from one step to
//! the next, so a checkpoint is these vectors.

use std::collections::HashSet;
use std::sync::Arc;

use candle_core::Var;
use candle_core::backprop::GradStore;
use dcz_format::graph::Op;
use rayon::prelude::*;

use crate::error::Error;
use crate::graph::{Constant as Value, Parameters};
use crate::mask::Units;
use crate::ops::param::{Param, Pool};
use crate::ops::quantise::Quantise;
use crate::ops::vectorised;
use crate::ops::{tensor, with_floats};
use crate::optim::{Adam, Moments};
use crate::rate::{Costs, add_gradient};
use crate::schedule;
use crate::task::{Budget, Grid, Options, Retrained, Task, TrainLayer};

/// Largest step the wanted size may lead to at the start, in standard deviations.
const COARSEST: f64 = 2.5;
/// From this many standard deviations on, a step gets a dead zone (as in the compressor's quantiser).
const COARSE: f64 = 0.3;
const DEAD_ZONE: f32 = 0.12;
/// A start that is estimated larger than wanted by no more than this is not made coarser first ...
const STARTED_SLACK: f64 = 1.2;
/// ... nor by what the steps in which it shrinks can press out of it: in the one run so far prices took this share of a file in a step.
const PRESSED: f64 = 3e-4;
/// Where a step of the grid is finer than this share of the layer's spread, the optimiser's step follows the spread; constants and,
/// as a relative change, steps of grids are learnt so much more slowly than coarse weights. All weights of a small layer move at
/// once, while a coarse weight must travel half a step before anything changes. A student that begins as another file is near its
/// goal and needs less.
const FINE: f64 = 0.2;
const FINE_STARTED: f64 = 0.05;

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
    k: usize,
    scale: f64,
    fine: f64,
    sparsity: (f64, f64),
    units: Units,
    /// How far the threshold of code 1 lies above one half; the wanted size may have set it at the start.
    pub dead_zone: f32,
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
    fine: f64,
    /// It begins as another file.
    pub started: bool,
    /// What coded layers really take, relative to the estimate.
    pub coding: f64,
}

/// Values of a row that are worked on at a time: they stay in the innermost cache.
const BLOCK: usize = 2048;
/// Rows of a layer that a thread takes at least.
const ROWS: usize = 16;

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
    fn new(layer: &TrainLayer, fine: f64) -> Layer {
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
            k: layer.shape.k(),
            scale: if scale > 0.0 { scale } else { 1e-3 },
            fine,
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
            self.costs = Costs::measure(&self.weights, self.k, &steps, self.op());
        }
    }

    /// Rounds the weights and counts their codes.
    fn round(&mut self, values: &mut [f32]) {
        if self.log_steps.is_empty() {
            values.copy_from_slice(&self.weights);
        } else {
            let steps = self.steps();
            self.costs = Costs::round(values, &self.weights, self.k, &steps, self.op());
        }
    }

    /// One step of the optimiser, from the gradients of the rounded weights (which are used up): through the rounding, with
    /// the price of the bits, into weights and steps; a block of weights at a time.
    fn update(&mut self, gradient: &mut [f32], rate: f64, per_bit: f32, step: u64) {
        let steps = self.steps();
        let op = self.op();
        let table = self.costs.table();
        let adam = Adam::new((rate * self.unit(&steps)) as f32, step);
        let (k, masked) = (self.k.max(1), !self.mask.is_empty());
        let mask = &self.mask;
        let moments = self
            .moments
            .m
            .par_chunks_mut(k)
            .zip(self.moments.v.par_chunks_mut(k));
        // Per row: of the logarithm of its step.
        let sums: Vec<f32> = self
            .weights
            .par_chunks_mut(k)
            .zip(gradient.par_chunks_mut(k))
            .zip(moments)
            .enumerate()
            .with_min_len(ROWS)
            .map(|(row, ((w, d), (m, v)))| {
                let step = steps.get(row % steps.len().max(1)).copied();
                let mut sum = 0.0;
                for at in (0..w.len()).step_by(BLOCK) {
                    let to = (at + BLOCK).min(w.len());
                    let (w, d) = (&mut w[at..to], &mut d[at..to]);
                    let (m, v) = (&mut m[at..to], &mut v[at..to]);
                    let mask = if masked {
                        &mask[row * k + at..row * k + to]
                    } else {
                        &[]
                    };
                    vectorised(
                        #[inline(always)]
                        || {
                            if let Some(step) = step {
                                sum += op.row_backward(d, w, step);
                                if per_bit != 0.0 {
                                    sum -=
                                        per_bit * add_gradient(&table, w, 1.0 / step, per_bit, d);
                                }
                            }
                            adam.apply(w, d, m, v, mask);
                        },
                    );
                }
                sum
            })
            .collect();
        let mut gradient = vec![0.0f32; steps.len()];
        for (row, sum) in sums.iter().enumerate().filter(|_| !steps.is_empty()) {
            gradient[row % steps.len()] += sum;
        }
        let rate = (rate * self.fine) as f32;
        self.step_moments
            .step(&mut self.log_steps, &gradient, &[], rate, step);
    }

    /// What the rate of learning is relative to: the mean step, or without one the spread.
    fn unit(&self, steps: &[f32]) -> f64 {
        let sum: f64 = steps.iter().copied().map(f64::from).sum();
        match steps.len() {
            0 => self.scale,
            count => (sum / count as f64).max(self.fine * self.scale),
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
        let started = task.layers.iter().any(|l| l.start.is_some());
        let fine = if started { FINE_STARTED } else { FINE };
        let mut student = Student {
            layers: task.layers.iter().map(|l| Layer::new(l, fine)).collect(),
            fine,
            started,
            constants: constants.collect(),
            fixed_bytes: options.fixed_bytes as f64,
            coding: 1.0,
        };
        student.measure();
        if let Some(size) = options.size {
            // Weights that are rounded already would be rounded twice: what is too large is left to training.
            let slack = match options.budget {
                _ if !started => 1.0,
                Budget::Steps(steps) => {
                    let pressed = PRESSED * schedule::SHRINKING_ENDS * steps as f64;
                    pressed.exp().clamp(STARTED_SLACK, 2.0)
                }
                Budget::Seconds(_) => STARTED_SLACK,
            };
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
        self.coding * self.coded() + self.other()
    }

    /// Bytes of layers on a grid, as estimated from the entropy of their codes.
    fn coded(&self) -> f64 {
        self.layers.iter().map(|l| l.costs.bytes()).sum()
    }

    fn other(&self) -> f64 {
        let constants: usize = self.constants.iter().map(|c| c.values.len()).sum();
        self.fixed_bytes + 2.0 * constants as f64
    }

    /// Corrects the estimate by the size of the file that was really coded; codes have been counted before.
    pub fn correct(&mut self, bytes: f64) {
        let (coded, rest) = (self.coded(), bytes - self.other());
        if coded > 0.0 && rest > 0.0 {
            self.coding = (rest / coded).clamp(0.25, 4.0);
        }
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

    /// What the network runs on in a step; counts the codes of all layers as well.
    pub fn leaves(&mut self, pool: &Pool) -> Result<Parameters, Error> {
        let mut parameters = Parameters {
            trained: true,
            ..Parameters::default()
        };
        for layer in &mut self.layers {
            let mut values = pool.take(layer.weights.len());
            layer.round(&mut values);
            parameters.layers.push(Param::trained(values));
        }
        for constant in &self.constants {
            let t = tensor(constant.values.clone(), &[constant.values.len()])?;
            let value = if constant.moments.m.is_empty() {
                Value {
                    tensor: t,
                    param: Param::fixed(constant.values.clone()),
                }
            } else {
                Value {
                    tensor: Var::from_tensor(&t)?.into_inner(),
                    param: Param::trained(constant.values.clone()),
                }
            };
            parameters.constants.push(value);
        }
        Ok(parameters)
    }

    /// The same without gradients.
    pub fn fixed(&self) -> Result<Parameters, Error> {
        let mut parameters = Parameters::default();
        for layer in &self.layers {
            parameters
                .layers
                .push(Param::fixed(layer.rounded().weights));
        }
        for constant in &self.constants {
            parameters.constants.push(Value::fixed(&constant.values)?);
        }
        Ok(parameters)
    }

    /// One step of the optimiser. `multiplier` is loss per bit and weight.
    pub fn update(
        &mut self,
        parameters: Parameters,
        gradients: &GradStore,
        rate: f64,
        multiplier: f64,
        step: u64,
        pool: &Pool,
    ) -> Result<(), Error> {
        let count: usize = self.layers.iter().map(|l| l.weights.len()).sum();
        let per_bit = (multiplier / count.max(1) as f64) as f32;
        for (layer, param) in self.layers.iter_mut().zip(parameters.layers) {
            let mut gradient = param.sink.map(|s| s.take()).unwrap_or_default();
            if gradient.len() == layer.weights.len() {
                layer.update(&mut gradient, rate, per_bit, step);
            }
            pool.give(gradient);
            if let Ok(values) = Arc::try_unwrap(param.values) {
                pool.give(values);
            }
        }
        for (constant, value) in self.constants.iter_mut().zip(&parameters.constants) {
            let Some(sink) = &value.param.sink else {
                continue;
            };
            if let Some(gradient) = gradients.get(&value.tensor) {
                sink.add(with_floats(gradient, |g| Ok(g.to_vec()))?);
            }
            let gradient = sink.take();
            if gradient.len() == constant.values.len() {
                let rate = (rate * self.fine * constant.scale) as f32;
                constant
                    .moments
                    .step(&mut constant.values, &gradient, &[], rate, step);
            }
        }
        Ok(())
    }

    /// Values by constant id.
    pub fn constant_values(&self) -> Vec<Vec<f32>> {
        self.constants.iter().map(|c| c.values.clone()).collect()
    }

    /// What the file gets.
    pub fn rounded(&self) -> Vec<Retrained> {
        self.layers.iter().map(Layer::rounded).collect()
    }
}
