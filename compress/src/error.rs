//! Errors of the tools: one line each, with the process exit code they mean.

use std::fmt;
use std::path::Path;

/// Exit codes shared by `dcz` and `infer`.
pub mod exit {
    /// All is well.
    pub const OK: u8 = 0;
    /// Wrong command line.
    pub const USAGE: u8 = 2;
    /// The file is malformed or corrupt.
    pub const MALFORMED: u8 = 3;
    /// The network uses something that is not supported.
    pub const UNSUPPORTED: u8 = 4;
    /// An input (array, image, settings file) does not fit.
    pub const INPUT: u8 = 5;
    /// The memory budget is too small.
    pub const BUDGET: u8 = 6;
    /// The operating system refused a file operation.
    pub const IO: u8 = 7;
    /// Some of many inputs failed.
    pub const SOME_FAILED: u8 = 8;
    /// A comparison found what it looked for: a layer that is not good enough.
    pub const DIFFERS: u8 = 9;
    /// Stopped by the user; the work so far was kept where that was asked for.
    pub const INTERRUPTED: u8 = 130;
}

/// What went wrong, who is at fault, and the exit code.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The request makes no sense: wrong option, unknown layer name.
    Usage(String),
    /// The ONNX file or the container is malformed.
    Malformed(String),
    /// Everything in the network that is not supported, at once.
    Unsupported(Vec<Unsupported>),
    /// A settings file, array or image does not fit.
    Input(String),
    /// The memory budget is too small.
    Budget(String),
    /// A file could not be read or written.
    Io(String),
    /// The compressed file does not do what the network does; a defect of this program.
    SelfTest(String),
    /// Some of many inputs failed; the others were processed.
    SomeFailed(String),
    /// What was compared differs by more than was allowed.
    Differs(String),
    /// The user asked to stop; the text says where the work so far lies.
    Interrupted(String),
    /// An error of the runtime or the container, with the exit code it means.
    Runtime {
        /// The exit code.
        code: u8,
        /// The message.
        text: String,
    },
}

/// One thing of a network that is not supported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// Name of the ONNX node (of its first output when it has none).
    pub node: String,
    /// ONNX operator, with its domain when that is not the default one.
    pub operator: String,
    /// The attribute or input that is the obstacle, with its value; or what is missing altogether.
    pub attribute: String,
    /// The nearest form that is supported.
    pub nearest: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "node '{}' ({}): {}; nearest supported form: {}",
            self.node, self.operator, self.attribute, self.nearest
        )
    }
}

impl Error {
    /// The process exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => exit::USAGE,
            Error::Malformed(_) | Error::SelfTest(_) => exit::MALFORMED,
            Error::Unsupported(_) => exit::UNSUPPORTED,
            Error::Input(_) => exit::INPUT,
            Error::Budget(_) => exit::BUDGET,
            Error::Io(_) => exit::IO,
            Error::SomeFailed(_) => exit::SOME_FAILED,
            Error::Differs(_) => exit::DIFFERS,
            Error::Interrupted(_) => exit::INTERRUPTED,
            Error::Runtime { code, .. } => *code,
        }
    }

    /// An I/O error at a path.
    pub fn io(path: &Path, error: &std::io::Error) -> Error {
        Error::Io(format!("{}: {error}", path.display()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(text)
            | Error::Malformed(text)
            | Error::Input(text)
            | Error::Budget(text)
            | Error::Io(text)
            | Error::SelfTest(text)
            | Error::SomeFailed(text)
            | Error::Differs(text)
            | Error::Interrupted(text)
            | Error::Runtime { text, .. } => f.write_str(text),
            Error::Unsupported(list) => {
                write!(
                    f,
                    "the network uses {} thing{} that {} not supported",
                    list.len(),
                    plural(list.len()),
                    if list.len() == 1 { "is" } else { "are" }
                )?;
                for item in list {
                    write!(f, "; {item}")?;
                }
                Ok(())
            }
        }
    }
}

fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}

impl std::error::Error for Error {}

impl From<dcz::Error> for Error {
    fn from(error: dcz::Error) -> Error {
        Error::Runtime {
            code: error.exit_code(),
            text: error.to_string(),
        }
    }
}

impl From<dcz_format::Error> for Error {
    fn from(error: dcz_format::Error) -> Error {
        dcz::Error::from(error).into()
    }
}
