//! Custom operations against slow f64 oracles: values, and gradients by central differences.

#![allow(clippy::unwrap_used)] // helpers of tests

use candle_core::{Device, Tensor, Var};
use dcz_format::graph::{Activation, Pads, PoolKind};
use dcz_train::augment::Random;
use dcz_train::ops::activation::{Elementwise, value};
use dcz_train::ops::conv::Conv;
use dcz_train::ops::depthwise::Depthwise;
use dcz_train::ops::geometry::Window;
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
    let (va, vb) = (var(a.0, a.1), var(b.0, b.1));
    let y = run(va.as_tensor(), vb.as_tensor());
    let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let (wa, wb) = (wide(a.0), wide(b.0));
    let expected = oracle(&wa, &wb);
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
    let total = |a: &[f64], b: &[f64]| -> f64 {
        oracle(a, b)
            .iter()
            .zip(&g)
            .map(|(y, g)| y * f64::from(*g))
            .sum()
    };
    let h = 1e-5;
    for (which, values, gradient) in [(0, &wa, grads.get(&va)), (1, &wb, grads.get(&vb))] {
        let gradient = flat(gradient.unwrap_or_else(|| panic!("{name}: no gradient {which}")));
        for i in 0..values.len() {
            let moved = |by: f64| {
                let mut v = values.clone();
                v[i] += by;
                if which == 0 {
                    total(&v, &wb)
                } else {
                    total(&wa, &v)
                }
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

/// Sizes: height, width, kernel, stride, dilation, padding.
const WINDOWS: [[u32; 6]; 6] = [
    [1, 1, 1, 1, 1, 0],
    [5, 4, 3, 1, 1, 1],
    [6, 7, 3, 2, 1, 1],
    [5, 5, 1, 2, 1, 0],
    [7, 6, 3, 1, 2, 2],
    [9, 9, 5, 2, 1, 2],
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
        let w = window(sizes);
        let (images, channels, outputs) = (2, 3, 2);
        let x = random(channels * images * w.plane(), i as u64);
        let weights = random(outputs * channels * w.taps(), 50 + i as u64);
        check(
            &format!("conv {sizes:?}"),
            (&x, &[channels, images * w.plane()]),
            (&weights, &[outputs, channels * w.taps()]),
            |x, k| {
                x.apply_op2(
                    k,
                    Conv {
                        window: w,
                        channels,
                        images,
                    },
                )
                .unwrap()
            },
            |x, k| convolve(&w, images, channels, channels, x, k),
        );
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
            let op = Depthwise {
                window: w,
                channels,
                multiplier,
                images,
            };
            check(
                &format!("depthwise {sizes:?} x{multiplier}"),
                (&x, &[channels, images * w.plane()]),
                (&weights, &[channels * multiplier, w.taps()]),
                |x, k| x.apply_op2(k, op).unwrap(),
                |x, k| convolve(&w, images, channels, 1, x, k),
            );
        }
    }
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
        let kt = Tensor::from_slice(&k, &[outputs, per_group * w.taps()], &Device::Cpu).unwrap();
        let y = if per_group == 1 {
            xt.apply_op2(
                &kt,
                Depthwise {
                    window: w,
                    channels,
                    multiplier: 1,
                    images,
                },
            )
        } else {
            xt.apply_op2(
                &kt,
                Conv {
                    window: w,
                    channels,
                    images,
                },
            )
        };
        let expected = convolve(&w, images, channels, per_group, &wide(&x), &wide(&k));
        for (a, b) in flat(&y.unwrap()).iter().zip(&expected) {
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
    let (v, s) = (var(&w, &[2, 3]), var(&[0.5f32.ln(), 1f32.ln()], &[2]));
    let y = v.as_tensor().apply_op2(s.as_tensor(), op).unwrap();
    // In steps: 0.4, 1.6, -2.6 | 2.6, -9, 0.5.
    assert_eq!(flat(&y), [0.0, 1.0, -1.5, 3.0, -3.0, 1.0]);
    assert!(flat(&y)[0].is_sign_positive());
    let g = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], (2, 3), &Device::Cpu).unwrap();
    let grads = (&y * &g).unwrap().sum_all().unwrap().backward().unwrap();
    assert_eq!(flat(grads.get(&v).unwrap()), [1.0, 2.0, 3.0, 4.0, 0.0, 6.0]);
    // s * sum g (q - u): 0.5 (1 (0 - 0.4) + 2 (2 - 1.6) + 3 (-3 + 2.6)), and 4 (3 - 2.6) + 5 (-3) + 6 (1 - 0.5).
    let ds = flat(grads.get(&s).unwrap());
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
