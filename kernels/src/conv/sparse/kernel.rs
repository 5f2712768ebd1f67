//! The inner loops: lists times groups of vectors of pixels.

use super::lines::{LINE, Lines, Pack};
use crate::activation::{self, Epilogue, VectorFunction, finish_vectors};
use crate::conv::ConvShape;
use crate::conv::gemm::eight;
use crate::conv::store::Last;
use crate::shape::{View, ViewMut};
use crate::simd::{Isa, Simd, Work};
use crate::weights::PANEL;
use std::ops::Range;

/// Most vectors of a group.
const GROUP: usize = 12;

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
pub(super) struct Sums([[f32; GROUP * 8]; PANEL]);

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
    /// `[group of vectors][channel][vector][8]` of a band, if sums are kept between blocks.
    pub sums: &'a mut [f32],
    pub own: Sums,
}

impl Sums {
    pub fn new() -> Sums {
        Sums([[0.0; GROUP * 8]; PANEL])
    }
}

/// Vectors of the next group of `left`: `A`, `B`, `C` or 1.
fn group<const A: usize, const B: usize, const C: usize>(isa: Isa, left: usize) -> usize {
    // Two groups of the second size keep the registers busier than one of the first and a rest.
    let even = left == 2 * B && left > A;
    if isa.is_fast() && left >= A && !even {
        A
    } else if isa.is_fast() && left >= B {
        B
    } else if left >= C {
        C
    } else {
        1
    }
}

impl Job<'_, '_> {
    /// Packs the input channels of a block (of the whole input) for a band.
    pub fn pack(&mut self, channels: &Range<usize>, band: &Range<usize>) {
        self.isa.run(Pack {
            lines: self.lines,
            shape: self.shape,
            input: self.input,
            channels: channels.clone(),
            band: band.clone(),
            out: self.data,
        });
    }

    /// Computes a block that is packed, with groups of `L` channels and of `A`, `B`, `C` or 1 vectors.
    pub fn band<const L: usize, const A: usize, const B: usize, const C: usize>(
        &mut self,
        part: &Part<'_>,
        band: &Range<usize>,
        from: Place,
        to: Place,
    ) {
        let total = band.len() * self.lines.vectors;
        let panels = part.starts.len() / (PANEL / L);
        // Of one group of the layer.
        let (channel, _) = self.shape.panel_channels(part.first_panel);
        let (last, lanes) = self.shape.panel_channels(part.first_panel + panels - 1);
        let end = last + lanes;
        let mut first = 0;
        while first < total {
            let count = group::<A, B, C>(self.isa, total - first);
            let spots = self.spots(band, first, count);
            let spots = &spots[..count];
            let lists = part
                .starts
                .chunks(PANEL / L)
                .zip(part.ends.chunks(PANEL / L));
            for (i, (starts, ends)) in lists.enumerate() {
                let channel = channel + i * PANEL;
                let channels = channel..(channel + PANEL).min(end);
                if from == Place::Out {
                    self.fetch(channels.clone(), spots);
                }
                let at = (panels * PANEL * first + i * PANEL * count) * 8;
                let sums = self.sums.get_mut(at..);
                let chains = Panel {
                    starts,
                    ends,
                    places: part.places,
                    values: part.values.as_chunks::<L>().0,
                    window: &self.data[first * LINE..],
                    from,
                    to,
                    sums: sums.unwrap_or_default(),
                    own: &mut self.own,
                };
                if count == A {
                    self.isa.run(Chains::<L, A>(chains));
                } else if count == B {
                    self.isa.run(Chains::<L, B>(chains));
                } else if count == C {
                    self.isa.run(Chains::<L, C>(chains));
                } else {
                    self.isa.run(Chains::<L, 1>(chains));
                }
                if to == Place::Out {
                    self.store(channels, spots);
                }
            }
            first += count;
        }
    }

    /// Where the vectors of a group are in channel 0 of the output, and how many of their pixels exist.
    fn spots(&self, band: &Range<usize>, first: usize, count: usize) -> [(usize, usize); GROUP] {
        let mut spots = [(0, 0); GROUP];
        let vectors = self.lines.vectors;
        for (i, spot) in spots.iter_mut().enumerate().take(count) {
            let (row, vector) = ((first + i) / vectors, (first + i) % vectors);
            let row = self.out.map.at(0, 0, band.start - self.first_row + row);
            let left = self.shape.out_w - vector * 8;
            *spot = (row + vector * 8, left.min(8));
        }
        spots
    }

    /// Brings sums from the output.
    fn fetch(&mut self, channels: Range<usize>, spots: &[(usize, usize)]) {
        for (channel, own) in channels.zip(&mut self.own.0) {
            let out = &self.out.data[channel * self.out.map.channel..];
            for (&(at, len), own) in spots.iter().zip(own.as_chunks_mut::<8>().0) {
                match out.get(at..).and_then(|out| out.first_chunk::<8>()) {
                    Some(eight) => *own = *eight,
                    None => own[..len].copy_from_slice(&out[at..at + len]),
                }
            }
        }
    }

    /// Brings sums to the output, finished if the block is the last one.
    fn store(&mut self, channels: Range<usize>, spots: &[(usize, usize)]) {
        self.isa.run(Store {
            epilogue: self.epilogue,
            stride: self.out.map.channel,
            out: self.out.data,
            channels,
            own: &self.own,
            spots,
        });
    }
}

/// The lists of a panel.
struct Panel<'a, const L: usize> {
    starts: &'a [u32],
    ends: &'a [u32],
    places: &'a [u16],
    values: &'a [[f32; L]],
    /// Packed input from the group's first line on.
    window: &'a [f32],
    from: Place,
    to: Place,
    sums: &'a mut [f32],
    own: &'a mut Sums,
}

/// The chains of a panel for `NV` vectors.
struct Chains<'a, const L: usize, const NV: usize>(Panel<'a, L>);

impl<const L: usize, const NV: usize> Work for Chains<'_, L, NV> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // Large groups are for the registers of fast instruction sets.
        if !S::FAST && NV > 2 && L * NV >= 8 {
            return;
        }
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
        } = self.0;
        for i in 0..starts.len() {
            let list = starts[i] as usize..ends[i] as usize;
            let (places, values) = (&places[list.clone()], &values[list]);
            let mut acc = [[simd.splat(0.0); NV]; L];
            if from != Place::Zero {
                for l in 0..L {
                    let row = match from {
                        Place::Sums => &sums[(i * L + l) * NV * 8..][..NV * 8],
                        _ => &own.0[i * L + l][..NV * 8],
                    };
                    for j in 0..NV {
                        acc[l][j] = simd.load(eight(row, j * 8));
                    }
                }
            }
            chains(simd, places, values, window, &mut acc);
            for l in 0..L {
                let row = match to {
                    Place::Sums => &mut sums[(i * L + l) * NV * 8..][..NV * 8],
                    _ => &mut own.0[i * L + l][..NV * 8],
                };
                let row = row.as_chunks_mut().0;
                for j in 0..NV {
                    simd.store(acc[l][j], &mut row[j]);
                }
            }
        }
    }
}

/// The entries of one list.
#[inline(always)]
fn chains<S: Simd, const L: usize, const NV: usize>(
    simd: S,
    places: &[u16],
    values: &[[f32; L]],
    window: &[f32],
    acc: &mut [[S::V; NV]; L],
) {
    let values = &values[..places.len()];
    for i in 0..places.len() {
        let place = places[i] as usize;
        let x = &window[place..place + (NV - 1) * LINE + 8];
        let mut lines = [simd.splat(0.0); NV];
        for j in 0..NV {
            lines[j] = simd.load(eight(x, j * LINE));
        }
        for l in 0..L {
            let w = simd.splat(values[i][l]);
            for j in 0..NV {
                acc[l][j] = simd.mul_add(w, lines[j], acc[l][j]);
            }
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
                spots: self.spots,
            };
            finish_vectors(simple, channel, row);
            if let Some(epilogue) = self.epilogue.filter(|_| simple.is_none()) {
                for &(at, len) in self.spots {
                    epilogue.apply(channel, &mut out[at..at + len]);
                }
            }
        }
    }
}

/// The vectors of one channel.
struct Row<'a, S> {
    simd: S,
    out: &'a mut [f32],
    own: &'a [f32; GROUP * 8],
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
        for (v, &(at, len)) in self.own.as_chunks().0.iter().zip(self.spots) {
            let (out, sum) = (&mut self.out[at..], simd.load(v));
            match out.first_chunk_mut::<8>() {
                Some(out) if len == 8 => simd.store(last.of(sum, || sum), out),
                _ => last.part(out, sum, len),
            }
        }
    }
}
