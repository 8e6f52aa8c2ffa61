//! A real dockerd with files, sockets and a bridge of its own.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lb_testkit::{Files, Load, VigieProcess, eventually, get};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{HOST, Vigie};
use crate::timeline::show;

/// What starting a daemon and containers may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// Ended, with all containers, when it is dropped.
struct Daemon {
    directory: TempDir,
    process: Option<VigieProcess>,
    bridge: String,
}

impl Daemon {
    async fn start() -> Self {
        let daemon = Self::launch(&[]).await;
        // One of 10.64.0.0/10 that nobody else is likely to have.
        let id = std::process::id();
        let subnet = format!("10.{}.{}.0/24", 64 + id / 256 % 64, id % 256);
        let name = format!("com.docker.network.bridge.name={}", daemon.bridge);
        daemon.run(&["network", "create", "--subnet", &subnet, "--opt", &name, "net"]);
        daemon
    }

    /// The only node of a swarm, in a network of its own, with the network `net` for its tasks.
    async fn swarm() -> Self {
        let network = "ip link set lo up && ip link add node type bridge && ip link set node up && \
                       ip address add 192.0.2.1/24 dev node && exec \"$@\"";
        let daemon = Self::launch(&["unshare", "--net", "sh", "-c", network, "sh"]).await;
        daemon.run(&["swarm", "init", "--advertise-addr", "192.0.2.1"]);
        daemon.run(&["network", "create", "--driver", "overlay", "--attachable", "net"]);
        daemon
    }

    /// Started by a command that comes before its own.
    async fn launch(by: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name).display().to_string();
        std::fs::write(directory.path().join("daemon.json"), "{}").expect("a file");
        // Ended with this test, whatever happens to it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).args(by);
        command.args(["dockerd", "--data-root", &at("data"), "--exec-root", &at("exec")]);
        command.args(["--pidfile", &at("pid"), "--host", &format!("unix://{}", at("docker.sock"))]);
        // It leaves the machine's network alone, but for a bridge that is made below.
        command.args(["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]);
        command.args(["--storage-driver", "vfs", "--config-file", &at("daemon.json")]);
        command.env_remove("DOCKER_HOST");
        let process = Some(VigieProcess::spawn(&mut command).expect("docker.io is installed"));
        let bridge = format!("vgt{}", std::process::id());
        let daemon = Self { directory, process, bridge };
        let up = eventually(LONG, async || daemon.docker(&["version"]).status.success());
        assert!(up.await, "{}", daemon.process.as_ref().expect("it was started").stderr());
        daemon.import();
        daemon
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    fn docker(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("docker");
        command.env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT").env("HOME", self.directory.path());
        command.arg("--host").arg(format!("unix://{}", self.socket().display())).args(arguments);
        command.output().expect("the command docker")
    }

    fn run(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.docker(arguments);
        assert!(status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8_lossy(&stdout).trim().to_owned()
    }

    /// An image with nothing in it but Debian's static busybox: no registry can be asked.
    fn import(&self) {
        let root = self.directory.path().join("root");
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
        let tar = Command::new("tar").arg("-C").arg(&root).args(["-c", "."]).output().expect("tar");
        let mut command = Command::new("docker");
        command.arg("--host").arg(format!("unix://{}", self.socket().display()));
        command.args(["import", "-", "app"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut import = command.spawn().expect("the command docker");
        import.stdin.take().expect("piped").write_all(&tar.stdout).unwrap();
        assert!(import.wait().unwrap().success());
    }

    /// Starts a replica that says its name.
    fn replica(&self, number: usize) {
        let name = format!("app-{number}");
        self.run(&Self::start_of(&name, &name).iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// The arguments that start one that says `words`.
    fn start_of(name: &str, words: &str) -> Vec<String> {
        let script = format!(
            "busybox mkdir -p /www && busybox echo {words} > /www/index.html && exec busybox httpd -f -p 8000 -h /www"
        );
        let labels = [
            "--label",
            "traefik.enable=true",
            "--label",
            "traefik.http.routers.app.rule=PathPrefix(`/`)",
            "--label",
            "traefik.http.services.app.loadbalancer.server.port=8000",
            "--label",
            "traefik.http.services.app.loadbalancer.healthcheck.path=/index.html",
            "--label",
            "traefik.http.services.app.loadbalancer.healthcheck.interval=200ms",
            "--label",
            "traefik.http.services.app.loadbalancer.healthcheck.timeout=3s",
            "--label",
            "traefik.http.services.app.loadbalancer.healthcheck.startunhealthy=true",
        ];
        let mut arguments = vec!["run", "--detach", "--name", name, "--network", "net", "--init=false"];
        arguments.extend(labels);
        arguments.extend(["app", "/bin/busybox", "sh", "-c", &script]);
        arguments.into_iter().map(str::to_owned).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let Some(process) = self.process.take() else { return };
        self.docker(&["swarm", "leave", "--force"]);
        let running = self.docker(&["ps", "--all", "--quiet"]).stdout;
        let running = String::from_utf8_lossy(&running).into_owned();
        let mut remove = vec!["rm", "--force"];
        remove.extend(running.split_whitespace());
        self.docker(&remove);
        self.docker(&["network", "rm", "net"]);
        let _ = process.signal(Signal::TERM);
        // It ends what it has started first; the directory goes after that.
        let pid = self.directory.path().join("pid");
        for _ in 0..100 {
            if !pid.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

const STATIC: &str = "
core: {workers: 2}
entryPoints:
  web: {address: '127.0.0.1:0'}
  traefik: {address: '127.0.0.1:0'}
providers:
  docker: {endpoint: 'unix://{socket}', exposedByDefault: false, network: net}
api: {insecure: true}
metrics: {prometheus: {}}
";

/// How many servers there are, once each of them has answered.
async fn until_replicas(vigie: &Vigie, expected: &[&str]) {
    let mut seen = std::collections::BTreeSet::new();
    let held = eventually(LONG, async || {
        seen.clear();
        for _ in 0..expected.len() * 2 {
            // One that was under way to a container at its end may have to wait for the kernel.
            let Ok(answer) = get(vigie.web(), HOST, "/").await else { return false };
            seen.insert(answer.text().trim().to_owned());
        }
        seen.iter().map(String::as_str).eq(expected.iter().copied())
    });
    assert!(held.await, "{seen:?} are not {expected:?}\n{}", vigie.words());
}

/// C9: a started container joins, a stopped one leaves, no restart; 3, then 5, then 2.
#[tokio::test]
async fn a_real_daemon_is_followed() {
    if !rustix::process::getuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "the tests run as root, dockerd needs it");
        return;
    }
    assert!(Path::new("/usr/bin/setpriv").exists());
    let daemon = Daemon::start().await;
    (0..3).for_each(|number| daemon.replica(number));
    let text = STATIC.replace("{socket}", &daemon.socket().display().to_string());
    let vigie = Vigie::launch(Files::new(), &text).await;
    until_replicas(&vigie, &["app-0", "app-1", "app-2"]).await;
    let load = Load::new(vigie.web(), HOST).connections(2).duration(LONG).expecting("app-").start();
    daemon.replica(3);
    daemon.replica(4);
    until_replicas(&vigie, &["app-0", "app-1", "app-2", "app-3", "app-4"]).await;
    // At once: what was under way there fails before any proxy can know, so nothing is asked of them meanwhile.
    load.stop().await.assert_flawless();
    daemon.run(&["kill", "app-0", "app-2", "app-4"]);
    until_replicas(&vigie, &["app-1", "app-3"]).await;
    // One that comes back has another address, perhaps.
    daemon.run(&["start", "app-0"]);
    until_replicas(&vigie, &["app-0", "app-1", "app-3"]).await;
    vigie.until_metric("lb_provider_stale", &[("provider", "docker")], 0.0).await;
}

/// C11: containers that are found by their labels are replaced one at a time, though each comes back with another
/// address, and no request fails.
#[tokio::test]
async fn a_rollout_replaces_containers() {
    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    if !rustix::process::getuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "the tests run as root, dockerd needs it");
        return;
    }
    let daemon = Daemon::start().await;
    (0..3).for_each(|number| daemon.replica(number));
    let text = STATIC.replace("{socket}", &daemon.socket().display().to_string());
    let text = text.replace("api: {insecure: true}", &format!("api: {{insecure: true, token: {TOKEN}}}"));
    let vigie = Vigie::launch(Files::new(), &text).await;
    until_replicas(&vigie, &["app-0", "app-1", "app-2"]).await;

    let quoted = |word: &String| format!("'{word}'");
    let start: Vec<_> = Daemon::start_of("NAME", "VERSION").iter().map(quoted).collect();
    let start = start.join(" ").replace("'NAME'", "$name").replace("VERSION", "'\"$2\"'");
    let script = format!(
        "export DOCKER_HOST=unix://{}\nname=$({} $1) && docker rm --force $name && docker {start}\n",
        daemon.socket().display(),
        crate::harness::repository().join("deploy/rollout/container-at").display(),
    );
    let script = vigie.files.write("replace", &script);
    let load = Load::new(vigie.web(), HOST).connections(4).pause(Duration::from_millis(2)).start();
    let mut rollout = Command::new(crate::harness::binary());
    rollout.args(["rollout", "app", "v2", "--from=v1", "--pause=300ms", "--by=test"]);
    rollout.arg(format!("--replace=sh {} {{host}} {{version}}", script.display()));
    rollout.arg(format!("--address=http://{}", vigie.admin())).env("VIGIE_API_TOKEN", TOKEN);
    rollout.arg(format!("--stateDir={}", vigie.files.path().display()));
    let mut rollout = VigieProcess::spawn(&mut rollout).unwrap();
    let status = rollout.ended(LONG).await.unwrap();
    show(&rollout.stdout());
    assert_eq!(status.code(), Some(0), "{}\n{}", rollout.stderr(), vigie.words());
    until_replicas(&vigie, &["v2"]).await;
    load.stop().await.assert_flawless();
}

const SWARM: &str = "
entryPoints:
  web: {address: '127.0.0.1:8080'}
  traefik: {address: '127.0.0.1:8081'}
providers:
  swarm: {endpoint: 'unix://{socket}', exposedByDefault: false, network: net}
api: {insecure: true}
";

/// Tasks of a service join as they run and leave as they are taken away, and `lbswarm` leaves the choice to the swarm.
#[tokio::test]
async fn a_real_swarm_is_followed() {
    if !rustix::process::getuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "the tests run as root, dockerd needs it");
        return;
    }
    let daemon = Daemon::swarm().await;
    let script =
        "busybox mkdir /www && busybox hostname > /www/index.html && exec busybox httpd -f -p 8000 -h /www";
    let create = |name: &str, labels: &[&str]| {
        let mut arguments = vec!["service", "create", "--detach", "--name", name, "--network", "net"];
        arguments.extend(["--replicas", "2", "--stop-grace-period", "1s", "--hostname", "{{.Task.Name}}"]);
        arguments.extend(["--label", "traefik.enable=true"]);
        arguments.extend(labels.iter().flat_map(|label| ["--label", *label]));
        arguments.extend(["app", "/bin/busybox", "sh", "-c", script]);
        daemon.run(&arguments);
    };
    create(
        "app",
        &[
            "traefik.http.routers.app.rule=PathPrefix(`/`)",
            "traefik.http.services.app.loadbalancer.server.port=8000",
        ],
    );
    // Addresses of tasks are reached from within their network.
    daemon.run(&[
        "run",
        "--detach",
        "--name",
        "inside",
        "--network",
        "net",
        "app",
        "/bin/busybox",
        "sleep",
        "1000",
    ]);
    let inside = daemon.run(&["inspect", "--format", "{{.State.Pid}}", "inside"]);
    let inside = format!("--net=/proc/{inside}/ns/net");
    let files = Files::new();
    let text = SWARM.replace("{socket}", &daemon.socket().display().to_string());
    let file = files.write("vigie.yml", &text);
    let mut command = Command::new("nsenter");
    command.arg(&inside).arg(crate::harness::binary()).arg(format!("--configFile={}", file.display()));
    let vigie = VigieProcess::spawn(&mut command).unwrap();
    let ask = |port: &str, path: &str| {
        let url = format!("http://127.0.0.1:{port}{path}");
        let output =
            Command::new("nsenter").arg(&inside).args(["curl", "--silent", &url]).output().expect("curl");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    // Which tasks answer, by the names that they have up to their number.
    let until = async |expected: &[&str]| {
        let mut seen = std::collections::BTreeSet::new();
        let held = eventually(LONG, async || {
            let answers = (0..expected.len() * 2).map(|_| ask("8080", "/"));
            seen = answers.map(|answer| answer.split('.').take(2).collect::<Vec<_>>().join(".")).collect();
            seen.iter().map(String::as_str).eq(expected.iter().copied())
        });
        assert!(
            held.await,
            "{seen:?} are not {expected:?}\n{}\n{}",
            vigie.stderr(),
            daemon.run(&["service", "ps", "app"])
        );
    };
    until(&["app.1", "app.2"]).await;
    daemon.run(&["service", "scale", "--detach", "app=3"]);
    until(&["app.1", "app.2", "app.3"]).await;
    daemon.run(&["service", "scale", "--detach", "app=1"]);
    until(&["app.1"]).await;
    create(
        "shared",
        &[
            "traefik.http.routers.shared.rule=Path(`/index.html`)",
            "traefik.http.services.shared.loadbalancer.server.port=8000",
            "traefik.swarm.lbswarm=true",
        ],
    );
    // Not asked: kernels without IPVS balance nothing there.
    let addresses = "{{range .Endpoint.VirtualIPs}}{{.Addr}}{{end}}";
    let address = daemon.run(&["service", "inspect", "--format", addresses, "shared"]);
    let url = format!("http://{}:8000", address.split('/').next().unwrap());
    let shown = eventually(LONG, async || {
        let shown: serde_json::Value =
            serde_json::from_str(&ask("8081", "/api/http/services/shared@swarm")).unwrap_or_default();
        shown["loadBalancer"]["servers"] == serde_json::json!([{ "url": url }])
    });
    assert!(shown.await, "{url}\n{}", vigie.stderr());
    vigie.signal(Signal::TERM).unwrap();
}
