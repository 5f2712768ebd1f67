//! Zeroed memory of a length that a file decides: for weights that stay and for the arena.
//!
//! Large pieces are mappings of their own. Fresh pages are zero already, so a piece is written once, with its contents (a
//! vector that may fail to grow is filled with zeros first: 100 MB of transformed weights would be written twice). The
//! system is asked for pages of 2 MiB, where it has them: a fault each, not 512. Freeing gives the memory back at once.

use crate::error::{Error, ErrorKind, Result};
use bytemuck::Pod;
use memmap2::MmapMut;
use std::ops::{Deref, DerefMut};

/// Bytes from which a piece is a mapping.
const MAPPED: usize = 1 << 20;

/// Elements of one type, zero at first.
#[derive(Debug)]
pub(crate) enum Buffer<T> {
    Heap(Box<[T]>),
    Mapped(MmapMut),
}

impl<T: Pod> Buffer<T> {
    /// So many elements; a size that a file asks for must not abort the process.
    pub(crate) fn zeros(len: usize) -> Result<Buffer<T>> {
        let bytes = len.saturating_mul(size_of::<T>());
        let failed = || Error::from(ErrorKind::OutOfMemory(bytes as u64));
        if bytes >= MAPPED
            && let Ok(map) = MmapMut::map_anon(bytes)
        {
            // A hint: nothing depends on it.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            return Ok(Buffer::Mapped(map));
        }
        let mut values = Vec::new();
        values.try_reserve_exact(len).map_err(|_| failed())?;
        values.resize(len, T::zeroed());
        Ok(Buffer::Heap(values.into()))
    }
}

impl<T> Default for Buffer<T> {
    fn default() -> Buffer<T> {
        Buffer::Heap(Box::default())
    }
}

/// Pages are aligned for, and a whole number of elements of, every type that is used here.
impl<T: Pod> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Buffer::Heap(values) => values,
            Buffer::Mapped(map) => bytemuck::cast_slice(map),
        }
    }
}

impl<T: Pod> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Buffer::Heap(values) => values,
            Buffer::Mapped(map) => bytemuck::cast_slice_mut(map),
        }
    }
}
