//! Shape inference: the dimensions of every tensor of a [`Network`] from those of its inputs.
//!
//! One function per question, used alike by the importer (folding shape subgraphs), the oracle and the lowering, so
//! that there is one definition of an output size. All arithmetic is checked: the records come from a file.

use dcz_format::graph::{
    ConstId, Conv, Dim, LayerId, Network, Op, Pads, Pool, ReshapeDim, Resize, ResizeSize,
    SliceRange, TensorId,
};
use dcz_format::layer::LayerShape;

/// Dimensions of a tensor, outermost first; 1 to [`MAX_RANK`] of them.
pub type Dims = Vec<usize>;

/// Most dimensions of a tensor.
pub const MAX_RANK: usize = 6;
/// Most elements of a tensor.
pub const MAX_ELEMENTS: usize = 1 << 31;

/// Why the shapes of a network do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct ShapeError {
    /// Node or input that the reason is about.
    pub place: String,
    /// What is wrong.
    pub reason: ShapeReason,
}

/// The rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeReason {
    /// A graph input has a shape its record does not allow.
    #[error("{0}")]
    Input(String),
    /// The record refers to a tensor, layer or constant that does not exist or is not computed yet.
    #[error("refers to {0} that does not exist at this point")]
    Dangling(&'static str),
    /// Wrong number of operands.
    #[error("has {0} operands")]
    Arity(usize),
    /// The operator wants another rank.
    #[error("wants {wanted}, got {got:?}")]
    Rank {
        /// In words.
        wanted: &'static str,
        /// The dimensions it got.
        got: Dims,
    },
    /// An axis beyond the rank.
    #[error("axis {axis} of a tensor of rank {rank}")]
    Axis {
        /// The axis.
        axis: usize,
        /// The rank.
        rank: usize,
    },
    /// Channel counts differ.
    #[error("wants {wanted} {what}, got {got}")]
    Count {
        /// Of what.
        what: &'static str,
        /// Expected number.
        wanted: usize,
        /// Actual number.
        got: usize,
    },
    /// Two operands that cannot be broadcast or concatenated.
    #[error("dimensions {0:?} and {1:?} do not go together")]
    Mismatch(Dims, Dims),
    /// The window does not fit the padded input.
    #[error("window of {window} on {size} padded elements")]
    Window {
        /// Extent of the window.
        window: usize,
        /// Extent of the padded input.
        size: usize,
    },
    /// Element counts of a reshape differ.
    #[error("{0:?} cannot be reshaped as asked")]
    Reshape(Dims),
    /// An output dimension would be zero.
    #[error("the output is empty")]
    Empty,
    /// Too many elements or an overflow.
    #[error("tensor too large")]
    TooLarge,
    /// An attribute outside its range.
    #[error("attribute {0} out of range")]
    Attribute(&'static str),
}

/// One axis of a sliding window, resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Padding before the first element.
    pub pad: usize,
    /// Number of output positions.
    pub out: usize,
}

/// Number of elements of `dims`, checked against [`MAX_ELEMENTS`].
pub fn elements(dims: &[usize]) -> Result<usize, ShapeReason> {
    let mut product = 1usize;
    for &d in dims {
        product = product
            .checked_mul(d)
            .filter(|&p| p <= MAX_ELEMENTS)
            .ok_or(ShapeReason::TooLarge)?;
    }
    Ok(product)
}

/// The input shapes used by the self-test and by tools when none is given: fixed sizes and symbols' defaults.
pub fn default_inputs(network: &Network) -> Result<Vec<Dims>, ShapeError> {
    let mut shapes = Vec::with_capacity(network.inputs.len());
    for id in &network.inputs {
        let tensor = network
            .tensors
            .get(id.0 as usize)
            .ok_or_else(|| dangling("input", "a tensor"))?;
        let mut dims = Dims::with_capacity(tensor.dims.len());
        for dim in &tensor.dims {
            dims.push(match *dim {
                Dim::Fixed(size) => size as usize,
                Dim::Symbol(symbol) => {
                    network
                        .symbols
                        .get(symbol.0 as usize)
                        .ok_or_else(|| dangling(&tensor.name, "a symbol"))?
                        .default as usize
                }
            });
        }
        shapes.push(dims);
    }
    Ok(shapes)
}

/// Checks the shapes of the graph inputs against their records: ranks, fixed sizes, ranges and multiples of symbols,
/// and one size per symbol.
pub fn check_inputs(network: &Network, inputs: &[Dims]) -> Result<(), ShapeError> {
    if inputs.len() != network.inputs.len() {
        let reason = ShapeReason::Count {
            what: "inputs",
            wanted: network.inputs.len(),
            got: inputs.len(),
        };
        return Err(at(&network.name, reason));
    }
    let mut bound: Vec<Option<usize>> = vec![None; network.symbols.len()];
    for (id, dims) in network.inputs.iter().zip(inputs) {
        let tensor = network
            .tensors
            .get(id.0 as usize)
            .ok_or_else(|| dangling("input", "a tensor"))?;
        let wrong = |text: String| at(&tensor.name, ShapeReason::Input(text));
        if dims.len() != tensor.dims.len() || dims.is_empty() || dims.len() > MAX_RANK {
            return Err(wrong(format!(
                "wants {} dimensions {}, got {dims:?}",
                tensor.dims.len(),
                describe(network, *id)
            )));
        }
        for (axis, (&size, dim)) in dims.iter().zip(&tensor.dims).enumerate() {
            match *dim {
                Dim::Fixed(wanted) if wanted as usize != size || size == 0 => {
                    return Err(wrong(format!(
                        "wants dimensions {}, got {dims:?} (axis {axis} must be {wanted})",
                        describe(network, *id)
                    )));
                }
                Dim::Fixed(_) => {}
                Dim::Symbol(symbol) => {
                    let index = symbol.0 as usize;
                    let (Some(record), Some(slot)) =
                        (network.symbols.get(index), bound.get_mut(index))
                    else {
                        return Err(dangling(&tensor.name, "a symbol"));
                    };
                    let (min, max) = (record.min.max(1) as usize, record.max as usize);
                    if size < min || size > max || size % record.multiple.max(1) as usize != 0 {
                        return Err(wrong(format!(
                            "axis {axis} ({}) is {size}; legal are {min}..={max} in multiples of {}",
                            record.name,
                            record.multiple.max(1)
                        )));
                    }
                    if slot.is_some_and(|other| other != size) {
                        return Err(wrong(format!(
                            "axis {axis} ({}) differs from that of another input",
                            record.name
                        )));
                    }
                    *slot = Some(size);
                }
            }
        }
        elements(dims).map_err(|reason| at(&tensor.name, reason))?;
    }
    Ok(())
}

/// `[1, 3, H, W]`: the dimensions of a graph input as its record states them.
pub fn describe(network: &Network, id: TensorId) -> String {
    let mut text = String::from("[");
    let dims = network
        .tensors
        .get(id.0 as usize)
        .map(|t| t.dims.as_slice())
        .unwrap_or_default();
    for (i, dim) in dims.iter().enumerate() {
        if i > 0 {
            text.push_str(", ");
        }
        match *dim {
            Dim::Fixed(size) => text.push_str(&size.to_string()),
            Dim::Symbol(symbol) => text.push_str(
                network
                    .symbols
                    .get(symbol.0 as usize)
                    .map_or("?", |s| s.name.as_str()),
            ),
        }
    }
    text.push(']');
    text
}

/// The shape of every tensor (indexed by [`TensorId`]) for the given input shapes (in the order of
/// [`Network::inputs`]). Tensors that nothing computes stay empty.
pub fn infer(network: &Network, inputs: &[Dims]) -> Result<Vec<Dims>, ShapeError> {
    check_inputs(network, inputs)?;
    let mut shapes: Vec<Dims> = vec![Dims::new(); network.tensors.len()];
    for (id, dims) in network.inputs.iter().zip(inputs) {
        *shapes
            .get_mut(id.0 as usize)
            .ok_or_else(|| dangling("input", "a tensor"))? = dims.clone();
    }
    for node in &network.nodes {
        let mut operands: Vec<&[usize]> = Vec::with_capacity(node.inputs.len());
        for id in &node.inputs {
            match shapes.get(id.0 as usize) {
                Some(dims) if !dims.is_empty() => operands.push(dims),
                _ => return Err(dangling(&node.name, "a tensor")),
            }
        }
        let out =
            infer_op(network, &node.op, &operands).map_err(|reason| at(&node.name, reason))?;
        let slot = shapes
            .get_mut(node.output.0 as usize)
            .ok_or_else(|| dangling(&node.name, "a tensor"))?;
        if !slot.is_empty() {
            return Err(dangling(&node.name, "an output tensor of its own"));
        }
        *slot = out;
    }
    for output in &network.outputs {
        if shapes
            .get(output.tensor.0 as usize)
            .is_none_or(|dims| dims.is_empty())
        {
            return Err(dangling(&network.name, "an output tensor"));
        }
    }
    Ok(shapes)
}

/// The output shape of one operator. Layers and constants are looked up in `network`.
pub fn infer_op(network: &Network, op: &Op, inputs: &[&[usize]]) -> Result<Dims, ShapeReason> {
    let (least, most) = op.arity();
    if inputs.len() < least || inputs.len() > most {
        return Err(ShapeReason::Arity(inputs.len()));
    }
    let x = *inputs.first().ok_or(ShapeReason::Arity(0))?;
    if x.is_empty() || x.len() > MAX_RANK {
        return Err(ShapeReason::Rank {
            wanted: "1 to 6 dimensions",
            got: x.to_vec(),
        });
    }
    let out = match op {
        Op::Conv(conv) => {
            let [n, c, h, w] = nchw(x)?;
            let layer = layer_shape(network, conv.layer)?;
            let wanted = (layer.in_per_group as usize)
                .checked_mul(layer.groups as usize)
                .ok_or(ShapeReason::TooLarge)?;
            expect("input channels", wanted, c)?;
            vector(
                network,
                conv.bias,
                "bias values",
                layer.out_channels as usize,
            )?;
            let [v, u] = conv_windows(conv, layer.kernel, h, w)?;
            vec![n, layer.out_channels as usize, v.out, u.out]
        }
        Op::Linear { layer, bias } => {
            let shape = layer_shape(network, *layer)?;
            if shape.kernel != [1, 1] || shape.groups != 1 {
                return Err(ShapeReason::Attribute(
                    "layer of a linear node: kernel and groups must be 1",
                ));
            }
            let mut out = x.to_vec();
            if let Some(last) = out.last_mut() {
                expect("inputs", shape.in_per_group as usize, *last)?;
                *last = shape.out_channels as usize;
            }
            vector(network, *bias, "bias values", shape.out_channels as usize)?;
            out
        }
        Op::Activation(_) => x.to_vec(),
        Op::Prelu { slope } => {
            let count = constant_elements(network, *slope)?;
            if count != 1 {
                expect(
                    "slopes",
                    *x.get(1).ok_or(ShapeReason::Axis {
                        axis: 1,
                        rank: x.len(),
                    })?,
                    count,
                )?;
            }
            x.to_vec()
        }
        Op::Binary(_) => broadcast(x, inputs.get(1).ok_or(ShapeReason::Arity(1))?)?,
        Op::BinaryConst { constant, .. } => {
            constant_elements(network, *constant)?;
            broadcast(x, &constant_dims(network, *constant)?)?
        }
        Op::Pool(pool) => {
            let [n, c, h, w] = nchw(x)?;
            let [v, u] = pool_windows(pool, h, w)?;
            vec![n, c, v.out, u.out]
        }
        Op::GlobalPool(_) => {
            if x.len() < 3 {
                return Err(ShapeReason::Rank {
                    wanted: "at least 3 dimensions",
                    got: x.to_vec(),
                });
            }
            x.iter()
                .enumerate()
                .map(|(i, &d)| if i < 2 { d } else { 1 })
                .collect()
        }
        Op::Pad { amounts, .. } => {
            expect("pairs of padding", x.len(), amounts.len())?;
            let mut out = Dims::with_capacity(x.len());
            for (&d, &(before, after)) in x.iter().zip(amounts) {
                out.push(sum(&[d, before as usize, after as usize])?);
            }
            out
        }
        Op::Concat { axis } => {
            let axis = check_axis(*axis as usize, x.len())?;
            let mut out = x.to_vec();
            for other in inputs.get(1..).unwrap_or_default() {
                let fits = other.len() == x.len()
                    && other
                        .iter()
                        .zip(x)
                        .enumerate()
                        .all(|(i, (&a, &b))| i == axis || a == b);
                if !fits {
                    return Err(ShapeReason::Mismatch(x.to_vec(), other.to_vec()));
                }
                if let (Some(total), Some(&more)) = (out.get_mut(axis), other.get(axis)) {
                    *total = sum(&[*total, more])?;
                }
            }
            out
        }
        Op::Reshape { dims } => reshape(x, dims)?,
        Op::Transpose { perm } => {
            expect("axes", x.len(), perm.len())?;
            let mut seen = [false; MAX_RANK];
            let mut out = Dims::with_capacity(x.len());
            for &p in perm {
                let axis = check_axis(p as usize, x.len())?;
                match seen.get_mut(axis) {
                    Some(flag) if !*flag => *flag = true,
                    _ => return Err(ShapeReason::Attribute("perm")),
                }
                out.push(*x.get(axis).ok_or(ShapeReason::Attribute("perm"))?);
            }
            out
        }
        Op::Slice { ranges } => {
            let mut out = x.to_vec();
            let mut seen = [false; MAX_RANK];
            for range in ranges {
                let axis = check_axis(range.axis as usize, x.len())?;
                if std::mem::replace(
                    seen.get_mut(axis).ok_or(ShapeReason::Attribute("axis"))?,
                    true,
                ) {
                    return Err(ShapeReason::Attribute("axis (twice)"));
                }
                if let Some(d) = out.get_mut(axis) {
                    *d = slice_axis(range, *d)?.1;
                }
            }
            out
        }
        Op::Resize(resize) => {
            let [n, c, h, w] = nchw(x)?;
            let [oh, ow] = resize_output(resize, h, w)?;
            vec![n, c, oh, ow]
        }
        Op::Softmax { axis, axis_end } => {
            let (from, to) = (*axis as usize, *axis_end as usize);
            if from >= to || to > x.len() {
                return Err(ShapeReason::Axis {
                    axis: to.max(from),
                    rank: x.len(),
                });
            }
            x.to_vec()
        }
        Op::LpNormalize { axis, p, .. } => {
            check_axis(*axis as usize, x.len())?;
            if !matches!(p, 1 | 2) {
                return Err(ShapeReason::Attribute("p"));
            }
            x.to_vec()
        }
    };
    if out.is_empty() || out.len() > MAX_RANK {
        return Err(ShapeReason::Rank {
            wanted: "1 to 6 dimensions",
            got: out,
        });
    }
    if out.contains(&0) {
        return Err(ShapeReason::Empty);
    }
    elements(&out)?;
    Ok(out)
}

/// Vertical and horizontal windows of a convolution.
pub fn conv_windows(
    conv: &Conv,
    kernel: [u32; 2],
    h: usize,
    w: usize,
) -> Result<[Window; 2], ShapeReason> {
    windows(
        [h, w],
        kernel,
        conv.strides,
        conv.dilations,
        &conv.pads,
        false,
    )
}

/// Vertical and horizontal windows of a pooling.
pub fn pool_windows(pool: &Pool, h: usize, w: usize) -> Result<[Window; 2], ShapeReason> {
    windows(
        [h, w],
        pool.kernel,
        pool.strides,
        pool.dilations,
        &pool.pads,
        pool.ceil_mode,
    )
}

fn windows(
    size: [usize; 2],
    kernel: [u32; 2],
    strides: [u32; 2],
    dilations: [u32; 2],
    pads: &Pads,
    ceil: bool,
) -> Result<[Window; 2], ShapeReason> {
    let [h, w] = size;
    let [kh, kw] = kernel.map(|v| v as usize);
    let [sh, sw] = strides.map(|v| v as usize);
    let [dh, dw] = dilations.map(|v| v as usize);
    let (vertical, horizontal) = match *pads {
        Pads::Explicit([top, left, bottom, right]) => (
            Padding::Explicit(top as usize, bottom as usize),
            Padding::Explicit(left as usize, right as usize),
        ),
        Pads::SameUpper => (Padding::SameUpper, Padding::SameUpper),
        Pads::SameLower => (Padding::SameLower, Padding::SameLower),
    };
    Ok([
        window(h, kh, sh, dh, vertical, ceil)?,
        window(w, kw, sw, dw, horizontal, ceil)?,
    ])
}

#[derive(Clone, Copy)]
enum Padding {
    Explicit(usize, usize),
    SameUpper,
    SameLower,
}

fn window(
    size: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    padding: Padding,
    ceil: bool,
) -> Result<Window, ShapeReason> {
    if kernel == 0 || stride == 0 || dilation == 0 || size == 0 {
        return Err(ShapeReason::Attribute("kernel, stride or dilation"));
    }
    let extent = (kernel - 1)
        .checked_mul(dilation)
        .and_then(|e| e.checked_add(1))
        .ok_or(ShapeReason::TooLarge)?;
    match padding {
        Padding::Explicit(before, after) => {
            let padded = sum(&[size, before, after])?;
            let room = padded.checked_sub(extent).ok_or(ShapeReason::Window {
                window: extent,
                size: padded,
            })?;
            if !ceil {
                return Ok(Window {
                    pad: before,
                    out: room / stride + 1,
                });
            }
            let mut out = room.div_ceil(stride) + 1;
            // A window that would start in the trailing padding does not exist.
            if (out - 1).checked_mul(stride).ok_or(ShapeReason::TooLarge)? >= size + before {
                out -= 1;
            }
            Ok(Window { pad: before, out })
        }
        Padding::SameUpper | Padding::SameLower => {
            let out = size.div_ceil(stride);
            let covered = (out - 1)
                .checked_mul(stride)
                .and_then(|c| c.checked_add(extent))
                .ok_or(ShapeReason::TooLarge)?;
            let total = covered.saturating_sub(size);
            let pad = if matches!(padding, Padding::SameUpper) {
                total / 2
            } else {
                total.div_ceil(2)
            };
            Ok(Window { pad, out })
        }
    }
}

/// First index and number of indices of a slice of an axis of `len` elements.
pub fn slice_axis(range: &SliceRange, len: usize) -> Result<(usize, usize), ShapeReason> {
    if range.step == 0 {
        return Err(ShapeReason::Attribute("step"));
    }
    let from = |index: u32, backwards: bool| match (backwards, index) {
        (true, index) => len.saturating_sub(index as usize),
        (false, u32::MAX) => len,
        (false, index) => (index as usize).min(len),
    };
    let start = from(range.start, range.start_from_end);
    let end = from(range.end, range.end_from_end);
    let count = end.saturating_sub(start).div_ceil(range.step as usize);
    if count == 0 {
        Err(ShapeReason::Empty)
    } else {
        Ok((start, count))
    }
}

/// Output height and width of a resize.
pub fn resize_output(resize: &Resize, h: usize, w: usize) -> Result<[usize; 2], ShapeReason> {
    let scaled = |size: usize, scale: f32| {
        let out = (size as f32 * scale).floor();
        if scale.is_finite() && scale > 0.0 && out <= MAX_ELEMENTS as f32 {
            Ok(out as usize)
        } else {
            Err(ShapeReason::Attribute("scale"))
        }
    };
    match resize.size {
        ResizeSize::Scales([v, u]) => Ok([scaled(h, v)?, scaled(w, u)?]),
        ResizeSize::Fixed([oh, ow]) => Ok([oh as usize, ow as usize]),
    }
}

/// NumPy broadcasting of two shapes.
pub fn broadcast(a: &[usize], b: &[usize]) -> Result<Dims, ShapeReason> {
    let rank = a.len().max(b.len());
    let dim = |dims: &[usize], i: usize| {
        (i + dims.len())
            .checked_sub(rank)
            .and_then(|j| dims.get(j).copied())
            .unwrap_or(1)
    };
    let mut out = Dims::with_capacity(rank);
    for i in 0..rank {
        out.push(match (dim(a, i), dim(b, i)) {
            (x, y) if x == y => x,
            (1, y) => y,
            (x, 1) => x,
            _ => return Err(ShapeReason::Mismatch(a.to_vec(), b.to_vec())),
        });
    }
    Ok(out)
}

fn reshape(x: &[usize], dims: &[ReshapeDim]) -> Result<Dims, ShapeReason> {
    let total = elements(x)?;
    let mut out = Dims::with_capacity(dims.len());
    let mut rest = None;
    for (i, dim) in dims.iter().enumerate() {
        out.push(match *dim {
            ReshapeDim::Fixed(size) => size as usize,
            ReshapeDim::Input { from, to } => {
                let range = x.get(from as usize..to as usize).filter(|r| !r.is_empty());
                elements(range.ok_or(ShapeReason::Axis {
                    axis: to as usize,
                    rank: x.len(),
                })?)?
            }
            ReshapeDim::Rest if rest.is_none() => {
                rest = Some(i);
                1
            }
            ReshapeDim::Rest => return Err(ShapeReason::Attribute("dims (two open dimensions)")),
        });
    }
    let known = elements(&out)?;
    if known == 0 {
        return Err(ShapeReason::Empty);
    }
    if let Some(slot) = rest.and_then(|i| out.get_mut(i)) {
        *slot = total / known;
    }
    if elements(&out)? == total {
        Ok(out)
    } else {
        Err(ShapeReason::Reshape(x.to_vec()))
    }
}

/// The four dimensions of an NCHW tensor.
pub fn nchw(dims: &[usize]) -> Result<[usize; 4], ShapeReason> {
    <[usize; 4]>::try_from(dims).map_err(|_| ShapeReason::Rank {
        wanted: "4 dimensions",
        got: dims.to_vec(),
    })
}

/// Dimensions of a constant.
pub fn constant_dims(network: &Network, id: ConstId) -> Result<Dims, ShapeReason> {
    let constant = network
        .constants
        .get(id.0 as usize)
        .ok_or(ShapeReason::Dangling("a constant"))?;
    Ok(constant.dims.iter().map(|&d| d as usize).collect())
}

/// Number of values of a constant.
pub fn constant_elements(network: &Network, id: ConstId) -> Result<usize, ShapeReason> {
    elements(&constant_dims(network, id)?)
}

/// Geometry of a layer's weights.
pub fn layer_shape(network: &Network, id: LayerId) -> Result<LayerShape, ShapeReason> {
    let shape = network
        .layers
        .get(id.0 as usize)
        .ok_or(ShapeReason::Dangling("a layer"))?
        .shape;
    if shape.groups == 0
        || shape.out_channels == 0
        || shape.in_per_group == 0
        || shape.out_channels % shape.groups != 0
    {
        return Err(ShapeReason::Attribute("layer shape"));
    }
    Ok(shape)
}

fn vector(
    network: &Network,
    id: Option<ConstId>,
    what: &'static str,
    wanted: usize,
) -> Result<(), ShapeReason> {
    match id {
        Some(id) => expect(what, wanted, constant_elements(network, id)?),
        None => Ok(()),
    }
}

fn expect(what: &'static str, wanted: usize, got: usize) -> Result<(), ShapeReason> {
    if wanted == got {
        Ok(())
    } else {
        Err(ShapeReason::Count { what, wanted, got })
    }
}

fn check_axis(axis: usize, rank: usize) -> Result<usize, ShapeReason> {
    if axis < rank {
        Ok(axis)
    } else {
        Err(ShapeReason::Axis { axis, rank })
    }
}

fn sum(parts: &[usize]) -> Result<usize, ShapeReason> {
    parts
        .iter()
        .try_fold(0usize, |a, &b| a.checked_add(b))
        .ok_or(ShapeReason::TooLarge)
}

fn at(place: &str, reason: ShapeReason) -> ShapeError {
    ShapeError {
        place: place.to_string(),
        reason,
    }
}

fn dangling(place: &str, what: &'static str) -> ShapeError {
    at(place, ShapeReason::Dangling(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dcz_format::graph::{PoolKind, ResizeCoordinates, ResizeMode};

    fn pool(kernel: u32, stride: u32, pad: u32, ceil_mode: bool) -> Pool {
        Pool {
            kind: PoolKind::Max,
            kernel: [kernel; 2],
            strides: [stride; 2],
            dilations: [1; 2],
            pads: Pads::Explicit([pad; 4]),
            ceil_mode,
            count_include_pad: false,
        }
    }

    #[test]
    fn pooling_sizes() {
        for (size, kernel, stride, pad, ceil, wanted) in [
            (4, 2, 2, 0, false, 2),
            (5, 2, 2, 0, false, 2),
            (5, 2, 2, 0, true, 3),
            (112, 3, 2, 1, false, 56),
            (112, 3, 2, 1, true, 57),
            // The last window would start in the trailing padding.
            (4, 1, 2, 1, true, 3),
            (7, 3, 3, 0, true, 3),
        ] {
            let got = pool_windows(&pool(kernel, stride, pad, ceil), size, size).unwrap();
            assert_eq!(got[0].out, wanted, "{size} {kernel} {stride} {pad} {ceil}");
        }
        assert!(pool_windows(&pool(5, 1, 0, false), 4, 4).is_err());
    }

    #[test]
    fn same_padding() {
        let mut p = pool(3, 2, 0, false);
        p.pads = Pads::SameUpper;
        assert_eq!(
            pool_windows(&p, 6, 5).unwrap(),
            [Window { pad: 0, out: 3 }, Window { pad: 1, out: 3 }]
        );
        p.pads = Pads::SameLower;
        assert_eq!(
            pool_windows(&p, 6, 5).unwrap(),
            [Window { pad: 1, out: 3 }, Window { pad: 1, out: 3 }]
        );
    }

    #[test]
    fn broadcasting() {
        assert_eq!(broadcast(&[2, 3, 4], &[3, 1]).unwrap(), [2, 3, 4]);
        assert_eq!(broadcast(&[1], &[5, 1]).unwrap(), [5, 1]);
        assert_eq!(broadcast(&[2, 2], &[]).unwrap(), [2, 2]);
        assert!(broadcast(&[2, 3], &[2]).is_err());
    }

    #[test]
    fn slices() {
        let mut r = SliceRange {
            axis: 0,
            start: 1,
            start_from_end: false,
            end: u32::MAX,
            end_from_end: false,
            step: 2,
        };
        assert_eq!(slice_axis(&r, 6).unwrap(), (1, 3));
        r.start = 2;
        r.start_from_end = true;
        assert_eq!(slice_axis(&r, 6).unwrap(), (4, 1));
        r.end = 2;
        r.end_from_end = true;
        assert_eq!(slice_axis(&r, 6), Err(ShapeReason::Empty));
    }

    #[test]
    fn reshapes() {
        use ReshapeDim::{Fixed, Input, Rest};
        assert_eq!(
            reshape(&[2, 3, 4], &[Input { from: 0, to: 1 }, Rest]).unwrap(),
            [2, 12]
        );
        assert_eq!(
            reshape(&[2, 3, 4], &[Input { from: 0, to: 2 }, Fixed(4)]).unwrap(),
            [6, 4]
        );
        assert!(reshape(&[2, 3, 4], &[Rest, Fixed(5)]).is_err());
        assert!(reshape(&[2, 3, 4], &[Rest, Rest]).is_err());
        assert!(reshape(&[2, 3, 4], &[Input { from: 3, to: 2 }]).is_err());
    }

    #[test]
    fn resizes() {
        let mut r = Resize {
            mode: ResizeMode::Linear,
            coordinates: ResizeCoordinates::HalfPixel,
            size: ResizeSize::Scales([2.0, 0.5]),
        };
        assert_eq!(resize_output(&r, 5, 5).unwrap(), [10, 2]);
        r.size = ResizeSize::Scales([f32::NAN, 1.0]);
        assert!(resize_output(&r, 5, 5).is_err());
    }
}
