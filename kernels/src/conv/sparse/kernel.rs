//! The inner loops: lists times groups of vectors of pixels.
//!
//! Short lists of small groups of vectors would wait for their own multiply-adds, so several are run side by side as far as
//! the shortest goes. Vectors of 16 pixels are one register, or two of 8: the loops are the same.

use super::lines::{LINE, Lines, Pack, TILE, Tile};
use crate::activation::{self, Epilogue, VectorFunction, finish_vectors};
use crate::conv::ConvShape;
use crate::conv::store::Last;
use crate::shape::{View, ViewMut};
use crate::simd::{Isa, Long, LongWork, Simd, Work};
use crate::weights::PANEL;
use std::ops::Range;

/// Pieces of a vector in the output: at most four rows.
const PIECES: usize = 4;
/// Length of a row of sums: a vector of 8 may be read behind the last one.
const ROW: usize = (TILE + 1) * LINE;

/// Where sums are between two blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere yet: they are zero.
    Zero,
    /// In the scratch.
    Sums,
    /// In the output.
    Out,
}

/// Sums of a group of vectors, a row per channel of a panel.
#[repr(align(64))]
pub(super) struct Sums([[f32; ROW]; PANEL]);

/// Lists of panels for one block of input channels.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    /// Where each list starts and ends.
    pub starts: &'a [u32],
    pub ends: &'a [u32],
    pub places: &'a [u16],
    pub values: &'a [f32],
    pub first_panel: usize,
}

/// A call.
pub(super) struct Job<'a, 'b> {
    pub isa: Isa,
    pub shape: &'a ConvShape,
    pub lines: &'a Lines,
    pub input: View<'a>,
    /// The output row that `out` starts with.
    pub first_row: usize,
    pub out: &'a mut ViewMut<'b>,
    /// Of the block that is computed.
    pub epilogue: Option<&'a Epilogue<'a>>,
    /// Packed input.
    pub data: &'a mut [f32],
    /// `[group of vectors][channel][vector][16]` of a tile, if sums are kept between blocks.
    pub sums: &'a mut [f32],
    pub own: Sums,
}

impl Sums {
    pub fn new() -> Sums {
        Sums([[0.0; ROW]; PANEL])
    }
}

/// Runs the lists of a panel for a group of vectors.
type Run<const L: usize> = fn(Isa, Panel<'_, L>);

/// The groups of vectors there are for groups of `L` channels, the largest first; the last one has a single vector.
pub(in crate::conv) trait Groups<const L: usize> {
    /// In registers of 16 values.
    const LONG: &'static [(usize, Run<L>)];
    /// In registers of 8.
    const SHORT: &'static [(usize, Run<L>)];
}

/// Groups of `L` channels.
pub(in crate::conv) struct Channels<const L: usize>;

impl Groups<1> for Channels<1> {
    const LONG: &'static [(usize, Run<1>)] = &[
        (12, long::<1, 12, 1>),
        (8, long::<1, 8, 1>),
        (4, long::<1, 4, 1>),
        (2, long::<1, 2, 2>),
        (1, long::<1, 1, 2>),
    ];
    const SHORT: &'static [(usize, Run<1>)] = &[
        (6, short::<1, 6, 1>),
        (4, short::<1, 4, 1>),
        (2, short::<1, 2, 2>),
        (1, short::<1, 1, 4>),
    ];
}

impl Groups<2> for Channels<2> {
    const LONG: &'static [(usize, Run<2>)] = &[
        (8, long::<2, 8, 1>),
        (4, long::<2, 4, 1>),
        (2, long::<2, 2, 2>),
        (1, long::<2, 1, 4>),
    ];
    const SHORT: &'static [(usize, Run<2>)] = &[(2, short::<2, 2, 1>), (1, short::<2, 1, 2>)];
}

impl Groups<4> for Channels<4> {
    const LONG: &'static [(usize, Run<4>)] = &[
        (6, long::<4, 6, 1>),
        (4, long::<4, 4, 1>),
        (2, long::<4, 2, 1>),
        (1, long::<4, 1, 2>),
    ];
    const SHORT: &'static [(usize, Run<4>)] = &[(1, short::<4, 1, 1>)];
}

fn long<const L: usize, const NV: usize, const P: usize>(isa: Isa, panel: Panel<'_, L>) {
    isa.run_long(Chains::<L, NV, P>(panel));
}

fn short<const L: usize, const NV: usize, const P: usize>(isa: Isa, panel: Panel<'_, L>) {
    isa.run(Chains::<L, NV, P>(panel));
}

/// The group for the next of `left` vectors: the smallest one that needs no more groups than the largest would, if there are
/// so many.
fn choose<T: Copy>(groups: &[(usize, T)], left: usize) -> Option<(usize, T)> {
    let even = left.div_ceil(left.div_ceil(groups.first()?.0).max(1));
    let fitting = groups.iter().filter(|(size, _)| *size <= left);
    let above = fitting.clone().rfind(|(size, _)| *size >= even);
    above.or(fitting.clone().next()).copied()
}

/// The tiles of output rows.
pub(super) fn tiles(
    lines: &Lines,
    shape: &ConvShape,
    rows: &Range<usize>,
) -> impl Iterator<Item = Tile> + use<> {
    let (across, height) = (lines.across, lines.height);
    let (step, columns) = (across * lines.width(), shape.out_w);
    // Of whole groups of vectors.
    let sizes = [TILE, 8, 6, 4, 2, 1].map(|size| ((size / across).max(1), ()));
    let (mut at, end) = (rows.start, rows.end);
    let rows = std::iter::from_fn(move || {
        let (size, ()) = choose(&sizes, (end - at).div_ceil(height))?;
        let rows = at..end.min(at + size * height);
        at = rows.end;
        Some(rows)
    });
    rows.flat_map(move |rows| {
        let columns = (0..columns).step_by(step);
        columns.map(move |column| Tile {
            rows: rows.clone(),
            column,
        })
    })
}

impl Job<'_, '_> {
    /// Packs the input channels of a block (of the whole input) for a tile.
    pub fn pack(&mut self, channels: &Range<usize>, tile: &Tile) {
        let pack = Pack {
            lines: self.lines,
            shape: self.shape,
            input: self.input,
            channels: channels.clone(),
            tile,
            out: self.data,
        };
        if self.isa.has_long() {
            self.isa.run_long(pack);
        } else {
            self.isa.run(pack);
        }
    }

    /// Computes a block that is packed, with groups of `L` channels.
    pub fn tile<const L: usize>(&mut self, part: &Part<'_>, tile: &Tile, from: Place, to: Place)
    where
        Channels<L>: Groups<L>,
    {
        let groups = if self.isa.has_long() {
            Channels::<L>::LONG
        } else if self.isa.is_fast() {
            Channels::<L>::SHORT
        } else {
            &Channels::<L>::SHORT[Channels::<L>::SHORT.len() - 1..]
        };
        let panels = part.starts.len() / (PANEL / L);
        // Of one group of the layer.
        let (channel, _) = self.shape.panel_channels(part.first_panel);
        let (last, lanes) = self.shape.panel_channels(part.first_panel + panels - 1);
        let end = last + lanes;
        let all = self.lines.most(tile.rows.len());
        let mut first = 0;
        while let Some((count, run)) = choose(groups, all - first) {
            let spots = self.spots(tile, first, count);
            let spots = &spots[..count * self.pieces()];
            let lists = part
                .starts
                .chunks(PANEL / L)
                .zip(part.ends.chunks(PANEL / L));
            let mut at = panels * PANEL * first * LINE;
            for ((starts, ends), channel) in lists.zip((channel..).step_by(PANEL)) {
                let channels = channel..(channel + PANEL).min(end);
                if from == Place::Out {
                    self.fetch(channels.clone(), spots);
                }
                let sums = self.sums.get_mut(at..);
                let panel = Panel {
                    starts,
                    ends,
                    places: part.places,
                    values: part.values.as_chunks::<L>().0,
                    window: self.data[first * LINE..].as_chunks().0,
                    from,
                    to,
                    sums: sums.unwrap_or_default(),
                    own: &mut self.own,
                };
                run(self.isa, panel);
                if to == Place::Out {
                    self.store(channels, spots);
                }
                at += PANEL * count * LINE;
            }
            first += count;
        }
    }

    /// Pieces of a vector that follow each other in the output.
    fn pieces(&self) -> usize {
        self.lines.height.max(2)
    }

    /// Where the pieces of the vectors of a group are in channel 0 of the output, and how many of their pixels exist.
    fn spots(&self, tile: &Tile, first: usize, count: usize) -> [(usize, usize); TILE * PIECES] {
        let mut spots = [(0, 0); TILE * PIECES];
        let (lines, pieces) = (self.lines, self.pieces());
        let (len, width) = (LINE / pieces, lines.width());
        for (i, spot) in spots.iter_mut().enumerate().take(count * pieces) {
            let (vector, at) = (first + i / pieces, i % pieces * len);
            let row = tile.rows.start + vector / lines.across * lines.height + at / width;
            let column = tile.column + vector % lines.across * width + at % width;
            if row < tile.rows.end && column < self.shape.out_w {
                let row = self.out.map.at(0, 0, row - self.first_row);
                *spot = (row + column, len.min(self.shape.out_w - column));
            }
        }
        spots
    }

    /// Brings sums from the output.
    fn fetch(&mut self, channels: Range<usize>, spots: &[(usize, usize)]) {
        let step = LINE / self.pieces();
        for (channel, own) in channels.zip(&mut self.own.0) {
            let out = &self.out.data[channel * self.out.map.channel..];
            for (&(at, len), own) in spots.iter().zip(own.chunks_exact_mut(step)) {
                if len > 0 {
                    own[..len].copy_from_slice(&out[at..at + len]);
                }
            }
        }
    }

    /// Brings sums to the output, finished if the block is the last one.
    fn store(&mut self, channels: Range<usize>, spots: &[(usize, usize)]) {
        let step = LINE / self.pieces();
        self.isa.run(Store {
            epilogue: self.epilogue,
            stride: self.out.map.channel,
            out: self.out.data,
            channels,
            own: &self.own,
            step,
            spots,
        });
    }
}

/// The lists of a panel.
pub(in crate::conv) struct Panel<'a, const L: usize> {
    starts: &'a [u32],
    ends: &'a [u32],
    places: &'a [u16],
    values: &'a [[f32; L]],
    /// Packed input from the group's first line on.
    window: &'a [[f32; LINE]],
    from: Place,
    to: Place,
    sums: &'a mut [f32],
    own: &'a mut Sums,
}

/// The chains of a panel for `NV` vectors, `P` lists at a time (which divides their number).
struct Chains<'a, const L: usize, const NV: usize, const P: usize>(Panel<'a, L>);

/// Vectors of a line.
trait Vectors: Copy {
    type V: Copy;
    fn splat(self, value: f32) -> Self::V;
    fn load(self, from: &[f32; LINE]) -> Self::V;
    fn store(self, v: Self::V, to: &mut [f32; LINE]);
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
}

/// One register.
#[derive(Clone, Copy)]
struct One<S>(S);

impl<S: Long> Vectors for One<S> {
    type V = S::L;

    #[inline(always)]
    fn splat(self, value: f32) -> S::L {
        self.0.splat16(value)
    }

    #[inline(always)]
    fn load(self, from: &[f32; LINE]) -> S::L {
        self.0.load16(from)
    }

    #[inline(always)]
    fn store(self, v: S::L, to: &mut [f32; LINE]) {
        self.0.store16(v, to);
    }

    #[inline(always)]
    fn mul_add(self, a: S::L, b: S::L, c: S::L) -> S::L {
        self.0.mul_add16(a, b, c)
    }
}

/// Two of half the length.
#[derive(Clone, Copy)]
struct Two<S>(S);

impl<S: Simd> Vectors for Two<S> {
    type V = [S::V; 2];

    #[inline(always)]
    fn splat(self, value: f32) -> [S::V; 2] {
        [self.0.splat(value); 2]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LINE]) -> [S::V; 2] {
        let halves = from.as_chunks().0;
        [self.0.load(&halves[0]), self.0.load(&halves[1])]
    }

    #[inline(always)]
    fn store(self, v: [S::V; 2], to: &mut [f32; LINE]) {
        let halves = to.as_chunks_mut().0;
        self.0.store(v[0], &mut halves[0]);
        self.0.store(v[1], &mut halves[1]);
    }

    #[inline(always)]
    fn mul_add(self, a: [S::V; 2], b: [S::V; 2], c: [S::V; 2]) -> [S::V; 2] {
        let simd = self.0;
        [
            simd.mul_add(a[0], b[0], c[0]),
            simd.mul_add(a[1], b[1], c[1]),
        ]
    }
}

impl<const L: usize, const NV: usize, const P: usize> LongWork for Chains<'_, L, NV, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Long>(self, simd: S) {
        self.0.run::<_, NV, P>(One(simd));
    }
}

impl<const L: usize, const NV: usize, const P: usize> Work for Chains<'_, L, NV, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // Larger groups are for the registers of fast instruction sets.
        if S::FAST || NV == 1 {
            self.0.run::<_, NV, P>(Two(simd));
        }
    }
}

impl<const L: usize> Panel<'_, L> {
    #[inline(always)]
    fn run<S: Vectors, const NV: usize, const P: usize>(self, simd: S) {
        let Panel {
            starts,
            ends,
            places,
            values,
            window,
            from,
            to,
            sums,
            own,
        } = self;
        let bounds = starts
            .as_chunks::<P>()
            .0
            .iter()
            .zip(ends.as_chunks::<P>().0);
        for (i, (starts, ends)) in bounds.enumerate() {
            let mut acc = [[[simd.splat(0.0); NV]; L]; P];
            if from != Place::Zero {
                for p in 0..P {
                    for l in 0..L {
                        let channel = (i * P + p) * L + l;
                        let row = match from {
                            Place::Sums => &sums[channel * NV * LINE..][..NV * LINE],
                            _ => &own.0[channel][..NV * LINE],
                        };
                        for j in 0..NV {
                            acc[p][l][j] = simd.load(&row.as_chunks().0[j]);
                        }
                    }
                }
            }
            let mut lists = [(&[][..], &[][..]); P];
            let mut common = usize::MAX;
            for p in 0..P {
                let list = starts[p] as usize..ends[p] as usize;
                lists[p] = (&places[list.clone()], &values[list]);
                common = common.min(lists[p].0.len());
            }
            let mut heads = lists;
            for p in 0..P {
                let (places, values) = lists[p];
                heads[p] = (&places[..common], &values[..common]);
            }
            for e in 0..common {
                for p in 0..P {
                    let (places, values) = heads[p];
                    entry(simd, places[e], &values[e], window, &mut acc[p]);
                }
            }
            if P > 1 {
                for p in 0..P {
                    let (places, values) = lists[p];
                    for (place, value) in places[common..].iter().zip(&values[common..]) {
                        entry(simd, *place, value, window, &mut acc[p]);
                    }
                }
            }
            for p in 0..P {
                for l in 0..L {
                    let channel = (i * P + p) * L + l;
                    let row = match to {
                        Place::Sums => &mut sums[channel * NV * LINE..][..NV * LINE],
                        _ => &mut own.0[channel][..NV * LINE],
                    };
                    for j in 0..NV {
                        simd.store(acc[p][l][j], &mut row.as_chunks_mut().0[j]);
                    }
                }
            }
        }
    }
}

/// One entry of a list.
#[inline(always)]
fn entry<S: Vectors, const L: usize, const NV: usize>(
    simd: S,
    place: u16,
    values: &[f32; L],
    window: &[[f32; LINE]],
    acc: &mut [[S::V; NV]; L],
) {
    let x = &window[place as usize..][..NV];
    let mut lines = [simd.splat(0.0); NV];
    for j in 0..NV {
        lines[j] = simd.load(&x[j]);
    }
    for l in 0..L {
        let w = simd.splat(values[l]);
        for j in 0..NV {
            acc[l][j] = simd.mul_add(w, lines[j], acc[l][j]);
        }
    }
}

struct Store<'a> {
    epilogue: Option<&'a Epilogue<'a>>,
    /// Distance of two channels in `out`.
    stride: usize,
    out: &'a mut [f32],
    channels: Range<usize>,
    own: &'a Sums,
    /// Between the sums of two pieces.
    step: usize,
    spots: &'a [(usize, usize)],
}

impl Work for Store<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let simple = self.epilogue.filter(|e| e.is_simple());
        for (channel, own) in self.channels.zip(&self.own.0) {
            let out = &mut self.out[channel * self.stride..];
            let row = Row {
                simd,
                out: &mut *out,
                own,
                step: self.step,
                spots: self.spots,
            };
            finish_vectors(simple, channel, row);
            if let Some(epilogue) = self.epilogue.filter(|_| simple.is_none()) {
                for &(at, len) in self.spots.iter().filter(|(_, len)| *len > 0) {
                    epilogue.apply(channel, &mut out[at..at + len]);
                }
            }
        }
    }
}

/// The pieces of one channel.
struct Row<'a, S> {
    simd: S,
    out: &'a mut [f32],
    own: &'a [f32; ROW],
    step: usize,
    spots: &'a [(usize, usize)],
}

impl<S: Simd> activation::Vectors for Row<'_, S> {
    const FAST: bool = S::FAST;

    #[inline(always)]
    fn finish<F: VectorFunction>(self, bias: Option<f32>, function: F) {
        let simd = self.simd;
        let last = Last {
            simd,
            accumulate: false,
            bias: bias.map(|bias| simd.splat(bias)),
            function,
        };
        for (i, &(at, len)) in self.spots.iter().enumerate() {
            if len == 0 {
                continue;
            }
            let own = &self.own[i * self.step..][..8];
            let (out, sum) = (&mut self.out[at..], simd.load(&own.as_chunks().0[0]));
            match out.first_chunk_mut::<8>() {
                Some(out) if len == 8 => simd.store(last.of(sum, || sum), out),
                _ => last.part(out, sum, len),
            }
        }
    }
}
