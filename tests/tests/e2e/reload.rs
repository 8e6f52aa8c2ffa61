//! The dynamic configuration changes under Vigie's feet, in every way that people and programs do it.

use std::os::unix::fs::symlink;
use std::time::Duration;

use lb_testkit::{Files, Load, Origin, PATIENCE, Running, eventually};
use tokio::time::Instant;

use crate::harness::{HOST, STATIC, Vigie, app, origin};

/// What is promised from the change to the first request that sees it.
const LIVE: Duration = Duration::from_millis(250);

async fn two() -> [Origin; 2] {
    [Origin::start("one").await, Origin::start("two").await]
}

fn to(origin: &Origin) -> String {
    app("", &[origin.url()])
}

/// Traffic that must notice nothing.
fn load(vigie: &Vigie) -> Running {
    Load::new(vigie.web(), HOST).connections(2).pause(Duration::from_millis(1)).start()
}

/// Applies the change, back and forth; it is live within [`LIVE`] at its median (the machine may be busy),
/// and no request fails and no connection ends on the way.
async fn follows(vigie: &Vigie, change: impl Fn(&Origin)) {
    let origins = two().await;
    let running = load(vigie);
    let mut times = Vec::new();
    for turn in 0..5 {
        let to = &origins[turn % 2];
        let began = Instant::now();
        change(to);
        vigie
            .until("the change is live", |response| response.status == 200 && origin(response) == to.name())
            .await;
        times.push(began.elapsed());
    }
    let report = running.stop().await;
    report.assert_flawless();
    assert_eq!(report.connections, 2, "no connection was cut");
    times.sort();
    assert!(times[2] < LIVE, "{times:?}");
}

async fn ready() -> (Vigie, Origin) {
    let first = Origin::start("first").await;
    (Vigie::start(&to(&first)).await, first)
}

#[tokio::test]
async fn an_edit_in_place_is_live_at_once() {
    let (vigie, _first) = ready().await;
    follows(&vigie, |origin| drop(vigie.files.write_in_place("dynamic.yml", &to(origin)))).await;
}

#[tokio::test]
async fn an_atomic_rename_is_live_at_once() {
    let (vigie, _first) = ready().await;
    follows(&vigie, |origin| vigie.write(&to(origin))).await;
}

/// As Kubernetes mounts a ConfigMap: `dynamic.yml -> ..data/dynamic.yml`, `..data -> ..<version>`, and the
/// middle link is swapped.
#[tokio::test]
async fn a_swapped_symbolic_link_is_live_at_once() {
    let first = Origin::start("first").await;
    let files = Files::new();
    let dir = files.path().to_owned();
    let version = std::cell::Cell::new(0);
    let publish = |origin: &Origin| {
        version.set(version.get() + 1);
        let name = format!("..version-{}", version.get());
        files.write(&format!("{name}/dynamic.yml"), &to(origin));
        symlink(&name, dir.join("..data_tmp")).unwrap();
        std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    };
    publish(&first);
    symlink("..data/dynamic.yml", dir.join("dynamic.yml")).unwrap();
    let static_files = Files::new();
    let text = STATIC.replace("{dir}", &dir.display().to_string());
    let vigie = Vigie::launch(static_files, &text).await;
    assert_eq!(origin(&vigie.get("/").await), "first");
    follows(&vigie, publish).await;
}

#[tokio::test]
async fn files_come_and_go_in_a_directory() {
    let base = Origin::start("base").await;
    let files = Files::new();
    files.write("dynamic/base.yml", &to(&base));
    let text = STATIC.replace("filename: '{dir}/dynamic.yml'", "directory: '{dir}/dynamic'");
    let vigie = Vigie::launch(files, &text).await;
    assert_eq!(origin(&vigie.get("/").await), "base");
    let running = load(&vigie);
    let mut times = Vec::new();
    for (turn, path) in
        ["dynamic/extra.yml", "dynamic/below/deeper/extra.yaml", "dynamic/extra.yml"].iter().enumerate()
    {
        let extra = Origin::start("extra").await;
        let text = format!(
            "http:\n  routers:\n    extra: {{rule: 'Path(`/extra`)', service: extra, priority: 1000}}\n  services:\n    extra: \
             {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}\n",
            extra.url()
        );
        let is = async |name: &str| {
            eventually(PATIENCE, async || origin(&vigie.get("/extra").await) == name).await
        };
        let began = Instant::now();
        vigie.files.write(path, &text);
        assert!(is("extra").await, "{turn}: {path} is found\n{}", vigie.words());
        times.push(began.elapsed());
        let began = Instant::now();
        std::fs::remove_file(vigie.files.path().join(path)).unwrap();
        assert!(is("base").await, "{turn}: {path} is gone\n{}", vigie.words());
        times.push(began.elapsed());
    }
    running.stop().await.assert_flawless();
    times.sort();
    assert!(times[3] < LIVE, "{times:?}");
}

/// Refused with file and line, counted, shown by `/health`; what ran goes on until something better comes. Single
/// broken objects are in `change::quarantine`.
#[tokio::test]
async fn a_broken_file_changes_nothing_and_says_why() {
    for (broken, line, words) in [
        ("http:\n  routers: [\n", "dynamic.yml:", ""),
        ("http:\n  routres: {}\n", "dynamic.yml:2:3: http.routres: ", "routers"),
        // What is indented too far might be a router of its own.
        (
            "http:\n  routers:\n    app:\n      other: {rule: x}\n",
            "dynamic.yml:4:7: http.routers.app.other: ",
            "no key",
        ),
    ] {
        let (vigie, first) = ready().await;
        assert_eq!(vigie.metrics().await.value("lb_config_reload_failures_total", &[]), Some(0.0));
        let running = load(&vigie);
        vigie.write(broken);
        vigie.until_metric("lb_config_reload_failures_total", &[], 1.0).await;
        vigie.until_said(line).await;
        let said = vigie.process.stderr();
        assert!(said.contains(line) && said.contains(words), "{line} on stderr:\n{}", vigie.words());
        let health = vigie.json("/health").await;
        assert_eq!(health["status"], "degraded", "{health}");
        let error = health["configuration"]["lastError"].as_str().unwrap_or_default();
        assert!(error.contains(line), "{health}");
        assert_eq!(origin(&vigie.get("/").await), "first", "the last good configuration serves");
        assert!(vigie.metrics().await.value("lb_config_last_reload_failure", &[]).unwrap() > 1e9);
        running.stop().await.assert_flawless();

        let next = Origin::start("next").await;
        vigie.write(&to(&next));
        vigie.until("the repaired file is live", |response| origin(response) == "next").await;
        // Requests see it a moment before `/health` says so.
        let mended = async || {
            let health = vigie.json("/health").await;
            health["status"] == "healthy" && health["configuration"]["lastError"].is_null()
        };
        assert!(eventually(PATIENCE, mended).await, "{}", vigie.json("/health").await);
        drop(first);
    }
}

/// Editors truncate before they write: the empty moment is no configuration.
#[tokio::test]
async fn a_half_written_file_is_waited_for() {
    use std::io::Write as _;
    let (vigie, _first) = ready().await;
    let next = Origin::start("next").await;
    let path = vigie.files.path().join("dynamic.yml");
    let running = load(&vigie);
    let mut file = std::fs::File::create(&path).unwrap();
    let text = to(&next);
    let (start, end) = text.split_at(text.len() / 2);
    for piece in [start, end] {
        // Long enough for a watcher to look: some requests pass meanwhile.
        let seen = running.done();
        assert!(eventually(PATIENCE, async || running.done() > seen + 20).await);
        file.write_all(piece.as_bytes()).unwrap();
        file.sync_all().unwrap();
    }
    drop(file);
    vigie.until("the whole file is live", |response| origin(response) == "next").await;
    running.stop().await.assert_flawless();
    assert_eq!(
        vigie.metrics().await.value("lb_config_reload_failures_total", &[]),
        Some(0.0),
        "{}",
        vigie.words()
    );
}

/// Empty for good, or gone: Traefik drops every router, Vigie keeps the last good configuration.
#[tokio::test]
async fn an_empty_or_vanished_file_keeps_what_serves() {
    for remove in [false, true] {
        let (vigie, _first) = ready().await;
        let running = load(&vigie);
        let path = vigie.files.path().join("dynamic.yml");
        if remove {
            std::fs::remove_file(&path).unwrap();
        } else {
            std::fs::write(&path, "").unwrap();
        }
        vigie.until_metric("lb_config_reload_failures_total", &[], 1.0).await;
        assert_eq!(origin(&vigie.get("/").await), "first");
        assert_eq!(vigie.json("/health").await["status"], "degraded");
        assert!(vigie.process.stderr().contains("dynamic.yml"), "{}", vigie.words());
        let next = Origin::start("next").await;
        vigie.write(&to(&next));
        vigie.until("it is back", |response| origin(response) == "next").await;
        running.stop().await.assert_flawless();
    }
}

/// Until there is a first good configuration the instance is alive but not ready.
#[tokio::test]
async fn a_broken_first_file_is_waited_for() {
    let vigie = Vigie::start("http: [\n").await;
    let ready = lb_testkit::get(vigie.admin(), "localhost", "/ready").await.unwrap();
    assert_eq!(ready.status, 503, "{}", ready.text());
    assert_eq!(lb_testkit::get(vigie.admin(), "localhost", "/live").await.unwrap().status, 200);
    assert_eq!(vigie.get("/").await.status, 404);
    let origin = Origin::start("one").await;
    vigie.write(&to(&origin));
    vigie.until("it serves", |response| response.status == 200).await;
    // The control plane hears a moment later that its configuration is in force.
    let ready = async || lb_testkit::get(vigie.admin(), "localhost", "/ready").await.unwrap().status == 200;
    assert!(lb_testkit::eventually(lb_testkit::PATIENCE, ready).await);
}

/// SIGHUP reads again; with `watch: false` nothing else does.
#[tokio::test]
async fn without_watching_only_a_signal_reloads() {
    let origins = two().await;
    let text = STATIC.replace("{file: {", "{file: {watch: false, ");
    let vigie = Vigie::with(&text, &to(&origins[0])).await;
    vigie.write(&to(&origins[1]));
    vigie.signal(rustix::process::Signal::HUP);
    vigie.until("the signal is heeded", |response| origin(response) == "two").await;
}

/// Requests under way finish on the configuration they started with.
#[tokio::test]
async fn a_request_under_way_survives_the_end_of_its_service() {
    let gate = lb_testkit::Gate::closed();
    let held = gate.clone();
    let old = Origin::start("old").await;
    old.on("/held", lb_testkit::Script::echo().gated(&held));
    let new = Origin::start("new").await;
    let vigie = Vigie::start(&to(&old)).await;
    for protocol in crate::harness::Protocol::BOTH {
        vigie.write(&to(&old));
        vigie.until("the old one serves", |response| origin(response) == "old").await;
        let (web, reached) = (vigie.web(), old.requests());
        let running = tokio::spawn(async move { protocol.get(web, "/held").await });
        assert!(eventually(PATIENCE, async || old.requests() > reached).await);
        vigie.write(&to(&new));
        vigie.until("the new one serves", |response| origin(response) == "new").await;
        gate.let_one_pass();
        assert_eq!(origin(&running.await.unwrap()), "old");
    }
}
