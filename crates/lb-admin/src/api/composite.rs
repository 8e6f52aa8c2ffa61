//! Services made of others, in Traefik's shape; and, beyond it, which of their children are up.

use lb_config::dynamic::{Composite, CompositeKind, Mirror, Mirroring, WeightedChild};
use serde_json::{Map, Value, json};

use super::object::Object;
use super::service::sticky;
use crate::View;

/// The key of the kind, and what is under it.
pub(super) fn body(composite: &Composite) -> (&'static str, Value) {
    let children = |services: &[WeightedChild]| -> Value {
        let child = |child: &WeightedChild| json!({"name": child.service.written, "weight": child.weight});
        services.iter().map(child).collect::<Vec<_>>().into()
    };
    let (key, object) = match &composite.kind {
        CompositeKind::Weighted { services, sticky: cookie } => {
            let cookie = cookie.as_ref().map(|cookie| Object::new().set("cookie", sticky(cookie)).build());
            ("weighted", Object::new().set("services", children(services)).some("sticky", cookie))
        }
        CompositeKind::HighestRandomWeight { services } => {
            ("highestRandomWeight", Object::new().set("services", children(services)))
        }
        CompositeKind::Failover { service, fallback, errors } => {
            let errors = errors.as_ref().map(|errors| {
                json!({"maxRequestBodyBytes": limit(errors.max_request_body_bytes), "status": errors.status_text})
            });
            let object = Object::new().set("service", &*service.written).set("fallback", &*fallback.written);
            ("failover", object.some("errors", errors))
        }
        CompositeKind::Mirroring(Mirroring { service, mirrors, mirror_body, max_body_size }) => {
            let mirror = |mirror: &Mirror| {
                Object::new().set("name", &*mirror.service.written).number("percent", mirror.percent).build()
            };
            let object = Object::new()
                .set("service", &*service.written)
                .set("mirrorBody", *mirror_body)
                .set("maxBodySize", limit(*max_body_size));
            let mirrors: Vec<_> = mirrors.iter().map(mirror).collect();
            ("mirroring", object.some("mirrors", Some(mirrors).filter(|mirrors| !mirrors.is_empty())))
        }
    };
    (key, object.some("healthCheck", composite.health_check.then(|| json!({}))).build())
}

/// Bytes; -1 is none.
fn limit(bytes: Option<usize>) -> i64 {
    bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// `UP` or `DOWN` for each child, whether or not anybody minds.
pub(super) fn child_status(composite: &Composite, view: &View) -> Value {
    let status = |up| if up { "UP" } else { "DOWN" };
    let each = composite
        .children()
        .map(|child| (child.name.clone(), Value::from(status(is_up(&child.name, view, DEEPEST)))));
    each.collect::<Map<_, _>>().into()
}

/// Services inside each other at most that are in force.
const DEEPEST: usize = 33;

fn is_up(name: &str, view: &View, depth: usize) -> bool {
    match view.config.composites.get(name) {
        None => view.services.get(name).is_some_and(|service| service.is_available()),
        Some(composite) if !composite.health_check || depth == 0 => true,
        Some(composite) => composite.is_up(|child| is_up(child, view, depth - 1)),
    }
}
