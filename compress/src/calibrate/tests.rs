//! Second-order rounding against independent slow implementations, gradients against differences, pieces against the whole.

use dcz_format::graph::{
    Activation, BinaryKind, ConstId, Conv, Dim, LayerId, Meaning, Metric, Network, Node, Op,
    Output, Pads, Pool, PoolKind, ReshapeDim, Tensor, TensorId,
};
use dcz_format::layer::LayerShape;
use ndarray::Array2;

use super::equalise;
use super::frontier::Frontier;
use super::gradient::{self, Values};
use super::gram::Gram;
use super::patches::Patches;
use super::rate::Rate;
use super::segment::{Segment, live, shapes};
use super::solve::{Factor, Rounding, lost, round, round_coupled};
use super::walk::{Knowledge, choose_steps, step_for};
use crate::import::{FloatConstant, FloatLayer, FloatNetwork};

/// Nearly normal numbers that depend on the seed only.
pub fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5
    };
    (0..count)
        .map(|_| (0..6).map(|_| uniform()).sum())
        .collect()
}

/// Second moments of correlated inputs.
fn moments(k: usize, seed: u64) -> Array2<f64> {
    let mixing = noise(k * k, seed);
    let x = noise(4 * k * k, seed + 1);
    let x = Array2::from_shape_fn((4 * k, k), |(i, j)| f64::from(x[i * k + j]));
    let mixing = Array2::from_shape_fn((k, k), |(i, j)| {
        f64::from(mixing[i * k + j]) + f64::from(u8::from(i == j))
    });
    let y = x.dot(&mixing);
    y.t().dot(&y) / (4 * k) as f64
}

fn inverse(a: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let n = a.len();
    let mut all: Vec<Vec<f64>> = a
        .iter()
        .enumerate()
        .map(|(i, row)| {
            row.iter()
                .copied()
                .chain((0..n).map(|j| f64::from(u8::from(i == j))))
                .collect()
        })
        .collect();
    for i in 0..n {
        let pivot = all[i][i];
        all[i].iter_mut().for_each(|v| *v /= pivot);
        for r in 0..n {
            if r != i {
                let factor = all[r][i];
                let pivot = all[i].clone();
                all[r]
                    .iter_mut()
                    .zip(pivot)
                    .for_each(|(v, p)| *v -= factor * p);
            }
        }
    }
    all.into_iter().map(|row| row[n..].to_vec()).collect()
}

/// Optimal Brain Compression as its paper writes it: the inverse of what is left, anew for every weight.
fn brain_surgeon(w: &[f32], h: &Array2<f64>, step: f64) -> Vec<i8> {
    let k = w.len();
    let mut w: Vec<f64> = w.iter().map(|&w| f64::from(w)).collect();
    let mut codes = Vec::new();
    for j in 0..k {
        let rest: Vec<Vec<f64>> = (j..k)
            .map(|a| (j..k).map(|b| h[(a, b)]).collect())
            .collect();
        let inverse = inverse(&rest);
        let q = (w[j] / step).round();
        let error = (w[j] - q * step) / inverse[0][0];
        for i in j..k {
            w[i] -= error * inverse[0][i - j];
        }
        codes.push(q as i8);
    }
    codes
}

/// Sum over rows of weight * (w - q step) H (w - q step)^T.
fn distortion(original: &[f32], codes: &[i8], how: &Rounding, moments: &Array2<f64>) -> f64 {
    let k = moments.nrows().max(1);
    original
        .chunks_exact(k)
        .zip(codes.chunks_exact(k))
        .enumerate()
        .map(|(row, (w, q))| {
            let e: Vec<f64> = w
                .iter()
                .zip(q)
                .map(|(&w, &q)| f64::from(w - f32::from(q) * how.steps[row]))
                .collect();
            let mut sum = 0.0;
            for (j, &ej) in e.iter().enumerate() {
                let dot: f64 = e.iter().zip(moments.row(j)).map(|(e, m)| e * m).sum();
                sum += ej * dot;
            }
            how.weights[row] * sum
        })
        .sum()
}

#[test]
fn rounding_equals_the_slow_way() {
    for seed in 0..6 {
        let (k, m) = (12, 5);
        let h = moments(k, seed);
        let factor = Factor::new(&h, 0.0).unwrap();
        let w = noise(m * k, seed + 50);
        let (steps, weights) = ([0.3f32; 5], [1.0; 5]);
        let how = Rounding {
            steps: &steps,
            weights: &weights,
            lambda: 0.0,
            limit: 127,
            zeros: &[],
        };
        let codes = round(&mut w.clone(), &factor, &how, &Rate::of(&[0]));
        for row in 0..m {
            let slow = brain_surgeon(&w[row * k..][..k], &h, 0.3);
            assert_eq!(codes[row * k..][..k], slow, "seed {seed}");
        }
        // The variances are those of the inverse of what is left.
        let all: Vec<Vec<f64>> = (0..k)
            .map(|a| (0..k).map(|b| h[(a, b)]).collect())
            .collect();
        assert!((factor.variances()[0] * inverse(&all)[0][0] - 1.0).abs() < 1e-9);
        assert!((factor.variances()[k - 1] / h[(k - 1, k - 1)] - 1.0).abs() < 1e-9);
    }
}

#[test]
fn compensation_loses_less_and_cheap_codes_cost_fewer_bits() {
    let (k, m) = (64, 32);
    let h = moments(k, 3);
    let factor = Factor::new(&h, 0.001).unwrap();
    let w = noise(m * k, 4);
    let (steps, weights) = (vec![0.5f32; m], vec![1.0; m]);
    let how = |lambda| Rounding {
        steps: &steps,
        weights: &weights,
        lambda,
        limit: 127,
        zeros: &[],
    };
    let plain: Vec<i8> = w.iter().map(|w| (w / 0.5).round() as i8).collect();
    let rate = Rate::of(&plain);
    let codes = round(&mut w.clone(), &factor, &how(0.0), &rate);
    let loss = |codes: &[i8]| distortion(&w, codes, &how(0.0), &h);
    assert!(
        loss(&codes) < 0.7 * loss(&plain),
        "{} {}",
        loss(&codes),
        loss(&plain)
    );
    // With a price on bits: fewer bits, and still less error than plain rounding of the same number of bits.
    let mean = factor.variances().iter().sum::<f64>() / k as f64;
    let lambda = 3.0 * 0.25 / 12.0 * 2.0 * std::f64::consts::LN_2 * mean;
    let cheap = round(&mut w.clone(), &factor, &how(lambda), &rate);
    assert!(Rate::of(&cheap).total() < Rate::of(&codes).total());
    let (mut step, target) = (0.5f32, Rate::of(&cheap).total());
    let mut coarse = plain;
    while Rate::of(&coarse).total() > target {
        step *= 1.01;
        coarse = w.iter().map(|w| (w / step).round() as i8).collect();
    }
    let steps = vec![step; m];
    let how = Rounding {
        steps: &steps,
        weights: &weights,
        lambda: 0.0,
        limit: 127,
        zeros: &[],
    };
    assert!(loss(&cheap) < 0.95 * distortion(&w, &coarse, &how, &h));
}

#[test]
fn coupled_rows_are_one_long_row_of_the_kronecker_product() {
    let (k, m) = (9, 7);
    let (h, g) = (moments(k, 21), moments(m, 22));
    let (columns, rows) = (Factor::new(&h, 0.0).unwrap(), Factor::new(&g, 0.0).unwrap());
    let whole = Array2::from_shape_fn((m * k, m * k), |(a, b)| {
        g[(a / k, b / k)] * h[(a % k, b % k)]
    });
    let whole = Factor::new(&whole, 0.0).unwrap();
    let w = noise(m * k, 23);
    let (steps, weights) = (vec![0.4f32; m], vec![1.0; m]);
    let how = Rounding {
        steps: &steps,
        weights: &weights,
        lambda: 1e-3,
        limit: 127,
        zeros: &[],
    };
    let rate = Rate::of(&[0, 0, 0, 1, -1, 2, -2]);
    let mut work = w.clone();
    let codes = round_coupled(&mut work, &columns, &rows, &how, &rate);
    let mut long = w.clone();
    assert_eq!(codes, round(&mut long, &whole, &how, &rate));
    // And the error is what the product says.
    let e: Vec<f64> = w
        .iter()
        .zip(&codes)
        .map(|(w, &q)| f64::from(w - f32::from(q) * 0.4))
        .collect();
    let mut wanted = 0.0;
    for (a, x) in e.iter().enumerate() {
        for (b, y) in e.iter().enumerate() {
            wanted += x * y * g[(a / k, b / k)] * h[(a % k, b % k)];
        }
    }
    let told = lost(&work, &codes, &how, columns.variances(), rows.variances());
    assert!((told / wanted - 1.0).abs() < 1e-3, "{told} {wanted}");
}

#[test]
fn forced_zeros_are_zero_and_made_up_for() {
    let (k, m) = (32, 8);
    let h = moments(k, 8);
    let factor = Factor::new(&h, 0.001).unwrap();
    let w = noise(m * k, 9);
    let zeros: Vec<bool> = (0..m * k).map(|i| i % 3 == 0).collect();
    let (steps, weights) = (vec![0.02f32; m], vec![1.0; m]);
    let how = Rounding {
        steps: &steps,
        weights: &weights,
        lambda: 0.0,
        limit: 127,
        zeros: &zeros,
    };
    let codes = round(&mut w.clone(), &factor, &how, &Rate::of(&[0]));
    let plain: Vec<i8> = w
        .iter()
        .zip(&zeros)
        .map(|(w, &z)| {
            if z {
                0
            } else {
                (w / 0.02).round().clamp(-127.0, 127.0) as i8
            }
        })
        .collect();
    assert!(codes.iter().zip(&zeros).all(|(&c, &z)| !z || c == 0));
    assert!(distortion(&w, &codes, &how, &h) < distortion(&w, &plain, &how, &h));
}

#[test]
fn the_inverse_is_the_inverse() {
    let k = 20;
    let h = moments(k, 1);
    let factor = Factor::new(&h, 0.0).unwrap();
    let rows: Vec<f64> = noise(3 * k, 2).iter().map(|&v| f64::from(v)).collect();
    let mut solved = rows.clone();
    factor.solve(&mut solved).unwrap();
    for row in 0..3 {
        for j in 0..k {
            let back: f64 = (0..k).map(|i| solved[row * k + i] * h[(i, j)]).sum();
            assert!((back - rows[row * k + j]).abs() < 1e-8);
        }
    }
    assert!(Factor::new(&Array2::zeros((4, 4)), 0.01).is_none());
    // Singular moments are damped until they can be factored.
    assert!(
        Factor::new(&Array2::ones((4, 4)), 0.0).is_none()
            || Factor::new(&Array2::ones((4, 4)), 0.01).is_some()
    );
}

#[test]
fn steps_follow_the_price() {
    // An error of step^2 / 12 per weight falls as fast per bit as the price says.
    let (lambda, weight) = (1e-4, 3.0);
    let step = step_for(lambda, weight);
    let slope = 2.0 * std::f64::consts::LN_2 * weight * step * step / 12.0;
    assert!((slope / lambda - 1.0).abs() < 1e-9);
    let w = noise(4 * 4096, 1);
    use dcz_format::layer::Steps;
    // Equal rows share a step; very unequal ones of many weights get their own.
    assert!(matches!(
        choose_steps(&w, 4096, &[1.0; 4], 1e-4, 127),
        Steps::Layer(_)
    ));
    assert!(
        matches!(choose_steps(&w, 4096, &[1.0, 100.0, 1.0, 100.0], 1e-4, 127), Steps::Channel(s) if s.len() == 4)
    );
    assert!(matches!(
        choose_steps(&w[..16], 4, &[1.0, 2.0, 1.0, 2.0], 1e-4, 127),
        Steps::Layer(_)
    ));
}

/// A network with most operators that are differentiated: 3x8x8 to 10 numbers.
pub fn small() -> FloatNetwork {
    let mut float = FloatNetwork {
        network: Network {
            name: "small".into(),
            ..Network::default()
        },
        layers: Vec::new(),
        constants: Vec::new(),
        notes: Vec::new(),
    };
    let tensor = |float: &mut FloatNetwork, dims: &[u32]| {
        let id = float.network.tensors.len() as u32;
        float.network.tensors.push(Tensor {
            name: format!("t{id}"),
            dims: dims.iter().map(|&d| Dim::Fixed(d)).collect(),
            quant: None,
        });
        TensorId(id)
    };
    let constant = |float: &mut FloatNetwork, dims: Vec<usize>, values: Vec<f32>| {
        let id = float.constants.len() as u32;
        float.constants.push(FloatConstant {
            name: format!("c{id}"),
            dims,
            values,
        });
        ConstId(id)
    };
    let layer = |float: &mut FloatNetwork, out: u32, inputs: u32, kernel: u32, groups: u32| {
        let id = float.layers.len() as u32;
        let shape = LayerShape {
            out_channels: out,
            in_per_group: inputs,
            kernel: [kernel; 2],
            groups,
        };
        let k = shape.k();
        let weights = noise(out as usize * k, u64::from(id) + 11)
            .iter()
            .map(|w| w / (k as f32).sqrt() * 1.4)
            .collect();
        float.layers.push(FloatLayer {
            name: format!("l{id}"),
            shape,
            weights,
        });
        let bias = noise(out as usize, u64::from(id) + 31)
            .iter()
            .map(|b| 0.2 * b)
            .collect();
        (LayerId(id), constant(float, vec![out as usize], bias))
    };
    let push = |float: &mut FloatNetwork, op: Op, inputs: Vec<TensorId>| {
        let output = tensor(float, &[]);
        let name = format!("n{}", float.network.nodes.len());
        float.network.nodes.push(Node {
            name,
            op,
            inputs,
            output,
        });
        output
    };
    let conv = |(layer, bias): (LayerId, ConstId), stride: u32, pad: u32| {
        Op::Conv(Conv {
            layer,
            bias: Some(bias),
            strides: [stride; 2],
            dilations: [1, 1],
            pads: Pads::Explicit([pad; 4]),
        })
    };
    let f = &mut float;
    let x = tensor(f, &[1, 3, 8, 8]);
    f.network.inputs = vec![x];
    let mean = constant(f, vec![1, 3, 1, 1], vec![0.1, 0.2, -0.1]);
    let x = push(
        f,
        Op::BinaryConst {
            kind: BinaryKind::Sub,
            constant: mean,
            constant_first: false,
        },
        vec![x],
    );
    let l = layer(f, 8, 3, 3, 1);
    let a = push(f, conv(l, 1, 1), vec![x]);
    let slope = constant(f, vec![8, 1, 1], noise(8, 3));
    let a = push(f, Op::Prelu { slope }, vec![a]);
    let l = layer(f, 8, 1, 3, 8);
    let b = push(f, conv(l, 1, 1), vec![a]);
    let b = push(f, Op::Activation(Activation::Relu), vec![b]);
    let l = layer(f, 8, 8, 1, 1);
    let b = push(f, conv(l, 1, 0), vec![b]);
    let b = push(f, Op::Binary(BinaryKind::Add), vec![a, b]);
    let b = push(
        f,
        Op::Activation(Activation::LeakyRelu { alpha: 0.2 }),
        vec![b],
    );
    let pool = |kind| {
        Op::Pool(Pool {
            kind,
            kernel: [2, 2],
            strides: [2, 2],
            dilations: [1, 1],
            pads: Pads::Explicit([0; 4]),
            ceil_mode: false,
            count_include_pad: false,
        })
    };
    let b = push(f, pool(PoolKind::Max), vec![b]);
    let l = layer(f, 12, 4, 3, 2);
    let c = push(f, conv(l, 1, 1), vec![b]);
    let c = push(f, Op::Activation(Activation::Silu), vec![c]);
    let c = push(f, pool(PoolKind::Average), vec![c]);
    let c = push(
        f,
        Op::Reshape {
            dims: vec![ReshapeDim::Fixed(1), ReshapeDim::Rest],
        },
        vec![c],
    );
    let (l, bias) = layer(f, 10, 48, 1, 1);
    let y = push(
        f,
        Op::Linear {
            layer: l,
            bias: Some(bias),
        },
        vec![c],
    );
    f.network.outputs = vec![Output {
        tensor: y,
        meaning: Meaning::Embedding {
            metric: Metric::Cosine,
            threshold: None,
        },
    }];
    float
}

fn run(float: &FloatNetwork, input: &[f32]) -> Vec<f32> {
    let dims = shapes(float).unwrap();
    let outputs: Vec<TensorId> = float.network.outputs.iter().map(|o| o.tensor).collect();
    let nodes = 0..float.network.nodes.len();
    let segment = Segment::new(float, &dims, nodes, &float.network.inputs, &outputs).unwrap();
    segment.run(&[input]).unwrap().remove(0)
}

#[test]
fn gradients_are_slopes() {
    let float = small();
    let dims = shapes(&float).unwrap();
    let input = noise(192, 77);
    let all: Vec<TensorId> = float.network.nodes.iter().map(|n| n.output).collect();
    let nodes = 0..float.network.nodes.len();
    let segment = Segment::new(&float, &dims, nodes, &float.network.inputs, &all).unwrap();
    let mut values: Values = all
        .iter()
        .copied()
        .zip(segment.run(&[&input]).unwrap())
        .collect();
    values.insert(float.network.inputs[0], input.clone());
    let direction = noise(10, 78);
    let mut seen = 0;
    gradient::backward(
        &float,
        &dims,
        &values,
        vec![direction.clone()],
        &mut |layer| {
            // The bias is the place where a layer's output can be moved: its gradient is the sum over positions.
            let node = &float.network.nodes[layer.node];
            let (Op::Conv(Conv {
                bias: Some(bias), ..
            })
            | Op::Linear {
                bias: Some(bias), ..
            }) = &node.op
            else {
                panic!()
            };
            let channels = float.constants[bias.0 as usize].values.len();
            let plane = layer.output.len() / channels;
            for channel in 0..channels {
                let slope: f32 = layer.output[channel * plane..(channel + 1) * plane]
                    .iter()
                    .sum();
                let along = |change: f32| {
                    let mut moved = float.clone();
                    moved.constants[bias.0 as usize].values[channel] += change;
                    let y = run(&moved, &input);
                    y.iter()
                        .zip(&direction)
                        .map(|(y, v)| f64::from(y * v))
                        .sum::<f64>()
                };
                let difference = (along(1e-3) - along(-1e-3)) / 2e-3;
                let error = (difference - f64::from(slope)).abs();
                assert!(
                    error < 0.02 * difference.abs() + 0.01,
                    "{}: {difference} {slope}",
                    node.name
                );
            }
            seen += 1;
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(seen, 5);
}

#[test]
fn scaled_channels_give_the_same_outputs() {
    let mut float = small();
    let input = noise(192, 5);
    let before = run(&float, &input);
    let links = equalise::links(&float);
    // First convolution to depthwise is no link: its output is read twice. Depthwise to pointwise, grouped stays apart (SiLU).
    assert_eq!(links.len(), 1);
    for link in links {
        let scales = equalise::normalised(
            &noise(8, 6)
                .iter()
                .map(|&v| f64::from(v).exp())
                .collect::<Vec<_>>(),
        );
        let untouched = float.layers.clone();
        assert!(equalise::apply(&mut float, link, &scales));
        assert_ne!(untouched, float.layers);
    }
    for (a, b) in before.iter().zip(run(&float, &input)) {
        assert!((a - b).abs() < 1e-4 * (1.0 + a.abs()), "{a} {b}");
    }
}

#[test]
fn what_is_kept_between_layers_does_not_matter() {
    let float = small();
    let dims = shapes(&float).unwrap();
    let source = |image: usize| Ok(noise(192, image as u64));
    let mut coded = float.clone();
    coded.layers[0].weights.iter_mut().for_each(|w| *w *= 0.9);
    let walk = |budget: usize| {
        let mut frontier = Frontier::new(&source, 40, dims.clone(), budget);
        let mut all = Vec::new();
        for node in [1, 3, 5, 9, 13] {
            frontier
                .advance(&float, Some(&coded), node, &mut |image, x, y| {
                    all.push((node, image, x.clone(), y.clone()));
                    Ok(())
                })
                .unwrap();
        }
        all
    };
    let nothing = walk(0);
    assert_eq!(nothing.len(), 200);
    // Everything is kept; only the last places fit. Other pieces are planned differently: equal but for rounding.
    for budget in [1 << 30, 40 * 2 * 4 * 300] {
        for (a, b) in nothing.iter().zip(walk(budget)) {
            assert_eq!((a.0, a.1), (b.0, b.1));
            let pairs = a.2.iter().chain(&a.3).zip(b.2.iter().chain(&b.3));
            for (a, b) in pairs.flat_map(|(a, b)| a.iter().zip(b)) {
                assert!((a - b).abs() < 1e-4 * (1.0 + a.abs()), "{a} {b}");
            }
        }
    }
    assert!(
        nothing
            .iter()
            .all(|(node, _, x, y)| (*node == 1) == (x == y))
    );
    assert_eq!(live(&float.network, 5).len(), 2);
}

#[test]
fn moments_are_those_of_the_patches() {
    let float = small();
    let dims = shapes(&float).unwrap();
    for n in [1, 3, 9] {
        let node = &float.network.nodes[n];
        let layer = &float.layers[node.op.layer().unwrap().0 as usize];
        let input = &dims[node.inputs[0].0 as usize];
        let patches = Patches::of(node, layer.shape, input).unwrap();
        let len = input.iter().product();
        let (k, width) = (patches.k(), patches.width());
        let mut gram = Gram::new(patches.clone(), false);
        let (mut square, mut cross, mut total) = (
            Array2::<f64>::zeros((width, width)),
            Array2::<f64>::zeros((width, width)),
            0.0,
        );
        let (mut mean, mut lost) = (vec![0.0f64; width], vec![0.0f64; width]);
        for image in 0..30 {
            let (x, y) = (noise(len, image), noise(len, image + 100));
            for p in 0..patches.positions() {
                let weight = 0.5 + (p % 3) as f32;
                gram.add(&x, &y, p, weight).unwrap();
                let (mut a, mut b) = (vec![0.0; width], vec![0.0; width]);
                patches.gather(&x, p, &mut a);
                patches.gather(&y, p, &mut b);
                let weight = f64::from(weight);
                total += weight;
                for i in 0..width {
                    mean[i] += weight * f64::from(b[i]);
                    lost[i] += weight * f64::from(a[i] - b[i]);
                    for j in 0..width {
                        square[(i, j)] += weight * f64::from(b[i]) * f64::from(b[j]);
                        cross[(i, j)] += weight * f64::from(a[i] - b[i]) * f64::from(b[j]);
                    }
                }
            }
        }
        let inputs = gram.finish(true).unwrap();
        for (g, moments) in inputs.moments.iter().enumerate() {
            for i in 0..k {
                for j in 0..k {
                    let (r, c) = (g * k + i, g * k + j);
                    let wanted = square[(r, c)] / total - mean[r] * mean[c] / total / total;
                    assert!((moments.square[(i, j)] - wanted).abs() < 1e-4);
                    let wanted = cross[(r, c)] / total - lost[r] * mean[c] / total / total;
                    assert!((moments.cross[(i, j)] - wanted).abs() < 1e-4);
                }
            }
        }
    }
}

#[test]
fn rows_that_were_not_seen_to_matter_keep_a_share() {
    let shape = LayerShape {
        out_channels: 3,
        in_per_group: 1,
        kernel: [1, 1],
        groups: 1,
    };
    let known = Knowledge {
        rows: vec![0.0, 1.0, 2.0],
        ..Knowledge::default()
    };
    assert_eq!(super::walk::rows_of(&known, &shape), [1e-3, 1.0, 2.0]);
    assert_eq!(
        super::walk::rows_of(&Knowledge::default(), &shape),
        [1.0; 3]
    );
}
