//! What hosts are aliases of: lb-acme's questions to name servers for the data plane.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use lb_config::static_config::HostResolver;
use lb_proxy::{Alias, Aliases};

struct NameServers(lb_acme::Aliases);

pub(crate) fn source(resolver: &HostResolver) -> Arc<dyn Aliases> {
    let HostResolver { resolv_config, depth } = resolver.clone();
    Arc::new(NameServers(lb_acme::Aliases::new(resolv_config, depth)))
}

impl Aliases for NameServers {
    fn follow(&self, host: &str) -> Pin<Box<dyn Future<Output = Result<Alias, String>> + Send>> {
        let (servers, host) = (self.0.clone(), host.to_owned());
        Box::pin(async move { servers.follow(&host).await.map_err(|error| error.to_string()) })
    }
}
