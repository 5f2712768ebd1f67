//! The error type of the runtime: what happened, who has to act, and the exit code both tools use for it.

use crate::shape::ShapeError;
use std::fmt;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The container: damaged, needing a newer reader, above a limit, or unreadable.
    #[error(transparent)]
    Format(#[from] dcz_format::error::Error),
    /// The file has no network of this name, or has several and none was named.
    #[error("{}", network_text(.wanted, .names))]
    Network {
        /// The name asked for, if any.
        wanted: Option<String>,
        /// The names in the file.
        names: Vec<String>,
    },
    /// The shapes of the inputs do not fit the network.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// An input or output of the caller: unknown name, missing, given twice, or of the wrong length.
    #[error("{0}")]
    Tensor(String),
    /// An image that cannot be used.
    #[error("{0}")]
    Image(String),
    /// `run` with shapes that were never prepared (or have left the plan cache since).
    #[error("these input shapes are not prepared: {0}")]
    Unprepared(String),
    /// The network uses something this version does not execute.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// The memory budget is smaller than what one thread needs.
    #[error(
        "memory budget of {budget} bytes is too small; the smallest feasible budget is {smallest_feasible} bytes"
    )]
    BudgetTooSmall {
        /// The budget given.
        budget: u64,
        /// The smallest budget that works for these shapes.
        smallest_feasible: u64,
    },
    /// The system has no memory for what a plan needs.
    #[error("cannot allocate {0} bytes")]
    OutOfMemory(u64),
    /// The options contradict each other or the machine.
    #[error("{0}")]
    Options(String),
    /// The file has no self-test.
    #[error("network {0} has no self-test")]
    NoSelfTest(String),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A defect of this library; please report it.
    #[error("internal error: {0}; please report this")]
    Internal(&'static str),
}

/// An error of the runtime. [`Error::kind`] says what, [`Error::exit_code`] how a tool ends.
pub struct Error(Box<ErrorKind>);

/// Shorthand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.0
    }

    /// The exit code of `infer` and `dcz`: 2 usage, 3 malformed or corrupt file, 4 unsupported, 5 bad input, 6 budget,
    /// 7 input or output.
    pub fn exit_code(&self) -> u8 {
        use dcz_format::error::Fault;
        match self.kind() {
            ErrorKind::Format(error) => match error.fault() {
                Fault::File => 3,
                Fault::Reader | Fault::Limit => 4,
                Fault::Caller => 2,
                Fault::Io => 7,
            },
            ErrorKind::Network { .. } | ErrorKind::Unprepared(_) | ErrorKind::Options(_) => 2,
            ErrorKind::Shape(_) | ErrorKind::Tensor(_) | ErrorKind::Image(_) => 5,
            ErrorKind::Unsupported(_) | ErrorKind::NoSelfTest(_) | ErrorKind::Internal(_) => 4,
            ErrorKind::BudgetTooSmall { .. } | ErrorKind::OutOfMemory(_) => 6,
            ErrorKind::Io { .. } => 7,
        }
    }

    #[cold]
    pub(crate) fn internal(what: &'static str) -> Error {
        ErrorKind::Internal(what).into()
    }
}

impl<K: Into<ErrorKind>> From<K> for Error {
    #[cold]
    fn from(kind: K) -> Error {
        Error(Box::new(kind.into()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

fn network_text(wanted: &Option<String>, names: &[String]) -> String {
    let names = names.join(", ");
    match wanted {
        Some(wanted) => format!("no network named {wanted}; the file has: {names}"),
        None => format!("the file has several networks, name one of: {names}"),
    }
}
