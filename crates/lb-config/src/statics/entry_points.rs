//! `entryPoints`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::decode::{Block, Enabled, Field};
use crate::dynamic::RouterTls;
use crate::dynamics::{observability, router_tls};
use crate::middlewares::{allowed_characters, header_names};
use crate::net::{is_udp, listen_address, networks};
use crate::problem::quoted;
use crate::static_config::{
    AliasHeaders, EntryPoint, EntryPointHttp, EntryPointLimits, Http3, Redirection, TrustedPeers,
};
use crate::suggest;

/// Defaults of reference 1.3.
const GRACE_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const IDLE_TIMEOUT: Duration = Duration::from_secs(180);
const UDP_TIMEOUT: Duration = Duration::from_secs(3);
const MAX_HEADER_BYTES: usize = 1024 * 1024;
const MAX_CONCURRENT_STREAMS: u32 = 250;
/// As Kestrel has it, but over the minute that nginx gives between two reads or writes.
const MIN_BODY_RATE: u64 = 240;
const BODY_RATE_WINDOW: Duration = Duration::from_secs(60);
/// Above every router of a user.
const REDIRECTION_PRIORITY: i64 = i64::MAX - 1;

pub(super) fn default_entry_point(name: &str, address: &str) -> EntryPoint {
    let any_port = SocketAddr::from(([0u16; 8], 0));
    EntryPoint {
        name: name.to_owned(),
        address: listen_address(address).unwrap_or(any_port),
        address_text: address.to_owned(),
        as_default: false,
        reuse_port: false,
        allow_acme_by_pass: false,
        request_accept_grace_timeout: Duration::ZERO,
        grace_timeout: GRACE_TIMEOUT,
        read_timeout: Some(READ_TIMEOUT),
        write_timeout: None,
        idle_timeout: Some(IDLE_TIMEOUT),
        keep_alive_max_time: None,
        keep_alive_max_requests: None,
        proxy_protocol: TrustedPeers::default(),
        forwarded_headers: TrustedPeers::default(),
        forwarded_connection: Vec::new(),
        not_append_x_forwarded_for: false,
        add_scheme_headers: false,
        http: EntryPointHttp {
            redirection: None,
            middlewares: Vec::new(),
            middleware_places: Vec::new(),
            tls: None,
            encode_query_semicolons: false,
            sanitize_path: true,
            encoded_characters: None,
            max_header_bytes: MAX_HEADER_BYTES,
            alias_headers: AliasHeaders::Keep,
            only_underscores: false,
        },
        http2_max_concurrent_streams: MAX_CONCURRENT_STREAMS,
        http3: None,
        limits: EntryPointLimits {
            connections: None,
            connections_per_client: None,
            min_body_rate: MIN_BODY_RATE,
            body_rate_window: BODY_RATE_WINDOW,
        },
        udp_timeout: UDP_TIMEOUT,
        observability: None,
    }
}

/// The entry points, and where they name certificate resolvers.
pub(super) fn read<'a>(root: &Block<'a>) -> (Vec<EntryPoint>, Vec<Field<'a>>) {
    let Some(field) = root.take("entryPoints") else {
        return (vec![default_entry_point("http", ":80")], Vec::new());
    };
    let mut resolvers = Vec::new();
    let mut entry_points = Vec::new();
    let mut addresses: HashMap<(SocketAddr, bool), String> = HashMap::new();
    let mut redirections = Vec::new();
    for (entry, field) in field.objects() {
        let name: &str = &entry.key;
        if name.is_empty() || name.contains('@') {
            field.error_at_key(format!("{} cannot be the name of an entry point", quoted(name)), None);
            continue;
        }
        let Some(block) = field.object() else { continue };
        // Without an address there is a problem already: what asks who reaches it has no say.
        let mut entry_point = default_entry_point(name, "127.0.0.1:0");
        if let Some(text) = block.require("address", "write `address: :80`").and_then(|field| field.text()) {
            match listen_address(text.value) {
                Ok(address) => {
                    entry_point.address = address;
                    entry_point.address_text = text.value.to_owned();
                    if let Some(other) = addresses.insert((address, is_udp(text.value)), name.to_owned())
                        && address.port() != 0
                    {
                        text.error(format!("the entry point {} has the same address", quoted(&other)), None);
                    }
                }
                Err((message, hint)) => text.error(message, hint),
            }
        }
        options(&block, &mut entry_point, (&mut redirections, &mut resolvers));
        block.finish();
        if entry_point.http3.is_some() && !is_udp(&entry_point.address_text) {
            let other = addresses.insert((entry_point.address, true), name.to_owned());
            if let Some(other) = other.filter(|_| entry_point.address.port() != 0) {
                let hint = Some("give one of them another port, or remove `http3`".to_owned());
                field.error_at_key(
                    format!("the entry point {} has the UDP port of `http3`", quoted(&other)),
                    hint,
                );
            }
        }
        entry_points.push(entry_point);
    }
    check_redirections(&entry_points, &redirections);
    (entry_points, resolvers)
}

/// Resolvers that entry points name must exist.
pub(super) fn check_resolvers(named: &[Field<'_>], resolvers: &[&str]) {
    for text in named.iter().filter_map(Field::text).filter(|text| !resolvers.contains(&text.value)) {
        let hint = suggest::hint(text.value, "resolvers", resolvers.iter().copied());
        text.error(format!("no certificate resolver is called {}", quoted(text.value)), Some(hint));
    }
}

/// What names things that are known later: where redirections lead, and resolvers.
type Named<'n, 'a> = (&'n mut Vec<Field<'a>>, &'n mut Vec<Field<'a>>);

fn options<'a>(block: &Block<'a>, entry_point: &mut EntryPoint, named: Named<'_, 'a>) {
    if let Some(as_default) = block.take("asDefault").and_then(|field| field.boolean()) {
        entry_point.as_default = as_default;
    }
    if let Some(reuse_port) = block.take("reusePort").and_then(|field| field.boolean()) {
        entry_point.reuse_port = reuse_port;
    }
    if let Some(by_pass) = block.take("allowACMEByPass").and_then(|field| field.boolean()) {
        entry_point.allow_acme_by_pass = by_pass;
    }
    if let Some(transport) = block.take("transport").and_then(|field| field.block()) {
        read_transport(&transport, entry_point);
        transport.finish();
    }
    if let Some(field) = block.take("proxyProtocol") {
        entry_point.proxy_protocol = proxy_protocol(&field, entry_point);
    }
    if let Some(forwarded) = block.take("forwardedHeaders").and_then(|field| field.block()) {
        entry_point.forwarded_headers = trusted_peers(&forwarded, entry_point);
        if let Some(field) = forwarded.take("connection") {
            entry_point.forwarded_connection = header_names(&field);
        }
        if let Some(skip) = forwarded.take("notAppendXForwardedFor").and_then(|field| field.boolean()) {
            entry_point.not_append_x_forwarded_for = skip;
        }
        if let Some(add) = forwarded.take("addXForwardedSchemeHeaders").and_then(|field| field.boolean()) {
            entry_point.add_scheme_headers = add;
        }
        forwarded.finish();
    }
    if let Some(http) = block.take("http").and_then(|field| field.block()) {
        read_http(&http, &mut entry_point.http, named);
        http.finish();
    }
    if let Some(http2) = block.take("http2").and_then(|field| field.block()) {
        if let Some(streams) = http2.take("maxConcurrentStreams") {
            entry_point.http2_max_concurrent_streams = max_streams(&streams);
        }
        let why = "the tables keep the 4096 bytes of RFC 9113";
        http2.without_effect(&["maxDecoderHeaderTableSize", "maxEncoderHeaderTableSize"], why);
        http2.finish();
    }
    if let Some(limits) = block.take("limits").and_then(|field| field.block()) {
        read_limits(&limits, &mut entry_point.limits);
        limits.finish();
    }
    if let Some(field) = block.take("http3") {
        entry_point.http3 = http3(&field);
        if entry_point.http3.is_some() && is_udp(&entry_point.address_text) {
            let hint = "write it at the entry point with the TCP port of the same number".to_owned();
            field.error_at_key("a UDP entry point has no HTTP".to_owned(), Some(hint));
        }
    }
    if let Some(udp) = block.take("udp").and_then(|field| field.block()) {
        if let Some(timeout) = udp.take("timeout").and_then(|field| field.positive_duration()) {
            entry_point.udp_timeout = timeout;
        }
        udp.finish();
    }
    if let Some(field) = block.take("observability") {
        entry_point.observability = observability(&field);
    }
}

fn read_transport(block: &Block<'_>, entry_point: &mut EntryPoint) {
    if let Some(life_cycle) = block.take("lifeCycle").and_then(|field| field.block()) {
        if let Some(time) = life_cycle.take("requestAcceptGraceTimeout").and_then(|field| field.duration()) {
            entry_point.request_accept_grace_timeout = time;
        }
        if let Some(time) = life_cycle.take("graceTimeOut").and_then(|field| field.duration()) {
            entry_point.grace_timeout = time;
        }
        life_cycle.finish();
    }
    if let Some(timeouts) = block.take("respondingTimeouts").and_then(|field| field.block()) {
        if let Some(timeout) = timeouts.take("readTimeout").and_then(|field| field.timeout()) {
            entry_point.read_timeout = timeout;
        }
        if let Some(timeout) = timeouts.take("writeTimeout").and_then(|field| field.timeout()) {
            entry_point.write_timeout = timeout;
        }
        if let Some(timeout) = timeouts.take("idleTimeout").and_then(|field| field.timeout()) {
            entry_point.idle_timeout = timeout;
        }
        timeouts.finish();
    }
    if let Some(time) = block.take("keepAliveMaxTime").and_then(|field| field.timeout()) {
        entry_point.keep_alive_max_time = time;
    }
    if let Some(field) = block.take("keepAliveMaxRequests")
        && let Some(requests) = field.integer(i64::MIN..=i64::MAX)
    {
        if requests < 0 {
            field.warn("a negative number means no limit".to_owned(), Some("write 0".to_owned()));
        }
        entry_point.keep_alive_max_requests = u64::try_from(requests).ok().filter(|requests| *requests > 0);
    }
}

fn read_limits(block: &Block<'_>, limits: &mut EntryPointLimits) {
    limits.connections = block.take("connections").and_then(|field| field.u64(1));
    if let Some(field) = block.take("connectionsPerClient") {
        limits.connections_per_client = field.u64(1);
        if let (Some(all), Some(each)) = (limits.connections, limits.connections_per_client)
            && each > all
        {
            field.warn(format!("{each} has no effect: all clients together may have {all}"), None);
        }
    }
    if let Some(rate) = block.take("minBodyRate").and_then(|field| field.u64(1)) {
        limits.min_body_rate = rate;
    }
    if let Some(window) = block.take("bodyRateWindow").and_then(|field| field.positive_duration()) {
        limits.body_rate_window = window;
    }
}

fn trusted_peers(block: &Block<'_>, entry_point: &EntryPoint) -> TrustedPeers {
    let insecure = block.take("insecure").filter(|field| field.boolean() == Some(true));
    if let Some(field) = &insecure {
        let way_out = "list the proxies in front under `trustedIPs`";
        warn_if_open(field, entry_point, "any client may claim any address", way_out);
    }
    TrustedPeers {
        insecure: insecure.is_some(),
        trusted_ips: block.take("trustedIPs").map(|field| networks(&field)).unwrap_or_default(),
    }
}

/// Says what `field` allows to strangers where they may reach the entry point. Who binds to an address of this
/// machine or of a private network has thought of who does.
pub(super) fn warn_if_open(field: &Field<'_>, entry_point: &EntryPoint, risk: &str, way_out: &str) {
    let address = entry_point.address;
    let whose = match address.ip().to_canonical() {
        ip if ip.is_unspecified() => "every address of this machine",
        ip if is_private(ip) => return,
        _ => "a public address",
    };
    field.warn(
        format!("`true` on {}, {whose}: {risk}", quoted(&entry_point.address_text)),
        Some(format!("{way_out}, or bind {} to 127.0.0.1:{}", quoted(&entry_point.name), address.port())),
    );
}

/// RFC 1918, 3927, 4193, 4291 section 2.5.6, 6598.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || matches!(ip.octets(), [100, 64..128, ..])
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

fn proxy_protocol(field: &Field<'_>, entry_point: &EntryPoint) -> TrustedPeers {
    let peers = match field.enabled() {
        Enabled::Off => return TrustedPeers::default(),
        Enabled::Plain => TrustedPeers::default(),
        Enabled::With(block) => {
            let names_some = block.take("trustedIPs").is_some_and(|field| !field.texts().is_empty());
            let peers = trusted_peers(&block, entry_point);
            block.finish();
            if names_some {
                return peers;
            }
            peers
        }
    };
    if !peers.insecure {
        let hint = "list who sends them under `trustedIPs`, or remove it".to_owned();
        field.error_at_key("nobody is trusted to send a PROXY header".to_owned(), Some(hint));
    }
    peers
}

fn http3(field: &Field<'_>) -> Option<Http3> {
    let mut http3 = Http3::default();
    match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => {}
        Enabled::With(block) => {
            // 0 is the entry point's own, as with Traefik.
            let port = block.take("advertisedPort").and_then(|field| field.u16(0, u16::MAX));
            http3.advertised_port = port.filter(|port| *port > 0);
            block.finish();
        }
    }
    Some(http3)
}

fn max_streams(field: &Field<'_>) -> u32 {
    match field.integer(0..=i64::from(i32::MAX)).and_then(|streams| u32::try_from(streams).ok()) {
        Some(0) => {
            field.warn(format!("0 means {MAX_CONCURRENT_STREAMS}"), Some("remove it".to_owned()));
            MAX_CONCURRENT_STREAMS
        }
        streams => streams.unwrap_or(MAX_CONCURRENT_STREAMS),
    }
}

fn read_http<'a>(block: &Block<'a>, http: &mut EntryPointHttp, named: Named<'_, 'a>) {
    let (redirections, resolvers) = named;
    if let Some(outer) = block.take("redirections").and_then(|field| field.block()) {
        http.redirection = outer.take("entryPoint").and_then(|field| redirection(&field, redirections));
        outer.finish();
    }
    if let Some(field) = block.take("middlewares") {
        for text in field.texts() {
            http.middlewares.push(text.value.to_owned());
            http.middleware_places.push(text.place());
        }
    }
    http.tls = block.take("tls").and_then(|field| entry_point_tls(&field, resolvers));
    if let Some(encode) = block.take("encodeQuerySemicolons").and_then(|field| field.boolean()) {
        http.encode_query_semicolons = encode;
    }
    if let Some(sanitize) = block.take("sanitizePath").and_then(|field| field.boolean()) {
        http.sanitize_path = sanitize;
    }
    if let Some(block) = block.take("encodedCharacters").and_then(|field| field.block()) {
        http.encoded_characters = Some(allowed_characters(&block, true));
        block.finish();
    }
    if let Some(field) = block.take("maxHeaderBytes")
        && let Some(bytes) = field.integer(i64::MIN..=i64::MAX)
    {
        match usize::try_from(bytes) {
            Ok(bytes) if bytes > 0 => http.max_header_bytes = bytes,
            _ => field.warn(format!("{bytes} means {MAX_HEADER_BYTES}"), Some("remove it".to_owned())),
        }
    }
    const STRATEGIES: [(&str, AliasHeaders); 3] =
        [("keep", AliasHeaders::Keep), ("delete", AliasHeaders::Delete), ("reject", AliasHeaders::Reject)];
    let alias = block.take_word("aliasHeadersStrategy").and_then(|field| field.choice(&STRATEGIES));
    http.alias_headers = alias.unwrap_or_default();
    if let Some(field) = block.take_word("underscoreHeadersStrategy")
        && let Some(strategy) = field.choice(&STRATEGIES)
    {
        let hint = "write `aliasHeadersStrategy`, which covers `_` and other odd characters".to_owned();
        if alias.is_some_and(|alias| alias != strategy) {
            let message = "says something else than `aliasHeadersStrategy`".to_owned();
            field.error_at_key(message, Some("keep `aliasHeadersStrategy`".to_owned()));
        } else if alias.is_none() {
            field.warn_at_key("is the old way to say it, for `_` alone".to_owned(), Some(hint));
            (http.alias_headers, http.only_underscores) = (strategy, true);
        }
    }
}

fn redirection<'a>(field: &Field<'a>, redirections: &mut Vec<Field<'a>>) -> Option<Redirection> {
    let block = field.block()?;
    let to_field = block.require("to", "name the entry point, or a port like `:443`");
    let scheme = super::text(&block, "scheme");
    let permanent = block.take("permanent").and_then(|field| field.boolean());
    let priority = block.take("priority").and_then(|field| field.integer(i64::MIN..=i64::MAX));
    block.finish();
    let to_field = to_field?;
    let to = to_field.string()?;
    redirections.push(to_field);
    Some(Redirection {
        to,
        scheme: scheme.unwrap_or_else(|| "https".to_owned()),
        permanent: permanent.unwrap_or(true),
        priority: priority.unwrap_or(REDIRECTION_PRIORITY),
    })
}

/// Where redirections lead must exist: Traefik logs an error and then does not redirect.
fn check_redirections(entry_points: &[EntryPoint], redirections: &[Field<'_>]) {
    for text in redirections.iter().filter_map(Field::text) {
        let found = match text.value.strip_prefix(':') {
            Some(port) => port.parse::<u16>().is_ok_and(|port| port > 0),
            None => entry_points.iter().any(|entry_point| entry_point.name == text.value),
        };
        if !found {
            let names = entry_points.iter().map(|entry_point| entry_point.name.as_str());
            let hint = suggest::hint(text.value, "entry points", names);
            text.error(format!("no entry point is called {}", quoted(text.value)), Some(hint));
        }
    }
}

fn entry_point_tls<'a>(field: &Field<'a>, resolvers: &mut Vec<Field<'a>>) -> Option<RouterTls> {
    let (tls, fields) = router_tls(field)?;
    resolvers.extend(fields.cert_resolver);
    Some(tls)
}
