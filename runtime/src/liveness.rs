//! Where each buffer lies in the arena: greedy by size.
//!
//! A buffer lives from the step that first writes it to the last step that touches it. Buffers are placed largest
//! first, each into the smallest gap that is free during its whole life (Pisarchyk and Lee 2020, "Efficient memory
//! management for deep neural net inference"). On chains with residual edges, which is what these networks are, the
//! result equals the lower bound (the largest sum of live sizes); it can lose where many buffers of different sizes
//! overlap partly. Cost: quadratic in the number of buffers, microseconds here.

use serde::Serialize;

/// Alignment of buffers, in f32 elements (64 bytes).
const ALIGN: usize = 16;

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

/// Offsets for the buffers and the length of the arena that holds them.
pub(crate) fn place(lives: &[Life]) -> (Vec<Span>, usize) {
    let mut order: Vec<usize> = (0..lives.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lives[i].len), lives[i].first, i));
    let mut spans = vec![Span::default(); lives.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(lives.len());
    let mut total = 0;
    let mut busy: Vec<(usize, usize)> = Vec::new();
    for i in order {
        let life = lives[i];
        busy.clear();
        busy.extend(
            placed
                .iter()
                .filter(|&&j| lives[j].first <= life.last && life.first <= lives[j].last)
                .map(|&j| (spans[j].offset, spans[j].offset + round(spans[j].len))),
        );
        busy.sort_unstable();
        let need = round(life.len);
        let mut best: Option<(usize, usize)> = None;
        let mut cursor = 0;
        for &(begin, end) in &busy {
            if begin >= cursor + need && best.is_none_or(|(gap, _)| begin - cursor < gap) {
                best = Some((begin - cursor, cursor));
            }
            cursor = cursor.max(end);
        }
        let offset = best.map_or(cursor, |(_, at)| at);
        spans[i] = Span {
            offset,
            len: life.len,
        };
        placed.push(i);
        total = total.max(offset + need);
    }
    (spans, total)
}

/// Elements alive at a step: the lower bound that [`place`] aims at.
pub(crate) fn live(lives: &[Life], step: usize) -> usize {
    lives
        .iter()
        .filter(|l| l.first <= step && step <= l.last)
        .map(|l| round(l.len))
        .sum()
}

fn round(len: usize) -> usize {
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
        let (spans, total) = place(&lives);
        assert!(disjoint(&lives, &spans));
        assert_eq!(total, (0..7).map(|s| live(&lives, s)).max().unwrap());
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
            let (spans, total) = place(&lives);
            assert!(disjoint(&lives, &spans));
            assert!(
                spans
                    .iter()
                    .all(|s| s.range().end <= total && s.offset % ALIGN == 0)
            );
        }
    }
}
