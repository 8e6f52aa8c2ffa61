//! Services made of others, in Traefik's shape; and, beyond it, which of their children are up.

use lb_config::dynamic::{Composite, CompositeKind, WeightedChild};
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
    };
    (key, object.some("healthCheck", composite.health_check.then(|| json!({}))).build())
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
