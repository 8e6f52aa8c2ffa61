//! Upgrade of Vigie itself: one process follows the other, and nobody notices.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use lb_testkit::{
    Authority, Client, Files, Gate, Load, Origin, PATIENCE, Script, VigieProcess, eventually, get,
    reserve_address,
};
use rustix::process::Signal;
use rustls::HandshakeKind;

use super::dynasty::{Dynasty, upgrade};
use crate::harness::{HOST, Protocol, STATIC, STATIC_TLS, alive, app, binary, origin};

const UPGRADES: usize = 20;
/// For a program that hangs.
const IMPATIENT: &str = "core: {workers: 2, upgradeTimeout: 2s}";

fn with_workers(workers: usize) -> String {
    STATIC.replace("workers: 2", &format!("workers: {workers}"))
}

/// The promise as a whole, with another number of workers each time: sockets are shared out anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_upgrades_under_load_lose_nothing() {
    let server = Origin::start("api").await;
    let mut vigie = Dynasty::found(&with_workers(2), &app("", &[server.url()])).await;
    let load = || Load::new(vigie.web(), HOST).connections(4).pause(Duration::from_millis(1));
    let running = [load().start(), load().field("Connection", "close").start(), load().h2().start()];
    for turn in 0..UPGRADES {
        let before = running.each_ref().map(lb_testkit::Running::done);
        vigie.write("vigie.yml", &with_workers([3, 1, 4, 2][turn % 4]));
        vigie.upgrade().await;
        let goes_on = eventually(PATIENCE, async || {
            running.iter().zip(before).all(|(load, before)| load.done() > before + 10)
        });
        assert!(goes_on.await, "upgrade {turn}\n{}", vigie.words());
    }
    for running in running {
        running.stop().await.assert_flawless();
    }
    assert_eq!(vigie.metric("lb_upgrades_total").await, Some(UPGRADES as f64));
    assert_eq!(vigie.metric("lb_upgrade_failures_total").await, Some(0.0));
    vigie.until_alone().await;
    vigie.stop().await;
}

#[tokio::test]
async fn sigusr2_upgrades_too() {
    let server = Origin::start("api").await;
    let mut vigie = Dynasty::found(STATIC, &app("", &[server.url()])).await;
    for _ in 0..2 {
        vigie.upgrade_by_signal().await;
        assert_eq!(vigie.status().await, 200);
    }
    assert_eq!(vigie.metric("lb_upgrades_total").await, Some(2.0));
}

/// The new process is started with the same command line and environment, so without a file, too.
#[tokio::test]
async fn flags_and_variables_go_along() {
    let server = Origin::start("api").await;
    for by_flags in [true, false] {
        let dynamic = app("", &[server.url()]);
        let vigie = Dynasty::found_over(Files::new(), &dynamic, |program, directory| {
            let mut command = Command::new(program);
            for (path, value) in [
                ("entryPoints.web.address", "127.0.0.1:0"),
                ("entryPoints.traefik.address", "127.0.0.1:0"),
                ("providers.file.filename", &*directory.join("dynamic.yml").to_string_lossy()),
                ("metrics.prometheus", "true"),
                ("api.insecure", "true"),
            ] {
                if by_flags {
                    command.arg(format!("--{path}={value}"));
                } else {
                    command.env(format!("TRAEFIK_{}", path.replace('.', "_").to_uppercase()), value);
                }
            }
            command
        });
        let mut vigie = vigie.await;
        let load = Load::new(vigie.web(), HOST).connections(2).pause(Duration::from_millis(1)).start();
        vigie.upgrade().await;
        vigie.upgrade().await;
        let done = load.done();
        assert!(eventually(PATIENCE, async || load.done() > done + 10).await, "{}", vigie.words());
        load.stop().await.assert_flawless();
        assert_eq!(vigie.metric("lb_upgrades_total").await, Some(2.0));
        vigie.until_alone().await;
        vigie.stop().await;
    }
}

/// The new process cannot know what a file said before it was emptied.
#[tokio::test]
async fn an_emptied_file_takes_nothing_away_by_an_upgrade() {
    let server = Origin::start("api").await;
    let text = STATIC.replace("filename: '{dir}/dynamic.yml'", "directory: '{dir}/conf'");
    let files = Files::new();
    let [main, other] = ["conf/app.yml", "conf/other.yml"];
    let config = files.write("vigie.yml", &text.replace("{dir}", &files.path().to_string_lossy()));
    files.write(main, &app("", &[server.url()]));
    files.write(other, "http: {routers: {other: {rule: 'Path(`/other`)', service: noop@internal}}}");
    let mut vigie = Dynasty::found_over(files, "", |program, _| {
        let mut command = Command::new(program);
        command.arg(format!("--configFile={}", config.display()));
        command
    })
    .await;
    // Somebody writes it, and is not done.
    vigie.write(main, "");
    let told = vigie.try_upgrade().await.unwrap_err();
    assert!(told.contains("app.yml no longer says what is in force here"), "{told}");
    assert_eq!(vigie.status().await, 200);
    vigie.write(main, &app("", &[server.url()]));
    vigie.upgrade().await;
    assert_eq!(vigie.status().await, 200);
    vigie.stop().await;
}

/// The new one has been given the sockets by then, and nobody else has them.
#[tokio::test]
async fn a_new_process_serves_when_the_old_one_has_died() {
    let server = Origin::start("api").await;
    let gate = Gate::closed();
    let endpoint = Origin::with("endpoint", |_| Script::status(404)).await;
    let conf = "http: {routers: {more: {rule: 'Path(`/more`)', service: noop@internal}}}";
    endpoint.on("/conf", Script::text(conf));
    let polls = format!("providers: {{http: {{endpoint: '{}/conf', pollInterval: 1h}}, ", endpoint.url());
    let text = STATIC.replace("providers: {", &polls);
    let mut vigie = Dynasty::found(&text, &app("", &[server.url()])).await;
    // What the new one waits for before it is ready.
    endpoint.on("/conf", Script::text(conf).gated(&gate));
    let asked = endpoint.requests();
    vigie.die_upgrading(|| endpoint.requests() > asked).await;
    let web = vigie.web();
    let waits = tokio::spawn(get(web, HOST, "/"));
    gate.let_one_pass();
    vigie.until_succeeded().await;
    assert_eq!(waits.await.unwrap().unwrap().status, 200);
    assert_eq!(vigie.status().await, 200);
    vigie.stop().await;
}

/// Whatever is wrong with the new process, the old one serves on and says what.
#[tokio::test]
async fn a_new_process_that_fails_leaves_the_old_one_serving() {
    let server = Origin::start("api").await;
    let dynamic = app("", &[server.url()]);
    let text = STATIC.replace("core: {workers: 2}", IMPATIENT);
    let mut vigie = Dynasty::found(&text, &dynamic).await;
    let load = Load::new(vigie.web(), HOST).connections(2).pause(Duration::from_millis(5)).start();
    let script = |name: &str, body: &str| script(&vigie.files, name, body);
    let [exits, crashes, hangs] = [
        script("exits", "echo out of order >&2; exit 7"),
        script("crashes", "kill -SEGV $$"),
        script("hangs", "exec sleep 600"),
    ];
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let also = format!("entryPoints:\n  also: {{address: '{}'}}", taken.local_addr().unwrap());
    let broken_router = dynamic.replace("services:", "  more: {rule: 'Host(', service: app}\n  services:");
    assert_ne!(broken_router, dynamic);
    let missing = vigie.files.path().join("missing");
    let mut failures = 0.0;
    for (program, static_text, dynamic_text, why) in [
        (missing.as_path(), text.as_str(), dynamic.as_str(), "cannot be started: No such file"),
        (&exits, &text, &dynamic, "exit status: 7): out of order"),
        (&crashes, &text, &dynamic, "signal: 11"),
        (&hangs, &text, &dynamic, "not ready within 2s"),
        (binary(), "core: {workers: many}", &dynamic, "core.workers"),
        (binary(), &text.replace("entryPoints:", &also), &dynamic, "entry point \"also\" cannot listen on"),
        (binary(), &text, "http: [", "the dynamic configuration is refused"),
        (binary(), &text, &broken_router, "would lose what is served now: router more@file"),
    ] {
        vigie.replace_program(program);
        vigie.write("vigie.yml", static_text);
        vigie.write("dynamic.yml", dynamic_text);
        let told = vigie.try_upgrade().await.unwrap_err();
        assert!(told.contains(why) && told.contains("goes on serving"), "{why:?} is not in {told:?}");
        failures += 1.0;
        assert_eq!(vigie.metric("lb_upgrade_failures_total").await, Some(failures));
        let logged = eventually(PATIENCE, async || vigie.words().contains("the upgrade failed"));
        assert!(logged.await, "{}", vigie.words());
        assert_eq!(vigie.status().await, 200);
    }
    vigie.write("vigie.yml", &text);
    vigie.write("dynamic.yml", &dynamic);
    vigie.upgrade().await;
    load.stop().await.assert_flawless();
    assert_eq!(vigie.metric("lb_upgrades_total").await, Some(1.0));
    assert_eq!(vigie.metric("lb_upgrade_failures_total").await, Some(failures));
}

/// A server that is out stays out: it gets no request while the new process has not probed it yet.
#[tokio::test]
async fn health_goes_along() {
    let good = Origin::start("good").await;
    let bad = Origin::start("bad").await;
    bad.on("/health", Script::status(500));
    let check = "healthCheck: {path: /health, interval: 1s, timeout: 1s}";
    let mut vigie = Dynasty::found(STATIC, &app(check, &[good.url(), bad.url()])).await;
    let out = eventually(PATIENCE, async || vigie.metric("health_check_failures_total").await > Some(0.0));
    assert!(out.await);
    let traffic = || bad.seen().iter().filter(|request| request.target == "/").count();
    let load = Load::new(vigie.web(), HOST).connections(4).pause(Duration::from_millis(1)).start();
    let before = traffic();
    for _ in 0..5 {
        let done = load.done();
        vigie.upgrade().await;
        assert!(eventually(PATIENCE, async || load.done() > done + 50).await);
    }
    load.stop().await.assert_flawless();
    assert_eq!(traffic(), before, "{}", vigie.words());
}

/// What an operator has taken out of service stays out, over upgrades and over reloads after them.
#[tokio::test]
async fn operator_states_go_along() {
    let (kept, resting) = (Origin::start("kept").await, Origin::start("resting").await);
    let token = "0123456789abcdef0123456789abcdef";
    let statics =
        STATIC.replace("api: {insecure: true}", &format!("api: {{insecure: true, token: {token}}}"));
    let dynamic = app("", &[kept.url(), resting.url()]);
    let mut vigie = Dynasty::found(&statics, &dynamic).await;
    let server = resting.url().replace(':', "%3A").replace('/', "%2F");
    let path = format!("/api/http/services/app@file/servers/{server}/state");
    let fields = [("Authorization", &*format!("Bearer {token}"))];
    let mut admin = Protocol::Http1.connect(vigie.admin()).await;
    let told = admin.request("PUT", &path, &fields, Some(br#"{"state": "maintenance"}"#)).await;
    assert_eq!(told.status, 200, "{}", told.text());
    for round in 0..2 {
        vigie.upgrade().await;
        // The process before may answer a last time: the new one has loaded once.
        let loads = async |count| {
            eventually(PATIENCE, async || vigie.metric("traefik_config_reloads_total").await == Some(count))
                .await
        };
        assert!(loads(1.0).await, "{}", vigie.words());
        vigie.write(
            "dynamic.yml",
            &format!("{dynamic}    other-{round}: {{loadBalancer: {{servers: []}}}}\n"),
        );
        assert!(loads(2.0).await, "{}", vigie.words());
        for _ in 0..4 {
            assert_eq!(origin(&Protocol::Http1.get(vigie.web(), "/").await), "kept");
        }
    }
}

/// Session tickets stay good, so an upgrade brings no wave of full handshakes.
#[tokio::test]
async fn tls_sessions_are_resumed() {
    let authority = Authority::new("authority");
    let server = Origin::start("api").await;
    let certificate = "tls: {certificates: [{certFile: '{dir}/app.crt', keyFile: '{dir}/app.key'}]}";
    let dynamic = format!("{}{certificate}\n", app("", &[server.url()]));
    let mut vigie = Dynasty::found_by(STATIC_TLS, &dynamic, |program, directory| {
        authority.issue(&[HOST]).write(directory, "app");
        Command::new(program)
    })
    .await;
    // The same configuration each time: it holds the tickets.
    let config = authority.client_config(&[]);
    for (upgrade, expected) in
        [(false, HandshakeKind::Full), (false, HandshakeKind::Resumed), (true, HandshakeKind::Resumed)]
    {
        if upgrade {
            vigie.upgrade().await;
            vigie.until_alone().await;
        }
        let mut client = Client::connect_tls(vigie.websecure(), Arc::clone(&config), HOST).await.unwrap();
        assert_eq!(client.get(HOST, "/").await.unwrap().status, 200);
        assert_eq!(client.tls().unwrap().handshake_kind(), Some(expected), "upgraded: {upgrade}");
    }
}

/// What is under way ends where it began; the client is told to come back on another connection.
#[tokio::test]
async fn requests_under_way_are_finished_by_the_old_process() {
    for protocol in Protocol::BOTH {
        let gate = Gate::closed();
        let held = gate.clone();
        let server = Origin::start("api").await;
        server.on("/held", Script::echo().gated(&held));
        let mut vigie = Dynasty::found(STATIC, &app("", &[server.url()])).await;
        let (web, old) = (vigie.web(), vigie.pid());
        let under_way = tokio::spawn(async move { protocol.get(web, "/held").await });
        assert!(eventually(PATIENCE, async || server.requests() == 1).await);
        vigie.upgrade().await;
        assert_eq!(vigie.status().await, 200);
        assert!(alive(old) && !under_way.is_finished(), "still held\n{}", vigie.words());
        gate.let_one_pass();
        let response = under_way.await.unwrap();
        assert_eq!(origin(&response), "api");
        if protocol == Protocol::Http1 {
            assert_eq!(response.get("connection"), Some("close"));
        }
        vigie.until_alone().await;
    }
}

/// `graceTimeOut` bounds how long the old process stays for a connection that does not end.
#[tokio::test]
async fn the_old_process_stays_for_the_grace_only() {
    let server = Origin::with("api", |_| Script::hang()).await;
    let text = STATIC.replace(
        "web: {address: '127.0.0.1:0'}",
        "web: {address: '127.0.0.1:0', transport: {lifeCycle: {graceTimeOut: 300ms}}}",
    );
    let mut vigie = Dynasty::found(&text, &app("", &[server.url()])).await;
    let mut client = Client::connect(vigie.web()).await.unwrap();
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await.unwrap();
    assert!(eventually(PATIENCE, async || server.requests() == 1).await);
    vigie.upgrade().await;
    vigie.until_alone().await;
    assert!(client.closes_within(Duration::from_secs(1)).await);
}

/// The new configuration's entry points count: a new one is bound, one that is gone is closed.
#[tokio::test]
async fn entry_points_follow_the_new_configuration() {
    let server = Origin::start("api").await;
    let [before, after] = [reserve_address(), reserve_address()];
    let with = |name: &str, address| {
        STATIC.replace("entryPoints:", &format!("entryPoints:\n  {name}: {{address: '{address}'}}"))
    };
    let mut vigie = Dynasty::found(&with("before", before), &app("", &[server.url()])).await;
    assert_eq!(get(before, HOST, "/").await.unwrap().status, 200);
    vigie.write("vigie.yml", &with("after", after));
    vigie.upgrade().await;
    assert_eq!(get(after, HOST, "/").await.unwrap().status, 200);
    vigie.until_alone().await;
    assert!(Client::connect(before).await.is_err());
    // A name is only a name: the socket goes with the address.
    vigie.write("vigie.yml", &with("renamed", after));
    vigie.upgrade().await;
    assert_eq!(get(after, HOST, "/").await.unwrap().status, 200);
}

/// Whoever stops the process means the one that is getting ready as well.
#[tokio::test]
async fn a_stop_ends_an_upgrade_that_is_under_way() {
    let mut vigie = Dynasty::found(STATIC, &app("", &[])).await;
    let script = script(&vigie.files, "hangs", "echo $$ > pid; exec sleep 600");
    vigie.replace_program(&script);
    vigie.first.signal(Signal::USR2).unwrap();
    let pid = vigie.files.path().join("pid");
    let mut new = None;
    let begun = eventually(PATIENCE, async || {
        new = std::fs::read_to_string(&pid).ok().and_then(|pid| pid.trim().parse::<u32>().ok());
        new.is_some()
    });
    assert!(begun.await, "{}", vigie.words());
    let refused = vigie.try_upgrade().await.unwrap_err();
    assert!(refused.contains("under way already"), "{refused}");
    let status = vigie.first.stop(PATIENCE).await.unwrap();
    assert!(status.success() && !alive(new.unwrap()), "{status}\n{}", vigie.words());
}

#[tokio::test]
async fn the_command_says_what_it_cannot_do() {
    let other = VigieProcess::spawn(Command::new("sleep").arg("600")).unwrap();
    let told = upgrade(&["--pid", &other.pid().to_string()]).await;
    let words = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(!told.status.success() && words.contains("is no Vigie that can be asked"), "{words}");
    let two = [Dynasty::found(STATIC, &app("", &[])).await, Dynasty::found(STATIC, &app("", &[])).await];
    let told = upgrade(&[]).await;
    let words = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(!told.status.success() && words.contains("several run: name one with --pid"), "{words}");
    for vigie in two {
        assert!(words.contains(&vigie.pid().to_string()), "{words}");
    }
}

/// A program.
fn script(files: &Files, name: &str, body: &str) -> PathBuf {
    let path = files.write(name, &format!("#!/bin/sh\n{body}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}
