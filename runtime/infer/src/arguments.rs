//! The command line.

use crate::failure::Failure;
use clap::Parser;
use dcz::preprocess::Rect;
use dcz::{MemoryBudget, SessionOptions, Threads};
use std::path::PathBuf;

/// Runs a .dcz network on images or .npy tensors.
#[derive(Debug, Parser)]
#[command(
    name = "infer",
    version,
    after_help = "Exit codes: 0 ok or same person; 1 different person; \
2 usage; 3 malformed or corrupt file; 4 unsupported; 5 bad input; 6 budget; 7 input or output."
)]
pub struct Arguments {
    /// The .dcz file.
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// Image (PNG, JPEG, WebP or BMP); with a second one the two are compared.
    #[arg(value_name = "IMAGE", num_args = 0..=2, conflicts_with = "input")]
    pub images: Vec<PathBuf>,
    /// Part of the image to use, in pixels; given twice: one per image.
    #[arg(long, value_name = "X,Y,W,H", requires = "images")]
    pub rect: Vec<String>,
    /// float32 tensor in C order that bypasses preprocessing; NAME=FILE for each of several inputs.
    #[arg(long, value_name = "[NAME=]FILE.npy")]
    pub input: Vec<String>,
    /// Where to write the output: a .npy file, or a directory for NAME.npy of every output.
    #[arg(long, value_name = "FILE.npy|DIR")]
    pub output: Option<PathBuf>,
    /// Network of a file with several.
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,
    /// Threads; the result does not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: Option<u16>,
    /// Most memory to hold: bytes, a number with kB, KiB, MB, MiB, GB or GiB, `min` or `max`.
    #[arg(long, value_name = "SIZE|min|max", default_value = "max", value_parser = budget)]
    pub memory_budget: MemoryBudget,
    /// Largest output error, relative to the largest magnitude of the output, that is accepted.
    #[arg(long, value_name = "ERROR", default_value_t = dcz::session::MAX_RELATIVE_ERROR)]
    pub max_error: f32,
    /// Print what every step does and where its tensors lie.
    #[arg(long)]
    pub plan: bool,
    /// Print time and live bytes of every step.
    #[arg(long)]
    pub profile: bool,
    /// Check the network against its self-test, then time N runs.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub bench: Option<u32>,
    /// Print one line of JSON, the last on standard output; everything else goes to standard error.
    #[arg(long)]
    pub json: bool,
}

impl Arguments {
    /// What the parser cannot check.
    pub fn check(&self) -> Result<(), Failure> {
        if self.images.len() > 1 && (self.output.is_some() || self.bench.is_some()) {
            return Err(Failure::usage("--output and --bench go with one image"));
        }
        if self.bench.is_some() && self.output.is_some() {
            return Err(Failure::usage("--bench writes no output"));
        }
        if self.max_error.is_nan() || self.max_error <= 0.0 {
            return Err(Failure::usage("--max-error must be positive"));
        }
        Ok(())
    }

    /// Options of the session.
    pub fn options(&self) -> Result<SessionOptions, Failure> {
        let available = || std::thread::available_parallelism().map_or(1, |n| n.get().min(8));
        let threads = self.threads.map_or_else(available, usize::from);
        let mut options = SessionOptions::default()
            .with_threads(Threads::Own(threads))
            .with_memory_budget(self.memory_budget)
            // A timed loop keeps the pages it is going to read again.
            .with_release_pages(self.bench.is_none() || self.memory_budget != MemoryBudget::Max);
        options.network.clone_from(&self.network);
        options.max_relative_error = self.max_error;
        Ok(options)
    }

    /// The rectangles, one per image.
    pub fn rects(&self) -> Result<Vec<Rect>, Failure> {
        if self.rect.len() > self.images.len() {
            return Err(Failure::usage("more rectangles than images"));
        }
        self.rect.iter().map(|text| rect(text)).collect()
    }
}

fn rect(text: &str) -> Result<Rect, Failure> {
    let numbers: Vec<u32> = text
        .split(',')
        .filter_map(|part| part.trim().parse().ok())
        .collect();
    match (numbers.as_slice(), text.split(',').count()) {
        (&[x, y, width, height], 4) => Ok(Rect {
            x,
            y,
            width,
            height,
        }),
        _ => Err(Failure::usage(format!(
            "--rect {text}: four numbers X,Y,W,H are needed"
        ))),
    }
}

fn budget(text: &str) -> Result<MemoryBudget, String> {
    match text {
        "min" => return Ok(MemoryBudget::Min),
        "max" => return Ok(MemoryBudget::Max),
        _ => {}
    }
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1_000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        other => return Err(format!("unknown unit {other}")),
    };
    let value: f64 = number.parse().map_err(|_| format!("{text} is no size"))?;
    let bytes = value * factor as f64;
    if bytes.is_finite() && bytes < u64::MAX as f64 {
        Ok(MemoryBudget::Bytes(bytes as u64))
    } else {
        Err(format!("{text} is too large"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(budget("8MiB"), Ok(MemoryBudget::Bytes(8 << 20)));
        assert_eq!(budget("1.5 MB"), Ok(MemoryBudget::Bytes(1_500_000)));
        assert_eq!(budget("123"), Ok(MemoryBudget::Bytes(123)));
        assert_eq!(budget("min"), Ok(MemoryBudget::Min));
        assert!(budget("MiB").is_err() && budget("8 furlongs").is_err() && budget("-1").is_err());
    }

    #[test]
    fn rectangles() {
        assert_eq!(
            rect("1, 2,3,4").unwrap(),
            Rect {
                x: 1,
                y: 2,
                width: 3,
                height: 4
            }
        );
        for bad in ["", "1,2,3", "1,2,3,4,5", "1,2,3,x", "-1,2,3,4"] {
            assert_eq!(rect(bad).unwrap_err().code, 2, "{bad}");
        }
    }
}
