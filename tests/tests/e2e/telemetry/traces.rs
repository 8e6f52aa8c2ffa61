//! Spans and what they say, compared with what Traefik 3.7.15 sends for the same requests.

use lb_testkit::{Client, Origin, Script, reserve_address};
use rustix::process::Signal;

use super::collector::Collector;
use crate::harness::{HOST, Protocol, STATIC, Vigie, app, app_with};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

pub(super) fn tracing(collector: &Collector, more: &str) -> String {
    format!("{STATIC}\ntracing: {{{more}{}}}\n", collector.otlp(""))
}

/// `GET <server span> ReverseProxy`: names, kinds and parents at a glance.
pub(super) fn shape(spans: &[super::collector::Seen]) -> Vec<String> {
    let of =
        |id: &[u8]| spans.iter().find(|seen| seen.span.span_id == id).map(|seen| seen.span.name.as_str());
    let line = |seen: &super::collector::Seen| {
        let kind = ["", "internal", "server", "client"][seen.span.kind as usize];
        let parent = of(&seen.span.parent_span_id).unwrap_or("-");
        format!("{} {kind} in {parent}{}", seen.span.name, if seen.failed() { " failed" } else { "" })
    };
    spans.iter().map(line).collect()
}

#[tokio::test]
async fn a_request_has_the_spans_that_traefik_sends() {
    for collector in [Collector::http().await, Collector::grpc().await] {
        let server = Origin::with("api", |_| {
            Script::answer(200, &[("X-Answer", "yes"), ("X-Answer", "two")], "hello")
        })
        .await;
        let keys = "serviceName: shop, resourceAttributes: {team.name: blue}, safeQueryParams: [page], \
                    capturedRequestHeaders: [X-Want, User-Agent], capturedResponseHeaders: [X-Answer], ";
        let text = tracing(&collector, keys) + "accessLog: {format: json, filePath: '{dir}/access.log'}\n";
        let text = text.replace("otlp: {http: {", "otlp: {http: {headers: {X-Key: abc}, ");
        let vigie = Vigie::with(&text, &app("", &[server.url()])).await;
        for (protocol, version, size) in [(Protocol::Http1, "1.1", "5"), (Protocol::Http2, "2", "-1")] {
            let path = format!("/a%20b/{version}?page=2&secret=x&page=3");
            let fields = [("X-Want", "a"), ("X-Want", "b"), ("User-Agent", "ua/1")];
            protocol.connect(vigie.web()).await.request("POST", &path, &fields, Some(b"12345")).await;
            let spans = collector.spans(&format!("/a b/{version}"), 2).await;
            assert_eq!(shape(&spans), ["POST server in -", "ReverseProxy client in POST"]);
            let [root, client] = [&spans[0], &spans[1]];
            let port = server.address().port().to_string();
            let peer = root.attributes["client.port"].clone();
            let url = format!("{}/a%20b/{version}?page=2&page=3&secret=REDACTED", server.url());
            let expected = |pairs: &[(&str, &str)]| {
                pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
            };
            assert_eq!(
                root.attributes,
                expected(&[
                    ("client.address", "127.0.0.1"),
                    ("client.port", &peer),
                    ("entry_point", "web"),
                    ("http.request.body.size", size),
                    ("http.request.header.x-want", "a,b"),
                    ("http.request.method", "POST"),
                    ("http.response.header.x-answer", "yes,two"),
                    ("http.response.status_code", "200"),
                    ("network.peer.address", "127.0.0.1"),
                    ("network.peer.port", &peer),
                    ("network.protocol.version", version),
                    ("server.address", HOST),
                    ("url.path", &format!("/a b/{version}")),
                    ("url.query", "page=2&page=3&secret=REDACTED"),
                    ("url.scheme", "http"),
                    ("user_agent.original", "ua/1"),
                ])
            );
            assert_eq!(
                client.attributes,
                expected(&[
                    ("http.request.header.x-want", "a,b"),
                    ("http.request.method", "POST"),
                    ("http.response.header.x-answer", "yes,two"),
                    ("http.response.status_code", "200"),
                    ("network.peer.address", "127.0.0.1"),
                    ("network.peer.port", &port),
                    ("network.protocol.version", "1.1"),
                    ("server.address", "127.0.0.1"),
                    ("server.port", &port),
                    ("url.full", &url),
                    ("url.scheme", "http"),
                    ("user_agent.original", "ua/1"),
                ])
            );
            assert_eq!((root.span.flags, client.span.flags), (0x101, 0x101));
            assert!(root.span.start_time_unix_nano <= client.span.start_time_unix_nano);
            assert!(client.span.end_time_unix_nano <= root.span.end_time_unix_nano);
            assert_eq!((&*root.resource["service.name"], &*root.resource["team.name"]), ("shop", "blue"));
            let told = server.last();
            let traceparent = format!("00-{}-{}-01", root.trace(), client.id());
            assert_eq!(told.get("traceparent"), Some(traceparent.as_str()));
            let line = format!("\"SpanId\":\"{}\"", root.id());
            let log = vigie.files.path().join("access.log");
            let logged = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(lb_testkit::eventually(lb_testkit::PATIENCE, async || logged().contains(&line)).await);
            assert!(logged().contains(&format!("\"trace_id\":\"{}\"", root.trace())), "{}", logged());
        }
        let asked = &collector.requests()[0];
        match collector {
            Collector::Http(_) => {
                assert_eq!(asked.get("content-type"), Some("application/x-protobuf"));
                assert_eq!(asked.get("x-key"), Some("abc"));
            }
            Collector::Grpc(_) => assert_eq!(asked.get("content-type"), Some("application/grpc")),
        }
        vigie.until_metric("lb_telemetry_sent_total", &[("signal", "traces")], 4.0).await;
    }
}

#[tokio::test]
async fn a_trace_goes_on_as_its_caller_wants() {
    let collector = Collector::http().await;
    let server = Origin::start("api").await;
    let vigie = Vigie::with(&tracing(&collector, "sampleRate: 0, "), &app("", &[server.url()])).await;
    let told = async |path: &str, fields: &[(&str, &str)]| {
        Protocol::Http1.connect(vigie.web()).await.request("GET", path, fields, None).await;
        let last = server.last();
        ["traceparent", "tracestate", "baggage"].map(|name| last.get(name).unwrap_or_default().to_owned())
    };
    let (followed, ignored) = (format!("{PARENT}-01"), format!("{PARENT}-00"));
    let fields = [("traceparent", followed.as_str()), ("tracestate", "a=b,c=d"), ("baggage", "user=alice")];
    let [parent, state, baggage] = told("/followed", &fields).await;
    let spans = collector.spans("/followed", 2).await;
    assert_eq!(parent, format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", spans[1].id()));
    assert_eq!((&*state, &*baggage), ("a=b,c=d", "user=alice"));
    assert_eq!(spans[0].span.trace_state, "a=b,c=d");
    assert_eq!(spans[0].span.flags, 0x301);
    assert_eq!(spans[0].span.parent_span_id, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
    // W3C Trace Context section 3.3.1: a list may come in several lines.
    let fields = [("traceparent", followed.as_str()), ("tracestate", "a=b"), ("tracestate", "c=d")];
    let [_, state, _] = told("/followed/twice", &fields).await;
    assert_eq!(state, "a=b,c=d");
    // What is not followed has no spans, but servers learn that it is not, and may say where they belong.
    let [parent, ..] = told("/ignored", &[("traceparent", &ignored)]).await;
    assert!(
        parent.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && parent.ends_with("-00"),
        "{parent}"
    );
    assert_ne!(parent, ignored);
    let [parent, state, _] = told("/new", &[("traceparent", "nonsense"), ("tracestate", "a=b")]).await;
    assert!(parent.ends_with("-00") && state.is_empty(), "{parent} {state}");
    told("/followed/last", &[("traceparent", &followed)]).await;
    let all = eventually_all(&collector, "/followed/last").await;
    assert!(!all.iter().any(|path| ["/ignored", "/new"].contains(&path.as_str())), "{all:?}");
}

/// The paths of all spans, when that of `last` is there.
async fn eventually_all(collector: &Collector, last: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let found = lb_testkit::eventually(lb_testkit::PATIENCE, async || {
        paths =
            collector.traces().iter().filter_map(|seen| seen.attributes.get("url.path").cloned()).collect();
        paths.iter().any(|path| path == last)
    });
    assert!(found.await, "no {last} in {paths:?}");
    paths
}

#[tokio::test]
async fn every_server_that_is_asked_has_a_span() {
    let collector = Collector::http().await;
    let server = Origin::with("api", |_| Script::status(404)).await;
    let dead = format!("http://{}", reserve_address());
    let vigie = Vigie::with(&tracing(&collector, ""), &app("", &[server.url(), dead.clone()])).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    // In turn, so that one of two requests meets the dead one first.
    for path in ["/0", "/1"] {
        client.request("GET", HOST, path, &[], None).await.unwrap();
    }
    let mut shapes = Vec::new();
    for path in ["/0", "/1"] {
        let count = |seen: &[super::collector::Seen]| {
            seen.iter().filter(|seen| seen.attributes.get("url.path").is_some_and(|p| p == path)).count()
        };
        let arrived = lb_testkit::eventually(lb_testkit::PATIENCE, async || count(&collector.traces()) == 1);
        assert!(arrived.await);
        let trace = collector
            .traces()
            .into_iter()
            .find(|seen| seen.attributes.get("url.path").is_some_and(|p| p == path))
            .unwrap()
            .trace();
        let spans =
            collector.traces().into_iter().filter(|seen| seen.trace() == trace && seen.span.kind == 3);
        let statuses: Vec<_> =
            spans.map(|seen| (seen.attributes["http.response.status_code"].clone(), seen.failed())).collect();
        shapes.push(statuses);
    }
    shapes.sort();
    let failed = |status: &str| (status.to_owned(), true);
    assert_eq!(shapes, [vec![failed("404")], vec![failed("502"), failed("404")]]);
    vigie.write(&app("", &[dead]));
    let is_dead = lb_testkit::eventually(lb_testkit::PATIENCE, async || {
        Protocol::Http1.get(vigie.web(), "/").await.status == 502
    });
    assert!(is_dead.await);
    Protocol::Http1.get(vigie.web(), "/dead").await;
    let spans = collector.spans("/dead", 2).await;
    assert_eq!(shape(&spans), ["GET server in - failed", "ReverseProxy client in GET failed"]);
}

#[tokio::test]
async fn entry_points_and_routers_say_what_is_traced() {
    let collector = Collector::http().await;
    let server = Origin::start("api").await;
    let text = tracing(&collector, "").replace(
        "  traefik:",
        "  off: {address: '127.0.0.1:0', observability: {tracing: false}}\n  \
         much: {address: '127.0.0.1:0', observability: {traceVerbosity: detailed}}\n  traefik:",
    );
    let dynamic = app_with("middlewares: [again]", "", &[server.url()])
        .replace("  services:", "    quiet: {rule: PathPrefix(`/quiet`), service: app, observability: {tracing: false}}\n    loud: {rule: PathPrefix(`/loud`), service: app, entryPoints: [off], observability: {tracing: true}}\n  middlewares: {again: {retry: {attempts: 2, status: ['500-599'], initialInterval: 1ms}}}\n  services:");
    let vigie = Vigie::with(&text, &dynamic).await;
    server.on("/broken", Script::status(500));
    let ask = async |entry: &str, path: &str| Protocol::Http1.get(vigie.address(entry), path).await.status;
    assert_eq!(ask("web", "/quiet/a").await, 200);
    assert_eq!(server.last().get("traceparent"), None);
    assert_eq!(ask("off", "/no").await, 200);
    assert_eq!(ask("traefik", "/ping").await, 200);
    assert_eq!(ask("off", "/loud/a").await, 200);
    assert_eq!(ask("much", "/broken").await, 500);
    assert_eq!(ask("much", "/fine").await, 200);
    let spans = collector.spans("/fine", 5).await;
    let expected = [
        "GET server in -",
        "Router internal in GET",
        "Retry internal in Router",
        "Service internal in Retry",
        "ReverseProxy client in Service",
    ];
    assert_eq!(shape(&spans), expected);
    let router = &spans[1].attributes;
    assert_eq!(router["traefik.router.name"], "much-app@file");
    assert_eq!(router["traefik.service.name"], "app@file");
    assert_eq!(router["http.route"], "PathPrefix(`/`)");
    assert_eq!(spans[2].attributes["traefik.middleware.name"], "again@file");
    assert_eq!(spans[3].attributes["traefik.service.name"], "app@file");
    let broken = collector.spans("/broken", 8).await;
    let resent: Vec<_> =
        broken.iter().filter_map(|seen| seen.attributes.get("http.request.resend_count")).collect();
    assert_eq!(resent, ["1"]);
    let paths = eventually_all(&collector, "/loud/a").await;
    assert_eq!(paths.len(), 3, "{paths:?}");
    let shown = vigie.json("/api/http/routers/quiet@file").await;
    assert_eq!(shown["observability"]["tracing"], false);
}

#[tokio::test]
async fn the_last_spans_are_sent_before_the_process_ends() {
    let collector = Collector::grpc().await;
    let server = Origin::start("api").await;
    let mut vigie = Vigie::with(&tracing(&collector, ""), &app("", &[server.url()])).await;
    Protocol::Http1.get(vigie.web(), "/last").await;
    vigie.signal(Signal::TERM);
    vigie.ended(lb_testkit::PATIENCE).await;
    assert_eq!(collector.traces().len(), 2);
}
