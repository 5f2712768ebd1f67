//! Slow reader of `docs/format.md`, in its order, with every rule of a full check. Shares no code with `src`: only the plain
//! records of `graph.rs` and `layer.rs` are filled in. An error is the name of the rule; `stream` stands for all rules of
//! format-coding.md that concern a tile.

// Rules are written as in the text.
#![allow(clippy::manual_range_contains)]

#[path = "codec.rs"]
mod codec;

use dcz_format::graph::*;
use dcz_format::layer::*;
use dcz_format::pipeline::*;
use std::collections::HashSet;

type R<T> = Result<T, &'static str>;

/// Everything a file says.
pub struct File {
    pub networks: Vec<Decoded>,
    pub texts: Vec<(String, String)>,
    pub pipeline: Option<Pipeline>,
    /// Network, and for every layer the shares of groups of two and of four.
    pub blocks: Vec<(usize, Vec<[u8; 2]>)>,
}

/// A network with its numbers.
pub struct Decoded {
    pub network: Network,
    pub constants: Vec<Vec<f32>>,
    /// OIHW.
    pub weights: Vec<Vec<f32>>,
}

fn rule(holds: bool, name: &'static str) -> R<()> {
    if holds { Ok(()) } else { Err(name) }
}

/// Section 0, bit by bit.
pub fn crc(bytes: &[u8]) -> u32 {
    let mut register = 0xffff_ffffu32;
    for byte in bytes {
        register ^= u32::from(*byte);
        for _ in 0..8 {
            register = if register & 1 == 1 {
                register >> 1 ^ 0x82f6_3b78
            } else {
                register >> 1
            };
        }
    }
    !register
}

fn align(x: u64, n: u64) -> u64 {
    x.div_ceil(n) * n
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len]
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

struct Section<'a> {
    bytes: &'a [u8],
    kind: usize,
    network: u64,
}

type Table = ([u8; 256], u8);

/// Section 1.
pub fn read(file: &[u8]) -> R<File> {
    let signature = b"\x89\x44\x43\x5a\x0d\x0a\x1a\x0a";
    let there = file.len().min(8);
    rule(file[..there] == signature[..there], "bad_magic")?;
    rule(file.len() >= 32, "truncated")?;
    let (version, reader) = (number(file, 8, 2), number(file, 10, 2));
    rule(reader <= 4, "version_too_new")?;
    rule(reader >= 1 && version >= reader, "bad_version")?;
    let n = number(file, 12, 4) as usize;
    let length = number(file, 16, 8);
    let directory_end = 32 + 32 * n;
    rule(
        file.len() as u64 >= length.min(directory_end as u64),
        "truncated",
    )?;
    rule(file.len() >= directory_end, "truncated")?;
    let covered = [&file[..28], &file[32..directory_end]].concat();
    rule(
        crc(&covered) as u64 == number(file, 28, 4),
        "header_checksum",
    )?;
    rule(number(file, 24, 4) == 0, "reserved_bits")?;
    rule(file.len() as u64 >= length, "truncated")?;
    rule(file.len() as u64 == length, "file_length")?;
    // (kind, critical, of a network)
    let known = [
        (b"CODE", true, false),
        (b"GRPH", true, true),
        (b"TEXT", false, false),
        (b"CNST", true, true),
        (b"WGHT", true, true),
        (b"PIPE", true, false),
        (b"BLKS", false, true),
    ];
    let mut sections: Vec<Section<'_>> = Vec::new();
    let mut end = directory_end as u64;
    for entry in file[32..directory_end].chunks(32) {
        let flags = number(entry, 4, 4);
        let (offset, len) = (number(entry, 8, 8), number(entry, 16, 8));
        let network = number(entry, 24, 4);
        rule(flags < 2, "reserved_bits")?;
        let kind = known.iter().position(|known| known.0[..] == entry[..4]);
        match kind {
            None => rule(flags == 0, "unknown_critical")?,
            Some(kind) => {
                rule(known[kind].1 == (flags == 1), "section_flags")?;
                rule(known[kind].2 == (network != 0xffff_ffff), "section_owner")?;
            }
        }
        rule(
            offset == align(end, 64) && offset + len <= length,
            "section_tiling",
        )?;
        rule(
            file[end as usize..offset as usize]
                .iter()
                .all(|byte| *byte == 0),
            "padding",
        )?;
        end = offset + len;
        let bytes = &file[offset as usize..end as usize];
        // Reported only when nothing inside explains it: see `finish`.
        sections.push(Section {
            bytes,
            kind: kind.unwrap_or(99),
            network,
        });
    }
    rule(align(end, 64) == length, "section_tiling")?;
    rule(
        file[end as usize..].iter().all(|byte| *byte == 0),
        "padding",
    )?;
    let order: Vec<(usize, u64)> = sections
        .iter()
        .filter(|s| s.kind < 99)
        .map(|s| (s.kind, (s.network + 1) & 0xffff_ffff))
        .collect();
    rule(
        order.windows(2).all(|pair| pair[0] < pair[1]),
        "section_order",
    )?;
    let count = |kind: usize| order.iter().filter(|section| section.0 == kind).count();
    let networks = count(1);
    rule(
        order.iter().all(|section| section.1 <= networks as u64),
        "section_owner",
    )?;
    let complete = count(0) == 1 && networks >= 1 && count(3) == networks && count(4) == networks;
    rule(complete, "section_missing")?;
    for (section, entry) in sections.iter().zip(file[32..].chunks(32)) {
        if section.kind < 2 {
            rule(
                crc(section.bytes) as u64 == number(entry, 28, 4),
                "section_checksum",
            )?;
        }
    }
    let mut result = File {
        networks: Vec::new(),
        texts: Vec::new(),
        pipeline: None,
        blocks: Vec::new(),
    };
    let mut tables: Vec<Table> = Vec::new();
    let mut names = HashSet::new();
    let of = |kind: usize, network: usize| {
        sections
            .iter()
            .find(|s| s.kind == kind && s.network == network as u64)
            .map(|s| s.bytes)
            .ok_or("section_missing")
    };
    for section in sections.iter() {
        let mut f = Fields {
            bytes: section.bytes,
        };
        match section.kind {
            0 => {
                for _ in 0..f.uint()? {
                    let width = f.u8()?;
                    let (lengths, used) = codec::parse_table(f.bytes).ok_or("code_table")?;
                    let fits = (width == 11 || width == 12)
                        && lengths.iter().all(|length| *length <= width);
                    rule(fits, "table_width")?;
                    f.take(used)?;
                    tables.push((lengths, width));
                }
                f.end()?;
            }
            1 => {
                let mut network = read_graph(&mut f, &tables)?;
                f.end()?;
                rule(names.insert(network.name.clone()), "duplicate_name")?;
                let constants = read_constants(&mut network, of(3, result.networks.len())?)?;
                let weights = read_weights(&mut network, of(4, result.networks.len())?, &tables)?;
                result.networks.push(Decoded {
                    network,
                    constants,
                    weights,
                });
            }
            2 => {
                for _ in 0..f.uint()? {
                    let (name, text) = (f.text()?, f.text()?);
                    rule(!name.is_empty(), "empty_name")?;
                    result.texts.push((name, text));
                }
                f.end()?;
            }
            5 => {
                let pipeline = read_pipeline(&mut f)?;
                f.end()?;
                check_pipeline(&pipeline, networks)?;
                result.pipeline = Some(pipeline);
            }
            6 => {
                let net = section.network as usize;
                let layers = result.networks[net].network.layers.len();
                let mut shares = Vec::new();
                for _ in 0..layers {
                    shares.push([f.u8()?, f.u8()?]);
                }
                f.end()?;
                result.blocks.push((net, shares));
            }
            _ => {}
        }
    }
    for (section, entry) in sections.iter().zip(file[32..].chunks(32)) {
        rule(
            crc(section.bytes) as u64 == number(entry, 28, 4),
            "section_checksum",
        )?;
    }
    Ok(result)
}

/// Section 7.
fn read_pipeline(f: &mut Fields<'_>) -> R<Pipeline> {
    let count = f.uint64()?;
    let stage = |f: &mut Fields<'_>, at: u64| -> R<u8> {
        rule(at < count, "pipeline")?;
        let tag = f.u8()?;
        rule(tag < 5, "unknown_stage")?;
        rule(u64::from(tag) == at || (at, tag) == (1, 4), "pipeline")?;
        Ok(tag)
    };
    stage(f, 0)?;
    let detect = Detect {
        network: f.uint()?,
        pixels: read_pixels(f)?,
        size: match f.tag(2)? {
            0 => InputSize::Native,
            _ => InputSize::LongestSide(f.uint()?),
        },
        multiple: f.uint()?,
        strides: f.list(|f| f.uint())?,
        score: f.f32()?,
        nms: f.f32()?,
        max_faces: f.uint()?,
    };
    let tag = stage(f, 1)?;
    let mut align = Align {
        size: f.pair()?,
        template: [point(f)?, point(f)?, point(f)?, point(f)?, point(f)?],
        weights: [1.0; 5],
    };
    if tag == 4 {
        for weight in &mut align.weights {
            *weight = f.f32()?;
        }
    }
    stage(f, 2)?;
    let embed = Embed {
        network: f.uint()?,
        pixels: read_pixels(f)?,
    };
    stage(f, 3)?;
    let compare = Compare {
        metric: [Metric::Cosine, Metric::Euclidean][f.tag(2)? as usize],
        threshold: f.option(|f| f.f32())?,
        fpr: f.option(|f| f.f32())?,
    };
    if count > 4 {
        rule(f.u8()? < 5, "unknown_stage")?;
        return Err("pipeline");
    }
    Ok(Pipeline {
        detect,
        align,
        embed,
        compare,
    })
}

fn point(f: &mut Fields<'_>) -> R<[f32; 2]> {
    Ok([f.f32()?, f.f32()?])
}

fn read_pixels(f: &mut Fields<'_>) -> R<Pixels> {
    Ok(Pixels {
        channels: [ChannelOrder::Rgb, ChannelOrder::Bgr, ChannelOrder::Gray][f.tag(3)? as usize],
        mean: f.three()?,
        scale: f.three()?,
    })
}

fn check_pipeline(p: &Pipeline, networks: usize) -> R<()> {
    let (d, c) = (&p.detect, &p.compare);
    let known = |network: u32| (network as usize) < networks;
    rule(known(d.network) && known(p.embed.network), "id_range")?;
    for pixels in [&d.pixels, &p.embed.pixels] {
        finite(&pixels.mean)?;
        finite(&pixels.scale)?;
    }
    finite(&p.align.template.concat())?;
    finite(&p.align.weights)?;
    finite(&c.threshold.into_iter().collect::<Vec<_>>())?;
    let mut sides = vec![d.multiple, p.align.size[0], p.align.size[1]];
    if let InputSize::LongestSide(side) = d.size {
        sides.push(side);
    }
    rule(sides.iter().all(|s| *s >= 1 && *s <= 65_536), "pipeline")?;
    let weights = &p.align.weights;
    let positive = weights.iter().filter(|w| **w > 0.0).count();
    rule(
        positive >= 2 && weights.iter().all(|w| *w >= 0.0),
        "pipeline",
    )?;
    let n = d.strides.len();
    rule(n >= 1 && n <= 8, "pipeline")?;
    for (i, stride) in d.strides.iter().enumerate() {
        rule(*stride > 0 && d.multiple % stride == 0, "pipeline")?;
        rule(i == 0 || d.strides[i - 1] < *stride, "pipeline")?;
    }
    for share in [d.score, d.nms, c.fpr.unwrap_or(0.0)] {
        rule(share >= 0.0 && share <= 1.0, "pipeline")?;
    }
    rule(d.max_faces >= 1 && d.max_faces <= 65_536, "pipeline")
}

/// Section 2.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, n: usize) -> R<&'a [u8]> {
        rule(n <= self.bytes.len(), "record_truncated")?;
        let (taken, rest) = self.bytes.split_at(n);
        self.bytes = rest;
        Ok(taken)
    }
    fn end(&self) -> R<()> {
        rule(self.bytes.is_empty(), "record_trailing")
    }
    fn u8(&mut self) -> R<u8> {
        Ok(self.take(1)?[0])
    }
    fn u32(&mut self) -> R<u32> {
        Ok(number(self.take(4)?, 0, 4) as u32)
    }
    fn f32(&mut self) -> R<f32> {
        self.u32().map(f32::from_bits)
    }
    fn f32s(&mut self, n: usize) -> R<Vec<f32>> {
        (0..n).map(|_| self.f32()).collect()
    }
    fn uint64(&mut self) -> R<u64> {
        let mut groups = Vec::new();
        loop {
            let byte = self.u8()?;
            groups.push(byte & 127);
            if byte < 128 {
                break;
            }
        }
        rule(
            groups.len() == 1 || groups.last() != Some(&0),
            "bad_integer",
        )?;
        rule(
            groups.len() < 10 || (groups.len() == 10 && groups[9] <= 1),
            "bad_integer",
        )?;
        Ok(groups
            .iter()
            .rev()
            .fold(0, |value, group| value << 7 | u64::from(*group)))
    }
    fn uint(&mut self) -> R<u32> {
        self.uint64()?.try_into().map_err(|_| "bad_integer")
    }
    fn sint(&mut self) -> R<i32> {
        let z = i64::from(self.uint()?);
        Ok((if z % 2 == 0 { z / 2 } else { -(z + 1) / 2 }) as i32)
    }
    fn bool(&mut self) -> R<bool> {
        Ok(self.tag(2)? == 1)
    }
    fn tag(&mut self, below: u8) -> R<u8> {
        let tag = self.u8()?;
        rule(tag < below, "bad_tag")?;
        Ok(tag)
    }
    fn text(&mut self) -> R<String> {
        let n = self.uint()? as usize;
        String::from_utf8(self.take(n)?.to_vec()).map_err(|_| "bad_text")
    }
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> R<T>) -> R<Vec<T>> {
        let n = self.uint()?;
        let mut items = Vec::new();
        for _ in 0..n {
            items.push(item(self)?);
        }
        Ok(items)
    }
    fn option<T>(&mut self, item: impl FnOnce(&mut Self) -> R<T>) -> R<Option<T>> {
        if self.bool()? {
            Ok(Some(item(self)?))
        } else {
            Ok(None)
        }
    }
    fn id(&mut self) -> R<Option<u32>> {
        Ok(self.uint()?.checked_sub(1))
    }
    fn pair(&mut self) -> R<[u32; 2]> {
        Ok([self.uint()?, self.uint()?])
    }
    fn three(&mut self) -> R<[f32; 3]> {
        Ok([self.f32()?, self.f32()?, self.f32()?])
    }
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> R<()> {
    let mut seen = HashSet::new();
    for name in names {
        rule(!name.is_empty(), "empty_name")?;
        rule(seen.insert(name), "duplicate_name")?;
    }
    Ok(())
}

fn finite(values: &[f32]) -> R<()> {
    rule(values.iter().all(|value| value.is_finite()), "not_finite")
}

/// Section 3.
fn read_graph(f: &mut Fields<'_>, tables: &[Table]) -> R<Network> {
    let mut network = Network {
        name: f.text()?,
        ..Network::default()
    };
    network.symbols = f.list(|f| {
        Ok(Symbol {
            name: f.text()?,
            min: f.uint()?,
            max: f.uint()?,
            multiple: f.uint()?,
            default: f.uint()?,
        })
    })?;
    network.tensors = f.list(|f| {
        Ok(Tensor {
            name: f.text()?,
            dims: f.list(|f| {
                let d = f.uint64()?;
                let half = u32::try_from(d / 2).map_err(|_| "bad_integer")?;
                Ok(if d % 2 == 0 {
                    Dim::Fixed(half)
                } else {
                    Dim::Symbol(SymbolId(half))
                })
            })?,
            quant: f.option(|f| {
                let (signed, axis, n) = (f.bool()?, f.option(|f| f.u8())?, f.uint()? as usize);
                let scales = f.f32s(n)?;
                let mut zero_points = Vec::new();
                for _ in 0..n {
                    zero_points.push(f.sint()?.try_into().map_err(|_| "activation_quant")?);
                }
                Ok(ActivationQuant {
                    signed,
                    axis,
                    scales,
                    zero_points,
                })
            })?,
        })
    })?;
    network.inputs = f.list(|f| f.uint().map(TensorId))?;
    network.outputs = f.list(|f| {
        let tensor = TensorId(f.uint()?);
        let meaning = match f.tag(3)? {
            0 => Meaning::Unknown,
            1 => Meaning::Embedding {
                metric: [Metric::Cosine, Metric::Euclidean][f.tag(2)? as usize],
                threshold: f.option(|f| f.f32())?,
            },
            _ => Meaning::Classes {
                labels: f.list(|f| f.text())?,
            },
        };
        Ok(Output { tensor, meaning })
    })?;
    network.constants = f.list(|f| {
        Ok(Constant {
            name: f.text()?,
            dims: f.list(|f| f.uint())?,
            precision: [Precision::F16, Precision::F32][f.tag(2)? as usize],
            crc: f.u32()?,
            offset: 0,
        })
    })?;
    network.layers = f.list(read_layer)?;
    network.nodes = f.list(|f| {
        Ok(Node {
            name: f.text()?,
            op: read_op(f)?,
            inputs: f.list(|f| f.uint().map(TensorId))?,
            output: TensorId(f.uint()?),
        })
    })?;
    network.preprocess = f.option(read_preprocess)?;
    network.self_test = f.option(read_self_test)?;
    network.provenance = Provenance {
        source: f.text()?,
        producer: f.text()?,
        licence: f.text()?,
    };
    check_graph(&network)?;
    for layer in &network.layers {
        check_layer(layer, tables)?;
    }
    Ok(network)
}

fn check_graph(network: &Network) -> R<()> {
    rule(!network.name.is_empty(), "empty_name")?;
    names(network.symbols.iter().map(|x| &x.name))?;
    names(network.tensors.iter().map(|x| &x.name))?;
    names(network.layers.iter().map(|x| &x.name))?;
    let others = network
        .nodes
        .iter()
        .map(|x| &x.name)
        .chain(network.constants.iter().map(|x| &x.name));
    for name in others {
        rule(!name.is_empty(), "empty_name")?;
    }
    for s in &network.symbols {
        let ok = 1 <= s.min && s.min <= s.max && s.max <= 1 << 24 && s.multiple >= 1;
        rule(
            ok && s.min <= s.default && s.default <= s.max && s.default % s.multiple == 0,
            "symbol_range",
        )?;
    }
    for tensor in &network.tensors {
        for dim in &tensor.dims {
            match dim {
                Dim::Fixed(size) => rule(1 <= *size && *size <= 1 << 24, "tensor_dims")?,
                Dim::Symbol(id) => rule((id.0 as usize) < network.symbols.len(), "id_range")?,
            }
        }
        if let Some(q) = &tensor.quant {
            let n = q.scales.len();
            let count = if q.axis.is_some() { n >= 1 } else { n == 1 };
            let scales = q.scales.iter().all(|s| s.is_finite() && *s > 0.0);
            let (low, high) = if q.signed { (-128, 127) } else { (0, 255) };
            let zeros = q.zero_points.iter().all(|z| low <= *z && *z <= high);
            rule(
                count && scales && zeros && q.axis.is_none_or(|axis| axis < 6),
                "activation_quant",
            )?;
        }
    }
    for constant in &network.constants {
        rule(
            constant.dims.len() <= 6 && constant.dims.iter().all(|dim| *dim > 0),
            "constant_shape",
        )?;
    }
    // What is known so far: graph inputs, then the outputs of nodes.
    let tensors = network.tensors.len() as u32;
    let mut known: Vec<TensorId> = Vec::new();
    rule(!network.inputs.is_empty(), "network_ports")?;
    for id in &network.inputs {
        rule(id.0 < tensors, "id_range")?;
        rule(!known.contains(id), "network_ports")?;
        let rank = network.tensors[id.0 as usize].dims.len();
        rule(1 <= rank && rank <= 6, "tensor_dims")?;
        known.push(*id);
    }
    for node in &network.nodes {
        let n = node.inputs.len();
        let arity = match node.op {
            Op::Binary(_) => n == 2,
            Op::Concat { .. } => 1 <= n && n <= 1024,
            _ => n == 1,
        };
        rule(arity, "arity")?;
        for id in &node.inputs {
            rule(id.0 < tensors, "id_range")?;
            rule(known.contains(id), "node_order")?;
        }
        rule(node.output.0 < tensors, "id_range")?;
        rule(!known.contains(&node.output), "tensor_written_twice")?;
        rule(
            network.tensors[node.output.0 as usize].dims.is_empty(),
            "tensor_dims",
        )?;
        known.push(node.output);
        check_op(network, &node.op)?;
    }
    rule(known.len() == network.tensors.len(), "tensor_unwritten")?;
    rule(!network.outputs.is_empty(), "network_ports")?;
    for (i, output) in network.outputs.iter().enumerate() {
        rule(output.tensor.0 < tensors, "id_range")?;
        rule(
            network.outputs[..i]
                .iter()
                .all(|other| other.tensor != output.tensor),
            "network_ports",
        )?;
        if let Meaning::Embedding {
            threshold: Some(threshold),
            ..
        } = output.meaning
        {
            finite(&[threshold])?;
        }
    }
    if let Some(p) = &network.preprocess {
        finite(&p.mean)?;
        finite(&p.scale)?;
        let size = p.size.iter().all(|side| 1 <= *side && *side <= 65536);
        let short = match p.resize {
            ResizeRule::CenterCrop { short } => {
                short >= p.size[0] && short >= p.size[1] && short <= 65536
            }
            _ => true,
        };
        rule(size && short, "preprocess")?;
    }
    if let Some(test) = &network.self_test {
        finite(&test.range)?;
        rule(test.range[0] <= test.range[1], "self_test")?;
        rule(test.expected.len() == network.outputs.len(), "self_test")?;
        for e in &test.expected {
            finite(&[e.max_abs, e.norm])?;
            finite(&e.samples)?;
            let n = e.samples.len();
            rule(1 <= n && n <= 64 && n <= e.len as usize, "self_test")?;
            rule(e.max_abs >= 0.0 && e.norm >= 0.0, "self_test")?;
            rule(
                e.samples.iter().all(|sample| sample.abs() <= e.max_abs),
                "self_test",
            )?;
        }
    }
    Ok(())
}

fn read_op(f: &mut Fields<'_>) -> R<Op> {
    let bias = |f: &mut Fields<'_>| -> R<Option<ConstId>> { Ok(f.id()?.map(ConstId)) };
    let kinds = [PoolKind::Max, PoolKind::Average];
    let binary = [
        BinaryKind::Add,
        BinaryKind::Sub,
        BinaryKind::Mul,
        BinaryKind::Div,
    ];
    Ok(match f.tag(16)? {
        0 => Op::Conv(Conv {
            layer: LayerId(f.uint()?),
            bias: bias(f)?,
            strides: f.pair()?,
            dilations: f.pair()?,
            pads: read_pads(f)?,
        }),
        1 => Op::Linear {
            layer: LayerId(f.uint()?),
            bias: bias(f)?,
        },
        2 => Op::Activation(match f.tag(11)? {
            0 => Activation::Relu,
            1 => Activation::LeakyRelu { alpha: f.f32()? },
            2 => Activation::Clip {
                min: f.f32()?,
                max: f.f32()?,
            },
            3 => Activation::Sigmoid,
            4 => Activation::HardSigmoid {
                alpha: f.f32()?,
                beta: f.f32()?,
            },
            5 => Activation::HardSwish,
            6 => Activation::Mish,
            7 => Activation::Silu,
            8 => Activation::Tanh,
            9 => Activation::Sqrt,
            _ => Activation::Exp,
        }),
        3 => Op::Prelu {
            slope: ConstId(f.uint()?),
        },
        4 => Op::Binary(binary[f.tag(4)? as usize]),
        5 => Op::BinaryConst {
            kind: binary[f.tag(4)? as usize],
            constant: ConstId(f.uint()?),
            constant_first: f.bool()?,
        },
        6 => Op::Pool(Pool {
            kind: kinds[f.tag(2)? as usize],
            kernel: f.pair()?,
            strides: f.pair()?,
            dilations: f.pair()?,
            pads: read_pads(f)?,
            ceil_mode: f.bool()?,
            count_include_pad: f.bool()?,
        }),
        7 => Op::GlobalPool(kinds[f.tag(2)? as usize]),
        8 => Op::Pad {
            amounts: f.list(|f| Ok((f.uint()?, f.uint()?)))?,
            value: f.f32()?,
        },
        9 => Op::Concat { axis: f.u8()? },
        10 => Op::Reshape {
            dims: f.list(|f| {
                Ok(match f.tag(3)? {
                    0 => ReshapeDim::Fixed(f.uint()?),
                    1 => ReshapeDim::Input {
                        from: f.u8()?,
                        to: f.u8()?,
                    },
                    _ => ReshapeDim::Rest,
                })
            })?,
        },
        11 => Op::Transpose {
            perm: f.list(|f| f.u8())?,
        },
        12 => Op::Slice {
            ranges: f.list(|f| {
                Ok(SliceRange {
                    axis: f.u8()?,
                    start_from_end: f.bool()?,
                    start: f.uint()?,
                    end_from_end: f.bool()?,
                    end: f.uint()?,
                    step: f.uint()?,
                })
            })?,
        },
        13 => Op::Resize(Resize {
            mode: [
                ResizeMode::NearestFloor,
                ResizeMode::NearestCeil,
                ResizeMode::NearestPreferFloor,
                ResizeMode::NearestPreferCeil,
                ResizeMode::Linear,
            ][f.tag(5)? as usize],
            coordinates: [
                ResizeCoordinates::Asymmetric,
                ResizeCoordinates::HalfPixel,
                ResizeCoordinates::PytorchHalfPixel,
                ResizeCoordinates::AlignCorners,
            ][f.tag(4)? as usize],
            size: match f.tag(2)? {
                0 => ResizeSize::Scales([f.f32()?, f.f32()?]),
                _ => ResizeSize::Fixed(f.pair()?),
            },
        }),
        14 => Op::Softmax {
            axis: f.u8()?,
            axis_end: f.u8()?,
        },
        _ => Op::LpNormalize {
            axis: f.u8()?,
            p: f.u8()?,
            epsilon: f.f32()?,
        },
    })
}

fn read_pads(f: &mut Fields<'_>) -> R<Pads> {
    Ok(match f.tag(3)? {
        0 => Pads::Explicit([f.uint()?, f.uint()?, f.uint()?, f.uint()?]),
        1 => Pads::SameUpper,
        _ => Pads::SameLower,
    })
}

fn check_op(network: &Network, op: &Op) -> R<()> {
    let attribute = |holds: bool| rule(holds, "attribute");
    let side = |v: &[u32]| v.iter().all(|v| 1 <= *v && *v <= 65536);
    let listed = |n: usize| 1 <= n && n <= 6;
    let constant = |id: &ConstId| network.constants.get(id.0 as usize).ok_or("id_range");
    let layer = |id: &LayerId| network.layers.get(id.0 as usize).ok_or("id_range");
    let bias = |id: &Option<ConstId>, channels: u32| match id {
        None => Ok(()),
        Some(id) => {
            let n = constant(id)?
                .dims
                .iter()
                .map(|dim| u128::from(*dim))
                .product::<u128>();
            rule(n == u128::from(channels), "constant_shape")
        }
    };
    let amounts = |pads: &Pads| match pads {
        Pads::Explicit(amounts) => amounts.iter().all(|amount| *amount <= 65536),
        _ => true,
    };
    match op {
        Op::Conv(conv) => {
            let shape = layer(&conv.layer)?.shape;
            bias(&conv.bias, shape.out_channels)?;
            attribute(
                side(&conv.strides)
                    && side(&conv.dilations)
                    && side(&shape.kernel)
                    && amounts(&conv.pads),
            )
        }
        Op::Linear { layer: id, bias: b } => {
            let shape = layer(id)?.shape;
            rule(shape.kernel == [1, 1] && shape.groups == 1, "layer_use")?;
            bias(b, shape.out_channels)
        }
        Op::Activation(activation) => attribute(match activation {
            Activation::LeakyRelu { alpha } => alpha.is_finite(),
            Activation::Clip { min, max } => min <= max,
            Activation::HardSigmoid { alpha, beta } => alpha.is_finite() && beta.is_finite(),
            _ => true,
        }),
        Op::Prelu { slope } => constant(slope).map(|_| ()),
        Op::BinaryConst { constant: id, .. } => constant(id).map(|_| ()),
        Op::Binary(_) | Op::GlobalPool(_) => Ok(()),
        Op::Pool(pool) => {
            attribute(
                side(&pool.kernel)
                    && side(&pool.strides)
                    && side(&pool.dilations)
                    && amounts(&pool.pads),
            )?;
            let window =
                |i: usize| (u64::from(pool.kernel[i]) - 1) * u64::from(pool.dilations[i]) + 1;
            match pool.pads {
                Pads::Explicit(amounts) => {
                    attribute((0..4).all(|i| u64::from(amounts[i]) < window(i % 2)))
                }
                _ => Ok(()),
            }
        }
        Op::Pad { amounts, value } => {
            attribute(listed(amounts.len()) && !value.is_nan())?;
            attribute(
                amounts
                    .iter()
                    .all(|pair| pair.0 <= 65536 && pair.1 <= 65536),
            )
        }
        Op::Concat { axis } => attribute(*axis < 6),
        Op::Reshape { dims } => {
            attribute(listed(dims.len()))?;
            attribute(
                dims.iter()
                    .filter(|dim| matches!(dim, ReshapeDim::Rest))
                    .count()
                    <= 1,
            )?;
            attribute(dims.iter().all(|dim| match dim {
                ReshapeDim::Fixed(size) => 1 <= *size && *size < 1 << 31,
                ReshapeDim::Input { from, to } => from < to && *to <= 6,
                ReshapeDim::Rest => true,
            }))
        }
        Op::Transpose { perm } => {
            let mut sorted = perm.clone();
            sorted.sort();
            attribute(
                listed(perm.len())
                    && sorted
                        .iter()
                        .enumerate()
                        .all(|(i, axis)| i == *axis as usize),
            )
        }
        Op::Slice { ranges } => {
            let axes: HashSet<u8> = ranges.iter().map(|range| range.axis).collect();
            attribute(listed(ranges.len()) && axes.len() == ranges.len())?;
            attribute(ranges.iter().all(|range| range.axis < 6 && range.step >= 1))
        }
        Op::Resize(resize) => attribute(match resize.size {
            ResizeSize::Scales(scales) => scales.iter().all(|s| s.is_finite() && *s > 0.0),
            ResizeSize::Fixed(size) => size.iter().all(|s| 1 <= *s && *s <= 1 << 24),
        }),
        Op::Softmax { axis, axis_end } => attribute(axis < axis_end && *axis_end <= 6),
        Op::LpNormalize { axis, p, epsilon } => {
            attribute(*axis < 6 && (*p == 1 || *p == 2) && epsilon.is_finite() && *epsilon >= 0.0)
        }
    }
}

fn read_preprocess(f: &mut Fields<'_>) -> R<Preprocess> {
    Ok(Preprocess {
        size: f.pair()?,
        channels: [ChannelOrder::Rgb, ChannelOrder::Bgr, ChannelOrder::Gray][f.tag(3)? as usize],
        mean: f.three()?,
        scale: f.three()?,
        resize: match f.tag(3)? {
            0 => ResizeRule::Stretch,
            1 => ResizeRule::Letterbox { fill: f.u8()? },
            _ => ResizeRule::CenterCrop { short: f.uint()? },
        },
        filter: [Filter::Bilinear, Filter::Nearest][f.tag(2)? as usize],
    })
}

fn read_self_test(f: &mut Fields<'_>) -> R<SelfTest> {
    let before = f.bytes.len();
    f.tag(1)?;
    let seed = number(f.take(8)?, 0, 8);
    let range = [f.f32()?, f.f32()?];
    let expected = f.list(|f| {
        let (len, max_abs, norm, n) = (f.uint()?, f.f32()?, f.f32()?, f.uint()?);
        Ok(Expected {
            len,
            max_abs,
            norm,
            samples: f.f32s(n as usize)?,
        })
    })?;
    rule(before - f.bytes.len() <= 1024, "self_test_size")?;
    Ok(SelfTest {
        generator: Generator::SplitMix64,
        seed,
        range,
        expected,
    })
}

/// Section 4.
fn read_constants(network: &mut Network, section: &[u8]) -> R<Vec<Vec<f32>>> {
    let mut end = 0u64;
    let mut all = Vec::new();
    let mut gaps = Vec::new();
    for constant in &mut network.constants {
        let n = constant
            .dims
            .iter()
            .map(|dim| u64::from(*dim))
            .product::<u64>();
        let start = align(end, 4);
        gaps.push(end..start);
        constant.offset = start;
        end = start
            + n * if constant.precision == Precision::F16 {
                2
            } else {
                4
            };
    }
    rule(end == section.len() as u64, "constants_tiling")?;
    for (constant, gap) in network.constants.iter().zip(gaps) {
        rule(
            section[gap.start as usize..gap.end as usize]
                .iter()
                .all(|byte| *byte == 0),
            "padding",
        )?;
        let n = constant.dims.iter().product::<u32>() as usize;
        let bytes = &section[constant.offset as usize..];
        let (len, half) = if constant.precision == Precision::F16 {
            (2 * n, true)
        } else {
            (4 * n, false)
        };
        rule(crc(&bytes[..len]) == constant.crc, "constant_checksum")?;
        let values: Vec<f32> = (0..n).map(|i| value_at(bytes, i, half)).collect();
        finite(&values)?;
        all.push(values);
    }
    Ok(all)
}

fn value_at(bytes: &[u8], i: usize, half: bool) -> f32 {
    if !half {
        return f32::from_bits(number(bytes, 4 * i, 4) as u32);
    }
    let bits = number(bytes, 2 * i, 2) as u32;
    let (sign, exponent, fraction) = (bits >> 15, bits >> 10 & 31, bits & 1023);
    let magnitude = match exponent {
        0 => fraction as f64 * 2f64.powi(-24),
        31 if fraction == 0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024 + fraction) as f64 * 2f64.powi(exponent as i32 - 25),
    };
    (if sign == 1 { -magnitude } else { magnitude }) as f32
}

/// Section 5.1; tiles keep what is stored, the rest is derived below.
fn read_layer(f: &mut Fields<'_>) -> R<Layer> {
    let name = f.text()?;
    let (out_channels, in_per_group) = (f.uint()?, f.uint()?);
    let shape = LayerShape {
        out_channels,
        in_per_group,
        kernel: f.pair()?,
        groups: f.uint()?,
    };
    let dims = [
        out_channels,
        in_per_group,
        shape.kernel[0],
        shape.kernel[1],
        shape.groups,
    ];
    rule(
        dims.iter().all(|dim| 1 <= *dim && *dim <= 1 << 24),
        "layer_shape",
    )?;
    rule(out_channels % shape.groups == 0, "layer_shape")?;
    let k = dims[1..4]
        .iter()
        .map(|dim| u128::from(*dim))
        .product::<u128>();
    rule(k <= 1 << 24, "layer_shape")?;
    let k = k as usize;
    let k_order = [KOrder::ChannelMajor, KOrder::TapMajor][f.tag(2)? as usize];
    let zero_code = |f: &mut Fields<'_>| -> R<Option<u8>> {
        match f.id()? {
            None => Ok(None),
            Some(code) => u8::try_from(code).map(Some).map_err(|_| "zero_code"),
        }
    };
    let values = match f.tag(5)? {
        0 => Values::Raw32,
        1 => Values::Raw16,
        2 => {
            let n = f.uint()?;
            rule(1 <= n && n <= 256, "codebook")?;
            Values::Codebook {
                values: f.f32s(n as usize)?,
                zero_code: zero_code(f)?,
            }
        }
        3 => Values::Minmax {
            min: f.f32()?,
            delta: f.f32()?,
            bits: f.u8()?,
            zero_code: zero_code(f)?,
        },
        _ => Values::Grid {
            steps: match f.tag(3)? {
                0 => Steps::Layer(f.f32()?),
                1 => Steps::Channel(f.f32s(out_channels as usize)?),
                _ => {
                    let len = f.uint()?;
                    rule(len >= 1, "steps")?;
                    Steps::Block {
                        len,
                        steps: f.f32s(k.div_ceil(len as usize) * out_channels as usize)?,
                    }
                }
            },
        },
    };
    let index = match f.tag(5)? {
        0 => Index::Raw,
        1 => Index::Dense {
            values: TableId(f.uint()?),
        },
        2 => Index::Mask {
            mask: f.id()?.map(TableId),
            values: TableId(f.uint()?),
        },
        3 => Index::Gaps {
            bits: f.u8()?,
            gaps: TableId(f.uint()?),
            values: TableId(f.uint()?),
        },
        _ => Index::Classes(read_classes(f, k)?),
    };
    let (max_abs_q, symmetric_i8) = (f.u8()?, f.bool()?);
    let q_sums = f.list(|f| f.sint())?;
    let tiles = f.list(|f| {
        Ok(Tile {
            panels: f.uint()?,
            k_len: f.uint()?,
            len: f.uint()?,
            present: f.uint()?,
            max_abs_q: f.u8()?,
            crc: f.u32()?,
            panel: 0,
            k: 0,
            offset: 0,
        })
    })?;
    let record = CompressionRecord {
        zeros: f.uint64()?,
        value_bits: f.u8()?,
        index_bits: f.u8()?,
        fillers: f.uint64()?,
        value_payload_bits: f.uint64()?,
        value_table_bits: f.uint64()?,
        index_payload_bits: f.uint64()?,
        index_table_bits: f.uint64()?,
        cosine: f.f32()?,
        max_error: f.f32()?,
    };
    let mut layer = Layer {
        name,
        shape,
        k_order,
        values,
        index,
        max_abs_q,
        symmetric_i8,
        q_sums,
        tiles,
        record,
    };
    // Section 5.2: the place of each tile.
    let panels = panels(&shape);
    let (mut panel, mut at) = (0u64, 0u64);
    for tile in &mut layer.tiles {
        (tile.panel, tile.k) = (panel as u32, at as u32);
        let whole = at == 0 && tile.k_len as usize == k;
        rule(whole || tile.panels == 1, "tile_coverage")?;
        at += u64::from(tile.k_len);
        rule(
            at <= k as u64 && panel + u64::from(tile.panels) <= panels.len() as u64,
            "tile_coverage",
        )?;
        if at == k as u64 {
            (panel, at) = (panel + u64::from(tile.panels), 0);
        }
    }
    rule(panel == panels.len() as u64 && at == 0, "tile_coverage")?;
    Ok(layer)
}

/// Section 5.1, Index 4.
fn read_classes(f: &mut Fields<'_>, k: usize) -> R<Classes> {
    let count = f.uint()?;
    rule(1 <= count && count <= 8, "classes")?;
    let mut classes = Vec::new();
    for _ in 0..count {
        let tag = f.tag(4)?;
        let values = |f: &mut Fields<'_>| -> R<ValueCode> {
            let (table, group) = (TableId(f.uint()?), f.u8()?);
            let (mut alphabet, mut escape) = (Vec::new(), false);
            if group > 1 {
                alphabet = f.list(|f| f.u8())?;
                escape = f.bool()?;
            }
            Ok(ValueCode {
                table,
                group,
                alphabet,
                escape,
            })
        };
        classes.push(match tag {
            0 => Class::Empty,
            1 => Class::Dense { values: values(f)? },
            2 => Class::Mask {
                mask: TableId(f.uint()?),
                values: values(f)?,
            },
            _ => Class::Rows {
                rows: TableId(f.uint()?),
                mask: TableId(f.uint()?),
                values: values(f)?,
            },
        });
    }
    if count == 1 {
        return Ok(Classes {
            classes,
            block: k as u32,
            map: vec![],
        });
    }
    let block = f.uint()?;
    rule(1 <= block && block as usize <= k, "classes")?;
    let blocks = k.div_ceil(block as usize);
    let (map, used) = codec::parse_map(f.bytes, blocks, count as usize).ok_or("class_map")?;
    f.bytes = &f.bytes[used..];
    let map: Vec<u8> = map.into_iter().map(|class| class as u8).collect();
    Ok(Classes {
        classes,
        block,
        map,
    })
}

/// Section 5.1: the code of the values of a class.
fn check_value_code(values: &ValueCode, tables: &[Table]) -> R<()> {
    let group = u32::from(values.group);
    rule(1 <= group && group <= 4, "value_group")?;
    if group == 1 {
        return Ok(());
    }
    let base = values.alphabet.len() + usize::from(values.escape);
    let distinct: HashSet<u8> = values.alphabet.iter().copied().collect();
    rule(distinct.len() == values.alphabet.len(), "value_group")?;
    rule(base >= 2 && base.pow(group) <= 256, "value_group")?;
    let beyond = &tables[values.table.0 as usize].0[base.pow(group)..];
    rule(beyond.iter().all(|length| *length == 0), "value_group")
}

/// The output channels of each panel.
fn panels(shape: &LayerShape) -> Vec<Vec<u32>> {
    let all: Vec<u32> = (0..shape.out_channels).collect();
    let depthwise = shape.in_per_group == 1 && shape.groups > 1;
    let group = if depthwise {
        shape.out_channels
    } else {
        shape.out_channels / shape.groups
    };
    all.chunks(group as usize)
        .flat_map(|group| group.chunks(8))
        .map(|panel| panel.to_vec())
        .collect()
}

fn zero_symbol(values: &Values) -> Option<u8> {
    match values {
        Values::Raw32 | Values::Raw16 => None,
        Values::Grid { .. } => Some(0),
        Values::Codebook {
            zero_code: Some(code),
            ..
        }
        | Values::Minmax {
            zero_code: Some(code),
            ..
        } => Some(*code),
        Values::Codebook { values, .. } if values.len() < 256 => Some(values.len() as u8),
        Values::Minmax { bits, .. } if *bits < 8 => Some(1 << bits),
        _ => None,
    }
}

fn check_layer(layer: &Layer, tables: &[Table]) -> R<()> {
    let k = layer.shape.in_per_group * layer.shape.kernel[0] * layer.shape.kernel[1];
    let positive = |steps: &[f32]| steps.iter().all(|step| step.is_finite() && *step > 0.0);
    match &layer.values {
        Values::Raw32 | Values::Raw16 => {}
        Values::Codebook { values, zero_code } => {
            finite(values)?;
            let zero = |value: &f32| value.to_bits() == 0;
            rule(
                match zero_code {
                    Some(code) => values.get(*code as usize).is_some_and(zero),
                    None => !values.iter().any(zero),
                },
                "zero_code",
            )?;
        }
        Values::Minmax {
            min,
            delta,
            bits,
            zero_code,
        } => {
            rule(1 <= *bits && *bits <= 8, "value_bits")?;
            finite(&[*min, *delta, min + ((1 << bits) - 1) as f32 * delta])?;
            rule(*delta >= 0.0, "steps")?;
            rule(
                zero_code.is_none_or(|code| u32::from(code) < 1 << bits),
                "zero_code",
            )?;
        }
        Values::Grid {
            steps: Steps::Layer(step),
        } => rule(positive(&[*step]), "steps")?,
        Values::Grid {
            steps: Steps::Channel(steps) | Steps::Block { steps, .. },
        } => rule(positive(steps), "steps")?,
    }
    let raw = matches!(layer.values, Values::Raw32 | Values::Raw16);
    rule(raw == matches!(layer.index, Index::Raw), "index_mode")?;
    let used = match &layer.index {
        Index::Raw => vec![],
        Index::Dense { values } => vec![*values],
        Index::Mask { mask, values } => mask.iter().chain([values]).copied().collect(),
        Index::Gaps { bits, gaps, values } => {
            rule(2 <= *bits && *bits <= 8, "gap_bits")?;
            rule(zero_symbol(&layer.values).is_some(), "index_mode")?;
            vec![*gaps, *values]
        }
        Index::Classes(classes) => {
            rule(zero_symbol(&layer.values).is_some(), "index_mode")?;
            let mut used = vec![];
            for class in &classes.classes {
                used.extend(match class {
                    Class::Empty => vec![],
                    Class::Dense { values } => vec![values.table],
                    Class::Mask { mask, values } => vec![*mask, values.table],
                    Class::Rows { rows, mask, values } => vec![*rows, *mask, values.table],
                });
            }
            used
        }
    };
    rule(
        used.iter().all(|table| (table.0 as usize) < tables.len()),
        "id_range",
    )?;
    if let Index::Gaps { bits, gaps, .. } = layer.index {
        rule(
            tables[gaps.0 as usize]
                .0
                .iter()
                .skip(1 << bits)
                .all(|length| *length == 0),
            "gap_table",
        )?;
    }
    if let Index::Classes(classes) = &layer.index {
        for class in &classes.classes {
            match class {
                Class::Empty => {}
                Class::Dense { values }
                | Class::Mask { values, .. }
                | Class::Rows { values, .. } => check_value_code(values, tables)?,
            }
        }
    }
    let grid = matches!(layer.values, Values::Grid { .. });
    let channel = matches!(
        layer.values,
        Values::Grid {
            steps: Steps::Layer(_) | Steps::Channel(_)
        }
    );
    let largest = layer.tiles.iter().map(|tile| tile.max_abs_q).max().unwrap();
    rule(
        layer.max_abs_q == largest && largest <= if grid { 127 } else { 0 },
        "quant_summary",
    )?;
    rule(layer.symmetric_i8 == channel, "quant_summary")?;
    rule(
        layer.q_sums.len()
            == if grid {
                layer.shape.out_channels as usize
            } else {
                0
            },
        "quant_summary",
    )?;
    finite(&[layer.record.cosine, layer.record.max_error])?;
    let unit = match layer.k_order {
        KOrder::ChannelMajor => layer.shape.kernel[0] * layer.shape.kernel[1],
        KOrder::TapMajor => layer.shape.in_per_group,
    };
    for tile in &layer.tiles {
        let weights = 8 * u64::from(tile.panels) * u64::from(tile.k_len);
        rule(1 <= weights && weights <= 65536, "tile_size")?;
        rule(
            tile.k_len == k || (tile.k % unit == 0 && tile.k_len % unit == 0),
            "tile_split",
        )?;
        let len = u64::from(tile.len);
        let possible = match layer.values {
            Values::Raw32 => len == 4 * weights,
            Values::Raw16 => len == 2 * weights,
            _ => len <= 3 * weights + 64,
        };
        rule(possible, "tile_length")?;
        let all = matches!(layer.index, Index::Raw | Index::Dense { .. });
        let present = u64::from(tile.present);
        rule(
            present == weights || (present < weights && !all),
            "tile_present",
        )?;
    }
    Ok(())
}

/// Section 5.3.
fn read_weights(network: &mut Network, section: &[u8], tables: &[Table]) -> R<Vec<Vec<f32>>> {
    let mut end = 0u64;
    let mut gaps = Vec::new();
    for tile in network.layers.iter_mut().flat_map(|layer| &mut layer.tiles) {
        tile.offset = align(end, 4);
        gaps.push(end..tile.offset);
        end = tile.offset + u64::from(tile.len);
    }
    rule(end == section.len() as u64, "weights_tiling")?;
    rule(
        gaps.into_iter()
            .flatten()
            .all(|at| section[at as usize] == 0),
        "padding",
    )?;
    network
        .layers
        .iter()
        .map(|layer| decode_layer(layer, section, tables))
        .collect()
}

fn decode_layer(layer: &Layer, section: &[u8], tables: &[Table]) -> R<Vec<f32>> {
    let shape = &layer.shape;
    let taps = (shape.kernel[0] * shape.kernel[1]) as usize;
    let inputs = shape.in_per_group as usize;
    let layer_k = inputs * taps;
    let panels = panels(shape);
    let zero = zero_symbol(&layer.values);
    let table = |id: TableId| codec::Table {
        lengths: &tables[id.0 as usize].0,
        width: tables[id.0 as usize].1,
    };
    let mut dense = vec![f32::NAN; shape.out_channels as usize * layer_k];
    let (mut sums, mut zeros) = (vec![0i32; layer.q_sums.len()], 0u64);
    for tile in &layer.tiles {
        let bytes = &section[tile.offset as usize..(tile.offset + u64::from(tile.len)) as usize];
        rule(crc(bytes) == tile.crc, "tile_checksum")?;
        let rows = (tile.panels * tile.k_len) as usize;
        let mode = match layer.index {
            Index::Raw | Index::Classes(_) => None,
            Index::Dense { values } => Some(codec::Mode::Dense {
                values: table(values),
            }),
            Index::Mask { mask, values } => Some(codec::Mode::Mask {
                mask: mask.map(table),
                values: table(values),
            }),
            Index::Gaps { bits, gaps, values } => Some(codec::Mode::Gaps {
                bits,
                gaps: table(gaps),
                values: table(values),
            }),
        };
        let coded = match (mode, &layer.index) {
            (_, Index::Classes(classes)) => {
                let found = decode_in_classes(classes, tile, zero.unwrap_or(0), bytes, &table);
                Some(found.ok_or("stream")?)
            }
            (None, _) => None,
            (Some(mode), _) => {
                let fill = zero.unwrap_or(0);
                Some(
                    codec::decode(mode, rows, tile.present as usize, fill, bytes)
                        .ok_or("stream")?,
                )
            }
        };
        let (mut largest, mut run, mut expected) = (0u8, 0usize, 0usize);
        for i in 0..rows * 8 {
            let (row, lane) = (i / 8, i % 8);
            let panel = tile.panel as usize + row / tile.k_len as usize;
            let k = tile.k as usize + row % tile.k_len as usize;
            let channel = panels[panel].get(lane).map(|channel| *channel as usize);
            let mut is_zero = false;
            let value = match &coded {
                None => {
                    let value = value_at(bytes, i, layer.values == Values::Raw16);
                    rule(value.is_finite(), "weight_not_finite")?;
                    rule(channel.is_some() || value.to_bits() == 0, "padding_lane")?;
                    is_zero = value == 0.0;
                    value
                }
                Some((codes, masks)) => {
                    let code = codes[i];
                    let present = masks[row] >> lane & 1 == 1;
                    let stands_for_zero = Some(code) == zero;
                    let in_mask = matches!(layer.index, Index::Mask { .. } | Index::Classes(_));
                    rule(!(in_mask && present && stands_for_zero), "present_zero")?;
                    if !present || stands_for_zero {
                        is_zero = true;
                        run += 1;
                        0.0
                    } else {
                        if let Index::Gaps { bits, .. } = layer.index {
                            // the filler rule
                            expected += run / (1 << bits) + 1;
                        }
                        run = 0;
                        rule(channel.is_some(), "padding_lane")?;
                        code_value(layer, code, channel.unwrap_or(0), k)?
                    }
                }
            };
            if let (Values::Grid { .. }, Some((codes, _))) = (&layer.values, &coded) {
                largest = largest.max((codes[i] as i8).unsigned_abs());
                if let Some(channel) = channel {
                    sums[channel] += i32::from(codes[i] as i8);
                }
            }
            if let Some(channel) = channel {
                zeros += u64::from(is_zero);
                let inner = match layer.k_order {
                    KOrder::ChannelMajor => k,
                    KOrder::TapMajor => k % inputs * taps + k / inputs,
                };
                dense[channel * layer_k + inner] = value;
            }
        }
        if let Index::Gaps { .. } = layer.index {
            rule(expected == tile.present as usize, "present_zero")?;
        }
        rule(largest == tile.max_abs_q, "max_abs_q")?;
    }
    rule(sums == layer.q_sums, "q_sums")?;
    rule(zeros == layer.record.zeros, "zero_count")?;
    Ok(dense)
}

/// A tile in classes: the class of a row is that of its block of k.
fn decode_in_classes<'a>(
    classes: &Classes,
    tile: &Tile,
    fill: u8,
    bytes: &[u8],
    table: &dyn Fn(TableId) -> codec::Table<'a>,
) -> Option<(Vec<u8>, Vec<u8>)> {
    let values = |values: &ValueCode| codec::Values {
        table: table(values.table),
        group: values.group as usize,
        alphabet: values.alphabet.clone(),
        escape: values.escape,
    };
    let list: Vec<codec::Class<'_>> = classes
        .classes
        .iter()
        .map(|class| match class {
            Class::Empty => codec::Class::Empty,
            Class::Dense { values: v } => codec::Class::Dense(values(v)),
            Class::Mask { mask, values: v } => codec::Class::Mask(table(*mask), values(v)),
            Class::Rows {
                rows,
                mask,
                values: v,
            } => codec::Class::Rows(table(*rows), table(*mask), values(v)),
        })
        .collect();
    let class_of: Vec<usize> = (0..tile.panels * tile.k_len)
        .map(|row| {
            let k = tile.k + row % tile.k_len;
            match classes.classes.len() {
                1 => 0,
                _ => classes.map[(k / classes.block) as usize] as usize,
            }
        })
        .collect();
    codec::decode_classes(&list, &class_of, tile.present as usize, fill, bytes)
}

fn code_value(layer: &Layer, code: u8, channel: usize, k: usize) -> R<f32> {
    Ok(match &layer.values {
        Values::Codebook { values, .. } => *values.get(code as usize).ok_or("code_range")?,
        Values::Minmax {
            min, delta, bits, ..
        } => {
            rule(u32::from(code) < 1 << bits, "code_range")?;
            min + f32::from(code) * delta
        }
        Values::Grid { steps } => {
            rule(code != 128, "code_range")?;
            let layer_k =
                (layer.shape.in_per_group * layer.shape.kernel[0] * layer.shape.kernel[1]) as usize;
            let step = match steps {
                Steps::Layer(step) => *step,
                Steps::Channel(steps) => steps[channel],
                Steps::Block { len, steps } => {
                    steps[channel * layer_k.div_ceil(*len as usize) + k / *len as usize]
                }
            };
            f32::from(code as i8) * step
        }
        Values::Raw32 | Values::Raw16 => return Err("stream"),
    })
}
