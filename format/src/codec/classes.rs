//! Tiles whose rows (the 8 lanes of a panel at one k) fall into classes, each with code tables of its own.
//!
//! Inputs of a layer differ in how many of their weights are zero and how large the others are. An adaptive coder sees that;
//! one table per layer does not. So the layer says once which class each block of k belongs to, and a tile holds the rows of
//! the first class, then those of the second, and so on. Compared with streams for every class, which would cost a header and
//! padding each, all classes share four sub-streams: what follows continues where the last symbol ended. Values are decoded in
//! segments of [`SEGMENT`] rows, so that the buffer from which rows go to their places stays small. Tables are built anew for
//! every class and tile, into the same two places: it costs time (some microseconds each), not memory.
//!
//! It loses on small tiles, for which the tables take longer than the symbols.

use super::CodecError;
use super::decode::{CodecScratch, Engine, Reader};
use super::expand::splat;
use super::gaps::nonzero_bytes;
use super::groups::{Escapes, Lut};
use super::streams::{self, Cursor};
use super::{DecodeTable, tile_weights};
use crate::layer::{Class, Classes, MAX_CLASSES, PANEL, TableId, Tile, ValueCode};

/// Rows whose values are decoded at a time.
pub(crate) const SEGMENT: usize = 1024;

/// Where the decode tables of a class come from: one for the index and one for the values at a time.
pub(crate) trait Tables {
    /// The table of row marks or mask bytes, for about so many symbols.
    fn index(&mut self, id: TableId, symbols: usize) -> Option<&DecodeTable>;
    /// The table of values, for about so many symbols.
    fn values(&mut self, id: TableId, symbols: usize) -> Option<&DecodeTable>;
}

/// Buffers of the decoder for tiles in classes, allocated once.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClassScratch {
    orders: Orders,
    /// Values of a segment, then its codes.
    codes: Box<[u8]>,
    /// Mask bytes of a class.
    masks: Box<[u8]>,
    /// Marks of the rows of a class that are not empty.
    rows: Box<[u8]>,
}

/// The k of tiles, sorted by class. Tiles of other panels have the same k, so orders are kept while there is room.
#[derive(Clone, Debug, Default)]
struct Orders {
    /// Of all kept orders.
    ks: Box<[u16]>,
    /// Those of `layer`, of which `count` are known.
    kept: Box<[Order]>,
    count: usize,
    layer: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Order {
    /// First k and number of k of the tile.
    range: (u32, u32),
    /// Where its k lie.
    at: usize,
    /// Where each class begins there.
    starts: [usize; MAX_CLASSES + 1],
}

impl Orders {
    /// The order of a tile; none when there is no room for it.
    #[inline(never)]
    fn of(&mut self, layer: u32, classes: &Classes, tile: &Tile) -> Option<(&[u16], &Order)> {
        let range = (tile.k, tile.k_len);
        if self.layer != layer {
            (self.layer, self.count) = (layer, 0);
        }
        let known = self.kept[..self.count].iter();
        let index = match known.into_iter().position(|order| order.range == range) {
            Some(index) => index,
            None => {
                let len = tile.k_len as usize;
                let end = |order: &Order| order.at + order.range.1 as usize;
                let mut at = self.kept[..self.count].last().map_or(0, end);
                if self.count == self.kept.len() || at + len > self.ks.len() {
                    (self.count, at) = (0, 0);
                }
                let starts = sort(classes, tile, self.ks.get_mut(at..at + len)?);
                *self.kept.get_mut(self.count)? = Order { range, at, starts };
                self.count += 1;
                self.count - 1
            }
        };
        let order = &self.kept[index];
        Some((&self.ks[order.at..], order))
    }
}

impl ClassScratch {
    /// For tiles of at most so many rows, and `orders` orders of together `ks` k: at least one order as long as a tile.
    pub(crate) fn new(rows: usize, orders: usize, ks: usize) -> Self {
        let marks = rows.div_ceil(8);
        ClassScratch {
            orders: Orders {
                ks: vec![0; ks].into_boxed_slice(),
                kept: vec![Order::default(); orders].into_boxed_slice(),
                count: 0,
                layer: u32::MAX,
            },
            codes: vec![0; rows.min(SEGMENT) * PANEL].into_boxed_slice(),
            masks: vec![0; marks * 8].into_boxed_slice(),
            rows: vec![0; marks].into_boxed_slice(),
        }
    }
    /// Bytes allocated.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.orders.ks)
            + size_of_val(&*self.orders.kept)
            + self.codes.len()
            + self.masks.len()
            + self.rows.len()
    }
}

/// Sorts the k of a tile by class, keeping their order; where each class begins and the last one ends.
fn sort(classes: &Classes, tile: &Tile, order: &mut [u16]) -> [usize; MAX_CLASSES + 1] {
    let (first, len) = (tile.k as usize, tile.k_len as usize);
    let mut ends = [0; MAX_CLASSES + 1];
    classes.for_each_run(first, len, |class, run| ends[place(class) + 1] += run.len());
    for class in 0..MAX_CLASSES {
        ends[class + 1] += ends[class];
    }
    let mut next = ends;
    classes.for_each_run(first, len, |class, run| {
        for k in run {
            if let Some(slot) = order.get_mut(next[place(class)]) {
                *slot = k as u16;
            }
            next[place(class)] += 1;
        }
    });
    ends
}

fn place(class: u8) -> usize {
    usize::from(class) % MAX_CLASSES
}

/// Decodes a tile in classes into `codes` and `mask`, as [`super::decode_tile`] does. Weights of rows that are coded without
/// mask count as present when their code is not `fill`. `layer` tells layers apart that are decoded with the same scratch.
#[expect(clippy::too_many_arguments, reason = "as decode_tile")]
pub(crate) fn decode(
    layer: u32,
    classes: &Classes,
    tables: &mut dyn Tables,
    tile: &Tile,
    fill: u8,
    bytes: &[u8],
    codes: &mut [u8],
    mask: &mut [u8],
    scratch: &mut CodecScratch,
) -> Result<(), CodecError> {
    let (panels, k_len) = (tile.panels as usize, tile.k_len as usize);
    let weights = tile_weights(panels, k_len)?;
    for (len, needed) in [(codes.len(), weights), (mask.len(), weights / 8)] {
        if len != needed {
            return Err(CodecError::BufferLength { len, needed });
        }
    }
    let engine = scratch.engine;
    let scratch = &mut scratch.classes;
    let (capacity, needed) = (
        scratch.orders.ks.len().min(scratch.masks.len()),
        k_len.max(weights / 8),
    );
    if scratch.orders.ks.len() < k_len || scratch.masks.len() < weights / 8 {
        return Err(CodecError::ScratchCapacity { capacity, needed });
    }
    let mut reader = Reader { bytes, at: 0 };
    let bounds = reader.symbol_stream()?;
    let mut streams = Streams {
        engine,
        bytes,
        cursor: streams::starts(&bounds),
        escapes: Escapes {
            bytes,
            at: reader.at,
        },
    };
    codes.fill(fill);
    mask.fill(0);
    let order = scratch.orders.of(layer, classes, tile);
    let (order, Order { starts, .. }) =
        order.ok_or(CodecError::ScratchCapacity { capacity, needed })?;
    let mut counted = 0;
    for (class, bounds) in classes.classes.iter().zip(starts.windows(2)) {
        let ks = &order[bounds[0]..bounds[1]];
        let rows = ks.len() * panels;
        let Some(values) = class.values().filter(|_| rows > 0) else {
            continue;
        };
        streams.masks(class, tables, rows, &mut scratch.masks, &mut scratch.rows)?;
        let masks = &mut scratch.masks[..rows];
        let all = engine.count_bits(masks);
        counted += all;
        let table = tables.values(values.table, all / usize::from(values.group.max(1)));
        let table = table.ok_or(CodecError::TableNotBuilt)?;
        let lut = (values.group > 1).then(|| Lut::new(values));
        let mut places = Places {
            ks,
            k_len,
            panel: 0,
            at: 0,
        };
        for masks in masks.chunks_mut(SEGMENT) {
            let present = engine.count_bits(masks);
            let out = &mut scratch.codes[..masks.len() * PANEL];
            let packed = out.len() - present;
            streams.values(
                table,
                lut.as_ref().map(|lut| (lut, values)),
                &mut out[packed..],
            )?;
            engine.expand(out, masks, present, fill);
            let rows = out.as_chunks::<PANEL>().0;
            if matches!(class, Class::Dense { .. }) {
                let fills = splat(fill);
                for (mask, row) in masks.iter_mut().zip(rows) {
                    *mask = nonzero_bytes(u64::from_le_bytes(*row) ^ fills);
                }
            }
            places.put(rows, masks, codes, mask);
        }
    }
    streams::check_ends(bytes, &bounds, &streams.cursor)?;
    let end = streams.escapes.at;
    if end < bytes.len() {
        return Err(CodecError::TrailingBytes { offset: end });
    }
    let present = tile.present as usize;
    if counted != present {
        return Err(CodecError::MaskCount {
            offset: 0,
            counted,
            present,
        });
    }
    Ok(())
}

/// What is left to read of a tile.
struct Streams<'a> {
    engine: Engine,
    bytes: &'a [u8],
    cursor: Cursor,
    escapes: Escapes<'a>,
}

impl Streams<'_> {
    fn symbols(&mut self, table: Option<&DecodeTable>, out: &mut [u8]) -> Result<(), CodecError> {
        let table = table.ok_or(CodecError::TableNotBuilt)?;
        self.engine
            .decode_part(table, self.bytes, &mut self.cursor, out)
    }

    /// The mask bytes of all rows of a class, to the front of `masks`.
    #[inline(never)]
    fn masks(
        &mut self,
        class: &Class,
        tables: &mut dyn Tables,
        rows: usize,
        masks: &mut [u8],
        marks: &mut [u8],
    ) -> Result<(), CodecError> {
        match class.index_tables() {
            [Some(row_table), Some(mask_table)] => {
                let marks = &mut marks[..rows.div_ceil(8)];
                self.symbols(tables.index(row_table, marks.len()), marks)?;
                let spare = 8 * marks.len() - rows;
                if marks
                    .last()
                    .is_some_and(|last| last.leading_zeros() < spare as u32)
                {
                    return Err(CodecError::RowMarks { rows });
                }
                let room = &mut masks[..marks.len() * 8];
                let count = self.engine.count_bits(marks);
                let packed = room.len() - count;
                self.symbols(tables.index(mask_table, count), &mut room[packed..])?;
                self.engine.expand(room, marks, count, 0);
            }
            [_, Some(table)] => self.symbols(tables.index(table, rows), &mut masks[..rows])?,
            _ => masks[..rows].fill(0xff),
        }
        Ok(())
    }

    /// Values, single or several to a symbol.
    fn values(
        &mut self,
        table: &DecodeTable,
        grouped: Option<(&Lut, &ValueCode)>,
        out: &mut [u8],
    ) -> Result<(), CodecError> {
        let Some((lut, code)) = grouped else {
            return self.symbols(Some(table), out);
        };
        let symbols = out.len().div_ceil(usize::from(code.group));
        let first = out.len() - symbols;
        self.symbols(Some(table), &mut out[first..])?;
        lut.expand(code, out, &mut self.escapes)
    }
}

/// Where the next row of a class belongs.
struct Places<'a> {
    ks: &'a [u16],
    k_len: usize,
    panel: usize,
    at: usize,
}

impl Places<'_> {
    #[inline(never)]
    fn put(&mut self, rows: &[[u8; PANEL]], masks: &[u8], codes: &mut [u8], mask: &mut [u8]) {
        let (mut rows, mut masks) = (rows, masks);
        while !rows.is_empty() {
            let (now, later) = rows.split_at(rows.len().min(self.ks.len() - self.at));
            let (now_masks, later_masks) = masks.split_at(now.len());
            let first = self.panel * self.k_len;
            let codes = codes[first * PANEL..][..self.k_len * PANEL].as_chunks_mut::<PANEL>();
            let (codes, mask) = (codes.0, &mut mask[first..][..self.k_len]);
            for ((row, bits), k) in now.iter().zip(now_masks).zip(&self.ks[self.at..]) {
                let k = usize::from(*k);
                (codes[k], mask[k]) = (*row, *bits);
            }
            self.at += now.len();
            if self.at == self.ks.len() {
                (self.panel, self.at) = (self.panel + 1, 0);
            }
            (rows, masks) = (later, later_masks);
        }
    }
}

#[cfg(test)]
#[path = "classes_tests.rs"]
mod tests;
