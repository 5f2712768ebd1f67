//! Networks: everything of a `GRPH` section.

use super::layer::{ALIGN, read_layer, write_layer};
use super::op::{read_op, read_pair, write_op, write_pair};
use super::{Reader, Writer};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::*;
use crate::limits::{Limits, product};
use crate::selftest;

const MAX_DIMS: u64 = 8;

/// A network and the lengths its other two sections must have.
pub(crate) struct NetworkRecord {
    pub(crate) network: Network,
    pub(crate) weights_len: u64,
    pub(crate) constants_len: u64,
}

pub(crate) fn write_network(network: &Network) -> Vec<u8> {
    let mut writer = Writer::default();
    let w = &mut writer;
    w.text(&network.name);
    w.list(&network.symbols, |w, symbol| {
        w.text(&symbol.name);
        [symbol.min, symbol.max, symbol.multiple, symbol.default]
            .iter()
            .for_each(|v| w.uint(*v));
    });
    w.list(&network.tensors, write_tensor);
    w.list(&network.inputs, |w, id| w.uint(id.0));
    w.list(&network.outputs, write_output);
    w.list(&network.constants, |w, constant| {
        w.text(&constant.name);
        w.list(&constant.dims, |w, dim| w.uint(*dim));
        w.u8(match constant.precision {
            Precision::F16 => 0,
            Precision::F32 => 1,
        });
        w.u32(constant.crc);
    });
    w.list(&network.layers, write_layer);
    w.list(&network.nodes, |w, node| {
        w.text(&node.name);
        write_op(w, &node.op);
        w.list(&node.inputs, |w, id| w.uint(id.0));
        w.uint(node.output.0);
    });
    w.option(network.preprocess.as_ref(), write_preprocess);
    w.option(network.self_test.as_ref(), write_self_test);
    w.text(&network.provenance.source);
    w.text(&network.provenance.producer);
    w.text(&network.provenance.licence);
    writer.bytes
}

pub(crate) fn read_network(bytes: &[u8], base: u64, limits: &Limits) -> Result<NetworkRecord> {
    let mut reader = Reader::new(bytes, base, limits.max_text);
    let r = &mut reader;
    let name = r.text("network name")?;
    let symbols = r.list("symbols", limits.max_symbols as u64, 5, |r| {
        Ok(Symbol {
            name: r.text("symbol name")?,
            min: r.uint32("least size")?,
            max: r.uint32("largest size")?,
            multiple: r.uint32("multiple")?,
            default: r.uint32("default size")?,
        })
    })?;
    let tensors = r.list("tensors", limits.max_tensors as u64, 3, read_tensor)?;
    let inputs = r.list("inputs", limits.max_tensors as u64, 1, |r| {
        r.uint32("input").map(TensorId)
    })?;
    let outputs = r.list("outputs", limits.max_tensors as u64, 2, read_output)?;
    let mut constants_len = 0u64;
    let constants = r.list("constants", limits.max_constants as u64, 7, |r| {
        read_constant(r, limits, &mut constants_len)
    })?;
    let (mut weights_len, mut tiles_left) = (0u64, limits.max_tiles);
    let layers = r.list("layers", limits.max_layers as u64, 30, |r| {
        read_layer(r, limits, &mut weights_len, &mut tiles_left)
    })?;
    let nodes = r.list("nodes", limits.max_nodes as u64, 5, |r| {
        Ok(Node {
            name: r.text("node name")?,
            op: read_op(r)?,
            inputs: r.list("node inputs", limits.max_tensors as u64, 1, |r| {
                r.uint32("node input").map(TensorId)
            })?,
            output: TensorId(r.uint32("node output")?),
        })
    })?;
    let preprocess = r.option("preprocessing", read_preprocess)?;
    let self_test = r.option("self-test", read_self_test)?;
    let provenance = Provenance {
        source: r.text("source")?,
        producer: r.text("producer")?,
        licence: r.text("licence")?,
    };
    reader.finish()?;
    let network = Network {
        name,
        symbols,
        tensors,
        nodes,
        inputs,
        outputs,
        layers,
        constants,
        preprocess,
        self_test,
        provenance,
    };
    Ok(NetworkRecord {
        network,
        weights_len,
        constants_len,
    })
}

/// Serialised size of a self-test.
pub(crate) fn self_test_bytes(test: &SelfTest) -> usize {
    let mut w = Writer::default();
    write_self_test(&mut w, test);
    w.bytes.len()
}

fn write_tensor(w: &mut Writer, tensor: &Tensor) {
    w.text(&tensor.name);
    w.list(&tensor.dims, |w, dim| {
        w.uint(match dim {
            Dim::Fixed(size) => u64::from(*size) * 2,
            Dim::Symbol(id) => u64::from(id.0) * 2 + 1,
        });
    });
    w.option(tensor.quant.as_ref(), |w, quant| {
        w.bool(quant.signed);
        w.option(quant.axis.as_ref(), |w, axis| w.u8(*axis));
        w.count(quant.scales.len());
        w.f32s(&quant.scales);
        quant
            .zero_points
            .iter()
            .for_each(|z| w.int32(i32::from(*z)));
    });
}

fn read_tensor(r: &mut Reader<'_>) -> Result<Tensor> {
    Ok(Tensor {
        name: r.text("tensor name")?,
        dims: r.list("dimensions", MAX_DIMS, 1, |r| {
            let value = r.uint("dimension")?;
            let half = u32::try_from(value >> 1)
                .map_err(|_| Error::new(ErrorKind::BadInteger, "dimension").at(r.offset()))?;
            Ok(if value & 1 == 0 {
                Dim::Fixed(half)
            } else {
                Dim::Symbol(SymbolId(half))
            })
        })?,
        quant: r.option("activation quantisation", |r| {
            let signed = r.bool("signed")?;
            let axis = r.option("axis", |r| r.u8("axis"))?;
            let count = r.count("scales", u64::from(u32::MAX), 5)?;
            let scales = r.f32s(count, "scales")?;
            let mut zero_points = Vec::with_capacity(count);
            for _ in 0..count {
                let value = r.int32("zero point")?;
                zero_points.push(i16::try_from(value).map_err(|_| {
                    Error::new(ErrorKind::ActivationQuant, "zero point").at(r.offset())
                })?);
            }
            Ok(ActivationQuant {
                signed,
                axis,
                scales,
                zero_points,
            })
        })?,
    })
}

fn write_output(w: &mut Writer, output: &Output) {
    w.uint(output.tensor.0);
    match &output.meaning {
        Meaning::Unknown => w.u8(0),
        Meaning::Embedding { metric, threshold } => {
            w.u8(1);
            w.u8(match metric {
                Metric::Cosine => 0,
                Metric::Euclidean => 1,
            });
            w.option(threshold.as_ref(), |w, t| w.f32(*t));
        }
        Meaning::Classes { labels } => {
            w.u8(2);
            w.list(labels, |w, label| w.text(label));
        }
    }
}

fn read_output(r: &mut Reader<'_>) -> Result<Output> {
    Ok(Output {
        tensor: TensorId(r.uint32("output")?),
        meaning: match r.u8("meaning")? {
            0 => Meaning::Unknown,
            1 => Meaning::Embedding {
                metric: match r.u8("metric")? {
                    0 => Metric::Cosine,
                    1 => Metric::Euclidean,
                    tag => return Err(r.bad_tag("metric", tag)),
                },
                threshold: r.option("threshold", |r| r.f32("threshold"))?,
            },
            2 => Meaning::Classes {
                labels: r.list("labels", u64::from(u32::MAX), 1, |r| r.text("label"))?,
            },
            tag => return Err(r.bad_tag("meaning", tag)),
        },
    })
}

fn read_constant(r: &mut Reader<'_>, limits: &Limits, end: &mut u64) -> Result<Constant> {
    let name = r.text("constant name")?;
    let dims = r.list("constant dimensions", MAX_DIMS, 1, |r| {
        r.uint32("constant dimension")
    })?;
    let values = product(dims.iter().map(|d| u64::from(*d))).unwrap_or(u64::MAX);
    Limits::check("values of a constant", values, limits.max_constant_values)
        .map_err(|e| e.at(r.offset()))?;
    let precision = match r.u8("precision")? {
        0 => Precision::F16,
        1 => Precision::F32,
        tag => return Err(r.bad_tag("precision", tag)),
    };
    let offset = end.checked_next_multiple_of(ALIGN).unwrap_or(u64::MAX);
    *end = offset.saturating_add(values.saturating_mul(precision.bytes()));
    Ok(Constant {
        name,
        dims,
        precision,
        offset,
        crc: r.u32("constant checksum")?,
    })
}

fn write_preprocess(w: &mut Writer, p: &Preprocess) {
    write_pair(w, p.size);
    w.u8(match p.channels {
        ChannelOrder::Rgb => 0,
        ChannelOrder::Bgr => 1,
        ChannelOrder::Gray => 2,
    });
    w.f32s(&p.mean);
    w.f32s(&p.scale);
    match p.resize {
        ResizeRule::Stretch => w.u8(0),
        ResizeRule::Letterbox { fill } => {
            w.u8(1);
            w.u8(fill);
        }
        ResizeRule::CenterCrop { short } => {
            w.u8(2);
            w.uint(short);
        }
    }
    w.u8(match p.filter {
        Filter::Bilinear => 0,
        Filter::Nearest => 1,
    });
}

fn read_preprocess(r: &mut Reader<'_>) -> Result<Preprocess> {
    Ok(Preprocess {
        size: read_pair(r, "image size")?,
        channels: match r.u8("channel order")? {
            0 => ChannelOrder::Rgb,
            1 => ChannelOrder::Bgr,
            2 => ChannelOrder::Gray,
            tag => return Err(r.bad_tag("channel order", tag)),
        },
        mean: r.f32_array("mean")?,
        scale: r.f32_array("scale")?,
        resize: match r.u8("resize rule")? {
            0 => ResizeRule::Stretch,
            1 => ResizeRule::Letterbox {
                fill: r.u8("fill")?,
            },
            2 => ResizeRule::CenterCrop {
                short: r.uint32("short side")?,
            },
            tag => return Err(r.bad_tag("resize rule", tag)),
        },
        filter: match r.u8("filter")? {
            0 => Filter::Bilinear,
            1 => Filter::Nearest,
            tag => return Err(r.bad_tag("filter", tag)),
        },
    })
}

fn write_self_test(w: &mut Writer, test: &SelfTest) {
    let Generator::SplitMix64 = test.generator;
    w.u8(0);
    w.u64(test.seed);
    w.f32s(&test.range);
    w.list(&test.expected, |w, expected| {
        w.uint(expected.len);
        w.f32s(&[expected.max_abs, expected.norm]);
        w.count(expected.samples.len());
        w.f32s(&expected.samples);
    });
}

fn read_self_test(r: &mut Reader<'_>) -> Result<SelfTest> {
    let start = r.pos();
    let generator = match r.u8("generator")? {
        0 => Generator::SplitMix64,
        tag => return Err(r.bad_tag("generator", tag)),
    };
    let seed = r.u64("seed")?;
    let range = r.f32_array("range")?;
    let expected = r.list("expectations", u64::from(u32::MAX), 10, |r| {
        let len = r.uint32("output length")?;
        let [max_abs, norm] = r.f32_array("magnitude and norm")?;
        let count = r.count("samples", u64::from(u32::MAX), 4)?;
        Ok(Expected {
            len,
            max_abs,
            norm,
            samples: r.f32s(count, "samples")?,
        })
    })?;
    let bytes = r.pos() - start;
    if bytes > selftest::MAX_BYTES {
        return Err(Error::new(ErrorKind::SelfTestSize, format!("{bytes} bytes")).at(r.offset()));
    }
    Ok(SelfTest {
        generator,
        seed,
        range,
        expected,
    })
}
