//! From an RGB image to the input a network wants, as its file describes it.
//!
//! The image is scaled by a separable triangle filter (bilinear when enlarging, averaging over the
//! covered area when shrinking; the rule of Pillow's `BILINEAR`, but without rounding to 8 bits in
//! between), or by taking the nearest sample, then placed by the record's resize rule. The value of
//! a channel is `(x - mean) * scale`. Cost: one pass over the used part of the image per axis and
//! `height * out_width` intermediate values.

use crate::error::{ErrorKind, Result};
use dcz_format::graph::{ChannelOrder, Filter, Preprocess, ResizeRule};
pub use dcz_kernels::pixels::{SumColumns, planar, rounded, sum_rows};

/// An 8-bit RGB image, rows top-down without gaps.
#[derive(Clone, Copy, Debug)]
pub struct ImageRef<'a> {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `width * height * 3` values.
    pub pixels: &'a [u8],
}

/// A part of an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    /// First column.
    pub x: u32,
    /// First row.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// Number of channels that a record makes.
pub fn channels(record: &Preprocess) -> usize {
    match record.channels {
        ChannelOrder::Rgb | ChannelOrder::Bgr => 3,
        ChannelOrder::Gray => 1,
    }
}

/// Dimensions of the tensor that a record makes: `[1, channels, height, width]`.
pub fn dims(record: &Preprocess) -> [usize; 4] {
    let [width, height] = record.size.map(|v| v as usize);
    [1, channels(record), height, width]
}

/// Makes the input of a network from `rect` of `image` (the whole image without one).
///
/// Errors: an empty image, a rectangle that is empty or not within it, a wrong number of pixels.
pub fn preprocess(
    record: &Preprocess,
    image: ImageRef<'_>,
    rect: Option<Rect>,
) -> Result<Vec<f32>> {
    let Rect {
        x,
        y,
        width,
        height,
    } = rect.unwrap_or(Rect {
        x: 0,
        y: 0,
        width: image.width,
        height: image.height,
    });
    let wrong = |text: String| Err(ErrorKind::Image(text).into());
    if u64::from(image.width) * u64::from(image.height) * 3 != image.pixels.len() as u64 {
        return wrong(format!("{}x{} pixels expected", image.width, image.height));
    }
    let inside =
        |from: u32, len: u32, all: u32| from.checked_add(len).is_some_and(|end| end <= all);
    if width == 0 || height == 0 {
        return wrong("the image is empty".into());
    }
    if !inside(x, width, image.width) || !inside(y, height, image.height) {
        return wrong(format!(
            "rectangle {x},{y},{width},{height} is not within the {}x{} image",
            image.width, image.height
        ));
    }
    let [_, count, out_h, out_w] = dims(record);
    let (scaled, offset) = placement(record, width, height);
    let columns = Axis::new(record.filter, width as usize, scaled[0], offset[0], out_w);
    let rows = Axis::new(record.filter, height as usize, scaled[1], offset[1], out_h);

    let row_len = image.width as usize * 3;
    // Horizontally first: one row of colours per row of the source that is used.
    let mut narrow = vec![[0f32; 3]; columns.taps.len() * height as usize];
    let used = rows.used();
    for source in used.clone() {
        let line = &image.pixels[(y as usize + source) * row_len + x as usize * 3..];
        let line = &line[..width as usize * 3];
        let to = &mut narrow[source * columns.taps.len()..][..columns.taps.len()];
        for (tap, colour) in columns.taps.iter().zip(to) {
            for (weight, rgb) in tap
                .weights
                .iter()
                .zip(line[tap.first * 3..].chunks_exact(3))
            {
                for (sum, &value) in colour.iter_mut().zip(rgb) {
                    *sum += weight * f32::from(value);
                }
            }
        }
    }
    let fill = match record.resize {
        ResizeRule::Letterbox { fill } => f32::from(fill),
        ResizeRule::Stretch | ResizeRule::CenterCrop { .. } => 0.0,
    };
    let plane = out_h * out_w;
    let normalise = |channel: usize, v: f32| (v - record.mean[channel]) * record.scale[channel];
    let mut out = vec![0f32; count * plane];
    for (channel, plane) in out.chunks_exact_mut(plane).enumerate() {
        plane.fill(normalise(channel, fill));
    }
    for (i, tap) in rows.taps.iter().enumerate() {
        for j in 0..columns.taps.len() {
            let mut rgb = [0f32; 3];
            for (weight, source) in tap.weights.iter().zip(tap.first..) {
                let colour = &narrow[source * columns.taps.len() + j];
                rgb.iter_mut()
                    .zip(colour)
                    .for_each(|(sum, v)| *sum += weight * v);
            }
            let at = (rows.start + i) * out_w + columns.start + j;
            let [r, g, b] = rgb;
            let values = match record.channels {
                ChannelOrder::Rgb => [r, g, b],
                ChannelOrder::Bgr => [b, g, r],
                ChannelOrder::Gray => [0.299 * r + 0.587 * g + 0.114 * b; 3],
            };
            for (channel, value) in values.into_iter().take(count).enumerate() {
                out[channel * plane + at] = normalise(channel, value);
            }
        }
    }
    Ok(out)
}

/// Size of the scaled image, and where its origin lies in the output (may be negative), per axis x, y.
fn placement(record: &Preprocess, width: u32, height: u32) -> ([usize; 2], [i64; 2]) {
    let [w, h] = record.size.map(f64::from);
    let (width, height) = (f64::from(width), f64::from(height));
    let centred = |factor: f64| {
        let scaled = [width, height].map(|v| (v * factor).round().max(1.0));
        let offset = |out: f64, size: f64| ((out - size) / 2.0).floor() as i64;
        (
            scaled.map(|v| v as usize),
            [offset(w, scaled[0]), offset(h, scaled[1])],
        )
    };
    match record.resize {
        ResizeRule::Stretch => (record.size.map(|v| v as usize), [0, 0]),
        ResizeRule::Letterbox { .. } => centred((w / width).min(h / height)),
        ResizeRule::CenterCrop { short } => centred(f64::from(short) / width.min(height)),
    }
}

/// The source samples of the output positions of one axis.
struct Axis {
    /// First output position that is covered.
    start: usize,
    taps: Vec<Tap>,
}

/// Weights of consecutive source samples.
struct Tap {
    first: usize,
    weights: Vec<f32>,
}

impl Axis {
    /// `len` source samples scaled to `scaled`, of which position 0 lies at `offset` of `out`.
    fn new(filter: Filter, len: usize, scaled: usize, offset: i64, out: usize) -> Axis {
        let start = usize::try_from(offset).unwrap_or(0).min(out);
        let skipped = usize::try_from(-offset).unwrap_or(0);
        let count = scaled.saturating_sub(skipped).min(out - start);
        let step = len as f64 / scaled as f64;
        let taps = (skipped..skipped + count).map(|position| {
            let centre = (position as f64 + 0.5) * step;
            match filter {
                Filter::Nearest => Tap {
                    first: (centre as usize).min(len - 1),
                    weights: vec![1.0],
                },
                Filter::Bilinear => Tap::triangle(centre, step.max(1.0), len),
            }
        });
        Axis {
            start,
            taps: taps.collect(),
        }
    }

    /// Range of source samples that are read.
    fn used(&self) -> std::ops::Range<usize> {
        let first = self.taps.iter().map(|t| t.first).min().unwrap_or(0);
        let last = self
            .taps
            .iter()
            .map(|t| t.first + t.weights.len())
            .max()
            .unwrap_or(0);
        first..last
    }
}

impl Tap {
    fn triangle(centre: f64, support: f64, len: usize) -> Tap {
        let first = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).clamp(first + 1, len.max(first + 1));
        let first = first.min(len - 1);
        let distance = |i: usize| ((i as f64 + 0.5 - centre) / support).abs();
        let weights: Vec<f64> = (first..end.min(len))
            .map(|i| (1.0 - distance(i)).max(0.0))
            .collect();
        let sum: f64 = weights.iter().sum();
        if sum > 0.0 {
            Tap {
                first,
                weights: weights.into_iter().map(|w| (w / sum) as f32).collect(),
            }
        } else {
            Tap {
                first,
                weights: vec![1.0],
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(size: [u32; 2], resize: ResizeRule) -> Preprocess {
        let (mean, scale) = ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]);
        let (channels, filter) = (ChannelOrder::Rgb, Filter::Bilinear);
        Preprocess {
            size,
            channels,
            mean,
            scale,
            resize,
            filter,
        }
    }

    fn gradient(width: u32, height: u32) -> Vec<u8> {
        (0..width * height)
            .flat_map(|i| [(i % width) as u8, (i / width) as u8, (i % 7 * 30) as u8])
            .collect()
    }

    #[test]
    fn same_size_is_exact_in_every_order() {
        let pixels = gradient(5, 4);
        let image = ImageRef {
            width: 5,
            height: 4,
            pixels: &pixels,
        };
        let mut r = record([5, 4], ResizeRule::Stretch);
        let rgb = preprocess(&r, image, None).unwrap();
        for (i, pixel) in pixels.chunks_exact(3).enumerate() {
            assert_eq!(
                [rgb[i], rgb[20 + i], rgb[40 + i]],
                [0, 1, 2].map(|c| f32::from(pixel[c]))
            );
        }
        r.channels = ChannelOrder::Bgr;
        (r.mean, r.scale) = ([1.0, 2.0, 3.0], [0.5, 2.0, 1.0]);
        let bgr = preprocess(&r, image, None).unwrap();
        assert_eq!(bgr[7], (rgb[47] - 1.0) * 0.5);
        assert_eq!(bgr[47], rgb[7] - 3.0);
        r.channels = ChannelOrder::Gray;
        assert_eq!(preprocess(&r, image, None).unwrap().len(), 20);
        r.filter = Filter::Nearest;
        r.channels = ChannelOrder::Rgb;
        (r.mean, r.scale) = ([0.0; 3], [1.0; 3]);
        assert_eq!(preprocess(&r, image, None).unwrap(), rgb);
    }

    #[test]
    fn shrinking_averages_and_enlarging_interpolates() {
        // Pillow 13, mode F, BILINEAR: [[0, 10, 20, 30]] to two columns, squares of 0..9 to four.
        let close = |got: &[f32], wanted: &[f32]| {
            assert!(
                got.iter().zip(wanted).all(|(g, w)| (g - w).abs() < 1e-4),
                "{got:?}"
            );
        };
        let grey = |values: &[u8]| values.iter().flat_map(|&v| [v; 3]).collect::<Vec<u8>>();
        let row = grey(&[0, 10, 20, 30]);
        let image = ImageRef {
            width: 4,
            height: 1,
            pixels: &row,
        };
        let small = preprocess(&record([2, 1], ResizeRule::Stretch), image, None).unwrap();
        close(&small[..2], &[7.142857, 22.857143]);
        let squares = grey(&[0, 1, 4, 9, 16, 25, 36, 49, 64]);
        let image = ImageRef {
            width: 9,
            height: 1,
            pixels: &squares,
        };
        let small = preprocess(&record([4, 1], ResizeRule::Stretch), image, None).unwrap();
        close(&small[..4], &[1.2285714, 9.0, 27.341463, 51.971428]);
        // [0, 10] to four columns: [0, 2.5, 7.5, 10].
        let image = ImageRef {
            width: 2,
            height: 1,
            pixels: &row[..6],
        };
        let large = preprocess(&record([4, 1], ResizeRule::Stretch), image, None).unwrap();
        assert_eq!(large[..4], [0.0, 2.5, 7.5, 10.0]);
    }

    #[test]
    fn letterbox_crop_and_rectangle() {
        let pixels = gradient(8, 4);
        let image = ImageRef {
            width: 8,
            height: 4,
            pixels: &pixels,
        };
        let boxed = preprocess(
            &record([8, 8], ResizeRule::Letterbox { fill: 9 }),
            image,
            None,
        );
        let boxed = boxed.unwrap();
        assert!(boxed[..16].iter().chain(&boxed[48..64]).all(|&v| v == 9.0));
        assert_eq!(boxed[16..24], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        let cut = preprocess(
            &record([4, 4], ResizeRule::CenterCrop { short: 4 }),
            image,
            None,
        );
        assert_eq!(cut.unwrap()[..4], [2.0, 3.0, 4.0, 5.0]);
        let rect = Rect {
            x: 3,
            y: 1,
            width: 2,
            height: 2,
        };
        let part = preprocess(&record([2, 2], ResizeRule::Stretch), image, Some(rect)).unwrap();
        assert_eq!(part[..8], [3.0, 4.0, 3.0, 4.0, 1.0, 1.0, 2.0, 2.0]);
    }

    #[test]
    fn unusable_images_are_errors() {
        let pixels = gradient(8, 4);
        let r = record([4, 4], ResizeRule::Stretch);
        let code = |image, rect| preprocess(&r, image, rect).unwrap_err().exit_code();
        assert_eq!(
            code(
                ImageRef {
                    width: 0,
                    height: 0,
                    pixels: &[]
                },
                None
            ),
            5
        );
        assert_eq!(
            code(
                ImageRef {
                    width: 8,
                    height: 5,
                    pixels: &pixels
                },
                None
            ),
            5
        );
        let image = ImageRef {
            width: 8,
            height: 4,
            pixels: &pixels,
        };
        for (x, y, width, height) in [
            (7, 0, 2, 1),
            (0, 0, 0, 1),
            (0, u32::MAX, 1, 1),
            (0, 0, 9, 4),
        ] {
            assert_eq!(
                code(
                    image,
                    Some(Rect {
                        x,
                        y,
                        width,
                        height
                    })
                ),
                5
            );
        }
    }

    #[test]
    fn odd_sizes_stay_within_bounds() {
        for (width, height) in [(1, 1), (1, 7), (13, 2), (300, 3)] {
            let pixels = gradient(width, height);
            for size in [[1, 1], [2, 5], [17, 17]] {
                for rule in [
                    ResizeRule::Stretch,
                    ResizeRule::Letterbox { fill: 0 },
                    ResizeRule::CenterCrop { short: 17 },
                ] {
                    for filter in [Filter::Bilinear, Filter::Nearest] {
                        let r = Preprocess {
                            filter,
                            ..record(size, rule)
                        };
                        let image = ImageRef {
                            width,
                            height,
                            pixels: &pixels,
                        };
                        let out = preprocess(&r, image, None).unwrap();
                        assert!(out.iter().all(|v| (0.0..=255.1).contains(v)));
                    }
                }
            }
        }
    }
}
