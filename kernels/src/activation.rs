//! Element-wise functions of one operand, alone or as the last step of a convolution.
//!
//! Plain scalar code that the compiler vectorises; one rounding order on every instruction set.

use crate::math;
use crate::shape::{Map, View, ViewMut};
use crate::simd::Simd;

/// An element-wise function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation<'a> {
    /// `x`
    None,
    /// `max(x, 0)`
    Relu,
    /// `x < 0 ? alpha * x : x`
    LeakyRelu(f32),
    /// `x < 0 ? slope * x : x` with one slope, or one per channel.
    Prelu(&'a [f32]),
    /// `min(max(x, low), high)`
    Clip(f32, f32),
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `clip(alpha * x + beta, 0, 1)`
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Offset.
        beta: f32,
    },
    /// `x * clip(x / 6 + 0.5, 0, 1)`
    HardSwish,
    /// `x * tanh(ln(1 + exp(x)))`
    Mish,
    /// `x * sigmoid(x)`
    Silu,
    /// Hyperbolic tangent.
    Tanh,
    /// Square root.
    Sqrt,
    /// `exp(x)`
    Exp,
}

/// What happens to a finished sum: `activation(sum + bias)`.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    /// One value per output channel.
    pub bias: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation<'a>,
}

impl Epilogue<'_> {
    /// Applies to values of one output channel.
    pub(crate) fn apply(&self, channel: usize, values: &mut [f32]) {
        if let Some(bias) = self.bias {
            let b = bias[channel];
            values.iter_mut().for_each(|v| *v += b);
        }
        activate(&self.activation, channel, values);
    }

    /// Whether [`Epilogue::apply_vector`] can do it.
    pub(crate) fn is_simple(&self) -> bool {
        matches!(
            self.activation,
            Activation::None
                | Activation::Relu
                | Activation::LeakyRelu(_)
                | Activation::Prelu(_)
                | Activation::Clip(..)
        )
    }

    /// The same for one vector and the simple functions: equal bits.
    #[inline(always)]
    pub(crate) fn apply_vector<S: Simd>(&self, simd: S, channel: usize, v: S::V) -> S::V {
        let v = match self.bias {
            Some(bias) => simd.add(v, simd.splat(bias[channel])),
            None => v,
        };
        let leaky = |slope: f32| {
            let zero = simd.splat(0.0);
            simd.select_less(v, zero, simd.mul(simd.splat(slope), v), v)
        };
        match self.activation {
            Activation::Relu => {
                let zero = simd.splat(0.0);
                simd.select_less(v, zero, zero, v)
            }
            Activation::LeakyRelu(alpha) => leaky(alpha),
            Activation::Prelu(slopes) => leaky(prelu_slope(slopes, channel)),
            Activation::Clip(low, high) => {
                let (low, high) = (simd.splat(low), simd.splat(high));
                let v = simd.select_less(v, low, low, v);
                simd.select_less(high, v, high, v)
            }
            _ => v,
        }
    }
}

#[inline(always)]
fn prelu_slope(slopes: &[f32], channel: usize) -> f32 {
    if slopes.len() == 1 {
        slopes[0]
    } else {
        slopes[channel]
    }
}

/// Applies `activation` to values of one channel (which only [`Activation::Prelu`] looks at).
pub fn activate(activation: &Activation<'_>, channel: usize, values: &mut [f32]) {
    #[inline(always)]
    fn each(values: &mut [f32], f: impl Fn(f32) -> f32) {
        values.iter_mut().for_each(|v| *v = f(*v));
    }
    match *activation {
        Activation::None => {}
        Activation::Relu => each(values, |x| if x < 0.0 { 0.0 } else { x }),
        Activation::LeakyRelu(alpha) => each(values, |x| if x < 0.0 { alpha * x } else { x }),
        Activation::Prelu(slopes) => {
            let slope = prelu_slope(slopes, channel);
            each(values, |x| if x < 0.0 { slope * x } else { x });
        }
        Activation::Clip(low, high) => each(values, |x| clip(x, low, high)),
        Activation::Sigmoid => each(values, math::sigmoid),
        Activation::HardSigmoid { alpha, beta } => {
            each(values, |x| clip(alpha * x + beta, 0.0, 1.0));
        }
        Activation::HardSwish => each(values, |x| x * clip(x / 6.0 + 0.5, 0.0, 1.0)),
        Activation::Mish => each(values, math::mish),
        Activation::Silu => each(values, |x| x * math::sigmoid(x)),
        Activation::Tanh => each(values, math::tanh),
        Activation::Sqrt => each(values, f32::sqrt),
        Activation::Exp => each(values, math::exp),
    }
}

/// NaN stays NaN; `high` wins when the limits cross, as in ONNX.
#[inline(always)]
fn clip(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// Applies to a whole map in place.
pub fn activation_in_place(activation: &Activation<'_>, out: &mut ViewMut<'_>) {
    let map = out.map;
    for (channel, at, len) in runs(map) {
        activate(activation, channel, &mut out.data[at..at + len]);
    }
}

/// Applies to a whole map; both maps have the same dimensions, the memory layout may differ.
pub fn activation(activation: &Activation<'_>, input: View<'_>, out: &mut ViewMut<'_>) {
    crate::layout::copy_view(input, out);
    activation_in_place(activation, out);
}

/// The contiguous stretches of a map that belong to one channel: (channel, offset, length).
fn runs(map: Map) -> impl Iterator<Item = (usize, usize, usize)> {
    // Rows of a channel that follow each other without a gap are one stretch.
    let joined = map.row == map.w;
    let (steps, len) = if joined {
        (1, map.h * map.w)
    } else {
        (map.h, map.w)
    };
    let steps = if map.is_empty() { 0 } else { steps };
    (0..map.n).flat_map(move |n| {
        (0..steps).flat_map(move |h| (0..map.c).map(move |c| (c, map.at(n, c, h), len)))
    })
}
