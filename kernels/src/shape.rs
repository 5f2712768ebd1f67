//! Geometry of activations in memory: every kernel takes row, channel and batch strides, the column stride is 1.
//!
//! The runtime's own layout is `[row][channel][column]` ([`Map::rows`]): a range of rows is one contiguous slice, so rows
//! can be split between threads without sharing, and an output row may take the place of a dead input row (the reason
//! for this layout: see `docs/decisions/`). Callers' tensors are plain NCHW ([`Map::nchw`]). Halo is virtual: no kernel
//! expects padding in memory.

/// A 4-D activation inside a slice of f32; strides in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// Images.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Distance of two images.
    pub batch: usize,
    /// Distance of two channels.
    pub channel: usize,
    /// Distance of two rows.
    pub row: usize,
}

impl Map {
    /// Plain `[n][c][h][w]`.
    pub fn nchw(n: usize, c: usize, h: usize, w: usize) -> Map {
        Map {
            n,
            c,
            h,
            w,
            batch: c * h * w,
            channel: h * w,
            row: w,
        }
    }
    /// The runtime's `[n][h][c][w]`.
    pub fn rows(n: usize, c: usize, h: usize, w: usize) -> Map {
        Map {
            n,
            c,
            h,
            w,
            batch: c * h * w,
            channel: w,
            row: c * w,
        }
    }
    /// Elements, gaps not counted.
    pub fn len(&self) -> usize {
        self.n * self.c * self.h * self.w
    }
    /// No elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Least length of a slice that holds the map.
    pub fn span(&self) -> usize {
        if self.is_empty() {
            return 0;
        }
        (self.n - 1) * self.batch + (self.c - 1) * self.channel + (self.h - 1) * self.row + self.w
    }
    /// Offset of the first column.
    pub fn at(&self, n: usize, c: usize, h: usize) -> usize {
        n * self.batch + c * self.channel + h * self.row
    }
    /// The four sizes for the functions of [`crate::layout`].
    pub fn dims(&self) -> crate::layout::Dims {
        [1, 1, self.n, self.c, self.h, self.w]
    }
    /// The four strides for the functions of [`crate::layout`].
    pub fn strides(&self) -> crate::layout::Dims {
        [0, 0, self.batch, self.channel, self.row, 1]
    }
    /// The same memory order as plain NCHW.
    pub fn is_nchw(&self) -> bool {
        let plain = Map::nchw(self.n, self.c, self.h, self.w);
        (self.n == 1 || self.batch == plain.batch)
            && (self.c == 1 || self.channel == plain.channel)
            && (self.h == 1 || self.row == plain.row)
    }
}

/// A read-only activation.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// At least [`Map::span`] elements.
    pub data: &'a [f32],
    /// Geometry.
    pub map: Map,
}

/// A writable activation.
#[derive(Debug)]
pub struct ViewMut<'a> {
    /// At least [`Map::span`] elements.
    pub data: &'a mut [f32],
    /// Geometry.
    pub map: Map,
}
