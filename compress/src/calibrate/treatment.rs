//! What happens to each layer of a calibrated network.

use dcz_format::writer::LayerInput;

use crate::defaults;
use crate::encode::{by_role, quantise_with_weights, roles};
use crate::error::Error;
use crate::import::FloatNetwork;
use crate::prune;
use crate::quantize;
use crate::settings::{AllSettings, Prune, Quantize, Settings};

/// What happens to a layer.
#[derive(Clone, Debug)]
pub enum Treatment {
    /// Rounded with what the images say.
    Round {
        /// Weights that must become zero; empty: none.
        zeros: Vec<bool>,
        /// Largest code.
        limit: i8,
    },
    /// As its own settings say, or bit-exactly for few distinct values; layers after it make up for it.
    Fixed {
        /// The coded layer.
        input: Box<LayerInput>,
        /// Its weights.
        weights: Vec<f32>,
    },
}

impl Treatment {
    /// Not rounded here.
    pub fn is_fixed(&self) -> bool {
        matches!(self, Treatment::Fixed { .. })
    }
}

/// The treatments of all layers.
///
/// Errors: [`Error::Usage`] for general settings that contradict calibration and when nothing is left to round;
/// [`Error::Malformed`] for weights that are not finite.
pub fn treatments(float: &FloatNetwork, all: &AllSettings) -> Result<Vec<Treatment>, Error> {
    if matches!(all.general.quantize, Some(kind) if kind != Quantize::Grid) {
        return Err(Error::Usage(
            "--calibration rounds to grids; --quantize minmax, codebook and none are for single layers (--layer)".into(),
        ));
    }
    if all.general.step.is_some() {
        return Err(Error::Usage(
            "--calibration chooses the steps; say how far to go with --target, or a step for one layer with --layer".into(),
        ));
    }
    let roles = roles(&float.network, &float.layers);
    let plan = defaults::plan(&float.layers, &roles);
    let mut list = Vec::with_capacity(float.layers.len());
    for ((layer, role), default) in float.layers.iter().zip(roles).zip(plan) {
        let own = all.layers.get(&layer.name).copied().unwrap_or_default();
        let own = Settings { index: None, ..own };
        let exact = all.general.quantize.is_none()
            && quantize::distinct(&layer.weights).is_some_and(|counts| {
                quantize::codebook_bytes(&counts) < 4.0 * layer.weights.len() as f64
            });
        if exact || own != Settings::default() {
            let (input, weights) = quantise_with_weights(layer.clone(), role, default, all, None)?;
            list.push(Treatment::Fixed {
                input: Box::new(input),
                weights,
            });
            continue;
        }
        if let Some(at) = layer.weights.iter().position(|w| !w.is_finite()) {
            return Err(Error::Malformed(format!(
                "layer '{}': weight {at} is {}",
                layer.name, layer.weights[at]
            )));
        }
        let rule = by_role(all.general.prune.unwrap_or_default(), role, false);
        let mut zeros = Vec::new();
        if rule != Prune::None {
            let mut weights = layer.weights.clone();
            prune::prune_layer(
                &mut weights,
                &layer.shape,
                rule,
                all.general.prune_block.unwrap_or(1),
            );
            zeros = weights.iter().map(|&w| w == 0.0).collect();
        }
        let limit = all
            .general
            .bits
            .map_or(127, |bits| ((1u16 << (bits.max(1) - 1)) - 1).max(1) as i8);
        list.push(Treatment::Round { zeros, limit });
    }
    if list.iter().all(Treatment::is_fixed) {
        return Err(Error::Usage(
            "nothing to calibrate: every layer has settings of its own or at most 256 distinct values (--quantize grid rounds those too)".into(),
        ));
    }
    Ok(list)
}
