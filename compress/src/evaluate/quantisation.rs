//! `DequantizeLinear` and `QuantizeLinear` of constants: per tensor, per axis, per block of an axis.

use crate::array::{Array, Data, ElementType};
use crate::onnx::tensor::element_type;

use super::{Context, axis_index};

impl Context<'_> {
    /// Index into scales and zero points for every element: per tensor, per axis, or per block of an axis.
    fn scale_positions(
        &self,
        dims: &[usize],
        scales: &Array,
    ) -> Result<Option<Vec<usize>>, String> {
        if scales.len() == 1 {
            return Ok(None);
        }
        let axis = axis_index(self.node.int("axis").unwrap_or(1), dims.len())?;
        let block = usize::try_from(self.node.int("block_size").unwrap_or(0))
            .map_err(|_| "negative block_size")?;
        let (outer, size, inner) = (
            dims[..axis].iter().product::<usize>(),
            dims[axis],
            dims[axis + 1..].iter().product::<usize>(),
        );
        let mut positions = Vec::with_capacity(outer * size * inner);
        if block == 0 {
            if scales.len() != size {
                return Err(format!("{} scales for an axis of {size}", scales.len()));
            }
            for _ in 0..outer {
                for i in 0..size {
                    positions.extend(std::iter::repeat_n(i, inner));
                }
            }
        } else {
            let blocks = size.div_ceil(block);
            if scales.len() != outer * blocks * inner {
                return Err(format!(
                    "{} scales for {} blocks",
                    scales.len(),
                    outer * blocks * inner
                ));
            }
            for o in 0..outer {
                for i in 0..size {
                    let first = (o * blocks + i / block) * inner;
                    positions.extend(first..first + inner);
                }
            }
        }
        Ok(Some(positions))
    }

    pub(super) fn dequantize(&self) -> Result<Array, String> {
        let (codes, scales) = (self.input(0)?, self.input(1)?);
        let Data::Int(values) = &codes.data else {
            return Err("the codes are not integers".into());
        };
        let positions = self.scale_positions(&codes.dims, scales)?;
        let scale = scales.to_f32();
        let zero = self
            .optional(2)
            .map(Array::to_i64)
            .unwrap_or_else(|| vec![0; scale.len()]);
        if zero.len() != scale.len() {
            return Err("scales and zero points differ in number".into());
        }
        let at = |i: usize| positions.as_ref().map_or(0, |p| p[i]);
        let out = values
            .iter()
            .enumerate()
            .map(|(i, &q)| (q - zero[at(i)]) as f32 * scale[at(i)])
            .collect();
        Ok(Array::f32(codes.dims.clone(), out))
    }

    pub(super) fn quantize(&self) -> Result<Array, String> {
        let (array, scales) = (self.input(0)?, self.input(1)?);
        let zero = self.optional(2);
        let kind = match (
            zero,
            self.node
                .int("output_dtype")
                .and_then(|t| i32::try_from(t).ok())
                .filter(|&t| t != 0),
        ) {
            (Some(zero), _) => zero.kind,
            (None, Some(number)) => element_type(number).ok_or("output type")?,
            (None, None) => ElementType::U8,
        };
        let (low, high) = kind
            .quantised_range()
            .ok_or("output type is not int8, uint8, int4 or uint4")?;
        let positions = self.scale_positions(&array.dims, scales)?;
        let scale = scales.to_f32();
        let zero = zero
            .map(Array::to_i64)
            .unwrap_or_else(|| vec![0; scale.len()]);
        if zero.len() != scale.len() {
            return Err("scales and zero points differ in number".into());
        }
        let at = |i: usize| positions.as_ref().map_or(0, |p| p[i]);
        let codes = array
            .to_f32()
            .iter()
            .enumerate()
            .map(|(i, &x)| {
                ((x / scale[at(i)]).round_ties_even() as i64)
                    .saturating_add(zero[at(i)])
                    .clamp(low, high)
            })
            .collect();
        Ok(Array {
            dims: array.dims.clone(),
            kind,
            data: Data::Int(codes),
        })
    }
}
