//! Convolution by FFT: against the f64 oracle, the same bits for every split into rows and panels,
//! canaries, and an allocator that counts what a plan keeps and that running allocates nothing.

mod common;

use common::{Form, Layer, Order, Rng};
use dcz_kernels::fft::FftPlan;
use dcz_kernels::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = LIVE.try_with(|live| live.set(live.get() + layout.size() as isize));
        let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
        // SAFETY: the caller's promise is the callee's condition.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let _ = LIVE.try_with(|live| live.set(live.get() - layout.size() as isize));
        // SAFETY: the caller's promise is the callee's condition.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Channels, groups, kernel, dilation, pads (top, left), size of input and output.
type Case = (
    [usize; 2],
    usize,
    [usize; 2],
    usize,
    [usize; 2],
    [usize; 2],
    [usize; 2],
);

#[rustfmt::skip]
const CASES: &[Case] = &[
    ([1, 1],   1,  [1, 1],   1, [0, 0],   [1, 1],   [1, 1]),
    ([3, 9],   1,  [3, 3],   1, [1, 1],   [7, 9],   [7, 9]),
    ([2, 5],   1,  [7, 7],   1, [3, 3],   [40, 61], [40, 61]),
    ([5, 8],   1,  [11, 11], 1, [0, 7],   [30, 20], [20, 21]),
    ([2, 2],   1,  [31, 31], 1, [15, 15], [64, 64], [64, 64]),
    ([4, 12],  2,  [5, 3],   2, [4, 2],   [12, 90], [12, 90]),
    ([11, 11], 11, [31, 31], 1, [15, 15], [24, 24], [24, 24]),
    ([5, 15],  5,  [9, 1],   1, [4, 0],   [20, 6],  [20, 6]),
];

fn shape(case: &Case) -> ConvShape {
    let &(channels, groups, kernel, dilation, pads, size, out) = case;
    ConvShape {
        in_channels: channels[0],
        out_channels: channels[1],
        groups,
        kernel,
        stride: [1, 1],
        dilation: [dilation; 2],
        pad_top: pads[0],
        pad_left: pads[1],
        in_h: size[0],
        in_w: size[1],
        out_h: out[0],
        out_w: out[1],
    }
}

#[test]
fn every_case() {
    for case in CASES {
        let s = shape(case);
        assert!(fft::supports(&s));
        let mut rng = Rng(9);
        for order in [KOrder::ChannelMajor, KOrder::TapMajor] {
            let layer = Layer::new(&mut rng, &Order::of(&s, order), Form::Channel);
            let input = rng.values(s.in_channels * s.in_h * s.in_w);
            let (sums, sizes) = reference::conv(&s, &layer.oihw(&s), &input);
            let residual = rng.values(sums.len());
            let largest = sizes.iter().fold(0f64, |m, v| m.max(*v)) + 1.0;
            for isa in Isa::available() {
                let before = LIVE.get();
                let plan = FftPlan::new(isa, &s).unwrap();
                let live = usize::try_from(LIVE.get() - before).unwrap();
                assert!(
                    live <= plan.bytes(),
                    "{plan:?} keeps {live}, says {}",
                    plan.bytes()
                );
                let len = plan.panel_len();
                let mut weights = vec![0.0; s.panels() * len];
                // In two tiles where there is something to divide: their transforms are added up.
                for k in [0..s.k() / 2, s.k() / 2..s.k()] {
                    let tile = layer.tile(0..s.panels(), k);
                    let mut scratch = vec![f32::NAN; plan.transform_workspace()];
                    plan.transform(&tile, &mut weights, &mut scratch);
                }
                let size = plan.workspace();
                let mut first: Option<Vec<f32>> = None;
                for (rows, panels) in [(s.out_h, s.panels()), (5, 1), (plan.tile_rows(), 2)] {
                    let map = Map::rows(1, s.out_channels, s.out_h, s.out_w);
                    let mut out = common::place(&residual, map, 0.0);
                    let mut scratch = vec![f32::NAN; size + 16];
                    scratch[size..].fill(1.5e30);
                    let bias = vec![0.25; s.out_channels];
                    let epilogue = Epilogue {
                        bias: Some(&bias),
                        activation: Activation::LeakyRelu(0.5),
                    };
                    let calls = CALLS.get();
                    for y in (0..s.out_h).step_by(rows) {
                        for p in (0..s.panels()).step_by(panels) {
                            let (end, last) =
                                ((y + rows).min(s.out_h), (p + panels).min(s.panels()));
                            plan.run(
                                &weights[p * len..last * len],
                                p..last,
                                View {
                                    data: &input,
                                    map: Map::nchw(1, s.in_channels, s.in_h, s.in_w),
                                },
                                y..end,
                                &mut ViewMut {
                                    data: &mut out[map.at(0, 0, y)..],
                                    map: Map { h: end - y, ..map },
                                },
                                Start::Accumulate,
                                Some(&epilogue),
                                &mut scratch[..size],
                            );
                        }
                    }
                    assert_eq!(CALLS.get(), calls, "allocates");
                    assert!(scratch[size..].iter().all(|&v| v == 1.5e30));
                    let out = common::nchw_of(&out, map);
                    if let Some(first) = &first {
                        assert!(*first == out, "bits differ: {case:?} {rows}");
                        continue;
                    }
                    for (j, &value) in out.iter().enumerate() {
                        let sum = sums[j] + f64::from(residual[j]) + 0.25;
                        let expected = if sum < 0.0 { 0.5 * sum } else { sum };
                        let error = (f64::from(value) - expected).abs();
                        // All that shares a transform shares its error.
                        let bound = 2.0 * f64::from(f32::EPSILON) * (s.k() as f64 + 1.0).sqrt();
                        assert!(error <= bound * largest, "{case:?} {j}: {value} {expected}");
                    }
                    first = Some(out);
                }
            }
        }
    }
}

#[test]
fn refuses_strides_and_huge_kernels() {
    let mut s = shape(&CASES[2]);
    s.stride = [2, 1];
    assert!(FftPlan::new(Isa::Portable, &s).is_none());
    s.stride = [1, 1];
    s.dilation = [usize::MAX / 2, 1];
    assert!(FftPlan::new(Isa::Portable, &s).is_none());
}
