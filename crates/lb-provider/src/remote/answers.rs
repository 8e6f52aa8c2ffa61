//! Why a source did not answer as it should.

use std::mem::Discriminant;
use std::time::Duration;

use hyper::StatusCode;

/// Worded to follow "the endpoint" or "the store".
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error("cannot be reached: {0}")]
    Connect(std::io::Error),
    #[error("did not answer within {0:?}")]
    Timeout(Duration),
    #[error("has broken the connection: {0}")]
    Http(#[from] hyper::Error),
    #[error("answered with status {status}{}", said(.message))]
    Status { status: StatusCode, message: String },
    #[error("gave an answer of more than {0} bytes")]
    TooLong(u64),
    #[error("gave an answer that is not understood: {0}")]
    Json(#[from] serde_json::Error),
    #[error("gave a value that is no base64: {0}")]
    Base64(#[from] base64::DecodeError),
    #[error("gives no keys: {0}")]
    Redis(#[from] redis::RedisError),
    #[error("is not known: no server is called `{0}` there")]
    NoServer(String),
    #[error("tells no changes: {0}")]
    NoWatch(String),
    #[error("tells no changes any more")]
    Ended,
}

/// What the body of a refusal says, if it is short enough to be a sentence.
fn said(message: &str) -> String {
    let message = message.trim();
    let is_sentence = !message.is_empty() && message.len() <= 200 && !message.contains(char::is_control);
    if is_sentence { format!(": {message}") } else { String::new() }
}

/// What is the same of errors that need the same done about them.
pub(super) type Trouble = (Discriminant<SourceError>, Option<StatusCode>, Option<&'static str>);

impl SourceError {
    pub(super) fn trouble(&self) -> Trouble {
        let status = match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        };
        (std::mem::discriminant(self), status, self.hint())
    }

    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Connect(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                Some("does it run, and listen there?")
            }
            Self::Status { status, .. } if matches!(status.as_u16(), 401 | 403) => {
                Some("check the token, password or headers of this provider")
            }
            Self::Status { status, .. } if status.is_redirection() => {
                Some("redirections are not followed: name where it leads")
            }
            Self::Redis(error) => match (error.kind(), error.code()) {
                (redis::ErrorKind::AuthenticationFailed, _)
                | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => {
                    Some("check `username` and `password` of this provider, and what that user may do")
                }
                (_, Some("MOVED")) => {
                    Some("Redis Cluster is not supported: give the keys a server of their own")
                }
                _ => None,
            },
            Self::NoServer(_) => Some("check `sentinel.masterName`"),
            Self::TooLong(_) => Some("see `maxResponseBodySize`; no configuration is bigger than 16 MiB"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_refuses_has_a_way_out() {
        for (code, expected) in [
            ("NOAUTH", Some("check `username` and `password`")),
            ("MOVED", Some("Redis Cluster is not supported")),
            ("LOADING", None),
        ] {
            let error = redis::make_extension_error(code.to_owned(), None);
            let hint = SourceError::Redis(error).hint();
            assert!(hint.is_some() == expected.is_some(), "{code}: {hint:?}");
            assert!(
                hint.is_none_or(|hint| hint.starts_with(expected.unwrap_or_default())),
                "{code}: {hint:?}"
            );
        }
    }
}
