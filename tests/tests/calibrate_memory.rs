//! Calibration holds no more activations than its budget, however many images there are.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use dcz_compress::accuracy::images::Loader;
use dcz_compress::calibrate::{Images, Options, Target, compress};
use dcz_compress::encode::CompressOptions;
use dcz_compress::import::{ImportOptions, import};
use dcz_compress::onnx;
use dcz_compress::preprocess::Description;
use dcz_tests::generated;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: forwards to the system allocator; the counters need no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most bytes that were allocated at a time beyond those before.
fn peak(folder: &Path, images: u32, budget: usize) -> usize {
    let pictures = folder.join(format!("images{images}"));
    if !pictures.exists() {
        std::fs::create_dir(&pictures).unwrap();
        for number in 0..images {
            let shade = |x: u32| ((x * (5 + number * 37) + number * number) % 256) as u8;
            image::RgbImage::from_fn(32, 32, |x, y| {
                image::Rgb([shade(x), shade(y * 3), shade(x + y)])
            })
            .save(pictures.join(format!("{number:04}.png")))
            .unwrap();
        }
    }
    let model = onnx::load(&folder.join("m.onnx")).unwrap();
    let mut float = import(&model, &ImportOptions::default()).unwrap();
    let coding = CompressOptions {
        description: Description::load(&folder.join("p.toml")).unwrap(),
        ..Default::default()
    };
    coding.description.apply(&mut float.network).unwrap();
    let record = float.network.preprocess.clone().unwrap();
    let loader = Loader {
        record,
        alignment: None,
    };
    let images = Images::open(&pictures, loader, true).unwrap();
    let mut options = Options::default();
    (options.target, options.budget) = (Some(Target::Cosine(0.5)), budget);
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    compress(float, &images, &options, &coding, &mut |_, _, _| {}).unwrap();
    PEAK.load(Ordering::Relaxed) - before
}

#[test]
fn memory_does_not_grow_with_the_images() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // Maps of 64 x 32 x 32: 262 kB per image and side.
    generated::write(folder, "m.onnx", &generated::wide(generated::dense));
    let description =
        b"[image]\nsize = [32, 32]\nscale = 0.0078125\n[output]\nkind = \"embedding\"\n";
    generated::write(folder, "p.toml", description);
    let (few, many) = (peak(folder, 24, 4 << 20), peak(folder, 72, 4 << 20));
    // The last layer has 16,384 inputs, of which every image keeps half words and some squares of the number of images.
    let grown = many.saturating_sub(few);
    assert!(
        grown < 16 << 20,
        "{few} bytes with 24 images, {many} with 72"
    );
    // With room for all maps of 48 more images they are kept: the meter sees that.
    let kept = peak(folder, 72, 1 << 30);
    assert!(
        kept > many + (8 << 20),
        "{many} bytes without room, {kept} with"
    );
}
