//! The two networks of a pipeline, under one memory budget.
//!
//! Detector and embedder have a session each, over one shared model. They never run at the same time, so they pass one arena
//! to and fro: what is held is the larger of the two, not the sum. A budget in bytes covers both sessions and the buffers
//! between them. It is divided when an input size needs more than was held before: both networks are planned as small as they can be,
//! what is left goes to the embedder (it runs once per face), the rest to the detector. Plans are kept per input size as long as the
//! division stays. Cost: up to four plannings per division; under a budget in bytes the last bits of a result may therefore
//! depend on the sizes seen before.

use crate::error::{Error, Result};
use crate::input;
use dcz::{ErrorKind, MemoryBudget, Model, Profile, RowSource, RowsRef, Session, SessionOptions};
use dcz_format::pipeline::Pipeline;

/// Kinds of outputs of a stride, with values per cell.
pub(crate) const KINDS: [(&str, usize); 4] = [("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)];

/// One network and its session.
#[derive(Debug)]
struct Stage {
    network: u32,
    session: Session,
    input: String,
}

impl Stage {
    fn new(model: &Model, network: u32, options: &SessionOptions) -> Result<Stage> {
        let records = model.networks().get(network as usize);
        let records = records.ok_or(Error::NoPipeline)?;
        let options = options
            .clone()
            .with_network(records.name.clone())
            .with_input_by_rows(true);
        let input = records.inputs.first();
        let input = input.and_then(|id| records.tensors.get(id.0 as usize));
        Ok(Stage {
            network,
            session: Session::new(model, options)?,
            input: input.map_or(String::new(), |tensor| tensor.name.clone()),
        })
    }

    fn total(&self) -> u64 {
        self.session.memory().total
    }
    /// Maps and scratch are one piece of memory.
    fn arena(&self) -> u64 {
        let memory = self.session.memory();
        memory.arena + memory.workspace
    }
}

/// Both sessions.
#[derive(Debug)]
pub(crate) struct Stages {
    model: Model,
    options: SessionOptions,
    detector: Stage,
    embedder: Stage,
    /// The budget has been divided, for some size.
    divided: bool,
    /// Shape of the embedder's input; name and length of its vector.
    crop: [usize; 4],
    vector: (String, usize),
    /// The detector's outputs, stride by stride in the order of [`KINDS`], with the length of each for the size prepared last.
    outputs: Vec<(String, usize)>,
    strides: Vec<u32>,
}

impl Stages {
    /// Plans the embedder with all of the budget but `buffers` bytes.
    pub fn new(
        model: &Model,
        record: &Pipeline,
        options: &SessionOptions,
        buffers: u64,
    ) -> Result<Stages> {
        let strides = record.detect.strides.clone();
        let names = |stride: &u32| KINDS.map(|(kind, _)| (format!("{kind}_{stride}"), 0));
        let [width, height] = record.align.size.map(|v| v as usize);
        let mut stages = Stages {
            model: model.clone(),
            options: options.clone(),
            detector: Stage::new(model, record.detect.network, options)?,
            embedder: Stage::new(model, record.embed.network, options)?,
            divided: false,
            crop: [1, input::channels(&record.embed.pixels), height, width],
            vector: Default::default(),
            outputs: strides.iter().flat_map(names).collect(),
            strides,
        };
        stages.check_ports()?;
        let budget = match options.memory_budget {
            MemoryBudget::Bytes(bytes) => MemoryBudget::Bytes(bytes.saturating_sub(buffers)),
            other => other,
        };
        stages
            .plan_embedder(budget)
            .map_err(|e| match (smallest(&e), options.memory_budget) {
                (Some(least), MemoryBudget::Bytes(budget)) => too_small(budget, least + buffers),
                _ => e,
            })?;
        Ok(stages)
    }

    /// The instruction set of the sessions.
    pub fn isa(&self) -> dcz::Isa {
        self.detector.session.isa()
    }

    /// Length of an embedding.
    pub fn vector_len(&self) -> usize {
        self.vector.1
    }

    /// Lengths of the detector's outputs, stride by stride, for an input of this size.
    pub fn output_lens(&self, width: usize, height: usize) -> impl Iterator<Item = usize> + '_ {
        self.strides.iter().flat_map(move |stride| {
            let stride = (*stride).max(1) as usize;
            let cells = (width / stride) * (height / stride);
            KINDS.map(|(_, values)| cells * values)
        })
    }

    /// Bytes of the shared arena, and of either session beside it.
    pub fn memory(&self) -> [u64; 3] {
        let (detector, embedder) = (&self.detector, &self.embedder);
        [
            detector.arena().max(embedder.arena()),
            detector.total() - detector.arena(),
            embedder.total() - embedder.arena(),
        ]
    }

    pub fn set_profiling(&mut self, on: bool) {
        self.detector.session.set_profiling(on);
        self.embedder.session.set_profiling(on);
    }

    pub fn profiles(&self) -> [Option<Profile>; 2] {
        [&self.detector, &self.embedder].map(|stage| stage.session.profile())
    }

    fn held(&self) -> u64 {
        self.memory().iter().sum()
    }

    /// Plans for a detector's input of these dimensions, `buffers` bytes being held beside the sessions.
    pub fn prepare_detector(&mut self, dims: &[usize; 4], buffers: u64) -> Result<()> {
        let lens: Vec<usize> = self.output_lens(dims[3], dims[2]).collect();
        for (output, len) in self.outputs.iter_mut().zip(lens) {
            output.1 = len;
        }
        let MemoryBudget::Bytes(budget) = self.options.memory_budget else {
            return self.plan_detector(dims);
        };
        if self.divided {
            match self.plan_detector(dims) {
                Ok(()) if self.held() + buffers <= budget => return Ok(()),
                Err(e) if smallest(&e).is_none() => return Err(e),
                _ => self.divided = false,
            }
        }
        self.divide(budget, buffers, dims)?;
        self.divided = true;
        Ok(())
    }

    fn divide(&mut self, budget: u64, buffers: u64, dims: &[usize; 4]) -> Result<()> {
        self.plan_embedder(MemoryBudget::Min)?;
        self.replan_detector(MemoryBudget::Min, dims)?;
        let least = self.held() + buffers;
        if least > budget {
            return Err(too_small(budget, least));
        }
        // An arena of another size may change what is shared, hence the second attempt and the way back.
        let mut spare = budget - least;
        for _ in 0..2 {
            self.plan_embedder(MemoryBudget::Bytes(self.embedder.total() + spare))?;
            let held = self.held() + buffers;
            if held <= budget {
                break;
            }
            self.plan_embedder(MemoryBudget::Min)?;
            spare = spare.saturating_sub(held - budget);
        }
        let mut spare = budget.saturating_sub(self.held() + buffers);
        for _ in 0..2 {
            self.replan_detector(MemoryBudget::Bytes(self.detector.total() + spare), dims)?;
            let held = self.held() + buffers;
            if held <= budget {
                return Ok(());
            }
            self.replan_detector(MemoryBudget::Min, dims)?;
            spare = spare.saturating_sub(held - budget);
        }
        Ok(())
    }

    fn replan_detector(&mut self, budget: MemoryBudget, dims: &[usize; 4]) -> Result<()> {
        let options = self.options.clone().with_memory_budget(budget);
        self.detector = Stage::new(&self.model, self.detector.network, &options)?;
        self.plan_detector(dims)
    }

    fn plan_detector(&mut self, dims: &[usize; 4]) -> Result<()> {
        let name = self.detector.session.network().name.clone();
        let (detector, embedder) = (&mut self.detector, &mut self.embedder);
        embedder.session.pass_arena(&mut detector.session)?;
        let plan = detector
            .session
            .prepare(&[(detector.input.as_str(), &dims[..])]);
        let plan = plan.map_err(|e| match e.kind() {
            ErrorKind::Shape(_) => Error::Image(format!(
                "the detector {name} cannot take {}x{} pixels: {e}",
                dims[3], dims[2]
            )),
            _ => e.into(),
        })?;
        for (output, len) in &self.outputs {
            let found = plan.output_len(output).unwrap_or(0);
            if found != *len {
                let why = format!(
                    "output {output} has {found} values where {len} are due for an input of {}x{}",
                    dims[3], dims[2]
                );
                return Err(misfit("detector", &name, why));
            }
        }
        Ok(())
    }

    fn plan_embedder(&mut self, budget: MemoryBudget) -> Result<()> {
        let options = self.options.clone().with_memory_budget(budget);
        self.embedder = Stage::new(&self.model, self.embedder.network, &options)?;
        let (detector, embedder) = (&mut self.detector, &mut self.embedder);
        detector.session.pass_arena(&mut embedder.session)?;
        let network = embedder.session.network();
        let name = network.name.clone();
        let output = network.outputs.first();
        let output = output.and_then(|o| network.tensors.get(o.tensor.0 as usize));
        let output = output.map_or(String::new(), |tensor| tensor.name.clone());
        let plan = embedder
            .session
            .prepare(&[(embedder.input.as_str(), &self.crop[..])]);
        let plan = plan.map_err(|e| match e.kind() {
            ErrorKind::Shape(_) => misfit("embedder", &name, e.to_string()),
            _ => e.into(),
        })?;
        self.vector = (output.clone(), plan.output_len(&output).unwrap_or(0));
        Ok(())
    }

    /// Runs the detector on prepared dimensions.
    pub fn detect(
        &mut self,
        dims: &[usize; 4],
        source: &dyn RowSource,
        outputs: &mut [Vec<f32>],
    ) -> Result<()> {
        let (detector, embedder) = (&mut self.detector, &mut self.embedder);
        embedder.session.pass_arena(&mut detector.session)?;
        let names = self.outputs.iter().map(|(name, _)| name.as_str());
        let mut outputs: Vec<(&str, &mut [f32])> = names
            .zip(outputs.iter_mut().map(Vec::as_mut_slice))
            .collect();
        let input = (detector.input.as_str(), RowsRef { dims, source });
        Ok(detector.session.run_rows(&[input], &mut outputs)?)
    }

    /// Runs the embedder on a crop.
    pub fn embed(&mut self, source: &dyn RowSource) -> Result<Vec<f32>> {
        let (detector, embedder) = (&mut self.detector, &mut self.embedder);
        detector.session.pass_arena(&mut embedder.session)?;
        let dims = &self.crop[..];
        let (name, len) = &self.vector;
        let mut vector = vec![0.0; *len];
        let input = (embedder.input.as_str(), RowsRef { dims, source });
        embedder
            .session
            .run_rows(&[input], &mut [(name.as_str(), &mut vector)])?;
        Ok(vector)
    }

    /// Either network has one input; the detector has the outputs of every stride.
    fn check_ports(&self) -> Result<()> {
        for (stage, role) in [(&self.detector, "detector"), (&self.embedder, "embedder")] {
            let network = stage.session.network();
            if network.inputs.len() != 1 {
                let why = format!("has {} inputs, not one", network.inputs.len());
                return Err(misfit(role, &network.name, why));
            }
        }
        let network = self.detector.session.network();
        let known = |name: &str| {
            let mut outputs = network.outputs.iter();
            outputs.any(|output| {
                let tensor = network.tensors.get(output.tensor.0 as usize);
                tensor.is_some_and(|tensor| tensor.name == name)
            })
        };
        match self.outputs.iter().find(|(name, _)| !known(name)) {
            Some((missing, _)) => Err(misfit(
                "detector",
                &network.name,
                format!("has no output {missing}; YuNet's outputs are needed"),
            )),
            None => Ok(()),
        }
    }
}

fn misfit(stage: &'static str, network: &str, why: String) -> Error {
    Error::Network {
        stage,
        network: network.into(),
        why,
    }
}

fn too_small(budget: u64, smallest_feasible: u64) -> Error {
    let kind = ErrorKind::BudgetTooSmall {
        budget,
        smallest_feasible,
    };
    Error::Runtime(kind.into())
}

/// The smallest feasible budget, when that is the trouble.
fn smallest(error: &Error) -> Option<u64> {
    match error {
        Error::Runtime(error) => match error.kind() {
            ErrorKind::BudgetTooSmall {
                smallest_feasible, ..
            } => Some(*smallest_feasible),
            _ => None,
        },
        _ => None,
    }
}
