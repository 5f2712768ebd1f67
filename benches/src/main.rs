//! The command `bench`. Run with `cargo run --release -p dcz-benches -- SUBJECT`.

use clap::{Parser, Subcommand};
use dcz_benches::{child, conv, decode, fit, latency, memory, peers, pick};
use std::process::ExitCode;

/// Speed and memory measurements of dcz.
///
/// Pin it as you want it measured (`taskset -c 0 bench ...` for one thread): the processes it starts inherit that.
#[derive(Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Subcommand)]
enum Subject {
    /// Time of whole networks, each figure in a fresh process and only if the output is right.
    Latency(latency::Args),
    /// Memory of whole networks under several budgets, each figure read by a fresh process itself.
    Memory(memory::Args),
    /// Every convolution algorithm on the shapes of well-known networks, relative to the dense default.
    Conv(conv::Args),
    /// The planner's prices from measurements of `bench conv --fit --json`, as a Rust file.
    Fit(fit::Args),
    /// Whether the planner's choice for each of those shapes is the fastest; fails when one is not.
    Pick(pick::Args),
    /// Speed and size of the weight decoder, per index mode.
    Decode(decode::Args),
    /// Other runtimes in turn with ours: time and memory ratios.
    Peers(peers::Args),
}

fn main() -> ExitCode {
    // Before anything else: a measured process must not carry the command line parser's pages.
    if let Some(job) = child::requested() {
        return child::serve(&job);
    }
    let result = match Cli::parse().subject {
        Subject::Latency(args) => latency::run(&args),
        Subject::Memory(args) => memory::run(&args),
        Subject::Conv(args) => conv::run(&args),
        Subject::Fit(args) => fit::run(&args),
        Subject::Pick(args) => pick::run(&args),
        Subject::Decode(args) => decode::run(&args),
        Subject::Peers(args) => peers::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
