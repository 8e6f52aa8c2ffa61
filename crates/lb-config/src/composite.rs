//! Services made of other services, checked.

use crate::dynamic::{Config, StickyCookie};

/// A service whose requests other services answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Composite {
    /// Qualified names, in order: between those of a router and this service.
    pub middlewares: Vec<String>,
    pub kind: CompositeKind,
    /// `healthCheck: {}`: it minds the health of its children, and has one itself for its parents.
    pub health_check: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum CompositeKind {
    /// Each child in turn, as often as its weight says.
    Weighted { services: Vec<WeightedChild>, sticky: Option<StickyCookie> },
    /// The same client gets the same child while that is there.
    HighestRandomWeight { services: Vec<WeightedChild> },
    /// The second one answers where the first is down, or has no good answer.
    Failover { service: ServiceRef, fallback: ServiceRef, errors: Option<FailoverErrors> },
    /// One answers, others get copies.
    Mirroring(Mirroring),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirroring {
    pub service: ServiceRef,
    pub mirrors: Vec<Mirror>,
    /// Copies have the body.
    pub mirror_body: bool,
    /// Requests with longer bodies have no copies; `None`: the user sets no limit.
    pub max_body_size: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    pub service: ServiceRef,
    /// Of the requests, 0 to 100.
    pub percent: u8,
}

/// Answers of the first service that count as none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailoverErrors {
    /// As ranges; never empty.
    pub status: Vec<(u16, u16)>,
    /// As written, for the API.
    pub status_text: Vec<String>,
    /// Longer bodies are refused; `None`: they are not kept, so such a request has no second service.
    pub max_request_body_bytes: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedChild {
    pub service: ServiceRef,
    /// 0 gets nothing.
    pub weight: u32,
}

/// A service as another one names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRef {
    /// Qualified.
    pub name: String,
    /// Cookie and hash are made of this.
    pub written: String,
}

impl Composite {
    /// Whether it is up while the children are that `up` says.
    pub fn is_up(&self, up: impl Fn(&str) -> bool) -> bool {
        match &self.kind {
            CompositeKind::Weighted { services, .. } | CompositeKind::HighestRandomWeight { services } => {
                services.iter().any(|child| child.weight > 0 && up(&child.service.name))
            }
            CompositeKind::Failover { service, fallback, .. } => up(&service.name) || up(&fallback.name),
            CompositeKind::Mirroring(mirroring) => up(&mirroring.service.name),
        }
    }

    /// The service whose answers clients get, of a mirroring.
    pub fn mirrored(&self) -> Option<&ServiceRef> {
        match &self.kind {
            CompositeKind::Mirroring(mirroring) => Some(&mirroring.service),
            _ => None,
        }
    }

    /// Every service that it names, in the order of the file.
    pub fn children(&self) -> impl Iterator<Item = &ServiceRef> {
        let (weighted, pair, mirrors) = match &self.kind {
            CompositeKind::Weighted { services, .. } | CompositeKind::HighestRandomWeight { services } => {
                (&services[..], [None, None], &[][..])
            }
            CompositeKind::Failover { service, fallback, .. } => {
                (&[][..], [Some(service), Some(fallback)], &[][..])
            }
            CompositeKind::Mirroring(Mirroring { service, mirrors, .. }) => {
                (&[][..], [Some(service), None], &mirrors[..])
            }
        };
        let weighted = weighted.iter().map(|child| &child.service);
        weighted.chain(pair.into_iter().flatten()).chain(mirrors.iter().map(|mirror| &mirror.service))
    }
}

impl Config {
    /// Whether a service says how it is, to those that it is part of; `None` where that is not known. A mirroring says
    /// what the service says whose answers clients get.
    pub fn is_probed(&self, service: &str) -> Option<bool> {
        let mut service = service;
        // A circle is told elsewhere.
        for _ in 0..=self.composites.len() {
            if let Some(balancer) = self.services.get(service) {
                return Some(balancer.health_check.is_some());
            }
            let composite = self.composites.get(service)?;
            match composite.mirrored() {
                Some(mirrored) if composite.health_check => service = &mirrored.name,
                _ => return Some(composite.health_check),
            }
        }
        None
    }
}
