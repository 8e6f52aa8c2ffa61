//! `tcp`: routers, middlewares and servers transports.

mod services;
mod transports;

use std::sync::Arc;

use lb_core::route::Syntax;
use lb_core::route::tcp::Rule;

use super::Draft;
use super::routers::{MAX_PRIORITY, TlsFields, router_tls_of};
use crate::decode::{Block, Enabled, Field};
use crate::dynamic;
use crate::net::networks;
use crate::problem::Kind;
use crate::tcp::{Middleware, Router, RouterTls};

pub(crate) use transports::default_transport;

impl<'a> Draft<'a> {
    pub(super) fn read_tcp(&mut self, tcp: &Block<'a>) {
        self.objects(tcp, "routers", Kind::TcpRouter, Self::tcp_router, |config| &mut config.tcp.routers);
        self.objects(tcp, "services", Kind::TcpService, Self::tcp_service, |config| &mut config.tcp.services);
        self.objects(
            tcp,
            "middlewares",
            Kind::TcpMiddleware,
            |_, _, field| middleware(field),
            |config| &mut config.tcp.middlewares,
        );
        self.objects(
            tcp,
            "serversTransports",
            Kind::TcpServersTransport,
            |_, _, field| transports::servers_transport(field),
            |config| &mut config.tcp.servers_transports,
        );
    }

    fn tcp_router(&mut self, name: &str, field: &Field<'a>) -> Option<Router> {
        let block = field.object()?;
        let rule_field = block.require("rule", "write a rule such as ``HostSNI(`*`)``");
        let (rule_syntax, syntax) = self.syntax(&block);
        let rule = rule_field.as_ref().and_then(|field| read_rule(field, syntax));
        let service = block
            .require("service", "name the service that answers")
            .and_then(|field| self.reference(Kind::TcpRouter, name, Kind::TcpService, &field));
        let entry_points =
            block.take("entryPoints").map(|field| self.entry_points(&field)).unwrap_or_default();
        let middlewares = block
            .take("middlewares")
            .map(|field| self.references(Kind::TcpRouter, name, Kind::TcpMiddleware, &field))
            .unwrap_or_default();
        let priority = block.take("priority").and_then(|field| field.integer(i64::MIN..=MAX_PRIORITY));
        let tls = block.take("tls").and_then(|field| self.tcp_tls(name, &field));
        block.finish();
        let (rule_text, rule) = rule?;
        if let (Some(field), None, true) = (&rule_field, &tls, rule.names_host()) {
            let hint =
                "add `tls: {}`, or `tls: {passthrough: true}`; without TLS there is only ``HostSNI(`*`)``";
            let message = "the rule names a host, which only clients with TLS do".to_owned();
            let reason = format!("invalid rule: {rule_text:?} , has HostSNI matcher, but no TLS on router");
            field.report.error_because(
                field.at(),
                &field.path(),
                message,
                Some(hint.to_owned()),
                Some(reason),
            );
        }
        let priority = priority.filter(|priority| *priority != 0).unwrap_or_else(|| rule.default_priority());
        let (rule, service) = (Arc::new(rule), service?);
        Some(Router { rule, rule_text, rule_syntax, entry_points, middlewares, service, priority, tls })
    }

    fn tcp_tls(&mut self, router: &str, field: &Field<'a>) -> Option<RouterTls> {
        let plain = dynamic::RouterTls { options: "default".to_owned(), ..Default::default() };
        let block = match field.enabled() {
            Enabled::Off => return None,
            Enabled::Plain => return Some(RouterTls { passthrough: false, terminated: plain }),
            Enabled::With(block) => block,
        };
        let passthrough = block.take("passthrough").and_then(|field| field.boolean()).unwrap_or(false);
        let (tls, TlsFields { options, cert_resolver }) = router_tls_of(&block);
        block.finish();
        if let Some(options) = options.filter(|_| !passthrough && tls.options != "default") {
            self.refer(Kind::TcpRouter, router, Kind::TlsOptions, &tls.options, options);
        }
        if let Some(resolver) = cert_resolver {
            self.resolver(&resolver, &tls);
        }
        let options = if tls.options == "default" { tls.options } else { self.qualify(&tls.options) };
        Some(RouterTls { passthrough, terminated: dynamic::RouterTls { options, ..tls } })
    }
}

fn read_rule(field: &Field<'_>, syntax: Syntax) -> Option<(String, Rule)> {
    let text = field.text()?;
    match Rule::parse_as(text.value, syntax) {
        Ok(rule) => Some((text.value.to_owned(), rule)),
        Err(error) => {
            let reason = format!("error while parsing rule {}: {error}", text.value);
            let (at, path) = (text.at(error.at), field.path());
            field.report.error_because(at, &path, error.message, error.hint, Some(reason));
            None
        }
    }
}

fn middleware(field: &Field<'_>) -> Option<Middleware> {
    let block = field.object()?;
    let mut kinds = ["inFlightConn", "ipAllowList", "ipWhiteList"].map(|kind| (kind, block.take(kind)));
    let found = kinds.iter().filter(|(_, field)| field.is_some()).count();
    if found > 1 {
        let hint = "declare two middlewares and name both".to_owned();
        block.error("a middleware can be of one kind only".to_owned(), Some(hint));
    }
    if found == 0 && block.left_over().is_empty() {
        let hint = "give it an `inFlightConn` or an `ipAllowList`".to_owned();
        block.error("the middleware has no kind".to_owned(), Some(hint));
    }
    block.finish();
    let (kind, field) = kinds.iter_mut().find_map(|(kind, field)| Some((*kind, field.take()?)))?;
    if kind == "inFlightConn" {
        // As Traefik has it, it may stand there empty: then it refuses everybody.
        let block = field.object()?;
        let said = block.take("amount").map_or(Some(0), |field| field.u64(0));
        if said == Some(0) {
            let hint = "write `amount`, the most connections of a client at a time".to_owned();
            block.warn("an `amount` of 0 refuses every connection".to_owned(), Some(hint));
        }
        block.finish();
        return Some(Middleware::InFlightConn { amount: said? });
    }
    let block = field.block()?;
    let is_white_list = kind == "ipWhiteList";
    if is_white_list {
        let message = "`ipWhiteList` is the old name of `ipAllowList`".to_owned();
        block.warn(message, Some("rename it".to_owned()));
    }
    let range = block.require("sourceRange", "list the networks that may pass");
    let source_range = range.as_ref().map(networks).unwrap_or_default();
    if let Some(range) = range
        && source_range.is_empty()
        && !block.report.is_current_broken()
    {
        range.error("the list is empty".to_owned(), Some("list the networks that may pass".to_owned()));
    }
    block.finish();
    Some(Middleware::IpAllowList { source_range, is_white_list })
}

#[cfg(test)]
mod tests;
