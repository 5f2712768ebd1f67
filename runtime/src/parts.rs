//! Splits work over the rows of an output without sharing: every thread gets its own slice.

use crate::error::{Error, Result};
use crate::threads::{MAX_THREADS, Team};
use dcz_kernels::Map;
use std::ops::Range;

/// Up to [`MAX_THREADS`] pieces of work, on the stack.
pub(crate) struct Parts<T> {
    items: [Option<T>; MAX_THREADS],
    len: usize,
}

impl<T> Parts<T> {
    pub(crate) fn new() -> Self {
        Parts {
            items: [const { None }; MAX_THREADS],
            len: 0,
        }
    }

    pub(crate) fn push(&mut self, item: T) -> Result<()> {
        let slot = self.items.get_mut(self.len);
        *slot.ok_or_else(|| Error::internal("too many parts"))? = Some(item);
        self.len += 1;
        Ok(())
    }

    pub(crate) fn used(&mut self) -> &mut [Option<T>] {
        &mut self.items[..self.len]
    }
}

/// The parts of a scratch for so many threads.
pub(crate) fn split_scratch(
    scratch: &mut [f32],
    threads: usize,
) -> impl Iterator<Item = &mut [f32]> {
    let each = scratch.len() / threads.max(1);
    let mut rest = scratch;
    (0..threads).map_while(move |_| rest.split_off_mut(..each))
}

/// Splits `rows` rows of `row_len` elements into at most `threads` ranges of whole units of rows
/// (the last may be cut) and calls `f(range, its elements, scratch of the thread)` for each in
/// parallel. `scratch` is that of all `threads`.
pub(crate) fn split_rows<F>(
    team: &Team,
    (threads, unit): (usize, usize),
    rows: usize,
    row_len: usize,
    out: &mut [f32],
    scratch: &mut [f32],
    f: F,
) -> Result<()>
where
    F: Fn(Range<usize>, &mut [f32], &mut [f32]) -> Result<()> + Sync,
{
    let units = rows.div_ceil(unit.max(1));
    let count = threads.min(units).max(1);
    let mut parts = Parts::new();
    let (mut rest, mut first) = (out, 0);
    for (part, scratch) in (1..=count).zip(split_scratch(scratch, threads.max(1))) {
        let end = (units * part / count * unit).min(rows);
        let own = rest.split_off_mut(..(end - first) * row_len);
        let own = own.ok_or_else(short)?;
        parts.push((first..end, own, scratch, Ok(())))?;
        first = end;
    }
    team.for_each(parts.used(), |_, part| {
        if let Some((range, out, scratch, outcome)) = part {
            *outcome = f(range.clone(), out, scratch);
        }
    });
    for part in parts.used().iter_mut().flatten() {
        std::mem::replace(&mut part.3, Ok(()))?;
    }
    Ok(())
}

/// The rows of a `[row][channel][column]` map, image by image: `f(image, rows, their elements)`.
pub(crate) fn each_rows<F>(
    team: &Team,
    threads: usize,
    out: &mut [f32],
    map: Map,
    f: F,
) -> Result<()>
where
    F: Fn(usize, Range<usize>, &mut [f32]) + Sync,
{
    split_rows(
        team,
        (threads, 1),
        map.n * map.h,
        map.c * map.w,
        out,
        &mut [],
        |range, out, _| per_image(range, map, out, &f),
    )
}

/// Cuts a range of rows counted through all images, whose data is `out`, into images.
pub(crate) fn per_image(
    range: Range<usize>,
    map: Map,
    out: &mut [f32],
    mut f: impl FnMut(usize, Range<usize>, &mut [f32]),
) -> Result<()> {
    let (mut row, mut rest) = (range.start, out);
    while row < range.end {
        let (image, first) = (row / map.h, row % map.h);
        let count = (map.h - first).min(range.end - row);
        let own = rest
            .split_off_mut(..count * map.c * map.w)
            .ok_or_else(short)?;
        f(image, first..first + count, own);
        row += count;
    }
    Ok(())
}

#[cold]
fn short() -> Error {
    Error::internal("output shorter than its rows")
}
