//! Multi-symbol decode tables.
//!
//! The table of width w answers, for any w bits ahead in the stream, up to six symbols at once: as many as have their whole
//! code within those bits. Building it naively walks every index symbol by symbol; here tables of all smaller widths v < w
//! are built first. If the first code of an index has length l, the rest of its answer is exactly the answer of the
//! table of width w - l for the bits that remain, so the entries of one first symbol are a copy of that smaller table with
//! the symbol put in front: contiguous reads, strided writes, no search. All widths together cost at most twice the final
//! table and much less when the shortest code is long (2 to 6 us at width 11). It loses to a plain one-symbol table only
//! when fewer than a few hundred symbols are decoded with it; layers that small should share a table.
//!
//! Idea of one look-up for several symbols: the X2 decoder of zstd's huff0.

use super::{CodeLengths, CodecError};

/// Most symbols of an entry.
const MAX_SYMBOLS: usize = 6;
/// Position of the number of symbols in an entry; it takes the three bits from here to the top.
pub(super) const COUNT_SHIFT: u32 = 61;
/// Mask of the bits that an entry consumes (its low byte never exceeds 12).
pub(super) const BITS_MASK: u64 = 63;

/// Symbols below which smaller tables take longer than they save.
const FEW_SYMBOLS: usize = 6144;

/// The widths a table may have.
pub const TABLE_WIDTHS: [u8; 2] = [11, 12];

/// A decode table with a fixed allocation: [`DecodeTable::new`] allocates, [`DecodeTable::build`] does not.
///
/// What only building needs is a [`BuildSpace`], which any number of tables share. An entry is, from the least significant byte: bits consumed, six symbols in order, number of symbols in the top 3 bits.
pub struct DecodeTable {
    /// `2^capacity` entries, of which `2^width` are in use.
    entries: Box<[u64]>,
    lengths: CodeLengths,
    capacity: u8,
    /// 0: not built.
    width: u8,
    single: Option<u8>,
    largest_symbol: u8,
}

/// Room for the smaller tables while a table is built: width v at `2^v..2^(v + 1)`.
#[derive(Clone, Debug, Default)]
pub struct BuildSpace(Box<[u64]>);

impl BuildSpace {
    /// For tables of widths up to `max_bits` (cut to 12): `8 << max_bits` bytes; nothing for 0.
    pub fn new(max_bits: u8) -> Self {
        BuildSpace(allocate(max_bits.min(TABLE_WIDTHS[1])))
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

fn allocate(bits: u8) -> Box<[u64]> {
    let len = if bits > 0 { 1 << bits } else { 0 };
    vec![0; len].into_boxed_slice()
}

impl std::fmt::Debug for DecodeTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecodeTable")
            .field("width", &self.width)
            .field("lengths", &self.lengths)
            .finish()
    }
}

impl DecodeTable {
    /// A table that can be built with widths up to `max_bits` (cut to 12): `8 << max_bits` bytes.
    pub fn new(max_bits: u8) -> Self {
        let capacity = max_bits.min(TABLE_WIDTHS[1]);
        DecodeTable {
            entries: allocate(capacity),
            lengths: CodeLengths([0; 256]),
            capacity,
            width: 0,
            single: None,
            largest_symbol: 0,
        }
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.entries)
    }

    /// The lengths the table was last built from; none before the first successful build.
    pub fn lengths(&self) -> Option<&CodeLengths> {
        (self.width > 0).then_some(&self.lengths)
    }

    /// Index bits; 0 before the first successful build.
    pub fn width(&self) -> u8 {
        self.width
    }

    /// Builds the table for a code. `width` is 11 or 12 and at least the longest code. Allocates nothing.
    pub fn build(
        &mut self,
        lengths: &CodeLengths,
        width: u8,
        space: &mut BuildSpace,
    ) -> Result<(), CodecError> {
        self.build_for(lengths, width, usize::MAX, space)
    }

    /// [`build`](Self::build) for so many symbols: a table for few of them yields one at a time.
    pub(crate) fn build_for(
        &mut self,
        lengths: &CodeLengths,
        width: u8,
        symbols: usize,
        space: &mut BuildSpace,
    ) -> Result<(), CodecError> {
        self.width = 0;
        lengths.validate()?;
        let longest = lengths.longest();
        if !TABLE_WIDTHS.contains(&width) || longest > width {
            return Err(CodecError::TableWidth { width, longest });
        }
        let room = space.0.len().checked_ilog2().unwrap_or(0) as u8;
        let capacity = self.capacity.min(room);
        if width > capacity {
            return Err(CodecError::TableCapacity { width, capacity });
        }
        self.lengths = *lengths;
        self.largest_symbol = lengths.largest_symbol();
        self.single = lengths.single();
        if self.single.is_none() {
            self.fill(width, symbols >= FEW_SYMBOLS, space);
        }
        self.width = width;
        Ok(())
    }

    /// `several`: symbols per look-up.
    fn fill(&mut self, width: u8, several: bool, space: &mut BuildSpace) {
        let codes = self.lengths.reversed_codes();
        // Symbols by length, then value: a counting sort.
        let mut starts = [0u16; 17];
        for &length in self.lengths.0.iter().filter(|length| **length > 0) {
            starts[usize::from(length & 15) + 1] += 1;
        }
        for length in 1..starts.len() {
            starts[length] += starts[length - 1];
        }
        let used = usize::from(starts[16]);
        let mut order = [(0u8, 0u8, 0u16); 256];
        for ((symbol, &length), code) in (0u8..=255).zip(&self.lengths.0).zip(codes) {
            if length > 0 {
                let place = &mut starts[usize::from(length & 15)];
                order[usize::from(*place & 255)] = (symbol, length, code);
                *place += 1;
            }
        }
        let order = &order[..used];
        let shortest = order.first().map_or(width, |first| first.1);
        let entries = &mut self.entries[..1 << width];
        if !several {
            for &(symbol, length, code) in order {
                let entry = (1 << COUNT_SHIFT) | (u64::from(symbol) << 8) | u64::from(length);
                let places = entries.iter_mut().skip(usize::from(code));
                places.step_by(1 << length).for_each(|place| *place = entry);
            }
            return;
        }
        let smaller = &mut space.0[..1 << width];
        smaller[..1 << (width - shortest + 1)].fill(0);
        for v in shortest..=width - shortest {
            let (below, this) = smaller.split_at_mut(1 << v);
            prepend_all(order, &self.lengths, v, below, &mut this[..1 << v]);
        }
        prepend_all(order, &self.lengths, width, smaller, entries);
    }

    /// The entries, when the table has this many.
    pub(super) fn entries<const N: usize>(&self) -> Option<&[u64; N]> {
        self.entries.get(..1usize << self.width)?.try_into().ok()
    }

    /// Length of a symbol's code.
    pub(super) fn length(&self, symbol: u8) -> u8 {
        self.lengths.0[usize::from(symbol)]
    }

    /// The only symbol, if the code has one only (its code is the bit 0).
    pub(super) fn single(&self) -> Option<u8> {
        self.single
    }

    /// The largest symbol that can be decoded.
    pub(super) fn largest_symbol(&self) -> u8 {
        self.largest_symbol
    }
}

/// Writes the table of width `v`: for each symbol that fits, the table of the remaining width with the symbol in front.
fn prepend_all(
    order: &[(u8, u8, u16)],
    lengths: &CodeLengths,
    v: u8,
    smaller: &[u64],
    table: &mut [u64],
) {
    for &(symbol, length, code) in order {
        if length > v {
            break;
        }
        let rest = 1usize << (v - length);
        let front = (1 << COUNT_SHIFT) | (u64::from(symbol) << 8) | u64::from(length);
        let places = table
            .iter_mut()
            .skip(usize::from(code))
            .step_by(1 << length);
        if length == v {
            places.take(1).for_each(|place| *place = front);
            continue;
        }
        for (place, &tail) in places.zip(&smaller[rest..2 * rest]) {
            let mut tail = tail;
            if tail >> COUNT_SHIFT == MAX_SYMBOLS as u64 {
                let last = (tail >> (8 * MAX_SYMBOLS)) as u8;
                tail -= (1 << COUNT_SHIFT) + u64::from(lengths.0[usize::from(last)]);
            }
            let symbols = (tail >> 8) & 0xff_ffff_ffff;
            let (counts, bits) = (tail & (7 << COUNT_SHIFT), tail & BITS_MASK);
            *place = front + counts + bits + (symbols << 16);
        }
    }
}
