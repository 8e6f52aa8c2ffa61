//! `http.services`: those that only combine others.

use super::services::weight;
use super::{Draft, sticky};
use crate::composite::{Composite, CompositeKind, ServiceRef, WeightedChild};
use crate::decode::{Block, Enabled, Field};
use crate::problem::{Kind, quoted};

/// The kinds, as they are written.
pub(super) const COMPOSITES: [&str; 2] = ["weighted", "highestRandomWeight"];

impl<'a> Draft<'a> {
    /// Reads the block of one of [`COMPOSITES`] of the service `name`.
    pub(super) fn composite(&mut self, name: &str, kind: &str, block: &Block<'a>) -> Option<Composite> {
        let health_check = block.take("healthCheck").is_some_and(|field| switch(&field));
        let kind = match kind {
            "weighted" => {
                let services = self.weighted_children(name, block, health_check);
                let sticky = block.take("sticky").and_then(|field| sticky::read(&field, name));
                CompositeKind::Weighted { services, sticky }
            }
            _ => CompositeKind::HighestRandomWeight {
                services: self.weighted_children(name, block, health_check),
            },
        };
        Some(Composite { kind, health_check })
    }

    fn weighted_children(&mut self, name: &str, block: &Block<'a>, probed: bool) -> Vec<WeightedChild> {
        let mut children = Vec::new();
        for field in block.take("services").map(|field| field.list()).unwrap_or_default() {
            let Some(child) = field.object() else { continue };
            let service = self.child(name, &child, "name", probed);
            let weight = child.take("weight").map_or(Some(1), |field| weight(&field));
            children.extend(service.zip(weight).map(|(service, weight)| WeightedChild { service, weight }));
            child.finish();
        }
        children
    }

    /// The service that `key` names; `probed`: it must have a health check.
    fn child(
        &mut self,
        name: &str,
        block: &Block<'a>,
        key: &'static str,
        probed: bool,
    ) -> Option<ServiceRef> {
        let field = block.require(key, "write the name of a service")?;
        let written = field.string()?;
        if written.ends_with("@internal") {
            field.error(
                format!("{} cannot be part of another service", quoted(&written)),
                Some("lead a router to it".to_owned()),
            );
            return None;
        }
        let service = self.reference(Kind::Service, name, Kind::Service, &field)?;
        if probed {
            self.needs_health_check();
        }
        Some(ServiceRef { name: service, written })
    }
}

/// `healthCheck` of a composite has no keys (reference 2.9).
fn switch(field: &Field<'_>) -> bool {
    match field.enabled() {
        Enabled::Off => false,
        Enabled::Plain => true,
        Enabled::With(block) => {
            block.finish();
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{disabled, load, problems};

    const LEAVES: &str = "a: {loadBalancer: {servers: [{url: 'http://a'}]}}, \
                          h: {loadBalancer: {servers: [{url: 'http://h'}], healthCheck: {path: /}}}";

    fn services(more: &str) -> String {
        format!("http: {{services: {{{LEAVES}, {more}}}}}")
    }

    fn told(more: &str) -> Vec<String> {
        let cut = |problem: String| problem.replacen("http.services.", "", 1);
        problems(&services(more)).into_iter().map(cut).collect()
    }

    fn child(written: &str, weight: u32) -> WeightedChild {
        let name = if written.contains('@') { written.to_owned() } else { format!("{written}@file") };
        WeightedChild { service: ServiceRef { name, written: written.to_owned() }, weight }
    }

    #[test]
    fn children_keep_their_name_as_written() {
        let text = services(
            "w: {weighted: {services: [{name: a, weight: 3}, {name: h@file}, {name: a, weight: -1}], \
             sticky: {cookie: {}}}}, r: {highestRandomWeight: {services: [{name: h}], healthCheck: {}}}",
        );
        let loaded = load(&text);
        assert_eq!(loaded.problems.iter().filter(|problem| problem.is_error()).count(), 0);
        let weighted = &loaded.config.composites["w@file"];
        let CompositeKind::Weighted { services, sticky } = &weighted.kind else { panic!("{weighted:?}") };
        assert_eq!(*services, [child("a", 3), child("h@file", 1), child("a", 0)]);
        let name = lb_core::sticky::cookie_name("w@file");
        assert_eq!(sticky.as_ref().map(|cookie| &cookie.name), Some(&name));
        assert!(!weighted.health_check);
        let random = &loaded.config.composites["r@file"];
        assert_eq!(random.kind, CompositeKind::HighestRandomWeight { services: vec![child("h", 1)] });
        assert!(random.health_check);
        assert_eq!(loaded.config.services.len(), 2);
    }

    #[test]
    fn what_makes_no_composite() {
        for (service, expected) in [
            ("{weighted: {}}", "x.weighted: cannot be a standalone element: `{}` is empty"),
            ("{weighted: {services: [{weight: 1}]}}", "x.weighted.services[0]: `name` is missing"),
            ("{weighted: {services: [{name: ''}]}}", "x.weighted.services[0].name: names no service"),
            ("{weighted: {services: [{name: b}]}}", "x.weighted.services[0].name: no service is called `b`"),
            (
                "{weighted: {services: [{name: a, weight: much}]}}",
                "x.weighted.services[0].weight: expected a whole number, found `much`",
            ),
            (
                "{weighted: {services: [{name: a, wieght: 2}]}}",
                "x.weighted.services[0].wieght: there is no key `wieght` here",
            ),
            (
                "{weighted: {services: [{name: api@internal}]}}",
                "x.weighted.services[0].name: `api@internal` cannot be part of another service",
            ),
            (
                "{weighted: {services: [{name: h}], healthCheck: {path: /}}}",
                "x.weighted.healthCheck.path: there is no key `path` here",
            ),
            (
                "{highestRandomWeight: {services: [{name: a}], sticky: {cookie: {}}}}",
                "x.highestRandomWeight.sticky: there is no key `sticky` here",
            ),
        ] {
            assert_eq!(told(&format!("x: {service}"))[0], expected, "{service}");
        }
    }

    #[test]
    fn who_minds_health_needs_children_that_have_one() {
        let parent = |kind: &str, child: &str| {
            told(&format!(
                "w: {{weighted: {{services: [{{name: h}}], healthCheck: {{}}}}}}, \
                 v: {{weighted: {{services: [{{name: h}}]}}}}, \
                 x: {{{kind}: {{services: [{{name: h}}, {{name: {child}}}], healthCheck: {{}}}}}}"
            ))
        };
        for kind in COMPOSITES {
            assert_eq!(parent(kind, "w"), [""; 0]);
            for child in ["a", "v"] {
                let expected = format!("x.{kind}.services[1].name: `{child}` has no health check");
                assert_eq!(parent(kind, child), [expected]);
            }
        }
        let loaded = load(&services("x: {weighted: {services: [{name: a}], healthCheck: {}}}"));
        assert_eq!(
            loaded.disabled[&(Kind::Service, "x@file".to_owned())],
            [
                "cannot register a as updater for x@file: healthCheck not enabled in config for this WRR service"
            ]
        );
    }

    #[test]
    fn circles_are_found() {
        let text = services(
            "c1: {weighted: {services: [{name: a}, {name: c2}]}}, c2: {weighted: {services: [{name: c1}]}}, \
             u: {weighted: {services: [{name: c1}]}}, ok: {weighted: {services: [{name: a}]}}",
        );
        assert_eq!(
            problems(&text),
            [
                "http.services.c2.weighted.services[0].name: the service contains itself: `c1@file > c2@file > c1@file`"
            ]
        );
        let loaded = load(&text);
        assert_eq!(disabled(&loaded, Kind::Service), ["c1@file", "c2@file", "u@file"]);
        assert_eq!(
            loaded.disabled[&(Kind::Service, "c2@file".to_owned())],
            ["could not instantiate service c1@file: recursion detected in \
              service:c1@file->service:c2@file->service:c1@file"]
        );
        assert!(loaded.config.composites.contains_key("ok@file"));
    }

    #[test]
    fn routers_lead_to_them_and_fall_with_what_they_need() {
        let loaded = load(&format!(
            "http: {{services: {{{LEAVES}, w: {{weighted: {{services: [{{name: a}}, {{name: bad}}]}}}}, \
             bad: {{loadBalancer: {{strategy: none}}}}, ok: {{weighted: {{services: [{{name: a}}]}}}}}}, \
             routers: {{r: {{rule: 'Path(`/`)', service: w}}, s: {{rule: 'Path(`/`)', service: ok}}}}}}"
        ));
        assert_eq!(disabled(&loaded, Kind::Router), ["r@file"]);
        assert_eq!(disabled(&loaded, Kind::Service), ["bad@file", "w@file"]);
        assert!(loaded.waiting.composites.contains_key("w@file"), "it is right in itself");
    }
}
