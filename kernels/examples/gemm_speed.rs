//! Rates of the convolution and linear kernels on typical layers, one thread:
//! `cargo run --release -p dcz-kernels --example gemm_speed [ISA] [FILTER] [ZEROS]`.
//!
//! Each row: billions of dense multiply-adds per second, the share of the rate of multiply-adds in
//! registers measured next to it, and the panels per call, in tiles joined as the runtime joins them. Weights are i8 codes with one step,
//! expanded anew in every call as the runtime does; ZEROS percent of them (50) are zero. Linear layers also with f32.

use dcz_kernels::*;
use std::time::Instant;

struct Case {
    name: &'static str,
    algo: ConvAlgo,
    channels: [usize; 2],
    groups: usize,
    kernel: usize,
    stride: usize,
    size: usize,
    order: KOrder,
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { name: "64 64x64 3x3",      algo: ConvAlgo::Gemm, channels: [64, 64],   groups: 1, kernel: 3, stride: 1, size: 64, order: KOrder::ChannelMajor },
    Case { name: "128 32x32 3x3",     algo: ConvAlgo::Gemm, channels: [128, 128], groups: 1, kernel: 3, stride: 1, size: 32, order: KOrder::ChannelMajor },
    Case { name: "256 16x16 3x3",     algo: ConvAlgo::Gemm, channels: [256, 256], groups: 1, kernel: 3, stride: 1, size: 16, order: KOrder::ChannelMajor },
    Case { name: "512 8x8 3x3",       algo: ConvAlgo::Gemm, channels: [512, 512], groups: 1, kernel: 3, stride: 1, size: 8,  order: KOrder::ChannelMajor },
    Case { name: "512 7x7 3x3",       algo: ConvAlgo::Gemm, channels: [512, 512], groups: 1, kernel: 3, stride: 1, size: 7,  order: KOrder::ChannelMajor },
    Case { name: "512 4x4 3x3",       algo: ConvAlgo::Gemm, channels: [512, 512], groups: 1, kernel: 3, stride: 1, size: 4,  order: KOrder::ChannelMajor },
    Case { name: "tap 256 16x16 3x3", algo: ConvAlgo::Gemm, channels: [256, 256], groups: 1, kernel: 3, stride: 1, size: 16, order: KOrder::TapMajor },
    Case { name: "tap 512 8x8 3x3",   algo: ConvAlgo::Gemm, channels: [512, 512], groups: 1, kernel: 3, stride: 1, size: 8,  order: KOrder::TapMajor },
    Case { name: "stem 3 3x3 s2",     algo: ConvAlgo::Gemm, channels: [3, 64],    groups: 1, kernel: 3, stride: 2, size: 128, order: KOrder::ChannelMajor },
    Case { name: "stem 3 7x7 s2",     algo: ConvAlgo::Gemm, channels: [3, 64],    groups: 1, kernel: 7, stride: 2, size: 224, order: KOrder::ChannelMajor },
    Case { name: "stem 3-32 112x112 3x3", algo: ConvAlgo::Gemm, channels: [3, 32], groups: 1, kernel: 3, stride: 1, size: 112, order: KOrder::ChannelMajor },
    Case { name: "stem 3-16 640x640 3x3 s2", algo: ConvAlgo::Gemm, channels: [3, 16], groups: 1, kernel: 3, stride: 2, size: 640, order: KOrder::ChannelMajor },
    Case { name: "64-128 3x3 s2",     algo: ConvAlgo::Gemm, channels: [64, 128],  groups: 1, kernel: 3, stride: 2, size: 64, order: KOrder::ChannelMajor },
    Case { name: "256-512 3x3 s2",    algo: ConvAlgo::Gemm, channels: [256, 512], groups: 1, kernel: 3, stride: 2, size: 16, order: KOrder::ChannelMajor },
    Case { name: "64-128 1x1 s2",     algo: ConvAlgo::Gemm, channels: [64, 128],  groups: 1, kernel: 1, stride: 2, size: 64, order: KOrder::ChannelMajor },
    Case { name: "256-512 1x1 s2",    algo: ConvAlgo::Gemm, channels: [256, 512], groups: 1, kernel: 1, stride: 2, size: 16, order: KOrder::ChannelMajor },
    Case { name: "64-128 56x56 1x1",  algo: ConvAlgo::Gemm, channels: [64, 128],  groups: 1, kernel: 1, stride: 1, size: 56, order: KOrder::ChannelMajor },
    Case { name: "128-256 14x14 1x1", algo: ConvAlgo::Gemm, channels: [128, 256], groups: 1, kernel: 1, stride: 1, size: 14, order: KOrder::ChannelMajor },
    Case { name: "128-512 7x7 1x1",   algo: ConvAlgo::Gemm, channels: [128, 512], groups: 1, kernel: 1, stride: 1, size: 7, order: KOrder::ChannelMajor },
    Case { name: "64-128 28x28 1x1", algo: ConvAlgo::Gemm, channels: [64, 128], groups: 1, kernel: 1, stride: 1, size: 28, order: KOrder::ChannelMajor },
    Case { name: "64-128 28x28 1x1", algo: ConvAlgo::Pointwise, channels: [64, 128], groups: 1, kernel: 1, stride: 1, size: 28, order: KOrder::ChannelMajor },
    Case { name: "64-256 56x56 1x1", algo: ConvAlgo::Gemm, channels: [64, 256], groups: 1, kernel: 1, stride: 1, size: 56, order: KOrder::ChannelMajor },
    Case { name: "64-256 56x56 1x1", algo: ConvAlgo::Pointwise, channels: [64, 256], groups: 1, kernel: 1, stride: 1, size: 56, order: KOrder::ChannelMajor },
    Case { name: "256-64 56x56 1x1", algo: ConvAlgo::Gemm, channels: [256, 64], groups: 1, kernel: 1, stride: 1, size: 56, order: KOrder::ChannelMajor },
    Case { name: "256-64 56x56 1x1", algo: ConvAlgo::Pointwise, channels: [256, 64], groups: 1, kernel: 1, stride: 1, size: 56, order: KOrder::ChannelMajor },
    Case { name: "512-128 28x28 1x1", algo: ConvAlgo::Gemm, channels: [512, 128], groups: 1, kernel: 1, stride: 1, size: 28, order: KOrder::ChannelMajor },
    Case { name: "512-128 28x28 1x1", algo: ConvAlgo::Pointwise, channels: [512, 128], groups: 1, kernel: 1, stride: 1, size: 28, order: KOrder::ChannelMajor },
    Case { name: "128-512 28x28 1x1", algo: ConvAlgo::Gemm, channels: [128, 512], groups: 1, kernel: 1, stride: 1, size: 28, order: KOrder::ChannelMajor },
    Case { name: "128-512 28x28 1x1", algo: ConvAlgo::Pointwise, channels: [128, 512], groups: 1, kernel: 1, stride: 1, size: 28, order: KOrder::ChannelMajor },
    Case { name: "1024-256 14x14 1x1", algo: ConvAlgo::Gemm, channels: [1024, 256], groups: 1, kernel: 1, stride: 1, size: 14, order: KOrder::ChannelMajor },
    Case { name: "1024-256 14x14 1x1", algo: ConvAlgo::Pointwise, channels: [1024, 256], groups: 1, kernel: 1, stride: 1, size: 14, order: KOrder::ChannelMajor },
    Case { name: "256-1024 14x14 1x1", algo: ConvAlgo::Gemm, channels: [256, 1024], groups: 1, kernel: 1, stride: 1, size: 14, order: KOrder::ChannelMajor },
    Case { name: "256-1024 14x14 1x1", algo: ConvAlgo::Pointwise, channels: [256, 1024], groups: 1, kernel: 1, stride: 1, size: 14, order: KOrder::ChannelMajor },
    Case { name: "2048-512 7x7 1x1", algo: ConvAlgo::Gemm, channels: [2048, 512], groups: 1, kernel: 1, stride: 1, size: 7, order: KOrder::ChannelMajor },
    Case { name: "2048-512 7x7 1x1", algo: ConvAlgo::Pointwise, channels: [2048, 512], groups: 1, kernel: 1, stride: 1, size: 7, order: KOrder::ChannelMajor },
    Case { name: "512-2048 7x7 1x1", algo: ConvAlgo::Gemm, channels: [512, 2048], groups: 1, kernel: 1, stride: 1, size: 7, order: KOrder::ChannelMajor },
    Case { name: "512-2048 7x7 1x1", algo: ConvAlgo::Pointwise, channels: [512, 2048], groups: 1, kernel: 1, stride: 1, size: 7, order: KOrder::ChannelMajor },
    Case { name: "256-128 14x14 1x1", algo: ConvAlgo::Gemm, channels: [256, 128], groups: 1, kernel: 1, stride: 1, size: 14, order: KOrder::ChannelMajor },
    Case { name: "256-128 14x14 1x1", algo: ConvAlgo::Pointwise, channels: [256, 128], groups: 1, kernel: 1, stride: 1, size: 14, order: KOrder::ChannelMajor },
    Case { name: "32-64 112x112 1x1", algo: ConvAlgo::Pointwise, channels: [32, 64], groups: 1, kernel: 1, stride: 1, size: 112, order: KOrder::ChannelMajor },
    Case { name: "64-128 56x56 1x1", algo: ConvAlgo::Pointwise, channels: [64, 128], groups: 1, kernel: 1, stride: 1, size: 56, order: KOrder::ChannelMajor },
    Case { name: "128-128 56x56 1x1", algo: ConvAlgo::Pointwise, channels: [128, 128], groups: 1, kernel: 1, stride: 1, size: 56, order: KOrder::ChannelMajor },
    Case { name: "16-16 320x320 1x1", algo: ConvAlgo::Pointwise, channels: [16, 16], groups: 1, kernel: 1, stride: 1, size: 320, order: KOrder::ChannelMajor },
    Case { name: "64-64 80x80 1x1", algo: ConvAlgo::Pointwise, channels: [64, 64], groups: 1, kernel: 1, stride: 1, size: 80, order: KOrder::ChannelMajor },
    Case { name: "64-64 40x40 1x1", algo: ConvAlgo::Pointwise, channels: [64, 64], groups: 1, kernel: 1, stride: 1, size: 40, order: KOrder::ChannelMajor },
    Case { name: "64-10 20x20 1x1", algo: ConvAlgo::Pointwise, channels: [64, 10], groups: 1, kernel: 1, stride: 1, size: 20, order: KOrder::ChannelMajor },
    Case { name: "1024-2048 14x14 s2 1x1", algo: ConvAlgo::Pointwise, channels: [1024, 2048], groups: 1, kernel: 1, stride: 2, size: 14, order: KOrder::ChannelMajor },
    Case { name: "512-1024 28x28 s2 1x1", algo: ConvAlgo::Pointwise, channels: [512, 1024], groups: 1, kernel: 1, stride: 2, size: 28, order: KOrder::ChannelMajor },
    Case { name: "128 56x56 s2 3x3", algo: ConvAlgo::Gemm, channels: [128, 128], groups: 1, kernel: 3, stride: 2, size: 56, order: KOrder::ChannelMajor },
    Case { name: "256 28x28 s2 3x3", algo: ConvAlgo::Gemm, channels: [256, 256], groups: 1, kernel: 3, stride: 2, size: 28, order: KOrder::ChannelMajor },
    Case { name: "512 14x14 s2 3x3", algo: ConvAlgo::Gemm, channels: [512, 512], groups: 1, kernel: 3, stride: 2, size: 14, order: KOrder::ChannelMajor },
    Case { name: "64 64x64 3x3",      algo: ConvAlgo::DirectSparse, channels: [64, 64],   groups: 1, kernel: 3, stride: 1, size: 64, order: KOrder::ChannelMajor },
    Case { name: "256 16x16 3x3",     algo: ConvAlgo::DirectSparse, channels: [256, 256], groups: 1, kernel: 3, stride: 1, size: 16, order: KOrder::ChannelMajor },
    Case { name: "512 8x8 3x3",       algo: ConvAlgo::DirectSparse, channels: [512, 512], groups: 1, kernel: 3, stride: 1, size: 8, order: KOrder::ChannelMajor },
    Case { name: "128-256 14x14 1x1", algo: ConvAlgo::DirectSparse, channels: [128, 256], groups: 1, kernel: 1, stride: 1, size: 14, order: KOrder::ChannelMajor },
    Case { name: "128 56x56 dw",      algo: ConvAlgo::Depthwise, channels: [128, 128], groups: 128, kernel: 3, stride: 1, size: 56, order: KOrder::ChannelMajor },
    Case { name: "128 56x56 dw s2",   algo: ConvAlgo::Depthwise, channels: [128, 128], groups: 128, kernel: 3, stride: 2, size: 56, order: KOrder::ChannelMajor },
    Case { name: "64 112x112 dw",     algo: ConvAlgo::Depthwise, channels: [64, 64],   groups: 64, kernel: 3, stride: 1, size: 112, order: KOrder::ChannelMajor },
    Case { name: "128 28x28 dw",      algo: ConvAlgo::Depthwise, channels: [128, 128], groups: 128, kernel: 3, stride: 1, size: 28, order: KOrder::ChannelMajor },
    Case { name: "256 28x28 dw s2",   algo: ConvAlgo::Depthwise, channels: [256, 256], groups: 256, kernel: 3, stride: 2, size: 28, order: KOrder::ChannelMajor },
    Case { name: "512 14x14 dw s2",   algo: ConvAlgo::Depthwise, channels: [512, 512], groups: 512, kernel: 3, stride: 2, size: 14, order: KOrder::ChannelMajor },
    Case { name: "512 7x7 dw",        algo: ConvAlgo::Depthwise, channels: [512, 512], groups: 512, kernel: 3, stride: 1, size: 7, order: KOrder::ChannelMajor },
    Case { name: "256 14x14 dw",      algo: ConvAlgo::Depthwise, channels: [256, 256], groups: 256, kernel: 3, stride: 1, size: 14, order: KOrder::ChannelMajor },
    Case { name: "512 7x7 dw global", algo: ConvAlgo::Depthwise, channels: [512, 512], groups: 512, kernel: 7, stride: 1, size: 7, order: KOrder::ChannelMajor },
];

/// Largest tile, in weights.
const TILE: usize = 65_536;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let isa = arguments
        .next()
        .and_then(|name| Isa::from_name(&name))
        .unwrap_or_else(Isa::detect);
    let filter = arguments.next().unwrap_or_default();
    let zeros = arguments
        .next()
        .and_then(|percent| percent.parse().ok())
        .unwrap_or(50);
    for case in CASES {
        if format!("{} {}", kernel_name(case.algo, isa), case.name).contains(&filter) {
            convolution(isa, case, zeros);
        }
    }
    if !filter.is_empty() && !filter.contains("linear") {
        return;
    }
    for (k, outputs) in [(512, 1024), (25_088, 4096), (32_768, 256)] {
        let q = codes(k * outputs, zeros);
        linear(isa, k, outputs, "i8", |part| TileValues::I8 {
            q: &q[part],
            steps: Steps::Layer(0.01),
        });
        let values: Vec<f32> = q.iter().map(|&q| 0.01 * f32::from(q)).collect();
        linear(isa, k, outputs, "f32", |part| {
            TileValues::F32(&values[part])
        });
    }
}

/// The sum of the best times of each of `calls` calls (short pieces survive a busy machine), and
/// the peak measured in the same breath.
fn measure(isa: Isa, macs: usize, calls: usize, mut run: impl FnMut(usize)) -> (f64, f64) {
    let (mut best, mut peak) = (vec![f64::MAX; calls], 0f64);
    let started = Instant::now();
    let mut rounds = 0;
    while started.elapsed().as_secs_f64() < 0.4 || rounds < 3 {
        for (i, best) in best.iter_mut().enumerate() {
            let now = Instant::now();
            run(i);
            *best = best.min(now.elapsed().as_secs_f64());
        }
        let now = Instant::now();
        std::hint::black_box(isa.peak_probe(20_000));
        peak = peak.max(20_000.0 * 96.0 / now.elapsed().as_secs_f64() / 1e9);
        rounds += 1;
    }
    (macs as f64 / best.iter().sum::<f64>() / 1e9, peak)
}

/// Codes of which `zeros` percent are zero.
fn codes(n: usize, zeros: u64) -> Vec<i8> {
    let mut state = 1u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state >> 40
    };
    (0..n)
        .map(|_| {
            if next() % 100 < zeros {
                0
            } else {
                (next() % 127) as i8 + 1
            }
        })
        .collect()
}

fn convolution(isa: Isa, case: &Case, zeros: u64) {
    let pad = if case.kernel == case.size {
        0
    } else {
        case.kernel / 2
    };
    let out = (case.size + 2 * pad - case.kernel) / case.stride + 1;
    let shape = ConvShape {
        in_channels: case.channels[0],
        out_channels: case.channels[1],
        groups: case.groups,
        kernel: [case.kernel; 2],
        stride: [case.stride; 2],
        dilation: [1, 1],
        pad_top: pad,
        pad_left: pad,
        in_h: case.size,
        in_w: case.size,
        out_h: out,
        out_w: out,
    };
    let (k, panels) = (shape.k(), shape.panels());
    let per_tile = (TILE / (k * PANEL)).clamp(1, panels);
    let q = codes(panels * k * PANEL, zeros);
    let in_map = Map::rows(1, shape.in_channels, case.size, case.size);
    let out_map = Map::rows(1, shape.out_channels, out, out);
    let input: Vec<f32> = (0..in_map.span()).map(|i| (i % 17) as f32 - 8.0).collect();
    let mut output = vec![0.0; out_map.span()];
    let joined = match joins(case.algo) {
        true => ((JOINED / per_tile).max(1) * per_tile).min(panels),
        false => per_tile,
    };
    let size = workspace(case.algo, &shape, joined, out);
    let mut scratch = vec![0.0; size];
    let macs = shape.out_channels * k * out * out;
    let tiles: Vec<WeightTile> = (0..panels)
        .step_by(per_tile)
        .map(|first| {
            let count = per_tile.min(panels - first);
            WeightTile {
                first_panel: first,
                panels: count,
                k0: 0,
                k_len: k,
                order: case.order,
                values: TileValues::I8 {
                    q: &q[first * k * PANEL..][..count * k * PANEL],
                    steps: Steps::Layer(0.01),
                },
            }
        })
        .collect();
    let calls: Vec<&[WeightTile]> = tiles.chunks(joined.div_ceil(per_tile)).collect();
    let (rate, peak) = measure(isa, macs, calls.len(), |call| {
        let view = View {
            data: &input,
            map: in_map,
        };
        let mut target = ViewMut {
            data: &mut output,
            map: out_map,
        };
        let epilogue = Epilogue {
            bias: None,
            activation: Activation::Relu,
        };
        conv_tiles(
            isa,
            case.algo,
            &shape,
            calls[call],
            view,
            0..out,
            &mut target,
            Start::Zero,
            Some(&epilogue),
            false,
            &mut scratch,
        );
    });
    let name = kernel_name(case.algo, isa);
    let share = 100.0 * rate / peak;
    println!(
        "{name:32} {:20} {joined:3} panels {:4} KiB {rate:7.1} GMAC/s {share:4.0} %",
        case.name,
        size / 256
    );
}

fn linear<'w>(
    isa: Isa,
    k: usize,
    outputs: usize,
    kind: &str,
    values: impl Fn(std::ops::Range<usize>) -> TileValues<'w>,
) {
    let panels = outputs / PANEL;
    let x = vec![0.5; k];
    let mut y = vec![0.0; outputs];
    let per_tile = (TILE / (k * PANEL)).clamp(1, panels);
    let range = k.min(TILE / PANEL);
    let mut scratch = vec![0.0; linear_workspace(per_tile, range)];
    let (rate, peak) = measure(isa, k * outputs, panels.div_ceil(per_tile), |call| {
        let first = call * per_tile;
        let count = per_tile.min(panels - first);
        for k0 in (0..k).step_by(range) {
            let k_len = range.min(k - k0);
            let at = (first * k + k0 * count) * PANEL;
            let tile = WeightTile {
                first_panel: first,
                panels: count,
                k0,
                k_len,
                order: KOrder::ChannelMajor,
                values: values(at..at + count * k_len * PANEL),
            };
            let start = if k0 == 0 {
                Start::Zero
            } else {
                Start::Accumulate
            };
            let y = &mut y[first * PANEL..];
            linear_tile(
                isa,
                &tile,
                outputs,
                &x,
                1,
                k,
                y,
                outputs,
                start,
                None,
                &mut scratch,
            );
        }
    });
    println!(
        "linear_f32_{:21} {k:6} -> {outputs:<6} {kind:3} {per_tile:3} panels          {rate:7.1} GMAC/s {:4.0} %",
        isa.name(),
        100.0 * rate / peak
    );
}
