//! The stages together.
//!
//! Detector and embedder have a session each, over one shared model; plans are made once per input size and reused. A byte
//! budget covers both sessions and the buffers between them: the embedder is planned first, the detector gets the rest, and
//! where that is too little the embedder is planned again as small as it can be. The sessions keep arenas of their own, although
//! they never run at the same time.

use crate::align::{self, Landmarks};
use crate::detect::{Detection, StrideOutputs, decode, suppress};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::input::{self, Placement};
use dcz::{MemoryBudget, Model, Session, SessionOptions, TensorRef, Verification};
use dcz_format::pipeline::{InputSize, Pipeline};
use std::path::Path;

/// Kinds of outputs of a stride, with values per cell.
const KINDS: [(&str, usize); 4] = [("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)];

/// Options of a pipeline; what is `None` is taken from the file. Start from `default()` and set what differs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Threads, instruction set, accepted error, plans kept, and the memory budget of all stages together. The network is
    /// ignored.
    pub session: SessionOptions,
    /// Size at which the detector sees an image.
    pub size: Option<InputSize>,
    /// Least score of a face.
    pub score: Option<f32>,
    /// Overlap above which the weaker of two faces is dropped.
    pub nms: Option<f32>,
    /// Most faces per image.
    pub max_faces: Option<usize>,
    /// Most pixels of an image.
    pub max_pixels: u64,
    /// Most pixels of the detector's input, padding included.
    pub max_input_pixels: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            session: SessionOptions::default(),
            size: None,
            score: None,
            nms: None,
            max_faces: None,
            max_pixels: 100_000_000,
            max_input_pixels: 16_777_216,
        }
    }
}

/// Which of the faces of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// All, by falling score.
    #[default]
    All,
    /// The so many largest, by falling area (then score).
    Largest(usize),
}

/// A face with its vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Face {
    /// Where it is.
    pub detection: Detection,
    /// As the embedder made it, not normalised.
    pub embedding: Vec<f32>,
}

/// Bytes held, by stage (see [`dcz::Memory`] for what counts).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The detector's session.
    pub detector: u64,
    /// The embedder's session.
    pub embedder: u64,
    /// Inputs and outputs of both, crop.
    pub buffers: u64,
    /// The sum.
    pub total: u64,
}

/// One network and its session.
#[derive(Debug)]
struct Stage {
    session: Session,
    input: String,
}

impl Stage {
    fn new(model: &Model, net: u32, options: &SessionOptions) -> Result<Stage> {
        let network = model
            .networks()
            .get(net as usize)
            .ok_or(Error::NoPipeline)?;
        let input = network.inputs.first();
        let input = input.and_then(|id| network.tensors.get(id.0 as usize));
        Ok(Stage {
            session: Session::new(model, options.clone().with_network(network.name.clone()))?,
            input: input.map_or(String::new(), |tensor| tensor.name.clone()),
        })
    }
}

/// Detector, alignment, embedder and decision of one file. `Send`; make one per thread of a service, they share the
/// model.
#[derive(Debug)]
pub struct FacePipeline {
    model: Model,
    record: Pipeline,
    options: Options,
    detector: Stage,
    /// Budget of the detector's session, when there is one in bytes.
    detector_budget: Option<u64>,
    embedder: Stage,
    /// Name and length of the embedding.
    vector: (String, usize),
    /// The detector's input and outputs, in the order of strides and [`KINDS`].
    input: Vec<f32>,
    outputs: Vec<Vec<f32>>,
    names: Vec<String>,
    wide: Vec<f32>,
    crop: Vec<u8>,
    crop_values: Vec<f32>,
}

impl FacePipeline {
    /// Opens a file. Errors: no pipeline in it, networks that do not fit their stages, options out of range, a budget too
    /// small for the embedder.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<FacePipeline> {
        FacePipeline::new(&Model::open(path)?, options)
    }

    /// The same for an opened model.
    pub fn new(model: &Model, options: Options) -> Result<FacePipeline> {
        let mut record = model
            .container()
            .pipeline()
            .ok_or(Error::NoPipeline)?
            .clone();
        apply(&options, &mut record)?;
        let names: Vec<String> = record
            .detect
            .strides
            .iter()
            .flat_map(|stride| {
                KINDS
                    .iter()
                    .map(move |(kind, _)| format!("{kind}_{stride}"))
            })
            .collect();
        check_detector(model, &record, &names)?;
        let detector = Stage::new(model, record.detect.network, &options.session)?;
        let embedder = Stage::new(model, record.embed.network, &options.session)?;
        let crop = record.align.size[0] as usize * record.align.size[1] as usize;
        let mut pipeline = FacePipeline {
            model: model.clone(),
            detector_budget: None,
            detector,
            embedder,
            vector: Default::default(),
            input: Vec::new(),
            outputs: vec![Vec::new(); names.len()],
            names,
            wide: Vec::new(),
            crop: Vec::with_capacity(crop * 3),
            crop_values: vec![0.0; crop * input::channels(&record.embed.pixels)],
            record,
            options,
        };
        pipeline.plan_embedder(pipeline.options.session.memory_budget)?;
        Ok(pipeline)
    }

    /// The stages' parameters, with the options applied.
    pub fn record(&self) -> &Pipeline {
        &self.record
    }

    /// Bytes held now.
    pub fn memory(&self) -> Memory {
        let detector = self.detector.session.memory().total;
        let embedder = self.embedder.session.memory().total;
        let buffers = self.buffers();
        Memory {
            detector,
            embedder,
            buffers,
            total: detector + embedder + buffers,
        }
    }

    /// Faces by falling score. Plans when this size of input is new.
    ///
    /// Errors: an image above the limits or below the detector's smallest size, a budget that is too small.
    pub fn detect(&mut self, image: &Image<'_>) -> Result<Vec<Detection>> {
        let place = self.placement(image)?;
        let [width, height] = place.padded.map(|v| v as usize);
        self.prepare_detector(width, height)?;
        let detect = &self.record.detect;
        input::fill(
            &detect.pixels,
            image,
            &place,
            &mut self.wide,
            &mut self.input,
        );
        let dims = [1, input::channels(&detect.pixels), height, width];
        let tensor = TensorRef {
            dims: &dims,
            data: &self.input,
        };
        let mut outputs: Vec<(&str, &mut [f32])> = (self.names.iter().zip(&mut self.outputs))
            .map(|(name, values)| (name.as_str(), values.as_mut_slice()))
            .collect();
        self.detector
            .session
            .run(&[(self.detector.input.as_str(), tensor)], &mut outputs)?;
        let mut faces = Vec::new();
        for (stride, outputs) in detect.strides.iter().zip(self.outputs.chunks(KINDS.len())) {
            let [cls, obj, bbox, kps] = outputs else {
                continue;
            };
            let outputs = StrideOutputs {
                stride: *stride,
                columns: width / (*stride).max(1) as usize,
                cls,
                obj,
                bbox,
                kps,
            };
            decode(&outputs, detect.score, &mut faces);
        }
        suppress(&mut faces, detect.nms, detect.max_faces as usize);
        if place.scaled != [image.width(), image.height()] {
            let factors = place.factors(image.width(), image.height());
            faces.iter_mut().for_each(|face| scale(face, factors));
        }
        Ok(faces)
    }

    /// The vector of the face with these landmarks.
    pub fn embed_landmarks(
        &mut self,
        image: &Image<'_>,
        landmarks: &Landmarks,
    ) -> Result<Vec<f32>> {
        align::crop(image, landmarks, &self.record.align, &mut self.crop)?;
        let [width, height] = self.record.align.size.map(|v| v as usize);
        let pixels = &self.record.embed.pixels;
        input::fill_crop(pixels, &self.crop, width, &mut self.crop_values);
        let dims = [1, input::channels(pixels), height, width];
        let tensor = TensorRef {
            dims: &dims,
            data: &self.crop_values,
        };
        let (name, len) = &self.vector;
        let mut vector = vec![0.0; *len];
        self.embedder.session.run(
            &[(self.embedder.input.as_str(), tensor)],
            &mut [(name.as_str(), &mut vector)],
        )?;
        Ok(vector)
    }

    /// The aligned crop (RGB) that the last embedded face was made of.
    pub fn last_crop(&self) -> &[u8] {
        &self.crop
    }

    /// All faces with their vectors, by falling score.
    pub fn embed(&mut self, image: &Image<'_>) -> Result<Vec<Face>> {
        self.embed_selected(image, Selection::All)
    }

    /// Some faces with their vectors.
    pub fn embed_selected(&mut self, image: &Image<'_>, which: Selection) -> Result<Vec<Face>> {
        let mut found = self.detect(image)?;
        which.apply(&mut found);
        found
            .into_iter()
            .map(|detection| {
                Ok(Face {
                    detection,
                    embedding: self.embed_landmarks(image, &detection.landmarks)?,
                })
            })
            .collect()
    }

    /// Compares the largest faces of two images.
    ///
    /// Errors: [`Error::NoFace`] when one has none.
    pub fn verify(&mut self, first: &Image<'_>, second: &Image<'_>) -> Result<Verification> {
        let mut vectors = [Vec::new(), Vec::new()];
        for (index, (image, vector)) in [first, second].into_iter().zip(&mut vectors).enumerate() {
            let face = self.embed_selected(image, Selection::Largest(1))?.pop();
            *vector = face.ok_or(Error::NoFace { image: index + 1 })?.embedding;
        }
        Ok(self.compare(&vectors[0], &vectors[1]))
    }

    /// Compares two vectors as the file says.
    pub fn compare(&self, a: &[f32], b: &[f32]) -> Verification {
        let compare = &self.record.compare;
        Verification::new(compare.metric, compare.threshold, a, b)
    }

    /// Where an image lies in the detector's input; checks the limits.
    fn placement(&self, image: &Image<'_>) -> Result<Placement> {
        let (width, height) = (image.width(), image.height());
        let too_large = |what: &str, limit: u64| {
            Error::Image(format!("{width}x{height}: {what} exceeds {limit} pixels"))
        };
        if u64::from(width) * u64::from(height) > self.options.max_pixels {
            return Err(too_large("the image", self.options.max_pixels));
        }
        let detect = &self.record.detect;
        Placement::new(width, height, detect.size, detect.multiple)
            .filter(|p| {
                u64::from(p.padded[0]) * u64::from(p.padded[1]) <= self.options.max_input_pixels
            })
            .ok_or_else(|| too_large("the detector's input", self.options.max_input_pixels))
    }

    fn buffers(&self) -> u64 {
        let floats = self.input.capacity()
            + self.outputs.iter().map(Vec::capacity).sum::<usize>()
            + self.wide.capacity()
            + self.crop_values.capacity();
        (floats * size_of::<f32>() + self.crop.capacity()) as u64
    }

    fn plan_embedder(&mut self, budget: MemoryBudget) -> Result<()> {
        let session = self.options.session.clone().with_memory_budget(budget);
        self.embedder = Stage::new(&self.model, self.record.embed.network, &session)?;
        let network = self.embedder.session.network();
        let misfit = |why: String| Error::Network {
            stage: "embedder",
            network: network.name.clone(),
            why,
        };
        if network.inputs.len() != 1 {
            return Err(misfit(format!(
                "has {} inputs, not one",
                network.inputs.len()
            )));
        }
        let output = network.outputs.first();
        let output = output.and_then(|o| network.tensors.get(o.tensor.0 as usize));
        let output = output.map_or(String::new(), |tensor| tensor.name.clone());
        let name = network.name.clone();
        let [width, height] = self.record.align.size.map(|v| v as usize);
        let dims = [1, input::channels(&self.record.embed.pixels), height, width];
        let plan = self
            .embedder
            .session
            .prepare(&[(self.embedder.input.as_str(), &dims[..])]);
        let plan = plan.map_err(|e| match e.kind() {
            dcz::ErrorKind::Shape(_) => Error::Network {
                stage: "embedder",
                network: name.clone(),
                why: e.to_string(),
            },
            _ => e.into(),
        })?;
        let len = plan.output_len(&output).unwrap_or(0);
        self.vector = (output, len);
        Ok(())
    }

    /// Plans and buffers for an input of this size.
    fn prepare_detector(&mut self, width: usize, height: usize) -> Result<()> {
        let detect = &self.record.detect;
        let channels = input::channels(&detect.pixels);
        let cells = detect.strides.iter().map(|s| {
            let stride = (*s).max(1) as usize;
            (width / stride) * (height / stride)
        });
        let lens: Vec<usize> = cells
            .flat_map(|cells| KINDS.map(|(_, values)| cells * values))
            .collect();
        // Exactly what is needed, and never shrinking, so that the budget's arithmetic holds.
        let grow = |buffer: &mut Vec<f32>, len: usize| {
            if buffer.len() != len {
                buffer.clear();
                buffer.reserve_exact(len);
                buffer.resize(len, 0.0);
            }
        };
        grow(&mut self.input, channels * width * height);
        for (buffer, len) in self.outputs.iter_mut().zip(&lens) {
            grow(buffer, *len);
        }
        let dims = [1, channels, height, width];
        let MemoryBudget::Bytes(budget) = self.options.session.memory_budget else {
            return self.plan_detector(&dims);
        };
        let smallest = match self.plan_within(budget, &dims) {
            Err(Error::Runtime(e)) if smallest(&e).is_some() => {
                // Once more with the smallest embedder.
                self.plan_embedder(MemoryBudget::Min)?;
                match self.plan_within(budget, &dims) {
                    Err(Error::Runtime(e)) => match smallest(&e) {
                        Some(smallest) => smallest,
                        None => return Err(e.into()),
                    },
                    other => return other,
                }
            }
            other => return other,
        };
        let smallest_feasible = smallest + self.embedder.session.memory().total + self.buffers();
        Err(Error::Runtime(
            dcz::ErrorKind::BudgetTooSmall {
                budget,
                smallest_feasible,
            }
            .into(),
        ))
    }

    fn plan_within(&mut self, budget: u64, dims: &[usize; 4]) -> Result<()> {
        let rest = budget.saturating_sub(self.embedder.session.memory().total + self.buffers());
        if self.detector_budget != Some(rest) {
            let session = self.options.session.clone();
            let session = session.with_memory_budget(MemoryBudget::Bytes(rest));
            self.detector = Stage::new(&self.model, self.record.detect.network, &session)?;
            self.detector_budget = Some(rest);
        }
        self.plan_detector(dims)
    }

    fn plan_detector(&mut self, dims: &[usize; 4]) -> Result<()> {
        let name = self.detector.session.network().name.clone();
        let plan = self
            .detector
            .session
            .prepare(&[(self.detector.input.as_str(), &dims[..])]);
        let plan = plan.map_err(|e| match e.kind() {
            dcz::ErrorKind::Shape(_) => Error::Image(format!(
                "the detector {name} cannot take {}x{} pixels: {e}",
                dims[3], dims[2]
            )),
            _ => e.into(),
        })?;
        for (name, buffer) in self.names.iter().zip(&self.outputs) {
            let found = plan.output_len(name);
            if found != Some(buffer.len()) {
                return Err(Error::Network {
                    stage: "detector",
                    network: plan.network.clone(),
                    why: format!(
                        "output {name} has {} values where {} are due for an input of {}x{}",
                        found.unwrap_or(0),
                        buffer.len(),
                        dims[3],
                        dims[2]
                    ),
                });
            }
        }
        Ok(())
    }
}

impl Selection {
    /// Keeps the selected faces.
    pub fn apply(self, faces: &mut Vec<Detection>) {
        if let Selection::Largest(count) = self {
            // Stable: equal areas stay in the order of scores.
            faces.sort_by(|a, b| b.area().total_cmp(&a.area()));
            faces.truncate(count);
        }
    }
}

/// The smallest feasible budget, when that is the trouble.
fn smallest(error: &dcz::Error) -> Option<u64> {
    match error.kind() {
        dcz::ErrorKind::BudgetTooSmall {
            smallest_feasible, ..
        } => Some(*smallest_feasible),
        _ => None,
    }
}

/// Boxes are edges, landmarks are centres of pixels.
fn scale(face: &mut Detection, factors: [f32; 2]) {
    for (i, value) in face.rect.iter_mut().enumerate() {
        *value *= factors[i % 2];
    }
    for point in &mut face.landmarks {
        for (value, factor) in point.iter_mut().zip(factors) {
            *value = (*value + 0.5) * factor - 0.5;
        }
    }
}

/// Overrides the file's values.
fn apply(options: &Options, record: &mut Pipeline) -> Result<()> {
    let detect = &mut record.detect;
    for (name, value, to) in [
        ("score", options.score, &mut detect.score),
        ("overlap", options.nms, &mut detect.nms),
    ] {
        if let Some(value) = value {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::Options(format!(
                    "{name} {value} is not within 0 to 1"
                )));
            }
            *to = value;
        }
    }
    match options.size {
        Some(InputSize::LongestSide(0)) => {
            return Err(Error::Options("the longest side is zero".into()));
        }
        Some(size) => detect.size = size,
        None => {}
    }
    if let Some(most) = options.max_faces {
        detect.max_faces = u32::try_from(most).unwrap_or(u32::MAX);
    }
    Ok(())
}

/// One input, and the outputs of every stride.
fn check_detector(model: &Model, record: &Pipeline, names: &[String]) -> Result<()> {
    let network = model
        .networks()
        .get(record.detect.network as usize)
        .ok_or(Error::NoPipeline)?;
    let misfit = |why: String| {
        Err(Error::Network {
            stage: "detector",
            network: network.name.clone(),
            why,
        })
    };
    if network.inputs.len() != 1 {
        return misfit(format!("has {} inputs, not one", network.inputs.len()));
    }
    let known = |name: &String| {
        network.outputs.iter().any(|output| {
            network
                .tensors
                .get(output.tensor.0 as usize)
                .is_some_and(|tensor| tensor.name == *name)
        })
    };
    match names.iter().find(|name| !known(name)) {
        Some(missing) => misfit(format!(
            "has no output {missing}; YuNet's outputs are needed"
        )),
        None => Ok(()),
    }
}
