//! The search for the price of a bit that meets the target, and the frontier it walks.

use std::time::{Duration, Instant};

use dcz::shape::Dims;
use dcz_format::layer::{KOrder, Values};
use dcz_format::writer::{Encoded, IndexChoice, LayerInput, Weights};

use super::images::Images;
use super::prepare::{PrepareOptions, prepare};
use super::segment::{Segment, in_parallel, shapes};
use super::target::Target;
use super::treatment::{Treatment, treatments};
use super::walk::{Ground, Knowledge, Rounded, WalkOptions, dry, walk};
use crate::accuracy::embed::output_of;
use crate::accuracy::pairs::person;
use crate::encode::{self, CompressOptions, finish};
use crate::error::Error;
use crate::import::FloatNetwork;
use crate::quantize;
use crate::settings::IndexSetting;

/// Options of a calibration.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Options {
    /// What to reach; none: the size of the file without calibration.
    pub target: Option<Target>,
    /// Most images that are walked (layers of more inputs than that use all there are).
    pub images: usize,
    /// Once a file meets the target, no new walk starts that would end after this.
    pub time: Duration,
    /// Bytes of activations kept between layers.
    pub budget: usize,
    /// Share of the mean of the diagonal that is added to second moments.
    pub damping: f64,
    /// How much of what earlier layers did wrong a layer corrects, 0 to 1.
    pub correction: f64,
    /// Factor on the shrinkage of second moments of layers with more inputs than images.
    pub shrink: f64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            target: None,
            images: 256,
            time: Duration::from_secs(15 * 60),
            budget: 512 << 20,
            damping: 0.01,
            correction: 0.5,
            shrink: 1.0,
        }
    }
}

/// Images whose gradients are taken, and whose inputs are looked at before the walk.
const GRADIENTS: usize = 96;
const SPECTRA: usize = 128;
/// Most walks of a search.
const WALKS: usize = 6;
/// A file of a target size may be smaller by this share.
const CLOSE: f64 = 0.01;

/// One compressed network of the search.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Squared output error that a bit is worth.
    pub lambda: f64,
    /// The file.
    pub bytes: u64,
    /// Mean cosine to the float network's outputs on held-out images, and the least.
    pub cosine: [f64; 2],
    /// Loss of true positive rate, where that is the target.
    pub tpr_drop: Option<f64>,
    /// Since the search began.
    pub seconds: f64,
    /// The target is met.
    pub meets: bool,
}

/// The outcome.
#[derive(Debug)]
pub struct Calibrated {
    /// The best file that meets the target.
    pub encoded: Encoded,
    /// Everything that was tried, in order.
    pub points: Vec<Point>,
    /// Which of them was taken.
    pub taken: usize,
    /// The target, where there was none the size that stands for it.
    pub target: Target,
    /// Things the user should know.
    pub notes: Vec<String>,
}

/// Called with what is being done, steps done and steps in all.
pub type Progress<'a> = dyn FnMut(&str, usize, usize) + 'a;

/// Compresses a network with what images say.
///
/// Errors: [`Error::Usage`] for settings that calibration has no use for, for targets that these images cannot measure,
/// and for networks with nothing to round; [`Error::Input`] for a target out of reach, with the nearest that was found.
pub fn compress(
    mut float: FloatNetwork,
    images: &Images,
    options: &Options,
    compress: &CompressOptions,
    progress: &mut Progress,
) -> Result<Calibrated, Error> {
    let started = Instant::now();
    compress
        .settings
        .check_names(float.layers.iter().map(|l| l.name.as_str()))?;
    compress.description.apply(&mut float.network)?;
    let target = match options.target {
        Some(target) => target,
        None => {
            progress("size without calibration", 0, 1);
            let plain = encode::compress(float.clone(), compress, &mut |_, _, _| {})?;
            Target::Size(plain.to_bytes()?.len() as u64)
        }
    };
    float.network.provenance.producer = concat!("dcz-compress ", env!("CARGO_PKG_VERSION")).into();
    let treatments = treatments(&float, &compress.settings)?;
    let dims = shapes(&float)?;
    if dims.iter().any(|d| d.is_empty()) || float.network.inputs.len() != 1 {
        return Err(Error::Usage(
            "calibration needs a network with one input, an image".into(),
        ));
    }
    let judge = Judge::new(&float, &dims, images, target)?;
    let source = |i: usize| images.load(i);
    let count = options.images.clamp(1, images.calibrating());
    let knowledge = prepare(
        &mut float,
        &dims,
        &source,
        &treatments,
        &PrepareOptions {
            gradients: count.min(GRADIENTS),
            images: count.min(SPECTRA),
            damping: options.damping,
            budget: options.budget,
        },
        progress,
    )?;
    let mut search = Search {
        ground: Ground {
            float: &float,
            dims: &dims,
            treatments: &treatments,
            knowledge: &knowledge,
            source: &source,
        },
        images,
        options,
        compress,
        judge: &judge,
        started,
        points: Vec::new(),
        best: None,
        progress,
    };
    let wanted = match target {
        Target::Size(bytes) => Wanted::Bytes(bytes),
        Target::Ratio(ratio) => Wanted::Bytes((float_bytes(&float) / ratio) as u64),
        Target::Cosine(cosine) => Wanted::Loss(1.0 - cosine),
        Target::TprDrop(drop) => Wanted::Drop(drop),
    };
    search.run(wanted)?;
    let Search { points, best, .. } = search;
    let Some((taken, encoded)) = best else {
        return Err(Error::Input(out_of_reach(target, &points)));
    };
    Ok(Calibrated {
        encoded,
        points,
        taken,
        target,
        notes: float.notes,
    })
}

fn float_bytes(float: &FloatNetwork) -> f64 {
    let weights: usize = float.layers.iter().map(|l| l.weights.len()).sum();
    let constants: usize = float.constants.iter().map(|c| c.values.len()).sum();
    4.0 * (weights + constants) as f64
}

fn out_of_reach(target: Target, points: &[Point]) -> String {
    let nearest = match target {
        Target::Size(_) | Target::Ratio(_) => points.iter().min_by_key(|p| p.bytes),
        _ => points
            .iter()
            .max_by(|a, b| a.cosine[0].total_cmp(&b.cosine[0])),
    };
    match nearest {
        Some(p) => {
            let drop = p
                .tpr_drop
                .map(|d| format!(", tpr-drop {d:.4}"))
                .unwrap_or_default();
            format!(
                "--target {target} was not reached; the nearest of {} files tried: {} bytes, cosine {:.5}{drop}; nothing was written",
                points.len(),
                p.bytes,
                p.cosine[0]
            )
        }
        None => format!("--target {target} was not reached; nothing was written"),
    }
}

/// A target as the search sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wanted {
    Bytes(u64),
    Loss(f64),
    Drop(f64),
}

struct Search<'a, 'p> {
    ground: Ground<'a>,
    images: &'a Images,
    options: &'a Options,
    compress: &'a CompressOptions,
    judge: &'a Judge<'a>,
    started: Instant,
    points: Vec<Point>,
    best: Option<(usize, Encoded)>,
    progress: &'a mut Progress<'p>,
}

impl Search<'_, '_> {
    fn run(&mut self, wanted: Wanted) -> Result<(), Error> {
        match wanted {
            Wanted::Bytes(bytes) => self.by_size(bytes),
            Wanted::Loss(loss) => self.by_error(&|p| p.bytes as f64, &|p| 1.0 - p.cosine[0], loss),
            Wanted::Drop(drop) => {
                self.by_error(&|p| p.bytes as f64, &|p| p.tpr_drop.unwrap_or(1.0), drop)
            }
        }
    }

    /// Whether there is time for another walk.
    fn more(&self) -> bool {
        let longest = self.points.len().max(1) as f64;
        let spent = self.started.elapsed().as_secs_f64();
        self.points.len() < WALKS
            && (self.best.is_none()
                || spent * (1.0 + 1.0 / longest) < self.options.time.as_secs_f64())
    }

    /// Bits follow from the weights and the price well enough to say where to look; each file corrects that by the ratio of
    /// its real size to the expected one.
    fn by_size(&mut self, bytes: u64) -> Result<(), Error> {
        let ground = self.ground;
        let expected = |lambda: f64| dry(&ground, lambda) / 8.0;
        let constants: usize = self
            .ground
            .float
            .constants
            .iter()
            .map(|c| c.values.len())
            .sum();
        let mut overhead = 2.0 * constants as f64 + 2.0 * self.records();
        let mut ratio = 1.02;
        let start = expected_price(self.ground.float, self.ground.knowledge);
        while self.more() {
            let room = (bytes as f64 * (1.0 - 0.3 * CLOSE) - overhead) / ratio;
            let Some(lambda) = bisect(start, room, &expected) else {
                if self.points.is_empty() {
                    // Not even next to nothing would fit: say what would.
                    self.try_price(start * 1e6, &|_| false)?;
                }
                return Ok(());
            };
            let point = self.try_price(lambda, &|p| p.bytes <= bytes)?;
            if point.meets && point.bytes as f64 > bytes as f64 * (1.0 - CLOSE) {
                return Ok(());
            }
            let coded = point.bytes as f64;
            overhead = overhead.min(0.9 * coded);
            ratio = ((coded - overhead) / expected(lambda).max(1.0)).clamp(0.5, 2.0);
        }
        Ok(())
    }

    /// Bytes of a network's records, roughly.
    fn records(&self) -> f64 {
        let channels: u32 = self
            .ground
            .float
            .layers
            .iter()
            .map(|l| l.shape.out_channels)
            .sum();
        f64::from(channels) + 100.0 * self.ground.float.network.nodes.len() as f64
    }

    /// The error grows with the price of a bit, in proportion at first.
    fn by_error(
        &mut self,
        size: &dyn Fn(&Point) -> f64,
        error: &dyn Fn(&Point) -> f64,
        most: f64,
    ) -> Result<(), Error> {
        let weights: usize = self
            .ground
            .float
            .layers
            .iter()
            .map(|l| l.weights.len())
            .sum();
        // A bit more divides the error of a weight by 4: at the best, error = weights * price / (2 ln 2), halved for a cosine.
        let mut lambda = most.max(1e-6) * 2.0 / weights.max(1) as f64;
        let (mut low, mut high): (Option<f64>, Option<f64>) = (None, None);
        while self.more() {
            let point = self.try_price(lambda, &|p| error(p) <= most)?;
            let reached = error(&point).max(most * 1e-3);
            if point.meets {
                low = Some(low.map_or(lambda, |l| l.max(lambda)));
            } else {
                high = Some(high.map_or(lambda, |h| h.min(lambda)));
            }
            if point.meets && reached > 0.9 * most {
                return Ok(());
            }
            let guess = lambda * (0.96 * most / reached).powf(0.8).clamp(0.02, 20.0);
            lambda = match (low, high) {
                (Some(l), Some(h)) if !(l < guess && guess < h) => (l * h).sqrt(),
                _ => guess,
            };
            let best = self.best.as_ref().map(|(i, _)| size(&self.points[*i]));
            if let (Some(l), Some(h), Some(_)) = (low, high, best)
                && h / l < 1.1
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Walks once and measures; the file is kept when it meets the target and is the best so far.
    fn try_price(&mut self, lambda: f64, meets: &dyn Fn(&Point) -> bool) -> Result<Point, Error> {
        let options = WalkOptions {
            lambda,
            damping: self.options.damping,
            correction: self.options.correction,
            images: self.options.images.clamp(1, self.images.calibrating()),
            wide_images: self.images.calibrating(),
            shrink: self.options.shrink,
            budget: self.options.budget,
        };
        let mut coded = self.ground.float.clone();
        let label = format!("walk {}", self.points.len() + 1);
        let progress = &mut *self.progress;
        let rounded = walk(&self.ground, &mut coded, &options, &mut |done, all| {
            progress(&label, done, all)
        })?;
        let (cosine, tpr_drop) = self.judge.measure(&coded, self.ground.dims)?;
        let layers = self.layers(rounded)?;
        let encoded = finish(
            coded.network,
            layers,
            coded.constants,
            self.compress,
            &mut |_, _, _| {},
        )?;
        let mut point = Point {
            lambda,
            bytes: encoded.to_bytes()?.len() as u64,
            cosine,
            tpr_drop,
            seconds: self.started.elapsed().as_secs_f64(),
            meets: false,
        };
        point.meets = meets(&point);
        // Of those that meet the target the one that uses most of it: the finest for a size, the smallest for an accuracy.
        let by_size = matches!(self.judge.target, Target::Size(_) | Target::Ratio(_));
        let better = self.best.as_ref().is_none_or(|(i, _)| {
            let old = &self.points[*i];
            if by_size {
                point.cosine[0] > old.cosine[0]
            } else {
                point.bytes < old.bytes
            }
        });
        if point.meets && better {
            self.best = Some((self.points.len(), encoded));
        }
        self.points.push(point.clone());
        Ok(point)
    }

    fn layers(&self, rounded: Vec<Option<Rounded>>) -> Result<Vec<LayerInput>, Error> {
        let layers = self
            .ground
            .float
            .layers
            .iter()
            .zip(self.ground.treatments)
            .zip(rounded);
        layers
            .map(|((layer, treatment), rounded)| {
                let index = self.compress.settings.of(&layer.name).index;
                match (treatment, rounded) {
                    (Treatment::Fixed { input, .. }, _) => Ok((**input).clone()),
                    (_, Some(rounded)) => Ok(LayerInput {
                        cosine: quantize::cosine(&layer.weights, &rounded.decoded),
                        max_error: quantize::largest_difference(&layer.weights, &rounded.decoded),
                        name: layer.name.clone(),
                        shape: layer.shape,
                        k_order: KOrder::ChannelMajor,
                        values: Values::Grid {
                            steps: rounded.steps,
                        },
                        weights: Weights::Codes {
                            codes: rounded.codes.iter().map(|&q| q as u8).collect(),
                            absent: Vec::new(),
                        },
                        index: index.map_or(IndexChoice::Auto, |IndexSetting(choice)| choice),
                    }),
                    _ => Err(Error::Malformed(format!(
                        "layer '{}': no node uses it",
                        layer.name
                    ))),
                }
            })
            .collect()
    }
}

/// A price at which a network is coded with a few bits per weight.
fn expected_price(float: &FloatNetwork, knowledge: &[Knowledge]) -> f64 {
    let mut logs = Vec::new();
    for (layer, known) in float.layers.iter().zip(knowledge) {
        let n = layer.weights.len().max(1) as f64;
        let power = layer
            .weights
            .iter()
            .map(|&w| f64::from(w).powi(2))
            .sum::<f64>()
            / n;
        let rows = known.rows.iter().sum::<f64>() / known.rows.len().max(1) as f64;
        let columns = known.columns.iter().sum::<f64>() / known.columns.len().max(1) as f64;
        let price = power * rows * columns;
        if price.is_finite() && price > 0.0 {
            logs.push((n, price.ln()));
        }
    }
    let total: f64 = logs.iter().map(|(n, _)| n).sum();
    let mean = logs.iter().map(|(n, l)| n * l).sum::<f64>() / total.max(1.0);
    mean.exp() * 0.02
}

/// The price at which the expected bytes are `room`; none when even a very high one leaves more.
fn bisect(start: f64, room: f64, expected: &dyn Fn(f64) -> f64) -> Option<f64> {
    let (mut low, mut high) = (start.ln() - 16.0, start.ln() + 16.0);
    if expected(high.exp()) > room {
        return None;
    }
    for _ in 0..22 {
        let middle = 0.5 * (low + high);
        if expected(middle.exp()) > room {
            low = middle
        } else {
            high = middle
        }
    }
    Some(high.exp())
}

/// Measures compressed networks on images that were not calibrated with.
struct Judge<'a> {
    images: &'a Images,
    target: Target,
    outputs: Vec<dcz_format::graph::TensorId>,
    held: Vec<Vec<f32>>,
    /// Embeddings of all images, where true positive rates are the target, and the float network's rate.
    rate: Option<f64>,
}

/// False positive rate of the true positive rate.
const FALSE_POSITIVES: f64 = 1e-3;

/// The smallest drop that so many pairs of one person can show, if there are enough of different people.
fn nearest_drop(same: usize, enough_different: bool) -> String {
    if same < 2 || !enough_different {
        return String::new();
    }
    format!(
        " (the smallest drop they can show is {:.4})",
        1.0 / same as f64
    )
}

impl<'a> Judge<'a> {
    fn new(
        float: &FloatNetwork,
        dims: &[Dims],
        images: &'a Images,
        target: Target,
    ) -> Result<Judge<'a>, Error> {
        let outputs = float.network.outputs.iter().map(|o| o.tensor).collect();
        let mut judge = Judge {
            images,
            target,
            outputs,
            held: Vec::new(),
            rate: None,
        };
        if let Target::TprDrop(drop) = target {
            output_of(&float.network)?;
            let [same, different] = judge.pairs();
            let (fewest, least) = (
                (1.0 / drop).ceil() as usize,
                (10.0 / FALSE_POSITIVES) as usize,
            );
            if same < fewest || different < least {
                return Err(Error::Usage(format!(
                    "--target tpr-drop={drop} cannot be measured on these images: by their names (NAME_0001) they make {same} pairs of one person and {different} of two, at least {fewest} and {least} are needed{}; --target cosine=... needs no names",
                    nearest_drop(same, different >= least)
                )));
            }
        }
        judge.held = judge.run(float, dims, images.calibrating()..images.len())?;
        if matches!(target, Target::TprDrop(_)) {
            let all = judge.run(float, dims, 0..images.len())?;
            judge.rate = Some(judge.true_positives(&all));
        }
        Ok(judge)
    }

    /// All outputs of images, one after the other.
    fn run(
        &self,
        net: &FloatNetwork,
        dims: &[Dims],
        range: std::ops::Range<usize>,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let nodes = 0..net.network.nodes.len();
        let segment = Segment::new(net, dims, nodes, &net.network.inputs, &self.outputs)?;
        in_parallel(range, &|i| {
            Ok(segment.run(&[&self.images.load(i)?])?.concat())
        })
    }

    /// Mean and least cosine on the held-out images; loss of true positive rate.
    fn measure(
        &self,
        coded: &FloatNetwork,
        dims: &[Dims],
    ) -> Result<([f64; 2], Option<f64>), Error> {
        let ours = self.run(coded, dims, self.images.calibrating()..self.images.len())?;
        let cosines = self
            .held
            .iter()
            .zip(&ours)
            .map(|(a, b)| f64::from(quantize::cosine(a, b)));
        let (mut sum, mut least) = (0.0, f64::INFINITY);
        for cosine in cosines {
            sum += cosine;
            least = least.min(cosine);
        }
        let drop = match self.rate {
            Some(rate) => {
                let all = self.run(coded, dims, 0..self.images.len())?;
                Some(rate - self.true_positives(&all))
            }
            None => None,
        };
        Ok(([sum / self.held.len().max(1) as f64, least], drop))
    }

    /// Pairs of one person, of two people.
    fn pairs(&self) -> [usize; 2] {
        let mut people = std::collections::BTreeMap::new();
        for i in 0..self.images.len() {
            *people
                .entry(person(&self.images.name(i)).to_string())
                .or_insert(0usize) += 1;
        }
        let n = self.images.len();
        let same = people.values().map(|&n| n * (n - 1) / 2).sum::<usize>();
        [same, n * (n - 1) / 2 - same]
    }

    /// Share of pairs of one person above the similarity that a share of 1e-3 of the others exceeds.
    fn true_positives(&self, rows: &[Vec<f32>]) -> f64 {
        let names: Vec<String> = (0..self.images.len())
            .map(|i| person(&self.images.name(i)).to_string())
            .collect();
        let (mut same, mut different) = (Vec::new(), Vec::new());
        for i in 0..rows.len() {
            for j in 0..i {
                let list = if names[i] == names[j] {
                    &mut same
                } else {
                    &mut different
                };
                list.push(quantize::cosine(&rows[i], &rows[j]));
            }
        }
        different.sort_by(|a: &f32, b| b.total_cmp(a));
        let rank = (different.len() as f64 * FALSE_POSITIVES) as usize;
        let threshold = different.get(rank).copied().unwrap_or(f32::INFINITY);
        same.iter().filter(|&&s| s > threshold).count() as f64 / same.len().max(1) as f64
    }
}
