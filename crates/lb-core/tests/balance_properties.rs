//! What holds for every strategy, whatever the servers, and across threads.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Barrier;
use std::time::Instant;

use lb_core::balance::{MemberSpec, Pick, Picked, Service, Settings, Strategy};
use lb_core::health::{self, AdminState, Probe, Status};
use proptest::prelude::*;

#[expect(clippy::disallowed_methods, reason = "no clock is paused here, and no assertion depends on it")]
fn now() -> Instant {
    Instant::now()
}

fn service(strategy: Strategy, weights: &[u32]) -> Service {
    let member = |(n, &weight)| MemberSpec { url: format!("http://10.0.0.{n}:80"), weight };
    let members: Vec<_> = (1..).zip(weights).map(member).collect();
    let active = Some(health::Settings::default());
    Service::new(
        "app@file",
        Settings { strategy, active, sticky: true, ..Settings::default() },
        &members,
        None,
        now(),
    )
}

fn pick(service: &Service, client: u32, random: u64) -> Option<Picked> {
    let client = IpAddr::V4(Ipv4Addr::from(client));
    service.pick(&Pick { client, sticky: None, random, tried: &[] })
}

fn strategies() -> impl proptest::strategy::Strategy<Value = Strategy> {
    prop_oneof![
        Just(Strategy::RoundRobin),
        Just(Strategy::LeastConnections),
        Just(Strategy::PowerOfTwoChoices),
        Just(Strategy::HighestRandomWeight),
        Just(Strategy::LeastTime),
    ]
}

fn servers() -> impl proptest::strategy::Strategy<Value = Vec<(u32, Probe, AdminState)>> {
    let probe = prop_oneof![Just(Probe::Passed), Just(Probe::Degraded), Just(Probe::Failed)];
    let admin = prop_oneof![
        3 => Just(AdminState::Ready),
        1 => Just(AdminState::Drain),
        1 => Just(AdminState::Maintenance),
    ];
    let weight = prop_oneof![1 => Just(0), 4 => 1_u32..10, 1 => any::<u32>()];
    prop::collection::vec((weight, probe, admin), 0..8)
}

proptest! {
    #[test]
    fn an_ineligible_server_is_never_picked(
        strategy in strategies(),
        servers in servers(),
        requests in prop::collection::vec((any::<u32>(), any::<u64>(), 0_usize..10), 1..50),
    ) {
        let weights: Vec<u32> = servers.iter().map(|&(weight, ..)| weight).collect();
        let service = service(strategy, &weights);
        for (index, (server, _)) in service.servers().enumerate() {
            service.observe_probe(index, servers[index].1, now());
            server.set_admin_state(servers[index].2);
        }
        let eligible = |&(weight, probe, admin): &(u32, Probe, AdminState)| {
            weight > 0 && probe != Probe::Failed && admin == AdminState::Ready
        };
        let mut held = Vec::new();
        for (client, random, named) in requests {
            let picked = pick(&service, client, random);
            prop_assert_eq!(picked.is_some(), servers.iter().any(eligible));
            prop_assert!(picked.as_ref().is_none_or(|picked| eligible(&servers[picked.index()])));
            held.extend(picked);
            let Some((server, _)) = service.servers().nth(named) else { continue };
            let cookie = Pick { client: Ipv4Addr::from(client).into(), sticky: Some(server.cookie_value()), random, tried: &[] };
            let sticky = service.pick(&cookie).map(|picked| picked.index());
            let (weight, probe, admin) = servers[named];
            let reaches = strategy != Strategy::HighestRandomWeight
                && weight > 0
                && probe != Probe::Failed
                && admin != AdminState::Maintenance;
            let allowed = match sticky {
                _ if reaches => sticky == Some(named),
                Some(index) => eligible(&servers[index]),
                None => true,
            };
            prop_assert!(allowed, "a cookie for {named} led to {sticky:?}");
        }
        drop(held);
        prop_assert!(service.servers().all(|(server, _)| server.in_flight() == 0));
    }

    #[test]
    fn retries_reach_each_eligible_server_before_any_again(
        strategy in strategies(),
        servers in servers(),
        randoms in prop::collection::vec(any::<u64>(), 8),
    ) {
        let weights: Vec<u32> = servers.iter().map(|&(weight, ..)| weight).collect();
        let service = service(strategy, &weights);
        for (index, &(_, probe, _)) in servers.iter().enumerate() {
            service.observe_probe(index, probe, now());
        }
        let eligible = servers.iter().filter(|&&(weight, probe, _)| weight > 0 && probe != Probe::Failed).count();
        let mut tried = Vec::new();
        for &random in randoms.iter().take(eligible) {
            let client = Ipv4Addr::LOCALHOST.into();
            let index = service.pick(&Pick { client, sticky: None, random, tried: &tried }).unwrap().index();
            prop_assert!(!tried.contains(&index), "{index} again after {tried:?}");
            tried.push(index);
        }
    }

    #[test]
    fn round_robin_is_exact_from_wherever_it_starts(
        weights in prop::collection::vec(0_u32..20, 1..8),
        skipped in 0_usize..200,
    ) {
        let service = service(Strategy::RoundRobin, &weights);
        for _ in 0..skipped {
            drop(pick(&service, 0, 0));
        }
        let mut counts = vec![0; weights.len()];
        for _ in 0..weights.iter().sum() {
            counts[pick(&service, 0, 0).unwrap().index()] += 1;
        }
        prop_assert_eq!(counts, weights);
    }

    #[test]
    fn removing_one_of_n_servers_moves_only_its_clients(n in 3_usize..12, gone in 0_usize..12) {
        let gone = gone % n;
        let service = service(Strategy::HighestRandomWeight, &vec![1; n]);
        let homes = || (0..2000_u32).map(|c| pick(&service, c.wrapping_mul(2_654_435_761), 0).unwrap().index());
        let before: Vec<_> = homes().collect();
        service.observe_probe(gone, Probe::Failed, now());
        let after: Vec<_> = homes().collect();
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        prop_assert!(before.iter().zip(&after).all(|(b, a)| b == a || *b == gone));
        prop_assert!((500 / n..=4000 / n).contains(&moved), "{} of 2000 moved, one of {} went", moved, n);
    }
}

/// Runs `work` in 4 threads that start together.
fn in_threads<T: Send>(work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        let run = |thread| {
            start.wait();
            work(thread)
        };
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || run(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn round_robin_is_exact_across_threads() {
    for weights in [[5, 3, 1], [1, 1, 1], [7, 0, 2]] {
        let service = service(Strategy::RoundRobin, &weights);
        let cycle: u32 = weights.iter().sum();
        let counts = in_threads(|_| {
            let mut counts = [0; 3];
            for _ in 0..cycle * 500 {
                counts[pick(&service, 0, 0).unwrap().index()] += 1;
            }
            counts
        });
        let sum = |index: usize| counts.iter().map(|counts| counts[index]).sum::<u32>();
        assert_eq!([sum(0), sum(1), sum(2)], weights.map(|weight| weight * 2000));
    }
}

#[test]
fn least_connections_keep_the_spread_within_one_across_threads() {
    let service = service(Strategy::LeastConnections, &[1, 1, 1]);
    let servers: Vec<_> = service.servers().map(|(server, _)| server).collect();
    // All requests stay in flight. Loads only grow, so what is read first must not exceed what is read
    // after it by more than the spread.
    let held = in_threads(|thread| {
        let requests = (0..20_000_u64).map(|n| {
            let picked = pick(&service, 0, n).unwrap();
            let index = (n + thread) as usize;
            let [first, then] = [index, index + 1].map(|index| servers[index % 3].in_flight());
            assert!(first <= then + 1, "{first} and {then}");
            picked
        });
        requests.collect::<Vec<_>>()
    });
    let loads: Vec<_> = servers.iter().map(|server| server.in_flight()).collect();
    assert!(loads.iter().all(|load| (26_666..=26_667).contains(load)), "{loads:?}");
    drop(held);
    assert!(servers.iter().all(|server| server.in_flight() == 0));
}

#[test]
fn least_connections_share_by_weight_while_requests_come_and_go() {
    let service = service(Strategy::LeastConnections, &[2, 1, 1]);
    let (mut held, mut counts) = (VecDeque::new(), [0_u32; 3]);
    for n in 0..8_000 {
        let picked = pick(&service, 0, n).unwrap();
        counts[picked.index()] += 1;
        held.push_back(picked);
        if held.len() > 20 {
            held.pop_front();
        }
    }
    let close = counts.iter().zip([4_000, 2_000, 2_000]).all(|(count, ideal)| count.abs_diff(ideal) <= 20);
    assert!(close, "{counts:?}");
}

#[test]
fn in_flight_counts_are_exact_across_threads_and_reloads() {
    for strategy in [Strategy::RoundRobin, Strategy::LeastConnections, Strategy::LeastTime] {
        let first = service(strategy, &[2, 1, 1]);
        let members: Vec<_> =
            first.servers().map(|(s, weight)| MemberSpec { url: s.url().to_owned(), weight }).collect();
        let second = Service::new("app@file", *first.settings(), &members, Some(&first), now());
        in_threads(|thread| {
            let mut held = VecDeque::new();
            for n in 0..5_000 {
                let service = if (n + thread) % 2 == 0 { &first } else { &second };
                held.push_back(pick(service, 0, n).unwrap());
                if held.len() > 7 {
                    held.pop_front();
                }
            }
        });
        assert!(second.servers().all(|(server, _)| server.in_flight() == 0), "{strategy:?}");
    }
}

#[test]
fn whoever_sees_a_change_sees_it_in_the_next_pick() {
    for strategy in [Strategy::RoundRobin, Strategy::LeastConnections, Strategy::PowerOfTwoChoices] {
        let service = service(strategy, &[1; 4]);
        // Each thread owns one server, flips its state, and must not get it while it is out.
        in_threads(|thread| {
            let own = thread as usize;
            let server = service.servers().nth(own).unwrap().0;
            for n in 0..2000 {
                server.set_admin_state(AdminState::Drain);
                assert!(pick(&service, 0, n).is_none_or(|picked| picked.index() != own));
                server.set_admin_state(AdminState::Ready);
                service.observe_probe(own, Probe::Failed, now());
                assert!(pick(&service, 0, n << 31).is_none_or(|picked| picked.index() != own));
                service.observe_probe(own, Probe::Passed, now());
                assert!(pick(&service, 0, n).is_some(), "one's own server is in");
            }
        });
        let states: HashMap<_, usize> =
            service.servers().map(|(s, _)| s.status()).fold(HashMap::new(), |mut all, s| {
                *all.entry(s).or_default() += 1;
                all
            });
        assert_eq!(states, HashMap::from([(Status::Healthy, 4)]));
    }
}
