//! `run` allocates nothing, inline and on two threads of the session's own.

mod common;
use common::*;
use dcz::graph::*;
use dcz::{TensorRef, Threads};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts allocations of the whole process; this file holds one test only.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn run_allocates_nothing() {
    let mut net = Net::new("all");
    net.tile_weights = 300;
    let x = net.batch_input(&[3, 12, 12]);
    let mut y = x;
    let mut channels = 3;
    let codings = [
        Coding::Raw32,
        Coding::Raw16,
        Coding::GridLayer,
        Coding::GridChannel,
        Coding::GridBlock,
        Coding::Codebook,
        Coding::Minmax,
        Coding::Sparse,
    ];
    for coding in codings {
        net.coding = coding;
        let a = net.conv(y, channels, 8, 3, 1, 1);
        let b = net.conv(a, 8, 8, 3, 1, 8);
        let c = net.node(Op::Activation(Activation::HardSwish), &[b]);
        y = net.add(c, a);
        channels = 8;
    }
    let pool = Pool {
        kind: PoolKind::Max,
        kernel: [2, 2],
        strides: [2, 2],
        dilations: [1, 1],
        pads: Pads::Explicit([0; 4]),
        ceil_mode: false,
        count_include_pad: false,
    };
    let y = net.node(Op::Pool(pool), &[y]);
    let resize = Resize {
        mode: ResizeMode::Linear,
        coordinates: ResizeCoordinates::HalfPixel,
        size: ResizeSize::Scales([2.0, 2.0]),
    };
    let z = net.node(Op::Resize(resize), &[y]);
    let z = net.node(Op::Concat { axis: 1 }, &[z, x]);
    let z = net.node(
        Op::Softmax {
            axis: 1,
            axis_end: 2,
        },
        &[z],
    );
    net.output(z);
    let y = net.flatten(y);
    let y = net.linear(y, 8 * 36, 20);
    let y = net.node(
        Op::LpNormalize {
            axis: 1,
            p: 2,
            epsilon: 0.0,
        },
        &[y],
    );
    net.output(y);
    let model = net.model();
    let (names, network) = (|id: TensorId| id.0 as usize, &model.networks()[0]);
    let name = |index: usize| {
        network.tensors[names(network.outputs[index].tensor)]
            .name
            .as_str()
    };
    for threads in [Threads::Inline, Threads::Own(2)] {
        for batch in [1, 3] {
            let mut session = session(&model, threads.clone());
            let dims = [batch, 3, 12, 12];
            session.prepare(&[("in0", &dims)]).unwrap();
            let data = vec![0.25; batch * 432];
            let (mut a, mut b) = (vec![0.0; batch * 11 * 144], vec![0.0; batch * 20]);
            for profiling in [false, true] {
                session.set_profiling(profiling);
                let before = COUNT.load(Ordering::SeqCst);
                for _ in 0..3 {
                    let input = TensorRef {
                        dims: &dims,
                        data: &data,
                    };
                    let outputs = &mut [(name(0), a.as_mut_slice()), (name(1), b.as_mut_slice())];
                    session.run(&[("in0", input)], outputs).unwrap();
                }
                let count = COUNT.load(Ordering::SeqCst) - before;
                assert_eq!(
                    count, 0,
                    "{threads:?}, batch {batch}, profiling {profiling}"
                );
            }
            assert!(a.iter().chain(&b).all(|v| v.is_finite()));
        }
    }
}
