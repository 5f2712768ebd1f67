//! Symbol counts of a layer under every index mode at once, and what each mode would cost.
//!
//! One pass over the tiles collects the counts; the costs are exact in code bits and table bits, and take the padding of
//! sub-streams at half a byte each. Choosing a mode this way needs no trial encoding.

use super::gaps::{GAP_BITS, for_each_run, split_run};
use super::streams::SUB_STREAMS;
use super::{CodeLengths, CodecError};

/// Counts of the 256 symbols.
pub type Histogram = [u64; 256];

/// Adds the codes of present weights (`mask` as in [`super::encode_tile`]) to a histogram.
pub fn value_histogram(codes: &[u8], mask: &[u8], counts: &mut Histogram) {
    for_each_run(mask, |_, position| {
        if let Some(code) = codes.get(position) {
            counts[usize::from(*code)] += 1;
        }
    });
}

/// Adds symbols to a histogram: all codes of a tile (`dense`), or its mask bytes.
pub fn symbol_histogram(symbols: &[u8], counts: &mut Histogram) {
    for symbol in symbols {
        counts[usize::from(*symbol)] += 1;
    }
}

/// Adds the gaps of one tile to a histogram; gives the number of fillers, each of which is counted as a gap of
/// `2^bits - 1` (their values are not counted anywhere).
pub fn gap_histogram(mask: &[u8], bits: u8, counts: &mut Histogram) -> Result<u64, CodecError> {
    super::gaps::check_bits(bits)?;
    let mut all = 0u64;
    for_each_run(mask, |run, _| {
        let (fillers, gap) = split_run(run, bits);
        counts[usize::from(gap)] += 1;
        all += fillers as u64;
    });
    counts[(1usize << bits) - 1] += all;
    Ok(all)
}

/// Place of a gap width among those counted.
fn gap_slot(bits: u8) -> usize {
    usize::from(bits.clamp(*GAP_BITS.start(), *GAP_BITS.end()) - GAP_BITS.start())
}

/// Counts of a layer for all index modes.
#[derive(Clone, Debug)]
pub struct LayerHistogram {
    tiles: u64,
    /// All codes.
    pub all: Histogram,
    /// Codes of present weights.
    pub present: Histogram,
    /// Mask bytes.
    pub masks: Histogram,
    /// Gaps without fillers, for widths 2 to 8.
    gaps: [Histogram; 7],
    /// Fillers, for widths 2 to 8.
    fillers: [u64; 7],
}

impl Default for LayerHistogram {
    fn default() -> Self {
        LayerHistogram {
            tiles: 0,
            all: [0; 256],
            present: [0; 256],
            masks: [0; 256],
            gaps: [[0; 256]; 7],
            fillers: [0; 7],
        }
    }
}

/// What a layer costs under one index mode, with the codes that give this cost.
#[derive(Clone, Debug)]
pub struct ModeCost {
    /// Bits of the index codes (of the raw mask).
    pub index_bits: u64,
    /// Bits of the value codes.
    pub value_bits: u64,
    /// Bits of the stored index table.
    pub index_table_bits: u64,
    /// Bits of the stored value table.
    pub value_table_bits: u64,
    /// Stream lengths and padding of all tiles; padding estimated.
    pub overhead_bits: u64,
    /// Value symbols, fillers included.
    pub present: u64,
    /// Fillers among them.
    pub fillers: u64,
    /// Code of the mask bytes or gaps; none: `dense`, or a raw mask.
    pub index: Option<CodeLengths>,
    /// Code of the values.
    pub values: CodeLengths,
}

impl ModeCost {
    /// All bits together.
    pub fn total_bits(&self) -> u64 {
        self.index_bits
            + self.value_bits
            + self.index_table_bits
            + self.value_table_bits
            + self.overhead_bits
    }
}

impl LayerHistogram {
    /// No tiles yet.
    pub fn new() -> Self {
        LayerHistogram::default()
    }

    /// Adds a tile: codes and mask as in [`super::encode_tile`].
    pub fn add_tile(&mut self, codes: &[u8], mask: &[u8]) {
        self.tiles += 1;
        symbol_histogram(codes, &mut self.all);
        symbol_histogram(mask, &mut self.masks);
        value_histogram(codes, mask, &mut self.present);
        for_each_run(mask, |run, _| {
            for ((counts, fillers), bits) in
                self.gaps.iter_mut().zip(&mut self.fillers).zip(GAP_BITS)
            {
                let (filled, gap) = split_run(run, bits);
                counts[usize::from(gap)] += 1;
                *fillers += filled as u64;
            }
        });
    }

    /// Cost of `dense` with codes of at most `max_len` bits.
    pub fn dense(&self, max_len: u8) -> ModeCost {
        self.cost(None, 0, &self.all, 0, max_len)
    }

    /// Cost of `mask` with raw or coded mask bytes.
    pub fn mask(&self, coded: bool, max_len: u8) -> ModeCost {
        let raw = if coded {
            0
        } else {
            8 * self.masks.iter().sum::<u64>()
        };
        self.cost(coded.then_some(&self.masks), raw, &self.present, 0, max_len)
    }

    /// Cost of `gaps` of `bits` bits; `filler` is the value symbol of a filler. The bits are limited to 2..=8.
    pub fn gaps(&self, bits: u8, filler: u8, max_len: u8) -> ModeCost {
        let fillers = self.gap_fillers(bits);
        let mut values = self.present;
        values[usize::from(filler)] += fillers;
        self.cost(Some(&self.gap_counts(bits)), 0, &values, fillers, max_len)
    }

    /// Fillers that gaps of `bits` bits (limited to 2..=8) need.
    pub fn gap_fillers(&self, bits: u8) -> u64 {
        self.fillers[gap_slot(bits)]
    }

    /// Counts of the gaps of `bits` bits (limited to 2..=8), fillers included.
    pub fn gap_counts(&self, bits: u8) -> Histogram {
        let slot = gap_slot(bits);
        let mut counts = self.gaps[slot];
        counts[(4usize << slot) - 1] += self.fillers[slot];
        counts
    }

    fn cost(
        &self,
        index: Option<&Histogram>,
        raw: u64,
        values: &Histogram,
        fillers: u64,
        max_len: u8,
    ) -> ModeCost {
        let stream_overhead = (SUB_STREAMS * (16 + 4)) as u64;
        let code = CodeLengths::from_counts(values, max_len);
        let index_code = index.map(|counts| (counts, CodeLengths::from_counts(counts, max_len)));
        ModeCost {
            index_bits: index_code.map_or(raw, |(counts, code)| code.payload_bits(counts)),
            value_bits: code.payload_bits(values),
            index_table_bits: index_code.map_or(0, |(_, code)| code.table_bits()),
            value_table_bits: code.table_bits(),
            overhead_bits: self.tiles * stream_overhead * (1 + u64::from(index.is_some())),
            present: values.iter().sum(),
            fillers,
            index: index_code.map(|(_, code)| code),
            values: code,
        }
    }
}
