//! Resize and its predecessor Upsample.

use dcz_format::graph::{Op, Resize, ResizeCoordinates, ResizeMode, ResizeSize};

use super::{Fail, Importer, at_sample, unsupported};
use crate::evaluate::axis_index;
use crate::onnx::proto::NodeProto;

impl Importer<'_> {
    pub(super) fn resize(&mut self, node: &NodeProto) -> Result<(), Fail> {
        let x = self.tensor(node, 0)?;
        let rank = self.draft.rank(x);
        if rank != 4 {
            return Err(unsupported(
                format!("input of {rank} dimensions"),
                "resizing of two spatial dimensions (input NCHW)",
            ));
        }
        for (attribute, neutral) in [("antialias", 0), ("exclude_outside", 0)] {
            if node.int(attribute).unwrap_or(0) != neutral {
                return Err(unsupported(
                    format!("{attribute} = 1"),
                    format!("{attribute} = 0"),
                ));
            }
        }
        if let Some(policy) = node.string("keep_aspect_ratio_policy")
            && policy != "stretch"
        {
            return Err(unsupported(
                format!("keep_aspect_ratio_policy = {policy}"),
                "keep_aspect_ratio_policy = stretch",
            ));
        }
        let coordinates = self.coordinates(node)?;
        let mode = self.resize_mode(node)?;
        let size = self.resize_size(node, x)?;
        let op = Op::Resize(Resize {
            mode,
            coordinates,
            size,
        });
        if self.infer(&op, &[x])? == *self.shapes(x) {
            // Same size: every coordinate is its own.
            self.set_alias(node, x);
            return Ok(());
        }
        self.emit(node, 0, op, vec![x])
    }

    /// Upsample and Resize before operator set 11 have no attribute for it.
    fn has_attributes(&self, node: &NodeProto) -> bool {
        node.op_type == "Resize" && self.opset >= 11
    }

    fn coordinates(&self, node: &NodeProto) -> Result<ResizeCoordinates, Fail> {
        if !self.has_attributes(node) {
            return Ok(ResizeCoordinates::Asymmetric);
        }
        match node.string("coordinate_transformation_mode").as_deref() {
            None | Some("" | "half_pixel") => Ok(ResizeCoordinates::HalfPixel),
            Some("asymmetric") => Ok(ResizeCoordinates::Asymmetric),
            Some("align_corners") => Ok(ResizeCoordinates::AlignCorners),
            Some("pytorch_half_pixel") => Ok(ResizeCoordinates::PytorchHalfPixel),
            Some(other) => Err(unsupported(
                format!("coordinate_transformation_mode = {other}"),
                "half_pixel, pytorch_half_pixel, asymmetric or align_corners",
            )),
        }
    }

    fn resize_mode(&self, node: &NodeProto) -> Result<ResizeMode, Fail> {
        match node.string("mode").as_deref() {
            Some("linear" | "bilinear") => Ok(ResizeMode::Linear),
            None | Some("" | "nearest") if !self.has_attributes(node) => {
                Ok(ResizeMode::NearestFloor)
            }
            None | Some("" | "nearest") => match node.string("nearest_mode").as_deref() {
                None | Some("" | "round_prefer_floor") => Ok(ResizeMode::NearestPreferFloor),
                Some("round_prefer_ceil") => Ok(ResizeMode::NearestPreferCeil),
                Some("floor") => Ok(ResizeMode::NearestFloor),
                Some("ceil") => Ok(ResizeMode::NearestCeil),
                Some(other) => Err(Fail::Malformed(format!("nearest_mode = {other}"))),
            },
            Some(other) => Err(unsupported(
                format!("mode = {other}"),
                "mode = nearest or linear",
            )),
        }
    }

    fn resize_size(&self, node: &NodeProto, x: usize) -> Result<ResizeSize, Fail> {
        let rank = self.draft.rank(x);
        let axes = match node.ints("axes") {
            Some(axes) => axes
                .iter()
                .map(|&a| axis_index(a, rank))
                .collect::<Result<Vec<_>, _>>()?,
            None => (0..rank).collect(),
        };
        // Operator sets 7 (attribute), 9 and 10 (second input), 11 and later (third input after the region of interest).
        let (scale_input, size_input) = if self.has_attributes(node) {
            (2, 3)
        } else {
            (1, usize::MAX)
        };
        let scales = match node.floats("scales") {
            Some(scales) => Some(scales.to_vec()),
            None => match self.known(node, scale_input)? {
                Some(known) if known.len() == 1 => known.first().map(|a| a.to_f32()),
                Some(_) => {
                    return Err(unsupported(
                        "scales depend on a symbolic dimension",
                        "constant scales, or sizes",
                    ));
                }
                None => self.constant(node, scale_input)?.map(|a| a.to_f32()),
            },
        };
        if let Some(scales) = scales.filter(|s| !s.is_empty()) {
            if scales.len() != axes.len() {
                return Err(Fail::Malformed(format!(
                    "{} scales for {} axes",
                    scales.len(),
                    axes.len()
                )));
            }
            let mut all = [1.0f32; 4];
            axes.iter()
                .zip(&scales)
                .for_each(|(&axis, &scale)| all[axis] = scale);
            if all[..2] != [1.0, 1.0] {
                return Err(unsupported(
                    format!("scales = {all:?}"),
                    "scales of 1 for batch and channels",
                ));
            }
            return Ok(ResizeSize::Scales([all[2], all[3]]));
        }
        let sizes = match node.input_name(size_input) {
            None => return Err(Fail::Malformed("neither scales nor sizes".into())),
            Some(_) => self
                .known(node, size_input)?
                .ok_or_else(|| unsupported("sizes are computed", "constant sizes or scales"))?,
        };
        let mut targets = Vec::new();
        for (sample, dims) in self.shapes(x).iter().enumerate() {
            let list = at_sample(&sizes, sample)
                .map(|a| a.to_i64())
                .unwrap_or_default();
            if list.len() != axes.len() {
                return Err(Fail::Malformed(format!(
                    "{} sizes for {} axes",
                    list.len(),
                    axes.len()
                )));
            }
            let mut target: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
            axes.iter()
                .zip(&list)
                .for_each(|(&axis, &size)| target[axis] = size);
            if target[..2] != [dims[0] as i64, dims[1] as i64] {
                return Err(unsupported(
                    format!("sizes = {target:?}"),
                    "sizes that keep batch and channels",
                ));
            }
            let fit = |size: i64| {
                u32::try_from(size)
                    .ok()
                    .filter(|&s| s > 0)
                    .ok_or_else(|| Fail::Malformed(format!("size {size}")))
            };
            targets.push(([dims[2], dims[3]], [fit(target[2])?, fit(target[3])?]));
        }
        let Some(&(input, first)) = targets.first() else {
            return Err(Fail::Malformed("no sizes".into()));
        };
        if targets.iter().all(|&(_, target)| target == first) {
            return Ok(ResizeSize::Fixed(first));
        }
        let scale = [0, 1].map(|axis| f64::from(first[axis]) / input[axis] as f64);
        let steady = targets.iter().all(|(from, to)| {
            (0..2).all(|axis| (from[axis] as f64 * scale[axis] - f64::from(to[axis])).abs() < 1e-6)
        });
        if steady {
            Ok(ResizeSize::Scales(scale.map(|s| s as f32)))
        } else {
            Err(unsupported(
                "sizes",
                "sizes that are fixed, or a fixed multiple of the input",
            ))
        }
    }
}
