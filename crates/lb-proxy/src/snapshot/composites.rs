//! Services made of others, compiled.

use std::sync::Arc;

use lb_config::Kind;
use lb_config::dynamic::{self, CompositeKind, ServiceRef, WeightedChild};
use lb_core::balance::{ChildSpec, Children, Spread};
use lb_core::sticky;
use lb_observe::metrics;

use super::build::Builder;
use super::{Route, Service, Target};
use crate::composite::{self, Chained, Child, Composite, Failover, Mirroring, Node};
use crate::middleware::Middleware;
use crate::report::Report;
use crate::tls::Proof;

/// Services inside each other at most, and ways from one down to load balancers; chosen, nobody needs as many, and what
/// runs for each request is bounded by them.
const DEEPEST: usize = 32;
const MOST_WAYS: usize = 10_000;

impl Builder<'_> {
    /// The service of this name, for the router that leads there; its middlewares are in the router's chain.
    pub(super) fn node(&mut self, user: (Kind, &str), name: &str) -> Option<Node> {
        self.node_at(user, name, 0)
    }

    /// The same for what it is part of, behind its middlewares.
    pub(super) fn part(&mut self, user: (Kind, &str), name: &str) -> Option<Node> {
        self.part_at(user, name, 0)
    }

    fn part_at(&mut self, user: (Kind, &str), name: &str, depth: usize) -> Option<Node> {
        if self.config.middlewares_of(name).is_empty() {
            return self.node_at(user, name, depth);
        }
        if let Some(built) = self.chained.get(name) {
            return Some(built.clone());
        }
        if self.chaining.len() > DEEPEST || self.chaining.iter().any(|above| above == name) {
            // Only where others' files are part of it: otherwise the file was refused.
            self.fail(
                Kind::Service,
                name,
                "the service contains itself, or too many others, by its middlewares",
            );
            return None;
        }
        self.chaining.push(name.to_owned());
        let built = self.node_at(user, name, depth).and_then(|node| self.behind_middlewares(name, node));
        self.chaining.pop();
        let built = built?;
        self.chained.insert(name.to_owned(), built.clone());
        Some(built)
    }

    fn behind_middlewares(&mut self, name: &str, node: Node) -> Option<Node> {
        let shared = self.service_chain(name)?;
        let mut middlewares = Vec::with_capacity(shared.names.len());
        for (middleware, kept) in shared.names.iter().zip(&shared.middlewares) {
            middlewares.push(self.middleware((Kind::Service, name), middleware, Some(kept))?);
        }
        let pages = middlewares.iter().map(|middleware| match middleware {
            Middleware::Errors(errors) => 1 + errors.pages.height(),
            _ => 0,
        });
        let height = pages.fold(node.height(), usize::max);
        if height > DEEPEST {
            self.fail(Kind::Service, name, format!("more than {DEEPEST} services inside each other"));
            return None;
        }
        let label = self.fixed.metrics.label(metrics::Kind::Service, name);
        let route = Route {
            name: name.into(),
            label,
            service: label,
            middlewares: middlewares.into(),
            target: Target::Within(node.clone()),
            tls_options: None,
            proof: Proof::Nothing,
            access_log: true,
            metrics: true,
            tracing: None,
            shown: None,
            names: shared.names.clone(),
        };
        Some(Node::Chained(Arc::new(Chained { route, node, height })))
    }

    fn node_at(&mut self, user: (Kind, &str), name: &str, depth: usize) -> Option<Node> {
        let Some(config) = self.config.composites.get(name) else {
            return self.service(user, name).map(Node::Service);
        };
        if let Some(built) = self.composites.get(name) {
            return Some(Node::Composite(Arc::clone(built)));
        }
        if depth > DEEPEST {
            self.fail(Kind::Service, name, format!("more than {DEEPEST} services inside each other"));
            return None;
        }
        let built = Arc::new(self.composite(name, config, depth)?);
        self.composites.insert(name.to_owned(), Arc::clone(&built));
        Some(Node::Composite(built))
    }

    fn composite(&mut self, name: &str, config: &dynamic::Composite, depth: usize) -> Option<Composite> {
        let mut child = |service: &ServiceRef, probed: bool| {
            let node = self.part_at((Kind::Service, name), &service.name, depth + 1)?;
            if probed && !self.is_probed(&service.name) {
                // Only where it comes from elsewhere, or from before: otherwise the file was refused.
                self.fail(Kind::Service, name, format!("the service {:?} has no health check", service.name));
                return None;
            }
            Some(node)
        };
        let health_check = config.health_check;
        let (services, how, sticky) = match &config.kind {
            CompositeKind::Weighted { services, sticky } => (services, Spread::Turns, sticky.clone()),
            CompositeKind::HighestRandomWeight { services } => (services, Spread::Hash, None),
            CompositeKind::Failover { service, fallback, errors } => {
                let main = child(service, health_check || errors.is_none())?;
                let fallback = child(fallback, health_check)?;
                let nodes = [main.clone(), fallback.clone()];
                let (main_probed, errors) = (self.is_probed(&service.name), errors.clone());
                let failover = Failover { main, main_probed, fallback, errors };
                return self.whole(name, config, composite::Kind::Failover(failover), &nodes);
            }
            CompositeKind::Mirroring(dynamic::Mirroring { service, mirrors, mirror_body, max_body_size }) => {
                let main = child(service, false)?;
                let mirrors: Option<Box<[(Node, u8)]>> = mirrors
                    .iter()
                    .map(|mirror| Some((child(&mirror.service, false)?, mirror.percent)))
                    .collect();
                let mirrors = mirrors?;
                let nodes: Vec<Node> = mirrors.iter().map(|(node, _)| node).chain([&main]).cloned().collect();
                let before = self.previous.and_then(|snapshot| snapshot.composites.get(name));
                let requests = before.and_then(|composite| match &composite.kind {
                    composite::Kind::Mirroring(mirroring) => Some(mirroring.requests.clone()),
                    composite::Kind::Spread { .. } | composite::Kind::Failover(_) => None,
                });
                let (body, most, requests) = (*mirror_body, *max_body_size, requests.unwrap_or_default());
                let mirroring = Mirroring { main, mirrors, body, most, requests };
                return self.whole(name, config, composite::Kind::Mirroring(mirroring), &nodes);
            }
        };
        let children: Option<Box<[Child]>> = services
            .iter()
            .map(|WeightedChild { service, weight }| {
                let node = child(service, health_check)?;
                Some(Child { node, weight: *weight, cookie: sticky::cookie_value(&service.written) })
            })
            .collect();
        let children = children?;
        let specs: Vec<_> = services
            .iter()
            .map(|child| ChildSpec { name: child.service.written.clone(), weight: child.weight })
            .collect();
        let before = self.previous.and_then(|snapshot| snapshot.composites.get(name));
        let before = before.and_then(|composite| match &composite.kind {
            composite::Kind::Spread { choice, .. } => Some(choice),
            composite::Kind::Failover(_) | composite::Kind::Mirroring(_) => None,
        });
        let choice = Children::new(how, &specs, before);
        let nodes: Vec<Node> = children.iter().map(|child| child.node.clone()).collect();
        self.whole(name, config, composite::Kind::Spread { children, choice, sticky }, &nodes)
    }

    /// A composite, when the load balancers below are known.
    fn whole(
        &mut self,
        name: &str,
        config: &dynamic::Composite,
        kind: composite::Kind,
        nodes: &[Node],
    ) -> Option<Composite> {
        let label = self.fixed.metrics.label(metrics::Kind::Service, name);
        let mut ways = 0_usize;
        let mut keeps = kind.keeps();
        let mut leaves: Vec<Arc<Service>> = Vec::new();
        let mut add = |service: &Arc<Service>| {
            if !leaves.iter().any(|known| Arc::ptr_eq(known, service)) {
                leaves.push(Arc::clone(service));
            }
        };
        for node in nodes {
            match node.behind_middlewares() {
                Node::Composite(inner) => {
                    ways = ways.saturating_add(inner.ways);
                    keeps = keeps.or(inner.keeps);
                    inner.leaves.iter().for_each(|(service, _)| add(service));
                }
                Node::Service(service) => {
                    ways += 1;
                    add(service);
                }
                Node::Chained(_) => {}
            }
        }
        // Where others have built what is here, nobody has counted it from this one on.
        let height = 1 + nodes.iter().map(Node::height).max().unwrap_or(0);
        if height > DEEPEST {
            self.fail(Kind::Service, name, format!("more than {DEEPEST} services inside each other"));
            return None;
        }
        if ways > MOST_WAYS {
            self.fail(Kind::Service, name, format!("leads to load balancers in more than {MOST_WAYS} ways"));
            return None;
        }
        let retry_after = leaves.iter().map(|service| service.retry_after).min().unwrap_or(1);
        let leaves = leaves.into_iter().map(|service| {
            let via = self.fixed.metrics.via(label, service.label);
            (service, via)
        });
        Some(Composite {
            label,
            kind,
            health_check: config.health_check,
            leaves: leaves.collect(),
            height,
            ways,
            retry_after,
            keeps,
            failed_over: Report::default(),
        })
    }

    fn is_probed(&self, name: &str) -> bool {
        self.config.is_probed(name).unwrap_or(false)
    }
}
