//! Convolution by FFT, for large kernels with stride 1.
//!
//! The output is cut into tiles; the inputs a tile sees (tile plus kernel less one, along each
//! axis) are transformed, multiplied with the transformed kernels and summed over channels, and
//! transformed back, keeping what did not wrap around (overlap-save). Two real channels share a
//! complex transform. Per output and channel a multiplication takes the place of all taps; the
//! price is two transforms per tile and channel, and weights as large as a tile for each pair of
//! channels (measured: 1.5 times the dense kernel's rate at 5x5, 2.8 at 7x7, 15 at 31x31; 3x3 is
//! Winograd's). It loses on maps not much larger than the kernel and wherever the weights do not
//! fit. Scratch holds one tile of all channels of a group, whatever the map's size.
//!
//! Plans are made outside of runs ([`FftPlan::new`] chooses the tile by a count of operations) and
//! know their size; running allocates nothing. Transforms come from the `rustfft` crate: its
//! scalar code for the portable instruction set, what it detects for all others.
//!
//! Order of summation: per frequency one chain over the channels; tiles lie on the grid of the
//! whole output, so rows change nothing. Mathieu, Henaff & LeCun (2014).

use super::{ConvShape, Start};
use crate::activation::Epilogue;
use crate::shape::{View, ViewMut};
use crate::simd::{Isa, Simd, Work};
use crate::weights::{KOrder, PANEL, WeightTile};
use num_complex::Complex;
use rustfft::{Fft, FftDirection, FftPlanner, FftPlannerScalar};
use std::ops::Range;
use std::sync::Arc;

type C = Complex<f32>;

/// Lengths to choose from.
const LENGTHS: [usize; 13] = [8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512];
/// Floats of a vector of frequencies, real and imaginary.
const PAIR: usize = 16;
/// Floats of a vector of frequencies of a panel.
const GROUP: usize = PANEL * PAIR;

/// Transforms and tile of one layer.
pub struct FftPlan {
    isa: Isa,
    shape: ConvShape,
    /// Length of the transforms along y and x, and outputs of a tile.
    n: [usize; 2],
    tile: [usize; 2],
    /// Along y and x.
    forward: [Arc<dyn Fft<f32>>; 2],
    inverse: [Arc<dyn Fft<f32>>; 2],
}

impl std::fmt::Debug for FftPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FftPlan")
            .field("n", &self.n)
            .field("tile", &self.tile)
            .finish_non_exhaustive()
    }
}

/// Taps including those that dilation skips.
fn extent(shape: &ConvShape, axis: usize) -> usize {
    let reach = (shape.kernel[axis].saturating_sub(1)).saturating_mul(shape.dilation[axis]);
    reach.saturating_add(1)
}

/// Stride 1, and kernels (with dilation) of at most 256; groups, depthwise, any padding.
pub fn supports(shape: &ConvShape) -> bool {
    shape.stride == [1, 1] && extent(shape, 0).max(extent(shape, 1)) <= 256 && shape.taps() > 0
}

impl FftPlan {
    /// What a run with these lengths does: operations of the transforms of both sides, and multiply-adds of frequencies.
    fn work_of(shape: &ConvShape, n: [usize; 2]) -> [f64; 2] {
        let tiles = |axis: usize, out: usize| out.div_ceil(n[axis] + 1 - extent(shape, axis));
        let tiles = (tiles(0, shape.out_h) * tiles(1, shape.out_w)) as f64;
        let points = (n[0] * n[1]) as f64;
        let (inputs, outputs) = (shape.in_channels as f64, shape.out_channels as f64);
        let transforms = (inputs + outputs) * 2.5 * points * points.log2();
        // 4 for each of half of the frequencies, as if there were no fewer outputs than inputs.
        let products = 2.0 * inputs.max(outputs) * shape.in_per_group() as f64 * points;
        [tiles * transforms, tiles * products]
    }

    /// Lengths of the transforms: those of the fewest operations, products counted 4 at a time. None where [`supports`]
    /// says no.
    fn lengths(shape: &ConvShape) -> Option<[usize; 2]> {
        if !supports(shape) {
            return None;
        }
        let candidates = |axis: usize| {
            let least = extent(shape, axis);
            LENGTHS.into_iter().filter(move |&n| n >= least)
        };
        let mut best: Option<([usize; 2], f64)> = None;
        for ny in candidates(0) {
            for nx in candidates(1) {
                let [transforms, products] = FftPlan::work_of(shape, [ny, nx]);
                let cost = transforms + products / 4.0;
                if best.is_none_or(|(_, least)| cost < least) {
                    best = Some(([ny, nx], cost));
                }
            }
        }
        best.map(|(n, _)| n)
    }

    /// What a run does: operations of transforms, and multiply-adds of frequencies. None where [`supports`] says no.
    pub fn work(shape: &ConvShape) -> Option<[f64; 2]> {
        Some(FftPlan::work_of(shape, FftPlan::lengths(shape)?))
    }

    /// A plan, none where [`supports`] says no.
    pub fn new(isa: Isa, shape: &ConvShape) -> Option<FftPlan> {
        let n = FftPlan::lengths(shape)?;
        let plan = |len: usize, direction: FftDirection| -> Arc<dyn Fft<f32>> {
            match isa {
                Isa::Portable => FftPlannerScalar::new().plan_fft(len, direction),
                _ => FftPlanner::new().plan_fft(len, direction),
            }
        };
        Some(FftPlan {
            isa,
            shape: *shape,
            n,
            tile: [0, 1].map(|axis| n[axis] + 1 - extent(shape, axis)),
            forward: n.map(|len| plan(len, FftDirection::Forward)),
            inverse: n.map(|len| plan(len, FftDirection::Inverse)),
        })
    }

    /// Memory of the plan: an upper bound for what the transforms keep (twiddle factors of all
    /// stages, and for each stage an object), checked against an allocator that counts.
    pub fn bytes(&self) -> usize {
        let of = |len: usize| 8 * len * size_of::<C>() + 2048;
        size_of::<FftPlan>() + 2 * (of(self.n[0]) + of(self.n[1]))
    }

    /// Output rows of a tile: calls whose rows start at multiples of it waste nothing.
    pub fn tile_rows(&self) -> usize {
        self.tile[0]
    }

    /// Vectors of 8 frequencies; those of negative x are implied.
    fn vectors(&self) -> usize {
        (self.n[0] * (self.n[1] / 2 + 1)).div_ceil(8)
    }

    /// f32 elements of one panel's transformed weights.
    pub fn panel_len(&self) -> usize {
        let per_channel = self.vectors() * GROUP;
        per_channel.saturating_mul(self.channels())
    }

    /// Input channels of an output.
    fn channels(&self) -> usize {
        self.shape.in_per_group().max(1)
    }

    /// f32 elements of scratch of [`FftPlan::transform`].
    pub fn transform_workspace(&self) -> usize {
        let plans = self.forward.iter().chain(&self.inverse);
        let scratch = plans.map(|p| p.get_inplace_scratch_len()).max();
        4 * self.n[0] * self.n[1] + 2 * scratch.unwrap_or(0)
    }

    /// f32 elements of scratch of [`FftPlan::run`].
    pub fn workspace(&self) -> usize {
        let channels = if self.shape.is_depthwise() {
            PANEL
        } else {
            self.channels()
        };
        let input = (self.vectors() * PAIR).saturating_mul(channels);
        let sums = self.vectors() * GROUP;
        input.saturating_add(sums + self.transform_workspace())
    }

    /// Adds the transformed weights of a tile to `out`, [`FftPlan::panel_len`] elements for each panel, zero before the first
    /// tile: where tiles hold parts of k they are added up in the order of the calls.
    ///
    /// # Panics
    /// When a slice is too short: a mistake of the caller.
    pub fn transform(&self, tile: &WeightTile<'_>, out: &mut [f32], scratch: &mut [f32]) {
        let shape = &self.shape;
        let mut buffers = Buffers::new(self, scratch);
        let scale = 1.0 / (self.n[0] * self.n[1]) as f32;
        for (panel, out) in (0..tile.panels).zip(out.chunks_exact_mut(self.panel_len())) {
            for channel in 0..self.channels() {
                let of = |tap: usize| match tile.order {
                    KOrder::ChannelMajor => channel * shape.taps() + tap,
                    KOrder::TapMajor => tap * self.channels() + channel,
                };
                let there = |k: usize| k.checked_sub(tile.k0).filter(|&k| k < tile.k_len);
                if !(0..shape.taps()).any(|tap| there(of(tap)).is_some()) {
                    continue;
                }
                for lane in (0..PANEL).step_by(2) {
                    buffers.a.fill(C::default());
                    for tap in 0..shape.taps() {
                        let Some(k) = there(of(tap)) else {
                            continue;
                        };
                        let y = tap / shape.kernel[1] * shape.dilation[0];
                        let x = tap % shape.kernel[1] * shape.dilation[1];
                        buffers.a[y * self.n[1] + x] = C::new(
                            tile.weight(panel, k, lane) * scale,
                            tile.weight(panel, k, lane + 1) * scale,
                        );
                    }
                    buffers.forward(self);
                    // Correlation multiplies with the conjugate.
                    let at = |lane: usize| (channel * PANEL + lane) * PAIR;
                    let step = self.channels() * GROUP;
                    buffers.separate(self, out, at(lane), Some(at(lane + 1)), step, (-1.0, true));
                }
            }
        }
    }

    /// Adds the products of panels `panels` (`weights` starts with the first of them) to output
    /// rows `rows`; the other arguments are those of [`crate::conv_tile`].
    ///
    /// # Panics
    /// As [`crate::conv_tile`].
    #[expect(clippy::too_many_arguments)]
    pub fn run(
        &self,
        weights: &[f32],
        panels: Range<usize>,
        input: View<'_>,
        rows: Range<usize>,
        out: &mut ViewMut<'_>,
        start: Start,
        epilogue: Option<&Epilogue<'_>>,
        scratch: &mut [f32],
    ) {
        let shape = &self.shape;
        super::check_maps(shape, &input, &rows, out);
        assert!(panels.end <= shape.panels());
        if out.map.is_empty() || panels.is_empty() {
            return;
        }
        let channels = if shape.is_depthwise() {
            PANEL
        } else {
            self.channels()
        };
        let (values, scratch) = scratch.split_at_mut(self.vectors() * PAIR * channels);
        let (sums, scratch) = scratch.split_at_mut(self.vectors() * GROUP);
        let mut buffers = Buffers::new(self, scratch);
        let first_row = rows.start / self.tile[0] * self.tile[0];
        for y in (first_row..rows.end).step_by(self.tile[0]) {
            for x in (0..shape.out_w).step_by(self.tile[1]) {
                let mut ready = None;
                for (i, panel) in panels.clone().enumerate() {
                    let (first, lanes) = shape.panel_channels(panel);
                    let inputs = self.inputs(panel);
                    if ready.as_ref() != Some(&inputs) {
                        let count = inputs.len();
                        for c in (0..count).step_by(2) {
                            let second = (c + 1 < count).then_some(inputs.start + c + 1);
                            buffers.load(self, input, inputs.start + c, second, [y, x]);
                            buffers.forward(self);
                            let two = second.map(|_| (c + 1) * PAIR);
                            let step = count * PAIR;
                            buffers.separate(self, values, c * PAIR, two, step, (1.0, false));
                        }
                        ready = Some(inputs.clone());
                    }
                    let lane_inputs = std::array::from_fn(|lane| {
                        let channel = (first + lane.min(lanes - 1)) / shape.out_per_group().max(1);
                        channel.saturating_sub(inputs.start).min(inputs.len() - 1)
                    });
                    self.isa.run(Multiply {
                        depthwise: shape.is_depthwise().then_some(lane_inputs),
                        count: inputs.len(),
                        channels: self.channels(),
                        input: &*values,
                        weights: &weights[i * self.panel_len()..][..self.panel_len()],
                        sums: &mut *sums,
                    });
                    for lane in (0..lanes).step_by(2) {
                        buffers.join(self, sums, lane);
                        buffers.inverse(self);
                        for (lane, part) in (lane..lanes).take(2).zip([0, 1]) {
                            let spot = Spot {
                                channel: first + lane,
                                rows: y.max(rows.start)..(y + self.tile[0]).min(rows.end),
                                columns: x..(x + self.tile[1]).min(shape.out_w),
                                first_row: rows.start,
                                corner: [y, x],
                            };
                            buffers.store(self, part, &spot, out, start, epilogue);
                        }
                    }
                }
            }
        }
    }

    /// Channels of the whole input that a panel reads.
    fn inputs(&self, panel: usize) -> Range<usize> {
        let shape = &self.shape;
        if shape.is_depthwise() {
            let (first, lanes) = shape.panel_channels(panel);
            let multiplier = shape.out_per_group().max(1);
            first / multiplier..(first + lanes - 1) / multiplier + 1
        } else {
            let group = panel / shape.panels_per_group();
            group * self.channels()..(group + 1) * self.channels()
        }
    }
}

/// Part of a channel of the output that a tile covers.
struct Spot {
    channel: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    /// Output row the output starts with.
    first_row: usize,
    /// The tile's first pixel.
    corner: [usize; 2],
}

/// Two tiles, `[y][x]` and `[x][y]`, and what the transforms need.
struct Buffers<'a> {
    a: &'a mut [C],
    b: &'a mut [C],
    scratch: &'a mut [C],
}

impl<'a> Buffers<'a> {
    fn new(plan: &FftPlan, scratch: &'a mut [f32]) -> Buffers<'a> {
        let points = plan.n[0] * plan.n[1];
        let (a, rest) = scratch[..plan.transform_workspace()].split_at_mut(2 * points);
        let (b, rest) = rest.split_at_mut(2 * points);
        Buffers {
            a: bytemuck::cast_slice_mut(a),
            b: bytemuck::cast_slice_mut(b),
            scratch: bytemuck::cast_slice_mut(rest),
        }
    }

    /// Input of one or two channels for the tile at `corner`, zeros outside.
    fn load(
        &mut self,
        plan: &FftPlan,
        input: View<'_>,
        one: usize,
        two: Option<usize>,
        corner: [usize; 2],
    ) {
        let (shape, nx) = (&plan.shape, plan.n[1]);
        let skip = shape.pad_left.saturating_sub(corner[1]).min(nx);
        let from = corner[1].saturating_sub(shape.pad_left);
        let width = shape.in_w.saturating_sub(from).min(nx - skip);
        for (i, to) in self.a.chunks_exact_mut(nx).enumerate() {
            to.fill(C::default());
            let y = (corner[0] + i).checked_sub(shape.pad_top);
            let Some(y) = y.filter(|&y| y < shape.in_h && width > 0) else {
                continue;
            };
            let to = &mut to[skip..skip + width];
            let row = |c: usize| &input.data[input.map.at(0, c, y) + from..][..width];
            for (to, v) in to.iter_mut().zip(row(one)) {
                to.re = *v;
            }
            if let Some(two) = two {
                for (to, v) in to.iter_mut().zip(row(two)) {
                    to.im = *v;
                }
            }
        }
    }

    /// `a` in pixels to `b` in frequencies.
    fn forward(&mut self, plan: &FftPlan) {
        let [ny, nx] = plan.n;
        plan.forward[1].process_with_scratch(self.a, self.scratch);
        transpose(self.a, self.b, ny, nx);
        plan.forward[0].process_with_scratch(self.b, self.scratch);
    }

    /// `b` in frequencies to `a` in pixels.
    fn inverse(&mut self, plan: &FftPlan) {
        let [ny, nx] = plan.n;
        plan.inverse[0].process_with_scratch(self.b, self.scratch);
        transpose(self.b, self.a, nx, ny);
        plan.inverse[1].process_with_scratch(self.a, self.scratch);
    }

    /// The spectra of the two real signals in `b`, in vectors of 8 frequencies (8 real parts, 8
    /// imaginary parts times `sign`), vector `v` at `v * step + one` and, if wanted, `+ two`; added to
    /// what is there or in its place.
    fn separate(
        &self,
        plan: &FftPlan,
        out: &mut [f32],
        one: usize,
        two: Option<usize>,
        step: usize,
        (sign, add): (f32, bool),
    ) {
        let [ny, nx] = plan.n;
        for v in 0..plan.vectors() {
            for i in 0..8 {
                let f = v * 8 + i;
                let (x, y) = (f / ny, f % ny);
                let (p, q) = if x <= nx / 2 {
                    (self.b[f], self.b[(nx - x) % nx * ny + (ny - y) % ny])
                } else {
                    (C::default(), C::default())
                };
                let mut put = |at: usize, value: f32| {
                    let old = if add { out[at] } else { 0.0 };
                    out[at] = old + value;
                };
                let at = v * step + i;
                put(at + one, 0.5 * (p.re + q.re));
                put(at + one + 8, sign * 0.5 * (p.im - q.im));
                if let Some(two) = two {
                    put(at + two, 0.5 * (p.im + q.im));
                    put(at + two + 8, sign * 0.5 * (q.re - p.re));
                }
            }
        }
    }

    /// The sums of lanes `lane` and `lane + 1` as one complex spectrum in `b`.
    fn join(&mut self, plan: &FftPlan, sums: &[f32], lane: usize) {
        let [ny, nx] = plan.n;
        let value = |lane: usize, f: usize| {
            let at = f / 8 * GROUP + lane * PAIR + f % 8;
            (sums[at], sums[at + 8])
        };
        for x in 0..=nx / 2 {
            for y in 0..ny {
                let f = x * ny + y;
                let ((ar, ai), (br, bi)) = (value(lane, f), value(lane + 1, f));
                self.b[f] = C::new(ar - bi, ai + br);
                let mirror = (nx - x) % nx * ny + (ny - y) % ny;
                if x > 0 && x < nx - x {
                    self.b[mirror] = C::new(ar + bi, br - ai);
                }
            }
        }
    }

    /// The real (`part` 0) or imaginary part of `a` to the output.
    fn store(
        &self,
        plan: &FftPlan,
        part: usize,
        spot: &Spot,
        out: &mut ViewMut<'_>,
        start: Start,
        epilogue: Option<&Epilogue<'_>>,
    ) {
        for y in spot.rows.clone() {
            let at = out.map.at(0, spot.channel, y - spot.first_row) + spot.columns.start;
            let from = (y - spot.corner[0]) * plan.n[1] + spot.columns.start - spot.corner[1];
            let to = &mut out.data[at..at + spot.columns.len()];
            for (to, v) in to.iter_mut().zip(&self.a[from..]) {
                let v = if part == 0 { v.re } else { v.im };
                *to = match start {
                    Start::Zero => v,
                    Start::Accumulate => *to + v,
                };
            }
            if let Some(epilogue) = epilogue {
                epilogue.apply(spot.channel, to);
            }
        }
    }
}

/// `rows` x `columns` to `columns` x `rows`.
fn transpose(from: &[C], to: &mut [C], rows: usize, columns: usize) {
    for (i, line) in from.chunks_exact(columns).enumerate() {
        for (j, v) in line.iter().enumerate() {
            to[j * rows + i] = *v;
        }
    }
}

/// Products of one panel, summed over the channels, 4 output channels at a time.
struct Multiply<'a> {
    /// The one input of each lane.
    depthwise: Option<[usize; PANEL]>,
    /// Channels of `input`, and of the weights.
    count: usize,
    channels: usize,
    input: &'a [f32],
    weights: &'a [f32],
    sums: &'a mut [f32],
}

impl Work for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let inputs = self.input.chunks_exact(self.count * PAIR);
        let weights = self.weights.chunks_exact(self.channels * GROUP);
        let sums = self.sums.chunks_exact_mut(GROUP);
        for ((input, weights), sums) in inputs.zip(weights).zip(sums) {
            for (half, sums) in sums.chunks_exact_mut(GROUP / 2).enumerate() {
                let mut acc = [[simd.splat(0.0); 2]; 4];
                let minus = simd.splat(-1.0);
                let pair = |from: &[f32], at: usize| {
                    let v = from[at..at + PAIR].as_chunks::<8>().0;
                    (simd.load(&v[0]), simd.load(&v[1]))
                };
                for c in 0..self.channels {
                    let w = &weights[c * GROUP + half * GROUP / 2..][..GROUP / 2];
                    let mut x = pair(input, c * PAIR);
                    for i in 0..4 {
                        if let Some(lanes) = &self.depthwise {
                            x = pair(input, lanes[half * 4 + i] * PAIR);
                        }
                        let (re, im) = pair(w, i * PAIR);
                        let negative = simd.mul(minus, im);
                        acc[i][0] = simd.mul_add(re, x.0, acc[i][0]);
                        acc[i][1] = simd.mul_add(re, x.1, acc[i][1]);
                        acc[i][0] = simd.mul_add(negative, x.1, acc[i][0]);
                        acc[i][1] = simd.mul_add(im, x.0, acc[i][1]);
                    }
                }
                for (acc, to) in acc.into_iter().zip(sums.chunks_exact_mut(PAIR)) {
                    let to = to.as_chunks_mut::<8>().0;
                    simd.store(acc[0], &mut to[0]);
                    simd.store(acc[1], &mut to[1]);
                }
            }
        }
    }
}
