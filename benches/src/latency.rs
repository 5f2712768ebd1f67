//! `bench latency`: time of whole networks.
//!
//! Each figure comes from a process of its own: it opens the file, prepares, runs twice, runs the self-test with the
//! same session, and only when the output error is within the limit warms up and takes times. With several passes the
//! whole list is gone through again; the pass with the smallest median counts and the range of the medians is kept.

use crate::budget::Budget;
use crate::cases::{Case, Choice};
use crate::child::{self, Figures, Job, Run};
use crate::record::{Output, Report};
use crate::{Result, mebibytes, plot};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of `bench latency`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    choice: Choice,
    /// Memory budgets instead of those of the cases: min, max, or sizes such as 1.6MiB.
    #[arg(long, value_delimiter = ',', value_name = "B,..")]
    budgets: Vec<Budget>,
    /// Times to go through the list.
    #[arg(long, default_value_t = 1)]
    passes: usize,
    /// Time spent running before the times are taken.
    #[arg(long, value_name = "MS", default_value_t = 300)]
    warm_up: u64,
    /// Largest output error for which a time is printed.
    #[arg(long, value_name = "ERROR", default_value_t = f64::from(dcz::session::MAX_RELATIVE_ERROR))]
    max_error: f64,
    /// Also measure the steps, and draw them to NAME-tTHREADS-BUDGET.svg here.
    #[arg(long, value_name = "DIR")]
    layers: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// One line of the table.
struct Row {
    case: Case,
    threads: usize,
    budget: Budget,
    /// Of the pass with the smallest median.
    best: Option<Figures>,
    medians: Vec<f64>,
    error: Option<String>,
}

/// Measures and prints. Fails when a figure could not be had.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mut networks = args.choice.networks()?;
    if !args.budgets.is_empty() {
        networks.budgets.clone_from(&args.budgets);
    }
    let mut report = Report::begin("latency");
    let mut rows = Vec::new();
    for case in &networks.networks {
        for &threads in &networks.threads {
            for &budget in &networks.budgets {
                rows.push(Row {
                    case: case.clone(),
                    threads,
                    budget,
                    best: None,
                    medians: Vec::new(),
                    error: None,
                });
            }
        }
    }
    for _ in 0..args.passes.max(1) {
        for row in &mut rows {
            measure(row, networks.runs, args);
        }
    }
    if !args.output.json {
        println!(
            "{:<18} {:>3} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>9} {:>8}",
            "network",
            "thr",
            "budget",
            "median ms",
            "min ms",
            "p90 ms",
            "first ms",
            "second ms",
            "prepare",
            "cold ms",
            "plan MiB",
            "error"
        );
    }
    let mut failed = false;
    for row in &rows {
        failed |= row.error.is_some();
        if !args.output.json {
            print(row);
        }
        report.row(to_json(row));
        if let (Some(folder), Some(figures)) = (&args.layers, &row.best) {
            std::fs::create_dir_all(folder)?;
            let file = format!("{}-t{}-{}.svg", row.case.name, row.threads, row.budget);
            let title = format!(
                "{}, {} thread(s), budget {}",
                row.case.name, row.threads, row.budget
            );
            plot::steps(&folder.join(file), &title, &figures.steps)?;
        }
    }
    report.finish(&args.output)?;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn measure(row: &mut Row, runs: usize, args: &Args) {
    let job = Run {
        network: row.case.network.clone(),
        warm_up_ms: args.warm_up,
        max_error: Some(args.max_error),
        profile: args.layers.is_some(),
        ..Run::new(&row.case.file, row.threads, row.budget, runs)
    };
    match timed(&job) {
        Ok((figures, median)) => {
            if row.medians.iter().all(|&other| median < other) {
                row.best = Some(figures);
            }
            row.medians.push(median);
        }
        Err(error) => row.error = Some(error.to_string()),
    }
}

/// Runs a job with a self-test and gives its figures and median; an output that is wrong is an error.
pub fn timed(job: &Run) -> Result<(Figures, f64)> {
    let answer = child::start_self(&Job::Run(job.clone()))?;
    let figures = answer.run.ok_or("no figures")?;
    match figures.times {
        Some(times) => Ok((figures, times.median_ms)),
        None => Err(format!(
            "output error {:.1e} exceeds {:.0e}: no time",
            figures.output_error.unwrap_or(f64::NAN),
            job.max_error.unwrap_or(f64::NAN)
        )
        .into()),
    }
}

fn print(row: &Row) {
    let head = format!("{:<18} {:>3} {:>9}", row.case.name, row.threads, row.budget);
    if let Some(error) = &row.error {
        println!("{head} {error}");
        return;
    }
    let Some((figures, times)) = row.best.as_ref().and_then(|f| Some((f, f.times?))) else {
        return;
    };
    let ms = |value: Option<f64>| value.map_or("?".to_string(), |v| format!("{v:.2}"));
    println!(
        "{head} {:>9.2} {:>9.2} {:>9.2} {:>9} {:>9} {:>9.2} {:>8} {:>9} {:>8.1e}{}",
        times.median_ms,
        times.min_ms,
        times.p90_ms,
        ms(figures.first_ms),
        ms(figures.second_ms),
        figures.prepare_ms,
        ms(figures.cold_ms),
        mebibytes(figures.plan_bytes),
        figures.output_error.unwrap_or(f64::NAN),
        if figures.threads == row.threads {
            String::new()
        } else {
            format!("  planned for {} thread(s)", figures.threads)
        }
    );
}

fn to_json(row: &Row) -> serde_json::Value {
    json!({
        "network": row.case.name,
        "threads": row.threads,
        "budget": row.budget,
        "medians_ms": row.medians,
        "figures": row.best,
        "error": row.error,
    })
}
