//! Records of the file to parameters of the kernels.

use crate::shape::{self, ShapeReason};
use dcz_format::graph::{self, Activation, Conv, Pads, Pool, Resize, ResizeSize};
use dcz_format::layer::LayerShape;
use dcz_kernels::binary::BinaryKind;
use dcz_kernels::norm::{Axis, Norm};
use dcz_kernels::pool::{PoolKind, PoolShape};
use dcz_kernels::resize::{ResizeCoordinates, ResizeMode, ResizeShape};
use dcz_kernels::{Activation as Function, ConvShape};

fn pair(p: [u32; 2]) -> [usize; 2] {
    p.map(|v| v as usize)
}

pub(crate) fn conv_shape(
    conv: &Conv,
    layer: &LayerShape,
    dims: &[usize],
) -> Result<ConvShape, ShapeReason> {
    let [_, in_channels, in_h, in_w] = shape::nchw(dims)?;
    let [v, u] = shape::conv_windows(conv, layer.kernel, in_h, in_w)?;
    Ok(ConvShape {
        in_channels,
        out_channels: layer.out_channels as usize,
        groups: layer.groups as usize,
        kernel: pair(layer.kernel),
        stride: pair(conv.strides),
        dilation: pair(conv.dilations),
        pad_top: v.pad,
        pad_left: u.pad,
        in_h,
        in_w,
        out_h: v.out,
        out_w: u.out,
    })
}

pub(crate) fn pool_shape(pool: &Pool, dims: &[usize]) -> Result<PoolShape, ShapeReason> {
    let [_, _, h, w] = shape::nchw(dims)?;
    let [v, u] = shape::pool_windows(pool, h, w)?;
    let (kernel, stride, dilation) = (pair(pool.kernel), pair(pool.strides), pair(pool.dilations));
    // With SAME padding the trailing amount is what the last window needs.
    let tail = |axis: usize, window: shape::Window, size: usize| {
        let covered = (window.out - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1;
        covered.saturating_sub(size + window.pad)
    };
    let pads = match pool.pads {
        Pads::Explicit(pads) => pads.map(|v| v as usize),
        Pads::SameUpper | Pads::SameLower => [v.pad, u.pad, tail(0, v, h), tail(1, u, w)],
    };
    Ok(PoolShape {
        kind: pool_kind(pool.kind),
        kernel,
        stride,
        dilation,
        pads,
        count_include_pad: pool.count_include_pad,
    })
}

pub(crate) fn pool_kind(kind: graph::PoolKind) -> PoolKind {
    match kind {
        graph::PoolKind::Max => PoolKind::Max,
        graph::PoolKind::Average => PoolKind::Average,
    }
}

pub(crate) fn binary_kind(kind: graph::BinaryKind) -> BinaryKind {
    match kind {
        graph::BinaryKind::Add => BinaryKind::Add,
        graph::BinaryKind::Sub => BinaryKind::Sub,
        graph::BinaryKind::Mul => BinaryKind::Mul,
        graph::BinaryKind::Div => BinaryKind::Div,
    }
}

pub(crate) fn resize_shape(
    resize: &Resize,
    dims: &[usize],
) -> Result<(ResizeShape, usize), ShapeReason> {
    let [_, _, h, w] = shape::nchw(dims)?;
    let [out_h, out_w] = shape::resize_output(resize, h, w)?;
    let scale = match resize.size {
        ResizeSize::Scales(scales) => scales,
        ResizeSize::Fixed(_) => [out_h as f32 / h as f32, out_w as f32 / w as f32],
    };
    let mode = match resize.mode {
        graph::ResizeMode::NearestFloor => ResizeMode::NearestFloor,
        graph::ResizeMode::NearestCeil => ResizeMode::NearestCeil,
        graph::ResizeMode::NearestPreferFloor => ResizeMode::NearestPreferFloor,
        graph::ResizeMode::NearestPreferCeil => ResizeMode::NearestPreferCeil,
        graph::ResizeMode::Linear => ResizeMode::Linear,
    };
    let coordinates = match resize.coordinates {
        graph::ResizeCoordinates::Asymmetric => ResizeCoordinates::Asymmetric,
        graph::ResizeCoordinates::HalfPixel => ResizeCoordinates::HalfPixel,
        graph::ResizeCoordinates::PytorchHalfPixel => ResizeCoordinates::PytorchHalfPixel,
        graph::ResizeCoordinates::AlignCorners => ResizeCoordinates::AlignCorners,
    };
    Ok((
        ResizeShape {
            mode,
            coordinates,
            scale,
            in_h: h,
            out_h,
        },
        out_w,
    ))
}

/// Elements before, within and after the axes `from..to`, which shape inference has checked.
pub(crate) fn axis(dims: &[usize], from: usize, to: usize) -> Axis {
    let product = |range: &[usize]| range.iter().product();
    Axis {
        outer: product(&dims[..from]),
        len: product(&dims[from..to]),
        inner: product(&dims[to..]),
    }
}

/// p is 1 or 2 (checked by shape inference).
pub(crate) fn norm(p: u8) -> Norm {
    if p == 1 { Norm::L1 } else { Norm::L2 }
}

pub(crate) fn function(activation: Activation) -> Function<'static> {
    match activation {
        Activation::Relu => Function::Relu,
        Activation::LeakyRelu { alpha } => Function::LeakyRelu(alpha),
        Activation::Clip { min, max } => Function::Clip(min, max),
        Activation::Sigmoid => Function::Sigmoid,
        Activation::HardSigmoid { alpha, beta } => Function::HardSigmoid { alpha, beta },
        Activation::HardSwish => Function::HardSwish,
        Activation::Mish => Function::Mish,
        Activation::Silu => Function::Silu,
        Activation::Tanh => Function::Tanh,
        Activation::Sqrt => Function::Sqrt,
        Activation::Exp => Function::Exp,
    }
}

/// Strides of a row-major tensor of these dimensions.
pub(crate) fn row_major(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    strides
}
