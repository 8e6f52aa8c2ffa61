//! The kit tests itself: client against origin, without a proxy between them.

use std::time::Duration;

use bytes::Bytes;
use lb_testkit::{
    Answer, Authority, Client, Failure, H2Client, H2Origin, Load, Origin, Script, VigieProcess, eventually,
    get,
};

const HOST: &str = "shop.example.com";

#[tokio::test]
async fn an_echo_shows_the_request_as_it_came() {
    let origin = Origin::start("one").await;
    let mut client = Client::connect(origin.address()).await.unwrap();
    let echo =
        client.request("POST", HOST, "/a?b=c", &[("X-Odd-CASE", "v")], Some(b"body")).await.unwrap().json();
    assert_eq!(echo["origin"], "one");
    assert_eq!(echo["target"], "/a?b=c");
    assert_eq!(echo["body"], "body");
    assert!(echo["head"].as_str().unwrap().contains("\r\nX-Odd-CASE: v\r\n"));
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nT: 1\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(client.response("POST").await.unwrap().json()["trailers"][0][1], "1");
    assert_eq!((origin.requests(), origin.connections()), (2, 1));
    assert_eq!(origin.last().fields.get("host"), Some("a"));
}

#[tokio::test]
async fn every_script_is_seen_by_the_client_as_it_is_meant() {
    let origin = Origin::with("scripts", |request| match request.path() {
        "/chunked" => Script::trailers(&["ab", "cd"], &[("X-Sum", "4")]),
        "/early-hints" => Script::text("late").after_informational(103, &[("Link", "</a.css>")]),
        "/until-close" => Script::until_close("all"),
        "/reset" => Script::reset(),
        "/reset-head" => Script::reset_in_head(),
        "/reset-body" => Script::reset_in_body(10, "abc"),
        "/close-body" => Script::close_in_body(10, "abc"),
        "/garbage" => Script::raw("HTTP/1.1 200\nnonsense\r\n\r\n"),
        "/none" => Script::no_answer(),
        _ => Script::text("hello"),
    })
    .await;
    let ask = async |path: &str| get(origin.address(), HOST, path).await;
    assert_eq!(ask("/").await.unwrap().text(), "hello");
    let chunked = ask("/chunked").await.unwrap();
    assert_eq!((chunked.text(), chunked.trailers.get("x-sum")), ("abcd", Some("4")));
    let hints = ask("/early-hints").await.unwrap();
    assert_eq!((hints.informational[0].status, hints.text()), (103, "late"));
    let closed = ask("/until-close").await.unwrap();
    assert!(closed.until_close && !closed.keeps_alive() && closed.text() == "all");
    for (path, words) in [
        ("/reset", "reset"),
        ("/reset-head", "reset"),
        ("/reset-body", "reset"),
        ("/close-body", "truncated"),
        ("/garbage", "bare"),
        ("/none", "closed without an answer"),
    ] {
        let error = format!("{:#}", ask(path).await.unwrap_err());
        assert!(error.contains(words), "{path}: {error}");
    }
}

#[tokio::test]
async fn an_upgrade_and_an_early_answer_leave_the_request_unread() {
    let origin = Origin::start("one").await;
    origin.on("/socket", Script::upgrade_echo("websocket"));
    origin.on("/early", Script::early(413));
    let mut client = Client::connect(origin.address()).await.unwrap();
    let fields = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(client.request("GET", HOST, "/socket", &fields, None).await.unwrap().status, 101);
    client.send("ping").await.unwrap();
    assert_eq!(client.bytes(4).await.unwrap(), b"ping");

    let mut client = Client::connect(origin.address()).await.unwrap();
    client.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n").await.unwrap();
    assert_eq!(client.response("POST").await.unwrap().status, 413);
    assert!(client.closes_within(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let origin = Origin::start("one").await;
    origin.on("/events", Script::server_sent_events(&["a", "b"], Duration::from_millis(100)));
    let mut client = Client::connect(origin.address()).await.unwrap();
    client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(client.head("GET").await.unwrap().get("content-type"), Some("text/event-stream"));
    assert_eq!(client.piece().await.unwrap().unwrap(), b"data: a\n\n");
    assert_eq!(client.piece().await.unwrap().unwrap(), b"data: b\n\n");
    assert_eq!(client.piece().await.unwrap(), None);
}

#[tokio::test]
async fn a_stopped_origin_refuses_and_comes_back_on_its_port() {
    let mut origin = Origin::start("one").await;
    let mut client = Client::connect(origin.address()).await.unwrap();
    client.get(HOST, "/").await.unwrap();
    origin.stop().await;
    assert!(client.closes_within(Duration::from_secs(2)).await);
    assert!(eventually(Duration::from_secs(2), async || origin.open_connections() == 0).await);
    assert!(get(origin.address(), HOST, "/").await.is_err());
    origin.restart().await;
    assert_eq!(get(origin.address(), HOST, "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn h2_carries_bodies_trailers_and_interim_answers() {
    let origin = H2Origin::start("two", |request| match request.path() {
        "/trailers" => Answer {
            parts: vec![Bytes::from("ab"), Bytes::from("cd")],
            trailers: vec![("x-sum".into(), "4".into())],
            informational: vec![103],
            ..Answer::text("")
        },
        "/reset" => Answer { reset: Some(h2::Reason::INTERNAL_ERROR), ..Answer::text("ab") },
        _ => Answer::echo(),
    })
    .await;
    let client = H2Client::connect(origin.address()).await.unwrap();
    let echo = client.request("POST", HOST, "/x", &[("x-a", "b")], Some(b"body")).await.unwrap().json();
    assert_eq!((echo["origin"].as_str(), echo["body"].as_str()), (Some("two"), Some("body")));
    let answer = client.get(HOST, "/trailers").await.unwrap();
    assert_eq!(
        (answer.text(), answer.trailers.get("x-sum"), answer.informational.len()),
        ("abcd", Some("4"), 1)
    );
    assert!(client.get(HOST, "/reset").await.is_err());
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn tls_in_both_directions() {
    let authority = Authority::new("test authority");
    let server = authority.issue(&["*.example.com", "127.0.0.1"]);
    let h1 = Origin::tls("h1", server.server_config(&["http/1.1"]), |_| Script::echo()).await;
    let mut client = Client::connect_tls(h1.address(), authority.client_config(&[]), HOST).await.unwrap();
    assert_eq!(client.get(HOST, "/").await.unwrap().json()["server_name"], HOST);

    let h2 = H2Origin::tls("h2", server.server_config(&["h2"]), |_| Answer::echo()).await;
    let client = H2Client::connect_tls(h2.address(), authority.client_config(&["h2"]), HOST).await.unwrap();
    assert_eq!(client.get(HOST, "/").await.unwrap().status, 200);

    let strict =
        Origin::tls("strict", server.server_config_requiring(&[], &authority), |_| Script::echo()).await;
    let identity = authority.issue_client("someone");
    let known = authority.client_config_with(&[], &identity);
    assert!(Client::connect_tls(strict.address(), known, HOST).await.unwrap().get(HOST, "/").await.is_ok());
    // TLS 1.3 tells a client of its refusal only after the handshake.
    let refused = async {
        Client::connect_tls(strict.address(), authority.client_config(&[]), HOST).await?.get(HOST, "/").await
    };
    assert!(refused.await.is_err());
}

#[tokio::test]
async fn a_load_accounts_for_every_request() {
    let mut origin = Origin::start("one").await;
    let report = Load::new(origin.address(), HOST).connections(4).requests(200).run().await;
    report.assert_flawless();
    assert_eq!((report.ok, report.connections, report.by_origin["one"]), (200, 4, 200));
    assert!(report.percentile(0.5) <= report.percentile(0.99));

    origin.on("/", Script::status(503));
    let report = Load::new(origin.address(), HOST).requests(10).run().await;
    assert_eq!(report.failures[&Failure::Status(503)], 10);

    origin.on("/", Script::no_answer());
    assert_eq!(Load::new(origin.address(), HOST).requests(10).run().await.failures[&Failure::NoAnswer], 10);

    let running = Load::new(origin.address(), HOST).target("/other").pause(Duration::from_millis(1)).start();
    assert!(eventually(Duration::from_secs(5), async || running.done() > 20).await);
    origin.stop().await;
    let before = running.done();
    assert!(eventually(Duration::from_secs(5), async || running.done() > before + 8).await);
    let report = running.stop().await;
    assert!(report.ok > 0 && report.failed() > 0, "{report:?}");

    let origin = H2Origin::start("two", |_| Answer::echo()).await;
    let report = Load::new(origin.address(), HOST).h2().connections(2).requests(50).run().await;
    report.assert_flawless();
    assert_eq!(report.by_origin["two"], 50);
}

#[tokio::test]
async fn a_process_that_ends_says_why() {
    let mut shell = std::process::Command::new("sh");
    let mut process = VigieProcess::spawn(shell.args(["-c", "echo no such file >&2; exit 1"])).unwrap();
    let error = process.wait_ready(lb_testkit::reserve_address()).await.unwrap_err();
    assert!(error.to_string().contains("no such file"), "{error}");

    let mut sleeper = VigieProcess::spawn(std::process::Command::new("sleep").arg("60")).unwrap();
    assert!(!sleeper.stop(Duration::from_secs(5)).await.unwrap().success());
}
