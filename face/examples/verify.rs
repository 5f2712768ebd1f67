//! `verify FACE.dcz A B`: is it the same person? Exit code 0 yes, 1 no, 2 anything else. Decoding is the caller's business: here
//! the crate `image`.

use dcz_face::{FacePipeline, Image, MemoryBudget, Options, SessionOptions, Threads};
use std::process::ExitCode;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn same(model: &str, a: &str, b: &str) -> Result<bool> {
    let session = SessionOptions::default()
        .with_threads(Threads::Own(2))
        .with_memory_budget(MemoryBudget::Bytes(24 << 20)); // all stages together
    let mut faces = FacePipeline::open(model, Options::default().with_session(session))?;
    let [a, b] = [decode(a)?, decode(b)?];
    let verdict = faces.verify(&view(&a)?, &view(&b)?)?;
    println!(
        "{:?} {:.4}, threshold {:?}",
        verdict.metric, verdict.value, verdict.threshold
    );
    verdict
        .same
        .ok_or_else(|| "the file has no threshold: bundle it with one".into())
}

fn decode(path: &str) -> Result<image::RgbImage> {
    let image = image::open(path).map_err(|e| format!("{path}: {e}"))?;
    Ok(image.into_rgb8())
}

fn view(image: &image::RgbImage) -> dcz_face::Result<Image<'_>> {
    Image::new(image.width(), image.height(), image)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let answer = match arguments.as_slice() {
        [model, a, b] => same(model, a, b),
        _ => Err("usage: verify FACE.dcz A B".into()),
    };
    match answer {
        Ok(same) => ExitCode::from(u8::from(!same)),
        Err(error) => {
            eprintln!("verify: {error}"); // one line: who is at fault, and what to do
            ExitCode::from(2)
        }
    }
}
