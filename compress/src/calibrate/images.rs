//! The images that calibrate: which ones can be used, and in which order.

use std::path::{Path, PathBuf};

use super::segment::in_parallel;
use crate::accuracy::images::{Loader, list};
use crate::error::Error;

/// Fewest images that say anything.
pub const LEAST: usize = 8;

/// Usable images in a fixed order in which every stretch is a fair sample of the folder; the last ones are held out.
#[derive(Debug)]
pub struct Images {
    loader: Loader,
    paths: Vec<PathBuf>,
    /// How many at the end are never calibrated with.
    pub held_out: usize,
    /// What was wrong with those that cannot be used.
    pub skipped: Vec<String>,
}

impl Images {
    /// Looks at every image of a folder. One that cannot be read is skipped, or with `strict` the error.
    ///
    /// Errors: [`Error::Io`], [`Error::Input`] when fewer than [`LEAST`] can be used.
    pub fn open(folder: &Path, loader: Loader, strict: bool) -> Result<Images, Error> {
        let mut paths = list(folder)?;
        // Multiplicative hashing of the place in the folder; equal folders give equal orders.
        let mut order: Vec<usize> = (0..paths.len()).collect();
        order.sort_by_key(|&i| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        paths = order
            .into_iter()
            .map(|i| std::mem::take(&mut paths[i]))
            .collect();
        let read = in_parallel(0..paths.len(), &|i| match loader.load(&paths[i]) {
            Ok(_) => Ok(None),
            Err(error) if strict => Err(error),
            Err(error) => Ok(Some(error.to_string())),
        })?;
        let mut usable = read.iter().map(Option::is_none);
        let all = paths.len();
        paths.retain(|_| usable.next().unwrap_or(false));
        let skipped: Vec<String> = read.into_iter().flatten().collect();
        if paths.len() < LEAST {
            let why = skipped
                .first()
                .map(|s| format!("; the first: {s}"))
                .unwrap_or_default();
            return Err(Error::Input(format!(
                "{}: {} of {all} images can be used, calibration needs at least {LEAST} (a few hundred are good){why}",
                folder.display(),
                paths.len(),
            )));
        }
        Ok(Images {
            held_out: (paths.len() / 10).clamp(2, 96),
            loader,
            paths,
            skipped,
        })
    }

    /// Usable images.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// None; never of an opened folder.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Images to calibrate with: all but those held out.
    pub fn calibrating(&self) -> usize {
        self.paths.len() - self.held_out
    }

    /// The input made from an image; the last [`Images::held_out`] are those to measure with.
    pub fn load(&self, index: usize) -> Result<Vec<f32>, Error> {
        let path = self.paths.get(index);
        self.loader
            .load(path.ok_or_else(|| Error::Input("no such image".into()))?)
    }

    /// File name without extension.
    pub fn name(&self, index: usize) -> String {
        self.paths
            .get(index)
            .map(|p| crate::accuracy::images::name(p))
            .unwrap_or_default()
    }
}
