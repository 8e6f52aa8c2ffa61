//! What a client can tell about a failed exchange; other errors are the socket's or malformed bytes.

use crate::PATIENCE;

/// In the chain of every error that a client returns for one of these reasons (`error.downcast_ref()`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("closed without an answer")]
    NoAnswer,
    #[error("truncated: the connection ended {0}")]
    Truncated(String),
    #[error("{0}: nothing within {PATIENCE:?}")]
    Timeout(String),
}
