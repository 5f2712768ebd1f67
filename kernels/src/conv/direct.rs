//! Direct convolution without any scratch: register tiles read the input where it lies.
//!
//! The output is cut into rectangles that see the same taps: the interior, and strips at the
//! borders where padding hides some (their k lists are shortened, since a hidden product adds
//! zero). Rectangles with stride 1 and rows of 8 and more run 4 channels x 24 pixels, a pixel per
//! lane; all others 8 channels x 8 pixels, a channel per lane. The weights of one block of one
//! panel, and their offsets, are on the stack (16 KiB). Every panel reads the input anew from
//! memory in its own layout: the first to choose when there is no memory left, and close to the
//! packed kernel on wide rows; it loses with strides, on narrow maps and where many panels share
//! a map larger than the caches. Same blocks and bits as `gemm.rs`. After Zhang, Franchetti & Low,
//! "High performance zero-memory overhead direct convolutions" (2018).

use super::blocks::{Block, K_BLOCK, KBlocks};
use super::gemm::{PixelTile, windows};
use super::plane::Band;
use super::store::{Pixels, Spots, Sums, Target};
use super::{Call, ConvShape, Start};
use crate::expand::expand;
use crate::shape::{Map, View};
use crate::simd::{Isa, Simd, Work};
use crate::weights::{KOrder, PANEL};
use std::ops::Range;

/// Runs the call.
pub(super) fn run(isa: Isa, call: Call<'_, '_>) {
    let Call {
        shape,
        tile,
        input,
        rows,
        out,
        start,
        epilogue,
        ..
    } = call;
    let mut weights = [[0.0; PANEL]; K_BLOCK];
    let mut steps = Steps::new();
    let mut sums = Sums::new();
    for panel in 0..tile.panels {
        let group = (tile.first_panel + panel) / shape.panels_per_group();
        let (first, lanes) = shape.panel_channels(tile.first_panel + panel);
        for block in KBlocks::new(tile, shape.in_per_group(), shape.taps()) {
            expand(isa, tile, panel, block.rows, &mut weights);
            let channel = group * shape.in_per_group() + block.channels.start;
            for (y, ky) in Segments::new(shape, 0, rows.clone()) {
                for (x, kx) in Segments::new(shape, 1, 0..shape.out_w) {
                    steps.collect(shape, &block, tile.order, &input.map, &weights, [&ky, &kx]);
                    // The first tap that is seen lies within the input for every pixel.
                    let from_y = y.start * shape.stride[0] + ky.start * shape.dilation[0];
                    let from_x = x.start * shape.stride[1] + kx.start * shape.dilation[1];
                    let at = if ky.is_empty() || kx.is_empty() {
                        0
                    } else {
                        input.map.at(0, channel, from_y - shape.pad_top) + from_x - shape.pad_left
                    };
                    let rectangle = Rectangle {
                        isa,
                        steps: &steps,
                        input,
                        at,
                        step: [shape.stride[0] * input.map.row, shape.stride[1]],
                        channels: first..first + lanes,
                    };
                    let mut target = Target {
                        out: &mut *out,
                        first_row: rows.start,
                        band: Band {
                            rows: y.clone(),
                            columns: x,
                        },
                        accumulate: !block.first || start == Start::Accumulate,
                        epilogue: epilogue.filter(|_| block.last),
                        plain: false,
                    };
                    rectangle.run(&mut target, &mut sums);
                }
            }
        }
    }
}

/// Stretches of output rows (axis 0) or columns (1) that see the same taps, and those taps.
struct Segments<'a> {
    shape: &'a ConvShape,
    axis: usize,
    left: Range<usize>,
}

impl<'a> Segments<'a> {
    fn new(shape: &'a ConvShape, axis: usize, left: Range<usize>) -> Segments<'a> {
        Segments { shape, axis, left }
    }

    /// Taps that output `at` sees.
    fn taps(&self, at: usize) -> Range<usize> {
        let (shape, axis) = (self.shape, self.axis);
        let (pad, size) = match axis {
            0 => (shape.pad_top, shape.in_h),
            _ => (shape.pad_left, shape.in_w),
        };
        let (from, dilation) = (at * shape.stride[axis], shape.dilation[axis].max(1));
        let taps = shape.kernel[axis];
        let first = pad.saturating_sub(from).div_ceil(dilation).min(taps);
        let end = (size + pad)
            .saturating_sub(from)
            .div_ceil(dilation)
            .min(taps);
        first..end.max(first)
    }
}

impl Iterator for Segments<'_> {
    type Item = (Range<usize>, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        let first = self.left.start;
        let taps = self.taps(first);
        let mut end = first + 1;
        while end < self.left.end && self.taps(end) == taps {
            end += 1;
        }
        self.left.start = end;
        Some((first..end, taps))
    }
}

/// The k of a block that a rectangle sees.
struct Steps {
    weights: [[f32; PANEL]; K_BLOCK],
    offsets: [u32; K_BLOCK],
    len: usize,
    /// Largest offset.
    reach: usize,
}

impl Steps {
    fn new() -> Steps {
        Steps {
            weights: [[0.0; PANEL]; K_BLOCK],
            offsets: [0; K_BLOCK],
            len: 0,
            reach: 0,
        }
    }

    fn collect(
        &mut self,
        shape: &ConvShape,
        block: &Block,
        order: KOrder,
        map: &Map,
        weights: &[[f32; PANEL]; K_BLOCK],
        [ky, kx]: [&Range<usize>; 2],
    ) {
        (self.len, self.reach) = (0, 0);
        let mut step = |at: usize, channel: usize, tap: usize| {
            let (y, x) = (tap / shape.kernel[1], tap % shape.kernel[1]);
            if !ky.contains(&y) || !kx.contains(&x) {
                return;
            }
            let offset = channel * map.channel
                + (y - ky.start) * shape.dilation[0] * map.row
                + (x - kx.start) * shape.dilation[1];
            self.weights[self.len] = weights[at];
            self.offsets[self.len] = offset as u32;
            self.reach = self.reach.max(offset);
            self.len += 1;
        };
        let (channels, taps) = (block.channels.len(), block.taps.clone());
        match order {
            KOrder::ChannelMajor => {
                for at in 0..block.len {
                    step(at, at / taps.len(), taps.start + at % taps.len());
                }
            }
            KOrder::TapMajor => {
                for at in 0..block.len {
                    step(at, at % channels, taps.start + at / channels);
                }
            }
        }
    }
}

/// One rectangle of one panel.
struct Rectangle<'a> {
    isa: Isa,
    steps: &'a Steps,
    input: View<'a>,
    /// Input of the first pixel's first step.
    at: usize,
    /// Distance of two output rows and columns in the input.
    step: [usize; 2],
    channels: Range<usize>,
}

impl Rectangle<'_> {
    fn run(&self, target: &mut Target<'_, '_>, sums: &mut Sums) {
        let (height, width) = (target.band.rows.len(), target.band.columns.len());
        if self.step[1] == 1 && width >= 8 {
            for row in 0..height {
                self.wide(row, width, target, sums);
            }
            return;
        }
        let (mut at, pixels) = (0, height * width);
        while at < pixels {
            at += match pixels - at {
                8.. => self.narrow::<8>(at, width, target, sums),
                4.. => self.narrow::<4>(at, width, target, sums),
                _ => self.narrow::<1>(at, width, target, sums),
            };
        }
    }

    /// A row, a pixel per lane.
    fn wide(&self, row: usize, width: usize, target: &mut Target<'_, '_>, sums: &mut Sums) {
        let mut column = 0;
        while column < width {
            // Lanes behind the last pixel are read and thrown away, unless the slice ends there.
            let end = self.at + row * self.step[0] + self.steps.reach;
            let room = self.input.data.len() - end;
            let vectors = (width - column)
                .div_ceil(8)
                .min(room.saturating_sub(column) / 8);
            column += match vectors {
                0 => {
                    let at = row * width + column;
                    self.narrow::<1>(at, width, target, sums)
                }
                1 => self.group::<1>(row, column, width, target, sums),
                2 | 4 => self.group::<2>(row, column, width, target, sums),
                _ => self.group::<3>(row, column, width, target, sums),
            };
        }
    }

    fn group<const NV: usize>(
        &self,
        row: usize,
        column: usize,
        width: usize,
        target: &mut Target<'_, '_>,
        sums: &mut Sums,
    ) -> usize {
        let mut pixels = [Pixels::default(); NV];
        let mut bases = [0; NV];
        for j in 0..NV {
            let column = column + j * 8;
            pixels[j] = Pixels {
                row,
                column,
                len: (width - column).min(8),
            };
            bases[j] = self.at + row * self.step[0] + column;
        }
        let windows = windows(self.input.data, bases);
        let weights = &self.steps.weights[..self.steps.len];
        let offsets = &self.steps.offsets[..self.steps.len];
        if NV == 1 {
            self.isa.run(PixelTile::<NV, 8, 0> {
                weights,
                offsets,
                windows,
                sums,
            });
        } else {
            self.isa.run(PixelTile::<NV, 4, 0> {
                weights,
                offsets,
                windows,
                sums,
            });
            self.isa.run(PixelTile::<NV, 4, 4> {
                weights,
                offsets,
                windows,
                sums,
            });
        }
        self.store(&target.spots(&pixels), target, sums);
        pixels.iter().map(|p| p.len).sum()
    }

    /// `N` pixels from pixel `at` on in row-major order, a channel per lane.
    fn narrow<const N: usize>(
        &self,
        at: usize,
        width: usize,
        target: &mut Target<'_, '_>,
        sums: &mut Sums,
    ) -> usize {
        let mut bases = [0; N];
        for (j, base) in bases.iter_mut().enumerate() {
            let (row, column) = ((at + j) / width, (at + j) % width);
            *base = self.at + row * self.step[0] + column * self.step[1];
        }
        let windows = windows(self.input.data, bases);
        self.isa.run(ChannelTile {
            weights: [&self.steps.weights[..self.steps.len]],
            offsets: &self.steps.offsets[..self.steps.len],
            windows,
            sums: std::slice::from_mut(sums),
        });
        let pixels = [Pixels {
            row: at / width,
            column: at % width,
            len: N,
        }];
        self.store(&target.spots(&pixels), target, sums);
        N
    }

    fn store(&self, spots: &Spots, target: &mut Target<'_, '_>, sums: &mut Sums) {
        target.store(self.isa, self.channels.clone(), sums, spots);
    }
}

/// Chains of `P` panels times `N` pixels.
struct ChannelTile<'a, const P: usize, const N: usize> {
    weights: [&'a [[f32; PANEL]]; P],
    offsets: &'a [u32],
    windows: [&'a [f32]; N],
    sums: &'a mut [Sums],
}

impl<const P: usize, const N: usize> Work for ChannelTile<'_, P, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut acc = [[simd.splat(0.0); N]; P];
        let len = self.offsets.len();
        let mut panels = self.weights;
        for i in 0..P {
            panels[i] = &self.weights[i][..len];
        }
        for k in 0..len {
            let offset = self.offsets[k] as usize;
            let mut w = [simd.splat(0.0); P];
            for i in 0..P {
                w[i] = simd.load(&panels[i][k]);
            }
            for j in 0..N {
                let x = simd.splat(self.windows[j][offset]);
                for i in 0..P {
                    acc[i][j] = simd.mul_add(w[i], x, acc[i][j]);
                }
            }
        }
        for (acc, sums) in acc.iter().zip(self.sums) {
            let mut rows = [simd.splat(0.0); 8];
            rows[..N].copy_from_slice(acc);
            for (v, sums) in simd.transpose(rows).into_iter().zip(&mut sums.0) {
                simd.store(v, &mut sums.as_chunks_mut().0[0]);
            }
        }
    }
}
