//! A coded tile to codes and mask.

use super::classes::ClassScratch;
use super::expand;
#[cfg(target_arch = "x86_64")]
use super::expand_bmi2::Bmi2;
use super::streams::{self, Bounds, Cursor, SUB_STREAMS};
use super::{CodecError, DecodeTable, gaps, tile_weights};

/// How a tile is coded, with the tables to decode it.
#[derive(Clone, Copy, Debug)]
pub enum TileCoding<'a> {
    /// Every weight is a symbol.
    Dense {
        /// Table of the values.
        values: &'a DecodeTable,
    },
    /// A mask byte per panel and k, and the present values.
    Mask {
        /// Table of the mask bytes; none: they are stored raw.
        mask: Option<&'a DecodeTable>,
        /// Table of the values.
        values: &'a DecodeTable,
    },
    /// Pairs of a gap and a value.
    Gaps {
        /// Width of a gap, 2 to 8.
        bits: u8,
        /// Table of the gaps.
        gaps: &'a DecodeTable,
        /// Table of the values.
        values: &'a DecodeTable,
    },
}

/// Which compilation of the inner loops runs; the bytes are the same.
#[derive(Clone, Copy, Debug)]
pub(super) enum Engine {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Bmi2(Bmi2),
}

impl Engine {
    fn detect() -> Engine {
        #[cfg(target_arch = "x86_64")]
        if let Some(proof) = Bmi2::detect() {
            return Engine::Bmi2(proof);
        }
        Engine::Portable
    }
    /// A whole symbol stream.
    fn decode(
        self,
        table: &DecodeTable,
        bytes: &[u8],
        bounds: &Bounds,
        out: &mut [u8],
    ) -> Result<(), CodecError> {
        if let Some(symbol) = table.single() {
            return streams::decode_single(symbol, bytes, bounds, out);
        }
        let mut cursor = streams::starts(bounds);
        self.go_on(table, bytes, &mut cursor, out)?;
        streams::check_ends(bytes, bounds, &cursor)
    }
    /// Some symbols of sub-streams that other symbols may follow; for tables of more than one symbol.
    fn go_on(
        self,
        table: &DecodeTable,
        bytes: &[u8],
        cursor: &mut Cursor,
        out: &mut [u8],
    ) -> Result<(), CodecError> {
        match self {
            Engine::Portable => streams::decode::<false>(table, bytes, cursor, out),
            #[cfg(target_arch = "x86_64")]
            Engine::Bmi2(proof) => proof.decode(table, bytes, cursor, out),
        }
    }
    /// Some symbols of sub-streams that other symbols may follow.
    pub(super) fn decode_part(
        self,
        table: &DecodeTable,
        bytes: &[u8],
        cursor: &mut Cursor,
        out: &mut [u8],
    ) -> Result<(), CodecError> {
        match table.single() {
            Some(symbol) => streams::skip_single(symbol, bytes, cursor, out),
            None => self.go_on(table, bytes, cursor, out),
        }
    }
    pub(super) fn expand(self, codes: &mut [u8], mask: &[u8], present: usize, fill: u8) {
        match self {
            Engine::Portable => expand::expand_portable(codes, mask, present, fill),
            #[cfg(target_arch = "x86_64")]
            Engine::Bmi2(proof) => proof.expand(codes, mask, present, fill),
        }
    }
    pub(super) fn count_bits(self, mask: &[u8]) -> usize {
        match self {
            Engine::Portable => expand::count_bits(mask),
            #[cfg(target_arch = "x86_64")]
            Engine::Bmi2(proof) => proof.count_bits(mask),
        }
    }
}

/// Buffers of the decoder, allocated once, and the choice of instructions.
///
/// `dense` and `mask` decode within the caller's buffers; only `gaps` needs room, two bytes per pair.
#[derive(Clone, Debug)]
pub struct CodecScratch {
    gaps: Box<[u8]>,
    values: Box<[u8]>,
    pub(super) classes: ClassScratch,
    pub(super) engine: Engine,
}

impl CodecScratch {
    /// Room for `gaps` tiles with up to `pairs` present weights (fillers included); 0 when there are none.
    pub fn new(pairs: usize) -> Self {
        let buffer = || vec![0; pairs].into_boxed_slice();
        CodecScratch {
            gaps: buffer(),
            values: buffer(),
            classes: ClassScratch::default(),
            engine: Engine::detect(),
        }
    }
    /// The same with the portable loops, whatever the CPU has.
    pub fn portable(pairs: usize) -> Self {
        CodecScratch {
            engine: Engine::Portable,
            ..CodecScratch::new(pairs)
        }
    }
    /// The same with room for tiles in classes.
    pub(crate) fn with_classes(self, classes: ClassScratch) -> Self {
        CodecScratch { classes, ..self }
    }
    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        self.gaps.len() + self.values.len() + self.classes.bytes()
    }
}

/// Decodes one tile.
///
/// `codes` has `panels * k_len * 8` elements in `[panel][k][8]` order; `mask` one per panel and k, bit i for lane i.
/// `present` is the number of value symbols (fillers included for `gaps`; all weights for `dense`). `fill` is the code
/// written for absent weights; in `gaps` it is also the value of a filler. The mask is all ones for `dense`; for `gaps` it
/// marks the weights whose code is not `fill`.
///
/// Every stream is consumed to its last bit. Nothing is allocated. On error the buffers hold no meaningful data.
#[expect(
    clippy::too_many_arguments,
    reason = "one call, three buffers of the caller"
)]
pub fn decode_tile(
    coding: &TileCoding<'_>,
    panels: usize,
    k_len: usize,
    present: u32,
    fill: u8,
    bytes: &[u8],
    codes: &mut [u8],
    mask: &mut [u8],
    scratch: &mut CodecScratch,
) -> Result<(), CodecError> {
    let weights = tile_weights(panels, k_len)?;
    for (len, needed) in [(codes.len(), weights), (mask.len(), weights / 8)] {
        if len != needed {
            return Err(CodecError::BufferLength { len, needed });
        }
    }
    let present = present as usize;
    if present > weights || (present < weights && matches!(coding, TileCoding::Dense { .. })) {
        return Err(CodecError::PresentCount { present, weights });
    }
    let engine = scratch.engine;
    let mut reader = Reader { bytes, at: 0 };
    match *coding {
        TileCoding::Dense { values } => {
            let bounds = reader.symbol_stream()?;
            reader.finish()?;
            engine.decode(values, bytes, &bounds, codes)?;
            mask.fill(0xff);
        }
        TileCoding::Mask {
            mask: table,
            values,
        } => {
            let start = reader.at;
            match table {
                Some(table) => {
                    let bounds = reader.symbol_stream()?;
                    engine.decode(table, bytes, &bounds, mask)?;
                }
                None => mask.copy_from_slice(reader.take(mask.len())?),
            }
            let counted = engine.count_bits(mask);
            if counted != present {
                return Err(CodecError::MaskCount {
                    offset: start,
                    counted,
                    present,
                });
            }
            let bounds = reader.symbol_stream()?;
            reader.finish()?;
            let packed = codes.len() - present;
            engine.decode(values, bytes, &bounds, &mut codes[packed..])?;
            engine.expand(codes, mask, present, fill);
        }
        TileCoding::Gaps {
            bits,
            gaps: table,
            values,
        } => {
            gaps::check_bits(bits)?;
            let symbol = table.largest_symbol();
            if u16::from(symbol) >> bits != 0 {
                return Err(CodecError::GapSymbol { symbol, bits });
            }
            let capacity = scratch.gaps.len();
            let (Some(gap_buffer), Some(value_buffer)) = (
                scratch.gaps.get_mut(..present),
                scratch.values.get_mut(..present),
            ) else {
                return Err(CodecError::ScratchCapacity {
                    capacity,
                    needed: present,
                });
            };
            let start = reader.at;
            let bounds = reader.symbol_stream()?;
            engine.decode(table, bytes, &bounds, gap_buffer)?;
            let bounds = reader.symbol_stream()?;
            reader.finish()?;
            engine.decode(values, bytes, &bounds, value_buffer)?;
            gaps::scatter(gap_buffer, value_buffer, fill, codes, mask)
                .ok_or(CodecError::GapOverrun { offset: start })?;
        }
    }
    Ok(())
}

/// Position in a tile.
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, needed: usize) -> Result<&'a [u8], CodecError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..needed).ok_or(CodecError::Truncated {
            offset: self.at,
            needed,
            available: rest.len(),
        })?;
        self.at += needed;
        Ok(taken)
    }
    /// The bounds of a symbol stream: four u16 lengths, then the sub-streams.
    pub(super) fn symbol_stream(&mut self) -> Result<Bounds, CodecError> {
        let (lengths, _) = self.take(2 * SUB_STREAMS)?.as_chunks::<2>();
        let mut bounds = [self.at; SUB_STREAMS + 1];
        for (i, length) in lengths.iter().enumerate() {
            self.take(usize::from(u16::from_le_bytes(*length)))?;
            bounds[i + 1] = self.at;
        }
        Ok(bounds)
    }
    fn finish(&self) -> Result<(), CodecError> {
        if self.at < self.bytes.len() {
            Err(CodecError::TrailingBytes { offset: self.at })
        } else {
            Ok(())
        }
    }
}
