//! Decoding of a symbol stream: four sub-streams side by side, several symbols per look-up.
//!
//! A prefix decoder waits for itself: the next look-up needs the length of the last code. Four independent sub-streams,
//! each a contiguous quarter of the symbols, give the CPU four chains to overlap, and the multi-symbol table makes each
//! link worth up to six symbols. The fast loop loads 64 bits per sub-stream at any byte position, makes 4 look-ups at width
//! 12 (at most 7 + 48 bits) or 5 at width 11 (7 + 55), and writes eight bytes per look-up, of which those past the count
//! are overwritten by the next. A bit set at the top of the window finds the bits consumed without adding them up. The
//! look-ups of the four take turns: a CPU overlaps only what is within the hundred instructions or so that wait in its
//! schedulers, and five look-ups of one sub-stream are half of them. Then the sub-streams that are not near their end go on
//! together, and the last symbols are decoded one by one.
//!
//! A load may see the next sub-stream's bytes; if codes run past the end of their own, the position shows it at the end.
//! It loses on streams of a few dozen symbols, which are all tail.
//! After zstd's huff0; measured in `bench decode`.

use super::CodecError;
use super::table::{BITS_MASK, COUNT_SHIFT, DecodeTable};

/// Sub-streams of a symbol stream.
pub(super) const SUB_STREAMS: usize = 4;

/// Byte bounds of the sub-streams within the tile: sub-stream `i` is `bounds[i]..bounds[i + 1]`.
pub(super) type Bounds = [usize; SUB_STREAMS + 1];

/// Symbols of each sub-stream but the last ones.
pub(super) fn quarter(symbols: usize) -> usize {
    symbols.div_ceil(SUB_STREAMS)
}

/// The next bit of every sub-stream, counted from the start of the tile.
pub(super) type Cursor = [usize; SUB_STREAMS];

/// The first bits of the sub-streams.
pub(super) fn starts(bounds: &Bounds) -> Cursor {
    std::array::from_fn(|i| bounds[i] * 8)
}

/// Decodes `out.len()` symbols and moves the cursor behind them. That no sub-stream ends before is for [`check_ends`] to say.
///
/// `bytes` is the whole tile. `TURNS`: the loop of the four sub-streams in turn is there, which is worth its code.
#[inline(always)]
pub(super) fn decode<const TURNS: bool>(
    table: &DecodeTable,
    bytes: &[u8],
    cursor: &mut Cursor,
    out: &mut [u8],
) -> Result<(), CodecError> {
    if let Some(entries) = table.entries::<2048>() {
        run::<TURNS, 2048, 5, 36>(table, entries, bytes, cursor, out);
    } else if let Some(entries) = table.entries::<4096>() {
        run::<TURNS, 4096, 4, 29>(table, entries, bytes, cursor, out);
    } else {
        return Err(CodecError::TableNotBuilt);
    }
    Ok(())
}

/// Every sub-stream ends with its last code and zero padding.
pub(super) fn check_ends(bytes: &[u8], bounds: &Bounds, cursor: &Cursor) -> Result<(), CodecError> {
    for (&bit, &end) in cursor.iter().zip(&bounds[1..]) {
        check_end(bytes, end, bit)?;
    }
    Ok(())
}

/// A code of one symbol, in the middle of sub-streams: one zero bit each.
pub(super) fn skip_single(
    symbol: u8,
    bytes: &[u8],
    cursor: &mut Cursor,
    out: &mut [u8],
) -> Result<(), CodecError> {
    let quarter = quarter(out.len());
    for (i, bit) in cursor.iter_mut().enumerate() {
        let mut left = out.len().saturating_sub(i * quarter).min(quarter);
        while left > 0 {
            let step = left.min(56);
            let ahead = load_padded(bytes, *bit / 8) >> (*bit % 8);
            if ahead & ((1 << step) - 1) != 0 {
                return Err(CodecError::InvalidCode { offset: *bit / 8 });
            }
            (*bit, left) = (*bit + step, left - step);
        }
    }
    out.fill(symbol);
    Ok(())
}

/// A code of one symbol that fills its sub-streams: one zero bit each.
pub(super) fn decode_single(
    symbol: u8,
    bytes: &[u8],
    bounds: &Bounds,
    out: &mut [u8],
) -> Result<(), CodecError> {
    let quarter = quarter(out.len());
    for (i, ends) in bounds.windows(2).enumerate() {
        let symbols = out.len().saturating_sub(i * quarter).min(quarter);
        let (start, end) = (ends[0], ends[1]);
        let needed = start + symbols.div_ceil(8);
        if needed > end {
            return Err(CodecError::SubStreamOverrun { offset: end });
        }
        if needed < end {
            return Err(CodecError::SubStreamUnused { offset: needed });
        }
        let wrong = bytes
            .get(start..end)
            .unwrap_or_default()
            .iter()
            .position(|byte| *byte != 0);
        if let Some(wrong) = wrong {
            return Err(CodecError::InvalidCode {
                offset: start + wrong,
            });
        }
    }
    out.fill(symbol);
    Ok(())
}

/// Where a sub-stream stands: bits from the start of the tile, symbols from the start of `out`.
#[derive(Clone, Copy)]
struct Position {
    bit: usize,
    at: usize,
}

/// What lies ahead in a sub-stream and the bytes of `out` that its next look-ups may touch: `7 * (STEPS - 1) + 8`, 7 being
/// what a 3-bit count can say.
struct Ahead<'a, const WINDOW: usize> {
    bits: u64,
    written: usize,
    window: &'a mut [u8; WINDOW],
}

impl<'a, const WINDOW: usize> Ahead<'a, WINDOW> {
    /// None when input or output ends before.
    #[inline(always)]
    fn load(bytes: &[u8], out: &'a mut [u8], position: Position) -> Option<Self> {
        let Position { bit, at } = position;
        let chunk = bytes.get(bit / 8..)?.first_chunk::<8>()?;
        let window = out.get_mut(at..)?.first_chunk_mut::<WINDOW>()?;
        Some(Ahead {
            bits: (u64::from_le_bytes(*chunk) | (1 << 63)) >> (bit % 8),
            written: 0,
            window,
        })
    }

    #[inline(always)]
    fn look_up<const N: usize>(&mut self, entries: &[u64; N]) {
        let entry = entries[self.bits as usize & (N - 1)];
        let place = self.window.get_mut(self.written..);
        if let Some(place) = place.and_then(<[u8]>::first_chunk_mut) {
            *place = (entry >> 8).to_le_bytes();
        }
        self.written += (entry >> COUNT_SHIFT) as usize;
        self.bits >>= entry & BITS_MASK;
    }

    /// After the look-ups from `start` on.
    #[inline(always)]
    fn position(&self, start: Position) -> Position {
        Position {
            bit: (start.bit & !7) + self.bits.leading_zeros() as usize,
            at: start.at + self.written,
        }
    }
}

/// `STEPS` look-ups from one load.
#[inline(always)]
fn steps<const N: usize, const STEPS: usize, const WINDOW: usize>(
    entries: &[u64; N],
    bytes: &[u8],
    out: &mut [u8],
    position: Position,
) -> Option<Position> {
    let mut ahead = Ahead::<WINDOW>::load(bytes, out, position)?;
    for _ in 0..STEPS {
        ahead.look_up(entries);
    }
    Some(ahead.position(position))
}

#[inline(always)]
fn run<const TURNS: bool, const N: usize, const STEPS: usize, const WINDOW: usize>(
    table: &DecodeTable,
    entries: &[u64; N],
    bytes: &[u8],
    cursor: &mut Cursor,
    out: &mut [u8],
) {
    let quarter = quarter(out.len());
    let ends: [usize; SUB_STREAMS] = std::array::from_fn(|i| ((i + 1) * quarter).min(out.len()));
    let mut positions: [Position; SUB_STREAMS] = std::array::from_fn(|i| Position {
        bit: cursor[i],
        at: (i * quarter).min(out.len()),
    });
    if TURNS {
        positions = turns::<N, STEPS, WINDOW>(entries, bytes, out, positions, ends);
    }
    // One sub-stream is near its end (or there are no turns): the others go on together, each within its own quarter.
    let mut working = true;
    while working {
        working = false;
        for (position, &end) in positions.iter_mut().zip(&ends) {
            if let Some(next) =
                steps::<N, STEPS, WINDOW>(entries, bytes, &mut out[..end], *position)
            {
                *position = next;
                working = true;
            }
        }
    }
    for (i, position) in positions.into_iter().enumerate() {
        cursor[i] = finish(table, entries, bytes, &mut out[..ends[i]], position);
    }
}

/// The sub-streams in turn, until one is near its end; where they are then. Nothing leaves a quarter: what look-ups may touch
/// is taken from it.
#[inline(always)]
fn turns<const N: usize, const STEPS: usize, const WINDOW: usize>(
    entries: &[u64; N],
    bytes: &[u8],
    out: &mut [u8],
    starts: [Position; SUB_STREAMS],
    ends: [usize; SUB_STREAMS],
) -> [Position; SUB_STREAMS] {
    let (first, rest) = out.split_at_mut(ends[0]);
    let (second, rest) = rest.split_at_mut(ends[1] - ends[0]);
    let (third, fourth) = rest.split_at_mut(ends[2] - ends[1]);
    // Within the quarters.
    let [mut a, mut b, mut c, mut d] = starts.map(|start| Position { at: 0, ..start });
    while let (Some(mut w), Some(mut x), Some(mut y), Some(mut z)) = (
        Ahead::<WINDOW>::load(bytes, first, a),
        Ahead::<WINDOW>::load(bytes, second, b),
        Ahead::<WINDOW>::load(bytes, third, c),
        Ahead::<WINDOW>::load(bytes, fourth, d),
    ) {
        for _ in 0..STEPS {
            w.look_up(entries);
            x.look_up(entries);
            y.look_up(entries);
            z.look_up(entries);
        }
        (a, b, c, d) = (w.position(a), x.position(b), y.position(c), z.position(d));
    }
    let mut positions = [a, b, c, d];
    for (position, start) in positions.iter_mut().zip(starts) {
        position.at += start.at;
    }
    positions
}

/// Decodes the rest of one sub-stream, which fills `out` to its end; gives the bit behind.
#[inline(always)]
fn finish<const N: usize>(
    table: &DecodeTable,
    entries: &[u64; N],
    bytes: &[u8],
    out: &mut [u8],
    position: Position,
) -> usize {
    let Position { mut bit, mut at } = position;
    while let Some(place) = out.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<8>) {
        let entry =
            entries[load_padded(bytes, bit / 8).wrapping_shr((bit % 8) as u32) as usize & (N - 1)];
        *place = (entry >> 8).to_le_bytes();
        at += (entry >> COUNT_SHIFT) as usize;
        bit += (entry & BITS_MASK) as usize;
    }
    for place in out.iter_mut().skip(at) {
        let entry =
            entries[load_padded(bytes, bit / 8).wrapping_shr((bit % 8) as u32) as usize & (N - 1)];
        *place = (entry >> 8) as u8;
        bit += usize::from(table.length(*place));
    }
    bit
}

/// A sub-stream that ends at the byte `end` has been decoded up to `bit`.
fn check_end(bytes: &[u8], end: usize, bit: usize) -> Result<(), CodecError> {
    let end_bit = end * 8;
    if bit > end_bit {
        return Err(CodecError::SubStreamOverrun { offset: end });
    }
    if bit.div_ceil(8) < end {
        return Err(CodecError::SubStreamUnused {
            offset: bit.div_ceil(8),
        });
    }
    if bit < end_bit
        && bytes
            .get(bit / 8)
            .is_some_and(|byte| byte >> (bit % 8) != 0)
    {
        return Err(CodecError::Padding { offset: bit / 8 });
    }
    Ok(())
}

/// Eight bytes from `at`, zeros past the end.
#[inline(always)]
pub(super) fn load_padded(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    if let Some(chunk) = rest.first_chunk::<8>() {
        return u64::from_le_bytes(*chunk);
    }
    rest.iter()
        .rev()
        .fold(0, |word, byte| (word << 8) | u64::from(*byte))
}
