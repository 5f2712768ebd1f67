//! Alignment: the similarity transform that brings landmarks to a template, and the crop it gives.
//!
//! The transform minimises the sum of squared distances, weighted where the file says so, over rotation, uniform scale and
//! translation (S. Umeyama, Least-squares estimation of transformation parameters between two point patterns, 1991). In the
//! plane, with points as complex numbers, the minimum has a closed form: w = a z + b with a = sum conj(z) w / sum |z|^2 over centred points, which
//! also is Umeyama's solution (a reflection cannot be expressed). The crop samples the image bilinearly at the transform's
//! inverse, black outside, and rounds to 8 bits; nothing but the crop is held. It does not average: a face much larger than the crop
//! is sampled with gaps, as by the programs that made the templates.

use crate::error::{Error, Result};
use crate::image::Image;
pub use dcz_format::pipeline::{Align, LANDMARKS};

/// Left eye, right eye, nose, left and right corner of the mouth, as seen in the image; x and y in pixels, the centre of the
/// first pixel being (0, 0).
pub type Landmarks = [[f32; 2]; LANDMARKS];

/// The template of ArcFace and its relatives (SFace among them), for crops of 112 x 112.
pub fn arcface112() -> Align {
    Align {
        size: [112, 112],
        template: [
            [38.2946, 51.6963],
            [73.5318, 51.5014],
            [56.0252, 71.7366],
            [41.5493, 92.3655],
            [70.7299, 92.2041],
        ],
        weights: [1.0; LANDMARKS],
    }
}

/// dlib's face chip of 150 x 150 with padding 0.25, for YuNet's landmarks: their mean position in the chips that dlib 20 cuts
/// with its own detector and five-point predictor, over 1,535 photographs (`docs/figures.md`). dlib aligns by the corners of the
/// eyes and the base of the nose, which YuNet does not find, so that a single chip differs from dlib's by a few pixels; landmarks
/// that tell less about those points count less.
pub fn dlib150() -> Align {
    Align {
        size: [150, 150],
        template: [
            [47.207, 45.591],
            [102.878, 45.701],
            [74.663, 77.464],
            [51.181, 102.036],
            [98.853, 102.751],
        ],
        weights: [1.0, 1.0, 0.5, 0.3, 0.3],
    }
}

/// `(x, y) -> (a x - b y + tx, b x + a y + ty)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    /// Scale times cosine of the angle.
    pub a: f64,
    /// Scale times sine of the angle.
    pub b: f64,
    /// Translation.
    pub t: [f64; 2],
}

impl Similarity {
    /// The best transform from `from` to `to`, the squared distances of their points multiplied by `weights`.
    ///
    /// Errors: [`Error::Landmarks`] when the points of one side coincide or are not finite.
    pub fn fit(from: &Landmarks, to: &Landmarks, weights: &[f32; LANDMARKS]) -> Result<Similarity> {
        let all: f64 = weights.iter().copied().map(f64::from).sum();
        let mean = |points: &Landmarks, axis: usize| {
            let parts = points.iter().zip(weights);
            parts
                .map(|(p, w)| f64::from(p[axis]) * f64::from(*w))
                .sum::<f64>()
                / all
        };
        let [fx, fy] = [mean(from, 0), mean(from, 1)];
        let [tx, ty] = [mean(to, 0), mean(to, 1)];
        let (mut re, mut im, mut size) = (0.0, 0.0, 0.0);
        for ((f, t), weight) in from.iter().zip(to).zip(weights) {
            let weight = f64::from(*weight);
            let (x, y) = (f64::from(f[0]) - fx, f64::from(f[1]) - fy);
            let (u, v) = (f64::from(t[0]) - tx, f64::from(t[1]) - ty);
            re += weight * (x * u + y * v);
            im += weight * (x * v - y * u);
            size += weight * (x * x + y * y);
        }
        let (a, b) = (re / size, im / size);
        let found = Similarity {
            a,
            b,
            t: [tx - (a * fx - b * fy), ty - (b * fx + a * fy)],
        };
        let values = [found.a, found.b, found.t[0], found.t[1]];
        if values.iter().all(|v| v.is_finite()) && found.a.hypot(found.b) > 1e-9 {
            Ok(found)
        } else {
            Err(Error::Landmarks)
        }
    }

    /// Where a point goes.
    pub fn apply(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let Similarity { a, b, t } = *self;
        [a * x - b * y + t[0], b * x + a * y + t[1]]
    }

    /// The way back. The scale is not zero ([`Similarity::fit`] sees to it).
    pub fn inverse(&self) -> Similarity {
        let Similarity { a, b, t } = *self;
        let square = a * a + b * b;
        let (a, b) = (a / square, -b / square);
        Similarity {
            a,
            b,
            t: [-(a * t[0] - b * t[1]), -(b * t[0] + a * t[1])],
        }
    }
}

/// The crop of a face: `width * height` RGB triples.
pub fn crop(
    image: &Image<'_>,
    landmarks: &Landmarks,
    align: &Align,
    out: &mut Vec<u8>,
) -> Result<()> {
    let back = Similarity::fit(landmarks, &align.template, &align.weights)?.inverse();
    let [width, height] = align.size;
    out.clear();
    out.resize(width as usize * height as usize * 3, 0);
    // Of a point from here on, and less than this, all four neighbours are pixels.
    let [right, bottom] = image.size().map(|v| f64::from(v) - 1.0);
    let rows = out
        .as_chunks_mut::<3>()
        .0
        .chunks_exact_mut(width.max(1) as usize);
    for (y, row) in rows.enumerate() {
        for (x, pixel) in row.iter_mut().enumerate() {
            let at = back.apply([x as f64, y as f64]);
            let inside = at[0] >= 0.0 && at[1] >= 0.0 && at[0] < right && at[1] < bottom;
            *pixel = match inside.then(|| within(image, at)).flatten() {
                Some(rgb) => rgb,
                None => sample(image, at),
            };
        }
    }
    Ok(())
}

/// [`sample`] where all four neighbours are pixels of the image: there, cutting off is rounding down.
#[inline]
fn within(image: &Image<'_>, [x, y]: [f64; 2]) -> Option<[u8; 3]> {
    let (left, top) = (x as i64, y as i64);
    let (fx, fy) = ((x - left as f64) as f32, (y - top as f64) as f32);
    let (above, below) = image.neighbours(left as usize, top as usize)?;
    Some(mix(
        [
            pair(above, 0),
            pair(above, 3),
            pair(below, 0),
            pair(below, 3),
        ],
        [fx, fy],
    ))
}

#[inline]
fn pair(row: &[u8; 6], from: usize) -> [f32; 3] {
    [row[from], row[from + 1], row[from + 2]].map(f32::from)
}

/// Bilinear, black outside, rounded.
fn sample(image: &Image<'_>, [x, y]: [f64; 2]) -> [u8; 3] {
    let (left, top) = (x.floor(), y.floor());
    let (fx, fy) = ((x - left) as f32, (y - top) as f32);
    // Far outside saturates, and is outside all the same.
    let (left, top) = (left as i64, top as i64);
    let corner = |dx: i64, dy: i64| {
        image
            .pixel(left.saturating_add(dx), top.saturating_add(dy))
            .map(f32::from)
    };
    let corners = [corner(0, 0), corner(1, 0), corner(0, 1), corner(1, 1)];
    mix(corners, [fx, fy])
}

/// Between four pixels: upper left, upper right, lower left, lower right.
#[inline]
fn mix([a, b, c, d]: [[f32; 3]; 4], [fx, fy]: [f32; 2]) -> [u8; 3] {
    std::array::from_fn(|i| {
        let upper = a[i] + (b[i] - a[i]) * fx;
        let lower = c[i] + (d[i] - c[i]) * fx;
        (upper + (lower - upper) * fy + 0.5) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(points: &Landmarks, by: &Similarity) -> Landmarks {
        points.map(|[x, y]| by.apply([x.into(), y.into()]).map(|v| v as f32))
    }

    #[test]
    fn exact_transforms_are_found() {
        let template = arcface112().template;
        for (angle, scale, t) in [
            (0.0, 1.0, [0.0, 0.0]),
            (0.7, 2.5, [30.0, -4.0]),
            (3.0, 0.1, [9.0, 800.0]),
        ] {
            let truth = Similarity {
                a: f64::cos(angle) * scale,
                b: f64::sin(angle) * scale,
                t,
            };
            let found =
                Similarity::fit(&template, &moved(&template, &truth), &dlib150().weights).unwrap();
            assert!((found.a - truth.a).abs() < 1e-5 && (found.b - truth.b).abs() < 1e-5);
            let there = found.apply([12.0, 34.0]);
            let [x, y] = found.inverse().apply(there);
            assert!((x - 12.0).abs() < 1e-9 && (y - 34.0).abs() < 1e-9);
        }
    }

    #[test]
    fn the_fit_is_the_minimum() {
        let from = [
            [98.67, 114.76],
            [148.97, 115.2],
            [117.03, 137.4],
            [101.27, 161.55],
            [145.21, 161.86],
        ];
        let to = arcface112().template;
        for weights in [arcface112().weights, dlib150().weights] {
            minimum(&from, &to, &weights);
        }
        // A landmark that does not count may lie anywhere.
        let weights = [1.0, 1.0, 0.0, 1.0, 1.0];
        let mut other = from;
        other[2] = [900.0, -5.0];
        assert_eq!(
            Similarity::fit(&from, &to, &weights).unwrap(),
            Similarity::fit(&other, &to, &weights).unwrap()
        );
        // A mirrored face cannot be turned into the template, but has a best transform.
        let mut mirrored = from;
        mirrored.iter_mut().for_each(|p| p[0] = -p[0]);
        assert!(Similarity::fit(&mirrored, &to, &[1.0; 5]).is_ok());
    }

    fn minimum(from: &Landmarks, to: &Landmarks, weights: &[f32; LANDMARKS]) {
        let cost = |s: &Similarity| -> f64 {
            let distance = |((f, t), weight): ((&[f32; 2], &[f32; 2]), &f32)| {
                let [x, y] = s.apply(f.map(f64::from));
                let square = (x - f64::from(t[0])).powi(2) + (y - f64::from(t[1])).powi(2);
                square * f64::from(*weight)
            };
            from.iter().zip(to).zip(weights).map(distance).sum()
        };
        let best = Similarity::fit(from, to, weights).unwrap();
        for (da, db, dx, dy) in [
            (1e-3, 0.0, 0.0, 0.0),
            (0.0, 1e-3, 0.0, 0.0),
            (0.0, 0.0, 0.05, 0.0),
            (0.0, 0.0, 0.0, 0.05),
        ] {
            for sign in [-1.0, 1.0] {
                let other = Similarity {
                    a: best.a + sign * da,
                    b: best.b + sign * db,
                    t: [best.t[0] + sign * dx, best.t[1] + sign * dy],
                };
                assert!(cost(&other) > cost(&best));
            }
        }
    }

    #[test]
    fn useless_landmarks_are_errors() {
        let to = arcface112().template;
        for bad in [[[5.0; 2]; 5], [[f32::NAN; 2]; 5], [[f32::INFINITY; 2]; 5]] {
            assert!(matches!(
                Similarity::fit(&bad, &to, &[1.0; 5]),
                Err(Error::Landmarks)
            ));
        }
    }

    #[test]
    fn crops() {
        let bytes: Vec<u8> = (0..20u8 * 10)
            .flat_map(|i| [i % 20 * 10, i / 20 * 20, 7])
            .collect();
        let image = Image::new(20, 10, &bytes).unwrap();
        let points: Landmarks = [[1.0, 1.0], [5.0, 1.0], [3.0, 3.0], [2.0, 5.0], [4.0, 5.0]];
        let align = |dx: f32, dy: f32| Align {
            size: [6, 4],
            template: points.map(|[x, y]| [x - dx, y - dy]),
            weights: [1.0; LANDMARKS],
        };
        let mut out = Vec::new();
        crop(&image, &points, &align(2.0, 1.0), &mut out).unwrap();
        assert_eq!(out.len(), 6 * 4 * 3);
        for (i, rgb) in out.chunks(3).enumerate() {
            assert_eq!(rgb, [(i % 6 + 2) as u8 * 10, (i / 6 + 1) as u8 * 20, 7]);
        }
        // Halfway between pixels, and black outside.
        crop(&image, &points, &align(2.5, 0.0), &mut out).unwrap();
        assert_eq!(out[..3], [25, 0, 7]);
        crop(&image, &points, &align(-3.0, -2.0), &mut out).unwrap();
        assert_eq!(out[..3], [0, 0, 0]);
        assert_eq!(out[(2 * 6 + 3) * 3..][..3], [0, 0, 7]);
    }

    #[test]
    fn both_ways_to_sample_agree() {
        let bytes: Vec<u8> = (0..23u32 * 17 * 3)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let image = Image::with_stride(20, 17, 23 * 3, &bytes).unwrap();
        for i in 0..400 {
            let at = [
                f64::from(i) * 0.047_31,
                f64::from(i * 37 % 400) * 0.039_9 + 1e-7,
            ];
            assert_eq!(within(&image, at), Some(sample(&image, at)), "{at:?}");
        }
        assert_eq!(within(&image, [19.0, 3.0]), None);
        assert_eq!(within(&image, [3.0, 16.0]), None);
    }
}
