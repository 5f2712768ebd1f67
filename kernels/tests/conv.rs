//! One suite for every convolution algorithm of `ALGOS`, on every instruction set, layout, weight
//! form, order of k and tile cut, against the f64 oracle.

mod common;

use common::{Form, Layer, Order, Rng, nchw_of, place};
use dcz_kernels::winograd::Winograd;
use dcz_kernels::*;
use std::collections::HashMap;
use std::ops::Range;

/// The case table: smallest first.
struct Case {
    name: &'static str,
    channels: [usize; 2],
    groups: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    /// top, left, bottom, right
    pads: [usize; 4],
    size: [usize; 2],
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { name: "one value",            channels: [1, 1],    groups: 1, kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pads: [0; 4],       size: [1, 1] },
    Case { name: "1x1 row",              channels: [3, 5],    groups: 1, kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pads: [0; 4],       size: [1, 9] },
    Case { name: "3x3 on 3x3",           channels: [2, 8],    groups: 1, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pads: [1; 4],       size: [3, 3] },
    Case { name: "1x1 on 5x7",           channels: [17, 20],  groups: 1, kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pads: [0; 4],       size: [5, 7] },
    Case { name: "1x1 stride 2",         channels: [16, 24],  groups: 1, kernel: [1, 1], stride: [2, 2], dilation: [1, 1], pads: [0; 4],       size: [9, 16] },
    Case { name: "3x3 on 4x4",           channels: [40, 19],  groups: 1, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pads: [1; 4],       size: [4, 4] },
    Case { name: "3x3 on 8x8",           channels: [24, 72],  groups: 1, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pads: [1; 4],       size: [8, 8] },
    Case { name: "3x3 on 7x7",           channels: [30, 16],  groups: 1, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pads: [1; 4],       size: [7, 7] },
    Case { name: "3x3 stride 2",         channels: [5, 12],   groups: 1, kernel: [3, 3], stride: [2, 2], dilation: [1, 1], pads: [1; 4],       size: [13, 30] },
    Case { name: "3x3 strides 1, 3",     channels: [3, 9],    groups: 1, kernel: [3, 3], stride: [1, 3], dilation: [1, 1], pads: [0, 2, 1, 0], size: [6, 29] },
    Case { name: "3x3 strides 3, 2",     channels: [3, 9],    groups: 1, kernel: [3, 3], stride: [3, 2], dilation: [2, 3], pads: [2, 1, 0, 4], size: [17, 21] },
    Case { name: "5x5 asymmetric pads",  channels: [6, 10],   groups: 1, kernel: [5, 5], stride: [1, 1], dilation: [1, 1], pads: [3, 0, 1, 2], size: [9, 26] },
    Case { name: "7x7 stride 2",         channels: [3, 16],   groups: 1, kernel: [7, 7], stride: [2, 2], dilation: [1, 1], pads: [3; 4],       size: [20, 34] },
    Case { name: "1x7 and wide pads",    channels: [4, 8],    groups: 1, kernel: [1, 7], stride: [1, 1], dilation: [1, 2], pads: [0, 9, 0, 11],size: [3, 12] },
    Case { name: "dilation 4",           channels: [20, 8],   groups: 1, kernel: [3, 3], stride: [1, 1], dilation: [4, 4], pads: [4; 4],       size: [11, 18] },
    Case { name: "kernel over blocks",   channels: [2, 8],    groups: 1, kernel: [15, 14], stride: [1, 1], dilation: [1, 1], pads: [7; 4],     size: [9, 11] },
    Case { name: "3x3 on 14x14",         channels: [9, 20],   groups: 1, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pads: [1; 4],       size: [14, 14] },
    Case { name: "3x3 odd pads",         channels: [3, 8],    groups: 1, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pads: [0, 3, 5, 0], size: [8, 10] },
    Case { name: "3x3 on one pixel",     channels: [3, 8],    groups: 1, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pads: [1; 4],       size: [1, 1] },
    Case { name: "strips of columns",    channels: [2, 3],    groups: 1, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pads: [1; 4],       size: [3, 500] },
    Case { name: "4 groups",             channels: [12, 40],  groups: 4, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pads: [1; 4],       size: [6, 10] },
    Case { name: "two channels a group", channels: [8, 12],   groups: 4, kernel: [3, 3], stride: [2, 1], dilation: [1, 1], pads: [1; 4],       size: [7, 9] },
    Case { name: "3x3 on 5x64",          channels: [33, 18],  groups: 1, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pads: [1; 4],       size: [5, 64] },
    Case { name: "several bands",        channels: [70, 8],   groups: 1, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pads: [1; 4],       size: [24, 50] },
    Case { name: "bands of columns",     channels: [192, 8],  groups: 1, kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pads: [0; 4],       size: [3, 130] },
    Case { name: "1x1 long k",           channels: [500, 17], groups: 1, kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pads: [0; 4],       size: [4, 8] },
    Case { name: "1x1 long k on 7x7",    channels: [410, 53], groups: 1, kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pads: [0; 4],       size: [7, 7] },
    Case { name: "1x1 long k stride 2",  channels: [390, 40], groups: 1, kernel: [1, 1], stride: [2, 2], dilation: [1, 1], pads: [0; 4],       size: [13, 6] },
    Case { name: "1x1 on 2x75",          channels: [200, 33], groups: 1, kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pads: [0; 4],       size: [2, 75] },
    Case { name: "3x3 stride 2 to 14",   channels: [48, 24],  groups: 1, kernel: [3, 3], stride: [2, 2], dilation: [1, 1], pads: [1; 4],       size: [28, 28] },
    Case { name: "one pixel",            channels: [300, 90], groups: 1, kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pads: [0; 4],       size: [1, 1] },
    Case { name: "K 4608",               channels: [512, 24], groups: 1, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pads: [1; 4],       size: [2, 8] },
    Case { name: "depthwise one row",    channels: [2, 2],    groups: 2, kernel: [1, 3], stride: [1, 1], dilation: [1, 1], pads: [0, 1, 0, 1], size: [1, 5] },
    Case { name: "depthwise 3x3",        channels: [19, 19],  groups: 19, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pads: [1; 4],      size: [9, 37] },
    Case { name: "depthwise stride 2",   channels: [16, 16],  groups: 16, kernel: [3, 3], stride: [2, 2], dilation: [1, 1], pads: [1; 4],      size: [14, 14] },
    Case { name: "depthwise wide",       channels: [10, 10],  groups: 10, kernel: [3, 3], stride: [2, 2], dilation: [1, 1], pads: [1; 4],      size: [7, 43] },
    Case { name: "depthwise even",       channels: [9, 9],    groups: 9, kernel: [3, 3], stride: [2, 2], dilation: [1, 1], pads: [1, 1, 0, 0], size: [12, 64] },
    Case { name: "depthwise rows",       channels: [11, 11],  groups: 11, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pads: [1; 4],      size: [7, 60] },
    Case { name: "depthwise seven rows", channels: [19, 19],  groups: 19, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pads: [1; 4],      size: [16, 28] },
    Case { name: "depthwise 14x14",      channels: [10, 10],  groups: 10, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pads: [1; 4],      size: [14, 14] },
    Case { name: "depthwise uneven",     channels: [9, 9],    groups: 9, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pads: [0, 1, 1, 0], size: [8, 31] },
    Case { name: "depthwise two channels", channels: [2, 2],  groups: 2, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pads: [1; 4],      size: [2, 8] },
    Case { name: "depthwise longest rows", channels: [3, 3],  groups: 3, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pads: [1; 4],      size: [3, 1024] },
    Case { name: "depthwise longer rows", channels: [3, 3],   groups: 3, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pads: [1; 4],      size: [3, 1025] },
    Case { name: "depthwise longest, stride 2", channels: [3, 3], groups: 3, kernel: [3, 3], stride: [2, 2], dilation: [1, 1], pads: [1; 4],  size: [5, 1023] },
    Case { name: "depthwise long rows",  channels: [200, 200], groups: 200, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pads: [1; 4],    size: [3, 193] },
    Case { name: "depthwise times 3",    channels: [7, 21],   groups: 7, kernel: [3, 3], stride: [1, 1], dilation: [2, 1], pads: [2, 1, 2, 0], size: [8, 12] },
    Case { name: "depthwise whole map",  channels: [24, 24],  groups: 24, kernel: [7, 7], stride: [1, 1], dilation: [1, 1], pads: [0; 4],      size: [7, 7] },
    Case { name: "depthwise 15x15",      channels: [9, 9],    groups: 9, kernel: [15, 15], stride: [1, 2], dilation: [1, 1], pads: [7; 4],     size: [8, 40] },
];

impl Case {
    fn shape(&self) -> ConvShape {
        let out = |axis: usize| {
            let extent = (self.kernel[axis] - 1) * self.dilation[axis] + 1;
            let padded = self.size[axis] + self.pads[axis] + self.pads[axis + 2];
            (padded - extent) / self.stride[axis] + 1
        };
        ConvShape {
            in_channels: self.channels[0],
            out_channels: self.channels[1],
            groups: self.groups,
            kernel: self.kernel,
            stride: self.stride,
            dilation: self.dilation,
            pad_top: self.pads[0],
            pad_left: self.pads[1],
            in_h: self.size[0],
            in_w: self.size[1],
            out_h: out(0),
            out_w: out(1),
        }
    }
}

/// (panels, k-range) of each tile of a layer.
type Tiles = Vec<(Range<usize>, Range<usize>)>;

/// How a layer is cut into tiles: (panels, k-range) in order.
fn cuts(shape: &ConvShape, order: KOrder) -> Vec<(&'static str, Tiles)> {
    let (panels, k) = (shape.panels(), shape.k());
    let unit = match order {
        KOrder::ChannelMajor => shape.taps(),
        KOrder::TapMajor => shape.in_per_group(),
    };
    let half = k / unit / 2 * unit;
    let mut ranges = Vec::new();
    for p in 0..panels {
        for range in [0..half, half..k] {
            if !range.is_empty() {
                ranges.push((p..p + 1, range));
            }
        }
    }
    vec![
        ("whole", vec![(0..panels, 0..k)]),
        (
            "3 panels",
            (0..panels)
                .step_by(3)
                .map(|p| (p..(p + 3).min(panels), 0..k))
                .collect(),
        ),
        ("k-ranges", ranges),
    ]
}

/// One way to compute a layer.
struct Run<'a> {
    isa: Isa,
    algo: ConvAlgo,
    shape: &'a ConvShape,
    layer: &'a Layer,
    tiles: &'a [(Range<usize>, Range<usize>)],
    layout: usize,
    /// Output rows per call.
    step: usize,
    residual: Option<&'a [f32]>,
    epilogue: Option<&'a Epilogue<'a>>,
}

const CANARY: f32 = 1.5e30;

impl Run<'_> {
    /// The output as plain NCHW; checks that nothing else was written.
    fn output(&self, input: &[f32]) -> Vec<f32> {
        let s = self.shape;
        // Gaps of the input are NaN: reading one spoils the output.
        let in_map = layout(self.layout, s.in_channels, s.in_h, s.in_w);
        let input = place(input, in_map, f32::NAN);
        let full = layout(self.layout, s.out_channels, s.out_h, s.out_w);
        let mut data = match self.residual {
            Some(residual) => place(residual, full, CANARY),
            None => vec![CANARY; full.span() + 7],
        };
        let mut scratch = Vec::new();
        let mut before = None;
        for (panels, k) in self.tiles {
            let tile = self.layer.tile(panels.clone(), k.clone());
            // Alike but for its place among the panels.
            let like = Some((panels.len(), k.clone()));
            let warm = self.step >= s.out_h && like == std::mem::replace(&mut before, like.clone());
            let k_end = tile.k0 + tile.k_len == s.k();
            for y in (0..s.out_h).step_by(self.step) {
                let rows = y..(y + self.step).min(s.out_h);
                let size = workspace(self.algo, s, tile.panels, rows.len());
                if !warm {
                    scratch = vec![f32::NAN; size + 16];
                    scratch[size..].fill(CANARY);
                }
                let first = full.at(0, 0, y);
                let mut out = ViewMut {
                    data: &mut data[first..],
                    map: Map {
                        h: rows.len(),
                        ..full
                    },
                };
                let start = if tile.k0 == 0 && self.residual.is_none() {
                    Start::Zero
                } else {
                    Start::Accumulate
                };
                conv_tile(
                    self.isa,
                    self.algo,
                    s,
                    &tile,
                    View {
                        data: &input,
                        map: in_map,
                    },
                    rows,
                    &mut out,
                    start,
                    self.epilogue.filter(|_| k_end),
                    warm,
                    &mut scratch[..size],
                );
                assert!(
                    scratch[size..].iter().all(|&v| v == CANARY),
                    "wrote behind the scratch"
                );
            }
        }
        let values = nchw_of(&data, full);
        let mut gaps = data.clone();
        for c in 0..full.c {
            for h in 0..full.h {
                gaps[full.at(0, c, h)..][..full.w].fill(CANARY);
            }
        }
        assert!(
            gaps.iter().all(|&v| v == CANARY),
            "wrote outside the output"
        );
        values
    }
}

/// Layouts: plain, rows, rows and planes with gaps.
fn layout(kind: usize, c: usize, h: usize, w: usize) -> Map {
    match kind {
        0 => Map::nchw(1, c, h, w),
        1 => Map::rows(1, c, h, w),
        2 => Map {
            n: 1,
            c,
            h,
            w,
            batch: 0,
            channel: (w + 3) * h + 5,
            row: w + 3,
        },
        _ => Map {
            n: 1,
            c,
            h,
            w,
            batch: 0,
            channel: w + 2,
            row: c * (w + 2) + 1,
        },
    }
}

/// Largest error of an output whose products have the sum of magnitudes `size`, `largest` being
/// the largest of the map. Sums of blocks err with their own products; in a transformed domain
/// an output errs with all that shares its tile, times a factor that grows with the tile
/// (measured: `docs/algorithms.md`).
fn bound(sums: Sums, shape: &ConvShape, size: f64, largest: f64) -> f64 {
    let eps = f64::from(f32::EPSILON) * (shape.k() as f64 + 1.0).sqrt();
    1e-30
        + match sums {
            Sums::Blocks | Sums::Chain | Sums::Taps => 2.0 * eps * size,
            Sums::Winograd(Winograd::F2) => 2.0 * eps * largest,
            Sums::Winograd(Winograd::F4) => 4.0 * eps * largest,
            Sums::Winograd(Winograd::F6) => 16.0 * eps * largest,
        }
}

/// Every algorithm and instruction set, against the oracle and bit for bit against each other.
fn check(case: &Case, form: Form, order: KOrder, thorough: bool) {
    let shape = case.shape();
    let mut rng = Rng(7);
    let layer = Layer::new(&mut rng, &Order::of(&shape, order), form);
    let input = rng.values(shape.in_channels * shape.in_h * shape.in_w);
    let (sums, sizes) = reference::conv(&shape, &layer.oihw(&shape), &input);
    let bias = rng.values(shape.out_channels);
    let slopes = rng.values(shape.out_channels);
    let residual = rng.values(sums.len());
    let epilogue = Epilogue {
        bias: Some(&bias),
        activation: Activation::Prelu(&slopes),
    };
    let plane = shape.out_h * shape.out_w;
    let largest = sizes.iter().fold(0f64, |m, s| m.max(*s)) + 2.0;
    // Tiers with fused multiply-adds agree bit for bit too.
    let mut fused: HashMap<(&str, bool, Sums), Vec<f32>> = HashMap::new();
    for isa in Isa::available() {
        for (cut, tiles) in cuts(&shape, order) {
            for finish in [false, true] {
                // Bits are equal across algorithms of one order of summation, layouts and row splits for one cut.
                let mut firsts: HashMap<Sums, Vec<f32>> = HashMap::new();
                for algo in ALGOS.iter().filter(|a| (a.supports)(&shape)) {
                    for (i, step) in [shape.out_h, 1, 3].into_iter().enumerate() {
                        for layout in 0..4 {
                            if !thorough && (i + layout) % 4 != 0 {
                                continue;
                            }
                            let what = format!(
                                "{} {form:?} {order:?} {} cut {cut} step {step} layout {layout} finish {finish}",
                                case.name,
                                kernel_name(algo.algo, isa)
                            );
                            let run = Run {
                                isa,
                                algo: algo.algo,
                                shape: &shape,
                                layer: &layer,
                                tiles: &tiles,
                                layout,
                                step,
                                residual: finish.then_some(&residual),
                                epilogue: finish.then_some(&epilogue),
                            };
                            let out = run.output(&input);
                            if let Some(first) = firsts.get(&algo.sums) {
                                assert!(*first == out, "bits differ: {what}");
                                continue;
                            }
                            for (j, &value) in out.iter().enumerate() {
                                let (mut expected, mut size) = (sums[j], sizes[j]);
                                if finish {
                                    let channel = j / plane;
                                    let (r, b) = (f64::from(residual[j]), f64::from(bias[channel]));
                                    expected = reference::activate(
                                        &epilogue.activation,
                                        channel,
                                        expected + r + b,
                                    );
                                    size += r.abs() + b.abs();
                                }
                                let bound = bound(algo.sums, &shape, size, largest);
                                let error = (f64::from(value) - expected).abs();
                                assert!(
                                    error <= bound,
                                    "{what}: element {j} is {value}, not {expected}; {error:e} > {bound:e}"
                                );
                            }
                            if isa.name() != "portable" {
                                let before = fused.entry((cut, finish, algo.sums));
                                let before = before.or_insert_with(|| out.clone());
                                assert!(*before == out, "bits differ between tiers: {what}");
                            }
                            firsts.insert(algo.sums, out);
                        }
                    }
                }
                assert!(!firsts.is_empty(), "{}: no algorithm", case.name);
            }
        }
    }
}

#[test]
fn every_case_with_plain_weights() {
    for case in CASES {
        for order in [KOrder::ChannelMajor, KOrder::TapMajor] {
            check(case, Form::F32, order, true);
        }
    }
}

#[test]
fn every_case_with_codes() {
    for case in CASES {
        for order in [KOrder::ChannelMajor, KOrder::TapMajor] {
            for form in [
                Form::Layer,
                Form::Channel,
                Form::Block(32),
                Form::Block(50),
                Form::Lut,
                Form::LinearLut,
                Form::SmallLut,
            ] {
                check(case, form, order, false);
            }
        }
    }
}

#[test]
fn random_geometries() {
    for seed in 0..250 {
        let mut rng = Rng(seed);
        let mut pick = |from: usize, to: usize| from + (rng.next() % (to - from) as u64) as usize;
        let groups = [1, 1, 1, 2, 3][pick(0, 5)];
        let channels = [groups * pick(1, 9), groups * pick(1, 13)];
        let (kernel, dilation) = ([pick(1, 6), pick(1, 6)], [pick(1, 4), pick(1, 4)]);
        let extent = [0, 1].map(|i| (kernel[i] - 1) * dilation[i] + 1);
        let case = Case {
            name: "random",
            channels,
            groups: if pick(0, 5) == 0 { channels[0] } else { groups },
            kernel,
            stride: [pick(1, 5), pick(1, 5)],
            dilation,
            pads: [pick(0, 5), pick(0, 5), pick(0, 5), pick(0, 5)],
            size: [extent[0] + pick(0, 9), extent[1] + pick(0, 30)],
        };
        // A depthwise layer's outputs are a multiple of its inputs.
        let multiple = channels[0] * channels[1].div_ceil(channels[0]);
        let outputs = if case.groups == channels[0] {
            multiple
        } else {
            channels[1]
        };
        let case = Case {
            channels: [channels[0], outputs],
            ..case
        };
        let order = [KOrder::ChannelMajor, KOrder::TapMajor][pick(0, 2)];
        check(&case, Form::F32, order, false);
    }
}

/// Ends of rows, of groups of pixels and of vectors of channels, for one block of k and for several.
#[test]
fn every_width_and_number_of_panels() {
    for width in 1..=50 {
        let (outputs, two) = (8 * (1 + width % 9) - width % 3, width % 4 / 2);
        let case = |inputs: usize, kernel: usize, stride: usize| Case {
            name: "width",
            channels: [inputs, outputs],
            groups: 1,
            kernel: [kernel; 2],
            stride: [1, stride],
            dilation: [1, 1],
            pads: [kernel / 2; 4],
            size: [2 + width % 3, width * stride],
        };
        for case in [case(5, 1, 1 + two), case(195, 1, 1), case(3, 3, 1 + two)] {
            let form = [Form::F32, Form::Channel, Form::Block(7), Form::SmallLut][width % 4];
            check(&case, form, KOrder::ChannelMajor, false);
        }
    }
}

#[test]
fn every_algorithm_has_a_case_and_a_name() {
    for algo in ALGOS {
        assert!(
            CASES.iter().any(|case| (algo.supports)(&case.shape())),
            "{}",
            algo.name
        );
        assert!(algo.name.starts_with("conv_"), "{}", algo.name);
        assert!(supports(
            algo.algo,
            &CASES.iter().map(Case::shape).find(algo.supports).unwrap()
        ));
    }
}

#[test]
#[should_panic(expected = "input map")]
fn a_wrong_map_is_refused() {
    let shape = CASES[2].shape();
    let layer = Layer::new(
        &mut Rng(1),
        &Order::of(&shape, KOrder::ChannelMajor),
        Form::F32,
    );
    let map = Map::nchw(1, shape.in_channels, shape.in_h, shape.in_w + 1);
    let input = vec![0.0; map.span()];
    let mut data = vec![0.0; 1024];
    let out_map = Map::nchw(1, shape.out_channels, shape.out_h, shape.out_w);
    conv_tile(
        Isa::Portable,
        ConvAlgo::Gemm,
        &shape,
        &layer.tile(0..1, 0..shape.k()),
        View { data: &input, map },
        0..shape.out_h,
        &mut ViewMut {
            data: &mut data,
            map: out_map,
        },
        Start::Zero,
        None,
        false,
        &mut vec![0.0; 1 << 16],
    );
}

/// Neighbouring tiles computed together give the bits of one tile, and of one after the other.
#[test]
fn joined_tiles_give_the_bits_of_one() {
    for name in ["3x3 on 8x8", "3x3 on 7x7", "4 groups", "1x1 long k on 7x7"] {
        let case = CASES.iter().find(|case| case.name == name).unwrap();
        let shape = case.shape();
        let mut rng = Rng(9);
        let order = Order::of(&shape, KOrder::ChannelMajor);
        let layer = Layer::new(&mut rng, &order, Form::Channel);
        let input = rng.values(shape.in_channels * shape.in_h * shape.in_w);
        let map = Map::rows(1, shape.in_channels, shape.in_h, shape.in_w);
        let input = place(&input, map, f32::NAN);
        let out_map = Map::rows(1, shape.out_channels, shape.out_h, shape.out_w);
        let panels = shape.panels();
        let cuts = [1, 3, panels].map(|step| {
            let starts = (0..panels).step_by(step);
            starts
                .map(|p| p..(p + step).min(panels))
                .collect::<Vec<_>>()
        });
        for (isa, algo) in Isa::available().flat_map(|isa| ALGOS.iter().map(move |a| (isa, a.algo)))
        {
            if !joins(algo) || !supports(algo, &shape) {
                continue;
            }
            let outputs = cuts.each_ref().map(|cut| {
                let tiles = cut.iter().map(|p| layer.tile(p.clone(), 0..shape.k()));
                let tiles: Vec<_> = tiles.collect();
                let size = workspace(algo, &shape, panels, shape.out_h);
                let mut scratch = vec![f32::NAN; size + 8];
                scratch[size..].fill(CANARY);
                let mut data = vec![CANARY; out_map.span()];
                let mut out = ViewMut {
                    data: &mut data,
                    map: out_map,
                };
                let view = View { data: &input, map };
                let rows = 0..shape.out_h;
                let (start, scratch_of) = (Start::Zero, &mut scratch[..size]);
                conv_tiles(
                    isa, algo, &shape, &tiles, view, rows, &mut out, start, None, false, scratch_of,
                );
                assert!(scratch[size..].iter().all(|&v| v == CANARY), "{name}");
                data.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            });
            assert!(outputs.iter().all(|o| *o == outputs[2]), "{name} {algo:?}");
        }
    }
}
