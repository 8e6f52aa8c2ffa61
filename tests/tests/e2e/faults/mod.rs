//! Against failing parts: whatever breaks behind the proxy, no request is lost that could have been kept.

mod dependencies;
mod disk;
mod limits;
mod outliers;
mod panic_mode;
mod refusals;
pub(crate) mod replicas;
mod retries;
mod scenarios;
mod shared_limit;
mod slow_start;
mod tls_servers;
mod vanished;
mod virtual_address;

use std::collections::BTreeMap;

use lb_testkit::Origin;

use crate::harness::{Protocol, STATIC, Vigie};

fn urls(origins: &[Origin]) -> Vec<String> {
    origins.iter().map(Origin::url).collect()
}

/// Vigie as an operator runs it who wants to know what happens to servers.
async fn vigie(dynamic: &str) -> Vigie {
    Vigie::with(&format!("{STATIC}log: {{level: INFO}}\n"), dynamic).await
}

async fn origins<const N: usize>() -> [Origin; N] {
    let mut started = Vec::new();
    for n in 1..=N {
        started.push(Origin::start(&format!("api-{n}")).await);
    }
    started.try_into().unwrap_or_else(|_| unreachable!("as many as were started"))
}

/// Who answered so many requests, or with which status if it was not 200.
async fn shares(vigie: &Vigie, protocol: Protocol, count: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..count {
        let response = protocol.get(vigie.web(), "/").await;
        let who = match response.status {
            200 => crate::harness::origin(&response),
            status => status.to_string(),
        };
        *shares.entry(who).or_default() += 1;
    }
    shares
}

fn of(shares: &[(&str, usize)]) -> BTreeMap<String, usize> {
    shares.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
}
