//! Activations of the calibration images at one place of the network, for the float network and its compressed prefix.
//!
//! The walk goes from layer to layer. Where all live tensors of all images fit into a budget they are kept, so that the
//! next layer only costs the nodes in between; where they do not, the next step starts again from the last place that
//! fitted (at first: the images themselves). Memory is bounded by the budget, one chunk of images, and one layer.

use dcz::shape::Dims;
use dcz_format::graph::TensorId;

use super::segment::{Segment, in_parallel, live};
use crate::error::Error;
use crate::import::FloatNetwork;

/// Values of the live tensors of one image.
pub type Tensors = Vec<Vec<f32>>;

/// Images handled at a time.
const CHUNK: usize = 32;

/// Gives the input of an image.
pub type Source<'a> = dyn Fn(usize) -> Result<Vec<f32>, Error> + Sync + 'a;

/// Where the walk is, and what is kept there.
pub struct Frontier<'a> {
    source: &'a Source<'a>,
    images: usize,
    dims: Vec<Dims>,
    budget: usize,
    at: usize,
    /// Per image: float, coded. Empty at the images themselves.
    kept: Vec<[Tensors; 2]>,
}

impl<'a> Frontier<'a> {
    /// At the images. `budget` in bytes.
    pub fn new(source: &'a Source<'a>, images: usize, dims: Vec<Dims>, budget: usize) -> Self {
        Frontier {
            source,
            images,
            dims,
            budget,
            at: 0,
            kept: Vec::new(),
        }
    }

    /// Runs both networks from the last kept place to `node` and shows `seen(image, float, coded)` the live tensors there,
    /// image by image in order. With `coded` none, only the float network is run and shown twice.
    pub fn advance(
        &mut self,
        float: &FloatNetwork,
        coded: Option<&FloatNetwork>,
        node: usize,
        seen: &mut dyn FnMut(usize, &Tensors, &Tensors) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let to = live(&float.network, node);
        let from = live(&float.network, self.at);
        let computed: Vec<TensorId> = to.iter().copied().filter(|id| !from.contains(id)).collect();
        let make = |net: &FloatNetwork| -> Result<Option<Segment>, Error> {
            (!computed.is_empty())
                .then(|| Segment::new(net, &self.dims, self.at..node, &from, &computed))
                .transpose()
        };
        let segments = [make(float)?, coded.map(make).transpose()?.flatten()];
        let size: usize = to
            .iter()
            .map(|id| self.dims[id.0 as usize].iter().product::<usize>())
            .sum();
        let sides = if coded.is_some() { 2 } else { 1 };
        let keep = size * self.images * sides * 4 <= self.budget;
        let mut next = Vec::new();
        for first in (0..self.images).step_by(CHUNK) {
            let range = first..(first + CHUNK).min(self.images);
            let results = in_parallel(range.clone(), &|image| {
                let original;
                let kept = match self.kept.get(image) {
                    Some(kept) => kept,
                    None => {
                        let input = vec![(self.source)(image)?];
                        original = [input.clone(), input];
                        &original
                    }
                };
                let mut sides: [Tensors; 2] = [Vec::new(), Vec::new()];
                for (side, values) in sides.iter_mut().enumerate() {
                    if side == 1 && coded.is_none() {
                        break;
                    }
                    let given: Vec<&[f32]> = kept[side].iter().map(Vec::as_slice).collect();
                    let mut made = match &segments[side] {
                        Some(segment) => segment.run(&given)?.into_iter(),
                        None => Vec::new().into_iter(),
                    };
                    for id in &to {
                        values.push(match from.iter().position(|f| f == id) {
                            Some(place) => kept[side][place].clone(),
                            None => made.next().unwrap_or_default(),
                        });
                    }
                }
                Ok(sides)
            })?;
            for (image, sides) in range.zip(results) {
                let other = if coded.is_some() {
                    &sides[1]
                } else {
                    &sides[0]
                };
                seen(image, &sides[0], other)?;
                if keep {
                    next.push(sides);
                }
            }
        }
        if keep {
            self.kept = next;
            self.at = node;
        }
        Ok(())
    }
}
