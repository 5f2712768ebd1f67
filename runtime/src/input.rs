//! What a caller hands to a network: whole tensors, or sources of rows.

use dcz_kernels::Map;
use std::ops::Range;

/// A caller's input: dimensions and values in row-major (NCHW) order.
#[derive(Clone, Copy, Debug)]
pub struct TensorRef<'a> {
    /// Dimensions, outermost first.
    pub dims: &'a [usize],
    /// As many values as the dimensions say.
    pub data: &'a [f32],
}

/// Makes rows of a 4-D input when they are needed: from an image, a camera, a decoder. Rows of an image are asked for once
/// each, in pieces that follow each other from top to bottom, by several threads at once.
pub trait RowSource: Sync {
    /// Fills `out` with rows `rows` of image `image` of the batch, `[row][channel][column]`: all channels of the first row,
    /// then those of the next one. What it leaves unwritten has any value.
    fn fill(&self, image: usize, rows: Range<usize>, out: &mut [f32]);
}

/// A caller's input that is made row by row.
#[derive(Clone, Copy)]
pub struct RowsRef<'a> {
    /// Dimensions: `[images, channels, rows, columns]`.
    pub dims: &'a [usize],
    /// Makes the rows.
    pub source: &'a dyn RowSource,
}

/// The inputs of a run, by name.
#[derive(Clone, Copy)]
pub(crate) enum Inputs<'a> {
    Tensors(&'a [(&'a str, TensorRef<'a>)]),
    Rows(&'a [(&'a str, RowsRef<'a>)]),
}

impl<'a> Inputs<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Inputs::Tensors(list) => list.len(),
            Inputs::Rows(list) => list.len(),
        }
    }

    pub(crate) fn names(self) -> impl Iterator<Item = &'a str> {
        (0..self.len()).filter_map(move |at| match self {
            Inputs::Tensors(list) => list.get(at).map(|i| i.0),
            Inputs::Rows(list) => list.get(at).map(|i| i.0),
        })
    }

    pub(crate) fn dims(&self, at: usize) -> &'a [usize] {
        match self {
            Inputs::Tensors(list) => list.get(at).map_or(&[], |i| i.1.dims),
            Inputs::Rows(list) => list.get(at).map_or(&[], |i| i.1.dims),
        }
    }

    pub(crate) fn feed(&self, at: usize) -> Option<Feed<'a>> {
        match self {
            Inputs::Tensors(list) => list.get(at).map(|i| Feed::Values(i.1.data)),
            Inputs::Rows(list) => list.get(at).map(|i| Feed::Source(i.1.source)),
        }
    }
}

/// One input.
#[derive(Clone, Copy)]
pub(crate) enum Feed<'a> {
    Values(&'a [f32]),
    Source(&'a dyn RowSource),
}

impl Feed<'_> {
    /// Rows `rows` of an image of an input that has the sizes of `map`.
    pub(crate) fn fill(&self, map: Map, image: usize, rows: Range<usize>, out: &mut [f32]) {
        let values = match self {
            Feed::Source(source) => return source.fill(image, rows, out),
            Feed::Values(values) => *values,
        };
        let from = Map::nchw(map.n, map.c, map.h, map.w);
        let places = rows.flat_map(|y| (0..map.c).map(move |c| from.at(image, c, y)));
        for (to, at) in out.chunks_exact_mut(map.w.max(1)).zip(places) {
            if let Some(row) = values.get(at..at + to.len()) {
                to.copy_from_slice(row);
            }
        }
    }
}
