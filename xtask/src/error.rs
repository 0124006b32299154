//! What can go wrong in a verb: one clear sentence each.

use std::path::Path;

/// Result of a step.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file or folder could not be read, written or moved.
    #[error("{path}: {cause}")]
    File { path: String, cause: String },
    /// A program could not be started.
    #[error("`{program}` does not start: {cause}")]
    Start { program: String, cause: std::io::Error },
    /// A program ran and failed.
    #[error("`{command}` failed ({status})")]
    Command { command: String, status: std::process::ExitStatus },
    /// Anything else, with how to mend it.
    #[error("{0}")]
    Message(String),
}

impl Error {
    /// An error of a file or folder.
    pub(crate) fn file(path: &Path, cause: impl std::fmt::Display) -> Self {
        Self::File { path: path.display().to_string(), cause: cause.to_string() }
    }

    /// The same sentence once more, for another step that fails for it.
    pub(crate) fn again(&self) -> Self {
        Self::message(self.to_string())
    }

    /// An error with its own sentence.
    pub(crate) fn message(text: impl Into<String>) -> Self {
        Self::Message(text.into())
    }
}
