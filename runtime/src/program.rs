//! The executable form of a network for given shapes: steps over values that lie in the caller's inputs or in buffers
//! of the arena. Plain data; made by [`crate::lower`], read by [`crate::exec`], described by [`crate::plan`].

use crate::band::{Band, Overlap};
use crate::liveness::{self, Life, Room, Span};
use crate::resident::ResidentForm;
use crate::shape::MAX_RANK;
use dcz_format::graph::Activation;
use dcz_kernels::binary::BinaryKind;
use dcz_kernels::norm::{Axis, Norm};
use dcz_kernels::pool::{PoolKind, PoolShape};
use dcz_kernels::resize::ResizeShape;
use dcz_kernels::{ConvAlgo, ConvShape, Map};

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// The caller's input of this index.
    Input(usize),
    /// A buffer of the arena.
    Buffer(usize),
}

/// Memory order of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Layout {
    /// Row-major in the order of the dimensions (NCHW).
    Plain,
    /// `[n][row][channel][column]`; four dimensions only.
    Rows,
}

/// A tensor in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Value {
    pub place: Place,
    pub layout: Layout,
    pub rank: usize,
    dims: [usize; MAX_RANK],
}

/// Sizes or strides of up to [`MAX_RANK`] axes.
pub(crate) type Strides = [usize; MAX_RANK];

impl Value {
    /// `dims` has at most [`MAX_RANK`] entries (shape inference guarantees it).
    pub(crate) fn new(place: Place, layout: Layout, dims: &[usize]) -> Value {
        let mut array = [1; MAX_RANK];
        for (slot, &d) in array.iter_mut().zip(dims) {
            *slot = d;
        }
        Value {
            place,
            layout,
            rank: dims.len().min(MAX_RANK),
            dims: array,
        }
    }

    pub(crate) fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    pub(crate) fn len(&self) -> usize {
        self.dims().iter().product()
    }

    /// The same bytes as row-major order.
    pub(crate) fn is_plain(&self) -> bool {
        self.layout == Layout::Plain || self.map().is_nchw()
    }

    /// The same bytes as [`Layout::Rows`].
    pub(crate) fn is_rows(&self) -> bool {
        let [n, c, h, w] = self.nchw();
        self.rank == 4 && (self.layout == Layout::Rows || Map::rows(n, c, h, w).is_nchw())
    }

    /// As a 4-D map. Other ranks are read as `[n][c][1][rest]`, which is what per-channel operations need.
    pub(crate) fn map(&self) -> Map {
        let [n, c, h, w] = self.nchw();
        match self.layout {
            Layout::Plain => Map::nchw(n, c, h, w),
            Layout::Rows => Map::rows(n, c, h, w),
        }
    }

    fn nchw(&self) -> [usize; 4] {
        match *self.dims() {
            [n, c, h, w] => [n, c, h, w],
            [n, c, ref rest @ ..] => [n, c, 1, rest.iter().product()],
            [n] => [n, 1, 1, 1],
            [] => [1; 4],
        }
    }

    /// Strides of the axes, right-aligned.
    pub(crate) fn strides_aligned(&self) -> Strides {
        align(&self.strides()[..self.rank], 0)
    }

    /// Strides of the axes; unused ones are 0.
    pub(crate) fn strides(&self) -> Strides {
        let mut strides = [0; MAX_RANK];
        if self.rank == 4 {
            let map = self.map();
            strides[..4].copy_from_slice(&[map.batch, map.channel, map.row, 1]);
        } else {
            let mut step = 1;
            for axis in (0..self.rank).rev() {
                strides[axis] = step;
                step *= self.dims[axis];
            }
        }
        strides
    }
}

/// Right-aligned, as the kernels want sizes and strides.
pub(crate) fn align(list: &[usize], fill: usize) -> Strides {
    let mut out = [fill; MAX_RANK];
    for (slot, &v) in out.iter_mut().rev().zip(list.iter().rev()) {
        *slot = v;
    }
    out
}

/// Right-aligned strides of an operand that is broadcast where its size is 1.
pub(crate) fn broadcast_strides(strides: &[usize], dims: &[usize]) -> Strides {
    let mut out = [0; MAX_RANK];
    for (slot, (&stride, &d)) in out.iter_mut().rev().zip(strides.iter().zip(dims).rev()) {
        *slot = if d == 1 { 0 } else { stride };
    }
    out
}

/// An element-wise function of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Function {
    Identity,
    Fixed(Activation),
    /// Slopes in the constant pool: one, or one per channel.
    Prelu(Span),
}

/// What is done to a sum before it is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Epilogue {
    pub bias: Option<Span>,
    pub function: Function,
}

/// Where the weights of a step come from (set by the planner).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Source {
    /// Index into [`Program::residents`]; none: decoded tile by tile in every run.
    pub resident: Option<usize>,
    /// Predicted time of the step on one thread.
    pub ms: f64,
}

/// A convolution.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConvWork {
    pub layer: usize,
    /// Set by the planner.
    pub algorithm: ConvAlgo,
    /// How much of the scratch that it wants the algorithm gets (set by the planner; changes no bit).
    pub level: usize,
    pub shape: ConvShape,
    pub images: usize,
    pub epilogue: Epilogue,
    /// The output buffer holds a residual operand that the sums are added to.
    pub accumulate: bool,
    /// Threads take panels instead of rows (set by the planner; changes no bit).
    pub by_panels: bool,
}

/// A linear layer over `rows` vectors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LinearWork {
    pub layer: usize,
    pub rows: usize,
    pub inputs: usize,
    pub outputs: usize,
    pub epilogue: Epilogue,
    pub accumulate: bool,
}

/// A strided copy: `out[out_offset + i . out_strides] = in[in_offset + i . in_strides]` for all `i` below `dims`;
/// right-aligned as the kernels want it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rearrange {
    pub dims: [usize; MAX_RANK],
    pub in_offset: usize,
    pub in_strides: Strides,
    pub out_offset: usize,
    pub out_strides: Strides,
}

/// What a step does to its inputs (`step.inputs`) to make its output.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Work {
    /// Rows of the caller's input of this index, made as they are needed.
    Rows(usize),
    Conv(ConvWork),
    Linear(LinearWork),
    Function(Function),
    Binary(BinaryKind),
    BinaryConst {
        kind: BinaryKind,
        constant: Span,
        strides: Strides,
        constant_first: bool,
    },
    Pool(PoolShape),
    GlobalPool(PoolKind),
    Fill(f32),
    Rearrange(Rearrange),
    Resize(ResizeShape),
    Softmax(Axis),
    LpNormalize {
        axis: Axis,
        norm: Norm,
        epsilon: f32,
    },
    /// Copy to the caller's output of this index.
    Export {
        output: usize,
        copy: Rearrange,
    },
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    /// Index of the node it stands for.
    pub node: Option<usize>,
    /// Weights and predicted time.
    pub source: Source,
    /// Further nodes whose work it does.
    pub fused: Vec<usize>,
    pub work: Work,
    pub inputs: Vec<Value>,
    /// How many threads it is worth (set by the planner; changes no bit).
    pub threads: usize,
    /// Scratch of all its threads, in equal parts (set by the planner; how large it is changes no bit).
    pub scratch: Span,
    /// How much of it, at its end, is for decoded tiles.
    pub tiles: usize,
    /// The output; for `Export` the value exported.
    pub output: Value,
}

/// Weights of a layer that stay in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Resident {
    pub layer: usize,
    pub form: ResidentForm,
    pub bytes: u64,
}

/// A lowered network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    pub steps: Vec<Step>,
    pub lives: Vec<Life>,
    /// Ranges of steps that run strip by strip, in order.
    pub bands: Vec<Band>,
    /// Where each buffer lies in the arena.
    pub spans: Vec<Span>,
    /// Length of the arena that buffers need.
    pub arena: usize,
    /// What scratch needs behind it.
    pub tail: usize,
    /// Elements of all buffers alive at each step.
    pub live: Vec<usize>,
    /// Buffers that die with each step (poisoned in debug builds).
    pub frees: Vec<Vec<usize>>,
    /// Weights kept between runs, one entry per layer that has any (set by the planner).
    pub residents: Vec<Resident>,
    /// Length of each output.
    pub output_lens: Vec<usize>,
    /// Length of each input.
    pub input_lens: Vec<usize>,
}

impl Program {
    /// Finds out where the buffers lie, and what is alive when.
    pub(crate) fn place(&mut self) {
        let overlaps: Vec<Overlap> = self.bands.iter().filter_map(|b| b.overlap).collect();
        (self.spans, self.arena) = liveness::place(&self.lives, &overlaps);
        self.frees = vec![Vec::new(); self.steps.len()];
        for (buffer, life) in self.lives.iter().enumerate() {
            // What the output of a band took the place of is not free.
            let taken = overlaps.iter().any(|o| o.input == buffer);
            if let Some(list) = self.frees.get_mut(life.last).filter(|_| !taken) {
                list.push(buffer);
            }
        }
        self.live = (0..self.steps.len())
            .map(|step| liveness::live(&self.lives, &overlaps, step))
            .collect();
    }

    /// The band of a step and the step's place in it.
    pub(crate) fn band(&self, step: usize) -> Option<(&Band, usize)> {
        let band = self.bands.iter().find(|b| b.steps.contains(&step))?;
        Some((band, step - band.steps.start))
    }

    /// Where scratch can lie, by step.
    pub(crate) fn rooms(&self) -> Vec<Room> {
        let steps = 0..self.steps.len();
        let room = |step| Room::at(&self.lives, &self.spans, step);
        steps.map(room).collect()
    }

    /// Elements that a scratch needs behind the arena.
    pub(crate) fn beyond(&self, scratch: Span) -> usize {
        scratch.range().end.saturating_sub(self.arena)
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        let step = |s: &Step| size_of::<Step>() + size_of_val(&*s.fused) + size_of_val(&*s.inputs);
        let band = |b: &Band| {
            size_of::<Band>()
                + size_of_val(&*b.windows)
                + size_of_val(&*b.banks)
                + size_of_val(&*b.rows)
        };
        let frees: usize = self
            .frees
            .iter()
            .map(|f| size_of_val(f) + size_of_val(&**f))
            .sum();
        self.steps.iter().map(step).sum::<usize>()
            + self.bands.iter().map(band).sum::<usize>()
            + size_of_val(&*self.lives)
            + size_of_val(&*self.spans)
            + size_of_val(&*self.live)
            // Counted before it is known how many there are.
            + self.steps.len() * size_of::<Resident>()
            + size_of_val(&*self.output_lens)
            + size_of_val(&*self.input_lens)
            + frees
    }
}
