//! Slow decoder of `docs/format-coding.md`, in its order, bit by bit. Shares no code with `src`; `None` is "reject".

/// Bits of a byte sequence.
struct Bits<'a> {
    bytes: &'a [u8],
    next: usize,
}

impl Bits<'_> {
    fn take(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.next / 8)?;
        let bit = (byte >> (self.next % 8)) & 1;
        self.next += 1;
        Some(bit)
    }
    /// Zero padding; number of bytes used.
    fn pad(&mut self) -> Option<usize> {
        while !self.next.is_multiple_of(8) {
            if self.take()? == 1 {
                return None;
            }
        }
        Some(self.next / 8)
    }
}

/// Section 2: (length, code, symbol), or reject.
pub fn canonical(lengths: &[u8; 256], width: u8) -> Option<Vec<(u8, u32, u8)>> {
    if width != 11 && width != 12 {
        return None;
    }
    let mut symbols: Vec<(u8, u8)> = Vec::new();
    let mut sum = 0.0f64;
    for (symbol, &length) in lengths.iter().enumerate() {
        if length > width {
            return None;
        }
        if length > 0 {
            symbols.push((length, symbol as u8));
            sum += 0.5f64.powi(i32::from(length));
        }
    }
    let one = symbols.len() == 1 && symbols[0].0 == 1;
    if sum != 1.0 && !one {
        return None;
    }
    symbols.sort();
    let mut codes = Vec::new();
    let mut code = 0u32;
    for (i, &(length, symbol)) in symbols.iter().enumerate() {
        if i > 0 {
            code = (code + 1) << (length - symbols[i - 1].0);
        }
        codes.push((length, code, symbol));
    }
    Some(codes)
}

/// Section 2.1: lengths and number of bytes.
pub fn parse_table(bytes: &[u8]) -> Option<([u8; 256], usize)> {
    let form = *bytes.first()?;
    let first = usize::from(*bytes.get(1)?);
    let count = usize::from(*bytes.get(2)?) + 1;
    if form > 2 {
        return None;
    }
    let mut bits = Bits {
        bytes: &bytes[3..],
        next: 0,
    };
    let mut given: Vec<(usize, u8)> = Vec::new();
    for i in 0..count {
        let symbol = (first + i) % 256;
        let length = if form == 0 {
            let mut length = 0;
            for j in 0..4 {
                length += bits.take()? << j;
            }
            length
        } else {
            let mut rank = 0i32;
            while bits.take()? == 1 {
                rank += 1;
                if rank > 24 {
                    return None;
                }
            }
            let same_class = |other: usize| form == 1 || other.count_ones() == symbol.count_ones();
            let prediction = given
                .iter()
                .rev()
                .find(|(other, length)| *length > 0 && same_class(*other))
                .map_or(8, |(_, length)| i32::from(*length));
            let z = if rank > 3 { rank - 1 } else { rank };
            let d = if z % 2 == 1 { (z + 1) / 2 } else { -z / 2 };
            match rank {
                3 => 0,
                _ if (1..=12).contains(&(prediction + d)) => (prediction + d) as u8,
                _ => return None,
            }
        };
        if length > 12 {
            return None;
        }
        given.push((symbol, length));
    }
    let used = 3 + bits.pad()?;
    let mut lengths = [0u8; 256];
    for (symbol, length) in given {
        lengths[symbol] = length;
    }
    canonical(&lengths, 12)?;
    Some((lengths, used))
}

/// A table as a layer states it.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    pub lengths: &'a [u8; 256],
    pub width: u8,
}

/// Section 3: `n` symbols from the front of `tile`, which is cut to what follows.
fn symbol_stream(table: Table<'_>, n: usize, tile: &mut &[u8]) -> Option<Vec<u8>> {
    let codes = canonical(table.lengths, table.width)?;
    let header = tile.get(..8)?;
    let mut rest = &tile[8..];
    let quarter = n.div_ceil(4);
    let mut symbols = Vec::new();
    for i in 0..4 {
        let length = usize::from(header[2 * i]) + 256 * usize::from(header[2 * i + 1]);
        let bytes = rest.get(..length)?;
        rest = &rest[length..];
        let mut bits = Bits { bytes, next: 0 };
        for _ in (i * quarter).min(n)..((i + 1) * quarter).min(n) {
            let (mut length, mut code) = (0u8, 0u32);
            let symbol = loop {
                code = 2 * code + u32::from(bits.take()?);
                length += 1;
                if let Some(found) = codes
                    .iter()
                    .find(|entry| entry.0 == length && entry.1 == code)
                {
                    break found.2;
                }
                if length == 12 {
                    return None;
                }
            };
            symbols.push(symbol);
        }
        if bits.pad()? != length {
            return None;
        }
    }
    *tile = rest;
    Some(symbols)
}

/// Section 4: the index modes.
#[derive(Clone, Copy, Debug)]
pub enum Mode<'a> {
    Dense {
        values: Table<'a>,
    },
    Mask {
        mask: Option<Table<'a>>,
        values: Table<'a>,
    },
    Gaps {
        bits: u8,
        gaps: Table<'a>,
        values: Table<'a>,
    },
}

/// Codes and mask bytes of a tile.
pub fn decode(
    mode: Mode<'_>,
    rows: usize,
    present: usize,
    fill: u8,
    mut tile: &[u8],
) -> Option<(Vec<u8>, Vec<u8>)> {
    let weights = 8 * rows;
    let mut codes = vec![fill; weights];
    let mut masks = vec![0u8; rows];
    match mode {
        Mode::Dense { values } => {
            codes = symbol_stream(values, weights, &mut tile)?;
            masks = vec![255; rows];
            if present != weights {
                return None;
            }
        }
        Mode::Mask { mask, values } => {
            masks = match mask {
                Some(table) => symbol_stream(table, rows, &mut tile)?,
                None => {
                    let raw = tile.get(..rows)?.to_vec();
                    tile = &tile[rows..];
                    raw
                }
            };
            let places: Vec<usize> = (0..weights)
                .filter(|i| masks[i / 8] >> (i % 8) & 1 == 1)
                .collect();
            if places.len() != present {
                return None;
            }
            for (place, value) in places
                .iter()
                .zip(symbol_stream(values, present, &mut tile)?)
            {
                codes[*place] = value;
            }
        }
        Mode::Gaps { bits, gaps, values } => {
            let fits = |symbol: usize| (symbol as u32) < 1 << bits;
            if !(2..=8).contains(&bits)
                || (0..256).any(|symbol| gaps.lengths[symbol] > 0 && !fits(symbol))
            {
                return None;
            }
            if present > weights {
                return None;
            }
            let gaps = symbol_stream(gaps, present, &mut tile)?;
            let values = symbol_stream(values, present, &mut tile)?;
            let mut position = 0usize;
            for (gap, value) in gaps.into_iter().zip(values) {
                position += usize::from(gap);
                *codes.get_mut(position)? = value;
                position += 1;
            }
            for (i, code) in codes.iter().enumerate() {
                if *code != fill {
                    masks[i / 8] |= 1 << (i % 8);
                }
            }
        }
    }
    if tile.is_empty() {
        Some((codes, masks))
    } else {
        None
    }
}

/// Section 4.4: the code of the values of a class.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    pub table: Table<'a>,
    pub group: usize,
    pub alphabet: Vec<u8>,
    pub escape: bool,
}

/// Section 4.4: one class.
#[derive(Clone, Debug)]
pub enum Class<'a> {
    Empty,
    Dense(Values<'a>),
    Mask(Table<'a>, Values<'a>),
    Rows(Table<'a>, Table<'a>, Values<'a>),
}

/// Four sub-streams that several symbol sequences share.
struct Shared<'a> {
    streams: Vec<Bits<'a>>,
    /// Behind the sub-streams.
    bytes: &'a [u8],
}

impl Shared<'_> {
    fn symbols(&mut self, table: Table<'_>, n: usize) -> Option<Vec<u8>> {
        let codes = canonical(table.lengths, table.width)?;
        let quarter = n.div_ceil(4);
        let mut symbols = Vec::new();
        for i in 0..4 {
            for _ in (i * quarter).min(n)..((i + 1) * quarter).min(n) {
                let (mut length, mut code) = (0u8, 0u32);
                symbols.push(loop {
                    code = 2 * code + u32::from(self.streams[i].take()?);
                    length += 1;
                    let same = |entry: &&(u8, u32, u8)| entry.0 == length && entry.1 == code;
                    if let Some(found) = codes.iter().find(same) {
                        break found.2;
                    }
                    if length == 12 {
                        return None;
                    }
                });
            }
        }
        Some(symbols)
    }
    fn values(&mut self, code: &Values<'_>, n: usize) -> Option<Vec<u8>> {
        if code.group == 1 {
            return self.symbols(code.table, n);
        }
        let base = code.alphabet.len() + usize::from(code.escape);
        let mut values = Vec::new();
        for symbol in self.symbols(code.table, n.div_ceil(code.group))? {
            let mut number = usize::from(symbol);
            for _ in 0..code.group {
                let digit = number % base;
                number /= base;
                if values.len() == n {
                    if digit != 0 {
                        return None;
                    }
                } else if digit < code.alphabet.len() {
                    values.push(code.alphabet[digit]);
                } else {
                    values.push(*self.bytes.first()?);
                    self.bytes = &self.bytes[1..];
                }
            }
        }
        Some(values)
    }
}

/// Codes and mask bytes of a tile in classes; `class_of` is the class of every row.
pub fn decode_classes(
    classes: &[Class<'_>],
    class_of: &[usize],
    present: usize,
    fill: u8,
    tile: &[u8],
) -> Option<(Vec<u8>, Vec<u8>)> {
    let header = tile.get(..8)?;
    let mut rest = &tile[8..];
    let mut ends = Vec::new();
    let mut streams = Vec::new();
    for i in 0..4 {
        let length = usize::from(header[2 * i]) + 256 * usize::from(header[2 * i + 1]);
        let bytes = rest.get(..length)?;
        rest = &rest[length..];
        ends.push(length);
        streams.push(Bits { bytes, next: 0 });
    }
    let mut shared = Shared {
        streams,
        bytes: rest,
    };
    let mut codes = vec![fill; 8 * class_of.len()];
    let mut masks = vec![0u8; class_of.len()];
    let mut counted = 0;
    for (number, class) in classes.iter().enumerate() {
        let rows: Vec<usize> = (0..class_of.len())
            .filter(|row| class_of[*row] == number)
            .collect();
        let n = rows.len();
        let (own, values, dense) = match class {
            Class::Empty => continue,
            Class::Dense(values) => (vec![255; n], values, true),
            Class::Mask(mask, values) => (shared.symbols(*mask, n)?, values, false),
            Class::Rows(marks, mask, values) => {
                let marks = shared.symbols(*marks, n.div_ceil(8))?;
                let marked: Vec<usize> = (0..8 * marks.len())
                    .filter(|row| marks[row / 8] >> (row % 8) & 1 == 1)
                    .collect();
                if marked.iter().any(|row| *row >= n) {
                    return None;
                }
                let bytes = shared.symbols(*mask, marked.len())?;
                let mut own = vec![0; n];
                for (row, byte) in marked.iter().zip(bytes) {
                    own[*row] = byte;
                }
                (own, values, false)
            }
        };
        for (rows, own) in rows.chunks(1024).zip(own.chunks(1024)) {
            let places: Vec<usize> = (0..8 * rows.len())
                .filter(|i| own[i / 8] >> (i % 8) & 1 == 1)
                .map(|i| 8 * rows[i / 8] + i % 8)
                .collect();
            counted += places.len();
            let values = shared.values(values, places.len())?;
            for (place, value) in places.into_iter().zip(values) {
                codes[place] = value;
                if !dense || value != fill {
                    masks[place / 8] |= 1 << (place % 8);
                }
            }
        }
    }
    for (mut stream, end) in shared.streams.into_iter().zip(ends) {
        if stream.pad()? != end {
            return None;
        }
    }
    if shared.bytes.is_empty() && counted == present {
        Some((codes, masks))
    } else {
        None
    }
}

/// Section 2.1 of the records: the class of every block, and the bytes used.
pub fn parse_map(bytes: &[u8], blocks: usize, classes: usize) -> Option<(Vec<usize>, usize)> {
    let (lengths, used) = parse_table(bytes)?;
    let codes = canonical(&lengths, 12)?;
    let per = (1..=8).rev().find(|per| classes.pow(*per as u32) <= 256)?;
    let mut bits = Bits {
        bytes: &bytes[used..],
        next: 0,
    };
    let mut map = Vec::new();
    while map.len() < blocks {
        let (mut length, mut code) = (0u8, 0u32);
        let mut symbol = loop {
            code = 2 * code + u32::from(bits.take()?);
            length += 1;
            let same = |entry: &&(u8, u32, u8)| entry.0 == length && entry.1 == code;
            if let Some(found) = codes.iter().find(same) {
                break usize::from(found.2);
            }
            if length == 12 {
                return None;
            }
        };
        for _ in 0..per {
            if map.len() < blocks {
                map.push(symbol % classes);
                symbol /= classes;
            }
        }
        if symbol != 0 {
            return None;
        }
    }
    Some((map, used + bits.pad()?))
}
