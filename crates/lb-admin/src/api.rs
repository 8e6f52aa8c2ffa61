//! Traefik's API: the same paths, parameters and shapes (reference section 5).

mod certificate;
mod composite;
mod duration;
mod entry_point;
mod internal;
mod list;
mod middleware;
pub(crate) mod object;
mod overview;
mod router;
mod service;
mod support;
mod tcp;
mod udp;

use std::cell::OnceCell;
use std::collections::HashMap;

use lb_config::Kind;
use lb_config::static_config::EncodedCharacters;
use lb_observe::rfc3339;
use serde_json::{Map, Value, json};

use crate::query::{Query, decode_segment};
use crate::{Admin, Response, Trouble, View, operator, probes};
use object::Object;

/// `rest` is the path behind `/api/`.
pub(crate) fn respond(admin: &Admin, rest: &str, query: &Query, view: &View) -> Response {
    let model = || Model::new(view);
    let segments: Vec<&str> = rest.split('/').collect();
    match segments[..] {
        ["version"] => Response::new(200, version(admin, view).to_string())
            .with("Content-Type", "application/json; charset=UTF-8"),
        ["overview"] => Response::json(200, &overview::overview(&model())),
        ["configuration"] => Response::json(200, &probes::in_all(view)),
        ["rawdata"] => Response::json(200, &raw_data(&model())),
        ["support-dump"] => support::dump(view, &version(admin, view), &raw_data(&model())),
        ["entrypoints"] => entry_point::list(view, query),
        ["entrypoints", name] => found("entry point", name, |name| entry_point::one(view, name)),
        ["certificates"] => certificate::list(&view.config.tls, view.now, query),
        ["certificates", id] => {
            found("certificate", id, |id| certificate::one(&view.config.tls, view.now, id))
        }
        ["http", "routers"] => router::list(&model(), query),
        ["http", "routers", id] => found("router", id, |id| router::one(&model(), id)),
        ["http", "services"] => service::list(&model(), query),
        ["http" | "tcp", "services", id, "servers", server, "state"] => {
            operator::state(&decode_segment(id), &decode_segment(server), view)
        }
        ["http", "services", id] => found("service", id, |id| service::one(&model(), id)),
        ["http", "middlewares"] => middleware::list(&model(), query),
        ["http", "middlewares", id] => found("middleware", id, |id| middleware::one(&model(), id)),
        ["tcp", kind @ ("routers" | "services" | "middlewares")] => {
            tcp::list(&model(), kind, query).unwrap_or_else(Response::page_not_found)
        }
        ["tcp", kind @ ("routers" | "services" | "middlewares"), id] => {
            found(kind.trim_end_matches('s'), id, |id| tcp::one(&model(), kind, id))
        }
        ["udp", "routers"] => udp::list(&udp::routers(&model()), query),
        ["udp", "routers", id] => found("router", id, |id| udp::one(&udp::routers(&model()), id)),
        ["udp", "services"] => udp::list(&udp::services(&model()), query),
        ["udp", "services", id] => found("service", id, |id| udp::one(&udp::services(&model()), id)),
        _ => Response::page_not_found(),
    }
}

fn found(what: &str, raw: &str, find: impl FnOnce(&str) -> Option<Value>) -> Response {
    let name = decode_segment(raw);
    if name.is_empty() {
        return Response::page_not_found();
    }
    match find(&name) {
        Some(value) => Response::json(200, &value),
        None => Response::error(404, &format!("{what} not found: {name}")),
    }
}

fn version(admin: &Admin, view: &View) -> Value {
    let api = view.static_config.api.as_ref();
    Object::new()
        .set("Version", admin.version)
        .set("Codename", "vigie")
        .set("startDate", rfc3339(admin.started_at))
        .flag("disableDashboardAd", api.is_some_and(|api| api.disable_dashboard_ad))
        .some("dashboardName", api.and_then(|api| api.dashboard_name.clone()))
        .build()
}

fn raw_data(model: &Model<'_>) -> Value {
    let map = |objects: Vec<(&str, Object)>| -> Value {
        objects
            .into_iter()
            .map(|(name, object)| (name.to_owned(), object.build()))
            .collect::<Map<_, _>>()
            .into()
    };
    let http = Object::new()
        .object("routers", map(router::all(model)))
        .object("middlewares", map(middleware::all(model)))
        .object("services", map(service::all(model)))
        .object("udpRouters", map(udp::bodies(&udp::routers(model))))
        .object("udpServices", map(udp::bodies(&udp::services(model))));
    tcp::all(model).into_iter().fold(http, |shown, (key, objects)| shown.object(key, map(objects))).build()
}

/// The view with what follows from it.
pub(crate) struct Model<'v> {
    view: &'v View,
    routers: OnceCell<Vec<router::Router<'v>>>,
    faults: HashMap<Kind, HashMap<&'v str, Faults<'v>>>,
}

struct Faults<'v> {
    /// The worst of them.
    trouble: Trouble,
    messages: Vec<&'v str>,
}

impl<'v> Model<'v> {
    fn new(view: &'v View) -> Self {
        let mut faults: HashMap<_, HashMap<_, Faults<'_>>> = HashMap::new();
        for fault in &view.faults {
            let known = faults.entry(fault.kind).or_default().entry(fault.name.as_str());
            let known = known.or_insert(Faults { trouble: fault.trouble, messages: Vec::new() });
            known.trouble = known.trouble.max(fault.trouble);
            known.messages.push(&fault.message);
        }
        Self { view, routers: OnceCell::new(), faults }
    }

    /// Sorted by name. There may be many, and not every answer needs them.
    fn routers(&self) -> &[router::Router<'v>] {
        self.routers.get_or_init(|| router::resolve(self))
    }

    fn faults(&self, kind: Kind, name: &str) -> Option<&Faults<'v>> {
        self.faults.get(&kind)?.get(name)
    }

    /// `enabled`, `warning` or `disabled`.
    fn status(&self, kind: Kind, name: &str) -> &'static str {
        match self.faults(kind, name) {
            None => "enabled",
            Some(Faults { trouble: Trouble::Disabled, .. }) => "disabled",
            Some(_) => "warning",
        }
    }

    /// Whether an older version than the newest is in force.
    fn is_stale(&self, kind: Kind, name: &str) -> bool {
        self.faults(kind, name).is_some_and(|faults| faults.trouble == Trouble::Quarantined)
    }

    fn errors(&self, kind: Kind, name: &str) -> &[&'v str] {
        self.faults(kind, name).map_or(&[], |faults| &faults.messages)
    }

    /// Objects of a kind that are not in the configuration because they are broken.
    fn left_out(&self, kind: Kind, present: impl Fn(&str) -> bool) -> impl Iterator<Item = &'v str> {
        let broken = self
            .faults
            .get(&kind)
            .into_iter()
            .flatten()
            .filter(|(_, faults)| faults.trouble == Trouble::Disabled);
        broken.map(|(name, _)| *name).filter(move |name| !present(name))
    }

    /// For each service or middleware, the routers that name it, sorted.
    fn users<'r>(
        &'r self,
        names: impl Fn(&'r router::Router<'v>) -> Vec<&'r str>,
    ) -> HashMap<&'r str, Vec<&'r str>> {
        let mut users: HashMap<&str, Vec<&str>> = HashMap::new();
        for router in self.routers() {
            for name in names(router) {
                let of = users.entry(name).or_default();
                if of.last() != Some(&&*router.name) {
                    of.push(&router.name);
                }
            }
        }
        users
    }
}

/// The provider in `name@provider`.
fn provider(name: &str) -> &str {
    name.rsplit_once('@').map_or("", |(_, provider)| provider)
}

/// As entry points and the middleware of that name have them.
fn encoded_characters(allowed: EncodedCharacters) -> Object {
    Object::new()
        .flag("allowEncodedSlash", allowed.slash)
        .flag("allowEncodedBackSlash", allowed.back_slash)
        .flag("allowEncodedNullCharacter", allowed.null_character)
        .flag("allowEncodedSemicolon", allowed.semicolon)
        .flag("allowEncodedPercent", allowed.percent)
        .flag("allowEncodedQuestionMark", allowed.question_mark)
        .flag("allowEncodedHash", allowed.hash)
}

/// The mask that Traefik prints over secrets.
const MASK: &str = "xxxx";

/// Header lines as an object; values of headers that usually carry a secret are masked.
fn header_map(lines: &[(String, String)]) -> Value {
    let secret = |name: &str| {
        let name = name.to_ascii_lowercase();
        ["auth", "cookie", "token", "secret", "key", "password"].iter().any(|word| name.contains(word))
    };
    let masked = |(name, value): &(String, String)| {
        (name.clone(), if secret(name) && !value.is_empty() { json!(MASK) } else { json!(value) })
    };
    lines.iter().map(masked).collect::<Map<_, _>>().into()
}
