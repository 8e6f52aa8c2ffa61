//! Which service gets a request, and what it is told about the client.

use lb_testkit::{Client, Origin, get};

use crate::harness::{HOST, Protocol, Vigie, app, origin};

#[tokio::test]
async fn host_path_method_and_header_decide() {
    let (shop, api, beta, rest) = tokio::join!(
        Origin::start("shop"),
        Origin::start("api"),
        Origin::start("beta"),
        Origin::start("rest")
    );
    let vigie = Vigie::start(&format!(
        "
http:
  routers:
    shop: {{rule: 'Host(`shop.example.com`)', service: shop}}
    api: {{rule: 'Host(`shop.example.com`) && PathPrefix(`/api`)', service: api}}
    beta: {{rule: 'Host(`shop.example.com`) && (Header(`X-Beta`, `1`) || Query(`beta`, `1`))', service: beta, priority: 1000}}
    rest: {{rule: 'HostRegexp(`^.+\\.example\\.org$`) && !Method(`DELETE`)', service: rest}}
  services:
    shop: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
    api: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
    beta: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
    rest: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
",
        shop.url(),
        api.url(),
        beta.url(),
        rest.url()
    ))
    .await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        for (method, host, path, fields, expected) in [
            ("GET", "shop.example.com", "/", &[][..], Some("shop")),
            ("GET", "SHOP.example.com:8080", "/x?y=z", &[], Some("shop")),
            ("GET", "shop.example.com", "/api/users", &[], Some("api")),
            ("GET", "shop.example.com", "/x/../api/users", &[], Some("api")),
            ("GET", "shop.example.com", "/%61pi/users", &[], Some("api")),
            ("GET", "shop.example.com", "/", &[("x-beta", "1")], Some("beta")),
            ("GET", "shop.example.com", "/api?beta=1", &[], Some("beta")),
            ("GET", "a.example.org", "/", &[], Some("rest")),
            ("DELETE", "a.example.org", "/", &[], None),
            ("GET", "unknown.example.net", "/", &[], None),
        ] {
            let response = connection.ask(method, host, path, fields, None).await.unwrap();
            let case = format!("{protocol:?} {method} {host}{path} {fields:?}");
            match expected {
                Some(name) => assert_eq!(origin(&response), name, "{case}"),
                None => {
                    assert_eq!((response.status, response.text()), (404, "404 page not found\n"), "{case}");
                    assert_eq!(response.get("content-type"), Some("text/plain; charset=utf-8"));
                }
            }
        }
    }
    let metrics = vigie.metrics().await;
    let routed = |router| metrics.value("traefik_router_requests_total", &[("router", router)]);
    assert_eq!(
        (routed("shop@file"), routed("api@file"), routed("beta@file")),
        (Some(4.0), Some(6.0), Some(4.0))
    );
}

#[tokio::test]
async fn the_server_is_told_about_the_client_and_lies_are_removed() {
    let echo = Origin::start("echo").await;
    let vigie = Vigie::start(&app("", &[echo.url()])).await;
    for protocol in Protocol::BOTH {
        let lies = [
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
            ("x-real-ip", "203.0.113.7"),
            ("x_forwarded_for", "203.0.113.7"),
            ("x-own", "kept"),
        ];
        let mut connection = protocol.connect(vigie.web()).await;
        connection.request("GET", "/a%20b?c=d&e", &lies, None).await;
        let seen = echo.last();
        assert_eq!((seen.target.as_str(), seen.version.as_str()), ("/a%20b?c=d&e", "HTTP/1.1"));
        for (name, value) in [
            ("host", HOST),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", HOST),
            ("x-forwarded-port", "80"),
            ("x-own", "kept"),
        ] {
            assert_eq!(seen.get(name), Some(value), "{protocol:?} {name}: {:?}", seen.fields);
        }
        assert!(seen.get("x-forwarded-server").is_some_and(|name| !name.is_empty()));
        assert!(!seen.fields.contains("x_forwarded_for"), "{:?}", seen.fields);
    }
}

#[tokio::test]
async fn a_trusted_proxy_in_front_is_believed() {
    let echo = Origin::start("echo").await;
    let trusting = crate::harness::STATIC.replace(
        "web: {address: '127.0.0.1:0'}",
        "web: {address: '127.0.0.1:0', forwardedHeaders: {trustedIPs: [127.0.0.2/32]}}",
    );
    let vigie = Vigie::with(&trusting, &app("", &[echo.url()])).await;
    let fields = [("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "https")];
    for (from, for_, proto) in
        [("127.0.0.2", "203.0.113.7, 127.0.0.2", "https"), ("127.0.0.1", "127.0.0.1", "http")]
    {
        let mut client = Client::connect_from(from.parse().unwrap(), vigie.web()).await.unwrap();
        client.request("GET", HOST, "/", &fields, None).await.unwrap();
        let seen = echo.last();
        assert_eq!((seen.get("x-forwarded-for"), seen.get("x-forwarded-proto")), (Some(for_), Some(proto)));
    }
}

#[tokio::test]
async fn hop_by_hop_fields_end_at_the_proxy() {
    let echo = Origin::start("echo").await;
    echo.on(
        "/answer",
        lb_testkit::Script::answer(
            200,
            &[
                ("Connection", "keep-alive, X-Hop"),
                ("X-Hop", "1"),
                ("Keep-Alive", "timeout=5"),
                ("X-End", "2"),
            ],
            "x",
        ),
    );
    let vigie = Vigie::start(&app("", &[echo.url()])).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    let fields = [
        ("Connection", "close-by, X-Secret"),
        ("X-Secret", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "trailers, deflate"),
        ("X-Kept", "1"),
    ];
    client.request("GET", HOST, "/", &fields, None).await.unwrap();
    let seen = echo.last();
    for name in ["x-secret", "keep-alive", "proxy-connection"] {
        assert!(!seen.fields.contains(name), "{name} in {:?}", seen.fields);
    }
    assert!(seen.fields.contains("x-kept"));
    assert_eq!((seen.get("te"), seen.get("connection")), (Some("trailers"), Some("TE")), "{:?}", seen.fields);
    let answer = client.get(HOST, "/answer").await.unwrap();
    assert!(!answer.fields.contains("x-hop") && !answer.fields.contains("keep-alive"), "{:?}", answer.fields);
    assert_eq!(answer.get("x-end"), Some("2"));
}

/// What the proxy says itself when the server cannot: Traefik's statuses.
#[tokio::test]
async fn failures_of_the_server_become_statuses() {
    let origin = Origin::start("odd").await;
    origin.on("/reset", lb_testkit::Script::reset());
    origin.on("/none", lb_testkit::Script::no_answer());
    origin.on("/garbage", lb_testkit::Script::raw("this is not HTTP\r\n\r\n"));
    origin.on("/hang", lb_testkit::Script::hang());
    let refused = lb_testkit::reserve_address();
    let vigie = Vigie::start(&format!(
        "
http:
  routers:
    odd: {{rule: 'PathPrefix(`/`)', service: odd}}
    refused: {{rule: 'PathPrefix(`/refused`)', service: refused}}
    empty: {{rule: 'PathPrefix(`/empty`)', service: empty}}
  services:
    odd: {{loadBalancer: {{serversTransport: quick, servers: [{{url: '{}'}}]}}}}
    refused: {{loadBalancer: {{servers: [{{url: 'http://{refused}'}}]}}}}
    empty: {{loadBalancer: {{servers: []}}}}
  serversTransports:
    quick: {{forwardingTimeouts: {{responseHeaderTimeout: 200ms}}}}
",
        origin.url()
    ))
    .await;
    for protocol in Protocol::BOTH {
        for (path, status, body) in [
            ("/reset", 502, "Bad Gateway"),
            ("/none", 502, "Bad Gateway"),
            // Traefik says 500; RFC 9110 section 15.6.3 is clear.
            ("/garbage", 502, "Bad Gateway"),
            ("/hang", 504, "Gateway Timeout"),
            ("/refused", 502, "Bad Gateway"),
            ("/empty", 503, "no available server\n"),
        ] {
            let response = protocol.get(vigie.web(), path).await;
            assert_eq!((response.status, response.text()), (status, body), "{protocol:?} {path}");
        }
    }
    let errors = vigie.metrics().await.value("lb_upstream_errors_total", &[("service", "odd@file")]);
    assert_eq!(errors, Some(8.0));
}

/// A connection serves one request after the other, pipelined ones too, in order.
#[tokio::test]
async fn one_connection_serves_many_requests() {
    let echo = Origin::start("echo").await;
    let vigie = Vigie::start(&app("", &[echo.url()])).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    let requests: String = (0..10).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).collect();
    client.send(requests).await.unwrap();
    for n in 0..10 {
        assert_eq!(client.response("GET").await.unwrap().json()["target"], format!("/{n}"));
    }
    assert_eq!(get(vigie.web(), HOST, "/last").await.unwrap().json()["target"], "/last");
    // Upstream connections are kept and used again: at most one per worker.
    assert!(echo.connections() <= 2, "{}", echo.connections());
}
