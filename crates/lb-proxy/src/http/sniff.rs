//! `contentType`: the type of an answer that nobody has named, told by its first bytes.

use std::time::Duration;

use lb_core::sniff::media_type;
use lb_http1::{Framing, Head};

use super::buffering::Whole;
use super::downstream::Downstream;
use crate::forward::{Answer, Delivered};
use crate::passage::Passage;

/// A head waits so long for the first bytes of its body: as long as Traefik's, by the default of `flushInterval`.
const PATIENCE: Duration = Duration::from_millis(100);

/// Names the type of a server's answer. As in Traefik those in chunks stay as they are: what is streamed is passed on at
/// once. Returns whether there still is something to send, to somebody.
pub(super) async fn detect<D: Downstream>(p: &mut Passage<'_, '_, D>, answer: &mut Answer<'_>) -> bool {
    if !matches!(answer.framing, Framing::Length(1..) | Framing::UntilClose) || !lacks_type(&p.x.response) {
        return true;
    }
    match answer.first_bytes(&mut *p.down, PATIENCE).await {
        Ok(first) => {
            name(&mut p.x.response, first);
            true
        }
        Err(ended) => {
            let gone = matches!(ended, Delivered::ClientGone);
            p.outcome.status = if gone { 499 } else { p.x.response.status() };
            false
        }
    }
}

/// Names the type of an answer that was read to its end, be its length known before or not.
pub(super) async fn detect_whole<D: Downstream>(p: &mut Passage<'_, '_, D>, whole: &mut Whole) {
    // What cannot be read is told when it is sent.
    if p.x.detect_type
        && lacks_type(&p.x.response)
        && let Ok(first) = whole.first_bytes().await
    {
        name(&mut p.x.response, first);
    }
}

/// Names the type of an answer whose body begins like this.
pub(super) fn name(head: &mut Head, first: &[u8]) {
    if !first.is_empty() && lacks_type(head) {
        head.append("Content-Type", media_type(first).as_bytes());
    }
}

/// Whether there is none where there should be one. What is encoded does not show its type.
fn lacks_type(head: &Head) -> bool {
    let has_body = head.status() >= 200 && !matches!(head.status(), 204 | 304);
    let encoded = head.get("content-encoding").is_some_and(|coding| !coding.is_empty());
    has_body && !encoded && !head.contains("content-type")
}
