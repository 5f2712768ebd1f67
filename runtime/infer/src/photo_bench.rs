//! `--bench` with a photo: how long detection and the embedding of the main face take, image already decoded.

use crate::report::{self, Console};
use dcz_face::{FacePipeline, Image, Result, Selection};
use serde_json::json;
use std::time::Instant;

/// Runs before the timed ones.
const WARM_UP: u32 = 3;

/// Median and least of some times.
struct Times(Vec<f64>);

impl Times {
    fn summary(mut self) -> [f64; 2] {
        self.0.sort_by(f64::total_cmp);
        let at = |index: usize| self.0.get(index).copied().unwrap_or(0.0);
        [at(self.0.len() / 2), at(0)]
    }
}

/// Times `runs` runs after a few more, then measures the steps of up to twenty, if asked to.
pub fn run(
    pipeline: &mut FacePipeline,
    image: &Image<'_>,
    runs: u32,
    profile: bool,
    console: &Console,
) -> Result<u8> {
    let begin = Instant::now();
    pipeline.prepare(image.width(), image.height())?;
    let prepare_ms = milliseconds(begin);
    let (mut detect, mut embed, mut total) = (Vec::new(), Vec::new(), Vec::new());
    let mut faces = 0;
    for run in 0..WARM_UP + runs {
        let begin = Instant::now();
        let (found, detected) = once(pipeline, image, begin)?;
        let all = milliseconds(begin);
        faces = found;
        if run >= WARM_UP {
            detect.push(detected);
            embed.push(all - detected);
            total.push(all);
        }
    }
    if profile {
        pipeline.set_profiling(true);
        for _ in 0..runs.min(20) {
            once(pipeline, image, Instant::now())?;
        }
        report::profiles(console, pipeline);
    }
    let [detect, embed, total] = [detect, embed, total].map(|list| Times(list).summary());
    let memory = pipeline.memory();
    for (name, [median, least]) in [("detect", detect), ("embed", embed), ("total", total)] {
        console.line(&format!(
            "{name}: median {median:.3} ms, min {least:.3} ms of {runs} runs"
        ));
    }
    console.line(&format!(
        "prepare {prepare_ms:.3} ms, {faces} face(s), holds {} B",
        memory.total
    ));
    console.result(&json!({
        "runs": runs,
        "faces": faces,
        "prepare_ms": prepare_ms,
        "detect_ms": detect[0],
        "detect_min_ms": detect[1],
        "embed_ms": embed[0],
        "embed_min_ms": embed[1],
        "total_ms": total[0],
        "total_min_ms": total[1],
        "memory_bytes": memory.total,
        "arena_bytes": memory.arena,
        "detector_bytes": memory.detector,
        "embedder_bytes": memory.embedder,
        "buffer_bytes": memory.buffers,
        "peak_rss_bytes": dcz::process_memory().peak,
    }));
    Ok(0)
}

/// Finds the faces and embeds the main one: how many there are, and when they were found.
fn once(pipeline: &mut FacePipeline, image: &Image<'_>, begin: Instant) -> Result<(usize, f64)> {
    let mut found = pipeline.detect(image)?;
    let detected = milliseconds(begin);
    let faces = found.len();
    Selection::Main(1).apply(image.size(), &mut found);
    if let Some(face) = found.first() {
        pipeline.embed_landmarks(image, &face.landmarks)?;
    }
    Ok((faces, detected))
}

fn milliseconds(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e3
}
