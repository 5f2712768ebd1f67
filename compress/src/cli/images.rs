//! Images as inputs of `dcz compare`.

use std::path::Path;

use dcz::oracle::Array;
use dcz::preprocess::{ImageRef, dims, preprocess};
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
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, &e))? {
        let path = entry.map_err(|e| Error::io(folder, &e))?.path();
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        if extension.is_some_and(|e| ["png", "jpg", "jpeg", "webp", "bmp"].contains(&e.as_str())) {
            paths.push(path);
        }
    }
    paths.sort();
    paths.truncate(limit);
    if paths.is_empty() {
        return Err(Error::Input(format!(
            "{}: no PNG, JPEG, WebP or BMP image",
            folder.display()
        )));
    }
    let mut sets = Vec::with_capacity(paths.len());
    for path in &paths {
        let wrong = |why: String| Error::Input(format!("{}: {why}", path.display()));
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, &e))?;
        let image = image::load_from_memory(&bytes)
            .map_err(|e| wrong(e.to_string()))?
            .into_rgb8();
        let reference = ImageRef {
            width: image.width(),
            height: image.height(),
            pixels: image.as_raw(),
        };
        let values = preprocess(record, reference, None).map_err(|e| wrong(e.to_string()))?;
        let array = Array {
            dims: dims(record).to_vec(),
            values: values.into_iter().map(f64::from).collect(),
        };
        dcz::shape::check_inputs(network, std::slice::from_ref(&array.dims))
            .map_err(|e| wrong(e.to_string()))?;
        sets.push(vec![array]);
    }
    Ok((
        sets,
        paths.iter().map(|p| p.display().to_string()).collect(),
    ))
}
