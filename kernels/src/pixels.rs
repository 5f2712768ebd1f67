//! Bytes of images to f32: what makes a network's input of a photograph's rows.

use crate::simd::{Isa, Simd, Work};

/// `sums[i]` = the sum of `weights[r] * rows[r * stride + i]` over r, in this order. `rows` begins with the first value of the
/// first row and holds every value that is asked for; what it does not hold counts as zero.
pub fn sum_rows(isa: Isa, weights: &[f32], rows: &[u8], stride: usize, sums: &mut [f32]) {
    isa.run(SumRows {
        weights,
        rows,
        stride,
        sums,
    });
}

/// Added to a sum before it is rounded, so that halves go up even where inexact weights leave a little less than a half.
const UP: f32 = 1.0 / 1024.0;
/// From here on all f32 are whole numbers.
const WHOLE: f32 = 8_388_608.0;

/// A value of 0 to 255, not whole, as images of 8 bits have it: the nearest whole number, halves up.
pub fn rounded(value: f32) -> f32 {
    (value + UP + WHOLE) - WHOLE
}

/// Weighted sums of neighbouring RGB pixels, [`rounded`], less a mean and times a scale, one plane per channel: pixel `j` of plane
/// `c` of `out` is `(sum - mean[c]) * scale[c]` with the sum of `weights[j * n + t] * values[3 * (from[j] - first + t) + c]` over t
/// below n, the same number for all pixels. A pixel's weights may end with zeros for values that are no part of it.
///
/// # Panics
/// When `values` ends less than five values behind the last pixel, or a plane is shorter than `from`.
#[derive(Clone, Copy, Debug)]
pub struct SumColumns<'a> {
    /// First pixel of each sum.
    pub from: &'a [u32],
    /// The pixel that `values` begins with.
    pub first: u32,
    /// The same number for each sum.
    pub weights: &'a [f32],
    /// Red, green, blue, red, ...
    pub values: &'a [f32],
    /// Per channel.
    pub mean: [f32; 3],
    /// Per channel.
    pub scale: [f32; 3],
}

impl SumColumns<'_> {
    /// Writes the sums, as the planes of red, green and blue.
    pub fn run(self, isa: Isa, out: [&mut [f32]; 3]) {
        isa.run(Columns(self, out));
    }
}

/// `out[i] = (rgb[3 * i + channel] - mean) * scale`, as far as both reach. `channel` is 0, 1 or 2.
pub fn planar(isa: Isa, rgb: &[u8], channel: usize, mean: f32, scale: f32, out: &mut [f32]) {
    isa.run(Planar {
        rgb,
        channel: channel.min(2),
        mean,
        scale,
        out,
    });
}

struct SumRows<'a> {
    weights: &'a [f32],
    rows: &'a [u8],
    stride: usize,
    sums: &'a mut [f32],
}

/// Rows that are added in one pass over the sums.
const ROWS: usize = 3;

impl Work for SumRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let SumRows {
            weights,
            rows,
            stride,
            sums,
        } = self;
        sums.fill(0.0);
        for (pass, weights) in weights.chunks(ROWS).enumerate() {
            // Fewer rows: the rest of them count nothing.
            let mut of = [0.0; ROWS];
            of[..weights.len()].copy_from_slice(weights);
            let first = rows.get(pass * ROWS * stride..).unwrap_or(&[]);
            let row = |r: usize| match r < weights.len() {
                true => first.get(r * stride..).unwrap_or(&[]),
                false => first,
            };
            add_rows(simd, of, [row(0), row(1), row(2)], sums);
        }
    }
}

#[inline(always)]
fn add_rows<S: Simd>(simd: S, weights: [f32; ROWS], rows: [&[u8]; ROWS], sums: &mut [f32]) {
    let w = weights.map(|weight| simd.splat(weight));
    let add = |[a, b, c]: [&[u8; 8]; ROWS], sums: &mut [f32; 8]| {
        let mut sum = simd.load(sums);
        sum = simd.mul_add(w[0], simd.widen_u8(a), sum);
        sum = simd.mul_add(w[1], simd.widen_u8(b), sum);
        sum = simd.mul_add(w[2], simd.widen_u8(c), sum);
        simd.store(sum, sums);
    };
    let vectors = |row: &[u8]| row.len() / 8;
    let whole = rows.into_iter().map(vectors).min().unwrap_or(0);
    let whole = whole.min(sums.len() / 8);
    let (vectors, rest) = sums.split_at_mut(whole * 8);
    let [a, b, c] = rows.map(|row| &row.as_chunks().0[..whole]);
    for (((sums, a), b), c) in vectors.as_chunks_mut().0.iter_mut().zip(a).zip(b).zip(c) {
        add([a, b, c], sums);
    }
    // The same operations, so that a value does not depend on where it lies.
    for (i, rest) in rest.chunks_mut(8).enumerate() {
        let values = rows.map(|row| {
            let mut values = [0; 8];
            let row = row.get((whole + i) * 8..).unwrap_or(&[]);
            values
                .iter_mut()
                .zip(row)
                .for_each(|(to, from)| *to = *from);
            values
        });
        let mut sums = [0.0; 8];
        sums[..rest.len()].copy_from_slice(rest);
        add(values.each_ref(), &mut sums);
        rest.copy_from_slice(&sums[..rest.len()]);
    }
}

struct Columns<'a, 'b>(SumColumns<'a>, [&'b mut [f32]; 3]);

impl Work for Columns<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Columns(columns, mut out) = self;
        let SumColumns {
            from,
            first,
            weights,
            values,
            mean,
            scale,
        } = columns;
        let taps = weights.len() / from.len().max(1);
        for (group, from) in from.chunks(8).enumerate() {
            // Eight values are loaded for each pixel, of which three count. Missing pixels are like the last one.
            let mut lines = [&[][..]; 8];
            let mut own = [&[][..]; 8];
            for j in 0..8 {
                let pixel = j.min(from.len() - 1);
                let at = 3 * (from[pixel] - first) as usize;
                lines[j] = &values[at..][..3 * taps + 5];
                own[j] = &weights[(8 * group + pixel) * taps..][..taps];
            }
            let mut sums = [simd.splat(UP); 8];
            for t in 0..taps {
                for j in 0..8 {
                    let values = &lines[j][3 * t..3 * t + 8].as_chunks().0[0];
                    sums[j] = simd.mul_add(simd.splat(own[j][t]), simd.load(values), sums[j]);
                }
            }
            let planes = simd.transpose(sums);
            for (c, out) in out.iter_mut().enumerate() {
                let whole = simd.splat(WHOLE);
                let v = simd.sub(simd.add(planes[c], whole), whole);
                let v = simd.sub(v, simd.splat(mean[c]));
                let v = simd.mul(v, simd.splat(scale[c]));
                let out = &mut out[8 * group..][..from.len()];
                match out.first_chunk_mut::<8>() {
                    Some(out) => simd.store(v, out),
                    None => {
                        let mut short = [0.0; 8];
                        simd.store(v, &mut short);
                        out.copy_from_slice(&short[..out.len()]);
                    }
                }
            }
        }
    }
}

struct Planar<'a> {
    rgb: &'a [u8],
    channel: usize,
    mean: f32,
    scale: f32,
    out: &'a mut [f32],
}

impl Work for Planar<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let len = (self.rgb.len() / 3).min(self.out.len());
        let (pixels, rest) = self.rgb[..3 * len].as_chunks();
        let (out, rest_out) = self.out[..len].as_chunks_mut();
        let (mean, scale) = (simd.splat(self.mean), simd.splat(self.scale));
        for (out, rgb) in out.iter_mut().zip(pixels) {
            let value = simd.widen_third(rgb, self.channel);
            simd.store(simd.mul(simd.sub(value, mean), scale), out);
        }
        for (out, rgb) in rest_out.iter_mut().zip(rest.as_chunks::<3>().0) {
            *out = (f32::from(rgb[self.channel]) - self.mean) * self.scale;
        }
    }
}
