//! Linear layers in every weight form, tile cut and instruction set against the f64 oracle.

mod common;

use common::{Form, Layer, Order, Rng};
use dcz_kernels::*;
use std::ops::Range;

const CANARY: f32 = 1.5e30;

/// (inputs, outputs), smallest first.
const CASES: &[(usize, usize)] = &[(1, 1), (7, 5), (64, 8), (200, 90), (1000, 17), (8192, 11)];

fn cuts(panels: usize, k: usize) -> Vec<Vec<(Range<usize>, Range<usize>)>> {
    let by_panel = |p: usize| {
        let thirds = [0, k / 3, 2 * k / 3, k];
        let ranges = (0..3).map(move |i| (p..p + 1, thirds[i]..thirds[i + 1]));
        ranges.filter(|(_, k)| !k.is_empty())
    };
    vec![
        vec![(0..panels, 0..k)],
        (0..panels)
            .step_by(2)
            .map(|p| (p..(p + 2).min(panels), 0..k))
            .collect(),
        (0..panels).flat_map(by_panel).collect(),
    ]
}

#[test]
fn every_form_and_cut() {
    for &(k, outputs) in CASES {
        for form in [
            Form::F32,
            Form::Layer,
            Form::Channel,
            Form::Block(32),
            Form::Lut,
            Form::LinearLut,
            Form::SmallLut,
        ] {
            for order in [KOrder::ChannelMajor, KOrder::TapMajor] {
                check(k, outputs, form, order);
            }
        }
    }
}

fn check(k: usize, outputs: usize, form: Form, order: KOrder) {
    let mut rng = Rng(3);
    let panels = outputs.div_ceil(PANEL);
    let lanes = (0..panels)
        .map(|p| (outputs - p * PANEL).min(PANEL))
        .collect();
    let layer = Layer::new(
        &mut rng,
        &Order {
            order,
            panels,
            k,
            lanes,
        },
        form,
    );
    let whole = layer.tile(0..panels, 0..k);
    let weights: Vec<f32> = (0..outputs)
        .flat_map(|o| (0..k).map(move |k| (o, k)))
        .map(|(o, k)| whole.weight(o / PANEL, k, o % PANEL))
        .collect();
    let n = 3;
    let (in_stride, out_stride) = (k + 5, outputs + 3);
    let x = rng.values(n * k);
    let bias = rng.values(outputs);
    let mut spaced = vec![f32::NAN; n * in_stride];
    for (to, from) in spaced.chunks_exact_mut(in_stride).zip(x.chunks_exact(k)) {
        to[..k].copy_from_slice(from);
    }
    let (sums, sizes) = reference::linear(&weights, k, &x);
    for isa in Isa::available() {
        for tiles in cuts(panels, k) {
            for rows in [n, 1] {
                let mut y = vec![CANARY; n * out_stride];
                for (tile_panels, range) in &tiles {
                    let tile = layer.tile(tile_panels.clone(), range.clone());
                    let first = tile.first_panel * PANEL;
                    let size = linear_workspace(tile.panels, tile.k_len);
                    let mut scratch = vec![f32::NAN; size];
                    let epilogue = Epilogue {
                        bias: Some(&bias[first..]),
                        activation: Activation::LeakyRelu(0.25),
                    };
                    let epilogue = (range.end == k).then_some(&epilogue);
                    let start = if range.start == 0 {
                        Start::Zero
                    } else {
                        Start::Accumulate
                    };
                    for row in (0..n).step_by(rows) {
                        linear_tile(
                            isa,
                            &tile,
                            outputs,
                            &spaced[row * in_stride..],
                            rows,
                            in_stride,
                            &mut y[row * out_stride + first..],
                            out_stride,
                            start,
                            epilogue,
                            &mut scratch,
                        );
                    }
                }
                for (i, row) in y.chunks_exact(out_stride).enumerate() {
                    assert!(row[outputs..].iter().all(|&v| v == CANARY), "wrote outside");
                    for (o, &value) in row[..outputs].iter().enumerate() {
                        let j = i * outputs + o;
                        let b = f64::from(bias[o]);
                        let activation = Activation::LeakyRelu(0.25);
                        let expected = reference::activate(&activation, o, sums[j] + b);
                        let eps = f64::from(f32::EPSILON);
                        let bound = 2.0 * eps * (k as f64 + 1.0).sqrt() * (sizes[j] + b.abs());
                        let error = (f64::from(value) - expected).abs();
                        assert!(
                            error <= bound,
                            "{k}x{outputs} {form:?} {}: {error:e}",
                            isa.name()
                        );
                    }
                }
            }
        }
    }
}

/// A linear layer is a 1x1 convolution of one pixel: same bits.
#[test]
fn equals_a_convolution_of_one_pixel() {
    let (k, outputs) = (700, 40);
    let shape = ConvShape {
        in_channels: k,
        out_channels: outputs,
        groups: 1,
        kernel: [1, 1],
        stride: [1, 1],
        dilation: [1, 1],
        pad_top: 0,
        pad_left: 0,
        in_h: 1,
        in_w: 1,
        out_h: 1,
        out_w: 1,
    };
    let mut rng = Rng(5);
    let layer = Layer::new(
        &mut rng,
        &Order::of(&shape, KOrder::ChannelMajor),
        Form::Channel,
    );
    let tile = layer.tile(0..shape.panels(), 0..k);
    let x = rng.values(k);
    for isa in Isa::available() {
        let (mut a, mut b) = (vec![0.0; outputs], vec![0.0; outputs]);
        let mut scratch = vec![0.0; linear_workspace(tile.panels, k)];
        let scratch = &mut scratch;
        linear_tile(
            isa,
            &tile,
            outputs,
            &x,
            1,
            k,
            &mut a,
            outputs,
            Start::Zero,
            None,
            scratch,
        );
        let mut scratch = vec![0.0; workspace(ConvAlgo::Gemm, &shape, tile.panels, 1)];
        let view = View {
            data: &x,
            map: Map::nchw(1, k, 1, 1),
        };
        let mut out = ViewMut {
            data: &mut b,
            map: Map::nchw(1, outputs, 1, 1),
        };
        let algo = ConvAlgo::Gemm;
        conv_tile(
            isa,
            algo,
            &shape,
            &tile,
            view,
            0..1,
            &mut out,
            Start::Zero,
            None,
            false,
            &mut scratch,
        );
        assert_eq!(a, b);
    }
}

/// Lists of a layer, whatever the tiles, for all outputs or some, against the oracle.
#[test]
fn lists_of_what_is_not_zero() {
    let mut rng = Rng(9);
    for (k, outputs) in [(1, 1usize), (7, 9), (300, 20), (9000, 13), (4096, 8)] {
        let panels = outputs.div_ceil(PANEL);
        let lanes = (0..panels).map(|p| (outputs - p * PANEL).min(PANEL));
        let order = Order {
            order: KOrder::ChannelMajor,
            panels,
            k,
            lanes: lanes.collect(),
        };
        let layer = Layer::new(&mut rng, &order, Form::F32);
        let whole = layer.tile(0..panels, 0..k);
        let weights: Vec<f32> = (0..outputs)
            .flat_map(|o| (0..k).map(move |k| (o, k)))
            .map(|(o, k)| whole.weight(o / PANEL, k, o % PANEL))
            .collect();
        let (x, bias, before) = (rng.values(k), rng.values(outputs), rng.values(outputs));
        let (sums, sizes) = reference::linear(&weights, k, &x);
        for isa in Isa::available() {
            let mut first: Option<Vec<f32>> = None;
            for tiles in cuts(panels, k) {
                let mut starts = vec![0; linear_sparse::starts_len(k, outputs)];
                let mut scratch = vec![f32::NAN; linear_sparse::FILL_WORKSPACE];
                for (panels, range) in &tiles {
                    let tile = layer.tile(panels.clone(), range.clone());
                    linear_sparse::count(isa, outputs, &tile, &mut starts, &mut scratch);
                }
                let entries = linear_sparse::finish_count(&mut starts).unwrap_or(0);
                let present = weights.iter().filter(|w| **w != 0.0).count();
                assert_eq!(entries, present);
                let (mut places, mut values) = (vec![0; entries], vec![f32::NAN; entries]);
                for (panels, range) in &tiles {
                    let tile = layer.tile(panels.clone(), range.clone());
                    let (places, values) = (&mut places, &mut values);
                    let starts = &mut starts;
                    linear_sparse::fill(isa, outputs, &tile, starts, places, values, &mut scratch);
                }
                linear_sparse::finish_fill(&mut starts);
                let lists = linear_sparse::Lists {
                    starts: &starts,
                    places: &places,
                    values: &values,
                };
                for parts in [1, 2, outputs] {
                    let mut y = before.clone();
                    y.push(CANARY);
                    let step = outputs.div_ceil(parts);
                    for at in (0..outputs).step_by(step) {
                        let range = at..(at + step).min(outputs);
                        let epilogue = Epilogue {
                            bias: Some(&bias[range.clone()]),
                            activation: Activation::Relu,
                        };
                        let y = &mut y[at..];
                        let (start, epilogue) = (Start::Accumulate, Some(&epilogue));
                        linear_sparse::run(isa, lists, outputs, range, &x, y, start, epilogue);
                    }
                    assert_eq!(y.pop(), Some(CANARY));
                    for (o, &value) in y.iter().enumerate() {
                        let expected = sums[o] + f64::from(before[o]) + f64::from(bias[o]);
                        let error = (f64::from(value) - expected.max(0.0)).abs();
                        let eps = f64::from(f32::EPSILON) * (k as f64 + 1.0).sqrt();
                        assert!(error <= 2.0 * eps * (sizes[o] + 2.0), "{k} {outputs} {o}");
                    }
                    let first = first.get_or_insert_with(|| y.clone());
                    assert_eq!(*first, y);
                }
                let mut y = vec![CANARY; outputs];
                let all = 0..outputs;
                linear_sparse::run(isa, lists, outputs, all, &x, &mut y, Start::Zero, None);
                for (o, &value) in y.iter().enumerate() {
                    let eps = f64::from(f32::EPSILON) * (k as f64 + 1.0).sqrt();
                    assert!((f64::from(value) - sums[o]).abs() <= 2.0 * eps * sizes[o] + 1e-30);
                }
            }
        }
    }
}
