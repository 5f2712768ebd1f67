//! Bands: less memory, the same bits, for every kind of step and every budget.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;
use common::*;
use dcz::graph::*;
use dcz::{MemoryBudget, Model, Plan, RowSource, RowsRef, Session, SessionOptions, Threads};
use std::ops::Range;
use std::time::Duration;

/// A budget of bytes or an extreme; without Winograd, so that every budget gives the same bits.
fn options(budget: MemoryBudget, threads: Threads) -> SessionOptions {
    let mut options = SessionOptions::default()
        .with_memory_budget(budget)
        .with_threads(threads);
    options.max_relative_error = 0.0;
    options
}

fn plan(model: &Model, dims: &[usize], budget: MemoryBudget) -> Plan {
    let mut session = Session::new(model, options(budget, Threads::Inline)).unwrap();
    session.prepare(&[("in0", dims)]).unwrap().clone()
}

fn bands(plan: &Plan) -> usize {
    let first = |(i, step): (usize, &dcz::plan::PlanStep)| step.band.is_some_and(|b| b.first == i);
    plan.steps.iter().enumerate().filter(|&s| first(s)).count()
}

/// Runs with budgets from the smallest to more than enough, on 1 and 3 threads, and compares with unlimited memory (and
/// that with the oracle). Answers the plans for the smallest and for unlimited memory.
fn compare(name: &str, model: &Model, rest: &[usize]) -> (Plan, Plan) {
    for images in [1, 3] {
        let dims: Vec<usize> = [&[images], rest].concat();
        let inputs = [noise(7, &dims)];
        let unlimited = |threads| Session::new(model, options(MemoryBudget::Max, threads)).unwrap();
        let wanted = run(&mut unlimited(Threads::Inline), &inputs);
        for (got, oracle) in wanted.iter().zip(oracle_outputs(model, &inputs)) {
            assert!(error(got, &oracle) < 1e-5, "{name}");
        }
        let least = plan(model, &dims, MemoryBudget::Min).memory.total;
        let most = plan(model, &dims, MemoryBudget::Max).memory.total;
        for step in 0..=6 {
            let budget = least + most.saturating_sub(least) * step / 5;
            let threads = [
                (Threads::Inline, None),
                (Threads::Own(3), None),
                // Sleeping after every phase, and more threads than processors.
                (Threads::Own(7), Some(Duration::ZERO)),
            ];
            for (threads, spin) in threads {
                let mut options = options(MemoryBudget::Bytes(budget), threads);
                options.spin = spin.unwrap_or(options.spin);
                let mut session = Session::new(model, options).unwrap();
                let got = run(&mut session, &inputs);
                let plan = session.prepare(&[("in0", &dims)]).unwrap();
                assert!(plan.memory.total <= budget, "{name}: {plan}");
                assert_eq!(
                    got, wanted,
                    "{name}, {images} images, {budget} bytes\n{plan}"
                );
            }
        }
        compare_rows(name, model, &inputs[0], &wanted);
        let below = options(MemoryBudget::Bytes(least - 1), Threads::Inline);
        let mut session = Session::new(model, below).unwrap();
        assert!(session.prepare(&[("in0", &dims)]).is_err(), "{name}");
    }
    let dims: Vec<usize> = [&[1], rest].concat();
    let plans = [MemoryBudget::Min, MemoryBudget::Max].map(|b| plan(model, &dims, b));
    let [small, large] = plans;
    assert_eq!(small.numeric_id, large.numeric_id, "{name}");
    assert!(bands(&small) > 0, "{name}: no band\n{small}");
    assert_eq!(bands(&large), 0, "{name}");
    assert!(small.memory.arena < large.memory.arena, "{name}: {small}");
    (small, large)
}

/// A tensor that is handed out by rows.
struct Tensor<'a>(&'a [usize], &'a [f32]);

impl RowSource for Tensor<'_> {
    fn fill(&self, image: usize, rows: Range<usize>, out: &mut [f32]) {
        let &Tensor(&[_, c, h, w], values) = self else {
            panic!("four dimensions");
        };
        assert!(rows.end <= h && out.len() == rows.len() * c * w);
        let places = rows.flat_map(|y| (0..c).map(move |channel| (channel, y)));
        for (to, (channel, y)) in out.chunks_exact_mut(w).zip(places) {
            let from = ((image * c + channel) * h + y) * w;
            to.copy_from_slice(&values[from..from + w]);
        }
    }
}

/// The same bits when the input is made row by row, or is a tensor that the session takes by rows.
fn compare_rows(name: &str, model: &Model, input: &(Vec<usize>, Vec<f32>), wanted: &[Vec<f32>]) {
    let (dims, values) = input;
    let by_rows = |budget, threads| {
        let options = options(budget, threads).with_input_by_rows(true);
        let mut session = Session::new(model, options).unwrap();
        let plan = session.prepare(&[("in0", dims)]).unwrap().clone();
        (session, plan)
    };
    let total = |budget| by_rows(budget, Threads::Inline).1.memory.total;
    let (least, most) = (total(MemoryBudget::Min), total(MemoryBudget::Max));
    let mut windows = 0;
    for step in 0..=3 {
        let budget = least + most.saturating_sub(least) * step / 3;
        for threads in [Threads::Inline, Threads::Own(3)] {
            let (mut session, plan) = by_rows(MemoryBudget::Bytes(budget), threads);
            assert!(plan.memory.total <= budget, "{name}: {plan}");
            windows += usize::from(plan.steps[0].band.is_some_and(|b| b.window.is_some()));
            assert_eq!(run(&mut session, std::slice::from_ref(input)), wanted);
            let mut results: Vec<Vec<f32>> = wanted.iter().map(|v| vec![0.0; v.len()]).collect();
            let mut outputs: Vec<(&str, &mut [f32])> = (plan.outputs.iter().zip(&mut results))
                .map(|((name, _), values)| (name.as_str(), values.as_mut_slice()))
                .collect();
            let source = &Tensor(dims, values);
            let rows = RowsRef { dims, source };
            session.run_rows(&[("in0", rows)], &mut outputs).unwrap();
            assert_eq!(results, wanted, "{name}, by rows, {budget} bytes\n{plan}");
        }
    }
    // In the others a later map is larger, or the input is kept for a shortcut.
    let stem = ["basic", "pool"].contains(&name);
    assert!(windows > 0 || !stem, "{name}: the input never was a window");
    // Rows are refused where the plan does not expect them.
    let mut session = Session::new(model, options(MemoryBudget::Max, Threads::Inline)).unwrap();
    session.prepare(&[("in0", dims)]).unwrap();
    let source = &Tensor(dims, values);
    let rows = RowsRef { dims, source };
    assert!(session.run_rows(&[("in0", rows)], &mut []).is_err());
}

fn net(name: &str, coding: Coding) -> Net {
    let mut net = Net::new(name);
    net.coding = coding;
    // Several tiles per layer.
    net.tile_weights = 2048;
    net
}

/// A block whose shortcut is its input, and one with stride and projection.
#[test]
fn basic_blocks() {
    for coding in [
        Coding::Raw32,
        Coding::GridChannel,
        Coding::GridBlock,
        Coding::Codebook,
    ] {
        let mut net = net("basic", coding);
        let x = net.batch_input(&[3, 40, 36]);
        let x = net.conv(x, 3, 16, 3, 1, 1);
        let x = net.relu(x);
        let y = net.conv(x, 16, 16, 3, 1, 1);
        let y = net.relu(y);
        let y = net.conv(y, 16, 16, 3, 1, 1);
        let x = net.add(x, y);
        let x = net.relu(x);
        let shortcut = net.conv(x, 16, 32, 1, 2, 1);
        let y = net.conv(x, 16, 32, 3, 2, 1);
        let y = net.relu(y);
        let y = net.conv(y, 32, 32, 3, 1, 1);
        let y = net.add(shortcut, y);
        let y = net.relu(y);
        let y = net.conv(y, 32, 8, 1, 1, 1);
        net.output(y);
        let (small, _) = compare("basic", &net.model(), &[3, 40, 36]);
        // Less than two of the maps that an unfused block holds.
        if coding != Coding::Raw32 {
            assert!(small.memory.arena < 2 * 16 * 40 * 36 * 4, "{small}");
        }
    }
}

/// Expansion, depthwise, projection; with and without shortcut, with PReLU.
#[test]
fn inverted_residuals() {
    let mut net = net("inverted", Coding::GridChannel);
    let x = net.batch_input(&[8, 23, 19]);
    let mut x = net.conv(x, 8, 8, 3, 1, 1);
    for stride in [1, 2] {
        let y = net.conv(x, 8, 48, 1, 1, 1);
        let slope = net.constant(&[48]);
        let y = net.node(Op::Prelu { slope }, &[y]);
        let y = net.conv(y, 48, 48, 3, stride, 48);
        let y = net.relu(y);
        let y = net.conv(y, 48, 8, 1, 1, 1);
        x = if stride == 1 { net.add(x, y) } else { y };
    }
    let x = net.conv(x, 8, 4, 1, 1, 1);
    net.output(x);
    let (small, large) = compare("inverted", &net.model(), &[8, 23, 19]);
    assert!(small.memory.arena * 2 < large.memory.arena, "{small}");
}

/// A large stem, pooling of both kinds, an activation that is read twice, an addition into neither operand.
#[test]
fn pooling_and_elementwise() {
    for kind in [PoolKind::Max, PoolKind::Average] {
        let mut net = net("pool", Coding::Codebook);
        let x = net.batch_input(&[3, 41, 37]);
        let x = net.conv(x, 3, 16, 7, 2, 1);
        let x = net.relu(x);
        let pool = Pool {
            kind,
            kernel: [3, 3],
            strides: [2, 2],
            dilations: [1, 1],
            pads: Pads::Explicit([1; 4]),
            ceil_mode: false,
            count_include_pad: true,
        };
        let x = net.node(Op::Pool(pool), &[x]);
        let a = net.conv(x, 16, 16, 5, 1, 1);
        let b = net.conv(x, 16, 16, 3, 1, 1);
        let sum = net.add(a, b);
        let product = net.node(Op::Binary(BinaryKind::Mul), &[a, sum]);
        let y = net.node(Op::Activation(Activation::Sigmoid), &[product]);
        let y = net.node(Op::Binary(BinaryKind::Sub), &[y, b]);
        let y = net.conv(y, 16, 4, 3, 1, 1);
        net.output(y);
        compare("pool", &net.model(), &[3, 41, 37]);
    }
}

/// Maps that no cache holds: bands are faster even where memory is unlimited, and change no bit.
#[test]
fn large_maps() {
    let mut net = net("large", Coding::GridChannel);
    let x = net.batch_input(&[3, 400, 400]);
    let x = net.conv(x, 3, 16, 3, 1, 1);
    let x = net.relu(x);
    let x = net.conv(x, 16, 16, 1, 1, 1);
    let x = net.conv(x, 16, 16, 3, 1, 16);
    let x = net.relu(x);
    let x = net.conv(x, 16, 4, 3, 2, 1);
    net.output(x);
    let model = net.model();
    let dims: [usize; 4] = [1, 3, 400, 400];
    let large = plan(&model, &dims, MemoryBudget::Max);
    assert!(bands(&large) > 0, "{large}");
    let inputs = [noise(5, &dims)];
    let with = |budget, threads| {
        let mut session = Session::new(&model, options(budget, threads)).unwrap();
        run(&mut session, &inputs)
    };
    let got = with(MemoryBudget::Max, Threads::Own(2));
    assert_eq!(got, with(MemoryBudget::Min, Threads::Inline));
    assert!(error(&got[0], &oracle_outputs(&model, &inputs)[0]) < 1e-5);
}

/// Maps of half the size, brought back and added: nearest and linear, with the rule of either and odd sizes.
#[test]
fn pyramids() {
    for (mode, coordinates) in [
        (ResizeMode::NearestFloor, ResizeCoordinates::Asymmetric),
        (ResizeMode::Linear, ResizeCoordinates::HalfPixel),
        (ResizeMode::Linear, ResizeCoordinates::AlignCorners),
    ] {
        let mut net = net("pyramid", Coding::GridChannel);
        let x = net.batch_input(&[3, 46, 38]);
        let x = net.conv(x, 3, 12, 3, 1, 1);
        let y = net.conv(x, 12, 12, 3, 2, 12);
        let y = net.conv(y, 12, 12, 3, 1, 1);
        let resize = Resize {
            mode,
            coordinates,
            size: ResizeSize::Fixed([46, 38]),
        };
        let y = net.node(Op::Resize(resize), &[y]);
        let y = net.add(x, y);
        let y = net.conv(y, 12, 16, 3, 1, 1);
        let y = net.conv(y, 16, 4, 1, 1, 1);
        net.output(y);
        compare("pyramid", &net.model(), &[3, 46, 38]);
    }
}

/// No shortcut at all, dilation, maps that are one row high in the end.
#[test]
fn chains() {
    let mut net = net("chain", Coding::GridLayer);
    let x = net.batch_input(&[4, 33, 20]);
    let mut x = net.conv(x, 4, 24, 3, 1, 1);
    for (inputs, outputs, dilation) in [(24, 24, 2), (24, 12, 1), (12, 12, 3)] {
        let layer = net.layer(outputs, inputs, [3, 3], 1);
        let conv = Conv {
            layer,
            bias: None,
            strides: [1, 1],
            dilations: [dilation; 2],
            pads: Pads::Explicit([dilation; 4]),
        };
        x = net.node(Op::Conv(conv), &[x]);
        x = net.relu(x);
    }
    let mut x = net.conv(x, 12, 12, 3, 2, 12);
    for _ in 0..3 {
        x = net.conv(x, 12, 12, 5, 3, 1);
    }
    net.output(x);
    compare("chain", &net.model(), &[4, 33, 20]);
}

/// With Winograd allowed, strips do not cut its tiles: bands and single steps with the same algorithms give equal bits.
#[test]
fn winograd_in_bands() {
    let mut net = net("winograd", Coding::GridLayer);
    net.tile_weights = 65536;
    let x = net.batch_input(&[3, 64, 64]);
    let mut x = net.conv(x, 3, 64, 3, 1, 1);
    for _ in 0..2 {
        let y = net.conv(x, 64, 64, 3, 1, 1);
        let y = net.relu(y);
        let y = net.conv(y, 64, 64, 3, 1, 1);
        x = net.add(x, y);
    }
    net.output(x);
    let model = net.model();
    let inputs = [noise(3, &[1, 3, 64, 64])];
    let dims: [usize; 4] = [1, 3, 64, 64];
    let oracle = oracle_outputs(&model, &inputs);
    let with = |budget| SessionOptions::default().with_memory_budget(budget);
    let size = |budget| {
        let mut session = Session::new(&model, with(budget)).unwrap();
        session.prepare(&[("in0", &dims)]).unwrap().memory.total
    };
    let (least, most) = (size(MemoryBudget::Min), size(MemoryBudget::Max));
    let mut seen: Vec<(u64, Vec<Vec<f32>>)> = Vec::new();
    let mut transformed = 0;
    for step in 0..24 {
        let budget = least + (most - least) * step / 24;
        let mut session = Session::new(&model, with(MemoryBudget::Bytes(budget))).unwrap();
        let got = run(&mut session, &inputs);
        assert!(error(&got[0], &oracle[0]) < 2e-5);
        let plan = session.prepare(&[("in0", &dims)]).unwrap();
        transformed += plan
            .steps
            .iter()
            .filter(|s| {
                let winograd = s
                    .algorithm
                    .as_deref()
                    .is_some_and(|a| a.contains("winograd"));
                s.band.is_some() && winograd
            })
            .count();
        match seen.iter().find(|(id, _)| *id == plan.numeric_id) {
            Some((_, bits)) => assert_eq!(bits, &got, "{plan}"),
            None => seen.push((plan.numeric_id, got)),
        }
    }
    assert!(transformed > 0, "no plan with Winograd in a band");
}
