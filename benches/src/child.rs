//! Measured processes: `bench` starts itself again for each figure, and the new process measures itself.
//!
//! Protocol: `bench measured-process JOB` with a [`Job`] as JSON; one line of JSON on standard output, an [`Answer`].
//! The process reads its counters from `/proc/self/status` after its work, with the session still alive, as the last
//! thing before it answers and exits. Nothing comes from the parent: `ru_maxrss` of a child starts at the resident size
//! of the process that forked it and would mostly measure the harness. On systems without these counters the process
//! fields are absent, and what the session itself accounts for is the only figure.

use crate::Result;
use crate::budget::Budget;
use crate::stats::Times;
use dcz::graph::Network;
use dcz::{Model, Session, SessionOptions, TensorRef, Threads, process_memory};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// First argument of a measured process.
const MARK: &str = "measured-process";
/// Runs made before timing begins, however short the warm-up.
const WARM_UP_RUNS: usize = 3;
/// Most runs with the profiler on.
const PROFILED_RUNS: usize = 20;

/// What a measured process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Job {
    /// Nothing: what the process itself costs.
    Nothing,
    /// Opens a file and runs a network.
    Run(Run),
}

/// A network to run on the input of its self-test.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The `.dcz` file.
    pub model: PathBuf,
    /// The network, when the file has several.
    pub network: Option<String>,
    /// Threads of the session.
    pub threads: usize,
    /// Memory budget of the session.
    pub budget: Budget,
    /// Give mapped pages back behind the reader.
    pub release_pages: bool,
    /// Runs after the first two; 0: plan only, run nothing.
    pub runs: usize,
    /// Time spent running before the times are taken.
    pub warm_up_ms: u64,
    /// Run the self-test with the measured session, and time nothing if its output error exceeds this.
    pub max_error: Option<f64>,
    /// Measure the steps too, after everything else.
    pub profile: bool,
    /// When the parent started the process, in seconds since 1970.
    pub started: f64,
}

impl Run {
    /// A job without warm-up, self-test and profile.
    pub fn new(model: &Path, threads: usize, budget: Budget, runs: usize) -> Run {
        Run {
            model: model.to_owned(),
            network: None,
            threads,
            budget,
            release_pages: false,
            runs,
            warm_up_ms: 0,
            max_error: None,
            profile: false,
            started: 0.0,
        }
    }
}

/// What a measured process found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Its memory.
    pub process: Process,
    /// The run, if that was the job.
    pub run: Option<Figures>,
}

/// Memory of a process in bytes, from its own `/proc/self/status`; absent on other systems.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Largest resident size so far (`VmHWM`).
    pub peak: Option<u64>,
    /// Private pages: heap, stacks, relocated data (`RssAnon`).
    pub anonymous: Option<u64>,
    /// Resident pages of mapped files: the executable, libraries, the model (`RssFile`).
    pub file: Option<u64>,
}

/// Figures of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    /// Name of the network.
    pub network: String,
    /// Instruction set.
    pub isa: String,
    /// Threads the plan uses.
    pub threads: usize,
    /// Equal numbers: equal bits of the results.
    pub numeric_id: String,
    /// Bytes of the plan, by purpose.
    pub plan: serde_json::Value,
    /// Their sum.
    pub plan_bytes: u64,
    /// Bytes the session accounted for at the end.
    pub held_bytes: u64,
    /// Bytes of inputs and outputs, which are the caller's.
    pub caller_bytes: u64,
    /// Opening the file.
    pub load_ms: f64,
    /// Planning and allocating.
    pub prepare_ms: f64,
    /// First run of the prepared session.
    pub first_ms: Option<f64>,
    /// The run after it.
    pub second_ms: Option<f64>,
    /// From the start of the process to its first output.
    pub cold_ms: Option<f64>,
    /// Largest error of the self-test's sampled outputs, relative to the largest magnitude of the output.
    pub output_error: Option<f64>,
    /// Absent when the output error is too large.
    pub times: Option<Times>,
    /// Steps of the plan, if asked for.
    pub steps: Vec<Step>,
}

/// Mean times of a step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Name of the node.
    pub name: String,
    /// Operation.
    pub op: String,
    /// Kernel.
    pub algorithm: Option<String>,
    /// Decoding weights.
    pub decode_ms: f64,
    /// The rest.
    pub compute_ms: f64,
}

/// The answer, or what went wrong, as it is sent.
type Message = std::result::Result<Answer, String>;

/// Starts `program` (a `bench` executable) on a job and waits for its answer.
pub fn start(program: &Path, job: &Job) -> Result<Answer> {
    let mut job = job.clone();
    if let Job::Run(run) = &mut job {
        run.started = seconds_since_1970();
    }
    let output = Command::new(program)
        .arg(MARK)
        .arg(serde_json::to_string(&job)?)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    let message: Message = serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("measured process: {}, no answer", output.status))?;
    Ok(message?)
}

/// [`start`] with the executable of this process.
pub fn start_self(job: &Job) -> Result<Answer> {
    start(&std::env::current_exe()?, job)
}

/// The job, if this process was started by [`start`].
pub fn requested() -> Option<String> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != MARK {
        return None;
    }
    arguments.next()?.into_string().ok()
}

/// Does a job and prints the answer.
pub fn serve(job: &str) -> ExitCode {
    let message: Message = answer(job).map_err(|error| error.to_string());
    match serde_json::to_string(&message) {
        Ok(line) => println!("{line}"),
        Err(error) => eprintln!("bench: {error}"),
    }
    match message {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer(job: &str) -> Result<Answer> {
    match serde_json::from_str(job)? {
        Job::Nothing => Ok(Answer {
            process: measure_self(),
            run: None,
        }),
        Job::Run(run) => {
            let (figures, process) = measure(&run)?;
            Ok(Answer {
                process,
                run: Some(figures),
            })
        }
    }
}

fn measure_self() -> Process {
    let memory = process_memory();
    Process {
        peak: memory.peak,
        anonymous: memory.anonymous,
        file: memory.file,
    }
}

/// The counters are read while the session is alive.
fn measure(run: &Run) -> Result<(Figures, Process)> {
    let begin = Instant::now();
    let model = Model::open(&run.model)?;
    let load_ms = milliseconds(begin);
    let mut options = SessionOptions::default()
        .with_threads(match run.threads {
            0 | 1 => Threads::Inline,
            n => Threads::Own(n),
        })
        .with_memory_budget(run.budget.for_session())
        .with_release_pages(run.release_pages);
    if let Some(network) = &run.network {
        options = options.with_network(network);
    }
    let mut session = Session::new(&model, options)?;
    let begin = Instant::now();
    let plan = session.prepare_default()?;
    let prepare_ms = milliseconds(begin);
    let mut figures = Figures {
        network: plan.network.clone(),
        isa: plan.isa.to_string(),
        threads: plan.threads,
        numeric_id: format!("{:016x}", plan.numeric_id),
        plan: serde_json::to_value(plan.memory)?,
        plan_bytes: plan.memory.total,
        held_bytes: 0,
        caller_bytes: 0,
        load_ms,
        prepare_ms,
        first_ms: None,
        second_ms: None,
        cold_ms: None,
        output_error: None,
        times: None,
        steps: Vec::new(),
    };
    let mut caller = Caller {
        outputs: (plan.outputs.iter())
            .map(|(name, dims)| (name.clone(), vec![0.0; dims.iter().product()]))
            .collect(),
        inputs: inputs(session.network())?,
    };
    figures.caller_bytes = caller.bytes();
    if run.runs > 0 {
        work(run, &mut session, &mut caller, &mut figures)?;
    }
    figures.held_bytes = session.memory().total;
    let process = measure_self();
    Ok((figures, process))
}

fn work(
    run: &Run,
    session: &mut Session,
    caller: &mut Caller,
    figures: &mut Figures,
) -> Result<()> {
    figures.first_ms = Some(caller.run(session)?);
    figures.cold_ms = Some((seconds_since_1970() - run.started) * 1e3);
    figures.second_ms = Some(caller.run(session)?);
    if let Some(limit) = run.max_error {
        let report = session.self_test()?;
        figures.output_error = Some(report.output_error);
        // Not a number is not within the limit.
        if !(report.passed() && report.output_error <= limit) {
            return Ok(());
        }
    }
    let (begin, mut warm) = (Instant::now(), 0);
    while warm < WARM_UP_RUNS || begin.elapsed() < Duration::from_millis(run.warm_up_ms) {
        caller.run(session)?;
        warm += 1;
    }
    let mut times = Vec::with_capacity(run.runs);
    for _ in 0..run.runs {
        times.push(caller.run(session)?);
    }
    figures.times = Times::of(&mut times);
    if run.profile {
        session.set_profiling(true);
        for _ in 0..run.runs.min(PROFILED_RUNS) {
            caller.run(session)?;
        }
        let steps = session
            .profile()
            .map_or(Vec::new(), |profile| profile.steps);
        let step = |s: dcz::profile::StepProfile| Step {
            name: s.name,
            op: s.op.to_string(),
            algorithm: s.algorithm,
            decode_ms: s.decode_ms,
            compute_ms: s.compute_ms,
        };
        figures.steps = steps.into_iter().map(step).collect();
    }
    Ok(())
}

struct Input {
    name: String,
    dims: Vec<usize>,
    data: Vec<f32>,
}

/// The tensors of the caller.
struct Caller {
    inputs: Vec<Input>,
    outputs: Vec<(String, Vec<f32>)>,
}

impl Caller {
    fn bytes(&self) -> u64 {
        let inputs = self.inputs.iter().map(|input| input.data.len());
        let outputs = self.outputs.iter().map(|(_, data)| data.len());
        (inputs.chain(outputs).sum::<usize>() * size_of::<f32>()) as u64
    }

    /// Milliseconds of one run.
    fn run(&mut self, session: &mut Session) -> Result<f64> {
        let inputs: Vec<(&str, TensorRef<'_>)> = (self.inputs.iter())
            .map(|i| {
                let tensor = TensorRef {
                    dims: &i.dims,
                    data: &i.data,
                };
                (i.name.as_str(), tensor)
            })
            .collect();
        let mut outputs: Vec<(&str, &mut [f32])> = (self.outputs.iter_mut())
            .map(|(name, data)| (name.as_str(), data.as_mut_slice()))
            .collect();
        let begin = Instant::now();
        session.run(&inputs, &mut outputs)?;
        Ok(milliseconds(begin))
    }
}

/// The input of the network's self-test.
fn inputs(network: &Network) -> Result<Vec<Input>> {
    let test = network.self_test.as_ref();
    let test = test.ok_or("the file has no self-test, so its output cannot be checked")?;
    let mut offset = 0;
    let mut inputs = Vec::with_capacity(network.inputs.len());
    for (id, dims) in (network.inputs.iter()).zip(dcz::shape::default_inputs(network)?) {
        let mut data = vec![0.0; dims.iter().product()];
        dcz::session::generate(test, offset, &mut data);
        offset += data.len() as u64;
        let tensor = network.tensors.get(id.0 as usize);
        let name = tensor.map_or(String::new(), |t| t.name.clone());
        inputs.push(Input { name, dims, data });
    }
    Ok(inputs)
}

fn milliseconds(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e3
}

/// The wall clock, to compare across processes.
pub fn seconds_since_1970() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |now| now.as_secs_f64())
}
