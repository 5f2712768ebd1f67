//! Weights as kernels see them: a tile of panels of 8 output channels, `[panel][k][8]`, in f32, as i8 multiples of a
//! step, or as u8 codes of a look-up table. Kernels expand codes to f32 block by block; a tile is never copied whole.

/// Output channels of a panel.
pub const PANEL: usize = 8;

/// Order of `k` within a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KOrder {
    /// `k = (ic * kh + y) * kw + x`
    ChannelMajor,
    /// `k = (y * kw + x) * ic_count + ic`
    TapMajor,
}

/// Whole panels, or a k-range of one panel, of one layer.
#[derive(Clone, Copy, Debug)]
pub struct WeightTile<'a> {
    /// Index of the first panel within the layer (panels never straddle groups; depthwise panels run across groups).
    pub first_panel: usize,
    /// Number of panels.
    pub panels: usize,
    /// First k.
    pub k0: usize,
    /// Number of k.
    pub k_len: usize,
    /// Order of k.
    pub order: KOrder,
    /// `panels * k_len * 8` weights.
    pub values: TileValues<'a>,
}

/// The weights of a tile, `[panel][k][8]`.
#[derive(Clone, Copy, Debug)]
pub enum TileValues<'a> {
    /// As they are.
    F32(&'a [f32]),
    /// `q * step`, one f32 multiplication.
    I8 {
        /// Codes.
        q: &'a [i8],
        /// Steps.
        steps: Steps<'a>,
    },
    /// `lut[code]`.
    Lut {
        /// Codes.
        codes: &'a [u8],
        /// Values.
        lut: &'a Lut,
    },
}

/// The values that codes stand for.
#[derive(Clone, Debug, PartialEq)]
pub struct Lut {
    values: [f32; 256],
    /// Codes there are.
    len: usize,
    /// See [`Lut::step`].
    step: f32,
    max_abs: u8,
    /// Multiples of the step, if there is one.
    multiples: [[i8; 16]; 16],
}

impl Lut {
    /// Of the values of codes 0, 1 and so on; the first 256 count.
    pub fn new(values: &[f32]) -> Lut {
        let mut table = [0.0; 256];
        let len = values.len().min(256);
        table[..len].copy_from_slice(&values[..len]);
        let (step, max_abs) = grid(&table[..len]).unwrap_or((0.0, 0));
        let mut multiples = [[0; 16]; 16];
        if step > 0.0 {
            for (to, value) in multiples.as_flattened_mut().iter_mut().zip(table) {
                *to = (f64::from(value) / f64::from(step)).round() as i8;
            }
        }
        Lut {
            values: table,
            len,
            step,
            max_abs,
            multiples,
        }
    }

    /// Codes there are.
    pub fn codes(&self) -> usize {
        self.len
    }

    /// `[code]`; zero behind the last.
    pub fn values(&self) -> &[f32; 256] {
        &self.values
    }

    /// The step of which all values are multiples, but for a rounding error of f32; 0 if there is none. A kernel that
    /// transforms weights may use the multiples instead of the values.
    pub fn step(&self) -> f32 {
        self.step
    }

    /// The largest multiple, without its sign.
    pub fn max_abs(&self) -> u8 {
        self.max_abs
    }

    /// The whole table, if it is that small.
    pub(crate) fn small(&self) -> Option<&[f32; 16]> {
        self.values.first_chunk().filter(|_| self.len <= 16)
    }

    /// Whether codes are below 128.
    pub(crate) fn is_half(&self) -> bool {
        self.len <= 128
    }

    /// The values over the step, for the codes there are.
    pub(crate) fn multiples(&self) -> &[[i8; 16]] {
        &self.multiples[..self.len.div_ceil(16)]
    }
}

/// The step of which all values are multiples of -127 to 127 within a rounding error of the largest, and the largest
/// multiple. Linear quantisation makes such tables, k-means does not.
fn grid(values: &[f32]) -> Option<(f32, u8)> {
    let mut sorted = values.to_vec();
    sorted.push(0.0);
    sorted.sort_by(f32::total_cmp);
    let most = sorted.iter().fold(0f32, |m, v| m.max(v.abs()));
    let tolerance = f64::from(most) * 2f64.powi(-22);
    let gaps = sorted.windows(2).map(|w| f64::from(w[1]) - f64::from(w[0]));
    let least = gaps.filter(|&gap| gap > tolerance).fold(f64::MAX, f64::min);
    // Over the whole range the rounding errors of a single gap vanish.
    let multiples = (f64::from(most) / least).round();
    if !(1.0..=127.0).contains(&multiples) {
        return None;
    }
    let step = (f64::from(most) / multiples) as f32;
    let near = |v: &f32| {
        let v = f64::from(*v);
        let multiple = (v / f64::from(step)).round();
        (v - multiple * f64::from(step)).abs() <= tolerance
    };
    sorted.iter().all(near).then_some((step, multiples as u8))
}

/// Steps of [`TileValues::I8`].
#[derive(Clone, Copy, Debug)]
pub enum Steps<'a> {
    /// One for the tile.
    Layer(f32),
    /// One per lane: `[panel of the tile][8]`.
    Channel(&'a [f32]),
    /// One per lane and block of `len` k counted from k = 0 of the layer: `[panel of the tile][block of the layer][8]`.
    Block {
        /// Length of a block in k.
        len: usize,
        /// Blocks per panel: `ceil(layer k / len)`.
        blocks: usize,
        /// The steps.
        steps: &'a [f32],
    },
}

impl WeightTile<'_> {
    /// One weight: panel of the tile, k of the tile, lane. Slow; for tests and tools.
    pub fn weight(&self, panel: usize, k: usize, lane: usize) -> f32 {
        let at = (panel * self.k_len + k) * PANEL + lane;
        match self.values {
            TileValues::F32(values) => values[at],
            TileValues::I8 { q, steps } => {
                let step = match steps {
                    Steps::Layer(step) => step,
                    Steps::Channel(steps) => steps[panel * PANEL + lane],
                    Steps::Block { len, blocks, steps } => {
                        steps[(panel * blocks + (self.k0 + k) / len) * PANEL + lane]
                    }
                };
                f32::from(q[at]) * step
            }
            TileValues::Lut { codes, lut } => lut.values[usize::from(codes[at])],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Lut;

    #[test]
    fn finds_the_step_of_linear_quantisation_only() {
        let (min, delta) = (-0.731f32, 0.0127f32);
        let zero = (-min / delta).round() as usize;
        let linear: Vec<f32> = (0..128)
            .map(|c| {
                if c == zero {
                    0.0
                } else {
                    (c as f32 - zero as f32) * delta
                }
            })
            .collect();
        let lut = Lut::new(&linear);
        assert!((lut.step() / delta - 1.0).abs() < 1e-6);
        assert_eq!(usize::from(lut.max_abs()), zero.max(127 - zero));
        for (integer, value) in lut.multiples().as_flattened().iter().zip(lut.values()) {
            assert!((f32::from(*integer) * lut.step() - value).abs() <= 1e-6 * 0.9);
        }
        let squares: Vec<f32> = (0..128).map(|c| (c * c) as f32 * delta).collect();
        for other in [
            squares,
            vec![],
            vec![0.0],
            vec![f32::NAN, 1.0],
            vec![0.001, 1.0],
        ] {
            assert_eq!(Lut::new(&other).step(), 0.0, "{other:?}");
        }
        assert_eq!(Lut::new(&[0.0, 2.5, -5.0]).step(), 2.5);
    }
}
