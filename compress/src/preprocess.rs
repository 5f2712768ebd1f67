//! The file of `--preprocess`: how an image becomes the input, what the outputs mean, where the network is from.
//!
//! ```toml
//! [image]                       # optional
//! size = [112, 112]             # width, height
//! channels = "rgb"              # rgb, bgr or gray
//! mean = [127.5, 127.5, 127.5]  # one number or one per channel, in units of 0..255; default 0
//! scale = 0.0078125             # multiplied after the subtraction; default 1
//! resize = "stretch"            # stretch, letterbox=FILL or center-crop=SHORTER_SIDE; default stretch
//! filter = "bilinear"           # bilinear or nearest; default bilinear
//!
//! [output]                      # the only output; [outputs.NAME] for one of several
//! kind = "embedding"            # embedding or classes
//! metric = "cosine"             # cosine or euclidean
//! threshold = 0.363             # optional
//! # kind = "classes": labels = ["cat", ...] or labels_file = "labels.txt" (one a line, beside this file)
//!
//! [file]                        # optional
//! source = "text"               # where the weights come from
//! licence = "Apache-2.0"        # identifier
//! licence_file = "LICENSE"      # full text, beside this file
//! ```
//!
//! The values are those the network itself wants: an input scaling inside the network stays there.

use std::collections::BTreeMap;
use std::path::Path;

use dcz_format::graph::{ChannelOrder, Filter, Meaning, Metric, Network, Preprocess, ResizeRule};
use serde::Deserialize;

use crate::error::Error;
use crate::settings::{one_line, read_text};

/// A parsed file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    image: Option<Image>,
    output: Option<OutputMeaning>,
    #[serde(default)]
    outputs: BTreeMap<String, OutputMeaning>,
    #[serde(default)]
    file: Origin,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    size: [u32; 2],
    #[serde(default = "rgb")]
    channels: String,
    mean: Option<PerChannel>,
    scale: Option<PerChannel>,
    resize: Option<String>,
    filter: Option<String>,
}

fn rgb() -> String {
    "rgb".into()
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum PerChannel {
    All(f32),
    Each([f32; 3]),
}

impl PerChannel {
    fn values(self) -> [f32; 3] {
        match self {
            PerChannel::All(value) => [value; 3],
            PerChannel::Each(values) => values,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputMeaning {
    kind: String,
    metric: Option<String>,
    threshold: Option<f32>,
    #[serde(default)]
    labels: Vec<String>,
    labels_file: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Origin {
    source: Option<String>,
    licence: Option<String>,
    licence_file: Option<String>,
}

impl Description {
    /// Reads a file; texts it refers to are read too.
    pub fn load(path: &Path) -> Result<Description, Error> {
        let text = read_text(path)?;
        Description::parse(&text, path.parent()).map_err(|e| match e {
            Error::Input(text) => Error::Input(format!("{}: {text}", path.display())),
            other => other,
        })
    }

    /// Parses a file's text; `folder` is where files it refers to lie.
    pub fn parse(text: &str, folder: Option<&Path>) -> Result<Description, Error> {
        let mut description: Description =
            toml::from_str(text).map_err(|e| Error::Input(one_line(&e.to_string())))?;
        let read = |name: &str| {
            let path = folder.unwrap_or_else(|| Path::new("")).join(name);
            read_text(&path)
        };
        for meaning in description
            .output
            .iter_mut()
            .chain(description.outputs.values_mut())
        {
            if let Some(name) = meaning.labels_file.take() {
                meaning.labels = read(&name)?
                    .lines()
                    .map(str::to_string)
                    .filter(|line| !line.is_empty())
                    .collect();
            }
            meaning.to_record()?;
        }
        if let Some(name) = description.file.licence_file.take() {
            description.file.licence_file = Some(read(&name)?);
        }
        if let Some(image) = &description.image {
            image.to_record()?;
        }
        Ok(description)
    }

    /// Full text of the licence.
    pub fn licence_text(&self) -> Option<&str> {
        self.file.licence_file.as_deref()
    }

    /// Writes what the file says into a network's records.
    ///
    /// Errors: [`Error::Input`] when it names an output the network does not have, or the size contradicts its input.
    pub fn apply(&self, network: &mut Network) -> Result<(), Error> {
        if let Some(image) = &self.image {
            let record = image.to_record()?;
            let input = network
                .inputs
                .first()
                .and_then(|id| network.tensors.get(id.0 as usize));
            if let Some(input) = input {
                let fixed = |axis: usize| match input.dims.get(axis) {
                    Some(dcz_format::graph::Dim::Fixed(size)) => Some(*size),
                    _ => None,
                };
                let channels = if record.channels == ChannelOrder::Gray {
                    1
                } else {
                    3
                };
                let wanted = [(1, channels), (2, record.size[1]), (3, record.size[0])];
                if let Some((axis, size)) = wanted
                    .into_iter()
                    .find(|&(axis, size)| fixed(axis).is_some_and(|s| s != size))
                {
                    return Err(Error::Input(format!(
                        "[image] gives {size} for axis {axis} of input '{}', which has {}",
                        input.name,
                        fixed(axis).unwrap_or(0)
                    )));
                }
            }
            network.preprocess = Some(record);
        }
        if let Some(meaning) = &self.output {
            match network.outputs.as_mut_slice() {
                [only] => only.meaning = meaning.to_record()?,
                all => {
                    return Err(Error::Input(format!(
                        "[output] is for networks with one output, this one has {}; use [outputs.NAME]",
                        all.len()
                    )));
                }
            }
        }
        for (name, meaning) in &self.outputs {
            let tensors = &network.tensors;
            let output = network.outputs.iter_mut().find(|o| {
                tensors
                    .get(o.tensor.0 as usize)
                    .is_some_and(|t| t.name == *name)
            });
            output
                .ok_or_else(|| {
                    Error::Input(format!(
                        "[outputs.{name}]: the network has no output of that name"
                    ))
                })?
                .meaning = meaning.to_record()?;
        }
        if let Some(source) = &self.file.source {
            network.provenance.source = source.clone();
        }
        if let Some(licence) = &self.file.licence {
            network.provenance.licence = licence.clone();
        }
        Ok(())
    }
}

impl Image {
    fn to_record(&self) -> Result<Preprocess, Error> {
        let wrong = |what: &str, value: &str, expected: &str| {
            Error::Input(format!("[image] {what} = '{value}': expected {expected}"))
        };
        let channels = match self.channels.as_str() {
            "rgb" => ChannelOrder::Rgb,
            "bgr" => ChannelOrder::Bgr,
            "gray" => ChannelOrder::Gray,
            other => return Err(wrong("channels", other, "rgb, bgr or gray")),
        };
        let resize = self.resize.as_deref().unwrap_or("stretch");
        let resize = match resize.split_once('=') {
            None if resize == "stretch" => Some(ResizeRule::Stretch),
            Some(("letterbox", fill)) => fill.parse().ok().map(|fill| ResizeRule::Letterbox { fill }),
            Some(("center-crop", short)) => short.parse().ok().filter(|s| *s >= self.size[0].max(self.size[1])).map(|short| ResizeRule::CenterCrop { short }),
            _ => None,
        }
        .ok_or_else(|| wrong("resize", resize, "stretch, letterbox=FILL (0 to 255) or center-crop=SHORTER_SIDE (not below the size)"))?;
        let filter = match self.filter.as_deref() {
            None | Some("bilinear") => Filter::Bilinear,
            Some("nearest") => Filter::Nearest,
            Some(other) => return Err(wrong("filter", other, "bilinear or nearest")),
        };
        let mean = self.mean.map_or([0.0; 3], PerChannel::values);
        let scale = self.scale.map_or([1.0; 3], PerChannel::values);
        if self.size.contains(&0)
            || !mean.iter().chain(&scale).all(|v| v.is_finite())
            || scale.contains(&0.0)
        {
            return Err(Error::Input(
                "[image] size, mean and scale must be finite, size and scale not zero".into(),
            ));
        }
        Ok(Preprocess {
            size: self.size,
            channels,
            mean,
            scale,
            resize,
            filter,
        })
    }
}

impl OutputMeaning {
    fn to_record(&self) -> Result<Meaning, Error> {
        match self.kind.as_str() {
            "embedding" => {
                let metric = match self.metric.as_deref() {
                    None | Some("cosine") => Metric::Cosine,
                    Some("euclidean") => Metric::Euclidean,
                    Some(other) => {
                        return Err(Error::Input(format!(
                            "metric = '{other}': expected cosine or euclidean"
                        )));
                    }
                };
                Ok(Meaning::Embedding {
                    metric,
                    threshold: self.threshold,
                })
            }
            "classes" => Ok(Meaning::Classes {
                labels: self.labels.clone(),
            }),
            other => Err(Error::Input(format!(
                "kind = '{other}': expected embedding or classes"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_presets_parse() {
        for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/presets")).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            if text.contains("[image]") {
                Description::load(&path).unwrap();
            } else {
                crate::settings::AllSettings::load(&path).unwrap();
            }
        }
    }

    #[test]
    fn wrong_files_are_named() {
        for bad in [
            "[image]\nsize = [0, 1]",
            "[image]\nsize = [8, 8]\nchannels = 'cmyk'",
            "[image]\nsize = [8, 8]\nresize = 'center-crop=4'",
            "[image]\nsize = [8, 8]\nresize = 'letterbox=256'",
            "[output]\nkind = 'mood'",
            "[output]\nkind = 'embedding'\nmetric = 'taxi'",
            "colour = 1",
        ] {
            assert!(
                matches!(Description::parse(bad, None), Err(Error::Input(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn one_number_stands_for_all_channels() {
        let d = Description::parse(
            "[image]\nsize = [8, 6]\nmean = 127.5\nscale = [1.0, 2.0, 3.0]",
            None,
        )
        .unwrap();
        let record = d.image.unwrap().to_record().unwrap();
        assert_eq!(
            (record.mean, record.scale, record.size),
            ([127.5; 3], [1.0, 2.0, 3.0], [8, 6])
        );
    }
}
