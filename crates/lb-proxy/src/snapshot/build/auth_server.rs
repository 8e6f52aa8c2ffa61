//! The servers that `forwardAuth` middlewares ask.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use lb_config::Kind;
use lb_config::dynamic::ForwardAuth;
use lb_core::balance::{MemberSpec, Service as LiveService, Settings};
use lb_observe::metrics::{self, LabelId};

use super::{Builder, NEXT_ENDPOINT};
use crate::snapshot::AuthServer;
use crate::tls::client_config;
use crate::upstream::{Endpoint, Transport};

impl AuthServer {
    /// Connections and TLS sessions of `before` live on where it is reached the same way.
    pub(crate) fn new(auth: &ForwardAuth, label: LabelId, before: Option<&Self>, now: Instant) -> Self {
        let settings = &auth.transport;
        let same =
            before.map(|before| &before.endpoint.transport).filter(|known| known.settings == *settings);
        let transport = same.map(Arc::clone).unwrap_or_else(|| {
            let compile = |h2| client_config(settings, h2).map_err(|error| error.to_string());
            Arc::new(Transport {
                settings: settings.clone(),
                tls_http1: compile(false),
                tls_any: compile(true),
            })
        });
        let same = before.map(|before| &before.endpoint).filter(|e| e.is_same(&auth.server, &transport));
        let endpoint = same.map(Arc::clone).unwrap_or_else(|| {
            let id = NEXT_ENDPOINT.fetch_add(1, Ordering::Relaxed);
            Arc::new(Endpoint::new(id, &auth.server, label, ("".into(), label), transport))
        });
        let member = MemberSpec { url: auth.server.url.clone(), weight: 1 };
        // Nothing about it is ever judged, so nothing of it has to live on.
        let live = LiveService::new("", Settings::default(), &[member], None, now);
        Self { endpoint, live }
    }
}

impl Builder<'_> {
    /// The server of the middleware called `name`; all routers share it.
    pub(super) fn auth_server(&mut self, name: &str, auth: &ForwardAuth) -> Option<Arc<AuthServer>> {
        if let Some(server) = self.auth_servers.get(name) {
            return Some(Arc::clone(server));
        }
        let before = self.previous.and_then(|snapshot| snapshot.auth_servers.get(name));
        let label = self.fixed.metrics.label(metrics::Kind::Middleware, name);
        let server = Arc::new(AuthServer::new(auth, label, before.map(|server| &**server), self.now));
        if let Err(error) = &server.endpoint.transport.tls_any {
            let message = error.clone();
            self.fail(Kind::Middleware, name, message);
            return None;
        }
        self.endpoints.insert(server.endpoint.id);
        self.auth_servers.insert(name.to_owned(), Arc::clone(&server));
        Some(server)
    }
}
