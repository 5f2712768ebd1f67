//! The operands of a step: slices of the arena or of the caller's tensors, with the strides, epilogues and functions that
//! kernels ask for; and the operators that are hardly more than that.

use super::weights::Kept;
use super::{Io, mismatch};
use crate::convert;
use crate::error::Result;
use crate::program::{
    Epilogue, Function, Place, Program, Rearrange, Step, Value, align, broadcast_strides,
};
use crate::resident::ResidentLayer;
use dcz_kernels::{Activation, Map, View};
use dcz_kernels::{binary, layout};
use std::ops::Range;
use std::sync::Arc;

/// The operands of a step as slices. An operand lies in the caller's memory or in the arena.
#[derive(Clone, Copy)]
pub(super) struct Operands<'a> {
    pub(super) program: &'a Program,
    pub(super) step: &'a Step,
}

impl Operands<'_> {
    pub(super) fn input(&self, index: usize) -> Result<Value> {
        self.step.inputs.get(index).copied().ok_or_else(mismatch)
    }

    /// The weights that the plan keeps for the step.
    pub(super) fn resident<'r>(
        &self,
        residents: &'r [Arc<ResidentLayer>],
    ) -> Result<Option<Kept<'r>>> {
        let Some(index) = self.step.source.resident else {
            return Ok(None);
        };
        let kept = residents.get(index).ok_or_else(mismatch)?;
        Ok(Some(Kept::from(kept.as_ref())))
    }

    /// Strides of input `index` for broadcasting to the output.
    pub(super) fn broadcast(&self, index: usize) -> Result<[usize; crate::shape::MAX_RANK]> {
        let value = self.input(index)?;
        Ok(broadcast_strides(
            &value.strides()[..value.rank],
            value.dims(),
        ))
    }

    pub(super) fn span(&self, value: &Value) -> Result<Range<usize>> {
        match value.place {
            Place::Buffer(b) => Ok(self.program.spans.get(b).ok_or_else(mismatch)?.range()),
            Place::Input(_) => Err(mismatch()),
        }
    }

    pub(super) fn source<'a>(
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

    pub(super) fn output<'a>(&self, arena: &'a mut [f32]) -> Result<&'a mut [f32]> {
        arena
            .get_mut(self.span(&self.step.output)?)
            .ok_or_else(mismatch)
    }

    /// `value` and the output, which lie in different places.
    pub(super) fn pair<'a>(
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
    pub(super) fn unary<'a>(
        &self,
        arena: &'a mut [f32],
        io: &Io<'a, '_, '_, '_>,
    ) -> Result<(&'a [f32], &'a mut [f32])> {
        self.pair(arena, io, &self.input(0)?)
    }

    /// The first input, the output, the kernels' part of the step's scratch and that of decoded tiles, all in different
    /// places.
    #[expect(clippy::type_complexity, reason = "taken apart by its two callers")]
    pub(super) fn with_scratch<'a>(
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
    pub(super) fn binary<'a>(
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
    pub(super) fn in_place<'a>(
        &self,
        arena: &'a mut [f32],
        io: &Io<'a, '_, '_, '_>,
    ) -> Result<&'a mut [f32]> {
        let input = self.input(0)?;
        if input.place == self.step.output.place {
            return self.output(arena);
        }
        let (source, out) = self.pair(arena, io, &input)?;
        out.copy_from_slice(source.get(..out.len()).ok_or_else(mismatch)?);
        Ok(out)
    }
}

pub(super) fn binary(
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

/// The part of an epilogue for some channels.
pub(super) fn epilogue_of<'a>(
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

pub(super) fn rearrange(copy: &Rearrange, source: &[f32], out: &mut [f32]) -> Result<()> {
    let source = source.get(copy.in_offset..).ok_or_else(mismatch)?;
    let out = out.get_mut(copy.out_offset..).ok_or_else(mismatch)?;
    layout::copy_strided(copy.dims, source, copy.in_strides, out, copy.out_strides);
    Ok(())
}

pub(super) fn kernel_function<'c>(
    function: &Function,
    constants: &'c [f32],
) -> Result<Activation<'c>> {
    Ok(match function {
        Function::Identity => Activation::None,
        Function::Fixed(activation) => convert::function(*activation),
        Function::Prelu(span) => {
            Activation::Prelu(constants.get(span.range()).ok_or_else(mismatch)?)
        }
    })
}

pub(super) fn kernel_epilogue<'c>(
    e: &Epilogue,
    constants: &'c [f32],
) -> Result<dcz_kernels::Epilogue<'c>> {
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
pub(super) fn image_of(data: &[f32], map: Map, image: usize) -> View<'_> {
    View {
        data: &data[image * map.batch..],
        map: Map { n: 1, ..map },
    }
}

/// `rows` rows of one image of a `[row][channel][column]` map.
pub(super) fn rows_of(map: Map, rows: usize) -> Map {
    Map::rows(1, map.c, rows, map.w)
}
