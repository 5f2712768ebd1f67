//! A pipeline never holds more than its budget, counted by the allocator.

use dcz_face::{
    Error, FacePipeline, Image, InputSize, MemoryBudget, Model, Options, Selection, SessionOptions,
};
use dcz_tests::markers::{self, Canvas};
use dcz_tests::{generated, run};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts live bytes of the whole process, and the most of them; this file holds one test only.
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

/// Bytes beside the budget: the fields of both sessions, names, the record, the table of shared weights, small lists of the four plans.
const BESIDE: usize = 32_768;

fn options(budget: MemoryBudget) -> Options {
    Options::default()
        .with_size(InputSize::LongestSide(256))
        .with_session(SessionOptions::default().with_memory_budget(budget))
}

#[test]
fn a_pipeline_holds_no_more_than_its_budget() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| generated::write(folder.path(), name, bytes);
    let detector = write("detector.onnx", &markers::detector());
    let embedder = write("embedder.onnx", &markers::embedder());
    let file = folder.path().join("face.dcz");
    let [detector, embedder, out] = [&detector, &embedder, &file].map(|p| p.to_str().unwrap());
    run(
        "dcz",
        &[
            "bundle",
            "--detector",
            detector,
            "--embedder",
            embedder,
            "-o",
            out,
        ],
    )
    .expect_code(0);
    // Native sizes small to large, then one that is scaled down.
    let canvases: Vec<Canvas> = [[128, 128], [250, 250], [96, 160], [400, 300]]
        .map(|[w, h]| Canvas::new(w, h).face([56, 56], 1, 0, 0))
        .into();
    let images: Vec<Image<'_>> = canvases
        .iter()
        .map(|c| Image::new(c.size[0] as u32, c.size[1] as u32, &c.pixels).unwrap())
        .collect();
    let model = Model::open(&file).unwrap();
    let faces_of = |pipeline: &mut FacePipeline, image: &Image<'_>| {
        let faces = pipeline.embed_selected(image, Selection::Main(1)).unwrap();
        let landmarks = faces.first().map(|f| f.detection.landmarks);
        (landmarks, pipeline.memory())
    };
    // What the most frugal pipeline needs for all of them, and what the fastest takes.
    let total = |budget: MemoryBudget| {
        let mut pipeline = FacePipeline::new(&model, options(budget)).unwrap();
        let twice = images.iter().chain(&images);
        let totals = twice.map(|i| faces_of(&mut pipeline, i).1.total);
        totals.max().unwrap()
    };
    let (least, most) = (total(MemoryBudget::Min), total(MemoryBudget::Max));
    assert!(least < most);
    for step in 0..=3 {
        let budget = least + (most - least) * step / 3;
        let before = LIVE.load(Ordering::SeqCst);
        let mut pipeline = FacePipeline::new(&model, options(MemoryBudget::Bytes(budget))).unwrap();
        for _ in 0..2 {
            for image in &images {
                let (landmarks, memory) = faces_of(&mut pipeline, image);
                let held = LIVE.load(Ordering::SeqCst) - before;
                // One arena is counted: a second one would show in what is held.
                assert!(memory.total <= budget, "{memory:?} of {budget}");
                assert!(
                    held <= memory.total as usize + BESIDE,
                    "holds {held}, {memory:?}"
                );
                // The figure is no generous guess either.
                assert!(
                    memory.total as usize <= held + BESIDE,
                    "holds {held}, {memory:?}"
                );
                assert_eq!(
                    landmarks.is_some(),
                    image.width() <= 256,
                    "scaled ones lose their marker"
                );
            }
        }
        drop(pipeline);
        assert!(
            LIVE.load(Ordering::SeqCst) <= before + 4096,
            "something stays"
        );
    }
    // Too little is an error that says how much is needed, and that much is enough.
    let refused = |budget: u64| {
        let options = options(MemoryBudget::Bytes(budget));
        let mut pipeline = FacePipeline::new(&model, options)?;
        pipeline.prepare(250, 250).map(|()| pipeline.memory().total)
    };
    for budget in [1000, least / 2] {
        let Err(Error::Runtime(error)) = refused(budget) else {
            panic!("{budget} bytes are enough?");
        };
        let dcz::ErrorKind::BudgetTooSmall {
            smallest_feasible, ..
        } = *error.kind()
        else {
            panic!("{error}");
        };
        assert!(smallest_feasible > budget);
        if budget > 1000 {
            assert!(refused(smallest_feasible).unwrap() <= smallest_feasible);
            assert!(refused(smallest_feasible - 1).is_err());
        }
    }
}
