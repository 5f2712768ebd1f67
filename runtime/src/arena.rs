//! The memory of activations and scratch: one allocation that begins at a line of the cache.
//!
//! Buffers have offsets of whole lines, so vectors of 16 that are read or written at multiples of 16 touch one line each
//! instead of two. Large allocations of the C library begin 16 bytes behind a page, which made every one of them cross a line:
//! 3 to 7 % of a 1x1 or depthwise layer. (Weights that are kept gain nothing from it.)

use crate::error::Result;
use crate::resident::zeros;
use std::ops::{Deref, DerefMut};

/// Elements to a line.
const LINE: usize = 16;

/// Bytes that the allocation is longer than the arena.
pub(crate) const EXTRA: u64 = ((LINE - 1) * size_of::<f32>()) as u64;

/// Zeros, `len` of them from the first line on.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    memory: Box<[f32]>,
    len: usize,
}

impl Arena {
    pub(crate) fn new(len: usize) -> Result<Arena> {
        let extra = if len > 0 { LINE - 1 } else { 0 };
        let memory = zeros(len.saturating_add(extra))?;
        Ok(Arena { memory, len })
    }

    /// Elements before the first line.
    fn skip(&self) -> usize {
        let skip = self.memory.as_ptr().align_offset(LINE * size_of::<f32>());
        skip.min(self.memory.len() - self.len)
    }
}

impl Deref for Arena {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        let skip = self.skip();
        self.memory.get(skip..skip + self.len).unwrap_or_default()
    }
}

impl DerefMut for Arena {
    fn deref_mut(&mut self) -> &mut [f32] {
        let (skip, len) = (self.skip(), self.len);
        self.memory.get_mut(skip..skip + len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_at_a_line() {
        for len in [1, 15, 16, 17, 100_000, 5_000_000] {
            let arena = Arena::new(len).unwrap();
            assert_eq!((arena.len(), arena.as_ptr() as usize % 64), (len, 0));
        }
        assert!(Arena::new(0).unwrap().is_empty() && Arena::default().is_empty());
        assert!(Arena::new(usize::MAX).is_err());
    }
}
