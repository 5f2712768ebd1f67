//! Where each buffer lies in the arena: greedy by size.
//!
//! A buffer lives from the step that first writes it to the last step that touches it. Buffers are placed largest
//! first, each into the smallest gap that is free during its whole life (Pisarchyk and Lee 2020, "Efficient memory
//! management for deep neural net inference"). The output of a band may begin in front of the input that it takes the
//! place of ([`Overlap`]); offsets count from the lowest one in the end. On chains with residual edges, which is what these networks are, the
//! result equals the lower bound (the largest sum of live sizes); it can lose where many buffers of different sizes
//! overlap partly. Cost: quadratic in the number of buffers, microseconds here.

use crate::band::Overlap;
use serde::Serialize;

/// Alignment of buffers, in f32 elements (64 bytes).
const ALIGN: usize = 16;
/// More buffers are not moved for the sake of scratch: it bounds the work of planning.
const MOST_SHIFTED: usize = 200;

/// A range of the arena, in f32 elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Span {
    /// First element.
    pub offset: usize,
    /// Number of elements.
    pub len: usize,
}

impl Span {
    /// As a range of indices.
    pub fn range(self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.len
    }
}

/// Size and life of a buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Life {
    /// Elements.
    pub len: usize,
    /// First step that touches it.
    pub first: usize,
    /// Last step that touches it.
    pub last: usize,
}

/// Offsets for the buffers and the length of the arena that holds them. The buffers of an overlap may share memory as it
/// says, although both are alive.
pub(crate) fn place(lives: &[Life], overlaps: &[Overlap]) -> (Vec<Span>, usize) {
    let mut order: Vec<usize> = (0..lives.len()).filter(|&i| lives[i].len > 0).collect();
    let last = lives.iter().map(|l| l.last).max().unwrap_or(0);
    let mut best: Option<(usize, usize, Vec<Span>)> = None;
    // Largest first; in order of time; those that live through the fullest times first. Each from below and from above.
    for (rule, high) in [0, 1, 2].into_iter().flat_map(|r| [(r, false), (r, true)]) {
        order.sort_unstable_by_key(|&i| {
            let l = &lives[i];
            let key = match rule {
                0 => 0,
                1 => l.first,
                _ => usize::MAX - (l.last - l.first),
            };
            (key, std::cmp::Reverse(l.len), l.first, i)
        });
        let (spans, arena) = place_in(&order, lives, overlaps, high);
        // Of equal arenas the one that leaves scratch the largest rooms.
        let room = |step| Room::at(lives, &spans, step).within(arena);
        let rooms: usize = (0..=last).map(room).sum();
        let better = |b: &(usize, usize, _)| arena < b.0 || arena == b.0 && rooms > b.1;
        if best.as_ref().is_none_or(better) {
            best = Some((arena, rooms, spans));
        }
    }
    let (arena, _, mut spans) = best.unwrap_or_default();
    if order.len() <= MOST_SHIFTED {
        shift(lives, overlaps, &mut spans, arena);
        shift(lives, overlaps, &mut spans, arena);
    }
    (spans, arena)
}

/// Moves buffers within the arena, one after the other, where that leaves larger rooms for scratch.
fn shift(lives: &[Life], overlaps: &[Overlap], spans: &mut [Span], arena: usize) {
    for (i, life) in lives.iter().enumerate() {
        let need = round(life.len);
        if need == 0 || overlaps.iter().any(|o| o.output == i || o.input == i) {
            continue;
        }
        let beside = |j: usize| {
            let other = &lives[j];
            j != i && other.len > 0 && other.first <= life.last && life.first <= other.last
        };
        let busy: Vec<Span> = (0..lives.len())
            .filter(|&j| beside(j))
            .map(|j| spans[j])
            .collect();
        let ends = busy.iter().flat_map(|s| {
            let before = s.offset.checked_sub(need);
            before.into_iter().chain([round(s.offset + s.len)])
        });
        let room = |spans: &[Span]| -> usize {
            let steps = life.first..=life.last;
            steps
                .map(|step| Room::at(lives, spans, step).within(arena))
                .sum()
        };
        let mut best = (room(spans), spans[i].offset);
        for offset in ends.chain(arena.checked_sub(need)).chain([0]) {
            let free = |s: &Span| s.offset + s.len <= offset || offset + need <= s.offset;
            if offset + need <= arena && busy.iter().all(free) {
                spans[i].offset = offset;
                best = best.max((room(spans), offset));
            }
        }
        spans[i].offset = best.1;
    }
}

/// Places buffers one after the other, at the lower or the upper end of their gap.
fn place_in(
    order: &[usize],
    lives: &[Life],
    overlaps: &[Overlap],
    high: bool,
) -> (Vec<Span>, usize) {
    // Offsets may be negative until all are known.
    let mut at = vec![0isize; lives.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(lives.len());
    let (mut begin, mut end) = (0isize, 0isize);
    let mut busy: Vec<(isize, isize)> = Vec::new();
    for &i in order {
        let need = round(lives[i].len) as isize;
        busy.clear();
        busy.extend(
            (placed.iter())
                .filter(|&&j| lives[j].first <= lives[i].last && lives[i].first <= lives[j].last)
                .map(|&j| {
                    let (mut before, mut after) = (need, round(lives[j].len) as isize);
                    for o in overlaps {
                        if (o.output, o.input) == (i, j) {
                            before = before.min(o.gap as isize);
                        }
                        if (o.input, o.output) == (i, j) {
                            after = after.min(o.gap as isize);
                        }
                    }
                    // Offsets strictly between these would collide.
                    (at[j] - before, at[j] + after)
                }),
        );
        busy.sort_unstable();
        // (growth of the arena, size of the gap, offset)
        let mut best: Option<(isize, isize, isize)> = None;
        let mut consider = |offset: isize, gap: isize| {
            let grown = (end.max(offset + need) - begin.min(offset)) - (end - begin);
            if best.is_none_or(|b| (grown, gap) < (b.0, b.1)) {
                best = Some((grown, gap, offset));
            }
        };
        let mut cursor: Option<isize> = None;
        for &(from, to) in &busy {
            match cursor {
                None => consider(from, isize::MAX),
                Some(c) if from >= c => {
                    let ends = if high { [from, c] } else { [c, from] };
                    ends.into_iter()
                        .for_each(|offset| consider(offset, from - c));
                }
                Some(_) => {}
            }
            cursor = Some(cursor.map_or(to, |c| c.max(to)));
        }
        // The end of everything, or the beginning of the arena.
        let least = cursor.unwrap_or(begin);
        let offset = if high { least.max(end - need) } else { least };
        consider(offset, isize::MAX - 1);
        let offset = best.map_or(0, |b| b.2);
        at[i] = offset;
        placed.push(i);
        (begin, end) = (begin.min(offset), end.max(offset + need));
    }
    let span = |i: usize| Span {
        offset: (at[i] - begin).max(0) as usize,
        len: lives[i].len,
    };
    ((0..lives.len()).map(span).collect(), (end - begin) as usize)
}

/// Elements alive at a step: the lower bound that [`place`] aims at.
pub(crate) fn live(lives: &[Life], overlaps: &[Overlap], step: usize) -> usize {
    let alive = |l: &Life| l.first <= step && step <= l.last;
    let all = lives.iter().filter(|l| alive(l)).map(|l| round(l.len));
    let both = |o: &&Overlap| {
        let ends = [o.output, o.input].map(|b| lives.get(b).is_some_and(alive));
        ends == [true, true]
    };
    let shared = overlaps.iter().filter(both).map(|o| saved(lives, o));
    all.sum::<usize>().saturating_sub(shared.sum())
}

/// What the buffers that are alive leave of the arena: the largest hole between them, and where the last one ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    hole: Span,
    top: usize,
}

impl Room {
    /// The room at a step.
    pub(crate) fn at(lives: &[Life], spans: &[Span], step: usize) -> Room {
        let pairs = lives.iter().zip(spans);
        let alive = pairs.filter(|(l, _)| l.len > 0 && l.first <= step && step <= l.last);
        // Of a type that is sorted elsewhere here too: a sort of its own would add 3 KB.
        let mut spans: Vec<(isize, isize)> =
            (alive.map(|(_, s)| (s.offset as isize, (s.offset + s.len) as isize))).collect();
        spans.sort_unstable();
        let (mut hole, mut top) = (Span::default(), 0);
        for (offset, end) in spans {
            let offset = offset as usize;
            if offset > top && offset - top > hole.len {
                hole = Span {
                    offset: top,
                    len: offset - top,
                };
            }
            top = top.max(round(end as usize));
        }
        Room { hole, top }
    }

    /// The most that fits within `arena` elements.
    fn within(&self, arena: usize) -> usize {
        self.hole.len.max(arena.saturating_sub(self.top))
    }

    /// Where `len` elements fit: in the hole, or behind everything, if need be beyond the arena.
    pub(crate) fn place(&self, len: usize) -> Span {
        let offset = match len {
            0 => 0,
            len if len <= self.hole.len => self.hole.offset,
            _ => self.top,
        };
        Span { offset, len }
    }
}

/// Elements that an overlap saves.
pub(crate) fn saved(lives: &[Life], overlap: &Overlap) -> usize {
    let len = |b: usize| lives.get(b).map_or(0, |l: &Life| round(l.len));
    let (output, input) = (len(overlap.output), len(overlap.input));
    (output + input).saturating_sub(output.max(overlap.gap + input))
}

pub(crate) fn round(len: usize) -> usize {
    len.div_ceil(ALIGN) * ALIGN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disjoint(lives: &[Life], spans: &[Span]) -> bool {
        (0..lives.len()).all(|i| {
            (0..i).all(|j| {
                let apart_in_time =
                    lives[i].last < lives[j].first || lives[j].last < lives[i].first;
                let (a, b) = (spans[i].range(), spans[j].range());
                apart_in_time || a.end <= b.start || b.end <= a.start
            })
        })
    }

    #[test]
    fn room_beside_what_is_alive() {
        let life = |len, first, last| Life { len, first, last };
        let lives = [life(32, 0, 1), life(16, 1, 2), life(64, 2, 3)];
        let span = |offset, len| Span { offset, len };
        let spans = [span(0, 32), span(96, 16), span(0, 64)];
        let room = |step| Room::at(&lives, &spans, step);
        assert_eq!(room(0).place(500), span(32, 500));
        assert_eq!(room(1).place(64), span(32, 64));
        assert_eq!(room(1).place(65), span(112, 65));
        assert_eq!(room(2).place(32), span(64, 32));
        assert_eq!(room(3).place(0), span(0, 0));
    }

    #[test]
    fn chain_with_residual() {
        let life = |len, first, last| Life { len, first, last };
        let lives = [
            life(100, 0, 1),
            life(100, 1, 2),
            life(64, 2, 5),
            life(32, 3, 4),
            life(32, 4, 5),
            life(7, 5, 6),
        ];
        let (spans, total) = place(&lives, &[]);
        assert!(disjoint(&lives, &spans));
        assert_eq!(total, (0..7).map(|s| live(&lives, &[], s)).max().unwrap());
    }

    #[test]
    fn random_lives_never_overlap() {
        let mut seed = 7u64;
        let mut next = |n: u64| {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            ((seed >> 33) % n) as usize
        };
        for _ in 0..50 {
            let lives: Vec<Life> = (0..40)
                .map(|_| {
                    let first = next(30);
                    Life {
                        len: 1 + next(500),
                        first,
                        last: first + next(8),
                    }
                })
                .collect();
            let (spans, total) = place(&lives, &[]);
            assert!(disjoint(&lives, &spans));
            assert!(
                spans
                    .iter()
                    .all(|s| s.range().end <= total && s.offset % ALIGN == 0)
            );
        }
    }
}
