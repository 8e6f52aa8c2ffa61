//! Services made of other services.

mod failover;
mod mirroring;
mod weighted;

use std::collections::BTreeMap;

use lb_testkit::{Origin, PATIENCE, Response, eventually};

use crate::harness::{Protocol, Vigie, origin};

/// Patient, since a busy machine must not look like an ill server.
const CHECK: &str = "healthCheck: {path: /health, interval: 100ms, timeout: 2s}";

/// A router for each service that has a path, and load balancers `a`, `b`, `c`... of one origin each, with `more` keys.
fn services(routed: &[&str], origins: &[Origin], more: &str, composites: &str) -> String {
    let routers =
        routed.iter().map(|name| format!("    {name}: {{rule: 'Path(`/{name}`)', service: {name}}}\n"));
    let leaves = origins.iter().map(|origin| {
        let more = if more.is_empty() { String::new() } else { format!(", {more}") };
        let (name, url) = (origin.name(), origin.url());
        format!("    {name}: {{loadBalancer: {{servers: [{{url: '{url}'}}]{more}}}}}\n")
    });
    let (routers, leaves): (String, String) = (routers.collect(), leaves.collect());
    let composites: String = composites.lines().map(|line| format!("    {}\n", line.trim())).collect();
    format!("http:\n  routers:\n{routers}  services:\n{leaves}{composites}")
}

async fn origins<const N: usize>(names: [&str; N]) -> Vec<Origin> {
    let mut origins = Vec::new();
    for name in names {
        origins.push(Origin::start(name).await);
    }
    origins
}

/// Who answers `count` requests, by name.
async fn shares(vigie: &Vigie, path: &str, count: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for turn in 0..count {
        let protocol = Protocol::BOTH[turn % 2];
        *shares.entry(origin(&protocol.get(vigie.web(), path).await)).or_default() += 1;
    }
    shares
}

fn of(shares: &[(&str, usize)]) -> BTreeMap<String, usize> {
    shares.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
}

/// Cookies that an answer sets, by name.
fn cookies(response: &Response) -> BTreeMap<String, String> {
    let lines = response.fields.all("set-cookie");
    let pair = |line: &&str| {
        let (pair, _) = line.split_once(';').expect("attributes");
        let (name, value) = pair.split_once('=').expect("a value");
        (name.to_owned(), value.to_owned())
    };
    lines.iter().map(pair).collect()
}

/// The lines of the access log `access.log`, once it has so many.
async fn log_lines(vigie: &Vigie, count: usize) -> Vec<serde_json::Value> {
    let path = vigie.files.path().join("access.log");
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    let complete = eventually(PATIENCE, async || read().matches('\n').count() >= count).await;
    assert!(complete, "{}", read());
    read().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}
