//! Running a network: [`Session::prepare`] plans and allocates, [`Session::run`] computes and
//! allocates nothing.

use crate::arena::Arena;
use crate::error::{Error, ErrorKind, Result};
use crate::exec::{Exec, Io, StepTime, Worker};
use crate::input::{Feed, Inputs, RowsRef, TensorRef};
use crate::liveness::Span;
use crate::memory::{give_back_code, give_back_heap};
use crate::model::Model;
use crate::plan::{Memory, Plan};
use crate::planner::Fixed;
use crate::profile::{Profile, StepProfile};
use crate::program::{Program, Resident};
use crate::resident::{ResidentLayer, Source, Wanted};
use crate::shape::{self, Dims};
use crate::threads::{Team, Threads};
use crate::weights::LayerInfo;
use dcz_format::TileDecoder;
use dcz_format::graph::{ConstId, Network};
pub use dcz_format::selftest::generate;
use dcz_kernels::Isa;
use std::sync::Arc;
use std::time::Duration;

mod choose;

/// Output error that is accepted unless the caller asks otherwise, relative to the largest
/// magnitude of an output.
pub const MAX_RELATIVE_ERROR: f32 = 2e-5;

/// How much memory a session may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryBudget {
    /// As little as the network can do with.
    Min,
    /// Whatever is fastest.
    #[default]
    Max,
    /// At most this many bytes (see [`Memory`] for what counts).
    Bytes(u64),
}

/// Options of a session. Start from `default()` and set what differs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionOptions {
    /// Name of the network; needed when the file has several.
    pub network: Option<String>,
    /// Where to compute.
    pub threads: Threads,
    /// How much memory to hold.
    pub memory_budget: MemoryBudget,
    /// Largest output error, relative to the largest magnitude of an output, that planning may
    /// accept for speed. Zero: one order of sums, hence the same bits, under every budget.
    pub max_relative_error: f32,
    /// How long an idle thread of the session's own waits actively for the others within a run before it sleeps; zero in
    /// services that share the machine.
    pub spin: Duration,
    /// Number of plans (one per set of input shapes) kept ready; at least 1.
    pub plan_cache: usize,
    /// Instruction set; `None`: the fastest, or what the environment variable `DCZ_ISA` names.
    pub isa: Option<Isa>,
    /// Give the mapped pages of a layer back after its use, the heap that planning leaves before the arena is allocated, and the pages of
    /// this code before and after planning (Linux; the program's own, if dcz is a part of it). Keeps the
    /// resident size small at the price of mapping pages again in the next run.
    pub release_pages: bool,
    /// Inputs are made row by row while they are needed ([`Session::run_rows`]), so that under a small budget no input
    /// exists as a whole.
    pub input_by_rows: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            network: None,
            threads: Threads::Inline,
            memory_budget: MemoryBudget::Max,
            max_relative_error: MAX_RELATIVE_ERROR,
            spin: Duration::from_millis(1),
            plan_cache: 4,
            isa: None,
            release_pages: false,
            input_by_rows: false,
        }
    }
}

impl SessionOptions {
    /// Sets the network.
    pub fn with_network(mut self, name: impl Into<String>) -> Self {
        self.network = Some(name.into());
        self
    }
    /// Sets where to compute.
    pub fn with_threads(mut self, threads: Threads) -> Self {
        self.threads = threads;
        self
    }
    /// Sets the memory budget.
    pub fn with_memory_budget(mut self, budget: MemoryBudget) -> Self {
        self.memory_budget = budget;
        self
    }
    /// Sets the instruction set.
    pub fn with_isa(mut self, isa: Isa) -> Self {
        self.isa = Some(isa);
        self
    }
    /// Sets the number of plans kept ready.
    pub fn with_plan_cache(mut self, plans: usize) -> Self {
        self.plan_cache = plans;
        self
    }
    /// Sets whether mapped pages are given back after each layer, and free heap after planning.
    pub fn with_release_pages(mut self, release: bool) -> Self {
        self.release_pages = release;
        self
    }
    /// Sets whether inputs are made row by row.
    pub fn with_input_by_rows(mut self, by_rows: bool) -> Self {
        self.input_by_rows = by_rows;
        self
    }
}

/// Outcome of a self-test.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SelfTestReport {
    /// Largest difference of a sampled output value from the f64 oracle, relative to the largest
    /// magnitude of that output.
    pub output_error: f64,
    /// Difference of an output's Euclidean norm, relative to what a difference of the largest
    /// magnitude in every element would give.
    pub norm_error: f64,
    /// Both errors must not exceed this.
    pub tolerance: f64,
    /// Values compared.
    pub samples: usize,
}

impl SelfTestReport {
    /// Tolerance of the self-test on every instruction set.
    pub const TOLERANCE: f64 = 1e-4;

    /// Both errors are within the tolerance (and are numbers).
    pub fn passed(&self) -> bool {
        self.output_error <= self.tolerance && self.norm_error <= self.tolerance
    }
}

/// One network of a model, ready to run. `'static` and `Send`; make one per thread of a service.
#[derive(Debug)]
pub struct Session {
    model: Model,
    net: usize,
    options: SessionOptions,
    isa: Isa,
    team: Team,
    /// Loaded by the first `prepare`.
    resources: Option<Resources>,
    arena: Arena,
    workers: Vec<Worker>,
    cache: Vec<Compiled>,
    /// Counts uses of plans.
    clock: u64,
    profiling: bool,
    /// Position of each network input among the caller's, in the current run.
    input_order: Vec<usize>,
    /// The same for outputs.
    output_order: Vec<Option<usize>>,
}

/// What a session keeps of the file besides weights.
#[derive(Debug)]
struct Resources {
    constants: Vec<f32>,
    spans: Vec<Span>,
    layers: Vec<LayerInfo>,
}

/// A plan in the cache.
#[derive(Debug)]
struct Compiled {
    inputs: Vec<Dims>,
    program: Program,
    plan: Plan,
    /// As `program.residents`; filled when the session's memory is.
    residents: Vec<Arc<ResidentLayer>>,
    used: u64,
    times: Vec<StepTime>,
    timed_runs: u64,
}

impl Compiled {
    /// Elements of buffers, and of scratch behind them.
    fn arena(&self) -> usize {
        self.program.arena + self.program.tail
    }

    fn heap_bytes(&self) -> u64 {
        let lists = size_of_val(&*self.times)
            + self.inputs.iter().map(|d| size_of_val(&**d)).sum::<usize>();
        let handles = self.program.steps.len() * size_of::<Arc<ResidentLayer>>();
        let own = size_of::<Compiled>() + self.inputs.len() * size_of::<Dims>();
        (self.program.heap_bytes() + self.plan.heap_bytes() + lists + handles + own) as u64
    }
}

impl Session {
    /// A session of one network of `model`. Starts its threads; decodes and plans nothing.
    pub fn new(model: &Model, options: SessionOptions) -> Result<Session> {
        let net = model.find(options.network.as_deref())?;
        let isa = match options.isa {
            Some(isa) => isa,
            None => isa_from_environment()?,
        };
        let team = Team::new(&options.threads, options.spin).map_err(|source| {
            Error::from(ErrorKind::Io {
                what: "starting a thread".into(),
                source,
            })
        })?;
        Ok(Session {
            model: model.clone(),
            net,
            options,
            isa,
            team,
            resources: None,
            arena: Arena::default(),
            workers: Vec::new(),
            cache: Vec::new(),
            clock: 0,
            profiling: false,
            input_order: Vec::new(),
            output_order: Vec::new(),
        })
    }

    /// The network's records.
    pub fn network(&self) -> &Network {
        &self.model.networks()[self.net]
    }

    /// Plans for inputs of these names and dimensions and allocates what running needs; a shape
    /// prepared before is answered from the cache.
    ///
    /// Errors: shapes that do not fit the network, a budget that is too small (with the smallest
    /// feasible one), damaged constants.
    pub fn prepare(&mut self, shapes: &[(&str, &[usize])]) -> Result<&Plan> {
        let inputs = self.by_network_order(shapes)?;
        self.clock += 1;
        let index = match self.cache.iter().position(|c| c.inputs == inputs) {
            Some(index) => index,
            None => self.compile(inputs)?,
        };
        let clock = self.clock;
        let compiled = self
            .cache
            .get_mut(index)
            .ok_or_else(|| Error::internal("plan cache"))?;
        compiled.used = clock;
        Ok(&compiled.plan)
    }

    /// [`prepare`](Session::prepare) for the default shapes: fixed sizes and the symbols' defaults.
    pub fn prepare_default(&mut self) -> Result<&Plan> {
        let model = self.model.clone();
        let network = &model.networks()[self.net];
        let dims = shape::default_inputs(network)?;
        let names = network
            .inputs
            .iter()
            .map(|id| network.tensors[id.0 as usize].name.as_str());
        let shapes: Vec<(&str, &[usize])> = names.zip(dims.iter().map(Vec::as_slice)).collect();
        self.prepare(&shapes)
    }

    /// Runs the network on prepared shapes. Inputs and outputs are matched by name, in any order;
    /// outputs that are not asked for are not written. Allocates nothing.
    pub fn run(
        &mut self,
        inputs: &[(&str, TensorRef<'_>)],
        outputs: &mut [(&str, &mut [f32])],
    ) -> Result<()> {
        self.run_inputs(Inputs::Tensors(inputs), outputs)
    }

    /// The same with inputs that are made row by row, on several threads at once; gives the same bits as running on whole
    /// tensors. The session must have been made with [`SessionOptions::input_by_rows`], and all inputs have four dimensions.
    pub fn run_rows(
        &mut self,
        inputs: &[(&str, RowsRef<'_>)],
        outputs: &mut [(&str, &mut [f32])],
    ) -> Result<()> {
        let short = inputs.iter().any(|(_, input)| input.dims.len() != 4);
        if short || !self.options.input_by_rows {
            let text = "rows are for inputs of four dimensions, in sessions with input_by_rows";
            return Err(tensor(text.into()));
        }
        self.run_inputs(Inputs::Rows(inputs), outputs)
    }

    fn run_inputs(&mut self, inputs: Inputs<'_>, outputs: &mut [(&str, &mut [f32])]) -> Result<()> {
        let index = self.bind(inputs, outputs)?;
        let (Some(compiled), Some(resources)) = (self.cache.get_mut(index), &self.resources) else {
            return Err(Error::internal("plan cache"));
        };
        self.clock += 1;
        compiled.used = self.clock;
        compiled.timed_runs += u64::from(self.profiling);
        let mut exec = Exec {
            container: self.model.container(),
            net: self.net,
            network: &self.model.networks()[self.net],
            layers: &resources.layers,
            residents: &compiled.residents,
            constants: &resources.constants,
            isa: self.isa,
            team: &self.team,
            arena: &mut self.arena,
            workers: &mut self.workers,
            release: self.options.release_pages,
            profiling: self.profiling,
        };
        let mut io = Io {
            inputs,
            input_order: &self.input_order,
            outputs,
            output_order: &self.output_order,
        };
        let (program, times) = (&compiled.program, &mut compiled.times);
        self.team.region(|| exec.run(program, &mut io, times))
    }

    /// Runs the file's self-test: a generated input on the default shapes, sampled outputs and
    /// norms compared with what the f64 oracle computed when the file was made.
    pub fn self_test(&mut self) -> Result<SelfTestReport> {
        let model = self.model.clone();
        let network = &model.networks()[self.net];
        let name = |id: dcz_format::graph::TensorId| network.tensors[id.0 as usize].name.as_str();
        let Some(test) = &network.self_test else {
            return Err(ErrorKind::NoSelfTest(network.name.clone()).into());
        };
        let plan = self.prepare_default()?;
        let lens: Vec<usize> = plan
            .outputs
            .iter()
            .map(|(_, d)| d.iter().product())
            .collect();
        let mut offset = 0;
        let mut data = Vec::new();
        for dims in shape::default_inputs(network)? {
            let mut values = vec![0.0; dims.iter().product()];
            generate(test, offset, &mut values);
            offset += values.len() as u64;
            data.push((dims, values));
        }
        let inputs: Vec<(&str, TensorRef<'_>)> = (network.inputs.iter().zip(&data))
            .map(|(id, (dims, data))| (name(*id), TensorRef { dims, data }))
            .collect();
        let mut results: Vec<Vec<f32>> = lens.into_iter().map(|len| vec![0.0; len]).collect();
        let mut outputs: Vec<(&str, &mut [f32])> = (network.outputs.iter().zip(&mut results))
            .map(|(output, values)| (name(output.tensor), values.as_mut_slice()))
            .collect();
        self.run(&inputs, &mut outputs)?;
        Ok(compare(test, &results))
    }

    /// Measures the time of every step of the runs that follow; forgets earlier measurements.
    pub fn set_profiling(&mut self, on: bool) {
        self.profiling = on;
        for compiled in &mut self.cache {
            compiled.times.fill(StepTime::default());
            compiled.timed_runs = 0;
        }
    }

    /// Mean times of the steps of the plan used last, over the runs made while profiling.
    pub fn profile(&self) -> Option<Profile> {
        let compiled = self
            .cache
            .iter()
            .max_by_key(|c| c.used)
            .filter(|c| c.timed_runs > 0)?;
        let ms = |ns: u64| ns as f64 / 1e6 / compiled.timed_runs as f64;
        let steps = compiled
            .plan
            .steps
            .iter()
            .zip(&compiled.times)
            .map(|(step, time)| StepProfile {
                name: step.name.clone(),
                op: step.op,
                algorithm: step.algorithm.clone(),
                decode_ms: ms(time.decode_ns),
                compute_ms: ms(time.total_ns.saturating_sub(time.decode_ns)),
                live_bytes: step.live_bytes,
            });
        Some(Profile {
            runs: compiled.timed_runs,
            steps: steps.collect(),
        })
    }

    /// Bytes the session holds now; the arena is counted wherever it is (see [`pass_arena`](Session::pass_arena)).
    pub fn memory(&self) -> Memory {
        self.union(None).unwrap_or_default()
    }

    /// Hands the arena to another session, where it grows to what that one's plans need. Sessions that never run at the
    /// same time hold the larger of their arenas in this way, not the sum. Until an arena is passed back, this session can
    /// prepare (which makes a new arena) but not run. Allocates only when the arena has to grow.
    pub fn pass_arena(&mut self, to: &mut Session) -> Result<()> {
        let arena = std::mem::take(&mut self.arena);
        if arena.len() > to.arena.len() {
            to.arena = arena;
        }
        let needed = to.cache.iter().map(Compiled::arena).max().unwrap_or(0);
        if to.arena.len() < needed {
            to.arena = Arena::default();
            to.arena = Arena::new(needed)?;
        }
        Ok(())
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    fn by_network_order(&self, shapes: &[(&str, &[usize])]) -> Result<Vec<Dims>> {
        let network = self.network();
        let mut inputs = Vec::with_capacity(network.inputs.len());
        for id in &network.inputs {
            let name = &network.tensors[id.0 as usize].name;
            let found = shapes.iter().find(|(n, _)| n == name);
            let (_, dims) = found.ok_or_else(|| tensor(format!("input {name} is missing")))?;
            inputs.push(dims.to_vec());
        }
        if let Some((extra, _)) = shapes.iter().find(|(n, _)| !is_input(network, n)) {
            return Err(tensor(format!("{} has no input {extra}", network.name)));
        }
        if shapes.len() != inputs.len() {
            return Err(tensor("an input is given twice".into()));
        }
        Ok(inputs)
    }

    /// Plans, makes room in the cache, allocates. Answers the place in the cache.
    fn compile(&mut self, inputs: Vec<Dims>) -> Result<usize> {
        self.load()?;
        let release = self.options.release_pages;
        if release {
            give_back_code();
        }
        let (mut compiled, budget) = self.choose(inputs)?;
        if release {
            give_back_code();
            give_back_heap();
        }
        // Plans of other shapes stay while there is room; they share arena, threads and weights.
        while self.cache.len() >= self.options.plan_cache.max(1) {
            self.evict();
        }
        compiled.plan.memory = loop {
            let memory = self.union(Some(&compiled))?;
            if self.cache.is_empty() || budget.is_none_or(|budget| memory.total <= budget) {
                break memory;
            }
            self.evict();
        };
        self.cache.push(compiled);
        if let Err(error) = self.allocate() {
            // Nothing may refer to memory that does not exist.
            self.cache.clear();
            self.allocate()?;
            return Err(error);
        }
        Ok(self.cache.len() - 1)
    }

    /// Memory of the session with the plans in its cache and one more.
    fn union(&self, more: Option<&Compiled>) -> Result<Memory> {
        let plans = || self.cache.iter().chain(more);
        let fixed = self.fixed(plans().map(Compiled::heap_bytes).sum());
        let fixed = fixed.ok_or_else(|| Error::internal("resources"))?;
        let arena = plans().map(|c| c.program.arena).max().unwrap_or(0);
        let whole = plans().map(Compiled::arena).max().unwrap_or(0);
        let threads = plans().map(|c| c.plan.threads).max().unwrap_or(1);
        let mut kept: Vec<&Resident> = Vec::new();
        for resident in plans().flat_map(|c| &c.program.residents) {
            if !kept.contains(&resident) {
                kept.push(resident);
            }
        }
        let resident = kept.iter().map(|r| r.bytes).sum();
        Ok(fixed.memory(arena, whole - arena, resident, threads))
    }

    fn evict(&mut self) {
        let oldest = (0..self.cache.len()).min_by_key(|&i| self.cache[i].used);
        if let Some(index) = oldest {
            self.cache.remove(index);
        }
    }

    /// Constants, look-up tables and one decoder.
    fn load(&mut self) -> Result<()> {
        if self.resources.is_some() {
            return Ok(());
        }
        let network = &self.model.networks()[self.net];
        let mut spans = Vec::with_capacity(network.constants.len());
        let mut total = 0usize;
        for index in 0..network.constants.len() {
            let len = shape::constant_elements(network, ConstId(index as u32))
                .map_err(|_| Error::internal("constant"))?;
            spans.push(Span { offset: total, len });
            total += len;
        }
        let mut constants = vec![0.0; total];
        for (index, span) in spans.iter().enumerate() {
            let out = &mut constants[span.range()];
            self.model
                .container()
                .constant(self.net, ConstId(index as u32), out)?;
        }
        self.input_order = vec![0; network.inputs.len()];
        self.output_order = vec![None; network.outputs.len()];
        let groups = self.model.container().blocks(self.net);
        let layers = network.layers.iter().enumerate();
        let layers = layers
            .map(|(i, layer)| LayerInfo::new(layer, groups.get(i)))
            .collect();
        self.workers.push(self.worker()?);
        self.resources = Some(Resources {
            constants,
            spans,
            layers,
        });
        Ok(())
    }

    fn resources(&self) -> Result<&Resources> {
        let resources = self.resources.as_ref();
        resources.ok_or_else(|| Error::internal("resources"))
    }

    fn worker(&self) -> Result<Worker> {
        let container = self.model.container();
        let decoder = match self.options.memory_budget {
            MemoryBudget::Max => TileDecoder::keeping_tables(container, self.net)?,
            _ => TileDecoder::new(container, self.net)?,
        };
        Ok(Worker {
            decoder,
            outcome: Ok(()),
            decode_ns: 0,
        })
    }

    /// Brings arena, decoders and resident weights to what the plans in the cache need.
    fn allocate(&mut self) -> Result<()> {
        let most = |f: fn(&Compiled) -> usize| self.cache.iter().map(f).max();
        let arena = most(Compiled::arena).unwrap_or(0);
        let threads = most(|c| c.plan.threads).unwrap_or(1);
        if self.arena.len() != arena {
            // The old one goes first, so that the two never exist together.
            self.arena = Arena::default();
            self.arena = Arena::new(arena)?;
        }
        self.workers.truncate(threads);
        self.workers.shrink_to_fit();
        self.workers.reserve_exact(threads - self.workers.len());
        while self.workers.len() < threads {
            self.workers.push(self.worker()?);
        }
        self.load_residents()
    }

    /// Decodes what the newest plan keeps, unless another session has it.
    fn load_residents(&mut self) -> Result<()> {
        let model = self.model.clone();
        let network = &model.networks()[self.net];
        let Session {
            cache,
            workers,
            resources,
            arena,
            team,
            ..
        } = self;
        let Some(resources) = resources else {
            return Err(Error::internal("resources"));
        };
        let Some(compiled) = cache.last_mut() else {
            return Ok(());
        };
        let source = Source {
            container: model.container(),
            net: self.net,
            isa: self.isa,
            release: self.options.release_pages,
        };
        let record = |r: &Resident| {
            Some(Wanted {
                index: r.layer,
                form: r.form,
                layer: network.layers.get(r.layer)?,
                info: resources.layers.get(r.layer)?,
            })
        };
        let wanted: Option<Vec<_>> = compiled.program.residents.iter().map(record).collect();
        let wanted = wanted.ok_or_else(|| Error::internal("resident layer"))?;
        let kept = model.residents();
        // Nothing runs now, so the arena is free.
        compiled.residents = kept.get(source, team, workers, arena, &wanted)?;
        Ok(())
    }

    fn fixed(&self, plans: u64) -> Option<Fixed> {
        let (resources, worker) = (self.resources.as_ref()?, self.workers.first()?);
        let tables: usize = resources.layers.iter().map(LayerInfo::bytes).sum();
        let orders = size_of_val(&*self.input_order) + size_of_val(&*self.output_order);
        Some(Fixed {
            constants: size_of_val(&*resources.constants) as u64,
            tables: (tables + size_of_val(&*resources.spans) + orders) as u64,
            plans,
            decoder: (worker.decoder.bytes() + size_of::<Worker>()) as u64,
        })
    }

    /// Finds the plan for the caller's inputs and checks names and lengths; allocates nothing
    /// unless it fails.
    fn bind(&mut self, inputs: Inputs<'_>, outputs: &[(&str, &mut [f32])]) -> Result<usize> {
        let network = &self.model.networks()[self.net];
        let tensors = &network.tensors;
        for (slot, id) in self.input_order.iter_mut().zip(&network.inputs) {
            let name = &tensors[id.0 as usize].name;
            let found = inputs.names().position(|n| n == name);
            *slot = found.ok_or_else(|| tensor(format!("input {name} is missing")))?;
        }
        if let Some(name) = inputs.names().find(|n| !is_input(network, n)) {
            return Err(tensor(format!("{} has no input {name}", network.name)));
        }
        if inputs.len() != network.inputs.len() {
            return Err(tensor(format!(
                "{} inputs for {}",
                inputs.len(),
                network.inputs.len()
            )));
        }
        let fits = |c: &Compiled| {
            let mut order = self.input_order.iter().zip(&c.inputs);
            order.all(|(&at, dims)| inputs.dims(at) == dims.as_slice())
        };
        let index = self.cache.iter().position(fits).ok_or_else(|| {
            let shapes: Vec<String> = (inputs.names().enumerate())
                .map(|(at, name)| format!("{name} {:?}", inputs.dims(at)))
                .collect();
            Error::from(ErrorKind::Unprepared(shapes.join(", ")))
        })?;
        let program = &self.cache[index].program;
        if self.arena.len() < program.arena {
            let text = "the arena was passed to another session".to_string();
            return Err(ErrorKind::Unprepared(text).into());
        }
        for (&at, &len) in self.input_order.iter().zip(&program.input_lens) {
            if let Some(Feed::Values(values)) = inputs.feed(at)
                && values.len() != len
            {
                let (name, found) = (inputs.names().nth(at).unwrap_or(""), values.len());
                return Err(tensor(format!(
                    "input {name} has {found} values, {len} are needed"
                )));
            }
        }
        self.output_order.fill(None);
        for (position, (name, data)) in outputs.iter().enumerate() {
            let index = network
                .outputs
                .iter()
                .position(|o| tensors[o.tensor.0 as usize].name == *name);
            let Some(index) = index else {
                return Err(tensor(format!("{} has no output {name}", network.name)));
            };
            if self.output_order[index].replace(position).is_some() {
                return Err(tensor(format!("output {name} is given twice")));
            }
            let len = program.output_lens[index];
            if data.len() != len {
                let text = format!(
                    "output {name} has room for {} values, {len} are made",
                    data.len()
                );
                return Err(tensor(text));
            }
        }
        Ok(index)
    }
}

fn is_input(network: &Network, name: &str) -> bool {
    network
        .inputs
        .iter()
        .any(|id| network.tensors[id.0 as usize].name == name)
}

#[cold]
fn tensor(text: String) -> Error {
    ErrorKind::Tensor(text).into()
}

fn isa_from_environment() -> Result<Isa> {
    match std::env::var("DCZ_ISA") {
        Ok(name) if !name.is_empty() => Isa::from_name(&name).ok_or_else(|| {
            let text =
                format!("DCZ_ISA={name}: unknown, or not an instruction set of this processor");
            ErrorKind::Options(text).into()
        }),
        _ => Ok(Isa::detect()),
    }
}

fn compare(test: &dcz_format::graph::SelfTest, results: &[Vec<f32>]) -> SelfTestReport {
    let mut report = SelfTestReport {
        output_error: 0.0,
        norm_error: 0.0,
        tolerance: SelfTestReport::TOLERANCE,
        samples: 0,
    };
    // A NaN must not disappear in a maximum.
    let worse = |a: f64, b: f64| if b <= a { a } else { b };
    for (expected, values) in test.expected.iter().zip(results) {
        let unit = f64::from(expected.max_abs).max(f64::MIN_POSITIVE);
        let positions =
            dcz_format::selftest::sample_positions(values.len(), expected.samples.len());
        for (position, sample) in positions.zip(&expected.samples) {
            let value = values.get(position).copied().unwrap_or(f32::NAN);
            let difference = (f64::from(value) - f64::from(*sample)).abs() / unit;
            report.output_error = worse(report.output_error, difference);
            report.samples += 1;
        }
        let norm = values
            .iter()
            .map(|&v| f64::from(v).powi(2))
            .sum::<f64>()
            .sqrt();
        let scale = unit * (values.len().max(1) as f64).sqrt();
        let difference = (norm - f64::from(expected.norm)).abs() / scale;
        report.norm_error = worse(report.norm_error, difference);
    }
    report
}
