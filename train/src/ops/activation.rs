//! Element-wise functions and their derivatives.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use dcz_format::graph::Activation;
use rayon::prelude::*;

use super::{floats, tensor, vectorised, with_floats};

const CHUNK: usize = 1 << 14;

/// An element-wise function.
#[derive(Clone, Copy, Debug)]
pub struct Elementwise(pub Activation);

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

/// The function.
pub fn value(kind: Activation, x: f32) -> f32 {
    match kind {
        Activation::Relu => x.max(0.0),
        Activation::LeakyRelu { alpha } => {
            if x < 0.0 {
                alpha * x
            } else {
                x
            }
        }
        Activation::Clip { min, max } => x.max(min).min(max),
        Activation::Sigmoid => sigmoid(x),
        Activation::HardSigmoid { alpha, beta } => (alpha * x + beta).clamp(0.0, 1.0),
        Activation::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Activation::Mish => x * softplus(x).tanh(),
        Activation::Silu => x * sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Sqrt => x.sqrt(),
        Activation::Exp => x.exp(),
    }
}

/// Its derivative at `x`, where it has one (0 or the slope to the right elsewhere).
pub fn derivative(kind: Activation, x: f32) -> f32 {
    let step = |inside: bool, slope: f32| if inside { slope } else { 0.0 };
    match kind {
        Activation::Relu => step(x > 0.0, 1.0),
        Activation::LeakyRelu { alpha } => {
            if x < 0.0 {
                alpha
            } else {
                1.0
            }
        }
        Activation::Clip { min, max } => step(x >= min && x <= max, 1.0),
        Activation::Sigmoid => sigmoid(x) * (1.0 - sigmoid(x)),
        Activation::HardSigmoid { alpha, beta } => {
            step((0.0..=1.0).contains(&(alpha * x + beta)), alpha)
        }
        Activation::HardSwish => {
            if x <= -3.0 {
                0.0
            } else if x >= 3.0 {
                1.0
            } else {
                x / 3.0 + 0.5
            }
        }
        Activation::Mish => {
            let t = softplus(x).tanh();
            t + x * (1.0 - t * t) * sigmoid(x)
        }
        Activation::Silu => {
            let s = sigmoid(x);
            s + x * s * (1.0 - s)
        }
        Activation::Tanh => 1.0 - x.tanh().powi(2),
        Activation::Sqrt => step(x > 0.0, 0.5 / x.max(f32::MIN_POSITIVE).sqrt()),
        Activation::Exp => x.exp(),
    }
}

impl CustomOp1 for Elementwise {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = floats(x, layout)?;
        let mut y = vec![0.0f32; x.len()];
        y.par_chunks_mut(CHUNK)
            .zip(x.par_chunks(CHUNK))
            .for_each(|(y, x)| {
                vectorised(
                    #[inline(always)]
                    || match self.0 {
                        Activation::Relu => y.iter_mut().zip(x).for_each(|(y, x)| *y = x.max(0.0)),
                        kind => y.iter_mut().zip(x).for_each(|(y, x)| *y = value(kind, *x)),
                    },
                );
            });
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dx = with_floats(dy, |dy| {
            with_floats(x, |x| {
                let mut dx = vec![0.0f32; x.len()];
                dx.par_chunks_mut(CHUNK)
                    .zip(x.par_chunks(CHUNK).zip(dy.par_chunks(CHUNK)))
                    .for_each(|(dx, (x, dy))| {
                        vectorised(
                            #[inline(always)]
                            || {
                                for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
                                    *dx = match self.0 {
                                        Activation::Relu if *x > 0.0 => *dy,
                                        Activation::Relu => 0.0,
                                        kind => derivative(kind, *x) * dy,
                                    };
                                }
                            },
                        );
                    });
                Ok(dx)
            })
        })?;
        Ok(Some(tensor(dx, x.dims())?))
    }
}
