//! Many routers, and requests for them.
//!
//! Routers are compared fairly: however many there are, the same number of distinct requests goes round,
//! spread evenly over all of them. What then differs between 10 and 100,000 routers is the memory that
//! the requests make the index touch: a line of the cache for a seed and one for a row, for the host and for
//! the path, and three lines for the request itself, some 450 bytes.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use lb_core::route::{Request, Route, RouteIndex, Rule};

pub(crate) struct Asked {
    host: String,
    path: String,
}

impl Request for Asked {
    fn host(&self) -> &str {
        &self.host
    }
    fn path(&self) -> &str {
        &self.path
    }
    fn method(&self) -> &str {
        "GET"
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

pub(crate) const COUNTS: [usize; 3] = [10, 1_000, 100_000];

pub(crate) const SHAPES: [(&str, Shape); 3] = [("hosts", hosts), ("prefixes", prefixes), ("mixed", mixed)];

/// Rule and request of router `i` of `n`.
pub(crate) type Shape = fn(usize, usize) -> (String, Asked);

fn hosts(i: usize, _: usize) -> (String, Asked) {
    let host = format!("svc-{i:05}.example.com");
    (format!("Host(`{host}`)"), Asked { host, path: "/index.html".into() })
}

fn prefixes(i: usize, _: usize) -> (String, Asked) {
    let rule = format!("Host(`api.example.com`) && PathPrefix(`/svc-{i}/`)");
    (rule, Asked { host: "api.example.com".into(), path: format!("/svc-{i}/items") })
}

/// As many hosts as prefixes per host.
fn mixed(i: usize, n: usize) -> (String, Asked) {
    let side = (n as f64).sqrt().ceil() as usize;
    let (host, service) = (format!("team-{}.example.com", i / side), i % side);
    let rule = format!("Host(`{host}`) && PathPrefix(`/svc-{service}/`)");
    (rule, Asked { host, path: format!("/svc-{service}/items") })
}

pub(crate) fn index(shape: Shape, count: usize) -> RouteIndex<usize> {
    let route = |i| {
        let (rule, _) = shape(i, count);
        let rule = Arc::new(Rule::parse(&rule).expect("a valid rule"));
        Route { priority: rule.as_str().len() as i64, rank: 0, value: i, rule }
    };
    RouteIndex::build((0..count).map(route).collect())
}

/// A stride that is prime to every count visits all routers, in no order that a cache could guess.
pub(crate) fn requests(shape: Shape, count: usize, distinct: usize) -> Vec<Asked> {
    (0..distinct).map(|j| shape(j * 7_919 % count, count).1).collect()
}
