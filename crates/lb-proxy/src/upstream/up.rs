//! The server's side of an exchange, whatever protocol the server speaks.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use lb_http1::{Framing, Head};

use super::Endpoint;
use super::failure::{Cause, Failure};
use super::h2::H2;
use crate::http::body::{Fill, Sink, Source};
use crate::http::h1::{H1, ReadHead};

pub(crate) enum Up {
    // Boxed: it is handed on many times while it serves one request.
    H1(Box<H1>),
    H2(Box<H2>),
}

impl Up {
    /// Queues the request's head.
    pub(crate) fn begin(
        &mut self,
        head: &mut Head,
        framing: Framing,
        endpoint: &Endpoint,
    ) -> Result<(), Cause> {
        match self {
            Self::H1(up) => {
                up.queue_head(head, lb_http1::write_request, framing);
                Ok(())
            }
            Self::H2(up) => up.begin(head, framing, endpoint),
        }
    }

    /// Reads the head of an answer: how its body is framed, and for how long at most the
    /// connection outlives it.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut Head,
        request: &Head,
    ) -> Poll<Result<(Framing, Option<Duration>), Failure>> {
        match self {
            Self::H2(up) => up.poll_head(cx, head, request.method()).map_ok(|framing| (framing, None)),
            Self::H1(up) => {
                let read =
                    ready!(up.poll_head(cx, head, &crate::http::RESPONSE_LIMITS, lb_http1::parse_response));
                Poll::Ready(match read {
                    Ok(true) => match lb_http1::response_framing(head, request.method()) {
                        Ok(framing) => {
                            let reusable = lb_http1::keep_alive(head)
                                && framing != Framing::UntilClose
                                && !announces_in_vain(head);
                            up.expect_body(framing);
                            up.ends_with_head(head.status() >= 200 && framing == Framing::Empty);
                            Ok((
                                framing,
                                reusable.then(|| lb_http1::keep_alive_timeout(head).unwrap_or(Duration::MAX)),
                            ))
                        }
                        Err(error) => {
                            tracing::debug!(%error, "a server's answer cannot be framed");
                            Err(Failure::sent(Cause::Malformed))
                        }
                    },
                    Ok(false) => Err(Failure::sent(Cause::Closed)),
                    Err(ReadHead::Malformed(error)) => {
                        tracing::debug!(%error, "a server's answer is malformed");
                        // What comes may be a body that is none: this request has no answer then.
                        let cause = if up.may_go_on() { Cause::Closed } else { Cause::Malformed };
                        Err(Failure::sent(cause))
                    }
                    // Nothing of half a head was passed on: it says no more than none.
                    Err(ReadHead::Truncated | ReadHead::Io) => Err(Failure::sent(Cause::Closed)),
                })
            }
        }
    }
}

impl Source for Up {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Fill>> {
        match self {
            Self::H1(up) => up.poll_fill(cx),
            Self::H2(up) => up.poll_fill(cx),
        }
    }

    fn data(&self) -> &[u8] {
        match self {
            Self::H1(up) => up.data(),
            Self::H2(up) => up.data(),
        }
    }

    fn consume(&mut self, count: usize) {
        match self {
            Self::H1(up) => up.consume(count),
            Self::H2(up) => up.consume(count),
        }
    }

    fn trailers(&self) -> Option<&Head> {
        match self {
            Self::H1(up) => up.trailers(),
            Self::H2(up) => up.trailers(),
        }
    }

    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        if let Self::H2(up) = self {
            up.read_ahead(cx);
        }
    }
}

impl Sink for Up {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::H1(up) => up.poll_send(cx, data),
            Self::H2(up) => up.poll_send(cx, data),
        }
    }

    fn finish(&mut self, trailers: Option<&Head>) -> io::Result<()> {
        match self {
            Self::H1(up) => up.finish(trailers),
            Self::H2(up) => up.finish(trailers),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::H1(up) => up.poll_flush(cx),
            Self::H2(up) => up.poll_flush(cx),
        }
    }
}

/// RFC 9110 sections 6.4.1 and 8.6, RFC 9112 section 6.1: a 204 has no body, and so neither length nor coding of one. A
/// server that says so may send it.
fn announces_in_vain(head: &Head) -> bool {
    head.status() == 204
        && (head.contains("transfer-encoding") || head.get("content-length").is_some_and(|it| it != b"0"))
}

/// RFC 9110 section 7.8: a server may switch only to a protocol that the client has named.
pub(crate) fn may_switch(request: &Head, response: &Head) -> bool {
    let Some(chosen) = response.get_str("upgrade") else { return false };
    lb_http1::list(request, "upgrade").any(|named| named.eq_ignore_ascii_case(chosen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_switches_only_to_what_the_client_has_named() {
        for (asked, chosen, expected) in [
            (Some("websocket"), Some("websocket"), true),
            (Some("websocket"), Some("WebSocket"), true),
            (Some("a, b"), Some("b"), true),
            (Some("websocket"), Some("h2c"), false),
            (Some("websocket"), None, false),
            (None, Some("websocket"), false),
        ] {
            let head = |value: Option<&str>| {
                let mut head = Head::new();
                value.into_iter().for_each(|value| head.append("Upgrade", value.as_bytes()));
                head
            };
            assert_eq!(may_switch(&head(asked), &head(chosen)), expected, "{asked:?} {chosen:?}");
        }
    }
}
