//! Image files as inputs of a network: decoded, aligned when there are landmarks, preprocessed as the file describes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dcz::preprocess::{ImageRef, preprocess};
use dcz_face::Landmarks;
use dcz_face::align::{Align, arcface112, crop, dlib150};
use dcz_format::graph::Preprocess;

use crate::error::Error;
use crate::settings::read_text;

/// The image files of a folder (PNG, JPEG, WebP, BMP) in the order of their names.
///
/// Errors: [`Error::Io`] when it cannot be listed, [`Error::Input`] when it holds no image.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, &e))? {
        let path = entry.map_err(|e| Error::io(folder, &e))?.path();
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        if extension.is_some_and(|e| ["png", "jpg", "jpeg", "webp", "bmp"].contains(&e.as_str())) {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(Error::Input(format!(
            "{}: no PNG, JPEG, WebP or BMP image",
            folder.display()
        )));
    }
    Ok(paths)
}

/// The name of an image: its file name without the extension.
pub fn name(path: &Path) -> String {
    path.file_stem()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Five points per image and the template they are brought to.
#[derive(Clone, Debug)]
pub struct Alignment {
    /// By the image's name without extension.
    pub landmarks: BTreeMap<String, Landmarks>,
    /// Size of the crop and where the points go.
    pub template: Align,
    /// Pixels of the crop on every side that the input does not have.
    pub margin: u32,
}

impl Alignment {
    /// Reads landmarks: file name, then x and y of left eye, right eye, nose, left and right mouth corner. The template
    /// follows from the network's input: 112 x 112 is ArcFace's, 150 x 150 dlib's.
    ///
    /// Errors: [`Error::Io`]; [`Error::Input`] with the line that is wrong; [`Error::Usage`] for an input of another size.
    pub fn load(path: &Path, record: &Preprocess) -> Result<Alignment, Error> {
        let template = match record.size {
            [112, 112] => arcface112(),
            [150, 150] => dlib150(),
            [width, height] => {
                return Err(Error::Usage(format!(
                    "--landmarks: no template is known for an input of {width} x {height}, only for 112 x 112 (ArcFace) and 150 x 150 (dlib)"
                )));
            }
        };
        let landmarks = parse(&read_text(path)?)
            .map_err(|e| Error::Input(format!("{}: {e}", path.display())))?;
        Ok(Alignment {
            landmarks,
            template,
            margin: 0,
        })
    }

    /// The same with so many more pixels on every side, for augmentations that turn and shift.
    pub fn with_margin(mut self, margin: u32) -> Alignment {
        let by = margin as f32 - self.margin as f32;
        for point in &mut self.template.template {
            *point = point.map(|v| v + by);
        }
        self.template.size = self.template.size.map(|v| v - 2 * self.margin + 2 * margin);
        self.margin = margin;
        self
    }
}

fn parse(text: &str) -> Result<BTreeMap<String, Landmarks>, String> {
    let mut all = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let mut words = line.split_whitespace();
        let Some(file) = words.next() else { continue };
        let values: Option<Vec<f32>> = words
            .map(|w| w.parse().ok().filter(|v: &f32| v.is_finite()))
            .collect();
        let values = values
            .filter(|v| v.len() == 10)
            .ok_or_else(|| format!("line {}: expected a file name and ten numbers", number + 1))?;
        let mut points: Landmarks = [[0.0; 2]; 5];
        for (point, xy) in points.iter_mut().zip(values.chunks_exact(2)) {
            point.copy_from_slice(xy);
        }
        all.insert(name(Path::new(file)), points);
    }
    Ok(all)
}

/// Makes inputs from files.
#[derive(Clone, Debug)]
pub struct Loader {
    /// How pixels become the input.
    pub record: Preprocess,
    /// Alignment before that; without it images are taken as they are.
    pub alignment: Option<Alignment>,
}

impl Loader {
    /// The input made from a file; `[1, channels, height, width]`.
    ///
    /// Errors: [`Error::Io`], and [`Error::Input`] for a file that is no image or has no landmarks.
    pub fn load(&self, path: &Path) -> Result<Vec<f32>, Error> {
        let picture = self.picture(path)?;
        preprocess(&self.record, picture.view(), None).map_err(|e| wrong(path, e))
    }

    /// The pixels of a file, aligned when there are landmarks, before preprocessing.
    ///
    /// Errors: as [`Loader::load`].
    pub fn picture(&self, path: &Path) -> Result<Pixels, Error> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, &e))?;
        let image = image::load_from_memory(&bytes)
            .map_err(|e| wrong(path, e))?
            .into_rgb8();
        let Some(Alignment {
            landmarks,
            template,
            ..
        }) = &self.alignment
        else {
            return Ok(Pixels {
                width: image.width(),
                height: image.height(),
                rgb: image.into_raw(),
            });
        };
        let points = landmarks
            .get(&name(path))
            .ok_or_else(|| wrong(path, "no landmarks"))?;
        let face = dcz_face::Image::new(image.width(), image.height(), image.as_raw())
            .map_err(|e| wrong(path, e))?;
        let mut rgb = Vec::new();
        crop(&face, points, template, &mut rgb).map_err(|e| wrong(path, e))?;
        let [width, height] = template.size;
        Ok(Pixels { width, height, rgb })
    }
}

/// An RGB image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Three bytes a pixel, rows from the top.
    pub rgb: Vec<u8>,
}

impl Pixels {
    /// As the preprocessing takes it.
    pub fn view(&self) -> ImageRef<'_> {
        ImageRef {
            width: self.width,
            height: self.height,
            pixels: &self.rgb,
        }
    }
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::Input(format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_margin_moves_the_template() {
        let plain = Alignment {
            landmarks: BTreeMap::new(),
            template: arcface112(),
            margin: 0,
        };
        let wide = plain.clone().with_margin(14);
        assert_eq!((wide.template.size, wide.margin), ([140, 140], 14));
        assert_eq!(
            wide.template.template[0],
            plain.template.template[0].map(|v| v + 14.0)
        );
        assert_eq!(wide.with_margin(0).template.size, plain.template.size);
    }

    #[test]
    fn landmark_files() {
        let all = parse("a_0001.jpg 1 2 3 4 5 6 7 8 9 10\n\n").unwrap();
        assert_eq!(all["a_0001"][4], [9.0, 10.0]);
        for bad in [
            "a.jpg 1 2 3",
            "a.jpg 1 2 3 4 5 6 7 8 9 nan",
            "a.jpg 1 2 3 4 5 6 7 8 9 10 11",
        ] {
            assert!(parse(bad).unwrap_err().contains("line 1"), "{bad}");
        }
    }
}
