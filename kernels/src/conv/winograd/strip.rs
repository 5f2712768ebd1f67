//! Strips: rectangles of tiles that are transformed, multiplied and transformed back together.
//! How a map is cut into strips changes no bit, since tiles lie on a fixed grid of the output.

use crate::conv::ConvShape;
use std::ops::Range;

/// Most tiles of a strip.
pub(super) const MOST_TILES: usize = 96;
/// The same with room for a vector that starts at the last 8.
const PLACES: usize = MOST_TILES + 8;

/// A rectangle of tiles.
#[derive(Clone, Debug)]
pub(super) struct Strip {
    /// Tile rows and columns, counted from the output's corner.
    pub rows: Range<usize>,
    pub columns: Range<usize>,
}

impl Strip {
    /// Tiles.
    pub fn tiles(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// Distance of two channels of transformed input: whole vectors.
    pub fn pitch(&self) -> usize {
        self.tiles().next_multiple_of(8)
    }

    /// Where tiles start that lie `row` and `column` apart; those beyond the last repeat it.
    #[inline(always)]
    pub fn places(&self, row: usize, column: usize) -> [u32; PLACES] {
        let mut places = [0; PLACES];
        let (mut x, mut y) = (0, 0);
        for place in &mut places[..self.pitch() + 8] {
            *place = (y * row + x * column) as u32;
            x += 1;
            if x == self.columns.len() && y + 1 < self.rows.len() {
                (x, y) = (0, y + 1);
            }
            x = x.min(self.columns.len() - 1);
        }
        places
    }
}

/// The largest strip. `m`: output rows and columns of a tile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub rows: usize,
    pub columns: usize,
}

impl Cut {
    /// At most `tiles` tiles (but one), of calls of at most `rows` output rows.
    pub fn new(m: usize, shape: &ConvShape, rows: usize, tiles: usize) -> Cut {
        let across = shape.out_w.div_ceil(m).max(1);
        // A call that starts in the middle of a tile row touches one more.
        let down = (rows.div_ceil(m) + 1).clamp(1, shape.out_h.div_ceil(m).max(1));
        let tiles = tiles.max(1);
        if across > tiles {
            let columns = across.div_ceil(across.div_ceil(tiles));
            let columns = columns.next_multiple_of(8).min(tiles);
            return Cut { rows: 1, columns };
        }
        Cut {
            rows: (tiles / across).min(down),
            columns: across,
        }
    }

    /// Whether one strip holds any call of at most `rows` output rows.
    pub fn is_all(self, m: usize, shape: &ConvShape, rows: usize) -> bool {
        let down = (rows.div_ceil(m) + 1).min(shape.out_h.div_ceil(m));
        self.rows >= down && self.columns >= shape.out_w.div_ceil(m)
    }

    /// The strips that cover output rows `rows`.
    pub fn strips(self, m: usize, shape: &ConvShape, rows: &Range<usize>) -> Strips {
        let down = rows.start / m..rows.end.div_ceil(m);
        // Balanced.
        let height = down.len().div_ceil(down.len().div_ceil(self.rows));
        Strips {
            cut: Cut {
                rows: height,
                columns: self.columns,
            },
            across: shape.out_w.div_ceil(m),
            next: down.start,
            end: down.end,
            column: 0,
        }
    }
}

/// Iterator of [`Cut::strips`].
#[derive(Clone)]
pub(super) struct Strips {
    cut: Cut,
    across: usize,
    next: usize,
    end: usize,
    column: usize,
}

impl Iterator for Strips {
    type Item = Strip;

    fn next(&mut self) -> Option<Strip> {
        if self.next >= self.end {
            return None;
        }
        let rows = self.next..(self.next + self.cut.rows).min(self.end);
        let columns = self.column..(self.column + self.cut.columns).min(self.across);
        self.column = columns.end;
        if self.column >= self.across {
            self.column = 0;
            self.next = rows.end;
        }
        Some(Strip { rows, columns })
    }
}
