//! The dynamic configuration: from trees to the checked [`Config`](crate::Config).
//!
//! Every object is read on its own; one that cannot work is left out and remembered as broken. What
//! refers to what is checked afterwards, when the names of all files are known.

mod composites;
mod health;
mod layers;
mod limits;
mod outliers;
mod references;
mod routers;
mod services;
mod sticky;
mod tcp;
mod tls;
mod transports;
mod udp;

use std::collections::{BTreeMap, HashMap, hash_map};

pub(crate) use references::{Reference, Removed, check as check_references};
pub(crate) use routers::{observability, router_tls};
pub(crate) use tcp::default_transport as default_tcp_transport;
pub(crate) use tls::{tls_max_version, tls_min_version};
pub(crate) use transports::{forwarding_timeouts, max_idle_conns};

use crate::decode::{Block, Field, Report};
use crate::document::{Entry, Files, Node, Position};
use crate::dynamic::Config;
use crate::load::Context;
use crate::middlewares;
use crate::problem::{Kind, quoted};

/// What is collected while the files of one load are read.
pub(crate) struct Draft<'a> {
    pub(crate) report: &'a Report<'a>,
    pub(crate) files: &'a Files,
    pub(crate) context: &'a Context,
    pub(crate) provider: &'a str,
    pub(crate) config: Config,
    /// Where each object was first defined, broken ones included.
    pub(crate) defined: BTreeMap<Kind, HashMap<String, Position>>,
    pub(crate) references: Vec<Reference<'a>>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(
        report: &'a Report<'a>,
        files: &'a Files,
        context: &'a Context,
        provider: &'a str,
    ) -> Self {
        let (config, defined, references) = (Config::default(), BTreeMap::new(), Vec::new());
        Self { report, files, context, provider, config, defined, references }
    }

    /// Adds what one file says.
    pub(crate) fn read(&mut self, root: &'a Node) {
        let Some(root) = Block::root(self.report, root) else { return };
        if let Some(http) = root.take("http").and_then(|field| field.block()) {
            self.read_http(&http);
            http.finish();
        }
        if let Some(tls) = root.take("tls").and_then(|field| field.block()) {
            self.read_tls(&tls);
            tls.finish();
        }
        if let Some(tcp) = root.take("tcp").and_then(|field| field.block()) {
            self.read_tcp(&tcp);
            tcp.finish();
        }
        if let Some(udp) = root.take("udp").and_then(|field| field.block()) {
            self.read_udp(&udp);
            udp.finish();
        }
        root.finish_root();
    }

    fn read_http(&mut self, http: &Block<'a>) {
        self.objects(http, "routers", Kind::Router, Self::router, |config| &mut config.routers);
        self.objects(http, "services", Kind::Service, Self::service, |config| &mut config.services);
        self.objects(http, "middlewares", Kind::Middleware, middlewares::read, |config| {
            &mut config.middlewares
        });
        self.objects(
            http,
            "serversTransports",
            Kind::ServersTransport,
            |_, _, field| transports::servers_transport(field),
            |config| &mut config.servers_transports,
        );
        http.without_effect(&["models"], "only the static configuration makes models, of entry points");
    }

    /// Reads the named objects under `key` that are new, each on its own, into their place.
    fn objects<T>(
        &mut self,
        block: &Block<'a>,
        key: &'static str,
        kind: Kind,
        read: impl Fn(&mut Self, &str, &Field<'a>) -> Option<T>,
        place: impl Fn(&mut Config) -> &mut BTreeMap<String, T>,
    ) {
        let Some(field) = block.take(key) else { return };
        let named = field.objects();
        self.defined.entry(kind).or_default().reserve(named.len());
        for (entry, field) in named {
            let Some(name) = self.own_name(entry, kind, &field) else { continue };
            if !self.is_first(kind, &name, entry, &field) {
                continue;
            }
            if let Some(object) = self.object(kind, &name, |draft| read(draft, &name, &field)) {
                place(&mut self.config).insert(name, object);
            }
        }
    }

    fn own_name(&self, entry: &Entry, kind: Kind, field: &Field<'_>) -> Option<String> {
        let key: &str = &entry.key;
        if key.is_empty() || key.contains('@') {
            let message = format!("{} cannot be the name of a {kind}", quoted(key));
            field.error_at_key(
                message,
                Some(format!("the provider is added by itself: `name@{}`", self.provider)),
            );
            return None;
        }
        let global = kind == Kind::TlsOptions && key == "default";
        Some(if global { key.to_owned() } else { format!("{key}@{}", self.provider) })
    }

    /// False, with a warning, when another file defined the same object.
    fn is_first(&mut self, kind: Kind, name: &str, entry: &Entry, field: &Field<'_>) -> bool {
        match self.defined.entry(kind).or_default().entry(name.to_owned()) {
            hash_map::Entry::Vacant(place) => {
                place.insert(entry.at);
                true
            }
            hash_map::Entry::Occupied(first) => {
                let place = format!("{}:{}", self.files.name(first.get().file), first.get().line);
                field.warn_at_key(
                    format!("the {kind} {} is already defined and this one is ignored", quoted(&entry.key)),
                    Some(format!("the first definition wins: {place}")),
                );
                false
            }
        }
    }

    /// Reads one object; `None` when it cannot be loaded.
    fn object<T>(&mut self, kind: Kind, name: &str, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let report = self.report;
        let object = report.within(kind, name, || read(self));
        object.filter(|_| !report.is_broken(kind, name))
    }

    /// `name@provider`; without a provider that of the file.
    pub(crate) fn qualify(&self, name: &str) -> String {
        if name.contains('@') { name.to_owned() } else { format!("{name}@{}", self.provider) }
    }
}
