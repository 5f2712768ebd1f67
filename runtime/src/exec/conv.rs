//! Convolutions. Tiles that are not kept are taken in groups of one run per thread (neighbouring tiles that the kernel joins,
//! where there is room for them): the threads decode the group in parallel,
//! then every thread computes its own rows of the output for all tiles of the group (rows of the
//! `[row][channel][column]` layout are contiguous, so the output is split without sharing). On small maps each thread takes
//! whole panels instead, one after the other, decodes and computes them into its scratch and copies the results to their
//! places; the threads meet once per layer, and one decodes while the others compute.

use super::operands::{Operands, epilogue_of, image_of, kernel_epilogue, rows_of};
use super::weights::{Coded, Group, Kept, Slot, outcomes, panel_start, slots};
use super::{Exec, Io, mismatch};
use crate::cost;
use crate::error::Result;
use crate::parts::{Parts, per_image, split_rows, split_scratch};
use crate::program::ConvWork;
use crate::resident::ResidentLayer;
use crate::threads::Team;
use crate::weights::{self, LayerInfo};
use dcz_format::layer::{Layer, PANEL, Tile};
use dcz_kernels::sparse;
use dcz_kernels::winograd::{self, Winograd};
use dcz_kernels::{ConvShape, Isa, Map, Start, ViewMut, WeightTile};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

impl Exec<'_> {
    pub(super) fn conv(
        &mut self,
        work: &ConvWork,
        at: Operands<'_>,
        io: &Io<'_, '_, '_, '_>,
    ) -> Result<()> {
        let (layer, info, id) = self.layer(work.layer)?;
        let coded = self.coded(id);
        let epilogue = kernel_epilogue(&work.epilogue, self.constants)?;
        let (from, to) = (at.input(0)?.map(), at.step.output.map());
        let residents = self.residents;
        let (source, out, scratch, tiles) = at.with_scratch(self.arena, io)?;
        let job = ConvJob {
            work,
            layer,
            info,
            isa: self.isa,
            epilogue,
            source,
            from,
            to,
        };
        let threads = at.step.threads.clamp(1, self.workers.len().max(1));
        let workers = self.workers.get_mut(..threads).ok_or_else(mismatch)?;
        let kept = at.resident(residents)?;
        let slots = slots(workers, tiles)?;
        if work.by_panels {
            job.by_panels(self.team, kept, &coded, out, slots, scratch)?;
        } else {
            job.by_rows(self.team, kept, &coded, out, slots, scratch)?;
        }
        if kept.is_none() {
            self.release_layer(id, layer);
        }
        Ok(())
    }
}

/// A convolution as its threads see it.
pub(super) struct ConvJob<'a> {
    pub(super) work: &'a ConvWork,
    pub(super) layer: &'a Layer,
    pub(super) info: &'a LayerInfo,
    pub(super) isa: Isa,
    pub(super) epilogue: dcz_kernels::Epilogue<'a>,
    pub(super) source: &'a [f32],
    pub(super) from: Map,
    pub(super) to: Map,
}

impl ConvJob<'_> {
    /// Every thread computes its own rows of the output for all tiles of a group.
    pub(super) fn by_rows(
        &self,
        team: &Team,
        kept: Option<Kept<'_>>,
        coded: &Coded<'_>,
        out: &mut [f32],
        mut slots: Parts<Slot<'_>>,
        scratch: &mut [f32],
    ) -> Result<()> {
        let slots = slots.used();
        let (to, threads) = (self.to, slots.len());
        let (rows, row_len) = (to.n * to.h, to.c * to.w);
        let panels = 0..self.work.shape.panels();
        if let Some(Kept::Fft(weights)) = kept {
            let work = (threads, weights.rows());
            return split_rows(
                team,
                work,
                rows,
                row_len,
                out,
                scratch,
                |range, out, scratch| {
                    per_image(range, to, out, |image, rows, data| {
                        let map = rows_of(to, rows.len());
                        let input = image_of(self.source, self.from, image);
                        let out = &mut ViewMut { data, map };
                        let epilogue = &self.epilogue;
                        weights.run(
                            panels.clone(),
                            input,
                            rows,
                            out,
                            self.start(),
                            epilogue,
                            scratch,
                        );
                    })
                },
            );
        }
        if let Some(Kept::Lists(lists)) = kept {
            let work = (threads, 1);
            return split_rows(
                team,
                work,
                rows,
                row_len,
                out,
                scratch,
                |range, out, scratch| {
                    per_image(range, to, out, |image, rows, data| {
                        let map = rows_of(to, rows.len());
                        let input = image_of(self.source, self.from, image);
                        sparse::run(
                            self.isa,
                            &lists.shape,
                            &self.work.shape,
                            lists.group,
                            lists.view(),
                            panels.clone(),
                            input,
                            rows,
                            &mut ViewMut { data, map },
                            self.start(),
                            Some(&self.epilogue),
                            scratch,
                        );
                    })
                },
            );
        }
        let unit = cost::transform(self.work.algorithm).map_or(1, Winograd::tile);
        if let Some(weights) = kept.and_then(|kept| kept.transformed(0, panels.end)) {
            return split_rows(
                team,
                (threads, unit),
                rows,
                row_len,
                out,
                scratch,
                |range, out, scratch| {
                    per_image(range, to, out, |image, rows, data| {
                        let mut out = ViewMut {
                            data,
                            map: rows_of(to, rows.len()),
                        };
                        let epilogue = &self.epilogue;
                        self.winograd(
                            &self.work.shape,
                            weights,
                            panels.clone(),
                            image,
                            rows,
                            &mut out,
                            epilogue,
                            scratch,
                        );
                    })
                },
            );
        }
        let joined = self.joined(matches!(kept, Some(Kept::Tiles(_))));
        let mut next = 0;
        while next < self.layer.tiles.len() {
            let from = (coded, self.layer);
            let group = Group::new(team, kept, slots, from, next, joined)?;
            next = group.tiles.end;
            split_rows(
                team,
                (threads, unit),
                rows,
                row_len,
                out,
                &mut *scratch,
                |range, out, scratch| {
                    let image = |row: usize| row / to.h.max(1);
                    let one = image(range.start) == image(range.end.saturating_sub(1));
                    let mut index = group.tiles.start;
                    while index < group.tiles.end {
                        let run = weights::run(self.layer, index, joined);
                        let tile = |index| group.tile(index, self.layer, self.info);
                        let (tiles, record) = self.tiles(run.clone(), &tile)?;
                        let tiles = tiles.get(..run.len()).ok_or_else(mismatch)?;
                        let (start, last) = self.range_of_k(&record);
                        let warm = one && self.is_warm(index);
                        index = run.end;
                        per_image(range.clone(), to, out, |image, rows, data| {
                            dcz_kernels::conv_tiles(
                                self.isa,
                                self.work.algorithm,
                                &self.work.shape,
                                tiles,
                                image_of(self.source, self.from, image),
                                rows.clone(),
                                &mut ViewMut {
                                    data,
                                    map: rows_of(to, rows.len()),
                                },
                                start,
                                last.then_some(&self.epilogue),
                                warm,
                                scratch,
                            );
                        })?;
                    }
                    Ok(())
                },
            )?;
        }
        Ok(())
    }

    /// Threads take whole panels, one after the other, decode and compute them into their scratch
    /// and copy the results to their places: one region for the whole layer.
    fn by_panels(
        &self,
        team: &Team,
        kept: Option<Kept<'_>>,
        coded: &Coded<'_>,
        out: &mut [f32],
        mut slots: Parts<Slot<'_>>,
        scratch: &mut [f32],
    ) -> Result<()> {
        let threads = slots.used().len();
        let mut parts = Parts::new();
        let scratch = split_scratch(scratch, threads);
        for (slot, scratch) in slots.used().iter_mut().flatten().zip(scratch) {
            parts.push((slot, scratch))?;
        }
        let out = Mutex::new(out);
        let next = AtomicUsize::new(0);
        team.for_each(parts.used(), |_, part| {
            let Some((slot, scratch)) = part else {
                return;
            };
            let outcome = match kept {
                Some(Kept::Winograd(kept)) => self.shares(kept, threads, &next, &out, scratch),
                kept => self.panels(kept, coded, &next, &out, slot, scratch),
            };
            slot.worker.outcome = outcome;
        });
        outcomes(slots.used())
    }

    /// Whether a tile differs from the one before it in its place only: what that one left in the scratch is of use.
    fn is_warm(&self, index: usize) -> bool {
        let tile = |index: usize| self.layer.tiles.get(index);
        let like = |index| tile(index).map(|t| (t.panels, t.k, t.k_len));
        index > 0 && like(index) == like(index - 1)
    }

    /// Whether neighbouring tiles are computed together: always if they are `kept`, else where the plan has room for it.
    fn joined(&self, kept: bool) -> bool {
        dcz_kernels::joins(self.work.algorithm) && (kept || self.work.level == 0)
    }

    /// The tiles of a run, `tile(index)` each, and the record of the first one.
    fn tiles<'v>(
        &self,
        run: Range<usize>,
        tile: &dyn Fn(usize) -> Result<(WeightTile<'v>, Tile)>,
    ) -> Result<([WeightTile<'v>; dcz_kernels::JOINED], Tile)> {
        let (first, record) = tile(run.start)?;
        let mut tiles = [first; dcz_kernels::JOINED];
        for (to, index) in tiles.iter_mut().zip(run).skip(1) {
            (*to, _) = tile(index)?;
        }
        Ok((tiles, record))
    }

    /// Whether the sums of the layer are added to what is there.
    fn start(&self) -> Start {
        if self.work.accumulate {
            Start::Accumulate
        } else {
            Start::Zero
        }
    }

    /// Whether a tile begins the sums or adds to them, and whether it ends them.
    fn range_of_k(&self, tile: &Tile) -> (Start, bool) {
        let fresh = tile.k == 0 && !self.work.accumulate;
        let last = tile.k as usize + tile.k_len as usize == self.info.k;
        let start = if fresh {
            Start::Zero
        } else {
            Start::Accumulate
        };
        (start, last)
    }

    /// Where the rows of `count` channels from `channel` on lie in the output.
    fn rows(&self, channel: usize, count: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let Map { n, c, h, w, .. } = self.to;
        (0..n * h).map(move |row| {
            let at = (row * c + channel) * w;
            at..at + count * w
        })
    }

    /// Computes `count` channels from `channel` on, `[image][row][channel][column]`, at the end of
    /// `scratch` and brings them to their place. `f(shape, epilogue, map, data, scratch)`, the
    /// channels being a layer of their own.
    fn own_channels<F>(
        &self,
        channel: usize,
        count: usize,
        out: &Mutex<&mut [f32]>,
        scratch: &mut [f32],
        f: F,
    ) -> Result<()>
    where
        F: FnOnce(&ConvShape, &dcz_kernels::Epilogue<'_>, &mut [f32], &mut [f32]) -> Result<()>,
    {
        let Map { n, h, w, .. } = self.to;
        // The kernel gets the same scratch for all panels.
        let own = n * h * w * count.next_multiple_of(PANEL);
        let rest = scratch.len().checked_sub(own);
        let (scratch, own) = scratch.split_at_mut(rest.ok_or_else(mismatch)?);
        let own = own.get_mut(..n * h * w * count).ok_or_else(mismatch)?;
        let places = || self.rows(channel, count);
        // The output is plain data: a thread that panicked with the lock has broken nothing.
        let lock = || out.lock().unwrap_or_else(PoisonError::into_inner);
        if self.work.accumulate {
            let out = lock();
            for (place, row) in places().zip(own.chunks_exact_mut(count * w)) {
                row.copy_from_slice(out.get(place).ok_or_else(mismatch)?);
            }
        }
        let epilogue = epilogue_of(&self.epilogue, channel, count)?;
        let shape = ConvShape {
            out_channels: count,
            ..self.work.shape
        };
        f(&shape, &epilogue, own, scratch)?;
        let mut out = lock();
        for (place, row) in places().zip(own.chunks_exact(count * w)) {
            let place = out.get_mut(place).ok_or_else(mismatch)?;
            place.copy_from_slice(row);
        }
        Ok(())
    }

    /// Takes panel after panel (whole tiles) until none is left.
    fn panels(
        &self,
        kept: Option<Kept<'_>>,
        coded: &Coded<'_>,
        next: &AtomicUsize,
        out: &Mutex<&mut [f32]>,
        slot: &mut Slot<'_>,
        scratch: &mut [f32],
    ) -> Result<()> {
        let Map { h, w, .. } = self.to;
        // Kept tiles are large enough by themselves, and more of them divide better.
        let joined = kept.is_none() && self.joined(false);
        let mut before = None;
        while let Some(taken) = take_panels(self.layer, next, joined) {
            let first = self.layer.tiles.get(taken.start).ok_or_else(mismatch)?;
            let channel = first.panel as usize * PANEL;
            let run = weights::run(self.layer, taken.start, joined);
            let count = weights::run_panels(self.layer, run) * PANEL;
            let count = count.min(self.to.c.saturating_sub(channel)).max(1);
            self.own_channels(
                channel,
                count,
                out,
                scratch,
                |shape, epilogue, own, scratch| {
                    let mut index = taken.start;
                    while index < taken.end {
                        let run = weights::run(self.layer, index, joined);
                        if kept.is_none() {
                            slot.decode(coded, self.layer, run.clone())?;
                        }
                        let own_panel = |index| {
                            let (tile, record) = match &kept {
                                Some(kept) => kept.tile(index, self.layer, self.info)?,
                                None => slot.tile(index, self.layer, self.info)?,
                            };
                            // The channels are a layer of their own.
                            let tile = WeightTile {
                                first_panel: tile.first_panel.saturating_sub(channel / PANEL),
                                ..tile
                            };
                            Ok((tile, record))
                        };
                        let (tiles, record) = self.tiles(run.clone(), &own_panel)?;
                        let tiles = tiles.get(..run.len()).ok_or_else(mismatch)?;
                        index = run.end;
                        let (start, last) = self.range_of_k(&record);
                        let like = Some((record.panels, record.k, record.k_len));
                        let warm = like == std::mem::replace(&mut before, like) && self.to.n == 1;
                        for (image, data) in own.chunks_exact_mut(h * w * count).enumerate() {
                            dcz_kernels::conv_tiles(
                                self.isa,
                                self.work.algorithm,
                                shape,
                                tiles,
                                image_of(self.source, self.from, image),
                                0..h,
                                &mut ViewMut {
                                    data,
                                    map: Map::rows(1, count, h, w),
                                },
                                start,
                                last.then_some(epilogue),
                                warm,
                                scratch,
                            );
                        }
                    }
                    Ok(())
                },
            )?;
        }
        Ok(())
    }

    /// Takes equal shares of the panels of a layer with transformed weights until none is left.
    fn shares(
        &self,
        kept: &ResidentLayer,
        threads: usize,
        next: &AtomicUsize,
        out: &Mutex<&mut [f32]>,
        scratch: &mut [f32],
    ) -> Result<()> {
        let Map { h, w, .. } = self.to;
        let panels = self.work.shape.panels();
        let share = panels.div_ceil(threads.max(1)).max(1);
        loop {
            let first = next.fetch_add(share, Ordering::Relaxed);
            if first >= panels {
                return Ok(());
            }
            let own_panels = share.min(panels - first);
            let channel = first * PANEL;
            let count = (own_panels * PANEL).min(self.to.c.saturating_sub(channel));
            let weights = kept.transformed(first, panels).ok_or_else(mismatch)?;
            self.own_channels(
                channel,
                count.max(1),
                out,
                scratch,
                |shape, epilogue, own, scratch| {
                    for (image, data) in own.chunks_exact_mut(h * w * count).enumerate() {
                        let mut out = ViewMut {
                            data,
                            map: Map::rows(1, count, h, w),
                        };
                        let panels = 0..own_panels;
                        self.winograd(
                            shape,
                            weights,
                            panels,
                            image,
                            0..h,
                            &mut out,
                            epilogue,
                            scratch,
                        );
                    }
                    Ok(())
                },
            )?;
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the kernel's arguments")]
    fn winograd(
        &self,
        shape: &ConvShape,
        weights: winograd::Resident<'_>,
        panels: Range<usize>,
        image: usize,
        rows: Range<usize>,
        out: &mut ViewMut<'_>,
        epilogue: &dcz_kernels::Epilogue<'_>,
        scratch: &mut [f32],
    ) {
        // The plan keeps transformed weights for these algorithms only.
        let Some(size) = cost::transform(self.work.algorithm) else {
            return;
        };
        winograd::run(
            self.isa,
            size,
            shape,
            weights,
            panels,
            image_of(self.source, self.from, image),
            rows,
            out,
            self.start(),
            Some(epilogue),
            scratch,
        );
    }
}

/// The tiles of the next panels that nobody has taken: of whole panels, and a whole run.
fn take_panels(layer: &Layer, next: &AtomicUsize, joined: bool) -> Option<Range<usize>> {
    let mut taken = 0..0;
    let update = next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |first| {
        let run = weights::run(layer, first, joined);
        taken = first..panel_start(layer, run.end.max(first + 1));
        (!taken.is_empty()).then_some(taken.end)
    });
    update.ok().map(|_| taken)
}
