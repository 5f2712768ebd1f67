//! Spatial resampling: nearest and bilinear, with ONNX coordinate rules.
//!
//! Coordinates are computed in f32 per row and column, as onnxruntime does; the separable weights
//! are applied vertically inside each output element, so no intermediate row is needed.

use crate::shape::{View, ViewMut};
use std::ops::Range;

/// Interpolation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeMode {
    /// Rounds down.
    NearestFloor,
    /// Rounds up.
    NearestCeil,
    /// Half rounds down.
    NearestPreferFloor,
    /// Half rounds up.
    NearestPreferCeil,
    /// Bilinear, edges clamped.
    Linear,
}

/// Where an output coordinate lies in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeCoordinates {
    /// `x / scale`
    Asymmetric,
    /// `(x + 0.5) / scale - 0.5`
    HalfPixel,
    /// The same, and 0 where the output has one element.
    PytorchHalfPixel,
    /// `x * (in - 1) / (out - 1)`
    AlignCorners,
}

/// A resampling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResizeShape {
    /// Interpolation.
    pub mode: ResizeMode,
    /// Coordinate rule.
    pub coordinates: ResizeCoordinates,
    /// (vertical, horizontal) scale that enters the coordinates; `out / in` when sizes are given.
    pub scale: [f32; 2],
    /// Rows of the whole input.
    pub in_h: usize,
    /// Rows of the whole output.
    pub out_h: usize,
}

impl ResizeShape {
    /// The input rows that output rows `rows` are made of.
    pub fn reach(&self, rows: &Range<usize>) -> Range<usize> {
        let at = |o: usize| sample(self, 0, o, self.out_h, self.in_h);
        match rows.end.checked_sub(1) {
            // Coordinates do not fall from row to row.
            Some(last) if !rows.is_empty() => at(rows.start).low..at(last).high + 1,
            _ => 0..0,
        }
    }
}

/// Output columns whose samples are found once for all channels.
const COLUMNS: usize = 64;

/// The two inputs of an output along one axis and the weight of the second.
#[derive(Clone, Copy, Default)]
struct Sample {
    low: usize,
    high: usize,
    weight: f32,
}

fn sample(shape: &ResizeShape, axis: usize, o: usize, out_len: usize, in_len: usize) -> Sample {
    let scale = shape.scale[axis];
    let half_pixel = || (o as f32 + 0.5) / scale - 0.5;
    let x = match shape.coordinates {
        ResizeCoordinates::Asymmetric => o as f32 / scale,
        ResizeCoordinates::HalfPixel => half_pixel(),
        ResizeCoordinates::PytorchHalfPixel if out_len <= 1 => 0.0,
        ResizeCoordinates::PytorchHalfPixel => half_pixel(),
        ResizeCoordinates::AlignCorners if out_len <= 1 => 0.0,
        ResizeCoordinates::AlignCorners => o as f32 * (in_len - 1) as f32 / (out_len - 1) as f32,
    };
    let last = (in_len - 1) as f32;
    let nearest = |rounded: f32| {
        let i = rounded.clamp(0.0, last) as usize;
        Sample {
            low: i,
            high: i,
            weight: 0.0,
        }
    };
    match shape.mode {
        ResizeMode::NearestFloor => nearest(x.floor()),
        ResizeMode::NearestCeil => nearest(x.ceil()),
        ResizeMode::NearestPreferFloor => nearest((x - 0.5).ceil()),
        ResizeMode::NearestPreferCeil => nearest((x + 0.5).floor()),
        ResizeMode::Linear => {
            let x = x.clamp(0.0, last);
            let low = x as usize;
            Sample {
                low,
                high: (low + 1).min(in_len - 1),
                weight: x - low as f32,
            }
        }
    }
}

/// Output rows `rows` of every image and channel: `out.map.h == rows.len()`, `out.data` starts at
/// row `rows.start`, `input` at row `first`. The input must not be empty.
pub fn resize(
    shape: &ResizeShape,
    input: View<'_>,
    first: usize,
    rows: Range<usize>,
    out: &mut ViewMut<'_>,
) {
    let (im, om) = (input.map, out.map);
    let mut samples = [Sample::default(); COLUMNS];
    for start in (0..om.w).step_by(COLUMNS) {
        let samples = &mut samples[..COLUMNS.min(om.w - start)];
        for (ox, slot) in samples.iter_mut().enumerate() {
            *slot = sample(shape, 1, start + ox, om.w, im.w);
        }
        // Feature pyramids do nothing else: every value twice, without looking up where it is.
        let doubled = shape.mode != ResizeMode::Linear
            && (samples.iter().zip(start..)).all(|(sample, ox)| sample.low == ox / 2);
        for n in 0..om.n {
            for (i, oy) in rows.clone().enumerate() {
                let y = sample(shape, 0, oy, shape.out_h, shape.in_h);
                for c in 0..om.c {
                    let top = &input.data[im.at(n, c, y.low - first)..][..im.w];
                    let to = &mut out.data[om.at(n, c, i) + start..][..samples.len()];
                    if doubled {
                        let (pairs, last) = to.as_chunks_mut::<2>();
                        let from = &top[start / 2..];
                        for (pair, v) in pairs.iter_mut().zip(from) {
                            *pair = [*v; 2];
                        }
                        if let ([last], Some(v)) = (last, from.get(pairs.len())) {
                            *last = *v;
                        }
                        continue;
                    }
                    if shape.mode != ResizeMode::Linear {
                        for (to, x) in to.iter_mut().zip(&*samples) {
                            *to = top[x.low];
                        }
                        continue;
                    }
                    let bottom = &input.data[im.at(n, c, y.high - first)..][..im.w];
                    for (to, x) in to.iter_mut().zip(&*samples) {
                        let mix =
                            |row: &[f32]| row[x.low] * (1.0 - x.weight) + row[x.high] * x.weight;
                        *to = mix(top) * (1.0 - y.weight) + mix(bottom) * y.weight;
                    }
                }
            }
        }
    }
}
