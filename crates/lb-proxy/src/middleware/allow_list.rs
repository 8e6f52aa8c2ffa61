//! `ipAllowList`: only clients of some networks get through.

use ipnet::IpNet;
use lb_config::dynamic::{IpAllowList, IpStrategy};

use super::{Step, source};
use crate::exchange::Exchange;
use crate::http::local::Local;

pub(crate) struct AllowList {
    networks: Vec<IpNet>,
    strategy: IpStrategy,
    reject_status: u16,
}

impl AllowList {
    pub(crate) fn new(options: &IpAllowList) -> Self {
        Self {
            networks: options.source_range.clone(),
            strategy: options.strategy.clone(),
            reject_status: options.reject_status_code,
        }
    }

    pub(crate) fn on_request(&self, x: &Exchange) -> Step {
        let allowed = source::client_ip(x, &self.strategy)
            .is_some_and(|ip| self.networks.iter().any(|net| net.contains(&ip)));
        if allowed { Step::Next } else { Step::Respond(Local::status_text(self.reject_status)) }
    }
}
