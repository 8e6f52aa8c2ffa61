use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};

use lb_config::dynamic::{HealthCheck, OutlierDetection, PassiveHealthCheck};
use lb_config::{Kind, Scope};
use lb_core::balance::Pick;
use lb_core::health::{Outcome, Status};
use lb_observe::metrics;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::testing::{
    Origin, PROBES, Speaks, client, config, health_check, json, loaded, status, transport, wait_until,
};

/// A control plane that publishes into a list.
struct Plane {
    control: Control,
    published: Published,
    metrics: Metrics,
}

type Published = Arc<Mutex<Vec<Candidate>>>;

fn plane() -> Plane {
    let published = Published::default();
    let list = Arc::clone(&published);
    plane_with(published, move |candidate| {
        list.lock().push(candidate.clone());
        Ok(())
    })
}

fn plane_with(
    published: Published,
    publish: impl Fn(&Candidate) -> Result<(), Problems> + Send + Sync + 'static,
) -> Plane {
    let metrics = Metrics::new(metrics::Settings::default(), 1);
    let settings = Settings {
        throttle: Duration::from_secs(2),
        default_transport: transport(),
        default_tcp_transport: Default::default(),
        context: Context::default(),
    };
    Plane { control: Control::new(settings, metrics.clone(), client(), publish), published, metrics }
}

/// The same, running, with one provider called `file`.
struct Running {
    file: mpsc::Sender<Reading>,
    published: Published,
    state: StateWatch,
    metrics: Metrics,
    _task: Stopped,
}

/// Ends the control plane with the test.
struct Stopped(JoinHandle<()>);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn run(plane: Plane) -> Running {
    let Plane { mut control, published, metrics } = plane;
    let (file, readings) = mpsc::channel(4);
    control.attach("file", None, readings);
    let state = control.state();
    Running { file, published, state, metrics, _task: Stopped(tokio::spawn(control.run())) }
}

impl Running {
    async fn says(&self, config: Config) {
        self.file.send(Ok(loaded(config))).await.unwrap();
    }

    /// Delivers a configuration and waits until it is in force.
    async fn loads(&self, config: Config) {
        self.says(config.clone()).await;
        wait_until(|| *self.state.load().config == config).await;
    }

    fn status(&self, service: &str) -> Vec<Status> {
        let state = self.state.load();
        state.services[service].servers().map(|(server, _)| server.status()).collect()
    }

    /// The sample that starts like this.
    fn metric(&self, start: &str) -> String {
        let text = self.metrics.render();
        let line = text.lines().find(|line| line.starts_with(start)).unwrap_or_default();
        line.rsplit(' ').next().unwrap_or_default().to_owned()
    }
}

fn service(urls: &[&str]) -> Config {
    config("api@file", urls, None)
}

fn problem(message: &str) -> Problems {
    Problem { line: 3, column: 1, ..Problem::whole_file("dynamic.yml", message.to_owned(), None) }.into()
}

#[test]
fn a_good_configuration_comes_into_force_once() {
    let Plane { mut control, published, metrics } = plane();
    let state = control.state();
    assert_eq!(state.load().generation, 0);
    control.apply("file", Ok(loaded(service(&["http://10.0.0.1:80"]))));
    control.apply("file", Ok(loaded(service(&["http://10.0.0.1:80"])))); // the same again
    let state = state.load_full();
    assert_eq!((state.generation, published.lock().len()), (1, 1));
    assert_eq!(state.services["api@file"].servers().len(), 1);
    assert!(state.loaded_at.is_some() && state.last_error().is_none());
    assert!(Arc::ptr_eq(&state.services, &published.lock()[0].services), "what is probed is what is used");
    assert!(metrics.render().contains("config_reloads_total 1"), "{}", metrics.render());
}

#[test]
fn a_refused_configuration_changes_nothing_but_what_is_known_of_it() {
    let Plane { mut control, published, metrics } = plane();
    let state = control.state();
    control.apply("file", Err(problem("at the start")));
    assert_eq!((state.load().generation, published.lock().len()), (0, 0));
    control.apply("file", Ok(loaded(service(&["http://10.0.0.1:80"]))));
    assert!(state.load().last_error().is_none());
    let before = state.load_full();
    control.apply("file", Err(problem("bad indentation")));
    let after = state.load_full();
    assert_eq!((after.generation, published.lock().len()), (1, 1));
    assert!(Arc::ptr_eq(&before.config, &after.config) && Arc::ptr_eq(&before.services, &after.services));
    let (provider, refusal) = after.last_error().unwrap();
    assert_eq!(provider, "file");
    assert!(refusal.problems.to_string().starts_with("dynamic.yml:3:1: bad indentation"));
    assert_eq!(after.providers["file"].loaded_at, before.providers["file"].loaded_at);
    let text = metrics.render();
    let failure = text.lines().find(|line| {
        line.starts_with("traefik_config_last_reload_failure ")
            || line.starts_with("lb_config_last_reload_failure_timestamp_seconds ")
            || line.contains("last_reload_failure") && !line.starts_with('#')
    });
    assert!(failure.is_some_and(|line| !line.ends_with(" 0")), "{text}");

    // The operator takes the change back: what runs is again what the file says.
    control.apply("file", Ok(loaded(service(&["http://10.0.0.1:80"]))));
    assert!(state.load().last_error().is_none());
    assert_eq!((state.load().generation, published.lock().len()), (1, 1));
}

#[test]
fn a_build_that_fails_changes_nothing() {
    let refuse = Arc::new(AtomicUsize::new(0));
    let refused = Arc::clone(&refuse);
    let Plane { mut control, .. } = plane_with(Published::default(), move |_| {
        if refused.load(Ordering::Relaxed) > 0 { Err(problem("no such certificate")) } else { Ok(()) }
    });
    let state = control.state();
    control.apply("file", Ok(loaded(service(&["http://10.0.0.1:80"]))));
    let before = state.load_full();
    refuse.store(1, Ordering::Relaxed);
    control.apply("file", Ok(loaded(service(&["http://10.0.0.2:80"]))));
    let after = state.load_full();
    assert!(Arc::ptr_eq(&before.services, &after.services) && after.generation == 1);
    assert!(after.last_error().unwrap().1.problems.to_string().contains("no such certificate"));
    // What failed is not what the next one is compared with.
    refuse.store(0, Ordering::Relaxed);
    control.apply("file", Ok(loaded(service(&["http://10.0.0.2:80"]))));
    assert_eq!(state.load().generation, 2);
    assert_eq!(state.load().services["api@file"].servers().next().unwrap().0.url(), "http://10.0.0.2:80");
}

#[test]
fn providers_are_merged_and_fail_alone() {
    let Plane { mut control, .. } = plane();
    let state = control.state();
    control.apply("file", Ok(loaded(service(&["http://10.0.0.1:80"]))));
    control.apply("docker", Ok(loaded(config("web@docker", &["http://10.0.0.2:80"], None))));
    control.apply("docker", Err(problem("unreachable")));
    control.apply("file", Ok(loaded(service(&["http://10.0.0.3:80"]))));
    let state = state.load_full();
    let names: Vec<_> = state.config.services.keys().map(String::as_str).collect();
    assert_eq!(names, ["api@file", "web@docker"]);
    assert_eq!(state.stale().map(|(name, _)| name).collect::<Vec<_>>(), ["docker"]);
    assert_eq!(state.generation, 3);
}

#[test]
fn what_only_one_provider_may_define_is_told_when_several_do() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let mut control = plane().control.complaining(move |words| heard.lock().push(words.to_owned()));
    let options = |provider: &str, version: u8| {
        let text = format!("tls: {{options: {{default: {{minVersion: VersionTLS1{version}}}}}}}");
        lb_config::parse_dynamic("a.yml", &text, provider, &Context::default())
    };
    control.apply("http", options("http", 2));
    assert!(told.lock().is_empty());
    control.apply("file", options("file", 2));
    control.apply("file", options("file", 3));
    let told = told.lock();
    let expected =
        "the TLS options `default` are defined by several providers (file, http): that of file is used";
    assert!(told.len() == 1 && told[0].starts_with(expected), "{told:?}");
}

#[test]
fn live_state_survives_into_the_next_configuration() {
    let Plane { mut control, published, .. } = plane();
    control.apply("file", Ok(loaded(service(&["http://10.0.0.1:80"]))));
    let first = Arc::clone(&published.lock()[0].services["api@file"]);
    let pick = Pick { client: IpAddr::V4(Ipv4Addr::LOCALHOST), sticky: None, random: 0, tried: &[] };
    let request = first.pick(&pick).unwrap();
    control.apply("file", Ok(loaded(service(&["http://10.0.0.2:80", "http://10.0.0.1:80"]))));
    let second = Arc::clone(&published.lock()[1].services["api@file"]);
    let in_flight = || second.servers().map(|(server, _)| server.in_flight()).collect::<Vec<_>>();
    assert_eq!(in_flight(), [0, 1]);
    drop(request);
    assert_eq!(in_flight(), [0, 0]);
}

fn spoils(kind: Kind, name: &str) -> Problems {
    let mut problems = problem(name);
    problems.0[0].scope = Scope::Object { kind, name: name.to_owned() };
    problems
}

#[test]
fn a_new_mistake_keeps_the_last_good_version_and_applies_the_rest() {
    let with = |port: u16, broken: &[&str]| {
        let mut config = service(&[&format!("http://10.0.0.1:{port}")]);
        config.services.insert("other@file".to_owned(), config.services["api@file"].clone());
        let mut loaded = loaded(config);
        for name in broken {
            loaded.config.services.remove(*name);
            loaded.disabled.insert((Kind::Service, (*name).to_owned()), vec!["bad server".to_owned()]);
            loaded.problems.extend(spoils(Kind::Service, name).0);
        }
        Ok(loaded)
    };
    let said: Arc<Mutex<Vec<String>>> = Arc::default();
    let says = Arc::clone(&said);
    let Plane { control, metrics, .. } = plane();
    let mut control = control.complaining(move |words| says.lock().push(words.to_owned()));
    let state = control.state();
    let url = |name: &str| state.load().services[name].servers().next().unwrap().0.url().to_owned();
    let shown = |sample: &str| metrics.render().lines().any(|line| line == sample);
    // Nothing is in force yet: better some objects than none.
    control.attach("file", Some(with(1, &["other@file"])), mpsc::channel(1).1);
    assert_eq!(
        (state.load().generation, state.load().services.len(), state.load().disabled.len()),
        (1, 1, 1)
    );
    assert!(shown("lb_config_disabled_objects{kind=\"service\"} 1"));
    let disabled = "the service other@file is disabled, it has no good version to go back to: bad server; dynamic.yml:3:1: other@file";
    assert_eq!(std::mem::take(&mut *said.lock()), [disabled]);
    control.apply("file", with(2, &[]));
    assert_eq!(std::mem::take(&mut *said.lock()), ["the service other@file is no longer disabled"]);
    assert!(state.load().disabled.is_empty());
    assert!(shown("lb_config_disabled_objects{kind=\"service\"} 0"));
    assert!(shown("lb_config_quarantined_objects{kind=\"service\"} 0"));
    control.apply("file", with(3, &["other@file"]));
    assert_eq!(
        (url("api@file"), url("other@file")),
        ("http://10.0.0.1:3".to_owned(), "http://10.0.0.1:2".to_owned())
    );
    assert!(shown("lb_config_quarantined_objects{kind=\"service\"} 1"));
    assert_eq!(state.load().quarantined.len(), 1);
    assert!(state.load().last_error().is_none());
    control.apply("file", with(4, &["other@file"]));
    let expected =
        "the service other@file is in quarantine, its last good version is used: dynamic.yml:3:1: other@file";
    assert_eq!(std::mem::take(&mut *said.lock()), [expected], "it is said once");
    control.apply("file", with(5, &[]));
    assert_eq!(std::mem::take(&mut *said.lock()), ["the service other@file is out of quarantine"]);
    assert_eq!(
        (url("api@file"), url("other@file")),
        ("http://10.0.0.1:5".to_owned(), "http://10.0.0.1:5".to_owned())
    );
    assert!(state.load().quarantined.is_empty());
    assert!(shown("lb_config_quarantined_objects{kind=\"service\"} 0"));
    assert!(shown("lb_config_reload_failures_total 0"));
    // Whoever was told of a refusal is told that it is over: by the same configuration as before, or by another one.
    for number in [5, 6] {
        control.apply("file", Err(spoils(Kind::Service, "other@file")));
        assert!(std::mem::take(&mut *said.lock())[0].contains("still running"));
        control.apply("file", with(number, &[]));
        let over = "provider file: its configuration is no longer refused, and in force";
        assert_eq!(std::mem::take(&mut *said.lock()), [over]);
    }
}

#[test]
fn what_does_not_compile_goes_back_to_what_did() {
    // Servers on port 13 do not compile, and those on port 14 never do again.
    let bad = Arc::new(Mutex::new(vec![":13"]));
    let list = Arc::clone(&bad);
    let tries = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tries);
    let Plane { mut control, .. } = plane_with(Published::default(), move |candidate| {
        count.fetch_add(1, Ordering::Relaxed);
        let fails = |name: &String| {
            let url = &candidate.config.services[name].servers[0].url;
            list.lock().iter().any(|port| url.ends_with(port))
                && !candidate.left_out.contains_key(&(Kind::Service, name.clone()))
        };
        let failed: Vec<_> = candidate
            .config
            .services
            .keys()
            .filter(|name| fails(name))
            .flat_map(|name| spoils(Kind::Service, name).0)
            .collect();
        if failed.is_empty() { Ok(()) } else { Err(Problems(failed)) }
    });
    let state = control.state();
    let both = |a: &str, b: &str| {
        let mut both = config("a@file", &[&format!("http://10.0.0.1:{a}")], None);
        both.services.extend(config("b@file", &[&format!("http://10.0.0.1:{b}")], None).services);
        Ok(loaded(both))
    };
    let ports = || -> Vec<String> {
        let state = state.load();
        state
            .config
            .services
            .values()
            .map(|service| service.servers[0].url.rsplit(':').next().unwrap().to_owned())
            .collect()
    };
    control.apply("file", both("1", "13"));
    assert_eq!((ports(), state.load().disabled.len()), (vec!["1".to_owned()], 1));
    control.apply("file", both("1", "2"));
    tries.store(0, Ordering::Relaxed);
    control.apply("file", both("3", "13"));
    assert_eq!((ports(), tries.load(Ordering::Relaxed)), (vec!["3".to_owned(), "2".to_owned()], 2));
    assert_eq!(state.load().quarantined.len(), 1);
    // What is in force would be lost: the change is refused.
    bad.lock().push(":2");
    control.apply("file", both("4", "13"));
    assert_eq!(ports(), ["3", "2"]);
    assert!(state.load().last_error().is_some());
}

#[tokio::test]
async fn a_single_change_is_applied_at_once_and_a_storm_together() {
    let plane = run(plane());
    let start = Instant::now();
    plane.loads(service(&["http://10.0.0.1:80"])).await;
    plane.loads(service(&["http://10.0.0.2:80"])).await; // inside Traefik's two seconds
    assert!(start.elapsed() < Duration::from_millis(250), "{:?}", start.elapsed());
    let (start, before) = (Instant::now(), plane.published.lock().len());
    for port in 1..=300 {
        plane.says(service(&[&format!("http://10.0.0.1:{port}")])).await;
        sleep(Duration::from_millis(1)).await;
    }
    wait_until(|| *plane.state.load().config == service(&["http://10.0.0.1:300"])).await;
    let builds = plane.published.lock().len() - before;
    let most = start.elapsed().as_millis() / SHORTEST_GAP.as_millis() + 2;
    assert!(builds as u128 <= most && builds < 300, "{builds} builds in {:?}", start.elapsed());
}

#[tokio::test]
async fn a_good_configuration_before_a_refused_one_is_not_lost() {
    let plane = run(plane());
    plane.loads(service(&["http://10.0.0.1:80"])).await;
    plane.says(service(&["http://10.0.0.2:80"])).await;
    plane.file.send(Err(problem("typo"))).await.unwrap();
    wait_until(|| plane.state.load().last_error().is_some()).await;
    assert_eq!(*plane.state.load().config, service(&["http://10.0.0.2:80"]));
}

#[tokio::test]
async fn a_build_that_panics_is_a_refusal() {
    let panicked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&panicked);
    let plane = run(plane_with(Published::default(), move |candidate| {
        let url = candidate.services["api@file"].servers().next().unwrap().0.url().to_owned();
        if url.ends_with(":13") {
            count.fetch_add(1, Ordering::Relaxed);
            panic!("thirteen");
        }
        Ok(())
    }));
    plane.says(service(&["http://10.0.0.1:13"])).await;
    wait_until(|| plane.state.load().last_error().is_some()).await;
    assert_eq!(panicked.load(Ordering::Relaxed), 1);
    plane.loads(service(&["http://10.0.0.1:14"])).await;
    assert!(plane.state.load().last_error().is_none());
}

#[tokio::test]
async fn probes_take_servers_out_and_bring_them_back() {
    let [a, b] = [
        Origin::start(Speaks::Http1, |_| status(200)).await,
        Origin::start(Speaks::Http1, |_| status(200)).await,
    ];
    let plane = run(plane());
    let urls = [a.url("http"), b.url("http")];
    plane.loads(config("api@file", &[&urls[0], &urls[1]], Some(health_check()))).await;
    use Status::{Degraded, Healthy, Unhealthy};
    b.now_answers(|_| status(503));
    wait_until(|| plane.status("api@file") == [Healthy, Unhealthy]).await;
    b.now_answers(|_| json(200, r#"{"status":"degraded"}"#));
    wait_until(|| plane.status("api@file") == [Healthy, Degraded]).await;
    b.now_answers(|_| status(200));
    wait_until(|| plane.status("api@file") == [Healthy, Healthy]).await;
    assert_ne!(plane.metric("health_check_total"), "");
    assert_ne!(plane.metric("health_check_failures_total"), "");
    assert_eq!(plane.metric("instance_health"), "1");
}

#[tokio::test]
async fn a_dead_server_is_noticed_soon_whatever_the_interval() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let plane = run(plane());
    let check = HealthCheck { interval: Duration::from_secs(600), ..health_check() };
    plane.loads(config("api@file", &[&format!("http://{dead}")], Some(check))).await;
    wait_until(|| plane.status("api@file") == [Status::Unhealthy]).await;
}

#[tokio::test]
async fn a_reload_keeps_health_and_causes_no_probes() {
    let origin = Origin::start(Speaks::Http1, |_| status(503)).await;
    let plane = run(plane());
    let hourly = Duration::from_secs(3600);
    let check = HealthCheck { interval: hourly, unhealthy_interval: hourly, ..health_check() };
    let with = |weight: u32, check: &HealthCheck| {
        let mut config = config("api@file", &[&origin.url("http")], Some(check.clone()));
        config.services.get_mut("api@file").unwrap().servers[0].weight = weight;
        config
    };
    plane.loads(with(1, &check)).await;
    wait_until(|| plane.status("api@file") == [Status::Unhealthy]).await;
    for weight in 2..6 {
        plane.loads(with(weight, &check)).await;
        assert_eq!(plane.status("api@file"), [Status::Unhealthy]);
    }
    // A first probe would have come within a second.
    sleep(Duration::from_millis(1200)).await;
    assert_eq!(origin.seen().len(), 1);

    // Another check is another matter.
    origin.now_answers(|_| status(200));
    plane.loads(with(1, &HealthCheck { path: "/ready".to_owned(), ..check })).await;
    wait_until(|| plane.status("api@file") == [Status::Healthy]).await;
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn an_ejected_server_returns_by_itself_after_a_reload() {
    let plane = run(plane());
    let time = Duration::from_millis(500);
    let one_error = NonZeroU32::new(1);
    let with = |urls: &[&str]| {
        let mut config = service(urls);
        config.services.get_mut("api@file").unwrap().outlier_detection = Some(OutlierDetection {
            consecutive_5xx: one_error,
            base_ejection_time: time,
            ..OutlierDetection::default()
        });
        config
    };
    let [one, two, three] = ["http://10.0.0.1:80", "http://10.0.0.2:80", "http://10.0.0.3:80"];
    plane.loads(with(&[one, two])).await;
    let in_force = || Arc::clone(&plane.state.load().services["api@file"]);
    let ejected = Instant::now();
    assert!(in_force().observe_outcome(0, Outcome::ServerError, ejected.into_std()).is_some());
    plane.loads(with(&[three, one, two])).await;
    assert_eq!((in_force().is_ejected(1), plane.metric("lb_ejected_servers").as_str()), (true, "1"));
    wait_until(|| !in_force().is_ejected(1)).await;
    assert!(ejected.elapsed() >= time);
    assert_eq!(plane.metric("lb_ejected_servers"), "0");
}

#[tokio::test]
async fn a_service_that_goes_takes_its_probes_along() {
    let origin = Origin::start(Speaks::Http1, |_| status(200)).await;
    let plane = run(plane());
    plane.loads(config("api@file", &[&origin.url("http")], Some(health_check()))).await;
    wait_until(|| origin.seen().len() > 2).await;
    plane.loads(config("api@file", &[&origin.url("http")], None)).await;
    sleep(Duration::from_millis(50)).await; // what was on its way
    let seen = origin.seen().len();
    sleep(Duration::from_millis(300)).await;
    assert_eq!(origin.seen().len(), seen);
}

#[tokio::test]
async fn a_server_that_starts_unhealthy_is_let_in_quickly() {
    let origin = Origin::start(Speaks::Http1, |_| status(200)).await;
    let plane = run(plane());
    let check = HealthCheck { interval: Duration::from_secs(60), start_unhealthy: true, ..health_check() };
    let start = Instant::now();
    plane.loads(config("api@file", &[&origin.url("http")], Some(check))).await;
    wait_until(|| plane.status("api@file") == [Status::Healthy]).await;
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_server_brought_back_in_an_old_configuration_is_back_in_the_new_one() {
    let plane = run(plane());
    let window = Duration::from_millis(100);
    let passive = PassiveHealthCheck { failure_window: window, max_failed_attempts: 1 };
    let with = |urls: &[&str]| {
        let mut config = service(urls);
        config.services.get_mut("api@file").unwrap().passive_health_check = Some(passive.clone());
        config
    };
    plane.loads(with(&["http://10.0.0.1:80"])).await;
    let in_force = Arc::clone(&plane.state.load().services["api@file"]);
    in_force.observe_response(0, true, Instant::now().into_std()).unwrap();
    // A reload in between, that moves the server as well.
    plane.loads(with(&["http://10.0.0.2:80", "http://10.0.0.1:80"])).await;
    assert_eq!(plane.status("api@file"), [Status::Healthy, Status::Unhealthy]);
    in_force.passive_recover(0, Instant::now().into_std()).unwrap();
    assert_eq!(plane.status("api@file"), [Status::Healthy, Status::Healthy]);
}

#[tokio::test]
async fn silent_servers_hold_no_more_connections_than_probes_may() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    let silent = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let highest = Arc::clone(&most);
    let accepting = tokio::spawn(async move {
        loop {
            let (stream, _) = silent.accept().await.unwrap();
            highest.fetch_max(open.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            let open = Arc::clone(&open);
            tokio::spawn(async move {
                let mut rest = stream;
                let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    let urls: Vec<_> = (0..PROBES * 3).map(|n| format!("http://127.0.0.{}:{port}", n + 1)).collect();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let check = HealthCheck { timeout: Duration::from_millis(200), ..health_check() };
    let running = run(plane());
    running.loads(config("api@file", &urls, Some(check))).await;
    wait_until(|| running.status("api@file").iter().all(|status| *status == Status::Unhealthy)).await;
    // One that has just ended may not be seen as closed yet.
    assert!((PROBES..=PROBES + 1).contains(&most.load(Ordering::Relaxed)), "{most:?}");
    accepting.abort();
}

#[test]
fn objects_of_every_protocol_are_counted() {
    let text =
        "http: {routers: {a: {rule: 'Path(`/`)', service: b}}, services: {b: {loadBalancer: {servers: []}}}}
tcp:
  routers: {c: {rule: 'HostSNI(`*`)', service: d, middlewares: [e]}}
  services: {d: {loadBalancer: {servers: [{address: '127.0.0.1:1'}]}}}
  middlewares: {e: {inFlightConn: {amount: 1}}}
udp:
  routers: {f: {service: g}}
  services: {g: {loadBalancer: {servers: [{address: '127.0.0.1:1'}]}}}
";
    let loaded = lb_config::parse_dynamic("a.yml", text, "file", &Context::default()).unwrap();
    assert_eq!(sizes(&loaded.config), [3, 3, 1], "{:?}", loaded.problems);
}
