//! Which layers share code tables.
//!
//! Every layer starts with tables of its own. Then, greedily, the two tables of one role whose union saves most are
//! merged, as long as the file does not grow. A merge that concerns a small layer may also cost a little (half a percent
//! of the bits coded with the two tables), because building a table takes longer than decoding such a layer. Candidates are
//! ranked by entropy, which is cheap; the merge itself is decided by exact code lengths.

use super::modes::{Choice, Mode};
use crate::codec::{CodeLengths, Histogram};
use crate::container::CodeTable;
use crate::layer::{Index, MAX_CODE_LENGTH, TableId};

/// Weights below which a layer is small.
const SMALL_LAYER: u64 = 32_768;
/// Longest code of the narrow table, which is the faster one.
const NARROW: u8 = 11;

/// What a table is for. Only tables of one role are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Values,
    Mask,
    Gaps(u8),
}

#[derive(Clone, Debug)]
struct Group {
    role: Role,
    counts: Histogram,
    lengths: CodeLengths,
    small: bool,
    /// Layer numbers, ascending.
    users: Vec<usize>,
}

impl Group {
    fn new(role: Role, counts: Histogram, small: bool, users: Vec<usize>) -> Self {
        Group {
            role,
            lengths: code(&counts),
            counts,
            small,
            users,
        }
    }
    fn bits(&self) -> u64 {
        self.lengths.payload_bits(&self.counts) + self.lengths.table_bits()
    }
}

/// The code of a class's table: never wide, since such tables are built for every tile.
pub(super) fn narrow(counts: &Histogram) -> CodeLengths {
    CodeLengths::from_counts(counts, NARROW)
}

/// The shortest code, limited to 11 bits where that costs at most 0.3 %.
fn code(counts: &Histogram) -> CodeLengths {
    let wide = CodeLengths::from_counts(counts, MAX_CODE_LENGTH);
    if wide.longest() <= NARROW {
        return wide;
    }
    let narrow = CodeLengths::from_counts(counts, NARROW);
    let bits = |lengths: &CodeLengths| lengths.payload_bits(counts) + lengths.table_bits();
    if bits(&narrow) <= bits(&wide) + bits(&wide) * 3 / 1000 {
        narrow
    } else {
        wide
    }
}

/// Tables of one layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Assigned {
    /// For a layer in classes the first of its tables, which nobody else uses.
    pub(super) values: TableId,
    pub(super) index: Option<TableId>,
    /// The layer is the first user of its value table.
    pub(super) pays_values: bool,
    /// The layer is the first user of its index table.
    pub(super) pays_index: bool,
}

impl Assigned {
    /// The index record of a layer.
    pub(super) fn index(&self, choice: &Choice) -> Index {
        let values = self.values;
        if let Some(divided) = &choice.classes {
            let mut index = Index::Classes(divided.classes.clone());
            index.shift_tables(values.0);
            return index;
        }
        match (choice.mode, self.index) {
            (Mode::Dense, _) => Index::Dense { values },
            (Mode::Gaps(bits), Some(gaps)) => Index::Gaps { bits, gaps, values },
            (_, mask) => Index::Mask { mask, values },
        }
    }
}

/// Collects the tables of all coded layers.
#[derive(Default)]
pub(super) struct Pool {
    groups: Vec<Group>,
    /// Layers in classes, with the symbols of their tables.
    divided: Vec<(usize, Vec<Histogram>)>,
    layers: usize,
}

impl Pool {
    /// Adds the next coded layer.
    pub(super) fn add(&mut self, choice: &Choice, weights: u64) {
        let (layer, small) = (self.layers, weights < SMALL_LAYER);
        self.layers += 1;
        if let Some(divided) = &choice.classes {
            let counts = divided.counts.iter().map(|(_, counts)| *counts);
            self.divided.push((layer, counts.collect()));
            return;
        }
        let mut add = |role, counts| {
            self.groups
                .push(Group::new(role, counts, small, vec![layer]))
        };
        add(Role::Values, choice.values);
        if let Some(counts) = choice.index {
            let role = if let Mode::Gaps(bits) = choice.mode {
                Role::Gaps(bits)
            } else {
                Role::Mask
            };
            add(role, counts);
        }
    }

    /// The tables, in the order of their first users, and which of them each coded layer uses.
    pub(super) fn build(mut self, share: bool) -> (Vec<CodeTable>, Vec<Assigned>) {
        if share {
            merge_all(&mut self.groups);
        }
        self.groups
            .sort_by_key(|group| group.users.first().copied());
        let none = Assigned {
            values: TableId(0),
            index: None,
            pays_values: false,
            pays_index: false,
        };
        let mut assigned = vec![none; self.layers];
        let mut tables = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            let id = TableId(tables.len() as u32);
            tables.push(table(group.lengths));
            for (order, user) in group.users.iter().enumerate() {
                let slot = &mut assigned[*user];
                if group.role == Role::Values {
                    (slot.values, slot.pays_values) = (id, order == 0);
                } else {
                    (slot.index, slot.pays_index) = (Some(id), order == 0);
                }
            }
        }
        for (layer, counts) in &self.divided {
            assigned[*layer].values = TableId(tables.len() as u32);
            tables.extend(counts.iter().map(|counts| table(narrow(counts))));
        }
        (tables, assigned)
    }
}

fn table(lengths: CodeLengths) -> CodeTable {
    let width = if lengths.longest() <= NARROW {
        NARROW
    } else {
        MAX_CODE_LENGTH
    };
    CodeTable { lengths, width }
}

/// Merges until no candidate is accepted.
fn merge_all(groups: &mut Vec<Group>) {
    let entropy = |counts: &Histogram| {
        let total = counts.iter().sum::<u64>() as f64;
        let terms = counts
            .iter()
            .filter(|count| **count > 0)
            .map(|count| *count as f64 * (*count as f64).log2());
        total * total.max(1.0).log2() - terms.sum::<f64>()
    };
    let mut own: Vec<f64> = groups.iter().map(|group| entropy(&group.counts)).collect();
    let estimate = |a: &Group, own_a: f64, b: &Group, own_b: f64| {
        let both = sum(&a.counts, &b.counts);
        let saved = a.lengths.table_bits().min(b.lengths.table_bits()) as f64;
        entropy(&both) - own_a - own_b - saved - tolerance(a, b) as f64
    };
    // gain[i][j], j < i: estimated growth beyond what is tolerated; refused pairs are infinite.
    let mut growth: Vec<Vec<f64>> = Vec::new();
    for i in 0..groups.len() {
        let row = (0..i).map(|j| match groups[i].role == groups[j].role {
            true => estimate(&groups[i], own[i], &groups[j], own[j]),
            false => f64::INFINITY,
        });
        growth.push(row.collect());
    }
    loop {
        let pairs = growth
            .iter()
            .enumerate()
            .flat_map(|(i, row)| row.iter().enumerate().map(move |(j, g)| (*g, i, j)));
        let Some((best, i, j)) = pairs.min_by(|a, b| a.0.total_cmp(&b.0)) else {
            return;
        };
        // The estimate is within a few percent of the table sizes; beyond that no exact test is worth its time.
        if best > 512.0 {
            return;
        }
        let (a, b) = (&groups[i], &groups[j]);
        let mut users: Vec<usize> = a.users.iter().chain(&b.users).copied().collect();
        users.sort_unstable();
        let merged = Group::new(a.role, sum(&a.counts, &b.counts), a.small || b.small, users);
        if merged.bits() > a.bits() + b.bits() + tolerance(a, b) {
            growth[i][j] = f64::INFINITY;
            continue;
        }
        own[j] = entropy(&merged.counts);
        groups[j] = merged;
        groups.swap_remove(i);
        own.swap_remove(i);
        remove_row(&mut growth, i);
        let count = groups.len();
        for other in (0..count).filter(|other| *other != j) {
            let value = match groups[other].role == groups[j].role {
                true => estimate(&groups[other], own[other], &groups[j], own[j]),
                false => f64::INFINITY,
            };
            growth[other.max(j)][other.min(j)] = value;
        }
    }
}

/// Takes item `i` out of a triangular matrix as `swap_remove` does.
fn remove_row(matrix: &mut Vec<Vec<f64>>, i: usize) {
    let last = matrix.len() - 1;
    let Some(moved) = matrix.pop() else { return };
    if i == last {
        return;
    }
    for (j, value) in moved.into_iter().enumerate() {
        match j.cmp(&i) {
            std::cmp::Ordering::Less => matrix[i][j] = value,
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => matrix[j][i] = value,
        }
    }
}

fn sum(a: &Histogram, b: &Histogram) -> Histogram {
    std::array::from_fn(|symbol| a[symbol] + b[symbol])
}

/// Bits that a merge may cost.
fn tolerance(a: &Group, b: &Group) -> u64 {
    // Only the small one's bits count, so that a big layer does not pay for a small one.
    let small = [a, b].into_iter().filter(|group| group.small);
    small
        .map(|group| group.lengths.payload_bits(&group.counts) / 200)
        .sum()
}
