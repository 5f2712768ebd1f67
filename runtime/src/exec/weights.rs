//! Where the weights of a step come from: kept by the plan, decoded into the bank of a band, or decoded tile by tile into
//! the scratch of the threads; and when the mapped pages that were read go back.

use super::{Exec, Worker, mismatch, nanos};
use crate::error::Result;
use crate::fft;
use crate::parts::{Parts, split_scratch};
use crate::resident::{self, ResidentLayer};
use crate::threads::Team;
use crate::weights::{self, Bank, LayerInfo, TileBuffer};
use dcz_format::Container;
use dcz_format::graph::LayerId;
use dcz_format::layer::{Layer, Tile};
use dcz_kernels::WeightTile;
use dcz_kernels::winograd;
use std::ops::Range;
use std::time::Instant;

impl<'e> Exec<'e> {
    pub(super) fn layer(&self, index: usize) -> Result<(&'e Layer, &'e LayerInfo, LayerId)> {
        let (network, layers) = (self.network, self.layers);
        let layer = network.layers.get(index).ok_or_else(mismatch)?;
        Ok((
            layer,
            layers.get(index).ok_or_else(mismatch)?,
            LayerId(index as u32),
        ))
    }

    /// The coded weights of a layer.
    pub(super) fn coded(&self, id: LayerId) -> Coded<'e> {
        Coded {
            container: self.container,
            net: self.net,
            id,
            timed: self.profiling,
            window: self.release.then_some(self.window()),
        }
    }

    /// Pages are given back in such windows, those behind the reader.
    fn window(&self) -> u64 {
        if self.workers.len() > 1 {
            WIDE_WINDOW
        } else {
            WINDOW
        }
    }

    /// Gives mapped pages back; the next run reads them from the page cache again.
    pub(super) fn release_layer(&self, id: LayerId, layer: &Layer) {
        if self.release && self.window() == WINDOW {
            release(self.container, self.net, id.0 as usize, layer);
        }
    }
}

/// Bytes of a file that are mapped together.
const WINDOW: u64 = 65_536;

/// The window with several threads: to give pages back the system interrupts the processors that run them, which takes
/// longer than decoding a small layer (a millisecond on a busy virtual machine). What is in the last one stays.
const WIDE_WINDOW: u64 = 1 << 20;

/// More than what lies between two tiles.
const GAP: u64 = 4096;

/// Gives the mapped pages of a layer back.
pub(crate) fn release(container: &Container, net: usize, layer: usize, record: &Layer) {
    let id = LayerId(layer as u32);
    let Some(last) = record.tiles.len().checked_sub(1) else {
        return;
    };
    let ends = (container.tile(net, id, 0), container.tile(net, id, last));
    if let (Ok((_, first)), Ok((_, last))) = ends {
        let len = last.end.saturating_sub(first.start);
        container.source().release(first.start, len);
    }
}

/// The coded weights of one layer.
pub(super) struct Coded<'a> {
    pub(super) container: &'a Container,
    pub(super) net: usize,
    pub(super) id: LayerId,
    pub(super) timed: bool,
    /// Drop the mapped pages behind the reader in windows of this size.
    pub(super) window: Option<u64>,
}

impl Coded<'_> {
    /// Decodes tiles of the layer, one after the other, into a bank of theirs.
    pub(super) fn decode(
        &self,
        worker: &mut Worker,
        layer: &Layer,
        tiles: Range<usize>,
        mut bank: &mut [f32],
    ) -> Result<()> {
        let begin = self.timed.then(Instant::now);
        for index in tiles {
            let tile = layer.tiles.get(index).ok_or_else(mismatch)?;
            let part = bank.split_off_mut(..weights::bank_part(layer, tile));
            let part = part.ok_or_else(mismatch)?;
            let place = (self.net, self.id, index);
            weights::decode_part(&mut worker.decoder, self.container, place, part)?;
            self.used(index);
        }
        if let Some(begin) = begin {
            worker.decode_ns += nanos(begin);
        }
        Ok(())
    }

    /// A tile has been read: the windows that end in it are given back. The last one goes with the layer.
    fn used(&self, tile: usize) {
        if let Some(window) = self.window
            && let Ok((_, range)) = self.container.tile(self.net, self.id, tile)
        {
            let whole = |at: u64| at / window * window;
            // A window may end in the gap before the tile.
            let (from, to) = (whole(range.start.saturating_sub(GAP)), whole(range.end));
            if from < to {
                self.container.source().release(from, to - from);
            }
        }
    }
}

/// Where the weights of a step are in memory.
#[derive(Clone, Copy)]
pub(super) enum Kept<'a> {
    /// Resident tiles.
    Tiles(&'a [TileBuffer]),
    /// All tiles, decoded by the band that runs.
    Bank(Bank<'a>),
    /// Resident and transformed.
    Winograd(&'a ResidentLayer),
    /// Resident in the frequency domain.
    Fft(&'a fft::Transformed),
    /// Resident lists.
    Lists(&'a resident::Lists),
}

impl<'a> Kept<'a> {
    /// Transformed weights from panel `first` of `panels` on.
    pub(super) fn transformed(self, first: usize, panels: usize) -> Option<winograd::Resident<'a>> {
        match self {
            Kept::Winograd(layer) => layer.transformed(first, panels),
            _ => None,
        }
    }

    pub(super) fn tile<'v>(
        &'v self,
        index: usize,
        layer: &'v Layer,
        info: &'v LayerInfo,
    ) -> Result<(WeightTile<'v>, Tile)> {
        match self {
            Kept::Tiles(tiles) => tiles.get(index).ok_or_else(mismatch)?.view(layer, info),
            Kept::Bank(bank) => bank.view(layer, info, index),
            _ => Err(mismatch()),
        }
    }
}

impl<'a> From<&'a ResidentLayer> for Kept<'a> {
    fn from(layer: &'a ResidentLayer) -> Kept<'a> {
        match layer {
            ResidentLayer::Tiles(tiles) => Kept::Tiles(tiles),
            ResidentLayer::Fft(weights) => Kept::Fft(weights),
            ResidentLayer::Lists(lists) => Kept::Lists(lists),
            layer => Kept::Winograd(layer),
        }
    }
}

/// A thread within a step: its decoder, and room in the step's scratch for a run of decoded tiles.
pub(super) struct Slot<'w> {
    pub(super) worker: &'w mut Worker,
    memory: &'w mut [f32],
    /// Those that are there.
    tiles: Range<usize>,
}

impl Slot<'_> {
    /// Decodes a run of tiles.
    pub(super) fn decode(
        &mut self,
        coded: &Coded<'_>,
        layer: &Layer,
        tiles: Range<usize>,
    ) -> Result<()> {
        self.tiles = tiles.clone();
        coded.decode(self.worker, layer, tiles, self.memory)
    }

    /// One of them, by its index in the layer.
    pub(super) fn tile<'v>(
        &'v self,
        index: usize,
        layer: &'v Layer,
        info: &'v LayerInfo,
    ) -> Result<(WeightTile<'v>, Tile)> {
        let bank = Bank {
            data: &*self.memory,
            first: self.tiles.start,
        };
        bank.view(layer, info, index)
    }
}

/// One for each worker, from the memory for all their tiles.
pub(super) fn slots<'w>(
    workers: &'w mut [Worker],
    tiles: &'w mut [f32],
) -> Result<Parts<Slot<'w>>> {
    let mut slots = Parts::new();
    let tiles = split_scratch(tiles, workers.len());
    for (worker, memory) in workers.iter_mut().zip(tiles) {
        slots.push(Slot {
            worker,
            memory,
            tiles: 0..0,
        })?;
    }
    Ok(slots)
}

/// The first error of these threads.
pub(super) fn outcomes(slots: &mut [Option<Slot<'_>>]) -> Result<()> {
    for slot in slots.iter_mut().flatten() {
        std::mem::replace(&mut slot.worker.outcome, Ok(()))?;
    }
    Ok(())
}

/// Tiles ready for use: all that are kept, or a run decoded by each thread.
pub(super) struct Group<'g, 'w> {
    kept: Option<Kept<'g>>,
    slots: &'g [Option<Slot<'w>>],
    /// The tiles of the layer that are there.
    pub(super) tiles: Range<usize>,
}

impl<'g, 'w> Group<'g, 'w> {
    /// At least one tile from tile `first` on, which exists; unless they are kept, threads decode a run each, of neighbouring
    /// tiles where they are `joined`.
    pub(super) fn new(
        team: &Team,
        kept: Option<Kept<'g>>,
        slots: &'g mut [Option<Slot<'w>>],
        (coded, layer): (&Coded<'_>, &Layer),
        first: usize,
        joined: bool,
    ) -> Result<Group<'g, 'w>> {
        if kept.is_some() {
            let tiles = first..layer.tiles.len();
            return Ok(Group { kept, slots, tiles });
        }
        let mut end = first;
        let mut used = 0;
        for slot in slots.iter_mut().flatten() {
            let run = weights::run(layer, end, joined);
            end = run.end;
            used += usize::from(!run.is_empty());
            slot.tiles = run;
        }
        if end == first {
            return Err(mismatch());
        }
        let used = slots.get_mut(..used).ok_or_else(mismatch)?;
        team.for_each(used, |_, slot| {
            if let Some(slot) = slot {
                let outcome = slot.decode(coded, layer, slot.tiles.clone());
                slot.worker.outcome = outcome;
            }
        });
        outcomes(used)?;
        let tiles = first..end;
        Ok(Group { kept, slots, tiles })
    }

    /// Tile `index` of the layer.
    pub(super) fn tile<'v>(
        &'v self,
        index: usize,
        layer: &'v Layer,
        info: &'v LayerInfo,
    ) -> Result<(WeightTile<'v>, Tile)> {
        match &self.kept {
            Some(kept) => kept.tile(index, layer, info),
            None => {
                let mut slots = self.slots.iter().flatten();
                let slot = slots.find(|slot| slot.tiles.contains(&index));
                slot.ok_or_else(mismatch)?.tile(index, layer, info)
            }
        }
    }
}

/// The first tile at or after `index` that begins a panel.
pub(super) fn panel_start(layer: &Layer, index: usize) -> usize {
    let later = layer.tiles.iter().enumerate().skip(index);
    later
        .into_iter()
        .find(|(_, tile)| tile.k == 0)
        .map_or(layer.tiles.len(), |(i, _)| i)
}
