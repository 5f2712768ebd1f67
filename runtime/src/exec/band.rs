//! Executes a band: its steps strip by strip, as [`Progress`] says. See [`crate::band`].

use super::conv::ConvJob;
use super::operands::{image_of, kernel_epilogue, kernel_function};
use super::weights::{Kept, slots};
use super::{Exec, Io, StepTime, mismatch};
use crate::band::{self, Band, Progress};
use crate::error::Result;
use crate::parts::{Parts, each_rows};
use crate::program::{ConvWork, Place, Program, Step, Value, Work};
use crate::weights::{self, Bank};
use dcz_kernels::{ConvShape, Map, View, ViewMut};
use dcz_kernels::{activation, binary, pool, resize};
use std::ops::Range;

/// The band that runs and how far it has come.
#[derive(Clone, Copy)]
struct At<'a> {
    program: &'a Program,
    band: &'a Band,
    progress: &'a Progress,
    image: usize,
}

/// Elements of the arena or of the caller's input, and what they are a map of.
struct Place4 {
    /// The caller's input, if it is none of the arena.
    input: Option<usize>,
    range: Range<usize>,
    map: Map,
}

impl At<'_> {
    /// Rows `rows` of a value of one image.
    fn locate(&self, value: &Value, rows: &Range<usize>) -> Result<Place4> {
        let map = value.map();
        let (input, start) = match value.place {
            Place::Input(index) => (Some(index), 0),
            Place::Buffer(buffer) => {
                let span = self.program.spans.get(buffer).ok_or_else(mismatch)?;
                (None, span.offset)
            }
        };
        let window = |w: &band::Window| band::is(value, w.buffer);
        if let Some(index) = self.band.windows.iter().position(window) {
            let base = self.progress.base(index);
            let from = rows.start.checked_sub(base).ok_or_else(mismatch)?;
            let row = map.c * map.w;
            let first = start + from * row;
            return Ok(Place4 {
                input,
                range: first..first + rows.len() * row,
                map: Map::rows(1, map.c, rows.len(), map.w),
            });
        }
        let image = start + self.image * map.batch;
        if value.is_rows() {
            let row = map.c * map.w;
            let first = image + rows.start * row;
            return Ok(Place4 {
                input,
                range: first..first + rows.len() * row,
                map: Map::rows(1, map.c, rows.len(), map.w),
            });
        }
        let first = image + rows.start * map.row;
        let map = Map {
            n: 1,
            h: rows.len(),
            ..map
        };
        Ok(Place4 {
            input,
            range: first..first + map.span(),
            map,
        })
    }
}

impl Exec<'_> {
    pub(super) fn band(
        &mut self,
        program: &Program,
        band: &Band,
        io: &Io<'_, '_, '_, '_>,
        times: &mut [StepTime],
    ) -> Result<()> {
        let steps = program.steps.get(band.steps.clone()).ok_or_else(mismatch)?;
        let indices = band.steps.clone();
        for ((step, bank), index) in steps.iter().zip(&band.banks).zip(indices) {
            if let (Some(buffer), Work::Conv(work)) = (bank, &step.work) {
                let span = program.spans.get(*buffer).ok_or_else(mismatch)?.range();
                self.timed(index, times, |exec| exec.fill(work, span, step.threads))?;
            }
        }
        let images = steps.first().map_or(0, |s| s.output.map().n);
        for image in 0..images {
            let mut progress = Progress::new();
            while progress.advance(steps, band.strip, &band.windows) {
                for (index, window) in band.windows.iter().enumerate() {
                    let slide = progress.slide(steps, index, window);
                    if slide.from > 0 && slide.len > 0 {
                        let span = program.spans.get(window.buffer).ok_or_else(mismatch)?;
                        let buffer = self.arena.get_mut(span.range()).ok_or_else(mismatch)?;
                        if slide.from + slide.len > buffer.len() {
                            return Err(mismatch());
                        }
                        buffer.copy_within(slide.from..slide.from + slide.len, 0);
                    }
                }
                let at = At {
                    program,
                    band,
                    progress: &progress,
                    image,
                };
                for (i, step) in steps.iter().enumerate() {
                    let rows = progress.rows(i);
                    if !rows.is_empty() {
                        let index = band.steps.start + i;
                        self.timed(index, times, |exec| exec.strip(at, i, step, &rows, io))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Decodes all tiles of a layer into its bank, threads taking equal numbers of tiles.
    fn fill(&mut self, work: &ConvWork, bank: Range<usize>, threads: usize) -> Result<()> {
        let (layer, _, id) = self.layer(work.layer)?;
        let coded = self.coded(id);
        let mut rest = self.arena.get_mut(bank).ok_or_else(mismatch)?;
        let threads = threads.clamp(1, self.workers.len().max(1));
        let tiles = layer.tiles.len();
        let mut parts = Parts::new();
        let mut first = 0;
        for (part, worker) in (1..=threads).zip(self.workers.iter_mut()) {
            let end = tiles * part / threads;
            let own = layer.tiles.get(first..end).ok_or_else(mismatch)?;
            let len = own.iter().map(|t| weights::bank_part(layer, t)).sum();
            let own = rest.split_off_mut(..len).ok_or_else(mismatch)?;
            parts.push((first..end, own, worker))?;
            first = end;
        }
        self.team.for_each(parts.used(), |_, part| {
            if let Some((tiles, data, worker)) = part {
                let outcome = coded.decode(worker, layer, tiles.clone(), data);
                worker.outcome = outcome;
            }
        });
        for worker in self.workers.iter_mut() {
            std::mem::replace(&mut worker.outcome, Ok(()))?;
        }
        self.release_layer(id, layer);
        Ok(())
    }

    /// Rows `rows` of step `i` of the band.
    fn strip(
        &mut self,
        at: At<'_>,
        i: usize,
        step: &Step,
        rows: &Range<usize>,
        io: &Io<'_, '_, '_, '_>,
    ) -> Result<()> {
        let out = at.locate(&step.output, rows)?;
        if let Work::Rows(input) = &step.work {
            let (feed, whole) = (io.feed(*input)?, step.output.map());
            let data = self.arena.get_mut(out.range).ok_or_else(mismatch)?;
            let (team, first) = (self.team, rows.start);
            let fill = |_, rows: Range<usize>, data: &mut [f32]| {
                let rows = first + rows.start..first + rows.end;
                feed.fill(whole, at.image, rows, data);
            };
            return each_rows(team, step.threads, data, out.map, fill);
        }
        let input = step.inputs.first().ok_or_else(mismatch)?;
        let needed = band::reach(step, rows, band::height(input));
        let from = at.locate(input, &needed)?;
        match &step.work {
            Work::Conv(work) => {
                let bank = at.band.banks.get(i).copied().flatten();
                let bank = bank.and_then(|b| at.program.spans.get(b));
                let bank = bank.map_or(0..0, |span| span.range());
                self.strip_of_conv(work, step, (rows, &needed), from, out, bank, io)
            }
            Work::Pool(shape) => {
                let mut shape = *shape;
                shape.pads[0] = shape.pads[0].saturating_sub(rows.start * shape.stride[0]);
                let (source, [data, ..]) = borrow(self.arena, io, &from, [out.range, 0..0, 0..0])?;
                let view = View {
                    data: source,
                    map: from.map,
                };
                let (isa, threads) = (self.isa, step.threads);
                each_rows(self.team, threads, data, out.map, |_, rows, data| {
                    let map = Map::rows(1, out.map.c, rows.len(), out.map.w);
                    pool::pool(isa, &shape, view, rows, &mut ViewMut { data, map });
                })
            }
            Work::Resize(shape) => {
                let parts = [out.range, 0..0, 0..0];
                let (source, [data, ..]) = borrow(self.arena, io, &from, parts)?;
                let view = View {
                    data: source,
                    map: from.map,
                };
                let (team, threads, first) = (self.team, step.threads, rows.start);
                let compute = |_, rows: Range<usize>, data: &mut [f32]| {
                    let map = Map::rows(1, out.map.c, rows.len(), out.map.w);
                    let rows = first + rows.start..first + rows.end;
                    resize::resize(shape, view, needed.start, rows, &mut ViewMut { data, map });
                };
                each_rows(team, threads, data, out.map, compute)
            }
            Work::Function(function) => {
                let function = kernel_function(function, self.constants)?;
                if input.place != step.output.place {
                    let parts = [out.range.clone(), 0..0, 0..0];
                    let (source, [data, ..]) = borrow(self.arena, io, &from, parts)?;
                    data.copy_from_slice(source.get(..data.len()).ok_or_else(mismatch)?);
                }
                let data = self.arena.get_mut(out.range).ok_or_else(mismatch)?;
                let map = out.map;
                activation::activation_in_place(&function, &mut ViewMut { data, map });
                Ok(())
            }
            Work::Binary(kind) => {
                let second = step.inputs.get(1).ok_or_else(mismatch)?;
                let second = at.locate(second, rows)?;
                let dims = [1, 1, 1, 1, 1, out.range.len()];
                let strides = [0, 0, 0, 0, 0, 1];
                let operand = |data| binary::Operand { data, strides };
                if from.input.is_none() && from.range == out.range {
                    let parts = [out.range, 0..0, 0..0];
                    let (b, [data, ..]) = borrow(self.arena, io, &second, parts)?;
                    binary::binary_update(*kind, dims, data, strides, operand(b), false);
                } else if second.input.is_none() && second.range == out.range {
                    let parts = [out.range, 0..0, 0..0];
                    let (a, [data, ..]) = borrow(self.arena, io, &from, parts)?;
                    binary::binary_update(*kind, dims, data, strides, operand(a), true);
                } else {
                    let other = if second.input.is_none() {
                        second.range.clone()
                    } else {
                        0..0
                    };
                    let parts = [other, out.range, 0..0];
                    let (a, [b, data, _]) = borrow(self.arena, io, &from, parts)?;
                    let b = match second.input {
                        Some(index) => io.input(index)?.get(second.range).ok_or_else(mismatch)?,
                        None => b,
                    };
                    binary::binary(*kind, dims, operand(a), operand(b), data, strides);
                }
                Ok(())
            }
            _ => Err(mismatch()),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one arm of a match")]
    fn strip_of_conv(
        &mut self,
        work: &ConvWork,
        step: &Step,
        (rows, needed): (&Range<usize>, &Range<usize>),
        from: Place4,
        out: Place4,
        bank: Range<usize>,
        io: &Io<'_, '_, '_, '_>,
    ) -> Result<()> {
        let (layer, info, id) = self.layer(work.layer)?;
        // Nothing is decoded here: the weights are kept.
        let coded = self.coded(id);
        let epilogue = kernel_epilogue(&work.epilogue, self.constants)?;
        let residents = self.residents;
        let others = [bank, out.range, step.scratch.range()];
        let (source, [bank, data, scratch]) = borrow(self.arena, io, &from, others)?;
        let kept = match step.source.resident {
            Some(index) => Kept::from(residents.get(index).ok_or_else(mismatch)?.as_ref()),
            None => Kept::Bank(Bank {
                data: bank,
                first: 0,
            }),
        };
        let shape = &work.shape;
        let work = ConvWork {
            images: 1,
            by_panels: false,
            shape: ConvShape {
                in_h: needed.len(),
                out_h: rows.len(),
                pad_top: shape.pad_top.saturating_sub(rows.start * shape.stride[0]),
                ..*shape
            },
            ..work.clone()
        };
        let job = ConvJob {
            work: &work,
            layer,
            info,
            isa: self.isa,
            epilogue,
            source: image_of(source, from.map, 0).data,
            from: from.map,
            to: out.map,
        };
        let threads = step.threads.clamp(1, self.workers.len().max(1));
        let workers = self.workers.get_mut(..threads).ok_or_else(mismatch)?;
        job.by_rows(
            self.team,
            Some(kept),
            &coded,
            data,
            slots(workers, &mut [])?,
            scratch,
        )
    }
}

/// An operand, and other parts of the arena.
fn borrow<'a>(
    arena: &'a mut [f32],
    io: &Io<'a, '_, '_, '_>,
    from: &Place4,
    [a, b, c]: [Range<usize>; 3],
) -> Result<(&'a [f32], [&'a mut [f32]; 3])> {
    let own = match from.input {
        Some(_) => 0..0,
        None => from.range.clone(),
    };
    let parts = arena.get_disjoint_mut([own, a, b, c]);
    let [source, a, b, c] = parts.map_err(|_| mismatch())?;
    let source = match from.input {
        Some(index) => io.input(index)?.get(from.range.clone()),
        None => Some(&*source),
    };
    Ok((source.ok_or_else(mismatch)?, [a, b, c]))
}
