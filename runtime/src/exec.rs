//! Executes a program. Reads the plan's decisions and makes none; allocates nothing.
//!
//! A run is one parallel region, in which the calling thread goes from step to step and the others help with the phases
//! of each ([`crate::threads`]). A sum is never split between threads, and its order depends on the layer's tiles only.
//! This file has the steps; [`conv`], [`linear`] and [`band`] have a file each, [`weights`] says where a step's weights
//! come from, [`operands`] where its maps lie.

use crate::error::{Error, Result};
use crate::input::{Feed, Inputs};
use crate::parts::each_rows;
use crate::program::{Program, Step, Work, align};
use crate::resident::ResidentLayer;
use crate::threads::Team;
use crate::weights::LayerInfo;
use dcz_format::graph::Network;
use dcz_format::{Container, TileDecoder};
use dcz_kernels::{Isa, View, ViewMut};
use dcz_kernels::{activation, binary, norm, pool, resize};
use operands::{Operands, image_of, kernel_function, rearrange, rows_of};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

mod band;
mod conv;
mod linear;
mod operands;
mod weights;

pub(crate) use weights::release;

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
            Work::Binary(kind) => operands::binary(*kind, at, self.arena, io)?,
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
}

fn nanos(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cold]
fn mismatch() -> Error {
    Error::internal("program and arena do not fit")
}
