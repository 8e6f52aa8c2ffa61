//! Ejection, slow start and panic mode, as a service shows them.

use super::*;
use crate::health::{EjectionReason, Outcome};

const SECOND: Duration = Duration::from_secs(1);

const SLOW: Settings = Settings {
    slow_start: Some(SlowStart {
        duration: Duration::from_secs(10),
        aggression: 1.0,
        min_weight_percent: 10,
    }),
    ..CHECKED
};

fn ejecting(max_ejection_percent: u8) -> Settings {
    let outlier = OutlierSettings {
        consecutive_5xx: NonZeroU32::new(2),
        max_ejection_percent,
        ..OutlierSettings::default()
    };
    Settings { outlier: Some(outlier), ..CHECKED }
}

/// Requests of 2,100 that each server got; `concurrent` are in flight at a time.
fn counts(service: &Service, concurrent: usize) -> Vec<usize> {
    let mut counts = vec![0; service.servers().len()];
    let mut held = std::collections::VecDeque::new();
    for random in randoms().take(2_100) {
        let client = Ipv4Addr::from(random as u32).into();
        let picked = service.pick(&Pick { random, client, ..ANYONE }).unwrap();
        counts[picked.index()] += 1;
        held.push_back(picked);
        if held.len() >= concurrent {
            held.pop_front();
        }
    }
    counts
}

/// Fails member `index` until it is ejected, or would be.
fn fail(service: &Service, index: usize, now: Instant) -> Option<Ejection> {
    assert_eq!(service.observe_outcome(index, Outcome::ServerError, now), None);
    service.observe_outcome(index, Outcome::ServerError, now)
}

const BEGUN: Option<Ejection> =
    Some(Ejection::Begun { reason: EjectionReason::Consecutive5xx, lasts: Duration::from_secs(30) });

#[test]
fn a_server_that_a_reload_adds_gets_a_growing_and_exact_share() {
    let t0 = origin();
    let first = service(SLOW, &[1, 1]);
    assert_eq!(sequence(&first, 4), "abab", "at the start all are new and nobody has to be spared");
    let second = reload(&first, SLOW, &[1, 1, 1]);
    assert_eq!(counts(&second, 1), [1_000, 1_000, 100], "before the first step");
    assert_eq!(second.advance(t0), [Event::Rising { index: 2 }]);
    assert_eq!(counts(&second, 1), [1_000, 1_000, 100]);
    assert_eq!(second.slow_start_percent(2), Some(10));
    assert_eq!(second.advance(t0 + 5 * SECOND), []);
    assert_eq!(counts(&second, 1), [840, 840, 420]);
    let third = reload(&second, SLOW, &[1, 1, 1]);
    assert_eq!(counts(&third, 1), [840, 840, 420], "a reload changes nothing");
    assert_eq!(third.advance(t0 + 10 * SECOND), [Event::Risen { index: 2 }]);
    assert_eq!(counts(&third, 1), [700; 3]);
    assert_eq!(third.slow_start_percent(2), None);
}

#[test]
fn no_strategy_gives_a_rising_server_more_than_its_share() {
    for (strategy, concurrent) in ALL.into_iter().flat_map(|s| [1, 2, 4, 40].map(|n| (s, n))) {
        let settings = Settings { strategy, ..SLOW };
        let rising = reload(&service(settings, &[1, 1]), settings, &[1, 1, 1]);
        let new = counts(&rising, concurrent)[2];
        // A tenth beside two wholes; Traefik's hash is rough (see above).
        let most = if strategy == Strategy::HighestRandomWeight { 200 } else { 130 };
        assert!((1..=most).contains(&new), "{strategy:?}, {concurrent} in flight: {new}");
        rising.advance(origin());
        rising.advance(origin() + 11 * SECOND);
        let fair = counts(&rising, concurrent)[2];
        assert!((500..=900).contains(&fair), "{strategy:?}, {concurrent} in flight: {fair} in the end");
    }
}

#[test]
fn with_hashing_clients_move_to_a_rising_server_only() {
    let settings = Settings { strategy: Strategy::HighestRandomWeight, ..SLOW };
    let homes = |service: &Service| -> String {
        let home = |client: u32| {
            let client = Ipv4Addr::from(client.wrapping_mul(2_654_435_761)).into();
            letter(service.pick(&Pick { client, ..ANYONE }).as_ref())
        };
        (0..500).map(home).collect()
    };
    let first = service(settings, &[1, 1]);
    let second = reload(&first, settings, &[1, 1, 1]);
    let mut before = homes(&first);
    for second_of in 0..12 {
        second.advance(origin() + second_of * SECOND);
        let after = homes(&second);
        assert!(before.chars().zip(after.chars()).all(|(b, a)| b == a || a == 'c'));
        before = after;
    }
    assert_eq!(before, homes(&service(settings, &[1, 1, 1])));
}

#[test]
fn a_retry_finds_the_rising_server_when_it_is_the_last() {
    for strategy in ALL {
        let settings = Settings { strategy, ..SLOW };
        let rising = reload(&service(settings, &[1]), settings, &[1, 1, 1]);
        for random in randoms().take(50) {
            let tried = |tried| letter(rising.pick(&Pick { random, tried, ..ANYONE }).as_ref());
            assert!(matches!(tried(&[0]), 'b' | 'c'), "{strategy:?}");
            assert_eq!((tried(&[0, 1]), tried(&[1, 2])), ('c', 'a'), "{strategy:?}");
        }
    }
}

#[test]
fn whoever_was_out_starts_slowly() {
    let t0 = origin();
    let service = service(SLOW, &[1, 1]);
    assert_eq!(service.advance(t0), []);
    service.observe_probe(0, Probe::Failed, t0);
    assert_eq!(service.advance(t0), []);
    service.observe_probe(0, Probe::Passed, t0);
    assert_eq!(sequence(&service, 11).matches('a').count(), 1, "from its first request on");
    assert_eq!(service.advance(t0 + SECOND), [Event::Rising { index: 0 }]);
    assert_eq!(service.advance(t0 + 11 * SECOND), [Event::Risen { index: 0 }]);
    let at = |state, seconds: u32| {
        server(&service, 1).set_admin_state(state);
        service.advance(t0 + seconds * SECOND)
    };
    assert_eq!(at(AdminState::Drain, 12), []);
    assert_eq!(at(AdminState::Ready, 13), [], "a drained server has not cooled down");
    assert_eq!(at(AdminState::Maintenance, 14), []);
    assert_eq!(at(AdminState::Ready, 15), [Event::Rising { index: 1 }]);
}

#[test]
fn a_cookie_leads_to_a_rising_server() {
    let rising = reload(&service(SLOW, &[1, 1]), SLOW, &[1, 1, 1]);
    let cookie = server(&rising, 2).cookie_value();
    assert_eq!(by_cookie(&rising, cookie), ('c', CookieMatch::Current));
}

#[test]
fn slow_start_that_is_switched_on_spares_nobody_who_serves() {
    let first = reload(&service(CHECKED, &[1]), CHECKED, &[1, 1]);
    let second = reload(&first, SLOW, &[1, 1, 1]);
    assert_eq!(second.advance(origin()), [Event::Rising { index: 2 }]);
    assert_eq!(sequence(&first, 4).matches('b').count(), 2);
}

#[test]
fn failures_in_a_row_eject_for_a_time_that_grows() {
    let (service, t0) = (service(ejecting(50), &[1, 1]), origin());
    assert_eq!(service.observe_outcome(0, Outcome::ServerError, t0), None);
    assert_eq!(service.observe_outcome(0, Outcome::Served, t0), None);
    assert_eq!(fail(&service, 0, t0), BEGUN);
    assert_eq!((sequence(&service, 3), server(&service, 0).status()), ("bbb".into(), Status::Healthy));
    assert!(service.is_ejected(0) && !service.is_ejected(1));
    assert_eq!(service.observe_outcome(0, Outcome::ServerError, t0), None, "late answers change nothing");
    let cookie = server(&service, 0).cookie_value();
    assert_eq!(by_cookie(&service, cookie), ('b', CookieMatch::None));
    assert_eq!(service.advance(t0 + 29 * SECOND), []);
    let after = 31 * SECOND;
    assert_eq!(service.advance(t0 + after), [Event::Returned { index: 0, after }]);
    assert_eq!(sequence(&service, 4).matches('a').count(), 2);
    let again = Ejection::Begun { reason: EjectionReason::Consecutive5xx, lasts: 60 * SECOND };
    assert_eq!(fail(&service, 0, t0 + after), Some(again));
}

#[test]
fn no_more_are_ejected_than_the_cap_allows_and_never_the_last() {
    let overflow = Some(Ejection::Overflow);
    for (max_percent, servers, expected) in [
        (10, 4, &[BEGUN, overflow, overflow, overflow][..]), // one in any case
        (50, 4, &[BEGUN, BEGUN, overflow, overflow]),
        (74, 4, &[BEGUN, BEGUN, overflow, overflow]),
        (100, 3, &[BEGUN, BEGUN, overflow]), // not the last
        (100, 1, &[overflow]),
    ] {
        let service = service(ejecting(max_percent), &vec![1; servers]);
        let got: Vec<_> = (0..servers).map(|index| fail(&service, index, origin())).collect();
        assert_eq!(got, expected, "{max_percent} % of {servers}");
        assert!(service.is_available());
    }
    let service = service(ejecting(100), &[1, 1, 1, 0]);
    service.observe_probe(0, Probe::Failed, origin());
    server(&service, 1).set_admin_state(AdminState::Drain);
    assert_eq!(fail(&service, 2, origin()), overflow, "the others are ill, drained and without weight");
    assert_eq!(service.observe_outcome(0, Outcome::ServerError, origin()), None, "the probes have it");
}

#[test]
fn ejection_and_health_checks_judge_on_their_own() {
    let t0 = origin();
    let settings = Settings { passive: Some(TWO_FAILURES), active: None, ..ejecting(50) };
    let service = service(settings, &[1, 1]);
    assert_eq!(fail(&service, 0, t0), BEGUN);
    service.observe_response(0, true, t0);
    service.observe_response(0, true, t0).unwrap();
    service.passive_recover(0, t0 + 10 * SECOND).unwrap();
    assert_eq!(sequence(&service, 2), "bb", "still ejected");
    service.observe_response(0, true, t0 + 25 * SECOND);
    service.observe_response(0, true, t0 + 25 * SECOND).unwrap();
    assert_eq!(service.advance(t0 + 30 * SECOND).len(), 1);
    assert_eq!(sequence(&service, 2), "bb", "now the passive check has it");
    service.passive_recover(0, t0 + 35 * SECOND).unwrap();
    assert!(sequence(&service, 2).contains('a'));
}

#[test]
fn an_ejection_survives_a_reload_and_ends_with_the_key() {
    let (first, t0) = (service(ejecting(50), &[1, 1]), origin());
    fail(&first, 0, t0);
    let second = reload(&first, Settings { active: None, ..ejecting(50) }, &[1, 2, 1]);
    assert!(!sequence(&second, 6).contains('a'));
    let without = reload(&second, CHECKED, &[1, 1]);
    assert_eq!(sequence(&without, 4), "abab");
    assert!(!sequence(&second, 6).contains('a'), "the one in force notices nothing");
    assert_eq!(second.advance(t0 + 30 * SECOND).len(), 1);
    assert!(sequence(&first, 4).contains('a'));
}

#[test]
fn an_ejected_server_returns_slowly() {
    let settings = Settings { slow_start: SLOW.slow_start, ..ejecting(50) };
    let (service, t0) = (service(settings, &[1, 1]), origin());
    fail(&service, 0, t0);
    let after = 30 * SECOND;
    let events = service.advance(t0 + after);
    assert_eq!(events, [Event::Returned { index: 0, after }, Event::Rising { index: 0 }]);
    assert_eq!(sequence(&service, 11).matches('a').count(), 1);
}

#[test]
fn panic_mode_uses_all_when_too_few_are_left() {
    let t0 = origin();
    for strategy in ALL {
        let settings = Settings { strategy, panic_threshold: 50, ..ejecting(100) };
        let service = service(settings, &[1, 1, 1, 1, 1, 0]);
        server(&service, 4).set_admin_state(AdminState::Maintenance);
        assert_eq!(fail(&service, 0, t0), BEGUN);
        service.observe_probe(1, Probe::Failed, t0);
        assert_eq!((service.panics(), service.advance(t0)), (false, vec![]), "two of four are left");
        assert!(!sequence(&service, 40).contains(['a', 'b']));
        let cookie = server(&service, 1).cookie_value().to_owned();
        assert_ne!(by_cookie(&service, &cookie).1, CookieMatch::Current);
        service.observe_probe(2, Probe::Failed, t0);
        assert!(service.panics());
        assert_eq!((service.advance(t0), service.advance(t0)), (vec![Event::PanicBegun], vec![]));
        let used = counts(&service, 4);
        assert!(used[..4].iter().all(|count| *count > 0) && used[4..] == [0, 0], "{strategy:?} {used:?}");
        if strategy != Strategy::HighestRandomWeight {
            assert_eq!(by_cookie(&service, &cookie), ('b', CookieMatch::Current));
        }
        assert_eq!(service.observe_outcome(0, Outcome::ServerError, t0), None);
        service.observe_probe(3, Probe::Failed, t0);
        assert!(service.is_available(), "all are ill: better them than nobody");
        let calm = reload(&service, ejecting(100), &[1; 5]);
        assert!(!calm.is_available() && calm.needs_upkeep());
        assert_eq!(calm.advance(t0), [Event::PanicEnded]);
    }
}

#[test]
fn what_is_off_needs_no_upkeep() {
    assert!(!service(CHECKED, &[1]).needs_upkeep());
    assert_eq!(service(CHECKED, &[1]).observe_outcome(0, Outcome::ServerError, origin()), None);
    for settings in [SLOW, ejecting(10), Settings { panic_threshold: 1, ..CHECKED }] {
        assert!(service(settings, &[1]).needs_upkeep());
        assert_eq!(service(settings, &[1]).observe_outcome(7, Outcome::ServerError, origin()), None);
    }
}
