//! Rules, the index over them and the explanation of what it does: one rule per line, an empty line, then one
//! request per line (`METHOD host/path?query`).
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use lb_core::route::{Request, Route, RouteIndex, Rule, Syntax, Verdict, routing_path};
use libfuzzer_sys::fuzz_target;

struct Asked<'a> {
    method: &'a str,
    host: String,
    path: String,
    query: &'a str,
}

impl<'a> Asked<'a> {
    fn read(line: &'a str) -> Self {
        let (method, url) = line.split_once(' ').unwrap_or(("GET", line));
        let (host, rest) = url.split_at(url.find('/').unwrap_or(url.len()));
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = if path.is_empty() { "/" } else { path };
        Self { method, host: host.to_ascii_lowercase(), path: routing_path(path).into_owned(), query }
    }
}

impl Request for Asked<'_> {
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
        self.query
    }
    fn client(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, self.query.len() as u8))
    }
    /// Every query parameter is a header as well.
    fn any_header(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .any(|(key, value)| key.eq_ignore_ascii_case(name) && test(value.as_bytes()))
    }
}

fn parse(text: &str) -> impl Iterator<Item = Rule> {
    [Syntax::V3, Syntax::V2].into_iter().filter_map(|syntax| parse_as(text, syntax))
}

fn parse_as(text: &str, syntax: Syntax) -> Option<Rule> {
    match Rule::parse_as(text, syntax) {
        Ok(rule) => {
            assert_eq!(rule.as_str(), text);
            Some(rule)
        }
        Err(error) => {
            // The operator is shown one line and a caret.
            assert!(text.is_char_boundary(error.at), "{} in {text:?}", error.at);
            assert!(!error.message.contains('\n') && !error.message.is_empty());
            None
        }
    }
}

fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let rules: Vec<Rule> = lines.by_ref().take_while(|line| !line.is_empty()).flat_map(parse).collect();
    let requests: Vec<Asked> = lines.take(20).map(Asked::read).collect();

    let mut routes = Vec::new();
    for (value, rule) in rules.iter().enumerate() {
        for host in rule.hosts() {
            assert!(
                !matches!(&*host, "" | "*" | "*.") && host == host.to_ascii_lowercase() && host.is_ascii(),
                "{host:?}"
            );
        }
        // Parentheses change nothing, a negation everything; both may nest too deep.
        let same = parse_as(&format!("({rule})"), rule.syntax());
        let opposite = parse_as(&format!("!({rule})"), rule.syntax());
        let both = parse_as(&format!("({rule}) && !({rule})"), rule.syntax());
        for request in &requests {
            let matches = rule.matches(request);
            assert!(same.as_ref().is_none_or(|same| same.matches(request) == matches), "({rule})");
            assert!(opposite.as_ref().is_none_or(|rule| rule.matches(request) != matches), "!({rule})");
            assert!(both.as_ref().is_none_or(|rule| !rule.matches(request)), "{rule}");
        }
        let priority = [rule.as_str().len() as i64, 7, 7][value % 3];
        routes.push(Route { rule: Arc::new(rule.clone()), priority, rank: value as u32 % 2, value });
    }

    let index = RouteIndex::build(routes.clone());
    routes.sort_by_key(|route| (std::cmp::Reverse(route.priority), route.rank, route.value));
    for request in &requests {
        let expected = routes.iter().find(|route| route.rule.matches(request)).map(|route| route.value);
        assert_eq!(index.find(request).copied(), expected);
        let mut taken = None;
        for considered in index.explain(request) {
            let rule = &considered.route.rule;
            match considered.verdict {
                Verdict::Taken => assert!(taken.replace(considered.route.value).is_none()),
                Verdict::Outranked => assert!(taken.is_some() && rule.matches(request)),
                Verdict::Failed { condition, .. } => {
                    assert!(!rule.matches(request) && rule.as_str().contains(condition));
                }
            }
        }
        assert_eq!(taken, expected);
    }
});
