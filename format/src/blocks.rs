//! How full blocks of output channels are (`BLKS` in `docs/format.md`): lets a planner know that zeros were pruned together.
//!
//! With zeros strewn independently, few groups of four channels are empty; pruned in blocks, as many as weights are zero. The
//! number of zeros alone cannot tell the two, and a kernel that skips whole groups gains in the second case only.

use crate::error::Result;
use crate::layer::{LayerShape, PANEL};
use crate::record::{Reader, Writer};

/// Shares of groups of neighbouring output channels of a panel, at one input channel and tap, that hold any weight other
/// than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Of groups of two, in 255ths, rounded up.
    pub of2: u8,
    /// Of groups of four, in 255ths, rounded up.
    pub of4: u8,
}

impl Occupancy {
    /// Every group is taken to be needed.
    pub const FULL: Occupancy = Occupancy { of2: 255, of4: 255 };

    /// Shares from 0 to 1, of groups of two and of four.
    pub fn shares(self) -> [f64; 2] {
        [self.of2, self.of4].map(|share| f64::from(share) / 255.0)
    }

    /// Counts the groups of a layer; `is_zero` is asked by position in OIHW.
    pub(crate) fn of(shape: &LayerShape, is_zero: impl Fn(usize) -> bool) -> Occupancy {
        let (mut needed, mut all) = ([0u64; 2], [0u64; 2]);
        for panel in 0..shape.panels() {
            let (first, lanes) = shape.panel_channels(panel);
            for k in 0..shape.k() {
                let mut present = [false; PANEL];
                for (lane, present) in present.iter_mut().enumerate().take(lanes) {
                    *present = !is_zero((first + lane) * shape.k() + k);
                }
                for (size, (needed, all)) in [2, 4].into_iter().zip(needed.iter_mut().zip(&mut all))
                {
                    let groups = present.chunks(size).take(lanes.div_ceil(size));
                    *all += groups.len() as u64;
                    *needed += groups.filter(|group| group.contains(&true)).count() as u64;
                }
            }
        }
        let share = |i: usize| (255 * needed[i]).div_ceil(all[i].max(1)) as u8;
        Occupancy {
            of2: share(0),
            of4: share(1),
        }
    }

    /// Groups are emptier than independent zeros would leave them, by more than a tenth. Small layers say nothing.
    pub(crate) fn is_clustered(self, shape: &LayerShape, zeros: u64) -> bool {
        if shape.weights() < 1024 {
            return false;
        }
        let zeros = zeros as f64 / shape.weights().max(1) as f64;
        let [_, of4] = self.shares();
        of4 < 0.9 * (1.0 - zeros.powi(4))
    }
}

pub(crate) fn read(bytes: &[u8], base: u64, layers: usize) -> Result<Vec<Occupancy>> {
    let mut reader = Reader::new(bytes, base, 0);
    let mut list = Vec::with_capacity(layers);
    for _ in 0..layers {
        let of2 = reader.u8("groups of two")?;
        let of4 = reader.u8("groups of four")?;
        list.push(Occupancy { of2, of4 });
    }
    reader.finish()?;
    Ok(list)
}

pub(crate) fn write(list: &[Occupancy]) -> Vec<u8> {
    let mut w = Writer::default();
    for one in list {
        w.u8(one.of2);
        w.u8(one.of4);
    }
    w.bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_counted_within_panels() {
        let shape = LayerShape {
            out_channels: 6,
            in_per_group: 1,
            kernel: [1, 2],
            groups: 1,
        };
        // Channel 1 at k = 0 and channel 5 at k = 1: of 2 x 3 pairs two, of 2 x 2 fours two.
        let found = Occupancy::of(&shape, |at| at != 2 && at != 11);
        assert_eq!(found, Occupancy { of2: 85, of4: 128 });
        assert_eq!(
            Occupancy::of(&shape, |_| true),
            Occupancy { of2: 0, of4: 0 }
        );
        assert_eq!(Occupancy::of(&shape, |_| false), Occupancy::FULL);
        assert_eq!(read(&write(&[found]), 0, 1).unwrap(), [found]);
        assert!(read(&[1, 2, 3], 0, 1).is_err());
        assert!(read(&[1], 0, 1).is_err());
    }
}
