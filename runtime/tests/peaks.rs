//! Holds the planner to the figures of `docs/memory-model.md`: the smallest arenas of networks built like the ones named
//! there, with 8-bit codes. Weights are random, fully connected layers narrower: neither is alive at the fullest step.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{Coding, Net};
use dcz::graph::*;
use dcz::{MemoryBudget, Session, SessionOptions};
use dcz_format::layer::KOrder;

/// The largest arena that the smallest budget may take, in bytes.
fn expect(net: Net, input: [usize; 4], most: u64) {
    let name = net.network.name.clone();
    let model = net.model();
    let options = SessionOptions::default().with_memory_budget(MemoryBudget::Min);
    let mut session = Session::new(&model, options).unwrap();
    let plan = session.prepare(&[("in0", &input)]).unwrap();
    assert!(
        plan.memory.arena <= most,
        "{name}: {} over {most}",
        plan.memory.arena
    );
}

fn net(name: &str, size: u32) -> (Net, TensorId) {
    let mut net = Net::new(name);
    net.coding = Coding::GridLayer;
    net.k_order = KOrder::TapMajor;
    let x = net.input(&[1, 3, size, size]);
    (net, x)
}

fn max_pool(net: &mut Net, x: TensorId, kernel: u32, pad: u32) -> TensorId {
    let pool = Pool {
        kind: PoolKind::Max,
        kernel: [kernel; 2],
        strides: [2; 2],
        pads: Pads::Explicit([pad; 4]),
        dilations: [1; 2],
        ceil_mode: false,
        count_include_pad: false,
    };
    net.node(Op::Pool(pool), &[x])
}

/// ResNet-18 of the contest on 128x128.
#[test]
fn contest() {
    let (mut net, x) = net("contest", 128);
    let x = net.conv(x, 3, 64, 3, 2, 1);
    let (mut x, mut channels) = (net.relu(x), 64);
    for (stage, wide) in [64, 128, 256, 512].into_iter().enumerate() {
        let stride = if stage == 0 { 1 } else { 2 };
        let shortcut = net.conv(x, channels, wide, 1, stride, 1);
        let y = net.conv(x, channels, wide, 3, stride, 1);
        let y = net.relu(y);
        let y = net.conv(y, wide, wide, 3, 1, 1);
        let sum = net.add(shortcut, y);
        x = net.relu(sum);
        let y = net.conv(x, wide, wide, 3, 1, 1);
        let y = net.relu(y);
        let y = net.conv(y, wide, wide, 3, 1, 1);
        let sum = net.add(x, y);
        x = net.relu(sum);
        channels = wide;
    }
    let x = net.flatten(x);
    let x = net.linear(x, 512 * 8 * 8, 16);
    net.output(x);
    expect(net, [1, 3, 128, 128], 1_343_488);
}

#[test]
fn mobilefacenet() {
    let (mut net, x) = net("mobilefacenet", 112);
    let x = net.conv(x, 3, 64, 3, 2, 1);
    let x = net.relu(x);
    let x = net.conv(x, 64, 64, 3, 1, 64);
    let (mut x, mut channels) = (net.relu(x), 64);
    for (t, c, n, s) in [
        (2, 64, 5, 2),
        (4, 128, 1, 2),
        (2, 128, 6, 1),
        (4, 128, 1, 2),
        (2, 128, 2, 1),
    ] {
        for j in 0..n {
            let stride = if j == 0 { s } else { 1 };
            let wide = channels * t;
            let y = net.conv(x, channels, wide, 1, 1, 1);
            let y = net.relu(y);
            let y = net.conv(y, wide, wide, 3, stride, wide);
            let y = net.relu(y);
            let y = net.conv(y, wide, c, 1, 1, 1);
            x = if stride == 1 && c == channels {
                net.add(x, y)
            } else {
                y
            };
            channels = c;
        }
    }
    let x = net.conv(x, 128, 512, 1, 1, 1);
    net.output(x);
    expect(net, [1, 3, 112, 112], 419_072);
}

#[test]
fn resnet50() {
    let (mut net, x) = net("resnet50", 224);
    let x = net.conv(x, 3, 64, 7, 2, 1);
    let x = net.relu(x);
    let (mut x, mut channels) = (max_pool(&mut net, x, 3, 1), 64);
    for (stage, (wide, n)) in [(64, 3), (128, 4), (256, 6), (512, 3)]
        .into_iter()
        .enumerate()
    {
        for j in 0..n {
            let stride = if stage > 0 && j == 0 { 2 } else { 1 };
            let y = net.conv(x, channels, wide, 1, 1, 1);
            let y = net.relu(y);
            let y = net.conv(y, wide, wide, 3, stride, 1);
            let y = net.relu(y);
            let y = net.conv(y, wide, 4 * wide, 1, 1, 1);
            let shortcut = match j {
                0 => net.conv(x, channels, 4 * wide, 1, stride, 1),
                _ => x,
            };
            let sum = net.add(y, shortcut);
            x = net.relu(sum);
            channels = 4 * wide;
        }
    }
    net.output(x);
    expect(net, [1, 3, 224, 224], 2_851_328);
}

#[test]
fn vgg16() {
    let (mut net, mut x) = net("vgg16", 224);
    let mut channels = 3;
    for (wide, n) in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)] {
        for _ in 0..n {
            let y = net.conv(x, channels, wide, 3, 1, 1);
            x = net.relu(y);
            channels = wide;
        }
        x = max_pool(&mut net, x, 2, 0);
    }
    let x = net.flatten(x);
    let x = net.linear(x, 512 * 7 * 7, 16);
    net.output(x);
    expect(net, [1, 3, 224, 224], 3_881_152);
}
