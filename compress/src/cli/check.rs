//! `dcz check`: structure, checksums, self-test.

use std::path::PathBuf;
use std::sync::Arc;

use dcz::{Model, Session, SessionOptions};
use dcz_compress::error::Error;
use dcz_format::{Container, Limits, MappedFile};
use serde_json::json;

/// Verifies every byte of a .dcz file and runs its self-tests.
///
/// On failure one line on stderr names section, layer and byte offset.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The file
    file: PathBuf,
    /// Only structure and checksums
    #[arg(long)]
    no_self_test: bool,
    /// Prints one line of JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let file = MappedFile::open(&arguments.file).map_err(|e| Error::io(&arguments.file, &e))?;
    let container = Container::open(Arc::new(file), &Limits::default())?;
    let bar = super::progress_bar();
    bar.set_message("checking");
    let checked = container.check(&mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let report = checked?;
    let mut tests = Vec::new();
    if !arguments.no_self_test {
        let model = Model::open(&arguments.file)?;
        for network in container
            .networks()
            .iter()
            .filter(|n| n.self_test.is_some())
        {
            let mut session = Session::new(
                &model,
                SessionOptions::default().with_network(network.name.clone()),
            )?;
            let test = session.self_test()?;
            if !test.passed() {
                return Err(Error::SelfTest(format!(
                    "network '{}': self-test failed: output error {:.2e}, norm error {:.2e}, limit {:.0e}",
                    network.name, test.output_error, test.norm_error, test.tolerance
                )));
            }
            tests.push((network.name.clone(), test.output_error));
        }
    }
    if arguments.json {
        let tests: Vec<_> = tests
            .iter()
            .map(|(name, error)| json!({ "network": name, "output_error": error }))
            .collect();
        let line = json!({
            "bytes": report.bytes, "sections": report.sections, "unknown_sections": report.unknown_sections, "networks": report.networks,
            "layers": report.layers, "tiles": report.tiles, "weights": report.weights, "constants": report.constants, "self_tests": tests,
        });
        return super::print(&format!("{line}\n"));
    }
    let mut text = format!(
        "{}: ok; {} bytes, {} sections, {} networks, {} layers, {} tiles, {} weights, {} constants\n",
        arguments.file.display(),
        super::grouped(report.bytes),
        report.sections,
        report.networks,
        report.layers,
        report.tiles,
        super::grouped(report.weights),
        report.constants
    );
    for (name, error) in &tests {
        text.push_str(&format!("self-test of '{name}': error {error:.1e}\n"));
    }
    super::print(&text)
}
