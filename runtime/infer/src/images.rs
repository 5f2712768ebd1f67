//! Image files as network inputs.

use crate::Input;
use crate::failure::Failure;
use dcz::graph::Network;
use dcz::preprocess::{ImageRef, Rect, dims, preprocess};
use image::{DynamicImage, ImageDecoder, ImageReader};
use std::path::Path;

/// Decodes an image, turns it as its EXIF record says, and applies the file's preprocessing.
pub fn read(path: &Path, rect: Option<Rect>, network: &Network) -> Result<Input, Failure> {
    let Some(record) = &network.preprocess else {
        return Err(Failure::usage(format!(
            "{}: the file does not say how an image becomes its input; use --input, or compress \
             the network with --preprocess",
            network.name
        )));
    };
    let [input] = network.inputs.as_slice() else {
        return Err(Failure::usage(format!(
            "{} has several inputs; use --input",
            network.name
        )));
    };
    let name = network
        .tensors
        .get(input.0 as usize)
        .map_or(String::new(), |t| t.name.clone());
    let reader = ImageReader::open(path).map_err(|e| Failure::io(path, e))?;
    let reader = reader
        .with_guessed_format()
        .map_err(|e| Failure::io(path, e))?;
    let decoded = reader.into_decoder().and_then(|mut decoder| {
        // An image without a readable orientation is taken as it is.
        let orientation = decoder.orientation().ok();
        let mut image = DynamicImage::from_decoder(decoder)?;
        if let Some(orientation) = orientation {
            image.apply_orientation(orientation);
        }
        Ok(image.into_rgb8())
    });
    let image = decoded.map_err(|e| Failure::input(path, e.to_string().replace('\n', " ")))?;
    let (width, height) = image.dimensions();
    let data = preprocess(
        record,
        ImageRef {
            width,
            height,
            pixels: image.as_raw(),
        },
        rect,
    );
    let data = data.map_err(|e| Failure {
        code: e.exit_code(),
        ..Failure::input(path, e)
    })?;
    Ok(Input {
        name,
        dims: dims(record).to_vec(),
        data,
    })
}
