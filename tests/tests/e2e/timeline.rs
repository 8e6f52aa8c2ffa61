//! What happened when, for people: `cargo nextest run -p lb-e2e scenario --no-capture` shows it.

use std::time::Duration;

use tokio::time::Instant;

/// Begins when it is made.
pub(crate) struct TimeLine {
    began: Instant,
}

impl TimeLine {
    pub(crate) fn new(scenario: &str) -> Self {
        show(scenario);
        Self { began: Instant::now() }
    }

    /// Adds a line; returns when that was.
    pub(crate) fn note(&self, what: &str) -> Duration {
        let at = self.began.elapsed();
        show(&format!("{:>8.2} s  {what}", at.as_secs_f64()));
        at
    }
}

#[expect(clippy::print_stdout, reason = "time lines are for people")]
pub(crate) fn show(text: &str) {
    println!("{text}");
}
