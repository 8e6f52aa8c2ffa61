//! How well a replica is: one status per check, and the one they add up to.

use std::time::Duration;

use serde_json::json;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Healthy,
    Degraded,
    Unhealthy,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// From this percentage of its memory on a replica is not ready. `/health` calls it unhealthy above.
const NOT_READY: u8 = 95;

/// What losing a dependency means for the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Importance {
    /// Without it nothing works: the replica is as unwell as the dependency.
    Essential,
    /// Without it the replica works, only worse: never more than degraded.
    Helpful,
}

/// A dependency, and how the time it takes to answer is judged.
#[derive(Clone, Debug)]
pub struct Dependency {
    pub name: String,
    pub importance: Importance,
    /// Above this latency the check is degraded.
    pub slow: Duration,
    /// Above this latency it is unhealthy.
    pub too_slow: Duration,
}

impl Dependency {
    /// The thresholds of the reference system: 100 and 500 ms.
    pub fn database() -> Self {
        Self::new("database", Importance::Essential, 100, 500)
    }

    /// The thresholds of the reference system: 50 and 200 ms.
    pub fn redis() -> Self {
        Self::new("redis", Importance::Helpful, 50, 200)
    }

    fn new(name: &str, importance: Importance, slow_ms: u64, too_slow_ms: u64) -> Self {
        let [slow, too_slow] = [slow_ms, too_slow_ms].map(Duration::from_millis);
        Self { name: name.to_owned(), importance, slow, too_slow }
    }

    /// What its latency means, or why it could not be reached.
    pub fn judge(&self, outcome: Result<Duration, String>) -> Check {
        let own = match &outcome {
            Err(_) => Status::Unhealthy,
            Ok(latency) => graded(latency, &self.slow, &self.too_slow),
        };
        let status = match self.importance {
            Importance::Essential => own,
            Importance::Helpful => own.min(Status::Degraded),
        };
        Check { name: self.name.clone(), status, reading: Reading::Dependency(outcome) }
    }
}

fn graded<T: PartialOrd>(value: &T, degraded: &T, unhealthy: &T) -> Status {
    if value > unhealthy {
        Status::Unhealthy
    } else if value > degraded {
        Status::Degraded
    } else {
        Status::Healthy
    }
}

/// Memory and processor, in percent of what the replica may have.
#[derive(Clone, Copy, Debug)]
pub struct Vitals {
    pub memory_percent: u8,
    pub cpu_percent: u8,
}

impl Vitals {
    /// The thresholds of the reference system: memory 85 and 95 %, processor 80 and 95 %.
    pub fn judge(self) -> [Check; 2] {
        [("memory", self.memory_percent, 85), ("cpu", self.cpu_percent, 80)].map(
            |(name, percent, degraded)| Check {
                name: name.to_owned(),
                status: graded(&percent, &degraded, &95),
                reading: Reading::Percent(percent),
            },
        )
    }
}

/// One line of `/health`.
#[derive(Clone, Debug)]
pub struct Check {
    pub name: String,
    pub status: Status,
    reading: Reading,
}

#[derive(Clone, Debug)]
enum Reading {
    /// Its latency, or why it could not be reached.
    Dependency(Result<Duration, String>),
    Percent(u8),
}

impl Check {
    /// Whether `/ready` must refuse: an unreachable dependency, or memory all but gone. A slow
    /// dependency is a matter of health, not of readiness.
    pub(crate) fn forbids_traffic(&self) -> bool {
        match &self.reading {
            Reading::Dependency(outcome) => outcome.is_err(),
            Reading::Percent(percent) => self.name == "memory" && *percent >= NOT_READY,
        }
    }

    pub(crate) fn reason(&self) -> String {
        let name = &self.name;
        match &self.reading {
            Reading::Dependency(Err(why)) => format!("{name}: {why}"),
            Reading::Dependency(Ok(latency)) => format!("{name}: answers after {} ms", latency.as_millis()),
            Reading::Percent(percent) => format!("{name}: {percent} % in use"),
        }
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        let status = self.status.as_str();
        match &self.reading {
            Reading::Dependency(Ok(latency)) => {
                json!({"status": status, "latency_ms": latency.as_secs_f64() * 1e3})
            }
            Reading::Dependency(Err(why)) => json!({"status": status, "error": why}),
            Reading::Percent(percent) => json!({"status": status, "percent": percent}),
        }
    }
}

/// A replica is as well as the worst of its checks.
pub(crate) fn overall(checks: &[Check]) -> Status {
    checks.iter().map(|check| check.status).max().unwrap_or(Status::Healthy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_belong_to_the_better_side() {
        for (dependency, latency, status) in [
            (Dependency::database(), 100, Status::Healthy),
            (Dependency::database(), 101, Status::Degraded),
            (Dependency::database(), 500, Status::Degraded),
            (Dependency::database(), 501, Status::Unhealthy),
            (Dependency::redis(), 50, Status::Healthy),
            (Dependency::redis(), 51, Status::Degraded),
            (Dependency::redis(), 201, Status::Degraded), // helpful, not essential
        ] {
            let check = dependency.judge(Ok(Duration::from_millis(latency)));
            assert_eq!(check.status, status, "{} {latency}", dependency.name);
        }
        for (memory_percent, cpu_percent, status) in [
            (85, 80, Status::Healthy),
            (86, 80, Status::Degraded),
            (85, 81, Status::Degraded),
            (85, 96, Status::Unhealthy),
        ] {
            assert_eq!(overall(&Vitals { memory_percent, cpu_percent }.judge()), status);
        }
    }
}
