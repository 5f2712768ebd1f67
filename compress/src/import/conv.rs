//! Convolutions, linear layers and batch normalisation.

use dcz_format::graph::{Conv, Op, Pads};
use dcz_format::layer::LayerShape;

use super::draft::DraftOp;
use super::{Fail, Importer, unsupported};
use crate::array::Array;
use crate::onnx::proto::NodeProto;

/// A pair of sizes from a list attribute; `default` when it is absent.
pub(super) fn pair(node: &NodeProto, name: &str, default: u32) -> Result<[u32; 2], Fail> {
    match node.ints(name) {
        None | Some([]) => Ok([default; 2]),
        Some(&[v, h]) => match (u32::try_from(v), u32::try_from(h)) {
            (Ok(v), Ok(h)) if v > 0 && h > 0 => Ok([v, h]),
            _ => Err(Fail::Malformed(format!("{name} = [{v}, {h}]"))),
        },
        Some(list) => Err(unsupported(
            format!("{name} = {list:?}"),
            format!("two spatial dimensions ({name} of two elements)"),
        )),
    }
}

/// Padding from `auto_pad` and `pads`.
pub(super) fn pads(node: &NodeProto) -> Result<Pads, Fail> {
    match node.string("auto_pad").as_deref() {
        None | Some("" | "NOTSET") => {}
        Some("VALID") => return Ok(Pads::Explicit([0; 4])),
        Some("SAME_UPPER") => return Ok(Pads::SameUpper),
        Some("SAME_LOWER") => return Ok(Pads::SameLower),
        Some(other) => return Err(Fail::Malformed(format!("auto_pad = {other}"))),
    }
    match node.ints("pads") {
        None | Some([]) => Ok(Pads::Explicit([0; 4])),
        Some(list @ &[_, _, _, _]) => {
            let amounts: Vec<u32> = list.iter().filter_map(|&p| u32::try_from(p).ok()).collect();
            amounts
                .try_into()
                .map(Pads::Explicit)
                .map_err(|_| unsupported(format!("pads = {list:?}"), "pads that are not negative"))
        }
        Some(list) => Err(unsupported(
            format!("pads = {list:?}"),
            "two spatial dimensions (pads of four elements)",
        )),
    }
}

impl Importer<'_> {
    pub(super) fn conv(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let x = self.tensor(node, 0)?;
        if self.draft.rank(x) != 4 {
            return Err(unsupported(
                format!("input of {} dimensions", self.draft.rank(x)),
                "a convolution over two spatial dimensions (input NCHW)",
            ));
        }
        let weights = self
            .constant(node, 1)?
            .ok_or_else(|| Fail::Malformed("no weights".into()))?;
        let &[out, in_per_group, kh, kw] = weights.dims.as_slice() else {
            return Err(Fail::Malformed(format!(
                "weights of dimensions {:?}",
                weights.dims
            )));
        };
        let groups = node.int("group").unwrap_or(1);
        let groups = usize::try_from(groups)
            .ok()
            .filter(|&g| g > 0 && out % g == 0)
            .ok_or_else(|| {
                Fail::Malformed(format!("group = {groups} with {out} output channels"))
            })?;
        if weights.is_empty() {
            return Err(Fail::Malformed("weights without elements".into()));
        }
        if let Some(kernel) = node.ints("kernel_shape")
            && kernel != [kh as i64, kw as i64]
        {
            return Err(Fail::Malformed(format!(
                "kernel_shape = {kernel:?}, weights of {kh}x{kw}"
            )));
        }
        let (strides, dilations, pads) = (
            pair(node, "strides", 1)?,
            pair(node, "dilations", 1)?,
            pads(node)?,
        );
        let shape = layer_shape(out, in_per_group, [kh, kw], groups)?;
        let bias = self.bias(node, 2, out)?;
        let label = node.label();
        let layer = self.draft.add_layer(&label, shape, weights.into_f32());
        let bias = bias.map(|values| {
            self.draft
                .add_constant(&format!("{label}.bias"), vec![out], values)
        });
        self.emit(
            node,
            0,
            Op::Conv(Conv {
                layer,
                bias,
                strides,
                dilations,
                pads,
            }),
            vec![x],
        )
    }

    /// A vector with one value per output channel.
    fn bias(
        &self,
        node: &NodeProto,
        index: usize,
        channels: usize,
    ) -> Result<Option<Vec<f32>>, Fail> {
        let Some(bias) = self.constant(node, index)? else {
            return Ok(None);
        };
        if bias.len() != channels {
            return Err(Fail::Malformed(format!(
                "{} bias values for {channels} channels",
                bias.len()
            )));
        }
        Ok(Some(bias.into_f32()))
    }

    pub(super) fn batch_normalization(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let x = self.tensor(node, 0)?;
        if node.int("training_mode").unwrap_or(0) != 0 {
            return Err(unsupported(
                "training_mode = 1",
                "training_mode = 0 (inference)",
            ));
        }
        if node.int("spatial") == Some(0) {
            return Err(unsupported(
                "spatial = 0",
                "spatial = 1 (one mean and variance per channel)",
            ));
        }
        let channels = self.draft.fixed_dim(x, 1).ok_or_else(|| {
            unsupported(
                "no fixed number of channels",
                "an input with a fixed axis 1",
            )
        })?;
        let mut vectors = Vec::with_capacity(4);
        for index in 1..5 {
            let vector = self
                .constant(node, index)?
                .ok_or_else(|| Fail::Malformed(format!("input {index} is missing")))?;
            if vector.len() != channels {
                return Err(Fail::Malformed(format!(
                    "{} values in input {index} for {channels} channels",
                    vector.len()
                )));
            }
            vectors.push(vector.to_f64());
        }
        let epsilon = f64::from(node.float("epsilon").unwrap_or(1e-5));
        let [scale, shift, mean, variance] = vectors.as_slice() else {
            return Err(Fail::Malformed("too few inputs".into()));
        };
        let factors: Vec<f64> = scale
            .iter()
            .zip(variance)
            .map(|(s, v)| s / (v + epsilon).sqrt())
            .collect();
        let offsets = factors
            .iter()
            .zip(shift.iter().zip(mean))
            .map(|(f, (b, m))| b - m * f)
            .collect();
        let shapes = self.shapes(x).clone();
        self.emit_draft(
            node,
            0,
            DraftOp::Affine {
                scale: factors,
                shift: offsets,
            },
            vec![x],
            shapes,
        );
        Ok(())
    }

    pub(super) fn gemm(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let x = self.tensor(node, 0)?;
        if self.draft.rank(x) != 2 {
            return Err(Fail::Malformed(format!(
                "input of {} dimensions",
                self.draft.rank(x)
            )));
        }
        if node.int("transA").unwrap_or(0) != 0 {
            return Err(unsupported("transA = 1", "transA = 0 (rows are images)"));
        }
        let (alpha, beta) = (
            node.float("alpha").unwrap_or(1.0),
            node.float("beta").unwrap_or(1.0),
        );
        let matrix = self
            .constant(node, 1)?
            .ok_or_else(|| Fail::Malformed("no weights".into()))?;
        let (shape, mut weights) = linear_weights(matrix, node.int("transB").unwrap_or(0) != 0)?;
        if alpha != 1.0 {
            weights.iter_mut().for_each(|w| *w *= alpha);
        }
        let out = shape.out_channels as usize;
        let label = node.label();
        let layer = self.draft.add_layer(&label, shape, weights);
        // A bias of one row becomes the layer's, anything else an addition of its own.
        let bias = match node.input_name(2) {
            None => None,
            Some(_) => {
                let bias = self
                    .constant(node, 2)?
                    .ok_or_else(|| Fail::Malformed("no bias".into()))?;
                if !(bias.len() == 1 || bias.len() == out && bias.dims.last() == Some(&out)) {
                    return Err(unsupported(
                        format!("input C of dimensions {:?}", bias.dims),
                        format!("one row of {out} values or one value"),
                    ));
                }
                let values = bias.to_f32();
                Some(
                    (0..out)
                        .map(|i| values[if values.len() == 1 { 0 } else { i }] * beta)
                        .collect::<Vec<f32>>(),
                )
            }
        };
        let bias = bias.map(|values| {
            self.draft
                .add_constant(&format!("{label}.bias"), vec![out], values)
        });
        self.emit(node, 0, Op::Linear { layer, bias }, vec![x])
    }

    pub(super) fn mat_mul(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let nearest = "MatMul of a computed first operand with a constant matrix of two dimensions";
        let x = self
            .tensor(node, 0)
            .map_err(|_| unsupported("the first operand is constant", nearest))?;
        let matrix = self
            .constant(node, 1)
            .map_err(|_| unsupported("the second operand is computed", nearest))?
            .ok_or_else(|| Fail::Malformed("one operand".into()))?;
        if matrix.dims.len() != 2 || self.draft.rank(x) < 2 {
            return Err(unsupported(
                format!(
                    "operands of {} and {} dimensions",
                    self.draft.rank(x),
                    matrix.dims.len()
                ),
                nearest,
            ));
        }
        let (shape, weights) = linear_weights(matrix, false)?;
        let layer = self.draft.add_layer(&node.label(), shape, weights);
        self.emit(node, 0, Op::Linear { layer, bias: None }, vec![x])
    }
}

/// `[out][in]` weights of a matrix that is `[out, in]` when `transposed`, else `[in, out]`.
fn linear_weights(matrix: Array, transposed: bool) -> Result<(LayerShape, Vec<f32>), Fail> {
    let &[rows, columns] = matrix.dims.as_slice() else {
        return Err(Fail::Malformed(format!(
            "weights of dimensions {:?}",
            matrix.dims
        )));
    };
    if rows == 0 || columns == 0 {
        return Err(Fail::Malformed("weights without elements".into()));
    }
    let values = matrix.into_f32();
    if transposed {
        return Ok((layer_shape(rows, columns, [1, 1], 1)?, values));
    }
    let mut weights = vec![0.0; values.len()];
    for (input, row) in values.chunks_exact(columns).enumerate() {
        for (output, &value) in row.iter().enumerate() {
            weights[output * rows + input] = value;
        }
    }
    Ok((layer_shape(columns, rows, [1, 1], 1)?, weights))
}

fn layer_shape(
    out: usize,
    in_per_group: usize,
    kernel: [usize; 2],
    groups: usize,
) -> Result<LayerShape, Fail> {
    let fit =
        |size: usize| u32::try_from(size).map_err(|_| Fail::Malformed(format!("dimension {size}")));
    Ok(LayerShape {
        out_channels: fit(out)?,
        in_per_group: fit(in_per_group)?,
        kernel: [fit(kernel[0])?, fit(kernel[1])?],
        groups: fit(groups)?,
    })
}
