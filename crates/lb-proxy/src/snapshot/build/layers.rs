//! Routers behind routers: what is behind one that others name as their parent (`parentRefs`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use lb_config::Kind;
use lb_config::dynamic::{Config, Router};
use lb_core::route;

use super::{Attached, Builder};
use crate::snapshot::{Children, Route};

/// Routers behind each other at most; chosen, nobody needs as many, and what runs for one request is bounded by it.
const DEEPEST: usize = 32;

#[derive(Default)]
pub(super) struct Layers<'a> {
    /// By parent.
    children: HashMap<&'a str, Vec<(&'a str, &'a Router)>>,
    /// Built already: they are the same on every entry point.
    built: HashMap<&'a str, Built>,
    /// Tried behind this root, and not built: tried again on each way that leads there, they would take ages.
    failed: HashSet<&'a str>,
    /// From a root to the router that is being built.
    path: Vec<&'a str>,
}

#[derive(Clone)]
struct Built {
    children: Arc<Children>,
    /// Routers behind each other from here on.
    height: usize,
}

impl<'a> Layers<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        let mut layers = Self::default();
        for (name, router) in &config.routers {
            for parent in &router.parents {
                layers.children.entry(parent).or_default().push((name, router));
            }
        }
        layers
    }

    pub(super) fn is_parent(&self, name: &str) -> bool {
        self.children.contains_key(name)
    }
}

impl<'a> Builder<'a> {
    /// What is behind a router that is a parent; `None` if none of it works.
    pub(super) fn children(&mut self, name: &'a str) -> Option<Arc<Children>> {
        if let Some(built) = self.layers.built.get(name) {
            return Some(Arc::clone(&built.children));
        }
        let members = self.layers.children.get(name).cloned().unwrap_or_default();
        if self.layers.path.is_empty() {
            // Which link closes a circle depends on where it is entered.
            self.layers.failed.clear();
        }
        self.layers.path.push(name);
        let (mut routes, mut height) = (Vec::with_capacity(members.len()), 1);
        for (child, router) in members {
            // The link that closes a circle is cut; whoever read the file was told.
            if self.layers.path.contains(&child) {
                continue;
            }
            if let Some(value) = self.child(child, router) {
                let (rule, rank) = (Arc::clone(&router.rule), self.rank(child));
                routes.push(route::Route { rule, priority: router.priority, rank, value });
                height = height.max(1 + self.layers.built.get(child).map_or(0, |built| built.height));
            }
        }
        self.layers.path.pop();
        if routes.is_empty() {
            self.fail(Kind::Router, name, "no router with this one as its parent works");
            return None;
        }
        // Where others have built what is here, nobody has counted it from this one on.
        if height > DEEPEST {
            self.fail(Kind::Router, name, format!("more than {DEEPEST} routers behind each other"));
            return None;
        }
        let children = Arc::new(Children::build(routes));
        self.layers.built.insert(name, Built { children: Arc::clone(&children), height });
        Some(children)
    }

    fn child(&mut self, name: &'a str, router: &'a Router) -> Option<Arc<Route>> {
        if self.layers.path.len() > DEEPEST {
            self.fail(Kind::Router, name, format!("more than {DEEPEST} routers behind each other"));
            return None;
        }
        if let Some(built) = self.routes.get(name) {
            return Some(Arc::clone(built));
        }
        if self.layers.failed.contains(name) {
            return None;
        }
        let built = self.router(None, Attached { name, router, elsewhere: false, internal: None }, None);
        match &built {
            Some(route) => _ = self.routes.insert(name.to_owned(), Arc::clone(route)),
            None => _ = self.layers.failed.insert(name),
        }
        built
    }
}
