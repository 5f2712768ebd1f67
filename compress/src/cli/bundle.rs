//! `dcz bundle`: detector, alignment, embedder and threshold in one file.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use dcz::Model;
use dcz_compress::encode::{CompressOptions, compress};
use dcz_compress::error::Error;
use dcz_compress::import::{Dynamic, ImportOptions, import};
use dcz_compress::onnx;
use dcz_compress::preprocess::Description;
use dcz_compress::settings::{AllSettings, Quantize, Settings};
use dcz_face::align::{arcface112, dlib150};
use dcz_format::graph::{ChannelOrder, Dim, Meaning, Metric, Network};
use dcz_format::pipeline::{Align, Compare, Detect, Embed, InputSize, LANDMARKS, Pipeline, Pixels};
use dcz_format::writer::Encoded;
use serde_json::json;

use super::calibrate::calibrate;
use super::target::{Partial, check_target};

/// Largest side of a detector's input.
const MAX_SIDE: u32 = 8192;

/// Puts a face detector, an alignment, an embedder and a threshold into one .dcz file, for `infer PHOTO` and
/// `infer verify A B`. ONNX models are compressed on the way.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// YuNet as ONNX or .dcz; an ONNX model is made to take any size in multiples of 32
    #[arg(long, value_name = "FILE")]
    detector: PathBuf,
    /// The network that makes the embedding, as ONNX or .dcz
    #[arg(long, value_name = "FILE")]
    embedder: PathBuf,
    /// Where landmarks are brought to: arcface112, dlib150, or a TOML file with size = [W, H], points = [[x, y], ...]
    /// (left eye, right eye, nose, left and right mouth corner) and, where they count differently, weights = [w, ...]
    /// [default: by the embedder's input size]
    #[arg(long, value_name = "NAME|FILE.toml")]
    template: Option<String>,
    /// How a crop becomes the embedder's input and how embeddings are compared (TOML, as for `dcz compress`) [default: RGB
    /// values as they are and cosine; for dlib150 dlib's means and the distance]
    #[arg(long, value_name = "FILE.toml")]
    preprocess: Option<PathBuf>,
    /// Where the decision changes [default: that of the embedder's description, if any]
    #[arg(
        long,
        value_name = "T",
        allow_hyphen_values = true,
        conflicts_with = "calibrate"
    )]
    threshold: Option<f32>,
    /// Chooses the threshold by photographs: lines `FILE FILE same|different`, or `FILE PERSON` (every pair counts), or LFW's
    /// pairs.txt
    #[arg(long, value_name = "pairs.txt", requires = "images")]
    calibrate: Option<PathBuf>,
    /// Where the photographs of --calibrate are
    #[arg(long, value_name = "DIR", requires = "calibrate")]
    images: Option<PathBuf>,
    /// Share of pairs of different persons that the threshold of --calibrate may let through
    #[arg(long, value_name = "RATE", default_value_t = 1e-3, value_parser = share::<f64>)]
    fpr: f64,
    /// Size at which the detector sees a photo: `native`, or pixels of the longest side, to which larger photos are scaled down
    #[arg(long, value_name = "native|PIXELS", default_value = "640", value_parser = size)]
    size: InputSize,
    /// Least score of a face
    #[arg(long, value_name = "SCORE", default_value_t = 0.6, value_parser = share::<f32>)]
    score: f32,
    /// Overlap above which the weaker of two faces is dropped
    #[arg(long, value_name = "IOU", default_value_t = 0.3, value_parser = share::<f32>)]
    nms: f32,
    /// Most faces of a photo
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_faces: u32,
    /// How the embedder's weights become codes, as for `dcz compress` [default: grid]
    #[arg(long, value_name = "KIND")]
    quantize: Option<Quantize>,
    /// Width of a code of the embedder, 1 to 8
    #[arg(long, value_name = "N")]
    bits: Option<u8>,
    /// Step of the embedder's grid in standard deviations of the layer
    #[arg(long, value_name = "C")]
    step: Option<f32>,
    /// How the detector's weights become codes [default: grid of 8 bits per channel]
    #[arg(long, value_name = "KIND")]
    detector_quantize: Option<Quantize>,
    /// Settings of the embedder from a TOML file, as for `dcz compress`
    #[arg(long, value_name = "FILE.toml")]
    settings: Option<PathBuf>,
    /// The file to write; an existing regular file is replaced atomically
    #[arg(short, long, value_name = "OUT.dcz")]
    output: PathBuf,
    /// Prints one line of JSON on stdout
    #[arg(long)]
    json: bool,
}

fn size(text: &str) -> Result<InputSize, String> {
    match text {
        "native" => Ok(InputSize::Native),
        _ => text
            .parse()
            .ok()
            .filter(|side| (1..=MAX_SIDE).contains(side))
            .map(InputSize::LongestSide)
            .ok_or_else(|| format!("native or 1 to {MAX_SIDE} is needed")),
    }
}

fn share<T: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<T, String> {
    match text.parse() {
        Ok(value) if (T::from(0)..=T::from(1)).contains(&value) => Ok(value),
        _ => Err("0 to 1 is needed".into()),
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    check_target(&arguments.output)?;
    let mut embedder_settings = match &arguments.settings {
        Some(path) => AllSettings::load(path)?,
        None => AllSettings::default(),
    };
    let general = Settings {
        quantize: arguments.quantize,
        bits: arguments.bits,
        step: arguments.step,
        ..Settings::default()
    };
    general.check().map_err(Error::Usage)?;
    embedder_settings.general = embedder_settings.general.overridden_by(general);
    // A detector is small and decides by thresholds: as fine as codes of 8 bits allow, in every layer.
    let detector_settings = AllSettings {
        general: Settings {
            quantize: arguments.detector_quantize,
            bits: (arguments.detector_quantize.unwrap_or(Quantize::Grid) == Quantize::Grid)
                .then_some(8),
            ..Settings::default()
        },
        ..AllSettings::default()
    };

    let mut bundle = load(
        &arguments.detector,
        detector_settings,
        Description::default(),
        true,
    )?;
    let template = arguments.template.as_deref().map(template).transpose()?;
    let description = match &arguments.preprocess {
        Some(path) => Some(Description::load(path)?),
        None => None,
    };
    let embedder = load(
        &arguments.embedder,
        embedder_settings,
        description.clone().unwrap_or_default(),
        false,
    )?;
    let network = only(&embedder)?;
    let align = match template {
        Some(align) => align,
        None => match crop_size(network) {
            Some([112, 112]) => arcface112(),
            Some([150, 150]) => dlib150(),
            _ => {
                return Err(Error::Usage(format!(
                    "no template is known for the input of {}; say --template",
                    network.name
                )));
            }
        },
    };
    let (pixels, mut compare) = meaning(network, &align)?;
    compare.threshold = arguments.threshold.or(compare.threshold);
    let detector_name = only(&bundle)?.name.clone();
    let embedder_name = network.name.clone();
    let mut embedder = embedder;
    if detector_name == embedder_name {
        bundle.rename(0, "detector")?;
        embedder.rename(0, "embedder")?;
    }
    bundle.append(embedder)?;
    let mut pipeline = Pipeline {
        detect: Detect {
            network: 0,
            // YuNet's own: BGR values from 0 to 255.
            pixels: Pixels {
                channels: ChannelOrder::Bgr,
                mean: [0.0; 3],
                scale: [1.0; 3],
            },
            size: arguments.size,
            multiple: 32,
            strides: vec![8, 16, 32],
            score: arguments.score,
            nms: arguments.nms,
            max_faces: arguments.max_faces,
        },
        align,
        embed: Embed { network: 1, pixels },
        compare,
    };
    bundle.set_pipeline(pipeline.clone())?;

    // Opened and tested before the target is replaced.
    let partial = Partial::beside(&arguments.output)?;
    let mut bytes = bundle.write_atomic(&partial.path)?;
    let mut opened = Model::open(&partial.path)?;
    for network in opened.networks() {
        let options = dcz::SessionOptions::default().with_network(network.name.clone());
        if network.self_test.is_some()
            && !dcz::Session::new(&opened, options)?.self_test()?.passed()
        {
            return Err(Error::SelfTest(format!(
                "self-test of {} failed; nothing was written",
                network.name
            )));
        }
    }
    let blank = vec![0; 64 * 64 * 3];
    let options = dcz_face::Options::default();
    let found = dcz_face::FacePipeline::new(&opened, options).and_then(|mut pipeline| {
        let image = dcz_face::Image::new(64, 64, &blank)?;
        pipeline.detect(&image)
    });
    found.map_err(face_error)?;
    let mut calibration = None;
    if let (Some(list), Some(images)) = (&arguments.calibrate, &arguments.images) {
        let found = calibrate(&opened, list, images, arguments.fpr)?;
        pipeline.compare.threshold = Some(found.threshold);
        pipeline.compare.fpr = Some(arguments.fpr as f32);
        bundle.set_pipeline(pipeline)?;
        bytes = bundle.write_atomic(&partial.path)?;
        opened = Model::open(&partial.path)?;
        calibration = Some(found);
    }
    partial.rename_to(&arguments.output)?;
    let names: Vec<&str> = opened.networks().iter().map(|n| n.name.as_str()).collect();
    let threshold = opened
        .container()
        .pipeline()
        .and_then(|pipeline| pipeline.compare.threshold);
    if arguments.json {
        let calibration = calibration.map(|c| {
            json!({
                "positives": c.positives[0],
                "positives_accepted": c.positives[1],
                "negatives": c.negatives,
                "rank": c.rank,
                "without_face": c.without_face,
                "fpr": arguments.fpr,
            })
        });
        let line = json!({
            "file": arguments.output.display().to_string(),
            "bytes": bytes,
            "networks": names,
            "threshold": threshold,
            "calibration": calibration,
        });
        return super::print(&format!("{line}\n"));
    }
    if let Some(c) = calibration {
        super::print(&format!(
            "threshold {}: accepts {} of {} pairs of different persons and {} of {} pairs of one; {} photographs without a face\n",
            c.threshold, c.rank, c.negatives, c.positives[1], c.positives[0], c.without_face
        ))?;
    }
    let decision = threshold.map_or("no threshold".into(), |t| format!("threshold {t}"));
    super::print(&format!(
        "{}: {} bytes; detector {}, embedder {}, {decision}\n",
        arguments.output.display(),
        super::grouped(bytes),
        names.first().unwrap_or(&""),
        names.get(1).unwrap_or(&""),
    ))
}

pub(super) fn face_error(error: dcz_face::Error) -> Error {
    match error {
        dcz_face::Error::Runtime(e) => e.into(),
        other => Error::Runtime {
            code: other.exit_code(),
            text: other.to_string(),
        },
    }
}

/// A `.dcz` file as it is, or a compressed ONNX model.
fn load(
    path: &Path,
    settings: AllSettings,
    description: Description,
    any_size: bool,
) -> Result<Encoded, Error> {
    use std::io::Read;
    let mut head = [0; 8];
    let mut file = std::fs::File::open(path).map_err(|e| Error::io(path, &e))?;
    if file.read_exact(&mut head).is_ok() && head == dcz_format::MAGIC {
        if settings != AllSettings::default() && !any_size {
            return Err(Error::Usage(format!(
                "{} is compressed already: its settings cannot be changed",
                path.display()
            )));
        }
        let mut encoded = Encoded::from_container(Model::open(path)?.container())?;
        only(&encoded)?;
        encoded.describe(|network| description.apply(network))?;
        return Ok(encoded);
    }
    let model = onnx::load(path)?;
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let folder = path.parent().map(Path::to_path_buf);
    let mut options = ImportOptions {
        folder,
        ..ImportOptions::default()
    };
    let mut float = import(&model, &options)?;
    if any_size {
        let network = &float.network;
        let input = network.inputs.first();
        let input = input.and_then(|id| network.tensors.get(id.0 as usize));
        if let Some(input) = input {
            let open = |axis: usize| matches!(input.dims.get(axis), Some(Dim::Symbol(_)));
            if input.dims.len() == 4 && !(open(2) && open(3)) {
                options.dynamic = [2, 3]
                    .map(|axis| Dynamic {
                        name: input.name.clone(),
                        axis,
                        range: Some((32, MAX_SIDE, 32)),
                    })
                    .to_vec();
                float = import(&model, &options).map_err(|e| Error::Runtime {
                    code: e.exit_code(),
                    text: format!(
                        "{}: a detector must take photos of any size, and this network works for one size only (is it the embedder?): {e}",
                        path.display()
                    ),
                })?;
            }
        }
    }
    let source = &mut float.network.provenance.source;
    *source = if source.is_empty() {
        name
    } else {
        format!("{name} ({source})")
    };
    for note in std::mem::take(&mut float.notes) {
        eprintln!("note: {note}");
    }
    let options = CompressOptions {
        settings,
        description,
    };
    compress(float, &options, &mut |_, _, _| {})
}

fn only(encoded: &Encoded) -> Result<&Network, Error> {
    match encoded.networks() {
        [network] => Ok(network),
        several => Err(Error::Usage(format!(
            "a file of one network is needed, not of {}",
            several.len()
        ))),
    }
}

/// Width and height of the embedder's input, where fixed.
fn crop_size(network: &Network) -> Option<[u32; 2]> {
    let input = network.inputs.first()?;
    match network.tensors.get(input.0 as usize)?.dims[..] {
        [_, _, Dim::Fixed(height), Dim::Fixed(width)] => Some([width, height]),
        _ => None,
    }
}

/// Values and metric: from the network's records, else the usual ones of its template.
fn meaning(network: &Network, align: &Align) -> Result<(Pixels, Compare), Error> {
    let dlib = align.size == dlib150().size;
    let pixels = match &network.preprocess {
        Some(p) if p.size != align.size => {
            return Err(Error::Usage(format!(
                "the template makes {:?} pixels, the embedder is described for {:?}",
                align.size, p.size
            )));
        }
        Some(p) => Pixels {
            channels: p.channels,
            mean: p.mean,
            scale: p.scale,
        },
        None => Pixels {
            channels: ChannelOrder::Rgb,
            mean: if dlib {
                [122.782, 117.001, 104.298]
            } else {
                [0.0; 3]
            },
            scale: [if dlib { 1.0 / 256.0 } else { 1.0 }; 3],
        },
    };
    let compare = match network.outputs.first().map(|output| &output.meaning) {
        Some(Meaning::Embedding { metric, threshold }) => Compare {
            metric: *metric,
            threshold: *threshold,
            fpr: None,
        },
        _ => Compare {
            metric: if dlib {
                Metric::Euclidean
            } else {
                Metric::Cosine
            },
            threshold: None,
            fpr: None,
        },
    };
    Ok((pixels, compare))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TemplateFile {
    size: [u32; 2],
    points: [[f32; 2]; LANDMARKS],
    #[serde(default = "equal")]
    weights: [f32; LANDMARKS],
}

fn equal() -> [f32; LANDMARKS] {
    [1.0; LANDMARKS]
}

fn template(name: &str) -> Result<Align, Error> {
    match name {
        "arcface112" => Ok(arcface112()),
        "dlib150" => Ok(dlib150()),
        path => {
            let text = dcz_compress::settings::read_text(Path::new(path))?;
            let file: TemplateFile = toml::from_str(&text).map_err(|e| {
                let text = dcz_compress::settings::one_line(&e.to_string());
                Error::Input(format!("{path}: {text}"))
            })?;
            Ok(Align {
                size: file.size,
                template: file.points,
                weights: file.weights,
            })
        }
    }
}
