//! The route index answers exactly what a scan over the rules in order answers.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use lb_core::route::{Request, Route, RouteIndex, Rule, Verdict};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Asked {
    host: String,
    alias: Option<String>,
    path: String,
    method: &'static str,
    query: &'static str,
    client: IpAddr,
    /// The value of `X-A`, if there is one.
    header: Option<&'static str>,
}

impl Asked {
    fn get(host: &str, path: String) -> Self {
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self { host: host.into(), alias: None, path, method: "GET", query: "", client, header: None }
    }
}

impl Request for Asked {
    fn host(&self) -> &str {
        &self.host
    }
    fn alias(&self) -> Option<&str> {
        self.alias.as_deref()
    }
    fn path(&self) -> &str {
        &self.path
    }
    fn method(&self) -> &str {
        self.method
    }
    fn query(&self) -> &str {
        self.query
    }
    fn client(&self) -> IpAddr {
        self.client
    }
    fn any_header(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        name == "x-a" && self.header.is_some_and(|value| test(value.as_bytes()))
    }
}

/// Few letters, so that rules and requests meet, nest and contradict each other often.
fn matcher() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "(\\*\\.)?[abA](\\.[abB])?\\.?".prop_map(|host| format!("Host(`{host}`)")),
        4 => "/([ab]{0,3}/?){0,2}".prop_map(|path| format!("PathPrefix(`{path}`)")),
        2 => "/[ab]{0,4}".prop_map(|path| format!("Path(`{path}`)")),
        1 => Just("Host(`*`)".to_owned()),
        1 => "\\^[ab]".prop_map(|expression| format!("HostRegexp(`{expression}`)")),
        1 => "[ab]\\$".prop_map(|expression| format!("PathRegexp(`{expression}`)")),
        1 => "(GET|PUT|put)".prop_map(|method| format!("Method(`{method}`)")),
        1 => "[12]".prop_map(|value| format!("Header(`X-A`, `{value}`)")),
        1 => Just("(Query(`k`, `v`) || ClientIP(`10.0.0.0/8`))".to_owned()),
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

/// Segments that all paths share first, then such that few share; some of them long.
fn long_path() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        4 => "(s-[0-9]{1,2}|[ab]{0,2})",
        1 => prop_oneof![Just(40), Just(300)].prop_map(|length| "x".repeat(length)),
    ];
    (prop::collection::vec(segment, 0..4), any::<bool>()).prop_map(|(segments, slash)| {
        let path = segments.iter().fold("/api".to_owned(), |path, segment| path + "/" + segment);
        if slash { path + "/" } else { path }
    })
}

fn path_rule() -> impl Strategy<Value = String> {
    let host = prop_oneof![3 => Just("Host(`a.test`) && "), 2 => Just("Host(`*.test`) && "), 1 => Just("")];
    let kind = prop_oneof![1 => Just("Path"), 5 => Just("PathPrefix")];
    let rest = prop_oneof![4 => Just(""), 1 => Just(" && Method(`PUT`)"), 1 => Just(" && Method(`GET`)")];
    (host, kind, long_path(), rest)
        .prop_map(|(host, kind, path, rest)| format!("{host}{kind}(`{path}`){rest}"))
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
    let method = prop_oneof![Just("GET"), Just("PUT")];
    let query = prop_oneof![Just(""), Just("k=v")];
    let client =
        prop_oneof![Just(Ipv4Addr::LOCALHOST), Just(Ipv4Addr::new(10, 1, 1, 1))].prop_map(IpAddr::V4);
    let header = prop_oneof![Just(None), Just(Some("1")), Just(Some("2"))];
    let host = "([ab](\\.[ab]){0,2}\\.?)?";
    let alias = prop_oneof![2 => Just(None), 1 => host.prop_map(Some)];
    let rest = (method, query, client, header);
    (host, alias, "/([ab]{0,3}/?){0,3}", rest).prop_map(
        |(host, alias, path, (method, query, client, header))| Asked {
            host,
            alias,
            path,
            method,
            query,
            client,
            header,
        },
    )
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

    /// Enough paths for few hosts that they nest, end in and between slashes, and outgrow a row of the table.
    #[test]
    fn paths_are_told_apart_by_segment_and_by_length(
        rules in prop::collection::vec((path_rule(), -1..2_i64), 0..80),
        requests in prop::collection::vec((0..3_usize, long_path()), 1..60),
    ) {
        let route = |(value, (rule, priority)): (usize, (String, i64))| {
            Route { rule: Arc::new(Rule::parse(&rule).unwrap()), priority, rank: 0, value }
        };
        let routes: Vec<_> = rules.into_iter().enumerate().map(route).collect();
        let index = RouteIndex::build(routes.clone());
        let routes = in_order(routes);
        for (host, path) in requests {
            let request = Asked::get(["a.test", "b.test", "c"][host], path);
            prop_assert_eq!(index.find(&request).copied(), scan(&routes, &request), "{:?}", request);
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
        let request = Asked::get("h", path(40));
        assert_eq!(index.find(&request).copied(), scan(&routes, &request), "{}", request.path);
    }
}
