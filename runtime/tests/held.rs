//! A session never holds more than its plan says, counted by the allocator.

mod common;
use common::*;
use dcz::{MemoryBudget, Session, SessionOptions, TensorRef, Threads};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts live bytes of the whole process; this file holds one test only.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that every session needs beside its plan: its own fields, the names of the options, the model's table of
/// shared weights, and on threads their handles and names.
const BESIDE: usize = 4096;
const BESIDE_THREAD: usize = 1024;

#[test]
fn a_session_holds_no_more_than_its_plan_says() {
    for coding in [Coding::Raw32, Coding::GridChannel, Coding::Codebook] {
        let mut net = Net::new("held");
        net.coding = coding;
        let x = net.batch_input(&[32, 24, 24]);
        let a = net.conv(x, 32, 64, 3, 1, 1);
        let b = net.conv(a, 64, 64, 3, 1, 1);
        let c = net.conv(b, 64, 96, 3, 2, 1);
        let d = net.flatten(c);
        let y = net.linear(d, 96 * 144, 40);
        net.output(y);
        let model = net.model();
        let shape: (&str, &[usize]) = ("in0", &[1, 32, 24, 24]);
        let sizes = |budget| {
            let options = SessionOptions::default().with_memory_budget(budget);
            let mut session = Session::new(&model, options).unwrap();
            session.prepare(&[shape]).unwrap().memory.total
        };
        let (least, most) = (sizes(MemoryBudget::Min), sizes(MemoryBudget::Max));
        for threads in [1, 2] {
            for step in 0..=4 {
                let budget = least + (most - least) * step / 4;
                let options = SessionOptions::default()
                    .with_threads(Threads::Own(threads))
                    .with_memory_budget(MemoryBudget::Bytes(budget));
                let before = LIVE.load(Ordering::SeqCst);
                let mut session = Session::new(&model, options).unwrap();
                let planned = session.prepare(&[shape]).unwrap().memory.total as usize;
                let held = LIVE.load(Ordering::SeqCst) - before;
                let beside = BESIDE + (threads - 1) * BESIDE_THREAD;
                assert!(planned as u64 <= budget);
                assert!(
                    held <= planned + beside,
                    "{coding:?}, {threads} thread(s): holds {held}, planned {planned}"
                );
                // The figure is not a generous guess either.
                assert!(planned <= held + 16_384, "holds {held}, planned {planned}");
                let data = vec![0.5; 32 * 576];
                let input = TensorRef {
                    dims: shape.1,
                    data: &data,
                };
                session.run(&[("in0", input)], &mut []).unwrap();
                assert_eq!(LIVE.load(Ordering::SeqCst) - before - 4 * data.len(), held);
            }
        }
    }
}
