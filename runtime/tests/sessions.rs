//! Sessions: fusion, batches, shapes, budgets, errors.

mod common;
use common::*;
use dcz::graph::*;
use dcz::plan::{Location, Tier};
use dcz::{ErrorKind, MemoryBudget, Model, Session, SessionOptions, TensorRef, Threads};

/// Stem, two residual blocks (one with a projection), pooling, a linear layer; like the contest network.
fn residual(coding: Coding, tile_weights: usize) -> Net {
    let mut net = Net::new("residual");
    (net.coding, net.tile_weights) = (coding, tile_weights);
    let x = net.batch_input(&[3, 16, 16]);
    let x = net.conv(x, 3, 16, 3, 1, 1);
    let x = net.relu(x);
    let shortcut = net.conv(x, 16, 24, 1, 2, 1);
    let y = net.conv(x, 16, 24, 3, 2, 1);
    let y = net.relu(y);
    let y = net.conv(y, 24, 24, 3, 1, 1);
    let y = net.add(shortcut, y);
    let x = net.relu(y);
    let y = net.conv(x, 24, 24, 3, 1, 1);
    let y = net.relu(y);
    let y = net.conv(y, 24, 24, 3, 1, 1);
    let x = net.add(x, y);
    let x = net.flatten(x);
    let x = net.linear(x, 24 * 64, 50);
    net.output(x);
    net
}

#[test]
fn residual_blocks_are_fused_in_place() {
    let model = residual(Coding::Raw32, 65536).model();
    let mut session = session(&model, Threads::Inline);
    let plan = session.prepare(&[("in0", &[1, 3, 16, 16])]).unwrap();
    let ops: Vec<(&str, usize, bool)> = plan
        .steps
        .iter()
        .map(|s| (s.op, s.fused.len(), s.in_place))
        .collect();
    let wanted = [
        ("conv", 1, false),
        ("conv", 0, false),
        ("conv", 1, false),
        ("conv", 2, true),
        ("conv", 1, false),
        ("conv", 1, true),
        ("rearrange", 0, false),
        ("linear", 0, false),
        ("export", 0, false),
    ];
    assert_eq!(ops, wanted, "{plan}");
    // The arena is what the fullest step needs: x, the shortcut and the first half of the block.
    let map = |c: u64, n: u64| c * n * n * 4;
    assert_eq!(plan.memory.arena, map(16, 16) + 2 * map(24, 8), "{plan}");
    assert_eq!(plan.steps[plan.peak_step].live_bytes, plan.memory.arena);
    check("residual", &model, &[noise(1, &[1, 3, 16, 16])]);
    check("residual", &model, &[noise(1, &[3, 3, 16, 16])]);
}

#[test]
fn residual_operand_that_is_still_needed_is_not_overwritten() {
    // The sum's operand is read again later, is the convolution's own input, or is a graph output.
    for variant in 0..4 {
        let mut net = Net::new("kept");
        let x = net.batch_input(&[4, 8, 8]);
        let a = net.conv(x, 4, 4, 3, 1, 1);
        let b = if variant == 1 { a } else { net.relu(a) };
        let y = net.conv(b, 4, 4, 3, 1, 1);
        let z = net.add(a, y);
        let last = if variant == 0 { net.add(z, a) } else { z };
        net.output(last);
        match variant {
            2 => net.output(a),
            // Both readers of a sum of the same tensor, and an output that is read on.
            3 => {
                let twice = net.add(z, z);
                net.output(twice);
                net.output(y);
            }
            _ => {}
        }
        check(
            &format!("variant {variant}"),
            &net.model(),
            &[noise(2, &[2, 4, 8, 8])],
        );
    }
}

#[test]
fn every_image_of_a_batch_equals_the_image_alone() {
    for coding in [Coding::Raw32, Coding::GridChannel, Coding::Sparse] {
        for tile_weights in [100, 65536] {
            let model = residual(coding, tile_weights).model();
            let (_, data) = noise(9, &[5, 3, 16, 16]);
            for threads in [Threads::Inline, Threads::Own(2), Threads::Own(3)] {
                let mut session = session(&model, threads);
                let all = run(&mut session, &[(vec![5, 3, 16, 16], data.clone())]);
                for (i, image) in data.chunks_exact(3 * 256).enumerate() {
                    let one = run(&mut session, &[(vec![1, 3, 16, 16], image.to_vec())]);
                    assert_eq!(one[0], all[0][i * 50..][..50], "{coding:?} image {i}");
                }
            }
        }
    }
}

#[test]
fn threads_take_panels_of_small_maps() {
    for coding in [Coding::Raw32, Coding::GridBlock, Coding::Sparse] {
        for tile_weights in [80, 700, 20_000] {
            let mut net = Net::new("panels");
            (net.coding, net.tile_weights) = (coding, tile_weights);
            let x = net.batch_input(&[20, 9, 7]);
            let a = net.conv(x, 20, 68, 3, 1, 1);
            let b = net.conv(a, 68, 68, 3, 1, 1);
            let c = net.add(a, b);
            let slope = net.constant(&[68, 1, 1]);
            let d = net.node(Op::Prelu { slope }, &[c]);
            let e = net.conv(d, 68, 33, 1, 2, 1);
            net.output(e);
            let model = net.model();
            let plan = session(&model, Threads::Own(2))
                .prepare_default()
                .unwrap()
                .clone();
            let panels = plan.steps.iter().filter(|s| s.by_panels).count();
            assert!(panels > 1 || tile_weights == 20_000, "{plan}");
            for batch in [1, 2] {
                check("panels", &model, &[noise(1, &[batch, 20, 9, 7])]);
            }
        }
    }
}

#[test]
fn numeric_id_depends_on_what_determines_bits() {
    let model = residual(Coding::GridLayer, 65536).model();
    let id = |model: &Model, threads, batch| {
        let mut session = session(model, threads);
        session
            .prepare(&[("in0", &[batch, 3, 16, 16])])
            .unwrap()
            .numeric_id
    };
    let first = id(&model, Threads::Inline, 1);
    assert_eq!(first, id(&model, Threads::Own(3), 4));
    assert_ne!(
        first,
        id(
            &residual(Coding::GridLayer, 200).model(),
            Threads::Inline,
            1
        )
    );
    assert_ne!(
        first,
        id(&residual(Coding::Raw32, 65536).model(), Threads::Inline, 1)
    );
    let portable = SessionOptions::default().with_isa(dcz::Isa::Portable);
    let mut session = Session::new(&model, portable).unwrap();
    let plan = session.prepare_default().unwrap();
    assert_eq!(plan.isa, "portable");
    let usual = common::session(&model, Threads::Inline).isa();
    assert_eq!(plan.numeric_id == first, usual == dcz::Isa::Portable);
}

#[test]
fn portable_instruction_set_agrees_with_the_oracle() {
    let model = residual(Coding::GridBlock, 300).model();
    let input = noise(3, &[2, 3, 16, 16]);
    let wanted = oracle_outputs(&model, std::slice::from_ref(&input));
    let options = SessionOptions::default().with_isa(dcz::Isa::Portable);
    let got = run(&mut Session::new(&model, options).unwrap(), &[input]);
    assert!(error(&got[0], &wanted[0]) < 1e-5);
}

#[test]
fn pool_passed_in_gives_the_same_bits() {
    let model = residual(Coding::GridLayer, 300).model();
    let input = [noise(3, &[2, 3, 16, 16])];
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build()
        .unwrap();
    let pool = std::sync::Arc::new(pool);
    let threads = Threads::Pool(std::sync::Arc::clone(&pool));
    let mut pooled = session(&model, threads.clone());
    let wanted = run(&mut session(&model, Threads::Inline), &input);
    assert_eq!(run(&mut pooled, &input), wanted);
    // From within the pool, whose threads have other work.
    let runs = || run(&mut session(&model, threads.clone()), &input);
    let (first, second) = pool.install(|| rayon::join(runs, runs));
    assert_eq!((first, second), (wanted.clone(), wanted));
}

/// Height and width open, one output of four dimensions.
fn dynamic() -> Model {
    let mut net = Net::new("dynamic");
    let (h, w) = (net.symbol("H", 8, 64, 4, 16), net.symbol("W", 8, 64, 4, 16));
    let dims = [Dim::Fixed(1), Dim::Fixed(3), Dim::Symbol(h), Dim::Symbol(w)];
    let x = net.input_dims(dims.to_vec());
    let x = net.conv(x, 3, 8, 3, 2, 1);
    let x = net.relu(x);
    let x = net.conv(x, 8, 5, 3, 1, 1);
    net.output(x);
    net.model()
}

#[test]
fn shapes_are_planned_once_and_the_cache_is_bounded() {
    let model = dynamic();
    let options = SessionOptions::default().with_plan_cache(2);
    let mut session = Session::new(&model, options).unwrap();
    let sizes = [[16, 16], [32, 20], [8, 64]];
    for [h, w] in sizes {
        let input = [noise(4, &[1, 3, h, w])];
        let wanted = oracle_outputs(&model, &input);
        assert!(error(&run(&mut session, &input)[0], &wanted[0]) < 1e-5);
    }
    // The first shape has left the cache; the others have not.
    let mut out = vec![0.0; 5 * 32 * 32];
    let mut try_run = |[h, w]: [usize; 2]| {
        let data = vec![0.5; 3 * h * w];
        let len = 5 * h.div_ceil(2) * w.div_ceil(2);
        let input = TensorRef {
            dims: &[1, 3, h, w],
            data: &data,
        };
        session.run(&[("in0", input)], &mut [("t2", &mut out[..len])])
    };
    assert!(matches!(
        try_run(sizes[0]).unwrap_err().kind(),
        ErrorKind::Unprepared(_)
    ));
    try_run(sizes[1]).unwrap();
    try_run(sizes[2]).unwrap();
    for bad in [[18, 16], [4, 16], [68, 16]] {
        let error = session
            .prepare(&[("in0", &[1, 3, bad[0], bad[1]])])
            .unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Shape(_)) && error.exit_code() == 5,
            "{error}"
        );
    }
}

#[test]
fn budget_is_kept_or_refused_with_the_smallest_feasible() {
    let model = residual(Coding::GridLayer, 1000).model();
    let shape: (&str, &[usize]) = ("in0", &[1, 3, 16, 16]);
    let prepare = |budget| {
        let mut options = SessionOptions::default()
            .with_threads(Threads::Own(3))
            .with_memory_budget(budget);
        // The same order of sums under every budget.
        options.max_relative_error = 0.0;
        let mut session = Session::new(&model, options).unwrap();
        let plan = session.prepare(&[shape]).cloned();
        (plan, session)
    };
    let (full, session) = prepare(MemoryBudget::Max);
    let full = full.unwrap();
    assert_eq!(session.memory(), full.memory);
    let (least, mut session) = prepare(MemoryBudget::Min);
    let least = least.unwrap();
    assert_eq!(least.threads, 1);
    assert_eq!(session.memory(), least.memory);
    assert!(least.memory.total < full.memory.total);
    assert_eq!(least.numeric_id, full.numeric_id);
    let input = [noise(1, &[1, 3, 16, 16])];
    let reference = run(&mut session, &input);
    let (error, _) = prepare(MemoryBudget::Bytes(least.memory.total - 1));
    let error = error.unwrap_err();
    match error.kind() {
        ErrorKind::BudgetTooSmall {
            smallest_feasible, ..
        } => {
            assert_eq!(*smallest_feasible, least.memory.total);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(error.exit_code(), 6);
    for budget in [
        least.memory.total,
        (least.memory.total + full.memory.total) / 2,
        full.memory.total,
    ] {
        let (plan, mut session) = prepare(MemoryBudget::Bytes(budget));
        let plan = plan.unwrap();
        assert!(plan.memory.total <= budget);
        assert_eq!(session.memory().total, plan.memory.total);
        assert_eq!(run(&mut session, &input), reference);
    }
}

/// Layers that Winograd is worth its memory for: large maps, and one small enough to be split by panels.
fn wide(coding: Coding) -> Net {
    let mut net = Net::new("wide");
    net.coding = coding;
    let x = net.batch_input(&[32, 21, 19]);
    let a = net.conv(x, 32, 48, 3, 1, 1);
    let a = net.relu(a);
    let b = net.conv(a, 48, 48, 3, 1, 1);
    let b = net.add(a, b);
    let c = net.conv(b, 48, 64, 3, 2, 1);
    let d = net.conv(c, 64, 64, 3, 1, 1);
    let d = net.add(c, d);
    net.output(d);
    net
}

#[test]
fn budgets_buy_speed_and_threads_change_no_bit() {
    let codings = [Coding::Raw32, Coding::GridChannel, Coding::Codebook];
    for (isa, coding) in dcz::Isa::available().flat_map(|isa| codings.map(|coding| (isa, coding))) {
        let model = wide(coding).model();
        let (dims, data) = noise(3, &[2, 32, 21, 19]);
        let plan_of = |budget, threads, max_error: f32| {
            let mut options = SessionOptions::default()
                .with_threads(threads)
                .with_isa(isa)
                .with_memory_budget(budget);
            options.max_relative_error = max_error;
            let mut session = Session::new(&model, options).unwrap();
            let plan = session.prepare(&[("in0", &dims)]).unwrap().clone();
            assert_eq!(session.memory(), plan.memory);
            let out = run(&mut session, &[(dims.clone(), data.clone())]);
            (plan, out)
        };
        let (full, reference) = plan_of(MemoryBudget::Max, Threads::Inline, 2e-5);
        let by_winograd = |plan: &dcz::Plan| {
            let names = plan.steps.iter().filter_map(|s| s.algorithm.as_ref());
            names.filter(|name| name.contains("winograd")).count()
        };
        // On some instruction sets codes are transformed in the call in so little time that nothing is kept transformed.
        assert_eq!(by_winograd(&full), 3, "{full}");
        // The same plan for one image: the same bits.
        let two = SessionOptions::default()
            .with_threads(Threads::Own(2))
            .with_isa(isa);
        let mut two = Session::new(&model, two).unwrap();
        let image = (vec![1, 32, 21, 19], data[..32 * 21 * 19].to_vec());
        let plan = two.prepare(&[("in0", &image.0)]).unwrap().clone();
        assert_eq!(plan.numeric_id, full.numeric_id, "{plan}{full}");
        let one = run(&mut two, &[image]);
        assert!(
            one[0] == reference[0][..one[0].len()],
            "one image has other bits: {full}"
        );
        for threads in [2, 3] {
            let (plan, out) = plan_of(MemoryBudget::Max, Threads::Own(threads), 2e-5);
            assert_eq!((plan.threads, plan.numeric_id), (threads, full.numeric_id));
            assert_eq!(out, reference, "{coding:?} {threads} threads");
        }
        let (exact, other) = plan_of(MemoryBudget::Max, Threads::Inline, 1e-7);
        assert_eq!(by_winograd(&exact), 0, "{exact}");
        assert_ne!(exact.numeric_id, full.numeric_id);
        let largest = other[0].iter().fold(0f32, |m, v| m.max(v.abs()));
        for (a, b) in other[0].iter().zip(&reference[0]) {
            assert!((a - b).abs() <= 1e-5 * largest);
        }
        let (least, _) = plan_of(MemoryBudget::Min, Threads::Inline, 2e-5);
        assert_eq!(least.memory.resident, 0);
        let (mut ms, mut fewer) = (f64::MAX, false);
        for step in 0..=10 {
            let range = full.memory.total - least.memory.total;
            let bytes = least.memory.total + range * step / 10;
            let budget = MemoryBudget::Bytes(bytes);
            let (plan, out) = plan_of(budget, Threads::Inline, 2e-5);
            assert!(plan.predicted_ms <= ms * 1.0001, "{plan}");
            ms = plan.predicted_ms;
            if plan.numeric_id == full.numeric_id {
                assert_eq!(out, reference);
            }
            // More threads may keep other weights, but compute the same bits within the same budget.
            let (shared, same) = plan_of(budget, Threads::Own(3), 2e-5);
            assert_eq!(shared.numeric_id, plan.numeric_id);
            assert_eq!(same, out);
            for plan in [&plan, &shared] {
                assert!(plan.memory.total <= bytes, "{plan}");
            }
            fewer |= shared.threads < 3 && shared.to_string().contains("of 3 threads");
        }
        assert!(fewer);
        assert!(ms <= full.predicted_ms, "{ms} ms of {full}");
    }
}

/// Small tiles, strides that Winograd does not know, maps of odd width, a map that threads take by panels.
fn tiled(coding: Coding) -> Net {
    let mut net = Net::new("tiled");
    (net.coding, net.tile_weights) = (coding, 24 * 9 * 8);
    let x = net.batch_input(&[24, 37, 29]);
    let x = net.conv(x, 24, 40, 3, 2, 1);
    let x = net.relu(x);
    let y = net.conv(x, 40, 77, 3, 2, 1);
    let x = net.conv(x, 40, 77, 1, 2, 1);
    let x = net.add(x, y);
    let x = net.conv(x, 77, 40, 1, 1, 1);
    net.output(x);
    net
}

#[test]
fn neighbouring_tiles_are_joined_where_there_is_room() {
    let codings = [Coding::Raw32, Coding::GridChannel, Coding::Codebook];
    for (isa, coding) in dcz::Isa::available().flat_map(|isa| codings.map(|coding| (isa, coding))) {
        let model = tiled(coding).model();
        let (dims, data) = noise(5, &[2, 24, 37, 29]);
        let plan_of = |budget, threads| {
            let options = SessionOptions::default()
                .with_threads(threads)
                .with_isa(isa)
                .with_memory_budget(budget);
            let mut session = Session::new(&model, options).unwrap();
            let plan = session.prepare(&[("in0", &dims)]).unwrap().clone();
            let out = run(&mut session, &[(dims.clone(), data.clone())]);
            (plan, out)
        };
        let (full, reference) = plan_of(MemoryBudget::Max, Threads::Inline);
        let (least, out) = plan_of(MemoryBudget::Min, Threads::Inline);
        let mut bits = vec![(full.numeric_id, reference), (least.numeric_id, out)];
        let mut joined = std::collections::BTreeSet::new();
        for step in 0..=24 {
            let bytes = least.memory.total + 4096 * step;
            for threads in [Threads::Inline, Threads::Own(2), Threads::Own(3)] {
                let (plan, out) = plan_of(MemoryBudget::Bytes(bytes), threads);
                assert!(plan.memory.total <= bytes, "{plan}");
                for step in plan.steps.iter().filter(|s| s.tier == Some(Tier::Decode)) {
                    joined.insert(step.joined_tiles);
                }
                match bits.iter().find(|(id, _)| *id == plan.numeric_id) {
                    Some((_, bits)) => assert_eq!(*bits, out, "{plan}"),
                    None => bits.push((plan.numeric_id, out)),
                }
            }
        }
        let name = isa.name();
        assert!(
            joined.contains(&1) && joined.len() > 1,
            "{name} {coding:?}: {joined:?} {least}"
        );
    }
}

#[test]
fn sessions_of_a_model_share_resident_weights() {
    let model = wide(Coding::GridLayer).model();
    let input = [noise(3, &[1, 32, 21, 19])];
    let mut first = session(&model, Threads::Inline);
    let wanted = run(&mut first, &input);
    let mut second = session(&model, Threads::Own(2));
    assert_eq!(run(&mut second, &input), wanted);
    assert_eq!(first.memory().resident, second.memory().resident);
    drop(first);
    assert_eq!(run(&mut second, &input), wanted);
}

#[test]
fn an_arena_is_passed_on_and_comes_back() {
    let (small, large) = (dynamic(), residual(Coding::Raw32, 65536).model());
    let inputs = [noise(5, &[1, 3, 8, 8]), noise(5, &[1, 3, 16, 16])];
    let [mut a, mut b] = [&small, &large].map(|model| session(model, Threads::Inline));
    let alone = [run(&mut a, &inputs[..1]), run(&mut b, &inputs[1..])];
    let again = |session: &mut Session, index: usize| {
        let network = session.network().clone();
        let name = &network.tensors[network.outputs[0].tensor.0 as usize].name;
        let (dims, data) = &inputs[index];
        let mut found = vec![0.0; alone[index][0].len()];
        let result = session.run(
            &[("in0", TensorRef { dims, data })],
            &mut [(name.as_str(), &mut found)],
        );
        result.map(|()| assert_eq!(found, alone[index][0]))
    };
    for _ in 0..2 {
        a.pass_arena(&mut b).unwrap();
        again(&mut b, 1).unwrap();
        let refused = again(&mut a, 0).unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::Unprepared(_)));
        b.pass_arena(&mut a).unwrap();
        again(&mut a, 0).unwrap();
    }
}

#[test]
fn wrong_tensors_are_typed_errors() {
    let model = residual(Coding::Raw32, 65536).model();
    let mut session = session(&model, Threads::Inline);
    let shape: &[usize] = &[1, 3, 16, 16];
    let prepare = |session: &mut Session, shapes: &[(&str, &[usize])]| {
        session.prepare(shapes).map(|_| ()).unwrap_err().to_string()
    };
    assert!(prepare(&mut session, &[]).contains("in0 is missing"));
    assert!(prepare(&mut session, &[("in0", shape), ("in0", shape)]).contains("twice"));
    assert!(prepare(&mut session, &[("in0", shape), ("x", shape)]).contains("no input x"));
    assert!(prepare(&mut session, &[("in0", &[1, 3, 16])]).contains("dimensions"));
    let data = vec![0.0; 768];
    let input = TensorRef {
        dims: shape,
        data: &data,
    };
    let short = TensorRef {
        dims: shape,
        data: &data[1..],
    };
    let mut out = [0.0; 50];
    let name = "t13";
    let error = session
        .run(&[("in0", input)], &mut [(name, &mut out)])
        .unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unprepared(_)), "{error}");
    session.prepare(&[("in0", shape)]).unwrap();
    let mut fails = |inputs: &[(&str, TensorRef<'_>)], outputs: &mut [(&str, &mut [f32])]| {
        let error = session.run(inputs, outputs).unwrap_err();
        assert_eq!(error.exit_code(), 5, "{error}");
        error.to_string()
    };
    assert!(fails(&[], &mut []).contains("missing"));
    assert!(fails(&[("in0", short)], &mut [(name, &mut out)]).contains("767"));
    assert!(fails(&[("in0", input)], &mut [("x", &mut out)]).contains("no output x"));
    assert!(fails(&[("in0", input)], &mut [(name, &mut out[..7])]).contains("room for 7"));
    let (mut a, mut b) = ([0.0; 50], [0.0; 50]);
    assert!(fails(&[("in0", input)], &mut [(name, &mut a), (name, &mut b)]).contains("twice"));
    assert!(fails(&[("in0", input), ("in0", input)], &mut [(name, &mut a)]).contains("2 inputs"));
    // No output at all is fine, and the session still works after all these errors.
    session.run(&[("in0", input)], &mut []).unwrap();
    session
        .run(&[("in0", input)], &mut [(name, &mut out)])
        .unwrap();
}

#[test]
fn damaged_tiles_are_found_when_they_are_used() {
    let bytes = residual(Coding::GridLayer, 500).bytes();
    let model = Model::from_bytes(bytes.clone()).unwrap();
    let layers = model.networks()[0].layers.len();
    for layer in 0..layers {
        let id = LayerId(layer as u32);
        let last = model.networks()[0].layers[layer].tiles.len() - 1;
        let (_, range) = model.container().tile(0, id, last).unwrap();
        let mut damaged = bytes.clone();
        damaged[range.start as usize + 1] ^= 4;
        // Opening parses records only.
        let damaged = Model::from_bytes(damaged).unwrap();
        for threads in [Threads::Inline, Threads::Own(2)] {
            // Weights that stay in memory are decoded by `prepare`.
            let mut session = session(&damaged, threads.clone());
            let error = session.prepare(&[("in0", &[1, 3, 16, 16])]).unwrap_err();
            assert_eq!(error.exit_code(), 3, "{error}");
            let options = SessionOptions::default()
                .with_threads(threads)
                .with_memory_budget(MemoryBudget::Min);
            let mut session = Session::new(&damaged, options).unwrap();
            session.prepare(&[("in0", &[1, 3, 16, 16])]).unwrap();
            let data = vec![0.1; 768];
            let input = TensorRef {
                dims: &[1, 3, 16, 16],
                data: &data,
            };
            let error = session.run(&[("in0", input)], &mut []).unwrap_err();
            assert_eq!(error.exit_code(), 3, "{error}");
            assert!(error.to_string().contains(&format!("l{layer}")), "{error}");
        }
    }
}

#[test]
fn networks_are_found_by_name() {
    let model = residual(Coding::Raw32, 65536).model();
    assert!(Session::new(&model, SessionOptions::default().with_network("residual")).is_ok());
    let error = Session::new(&model, SessionOptions::default().with_network("x")).unwrap_err();
    assert!(error.to_string().contains("residual") && error.exit_code() == 2);
}

#[test]
fn inputs_that_are_outputs_and_unused_ones() {
    let mut net = Net::new("identity");
    let a = net.input(&[1, 2, 3, 4]);
    let b = net.input(&[1, 2, 3, 4]);
    let c = net.add(a, b);
    net.output(a);
    net.output(c);
    let model = net.model();
    let (a, b) = (noise(1, &[1, 2, 3, 4]), noise(2, &[1, 2, 3, 4]));
    let got = check("identity", &model, &[a.clone(), b]);
    assert_eq!(got[0], a.1);
    let mut session = session(&model, Threads::Inline);
    let plan = session.prepare_default().unwrap();
    assert!(
        plan.steps
            .iter()
            .any(|s| s.output.location == Location::Output(0))
    );
}

#[test]
fn sessions_can_be_sent_and_models_shared() {
    fn send<T: Send + 'static>() {}
    fn sync<T: Send + Sync + Clone + 'static>() {}
    send::<Session>();
    sync::<Model>();
    let model = residual(Coding::GridLayer, 65536).model();
    let input = [noise(1, &[1, 3, 16, 16])];
    let wanted = run(&mut session(&model, Threads::Inline), &input);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (model, input, wanted) = (model.clone(), &input, &wanted);
            scope.spawn(move || {
                assert_eq!(&run(&mut session(&model, Threads::Own(2)), input), wanted)
            });
        }
    });
}

#[test]
fn profile_and_release_change_no_bit() {
    let model = residual(Coding::GridLayer, 500).model();
    let input = [noise(1, &[1, 3, 16, 16])];
    let options = SessionOptions::default()
        .with_threads(Threads::Own(2))
        .with_memory_budget(MemoryBudget::Min);
    let wanted = run(&mut Session::new(&model, options.clone()).unwrap(), &input);
    let options = options.with_release_pages(true);
    let mut session = Session::new(&model, options).unwrap();
    assert!(session.profile().is_none());
    session.set_profiling(true);
    for _ in 0..3 {
        assert_eq!(run(&mut session, &input), wanted);
    }
    let profile = session.profile().unwrap();
    assert_eq!(profile.runs, 3);
    assert!(
        profile
            .steps
            .iter()
            .filter(|s| s.op == "conv")
            .all(|s| s.decode_ms > 0.0)
    );
}
