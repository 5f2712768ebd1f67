//! Resident lists: the bits of the algorithms that make their lists of a tile, for every group, cut into calls and
//! part of the panels.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{Form, Layer, Order, Rng};
use dcz_kernels::*;
use std::ops::Range;

fn shape(channels: [usize; 2], kernel: [usize; 2], stride: usize, size: [usize; 2]) -> ConvShape {
    let [pad_top, pad_left] = kernel.map(|k| k / 2);
    ConvShape {
        in_channels: channels[0],
        out_channels: channels[1],
        groups: 1,
        kernel,
        stride: [stride; 2],
        dilation: [1, 1],
        pad_top,
        pad_left,
        in_h: size[0],
        in_w: size[1],
        out_h: (size[0] - 1) / stride + 1,
        out_w: (size[1] - 1) / stride + 1,
    }
}

/// A layer's lists.
struct Made {
    group: usize,
    starts: Vec<u32>,
    places: Vec<u16>,
    values: Vec<f32>,
}

impl Made {
    fn new(isa: Isa, s: &ConvShape, layer: &Layer, group: usize) -> Made {
        let mut starts = vec![0; sparse::starts_len(s, group)];
        let mut scratch = vec![f32::NAN; sparse::fill_workspace(s)];
        let panels: Vec<Range<usize>> = (0..s.panels())
            .step_by(2)
            .map(|p| p..s.panels().min(p + 2))
            .collect();
        for panels in &panels {
            let tile = layer.tile(panels.clone(), 0..s.k());
            sparse::count(isa, s, group, &tile, &mut starts, &mut scratch);
        }
        let entries = sparse::finish_count(&mut starts).unwrap();
        let (mut places, mut values) = (vec![0; entries], vec![f32::NAN; entries * group]);
        for panels in panels.iter().rev() {
            let tile = layer.tile(panels.clone(), 0..s.k());
            let (places, values) = (&mut places, &mut values);
            sparse::fill(isa, s, group, &tile, &starts, places, values, &mut scratch);
        }
        assert!(values.iter().all(|v| v.is_finite()));
        assert!(group > 1 || values.iter().all(|v| *v != 0.0));
        Made {
            group,
            starts,
            places,
            values,
        }
    }

    /// Output channels of `panels`, `step` rows per call.
    #[expect(clippy::too_many_arguments, reason = "the kernel's arguments")]
    fn run(
        &self,
        isa: Isa,
        s: &ConvShape,
        panels: Range<usize>,
        step: usize,
        input: &[f32],
        mut data: Vec<f32>,
        epilogue: Option<&Epilogue<'_>>,
    ) -> Vec<f32> {
        let own = ConvShape {
            out_channels: s.out_channels.min(panels.end * PANEL) - panels.start * PANEL,
            ..*s
        };
        for y in (0..s.out_h).step_by(step) {
            let rows = y..(y + step).min(s.out_h);
            let size = sparse::run_workspace(s, panels.len(), rows.len());
            let mut scratch = vec![f32::NAN; size + 16];
            scratch[size..].fill(1.5e30);
            let start = if epilogue.is_some() {
                Start::Accumulate
            } else {
                Start::Zero
            };
            let row = own.out_channels * own.out_w;
            sparse::run(
                isa,
                s,
                &own,
                self.group,
                sparse::Lists {
                    starts: &self.starts,
                    places: &self.places,
                    values: &self.values,
                },
                panels.clone(),
                View {
                    data: input,
                    map: Map::rows(1, s.in_channels, s.in_h, s.in_w),
                },
                rows.clone(),
                &mut ViewMut {
                    data: &mut data[y * row..],
                    map: Map::rows(1, own.out_channels, rows.len(), s.out_w),
                },
                start,
                epilogue,
                &mut scratch[..size],
            );
            assert!(scratch[size..].iter().all(|&v| v == 1.5e30));
        }
        data
    }
}

/// What `conv_tile` makes of the layer in one tile.
fn expected(
    isa: Isa,
    s: &ConvShape,
    layer: &Layer,
    input: &[f32],
    mut data: Vec<f32>,
    epilogue: Option<&Epilogue<'_>>,
) -> Vec<f32> {
    let algo = ConvAlgo::DirectSparse;
    let mut scratch = vec![f32::NAN; workspace(algo, s, s.panels(), s.out_h)];
    conv_tile(
        isa,
        algo,
        s,
        &layer.tile(0..s.panels(), 0..s.k()),
        View {
            data: input,
            map: Map::rows(1, s.in_channels, s.in_h, s.in_w),
        },
        0..s.out_h,
        &mut ViewMut {
            data: &mut data,
            map: Map::rows(1, s.out_channels, s.out_h, s.out_w),
        },
        match epilogue {
            Some(_) => Start::Accumulate,
            None => Start::Zero,
        },
        epilogue,
        false,
        &mut scratch,
    );
    data
}

#[test]
fn resident_lists_give_the_bits_of_tiles() {
    let shapes = [
        shape([1, 1], [1, 1], 1, [1, 1]),
        shape([70, 20], [3, 3], 1, [8, 8]),
        shape([40, 24], [3, 3], 1, [5, 64]),
        shape([33, 17], [3, 3], 2, [15, 30]),
        shape([90, 16], [1, 1], 2, [9, 14]),
        shape([300, 9], [1, 1], 1, [3, 7]),
        shape([20, 8], [5, 7], 1, [12, 70]),
        // Tiles of several vectors across; vectors of two and of four rows with some missing.
        shape([12, 8], [1, 1], 1, [7, 75]),
        shape([20, 8], [3, 3], 2, [13, 13]),
        shape([20, 8], [3, 3], 1, [5, 4]),
    ];
    let mut rng = Rng(5);
    for s in shapes {
        assert!(sparse::supports_resident(&s), "{s:?}");
        let input = rng.values(s.in_channels * s.in_h * s.in_w);
        let before = rng.values(s.out_channels * s.out_h * s.out_w);
        let bias = rng.values(s.out_channels);
        for (form, order) in [
            (Form::F32, KOrder::ChannelMajor),
            (Form::Lut, KOrder::TapMajor),
            (Form::Channel, KOrder::TapMajor),
        ] {
            let layer = Layer::new(&mut rng, &Order::of(&s, order), form);
            for (isa, group) in Isa::available().flat_map(|i| [1, 2, 4].map(|g| (i, g))) {
                let made = Made::new(isa, &s, &layer, group);
                let epilogue = Epilogue {
                    bias: Some(&bias),
                    activation: Activation::Sigmoid,
                };
                for epilogue in [None, Some(&epilogue)] {
                    let expected = expected(isa, &s, &layer, &input, before.clone(), epilogue);
                    for step in [s.out_h, 1, 3] {
                        let all = 0..s.panels();
                        let out = made.run(isa, &s, all, step, &input, before.clone(), epilogue);
                        assert!(out == expected, "{s:?} {form:?} group {group} step {step}");
                    }
                }
            }
        }
    }
}

#[test]
fn panels_are_computed_by_themselves() {
    let s = shape([24, 40], [3, 3], 1, [8, 9]);
    let mut rng = Rng(6);
    let layer = Layer::new(&mut rng, &Order::of(&s, KOrder::ChannelMajor), Form::Layer);
    let input = rng.values(s.in_channels * s.in_h * s.in_w);
    let isa = Isa::detect();
    let size = s.out_channels * s.out_h * s.out_w;
    let expected = expected(isa, &s, &layer, &input, vec![0.0; size], None);
    let made = Made::new(isa, &s, &layer, 4);
    let panels = 1..4;
    let channels = (panels.end - panels.start) * PANEL;
    let out = vec![0.0; channels * s.out_h * s.out_w];
    let out = made.run(isa, &s, panels.clone(), s.out_h, &input, out, None);
    for row in 0..s.out_h {
        let at = (row * s.out_channels + panels.start * PANEL) * s.out_w;
        let (len, own) = (channels * s.out_w, row * channels * s.out_w);
        assert_eq!(out[own..own + len], expected[at..at + len]);
    }
}

#[test]
fn wide_kernels_are_left_to_others() {
    assert!(sparse::supports(&shape([1, 1], [9, 9], 1, [20, 20])));
    assert!(!sparse::supports(&shape([1, 1], [3, 11], 1, [20, 20])));
    assert!(sparse::supports(&shape([1, 1], [3, 17], 2, [20, 40])));
    let grouped = ConvShape {
        groups: 2,
        ..shape([4, 4], [3, 3], 1, [4, 4])
    };
    assert!(sparse::supports(&grouped) && !sparse::supports_resident(&grouped));
    // Rows of any length, but places are of 16 bits.
    assert!(sparse::supports(&shape([1, 1], [3, 3], 1, [1, 20_000])));
    let far = ConvShape {
        dilation: [20_000, 1],
        ..shape([1, 1], [9, 9], 1, [4, 4])
    };
    assert!(!sparse::supports(&far));
}
