//! The estates of config/harena and config/samaconso as they ship, but for addresses.

use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;

use lb_testkit::{Authority, Client, Files, Load, Origin, Response, Script};
use rustls::ClientConfig;

use crate::harness::{Vigie, binary, origin, shipped};

/// A Vigie on the shipped files, with a certificate of its own.
struct Estate {
    vigie: Vigie,
    tls: Arc<ClientConfig>,
    host: &'static str,
}

impl Estate {
    async fn start(host: &'static str, files: Files, static_text: &str) -> Self {
        let authority = Authority::new("authority");
        authority.issue(&[host]).write(files.path(), "site");
        let dir = files.path().display();
        let pair = format!("{{certFile: '{dir}/site.crt', keyFile: '{dir}/site.key'}}");
        files.write("dynamic/tls.yml", &format!("tls: {{certificates: [{pair}]}}\n"));
        let vigie = Vigie::launch(files, static_text).await;
        Self { vigie, tls: authority.client_config(&[]), host }
    }

    async fn client(&self) -> Client {
        Client::connect_tls(self.vigie.websecure(), Arc::clone(&self.tls), self.host).await.unwrap()
    }

    async fn request(&self, method: &str, path: &str, body: Option<&[u8]>) -> Response {
        let fields: &[_] =
            if body.is_some() { &[("Content-Type", "multipart/form-data; boundary=x")] } else { &[] };
        self.client().await.request(method, self.host, path, fields, body).await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.request("GET", path, None).await
    }
}

fn free(addresses: &[&'static str]) -> Vec<(&'static str, &'static str)> {
    addresses.iter().map(|address| (*address, "\"127.0.0.1:0\"")).collect()
}

/// H1, H3, H7: the path decides, the front end takes the rest, streams and uploads pass, one service's failure is its own.
#[tokio::test]
async fn harena_routes_one_host_by_path() {
    let names =
        ["front", "users", "search", "conversation", "accounts", "documents", "reports", "", "webhook"];
    let mut services = Vec::new();
    let files = Files::new();
    let mut dynamic = shipped("config/harena/dynamic/services.yml", &[("interval: 60s", "interval: 200ms")]);
    for (name, port) in names.into_iter().zip(3000..).filter(|(name, _)| !name.is_empty()) {
        let service = Origin::start(name).await;
        let url = format!("url: http://127.0.0.1:{port}");
        assert!(dynamic.contains(&url), "{url}");
        dynamic = dynamic.replace(&url, &format!("url: {}", service.url()));
        services.push(service);
    }
    files.write("dynamic/services.yml", &dynamic);
    let mut own = free(&["\":8000\"", "\":8443\"", "\"127.0.0.1:8082\"", "\"127.0.0.1:8080\""]);
    own.extend([
        ("config/harena/dynamic", "{dir}/dynamic"),
        ("filePath: /tmp/harena-access.log", "filePath: '{dir}/log/access.log'"),
    ]);
    std::fs::create_dir(files.path().join("log")).unwrap();
    let estate = Estate::start("harena.example.com", files, &shipped("config/harena/vigie.yml", &own)).await;
    for (path, service) in [
        ("/api/v1/users", "users"),
        ("/api/v1/users/7?x=1", "users"),
        ("/api/v1/users-export", "front"),
        ("/api/v1/search/all", "search"),
        ("/api/v1/accounts/1", "accounts"),
        ("/api/conversation/3", "conversation"),
        ("/webhooks/whatsapp", "webhook"),
        ("/api/v1/reports", "reports"),
        ("/", "front"),
        ("/settings/profile", "front"),
    ] {
        assert_eq!(origin(&estate.get(path).await), service, "{path}");
    }
    assert_eq!(estate.get("/health").await.text(), "OK");
    let secured = estate.get("/").await;
    assert_eq!(secured.get("strict-transport-security"), Some("max-age=31536000"));

    let form =
        format!("--x\r\nContent-Disposition: form-data; name=f\r\n\r\n{}\r\n--x--\r\n", "a".repeat(3 << 20));
    assert_eq!(
        origin(&estate.request("POST", "/api/v1/documents", Some(form.as_bytes())).await),
        "documents"
    );
    let conversation = &services[3];
    let events = Script::server_sent_events(&["one", "two"], std::time::Duration::from_millis(50));
    conversation.on("/api/conversation/events", events);
    let streamed = estate.get("/api/conversation/events").await;
    assert_eq!(streamed.get("content-type"), Some("text/event-stream"));
    assert!(streamed.text().contains("two"), "{}", streamed.text());

    // Health of the whole, and of one.
    services[2].stop().await;
    let search = services[2].url();
    estate.vigie.until_metric("instance_health", &[("instance", &search)], 0.0).await;
    assert_eq!(estate.get("/api/v1/search").await.status, 503);
    assert_eq!(origin(&estate.get("/api/v1/users").await), "users");
    let metrics = estate.vigie.address("metrics");
    let health = lb_testkit::get(metrics, "localhost", "/health").await.unwrap().json();
    assert_eq!(health["status"], "degraded", "{health}");
    assert_eq!(health["services"]["search@file"]["available"], false, "{health}");
}

/// S1, S3, S5: two instances take turns and learn who asked; maintenance costs no request; management wants a password.
#[tokio::test]
async fn samaconso_serves_two_instances() {
    let instances = [Origin::start("api-1").await, Origin::start("api-2").await];
    let files = Files::new();
    let urls = instances.each_ref().map(Origin::url);
    let api = shipped(
        "config/samaconso/dynamic/api.yml",
        &[
            ("http://127.0.0.1:8001", &urls[0]),
            ("http://127.0.0.1:8002", &urls[1]),
            ("interval: 5s", "interval: 200ms"),
        ],
    );
    files.write("dynamic/api.yml", &api);
    files.write("users", &shipped("config/samaconso/users", &[]));
    let token = files.write("token", "0123456789abcdef0123456789abcdef\n");
    let users = format!("{}/users", files.path().display());
    let management =
        shipped("config/samaconso/dynamic/management.yml", &[("config/samaconso/users", &users)]);
    files.write("dynamic/management.yml", &management);
    let mut own =
        free(&["\":8088\"", "\":8443\"", "\"127.0.0.1:8444\"", "\"127.0.0.1:8082\"", "\"127.0.0.1:8080\""]);
    own.extend([
        ("config/samaconso/dynamic", "{dir}/dynamic"),
        ("filePath: /tmp/samaconso-access.log", "filePath: '{dir}/log/access.log'"),
        ("# tokenFile: /etc/vigie/token", "tokenFile: '{dir}/token'"),
    ]);
    std::fs::create_dir(files.path().join("log")).unwrap();
    let host = "api.samaconso.example.com";
    let estate = Estate::start(host, files, &shipped("config/samaconso/vigie.yml", &own)).await;
    let first = origin(&estate.get("/").await);
    assert_ne!(origin(&estate.get("/").await), first);
    let seen =
        instances[0].seen().into_iter().find(|request| request.get("x-forwarded-for").is_some()).unwrap();
    assert!(seen.get("x-forwarded-for").unwrap().parse::<IpAddr>().unwrap().is_loopback());
    assert_eq!((seen.get("x-forwarded-proto"), seen.get("x-forwarded-host")), (Some("https"), Some(host)));

    let load = Load::new(estate.vigie.websecure(), host).tls(Arc::clone(&estate.tls), host).connections(8);
    let running = load.start();
    for state in ["maintenance", "ready"] {
        let mut order = Command::new(binary());
        order.args(["server", state, "api", &urls[0], "--wait", "--timeout", "10s"]);
        order.arg(format!("--address=http://{}", estate.vigie.admin()));
        order.arg(format!("--tokenFile={}", token.display()));
        let output = tokio::task::spawn_blocking(move || order.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        if state == "maintenance" {
            assert_eq!([origin(&estate.get("/").await), origin(&estate.get("/").await)], ["api-2", "api-2"]);
        }
    }
    running.stop().await.assert_flawless();

    let management = estate.vigie.address("management");
    let mut stranger = Client::connect_tls(management, Arc::clone(&estate.tls), host).await.unwrap();
    assert_eq!(stranger.get(host, "/api/rawdata").await.unwrap().status, 401);
    assert_eq!(lb_testkit::get(estate.vigie.admin(), "localhost", "/api/rawdata").await.unwrap().status, 401);
}
