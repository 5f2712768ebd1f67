//! The byte form of the records of `graph.rs` and `layer.rs`: positional fields, variable-length integers, tagged
//! choices. Reading and writing of a record stand next to each other; the tables are in `docs/format.md`.
//!
//! Reading checks form (lengths, tags, integer ranges, limits); [`crate::validate`] checks meaning.

mod bytes;
pub(crate) mod class_map;
mod layer;
mod network;
mod op;

pub(crate) use bytes::{Reader, Writer};
pub(crate) use layer::{ALIGN, block_steps};
pub(crate) use network::{read_network, self_test_bytes, write_network};
