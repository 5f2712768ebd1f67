//! The defaults: how a layer is coded when the user says nothing about it.
//!
//! Everything that is a matter of judgement is in this file, so that a better rule replaces one function.

use dcz_format::layer::Steps;

use crate::import::FloatLayer;
use crate::prune::standard_deviation;

/// Bits of a min/max code when none are given (the seed's value for convolutions).
pub const MINMAX_BITS: u8 = 7;

/// What a layer is to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads the network's input.
    First,
    /// A convolution with one input channel per group.
    Depthwise,
    /// Any other convolution.
    Convolution,
    /// The last linear layer.
    LastLinear,
    /// Another linear layer.
    Linear,
}

/// Step of the default grid in standard deviations of a layer.
const STEP: f64 = 0.1;

/// The default grid of a layer: one step for a convolution or linear layer, one per output channel (8 bits over the
/// channel's own range) where a channel has few weights and errors are not averaged out.
pub fn steps(layer: &FloatLayer, weights: &[f32], role: Role) -> Steps {
    match role {
        Role::First | Role::Depthwise => channel_steps(layer, weights, 127.0),
        Role::Convolution | Role::LastLinear | Role::Linear => Steps::Layer(scaled_step(weights, STEP)),
    }
}

/// One step: `c` standard deviations, but large enough for the largest weight.
pub fn scaled_step(weights: &[f32], c: f64) -> f32 {
    let largest = weights.iter().fold(0.0f32, |m, w| m.max(w.abs()));
    positive(((standard_deviation(weights) * c) as f32).max(largest / 127.0))
}

/// One step that spends `levels` positive codes on the largest magnitude.
pub fn ranged_step(weights: &[f32], levels: f32) -> f32 {
    positive(weights.iter().fold(0.0f32, |m, w| m.max(w.abs())) / levels)
}

/// [`ranged_step`] per output channel.
pub fn channel_steps(layer: &FloatLayer, weights: &[f32], levels: f32) -> Steps {
    Steps::Channel(weights.chunks_exact(layer.shape.k().max(1)).map(|channel| ranged_step(channel, levels)).collect())
}

/// A step must be positive and normal: a layer of zeros gets 1.
fn positive(step: f32) -> f32 {
    if step.is_normal() && step > 0.0 { step } else { 1.0 }
}
