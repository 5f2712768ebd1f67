//! From an image to a detector's input, row by row.
//!
//! A pixel of the scaled image is the mean of the area of the image that it covers (images are only ever shrunk), computed vertically
//! first, a few pixels at a time: sums of a block of columns on the stack are all that is held besides the result. Rows are
//! independent of each other, so the network asks for them when it needs them, from several threads, and no input exists as a
//! whole. A pixel of the scaled image is a whole number, as in the files and frames that detectors were trained with; where others
//! scale by areas too, they see the same image. Padding pixels are black.

use crate::image::Image;
use dcz::preprocess::{SumColumns, planar, rounded, sum_rows};
use dcz::{Isa, RowSource};
use dcz_format::graph::ChannelOrder;
use dcz_format::pipeline::{InputSize, Pixels};
use std::ops::Range;

/// Where an image lies in a detector's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Width and height of the scaled image.
    pub scaled: [u32; 2],
    /// Width and height of the input.
    pub padded: [u32; 2],
}

impl Placement {
    /// The placement of an image of `width` x `height`; `None` when a side leaves the range of sizes.
    pub fn new(width: u32, height: u32, size: InputSize, multiple: u32) -> Option<Placement> {
        let scaled = match size {
            InputSize::Native => [width, height],
            InputSize::LongestSide(side) if width.max(height) <= side => [width, height],
            InputSize::LongestSide(side) => {
                let longest = u64::from(width.max(height).max(1));
                [width, height].map(|v| {
                    let scaled = (u64::from(v) * u64::from(side) + longest / 2) / longest;
                    u32::try_from(scaled).unwrap_or(side).max(1)
                })
            }
        };
        let [w, h] = scaled.map(|v| v.checked_next_multiple_of(multiple));
        Some(Placement {
            scaled,
            padded: [w?, h?],
        })
    }

    /// Pixels of the image per pixel of the input, per axis.
    pub fn factors(&self, width: u32, height: u32) -> [f32; 2] {
        let factor = |image: u32, scaled: u32| (f64::from(image) / f64::from(scaled.max(1))) as f32;
        [
            factor(width, self.scaled[0]),
            factor(height, self.scaled[1]),
        ]
    }
}

/// Channels of the input.
pub fn channels(pixels: &Pixels) -> usize {
    match pixels.channels {
        ChannelOrder::Rgb | ChannelOrder::Bgr => 3,
        ChannelOrder::Gray => 1,
    }
}

/// Pixels of the image that are summed over rows at a time, on the stack; their sums stay in the L1 cache.
const BLOCK: usize = 1024;
/// Most pixels of the scaled image that are made of them.
const GROUP: usize = 256;
/// Values of a block's sums, and some more that are read with the last pixel.
const SUMS: usize = 3 * BLOCK + 8;

/// What scaling needs to know of sizes, reused from image to image. Threads share it.
#[derive(Debug, Default)]
pub struct Scaler {
    columns: Taps,
    rows: Taps,
}

impl Scaler {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.columns.bytes() + self.rows.bytes()
    }

    /// Finds the weights for images of `width` x `height`.
    pub fn prepare(&mut self, width: u32, height: u32, place: &Placement) {
        if place.scaled == [width, height] {
            return;
        }
        self.columns
            .prepare(width as usize, place.scaled[0] as usize);
        self.rows.prepare(height as usize, place.scaled[1] as usize);
    }
}

/// An image as a detector's input. The scaler must have been prepared for it.
pub struct ImageRows<'a> {
    pub isa: Isa,
    pub pixels: &'a Pixels,
    pub image: &'a Image<'a>,
    pub place: &'a Placement,
    pub scaler: &'a Scaler,
}

impl RowSource for ImageRows<'_> {
    fn fill(&self, _: usize, rows: Range<usize>, out: &mut [f32]) {
        let [scaled, height] = self.place.scaled.map(|v| v as usize);
        let width = self.place.padded[0] as usize;
        let line = Line {
            isa: self.isa,
            pixels: self.pixels,
            width,
        };
        let len = channels(self.pixels) * width;
        let mut sums = [0f32; SUMS];
        for (y, out) in rows.zip(out.chunks_exact_mut(len.max(1))) {
            line.pad(if y < height { scaled } else { 0 }, out);
            if y >= height {
                continue;
            }
            if self.place.scaled == self.image.size() {
                line.put_bytes(self.image.row(y), out);
            } else {
                self.scale(y, &line, &mut sums, out);
            }
        }
    }
}

impl ImageRows<'_> {
    /// Row `y` of the scaled image, in groups of pixels that are made of at most a block of columns.
    fn scale(&self, y: usize, line: &Line<'_>, sums: &mut [f32; SUMS], out: &mut [f32]) {
        let (rows, columns) = (&self.scaler.rows, &self.scaler.columns);
        let weights = rows.weights(y..y + 1);
        let used = weights.iter().rposition(|weight| *weight != 0.0);
        let weights = weights.get(..used.map_or(0, |last| last + 1));
        let rows = (rows.first(y), weights.unwrap_or(&[]));
        let width = self.image.width() as usize;
        let mut x = 0;
        while x < columns.len() {
            let start = columns.first(x);
            // Pixels are read with as many columns as the widest one.
            let fits = |at: usize| columns.first(at) + columns.per <= start + BLOCK;
            let most = GROUP.min(columns.len() - x);
            let count = if fits(x + most - 1) {
                most
            } else {
                (x..x + most).take_while(|&at| fits(at)).count()
            };
            if count == 0 {
                let [r, g, b] = self.wide(rows, x, sums);
                line.put([&[r], &[g], &[b]], out, x);
                x += 1;
                continue;
            }
            let end = (columns.first(x + count - 1) + columns.per).min(width);
            self.sum_rows(rows, start, end - start, sums);
            let places = x..x + count;
            let made = SumColumns {
                from: columns.firsts.get(places.clone()).unwrap_or(&[]),
                first: start as u32,
                weights: columns.weights(places.clone()),
                values: &*sums,
                mean: [0.0; 3],
                scale: [1.0; 3],
            };
            line.put_sums(self.isa, made, out, places);
            x += count;
        }
    }

    /// Pixel `x`, which is made of more columns than a block has.
    fn wide(&self, rows: (usize, &[f32]), x: usize, sums: &mut [f32; SUMS]) -> [f32; 3] {
        let from = self.scaler.columns.first(x);
        let width = self.image.width() as usize;
        let mut pixel = [0.0; 3];
        let weights = self.scaler.columns.weights(x..x + 1);
        for (index, weights) in weights.chunks(BLOCK).enumerate() {
            let start = from + index * BLOCK;
            let count = weights.len().min(width.saturating_sub(start));
            self.sum_rows(rows, start, count, sums);
            let (pixels, _) = sums.as_chunks::<3>();
            for (values, weight) in pixels.iter().zip(weights).take(count) {
                for (sum, value) in pixel.iter_mut().zip(values) {
                    *sum += weight * value;
                }
            }
        }
        pixel.map(rounded)
    }

    /// The weighted sum of rows (first one, weights) of the image, `count` pixels from column `start` on.
    fn sum_rows(
        &self,
        (first, weights): (usize, &[f32]),
        start: usize,
        count: usize,
        sums: &mut [f32; SUMS],
    ) {
        let (bytes, stride) = self.image.rows_from(first);
        let bytes = bytes.get(3 * start..).unwrap_or(&[]);
        sum_rows(self.isa, weights, bytes, stride, &mut sums[..3 * count]);
    }
}

/// A row of a network's input, channel after channel.
struct Line<'a> {
    isa: Isa,
    pixels: &'a Pixels,
    width: usize,
}

impl Line<'_> {
    /// Writes black from column `from` on.
    fn pad(&self, from: usize, out: &mut [f32]) {
        for (channel, values) in out.chunks_exact_mut(self.width.max(1)).enumerate() {
            let black = (0.0 - self.pixels.mean[channel % 3]) * self.pixels.scale[channel % 3];
            if let Some(rest) = values.get_mut(from..) {
                rest.fill(black);
            }
        }
    }

    /// Writes the values of a row of an image.
    fn put_bytes(&self, row: &[u8], out: &mut [f32]) {
        let of = match self.pixels.channels {
            ChannelOrder::Rgb => [0, 1, 2],
            ChannelOrder::Bgr => [2, 1, 0],
            ChannelOrder::Gray => {
                let (mean, scale) = (self.pixels.mean[0], self.pixels.scale[0]);
                for (to, rgb) in out.iter_mut().zip(row.as_chunks::<3>().0) {
                    *to = (gray(rgb.map(f32::from)) - mean) * scale;
                }
                return;
            }
        };
        let Pixels { mean, scale, .. } = self.pixels;
        let planes = out.chunks_exact_mut(self.width.max(1)).zip(of);
        for ((values, of), (mean, scale)) in planes.zip(mean.iter().zip(scale)) {
            planar(self.isa, row, of, *mean, *scale, values);
        }
    }

    /// Writes sums of columns, which are neither less a mean nor scaled yet, to `columns`.
    fn put_sums(&self, isa: Isa, mut sums: SumColumns<'_>, out: &mut [f32], columns: Range<usize>) {
        let swapped = match self.pixels.channels {
            ChannelOrder::Rgb => false,
            ChannelOrder::Bgr => true,
            ChannelOrder::Gray => {
                let [mut r, mut g, mut b] = [[0f32; GROUP]; 3];
                let count = columns.len().min(GROUP);
                let planes = [&mut r, &mut g, &mut b].map(|plane| &mut plane[..count]);
                sums.run(isa, planes);
                return self.put([&r[..count], &g[..count], &b[..count]], out, columns.start);
            }
        };
        let mut planes = out.chunks_exact_mut(self.width.max(1));
        let mut plane = || {
            planes
                .next()
                .and_then(|plane| plane.get_mut(columns.clone()))
        };
        if let (Some(mut first), Some(second), Some(mut third)) = (plane(), plane(), plane()) {
            (sums.mean, sums.scale) = (self.pixels.mean, self.pixels.scale);
            if swapped {
                std::mem::swap(&mut first, &mut third);
                sums.mean.reverse();
                sums.scale.reverse();
            }
            sums.run(isa, [first, second, third]);
        }
    }

    /// Writes red, green and blue values from column `from` on.
    fn put(&self, [r, g, b]: [&[f32]; 3], out: &mut [f32], from: usize) {
        let mut grays = [0.0; GROUP];
        let of = match self.pixels.channels {
            ChannelOrder::Rgb => [r, g, b],
            ChannelOrder::Bgr => [b, g, r],
            ChannelOrder::Gray => {
                for (to, ((r, g), b)) in grays.iter_mut().zip(r.iter().zip(g).zip(b)) {
                    *to = gray([*r, *g, *b]);
                }
                [&grays[..r.len()]; 3]
            }
        };
        let Pixels { mean, scale, .. } = self.pixels;
        let planes = out.chunks_exact_mut(self.width.max(1)).zip(of);
        for ((to, values), (mean, scale)) in planes.zip(mean.iter().zip(scale)) {
            let to = to.get_mut(from..).unwrap_or_default();
            for (to, value) in to.iter_mut().zip(values) {
                *to = (value - mean) * scale;
            }
        }
    }
}

fn gray([r, g, b]: [f32; 3]) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}

/// An aligned crop (RGB, `width` pixels per row) as an embedder's input.
pub struct CropRows<'a> {
    pub isa: Isa,
    pub pixels: &'a Pixels,
    pub crop: &'a [u8],
    pub width: usize,
}

impl RowSource for CropRows<'_> {
    fn fill(&self, _: usize, rows: Range<usize>, out: &mut [f32]) {
        let line = Line {
            isa: self.isa,
            pixels: self.pixels,
            width: self.width,
        };
        let len = (channels(self.pixels) * self.width).max(1);
        for (y, out) in rows.zip(out.chunks_exact_mut(len)) {
            let row = self.crop.get(y * self.width * 3..).unwrap_or(&[]);
            let row = row.get(..self.width * 3).unwrap_or(&[]);
            line.put_bytes(row, out);
        }
    }
}

/// Source samples and weights of every output position of one axis, weights of a position adding up to 1. All positions have as
/// many weights; some of the last may be 0, and lie beyond the source.
#[derive(Debug, Default)]
struct Taps {
    /// Length of the axis in the image.
    source: usize,
    /// First sample.
    firsts: Vec<u32>,
    /// Weights per position.
    per: usize,
    weights: Vec<f32>,
}

impl Taps {
    fn prepare(&mut self, len: usize, out: usize) {
        if self.source == len && self.firsts.len() == out {
            return;
        }
        let step = len as f64 / out.max(1) as f64;
        let place = |position: usize| {
            let (begin, end) = (position as f64 * step, (position + 1) as f64 * step);
            let first = (begin as usize).min(len.saturating_sub(1));
            let last = (end.ceil() as usize).clamp(first + 1, len.max(first + 1));
            (begin, end, first, last)
        };
        let longest = (0..out).map(place).map(|(_, _, first, last)| last - first);
        let per = longest.max().unwrap_or(0);
        (self.source, self.per) = (len, per);
        self.firsts.clear();
        self.firsts.reserve_exact(out);
        self.weights.clear();
        self.weights.reserve_exact(out * per);
        for (begin, end, first, last) in (0..out).map(place) {
            let covered = |i: usize| (end.min((i + 1) as f64) - begin.max(i as f64)).max(0.0);
            let sum: f64 = (first..last).map(covered).sum();
            let weight = |i: usize| (covered(i) / sum.max(f64::MIN_POSITIVE)) as f32;
            self.weights.extend((first..last).map(weight));
            self.firsts.push(first as u32);
            self.weights.resize(self.firsts.len() * per, 0.0);
        }
    }
    fn bytes(&self) -> usize {
        self.firsts.capacity() * size_of::<u32>() + self.weights.capacity() * size_of::<f32>()
    }
    fn len(&self) -> usize {
        self.firsts.len()
    }
    fn first(&self, position: usize) -> usize {
        self.firsts.get(position).map_or(0, |first| *first as usize)
    }
    fn weights(&self, positions: Range<usize>) -> &[f32] {
        let range = positions.start * self.per..positions.end * self.per;
        self.weights.get(range).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIXELS: Pixels = Pixels {
        channels: ChannelOrder::Bgr,
        mean: [1.0, 2.0, 3.0],
        scale: [0.5, 1.0, 2.0],
    };

    #[test]
    fn placements() {
        let place = |w, h, size| Placement::new(w, h, size, 32).unwrap();
        assert_eq!(place(250, 250, InputSize::Native).padded, [256, 256]);
        let full_hd = place(1920, 1080, InputSize::LongestSide(640));
        assert_eq!((full_hd.scaled, full_hd.padded), ([640, 360], [640, 384]));
        assert_eq!(
            place(250, 200, InputSize::LongestSide(640)).scaled,
            [250, 200]
        );
        let thin = place(1, 5000, InputSize::LongestSide(640));
        assert_eq!((thin.scaled, thin.padded), ([1, 640], [32, 640]));
        assert_eq!(Placement::new(u32::MAX, 1, InputSize::Native, 32), None);
    }

    /// The whole input, `[row][channel][column]`, made in pieces of `rows` rows.
    fn input(image: &Image<'_>, place: &Placement, rows: usize) -> Vec<f32> {
        let mut scaler = Scaler::default();
        scaler.prepare(image.width(), image.height(), place);
        let source = ImageRows {
            isa: Isa::detect(),
            pixels: &PIXELS,
            image,
            place,
            scaler: &scaler,
        };
        let [width, height] = place.padded.map(|v| v as usize);
        let mut out = vec![f32::NAN; 3 * width * height];
        for (index, part) in out.chunks_mut(rows * 3 * width).enumerate() {
            let first = index * rows;
            source.fill(0, first..(first + rows).min(height), part);
        }
        out
    }

    #[test]
    fn native_values_and_padding() {
        let bytes = [10, 20, 30, 40, 50, 60];
        let image = Image::new(2, 1, &bytes).unwrap();
        let place = Placement::new(2, 1, InputSize::Native, 4).unwrap();
        let out = input(&image, &place, 4);
        assert_eq!(out[..4], [14.5, 29.5, -0.5, -0.5]);
        assert_eq!(out[4..8], [18.0, 48.0, -2.0, -2.0]);
        assert_eq!(out[8..12], [14.0, 74.0, -6.0, -6.0]);
        for (i, v) in out[12..].iter().enumerate() {
            assert_eq!(*v, [-0.5, -2.0, -6.0][i / 4 % 3]);
        }
    }

    #[test]
    fn scaled_pixels_are_rounded_means_of_what_they_cover() {
        // The last ones are wider than a block, with pixels wider than that.
        for (w, h, side) in [
            (7, 5, 4),
            (40, 3, 7),
            (64, 1, 16),
            (33, 40, 13),
            (90, 61, 89),
            (2100, 2, 900),
            (2100, 2, 2),
        ] {
            let bytes: Vec<u8> = (0..w * h * 3).map(|i| (i * 37 % 251) as u8).collect();
            let image = Image::new(w, h, &bytes).unwrap();
            let place = Placement::new(w, h, InputSize::LongestSide(side), 1).unwrap();
            let [ow, oh] = place.scaled.map(|v| v as usize);
            let out = input(&image, &place, 2);
            // In whatever pieces.
            assert_eq!(out, input(&image, &place, oh));
            let steps = place.factors(w, h).map(f64::from);
            // Share of the image's pixel `i` in the scaled pixel `x` of one axis, both of area 1.
            let share = |axis: usize, i: usize, x: usize| {
                let (from, to) = (x as f64 * steps[axis], (x + 1) as f64 * steps[axis]);
                (to.min(i as f64 + 1.0) - from.max(i as f64)).max(0.0) / steps[axis]
            };
            for (index, value) in out.iter().enumerate() {
                let (channel, y, x) = (index / ow % 3, index / (3 * ow), index % ow);
                assert!(y < oh);
                let mut mean = 0.0;
                for (pixel, rgb) in bytes.chunks(3).enumerate() {
                    let (column, row) = (pixel % w as usize, pixel / w as usize);
                    // The network's channels are in the order blue, green, red.
                    mean += share(0, column, x) * share(1, row, y) * f64::from(rgb[2 - channel]);
                }
                let pixel = value / PIXELS.scale[channel] + PIXELS.mean[channel];
                let off = f64::from(pixel) - mean;
                assert!(
                    pixel.fract() == 0.0 && (-0.5..0.502).contains(&off),
                    "{w}x{h} to {side}: {pixel} {mean}"
                );
            }
        }
    }
}
