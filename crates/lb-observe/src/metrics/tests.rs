use super::*;

struct Ids {
    entry_point: LabelId,
    router: LabelId,
    service: LabelId,
    server: LabelId,
}

fn metrics(settings: Settings) -> (Metrics, Ids) {
    let metrics = Metrics::new(settings, 2);
    let ids = Ids {
        entry_point: metrics.label(Kind::EntryPoint, "web"),
        router: metrics.label(Kind::Router, "app@file"),
        service: metrics.label(Kind::Service, "api@file"),
        server: metrics.label(Kind::Server, "http://10.0.0.1:80"),
    };
    (metrics, ids)
}

fn sample(ids: &Ids) -> Sample {
    Sample {
        entry_point: Some(ids.entry_point),
        router: Some(ids.router),
        service: Some(ids.service),
        reached_service: true,
        server: Some(ids.server),
        method: Method::Get,
        protocol: Protocol::Http,
        status: 200,
        grpc_status: None,
        tls: None,
        headers: None,
        duration: Duration::from_millis(200),
        service_duration: Duration::from_millis(90),
        request_bytes: 3,
        response_bytes: 1000,
    }
}

/// The lines about `name`, without comments.
fn shown(metrics: &Metrics, name: &str) -> Vec<String> {
    let text = metrics.render();
    text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
}

/// A line with its labels in the order of their names, `le` last, whatever the order they are written in.
fn in_order(line: &str) -> String {
    let Some((name, rest)) = line.split_once('{') else { return line.to_owned() };
    let (labels, value) = rest.rsplit_once('}').unwrap();
    let mut labels: Vec<_> =
        labels.split_inclusive('"').collect::<Vec<_>>().chunks(2).map(<[_]>::concat).collect();
    for label in &mut labels {
        *label = label.trim_start_matches(',').to_owned();
    }
    labels.sort_by_key(|label| (label.starts_with("le="), label.clone()));
    format!("{name}{{{}}}{value}", labels.join(","))
}

#[track_caller]
fn assert_shows(text: &str, lines: &[&str]) {
    for line in lines {
        let line = in_order(line);
        assert!(text.lines().any(|shown| shown == line), "no line `{line}` in\n{text}");
    }
}

#[test]
fn one_sample_feeds_every_level() {
    let (metrics, ids) = metrics(Settings { routers: true, ..Settings::default() });
    metrics.shard(0).record(&sample(&ids));
    metrics.shard(1).record(&sample(&ids));
    let text = metrics.render();
    let labels = r#"code="200",method="GET",protocol="http""#;
    let (entry_point, service) =
        (format!(r#"{labels},entrypoint="web""#), format!(r#"{labels},service="api@file""#));
    let router = format!(r#"{labels},router="app@file",service="api@file""#);
    for (level, labels, (in_100ms, sum)) in [
        ("entrypoint", &entry_point, (0, "0.4")),
        ("router", &router, (0, "0.4")),
        ("service", &service, (2, "0.18")),
    ] {
        let name = format!("traefik_{level}_request_duration_seconds");
        assert_shows(
            &text,
            &[
                &format!("traefik_{level}_requests_total{{{labels}}} 2"),
                &format!("traefik_{level}_requests_bytes_total{{{labels}}} 6"),
                &format!("traefik_{level}_responses_bytes_total{{{labels}}} 2000"),
                &format!("{name}_bucket{{{labels},le=\"0.1\"}} {in_100ms}"),
                &format!("{name}_bucket{{{labels},le=\"0.3\"}} 2"),
                &format!("{name}_bucket{{{labels},le=\"+Inf\"}} 2"),
                &format!("{name}_sum{{{labels}}} {sum}"),
                &format!("{name}_count{{{labels}}} 2"),
            ],
        );
    }
    let server = r#"instance="http://10.0.0.1:80",method="GET""#;
    assert_shows(
        &text,
        &[
            &format!(r#"lb_requests_total{{{server},status="200",path="app@file"}} 2"#),
            r#"request_distribution_total{instance="http://10.0.0.1:80"} 2"#,
            &format!(
                r#"request_duration_seconds_bucket{{{server},path="app@file",status="200",le="0.1"}} 0"#
            ),
            &format!(
                r#"request_duration_seconds_bucket{{{server},path="app@file",status="200",le="0.5"}} 2"#
            ),
            &format!(r#"request_duration_seconds_count{{{server},path="app@file",status="200"}} 2"#),
            &format!("lb_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
        ],
    );
    assert!(!text.contains("le=\"0.05\"} 0\ntraefik"), "each histogram shows its own buckets");
    let buckets = shown(&metrics, "traefik_entrypoint_request_duration_seconds_bucket").len();
    assert_eq!(buckets, 5, "Traefik's four and +Inf");
}

#[test]
fn levels_are_shown_as_the_settings_say() {
    for (settings, levels) in [
        (Settings::default(), [true, false, true]),
        (
            Settings { entry_points: false, routers: true, services: false, ..Settings::default() },
            [false, true, false],
        ),
    ] {
        let (metrics, ids) = metrics(settings);
        metrics.shard(0).record(&sample(&ids));
        let shows = ["traefik_entrypoint_r", "traefik_router_r", "traefik_service_r"]
            .map(|level| !shown(&metrics, level).is_empty());
        assert_eq!(shows, levels);
    }
}

#[test]
fn labels_stay_bounded() {
    let (metrics, ids) = metrics(Settings::default());
    let shard = metrics.shard(0);
    for method in ["BREW", "get", "x".repeat(1000).as_str(), "DELETE"] {
        shard.record(&Sample { method: Method::of(method), ..sample(&ids) });
    }
    for code in 0..=255 {
        shard.record(&Sample { protocol: Protocol::Grpc, grpc_status: Some(code), ..sample(&ids) });
    }
    let text = metrics.render();
    assert_shows(
        &text,
        &[
            r#"traefik_service_requests_total{code="200",method="EXTENSION_METHOD",protocol="http",service="api@file"} 3"#,
            r#"traefik_service_requests_total{code="200",method="DELETE",protocol="http",service="api@file"} 1"#,
            r#"traefik_service_requests_total{code="2",method="GET",protocol="grpc",service="api@file"} 240"#,
        ],
    );
    assert_eq!(shown(&metrics, "traefik_service_requests_total{").len(), 2 + 17);
}

#[test]
fn what_a_middleware_answers_counts_for_the_router_and_not_for_the_service() {
    let (metrics, ids) = metrics(Settings { routers: true, ..Settings::default() });
    metrics.shard(0).record(&Sample { reached_service: false, server: None, status: 302, ..sample(&ids) });
    metrics.shard(0).record(&sample(&ids));
    assert_eq!(shown(&metrics, "traefik_router_requests_total{").len(), 2);
    assert_eq!(shown(&metrics, "traefik_service_requests_total{").len(), 1);
}

#[test]
fn requests_without_a_router_count_for_the_entry_point_only() {
    let (metrics, ids) = metrics(Settings { routers: true, ..Settings::default() });
    metrics.shard(0).record(&Sample {
        router: None,
        service: None,
        server: None,
        status: 404,
        ..sample(&ids)
    });
    let text = metrics.render();
    assert_shows(
        &text,
        &[r#"traefik_entrypoint_requests_total{code="404",method="GET",protocol="http",entrypoint="web"} 1"#],
    );
    for name in ["traefik_router_", "traefik_service_", "lb_requests_total", "request_d"] {
        assert!(shown(&metrics, name).is_empty(), "{name}");
    }
}

#[test]
fn tls_is_counted_by_version_and_cipher() {
    let (metrics, ids) = metrics(Settings::default());
    let tls = metrics.tls("1.3", "TLS_AES_128_GCM_SHA256");
    metrics.shard(0).record(&Sample { tls: Some(tls), ..sample(&ids) });
    metrics.shard(0).record(&sample(&ids));
    assert_eq!(
        shown(&metrics, "traefik_entrypoint_requests_tls_total"),
        [concat!(
            r#"traefik_entrypoint_requests_tls_total{entrypoint="web",tls_cipher="TLS_AES_128_GCM_SHA256","#,
            r#"tls_version="1.3"} 1"#
        )]
    );
    assert_shows(
        &metrics.render(),
        &[r#"traefik_entrypoint_requests_total{code="200",method="GET",protocol="http",entrypoint="web"} 2"#],
    );
}

#[test]
fn what_left_the_configuration_is_shown_once_more_and_lost_to_no_sum() {
    let (metrics, ids) = metrics(Settings { routers: true, ..Settings::default() });
    let shard = metrics.shard(0);
    let breaker = metrics.label(Kind::Middleware, "cb@file");
    let second = metrics.label(Kind::Server, "http://10.0.0.2:80");
    shard.record(&sample(&ids));
    shard.record(&Sample { server: Some(second), ..sample(&ids) });
    metrics.retried(ids.service);
    metrics.breaker_changed(breaker, BreakerState::Open);
    metrics.probed("http", second, true, Duration::from_millis(3));
    metrics.retain(&HashSet::from([ids.service, ids.server]));

    let entry_point =
        r#"traefik_entrypoint_requests_total{code="200",method="GET",protocol="http",entrypoint="web"} 2"#;
    let service =
        r#"traefik_service_requests_total{code="200",method="GET",protocol="http",service="api@file"} 2"#;
    let alive = r#"request_distribution_total{instance="http://10.0.0.1:80"} 1"#;
    let gone = ["10.0.0.2", "app@file", "cb@file"];
    for shows_gone in [true, false, false] {
        let text = metrics.render();
        assert_shows(&text, &[entry_point, service, alive, r#"lb_retries_total{service="api@file"} 1"#]);
        assert_eq!(gone.map(|label| text.contains(label)), [shows_gone; 3], "{text}");
    }
    // A request that began before the reload ends under the old labels.
    shard.record(&Sample { server: Some(second), ..sample(&ids) });
    metrics.render();
    let text = metrics.render();
    assert_shows(&text, &[&entry_point.replace("} 2", "} 3"), alive]);
    assert!(!text.contains("10.0.0.2"));
}

/// Connections and waiting requests outlive the service that a reload removes.
#[test]
fn what_goes_on_is_shown_until_it_ends() {
    let (metrics, _) = metrics(Settings::default());
    let gone = metrics.label(Kind::Service, "gone@file");
    let tcp = metrics.tcp(gone);
    let (open, queued) = (tcp.open(), metrics.queued(gone));
    let connection = metrics.shard(0).connection(gone);
    metrics.retain(&HashSet::new());
    let lines = ["lb_tcp_open_connections", "lb_queue_length", "lb_upstream_connections"]
        .map(|name| format!("{name}{{service=\"gone@file\"}} 1"));
    for _ in 0..3 {
        assert_shows(&metrics.render(), &lines.each_ref().map(String::as_str));
    }
    drop((open, queued, connection));
    metrics.render();
    assert!(!metrics.render().contains("gone@file"));
}

/// A service made of others has another name after each reload, the one that answers has not.
#[test]
fn renamed_wholes_leave_their_parts_what_was_counted() {
    let (metrics, ids) = metrics(Settings { routers: true, ..Settings::default() });
    let shard = metrics.shard(0);
    let mut live = HashSet::from([ids.service, ids.server, ids.router]);
    for round in 0..10 {
        let whole = metrics.label(Kind::Service, &format!("whole{round}@file"));
        let via = metrics.via(whole, ids.service);
        live.insert(whole);
        metrics.retain(&live);
        live.remove(&whole);
        shard.record(&Sample { service: Some(via), ..sample(&ids) });
    }
    assert_eq!(shard.rows(), 3, "the last two, and one for all before");
    let service =
        r#"traefik_service_requests_total{code="200",method="GET",protocol="http",service="api@file"} 10"#;
    for last in [true, false] {
        let text = metrics.render();
        assert_shows(&text, &[service]);
        assert_eq!(text.contains(r#"service="whole8@file""#), last, "{text}");
        assert!(text.contains(r#"service="whole9@file""#) && !text.contains("whole7"), "{text}");
    }
    assert_eq!(shard.rows(), 2);
}

/// Nobody scrapes, and each configuration has other names than the one before.
#[test]
fn what_left_the_configuration_takes_no_room() {
    let (metrics, ids) = metrics(Settings::default());
    let shard = metrics.shard(0);
    for round in 0..10 {
        let [service, server] = [(Kind::Service, "s"), (Kind::Server, "http://s")]
            .map(|(kind, text)| metrics.label(kind, &format!("{text}{round}")));
        metrics.retain(&HashSet::from([service, server]));
        shard.record(&Sample { router: None, service: Some(service), server: Some(server), ..sample(&ids) });
        metrics.retried(service);
        metrics.probed("http", server, true, Duration::from_millis(3));
    }
    // The last two, and one for all before.
    assert_eq!(shard.rows(), 3);
    assert_eq!((metrics.inner.retries.len(), metrics.inner.probes.lock().len()), (2, 2));
    let sum =
        r#"traefik_entrypoint_requests_total{code="200",method="GET",protocol="http",entrypoint="web"} 10"#;
    assert_shows(&metrics.render(), &[sum]);
    assert_shows(&metrics.render(), &[sum]);
}

#[test]
fn servers_are_read_when_scraped() {
    let (metrics, _) = metrics(Settings::default());
    metrics.set_servers(|| {
        let server = |service: &str, url: &str, in_flight, status, checked| ServerGauge {
            service: service.into(),
            url: url.into(),
            in_flight,
            status,
            admin_state: if url == "http://two" { AdminState::Drain } else { AdminState::Ready },
            checked,
        };
        vec![
            server("a@file", "http://one", 2, Status::Healthy, true),
            server("a@file", "http://two", 1, Status::Unhealthy, true),
            server("b@file", "http://one", 5, Status::Degraded, false),
        ]
    });
    assert_shows(
        &metrics.render(),
        &[
            r#"active_connections{instance="http://one"} 7"#,
            r#"instance_health{instance="http://one"} 0.5"#,
            r#"instance_health{instance="http://two"} 0"#,
            r#"lb_server_admin_state{service="a@file",url="http://one"} 0"#,
            r#"lb_server_admin_state{service="a@file",url="http://two"} 1"#,
            r#"traefik_service_server_up{service="a@file",url="http://one"} 1"#,
            r#"traefik_service_server_up{service="a@file",url="http://two"} 0"#,
        ],
    );
    assert_eq!(shown(&metrics, "traefik_service_server_up").len(), 2, "b@file is not checked");
}

#[test]
fn services_are_read_when_scraped() {
    let (metrics, ids) = metrics(Settings::default());
    metrics.set_services(|| {
        let service = |name: &str, ejected, slow_starting, panics| ServiceGauge {
            service: name.into(),
            ejected,
            slow_starting,
            panics,
        };
        vec![service("a@file", Some(2), None, Some(true)), service("b@file", None, Some(1), Some(false))]
    });
    metrics.ejected(ids.service, "consecutive_5xx");
    metrics.ejection_overflowed(ids.service);
    assert_shows(
        &metrics.render(),
        &[
            r#"lb_ejected_servers{service="a@file"} 2"#,
            r#"lb_slow_start_servers{service="b@file"} 1"#,
            r#"lb_panic_mode{service="a@file"} 1"#,
            r#"lb_panic_mode{service="b@file"} 0"#,
            r#"lb_ejections_total{service="api@file",reason="consecutive_5xx"} 1"#,
            r#"lb_ejections_overflow_total{service="api@file"} 1"#,
        ],
    );
    assert_eq!(shown(&metrics, "lb_ejected_servers").len(), 1, "b@file ejects nobody");
}

#[test]
fn connections_are_counted_until_dropped() {
    let (metrics, ids) = metrics(Settings::default());
    let opened = metrics.shard(0).connection(ids.entry_point);
    let handed_over = metrics.shard(1).connection(ids.entry_point);
    let upstream = metrics.shard(0).connection(ids.service);
    let gauges = || {
        [
            shown(&metrics, r#"traefik_open_connections{entrypoint="web",protocol="TCP"}"#).concat(),
            shown(&metrics, r#"lb_upstream_connections{service="api@file"}"#).concat(),
        ]
        .map(|line| line.chars().last())
    };
    assert_eq!(gauges(), [Some('2'), Some('1')]);
    drop((opened, upstream));
    assert_eq!(gauges(), [Some('1'), Some('0')]);
    drop(handed_over);
}

#[test]
fn rare_events_are_counted() {
    let (metrics, ids) = metrics(Settings::default());
    let at = UNIX_EPOCH + Duration::from_secs(1000);
    let limit = metrics.label(Kind::Middleware, "limit@file");
    metrics.alias_asked(ids.entry_point, "none");
    metrics.refused(ids.entry_point, "framing");
    metrics.refused(ids.entry_point, "framing");
    metrics.upstream_error(ids.service, "connect");
    metrics.retry_refused(ids.service);
    metrics.queue(ids.service);
    let [waiting, served] = [metrics.queued(ids.service), metrics.queued(ids.service)];
    drop(served);
    metrics.queue_refused(ids.service, "full");
    metrics.rate_limited(limit);
    metrics.removed_closed(3);
    metrics.handed_over();
    metrics.breaker(limit, BreakerState::Closed);
    metrics.breaker_changed(limit, BreakerState::HalfOpen);
    metrics.probed("http", ids.server, true, Duration::from_millis(30));
    metrics.probed("http", ids.server, false, Duration::from_secs(9));
    metrics.reloaded(at);
    metrics.reload_failed(at + Duration::from_secs(5));
    metrics.follow_log(Arc::new(AtomicU64::new(3)));
    metrics.set_quarantined(vec![("router", 2), ("file", 0)]);
    metrics.set_disabled(vec![("router", 3)]);
    metrics.set_stale_providers(vec![("docker".to_owned(), true), ("file".to_owned(), false)]);
    metrics.upgraded(6, 2);
    metrics.upgrade_failed();
    metrics.access_log_dropped().fetch_add(4, Ordering::Relaxed);
    let certificate = Certificate {
        common_name: "a.test".into(),
        serial: "7".into(),
        sans: "a.test,b.test".into(),
        not_after: at,
    };
    metrics.set_certificates(vec![certificate.clone(), certificate]);
    let text = metrics.render();
    let probe = r#"check_type="http",instance="http://10.0.0.1:80""#;
    assert_shows(
        &text,
        &[
            r#"lb_refused_requests_total{entrypoint="web",reason="framing"} 2"#,
            r#"lb_alias_lookups_total{entrypoint="web",result="none"} 1"#,
            r#"lb_upstream_errors_total{service="api@file",reason="connect"} 1"#,
            r#"lb_retries_refused_total{service="api@file"} 1"#,
            r#"lb_queue_length{service="api@file"} 1"#,
            r#"lb_queue_refused_total{reason="full",service="api@file"} 1"#,
            "lb_removed_server_closed_total 3",
            r#"lb_rate_limited_total{middleware="limit@file"} 1"#,
            r#"lb_circuit_breaker_state{middleware="limit@file"} 1"#,
            r#"lb_circuit_breaker_transitions_total{middleware="limit@file",to="half-open"} 1"#,
            &format!("health_check_total{{{probe}}} 2"),
            &format!("health_check_failures_total{{{probe}}} 1"),
            &format!("health_check_duration_seconds_bucket{{{probe},le=\"0.01\"}} 0"),
            &format!("health_check_duration_seconds_bucket{{{probe},le=\"0.05\"}} 1"),
            &format!("health_check_duration_seconds_bucket{{{probe},le=\"5\"}} 1"),
            &format!("health_check_duration_seconds_bucket{{{probe},le=\"+Inf\"}} 2"),
            "traefik_config_reloads_total 1",
            "traefik_config_last_reload_success 1000",
            "lb_config_quarantined_objects{kind=\"router\"} 2",
            "lb_config_quarantined_objects{kind=\"file\"} 0",
            "lb_config_disabled_objects{kind=\"router\"} 3",
            "lb_provider_stale{provider=\"docker\"} 1",
            "lb_provider_stale{provider=\"file\"} 0",
            "lb_config_reload_failures_total 1",
            "lb_config_last_reload_failure 1005",
            "lb_upgrades_total 7",
            "lb_upgrade_failures_total 3",
            "lb_access_log_dropped_lines_total 4",
            "lb_log_dropped_lines_total 3",
            r#"traefik_tls_certs_not_after{cn="a.test",serial="7",sans="a.test,b.test"} 1000"#,
        ],
    );
    drop(waiting);
    assert_eq!(shown(&metrics, "lb_queue_length"), [r#"lb_queue_length{service="api@file"} 0"#]);
    for name in [
        "process_cpu_seconds_total ",
        "process_resident_memory_bytes ",
        "process_open_fds ",
        "process_start_time_seconds ",
    ] {
        assert_eq!(shown(&metrics, name).len(), 1, "{name}");
    }
}

#[test]
fn requests_are_told_apart_by_headers_where_that_is_wanted() {
    let wanted =
        [("agent", "User-Agent"), ("who", "X-Who")].map(|(label, header)| (label.into(), header.into()));
    let (metrics, ids) = metrics(Settings { header_labels: wanted.into(), ..Settings::default() });
    let curl = metrics.headers(|name| (name == "User-Agent").then_some(&b"curl"[..]));
    for headers in [curl, curl, None] {
        metrics.shard(0).record(&Sample { headers, ..sample(&ids) });
    }
    let mut lines: Vec<_> =
        shown(&metrics, "traefik_service_requests_total").iter().map(|line| in_order(line)).collect();
    lines.sort();
    let line = |agent: &str, count: u8| {
        format!(
            "traefik_service_requests_total{{agent=\"{agent}\",code=\"200\",method=\"GET\",protocol=\"http\",\
             service=\"api@file\",who=\"\"}} {count}"
        )
    };
    assert_eq!(lines, [line("", 1), line("curl", 2)]);
    let bytes = shown(&metrics, "traefik_service_requests_bytes_total");
    assert!(bytes.len() == 1 && bytes[0].ends_with(" 9") && !bytes[0].contains("agent"), "{bytes:?}");

    // Clients choose the values, but not how many there are.
    for number in 0..2_000 {
        let long = format!("{number:0300}");
        let value = if number % 2 == 0 { long } else { number.to_string() };
        let headers = metrics.headers(|_| Some(value.as_bytes()));
        metrics.shard(0).record(&Sample { headers, ..sample(&ids) });
    }
    let lines = shown(&metrics, "traefik_service_requests_total");
    assert!((900..=1_002).contains(&lines.len()), "{}", lines.len());
    assert!(lines.iter().any(|line| line.contains("agent=\"other\"")));
    assert!(lines.iter().all(|line| line.len() < 2 * 256 + 150));
    let off = Metrics::new(Settings::default(), 1);
    assert_eq!(off.headers(|_| Some(b"x")), None);
}
