//! Which index mode a layer gets.
//!
//! All modes are costed exactly from one pass over the layer (code bits, tables, stream lengths). The smallest sets
//! the scale: the fastest mode that is at most 1 % larger wins, in the order raw mask, coded mask, dense, gaps (measured:
//! `docs/format-coding.md`), but never one larger than gaps would be.

use super::IndexChoice;
use super::classes::ClassChoice;
use super::pool::Assigned;
use crate::codec::{GAP_BITS, Histogram, LayerHistogram, ModeCost};
use crate::container::CodeTable;
use crate::error::{Error, ErrorKind, Result};
use crate::layer::{CompressionRecord, MAX_CODE_LENGTH, TableId};

/// Classes are slower to decode: they are to save at least this part of a layer.
const CLASSES_GAIN: u64 = 64;

/// Width of the seed's relative index, for which fillers are reported when the layer is not coded with gaps.
const REPORT_GAP_BITS: u8 = 5;

/// An index mode without its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Dense,
    RawMask,
    CodedMask,
    Gaps(u8),
    Classes,
}

/// The chosen mode, with the counts that tables are made from.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) mode: Mode,
    pub(super) values: Histogram,
    pub(super) index: Option<Histogram>,
    /// Of a layer in classes, which uses none of the above.
    pub(super) classes: Option<ClassChoice>,
    /// Bits of a raw mask.
    raw_index_bits: u64,
    /// Fillers of the mode, or of the seed's width.
    fillers: u64,
}

/// `zero`: the zero symbol; `zeros`: something (weights or padding) is zero.
pub(super) fn choose(
    histogram: &LayerHistogram,
    wanted: IndexChoice,
    zero: Option<u8>,
    zeros: bool,
    tiles: usize,
    divided: Option<ClassChoice>,
) -> Result<Choice> {
    if let (IndexChoice::Classes, Some(divided)) = (wanted, divided.clone()) {
        return Ok(in_classes(histogram, divided));
    }
    let dense_possible = zero.is_some() || !zeros;
    let mask = || [Mode::RawMask, Mode::CodedMask].to_vec();
    let gaps = || {
        GAP_BITS
            .filter(|_| zero.is_some())
            .map(Mode::Gaps)
            .collect::<Vec<_>>()
    };
    let modes = match wanted {
        IndexChoice::Auto | IndexChoice::Plain => {
            let mut modes = mask();
            modes.extend(dense_possible.then_some(Mode::Dense));
            modes.extend(gaps());
            modes
        }
        IndexChoice::Dense if dense_possible => vec![Mode::Dense],
        IndexChoice::Mask => mask(),
        IndexChoice::Gaps { bits: None } => gaps(),
        IndexChoice::Gaps { bits: Some(bits) } if zero.is_some() && GAP_BITS.contains(&bits) => {
            vec![Mode::Gaps(bits)]
        }
        IndexChoice::Dense | IndexChoice::Gaps { .. } | IndexChoice::Classes => Vec::new(),
    };
    let fill = zero.unwrap_or(0);
    let cost = |mode: Mode| -> ModeCost {
        match mode {
            Mode::Dense => histogram.dense(MAX_CODE_LENGTH),
            Mode::RawMask => histogram.mask(false, MAX_CODE_LENGTH),
            Mode::CodedMask => histogram.mask(true, MAX_CODE_LENGTH),
            Mode::Gaps(bits) => histogram.gaps(bits, fill, MAX_CODE_LENGTH),
            Mode::Classes => histogram.dense(MAX_CODE_LENGTH),
        }
    };
    let costs: Vec<(Mode, u64)> = modes
        .into_iter()
        .map(|mode| (mode, cost(mode).total_bits()))
        .collect();
    let smallest = |of: &dyn Fn(Mode) -> bool| {
        costs
            .iter()
            .filter(|(m, _)| of(*m))
            .map(|(_, bits)| *bits)
            .min()
    };
    let Some(best) = smallest(&|_| true) else {
        let detail = "this index mode needs a code for zero (or a gap width of 2 to 8)";
        return Err(Error::new(ErrorKind::Input, detail));
    };
    if let (IndexChoice::Auto, Some(divided)) = (wanted, divided)
        && divided.bits < best - best / CLASSES_GAIN
    {
        return Ok(in_classes(histogram, divided));
    }
    // A stated mode is a family (mask raw or coded, all gap widths): the smallest of it within the same tolerance.
    let gaps_bits = smallest(&|mode| matches!(mode, Mode::Gaps(_))).unwrap_or(u64::MAX);
    // Padding of sub-streams is estimated: half a byte for each of 8 sub-streams, so that much is no difference.
    let limit = (best + best / 100).min(gaps_bits.saturating_sub(tiles as u64 * 32).max(best));
    let chosen = costs.iter().find(|(mode, bits)| match mode {
        // Among gap widths there is no speed to win.
        Mode::Gaps(_) => *bits == gaps_bits,
        _ => *bits <= limit,
    });
    let Some((mode, _)) = chosen else {
        return Err(Error::new(ErrorKind::Input, "no index mode"));
    };
    let raw_index_bits = if *mode == Mode::RawMask {
        8 * histogram.masks.iter().sum::<u64>()
    } else {
        0
    };
    let (index, fillers) = match *mode {
        Mode::Dense | Mode::RawMask | Mode::Classes => {
            (None, histogram.gap_fillers(REPORT_GAP_BITS))
        }
        Mode::CodedMask => (
            Some(histogram.masks),
            histogram.gap_fillers(REPORT_GAP_BITS),
        ),
        Mode::Gaps(bits) => (
            Some(histogram.gap_counts(bits)),
            histogram.gap_fillers(bits),
        ),
    };
    let mut values = if *mode == Mode::Dense {
        histogram.all
    } else {
        histogram.present
    };
    if matches!(mode, Mode::Gaps(_)) {
        values[usize::from(fill)] += fillers;
    }
    Ok(Choice {
        mode: *mode,
        values,
        index,
        classes: None,
        raw_index_bits,
        fillers,
    })
}

fn in_classes(histogram: &LayerHistogram, divided: ClassChoice) -> Choice {
    Choice {
        mode: Mode::Classes,
        values: [0; 256],
        index: None,
        classes: Some(divided),
        raw_index_bits: 0,
        fillers: histogram.gap_fillers(REPORT_GAP_BITS),
    }
}

impl Choice {
    /// Fills the coding fields of a compression record.
    pub(super) fn describe(
        &self,
        assigned: &Assigned,
        tables: &[CodeTable],
        record: &mut CompressionRecord,
    ) {
        let payload = |id: TableId, counts: &Histogram| {
            tables
                .get(id.0 as usize)
                .map_or(0, |table| table.lengths.payload_bits(counts))
        };
        let table = |id: TableId| {
            tables
                .get(id.0 as usize)
                .map_or(0, |table| table.lengths.table_bits())
        };
        record.fillers = self.fillers;
        record.index_bits = match self.mode {
            Mode::Gaps(bits) => bits,
            Mode::Dense | Mode::RawMask | Mode::CodedMask | Mode::Classes => REPORT_GAP_BITS,
        };
        if let Some(divided) = &self.classes {
            let all = |of_values: bool, bits: &dyn Fn(TableId, &Histogram) -> u64| -> u64 {
                let numbered = divided.counts.iter().zip(assigned.values.0..);
                let chosen = numbered.filter(|((values, _), _)| *values == of_values);
                chosen
                    .map(|((_, counts), id)| bits(TableId(id), counts))
                    .sum()
            };
            record.value_payload_bits = all(true, &payload) + 8 * divided.escapes;
            record.value_table_bits = all(true, &|id, _| table(id));
            record.index_payload_bits = all(false, &payload);
            record.index_table_bits = all(false, &|id, _| table(id)) + divided.map_bits;
            return;
        }
        record.value_payload_bits = payload(assigned.values, &self.values);
        record.value_table_bits = if assigned.pays_values {
            table(assigned.values)
        } else {
            0
        };
        record.index_payload_bits = match (assigned.index, &self.index) {
            (Some(id), Some(counts)) => payload(id, counts),
            _ => self.raw_index_bits,
        };
        record.index_table_bits = assigned
            .index
            .filter(|_| assigned.pays_index)
            .map_or(0, table);
    }
}
