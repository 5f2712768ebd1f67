//! What is to be trained, and how.

use std::path::PathBuf;

use dcz_format::graph::Network;
use dcz_format::layer::LayerShape;

use crate::augment::{Augment, Picture};
use crate::error::Error;
use crate::loss::Losses;

/// The grid a layer's weights are rounded to: `q * step`, `|q| <= limit`.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// One step for the layer, or one per output channel; positive.
    pub steps: Vec<f32>,
    /// How far the threshold of code 1 lies above one half.
    pub dead_zone: f32,
    /// Largest code, 1 to 127.
    pub limit: u8,
}

/// A layer: its weights, and what is to become of them.
#[derive(Clone, Debug)]
pub struct TrainLayer {
    /// Name of the node.
    pub name: String,
    /// Geometry; weights are OIHW.
    pub shape: LayerShape,
    /// The original weights: the teacher's, and where the student begins.
    pub weights: Vec<f32>,
    /// Where the student begins instead, for example calibrated weights.
    pub start: Option<Vec<f32>>,
    /// Share of weights that are zero in the end, 0 to 1.
    pub sparsity: f64,
    /// Consecutive output channels that are pruned together; 1 for single weights.
    pub block: usize,
    /// Rounding; without it the weights stay float and are rounded later.
    pub grid: Option<Grid>,
}

/// A constant: bias, slope or operand.
#[derive(Clone, Debug)]
pub struct TrainConstant {
    /// Name, for messages.
    pub name: String,
    /// Dimensions; empty for a scalar.
    pub dims: Vec<usize>,
    /// Values: the teacher's, and where the student begins.
    pub values: Vec<f32>,
    /// Where the student begins instead.
    pub start: Option<Vec<f32>>,
}

/// A network to retrain. Batch normalisations are folded into its layers before, so there are no statistics to keep.
#[derive(Clone, Debug)]
pub struct Task {
    /// Graph records; ids index the lists below.
    pub network: Network,
    /// By layer id.
    pub layers: Vec<TrainLayer>,
    /// By constant id.
    pub constants: Vec<TrainConstant>,
}

/// When training ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// After so many steps; repeatable.
    Steps(u64),
    /// After so many seconds of training, interruptions not counted.
    Seconds(f64),
}

/// How to train.
#[derive(Clone, Debug)]
pub struct Options {
    /// What student and teacher are compared by.
    pub losses: Losses,
    /// When it ends.
    pub budget: Budget,
    /// Images per step.
    pub batch: usize,
    /// Step of the optimiser in steps of each layer's grid (without one: its standard deviation), at its largest.
    pub learning_rate: f64,
    /// Seed of everything random.
    pub seed: u64,
    /// Different augmentations of an image; none: every epoch a new one.
    pub variants: Option<u64>,
    /// Augmentations.
    pub augment: Augment,
    /// Bytes the file should have in the end: steps and weights are pressed until the estimate fits.
    pub size: Option<u64>,
    /// Bytes of the file that training does not change (records, tables), for the estimate.
    pub fixed_bytes: u64,
    /// Folder of checkpoint and curve.
    pub checkpoint: Option<PathBuf>,
    /// Seconds between checkpoints.
    pub checkpoint_seconds: f64,
    /// Steps between updates of the masks.
    pub prune_every: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            losses: Losses::default(),
            budget: Budget::Seconds(3600.0),
            batch: 16,
            learning_rate: 0.01,
            seed: 0,
            variants: None,
            augment: Augment::default(),
            size: None,
            fixed_bytes: 0,
            checkpoint: None,
            checkpoint_seconds: 60.0,
            prune_every: 10,
        }
    }
}

/// Where images come from.
pub trait Source {
    /// Number of images.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Image `index`, at any size.
    ///
    /// Errors: any; training ends with it.
    fn picture(&self, index: usize) -> Result<Picture, Error>;
    /// How many of the last images are kept aside and only measured; 0: some are chosen.
    fn held_out(&self) -> usize {
        0
    }
    /// What the network takes for a picture: `[C, H, W]`.
    ///
    /// Errors: any; training ends with it.
    fn input(&self, picture: &Picture) -> Result<Vec<f32>, Error>;
    /// Class of image `index`, when known.
    fn label(&self, index: usize) -> Option<u32>;
}

/// A retrained layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Retrained {
    /// Weights; with `steps` every one is exactly a code times its step.
    pub weights: Vec<f32>,
    /// Steps of the grid: one, one per output channel, or none for layers that were not rounded.
    pub steps: Option<Vec<f32>>,
}

/// What training gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// By layer id.
    pub layers: Vec<Retrained>,
    /// Values by constant id.
    pub constants: Vec<Vec<f32>>,
    /// What was recorded on the way.
    pub curve: Vec<Record>,
    /// Steps made in all.
    pub steps: u64,
    /// Seconds of training in all.
    pub seconds: f64,
    /// Estimated bytes of the file.
    pub bytes: f64,
}

/// A point of the curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    /// Steps made.
    pub step: u64,
    /// Mean loss since the last record.
    pub loss: f64,
    /// Mean cosine to the teacher on images kept aside.
    pub held_out: f64,
    /// Estimated bytes of the file.
    pub bytes: f64,
    /// Share of zeros.
    pub zeros: f64,
}

/// What is reported after every step.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Steps made.
    pub step: u64,
    /// 0 to 1.
    pub progress: f64,
    /// Loss of this step.
    pub loss: f64,
    /// Images a second, teacher included, over the last steps.
    pub rate: f64,
    /// Estimated seconds to the end.
    pub eta: f64,
    /// Estimated bytes of the file.
    pub bytes: f64,
    /// All points of the curve so far; the last is new when `recorded`.
    pub curve: &'a [Record],
    /// Whether a point was added.
    pub recorded: bool,
}

/// What the caller wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    Continue,
    /// Write a checkpoint and stop with [`Error::Interrupted`].
    Stop,
}
