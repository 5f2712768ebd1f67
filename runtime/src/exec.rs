//! Executes a program. Reads the plan's decisions and makes none; allocates nothing.
//!
//! Tiles of a convolution that are not kept are taken in groups of one per thread: the threads decode the
//! group in parallel, then every thread computes its own rows of the output for all tiles of the group
//! (rows of the `[row][channel][column]` layout are contiguous, so the output is split without
//! sharing). On small maps each thread takes whole panels instead, one after the other, decodes and
//! computes them into its scratch and copies the results to their places; the threads meet once per
//! layer, and one decodes while the others compute. Of a linear layer with one row each thread owns whole panels and decodes and computes
//! them without meeting the others; with more rows the rows are split like those of a convolution.
//! A sum is never split between threads, and its order depends on the layer's tiles only.

use crate::cost;
use crate::error::{Error, Result};
use crate::fft;
use crate::input::{Feed, Inputs};
use crate::parts::{Parts, each_rows, split_rows, split_scratch};
use crate::program::{
    ConvWork, Epilogue, Function, LinearWork, Place, Program, Rearrange, Step, Value, Work, align,
    broadcast_strides,
};
use crate::resident::{self, ResidentLayer};
use crate::threads::Team;
use crate::weights::{Bank, LayerInfo, TileBuffer};
use crate::{convert, error};
use dcz_format::graph::{LayerId, Network};
use dcz_format::layer::{Layer, PANEL, Tile};
use dcz_format::{Container, TileDecoder, TileForm};
use dcz_kernels::winograd::{self, Winograd};
use dcz_kernels::{Activation, ConvShape, Isa, Map, Start, View, ViewMut, WeightTile};
use dcz_kernels::{activation, binary, layout, norm, pool, resize};
use dcz_kernels::{linear_sparse, sparse};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

mod band;

/// What one thread owns: a decoder, a decoded tile, and the outcome of its last job.
#[derive(Debug)]
pub(crate) struct Worker {
    pub decoder: TileDecoder,
    pub outcome: Result<()>,
    /// Decoding time of this thread in the current step, when profiling.
    pub decode_ns: u64,
}

/// Time of one step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StepTime {
    pub decode_ns: u64,
    pub total_ns: u64,
}

/// The caller's tensors, and which of them each input and output of the network is.
pub(crate) struct Io<'a, 'o, 'n, 'd> {
    pub inputs: Inputs<'a>,
    pub input_order: &'a [usize],
    pub outputs: &'o mut [(&'n str, &'d mut [f32])],
    pub output_order: &'a [Option<usize>],
}

impl<'a> Io<'a, '_, '_, '_> {
    fn input(&self, index: usize) -> Result<&'a [f32]> {
        match self.feed(index)? {
            Feed::Values(values) => Ok(values),
            Feed::Source(_) => Err(mismatch()),
        }
    }

    /// Input `index` of the network.
    fn feed(&self, index: usize) -> Result<Feed<'a>> {
        let position = *self.input_order.get(index).ok_or_else(mismatch)?;
        self.inputs.feed(position).ok_or_else(mismatch)
    }
}

/// Everything a run needs, borrowed from the session.
pub(crate) struct Exec<'a> {
    pub container: &'a Container,
    pub net: usize,
    pub network: &'a Network,
    pub layers: &'a [LayerInfo],
    /// Weights that the plan keeps, as its steps number them.
    pub residents: &'a [Arc<ResidentLayer>],
    pub constants: &'a [f32],
    pub isa: Isa,
    pub team: &'a Team,
    pub arena: &'a mut [f32],
    pub workers: &'a mut [Worker],
    /// Drop the mapped pages of a layer after its use.
    pub release: bool,
    pub profiling: bool,
}

impl<'e> Exec<'e> {
    /// Runs all steps. `times` has one entry per step when profiling.
    pub(crate) fn run(
        &mut self,
        program: &Program,
        io: &mut Io<'_, '_, '_, '_>,
        times: &mut [StepTime],
    ) -> Result<()> {
        let mut index = 0;
        while let Some(step) = program.steps.get(index) {
            let next = match program.band(index) {
                Some((band, _)) => {
                    self.band(program, band, io, times)?;
                    band.steps.end
                }
                None => {
                    self.timed(index, times, |exec| exec.step(program, step, io))?;
                    index + 1
                }
            };
            if cfg!(debug_assertions) {
                (index..next).for_each(|step| self.poison(program, step));
            }
            index = next;
        }
        Ok(())
    }

    /// Does a part of step `index`, measuring its time when profiling.
    fn timed(
        &mut self,
        index: usize,
        times: &mut [StepTime],
        f: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        if !self.profiling {
            return f(self);
        }
        self.workers.iter_mut().for_each(|w| w.decode_ns = 0);
        let begin = Instant::now();
        f(self)?;
        if let Some(time) = times.get_mut(index) {
            time.total_ns += nanos(begin);
            // Threads decode side by side: the longest one counts.
            time.decode_ns += self.workers.iter().map(|w| w.decode_ns).max().unwrap_or(0);
        }
        Ok(())
    }

    /// Makes a read of a dead buffer visible (debug builds).
    fn poison(&mut self, program: &Program, index: usize) {
        for buffer in program.frees.get(index).into_iter().flatten() {
            let span = program.spans.get(*buffer);
            if let Some(range) = span.and_then(|s| self.arena.get_mut(s.range())) {
                range.fill(f32::NAN);
            }
        }
    }

    fn step(&mut self, program: &Program, step: &Step, io: &mut Io<'_, '_, '_, '_>) -> Result<()> {
        let at = Operands { program, step };
        let team = self.team;
        match &step.work {
            Work::Rows(input) => {
                let (feed, map) = (io.feed(*input)?, step.output.map());
                let out = at.output(self.arena)?;
                let fill = |image, rows, data: &mut [f32]| feed.fill(map, image, rows, data);
                each_rows(team, step.threads, out, map, fill)?;
            }
            Work::Conv(work) => self.conv(work, at, io)?,
            Work::Linear(work) => self.linear(work, at, io)?,
            Work::Function(function) => {
                let function = kernel_function(function, self.constants)?;
                let out = at.in_place(self.arena, io)?;
                let map = step.output.map();
                if step.output.is_rows() {
                    each_rows(team, step.threads, out, map, |_, rows, data| {
                        let map = rows_of(map, rows.len());
                        activation::activation_in_place(&function, &mut ViewMut { data, map });
                    })?;
                } else {
                    activation::activation_in_place(&function, &mut ViewMut { data: out, map });
                }
            }
            Work::Binary(kind) => binary(*kind, at, self.arena, io)?,
            Work::BinaryConst {
                kind,
                constant,
                strides,
                constant_first,
            } => {
                let data = self.constants.get(constant.range()).ok_or_else(mismatch)?;
                let constant = binary::Operand {
                    data,
                    strides: *strides,
                };
                let (dims, to) = (align(step.output.dims(), 1), step.output.strides_aligned());
                if at.input(0)?.place == step.output.place {
                    let out = at.output(self.arena)?;
                    binary::binary_update(*kind, dims, out, to, constant, *constant_first);
                } else {
                    let (data, out) = at.unary(self.arena, io)?;
                    let x = binary::Operand {
                        data,
                        strides: at.broadcast(0)?,
                    };
                    let (a, b) = if *constant_first {
                        (constant, x)
                    } else {
                        (x, constant)
                    };
                    binary::binary(*kind, dims, a, b, out, to);
                }
            }
            Work::Pool(shape) => {
                let isa = self.isa;
                self.by_rows(at, io, |input, rows, out| {
                    pool::pool(isa, shape, input, rows, out)
                })?;
            }
            Work::GlobalPool(kind) => {
                let map = at.input(0)?.map();
                let (data, out) = at.unary(self.arena, io)?;
                pool::global_pool(*kind, View { data, map }, out);
            }
            Work::Fill(value) => at.output(self.arena)?.fill(*value),
            Work::Rearrange(copy) => {
                let (source, out) = at.unary(self.arena, io)?;
                rearrange(copy, source, out)?;
            }
            Work::Resize(shape) => {
                self.by_rows(at, io, |input, rows, out| {
                    resize::resize(shape, input, 0, rows, out)
                })?;
            }
            Work::Softmax(axis) => norm::softmax(*axis, at.in_place(self.arena, io)?),
            Work::LpNormalize {
                axis,
                norm,
                epsilon,
            } => {
                norm::lp_normalize(*norm, *epsilon, *axis, at.in_place(self.arena, io)?);
            }
            Work::Export { output, copy } => {
                if let Some(position) = *io.output_order.get(*output).ok_or_else(mismatch)? {
                    let source = at.source(self.arena, io, &step.output)?;
                    let (_, target) = io.outputs.get_mut(position).ok_or_else(mismatch)?;
                    rearrange(copy, source, target)?;
                }
            }
        }
        Ok(())
    }

    /// An operator on images whose threads compute ranges of output rows: `kernel` gets an image, the range, and where
    /// its rows go.
    fn by_rows(
        &mut self,
        at: Operands<'_>,
        io: &Io<'_, '_, '_, '_>,
        kernel: impl Fn(View<'_>, Range<usize>, &mut ViewMut<'_>) + Sync,
    ) -> Result<()> {
        let (from, to) = (at.input(0)?.map(), at.step.output.map());
        let (source, out) = at.unary(self.arena, io)?;
        let compute = |image, rows: Range<usize>, data: &mut [f32]| {
            let map = rows_of(to, rows.len());
            let input = image_of(source, from, image);
            kernel(input, rows, &mut ViewMut { data, map });
        };
        each_rows(self.team, at.step.threads, out, to, compute)
    }

    fn conv(&mut self, work: &ConvWork, at: Operands<'_>, io: &Io<'_, '_, '_, '_>) -> Result<()> {
        let (layer, info, id) = self.layer(work.layer)?;
        let coded = self.coded(id, info);
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

    fn linear(
        &mut self,
        work: &LinearWork,
        at: Operands<'_>,
        io: &Io<'_, '_, '_, '_>,
    ) -> Result<()> {
        let (layer, info, id) = self.layer(work.layer)?;
        let coded = self.coded(id, info);
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
            let group = if kept.is_some() { tiles } else { threads };
            for first in (0..tiles).step_by(group.max(1)) {
                let count = group.min(tiles - first);
                let tiles = first..first + count;
                let group = Group::new(team, kept, slots.used(), &coded, tiles)?;
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
                        for i in 0..count {
                            let tile = group.tile(i, layer, info)?;
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

    fn layer(&self, index: usize) -> Result<(&'e Layer, &'e LayerInfo, LayerId)> {
        let (network, layers) = (self.network, self.layers);
        let layer = network.layers.get(index).ok_or_else(mismatch)?;
        Ok((
            layer,
            layers.get(index).ok_or_else(mismatch)?,
            LayerId(index as u32),
        ))
    }

    /// The coded weights of a layer.
    fn coded(&self, id: LayerId, info: &LayerInfo) -> Coded<'e> {
        Coded {
            container: self.container,
            net: self.net,
            id,
            form: info.form,
            timed: self.profiling,
            release: self.release,
        }
    }

    /// Gives mapped pages back; the next run reads them from the page cache again.
    fn release_layer(&self, id: LayerId, layer: &Layer) {
        if self.release {
            release(self.container, self.net, id.0 as usize, layer);
        }
    }
}

/// Bytes of a file that are mapped together: pages are given back in such windows, those behind the reader.
const WINDOW: u64 = 65_536;

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
struct Coded<'a> {
    container: &'a Container,
    net: usize,
    id: LayerId,
    form: TileForm,
    timed: bool,
    /// Drop the mapped pages of large tiles after decoding them.
    release: bool,
}

impl Coded<'_> {
    fn decode(&self, slot: &mut Slot<'_>, tile: usize) -> Result<()> {
        let begin = self.timed.then(Instant::now);
        let Slot {
            worker,
            tile: buffer,
        } = slot;
        let decoder = &mut worker.decoder;
        let outcome = buffer.decode(decoder, self.container, self.net, self.id, tile, self.form);
        if let Some(begin) = begin {
            worker.decode_ns += nanos(begin);
        }
        self.used(tile);
        outcome
    }

    /// A tile has been read: the windows that end in it are given back. The last one goes with the layer.
    fn used(&self, tile: usize) {
        if self.release
            && let Ok((_, range)) = self.container.tile(self.net, self.id, tile)
        {
            let whole = |at: u64| at / WINDOW * WINDOW;
            let (from, to) = (whole(range.start), whole(range.end));
            if from < to {
                self.container.source().release(from, to - from);
            }
        }
    }
}

/// Where the weights of a step are in memory.
#[derive(Clone, Copy)]
enum Kept<'a> {
    /// Resident tiles.
    Tiles(&'a [TileBuffer]),
    /// Tiles decoded by the band that runs.
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
    fn transformed(self, first: usize, panels: usize) -> Option<winograd::Resident<'a>> {
        match self {
            Kept::Winograd(layer) => layer.transformed(first, panels),
            _ => None,
        }
    }

    fn tile<'v>(
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

/// A thread within a step: its decoder, and room in the step's scratch for a decoded tile.
struct Slot<'w> {
    worker: &'w mut Worker,
    tile: TileBuffer<&'w mut [f32]>,
}

/// One for each worker, from the memory for all their tiles.
fn slots<'w>(workers: &'w mut [Worker], tiles: &'w mut [f32]) -> Result<Parts<Slot<'w>>> {
    let mut slots = Parts::new();
    let tiles = split_scratch(tiles, workers.len());
    for (worker, tile) in workers.iter_mut().zip(tiles) {
        let tile = TileBuffer::over(tile);
        slots.push(Slot { worker, tile })?;
    }
    Ok(slots)
}

/// The first error of these threads.
fn outcomes(slots: &mut [Option<Slot<'_>>]) -> Result<()> {
    for slot in slots.iter_mut().flatten() {
        std::mem::replace(&mut slot.worker.outcome, Ok(()))?;
    }
    Ok(())
}

/// Tiles ready for use: kept ones, or one decoded by each thread.
struct Group<'g, 'w> {
    kept: Option<Kept<'g>>,
    slots: &'g [Option<Slot<'w>>],
    first: usize,
}

impl<'g, 'w> Group<'g, 'w> {
    /// Decodes the tiles in parallel, at most one per thread, unless they are kept.
    fn new(
        team: &Team,
        kept: Option<Kept<'g>>,
        slots: &'g mut [Option<Slot<'w>>],
        coded: &Coded<'_>,
        tiles: Range<usize>,
    ) -> Result<Group<'g, 'w>> {
        let first = tiles.start;
        if kept.is_none() {
            let used = slots.get_mut(..tiles.len()).ok_or_else(mismatch)?;
            team.for_each(used, |i, slot| {
                if let Some(slot) = slot {
                    let outcome = coded.decode(slot, first + i);
                    slot.worker.outcome = outcome;
                }
            });
            outcomes(used)?;
        }
        Ok(Group { kept, slots, first })
    }

    /// The tile of this index in the group.
    fn tile<'v>(
        &'v self,
        index: usize,
        layer: &'v Layer,
        info: &'v LayerInfo,
    ) -> Result<(WeightTile<'v>, Tile)> {
        match &self.kept {
            Some(kept) => kept.tile(self.first + index, layer, info),
            None => {
                let slot = self.slots.get(index).and_then(Option::as_ref);
                slot.ok_or_else(mismatch)?.tile.view(layer, info)
            }
        }
    }
}

/// A convolution as its threads see it.
struct ConvJob<'a> {
    work: &'a ConvWork,
    layer: &'a Layer,
    info: &'a LayerInfo,
    isa: Isa,
    epilogue: dcz_kernels::Epilogue<'a>,
    source: &'a [f32],
    from: Map,
    to: Map,
}

impl ConvJob<'_> {
    /// Every thread computes its own rows of the output for all tiles of a group.
    fn by_rows(
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
        let tiles = self.layer.tiles.len();
        let group = if kept.is_some() { tiles } else { threads };
        for first in (0..tiles).step_by(group.max(1)) {
            let count = group.min(tiles - first);
            let group = Group::new(team, kept, slots, coded, first..first + count)?;
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
                    let mut i = 0;
                    while i < count {
                        let (tile, record) = group.tile(i, self.layer, self.info)?;
                        let (start, last) = self.range_of_k(&record);
                        let warm = one && self.is_warm(first + i);
                        let mut tiles = [tile; dcz_kernels::JOINED];
                        let joined =
                            self.joined(matches!(kept, Some(Kept::Tiles(_))), first + i, count - i);
                        for (j, tile) in tiles.iter_mut().enumerate().take(joined).skip(1) {
                            (*tile, _) = group.tile(i + j, self.layer, self.info)?;
                        }
                        i += joined;
                        let tiles = tiles.get(..joined).ok_or_else(mismatch)?;
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

    /// How many of `most` tiles from `index` on are computed together: at least one, more if they are kept `together`.
    fn joined(&self, together: bool, index: usize, most: usize) -> usize {
        let kept = together && dcz_kernels::joins(self.work.algorithm);
        let tiles = self.layer.tiles.get(index..).unwrap_or_default();
        let Some(first) = tiles.first().filter(|_| kept) else {
            return 1;
        };
        let (mut panels, mut count) = (0, 0);
        for tile in tiles.iter().take(most.min(dcz_kernels::JOINED)) {
            panels += tile.panels as usize;
            let alike = (tile.k, tile.k_len) == (first.k, first.k_len);
            if !alike || panels > dcz_kernels::JOINED {
                break;
            }
            count += 1;
        }
        count.max(1)
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
        let mut before = None;
        while let Some(tiles) = take_panels(self.layer, next) {
            let first = self.layer.tiles.get(tiles.start).ok_or_else(mismatch)?;
            let channel = first.panel as usize * PANEL;
            let count = first.panels as usize * PANEL;
            let count = count.min(self.to.c.saturating_sub(channel)).max(1);
            self.own_channels(
                channel,
                count,
                out,
                scratch,
                |shape, epilogue, own, scratch| {
                    for index in tiles {
                        let (tile, record) = match &kept {
                            Some(kept) => kept.tile(index, self.layer, self.info)?,
                            None => {
                                coded.decode(slot, index)?;
                                slot.tile.view(self.layer, self.info)?
                            }
                        };
                        let tile = WeightTile {
                            first_panel: 0,
                            ..tile
                        };
                        let (start, last) = self.range_of_k(&record);
                        let like = Some((record.panels, record.k, record.k_len));
                        let warm = like == std::mem::replace(&mut before, like) && self.to.n == 1;
                        for (image, data) in own.chunks_exact_mut(h * w * count).enumerate() {
                            dcz_kernels::conv_tile(
                                self.isa,
                                self.work.algorithm,
                                shape,
                                &tile,
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

/// The tiles of the next panels that nobody has taken.
fn take_panels(layer: &Layer, next: &AtomicUsize) -> Option<Range<usize>> {
    let mut taken = 0..0;
    let update = next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |first| {
        taken = first..panel_start(layer, first + 1);
        (!taken.is_empty()).then_some(taken.end)
    });
    update.ok().map(|_| taken)
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
                    coded.decode(slot, tile)?;
                    slot.tile.view(self.layer, self.info)?
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

/// The part of an epilogue for some channels.
fn epilogue_of<'a>(
    epilogue: &dcz_kernels::Epilogue<'a>,
    channel: usize,
    count: usize,
) -> Result<dcz_kernels::Epilogue<'a>> {
    let part = |list: &'a [f32]| list.get(channel..channel + count).ok_or_else(mismatch);
    Ok(dcz_kernels::Epilogue {
        bias: epilogue.bias.map(part).transpose()?,
        activation: match epilogue.activation {
            Activation::Prelu(slopes) if slopes.len() > 1 => Activation::Prelu(part(slopes)?),
            other => other,
        },
    })
}

/// The first tile at or after `index` that begins a panel.
fn panel_start(layer: &Layer, index: usize) -> usize {
    let later = layer.tiles.iter().enumerate().skip(index);
    later
        .into_iter()
        .find(|(_, tile)| tile.k == 0)
        .map_or(layer.tiles.len(), |(i, _)| i)
}

/// The operands of a step as slices. An operand lies in the caller's memory or in the arena.
#[derive(Clone, Copy)]
struct Operands<'a> {
    program: &'a Program,
    step: &'a Step,
}

impl Operands<'_> {
    fn input(&self, index: usize) -> Result<Value> {
        self.step.inputs.get(index).copied().ok_or_else(mismatch)
    }

    /// The weights that the plan keeps for the step.
    fn resident<'r>(&self, residents: &'r [Arc<ResidentLayer>]) -> Result<Option<Kept<'r>>> {
        let Some(index) = self.step.source.resident else {
            return Ok(None);
        };
        let kept = residents.get(index).ok_or_else(mismatch)?;
        Ok(Some(Kept::from(kept.as_ref())))
    }

    /// Strides of input `index` for broadcasting to the output.
    fn broadcast(&self, index: usize) -> Result<[usize; crate::shape::MAX_RANK]> {
        let value = self.input(index)?;
        Ok(broadcast_strides(
            &value.strides()[..value.rank],
            value.dims(),
        ))
    }

    fn span(&self, value: &Value) -> Result<Range<usize>> {
        match value.place {
            Place::Buffer(b) => Ok(self.program.spans.get(b).ok_or_else(mismatch)?.range()),
            Place::Input(_) => Err(mismatch()),
        }
    }

    fn source<'a>(
        &self,
        arena: &'a [f32],
        io: &Io<'a, '_, '_, '_>,
        value: &Value,
    ) -> Result<&'a [f32]> {
        match value.place {
            Place::Input(index) => io.input(index),
            Place::Buffer(_) => arena.get(self.span(value)?).ok_or_else(mismatch),
        }
    }

    fn output<'a>(&self, arena: &'a mut [f32]) -> Result<&'a mut [f32]> {
        arena
            .get_mut(self.span(&self.step.output)?)
            .ok_or_else(mismatch)
    }

    /// `value` and the output, which lie in different places.
    fn pair<'a>(
        &self,
        arena: &'a mut [f32],
        io: &Io<'a, '_, '_, '_>,
        value: &Value,
    ) -> Result<(&'a [f32], &'a mut [f32])> {
        match value.place {
            Place::Input(index) => Ok((io.input(index)?, self.output(arena)?)),
            Place::Buffer(_) => {
                let spans = [self.span(value)?, self.span(&self.step.output)?];
                let [source, out] = arena.get_disjoint_mut(spans).map_err(|_| mismatch())?;
                Ok((source, out))
            }
        }
    }

    /// The first input and the output, which lie in different places.
    fn unary<'a>(
        &self,
        arena: &'a mut [f32],
        io: &Io<'a, '_, '_, '_>,
    ) -> Result<(&'a [f32], &'a mut [f32])> {
        self.pair(arena, io, &self.input(0)?)
    }

    /// The first input, the output, the kernels' part of the step's scratch and that of decoded tiles, all in different
    /// places.
    #[expect(clippy::type_complexity, reason = "taken apart by its two callers")]
    fn with_scratch<'a>(
        &self,
        arena: &'a mut [f32],
        io: &Io<'a, '_, '_, '_>,
    ) -> Result<(&'a [f32], &'a mut [f32], &'a mut [f32], &'a mut [f32])> {
        let input = self.input(0)?;
        let (caller, source) = match input.place {
            Place::Input(index) => (Some(io.input(index)?), 0..0),
            Place::Buffer(_) => (None, self.span(&input)?),
        };
        let spans = [
            source,
            self.span(&self.step.output)?,
            self.step.scratch.range(),
        ];
        let parts = arena.get_disjoint_mut(spans).map_err(|_| mismatch())?;
        let [source, out, scratch] = parts;
        let kernels = scratch.len().checked_sub(self.step.tiles);
        let (scratch, tiles) = scratch.split_at_mut(kernels.ok_or_else(mismatch)?);
        Ok((caller.unwrap_or(source), out, scratch, tiles))
    }

    /// Both inputs and the output, which lies elsewhere.
    fn binary<'a>(
        &self,
        arena: &'a mut [f32],
        io: &Io<'a, '_, '_, '_>,
    ) -> Result<(&'a [f32], &'a [f32], &'a mut [f32])> {
        let (a, b) = (self.input(0)?, self.input(1)?);
        if a.place == b.place {
            let (both, out) = self.pair(arena, io, &a)?;
            return Ok((both, both, out));
        }
        match (a.place, b.place) {
            (Place::Input(first), _) => {
                let (second, out) = self.pair(arena, io, &b)?;
                Ok((io.input(first)?, second, out))
            }
            (_, Place::Input(second)) => {
                let (first, out) = self.pair(arena, io, &a)?;
                Ok((first, io.input(second)?, out))
            }
            _ => {
                let spans = [
                    self.span(&a)?,
                    self.span(&b)?,
                    self.span(&self.step.output)?,
                ];
                let [a, b, out] = arena.get_disjoint_mut(spans).map_err(|_| mismatch())?;
                Ok((a, b, out))
            }
        }
    }

    /// The output, which holds the first input: it is the same buffer, or is filled by copying.
    fn in_place<'a>(&self, arena: &'a mut [f32], io: &Io<'a, '_, '_, '_>) -> Result<&'a mut [f32]> {
        let input = self.input(0)?;
        if input.place == self.step.output.place {
            return self.output(arena);
        }
        let (source, out) = self.pair(arena, io, &input)?;
        out.copy_from_slice(source.get(..out.len()).ok_or_else(mismatch)?);
        Ok(out)
    }
}

fn binary(
    kind: binary::BinaryKind,
    at: Operands<'_>,
    arena: &mut [f32],
    io: &Io<'_, '_, '_, '_>,
) -> Result<()> {
    let (a, b, out) = (at.input(0)?, at.input(1)?, at.step.output);
    let (dims, to) = (align(out.dims(), 1), out.strides_aligned());
    // Lowering writes in place only over an operand of the output's order that lies elsewhere than
    // the other one.
    if out.place == a.place || out.place == b.place {
        let (index, other) = if out.place == a.place { (1, b) } else { (0, a) };
        let (data, target) = at.pair(arena, io, &other)?;
        let operand = binary::Operand {
            data,
            strides: at.broadcast(index)?,
        };
        binary::binary_update(kind, dims, target, to, operand, index == 0);
    } else {
        let (first, second, target) = at.binary(arena, io)?;
        let a = binary::Operand {
            data: first,
            strides: at.broadcast(0)?,
        };
        let b = binary::Operand {
            data: second,
            strides: at.broadcast(1)?,
        };
        binary::binary(
            kind,
            align(out.dims(), 1),
            a,
            b,
            target,
            out.strides_aligned(),
        );
    }
    Ok(())
}

fn rearrange(copy: &Rearrange, source: &[f32], out: &mut [f32]) -> Result<()> {
    let source = source.get(copy.in_offset..).ok_or_else(mismatch)?;
    let out = out.get_mut(copy.out_offset..).ok_or_else(mismatch)?;
    layout::copy_strided(copy.dims, source, copy.in_strides, out, copy.out_strides);
    Ok(())
}

fn kernel_function<'c>(function: &Function, constants: &'c [f32]) -> Result<Activation<'c>> {
    Ok(match function {
        Function::Identity => Activation::None,
        Function::Fixed(activation) => convert::function(*activation),
        Function::Prelu(span) => {
            Activation::Prelu(constants.get(span.range()).ok_or_else(mismatch)?)
        }
    })
}

fn kernel_epilogue<'c>(e: &Epilogue, constants: &'c [f32]) -> Result<dcz_kernels::Epilogue<'c>> {
    let bias = match e.bias {
        Some(span) => Some(constants.get(span.range()).ok_or_else(mismatch)?),
        None => None,
    };
    Ok(dcz_kernels::Epilogue {
        bias,
        activation: kernel_function(&e.function, constants)?,
    })
}

/// One image of a batch.
fn image_of(data: &[f32], map: Map, image: usize) -> View<'_> {
    View {
        data: &data[image * map.batch..],
        map: Map { n: 1, ..map },
    }
}

/// `rows` rows of one image of a `[row][channel][column]` map.
fn rows_of(map: Map, rows: usize) -> Map {
    Map::rows(1, map.c, rows, map.w)
}

/// Cuts a range of rows counted through all images, whose data is `out`, into images.
pub(crate) fn per_image(
    range: Range<usize>,
    map: Map,
    out: &mut [f32],
    mut f: impl FnMut(usize, Range<usize>, &mut [f32]),
) -> Result<()> {
    let (mut row, mut rest) = (range.start, out);
    while row < range.end {
        let (image, first) = (row / map.h, row % map.h);
        let count = (map.h - first).min(range.end - row);
        let own = rest
            .split_off_mut(..count * map.c * map.w)
            .ok_or_else(mismatch)?;
        f(image, first..first + count, own);
        row += count;
    }
    Ok(())
}

fn nanos(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cold]
fn mismatch() -> error::Error {
    Error::internal("program and arena do not fit")
}
