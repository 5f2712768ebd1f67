//! Limits that the caller sets on what a file may ask for, and the one place where dimensions are multiplied.
//!
//! Every count of a file is compared with its limit, and with what the rest of the section could hold at most, before
//! anything is allocated for it.

use crate::error::{Error, ErrorKind, Result};

/// Most a file may ask for. The defaults suit any network that runs on a phone or a laptop.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of the file.
    pub max_file: u64,
    /// Sections.
    pub max_sections: usize,
    /// Bytes of the records of one network (they are held in memory).
    pub max_records: u64,
    /// Networks.
    pub max_networks: usize,
    /// Symbolic dimensions of a network.
    pub max_symbols: usize,
    /// Tensors of a network.
    pub max_tensors: usize,
    /// Nodes of a network.
    pub max_nodes: usize,
    /// Layers of a network.
    pub max_layers: usize,
    /// Tiles of a network.
    pub max_tiles: usize,
    /// Weights of one layer, padding lanes included.
    pub max_weights: u64,
    /// Constants of a network.
    pub max_constants: usize,
    /// Values of one constant.
    pub max_constant_values: u64,
    /// Code tables of the file.
    pub max_tables: usize,
    /// Bytes of one text.
    pub max_text: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_file: 1 << 34,
            max_sections: 1024,
            max_records: 1 << 28,
            max_networks: 64,
            max_symbols: 64,
            max_tensors: 1 << 16,
            max_nodes: 1 << 16,
            max_layers: 1 << 14,
            max_tiles: 1 << 20,
            max_weights: 1 << 31,
            max_constants: 1 << 16,
            max_constant_values: 1 << 26,
            max_tables: 1 << 12,
            max_text: 1 << 20,
        }
    }
}

impl Limits {
    /// `Ok` when `value <= limit`.
    pub(crate) fn check(what: &str, value: u64, limit: u64) -> Result<()> {
        if value <= limit {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::LimitExceeded,
            format!("{what}: {value}, at most {limit} allowed"),
        ))
    }
}

/// Product of dimensions; `None` when it does not fit.
pub fn product(dims: impl IntoIterator<Item = u64>) -> Option<u64> {
    dims.into_iter().try_fold(1u64, u64::checked_mul)
}
