//! Images as inputs of `dcz compare`.

use std::path::Path;

use dcz::oracle::Array;
use dcz::preprocess::dims;
use dcz_compress::accuracy::images::{Loader, list};
use dcz_compress::error::Error;
use dcz_format::graph::Network;

/// The images of a folder in the order of their names, at most `limit`, as inputs; and their names.
///
/// Errors: [`Error::Usage`] when the file describes no preprocessing, [`Error::Input`] for an image that cannot be read or
/// a folder without images.
pub fn read_folder(
    folder: &Path,
    network: &Network,
    limit: usize,
) -> Result<(Vec<Vec<Array>>, Vec<String>), Error> {
    let record = network.preprocess.as_ref().ok_or_else(|| {
        Error::Usage("the file does not say how an image becomes the input; use --input".into())
    })?;
    if network.inputs.len() != 1 {
        return Err(Error::Usage(format!(
            "the network has {} inputs; use --input",
            network.inputs.len()
        )));
    }
    let mut paths = list(folder)?;
    paths.truncate(limit);
    let loader = Loader {
        record: record.clone(),
        alignment: None,
    };
    let mut sets = Vec::with_capacity(paths.len());
    for path in &paths {
        let array = Array {
            dims: dims(record).to_vec(),
            values: loader.load(path)?.into_iter().map(f64::from).collect(),
        };
        dcz::shape::check_inputs(network, std::slice::from_ref(&array.dims))
            .map_err(|e| Error::Input(format!("{}: {e}", path.display())))?;
        sets.push(vec![array]);
    }
    Ok((
        sets,
        paths.iter().map(|p| p.display().to_string()).collect(),
    ))
}
