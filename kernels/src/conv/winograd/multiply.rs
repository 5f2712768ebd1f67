//! The products of one position: 8 output channels x channels times channels x tiles, kept in
//! registers over a block of channels and then added to the sums.

use crate::conv::gemm::{eight, windows};
use crate::simd::{Isa, Simd, Work};
use crate::weights::PANEL;

/// Most channels of a block: a chain of multiply-adds. The blocks depend on the layer only.
pub(super) const BLOCK: usize = 128;

/// Most tiles that are computed with a channel per lane.
pub(super) const FEW: usize = 4;

/// One block of one position.
#[derive(Clone, Copy)]
pub(super) struct Products<'a> {
    /// `[channel][tile]`, `pitch` apart.
    pub input: &'a [f32],
    pub pitch: usize,
    /// Multiples of `pitch`: a table, like those of other kernels, keeps the inner loop's counters
    /// out of the registers.
    pub offsets: &'a [u32],
    /// Tiles that count.
    pub tiles: usize,
    /// Overwrite the sums.
    pub first: bool,
}

impl Products<'_> {
    /// One panel after the other; `weights(i)` are those of panel `i`, whose sums, `[8][tile]`,
    /// start at `i * stride`.
    pub fn run<'w>(
        self,
        isa: Isa,
        panels: usize,
        weights: impl Fn(usize) -> &'w [[f32; PANEL]],
        sums: &mut [f32],
        stride: usize,
    ) {
        if self.tiles <= FEW {
            for i in (0..panels).step_by(2) {
                let sums = &mut sums[i * stride..];
                if i + 1 < panels {
                    let weights = Few::F32([weights(i), weights(i + 1)]);
                    self.few(weights, sums, stride, isa);
                } else {
                    self.few(Few::F32([weights(i)]), sums, stride, isa);
                }
            }
            return;
        }
        let mut at = 0;
        while at < self.pitch {
            // Two groups of two keep the registers busier than three and one.
            let n = match (self.pitch - at) / 8 {
                1 => 1,
                2 | 4 => 2,
                _ => 3,
            };
            for i in 0..panels {
                let (w, sums) = (weights(i), &mut sums[i * stride..]);
                match n {
                    1 => self.many::<1, 8, 0>(w, sums, at, isa),
                    2 if isa.has_32() => self.many_wide::<2>(w, sums, at, isa),
                    3 if isa.has_32() => self.many_wide::<3>(w, sums, at, isa),
                    2 => {
                        self.many::<2, 4, 0>(w, sums, at, isa);
                        self.many::<2, 4, 4>(w, sums, at, isa);
                    }
                    _ => {
                        self.many::<3, 4, 0>(w, sums, at, isa);
                        self.many::<3, 4, 4>(w, sums, at, isa);
                    }
                }
            }
            at += n * 8;
        }
    }

    /// The same for at most 4 tiles and 16-bit weights, which are widened in registers: a buffer would
    /// cost more than the products. `weights(i)` gives the integers and the scales of panel `i`.
    pub fn run_few_16<'w>(
        self,
        isa: Isa,
        panels: usize,
        weights: impl Fn(usize) -> (&'w [[i16; PANEL]], &'w [f32; PANEL]),
        sums: &mut [f32],
        stride: usize,
    ) {
        for i in (0..panels).step_by(2) {
            let sums = &mut sums[i * stride..];
            let (q, scale) = weights(i);
            if i + 1 < panels {
                let (second, second_scale) = weights(i + 1);
                let weights = Few::I16([q, second], [scale, second_scale]);
                self.few(weights, sums, stride, isa);
            } else {
                self.few(Few::I16([q], [scale]), sums, stride, isa);
            }
        }
    }

    // One copy each for all forms of weights.
    #[inline(never)]
    fn many<const NV: usize, const MR: usize, const LANE: usize>(
        self,
        weights: &[[f32; PANEL]],
        sums: &mut [f32],
        at: usize,
        isa: Isa,
    ) {
        isa.run(TileLanes::<NV, MR, LANE> {
            products: self,
            weights,
            at,
            sums,
        });
    }

    #[inline(never)]
    fn many_wide<const NV: usize>(
        self,
        weights: &[[f32; PANEL]],
        sums: &mut [f32],
        at: usize,
        isa: Isa,
    ) {
        isa.run_wide(TileLanes::<NV, 8, 0> {
            products: self,
            weights,
            at,
            sums,
        });
    }

    #[inline(never)]
    fn few<const P: usize>(self, weights: Few<'_, P>, sums: &mut [f32], stride: usize, isa: Isa) {
        isa.run(ChannelLanes::<P> {
            products: self,
            weights,
            sums,
            stride,
        });
    }
}

/// A tile per lane: `MR` channels from `LANE` on times `NV` vectors of tiles from `at` on.
struct TileLanes<'a, const NV: usize, const MR: usize, const LANE: usize> {
    products: Products<'a>,
    weights: &'a [[f32; PANEL]],
    at: usize,
    sums: &'a mut [f32],
}

impl<const NV: usize, const MR: usize, const LANE: usize> Work for TileLanes<'_, NV, MR, LANE> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if NV * MR > S::REGISTERS * 3 / 4 {
            return;
        }
        let Products {
            input,
            pitch,
            first,
            ..
        } = self.products;
        let mut acc = [[simd.splat(0.0); NV]; MR];
        let mut bases = [0; NV];
        for j in 0..NV {
            bases[j] = self.at + j * 8;
        }
        let columns = windows(input, bases);
        for (w, &offset) in self.weights.iter().zip(self.products.offsets) {
            let mut v = [simd.splat(0.0); NV];
            for j in 0..NV {
                v[j] = simd.load(eight(columns[j], offset as usize));
            }
            for i in 0..MR {
                let w = simd.splat(w[LANE + i]);
                for j in 0..NV {
                    acc[i][j] = simd.mul_add(w, v[j], acc[i][j]);
                }
            }
        }
        for i in 0..MR {
            let to = &mut self.sums[(LANE + i) * pitch + self.at..][..NV * 8];
            for (v, to) in acc[i].into_iter().zip(to.as_chunks_mut().0) {
                let v = if first { v } else { simd.add(simd.load(to), v) };
                simd.store(v, to);
            }
        }
    }
}

/// Weights of `P` panels.
enum Few<'a, const P: usize> {
    F32([&'a [[f32; PANEL]]; P]),
    I16([&'a [[i16; PANEL]]; P], [&'a [f32; PANEL]; P]),
}

/// A channel per lane: `P` panels times 4 tiles.
struct ChannelLanes<'a, const P: usize> {
    products: Products<'a>,
    weights: Few<'a, P>,
    sums: &'a mut [f32],
    stride: usize,
}

impl<const P: usize> Work for ChannelLanes<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Products { pitch, first, .. } = self.products;
        let acc = match self.weights {
            Few::F32(weights) => chains(simd, &self.products, weights, |_, w| simd.load(w)),
            Few::I16(weights, scales) => {
                let mut scale = [simd.splat(0.0); P];
                for i in 0..P {
                    scale[i] = simd.load(scales[i]);
                }
                let widen = |i: usize, w: &[i16; 8]| simd.mul(simd.widen_i16(w), scale[i]);
                chains(simd, &self.products, weights, widen)
            }
        };
        for (i, acc) in acc.into_iter().enumerate() {
            let mut rows = [simd.splat(0.0); 8];
            rows[..4].copy_from_slice(&acc);
            for (lane, v) in simd.transpose(rows).into_iter().enumerate() {
                let to = &mut self.sums[i * self.stride + lane * pitch..][..8];
                let to = &mut to.as_chunks_mut().0[0];
                let v = if first { v } else { simd.add(simd.load(to), v) };
                simd.store(v, to);
            }
        }
    }
}

/// The sums of `P` panels times 4 tiles; `widen` makes panel `i`'s next weights of what is stored.
#[inline(always)]
fn chains<S: Simd, T, const P: usize>(
    simd: S,
    products: &Products<'_>,
    weights: [&[[T; PANEL]]; P],
    widen: impl Fn(usize, &[T; PANEL]) -> S::V,
) -> [[S::V; 4]; P] {
    let len = weights[0].len();
    let mut rows = weights;
    for row in &mut rows {
        *row = &row[..len];
    }
    let mut acc = [[simd.splat(0.0); 4]; P];
    let offsets = &products.offsets[..len];
    for k in 0..len {
        let x = &products.input[offsets[k] as usize..][..4];
        let mut w = [simd.splat(0.0); P];
        for i in 0..P {
            w[i] = widen(i, &rows[i][k]);
        }
        for j in 0..4 {
            let x = simd.splat(x[j]);
            for i in 0..P {
                acc[i][j] = simd.mul_add(w[i], x, acc[i][j]);
            }
        }
    }
    acc
}
