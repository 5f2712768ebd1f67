//! Measurements of dcz: the `bench` command, one module per subject.
//!
//! * [`child`]: every figure of a network comes from a fresh process that measures itself.
//! * [`latency`], [`memory`], [`peers`]: whole networks; [`conv`]: the table of convolution algorithms; [`fit`]: the planner's prices from it; [`decode`], [`decode_file`]: the
//!   weight decoder.
//! * [`cases`]: what is measured, as TOML; [`record`]: dated results per machine; [`plot`]: SVG.
//!
//! What is counted as memory, and why a process measures itself, is in `docs/memory-model.md`.

pub mod budget;
pub mod cases;
pub mod child;
pub mod conv;
pub mod decode;
pub mod decode_file;
pub mod fit;
pub mod latency;
pub mod memory;
pub mod peers;
pub mod pick;
pub mod plot;
pub mod record;
pub mod stats;

/// Errors of measurements: a message for a person.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Megabytes (10^6 bytes) with two decimals, or a question mark where the system has no such counter.
pub(crate) fn megabytes(bytes: Option<u64>) -> String {
    bytes.map_or("?".to_string(), |b| format!("{:.2}", b as f64 / 1e6))
}

/// Mebibytes (2^20 bytes) with two decimals.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / f64::from(1 << 20))
}
