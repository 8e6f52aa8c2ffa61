//! The end of an answer whose server a reload has removed, in the words of what it carries.

use std::future::poll_fn;
use std::time::Duration;

use lb_http1::Head;

use super::downstream::Downstream;
use super::record::Outcome;
use crate::exchange::Exchange;

/// gRPC's UNAVAILABLE: clients try again.
const UNAVAILABLE: &str = "14";

/// How long the client may take to read the last of it. Chosen.
const PATIENCE: Duration = Duration::from_secs(2);

/// Ends an answer between two pieces of its body. A stream of events may end at any time and is asked for anew;
/// gRPC has trailers to say so. Of everything else the client must see that something is missing. Returns whether
/// the connection may go on.
pub(super) async fn end<D: Downstream>(x: &Exchange, down: &mut D, outcome: &mut Outcome<'_>) -> bool {
    let kind = x.response.get("content-type").unwrap_or_default();
    let finished = if kind.starts_with(b"text/event-stream") {
        down.finish(None).is_ok()
    } else if kind.starts_with(b"application/grpc") && !kind.starts_with(b"application/grpc-web") {
        let mut trailers = Head::new();
        trailers.append("Grpc-Status", UNAVAILABLE.as_bytes());
        trailers.append("Grpc-Message", b"the server was removed");
        outcome.note_grpc(x, Some(&trailers));
        down.finish(Some(&trailers)).is_ok()
    } else {
        false
    };
    if finished {
        let flushed = tokio::time::timeout(PATIENCE, poll_fn(|cx| down.poll_flush(cx))).await;
        if matches!(flushed, Ok(Ok(()))) {
            return true;
        }
    }
    down.abort();
    false
}
