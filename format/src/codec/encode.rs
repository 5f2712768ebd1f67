//! Codes and mask to a coded tile.

use super::streams::{SUB_STREAMS, quarter};
use super::{CodeLengths, CodecError, gaps, tile_weights};

/// How to code a tile, with the codes to use.
#[derive(Clone, Copy, Debug)]
pub enum TileEncoding<'a> {
    /// Every weight is a symbol.
    Dense {
        /// Code of the values.
        values: &'a CodeLengths,
    },
    /// A mask byte per panel and k, and the present values.
    Mask {
        /// Code of the mask bytes; none: they are stored raw.
        mask: Option<&'a CodeLengths>,
        /// Code of the values.
        values: &'a CodeLengths,
    },
    /// Pairs of a gap and a value.
    Gaps {
        /// Width of a gap, 2 to 8.
        bits: u8,
        /// Code of the gaps.
        gaps: &'a CodeLengths,
        /// Code of the values; a filler's value needs one when there are fillers.
        values: &'a CodeLengths,
    },
}

/// What a coded tile consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TileStats {
    /// Value symbols, fillers included: what [`super::decode_tile`] wants as `present`.
    pub present: u32,
    /// Filler zeros among them (`gaps` only).
    pub fillers: u32,
    /// Bits of the index codes (of the raw mask), without padding and stream lengths.
    pub index_bits: u64,
    /// Bits of the value codes, without padding and stream lengths.
    pub value_bits: u64,
    /// Bytes appended.
    pub bytes: u32,
}

/// Appends one coded tile to `out`.
///
/// `codes` has `panels * k_len * 8` elements in `[panel][k][8]` order, `mask` one per panel and k (bit i: lane i present);
/// codes of absent weights are not looked at, except by `dense`, which ignores the mask. `filler` is the value symbol of a
/// filler zero in `gaps`, the same that the decoder gets as `fill`. On error `out` is as it was.
pub fn encode_tile(
    encoding: &TileEncoding<'_>,
    panels: usize,
    k_len: usize,
    codes: &[u8],
    mask: &[u8],
    filler: u8,
    out: &mut Vec<u8>,
) -> Result<TileStats, CodecError> {
    let weights = tile_weights(panels, k_len)?;
    for (len, needed) in [(codes.len(), weights), (mask.len(), weights / 8)] {
        if len != needed {
            return Err(CodecError::BufferLength { len, needed });
        }
    }
    let start = out.len();
    let stats = append(encoding, codes, mask, filler, out);
    if stats.is_err() {
        out.truncate(start);
    }
    stats.map(|stats| TileStats {
        bytes: (out.len() - start) as u32,
        ..stats
    })
}

fn append(
    encoding: &TileEncoding<'_>,
    codes: &[u8],
    mask: &[u8],
    filler: u8,
    out: &mut Vec<u8>,
) -> Result<TileStats, CodecError> {
    let mut stats = TileStats::default();
    let present = match *encoding {
        TileEncoding::Dense { values } => {
            stats.value_bits = symbol_stream(values, codes, out)?;
            codes.len()
        }
        TileEncoding::Mask { mask: code, values } => {
            match code {
                Some(code) => stats.index_bits = symbol_stream(code, mask, out)?,
                None => {
                    out.extend_from_slice(mask);
                    stats.index_bits = 8 * mask.len() as u64;
                }
            }
            let mut present = Vec::with_capacity(codes.len());
            gaps::for_each_run(mask, |_, position| present.push(codes[position]));
            stats.value_bits = symbol_stream(values, &present, out)?;
            present.len()
        }
        TileEncoding::Gaps {
            bits,
            gaps: code,
            values,
        } => {
            gaps::check_bits(bits)?;
            let (mut gap_symbols, mut value_symbols) = (Vec::new(), Vec::new());
            gaps::for_each_pair(mask, bits, |gap, position| {
                gap_symbols.push(gap);
                value_symbols.push(position.map_or(filler, |position| codes[position]));
                stats.fillers += u32::from(position.is_none());
            });
            stats.index_bits = symbol_stream(code, &gap_symbols, out)?;
            stats.value_bits = symbol_stream(values, &value_symbols, out)?;
            value_symbols.len()
        }
    };
    stats.present = present as u32;
    Ok(stats)
}

/// Four lengths, then the four sub-streams. Gives the bits of the codes.
fn symbol_stream(code: &CodeLengths, symbols: &[u8], out: &mut Vec<u8>) -> Result<u64, CodecError> {
    let lengths_at = out.len();
    out.extend([0; 2 * SUB_STREAMS]);
    let writer = SymbolWriter::new(code);
    let mut bits = 0;
    for i in 0..SUB_STREAMS {
        let start = (i * quarter(symbols.len())).min(symbols.len());
        let end = ((i + 1) * quarter(symbols.len())).min(symbols.len());
        let before = out.len();
        bits += writer.write(&symbols[start..end], out)?;
        // At most 16384 symbols of 12 bits: 24576 bytes.
        let length = (out.len() - before) as u16;
        out[lengths_at + 2 * i..][..2].copy_from_slice(&length.to_le_bytes());
    }
    Ok(bits)
}

/// Codes ready to be written.
struct SymbolWriter {
    codes: [u16; 256],
    lengths: [u8; 256],
}

impl SymbolWriter {
    fn new(lengths: &CodeLengths) -> Self {
        SymbolWriter {
            codes: lengths.reversed_codes(),
            lengths: lengths.0,
        }
    }

    /// One sub-stream: codes first bit first into the least significant free bit, zero padding to a whole byte.
    fn write(&self, symbols: &[u8], out: &mut Vec<u8>) -> Result<u64, CodecError> {
        let (mut pending, mut count, mut bits) = (0u64, 0u32, 0u64);
        for &symbol in symbols {
            let length = self.lengths[usize::from(symbol)];
            if length == 0 {
                return Err(CodecError::MissingCode { symbol });
            }
            pending |= u64::from(self.codes[usize::from(symbol)]) << count;
            count += u32::from(length);
            bits += u64::from(length);
            if count >= 32 {
                out.extend_from_slice(&(pending as u32).to_le_bytes());
                pending >>= 32;
                count -= 32;
            }
        }
        out.extend_from_slice(&pending.to_le_bytes()[..count.div_ceil(8) as usize]);
        Ok(bits)
    }
}

impl CodeLengths {
    /// Appends the codes of `symbols` as one sub-stream (first bit first, from the least significant bit of each byte, zero
    /// padding); gives the number of bits.
    pub fn write_symbols(&self, symbols: &[u8], out: &mut Vec<u8>) -> Result<u64, CodecError> {
        let start = out.len();
        let bits = SymbolWriter::new(self).write(symbols, out);
        if bits.is_err() {
            out.truncate(start);
        }
        bits
    }
}
