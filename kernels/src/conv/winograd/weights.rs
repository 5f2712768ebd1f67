//! Weights to Winograd's positions: `[panel][position][channel][8]`, and a gap behind each position.

use super::lanes::{Eight, Lanes, Sixteen};
use super::points::{self, MOST, Size};
use super::{BLOCK, GAP};
use crate::conv::ConvShape;
use crate::simd::{Isa, Long, LongWork, Simd, Work};
use crate::weights::{KOrder, PANEL, Steps, TileValues, WeightTile};
use std::ops::Range;

/// Transforms `channels` of panel `panel` of the tile; taps outside the tile's k-range count as
/// zero. With i8 codes and one step per lane, or a look-up table of multiples of one step, the
/// integer form is exact and rounded once, by its scale; all other weights are rounded on the way.
pub(super) struct Transform<'a, K> {
    pub shape: &'a ConvShape,
    pub tile: &'a WeightTile<'a>,
    pub panel: usize,
    pub channels: Range<usize>,
    /// Multiply with the scale, or leave the integer form.
    pub scaled: bool,
    /// `[position][channel][8]`
    pub out: &'a mut [f32],
    pub size: std::marker::PhantomData<K>,
}

impl<K: Size> Transform<'_, K> {
    /// One copy of the code for all callers.
    #[inline(never)]
    pub(super) fn run_on(self, isa: Isa) {
        // F(6,3) is for large maps, where weights count little.
        if K::M < 6 && isa.has_long() && self.is_coded() {
            isa.run_long(self);
        } else {
            isa.run(self);
        }
    }

    /// Whether its integers, or codes of a short table, are there to be read, all that vectors of 16 are made for.
    fn is_coded(&self) -> bool {
        self.tile.k_len == self.shape.k()
            && match self.tile.values {
                TileValues::Lut { lut, .. } => lut.is_half(),
                _ => has_integers(self.tile),
            }
    }
}

impl<K: Size> Work for Transform<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.transform(Eight(simd));
    }
}

impl<K: Size> LongWork for Transform<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Long>(self, simd: S) {
        self.transform(Sixteen(simd));
    }
}

/// What a block of channels is transformed from.
enum Taps<'a> {
    /// Integers, a slice from the first channel on for every tap, and the distance of two channels.
    Integers([&'a [[i8; PANEL]]; 9], usize),
    /// Codes of a table, from the first channel's first tap on.
    Codes(&'a [[u8; PANEL]]),
    /// Rows one by one, whatever they hold and wherever they lie.
    Rows,
}

impl<K: Size> Transform<'_, K> {
    /// A vector is as many channels as it has room for; the last may write into the gap behind the position.
    #[inline(always)]
    fn transform<L: Lanes>(self, lanes: L) {
        const { assert!(GAP + PANEL >= L::N) };
        let simd = lanes.simd();
        let Transform { shape, tile, .. } = self;
        let stride = stride(self.channels.len());
        let mut scales = [[[0.0; PANEL]; MOST]; MOST];
        for (i, line) in scales.iter_mut().enumerate().take(K::T) {
            for (j, scale) in line.iter_mut().enumerate().take(K::T) {
                *scale = if self.scaled {
                    scale_of::<K>(tile, self.panel, i, j)
                } else {
                    [1.0; PANEL]
                };
            }
        }
        let rows = KRows::new(shape, tile);
        let table = table(tile);
        let first = self.panel * tile.k_len;
        let all = first..first + tile.k_len;
        let fast = L::S::FAST && tile.k_len == shape.k();
        let mut out = self.out;
        let mut channel = self.channels.start;
        let mut translated = [[0; PANEL]; 9 * BLOCK];
        while channel < self.channels.end {
            let count = (self.channels.end - channel).min(BLOCK);
            let at = |tap: usize| channel * rows.channel + tap * rows.tap;
            let given = match tile.values {
                TileValues::I8 {
                    q,
                    steps: Steps::Layer(_) | Steps::Channel(_),
                } if fast => {
                    let q = &q.as_chunks().0[all.clone()];
                    let taps: [&[_]; 9] = std::array::from_fn(|tap| &q[at(tap)..]);
                    Taps::Integers(taps, rows.channel)
                }
                TileValues::Lut { codes, .. } if fast && L::N > PANEL => {
                    Taps::Codes(&codes.as_chunks().0[all.clone()][at(0)..])
                }
                TileValues::Lut { codes, lut } if fast && lut.step() > 0.0 => {
                    let codes = &codes.as_chunks().0[all.clone()];
                    for tap in 0..9 {
                        let to = &mut translated[tap * BLOCK..][..count];
                        translate(simd, lut.multiples(), &codes[at(tap)..], rows.channel, to);
                    }
                    let taps: [&[_]; 9] = std::array::from_fn(|tap| &translated[tap * BLOCK..]);
                    Taps::Integers(taps, 1)
                }
                _ => Taps::Rows,
            };
            for i in (0..count).step_by(L::N / PANEL) {
                let mut g = [lanes.splat(0.0); 9];
                let second = if L::N > PANEL {
                    (i + 1).min(count - 1)
                } else {
                    i
                };
                match &given {
                    Taps::Integers(taps, step) => {
                        for tap in 0..9 {
                            let tap_rows = [&taps[tap][i * step], &taps[tap][second * step]];
                            g[tap] = lanes.rows_i8(tap_rows);
                        }
                    }
                    Taps::Codes(codes) => {
                        for tap in 0..9 {
                            let codes = &codes[tap * rows.tap..];
                            let pair = [&codes[i * rows.channel], &codes[second * rows.channel]];
                            g[tap] = lanes.lookup(&table, pair);
                        }
                    }
                    // See `is_coded`.
                    Taps::Rows if L::N > PANEL => {}
                    Taps::Rows => {
                        for (tap, g) in g.iter_mut().enumerate() {
                            if let Some(row) = rows.row(channel + i, tap) {
                                let v = load(simd, tile, &table, self.panel, row);
                                *g = lanes.rows([v; 2]);
                            }
                        }
                    }
                }
                kernel::<K, L>(lanes, g, &scales, stride, &mut out[i * PANEL..]);
            }
            out = &mut out[count * PANEL..];
            channel += count;
        }
    }
}

/// Looks the codes of every `step`-th row up, four rows at a time.
#[inline(always)]
fn translate<S: Simd>(
    simd: S,
    table: &[[i8; 16]],
    from: &[[u8; PANEL]],
    step: usize,
    to: &mut [[i8; PANEL]],
) {
    for (i, to) in to.chunks_mut(4).enumerate() {
        let mut q = [0; 4 * PANEL];
        let neighbours = from.get(4 * i..4 * i + 4).filter(|_| step == 1);
        if let Some(codes) = neighbours.and_then(|n| n.as_flattened().first_chunk()) {
            simd.lookup_bytes(table, codes, &mut q);
            for (to, q) in to.iter_mut().zip(q.as_chunks().0) {
                *to = *q;
            }
            continue;
        }
        let mut codes = [0; 4 * PANEL];
        for (j, code) in codes
            .as_chunks_mut()
            .0
            .iter_mut()
            .enumerate()
            .take(to.len())
        {
            *code = from[(4 * i + j) * step];
        }
        simd.lookup_bytes(table, &codes, &mut q);
        for (to, q) in to.iter_mut().zip(q.as_chunks().0) {
            *to = *q;
        }
    }
}

/// Transforms eight kernels of one channel, or of two.
#[inline(always)]
fn kernel<K: Size, L: Lanes>(
    simd: L,
    g: [L::V; 9],
    scales: &[[[f32; PANEL]; MOST]; MOST],
    stride: usize,
    out: &mut [f32],
) {
    // Columns of the kernel first, then rows.
    let mut tall = [[simd.splat(0.0); 3]; MOST];
    for x in 0..3 {
        let column = points::weights::<K, L>(simd, [g[x], g[3 + x], g[6 + x]]);
        for i in 0..K::T {
            tall[i][x] = column[i];
        }
    }
    let mut out = out;
    for i in 0..K::T {
        let line = points::weights::<K, L>(simd, tall[i]);
        for j in 0..K::T {
            let scale = simd.simd().load(&scales[i][j]);
            simd.store(simd.mul(line[j], simd.rows([scale; 2])), out);
            out = out.get_mut(stride..).unwrap_or_default();
        }
    }
}

/// Distance of two positions. Without the gap all would share one set of the caches.
pub(super) fn stride(channels: usize) -> usize {
    channels.saturating_mul(PANEL).saturating_add(GAP)
}

/// Where the weight of a channel and tap lies in a tile.
struct KRows {
    k: Range<usize>,
    channel: usize,
    tap: usize,
}

impl KRows {
    fn new(shape: &ConvShape, tile: &WeightTile<'_>) -> KRows {
        let (channel, tap) = match tile.order {
            KOrder::ChannelMajor => (shape.taps(), 1),
            KOrder::TapMajor => (1, shape.in_per_group()),
        };
        KRows {
            k: tile.k0..tile.k0 + tile.k_len,
            channel,
            tap,
        }
    }

    #[inline(always)]
    fn row(&self, channel: usize, tap: usize) -> Option<usize> {
        let k = channel * self.channel + tap * self.tap;
        self.k.contains(&k).then(|| k - self.k.start)
    }
}

/// Input channels of which the tile holds a weight.
pub(super) fn channels(shape: &ConvShape, tile: &WeightTile<'_>) -> Range<usize> {
    let (first, end) = (tile.k0, tile.k0 + tile.k_len);
    match tile.order {
        KOrder::ChannelMajor => first / 9..end.div_ceil(9),
        KOrder::TapMajor => {
            let n = shape.in_per_group();
            if tile.k_len < n && first / n == (end - 1) / n {
                first % n..(end - 1) % n + 1
            } else {
                0..n
            }
        }
    }
}

/// What the codes of a look-up table stand for before [`scale_of`].
fn table(tile: &WeightTile<'_>) -> [f32; 256] {
    match tile.values {
        TileValues::Lut { lut, .. } if lut.step() > 0.0 => {
            let multiples = lut.multiples().as_flattened();
            std::array::from_fn(|code| multiples.get(code).map_or(0.0, |&m| f32::from(m)))
        }
        TileValues::Lut { lut, .. } => *lut.values(),
        _ => [0.0; 256],
    }
}

/// Eight weights before [`scale_of`].
#[inline(always)]
fn load<S: Simd>(
    simd: S,
    tile: &WeightTile<'_>,
    table: &[f32; 256],
    panel: usize,
    row: usize,
) -> S::V {
    let at = panel * tile.k_len + row;
    match tile.values {
        TileValues::F32(values) => simd.load(&values.as_chunks().0[at]),
        TileValues::Lut { codes, .. } => simd.lookup(table, &codes.as_chunks().0[at]),
        TileValues::I8 { q, steps } => {
            let v = simd.widen_i8(&q.as_chunks().0[at]);
            match steps {
                Steps::Layer(_) | Steps::Channel(_) => v,
                Steps::Block { len, blocks, steps } => {
                    let block = panel * blocks + (tile.k0 + row) / len;
                    simd.mul(v, simd.load(&steps.as_chunks().0[block]))
                }
            }
        }
    }
}

/// The factor of position (i, j), times the step of each lane where [`load`] left it out.
pub(super) fn scale_of<K: Size>(
    tile: &WeightTile<'_>,
    panel: usize,
    i: usize,
    j: usize,
) -> [f32; PANEL] {
    let factor = points::factor::<K>(i, j);
    match tile.values {
        TileValues::I8 {
            steps: Steps::Layer(step),
            ..
        } => [step * factor; PANEL],
        TileValues::I8 {
            steps: Steps::Channel(steps),
            ..
        } => std::array::from_fn(|lane| steps[panel * PANEL + lane] * factor),
        TileValues::Lut { lut, .. } if lut.step() > 0.0 => [lut.step() * factor; PANEL],
        _ => [factor; PANEL],
    }
}

/// Whether the integer form of the tile's weights is made of integers.
fn has_integers(tile: &WeightTile<'_>) -> bool {
    match tile.values {
        TileValues::I8 { steps, .. } => matches!(steps, Steps::Layer(_) | Steps::Channel(_)),
        TileValues::Lut { lut, .. } => lut.step() > 0.0,
        TileValues::F32(_) => false,
    }
}

/// One panel's integer form (in `form`, `[position][channel][8]`) to 16 bits and a scale per
/// position and lane. Exact when the form is made of integers that fit; else rounded to 16 bits
/// relative to the largest of the position and lane. Returns whether it is exact.
pub(super) fn narrow<K: Size>(
    isa: Isa,
    tile: &WeightTile<'_>,
    panel: usize,
    form: &[f32],
    q: &mut [i16],
    scales: &mut [f32],
) -> bool {
    let stride = form.len() / (K::T * K::T);
    let len = stride - GAP;
    let integers = has_integers(tile);
    let mut exact = true;
    for position in 0..K::T * K::T {
        let scale = scale_of::<K>(tile, panel, position / K::T, position % K::T);
        exact &= isa.run(Narrow {
            from: form[position * stride..][..len].as_chunks().0,
            to: q[position * stride..][..len].as_chunks_mut().0,
            integers,
            scale,
            scales: &mut scales[position * PANEL..][..PANEL],
        });
    }
    exact
}

/// One position of [`narrow`]; loops over lanes become vectors.
struct Narrow<'a> {
    from: &'a [[f32; PANEL]],
    to: &'a mut [[i16; PANEL]],
    integers: bool,
    scale: [f32; PANEL],
    scales: &'a mut [f32],
}

impl Work for Narrow<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> bool {
        const MOST_I16: f32 = 32_767.0;
        let zero = simd.splat(0.0);
        let mut most = zero;
        for v in self.from {
            let v = simd.load(v);
            most = simd.max(most, simd.max(v, simd.sub(zero, v)));
        }
        let (mut largest, mut units) = ([0.0; PANEL], [1.0; PANEL]);
        simd.store(most, &mut largest);
        let mut exact = true;
        for lane in 0..PANEL {
            let most = largest[lane];
            let exactly = self.integers && most <= MOST_I16;
            exact &= exactly || most == 0.0;
            if !exactly && most != 0.0 {
                units[lane] = most / MOST_I16;
            }
            self.scales[lane] = self.scale[lane] * units[lane];
        }
        for (to, from) in self.to.iter_mut().zip(self.from) {
            for lane in 0..PANEL {
                // Half away from zero: what is half an integer or more in magnitude is one more.
                let v = from[lane] / units[lane];
                let whole = v as i32;
                let rest = v - whole as f32;
                let more = i32::from(rest >= 0.5) - i32::from(rest <= -0.5);
                to[lane] = (whole + more) as i16;
            }
        }
        exact
    }
}

/// 16-bit weights of a block back to f32.
pub(super) struct Widen<'a> {
    pub q: &'a [[i16; PANEL]],
    pub scale: &'a [f32; PANEL],
    pub out: &'a mut [[f32; PANEL]],
}

impl Widen<'_> {
    pub(super) fn run_on(self, isa: Isa) {
        if isa.has_long() {
            isa.run_long(self);
        } else {
            isa.run(self);
        }
    }
}

impl Work for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let scale = simd.load(self.scale);
        for (to, q) in self.out.iter_mut().zip(self.q) {
            simd.store(simd.mul(simd.widen_i16(q), scale), to);
        }
    }
}

impl LongWork for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Long>(self, simd: S) {
        let one = simd.load(self.scale);
        let scale = simd.join(one, one);
        let q = &self.q[..self.out.len()];
        let out = self.out.as_flattened_mut();
        for i in (0..q.len()).step_by(2) {
            let to = &mut out[i * PANEL..];
            match (q.get(i + 1), to.first_chunk_mut()) {
                (Some(next), Some(to)) => {
                    simd.store16(simd.mul16(simd.widen_i16_two(&q[i], next), scale), to);
                }
                _ => simd.store(
                    simd.mul(simd.widen_i16(&q[i]), one),
                    &mut to.as_chunks_mut().0[0],
                ),
            }
        }
    }
}

/// Transforms whole panels of a tile into `out`, `[panel][position][channel][8]`.
pub(super) fn transform<K: Size>(
    isa: Isa,
    shape: &ConvShape,
    tile: &WeightTile<'_>,
    panels: Range<usize>,
    channels: Range<usize>,
    out: &mut [f32],
) {
    let len = K::T * K::T * stride(channels.len());
    for (panel, out) in panels.zip(out.chunks_exact_mut(len)) {
        Transform::<K> {
            shape,
            tile,
            panel,
            channels: channels.clone(),
            scaled: true,
            out,
            size: std::marker::PhantomData,
        }
        .run_on(isa);
    }
}
