//! Tiles in classes: round trips, every way to be malformed, and hostile bytes against the slow decoder.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::codec::BuildSpace;
use crate::codec::classes_encode::{divide, encode};
use crate::codec::{CodeLengths, groups};
use crate::layer::ValueCode;
use proptest::prelude::*;

#[path = "../../tests/slow/codec.rs"]
#[allow(dead_code)]
mod slow;

/// Splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// A tile with everything that is needed to code it.
struct Sample {
    classes: Classes,
    tables: Vec<CodeLengths>,
    tile: Tile,
    fill: u8,
    codes: Vec<u8>,
    mask: Vec<u8>,
    bytes: Vec<u8>,
}

struct Given<'a> {
    tables: &'a [CodeLengths],
    index: DecodeTable,
    values: DecodeTable,
    space: BuildSpace,
}

impl Tables for Given<'_> {
    fn index(&mut self, id: TableId, symbols: usize) -> Option<&DecodeTable> {
        let lengths = self.tables.get(id.0 as usize)?;
        self.index
            .build_for(lengths, 12, 10 * symbols, &mut self.space)
            .ok()?;
        Some(&self.index)
    }
    fn values(&mut self, id: TableId, symbols: usize) -> Option<&DecodeTable> {
        let lengths = self.tables.get(id.0 as usize)?;
        self.values
            .build_for(lengths, 12, 10 * symbols, &mut self.space)
            .ok()?;
        Some(&self.values)
    }
}

impl Sample {
    fn random(seed: u64) -> Sample {
        let mut random = Random(seed);
        let (panels, k_len) = (1 + random.below(4), 1 + random.below(700));
        let (first, block) = (random.below(50), 1 + random.below(6));
        let count = 1 + random.below(MAX_CLASSES);
        let blocks = if count == 1 {
            0
        } else {
            (first + k_len).div_ceil(block)
        };
        let map: Vec<u8> = (0..blocks).map(|_| random.below(count) as u8).collect();
        let fill = [0, 7][random.below(2)];
        let mut sample = Sample {
            classes: Classes {
                classes: vec![Class::Empty; count],
                block: block as u32,
                map,
            },
            tables: Vec::new(),
            tile: Tile {
                panel: 0,
                panels: panels as u32,
                k: first as u32,
                k_len: k_len as u32,
                offset: 0,
                len: 0,
                crc: 0,
                present: 0,
                max_abs_q: 0,
            },
            fill,
            codes: vec![fill; panels * k_len * PANEL],
            mask: vec![0; panels * k_len],
            bytes: Vec::new(),
        };
        let density: Vec<usize> = (0..count)
            .map(|_| [0, 1, 10, 50, 95][random.below(5)])
            .collect();
        let mut of = vec![0u8; k_len];
        sample
            .classes
            .for_each_run(first, k_len, |class, run| of[run].fill(class));
        for row in 0..panels * k_len {
            for lane in 0..PANEL {
                if random.below(100) < density[usize::from(of[row % k_len])] {
                    let value = [1, 255, 2, 254, 3, 100][random.below(6) * random.below(6) / 5];
                    sample.codes[row * PANEL + lane] = value;
                    sample.mask[row] |= 1 << lane;
                }
            }
        }
        for class in 0..count {
            sample.classes.classes[class] = sample.class(class, &mut random);
        }
        sample.encode();
        sample
    }

    fn table(&mut self, symbols: &[u8]) -> TableId {
        let mut counts = [0; 256];
        super::super::symbol_histogram(symbols, &mut counts);
        self.tables.push(CodeLengths::from_counts(&counts, 12));
        TableId(self.tables.len() as u32 - 1)
    }

    /// A way to code a class that can code it.
    fn class(&mut self, class: usize, random: &mut Random) -> Class {
        let count = self.classes.classes.len();
        let rows = &divide(&self.classes, &self.tile, &self.codes, &self.mask, count)[class];
        let kind = random.below(4);
        if kind == 0 && rows.masks.iter().all(|mask| *mask == 0) {
            return Class::Empty;
        }
        let group = 1 + random.below(4) as u8;
        let alphabet = [vec![], vec![0, 1, 255, 2, 7], vec![7, 1, 255], vec![1, 0]];
        let mut values = ValueCode {
            table: TableId(0),
            group,
            alphabet: alphabet[usize::from(group) - 1].clone(),
            escape: group > 1,
        };
        let (mut symbols, mut escapes) = (Vec::new(), Vec::new());
        for segment in rows.segments(kind < 2) {
            groups::pack(&values, &segment, &mut symbols, &mut escapes).unwrap();
        }
        values.table = self.table(&symbols);
        let (marks, marked) = rows.marked();
        match kind {
            0 | 1 => Class::Dense { values },
            2 => Class::Mask {
                mask: self.table(&rows.masks),
                values,
            },
            _ => Class::Rows {
                rows: self.table(&marks),
                mask: self.table(&marked),
                values,
            },
        }
    }

    fn encode(&mut self) {
        let tables = &self.tables;
        let lengths = |id: TableId| tables.get(id.0 as usize);
        let (mut bytes, tile) = (Vec::new(), self.tile);
        let stats = encode(
            &self.classes,
            &lengths,
            &tile,
            &self.codes,
            &self.mask,
            &mut bytes,
        );
        let stats = stats.unwrap();
        assert_eq!(stats.bytes as usize, bytes.len());
        self.tile.present = stats.present;
        self.bytes = bytes;
    }

    fn decode(&self, portable: bool) -> Result<(Vec<u8>, Vec<u8>), CodecError> {
        let mut given = Given {
            tables: &self.tables,
            index: DecodeTable::new(12),
            values: DecodeTable::new(12),
            space: BuildSpace::new(12),
        };
        let (mut codes, mut mask) = (vec![9; self.codes.len()], vec![9; self.mask.len()]);
        let scratch = ClassScratch::new(self.mask.len(), 1, self.tile.k_len as usize);
        let mut scratch = match portable {
            true => CodecScratch::portable(0),
            false => CodecScratch::new(0),
        }
        .with_classes(scratch);
        decode(
            0,
            &self.classes,
            &mut given,
            &self.tile,
            self.fill,
            &self.bytes,
            &mut codes,
            &mut mask,
            &mut scratch,
        )?;
        Ok((codes, mask))
    }

    fn decode_slowly(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let table = |id: TableId| slow::Table {
            lengths: &self.tables[id.0 as usize].0,
            width: 12,
        };
        let values = |code: &ValueCode| slow::Values {
            table: table(code.table),
            group: code.group.into(),
            alphabet: code.alphabet.clone(),
            escape: code.escape,
        };
        let classes: Vec<slow::Class<'_>> = self
            .classes
            .classes
            .iter()
            .map(|class| match class {
                Class::Empty => slow::Class::Empty,
                Class::Dense { values: v } => slow::Class::Dense(values(v)),
                Class::Mask { mask, values: v } => slow::Class::Mask(table(*mask), values(v)),
                Class::Rows {
                    rows,
                    mask,
                    values: v,
                } => slow::Class::Rows(table(*rows), table(*mask), values(v)),
            })
            .collect();
        let (k, k_len) = (self.tile.k as usize, self.tile.k_len as usize);
        let map = &self.classes.map;
        let class_of: Vec<usize> = (0..self.mask.len())
            .map(
                |row| match map.get((k + row % k_len) / self.classes.block as usize) {
                    Some(class) if self.classes.classes.len() > 1 => usize::from(*class),
                    _ => 0,
                },
            )
            .collect();
        let present = self.tile.present as usize;
        slow::decode_classes(&classes, &class_of, present, self.fill, &self.bytes)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn tiles_come_back(seed in any::<u64>()) {
        let sample = Sample::random(seed);
        let (codes, mask) = sample.decode(false).unwrap();
        prop_assert!(codes == sample.codes && mask == sample.mask);
        prop_assert!(sample.decode(true).unwrap() == (codes, mask));
        prop_assert!(sample.decode_slowly().unwrap() == sample.decode(true).unwrap());
    }

    /// Any bytes: never a panic, and accepted only as the slow decoder accepts them.
    #[test]
    fn hostile_bytes(seed in any::<u64>()) {
        let mut sample = Sample::random(seed);
        let mut random = Random(!seed);
        for _ in 0..random.below(3) {
            let at = random.below(sample.bytes.len());
            sample.bytes[at] ^= 1 << random.below(8);
        }
        match random.below(4) {
            0 => sample.bytes.truncate(random.below(sample.bytes.len())),
            1 => sample.bytes.push(random.below(256) as u8),
            2 => sample.tile.present ^= 1,
            _ => {}
        }
        let slow = sample.decode_slowly();
        prop_assert!(sample.decode(false).ok() == slow);
        prop_assert!(sample.decode(true).ok() == slow);
    }
}

/// A tile of one class with single rows coded as stated, and its bytes.
fn by_hand(class: Class, tables: Vec<CodeLengths>, rows: usize, bytes: &[u8]) -> Sample {
    let mut sample = Sample::random(0);
    sample.classes = Classes {
        classes: vec![class],
        block: rows as u32,
        map: Vec::new(),
    };
    (sample.tile.panels, sample.tile.k, sample.tile.k_len) = (1, 0, rows as u32);
    (sample.codes, sample.mask) = (vec![0; rows * PANEL], vec![0; rows]);
    sample.fill = 0;
    sample.tables = tables;
    sample.bytes = bytes.to_vec();
    sample
}

fn lengths(symbols: &[(u8, u8)]) -> CodeLengths {
    let mut lengths = CodeLengths([0; 256]);
    for (symbol, length) in symbols {
        lengths.0[usize::from(*symbol)] = *length;
    }
    lengths
}

#[test]
fn rules_have_their_errors() {
    // Pairs of 1 and of whatever else, which is an escape: symbols 0 to 3.
    let values = ValueCode {
        table: TableId(0),
        group: 2,
        alphabet: vec![1],
        escape: true,
    };
    let pairs = lengths(&[(0, 2), (1, 2), (2, 2), (3, 2)]);
    // One row, five present: 1 1, 1 9, 1. Symbols 0, 2, 0, one in each of the first three sub-streams.
    let class = Class::Mask {
        mask: TableId(1),
        values,
    };
    let masks = lengths(&[(0b11111, 1)]);
    let bytes = |last: u8, escapes: &[u8]| {
        let header = [1, 0, 1, 0, 1, 0, 0, 0];
        [&header[..], &[0b000, 0b01, last], escapes].concat()
    };
    let sample = |last, escapes: &[u8], present| {
        let tables = vec![pairs, masks];
        let mut sample = by_hand(class.clone(), tables, 1, &bytes(last, escapes));
        sample.tile.present = present;
        sample
    };
    let good = sample(0, &[9], 5);
    let (codes, mask) = good.decode(false).unwrap();
    assert_eq!(codes, [1, 1, 1, 9, 1, 0, 0, 0]);
    assert_eq!(mask, [0b11111]);
    assert_eq!(good.decode_slowly(), Some((codes, mask)));
    let refused = |sample: Sample| {
        assert_eq!(sample.decode_slowly(), None);
        sample.decode(false).unwrap_err()
    };
    assert!(matches!(
        refused(sample(0, &[], 5)),
        CodecError::Truncated { offset: 11, .. }
    ));
    assert_eq!(
        refused(sample(0, &[9, 9], 5)),
        CodecError::TrailingBytes { offset: 12 }
    );
    // Symbol 2 as the last: its second digit is past the last value.
    assert_eq!(
        refused(sample(0b01, &[9], 5)),
        CodecError::GroupRest { symbol: 2 }
    );
    assert!(matches!(
        refused(sample(0, &[9], 4)),
        CodecError::MaskCount { counted: 5, .. }
    ));
    assert_eq!(
        refused(sample(0b100, &[9], 5)),
        CodecError::Padding { offset: 10 }
    );

    // Two rows, of which the second and a third are marked.
    let single = ValueCode {
        table: TableId(0),
        group: 1,
        alphabet: Vec::new(),
        escape: false,
    };
    let rows = Class::Rows {
        rows: TableId(1),
        mask: TableId(2),
        values: single,
    };
    let tables = vec![
        lengths(&[(5, 1)]),
        lengths(&[(0b110, 1)]),
        lengths(&[(1, 1)]),
    ];
    let header = [1, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    let marks = by_hand(rows, tables, 2, &header);
    assert_eq!(refused(marks), CodecError::RowMarks { rows: 2 });
}

#[test]
fn scratch_of_another_tile_is_refused() {
    let sample = Sample::random(3);
    let mut given = Given {
        tables: &sample.tables,
        index: DecodeTable::new(12),
        values: DecodeTable::new(12),
        space: BuildSpace::new(12),
    };
    let (mut codes, mut mask) = (sample.codes.clone(), sample.mask.clone());
    let mut scratch = CodecScratch::new(0);
    let (classes, tile, bytes) = (&sample.classes, &sample.tile, &sample.bytes);
    let result = decode(
        0,
        classes,
        &mut given,
        tile,
        0,
        bytes,
        &mut codes,
        &mut mask,
        &mut scratch,
    );
    assert!(matches!(result, Err(CodecError::ScratchCapacity { .. })));
}
