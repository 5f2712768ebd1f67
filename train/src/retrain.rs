//! The loop: batch, teacher, student, gradients, step; masks, size and learning rate by schedule; checkpoints between.

use std::time::Instant;

use candle_core::D;
use dcz_format::graph::{Dim, Meaning, Network, Op, Output};

use crate::checkpoint::{self, Progress};
use crate::data::Batches;
use crate::error::Error;
use crate::graph::{Constant, Graph, Parameters};
use crate::loss::{Losses, cosine, l2};
use crate::ops::param::Param;
use crate::rate::Controller;
use crate::schedule;
use crate::student::Student;
use crate::task::{Budget, Control, Event, Options, Outcome, Record, Retrained, Source, Task};

/// Points of the curve, and the steps between two at least: measuring costs about as much as two steps.
const POINTS: f64 = 20.0;
const LEAST_STEPS: u64 = 8;
/// The estimate is held this share below the wanted size: it is corrected only now and then.
const SIZE_SLACK: f64 = 0.005;
/// What the first price of a bit is multiplied by when the student begins as a file that is small enough: coded weights that are all
/// pulled alike reach zero together, and come back one by one.
const WITHIN: f64 = 0.05;

/// Channels, height and width of the network's input.
fn input_dims(network: &Network) -> Result<[usize; 3], Error> {
    let dims = network
        .inputs
        .first()
        .and_then(|id| network.tensors.get(id.0 as usize))
        .map(|t| t.dims.as_slice())
        .unwrap_or_default();
    match dims {
        [_, Dim::Fixed(c), Dim::Fixed(h), Dim::Fixed(w)] => {
            Ok([*c as usize, *h as usize, *w as usize])
        }
        _ => Err(Error::Unsupported(
            "retraining is for networks whose first input is one image of fixed size".into(),
        )),
    }
}

/// FNV-1a over what a checkpoint must agree with. The budget may change.
fn fingerprint(task: &Task, source: &dyn Source, options: &Options) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for layer in &task.layers {
        add(layer.name.as_bytes());
        let place = layer.weights.len() / 97 + 1;
        for w in layer.weights.iter().step_by(place) {
            add(&w.to_bits().to_le_bytes());
        }
        for w in layer.start.iter().flatten().step_by(place) {
            add(&w.to_bits().to_le_bytes());
        }
        add(format!("{:?} {} {}", layer.grid, layer.sparsity, layer.block).as_bytes());
    }
    let o = options;
    let text = format!(
        "{:?} {} {} {} {:?} {:?} {:?} {} {} {}",
        o.losses,
        o.batch,
        o.learning_rate,
        o.seed,
        o.variants,
        o.augment,
        o.size,
        o.prune_every,
        source.len(),
        source.held_out()
    );
    add(text.as_bytes());
    hash
}

/// Bytes of a file with these layers and constants.
pub type Coded<'a> = dyn FnMut(&[Retrained], &[Vec<f32>]) -> Result<f64, Error> + 'a;

/// Retrains a network with the original as its teacher.
///
/// `coded` says how many bytes a file with such layers and constants takes; it is asked with every point of the curve when a
/// size is wanted. `report` is called after every step and says whether to go on. Errors: [`Error::Unsupported`] naming a node that has no
/// gradient, [`Error::Input`] for images, labels or options that do not fit, [`Error::Io`] for checkpoints,
/// [`Error::Interrupted`] when `report` asked to stop, [`Error::Numeric`] when the loss is no longer finite.
pub fn retrain(
    task: &Task,
    source: &dyn Source,
    options: &Options,
    coded: &mut Coded,
    report: &mut dyn FnMut(&Event) -> Control,
) -> Result<Outcome, Error> {
    if options.batch == 0 {
        return Err(Error::Input("a batch must hold at least one image".into()));
    }
    let mut network = task.network.clone();
    if options.losses.features().is_some() {
        let read = last_read(&network)?;
        network.outputs.push(read);
    }
    let graph = Graph {
        network: &network,
        shapes: task.layers.iter().map(|l| l.shape).collect(),
        constant_dims: task.constants.iter().map(|c| c.dims.clone()).collect(),
        pool: Default::default(),
    };
    let teacher = teacher(task)?;
    let dims = input_dims(&task.network)?;
    let batches = Batches::new(source, &graph, teacher, dims, options)?;
    let mark = fingerprint(task, source, options);
    let mut student = Student::new(task, options);
    let mut progress = Progress {
        step: 0,
        seconds: 0.0,
        integral: None,
        pending: (0.0, 0),
        curve: Vec::new(),
    };
    if let Some(folder) = &options.checkpoint
        && let Some(known) = checkpoint::load(folder, &mut student, mark)?
    {
        progress = known;
    }
    let mut run = Run {
        options,
        graph: &graph,
        outputs: task.network.outputs.len(),
        batches,
        student,
        progress,
        mark,
        speed: None,
        pruned: false,
    };
    run.all(coded, report)?;
    Ok(Outcome {
        layers: run.student.rounded(),
        constants: run.student.constant_values(),
        steps: run.progress.step,
        seconds: run.progress.seconds,
        bytes: run.student.bytes(),
        curve: run.progress.curve,
    })
}

/// What the last layer reads, as an output.
fn last_read(network: &Network) -> Result<Output, Error> {
    let last = network.nodes.iter().rev();
    let mut layers = last.filter(|n| matches!(n.op, Op::Conv(_) | Op::Linear { .. }));
    let tensor = layers.next().and_then(|node| node.inputs.first().copied());
    Ok(Output {
        tensor: tensor.ok_or_else(|| Error::Unsupported("the network has no layer".into()))?,
        meaning: Meaning::Unknown,
    })
}

/// The original weights; nothing is recorded about them.
fn teacher(task: &Task) -> Result<Parameters, Error> {
    let mut parameters = Parameters::default();
    for layer in &task.layers {
        parameters.layers.push(Param::fixed(layer.weights.clone()));
    }
    for constant in &task.constants {
        parameters
            .constants
            .push(Constant::fixed(&constant.values)?);
    }
    Ok(parameters)
}

struct Run<'a> {
    options: &'a Options,
    graph: &'a Graph<'a>,
    /// Outputs of the network; one more is the features.
    outputs: usize,
    batches: Batches<'a>,
    student: Student,
    progress: Progress,
    mark: u64,
    /// Seconds per step, smoothed.
    speed: Option<f64>,
    /// The schedule of pruning has ended.
    pruned: bool,
}

impl Run<'_> {
    fn share(&self) -> f64 {
        match self.options.budget {
            Budget::Steps(steps) => self.progress.step as f64 / steps.max(1) as f64,
            Budget::Seconds(seconds) => self.progress.seconds / seconds.max(1e-9),
        }
    }

    /// What one step is of the training.
    fn step_share(&self) -> f64 {
        match self.options.budget {
            Budget::Steps(steps) => 1.0 / steps.max(1) as f64,
            Budget::Seconds(seconds) => self.speed.unwrap_or(0.0) / seconds.max(1e-9),
        }
    }

    fn all(
        &mut self,
        coded: &mut Coded,
        report: &mut dyn FnMut(&Event) -> Control,
    ) -> Result<(), Error> {
        self.student.measure();
        if self.progress.curve.is_empty() {
            let loss = f64::NAN;
            self.record(loss, coded)?;
        }
        let mut saved = Instant::now();
        let last = self.progress.curve.last().map_or(0, |r| r.step);
        let mut recorded_at = match self.options.budget {
            Budget::Steps(steps) => last as f64 / steps.max(1) as f64,
            Budget::Seconds(_) => self.share(),
        };
        while self.share() < 1.0 {
            let start = Instant::now();
            let before = self.share();
            let loss = self.step(before)?;
            let took = start.elapsed().as_secs_f64();
            self.progress.seconds += took;
            self.speed = Some(self.speed.map_or(took, |s| 0.9 * s + 0.1 * took));
            if self.share() >= 1.0 && !self.pruned {
                self.student.prune(1.0);
                self.pruned = true;
            }
            let last = self.progress.curve.last().map_or(0, |r| r.step);
            let recorded = self.share() >= 1.0
                || (self.share() >= recorded_at + 1.0 / POINTS
                    && self.progress.step >= last + LEAST_STEPS);
            if recorded {
                recorded_at = self.share();
                let (sum, count) = self.progress.pending;
                self.progress.pending = (0.0, 0);
                self.student.measure();
                self.record(sum / count.max(1) as f64, coded)?;
                self.progress.seconds += start.elapsed().as_secs_f64() - took;
            }
            let control = report(&self.event(loss, recorded));
            let due = saved.elapsed().as_secs_f64() >= self.options.checkpoint_seconds;
            let ends = self.share() >= 1.0 || control == Control::Stop;
            if let Some(folder) = &self.options.checkpoint
                && (due || ends)
            {
                checkpoint::save(folder, &self.student, &self.progress, self.mark)?;
                saved = Instant::now();
            }
            if control == Control::Stop && self.share() < 1.0 {
                return Err(Error::Interrupted(match &self.options.checkpoint {
                    Some(folder) => format!(
                        "stopped after step {}; {} holds the work so far, the same command goes on from there",
                        self.progress.step,
                        folder.display()
                    ),
                    None => format!(
                        "stopped after step {}; nothing was kept, because no --checkpoint was given",
                        self.progress.step
                    ),
                }));
            }
        }
        Ok(())
    }

    /// One step of training; the loss before it.
    fn step(&mut self, share: f64) -> Result<f64, Error> {
        let step = self.progress.step;
        // Once more than the interval says when the schedule ends: a short run reaches its sparsity too.
        let ends = share >= schedule::PRUNING_ENDS && !self.pruned;
        if ends || step.is_multiple_of(self.options.prune_every.max(1)) {
            self.student.prune(share);
            self.pruned = share >= schedule::PRUNING_ENDS;
        }
        let batch = self.batches.training(step, self.options.batch)?;
        let parameters = self.student.leaves(&self.graph.pool)?;
        let outputs = self.graph.run(&batch.input, &parameters)?;
        let labels = batch.labels.as_deref();
        let losses = &self.options.losses;
        let (loss, value) = total_loss(losses, self.outputs, &outputs, &batch.teacher, labels)?;
        if !value.is_finite() {
            return Err(Error::Numeric(format!(
                "the loss is {value} in step {}; a smaller --learning-rate may help",
                step + 1
            )));
        }
        let gradients = loss.backward()?;
        drop((loss, outputs));
        let multiplier = self.multiplier(value);
        let rate = self.options.learning_rate * schedule::learning_rate(share);
        self.student.update(
            parameters,
            &gradients,
            rate,
            multiplier,
            step + 1,
            &self.graph.pool,
        )?;
        self.progress.step += 1;
        self.progress.pending.0 += value;
        self.progress.pending.1 += 1;
        Ok(value)
    }

    /// Loss per bit and weight that holds the wanted size; 0 without one.
    fn multiplier(&mut self, loss: f64) -> f64 {
        let Some(size) = self.options.size else {
            return 0.0;
        };
        let bytes = self.student.bytes();
        let start = self.progress.curve.first().filter(|_| self.student.started);
        let begun = start.map_or(0.0, |record| record.bytes);
        let last = size as f64 * (1.0 - SIZE_SLACK);
        let wanted = schedule::size(begun, last, self.share());
        let mut controller = match self.progress.integral {
            Some(integral) => Controller { integral },
            None if self.student.started && bytes <= last => Controller::new(loss * WITHIN),
            None => Controller::new(loss),
        };
        let multiplier = controller.update(bytes, wanted, loss, self.step_share());
        self.progress.integral = Some(controller.integral);
        multiplier
    }

    fn record(&mut self, loss: f64, coded: &mut Coded) -> Result<(), Error> {
        if self.options.size.is_some() {
            let student = &mut self.student;
            let bytes = coded(&student.rounded(), &student.constant_values())?;
            student.correct(bytes);
        }
        let parameters = self.student.fixed()?;
        let (mut sum, mut count) = (0.0, 0);
        for batch in self.batches.held_out(self.options.batch)? {
            let outputs = self.graph.run(&batch.input, &parameters)?;
            let pairs = outputs.iter().zip(&batch.teacher);
            for (student, teacher) in pairs.take(self.outputs) {
                let values = cosine(student, teacher)?.flatten_all()?.to_vec1::<f32>()?;
                sum += values.iter().map(|&v| f64::from(v)).sum::<f64>();
                count += values.len();
            }
        }
        self.progress.curve.push(Record {
            step: self.progress.step,
            loss,
            held_out: sum / count.max(1) as f64,
            bytes: self.student.bytes(),
            zeros: self.student.zeros(),
        });
        Ok(())
    }

    fn event(&self, loss: f64, recorded: bool) -> Event<'_> {
        let per_step = self.speed.unwrap_or(0.0);
        let eta = match self.options.budget {
            Budget::Steps(steps) => per_step * steps.saturating_sub(self.progress.step) as f64,
            Budget::Seconds(seconds) => (seconds - self.progress.seconds).max(0.0),
        };
        Event {
            step: self.progress.step,
            progress: self.share().min(1.0),
            loss,
            rate: self.options.batch as f64 / per_step.max(1e-9),
            eta,
            bytes: self.student.bytes(),
            curve: &self.progress.curve,
            recorded,
        }
    }
}

/// The losses of all outputs, added.
fn total_loss(
    losses: &Losses,
    of_network: usize,
    student: &[candle_core::Tensor],
    teacher: &[candle_core::Tensor],
    labels: Option<&[u32]>,
) -> Result<(candle_core::Tensor, f64), Error> {
    let mut total = None;
    for (i, (s, t)) in student.iter().zip(teacher).enumerate() {
        debug_assert_eq!(s.dim(D::Minus1).ok(), t.dim(D::Minus1).ok());
        let loss = match losses.features().filter(|_| i >= of_network) {
            Some(weight) => Some((l2(s, t)? * weight)?),
            None => losses.compute(s, t, labels)?,
        };
        total = match (total, loss) {
            (Some(sum), Some(loss)) => Some((sum + loss)?),
            (sum, loss) => sum.or(loss),
        };
    }
    let total = total.ok_or_else(|| Error::Input("no loss was named".into()))?;
    let value = f64::from(total.to_scalar::<f32>()?);
    Ok((total, value))
}
