use super::*;

fn record(version: &str, phase: Phase, servers: &[(&str, Option<&str>, &str)]) -> Record {
    let machine = |&(server, version, before): &(&str, Option<&str>, &str)| Machine {
        server: server.to_owned(),
        version: version.map(str::to_owned),
        before: before.to_owned(),
    };
    Record {
        service: "api@file".to_owned(),
        version: version.to_owned(),
        previous: None,
        phase,
        by: String::new(),
        changed_at: String::new(),
        replace: String::new(),
        check: None,
        servers: servers.iter().map(machine).collect(),
    }
}

/// `server:version/before`
fn told(known: Option<&Record>, version: &str, from: Option<&str>) -> Result<String, String> {
    let urls = ["a", "b"].map(str::to_owned);
    let machines = machines(&urls, known, version, from).map_err(|error| error.to_string())?;
    let show = |m: &Machine| format!("{}:{}/{}", m.server, m.version.as_deref().unwrap_or("?"), m.before);
    Ok(machines.iter().map(show).collect::<Vec<_>>().join(" "))
}

#[test]
fn what_servers_run_comes_from_the_record_or_the_operator() {
    assert!(told(None, "v2", None).unwrap_err().contains("what a, b runs"));
    assert_eq!(told(None, "v2", Some("v1")).unwrap(), "a:v1/v1 b:v1/v1");
    let done = record("v1", Phase::Done, &[("a", Some("v1"), "v0"), ("b", Some("v1"), "v0")]);
    assert_eq!(told(Some(&done), "v2", None).unwrap(), "a:v1/v1 b:v1/v1");
    assert_eq!(told(Some(&done), "v2", Some("v5")).unwrap(), "a:v5/v5 b:v5/v5");
    let one_is_new = record("v1", Phase::Done, &[("a", Some("v1"), "v0")]);
    assert!(told(Some(&one_is_new), "v2", None).unwrap_err().contains("what b runs"));
    assert_eq!(told(Some(&one_is_new), "v2", Some("v1")).unwrap(), "a:v1/v1 b:v1/v1");
}

#[test]
fn a_rollout_that_was_broken_off_is_gone_on_with_or_turned_round() {
    let midway = record("v2", Phase::Stopped, &[("a", Some("v2"), "v1"), ("b", None, "v1")]);
    // On: what it goes back to stays what it was.
    assert_eq!(told(Some(&midway), "v2", None).unwrap(), "a:v2/v1 b:?/v1");
    assert_eq!(told(Some(&midway), "v2", Some("v9")).unwrap(), "a:v2/v1 b:?/v1");
    // Round: `a` goes back to what it runs now.
    assert_eq!(told(Some(&midway), "v1", None).unwrap(), "a:v2/v2 b:?/v1");
}
