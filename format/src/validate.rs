//! What records must mean: identifiers in range, execution order, names, attributes, geometry, tiles.
//!
//! The same rules run on every file that is opened and on everything the writer is asked to write.

use crate::error::{Error, ErrorKind, Result};
use crate::graph::*;
use crate::layer::*;
use crate::limits::{Limits, product};
use crate::record;
use crate::selftest;
use std::collections::HashSet;

/// Largest fixed or symbolic dimension.
pub const MAX_DIM: u32 = 1 << 24;
/// Largest stride, dilation, kernel side and padding amount.
pub const MAX_ATTRIBUTE: u32 = 1 << 16;
/// Most bytes of a coded tile beyond three per weight (stream lengths).
const MAX_TILE_OVERHEAD: u64 = 64;
/// Most axes of a tensor.
pub const MAX_RANK: usize = 6;

fn fail<T>(kind: ErrorKind, detail: impl Into<String>) -> Result<T> {
    Err(Error::new(kind, detail))
}

fn ensure(condition: bool, kind: ErrorKind, detail: impl FnOnce() -> String) -> Result<()> {
    if condition {
        Ok(())
    } else {
        Err(Error::new(kind, detail()))
    }
}

fn finite(values: &[f32], what: &str) -> Result<()> {
    ensure(
        values.iter().all(|v| v.is_finite()),
        ErrorKind::NotFinite,
        || what.to_owned(),
    )
}

/// All rules of one network, given the code tables of the file.
pub(crate) fn check_network(
    network: &Network,
    tables: &[crate::CodeTable],
    limits: &Limits,
) -> Result<()> {
    ensure(!network.name.is_empty(), ErrorKind::EmptyName, || {
        "network".into()
    })?;
    check_symbols(&network.symbols)?;
    check_tensors(network)?;
    check_constants(network, limits)?;
    unique(
        network.layers.iter().map(|layer| layer.name.as_str()),
        "layer",
    )?;
    for layer in &network.layers {
        check_layer(layer, tables, limits).map_err(|e| e.in_layer(&layer.name))?;
    }
    check_nodes(network)?;
    check_outputs(network)?;
    if let Some(preprocess) = &network.preprocess {
        check_preprocess(preprocess)?;
    }
    network
        .self_test
        .as_ref()
        .map_or(Ok(()), |test| check_self_test(network, test))
}

fn unique<'a>(names: impl Iterator<Item = &'a str>, what: &str) -> Result<()> {
    let mut seen = HashSet::new();
    for name in names {
        ensure(!name.is_empty(), ErrorKind::EmptyName, || what.into())?;
        ensure(seen.insert(name), ErrorKind::DuplicateName, || {
            format!("{what} {name:?}")
        })?;
    }
    Ok(())
}

fn check_symbols(symbols: &[Symbol]) -> Result<()> {
    unique(symbols.iter().map(|symbol| symbol.name.as_str()), "symbol")?;
    for s in symbols {
        let legal = s.min >= 1
            && s.min <= s.max
            && s.max <= MAX_DIM
            && s.multiple >= 1
            && (s.min..=s.max).contains(&s.default)
            && s.default % s.multiple == 0;
        ensure(legal, ErrorKind::SymbolRange, || {
            format!(
                "{}: {}..={} in steps of {}, default {}",
                s.name, s.min, s.max, s.multiple, s.default
            )
        })?;
    }
    Ok(())
}

fn check_tensors(network: &Network) -> Result<()> {
    unique(
        network.tensors.iter().map(|tensor| tensor.name.as_str()),
        "tensor",
    )?;
    for tensor in &network.tensors {
        for dim in &tensor.dims {
            match *dim {
                Dim::Fixed(size) => {
                    ensure((1..=MAX_DIM).contains(&size), ErrorKind::TensorDims, || {
                        format!("{}: {size}", tensor.name)
                    })?;
                }
                Dim::Symbol(id) => {
                    ensure(
                        (id.0 as usize) < network.symbols.len(),
                        ErrorKind::IdRange,
                        || format!("symbol {}", id.0),
                    )?;
                }
            }
        }
        if let Some(quant) = &tensor.quant {
            let codes = if quant.signed { -128..=127 } else { 0..=255 };
            let legal = quant.axis.is_none_or(|axis| usize::from(axis) < MAX_RANK)
                && !quant.scales.is_empty()
                && (quant.axis.is_some() || quant.scales.len() == 1)
                && quant.scales.len() == quant.zero_points.len()
                && quant.scales.iter().all(|s| s.is_finite() && *s > 0.0)
                && quant.zero_points.iter().all(|z| codes.contains(z));
            ensure(legal, ErrorKind::ActivationQuant, || tensor.name.clone())?;
        }
    }
    Ok(())
}

fn check_constants(network: &Network, limits: &Limits) -> Result<()> {
    for constant in &network.constants {
        ensure(!constant.name.is_empty(), ErrorKind::EmptyName, || {
            "constant".into()
        })?;
        let values = product(constant.dims.iter().map(|d| u64::from(*d))).unwrap_or(u64::MAX);
        Limits::check("values of a constant", values, limits.max_constant_values)?;
        let legal = constant.dims.len() <= MAX_RANK && values > 0;
        ensure(legal, ErrorKind::ConstantShape, || {
            format!("{}: {:?}", constant.name, constant.dims)
        })?;
    }
    Ok(())
}

fn check_nodes(network: &Network) -> Result<()> {
    let mut written = vec![false; network.tensors.len()];
    ensure(!network.inputs.is_empty(), ErrorKind::NetworkPorts, || {
        "no input".into()
    })?;
    for id in &network.inputs {
        let tensor = get(&network.tensors, id.0, "tensor")?;
        let flag = get_mut(&mut written, id.0)?;
        ensure(!*flag, ErrorKind::NetworkPorts, || {
            format!("input {} twice", tensor.name)
        })?;
        let rank = tensor.dims.len();
        ensure(
            (1..=MAX_RANK).contains(&rank),
            ErrorKind::TensorDims,
            || format!("input {}", tensor.name),
        )?;
        *flag = true;
    }
    for node in &network.nodes {
        ensure(!node.name.is_empty(), ErrorKind::EmptyName, || {
            "node".into()
        })?;
        check_node(network, node, &mut written).map_err(|e| match node.op.layer() {
            Some(id) => match network.layers.get(id.0 as usize) {
                Some(layer) => e.in_layer(&layer.name),
                None => e,
            },
            None => e,
        })?;
    }
    match network
        .tensors
        .iter()
        .zip(&written)
        .find(|(_, written)| !**written)
    {
        Some((tensor, _)) => fail(ErrorKind::TensorUnwritten, &tensor.name),
        None => Ok(()),
    }
}

fn get<'a, T>(items: &'a [T], id: u32, what: &str) -> Result<&'a T> {
    items
        .get(id as usize)
        .ok_or_else(|| Error::new(ErrorKind::IdRange, format!("{what} {id}")))
}

fn get_mut(items: &mut [bool], id: u32) -> Result<&mut bool> {
    items
        .get_mut(id as usize)
        .ok_or_else(|| Error::new(ErrorKind::IdRange, format!("tensor {id}")))
}

fn check_node(network: &Network, node: &Node, written: &mut [bool]) -> Result<()> {
    let (least, most) = node.op.arity();
    let count = node.inputs.len();
    ensure((least..=most).contains(&count), ErrorKind::Arity, || {
        format!("node {}: {count} inputs", node.name)
    })?;
    for id in &node.inputs {
        let tensor = get(&network.tensors, id.0, "tensor")?;
        ensure(*get_mut(written, id.0)?, ErrorKind::NodeOrder, || {
            format!(
                "node {} reads {} before it is written",
                node.name, tensor.name
            )
        })?;
    }
    let output = get(&network.tensors, node.output.0, "tensor")?;
    let flag = get_mut(written, node.output.0)?;
    ensure(!*flag, ErrorKind::TensorWrittenTwice, || {
        output.name.clone()
    })?;
    ensure(output.dims.is_empty(), ErrorKind::TensorDims, || {
        format!("{} is no input", output.name)
    })?;
    *flag = true;
    check_op(network, &node.op)
        .map_err(|(kind, detail)| Error::new(kind, format!("node {}: {detail}", node.name)))
}

type OpResult = std::result::Result<(), (ErrorKind, String)>;

fn check_op(network: &Network, op: &Op) -> OpResult {
    let attribute = |legal: bool, what: &str| {
        if legal {
            Ok(())
        } else {
            Err((ErrorKind::Attribute, what.to_owned()))
        }
    };
    let small = |values: &[u32]| values.iter().all(|v| *v <= MAX_ATTRIBUTE);
    let positive = |values: &[u32]| values.iter().all(|v| (1..=MAX_ATTRIBUTE).contains(v));
    let axis_ok = |axis: u8| usize::from(axis) < MAX_RANK;
    let rank_ok = |rank: usize| (1..=MAX_RANK).contains(&rank);
    match op {
        Op::Conv(conv) => {
            let shape = layer_shape(network, conv.layer)?;
            check_bias(network, conv.bias, shape.out_channels)?;
            attribute(positive(&conv.strides), "strides")?;
            attribute(positive(&conv.dilations), "dilations")?;
            attribute(positive(&shape.kernel), "kernel")?;
            attribute(
                matches!(&conv.pads, Pads::Explicit(p) if small(p))
                    || !matches!(conv.pads, Pads::Explicit(_)),
                "pads",
            )
        }
        Op::Linear { layer, bias } => {
            let shape = layer_shape(network, *layer)?;
            if shape.kernel != [1, 1] || shape.groups != 1 {
                return Err((
                    ErrorKind::LayerUse,
                    format!("kernel {:?}, {} groups", shape.kernel, shape.groups),
                ));
            }
            check_bias(network, *bias, shape.out_channels)
        }
        Op::Activation(activation) => {
            let numbers_ok = match *activation {
                Activation::LeakyRelu { alpha } => alpha.is_finite(),
                Activation::Clip { min, max } => min <= max,
                Activation::HardSigmoid { alpha, beta } => alpha.is_finite() && beta.is_finite(),
                _ => true,
            };
            attribute(numbers_ok, "activation parameters")
        }
        Op::Prelu { slope } => constant(network, *slope).map(|_| ()),
        Op::Binary(_) | Op::GlobalPool(_) => Ok(()),
        Op::BinaryConst { constant: id, .. } => constant(network, *id).map(|_| ()),
        Op::Pool(pool) => {
            attribute(positive(&pool.kernel), "kernel")?;
            attribute(positive(&pool.strides), "strides")?;
            attribute(positive(&pool.dilations), "dilations")?;
            let Pads::Explicit([top, left, bottom, right]) = pool.pads else {
                return Ok(());
            };
            let extent = |axis: usize| {
                let (kernel, dilation) = (
                    u64::from(pool.kernel[axis]),
                    u64::from(pool.dilations[axis]),
                );
                (kernel - 1) * dilation + 1
            };
            let legal =
                u64::from(top.max(bottom)) < extent(0) && u64::from(left.max(right)) < extent(1);
            attribute(legal && small(&[top, left, bottom, right]), "pads")
        }
        Op::Pad { amounts, value } => {
            attribute(rank_ok(amounts.len()), "number of axes")?;
            attribute(amounts.iter().all(|(a, b)| small(&[*a, *b])), "amounts")?;
            attribute(!value.is_nan(), "value")
        }
        Op::Concat { axis } => attribute(axis_ok(*axis), "axis"),
        Op::Reshape { dims } => {
            attribute(rank_ok(dims.len()), "number of dimensions")?;
            attribute(
                dims.iter().filter(|d| **d == ReshapeDim::Rest).count() <= 1,
                "more than one rest",
            )?;
            let legal = dims.iter().all(|dim| match *dim {
                ReshapeDim::Fixed(size) => (1..=u32::MAX / 2).contains(&size),
                ReshapeDim::Input { from, to } => from < to && usize::from(to) <= MAX_RANK,
                ReshapeDim::Rest => true,
            });
            attribute(legal, "dimensions")
        }
        Op::Transpose { perm } => {
            attribute(rank_ok(perm.len()), "number of axes")?;
            let distinct: HashSet<_> = perm
                .iter()
                .filter(|axis| usize::from(**axis) < perm.len())
                .collect();
            attribute(distinct.len() == perm.len(), "permutation")
        }
        Op::Slice { ranges } => {
            attribute(rank_ok(ranges.len()), "number of ranges")?;
            let distinct: HashSet<_> = ranges.iter().map(|range| range.axis).collect();
            attribute(distinct.len() == ranges.len(), "an axis twice")?;
            attribute(
                ranges
                    .iter()
                    .all(|range| axis_ok(range.axis) && range.step >= 1),
                "range",
            )
        }
        Op::Resize(resize) => attribute(
            match resize.size {
                ResizeSize::Scales(scales) => scales.iter().all(|s| s.is_finite() && *s > 0.0),
                ResizeSize::Fixed(size) => size.iter().all(|s| (1..=MAX_DIM).contains(s)),
            },
            "size",
        ),
        Op::Softmax { axis, axis_end } => attribute(
            axis < axis_end && usize::from(*axis_end) <= MAX_RANK,
            "axes",
        ),
        Op::LpNormalize { axis, p, epsilon } => {
            attribute(axis_ok(*axis) && (1..=2).contains(p), "axis or p")?;
            attribute(epsilon.is_finite() && *epsilon >= 0.0, "epsilon")
        }
    }
}

fn layer_shape(
    network: &Network,
    id: LayerId,
) -> std::result::Result<LayerShape, (ErrorKind, String)> {
    network
        .layers
        .get(id.0 as usize)
        .map(|l| l.shape)
        .ok_or((ErrorKind::IdRange, format!("layer {}", id.0)))
}

fn constant(network: &Network, id: ConstId) -> std::result::Result<&Constant, (ErrorKind, String)> {
    network
        .constants
        .get(id.0 as usize)
        .ok_or((ErrorKind::IdRange, format!("constant {}", id.0)))
}

fn check_bias(network: &Network, id: Option<ConstId>, channels: u32) -> OpResult {
    let Some(id) = id else { return Ok(()) };
    let bias = constant(network, id)?;
    if bias.value_count() == Some(channels as usize) {
        return Ok(());
    }
    Err((
        ErrorKind::ConstantShape,
        format!("bias {} {:?} for {channels} channels", bias.name, bias.dims),
    ))
}

fn check_outputs(network: &Network) -> Result<()> {
    ensure(!network.outputs.is_empty(), ErrorKind::NetworkPorts, || {
        "no output".into()
    })?;
    let mut seen = HashSet::new();
    for output in &network.outputs {
        let tensor = get(&network.tensors, output.tensor.0, "tensor")?;
        ensure(seen.insert(output.tensor), ErrorKind::NetworkPorts, || {
            format!("output {} twice", tensor.name)
        })?;
        if let Meaning::Embedding {
            threshold: Some(threshold),
            ..
        } = output.meaning
        {
            finite(&[threshold], "threshold")?;
        }
    }
    Ok(())
}

fn check_preprocess(p: &Preprocess) -> Result<()> {
    finite(&p.mean, "mean")?;
    finite(&p.scale, "scale")?;
    let size_ok = p.size.iter().all(|s| (1..=MAX_ATTRIBUTE).contains(s));
    let rule_ok = match p.resize {
        ResizeRule::CenterCrop { short } => {
            (p.size[0].max(p.size[1])..=MAX_ATTRIBUTE).contains(&short)
        }
        ResizeRule::Stretch | ResizeRule::Letterbox { .. } => true,
    };
    ensure(size_ok && rule_ok, ErrorKind::Preprocess, || {
        format!("{:?}, {:?}", p.size, p.resize)
    })
}

/// Rules of a self-test of `network`.
pub(crate) fn check_self_test(network: &Network, test: &SelfTest) -> Result<()> {
    finite(&test.range, "self-test range")?;
    ensure(test.range[0] <= test.range[1], ErrorKind::SelfTest, || {
        format!("range {:?}", test.range)
    })?;
    let (expected, outputs) = (test.expected.len(), network.outputs.len());
    ensure(expected == outputs, ErrorKind::SelfTest, || {
        format!("{expected} expectations, {outputs} outputs")
    })?;
    for e in &test.expected {
        finite(&[e.max_abs, e.norm], "self-test magnitude")?;
        finite(&e.samples, "self-test samples")?;
        let count = e.samples.len();
        let legal = (1..=selftest::MAX_SAMPLES.min(e.len as usize)).contains(&count)
            && e.max_abs >= 0.0
            && e.norm >= 0.0
            && e.samples.iter().all(|s| s.abs() <= e.max_abs);
        ensure(legal, ErrorKind::SelfTest, || {
            format!("{count} samples of {}", e.len)
        })?;
    }
    let bytes = record::self_test_bytes(test);
    ensure(
        bytes <= selftest::MAX_BYTES,
        ErrorKind::SelfTestSize,
        || format!("{bytes} bytes"),
    )
}

/// Dimensions of a layer; everything else may multiply them afterwards.
pub(crate) fn check_shape(shape: &LayerShape, limits: &Limits) -> Result<()> {
    let [kh, kw] = shape.kernel;
    let LayerShape {
        out_channels,
        in_per_group,
        groups,
        ..
    } = *shape;
    let legal = [out_channels, in_per_group, kh, kw, groups]
        .iter()
        .all(|d| (1..=MAX_DIM).contains(d))
        && out_channels % groups == 0;
    ensure(legal, ErrorKind::LayerShape, || format!("{shape:?}"))?;
    let k = product([in_per_group, kh, kw].map(u64::from)).unwrap_or(u64::MAX);
    ensure(k <= u64::from(MAX_DIM), ErrorKind::LayerShape, || {
        format!("{k} inputs of one output channel")
    })?;
    let padded = product([k, shape.panels() as u64, PANEL as u64]).unwrap_or(u64::MAX);
    Limits::check("weights of a layer", padded, limits.max_weights)
}

/// All rules of a layer record.
fn check_layer(layer: &Layer, tables: &[crate::CodeTable], limits: &Limits) -> Result<()> {
    check_shape(&layer.shape, limits)?;
    check_values(layer)?;
    check_index(layer, tables)?;
    let grid = matches!(layer.values, Values::Grid { .. });
    let per_channel = matches!(
        layer.values,
        Values::Grid {
            steps: Steps::Layer(_) | Steps::Channel(_)
        }
    );
    let sums = if grid {
        layer.shape.out_channels as usize
    } else {
        0
    };
    let largest = layer
        .tiles
        .iter()
        .map(|tile| tile.max_abs_q)
        .max()
        .unwrap_or(0);
    let legal = layer.max_abs_q <= if grid { 127 } else { 0 }
        && layer.max_abs_q == largest
        && layer.symmetric_i8 == per_channel
        && layer.q_sums.len() == sums;
    ensure(legal, ErrorKind::QuantSummary, || {
        format!(
            "|q| <= {}, tiles {largest}, {} sums",
            layer.max_abs_q,
            layer.q_sums.len()
        )
    })?;
    finite(
        &[layer.record.cosine, layer.record.max_error],
        "compression record",
    )?;
    layer
        .tiles
        .iter()
        .enumerate()
        .try_for_each(|(index, tile)| {
            check_tile(layer, tile)
                .map_err(|(kind, detail)| Error::new(kind, format!("tile {index}: {detail}")))
        })
}

fn check_values(layer: &Layer) -> Result<()> {
    let shape = &layer.shape;
    match &layer.values {
        Values::Raw32 | Values::Raw16 => Ok(()),
        Values::Codebook { values, zero_code } => {
            let count = values.len();
            ensure((1..=256).contains(&count), ErrorKind::Codebook, || {
                format!("{count} values")
            })?;
            finite(values, "codebook")?;
            let legal = match zero_code {
                Some(code) => values
                    .get(usize::from(*code))
                    .is_some_and(|v| v.to_bits() == 0),
                None => values.iter().all(|v| v.to_bits() != 0),
            };
            ensure(legal, ErrorKind::ZeroCode, || format!("{zero_code:?}"))
        }
        Values::Minmax {
            min,
            delta,
            bits,
            zero_code,
        } => {
            ensure((1..=8).contains(bits), ErrorKind::ValueBits, || {
                format!("{bits}")
            })?;
            let last = (1u32 << bits) - 1;
            finite(&[*min, *delta, min + last as f32 * delta], "minmax")?;
            ensure(*delta >= 0.0, ErrorKind::Steps, || format!("delta {delta}"))?;
            ensure(
                zero_code.is_none_or(|c| u32::from(c) <= last),
                ErrorKind::ZeroCode,
                || format!("{zero_code:?}"),
            )
        }
        Values::Grid { steps } => {
            let (steps, count): (&[f32], _) = match steps {
                Steps::Layer(step) => (std::slice::from_ref(step), Some(1)),
                Steps::Channel(steps) => (steps, Some(shape.out_channels as usize)),
                Steps::Block { len, steps } => (steps, record::block_steps(shape, *len)),
            };
            let legal =
                count == Some(steps.len()) && steps.iter().all(|s| s.is_finite() && *s > 0.0);
            ensure(legal, ErrorKind::Steps, || format!("{} steps", steps.len()))
        }
    }
}

fn check_index(layer: &Layer, tables: &[crate::CodeTable]) -> Result<()> {
    let raw = matches!(layer.values, Values::Raw32 | Values::Raw16);
    ensure(
        raw == matches!(layer.index, Index::Raw),
        ErrorKind::IndexMode,
        || "raw values have the raw index, no others have it".into(),
    )?;
    let table = |id: TableId| get(tables, id.0, "code table");
    match &layer.index {
        Index::Raw => Ok(()),
        Index::Dense { values } => table(*values).map(|_| ()),
        Index::Mask { mask, values } => {
            mask.map_or(Ok(()), |mask| table(mask).map(|_| ()))?;
            table(*values).map(|_| ())
        }
        Index::Gaps { bits, gaps, values } => {
            ensure((2..=8).contains(bits), ErrorKind::GapBits, || {
                format!("{bits}")
            })?;
            // Fillers need a code.
            ensure(layer.fill_code().is_some(), ErrorKind::IndexMode, || {
                "gaps without a code for zero".into()
            })?;
            table(*values)?;
            let symbols = 1usize << bits;
            let beyond = table(*gaps)?
                .lengths
                .0
                .iter()
                .skip(symbols)
                .any(|len| *len > 0);
            ensure(!beyond, ErrorKind::GapTable, || format!("{bits} bits"))
        }
        Index::Classes(classes) => {
            ensure(layer.fill_code().is_some(), ErrorKind::IndexMode, || {
                "classes without a code for zero".into()
            })?;
            check_classes(classes, layer.shape.k(), tables)
        }
    }
}

/// Rules of the classes of a layer of `k` inputs.
fn check_classes(classes: &Classes, k: usize, tables: &[crate::CodeTable]) -> Result<()> {
    let count = classes.classes.len();
    let blocks = if count == 1 { 0 } else { classes.blocks(k) };
    let legal = (1..=MAX_CLASSES).contains(&count) && (1..=k).contains(&(classes.block as usize));
    ensure(legal, ErrorKind::Classes, || {
        format!("{count} classes, blocks of {}", classes.block)
    })?;
    let known = classes.map.iter().all(|class| usize::from(*class) < count);
    ensure(
        known && classes.map.len() == blocks,
        ErrorKind::ClassMap,
        || format!("{} of {blocks} blocks", classes.map.len()),
    )?;
    let table = |id: TableId| get(tables, id.0, "code table");
    for class in &classes.classes {
        for id in class.index_tables().into_iter().flatten() {
            table(id)?;
        }
        if let Some(values) = class.values() {
            check_value_code(values, table(values.table)?)?;
        }
    }
    Ok(())
}

fn check_value_code(values: &ValueCode, table: &crate::CodeTable) -> Result<()> {
    let (group, base) = (values.group, values.base());
    let legal = match group {
        1 => base == 0,
        2..=MAX_GROUP => {
            let distinct: HashSet<_> = values.alphabet.iter().collect();
            let symbols = base.checked_pow(group.into()).unwrap_or(usize::MAX);
            base >= 2
                && distinct.len() == values.alphabet.len()
                && symbols <= 256
                && table.lengths.0.iter().skip(symbols).all(|len| *len == 0)
        }
        _ => false,
    };
    ensure(legal, ErrorKind::ValueGroup, || {
        format!("{group} values of {base} digits to a symbol")
    })
}

fn check_tile(layer: &Layer, tile: &Tile) -> OpResult {
    let (panels, k_len) = (u64::from(tile.panels), u64::from(tile.k_len));
    let weights = panels.saturating_mul(k_len).saturating_mul(PANEL as u64);
    if weights == 0 || weights > MAX_TILE_WEIGHTS as u64 {
        return Err((ErrorKind::TileSize, format!("{panels} panels x {k_len} k")));
    }
    let unit = match layer.k_order {
        KOrder::ChannelMajor => layer.shape.kernel[0] * layer.shape.kernel[1],
        KOrder::TapMajor => layer.shape.in_per_group,
    };
    if !tile.k.is_multiple_of(unit) || !tile.k_len.is_multiple_of(unit) {
        return Err((
            ErrorKind::TileSplit,
            format!("k {}+{} in units of {unit}", tile.k, tile.k_len),
        ));
    }
    let len = u64::from(tile.len);
    let len_ok = match layer.values {
        Values::Raw32 => len == weights * 4,
        Values::Raw16 => len == weights * 2,
        _ => len <= MAX_TILE_OVERHEAD + weights * 3,
    };
    if !len_ok {
        return Err((
            ErrorKind::TileLength,
            format!("{len} bytes for {weights} weights"),
        ));
    }
    let present = u64::from(tile.present);
    let all = matches!(layer.index, Index::Raw | Index::Dense { .. });
    if present > weights || (all && present != weights) {
        return Err((ErrorKind::TilePresent, format!("{present} of {weights}")));
    }
    Ok(())
}
