//! Disks fill up and directories come and go; traffic goes on.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lb_testkit::{Files, Load, Origin, PATIENCE, eventually, get};
use tokio::time::Instant;

use crate::harness::{HOST, Protocol, STATIC, Vigie, app, origin};

const DROPPED: &str = "lb_access_log_dropped_lines_total";

/// A file system of 64 KiB, unmounted in the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where mounting is not permitted.
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        run("mount", &["-t", "tmpfs", "-o", "size=64k", "tmpfs"], at).then(|| Self(at.to_owned()))
    }

    fn grow(&self) -> bool {
        run("mount", &["-o", "remount,size=64m"], &self.0)
    }

    /// Puts one in its place that can only be read: this one cannot be made so while a log is open.
    fn cover(&self) -> bool {
        run("mount", &["-t", "tmpfs", "-o", "ro", "tmpfs"], &self.0)
    }

    fn uncover(&self) -> bool {
        run("umount", &[], &self.0)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        while run("umount", &["-l"], &self.0) {}
    }
}

fn run(command: &str, arguments: &[&str], path: &Path) -> bool {
    Command::new(command).args(arguments).arg(path).output().is_ok_and(|output| output.status.success())
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Everything lost is counted, everything else is written once there is room.
#[tokio::test]
async fn a_full_disk_costs_counted_lines_and_no_request() {
    let server = Origin::start("api").await;
    let files = Files::new();
    let Some(disk) = SmallDisk::mount(&files.path().join("disk")) else {
        // Then only the test below says anything.
        return;
    };
    // Long lines, so that few requests fill what may be kept in memory.
    let log = "accessLog: {filePath: '{dir}/disk/access.log', format: json, fields: {headers: {names: {X-Long: keep}}}}\n\
               log: {filePath: '{dir}/disk/vigie.log', level: INFO}\n";
    let vigie = Vigie::over(files, &format!("{STATIC}{log}"), &app("", &[server.url()])).await;
    let long = "x".repeat(12 * 1024);
    let mut asked = 0;
    let mut connections = Vec::new();
    for _ in 0..4 {
        connections.push(Protocol::Http1.connect(vigie.web()).await);
    }
    let dropped = async || vigie.metrics().await.value(DROPPED, &[]).unwrap();
    while dropped().await == 0.0 {
        for _ in 0..50 {
            for connection in &mut connections {
                let response = connection.request("GET", "/", &[("x-long", &long)], None).await;
                assert_eq!(response.status, 200, "after {asked}");
                asked += 1;
            }
        }
        assert!(asked < 20_000, "nothing is lost\n{}", vigie.words());
    }
    // It is said in the diagnostics, and when those have no room either on standard error.
    let own = vigie.files.path().join("disk/vigie.log");
    let said = std::fs::read_to_string(&own).unwrap_or_default() + &vigie.words();
    assert!(said.contains("cannot be written: No space left on device"), "{said}");
    // The diagnostics share the disk; a reload has something to say.
    vigie.write(&app("strategy: p2c", &[server.url()]));
    vigie.until_metric("traefik_config_reloads_total", &[], 2.0).await;

    assert!(disk.grow());
    let path = vigie.files.path().join("disk/access.log");
    let written = async || lines(&path).len() + dropped().await as usize >= asked;
    assert!(eventually(PATIENCE, written).await, "{} of {asked}\n{}", lines(&path).len(), vigie.words());
    assert_eq!(lines(&path).len() + dropped().await as usize, asked);
    for line in lines(&path) {
        serde_json::from_str::<serde_json::Value>(&line).expect("whole lines");
    }
    // And on it goes, until the disk is only read.
    vigie.get("/there-is-room").await;
    assert!(eventually(PATIENCE, async || lines(&path).last().unwrap().contains("/there-is-room")).await);
    let said = async || {
        lines(&vigie.files.path().join("disk/vigie.log"))
            .iter()
            .any(|line| line.contains("Configuration loaded"))
    };
    assert!(eventually(PATIENCE, said).await);
    assert!(disk.cover());
    vigie.signal(rustix::process::Signal::USR1);
    let given_up = async || {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", vigie.process.pid())).unwrap();
        let mut links = descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        !links.any(|link| link.ends_with("access.log"))
    };
    assert!(eventually(PATIENCE, given_up).await);
    for _ in 0..20 {
        assert_eq!(vigie.get("/").await.status, 200);
    }
    assert!(disk.uncover());
    vigie.get("/writable").await;
    assert!(eventually(PATIENCE, async || lines(&path).iter().any(|line| line.contains("/writable"))).await);
}

/// As above without root: the file's name leads to a device that is always full, then to a directory that is none.
#[tokio::test]
async fn logs_start_as_soon_as_they_can_be_written() {
    let server = Origin::start("api").await;
    let files = Files::new();
    let at = |name: &str| files.path().join(name);
    symlink("/dev/full", at("access.log")).unwrap();
    std::fs::write(at("blocked"), "not a directory").unwrap();
    let log = "accessLog: {filePath: '{dir}/access.log'}\nlog: {filePath: '{dir}/blocked/vigie.log', level: INFO}\n";
    let (access, blocked) = (at("access.log"), at("blocked"));
    let vigie = Vigie::over(files, &format!("{STATIC}{log}"), &app("", &[server.url()])).await;
    for _ in 0..20 {
        assert_eq!(vigie.get("/early").await.status, 200);
    }
    // On standard error, both: there is no other place left.
    for file in ["blocked/vigie.log", "access.log"] {
        vigie.until_said(&format!("{file} cannot be written")).await;
    }
    std::fs::remove_file(&blocked).unwrap();
    // What was kept meanwhile comes first. The other file stays full until that was met with.
    for words in ["Configuration loaded", "access.log cannot be written: No space left on device"] {
        let said = async || lines(&blocked.join("vigie.log")).iter().any(|line| line.contains(words));
        assert!(eventually(PATIENCE, said).await, "{words}: {}", vigie.words());
    }
    std::fs::remove_file(&access).unwrap();
    assert!(eventually(PATIENCE, async || lines(&access).len() == 20).await, "{}", vigie.words());
    for name in [DROPPED, "lb_log_dropped_lines_total"] {
        assert_eq!(vigie.metrics().await.value(name, &[]), Some(0.0), "{name}");
    }
}

/// What is promised from the appearance of a directory to the first request that is served by it.
const PICKED_UP: Duration = Duration::from_secs(1);

fn to(origin: &Origin) -> String {
    app("", &[origin.url()])
}

async fn serves(vigie: &Vigie, name: &str) -> Duration {
    let began = Instant::now();
    vigie.until(name, |response| response.status == 200 && origin(response) == name).await;
    began.elapsed()
}

#[tokio::test]
async fn a_watch_directory_is_picked_up_when_it_appears() {
    let [one, two, three] =
        [Origin::start("one").await, Origin::start("two").await, Origin::start("three").await];
    let mut times = Vec::new();
    for (key, file) in [
        ("directory: '{dir}/etc/vigie/dynamic'", "any.yml"),
        ("filename: '{dir}/etc/vigie/dynamic/one.yml'", "one.yml"),
    ] {
        let files = Files::new();
        let text = STATIC.replace("filename: '{dir}/dynamic.yml'", key);
        let vigie = Vigie::launch(files, &text).await;
        // Missing at start, with its parents: alive, not ready, nothing served.
        assert_eq!(get(vigie.admin(), "localhost", "/ready").await.unwrap().status, 503);
        assert_eq!(vigie.get("/").await.status, 404);
        let path = format!("etc/vigie/dynamic/{file}");
        let at = |name: &str| vigie.files.path().join(name);
        vigie.files.write(&path, &to(&one));
        times.push(serves(&vigie, "one").await);

        // Gone at run time: what serves goes on, and it is said.
        let running = Load::new(vigie.web(), HOST).connections(2).pause(Duration::from_millis(1)).start();
        std::fs::remove_dir_all(at("etc")).unwrap();
        let degraded = async || vigie.json("/health").await["status"] == "degraded";
        assert!(eventually(PATIENCE, degraded).await, "{}", vigie.words());
        assert_eq!(origin(&vigie.get("/").await), "one");
        // Back under a symbolic link, whose target is exchanged, removed, and made anew.
        vigie.files.write(&format!("releases/1/dynamic/{file}"), &to(&two));
        vigie.files.write(&format!("releases/2/dynamic/{file}"), &to(&three));
        std::fs::create_dir(at("etc")).unwrap();
        symlink("../releases/1", at("etc/vigie")).unwrap();
        times.push(serves(&vigie, "two").await);
        std::fs::remove_file(at("etc/vigie")).unwrap();
        assert!(eventually(PATIENCE, degraded).await, "{}", vigie.words());
        symlink("../releases/2", at("etc/vigie")).unwrap();
        times.push(serves(&vigie, "three").await);
        std::fs::remove_dir_all(at("releases/2")).unwrap();
        assert!(eventually(PATIENCE, degraded).await, "{}", vigie.words());
        vigie.files.write(&format!("releases/2/dynamic/{file}"), &to(&one));
        times.push(serves(&vigie, "one").await);
        let healthy = async || vigie.json("/health").await["status"] == "healthy";
        assert!(eventually(PATIENCE, healthy).await, "{}", vigie.words());
        running.stop().await.assert_flawless();
    }
    // The machine may be busy: the median.
    times.sort();
    assert!(times[times.len() / 2] < PICKED_UP, "{times:?}");
}
