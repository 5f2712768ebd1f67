//! The class of every block of k in a layer's record: several classes to a symbol, the symbols with a code of their own.
//!
//! With C classes a symbol stands for as many blocks as C^p <= 256 allows, so that neighbours that share a class cost little:
//! some tenths of a bit per block where blocks are small.

use crate::codec::{CodeLengths, CodecError};
use crate::layer::MAX_CODE_LENGTH;

/// Blocks of a symbol.
pub(crate) fn per_symbol(classes: usize) -> usize {
    match classes {
        2 => 8,
        3 => 5,
        4 => 4,
        5 | 6 => 3,
        7 | 8 => 2,
        _ => 1,
    }
}

/// Stored code and bits.
pub(crate) fn pack(map: &[u8], classes: usize) -> Vec<u8> {
    let symbols: Vec<u8> = map
        .chunks(per_symbol(classes))
        .map(|blocks| {
            let digits = blocks.iter().rev();
            digits.fold(0usize, |symbol, class| {
                symbol * classes + usize::from(*class)
            }) as u8
        })
        .collect();
    let mut counts = [0u64; 256];
    symbols.iter().for_each(|s| counts[usize::from(*s)] += 1);
    let code = CodeLengths::from_counts(&counts, MAX_CODE_LENGTH);
    let mut out = Vec::new();
    code.serialize(&mut out);
    // Every symbol was counted, so each has a code.
    let _ = code.write_symbols(&symbols, &mut out);
    out
}

/// The classes of `blocks` blocks and the bytes they took; none when the bytes end early, otherwise what is wrong.
pub(crate) fn unpack(
    bytes: &[u8],
    blocks: usize,
    classes: usize,
) -> Result<(Vec<u8>, usize), CodecError> {
    let (code, used) = CodeLengths::parse(bytes)?;
    let per = per_symbol(classes);
    let count = blocks.div_ceil(per);
    let rest = bytes.get(used..).unwrap_or_default();
    if count > rest.len().saturating_mul(8) {
        return Err(truncated(bytes.len()));
    }
    let symbols = Canonical::new(&code);
    let mut at = 0;
    let mut map = Vec::with_capacity(blocks);
    for _ in 0..count {
        let mut symbol = symbols.next(rest, &mut at).ok_or(truncated(bytes.len()))?;
        for _ in 0..per {
            if map.len() < blocks {
                map.push((symbol % classes) as u8);
                symbol /= classes;
            }
        }
        if symbol != 0 {
            return Err(CodecError::InvalidCode {
                offset: used + at / 8,
            });
        }
    }
    let spare = rest.get(at / 8).map_or(0, |byte| byte >> (at % 8));
    if at % 8 != 0 && spare != 0 {
        return Err(CodecError::Padding {
            offset: used + at / 8,
        });
    }
    Ok((map, used + at.div_ceil(8)))
}

fn truncated(offset: usize) -> CodecError {
    CodecError::TableTruncated { offset }
}

/// Decodes a code bit by bit: few symbols are not worth a table.
struct Canonical {
    /// Codes of each length.
    counts: [usize; 17],
    /// Symbols in the order of their codes.
    symbols: Vec<u8>,
    single: bool,
}

impl Canonical {
    fn new(code: &CodeLengths) -> Self {
        let mut counts = [0; 17];
        let mut symbols = Vec::new();
        for length in 1..=MAX_CODE_LENGTH {
            for (symbol, own) in (0u8..=255).zip(&code.0) {
                if *own == length {
                    counts[usize::from(length)] += 1;
                    symbols.push(symbol);
                }
            }
        }
        Canonical {
            counts,
            single: symbols.len() == 1,
            symbols,
        }
    }
    /// The symbol at bit `at`, which moves behind it. None at the end of the bytes, or at a one bit of a code that has one
    /// symbol only.
    fn next(&self, bytes: &[u8], at: &mut usize) -> Option<usize> {
        let (mut code, mut first, mut index) = (0usize, 0usize, 0usize);
        for count in &self.counts[1..] {
            let byte = bytes.get(*at / 8)?;
            code = code << 1 | usize::from(byte >> (*at % 8) & 1);
            *at += 1;
            if code < first + count {
                let symbol = self.symbols.get(index + code - first);
                return symbol.map(|symbol| usize::from(*symbol));
            }
            if self.single {
                return None;
            }
            index += count;
            first = (first + count) << 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_come_back() {
        for classes in 2..=8usize {
            for blocks in [1usize, 2, 7, 8, 9, 100, 1001] {
                let map: Vec<u8> = (0..blocks).map(|i| (i * i / 7 % classes) as u8).collect();
                let mut bytes = pack(&map, classes);
                let len = bytes.len();
                bytes.push(0xff);
                assert_eq!(unpack(&bytes, blocks, classes), Ok((map, len)));
                assert!(unpack(&bytes[..len - 1], blocks, classes).is_err());
            }
        }
    }

    #[test]
    fn nothing_is_reserved_for_a_map_that_is_not_there() {
        let bytes = pack(&[0; 8], 2);
        assert!(unpack(&bytes, usize::MAX - 8, 2).is_err());
    }
}
