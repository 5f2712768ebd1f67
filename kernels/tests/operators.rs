//! Everything but convolution against the f64 oracles, on plain and row layouts.

mod common;

use common::{Rng, nchw_of, place};
use dcz_kernels::activation::{activation, activation_in_place};
use dcz_kernels::binary::*;
use dcz_kernels::layout::*;
use dcz_kernels::norm::*;
use dcz_kernels::pool::*;
use dcz_kernels::resize::*;
use dcz_kernels::*;

/// Both layouts, and one with gaps.
fn layouts(n: usize, c: usize, h: usize, w: usize) -> [Map; 3] {
    let (row, channel) = (w + 1, (w + 1) * h + 3);
    let gaps = Map {
        n,
        c,
        h,
        w,
        batch: channel * c + 2,
        channel,
        row,
    };
    [Map::nchw(n, c, h, w), Map::rows(n, c, h, w), gaps]
}

#[track_caller]
fn assert_close(what: &str, values: &[f32], expected: &[f64], relative: f64) {
    assert_eq!(values.len(), expected.len(), "{what}");
    for (i, (&v, &e)) in values.iter().zip(expected).enumerate() {
        let error = (f64::from(v) - e).abs();
        let bound = relative * e.abs() + 1e-37;
        assert!(
            error <= bound || f64::from(v) == e,
            "{what}: {i}: {v} is not {e}"
        );
    }
}

#[test]
fn activations_over_a_wide_range() {
    let slopes = [0.25];
    let all = [
        Activation::None,
        Activation::Relu,
        Activation::LeakyRelu(0.1),
        Activation::Prelu(&slopes),
        Activation::Clip(-1.5, 6.0),
        Activation::Sigmoid,
        Activation::HardSigmoid {
            alpha: 0.2,
            beta: 0.5,
        },
        Activation::HardSwish,
        Activation::Mish,
        Activation::Silu,
        Activation::Tanh,
        Activation::Exp,
    ];
    let mut inputs: Vec<f32> = (-200_000..200_000).map(|i| i as f32 * 4.3e-4).collect();
    inputs.extend((0..2000).map(|i| 10f32.powf(i as f32 * -0.015)));
    inputs.extend([
        0.0,
        -0.0,
        88.7,
        -87.3,
        1e30,
        -1e30,
        f32::INFINITY,
        f32::NEG_INFINITY,
    ]);
    for f in all {
        let mut values = inputs.clone();
        activation::activate(&f, 0, &mut values);
        for (&x, &v) in inputs.iter().zip(&values) {
            let e = reference::activate(&f, 0, f64::from(x));
            // 0 * infinity has no value that matters; below normal numbers only the size does.
            if e.is_nan() || e.abs() > f64::from(f32::MAX) {
                continue;
            }
            // HardSigmoid and HardSwish cancel near their corners: absolute there.
            let cancels = matches!(f, Activation::HardSigmoid { .. } | Activation::HardSwish);
            let floor = if cancels { 1e-6 } else { 1.2e-38 };
            let error = (f64::from(v) - e).abs();
            assert!(
                error <= 1e-6 * e.abs() + floor,
                "{f:?}({x:e}) is {v:e}, not {e:e}"
            );
        }
    }
    let mut roots = vec![0.0, 2.0, 1e-20, 3e30];
    activation::activate(&Activation::Sqrt, 0, &mut roots);
    assert_eq!(roots, [0.0, 2f32.sqrt(), 1e-20f32.sqrt(), 3e30f32.sqrt()]);
}

#[test]
fn activations_keep_nan() {
    let all = [
        Activation::Relu,
        Activation::Tanh,
        Activation::Sigmoid,
        Activation::Exp,
    ];
    for f in all
        .into_iter()
        .chain([Activation::Mish, Activation::Clip(0.0, 1.0)])
    {
        let mut values = [f32::NAN; 9];
        activation::activate(&f, 0, &mut values);
        assert!(values.iter().all(|v| v.is_nan()), "{f:?}");
    }
}

#[test]
fn prelu_by_channel_in_every_layout() {
    let (n, c, h, w) = (2, 3, 4, 5);
    let mut rng = Rng(1);
    let (input, slopes) = (rng.values(n * c * h * w), rng.values(c));
    let f = Activation::Prelu(&slopes);
    let expected: Vec<f64> = (input.iter().enumerate())
        .map(|(i, &x)| reference::activate(&f, i / (h * w) % c, f64::from(x)))
        .collect();
    for from in layouts(n, c, h, w) {
        for to in layouts(n, c, h, w) {
            let data = place(&input, from, f32::NAN);
            let mut out = vec![9.0; to.span() + 7];
            activation(
                &f,
                View {
                    data: &data,
                    map: from,
                },
                &mut ViewMut {
                    data: &mut out,
                    map: to,
                },
            );
            assert_close("prelu", &nchw_of(&out, to), &expected, 1e-6);
        }
        let mut data = place(&input, from, 9.0);
        activation_in_place(
            &f,
            &mut ViewMut {
                data: &mut data,
                map: from,
            },
        );
        assert_close("prelu in place", &nchw_of(&data, from), &expected, 1e-6);
        assert_eq!(
            data.iter().filter(|&&v| v == 9.0).count(),
            data.len() - input.len()
        );
    }
}

#[test]
fn pooling() {
    let (n, c) = (2, 3);
    #[rustfmt::skip]
    let cases = [
        // size, kernel, stride, dilation, pads, out
        ([1, 1], [1, 1], [1, 1], [1, 1], [0, 0, 0, 0], [1, 1]),
        ([4, 6], [2, 2], [2, 2], [1, 1], [0, 0, 0, 0], [2, 3]),
        ([7, 9], [3, 3], [2, 2], [1, 1], [1, 1, 1, 1], [4, 5]),
        ([5, 5], [2, 2], [2, 2], [1, 1], [0, 0, 0, 0], [3, 3]), // ceil mode
        ([6, 8], [3, 3], [2, 2], [1, 1], [1, 1, 1, 1], [4, 5]), // ceil mode
        ([8, 9], [3, 2], [1, 2], [2, 3], [2, 1, 0, 2], [6, 5]),
        ([3, 3], [3, 3], [1, 1], [1, 1], [2, 2, 2, 2], [5, 5]),
        // Whole vectors.
        ([4, 48], [2, 2], [2, 2], [1, 1], [0, 0, 0, 0], [2, 24]),
        ([5, 45], [3, 3], [2, 2], [1, 1], [1, 1, 1, 1], [3, 23]),
        ([5, 30], [3, 3], [1, 1], [1, 1], [1, 1, 1, 1], [5, 30]),
        ([4, 70], [1, 3], [1, 2], [1, 2], [0, 2, 0, 2], [4, 35]),
        ([4, 70], [2, 3], [1, 3], [1, 2], [0, 2, 0, 2], [3, 24]),
    ];
    let all = || {
        cases
            .iter()
            .flat_map(|case| Isa::available().map(move |isa| (isa, *case)))
    };
    for (isa, (size, kernel, stride, dilation, pads, out_hw)) in all() {
        let input = Rng(2).values(n * c * size[0] * size[1]);
        for kind in [PoolKind::Max, PoolKind::Average] {
            for count_include_pad in [false, true] {
                let shape = PoolShape {
                    kind,
                    kernel,
                    stride,
                    dilation,
                    pads,
                    count_include_pad,
                };
                let expected = reference::pool(&shape, &input, size, out_hw);
                for (i, from) in layouts(n, c, size[0], size[1]).into_iter().enumerate() {
                    let to = layouts(n, c, out_hw[0], out_hw[1])[i];
                    let data = place(&input, from, f32::NAN);
                    let view = View {
                        data: &data,
                        map: from,
                    };
                    let mut out = vec![0.0; to.span() + 7];
                    for y in 0..out_hw[0] {
                        let first = to.at(0, 0, y);
                        let map = Map { h: 1, ..to };
                        let mut row = ViewMut {
                            data: &mut out[first..],
                            map,
                        };
                        pool(isa, &shape, view, y..y + 1, &mut row);
                    }
                    let what = format!("{shape:?} on {size:?}");
                    let values = nchw_of(&out, to);
                    let error = values
                        .iter()
                        .zip(&expected)
                        .map(|(&v, e)| (f64::from(v) - e).abs());
                    assert!(error.fold(0.0, f64::max) < 1e-6, "{what}");
                }
            }
        }
    }
}

#[test]
fn bytes_of_images() {
    for (value, whole) in [
        (0.0, 0.0),
        (0.49, 0.0),
        (0.5, 1.0),
        (2.499_99, 3.0),
        (254.49, 254.0),
        (255.0, 255.0),
    ] {
        assert_eq!(pixels::rounded(value), whole);
    }
    let bytes: Vec<u8> = (0..3 * 45).map(|i| (i * 89 % 256) as u8).collect();
    for isa in Isa::available() {
        for len in [0, 1, 7, 8, 9, 40, 45] {
            for channel in 0..3 {
                let mut out = vec![9.0; len + 1];
                pixels::planar(isa, &bytes[..3 * len], channel, 2.5, 0.5, &mut out);
                for (i, v) in out[..len].iter().enumerate() {
                    assert_eq!(*v, (f32::from(bytes[3 * i + channel]) - 2.5) * 0.5);
                }
                assert_eq!(out[len], 9.0);
            }
            let mut sums = vec![1.0; len];
            let rows = &bytes[..2 * 48 + len.min(39)];
            pixels::sum_rows(isa, &[0.25, 0.5, 2.0], rows, 48, &mut sums);
            for (i, sum) in sums.iter().enumerate() {
                let byte = |row: usize| rows.get(row * 48 + i).map_or(0.0, |v| f32::from(*v));
                assert_eq!(*sum, 0.25 * byte(0) + 0.5 * byte(1) + 2.0 * byte(2));
            }
        }
        let values: Vec<f32> = (0..3 * 45 + 5).map(|i| (i * 7 % 31) as f32).collect();
        for (len, taps) in [(1, 4), (8, 3), (19, 2), (16, 0)] {
            let from: Vec<u32> = (0..len as u32).map(|j| 100 + j * 11 % 42).collect();
            let weights: Vec<f32> = (0..len * taps).map(|i| (i % 5) as f32 * 0.25).collect();
            let mut planes = vec![vec![9.0; len + 1]; 3];
            let [r, g, b] = planes.get_disjoint_mut([0, 1, 2]).unwrap();
            let columns = pixels::SumColumns {
                from: &from,
                first: 100,
                weights: &weights,
                values: &values,
                mean: [1.0, 2.0, 3.0],
                scale: [0.5, 1.0, 2.0],
            };
            columns.run(isa, [r, g, b]);
            for (c, plane) in planes.iter().enumerate() {
                assert_eq!(plane[len], 9.0);
                for (j, value) in plane[..len].iter().enumerate() {
                    let term = |t: usize| {
                        let at = 3 * (from[j] as usize - 100 + t) + c;
                        weights[j * taps + t] * values[at]
                    };
                    let sum = pixels::rounded((0..taps).map(term).sum());
                    assert_eq!(*value, (sum - [1.0, 2.0, 3.0][c]) * [0.5, 1.0, 2.0][c]);
                }
            }
        }
    }
}

/// A NaN of a window is its largest value, wherever it is.
#[test]
fn pooling_keeps_nan() {
    let shape = PoolShape {
        kind: PoolKind::Max,
        kernel: [2, 2],
        stride: [2, 2],
        dilation: [1, 1],
        pads: [0; 4],
        count_include_pad: false,
    };
    for isa in Isa::available() {
        for at in 0..4 * 32 {
            let mut data = Rng(3).values(4 * 32);
            data[at] = f32::NAN;
            let mut out = [0.0; 32];
            let mut rows = ViewMut {
                data: &mut out,
                map: Map::nchw(1, 1, 2, 16),
            };
            let map = Map::nchw(1, 1, 4, 32);
            pool(isa, &shape, View { data: &data, map }, 0..2, &mut rows);
            for (i, v) in out.iter().enumerate() {
                assert_eq!(v.is_nan(), i == at / 64 * 16 + at % 32 / 2, "{isa:?} {at}");
            }
        }
    }
}

#[test]
fn global_pooling() {
    let (n, c, h, w) = (2, 3, 5, 7);
    let input = Rng(4).values(n * c * h * w);
    for kind in [PoolKind::Max, PoolKind::Average] {
        let expected = reference::global_pool(kind, &input, h * w);
        for map in layouts(n, c, h, w) {
            let data = place(&input, map, f32::NAN);
            let mut out = vec![0.0; n * c];
            global_pool(kind, View { data: &data, map }, &mut out);
            assert_close("global pool", &out, &expected, 1e-5);
        }
    }
}

#[test]
fn arithmetic_with_broadcasting() {
    let to = dims(&[2, 3, 4, 5]).unwrap();
    let total: usize = to.iter().product();
    let shapes: [&[usize]; 7] = [
        &[],
        &[5],
        &[4, 1],
        &[3, 1, 1],
        &[2, 1, 1, 5],
        &[1, 3, 4, 5],
        &[2, 3, 4, 5],
    ];
    let mut rng = Rng(6);
    for kind in [
        BinaryKind::Add,
        BinaryKind::Sub,
        BinaryKind::Mul,
        BinaryKind::Div,
    ] {
        for a_shape in shapes {
            for b_shape in shapes {
                let (a_dims, b_dims) = (dims(a_shape).unwrap(), dims(b_shape).unwrap());
                let a = rng.values(a_dims.iter().product());
                let b = rng.values(b_dims.iter().product());
                let a_strides = broadcast_strides(a_dims, to).unwrap();
                let b_strides = broadcast_strides(b_dims, to).unwrap();
                let mut out = vec![0.0; total];
                let (x, y) = (
                    Operand {
                        data: &a,
                        strides: a_strides,
                    },
                    Operand {
                        data: &b,
                        strides: b_strides,
                    },
                );
                binary(kind, to, x, y, &mut out, dense_strides(to));
                for (i, &value) in out.iter().enumerate() {
                    let (mut at_a, mut at_b, mut rest) = (0, 0, i);
                    for d in (0..MAX_RANK).rev() {
                        at_a += rest % to[d] * a_strides[d];
                        at_b += rest % to[d] * b_strides[d];
                        rest /= to[d];
                    }
                    let e = reference::binary(kind, f64::from(a[at_a]), f64::from(b[at_b]));
                    assert_eq!(value, e as f32, "{kind:?} {a_shape:?} {b_shape:?} {i}");
                }
            }
        }
        let (a, b) = (rng.values(37), rng.values(37));
        let expected: Vec<f32> = (a.iter().zip(&b))
            .map(|(&a, &b)| reference::binary(kind, f64::from(a), f64::from(b)) as f32)
            .collect();
        let mut out = vec![0.0; 37];
        binary_same(kind, &a, &b, &mut out);
        assert_eq!(out, expected);
        let mut out = a.clone();
        binary_in_place(kind, &mut out, &b);
        assert_eq!(out, expected);
        let mut out = b.clone();
        binary_in_place_reversed(kind, &a, &mut out);
        assert_eq!(out, expected);
    }
    assert_eq!(
        broadcast_strides(dims(&[2]).unwrap(), dims(&[3]).unwrap()),
        None
    );
    assert_eq!(dims(&[1; 7]), None);
}

#[test]
fn strided_copies() {
    let from = dims(&[2, 3, 4]).unwrap();
    let data: Vec<f32> = (0..24).map(|i| i as f32).collect();
    // Transposition: output axis i is input axis perm[i].
    let strides = dense_strides(from);
    let (to, to_strides) = (
        [1, 1, 1, 4, 2, 3],
        [0, 0, 0, strides[5], strides[3], strides[4]],
    );
    let mut out = vec![0.0; 24];
    copy_strided(to, &data, to_strides, &mut out, dense_strides(to));
    for a in 0..4 {
        for b in 0..2 {
            for c in 0..3 {
                assert_eq!(out[(a * 2 + b) * 3 + c], data[(b * 3 + c) * 4 + a]);
            }
        }
    }
    // Slice [:, 1:3, ::3] into the middle of a larger operand.
    let mut out = vec![-1.0; 12];
    let slice = dims(&[2, 2, 2]).unwrap();
    copy_strided(
        slice,
        &data[4..],
        [0, 0, 0, 12, 4, 3],
        &mut out[1..],
        [0, 0, 0, 6, 2, 1],
    );
    assert_eq!(
        out,
        [-1., 4., 7., 8., 11., -1., -1., 16., 19., 20., 23., -1.]
    );
    // Nothing to do.
    copy_strided(dims(&[2, 0, 3]).unwrap(), &[], [0; 6], &mut [], [0; 6]);
}

#[test]
fn layouts_round_trip() {
    let (n, c, h, w) = (2, 3, 4, 5);
    let input = Rng(8).values(n * c * h * w);
    for from in layouts(n, c, h, w) {
        for to in layouts(n, c, h, w) {
            let data = place(&input, from, f32::NAN);
            let mut out = vec![7.0; to.span() + 7];
            copy_view(
                View {
                    data: &data,
                    map: from,
                },
                &mut ViewMut {
                    data: &mut out,
                    map: to,
                },
            );
            assert_eq!(nchw_of(&out, to), input);
            assert_eq!(
                out.iter().filter(|&&v| v == 7.0).count(),
                out.len() - input.len()
            );
        }
    }
}

#[test]
fn padding() {
    let input: Vec<f32> = (0..6).map(|i| i as f32).collect();
    let (from, to) = (dims(&[2, 3]).unwrap(), dims(&[4, 5]).unwrap());
    let before = [0, 0, 0, 0, 1, 2];
    let mut out = vec![0.0; 20];
    pad(
        9.0,
        &input,
        from,
        dense_strides(from),
        before,
        &mut out,
        to,
        dense_strides(to),
    );
    #[rustfmt::skip]
    assert_eq!(out, [
        9., 9., 9., 9., 9.,
        9., 9., 0., 1., 2.,
        9., 9., 3., 4., 5.,
        9., 9., 9., 9., 9.,
    ]);
}

#[test]
fn resampling() {
    let (n, c) = (2, 2);
    let modes = [
        ResizeMode::NearestFloor,
        ResizeMode::NearestCeil,
        ResizeMode::NearestPreferFloor,
        ResizeMode::NearestPreferCeil,
        ResizeMode::Linear,
    ];
    let rules = [
        ResizeCoordinates::Asymmetric,
        ResizeCoordinates::HalfPixel,
        ResizeCoordinates::PytorchHalfPixel,
        ResizeCoordinates::AlignCorners,
    ];
    // Scales that are exact in f32, so that nearest cannot fall to the other side.
    let sizes = [
        ([1, 1], [2, 4]),
        ([3, 5], [6, 10]),
        ([4, 6], [2, 3]),
        ([8, 4], [4, 1]),
        ([2, 3], [8, 3]),
    ];
    for (from, to) in sizes {
        let input = Rng(9).values(n * c * from[0] * from[1]);
        for mode in modes {
            for coordinates in rules {
                if coordinates == ResizeCoordinates::AlignCorners && mode != ResizeMode::Linear {
                    continue;
                }
                let scale = [0, 1].map(|i| to[i] as f32 / from[i] as f32);
                let shape = ResizeShape {
                    mode,
                    coordinates,
                    scale,
                    in_h: from[0],
                    out_h: to[0],
                };
                let expected = reference::resize(&shape, &input, from, to[1]);
                for (i, map) in layouts(n, c, from[0], from[1]).into_iter().enumerate() {
                    let data = place(&input, map, f32::NAN);
                    let out_map = layouts(n, c, to[0], to[1])[i];
                    let mut out = vec![0.0; out_map.span() + 7];
                    for y in 0..to[0] {
                        let first = out_map.at(0, 0, y);
                        let one = Map { h: 1, ..out_map };
                        let mut row = ViewMut {
                            data: &mut out[first..],
                            map: one,
                        };
                        // Of the input only what the row needs.
                        let rows = y..y + 1;
                        let needed = shape.reach(&rows);
                        let part = View {
                            data: &data[map.at(0, 0, needed.start)..],
                            map: Map {
                                h: needed.len(),
                                ..map
                            },
                        };
                        resize(&shape, part, needed.start, rows, &mut row);
                    }
                    let values = nchw_of(&out, out_map);
                    for (v, e) in values.iter().zip(&expected) {
                        assert!(
                            (f64::from(*v) - e).abs() < 2e-6,
                            "{shape:?} {from:?} to {to:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn normalisation() {
    let mut rng = Rng(10);
    for axis in [
        Axis {
            outer: 1,
            len: 1,
            inner: 1,
        },
        Axis {
            outer: 3,
            len: 10,
            inner: 1,
        },
        Axis {
            outer: 2,
            len: 7,
            inner: 5,
        },
    ] {
        let data: Vec<f32> = rng
            .values(axis.outer * axis.len * axis.inner)
            .iter()
            .map(|v| v * 30.0)
            .collect();
        let mut out = data.clone();
        softmax(axis, &mut out);
        // The argument of exp is rounded: relative to it, 30 * eps.
        assert_close("softmax", &out, &reference::softmax(axis, &data), 8e-6);
        for norm in [Norm::L1, Norm::L2] {
            let mut out = data.clone();
            lp_normalize(norm, 1e-12, axis, &mut out);
            let expected = reference::lp_normalize(norm, 1e-12, axis, &data);
            assert_close("norm", &out, &expected, 1e-6);
        }
    }
    let mut zeros = [0.0; 4];
    lp_normalize(
        Norm::L2,
        0.0,
        Axis {
            outer: 1,
            len: 4,
            inner: 1,
        },
        &mut zeros,
    );
    assert_eq!(zeros, [0.0; 4]);
}
