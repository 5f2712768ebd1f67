//! Coding of weight tiles: canonical Huffman codes, code tables, the index modes. Specification:
//! `docs/format-coding.md`.
//!
//! Symbols are bytes: a grid code q is `q as u8`. A tile is `panels * k_len * 8` codes in `[panel][k][8]` order with one
//! mask byte per panel and k, bit i for lane i. The codec knows nothing of files, layers or values.
//!
//! [`decode_tile`] is written for speed and for hostile input: it allocates nothing, its work is bounded by the size of the
//! tile, it never panics, and every stream must end exactly with its last code and zero padding. `unsafe` is confined to
//! the dispatch in `expand_bmi2.rs`. An independent slow decoder in the order of the specification is the test oracle
//! (`tests/slow/codec.rs`); `bench decode` measures.

pub(crate) mod classes;
pub(crate) mod classes_encode;
mod decode;
mod encode;
mod error;
mod expand;
#[cfg(target_arch = "x86_64")]
mod expand_bmi2;
mod gaps;
pub(crate) mod groups;
mod histogram;
mod lengths;
mod package_merge;
mod streams;
mod table;

pub use decode::{CodecScratch, TileCoding, decode_tile};
pub use encode::{TileEncoding, TileStats, encode_tile};
pub use error::CodecError;
pub use gaps::GAP_BITS;
pub use histogram::{
    Histogram, LayerHistogram, ModeCost, gap_histogram, symbol_histogram, value_histogram,
};
pub use lengths::CodeLengths;
pub use table::{BuildSpace, DecodeTable, TABLE_WIDTHS};

/// Weights of a tile, checked against the largest tile.
fn tile_weights(panels: usize, k_len: usize) -> Result<usize, CodecError> {
    panels
        .checked_mul(k_len)
        .and_then(|groups| groups.checked_mul(crate::layer::PANEL))
        .filter(|weights| *weights <= crate::layer::MAX_TILE_WEIGHTS)
        .ok_or(CodecError::TileSize { panels, k_len })
}
