//! Image files as network inputs.

use crate::Input;
use crate::failure::Failure;
use dcz::graph::Network;
use dcz::preprocess::{ImageRef, Rect, dims, preprocess};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};
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
    let image = decode(path, None)?;
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

/// Decodes an image (the first of several in a file) to 8 bits per channel and turns it as its EXIF record says. An image of more than
/// `most` pixels is refused before it is decoded.
pub fn decode(path: &Path, most: Option<u64>) -> Result<RgbImage, Failure> {
    if path.is_dir() {
        return Err(Failure::input(path, "a folder, where an image is needed"));
    }
    let reader = ImageReader::open(path).map_err(|e| Failure::io(path, e))?;
    let reader = reader
        .with_guessed_format()
        .map_err(|e| Failure::io(path, e))?;
    if reader.format() == Some(ImageFormat::Jpeg) && !is_complete_jpeg(path)? {
        return Err(Failure::input(path, "the JPEG file is cut off"));
    }
    let wrong = |e: image::ImageError| Failure::input(path, e.to_string().replace('\n', " "));
    let mut decoder = reader.into_decoder().map_err(wrong)?;
    let (width, height) = decoder.dimensions();
    if let Some(most) = most.filter(|most| u64::from(width) * u64::from(height) > *most) {
        let why = format!("{width}x{height} are more than {most} pixels (--max-pixels)");
        return Err(Failure::input(path, why));
    }
    // An image without a readable orientation is taken as it is.
    let orientation = decoder.orientation().ok();
    let mut image = DynamicImage::from_decoder(decoder).map_err(wrong)?;
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    Ok(image.into_rgb8())
}

/// Whether the last scan of a JPEG file has an end. The decoder would fill what is missing with grey, in which no face is. Markers
/// cannot occur within a scan, and pictures within metadata lie before it.
fn is_complete_jpeg(path: &Path) -> Result<bool, Failure> {
    use std::io::{BufRead, BufReader};
    const START_OF_SCAN: [u8; 2] = [0xff, 0xda];
    const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];
    let file = std::fs::File::open(path).map_err(|e| Failure::io(path, e))?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let (mut complete, mut before) = (false, 0);
    loop {
        let bytes = reader.fill_buf().map_err(|e| Failure::io(path, e))?;
        if bytes.is_empty() {
            return Ok(complete);
        }
        for &byte in bytes {
            match [before, byte] {
                START_OF_SCAN => complete = false,
                END_OF_IMAGE => complete = true,
                _ => {}
            }
            before = byte;
        }
        let len = bytes.len();
        reader.consume(len);
    }
}
