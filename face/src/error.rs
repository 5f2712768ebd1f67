//! The error type: what happened, and the exit code tools use for it.

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file, a session or the memory budget.
    #[error(transparent)]
    Runtime(#[from] dcz::Error),
    /// The file has no pipeline.
    #[error("the file has no pipeline of detector and embedder; make one with `dcz bundle`")]
    NoPipeline,
    /// A network is not what its stage needs.
    #[error("the {stage} {network}: {why}")]
    Network {
        /// `detector` or `embedder`.
        stage: &'static str,
        /// Name of the network.
        network: String,
        /// What does not fit.
        why: String,
    },
    /// An image that cannot be used.
    #[error("{0}")]
    Image(String),
    /// Landmarks from which no position follows: all in one point, or not finite.
    #[error("no similarity transform follows from these landmarks")]
    Landmarks,
    /// Options out of range.
    #[error("{0}")]
    Options(String),
    /// An image without a face, where one is needed.
    #[error("no face in image {image}")]
    NoFace {
        /// 1 or 2: which of the images.
        image: usize,
    },
}

/// Shorthand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Exit code of `infer`: 2 usage, 3 corrupt file, 4 unsupported, 5 bad input, 6 budget, 7 input or output, 9 no face.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Runtime(error) => error.exit_code(),
            Error::Options(_) | Error::NoPipeline => 2,
            Error::Network { .. } => 4,
            Error::Image(_) | Error::Landmarks => 5,
            Error::NoFace { .. } => 9,
        }
    }
}
