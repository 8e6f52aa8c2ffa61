//! Orders of operators: who may give them, which server they mean, and how it is shown.
//!
//! An order needs the token of the static file in `Authorization: Bearer`. That is all there is: no cookies and
//! no CORS, so no page that an operator visits can give one in their name.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lb_config::static_config::ApiToken;
use lb_config::suggest;
use lb_core::balance::Server;
use lb_core::health::{AdminState, Status};
use lb_core::operator::OperatorState;
use lb_observe::rfc3339;
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::api::object::Object;
use crate::query::decode_segment;
use crate::{Admin, Internal, Response, View, below_base};

/// How long clients with a cookie may stay on a server that drains, unless the order says. Chosen.
const DEADLINE: Duration = Duration::from_secs(600);
/// Characters of `by`; chosen, a name and a host.
const MAX_BY: usize = 100;

/// An order that stands, as the control plane knows it.
#[derive(Clone, Debug)]
pub struct Standing {
    pub told: OperatorState,
    /// The server as last seen, though a reload may have removed it.
    pub server: Option<Arc<Server>>,
}

/// A request to the API before anything is done about it.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    pub service: Internal,
    pub method: &'a str,
    /// The escaped path.
    pub path: &'a str,
    pub authorization: Option<&'a [u8]>,
    pub client: IpAddr,
    pub body: &'a [u8],
}

/// What is to be done about it.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It changes nothing: [`Admin::respond`] answers it.
    Read,
    Refused(Response),
    /// To be put in force; then [`Admin::respond`] answers a GET of the same path.
    Order(OperatorState),
}

impl Admin {
    /// Decides what a request to the API or to anything else may do.
    pub fn judge(&self, demand: &Demand<'_>, view: &View) -> Verdict {
        let place = match demand.service {
            Internal::Api | Internal::ApiByToken => place(demand.path, view),
            _ => return Verdict::Read,
        };
        let is_of_api = below_base(demand.path, view).is_some_and(|path| path.starts_with("/api"));
        if demand.service == Internal::ApiByToken && !is_of_api {
            let message = "the dashboard is not served here: a browser has no token to show. Let a router with a \
                           middleware that asks for a password lead to `api@internal`, or set `api.insecure: true`";
            return Verdict::Refused(Response::error(404, message));
        }
        let place = place.filter(|_| demand.method == "PUT");
        if place.is_some() || demand.service == Internal::ApiByToken {
            let token = view.static_config.api.as_ref().and_then(|api| api.token.as_ref());
            if let Err(response) = authorize(token, demand.authorization) {
                return Verdict::Refused(response);
            }
        }
        let Some((service, server)) = place else { return Verdict::Read };
        match order(&service, &server, demand, view) {
            Ok(told) => Verdict::Order(told),
            Err(response) => Verdict::Refused(response),
        }
    }
}

/// Service and server of a path that ends in `/state`.
pub(crate) fn place(path: &str, view: &View) -> Option<(String, String)> {
    let rest = below_base(path, view)?;
    let rest = ["/api/http/services/", "/api/tcp/services/"].iter().find_map(|all| rest.strip_prefix(all));
    match rest?.split('/').collect::<Vec<_>>()[..] {
        [service, "servers", server, "state"] => Some((decode_segment(service), decode_segment(server))),
        _ => None,
    }
}

fn authorize(token: Option<&ApiToken>, authorization: Option<&[u8]>) -> Result<(), Response> {
    let Some(token) = token else {
        let message =
            "nobody may change states: set `api.token` or `api.tokenFile` in the static configuration";
        return Err(Response::error(403, message));
    };
    let shown = authorization.and_then(|field| {
        let (scheme, shown) = field.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(shown.trim_ascii())
    });
    // Digests are compared, so that not even the length of the token takes part.
    let is_right = |shown: &[u8]| {
        bool::from(Sha256::digest(shown).as_slice().ct_eq(Sha256::digest(token.reveal()).as_slice()))
    };
    if shown.is_some_and(is_right) {
        return Ok(());
    }
    let refusal =
        Response::error(401, "this needs the token of `api.token` as `Authorization: Bearer <token>`");
    Err(refusal.with("WWW-Authenticate", "Bearer realm=\"vigie\""))
}

/// `{"state": "drain", "deadline": "10m", "by": "alice"}`
fn order(service: &str, server: &str, demand: &Demand<'_>, view: &View) -> Result<OperatorState, Response> {
    let (service, url) = find(service, server, view)?;
    let bad = |message: String| Response::error(400, &message);
    let body: Value =
        serde_json::from_slice(demand.body).map_err(|error| bad(format!("the body is no JSON: {error}")))?;
    let fields = body.as_object().ok_or_else(|| bad("the body is no JSON object".to_owned()))?;
    let mut state = None;
    let mut deadline = None;
    let mut by = "";
    for (key, value) in fields {
        let text = value.as_str().ok_or_else(|| bad(format!("`{key}` is no string")))?;
        match key.as_str() {
            "state" => {
                let words = ["ready", "drain", "maintenance"];
                let known = AdminState::from_word(text);
                state = Some(known.ok_or_else(|| {
                    bad(format!("`{text}` is no state; {}", suggest::hint(text, "states", words)))
                })?);
            }
            "deadline" if text == "none" => deadline = Some(None),
            "deadline" => {
                let read = lb_config::duration(text);
                let hint = "write `10m`, `90s` or `none`";
                deadline =
                    Some(Some(read.map_err(|reason| bad(format!("deadline: `{text}` {reason}; {hint}")))?));
            }
            "by" if text.chars().count() > MAX_BY || text.chars().any(char::is_control) => {
                return Err(bad(format!("`by` is a name of at most {MAX_BY} characters")));
            }
            "by" => by = text,
            _ => {
                let hint = suggest::hint(key, "keys", ["state", "deadline", "by"]);
                return Err(bad(format!("there is no key `{key}`; {hint}")));
            }
        }
    }
    let state = state.ok_or_else(|| bad("`state` is missing: ready, drain or maintenance".to_owned()))?;
    if deadline.is_some() && state != AdminState::Drain {
        return Err(bad("`deadline` is for `drain` only".to_owned()));
    }
    let deadline = if state == AdminState::Drain { deadline.unwrap_or(Some(DEADLINE)) } else { None };
    Ok(OperatorState {
        service,
        url,
        state,
        since: view.now,
        until: deadline.and_then(|deadline| view.now.checked_add(deadline)),
        by: if by.is_empty() { demand.client.to_string() } else { format!("{by} ({})", demand.client) },
    })
}

/// The full names of a service and its server, or the answer that says which ones there are.
///
/// A service may be named without its provider and a server without its scheme where that is clear. What a
/// reload has removed is known while an order for it stands.
pub(crate) fn find(service: &str, server: &str, view: &View) -> Result<(String, String), Response> {
    let standing = || view.standing.iter().map(|standing| &standing.told);
    let services = view.services.keys().chain(view.tcp.keys()).map(String::as_str);
    let services: Vec<&str> = services.chain(standing().map(|told| told.service.as_str())).collect();
    let short = |name: &str| name.rsplit_once('@').is_some_and(|(name, _)| name == service);
    let name = one(&services, |name| name == service, short)
        .ok_or_else(|| unknown("service", "services", service, services.clone()))?;
    let mut urls: Vec<&str> = servers(view, name).map(|(server, _)| server.url()).collect();
    urls.extend(standing().filter(|told| told.service == name).map(|told| told.url.as_str()));
    let bare = |url: &str| -> String {
        url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/').to_owned()
    };
    let wanted = bare(server);
    let url = one(&urls, |url| url == server, |url| bare(url) == wanted)
        .ok_or_else(|| unknown("server", &format!("servers of {name}"), server, urls.clone()))?;
    Ok((name.to_owned(), url.to_owned()))
}

/// Of HTTP and of TCP, where both have a service of that name.
fn servers<'v>(view: &'v View, service: &str) -> impl Iterator<Item = (&'v Arc<Server>, u32)> {
    let both = [view.services.get(service), view.tcp.get(service)];
    both.into_iter().flatten().flat_map(|service| service.servers())
}

/// What is named exactly, or else roughly by one name alone.
fn one<'n>(
    names: &[&'n str],
    exactly: impl Fn(&str) -> bool,
    roughly: impl Fn(&str) -> bool,
) -> Option<&'n str> {
    if let Some(name) = names.iter().find(|name| exactly(name)) {
        return Some(name);
    }
    let mut found: Vec<_> = names.iter().filter(|name| roughly(name)).collect();
    found.sort_unstable();
    found.dedup();
    if let [name] = found[..] { Some(name) } else { None }
}

fn unknown(what: &str, all: &str, name: &str, mut known: Vec<&str>) -> Response {
    known.sort_unstable();
    known.dedup();
    Response::error(404, &format!("no {what} is called `{name}`; {}", suggest::hint(name, all, known)))
}

/// A server with all that is known of it.
pub(crate) fn server(view: &View, service: &str, live: &Server, weight: u32) -> Object {
    let health = match live.status() {
        Status::Healthy => "healthy",
        Status::Degraded => "degraded",
        Status::Unhealthy => "unhealthy",
    };
    let object = Object::new()
        .set("url", live.url())
        .set("health", health)
        .set("state", live.admin_state().word())
        .set("weight", weight)
        .set("inFlight", live.in_flight())
        .some("healthChecks", Some(live.probes()).filter(|probes| *probes > 0));
    with_order(object, standing(view, service, live.url()))
}

fn with_order(object: Object, standing: Option<&Standing>) -> Object {
    let Some(Standing { told, .. }) = standing else { return object };
    object
        .set("stateSince", rfc3339(told.since))
        .some("stateUntil", told.until.map(rfc3339))
        .set("stateBy", told.by.as_str())
}

fn standing<'v>(view: &'v View, service: &str, url: &str) -> Option<&'v Standing> {
    view.standing.iter().find(|standing| standing.told.service == service && standing.told.url == url)
}

/// The answer to a GET of a server's state.
pub(crate) fn state(service: &str, url: &str, view: &View) -> Response {
    let (service, url) = match find(service, url, view) {
        Ok(found) => found,
        Err(response) => return response,
    };
    let configured = servers(view, &service).find(|(server, _)| server.url() == url);
    let object = match configured {
        Some((live, weight)) => server(view, &service, live, weight),
        None => {
            let standing = standing(view, &service, &url);
            let state = standing.map_or(AdminState::Ready, |standing| standing.told.state);
            let in_flight =
                standing.and_then(|standing| standing.server.as_ref()).map_or(0, |s| s.in_flight());
            let object =
                Object::new().set("url", url.as_str()).set("state", state.word()).set("inFlight", in_flight);
            with_order(object, standing)
        }
    };
    let of_name = view.services.get(&service).or_else(|| view.tcp.get(&service));
    // Whether others are left for new clients.
    let object = object.some("serviceAvailable", of_name.map(|service| service.is_available()));
    Response::json(200, &object.set("service", service).set("configured", configured.is_some()).build())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, started};
    use serde_json::json;

    const TOKEN: &str = "0123456789abcdef";
    const ONE: &str = "http://10.0.0.1:80";

    fn view(token: Option<&str>) -> View {
        let mut view = testing::view();
        let mut fixed = (*view.static_config).clone();
        fixed.api.as_mut().unwrap().token = token.map(ApiToken::new);
        view.static_config = Arc::new(fixed);
        view
    }

    fn path(service: &str, server: &str) -> String {
        let server = server.replace(':', "%3A").replace('/', "%2F");
        format!("/api/http/services/{service}/servers/{server}/state")
    }

    fn judge(
        service: Internal,
        method: &str,
        path: &str,
        field: Option<&str>,
        body: &str,
        view: &View,
    ) -> Verdict {
        let metrics = lb_observe::metrics::Metrics::new(lb_observe::metrics::Settings::default(), 1);
        let demand = Demand {
            service,
            method,
            path,
            authorization: field.map(str::as_bytes),
            client: [192, 0, 2, 1].into(),
            body: body.as_bytes(),
        };
        Admin::new(metrics, "1", started()).judge(&demand, view)
    }

    /// `put` by somebody with the token: the order, or status and message.
    fn put(service: &str, server: &str, body: &str) -> Result<OperatorState, String> {
        let field = format!("Bearer {TOKEN}");
        match judge(Internal::Api, "PUT", &path(service, server), Some(&field), body, &view(Some(TOKEN))) {
            Verdict::Order(told) => Ok(told),
            Verdict::Refused(response) => {
                let body: Value = serde_json::from_slice(&response.body).unwrap();
                Err(format!("{} {}", response.status, body["message"].as_str().unwrap()))
            }
            Verdict::Read => panic!("a PUT is no reading"),
        }
    }

    #[test]
    fn only_the_token_gives_orders() {
        let right = format!("bearer {TOKEN}");
        let basic = format!("Basic {TOKEN}");
        let body = r#"{"state": "drain"}"#;
        let path = path("app", ONE);
        for (token, field, expected) in [
            (Some(TOKEN), Some(&*right), None),
            (Some(TOKEN), None, Some(401)),
            (Some(TOKEN), Some(&*basic), Some(401)),
            (Some(TOKEN), Some("Bearer "), Some(401)),
            (Some(TOKEN), Some("Bearer 0123456789abcdeF"), Some(401)),
            (Some(TOKEN), Some("Bearer 0123456789abcdef0"), Some(401)),
            (Some(TOKEN), Some(TOKEN), Some(401)),
            (None, Some(&*right), Some(403)),
            (None, None, Some(403)),
        ] {
            for service in [Internal::Api, Internal::ApiByToken] {
                let status = match judge(service, "PUT", &path, field, body, &view(token)) {
                    Verdict::Refused(response) => {
                        let challenges = response.headers.iter().any(|(name, _)| *name == "WWW-Authenticate");
                        assert_eq!(challenges, response.status == 401);
                        Some(response.status)
                    }
                    Verdict::Order(_) => None,
                    Verdict::Read => panic!("a PUT is no reading"),
                };
                assert_eq!(status, expected, "{token:?} {field:?}");
            }
        }
        // Nobody has to guess why a browser finds no dashboard.
        match judge(Internal::ApiByToken, "GET", "/dashboard/", None, "", &view(Some(TOKEN))) {
            Verdict::Refused(response) => {
                assert_eq!(response.status, 404);
                assert!(String::from_utf8_lossy(&response.body).contains("`api@internal`"));
            }
            other => panic!("{other:?}"),
        }
        // Where the API is open to all it may be read; where it is by token only, not even that.
        for (service, field, reads) in [
            (Internal::Api, None, true),
            (Internal::ApiByToken, None, false),
            (Internal::ApiByToken, Some(&*right), true),
        ] {
            for (method, path) in [("GET", &*path), ("GET", "/api/version"), ("POST", "/api/version")] {
                let verdict = judge(service, method, path, field, "", &view(Some(TOKEN)));
                assert_eq!(matches!(verdict, Verdict::Read), reads, "{method} {path} {verdict:?}");
            }
        }
    }

    #[test]
    fn an_order_says_what_how_long_and_who() {
        let now = testing::view().now;
        let order = |body| put("app@file", ONE, body).map(|o| (o.state.word(), o.until, o.by));
        let after = |seconds| Some(now + Duration::from_secs(seconds));
        let client = || "192.0.2.1".to_owned();
        assert_eq!(order(r#"{"state": "drain"}"#), Ok(("drain", after(600), client())));
        assert_eq!(order(r#"{"state": "drain", "deadline": "90s"}"#), Ok(("drain", after(90), client())));
        assert_eq!(order(r#"{"state": "drain", "deadline": "none"}"#), Ok(("drain", None, client())));
        let maintenance = order(r#"{"state": "maintenance", "by": "alice"}"#);
        assert_eq!(maintenance, Ok(("maintenance", None, "alice (192.0.2.1)".to_owned())));
        for (body, expected) in [
            ("", "400 the body is no JSON"),
            ("[]", "400 the body is no JSON object"),
            ("{}", "400 `state` is missing"),
            (r#"{"state": "drian"}"#, "400 `drian` is no state; did you mean `drain`?"),
            (r#"{"state": 1}"#, "400 `state` is no string"),
            (
                r#"{"state": "drain", "deadlin": "1m"}"#,
                "400 there is no key `deadlin`; did you mean `deadline`?",
            ),
            (r#"{"state": "drain", "deadline": "soon"}"#, "400 deadline: `soon` is not a length of time"),
            (r#"{"state": "drain", "deadline": "-1s"}"#, "400 deadline: `-1s` is negative"),
            (r#"{"state": "ready", "deadline": "1m"}"#, "400 `deadline` is for `drain` only"),
            (r#"{"state": "ready", "by": "a\nb"}"#, "400 `by` is a name of at most 100 characters"),
        ] {
            let told = order(body).unwrap_err();
            assert!(told.starts_with(expected), "{body}: {told}");
        }
    }

    #[test]
    fn servers_are_named_in_full_or_as_short_as_is_clear() {
        let body = r#"{"state": "ready"}"#;
        for (service, server) in
            [("app@file", ONE), ("app", ONE), ("app", "10.0.0.1:80"), ("app", "http://10.0.0.1:80/")]
        {
            let found = put(service, server, body).map(|o| (o.service, o.url));
            assert_eq!(found, Ok(("app@file".to_owned(), ONE.to_owned())), "{service} {server}");
        }
        assert_eq!(
            put("apq", ONE, body).unwrap_err(),
            "404 no service is called `apq`; known services: app@file, idle@file"
        );
        assert_eq!(
            put("idel@file", ONE, body).unwrap_err(),
            "404 no service is called `idel@file`; did you mean `idle@file`? known services: app@file, idle@file"
        );
        assert_eq!(
            put("app", "10.0.0.3:80", body).unwrap_err(),
            "404 no server is called `10.0.0.3:80`; known servers of app@file: http://10.0.0.1:80, http://10.0.0.2:80"
        );
    }

    /// A TCP service may have the name of one of HTTP: its servers have addresses, not URLs.
    #[test]
    fn servers_of_tcp_take_orders() {
        let servers = |port| format!("{{loadBalancer: {{servers: [{{address: '10.0.0.1:{port}'}}]}}}}");
        let tcp = format!("tcp: {{services: {{db: {}, app: {}}}}}", servers(5432), servers(80));
        let view = testing::view_of(&format!(
            "{tcp}\nhttp: {{services: {{app: {{loadBalancer: {{servers: [{{url: '{ONE}'}}]}}}}}}}}"
        ));
        for (service, server, expected) in [
            ("db", "10.0.0.1:5432", Some("db@file 10.0.0.1:5432")),
            ("app", "10.0.0.1:80", Some("app@file 10.0.0.1:80")),
            ("app@file", ONE, Some("app@file http://10.0.0.1:80")),
            ("db", "10.0.0.1:80", None),
        ] {
            let found = find(service, server, &view).map(|(service, url)| format!("{service} {url}"));
            assert_eq!(found.ok().as_deref(), expected);
        }
        let path = path("db", "10.0.0.1:5432").replace("/http/", "/tcp/");
        assert_eq!(place(&path, &view), Some(("db".to_owned(), "10.0.0.1:5432".to_owned())));
        view.tcp["db@file"].servers().next().unwrap().0.set_admin_state(AdminState::Drain);
        assert_eq!(testing::api(&path, &view)["state"], "drain");
        assert_eq!(testing::api("/api/tcp/services/db@file", &view)["serverDetails"][0]["state"], "drain");
    }

    #[test]
    fn a_state_is_shown_even_of_a_server_that_is_gone() {
        let mut view = view(None);
        let told = |url: &str, state| OperatorState {
            service: "app@file".into(),
            url: url.into(),
            state,
            since: started(),
            until: Some(started() + Duration::from_secs(60)),
            by: "alice".into(),
        };
        view.services["app@file"].servers().next().unwrap().0.set_admin_state(AdminState::Drain);
        let gone = "http://10.0.0.9:80";
        for (url, state) in [(ONE, AdminState::Drain), (gone, AdminState::Maintenance)] {
            view.standing.push(Standing { told: told(url, state), server: None });
        }
        let order = json!({"stateSince": "2026-11-22T00:45:56Z", "stateUntil": "2026-11-22T00:46:56Z",
            "stateBy": "alice", "service": "app@file", "serviceAvailable": true, "inFlight": 0});
        let with = |mut more: Value| {
            more.as_object_mut().unwrap().extend(order.as_object().unwrap().clone());
            more
        };
        assert_eq!(
            testing::api(&path("app", ONE), &view),
            with(json!({"url": ONE, "health": "healthy", "state": "drain", "weight": 1, "configured": true}))
        );
        assert_eq!(
            testing::api(&path("app", gone), &view),
            with(json!({"url": gone, "state": "maintenance", "configured": false}))
        );
        let details = &testing::api("/api/http/services/app@file", &view)["serverDetails"];
        assert_eq!((&details[0]["state"], &details[0]["stateBy"]), (&json!("drain"), &json!("alice")));
        assert_eq!((&details[1]["state"], details[1].get("stateBy")), (&json!("ready"), None));
        let health = testing::ask(Internal::Ping, "/health", &view);
        let health: Value = serde_json::from_slice(&health.body).unwrap();
        let app = &health["services"]["app@file"];
        assert_eq!(
            (&app["drain"], &app["maintenance"], &app["available"]),
            (&json!(1), &json!(0), &json!(true))
        );
    }
}
