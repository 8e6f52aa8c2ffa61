//! Middlewares of services: behind those of a router, and the same whichever router leads there.

use std::sync::Arc;

use lb_config::Kind;

use super::{Builder, qualify};
use crate::snapshot::ServiceChain;

impl Builder<'_> {
    /// The instances whose live state all routers to this service share.
    pub(in crate::snapshot) fn service_chain(&mut self, service: &str) -> Option<Arc<ServiceChain>> {
        if let Some(built) = self.service_chains.get(service) {
            return Some(Arc::clone(built));
        }
        let mut names = Vec::new();
        for middleware in self.config.middlewares_of(service) {
            if let Err(message) = self.flatten(&qualify(middleware, service), &mut names) {
                self.fail(Kind::Service, service, message);
                return None;
            }
        }
        let before = self.previous.and_then(|snapshot| snapshot.service_chains.get(service));
        let mut middlewares = Vec::with_capacity(names.len());
        for (at, name) in names.iter().enumerate() {
            let known = before.filter(|chain| chain.names.get(at) == Some(name));
            let kept = known.and_then(|chain| chain.middlewares.get(at));
            middlewares.push(self.middleware((Kind::Service, service), name, kept)?);
        }
        let built = Arc::new(ServiceChain { names, middlewares });
        self.service_chains.insert(service.to_owned(), Arc::clone(&built));
        Some(built)
    }
}
