//! `vigie demo`: three replicas behind Vigie, on loopback, configured by a scratch file to play with.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lb_proxy::Proxy;
use lb_replica::{Replica, Simulation};
use tokio::net::TcpListener;

use crate::print::say;
use crate::run::Life;

/// Where the dashboard is, as in Traefik, if nobody else is there.
const ADMIN_PORT: u16 = 8080;
/// How long a replica that was killed stays dead.
const DEAD: Duration = Duration::from_secs(15);

/// Runs the demonstration until Ctrl-C.
pub(crate) fn run(port: u16) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("vigie-replicas")
        .enable_all()
        .build()?;
    let mut ports = Vec::new();
    for number in 1..=3 {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).context("no port for a replica")?;
        ports.push(listener.local_addr()?.port());
        let replica = Arc::new(Replica::simulated(&format!("api-{number}")));
        runtime.spawn(live_and_die(replica, listener));
    }
    let directory = Scratch::new()?;
    let file = directory.0.join("api.yml");
    fs::write(&file, dynamic(&ports))?;
    let (config, _) = lb_config::parse_static("the demo", &static_yaml(port, &directory.0))
        .map_err(|problems| anyhow::anyhow!("{problems}"))?;
    crate::run::serve(config, Life::default(), |proxy| say(&banner(proxy, &ports, &file)))?;
    runtime.shutdown_background();
    Ok(())
}

/// Serves the replica; when it is killed its connections break and its port is closed for a while.
async fn live_and_die(replica: Arc<Replica<Simulation>>, listener: TcpListener) {
    let Ok(address) = listener.local_addr() else { return };
    let mut listener = Some(listener);
    loop {
        if let Some(listener) = listener.take() {
            tokio::select! {
                () = lb_replica::serve(listener, Arc::clone(&replica)) => {}
                () = replica.crashed() => say(&format!("-- {} is dead for {} s", replica.name(), DEAD.as_secs())),
            }
        }
        tokio::time::sleep(DEAD).await;
        match TcpListener::bind(address).await {
            Ok(bound) => {
                say(&format!("-- {} is back", replica.name()));
                listener = Some(bound);
            }
            Err(error) => say(&format!("-- {} cannot come back: {error}", replica.name())),
        }
    }
}

/// A directory that goes when the demonstration ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("vigie-demo-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind it does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn static_yaml(port: u16, directory: &Path) -> String {
    // Port 0 asks for any free one, which the admin entry point gets as well when its own is taken.
    let taken = std::net::TcpListener::bind(("127.0.0.1", ADMIN_PORT)).is_err();
    let admin = if port == 0 || taken { 0 } else { ADMIN_PORT };
    format!(
        r#"entryPoints:
  web: {{ address: "127.0.0.1:{port}" }}
  traefik: {{ address: "127.0.0.1:{admin}" }}
providers:
  file: {{ directory: "{}", watch: true }}
api: {{ insecure: true }}
ping: {{}}
metrics: {{ prometheus: {{ addRoutersLabels: true }} }}
log: {{ level: ERROR }}
"#,
        directory.display()
    )
}

fn dynamic(ports: &[u16]) -> String {
    let mut servers = String::new();
    for (port, number) in ports.iter().zip(1..) {
        servers.push_str(&format!(
            "          - url: http://127.0.0.1:{port}\n            weight: 1 # of api-{number}\n"
        ));
    }
    let service = |name: &str, extra: &str| {
        format!(
            "    {name}:\n      loadBalancer:\n        servers:\n{servers}{extra}        healthCheck:\n          \
             path: /health\n          interval: 1s\n          timeout: 500ms\n"
        )
    };
    let sticky =
        "        sticky:\n          cookie:\n            name: vigie_demo\n            httpOnly: true\n";
    format!(
        "# Edit me: a change is live within 250 ms, and a mistake changes nothing.\nhttp:\n  routers:\n    \
         api:\n      rule: PathPrefix(`/`)\n      service: api\n    sticky:\n      rule: PathPrefix(`/sticky`)\n      \
         service: sticky\n  services:\n{}{}",
        service("api", ""),
        service("sticky", sticky)
    )
}

fn banner(proxy: &Proxy, ports: &[u16], file: &Path) -> String {
    let addresses = proxy.addresses();
    let at = |name: &str| {
        let found = addresses.iter().find(|(entry, _)| entry == name);
        found.map(|(_, address)| address.to_string()).unwrap_or_default()
    };
    let (web, admin) = (at("web"), at("traefik"));
    let replicas: Vec<String> =
        ports.iter().zip(1..).map(|(port, n)| format!("api-{n} 127.0.0.1:{port}")).collect();
    let file = file.display();
    // Another one than the next line is about: it has an effect at once.
    let last = ports.last().copied().unwrap_or_default();
    format!(
        "
  API         http://{web}/
  dashboard   http://{admin}/dashboard/     metrics http://{admin}/metrics
  replicas    {}
  config      {file}

Try:
  # balance: the replicas take turns
  curl 'http://{web}/?[1-6]'
  # sticky: the cookie keeps you with one replica
  curl -c /tmp/vigie-demo.jar -b /tmp/vigie-demo.jar 'http://{web}/sticky?[1-3]'
  # kill a replica for {} s: nobody notices
  curl 'http://127.0.0.1:{last}/fail?crash'; curl 'http://{web}/?[1-6]'
  # edit the configuration: api-1 gets five times what each of the others gets
  sed -i 's/weight: 1 # of api-1/weight: 5 # of api-1/' {file}; sleep 0.3; curl 'http://{web}/?[1-7]'

Ctrl-C drains and stops.",
        replicas.join(", "),
        DEAD.as_secs()
    )
}
