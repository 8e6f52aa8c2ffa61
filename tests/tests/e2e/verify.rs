//! `vigie verify` finds what is not as it should be after a deployment, and says the way out (H5).

use std::net::SocketAddr;
use std::process::Command;

use lb_testkit::{Authority, Origin, PATIENCE, Script, VigieProcess, eventually, get, reserve_address};
use rcgen::CertificateParams;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::harness::{Vigie, binary};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Addresses that a file can name: what takes any free port cannot be compared with anything.
fn static_text(api: &str) -> String {
    let [web, websecure, traefik, names] = [(); 4].map(|()| reserve_address());
    format!(
        "core: {{workers: 1}}
entryPoints:
  web: {{address: '{web}'}}
  websecure: {{address: '{websecure}', http: {{tls: {{}}}}}}
  traefik: {{address: '{traefik}'}}
  names: {{address: '{names}/udp'}}
providers: {{file: {{filename: '{{dir}}/dynamic.yml'}}}}
ping: {{}}
api: {api}
"
    )
}

async fn verified(vigie: &Vigie, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    command.arg("verify").args(arguments);
    command.arg(format!("--configFile={}", vigie.files.path().join("vigie.yml").display()));
    command.env_remove("VIGIE_API_TOKEN").env_remove("VIGIE_API_ADDRESS");
    ended(&mut command).await
}

async fn ended(command: &mut Command) -> (Option<i32>, String) {
    let mut process = VigieProcess::spawn(command).expect("it can be started");
    let status = process.ended(PATIENCE).await.expect("it ends");
    (status.code(), process.stdout() + &process.stderr())
}

/// The line of the report that begins so.
fn line<'t>(told: &'t str, begins: &str) -> &'t str {
    told.lines().find(|line| line.starts_with(begins)).unwrap_or_else(|| panic!("no {begins:?} in\n{told}"))
}

fn dynamic(urls: &[String], check: &str) -> String {
    let servers: Vec<_> = urls.iter().map(|url| format!("{{url: '{url}'}}")).collect();
    format!(
        "http:
  routers: {{app: {{rule: 'Host(`app.test`) || Host(`*.wild.test`)', service: app}}}}
  services: {{app: {{loadBalancer: {{servers: [{}], healthCheck: {check}}}}}}}
tls: {{certificates: [{{certFile: '{{dir}}/site.crt', keyFile: '{{dir}}/site.key'}}]}}
",
        servers.join(", ")
    )
}

const CHECK: &str = "{path: /health, interval: 100ms, timeout: 2s, headers: {X-Api-Key: secret}}";

async fn start(api: &str, names: &[&str], dynamic: &str) -> Vigie {
    let files = lb_testkit::Files::new();
    Authority::new("authority").issue(names).write(files.path(), "site");
    Vigie::over(files, &static_text(api), dynamic).await
}

/// Answers its health check only to whoever knows the key, which the API does not show.
async fn guarded(name: &str) -> Origin {
    Origin::with(name, |request| match (request.path(), request.get("x-api-key")) {
        ("/health", Some("secret")) | ("/", _) => Script::echo(),
        _ => Script::status(401),
    })
    .await
}

#[tokio::test]
async fn nothing_is_said_of_what_is_right() {
    let (a, b) = (guarded("a").await, guarded("b").await);
    let names = ["app.test", "*.wild.test"];
    let vigie = start(&format!("{{token: {TOKEN}}}"), &names, &dynamic(&[a.url(), b.url()], CHECK)).await;
    let (code, told) = verified(&vigie, &["--wait", "20s"]).await;
    // Two copies of `app`, one for each entry point.
    let all =
        "all is as it should be: 4 entry points, 2 routers, 1 service, 2 servers, 2 certificate names\n";
    assert_eq!((code, &*told), (Some(0), all));

    let (code, told) = verified(&vigie, &["--json"]).await;
    let json: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (code, &json["ok"], &json["checked"]["servers"]),
        (Some(0), &true.into(), &2.into()),
        "{json}"
    );

    // Somebody drains it on purpose: that is told, and nothing is wrong.
    let mut drain = Command::new(binary());
    drain.args(["server", "maintenance", "app", &a.url(), "--by", "alice"]);
    drain.arg(format!("--configFile={}", vigie.files.path().join("vigie.yml").display()));
    assert_eq!(ended(&mut drain).await.0, Some(0));
    let (code, told) = verified(&vigie, &[]).await;
    let begins = format!("warning: service app@file, server {}: is in maintenance, as alice", a.url());
    assert!(
        line(&told, &begins).ends_with(&format!("`vigie server ready app@file {}` brings it back", a.url()))
    );
    assert_eq!(code, Some(0), "{told}");
}

/// The outage that made this command: a service bound to 127.0.0.1 behind a URL with another address.
#[tokio::test]
async fn a_service_on_another_address_than_configured_is_told() {
    let (bound, ill, dead) = (guarded("bound").await, Origin::start("ill").await, reserve_address());
    ill.on("/health", Script::status(503));
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], bound.address().port()));
    let urls = [format!("http://{elsewhere}"), ill.url(), format!("http://{dead}")];
    let vigie = start("{insecure: true}", &["app.test", "verify.wild.test"], &dynamic(&urls, CHECK)).await;
    let down = async || {
        let health = vigie.json("/health").await;
        health["services"]["app@file"]["unhealthy"] == 3
    };
    assert!(eventually(PATIENCE, down).await, "{}", vigie.words());
    let (code, told) = verified(&vigie, &[]).await;
    assert_eq!(code, Some(1), "{told}");
    let port = elsewhere.port();
    let of = |url: &str| format!("error: service app@file, server {url}: ");
    let expected = format!(
        "refuses connections: port {port} of this machine is bound to 127.0.0.1 only, not to 127.0.0.2"
    );
    let told_of_it = line(&told, &of(&urls[0]));
    assert!(told_of_it.contains(&expected), "{told_of_it}");
    assert!(
        told_of_it.ends_with("bind the service to 127.0.0.2 or 0.0.0.0, or write 127.0.0.1 into the URL")
    );
    assert!(line(&told, &of(&urls[1])).contains("its health check fails from here: answered 503"), "{told}");
    let nobody = format!("refuses connections: nothing listens on port {} of this machine", dead.port());
    assert!(line(&told, &of(&urls[2])).contains(&nobody), "{told}");
    line(&told, "3 errors, 0 warnings: ");
}

#[tokio::test]
async fn certificates_objects_and_entry_points_are_looked_at() {
    let a = guarded("a").await;
    // No TLS is spoken there.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let broken = "http:
  routers:
    lost: {rule: 'Host(`lost.test`)', service: nowhere}
    late: {rule: 'Host(`late.test`)', service: app}
    app: {rule: 'Host(`app.test`)', service: app}
    empty: {rule: 'Host(`app.test`) && Path(`/empty`)', service: empty}
    secure: {rule: 'Host(`app.test`) && Path(`/secure`)', service: secure}
  services:
    app: {loadBalancer: {servers: [{url: 'URL'}]}}
    empty: {loadBalancer: {servers: []}}
    secure: {loadBalancer: {servers: [{url: 'https://ADDRESS'}]}}
tls:
  certificates:
    - {certFile: '{dir}/site.crt', keyFile: '{dir}/site.key'}
    - {certFile: '{dir}/late.crt', keyFile: '{dir}/late.key'}
";
    let files = lb_testkit::Files::new();
    let authority = Authority::new("authority");
    authority.issue(&["other.test"]).write(files.path(), "site");
    let mut late = CertificateParams::new(vec!["late.test".to_owned()]).unwrap();
    late.not_after = rcgen::date_time_ymd(2020, 1, 1);
    authority.issue_with(late).write(files.path(), "late");
    let text = static_text("{insecure: true}") + "log: {level: WARN}\n";
    let vigie =
        Vigie::over(files, &text, &broken.replace("URL", &a.url()).replace("ADDRESS", &plain.to_string()))
            .await;
    // What is on disk since is not in force.
    let dir = vigie.files.path().display().to_string();
    let moved = text.replace("{dir}", &dir).replace("  web: ", "  more: {address: ':1'}\n  web: ");
    vigie.files.write("vigie.yml", &moved);
    let (code, told) = verified(&vigie, &[]).await;
    assert_eq!(code, Some(1), "{told}");
    for begins in [
        "error: entry point more :1: is in ",
        "error: router lost@file: is left out: ",
        "error: service empty@file: has no server, and router ",
        "error: certificate of app.test on entry point websecure: there is none for this name: clients get the self-signed one",
        "error: certificate of late.test on entry point websecure: expired at 2020-01-01T00:00:00Z; ",
    ] {
        line(&told, begins);
    }
    let secure = line(&told, "error: service secure@file, server https://");
    assert!(secure.contains(": the TLS handshake fails: ") && secure.contains("`rootCAs`"), "{secure}");
    assert!(!told.contains("error: service app@file"), "{told}");
    vigie.until_said("a certificate has expired").await;
    let words = vigie.words();
    let expired: Vec<_> = words.lines().filter(|line| line.contains("a certificate has expired")).collect();
    assert!(matches!(expired[..], [line] if line.contains("names=late.test")), "{words}");
}

#[tokio::test]
async fn the_api_may_want_a_password() {
    let a = guarded("a").await;
    let files = lb_testkit::Files::new();
    let staff = "  middlewares: {staff: {basicAuth: {users: ['bob:{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=']}}}\n";
    let text = static_text("{insecure: true}");
    let admin = text.lines().find(|line| line.contains("traefik: ")).unwrap().to_owned();
    let guarded = admin.replace("'}", "', http: {middlewares: [staff@file]}}");
    let dynamic = format!(
        "http:\n{staff}  services: {{app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}}}\n",
        a.url()
    );
    let vigie = Vigie::over(files, &text.replace(&admin, &guarded), &dynamic).await;
    assert_eq!(get(vigie.admin(), "localhost", "/api/version").await.unwrap().status, 401);

    let (code, told) = verified(&vigie, &[]).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(line(&told, "error: API: ").contains("401"), "{told}");
    // `password` of the test vector is empty.
    let with = |user: &str| format!("--address=http://{user}@{}", vigie.admin());
    let (code, told) = verified(&vigie, &[&with("bob:")]).await;
    assert_eq!((code, told.contains("all is as it should be")), (Some(0), true), "{told}");

    let mut nobody = Command::new(binary());
    nobody.args(["verify", "--address=http://127.0.0.1:1"]).current_dir("/");
    let (code, told) = ended(&mut nobody).await;
    assert_eq!(code, Some(1));
    assert!(told.contains("error: API: no answer from http://127.0.0.1:1"), "{told}");
}
