//! Arrays of `.npy` files: float32 (and float64, narrowed), C order.

use std::path::Path;

use crate::error::Error;

/// Dimensions and row-major values of a file.
///
/// Errors: [`Error::Io`] when it cannot be read, [`Error::Input`] when it is not such an array.
pub fn read(path: &Path) -> Result<(Vec<usize>, Vec<f32>), Error> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, &e))?;
    let wrong = |why: String| Error::Input(format!("{}: {why}", path.display()));
    let file =
        npyz::NpyFile::new(bytes.as_slice()).map_err(|e| wrong(format!("not a .npy file: {e}")))?;
    if file.order() != npyz::Order::C {
        return Err(wrong(
            "the array is in Fortran order; save it in C order".into(),
        ));
    }
    let dims: Vec<usize> = file
        .shape()
        .iter()
        .map(|&d| usize::try_from(d))
        .collect::<Result<_, _>>()
        .map_err(|_| wrong("too large".into()))?;
    let count = crate::array::checked_product(&dims)
        .filter(|&count| count <= bytes.len())
        .ok_or_else(|| wrong(format!("dimensions {dims:?} with {} bytes", bytes.len())))?;
    let text = file.dtype().descr();
    let values: Vec<f32> = if text.contains("f4") {
        file.into_vec::<f32>().map_err(|e| wrong(e.to_string()))?
    } else if text.contains("f8") {
        file.into_vec::<f64>()
            .map_err(|e| wrong(e.to_string()))?
            .into_iter()
            .map(|v| v as f32)
            .collect()
    } else {
        return Err(wrong(format!("elements of type {text}; expected float32")));
    };
    if values.len() != count {
        return Err(wrong(format!(
            "{} values for dimensions {dims:?}",
            values.len()
        )));
    }
    Ok((dims, values))
}
