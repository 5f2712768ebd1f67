//! Every operator, alone and in context, against the f64 oracle.

mod common;
use common::*;
use dcz::graph::*;
use dcz_format::layer::KOrder;

/// One operator on a map that a convolution made (so it is stored row by row), its result read by
/// another convolution where the rank allows.
fn after_conv(name: &str, op: impl Fn(&mut Net) -> Op) {
    for direct in [false, true] {
        let mut net = Net::new(name);
        let x = net.batch_input(&[4, 9, 7]);
        let y = if direct {
            x
        } else {
            net.conv(x, 4, 4, 3, 1, 1)
        };
        let op = op(&mut net);
        let z = net.node(op, &[y]);
        net.output(z);
        let model = net.model();
        check(name, &model, &[noise(3, &[1, 4, 9, 7])]);
        check(name, &model, &[noise(4, &[3, 4, 9, 7])]);
    }
}

fn pool(kind: PoolKind, kernel: u32, stride: u32, pads: Pads, ceil_mode: bool, count: bool) -> Op {
    Op::Pool(Pool {
        kind,
        kernel: [kernel, kernel + 1],
        strides: [stride, 1],
        dilations: [1, 1],
        pads,
        ceil_mode,
        count_include_pad: count,
    })
}

#[test]
fn activations() {
    use Activation::*;
    for activation in [
        Relu,
        LeakyRelu { alpha: 0.1 },
        Clip {
            min: -0.2,
            max: 0.5,
        },
        Sigmoid,
        HardSigmoid {
            alpha: 0.2,
            beta: 0.5,
        },
        HardSwish,
        Mish,
        Silu,
        Tanh,
        Exp,
    ] {
        after_conv(&format!("{activation:?}"), |_| Op::Activation(activation));
    }
    // Alone: two readers keep it from being fused.
    let mut net = Net::new("not fused");
    let x = net.batch_input(&[4, 9, 7]);
    let y = net.conv(x, 4, 8, 3, 1, 1);
    let a = net.node(Op::Activation(Activation::Sigmoid), &[y]);
    let b = net.node(Op::Activation(Activation::Sqrt), &[a]);
    let slope = net.constant(&[8, 1, 1]);
    let p = net.node(Op::Prelu { slope }, &[y]);
    let z = net.add(b, p);
    net.output(z);
    check("not fused", &net.model(), &[noise(1, &[2, 4, 9, 7])]);
}

#[test]
fn slopes_and_constants() {
    for dims in [vec![1], vec![4, 1, 1], vec![1, 4, 1, 1]] {
        after_conv("prelu", |net| Op::Prelu {
            slope: net.constant(&dims),
        });
    }
    for kind in [
        BinaryKind::Add,
        BinaryKind::Sub,
        BinaryKind::Mul,
        BinaryKind::Div,
    ] {
        for constant_first in [false, true] {
            for dims in [vec![], vec![4, 1, 1], vec![9, 1], vec![7], vec![4, 9, 7]] {
                after_conv("constant", |net| {
                    let n = dims.iter().product::<u32>() as usize;
                    let values = net.rng.list(n).into_iter().map(|v| v + 3.0).collect();
                    let constant = net.constant_values(&dims, values);
                    let kind = if constant_first && kind == BinaryKind::Div {
                        BinaryKind::Sub
                    } else {
                        kind
                    };
                    Op::BinaryConst {
                        kind,
                        constant,
                        constant_first,
                    }
                });
            }
        }
    }
}

#[test]
fn pooling() {
    for kind in [PoolKind::Max, PoolKind::Average] {
        for pads in [
            Pads::Explicit([0; 4]),
            Pads::Explicit([1, 0, 1, 1]),
            Pads::SameUpper,
            Pads::SameLower,
        ] {
            for (ceil, count) in [(false, false), (true, false), (true, true)] {
                after_conv("pool", |_| pool(kind, 2, 2, pads, ceil, count));
            }
        }
        after_conv("global", |_| Op::GlobalPool(kind));
    }
}

#[test]
fn moving_elements() {
    after_conv("pad", |_| Op::Pad {
        amounts: vec![(0, 0), (0, 2), (1, 0), (2, 1)],
        value: 0.5,
    });
    after_conv("flatten", |_| Op::Reshape {
        dims: vec![ReshapeDim::Input { from: 0, to: 1 }, ReshapeDim::Rest],
    });
    after_conv("reshape", |_| Op::Reshape {
        dims: vec![
            ReshapeDim::Input { from: 0, to: 1 },
            ReshapeDim::Fixed(2),
            ReshapeDim::Fixed(2),
            ReshapeDim::Fixed(3),
            ReshapeDim::Rest,
        ],
    });
    for perm in [[0, 2, 3, 1], [0, 3, 1, 2], [1, 0, 3, 2], [3, 2, 1, 0]] {
        after_conv("transpose", |_| Op::Transpose {
            perm: perm.to_vec(),
        });
    }
    let range = |axis: u8, start: u32, end: u32, step: u32| SliceRange {
        axis,
        start,
        start_from_end: false,
        end,
        end_from_end: false,
        step,
    };
    after_conv("slice", |_| Op::Slice {
        ranges: vec![range(1, 1, 3, 1)],
    });
    after_conv("slice", |_| Op::Slice {
        ranges: vec![range(2, 1, u32::MAX, 2), range(3, 0, 7, 3)],
    });
    for mode in [
        ResizeMode::NearestFloor,
        ResizeMode::NearestCeil,
        ResizeMode::NearestPreferFloor,
        ResizeMode::NearestPreferCeil,
        ResizeMode::Linear,
    ] {
        for coordinates in [
            ResizeCoordinates::Asymmetric,
            ResizeCoordinates::HalfPixel,
            ResizeCoordinates::PytorchHalfPixel,
            ResizeCoordinates::AlignCorners,
        ] {
            for size in [ResizeSize::Scales([2.0, 2.0]), ResizeSize::Fixed([5, 16])] {
                after_conv("resize", |_| {
                    Op::Resize(Resize {
                        mode,
                        coordinates,
                        size,
                    })
                });
            }
        }
    }
}

#[test]
fn normalisations() {
    for axis in 0..4u8 {
        after_conv("softmax", |_| Op::Softmax {
            axis,
            axis_end: axis + 1,
        });
        for p in [1, 2] {
            after_conv("norm", |_| Op::LpNormalize {
                axis,
                p,
                epsilon: 1e-6,
            });
        }
    }
    after_conv("softmax", |_| Op::Softmax {
        axis: 1,
        axis_end: 4,
    });
}

#[test]
fn concat_and_broadcast() {
    for axis in 0..4u8 {
        let mut net = Net::new("concat");
        let x = net.input(&[1, 4, 6, 6]);
        let a = net.conv(x, 4, 4, 3, 1, 1);
        let b = net.relu(a);
        let c = net.node(Op::Concat { axis }, &[a, x, b, a]);
        net.output(c);
        check("concat", &net.model(), &[noise(1, &[1, 4, 6, 6])]);
    }
    // Squeeze and excite: a map times one value per channel; and a row times a column.
    let mut net = Net::new("broadcast");
    let x = net.batch_input(&[4, 6, 5]);
    let a = net.conv(x, 4, 8, 3, 1, 1);
    let g = net.node(Op::GlobalPool(PoolKind::Average), &[a]);
    let s = net.conv(g, 8, 4, 1, 1, 1);
    let s = net.relu(s);
    let s = net.conv(s, 4, 8, 1, 1, 1);
    let s = net.node(Op::Activation(Activation::Sigmoid), &[s]);
    let y = net.node(Op::Binary(BinaryKind::Mul), &[a, s]);
    let r = net.node(
        Op::Slice {
            ranges: vec![SliceRange {
                axis: 2,
                start: 0,
                start_from_end: false,
                end: 1,
                end_from_end: false,
                step: 1,
            }],
        },
        &[y],
    );
    let c = net.node(
        Op::Slice {
            ranges: vec![SliceRange {
                axis: 3,
                start: 0,
                start_from_end: false,
                end: 1,
                end_from_end: false,
                step: 1,
            }],
        },
        &[y],
    );
    let rc = net.node(Op::Binary(BinaryKind::Sub), &[r, c]);
    let z = net.node(Op::Binary(BinaryKind::Div), &[s, s]);
    net.output(rc);
    net.output(z);
    net.output(y);
    let model = net.model();
    check("broadcast", &model, &[noise(1, &[1, 4, 6, 5])]);
    check("broadcast", &model, &[noise(1, &[3, 4, 6, 5])]);
}

const CODINGS: [Coding; 8] = [
    Coding::Raw32,
    Coding::Raw16,
    Coding::GridLayer,
    Coding::GridChannel,
    Coding::GridBlock,
    Coding::Codebook,
    Coding::Minmax,
    Coding::Sparse,
];

#[test]
fn convolutions_of_every_coding() {
    for coding in CODINGS {
        for k_order in [KOrder::ChannelMajor, KOrder::TapMajor] {
            for tile_weights in [72, 500, 65536] {
                let mut net = Net::new("convs");
                (net.coding, net.k_order, net.tile_weights) = (coding, k_order, tile_weights);
                let x = net.batch_input(&[3, 13, 11]);
                let mut y = x;
                for (c, out, k, stride, groups) in [
                    (3, 20, 3, 1, 1),
                    (20, 20, 3, 2, 20),
                    (20, 12, 1, 1, 1),
                    (12, 24, 5, 1, 4),
                    (24, 24, 3, 1, 2),
                    (24, 9, 1, 2, 1),
                ] {
                    y = net.conv(y, c, out, k, stride, groups);
                    let slope = net.constant(&[out, 1, 1]);
                    y = net.node(Op::Prelu { slope }, &[y]);
                }
                y = net.flatten(y);
                y = net.linear(y, 9 * 4 * 3, 37);
                y = net.relu(y);
                y = net.linear(y, 37, 10);
                net.output(y);
                let model = net.model();
                let name = format!("{coding:?} {k_order:?} {tile_weights}");
                check(&name, &model, &[noise(5, &[1, 3, 13, 11])]);
                check(&name, &model, &[noise(6, &[3, 3, 13, 11])]);
            }
        }
    }
}

#[test]
fn one_pixel_maps_and_higher_ranks() {
    let mut net = Net::new("pixel");
    let x = net.batch_input(&[16, 4, 4]);
    let y = net.conv(x, 16, 24, 3, 1, 1);
    let g = net.node(Op::GlobalPool(PoolKind::Max), &[y]);
    let a = net.conv(g, 24, 24, 1, 1, 1);
    let slope = net.constant(&[24, 1, 1]);
    let a = net.node(Op::Prelu { slope }, &[a]);
    // The residual of a 1x1 map is accumulated by a linear step.
    let b = net.conv(a, 24, 24, 1, 1, 1);
    let z = net.add(b, g);
    // A linear layer over the last axis of a 3-D tensor.
    let dims = vec![
        ReshapeDim::Input { from: 0, to: 1 },
        ReshapeDim::Fixed(3),
        ReshapeDim::Rest,
    ];
    let r = net.node(Op::Reshape { dims }, &[z]);
    let l = net.linear(r, 8, 5);
    let s3 = net.constant(&[3, 1]);
    let l = net.node(Op::Prelu { slope: s3 }, &[l]);
    net.output(l);
    let model = net.model();
    for n in [1, 2, 5] {
        check("pixel", &model, &[noise(8, &[n, 16, 4, 4])]);
    }
}
