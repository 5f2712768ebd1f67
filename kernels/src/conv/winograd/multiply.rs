//! The products of one position: 8 output channels x channels times channels x tiles, kept in
//! registers over a block of channels and then added to the sums.
//!
//! A tile per lane: 4 channels x 3 vectors of 8 tiles, with vectors of 16 ([`Isa::run_long`]) 8 x 3, where 48 tiles are one
//! register tile; 16 tiles alone are multiplied with two panels, or there are too few chains. Few tiles: a channel per lane, 2
//! panels x 4 tiles, or pairs of panels joined in vectors of 16 (4 panels x 4 tiles, 2 x 8; 2 x 16 with 16-bit weights), which also take the last half
//! vector of a strip. Each weight is then read for few products: memory is the limit, 16-bit weights win.

use crate::conv::gemm::{eight, windows};
use crate::simd::{Isa, Long, LongWork, Simd, Work};
use crate::weights::PANEL;

/// Most channels of a block: a chain of multiply-adds. The blocks depend on the layer only.
pub(super) const BLOCK: usize = 128;

/// Most tiles for which 16-bit weights are widened in registers, with a channel per lane.
pub(super) fn few(isa: Isa) -> usize {
    if isa.has_long() { 16 } else { FEW }
}

/// The same in vectors of 8.
const FEW: usize = 4;

/// Weights of a panel.
#[derive(Clone, Copy)]
pub(super) enum Panel<'a> {
    F32(&'a [[f32; PANEL]]),
    /// Integers and their scales.
    I16(&'a [[i16; PANEL]], &'a [f32; PANEL]),
}

impl<'a> Panel<'a> {
    fn f32(self) -> &'a [[f32; PANEL]] {
        match self {
            Panel::F32(weights) => weights,
            Panel::I16(..) => &[],
        }
    }

    fn i16(self) -> &'a [[i16; PANEL]] {
        match self {
            Panel::F32(_) => &[],
            Panel::I16(q, _) => q,
        }
    }

    fn scale(self) -> &'a [f32; PANEL] {
        match self {
            Panel::F32(_) => &[1.0; PANEL],
            Panel::I16(_, scale) => scale,
        }
    }
}

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
    /// One panel after the other; the sums of panel `i`, `[8][tile]`, start at `i * stride`. 16-bit weights for at most
    /// [`few`] tiles only.
    pub fn run(self, isa: Isa, panels: &[Panel<'_>], sums: &mut [f32], stride: usize) {
        if isa.has_long() {
            self.run_long(isa, panels, sums, stride);
            return;
        }
        if self.tiles <= FEW {
            for (i, pair) in panels.chunks(2).enumerate() {
                let sums = &mut sums[2 * i * stride..];
                match *pair {
                    [first, second] => self.few([first, second], sums, stride, isa),
                    _ => self.few([pair[0]], sums, stride, isa),
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
            for (i, panel) in panels.iter().enumerate() {
                let (w, sums) = (panel.f32(), &mut sums[i * stride..]);
                match n {
                    1 => self.many::<1, 8, 0>(w, sums, at, isa),
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

    /// Vectors of 16 tiles; what is left of them, at most 8 tiles, with a channel per lane.
    fn run_long(self, isa: Isa, panels: &[Panel<'_>], sums: &mut [f32], stride: usize) {
        let mut at = 0;
        // 16-bit weights have no vectors of tiles.
        while at + 16 <= self.pitch && matches!(panels, [Panel::F32(_), ..]) {
            let n = match (self.pitch - at) / 16 {
                1 => 1,
                2 | 4 => 2,
                _ => 3,
            };
            let mut i = 0;
            while i < panels.len() {
                let (w, sums) = (panels[i].f32(), &mut sums[i * stride..]);
                i += 1;
                match (n, panels.get(i)) {
                    // Two panels, or there are too few chains.
                    (1, Some(next)) => {
                        self.long::<1, 2>([w, next.f32()], sums, stride, at, isa);
                        i += 1;
                    }
                    (1, None) => self.long::<1, 1>([w], sums, stride, at, isa),
                    (2, _) => self.long::<2, 1>([w], sums, stride, at, isa),
                    _ => self.long::<3, 1>([w], sums, stride, at, isa),
                }
            }
            at += n * 16;
        }
        if at >= self.pitch {
            return;
        }
        let mut i = 0;
        while i < panels.len() {
            // What there is not of a pair is computed twice.
            let pair = |i: usize| [panels[i], panels[(i + 1).min(panels.len() - 1)]];
            let part = &mut sums[i * stride..];
            if self.tiles - at <= 4 && i + 2 < panels.len() {
                let (weights, count) = ([pair(i), pair(i + 2)], panels.len().min(i + 4) - i);
                self.pairs::<2, 4>(weights, count, part, stride, at, isa);
                i += 4;
            } else {
                let (weights, count) = ([pair(i)], panels.len().min(i + 2) - i);
                if self.tiles - at <= 8 {
                    self.pairs::<1, 8>(weights, count, part, stride, at, isa);
                } else {
                    self.pairs::<1, 16>(weights, count, part, stride, at, isa);
                }
                i += 2;
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
    fn long<const NV: usize, const P: usize>(
        self,
        weights: [&[[f32; PANEL]]; P],
        sums: &mut [f32],
        stride: usize,
        at: usize,
        isa: Isa,
    ) {
        isa.run_long(LongTileLanes::<NV, P> {
            products: self,
            weights,
            sums,
            stride,
            at,
        });
    }

    #[inline(never)]
    fn few<const P: usize>(
        self,
        weights: [Panel<'_>; P],
        sums: &mut [f32],
        stride: usize,
        isa: Isa,
    ) {
        isa.run(ChannelLanes::<P> {
            products: self,
            weights,
            sums,
            stride,
        });
    }

    #[inline(never)]
    fn pairs<const Q: usize, const T: usize>(
        self,
        weights: [[Panel<'_>; 2]; Q],
        count: usize,
        sums: &mut [f32],
        stride: usize,
        at: usize,
        isa: Isa,
    ) {
        isa.run_long(LongChannelLanes::<Q, T> {
            products: self,
            weights,
            count,
            sums,
            stride,
            at,
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

/// The same for `P` panels in vectors of 16.
struct LongTileLanes<'a, const NV: usize, const P: usize> {
    products: Products<'a>,
    weights: [&'a [[f32; PANEL]]; P],
    sums: &'a mut [f32],
    stride: usize,
    at: usize,
}

impl<const NV: usize, const P: usize> LongWork for LongTileLanes<'_, NV, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Long>(self, simd: S) {
        let Products {
            input,
            pitch,
            first,
            offsets,
            ..
        } = self.products;
        let mut acc = [[[simd.splat16(0.0); NV]; PANEL]; P];
        let mut bases = [0; NV];
        for j in 0..NV {
            bases[j] = self.at + j * 16;
        }
        let columns = windows(input, bases);
        let len = self.weights[0].len();
        let mut weights = self.weights;
        for rows in &mut weights {
            *rows = &rows[..len];
        }
        for (k, &offset) in offsets[..len].iter().enumerate() {
            let mut v = [simd.splat16(0.0); NV];
            for j in 0..NV {
                let from = &columns[j][offset as usize..offset as usize + 16];
                v[j] = simd.load16(&from.as_chunks().0[0]);
            }
            for p in 0..P {
                for i in 0..PANEL {
                    let w = simd.splat16(weights[p][k][i]);
                    for j in 0..NV {
                        acc[p][i][j] = simd.mul_add16(w, v[j], acc[p][i][j]);
                    }
                }
            }
        }
        for p in 0..P {
            for i in 0..PANEL {
                let to = p * self.stride + i * pitch + self.at;
                let to = &mut self.sums[to..][..NV * 16];
                for (v, to) in acc[p][i].into_iter().zip(to.as_chunks_mut().0) {
                    let v = if first {
                        v
                    } else {
                        simd.add16(simd.load16(to), v)
                    };
                    simd.store16(v, to);
                }
            }
        }
    }
}

/// A channel per lane: `P` panels times 4 tiles.
struct ChannelLanes<'a, const P: usize> {
    products: Products<'a>,
    weights: [Panel<'a>; P],
    sums: &'a mut [f32],
    stride: usize,
}

impl<const P: usize> Work for ChannelLanes<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Products { pitch, first, .. } = self.products;
        let acc = match self.weights[0] {
            Panel::F32(_) => {
                let weights = self.weights.map(Panel::f32);
                chains(simd, &self.products, weights, |_, w| simd.load(w))
            }
            Panel::I16(..) => {
                let mut scale = [simd.splat(0.0); P];
                for i in 0..P {
                    scale[i] = simd.load(self.weights[i].scale());
                }
                let widen = |i: usize, w: &[i16; 8]| simd.mul(simd.widen_i16(w), scale[i]);
                chains(simd, &self.products, self.weights.map(Panel::i16), widen)
            }
        };
        for (i, acc) in acc.into_iter().enumerate() {
            let mut rows = [simd.splat(0.0); 8];
            rows[..4].copy_from_slice(&acc);
            add_rows(simd, rows, first, pitch, &mut self.sums[i * self.stride..]);
        }
    }
}

/// Sums of 8 tiles, a channel per lane, to the sums of a panel.
#[inline(always)]
fn add_rows<S: Simd>(simd: S, rows: [S::V; 8], first: bool, pitch: usize, sums: &mut [f32]) {
    for (lane, v) in simd.transpose(rows).into_iter().enumerate() {
        let to = &mut sums[lane * pitch..][..8];
        let to = &mut to.as_chunks_mut().0[0];
        let v = if first { v } else { simd.add(simd.load(to), v) };
        simd.store(v, to);
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

/// The same in vectors of 16: `Q` pairs of panels, of which `count` panels count, times `T` tiles from `at` on.
struct LongChannelLanes<'a, const Q: usize, const T: usize> {
    products: Products<'a>,
    weights: [[Panel<'a>; 2]; Q],
    count: usize,
    sums: &'a mut [f32],
    stride: usize,
    at: usize,
}

impl<const Q: usize, const T: usize> LongWork for LongChannelLanes<'_, Q, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Long>(self, simd: S) {
        let Products { pitch, first, .. } = self.products;
        let (products, at) = (&self.products, self.at);
        let acc: [[_; T]; Q] = match self.weights[0][0] {
            Panel::F32(_) => {
                let mut weights = [[&[] as &[_]; 2]; Q];
                for q in 0..Q {
                    weights[q] = [self.weights[q][0].f32(), self.weights[q][1].f32()];
                }
                long_chains(simd, products, at, weights, |_, low, high| {
                    simd.join(simd.load(low), simd.load(high))
                })
            }
            Panel::I16(..) => {
                let mut scale = [simd.splat16(0.0); Q];
                let mut weights = [[&[] as &[_]; 2]; Q];
                for q in 0..Q {
                    let [low, high] = self.weights[q];
                    scale[q] = simd.join(simd.load(low.scale()), simd.load(high.scale()));
                    weights[q] = [low.i16(), high.i16()];
                }
                long_chains(simd, products, at, weights, |q, low, high| {
                    simd.mul16(simd.widen_i16_two(low, high), scale[q])
                })
            }
        };
        for q in 0..Q {
            let mut rows = [[[simd.splat(0.0); 8]; 2]; 2];
            for tile in 0..T {
                let [low, high] = simd.split(acc[q][tile]);
                let group = &mut rows[tile / 8];
                (group[0][tile % 8], group[1][tile % 8]) = (low, high);
            }
            for group in 0..T.div_ceil(8) {
                for half in 0..2 {
                    let panel = 2 * q + half;
                    if panel < self.count {
                        let sums = &mut self.sums[panel * self.stride + at + 8 * group..];
                        add_rows(simd, rows[group][half], first, pitch, sums);
                    }
                }
            }
        }
    }
}

/// As [`chains`]; `widen` makes pair `q`'s next weights.
#[inline(always)]
fn long_chains<S: Long, W, const Q: usize, const T: usize>(
    simd: S,
    products: &Products<'_>,
    at: usize,
    weights: [[&[[W; PANEL]]; 2]; Q],
    widen: impl Fn(usize, &[W; PANEL], &[W; PANEL]) -> S::L,
) -> [[S::L; T]; Q] {
    let len = weights[0][0].len();
    let mut rows = weights;
    for pair in &mut rows {
        *pair = [&pair[0][..len], &pair[1][..len]];
    }
    let mut acc = [[simd.splat16(0.0); T]; Q];
    let input = &products.input[at..];
    for (k, &offset) in products.offsets[..len].iter().enumerate() {
        let x = &input[offset as usize..][..T];
        let mut w = [simd.splat16(0.0); Q];
        for q in 0..Q {
            w[q] = widen(q, &rows[q][0][k], &rows[q][1][k]);
        }
        for j in 0..T {
            let x = simd.splat16(x[j]);
            for q in 0..Q {
                acc[q][j] = simd.mul_add16(w[q], x, acc[q][j]);
            }
        }
    }
    acc
}
