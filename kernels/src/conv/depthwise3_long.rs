//! Depthwise 3x3, stride 1 or 2, straight from the map in registers of 16 f32: a pixel per lane, any width and padding.
//!
//! Seven output rows at a time (maps of 7, 14, 28, 56 rows divide by it), four of what is left or with stride 2: the vectors of
//! the three columns of taps are loaded once for all of them. Lanes beyond the row are masked, a row beyond the map is one of
//! zeros that does not move on. Rows are outside, then panels, columns, channels: masks are
//! found once per panel, and there are as many streams of memory as rows, which all may lie in one set of the L1 cache. Same
//! chains and bits as `depthwise_lanes.rs`.

use super::ConvShape;
use super::depthwise3::{Direct, NINE, PANELS};
use super::store::Lasts;
use crate::simd::{Isa, Long, LongWork, Seen};
use crate::weights::PANEL;

/// Output rows at a time, and with stride 2 or where fewer are left.
const HIGH: usize = 7;
const LOW: usize = 4;
/// Most input rows that they see.
const SEEN: usize = 9;

/// Whether this can compute a layer that is not added to what is there.
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
pub(super) fn run(isa: Isa, mut direct: Direct<'_, '_, '_>) {
    let epilogue = direct.target.epilogue;
    let lasts = Lasts::new(epilogue, direct.channels.clone());
    let (rows, stride) = (direct.target.band.rows.clone(), direct.shape.stride[0]);
    let mut first = rows.start;
    while first < rows.end {
        let (direct, lasts) = (&mut direct, &lasts);
        first += match (stride, rows.end - first) {
            // Eight are twice four.
            (1, 5..=7 | 9..) => next::<1, HIGH>(isa, direct, lasts, first),
            (1, _) => next::<1, LOW>(isa, direct, lasts, first),
            _ => next::<2, LOW>(isa, direct, lasts, first),
        };
    }
    if let Some(epilogue) = epilogue.filter(|e| !e.is_simple()) {
        for row in 0..rows.len() {
            for channel in direct.channels.clone() {
                let out = &mut direct.target.place(channel, row, 0)[..direct.shape.out_w];
                epilogue.apply(channel, out);
            }
        }
    }
}

/// Of the most channels at a time.
type OfRows = Lasts<{ PANELS * PANEL }>;

/// `R` output rows from row `first` on, with stride `T`; returns `R`.
fn next<const T: usize, const R: usize>(
    isa: Isa,
    direct: &mut Direct<'_, '_, '_>,
    lasts: &OfRows,
    first: usize,
) -> usize {
    isa.run_long(Rows::<T, R> {
        direct,
        lasts,
        first,
    });
    R
}

struct Rows<'l, 'a, 'b, 'c, const T: usize, const R: usize> {
    direct: &'l mut Direct<'a, 'b, 'c>,
    lasts: &'l OfRows,
    first: usize,
}

/// An input row.
#[derive(Clone, Copy)]
struct Line<'a> {
    from: &'a [f32],
    /// Where channel 0 begins.
    start: usize,
    /// All bits of the distance from there count, or none.
    moves: usize,
}

impl<const T: usize, const R: usize> LongWork for Rows<'_, '_, '_, '_, T, R> {
    type Output = ();

    #[inline(always)]
    fn run<S: Long>(self, simd: S) {
        let Rows {
            direct,
            lasts,
            first,
        } = self;
        let (shape, input) = (direct.shape, direct.input);
        let target = &mut *direct.target;
        let channels = direct.channels.clone();
        let (low, high) = lasts.limits.unwrap_or_default();
        let (low, high) = (simd.splat16(low), simd.splat16(high));
        let (end, map) = (target.band.rows.end, target.out.map);
        // Rows that are too many are written first, where the last one comes then.
        let mut places = [0; R];
        for (row, place) in places.iter_mut().enumerate() {
            let row = (first + row).min(end - 1);
            *place = map.at(0, channels.start, row - target.first_row);
        }
        let zeros = [0.0; 2 * 16 + 1];
        let mut lines = [Line {
            from: &zeros,
            start: 0,
            moves: 0,
        }; SEEN];
        let seen_rows = T * (R - 1) + 3;
        for (y, line) in (T * first..).zip(&mut lines[..seen_rows]) {
            let y = y.checked_sub(shape.pad_top);
            if let Some(y) = y.filter(|&y| y < shape.in_h) {
                *line = Line {
                    from: input.data,
                    start: input.map.at(0, channels.start, y),
                    moves: usize::MAX,
                };
            }
        }
        for (panel, own) in direct.weights.chunks_exact(NINE).enumerate() {
            let of_panel = panel * PANEL..channels.len().min((panel + 1) * PANEL);
            for column in (0..shape.out_w).step_by(16) {
                let lanes = simd.first16(shape.out_w - column);
                // Columns of the input from the first column of taps on.
                let skip = shape.pad_left.saturating_sub(T * column);
                let at = T * column + skip - shape.pad_left;
                let end = (shape.in_w + skip - at).min(T * (lanes.count() - 1) + 3);
                let seen = Seen::new(skip, end);
                for i in of_panel.clone() {
                    let mut w = [simd.splat16(0.0); NINE];
                    for k in 0..NINE {
                        w[k] = simd.splat16(own[k][i % PANEL]);
                    }
                    let distance = i * input.map.channel + at;
                    let mut from = [&zeros[..]; SEEN];
                    for y in 0..seen_rows {
                        let line = lines[y];
                        from[y] = seen.of(&line.from[line.start + (distance & line.moves)..]);
                    }
                    let mut sums = [simd.splat16(0.0); R];
                    for y in 0..seen_rows {
                        let taps = simd.taps16::<T>(seen, from[y]);
                        for row in 0..R {
                            if y >= T * row && y < T * row + 3 {
                                let k = 3 * (y - T * row);
                                for j in 0..3 {
                                    sums[row] = simd.mul_add16(w[k + j], taps[j], sums[row]);
                                }
                            }
                        }
                    }
                    let out = &mut target.out.data[i * map.channel + column..];
                    let bias = simd.splat16(lasts.bias[i]);
                    for row in 0..R {
                        sums[row] = simd.add16(sums[row], bias);
                    }
                    if lasts.limits.is_some() {
                        for row in 0..R {
                            sums[row] = simd.clip16(sums[row], low, high);
                        }
                    } else {
                        let slope = simd.splat16(lasts.slope[i]);
                        for row in 0..R {
                            sums[row] = simd.leaky16(sums[row], slope);
                        }
                    }
                    for row in (0..R).rev() {
                        simd.store16_masked(lanes, sums[row], &mut out[places[row]..]);
                    }
                }
            }
        }
    }
}
