//! Bytes of images to f32: what makes a network's input of a photograph's rows.

use crate::simd::{Isa, Simd, Work};

/// `sums[i] += weight * values[i]`, as far as both reach.
pub fn add_weighted(isa: Isa, weight: f32, values: &[u8], sums: &mut [f32]) {
    isa.run(AddWeighted {
        weight,
        values,
        sums,
    });
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

struct AddWeighted<'a> {
    weight: f32,
    values: &'a [u8],
    sums: &'a mut [f32],
}

impl Work for AddWeighted<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let len = self.values.len().min(self.sums.len());
        let (values, rest) = self.values[..len].as_chunks();
        let (sums, rest_sums) = self.sums[..len].as_chunks_mut();
        let weight = simd.splat(self.weight);
        for (sum, value) in sums.iter_mut().zip(values) {
            let more = simd.mul_add(weight, simd.widen_u8(value), simd.load(sum));
            simd.store(more, sum);
        }
        for (sum, value) in rest_sums.iter_mut().zip(rest) {
            *sum += self.weight * f32::from(*value);
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
