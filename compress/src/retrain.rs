//! Retraining: what lies between an imported network with its settings and `dcz-train`.
//!
//! The settings say what is to become of each layer, as they do without retraining: the share of zeros that pruning would
//! leave is where the schedule ends, the grid that quantisation would choose is where the steps begin. Layers with
//! `quantize=none`, `minmax` or `codebook` are trained in float and quantised afterwards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use dcz::preprocess::preprocess;
use dcz_format::graph::{ConstId, LayerId};
use dcz_format::layer::{Steps, Values};
use dcz_train::augment::Picture;
use dcz_train::{
    Control, Event, Grid, Options, Outcome, Retrained, Source, Task, TrainConstant, TrainLayer,
};

use crate::accuracy::images::{Loader, Pixels, list};
use crate::defaults::{self, Role};
use crate::encode::{CompressOptions, Ready, by_role, coded_bytes, quantise_layer, roles};
use crate::error::Error;
use crate::import::{FloatLayer, FloatNetwork};
use crate::prune;
use crate::quantize;
use crate::settings::{AllSettings, Quantize};

/// Decoded images are kept in memory up to this many bytes, others are read again whenever they are needed.
const CACHE: usize = 512 << 20;
/// Bytes of a file, and per layer, that are not weights: records, tables, tile entries.
const FILE_BYTES: u64 = 600;
const LAYER_BYTES: u64 = 90;
/// Layers of so many weights get one step when a size is wanted, at first of so many standard deviations.
const LARGE: usize = 2048;
const FINE_STEP: f64 = 0.1;

/// Images of a folder: those in it, or one class per folder in it.
pub struct Folder {
    loader: Loader,
    images: Vec<(PathBuf, Option<u32>)>,
    cache: Mutex<BTreeMap<usize, Pixels>>,
    held_out: usize,
    /// What was wrong with images that were skipped.
    pub skipped: Vec<String>,
}

impl Folder {
    /// Lists and decodes the images; those that cannot be used are skipped and counted, or with `strict` the error. Those
    /// of `held_out` are only measured.
    ///
    /// Errors: [`Error::Io`]; [`Error::Input`] when there is no image.
    pub fn open(
        folder: &Path,
        held_out: Option<&Path>,
        loader: Loader,
        strict: bool,
    ) -> Result<Folder, Error> {
        let mut images = Vec::new();
        let mut classes: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, &e))? {
            let path = entry.map_err(|e| Error::io(folder, &e))?.path();
            if path.is_dir() {
                classes.push(path);
            }
        }
        classes.sort();
        if classes.is_empty() {
            images.extend(list(folder)?.into_iter().map(|path| (path, None)));
        }
        for (class, folder) in classes.iter().enumerate() {
            let found = list(folder)?;
            images.extend(found.into_iter().map(|path| (path, Some(class as u32))));
        }
        let trained = images.len();
        if let Some(folder) = held_out {
            // Not trained on: its class, where one is wanted of every image, does not matter.
            let class = images.first().and_then(|image| image.1);
            images.extend(list(folder)?.into_iter().map(|path| (path, class)));
        }
        let mut all = Folder {
            loader,
            images: Vec::with_capacity(images.len()),
            cache: Mutex::new(BTreeMap::new()),
            held_out: 0,
            skipped: Vec::new(),
        };
        let mut kept = 0usize;
        let mut cache = BTreeMap::new();
        for (number, (path, class)) in images.into_iter().enumerate() {
            match all.loader.picture(&path) {
                Ok(pixels) => {
                    if kept + pixels.rgb.len() <= CACHE {
                        kept += pixels.rgb.len();
                        cache.insert(all.images.len(), pixels);
                    }
                    all.images.push((path, class));
                    all.held_out += usize::from(number >= trained);
                }
                Err(error) if strict => return Err(error),
                Err(error) => all.skipped.push(error.to_string()),
            }
        }
        all.cache = Mutex::new(cache);
        if let Some(folder) = held_out.filter(|_| all.held_out == 0) {
            return Err(Error::Input(format!(
                "{}: no image that can be used, the last: {}",
                folder.display(),
                all.skipped.last().map_or("none", String::as_str)
            )));
        }
        Ok(all)
    }
}

impl Source for Folder {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn picture(&self, index: usize) -> Result<Picture, dcz_train::Error> {
        let known = self
            .cache
            .lock()
            .ok()
            .and_then(|cache| cache.get(&index).cloned());
        let pixels = match (known, self.images.get(index)) {
            (Some(pixels), _) => pixels,
            (None, Some((path, _))) => self.loader.picture(path).map_err(to_train)?,
            (None, None) => return Err(dcz_train::Error::Input(format!("no image {index}"))),
        };
        Ok(Picture {
            width: pixels.width,
            height: pixels.height,
            rgb: pixels.rgb,
            margin: self.loader.alignment.as_ref().map_or(0, |a| a.margin),
        })
    }

    fn held_out(&self) -> usize {
        self.held_out
    }

    fn input(&self, picture: &Picture) -> Result<Vec<f32>, dcz_train::Error> {
        let view = dcz::preprocess::ImageRef {
            width: picture.width,
            height: picture.height,
            pixels: &picture.rgb,
        };
        preprocess(&self.loader.record, view, None)
            .map_err(|e| dcz_train::Error::Input(e.to_string()))
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.images.get(index).and_then(|image| image.1)
    }
}

fn to_train(error: Error) -> dcz_train::Error {
    dcz_train::Error::Input(error.to_string())
}

impl From<dcz_train::Error> for Error {
    fn from(error: dcz_train::Error) -> Error {
        match error {
            dcz_train::Error::Unsupported(text) => Error::Usage(format!("--retrain: {text}")),
            dcz_train::Error::Io(text) => Error::Io(text),
            dcz_train::Error::Interrupted(text) => Error::Interrupted(text),
            other => Error::Input(other.to_string()),
        }
    }
}

/// What the settings say about every layer, and the bytes that training does not change. With `sized`, a size is wanted:
/// large layers that would get 8 bits per output channel get one step, which can be made coarser.
///
/// Errors: as [`crate::encode::compress`] for settings that contradict each other.
pub fn task(
    float: &FloatNetwork,
    settings: &AllSettings,
    sized: bool,
) -> Result<(Task, u64), Error> {
    settings.check_names(float.layers.iter().map(|l| l.name.as_str()))?;
    let roles = roles(&float.network, &float.layers);
    let plan = defaults::plan(&float.layers, &roles);
    let mut fixed = FILE_BYTES + LAYER_BYTES * float.layers.len() as u64;
    let mut layers = Vec::with_capacity(float.layers.len());
    for ((layer, role), default) in float.layers.iter().zip(roles).zip(plan) {
        let own = settings.layers.get(&layer.name).copied();
        let of_layer = settings.of(&layer.name);
        let mut all = settings.clone();
        if of_layer.quantize.is_none() {
            // Trained weights have no few distinct values to preserve.
            all.general.quantize = Some(Quantize::Grid);
        }
        let coded = quantise_layer(layer.clone(), role, default, &all, None)?;
        let limit = of_layer
            .bits
            .map_or(127, |bits| ((1u16 << (bits - 1)) - 1).max(1) as u8);
        let grid = match coded.values {
            Values::Grid {
                steps: Steps::Layer(step),
            } => Some(vec![step]),
            Values::Grid {
                steps: Steps::Channel(_),
            } if sized
                && of_layer.bits.is_none()
                && layer.weights.len() >= LARGE
                && !matches!(role, Role::First | Role::Depthwise) =>
            {
                Some(vec![defaults::scaled_step(&layer.weights, FINE_STEP)])
            }
            Values::Grid {
                steps: Steps::Channel(steps),
            } => Some(steps),
            _ => None,
        };
        let spread = prune::standard_deviation(&layer.weights);
        let grid = grid.map(|steps| Grid {
            dead_zone: match steps[..] {
                [step] => quantize::dead_zone(f64::from(step) / spread.max(f64::MIN_POSITIVE)),
                _ => 0.0,
            },
            steps,
            limit,
        });
        if grid.is_none() {
            let bits = match of_layer.quantize {
                Some(Quantize::None) => 32,
                _ => u64::from(of_layer.bits.unwrap_or(8)),
            };
            fixed += layer.weights.len() as u64 * bits / 8;
        }
        let rule = by_role(
            of_layer.prune.unwrap_or_default(),
            role,
            own.is_some_and(|s| s.prune.is_some()),
        );
        let block = of_layer.prune_block.unwrap_or(1);
        let mut pruned = layer.weights.clone();
        let zeros = prune::prune_layer(&mut pruned, &layer.shape, rule, block);
        let sparsity = match rule {
            crate::settings::Prune::None => 0.0,
            _ => zeros as f64 / layer.weights.len().max(1) as f64,
        };
        layers.push(TrainLayer {
            name: layer.name.clone(),
            shape: layer.shape,
            weights: layer.weights.clone(),
            start: None,
            sparsity,
            block: usize::from(block),
            grid,
        });
    }
    let constants = float.constants.iter().map(|c| TrainConstant {
        name: c.name.clone(),
        dims: c.dims.clone(),
        values: c.values.clone(),
        start: None,
    });
    let task = Task {
        network: float.network.clone(),
        constants: constants.collect(),
        layers,
    };
    Ok((task, fixed))
}

/// Makes the student begin as a file that was made from the same model, for example with `--calibration`: its weights, grids
/// and constants.
///
/// Errors: [`Error::Input`] for a file of another network, or one that cannot be decoded.
pub fn start_from(task: &mut Task, file: &Path) -> Result<(), Error> {
    let model = dcz::Model::open(file)?;
    let other = |what: &str| {
        Error::Input(format!(
            "{}: made from another network ({what}); --start takes a file made from the same model",
            file.display()
        ))
    };
    let container = model.container();
    let network = container.networks().first().ok_or_else(|| other("none"))?;
    if network.layers.len() != task.layers.len() || network.constants.len() != task.constants.len()
    {
        return Err(other("number of layers"));
    }
    for (index, (layer, to)) in network.layers.iter().zip(&mut task.layers).enumerate() {
        if layer.name != to.name || layer.shape != to.shape {
            return Err(other(&layer.name));
        }
        to.start = Some(container.dense_weights(0, LayerId(index as u32))?);
        let steps = match &layer.values {
            Values::Grid {
                steps: Steps::Layer(step),
            } => vec![*step],
            Values::Grid {
                steps: Steps::Channel(steps),
            } => steps.clone(),
            _ => continue,
        };
        if let Some(grid) = &mut to.grid {
            grid.steps = steps;
        }
    }
    for (index, to) in task.constants.iter_mut().enumerate() {
        let mut values = vec![0.0; to.values.len()];
        container.constant(0, ConstId(index as u32), &mut values)?;
        to.start = Some(values);
    }
    Ok(())
}

/// Retrains a network; its constants are replaced, the new weights are for [`crate::encode::compress_ready`].
///
/// Errors: as [`dcz_train::retrain`] and [`task`].
pub fn retrain(
    float: &mut FloatNetwork,
    compress: &CompressOptions,
    start: Option<&Path>,
    source: &dyn Source,
    mut options: Options,
    report: &mut dyn FnMut(&Event) -> Control,
) -> Result<(BTreeMap<String, Ready>, Outcome), Error> {
    let (mut task, fixed) = task(float, &compress.settings, options.size.is_some())?;
    if let Some(file) = start {
        start_from(&mut task, file)?;
    }
    options.fixed_bytes = fixed;
    let coded = &mut |layers: &[Retrained], constants: &[Vec<f32>]| {
        let mut student = float.clone();
        take_constants(&mut student, constants);
        let ready = ready(&student, layers);
        coded_bytes(student, compress, &ready)
            .map(|bytes| bytes as f64)
            .map_err(to_train)
    };
    let outcome = dcz_train::retrain(&task, source, &options, coded, report)?;
    take_constants(float, &outcome.constants);
    Ok((ready(float, &outcome.layers), outcome))
}

fn take_constants(float: &mut FloatNetwork, constants: &[Vec<f32>]) {
    for (constant, values) in float.constants.iter_mut().zip(constants) {
        constant.values.clone_from(values);
    }
}

fn ready(float: &FloatNetwork, layers: &[Retrained]) -> BTreeMap<String, Ready> {
    let of_layer = |(layer, new): (&FloatLayer, &Retrained)| {
        let steps = new.steps.as_ref().map(|steps| match steps[..] {
            [step] => Steps::Layer(step),
            _ => Steps::Channel(steps.clone()),
        });
        let ready = Ready {
            weights: new.weights.clone(),
            steps,
        };
        (layer.name.clone(), ready)
    };
    float.layers.iter().zip(layers).map(of_layer).collect()
}
