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
        lut: &'a [f32; 256],
    },
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
            TileValues::Lut { codes, lut } => lut[usize::from(codes[at])],
        }
    }
}
