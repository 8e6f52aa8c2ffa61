//! What the decisions of lb-core cost: one pick, one match, one admission.
//!
//! Routers are compared fairly: however many there are, the same number of distinct requests goes round,
//! spread evenly over all of them. What then differs between 10 and 100,000 routers is the memory that
//! the requests make the index touch, hence three working sets: `hot` stays in the first-level cache,
//! `warm` in the second, and `cold` has another router each time, so that with 100,000 of them nearly
//! every look-up waits for memory. The allocator is that of the product: it decides how many pages the
//! index spans.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use lb_core::balance::{MemberSpec, Pick, Service, Settings, Strategy};
use lb_core::route::{Request, Route, RouteIndex, Rule};
use lb_core::{breaker, in_flight, rate_limit, sticky};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[expect(clippy::disallowed_methods, reason = "no paused clock here, and criterion reads it anyway")]
fn now() -> Instant {
    Instant::now()
}

struct Asked {
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
        CLIENT
    }
    fn any_header(&self, _: &str, _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        false
    }
}

/// Distinct requests in rotation; the largest are more than there are routers.
const WORKING_SETS: [(&str, usize); 3] = [("hot", 128), ("warm", 4_096), ("cold", 131_072)];

/// Rule and request of router `i` of `n`.
type Shape = fn(usize, usize) -> (String, Asked);

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

fn matching(c: &mut Criterion) {
    let shapes: [(&str, Shape); 3] = [("hosts", hosts), ("prefixes", prefixes), ("mixed", mixed)];
    for (name, shape) in shapes {
        for routers in [10, 1_000, 100_000] {
            let route = |i| {
                let (rule, _) = shape(i, routers);
                let rule = Arc::new(Rule::parse(&rule).expect("a valid rule"));
                Route { priority: rule.as_str().len() as i64, rank: 0, value: i, rule }
            };
            let index = RouteIndex::build((0..routers).map(route).collect());
            for (temperature, distinct) in WORKING_SETS {
                // A stride that is prime to every size visits all routers, in no order a cache could guess.
                let requests: Vec<_> = (0..distinct).map(|j| shape(j * 7_919 % routers, routers).1).collect();
                let mut next = 0;
                c.bench_function(&format!("match/{temperature}/{name}/{routers}"), |b| {
                    b.iter(|| {
                        next = (next + 1) % distinct;
                        index.find(black_box(&requests[next])).map(std::ptr::from_ref)
                    });
                });
            }
        }
    }
}

fn picking(c: &mut Criterion) {
    let mut group = c.benchmark_group("pick");
    for (name, strategy) in [("wrr", Strategy::RoundRobin), ("leastConn", Strategy::LeastConnections)] {
        for servers in [3, 100] {
            let member = |i| MemberSpec { url: format!("http://10.0.0.{i}:8080"), weight: 1 };
            let members: Vec<_> = (0..servers).map(member).collect();
            let settings = Settings { strategy, ..Settings::default() };
            let service = Service::new("bench", settings, &members, None, now());
            let pick = Pick { client: CLIENT, sticky: None, random: 7, tried: &[] };
            group.bench_function(format!("{name}/{servers}"), |b| b.iter(|| service.pick(black_box(&pick))));
        }
    }
    group.finish();
}

fn breaking(c: &mut Criterion) {
    let settings = breaker::Settings {
        check_period: Duration::from_millis(100),
        fallback: Duration::from_secs(10),
        recovery: Duration::from_secs(10),
    };
    let expression = "NetworkErrorRatio() > 0.30 || LatencyAtQuantileMS(50.0) > 100";
    let expression = breaker::Expression::parse(expression).expect("a valid expression");
    let mut time = now();
    let breaker = breaker::Breaker::new(expression, settings, time);
    c.bench_function("breaker/admit", |b| b.iter(|| breaker.admit(black_box(time))));
    c.bench_function("breaker/admit+record", |b| {
        b.iter(|| {
            time += Duration::from_micros(20);
            (breaker.admit(time), breaker.record(200, Duration::from_micros(700), time))
        });
    });
}

fn limiting(c: &mut Criterion) {
    let settings = rate_limit::Settings { average: 1_000_000, period: Duration::from_secs(1), burst: 1_000 };
    let mut time = now();
    for sources in [1, 10_000_u32] {
        let limiter = rate_limit::Limiter::new(settings);
        let keys: Vec<_> = (0..sources).map(|i| Ipv4Addr::from(0x0a00_0000 + i).to_string()).collect();
        let mut next = 0;
        c.bench_function(&format!("limiter/take/{sources}"), |b| {
            b.iter(|| {
                time += Duration::from_micros(20);
                next = (next + 1) % keys.len();
                limiter.take(keys[next].as_bytes(), time)
            });
        });
    }
    let limiter = in_flight::InFlightLimiter::new(10);
    c.bench_function("in_flight/acquire+release", |b| {
        b.iter(|| drop(limiter.acquire(black_box(b"10.0.0.1"))))
    });
}

fn cookies(c: &mut Criterion) {
    let name = sticky::cookie_name("shop@docker");
    let header = format!("theme=dark; session=0123456789abcdef; {name}=4f1c8a9e22b7d003; lang=fr");
    c.bench_function("cookie/find", |b| b.iter(|| sticky::find_cookie(black_box(header.as_bytes()), &name)));
    let members: Vec<_> =
        (0..100).map(|i| MemberSpec { url: format!("http://10.0.0.{i}:8080"), weight: 1 }).collect();
    let settings = Settings { sticky: true, ..Settings::default() };
    let service = Service::new("bench", settings, &members, None, now());
    let value = sticky::cookie_value("http://10.0.0.77:8080");
    let pick = Pick { client: CLIENT, sticky: Some(&value), random: 7, tried: &[] };
    c.bench_function("cookie/pick/100", |b| b.iter(|| service.pick(black_box(&pick))));
}

criterion_group!(benches, matching, picking, breaking, limiting, cookies);
criterion_main!(benches);
