//! Batches: which images in which order, and what the teacher says to them.
//!
//! Every epoch is a permutation of the images, and its number says which variant of each image is seen: always a new one, or with
//! [`Options::variants`] the number modulo that, so that after as many epochs every teacher output is in the cache. Position
//! `i` of the run always holds the same augmented image: nothing of the order needs to be kept in a checkpoint.

use std::collections::HashMap;

use candle_core::Tensor;

use crate::augment::Random;
use crate::error::Error;
use crate::graph::{Graph, Parameters, batch};
use crate::ops::{tensor, with_floats};
use crate::task::{Options, Source};

/// Most values of cached teacher outputs (256 MB).
const CACHE_VALUES: usize = 64 << 20;
/// Images kept aside: one in 16, at least 1, at most 64.
const HELD_OUT_SHARE: usize = 16;
const HELD_OUT_MOST: usize = 64;

/// An image and its variant; without one it is the image itself.
type Key = (u32, Option<u64>);

/// A batch with the teacher's outputs.
pub struct Batch {
    /// The images.
    pub input: crate::graph::Value,
    /// Per graph output `[N, D]`.
    pub teacher: Vec<Tensor>,
    /// Classes, when all are known.
    pub labels: Option<Vec<u32>>,
}

/// Makes batches.
pub struct Batches<'a> {
    source: &'a dyn Source,
    graph: &'a Graph<'a>,
    teacher: Parameters,
    dims: [usize; 3],
    seed: u64,
    variants: Option<u64>,
    augment: crate::augment::Augment,
    training: Vec<u32>,
    held_out: Vec<u32>,
    epoch: Option<(u64, Vec<u32>)>,
    cache: HashMap<Key, Vec<Vec<f32>>>,
    cached_values: usize,
}

impl<'a> Batches<'a> {
    /// Divides images into those trained on and those kept aside.
    ///
    /// Errors: [`Error::Input`] for fewer than 4 images, or missing labels where the losses need them.
    pub fn new(
        source: &'a dyn Source,
        graph: &'a Graph<'a>,
        teacher: Parameters,
        dims: [usize; 3],
        options: &Options,
    ) -> Result<Batches<'a>, Error> {
        let count = source.len();
        if count < 4 + source.held_out() {
            return Err(Error::Input(format!(
                "retraining needs at least 4 images, better a thousand; there {} {count}",
                if count == 1 { "is" } else { "are" }
            )));
        }
        if options.losses.needs_labels()
            && let Some(i) = (0..count).find(|&i| source.label(i).is_none())
        {
            return Err(Error::Input(format!(
                "the loss ce needs labels: one folder per class within the folder of images; image {} lies in none",
                i + 1
            )));
        }
        let mut augment = options.augment;
        if options.losses.needs_labels() {
            // Labels are of whole pictures.
            (augment.blend, augment.paste) = (0.0, 0.0);
        }
        let aside = source.held_out();
        let mut order = Random::new(&[options.seed, 1]).permutation(count - aside);
        let held_out = if aside > 0 {
            (count - aside..count).map(|i| i as u32).collect()
        } else {
            order.split_off(count - (count / HELD_OUT_SHARE).clamp(1, HELD_OUT_MOST))
        };
        Ok(Batches {
            source,
            graph,
            teacher,
            dims,
            seed: options.seed,
            variants: options.variants,
            augment,
            training: order,
            held_out,
            epoch: None,
            cache: HashMap::new(),
            cached_values: 0,
        })
    }

    /// Images trained on.
    pub fn images(&self) -> usize {
        self.training.len()
    }

    /// The image at a position of the run.
    fn at(&mut self, position: u64) -> Key {
        let count = self.training.len() as u64;
        let number = position / count;
        if self.epoch.as_ref().is_none_or(|e| e.0 != number) {
            let order = Random::new(&[self.seed, 2, number]).permutation(count as usize);
            self.epoch = Some((number, order));
        }
        let place = (position % count) as usize;
        let place = self.epoch.as_ref().map_or(place, |e| e.1[place] as usize);
        let variant = self.variants.map_or(number, |v| number % v.max(1));
        (self.training[place], Some(variant))
    }

    /// The batch of step `step` (from 0).
    pub fn training(&mut self, step: u64, size: usize) -> Result<Batch, Error> {
        let first = step * size as u64;
        let keys: Vec<Key> = (0..size as u64).map(|i| self.at(first + i)).collect();
        self.make(&keys)
    }

    /// Batches of the images kept aside, not augmented.
    pub fn held_out(&mut self, size: usize) -> Result<Vec<Batch>, Error> {
        let keys: Vec<Key> = self.held_out.iter().map(|&i| (i, None)).collect();
        keys.chunks(size.max(1)).map(|k| self.make(k)).collect()
    }

    fn make(&mut self, keys: &[Key]) -> Result<Batch, Error> {
        let inputs: Vec<Vec<f32>> = keys
            .iter()
            .map(|&(image, variant)| {
                let picture = self.source.picture(image as usize)?;
                let Some(variant) = variant else {
                    return self.source.input(&picture.inner()?);
                };
                let mut random = Random::new(&[self.seed, 3, u64::from(image), variant]);
                let picture = self.augment.apply(&picture, &mut random, &mut |random| {
                    let other = self.training[random.below(self.training.len())];
                    self.source.picture(other as usize)
                })?;
                self.source.input(&picture)
            })
            .collect::<Result<_, Error>>()?;
        let input = batch(&inputs, self.dims)?;
        let teacher = self.teacher(keys, &input)?;
        let labels = keys
            .iter()
            .map(|k| self.source.label(k.0 as usize))
            .collect();
        Ok(Batch {
            input,
            teacher,
            labels,
        })
    }

    fn teacher(&mut self, keys: &[Key], input: &crate::graph::Value) -> Result<Vec<Tensor>, Error> {
        let known: Option<Vec<&Vec<Vec<f32>>>> = keys.iter().map(|k| self.cache.get(k)).collect();
        if let Some(rows) = known
            && let Some(first) = rows.first()
        {
            return (0..first.len())
                .map(|output| {
                    let width = first[output].len();
                    let values = rows
                        .iter()
                        .flat_map(|r| r[output].iter().copied())
                        .collect();
                    Ok(tensor(values, &[keys.len(), width])?)
                })
                .collect();
        }
        let outputs = self.graph.run(input, &self.teacher)?;
        let mut rows: Vec<Vec<Vec<f32>>> = vec![Vec::new(); keys.len()];
        for output in &outputs {
            let width = output.dim(1)?.max(1);
            with_floats(output, |values| {
                for (row, values) in rows.iter_mut().zip(values.chunks_exact(width)) {
                    row.push(values.to_vec());
                }
                Ok(())
            })?;
        }
        // What never comes again is not kept.
        let again = |key: &Key| self.variants.is_some() || key.1.is_none();
        for (key, row) in keys.iter().zip(rows).filter(|(key, _)| again(key)) {
            let size: usize = row.iter().map(Vec::len).sum();
            if self.cached_values + size <= CACHE_VALUES {
                self.cached_values += size;
                self.cache.insert(*key, row);
            }
        }
        Ok(outputs)
    }
}
