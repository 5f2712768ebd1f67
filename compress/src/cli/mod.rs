//! Sub-commands, their arguments, and what they share.

mod bundle;
mod calibrate;
mod calibrated;
mod check;
mod compare;
mod compress;
mod evaluate;
mod export;
mod images;
mod inspect;
mod measure;
mod recode;
mod report;
mod retrain;
mod score;
mod sensitivity;
mod target;

use std::io::Write;
use std::path::Path;

use clap::{Parser, Subcommand};
use dcz_compress::error::Error;
use indicatif::{ProgressBar, ProgressStyle};

/// Makes, inspects, checks, compares and evaluates .dcz files.
///
/// Exit codes: 0 all is well, 2 usage, 3 malformed or corrupt file, 4 unsupported, 5 bad input, 6 memory budget,
/// 7 input or output, 8 some of many inputs failed, 9 `compare` found a bad layer.
#[derive(Debug, Parser)]
#[command(name = "dcz", version, max_term_width = 110)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Compress(Box<compress::Arguments>),
    Bundle(bundle::Arguments),
    Inspect(inspect::Arguments),
    Check(check::Arguments),
    Compare(compare::Arguments),
    Evaluate(evaluate::Arguments),
    Sensitivity(sensitivity::Arguments),
    Score(score::Arguments),
    Export(export::Arguments),
    Recode(recode::Arguments),
    #[command(hide = true)]
    MeasurePeak(measure::Arguments),
}

/// Runs a sub-command.
pub fn run(arguments: Arguments) -> Result<(), Error> {
    match arguments.command {
        Command::Compress(arguments) => compress::run(&arguments),
        Command::Bundle(arguments) => bundle::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Evaluate(arguments) => evaluate::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Recode(arguments) => recode::run(&arguments),
        Command::Score(arguments) => score::run(&arguments),
        Command::MeasurePeak(arguments) => measure::run(&arguments),
        Command::Sensitivity(arguments) => sensitivity::run(&arguments),
    }
}

/// Whether a file begins like a .dcz file.
fn is_dcz(path: &Path) -> Result<bool, Error> {
    use std::io::Read;
    let mut head = [0; 8];
    let mut file = std::fs::File::open(path).map_err(|e| Error::io(path, &e))?;
    Ok(file.read_exact(&mut head).is_ok() && head == dcz_format::MAGIC)
}

/// A progress bar on stderr; silent when that is not a terminal.
fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{msg:<12} {bar:40} {pos}/{len} {elapsed}") {
        bar.set_style(style);
    }
    bar
}

/// Prints to stdout; a closed pipe is not an error worth a message of its own.
fn print(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Error::io(Path::new("standard output"), &e))
}

/// `12,345,678`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
