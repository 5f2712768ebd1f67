//! Finished sums of a group of pixels to the output map: adds what is there, applies the epilogue.

use super::plane::Band;
use crate::activation::Epilogue;
use crate::shape::ViewMut;
use crate::simd::{Isa, Simd, Work};
use crate::weights::PANEL;
use std::ops::Range;

/// Vectors of pixels of the widest group.
pub(super) const GROUP: usize = 4;
/// Length of a row of sums: room for a vector to start at the last sum.
pub(super) const SUMS: usize = GROUP * 8 + 8;
/// Sums of a group: one row per channel of a panel; vectors do not straddle cache lines.
#[repr(align(32))]
pub(super) struct Sums(pub [[f32; SUMS]; PANEL]);

impl Sums {
    pub fn new() -> Sums {
        Sums([[0.0; SUMS]; PANEL])
    }
}

/// Consecutive pixels of a band in row-major order, starting at (row, column) of the band.
#[derive(Clone, Copy, Default)]
pub(super) struct Pixels {
    pub row: usize,
    pub column: usize,
    pub len: usize,
}

/// The groups of a band, for kernels with one pixel per lane: vectors of 8 pixels that do not
/// cross a row unless `flat`.
pub(super) struct Vectors {
    flat: bool,
    rows: usize,
    columns: usize,
    row: usize,
    column: usize,
}

impl Vectors {
    pub fn new(band: &Band, flat: bool) -> Vectors {
        Vectors {
            flat,
            rows: band.rows.len(),
            columns: band.columns.len(),
            row: 0,
            column: 0,
        }
    }

    /// Number of vectors.
    pub fn count(&self) -> usize {
        if self.flat {
            (self.rows * self.columns).div_ceil(8)
        } else {
            self.rows * self.columns.div_ceil(8)
        }
    }

    /// The next vector.
    #[inline(always)]
    pub fn next(&mut self) -> Pixels {
        let (row, column) = (self.row, self.column);
        let left = if self.flat {
            (self.rows - row) * self.columns
        } else {
            self.columns
        } - column;
        let len = left.min(8);
        self.column += len;
        while self.column >= self.columns && self.row < self.rows {
            self.column -= self.columns;
            self.row += 1;
        }
        Pixels { row, column, len }
    }
}

/// Where sums go.
pub(super) struct Target<'a, 'b> {
    pub out: &'a mut ViewMut<'b>,
    /// The output row that `out` starts with.
    pub first_row: usize,
    /// The band the pixels belong to.
    pub band: Band,
    /// Add to what is there.
    pub accumulate: bool,
    /// With the last block only.
    pub epilogue: Option<&'a Epilogue<'a>>,
}

/// The stretches of the output that a group covers.
pub(super) struct Spots {
    segments: [Segment; GROUP * 8],
    count: usize,
    /// Every segment is a whole vector.
    whole: bool,
}

/// Pixels of one row.
#[derive(Clone, Copy, Default)]
struct Segment {
    /// Offset in channel 0 of the output.
    at: usize,
    /// Place within the sums, and length: at most 8.
    sum: u32,
    len: u32,
}

impl Target<'_, '_> {
    /// Finds the places of a group's vectors.
    #[inline]
    pub fn spots(&self, vectors: &[Pixels]) -> Spots {
        let columns = self.band.columns.len();
        let mut spots = Spots {
            segments: [Segment::default(); GROUP * 8],
            count: 0,
            whole: true,
        };
        for (j, pixels) in vectors.iter().enumerate() {
            let Pixels {
                mut row,
                mut column,
                len,
            } = *pixels;
            let mut done = 0;
            while done < len {
                let n = (columns - column).min(len - done);
                let above = self.band.rows.start - self.first_row + row;
                let at = self.out.map.at(0, 0, above) + self.band.columns.start + column;
                let sum = (j * 8 + done) as u32;
                spots.segments[spots.count] = Segment {
                    at,
                    sum,
                    len: n as u32,
                };
                spots.count += 1;
                spots.whole &= n == 8;
                done += n;
                row += 1;
                column = 0;
            }
        }
        spots
    }

    /// Writes the sums of a group for channels `channels`, one row of sums each.
    pub fn store(&mut self, isa: Isa, channels: Range<usize>, sums: &mut Sums, spots: &Spots) {
        isa.run(Store {
            target: self,
            channels,
            sums,
            spots,
        });
    }
}

struct Store<'a, 'b, 'c> {
    target: &'a mut Target<'b, 'c>,
    channels: Range<usize>,
    sums: &'a mut Sums,
    spots: &'a Spots,
}

impl Work for Store<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Store {
            target,
            channels,
            sums,
            spots,
        } = self;
        let simple = target.epilogue.filter(|e| e.is_simple());
        let finish = Finish {
            accumulate: target.accumulate,
            epilogue: simple,
        };
        let segments = &spots.segments[..spots.count];
        let stride = target.out.map.channel;
        for (channel, sums) in channels.zip(&mut sums.0) {
            let out = &mut target.out.data[channel * stride..];
            if spots.whole {
                for (v, s) in sums.as_chunks().0.iter().zip(segments) {
                    let out = &mut out[s.at..][..8].as_chunks_mut().0[0];
                    let v = finish.vector(simd, channel, simd.load(v), || simd.load(out));
                    simd.store(v, out);
                }
            } else {
                for s in segments {
                    finish.part(simd, channel, out, sums, s);
                }
            }
            if let Some(epilogue) = target.epilogue.filter(|_| simple.is_none()) {
                for s in segments {
                    epilogue.apply(channel, &mut out[s.at..][..s.len as usize]);
                }
            }
        }
    }
}

/// What happens to a sum before it is written, in one pass.
pub(super) struct Finish<'a> {
    pub accumulate: bool,
    /// Simple ones only.
    pub epilogue: Option<&'a Epilogue<'a>>,
}

impl Finish<'_> {
    #[inline(always)]
    fn vector<S: Simd>(&self, simd: S, channel: usize, sum: S::V, out: impl Fn() -> S::V) -> S::V {
        let sum = if self.accumulate {
            simd.add(out(), sum)
        } else {
            sum
        };
        match self.epilogue {
            Some(epilogue) => epilogue.apply_vector(simd, channel, sum),
            None => sum,
        }
    }

    /// `len` sums to the start of `out`; a vector may be read behind the last sum.
    #[inline(always)]
    pub fn line<S: Simd>(
        &self,
        simd: S,
        channel: usize,
        out: &mut [f32],
        sums: &[f32],
        len: usize,
    ) {
        let whole = out[..len].as_chunks_mut::<8>().0.iter_mut();
        for (out, sums) in whole.zip(sums.as_chunks().0) {
            let v = self.vector(simd, channel, simd.load(sums), || simd.load(out));
            simd.store(v, out);
        }
        let done = len / 8 * 8;
        if done < len {
            let mut last = [0.0; SUMS];
            last[..8].copy_from_slice(&sums[done..done + 8]);
            let segment = Segment {
                at: done,
                sum: 0,
                len: (len - done) as u32,
            };
            self.part(simd, channel, out, &last, &segment);
        }
    }

    /// Less than a vector; what lies behind it in the output keeps its value.
    #[inline(always)]
    fn part<S: Simd>(
        &self,
        simd: S,
        channel: usize,
        out: &mut [f32],
        sums: &[f32; SUMS],
        s: &Segment,
    ) {
        let (first, len) = (s.sum as usize, s.len as usize);
        let sum = simd.load(&sums[first..first + 8].as_chunks().0[0]);
        // The end of the output may be nearer than 8 elements.
        let mut short = [0.0; 8];
        let behind = out.len().min(s.at + 8);
        let near = &mut out[s.at..behind];
        if let Some(near) = near.as_mut_array::<8>() {
            let old = simd.load(near);
            let new = self.vector(simd, channel, sum, || old);
            simd.store(simd.blend(len, new, old), near);
        } else {
            short[..near.len()].copy_from_slice(near);
            let new = self.vector(simd, channel, sum, || simd.load(&short));
            simd.store(new, &mut short);
            near[..len].copy_from_slice(&short[..len]);
        }
    }
}
