//! Pipelines: how the networks of a file work together, as plain data and in bytes (`PIPE` in `docs/format.md`).
//!
//! There is one pipeline in this version: from a photograph to a decision, detect -> align -> embed -> compare. A stage names
//! the network it runs and carries every parameter, so that a program needs nothing but the file.

use crate::error::{Error, ErrorKind, Result};
use crate::graph::{ChannelOrder, Metric};
use crate::record::{Reader, Writer};

/// Points that a detector finds in a face and a template places: left eye, right eye, nose, left and right corner of the mouth,
/// as they appear in the image.
pub const LANDMARKS: usize = 5;

/// Largest image side, crop side and multiple.
const MAX_SIDE: u32 = 65_536;
/// Most strides of a detector.
const MAX_STRIDES: usize = 8;
/// Most faces per image.
const MAX_FACES: u32 = 65_536;

/// The stages from a photograph to a decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// Finds faces.
    pub detect: Detect,
    /// Brings a face to the embedder's position and size.
    pub align: Align,
    /// Makes a vector of it.
    pub embed: Embed,
    /// Decides about two vectors.
    pub compare: Compare,
}

/// How 8-bit pixels become values: `(channel - mean) * scale`, channels in the stated order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pixels {
    /// Order of the channels.
    pub channels: ChannelOrder,
    /// Subtracted, in units of 0..=255.
    pub mean: [f32; 3],
    /// Multiplied after the subtraction.
    pub scale: [f32; 3],
}

/// The size at which a detector sees an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputSize {
    /// The image's own.
    Native,
    /// Scaled down so that the longest side has so many pixels; smaller images stay as they are.
    LongestSide(u32),
}

/// A detector of the YuNet family: for every stride S four outputs `cls_S`, `obj_S`, `bbox_S` and `kps_S`.
#[derive(Clone, Debug, PartialEq)]
pub struct Detect {
    /// Index of the network.
    pub network: u32,
    /// Values of its input.
    pub pixels: Pixels,
    /// Size of its input, before padding.
    pub size: InputSize,
    /// Width and height are padded with zero pixels, to the right and below, to multiples of this.
    pub multiple: u32,
    /// Strides, strictly ascending, divisors of `multiple`.
    pub strides: Vec<u32>,
    /// Least score of a face, 0 to 1.
    pub score: f32,
    /// Of two faces whose intersection over union exceeds this, the one of lower score is dropped; 0 to 1.
    pub nms: f32,
    /// Most faces, the best ones.
    pub max_faces: u32,
}

/// A similarity transform to a template.
#[derive(Clone, Debug, PartialEq)]
pub struct Align {
    /// Width and height of the crop.
    pub size: [u32; 2],
    /// Where the landmarks lie in the crop, in pixels (centre of the first pixel: 0, 0).
    pub template: [[f32; 2]; LANDMARKS],
    /// How much a landmark's squared distance from its place counts; at least two are positive.
    pub weights: [f32; LANDMARKS],
}

impl Align {
    /// Whether landmarks count differently.
    pub(crate) fn weighted(&self) -> bool {
        self.weights != [1.0; LANDMARKS]
    }
}

/// An embedder: one input `[1, channels, height, width]`; the vector is its first output.
#[derive(Clone, Debug, PartialEq)]
pub struct Embed {
    /// Index of the network.
    pub network: u32,
    /// Values of its input.
    pub pixels: Pixels,
}

/// The decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Compare {
    /// How two vectors are compared.
    pub metric: Metric,
    /// Where the decision changes, if the file decides.
    pub threshold: Option<f32>,
    /// Share of pairs of different persons that the threshold was chosen to let through, if it was chosen so.
    pub fpr: Option<f32>,
}

const DETECT: u8 = 0;
const ALIGN: u8 = 1;
const EMBED: u8 = 2;
const COMPARE: u8 = 3;
/// In the place of [`ALIGN`]: weights follow.
const ALIGN_WEIGHTED: u8 = 4;

fn write_pixels(w: &mut Writer, pixels: &Pixels) {
    w.u8(match pixels.channels {
        ChannelOrder::Rgb => 0,
        ChannelOrder::Bgr => 1,
        ChannelOrder::Gray => 2,
    });
    w.f32s(&pixels.mean);
    w.f32s(&pixels.scale);
}

fn read_pixels(r: &mut Reader<'_>) -> Result<Pixels> {
    Ok(Pixels {
        channels: match r.u8("channel order")? {
            0 => ChannelOrder::Rgb,
            1 => ChannelOrder::Bgr,
            2 => ChannelOrder::Gray,
            tag => return Err(r.bad_tag("channel order", tag)),
        },
        mean: r.f32_array("mean")?,
        scale: r.f32_array("scale")?,
    })
}

/// The bytes of a section.
pub(crate) fn write(pipeline: &Pipeline) -> Vec<u8> {
    let mut writer = Writer::default();
    let w = &mut writer;
    w.count(4);
    let Detect {
        network,
        pixels,
        size,
        multiple,
        strides,
        score,
        nms,
        max_faces,
    } = &pipeline.detect;
    w.u8(DETECT);
    w.uint(*network);
    write_pixels(w, pixels);
    match size {
        InputSize::Native => w.u8(0),
        InputSize::LongestSide(side) => {
            w.u8(1);
            w.uint(*side);
        }
    }
    w.uint(*multiple);
    w.list(strides, |w, stride| w.uint(*stride));
    w.f32s(&[*score, *nms]);
    w.uint(*max_faces);
    let weighted = pipeline.align.weighted();
    w.u8(if weighted { ALIGN_WEIGHTED } else { ALIGN });
    pipeline.align.size.iter().for_each(|side| w.uint(*side));
    w.f32s(pipeline.align.template.as_flattened());
    if weighted {
        w.f32s(&pipeline.align.weights);
    }
    w.u8(EMBED);
    w.uint(pipeline.embed.network);
    write_pixels(w, &pipeline.embed.pixels);
    w.u8(COMPARE);
    w.u8(match pipeline.compare.metric {
        Metric::Cosine => 0,
        Metric::Euclidean => 1,
    });
    w.option(pipeline.compare.threshold.as_ref(), |w, v| w.f32(*v));
    w.option(pipeline.compare.fpr.as_ref(), |w, v| w.f32(*v));
    writer.bytes
}

/// Reads and verifies a section of a file with so many networks.
pub(crate) fn read(bytes: &[u8], base: u64, networks: usize) -> Result<Pipeline> {
    let mut reader = Reader::new(bytes, base, 0);
    let r = &mut reader;
    let count = r.uint("stages")?;
    // The tag, one of those wanted.
    let stage = |r: &mut Reader<'_>, at: u64, wanted: &[u8]| {
        if at >= count {
            return Err(Error::new(ErrorKind::Pipeline, format!("{count} stages")).at(r.offset()));
        }
        match r.u8("stage")? {
            tag if wanted.contains(&tag) => Ok(tag),
            tag @ DETECT..=ALIGN_WEIGHTED => {
                let detail = format!("stage {at} has tag {tag}");
                Err(Error::new(ErrorKind::Pipeline, detail).at(r.offset()))
            }
            tag => Err(Error::new(ErrorKind::UnknownStage, format!("tag {tag}")).at(r.offset())),
        }
    };
    stage(r, 0, &[DETECT])?;
    let detect = Detect {
        network: r.uint32("network")?,
        pixels: read_pixels(r)?,
        size: match r.u8("size rule")? {
            0 => InputSize::Native,
            1 => InputSize::LongestSide(r.uint32("longest side")?),
            tag => return Err(r.bad_tag("size rule", tag)),
        },
        multiple: r.uint32("multiple")?,
        strides: r.list("strides", MAX_STRIDES as u64, 1, |r| r.uint32("stride"))?,
        score: r.f32("score")?,
        nms: r.f32("overlap")?,
        max_faces: r.uint32("faces")?,
    };
    let weighted = stage(r, 1, &[ALIGN, ALIGN_WEIGHTED])? == ALIGN_WEIGHTED;
    let size = [r.uint32("crop width")?, r.uint32("crop height")?];
    let mut template = [[0.0; 2]; LANDMARKS];
    for point in &mut template {
        *point = r.f32_array("template")?;
    }
    let weights = match weighted {
        true => r.f32_array("weights")?,
        false => [1.0; LANDMARKS],
    };
    stage(r, 2, &[EMBED])?;
    let embed = Embed {
        network: r.uint32("network")?,
        pixels: read_pixels(r)?,
    };
    stage(r, 3, &[COMPARE])?;
    let compare = Compare {
        metric: match r.u8("metric")? {
            0 => Metric::Cosine,
            1 => Metric::Euclidean,
            tag => return Err(r.bad_tag("metric", tag)),
        },
        threshold: r.option("threshold", |r| r.f32("threshold"))?,
        fpr: r.option("rate", |r| r.f32("rate"))?,
    };
    if count > 4 {
        // A later stage decides about the result: not to be skipped, whether known or not.
        return match r.u8("stage")? {
            DETECT..=ALIGN_WEIGHTED => {
                Err(Error::new(ErrorKind::Pipeline, format!("{count} stages")))
            }
            tag => Err(Error::new(ErrorKind::UnknownStage, format!("tag {tag}"))),
        }
        .map_err(|e| e.at(r.offset()));
    }
    reader.finish()?;
    let pipeline = Pipeline {
        detect,
        align: Align {
            size,
            template,
            weights,
        },
        embed,
        compare,
    };
    check(&pipeline, networks)?;
    Ok(pipeline)
}

/// The rules about values.
pub(crate) fn check(pipeline: &Pipeline, networks: usize) -> Result<()> {
    let Pipeline {
        detect,
        align,
        embed,
        compare,
    } = pipeline;
    let fail = |kind, what: &str| Err(Error::new(kind, what));
    if [detect.network, embed.network]
        .iter()
        .any(|n| *n as usize >= networks)
    {
        return fail(ErrorKind::IdRange, "network of a stage");
    }
    let share = |v: &f32| (0.0..=1.0).contains(v);
    let side = |v: &u32| (1..=MAX_SIDE).contains(v);
    let pixels = [&detect.pixels, &embed.pixels];
    let mut values = pixels
        .iter()
        .flat_map(|p| p.mean.iter().chain(&p.scale))
        .chain(align.template.as_flattened())
        .chain(&align.weights)
        .chain(&compare.threshold);
    if !values.all(|v| v.is_finite()) {
        return fail(ErrorKind::NotFinite, "value of a stage");
    }
    if let InputSize::LongestSide(longest) = &detect.size
        && !side(longest)
    {
        return fail(ErrorKind::Pipeline, "longest side");
    }
    let strides = &detect.strides;
    let strides_ok = (1..=MAX_STRIDES).contains(&strides.len())
        && strides.windows(2).all(|pair| pair[0] < pair[1])
        && side(&detect.multiple)
        && strides
            .iter()
            .all(|s| *s > 0 && detect.multiple.is_multiple_of(*s));
    if !strides_ok {
        return fail(ErrorKind::Pipeline, "strides");
    }
    if !share(&detect.score) || !share(&detect.nms) || !compare.fpr.iter().all(share) {
        return fail(ErrorKind::Pipeline, "a share is not within 0 to 1");
    }
    if !(1..=MAX_FACES).contains(&detect.max_faces) {
        return fail(ErrorKind::Pipeline, "number of faces");
    }
    if !align.size.iter().all(side) {
        return fail(ErrorKind::Pipeline, "size of the crop");
    }
    let weights = &align.weights;
    if weights.iter().any(|w| *w < 0.0) || weights.iter().filter(|w| **w > 0.0).count() < 2 {
        return fail(ErrorKind::Pipeline, "weights of landmarks");
    }
    Ok(())
}
