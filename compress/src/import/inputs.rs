//! Graph inputs: fixed and symbolic dimensions, and the samples at which shapes are tracked.

use std::str::FromStr;

use dcz_format::graph::{Dim, Symbol, SymbolId};

use super::draft::{DraftTensor, Shapes};
use super::{Importer, Value};
use crate::error::{Error, Unsupported};
use crate::onnx::proto::{DimensionProto, ValueInfoProto};
use crate::onnx::tensor::data_type;

/// Largest size of a symbolic dimension whose range is not given.
const DEFAULT_MAX: u32 = 4096;
/// Samples at which shapes are tracked when something is symbolic.
const SAMPLES: u32 = 3;

/// `NAME=AXIS[:MIN..MAX:MULTIPLE]`: a dimension that stays symbolic.
///
/// NAME is an input of the network, or a symbolic dimension as the ONNX file calls it; then every input whose axis AXIS
/// has that name is meant. Dimensions of one name are one symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dynamic {
    /// Input or symbolic dimension.
    pub name: String,
    /// Axis, from the front.
    pub axis: usize,
    /// Legal sizes, inclusive, and their common divisor.
    pub range: Option<(u32, u32, u32)>,
}

impl FromStr for Dynamic {
    type Err = String;

    fn from_str(text: &str) -> Result<Dynamic, String> {
        let wrong = || {
            format!(
                "'{text}': expected NAME=AXIS or NAME=AXIS:MIN..MAX or NAME=AXIS:MIN..MAX:MULTIPLE"
            )
        };
        let (name, rest) = text.rsplit_once('=').ok_or_else(wrong)?;
        let mut parts = rest.split(':');
        let axis = parts
            .next()
            .and_then(|p| p.parse().ok())
            .ok_or_else(wrong)?;
        let range = match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => None,
            (Some(range), multiple, None) => {
                let (min, max) = range.split_once("..").ok_or_else(wrong)?;
                let number = |t: &str| {
                    t.trim_start_matches('=')
                        .parse::<u32>()
                        .map_err(|_| wrong())
                };
                let (min, max, multiple) =
                    (number(min)?, number(max)?, multiple.map_or(Ok(1), number)?);
                // The least legal size is the first multiple.
                let min = min
                    .max(1)
                    .checked_next_multiple_of(multiple.max(1))
                    .ok_or_else(wrong)?;
                if multiple == 0 || min > max {
                    return Err(format!("'{text}': no size is legal"));
                }
                Some((min, max, multiple))
            }
            _ => return Err(wrong()),
        };
        if name.is_empty() {
            return Err(wrong());
        }
        Ok(Dynamic {
            name: name.to_string(),
            axis,
            range,
        })
    }
}

impl Importer<'_> {
    /// Adds the graph inputs that live nodes read.
    pub(super) fn add_inputs(&mut self) -> Result<(), Error> {
        let graph = self.graph;
        let mut used = vec![false; self.options.dynamic.len()];
        let mut inputs: Vec<(&ValueInfoProto, Vec<Dim>)> = Vec::new();
        for input in &graph.input {
            // Weights listed as inputs are constants; entries that nothing reads are left behind by converters.
            if self.values.contains_key(&input.name) || !self.read.contains(&input.name) {
                continue;
            }
            let tensor = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
            let dims = tensor
                .and_then(|t| t.shape.as_ref())
                .map(|s| s.dim.as_slice());
            let number = tensor.map_or(0, |t| t.elem_type);
            if !matches!(
                number,
                data_type::FLOAT | data_type::FLOAT16 | data_type::BFLOAT16
            ) {
                self.input_problem(&input.name, format!("element type {number}"), "float32");
                continue;
            }
            if number != data_type::FLOAT {
                self.notes.push(format!(
                    "input '{}' is a 16-bit float in the model and float32 here",
                    input.name
                ));
            }
            let Some(dims) = dims else {
                self.input_problem(&input.name, "no shape", "1 to 6 dimensions");
                continue;
            };
            if dims.is_empty() || dims.len() > dcz::shape::MAX_RANK {
                self.input_problem(
                    &input.name,
                    format!("{} dimensions", dims.len()),
                    "1 to 6 dimensions",
                );
                continue;
            }
            let mut record = Vec::with_capacity(dims.len());
            for (axis, dim) in dims.iter().enumerate() {
                record.push(self.input_dim(input, axis, dim, &mut used)?);
            }
            inputs.push((input, record));
        }
        if let Some(index) = used.iter().position(|&u| !u) {
            let dynamic = &self.options.dynamic[index];
            return Err(Error::Usage(format!(
                "--dynamic {}={}: the network has no input or symbolic dimension of that name with that axis",
                dynamic.name, dynamic.axis
            )));
        }
        if inputs.is_empty() && self.problems.is_empty() {
            return Err(Error::Malformed("the network reads no input".into()));
        }
        let sizes = sample_sizes(&self.draft.symbols);
        for (input, dims) in inputs {
            let shapes: Shapes = sizes
                .iter()
                .map(|sizes| dims.iter().map(|dim| concrete(dim, sizes)).collect())
                .collect();
            self.tensor_names.insert(input.name.clone());
            self.draft.tensors.push(DraftTensor {
                name: input.name.clone(),
                shapes,
                dims,
            });
            let index = self.draft.tensors.len() - 1;
            self.draft.inputs.push(index);
            self.values.insert(input.name.clone(), Value::Tensor(index));
        }
        Ok(())
    }

    fn input_problem(&mut self, name: &str, attribute: impl Into<String>, nearest: &str) {
        self.problems.push(Unsupported {
            node: name.to_string(),
            operator: "input".into(),
            attribute: attribute.into(),
            nearest: nearest.into(),
        });
        self.values.insert(name.to_string(), Value::Failed);
    }

    fn input_dim(
        &mut self,
        input: &ValueInfoProto,
        axis: usize,
        dim: &DimensionProto,
        used: &mut [bool],
    ) -> Result<Dim, Error> {
        let parameter = dim.dim_param.as_deref().filter(|name| !name.is_empty());
        let size = dim
            .dim_value
            .and_then(|v| u32::try_from(v).ok())
            .filter(|&v| v > 0);
        let wanted = self.options.dynamic.iter().position(|d| {
            d.axis == axis && (d.name == input.name || Some(d.name.as_str()) == parameter)
        });
        let Some(index) = wanted else {
            return match (size, axis) {
                (Some(size), _) => Ok(Dim::Fixed(size)),
                (None, 0) => {
                    let called = parameter.map(|p| format!(" ('{p}')")).unwrap_or_default();
                    self.notes.push(format!("the batch{called} of input '{}' is fixed at 1; --dynamic {}=0 keeps it open", input.name, input.name));
                    Ok(Dim::Fixed(1))
                }
                (None, _) => {
                    let name = parameter.unwrap_or(&input.name);
                    Err(Error::Usage(format!(
                        "axis {axis} of input '{}' has no fixed size: give --dynamic {name}={axis}:MIN..MAX:MULTIPLE (MIN = MAX fixes it)",
                        input.name
                    )))
                }
            };
        };
        used[index] = true;
        let dynamic = &self.options.dynamic[index];
        let (min, max, multiple) = match (dynamic.range, axis, size) {
            (Some(range), ..) => range,
            (None, 0, _) | (None, _, Some(_)) => (1, DEFAULT_MAX.max(size.unwrap_or(1)), 1),
            (None, ..) => {
                return Err(Error::Usage(format!(
                    "--dynamic {}={axis}: the model gives no size, so a range is needed: {}={axis}:MIN..MAX:MULTIPLE",
                    dynamic.name, dynamic.name
                )));
            }
        };
        if min == max {
            return Ok(Dim::Fixed(min));
        }
        let name = parameter.map_or_else(|| format!("{}.{axis}", input.name), str::to_string);
        if let Some(known) = self.draft.symbols.iter().position(|s| s.name == name) {
            return Ok(Dim::Symbol(SymbolId(known as u32)));
        }
        let default = size.unwrap_or(min).clamp(min, max);
        let default = default - default % multiple;
        self.draft.symbols.push(Symbol {
            name,
            min,
            max,
            multiple,
            default: if default < min { min } else { default },
        });
        Ok(Dim::Symbol(SymbolId(self.draft.symbols.len() as u32 - 1)))
    }
}

fn concrete(dim: &Dim, sizes: &[u32]) -> usize {
    match dim {
        Dim::Fixed(size) => *size as usize,
        Dim::Symbol(symbol) => sizes.get(symbol.0 as usize).copied().unwrap_or(1) as usize,
    }
}

/// Sizes of every symbol at every sample: the defaults, then legal sizes that differ from them for every symbol.
fn sample_sizes(symbols: &[Symbol]) -> Vec<Vec<u32>> {
    let count = if symbols.is_empty() { 1 } else { SAMPLES };
    (0..count)
        .map(|sample| {
            symbols
                .iter()
                .enumerate()
                .map(|(index, symbol)| {
                    let distance = symbol
                        .multiple
                        .saturating_mul(sample)
                        .saturating_mul(index as u32 + 1);
                    // Upwards where there is room: small maps may not fit the network's windows.
                    match symbol.default.checked_add(distance) {
                        Some(size) if size <= symbol.max => size,
                        _ => symbol.default.saturating_sub(distance).max(symbol.min),
                    }
                })
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dynamic_arguments() {
        let parse = |text: &str| text.parse::<Dynamic>();
        assert_eq!(
            parse("data=0").unwrap(),
            Dynamic {
                name: "data".into(),
                axis: 0,
                range: None
            }
        );
        assert_eq!(parse("H=2:33..640:32").unwrap().range, Some((64, 640, 32)));
        assert_eq!(
            parse("a=b=2:1..8").unwrap(),
            Dynamic {
                name: "a=b".into(),
                axis: 2,
                range: Some((1, 8, 1))
            }
        );
        for bad in [
            "data",
            "=0",
            "data=x",
            "data=0:4..2",
            "data=0:1..8:0",
            "data=0:1..8:2:3",
            "data=0:5..7:4",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn samples_differ_and_are_legal() {
        let symbol = |default, max| Symbol {
            name: "s".into(),
            min: 32,
            max,
            multiple: 32,
            default,
        };
        let sizes = sample_sizes(&[symbol(64, 640), symbol(640, 640)]);
        assert_eq!(sizes, [[64, 640], [96, 576], [128, 512]]);
        assert_eq!(sample_sizes(&[]), [[0u32; 0]]);
    }
}
