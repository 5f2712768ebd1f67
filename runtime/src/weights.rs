//! The one adaptor between the coded tiles of the container and the weight tiles of the kernels.
//!
//! A [`TileBuffer`] belongs to one thread and holds one decoded tile: i8 codes with their steps spread over the lanes of
//! the panels, u8 codes with the layer's look-up table, or f32. The one of a thread is
//! lies in the step's scratch, those that stay resident have memory of their own. A [`Bank`] holds all tiles of a layer
//! in memory of the arena while a band runs.

use crate::error::{Error, Result};
use dcz_format::graph::LayerId;
use dcz_format::layer::{self, Layer, PANEL, Steps, Tile, Values};

use dcz_format::{Container, Occupancy, TileDecoder, TileForm, TileOut};
use dcz_kernels::{KOrder, Lut, TileValues, WeightTile, weights};
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

/// What a session keeps about a layer.
#[derive(Debug)]
pub(crate) struct LayerInfo {
    pub form: TileForm,
    lut: Option<Box<Lut>>,
    order: KOrder,
    /// Inputs of one output channel.
    pub k: usize,
    /// Share of weights that are not zero.
    pub density: f64,
    /// Shares of groups of two and of four output channels that have such a weight.
    pub groups: [f64; 2],
    /// Most groups of one, two and four output channels that have such a weight.
    entries: [u64; 3],
}

impl LayerInfo {
    /// `groups` as the file knows them.
    pub(crate) fn new(layer: &Layer, groups: Option<&Occupancy>) -> LayerInfo {
        let form = layer.form();
        let zeros = layer.record.zeros as f64 / layer.shape.weights().max(1) as f64;
        let present = layer.shape.weights().saturating_sub(layer.record.zeros);
        // Panels are filled up with zeros; shares are rounded up.
        let most = |size: u64, share: u8| {
            let all = (layer.shape.panels() * PANEL * layer.shape.k()) as u64 / size;
            all.saturating_mul(share.into()).div_ceil(255).min(present)
        };
        let known = groups.copied().unwrap_or(Occupancy::FULL);
        LayerInfo {
            entries: [present, most(2, known.of2), most(4, known.of4)],
            form,
            lut: if form == TileForm::Lut {
                layer.lut().map(|table| Box::new(lut(layer, &table)))
            } else {
                None
            },
            order: match layer.k_order {
                layer::KOrder::ChannelMajor => KOrder::ChannelMajor,
                layer::KOrder::TapMajor => KOrder::TapMajor,
            },
            k: layer.shape.k(),
            density: (1.0 - zeros).clamp(0.0, 1.0),
            // Where the file says nothing zeros are taken to be independent.
            groups: groups.map_or_else(
                || [2, 4].map(|n| 1.0 - zeros.clamp(0.0, 1.0).powi(n)),
                |known| known.shares(),
            ),
        }
    }

    /// Most groups of so many output channels and one input that have a weight.
    pub(crate) fn entries(&self, group: usize) -> u64 {
        let [single, two, four] = self.entries;
        match group {
            1 => single,
            2 => two,
            _ => four,
        }
    }

    /// The largest weight of a layer in steps, if all weights of a channel are multiples of one step.
    pub(crate) fn max_multiple(&self, layer: &Layer) -> Option<u8> {
        match (&layer.values, &self.lut) {
            (Values::Grid { steps }, _) if !matches!(steps, Steps::Block { .. }) => {
                Some(layer.max_abs_q)
            }
            (_, Some(lut)) if lut.step() > 0.0 => Some(lut.max_abs()),
            _ => None,
        }
    }

    /// Whether a look-up in the layer's table is a gather.
    pub(crate) fn wide_lut(&self) -> bool {
        self.lut.as_ref().is_some_and(|lut| lut.codes() > 16)
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of::<LayerInfo>()
            + if self.lut.is_some() {
                size_of::<Lut>()
            } else {
                0
            }
    }
}

/// A part of the memory of a layer that is kept.
#[derive(Debug)]
pub(crate) struct Part {
    memory: Arc<Box<[f32]>>,
    range: Range<usize>,
}

impl Deref for Part {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.memory.get(self.range.clone()).unwrap_or_default()
    }
}

/// One decoded tile, in memory of its layer or of the arena: f32 weights, or codes in the same memory, and steps behind them.
#[derive(Debug)]
pub(crate) struct TileBuffer<M = Part> {
    memory: M,
    tile: Option<Tile>,
    /// What the memory holds.
    form: TileForm,
}

/// The tiles of a layer that lie in `memory` one after the other, decoded to `form`.
pub(crate) fn kept(layer: &Layer, form: TileForm, memory: Box<[f32]>) -> Box<[TileBuffer]> {
    let memory = Arc::new(memory);
    let mut end = 0;
    let tiles = layer.tiles.iter().map(|tile| {
        let start = end;
        end += tile_room(layer, tile, form);
        let memory = Arc::clone(&memory);
        let range = start..end;
        TileBuffer {
            memory: Part { memory, range },
            tile: Some(*tile),
            form,
        }
    });
    tiles.collect()
}

/// Bytes of [`kept`].
pub(crate) fn kept_bytes(layer: &Layer, form: TileForm) -> usize {
    let tiles = layer.tiles.iter();
    let each = |t| tile_room(layer, t, form) * size_of::<f32>() + size_of::<TileBuffer>();
    // The shared handle: two counters.
    tiles.map(each).sum::<usize>() + size_of::<Box<[f32]>>() + 2 * size_of::<usize>()
}

/// f32 elements of a decoded tile.
pub(crate) fn tile_room(layer: &Layer, tile: &Tile, form: TileForm) -> usize {
    let (words, steps) = tile_sizes(layer, tile, form);
    words + steps
}

/// f32 elements for any tile of a layer, decoded to its own form.
pub(crate) fn tile_len(layer: &Layer) -> usize {
    run_len(layer, false)
}

/// The tiles from tile `index` on that are computed together: neighbours that the kernel joins where they are `joined`, else one;
/// none behind the last.
pub(crate) fn run(layer: &Layer, index: usize, joined: bool) -> Range<usize> {
    let mut tiles = layer.tiles.iter().skip(index);
    let Some(first) = tiles.next() else {
        return index..index;
    };
    let mut panels = first.panels as usize;
    let others = tiles.take_while(|tile| {
        panels += tile.panels as usize;
        joined && (tile.k, tile.k_len) == (first.k, first.k_len) && panels <= dcz_kernels::JOINED
    });
    index..index + 1 + others.count()
}

/// All runs of a layer.
pub(crate) fn runs(layer: &Layer, joined: bool) -> impl Iterator<Item = Range<usize>> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let run = run(layer, next, joined);
        next = run.end;
        (!run.is_empty()).then_some(run)
    })
}

/// f32 elements for any run of a layer, decoded to its own form.
pub(crate) fn run_len(layer: &Layer, joined: bool) -> usize {
    let len = |run| tiles_of(layer, run).map(|t| bank_part(layer, t)).sum();
    runs(layer, joined).map(len).max().unwrap_or(0)
}

/// Panels of a run.
pub(crate) fn run_panels(layer: &Layer, run: Range<usize>) -> usize {
    tiles_of(layer, run).map(|t| t.panels as usize).sum()
}

fn tiles_of(layer: &Layer, run: Range<usize>) -> impl Iterator<Item = &Tile> {
    layer.tiles.get(run).unwrap_or_default().iter()
}

/// Elements of the weights of a tile, and of its steps.
fn tile_sizes(layer: &Layer, tile: &Tile, form: TileForm) -> (usize, usize) {
    match form {
        TileForm::F32 => (tile.weights(), 0),
        TileForm::Lut => (tile.weights().div_ceil(4), 0),
        TileForm::I8 => (
            tile.weights().div_ceil(4),
            tile.panels as usize * step_rows(layer) * PANEL,
        ),
    }
}

impl<M: DerefMut<Target = [f32]>> TileBuffer<M> {
    /// In this memory.
    pub(crate) fn over(memory: M) -> TileBuffer<M> {
        TileBuffer {
            memory,
            tile: None,
            form: TileForm::F32,
        }
    }

    /// Decodes a tile of a layer to `form`, the layer's own or f32; allocates nothing.
    pub(crate) fn decode(
        &mut self,
        decoder: &mut TileDecoder,
        container: &Container,
        net: usize,
        id: LayerId,
        index: usize,
        form: TileForm,
    ) -> Result<()> {
        self.tile = None;
        self.form = form;
        let layer = container.layer(net, id)?;
        let record = layer.tiles.get(index).ok_or_else(short)?;
        let (words, _) = tile_sizes(layer, record, form);
        let memory = self.memory.split_at_mut_checked(words);
        let memory = memory.ok_or_else(short)?;
        let tile = decode(decoder, container, (net, id, index), form, memory)?;
        self.tile = Some(tile);
        Ok(())
    }
}

impl<M: Deref<Target = [f32]>> TileBuffer<M> {
    /// The tile as kernels read it.
    pub(crate) fn view<'a>(
        &'a self,
        layer: &'a Layer,
        info: &'a LayerInfo,
    ) -> Result<(WeightTile<'a>, Tile)> {
        let tile = self
            .tile
            .ok_or_else(|| Error::internal("no tile decoded"))?;
        let (words, _) = tile_sizes(layer, &tile, self.form);
        let memory = self.memory.split_at_checked(words).ok_or_else(short)?;
        Ok((view(layer, info, &tile, self.form, memory)?, tile))
    }
}

/// The codes there are, and the one behind them, which may stand for zero.
fn lut(layer: &Layer, table: &[f32; 256]) -> Lut {
    let codes = match &layer.values {
        Values::Codebook { values, .. } => values.len(),
        Values::Minmax { bits, .. } => 1 << bits,
        Values::Raw32 | Values::Raw16 | Values::Grid { .. } => table.len(),
    };
    let used = if layer
        .fill_code()
        .is_some_and(|code| usize::from(code) >= codes)
    {
        codes + 1
    } else {
        codes
    };
    Lut::new(table.get(..used).unwrap_or(table))
}

/// Tiles of a layer from tile `first` on, decoded to its own form, one after the other in `data`, filled through
/// [`bank_part`] and [`decode_part`].
#[derive(Clone, Copy)]
pub(crate) struct Bank<'a> {
    pub data: &'a [f32],
    pub first: usize,
}

impl<'a> Bank<'a> {
    /// Tile `index` as kernels read it.
    pub(crate) fn view(
        self,
        layer: &'a Layer,
        info: &'a LayerInfo,
        index: usize,
    ) -> Result<(WeightTile<'a>, Tile)> {
        let tile = *layer.tiles.get(index).ok_or_else(short)?;
        let before = tiles_of(layer, self.first..index);
        let before: usize = before.map(|t| bank_part(layer, t)).sum();
        let (words, steps) = tile_sizes(layer, &tile, info.form);
        let data = self.data.get(before..).ok_or_else(short)?;
        let (words, rest) = data.split_at_checked(words).ok_or_else(short)?;
        let steps = rest.get(..steps).ok_or_else(short)?;
        let view = view(layer, info, &tile, info.form, (words, steps))?;
        Ok((view, tile))
    }
}

/// f32 elements of one tile of a bank.
pub(crate) fn bank_part(layer: &Layer, tile: &Tile) -> usize {
    tile_room(layer, tile, layer.form())
}

/// f32 elements of a layer's bank.
pub(crate) fn bank_len(layer: &Layer) -> usize {
    layer.tiles.iter().map(|t| bank_part(layer, t)).sum()
}

/// Decodes one tile into its part of a bank.
pub(crate) fn decode_part(
    decoder: &mut TileDecoder,
    container: &Container,
    (net, id, index): (usize, LayerId, usize),
    part: &mut [f32],
) -> Result<()> {
    let layer = container.layer(net, id)?;
    let tile = layer.tiles.get(index).ok_or_else(short)?;
    let (words, _) = tile_sizes(layer, tile, layer.form());
    let memory = part.split_at_mut_checked(words).ok_or_else(short)?;
    decode(decoder, container, (net, id, index), layer.form(), memory)?;
    Ok(())
}

/// Decodes a tile to `form`, into words and steps.
fn decode(
    decoder: &mut TileDecoder,
    container: &Container,
    (net, id, index): (usize, LayerId, usize),
    form: TileForm,
    (words, steps_out): (&mut [f32], &mut [f32]),
) -> Result<Tile> {
    let layer = container.layer(net, id)?;
    let tile = *layer
        .tiles
        .get(index)
        .ok_or_else(|| Error::internal("tile index"))?;
    let weights = tile.weights();
    let out = match form {
        TileForm::F32 => TileOut::F32(words.get_mut(..weights).ok_or_else(short)?),
        TileForm::I8 | TileForm::Lut => TileOut::Codes(
            bytemuck::cast_slice_mut(words)
                .get_mut(..weights)
                .ok_or_else(short)?,
        ),
    };
    decoder.decode(container, net, id, index, out)?;
    if let (TileForm::I8, Values::Grid { steps }) = (form, &layer.values) {
        spread(layer, &tile, steps, steps_out)?;
    }
    Ok(tile)
}

/// Brings the steps of the tile's channels into the order of its lanes.
fn spread(layer: &Layer, tile: &Tile, steps: &Steps, out: &mut [f32]) -> Result<()> {
    let (blocks, values) = match steps {
        Steps::Layer(_) => return Ok(()),
        Steps::Channel(values) => (1, values),
        Steps::Block { steps, .. } => (step_rows(layer), steps),
    };
    let panels = out.chunks_exact_mut((blocks * PANEL).max(1));
    for (panel, out) in (tile.panel as usize..).zip(panels.take(tile.panels as usize)) {
        let (first, lanes) = layer.shape.panel_channels(panel);
        out.fill(0.0);
        for lane in 0..lanes {
            let channel = values
                .get((first + lane) * blocks..)
                .and_then(|v| v.get(..blocks))
                .ok_or_else(short)?;
            for (block, &step) in out.chunks_exact_mut(PANEL).zip(channel) {
                block[lane] = step;
            }
        }
    }
    Ok(())
}

/// A decoded tile as kernels read it.
fn view<'a>(
    layer: &'a Layer,
    info: &'a LayerInfo,
    tile: &Tile,
    form: TileForm,
    (words, steps_in): (&'a [f32], &'a [f32]),
) -> Result<WeightTile<'a>> {
    let weights = tile.weights();
    let bytes: &[u8] = bytemuck::cast_slice(words);
    let values = match form {
        TileForm::F32 => TileValues::F32(words.get(..weights).ok_or_else(short)?),
        TileForm::Lut => TileValues::Lut {
            codes: bytes.get(..weights).ok_or_else(short)?,
            lut: info.lut.as_deref().ok_or_else(short)?,
        },
        TileForm::I8 => {
            let Values::Grid { steps } = &layer.values else {
                return Err(short());
            };
            let lanes = tile.panels as usize * PANEL;
            TileValues::I8 {
                q: bytemuck::cast_slice(bytes.get(..weights).ok_or_else(short)?),
                steps: match steps {
                    Steps::Layer(step) => weights::Steps::Layer(*step),
                    Steps::Channel(_) => {
                        weights::Steps::Channel(steps_in.get(..lanes).ok_or_else(short)?)
                    }
                    Steps::Block { len, .. } => {
                        let blocks = step_rows(layer);
                        let steps = steps_in.get(..lanes * blocks).ok_or_else(short)?;
                        weights::Steps::Block {
                            len: *len as usize,
                            blocks,
                            steps,
                        }
                    }
                },
            }
        }
    };
    Ok(WeightTile {
        first_panel: tile.panel as usize,
        panels: tile.panels as usize,
        k0: tile.k as usize,
        k_len: tile.k_len as usize,
        order: info.order,
        values,
    })
}

/// Steps per lane.
fn step_rows(layer: &Layer) -> usize {
    match &layer.values {
        Values::Grid {
            steps: Steps::Channel(_),
        } => 1,
        Values::Grid {
            steps: Steps::Block { len, .. },
        } => layer.shape.k().div_ceil((*len).max(1) as usize),
        _ => 0,
    }
}

fn short() -> Error {
    Error::internal("tile buffer")
}
