//! What the unit tests of this crate share.

use std::time::Instant;

/// The one clock read of the crate's tests: where their time starts.
#[expect(
    clippy::disallowed_methods,
    reason = "tests need some instant to start from, and none is paused here"
)]
pub(crate) fn origin() -> Instant {
    Instant::now()
}
