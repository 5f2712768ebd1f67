//! Measurements, one subcommand per subject. Run with `cargo run --release -p dcz-benches -- <subject>`.

mod decode;

use clap::{Parser, Subcommand};

/// Speed and memory measurements of dcz.
#[derive(Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Subcommand)]
enum Subject {
    /// Speed and size of the weight decoder, per index mode.
    Decode(decode::Args),
}

fn main() -> std::process::ExitCode {
    let result = match Cli::parse().subject {
        Subject::Decode(args) => decode::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
