//! Limits per server and the queue before them: never one too many, nobody forgotten, first come first served.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use lb_core::balance::{CookieMatch, MemberSpec, Pick, Picked, Service, Settings, Strategy, Ticket};
use lb_core::health::{self, Probe};
use proptest::prelude::*;

#[expect(clippy::disallowed_methods, reason = "no clock is paused here, and no assertion depends on it")]
fn now() -> Instant {
    Instant::now()
}

const STRATEGIES: [Strategy; 5] = [
    Strategy::RoundRobin,
    Strategy::LeastConnections,
    Strategy::PowerOfTwoChoices,
    Strategy::HighestRandomWeight,
    Strategy::LeastTime,
];

/// Servers with these limits, 0 for none; `previous` is the configuration before.
fn service(strategy: Strategy, limits: &[u32], previous: Option<&Service>) -> Service {
    let members: Vec<_> =
        (1..=limits.len()).map(|n| MemberSpec { url: format!("http://10.0.0.{n}:80"), weight: 1 }).collect();
    let settings =
        Settings { strategy, sticky: true, active: Some(health::Settings::default()), ..Settings::default() };
    let limits: Vec<_> = limits.iter().map(|limit| NonZeroU32::new(*limit)).collect();
    Service::new("app@file", settings, &members, previous, now()).with_max_connections(&limits)
}

fn pick_for(service: &Service, random: u64, sticky: Option<&str>, tried: &[usize]) -> Option<Picked> {
    let client = IpAddr::V4(Ipv4Addr::from(random as u32));
    service.pick(&Pick { client, sticky, random, tried })
}

fn pick(service: &Service) -> Option<Picked> {
    pick_for(service, 7, None, &[])
}

/// Counts how often it was woken, and wakes its thread.
struct Bell(AtomicU32, Thread);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        self.1.unpark();
    }
}

/// A waiting request as the data plane keeps it.
struct Waiting {
    ticket: Ticket,
    bell: Arc<Bell>,
}

impl Waiting {
    fn join(service: &Service, is_retry: bool) -> Option<Self> {
        let ticket = service.queue(1000, is_retry)?;
        Some(Self { ticket, bell: Arc::new(Bell(AtomicU32::new(0), std::thread::current())) })
    }

    fn try_turn(&mut self) -> bool {
        let waker = Waker::from(Arc::clone(&self.bell));
        self.ticket.poll_turn(&Context::from_waker(&waker)).is_ready()
    }

    fn rings(&self) -> u32 {
        self.bell.0.swap(0, Ordering::SeqCst)
    }
}

proptest! {
    #[test]
    fn a_server_is_picked_as_long_as_one_has_room_and_never_beyond(
        strategy in prop::sample::select(&STRATEGIES),
        limits in prop::collection::vec(0_u32..4, 1..5),
        steps in prop::collection::vec((any::<u64>(), 0_usize..3, prop::option::of(0_usize..5)), 1..60),
    ) {
        let service = service(strategy, &limits, None);
        let cookies: Vec<_> = service.servers().map(|(server, _)| server.cookie_value().to_owned()).collect();
        let mut held: Vec<Picked> = Vec::new();
        for (random, action, cookie) in steps {
            if action == 0 && !held.is_empty() {
                drop(held.swap_remove(random as usize % held.len()));
                continue;
            }
            let room = service.servers().zip(&limits).any(|((server, _), limit)| *limit == 0 || server.in_flight() < *limit);
            let sticky = cookie.and_then(|index| cookies.get(index)).map(String::as_str);
            let picked = pick_for(&service, random, sticky, &[]);
            prop_assert_eq!(picked.is_some(), room);
            held.extend(picked);
            for ((server, _), limit) in service.servers().zip(&limits) {
                prop_assert!(*limit == 0 || server.in_flight() <= *limit, "{server:?}");
            }
        }
    }
}

#[test]
fn a_full_server_loses_no_session() {
    let service = service(Strategy::RoundRobin, &[1, 1], None);
    let cookie = service.servers().next().unwrap().0.cookie_value().to_owned();
    let first = pick_for(&service, 0, Some(&cookie), &[]).unwrap();
    assert_eq!((first.index(), first.by_cookie()), (0, CookieMatch::Current));
    let second = pick_for(&service, 0, Some(&cookie), &[]).unwrap();
    assert_eq!((second.index(), second.by_cookie()), (1, CookieMatch::Current), "it keeps its cookie");
    assert!(pick_for(&service, 0, Some(&cookie), &[]).is_none());
}

#[test]
fn a_retry_takes_no_tried_server_while_another_is_only_full() {
    let service = service(Strategy::RoundRobin, &[1, 1], None);
    let other = pick_for(&service, 0, None, &[0]).unwrap();
    assert_eq!(other.index(), 1);
    assert!(pick_for(&service, 0, None, &[0]).is_none(), "server 0 has room, but has failed already");
}

#[test]
fn a_limit_counts_what_began_before_the_reload() {
    let before = service(Strategy::LeastConnections, &[0], None);
    let mut held: Vec<_> = (0..3).map(|_| pick(&before).unwrap()).collect();
    let after = service(Strategy::LeastConnections, &[2], Some(&before));
    assert!(pick(&after).is_none());
    let mut waiting = Waiting::join(&after, false).unwrap();
    assert!(waiting.try_turn() && pick(&after).is_none());
    held.pop();
    assert!(waiting.rings() > 0 && waiting.try_turn() && pick(&after).is_none(), "still two");
    held.pop();
    assert!(waiting.rings() > 0 && waiting.try_turn() && pick(&after).is_some());
}

#[test]
fn who_waits_longest_goes_first() {
    let service = service(Strategy::RoundRobin, &[1], None);
    let slot = pick(&service).unwrap();
    let mut waiting: Vec<_> = (0..3).map(|_| Waiting::join(&service, false).unwrap()).collect();
    assert_eq!(service.queued(), 3);
    let turns = |waiting: &mut [Waiting]| waiting.iter_mut().map(Waiting::try_turn).collect::<Vec<_>>();
    assert_eq!(turns(&mut waiting), [true, false, false]);
    assert!(pick(&service).is_none());
    drop(slot);
    assert_eq!(waiting.iter().map(Waiting::rings).collect::<Vec<_>>(), [1, 0, 0]);
    let slot = pick(&service).unwrap();
    // Served: the next one may try, in vain for now.
    waiting.remove(0);
    assert_eq!(waiting.iter().map(Waiting::rings).collect::<Vec<_>>(), [1, 0]);
    // One that gives up makes nobody wait longer.
    waiting.remove(0);
    assert_eq!((waiting[0].rings(), waiting[0].try_turn()), (1, true));
    drop(slot);
    assert_eq!(waiting[0].rings(), 1);
    waiting.clear();
    assert_eq!(service.queued(), 0);
}

#[test]
fn nobody_waits_behind_a_retry_that_only_another_server_can_serve() {
    let service = service(Strategy::RoundRobin, &[1, 1], None);
    let [_a, b] = [0, 1].map(|index| pick_for(&service, 0, None, &[1 - index]).unwrap());
    assert_eq!(b.index(), 1);
    let mut retry = Waiting::join(&service, true).unwrap();
    let mut first = Waiting::join(&service, false).unwrap();
    let mut second = Waiting::join(&service, false).unwrap();
    assert_eq!([retry.try_turn(), first.try_turn(), second.try_turn()], [true, true, false]);
    drop(b);
    assert_eq!([retry.rings(), first.rings(), second.rings()], [1, 1, 0]);
    assert!(pick_for(&service, 0, None, &[1]).is_none(), "the retry has failed on this one");
    assert!(pick(&service).is_some());
}

#[test]
fn the_queue_has_an_end() {
    let service = service(Strategy::RoundRobin, &[1], None);
    assert!(service.queue(0, false).is_none());
    let first = service.queue(1, false);
    assert!(first.is_some() && service.queue(1, false).is_none());
    drop(first);
    assert!(service.queue(1, false).is_some());
}

#[test]
fn a_change_of_health_wakes_those_who_wait() {
    let service = service(Strategy::RoundRobin, &[1, 1], None);
    service.observe_probe(1, Probe::Failed, now());
    let _slot = pick(&service).unwrap();
    let mut waiting = Waiting::join(&service, false).unwrap();
    assert!(waiting.try_turn() && pick(&service).is_none() && service.is_available());
    service.observe_probe(1, Probe::Passed, now());
    assert!(waiting.rings() > 0 && pick(&service).is_some(), "a server is back");
    for index in [0, 1] {
        service.observe_probe(index, Probe::Failed, now());
    }
    assert!(waiting.rings() > 0 && !service.is_available(), "nobody is left to wait for");
}

/// Threads that wait for each other's slots: no limit is broken, and nobody sleeps for ever.
#[test]
fn no_slot_is_forgotten_between_threads() {
    for strategy in STRATEGIES {
        let service = service(strategy, &[1, 2], None);
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let service = &service;
                scope.spawn(move || {
                    for n in 0..400 {
                        let random = (thread << 32 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                        let picked = wait(service, random);
                        assert!(picked.server().in_flight() <= 1 + picked.index() as u32);
                        if n % 3 == 0 {
                            std::thread::yield_now();
                        }
                    }
                });
            }
        });
        assert_eq!(service.queued(), 0);
        assert!(service.servers().all(|(server, _)| server.in_flight() == 0));
    }
}

/// As the data plane does it.
fn wait(service: &Service, random: u64) -> Picked {
    if service.queued() == 0
        && let Some(picked) = pick_for(service, random, None, &[])
    {
        return picked;
    }
    let mut waiting = Waiting::join(service, false).unwrap();
    loop {
        if waiting.try_turn()
            && let Some(picked) = pick_for(service, random, None, &[])
        {
            return picked;
        }
        let asleep = now();
        while waiting.rings() == 0 {
            std::thread::park_timeout(std::time::Duration::from_secs(20));
            assert!(asleep.elapsed().as_secs() < 20, "woken by nobody");
        }
    }
}
