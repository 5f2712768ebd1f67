//! A one-line error with its exit code.

use std::fmt::Display;
use std::path::Path;

/// Why the program ends.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub code: u8,
    /// One line.
    pub message: String,
}

impl Failure {
    /// Exit code 2.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure {
            code: 2,
            message: message.into(),
        }
    }
    /// Exit code 3.
    pub fn corrupt(message: impl Into<String>) -> Failure {
        Failure {
            code: 3,
            message: message.into(),
        }
    }
    /// Exit code 5, about a file.
    pub fn input(path: &Path, why: impl Display) -> Failure {
        Failure {
            code: 5,
            message: format!("{}: {why}", path.display()),
        }
    }
    /// Exit code 7, about a file.
    pub fn io(path: &Path, error: impl Display) -> Failure {
        Failure {
            code: 7,
            message: format!("{}: {error}", path.display()),
        }
    }
}

impl From<dcz_face::Error> for Failure {
    fn from(error: dcz_face::Error) -> Failure {
        Failure {
            code: error.exit_code(),
            message: error.to_string().replace('\n', " "),
        }
    }
}

impl From<dcz::Error> for Failure {
    fn from(error: dcz::Error) -> Failure {
        Failure {
            code: error.exit_code(),
            message: error.to_string().replace('\n', " "),
        }
    }
}
