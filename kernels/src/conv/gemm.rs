//! Dense convolution: register tiles of channels x pixels over packed planes.
//!
//! ```text
//! for chunk of at most 8 panels of one group
//!   for block of k                      (blocks.rs: at most 192 products)
//!     expand the chunk's weights        (codes -> f32, once per block; f32 is used where it lies)
//!     for band of pixels                (plane.rs: at most 64 KiB of input, packed once)
//!       for group of 24 pixels
//!         for panel of the chunk        8 channels x 24 pixels from registers, then add to out
//! ```
//! Two kernels with the same bits: a pixel per lane (vectors of input, weights broadcast) where a
//! row of output fills vectors well, and a channel per lane (vectors of weights, input broadcast)
//! where it does not or vectors of input would straddle cache lines too often (`channels.rs`, [`lanes_fill`]). With registers of 16 f32 the first takes 8 channels x three
//! vectors of 16 pixels, each of one row, for layers of few products and lone panels; the second one (`pairs.rs`) everything
//! else. Cost: k x pixels x channels multiply-adds plus one copy of the input per 8
//! panels and tile. It loses to sparse kernels when most weights are zero, and to Winograd on
//! large 3x3 maps with memory to spare. After Goto & van de Geijn (2008), and the indirect
//! convolution of Dukhan (2019), whose pointers are offsets here.

use super::blocks::{Block, K_BLOCK, KBlocks};
use super::pairs::{PAIR, Stage};
use super::plane::{Band, Offsets, Plane};
use super::store::{Lasts, Pixels, Sums, Target, Vectors, plain};
use super::{Call, ConvShape, block_weights, chunks, split_scratch};
use crate::simd::{Isa, Long, LongWork, Simd, Work};
use crate::weights::PANEL;

/// Panels that share a packed plane.
pub(super) const CHUNK: usize = 8;

/// f32 elements of scratch.
pub(super) fn workspace(shape: &ConvShape, panels: usize, rows: usize) -> usize {
    let weights = panels.clamp(1, CHUNK).next_multiple_of(2) * K_BLOCK * PANEL;
    ALIGN + weights + K_BLOCK + Plane::workspace(shape, rows)
}

/// Most elements that are skipped so that a vector of 16 lies in one cache line.
pub(super) const ALIGN: usize = 15;

/// Room for the weights of a chunk, and the rest.
pub(super) fn weights_space(
    panels: usize,
    scratch: &mut [f32],
) -> (&mut [[f32; PANEL]], &mut [f32]) {
    let skip = scratch.as_ptr().align_offset(64).min(ALIGN);
    let panels = panels.min(CHUNK).next_multiple_of(2);
    split_scratch(&mut scratch[skip..], panels * K_BLOCK)
}

/// Runs the call.
pub(super) fn run(isa: Isa, call: Call<'_, '_>) {
    let Call {
        shape,
        tile,
        tiles,
        input,
        rows,
        out,
        start,
        epilogue,
        scratch,
        ..
    } = call;
    let (weights, scratch) = weights_space(tile.panels, scratch);
    let (offsets, plane_data) = scratch.split_at_mut(K_BLOCK);
    let mut offsets = Offsets::new(offsets);
    let mut room = Room::new();
    let by_pixels = lanes_fill(isa, shape, rows.len(), tile.panels);
    let pairs = !by_pixels && isa.has_long();
    for (group, chunk) in chunks(shape, tile, CHUNK) {
        for block in KBlocks::new(tile, shape.in_per_group(), shape.taps()) {
            let weights = block_weights(isa, tiles, chunk.clone(), block.rows, weights, pairs);
            let plane = Plane::new(shape, &block, rows.len());
            let offsets = offsets.of(&plane, shape, &block, tile.order);
            let channels = group * shape.in_per_group() + block.channels.start;
            let channels = channels..channels + block.channels.len();
            for band in Band::all(shape, &plane, &rows) {
                plane.pack(isa, shape, input, channels.clone(), &band, plane_data);
                let panels = Panels {
                    shape,
                    first: tile.first_panel + chunk.start,
                    weights: &weights,
                    count: chunk.len(),
                    block: &block,
                    offsets,
                    plane: &plane,
                    data: &*plane_data,
                };
                let mut target = Target {
                    first_row: rows.start,
                    accumulate: !block.first || start == super::Start::Accumulate,
                    epilogue: epilogue.filter(|_| block.last),
                    plain: !by_pixels && plain(out, &band),
                    out: &mut *out,
                    band,
                };
                if by_pixels {
                    let flat = plane.is_flat(target.band.columns.len());
                    let vectors = Vectors::new(&target.band, flat);
                    panels.pixel_lanes(isa, vectors, &mut target, &mut room.sums);
                } else {
                    panels.channel_lanes(isa, &mut target, &mut room.stage);
                }
            }
        }
    }
}

/// Sums of a group on their way from registers to the output.
pub(super) struct Room {
    /// Pixels by lanes.
    pub sums: Sums,
    /// Channels by lanes, pairs of panels.
    pub stage: Stage,
}

impl Room {
    /// Inlined, so that it is made where it stays.
    #[inline(always)]
    pub fn new() -> Room {
        Room {
            sums: Sums::new(),
            stage: Stage::new(),
        }
    }
}

/// Weights of a block.
#[derive(Default)]
pub(super) struct Weights<'a> {
    /// Panel after panel of a chunk.
    pub panels: [&'a [[f32; PANEL]]; CHUNK],
    /// Or two panels to a row, [`K_BLOCK`] rows for each pair (`pairs.rs`).
    pub pairs: &'a [[f32; PAIR]],
}

/// A chunk of panels and a packed band.
pub(super) struct Panels<'a> {
    pub shape: &'a ConvShape,
    /// First panel within the layer, and how many.
    pub first: usize,
    pub count: usize,
    pub weights: &'a Weights<'a>,
    pub block: &'a Block,
    pub offsets: &'a [u32],
    pub plane: &'a Plane,
    pub data: &'a [f32],
}

impl Panels<'_> {
    #[inline(always)]
    pub fn weights(&self, i: usize) -> &[[f32; PANEL]] {
        self.weights.panels[i]
    }

    pub fn pixel_lanes(
        &self,
        isa: Isa,
        mut vectors: Vectors,
        target: &mut Target<'_, '_>,
        sums: &mut Sums,
    ) {
        if isa.has_long() {
            return self.long_lanes(isa, target);
        }
        if isa.is_fast() && target.by_lines(vectors.is_flat()) {
            return self.lines(isa, target);
        }
        let mut left = vectors.count();
        while left > 0 {
            match left {
                1 => self.pixel_group::<1>(isa, &mut vectors, target, sums),
                // Two groups of two keep the registers busier than three and one.
                2 | 4 => self.pixel_group::<2>(isa, &mut vectors, target, sums),
                _ => self.pixel_group::<3>(isa, &mut vectors, target, sums),
            }
            left -= match left {
                1 => 1,
                2 | 4 => 2,
                _ => 3,
            };
        }
    }

    /// `NV` vectors of pixels times every panel.
    fn pixel_group<const NV: usize>(
        &self,
        isa: Isa,
        vectors: &mut Vectors,
        target: &mut Target<'_, '_>,
        sums: &mut Sums,
    ) {
        let mut pixels = [Pixels::default(); NV];
        let mut bases = [0; NV];
        for j in 0..NV {
            pixels[j] = vectors.next();
            bases[j] = self.plane.base(pixels[j].row, pixels[j].column);
        }
        let windows = windows(self.data, bases);
        let offsets = self.offsets;
        let spots = target.spots(&pixels);
        for i in 0..self.count {
            let weights = self.weights(i);
            if NV == 1 {
                // One vector: all 8 channels at once, or the chains would be too few.
                isa.run(PixelTile::<NV, 8, 0> {
                    weights,
                    offsets,
                    windows,
                    sums: &mut *sums,
                });
            } else {
                isa.run(PixelTile::<NV, 4, 0> {
                    weights,
                    offsets,
                    windows,
                    sums: &mut *sums,
                });
                isa.run(PixelTile::<NV, 4, 4> {
                    weights,
                    offsets,
                    windows,
                    sums: &mut *sums,
                });
            }
            let (first, lanes) = self.shape.panel_channels(self.first + i);
            target.store(isa, first..first + lanes, &mut *sums, &spots);
        }
    }
}

impl Panels<'_> {
    /// Vectors of 16 pixels, each within a row, three at a time: from the registers to the output.
    fn long_lanes(&self, isa: Isa, target: &mut Target<'_, '_>) {
        let (rows, columns) = (target.band.rows.len(), target.band.columns.len());
        let of_row = columns.div_ceil(16);
        let vectors = rows * of_row;
        let (first, _) = self.shape.panel_channels(self.first);
        let lasts = self.lasts(target.epilogue);
        let mut sums = Stretch([[0.0; STRETCH]; PANEL]);
        // The distance from a vector's base to the end of all it reads.
        let reach = self.offsets.iter().max().map_or(0, |&most| most as usize) + 16;
        let mut next = 0;
        while next < vectors {
            // Two groups of two keep the registers busier than three and one.
            let mut count = match vectors - next {
                1 => 1,
                2 | 4 => 2,
                _ => 3,
            };
            let mut group = [Sixteen::default(); 3];
            let mut far = 0;
            for (i, to) in (next..next + count).zip(&mut group) {
                let (row, start) = (i / of_row, i % of_row * 16);
                // The last one of a row ends with it, where the row is so long.
                let column = start.min(columns.saturating_sub(16));
                let base = self.plane.base(row, column);
                *to = Sixteen {
                    base,
                    skip: start - column,
                    len: columns.min(start + 16) - start,
                    at: target.at(0, row, start),
                };
                far = base.max(far);
            }
            // Vectors that would run over the end of the input are masked.
            if far + reach > self.data.len() {
                (count, far) = (1, group[0].base);
            }
            let whole = far + reach <= self.data.len();
            for i in 0..self.count {
                let (channel, lanes) = self.shape.panel_channels(self.first + i);
                let stride = target.out.map.channel;
                let tile = Tile {
                    weights: self.weights(i),
                    offsets: self.offsets,
                    data: self.data,
                    vectors: &group,
                    sums: &mut sums,
                };
                match (count, whole) {
                    (1, false) => isa.run_long(LongTile::<1, false>(tile)),
                    (1, true) => isa.run_long(LongTile::<1, true>(tile)),
                    (2, _) => isa.run_long(LongTile::<2, true>(tile)),
                    _ => isa.run_long(LongTile::<3, true>(tile)),
                };
                isa.run_long(Finish {
                    sums: &sums,
                    vectors: &group[..count],
                    out: &mut target.out.data[channel * stride..],
                    stride,
                    lanes,
                    accumulate: target.accumulate,
                    lasts: &lasts,
                    first: channel - first,
                });
            }
            next += count;
        }
        if let Some(epilogue) = target.epilogue.filter(|e| !e.is_simple()) {
            for i in 0..self.count {
                let (channel, lanes) = self.shape.panel_channels(self.first + i);
                for row in 0..rows {
                    for channel in channel..channel + lanes {
                        let out = target.place(channel, row, 0);
                        epilogue.apply(channel, &mut out[..columns]);
                    }
                }
            }
        }
    }
}

/// Up to 16 neighbouring pixels of a row.
#[derive(Clone, Copy, Default)]
struct Sixteen {
    /// Where the window of the first lane starts.
    base: usize,
    /// Lanes before those that count, and how many of these there are.
    skip: usize,
    len: usize,
    /// Place of the first one that counts, in the first channel of the output.
    at: usize,
}

/// A panel, vectors of pixels, and room for their sums.
struct Tile<'a> {
    weights: &'a [[f32; PANEL]],
    offsets: &'a [u32],
    data: &'a [f32],
    vectors: &'a [Sixteen; 3],
    sums: &'a mut Stretch,
}

/// Chains of 8 channels times `NV` vectors of 16 pixels; not `WHOLE`: only lanes that count are read, from the first one on.
struct LongTile<'a, const NV: usize, const WHOLE: bool>(Tile<'a>);

impl<const NV: usize, const WHOLE: bool> LongWork for LongTile<'_, NV, WHOLE> {
    type Output = ();

    #[inline(always)]
    fn run<S: Long>(self, simd: S) {
        let tile = self.0;
        let vectors = &tile.vectors[..NV];
        let mut bases = [0; NV];
        let mut keep = [simd.first16(0); NV];
        for j in 0..NV {
            bases[j] = vectors[j].base;
            keep[j] = simd.mask16(vectors[j].skip, vectors[j].len);
        }
        let windows = windows(tile.data, bases);
        let mut acc = [[simd.splat16(0.0); NV]; PANEL];
        for (w, &offset) in tile.weights.iter().zip(tile.offsets) {
            let mut x = [simd.splat16(0.0); NV];
            for j in 0..NV {
                let from = &windows[j][offset as usize..];
                x[j] = if WHOLE {
                    simd.load16(&from[..16].as_chunks().0[0])
                } else {
                    simd.load16_masked(keep[j], from)
                };
            }
            for i in 0..PANEL {
                let w = simd.splat16(w[i]);
                for j in 0..NV {
                    acc[i][j] = simd.mul_add16(w, x[j], acc[i][j]);
                }
            }
        }
        for i in 0..PANEL {
            let to = tile.sums.0[i][..NV * 16].as_chunks_mut().0;
            for j in 0..NV {
                simd.store16(acc[i][j], &mut to[j]);
            }
        }
    }
}

/// Brings the sums of a panel to the output. A function of its own, or the chains do not stay in registers.
struct Finish<'a> {
    sums: &'a Stretch,
    vectors: &'a [Sixteen],
    /// From the panel's first channel on.
    out: &'a mut [f32],
    /// Between two channels.
    stride: usize,
    /// Channels of the panel.
    lanes: usize,
    accumulate: bool,
    lasts: &'a Lasts,
    /// The panel's first channel there.
    first: usize,
}

impl LongWork for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Long>(self, simd: S) {
        let Finish { lasts, first, .. } = self;
        let (low, high) = lasts.limits.unwrap_or_default();
        let (low, high) = (simd.splat16(low), simd.splat16(high));
        for (j, vector) in self.vectors.iter().enumerate() {
            let keep = simd.mask16(vector.skip, vector.len);
            for i in 0..self.lanes {
                let bias = simd.splat16(lasts.bias[first + i]);
                let mut v = simd.load16(&self.sums.0[i].as_chunks().0[j]);
                let out = &mut self.out[i * self.stride + vector.at..];
                if self.accumulate {
                    v = simd.add16(simd.load16_at(keep, out), v);
                }
                v = simd.add16(v, bias);
                v = match lasts.limits {
                    Some(_) => simd.clip16(v, low, high),
                    None => simd.leaky16(v, simd.splat16(lasts.slope[first + i])),
                };
                simd.store16_at(keep, v, out);
            }
        }
    }
}

/// Pixels of a row whose sums are made before they are stored: groups of three vectors.
const STRETCH: usize = 144;
/// Products of a stretch that are worth it: with more, the input of one group is read from the L1 cache by every panel instead.
const MOST_PRODUCTS: usize = 128;

/// Sums of a stretch, one row per channel of a panel.
#[repr(align(64))]
struct Stretch([[f32; STRETCH]; PANEL]);

impl Panels<'_> {
    /// Row after row of a band that is wide enough, a stretch at a time: places and epilogues are found once per stretch.
    fn lines(&self, isa: Isa, target: &mut Target<'_, '_>) {
        let mut sums = Stretch([[0.0; STRETCH]; PANEL]);
        let columns = target.band.columns.len();
        let longest = match self.block.len {
            ..=MOST_PRODUCTS => STRETCH,
            _ => 3 * 8,
        };
        for row in 0..target.band.rows.len() {
            let mut first = 0;
            while first < columns {
                // No single vector is left for the last stretch.
                let len = match columns - first {
                    left if left > longest && left <= longest + 8 => longest - 8,
                    left => left.min(longest),
                };
                let data = &self.data[self.plane.base(row, first)..];
                for i in 0..self.count {
                    let mut at = 0;
                    while at < len {
                        let data = &data[self.plane.base(0, at)..];
                        let line = Line {
                            weights: self.weights(i),
                            offsets: self.offsets,
                            data,
                            sums: &mut sums,
                            at,
                        };
                        // Two groups of two keep the registers busier than three and one.
                        at += 8 * match (len - at).div_ceil(8) {
                            1 => line.sums::<1>(isa),
                            2 | 4 => line.sums::<2>(isa),
                            _ => line.sums::<3>(isa),
                        };
                    }
                    let (channel, lanes) = self.shape.panel_channels(self.first + i);
                    for (channel, sums) in (channel..channel + lanes).zip(&sums.0) {
                        target.finish(isa, channel, [row, first, len], sums);
                    }
                }
                first += len;
            }
        }
    }
}

/// A panel and neighbouring pixels: weights, offsets, input, and where the sums go.
struct Line<'a> {
    weights: &'a [[f32; PANEL]],
    offsets: &'a [u32],
    data: &'a [f32],
    sums: &'a mut Stretch,
    at: usize,
}

impl Line<'_> {
    /// The next `NV` vectors; returns `NV`.
    #[inline(always)]
    fn sums<const NV: usize>(mut self, isa: Isa) -> usize {
        if NV == 1 {
            isa.run(LineTile::<NV, 8, 0>(&mut self));
        } else {
            isa.run(LineTile::<NV, 4, 0>(&mut self));
            isa.run(LineTile::<NV, 4, 4>(&mut self));
        }
        NV
    }
}

/// Chains of `MR` channels from lane `LANE` of the panel on, times `NV` neighbouring vectors of pixels. A function of its own,
/// or the chains do not stay in registers.
struct LineTile<'a, 'b, const NV: usize, const MR: usize, const LANE: usize>(&'a mut Line<'b>);

impl<const NV: usize, const MR: usize, const LANE: usize> Work for LineTile<'_, '_, NV, MR, LANE> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if !S::FAST {
            return;
        }
        let Line {
            weights,
            offsets,
            data,
            sums,
            at,
            ..
        } = self.0;
        let mut acc = [[simd.splat(0.0); NV]; MR];
        for (w, &offset) in weights.iter().zip(*offsets) {
            let from = data[offset as usize..][..NV * 8].as_chunks().0;
            let mut x = [simd.splat(0.0); NV];
            for j in 0..NV {
                x[j] = simd.load(&from[j]);
            }
            for i in 0..MR {
                let w = simd.splat(w[LANE + i]);
                for j in 0..NV {
                    acc[i][j] = simd.mul_add(w, x[j], acc[i][j]);
                }
            }
        }
        for i in 0..MR {
            let to = sums.0[LANE + i][*at..*at + NV * 8].as_chunks_mut().0;
            for j in 0..NV {
                simd.store(acc[i][j], &mut to[j]);
            }
        }
    }
}

/// The data from each base on, all of one length, so that one comparison checks an offset for all.
#[inline(always)]
pub(super) fn windows<const N: usize>(data: &[f32], bases: [usize; N]) -> [&[f32]; N] {
    let mut last = 0;
    for base in bases {
        last = last.max(base);
    }
    let len = data.len() - last;
    let mut windows = [data; N];
    for j in 0..N {
        windows[j] = &data[bases[j]..][..len];
    }
    windows
}

/// 8 values of a window.
#[inline(always)]
pub(super) fn eight(window: &[f32], offset: usize) -> &[f32; 8] {
    &window[offset..offset + 8].as_chunks().0[0]
}

/// Chains of `MR` channels, from lane `LANE` of the panel on, times `NV` vectors of pixels.
pub(super) struct PixelTile<'a, const NV: usize, const MR: usize, const LANE: usize> {
    pub weights: &'a [[f32; PANEL]],
    pub offsets: &'a [u32],
    pub windows: [&'a [f32]; NV],
    pub sums: &'a mut Sums,
}

impl<const NV: usize, const MR: usize, const LANE: usize> Work for PixelTile<'_, NV, MR, LANE> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut acc = [[simd.splat(0.0); NV]; MR];
        for (w, &offset) in self.weights.iter().zip(self.offsets) {
            let mut x = [simd.splat(0.0); NV];
            for j in 0..NV {
                x[j] = simd.load(eight(self.windows[j], offset as usize));
            }
            for i in 0..MR {
                let w = simd.splat(w[LANE + i]);
                for j in 0..NV {
                    acc[i][j] = simd.mul_add(w, x[j], acc[i][j]);
                }
            }
        }
        for i in 0..MR {
            let to = self.sums.0[LANE + i].as_chunks_mut().0;
            for j in 0..NV {
                simd.store(acc[i][j], &mut to[j]);
            }
        }
    }
}

/// Whether a pixel per lane is the faster kernel for so many rows and panels: rows leave few lanes unused.
pub(super) fn lanes_fill(isa: Isa, shape: &ConvShape, rows: usize, panels: usize) -> bool {
    let (columns, products) = (shape.out_w, shape.k());
    if isa.has_long() {
        // Measured on aligned maps (Zen 5): where rows fill their vectors a pixel per lane takes 0.95 of the time. The other one
        // transposes, which takes as long as two products, and a lone panel takes 1.4 times as long.
        let by_pixels = columns.next_multiple_of(16) * products * 19;
        let by_channels = columns * (products + 2) * 4 * (5 * panels + 2 * (panels % 2));
        // On a few rows of a band it uses each weight too seldom.
        let many = rows * columns.div_ceil(16) > 16 || panels == 1;
        return many && by_pixels <= by_channels / panels.max(1);
    }
    // A single panel gives a channel per lane too few chains.
    if panels == 1 {
        return columns * 100 >= columns.next_multiple_of(8) * 87;
    }
    // Vectors of the pixels that other taps see straddle cache lines; measured on a Zen 3.
    let straddles = shape.taps() > 1 && products >= STRADDLES;
    !straddles && columns * 100 >= columns.next_multiple_of(8) * 95
}

/// From so many products on, reading vectors of pixels costs more than transposing sums: 64 channels of 64x64 take 1.11 of the
/// time of a channel per lane, the 147 products of a 7x7 stem 1.08, the 27 of a 3x3 one 0.9.
const STRADDLES: usize = 128;
