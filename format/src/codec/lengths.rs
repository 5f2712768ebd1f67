//! Canonical prefix codes as a list of lengths, and how the list is stored.
//!
//! Codes are numbered by length, then by symbol value, starting at zero: the usual canonical rule. The list is stored for a
//! range of symbols that may wrap around 255 -> 0 (grid codes are signed, so the range -15..=15 is 241..=255, 0..=15), in
//! one of three forms, whichever is shortest: four bits per symbol; or unary ranks of the difference to a prediction, which
//! is the previous length (values: neighbouring levels have similar counts) or the length of the previous symbol with the
//! same number of bits set (mask bytes). The last two need some 1.5 bits per symbol on real layers.

use super::{CodecError, package_merge};
use crate::layer::MAX_CODE_LENGTH;

const FORM_NIBBLES: u8 = 0;
const FORM_NEIGHBOUR: u8 = 1;
const FORM_POPULATION: u8 = 2;
/// Prediction before the first present symbol.
const FIRST_PREDICTION: u8 = 8;
/// The rank that stands for an absent symbol.
const ABSENT_RANK: u8 = 3;

/// Code lengths of the 256 symbols, 0 for a symbol without a code, else 1 to 12.
///
/// Valid when the code is complete (the sum of `2^-length` is 1) or when exactly one symbol has a code, of length 1.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CodeLengths(pub [u8; 256]);

impl std::fmt::Debug for CodeLengths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(self.0.iter().enumerate().filter(|(_, length)| **length > 0))
            .finish()
    }
}

impl CodeLengths {
    /// The optimal lengths of at most `max_len` bits (8 to 12; more is cut to 12, less is raised as far as needed to give
    /// every symbol a code). Counts that are all zero give the code of the single symbol 0.
    pub fn from_counts(counts: &[u64; 256], max_len: u8) -> Self {
        CodeLengths(package_merge::lengths(
            counts,
            max_len.clamp(1, MAX_CODE_LENGTH),
        ))
    }

    /// The code of a symbol: its bits as a number (the first bit written is the most significant) and its length; length 0
    /// when it has none.
    pub fn code(&self, symbol: u8) -> (u16, u8) {
        let length = self.0[usize::from(symbol)];
        if length == 0 {
            return (0, 0);
        }
        let mut code = 0u32;
        for (other, &l) in (0u8..=255).zip(&self.0) {
            if l > 0 && (l < length || (l == length && other < symbol)) {
                code = code.wrapping_add(1u32.wrapping_shl(u32::from(length - l)));
            }
        }
        (code as u16, length)
    }

    /// Codes of all symbols, bit-reversed for least-significant-bit-first streams.
    pub(super) fn reversed_codes(&self) -> [u16; 256] {
        let mut count = [0u32; 17];
        for &length in &self.0 {
            count[usize::from(length.min(16))] += 1;
        }
        count[0] = 0;
        let mut next = [0u32; 17];
        for length in 1..=16 {
            next[length] = next[length - 1].wrapping_add(count[length - 1]) << 1;
        }
        let mut codes = [0u16; 256];
        for (code, &length) in codes.iter_mut().zip(&self.0) {
            if (1..=16).contains(&length) {
                let slot = &mut next[usize::from(length)];
                *code = (*slot as u16).reverse_bits() >> (16 - length);
                *slot = slot.wrapping_add(1);
            }
        }
        codes
    }

    /// Checks the rules stated at the type.
    pub fn validate(&self) -> Result<(), CodecError> {
        let (mut sum, mut symbols) = (0u32, 0u32);
        for (symbol, &length) in (0u8..=255).zip(&self.0) {
            if length > MAX_CODE_LENGTH {
                return Err(CodecError::TableLength { symbol });
            }
            if length > 0 {
                sum += 1 << (MAX_CODE_LENGTH - length);
                symbols += 1;
            }
        }
        let whole = 1u32 << MAX_CODE_LENGTH;
        if sum == whole || (symbols == 1 && sum == whole / 2) {
            Ok(())
        } else {
            Err(CodecError::TableIncomplete)
        }
    }

    /// The only symbol with a code, if there is one only.
    pub fn single(&self) -> Option<u8> {
        let mut coded = (0u8..=255).filter(|symbol| self.0[usize::from(*symbol)] > 0);
        coded.next().filter(|_| coded.next().is_none())
    }

    /// Length of the longest code.
    pub fn longest(&self) -> u8 {
        self.0.iter().copied().max().unwrap_or(0)
    }

    /// The largest symbol with a code.
    pub fn largest_symbol(&self) -> u8 {
        (0u8..=255)
            .rev()
            .find(|symbol| self.0[usize::from(*symbol)] > 0)
            .unwrap_or(0)
    }

    /// Bits that the symbols counted in `counts` take; `u64::MAX` when one of them has no code.
    pub fn payload_bits(&self, counts: &[u64; 256]) -> u64 {
        let mut bits = 0u64;
        for (&length, &count) in self.0.iter().zip(counts) {
            if length == 0 && count > 0 {
                return u64::MAX;
            }
            bits = bits.saturating_add(count.saturating_mul(u64::from(length)));
        }
        bits
    }

    /// Bits of the stored list.
    pub fn table_bits(&self) -> u64 {
        let mut bytes = Vec::new();
        self.serialize(&mut bytes);
        bytes.len() as u64 * 8
    }

    /// Appends the stored list in its shortest form.
    pub fn serialize(&self, out: &mut Vec<u8>) {
        let (first, count) = self.shortest_range();
        let forms = [FORM_NIBBLES, FORM_NEIGHBOUR, FORM_POPULATION];
        let shortest = forms
            .map(|form| self.serialize_as(form, first, count))
            .into_iter()
            .min_by_key(Vec::len);
        out.extend(shortest.unwrap_or_default());
    }

    /// Reads a stored list; gives the lengths, checked, and the number of bytes taken.
    pub fn parse(bytes: &[u8]) -> Result<(Self, usize), CodecError> {
        let byte = |offset: usize| {
            bytes
                .get(offset)
                .copied()
                .ok_or(CodecError::TableTruncated { offset })
        };
        let (form, first, count) = (byte(0)?, byte(1)?, usize::from(byte(2)?) + 1);
        if form > FORM_POPULATION {
            return Err(CodecError::TableForm { form });
        }
        let mut reader = BitReader { bytes, at: 24 };
        let mut lengths = [0u8; 256];
        let mut prediction = Prediction::new(form);
        for i in 0..count {
            let symbol = first.wrapping_add(i as u8);
            let length = if form == FORM_NIBBLES {
                (0..4).try_fold(0u8, |nibble, bit| {
                    Ok(nibble | (u8::from(reader.bit()?) << bit))
                })?
            } else {
                let mut rank = 0u8;
                while reader.bit()? {
                    rank += 1;
                    if rank > 2 * MAX_CODE_LENGTH {
                        return Err(CodecError::TableLength { symbol });
                    }
                }
                length_of_rank(rank, prediction.get(symbol))
                    .ok_or(CodecError::TableLength { symbol })?
            };
            if length > MAX_CODE_LENGTH {
                return Err(CodecError::TableLength { symbol });
            }
            prediction.set(symbol, length);
            lengths[usize::from(symbol)] = length;
        }
        let lengths = CodeLengths(lengths);
        let used = reader.finish()?;
        lengths.validate()?;
        Ok((lengths, used))
    }

    /// The shortest cyclic range that holds every coded symbol: first symbol and number of symbols (at least 1).
    fn shortest_range(&self) -> (u8, usize) {
        let coded: Vec<u8> = (0u8..=255)
            .filter(|symbol| self.0[usize::from(*symbol)] > 0)
            .collect();
        let mut best = (0u8, 256usize);
        for (i, &first) in coded.iter().enumerate() {
            let last = coded[(i + coded.len() - 1) % coded.len()];
            let count = usize::from(last.wrapping_sub(first)) + 1;
            if count < best.1 {
                best = (first, count);
            }
        }
        best
    }

    fn serialize_as(&self, form: u8, first: u8, count: usize) -> Vec<u8> {
        let mut bytes = vec![form, first, (count - 1) as u8];
        let mut bits: Vec<bool> = Vec::new();
        let mut prediction = Prediction::new(form);
        for i in 0..count {
            let symbol = first.wrapping_add(i as u8);
            let length = self.0[usize::from(symbol)];
            if form == FORM_NIBBLES {
                bits.extend((0..4).map(|bit| (length >> bit) & 1 == 1));
            } else {
                let rank = rank_of_length(length, prediction.get(symbol));
                bits.extend((0..rank).map(|_| true));
                bits.push(false);
            }
            prediction.set(symbol, length);
        }
        for chunk in bits.chunks(8) {
            bytes.push(
                chunk
                    .iter()
                    .enumerate()
                    .fold(0, |byte, (i, bit)| byte | (u8::from(*bit) << i)),
            );
        }
        bytes
    }
}

/// Rank of a length given its prediction: the difference in the order 0, +1, -1, (absent), +2, -2, +3, ...
fn rank_of_length(length: u8, prediction: u8) -> u8 {
    if length == 0 {
        return ABSENT_RANK;
    }
    let zigzag = if length > prediction {
        2 * (length - prediction) - 1
    } else {
        2 * (prediction - length)
    };
    if zigzag >= ABSENT_RANK {
        zigzag + 1
    } else {
        zigzag
    }
}

/// The inverse of [`rank_of_length`]; none when the length would be outside 1..=12.
fn length_of_rank(rank: u8, prediction: u8) -> Option<u8> {
    if rank == ABSENT_RANK {
        return Some(0);
    }
    let zigzag = if rank > ABSENT_RANK { rank - 1 } else { rank };
    let distance = zigzag.div_ceil(2);
    let length = if zigzag % 2 == 1 {
        prediction.checked_add(distance)?
    } else {
        prediction.checked_sub(distance)?
    };
    (1..=MAX_CODE_LENGTH).contains(&length).then_some(length)
}

/// The last present length, of all symbols or per number of bits set.
struct Prediction {
    by_population: bool,
    last: [u8; 9],
}

impl Prediction {
    fn new(form: u8) -> Self {
        Prediction {
            by_population: form == FORM_POPULATION,
            last: [FIRST_PREDICTION; 9],
        }
    }
    fn class(&self, symbol: u8) -> usize {
        if self.by_population {
            symbol.count_ones() as usize
        } else {
            0
        }
    }
    fn get(&self, symbol: u8) -> u8 {
        self.last[self.class(symbol)]
    }
    fn set(&mut self, symbol: u8, length: u8) {
        if length > 0 {
            self.last[self.class(symbol)] = length;
        }
    }
}

/// Bits of a serialised table, least significant first.
struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl BitReader<'_> {
    fn bit(&mut self) -> Result<bool, CodecError> {
        let offset = self.at / 8;
        let byte = self
            .bytes
            .get(offset)
            .ok_or(CodecError::TableTruncated { offset })?;
        let bit = (byte >> (self.at % 8)) & 1 == 1;
        self.at += 1;
        Ok(bit)
    }
    /// Checks the padding; gives the bytes taken.
    fn finish(mut self) -> Result<usize, CodecError> {
        while !self.at.is_multiple_of(8) {
            if self.bit()? {
                return Err(CodecError::TablePadding {
                    offset: (self.at - 1) / 8,
                });
            }
        }
        Ok(self.at / 8)
    }
}
