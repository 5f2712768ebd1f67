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

/// The simple functions come in two kinds, so that a kernel is compiled twice and not once for each of them.
impl Activation<'_> {
    /// Of a function that keeps values within limits: the limits.
    pub(crate) fn limits(&self) -> Option<(f32, f32)> {
        match *self {
            Activation::Relu => Some((0.0, f32::INFINITY)),
            Activation::Clip(low, high) => Some((low, high)),
            _ => None,
        }
    }

    /// Of a function that scales what is below 0: the factor; 1 if there is no function.
    pub(crate) fn slope(&self, channel: usize) -> f32 {
        match *self {
            Activation::LeakyRelu(slope) => slope,
            Activation::Prelu(slopes) => prelu_slope(slopes, channel),
            _ => 1.0,
        }
    }
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

    /// Whether [`Epilogue::with_vectors`] can do it.
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
}

/// An epilogue of one channel on vectors: equal bits as [`Epilogue::apply`]. One type for each simple function, so that
/// a loop over vectors does not ask which it is.
pub(crate) trait VectorFunction: Copy {
    /// The function.
    fn apply<S: Simd>(self, simd: S, v: S::V) -> S::V;
}

/// What a [`VectorFunction`] is applied to.
pub(crate) trait Vectors {
    /// Whether a loop for each function is worth its code.
    const FAST: bool;
    /// Adds `bias` if there is one, then applies `function`.
    fn finish<F: VectorFunction>(self, bias: Option<f32>, function: F);
}

/// Hands the epilogue of one channel, none or a simple one, to `vectors`.
#[inline(always)]
pub(crate) fn finish_vectors<V: Vectors>(
    epilogue: Option<&Epilogue<'_>>,
    channel: usize,
    vectors: V,
) {
    let activation = epilogue.map_or(Activation::None, |e| e.activation);
    let bias = epilogue.and_then(|e| e.bias).map(|bias| bias[channel]);
    if !V::FAST {
        return vectors.finish(bias, Any(activation, channel));
    }
    match activation.limits() {
        Some((low, high)) => vectors.finish(bias, Between(low, high)),
        None => vectors.finish(bias, Leaky(activation.slope(channel))),
    }
}

/// `x < 0 ? slope * x : x`
#[derive(Clone, Copy)]
struct Leaky(f32);
/// `min(max(x, low), high)`
#[derive(Clone, Copy)]
struct Between(f32, f32);

/// Whichever it is, of this channel.
#[derive(Clone, Copy)]
struct Any<'a>(Activation<'a>, usize);

impl VectorFunction for Any<'_> {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, v: S::V) -> S::V {
        match self.0.limits() {
            Some((low, high)) => Between(low, high).apply(simd, v),
            None => Leaky(self.0.slope(self.1)).apply(simd, v),
        }
    }
}

impl VectorFunction for Leaky {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, v: S::V) -> S::V {
        let scaled = simd.mul(simd.splat(self.0), v);
        simd.select_less(v, simd.splat(0.0), scaled, v)
    }
}

impl VectorFunction for Between {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, v: S::V) -> S::V {
        let (low, high) = (simd.splat(self.0), simd.splat(self.1));
        simd.at_most(simd.at_least(v, low), high)
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
    let alike = !matches!(activation, Activation::Prelu(slopes) if slopes.len() > 1);
    for (channel, at, len) in runs(map, alike) {
        activate(activation, channel, &mut out.data[at..at + len]);
    }
}

/// Applies to a whole map; both maps have the same dimensions, the memory layout may differ.
pub fn activation(activation: &Activation<'_>, input: View<'_>, out: &mut ViewMut<'_>) {
    crate::layout::copy_view(input, out);
    activation_in_place(activation, out);
}

/// The contiguous stretches of a map that belong to one channel, or to several where channels are `alike`: (channel, offset, length).
fn runs(map: Map, alike: bool) -> impl Iterator<Item = (usize, usize, usize)> {
    // Rows of a channel that follow each other without a gap are one stretch.
    let joined = map.row == map.w;
    let (steps, len) = if joined {
        (1, map.h * map.w)
    } else {
        (map.h, map.w)
    };
    let steps = if map.is_empty() { 0 } else { steps };
    let (channels, len) = match alike && map.channel == len {
        true => (1, map.c * len),
        false => (map.c, len),
    };
    (0..map.n).flat_map(move |n| {
        (0..steps).flat_map(move |h| (0..channels).map(move |c| (c, map.at(n, c, h), len)))
    })
}
