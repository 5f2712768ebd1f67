//! Finished sums of a group of pixels to the output map: adds what is there, applies the epilogue.

use super::plane::Band;
use crate::activation::Epilogue;
use crate::shape::ViewMut;
use crate::simd::{Isa, Simd, Work};
use crate::weights::PANEL;
use std::ops::Range;

/// Vectors of pixels of the widest group.
pub(super) const GROUP: usize = 4;
/// Sums of a group: one row per channel of a panel.
pub(super) type Sums = [[f32; GROUP * 8]; PANEL];

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

/// Vectors of a group with their places in the output.
#[derive(Clone, Copy)]
pub(super) struct Spots {
    vectors: [Pixels; GROUP],
    count: usize,
    /// Offset of each vector's first pixel in channel 0.
    at: [usize; GROUP],
    /// Every vector has 8 pixels of one row.
    whole: bool,
}

impl Target<'_, '_> {
    /// Finds the vectors' places.
    pub fn spots(&self, vectors: &[Pixels]) -> Spots {
        let columns = self.band.columns.len();
        let count = vectors.len().min(GROUP);
        let mut spots = Spots {
            vectors: [Pixels::default(); GROUP],
            count,
            at: [0; GROUP],
            whole: vectors
                .iter()
                .all(|v| v.len == 8 && v.column + 8 <= columns),
        };
        spots.vectors[..count].copy_from_slice(&vectors[..count]);
        for (at, v) in spots.at.iter_mut().zip(vectors) {
            *at = self.place(0, v.row, v.column);
        }
        spots
    }

    #[inline(always)]
    fn place(&self, channel: usize, row: usize, column: usize) -> usize {
        let row = self.band.rows.start - self.first_row + row;
        self.out.map.at(0, channel, row) + self.band.columns.start + column
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

    /// The stretches of the output that the vectors cover, with their places in the sums.
    fn segments(
        &mut self,
        channel: usize,
        spots: &Spots,
        mut body: impl FnMut(&mut [f32], usize, usize),
    ) {
        let columns = self.band.columns.len();
        for (j, pixels) in spots.vectors[..spots.count].iter().enumerate() {
            let Pixels {
                mut row,
                mut column,
                len,
            } = *pixels;
            let mut done = 0;
            while done < len {
                let n = (columns - column).min(len - done);
                let at = self.place(channel, row, column);
                body(&mut self.out.data[at..at + n], j * 8 + done, n);
                done += n;
                row += 1;
                column = 0;
            }
        }
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
        if !spots.whole {
            for (channel, sums) in channels.zip(sums) {
                pieces(target, channel, sums, spots);
            }
            return;
        }
        let at = &spots.at[..spots.count];
        for (channel, sums) in channels.zip(sums) {
            let first = channel * target.out.map.channel;
            let vectors = sums.as_chunks_mut().0;
            if target.accumulate {
                for (v, &at) in vectors.iter_mut().zip(at) {
                    let out = &target.out.data[first + at..][..8].as_chunks().0[0];
                    simd.store(simd.add(simd.load(out), simd.load(v)), v);
                }
            }
            if let Some(epilogue) = target.epilogue {
                epilogue.apply(channel, vectors[..at.len()].as_flattened_mut());
            }
            for (v, &at) in vectors.iter().zip(at) {
                let out = &mut target.out.data[first + at..][..8].as_chunks_mut().0[0];
                simd.store(simd.load(v), out);
            }
        }
    }
}

/// One channel of a group with partly filled vectors or row ends within vectors.
fn pieces(target: &mut Target<'_, '_>, channel: usize, sums: &mut [f32; GROUP * 8], spots: &Spots) {
    if target.accumulate {
        target.segments(channel, spots, |out, at, len| {
            sums[at..at + len]
                .iter_mut()
                .zip(out)
                .for_each(|(s, o)| *s += *o);
        });
    }
    if let Some(epilogue) = target.epilogue {
        epilogue.apply(channel, &mut sums[..spots.count * 8]);
    }
    target.segments(channel, spots, |out, at, len| {
        out.iter_mut()
            .zip(&sums[at..at + len])
            .for_each(|(o, s)| *o = *s);
    });
}
