//! `grpcWeb`: what a page in a browser sends, and a gRPC server's answer to it, message by message.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lb_testkit::{Answer, Client, H2Origin, Origin, Script};

use crate::harness::{HOST, Protocol, Vigie};
use crate::middlewares::behind;

const WEB: &str = "web: {grpcWeb: {allowOrigins: ['https://ok.test']}}";
/// A frame with the message `hi`, and the same in base64.
const MESSAGE: &[u8] = b"\0\0\0\0\x02hi";
const MESSAGE_TEXT: &[u8] = b"AAAAAAJoaQ==";
/// `grpc-message: ` and `grpc-status: 0` as a frame.
const TRAILERS: &[u8] = b"\x80\0\0\0\x20grpc-message: \r\ngrpc-status: 0\r\n";

fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Two messages, `pause` before each; it refuses whom gRPC servers refuse.
async fn server(pause: Duration) -> H2Origin {
    H2Origin::start("grpc", move |request| {
        let is_grpc = request.get("content-type") == Some("application/grpc+proto");
        if !is_grpc || request.get("te") != Some("trailers") {
            return Answer { status: 400, ..Answer::text("not gRPC") };
        }
        let fields = owned(&[("content-type", "application/grpc+proto"), ("x-init", "one")]);
        let status = owned(&[("grpc-status", "0"), ("grpc-message", "")]);
        match request.target.as_str() {
            "/t.T/Fail" => {
                let fields = [&fields[..], &owned(&[("grpc-status", "5")])].concat();
                Answer { fields, parts: Vec::new(), ..Answer::text("") }
            }
            _ => {
                let parts = vec![Bytes::from_static(MESSAGE), Bytes::from_static(MESSAGE)];
                Answer { fields, parts, pause, trailers: status, ..Answer::text("") }
            }
        }
    })
    .await
}

#[tokio::test]
async fn pages_call_grpc_servers() {
    let server = server(Duration::ZERO).await;
    let vigie = Vigie::start(&behind("web", WEB, &[server.url()])).await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        for (path, origin) in [("/t.T/Call", "https://ok.test"), ("/t.T/Call", "https://bad.test")] {
            let fields = [("Content-Type", "application/grpc-web+proto"), ("Origin", origin)];
            let answer = connection.request("POST", path, &fields, Some(MESSAGE)).await;
            assert_eq!(
                (answer.status, answer.get("content-type")),
                (200, Some("application/grpc-web+proto"))
            );
            assert_eq!(answer.body, [MESSAGE, MESSAGE, TRAILERS].concat(), "{protocol:?}");
            assert!(answer.trailers.0.is_empty());
            let allowed = (origin == "https://ok.test").then_some(origin);
            assert_eq!(answer.get("access-control-allow-origin"), allowed);
            assert_eq!((answer.get("vary"), answer.get("x-init")), (Some("Origin"), Some("one")));
            let exposed = answer.get("access-control-expose-headers").unwrap().to_ascii_lowercase();
            assert!(
                exposed.contains("x-init") && exposed.ends_with("grpc-status, grpc-message"),
                "{exposed}"
            );
        }
        // Without an answer the status is in the head.
        let fields = [("Content-Type", "application/grpc-web+proto")];
        let failed = connection.request("POST", "/t.T/Fail", &fields, Some(MESSAGE)).await;
        assert_eq!((failed.get("grpc-status"), &failed.body[..]), (Some("5"), &b"\x80\0\0\0\0"[..]));
        // What is no gRPC-Web is left alone, and so is an answer that is no gRPC.
        let plain = connection.request("POST", "/", &[("Content-Type", "text/plain")], Some(b"x")).await;
        assert_eq!((plain.status, plain.text(), plain.get("vary")), (400, "not gRPC", None));
        let other = [("Content-Type", "application/grpc-web+json")];
        let wrong = connection.request("POST", "/", &other, Some(b"x")).await;
        assert_eq!((wrong.status, wrong.text()), (400, "not gRPC"));

        let text = [("Content-Type", "application/grpc-web-text+proto")];
        for sent in [MESSAGE_TEXT, b"AAAAAAI=aGk=", b"AAAAAA\r\nJoaQ=="] {
            let answer = connection.request("POST", "/t.T/Fail", &text, Some(sent)).await;
            assert_eq!(answer.get("content-type"), Some("application/grpc-web-text+proto"), "{protocol:?}");
            assert_eq!((answer.get("grpc-status"), answer.text()), (Some("5"), "gAAAAAA="));
        }
        let refused = connection.request("POST", "/t.T/Call", &text, Some(b"!!!!")).await;
        assert_eq!(refused.status, 400);
    }
    let read: Vec<_> = server.seen().into_iter().map(|request| request.body).collect();
    assert!(read.iter().filter(|body| *body == MESSAGE).count() >= 12, "decoded: {read:?}");
    let labels = [("service", "app@file"), ("code", "5"), ("protocol", "grpc-web"), ("method", "POST")];
    vigie.until_metric("traefik_service_requests_total", &labels, 8.0).await;
    let shown = vigie.json("/api/http/middlewares/web@file").await;
    assert_eq!(shown["grpcWeb"], serde_json::json!({"allowOrigins": ["https://ok.test"]}));
    assert_eq!(shown["type"], "grpcweb");
}

/// What a server says of other origins counts, and every name is exposed once.
#[tokio::test]
async fn the_server_has_the_last_word_about_origins() {
    let server = Origin::start("api").await;
    let fields = [
        ("Content-Type", "application/grpc"),
        ("Access-Control-Allow-Origin", "https://other.test"),
        ("Trailer", "grpc-status"),
        ("X-Init", "one"),
        ("x-init", "two"),
    ];
    server.on("/t.T/Call", Script::answer(200, &fields, MESSAGE));
    let vigie = Vigie::start(&behind("web", WEB, &[server.url()])).await;
    let fields = [("Content-Type", "application/grpc-web"), ("Origin", "https://ok.test")];
    let answer =
        Protocol::Http1.connect(vigie.web()).await.request("POST", "/t.T/Call", &fields, Some(MESSAGE)).await;
    assert_eq!(answer.get("access-control-allow-origin"), Some("https://other.test"));
    assert_eq!((answer.get("access-control-allow-credentials"), answer.get("trailer")), (Some("true"), None));
    let exposed = answer.get("access-control-expose-headers").unwrap().to_ascii_lowercase();
    let mut names: Vec<_> = exposed.split(", ").collect();
    assert!(names.contains(&"x-init") && !names.contains(&"trailer"), "{exposed}");
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "{exposed}");
}

#[tokio::test]
async fn browsers_may_ask_before() {
    let server = server(Duration::ZERO).await;
    let vigie = Vigie::start(&behind("web", WEB, &[server.url()])).await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        for (origin, headers) in
            [("https://ok.test", Some("Content-Type, X-Grpc-Web")), ("https://bad.test", None)]
        {
            let fields = [
                ("Origin", origin),
                ("Access-Control-Request-Method", "POST"),
                ("Access-Control-Request-Headers", "content-type,x-grpc-web"),
            ];
            let answer = connection.request("OPTIONS", "/t.T/Call", &fields, None).await;
            assert_eq!((answer.status, answer.get("access-control-allow-headers")), (200, headers));
            assert_eq!(answer.get("access-control-allow-methods"), headers.map(|_| "POST"));
            assert_eq!(answer.get("access-control-max-age"), headers.map(|_| "600"));
            assert_eq!(answer.fields.all("vary").len(), 3);
        }
    }
    assert_eq!(server.requests(), 0);
}

/// The second message comes much later than the first.
#[tokio::test]
async fn nobody_waits_for_the_whole_answer() {
    let server = server(Duration::from_millis(700)).await;
    let vigie = Vigie::start(&behind("web", WEB, &[server.url()])).await;
    for (kind, sent, first) in [
        ("application/grpc-web+proto", MESSAGE, MESSAGE),
        ("application/grpc-web-text+proto", MESSAGE_TEXT, MESSAGE_TEXT),
    ] {
        let mut client = Client::connect(vigie.web()).await.unwrap();
        let head = format!(
            "POST /t.T/Call HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            sent.len()
        );
        client.send([head.as_bytes(), sent].concat()).await.unwrap();
        client.head("POST").await.unwrap();
        let mut pieces = Vec::new();
        while let Some(piece) = client.piece().await.unwrap() {
            pieces.push(piece);
        }
        assert!(pieces.len() > 1 && pieces[0] == first, "{kind}: the first by itself, not {pieces:?}");
    }
}

/// Wherever the middleware stands, what is behind and around it sees what it should.
#[tokio::test]
async fn it_may_be_of_a_child_or_a_service_and_be_tried_again() {
    let server = server(Duration::ZERO).await;
    let text = format!(
        "
http:
  services:
    own: {{loadBalancer: {{servers: [{{url: '{0}'}}]}}, middlewares: [web]}}
    part: {{weighted: {{services: [{{name: own}}]}}}}
    app: {{loadBalancer: {{servers: [{{url: '{0}'}}]}}}}
  middlewares:
    {WEB}
    again: {{retry: {{attempts: 2, status: ['503']}}}}
    press: {{compress: {{minResponseBodyBytes: 1}}}}
    keep: {{buffering: {{maxRequestBodyBytes: 100}}}}
  routers:
    root: {{rule: 'Path(`/t.T/Call`) && Header(`x-to`, `child`)', middlewares: [press, again]}}
    child: {{rule: 'PathPrefix(`/`)', parentRefs: [root], middlewares: [web, keep], service: app}}
    own: {{rule: 'Path(`/t.T/Call`) && Header(`x-to`, `own`)', middlewares: [keep], service: own}}
    part: {{rule: 'Path(`/t.T/Call`) && Header(`x-to`, `part`)', service: part}}
",
        server.url()
    );
    let vigie = Vigie::start(&text).await;
    let trailers = [MESSAGE, MESSAGE, TRAILERS].concat();
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        for to in ["child", "own", "part"] {
            for (kind, sent) in
                [("application/grpc-web", MESSAGE), ("application/grpc-web-text", MESSAGE_TEXT)]
            {
                let kind = format!("{kind}+proto");
                let fields = [("Content-Type", &*kind), ("x-to", to), ("accept-encoding", "gzip")];
                let answer = connection.request("POST", "/t.T/Call", &fields, Some(sent)).await;
                assert_eq!(
                    (answer.status, answer.get("content-type")),
                    (200, Some(&*kind)),
                    "{protocol:?} {to}"
                );
                assert_eq!(answer.get("content-encoding"), None);
                let body = if sent == MESSAGE { answer.body.to_vec() } else { decoded(answer.text()) };
                assert_eq!(body, trailers, "{protocol:?} {to} {kind}");
            }
        }
    }
    assert!(server.seen().into_iter().all(|request| request.body == MESSAGE));
}

/// Base64 whose parts may be padded.
fn decoded(text: &str) -> Vec<u8> {
    let groups = text.as_bytes().chunks(4);
    groups.flat_map(|group| STANDARD.decode(group).expect("base64")).collect()
}
