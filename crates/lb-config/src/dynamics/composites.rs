//! `http.services`: those that only combine others.

use super::services::weight;
use super::{Draft, sticky};
use crate::composite::{
    Composite, CompositeKind, FailoverErrors, Mirror, Mirroring, ServiceRef, WeightedChild,
};
use crate::decode::{Block, Enabled, Field};
use crate::net::status_ranges;
use crate::problem::{Kind, quoted};

/// The kinds, as they are written.
pub(super) const COMPOSITES: [&str; 4] = ["weighted", "highestRandomWeight", "failover", "mirroring"];

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
            "failover" => {
                let errors = block.take("errors").and_then(|field| failover_errors(&field));
                let service = self.child(name, block, "service", health_check || errors.is_none());
                let fallback = self.child(name, block, "fallback", health_check);
                CompositeKind::Failover { service: service?, fallback: fallback?, errors }
            }
            "mirroring" => CompositeKind::Mirroring(self.mirroring(name, block, health_check)?),
            _ => CompositeKind::HighestRandomWeight {
                services: self.weighted_children(name, block, health_check),
            },
        };
        Some(Composite { middlewares: Vec::new(), kind, health_check })
    }

    fn mirroring(&mut self, name: &str, block: &Block<'a>, probed: bool) -> Option<Mirroring> {
        let service = self.child(name, block, "service", probed);
        let mirror_body = block.take("mirrorBody").and_then(|field| field.boolean()).unwrap_or(true);
        let max_body_size = block.take("maxBodySize").and_then(|field| limit(&field)).flatten();
        let mut mirrors = Vec::new();
        for field in block.take("mirrors").map(|field| field.list()).unwrap_or_default() {
            let Some(mirror) = field.object() else { continue };
            let service = self.child(name, &mirror, "name", false);
            // Absent as in Traefik, where it is easily forgotten.
            let percent = mirror.take("percent");
            if percent.is_none() {
                mirror.warn(
                    "without `percent` the mirror gets nothing".to_owned(),
                    Some("write how many of 100 requests it is to get".to_owned()),
                );
            }
            let percent = percent.map_or(Some(0), |field| field.u16(0, 100));
            let percent = percent.and_then(|percent| u8::try_from(percent).ok());
            mirrors.extend(service.zip(percent).map(|(service, percent)| Mirror { service, percent }));
            mirror.finish();
        }
        Some(Mirroring { service: service?, mirrors, mirror_body, max_body_size })
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

/// Without a status there is nothing that it could be for.
fn failover_errors(field: &Field<'_>) -> Option<FailoverErrors> {
    let block = field.block()?;
    let status = block.take("status");
    let status_text = status.iter().flat_map(|field| field.texts()).map(|text| text.string()).collect();
    let status = status.map(|field| status_ranges(&field)).unwrap_or_default();
    let most = block.take("maxRequestBodyBytes").and_then(|field| limit(&field)).flatten();
    block.finish();
    (!status.is_empty()).then_some(FailoverErrors { status, status_text, max_request_body_bytes: most })
}

/// Bytes; -1 is no limit of the user's.
fn limit(field: &Field<'_>) -> Option<Option<usize>> {
    let bytes = field.integer(-1..=i64::MAX)?;
    Some(usize::try_from(bytes).ok())
}

/// `healthCheck` of a composite has no keys (reference 2.9).
pub(super) fn switch(field: &Field<'_>) -> bool {
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
                 m: {{mirroring: {{service: w, healthCheck: {{}}}}}}, \
                 n: {{mirroring: {{service: v, healthCheck: {{}}}}}}, \
                 x: {{{kind}: {{services: [{{name: h}}, {{name: {child}}}], healthCheck: {{}}}}}}"
            ))
        };
        for kind in ["weighted", "highestRandomWeight"] {
            let lax = "~n.mirroring.service: `v` has no health check";
            for child in ["w", "m"] {
                assert_eq!(parent(kind, child), [lax]);
            }
            for child in ["a", "v", "n"] {
                let expected = format!("x.{kind}.services[1].name: `{child}` has no health check");
                assert_eq!(parent(kind, child), [lax, &expected]);
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
    fn failover() {
        let errors = |keys: &str| {
            let loaded = load(&services(&format!("x: {{failover: {{service: h, fallback: a{keys}}}}}")));
            assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
            match &loaded.config.composites["x@file"].kind {
                CompositeKind::Failover { service, fallback, errors } => {
                    assert_eq!((&*service.name, &*fallback.written), ("h@file", "a"));
                    errors.clone().map(|errors| (errors.status, errors.max_request_body_bytes))
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(errors(""), None);
        assert_eq!(errors(", errors: {maxRequestBodyBytes: 5}"), None);
        assert_eq!(
            errors(", errors: {status: ['500-504', 429]}"),
            Some((vec![(500, 504), (429, 429)], None))
        );
        let limited = ", errors: {status: '502', maxRequestBodyBytes: 0}";
        assert_eq!(errors(limited), Some((vec![(502, 502)], Some(0))));
        assert_eq!(errors(&limited.replace(": 0", ": -1")), Some((vec![(502, 502)], None)));
        for (keys, expected) in [
            ("service: a, fallback: h", "x.failover.service: `a` has no health check"),
            ("service: h, fallback: a, healthCheck: {}", "x.failover.fallback: `a` has no health check"),
            ("service: a, errors: {status: 500}", "x.failover: `fallback` is missing"),
            ("fallback: a", "x.failover: `service` is missing"),
            (
                "service: h, fallback: a, errors: {}",
                "x.failover.errors: cannot be a standalone element: `{}` is empty",
            ),
            (
                "service: h, fallback: a, errors: {status: [500], maxRequestBodyBytes: -2}",
                "x.failover.errors.maxRequestBodyBytes: -2 is out of range",
            ),
        ] {
            assert_eq!(told(&format!("x: {{failover: {{{keys}}}}}"))[0], expected, "{keys}");
        }
        assert_eq!(told("x: {failover: {service: a, fallback: h, errors: {status: 500}}}"), [""; 0]);
    }

    #[test]
    fn mirroring() {
        let loaded = load(&services(
            "x: {mirroring: {service: h, mirrors: [{name: a, percent: 10}], healthCheck: {}}}, \
             y: {mirroring: {service: x, mirrorBody: false, maxBodySize: 5}}, \
             z: {mirroring: {service: a, maxBodySize: -1, mirrors: [{name: h, percent: 100}, {name: y, percent: 0}]}}",
        ));
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        let read = |name: &str| match &loaded.config.composites[name].kind {
            CompositeKind::Mirroring(mirroring) => mirroring.clone(),
            other => panic!("{other:?}"),
        };
        let percents = |name| read(name).mirrors.iter().map(|mirror| mirror.percent).collect::<Vec<_>>();
        assert_eq!((read("x@file").mirror_body, read("x@file").max_body_size), (true, None));
        assert_eq!((read("y@file").mirror_body, read("y@file").max_body_size), (false, Some(5)));
        assert_eq!((percents("z@file"), read("z@file").max_body_size), (vec![100, 0], None));
        let children: Vec<_> = loaded.config.composites["z@file"].children().map(|c| &*c.name).collect();
        assert_eq!(children, ["a@file", "h@file", "y@file"]);
        for (keys, expected) in [
            ("mirrors: [{name: a, percent: 1}]", "x.mirroring: `service` is missing"),
            (
                "service: a, mirrors: [{name: h, percent: 101}]",
                "x.mirroring.mirrors[0].percent: 101 is out of range",
            ),
            ("service: a, mirrors: [{percent: 1}]", "x.mirroring.mirrors[0]: `name` is missing"),
            (
                "service: a, mirrors: [{name: b, percent: 1}]",
                "x.mirroring.mirrors[0].name: no service is called `b`",
            ),
            ("service: a, healthCheck: {}", "~http.services.x.mirroring.service: `a` has no health check"),
            (
                "service: a, mirrors: [{name: h}]",
                "~http.services.x.mirroring.mirrors[0]: without `percent` the mirror gets nothing",
            ),
            (
                "service: a, mirrors: [{name: x, percent: 1}]",
                "x.mirroring.mirrors[0].name: the service contains itself: `x@file > x@file`",
            ),
        ] {
            let told = told(&format!("x: {{mirroring: {{{keys}}}}}"));
            assert_eq!(told[0].replace("~x", "~http.services.x"), expected, "{keys}");
        }
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
