//! Rates of convolutions from resident lists, one thread:
//! `cargo run --release -p dcz-kernels --example sparse_speed [ZEROS] [GROUP] [FILTER]`.
//!
//! ZEROS percent (80) of the weights are zero, in groups of GROUP (1, 2 or 4) output channels. Each row: ms, billions of
//! dense multiply-adds per second, of multiply-adds with weights that are not zero, and of the peak in registers.

use dcz_kernels::*;
use std::time::Instant;

/// Channels in and out, kernel, stride, size of the output.
const CASES: &[[usize; 5]] = &[
    [64, 64, 3, 1, 64],
    [128, 128, 3, 1, 32],
    [256, 256, 3, 1, 16],
    [512, 512, 3, 1, 8],
    [64, 128, 3, 2, 32],
    [256, 512, 3, 2, 8],
    [64, 64, 1, 1, 64],
    [64, 128, 1, 2, 32],
    [256, 512, 1, 2, 8],
    [512, 512, 3, 1, 7],
    [512, 512, 3, 1, 4],
    [256, 64, 1, 1, 56],
    [64, 256, 1, 1, 56],
    [256, 256, 3, 1, 14],
];

fn main() {
    let isa = Isa::detect();
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| {
        let next = arguments.next();
        next.and_then(|n| n.parse().ok()).unwrap_or(default)
    };
    let (zeros, group) = (number(80), number(1));
    let filter = arguments.next().unwrap_or_default();
    for &[inputs, outputs, kernel, stride, size] in CASES {
        let shape = ConvShape {
            in_channels: inputs,
            out_channels: outputs,
            groups: 1,
            kernel: [kernel; 2],
            stride: [stride; 2],
            dilation: [1, 1],
            pad_top: kernel / 2,
            pad_left: kernel / 2,
            in_h: size * stride,
            in_w: size * stride,
            out_h: size,
            out_w: size,
        };
        let name = format!("{inputs} to {outputs}, {kernel}x{kernel} / {stride}, {size}x{size}");
        if name.contains(&filter) {
            measure(isa, &name, &shape, zeros as u64, group);
        }
    }
}

fn measure(isa: Isa, name: &str, shape: &ConvShape, zeros: u64, group: usize) {
    let mut state = 1u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state >> 40
    };
    let mut q = vec![0i8; shape.panels() * PANEL * shape.k()];
    for group in q.chunks_mut(group) {
        if next() % 100 >= zeros {
            group.iter_mut().for_each(|q| *q = (next() % 127) as i8 + 1);
        }
    }
    let present = q.iter().filter(|q| **q != 0).count();
    let tile = WeightTile {
        first_panel: 0,
        panels: shape.panels(),
        k0: 0,
        k_len: shape.k(),
        order: KOrder::ChannelMajor,
        values: TileValues::I8 {
            q: &q,
            steps: Steps::Layer(0.01),
        },
    };
    let mut scratch = vec![0.0; sparse::fill_workspace(shape)];
    let mut starts = vec![0; sparse::starts_len(shape, group)];
    let begin = Instant::now();
    sparse::count(isa, shape, group, &tile, &mut starts, &mut scratch);
    let entries = sparse::finish_count(&mut starts).unwrap_or(0);
    let (mut places, mut values) = (vec![0; entries], vec![0.0; entries * group]);
    let (p, v) = (&mut places, &mut values);
    sparse::fill(isa, shape, group, &tile, &starts, p, v, &mut scratch);
    let built = begin.elapsed().as_secs_f64();
    let lists = sparse::Lists {
        starts: &starts,
        places: &places,
        values: &values,
    };
    let from = Map::rows(1, shape.in_channels, shape.in_h, shape.in_w);
    let map = Map::rows(1, shape.out_channels, shape.out_h, shape.out_w);
    let input: Vec<f32> = (0..from.len()).map(|i| (i % 7) as f32).collect();
    let mut data = vec![0.0; map.len()];
    let size = sparse::run_workspace(shape, shape.panels(), shape.out_h);
    let mut scratch = vec![0.0; size];
    let bias = vec![0.1; shape.out_channels];
    let epilogue = Epilogue {
        bias: Some(&bias),
        activation: Activation::Relu,
    };
    let (mut best, mut peak) = (f64::MAX, 0f64);
    let started = Instant::now();
    while started.elapsed().as_secs_f64() < 0.3 {
        let now = Instant::now();
        sparse::run(
            isa,
            shape,
            shape,
            group,
            lists,
            0..shape.panels(),
            View {
                data: &input,
                map: from,
            },
            0..shape.out_h,
            &mut ViewMut {
                data: &mut data,
                map,
            },
            Start::Zero,
            Some(&epilogue),
            &mut scratch,
        );
        best = best.min(now.elapsed().as_secs_f64());
        let now = Instant::now();
        std::hint::black_box(isa.peak_probe(20_000));
        peak = peak.max(20_000.0 * 96.0 / now.elapsed().as_secs_f64() / 1e9);
    }
    let pixels = shape.out_h * shape.out_w;
    let dense = (shape.out_channels * shape.k() * pixels) as f64 / best / 1e9;
    let sparse = (present * pixels) as f64 / best / 1e9;
    println!(
        "{name:<28} {:7.3} ms {dense:6.1} dense, {sparse:5.1} of {peak:4.1} ({:.0} KiB scratch, lists made in {:.2} ms)",
        best * 1e3,
        size as f64 / 256.0,
        built * 1e3,
    );
}
