//! What listens where: the first thing to look at when something cannot be reached.

use lb_config::StaticConfig;
use lb_proxy::Proxy;

use crate::print::complain;

/// Tells it on standard error.
pub(crate) fn report(proxy: &Proxy, config: &StaticConfig, workers: usize) {
    let plural = if workers == 1 { "" } else { "s" };
    let mut text =
        format!("vigie {} with {workers} worker{plural}, configured by {}", crate::VERSION, config.file);
    for (name, address) in proxy.addresses() {
        let scope = match address.ip() {
            ip if ip.is_loopback() => "this machine only",
            ip if ip.is_unspecified() => "every address of this machine",
            _ => "this address only",
        };
        text.push_str(&format!("\n  {name:<12} {address}  ({scope})"));
        if config.udp_entry_points.iter().any(|entry| entry.name == name) {
            text.push_str("  UDP");
        }
        if config.entry_points.iter().any(|entry| entry.name == name && entry.http3.is_some()) {
            text.push_str("  HTTP/3");
        }
        if config.ping.as_ref().is_some_and(|ping| ping.entry_point == name) {
            text.push_str("  /ping /live /ready /health");
        }
        if config.metrics.as_ref().is_some_and(|metrics| metrics.entry_point == name) {
            text.push_str("  /metrics");
        }
        match config.api.as_ref().filter(|_| name == "traefik") {
            Some(api) if api.insecure => text.push_str("  /api /dashboard/"),
            Some(api) if api.token.is_some() => text.push_str("  /api (by token)"),
            _ => {}
        }
    }
    complain(&text);
}
