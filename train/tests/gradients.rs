//! Custom operations against slow f64 oracles: values, and gradients by central differences.

#![allow(clippy::unwrap_used)] // helpers of tests

use candle_core::{Device, Tensor, Var};
use dcz_format::graph::{Activation, Pads, PoolKind};
use dcz_train::augment::Random;
use dcz_train::ops::activation::{Elementwise, value};
use dcz_train::ops::chain::{Chain, Product, Stage};
use dcz_train::ops::conv::Conv;
use dcz_train::ops::depthwise::Depthwise;
use dcz_train::ops::entry::{Entry, Function};
use dcz_train::ops::geometry::Window;
use dcz_train::ops::linear::Linear;
use dcz_train::ops::param::{Param, Sink};
use dcz_train::ops::pool::Pooling;
use dcz_train::ops::quantise::{Quantise, code};
use dcz_train::ops::rows::{RowKind, Rows};

fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(&[seed]);
    (0..len).map(|_| random.signed()).collect()
}

fn var(values: &[f32], dims: &[usize]) -> Var {
    Var::from_tensor(&Tensor::from_slice(values, dims, &Device::Cpu).unwrap()).unwrap()
}

fn flat(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

/// Checks an operation of two tensors against `oracle`, and its gradients of `sum(y * g)` against differences of the oracle.
fn check(
    name: &str,
    a: (&[f32], &[usize]),
    b: (&[f32], &[usize]),
    run: impl Fn(&Tensor, &Tensor) -> Tensor,
    oracle: impl Fn(&[f64], &[f64]) -> Vec<f64>,
) {
    let vb = var(b.0, b.1);
    check_all(
        name,
        a,
        &[b.0],
        |x| (run(x, vb.as_tensor()), vec![Gradient::Of(vb.clone())]),
        |x, p| oracle(x, &p[0]),
    );
}

/// Where the gradient of a parameter is.
enum Gradient {
    Of(Var),
    In(Sink),
}

/// A trained parameter and where its gradient arrives.
fn trained(values: &[f32]) -> (Param, Gradient) {
    let param = Param::trained(values.to_vec());
    let sink = param.sink.clone().unwrap();
    (param, Gradient::In(sink))
}

/// The same with any number of parameters.
fn check_all(
    name: &str,
    a: (&[f32], &[usize]),
    parameters: &[&[f32]],
    run: impl Fn(&Tensor) -> (Tensor, Vec<Gradient>),
    oracle: impl Fn(&[f64], &[Vec<f64>]) -> Vec<f64>,
) {
    let va = var(a.0, a.1);
    let (y, mut places) = run(va.as_tensor());
    let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let mut all: Vec<Vec<f64>> = vec![wide(a.0)];
    all.extend(parameters.iter().map(|p| wide(p)));
    let expected = oracle(&all[0], &all[1..]);
    let got = flat(&y);
    assert_eq!(got.len(), expected.len(), "{name}");
    for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
        assert!(
            (f64::from(*g) - e).abs() < 1e-4 * (1.0 + e.abs()),
            "{name} value {i}: {g} {e}"
        );
    }
    let g = random(got.len(), 99);
    let weight = Tensor::from_slice(&g, y.dims(), &Device::Cpu).unwrap();
    let grads = (&y * &weight)
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    let total = |all: &[Vec<f64>]| -> f64 {
        oracle(&all[0], &all[1..])
            .iter()
            .zip(&g)
            .map(|(y, g)| y * f64::from(*g))
            .sum()
    };
    let h = 1e-5;
    places.insert(0, Gradient::Of(va));
    assert_eq!(places.len(), all.len());
    for (which, place) in places.iter().enumerate() {
        let gradient = match place {
            Gradient::Of(var) => grads.get(var).map(flat).unwrap_or_default(),
            Gradient::In(sink) => sink.take(),
        };
        assert_eq!(gradient.len(), all[which].len(), "{name} gradient {which}");
        for i in 0..gradient.len() {
            let moved = |by: f64| {
                let mut all = all.clone();
                all[which][i] += by;
                total(&all)
            };
            let slope = (moved(h) - moved(-h)) / (2.0 * h);
            let got = f64::from(gradient[i]);
            assert!(
                (got - slope).abs() < 1e-3 * (1.0 + slope.abs()),
                "{name} gradient {which}[{i}]: {got} {slope}"
            );
        }
    }
}

/// A chain of stages with their output channels and columns, and the gradient of its input.
fn chain(x: &Tensor, stages: Vec<(Entry, Product, usize, usize)>) -> Tensor {
    let stages = stages
        .into_iter()
        .map(|(entry, product, channels, columns)| Stage {
            entry,
            product,
            channels,
            columns,
        })
        .collect();
    let op = Chain {
        stages,
        recorded: true,
        input_gradient: true,
        pool: Default::default(),
        saved: Default::default(),
    };
    x.apply_op1(op).unwrap()
}

/// Sizes: height, width, kernel, stride, dilation, padding.
const WINDOWS: [[u32; 6]; 8] = [
    [1, 1, 1, 1, 1, 0],
    [5, 4, 3, 1, 1, 1],
    [6, 7, 3, 2, 1, 1],
    [5, 5, 1, 2, 1, 0],
    [7, 6, 3, 1, 2, 2],
    [9, 9, 5, 2, 1, 2],
    [5, 15, 3, 2, 1, 1],
    [3, 49, 3, 1, 1, 1],
];

fn window([h, w, k, s, d, p]: [u32; 6]) -> Window {
    Window::new(
        [h as usize, w as usize],
        [k; 2],
        [s; 2],
        [d; 2],
        Pads::Explicit([p; 4]),
        false,
    )
    .unwrap()
}

/// Convolution of `[C, N H W]` with `[O, per_group kh kw]`, `C / per_group` groups; by its definition.
fn convolve(
    w: &Window,
    images: usize,
    channels: usize,
    per_group: usize,
    x: &[f64],
    weights: &[f64],
) -> Vec<f64> {
    let k = per_group * w.taps();
    let outputs = weights.len() / k;
    let per_output_group = outputs / (channels / per_group);
    let mut y = Vec::new();
    for o in 0..outputs {
        for n in 0..images {
            for oy in 0..w.y.output {
                for ox in 0..w.x.output {
                    let mut sum = 0.0;
                    for i in 0..per_group {
                        let c = o / per_output_group * per_group + i;
                        for ky in 0..w.y.kernel {
                            for kx in 0..w.x.kernel {
                                let (Some(iy), Some(ix)) = (w.y.source(oy, ky), w.x.source(ox, kx))
                                else {
                                    continue;
                                };
                                let at = ((c * images + n) * w.y.input + iy) * w.x.input + ix;
                                let tap = (i * w.y.kernel + ky) * w.x.kernel + kx;
                                sum += x[at] * weights[o * k + tap];
                            }
                        }
                    }
                    y.push(sum);
                }
            }
        }
    }
    y
}

#[test]
fn dense_convolution() {
    for (i, sizes) in WINDOWS.into_iter().enumerate() {
        for groups in [1, 3] {
            let w = window(sizes);
            let (images, channels, outputs) = (2, 3, 6);
            let x = random(channels * images * w.plane(), i as u64);
            let per_group = channels / groups;
            let weights = random(outputs * per_group * w.taps(), 50 + i as u64);
            check_all(
                &format!("conv {sizes:?} in {groups} groups"),
                (&x, &[channels, images * w.plane()]),
                &[&weights],
                |x| {
                    let (weights, gradient) = trained(&weights);
                    let conv = Conv {
                        window: w,
                        channels,
                        outputs,
                        groups,
                        images,
                        weights,
                    };
                    let product = Product::Conv(conv);
                    let columns = images * w.out_plane();
                    let y = chain(x, vec![(Entry::NONE, product, outputs, columns)]);
                    (y, vec![gradient])
                },
                |x, p| convolve(&w, images, channels, per_group, x, &p[0]),
            );
        }
    }
}

#[test]
fn depthwise_convolution() {
    for (i, sizes) in WINDOWS.into_iter().enumerate() {
        for multiplier in [1, 2] {
            let w = window(sizes);
            let (images, channels) = (2, 3);
            let x = random(channels * images * w.plane(), i as u64);
            let weights = random(channels * multiplier * w.taps(), 50 + i as u64);
            check_all(
                &format!("depthwise {sizes:?} x{multiplier}"),
                (&x, &[channels, images * w.plane()]),
                &[&weights],
                |x| {
                    let (weights, gradient) = trained(&weights);
                    let depthwise = Depthwise {
                        window: w,
                        channels,
                        multiplier,
                        images,
                        weights,
                    };
                    let product = Product::Depthwise(depthwise);
                    let outputs = channels * multiplier;
                    let columns = images * w.out_plane();
                    let y = chain(x, vec![(Entry::NONE, product, outputs, columns)]);
                    (y, vec![gradient])
                },
                |x, p| convolve(&w, images, channels, 1, x, &p[0]),
            );
        }
    }
}

/// `f(x + b)` by channel, in f64.
fn enter(x: &[f64], bias: &[f64], slopes: Option<&[f64]>) -> Vec<f64> {
    let columns = x.len() / bias.len();
    x.iter()
        .enumerate()
        .map(|(i, x)| {
            let c = i / columns;
            let u = x + bias[c];
            match slopes {
                Some(p) if u < 0.0 => p[c % p.len()] * u,
                Some(_) => u,
                None => u * (1.0 / (1.0 + (-u).exp())),
            }
        })
        .collect()
}

/// Biases and functions between a 3x3, a depthwise and a pointwise convolution, and after the last: all gradients at once.
#[test]
fn a_chain_of_convolutions() {
    for (size, stride, common) in [(6, 1, false), (17, 2, true)] {
        let first = window([size, size, 3, 1, 1, 1]);
        let second = window([size, size, 3, stride, 1, 1]);
        let third = window([second.y.output as u32, second.x.output as u32, 1, 1, 1, 0]);
        let (images, columns) = (2, 2 * second.out_plane());
        let x = random(2 * images * first.plane(), 1);
        let weights = [random(3 * 18, 2), random(27, 3), random(12, 4)];
        let biases = [random(3, 5), random(3, 6), random(4, 7)];
        let slopes = random(if common { 1 } else { 3 }, 8);
        check_all(
            &format!("chain {size}"),
            (&x, &[2, images * first.plane()]),
            &[
                &weights[0],
                &biases[0],
                &slopes,
                &weights[1],
                &biases[1],
                &weights[2],
                &biases[2],
            ],
            |x| {
                let (w0, g0) = trained(&weights[0]);
                let (b0, g1) = trained(&biases[0]);
                let (p0, g2) = trained(&slopes);
                let (w1, g3) = trained(&weights[1]);
                let (b1, g4) = trained(&biases[1]);
                let (w2, g5) = trained(&weights[2]);
                let (b2, g6) = trained(&biases[2]);
                let conv = |window, channels, outputs, weights| {
                    Product::Conv(Conv {
                        window,
                        channels,
                        outputs,
                        groups: 1,
                        images,
                        weights,
                    })
                };
                let depthwise = Product::Depthwise(Depthwise {
                    window: second,
                    channels: 3,
                    multiplier: 1,
                    images,
                    weights: w1,
                });
                let entry = |bias, function| Entry {
                    bias: Some(bias),
                    function,
                };
                let silu = || Function::Fixed(Activation::Silu);
                let stages = vec![
                    (
                        Entry::NONE,
                        conv(first, 2, 3, w0),
                        3,
                        images * first.plane(),
                    ),
                    (entry(b0, Function::Slopes(p0)), depthwise, 3, columns),
                    (entry(b1, silu()), conv(third, 3, 4, w2), 4, columns),
                    (entry(b2, silu()), Product::None, 4, columns),
                ];
                (chain(x, stages), vec![g0, g1, g2, g3, g4, g5, g6])
            },
            |x, p| {
                let y = convolve(&first, images, 2, 2, x, &p[0]);
                let y = enter(&y, &p[1], Some(&p[2]));
                let y = convolve(&second, images, 3, 1, &y, &p[3]);
                let y = enter(&y, &p[4], None);
                let y = convolve(&third, images, 3, 3, &y, &p[5]);
                enter(&y, &p[6], None)
            },
        );
    }
}

#[test]
fn a_fully_connected_layer() {
    let (images, k, outputs) = (3, 10, 5);
    let x = random(images * k, 1);
    let weights = random(outputs * k, 2);
    check_all(
        "linear",
        (&x, &[images, k]),
        &[&weights],
        |x| {
            let (weights, gradient) = trained(&weights);
            let op = Linear {
                weights,
                outputs,
                input_gradient: true,
            };
            (x.apply_op1(op).unwrap(), vec![gradient])
        },
        |x, p| {
            let row = |x: &[f64]| -> Vec<f64> {
                p[0].chunks(k)
                    .map(|w| w.iter().zip(x).map(|(w, x)| w * x).sum())
                    .collect()
            };
            x.chunks(k).flat_map(row).collect()
        },
    );
}

/// A map so large that rows are longer than the vector lanes and patches come in several parts.
#[test]
fn large_maps_agree_with_the_definition() {
    let w = window([40, 37, 3, 1, 1, 1]);
    let (images, channels, outputs) = (3, 4, 5);
    let x = random(channels * images * w.plane(), 1);
    let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let xt = Tensor::from_slice(&x, &[channels, images * w.plane()], &Device::Cpu).unwrap();
    for (per_group, outputs) in [(channels, outputs), (1, channels)] {
        let k = random(outputs * per_group * w.taps(), 2);
        let weights = Param::fixed(k.clone());
        let product = if per_group == 1 {
            Product::Depthwise(Depthwise {
                window: w,
                channels,
                multiplier: 1,
                images,
                weights,
            })
        } else {
            Product::Conv(Conv {
                window: w,
                channels,
                outputs,
                groups: 1,
                images,
                weights,
            })
        };
        let columns = images * w.out_plane();
        let y = chain(&xt, vec![(Entry::NONE, product, outputs, columns)]);
        let expected = convolve(&w, images, channels, per_group, &wide(&x), &wide(&k));
        for (a, b) in flat(&y).iter().zip(&expected) {
            assert!((f64::from(*a) - b).abs() < 1e-4, "{a} {b}");
        }
    }
}

#[test]
fn biases_and_slopes() {
    // 40 elements a row: two whole blocks of lanes and a rest.
    let x = random(2 * 3 * 40, 3);
    for (parameters, dims, channels, inner) in [
        (3, [6, 40], 3, 40),
        (1, [6, 40], 3, 40),
        (40, [6, 40], 40, 1),
    ] {
        let p = random(parameters, 4);
        for kind in [RowKind::Bias, RowKind::Prelu] {
            check(
                &format!("{kind:?} {parameters}"),
                (&x, &dims),
                (&p, &[parameters]),
                |x, p| {
                    x.apply_op2(
                        p,
                        Rows {
                            kind,
                            channels,
                            inner,
                        },
                    )
                    .unwrap()
                },
                |x, p| {
                    x.iter()
                        .enumerate()
                        .map(|(i, &x)| {
                            let p = p[i / inner % channels % parameters];
                            match kind {
                                RowKind::Bias => x + p,
                                RowKind::Prelu if x < 0.0 => p * x,
                                RowKind::Prelu => x,
                            }
                        })
                        .collect()
                },
            );
        }
    }
}

#[test]
fn pooling() {
    for (i, sizes) in WINDOWS.into_iter().enumerate() {
        let w = window(sizes);
        for kind in [PoolKind::Max, PoolKind::Average] {
            for count_padding in [false, true] {
                let x = random(4 * w.plane(), i as u64);
                let op = Pooling {
                    window: w,
                    kind,
                    count_padding,
                };
                check(
                    &format!("{kind:?} {sizes:?}"),
                    (&x, &[2, 2 * w.plane()]),
                    (&[1.0], &[1]),
                    |x, one| x.apply_op1(op).unwrap().broadcast_mul(one).unwrap(),
                    |x, one| {
                        let mut y = Vec::new();
                        for plane in x.chunks(w.plane()) {
                            for oy in 0..w.y.output {
                                for ox in 0..w.x.output {
                                    let taps = (0..w.taps()).filter_map(|t| {
                                        let iy = w.y.source(oy, t / w.x.kernel)?;
                                        Some(
                                            plane[iy * w.x.input
                                                + w.x.source(ox, t % w.x.kernel)?],
                                        )
                                    });
                                    let (mut sum, mut count, mut most) = (0.0, 0, f64::MIN);
                                    for v in taps {
                                        (sum, count, most) = (sum + v, count + 1, most.max(v));
                                    }
                                    let divisor = if count_padding { w.taps() } else { count };
                                    y.push(
                                        one[0]
                                            * match kind {
                                                PoolKind::Max => most,
                                                PoolKind::Average => sum / divisor as f64,
                                            },
                                    );
                                }
                            }
                        }
                        y
                    },
                );
            }
        }
    }
}

#[test]
fn activations() {
    let kinds = [
        Activation::Relu,
        Activation::LeakyRelu { alpha: 0.1 },
        Activation::Clip {
            min: -0.5,
            max: 0.6,
        },
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
        Activation::Sqrt,
    ];
    let x: Vec<f32> = random(50, 5).iter().map(|x| 4.0 * x + 0.013).collect();
    for kind in kinds {
        let x: Vec<f32> = x
            .iter()
            .map(|x| {
                if kind == Activation::Sqrt {
                    x.abs() + 0.1
                } else {
                    *x
                }
            })
            .collect();
        let v = var(&x, &[50]);
        let y = v.as_tensor().apply_op1(Elementwise(kind)).unwrap();
        for (y, x) in flat(&y).iter().zip(&x) {
            assert_eq!(*y, value(kind, *x));
        }
        let grads = y.sum_all().unwrap().backward().unwrap();
        let g = flat(grads.get(&v).unwrap());
        for (g, &x) in g.iter().zip(&x) {
            let h = 2e-3f32;
            let slope = (value(kind, x + h) - value(kind, x - h)) / (2.0 * h);
            assert!(
                (g - slope).abs() < 5e-3 * (1.0 + slope.abs()),
                "{kind:?} at {x}: {g} {slope}"
            );
        }
    }
}

#[test]
fn quantisation_is_straight_through() {
    let op = Quantise {
        dead_zone: 0.0,
        limit: 3.0,
    };
    let w = [0.2f32, 0.8, -1.3, 2.6, -9.0, 0.5];
    let steps = [0.5f32, 1.0];
    let mut y = [1.0f32; 6];
    for ((y, w), step) in y.chunks_mut(3).zip(w.chunks(3)).zip(steps) {
        op.row(y, w, step);
    }
    // In steps: 0.4, 1.6, -2.6 | 2.6, -9, 0.5.
    assert_eq!(y, [0.0, 1.0, -1.5, 3.0, -3.0, 1.0]);
    assert!(y[0].is_sign_positive());
    let mut d = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let ds: Vec<f32> = d
        .chunks_mut(3)
        .zip(w.chunks(3))
        .zip(steps)
        .map(|((d, w), step)| op.row_backward(d, w, step))
        .collect();
    assert_eq!(d, [1.0, 2.0, 3.0, 4.0, 0.0, 6.0]);
    // s * sum g (q - u): 0.5 (1 (0 - 0.4) + 2 (2 - 1.6) + 3 (-3 + 2.6)), and 4 (3 - 2.6) + 5 (-3) + 6 (1 - 0.5).
    assert!(
        (ds[0] + 0.4).abs() < 1e-5 && (ds[1] + 10.4).abs() < 1e-5,
        "{ds:?}"
    );
}

#[test]
fn codes_have_a_dead_zone_that_fades() {
    for (u, dead_zone, expected) in [
        (0.61, 0.12, 0.0),
        (0.63, 0.12, 1.0),
        (-0.63, 0.12, -1.0),
        (0.51, 0.0, 1.0),
        (12.51, 0.12, 13.0),
        (300.0, 0.0, 127.0),
    ] {
        assert_eq!(code(u, dead_zone, 127.0), expected, "{u}");
    }
}
