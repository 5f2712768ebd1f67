//! A measured process must not inherit the size of the harness that starts it.
#![cfg(target_os = "linux")]

use dcz_benches::child::{self, Job};
use std::path::Path;

const HARNESS: usize = 256 << 20;

#[test]
fn a_trivial_program_started_from_a_large_harness_is_small() {
    // Touch every page, and keep them until the child is done.
    let mut ballast = vec![0u8; HARNESS];
    for page in ballast.chunks_mut(4096) {
        page[0] = 1;
    }
    let own = dcz::process_memory();
    assert!(own.resident.unwrap() > HARNESS as u64);

    let program = Path::new(env!("CARGO_BIN_EXE_bench"));
    let process = child::start(program, &Job::Nothing).unwrap().process;
    assert!(ballast.iter().step_by(4096).all(|&byte| byte == 1));
    let peak = process.peak.unwrap();
    assert!(peak < 4_000_000, "peak {peak}");
    assert!(process.anonymous.unwrap() < 1_000_000, "{process:?}");
    assert!(process.anonymous.unwrap() + process.file.unwrap() <= peak + 4096);
}

#[test]
fn a_job_that_cannot_be_done_is_an_error_with_its_reason() {
    let program = Path::new(env!("CARGO_BIN_EXE_bench"));
    let run = child::Run::new(
        Path::new("no/such.dcz"),
        1,
        dcz_benches::budget::Budget::Max,
        1,
    );
    let error = child::start(program, &Job::Run(run))
        .unwrap_err()
        .to_string();
    assert!(error.contains("no/such.dcz"), "{error}");
}
