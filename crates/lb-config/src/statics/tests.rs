//! What the sections of the static configuration mean together.

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
    assert_eq!(listens("entryPoints: {web: {address: ':1'}}\nping: {manualRouting: true}"), ["web=[::]:1"]);
    assert_eq!(listens("entryPoints: {web: {address: ':1'}}\nping: {entryPoint: web}"), ["web=[::]:1"]);
    assert_eq!(
        listens("entryPoints: {traefik: {address: ':9'}}\nmetrics: {prometheus: {}}"),
        ["traefik=[::]:9"]
    );
    assert_eq!(listens("entryPoints: {a: {address: '127.0.0.1:0'}, b: {address: '127.0.0.1:0'}}").len(), 2);
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
fn what_is_empty_or_zero_means_what_it_means_to_traefik() {
    let redirection = |priority: &str| {
        let to = format!("redirections: {{entryPoint: {{to: ':443'{priority}}}}}");
        let config = read(&format!("entryPoints: {{web: {{address: ':80', http: {{{to}}}}}}}"));
        config.entry_points[0].http.redirection.as_ref().unwrap().priority_with("HostRegexp(`^.+$`)")
    };
    assert_eq!(["", ", priority: 0", ", priority: -1"].map(redirection), [i64::MAX - 1, 18, -1]);
    let requests = |number: &str| {
        let text = format!(
            "entryPoints: {{web: {{address: ':80', transport: {{keepAliveMaxRequests: {number}}}}}}}"
        );
        crate::parse_static("vigie.yml", &text).unwrap().0.entry_points[0].keep_alive_max_requests
    };
    assert_eq!(["0", "-1", "7"].map(requests), [None, None, Some(7)]);
    let precedence = |text: &str| read(&format!("providers: {text}")).providers.precedence.len();
    assert_eq!(
        ["{}", "{precedence: []}", "{precedence: ''}", "{precedence: file}"]
            .map(|text| { precedence(&text.replace("{}", "{providersThrottleDuration: 1s}")) }),
        [17, 17, 17, 1]
    );
    let docker = |text: &str| {
        format!(
            "{:?}",
            read(&format!("providers: {{docker: {text}}}")).providers.docker.unwrap().containers.default_rule
        )
    };
    assert_eq!(docker("{defaultRule: ''}"), "RuleTemplate(\"\")");
    assert!(docker("{}").contains("normalize"));
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
    let empty = "underscoreHeadersStrategy: '', aliasHeadersStrategy: ''";
    assert_eq!(strategy(empty), strategy("maxHeaderBytes: 4096"));
    let both = "underscoreHeadersStrategy: reject, aliasHeadersStrategy: reject";
    assert_eq!(strategy(both), (AliasHeaders::Reject, false));
    assert_eq!(
        told(&http("underscoreHeadersStrategy: reject, aliasHeadersStrategy: keep")),
        ["entryPoints.web.http.underscoreHeadersStrategy: says something else than `aliasHeadersStrategy`"]
    );
}

#[test]
fn http3_wants_the_udp_port_for_itself() {
    let errors = |entry_points: &str| match crate::parse_static(
        "vigie.yml",
        &format!("entryPoints: {{{entry_points}}}"),
    ) {
        Ok(_) => String::new(),
        Err(problems) => problems.to_string(),
    };
    let (web, dns) = ("web: {address: ':443', http3: {}}", "dns: {address: ':443/udp'}");
    assert!(errors(&format!("{web}, {dns}")).contains("the entry point `web` has the same address"));
    let other = errors(&format!("{dns}, {web}"));
    assert!(other.contains("entryPoints.web: the entry point `dns` has the UDP port of `http3`"), "{other}");
    assert!(errors("dns: {address: ':443/udp', http3: {}}").contains("a UDP entry point has no HTTP"));
    assert_eq!(errors(&format!("{web}, dns: {{address: ':53/udp'}}")), "");
}

#[test]
fn http3_may_be_switched_on_in_every_way() {
    for (text, expected) in [
        ("{}", Some(None)),
        ("true", Some(None)),
        ("{advertisedPort: 443}", Some(Some(443))),
        ("{advertisedPort: 0}", Some(None)),
        ("false", None),
    ] {
        let config = read(&format!("entryPoints: {{web: {{address: ':1', http3: {text}}}}}"));
        let http3 = config.entry_points[0].http3.map(|http3| http3.advertised_port);
        assert_eq!(http3, expected, "{text}");
    }
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
         metrics: {prometheus: {buckets: '0.1, 2', addRoutersLabels: true, entryPoint: http, \
         headerLabels: {ua: User-Agent, host: X-Host}}}\n\
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
    let labels = [("host", "X-Host"), ("ua", "User-Agent")].map(|(label, name)| (label.into(), name.into()));
    assert_eq!(metrics.header_labels, labels);
    assert_eq!((config.core.workers, config.core.strict_tls_options), (Some(3), true));
    assert_eq!(config.core.upgrade_timeout, Duration::from_secs(5));
    assert_eq!(config.servers_transport.max_idle_conns_per_host, None);
    assert_eq!(config.servers_transport.dial_timeout, Some(Duration::from_secs(1)));
}

#[test]
fn blocks_are_switched_on_and_off_like_in_traefik() {
    assert!(read("api: true\naccessLog: {}\nlog: {}\nmetrics: {prometheus: true}").metrics.is_some());
    assert!(read("api: false\nmetrics: {prometheus: false}").api.is_none());
    for block in ["providers", "metrics", "core", "global", "serversTransport", "experimental", "entryPoints"]
    {
        let expected = format!("{block}: cannot be a standalone element: `{{}}` is empty");
        assert_eq!(told(&format!("{block}: {{}}")), [expected]);
    }
}

#[test]
fn what_is_not_built_is_never_ignored_in_silence() {
    for (text, expected) in [
        ("providers: {plugin: {}}", "providers.plugin: `plugin` is not supported yet"),
        ("experimental: {plugins: {a: {}}}", "experimental.plugins: `plugins` is not supported yet"),
        (
            "experimental: {http3: true}",
            "experimental.http3: Traefik v3 has no `experimental.http3` any more",
        ),
        ("accessLog: {otlp: {}}", "accessLog.otlp: `otlp` of a log is locked"),
        ("core: {defaultRuleSyntax: v1}", "core.defaultRuleSyntax: `v1` is not a known value"),
        (
            "experimental: {fastProxy: {}}",
            "~experimental.fastProxy: has no effect: Vigie has one proxy, and it is the fast one",
        ),
        ("log: {maxSize: 5}", "~log.maxSize: has no effect: rotate the file from outside (logrotate)"),
        ("http: {routers: {}}", "~http: belongs in the dynamic configuration and is ignored here"),
        ("pilot: {token: x}", "pilot: Traefik v3 has no `pilot` any more"),
    ] {
        assert_eq!(told(text), [expected], "{text}");
    }
    assert!(told("global: {checkNewVersion: false, sendAnonymousUsage: false}\nhostResolver: {}").is_empty());
    assert!(told("x-anchors: {a: b}\ncore: {defaultRuleSyntax: v3}").is_empty());
}

#[test]
fn aliases_are_asked_for_where_wanted() {
    let resolver =
        |text: &str| read(&format!("hostResolver: {text}")).host_resolver.map(|r| (r.resolv_config, r.depth));
    assert_eq!(resolver("{resolvDepth: 3}"), None);
    assert_eq!(resolver("{cnameFlattening: true, resolvDepth: 0}"), None);
    assert_eq!(resolver("{cnameFlattening: true}"), Some(("/etc/resolv.conf".into(), 5)));
    let text = "{cnameFlattening: true, resolvConfig: /x, resolvDepth: 2}";
    assert_eq!(resolver(text), Some(("/x".into(), 2)));
}

#[test]
fn what_is_open_to_strangers_is_told() {
    let of = |text: &str| {
        let (_, warnings) = parse_static("vigie.yml", text).unwrap_or_else(|problems| panic!("{problems}"));
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
        ("metrics: {prometheus: {buckets: [0.5, 0.1]}}", "metrics.prometheus.buckets[1]: buckets must rise"),
        ("api: {basePath: foo}", "api.basePath: `foo` is not a path"),
        ("core: {workers: 0}", "core.workers: 0 is out of range"),
        ("core: {upgradeTimeout: 0s}", "core.upgradeTimeout: must be longer than 0"),
        (
            "accessLog: {filters: {statusCodes: [abc]}}",
            "accessLog.filters.statusCodes[0]: `abc` is not a status",
        ),
        ("accessLog: {format: xml}", "~accessLog.format: `xml` is not a known value; `common` is used"),
        ("providers: {file: {watch: true}}", "providers.file: neither `filename` nor `directory` is given"),
        (
            "providers: {file: {filename: a, directory: b}}",
            "~providers.file: `directory` wins: `filename` is not read",
        ),
        ("providers: {precedence: [nginx]}", "providers.precedence[0]: no provider is called `nginx`"),
        (
            "entryPoints: {web: {address: ':80', proxyProtocol: {}}}",
            "entryPoints.web.proxyProtocol: nobody is trusted to send a PROXY header",
        ),
        (
            "entryPoints: {web: {address: ':80', proxyProtocol: {trustedIPs: []}}}",
            "entryPoints.web.proxyProtocol: nobody is trusted to send a PROXY header",
        ),
        ("core: {defaultRuleSyntax: ''}", "core.defaultRuleSyntax: `` is not a known value"),
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
    let log = read("accessLog: {fields: {defaultMode: '', headers: {defaultMode: ''}}}").access_log.unwrap();
    assert_eq!(
        (log.fields.default_mode, log.fields.headers_default_mode),
        (FieldMode::Keep, FieldMode::Drop)
    );
}

#[test]
fn labels_of_headers_have_names_of_their_own() {
    let told =
        told("metrics: {prometheus: {headerLabels: {a-b: X, code: Y, __c: Z, ok: 'a b', fine: User-Agent}}}");
    for expected in [
        "`a-b` cannot be the name of a label",
        "`code` cannot be the name of a label",
        "`__c` cannot be the name of a label",
        "`a b` is not the name of a header",
    ] {
        assert!(told.iter().any(|line| line.contains(expected)), "{expected}: {told:?}");
    }
    assert!(!told.iter().any(|line| line.contains("fine")), "{told:?}");
}
