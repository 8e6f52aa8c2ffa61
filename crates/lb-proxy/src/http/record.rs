//! What is kept of a finished request: metrics, access log, breakers.

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime};

use lb_http1::Head;
use lb_observe::access_log;
use lb_observe::metrics::{LabelId, Method, Protocol, Sample};

use super::{normalise::normalise_target, traced};
use crate::entrypoint::Connection;
use crate::exchange::Exchange;
use crate::snapshot::{Route, Target};
use crate::upstream::Endpoint;
use crate::worker::Worker;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// What is found out about a request while it is served.
pub(crate) struct Outcome<'a> {
    pub(crate) route: Option<&'a Route>,
    pub(crate) endpoint: Option<&'a Endpoint>,
    /// When the service was asked first.
    pub(crate) asked: Option<Instant>,
    /// What the client got; 499 when it went away.
    pub(crate) status: u16,
    pub(crate) origin_status: u16,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) is_grpc: bool,
    method: Method,
    protocol: Protocol,
    grpc_status: Option<u8>,
}

impl Outcome<'_> {
    /// Looks at the request before middlewares change it.
    pub(crate) fn new(worker: &Worker, x: &mut Exchange) -> Self {
        let protocol = protocol(&x.head);
        if worker.access_log.is_some() {
            x.original_target.push_str(x.head.target());
            x.original_host.push_str(x.head.get_str("host").unwrap_or_default());
            for line in x.head.get_all(FORWARDED_FOR).filter_map(|line| std::str::from_utf8(line).ok()) {
                let comma = if x.original_forwarded_for.is_empty() { "" } else { ", " };
                x.original_forwarded_for.push_str(comma);
                x.original_forwarded_for.push_str(line);
            }
        }
        Self {
            route: None,
            endpoint: None,
            asked: None,
            status: 0,
            origin_status: 0,
            request_bytes: 0,
            response_bytes: 0,
            is_grpc: matches!(protocol, Protocol::Grpc | Protocol::GrpcWeb),
            method: Method::of(x.head.method()),
            protocol,
            grpc_status: matches!(protocol, Protocol::Grpc | Protocol::GrpcWeb).then_some(2),
        }
    }

    /// gRPC says its status in the trailers, or in the head when there is nothing else.
    pub(crate) fn note_grpc(&mut self, x: &Exchange, trailers: Option<&Head>) {
        let status = |head: &Head| head.get_str("grpc-status").and_then(|text| text.parse().ok());
        if let Some(code) = trailers.and_then(status).or_else(|| status(&x.response)) {
            self.grpc_status = Some(code);
        }
    }
}

/// Traefik's `protocol` label.
fn protocol(head: &Head) -> Protocol {
    if lb_http1::wants_upgrade(head).is_some()
        && lb_http1::list(head, "upgrade").any(|protocol| protocol.eq_ignore_ascii_case("websocket"))
    {
        return Protocol::WebSocket;
    }
    if let Some(kind) = head.get("content-type") {
        if kind.starts_with(b"application/grpc-web") {
            return Protocol::GrpcWeb;
        }
        if kind.starts_with(b"application/grpc") {
            return Protocol::Grpc;
        }
    }
    let is_events = |kind: &[u8]| kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream");
    match head.get("accept") {
        Some(accept) if accept.split(|byte| *byte == b',').any(is_events) => Protocol::Sse,
        _ => Protocol::Http,
    }
}

/// Counts and logs the request, and tells its breakers.
pub(crate) fn record(worker: &Worker, connection: &Connection, x: &mut Exchange, outcome: &Outcome<'_>) {
    let now = worker.now();
    let duration = x.complete(now);
    let service_duration = match outcome.asked {
        // Without middlewares it is all of it.
        Some(asked) if asked == x.started => duration,
        Some(asked) => now.saturating_duration_since(asked),
        None => Duration::ZERO,
    };
    let route = outcome.route;
    let above = x.composed.as_ref().map_or(&[][..], |composed| &composed.above);
    // What is behind a router is counted and logged as it says.
    let (counts, logs) = match above.first() {
        Some(root) => (Some(root.metrics), Some(root.access_log)),
        None => (route.map(|route| route.metrics), route.map(|route| route.access_log)),
    };
    // Where there is no route the entry point has the word.
    let entry = connection.entry.config.observability.unwrap_or_default();
    if counts.unwrap_or(entry.metrics != Some(false)) {
        let sample = Sample {
            entry_point: Some(connection.entry.label),
            router: route.map(|route| route.label),
            service: match &x.composed {
                None => route.map(|route| route.service),
                Some(composed) => {
                    composed.leaf.as_ref().map(|(_, label)| *label).or(route.map(|route| route.service))
                }
            },
            reached_service: outcome.asked.is_some(),
            server: outcome.endpoint.map(|endpoint| endpoint.label),
            method: outcome.method,
            protocol: outcome.protocol,
            status: outcome.status,
            grpc_status: outcome.grpc_status,
            tls: connection.tls.as_ref().map(|tls| tls.label),
            headers: worker.metrics.headers(|name| x.head.get(name)),
            duration,
            service_duration,
            request_bytes: outcome.request_bytes,
            response_bytes: outcome.response_bytes,
        };
        match x.replaced {
            None => worker.shard.record(&sample),
            // The service counts what it has said itself, whatever the client got.
            Some((status, response_bytes)) => {
                worker.shard.record(&Sample { reached_service: false, server: None, ..sample });
                let service = Sample { entry_point: None, router: None, status, response_bytes, ..sample };
                worker.shard.record(&service);
            }
        }
        for above in above {
            let (router, service) = (Some(above.label), Some(above.service));
            let alone =
                Sample { entry_point: None, router, service, reached_service: false, server: None, ..sample };
            worker.shard.record(&alone);
        }
    }
    if let Some(log) = &worker.access_log
        && logs.unwrap_or(entry.access_logs != Some(false))
    {
        write_line(log, connection, x, outcome, duration, service_duration);
    }
    traced::end(worker, x, outcome.status, now);
}

/// Counts a copy that a mirror got, for the mirror alone; `tls` is what the client spoke.
pub(super) fn mirrored(worker: &Worker, tls: Option<LabelId>, x: &Exchange, outcome: &Outcome<'_>) {
    let Some((service, asked)) =
        x.composed.as_ref().and_then(|composed| composed.service()).zip(outcome.asked)
    else {
        return;
    };
    let duration = worker.now().saturating_duration_since(asked);
    worker.shard.record(&Sample {
        entry_point: None,
        router: None,
        service: Some(service.label),
        reached_service: true,
        server: outcome.endpoint.map(|endpoint| endpoint.label),
        method: outcome.method,
        protocol: outcome.protocol,
        status: outcome.status,
        grpc_status: outcome.grpc_status,
        tls,
        headers: worker.metrics.headers(|name| x.head.get(name)),
        duration,
        service_duration: duration,
        request_bytes: outcome.request_bytes,
        response_bytes: outcome.response_bytes,
    });
}

fn write_line(
    log: &access_log::Shard,
    connection: &Connection,
    x: &Exchange,
    outcome: &Outcome<'_>,
    duration: Duration,
    service_duration: Duration,
) {
    let route = outcome.route;
    // As by Traefik, a service that a middleware kept the request from is not named.
    // The one that was asked last, which may be that of an error page.
    let last = outcome.endpoint.map(|endpoint| &*endpoint.service);
    let service = route.and_then(|route| match &route.target {
        Target::Service(service) => last.or(outcome.asked.map(|_| &*service.name)),
        Target::Composite(_) | Target::Within(_) => {
            last.or_else(|| x.composed.as_ref().and_then(|composed| composed.service()).map(|s| &*s.name))
        }
        Target::Internal(internal) => Some(internal.name()),
        Target::Children(_) => last,
    });
    let above = x.composed.as_ref().map_or(&[][..], |composed| &composed.above);
    let router = route.map(|route| match above {
        [] => Cow::Borrowed(&*route.name),
        above => {
            let names = above.iter().map(|above| &*above.name).chain([&*route.name]);
            Cow::Owned(names.collect::<Vec<_>>().join(" -> "))
        }
    });
    // As routers saw it; middlewares may have changed the target since.
    let policy = &connection.entry.policy;
    let sanitized = normalise_target(x.original_target.as_bytes(), policy).ok().flatten();
    let scheme = if connection.tls.is_some() { "https" } else { "http" };
    let address = outcome.endpoint.map(|endpoint| endpoint.address_text.as_str());
    let has_origin = outcome.asked.is_some() || outcome.endpoint.is_some();
    log.write(&access_log::Entry {
        start: SystemTime::now().checked_sub(duration).unwrap_or(SystemTime::UNIX_EPOCH),
        duration,
        entry_point: &connection.entry.config.name,
        router: router.as_deref(),
        service,
        service_url: outcome.endpoint.map(|endpoint| &*endpoint.url),
        service_addr: address,
        client: connection.client,
        client_host: believed(connection, x),
        client_username: x.user.as_deref(),
        host: &x.original_host,
        method: x.head.method(),
        path: sanitized.as_deref().unwrap_or(&x.original_target),
        protocol: x.head.version().as_str(),
        scheme,
        request_bytes: outcome.request_bytes,
        origin: has_origin.then_some(access_log::Origin {
            status: outcome.origin_status,
            bytes: match x.replaced {
                Some((status, bytes)) if status == outcome.origin_status => bytes,
                _ => x.origin_bytes.unwrap_or(outcome.response_bytes),
            },
            duration: service_duration,
        }),
        status: outcome.status,
        response_bytes: outcome.response_bytes,
        trace: x.trace.as_ref().map(|traced| traced.context()),
        retry_attempts: x.tries.saturating_sub(1),
        tls: connection.tls.as_ref().map(|tls| access_log::Tls {
            version: tls.version,
            cipher: &tls.cipher,
            client_subject: tls.client_subject.as_deref(),
        }),
        request_headers: log
            .keeps_request_headers()
            .then_some(&|each| received(connection, x).for_each(|(n, v)| each(n, v))),
        // What middlewares answer has no origin.
        origin_headers: (log.keeps_response_headers() && has_origin)
            .then_some(&|each| x.response.iter().for_each(|(n, v)| each(n, v))),
        downstream_headers: log
            .keeps_response_headers()
            .then_some(&|each| x.response.iter().for_each(|(n, v)| each(n, v))),
    });
}

/// `X-Forwarded-For` from a trusted peer.
fn believed<'a>(connection: &Connection, x: &'a Exchange) -> Option<&'a str> {
    Some(&*x.original_forwarded_for).filter(|list| connection.trusted && !list.is_empty())
}

/// The fields of a request as Go has them, and so Traefik logs them: without those that it keeps elsewhere, and with
/// the `X-Forwarded-For` that came from a trusted peer instead of the one that goes to the server.
fn received<'a>(connection: &Connection, x: &'a Exchange) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    const ELSEWHERE: [&str; 3] = ["host", "transfer-encoding", FORWARDED_FOR];
    x.logged
        .as_deref()
        .unwrap_or(&x.head)
        .iter()
        .filter(|(name, _)| !ELSEWHERE.iter().any(|other| name.eq_ignore_ascii_case(other)))
        .chain(believed(connection, x).map(|list| (FORWARDED_FOR, list.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_told_apart_as_by_traefik() {
        for (fields, expected) in [
            (&[("Accept", "text/event-stream")][..], Protocol::Sse),
            (&[("Accept", "text/html, Text/Event-Stream")], Protocol::Sse),
            (&[("Accept", "text/event-stream;q=1")], Protocol::Http),
            (&[("Accept", "*/*")], Protocol::Http),
            (&[("Connection", "Upgrade"), ("Upgrade", "foo, websocket")], Protocol::WebSocket),
            (&[("Connection", "Upgrade"), ("Upgrade", "foo")], Protocol::Http),
            (&[("Content-Type", "application/grpc+proto")], Protocol::Grpc),
            (&[("Content-Type", "application/grpc-web-text")], Protocol::GrpcWeb),
        ] {
            let mut head = Head::new();
            for (name, value) in fields {
                head.append(name, value.as_bytes());
            }
            assert_eq!(protocol(&head), expected, "{fields:?}");
        }
    }
}
