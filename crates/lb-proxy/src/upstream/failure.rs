//! What went wrong between us and a server, whose fault it is, and whether another try is safe.

use std::io;

/// Why no (complete) answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Refused, unreachable, or its name did not resolve.
    Connect,
    ConnectTimeout,
    /// No descriptor or memory was left for a connection.
    Shortage,
    /// Certificate not accepted, or not TLS at all.
    Tls,
    /// Closed or reset before the head of an answer was whole.
    Closed,
    /// An HTTP/2 server ends the connection and has left the request out: RFC 9113 section 6.8.
    WentAway,
    /// An HTTP/2 server has refused the request unread: RFC 9113 section 8.7.
    Refused,
    /// `responseHeaderTimeout` passed.
    HeadTimeout,
    /// The server's protocol has no way to say the request.
    Unsayable,
    /// Bytes that are no HTTP, or that two parsers could read differently.
    Malformed,
    /// A reload removed the server, and its `drainTimeout` is over.
    Removed,
    /// The client went away, or its body broke off.
    ClientGone,
    /// The client's body is no valid HTTP.
    ClientBody,
    /// The client was slower than the entry point's `readTimeout` or `limits.minBodyRate`.
    ClientTimeout,
}

/// A failed try.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    /// No server can have done anything for the request: it has not got it, or has refused it unread.
    pub(crate) unsent: bool,
    /// Some of the client's body went with it, and is gone unless it was kept.
    pub(crate) body_begun: bool,
}

impl Failure {
    pub(crate) fn unsent(cause: Cause) -> Self {
        Self { cause, unsent: true, body_begun: false }
    }

    pub(crate) fn sent(cause: Cause) -> Self {
        Self { cause, unsent: false, body_begun: false }
    }

    /// Status for the client, where one can still be sent. As Traefik chooses them, but for
    /// malformed answers: those are 502 (RFC 9110 section 15.6.3), not 500.
    pub(crate) fn status(self) -> u16 {
        match self.cause {
            Cause::Connect | Cause::Closed | Cause::WentAway | Cause::Refused | Cause::Malformed => 502,
            Cause::ConnectTimeout | Cause::HeadTimeout | Cause::Removed => 504,
            Cause::Shortage => 503,
            Cause::Tls => 500,
            Cause::ClientGone => 499,
            Cause::ClientBody | Cause::Unsayable => 400,
            Cause::ClientTimeout => 408,
        }
    }

    /// The label of metrics and logs.
    pub(crate) fn reason(self) -> &'static str {
        match self.cause {
            Cause::Connect => "connect",
            Cause::ConnectTimeout => "connect_timeout",
            Cause::Shortage => "no_descriptor",
            Cause::Tls => "tls",
            Cause::Closed | Cause::WentAway => "closed",
            Cause::Refused => "refused_stream",
            Cause::HeadTimeout => "header_timeout",
            Cause::Unsayable => "unsayable",
            Cause::Malformed => "malformed",
            Cause::Removed => "removed",
            Cause::ClientGone => "client_gone",
            Cause::ClientBody => "client_body",
            Cause::ClientTimeout => "client_timeout",
        }
    }

    /// Whether the server is to blame, rather than the client or ourselves.
    pub(crate) fn blames_server(self) -> bool {
        use Cause::{ClientBody, ClientGone, ClientTimeout, Removed, Shortage, Unsayable};
        !matches!(self.cause, ClientGone | ClientBody | ClientTimeout | Removed | Shortage | Unsayable)
    }

    /// Whether another server may be asked: nothing was sent, or the method may be repeated
    /// (RFC 9110 section 9.2.2), nothing of the body is missing, and no head of an answer has come.
    pub(crate) fn may_retry(self, idempotent: bool, body_untouched: bool) -> bool {
        match self.cause {
            Cause::Connect | Cause::ConnectTimeout | Cause::Tls | Cause::Refused => true,
            Cause::Closed | Cause::WentAway | Cause::Removed => self.unsent || (idempotent && body_untouched),
            _ => false,
        }
    }

    /// Whether the server takes no connections, so that others are better asked first for a while.
    pub(crate) fn is_of_connecting(self) -> bool {
        matches!(self.cause, Cause::Connect | Cause::ConnectTimeout | Cause::Tls)
    }
}

/// A read of the client's body that failed.
pub(crate) fn client_body(error: &io::Error) -> Failure {
    Failure::sent(match error.kind() {
        io::ErrorKind::InvalidData => Cause::ClientBody,
        io::ErrorKind::TimedOut => Cause::ClientTimeout,
        _ => Cause::ClientGone,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_try_is_safe_only_when_nothing_was_begun() {
        // Per cause: blamed on the server; then another try for an idempotent request, and for another one.
        for (failure, blamed, idempotent, other) in [
            (Failure::unsent(Cause::Connect), true, true, true),
            (Failure::unsent(Cause::ConnectTimeout), true, true, true),
            (Failure::unsent(Cause::Closed), true, true, true),
            (Failure::unsent(Cause::WentAway), true, true, true),
            (Failure::unsent(Cause::Refused), true, true, true),
            (Failure::sent(Cause::Closed), true, true, false),
            (Failure::unsent(Cause::Tls), true, true, true),
            (Failure::sent(Cause::Malformed), true, false, false),
            (Failure::sent(Cause::HeadTimeout), true, false, false),
            (Failure::sent(Cause::Removed), false, true, false),
            (Failure::unsent(Cause::Shortage), false, false, false),
            (Failure::unsent(Cause::Unsayable), false, false, false),
            (Failure::sent(Cause::ClientGone), false, false, false),
            (Failure::sent(Cause::ClientTimeout), false, false, false),
        ] {
            assert_eq!(failure.blames_server(), blamed, "{failure:?}");
            assert_eq!(failure.may_retry(true, true), idempotent, "{failure:?}");
            assert_eq!(failure.may_retry(false, true), other, "{failure:?}");
        }
        // A body that was begun cannot be sent again.
        assert!(!Failure::sent(Cause::Closed).may_retry(true, false));
    }
}
