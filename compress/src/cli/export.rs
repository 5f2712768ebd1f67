//! `dcz export`: weights as .npy files.

use std::path::PathBuf;

use dcz::Model;
use dcz_compress::error::Error;
use dcz_compress::export::export;

use super::target::Partial;

/// Writes every layer's decoded weights and the integers they are coded as into a folder of .npy files.
///
/// `layers.json` in the folder says which file is what. Arrays are OIHW; integers are the codes of a grid, or, of other
/// kinds of values, the code plus one with 0 for zero.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The file
    file: PathBuf,
    /// The folder to make; it must not exist
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Which network of the file
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let target = &arguments.output;
    if std::fs::symlink_metadata(target).is_ok() {
        return Err(Error::Io(format!("{}: exists already", target.display())));
    }
    let model = Model::open(&arguments.file)?;
    let net = model.find(arguments.network.as_deref())?;
    let partial = Partial::beside(target)?;
    std::fs::create_dir(&partial.path).map_err(|e| Error::io(target, &e))?;
    let bar = super::progress_bar();
    bar.set_message("exporting");
    let done = export(model.container(), net, &partial.path, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let done = done
        .and_then(|()| std::fs::rename(&partial.path, target).map_err(|e| Error::io(target, &e)));
    if done.is_err() {
        // Nothing half written stays.
        let _ = std::fs::remove_dir_all(&partial.path);
    }
    done
}
