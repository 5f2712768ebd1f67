//! Second moments of what a layer reads, over images and positions.
//!
//! With x the patch in the float network and y the patch in the network whose earlier layers are compressed already, the
//! sums of y y^T and (x - y) y^T are kept per group, both centred: a constant error of the output is corrected by the
//! bias, so only deviations from the mean count.

use ndarray::Array2;
use rayon::prelude::*;

use super::linalg::{self, view, view_mut};
use super::patches::Patches;
use crate::error::Error;

/// Patches gathered before they are multiplied.
const ROWS: usize = 1024;
/// Groups of at most so many inputs are multiplied by plain loops.
const TINY: usize = 32;

/// Sums over patches.
#[derive(Debug)]
pub struct Gram {
    patches: Patches,
    square: Vec<Array2<f64>>,
    cross: Vec<Array2<f64>>,
    sum: Vec<f64>,
    sum_difference: Vec<f64>,
    weight: f64,
    buffer: Vec<f32>,
    difference: Vec<f32>,
    weights: Vec<f32>,
    symmetric: bool,
}

/// Centred second moments of one group.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Mean of y y^T.
    pub square: Array2<f64>,
    /// Mean of (x - y) y^T.
    pub cross: Array2<f64>,
}

/// Everything a layer's inputs say.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Per group.
    pub moments: Vec<Moments>,
    /// Mean of y, all groups.
    pub mean: Vec<f64>,
    /// Mean of x - y.
    pub mean_difference: Vec<f64>,
}

impl Gram {
    /// No patches yet. `symmetric`: x and y are the same, the cross moments stay zero.
    pub fn new(patches: Patches, symmetric: bool) -> Gram {
        let (groups, k, width) = (patches.shape.groups as usize, patches.k(), patches.width());
        let zero = |on: bool| {
            if on {
                Array2::zeros((k, k))
            } else {
                Array2::zeros((0, 0))
            }
        };
        Gram {
            square: (0..groups).map(|_| zero(true)).collect(),
            cross: (0..groups).map(|_| zero(!symmetric)).collect(),
            sum: vec![0.0; width],
            sum_difference: vec![0.0; width],
            weight: 0.0,
            buffer: Vec::with_capacity(ROWS * width),
            difference: Vec::with_capacity(if symmetric { 0 } else { ROWS * width }),
            weights: Vec::with_capacity(ROWS),
            patches,
            symmetric,
        }
    }

    /// Adds a position of an image with a weight.
    pub fn add(&mut self, x: &[f32], y: &[f32], position: usize, weight: f32) -> Result<(), Error> {
        let width = self.patches.width();
        let start = self.buffer.len();
        self.buffer.resize(start + width, 0.0);
        self.patches.gather(y, position, &mut self.buffer[start..]);
        if !self.symmetric {
            self.difference.resize(start + width, 0.0);
            self.patches
                .gather(x, position, &mut self.difference[start..]);
            let y = &self.buffer[start..];
            let pairs = self.difference[start..].iter_mut().zip(y);
            pairs.for_each(|(x, y)| *x -= y);
        }
        self.weights.push(weight);
        if self.weights.len() == ROWS {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        let (width, k) = (self.patches.width().max(1), self.patches.k());
        for (row, &weight) in self.weights.iter().enumerate() {
            self.weight += f64::from(weight);
            let root = weight.sqrt();
            let add = |values: &mut [f32], sum: &mut [f64]| {
                for (v, s) in values[row * width..][..width].iter_mut().zip(sum) {
                    *s += f64::from(*v) * f64::from(weight);
                    *v *= root;
                }
            };
            add(&mut self.buffer, &mut self.sum);
            if !self.symmetric {
                add(&mut self.difference, &mut self.sum_difference);
            }
        }
        let rows = self.weights.len();
        if k <= TINY {
            self.add_tiny(rows);
        }
        for group in 0..self.square.len() {
            if rows == 0 || k <= TINY {
                continue;
            }
            let y = view(&self.buffer[group * k..], rows, k, width)?;
            let mut part = vec![0.0f32; k * k];
            linalg::square(y, view_mut(&mut part, k, k, k)?);
            accumulate(&mut self.square[group], &part);
            if !self.symmetric {
                let x = view(&self.difference[group * k..], rows, k, width)?;
                linalg::multiply(1.0, x.t(), y, 0.0, view_mut(&mut part, k, k, k)?);
                accumulate(&mut self.cross[group], &part);
            }
        }
        self.buffer.clear();
        self.difference.clear();
        self.weights.clear();
        Ok(())
    }

    fn add_tiny(&mut self, rows: usize) {
        let (width, k) = (self.patches.width().max(1), self.patches.k());
        let add = |sum: &mut Array2<f64>, group: usize, left: &[f32], right: &[f32]| {
            let mut part = [0.0f64; TINY * TINY];
            for row in 0..rows {
                let start = row * width + group * k;
                let (left, right) = (&left[start..start + k], &right[start..start + k]);
                for (part, &l) in part.chunks_exact_mut(TINY).zip(left) {
                    let pairs = part.iter_mut().zip(right);
                    pairs.for_each(|(p, &r)| *p += f64::from(l) * f64::from(r));
                }
            }
            for ((i, j), sum) in sum.indexed_iter_mut() {
                *sum += part[i * TINY + j];
            }
        };
        let (y, d) = (&self.buffer, &self.difference);
        let groups = self.square.par_iter_mut().enumerate();
        groups.for_each(|(group, sum)| add(sum, group, y, y));
        if !self.symmetric {
            let groups = self.cross.par_iter_mut().enumerate();
            groups.for_each(|(group, sum)| add(sum, group, d, y));
        }
    }

    /// The centred moments. With `centre` false means count as zero (the layer cannot correct a constant error).
    pub fn finish(mut self, centre: bool) -> Result<Inputs, Error> {
        self.flush()?;
        let weight = if self.weight > 0.0 { self.weight } else { 1.0 };
        let k = self.patches.k();
        let divide = |sums: &[f64]| sums.iter().map(|v| v / weight).collect::<Vec<f64>>();
        let (mean, mean_difference) = (divide(&self.sum), divide(&self.sum_difference));
        let moments = self
            .square
            .into_iter()
            .zip(self.cross)
            .enumerate()
            .map(|(group, (mut square, mut cross))| {
                let at =
                    |values: &[f64], i: usize| if centre { values[group * k + i] } else { 0.0 };
                for j in 0..k {
                    for i in j..k {
                        let v = square[(i, j)] / weight - at(&mean, i) * at(&mean, j);
                        square[(i, j)] = v;
                        square[(j, i)] = v;
                    }
                    for i in 0..cross.nrows() {
                        let moment = cross[(i, j)] / weight;
                        cross[(i, j)] = moment - at(&mean_difference, i) * at(&mean, j);
                    }
                }
                Moments { square, cross }
            })
            .collect();
        Ok(Inputs {
            moments,
            mean,
            mean_difference,
        })
    }
}

fn accumulate(sum: &mut Array2<f64>, part: &[f32]) {
    sum.iter_mut()
        .zip(part)
        .for_each(|(s, p)| *s += f64::from(*p));
}
