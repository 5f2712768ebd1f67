//! Bands: consecutive steps that run strip by strip, so that what lies between them never exists as a whole.
//!
//! Idea: a strip of rows of the last step's output needs a few more rows of each map before it. All steps of a band
//! advance together, each by the rows that the next strip of the last one demands; a map between them is a *window* of
//! rows that moves down with the strips (fused-layer execution, Alwani et al. 2016, with the overlap kept instead of
//! recomputed). Nothing is computed twice. Weights are decoded once, at the beginning, into a *bank* in the arena.
//! Windows move by copying the few rows that are still needed to their head; kernels see ordinary maps.
//!
//! The output may take the place of the input row by row, when the input dies in the band: output rows are written only
//! where every input row has been read for the last time ([`Simulation::gap`] says how far in front of the input the
//! output has to begin).
//!
//! Loses: kernels get few rows per call, so weights are expanded (or transformed) once per strip instead of once.
//!
//! [`Progress`] is the one description of the order of work: planning simulates it, execution follows it.

use crate::program::{Step, Value, Work};
use std::ops::Range;

/// Most steps of a band.
pub(crate) const MAX_STEPS: usize = 16;

/// Steps executed strip by strip. Every buffer they touch lives through the whole band.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Band {
    /// Positions in the program.
    pub steps: Range<usize>,
    /// Rows of the last step's output per strip.
    pub strip: usize,
    /// Number of strips per image.
    pub strips: usize,
    /// Buffers that hold a window of rows.
    pub windows: Vec<Window>,
    /// Buffers for decoded weights, one entry per step; none: no weights, or they are resident.
    pub banks: Vec<Option<usize>>,
    /// The input whose place the output takes.
    pub overlap: Option<Overlap>,
    /// Most rows of a call, one entry per step.
    pub rows: Vec<usize>,
}

/// A buffer that holds some rows of a map, moving down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub buffer: usize,
    /// Rows that it has room for.
    pub rows: usize,
    /// Elements of a row.
    pub row_len: usize,
}

/// `output` may lie over `input` if it begins at least `gap` elements in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overlap {
    pub output: usize,
    pub input: usize,
    pub gap: usize,
}

/// How far the steps of a band have come in the current image, and what they do next.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    end: usize,
    done: [usize; MAX_STEPS],
    next: [usize; MAX_STEPS],
    base: [usize; MAX_STEPS],
}

/// Rows of a window that move to its head before a strip: elements of its buffer.
pub(crate) struct Slide {
    pub from: usize,
    pub len: usize,
}

/// Rows of a 4-D value.
pub(crate) fn height(value: &Value) -> usize {
    value.map().h
}

/// The input rows that rows `rows` of a step's output need from its input `value`.
pub(crate) fn reach(step: &Step, rows: &Range<usize>, height: usize) -> Range<usize> {
    let (kernel, stride, dilation, pad) = match &step.work {
        Work::Conv(work) => {
            let s = &work.shape;
            (s.kernel[0], s.stride[0], s.dilation[0], s.pad_top)
        }
        Work::Pool(s) => (s.kernel[0], s.stride[0], s.dilation[0], s.pads[0]),
        Work::Resize(s) => return s.reach(rows),
        _ => return rows.clone(),
    };
    let start = (rows.start * stride).saturating_sub(pad);
    if rows.is_empty() {
        return start..start;
    }
    let last = (rows.end - 1) * stride + (kernel - 1) * dilation + 1;
    let end = last.saturating_sub(pad).min(height);
    start.min(end)..end
}

/// A step writes over what its output buffer holds: it adds to it or updates it in place.
fn updates(step: &Step) -> bool {
    let accumulates = matches!(&step.work, Work::Conv(work) if work.accumulate);
    accumulates || step.inputs.iter().any(|v| v.place == step.output.place)
}

/// The rows of `value` that a step reads for the given output rows; none if it does not read it.
fn reads(step: &Step, value: &Value, rows: &Range<usize>) -> Option<Range<usize>> {
    let mut found: Option<Range<usize>> = None;
    let mut add = |range: Range<usize>| {
        found = Some(match found.take() {
            Some(f) => f.start.min(range.start)..f.end.max(range.end),
            None => range,
        });
    };
    for input in &step.inputs {
        if input.place == value.place {
            add(reach(step, rows, height(input)));
        }
    }
    if step.output.place == value.place && updates(step) {
        add(rows.clone());
    }
    found
}

impl Progress {
    /// Before the first strip of an image.
    pub(crate) fn new() -> Progress {
        Progress {
            end: 0,
            done: [0; MAX_STEPS],
            next: [0; MAX_STEPS],
            base: [0; MAX_STEPS],
        }
    }

    /// Goes on to the next strip: says which rows each step computes. False when the image is complete.
    pub(crate) fn advance(&mut self, steps: &[Step], strip: usize, windows: &[Window]) -> bool {
        let Some(last) = steps.last() else {
            return false;
        };
        self.done = self.next;
        let total = height(&last.output);
        if self.end >= total {
            return false;
        }
        self.end = (self.end + strip.max(1)).min(total);
        let complete = self.end == total;
        let align = align(strip);
        for i in (0..steps.len()).rev() {
            let step = &steps[i];
            let rows = height(&step.output);
            let mut need = if i + 1 == steps.len() { self.end } else { 0 };
            let window = windows.iter().any(|w| is(&step.output, w.buffer));
            if complete && !window {
                need = rows;
            }
            for (j, later) in steps.iter().enumerate().skip(i + 1) {
                let wanted = self.done[j]..self.next[j];
                if !wanted.is_empty()
                    && let Some(range) = reads(later, &step.output, &wanted)
                {
                    need = need.max(range.end);
                }
            }
            self.next[i] = need.next_multiple_of(align).min(rows).max(self.done[i]);
        }
        true
    }

    /// Rows that a step computes in this strip.
    pub(crate) fn rows(&self, step: usize) -> Range<usize> {
        self.done[step]..self.next[step]
    }

    /// First row that a window holds.
    pub(crate) fn base(&self, window: usize) -> usize {
        self.base[window]
    }

    /// Moves a window to the first row that is still read; to be called for every window once per strip, before the
    /// steps.
    pub(crate) fn slide(&mut self, steps: &[Step], index: usize, window: &Window) -> Slide {
        let (mut first, mut filled) = (usize::MAX, usize::MAX);
        for (i, step) in steps.iter().enumerate() {
            let left = self.done[i]..height(&step.output);
            if is(&step.output, window.buffer) {
                // The step that writes it first has come furthest.
                if filled == usize::MAX {
                    filled = self.done[i];
                    continue;
                }
                first = first.min(left.start);
            }
            if !left.is_empty() {
                let inputs = step.inputs.iter().filter(|v| is(v, window.buffer));
                for input in inputs {
                    first = first.min(reach(step, &left, height(input)).start);
                }
            }
        }
        let base = self.base[index];
        let first = first.min(filled).max(base);
        self.base[index] = first;
        Slide {
            from: (first - base) * window.row_len,
            len: (filled - first) * window.row_len,
        }
    }
}

/// Strips of this many rows stop at multiples of this many rows, so that tiles of Winograd are never cut.
pub(crate) fn align(strip: usize) -> usize {
    match strip {
        s if s % 4 == 0 => 4,
        s if s % 2 == 0 => 2,
        _ => 1,
    }
}

pub(crate) fn is(value: &Value, buffer: usize) -> bool {
    value.place == crate::program::Place::Buffer(buffer)
}

/// What a band needs, found by going through it without computing.
#[derive(Debug)]
pub(crate) struct Simulation {
    /// Most rows of each window at once.
    pub windows: Vec<usize>,
    /// Most rows of a call, per step.
    pub rows: Vec<usize>,
    pub strips: usize,
    /// Elements by which the output must begin in front of the input.
    pub gap: usize,
}

/// Goes through a band of `images` images. `None` if a step would read rows that are overwritten or not there yet.
/// `overlap`: input (lying row by row) and output whose distance is asked for.
pub(crate) fn simulate(
    steps: &[Step],
    strip: usize,
    windows: &[Window],
    overlap: Option<(Value, Value)>,
    images: usize,
) -> Option<Simulation> {
    let mut found = Simulation {
        windows: vec![0; windows.len()],
        rows: vec![0; steps.len()],
        strips: 0,
        gap: 0,
    };
    let mut progress = Progress::new();
    while progress.advance(steps, strip, windows) {
        found.strips += 1;
        for (index, window) in windows.iter().enumerate() {
            progress.slide(steps, index, window);
        }
        for (index, step) in steps.iter().enumerate() {
            let rows = progress.rows(index);
            found.rows[index] = found.rows[index].max(rows.len());
            if !rows.is_empty() && !intact(steps, index, &progress, windows) {
                return None;
            }
            for (slot, (w, window)) in found.windows.iter_mut().zip(windows.iter().enumerate()) {
                if is(&step.output, window.buffer) {
                    *slot = (*slot).max(rows.end.saturating_sub(progress.base(w)));
                }
            }
            if let Some((input, output)) = &overlap {
                let gap = distance(steps, index, &progress, input, output, images);
                found.gap = found.gap.max(gap);
            }
        }
    }
    let whole = |(i, step): (usize, &Step)| {
        let window = windows.iter().any(|w| is(&step.output, w.buffer));
        window || progress.next[i] == height(&step.output)
    };
    steps.iter().enumerate().all(whole).then_some(found)
}

/// What step `index` reads in this strip is there and not written over by a later step.
fn intact(steps: &[Step], index: usize, progress: &Progress, windows: &[Window]) -> bool {
    let step = &steps[index];
    let rows = progress.rows(index);
    let values = step.inputs.iter().chain([&step.output]);
    values.into_iter().all(|value| {
        let Some(range) = reads(step, value, &rows) else {
            return true;
        };
        let window = windows.iter().position(|w| is(value, w.buffer));
        let held = window.is_none_or(|w| range.start >= progress.base(w));
        held && steps.iter().enumerate().all(|(other, writer)| {
            if writer.output.place != value.place || other == index {
                return true;
            }
            if other < index {
                progress.next[other] >= range.end
            } else {
                progress.done[other] <= range.start
            }
        })
    })
}

/// How far in front of the input the output must begin so that step `index`, in this strip, writes only over rows of the
/// input that nobody reads any more (or, doing both, reads while writing).
fn distance(
    steps: &[Step],
    index: usize,
    progress: &Progress,
    input: &Value,
    output: &Value,
    images: usize,
) -> usize {
    let rows = progress.rows(index);
    if steps[index].output.place != output.place || rows.is_empty() {
        return 0;
    }
    let first_read = steps.iter().enumerate().filter_map(|(i, step)| {
        let from = if i < index {
            progress.next[i]
        } else {
            progress.done[i]
        };
        let left = from..height(&step.output);
        if left.is_empty() {
            return None;
        }
        let read = step.inputs.iter().filter(|v| v.place == input.place);
        read.map(|v| reach(step, &left, height(v)).start).min()
    });
    let (from, to) = (input.map(), output.map());
    let read = first_read.min();
    (0..images)
        .map(|image| {
            let written = image * to.batch + rows.end * to.row;
            match read {
                Some(row) => written.saturating_sub(image * from.batch + row * from.row),
                // The next image is still to be read.
                None if image + 1 < images => written.saturating_sub((image + 1) * from.batch),
                None => 0,
            }
        })
        .max()
        .unwrap_or(0)
}
