//! Depthwise convolution, a channel per lane: any kernel, stride and width.
//!
//! The 8 input channels of a panel are turned into vectors of one pixel each while their rows are copied into a ring of as
//! many rows as the kernel is high, with their halo of zeros. A pixel of the output is then a chain over the taps of vectors
//! that lie at fixed distances, whatever the kernel, stride, dilation and width; eight pixels at a time hide its latency,
//! and weights and epilogue are vectors of the panel. Eight finished pixels are turned back and stored as 8 values of each
//! channel. Turning takes 6 shuffles per pixel beside 9 multiply-adds of a 3x3 kernel, but no vector crosses a border: on
//! wide maps `depthwise3.rs` is quicker. Output channel `o` reads input channel `o / multiplier`.

use super::blocks::{Block, K_BLOCK, KBlocks};
use super::store::{Lasts, store_part};
use super::{Call, ConvShape, Start, split_scratch};
use crate::activation::Epilogue;
use crate::expand::expand;
use crate::shape::{View, ViewMut};
use crate::simd::{First, Isa};
use crate::simd::{Simd, Work};
use crate::weights::PANEL;
use std::ops::Range;

/// Output columns of a band, a multiple of 8: the ring of a 3x3 kernel takes 12 KiB.
const COLUMNS: usize = 96;

/// Input rows as vectors of a panel's channels.
#[derive(Clone, Copy)]
struct Ring {
    /// Output columns of a band.
    band: usize,
    /// Pixels between two rows.
    pitch: usize,
    /// Input row `y` is row `y % rows`; behind them lies a row of zeros.
    rows: usize,
}

impl Ring {
    fn new(shape: &ConvShape) -> Ring {
        let ([kh, kw], [dy, dx]) = (shape.kernel, shape.dilation);
        let band = shape.out_w.clamp(1, COLUMNS).next_multiple_of(8);
        // Saturating: absurd dilations of a hostile file give an absurd workspace, not a wrong one. Seven more than the
        // taps reach: input columns come in eights.
        let reach = kw.saturating_sub(1).saturating_mul(dx);
        let pitch = ((band - 1).saturating_mul(shape.stride[1]))
            .saturating_add(reach)
            .saturating_add(8);
        let height = kh.saturating_sub(1).saturating_mul(dy).saturating_add(1);
        Ring {
            band,
            pitch,
            rows: height.min(shape.in_h.max(1)),
        }
    }

    fn elements(&self) -> usize {
        self.pitch
            .saturating_mul(self.rows.saturating_add(1))
            .saturating_mul(PANEL)
    }
}

/// f32 elements of scratch.
pub(super) fn workspace(shape: &ConvShape) -> usize {
    (K_BLOCK * (PANEL + 1)).saturating_add(Ring::new(shape).elements())
}

/// Runs the call.
pub(super) fn run(isa: Isa, call: Call<'_, '_>) {
    let Call {
        shape, tile, input, ..
    } = call;
    let (weights, scratch) = split_scratch::<PANEL>(call.scratch, K_BLOCK);
    let (offsets, data) = scratch.split_at_mut(K_BLOCK);
    let ring = Ring::new(shape);
    let multiplier = shape.out_per_group();
    for p in 0..tile.panels {
        let (first, lanes) = shape.panel_channels(tile.first_panel + p);
        let mut sources = [0; PANEL];
        for (lane, source) in sources.iter_mut().enumerate() {
            *source = (first + lane.min(lanes - 1)) / multiplier * input.map.channel;
        }
        for block in KBlocks::new(tile, 1, shape.taps()) {
            expand(isa, tile, p, block.rows, weights);
            isa.run(Panel {
                shape,
                weights: &weights[..block.len],
                block: &block,
                channels: first..first + lanes,
                sources,
                input,
                rows: call.rows.clone(),
                out: &mut *call.out,
                accumulate: !block.first || call.start == Start::Accumulate,
                epilogue: call.epilogue.filter(|_| block.last),
                ring,
                offsets: bytemuck::cast_slice_mut(&mut *offsets),
                data: &mut data[..ring.elements()],
            });
        }
    }
}

/// A block of taps of the channels of one panel.
struct Panel<'a, 'b> {
    shape: &'a ConvShape,
    /// `[tap][lane]`
    weights: &'a [[f32; PANEL]],
    block: &'a Block,
    channels: Range<usize>,
    /// Where each lane's input channel starts in a row of the input; lanes beyond the last channel repeat it.
    sources: [usize; PANEL],
    input: View<'a>,
    /// The output starts with the first one.
    rows: Range<usize>,
    out: &'a mut ViewMut<'b>,
    accumulate: bool,
    epilogue: Option<&'a Epilogue<'a>>,
    ring: Ring,
    /// Of every tap of the block, for one row of the output.
    offsets: &'a mut [u32],
    data: &'a mut [f32],
}

impl Work for Panel<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let lasts = Lasts::new(self.epilogue, self.channels.clone());
        let (width, height) = (self.shape.out_w, self.rows.len());
        for from in (0..width).step_by(self.ring.band) {
            let columns = from..width.min(from + self.ring.band);
            self.data.fill(0.0);
            let mut next = 0;
            for row in 0..height {
                next = self.fill_ring(simd, row, &columns, next);
                self.row(simd, &lasts, row, &columns);
            }
        }
        let map = self.out.map;
        if let Some(epilogue) = self.epilogue.filter(|e| !e.is_simple()) {
            for row in 0..height {
                for channel in self.channels.clone() {
                    let out = &mut self.out.data[map.at(0, channel, row)..][..width];
                    epilogue.apply(channel, out);
                }
            }
        }
    }
}

impl Panel<'_, '_> {
    /// First input row of output row `row` of the call; may lie above the input.
    #[inline(always)]
    fn top(&self, row: usize) -> isize {
        ((self.rows.start + row) * self.shape.stride[0]) as isize - self.shape.pad_top as isize
    }

    /// Turns the input rows from `next` on that output row `row` needs; answers the row behind them.
    #[inline(always)]
    fn fill_ring<S: Simd>(
        &mut self,
        simd: S,
        row: usize,
        columns: &Range<usize>,
        next: usize,
    ) -> usize {
        let Panel { shape, ring, .. } = *self;
        let top = self.top(row);
        let reach = (shape.kernel[0] - 1).saturating_mul(shape.dilation[0]);
        let end = top.saturating_add_unsigned(reach.saturating_add(1));
        let end = (end.max(0) as usize).min(shape.in_h);
        // Input columns of the band, and the place of the first one in the ring.
        let left = (columns.start * shape.stride[1]) as isize - shape.pad_left as isize;
        let first = left.max(0) as usize;
        let before = (left.min(0)).unsigned_abs();
        let room = ring.pitch.saturating_sub(before + 7);
        let last = shape.in_w.min(first.saturating_add(room));
        let part = simd.first(last.saturating_sub(first) % 8);
        for y in next.max(top.max(0) as usize)..end {
            let at = (y % ring.rows * ring.pitch + before) * PANEL;
            let source = &self.input.data[self.input.map.at(0, 0, y)..];
            let mut to = &mut self.data[at..];
            let mut x = first;
            while x < last {
                let mut lanes = [simd.splat(0.0); PANEL];
                if last - x >= 8 {
                    for lane in 0..PANEL {
                        let from = &source[self.sources[lane] + x..][..8];
                        lanes[lane] = simd.load(&from.as_chunks().0[0]);
                    }
                } else {
                    for lane in 0..PANEL {
                        lanes[lane] = simd.load_first(part, &source[self.sources[lane] + x..]);
                    }
                }
                let pixels = simd.transpose(lanes);
                let (these, rest) = to.split_at_mut(8 * PANEL);
                for i in 0..8 {
                    simd.store(pixels[i], &mut these.as_chunks_mut().0[i]);
                }
                (to, x) = (rest, x + 8);
            }
        }
        next.max(end)
    }

    /// One row of the output.
    #[inline(always)]
    fn row<S: Simd>(&mut self, simd: S, lasts: &Lasts<PANEL>, row: usize, columns: &Range<usize>) {
        let Panel { shape, ring, .. } = *self;
        let top = self.top(row);
        let taps = &self.block.taps;
        let mut tap = 0;
        for ky in 0..shape.kernel[0] {
            let y = top.saturating_add_unsigned(ky * shape.dilation[0]);
            let line = if y >= 0 && (y as usize) < shape.in_h {
                (y as u32 % ring.rows as u32) as usize
            } else {
                ring.rows
            };
            let mut at = line * ring.pitch * PANEL;
            for _ in 0..shape.kernel[1] {
                if taps.contains(&tap) {
                    self.offsets[tap - taps.start] = at as u32;
                }
                at += shape.dilation[1] * PANEL;
                tap += 1;
            }
        }
        let map = self.out.map;
        let out = map.at(0, self.channels.start, row) + columns.start;
        // Vectors that are written over the end of a row spoil what is written after them only.
        let over = !self.accumulate && map.channel == map.w && columns.len() == map.w;
        for x in (0..columns.len()).step_by(8).rev() {
            let count = (columns.len() - x).min(8);
            let step = shape.stride[1] * PANEL;
            let base = x * step;
            let mut sums = [simd.splat(0.0); 8];
            match step {
                // Where loops for one case are not worth it, all eight are made.
                8 if count > 4 || !S::FAST => sums = self.chains::<S, 8, 8>(simd, base),
                8 => [sums[0], sums[1], sums[2], sums[3]] = self.chains::<S, 4, 8>(simd, base),
                16 if count > 4 || !S::FAST => sums = self.chains::<S, 8, 16>(simd, base),
                16 => [sums[0], sums[1], sums[2], sums[3]] = self.chains::<S, 4, 16>(simd, base),
                _ => {
                    for i in 0..count {
                        [sums[i]] = self.chains::<S, 1, 8>(simd, base + i * step);
                    }
                }
            }
            let place = Place {
                at: out + x,
                stride: map.channel,
                lanes: self.channels.len(),
                pixels: simd.first(count),
                over,
            };
            if self.accumulate {
                let old = place.load(simd, self.out.data);
                for i in 0..8 {
                    sums[i] = simd.add(old[i], sums[i]);
                }
            }
            place.store(simd, lasts.of_panel(simd, 0, sums), self.out.data);
        }
    }

    /// The chains of `N` pixels whose inputs lie `STEP` elements apart.
    #[inline(always)]
    fn chains<S: Simd, const N: usize, const STEP: usize>(
        &self,
        simd: S,
        base: usize,
    ) -> [S::V; N] {
        let mut sums = [simd.splat(0.0); N];
        for (w, &offset) in self.weights.iter().zip(&*self.offsets) {
            let w = simd.load(w);
            let x = &self.data[offset as usize + base..][..(N - 1) * STEP + PANEL];
            for i in 0..N {
                let x = simd.load(&x[i * STEP..][..PANEL].as_chunks().0[0]);
                sums[i] = simd.mul_add(w, x, sums[i]);
            }
        }
        sums
    }
}

/// Eight pixels of the output in all channels of a panel.
struct Place<S: Simd> {
    /// Of the first channel.
    at: usize,
    /// Between two channels.
    stride: usize,
    lanes: usize,
    pixels: First<S::V>,
    /// What lies behind the pixels may be written over, if it belongs to the channels that follow.
    over: bool,
}

impl<S: Simd> Place<S> {
    /// What is there, a vector of channels per pixel.
    #[inline(always)]
    fn load(&self, simd: S, out: &[f32]) -> [S::V; 8] {
        let mut lanes = [simd.splat(0.0); PANEL];
        for lane in 0..PANEL {
            if lane < self.lanes {
                lanes[lane] = simd.load_first(self.pixels, &out[self.at + lane * self.stride..]);
            }
        }
        simd.transpose(lanes)
    }

    /// Stores a vector of channels per pixel.
    #[inline(always)]
    fn store(&self, simd: S, pixels: [S::V; 8], out: &mut [f32]) {
        let lanes = simd.transpose(pixels);
        let count = self.pixels.count();
        if S::FAST && self.lanes == PANEL && (count == 8 || self.over && self.stride + count >= 8) {
            // The last channel has none behind it.
            for lane in 0..PANEL - 1 {
                let to = &mut out[self.at + lane * self.stride..][..8];
                simd.store(lanes[lane], &mut to.as_chunks_mut().0[0]);
            }
            let to = &mut out[self.at + (PANEL - 1) * self.stride..];
            store_part(simd, self.pixels, lanes[PANEL - 1], to);
            return;
        }
        for lane in 0..PANEL {
            if lane < self.lanes {
                let to = &mut out[self.at + lane * self.stride..];
                store_part(simd, self.pixels, lanes[lane], to);
            }
        }
    }
}
