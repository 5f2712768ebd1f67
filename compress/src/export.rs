//! A network's weights as arrays that other programs read: decoded values, and the integers they were coded as.
//!
//! Every layer gives a float32 array of its decoded weights (OIHW) and, unless it is raw, an int16 array of the same shape: of a
//! grid the codes q; of min/max and codebook layers the code plus one, with 0 for a weight that is zero. `layers.json` says which
//! file is what, and what the integers mean.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use dcz_format::Container;
use dcz_format::graph::{ConstId, LayerId};
use dcz_format::layer::{Layer, Steps, Values};
use npyz::WriterBuilder;
use serde_json::{Value, json};

use crate::error::Error;
use crate::import::FloatNetwork;
use crate::npy;
use crate::report::values_name;
use crate::settings::read_text;

/// Writes all layers and constants of network `net` into a folder that exists. `progress(done, all)` counts layers.
///
/// Errors: [`Error::Io`]; those of a damaged file.
pub fn export(
    container: &Container,
    net: usize,
    folder: &Path,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(), Error> {
    let network = container
        .networks()
        .get(net)
        .ok_or_else(|| Error::Usage(format!("no network {net}")))?;
    let total = network.layers.len();
    let mut layers = Vec::with_capacity(total);
    for (index, layer) in network.layers.iter().enumerate() {
        progress(index, total);
        let weights = container.dense_weights(net, LayerId(index as u32))?;
        let shape = &layer.shape;
        let [height, width] = shape.kernel;
        let dims = [shape.out_channels, shape.in_per_group, height, width].map(u64::from);
        let name = format!("layer{index:03}.npy");
        write(&folder.join(&name), &dims, &weights)?;
        let codes = integers(layer, &weights);
        let codes_name = codes.as_ref().map(|_| format!("layer{index:03}.codes.npy"));
        if let Some((codes, name)) = codes.zip(codes_name.as_ref()) {
            write(&folder.join(name), &dims, &codes)?;
        }
        layers.push(json!({
            "name": layer.name,
            "shape": dims,
            "groups": shape.groups,
            "weights": name,
            "codes": codes_name,
            "values": values_name(&layer.values),
            "meaning": meaning(&layer.values),
            "coded_bytes": layer.tiles.iter().map(|t| u64::from(t.len)).sum::<u64>(),
            "table_bits": layer.record.value_table_bits + layer.record.index_table_bits,
        }));
    }
    let mut constants = Vec::with_capacity(network.constants.len());
    for (index, constant) in network.constants.iter().enumerate() {
        let dims: Vec<u64> = constant.dims.iter().map(|&d| u64::from(d)).collect();
        let mut values = vec![0.0f32; dims.iter().product::<u64>() as usize];
        container.constant(net, ConstId(index as u32), &mut values)?;
        let name = format!("constant{index:03}.npy");
        write(&folder.join(&name), &dims, &values)?;
        constants.push(json!({ "name": constant.name, "shape": dims, "values": name }));
    }
    progress(total, total);
    let index = json!({ "network": network.name, "layers": layers, "constants": constants });
    let path = folder.join("layers.json");
    fs::write(&path, format!("{index:#}\n")).map_err(|e| Error::io(&path, &e))
}

/// The other way: puts the weights and constants that `layers.json` of a folder names (float32 or float64 arrays, OIHW) into a
/// network, so that what another program made of them can be compressed and measured. Layers that are not listed stay; constants
/// are all listed, in the network's order, or none.
///
/// Errors: [`Error::Io`]; [`Error::Input`] for layers that the network does not have, or of another shape.
pub fn import(network: &mut FloatNetwork, folder: &Path) -> Result<(), Error> {
    let path = folder.join("layers.json");
    let wrong = |why: String| Error::Input(format!("{}: {why}", path.display()));
    let index: Value =
        serde_json::from_str(&read_text(&path)?).map_err(|e| wrong(e.to_string()))?;
    let listed = index["layers"].as_array();
    let listed = listed.ok_or_else(|| wrong("no list 'layers'".into()))?;
    for entry in listed {
        let (Some(name), Some(file)) = (entry["name"].as_str(), entry["weights"].as_str()) else {
            return Err(wrong("a layer without 'name' or 'weights'".into()));
        };
        let layer = network.layers.iter_mut().find(|layer| layer.name == name);
        let layer = layer.ok_or_else(|| wrong(format!("the network has no layer '{name}'")))?;
        // Only files of this folder.
        if Path::new(file).file_name() != Some(file.as_ref()) {
            return Err(wrong(format!("'{file}' is not a file name")));
        }
        let (dims, weights) = npy::read(&folder.join(file))?;
        let shape = &layer.shape;
        let [height, width] = shape.kernel;
        let wanted = [shape.out_channels, shape.in_per_group, height, width].map(|d| d as usize);
        if dims != wanted {
            return Err(wrong(format!(
                "layer '{name}' has weights of {wanted:?}, '{file}' of {dims:?}"
            )));
        }
        layer.weights = weights;
    }
    let constants = index["constants"].as_array().into_iter().flatten();
    for (position, entry) in constants.enumerate() {
        let (Some(name), Some(file)) = (entry["name"].as_str(), entry["values"].as_str()) else {
            return Err(wrong("a constant without 'name' or 'values'".into()));
        };
        // By position, since constants may share a name; the name is checked.
        let constant = network.constants.get_mut(position);
        let constant = constant.filter(|constant| constant.name == name);
        let constant = constant.ok_or_else(|| {
            wrong(format!(
                "constant {position} of the network is not '{name}'"
            ))
        })?;
        if Path::new(file).file_name() != Some(file.as_ref()) {
            return Err(wrong(format!("'{file}' is not a file name")));
        }
        let (dims, values) = npy::read(&folder.join(file))?;
        if dims != constant.dims {
            return Err(wrong(format!(
                "constant '{name}' has {:?} values, '{file}' {dims:?}",
                constant.dims
            )));
        }
        constant.values = values;
    }
    Ok(())
}

fn write<T: npyz::AutoSerialize + Copy>(
    path: &Path,
    dims: &[u64],
    values: &[T],
) -> Result<(), Error> {
    let body = || -> std::io::Result<()> {
        let file = BufWriter::new(File::create(path)?);
        let options = npyz::WriteOptions::new().default_dtype().shape(dims);
        let mut writer = options.writer(file).begin_nd()?;
        writer.extend(values.iter().copied())?;
        writer.finish()
    };
    body().map_err(|e| Error::io(path, &e))
}

/// The integers of a layer; none for raw values.
fn integers(layer: &Layer, weights: &[f32]) -> Option<Vec<i16>> {
    let k = layer.shape.k().max(1);
    match &layer.values {
        Values::Raw32 | Values::Raw16 => None,
        Values::Grid { steps } => {
            let step = |at: usize| match steps {
                Steps::Layer(step) => *step,
                Steps::Channel(steps) => steps[at / k],
                Steps::Block { len, steps } => {
                    let len = *len as usize;
                    steps[at / k * k.div_ceil(len) + at % k / len]
                }
            };
            let code = |(at, w): (usize, &f32)| (w / step(at)).round() as i16;
            Some(weights.iter().enumerate().map(code).collect())
        }
        Values::Minmax { min, delta, .. } => {
            let code = |w: &f32| match *w {
                0.0 => 0,
                _ if *delta == 0.0 => 1,
                w => ((f64::from(w) - f64::from(*min)) / f64::from(*delta)).round() as i16 + 1,
            };
            Some(weights.iter().map(code).collect())
        }
        Values::Codebook { values, .. } => {
            let code = |w: &f32| {
                let found = values.iter().position(|v| v.to_bits() == w.to_bits());
                match found {
                    Some(code) if *w != 0.0 => code as i16 + 1,
                    _ => 0,
                }
            };
            Some(weights.iter().map(code).collect())
        }
    }
}

fn meaning(values: &Values) -> Value {
    match values {
        Values::Raw32 | Values::Raw16 => Value::Null,
        Values::Grid { steps } => match steps {
            Steps::Layer(step) => json!({ "step": step }),
            Steps::Channel(steps) => json!({ "step_per_channel": steps }),
            Steps::Block { len, steps } => json!({ "block": len, "step_per_block": steps }),
        },
        Values::Minmax {
            min, delta, bits, ..
        } => json!({ "min": min, "delta": delta, "bits": bits }),
        Values::Codebook { values, .. } => json!({ "values": values }),
    }
}
