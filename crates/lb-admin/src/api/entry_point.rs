//! Entry points: `/api/entrypoints`.

use std::time::Duration;

use lb_config::static_config::{AliasHeaders, EntryPoint, EntryPointHttp, Http3, TrustedPeers};
use serde_json::Value;

use super::duration::go_duration;
use super::object::Object;
use super::router::{observability, tls};
use super::{encoded_characters, list};
use crate::query::Query;
use crate::{Response, View};

pub(super) fn list(view: &View, query: &Query) -> Response {
    let mut entry_points: Vec<_> = all(view).collect();
    entry_points.sort_by(|a, b| a.name.cmp(&b.name));
    list::page(entry_points, query, body)
}

pub(super) fn one(view: &View, name: &str) -> Option<Value> {
    all(view).find(|entry_point| entry_point.name == name).map(body)
}

fn all(view: &View) -> impl Iterator<Item = &EntryPoint> {
    view.static_config.entry_points.iter().chain(&view.static_config.udp_entry_points)
}

fn body(entry_point: &EntryPoint) -> Value {
    let proxy_protocol = trusted(&entry_point.proxy_protocol);
    Object::new()
        .set("address", entry_point.address_text.as_str())
        .flag("asDefault", entry_point.as_default)
        .flag("reusePort", entry_point.reuse_port)
        .flag("allowACMEByPass", entry_point.allow_acme_by_pass)
        .set("transport", transport(entry_point))
        .object("proxyProtocol", proxy_protocol.build())
        .set(
            "forwardedHeaders",
            trusted(&entry_point.forwarded_headers)
                .list("connection", &entry_point.forwarded_connection)
                .flag("notAppendXForwardedFor", entry_point.not_append_x_forwarded_for)
                .flag("addXForwardedSchemeHeaders", entry_point.add_scheme_headers)
                .build(),
        )
        .set("http", http(&entry_point.http))
        .set(
            "http2",
            Object::new()
                .set("maxConcurrentStreams", entry_point.http2_max_concurrent_streams)
                // Go's defaults, which Vigie has as well.
                .set("maxDecoderHeaderTableSize", 4096)
                .set("maxEncoderHeaderTableSize", 4096)
                .build(),
        )
        .some("http3", entry_point.http3.map(http3))
        .set("udp", Object::new().duration("timeout", entry_point.udp_timeout).build())
        .some("observability", entry_point.observability.map(observability))
        .set("name", entry_point.name.as_str())
        .build()
}

fn http3(http3: Http3) -> Value {
    Object::new().some("advertisedPort", http3.advertised_port).build()
}

fn transport(entry_point: &EntryPoint) -> Value {
    let shown = |duration: Option<Duration>| duration.filter(|d| !d.is_zero()).map(go_duration);
    let life_cycle = Object::new()
        .some("requestAcceptGraceTimeout", shown(Some(entry_point.request_accept_grace_timeout)))
        .some("graceTimeOut", shown(Some(entry_point.grace_timeout)));
    let responding = Object::new()
        .some("readTimeout", shown(entry_point.read_timeout))
        .some("writeTimeout", shown(entry_point.write_timeout))
        .some("idleTimeout", shown(entry_point.idle_timeout));
    Object::new()
        .set("lifeCycle", life_cycle.build())
        .set("respondingTimeouts", responding.build())
        .some("keepAliveMaxTime", shown(entry_point.keep_alive_max_time))
        .some("keepAliveMaxRequests", entry_point.keep_alive_max_requests)
        .build()
}

fn trusted(peers: &TrustedPeers) -> Object {
    let networks: Vec<_> = peers.trusted_ips.iter().map(ToString::to_string).collect();
    Object::new().flag("insecure", peers.insecure).list("trustedIPs", &networks)
}

fn http(http: &EntryPointHttp) -> Value {
    let redirections = http.redirection.as_ref().map(|redirection| {
        let entry_point = Object::new()
            .set("to", redirection.to.as_str())
            .set("scheme", redirection.scheme.as_str())
            .flag("permanent", redirection.permanent)
            .number("priority", redirection.priority);
        Object::new().set("entryPoint", entry_point.build()).build()
    });
    let alias_headers = match http.alias_headers {
        AliasHeaders::Keep => "",
        AliasHeaders::Delete => "delete",
        AliasHeaders::Reject => "reject",
    };
    Object::new()
        .some("redirections", redirections)
        .list("middlewares", &http.middlewares)
        .some("tls", http.tls.as_ref().map(|own| tls(own, "", "")))
        .flag("encodeQuerySemicolons", http.encode_query_semicolons)
        .set("sanitizePath", http.sanitize_path)
        .some("encodedCharacters", http.encoded_characters.map(|allowed| encoded_characters(allowed).build()))
        .set("maxHeaderBytes", http.max_header_bytes)
        .text("aliasHeadersStrategy", if http.only_underscores { "" } else { alias_headers })
        .text("underscoreHeadersStrategy", if http.only_underscores { alias_headers } else { "" })
        .build()
}
