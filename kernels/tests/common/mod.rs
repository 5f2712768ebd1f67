//! What the suites share: random layers in every weight form, and maps with gaps.

#![allow(dead_code)]

use dcz_kernels::*;
use std::ops::Range;

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// Uniform in -1..1.
    pub fn value(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
    pub fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.value()).collect()
    }
}

/// Weight forms of a tile.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    F32,
    Layer,
    Channel,
    Block(usize),
    /// Values without a common step.
    Lut,
    /// 181 multiples of one step.
    LinearLut,
    /// 16 values.
    SmallLut,
}

/// What a layer's panels look like.
pub struct Order {
    pub order: KOrder,
    pub panels: usize,
    pub k: usize,
    /// Real lanes of each panel.
    pub lanes: Vec<usize>,
}

impl Order {
    pub fn of(shape: &ConvShape, order: KOrder) -> Order {
        let lanes = (0..shape.panels())
            .map(|p| shape.panel_channels(p).1)
            .collect();
        Order {
            order,
            panels: shape.panels(),
            k: shape.k(),
            lanes,
        }
    }
}

/// A layer's weights, `[panel][k][8]`, about 40 % zeros, padding lanes zero.
pub struct Layer {
    pub form: Form,
    pub order: KOrder,
    pub k: usize,
    values: Vec<f32>,
    codes: Vec<u8>,
    signed: Vec<i8>,
    lut: Lut,
    steps: Vec<f32>,
}

impl Layer {
    pub fn new(rng: &mut Rng, order: &Order, form: Form) -> Layer {
        let n = order.panels * order.k * PANEL;
        let mut signed: Vec<i8> = (0..n)
            .map(|_| {
                if rng.next() % 10 < 4 {
                    0
                } else {
                    (rng.next() % 255) as i8
                }
            })
            .collect();
        for (i, q) in signed.iter_mut().enumerate() {
            *q = if i % PANEL < order.lanes[i / PANEL / order.k] {
                (*q).max(-127)
            } else {
                0
            };
        }
        let mut table = vec![0.0; 256];
        table[1..].iter_mut().for_each(|v| *v = rng.value());
        let lut = match form {
            Form::LinearLut => {
                let linear =
                    |code: i16| f32::from(if code > 90 { 90 - code } else { code }) * 0.0123;
                Lut::new(&(0..181).map(linear).collect::<Vec<_>>())
            }
            Form::SmallLut => Lut::new(&table[..16]),
            _ => Lut::new(&table),
        };
        let steps = match form {
            Form::F32 | Form::Lut | Form::LinearLut | Form::SmallLut | Form::Layer => 1,
            Form::Channel => order.panels * PANEL,
            Form::Block(len) => order.panels * order.k.div_ceil(len) * PANEL,
        };
        let steps = (0..steps).map(|_| (rng.value() + 1.5) / 128.0).collect();
        let values = signed
            .iter()
            .map(|&q| if q == 0 { 0.0 } else { rng.value() })
            .collect();
        let codes_there_are = match form {
            Form::LinearLut => 181,
            Form::SmallLut => 16,
            _ => 256,
        };
        let codes = signed
            .iter()
            .map(|&q| (u16::from(q as u8) % codes_there_are) as u8)
            .collect();
        Layer {
            form,
            order: order.order,
            k: order.k,
            values,
            codes,
            signed,
            lut,
            steps,
        }
    }

    /// A tile as the decoder would hand it over; only form `F32` can cut k without a copy, so one
    /// is made (and leaked: tests).
    pub fn tile(&self, panels: Range<usize>, k: Range<usize>) -> WeightTile<'_> {
        fn cut<T: Copy>(
            all: &[T],
            panels: &Range<usize>,
            k: &Range<usize>,
            len: usize,
        ) -> &'static [T] {
            let rows = panels
                .clone()
                .flat_map(|p| (p * len + k.start) * PANEL..(p * len + k.end) * PANEL);
            Vec::leak(rows.map(|i| all[i]).collect())
        }
        let steps_of =
            |rows: usize| &self.steps[panels.start * rows * PANEL..panels.end * rows * PANEL];
        let values = match self.form {
            Form::F32 => TileValues::F32(cut(&self.values, &panels, &k, self.k)),
            Form::Lut | Form::LinearLut | Form::SmallLut => TileValues::Lut {
                codes: cut(&self.codes, &panels, &k, self.k),
                lut: &self.lut,
            },
            form => TileValues::I8 {
                q: cut(&self.signed, &panels, &k, self.k),
                steps: match form {
                    Form::Channel => Steps::Channel(steps_of(1)),
                    Form::Block(len) => {
                        let blocks = self.k.div_ceil(len);
                        Steps::Block {
                            len,
                            blocks,
                            steps: steps_of(blocks),
                        }
                    }
                    _ => Steps::Layer(self.steps[0]),
                },
            },
        };
        WeightTile {
            first_panel: panels.start,
            panels: panels.len(),
            k0: k.start,
            k_len: k.len(),
            order: self.order,
            values,
        }
    }

    /// The weights in f32, `[out][in/group][kh][kw]`.
    pub fn oihw(&self, shape: &ConvShape) -> Vec<f32> {
        let (per_group, taps) = (shape.in_per_group(), shape.taps());
        let mut out = vec![0.0; shape.out_channels * self.k];
        let tile = self.tile(0..shape.panels(), 0..self.k);
        for p in 0..shape.panels() {
            let (first, lanes) = shape.panel_channels(p);
            for k in 0..self.k {
                let at = match self.order {
                    KOrder::ChannelMajor => k,
                    KOrder::TapMajor => k % per_group * taps + k / per_group,
                };
                for lane in 0..lanes {
                    out[(first + lane) * self.k + at] = tile.weight(p, k, lane);
                }
            }
        }
        out
    }
}

/// Plain `[c][h][w]` values at their places in a map, `gap` elsewhere.
pub fn place(values: &[f32], map: Map, gap: f32) -> Vec<f32> {
    let mut data = vec![gap; map.span() + 7];
    for (i, row) in values.chunks_exact(map.w).enumerate() {
        let (n, c, h) = (i / map.h / map.c, i / map.h % map.c, i % map.h);
        data[map.at(n, c, h)..][..map.w].copy_from_slice(row);
    }
    data
}

/// The values of a map as plain `[n][c][h][w]`.
pub fn nchw_of(data: &[f32], map: Map) -> Vec<f32> {
    let rows =
        (0..map.n * map.c * map.h).map(|i| (i / map.h / map.c, i / map.h % map.c, i % map.h));
    rows.flat_map(|(n, c, h)| data[map.at(n, c, h)..][..map.w].to_vec())
        .collect()
}
