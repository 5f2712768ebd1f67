//! `dcz recode`: the same weights, coded anew.

use std::path::PathBuf;
use std::sync::Arc;

use dcz_compress::error::Error;
use dcz_format::writer::{self, IndexChoice, WriteOptions};
use dcz_format::{Container, Limits, MappedFile};
use serde_json::json;

use super::target::{Partial, check_target};

/// Codes a .dcz file anew, bit for bit the same weights: an old file gets what newer versions know, or a file is made faster to
/// decode.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The file
    file: PathBuf,
    /// The file to write; an existing regular file is replaced atomically
    #[arg(short, long, value_name = "OUT.dcz")]
    output: PathBuf,
    /// Without classes of inputs: larger, faster to decode, and readers of all versions understand it
    #[arg(long)]
    plain: bool,
    /// Prints one line of JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    check_target(&arguments.output)?;
    let file = MappedFile::open(&arguments.file).map_err(|e| Error::io(&arguments.file, &e))?;
    let container = Container::open(Arc::new(file), &Limits::default())?;
    let index = match arguments.plain {
        true => IndexChoice::Plain,
        false => IndexChoice::Auto,
    };
    let networks = writer::inputs(&container, index)?;
    let mut options = WriteOptions::default();
    options.texts = container.texts()?;
    let bar = super::progress_bar();
    bar.set_message("coding");
    let encoded = writer::encode(networks, &options, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let mut encoded = encoded?;
    if let Some(pipeline) = container.pipeline() {
        encoded.set_pipeline(pipeline.clone())?;
    }
    let partial = Partial::beside(&arguments.output)?;
    let bytes = encoded.write_atomic(&partial.path)?;
    let written = MappedFile::open(&partial.path).map_err(|e| Error::io(&partial.path, &e))?;
    same_weights(
        &container,
        &Container::open(Arc::new(written), &Limits::default())?,
    )?;
    partial.rename_to(&arguments.output)?;
    let before = container.source().len();
    if arguments.json {
        let line = json!({ "file": arguments.output, "bytes": bytes, "bytes_before": before });
        return super::print(&format!("{line}\n"));
    }
    let (bytes, before) = (super::grouped(bytes), super::grouped(before));
    super::print(&format!("{bytes} bytes, {before} before\n"))
}

/// Every weight is the same, bit for bit.
fn same_weights(old: &Container, new: &Container) -> Result<(), Error> {
    for (net, network) in old.networks().iter().enumerate() {
        for (id, layer) in (0..).map(dcz_format::graph::LayerId).zip(&network.layers) {
            let (old, new) = (old.dense_weights(net, id)?, new.dense_weights(net, id)?);
            let same = old
                .iter()
                .zip(&new)
                .all(|(a, b)| a.to_bits() == b.to_bits());
            if !same || old.len() != new.len() {
                let name = &layer.name;
                return Err(Error::SelfTest(format!(
                    "layer {name} would have other weights; nothing was written"
                )));
            }
        }
    }
    Ok(())
}
