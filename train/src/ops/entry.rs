//! What is done to a value as the next operation reads it: the bias of the operation before, then a function.
//!
//! A map is stored once, as it comes out of a convolution. Bias and slope are applied to the part of it that an operation just
//! holds in the cache, in the forward pass and again in the backward pass: that is far cheaper than storing and reading two
//! more maps. The gradients of bias and slope are sums over the same part.

use dcz_format::graph::Activation;

use super::activation::{derivative, value};
use super::param::Param;
use super::{LANES, sum};

/// A function of one value.
#[derive(Clone, Debug)]
pub enum Function {
    /// The value itself.
    Identity,
    /// `x < 0 ? p x : x` with a slope per channel, or one for all.
    Slopes(Param),
    /// Without parameters.
    Fixed(Activation),
}

/// Bias and function, for all channels.
#[derive(Clone, Debug)]
pub struct Entry {
    /// One per channel, or one for all.
    pub bias: Option<Param>,
    /// Applied after the bias.
    pub function: Function,
}

/// Bias and function of one channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    bias: f32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Identity,
    Slope(f32),
    Relu,
    Other(Activation),
}

impl Entry {
    /// Nothing is done.
    pub const NONE: Entry = Entry {
        bias: None,
        function: Function::Identity,
    };

    /// Whether values are read as they are.
    pub(crate) fn is_none(&self) -> bool {
        self.bias.is_none() && matches!(self.function, Function::Identity)
    }

    /// By channel.
    pub(crate) fn points(&self, channels: usize) -> Vec<Point> {
        let of = |param: &Param, c: usize| param.values[c % param.values.len().max(1)];
        (0..channels)
            .map(|c| Point {
                bias: self.bias.as_ref().map_or(0.0, |b| of(b, c)),
                kind: match &self.function {
                    Function::Identity => Kind::Identity,
                    Function::Slopes(slopes) => Kind::Slope(of(slopes, c)),
                    Function::Fixed(Activation::Relu) => Kind::Relu,
                    Function::Fixed(kind) => Kind::Other(*kind),
                },
            })
            .collect()
    }

    /// Takes the gradients of bias and slope of every channel.
    pub(crate) fn learn(&self, sums: &[[f32; 2]]) {
        let slopes = match &self.function {
            Function::Slopes(slopes) => Some(slopes),
            _ => None,
        };
        for (which, param) in [self.bias.as_ref(), slopes].into_iter().enumerate() {
            let Some(param) = param else { continue };
            let count = param.values.len().max(1);
            let mut gradient = vec![0.0; count];
            for (c, sums) in sums.iter().enumerate() {
                gradient[c % count] += sums[which];
            }
            param.add(gradient);
        }
    }
}

impl Point {
    /// `y = f(x + b)`.
    #[inline(always)]
    pub(crate) fn apply(self, y: &mut [f32], x: &[f32]) {
        let b = self.bias;
        let n = y.len().min(x.len());
        let (y, x) = (&mut y[..n], &x[..n]);
        match self.kind {
            Kind::Identity => {
                for i in 0..n {
                    y[i] = x[i] + b;
                }
            }
            Kind::Relu => {
                for i in 0..n {
                    y[i] = (x[i] + b).max(0.0);
                }
            }
            Kind::Slope(p) => {
                for i in 0..n {
                    let u = x[i] + b;
                    y[i] = if u < 0.0 { p * u } else { u };
                }
            }
            Kind::Other(kind) => {
                for i in 0..n {
                    y[i] = value(kind, x[i] + b);
                }
            }
        }
    }

    /// Turns a gradient of `y` into one of `x`; returns those of bias and slope.
    #[inline(always)]
    pub(crate) fn backward(self, d: &mut [f32], x: &[f32]) -> [f32; 2] {
        let b = self.bias;
        let n = d.len().min(x.len());
        let (d, x) = (&mut d[..n], &x[..n]);
        match self.kind {
            Kind::Identity => [sum(d), 0.0],
            Kind::Relu => {
                for i in 0..n {
                    d[i] = if x[i] + b > 0.0 { d[i] } else { 0.0 };
                }
                [sum(d), 0.0]
            }
            Kind::Slope(p) => {
                let (mut bias, mut slope) = ([0.0f32; LANES], [0.0f32; LANES]);
                let whole = n / LANES * LANES;
                for at in (0..whole).step_by(LANES) {
                    let (d, x) = (&mut d[at..at + LANES], &x[at..at + LANES]);
                    for i in 0..LANES {
                        slope[i] += slope_backward(p, &mut d[i], x[i] + b);
                        bias[i] += d[i];
                    }
                }
                for i in whole..n {
                    slope[i - whole] += slope_backward(p, &mut d[i], x[i] + b);
                    bias[i - whole] += d[i];
                }
                let mut sums = [0.0f32; 2];
                for i in 0..LANES {
                    sums[0] += bias[i];
                    sums[1] += slope[i];
                }
                sums
            }
            Kind::Other(kind) => {
                for i in 0..n {
                    d[i] *= derivative(kind, x[i] + b);
                }
                [sum(d), 0.0]
            }
        }
    }
}

/// Turns the gradient of a value behind slope `p` into that of `u` before it; returns its part of the slope's.
#[inline(always)]
fn slope_backward(p: f32, d: &mut f32, u: f32) -> f32 {
    let below = u < 0.0;
    let part = if below { u * *d } else { 0.0 };
    *d = if below { p * *d } else { *d };
    part
}

/// `total += part`, by channel.
pub(crate) fn add_sums(total: &mut [[f32; 2]], part: &[[f32; 2]]) {
    for (total, part) in total.iter_mut().zip(part) {
        total[0] += part[0];
        total[1] += part[1];
    }
}
