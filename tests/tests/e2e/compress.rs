//! `compress`: what clients ask for in another form arrives in it, at once, whole or visibly broken.

use std::io::{Read as _, Write};
use std::time::Duration;

use lb_testkit::{Client, Origin, PATIENCE, Response, Script, eventually};

use crate::harness::{HOST, Protocol, STATIC, Vigie, app_with};

const CODINGS: [&str; 3] = ["gzip", "br", "zstd"];

/// [`app_with`] behind `press`, whose options these are, and further lines of `http`.
fn behind(options: &str, urls: &[String]) -> String {
    format!(
        "{}  middlewares:\n    press: {{compress: {options}}}\n",
        app_with("middlewares: [press]", "", urls)
    )
}

fn decoded(coding: &str, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    match coding {
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain)?,
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut plain)?,
        _ => zstd::stream::read::Decoder::new(bytes)?.read_to_end(&mut plain)?,
    };
    Ok(plain)
}

/// What can be read so far.
fn begun(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    // Errors are about the end that is missing.
    let _ = match coding {
        "gzip" => flush(flate2::write::GzDecoder::new(&mut plain), bytes),
        "br" => flush(brotli::DecompressorWriter::new(&mut plain, 4096), bytes),
        _ => flush(zstd::stream::write::Decoder::new(&mut plain).unwrap(), bytes),
    };
    plain
}

fn flush(mut decoder: impl Write, bytes: &[u8]) -> std::io::Result<()> {
    decoder.write_all(bytes)?;
    decoder.flush()
}

fn text(length: usize) -> String {
    let mut text = String::with_capacity(length + 40);
    let mut number = 7_u64;
    while text.len() < length {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push_str(&format!("{{\"id\": {}, \"name\": \"a name\"}},\n", number >> 44));
    }
    text.truncate(length);
    text
}

async fn ask(vigie: &Vigie, protocol: Protocol, path: &str, fields: &[(&str, &str)]) -> Response {
    protocol.connect(vigie.web()).await.request("GET", path, fields, None).await
}

#[tokio::test]
async fn answers_arrive_in_the_form_that_was_asked_for() {
    let server = Origin::start("api").await;
    // Large enough for many pieces, turns and windows.
    let large = text(3 << 20);
    let fields = [("ETag", "\"v1\""), ("Accept-Ranges", "bytes"), ("Content-Type", "application/json")];
    server.on("/large", Script::answer(200, &fields, &large));
    server.on("/just", Script::answer(404, &[], text(1024)));
    let trailers = [("X-Checksum", "abc")];
    server.on("/trailers", Script::trailers(&[&large[..70_000], "end"], &trailers));
    let vigie = Vigie::start(&behind("{}", &[server.url()])).await;
    for protocol in Protocol::BOTH {
        for coding in CODINGS {
            let asked = [("Accept-Encoding", coding)];
            let answer = ask(&vigie, protocol, "/large", &asked).await;
            assert_eq!((answer.status, answer.get("content-encoding")), (200, Some(coding)));
            assert_eq!(answer.get("vary"), Some("Accept-Encoding"));
            // Neither length nor ranges nor the strong validator are those of these bytes.
            assert_eq!((answer.get("content-length"), answer.get("accept-ranges")), (None, None));
            assert_eq!(answer.get("etag"), Some("W/\"v1\""));
            let chunked = (protocol == Protocol::Http1).then_some("chunked");
            assert_eq!(answer.get("transfer-encoding"), chunked);
            assert!(answer.body.len() < large.len() / 2, "{coding}: {}", answer.body.len());
            assert!(decoded(coding, &answer.body).unwrap() == large.as_bytes(), "{protocol:?} {coding}");

            let just = ask(&vigie, protocol, "/just", &asked).await;
            assert_eq!((just.status, just.get("content-encoding")), (404, Some(coding)));
            assert_eq!(decoded(coding, &just.body).unwrap(), text(1024).as_bytes());

            let trailing = ask(&vigie, protocol, "/trailers", &asked).await;
            assert_eq!(trailing.trailers.get("x-checksum"), Some("abc"), "{protocol:?} {coding}");
            assert_eq!(decoded(coding, &trailing.body).unwrap().len(), 70_003);
        }
    }
    // The server is asked as the client asks.
    assert!(server.seen().iter().all(|seen| CODINGS.contains(&seen.get("accept-encoding").unwrap())));
}

#[tokio::test]
async fn what_must_not_change_does_not() {
    let server = Origin::start("api").await;
    let body = text(5000);
    let mut cases = vec![];
    for (path, status, fields) in [
        ("/plain", 200, vec![]),
        ("/encoded", 200, vec![("Content-Encoding", "x-own")]),
        ("/part", 206, vec![("Content-Range", "bytes 0-4999/9000")]),
        ("/grpc", 200, vec![("Content-Type", "application/grpc+proto")]),
        ("/frozen", 200, vec![("Cache-Control", "no-transform")]),
        ("/excluded", 200, vec![("Content-Type", "image/png")]),
    ] {
        server.on(path, Script::answer(status, &fields, &body));
        // Only the first would be compressed if it was asked for.
        cases.push((path, if path == "/plain" { "" } else { "gzip, br, zstd" }));
    }
    server.on("/small", Script::answer(200, &[], &body[..1023]));
    server.on("/none", Script::status(204));
    server.on("/unchanged", Script::answer(304, &[("ETag", "\"v1\"")], ""));
    let vigie = Vigie::start(&behind("{excludedContentTypes: [image/png]}", &[server.url()])).await;
    for protocol in Protocol::BOTH {
        for accepted in ["identity", "deflate", "gzip;q=0", "*;q=0", ""] {
            let answer = ask(&vigie, protocol, "/plain", &[("Accept-Encoding", accepted)]).await;
            assert_eq!((answer.get("content-encoding"), answer.get("vary")), (None, None), "{accepted}");
            assert_eq!((answer.get("content-length"), answer.text()), (Some("5000"), body.as_str()));
        }
        for (path, accepted) in cases.iter().copied() {
            let asked = [("Accept-Encoding", accepted)];
            let fields = if accepted.is_empty() { &[][..] } else { &asked[..] };
            let answer = ask(&vigie, protocol, path, fields).await;
            assert_eq!(answer.get("content-length"), Some("5000"), "{protocol:?} {path}");
            assert_eq!(answer.text(), body, "{protocol:?} {path}");
            let own = (path == "/encoded").then_some("x-own");
            assert_eq!(answer.get("content-encoding"), own, "{protocol:?} {path}");
        }
        let asked = [("Accept-Encoding", "gzip")];
        let small = ask(&vigie, protocol, "/small", &asked).await;
        assert_eq!((small.get("content-length"), small.get("content-encoding")), (Some("1023"), None));
        assert_eq!(ask(&vigie, protocol, "/none", &asked).await.status, 204);
        assert_eq!(ask(&vigie, protocol, "/unchanged", &asked).await.get("etag"), Some("\"v1\""));
        // HEAD has no body to compress. (The origin would send one.)
        server.on("/head", Script::raw("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"));
        let head = protocol.connect(vigie.web()).await.request("HEAD", "/head", &asked, None).await;
        assert_eq!((head.get("content-length"), head.get("content-encoding")), (Some("5000"), None));
        let fields = [("Accept-Encoding", "gzip"), ("Content-Type", "application/grpc")];
        let grpc = protocol.connect(vigie.web()).await.request("POST", "/plain", &fields, Some(b"1")).await;
        assert_eq!(grpc.get("content-encoding"), None);
    }
}

/// The server says nothing more after the first event: what it said has to be readable.
#[tokio::test]
async fn what_the_server_has_sent_arrives_at_once() {
    let server = Origin::start("api").await;
    let event = "data: one\n\n";
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
    server.on(
        "/events",
        Script::raw(format!("{head}Transfer-Encoding: chunked\r\n\r\nb\r\n{event}\r\n")).then_hang(),
    );
    server.on("/slow", Script::raw(format!("{head}Content-Length: 5000\r\n\r\n{event}")).then_hang());
    let vigie = Vigie::start(&behind("{}", &[server.url()])).await;
    for path in ["/events", "/slow"] {
        for coding in CODINGS {
            let mut client = Client::connect(vigie.web()).await.unwrap();
            client
                .send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: {coding}\r\n\r\n"))
                .await
                .unwrap();
            assert_eq!(client.head("GET").await.unwrap().get("content-encoding"), Some(coding));
            let mut bytes = Vec::new();
            while begun(coding, &bytes) != event.as_bytes() {
                bytes.extend(client.piece().await.expect("the event in time").expect("an open answer"));
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_fails_midway_leaves_nothing_that_looks_whole() {
    let server = Origin::start("api").await;
    let body = text(20_000);
    server.on("/cut", Script::close_in_body(40_000, &body));
    server.on("/reset", Script::reset_in_body(40_000, &body));
    let begun = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4e20\r\n{body}\r\n");
    server.on("/chunks", Script::raw(begun).then_reset());
    let vigie = Vigie::start(&behind("{}", &[server.url()])).await;
    for path in ["/cut", "/reset", "/chunks"] {
        for coding in CODINGS {
            let asked = [("Accept-Encoding", coding)];
            for protocol in Protocol::BOTH {
                let mut connection = protocol.connect(vigie.web()).await;
                let answer = connection.ask("GET", HOST, path, &asked, None).await;
                assert!(answer.is_err(), "{protocol:?} {path} {coding}: {answer:?}");
            }
            // To HTTP/1.0 the end of the connection is the end of the body, so it is no orderly one.
            let mut old = Client::connect(vigie.web()).await.unwrap();
            old.send(format!("GET {path} HTTP/1.0\r\nHost: {HOST}\r\nAccept-Encoding: {coding}\r\n\r\n"))
                .await
                .unwrap();
            assert!(old.response("GET").await.is_err(), "{path} {coding}");
        }
    }
}

#[tokio::test]
async fn clients_of_http_1_0_get_it_until_the_end_of_the_connection() {
    let server = Origin::start("api").await;
    server.on("/", Script::answer(200, &[], text(5000)));
    let vigie = Vigie::start(&behind("{}", &[server.url()])).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    client.send(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\nAccept-Encoding: gzip\r\n\r\n")).await.unwrap();
    let answer = client.response("GET").await.unwrap();
    assert!(answer.until_close && answer.get("content-length").is_none());
    assert_eq!(decoded("gzip", &answer.body).unwrap(), text(5000).as_bytes());
}

/// The order of the list, the default, and answers of Vigie itself behind the middleware.
#[tokio::test]
async fn options_and_own_answers() {
    let server = Origin::start("api").await;
    server.on("/", Script::answer(200, &[("Content-Type", "text/html; charset=utf-8")], text(500)));
    server.on("/json", Script::answer(200, &[("Content-Type", "application/json")], text(500)));
    let options = "{encodings: [zstd, gzip], defaultEncoding: gzip, minResponseBodyBytes: 400, \
                   includedContentTypes: [text/html, application/json; charset=utf-8]}";
    let text = behind(options, &[server.url()]).replace(
        "  routers:\n",
        "  routers:\n    own: {rule: PathPrefix(`/api/`), service: api@internal, middlewares: [press]}\n",
    );
    let vigie = Vigie::start(&text).await;
    for protocol in Protocol::BOTH {
        for (fields, path, coding) in [
            (&[("Accept-Encoding", "gzip, deflate, br, zstd")][..], "/", Some("zstd")),
            (&[("Accept-Encoding", "*")], "/json", Some("gzip")),
            (&[("Accept-Encoding", "br")], "/", None),
            (&[], "/", Some("gzip")),
            (&[("Accept-Encoding", "gzip")], "/api/rawdata", Some("gzip")),
            (&[("Accept-Encoding", "gzip")], "/api/nothing", None),
        ] {
            let answer = ask(&vigie, protocol, path, fields).await;
            assert_eq!(answer.get("content-encoding"), coding, "{protocol:?} {path} {fields:?}");
            if let Some(coding) = coding {
                assert!(!decoded(coding, &answer.body).unwrap().is_empty());
            }
        }
    }
    let shown = vigie.json("/api/http/middlewares/press@file").await;
    let expected = serde_json::json!({
        "includedContentTypes": ["text/html", "application/json; charset=utf-8"],
        "minResponseBodyBytes": 400, "encodings": ["zstd", "gzip"], "defaultEncoding": "gzip",
    });
    assert_eq!((&shown["compress"], &shown["type"]), (&expected, &"compress".into()));
}

/// What one try would have been compressed with is nothing to the next.
#[tokio::test]
async fn retries_and_upgrades_pass_through() {
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let server = Origin::with("api", move |request| match request.path() {
        "/socket" => Script::upgrade_echo("websocket"),
        _ if tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed).is_multiple_of(2) => {
            Script::answer(503, &[], text(5000))
        }
        _ => Script::answer(200, &[("Content-Encoding", "x-own")], text(5000)),
    })
    .await;
    let text = behind("{}", &[server.url()])
        .replace("middlewares: [press]", "middlewares: [again, press]")
        .replace("    press:", "    again: {retry: {attempts: 2, status: ['503']}}\n    press:");
    let vigie = Vigie::start(&text).await;
    for protocol in Protocol::BOTH {
        let answer = ask(&vigie, protocol, "/", &[("Accept-Encoding", "gzip")]).await;
        assert_eq!((answer.status, answer.get("content-encoding")), (200, Some("x-own")), "{protocol:?}");
        assert_eq!(answer.get("content-length"), Some("5000"));
    }
    let mut client = Client::connect(vigie.web()).await.unwrap();
    let fields = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Accept-Encoding", "gzip")];
    assert_eq!(client.request("GET", HOST, "/socket", &fields, None).await.unwrap().status, 101);
    client.send("ping").await.unwrap();
    assert_eq!(client.bytes(4).await.unwrap(), b"ping");
}

/// Log and metrics count what the client got; the log has the server's size beside it.
#[tokio::test]
async fn bytes_are_counted_as_the_client_gets_them() {
    let server = Origin::start("api").await;
    server.on("/", Script::answer(200, &[], text(50_000)));
    let log = "accessLog: {filePath: '{dir}/access.log', format: json}\n";
    let vigie = Vigie::with(&format!("{STATIC}{log}"), &behind("{}", &[server.url()])).await;
    let mut total = 0;
    for protocol in Protocol::BOTH {
        let answer = ask(&vigie, protocol, "/", &[("Accept-Encoding", "zstd")]).await;
        total += answer.body.len();
        let path = vigie.files.path().join("access.log");
        let mut line = serde_json::Value::Null;
        let logged = eventually(PATIENCE, async || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            line = text.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
            text.lines().count() == if protocol == Protocol::Http1 { 1 } else { 2 }
        });
        assert!(logged.await);
        assert_eq!(line["DownstreamContentSize"], answer.body.len());
        assert_eq!(line["OriginContentSize"], 50_000);
        let ratio = 50_000.0 / answer.body.len() as f64;
        assert!((line["GzipRatio"].as_f64().unwrap() - ratio).abs() < 0.001, "{line}");
    }
    let labels = [("router", "app@file")];
    vigie.until_metric("traefik_router_responses_bytes_total", &labels, total as f64).await;
}

/// Much to compress on one connection keeps nobody else waiting for long.
#[tokio::test]
async fn others_get_their_turn() {
    let server = Origin::start("api").await;
    server.on("/large", Script::answer(200, &[], text(24 << 20)));
    server.on("/small", Script::text("ok"));
    let one_worker = STATIC.replace("workers: 2", "workers: 1");
    let vigie = Vigie::with(&one_worker, &behind("{encodings: [br]}", &[server.url()])).await;
    let web = vigie.web();
    let mut other = Protocol::Http1.connect(web).await;
    let large = tokio::spawn(async move {
        Protocol::Http1.connect(web).await.request("GET", "/large", &[("Accept-Encoding", "br")], None).await
    });
    let mut between = 0;
    while !large.is_finished() {
        let answered = other.request("GET", "/small", &[], None);
        let answer = tokio::time::timeout(Duration::from_secs(5), answered).await.expect("a turn");
        assert_eq!(answer.text(), "ok");
        between += 1;
    }
    assert_eq!(decoded("br", &large.await.unwrap().body).unwrap().len(), 24 << 20);
    // In one go it would be a handful: 24 MiB are 384 turns.
    assert!(between > 30, "{between}");
}
