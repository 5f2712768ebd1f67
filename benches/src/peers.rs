//! `bench peers`: other runtimes in turn with ours.
//!
//! A TOML file names peers (a command that measures itself and prints one line of JSON) and rows (a network, ours as a
//! `.dcz` file). For each row and thread count the runs alternate, ours, peer, ours, peer, for some rounds; the ratio is
//! the median over the rounds of ours / peer, so that what disturbs the machine disturbs both. What a peer prints:
//!
//! * `median_ms`: median time of a run, needed;
//! * `hwm`: its own high-water mark in MiB (`VmHWM`), read by itself;
//! * `cold_s`, `import_s`: from the environment variable `T0` (seconds since 1970, set just before it starts) to its
//!   first output, and the part of that before its library was loaded (an interpreter's start and import);
//! * `maxdiff`: largest difference from its reference output.
//!
//! In commands and environments `{network}`, `{threads}` and `{runs}` are replaced, and `${NAME}` by an environment
//! variable.

use crate::budget::Budget;
use crate::cases;
use crate::child::{self, Job, Run, seconds_since_1970};
use crate::latency::timed;
use crate::record::{Output, Report};
use crate::stats::median;
use crate::{Result, megabytes};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

/// Options of `bench peers`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Peers and rows; benches/cases/ has examples (peers, frameworks).
    cases: PathBuf,
    /// Directory of the .dcz files.
    #[arg(long, value_name = "DIR", default_value = "models")]
    models: PathBuf,
    /// Only rows whose name contains this.
    #[arg(long, value_name = "TEXT")]
    row: Option<String>,
    /// Only peers whose name contains this.
    #[arg(long, value_name = "TEXT")]
    peer: Option<String>,
    /// Thread counts; pin the command to as many cores.
    #[arg(long, value_delimiter = ',', value_name = "N,..", default_value = "1")]
    threads: Vec<usize>,
    /// Memory budget of ours.
    #[arg(long, default_value = "max")]
    budget: Budget,
    /// Times each runs.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Timed runs within a process.
    #[arg(long, default_value_t = 30)]
    runs: usize,
    /// Time spent running before the times are taken (ours).
    #[arg(long, value_name = "MS", default_value_t = 500)]
    warm_up: u64,
    /// Largest output error of ours for which a time is printed.
    #[arg(long, value_name = "ERROR", default_value_t = f64::from(dcz::session::MAX_RELATIVE_ERROR))]
    max_error: f64,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    #[serde(rename = "peer")]
    peers: Vec<Peer>,
    #[serde(rename = "row")]
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    name: String,
    command: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    /// Variables it must not inherit.
    #[serde(default)]
    unset: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    /// Ours.
    file: PathBuf,
    /// What `{network}` stands for.
    network: String,
    /// Names of peers.
    peers: Vec<String>,
}

/// What a peer printed, as far as it is known here.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Answer {
    median_ms: f64,
    hwm: Option<f64>,
    cold_s: Option<f64>,
    import_s: Option<f64>,
    maxdiff: Option<f64>,
}

impl Answer {
    /// First output after the library was loaded.
    fn start_ms(&self) -> Option<f64> {
        Some((self.cold_s? - self.import_s.unwrap_or(0.0)) * 1e3)
    }
}

/// One round of ours.
#[derive(Clone, Debug, Serialize)]
struct Ours {
    median_ms: f64,
    peak: Option<u64>,
    cold_ms: Option<f64>,
    output_error: Option<f64>,
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<ExitCode> {
    let cases: Cases = cases::read(Some(&args.cases), "")?;
    let mut report = Report::begin("peers");
    if !args.output.json {
        println!(
            "{:<18} {:>3} {:<20} {:>8} {:>8} {:>6} {:>8} {:>8} {:>6} {:>9} {:>9} {:>6} {:>8}",
            "network",
            "thr",
            "peer",
            "ours ms",
            "peer ms",
            "ratio",
            "ours MB",
            "peer MB",
            "ratio",
            "ours cold",
            "peer cold",
            "ratio",
            "error"
        );
    }
    let mut failed = false;
    let wanted = |text: &str, part: &Option<String>| {
        part.as_ref()
            .is_none_or(|part| text.contains(part.as_str()))
    };
    for row in cases.rows.iter().filter(|row| wanted(&row.name, &args.row)) {
        for &threads in &args.threads {
            for name in row.peers.iter().filter(|name| wanted(name, &args.peer)) {
                let peer = (cases.peers.iter().find(|peer| peer.name == *name))
                    .ok_or_else(|| format!("row {}: no peer {name}", row.name))?;
                match compare(row, peer, threads, args) {
                    Ok((ours, theirs)) => {
                        let summary = Summary::of(&ours, &theirs);
                        if !args.output.json {
                            summary.print(&row.name, threads, name);
                        }
                        report.row(json!({
                            "network": row.name, "threads": threads, "budget": args.budget, "peer": name,
                            "summary": summary, "ours": ours, "theirs": theirs,
                        }));
                    }
                    Err(error) => {
                        failed = true;
                        eprintln!("bench: {}, {name}: {error}", row.name);
                    }
                }
            }
        }
    }
    report.finish(&args.output)?;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Ours, peer, ours, peer.
fn compare(
    row: &Row,
    peer: &Peer,
    threads: usize,
    args: &Args,
) -> Result<(Vec<Ours>, Vec<Answer>)> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds.max(1) {
        ours.push(run_ours(row, threads, args)?);
        theirs.push(run_peer(row, peer, threads, args.runs)?);
    }
    Ok((ours, theirs))
}

fn run_ours(row: &Row, threads: usize, args: &Args) -> Result<Ours> {
    let job = Run {
        warm_up_ms: args.warm_up,
        max_error: Some(args.max_error),
        release_pages: args.budget == Budget::Min,
        ..Run::new(
            &args.models.join(&row.file),
            threads,
            args.budget,
            args.runs,
        )
    };
    let (figures, median_ms) = timed(&job)?;
    // Memory is read in a process that runs no self-test.
    let bare = Run {
        max_error: None,
        warm_up_ms: 0,
        runs: 1,
        ..job
    };
    let answer = child::start_self(&Job::Run(bare))?;
    Ok(Ours {
        median_ms,
        peak: answer.process.peak,
        cold_ms: figures.cold_ms,
        output_error: figures.output_error,
    })
}

fn run_peer(row: &Row, peer: &Peer, threads: usize, runs: usize) -> Result<Answer> {
    let fill = |text: &String| -> Result<String> {
        let text = text
            .replace("{network}", &row.network)
            .replace("{threads}", &threads.to_string())
            .replace("{runs}", &runs.to_string());
        with_variables(&text, &|name| std::env::var(name).ok())
    };
    let words: Vec<String> = peer.command.iter().map(fill).collect::<Result<_>>()?;
    let (program, arguments) = words.split_first().ok_or("an empty command")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    for name in &peer.unset {
        command.env_remove(name);
    }
    for (name, value) in &peer.environment {
        command.env(name, fill(value)?);
    }
    command.env("T0", format!("{:.6}", seconds_since_1970()));
    let output = command
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text
        .lines()
        .rev()
        .find(|line| line.trim_start().starts_with('{'));
    let line = line.ok_or_else(|| format!("{program}: {}, no line of JSON", output.status))?;
    Ok(serde_json::from_str(line)?)
}

/// Replaces `${NAME}`.
fn with_variables(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let mut parts = text.split("${");
    let mut filled = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let (name, rest) = part
            .split_once('}')
            .ok_or_else(|| format!("{text}: no }}"))?;
        filled += &variable(name).ok_or_else(|| format!("the environment has no {name}"))?;
        filled += rest;
    }
    Ok(filled)
}

/// Medians over the rounds, and ratios ours / theirs.
#[derive(Debug, Serialize)]
struct Summary {
    ours_ms: Option<f64>,
    theirs_ms: Option<f64>,
    time_ratio: Option<f64>,
    ours_peak: Option<u64>,
    theirs_peak: Option<u64>,
    peak_ratio: Option<f64>,
    /// The largest of the rounds.
    ours_error: Option<f64>,
    ours_cold_ms: Option<f64>,
    theirs_start_ms: Option<f64>,
    cold_ratio: Option<f64>,
}

impl Summary {
    fn of(ours: &[Ours], theirs: &[Answer]) -> Summary {
        let of = |values: &dyn Fn(&Ours) -> Option<f64>| {
            median(&ours.iter().filter_map(values).collect::<Vec<_>>())
        };
        let its = |values: &dyn Fn(&Answer) -> Option<f64>| {
            median(&theirs.iter().filter_map(values).collect::<Vec<_>>())
        };
        let ratios: Vec<f64> = (ours.iter().zip(theirs))
            .map(|(a, b)| a.median_ms / b.median_ms)
            .collect();
        let ours_peak = of(&|o| o.peak.map(|bytes| bytes as f64));
        let theirs_peak = its(&|t| t.hwm.map(|mib| mib * 1_048_576.0));
        let ours_cold_ms = of(&|o| o.cold_ms);
        let theirs_start_ms = its(&Answer::start_ms);
        let divide = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
        Summary {
            ours_ms: of(&|o| Some(o.median_ms)),
            theirs_ms: its(&|t| Some(t.median_ms)),
            time_ratio: median(&ratios),
            ours_peak: ours_peak.map(|bytes| bytes as u64),
            theirs_peak: theirs_peak.map(|bytes| bytes as u64),
            peak_ratio: divide(ours_peak, theirs_peak),
            ours_error: (ours.iter().filter_map(|o| o.output_error)).reduce(f64::max),
            ours_cold_ms,
            theirs_start_ms,
            cold_ratio: divide(ours_cold_ms, theirs_start_ms),
        }
    }

    fn print(&self, network: &str, threads: usize, peer: &str) {
        let number = |value: Option<f64>, digits: usize| {
            value.map_or("?".to_string(), |v| format!("{v:.digits$}"))
        };
        println!(
            "{network:<18} {threads:>3} {peer:<20} {:>8} {:>8} {:>6} {:>8} {:>8} {:>6} {:>9} {:>9} {:>6} {:>8.1e}",
            number(self.ours_ms, 2),
            number(self.theirs_ms, 2),
            number(self.time_ratio, 2),
            megabytes(self.ours_peak),
            megabytes(self.theirs_peak),
            number(self.peak_ratio, 3),
            number(self.ours_cold_ms, 1),
            number(self.theirs_start_ms, 1),
            number(self.cold_ratio, 2),
            self.ours_error.unwrap_or(f64::NAN)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_parse() {
        for text in [
            include_str!("../cases/peers.toml"),
            include_str!("../cases/frameworks.toml"),
        ] {
            let cases: Cases = cases::read(None, text).unwrap();
            for row in &cases.rows {
                for name in &row.peers {
                    assert!(cases.peers.iter().any(|peer| peer.name == *name), "{name}");
                }
            }
        }
    }

    #[test]
    fn variables_are_filled_in() {
        let variable = |name: &str| (name == "A").then(|| "x".to_string());
        assert_eq!(with_variables("${A}/b${A}", &variable).unwrap(), "x/bx");
        assert_eq!(with_variables("plain", &variable).unwrap(), "plain");
        assert!(with_variables("${B}", &variable).is_err());
        assert!(with_variables("${A", &variable).is_err());
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let ours = |median_ms| Ours {
            median_ms,
            peak: Some(1_048_576),
            cold_ms: Some(5.0),
            output_error: None,
        };
        let theirs = |median_ms| Answer {
            median_ms,
            hwm: Some(10.0),
            cold_s: Some(0.3),
            import_s: Some(0.2),
            maxdiff: None,
        };
        // The machine was half as fast in the second round.
        let summary = Summary::of(
            &[ours(10.0), ours(20.0), ours(10.0)],
            &[theirs(20.0), theirs(40.0), theirs(20.0)],
        );
        assert_eq!(summary.time_ratio, Some(0.5));
        assert_eq!(summary.peak_ratio, Some(0.1));
        assert!((summary.cold_ratio.unwrap() - 0.05).abs() < 1e-9);
    }
}
