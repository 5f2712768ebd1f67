//! What can be wrong with a code table or a tile.

/// A broken rule of the coding. Offsets count bytes from the start of the tile (or of the serialised table).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The tile ends inside a header, a raw mask or a sub-stream.
    #[error("the tile is truncated: {needed} bytes needed at offset {offset}, {available} there")]
    Truncated {
        /// Where the missing part begins.
        offset: usize,
        /// Bytes it should have.
        needed: usize,
        /// Bytes there are.
        available: usize,
    },
    /// Bytes follow the last stream.
    #[error("bytes follow the last stream, from offset {offset}")]
    TrailingBytes {
        /// The first of them.
        offset: usize,
    },
    /// The codes of a sub-stream run past its end.
    #[error("a sub-stream ends at offset {offset}, before its last symbol")]
    SubStreamOverrun {
        /// End of the sub-stream.
        offset: usize,
    },
    /// A sub-stream has bytes after its last symbol.
    #[error("a sub-stream has unused bytes from offset {offset}")]
    SubStreamUnused {
        /// The first unused byte.
        offset: usize,
    },
    /// The bits between the last code and the end of the byte are not zero.
    #[error("padding bits are not zero at offset {offset}")]
    Padding {
        /// The byte that holds them.
        offset: usize,
    },
    /// A bit pattern that is no code (only possible with a table of one symbol).
    #[error("no code of the table matches at offset {offset}")]
    InvalidCode {
        /// The byte that holds the first wrong bit.
        offset: usize,
    },
    /// The stated number of present weights is impossible for this tile and mode.
    #[error("{present} present weights are impossible in a tile of {weights}")]
    PresentCount {
        /// As stated by the tile's record.
        present: usize,
        /// Weights of the tile.
        weights: usize,
    },
    /// The mask has another number of bits set than the tile's record states.
    #[error("the mask at offset {offset} has {counted} bits set, {present} are stated")]
    MaskCount {
        /// Where the mask begins.
        offset: usize,
        /// Bits set.
        counted: usize,
        /// As stated by the tile's record.
        present: usize,
    },
    /// The gaps lead past the end of the tile.
    #[error("the gaps at offset {offset} lead past the end of the tile")]
    GapOverrun {
        /// Where the gap stream begins.
        offset: usize,
    },
    /// The marks of a class's rows go on past the last row.
    #[error("row marks of a class go on past its {rows} rows")]
    RowMarks {
        /// Rows of the class in this tile.
        rows: usize,
    },
    /// Digits past the last value of a class are not zero.
    #[error("symbol {symbol} has digits past the last value")]
    GroupRest {
        /// The symbol.
        symbol: u8,
    },
    /// The gap width is not 2 to 8 bits.
    #[error("{bits} is no gap width (2 to 8 bits)")]
    GapBits {
        /// As stated.
        bits: u8,
    },
    /// The gap table has a symbol that does not fit the gap width.
    #[error("gap symbol {symbol} does not fit {bits} bits")]
    GapSymbol {
        /// The largest symbol of the table.
        symbol: u8,
        /// The stated width.
        bits: u8,
    },
    /// A serialised table ends early.
    #[error("the code table is truncated at offset {offset}")]
    TableTruncated {
        /// Where the missing byte should be.
        offset: usize,
    },
    /// A serialised table has an unknown form byte.
    #[error("{form} is no form of code table")]
    TableForm {
        /// The form byte.
        form: u8,
    },
    /// A code length outside 0..=12.
    #[error("symbol {symbol} has an impossible code length")]
    TableLength {
        /// The symbol.
        symbol: u8,
    },
    /// Padding bits of a serialised table are not zero.
    #[error("padding of the code table is not zero at offset {offset}")]
    TablePadding {
        /// The byte that holds them.
        offset: usize,
    },
    /// The lengths are neither a complete prefix code nor one symbol of length 1.
    #[error("the code lengths are no complete prefix code")]
    TableIncomplete,
    /// The table width is not 11 or 12, or a code is longer than it.
    #[error("table width {width} is not 11 or 12 or too small for a code of {longest} bits")]
    TableWidth {
        /// As stated.
        width: u8,
        /// The longest code.
        longest: u8,
    },
    /// A decode table was built beyond the width it was allocated for. The caller's fault.
    #[error("a table of width {width} does not fit one allocated for {capacity}")]
    TableCapacity {
        /// As asked.
        width: u8,
        /// As allocated.
        capacity: u8,
    },
    /// A decode table was used before it was built. The caller's fault.
    #[error("a decode table was used before it was built")]
    TableNotBuilt,
    /// The tile has more than 65536 weights.
    #[error("a tile of {panels} panels x {k_len} k is too large")]
    TileSize {
        /// Panels.
        panels: usize,
        /// k per panel.
        k_len: usize,
    },
    /// A buffer has another length than the tile's. The caller's fault.
    #[error("a buffer has {len} elements, the tile needs {needed}")]
    BufferLength {
        /// As given.
        len: usize,
        /// As needed.
        needed: usize,
    },
    /// The scratch was allocated for fewer gap entries. The caller's fault.
    #[error("the scratch holds {capacity} gap entries, the tile has {needed}")]
    ScratchCapacity {
        /// As allocated.
        capacity: usize,
        /// As needed.
        needed: usize,
    },
    /// Encoding: a symbol that occurs has no code. The caller's fault.
    #[error("symbol {symbol} occurs and has no code")]
    MissingCode {
        /// The symbol.
        symbol: u8,
    },
}

impl CodecError {
    /// Byte offset inside the tile (or the serialised table) that the error points at, if it has one.
    pub fn offset(&self) -> Option<usize> {
        match *self {
            CodecError::Truncated { offset, .. }
            | CodecError::TrailingBytes { offset }
            | CodecError::SubStreamOverrun { offset }
            | CodecError::SubStreamUnused { offset }
            | CodecError::Padding { offset }
            | CodecError::InvalidCode { offset }
            | CodecError::MaskCount { offset, .. }
            | CodecError::GapOverrun { offset }
            | CodecError::TableTruncated { offset }
            | CodecError::TablePadding { offset } => Some(offset),
            _ => None,
        }
    }

    /// `true` when the caller misused the codec; `false` when the data are malformed.
    pub fn is_misuse(&self) -> bool {
        matches!(
            self,
            CodecError::TableCapacity { .. }
                | CodecError::TableNotBuilt
                | CodecError::BufferLength { .. }
                | CodecError::ScratchCapacity { .. }
                | CodecError::MissingCode { .. }
        )
    }
}
