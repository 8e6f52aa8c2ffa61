//! Connections to servers that belong to the connection of one client.
//!
//! NTLM authenticates a connection and not a request, and so does Negotiate as IIS has it (RFC 4559 section 6): whoever
//! comes next on it is taken for the same user. What carried such credentials serves nobody but its client, and ends
//! with the client's connection.

use std::cell::RefCell;
use std::time::Duration;

use lb_http1::Head;
use tokio::time::Instant;

use super::Endpoint;
use super::pool::{is_usable, takes_request, usable_until};
use crate::entrypoint::Connection;
use crate::http::h1::H1;

/// Those of one client's connection that wait for its next request.
#[derive(Default)]
pub(crate) struct Private(RefCell<Vec<Kept>>);

struct Kept {
    endpoint: u64,
    /// Of the server, when it was put here.
    outages: u32,
    connection: Box<H1>,
    until: Option<Instant>,
}

impl Private {
    /// Where the client's connection keeps its own, once a request on it has authenticated so.
    pub(crate) fn of<'c>(connection: &'c Connection, head: &Head) -> Option<&'c Self> {
        if head.get("authorization").is_some_and(authenticates_connection) {
            return Some(connection.private.get_or_init(Box::default));
        }
        connection.private.get().map(|private| &**private)
    }

    pub(crate) fn take(
        &self,
        endpoint: &Endpoint,
        outages: u32,
        now: Instant,
        once: bool,
    ) -> Option<Box<H1>> {
        let mut kept = self.0.borrow_mut();
        kept.retain(|kept| {
            let is_of_then = kept.endpoint == endpoint.id && kept.outages != outages;
            !is_of_then && is_usable(&kept.connection, kept.until, now)
        });
        while let Some(at) = kept.iter().rposition(|kept| kept.endpoint == endpoint.id) {
            let Kept { connection, until, .. } = kept.remove(at);
            if takes_request(&connection, until, now, once) {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a clean connection for as long as it `lasts` at most. Beyond `maxIdleConnsPerHost` the oldest goes.
    pub(crate) fn give(
        &self,
        endpoint: &Endpoint,
        outages: u32,
        (mut connection, lasts): (Box<H1>, Duration),
        now: Instant,
    ) {
        let Some(most) = endpoint.transport.settings.max_idle_conns_per_host else { return };
        if endpoint.is_retired() || most == 0 {
            return;
        }
        connection.release();
        let mut kept = self.0.borrow_mut();
        if kept.len() >= most {
            kept.remove(0);
        }
        let until = usable_until(lasts, endpoint, now);
        kept.push(Kept { endpoint: endpoint.id, outages, connection, until });
    }
}

fn authenticates_connection(credentials: &[u8]) -> bool {
    let scheme = credentials.split(|byte| *byte == b' ').next().unwrap_or_default();
    scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_schemes_authenticate_the_connection() {
        for (credentials, expected) in [
            (&b"NTLM TlRMTVNTUAABAAAA"[..], true),
            (b"ntlm x", true),
            (b"Negotiate YII", true),
            (b"Basic dTpw", false),
            (b"Bearer NTLM", false),
            (b"NTLMx y", false),
            (b"", false),
        ] {
            assert_eq!(authenticates_connection(credentials), expected, "{}", credentials.escape_ascii());
        }
    }
}
