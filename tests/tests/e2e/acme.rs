//! Certificates from an ACME authority: ordered, renewed, kept, and what happens while it is away.

mod authority;
mod dns;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use authority::Authority;
use lb_testkit::{Client, Files, Load, Origin, PATIENCE, eventually, get};
use rustix::process::{Pid, Signal, kill_process};
use rustls::ClientConfig;

use crate::harness::{STATIC, Vigie, alive, binary};

/// An hour: nothing is renewed while a test looks.
const LONG: u32 = 3600;
const HTTP: (&str, &str) = ("le", "httpChallenge: {entryPoint: web}");
const TLS: (&str, &str) = ("alpn", "tlsChallenge: {}");
/// For an order; the first one makes an RSA key, which may take its time.
const ORDER: Duration = Duration::from_secs(30);

/// Routers with these rules and resolvers, all to one server.
fn dynamic(server: &str, routers: &[(&str, &str)]) -> String {
    let mut text = "http:\n  routers:\n".to_owned();
    for (index, (rule, resolver)) in routers.iter().enumerate() {
        text.push_str(&format!(
            "    r{index}: {{rule: '{rule}', service: s, tls: {{certResolver: {resolver}}}}}\n"
        ));
    }
    text + &format!(
        "    plain: {{rule: 'PathPrefix(`/`)', service: s, entryPoints: [web]}}\n  \
         services: {{s: {{loadBalancer: {{servers: [{{url: '{server}'}}]}}}}}}\n"
    )
}

/// The certificate that a client which trusts the authority is shown; `None`: one that it does not trust.
async fn shown(vigie: &Vigie, trust: &Arc<ClientConfig>, name: &str) -> Option<Vec<u8>> {
    let mut client = Client::connect_tls(vigie.websecure(), Arc::clone(trust), name).await.ok()?;
    assert_eq!(client.get(name, "/").await.unwrap().status, 200);
    Some(client.tls().unwrap().peer_certificates().unwrap()[0].as_ref().to_vec())
}

async fn until_shown(vigie: &Vigie, trust: &Arc<ClientConfig>, names: &[&str]) {
    for name in names {
        let came = eventually(ORDER, async || shown(vigie, trust, name).await.is_some()).await;
        assert!(came, "no certificate for {name}\n{}", vigie.words());
    }
}

#[tokio::test]
async fn names_get_their_certificates_over_either_challenge_and_keep_them() {
    let (authority, server) = (Authority::start(LONG, "").await, Origin::start("api").await);
    let fixed = authority.vigie(&[HTTP, TLS]);
    let two = dynamic(
        &server.url(),
        &[("Host(`a.example.com`) || Host(`b.example.com`)", "le"), ("Host(`c.example.com`)", "alpn")],
    );
    let mut vigie = Vigie::with(&fixed, &two).await;
    let trust = authority.client_config().await;
    until_shown(&vigie, &trust, &["a.example.com", "b.example.com", "c.example.com"]).await;
    let first = shown(&vigie, &trust, "a.example.com").await;
    assert_eq!(first, shown(&vigie, &trust, "b.example.com").await, "one certificate for a router's names");
    assert_eq!(authority.orders(), 2, "{}", authority.words());
    for (resolver, cn) in [("le", "a.example.com"), ("alpn", "c.example.com")] {
        vigie
            .until_metric("lb_acme_orders_total", &[("resolver", resolver), ("outcome", "ordered")], 1.0)
            .await;
        let metrics = vigie.metrics().await;
        assert!(metrics.value("traefik_tls_certs_not_after", &[("cn", cn)]).unwrap() > 1e9);
    }
    vigie.until_said("A certificate was ordered").await;
    assert_eq!(vigie.json("/health").await["status"], "healthy");
    let routers = vigie.json("/api/http/routers").await;
    let named = |name: &str| routers.as_array().unwrap().iter().find(|r| r["name"] == name).unwrap().clone();
    assert_eq!(named("r0@file")["tls"]["certResolver"], "le");
    assert_eq!(named("acme-http@internal")["entryPoints"], serde_json::json!(["web"]));

    let kept = vigie.files.path().join("acme.json");
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let kept: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(kept).unwrap()).unwrap();
    let domain = serde_json::json!({ "main": "a.example.com", "sans": ["b.example.com"] });
    assert_eq!(kept["le"]["Certificates"][0]["domain"], domain);
    assert!(kept["alpn"]["Account"]["Registration"]["uri"].as_str().unwrap().contains("/my-account/"));

    // A reload that names another one has it ordered, and nothing else.
    let routers = [("Host(`a.example.com`) || Host(`b.example.com`)", "le"), ("Host(`d.example.com`)", "le")];
    vigie.write(&dynamic(&server.url(), &routers));
    until_shown(&vigie, &trust, &["d.example.com"]).await;
    assert_eq!(authority.orders(), 3);

    // Another process finds the file and asks for nothing.
    vigie.process.stop(PATIENCE).await.unwrap();
    let vigie = Vigie::launch(vigie.files, &fixed).await;
    assert_eq!(shown(&vigie, &trust, "a.example.com").await, first, "before anything else happens");
    until_shown(&vigie, &trust, &["d.example.com"]).await;
    assert_eq!(authority.orders(), 3);
}

/// Certificates that live for six seconds are renewed after four.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_cost_no_request() {
    let (authority, server) = (Authority::start(6, "").await, Origin::start("api").await);
    let routers = [("Host(`a.example.com`)", "alpn")];
    let vigie = Vigie::with(&authority.vigie(&[TLS]), &dynamic(&server.url(), &routers)).await;
    let trust = authority.client_config().await;
    until_shown(&vigie, &trust, &["a.example.com"]).await;
    let first = shown(&vigie, &trust, "a.example.com").await;
    let load = Load::new(vigie.websecure(), "a.example.com").tls(Arc::clone(&trust), "a.example.com");
    let load = load.connections(2).pause(Duration::from_millis(2));
    // Every new connection looks at the certificate and its end; old ones go on over the renewal.
    let running = [load.clone().field("Connection", "close").start(), load.start()];
    vigie_renewed(&vigie, 2.0).await;
    for running in running {
        running.stop().await.assert_flawless();
    }
    assert_ne!(shown(&vigie, &trust, "a.example.com").await, first);
    let metrics = vigie.metrics().await;
    assert_eq!(metrics.value("lb_acme_orders_total", &[("outcome", "failed")]), None, "{}", vigie.words());
    vigie.until_said("A certificate was renewed").await;
}

async fn vigie_renewed(vigie: &Vigie, times: f64) {
    let renewed = eventually(ORDER, async || {
        let renewed = vigie.metrics().await.value("lb_acme_orders_total", &[("outcome", "renewed")]);
        renewed.is_some_and(|renewed| renewed >= times)
    });
    assert!(renewed.await, "{}", vigie.words());
}

#[tokio::test]
async fn while_the_authority_is_away_the_old_certificate_stays() {
    let (mut authority, server) = (Authority::start(18, "").await, Origin::start("api").await);
    let routers = [("Host(`a.example.com`)", "le")];
    let vigie = Vigie::with(&authority.vigie(&[HTTP]), &dynamic(&server.url(), &routers)).await;
    let trust = authority.client_config().await;
    until_shown(&vigie, &trust, &["a.example.com"]).await;
    let first = shown(&vigie, &trust, "a.example.com").await;
    authority.stop().await;
    let failed = eventually(ORDER, async || {
        let metrics = vigie.metrics().await;
        metrics.value("lb_acme_orders_total", &[("resolver", "le"), ("outcome", "failed")]) == Some(1.0)
    });
    assert!(failed.await, "{}", vigie.words());
    assert_eq!(shown(&vigie, &trust, "a.example.com").await, first);
    vigie.until_said("No certificate could be had").await;
    let health = vigie.json("/health").await;
    let reasons = health["reasons"].to_string();
    assert_eq!(health["status"], "degraded");
    assert!(
        reasons.contains("a.example.com: no connection to 127.0.0.1") && reasons.contains("next try at"),
        "{reasons}"
    );
}

/// The authority's own words reach the operator, and everything else is served.
#[tokio::test]
async fn a_name_that_is_not_validated_is_told_with_the_reason() {
    let (authority, server) = (Authority::start(LONG, "").await, Origin::start("api").await);
    // The authority looks at the port of `web`, and the answer is elsewhere.
    let elsewhere = ("le", "httpChallenge: {entryPoint: traefik}");
    let routers = [("Host(`a.example.com`) || Host(`*.b.example.com`)", "le")];
    let vigie = Vigie::with(&authority.vigie(&[elsewhere]), &dynamic(&server.url(), &routers)).await;
    let failed = eventually(ORDER, async || {
        vigie.metrics().await.value("lb_acme_orders_total", &[("outcome", "failed")]) == Some(1.0)
    });
    assert!(failed.await, "{}", vigie.words());
    let reasons = vigie.json("/health").await["reasons"].to_string();
    assert!(
        reasons.contains("the authority refuses: ") && reasons.contains("urn:ietf:params:acme:error:"),
        "{reasons}"
    );
    assert!(
        reasons.contains("*.b.example.com: a wildcard needs a resolver with `dnsChallenge`"),
        "{reasons}"
    );
    let trust = authority.client_config().await;
    assert_eq!(shown(&vigie, &trust, "a.example.com").await, None, "the default certificate");
    assert_eq!(get(vigie.web(), "a.example.com", "/").await.unwrap().status, 200);
    assert_eq!(authority.orders(), 1, "not asked again at once");
}

/// Options that only the authority understands: another chain, and an agreement made elsewhere.
#[tokio::test]
async fn the_wanted_chain_and_account_are_asked_for() {
    let keys = r#", "externalAccountBindingRequired": true,
        "externalAccountMACKeys": {"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}"#;
    let (authority, server) = (Authority::start(LONG, keys).await, Origin::start("api").await);
    let root = authority.root_name(1).await;
    let bound = format!(
        "tlsChallenge: {{}}, preferredChain: '{root}', eab: {{kid: kid-1, \
         hmacEncoded: zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W}}"
    );
    let routers = [("Host(`a.example.com`)", "alpn"), ("Host(`b.example.com`)", "le")];
    let fixed = authority.vigie(&[("alpn", &bound), HTTP]);
    let vigie = Vigie::with(&fixed, &dynamic(&server.url(), &routers)).await;
    // Only a client that trusts the other root believes it.
    let trust = authority.client_config_of(1).await;
    until_shown(&vigie, &trust, &["a.example.com"]).await;
    assert_eq!(shown(&vigie, &authority.client_config().await, "a.example.com").await, None);
    vigie.until_said("the authority wants an external account: set `eab`").await;
}

/// Of two processes one orders: the old one leaves the file to the new one.
#[tokio::test]
async fn after_an_upgrade_the_new_process_orders() {
    let (authority, server) = (Authority::start(LONG, "").await, Origin::start("api").await);
    let routers = [("Host(`a.example.com`)", "le"), ("Host(`b.example.com`)", "alpn")];
    let fixed = authority.vigie(&[HTTP, TLS]);
    let vigie = Vigie::with(&fixed, &dynamic(&server.url(), &routers[..1])).await;
    let trust = authority.client_config().await;
    until_shown(&vigie, &trust, &["a.example.com"]).await;
    let first = shown(&vigie, &trust, "a.example.com").await;
    let pid = vigie.process.pid();
    let upgraded = tokio::task::spawn_blocking(move || {
        Command::new(binary()).args(["upgrade", "--pid", &pid.to_string()]).output().unwrap()
    });
    let said = String::from_utf8(upgraded.await.unwrap().stdout).unwrap();
    let successor = said.split("handed over to process ").nth(1).and_then(|rest| rest.split(',').next());
    let successor = Process(successor.and_then(|pid| pid.parse().ok()).expect("it says who follows"));
    assert!(eventually(PATIENCE, async || !alive(pid)).await, "{}", vigie.words());
    assert_eq!(shown(&vigie, &trust, "a.example.com").await, first);
    vigie.write(&dynamic(&server.url(), &routers));
    until_shown(&vigie, &trust, &["b.example.com"]).await;
    assert_eq!(authority.orders(), 2, "{}", authority.words());
    drop(successor);
}

/// Ended with the test.
struct Process(i32);

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.0) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Without any challenge under way: who answers for the path, as in Traefik.
#[tokio::test]
async fn challenges_go_before_every_router_unless_they_are_to_pass_by() {
    let server = Origin::start("api").await;
    let resolvers = "certificatesResolvers: {le: {acme: {caServer: 'https://127.0.0.1:9/', storage: '{dir}/acme.json', \
                     httpChallenge: {entryPoint: web}}}}\n";
    let path = "/.well-known/acme-challenge/abc";
    for (by_pass, status) in [(false, 404), (true, 200)] {
        let fixed = STATIC.replace("web: {", &format!("web: {{allowACMEByPass: {by_pass}, ")) + resolvers;
        let routers = "http:\n  routers: {r: {rule: 'PathPrefix(`/`) && PathPrefix(`/.well-known/acme-challenge`)', service: s}, \
                       o: {rule: 'PathPrefix(`/`)', service: s}}\n";
        let routers = format!(
            "{routers}  services: {{s: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}}}\n",
            server.url()
        );
        let vigie = Vigie::with(&fixed, &routers).await;
        vigie.until("the router is there", |response| response.status == 200).await;
        let response = vigie.get(path).await;
        assert_eq!(response.status, status, "{by_pass}");
        if !by_pass {
            assert!(response.body.is_empty());
        }
    }
}

#[tokio::test]
async fn a_file_that_others_could_read_is_refused_and_everything_else_served() {
    let (server, files) = (Origin::start("api").await, Files::new());
    let path = files.path().join("acme.json");
    std::fs::write(&path, "{}").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let fixed = format!(
        "{STATIC}certificatesResolvers: {{le: {{acme: {{caServer: 'https://127.0.0.1:9/', \
         storage: '{{dir}}/acme.json', tlsChallenge: {{}}}}}}}}\n"
    );
    let routers = dynamic(&server.url(), &[("Host(`a.example.com`)", "le")]);
    let vigie = Vigie::over(files, &fixed, &routers).await;
    vigie.until("it is served", |response| response.status == 200).await;
    let health = vigie.json("/health").await;
    assert_eq!(health["status"], "degraded");
    assert!(health["reasons"].to_string().contains("permissions 644"), "{health}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{}");
    let config = vigie.files.path().join("vigie.yml");
    let checked = Command::new(binary())
        .arg("check")
        .arg(format!("--configFile={}", config.display()))
        .output()
        .unwrap();
    let said = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(1));
    assert!(said.contains("le.acme.storage") && said.contains("please use 600"), "{said}");
}
