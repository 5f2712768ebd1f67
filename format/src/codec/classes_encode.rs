//! Codes and mask to a tile in classes.

use super::classes::SEGMENT;
use super::gaps::for_each_run;
use super::streams::{SUB_STREAMS, quarter};
use super::{CodeLengths, CodecError, TileStats, groups};
use crate::layer::{Class, Classes, PANEL, TableId, Tile};

/// The rows of one class in a tile, in the order they are coded.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClassRows {
    /// 8 codes per row.
    pub(crate) codes: Vec<u8>,
    /// One byte per row.
    pub(crate) masks: Vec<u8>,
}

impl ClassRows {
    /// Marks of the rows that are not empty, 8 to a byte, and the mask bytes of those rows.
    pub(crate) fn marked(&self) -> (Vec<u8>, Vec<u8>) {
        let mark = |rows: &[u8]| {
            let bits = rows.iter().zip(0u8..).filter(|(mask, _)| **mask != 0);
            bits.fold(0, |byte, (_, bit)| byte | 1 << bit)
        };
        let marks = self.masks.chunks(8).map(mark).collect();
        let masks = self.masks.iter().copied().filter(|mask| *mask != 0);
        (marks, masks.collect())
    }
    /// The values of every segment: of all weights (`dense`) or of those present.
    pub(crate) fn segments(&self, dense: bool) -> impl Iterator<Item = Vec<u8>> {
        let segments = self
            .codes
            .chunks(SEGMENT * PANEL)
            .zip(self.masks.chunks(SEGMENT));
        segments.map(move |(codes, masks)| {
            if dense {
                return codes.to_vec();
            }
            let mut present = Vec::with_capacity(codes.len());
            for_each_run(masks, |_, position| present.push(codes[position]));
            present
        })
    }
}

/// Divides the rows of a tile; codes of absent weights are to be the fill code.
pub(crate) fn divide(
    classes: &Classes,
    tile: &Tile,
    codes: &[u8],
    mask: &[u8],
    count: usize,
) -> Vec<ClassRows> {
    let (first, len) = (tile.k as usize, tile.k_len as usize);
    let mut rows = vec![ClassRows::default(); count];
    let panels = codes.chunks(len * PANEL).zip(mask.chunks(len));
    for (codes, mask) in panels {
        classes.for_each_run(first, len, |class, run| {
            if let Some(rows) = rows.get_mut(usize::from(class)) {
                rows.codes
                    .extend_from_slice(&codes[run.start * PANEL..run.end * PANEL]);
                rows.masks.extend_from_slice(&mask[run]);
            }
        });
    }
    rows
}

/// Appends one tile in classes to `out`; codes and mask as in [`super::encode_tile`], codes of absent weights are the fill
/// code. `lengths` gives the code of a table.
pub(crate) fn encode<'a>(
    classes: &Classes,
    lengths: &dyn Fn(TableId) -> Option<&'a CodeLengths>,
    tile: &Tile,
    codes: &[u8],
    mask: &[u8],
    out: &mut Vec<u8>,
) -> Result<TileStats, CodecError> {
    let mut sinks: [Sink; SUB_STREAMS] = Default::default();
    let mut escapes = Vec::new();
    let mut stats = TileStats::default();
    let mut put = |table: TableId, symbols: &[u8]| {
        let lengths = lengths(table).ok_or(CodecError::TableNotBuilt)?;
        put(lengths, symbols, &mut sinks)
    };
    let divided = divide(classes, tile, codes, mask, classes.classes.len());
    for (class, rows) in classes.classes.iter().zip(&divided) {
        let Some(values) = class.values().filter(|_| !rows.masks.is_empty()) else {
            continue;
        };
        match class.index_tables() {
            [Some(marks), Some(masks)] => {
                let (marked, left) = rows.marked();
                stats.index_bits += put(marks, &marked)? + put(masks, &left)?;
            }
            [_, Some(masks)] => stats.index_bits += put(masks, &rows.masks)?,
            _ => {}
        }
        let before = escapes.len();
        for present in rows.segments(matches!(class, Class::Dense { .. })) {
            let mut symbols = Vec::with_capacity(present.len());
            groups::pack(values, &present, &mut symbols, &mut escapes)?;
            stats.value_bits += put(values.table, &symbols)?;
            stats.present += present.len() as u32;
        }
        stats.value_bits += 8 * (escapes.len() - before) as u64;
    }
    let start = out.len();
    let streams = sinks.map(Sink::finish);
    for stream in &streams {
        // At most 65536 weights: 12 bits a quarter of them, and an eighth of that for masks.
        out.extend_from_slice(&(stream.len() as u16).to_le_bytes());
    }
    streams
        .iter()
        .for_each(|stream| out.extend_from_slice(stream));
    out.extend_from_slice(&escapes);
    stats.bytes = (out.len() - start) as u32;
    Ok(stats)
}

/// Appends symbols to the four sub-streams; gives their bits.
fn put(
    lengths: &CodeLengths,
    symbols: &[u8],
    sinks: &mut [Sink; SUB_STREAMS],
) -> Result<u64, CodecError> {
    let codes = lengths.reversed_codes();
    let mut bits = 0;
    let quarters = symbols.chunks(quarter(symbols.len()).max(1));
    for (sink, symbols) in sinks.iter_mut().zip(quarters) {
        for &symbol in symbols {
            let length = lengths.0[usize::from(symbol)];
            if length == 0 {
                return Err(CodecError::MissingCode { symbol });
            }
            sink.push(codes[usize::from(symbol)], length);
            bits += u64::from(length);
        }
    }
    Ok(bits)
}

/// Bits, the first in the least significant place.
#[derive(Default)]
struct Sink {
    bytes: Vec<u8>,
    pending: u64,
    count: u32,
}

impl Sink {
    fn push(&mut self, code: u16, length: u8) {
        self.pending |= u64::from(code) << self.count;
        self.count += u32::from(length);
        if self.count >= 32 {
            self.bytes
                .extend_from_slice(&(self.pending as u32).to_le_bytes());
            self.pending >>= 32;
            self.count -= 32;
        }
    }
    fn finish(mut self) -> Vec<u8> {
        let rest = self.count.div_ceil(8) as usize;
        self.bytes
            .extend_from_slice(&self.pending.to_le_bytes()[..rest]);
        self.bytes
    }
}
