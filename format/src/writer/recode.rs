//! What a file holds, as the writer's input: to code it anew.

use super::{ConstantInput, IndexChoice, LayerInput, NetworkInput, Weights};
use crate::container::Container;
use crate::decode::{TileDecoder, TileOut};
use crate::dense::for_each_weight;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{ConstId, LayerId};
use crate::layer::{Layer, Values};
use crate::values::TileForm;

/// The networks of a file. Weights, constants and records come back bit for bit when they are written again; only
/// how they are coded may differ.
pub fn inputs(container: &Container, index: IndexChoice) -> Result<Vec<NetworkInput>> {
    let mut networks = Vec::with_capacity(container.networks().len());
    for net in 0..container.networks().len() {
        let mut network = container.network(net)?.clone();
        let mut decoder = TileDecoder::keeping_tables(container, net)?;
        let mut layers = Vec::with_capacity(network.layers.len());
        for (id, layer) in (0..).map(LayerId).zip(&network.layers) {
            layers.push(LayerInput {
                name: layer.name.clone(),
                shape: layer.shape,
                k_order: layer.k_order,
                values: layer.values.clone(),
                weights: weights(container, net, id, layer, &mut decoder)?,
                index,
                cosine: layer.record.cosine,
                max_error: layer.record.max_error,
            });
        }
        let mut constants = Vec::with_capacity(network.constants.len());
        for (id, constant) in (0..).map(ConstId).zip(&network.constants) {
            let mut values = vec![0.0; constant.value_count().unwrap_or(0)];
            container.constant(net, id, &mut values)?;
            constants.push(ConstantInput {
                name: constant.name.clone(),
                dims: constant.dims.clone(),
                precision: constant.precision,
                values,
            });
        }
        network.layers.clear();
        network.constants.clear();
        networks.push(NetworkInput {
            network,
            layers,
            constants,
        });
    }
    Ok(networks)
}

fn weights(
    container: &Container,
    net: usize,
    id: LayerId,
    layer: &Layer,
    decoder: &mut TileDecoder,
) -> Result<Weights> {
    if layer.form() == TileForm::F32 {
        let values = container.dense_weights(net, id)?;
        return full(&values, &layer.values);
    }
    let mut codes = vec![0; layer.shape.weights() as usize];
    let mut absent = Vec::new();
    let zero = layer.fill_code();
    // The first code without a value stands for zero: such weights are absent.
    let spare = zero.is_some_and(|zero| usize::from(zero) >= layer.values.codes());
    if spare {
        absent.resize(codes.len(), false);
    }
    let mut buffer = Vec::new();
    for (index, tile) in layer.tiles.iter().enumerate() {
        buffer.clear();
        buffer.resize(tile.weights(), 0);
        decoder.decode(container, net, id, index, TileOut::Codes(&mut buffer))?;
        for_each_weight(&layer.shape, layer.k_order, tile, |from, to| {
            let Some(to) = to else { return };
            match (spare && zero == Some(buffer[from]), absent.get_mut(to)) {
                (true, Some(absent)) => *absent = true,
                _ => codes[to] = buffer[from],
            }
        });
    }
    Ok(Weights::Codes { codes, absent })
}

/// All 256 codes have values: equal bits are an equal value, zeros are absent.
fn full(values: &[f32], kind: &Values) -> Result<Weights> {
    let Some(book) = kind.lut() else {
        return Ok(Weights::F32(values.to_vec()));
    };
    let absent: Vec<bool> = values.iter().map(|value| value.to_bits() == 0).collect();
    let codes = values.iter().zip(&absent).map(|(value, absent)| {
        let same = |own: &f32| *absent || own.to_bits() == value.to_bits();
        let code = book.iter().position(same);
        code.and_then(|code| u8::try_from(code).ok())
            .ok_or_else(|| Error::new(ErrorKind::Input, format!("{value} has no code")))
    });
    Ok(Weights::Codes {
        codes: codes.collect::<Result<_>>()?,
        absent,
    })
}
