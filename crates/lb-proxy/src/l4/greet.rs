//! Whose a new connection is, on an entry point with TCP routers (reference 2.12, the table of dispatch).

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;

use lb_core::client_hello::{self, ClientHello, HANDSHAKE, Read};
use lb_core::route::tcp::Hello;
use tokio::io::AsyncWriteExt;

use super::{Route, Routes, Tls, Wanted};
use crate::deadline::Deadline;
use crate::entrypoint::Entry;
use crate::stream::Stream;
use crate::worker::Worker;

/// What a client of PostgreSQL sends to ask for TLS: length 8, code 80877103 (PostgreSQL, section 54.7).
pub(super) const POSTGRES_SSL: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// The answer of a server that speaks it.
pub(super) const POSTGRES_YES: [u8; 1] = *b"S";

/// Whose the connection is; the bytes read so far stay where they are.
pub(crate) enum Whose {
    Http,
    Tcp(Routed),
    /// Nobody's: it is closed.
    Nobody,
}

pub(crate) struct Routed {
    pub(super) route: Arc<Route>,
    /// The client has asked for TLS as PostgreSQL's do, and was told yes.
    pub(super) postgres: bool,
}

/// Whether the entry point has TCP routers, just now.
pub(crate) fn has_routes(worker: &Worker, entry: &Entry) -> bool {
    worker.with_snapshot(|snapshot| snapshot.tcp.at(entry.index).is_some())
}

/// The router of a client that need not say anything.
pub(crate) fn at_once(worker: &Worker, entry: &Entry, client: IpAddr) -> Option<Routed> {
    let find = |routes: &Arc<Routes>| routes.at_once(client).map(Arc::clone);
    let route = worker.with_snapshot(|snapshot| snapshot.tcp.at(entry.index).and_then(find))?;
    Some(Routed { route, postgres: false })
}

/// Looks at the first `end` bytes in `input`, and at more if they do not tell; what it reads is added there. `input`
/// grows up to the longest hello.
pub(crate) async fn whose(
    worker: &Worker,
    entry: &Entry,
    stream: &mut Stream,
    (input, end): (&mut Vec<u8>, &mut usize),
    client: IpAddr,
    deadline: &mut Deadline,
) -> Whose {
    let routes = || worker.with_snapshot(|snapshot| snapshot.tcp.at(entry.index).map(Arc::clone));
    let mut bytes = Bytes { stream, input, end, deadline };
    // As long as it may be PostgreSQL's question; which is one only where somebody could answer it.
    let asks = loop {
        let read = &bytes.input[..*bytes.end];
        let common = read.len().min(POSTGRES_SSL.len());
        if read[..common] != POSTGRES_SSL[..common] {
            break false;
        }
        if common == POSTGRES_SSL.len() {
            break routes().is_some_and(|routes| !routes.secure.is_empty());
        }
        if !bytes.more().await {
            return Whose::Nobody;
        }
    };
    if asks {
        bytes.forget(POSTGRES_SSL.len());
        if bytes.stream.write_all(&POSTGRES_YES).await.is_err() || *bytes.end == 0 && !bytes.more().await {
            return Whose::Nobody;
        }
        let hello = if bytes.input[0] == HANDSHAKE { bytes.hello().await } else { None };
        let hello = hello.zip(routes());
        let route =
            hello.and_then(|(hello, routes)| hello.ask(client, |hello| routes.secure(hello).map(Arc::clone)));
        return match route {
            Some(route) => Whose::Tcp(Routed { route, postgres: true }),
            None => {
                worker.metrics.refused(entry.label, "no_tcp_router");
                tracing::debug!(entryPointName = %entry.config.name, %client, "no TCP router for a client of PostgreSQL");
                Whose::Nobody
            }
        };
    }
    let tcp = |route: &Arc<Route>| Whose::Tcp(Routed { route: Arc::clone(route), postgres: false });
    match bytes.input.first().filter(|_| *bytes.end > 0) {
        Some(&HANDSHAKE) => {
            let Some(hello) = bytes.hello().await else { return Whose::Nobody };
            let Some(routes) = routes() else { return Whose::Http };
            if entry.validations.is_some() && hello.alpn.iter().any(|protocol| protocol == b"acme-tls/1") {
                return Whose::Http;
            }
            hello.ask(client, |hello| match routes.wanted(hello) {
                Wanted::Tcp(route) => tcp(route),
                Wanted::Https => Whose::Http,
            })
        }
        Some(&client_hello::SSL2) => {
            // Only a server behind could still speak it.
            let hello = Hello { server_name: "", alpn: &[], client };
            let routes = routes();
            let route = routes.as_ref().and_then(|routes| routes.secure(&hello));
            route.filter(|route| matches!(route.tls, Tls::Passthrough)).map_or(Whose::Nobody, tcp)
        }
        _ => {
            let routes = routes();
            routes.as_ref().and_then(|routes| routes.plain(client)).map_or(Whose::Http, tcp)
        }
    }
}

trait Ask {
    fn ask<R>(&self, client: IpAddr, question: impl FnOnce(&Hello<'_>) -> R) -> R;
}

impl Ask for ClientHello {
    fn ask<R>(&self, client: IpAddr, question: impl FnOnce(&Hello<'_>) -> R) -> R {
        let alpn: Vec<&[u8]> = self.alpn.iter().map(Vec::as_slice).collect();
        question(&Hello { server_name: &self.server_name, alpn: &alpn, client })
    }
}

/// What a client has sent so far.
struct Bytes<'b> {
    stream: &'b mut Stream,
    input: &'b mut Vec<u8>,
    end: &'b mut usize,
    deadline: &'b mut Deadline,
}

impl Bytes<'_> {
    /// False when no more come: the client has ended, or its time has.
    async fn more(&mut self) -> bool {
        if *self.end == self.input.len() {
            let longer = (2 * self.input.len()).min(client_hello::MOST_BYTES);
            self.input.resize(longer, 0);
        }
        let Self { stream, input, end, deadline } = self;
        let free = &mut input[**end..];
        if free.is_empty() {
            return false;
        }
        let read = poll_fn(|cx| match stream.poll_read(cx, free) {
            std::task::Poll::Pending => deadline.poll(cx).map(|()| Ok(0)),
            ready => ready,
        });
        let count = read.await.unwrap_or(0);
        **end += count;
        count > 0
    }

    fn forget(&mut self, count: usize) {
        self.input.copy_within(count..*self.end, 0);
        *self.end -= count;
    }

    /// The hello, which names nobody when it is none; `None`: it does not come.
    async fn hello(&mut self) -> Option<ClientHello> {
        loop {
            match client_hello::read(&self.input[..*self.end]) {
                Read::Hello(hello) => return Some(hello),
                Read::Other => return Some(ClientHello::default()),
                Read::Partial if self.more().await => {}
                Read::Partial => return None,
            }
        }
    }
}
