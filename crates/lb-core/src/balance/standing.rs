//! Why a server that is healthy may still get nothing, or less: ejection and slow start.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::warmth::{SlowStart, Warmth};
use crate::health::{EjectionReason, Ejections, Outcome, OutlierSettings, Streaks};

/// Stays with a URL for as long as its service lists it. Only in force for services whose settings ask for it.
#[derive(Debug, Default)]
pub(super) struct Standing {
    streaks: Streaks,
    /// Copy of what `ejections` says, to be read without its lock; written under it.
    ejected: AtomicBool,
    ejections: Mutex<Ejections>,
    warmth: Mutex<Warmth>,
}

impl Standing {
    pub(super) fn new(warmth: Warmth) -> Self {
        Self { warmth: Mutex::new(warmth), ..Self::default() }
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    pub(super) fn record(&self, outcome: Outcome, settings: &OutlierSettings) -> Option<EjectionReason> {
        self.streaks.record(outcome, settings)
    }

    pub(super) fn eject(&self, settings: &OutlierSettings, now: Instant) -> Option<Duration> {
        let mut ejections = self.ejections.lock();
        let time = ejections.begin(settings, now)?;
        *self.warmth.lock() = Warmth::Cold;
        self.ejected.store(true, Ordering::Relaxed);
        Some(time)
    }

    /// Ends an ejection whose time is over; returns how long it lasted.
    pub(super) fn end_ejection(&self, now: Instant) -> Option<Duration> {
        if !self.is_ejected() {
            return None;
        }
        let mut ejections = self.ejections.lock();
        let lasted = ejections.end(now)?;
        self.ejected.store(false, Ordering::Relaxed);
        Some(lasted)
    }

    pub(super) fn warmth(&self) -> Warmth {
        *self.warmth.lock()
    }

    pub(super) fn warm_up(&self) {
        *self.warmth.lock() = Warmth::Warm;
    }

    /// Moves the slow start on; returns what it was and is.
    pub(super) fn advance(&self, out: bool, settings: &SlowStart, now: Instant) -> (Warmth, Warmth) {
        let mut warmth = self.warmth.lock();
        let before = *warmth;
        *warmth = before.next(out, settings, now);
        (before, *warmth)
    }
}
