//! Winograd with resident weights: the same bits as from tiles, in any strip; and the errors that
//! `docs/algorithms.md` states. (The general suite runs the form that transforms tiles.)

mod common;

use common::{Form, Layer, Order, Rng};
use dcz_kernels::winograd::{Resident, Winograd};
use dcz_kernels::*;
use std::ops::Range;

const SIZES: [(Winograd, ConvAlgo); 3] = [
    (Winograd::F2, ConvAlgo::Winograd2),
    (Winograd::F4, ConvAlgo::Winograd4),
    (Winograd::F6, ConvAlgo::Winograd6),
];

fn shape(channels: [usize; 2], groups: usize, size: [usize; 2]) -> ConvShape {
    ConvShape {
        in_channels: channels[0],
        out_channels: channels[1],
        groups,
        kernel: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        pad_top: 1,
        pad_left: 1,
        in_h: size[0],
        in_w: size[1],
        out_h: size[0],
        out_w: size[1],
    }
}

/// A layer in transformed form.
struct Transformed {
    size: Winograd,
    full: Vec<f32>,
    q: Vec<i16>,
    scales: Vec<f32>,
    exact: bool,
}

impl Transformed {
    fn new(isa: Isa, size: Winograd, shape: &ConvShape, layer: &Layer) -> Transformed {
        let tile = layer.tile(0..shape.panels(), 0..shape.k());
        let len = winograd::panel_len(size, shape);
        let mut t = Transformed {
            size,
            full: vec![f32::NAN; tile.panels * len],
            q: vec![i16::MAX; tile.panels * len],
            scales: vec![f32::NAN; tile.panels * winograd::scales_len(size)],
            exact: false,
        };
        winograd::transform(isa, size, shape, &tile, &mut t.full);
        let mut form = vec![f32::NAN; len];
        t.exact =
            winograd::transform_16(isa, size, shape, &tile, &mut t.q, &mut t.scales, &mut form);
        t
    }

    fn run(
        &self,
        isa: Isa,
        shape: &ConvShape,
        narrow: bool,
        step: [usize; 2],
        level: usize,
        input: &[f32],
    ) -> Vec<f32> {
        let mut out = vec![0.0; shape.out_channels * shape.out_h * shape.out_w];
        let map = Map::rows(1, shape.out_channels, shape.out_h, shape.out_w);
        let all = shape.panels();
        let len = winograd::panel_len(self.size, shape);
        let scales = winograd::scales_len(self.size);
        for y in (0..shape.out_h).step_by(step[0]) {
            let rows = y..(y + step[0]).min(shape.out_h);
            for p in (0..all).step_by(step[1]) {
                let panels = p..(p + step[1]).min(all);
                let of = |len: usize| -> Range<usize> { panels.start * len..panels.end * len };
                let weights = if narrow {
                    Resident::I16 {
                        q: &self.q[of(len)],
                        scales: &self.scales[of(scales)],
                    }
                } else {
                    Resident::F32(&self.full[of(len)])
                };
                let size = winograd::workspace(self.size, shape, panels.len(), rows.len(), level);
                let mut scratch = vec![f32::NAN; size + 16];
                scratch[size..].fill(1.5e30);
                winograd::run(
                    isa,
                    self.size,
                    shape,
                    weights,
                    panels,
                    View {
                        data: input,
                        map: Map::nchw(1, shape.in_channels, shape.in_h, shape.in_w),
                    },
                    rows.clone(),
                    &mut ViewMut {
                        data: &mut out[map.at(0, 0, rows.start)..],
                        map: Map {
                            h: rows.len(),
                            ..map
                        },
                    },
                    Start::Zero,
                    None,
                    &mut scratch[..size],
                );
                assert!(scratch[size..].iter().all(|&v| v == 1.5e30));
            }
        }
        common::nchw_of(&out, map)
    }
}

/// From one tile of all panels, with so many elements of scratch.
fn from_tile(
    isa: Isa,
    algo: ConvAlgo,
    scratch: usize,
    s: &ConvShape,
    layer: &Layer,
    input: &[f32],
) -> Vec<f32> {
    let tile = layer.tile(0..s.panels(), 0..s.k());
    let mut out = vec![0.0; s.out_channels * s.out_h * s.out_w];
    conv_tile(
        isa,
        algo,
        s,
        &tile,
        View {
            data: input,
            map: Map::nchw(1, s.in_channels, s.in_h, s.in_w),
        },
        0..s.out_h,
        &mut ViewMut {
            data: &mut out,
            map: Map::nchw(1, s.out_channels, s.out_h, s.out_w),
        },
        Start::Zero,
        None,
        false,
        &mut vec![f32::NAN; scratch],
    );
    out
}

#[test]
fn resident_weights_give_the_bits_of_tiles() {
    let shapes = [
        shape([3, 5], 1, [1, 1]),
        shape([17, 50], 1, [9, 14]),
        shape([140, 16], 1, [8, 8]),
        shape([8, 40], 2, [7, 33]),
        shape([270, 7], 1, [6, 9]),
        // Strips of all lengths in vectors of 16, with a half at the end and without; odd numbers of panels.
        shape([5, 24], 1, [14, 50]),
        shape([10, 40], 1, [28, 28]),
        shape([9, 8], 1, [3, 400]),
    ];
    for s in shapes {
        for form in [
            Form::Layer,
            Form::Channel,
            Form::Block(32),
            Form::Lut,
            Form::LinearLut,
            Form::SmallLut,
            Form::F32,
        ] {
            let mut rng = Rng(5);
            for order in [KOrder::ChannelMajor, KOrder::TapMajor] {
                let layer = Layer::new(&mut rng, &Order::of(&s, order), form);
                let input = rng.values(s.in_channels * s.in_h * s.in_w);
                let mut fused = [const { None }; SIZES.len()];
                for isa in Isa::available() {
                    for (i, (size, algo)) in SIZES.into_iter().enumerate() {
                        let scratch = |level: usize| {
                            winograd::tile_cut(size, &s, s.panels(), s.out_h, level).scratch
                        };
                        let expected = from_tile(isa, algo, scratch(0), &s, &layer, &input);
                        if isa.name() != "portable" {
                            let first = fused[i].get_or_insert_with(|| expected.clone());
                            assert!(*first == expected, "{s:?} {form:?} {size:?} avx512");
                        }
                        for level in 1..winograd::LEVELS {
                            assert!(scratch(level) <= scratch(level - 1));
                            let out = from_tile(isa, algo, scratch(level), &s, &layer, &input);
                            assert!(out == expected, "level {level}");
                        }
                        let t = Transformed::new(isa, size, &s, &layer);
                        let integers =
                            matches!(form, Form::Layer | Form::Channel | Form::LinearLut);
                        assert_eq!(t.exact, integers, "{size:?} {form:?}");
                        let mut narrow = None;
                        for (step, level) in [
                            ([99, 99], 0),
                            ([size.tile(), 2], 4),
                            ([3, 1], 3),
                            ([5, 3], 1),
                            ([99, 99], 4),
                        ] {
                            let what = format!("{s:?} {form:?} {size:?} {step:?} {level}");
                            let out = t.run(isa, &s, false, step, level, &input);
                            assert!(out == expected, "f32 {what}");
                            let out = t.run(isa, &s, true, step, level, &input);
                            let first = narrow.get_or_insert_with(|| out.clone());
                            assert!(*first == out, "i16 {what}");
                            assert!(!t.exact || out == expected, "i16 {what}");
                        }
                    }
                }
            }
        }
    }
}

/// Largest and root mean square error over the largest and root mean square output.
fn errors(out: &[f32], exact: &[f64]) -> [f64; 2] {
    let (mut most, mut sum, mut largest, mut squares) = (0f64, 0f64, 0f64, 0f64);
    for (&a, &b) in out.iter().zip(exact) {
        let e = f64::from(a) - b;
        most = most.max(e.abs());
        sum += e * e;
        largest = largest.max(b.abs());
        squares += b * b;
    }
    [most / largest, (sum / squares).sqrt()]
}

#[test]
fn multiples_of_a_step_fit_16_bits_and_err_no_more() {
    let s = shape([256, 16], 1, [24, 24]);
    let mut rng = Rng(4);
    let input: Vec<f32> = rng
        .values(256 * 24 * 24)
        .iter()
        .map(|v| v.max(0.0))
        .collect();
    let layer = Layer::new(
        &mut rng,
        &Order::of(&s, KOrder::ChannelMajor),
        Form::LinearLut,
    );
    let (exact, _) = reference::conv(&s, &layer.oihw(&s), &input);
    for isa in Isa::available() {
        for ((size, _), limit) in SIZES.into_iter().zip([1e-6, 3e-6, 2e-5]) {
            assert!(winograd::fits_16(size, 90));
            let t = Transformed::new(isa, size, &s, &layer);
            assert!(t.exact);
            let e = errors(&t.run(isa, &s, true, [24, 24], 0, &input), &exact);
            assert!(e[0] <= limit, "{size:?} {e:?}");
        }
    }
    assert!(!winograd::fits_16(Winograd::F4, 91));
    assert!(winograd::fits_16(Winograd::F2, 127) && winograd::fits_16(Winograd::F6, 127));
}

/// Prints the table of `docs/algorithms.md` with `--nocapture`, and holds its limits.
#[test]
fn errors_stay_within_the_documented_limits() {
    // Per size: f32 and exact 16 bits, rounded 16 bits.
    let limits = [[1e-6, 1e-4], [3e-6, 3e-4], [2e-5, 1e-3]];
    for k in [64, 128, 256, 512] {
        let s = shape([k, 16], 1, [24, 24]);
        let mut rng = Rng(3);
        let layer = Layer::new(&mut rng, &Order::of(&s, KOrder::ChannelMajor), Form::F32);
        let input: Vec<f32> = rng.values(k * 24 * 24).iter().map(|v| v.max(0.0)).collect();
        let (exact, _) = reference::conv(&s, &layer.oihw(&s), &input);
        for isa in Isa::available() {
            let scratch = workspace(ConvAlgo::Gemm, &s, s.panels(), s.out_h);
            let gemm = errors(
                &from_tile(isa, ConvAlgo::Gemm, scratch, &s, &layer, &input),
                &exact,
            );
            println!("{k} {} gemm {gemm:?}", isa.name());
            for ((size, _), limit) in SIZES.into_iter().zip(limits) {
                let t = Transformed::new(isa, size, &s, &layer);
                for narrow in [false, true] {
                    let out = t.run(isa, &s, narrow, [24, 2], 0, &input);
                    let e = errors(&out, &exact);
                    println!(
                        "{k} {} {size:?} rounded weights: {narrow} {e:?}",
                        isa.name()
                    );
                    assert!(
                        e[0] <= limit[usize::from(narrow)],
                        "{size:?} {narrow} {e:?}"
                    );
                }
            }
        }
    }
}
