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

impl Target<'_, '_> {
    /// Writes the sums of the vectors of a group for channels `channels`, one row of sums each.
    pub fn store(
        &mut self,
        isa: Isa,
        channels: Range<usize>,
        sums: &mut [[f32; GROUP * 8]],
        vectors: &[Pixels],
    ) {
        isa.run(Store {
            target: self,
            channels,
            sums,
            vectors,
        });
    }

    /// Writes one channel's sums of the vectors of a group.
    #[inline(always)]
    fn channel<S: Simd>(
        &mut self,
        simd: S,
        channel: usize,
        sums: &mut [f32; GROUP * 8],
        vectors: &[Pixels],
    ) {
        if self.accumulate {
            self.segments(channel, vectors, |out, at, len| {
                let sums = &mut sums[at..at + len];
                if let (Some(s), Some(o)) = (sums.as_mut_array(), out.as_array()) {
                    simd.store(simd.add(simd.load(o), simd.load(s)), s);
                } else {
                    sums.iter_mut().zip(out.iter()).for_each(|(s, o)| *s += *o);
                }
            });
        }
        if let Some(epilogue) = self.epilogue {
            epilogue.apply(channel, &mut sums[..vectors.len() * 8]);
        }
        self.segments(channel, vectors, |out, at, len| {
            let sums = &sums[at..at + len];
            if let (Some(s), Some(o)) = (sums.as_array::<8>(), out.as_mut_array::<8>()) {
                *o = *s;
            } else {
                out.iter_mut().zip(sums).for_each(|(o, s)| *o = *s);
            }
        });
    }

    /// The stretches of the output that the vectors cover, with their places in the sums.
    #[inline(always)]
    fn segments(
        &mut self,
        channel: usize,
        vectors: &[Pixels],
        mut body: impl FnMut(&mut [f32], usize, usize),
    ) {
        let columns = self.band.columns.len();
        let above = self.band.rows.start - self.first_row;
        for (j, pixels) in vectors.iter().enumerate() {
            let Pixels {
                mut row,
                mut column,
                len,
            } = *pixels;
            let mut done = 0;
            while done < len {
                let n = (columns - column).min(len - done);
                let at =
                    self.out.map.at(0, channel, above + row) + self.band.columns.start + column;
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
    sums: &'a mut [[f32; GROUP * 8]],
    vectors: &'a [Pixels],
}

impl Work for Store<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (channel, sums) in self.channels.zip(self.sums) {
            self.target.channel(simd, channel, sums, self.vectors);
        }
    }
}
