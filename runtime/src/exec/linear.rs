//! Linear layers. Of one row each thread owns whole panels and decodes and computes them without meeting the others; more
//! rows are split like those of a convolution.

use super::operands::{Operands, epilogue_of, kernel_epilogue};
use super::weights::{Coded, Group, Kept, Slot, outcomes, panel_start, slots};
use super::{Exec, Io, mismatch};
use crate::error::Result;
use crate::parts::{Parts, split_rows, split_scratch};
use crate::program::LinearWork;
use crate::resident;
use crate::weights::LayerInfo;
use dcz_format::layer::{Layer, PANEL, Tile};
use dcz_kernels::linear_sparse;
use dcz_kernels::{Isa, Start, WeightTile};
use std::ops::Range;

impl Exec<'_> {
    pub(super) fn linear(
        &mut self,
        work: &LinearWork,
        at: Operands<'_>,
        io: &Io<'_, '_, '_, '_>,
    ) -> Result<()> {
        let (layer, info, id) = self.layer(work.layer)?;
        let coded = self.coded(id);
        let residents = self.residents;
        let (x, y, scratch, tiles) = at.with_scratch(self.arena, io)?;
        let kept = at.resident(residents)?;
        let y = y.get_mut(..work.rows * work.outputs).ok_or_else(mismatch)?;
        let threads = at.step.threads.clamp(1, self.workers.len().max(1));
        let workers = self.workers.get_mut(..threads).ok_or_else(mismatch)?;
        let mut slots = slots(workers, tiles)?;
        let (team, tiles) = (self.team, layer.tiles.len());
        let epilogue = kernel_epilogue(&work.epilogue, self.constants)?;
        let job = LinearJob {
            work,
            layer,
            info,
            isa: self.isa,
            epilogue,
            kept,
        };
        if work.rows == 1 {
            // Each thread owns a range of whole panels.
            let mut parts = Parts::new();
            let (mut rest, mut channel, mut tile) = (y, 0, 0);
            let own = split_scratch(scratch, threads);
            let threads_data = slots.used().iter_mut().flatten().zip(own);
            for (part, (slot, scratch)) in (1..=threads).zip(threads_data) {
                let end = panel_start(layer, tiles * part / threads);
                let last = layer
                    .tiles
                    .get(end)
                    .map_or(work.outputs, |t| t.panel as usize * PANEL);
                let own = rest
                    .split_off_mut(..last.saturating_sub(channel))
                    .ok_or_else(mismatch)?;
                parts.push((tile..end, channel, own, slot, scratch))?;
                (channel, tile) = (last, end);
            }
            team.for_each(parts.used(), |_, part| {
                if let Some((tiles, first, y, slot, scratch)) = part {
                    let outcome = job.panels(&coded, tiles.clone(), x, *first, y, slot, scratch);
                    slot.worker.outcome = outcome;
                }
            });
            outcomes(slots.used())?;
        } else {
            let mut next = 0;
            while next < tiles {
                let from = (&coded, layer);
                let group = Group::new(team, kept, slots.used(), from, next, false)?;
                next = group.tiles.end;
                let (rows, len) = (work.rows, work.outputs);
                split_rows(
                    team,
                    (threads, 1),
                    rows,
                    len,
                    y,
                    &mut *scratch,
                    |range, y, scratch| {
                        let x = x.get(range.start * work.inputs..).ok_or_else(mismatch)?;
                        if let Some(Kept::Lists(lists)) = kept {
                            return job.lists(lists, x, range.len(), 0, y);
                        }
                        for index in group.tiles.clone() {
                            let tile = group.tile(index, layer, info)?;
                            job.tile(&tile, x, range.len(), 0, y, scratch)?;
                        }
                        Ok(())
                    },
                )?;
            }
        }
        if kept.is_none() {
            self.release_layer(id, layer);
        }
        Ok(())
    }
}

/// A linear layer as its threads see it.
struct LinearJob<'a> {
    work: &'a LinearWork,
    layer: &'a Layer,
    info: &'a LayerInfo,
    isa: Isa,
    epilogue: dcz_kernels::Epilogue<'a>,
    kept: Option<Kept<'a>>,
}

impl LinearJob<'_> {
    /// Decodes and computes tiles for one row; `y` starts at output channel `first`.
    #[expect(clippy::too_many_arguments, reason = "the inner half of one loop")]
    fn panels(
        &self,
        coded: &Coded<'_>,
        tiles: Range<usize>,
        x: &[f32],
        first: usize,
        y: &mut [f32],
        slot: &mut Slot<'_>,
        scratch: &mut [f32],
    ) -> Result<()> {
        if let Some(Kept::Lists(lists)) = self.kept {
            return self.lists(lists, x, 1, first, y);
        }
        for tile in tiles {
            let decoded = match &self.kept {
                Some(kept) => kept.tile(tile, self.layer, self.info)?,
                None => {
                    slot.decode(coded, self.layer, tile..tile + 1)?;
                    slot.tile(tile, self.layer, self.info)?
                }
            };
            self.tile(&decoded, x, 1, first, y, scratch)?;
        }
        Ok(())
    }

    /// Resident lists for `n` rows; `y` starts at output channel `first` of its first row, and holds all others of it if
    /// there are more rows.
    fn lists(
        &self,
        lists: &resident::Lists,
        x: &[f32],
        n: usize,
        first: usize,
        y: &mut [f32],
    ) -> Result<()> {
        let (inputs, outputs) = (self.work.inputs, self.work.outputs);
        let count = (outputs - first).min(y.len());
        let epilogue = epilogue_of(&self.epilogue, first, count)?;
        let start = if self.work.accumulate {
            Start::Accumulate
        } else {
            Start::Zero
        };
        let rows = x
            .chunks_exact(inputs.max(1))
            .zip(y.chunks_mut(count.max(1)));
        for (x, y) in rows.take(n) {
            let (range, epilogue) = (first..first + count, Some(&epilogue));
            linear_sparse::run(
                self.isa,
                lists.view(),
                outputs,
                range,
                x,
                y,
                start,
                epilogue,
            );
        }
        Ok(())
    }

    /// One decoded tile for `n` rows; `y` starts at output channel `first` of its first row.
    fn tile(
        &self,
        (tile, record): &(WeightTile<'_>, Tile),
        x: &[f32],
        n: usize,
        first: usize,
        y: &mut [f32],
        scratch: &mut [f32],
    ) -> Result<()> {
        let channel = tile.first_panel * PANEL;
        let count = (tile.panels * PANEL).min(self.work.outputs - channel);
        let epilogue = epilogue_of(&self.epilogue, channel, count)?;
        let fresh = record.k == 0 && !self.work.accumulate;
        let last = record.k as usize + record.k_len as usize == self.info.k;
        let y = y
            .get_mut(channel.checked_sub(first).ok_or_else(mismatch)?..)
            .ok_or_else(mismatch)?;
        dcz_kernels::linear_tile(
            self.isa,
            tile,
            self.work.outputs,
            x,
            n,
            self.work.inputs,
            y,
            self.work.outputs,
            if fresh {
                Start::Zero
            } else {
                Start::Accumulate
            },
            last.then_some(&epilogue),
            scratch,
        );
        Ok(())
    }
}
