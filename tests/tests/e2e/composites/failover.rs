//! `failover`: by health, and by the status of an answer.

use lb_testkit::{Load, Origin, Script};
use std::time::Duration;

use super::{CHECK, of, origins, services, shares};
use crate::harness::{HOST, Protocol, Vigie, origin};

async fn set_health(vigie: &Vigie, origin: &Origin, status: u16, value: f64) {
    origin.on("/health", Script::status(status));
    vigie.until_metric("instance_health", &[("instance", &origin.url())], value).await;
}

#[tokio::test]
async fn the_fallback_answers_while_the_first_is_down() {
    let origins = origins(["a", "b"]).await;
    let composites = "f: {failover: {service: a, fallback: b}}
                      g: {failover: {service: a, fallback: b, healthCheck: {}}}
                      w: {weighted: {services: [{name: g}], healthCheck: {}}}";
    let vigie = Vigie::start(&services(&["f", "g", "w"], &origins, CHECK, composites)).await;
    for path in ["/f", "/g", "/w"] {
        assert_eq!(shares(&vigie, path, 4).await, of(&[("a", 4)]), "{path}");
    }
    set_health(&vigie, &origins[0], 503, 0.0).await;
    for path in ["/f", "/g", "/w"] {
        assert_eq!(shares(&vigie, path, 4).await, of(&[("b", 4)]), "{path}");
    }
    let failovers = [("service", "f@file"), ("reason", "health")];
    assert_eq!(vigie.metrics().await.value("lb_failovers_total", &failovers), Some(4.0));
    assert_eq!(vigie.metrics().await.value("lb_failovers_total", &failovers), Some(4.0));
    set_health(&vigie, &origins[1], 503, 0.0).await;
    for protocol in Protocol::BOTH {
        for (path, text) in [
            // Nobody minds whether its fallback is up, so that answers by itself.
            ("/f", "no available server\n"),
            ("/g", "Service Unavailable\n"),
            ("/w", "no available server\n"),
        ] {
            let answer = protocol.get(vigie.web(), path).await;
            assert_eq!((answer.status, answer.text()), (503, text), "{path} {protocol:?}");
            assert!(answer.get("retry-after").is_some(), "{path}");
        }
    }
    set_health(&vigie, &origins[0], 200, 1.0).await;
    assert_eq!(shares(&vigie, "/w", 2).await, of(&[("a", 2)]));
}

/// The request is played again, its body too; other answers pass.
#[tokio::test]
async fn some_answers_count_as_none() {
    let origins = origins(["a", "b"]).await;
    let composites = "f: {failover: {service: a, fallback: b, errors: {status: ['500-502', '504']}}}
                      dead: {loadBalancer: {servers: [{url: 'http://127.0.0.1:1'}]}}
                      g: {failover: {service: dead, fallback: b, errors: {status: ['502']}}}";
    let vigie = Vigie::start(&services(&["f", "g"], &origins, "", composites)).await;
    for protocol in Protocol::BOTH {
        let ask = async |path: &str, body: Option<&[u8]>| {
            let fields = [("x-kept", "yes"), ("connection", "x-dropped"), ("x-dropped", "no")];
            let fields = if protocol == Protocol::Http1 { &fields[..] } else { &fields[..1] };
            let method = if body.is_some() { "POST" } else { "GET" };
            protocol.connect(vigie.web()).await.request(method, path, fields, body).await
        };
        for (status, expected) in [(500, 200), (502, 200), (504, 200), (503, 503), (404, 404)] {
            origins[0].on("/f", Script::answer(status, &[("x-first", "1"), ("set-cookie", "a=1")], "first"));
            for body in [None, Some(&b"0123456789"[..]), Some(&[b'x'; 100_000])] {
                let before = origins[0].requests();
                let answer = ask("/f", body).await;
                assert_eq!(answer.status, expected, "{protocol:?} {status}");
                assert_eq!(origins[0].requests(), before + 1, "the first is asked once");
                if expected != 200 {
                    assert_eq!(answer.text(), "first");
                    continue;
                }
                assert_eq!(origin(&answer), "b");
                assert!(answer.get("x-first").is_none() && answer.get("set-cookie").is_none());
                let seen = [origins[0].last(), origins[1].last()];
                for seen in seen {
                    assert_eq!(seen.body.as_slice(), body.unwrap_or_default(), "{protocol:?} {status}");
                    assert_eq!((seen.get("x-kept"), seen.get("x-dropped")), (Some("yes"), None));
                    assert_eq!(seen.fields.all("x-forwarded-for").len(), 1);
                }
            }
        }
        assert_eq!(origin(&ask("/g", Some(b"12345")).await), "b");
        assert_eq!(origins[1].last().body, b"12345");
    }
    let metrics = vigie.metrics().await;
    let router = [("router", "g@file"), ("service", "g@file"), ("code", "200")];
    assert_eq!(metrics.value("traefik_router_requests_total", &router), Some(2.0));
    let failovers = [("service", "g@file"), ("reason", "status")];
    assert_eq!(metrics.value("lb_failovers_total", &failovers), Some(2.0));
}

/// No health check has noticed yet, and none is asked about answers.
#[tokio::test]
async fn what_the_first_cannot_be_given_goes_to_the_fallback() {
    let origins = origins(["a", "b"]).await;
    let check = "healthCheck: {path: /, unhealthyThreshold: 1000}";
    let composites = format!(
        "dead: {{loadBalancer: {{servers: [{{url: 'http://127.0.0.1:1'}}], {check}}}}}
         mute: {{loadBalancer: {{servers: [{{url: '{}'}}], {check}}}}}
         f: {{failover: {{service: dead, fallback: b}}}}
         g: {{failover: {{service: mute, fallback: b}}}}",
        origins[0].url()
    );
    let vigie = Vigie::start(&services(&["f", "g"], &origins, "", &composites)).await;
    origins[0].on("/g", Script::no_answer());
    let long = vec![b'x'; 300_000];
    for protocol in Protocol::BOTH {
        for body in [None, Some(&b"12345"[..]), Some(&long)] {
            let method = if body.is_some() { "POST" } else { "GET" };
            let ask = async |path: &str| {
                protocol.connect(vigie.web()).await.request(method, path, &[("x-own", "yes")], body).await
            };
            assert_eq!(origin(&ask("/f").await), "b", "{protocol:?}");
            let seen = origins[1].last();
            assert_eq!((&*seen.method, seen.get("x-own")), (method, Some("yes")));
            assert_eq!(seen.body.as_slice(), body.unwrap_or_default(), "{protocol:?}");
            assert_eq!(seen.fields.all("x-forwarded-for").len(), 1);
            let before = origins[1].requests();
            assert_eq!((ask("/g").await.status, origins[1].requests()), (502, before), "it may be at work");
        }
    }
    let failovers = [("service", "f@file"), ("reason", "unsent")];
    assert_eq!(vigie.metrics().await.value("lb_failovers_total", &failovers), Some(6.0));
}

/// With a limit longer bodies are refused, as by Traefik; without one all of them are kept.
#[tokio::test]
async fn bodies_are_kept_up_to_a_limit() {
    let origins = origins(["a", "b"]).await;
    let composites =
        "limited: {failover: {service: a, fallback: b, errors: {status: ['500'], maxRequestBodyBytes: 10}}}
         open: {failover: {service: a, fallback: b, errors: {status: ['500']}}}";
    let vigie = Vigie::start(&services(&["limited", "open"], &origins, "", composites)).await;
    origins[0].on("/limited", Script::status(500));
    origins[0].on("/open", Script::status(500));
    for protocol in Protocol::BOTH {
        let post = async |path: &str, body: &[u8]| {
            protocol.connect(vigie.web()).await.request("POST", path, &[], Some(body)).await
        };
        assert_eq!(origin(&post("/limited", &[b'x'; 10]).await), "b");
        let before = origins[0].requests();
        let refused = post("/limited", &[b'x'; 11]).await;
        assert_eq!((refused.status, refused.text()), (413, "Request body too large\n"), "{protocol:?}");
        assert_eq!(origins[0].requests(), before, "nobody was asked");
        let long = vec![b'x'; 3 * 1024 * 1024];
        // More than the memory: then in a temporary file.
        for length in [1024 * 1024, long.len()] {
            assert_eq!(origin(&post("/open", &long[..length]).await), "b", "{protocol:?}");
            assert!(origins.iter().all(|origin| origin.last().body.len() == length));
        }
    }
    // Of unknown length.
    for (path, parts, expected) in [("limited", 3, 413), ("limited", 2, 200), ("open", 3, 200)] {
        let mut client = lb_testkit::Client::connect(vigie.web()).await.unwrap();
        client
            .send(format!("POST /{path} HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n"))
            .await
            .unwrap();
        for _ in 0..parts {
            client.send("5\r\nxxxxx\r\n").await.unwrap();
        }
        client.send("0\r\n\r\n").await.unwrap();
        assert_eq!(client.response("POST").await.unwrap().status, expected, "{path} {parts}");
    }
}

/// A server that answers before it has the whole body still gets it, and a retry in front begins with all of it.
#[tokio::test]
async fn what_was_kept_is_sent_whole_and_again() {
    let origins = origins(["a", "b"]).await;
    let composites = "f: {failover: {service: a, fallback: b, errors: {status: ['500']}}}";
    let text = services(&["f"], &origins, "", composites)
        .replace("service: f}", "service: f, middlewares: [again]}")
        + "  middlewares:\n    again: {retry: {attempts: 3, retryNonIdempotentMethod: true, status: ['503']}}\n";
    let vigie = Vigie::start(&text).await;
    origins[0].on("/f", Script::status(500));
    let body = vec![b'x'; 300_000];
    for protocol in Protocol::BOTH {
        origins[1].on("/f", Script::status(503).delayed(Duration::from_millis(5)));
        let before = origins[1].requests();
        let answer = protocol.connect(vigie.web()).await.request("POST", "/f", &[], Some(&body)).await;
        assert_eq!((answer.status, origins[1].requests()), (503, before + 3), "{protocol:?}");
        assert!(origins.iter().all(|origin| origin.last().body == body));
        origins[0].on("/f", Script::early_then_read(200));
        let answer = protocol.connect(vigie.web()).await.request("POST", "/f", &[], Some(&body)).await;
        assert_eq!(answer.status, 200);
        let whole = lb_testkit::eventually(lb_testkit::PATIENCE, async || origins[0].last().body == body);
        assert!(whole.await, "{protocol:?}");
        origins[0].on("/f", Script::status(500));
    }
}

/// Killing the first under load: the other one takes over, and nobody notices.
#[tokio::test]
async fn nothing_is_lost_when_the_first_dies() {
    let mut origins = origins(["a", "b"]).await;
    let composites = "f: {failover: {service: a, fallback: b, errors: {status: ['502-504']}}}";
    let vigie = Vigie::start(&services(&["f"], &origins, CHECK, composites)).await;
    let running = Load::new(vigie.web(), HOST).target("/f").connections(8).start();
    let until = async |done| {
        assert!(lb_testkit::eventually(lb_testkit::PATIENCE, async || running.done() > done).await);
    };
    until(50).await;
    origins[0].stop().await;
    until(running.done() + 200).await;
    let report = running.stop().await;
    report.assert_flawless();
    assert!(report.by_origin["b"] > 100, "{:?}", report.by_origin);
}
