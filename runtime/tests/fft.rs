//! Large kernels under unlimited memory: by FFT, as right as everything else, counted, and with the same bits on any threads.

mod common;

use common::{Coding, Net, check, noise, run};
use dcz::{MemoryBudget, Session, SessionOptions, Threads, Tier};

fn large(coding: Coding) -> Net {
    let mut net = Net::new("large");
    net.coding = coding;
    let x = net.batch_input(&[24, 40, 37]);
    let a = net.conv(x, 24, 24, 11, 1, 1);
    let b = net.relu(a);
    let c = net.conv(b, 24, 24, 13, 1, 1);
    let sum = net.add(b, c);
    let d = net.conv(sum, 24, 24, 3, 2, 1);
    net.output(d);
    net
}

#[test]
fn large_kernels_by_fft() {
    for coding in [Coding::Raw32, Coding::GridChannel, Coding::Codebook] {
        let model = large(coding).model();
        let (dims, data) = noise(5, &[2, 24, 40, 37]);
        check("large", &model, &[(dims.clone(), data.clone())]);
        let plan_of = |budget, threads| {
            let options = SessionOptions::default().with_threads(threads);
            let mut session = Session::new(&model, options.with_memory_budget(budget)).unwrap();
            let plan = session.prepare(&[("in0", &dims)]).unwrap().clone();
            assert_eq!(session.memory(), plan.memory);
            let out = run(&mut session, &[(dims.clone(), data.clone())]);
            (plan, out)
        };
        let by_fft = |plan: &dcz::Plan| {
            let tiers = plan.steps.iter().filter_map(|s| s.tier);
            tiers.filter(|&t| t == Tier::Fft).count()
        };
        let (full, reference) = plan_of(MemoryBudget::Max, Threads::Inline);
        assert_eq!(by_fft(&full), 2, "{full}");
        for threads in [2, 3] {
            let (plan, out) = plan_of(MemoryBudget::Max, Threads::Own(threads));
            assert_eq!(plan.numeric_id, full.numeric_id);
            assert_eq!(out, reference, "{coding:?} {threads} threads");
        }
        let budget = MemoryBudget::Bytes(full.memory.total - 1);
        let (less, _) = plan_of(budget, Threads::Inline);
        assert!(less.memory.total < full.memory.total);
        let (least, _) = plan_of(MemoryBudget::Min, Threads::Inline);
        assert_eq!(by_fft(&least), 0, "{least}");
    }
}
