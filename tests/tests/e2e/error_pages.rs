//! `errors`: pages of another service in place of answers, whoever gave them.

use lb_testkit::{Client, Origin, PATIENCE, Script, eventually, reserve_address};

use crate::harness::{HOST, Protocol, STATIC, Vigie, app_with};

/// Every request goes through `middlewares` to these servers; `errors` are the options of `pages`, whose service is
/// `pages`. `more` are further middlewares, as lines.
fn with_pages(middlewares: &str, errors: &str, more: &str, urls: &[String], pages: &str) -> String {
    let router = app_with(&format!("middlewares: [{middlewares}]"), "", urls);
    let pages = format!("    pages: {{loadBalancer: {{servers: [{{url: '{pages}'}}]}}}}\n");
    let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
    format!("{router}{pages}  middlewares:\n    pages: {{errors: {{service: pages, {errors}}}}}\n{more}")
}

#[tokio::test]
async fn listed_answers_get_a_page_with_their_own_status() {
    let (server, pages) = (Origin::start("api").await, Origin::start("pages").await);
    let errors = "status: ['404', 500-599], statusRewrites: {'500': 418}, \
                  query: '/{status}.html?was={originalStatus}&at={url}', errorRequestHeaders: [X-Kept]";
    server.on("/missing", Script::answer(404, &[("X-Origin", "1"), ("Set-Cookie", "a=b")], "not here"));
    server.on("/ill", Script::status(500));
    server.on("/fine", Script::text("fine"));
    for page in ["/404.html", "/418.html"] {
        pages.on(page, Script::answer(200, &[("X-Page", "1")], "sorry"));
    }
    let log = format!("{STATIC}accessLog: {{filePath: '{{dir}}/access.log', format: json}}\n");
    let vigie = Vigie::with(&log, &with_pages("pages", errors, "", &[server.url()], &pages.url())).await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        let fields = [("x-kept", "1"), ("x-other", "2"), ("if-none-match", "x"), ("cookie", "a=b")];
        let response = connection.request("POST", "/missing?c=d", &fields, Some(b"body")).await;
        assert_eq!((response.status, response.text()), (404, "sorry"), "{protocol:?}");
        assert_eq!((response.get("x-page"), response.get("x-origin")), (Some("1"), None));
        assert_eq!((response.get("content-length"), response.get("set-cookie")), (Some("5"), None));
        let asked = pages.last();
        let target = format!("/404.html?was=404&at=http%3A%2F%2F{HOST}%2Fmissing%3Fc%3Dd");
        assert_eq!((&*asked.method, &*asked.target, asked.get("host")), ("GET", &*target, Some(HOST)));
        assert_eq!((asked.get("x-kept"), asked.get("x-other"), asked.get("cookie")), (Some("1"), None, None));
        assert_eq!(asked.get("content-length"), None);
        let response = connection.request("GET", "/ill", &[], None).await;
        assert_eq!((response.status, response.text()), (418, "sorry"));
        let head = connection.request("HEAD", "/ill", &[], None).await;
        assert_eq!((head.status, head.text(), head.get("content-length")), (418, "", Some("5")));
        assert_eq!(connection.request("GET", "/fine", &[], None).await.text(), "fine");
    }
    // What was replaced has not cost its connection.
    assert!(server.connections() <= 2, "{}", server.connections());
    let label = [("middleware", "pages@file"), ("outcome", "served")];
    vigie.until_metric("lb_error_pages_total", &label, 6.0).await;
    vigie
        .until_metric("traefik_router_requests_total", &[("code", "404"), ("router", "app@file")], 2.0)
        .await;
    // The service counts what it has said itself.
    let ill = [("code", "500"), ("service", "app@file")];
    vigie.until_metric("traefik_service_requests_total", &ill, 4.0).await;
    assert_eq!(vigie.metrics().await.value("traefik_service_requests_total", &[("code", "418")]), None);
    let path = vigie.files.path().join("access.log");
    let logged = async || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let found = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        found.into_iter().any(|line| {
            line["DownstreamStatus"] == 404
                && line["OriginStatus"] == 200
                && line["ServiceName"] == "pages@file"
                && line["RequestContentSize"] == 4
        })
    };
    assert!(eventually(PATIENCE, logged).await);
}

#[tokio::test]
async fn what_vigie_itself_answers_gets_a_page_too() {
    let pages = Origin::with("pages", |_| Script::text("page")).await;
    let auth = "auth: {basicAuth: {users: ['a:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=']}}";
    let dead = format!("http://{}", reserve_address());
    let errors = "status: ['401', 500-599]";
    for (middlewares, more, urls, status) in
        [("pages", "", vec![], 503), ("pages", "", vec![dead], 502), ("pages, auth", auth, vec![], 401)]
    {
        let vigie = Vigie::start(&with_pages(middlewares, errors, more, &urls, &pages.url())).await;
        for protocol in Protocol::BOTH {
            let response = protocol.get(vigie.web(), "/").await;
            assert_eq!((response.status, response.text()), (status, "page"), "{protocol:?} {middlewares}");
            assert_eq!((response.get("www-authenticate"), response.get("retry-after")), (None, None));
        }
    }
    // In front of it nothing is replaced.
    let vigie = Vigie::start(&with_pages("auth, pages", errors, auth, &[], &pages.url())).await;
    assert_eq!(vigie.get("/").await.text(), "401 Unauthorized\n");
}

#[tokio::test]
async fn a_page_that_cannot_be_had_changes_no_status() {
    let (server, pages) = (Origin::start("api").await, Origin::start("pages").await);
    server.on("/", Script::answer(404, &[], "not here"));
    let dead = format!("http://{}", reserve_address());
    let errors = "status: ['404', '304'], query: /page";
    let vigie = Vigie::start(&with_pages("pages", errors, "", &[server.url()], &dead)).await;
    for protocol in Protocol::BOTH {
        let response = protocol.get(vigie.web(), "/").await;
        assert_eq!((response.status, response.text()), (404, "Bad Gateway"), "{protocol:?}");
    }
    let label = [("middleware", "pages@file"), ("outcome", "failed")];
    vigie.until_metric("lb_error_pages_total", &label, 2.0).await;
    // One without a body, that names a length all the same.
    pages.on("/page", Script::raw("HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n"));
    vigie.write(&with_pages("pages", errors, "", &[server.url()], &pages.url()));
    vigie.until("there is no body", |response| response.status == 404 && response.text().is_empty()).await;
    // And a page for what never has a body.
    pages.on("/page", Script::text("page"));
    server.on("/", Script::status(304));
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        for _ in 0..2 {
            let response = connection.request("GET", "/", &[], None).await;
            assert_eq!((response.status, response.text()), (304, ""), "{protocol:?}");
        }
    }
}

/// What is on its way already, or speaks for itself, is left alone.
#[tokio::test]
async fn upgrades_interim_answers_and_grpc_are_left_alone() {
    let (server, pages) = (Origin::start("api").await, Origin::with("pages", |_| Script::text("page")).await);
    server.on("/socket", Script::upgrade_echo("websocket"));
    server.on("/early", Script::status(404).after_informational(103, &[("Link", "</a>")]));
    server
        .on("/grpc", Script::answer(503, &[("Content-Type", "application/grpc"), ("Grpc-Status", "14")], ""));
    let errors = "status: ['100-999']";
    let vigie = Vigie::start(&with_pages("pages", errors, "", &[server.url()], &pages.url())).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    let response = client.get(HOST, "/early").await.unwrap();
    assert_eq!((response.status, response.text()), (404, "page"));
    assert_eq!(response.informational.iter().map(|interim| interim.status).collect::<Vec<_>>(), [103]);
    let response = client.get(HOST, "/grpc").await.unwrap();
    assert_eq!((response.status, response.get("grpc-status")), (503, Some("14")));
    let fields = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "x")];
    assert_eq!(client.request("GET", HOST, "/socket", &fields, None).await.unwrap().status, 101);
    client.send("ping").await.unwrap();
    assert_eq!(client.bytes(4).await.unwrap(), b"ping");
}

/// Around a retry the last try counts; behind one every answer is judged by what the server has said of itself.
#[tokio::test]
async fn pages_retries_and_bodies_go_together() {
    let pages = Origin::with("pages", |_| Script::text("page")).await;
    let (good, ill) = (Origin::start("good").await, Origin::with("ill", |_| Script::status(503)).await);
    let auth = Origin::start("auth").await;
    let more = format!(
        "again: {{retry: {{attempts: 2, status: ['503']}}}}\n\
         auth: {{forwardAuth: {{address: '{}', forwardBody: true, maxBodySize: 100}}}}",
        auth.url()
    );
    let both = [ill.url(), good.url()];
    for middlewares in
        ["pages, again", "again, pages", "pages, auth, again", "again, auth, pages", "auth, again, pages"]
    {
        let vigie =
            Vigie::start(&with_pages(middlewares, "status: ['503']", &more, &both, &pages.url())).await;
        for protocol in Protocol::BOTH {
            let mut connection = protocol.connect(vigie.web()).await;
            for _ in 0..4 {
                let response = connection.request("PUT", "/", &[], Some(b"body")).await;
                assert_eq!(response.status, 200, "{protocol:?} {middlewares}");
                assert_eq!(response.json()["body"], "body", "{protocol:?} {middlewares}");
            }
        }
        vigie.write(&with_pages(middlewares, "status: ['503']", &more, &[ill.url()], &pages.url()));
        vigie.until("nobody is well", |response| response.status == 503 && response.text() == "page").await;
    }
}

/// What middlewares behind it have decided about the answer that it replaces is not about the page.
#[tokio::test]
async fn pages_have_their_own_form() {
    let (server, pages) = (Origin::start("api").await, Origin::start("pages").await);
    server.on("/ill", Script::answer(500, &[], "it is ill"));
    pages.on("/p", Script::answer(200, &[], "<html>sorry</html>"));
    let more = "press: {compress: {minResponseBodyBytes: 1}}\ntypes: {contentType: {}}".replace("{}", "true");
    let text =
        with_pages("pages, press, types", "status: '500', query: /p", &more, &[server.url()], &pages.url());
    let vigie = Vigie::start(&text).await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        let page = connection.request("GET", "/ill", &[("accept-encoding", "gzip")], None).await;
        assert_eq!((page.status, page.text()), (500, "<html>sorry</html>"), "{protocol:?}");
        assert_eq!((page.get("content-encoding"), page.get("content-type")), (None, None));
    }
}
