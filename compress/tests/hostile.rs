//! Damaged models: an import ends with a result or an error, never with a panic or a flood of memory.

use dcz_compress::import::{ImportOptions, import};
use dcz_compress::onnx;
use std::path::Path;

#[test]
fn damaged_models_do_not_panic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/ops");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path().join("model.onnx"))
        .filter(|p| p.exists())
        .collect();
    files.sort();
    assert!(files.len() > 250);
    let mut state = 2019u64;
    let mut random = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut accepted = 0;
    for file in &files {
        let whole = std::fs::read(file).unwrap();
        for round in 0..60 {
            let mut bytes = whole.clone();
            // One to three changed bytes; small values, so that lengths, axes and types stay plausible.
            for _ in 0..=round % 3 {
                let at = random(bytes.len());
                bytes[at] = match random(3) {
                    0 => random(256) as u8,
                    1 => bytes[at].wrapping_add(1),
                    _ => random(8) as u8,
                };
            }
            if round % 10 == 9 {
                bytes.truncate(random(bytes.len()));
            }
            let outcome = std::panic::catch_unwind(|| {
                let Ok(model) = onnx::parse(bytes.clone().into()) else {
                    return false;
                };
                import(&model, &ImportOptions::default()).is_ok()
            });
            let Ok(imported) = outcome else {
                panic!("{} panics in round {round}", file.display())
            };
            accepted += usize::from(imported);
        }
    }
    assert!(accepted > 0);
}
