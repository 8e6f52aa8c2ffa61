//! File descriptors: clients may not take the last ones, which connections to servers, health checks and
//! files need.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use rustix::process::{Resource, getrlimit};

/// Kept from clients: an eighth of what the system allows, and at least so many. Chosen.
const RESERVE_SHARE: u64 = 8;
const LEAST_RESERVE: u64 = 32;

/// How many descriptors clients may take. The system always gives the lowest number that is free (POSIX), so the
/// number of the newest says how many are in use, without a count or a system call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    below: RawFd,
}

impl Allowance {
    pub(crate) fn of_process() -> Self {
        Self::of(getrlimit(Resource::Nofile).current)
    }

    /// `None` is no limit.
    fn of(limit: Option<u64>) -> Self {
        let below = limit.map(|limit| limit - (limit / RESERVE_SHARE).max(LEAST_RESERVE).min(limit / 2));
        Self { below: below.and_then(|below| RawFd::try_from(below).ok()).unwrap_or(RawFd::MAX) }
    }

    /// Whether this one, just opened, was the last that a client may have.
    pub(crate) fn ends_with(self, newest: &impl AsRawFd) -> bool {
        newest.as_raw_fd() >= self.below
    }

    /// Whether there is still none left.
    pub(crate) fn is_spent(self) -> bool {
        std::fs::File::open("/dev/null").map_or(true, |file| self.ends_with(&file))
    }
}

/// Whether an error says that the system has nothing left for us: our trouble, not the other side's.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = 105;
    matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE | ENOBUFS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_descriptors_are_kept_from_clients() {
        for (limit, below) in [
            (Some(20_000), 17_500),
            (Some(200), 168),
            (Some(40), 20),
            (Some(u64::MAX), RawFd::MAX),
            (None, RawFd::MAX),
        ] {
            assert_eq!(Allowance::of(limit).below, below, "{limit:?}");
        }
    }
}
