//! Why a model could not be loaded. Every message names the file, the tensor where there is one, and the reason.

use std::io;
use std::path::{Path, PathBuf};
use stockade_core::Fault;
use stockade_kernels::KernelError;

/// A checkpoint, configuration or tokenizer that was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file breaks its format's rules: truncated, inconsistent or hostile.
    #[error("{}: {reason}", file.display())]
    Damaged { file: PathBuf, reason: String },
    /// One tensor breaks the rules, or does not have the type or shape that was asked for.
    #[error("{}: tensor `{tensor}`: {reason}", file.display())]
    Tensor { file: PathBuf, tensor: String, reason: String },
    #[error("{}: tensor `{tensor}` is missing", file.display())]
    NoTensor { file: PathBuf, tensor: String },
    /// The file is well formed and asks for something that this version cannot do.
    #[error("{}: {what} `{found}` is not supported", file.display())]
    Unsupported { file: PathBuf, what: &'static str, found: String },
    /// The path holds no model.
    #[error("{}: {reason}", path.display())]
    NoModel { path: PathBuf, reason: String },
    #[error("cannot read {}", file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The memory budget does not hold the model; the message spells the sum out.
    #[error("{}: {sum}", path.display())]
    TooLarge { path: PathBuf, sum: String },
    /// The kernels refused `what`, or the system gave no memory for it.
    #[error("{what} could not be built")]
    Kernel {
        what: String,
        #[source]
        source: KernelError,
    },
    /// Tokens, positions or pages that the network does not have.
    #[error("{0}")]
    Input(String),
    /// The caller gave the step up.
    #[error("the step was cancelled")]
    Cancelled,
    /// A tensor operation of an encoder failed.
    #[error("the encoder failed in {stage}")]
    Tensors {
        stage: &'static str,
        #[source]
        source: candle_core::Error,
    },
}

impl ModelError {
    /// Whose move it is: a refused file must be replaced by whoever named it, a failed read is the host's.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Read { .. } | Self::Kernel { .. } | Self::Tensors { .. } => Fault::Host,
            _ => Fault::Caller,
        }
    }

    pub(crate) fn damaged(file: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged { file: file.to_owned(), reason: reason.into() }
    }
    pub(crate) fn tensor(file: &Path, tensor: &str, reason: impl Into<String>) -> Self {
        Self::Tensor { file: file.to_owned(), tensor: tensor.to_owned(), reason: reason.into() }
    }
    pub(crate) fn unsupported(file: &Path, what: &'static str, found: impl Into<String>) -> Self {
        Self::Unsupported { file: file.to_owned(), what, found: found.into() }
    }
    pub(crate) fn read(file: &Path, source: io::Error) -> Self {
        Self::Read { file: file.to_owned(), source }
    }
}
