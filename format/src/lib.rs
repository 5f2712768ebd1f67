//! The `.dcz` container. Specification: `docs/format.md`.
pub mod codec;
pub mod graph;
pub mod layer;
/// Self-test input generator.
pub mod selftest {}
