//! From an image to a detector's input, row by row.
//!
//! A pixel of the scaled image is the mean of the area of the image that it covers (images are only ever shrunk), computed vertically
//! first: one row of sums as wide as the image is all that is held besides the result. Padding pixels are black. Loses against
//! integer arithmetic by a factor of about two in time, at no rounding in between.

use crate::image::Image;
use dcz_format::graph::ChannelOrder;
use dcz_format::pipeline::{InputSize, Pixels};

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

/// Values of a row that are summed at a time.
const BLOCK: usize = 32;

/// Scratch of filling, reused from image to image.
#[derive(Debug, Default)]
pub struct Scaler {
    columns: Taps,
    rows: Taps,
    /// A row of the image's width, weighted over the rows it is made of; then the scaled row.
    wide: Vec<f32>,
    narrow: Vec<[f32; 3]>,
}

impl Scaler {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.columns.bytes()
            + self.rows.bytes()
            + self.wide.capacity() * size_of::<f32>()
            + self.narrow.capacity() * size_of::<[f32; 3]>()
    }

    /// Makes room and weights for images of `width` x `height`, so that [`fill`](Scaler::fill) allocates nothing.
    pub fn prepare(&mut self, width: u32, height: u32, place: &Placement) {
        if place.scaled == [width, height] {
            return;
        }
        self.columns
            .prepare(width as usize, place.scaled[0] as usize);
        self.rows.prepare(height as usize, place.scaled[1] as usize);
        // One more: the last pixel is read as four values.
        resize(&mut self.wide, width as usize * 3 + 1);
        resize(&mut self.narrow, place.scaled[0] as usize);
    }

    /// Fills `out` (`channels * height * width` values) with the image as it lies in the input.
    pub fn fill(&mut self, pixels: &Pixels, image: &Image<'_>, place: &Placement, out: &mut [f32]) {
        let [width, height] = place.padded.map(|v| v as usize);
        let planes = Planes {
            pixels,
            width,
            height,
        };
        planes.pad(place.scaled.map(|v| v as usize), out);
        if place.scaled == image.size() {
            for y in 0..image.height() as usize {
                planes.put(image.row(y).as_chunks::<3>().0, out, y);
            }
            return;
        }
        self.prepare(image.width(), image.height(), place);
        for y in 0..self.rows.len() {
            self.sum_rows(image, y);
            self.sum_columns();
            planes.put(&self.narrow, out, y);
        }
    }
}

impl Scaler {
    /// The weighted sum of the rows of the image that row `y` is made of.
    fn sum_rows(&mut self, image: &Image<'_>, y: usize) {
        let (first, weights) = self.rows.get(y);
        // Sums of one block at a time stay in registers.
        let (blocks, rest) = self.wide.as_chunks_mut::<BLOCK>();
        for (index, block) in blocks.iter_mut().enumerate() {
            let mut sums = [0f32; BLOCK];
            for (weight, source) in weights.iter().zip(first..) {
                let values = image.row(source).get(index * BLOCK..);
                let Some(values) = values.and_then(|v| v.first_chunk::<BLOCK>()) else {
                    continue;
                };
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum += weight * f32::from(*value);
                }
            }
            *block = sums;
        }
        rest.fill(0.0);
        let start = blocks.len() * BLOCK;
        for (weight, source) in weights.iter().zip(first..) {
            let values = image.row(source).get(start..).unwrap_or(&[]);
            for (sum, value) in rest.iter_mut().zip(values) {
                *sum += weight * f32::from(*value);
            }
        }
    }

    /// The scaled row. Four values are read per pixel, of which three count: one vector instead of three numbers.
    fn sum_columns(&mut self) {
        for (x, to) in self.narrow.iter_mut().enumerate() {
            let (first, weights) = self.columns.get(x);
            let mut sums = [0f32; 4];
            let values = self.wide.get(3 * first..).unwrap_or(&[]);
            for (tap, weight) in weights.iter().enumerate() {
                let Some(values) = values.get(3 * tap..).and_then(|v| v.first_chunk::<4>()) else {
                    continue;
                };
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum += weight * value;
                }
            }
            let [r, g, b, _] = sums;
            *to = [r, g, b];
        }
    }
}

/// Exactly `len` values, never less room than before.
fn resize<T: Copy + Default>(values: &mut Vec<T>, len: usize) {
    values.clear();
    values.reserve_exact(len);
    values.resize(len, T::default());
}

/// A network's input of one value per pixel and channel.
struct Planes<'a> {
    pixels: &'a Pixels,
    width: usize,
    height: usize,
}

impl Planes<'_> {
    /// Writes black right of and below what the image covers.
    fn pad(&self, [width, height]: [usize; 2], out: &mut [f32]) {
        let planes = out.chunks_exact_mut((self.width * self.height).max(1));
        for (channel, values) in planes.enumerate() {
            let black = (0.0 - self.pixels.mean[channel % 3]) * self.pixels.scale[channel % 3];
            for (y, row) in values.chunks_exact_mut(self.width.max(1)).enumerate() {
                let from = if y < height { width } else { 0 };
                if let Some(rest) = row.get_mut(from..) {
                    rest.fill(black);
                }
            }
        }
    }

    /// Writes the values of a row of RGB triples to row `y`.
    fn put<T: Copy + Into<f32>>(&self, row: &[[T; 3]], out: &mut [f32], y: usize) {
        let planes = out.chunks_exact_mut((self.width * self.height).max(1));
        for (channel, values) in planes.enumerate() {
            let channel = channel % 3;
            let (mean, scale) = (self.pixels.mean[channel], self.pixels.scale[channel]);
            let Some(values) = values.get_mut(y * self.width..(y + 1) * self.width) else {
                continue;
            };
            // The source is a constant in each arm, which lets the compiler do several pixels at once.
            match (self.pixels.channels, channel) {
                (ChannelOrder::Rgb, 0) | (ChannelOrder::Bgr, 2) => {
                    put_with(row, values, |rgb| (rgb[0].into() - mean) * scale);
                }
                (ChannelOrder::Rgb | ChannelOrder::Bgr, 1) => {
                    put_with(row, values, |rgb| (rgb[1].into() - mean) * scale);
                }
                (ChannelOrder::Rgb | ChannelOrder::Bgr, _) => {
                    put_with(row, values, |rgb| (rgb[2].into() - mean) * scale);
                }
                (ChannelOrder::Gray, _) => put_with(row, values, |rgb| {
                    let [r, g, b] = rgb.map(Into::into);
                    (0.299 * r + 0.587 * g + 0.114 * b - mean) * scale
                }),
            }
        }
    }
}

fn put_with<T: Copy>(row: &[[T; 3]], values: &mut [f32], value: impl Fn([T; 3]) -> f32) {
    for (to, rgb) in values.iter_mut().zip(row) {
        *to = value(*rgb);
    }
}

/// Values of an aligned crop for an embedder.
pub fn fill_crop(pixels: &Pixels, crop: &[u8], width: usize, out: &mut [f32]) {
    let height = crop.len() / (3 * width).max(1);
    let planes = Planes {
        pixels,
        width,
        height,
    };
    for (y, row) in crop.chunks_exact(width.max(1) * 3).enumerate() {
        planes.put(row.as_chunks::<3>().0, out, y);
    }
}

/// Source samples and weights of every output position of one axis, weights of a position adding up to 1.
#[derive(Debug, Default)]
struct Taps {
    /// Length of the axis in the image.
    source: usize,
    /// First sample, and end of its weights in `weights`.
    places: Vec<(usize, usize)>,
    weights: Vec<f32>,
}

impl Taps {
    fn prepare(&mut self, len: usize, out: usize) {
        if self.source == len && self.places.len() == out {
            return;
        }
        let step = len as f64 / out.max(1) as f64;
        self.source = len;
        self.places.clear();
        self.places.reserve_exact(out);
        self.weights.clear();
        self.weights.reserve_exact(out * (step.ceil() as usize + 1));
        for position in 0..out {
            let (begin, end) = (position as f64 * step, (position + 1) as f64 * step);
            let first = (begin as usize).min(len.saturating_sub(1));
            let last = (end.ceil() as usize).clamp(first + 1, len.max(first + 1));
            let covered = |i: usize| (end.min((i + 1) as f64) - begin.max(i as f64)).max(0.0);
            let sum: f64 = (first..last).map(covered).sum();
            for i in first..last {
                self.weights
                    .push((covered(i) / sum.max(f64::MIN_POSITIVE)) as f32);
            }
            self.places.push((first, self.weights.len()));
        }
    }
    fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<(usize, usize)>()
            + self.weights.capacity() * size_of::<f32>()
    }
    fn len(&self) -> usize {
        self.places.len()
    }
    fn get(&self, position: usize) -> (usize, &[f32]) {
        let start = position
            .checked_sub(1)
            .and_then(|before| self.places.get(before))
            .map_or(0, |place| place.1);
        let (first, end) = self.places.get(position).copied().unwrap_or((0, start));
        (first, self.weights.get(start..end).unwrap_or(&[]))
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

    #[test]
    fn native_values_and_padding() {
        let bytes = [10, 20, 30, 40, 50, 60];
        let image = Image::new(2, 1, &bytes).unwrap();
        let place = Placement::new(2, 1, InputSize::Native, 4).unwrap();
        let mut out = vec![9.0; 48];
        Scaler::default().fill(&PIXELS, &image, &place, &mut out);
        assert_eq!(out[..4], [14.5, 29.5, -0.5, -0.5]);
        assert_eq!(out[16..20], [18.0, 48.0, -2.0, -2.0]);
        assert_eq!(out[32..37], [14.0, 74.0, -6.0, -6.0, -6.0]);
    }

    #[test]
    fn scaled_pixels_are_means_of_what_they_cover() {
        for (w, h, side) in [
            (7, 5, 4),
            (40, 3, 7),
            (64, 1, 16),
            (33, 40, 13),
            (90, 61, 89),
        ] {
            let bytes: Vec<u8> = (0..w * h * 3).map(|i| (i * 37 % 251) as u8).collect();
            let image = Image::new(w, h, &bytes).unwrap();
            let place = Placement::new(w, h, InputSize::LongestSide(side), 1).unwrap();
            let [ow, oh] = place.scaled.map(|v| v as usize);
            let mut out = vec![0.0; ow * oh * 3];
            Scaler::default().fill(&PIXELS, &image, &place, &mut out);
            let steps = place.factors(w, h).map(f64::from);
            // Share of the image's pixel `i` in the scaled pixel `x` of one axis, both of area 1.
            let share = |axis: usize, i: usize, x: usize| {
                let (from, to) = (x as f64 * steps[axis], (x + 1) as f64 * steps[axis]);
                (to.min(i as f64 + 1.0) - from.max(i as f64)).max(0.0) / steps[axis]
            };
            for (index, value) in out.iter().enumerate() {
                let (channel, y, x) = (index / (ow * oh), index / ow % oh, index % ow);
                let mut mean = 0.0;
                for (pixel, rgb) in bytes.chunks(3).enumerate() {
                    let (column, row) = (pixel % w as usize, pixel / w as usize);
                    // The network's channels are in the order blue, green, red.
                    mean += share(0, column, x) * share(1, row, y) * f64::from(rgb[2 - channel]);
                }
                let wanted = (mean as f32 - PIXELS.mean[channel]) * PIXELS.scale[channel];
                assert!(
                    (value - wanted).abs() < 2e-3,
                    "{w}x{h} to {side}: {value} {wanted}"
                );
            }
        }
    }
}
