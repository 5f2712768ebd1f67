//! Depthwise 3x3, stride 1 or 2, straight from the map in registers of 16 f32: a pixel per lane, any width and padding.
//!
//! Four output rows at a time: the vectors of the three columns of taps are loaded once for all of them. Lanes beyond the row
//! are masked, rows beyond the map are zeros. Rows are outside, then panels, columns, channels: masks and ends of rows are
//! found once per panel, and there are as many streams of memory as rows, which all may lie in one set of the L1 cache. Same
//! chains and bits as `depthwise_lanes.rs`.

use super::ConvShape;
use super::depthwise3::{Direct, NINE, PANELS};
use super::store::Lasts;
use crate::simd::{Isa, Long, LongWork, Seen};
use crate::weights::PANEL;

/// Output rows at a time.
const ROWS: usize = 4;
/// Most input rows that they see.
const SEEN: usize = 2 * (ROWS - 1) + 3;

/// Whether this can compute a layer.
pub(super) fn fits(isa: Isa, shape: &ConvShape) -> bool {
    let [stride, across] = shape.stride;
    // The middle column of taps of the last output is at most one behind the row.
    let last = shape.out_w.saturating_sub(1).saturating_mul(across) + 1;
    isa.has_long()
        && shape.kernel == [3, 3]
        && shape.dilation == [1, 1]
        && stride == across
        && matches!(stride, 1 | 2)
        && shape.out_per_group() == 1
        && shape.pad_left <= 1
        && last <= shape.in_w + shape.pad_left
}

/// The rows of the target's band, in all columns.
pub(super) fn run(isa: Isa, direct: Direct<'_, '_, '_>) {
    if direct.shape.stride[0] == 1 {
        isa.run_long(Stride::<1>(direct));
    } else {
        isa.run_long(Stride::<2>(direct));
    }
}

struct Stride<'a, 'b, 'c, const T: usize>(Direct<'a, 'b, 'c>);

impl<const T: usize> LongWork for Stride<'_, '_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Long>(self, simd: S) {
        let Direct {
            weights,
            input,
            shape,
            channels,
            target,
        } = self.0;
        let epilogue = target.epilogue;
        let simple = epilogue.filter(|e| e.is_simple());
        let lasts = Lasts::<{ PANELS * PANEL }>::new(epilogue, channels.clone());
        let (low, high) = lasts.limits.unwrap_or_default();
        let (low, high) = (simd.splat16(low), simd.splat16(high));
        let (rows, accumulate) = (target.band.rows.clone(), target.accumulate);
        let map = target.out.map;
        for first in rows.clone().step_by(ROWS) {
            // Rows that are too many are written first, where the last one comes then.
            let mut places = [0; ROWS];
            for (row, place) in places.iter_mut().enumerate() {
                let row = (first + row).min(rows.end - 1);
                *place = map.at(0, channels.start, row - target.first_row);
            }
            let mut lines = [None; SEEN];
            let mut last = 0;
            for (y, line) in (T * first..).zip(&mut lines[..T * (ROWS - 1) + 3]) {
                let y = y.checked_sub(shape.pad_top).filter(|&y| y < shape.in_h);
                *line = y.map(|y| input.map.at(0, channels.start, y));
                last = line.unwrap_or(0).max(last);
            }
            for (panel, own) in weights.chunks_exact(NINE).enumerate() {
                let of_panel = panel * PANEL..channels.len().min((panel + 1) * PANEL);
                if of_panel.is_empty() {
                    break;
                }
                let start = of_panel.start * input.map.channel;
                for column in (0..shape.out_w).step_by(16) {
                    let lanes = simd.first16(shape.out_w - column);
                    // Columns of the input from the first column of taps on.
                    let skip = shape.pad_left.saturating_sub(T * column);
                    let at = T * column + skip - shape.pad_left + start;
                    let end = (shape.in_w + skip + start - at).min(T * (lanes.count() - 1) + 3);
                    let seen = Seen::new(skip, end);
                    // Rows of one length, so that one comparison is enough for all.
                    let len = input.data.len() - last - at;
                    let mut sources = [&input.data[..0]; SEEN];
                    for (source, line) in sources.iter_mut().zip(lines) {
                        if let Some(line) = line {
                            *source = &input.data[line + at..][..len];
                        }
                    }
                    let there = lines.map(|line| line.is_some());
                    for i in of_panel.clone() {
                        let mut w = [simd.splat16(0.0); NINE];
                        for k in 0..NINE {
                            w[k] = simd.splat16(own[k][i % PANEL]);
                        }
                        let from = (i - of_panel.start) * input.map.channel;
                        let mut sums = [simd.splat16(0.0); ROWS];
                        for y in 0..T * (ROWS - 1) + 3 {
                            let mut taps = [simd.splat16(0.0); 3];
                            if there[y] {
                                taps = simd.taps16::<T>(seen, sources[y], from);
                            }
                            for row in 0..ROWS {
                                if y >= T * row && y < T * row + 3 {
                                    let k = 3 * (y - T * row);
                                    for j in 0..3 {
                                        sums[row] = simd.mul_add16(w[k + j], taps[j], sums[row]);
                                    }
                                }
                            }
                        }
                        let out = &mut target.out.data[i * map.channel + column..];
                        if accumulate {
                            for row in 0..ROWS {
                                let old = simd.load16_masked(lanes, &out[places[row]..]);
                                sums[row] = simd.add16(old, sums[row]);
                            }
                        }
                        let bias = simd.splat16(lasts.bias[i]);
                        for row in 0..ROWS {
                            sums[row] = simd.add16(sums[row], bias);
                        }
                        if lasts.limits.is_some() {
                            for row in 0..ROWS {
                                sums[row] = simd.clip16(sums[row], low, high);
                            }
                        } else {
                            let slope = simd.splat16(lasts.slope[i]);
                            for row in 0..ROWS {
                                sums[row] = simd.leaky16(sums[row], slope);
                            }
                        }
                        for row in (0..ROWS).rev() {
                            simd.store16_masked(lanes, sums[row], &mut out[places[row]..]);
                        }
                    }
                }
            }
        }
        if let Some(epilogue) = epilogue.filter(|_| simple.is_none()) {
            for row in 0..rows.len() {
                for channel in channels.clone() {
                    let out = &mut target.place(channel, row, 0)[..shape.out_w];
                    epilogue.apply(channel, out);
                }
            }
        }
    }
}
