//! What the decisions of lb-core cost: one pick, one match, one admission.
//!
//! The allocator is that of the product: it decides how many pages an index spans.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use lb_core::balance::{MemberSpec, Pick, Service, Settings, Strategy};
use lb_core::{breaker, in_flight, rate_limit, sticky};

mod routers;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[expect(clippy::disallowed_methods, reason = "no paused clock here, and criterion reads it anyway")]
fn now() -> Instant {
    Instant::now()
}

/// Distinct requests in rotation: with what they touch, `hot` and `warm` fill not quite half of a first-level cache of
/// 32 KiB and of a second-level one of 1 MiB; `cold` asks for another router each time, so that with 100,000 of them
/// nearly every look-up waits for memory. `flatness` has steps between these.
const WORKING_SETS: [(&str, usize); 3] = [("hot", 32), ("warm", 1_024), ("cold", 131_072)];

fn matching(c: &mut Criterion) {
    for (name, shape) in routers::SHAPES {
        for count in routers::COUNTS {
            let index = routers::index(shape, count);
            for (temperature, distinct) in WORKING_SETS {
                let requests = routers::requests(shape, count, distinct);
                let mut next = 0;
                c.bench_function(&format!("match/{temperature}/{name}/{count}"), |b| {
                    b.iter(|| {
                        next = if next + 1 == distinct { 0 } else { next + 1 };
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
