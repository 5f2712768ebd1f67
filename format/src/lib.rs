//! The `.dcz` container: sections, graph records, coded weight tiles. Specification: `docs/format.md`.
//!
//! Reading: [`Container::open`] verifies header, directory and records of a [`source::Source`] and touches no weights;
//! a [`TileDecoder`] then verifies and decodes tiles as they are needed. Writing: [`writer::encode`].
//! Everything read from a file is untrusted: see [`Limits`] and [`ErrorKind`].

mod blocks;
mod check;
pub mod codec;
mod container;
mod decode;
mod dense;
mod directory;
pub mod error;
pub mod graph;
pub mod layer;
pub mod limits;
pub mod pipeline;
mod record;
pub mod selftest;
pub mod source;
mod source_mmap;
pub mod validate;
mod values;
pub mod writer;

pub use blocks::Occupancy;
pub use check::CheckReport;
pub use container::{CodeTable, Container, NamedText};
pub use decode::{TileDecoder, TileOut};
pub use directory::{MAGIC, SECTION_ALIGN, Section, SectionKind, VERSION};
pub use error::{Error, ErrorKind, Fault};
pub use limits::Limits;
pub use pipeline::Pipeline;
pub use source::{MappedFile, MemoryBytes, PositionedFile, Source};
pub use values::TileForm;
