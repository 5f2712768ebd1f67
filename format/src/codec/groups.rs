//! Several values as one symbol: numbers whose digits are places in a small alphabet.
//!
//! A Huffman code spends at least one bit on a symbol, so values that are nearly always +1 or -1 cost up to half a bit more
//! than their entropy. A symbol for two, three or four of them divides that loss. The digits are the most frequent values of
//! the class; all others share one further digit, the escape, and follow as bytes behind the sub-streams. It loses where
//! values have a wide distribution: then many are escapes and a single value costs several bits anyway.

use super::CodecError;
use crate::layer::ValueCode;

/// The values of every symbol.
pub(super) struct Lut {
    values: [[u8; 4]; 256],
    /// Bit i: digit i is an escape.
    escapes: [u8; 256],
}

/// Values stored as they are, at the end of a tile.
pub(super) struct Escapes<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl Escapes<'_> {
    /// Puts the next values into the lanes that `missing` marks.
    #[inline(never)]
    fn fill(&mut self, missing: u8, lanes: &mut [u8]) -> Result<(), CodecError> {
        for (lane, value) in lanes.iter_mut().enumerate() {
            if missing >> lane & 1 == 1 {
                *value = self.next()?;
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Result<u8, CodecError> {
        let byte = self.bytes.get(self.at).copied();
        let missing = CodecError::Truncated {
            offset: self.at,
            needed: 1,
            available: 0,
        };
        self.at += 1;
        byte.ok_or(missing)
    }
}

impl Lut {
    pub(super) fn new(code: &ValueCode) -> Self {
        let (base, group) = (code.base().max(1), usize::from(code.group.min(4)));
        let mut lut = Lut {
            values: [[0; 4]; 256],
            escapes: [0; 256],
        };
        let mut digits = [0usize; 4];
        let symbols = base.saturating_pow(group as u32);
        let entries = lut.values.iter_mut().zip(&mut lut.escapes);
        for (values, escapes) in entries.take(symbols) {
            for (i, (value, digit)) in values.iter_mut().zip(digits).take(group).enumerate() {
                match code.alphabet.get(digit) {
                    Some(symbol) => *value = *symbol,
                    None => *escapes |= 1 << i,
                }
            }
            for digit in digits.iter_mut().take(group) {
                *digit += 1;
                if *digit < base {
                    break;
                }
                *digit = 0;
            }
        }
        lut
    }

    /// The last bytes of `values` are symbols, `ceil(values.len() / group)` of them; they become `values`, front to back. A
    /// symbol is read before its place is written: the values of a group end at the next symbol at the latest.
    pub(super) fn expand(
        &self,
        code: &ValueCode,
        values: &mut [u8],
        escapes: &mut Escapes<'_>,
    ) -> Result<(), CodecError> {
        let group = usize::from(code.group.clamp(2, 4));
        let count = values.len();
        let (whole, rest) = (count / group, count % group);
        let first = count - count.div_ceil(group);
        let mut i = 0;
        while i < whole {
            let start = i * group;
            // Four symbols at a time while their places, written in whole words, end before the symbols that come later.
            if i + 4 <= whole
                && start + 3 * group + 4 <= first + i + 4
                && let Some(symbols) = values.get(first + i..first + i + 4)
            {
                let symbols = [symbols[0], symbols[1], symbols[2], symbols[3]].map(usize::from);
                let missing = symbols.map(|symbol| self.escapes[symbol]);
                let places = &mut values[start..start + 3 * group + 4];
                for (place, symbol) in symbols.into_iter().enumerate() {
                    places[place * group..place * group + 4].copy_from_slice(&self.values[symbol]);
                }
                if missing != [0; 4] {
                    for (place, missing) in missing.into_iter().enumerate() {
                        escapes.fill(missing, &mut places[place * group..][..group])?;
                    }
                }
                i += 4;
                continue;
            }
            let symbol = usize::from(values[first + i]);
            let found = self.values[symbol];
            let places = &mut values[start..start + group];
            places.copy_from_slice(&found[..group]);
            if self.escapes[symbol] != 0 {
                escapes.fill(self.escapes[symbol], places)?;
            }
            i += 1;
        }
        if rest > 0 {
            let symbol = usize::from(values[count - 1]);
            // Digits past the last value are zero.
            if symbol >= code.base().pow(rest as u32) {
                return Err(CodecError::GroupRest {
                    symbol: symbol as u8,
                });
            }
            let places = &mut values[whole * group..];
            places.copy_from_slice(&self.values[symbol][..rest]);
            escapes.fill(self.escapes[symbol], places)?;
        }
        Ok(())
    }
}

/// Values to symbols and escapes; none when a value has neither a digit nor an escape.
pub(crate) fn pack(
    code: &ValueCode,
    values: &[u8],
    symbols: &mut Vec<u8>,
    escapes: &mut Vec<u8>,
) -> Result<(), CodecError> {
    if code.group <= 1 {
        symbols.extend_from_slice(values);
        return Ok(());
    }
    let base = code.base();
    let mut digits = [None; 256];
    for (digit, value) in code.alphabet.iter().enumerate() {
        digits[usize::from(*value)] = Some(digit);
    }
    for group in values.chunks(usize::from(code.group)) {
        let mut symbol = 0;
        for value in group.iter().rev() {
            let digit = digits[usize::from(*value)]
                .or(code.escape.then_some(code.alphabet.len()))
                .ok_or(CodecError::MissingCode { symbol: *value })?;
            symbol = symbol * base + digit;
        }
        symbols.push(symbol as u8);
        let unknown = group
            .iter()
            .filter(|value| digits[usize::from(**value)].is_none());
        escapes.extend(unknown);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::TableId;

    #[test]
    fn values_come_back() {
        for (group, alphabet, escape) in [
            (2, vec![1, 255, 2], true),
            (3, vec![0, 1, 255, 2, 254, 3], false),
            (4, vec![1, 255, 9], true),
            (4, vec![7], true),
        ] {
            let code = ValueCode {
                table: TableId(0),
                group,
                alphabet: alphabet.clone(),
                escape,
            };
            for count in 0..23usize {
                let values: Vec<u8> = (0..count)
                    .map(|i| match i * i % 5 {
                        4 if escape => i as u8 + 100,
                        other => alphabet[other % alphabet.len()],
                    })
                    .collect();
                let (mut symbols, mut escapes) = (Vec::new(), Vec::new());
                pack(&code, &values, &mut symbols, &mut escapes).unwrap();
                assert_eq!(symbols.len(), count.div_ceil(usize::from(group)));
                let mut out = vec![0; count];
                out[count - symbols.len()..].copy_from_slice(&symbols);
                let mut tail = Escapes {
                    bytes: &escapes,
                    at: 0,
                };
                Lut::new(&code).expand(&code, &mut out, &mut tail).unwrap();
                assert_eq!(out, values);
                assert_eq!(tail.at, escapes.len());
            }
        }
    }
}
