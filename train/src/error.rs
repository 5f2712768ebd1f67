//! What can go wrong in training, and who is at fault.

use std::fmt;
use std::path::Path;

/// An error of training.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The network holds an operator that cannot be trained; the text names the node.
    Unsupported(String),
    /// Images, labels or options do not fit.
    Input(String),
    /// A file could not be read or written.
    Io(String),
    /// The caller asked to stop; where the work so far lies.
    Interrupted(String),
    /// Numbers became infinite, or a tensor operation failed.
    Numeric(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unsupported(text)
            | Error::Input(text)
            | Error::Io(text)
            | Error::Interrupted(text)
            | Error::Numeric(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Error {
        Error::Numeric(format!("training: {error}"))
    }
}

impl Error {
    /// An I/O error at a path.
    pub(crate) fn io(path: &Path, error: impl fmt::Display) -> Error {
        Error::Io(format!("{}: {error}", path.display()))
    }
}
