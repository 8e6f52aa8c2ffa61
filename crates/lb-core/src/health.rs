//! Health of one server, decided from probe results and, passively, from its answers.
//!
//! Thresholds damp flapping: one stray probe changes nothing. Whether an operator wants
//! traffic here is a separate question, answered by [`AdminState`]. Who probes, and when, is
//! decided elsewhere; nothing here logs or counts, it returns what changed.

mod outlier;
mod passive;

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

pub use outlier::{EjectionReason, Outcome, OutlierSettings};
pub(crate) use outlier::{Ejections, Streaks};
pub use passive::{FailureWindow, PassiveSettings};

/// Health of one server, as its probes and answers show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    Healthy,
    /// Serves, but said itself that it is in trouble: it gets a share of its weight.
    Degraded,
    Unhealthy,
}

/// Outcome of one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    Passed,
    /// The server answered in time and asked for less work.
    Degraded,
    Failed,
}

/// What the operator wants of a server; never mixed with its health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AdminState {
    #[default]
    Ready,
    /// No new clients; those with a sticky cookie for this server may finish what they do there.
    Drain,
    /// Nobody, cookie or not.
    Maintenance,
}

/// Passes in a row that bring a server back, failures in a row that take it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    pub healthy: NonZeroU32,
    pub unhealthy: NonZeroU32,
}

/// How probe results are read. The default is Traefik's: each single probe decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub thresholds: Thresholds,
    /// Failures do not count this long after the server first appeared, until its first pass.
    pub start_period: Duration,
    /// A new server gets no traffic before its first pass.
    pub start_unhealthy: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let thresholds = Thresholds { healthy: NonZeroU32::MIN, unhealthy: NonZeroU32::MIN };
        Self { thresholds, start_period: Duration::ZERO, start_unhealthy: false }
    }
}

/// A change of status, for the caller to log, count and publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    pub from: Status,
    pub to: Status,
    /// How long the previous status had lasted.
    pub after: Duration,
}

/// The state machine behind a [`Status`].
///
/// The settings are an argument of every step rather than a part of the state: a reload may change
/// a threshold, and until the new configuration is in force the old one must keep its own.
#[derive(Clone, Debug)]
pub struct Health {
    status: Status,
    /// Probes in a row that contradict `status`.
    streak: u32,
    since: Instant,
    appeared: Instant,
    /// True until the first pass, or until the server was taken out: the start period applies, and
    /// a server that began outside is let in by one pass.
    starting: bool,
}

/// What is known of a server's health, for a process with another clock: times are ages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub status: Status,
    pub streak: u32,
    pub since: Duration,
    pub appeared: Duration,
    pub starting: bool,
}

impl Health {
    pub fn memory(&self, now: Instant) -> Memory {
        Memory {
            status: self.status,
            streak: self.streak,
            since: now.saturating_duration_since(self.since),
            appeared: now.saturating_duration_since(self.appeared),
            starting: self.starting,
        }
    }

    /// The health that was remembered, as if it had been seen here.
    pub fn recalled(memory: Memory, now: Instant) -> Self {
        let ago = |age| now.checked_sub(age).unwrap_or(now);
        let Memory { status, streak, since, appeared, starting } = memory;
        Self { status, streak, since: ago(since), appeared: ago(appeared), starting }
    }

    /// A server that appears now. Without an active health check it is healthy.
    pub fn new(settings: Option<&Settings>, now: Instant) -> Self {
        let status = match settings {
            Some(settings) if settings.start_unhealthy => Status::Unhealthy,
            _ => Status::Healthy,
        };
        Self { status, streak: 0, since: now, appeared: now, starting: true }
    }

    /// Takes in one probe result; returns the change it caused, if any.
    ///
    /// Healthy and degraded follow each other without a threshold: the server itself asked for it,
    /// and neither takes it out of the schedule.
    pub fn observe(&mut self, probe: Probe, settings: &Settings, now: Instant) -> Option<Transition> {
        let reported = match probe {
            Probe::Passed => Status::Healthy,
            Probe::Degraded => Status::Degraded,
            Probe::Failed => Status::Unhealthy,
        };
        let failed = probe == Probe::Failed;
        let starting = self.starting;
        if failed && starting && now.saturating_duration_since(self.appeared) < settings.start_period {
            return None;
        }
        self.starting = starting && failed;
        if failed == (self.status == Status::Unhealthy) {
            self.streak = 0;
            return self.turn(reported, now);
        }
        let needed = match (failed, starting) {
            (true, _) => settings.thresholds.unhealthy.get(),
            (false, true) => 1,
            (false, false) => settings.thresholds.healthy.get(),
        };
        self.streak += 1;
        if self.streak < needed {
            return None;
        }
        self.turn(reported, now)
    }

    /// Takes the server out at once, whatever the thresholds: its answers failed, not its probes.
    pub fn take_out(&mut self, now: Instant) -> Option<Transition> {
        self.turn(Status::Unhealthy, now)
    }

    /// Brings the server back at once.
    pub fn bring_back(&mut self, now: Instant) -> Option<Transition> {
        match self.status {
            Status::Unhealthy => self.turn(Status::Healthy, now),
            Status::Healthy | Status::Degraded => None,
        }
    }

    pub fn status(&self) -> Status {
        self.status
    }

    /// When the status began.
    pub fn since(&self) -> Instant {
        self.since
    }

    fn turn(&mut self, to: Status, now: Instant) -> Option<Transition> {
        let from = self.status;
        if from == to {
            return None;
        }
        let after = now.saturating_duration_since(self.since);
        self.status = to;
        self.streak = 0;
        self.since = now;
        self.starting = false;
        Some(Transition { from, to, after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::origin;

    fn settings(healthy: u32, unhealthy: u32) -> Settings {
        let [healthy, unhealthy] = [healthy, unhealthy].map(|n| NonZeroU32::new(n).unwrap());
        Settings { thresholds: Thresholds { healthy, unhealthy }, ..Settings::default() }
    }

    /// Status (`H`, `d` or `u`) after each probe (`+`, `~` for degraded, `-`), one probe a second.
    fn run(settings: Settings, probes: &str) -> String {
        let t0 = origin();
        let mut health = Health::new(Some(&settings), t0);
        let statuses = probes.chars().zip(1..).map(|(c, second)| {
            let probe = match c {
                '+' => Probe::Passed,
                '~' => Probe::Degraded,
                _ => Probe::Failed,
            };
            let before = health.status();
            let change = health.observe(probe, &settings, t0 + Duration::from_secs(second));
            assert_eq!(change.map(|c| (c.from, c.to)), {
                let after = health.status();
                (before != after).then_some((before, after))
            });
            match health.status() {
                Status::Healthy => 'H',
                Status::Degraded => 'd',
                Status::Unhealthy => 'u',
            }
        });
        statuses.collect()
    }

    #[test]
    fn only_enough_contradictions_in_a_row_flip_the_status() {
        assert_eq!(run(settings(2, 3), "---"), "HHu");
        assert_eq!(run(settings(2, 3), "--+--"), "HHHHH"); // a pass restarts the count
        assert_eq!(run(settings(2, 3), "---+-++"), "HHuuuuH"); // so does a failure
        assert_eq!(run(settings(1, 1), "-+-+"), "uHuH"); // Traefik
    }

    #[test]
    fn degraded_is_believed_at_once_but_does_not_bring_a_server_back_faster() {
        assert_eq!(run(settings(2, 3), "~+~"), "dHd");
        assert_eq!(run(settings(2, 3), "~--~---"), "ddddddu");
        assert_eq!(run(settings(2, 3), "---~~+"), "HHuudH");
        assert_eq!(run(settings(2, 3), "---+~"), "HHuud"); // the last word counts
    }

    #[test]
    fn a_start_period_forgives_failures_until_the_first_pass() {
        let settings = Settings { start_period: Duration::from_secs(3), ..settings(2, 2) };
        assert_eq!(run(settings, "------"), "HHHuuu"); // seconds 1 and 2 do not count
        assert_eq!(run(settings, "+--"), "HHu"); // started: the rest of the period is void
    }

    #[test]
    fn a_server_that_starts_unhealthy_waits_for_one_pass() {
        let settings = Settings { start_unhealthy: true, ..settings(2, 1) };
        assert_eq!(run(settings, "--+"), "uuH");
        assert_eq!(run(settings, "~"), "d");
        assert_eq!(run(settings, "+-++"), "HuuH"); // later it takes the threshold
        let slow = Settings { start_period: Duration::from_secs(10), ..settings };
        assert_eq!(run(slow, "--+-"), "uuHu");
    }

    #[test]
    fn a_server_taken_out_by_its_answers_needs_the_whole_threshold() {
        let (settings, t0) = (settings(2, 3), origin());
        let mut health = Health::new(Some(&settings), t0);
        let second = Duration::from_secs(1);
        let out = health.take_out(t0 + 7 * second).unwrap();
        assert_eq!((out.from, out.to, out.after), (Status::Healthy, Status::Unhealthy, 7 * second));
        assert_eq!(health.take_out(t0 + 8 * second), None);
        assert_eq!(health.observe(Probe::Passed, &settings, t0 + 8 * second), None);
        let back = health.observe(Probe::Passed, &settings, t0 + 9 * second).unwrap();
        assert_eq!((back.to, back.after), (Status::Healthy, 2 * second));
        assert_eq!(health.bring_back(t0 + 9 * second), None);
    }

    #[test]
    fn what_is_recalled_goes_on_where_it_was() {
        let (settings, t0) = (settings(2, 3), origin());
        let second = Duration::from_secs(1);
        let mut health = Health::new(Some(&settings), t0);
        for _ in 0..2 {
            assert_eq!(health.observe(Probe::Failed, &settings, t0 + second), None);
        }
        let memory = health.memory(t0 + 5 * second);
        assert_eq!((memory.status, memory.streak, memory.since), (Status::Healthy, 2, 5 * second));
        // The clock of another process starts anywhere.
        let t1 = t0 + 1000 * second;
        let mut recalled = Health::recalled(memory, t1);
        assert_eq!(recalled.memory(t1), memory);
        let out = recalled.observe(Probe::Failed, &settings, t1 + second).unwrap();
        assert_eq!((out.to, out.after), (Status::Unhealthy, 6 * second));
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_does_no_harm() {
        let (settings, t0) = (settings(1, 1), origin() + Duration::from_secs(60));
        let mut health = Health::new(Some(&settings), t0);
        let earlier = t0 - Duration::from_secs(5);
        assert_eq!(health.observe(Probe::Failed, &settings, earlier).unwrap().after, Duration::ZERO);
    }
}
