//! Packed input: virtual im2col without the copies.
//!
//! For one block of k and one band of output pixels, the rows and columns of the input that the
//! block's taps can reach are copied once per channel into a small dense *plane* with its halo of
//! zeros. Columns are split by phase (x mod stride), so that 8 neighbouring output pixels read 8
//! neighbouring values for every tap, whatever the stride. The im2col row of any k is then the
//! plane shifted by a constant, [`Plane::offset`]: an input value is copied about once instead of
//! once per tap, and kernels see one flat array, a table of offsets and a base per vector of
//! pixels. Layout, padding, stride, dilation and groups end here.

use super::ConvShape;
use super::blocks::{Block, K_BLOCK};
use crate::shape::View;
use crate::simd::{Isa, Long, LongWork, Simd, Work};
use crate::weights::KOrder;
use std::ops::Range;

/// Elements a plane may take, unless the smallest possible band needs more: 64 KiB, so that it
/// shares an L2 cache with the weights.
const TARGET: usize = 16 * 1024;
/// Columns of the smallest band.
const MIN_COLUMNS: usize = 24;
/// Vectors may run this far over the end of a channel's plane.
const SLACK: usize = 8;

/// The bounding box of a block's taps.
#[derive(Clone, Copy, Debug, PartialEq)]
struct TapBox {
    ky: usize,
    kx: usize,
    height: usize,
    width: usize,
}

impl TapBox {
    fn new(shape: &ConvShape, taps: &Range<usize>) -> TapBox {
        let kw = shape.kernel[1];
        let (first, last) = (taps.start, taps.end - 1);
        let height = last / kw - first / kw + 1;
        let (kx, width) = if height == 1 {
            (first % kw, taps.len())
        } else {
            (0, kw)
        };
        TapBox {
            ky: first / kw,
            kx,
            height,
            width,
        }
    }
}

/// Geometry of the planes of one block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plane {
    taps: TapBox,
    /// Output rows and columns of a full band.
    pub band_rows: usize,
    pub band_columns: usize,
    /// Plane rows between two output rows, and input rows between two plane rows.
    row_step: usize,
    /// Between two output columns.
    column_step: usize,
    source_step: usize,
    phases: usize,
    phase_len: usize,
    /// Distance of two rows and of two channels.
    pitch: usize,
    pub channel: usize,
}

impl Plane {
    /// The planes of `block` for `rows` output rows.
    pub fn new(shape: &ConvShape, block: &Block, rows: usize) -> Plane {
        Plane::fit(
            shape,
            TapBox::new(shape, &block.taps),
            block.channels.len(),
            rows,
        )
    }

    /// Data that is not packed: distances of two output rows and columns.
    pub fn plain(row: usize, column: usize) -> Plane {
        Plane {
            taps: TapBox {
                ky: 0,
                kx: 0,
                height: 1,
                width: 1,
            },
            band_rows: 1,
            band_columns: 1,
            row_step: 1,
            column_step: column,
            source_step: 1,
            phases: 1,
            phase_len: row,
            pitch: row,
            channel: 0,
        }
    }

    /// The largest band within [`TARGET`].
    fn fit(shape: &ConvShape, taps: TapBox, channels: usize, rows: usize) -> Plane {
        let (rows, columns) = (rows.max(1), shape.out_w.max(1));
        let size = |r: usize, c: usize| {
            Plane::sized(shape, taps, r, c)
                .channel
                .saturating_mul(channels)
        };
        let fits = |r: usize, c: usize| size(r, c) <= TARGET;
        let columns = if fits(1, columns) {
            columns
        } else {
            // One row is linear in its columns: solve, then round down to whole register tiles.
            let (one, two) = (size(1, 1), size(1, 2));
            let most = TARGET.saturating_sub(one) / (two - one).max(1) + 1;
            (most / MIN_COLUMNS * MIN_COLUMNS).clamp(MIN_COLUMNS, columns.max(MIN_COLUMNS))
        }
        .min(columns);
        let (one, two) = (size(1, columns), size(2, columns));
        let most = TARGET.saturating_sub(one) / (two - one).max(1) + 1;
        // Balanced: bands of equal height.
        let height = rows.div_ceil(rows.div_ceil(most.min(rows)));
        Plane::sized(shape, taps, height, columns)
    }

    fn sized(shape: &ConvShape, taps: TapBox, rows: usize, columns: usize) -> Plane {
        let ([sy, sx], [dy, dx]) = (shape.stride, shape.dilation);
        // Saturating: absurd dilations of a hostile file give an absurd workspace, not a wrong one.
        let (row_step, source_step, height) = if taps.height == 1 {
            (1, sy, rows)
        } else {
            let reach = (taps.height - 1).saturating_mul(dy);
            let height = (rows - 1)
                .saturating_mul(sy)
                .saturating_add(reach)
                .saturating_add(1);
            (sy, 1, height)
        };
        let reach = (taps.width - 1).saturating_mul(dx);
        let phases = sx.min(reach.saturating_add(1));
        let phase_len = columns.saturating_add(reach / sx);
        let pitch = phases.saturating_mul(phase_len);
        Plane {
            taps,
            band_rows: rows,
            band_columns: columns,
            row_step,
            column_step: 1,
            source_step,
            phases,
            phase_len,
            pitch,
            channel: pitch.saturating_mul(height).saturating_add(SLACK),
        }
    }

    /// Most elements the planes of any block of the layer can take.
    pub fn workspace(shape: &ConvShape, rows: usize) -> usize {
        let [kh, kw] = shape.kernel;
        let channels = shape.in_per_group().max(1);
        // A block of `n` taps, wherever they start.
        let of_taps = |n: usize| {
            let taps = if n == 1 {
                [1, 1]
            } else {
                [(n / kw.max(1) + 2).min(kh), kw]
            };
            Plane::largest(shape, taps, (K_BLOCK / n).clamp(1, channels), rows)
        };
        (1..=shape.taps().max(1)).map(of_taps).max().unwrap_or(0)
    }

    fn largest(
        shape: &ConvShape,
        [height, width]: [usize; 2],
        channels: usize,
        rows: usize,
    ) -> usize {
        let taps = TapBox {
            ky: 0,
            kx: 0,
            height: height.max(1),
            width: width.max(1),
        };
        let columns = shape.out_w.max(1);
        let size = |r: usize, c: usize| {
            Plane::sized(shape, taps, r, c)
                .channel
                .saturating_mul(channels)
        };
        size(rows.max(1), columns).min(size(1, columns.min(MIN_COLUMNS)).max(TARGET))
    }

    /// Distance from a pixel's base to the value tap `tap` of channel `c` of the block reads.
    #[inline(always)]
    fn offset(&self, shape: &ConvShape, c: usize, tap: usize) -> usize {
        let (ky, kx) = (tap / shape.kernel[1], tap % shape.kernel[1]);
        let y = if self.taps.height == 1 {
            0
        } else {
            (ky - self.taps.ky) * shape.dilation[0]
        };
        let x = (kx - self.taps.kx) * shape.dilation[1];
        let sx = shape.stride[1];
        let column = if sx == 1 {
            x
        } else {
            x % sx * self.phase_len + x / sx
        };
        c * self.channel + y * self.pitch + column
    }

    /// Where the windows of output pixel (row, column) of the band start.
    #[inline(always)]
    pub fn base(&self, row: usize, column: usize) -> usize {
        row * self.row_step * self.pitch + column * self.column_step
    }

    /// Whether the windows of neighbouring output pixels of a row are neighbours.
    pub fn has_neighbours(&self) -> bool {
        self.column_step == 1
    }

    /// Whether the pixels of a band of `columns` columns lie behind each other across rows.
    pub fn is_flat(&self, columns: usize) -> bool {
        self.row_step * self.pitch == columns
    }

    /// Copies the input of `channels` (of the whole input) for a band of output pixels.
    pub fn pack(
        &self,
        isa: Isa,
        shape: &ConvShape,
        input: View<'_>,
        channels: Range<usize>,
        band: &Band,
        out: &mut [f32],
    ) {
        let ([sy, sx], [dy, dx]) = (shape.stride, shape.dilation);
        let (taps, rows) = (self.taps, band.rows.len());
        let rows = if taps.height == 1 {
            rows
        } else {
            (rows - 1) * sy + (taps.height - 1) * dy + 1
        };
        let top = (band.rows.start * sy + taps.ky * dy) as isize - shape.pad_top as isize;
        let left = (band.columns.start * sx + taps.kx * dx) as isize - shape.pad_left as isize;
        // A narrower last band leaves the end of each row unused.
        let len = self.phase_len - (self.band_columns - band.columns.len());
        // Everything is written in whole vectors, in ascending order within a channel: what runs
        // over the end of a row is overwritten by the next one. Rows outside, channels inside:
        // that is the order of the runtime's layout in memory.
        let clip_of = |phase: usize| Clip::new(left + phase as isize, sx, len, shape.in_w);
        let clips = [0, 1].map(clip_of);
        for r in 0..rows {
            let y = top + (r * self.source_step) as isize;
            let inside = y >= 0 && (y as usize) < shape.in_h;
            for phase in 0..self.phases {
                let (clip, from) = if inside {
                    let clip = clips.get(phase).copied().unwrap_or_else(|| clip_of(phase));
                    (
                        clip,
                        input.map.at(0, channels.start, y as usize) + clip.first,
                    )
                } else {
                    (
                        Clip {
                            before: len,
                            values: 0,
                            len,
                            first: 0,
                        },
                        0,
                    )
                };
                let line = Line {
                    clip,
                    count: channels.len(),
                    from: &input.data[from..],
                    from_stride: input.map.channel,
                    to: &mut out[r * self.pitch + phase * self.phase_len..],
                    to_stride: self.channel,
                };
                match sx {
                    1 | 2 if isa.has_long() => {
                        isa.run_long(Masked(line, sx == 2));
                    }
                    1 if line.fits::<8>() => isa.run(Whole::<8>(line)),
                    2 if line.fits::<16>() => isa.run(Whole::<16>(line)),
                    _ => line.copy_any(sx),
                }
            }
        }
    }
}

/// The table of [`Plane::offset`] for every k of a block; made anew only when it changes, which
/// it seldom does between the blocks of a tile.
pub(super) struct Offsets<'a> {
    table: &'a mut [u32],
    made_for: Option<(Plane, Range<usize>, usize)>,
}

impl<'a> Offsets<'a> {
    /// `table` holds [`K_BLOCK`] elements.
    pub fn new(table: &'a mut [f32]) -> Offsets<'a> {
        Offsets {
            table: bytemuck::cast_slice_mut(table),
            made_for: None,
        }
    }

    /// The offsets of a block.
    pub fn of(&mut self, plane: &Plane, shape: &ConvShape, block: &Block, order: KOrder) -> &[u32] {
        let key = (*plane, block.taps.clone(), block.channels.len());
        if self.made_for.as_ref() != Some(&key) {
            self.fill(plane, shape, block, order);
            self.made_for = Some(key);
        }
        &self.table[..block.len]
    }

    fn fill(&mut self, plane: &Plane, shape: &ConvShape, block: &Block, order: KOrder) {
        let out = &mut *self.table;
        let (channels, taps) = (block.channels.len(), block.taps.len());
        match order {
            KOrder::ChannelMajor => {
                let (head, _) = out.split_at_mut(taps);
                for (to, tap) in head.iter_mut().zip(block.taps.clone()) {
                    *to = plane.offset(shape, 0, tap) as u32;
                }
                for i in taps..block.len {
                    out[i] = out[i - taps] + plane.channel as u32;
                }
            }
            KOrder::TapMajor => {
                for (line, tap) in out.chunks_mut(channels).zip(block.taps.clone()) {
                    let first = plane.offset(shape, 0, tap);
                    for (c, to) in line.iter_mut().enumerate() {
                        *to = (first + c * plane.channel) as u32;
                    }
                }
            }
        }
    }
}

/// One row (and phase) of the planes of all channels.
struct Line<'a> {
    clip: Clip,
    /// Channels.
    count: usize,
    /// Starts with the first value of the first channel.
    from: &'a [f32],
    from_stride: usize,
    to: &'a mut [f32],
    to_stride: usize,
}

/// A line in whole vectors, each made of `N` inputs: stride `N / 8`, 1 or 2.
struct Whole<'a, const N: usize>(Line<'a>);

impl<const N: usize> Work for Whole<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Line {
            clip,
            count,
            from,
            from_stride,
            to,
            to_stride,
        } = self.0;
        let vectors = clip.values.div_ceil(8);
        let end = clip.before + clip.values;
        let (halo_before, halo_after) = (clip.before > 0, end < clip.len);
        let span = (clip.before + vectors * 8).max(end + 8);
        if N == 8 && vectors == 1 && clip.before <= 8 {
            // Narrow maps: up to three vectors a row, stored in this order.
            let zero = simd.splat(0.0);
            let (mut at, mut source) = (0, 0);
            for _ in 0..count {
                let to = &mut to[at..at + span];
                let v = simd.load(&from[source..source + 8].as_chunks().0[0]);
                if halo_before {
                    simd.store(zero, &mut to[..8].as_chunks_mut().0[0]);
                }
                simd.store(
                    v,
                    &mut to[clip.before..clip.before + 8].as_chunks_mut().0[0],
                );
                if halo_after {
                    simd.store(zero, &mut to[end..end + 8].as_chunks_mut().0[0]);
                }
                at += to_stride;
                source += from_stride;
            }
            return;
        }
        for i in 0..count {
            let to = &mut to[i * to_stride..][..span];
            let from = &from[i * from_stride..][..vectors * N];
            if halo_before {
                let zeros = to.as_chunks_mut().0;
                simd.store(simd.splat(0.0), &mut zeros[0]);
                if clip.before > 8 {
                    simd.store(simd.splat(0.0), &mut zeros[1]);
                }
            }
            let target = to[clip.before..].as_chunks_mut::<8>().0;
            for (t, s) in target.iter_mut().zip(from.as_chunks::<N>().0) {
                let v = match s.as_array::<16>() {
                    Some(pairs) => simd.evens(pairs),
                    None => simd.load(&s.as_chunks().0[0]),
                };
                simd.store(v, t);
            }
            if halo_after {
                simd.store(simd.splat(0.0), &mut to[end..end + 8].as_chunks_mut().0[0]);
            }
        }
    }
}

/// A line of stride 1 or (`true`) 2 in vectors of 16 places, halo and all: what lies outside is masked.
struct Masked<'a>(Line<'a>, bool);

impl LongWork for Masked<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Long>(self, simd: S) {
        let Masked(line, two) = self;
        let (clip, step) = (line.clip, if two { 2 } else { 1 });
        for place in (0..clip.len).step_by(16) {
            let first = clip.before.clamp(place, place + 16);
            let end = (clip.before + clip.values).clamp(first, place + 16);
            let lanes = simd.mask16(first - place, end - first);
            let all = simd.first16(clip.len - place);
            // Inputs from the first to the last one that counts.
            let inputs = match end - first {
                0 => 0,
                n => (n - 1) * step + 1,
            };
            let from = first.saturating_sub(clip.before) * step;
            let low = simd.first16(inputs);
            let high = simd.first16(inputs.saturating_sub(16));
            let to = &mut line.to[place..];
            for i in 0..line.count {
                // An empty slice may lie anywhere; processors are slow to find that no lane of a forbidden place is wanted.
                let mut v = simd.splat16(0.0);
                if inputs > 0 {
                    let from = &line.from[i * line.from_stride + from..][..inputs];
                    v = simd.load16_masked(low, from);
                    if two {
                        let rest = match inputs > 16 {
                            true => simd.load16_masked(high, &from[16..]),
                            false => v,
                        };
                        v = simd.spread16(lanes, simd.evens_of16(v, rest));
                    } else {
                        v = simd.spread16(lanes, v);
                    }
                }
                simd.store16_masked(all, v, &mut to[i * line.to_stride..]);
            }
        }
    }
}

impl Line<'_> {
    /// Whether vectors of `N` inputs can be read to the end, and one covers each halo.
    fn fits<const N: usize>(&self) -> bool {
        let Clip {
            before,
            values,
            len,
            ..
        } = self.clip;
        let read = (self.count - 1) * self.from_stride + values.div_ceil(8) * N;
        before <= 16 && len - before - values <= 8 && read <= self.from.len()
    }

    /// Any stride, one by one.
    fn copy_any(self, step: usize) {
        let Clip {
            before,
            values,
            len,
            ..
        } = self.clip;
        for i in 0..self.count {
            let to = &mut self.to[i * self.to_stride..][..len];
            to[..before].fill(0.0);
            to[before + values..].fill(0.0);
            if values > 0 {
                let from = &self.from[i * self.from_stride..];
                for (j, t) in to[before..before + values].iter_mut().enumerate() {
                    *t = from[j * step];
                }
            }
        }
    }
}

/// Which part of a plane row lies within the input.
#[derive(Clone, Copy)]
struct Clip {
    /// Zeros before, values, length of the row, and the input column of the first value.
    before: usize,
    values: usize,
    len: usize,
    first: usize,
}

impl Clip {
    fn new(start: isize, step: usize, len: usize, in_w: usize) -> Clip {
        let before = if start < 0 {
            start.unsigned_abs().div_ceil(step).min(len)
        } else {
            0
        };
        let first = (start + (before * step) as isize).max(0) as usize;
        let values = in_w.saturating_sub(first).div_ceil(step).min(len - before);
        Clip {
            before,
            values,
            len,
            first: if values == 0 { 0 } else { first },
        }
    }
}

/// A rectangle of output pixels.
#[derive(Clone, Debug)]
pub(super) struct Band {
    /// Output rows.
    pub rows: Range<usize>,
    /// Output columns.
    pub columns: Range<usize>,
}

impl Band {
    /// The bands that cover `rows` in the size `plane` was made for.
    pub fn all(
        shape: &ConvShape,
        plane: &Plane,
        rows: &Range<usize>,
    ) -> impl Iterator<Item = Band> {
        let (rows, width) = (rows.clone(), shape.out_w);
        let (height, step) = (plane.band_rows, plane.band_columns);
        rows.clone().step_by(height).flat_map(move |y| {
            let end = rows.end;
            (0..width).step_by(step).map(move |x| Band {
                rows: y..(y + height).min(end),
                columns: x..(x + step).min(width),
            })
        })
    }
}
