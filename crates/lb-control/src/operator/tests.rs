use std::time::Duration;

use super::*;
use crate::services;
use crate::state::State;
use crate::testing::{config, wait_until};

const SERVICE: &str = "app@file";
const ONE: &str = "http://10.0.0.1:80";
const TWO: &str = "http://10.0.0.2:80";

fn plane(urls: &[&str]) -> (Operators, StateWatch) {
    let state = StateWatch::default();
    let operators = Operators::new(state.clone(), Arc::default());
    reload(&operators, &state, urls);
    (operators, state)
}

/// As [`crate::Control`] does it.
fn reload(operators: &Operators, state: &StateWatch, urls: &[&str]) {
    let services =
        services::build(&config(SERVICE, urls, None), &state.load().services, Instant::now().into_std());
    operators.apply(&services, &Services::new());
    state.store(State { services: Arc::new(services), ..State::default() });
    operators.apply(&state.load().services, &Services::new());
}

fn order(url: &str, state: AdminState, deadline: Option<Duration>) -> OperatorState {
    let since = SystemTime::now();
    let until = deadline.map(|deadline| since + deadline);
    OperatorState { service: SERVICE.into(), url: url.into(), state, since, until, by: "test".into() }
}

fn states(state: &StateWatch) -> Vec<&'static str> {
    state.load().services[SERVICE].servers().map(|(server, _)| server.admin_state().word()).collect()
}

#[tokio::test]
async fn an_order_survives_reloads_and_the_absence_of_its_server() {
    let (operators, state) = plane(&[ONE, TWO]);
    let drain = order(ONE, AdminState::Drain, None);
    assert_eq!(operators.set(drain.clone()), Some(AdminState::Ready));
    assert_eq!(states(&state), ["drain", "ready"]);
    assert_eq!(operators.set(order(ONE, AdminState::Drain, None)), Some(AdminState::Drain));
    assert_eq!(operators.all()[0].0, drain, "the same order again begins nothing anew");
    reload(&operators, &state, &[TWO, ONE]);
    assert_eq!(states(&state), ["ready", "drain"]);
    reload(&operators, &state, &[TWO]);
    assert_eq!(states(&state), ["ready"]);
    reload(&operators, &state, &[ONE, TWO]);
    assert_eq!(states(&state), ["drain", "ready"]);
    // Taken back while the server is away.
    reload(&operators, &state, &[TWO]);
    assert_eq!(operators.set(order(ONE, AdminState::Ready, None)), Some(AdminState::Drain));
    reload(&operators, &state, &[ONE, TWO]);
    assert_eq!(states(&state), ["ready", "ready"]);
    assert!(operators.all().is_empty());
}

/// Services of HTTP and of TCP may have the same name.
#[tokio::test]
async fn servers_of_tcp_take_orders_too() {
    let (operators, state) = plane(&[ONE]);
    let text = "tcp: {services: {app: {loadBalancer: {servers: [{address: '10.0.0.1:80'}]}}}}";
    let config = lb_config::parse_dynamic("a.yml", text, "file", &Default::default()).unwrap().config;
    let build = || Arc::new(services::build_tcp(&config, &state.load().tcp, Instant::now().into_std()));
    state.store(State { tcp: build(), ..State::clone(&state.load()) });
    let tcp = || state.load().tcp[SERVICE].servers().next().unwrap().0.admin_state().word();
    assert_eq!(operators.set(order("10.0.0.1:80", AdminState::Drain, None)), Some(AdminState::Ready));
    assert_eq!((states(&state), tcp()), (vec!["ready"], "drain"));
    let after = build();
    operators.apply(&state.load().services, &after);
    state.store(State { tcp: after, ..State::clone(&state.load()) });
    assert_eq!((states(&state), tcp()), (vec!["ready"], "drain"));
}

#[tokio::test]
async fn a_server_that_nobody_knows_has_no_state() {
    let (operators, state) = plane(&[ONE]);
    assert_eq!(operators.set(order(TWO, AdminState::Maintenance, None)), None);
    let elsewhere = OperatorState { service: "b@file".into(), ..order(ONE, AdminState::Drain, None) };
    assert_eq!(operators.set(elsewhere), None);
    assert_eq!(states(&state), ["ready"]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_becomes_maintenance_at_its_deadline() {
    let (operators, state) = plane(&[ONE, TWO]);
    let supervisor = operators.clone();
    let task = tokio::spawn(async move { supervisor.supervise().await });
    operators.set(order(ONE, AdminState::Drain, Some(Duration::from_secs(60))));
    operators.set(order(TWO, AdminState::Drain, None));
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(states(&state), ["drain", "drain"]);
    // A second order moves the deadline.
    operators.set(order(ONE, AdminState::Drain, Some(Duration::from_secs(60))));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(states(&state), ["drain", "drain"]);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(states(&state), ["maintenance", "drain"]);
    assert_eq!(operators.all()[0].0.until, None);
    task.abort();
}

#[tokio::test]
async fn another_process_takes_the_orders_over() {
    let (old, _) = plane(&[ONE, TWO]);
    old.set(order(ONE, AdminState::Maintenance, None));
    old.set(order(TWO, AdminState::Drain, Some(Duration::from_millis(50))));
    let handed: Vec<_> = old.all().into_iter().map(|(told, _)| told).collect();
    // Before its first configuration.
    let state = StateWatch::default();
    let new = Operators::new(state.clone(), Arc::default());
    new.restore(handed.clone());
    reload(&new, &state, &[ONE, TWO]);
    assert_eq!(states(&state), ["maintenance", "drain"]);
    assert_eq!(new.all().into_iter().map(|(told, _)| told).collect::<Vec<_>>(), handed);
    tokio::select! {
        () = new.supervise() => {}
        () = wait_until(|| states(&state) == ["maintenance", "maintenance"]) => {}
    }
}
