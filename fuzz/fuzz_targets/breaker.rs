//! Circuit breaker: a line with the expression, then one byte per event in its life.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use lb_core::breaker::{Admission, Breaker, Change, Expression, Settings, State};
use libfuzzer_sys::fuzz_target;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

const SETTINGS: Settings = Settings {
    check_period: Duration::from_millis(100),
    fallback: Duration::from_secs(10),
    recovery: Duration::from_secs(10),
};

/// Which way a breaker may go.
fn is_legal(from: State, to: State) -> bool {
    match to {
        State::Closed => from == State::HalfOpen,
        State::HalfOpen => from == State::Open,
        State::Open => from != State::Open,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (text, events) = (String::from_utf8_lossy(&bytes[..end]), bytes.get(end + 1..).unwrap_or_default());
    let expression = match Expression::parse(&text) {
        Ok(expression) => expression,
        Err(error) => {
            assert!(text.is_char_boundary(error.at), "{} in {text:?}", error.at);
            assert!(!error.message.contains('\n') && !error.message.is_empty());
            return;
        }
    };
    assert_eq!(expression.as_str(), text);

    let mut now = *START;
    let breaker = Breaker::new(expression, SETTINGS, now);
    let mut opened = None;
    let mut state = State::Closed;
    let mut step = |change: Option<Change>, now: Instant, opened: &mut Option<Instant>| {
        let after = breaker.state();
        // What is reported is what has happened, and nothing happens unreported.
        assert_eq!(change.map(|change| change.to), (after != state).then_some(after));
        if let Some(Change { to }) = change {
            assert!(is_legal(state, to), "{state:?} to {to:?}");
            if to == State::Open {
                *opened = Some(now);
            }
        }
        state = after;
    };
    for &event in events {
        let amount = u64::from(event & 63);
        match event >> 6 {
            0 => now += Duration::from_millis(amount * amount),
            1 => {
                let (admission, change) = breaker.admit(now);
                step(change, now, &mut opened);
                match breaker.state() {
                    State::Closed => assert_eq!(admission, Admission::Allowed),
                    State::Open => assert_eq!(admission, Admission::Rejected),
                    State::HalfOpen => {}
                }
                // Nothing passes before the fallback is over.
                let shut = opened.is_some_and(|since| now < since + SETTINGS.fallback);
                assert!(!shut || admission == Admission::Rejected);
            }
            2 => step(breaker.record(200, Duration::from_millis(amount * 20), now), now, &mut opened),
            _ => step(
                breaker.record(500 + event as u16 % 8, Duration::from_millis(amount), now),
                now,
                &mut opened,
            ),
        }
    }
});
