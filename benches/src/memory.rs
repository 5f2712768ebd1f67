//! `bench memory`: memory of whole networks under several budgets, and what time each budget costs.
//!
//! For every network and thread count: the smallest and the unlimited plan, budgets spread geometrically between
//! them, and for each budget two fresh processes. One opens the file, prepares, runs a few times and reads its own
//! counters; the other checks the output and takes times, as in `bench latency`. Budgets that lead to the same plan
//! are measured once. Mapped pages are given back behind the reader under the smallest budget only, unless told
//! otherwise.

use crate::budget::Budget;
use crate::cases::{Case, Choice};
use crate::child::{self, Figures, Job, Process, Run};
use crate::latency::timed;
use crate::plot::{self, Curve};
use crate::record::{Output, Report};
use crate::{Result, mebibytes, megabytes};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// What anonymous memory may exceed the plan by: the process itself, its stacks, the caller's tensors.
const ALLOWANCE: u64 = 1 << 20;
/// Runs of the process whose memory is read, after the first two.
const RUNS: usize = 3;

/// Options of `bench memory`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    choice: Choice,
    /// Budgets from the smallest to unlimited.
    #[arg(long, default_value_t = 5)]
    points: usize,
    /// Budgets to measure instead: min, max, or sizes such as 1.6MiB.
    #[arg(long, value_delimiter = ',', value_name = "B,..")]
    budgets: Vec<Budget>,
    /// When mapped pages are given back behind the reader.
    #[arg(long, value_enum, default_value = "min")]
    release_pages: Release,
    /// Time spent running before the times are taken.
    #[arg(long, value_name = "MS", default_value_t = 300)]
    warm_up: u64,
    /// Largest output error for which a time is printed.
    #[arg(long, value_name = "ERROR", default_value_t = f64::from(dcz::session::MAX_RELATIVE_ERROR))]
    max_error: f64,
    /// Draw memory against time to NAME-tTHREADS.svg here.
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// Fail when the anonymous memory of a process exceeds its plan by more than 1 MiB.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Release {
    Always,
    Never,
    /// Under the smallest budget.
    Min,
}

/// One budget.
struct Row {
    budget: Budget,
    process: Process,
    memory: Figures,
    time: Figures,
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<ExitCode> {
    let networks = args.choice.networks()?;
    let mut report = Report::begin("memory");
    let bare = child::start_self(&Job::Nothing)?.process;
    if !args.output.json {
        println!(
            "a process that does nothing: peak {} MB, anonymous {} MB, files {} MB",
            megabytes(bare.peak),
            megabytes(bare.anonymous),
            megabytes(bare.file)
        );
    }
    report.row(json!({ "network": null, "process": bare }));
    let mut failed = false;
    for case in &networks.networks {
        for &threads in &networks.threads {
            match curve(case, threads, networks.runs, args) {
                Ok(rows) => {
                    if !args.output.json {
                        print(case, threads, &rows);
                    }
                    failed |= args.check && rows.iter().any(|row| !row.within());
                    for row in &rows {
                        report.row(row.to_json(case, threads));
                    }
                    draw(case, threads, &rows, args)?;
                }
                Err(error) => {
                    failed = true;
                    eprintln!("bench: {}, {threads} thread(s): {error}", case.name);
                    report.row(json!({ "network": case.name, "threads": threads, "error": error.to_string() }));
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

/// Measures one network with one number of threads.
fn curve(case: &Case, threads: usize, runs: usize, args: &Args) -> Result<Vec<Row>> {
    let plan = |budget| -> Result<Figures> {
        let job = Run {
            network: case.network.clone(),
            ..Run::new(&case.file, threads, budget, 0)
        };
        let answer = child::start_self(&Job::Run(job))?;
        answer.run.ok_or_else(|| "no plan".into())
    };
    let mut budgets = args.budgets.clone();
    if budgets.is_empty() {
        let (min, max) = (plan(Budget::Min)?.plan_bytes, plan(Budget::Max)?.plan_bytes);
        budgets = spread(min, max, args.points);
    }
    let mut rows: Vec<Row> = Vec::new();
    let mut seen = Vec::new();
    for budget in budgets {
        let planned = plan(budget)?;
        let release = match args.release_pages {
            Release::Always => true,
            Release::Never => false,
            Release::Min => budget == Budget::Min,
        };
        let same = (
            planned.plan.to_string(),
            planned.threads,
            planned.numeric_id,
            release,
        );
        if seen.contains(&same) {
            continue;
        }
        seen.push(same);
        let job = Run {
            network: case.network.clone(),
            release_pages: release,
            ..Run::new(&case.file, threads, budget, RUNS)
        };
        let answer = child::start_self(&Job::Run(job.clone()))?;
        let (time, _) = timed(&Run {
            runs,
            warm_up_ms: args.warm_up,
            max_error: Some(args.max_error),
            ..job
        })?;
        rows.push(Row {
            budget,
            process: answer.process,
            memory: answer.run.ok_or("no figures")?,
            time,
        });
    }
    Ok(rows)
}

/// The smallest, the unlimited, and sizes between them whose ratios are equal.
fn spread(min: u64, max: u64, points: usize) -> Vec<Budget> {
    let (low, high) = (min.max(1) as f64, max.max(1) as f64);
    let steps = points.saturating_sub(1).max(1) as f64;
    let inner = (1..points.saturating_sub(1))
        .map(|i| Budget::Bytes((low * (high / low).powf(i as f64 / steps)).ceil() as u64));
    let mut budgets = vec![Budget::Min];
    budgets.extend(inner);
    budgets.push(Budget::Max);
    budgets
}

impl Row {
    /// Anonymous memory beyond the plan, where the system tells.
    fn beyond_plan(&self) -> Option<i64> {
        Some(self.process.anonymous? as i64 - self.memory.plan_bytes as i64)
    }

    fn within(&self) -> bool {
        self.beyond_plan()
            .is_none_or(|bytes| bytes <= ALLOWANCE as i64)
    }

    fn to_json(&self, case: &Case, threads: usize) -> serde_json::Value {
        json!({
            "network": case.name,
            "threads": threads,
            "budget": self.budget,
            "process": self.process,
            "anonymous_beyond_plan": self.beyond_plan(),
            "within": self.within(),
            "memory": self.memory,
            "time": self.time,
        })
    }
}

fn print(case: &Case, threads: usize, rows: &[Row]) {
    println!("{}, {threads} thread(s)", case.name);
    println!(
        "  {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>12} {:>9} {:>9} {:>8}",
        "budget",
        "plan MiB",
        "peak MB",
        "anon MiB",
        "files MB",
        "caller kB",
        "anon - plan",
        "threads",
        "median ms",
        "error"
    );
    for row in rows {
        let beyond = row.beyond_plan().map_or("?".to_string(), |bytes| {
            format!(
                "{:+.0} KiB{}",
                bytes as f64 / 1024.0,
                if row.within() { "" } else { " !" }
            )
        });
        println!(
            "  {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>12} {:>9} {:>9.2} {:>8.1e}",
            row.budget,
            mebibytes(row.memory.plan_bytes),
            megabytes(row.process.peak),
            row.process.anonymous.map_or("?".to_string(), mebibytes),
            megabytes(row.process.file),
            row.memory.caller_bytes / 1000,
            beyond,
            row.memory.threads,
            row.time.times.map_or(f64::NAN, |times| times.median_ms),
            row.time.output_error.unwrap_or(f64::NAN)
        );
    }
}

fn draw(case: &Case, threads: usize, rows: &[Row], args: &Args) -> Result<()> {
    let Some(folder) = &args.svg else {
        return Ok(());
    };
    std::fs::create_dir_all(folder)?;
    let points = |bytes: &dyn Fn(&Row) -> Option<u64>| -> Vec<(f64, f64)> {
        let point = |row: &Row| Some((bytes(row)? as f64 / 1e6, row.time.times?.median_ms));
        rows.iter().filter_map(point).collect()
    };
    let curves = [
        Curve {
            name: "session (plan)",
            points: points(&|row| Some(row.memory.plan_bytes)),
        },
        Curve {
            name: "process, anonymous",
            points: points(&|row| row.process.anonymous),
        },
        Curve {
            name: "process, high-water mark",
            points: points(&|row| row.process.peak),
        },
    ];
    let file = folder.join(format!("{}-t{threads}.svg", case.name));
    plot::curves(
        &file,
        &format!("{}, {threads} thread(s): memory against time", case.name),
        ["memory, MB", "median time, ms"],
        &curves,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_spread_evenly_on_a_logarithmic_scale() {
        let budgets = spread(1 << 20, 1 << 24, 5);
        let inner = [1u64 << 21, 1 << 22, 1 << 23].map(Budget::Bytes);
        assert_eq!(budgets[0], Budget::Min);
        assert_eq!(budgets[1..4], inner);
        assert_eq!(budgets[4], Budget::Max);
        assert_eq!(spread(5, 5, 1), [Budget::Min, Budget::Max]);
    }
}
