use std::sync::Arc;

use lb_core::route::tcp::{Route as TableRoute, Rule};

use super::*;

fn route(name: &str) -> Arc<Route> {
    let metrics = lb_observe::metrics::Metrics::new(Default::default(), 1);
    let weighted = Weighted {
        children: Box::new([]),
        choice: Children::new(lb_core::balance::Spread::Turns, &[], None),
        health_check: false,
    };
    Arc::new(Route {
        name: name.into(),
        label: metrics.label(lb_observe::metrics::Kind::Service, "s@file"),
        middlewares: Box::new([]),
        target: Node::Weighted(Arc::new(weighted)),
        tls: Tls::Passthrough,
        nobody: Report::default(),
    })
}

/// Every rule is a router called by its place.
fn table(rules: &[&str]) -> Table<Arc<Route>> {
    let route = |(at, rule): (usize, &&str)| {
        let rule = Rule::parse(rule).unwrap();
        let value = route(&at.to_string());
        TableRoute { priority: rule.default_priority(), rule: Arc::new(rule), rank: 0, value }
    };
    Table::build(rules.iter().enumerate().map(route).collect())
}

fn routes(plain: &[&str], secure: &[&str], https: &[&str], https_for_all: bool) -> Routes {
    let https_hosts = https.iter().map(|host| (*host).to_owned()).collect();
    Routes { plain: table(plain), secure: table(secure), https_hosts, https_for_all }
}

/// The table of dispatch, steps 5 to 9.
#[test]
fn tls_clients_go_where_traefik_sends_them() {
    const ANY: &str = "HostSNI(`*`)";
    const DB: &str = "HostSNI(`db.test`)";
    const ALPN: &str = "HostSNI(`*`) && ALPN(`mqtt`)";
    for (secure, https, for_all, name, expected) in [
        (&[DB][..], &["db.test"][..], false, "db.test", "https"),
        (&[DB], &["*.test"], false, "db.test", "https"),
        (&[DB], &["web.test"], true, "db.test", "0"),
        (&[ANY], &["web.test"], true, "web.test", "https"),
        (&[ANY], &["web.test"], true, "other.test", "https"),
        (&[ANY], &["web.test"], true, "", "https"),
        (&[ANY], &["web.test"], false, "other.test", "0"),
        (&[ANY], &["web.test"], false, "", "0"),
        (&[ANY, ALPN], &[], true, "", "1"),
        (&[ANY, DB], &[], false, "db.test", "1"),
        (&[DB], &[], false, "other.test", "https"),
        (&[], &[], false, "", "https"),
    ] {
        let routes = routes(&[], secure, https, for_all);
        let hello = Hello { server_name: name, alpn: &[b"mqtt"], client: [127, 0, 0, 1].into() };
        let found = match routes.wanted(&hello) {
            Wanted::Tcp(route) => route.name.to_string(),
            Wanted::Https => "https".to_owned(),
        };
        assert_eq!(found, expected, "{secure:?} {https:?} {for_all} {name}");
    }
}

/// Step 1: only where nobody has to be waited for.
#[test]
fn servers_may_speak_first_where_nobody_speaks_tls() {
    let client = [127, 0, 0, 1].into();
    for (secure, https, for_all, at_once) in [
        (&[][..], &[][..], false, true),
        (&["HostSNI(`a`)"], &[], false, false),
        (&[], &["a"], false, false),
        (&[], &[], true, false),
    ] {
        let routes = routes(&["HostSNI(`*`)"], secure, https, for_all);
        assert_eq!(routes.at_once(client).is_some(), at_once);
    }
    assert!(routes(&["ClientIP(`10.0.0.0/8`)"], &[], &[], false).at_once(client).is_none());
}

/// The seeds of the fuzz target, each with every byte changed: what rustls reads is read alike.
#[test]
fn hellos_are_read_as_rustls_reads_them() {
    use lb_core::client_hello::{Read, read};

    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/client_hello");
    let mut compared = 0;
    let mut compare = |bytes: &[u8]| {
        let mut acceptor = rustls::server::Acceptor::default();
        let mut rest = bytes;
        while !rest.is_empty() && acceptor.read_tls(&mut rest).is_ok() {}
        let Ok(Some(accepted)) = acceptor.accept() else { return };
        let hello = accepted.client_hello();
        // Ours is the stricter one: what is malformed names nobody.
        let Read::Hello(own) = read(bytes) else { return };
        let protocols: Vec<_> = hello.alpn().into_iter().flatten().collect();
        assert_eq!(own.alpn, protocols, "{bytes:?}");
        let name = hello.server_name();
        assert!(name.is_none_or(|name| name.eq_ignore_ascii_case(&own.server_name)), "{name:?} {own:?}");
        compared += 1;
    };
    for seed in std::fs::read_dir(seeds).unwrap() {
        let mut bytes = std::fs::read(seed.unwrap().path()).unwrap();
        compare(&bytes);
        for at in 0..bytes.len().min(600) {
            let was = bytes[at];
            for value in [0, 1, was.wrapping_add(1), 0xff] {
                bytes[at] = value;
                compare(&bytes);
            }
            bytes[at] = was;
        }
    }
    assert!(compared > 1000, "{compared}");
}
