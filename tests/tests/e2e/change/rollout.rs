//! `vigie rollout`: another version for each replica, one at a time, and back when one does not get well (C11, C15).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use lb_testkit::{Load, Origin, PATIENCE, VigieProcess, eventually, get, reserve_address};
use rustix::process::Signal;

use crate::harness::{HOST, STATIC, Vigie, app, binary};
use crate::programs::Server;
use crate::timeline::show;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const CHECK: &str =
    "healthCheck: {path: /health, interval: 200ms, timeout: 3s, degraded: true, startUnhealthy: true}";

fn static_text() -> String {
    STATIC.replace("api: {insecure: true}", &format!("api: {{insecure: true, token: {TOKEN}}}"))
}

/// `vigie rollout` against this instance, with its record beside the configuration.
fn command(vigie: &Vigie, arguments: &[&str]) -> VigieProcess {
    let mut command = Command::new(binary());
    let dir = vigie.files.path().display();
    command.arg("rollout").args(arguments).arg(format!("--address=http://{}", vigie.admin()));
    command.arg(format!("--configFile={dir}/vigie.yml")).arg(format!("--stateDir={dir}/state"));
    command.env_remove("VIGIE_API_TOKEN").env_remove("VIGIE_API_ADDRESS");
    VigieProcess::spawn(&mut command).expect("it can be started")
}

/// Runs it to its end: exit code, and what it has written.
async fn ended(mut process: VigieProcess) -> (Option<i32>, String) {
    let status = process.ended(Duration::from_secs(60)).await.expect("it ends");
    (status.code(), process.stdout() + &process.stderr())
}

async fn rolled(vigie: &Vigie, arguments: &[&str]) -> (Option<i32>, String) {
    ended(command(vigie, arguments)).await
}

/// Three reference replicas, each a process that the command of the rollout has started.
struct Fleet {
    vigie: Vigie,
    addresses: Vec<SocketAddr>,
    database: Server,
    redis: Server,
}

impl Fleet {
    async fn start() -> Self {
        let (mut database, mut redis) = (Server::postgres(), Server::redis());
        database.start();
        redis.start();
        let addresses: Vec<_> = (0..3).map(|_| reserve_address()).collect();
        let urls: Vec<_> = addresses.iter().map(|address| format!("http://{address}")).collect();
        let vigie = Vigie::with(&static_text(), &app(CHECK, &urls)).await;
        let fleet = Self { vigie, addresses, database, redis };
        // `bad` has no database, on the second replica only: the first one has to come back as well.
        let script = format!(
            "dir={dir}; port=${{1##*:}}; pid=$(cat $dir/$port.pid 2>/dev/null) && kill $pid
while grep -qs '^State:.[^Z]' /proc/${{pid:-none}}/status; do sleep 0.05; done
export REDIS_URL=redis://{redis}/ DATABASE_URL=postgres://replica@{database}/postgres
[ $2 = bad ] && [ $1 = {second} ] && DATABASE_URL=postgres://replica@127.0.0.1:1/postgres
{replica} --listen $1 --name $2 </dev/null >/dev/null 2>&1 & echo $! >$dir/$port.pid
",
            dir = fleet.vigie.files.path().display(),
            redis = fleet.redis.address,
            database = fleet.database.address,
            second = fleet.addresses[1],
            replica = env!("CARGO_BIN_EXE_replica-e2e"),
        );
        let script = fleet.vigie.files.write("replace", &script);
        for address in &fleet.addresses {
            let started = Command::new("sh").arg(&script).args([&address.to_string(), "v1"]).status();
            assert!(started.unwrap().success());
        }
        for address in &fleet.addresses {
            let url = format!("http://{address}");
            fleet.vigie.until_metric("instance_health", &[("instance", &url)], 1.0).await;
        }
        fleet
    }

    fn replace(&self) -> String {
        format!("--replace=sh {}/replace {{server}} {{version}}", self.vigie.files.path().display())
    }

    /// What each replica is.
    async fn versions(&self) -> Vec<String> {
        let mut versions = Vec::new();
        for address in &self.addresses {
            versions.push(get(*address, "replica", "/").await.unwrap().text().trim().to_owned());
        }
        versions
    }

    /// Looks all the time how many replicas get requests; the fewest there were.
    fn fewest(&self) -> (Arc<AtomicUsize>, Arc<AtomicBool>) {
        let (fewest, over) = (Arc::new(AtomicUsize::new(3)), Arc::new(AtomicBool::new(false)));
        let (seen, end, admin) = (Arc::clone(&fewest), Arc::clone(&over), self.vigie.admin());
        tokio::spawn(async move {
            while !end.load(Ordering::Relaxed) {
                let service = get(admin, "localhost", "/api/http/services/app@file").await.unwrap().json();
                let servers = service["serverDetails"].as_array().unwrap().iter();
                let serve = servers.filter(|s| s["state"] == "ready" && s["health"] != "unhealthy").count();
                seen.fetch_min(serve, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        (fewest, over)
    }

    /// With a client at work and somebody who counts the replicas in service.
    async fn under_load(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let load = Load::new(self.vigie.web(), HOST).connections(8).pause(Duration::from_millis(1)).start();
        let (fewest, over) = self.fewest();
        let outcome = rolled(&self.vigie, arguments).await;
        over.store(true, Ordering::Relaxed);
        let report = load.stop().await;
        let (requests, failed) = (report.ok + report.failed(), report.failed());
        show(&format!("{}{requests} requests, {failed} failed", outcome.1));
        report.assert_flawless();
        assert_eq!(fewest.load(Ordering::Relaxed), 2, "in service at least\n{}", outcome.1);
        outcome
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for address in &self.addresses {
            let file = self.vigie.files.path().join(format!("{}.pid", address.port()));
            let Ok(pid) = std::fs::read_to_string(file) else { continue };
            let _ = Command::new("kill").args(["-KILL", pid.trim()]).status();
        }
    }
}

/// Lines of the time line that contain these words, in this order.
fn in_order(told: &str, words: &[&str]) {
    let mut lines = told.lines();
    for word in words {
        assert!(lines.any(|line| line.contains(word)), "no {word:?}, or too early, in\n{told}");
    }
}

#[tokio::test]
async fn each_replica_gets_the_new_version_and_no_request_fails() {
    let fleet = Fleet::start().await;
    let replace = fleet.replace();
    let check = "--check=curl -fs http://{server}/ | grep -qx {version}";
    let arguments = ["app", "v2", &replace, check, "--from=v1", "--pause=300ms"];
    let (code, told) = fleet.under_load(&arguments).await;
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(fleet.versions().await, ["v2", "v2", "v2"]);
    let urls: Vec<_> = fleet.addresses.iter().map(|address| format!("http://{address}: runs v2")).collect();
    in_order(&told, &["at least 2 in service", &urls[0], &urls[1], &urls[2], "done: app@file runs v2"]);
    let (_, told) = rolled(&fleet.vigie, &["app", "--status"]).await;
    in_order(&told, &["app@file to v2 by", "runs v2, is in service", "--rollback leads to v1"]);
    let (code, told) = rolled(&fleet.vigie, &["app", "v2"]).await;
    assert_eq!((code, told.contains("all 3 servers of app@file run v2 already")), (Some(0), true), "{told}");

    // By hand back to where it was, with the command of last time.
    let (code, told) = fleet.under_load(&["app", "--rollback", "--pause=300ms"]).await;
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(fleet.versions().await, ["v1", "v1", "v1"]);
}

#[tokio::test]
async fn a_bad_version_is_rolled_back_and_no_request_fails() {
    let fleet = Fleet::start().await;
    let replace = fleet.replace();
    let arguments = ["app", "bad", &replace, "--from=v1", "--pause=300ms", "--healthTimeout=4s"];
    let (code, told) = fleet.under_load(&arguments).await;
    assert_eq!(code, Some(2), "{told}");
    assert_eq!(fleet.versions().await, ["v1", "v1", "v1"]);
    let [first, second, third] = fleet.addresses[..] else { unreachable!("three") };
    in_order(
        &told,
        &[
            &format!("http://{first}: runs bad"),
            &format!(
                "http://{second} is not healthy within 4s: answered 503 Service Unavailable: database: "
            ),
            &format!("http://{second}: runs v1, in service"),
            &format!("http://{first}: runs v1, in service"),
            "rolled back from bad",
        ],
    );
    assert!(!told.contains(&third.to_string()), "nobody has touched it\n{told}");
    let (code, told) = rolled(&fleet.vigie, &["app", "--rollback"]).await;
    assert_eq!(code, Some(1), "{told}");
    in_order(&told, &["no rollout of app@file has left anything to go back to"]);
}

/// Three origins whose replacement is a line in a file.
struct Lines {
    vigie: Vigie,
    origins: [Origin; 3],
    file: PathBuf,
}

impl Lines {
    async fn start(check: &str) -> Self {
        let origins = [Origin::start("a").await, Origin::start("b").await, Origin::start("c").await];
        let urls = origins.each_ref().map(Origin::url);
        let vigie = Vigie::with(&static_text(), &app(check, &urls)).await;
        let file = vigie.files.path().join("lines");
        Self { vigie, origins, file }
    }

    /// A command that first does `before`.
    fn replace(&self, before: &str) -> String {
        format!("--replace={before} echo {{server}} {{version}} >>{}", self.file.display())
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn line(&self, at: usize, version: &str) -> String {
        format!("{} {version}", self.origins[at].address())
    }

    async fn until_lines(&self, count: usize) {
        let written = eventually(PATIENCE, async || self.lines().len() >= count).await;
        assert!(written, "{:?}", self.lines());
    }

    async fn ready(&self) -> usize {
        let service = self.vigie.json("/api/http/services/app@file").await;
        service["serverDetails"].as_array().unwrap().iter().filter(|s| s["state"] == "ready").count()
    }
}

const EACH: &str = "healthCheck: {path: /health, interval: 100ms, timeout: 2s}";

#[tokio::test]
async fn two_at_once_are_refused_and_one_that_was_stopped_goes_on() {
    let lines = Lines::start(EACH).await;
    let replace = lines.replace("");
    let start = ["app", "v2", &replace, "--from=v1", "--pause=30s"];
    let mut first = command(&lines.vigie, &start);
    lines.until_lines(1).await;
    let (code, told) = rolled(&lines.vigie, &start).await;
    assert_eq!(code, Some(1), "{told}");
    in_order(&told, &["another rollout of app@file is under way on this machine"]);

    // In the pause behind the first one.
    let in_pause = eventually(PATIENCE, async || first.stdout().contains("runs v2, in service")).await;
    assert!(in_pause, "{}", first.stdout());
    first.signal(Signal::INT).unwrap();
    let status = first.ended(PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(3), "{}", first.stderr());
    in_order(
        &first.stderr(),
        &["stopping when this server is done", "stopped as asked", "goes on from here"],
    );
    assert_eq!(lines.ready().await, 3);

    // Killed while the second one is replaced: nobody knows what that runs, so it is done again.
    // The command is told before it is started, so that it runs is seen by what it does first.
    let begun = lines.vigie.files.path().join("begun");
    let slow = lines.replace(&format!(": >{}; sleep 0.4;", begun.display()));
    let second = command(&lines.vigie, &["app", "v2", &slow, "--pause=100ms"]);
    let replacing = eventually(PATIENCE, async || begun.exists()).await;
    assert!(replacing, "{}{}", second.stdout(), second.stderr());
    second.signal(Signal::KILL).unwrap();
    drop(second);
    lines.until_lines(2).await;
    assert_eq!(lines.ready().await, 2, "the one that was being replaced stays out");
    let (_, told) = rolled(&lines.vigie, &["app", "--status"]).await;
    in_order(
        &told,
        &["running, or killed", "runs v2, is in service", "runs v1 or v2, is in ", "runs v1, is in"],
    );

    let (code, told) = rolled(&lines.vigie, &["app", "v2", "--pause=100ms"]).await;
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(lines.ready().await, 3);
    let expected = [lines.line(0, "v2"), lines.line(1, "v2"), lines.line(1, "v2"), lines.line(2, "v2")];
    assert_eq!(lines.lines(), expected);
}

#[tokio::test]
async fn a_drain_is_bounded_and_can_be_called_off() {
    let lines = Lines::start(EACH).await;
    let gate = lb_testkit::Gate::closed();
    lines.origins[0].on("/slow", lb_testkit::Script::echo().gated(&gate));
    let web = lines.vigie.web();
    let slow = tokio::spawn(async move {
        loop {
            let got = get(web, HOST, "/slow").await.unwrap();
            if got.json()["origin"] == "a" {
                return got.status;
            }
        }
    });
    let url = lines.origins[0].url();
    lines.vigie.until_metric("active_connections", &[("instance", &url)], 1.0).await;
    let replace = lines.replace("");
    let start = ["app", "v2", &replace, "--from=v1", "--pause=100ms"];
    let mut first = command(&lines.vigie, &start);
    let drains = eventually(PATIENCE, async || first.stdout().contains("drains, 1 in flight")).await;
    assert!(drains, "{}{}", first.stdout(), first.stderr());
    first.signal(Signal::TERM).unwrap();
    assert_eq!(first.ended(PATIENCE).await.unwrap().code(), Some(3));
    assert_eq!((lines.ready().await, lines.lines().len()), (3, 0), "as if nothing had been");

    let second = command(&lines.vigie, &[&start[..], &["--drainTimeout=300ms"]].concat());
    let over = async || second.stdout().contains("1 still in flight after --drainTimeout, and cut now");
    assert!(eventually(PATIENCE, over).await, "{}{}", second.stdout(), second.stderr());
    gate.let_one_pass();
    assert_eq!(slow.await.unwrap(), 200);
    let (code, told) = ended(second).await;
    assert_eq!((code, told.contains("done: ")), (Some(0), true), "{told}");
}

#[tokio::test]
async fn what_cannot_go_well_is_refused_before_anything_is_changed() {
    let lines = Lines::start(EACH).await;
    let replace = lines.replace("");
    let from = ["app", "v2", &*replace, "--from=v1"];
    let state = lines.vigie.files.path().join("state/app@file.json");
    for (arguments, expected) in [
        (
            &["ap", "v2", &replace, "--from=v1"][..],
            "no service with servers is called `ap`; known services: app@file",
        ),
        (&["app", "v2", &replace], "say it with --from=VERSION"),
        (&["app", "v2", "--from=v1"], "say how a server gets a version: --replace="),
        (&["app", "v2", "--replace=true {version}", "--from=v1"], "--replace says nothing of the server"),
        (&["app", "v2;reboot", &replace, "--from=v1"], "{version} is \"v2;reboot\""),
        (&[&from[..], &["--minServing=3"]].concat(), "none may be taken out"),
        (&[&from[..], &["--preflight=test {version} = v1"]].concat(), "--preflight: `test v2 = v1` failed"),
        (&[&from[..], &["--healthTimeout=1s"]].concat(), "may notice only after 2.1s that a server is back"),
        (&["app", "--rollback"], "no rollout of app@file has left anything to go back to"),
        (&["app"], "<VERSION>"),
    ] {
        let (code, told) = rolled(&lines.vigie, arguments).await;
        assert_eq!(code, Some(1), "{arguments:?}: {told}");
        assert!(told.contains(expected), "{arguments:?}: {told}");
    }
    let dry = [&from[..], &["--dryRun"]].concat();
    let (code, told) = rolled(&lines.vigie, &dry).await;
    assert_eq!((code, told.contains("3 of 3 servers, one at a time")), (Some(0), true), "{told}");

    lines.vigie.write(&app("", &lines.origins.each_ref().map(Origin::url)));
    let unchecked = eventually(PATIENCE, async || {
        let (_, told) = rolled(&lines.vigie, &dry).await;
        told.contains("app@file has no `healthCheck`")
    });
    assert!(unchecked.await);
    lines.vigie.write(&app(EACH, &[lines.origins[0].url(), format!("http://{}", reserve_address())]));
    let ill = eventually(PATIENCE, async || {
        let (_, told) = rolled(&lines.vigie, &dry).await;
        told.contains("not all servers of app@file are in service: http://127.0.0.1:")
    });
    assert!(ill.await);
    assert!(!state.exists() && lines.lines().is_empty());
}

/// A full disk, say: what was done is not said to be nothing, and nobody is left out of service for it.
#[tokio::test]
async fn a_rollout_that_cannot_be_recorded_stops_midway() {
    for at in [0, 1] {
        let lines = Lines::start(EACH).await;
        let state = format!("{}/state", lines.vigie.files.path().display());
        let spoil =
            format!("test {{server}} != {} || (rm -r {state}; touch {state});", lines.origins[at].address());
        let replace = lines.replace(&spoil);
        let (code, told) = rolled(&lines.vigie, &["app", "v2", &replace, "--from=v1", "--pause=100ms"]).await;
        assert_eq!(code, Some(3), "{told}");
        in_order(&told, &["app@file.json cannot be written", "goes on from here"]);
        assert_eq!((lines.lines().len(), lines.ready().await), (at + 1, 3), "{told}");
    }
}

/// As a container that is found by its labels: the new one has another address.
#[tokio::test]
async fn a_server_may_come_back_under_another_address() {
    let lines = Lines::start(EACH).await;
    let new = Origin::start("new").await;
    let dir = lines.vigie.files.path().display();
    let old = lines.origins[0].address();
    let replace = format!(
        "--replace=sed s/{old}/{}/ {dir}/dynamic.yml >{dir}/.next && mv {dir}/.next {dir}/dynamic.yml # {{server}}",
        new.address()
    );
    let (code, told) = rolled(&lines.vigie, &["app", "v2", &replace, "--from=v1", "--pause=100ms"]).await;
    assert_eq!(code, Some(0), "{told}");
    in_order(&told, &[&format!("{} is {} now", lines.origins[0].url(), new.url()), "done: "]);
    assert_eq!(lines.ready().await, 3);
    // Should the old address come back it is in service, too.
    lines.vigie.write(&app(EACH, &lines.origins.each_ref().map(Origin::url)));
    let back = eventually(PATIENCE, async || {
        let service = lines.vigie.json("/api/http/services/app@file").await;
        service["serverDetails"][0]["url"] == lines.origins[0].url() && lines.ready().await == 3
    });
    assert!(back.await, "{}", lines.vigie.words());
}
