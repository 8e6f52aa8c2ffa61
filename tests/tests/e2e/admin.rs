//! What orchestrators and dashboards ask: probes and the read-only API.

use lb_testkit::{Authority, Client, Files, Origin, get};
use serde_json::{Value, json};

use crate::harness::{HOST, Protocol, STATIC, STATIC_TLS, Vigie, app, app_with};

async fn ready() -> (Vigie, Origin) {
    let server = Origin::start("api").await;
    let dynamic = format!(
        "{}  middlewares:\n    strip: {{stripPrefix: {{prefixes: [/api]}}}}\n",
        app_with(
            "middlewares: [strip]",
            "healthCheck: {path: /health, interval: 100ms, timeout: 2s}",
            &[server.url()]
        )
    );
    (Vigie::start(&dynamic).await, server)
}

#[tokio::test]
async fn orchestrators_get_their_answers() {
    let (vigie, server) = ready().await;
    vigie.until_metric("instance_health", &[("instance", &server.url())], 1.0).await;
    let ask = async |path: &str| get(vigie.admin(), "localhost", path).await.unwrap();
    let ping = ask("/ping").await;
    assert_eq!((ping.status, ping.text(), ping.get("content-type")), (200, "OK", None));
    for (path, status) in [("/live", "alive"), ("/ready", "ready"), ("/health", "healthy")] {
        let response = ask(path).await;
        assert_eq!((response.status, &response.json()["status"]), (200, &Value::from(status)), "{path}");
        assert!(response.get("content-type").unwrap().starts_with("application/json"), "{path}");
    }
    let health = ask("/health").await.json();
    assert_eq!(health["reasons"], json!([]), "{health}");
    assert_eq!(
        health["services"]["app@file"],
        json!({"servers": 1, "healthy": 1, "degraded": 0, "unhealthy": 0, "drain": 0, "maintenance": 0, "available": true})
    );
    assert!(
        health["version"].is_string()
            && health["uptimeSeconds"].is_u64()
            && health["configuration"]["loadedAt"].is_string()
    );
    // None of it is reachable where the traffic enters.
    for path in ["/ping", "/metrics", "/api/version", "/ready"] {
        assert_eq!(vigie.get(path).await.json()["origin"], "api", "{path}");
    }
    // HTTP/2 and other methods.
    assert_eq!(Protocol::Http2.get(vigie.admin(), "/ping").await.text(), "OK");
    let mut connection = Protocol::Http1.connect(vigie.admin()).await;
    assert_eq!(connection.request("HEAD", "/ping", &[], None).await.status, 200);
    assert_eq!(connection.request("POST", "/api/version", &[], None).await.status, 405);
}

#[tokio::test]
async fn the_api_shows_what_runs_in_traefiks_shapes() {
    let (vigie, server) = ready().await;
    let version = vigie.json("/api/version").await;
    assert!(
        version["Version"].is_string() && version["Codename"].is_string() && version["startDate"].is_string(),
        "{version}"
    );

    let overview = vigie.json("/api/overview").await;
    for kind in ["routers", "services", "middlewares"] {
        let part = &overview["http"][kind];
        assert!(part["total"].as_u64().unwrap() >= 1, "{overview}");
        assert_eq!((&part["warnings"], &part["errors"]), (&json!(0), &json!(0)), "{overview}");
    }
    assert_eq!(overview["features"], json!({"tracing": "", "metrics": "Prometheus", "accessLog": false}));
    assert_eq!(overview["providers"], json!(["File"]));

    let router = vigie.json("/api/http/routers/app@file").await;
    assert_eq!(
        router,
        json!({"entryPoints": router["entryPoints"], "middlewares": ["strip@file"], "service": "app",
            "rule": "PathPrefix(`/`)", "priority": 15, "priorityStr": "15", "observability": router["observability"],
            "status": "enabled", "using": router["using"], "name": "app@file", "provider": "file"})
    );
    let service = vigie.json("/api/http/services/app@file").await;
    assert_eq!(service["loadBalancer"]["servers"], json!([{"url": server.url()}]), "{service}");
    assert_eq!(service["loadBalancer"]["healthCheck"]["interval"], "100ms", "{service}");
    assert_eq!(service["serverStatus"], json!({server.url(): "UP"}));
    assert_eq!((&service["usedBy"], &service["type"]), (&json!(["app@file"]), &json!("loadbalancer")));
    let middleware = vigie.json("/api/http/middlewares/strip@file").await;
    assert_eq!(middleware["stripPrefix"], json!({"prefixes": ["/api"]}), "{middleware}");
    assert_eq!((&middleware["usedBy"], &middleware["type"]), (&json!(["app@file"]), &json!("stripprefix")));

    let entry_points = vigie.json("/api/entrypoints").await;
    let names: Vec<_> = entry_points.as_array().unwrap().iter().map(|entry| &entry["name"]).collect();
    assert_eq!(names, ["traefik", "web"]);
    assert_eq!(vigie.json("/api/entrypoints/web").await["address"], "127.0.0.1:0");
    let raw = vigie.json("/api/rawdata").await;
    assert!(raw["routers"]["app@file"].is_object() && raw["services"]["app@file"].is_object(), "{raw}");
    assert!(raw["middlewares"]["strip@file"].is_object(), "{raw}");

    let missing = get(vigie.admin(), "localhost", "/api/http/routers/x@file").await.unwrap();
    assert_eq!((missing.status, missing.json()), (404, json!({"message": "router not found: x@file"})));
    let bad = get(vigie.admin(), "localhost", "/api/http/routers?page=99").await.unwrap();
    assert_eq!(bad.status, 400);
}

#[tokio::test]
async fn lists_are_paged_and_searched() {
    let server = Origin::start("api").await;
    let routers: String = (0..25)
        .map(|n| format!("    r{n:02}: {{rule: 'Host(`h{n:02}.example.com`)', service: app}}\n"))
        .collect();
    let vigie =
        Vigie::start(&app("", &[server.url()]).replace("  routers:\n", &format!("  routers:\n{routers}")))
            .await;
    let page = get(vigie.admin(), "localhost", "/api/http/routers?per_page=10&search=example").await.unwrap();
    assert_eq!((page.get("x-next-page"), page.json().as_array().unwrap().len()), (Some("2"), 10));
    let last =
        get(vigie.admin(), "localhost", "/api/http/routers?per_page=10&search=example&page=3").await.unwrap();
    assert_eq!((last.get("x-next-page"), last.json().as_array().unwrap().len()), (Some("1"), 5));
    let found = vigie.json("/api/http/routers?search=h07.example").await;
    assert_eq!(found[0]["name"], "r07@file");
    let reversed = vigie.json("/api/http/routers?sortBy=name&direction=desc&search=example").await;
    assert_eq!(reversed[0]["name"], "r24@file");
}

#[tokio::test]
async fn a_router_with_one_unknown_entry_point_is_warned_about() {
    let server = Origin::start("api").await;
    let vigie = Vigie::start(&app_with("entryPoints: [nope, web]", "", &[server.url()])).await;
    let router = vigie.json("/api/http/routers/app@file").await;
    assert_eq!((&router["status"], &router["using"]), (&json!("warning"), &json!(["web"])), "{router}");
    assert!(router["error"][0].as_str().unwrap().contains("no entry point is called `nope`"), "{router}");
    assert_eq!(vigie.json("/api/overview").await["http"]["routers"]["warnings"], 1);
    assert_eq!(vigie.json("/health").await["status"], "healthy");
}

/// The API and the dashboard are off unless asked for, as in Traefik.
#[tokio::test]
async fn nothing_is_shown_unless_configured() {
    let server = Origin::start("api").await;
    let text = STATIC
        .replace("api: {insecure: true}\nping: {}\nmetrics: {prometheus: {addRoutersLabels: true}}\n", "");
    assert!(!text.contains("insecure"));
    let vigie = Vigie::with(&text, &app("", &[server.url()])).await;
    for path in ["/api/version", "/dashboard/", "/ping", "/metrics", "/health"] {
        let response = get(vigie.admin(), HOST, path).await.unwrap();
        // Only the router for everybody answers there, if it is bound to this entry point at all.
        assert!(response.status == 404 || response.json()["origin"] == "api", "{path}: {}", response.status);
    }
    // `api@internal` behind a router of one's own, with a password.
    let text = STATIC.replace("api: {insecure: true}", "api: {}");
    let router =
        "    admin: {rule: 'Host(`admin.example.com`)', service: api@internal, middlewares: [auth]}\n";
    let users = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";
    let dynamic = app("", &[server.url()]).replace("  routers:\n", &format!("  routers:\n{router}"));
    let dynamic =
        format!("{dynamic}  middlewares:\n    auth: {{basicAuth: {{users: ['someone:{users}']}}}}\n");
    let vigie = Vigie::with(&text, &dynamic).await;
    let mut connection = Protocol::Http2.connect(vigie.web()).await;
    let refused = connection.ask("GET", "admin.example.com", "/api/version", &[], None).await.unwrap();
    assert_eq!(refused.status, 401);
    let fields = [("authorization", "Basic c29tZW9uZTpzZWNyZXQ=")];
    let shown = connection.ask("GET", "admin.example.com", "/api/version", &fields, None).await.unwrap();
    assert_eq!(shown.status, 200);
    assert!(shown.json()["Version"].is_string());
}

#[tokio::test]
async fn the_dashboard_is_a_page() {
    let (vigie, _server) = ready().await;
    let page = get(vigie.admin(), "localhost", "/dashboard/").await.unwrap();
    assert_eq!(page.status, 200);
    assert!(page.get("content-type").unwrap().starts_with("text/html"));
    assert!(page.text().contains("Vigie"));
    let root = get(vigie.admin(), "localhost", "/").await.unwrap();
    assert!(
        root.status / 100 == 3 && root.get("location").unwrap().ends_with("/dashboard/"),
        "{}",
        root.status
    );
}

/// What an entry point asks for stands before Vigie's own routers too, and whatever a reload does to it, they never
/// answer without.
#[tokio::test]
async fn the_settings_of_an_entry_point_are_those_of_its_internal_routers() {
    let text = STATIC_TLS
        .replace(
            "  web: {address: '127.0.0.1:0'}",
            "  web: {address: '127.0.0.1:0', http: {middlewares: [limit@file], redirections: {entryPoint: {to: websecure}}}}",
        )
        .replace("  traefik: {address: '127.0.0.1:0'}", "  traefik: {address: '127.0.0.1:0', http: {middlewares: [auth@file]}}")
        .replace("ping: {}", "ping: {entryPoint: websecure}");
    let auth = "    auth: {basicAuth: {users: ['u:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=']}}\n";
    let limit = "    limit: {rateLimit: {average: 1, period: 1h, burst: 1}}\n";
    let (authority, files) = (Authority::new("authority"), Files::new());
    authority.issue(&[HOST]).write(files.path(), "app");
    let tls = "tls: {certificates: [{certFile: '{dir}/app.crt', keyFile: '{dir}/app.key'}]}\n";
    let vigie = Vigie::over(files, &text, &format!("http:\n  middlewares:\n{auth}{limit}{tls}")).await;
    let opened = async |credentials: &str| {
        let mut client = Client::connect(vigie.admin()).await.unwrap();
        let fields = [("Authorization", credentials)];
        client.request("GET", "localhost", "/api/rawdata", &fields, None).await.unwrap()
    };
    const USER: &str = "Basic dTpwYXNzd29yZA==";
    let closed = async |when: &str| {
        for path in ["/api/version", "/api/rawdata", "/dashboard/", "/metrics"] {
            let status = get(vigie.admin(), "localhost", path).await.unwrap().status;
            assert_eq!(status, 401, "{path} {when}");
        }
    };
    closed("at first").await;
    let shown = opened(USER).await.json();
    assert_eq!(shown["routers"]["api@internal"]["middlewares"], json!(["auth@file"]));
    assert_eq!(shown["routers"]["ping@internal"]["tls"], json!({"options": "default"}));

    assert_eq!(vigie.get("/").await.status, 301);
    assert_eq!(vigie.get("/").await.status, 429, "redirections are limited");

    assert_eq!(get(vigie.websecure(), HOST, "/ping").await.unwrap().status, 404, "only over TLS");
    let secure = Client::connect_tls(vigie.websecure(), authority.client_config(&[]), HOST).await;
    assert_eq!(secure.unwrap().get(HOST, "/ping").await.unwrap().status, 200);

    // Broken, then gone while it is needed.
    for (broken, sign) in [
        (auth.replace("users:", "usres:"), "the middleware auth@file is in quarantine"),
        (String::new(), "removed, but the entry point traefik still needs it"),
    ] {
        vigie.write(&format!("http:\n  middlewares:\n{broken}{limit}{tls}"));
        vigie.until_said(sign).await;
        closed(sign).await;
        assert_eq!(opened(USER).await.status, 200, "{sign}");
    }

    // Never there: nothing is served, and it is told.
    let vigie = Vigie::with(&text, &format!("http:\n  middlewares:\n{limit}")).await;
    for path in ["/api/version", "/dashboard/", "/metrics"] {
        assert_eq!(get(vigie.admin(), "localhost", path).await.unwrap().status, 404, "{path}");
    }
    vigie.until_said("middleware \"auth@file\" does not exist").await;
}
