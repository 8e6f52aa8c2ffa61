//! The route index answers exactly what a scan over the rules in order answers.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use lb_core::route::{Request, Route, RouteIndex, Rule, Verdict};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Asked {
    host: String,
    path: String,
    method: &'static str,
}

impl Request for Asked {
    fn host(&self) -> &str {
        &self.host
    }
    fn path(&self) -> &str {
        &self.path
    }
    fn method(&self) -> &str {
        self.method
    }
    fn query(&self) -> &str {
        ""
    }
    fn client(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }
    fn any_header(&self, _: &str, _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        false
    }
}

/// Few letters, so that rules and requests meet, nest and contradict each other often.
fn matcher() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "(\\*\\.)?[ab](\\.[ab])?\\.?".prop_map(|host| format!("Host(`{host}`)")),
        4 => "/([ab]{0,3}/?){0,2}".prop_map(|path| format!("PathPrefix(`{path}`)")),
        2 => "/[ab]{0,4}".prop_map(|path| format!("Path(`{path}`)")),
        1 => Just("Host(`*`)".to_owned()),
        1 => "\\^[ab]".prop_map(|expression| format!("HostRegexp(`{expression}`)")),
        1 => "[ab]\\$".prop_map(|expression| format!("PathRegexp(`{expression}`)")),
        1 => "(GET|PUT)".prop_map(|method| format!("Method(`{method}`)")),
    ]
}

fn rule() -> impl Strategy<Value = String> {
    let tree = matcher().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| format!("({})", parts.join(" && "))),
            3 => prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| format!("({})", parts.join(" || "))),
            1 => inner.prop_map(|part| format!("!{part}")),
        ]
    });
    prop_oneof![2 => tree, 1 => matcher()]
}

fn routes(most: usize) -> impl Strategy<Value = Vec<Route<usize>>> {
    prop::collection::vec((rule(), -2..3_i64, 0..2_u32), 0..most).prop_map(|rules| {
        let route = |(value, (rule, priority, rank)): (usize, (String, i64, u32))| {
            let rule = Rule::parse(&rule).unwrap_or_else(|error| panic!("{rule}: {error}"));
            Route { rule: Arc::new(rule), priority, rank, value }
        };
        rules.into_iter().enumerate().map(route).collect()
    })
}

fn request() -> impl Strategy<Value = Asked> {
    ("([ab](\\.[ab]){0,2}\\.?)?", "/([ab]{0,3}/?){0,3}", prop_oneof![Just("GET"), Just("PUT")])
        .prop_map(|(host, path, method)| Asked { host, path, method })
}

/// What the index has to reproduce; the routes come in order of evaluation.
fn scan(routes: &[Route<usize>], request: &Asked) -> Option<usize> {
    routes.iter().find(|route| route.rule.matches(request)).map(|route| route.value)
}

fn in_order(mut routes: Vec<Route<usize>>) -> Vec<Route<usize>> {
    routes.sort_by_key(|route| (std::cmp::Reverse(route.priority), route.rank, route.value));
    routes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_index_answers_like_a_scan(routes in routes(60), requests in prop::collection::vec(request(), 1..40)) {
        let index = RouteIndex::build(routes.clone());
        let routes = in_order(routes);
        for request in &requests {
            let expected = scan(&routes, request);
            prop_assert_eq!(index.find(request).copied(), expected, "{:?}", request);
            let taken = index.explain(request).find(|considered| considered.verdict == Verdict::Taken);
            prop_assert_eq!(taken.map(|considered| considered.route.value), expected);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>(), wild in "[A-Za-z!&|()`\",*\\\\/ .^$\\[\\]{}-]{0,40}") {
        for text in [text, format!("PathRegexp(`{wild}`)"), format!("HostRegexp(\"{wild}\") || {wild}"), wild] {
            if let Err(error) = Rule::parse(&text) {
                prop_assert!(error.at <= text.len() && !error.message.contains('\n'));
            }
        }
    }
}

/// Prefixes of many lengths, nested and not: what the search by length has to get right.
#[test]
fn thousands_of_nested_prefixes_are_told_apart() {
    let mut seed = 7_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut path = |most: u64| {
        let length = random(most);
        (0..length).fold(String::from("/"), |path, _| path + ["a", "b", "/"][random(3) as usize])
    };
    let route = |(value, prefix): (usize, String)| {
        let rule = Rule::parse(&format!("Host(`h`) && PathPrefix(`{prefix}`)")).unwrap();
        Route { rule: Arc::new(rule), priority: prefix.len() as i64, rank: 0, value }
    };
    let routes: Vec<_> = (0..3_000).map(|_| path(24)).enumerate().map(route).collect();
    let index = RouteIndex::build(routes.clone());
    let routes = in_order(routes);
    for _ in 0..1_000 {
        let request = Asked { host: "h".into(), path: path(40), method: "GET" };
        assert_eq!(index.find(&request).copied(), scan(&routes, &request), "{}", request.path);
    }
}
