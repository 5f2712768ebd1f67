//! One naive oracle per operation: f64 accumulation, plain NCHW slices, no cleverness. Slow by
//! design; never optimised. Inputs are f32 or f64. Allocates, so it is for tests and tools only.

use crate::activation::Activation;
use crate::binary::BinaryKind;
use crate::conv::ConvShape;
use crate::norm::{Axis, Norm};
use crate::pool::{PoolKind, PoolShape};
use crate::resize::{ResizeCoordinates, ResizeMode, ResizeShape};

/// Convolution of one image `[in_channels][in_h][in_w]` with weights `[out][in/group][kh][kw]`.
/// Returns `[out_channels][out_h][out_w]` and, in the same order, the sum of the magnitudes of all
/// products: the unit of an error bound.
pub fn conv<T: Copy + Into<f64>>(
    shape: &ConvShape,
    weights: &[f32],
    input: &[T],
) -> (Vec<f64>, Vec<f64>) {
    let (per_group, [kh, kw]) = (shape.in_per_group(), shape.kernel);
    let (mut sums, mut sizes) = (Vec::new(), Vec::new());
    for oc in 0..shape.out_channels {
        let first = oc / shape.out_per_group() * per_group;
        for oy in 0..shape.out_h {
            for ox in 0..shape.out_w {
                let (mut sum, mut size) = (0f64, 0f64);
                for ic in 0..per_group {
                    for ky in 0..kh {
                        for kx in 0..kw {
                            let y = (oy * shape.stride[0] + ky * shape.dilation[0])
                                .checked_sub(shape.pad_top);
                            let x = (ox * shape.stride[1] + kx * shape.dilation[1])
                                .checked_sub(shape.pad_left);
                            let (Some(y), Some(x)) = (y, x) else { continue };
                            if y >= shape.in_h || x >= shape.in_w {
                                continue;
                            }
                            let w = weights[((oc * per_group + ic) * kh + ky) * kw + kx];
                            let v = input[((first + ic) * shape.in_h + y) * shape.in_w + x];
                            let product = f64::from(w) * v.into();
                            sum += product;
                            size += product.abs();
                        }
                    }
                }
                sums.push(sum);
                sizes.push(size);
            }
        }
    }
    (sums, sizes)
}

/// `x W^T` for `x` of `[n][k]` and weights `[out][k]`; returns `[n][out]` and the sums of
/// magnitudes as [`conv`] does.
pub fn linear(weights: &[f32], k: usize, x: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let (mut sums, mut sizes) = (Vec::new(), Vec::new());
    for row in x.chunks_exact(k) {
        for w in weights.chunks_exact(k) {
            let products = || {
                w.iter()
                    .zip(row)
                    .map(|(&w, &x)| f64::from(w) * f64::from(x))
            };
            sums.push(products().sum());
            sizes.push(products().map(f64::abs).sum());
        }
    }
    (sums, sizes)
}

/// An element-wise function of one value of a channel.
pub fn activate(activation: &Activation<'_>, channel: usize, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let leaky = |slope: f32| if x < 0.0 { f64::from(slope) * x } else { x };
    match *activation {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::LeakyRelu(alpha) => leaky(alpha),
        Activation::Prelu(slopes) if slopes.len() == 1 => leaky(slopes[0]),
        Activation::Prelu(slopes) => leaky(slopes[channel]),
        Activation::Clip(low, high) => x.max(f64::from(low)).min(f64::from(high)),
        Activation::Sigmoid => sigmoid(x),
        Activation::HardSigmoid { alpha, beta } => {
            (f64::from(alpha) * x + f64::from(beta)).clamp(0.0, 1.0)
        }
        Activation::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Activation::Mish => x * x.exp().ln_1p().tanh(),
        Activation::Silu => x * sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Sqrt => x.sqrt(),
        Activation::Exp => x.exp(),
    }
}

/// One arithmetic operation.
pub fn binary(kind: BinaryKind, a: f64, b: f64) -> f64 {
    match kind {
        BinaryKind::Add => a + b,
        BinaryKind::Sub => a - b,
        BinaryKind::Mul => a * b,
        BinaryKind::Div => a / b,
    }
}

/// Windowed pooling of `[planes][in_h][in_w]`.
pub fn pool<T: Copy + Into<f64>>(
    shape: &PoolShape,
    input: &[T],
    in_hw: [usize; 2],
    out_hw: [usize; 2],
) -> Vec<f64> {
    let [h, w] = in_hw;
    let [top, left, bottom, right] = shape.pads;
    let mut out = Vec::new();
    for plane in input.chunks_exact(h * w) {
        for oy in 0..out_hw[0] {
            for ox in 0..out_hw[1] {
                let (mut best, mut sum, mut inside, mut padded) =
                    (f64::NEG_INFINITY, 0f64, 0usize, 0usize);
                for ky in 0..shape.kernel[0] {
                    for kx in 0..shape.kernel[1] {
                        let y = oy * shape.stride[0] + ky * shape.dilation[0];
                        let x = ox * shape.stride[1] + kx * shape.dilation[1];
                        if y < h + top + bottom && x < w + left + right {
                            padded += 1;
                        }
                        if y >= top && y < top + h && x >= left && x < left + w {
                            let v: f64 = plane[(y - top) * w + x - left].into();
                            (best, sum, inside) = (best.max(v), sum + v, inside + 1);
                        }
                    }
                }
                let count = if shape.count_include_pad {
                    padded
                } else {
                    inside
                };
                out.push(match shape.kind {
                    PoolKind::Max => best,
                    PoolKind::Average => sum / count.max(1) as f64,
                });
            }
        }
    }
    out
}

/// One value per plane of `plane` elements.
pub fn global_pool<T: Copy + Into<f64>>(kind: PoolKind, input: &[T], plane: usize) -> Vec<f64> {
    let of = |values: &[T]| match kind {
        PoolKind::Max => values
            .iter()
            .map(|&v| v.into())
            .fold(f64::NEG_INFINITY, f64::max),
        PoolKind::Average => values.iter().map(|&v| v.into()).sum::<f64>() / plane as f64,
    };
    input.chunks_exact(plane).map(of).collect()
}

/// Resampling of `[planes][in_h][in_w]`.
pub fn resize<T: Copy + Into<f64>>(
    shape: &ResizeShape,
    input: &[T],
    in_hw: [usize; 2],
    out_w: usize,
) -> Vec<f64> {
    let [h, w] = in_hw;
    // Coordinates are defined in f32: at an exact tie of a nearest mode, f64 would choose otherwise.
    let position = |axis: usize, o: usize, out_len: usize, in_len: usize| {
        let (o, scale) = (o as f32, shape.scale[axis]);
        f64::from(match shape.coordinates {
            ResizeCoordinates::Asymmetric => o / scale,
            ResizeCoordinates::PytorchHalfPixel if out_len == 1 => 0.0,
            ResizeCoordinates::HalfPixel | ResizeCoordinates::PytorchHalfPixel => {
                (o + 0.5) / scale - 0.5
            }
            ResizeCoordinates::AlignCorners if out_len == 1 => 0.0,
            ResizeCoordinates::AlignCorners => o * (in_len - 1) as f32 / (out_len - 1) as f32,
        })
    };
    let nearest = |x: f64, len: usize| {
        let rounded = match shape.mode {
            ResizeMode::NearestFloor | ResizeMode::Linear => x.floor(),
            ResizeMode::NearestCeil => x.ceil(),
            ResizeMode::NearestPreferFloor => (x - 0.5).ceil(),
            ResizeMode::NearestPreferCeil => (x + 0.5).floor(),
        };
        rounded.clamp(0.0, (len - 1) as f64) as usize
    };
    let mut out = Vec::new();
    for plane in input.chunks_exact(h * w) {
        let at = |y: usize, x: usize| -> f64 { plane[y.min(h - 1) * w + x.min(w - 1)].into() };
        for oy in 0..shape.out_h {
            let y = position(0, oy, shape.out_h, h);
            for ox in 0..out_w {
                let x = position(1, ox, out_w, w);
                if shape.mode == ResizeMode::Linear {
                    let (y, x) = (y.clamp(0.0, (h - 1) as f64), x.clamp(0.0, (w - 1) as f64));
                    let (y0, x0) = (y as usize, x as usize);
                    let (fy, fx) = (y.fract(), x.fract());
                    let top = at(y0, x0) * (1.0 - fx) + at(y0, x0 + 1) * fx;
                    let bottom = at(y0 + 1, x0) * (1.0 - fx) + at(y0 + 1, x0 + 1) * fx;
                    out.push(top * (1.0 - fy) + bottom * fy);
                } else {
                    out.push(at(nearest(y, h), nearest(x, w)));
                }
            }
        }
    }
    out
}

/// `exp(x) / sum(exp(x))` along an axis.
pub fn softmax<T: Copy + Into<f64>>(axis: Axis, data: &[T]) -> Vec<f64> {
    along(axis, data, |line| {
        let max = line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = line.iter().map(|x| (x - max).exp()).sum();
        line.iter_mut().for_each(|x| *x = (*x - max).exp() / sum);
    })
}

/// `x / max(norm(x), epsilon)` along an axis.
pub fn lp_normalize<T: Copy + Into<f64>>(
    norm: Norm,
    epsilon: f32,
    axis: Axis,
    data: &[T],
) -> Vec<f64> {
    along(axis, data, |line| {
        let size = match norm {
            Norm::L1 => line.iter().map(|x| x.abs()).sum::<f64>(),
            Norm::L2 => line.iter().map(|x| x * x).sum::<f64>().sqrt(),
        };
        let size = size.max(f64::from(epsilon));
        line.iter_mut()
            .for_each(|x| *x = if size > 0.0 { *x / size } else { *x });
    })
}

fn along<T: Copy + Into<f64>>(axis: Axis, data: &[T], f: impl Fn(&mut [f64])) -> Vec<f64> {
    let mut out: Vec<f64> = data.iter().map(|&v| v.into()).collect();
    for o in 0..axis.outer {
        for i in 0..axis.inner {
            let at = |k: usize| (o * axis.len + k) * axis.inner + i;
            let mut line: Vec<f64> = (0..axis.len).map(|k| out[at(k)]).collect();
            f(&mut line);
            for (k, v) in line.into_iter().enumerate() {
                out[at(k)] = v;
            }
        }
    }
    out
}
