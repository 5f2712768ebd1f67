//! Operators.

use super::{Reader, Writer};
use crate::error::Result;
use crate::graph::*;

const MAX_AXES: u64 = 8;

pub(super) fn write_op(w: &mut Writer, op: &Op) {
    match op {
        Op::Conv(conv) => {
            w.u8(0);
            w.uint(conv.layer.0);
            write_const(w, conv.bias);
            write_pair(w, conv.strides);
            write_pair(w, conv.dilations);
            write_pads(w, &conv.pads);
        }
        Op::Linear { layer, bias } => {
            w.u8(1);
            w.uint(layer.0);
            write_const(w, *bias);
        }
        Op::Activation(activation) => {
            w.u8(2);
            write_activation(w, activation);
        }
        Op::Prelu { slope } => {
            w.u8(3);
            w.uint(slope.0);
        }
        Op::Binary(kind) => {
            w.u8(4);
            w.u8(binary_tag(*kind));
        }
        Op::BinaryConst {
            kind,
            constant,
            constant_first,
        } => {
            w.u8(5);
            w.u8(binary_tag(*kind));
            w.uint(constant.0);
            w.bool(*constant_first);
        }
        Op::Pool(pool) => {
            w.u8(6);
            w.u8(pool_tag(pool.kind));
            write_pair(w, pool.kernel);
            write_pair(w, pool.strides);
            write_pair(w, pool.dilations);
            write_pads(w, &pool.pads);
            w.bool(pool.ceil_mode);
            w.bool(pool.count_include_pad);
        }
        Op::GlobalPool(kind) => {
            w.u8(7);
            w.u8(pool_tag(*kind));
        }
        Op::Pad { amounts, value } => {
            w.u8(8);
            w.list(amounts, |w, (before, after)| {
                w.uint(*before);
                w.uint(*after);
            });
            w.f32(*value);
        }
        Op::Concat { axis } => {
            w.u8(9);
            w.u8(*axis);
        }
        Op::Reshape { dims } => {
            w.u8(10);
            w.list(dims, |w, dim| match dim {
                ReshapeDim::Fixed(size) => {
                    w.u8(0);
                    w.uint(*size);
                }
                ReshapeDim::Input { from, to } => {
                    w.u8(1);
                    w.u8(*from);
                    w.u8(*to);
                }
                ReshapeDim::Rest => w.u8(2),
            });
        }
        Op::Transpose { perm } => {
            w.u8(11);
            w.list(perm, |w, axis| w.u8(*axis));
        }
        Op::Slice { ranges } => {
            w.u8(12);
            w.list(ranges, |w, range| {
                w.u8(range.axis);
                w.bool(range.start_from_end);
                w.uint(range.start);
                w.bool(range.end_from_end);
                w.uint(range.end);
                w.uint(range.step);
            });
        }
        Op::Resize(resize) => {
            w.u8(13);
            w.u8(match resize.mode {
                ResizeMode::NearestFloor => 0,
                ResizeMode::NearestCeil => 1,
                ResizeMode::NearestPreferFloor => 2,
                ResizeMode::NearestPreferCeil => 3,
                ResizeMode::Linear => 4,
            });
            w.u8(match resize.coordinates {
                ResizeCoordinates::Asymmetric => 0,
                ResizeCoordinates::HalfPixel => 1,
                ResizeCoordinates::PytorchHalfPixel => 2,
                ResizeCoordinates::AlignCorners => 3,
            });
            match resize.size {
                ResizeSize::Scales(scales) => {
                    w.u8(0);
                    w.f32s(&scales);
                }
                ResizeSize::Fixed(size) => {
                    w.u8(1);
                    write_pair(w, size);
                }
            }
        }
        Op::Softmax { axis, axis_end } => {
            w.u8(14);
            w.u8(*axis);
            w.u8(*axis_end);
        }
        Op::LpNormalize { axis, p, epsilon } => {
            w.u8(15);
            w.u8(*axis);
            w.u8(*p);
            w.f32(*epsilon);
        }
    }
}

pub(super) fn read_op(r: &mut Reader<'_>) -> Result<Op> {
    Ok(match r.u8("operator")? {
        0 => Op::Conv(Conv {
            layer: LayerId(r.uint32("layer")?),
            bias: read_const(r)?,
            strides: read_pair(r, "strides")?,
            dilations: read_pair(r, "dilations")?,
            pads: read_pads(r)?,
        }),
        1 => Op::Linear {
            layer: LayerId(r.uint32("layer")?),
            bias: read_const(r)?,
        },
        2 => Op::Activation(read_activation(r)?),
        3 => Op::Prelu {
            slope: ConstId(r.uint32("slope")?),
        },
        4 => Op::Binary(read_binary(r)?),
        5 => Op::BinaryConst {
            kind: read_binary(r)?,
            constant: ConstId(r.uint32("constant")?),
            constant_first: r.bool("constant first")?,
        },
        6 => Op::Pool(Pool {
            kind: read_pool_kind(r)?,
            kernel: read_pair(r, "kernel")?,
            strides: read_pair(r, "strides")?,
            dilations: read_pair(r, "dilations")?,
            pads: read_pads(r)?,
            ceil_mode: r.bool("ceil mode")?,
            count_include_pad: r.bool("count include pad")?,
        }),
        7 => Op::GlobalPool(read_pool_kind(r)?),
        8 => Op::Pad {
            amounts: r.list("pad amounts", MAX_AXES, 2, |r| {
                Ok((r.uint32("before")?, r.uint32("after")?))
            })?,
            value: r.f32("pad value")?,
        },
        9 => Op::Concat {
            axis: r.u8("axis")?,
        },
        10 => Op::Reshape {
            dims: r.list("reshape dimensions", MAX_AXES, 1, |r| {
                Ok(match r.u8("reshape dimension")? {
                    0 => ReshapeDim::Fixed(r.uint32("size")?),
                    1 => ReshapeDim::Input {
                        from: r.u8("from")?,
                        to: r.u8("to")?,
                    },
                    2 => ReshapeDim::Rest,
                    tag => return Err(r.bad_tag("reshape dimension", tag)),
                })
            })?,
        },
        11 => Op::Transpose {
            perm: r.list("permutation", MAX_AXES, 1, |r| r.u8("axis"))?,
        },
        12 => Op::Slice {
            ranges: r.list("slice ranges", MAX_AXES, 6, |r| {
                Ok(SliceRange {
                    axis: r.u8("axis")?,
                    start_from_end: r.bool("start from end")?,
                    start: r.uint32("start")?,
                    end_from_end: r.bool("end from end")?,
                    end: r.uint32("end")?,
                    step: r.uint32("step")?,
                })
            })?,
        },
        13 => Op::Resize(read_resize(r)?),
        14 => Op::Softmax {
            axis: r.u8("axis")?,
            axis_end: r.u8("axis end")?,
        },
        15 => Op::LpNormalize {
            axis: r.u8("axis")?,
            p: r.u8("p")?,
            epsilon: r.f32("epsilon")?,
        },
        tag => return Err(r.bad_tag("operator", tag)),
    })
}

fn read_resize(r: &mut Reader<'_>) -> Result<Resize> {
    Ok(Resize {
        mode: match r.u8("resize mode")? {
            0 => ResizeMode::NearestFloor,
            1 => ResizeMode::NearestCeil,
            2 => ResizeMode::NearestPreferFloor,
            3 => ResizeMode::NearestPreferCeil,
            4 => ResizeMode::Linear,
            tag => return Err(r.bad_tag("resize mode", tag)),
        },
        coordinates: match r.u8("resize coordinates")? {
            0 => ResizeCoordinates::Asymmetric,
            1 => ResizeCoordinates::HalfPixel,
            2 => ResizeCoordinates::PytorchHalfPixel,
            3 => ResizeCoordinates::AlignCorners,
            tag => return Err(r.bad_tag("resize coordinates", tag)),
        },
        size: match r.u8("resize size")? {
            0 => ResizeSize::Scales(r.f32_array("scales")?),
            1 => ResizeSize::Fixed(read_pair(r, "size")?),
            tag => return Err(r.bad_tag("resize size", tag)),
        },
    })
}

fn write_activation(w: &mut Writer, activation: &Activation) {
    match *activation {
        Activation::Relu => w.u8(0),
        Activation::LeakyRelu { alpha } => {
            w.u8(1);
            w.f32(alpha);
        }
        Activation::Clip { min, max } => {
            w.u8(2);
            w.f32s(&[min, max]);
        }
        Activation::Sigmoid => w.u8(3),
        Activation::HardSigmoid { alpha, beta } => {
            w.u8(4);
            w.f32s(&[alpha, beta]);
        }
        Activation::HardSwish => w.u8(5),
        Activation::Mish => w.u8(6),
        Activation::Silu => w.u8(7),
        Activation::Tanh => w.u8(8),
        Activation::Sqrt => w.u8(9),
        Activation::Exp => w.u8(10),
    }
}

fn read_activation(r: &mut Reader<'_>) -> Result<Activation> {
    Ok(match r.u8("activation")? {
        0 => Activation::Relu,
        1 => Activation::LeakyRelu {
            alpha: r.f32("alpha")?,
        },
        2 => Activation::Clip {
            min: r.f32("min")?,
            max: r.f32("max")?,
        },
        3 => Activation::Sigmoid,
        4 => Activation::HardSigmoid {
            alpha: r.f32("alpha")?,
            beta: r.f32("beta")?,
        },
        5 => Activation::HardSwish,
        6 => Activation::Mish,
        7 => Activation::Silu,
        8 => Activation::Tanh,
        9 => Activation::Sqrt,
        10 => Activation::Exp,
        tag => return Err(r.bad_tag("activation", tag)),
    })
}

fn write_pads(w: &mut Writer, pads: &Pads) {
    match pads {
        Pads::Explicit(amounts) => {
            w.u8(0);
            amounts.iter().for_each(|a| w.uint(*a));
        }
        Pads::SameUpper => w.u8(1),
        Pads::SameLower => w.u8(2),
    }
}

fn read_pads(r: &mut Reader<'_>) -> Result<Pads> {
    Ok(match r.u8("pads")? {
        0 => {
            let mut amounts = [0; 4];
            for amount in &mut amounts {
                *amount = r.uint32("pad")?;
            }
            Pads::Explicit(amounts)
        }
        1 => Pads::SameUpper,
        2 => Pads::SameLower,
        tag => return Err(r.bad_tag("pads", tag)),
    })
}

/// Optional constant: 0, or the identifier plus one.
fn write_const(w: &mut Writer, id: Option<ConstId>) {
    w.uint(id.map_or(0, |id| u64::from(id.0) + 1));
}

fn read_const(r: &mut Reader<'_>) -> Result<Option<ConstId>> {
    Ok(r.uint32("constant")?.checked_sub(1).map(ConstId))
}

pub(super) fn write_pair(w: &mut Writer, pair: [u32; 2]) {
    pair.iter().for_each(|v| w.uint(*v));
}

pub(super) fn read_pair(r: &mut Reader<'_>, what: &str) -> Result<[u32; 2]> {
    Ok([r.uint32(what)?, r.uint32(what)?])
}

fn binary_tag(kind: BinaryKind) -> u8 {
    match kind {
        BinaryKind::Add => 0,
        BinaryKind::Sub => 1,
        BinaryKind::Mul => 2,
        BinaryKind::Div => 3,
    }
}

fn read_binary(r: &mut Reader<'_>) -> Result<BinaryKind> {
    Ok(match r.u8("arithmetic")? {
        0 => BinaryKind::Add,
        1 => BinaryKind::Sub,
        2 => BinaryKind::Mul,
        3 => BinaryKind::Div,
        tag => return Err(r.bad_tag("arithmetic", tag)),
    })
}

fn pool_tag(kind: PoolKind) -> u8 {
    match kind {
        PoolKind::Max => 0,
        PoolKind::Average => 1,
    }
}

fn read_pool_kind(r: &mut Reader<'_>) -> Result<PoolKind> {
    Ok(match r.u8("pooling")? {
        0 => PoolKind::Max,
        1 => PoolKind::Average,
        tag => return Err(r.bad_tag("pooling", tag)),
    })
}
