//! Every algorithm on typical layers, one thread:
//! `cargo run --release -p dcz-kernels --example conv_table [ISA] [SHAPE] [ALGORITHM] [ZEROS] [BLOCK]`.
//!
//! Each row: time in ms, time relative to `conv_direct`, billions of dense multiply-adds per
//! second, scratch in KiB, and weights kept between runs in KiB. Weights are i8 codes with one step; ZEROS
//! percent of them (0) are zero, in blocks of BLOCK output channels (1). Tiles are those of the
//! runtime, 65,536 weights. Times are sums of the best time of each call.

use dcz_kernels::fft::FftPlan;
use dcz_kernels::winograd::{Resident, Winograd};
use dcz_kernels::*;
use std::time::Instant;

/// Name, channels, groups, kernel, stride, size.
type Case = (&'static str, [usize; 2], usize, usize, usize, usize);

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("contest stem",         [3, 64],     1, 3, 2, 128),
    ("contest res2",         [64, 64],    1, 3, 1, 64),
    ("contest res3a",        [64, 128],   1, 3, 2, 64),
    ("contest res3",         [128, 128],  1, 3, 1, 32),
    ("contest res4",         [256, 256],  1, 3, 1, 16),
    ("contest res5",         [512, 512],  1, 3, 1, 8),
    ("contest projection",   [256, 512],  1, 1, 2, 16),
    ("sface stem",           [3, 32],     1, 3, 1, 112),
    ("sface depthwise",      [128, 128],  128, 3, 1, 56),
    ("sface 1x1",            [128, 128],  1, 1, 1, 56),
    ("sface last",           [1024, 1024], 1, 1, 1, 7),
    ("mobilefacenet expand", [64, 128],   1, 1, 1, 28),
    ("mobilefacenet dw",     [256, 256],  256, 3, 1, 14),
    ("mobilefacenet 7x7",    [128, 512],  1, 1, 1, 7),
    ("mobilefacenet global", [512, 512],  512, 7, 1, 7),
    ("resnet50 stem",        [3, 64],     1, 7, 2, 224),
    ("resnet50 1x1",         [64, 256],   1, 1, 1, 56),
    ("resnet50 3x3",         [128, 128],  1, 3, 1, 28),
    ("resnet50 3x3 14",      [256, 256],  1, 3, 1, 14),
    ("resnet50 3x3 7",       [512, 512],  1, 3, 1, 7),
    ("vgg16 conv1_2",        [64, 64],    1, 3, 1, 224),
    ("vgg16 conv3",          [256, 256],  1, 3, 1, 56),
    ("vgg16 conv5",          [512, 512],  1, 3, 1, 14),
    ("512 on 4x4",           [512, 512],  1, 3, 1, 4),
    ("5x5",                  [48, 64],    1, 5, 1, 32),
    ("7x7",                  [32, 32],    1, 7, 1, 56),
    ("11x11",                [16, 32],    1, 11, 1, 56),
    ("31x31",                [8, 8],      1, 31, 1, 64),
    ("31x31 depthwise",      [32, 32],    32, 31, 1, 56),
    ("large map, 1 channel", [1, 1],      1, 3, 1, 512),
    ("large map, 1x1",       [4, 4],      1, 1, 1, 512),
];

/// Largest tile, in weights.
const TILE: usize = 65_536;
/// Largest transformed weights that FFT is tried with, in elements.
const MOST_FFT: usize = 64 << 20;
/// Seconds per figure.
const SECONDS: f64 = 0.3;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut text = || arguments.next().unwrap_or_default();
    let isa = Isa::from_name(&text()).unwrap_or_else(Isa::detect);
    let (shape, algorithm) = (text(), text());
    let (zeros, block) = (text().parse().unwrap_or(0), text().parse().unwrap_or(1));
    for case in CASES.iter().filter(|c| c.0.contains(&shape)) {
        Layer::new(isa, case, zeros, block).table(case.0, &algorithm);
    }
}

/// One layer with its data.
struct Layer {
    isa: Isa,
    shape: ConvShape,
    q: Vec<i8>,
    input: Vec<f32>,
    output: Vec<f32>,
}

/// What a row shows.
struct Row {
    name: String,
    seconds: f64,
    scratch: usize,
    resident: usize,
}

impl Layer {
    fn new(isa: Isa, case: &Case, zeros: u64, block: usize) -> Layer {
        let &(_, channels, groups, kernel, stride, size) = case;
        let pad = if kernel == size { 0 } else { kernel / 2 };
        let out = (size + 2 * pad - kernel) / stride + 1;
        let shape = ConvShape {
            in_channels: channels[0],
            out_channels: channels[1],
            groups,
            kernel: [kernel; 2],
            stride: [stride; 2],
            dilation: [1, 1],
            pad_top: pad,
            pad_left: pad,
            in_h: size,
            in_w: size,
            out_h: out,
            out_w: out,
        };
        let input = (0..channels[0] * size * size).map(|i| (i % 17) as f32 - 8.0);
        Layer {
            isa,
            shape,
            q: codes(shape.panels() * shape.k() * PANEL, zeros, block),
            input: input.collect(),
            output: vec![0.0; channels[1] * out * out],
        }
    }

    fn table(mut self, name: &str, filter: &str) {
        let macs = self.shape.out_channels * self.shape.k() * self.shape.out_h * self.shape.out_w;
        let mut rows = Vec::new();
        let shape = self.shape;
        for algo in ALGOS.iter().filter(|a| (a.supports)(&shape)) {
            if algo.name.contains(filter) {
                rows.push(self.tiles(algo.algo, TILE));
                if algo.name.contains("winograd") || algo.name.contains("gemm") {
                    rows.push(self.tiles(algo.algo, usize::MAX));
                }
            }
        }
        if winograd::supports(&self.shape) {
            for size in [Winograd::F2, Winograd::F4, Winograd::F6] {
                for narrow in [false, true] {
                    let row = || format!("winograd{} resident", size.tile());
                    if row().contains(filter) {
                        rows.push(self.resident(size, narrow));
                    }
                }
            }
        }
        if "fft".contains(filter) {
            rows.extend(self.fft());
        }
        let direct = rows.iter().find(|r| r.name.contains("direct"));
        let direct = direct.map_or(f64::NAN, |r| r.seconds);
        println!("{name}: {} MMAC", macs as f64 / 1e6);
        for row in rows {
            println!(
                "  {:40} {:8.3} ms {:6.2} {:7.1} GMAC/s {:7} KiB {:6} KiB",
                row.name,
                row.seconds * 1e3,
                row.seconds / direct,
                macs as f64 / row.seconds / 1e9,
                row.scratch.div_ceil(256),
                row.resident.div_ceil(1024),
            );
        }
    }

    fn tile(&self, first: usize, panels: usize) -> WeightTile<'_> {
        let k = self.shape.k();
        WeightTile {
            first_panel: first,
            panels,
            k0: 0,
            k_len: k,
            order: KOrder::ChannelMajor,
            values: TileValues::I8 {
                q: &self.q[first * k * PANEL..][..panels * k * PANEL],
                steps: Steps::Layer(0.01),
            },
        }
    }

    /// As the runtime does it: tile by tile.
    fn tiles(&mut self, algo: ConvAlgo, most: usize) -> Row {
        let (shape, isa) = (self.shape, self.isa);
        let panels = shape.panels();
        let per_tile = (most / (shape.k() * PANEL)).clamp(1, panels);
        let size = workspace(algo, &shape, per_tile, shape.out_h);
        let mut scratch = vec![0.0; size];
        let mut output = std::mem::take(&mut self.output);
        let seconds = measure(panels.div_ceil(per_tile), |call| {
            let first = call * per_tile;
            let tile = self.tile(first, per_tile.min(panels - first));
            conv_tile(
                isa,
                algo,
                &shape,
                &tile,
                self.view(),
                0..shape.out_h,
                &mut target(&shape, &mut output),
                Start::Zero,
                Some(&RELU),
                false,
                &mut scratch,
            );
        });
        self.output = output;
        Row {
            name: kernel_name(algo, isa) + if most == TILE { "" } else { " one tile" },
            seconds,
            scratch: size,
            resident: 0,
        }
    }

    /// Winograd with weights transformed before.
    fn resident(&mut self, size: Winograd, narrow: bool) -> Row {
        let (shape, isa) = (self.shape, self.isa);
        let (panels, len) = (shape.panels(), winograd::panel_len(size, &shape));
        let scale_len = winograd::scales_len(size);
        let tile = self.tile(0, panels);
        let (mut full, mut q, mut scales) = (Vec::new(), Vec::new(), Vec::new());
        if narrow {
            q.resize(panels * len, 0);
            scales.resize(panels * scale_len, 0.0);
            let mut form = vec![0.0; len];
            winograd::transform_16(isa, size, &shape, &tile, &mut q, &mut scales, &mut form);
        } else {
            full.resize(panels * len, 0.0);
            winograd::transform(isa, size, &shape, &tile, &mut full);
        }
        let weights = if narrow {
            Resident::I16 {
                q: &q,
                scales: &scales,
            }
        } else {
            Resident::F32(&full)
        };
        let scratch_len = winograd::workspace(size, &shape, panels, shape.out_h, 0);
        let mut scratch = vec![0.0; scratch_len];
        let mut output = std::mem::take(&mut self.output);
        let seconds = measure(1, |_| {
            winograd::run(
                isa,
                size,
                &shape,
                weights,
                0..panels,
                self.view(),
                0..shape.out_h,
                &mut target(&shape, &mut output),
                Start::Zero,
                Some(&RELU),
                &mut scratch,
            );
        });
        self.output = output;
        let form = if narrow { "i16" } else { "f32" };
        Row {
            name: format!("winograd{} resident {form}", size.tile()),
            seconds,
            scratch: scratch_len,
            resident: q.len() * 2 + (scales.len() + full.len()) * 4,
        }
    }

    /// By FFT with weights transformed before; plan and weights count as resident.
    fn fft(&mut self) -> Option<Row> {
        let shape = self.shape;
        let plan = FftPlan::new(self.isa, &shape)?;
        let panels = shape.panels();
        if panels.checked_mul(plan.panel_len())? > MOST_FFT {
            return None;
        }
        let mut weights = vec![0.0; panels * plan.panel_len()];
        let mut scratch = vec![0.0; plan.workspace()];
        plan.transform(&self.tile(0, panels), &mut weights, &mut scratch);
        let mut output = std::mem::take(&mut self.output);
        let seconds = measure(1, |_| {
            let out = &mut target(&shape, &mut output);
            let rows = 0..shape.out_h;
            let start = Start::Zero;
            plan.run(
                &weights,
                0..panels,
                self.view(),
                rows,
                out,
                start,
                Some(&RELU),
                &mut scratch,
            );
        });
        self.output = output;
        Some(Row {
            name: "fft resident f32".into(),
            seconds,
            scratch: scratch.len(),
            resident: plan.bytes() + weights.len() * 4,
        })
    }

    fn view(&self) -> View<'_> {
        let s = &self.shape;
        View {
            data: &self.input,
            map: Map::rows(1, s.in_channels, s.in_h, s.in_w),
        }
    }
}

const RELU: Epilogue<'_> = Epilogue {
    bias: None,
    activation: Activation::Relu,
};

fn target<'a>(shape: &ConvShape, data: &'a mut [f32]) -> ViewMut<'a> {
    let map = Map::rows(1, shape.out_channels, shape.out_h, shape.out_w);
    ViewMut { data, map }
}

/// The sum of the best times of each of `calls` calls: short pieces survive a busy machine.
fn measure(calls: usize, mut run: impl FnMut(usize)) -> f64 {
    let mut best = vec![f64::MAX; calls];
    let started = Instant::now();
    let mut rounds = 0;
    while started.elapsed().as_secs_f64() < SECONDS || rounds < 3 {
        for (i, best) in best.iter_mut().enumerate() {
            let now = Instant::now();
            run(i);
            *best = best.min(now.elapsed().as_secs_f64());
        }
        rounds += 1;
    }
    best.iter().sum()
}

/// Codes of which `zeros` percent are zero, in blocks of `block`.
fn codes(n: usize, zeros: u64, block: usize) -> Vec<i8> {
    let mut state = 1u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state >> 40
    };
    let mut out = Vec::with_capacity(n);
    while out.len() < n {
        let zero = next() % 100 < zeros;
        let values = (0..block).map(|_| if zero { 0 } else { (next() % 127) as i8 + 1 });
        out.extend(values);
    }
    out.truncate(n);
    out
}
