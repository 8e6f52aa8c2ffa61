//! Whose word is taken: forwarding fields, `Connection`, and one path for everybody who decides by it.

use lb_testkit::{Client, Origin};

use crate::harness::{HOST, Protocol, STATIC, Vigie, app, app_with};

#[tokio::test]
async fn what_strangers_say_about_themselves_is_dropped() {
    let origin = Origin::start("origin").await;
    let vigie = Vigie::start(&app("", &[origin.url()])).await;
    const LIE: &str = "203.0.113.7";
    let names = [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-server",
        "x-forwarded-prefix",
        "x-forwarded-uri",
        "x-forwarded-anything",
        "x-real-ip",
        "x-scheme",
        "forwarded",
        "x_forwarded_for",
        "x_real_ip",
        "x-forwarded_for",
        "x_forwarded-proto",
        "x.forwarded.for",
        "x_forwarded_anything",
    ];
    for protocol in Protocol::BOTH {
        for name in names {
            let mut connection = protocol.connect(vigie.web()).await;
            connection.request("GET", "/", &[(name, LIE), ("x-own", "kept")], None).await;
            let seen = origin.last();
            let lies: Vec<_> = seen.fields.0.iter().filter(|(_, value)| value == LIE.as_bytes()).collect();
            assert!(lies.is_empty(), "{protocol:?} {name}: {lies:?}");
            assert_eq!((seen.get("x-own"), seen.get("x-forwarded-for")), (Some("kept"), Some("127.0.0.1")));
        }
    }
}

/// `Connection` names what ends at the next hop; it has no say over what Vigie adds or needs.
#[tokio::test]
async fn connection_removes_nothing_of_vigies_own() {
    let origin = Origin::start("origin").await;
    let vigie = Vigie::start(&app("", &[origin.url()])).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    let named = "X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, X-Forwarded-Port, X-Real-Ip, Host, Content-Length, X-Own";
    let fields = [("Connection", named), ("X-Own", "1"), ("X-Other", "2")];
    let answer = client.request("POST", HOST, "/", &fields, Some(b"body")).await.unwrap();
    assert_eq!(answer.json()["body"], "body");
    let seen = origin.last();
    for (name, value) in [
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some(HOST)),
        ("x-forwarded-port", Some("80")),
        ("x-real-ip", Some("127.0.0.1")),
        ("host", Some(HOST)),
        ("x-other", Some("2")),
        ("x-own", None),
    ] {
        assert_eq!(seen.get(name), value, "{name}");
    }
    // Nor over what a trusted proxy in front has said.
    let trusting = STATIC.replace(
        "web: {address: '127.0.0.1:0'}",
        "web: {address: '127.0.0.1:0', forwardedHeaders: {insecure: true}}",
    );
    let vigie = Vigie::with(&trusting, &app("", &[origin.url()])).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    let fields = [("Connection", "X-Forwarded-For"), ("X-Forwarded-For", "203.0.113.7")];
    client.request("GET", HOST, "/", &fields, None).await.unwrap();
    assert_eq!(origin.last().get("x-forwarded-for"), Some("203.0.113.7, 127.0.0.1"));
}

/// Who has a password is who the password says, in every spelling of the field that a server may read.
#[tokio::test]
async fn a_user_is_named_by_vigie_only() {
    let origin = Origin::start("origin").await;
    let auth = "  middlewares:
    auth: {basicAuth: {users: ['someone:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ='], headerField: X-Web-User}}";
    let app = app_with("middlewares: [auth]", "", &[origin.url()]);
    let vigie = Vigie::start(&format!("{app}{auth}\n")).await;
    for protocol in Protocol::BOTH {
        for name in ["x-web-user", "x_web_user", "x-web_user", "x.web.user"] {
            let mut connection = protocol.connect(vigie.web()).await;
            let fields =
                [("authorization", "Basic c29tZW9uZTpzZWNyZXQ="), (name, "admin"), ("x_web_users", "kept")];
            assert_eq!(connection.request("GET", "/", &fields, None).await.status, 200);
            let seen = origin.last();
            let named: Vec<_> = seen.fields.0.iter().filter(|(_, value)| value == b"admin").collect();
            assert!(named.is_empty(), "{protocol:?} {name}: {named:?}");
            assert_eq!((seen.get("x-web-user"), seen.get("x_web_users")), (Some("someone"), Some("kept")));
        }
    }
}

/// The router, the middleware that guards it and the server see the same path: no spelling of `/admin` gets to
/// the server by the router that is open to all.
#[tokio::test]
async fn no_spelling_of_a_path_gets_past_its_guard() {
    let origin = Origin::start("origin").await;
    let config = format!(
        "
http:
  routers:
    open: {{rule: 'PathPrefix(`/`)', service: app}}
    admin: {{rule: 'PathPrefix(`/admin`)', service: app, middlewares: [guard]}}
  middlewares:
    guard: {{basicAuth: {{users: ['a:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/']}}}}
  services:
    app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
",
        origin.url()
    );
    let vigie = Vigie::start(&config).await;
    let spellings = [
        "/admin",
        "/admin/",
        "/admin?x",
        "//admin",
        "///admin/x",
        "/./admin",
        "/x/../admin",
        "/%61dmin",
        "/%61%64min",
        "/%2e/admin",
        "/x/%2e%2e/admin",
        "/.//admin",
        "/admin%2Fx",
        "/admin;x",
        "/admin/../admin",
        "/x/%2E./admin",
        "/..//admin",
        "/../admin",
        "/admin%3f",
        "/admin%00",
    ];
    for protocol in Protocol::BOTH {
        for path in spellings {
            let answer = protocol.get(vigie.web(), path).await;
            assert!(matches!(answer.status, 400 | 401), "{protocol:?} {path}: {}", answer.status);
        }
        // What is another path stays one, and the server gets just what the router saw.
        for (path, sent) in [
            ("/Admin", "/Admin"),
            ("/%2Fadmin", "/%2Fadmin"),
            ("/x%2F..%2Fadmin", "/x%2F..%2Fadmin"),
            ("/%2561dmin", "/%2561dmin"),
            ("/x//y/./z/../%7e", "/x/y/~"),
            ("/\\admin", "/%5Cadmin"),
        ] {
            if protocol == Protocol::Http2 && path.contains('\\') {
                continue; // The client's library does not send it.
            }
            assert_eq!(protocol.get(vigie.web(), path).await.status, 200, "{protocol:?} {path}");
            assert_eq!(origin.last().target, sent, "{protocol:?}");
        }
    }
}

/// The PROXY protocol is believed from those whom the operator names, and then only in good form.
#[tokio::test]
async fn a_proxy_header_is_believed_from_trusted_peers_only() {
    let origin = Origin::start("origin").await;
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let header = "PROXY TCP4 203.0.113.7 192.0.2.1 1000 80\r\n";
    let stranger = Vigie::start(&app("", &[origin.url()])).await;
    let answer = super::exchange(stranger.web(), format!("{header}{request}")).await.unwrap();
    assert_eq!(super::statuses(&answer), [400]);
    let trusting = |peer: &str| {
        let options = format!("web: {{address: '127.0.0.1:0', proxyProtocol: {{trustedIPs: [{peer}]}}}}");
        STATIC.replace("web: {address: '127.0.0.1:0'}", &options)
    };
    // Where others are believed, a stranger's is stepped over, as by Traefik.
    let doubting = Vigie::with(&trusting("192.0.2.1/32"), &app("", &[origin.url()])).await;
    for header in [
        header.as_bytes(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xc0\0\x02\x01\0\x01\0\x02",
        b"",
    ] {
        let answer = super::exchange(doubting.web(), [header, request.as_bytes()].concat()).await.unwrap();
        assert_eq!(super::statuses(&answer), [200], "{:?}", String::from_utf8_lossy(header));
        assert_eq!(origin.last().get("x-forwarded-for"), Some("127.0.0.1"));
    }
    let vigie = Vigie::with(&trusting("127.0.0.1/32"), &app("", &[origin.url()])).await;
    let answer = super::exchange(vigie.web(), format!("{header}{request}")).await.unwrap();
    assert_eq!(super::statuses(&answer), [200]);
    assert_eq!(origin.last().get("x-forwarded-for"), Some("203.0.113.7"));
    let reached = origin.requests();
    let bad: [&[u8]; 6] = [
        b"PROXY TCP4 203.0.113 192.0.2.1 1000 80\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 1000 80\n",
        &[&b"PROXY "[..], &[b'a'; 200]].concat(),
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04\x01\x02\x03\x04",
        &[&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"[..], &[b'a'; 70_000]].concat(),
    ];
    for header in bad {
        let mut client = Client::connect(vigie.web()).await.unwrap();
        let _ = client.send([header, request.as_bytes()].concat()).await;
        assert!(client.closes_within(lb_testkit::PATIENCE).await, "{:?}", String::from_utf8_lossy(header));
    }
    // One is taken, a second one is bad HTTP.
    let answer = super::exchange(vigie.web(), format!("{header}{header}{request}")).await.unwrap();
    assert_eq!(super::statuses(&answer), [400]);
    assert_eq!(origin.requests(), reached);
    let counted = vigie.metrics().await.value("lb_refused_requests_total", &[("reason", "proxy_protocol")]);
    assert_eq!(counted, Some(6.0));
}
