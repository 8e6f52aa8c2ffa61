//! Spans of what is between a router and its service, where `traceVerbosity: detailed` asks for them. Compared with what
//! Traefik 3.7.15 sends for the same configuration.

use lb_testkit::{Origin, Script, reserve_address};

use super::collector::Collector;
use super::traces::{shape, tracing};
use crate::harness::{Protocol, Vigie};

const DYNAMIC: &str = "
http:
  routers:
    all: {rule: PathPrefix(`/all`), service: app, middlewares: [chain, gzip, again, page, add]}
    denied: {rule: PathPrefix(`/denied`), service: app, middlewares: [set, enc, nobody, add]}
    short: {rule: PathPrefix(`/short`), service: app, middlewares: [set], observability: {traceVerbosity: minimal}}
    parent: {rule: PathPrefix(`/parent`), middlewares: [set]}
    child: {rule: PathPrefix(`/parent/child`), service: app, parentRefs: [parent], middlewares: [add]}
  middlewares:
    chain: {chain: {middlewares: [set, few]}}
    set: {headers: {customRequestHeaders: {X-A: b}}}
    enc: {encodedCharacters: {allowEncodedSlash: true}}
    few: {inFlightReq: {amount: 100}}
    gzip: {compress: {}}
    again: {retry: {attempts: 2, status: ['500'], initialInterval: 1ms}}
    page: {errors: {status: ['500'], service: pages, query: '/page'}}
    add: {addPrefix: {prefix: /p}}
    nobody: {ipAllowList: {sourceRange: [192.0.2.0/24]}}
  services:
    app: {loadBalancer: {servers: [{url: APP}]}}
    pages: {loadBalancer: {servers: [{url: PAGES}]}}
";

#[tokio::test]
async fn every_middleware_has_a_span_around_what_is_behind_it() {
    let collector = Collector::http().await;
    let server = Origin::with("app", |_| Script::status(500)).await;
    let pages = Origin::start("pages").await;
    let text = tracing(&collector, "").replace("web: {", "web: {observability: {traceVerbosity: detailed}, ");
    let dynamic = DYNAMIC.replace("APP", &server.url()).replace("PAGES", &pages.url());
    let vigie = Vigie::with(&text, &dynamic).await;
    for (path, status) in
        [("/all", 500), ("/denied", 403), ("/short", 500), ("/parent/child", 500), ("/parent/x", 404)]
    {
        assert_eq!(Protocol::Http1.get(vigie.web(), path).await.status, status, "{path}");
    }
    let first = [
        "GET server in - failed",
        "Router internal in GET",
        "Headers internal in Router",
        "InFlightReq internal in Headers",
        "Compress internal in InFlightReq",
    ];
    let each = [
        "Retry internal in Compress",
        "CustomError internal in Retry",
        "AddPrefix internal in CustomError",
        "Service internal in AddPrefix",
        "ReverseProxy client in Service failed",
        // The page is asked for beside what has failed.
        "Service internal in CustomError",
        "ReverseProxy client in Service",
    ];
    let spans = collector.spans("/all", 19).await;
    assert_eq!(shape(&spans), [&first[..], &each, &each].concat());
    let names = spans.iter().filter_map(|seen| seen.attributes.get("traefik.middleware.name"));
    let expected = ["set", "few", "gzip", "again", "page", "add", "again", "page", "add"];
    assert_eq!(names.collect::<Vec<_>>(), expected.map(|name| format!("{name}@file")).each_ref());

    let denied = collector.spans("/denied", 5).await;
    let expected = [
        "GET server in -",
        "Router internal in GET",
        "Headers internal in Router",
        "EncodedCharacters internal in Headers",
        "IPAllowLister internal in EncodedCharacters failed",
    ];
    assert_eq!(shape(&denied), expected);
    let reason = denied[4].span.status.as_ref().map(|status| status.message.clone());
    assert_eq!(reason.as_deref(), Some("Rejecting IP: it matched none of the trusted IPs"));

    assert_eq!(collector.spans("/short", 2).await.len(), 2);

    let child = collector.spans("/parent/child", 7).await;
    let expected = [
        "GET server in - failed",
        "Router internal in GET",
        "Headers internal in Router",
        "Router internal in Headers",
        "AddPrefix internal in Router",
        "Service internal in AddPrefix",
        "ReverseProxy client in Service failed",
    ];
    assert_eq!(shape(&child), expected);
    let routers = [1, 3].map(|at: usize| {
        let of = &child[at].attributes;
        ["traefik.router.name", "traefik.service.name", "http.route"].map(|key| of[key].clone())
    });
    assert_eq!(
        routers,
        [
            ["parent@file", "parent@file-muxer", "PathPrefix(`/parent`)"],
            ["child@file", "app@file", "PathPrefix(`/parent/child`)"],
        ]
    );
    let astray = collector.spans("/parent/x", 3).await;
    assert_eq!(shape(&astray), ["GET server in -", "Router internal in GET", "Headers internal in Router"]);
}

/// That of `forwardAuth` has failed where its server gives no usable answer, not where the server says no.
#[tokio::test]
async fn an_auth_server_that_cannot_be_asked_is_a_failure() {
    let collector = Collector::http().await;
    let server = Origin::with("app", |request| match request.path() {
        "/no" => Script::status(403),
        _ => Script::text("a long answer"),
    })
    .await;
    let text = tracing(&collector, "").replace("web: {", "web: {observability: {traceVerbosity: detailed}, ");
    let dynamic = format!(
        "http:
  routers:
    gone: {{rule: Path(`/gone`), service: app, middlewares: [gone]}}
    large: {{rule: Path(`/large`), service: app, middlewares: [large]}}
    no: {{rule: Path(`/no`), service: app, middlewares: [no]}}
  middlewares:
    gone: {{forwardAuth: {{address: 'http://{}'}}}}
    large: {{forwardAuth: {{address: '{1}/', maxResponseBodySize: 1}}}}
    no: {{forwardAuth: {{address: '{1}/no'}}}}
  services: {{app: {{loadBalancer: {{servers: [{{url: '{1}'}}]}}}}}}
",
        reserve_address(),
        server.url()
    );
    let vigie = Vigie::with(&text, &dynamic).await;
    for (path, status, failed) in [
        ("/gone", 500, [" failed", " failed", " failed"]),
        ("/large", 401, ["", " failed", ""]),
        ("/no", 403, ["", "", " failed"]),
    ] {
        assert_eq!(Protocol::Http1.get(vigie.web(), path).await.status, status, "{path}");
        let [request, auth, asked] = failed;
        let expected = [
            format!("GET server in -{request}"),
            "Router internal in GET".to_owned(),
            format!("ForwardAuth internal in Router{auth}"),
            format!("AuthRequest client in ForwardAuth{asked}"),
        ];
        assert_eq!(shape(&collector.spans(path, 4).await), expected, "{path}");
    }
}

#[tokio::test]
async fn mirrors_are_part_of_the_trace() {
    let collector = Collector::http().await;
    let (server, mirror) = (Origin::start("app").await, Origin::start("mirror").await);
    let text = tracing(&collector, "").replace("web: {", "web: {observability: {traceVerbosity: detailed}, ");
    let dynamic = format!(
        "http:
  routers: {{all: {{rule: PathPrefix(`/`), service: both}}}}
  services:
    both: {{mirroring: {{service: app, mirrors: [{{name: copy, percent: 100}}]}}}}
    app: {{loadBalancer: {{servers: [{{url: {}}}]}}}}
    copy: {{loadBalancer: {{servers: [{{url: {}}}]}}}}
",
        server.url(),
        mirror.url()
    );
    let vigie = Vigie::with(&text, &dynamic).await;
    assert_eq!(Protocol::Http1.get(vigie.web(), "/a").await.status, 200);
    let spans = collector.spans("/a", 6).await;
    let expected = [
        "GET server in -",
        "Router internal in GET",
        "Service internal in Router",
        "ReverseProxy client in Service",
    ];
    assert_eq!(shape(&spans)[..4], expected);
    assert_eq!(shape(&spans)[4..], expected[2..]);
    assert_eq!(spans[4].attributes["traefik.service.name"], "copy@file");
    for (origin, span) in [(server, &spans[3]), (mirror, &spans[5])] {
        let traceparent = format!("00-{}-{}-01", span.trace(), span.id());
        assert_eq!(origin.last().get("traceparent"), Some(traceparent.as_str()));
        assert_eq!(span.span.flags, 0x101);
    }
}
