//! The mapped source. `unsafe` lives here because a mapping's bytes can change under us when another process writes
//! to the file; everything read through it is therefore verified by checksum and decoded by code that stays within
//! its buffers whatever the bytes are.

use crate::source::{Source, copy_range};
use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::path::Path;

/// A file mapped read-only. See [`crate::source`] about truncation by others.
#[derive(Debug)]
pub struct MappedFile {
    /// `None`: the file is empty (an empty range cannot be mapped everywhere).
    map: Option<Mmap>,
}

impl MappedFile {
    /// Opens and maps.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(MappedFile { map: None });
        }
        // SAFETY: the mapping is read-only and shared references into it are only ever read as plain bytes. Writers
        // that follow this project's rule replace files by renaming, which leaves the mapped inode alone; bytes changed
        // in place by a foreign process are treated as untrusted input by everything downstream.
        let map = unsafe { Mmap::map(&file)? };
        Ok(MappedFile { map: Some(map) })
    }
}

impl Source for MappedFile {
    fn len(&self) -> u64 {
        self.map.as_ref().map_or(0, |map| map.len() as u64)
    }
    fn bytes(&self) -> Option<&[u8]> {
        Some(self.map.as_deref().unwrap_or(&[]))
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        copy_range(self.map.as_deref().unwrap_or(&[]), offset, buffer)
    }
    #[cfg(unix)]
    fn release(&self, offset: u64, len: u64) {
        const PAGE: u64 = 4096;
        let Some(map) = &self.map else { return };
        // The page that holds the end may be wanted by whoever reads on from there; the one that holds the start is not.
        let end = offset.saturating_add(len).min(map.len() as u64);
        let end = if end == map.len() as u64 {
            end
        } else {
            end / PAGE * PAGE
        };
        let start = offset / PAGE * PAGE;
        if start >= end {
            return;
        }
        // SAFETY: DontNeed drops clean pages of a read-only file mapping; the next access reads the same bytes from the
        // file again, so that references into the range stay valid and unchanged. The range is within the mapping.
        let advised = unsafe {
            map.unchecked_advise_range(
                memmap2::UncheckedAdvice::DontNeed,
                start as usize,
                (end - start) as usize,
            )
        };
        // A hint: nothing depends on it.
        let _ = advised;
    }
}
