//! What bounds a service's load: `maxConnections`, `queue`, `retryBudget`. Extensions of Vigie.

use std::num::NonZeroU32;

use crate::decode::Field;
use crate::dynamic::{Queue, RetryBudget, Server};

/// Requests in flight on one server.
pub(super) fn max_connections(field: &Field<'_>) -> Option<NonZeroU32> {
    field.u32(1).and_then(NonZeroU32::new)
}

pub(super) fn queue(field: &Field<'_>, servers: &[Server]) -> Queue {
    let Some(block) = field.block() else { return Queue::default() };
    let Queue { size, timeout } = Queue::default();
    let queue = Queue {
        size: block.take("size").and_then(|field| field.usize(0)).unwrap_or(size),
        timeout: block.take("timeout").and_then(|field| field.positive_duration()).unwrap_or(timeout),
    };
    if servers.iter().all(|server| server.max_connections.is_none()) {
        let hint = "say how many requests a server may have with `maxConnections`";
        block.warn("nothing ever waits: no server has a limit".to_owned(), Some(hint.to_owned()));
    }
    block.finish();
    queue
}

pub(super) fn retry_budget(field: &Field<'_>) -> RetryBudget {
    let Some(block) = field.block() else { return RetryBudget::default() };
    let RetryBudget { percent, min_per_second } = RetryBudget::default();
    let budget = RetryBudget {
        percent: block.take("percent").and_then(|field| field.float(0.0..=100.0)).unwrap_or(percent),
        min_per_second: block
            .take("minRetriesPerSecond")
            .and_then(|field| field.u32(0))
            .unwrap_or(min_per_second),
    };
    block.finish();
    budget
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::{load_balancer, load_balancer_problems};

    #[test]
    fn a_servers_limit_wins_over_the_balancers() {
        let service = load_balancer(
            "{maxConnections: 9, queue: {timeout: 200ms}, servers: [{url: 'http://a'}, {url: 'http://b', maxConnections: 2}]}",
        )
        .unwrap();
        let limits: Vec<_> = service.servers.iter().map(|server| server.max_connections).collect();
        assert_eq!(limits, [NonZeroU32::new(9), NonZeroU32::new(2)]);
        assert_eq!(service.queue, Queue { size: 1024, timeout: Duration::from_millis(200) });
    }

    #[test]
    fn a_budget_has_defaults_for_what_is_not_said() {
        let budget = |text: &str| {
            load_balancer(&format!("{{servers: [], retryBudget: {text}}}")).unwrap().retry_budget
        };
        assert_eq!(budget("{minRetriesPerSecond: 3}"), RetryBudget { percent: 20.0, min_per_second: 3 });
        assert_eq!(budget("{percent: 2.5}"), RetryBudget { percent: 2.5, min_per_second: 10 });
        assert_eq!(
            budget("{percent: 0, minRetriesPerSecond: 0}"),
            RetryBudget { percent: 0.0, min_per_second: 0 }
        );
    }

    #[test]
    fn what_cannot_work_is_told() {
        for (balancer, expected) in [
            ("{servers: [], maxConnections: 0}", "maxConnections: 0 is out of range"),
            (
                "{servers: [{url: 'http://a', maxConnections: many}]}",
                "servers[0].maxConnections: expected a whole number, found `many`",
            ),
            ("{servers: [], maxConnection: 3}", "maxConnection: there is no key `maxConnection` here"),
            (
                "{servers: [{url: 'http://a', maxConnections: 1}], queue: {size: -1}}",
                "queue.size: -1 is out of range",
            ),
            (
                "{servers: [{url: 'http://a', maxConnections: 1}], queue: {timeout: 0}}",
                "queue.timeout: must be longer than 0",
            ),
            (
                "{servers: [{url: 'http://a'}], queue: {size: 3}}",
                "~queue: nothing ever waits: no server has a limit",
            ),
            ("{servers: [], retryBudget: {percent: 120}}", "retryBudget.percent: `120` is out of range"),
            (
                "{servers: [], retryBudget: {minRetriesPerSecond: -1}}",
                "retryBudget.minRetriesPerSecond: -1 is out of range",
            ),
            ("{servers: [], retryBudget: 20}", "retryBudget: expected a map, found a single value"),
        ] {
            assert_eq!(load_balancer_problems(balancer), [expected], "{balancer}");
        }
    }
}
