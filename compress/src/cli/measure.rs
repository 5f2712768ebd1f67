//! `dcz measure-peak`, not shown to users: the process whose memory `dcz score` measures.
//!
//! It opens a file, runs it once under the smallest budget, and reads its own high-water mark last of all, so that nothing
//! of the parent (ONNX, images) is in it. With `--resident` the file is read into memory first, all weights of which are then
//! resident once; else it is mapped and its pages are given back behind the reader.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dcz::{MemoryBudget, Model, Session, SessionOptions, TensorRef};
use dcz_compress::error::Error;
use serde_json::{Value, json};

/// Runs a file once and prints the peak memory of this process.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The file
    file: PathBuf,
    /// Which network of the file
    #[arg(long)]
    network: Option<String>,
    /// Reads the file into memory instead of mapping it
    #[arg(long)]
    resident: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let path = &arguments.file;
    let model = if arguments.resident {
        Model::from_bytes(std::fs::read(path).map_err(|e| Error::io(path, &e))?)?
    } else {
        Model::open(path)?
    };
    let mut options = SessionOptions::default()
        .with_memory_budget(MemoryBudget::Min)
        .with_release_pages(!arguments.resident);
    options.network = arguments.network.clone();
    let mut session = Session::new(&model, options)?;
    let plan = session.prepare_default()?;
    let inputs: Vec<(String, Vec<usize>, Vec<f32>)> = (plan.inputs.iter())
        .map(|(name, dims)| (name.clone(), dims.clone(), ramp(dims)))
        .collect();
    let mut outputs: Vec<(String, Vec<f32>)> = (plan.outputs.iter())
        .map(|(name, dims)| (name.clone(), vec![0.0; dims.iter().product()]))
        .collect();
    let plan_bytes = plan.memory.total;
    let tensors: Vec<(&str, TensorRef<'_>)> = (inputs.iter())
        .map(|(name, dims, data)| (name.as_str(), TensorRef { dims, data }))
        .collect();
    let mut slots: Vec<(&str, &mut [f32])> = (outputs.iter_mut())
        .map(|(name, data)| (name.as_str(), data.as_mut_slice()))
        .collect();
    session.run(&tensors, &mut slots)?;
    let line = json!({ "peak": dcz::process_memory().peak, "plan": plan_bytes });
    super::print(&format!("{line}\n"))
}

/// Some input; what it holds does not change the memory.
fn ramp(dims: &[usize]) -> Vec<f32> {
    let count = dims.iter().product();
    (0..count)
        .map(|i: usize| (i % 251) as f32 / 125.0 - 1.0)
        .collect()
}

/// Peak memory of a fresh process that runs a file once.
///
/// Errors: what the process says; [`Error::Usage`] where the system does not tell the peak.
pub fn peak_of(file: &Path, network: Option<&str>, resident: bool) -> Result<u64, Error> {
    let program = std::env::current_exe().map_err(|e| Error::io(Path::new("this program"), &e))?;
    let mut command = Command::new(&program);
    command.arg("measure-peak");
    if let Some(name) = network {
        command.args(["--network", name]);
    }
    if resident {
        command.arg("--resident");
    }
    // Behind --, a name may begin with anything.
    command.arg("--").arg(file);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Error::io(&program, &e))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Runtime {
            code: output
                .status
                .code()
                .and_then(|c| u8::try_from(c).ok())
                .unwrap_or(1),
            text: format!("the measured process: {}", text.trim()),
        });
    }
    let answer: Value = serde_json::from_slice(&output.stdout)
        .map_err(|e| Error::SelfTest(format!("the measured process answers nonsense: {e}")))?;
    answer["peak"].as_u64().ok_or_else(|| {
        Error::Usage("this system does not tell the peak memory of a process; Linux does".into())
    })
}
