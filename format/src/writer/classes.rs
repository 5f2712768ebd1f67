//! Which rows of a layer share code tables, and how each class is coded.
//!
//! Blocks of k are divided by Lloyd's algorithm in bits: a class is a distribution of coarse levels (zero, the most frequent
//! values, rarer ones ...), a block goes to the class whose distribution codes it shortest, and distributions follow their
//! blocks. The number of classes and the length of a block are those with the smallest estimate (entropies of the classes,
//! of the map and a price per table). For that division every class is then costed exactly in each way it can be coded, and so is
//! the layer in a single class. Estimates see levels and not codes, which is enough to rank divisions: 8 numbers per block
//! instead of 256. Layers below [`SMALLEST`] weights are left alone: tables would cost more than they save.

use super::pool;
use crate::codec::Histogram;
use crate::codec::classes_encode::{ClassRows, divide};
use crate::codec::groups::pack;
use crate::layer::*;
use crate::record::class_map;

/// Weights of the smallest layer that is divided.
const SMALLEST: usize = 16_384;
/// Coarse levels of codes.
const LEVELS: usize = 8;
/// Divisions that are costed exactly.
const TRIED: usize = 2;
/// Rounds of the division.
const ROUNDS: usize = 12;
/// Estimated bits of the tables and fields of one class.
const CLASS_BITS: f64 = 800.0;
/// Largest base of symbols of one, two, three, four values.
const BASES: [usize; 4] = [0, 16, 6, 4];

/// A gathered tile.
pub(super) struct Gathered {
    pub(super) tile: Tile,
    pub(super) codes: Vec<u8>,
    pub(super) mask: Vec<u8>,
}

/// A layer in classes.
#[derive(Clone, Debug)]
pub(super) struct ClassChoice {
    /// Tables are numbered from 0 in the order of `counts`.
    pub(super) classes: Classes,
    /// Symbols of every table, and whether it is one of values.
    pub(super) counts: Vec<(bool, Histogram)>,
    /// Values that are stored as they are.
    pub(super) escapes: u64,
    /// Bits of the map in the record.
    pub(super) map_bits: u64,
    /// All bits, padding estimated.
    pub(super) bits: u64,
}

/// The smallest division found; none for small layers, unless `forced`.
pub(super) fn choose(
    shape: &LayerShape,
    zero: u8,
    tiles: &[Gathered],
    forced: bool,
) -> Option<ClassChoice> {
    let weights: usize = tiles.iter().map(|tile| tile.codes.len()).sum();
    if weights == 0 || (weights < SMALLEST && !forced) {
        return None;
    }
    let k = shape.k();
    let single = Classes {
        classes: Vec::new(),
        block: k as u32,
        map: Vec::new(),
    };
    let mut best = evaluate(single, 1, tiles);
    for (count, divided) in divide_blocks(shape, zero, tiles) {
        let found = evaluate(divided, count, tiles);
        if found.bits < best.bits {
            best = found;
        }
    }
    Some(best)
}

/// The divisions with the smallest estimates: of the best numbers of classes the best each.
fn divide_blocks(shape: &LayerShape, zero: u8, tiles: &[Gathered]) -> Vec<(usize, Classes)> {
    let k = shape.k();
    let finest = levels_by_k(k, zero, tiles);
    let taps = (shape.kernel[0] * shape.kernel[1]) as usize;
    let mut lengths = vec![1, 2, 4, 8, taps];
    lengths.sort_unstable();
    lengths.dedup();
    let mut best: Vec<(f64, usize, Classes)> = Vec::new();
    for count in [2, 4, 6, MAX_CLASSES] {
        let lengths = lengths.iter().filter(|block| 2 * **block <= k);
        let found = lengths.map(|block| {
            let blocks: Vec<[f32; LEVELS]> = finest.chunks(*block).map(sum).collect();
            let (bits, map) = cluster(&blocks, count);
            let classes = Classes {
                classes: Vec::new(),
                block: *block as u32,
                map,
            };
            (bits, count, classes)
        });
        best.extend(found.min_by(|a, b| a.0.total_cmp(&b.0)));
    }
    best.sort_by(|a, b| a.0.total_cmp(&b.0));
    let tried = best.into_iter().take(TRIED);
    tried.map(|(_, count, classes)| (count, classes)).collect()
}

/// How often each level occurs at every k.
fn levels_by_k(k: usize, zero: u8, tiles: &[Gathered]) -> Vec<[f32; LEVELS]> {
    let mut counts = [0u64; 256];
    for tile in tiles {
        crate::codec::symbol_histogram(&tile.codes, &mut counts);
    }
    counts[usize::from(zero)] = u64::MAX;
    let mut level = [0usize; 256];
    for (rank, symbol) in by_count(&counts).into_iter().enumerate() {
        // Zero; two, two, four, eight ... values.
        level[usize::from(symbol)] = match rank {
            0 => 0,
            1..=2 => 1,
            _ => (rank.div_ceil(2).next_power_of_two().ilog2() as usize + 1).min(LEVELS - 1),
        };
    }
    let mut found = vec![[0.0; LEVELS]; k];
    for tile in tiles {
        let len = tile.tile.k_len as usize;
        let first = tile.tile.k as usize;
        for (row, codes) in tile.codes.as_chunks::<PANEL>().0.iter().enumerate() {
            let levels = &mut found[first + row % len];
            codes
                .iter()
                .for_each(|code| levels[level[usize::from(*code)]] += 1.0);
        }
    }
    found
}

fn sum(rows: &[[f32; LEVELS]]) -> [f32; LEVELS] {
    let mut all = [0.0; LEVELS];
    for row in rows {
        all.iter_mut().zip(row).for_each(|(all, one)| *all += one);
    }
    all
}

/// Symbols that occur, the most frequent first.
fn by_count(counts: &Histogram) -> Vec<u8> {
    let mut symbols: Vec<u8> = (0u8..=255)
        .filter(|s| counts[usize::from(*s)] > 0)
        .collect();
    symbols.sort_by_key(|s| std::cmp::Reverse(counts[usize::from(*s)]));
    symbols
}

/// Estimated bits and the class of every block.
fn cluster(blocks: &[[f32; LEVELS]], count: usize) -> (f64, Vec<u8>) {
    // Begin with equally many blocks per class, from the emptiest to the fullest.
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    let zeros = |at: &usize| blocks[*at][0] / blocks[*at].iter().sum::<f32>().max(1.0);
    order.sort_by(|a, b| zeros(b).total_cmp(&zeros(a)));
    let mut map = vec![0u8; blocks.len()];
    for (rank, at) in order.into_iter().enumerate() {
        map[at] = (rank * count / blocks.len()) as u8;
    }
    for _ in 0..ROUNDS {
        let costs: Vec<[f32; LEVELS]> = totals(blocks, &map, count).iter().map(code).collect();
        let mut moved = false;
        for (block, class) in blocks.iter().zip(&mut map) {
            let bits = |costs: &[f32; LEVELS]| -> f32 {
                costs.iter().zip(block).map(|(cost, n)| cost * n).sum()
            };
            let mut best = (f32::INFINITY, 0);
            for (cost, number) in costs.iter().zip(0u8..) {
                let bits = bits(cost);
                if bits < best.0 {
                    best = (bits, number);
                }
            }
            moved |= *class != best.1;
            *class = best.1;
        }
        if !moved {
            break;
        }
    }
    let mut bits = count as f64 * CLASS_BITS + 8.0 * class_map::pack(&map, count).len() as f64;
    for total in totals(blocks, &map, count) {
        let all: f32 = total.iter().sum();
        // Codes of less than a bit do not exist; symbols of 8 lanes or several values come close to this much.
        bits += total
            .iter()
            .zip(code(&total))
            .map(|(n, cost)| f64::from(n * cost))
            .sum::<f64>();
        bits += f64::from(all) / 128.0 * f64::from(u8::from(total[0] < all));
    }
    (bits, map)
}

fn totals(blocks: &[[f32; LEVELS]], map: &[u8], count: usize) -> Vec<[f32; LEVELS]> {
    let mut totals = vec![[0.0; LEVELS]; count];
    for (block, class) in blocks.iter().zip(map) {
        let total = &mut totals[usize::from(*class)];
        total
            .iter_mut()
            .zip(block)
            .for_each(|(total, n)| *total += n);
    }
    totals
}

/// Bits of every level.
fn code(total: &[f32; LEVELS]) -> [f32; LEVELS] {
    let all: f32 = total.iter().sum::<f32>() + 0.1;
    total.map(|n| (all / (n + 0.1 / LEVELS as f32)).log2())
}

/// Counts and codes every class in the best way.
fn evaluate(classes: Classes, count: usize, tiles: &[Gathered]) -> ClassChoice {
    let mut counts: Vec<ClassCounts> = vec![ClassCounts::default(); count];
    let divided = |tile: &Gathered| divide(&classes, &tile.tile, &tile.codes, &tile.mask, count);
    for tile in tiles {
        for (rows, counts) in divided(tile).iter().zip(&mut counts) {
            counts.first_pass(rows);
        }
    }
    counts.iter_mut().for_each(ClassCounts::choose_alphabets);
    for tile in tiles {
        for (rows, counts) in divided(tile).iter().zip(&mut counts) {
            counts.second_pass(rows);
        }
    }
    let map_bits = match count {
        1 => 0,
        _ => 8 * class_map::pack(&classes.map, count).len() as u64,
    };
    let mut choice = ClassChoice {
        classes: Classes {
            classes: Vec::with_capacity(count),
            ..classes.clone()
        },
        counts: Vec::new(),
        escapes: 0,
        map_bits,
        // Four lengths and half a byte of padding for each sub-stream of a tile.
        bits: map_bits + tiles.len() as u64 * 80,
    };
    counts.iter().for_each(|counts| counts.settle(&mut choice));
    choice
}

/// What is counted of one class.
#[derive(Clone, Debug)]
struct ClassCounts {
    rows: Histogram,
    /// Mask bytes that are not zero.
    marked: Histogram,
    masks: Histogram,
    /// Of present weights, of all.
    values: [Histogram; 2],
    /// Ways to code several values, for present weights and for all.
    groups: [Vec<Grouped>; 2],
}

/// Values several to a symbol.
#[derive(Clone, Debug)]
struct Grouped {
    code: ValueCode,
    counts: Histogram,
    escapes: u64,
}

impl Default for ClassCounts {
    fn default() -> Self {
        ClassCounts {
            rows: [0; 256],
            marked: [0; 256],
            masks: [0; 256],
            values: [[0; 256]; 2],
            groups: [Vec::new(), Vec::new()],
        }
    }
}

impl ClassCounts {
    fn first_pass(&mut self, rows: &ClassRows) {
        let count = crate::codec::symbol_histogram;
        let (marks, marked) = rows.marked();
        count(&marks, &mut self.rows);
        count(&marked, &mut self.marked);
        count(&rows.masks, &mut self.masks);
        count(&rows.codes, &mut self.values[1]);
        crate::codec::value_histogram(&rows.codes, &rows.masks, &mut self.values[0]);
    }

    fn choose_alphabets(&mut self) {
        for (values, groups) in self.values.iter().zip(&mut self.groups) {
            let frequent = by_count(values);
            if frequent.is_empty() {
                continue;
            }
            for (group, most) in (1u8..).zip(BASES).skip(1) {
                let escape = frequent.len() > most || frequent.len() == 1;
                let kept = frequent.len().min(most - usize::from(escape));
                groups.push(Grouped {
                    code: ValueCode {
                        table: TableId(0),
                        group,
                        alphabet: frequent[..kept].to_vec(),
                        escape,
                    },
                    counts: [0; 256],
                    escapes: 0,
                });
            }
        }
    }

    fn second_pass(&mut self, rows: &ClassRows) {
        let (mut symbols, mut escapes) = (Vec::new(), Vec::new());
        for (dense, groups) in [false, true].into_iter().zip(&mut self.groups) {
            for values in rows.segments(dense) {
                for grouped in &mut *groups {
                    symbols.clear();
                    escapes.clear();
                    // Every value is in the alphabet or escaped.
                    let _ = pack(&grouped.code, &values, &mut symbols, &mut escapes);
                    crate::codec::symbol_histogram(&symbols, &mut grouped.counts);
                    grouped.escapes += escapes.len() as u64;
                }
            }
        }
    }

    /// Values of present weights, or of all, in the shortest way: bits, code, counts, escapes.
    fn best_values(&self, dense: bool) -> (u64, Grouped) {
        let which = usize::from(dense);
        let single = Grouped {
            code: ValueCode {
                table: TableId(0),
                group: 1,
                alphabet: Vec::new(),
                escape: false,
            },
            counts: self.values[which],
            escapes: 0,
        };
        let ways = std::iter::once(&single).chain(&self.groups[which]);
        let cost = |way: &Grouped| {
            bits(&way.counts) + 8 * way.escapes + 8 * (4 + way.code.alphabet.len() as u64)
        };
        let best = ways.min_by_key(|way| cost(way)).unwrap_or(&single);
        (cost(best), best.clone())
    }

    /// Adds the class, coded in the shortest way, to a layer's choice.
    fn settle(&self, choice: &mut ClassChoice) {
        let mut add = |values: bool, counts: &Histogram| {
            choice.counts.push((values, *counts));
            TableId(choice.counts.len() as u32 - 1)
        };
        if self.values[0].iter().all(|n| *n == 0) {
            choice.classes.classes.push(Class::Empty);
            choice.bits += 8;
            return;
        }
        let (sparse, all) = (self.best_values(false), self.best_values(true));
        let (rows, masks) = (bits(&self.rows) + bits(&self.marked), bits(&self.masks));
        let index = rows.min(masks);
        let (total, grouped) = if all.0 <= sparse.0 + index {
            (all.0, all.1)
        } else {
            (sparse.0 + index, sparse.1)
        };
        let mut values = grouped.code.clone();
        let class = if all.0 <= sparse.0 + index {
            values.table = add(true, &grouped.counts);
            Class::Dense { values }
        } else if masks <= rows {
            let mask = add(false, &self.masks);
            values.table = add(true, &grouped.counts);
            Class::Mask { mask, values }
        } else {
            let rows = add(false, &self.rows);
            let mask = add(false, &self.marked);
            values.table = add(true, &grouped.counts);
            Class::Rows { rows, mask, values }
        };
        choice.classes.classes.push(class);
        choice.escapes += grouped.escapes;
        choice.bits += total;
    }
}

/// Bits of symbols and of their table.
fn bits(counts: &Histogram) -> u64 {
    let code = pool::narrow(counts);
    code.payload_bits(counts) + code.table_bits() + 16
}
