//! The two histograms of OpenTelemetry's semantic conventions that Traefik sends beside its own. For receivers of OTLP
//! only: Prometheus has no such names.

use prometheus::proto::MetricFamily;

use super::View;
use super::collect::histogram;
use super::family::Family;
use super::label::Snapshot;
use super::names::Definition;
use super::sample::Key;
use super::table::Table;

/// Without `server.address`: that is whatever clients write as their `Host`.
const SERVER: Definition = Definition {
    name: "http.server.request.duration",
    help: "Duration of HTTP server requests.",
    labels: &["error.type", "http.request.method", "http.response.status_code", "url.scheme"],
};

const CLIENT: Definition = Definition {
    name: "http.client.request.duration",
    help: "Duration of HTTP client requests.",
    labels: &[
        "error.type",
        "http.request.method",
        "http.response.status_code",
        "server.address",
        "server.port",
        "url.scheme",
    ],
};

pub(super) fn push(view: &View, requests: &Table<Key>, labels: &Snapshot, families: &mut Vec<MetricFamily>) {
    let error = |status: &str| if status >= "400" { status.to_owned() } else { String::new() };
    let mut servers = Family::histogram(SERVER);
    let grouped =
        requests.grouped(|key| key.entry_point.map(|_| (key.method, key.status, key.tls.is_some())));
    for ((method, status, is_secure), row) in grouped.rows() {
        let status = status.to_string();
        let scheme = if is_secure { "https" } else { "http" };
        let texts = [&error(&status), method.as_str(), &status, scheme];
        histogram(&mut servers, &texts, grouped.bounds(), &view.buckets, row.duration());
    }
    let mut clients = Family::histogram(CLIENT);
    let grouped = requests.grouped(|key| Some((key.server?, key.method, key.status)));
    for ((server, method, status), row) in grouped.rows() {
        let Some((scheme, rest)) = labels.text(server).and_then(|url| url.split_once("://")) else {
            continue;
        };
        let (scheme, default_port) = if scheme == "https" { (scheme, "443") } else { ("http", "80") };
        let authority = rest.split('/').next().unwrap_or(rest);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (authority, default_port),
        };
        let status = status.to_string();
        let texts = [&error(&status), method.as_str(), &status, host, port, scheme];
        histogram(&mut clients, &texts, grouped.bounds(), &view.buckets, row.service_duration());
    }
    families.extend([servers.build(), clients.build()]);
}
