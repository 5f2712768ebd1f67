//! How much error each layer alone brings to a network's output, when it is pruned or quantised and everything else stays
//! float.
//!
//! For every layer and every point of three axes (share of zeros by magnitude; step of a grid in standard deviations; bits
//! of a grid) the layer is made exactly as `dcz compress` would make it, put into the float network, and the network is run
//! by the runtime on a few dozen images. What is measured is the angle between the outputs: `1 - cosine` to the float
//! network's output on the same image, mean and largest over the images. For the quantised points the layer's coded size is
//! known too, really coded, which [`propose`] trades against error. Errors of several layers add up nearly, as long as they
//! are small; where they are not, only measuring them together tells, which [`propose`] does.
//!
//! Cost: layers x points runs of all images; memory about four times the float network, however many cores.

mod propose;
mod show;

use dcz::preprocess::dims;
use dcz::{Model, Session, SessionOptions, TensorRef, Threads};
use dcz_format::graph::Network;
use dcz_format::writer::{ConstantInput, LayerInput, NetworkInput, WriteOptions, encode};

pub use propose::{Proposal, propose};
pub use show::{json, svg, svg_of_json, table};

use crate::accuracy::images::Loader;
use crate::defaults::{DefaultGrid, Role};
use crate::encode::{quantise_layer, raw_layer, roles, store_constant};
use crate::error::Error;
use crate::import::{FloatLayer, FloatNetwork};
use crate::preprocess::Description;
use crate::report;
use crate::settings::{AllSettings, Prune, Quantize, Settings};

/// The points at which every layer is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Points {
    /// Shares of zeros, in percent.
    pub sparsity: Vec<f64>,
    /// Output channels that are pruned together.
    pub prune_block: u8,
    /// Steps, in standard deviations.
    pub steps: Vec<f32>,
    /// Widths of a code.
    pub bits: Vec<u8>,
}

impl Default for Points {
    fn default() -> Points {
        Points {
            sparsity: vec![30.0, 50.0, 60.0, 70.0, 80.0, 90.0],
            prune_block: 1,
            steps: vec![0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0],
            bits: vec![8, 6, 5, 4, 3],
        }
    }
}

impl Points {
    /// Settings of every point, by axis.
    fn settings(&self) -> [Vec<(f64, Settings)>; 3] {
        let sparsity = |&percent: &f64| {
            let settings = Settings {
                prune: Some(Prune::Percentile(percent)),
                prune_block: Some(self.prune_block),
                quantize: Some(Quantize::None),
                ..Settings::default()
            };
            (percent, settings)
        };
        let grid = Settings {
            quantize: Some(Quantize::Grid),
            ..Settings::default()
        };
        let step = |&step: &f32| {
            let step = Settings {
                step: Some(step),
                ..grid
            };
            (f64::from(step.step.unwrap_or_default()), step)
        };
        let bits = |&bits: &u8| {
            let settings = Settings {
                bits: Some(bits),
                ..grid
            };
            (f64::from(bits), settings)
        };
        [
            self.sparsity.iter().map(sparsity).collect(),
            self.steps.iter().map(step).collect(),
            self.bits.iter().map(bits).collect(),
        ]
    }
}

/// `1 - cosine` between a network's output and the float network's.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Deviation {
    /// Mean over the images.
    pub mean: f64,
    /// Of the worst image.
    pub largest: f64,
}

/// A layer at one point.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Percent, standard deviations or bits.
    pub value: f64,
    /// What it does to the output.
    pub deviation: Deviation,
    /// Bytes of the layer's tiles and its share of the code tables; those of float32 where it is only pruned.
    pub bytes: u64,
    /// The settings that made it.
    pub settings: Settings,
}

/// A layer at all points.
#[derive(Clone, Debug, PartialEq)]
pub struct Curves {
    /// Name of the layer.
    pub name: String,
    /// What it is to the network.
    pub role: Role,
    /// Its weights.
    pub weights: u64,
    /// By share of zeros.
    pub sparsity: Vec<Point>,
    /// By step.
    pub steps: Vec<Point>,
    /// By bits.
    pub bits: Vec<Point>,
}

/// A float network with images, ready to be measured with changed layers.
pub struct Subject {
    network: Network,
    layers: Vec<FloatLayer>,
    constants: Vec<ConstantInput>,
    roles: Vec<Role>,
    dims: [usize; 4],
    images: Vec<Vec<f32>>,
    reference: Vec<Vec<f32>>,
}

impl Subject {
    /// Runs the float network on the images (inputs made by `loader`).
    ///
    /// Errors: [`Error::Usage`] for a network with several inputs or without layers, [`Error::Input`] without images.
    pub fn new(
        float: FloatNetwork,
        description: &Description,
        loader: &Loader,
        images: Vec<Vec<f32>>,
    ) -> Result<Subject, Error> {
        let mut network = float.network;
        description.apply(&mut network)?;
        if network.inputs.len() != 1 {
            return Err(Error::Usage(format!(
                "'{}' has {} inputs; one image cannot be all of them",
                network.name,
                network.inputs.len()
            )));
        }
        if float.layers.is_empty() {
            return Err(Error::Usage(format!(
                "'{}' has no layer with weights: there is nothing to prune or quantise",
                network.name
            )));
        }
        if images.is_empty() {
            return Err(Error::Input("no image can be used".into()));
        }
        let constants = float.constants.into_iter().map(|c| store_constant(c, true));
        let mut subject = Subject {
            roles: roles(&network, &float.layers),
            network,
            layers: float.layers,
            constants: constants.collect::<Result<_, _>>()?,
            dims: dims(&loader.record),
            images,
            reference: Vec::new(),
        };
        let model = subject.model(Vec::new())?;
        subject.reference = subject.outputs(&model)?;
        Ok(subject)
    }

    /// Number of images.
    pub fn images(&self) -> usize {
        self.images.len()
    }

    /// Measures every layer alone. `progress(done, all)` counts points.
    pub fn curves(
        &self,
        points: &Points,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Curves>, Error> {
        let axes = points.settings();
        let total = self.layers.len() * axes.iter().map(Vec::len).sum::<usize>();
        let mut done = 0;
        progress(done, total);
        let mut all = Vec::with_capacity(self.layers.len());
        for (index, layer) in self.layers.iter().enumerate() {
            let mut measured = Vec::with_capacity(axes.len());
            for axis in &axes {
                let mut curve = Vec::with_capacity(axis.len());
                for (value, settings) in axis {
                    curve.push(self.point(index, *value, *settings)?);
                    done += 1;
                    progress(done, total);
                }
                measured.push(curve);
            }
            let mut measured = measured.into_iter();
            all.push(Curves {
                name: layer.name.clone(),
                role: self.roles[index],
                weights: layer.shape.weights(),
                sparsity: measured.next().unwrap_or_default(),
                steps: measured.next().unwrap_or_default(),
                bits: measured.next().unwrap_or_default(),
            });
        }
        Ok(all)
    }

    fn point(&self, index: usize, value: f64, settings: Settings) -> Result<Point, Error> {
        let model = self.model(vec![(index, self.changed(index, settings)?)])?;
        let bytes = coded_bytes(&model, index);
        Ok(Point {
            value,
            deviation: self.deviation(&model)?,
            bytes,
            settings,
        })
    }

    /// What settings for several layers do together, and the bytes of those layers.
    pub fn together(&self, settings: &[(usize, Settings)]) -> Result<(Deviation, u64), Error> {
        let changed = settings
            .iter()
            .map(|&(index, settings)| Ok((index, self.changed(index, settings)?)));
        let model = self.model(changed.collect::<Result<_, Error>>()?)?;
        let indices = settings.iter().map(|(index, _)| *index);
        let bytes = indices.map(|index| coded_bytes(&model, index)).sum();
        Ok((self.deviation(&model)?, bytes))
    }

    fn changed(&self, index: usize, settings: Settings) -> Result<LayerInput, Error> {
        let mut all = AllSettings::default();
        let layer = &self.layers[index];
        all.layers.insert(layer.name.clone(), settings);
        // Only settings without bits and step look at the default.
        let default = DefaultGrid::PerChannel;
        quantise_layer(layer.clone(), self.roles[index], default, &all, None)
    }

    /// The float network with some layers changed.
    fn model(&self, changed: Vec<(usize, LayerInput)>) -> Result<Model, Error> {
        let mut layers: Vec<LayerInput> = Vec::with_capacity(self.layers.len());
        let mut changed = changed.into_iter().peekable();
        for (index, layer) in self.layers.iter().enumerate() {
            layers.push(match changed.next_if(|(at, _)| *at == index) {
                Some((_, layer)) => layer,
                None => raw_layer(layer.clone()),
            });
        }
        let input = NetworkInput {
            network: self.network.clone(),
            layers,
            constants: self.constants.clone(),
        };
        let encoded = encode(vec![input], &WriteOptions::default(), &mut |_, _| {})?;
        let bytes = encoded.to_bytes()?;
        drop(encoded);
        Ok(Model::from_bytes(bytes)?)
    }

    /// All outputs behind one another, per image.
    fn outputs(&self, model: &Model) -> Result<Vec<Vec<f32>>, Error> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let options = SessionOptions::default().with_threads(Threads::Own(cores));
        let mut session = Session::new(model, options)?;
        let records = session.network();
        let input = records.inputs.first();
        let input = input.and_then(|id| records.tensors.get(id.0 as usize));
        let input = input.map(|t| t.name.clone()).unwrap_or_default();
        let plan = session.prepare(&[(&input, &self.dims)])?;
        let sizes: Vec<(String, usize)> = (plan.outputs.iter())
            .map(|(name, dims)| (name.clone(), dims.iter().product()))
            .collect();
        let mut all = Vec::with_capacity(self.images.len());
        for image in &self.images {
            let mut row = vec![0.0; sizes.iter().map(|(_, len)| len).sum()];
            let mut rest = row.as_mut_slice();
            let mut outputs = Vec::with_capacity(sizes.len());
            for (name, len) in &sizes {
                let (own, behind) = rest.split_at_mut(*len);
                outputs.push((name.as_str(), own));
                rest = behind;
            }
            let tensor = TensorRef {
                data: image,
                dims: &self.dims,
            };
            session.run(&[(&input, tensor)], &mut outputs)?;
            all.push(row);
        }
        Ok(all)
    }

    fn deviation(&self, model: &Model) -> Result<Deviation, Error> {
        let outputs = self.outputs(model)?;
        let errors: Vec<f64> = (self.reference.iter().zip(&outputs))
            .map(|(a, b)| angle(a, b))
            .collect();
        Ok(Deviation {
            mean: errors.iter().sum::<f64>() / errors.len().max(1) as f64,
            largest: errors.iter().copied().fold(0.0, f64::max),
        })
    }
}

/// Bytes of a layer in the file, its code tables included.
fn coded_bytes(model: &Model, index: usize) -> u64 {
    let layer = (model.networks().first()).and_then(|network| network.layers.get(index));
    layer.map_or(0, |layer| {
        let tables = layer.record.value_table_bits + layer.record.index_table_bits;
        report::row(layer).tile_bytes + tables.div_ceil(8)
    })
}

/// `1 - cosine`; 1 when one of the two is zero or not finite.
fn angle(a: &[f32], b: &[f32]) -> f64 {
    let (mut dot, mut aa, mut bb) = (0.0f64, 0.0f64, 0.0f64);
    for (&x, &y) in a.iter().zip(b) {
        let (x, y) = (f64::from(x), f64::from(y));
        dot += x * y;
        aa += x * x;
        bb += y * y;
    }
    let error = 1.0 - dot / (aa * bb).sqrt();
    if aa == 0.0 && bb == 0.0 {
        0.0
    } else if error.is_finite() {
        // Rounding may give a cosine above one.
        error.max(0.0)
    } else {
        1.0
    }
}
