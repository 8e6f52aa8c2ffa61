//! The static configuration: from a tree to the checked [`StaticConfig`].

mod docker;
mod entry_points;
mod observe;
mod providers;
mod remote;
mod resolvers;
mod telemetry;
mod token;
mod transport;

pub(crate) use providers::PROVIDERS;
pub(crate) use remote::REMOTE;

use std::path::PathBuf;
use std::time::Duration;

use lb_core::route::Syntax;

use crate::decode::{Block, Enabled, Field, Report};
use crate::document::Node;
use crate::dynamic::ServersTransport;
use crate::dynamics::{default_tcp_transport, forwarding_timeouts, max_idle_conns};
use crate::net::is_udp;
use crate::pem;
use crate::problem::quoted;
use crate::static_config::{Api, Core, MemoryLimit, Ping, StaticConfig};
use crate::{size, suggest};

/// Idle connections kept per server by the default transport (reference 1.11).
const IDLE_CONNS: usize = 200;

/// More data-plane threads than any machine has processors; chosen.
const MAX_WORKERS: i64 = 1024;

/// What is left is for the kernel's part of the connections, which counts as well. Chosen.
const MEMORY_LIMIT: MemoryLimit = MemoryLimit::Percent(90);
/// Started, with a small configuration, on two processors; measured in November 2026.
const LEAST_MEMORY_BYTES: u64 = 16 << 20;

/// For a new process to get ready in an upgrade; chosen: far above what the largest configuration takes to compile.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(60);

/// Name of the internal entry point.
pub(crate) const TRAEFIK: &str = "traefik";

/// Reads the static file called `name`; what it returns may only be used if the report refuses nothing.
pub(crate) fn read(report: &Report<'_>, root: &Node, name: &str) -> Option<StaticConfig> {
    let root = Block::root(report, root)?;
    let (entry_points, resolvers_at) = entry_points::read(&root);
    let (mut udp_entry_points, mut entry_points): (Vec<_>, Vec<_>) =
        entry_points.into_iter().partition(|entry_point| is_udp(&entry_point.address_text));
    udp_entry_points.sort_by(|a, b| a.name.cmp(&b.name));
    let (api, insecure_at) = root.take("api").as_ref().and_then(api).unzip();
    let (ping, ping_at) = root.take("ping").as_ref().and_then(ping).unzip();
    let (metrics, metrics_at) = root.take("metrics").as_ref().and_then(observe::metrics).unzip();

    let wants_internal = api.as_ref().is_some_and(|api| api.insecure || api.token.is_some())
        || ping.as_ref().is_some_and(|ping| ping.entry_point == TRAEFIK && !ping.manual_routing)
        || metrics.as_ref().is_some_and(|metrics| metrics.entry_point == TRAEFIK && !metrics.manual_routing);
    if wants_internal && !entry_points.iter().any(|entry_point| entry_point.name == TRAEFIK) {
        entry_points.push(entry_points::default_entry_point(TRAEFIK, ":8080"));
    }
    if let Some(Some(at)) = &insecure_at
        && let Some(entry_point) = entry_points.iter().find(|entry_point| entry_point.name == TRAEFIK)
    {
        let way_out = "lead a router with a password to `api@internal` instead";
        entry_points::warn_if_open(at, entry_point, "whoever reaches it reads the API", way_out);
    }
    entry_points.sort_by(|a, b| a.name.cmp(&b.name));
    let names: Vec<&str> = entry_points.iter().map(|entry_point| entry_point.name.as_str()).collect();
    if let (Some(Some(at)), Some(ping)) = (&ping_at, &ping)
        && !ping.manual_routing
    {
        require_entry_point(at, &ping.entry_point, &names);
    }
    if let (Some(Some(at)), Some(metrics)) = (&metrics_at, &metrics)
        && !metrics.manual_routing
    {
        require_entry_point(at, &metrics.entry_point, &names);
    }

    let certificates_resolvers = resolvers::read(&root, &names);
    entry_points::check_resolvers(&resolvers_at, &certificates_resolvers);
    let config = StaticConfig {
        file: name.to_owned(),
        providers: providers::read(root.take("providers").as_ref()),
        log: observe::log(root.take("log").as_ref()),
        access_log: root.take("accessLog").as_ref().and_then(observe::access_log),
        servers_transport: servers_transport(root.take("serversTransport").as_ref()),
        tcp_servers_transport: default_tcp_transport(root.take("tcpServersTransport").as_ref()),
        core: core(root.take("core").as_ref()),
        entry_points,
        udp_entry_points,
        api,
        ping,
        metrics,
        tracing: root.take("tracing").as_ref().and_then(telemetry::tracing),
        certificates_resolvers,
    };
    rest(&root);
    root.finish_root();
    Some(config)
}

/// The sections that configure nothing here: refused, or accepted because they change nothing.
fn rest(root: &Block<'_>) {
    if let Some(global) = root.take("global").and_then(|field| field.block()) {
        global.harmless(&["checkNewVersion", "sendAnonymousUsage"]);
        let why = "set `forwardedHeaders.notAppendXForwardedFor` on the entry point";
        global.without_effect(&["notAppendXForwardedFor"], why);
        global.finish();
    }
    if let Some(Enabled::With(resolver)) = root.take("hostResolver").map(|field| field.enabled()) {
        resolver.harmless(&["resolvConfig", "resolvDepth"]);
        if let Some(field) = resolver.take("cnameFlattening")
            && field.boolean() == Some(true)
        {
            field.error("CNAME flattening is not supported yet".to_owned(), None);
        }
        resolver.finish();
    }
    if let Some(experimental) = root.take("experimental").and_then(|field| field.block()) {
        experimental.unsupported(&["plugins", "localPlugins"]);
        experimental.harmless(&["abortOnPluginFailure"]);
        experimental.without_effect(&["fastProxy"], "Vigie has one proxy, and it is the fast one");
        experimental.without_effect(
            &["knative", "kubernetesGateway", "kubernetesIngressNGINX", "otlpLogs"],
            "the feature it unlocks is not supported yet",
        );
        experimental.finish();
    }
    root.unsupported(&["ocsp", "spiffe"]);
    if let Some(field) = root.take_unlisted("pilot") {
        field.error_at_key("Traefik v3 has no `pilot` any more".to_owned(), Some("remove it".to_owned()));
    }
    for key in ["http", "tls", "tcp", "udp"].into_iter().filter(|_| !root.report.is_of_arguments()) {
        if let Some(field) = root.take_unlisted(key) {
            field.warn_at_key(
                "belongs into the dynamic configuration and is ignored here".to_owned(),
                Some("move it to a file that `providers.file` names".to_owned()),
            );
        }
    }
}

fn require_entry_point(field: &Field<'_>, name: &str, names: &[&str]) {
    if !names.contains(&name) {
        let hint = suggest::hint(name, "entry points", names.iter().copied());
        field.error(format!("no entry point is called {}", quoted(name)), Some(hint));
    }
}

/// The API, and the field that opens it to all.
fn api<'a>(field: &Field<'a>) -> Option<(Api, Option<Field<'a>>)> {
    let mut api = Api {
        insecure: false,
        dashboard: true,
        debug: false,
        base_path: "/".to_owned(),
        dashboard_name: None,
        disable_dashboard_ad: false,
        token: None,
    };
    let block = match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => return Some((api, None)),
        Enabled::With(block) => block,
    };
    let insecure = block.take("insecure").filter(|field| field.boolean() == Some(true));
    api.insecure = insecure.is_some();
    let flag = |key, default| block.take(key).and_then(|field| field.boolean()).unwrap_or(default);
    api.dashboard = flag("dashboard", api.dashboard);
    api.debug = flag("debug", api.debug);
    api.disable_dashboard_ad = flag("disableDashboardAd", api.disable_dashboard_ad);
    if let Some(path) = block.take("basePath").and_then(|field| field.text()) {
        let fits = |c: char| c.is_ascii_alphanumeric() || "/_.:~-".contains(c);
        if !path.value.starts_with('/') || !path.value.chars().all(fits) {
            let hint = "it starts with `/` and has letters, digits and `_.:~-`".to_owned();
            path.error(format!("{} is not a path", quoted(path.value)), Some(hint));
        }
        api.base_path = path.value.to_owned();
    }
    api.dashboard_name = text(&block, "dashboardName");
    api.token = token::read(&block);
    block.finish();
    Some((api, insecure))
}

/// The ping, and the field that names its entry point.
fn ping<'a>(field: &Field<'a>) -> Option<(Ping, Option<Field<'a>>)> {
    let mut ping =
        Ping { entry_point: TRAEFIK.to_owned(), manual_routing: false, terminating_status_code: 503 };
    let block = match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => return Some((ping, None)),
        Enabled::With(block) => block,
    };
    let entry_point = block.take("entryPoint");
    if let Some(name) = entry_point.as_ref().and_then(|field| field.string()).filter(|name| !name.is_empty())
    {
        ping.entry_point = name;
    }
    if let Some(manual) = block.take("manualRouting").and_then(|field| field.boolean()) {
        ping.manual_routing = manual;
    }
    if let Some(status) = block.take("terminatingStatusCode").and_then(|field| field.u16(200, 599)) {
        ping.terminating_status_code = status;
    }
    block.finish();
    Some((ping, entry_point))
}

fn servers_transport(field: Option<&Field<'_>>) -> ServersTransport {
    let mut transport = ServersTransport::with_idle_conns(IDLE_CONNS);
    let Some(block) = field.and_then(|field| field.block()) else { return transport };
    if let Some(skip) = block.take("insecureSkipVerify").and_then(|field| field.boolean()) {
        transport.insecure_skip_verify = skip;
    }
    if let Some(roots) = block.take("rootCAs") {
        transport.root_cas = pem::certificate_list(&roots);
    }
    if let Some(field) = block.take("maxIdleConnsPerHost") {
        max_idle_conns(&field, &mut transport);
    }
    if let Some(timeouts) = block.take("forwardingTimeouts").and_then(|field| field.block()) {
        forwarding_timeouts(&timeouts, &mut transport);
        timeouts.finish();
    }
    block.unsupported(&["spiffe"]);
    block.finish();
    transport
}

fn core(field: Option<&Field<'_>>) -> Core {
    let mut core = Core {
        default_rule_syntax: None,
        strict_tls_options: false,
        workers: None,
        memory_limit: MEMORY_LIMIT,
        upgrade_timeout: UPGRADE_TIMEOUT,
    };
    let Some(block) = field.and_then(|field| field.block()) else { return core };
    if let Some(syntax) = block.take("defaultRuleSyntax").and_then(|field| field.text()) {
        match syntax.value {
            "" => {}
            "v2" => core.default_rule_syntax = Some(Syntax::V2),
            "v3" => core.default_rule_syntax = Some(Syntax::V3),
            _ => syntax.unknown_word(["v3", "v2"]),
        }
    }
    if let Some(strict) = block.take("strictTLSOptions").and_then(|field| field.boolean()) {
        core.strict_tls_options = strict;
        core.default_rule_syntax.get_or_insert_default();
    }
    core.workers = block
        .take("workers")
        .and_then(|field| field.integer(1..=MAX_WORKERS))
        .and_then(|workers| usize::try_from(workers).ok());
    if let Some(limit) = block.take("memoryLimit").and_then(|field| memory_limit(&field)) {
        core.memory_limit = limit;
    }
    if let Some(timeout) = block.take("upgradeTimeout").and_then(|field| field.positive_duration()) {
        core.upgrade_timeout = timeout;
    }
    block.finish();
    core
}

fn memory_limit(field: &Field<'_>) -> Option<MemoryLimit> {
    let text = field.text()?;
    let refuse = |reason: &str| {
        let hint = "write an amount like `512MiB`, a share like `90%`, or `none`".to_owned();
        text.shape(format!("{} {reason}", text.quoted()), Some(hint));
        None
    };
    if text.value == "none" {
        return Some(MemoryLimit::Never);
    }
    if let Some(percent) = text.value.strip_suffix('%') {
        return match percent.trim_end().parse() {
            Ok(percent @ 1..=100) => Some(MemoryLimit::Percent(percent)),
            _ => refuse("is no share from 1% to 100%"),
        };
    }
    match size::parse(text.value) {
        Ok(bytes) if bytes >= LEAST_MEMORY_BYTES => Some(MemoryLimit::Bytes(bytes)),
        Ok(_) => refuse("is less than the 16 MiB that Vigie itself needs"),
        Err(reason) => refuse(reason),
    }
}

/// A text that says something: an empty one is as good as absent.
fn text(block: &Block<'_>, key: &'static str) -> Option<String> {
    block.take(key).and_then(|field| field.string()).filter(|text| !text.is_empty())
}

fn path(block: &Block<'_>, key: &'static str) -> Option<PathBuf> {
    text(block, key).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use crate::static_config::{AliasHeaders, FieldMode, FileSource, LogLevel, MemoryLimit, StaticConfig};
    use crate::{Problem, Problems, parse_static};
    use std::time::Duration;

    fn read(text: &str) -> StaticConfig {
        parse_static("vigie.yml", text).unwrap_or_else(|problems| panic!("{problems}")).0
    }

    fn told(text: &str) -> Vec<String> {
        let problems = match parse_static("vigie.yml", text) {
            Ok((_, problems)) | Err(Problems(problems)) => problems,
        };
        let line = |p: &Problem| format!("{}{}: {}", if p.is_error() { "" } else { "~" }, p.key, p.message);
        problems.iter().map(line).collect()
    }

    /// Names and addresses of the entry points.
    fn listens(text: &str) -> Vec<String> {
        read(text).entry_points.iter().map(|e| format!("{}={}", e.name, e.address)).collect()
    }

    #[test]
    fn entry_points_appear_when_needed() {
        assert_eq!(listens(""), ["http=[::]:80"]);
        assert_eq!(listens("ping: {}"), ["http=[::]:80", "traefik=[::]:8080"]);
        assert_eq!(listens("entryPoints: {web: {address: ':1'}}\napi: {}"), ["web=[::]:1"]);
        assert_eq!(
            listens("entryPoints: {web: {address: ':1'}}\napi: {insecure: true}"),
            ["traefik=[::]:8080", "web=[::]:1"]
        );
        assert_eq!(
            listens("entryPoints: {web: {address: ':1'}}\napi: {token: 0123456789abcdef}"),
            ["traefik=[::]:8080", "web=[::]:1"]
        );
        assert_eq!(
            listens("entryPoints: {web: {address: ':1'}}\nping: {manualRouting: true}"),
            ["web=[::]:1"]
        );
        assert_eq!(listens("entryPoints: {web: {address: ':1'}}\nping: {entryPoint: web}"), ["web=[::]:1"]);
        assert_eq!(
            listens("entryPoints: {traefik: {address: ':9'}}\nmetrics: {prometheus: {}}"),
            ["traefik=[::]:9"]
        );
        assert_eq!(
            listens("entryPoints: {a: {address: '127.0.0.1:0'}, b: {address: '127.0.0.1:0'}}").len(),
            2
        );
    }

    #[test]
    fn an_empty_file_has_traefiks_defaults() {
        let config = read("");
        assert!(config.api.is_none() && config.ping.is_none() && config.metrics.is_none());
        assert!(config.access_log.is_none() && config.providers.file.is_none());
        assert_eq!(config.log.level, LogLevel::Error);
        assert_eq!(config.providers.throttle, Duration::from_secs(2));
        assert_eq!(config.providers.precedence.len(), 17);
        assert_eq!(config.servers_transport.max_idle_conns_per_host, Some(200));
        assert_eq!((config.core.workers, config.core.upgrade_timeout), (None, Duration::from_secs(60)));
        let http = &config.entry_points[0];
        assert_eq!((http.read_timeout, http.write_timeout), (Some(Duration::from_secs(60)), None));
        assert_eq!(http.idle_timeout, Some(Duration::from_secs(180)));
        assert_eq!(http.grace_timeout, Duration::from_secs(10));
        assert_eq!((http.http.max_header_bytes, http.http2_max_concurrent_streams), (1_048_576, 250));
        assert!(http.http.sanitize_path && http.http.encoded_characters.is_none());
    }

    #[test]
    fn every_option_of_an_entry_point_is_read() {
        let config = read(
            "entryPoints:\n  web:\n    address: 127.0.0.1:80/tcp\n    asDefault: true\n    reusePort: 1\n    transport:\n      \
             lifecycle: {requestAcceptGraceTimeout: 5, gracetimeout: 20s}\n      \
             respondingTimeouts: {readTimeout: 0, writeTimeout: 30s, idleTimeout: 1m}\n      keepAliveMaxTime: 1h\n      \
             keepAliveMaxRequests: 1000\n    proxyProtocol: {trustedIPs: [10.0.0.0/8]}\n    \
             forwardedHeaders: {insecure: true, connection: X-A, notAppendXForwardedFor: true, addXForwardedSchemeHeaders: true}\n    http:\n      \
             middlewares: a@file\n      tls: {options: strict}\n      encodeQuerySemicolons: true\n      sanitizePath: false\n      \
             encodedCharacters: {allowEncodedSlash: false}\n      maxHeaderBytes: 4096\n      aliasHeadersStrategy: reject\n      \
             redirections: {entryPoint: {to: ':443', permanent: false, priority: 5}}\n    http2: {maxConcurrentStreams: 10}\n    \
             observability: {accessLogs: false}\n",
        );
        let web = &config.entry_points[0];
        assert_eq!(
            (web.address.to_string().as_str(), web.address_text.as_str()),
            ("127.0.0.1:80", "127.0.0.1:80/tcp")
        );
        assert!(web.as_default && web.reuse_port && web.not_append_x_forwarded_for && web.add_scheme_headers);
        assert_eq!(web.request_accept_grace_timeout, Duration::from_secs(5));
        assert_eq!(web.grace_timeout, Duration::from_secs(20));
        assert_eq!((web.read_timeout, web.write_timeout), (None, Some(Duration::from_secs(30))));
        assert_eq!(web.keep_alive_max_requests, Some(1000));
        assert_eq!(web.proxy_protocol.trusted_ips.len(), 1);
        assert_eq!(web.forwarded_connection, ["X-A"]);
        assert_eq!(web.http.middlewares, ["a@file"]);
        assert_eq!(web.http.tls.as_ref().unwrap().options, "strict");
        assert!(web.http.encode_query_semicolons && !web.http.sanitize_path);
        let characters = web.http.encoded_characters.unwrap();
        assert!(!characters.slash && characters.hash);
        assert_eq!((web.http.max_header_bytes, web.http.alias_headers), (4096, AliasHeaders::Reject));
        let redirection = web.http.redirection.as_ref().unwrap();
        assert_eq!(
            (redirection.to.as_str(), redirection.scheme.as_str(), redirection.priority),
            (":443", "https", 5)
        );
        assert_eq!(web.http2_max_concurrent_streams, 10);
        assert_eq!(web.observability.unwrap().access_logs, Some(false));
    }

    #[test]
    fn the_older_strategy_is_for_underscores() {
        let http = |http: &str| format!("entryPoints: {{web: {{address: ':1', http: {{{http}}}}}}}");
        let strategy = |text: &str| {
            let http = read(&http(text)).entry_points[0].http.clone();
            (http.alias_headers, http.only_underscores)
        };
        assert_eq!(strategy("underscoreHeadersStrategy: delete"), (AliasHeaders::Delete, true));
        assert_eq!(strategy("aliasHeadersStrategy: delete"), (AliasHeaders::Delete, false));
        let both = "underscoreHeadersStrategy: reject, aliasHeadersStrategy: reject";
        assert_eq!(strategy(both), (AliasHeaders::Reject, false));
        assert_eq!(
            told(&http("underscoreHeadersStrategy: reject, aliasHeadersStrategy: keep")),
            [
                "entryPoints.web.http.underscoreHeadersStrategy: says something else than `aliasHeadersStrategy`"
            ]
        );
    }

    #[test]
    fn limits_are_read() {
        let web = "entryPoints: {web: {address: ':1', limits: {connections: 10000, connectionsPerClient: 100, \
                   minBodyRate: 500, bodyRateWindow: 20s}}}\n";
        let limits = &read(web).entry_points[0].limits;
        assert_eq!((limits.connections, limits.connections_per_client), (Some(10_000), Some(100)));
        assert_eq!((limits.min_body_rate, limits.body_rate_window), (500, Duration::from_secs(20)));
        let limits = &read("").entry_points[0].limits;
        assert_eq!((limits.connections, limits.connections_per_client), (None, None));
        assert_eq!((limits.min_body_rate, limits.body_rate_window), (240, Duration::from_secs(60)));
        for (text, expected) in [
            ("", MemoryLimit::Percent(90)),
            ("core: {memoryLimit: 50%}", MemoryLimit::Percent(50)),
            ("core: {memoryLimit: 512MiB}", MemoryLimit::Bytes(512 << 20)),
            ("core: {memoryLimit: 1000000000}", MemoryLimit::Bytes(1_000_000_000)),
            ("core: {memoryLimit: none}", MemoryLimit::Never),
        ] {
            assert_eq!(read(text).core.memory_limit, expected, "{text}");
        }
    }

    #[test]
    fn the_other_sections_are_read() {
        let config = read(
            "providers: {providersThrottleDuration: 5s, precedence: 'File, docker', file: {directory: d, watch: false}}\n\
             log: {level: panic, format: json, filePath: l}\n\
             accessLog: {format: genericCLF, bufferingSize: 10, filters: {statusCodes: ['200', 300-302], minDuration: 10ms}, \
             fields: {defaultMode: drop, names: {ClientHost: keep}, headers: {names: {User-Agent: redact}}, \
             queryParameters: {defaultMode: drop}}}\n\
             metrics: {prometheus: {buckets: '0.1, 2', addRoutersLabels: true, entryPoint: http}}\n\
             api: {basePath: /x, dashboardName: me}\ncore: {workers: 3, strictTLSOptions: true, upgradeTimeout: 5s}\n\
             serversTransport: {insecureSkipVerify: true, maxIdleConnsPerHost: -1, forwardingTimeouts: {dialTimeout: 1}}\n",
        );
        assert_eq!(config.providers.precedence, ["file", "docker"]);
        let file = config.providers.file.unwrap();
        assert_eq!((file.source, file.watch), (FileSource::Directory("d".into()), false));
        assert_eq!(config.log.level, LogLevel::Error);
        let log = config.access_log.unwrap();
        assert_eq!(log.filters.status_codes, [(200, 200), (300, 302)]);
        assert_eq!(log.fields.names["clienthost"], FieldMode::Keep);
        assert_eq!(log.fields.headers["user-agent"], FieldMode::Redact);
        assert_eq!(log.fields.query_parameters, FieldMode::Drop);
        let metrics = config.metrics.unwrap();
        assert_eq!((metrics.buckets, metrics.entry_point.as_str()), (vec![0.1, 2.0], "http"));
        assert_eq!((config.core.workers, config.core.strict_tls_options), (Some(3), true));
        assert_eq!(config.core.upgrade_timeout, Duration::from_secs(5));
        assert_eq!(config.servers_transport.max_idle_conns_per_host, None);
        assert_eq!(config.servers_transport.dial_timeout, Some(Duration::from_secs(1)));
    }

    #[test]
    fn blocks_are_switched_on_and_off_like_in_traefik() {
        assert!(read("api: true\naccessLog: {}\nlog: {}\nmetrics: {prometheus: true}").metrics.is_some());
        assert!(read("api: false\nmetrics: {prometheus: false}").api.is_none());
        for block in
            ["providers", "metrics", "core", "global", "serversTransport", "experimental", "entryPoints"]
        {
            let expected = format!("{block}: cannot be a standalone element: `{{}}` is empty");
            assert_eq!(told(&format!("{block}: {{}}")), [expected]);
        }
    }

    #[test]
    fn what_is_not_built_is_never_ignored_in_silence() {
        for (text, expected) in [
            ("providers: {plugin: {}}", "providers.plugin: `plugin` is not supported yet"),
            ("ocsp: {}", "ocsp: `ocsp` is not supported yet"),
            ("experimental: {plugins: {a: {}}}", "experimental.plugins: `plugins` is not supported yet"),
            ("accessLog: {otlp: {}}", "accessLog.otlp: `otlp` is not supported yet"),
            ("metrics: {datadog: {}}", "metrics.datadog: `datadog` is not supported yet"),
            ("core: {defaultRuleSyntax: v1}", "core.defaultRuleSyntax: `v1` is not a known value"),
            (
                "hostResolver: {cnameFlattening: true}",
                "hostResolver.cnameFlattening: CNAME flattening is not supported yet",
            ),
            (
                "experimental: {fastProxy: {}}",
                "~experimental.fastProxy: has no effect: Vigie has one proxy, and it is the fast one",
            ),
            ("log: {maxSize: 5}", "~log.maxSize: has no effect: rotate the file from outside (logrotate)"),
            ("http: {routers: {}}", "~http: belongs into the dynamic configuration and is ignored here"),
            ("pilot: {token: x}", "pilot: Traefik v3 has no `pilot` any more"),
        ] {
            assert_eq!(told(text), [expected], "{text}");
        }
        assert!(
            told("global: {checkNewVersion: false, sendAnonymousUsage: false}\nhostResolver: {}").is_empty()
        );
        assert!(told("x-anchors: {a: b}\ncore: {defaultRuleSyntax: v3}").is_empty());
    }

    #[test]
    fn what_is_open_to_strangers_is_told() {
        let of = |text: &str| {
            let (_, warnings) =
                parse_static("vigie.yml", text).unwrap_or_else(|problems| panic!("{problems}"));
            warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(
            of("api: {insecure: true}"),
            "vigie.yml:1:17: warning: api.insecure: `true` on `:8080`, every address of this machine: \
             whoever reaches it reads the API\n  \
             hint: lead a router with a password to `api@internal` instead, or bind `traefik` to 127.0.0.1:8080"
        );
        assert_eq!(
            of(
                "entryPoints:\n  web: {address: ':80', forwardedHeaders: {insecure: true}, proxyProtocol: {insecure: true}}"
            ),
            "vigie.yml:2:54: warning: entryPoints.web.forwardedHeaders.insecure: \
             `true` on `:80`, every address of this machine: any client may claim any address\n  \
             hint: list the proxies in front under `trustedIPs`, or bind `web` to 127.0.0.1:80\n\
             vigie.yml:2:87: warning: entryPoints.web.proxyProtocol.insecure: \
             `true` on `:80`, every address of this machine: any client may claim any address\n  \
             hint: list the proxies in front under `trustedIPs`, or bind `web` to 127.0.0.1:80"
        );
        for (address, whose) in [
            (":80", "every address of this machine"),
            ("0.0.0.0:80", "every address of this machine"),
            ("[::]:80", "every address of this machine"),
            ("192.0.2.1:80", "a public address"),
            ("[2001:db8::1]:80", "a public address"),
            ("127.0.0.2:80", ""),
            ("[::1]:80", ""),
            ("[::ffff:127.0.0.1]:80", ""),
            ("10.1.2.3:80", ""),
            ("172.16.0.1:80", ""),
            ("192.168.0.1:80", ""),
            ("169.254.0.1:80", ""),
            ("100.64.0.1:80", ""),
            ("100.128.0.1:80", "a public address"),
            ("[fd00::1]:80", ""),
            ("[fe80::1]:80", ""),
        ] {
            let told =
                of(&format!("entryPoints: {{traefik: {{address: '{address}'}}}}\napi: {{insecure: true}}"));
            assert_eq!(told.is_empty(), whose.is_empty(), "{address}: {told}");
            assert!(told.contains(whose), "{address}: {told}");
        }
        assert_eq!(
            of(
                "api: {insecure: false}\nentryPoints: {web: {address: ':80', forwardedHeaders: {insecure: false}}}"
            ),
            ""
        );
        // The address is what is wrong.
        assert_eq!(
            told("entryPoints: {web: {forwardedHeaders: {insecure: true}}}"),
            ["entryPoints.web: `address` is missing"]
        );
    }

    #[test]
    fn what_cannot_work_is_told() {
        for (text, expected) in [
            (
                "metrics: {prometheus: {buckets: [0.5, 0.1]}}",
                "metrics.prometheus.buckets[1]: buckets must rise",
            ),
            ("api: {basePath: foo}", "api.basePath: `foo` is not a path"),
            ("core: {workers: 0}", "core.workers: 0 is out of range"),
            ("core: {upgradeTimeout: 0s}", "core.upgradeTimeout: must be longer than 0"),
            (
                "accessLog: {filters: {statusCodes: [abc]}}",
                "accessLog.filters.statusCodes[0]: `abc` is not a status",
            ),
            ("accessLog: {format: xml}", "~accessLog.format: `xml` is not a known value; `common` is used"),
            (
                "providers: {file: {watch: true}}",
                "providers.file: neither `filename` nor `directory` is given",
            ),
            (
                "providers: {file: {filename: a, directory: b}}",
                "~providers.file: `directory` wins: `filename` is not read",
            ),
            ("providers: {precedence: [nginx]}", "providers.precedence[0]: no provider is called `nginx`"),
            (
                "entryPoints: {web: {address: ':80', proxyProtocol: {}}}",
                "~entryPoints.web.proxyProtocol: has no effect: nobody is trusted to send a PROXY header",
            ),
            (
                "entryPoints: {web: {address: ':80', forwardedHeaders: {trustedIPs: [x]}}}",
                "entryPoints.web.forwardedHeaders.trustedIPs[0]: `x` is not a network",
            ),
            (
                "entryPoints: {web: {address: ':80', transport: {respondingTimeouts: {readTimeout: -5}}}}",
                "~entryPoints.web.transport.respondingTimeouts.readTimeout: a negative time means no limit",
            ),
            (
                "entryPoints: {web: {address: ':80', http: {maxHeaderBytes: 0}}}",
                "~entryPoints.web.http.maxHeaderBytes: 0 means 1048576",
            ),
            (
                "entryPoints: {'a@b': {address: ':80'}}",
                "entryPoints.a@b: `a@b` cannot be the name of an entry point",
            ),
            (
                "entryPoints: {web: {address: ':80', limits: {connections: 0}}}",
                "entryPoints.web.limits.connections: 0 is out of range",
            ),
            (
                "entryPoints: {web: {address: ':80', limits: {bodyRateWindow: 0}}}",
                "entryPoints.web.limits.bodyRateWindow: must be longer than 0",
            ),
            (
                "entryPoints: {web: {address: ':80', limits: {conections: 5}}}",
                "entryPoints.web.limits.conections: there is no key `conections` here",
            ),
            (
                "entryPoints: {web: {address: ':80', limits: {connections: 5, connectionsPerClient: 6}}}",
                "~entryPoints.web.limits.connectionsPerClient: 6 has no effect: all clients together may have 5",
            ),
            ("core: {memoryLimit: 110%}", "core.memoryLimit: `110%` is no share from 1% to 100%"),
            ("core: {memoryLimit: much}", "core.memoryLimit: `much` is not an amount of memory"),
            (
                "core: {memoryLimit: 1MiB}",
                "core.memoryLimit: `1MiB` is less than the 16 MiB that Vigie itself needs",
            ),
            ("[]", ": a configuration is a map, this file holds a list"),
        ] {
            assert_eq!(told(text), [expected], "{text}");
        }
    }

    #[test]
    fn hints_are_ways_out() {
        for (text, expected) in [
            ("metrics: {prometheus: {buckets: [-1]}}", "allowed: more than 0"),
            ("entryPoints: {web: , alt: {address: ':80'}}", "give it its keys, or remove it"),
        ] {
            let (Ok((_, problems)) | Err(Problems(problems))) = parse_static("vigie.yml", text);
            assert_eq!(problems[0].hint.as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn an_empty_mode_is_as_good_as_absent() {
        let log =
            read("accessLog: {fields: {defaultMode: '', headers: {defaultMode: ''}}}").access_log.unwrap();
        assert_eq!(
            (log.fields.default_mode, log.fields.headers_default_mode),
            (FieldMode::Keep, FieldMode::Drop)
        );
    }
}
