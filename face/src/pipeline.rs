//! The stages together.

use crate::align::{self, Landmarks};
use crate::detect::{Detection, StrideOutputs, decode, suppress};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::input::{self, CropRows, ImageRows, Placement, Scaler};
use crate::options::{Options, Selection};
use crate::stages::{KINDS, Stages};
use dcz::{Model, Profile, Verification};
use dcz_format::pipeline::Pipeline;
use std::path::Path;

/// A face with its vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Face {
    /// Where it is.
    pub detection: Detection,
    /// As the embedder made it, not normalised.
    pub embedding: Vec<f32>,
}

/// Bytes held between and during calls, apart from results and the parsed records of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Activations and scratch: one arena for both networks, which never run at the same time.
    pub arena: u64,
    /// The detector's session beside the arena (see [`dcz::Memory`] for what counts).
    pub detector: u64,
    /// The embedder's session beside the arena.
    pub embedder: u64,
    /// The detector's outputs, weights of scaling, crop.
    pub buffers: u64,
    /// The sum; at most the budget, where there is one in bytes.
    pub total: u64,
}

/// Detector, alignment, embedder and decision of one file. `Send`; make one per thread of a service, they share the
/// model.
#[derive(Debug)]
pub struct FacePipeline {
    record: Pipeline,
    options: Options,
    stages: Stages,
    buffers: Buffers,
}

/// What lies between the stages; grows to the largest size seen and is reused.
#[derive(Debug)]
struct Buffers {
    /// The detector's outputs, in the order of strides and [`KINDS`].
    outputs: Vec<Vec<f32>>,
    scaler: Scaler,
    crop: Vec<u8>,
}

impl Buffers {
    fn new(record: &Pipeline) -> Buffers {
        let crop = record.align.size[0] as usize * record.align.size[1] as usize;
        Buffers {
            outputs: vec![Vec::new(); record.detect.strides.len() * KINDS.len()],
            scaler: Scaler::default(),
            crop: Vec::with_capacity(crop * 3),
        }
    }

    /// Exactly what is needed, and never shrinking, so that the budget's arithmetic holds.
    fn grow(&mut self, outputs: impl Iterator<Item = usize>) {
        for (buffer, len) in self.outputs.iter_mut().zip(outputs) {
            if buffer.len() != len {
                buffer.clear();
                buffer.reserve_exact(len);
                buffer.resize(len, 0.0);
            }
        }
    }

    fn bytes(&self) -> u64 {
        let floats: usize = self.outputs.iter().map(Vec::capacity).sum();
        let own = self.outputs.capacity() * size_of::<Vec<f32>>();
        (floats * size_of::<f32>() + self.scaler.bytes() + self.crop.capacity() + own) as u64
    }
}

impl FacePipeline {
    /// Opens a file. Errors: no pipeline in it, networks that do not fit their stages, options out of range, a budget too
    /// small for the embedder.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<FacePipeline> {
        FacePipeline::new(&Model::open(path)?, options)
    }

    /// The same for an opened model.
    pub fn new(model: &Model, options: Options) -> Result<FacePipeline> {
        let record = model.container().pipeline();
        let mut record = record.ok_or(Error::NoPipeline)?.clone();
        options.apply(&mut record)?;
        let buffers = Buffers::new(&record);
        let stages = Stages::new(model, &record, &options.session, buffers.bytes())?;
        Ok(FacePipeline {
            record,
            options,
            stages,
            buffers,
        })
    }

    /// The stages' parameters, with the options applied.
    pub fn record(&self) -> &Pipeline {
        &self.record
    }

    /// Bytes held now.
    pub fn memory(&self) -> Memory {
        let [arena, detector, embedder] = self.stages.memory();
        let buffers = self.buffers.bytes();
        Memory {
            arena,
            detector,
            embedder,
            buffers,
            total: arena + detector + embedder + buffers,
        }
    }

    /// Measures the time of every step of the runs that follow, forgetting earlier measurements. Planning under a budget in bytes
    /// may end it: call [`prepare`](FacePipeline::prepare) first.
    pub fn set_profiling(&mut self, on: bool) {
        self.stages.set_profiling(on);
    }

    /// Mean times of the steps of the detector and the embedder, over the runs made while profiling.
    pub fn profiles(&self) -> [Option<Profile>; 2] {
        self.stages.profiles()
    }

    /// Values of an embedding.
    pub fn embedding_len(&self) -> usize {
        self.stages.vector_len()
    }

    /// Plans and allocates for images of `width` x `height`, so that [`detect`](FacePipeline::detect) need not.
    ///
    /// Errors: an image above the limits or below the detector's smallest size, a budget that is too small.
    pub fn prepare(&mut self, width: u32, height: u32) -> Result<()> {
        let place = self.placement(width, height)?;
        self.prepare_place(&place, width, height)
    }

    fn prepare_place(&mut self, place: &Placement, width: u32, height: u32) -> Result<()> {
        let dims = self.dims(place);
        let lens = self.stages.output_lens(dims[3], dims[2]);
        self.buffers.grow(lens);
        self.buffers.scaler.prepare(width, height, place);
        self.stages.prepare_detector(&dims, self.buffers.bytes())
    }

    /// Faces by falling score. Plans when this size of input is new.
    ///
    /// Errors: as [`prepare`](FacePipeline::prepare), a damaged file.
    pub fn detect(&mut self, image: &Image<'_>) -> Result<Vec<Detection>> {
        let [width, height] = image.size();
        let place = self.placement(width, height)?;
        self.prepare_place(&place, width, height)?;
        let dims = self.dims(&place);
        let detect = &self.record.detect;
        let Buffers {
            outputs, scaler, ..
        } = &mut self.buffers;
        let source = ImageRows {
            isa: self.stages.isa(),
            pixels: &detect.pixels,
            image,
            place: &place,
            scaler,
        };
        self.stages.detect(&dims, &source, outputs)?;
        let mut faces = Vec::new();
        for (stride, outputs) in detect.strides.iter().zip(outputs.chunks(KINDS.len())) {
            let [cls, obj, bbox, kps] = outputs else {
                continue;
            };
            let outputs = StrideOutputs {
                stride: *stride,
                columns: dims[3] / (*stride).max(1) as usize,
                cls,
                obj,
                bbox,
                kps,
            };
            decode(&outputs, detect.score, &mut faces);
        }
        suppress(&mut faces, detect.nms, detect.max_faces as usize);
        if place.scaled != [width, height] {
            let factors = place.factors(width, height);
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
        let crop = &mut self.buffers.crop;
        align::crop(image, landmarks, &self.record.align, crop)?;
        let isa = self.stages.isa();
        self.stages.embed(&CropRows {
            isa,
            pixels: &self.record.embed.pixels,
            crop,
            width: self.record.align.size[0] as usize,
        })
    }

    /// The aligned crop (RGB) that the last embedded face was made of.
    pub fn last_crop(&self) -> &[u8] {
        &self.buffers.crop
    }

    /// All faces with their vectors, by falling score.
    pub fn embed(&mut self, image: &Image<'_>) -> Result<Vec<Face>> {
        self.embed_selected(image, Selection::All)
    }

    /// Some faces with their vectors.
    pub fn embed_selected(&mut self, image: &Image<'_>, which: Selection) -> Result<Vec<Face>> {
        let mut found = self.detect(image)?;
        which.apply(image.size(), &mut found);
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

    /// Compares the main faces ([`Selection::Main`]) of two images.
    ///
    /// Errors: [`Error::NoFace`] when one has none.
    pub fn verify(&mut self, first: &Image<'_>, second: &Image<'_>) -> Result<Verification> {
        let mut vectors = [Vec::new(), Vec::new()];
        for (index, (image, vector)) in [first, second].into_iter().zip(&mut vectors).enumerate() {
            let face = self.embed_selected(image, Selection::Main(1))?.pop();
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
    fn placement(&self, width: u32, height: u32) -> Result<Placement> {
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

    /// Dimensions of the detector's input.
    fn dims(&self, place: &Placement) -> [usize; 4] {
        let [width, height] = place.padded.map(|v| v as usize);
        let channels = input::channels(&self.record.detect.pixels);
        [1, channels, height, width]
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
