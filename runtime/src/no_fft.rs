//! In the place of `fft.rs` in a library without the feature `fft`: nothing is a candidate, so there are no weights either.

use crate::error::{Error, Result};
use crate::resident::FftNeeds;
use dcz_kernels::{ConvShape, Epilogue, Isa, Start, View, ViewMut, WeightTile};
use std::ops::Range;

pub(crate) fn supports(_: &ConvShape) -> bool {
    false
}

pub(crate) fn work(_: &ConvShape) -> Option<[f64; 2]> {
    None
}

pub(crate) fn needs(_: &ConvShape) -> Option<FftNeeds> {
    None
}

/// There are none.
#[derive(Debug)]
pub(crate) enum Transformed {}

impl Transformed {
    pub(crate) fn new(_: Isa, _: &ConvShape) -> Result<Transformed> {
        Err(Error::internal("built without FFT"))
    }

    pub(crate) fn add(&mut self, _: &WeightTile<'_>, _: &mut [f32]) -> Result<()> {
        match *self {}
    }

    pub(crate) fn rows(&self) -> usize {
        match *self {}
    }

    #[expect(clippy::too_many_arguments, reason = "as in fft.rs")]
    pub(crate) fn run(
        &self,
        _: Range<usize>,
        _: View<'_>,
        _: Range<usize>,
        _: &mut ViewMut<'_>,
        _: Start,
        _: &Epilogue<'_>,
        _: &mut [f32],
    ) {
        match *self {}
    }
}
