//! Decoding tiles into caller's buffers.
//!
//! [`TileDecoder`] owns everything decoding needs: two decode tables, a mask, the scratch of the codec and, when the
//! source is not addressable, a buffer for coded bytes. All of it is sized by the largest tile and the widest table of
//! one network and allocated once. Layers in classes use up to 24 tables per tile; with room for two they are built again
//! in every tile, which takes about as long as decoding, so a decoder may be given room for all tables of a layer. Each tile's checksum is verified before its bytes are interpreted.
//!
//! F32 output of a coded layer needs no second buffer: the codes (one byte each) are decoded into the last quarter of
//! the output and widened from the front in blocks; the value at index i ends at byte 4i + 4, which never passes the
//! codes not yet read.

use crate::codec::classes::{self, ClassScratch, Tables};
use crate::codec::{BuildSpace, CodecError, CodecScratch, DecodeTable, TileCoding, decode_tile};
use crate::container::Container;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::LayerId;
use crate::layer::*;
use crate::values::TileForm;
use half::slice::HalfFloatSliceExt;

/// Where a tile goes: `panels * k_len * 8` elements, `[panel][k][8]`.
#[derive(Debug)]
pub enum TileOut<'a> {
    /// Codes, for [`TileForm::I8`] (as `q as u8`) and [`TileForm::Lut`].
    Codes(&'a mut [u8]),
    /// Values, for every layer.
    F32(&'a mut [f32]),
}

/// Decodes the tiles of one network of one container. Owns all memory that decoding needs, allocated by
/// [`TileDecoder::new`]: two decode tables, a mask, the codec's scratch and, when the source is not addressable, a buffer
/// for coded bytes.
#[derive(Debug)]
pub struct TileDecoder {
    container: u64,
    net: usize,
    index: Slot,
    values: Slot,
    /// For layers in classes: all their tables, or nothing.
    kept: Kept,
    space: BuildSpace,
    /// Layer whose tables are built.
    selected: Option<LayerId>,
    mask: Box<[u8]>,
    coded: Box<[u8]>,
    scratch: CodecScratch,
}

/// A decode table and the table of the pool that it was built from.
#[derive(Debug)]
struct Slot {
    id: Option<TableId>,
    table: Option<DecodeTable>,
}

impl Slot {
    fn new(width: u8) -> Self {
        Slot {
            id: None,
            table: (width > 0).then(|| DecodeTable::new(width)),
        }
    }
    #[inline(never)]
    fn build(
        &mut self,
        container: &Container,
        id: TableId,
        symbols: usize,
        space: &mut BuildSpace,
    ) -> Result<()> {
        if self.id == Some(id) {
            return Ok(());
        }
        self.id = None;
        let (Some(table), Some(coded)) = (&mut self.table, container.tables().get(id.0 as usize))
        else {
            return Err(foreign());
        };
        table
            .build_for(&coded.lengths, coded.width, symbols, space)
            .map_err(|e| Error::new(ErrorKind::CodeTable, e.to_string()))?;
        self.id = Some(id);
        Ok(())
    }
    fn get(&self) -> Result<&DecodeTable> {
        self.table
            .as_ref()
            .filter(|_| self.id.is_some())
            .ok_or_else(foreign)
    }
    fn bytes(&self) -> usize {
        self.table.as_ref().map_or(0, DecodeTable::bytes)
    }
}

/// Room for tables that are used in turns. The one whose turn is longest ago (by insertion) makes way.
#[derive(Debug, Default)]
struct Kept {
    slots: Vec<Slot>,
    next: usize,
}

impl Kept {
    fn get(
        &mut self,
        container: &Container,
        id: TableId,
        symbols: usize,
        space: &mut BuildSpace,
    ) -> Option<&DecodeTable> {
        let known = self.slots.iter().position(|slot| slot.id == Some(id));
        let at = known.unwrap_or(self.next);
        if known.is_none() {
            self.next = (self.next + 1) % self.slots.len().max(1);
        }
        let slot = self.slots.get_mut(at)?;
        slot.build(container, id, symbols, space).ok()?;
        slot.get().ok()
    }
}

fn foreign() -> Error {
    Error::new(
        ErrorKind::NoSuchItem,
        "the decoder was made for another container or network",
    )
}

impl TileDecoder {
    /// Allocates for the largest tile of the network.
    pub fn new(container: &Container, net: usize) -> Result<TileDecoder> {
        Self::allocate(container, net, false)
    }

    /// The same with room for all that tiles of a layer in classes share: up to 24 tables of 16 KiB and the order of its k, two
    /// bytes each. Decodes such layers up to twice as fast.
    pub fn keeping_tables(container: &Container, net: usize) -> Result<TileDecoder> {
        Self::allocate(container, net, true)
    }

    fn allocate(container: &Container, net: usize, keep: bool) -> Result<TileDecoder> {
        let network = container.network(net)?;
        let width = |id: TableId| {
            container
                .tables()
                .get(id.0 as usize)
                .map_or(0, |table| table.width)
        };
        let (mut index_width, mut values_width) = (0, 0);
        let (mut groups, mut coded, mut pairs) = (0, 0, 0);
        let (mut class_rows, mut kept_orders, mut order_ks) = (0, 0, 0);
        let (mut kept, mut kept_width) = (0, 0);
        for layer in &network.layers {
            layer.index.for_each_table(|of_values, id| {
                let widest = match of_values {
                    true => &mut values_width,
                    false => &mut index_width,
                };
                *widest = width(id).max(*widest);
            });
            if keep && matches!(layer.index, Index::Classes(_)) {
                let mut tables = 0;
                layer.index.for_each_table(|_, id| {
                    tables += 1;
                    kept_width = width(id).max(kept_width);
                });
                kept = kept.max(tables);
            }
            let (mut orders, mut ks) = (0, 0);
            for tile in &layer.tiles {
                coded = coded.max(tile.len as usize);
                if !matches!(layer.index, Index::Raw) {
                    groups = groups.max(tile.weights() / PANEL);
                }
                if matches!(layer.index, Index::Gaps { .. }) {
                    pairs = pairs.max(tile.present as usize);
                }
                if matches!(layer.index, Index::Classes(_)) {
                    // Tiles of other panels have the same k.
                    if tile.panel == 0 {
                        (orders, ks) = (orders + 1, ks + tile.k_len as usize);
                    }
                    order_ks = order_ks.max(tile.k_len as usize);
                    class_rows = class_rows.max(tile.weights() / PANEL);
                }
            }
            kept_orders = if keep {
                order_ks = order_ks.max(ks);
                kept_orders.max(orders)
            } else {
                kept_orders.max(orders.min(1))
            };
        }
        if container.source().bytes().is_some() {
            coded = 0;
        }
        Ok(TileDecoder {
            container: container.id(),
            net,
            index: Slot::new(index_width),
            values: Slot::new(values_width),
            kept: Kept {
                slots: (0..kept).map(|_| Slot::new(kept_width)).collect(),
                next: 0,
            },
            space: BuildSpace::new(index_width.max(values_width)),
            selected: None,
            mask: vec![0; groups].into_boxed_slice(),
            coded: vec![0; coded].into_boxed_slice(),
            scratch: CodecScratch::new(pairs).with_classes(ClassScratch::new(
                class_rows,
                kept_orders,
                order_ks,
            )),
        })
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        self.index.bytes()
            + self.values.bytes()
            + self.kept.slots.iter().map(Slot::bytes).sum::<usize>()
            + self.space.bytes()
            + self.mask.len()
            + self.coded.len()
            + self.scratch.bytes()
    }

    /// Builds the code tables of a layer unless they are built already; allocates nothing. [`decode`](Self::decode)
    /// does it by itself; calling it ahead only moves the time.
    pub fn select(&mut self, container: &Container, net: usize, layer: LayerId) -> Result<()> {
        if (container.id(), net) != (self.container, self.net) {
            return Err(foreign());
        }
        if self.selected == Some(layer) {
            return Ok(());
        }
        self.selected = None;
        let record = container.layer(net, layer)?;
        let (index, values) = record.index.tables();
        let space = &mut self.space;
        let mut build = || {
            index.map_or(Ok(()), |id| {
                self.index.build(container, id, usize::MAX, space)
            })?;
            values.map_or(Ok(()), |id| {
                self.values.build(container, id, usize::MAX, space)
            })
        };
        build().map_err(|e| e.in_layer(&record.name))?;
        self.selected = Some(layer);
        Ok(())
    }

    /// Verifies and decodes a tile; allocates nothing.
    pub fn decode(
        &mut self,
        container: &Container,
        net: usize,
        layer: LayerId,
        tile: usize,
        out: TileOut<'_>,
    ) -> Result<()> {
        self.select(container, net, layer)?;
        let record = container.layer(net, layer)?;
        let (tile, range) = container.tile(net, layer, tile)?;
        self.decode_tile(container, record, tile, range.start, out)
            .map_err(|error| {
                let error = error.in_layer(&record.name).at(range.start);
                match container.weights_section(net) {
                    Some(section) => error.in_section(section),
                    None => error,
                }
            })
    }

    /// The mask of the tile decoded last: bit i of byte `panel * k_len + k` tells whether lane i is present.
    pub(crate) fn mask(&self, tile: &Tile) -> &[u8] {
        self.mask.get(..tile.weights() / PANEL).unwrap_or(&[])
    }

    fn decode_tile(
        &mut self,
        container: &Container,
        layer: &Layer,
        tile: &Tile,
        start: u64,
        out: TileOut<'_>,
    ) -> Result<()> {
        let weights = tile.weights();
        let (len, codes_wanted) = match &out {
            TileOut::Codes(codes) => (codes.len(), true),
            TileOut::F32(values) => (values.len(), false),
        };
        if len != weights {
            return Err(Error::new(
                ErrorKind::BufferSize,
                format!("{len} elements for a tile of {weights}"),
            ));
        }
        if codes_wanted && layer.form() == TileForm::F32 {
            return Err(Error::new(ErrorKind::NoCodes, ""));
        }
        let coded_len = tile.len as usize;
        let bytes = match container.source().bytes() {
            Some(bytes) => {
                let rest = usize::try_from(start)
                    .ok()
                    .and_then(|start| bytes.get(start..));
                rest.and_then(|rest| rest.get(..coded_len))
                    .ok_or_else(foreign)?
            }
            None => {
                let buffer = self.coded.get_mut(..coded_len).ok_or_else(foreign)?;
                container
                    .source()
                    .read_at(start, buffer)
                    .map_err(|e| Error::io(e, "reading a tile"))?;
                buffer
            }
        };
        if crc32c::crc32c(bytes) != tile.crc {
            return Err(Error::new(
                ErrorKind::TileChecksum,
                format!("panel {}, k {}", tile.panel, tile.k),
            ));
        }
        if matches!(layer.index, Index::Raw) {
            let TileOut::F32(values) = out else {
                return Err(Error::new(ErrorKind::NoCodes, ""));
            };
            match layer.values {
                Values::Raw16 => widen_f16(bytes, values),
                _ => widen_f32(bytes, values),
            }
            return Ok(());
        }
        let mask = self.mask.get_mut(..weights / PANEL).ok_or_else(foreign)?;
        let fill = layer.fill_code().unwrap_or(0);
        let selected = self.selected;
        let (index, values, scratch) = (&mut self.index, &mut self.values, &mut self.scratch);
        let mut run = |codes: &mut [u8], mask: &mut [u8]| {
            if let Index::Classes(classes) = &layer.index {
                let mut tables = Slots {
                    container,
                    tiles: layer.tiles.len(),
                    index: &mut *index,
                    values: &mut *values,
                    kept: &mut self.kept,
                    space: &mut self.space,
                };
                // The layer that was selected last is this one.
                let layer = selected.map_or(u32::MAX, |layer| layer.0);
                return classes::decode(
                    layer,
                    classes,
                    &mut tables,
                    tile,
                    fill,
                    bytes,
                    codes,
                    mask,
                    scratch,
                )
                .map_err(|e| stream_error(e, start));
            }
            let coding = coding(&layer.index, index, values)?;
            let (panels, k_len) = (tile.panels as usize, tile.k_len as usize);
            let present = tile.present;
            decode_tile(
                &coding, panels, k_len, present, fill, bytes, codes, mask, scratch,
            )
            .map_err(|e| stream_error(e, start))
        };
        match out {
            TileOut::Codes(codes) => run(codes, mask),
            TileOut::F32(values) => {
                let all: &mut [u8] = bytemuck::cast_slice_mut(values);
                let (_, codes) = all.split_at_mut(weights * 3);
                run(codes, mask)?;
                widen_codes(layer, tile, mask, values)
            }
        }
    }
}

/// How a layer's tiles are coded, with the tables that are built for it.
fn coding<'a>(layer: &Index, index: &'a Slot, values: &'a Slot) -> Result<TileCoding<'a>> {
    Ok(match *layer {
        Index::Raw | Index::Classes(_) => return Err(foreign()),
        Index::Dense { .. } => TileCoding::Dense {
            values: values.get()?,
        },
        Index::Mask { mask, .. } => TileCoding::Mask {
            mask: mask.map(|_| index.get()).transpose()?,
            values: values.get()?,
        },
        Index::Gaps { bits, .. } => TileCoding::Gaps {
            bits,
            gaps: index.get()?,
            values: values.get()?,
        },
    })
}

/// The tables of a decoder, for whichever class is next.
struct Slots<'a> {
    container: &'a Container,
    /// Of the layer.
    tiles: usize,
    index: &'a mut Slot,
    values: &'a mut Slot,
    kept: &'a mut Kept,
    space: &'a mut BuildSpace,
}

impl Slots<'_> {
    fn get(&mut self, of_values: bool, id: TableId, symbols: usize) -> Option<&DecodeTable> {
        if !self.kept.slots.is_empty() {
            // Built once for all tiles.
            let symbols = symbols.saturating_mul(self.tiles);
            return self.kept.get(self.container, id, symbols, self.space);
        }
        let slot = if of_values {
            &mut *self.values
        } else {
            &mut *self.index
        };
        slot.build(self.container, id, symbols, self.space).ok()?;
        slot.get().ok()
    }
}

impl Tables for Slots<'_> {
    fn index(&mut self, id: TableId, symbols: usize) -> Option<&DecodeTable> {
        self.get(false, id, symbols)
    }
    fn values(&mut self, id: TableId, symbols: usize) -> Option<&DecodeTable> {
        self.get(true, id, symbols)
    }
}

impl Index {
    /// Every table that the layer uses, and whether it is one of values.
    pub(crate) fn for_each_table(&self, mut visit: impl FnMut(bool, TableId)) {
        if let Index::Classes(classes) = self {
            for class in &classes.classes {
                let index = class.index_tables().into_iter().flatten();
                index.for_each(|id| visit(false, id));
                class
                    .values()
                    .into_iter()
                    .for_each(|v| visit(true, v.table));
            }
        }
        let (index, values) = self.tables();
        index.into_iter().for_each(|id| visit(false, id));
        values.into_iter().for_each(|id| visit(true, id));
    }
    /// Index table and value table; none where every class has its own.
    pub(crate) fn tables(&self) -> (Option<TableId>, Option<TableId>) {
        match *self {
            Index::Raw | Index::Classes(_) => (None, None),
            Index::Dense { values } => (None, Some(values)),
            Index::Mask { mask, values } => (mask, Some(values)),
            Index::Gaps { gaps, values, .. } => (Some(gaps), Some(values)),
        }
    }
}

/// What the codec says, in the terms of the container.
fn stream_error(error: CodecError, tile_start: u64) -> Error {
    let kind = match error {
        CodecError::Truncated { .. } => ErrorKind::StreamTruncated,
        CodecError::TrailingBytes { .. } => ErrorKind::StreamTrailing,
        CodecError::SubStreamOverrun { .. } => ErrorKind::StreamOverrun,
        CodecError::SubStreamUnused { .. } => ErrorKind::StreamUnused,
        CodecError::Padding { .. } | CodecError::RowMarks { .. } | CodecError::GroupRest { .. } => {
            ErrorKind::StreamPadding
        }
        CodecError::InvalidCode { .. } => ErrorKind::StreamCode,
        CodecError::MaskCount { .. } => ErrorKind::MaskCount,
        CodecError::GapOverrun { .. } => ErrorKind::GapOverrun,
        CodecError::PresentCount { .. } => ErrorKind::TilePresent,
        CodecError::GapBits { .. } => ErrorKind::GapBits,
        CodecError::GapSymbol { .. } => ErrorKind::GapTable,
        CodecError::TileSize { .. } => ErrorKind::TileSize,
        CodecError::BufferLength { .. } => ErrorKind::BufferSize,
        CodecError::ScratchCapacity { .. }
        | CodecError::TableCapacity { .. }
        | CodecError::TableNotBuilt => ErrorKind::NoSuchItem,
        CodecError::MissingCode { .. } => ErrorKind::Input,
        _ => ErrorKind::CodeTable,
    };
    Error::new(kind, error.to_string()).at(tile_start + error.offset().unwrap_or(0) as u64)
}

/// Little-endian binary32.
pub(crate) fn widen_f32(bytes: &[u8], out: &mut [f32]) {
    for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *value = f32::from_le_bytes(*bytes);
    }
}

/// Little-endian binary16.
pub(crate) fn widen_f16(bytes: &[u8], out: &mut [f32]) {
    const BLOCK: usize = 64;
    let mut halves = [half::f16::ZERO; BLOCK];
    for (values, bytes) in out.chunks_mut(BLOCK).zip(bytes.chunks(2 * BLOCK)) {
        for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *half = half::f16::from_le_bytes(*bytes);
        }
        halves[..values.len()].convert_to_f32_slice(values);
    }
}

/// k of a block of [`widen_codes`].
const BLOCK: usize = 64;

/// Codes in the last quarter of `values` become the values, in place, front to back.
fn widen_codes(layer: &Layer, tile: &Tile, mask: &[u8], values: &mut [f32]) -> Result<()> {
    let lut = layer.values.lut();
    let absent_is_zero = layer.is_sparse() && layer.fill_code().is_none();
    let weights = values.len();
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(values);
    let (first, last) = (tile.k as usize, (tile.k + tile.k_len) as usize);
    let (mut codes, mut block) = ([[0u8; PANEL]; BLOCK], [[0f32; PANEL]; BLOCK]);
    let mut row = 0;
    for panel in tile.panel as usize..(tile.panel + tile.panels) as usize {
        let mut k = first;
        let (mut steps, mut next) = ([0.0; PANEL], first);
        while k < last {
            if lut.is_none() && next <= k {
                (steps, next) = layer.lane_steps(panel, k).ok_or_else(foreign)?;
            }
            let bound = if lut.is_none() { next.min(last) } else { last };
            let rows = (bound - k).min(BLOCK);
            let (codes, block) = (&mut codes[..rows], &mut block[..rows]);
            let coded = &bytes[3 * weights + row * PANEL..][..rows * PANEL];
            codes.as_flattened_mut().copy_from_slice(coded);
            match &lut {
                Some(lut) => {
                    for (value, code) in block
                        .as_flattened_mut()
                        .iter_mut()
                        .zip(codes.as_flattened())
                    {
                        *value = lut[usize::from(*code)];
                    }
                    if absent_is_zero {
                        for (values, mask) in block.iter_mut().zip(&mask[row..]) {
                            for (lane, value) in values.iter_mut().enumerate() {
                                *value = if mask >> lane & 1 == 1 { *value } else { 0.0 };
                            }
                        }
                    }
                }
                None => {
                    for (values, codes) in block.iter_mut().zip(&*codes) {
                        for ((value, code), step) in values.iter_mut().zip(codes).zip(&steps) {
                            *value = f32::from(*code as i8) * step;
                        }
                    }
                }
            }
            let out = &mut bytes[4 * row * PANEL..][..4 * rows * PANEL];
            out.copy_from_slice(bytemuck::cast_slice(block.as_flattened()));
            (row, k) = (row + rows, k + rows);
        }
    }
    Ok(())
}
