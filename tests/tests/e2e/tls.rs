//! TLS at the entry point: certificates by name, renewed files, client certificates, protocols by ALPN.

use std::time::Duration;

use lb_testkit::{Answer, Authority, Client, Files, H2Client, H2Origin, Load, Origin, PATIENCE, eventually};
use rustls::ProtocolVersion;

use crate::harness::{HOST, STATIC_TLS, Vigie, app, origin};

/// A certificate of `authority` in the files, as `stem.crt` and `stem.key`.
fn issue(authority: &Authority, files: &Files, stem: &str, names: &[&str]) {
    authority.issue(names).write(files.path(), stem);
}

fn certificates(stems: &[&str]) -> String {
    let pairs: String = stems
        .iter()
        .map(|stem| format!("    - {{certFile: '{{dir}}/{stem}.crt', keyFile: '{{dir}}/{stem}.key'}}\n"))
        .collect();
    format!("tls:\n  certificates:\n{pairs}")
}

/// The certificate that a client is shown.
async fn shown(vigie: &Vigie, authority: &Authority, name: &str) -> anyhow::Result<Vec<u8>> {
    let client = Client::connect_tls(vigie.websecure(), authority.client_config(&[]), name).await?;
    let chain = client.tls().unwrap().peer_certificates().unwrap();
    Ok(chain[0].as_ref().to_vec())
}

#[tokio::test]
async fn the_name_decides_about_the_certificate() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    issue(&authority, &files, "exact", &["shop.example.com"]);
    issue(&authority, &files, "wildcard", &["*.example.com"]);
    issue(&authority, &files, "default", &["default.example.org"]);
    let server = Origin::start("api").await;
    let dynamic = format!(
        "{}{}  stores: {{default: {{defaultCertificate: {{certFile: '{{dir}}/default.crt', keyFile: '{{dir}}/default.key'}}}}}}\n",
        app("", &[server.url()]),
        certificates(&["exact", "wildcard"])
    );
    let vigie = Vigie::over(files, STATIC_TLS, &dynamic).await;
    for name in ["shop.example.com", "other.example.com", "SHOP.example.com"] {
        let mut client =
            Client::connect_tls(vigie.websecure(), authority.client_config(&[]), name).await.unwrap();
        assert_eq!(client.tls().unwrap().protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(origin(&client.get(name, "/").await.unwrap()), "api");
        let seen = server.last();
        assert_eq!(
            (seen.get("x-forwarded-proto"), seen.get("x-forwarded-port")),
            (Some("https"), Some("443"))
        );
    }
    let exact = shown(&vigie, &authority, "shop.example.com").await.unwrap();
    let wildcard = shown(&vigie, &authority, "other.example.com").await.unwrap();
    assert_ne!(exact, wildcard);
    let default = shown(&vigie, &authority, "default.example.org").await.unwrap();
    assert!(default != exact && default != wildcard);
    // A name of nobody gets the default certificate, which is not for it.
    assert!(shown(&vigie, &authority, "unknown.example.net").await.is_err());
    let metrics = vigie.metrics().await;
    assert!(metrics.value("traefik_tls_certs_not_after", &[("cn", "shop.example.com")]).unwrap() > 1e9);
    let tls = [("entrypoint", "websecure"), ("tls_version", "1.3")];
    assert!(metrics.value("traefik_entrypoint_requests_tls_total", &tls).unwrap() >= 3.0);
}

/// As by Traefik: a copy comes from a client over TLS as well.
#[tokio::test]
async fn requests_over_tls_are_counted_for_mirrors_too() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    issue(&authority, &files, "site", &[HOST]);
    let (server, mirror) = (Origin::start("api").await, Origin::start("mirror").await);
    let dynamic = format!(
        "http:
  routers:
    app: {{rule: 'Host(`{HOST}`)', service: both, tls: {{}}}}
  services:
    both: {{mirroring: {{service: main, mirrors: [{{name: copy, percent: 100}}]}}}}
    main: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
    copy: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}\n{}",
        server.url(),
        mirror.url(),
        certificates(&["site"])
    );
    let vigie = Vigie::over(files, STATIC_TLS, &dynamic).await;
    let mut client =
        Client::connect_tls(vigie.websecure(), authority.client_config(&[]), HOST).await.unwrap();
    assert_eq!(origin(&client.get(HOST, "/").await.unwrap()), "api");
    for service in ["main@file", "copy@file"] {
        let labels = [("service", service), ("tls_version", "1.3")];
        vigie.until_metric("traefik_service_requests_tls_total", &labels, 1.0).await;
    }
}

/// A renewed certificate file is served to new connections; old ones go on.
#[tokio::test]
async fn a_renewed_certificate_is_served_without_a_cut() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    issue(&authority, &files, "site", &[HOST]);
    let server = Origin::start("api").await;
    let dynamic = format!("{}{}", app("", &[server.url()]), certificates(&["site"]));
    let vigie = Vigie::over(files, STATIC_TLS, &dynamic).await;
    let load = Load::new(vigie.websecure(), HOST).tls(authority.client_config(&[]), HOST).connections(2);
    let running = load.pause(Duration::from_millis(1)).start();
    for _ in 0..2 {
        let before = shown(&vigie, &authority, HOST).await.unwrap();
        issue(&authority, &vigie.files, "site", &[HOST]);
        let renewed = eventually(PATIENCE, async || shown(&vigie, &authority, HOST).await.unwrap() != before);
        assert!(renewed.await, "the new certificate is served\n{}", vigie.words());
    }
    // A certificate without its key is refused, and the old pair stays.
    let before = shown(&vigie, &authority, HOST).await.unwrap();
    std::fs::write(vigie.files.path().join("site.key"), "no key\n").unwrap();
    vigie.until_said("tls.certificates[0].keyFile: ").await;
    assert_eq!(shown(&vigie, &authority, HOST).await.unwrap(), before);
    let report = running.stop().await;
    report.assert_flawless();
    assert_eq!(report.connections, 2);
}

#[tokio::test]
async fn alpn_chooses_between_http_1_and_2() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    issue(&authority, &files, "site", &[HOST]);
    let server = Origin::start("api").await;
    let dynamic = format!("{}{}", app("", &[server.url()]), certificates(&["site"]));
    let vigie = Vigie::over(files, STATIC_TLS, &dynamic).await;
    for (offer, taken) in
        [(&["h2", "http/1.1"][..], &b"h2"[..]), (&["http/1.1"], b"http/1.1"), (&["h2"], b"h2")]
    {
        let client =
            Client::connect_tls(vigie.websecure(), authority.client_config(offer), HOST).await.unwrap();
        assert_eq!(client.alpn(), Some(taken), "{offer:?}");
    }
    let client =
        H2Client::connect_tls(vigie.websecure(), authority.client_config(&["h2"]), HOST).await.unwrap();
    for n in 0..3 {
        let response = client.get(HOST, &format!("/{n}")).await.unwrap();
        assert_eq!((response.version.as_str(), origin(&response).as_str()), ("HTTP/2", "api"));
    }
    assert_eq!(server.last().get("x-forwarded-proto"), Some("https"));
    // Nothing in common is a failed handshake, not a guess.
    let nothing = Client::connect_tls(vigie.websecure(), authority.client_config(&["spdy/3"]), HOST).await;
    assert!(nothing.is_err());
    // Plain HTTP on the TLS port does not reach a server.
    let reached = server.requests();
    if let Ok(response) = lb_testkit::get(vigie.websecure(), HOST, "/").await {
        assert!(response.status >= 400, "{}", response.status);
    }
    assert_eq!(server.requests(), reached);
}

#[tokio::test]
async fn only_clients_with_a_certificate_come_in() {
    let (authority, people, strangers) =
        (Authority::new("servers"), Authority::new("people"), Authority::new("strangers"));
    let files = Files::new();
    issue(&authority, &files, "site", &[HOST]);
    files.write("people.pem", people.pem());
    let server = Origin::start("api").await;
    let dynamic = format!(
        "{}{}  options: {{default: {{clientAuth: {{caFiles: ['{{dir}}/people.pem'], clientAuthType: \
         RequireAndVerifyClientCert}}}}}}\n",
        app("", &[server.url()]),
        certificates(&["site"])
    );
    let vigie = Vigie::over(files, &format!("{STATIC_TLS}log: {{level: WARN}}\n"), &dynamic).await;
    let ask = async |config| -> anyhow::Result<u16> {
        let mut client = Client::connect_tls(vigie.websecure(), config, HOST).await?;
        Ok(client.get(HOST, "/").await?.status)
    };
    let known = people.issue_client("someone");
    let unknown = strangers.issue_client("someone");
    assert_eq!(ask(authority.client_config_with(&[], &known)).await.unwrap(), 200);
    assert!(ask(authority.client_config(&[])).await.is_err());
    assert!(ask(authority.client_config_with(&[], &unknown)).await.is_err());
    vigie.until_said("client certificates are refused entryPointName=websecure tlsOptions=default").await;
    vigie.until_said("reason=UnknownIssuer refused=1").await;
    let h2 = authority.client_config_with(&["h2"], &known);
    let client = H2Client::connect_tls(vigie.websecure(), h2, HOST).await.unwrap();
    assert_eq!(client.get(HOST, "/").await.unwrap().status, 200);
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn versions_and_unknown_names_are_refused_as_configured() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    issue(&authority, &files, "site", &[HOST]);
    let server = Origin::start("api").await;
    let dynamic = format!(
        "{}{}  options: {{default: {{minVersion: VersionTLS12, maxVersion: VersionTLS12, sniStrict: true}}}}\n",
        app("", &[server.url()]),
        certificates(&["site"])
    );
    let vigie = Vigie::over(files, STATIC_TLS, &dynamic).await;
    let client = Client::connect_tls(vigie.websecure(), authority.client_config(&[]), HOST).await.unwrap();
    assert_eq!(client.tls().unwrap().protocol_version(), Some(ProtocolVersion::TLSv1_2));
    let error = shown(&vigie, &authority, "unknown.example.net").await.unwrap_err();
    assert!(format!("{error:#}").to_lowercase().contains("unrecogni"), "{error:#}");
    // The minimum is a floor from the next handshake on.
    vigie.write(&dynamic.replace("VersionTLS12, maxVersion: VersionTLS12", "VersionTLS13"));
    let raised = eventually(PATIENCE, async || {
        let client =
            Client::connect_tls(vigie.websecure(), authority.client_config(&[]), HOST).await.unwrap();
        client.tls().unwrap().protocol_version() == Some(ProtocolVersion::TLSv1_3)
    });
    assert!(raised.await);
}

/// Towards servers: TLS with its own trust and name, HTTP/2 by ALPN, and h2c.
#[tokio::test]
async fn servers_speak_tls_http_2_and_h2c() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    files.write("root.pem", authority.pem());
    let certificate = authority.issue(&["backend.example.com"]);
    let h1 =
        Origin::tls("h1", certificate.server_config(&["http/1.1"]), |_| lb_testkit::Script::echo()).await;
    let h2 = H2Origin::tls("h2", certificate.server_config(&["h2"]), |_| Answer::echo()).await;
    let h2c = H2Origin::start("h2c", |_| Answer::echo()).await;
    let strict = Origin::tls("strict", certificate.server_config_requiring(&[], &authority), |_| {
        lb_testkit::Script::echo()
    })
    .await;
    let client = authority.issue_client("vigie");
    client.write(files.path(), "client");
    let dynamic = format!(
        "
http:
  routers:
    h1: {{rule: 'Path(`/h1`)', service: h1}}
    h2: {{rule: 'Path(`/h2`)', service: h2}}
    h2c: {{rule: 'Path(`/h2c`)', service: h2c}}
    strict: {{rule: 'Path(`/strict`)', service: strict}}
    untrusted: {{rule: 'Path(`/untrusted`)', service: untrusted}}
  services:
    h1: {{loadBalancer: {{serversTransport: ours, servers: [{{url: '{0}'}}]}}}}
    h2: {{loadBalancer: {{serversTransport: ours, servers: [{{url: '{1}'}}]}}}}
    h2c: {{loadBalancer: {{servers: [{{url: '{2}'}}]}}}}
    strict: {{loadBalancer: {{serversTransport: ours, servers: [{{url: '{3}'}}]}}}}
    untrusted: {{loadBalancer: {{servers: [{{url: '{0}'}}]}}}}
  serversTransports:
    ours:
      serverName: backend.example.com
      rootCAs: ['{{dir}}/root.pem']
      certificates: [{{certFile: '{{dir}}/client.crt', keyFile: '{{dir}}/client.key'}}]
",
        h1.url(),
        h2.url(),
        h2c.url(),
        strict.url()
    );
    let vigie = Vigie::over(files, crate::harness::STATIC, &dynamic).await;
    for protocol in crate::harness::Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        for (name, version) in
            [("h1", "HTTP/1.1"), ("h2", "HTTP/2"), ("h2c", "HTTP/2"), ("strict", "HTTP/1.1")]
        {
            let response =
                connection.request("POST", &format!("/{name}"), &[("x-a", "b")], Some(b"body")).await;
            let echo = response.json();
            assert_eq!((&echo["origin"], &echo["body"]), (&name.into(), &"body".into()), "{protocol:?}");
            assert_eq!(echo["version"], version, "{protocol:?} {name}");
            if name != "h2c" {
                assert_eq!(echo["server_name"], "backend.example.com");
            }
        }
        assert_eq!(connection.request("GET", "/untrusted", &[], None).await.status, 500, "{protocol:?}");
    }
    assert!(h2.connections() <= 2 && h2c.connections() <= 2, "streams share a connection per worker");
}

/// They get the default ones, as in Traefik, which nobody would expect.
#[tokio::test]
async fn it_is_said_that_options_do_not_apply() {
    let router = |path: &str| {
        format!(
            "{path}: {{rule: 'Host(`a.test`) && Path(`/{path}`)', service: noop@internal, tls: {{options: {path}}}}}"
        )
    };
    let dynamic = format!(
        "http: {{routers: {{{}, {}}}}}\ntls: {{options: {{strict: {{minVersion: VersionTLS13}}, \
         loose: {{minVersion: VersionTLS12}}}}}}\n",
        router("strict"),
        router("loose")
    );
    let vigie = Vigie::with(&format!("{STATIC_TLS}log: {{level: WARN}}\n"), &dynamic).await;
    for name in ["strict", "loose"] {
        let text = format!("routerName={name}@file tlsOptions={name}@file applied=default");
        vigie.until_said(&text).await;
        assert_eq!(vigie.json(&format!("/api/http/routers/{name}@file")).await["status"], "warning");
    }
}
