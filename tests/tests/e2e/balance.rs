//! Who gets the next request: shares, least connections, sticky sessions.

use std::collections::BTreeMap;
use std::time::Duration;

use lb_testkit::{Client, Gate, Origin, PATIENCE, Response, Script, eventually};

use crate::harness::{HOST, Protocol, Vigie, app, origin, weighted};

async fn three() -> [Origin; 3] {
    [Origin::start("api-1").await, Origin::start("api-2").await, Origin::start("api-3").await]
}

fn urls(origins: &[Origin]) -> Vec<String> {
    origins.iter().map(Origin::url).collect()
}

/// Who answers `count` requests in a row, each on a connection of its own.
async fn sequence(vigie: &Vigie, protocol: Protocol, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..count {
        names.push(origin(&protocol.get(vigie.web(), "/").await));
    }
    names
}

fn tally(names: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name.as_str()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn equal_servers_take_turns_in_the_order_of_the_file() {
    let origins = three().await;
    let vigie = Vigie::start(&app("strategy: wrr", &urls(&origins))).await;
    for protocol in Protocol::BOTH {
        let names = sequence(&vigie, protocol, 7).await;
        let first = origins.iter().position(|o| o.name() == names[0]).unwrap();
        let expected: Vec<_> = (0..7).map(|turn| origins[(first + turn) % 3].name()).collect();
        assert_eq!(names, expected, "{protocol:?}");
    }
}

#[tokio::test]
async fn the_very_first_request_goes_to_the_first_server() {
    let origins = three().await;
    let vigie = Vigie::start(&app("", &urls(&origins))).await;
    assert_eq!(sequence(&vigie, Protocol::Http1, 4).await, ["api-1", "api-2", "api-3", "api-1"]);
}

/// Over any nine requests in a row, whichever of the two workers takes each connection.
#[tokio::test]
async fn weights_are_kept_exactly_over_every_cycle() {
    let origins = three().await;
    let servers: Vec<_> = origins.iter().zip([5, 3, 1]).map(|(o, w)| weighted(&o.url(), w)).collect();
    let vigie = Vigie::start(&app("", &servers)).await;
    for protocol in Protocol::BOTH {
        let names = sequence(&vigie, protocol, 45).await;
        for window in names.windows(9) {
            let shares = tally(window);
            assert_eq!(shares, BTreeMap::from([("api-1", 5), ("api-2", 3), ("api-3", 1)]), "{window:?}");
        }
        // Smooth: the strong server never gets more than two in a row of a cycle.
        assert!(names.windows(3).all(|three| tally(three).len() > 1), "{names:?}");
    }
}

/// Concurrent connections share one cursor too: whole cycles stay exact.
#[tokio::test]
async fn concurrent_requests_share_exactly() {
    let origins = three().await;
    let vigie = Vigie::start(&app("", &urls(&origins))).await;
    let load = lb_testkit::Load::new(vigie.web(), HOST).connections(12).requests(300);
    let report = load.run().await;
    report.assert_flawless();
    assert_eq!(report.by_origin.values().copied().collect::<Vec<_>>(), [100, 100, 100]);
}

#[tokio::test]
async fn weight_zero_gets_nothing() {
    let origins = three().await;
    let servers: Vec<_> = origins.iter().zip([1, 0, 2]).map(|(o, w)| weighted(&o.url(), w)).collect();
    for strategy in ["wrr", "p2c", "hrw", "leasttime", "leastConn"] {
        let vigie = Vigie::start(&app(&format!("strategy: {strategy}"), &servers)).await;
        let before = origins[1].requests();
        sequence(&vigie, Protocol::Http1, 12).await;
        assert_eq!(origins[1].requests(), before, "{strategy}");
    }
}

/// By Traefik's formula, in which URLs that differ in their last characters only may leave a server without clients.
#[tokio::test]
async fn the_address_of_a_client_decides_for_hrw() {
    let origins = three().await;
    let vigie = Vigie::start(&app("strategy: hrw", &urls(&origins))).await;
    let names = ["api-1", "api-2", "api-3"];
    for last in 1..=24 {
        let client = format!("127.0.0.{last}");
        let (_, expected) = urls(&origins)
            .iter()
            .zip(names)
            .map(|(url, name)| (fnv1a(&(client.clone() + url)), name))
            .max()
            .unwrap();
        for _ in 0..2 {
            let mut connection = Client::connect_from(client.parse().unwrap(), vigie.web()).await.unwrap();
            assert_eq!(origin(&connection.get(HOST, "/").await.unwrap()), expected, "{client}");
        }
    }
}

/// <http://www.isthe.com/chongo/tech/comp/fnv/>, with 64 bits.
fn fnv1a(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Answers are held back and let go one by one, mostly those of `api-1`, the fast one: with one new request
/// for each that ends, the numbers in flight never differ by more than one.
#[tokio::test]
async fn least_connections_keeps_the_servers_level() {
    let gates = [Gate::closed(), Gate::closed(), Gate::closed()];
    let mut origins = Vec::new();
    for (gate, name) in gates.iter().zip(["api-1", "api-2", "api-3"]) {
        let gate = gate.clone();
        origins.push(Origin::with(name, move |_| Script::echo().gated(&gate)).await);
    }
    let vigie = Vigie::start(&app("strategy: leastConn", &urls(&origins))).await;
    for protocol in Protocol::BOTH {
        let mut running: [usize; 3] = [0; 3];
        let mut answers = tokio::task::JoinSet::new();
        let mut seen: Vec<_> = origins.iter().map(Origin::requests).collect();
        for step in 0..60 {
            if step >= 9 {
                // Three of four answers come from api-1.
                let server = if step % 4 != 0 { 0 } else { 1 + step / 4 % 2 };
                gates[server].let_one_pass();
                let name = origin(&answers.join_next().await.unwrap().unwrap());
                assert_eq!(name, origins[server].name());
                running[server] -= 1;
                let url = origins[server].url();
                vigie.until_metric("active_connections", &[("instance", &url)], running[server] as f64).await;
            }
            let web = vigie.web();
            answers.spawn(async move { protocol.get(web, "/").await });
            let arrived = eventually(PATIENCE, async || {
                origins.iter().zip(&seen).any(|(origin, before)| origin.requests() > *before)
            });
            assert!(arrived.await, "request {step} reaches a server");
            for (server, origin) in origins.iter().enumerate() {
                running[server] += origin.requests() - seen[server];
                seen[server] = origin.requests();
            }
            let spread = running.iter().max().unwrap() - running.iter().min().unwrap();
            assert!(spread <= 1, "{protocol:?}, step {step}: {running:?}");
        }
        for (gate, left) in gates.iter().zip(running) {
            (0..left).for_each(|_| gate.let_one_pass());
        }
        while let Some(answer) = answers.join_next().await {
            origin(&answer.unwrap());
        }
    }
}

const STICKY: &str = "
sticky: {cookie: {name: cartae_server, httpOnly: true, secure: true, sameSite: lax}}
healthCheck: {path: /health, interval: 100ms, timeout: 2s}
";

/// The value of the session cookie that a response sets.
fn cookie(response: &Response) -> Option<String> {
    let value = response.get("set-cookie")?;
    let value = value.strip_prefix("cartae_server=").expect("the configured name");
    let (value, attributes) = value.split_once(';').expect("attributes");
    assert_eq!(attributes, " Path=/; HttpOnly; Secure; SameSite=Lax");
    assert!(value.len() == 16 && value.bytes().all(|b| b.is_ascii_hexdigit()), "{value}");
    Some(value.to_owned())
}

#[tokio::test]
async fn a_session_stays_and_moves_when_its_server_dies() {
    for protocol in Protocol::BOTH {
        let mut origins = three().await;
        let vigie = Vigie::start(&app(STICKY, &urls(&origins))).await;
        let ask = async |value: &str| {
            let field = format!("other=1; cartae_server={value}");
            protocol.connect(vigie.web()).await.request("GET", "/", &[("cookie", &field)], None).await
        };
        let first = protocol.get(vigie.web(), "/").await;
        let (pinned, value) = (origin(&first), cookie(&first).expect("a new session gets a cookie"));
        for _ in 0..6 {
            let again = ask(&value).await;
            assert_eq!(origin(&again), pinned);
            assert_eq!(cookie(&again), None, "a valid cookie is not set again");
        }
        let dead = origins.iter_mut().find(|origin| origin.name() == pinned).unwrap();
        let url = dead.url();
        dead.stop().await;
        vigie.until_metric("instance_health", &[("instance", &url)], 0.0).await;
        let moved = ask(&value).await;
        let (survivor, rewritten) = (origin(&moved), cookie(&moved).expect("the cookie is rewritten"));
        assert_ne!(survivor, pinned);
        assert_ne!(rewritten, value);
        for _ in 0..4 {
            assert_eq!(origin(&ask(&rewritten).await), survivor);
        }
        // The old server's return moves nobody back.
        origins.iter_mut().find(|origin| origin.name() == pinned).unwrap().restart().await;
        vigie.until_metric("instance_health", &[("instance", &url)], 1.0).await;
        assert_eq!(origin(&ask(&rewritten).await), survivor);
    }
}

/// What a client makes up is treated like no cookie at all.
#[tokio::test]
async fn a_made_up_cookie_never_picks_a_server() {
    let origins = three().await;
    let mut servers = urls(&origins);
    servers[2] = weighted(&servers[2], 0);
    let vigie = Vigie::start(&app(STICKY, &servers)).await;
    for protocol in Protocol::BOTH {
        let made_up = ["", "0123456789abcdef", "api-1", "../../etc/passwd", "\"quoted\"", "deadbeef"];
        let long = "f".repeat(4000);
        for value in made_up.iter().copied().chain([long.as_str()]) {
            let field = format!("cartae_server={value}");
            let mut names = Vec::new();
            for _ in 0..4 {
                let mut connection = protocol.connect(vigie.web()).await;
                let response = connection.request("GET", "/", &[("cookie", &field)], None).await;
                assert!(cookie(&response).is_some(), "{value:?} is replaced");
                names.push(origin(&response));
            }
            // Taken for new each time: both servers get two.
            assert_eq!(tally(&names), BTreeMap::from([("api-1", 2), ("api-2", 2)]), "{value:?}");
        }
    }
    // Health checks aside, the server of weight 0 has seen nothing.
    let seen = origins[2].seen();
    assert!(seen.iter().all(|request| request.path() == "/health"), "{seen:?}");
}

/// The pinned server answers again after a reload that adds another.
#[tokio::test]
async fn a_session_survives_a_reload() {
    let origins = three().await;
    let vigie = Vigie::start(&app(STICKY, &urls(&origins[..2]))).await;
    let first = vigie.get("/").await;
    let (pinned, value) = (origin(&first), cookie(&first).unwrap());
    vigie.write(&app(STICKY, &urls(&origins)));
    vigie.until("the third server takes part", |response| origin(response) == "api-3").await;
    let field = format!("cartae_server={value}");
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        for _ in 0..4 {
            let response = connection.request("GET", "/", &[("cookie", &field)], None).await;
            assert_eq!((origin(&response), cookie(&response)), (pinned.clone(), None));
        }
    }
}

/// With least response time the fast server gets nearly everything.
#[tokio::test]
async fn least_time_prefers_the_fast_server() {
    let fast = Origin::start("fast").await;
    let slow = Origin::with("slow", |_| Script::echo().delayed(Duration::from_millis(60))).await;
    let vigie = Vigie::start(&app("strategy: leasttime", &[slow.url(), fast.url()])).await;
    let names = sequence(&vigie, Protocol::Http1, 20).await;
    assert!(tally(&names)["fast"] >= 17, "{names:?}");
}
