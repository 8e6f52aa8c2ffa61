//! Two load balancers with one virtual address (C15, C16): real keepalived with the shipped file, each in a network
//! namespace of its own, joined by a bridge in that of the client. Needs root, as keepalived does.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lb_testkit::{Files, VigieProcess, eventually};
use rustix::process::Signal;

use crate::harness::{alive, binary, shipped};
use crate::timeline::{TimeLine, show};

/// What the last of three missed advertisements and two failed checks may take on a busy machine.
const TAKEOVER: Duration = Duration::from_secs(15);
const ADDRESS: &str = "192.0.2.10";
const REPLICA: &str = "192.0.2.254:3001";

/// Namespaces of one test; gone with it.
struct Net {
    prefix: String,
}

impl Net {
    fn new() -> Self {
        let net = Self { prefix: format!("vigie{}", std::process::id()) };
        for name in ["client", "lb-1", "lb-2"] {
            run(Command::new("ip").args(["netns", "add", &net.name(name)]));
            run(net.command(name, "ip").args("link set lo up".split(' ')));
        }
        run(net.command("client", "ip").args("link add bridge type bridge".split(' ')));
        run(net.command("client", "ip").args("addr add 192.0.2.254/24 dev bridge".split(' ')));
        run(net.command("client", "ip").args("link set bridge up".split(' ')));
        for (name, address) in [("lb-1", "192.0.2.11/24"), ("lb-2", "192.0.2.12/24")] {
            let pair =
                ["link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", &net.name(name)];
            run(net.command("client", "ip").args(pair));
            run(net.command("client", "ip").args(["link", "set", name, "master", "bridge", "up"]));
            run(net.command(name, "ip").args(["addr", "add", address, "dev", "eth0"]));
            run(net.command(name, "ip").args(["link", "set", "eth0", "up"]));
        }
        net
    }

    fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// A program in one of them; `ip netns exec` becomes that program.
    fn command(&self, name: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(name), program]);
        command
    }

    fn holds_address(&self, name: &str) -> bool {
        let shown = run(self.command(name, "ip").args(["-4", "addr", "show", "dev", "eth0"]));
        shown.contains(&format!("inet {ADDRESS}/"))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in ["client", "lb-1", "lb-2"] {
            let _ = Command::new("ip").args(["netns", "delete", &self.name(name)]).status();
        }
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("ip is installed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// One machine of the pair.
struct Machine<'n> {
    net: &'n Net,
    name: &'static str,
    files: Files,
    vigie: VigieProcess,
    keepalived: VigieProcess,
}

impl<'n> Machine<'n> {
    async fn start(net: &'n Net, name: &'static str) -> Self {
        let files = Files::new();
        let dir = files.path().display().to_string();
        // The check runs as nobody.
        run(Command::new("chmod").args(["755", &dir]));
        files.write(
            "vigie.yml",
            &format!(
                "core: {{workers: 1}}
entryPoints:
  web: {{address: ':80', transport: {{lifeCycle: {{requestAcceptGraceTimeout: 5s}}}}}}
  traefik: {{address: '127.0.0.1:8080'}}
ping: {{}}
providers: {{file: {{filename: '{dir}/dynamic.yml'}}}}
"
            ),
        );
        files.write(
            "dynamic.yml",
            &format!(
                "http:
  routers: {{all: {{rule: 'PathPrefix(`/`)', middlewares: [name], service: replica}}}}
  middlewares: {{name: {{headers: {{customResponseHeaders: {{X-Served-By: {name}}}}}}}}}
  services: {{replica: {{loadBalancer: {{servers: [{{url: 'http://{REPLICA}'}}]}}}}}}
"
            ),
        );
        let own = [
            ("/usr/local/bin/vigie", binary().to_str().unwrap()),
            ("/etc/vigie/vigie.yml", &format!("{dir}/vigie.yml")),
        ];
        let mut config = shipped("deploy/keepalived/keepalived.conf", &own);
        if name == "lb-2" {
            config = second(&config);
        }
        files.write("keepalived.conf", &config);
        let vigie = Self::vigie(net, name, files.path()).await;
        let mut command = net.command(name, "keepalived");
        command.args(["--dont-fork", "--log-console", "--vrrp"]);
        for (option, file) in [("use-file", "keepalived.conf"), ("pid", "pid"), ("vrrp_pid", "vrrp.pid")] {
            command.arg(format!("--{option}={dir}/{file}"));
        }
        let keepalived = VigieProcess::spawn(&mut command).expect("keepalived is installed");
        Self { net, name, files, vigie, keepalived }
    }

    async fn vigie(net: &Net, name: &str, dir: &Path) -> VigieProcess {
        let mut command = net.command(name, binary().to_str().unwrap());
        command.arg(format!("--configFile={}", dir.join("vigie.yml").display()));
        let process = VigieProcess::spawn(&mut command).unwrap();
        let reported = eventually(TAKEOVER, async || process.stderr().contains("  web "));
        assert!(reported.await, "{}", process.stderr());
        process
    }

    async fn restart_vigie(&mut self) {
        self.vigie = Self::vigie(self.net, self.name, self.files.path()).await;
    }

    /// The check has succeeded for the second time: after the start, and now.
    async fn is_well_again(&self) {
        let words = || self.keepalived.stdout() + &self.keepalived.stderr();
        let well = eventually(TAKEOVER, async || words().matches("succeeded").count() > 1).await;
        assert!(well, "{}: {}", self.name, words());
    }

    async fn takes_the_address(&self) {
        let held = eventually(TAKEOVER, async || self.net.holds_address(self.name)).await;
        assert!(held, "{}: {}{}", self.name, self.keepalived.stdout(), self.keepalived.stderr());
    }

    /// As if the power were off.
    async fn fail(&mut self) {
        let pids =
            ["pid", "vrrp.pid"].map(|file| std::fs::read_to_string(self.files.path().join(file)).unwrap());
        run(self.net.command("client", "ip").args(["link", "set", self.name, "down"]));
        for pid in pids.iter().map(|pid| pid.trim()) {
            run(Command::new("kill").args(["-KILL", pid]));
        }
        self.vigie.signal(Signal::KILL).unwrap();
        let gone = async || pids.iter().all(|pid| !alive(pid.trim().parse().unwrap()));
        assert!(eventually(TAKEOVER, gone).await);
    }
}

/// What the comments of the file say about the second machine.
fn second(config: &str) -> String {
    let other = |line: &str| match line.split_once("# lb-2: ") {
        Some((first, second)) => {
            let words: Vec<_> = first.split_whitespace().collect();
            format!("{} {second}", words[..words.len() - 1].join(" "))
        }
        None => line.to_owned(),
    };
    config.lines().map(|line| other(line) + "\n").collect()
}

/// A client that asks for the virtual address all the time, on a new connection each.
struct Requests {
    _process: VigieProcess,
    file: std::path::PathBuf,
}

impl Requests {
    fn start(net: &Net, files: &Files) -> Self {
        let file = files.path().join("requests");
        let asked = format!(
            "while :; do echo $(curl -s -m 1 -o /dev/null -w '%{{http_code}} %header{{x-served-by}}' http://{ADDRESS}/) $(date +%s%3N) \
             >>{}; sleep 0.02; done",
            file.display()
        );
        let mut command = net.command("client", "sh");
        command.args(["-c", &asked]);
        Self { _process: VigieProcess::spawn(&mut command).unwrap(), file }
    }

    /// When each good answer since then came, and from whom.
    fn good(&self, since: u128) -> Vec<(u128, String)> {
        let lines = std::fs::read_to_string(&self.file).unwrap_or_default();
        let read = |line: &str| {
            let mut words = line.split(' ');
            let good = words.next()? == "200";
            let (by, at) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
            (good && at >= since).then_some((at, by))
        };
        lines.lines().filter_map(read).collect()
    }

    /// Waits for answers by this machine, and gives the longest time without any since then.
    async fn until_served_by(&self, name: &str, since: u128) -> Duration {
        let come = || self.good(since).iter().filter(|(_, by)| by == name).count() > 20;
        assert!(eventually(TAKEOVER, async || come()).await, "no answer by {name}");
        let times: Vec<_> = [since].into_iter().chain(self.good(since).iter().map(|(at, _)| *at)).collect();
        let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().expect("two times");
        Duration::from_millis(longest.try_into().expect("a short time"))
    }
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis()
}

#[tokio::test]
async fn the_other_one_takes_the_address() {
    if !rustix::process::getuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "the tests run as root, keepalived needs it");
        show("SKIPPED: keepalived needs root");
        return;
    }
    let (net, files) = (Net::new(), Files::new());
    // Nobody asks for its health, so it needs no database.
    let mut replica = net.command("client", env!("CARGO_BIN_EXE_replica-e2e"));
    replica.args(["--listen", REPLICA, "--name", "replica"]);
    replica.env("DATABASE_URL", "postgres://127.0.0.1:1/").env("REDIS_URL", "redis://127.0.0.1:1/");
    let _replica = VigieProcess::spawn(&mut replica).unwrap();
    let mut first = Machine::start(&net, "lb-1").await;
    first.takes_the_address().await;
    let mut second = Machine::start(&net, "lb-2").await;
    let requests = Requests::start(&net, &files);
    requests.until_served_by("lb-1", 0).await;

    let time = TimeLine::new("two load balancers with one virtual address, a new connection every 30 ms");
    // It is stopped: its `/ping` fails while it still serves, so the address moves first.
    let stop = now();
    time.note("Vigie is stopped (SIGTERM) on lb-1, which has the address");
    first.vigie.signal(Signal::TERM).unwrap();
    second.takes_the_address().await;
    let outage = requests.until_served_by("lb-2", stop).await;
    time.note(&format!("lb-2 serves; longest time without an answer: {outage:.1?}"));
    assert!(outage < Duration::from_secs(1), "{outage:?} without an answer");
    first.vigie.ended(TAKEOVER).await.unwrap();

    // It comes back and does not take the address back.
    let back = now();
    first.restart_vigie().await;
    requests.until_served_by("lb-2", back).await;
    first.is_well_again().await;
    assert!(second.net.holds_address("lb-2") && !first.net.holds_address("lb-1"));

    // The other one crashes: two checks later the address is back.
    let crash = now();
    time.note("Vigie crashes (SIGKILL) on lb-2");
    second.vigie.signal(Signal::KILL).unwrap();
    first.takes_the_address().await;
    let outage = requests.until_served_by("lb-1", crash).await;
    time.note(&format!("lb-1 serves; longest time without an answer: {outage:.1?}"));
    assert!(outage < Duration::from_secs(8), "{outage:?} without an answer");
    second.restart_vigie().await;
    second.is_well_again().await;

    // The whole machine goes.
    let lost = now();
    time.note("the machine lb-1 is lost: its link is down, its processes are gone");
    first.fail().await;
    second.takes_the_address().await;
    let outage = requests.until_served_by("lb-2", lost).await;
    time.note(&format!("lb-2 serves; longest time without an answer: {outage:.1?}"));
    assert!(outage < Duration::from_secs(8), "{outage:?} without an answer");
}
