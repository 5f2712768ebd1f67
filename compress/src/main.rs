//! The command line `dcz`: makes, inspects, checks and compares `.dcz` files.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // clap ends the process with 2 for wrong usage and 0 for help.
    let arguments = cli::Arguments::parse();
    match cli::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "dcz: {}",
                dcz_compress::settings::one_line(&error.to_string())
            );
            ExitCode::from(error.exit_code())
        }
    }
}
