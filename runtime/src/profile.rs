//! Time per step, for `infer --profile`.

use serde::Serialize;
use std::fmt;

/// Mean times of the steps of a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Profile {
    /// Runs measured.
    pub runs: u64,
    /// In execution order.
    pub steps: Vec<StepProfile>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepProfile {
    /// Name of the node.
    pub name: String,
    /// Operation.
    pub op: &'static str,
    /// Name of the kernel, when there is a choice.
    pub algorithm: Option<String>,
    /// Decoding of weights: the longest of all threads.
    pub decode_ms: f64,
    /// The rest of the step.
    pub compute_ms: f64,
    /// Bytes of all activations alive during the step.
    pub live_bytes: u64,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<24} {:<12} {:<32} {:>10} {:>10} {:>10}",
            "node", "op", "algorithm", "decode ms", "compute ms", "live bytes"
        )?;
        let (mut decode, mut compute) = (0.0, 0.0);
        for step in &self.steps {
            writeln!(
                f,
                "{:<24} {:<12} {:<32} {:>10.3} {:>10.3} {:>10}",
                step.name,
                step.op,
                step.algorithm.as_deref().unwrap_or(""),
                step.decode_ms,
                step.compute_ms,
                step.live_bytes
            )?;
            decode += step.decode_ms;
            compute += step.compute_ms;
        }
        writeln!(
            f,
            "decode {decode:.3} ms, compute {compute:.3} ms, mean of {} run(s)",
            self.runs
        )
    }
}
