//! Requests that HTTP/2 servers refuse unread, when no other server is left: they are sent to the same one again
//! (RFC 9113 section 8.7).

use std::time::Duration;

use crate::worker::Worker;

/// How often. As Go's client has it.
const MOST: u32 = 6;
/// Before the third time; at first there is none, and later ones are twice as long each: 150 ms in all. Chosen: a server
/// that has just too many requests may take one a moment later, and a fallback should not wait long.
const PAUSE: Duration = Duration::from_millis(10);

/// Waits as long as it takes before a request is sent again that was refused so often before; false when that is enough.
pub(crate) async fn pause(worker: &Worker, refusals: &mut u32) -> bool {
    *refusals += 1;
    if *refusals > 2 && *refusals <= MOST {
        let pause = PAUSE * (1 << (*refusals - 3));
        // Spread by half, as those that were refused together would come together.
        let random = worker.random() as f64 / u64::MAX as f64;
        // Boxed: rare, and others need not make room for it.
        Box::pin(tokio::time::sleep(pause.mul_f64(0.5 + random))).await;
    }
    *refusals <= MOST
}
