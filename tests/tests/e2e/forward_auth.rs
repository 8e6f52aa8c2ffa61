//! `forwardAuth`: an auth server decides who gets through, and says to the service who that is.

use lb_testkit::{Authority, Client, Files, Gate, Origin, PATIENCE, Script, eventually, reserve_address};

use crate::harness::{HOST, Protocol, STATIC, Vigie, app_with};

/// A router whose requests `middlewares` see, `auth` first; the options are those of `auth`.
fn guarded(auth: &str, options: &str, server: &Origin) -> String {
    let auth = format!("{{forwardAuth: {{address: '{auth}', {options}}}}}");
    let router = app_with("middlewares: [auth]", "", &[server.url()]);
    format!("{router}  middlewares:\n    auth: {auth}\n")
}

#[tokio::test]
async fn who_is_let_in_is_what_the_auth_server_says() {
    let (server, auth) = (Origin::start("api").await, Origin::start("auth").await);
    let granted = [("X-User", "alice"), ("X-Group", "a"), ("X-Group", "b"), ("X-Other", "1")];
    auth.on("/verify", Script::answer(200, &granted, "hello"));
    let options = "authResponseHeaders: [x-user, X-Role, X-Group], authRequestHeaders: [Cookie]";
    let log = format!("{STATIC}accessLog: {{filePath: '{{dir}}/access.log', format: json}}\n");
    let address = format!("{}/verify?rd=https://in.test/", auth.url());
    let vigie =
        Vigie::with(&log, &guarded(&address, &format!("{options}, headerField: X-User"), &server)).await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        let spoofed = [
            ("x-user", "evil"),
            ("x_user", "evil"),
            ("x-role", "admin"),
            ("x.role", "admin"),
            ("cookie", "a=b"),
            ("x-forwarded-for", "10.9.9.9"),
        ];
        let response = connection.request("POST", "/a?b=c", &spoofed, Some(b"body")).await;
        assert_eq!(response.status, 200, "{protocol:?}");
        let seen = server.last();
        assert_eq!(response.json()["body"], "body", "what is not forwarded stays whole");
        assert_eq!((seen.fields.all("x-user"), seen.fields.all("x-group")), (vec!["alice"], vec!["a", "b"]));
        for none in ["x_user", "x-role", "x.role", "x-other"] {
            assert_eq!(seen.get(none), None, "{protocol:?} {none}");
        }
        let asked = auth.last();
        assert_eq!((&*asked.method, &*asked.target), ("GET", "/verify?rd=https://in.test/"));
        assert_eq!(asked.get("host"), Some(auth.address().to_string().as_str()));
        for (name, value) in [
            ("cookie", Some("a=b")),
            ("x-forwarded-method", Some("POST")),
            ("x-forwarded-uri", Some("/a?b=c")),
            ("x-forwarded-host", Some(HOST)),
            ("x-forwarded-proto", Some("http")),
            ("x-forwarded-for", Some("127.0.0.1")),
            ("x-user", None),
            ("content-length", None),
            ("user-agent", None),
        ] {
            assert_eq!(asked.get(name), value, "{protocol:?} {name}");
        }
    }
    assert!(auth.connections() <= 2, "one for each worker: {}", auth.connections());
    let label = [("middleware", "auth@file"), ("outcome", "allowed")];
    vigie.until_metric("lb_forward_auth_requests_total", &label, 2.0).await;
    vigie.until_metric("lb_forward_auth_duration_seconds_count", &label[..1], 2.0).await;
    let path = vigie.files.path().join("access.log");
    let logged =
        || std::fs::read_to_string(&path).unwrap_or_default().matches("\"ClientUsername\":\"alice\"").count();
    assert!(eventually(PATIENCE, async || logged() == 2).await);
}

#[tokio::test]
async fn a_refusal_is_the_clients_answer() {
    let (server, auth) = (Origin::start("api").await, Origin::start("auth").await);
    let fields =
        [("WWW-Authenticate", "Basic"), ("Location", "in?x"), ("Set-Cookie", "a=1"), ("Keep-Alive", "3")];
    auth.on("/a/no", Script::answer(401, &fields, "go away"));
    let address = format!("{}/a/no", auth.url());
    let vigie = Vigie::start(&guarded(&address, "", &server)).await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        for (method, body, text) in
            [("GET", None, "go away"), ("HEAD", None, ""), ("POST", Some(&b"x"[..]), "go away")]
        {
            let response = connection.request(method, "/", &[], body).await;
            assert_eq!((response.status, response.text()), (401, text), "{protocol:?} {method}");
            assert_eq!(response.get("content-length"), Some("7"));
            assert_eq!(response.get("www-authenticate"), Some("Basic"));
            assert_eq!(response.get("location"), Some(format!("{}/a/in?x", auth.url()).as_str()));
            assert_eq!((response.get("set-cookie"), response.get("keep-alive")), (Some("a=1"), None));
        }
    }
    vigie.write(&guarded(&address, "authSigninURL: 'https://in.test/'", &server));
    vigie.until("a place to sign in", |response| response.status == 302).await;
    assert_eq!(vigie.get("/").await.get("location"), Some("https://in.test/"));
    // Redirects are for the client, not for us.
    auth.on("/a/no", Script::answer(307, &[("Location", "/yes")], ""));
    vigie.until("a redirect", |response| response.status == 307).await;
    assert_eq!(server.requests(), 0);
    vigie.write(&guarded(&address, "maxResponseBodySize: 3", &server));
    auth.on("/a/no", Script::answer(200, &[], "longer"));
    vigie.until("an answer that is too long", |response| response.status == 401).await;
    let reached = server.requests();
    assert_eq!((vigie.get("/").await.status, server.requests()), (401, reached));
}

#[tokio::test]
async fn the_place_in_the_chain_says_how_often_is_asked() {
    let (good, ill) = (Origin::start("good").await, Origin::with("ill", |_| Script::status(503)).await);
    let auth = Origin::start("auth").await;
    auth.on("/", Script::answer(200, &[("X-User", "alice")], ""));
    let more = "    again: {retry: {attempts: 2, status: ['503']}}\n";
    let urls = [ill.url(), good.url()];
    for (middlewares, per_try) in [("auth, again", false), ("again, auth", true)] {
        let router = app_with(&format!("middlewares: [{middlewares}]"), "", &urls);
        let auth_line = format!(
            "    auth: {{forwardAuth: {{address: '{}', authResponseHeaders: X-User}}}}\n",
            auth.url()
        );
        let vigie = Vigie::start(&format!("{router}  middlewares:\n{auth_line}{more}")).await;
        let before = (auth.requests(), ill.requests());
        let mut client = Client::connect(vigie.web()).await.unwrap();
        for _ in 0..4 {
            let response =
                client.request("PUT", HOST, "/", &[("x-user", "evil")], Some(b"body")).await.unwrap();
            assert_eq!(
                (response.status, response.json()["body"].as_str()),
                (200, Some("body")),
                "{middlewares}"
            );
            assert_eq!(good.last().fields.all("x-user"), ["alice"]);
        }
        let tried_again = ill.requests() - before.1;
        assert!(tried_again > 0);
        let asked = if per_try { 4 + tried_again } else { 4 };
        assert_eq!(auth.requests() - before.0, asked, "{middlewares}");
    }
}

#[tokio::test]
async fn without_a_usable_answer_nobody_gets_through() {
    let (server, auth) = (Origin::start("api").await, Origin::start("auth").await);
    let dead = reserve_address();
    let vigie = Vigie::start(&guarded(&format!("http://{dead}/"), "", &server)).await;
    for protocol in Protocol::BOTH {
        let response = protocol.get(vigie.web(), "/").await;
        assert_eq!((response.status, response.text()), (500, ""));
    }
    vigie.until_said("the auth server gives no usable answer").await;
    let label = [("middleware", "auth@file"), ("outcome", "error")];
    vigie.until_metric("lb_forward_auth_requests_total", &label, 2.0).await;
    vigie.write(&guarded(&auth.url(), "", &server));
    vigie.until("the auth server is there", |response| response.status == 200).await;
    let reached = server.requests();
    auth.on("/", Script::close_in_body(10, "half"));
    assert_eq!(vigie.get("/").await.status, 500);
    auth.on("/", Script::raw("nonsense\r\n\r\n"));
    assert_eq!(vigie.get("/").await.status, 500);
    auth.on("/", Script::no_answer());
    assert_eq!(vigie.get("/").await.status, 500);
    // A switch of protocols that nobody has asked for.
    auth.on("/", Script::upgrade_echo("websocket"));
    assert_eq!(vigie.get("/").await.status, 500);
    assert_eq!(server.requests(), reached);
}

#[tokio::test]
async fn bodies_go_to_both_whole_or_to_none() {
    let (server, auth) = (Origin::start("api").await, Origin::start("auth").await);
    let options = "forwardBody: true, maxBodySize: 10, preserveRequestMethod: true";
    let vigie = Vigie::start(&guarded(&auth.url(), options, &server)).await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        for body in [&b"0123456789"[..], b"x"] {
            let response = connection.request("PUT", "/", &[], Some(body)).await;
            assert_eq!((response.status, auth.last().method.as_str()), (200, "PUT"), "{protocol:?}");
            assert_eq!((server.last().body.as_slice(), auth.last().body.as_slice()), (body, body));
        }
        assert_eq!(connection.request("GET", "/", &[], None).await.status, 200);
        let reached = (server.requests(), auth.requests());
        let mut connection = protocol.connect(vigie.web()).await;
        assert_eq!(connection.request("PUT", "/", &[], Some(b"0123456789a")).await.status, 401);
        assert_eq!((server.requests(), auth.requests()), reached, "{protocol:?}");
    }
    // Of chunks nobody knows before how much they will be.
    let mut client = Client::connect(vigie.web()).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(format!("{head}5\r\nhello\r\n0\r\nX-User: evil\r\n\r\n")).await.unwrap();
    assert_eq!(client.response("POST").await.unwrap().status, 200);
    assert_eq!((server.last().body.as_slice(), auth.last().body.as_slice()), (&b"hello"[..], &b"hello"[..]));
    // Trailers would be looked at by nobody.
    assert_eq!(server.last().trailers.get("x-user"), None);
    client.send(format!("{head}b\r\n0123456789a\r\n0\r\n\r\n")).await.unwrap();
    assert_eq!(client.response("POST").await.unwrap().status, 401);
    // Whoever waits for a word before the body gets it, and once.
    let mut client = Client::connect(vigie.web()).await.unwrap();
    client
        .send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"))
        .await
        .unwrap();
    assert_eq!(client.any_head().await.unwrap().status, 100);
    client.send("ok").await.unwrap();
    assert_eq!(client.response("POST").await.unwrap().status, 200);
    assert_eq!((server.last().get("expect"), auth.last().get("expect")), (None, None));
    let label = [("middleware", "auth@file"), ("outcome", "too_large")];
    vigie.until_metric("lb_forward_auth_requests_total", &label, 3.0).await;
}

/// What the client sends meanwhile waits: nothing of it is lost, and nobody is told to send who would not have been.
#[tokio::test]
async fn a_body_waits_until_the_auth_server_has_spoken() {
    let (server, gate) = (Origin::start("api").await, Gate::closed());
    let held = gate.clone();
    let auth = Origin::with("auth", move |_| Script::text("").gated(&held)).await;
    let vigie = Vigie::start(&guarded(&auth.url(), "", &server)).await;
    let body: Vec<u8> = (0..1024 * 1024).map(|n: u32| b'a' + (n % 23) as u8).collect();
    for protocol in Protocol::BOTH {
        let (web, sent, asked) = (vigie.web(), body.clone(), auth.requests());
        let request = tokio::spawn(async move {
            protocol.connect(web).await.request("PUT", "/", &[], Some(&sent)).await.status
        });
        assert!(eventually(PATIENCE, async || auth.requests() > asked).await);
        gate.let_one_pass();
        assert_eq!(request.await.unwrap(), 200, "{protocol:?}");
        assert!(server.last().body == body, "{protocol:?}");
    }
    let head = format!("PUT / HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    let mut client = Client::connect(vigie.web()).await.unwrap();
    client.send(&head).await.unwrap();
    gate.let_one_pass();
    assert_eq!(client.any_head().await.unwrap().status, 100);
    client.send("ok").await.unwrap();
    assert_eq!(client.response("PUT").await.unwrap().status, 200);
    assert_eq!((server.last().get("expect"), auth.last().get("expect")), (Some("100-continue"), None));
    auth.on("/", Script::status(403));
    let mut client = Client::connect(vigie.web()).await.unwrap();
    client.send(&head).await.unwrap();
    assert_eq!(client.any_head().await.unwrap().status, 403);
}

#[tokio::test]
async fn cookies_of_the_auth_server_reach_the_client() {
    let (server, auth) = (Origin::start("api").await, Origin::start("auth").await);
    auth.on("/", Script::answer(204, &[("Set-Cookie", "sess=new; Path=/"), ("Set-Cookie", "b=1")], ""));
    server.on("/", Script::answer(200, &[("Set-Cookie", "sess=old"), ("Set-Cookie", "c=2")], ""));
    let vigie = Vigie::start(&guarded(&auth.url(), "addAuthCookiesToResponse: [sess]", &server)).await;
    for protocol in Protocol::BOTH {
        let response = protocol.get(vigie.web(), "/").await;
        assert_eq!(response.fields.all("set-cookie"), ["c=2", "sess=new; Path=/"], "{protocol:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_question_along() {
    let (server, gate) = (Origin::start("api").await, Gate::closed());
    let held = gate.clone();
    let auth = Origin::with("auth", move |_| Script::text("").gated(&held)).await;
    let vigie = Vigie::start(&guarded(&auth.url(), "", &server)).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await.unwrap();
    assert!(eventually(PATIENCE, async || auth.open_connections() == 1 && auth.requests() == 1).await);
    drop(client);
    vigie.until_metric("traefik_entrypoint_requests_total", &[("code", "499")], 1.0).await;
    // Its connection is not kept: nobody will read what comes over it.
    gate.let_one_pass();
    assert!(eventually(PATIENCE, async || auth.open_connections() == 0).await);
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn an_upgrade_is_asked_about_and_goes_on() {
    let (server, auth) = (Origin::start("api").await, Origin::start("auth").await);
    server.on("/socket", Script::upgrade_echo("websocket"));
    let vigie = Vigie::start(&guarded(&auth.url(), "", &server)).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    let fields = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "x")];
    let switched = client.request("GET", HOST, "/socket", &fields, None).await.unwrap();
    assert_eq!((switched.status, switched.get("upgrade")), (101, Some("websocket")));
    client.send("ping").await.unwrap();
    assert_eq!(client.bytes(4).await.unwrap(), b"ping");
    let asked = auth.last();
    assert_eq!((asked.get("upgrade"), asked.get("connection")), (None, None));
    assert_eq!(asked.get("sec-websocket-key"), Some("x"));
}

#[tokio::test]
async fn an_auth_server_behind_tls_is_checked_and_knows_us() {
    let (authority, files, server) = (Authority::new("ours"), Files::new(), Origin::start("api").await);
    files.write("ca.pem", authority.pem());
    authority.issue_client("vigie").write(files.path(), "client");
    let identity = authority.issue(&["localhost", "127.0.0.1"]).server_config_requiring(&[], &authority);
    let auth = Origin::tls("auth", identity, |_| Script::text("")).await;
    let port = auth.address().port();
    let address = format!("https://localhost:{port}/");
    let tls = "tls: {ca: '{dir}/ca.pem', cert: '{dir}/client.crt', key: '{dir}/client.key'}";
    let vigie = Vigie::over(files, STATIC, &guarded(&address, tls, &server)).await;
    for _ in 0..2 {
        assert_eq!(vigie.get("/").await.status, 200);
    }
    // Nor is anybody asked who cannot show a certificate of ours, nor anybody let in by one who does not know us.
    vigie.write(&guarded(&address, "tls: {insecureSkipVerify: true}", &server));
    vigie.until("we show no certificate", |response| response.status == 500).await;
    vigie.write(&guarded(&address, "tls: {cert: '{dir}/client.crt', key: '{dir}/client.key'}", &server));
    let reached = server.requests();
    vigie.until("the system does not know it", |response| response.status == 500).await;
    assert_eq!(server.requests(), reached);
}
