//! Where the bytes come from: a mapped file, memory, or a file read on demand, through one trait.
//!
//! [`MappedFile`] costs nothing to open and lets the system drop pages; if somebody truncates the file while it is
//! mapped, touching the lost pages ends the process with `SIGBUS`. Where that can happen use [`PositionedFile`], which
//! reports it as an error and copies every tile it reads. Replacing a file by renaming another over it, as
//! [`crate::writer::Encoded::write_atomic`] does, is safe for both.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use crate::source_mmap::MappedFile;

/// Random access to the bytes of a container. Implementations must answer the same bytes every time.
#[expect(
    clippy::len_without_is_empty,
    reason = "a length in the sense of a file, not of a collection"
)]
pub trait Source: Send + Sync + Debug {
    /// Bytes.
    fn len(&self) -> u64;
    /// All bytes, when they are addressable.
    fn bytes(&self) -> Option<&[u8]>;
    /// Fills `buffer` from `offset`; past the end is an error.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Hint: this range is not needed soon; mapped pages may be dropped. Contents do not change.
    fn release(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }
}

/// Bytes in memory.
#[derive(Clone)]
pub struct MemoryBytes(Arc<Vec<u8>>);

impl MemoryBytes {
    /// Takes the bytes (a slice is copied).
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        MemoryBytes(Arc::new(bytes.into()))
    }
}

impl Debug for MemoryBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryBytes({} bytes)", self.0.len())
    }
}

impl Source for MemoryBytes {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn bytes(&self) -> Option<&[u8]> {
        Some(&self.0)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        copy_range(&self.0, offset, buffer)
    }
}

pub(crate) fn copy_range(bytes: &[u8], offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
    let range = bytes.get(start..).and_then(|rest| rest.get(..buffer.len()));
    buffer.copy_from_slice(range.ok_or(io::ErrorKind::UnexpectedEof)?);
    Ok(())
}

/// A file read on demand, without mapping; safe against truncation by others.
#[derive(Debug)]
pub struct PositionedFile {
    file: File,
    len: u64,
}

impl PositionedFile {
    /// Opens for reading.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(PositionedFile { file, len })
    }
}

impl Source for PositionedFile {
    fn len(&self) -> u64 {
        self.len
    }
    fn bytes(&self) -> Option<&[u8]> {
        None
    }
    #[cfg(unix)]
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buffer, offset)
    }
    #[cfg(windows)]
    fn read_at(&self, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(&self.file, buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    buffer = &mut buffer[n..];
                    offset += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
