//! Requests for Vigie's own services.

use std::future::poll_fn;

use lb_core::encoding::{Encoding, Offer};
use lb_http1::Head;

use super::body::Fill;
use super::downstream::Downstream;
use super::local::Local;
use super::normalise::split_target;
use crate::exchange::Exchange;
use crate::passage::Passage;
use crate::snapshot::Internal;
use crate::upstream::failure::{self, Cause, Failure};
use crate::worker::InternalRequest;

/// What such a request may carry; chosen, an order of an operator has less than 1 KiB.
const MAX_BODY: usize = 16 * 1024;

pub(super) async fn respond<D: Downstream>(p: &mut Passage<'_, '_, D>, service: Internal) -> Local {
    let Passage { worker, x, down, framing, patience, .. } = p;
    let mut body = Vec::new();
    // Everything else has no use for one.
    if framing.has_body() && matches!(service, Internal::Api | Internal::ApiByToken) {
        let read = read(x, &mut **down, &mut body);
        let read = match patience.read_by {
            Some(by) => tokio::time::timeout_at(by, read).await.unwrap_or(Err(Cause::ClientTimeout)),
            None => read.await,
        };
        match read {
            Ok(true) => {}
            Ok(false) => return Local::plain(413, "Request Entity Too Large"),
            Err(cause) => return Local::status_text(Failure::unsent(cause).status()),
        }
    }
    let (path, query) = split_target(x.head.target());
    let gzip = Offer { encodings: vec![Encoding::Gzip], default: None };
    let mut credentials = x.head.get_all("authorization");
    let request = InternalRequest {
        service,
        method: x.head.method().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        forwarded_prefix: x.head.get_str("x-forwarded-prefix").map(str::to_owned),
        // Of two, nobody could say which one counts.
        authorization: match (credentials.next(), credentials.next()) {
            (Some(one), None) => Some(one.to_vec()),
            _ => None,
        },
        gzip: gzip.choose(x.head.get_all("accept-encoding")).is_some(),
        client: x.peer.ip,
        body,
    };
    let response = worker.internals.respond(request).await;
    let mut local = Local::bare(response.status).body(response.body);
    for (name, value) in response.headers {
        local = local.with(name, value);
    }
    local
}

/// False when there is more of it than we read.
async fn read<D: Downstream>(x: &Exchange, down: &mut D, body: &mut Vec<u8>) -> Result<bool, Cause> {
    if lb_http1::expects_continue(&x.head) {
        let mut head = Head::new();
        head.set_status(100);
        let _ = down.inform(&head);
    }
    poll_fn(|cx| {
        loop {
            let fill =
                std::task::ready!(down.poll_fill(cx)).map_err(|error| failure::client_body(&error).cause);
            if fill? == Fill::End {
                return std::task::Poll::Ready(Ok(true));
            }
            let count = down.data().len();
            if count > MAX_BODY - body.len() {
                return std::task::Poll::Ready(Ok(false));
            }
            body.extend_from_slice(down.data());
            down.consume(count);
        }
    })
    .await
}
