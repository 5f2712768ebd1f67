//! Layer records: how one layer's weights are coded, cut into tiles and described for an integer path.
//!
//! Weights are stored in *panels* of 8 consecutive output channels, `[k][8]`; panels never straddle groups and the last
//! panel of a group is padded with zeros. `k` runs over the inputs of one output channel in [`KOrder`]. A depthwise
//! layer (one input channel per group) has panels of 8 channels x taps, `[tap][8]`, which run across groups.
//! The unit that can be decoded alone is a *tile*: whole panels, or a k-range of one panel, at most 64 Ki weights.

use std::ops::Range;

/// Output channels of a panel.
pub const PANEL: usize = 8;
/// Most weights (padding included) of one tile.
pub const MAX_TILE_WEIGHTS: usize = 65_536;
/// Longest Huffman code, in bits.
pub const MAX_CODE_LENGTH: u8 = 12;

/// One layer's coded weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Name of the node in the original network; unique within the network.
    pub name: String,
    /// Geometry of the weights.
    pub shape: LayerShape,
    /// Order of `k` within a panel.
    pub k_order: KOrder,
    /// What a code means.
    pub values: Values,
    /// How zeros are carried.
    pub index: Index,
    /// Largest `|q|` of the layer (grid only, else 0).
    pub max_abs_q: u8,
    /// Grid with one step per layer or per output channel: `q` can feed a symmetric i8 kernel as it is.
    pub symmetric_i8: bool,
    /// Sum of `q` per output channel (grid only, else empty): the correction term of an integer kernel.
    pub q_sums: Vec<i32>,
    /// The tiles, in panel order then k order; together they cover the layer exactly.
    pub tiles: Vec<Tile>,
    /// What compression did to this layer.
    pub record: CompressionRecord,
}

/// Geometry of a layer's weights, OIHW.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerShape {
    /// Output channels, all groups together.
    pub out_channels: u32,
    /// Input channels of one group.
    pub in_per_group: u32,
    /// Kernel height and width; 1x1 for a linear layer.
    pub kernel: [u32; 2],
    /// Groups; divides `out_channels`.
    pub groups: u32,
}

impl LayerShape {
    /// One input channel per group and more than one group: panels run across groups.
    pub fn is_depthwise(&self) -> bool {
        self.in_per_group == 1 && self.groups > 1
    }
    /// Inputs of one output channel.
    pub fn k(&self) -> usize {
        self.in_per_group as usize * self.kernel[0] as usize * self.kernel[1] as usize
    }
    /// Panels of one group (of the whole layer when depthwise).
    pub fn panels_per_group(&self) -> usize {
        let channels = if self.is_depthwise() {
            self.out_channels
        } else {
            self.out_channels / self.groups.max(1)
        };
        (channels as usize).div_ceil(PANEL)
    }
    /// Panels of the layer.
    pub fn panels(&self) -> usize {
        if self.is_depthwise() {
            self.panels_per_group()
        } else {
            self.panels_per_group() * self.groups as usize
        }
    }
    /// First output channel of a panel and how many of its 8 lanes are real.
    pub fn panel_channels(&self, panel: usize) -> (usize, usize) {
        let per_group = if self.is_depthwise() {
            self.out_channels
        } else {
            self.out_channels / self.groups.max(1)
        } as usize;
        let (group, inner) = (
            panel / self.panels_per_group().max(1),
            panel % self.panels_per_group().max(1),
        );
        let first = inner * PANEL;
        (
            group * per_group + first,
            per_group.saturating_sub(first).min(PANEL),
        )
    }
    /// Blocks of at most `size` neighbouring output channels that do not straddle panels: first channel and number of
    /// channels. Where the channels of a panel are no multiple, its last block is smaller.
    pub fn channel_blocks(&self, size: usize) -> Vec<(usize, usize)> {
        let size = size.max(1);
        let blocks = (0..self.panels()).flat_map(|panel| {
            let (first, channels) = self.panel_channels(panel);
            let starts = (0..channels).step_by(size);
            starts.map(move |at| (first + at, size.min(channels - at)))
        });
        blocks.collect()
    }
    /// Weights without padding.
    pub fn weights(&self) -> u64 {
        u64::from(self.out_channels)
            * self.in_per_group as u64
            * u64::from(self.kernel[0])
            * u64::from(self.kernel[1])
    }
}

/// Order of `k` within a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KOrder {
    /// `k = (ic * kh + y) * kw + x`
    ChannelMajor,
    /// `k = (y * kw + x) * ic_count + ic`
    TapMajor,
}

/// What a code means.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// IEEE binary32, no codes.
    Raw32,
    /// IEEE binary16, no codes.
    Raw16,
    /// Code `c` is `values[c]`, bit-exact; at most 256.
    Codebook {
        /// The values.
        values: Vec<f32>,
        /// The code whose value is exactly zero, if there is one.
        zero_code: Option<u8>,
    },
    /// Code `c` in `0..2^bits` is `min + c * delta`, computed in f32 as one multiplication and one addition.
    Minmax {
        /// Value of code 0.
        min: f32,
        /// Distance of neighbouring codes.
        delta: f32,
        /// 1 to 8.
        bits: u8,
        /// The code that stands for exactly zero (its value is 0.0 whatever `min + c * delta` rounds to), if there is one.
        zero_code: Option<u8>,
    },
    /// Code `q` in -127..=127 is `q * step`, computed in f32; zero is 0.
    Grid {
        /// The steps.
        steps: Steps,
    },
}

/// Steps of a grid; finite, positive.
#[derive(Clone, Debug, PartialEq)]
pub enum Steps {
    /// One for the layer.
    Layer(f32),
    /// One per output channel.
    Channel(Vec<f32>),
    /// One per output channel and block of `len` consecutive k: `[out_channel][ceil(k / len)]`.
    Block {
        /// Length of a block in k.
        len: u32,
        /// The steps.
        steps: Vec<f32>,
    },
}

/// How zeros are carried, and which code tables are used.
#[derive(Clone, Debug, PartialEq)]
pub enum Index {
    /// Raw values, every weight present.
    Raw,
    /// Zero is a symbol like the others.
    Dense {
        /// Code table of the values.
        values: TableId,
    },
    /// One byte per k whose bit `i` says that channel `i` of the panel is present.
    Mask {
        /// Code table of the mask bytes; none: stored raw.
        mask: Option<TableId>,
        /// Code table of the present values.
        values: TableId,
    },
    /// n-bit distance to the previous present weight; 2^n - 1 zeros followed by a filler.
    Gaps {
        /// n, from 2 to 8.
        bits: u8,
        /// Code table of the gaps.
        gaps: TableId,
        /// Code table of the values.
        values: TableId,
    },
    /// k fall into classes, each with code tables of its own.
    Classes(Classes),
}

/// Rows (the 8 lanes of a panel at one k) in classes, see [`Index::Classes`].
#[derive(Clone, Debug, PartialEq)]
pub struct Classes {
    /// 1 to [`MAX_CLASSES`].
    pub classes: Vec<Class>,
    /// Consecutive k that share a class; the layer's k with one class.
    pub block: u32,
    /// Class of each block of k, `ceil(k / block)` of them; empty with one class.
    pub map: Vec<u8>,
}

/// Most classes of a layer.
pub const MAX_CLASSES: usize = 8;

/// How the rows of one class are coded.
#[derive(Clone, Debug, PartialEq)]
pub enum Class {
    /// All weights are zero.
    Empty,
    /// Zero is a value like the others.
    Dense {
        /// Code of the values.
        values: ValueCode,
    },
    /// One byte per row whose bit `i` says that lane `i` is present.
    Mask {
        /// Code table of the mask bytes.
        mask: TableId,
        /// Code of the values.
        values: ValueCode,
    },
    /// One bit per row says that any lane is present; mask bytes of those rows only.
    Rows {
        /// Code table of the bytes of 8 such bits.
        rows: TableId,
        /// Code table of the mask bytes.
        mask: TableId,
        /// Code of the values.
        values: ValueCode,
    },
}

impl Class {
    /// The code of the values, unless there are none.
    pub fn values(&self) -> Option<&ValueCode> {
        match self {
            Class::Empty => None,
            Class::Dense { values } | Class::Mask { values, .. } | Class::Rows { values, .. } => {
                Some(values)
            }
        }
    }
    /// Tables of the index: of the bytes that mark rows, and of the mask bytes.
    pub fn index_tables(&self) -> [Option<TableId>; 2] {
        match *self {
            Class::Empty | Class::Dense { .. } => [None, None],
            Class::Mask { mask, .. } => [None, Some(mask)],
            Class::Rows { rows, mask, .. } => [Some(rows), Some(mask)],
        }
    }
}

/// Values coded singly or several to a symbol.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueCode {
    /// Code table.
    pub table: TableId,
    /// Values per symbol, 1 to [`MAX_GROUP`].
    pub group: u8,
    /// Digit of a symbol to value; empty for single values, whose symbols are the values.
    pub alphabet: Vec<u8>,
    /// The digit after the alphabet stands for a value that is stored as it is.
    pub escape: bool,
}

/// Most values of a symbol.
pub const MAX_GROUP: u8 = 4;

impl ValueCode {
    /// Digits: the base in which a symbol of several values is a number, its first value the lowest digit.
    pub fn base(&self) -> usize {
        self.alphabet.len() + usize::from(self.escape)
    }
}

impl Classes {
    /// Numbers of a layer's blocks of k.
    pub(crate) fn blocks(&self, k: usize) -> usize {
        k.div_ceil((self.block as usize).max(1))
    }
    /// Visits the blocks of a range of k: the class, where in the range the block begins and ends.
    pub(crate) fn for_each_run(&self, k: usize, len: usize, mut run: impl FnMut(u8, Range<usize>)) {
        let block = (self.block as usize).max(1);
        let (mut start, mut stop) = (0, (block - k % block).min(len));
        let mut map = self.map.get(k / block..).unwrap_or_default().iter();
        while start < len {
            run(map.next().copied().unwrap_or(0), start..stop);
            (start, stop) = (stop, (stop + block).min(len));
        }
    }
}

impl Index {
    /// Counts tables from another place of the pool.
    pub(crate) fn shift_tables(&mut self, offset: u32) {
        let shift = |id: &mut TableId| id.0 += offset;
        match self {
            Index::Raw => {}
            Index::Dense { values } => shift(values),
            Index::Mask { mask, values } => {
                mask.iter_mut().for_each(shift);
                shift(values);
            }
            Index::Gaps { gaps, values, .. } => {
                shift(gaps);
                shift(values);
            }
            Index::Classes(classes) => {
                for class in &mut classes.classes {
                    match class {
                        Class::Empty => {}
                        Class::Dense { values } => shift(&mut values.table),
                        Class::Mask { mask, values } => {
                            shift(mask);
                            shift(&mut values.table);
                        }
                        Class::Rows { rows, mask, values } => {
                            shift(rows);
                            shift(mask);
                            shift(&mut values.table);
                        }
                    }
                }
            }
        }
    }
}

/// Index into the container's pool of code tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub u32);

/// One tile: decodable alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// First panel.
    pub panel: u32,
    /// Whole panels covered (1 when the tile is a k-range).
    pub panels: u32,
    /// First k.
    pub k: u32,
    /// Number of k; the layer's k when the tile holds whole panels.
    pub k_len: u32,
    /// Byte offset within the network's weights section.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
    /// CRC-32C of those bytes.
    pub crc: u32,
    /// Present weights (fillers included for `gaps`; all for dense and raw).
    pub present: u32,
    /// Largest `|q|` of the tile (grid only, else 0).
    pub max_abs_q: u8,
}

impl Tile {
    /// Weights including padding lanes.
    pub fn weights(&self) -> usize {
        self.panels as usize * self.k_len as usize * PANEL
    }
}

/// What compression did to a layer; for reports, never read by the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct CompressionRecord {
    /// Weights that are exactly zero.
    pub zeros: u64,
    /// Fixed width of a value, in bits (32 for raw).
    pub value_bits: u8,
    /// Fixed width of an index entry, in bits: n for `gaps`; 5, the width of the seed's relative index, for `dense` and
    /// `mask`; 0 for raw.
    pub index_bits: u8,
    /// Filler zeros that gaps of `index_bits` need, restarting at each tile.
    pub fillers: u64,
    /// Bits of the coded values, tables not included.
    pub value_payload_bits: u64,
    /// Bits of the value table (shared tables charged to their first user).
    pub value_table_bits: u64,
    /// Bits of the coded index.
    pub index_payload_bits: u64,
    /// Bits of the index table.
    pub index_table_bits: u64,
    /// Cosine between the original float weights and the decoded ones.
    pub cosine: f32,
    /// Largest absolute difference between them.
    pub max_error: f32,
}
