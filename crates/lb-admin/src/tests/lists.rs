//! What all lists and all errors have in common.

use serde_json::json;

use super::{header, names, text};
use crate::testing::{api, ask, started, view};
use crate::{Admin, Internal};

#[test]
fn lists_are_searched_filtered_sorted_and_paged() {
    let view = view();
    for (query, expected) in [
        ("search=LOW", vec!["low@file", "websecure-low@file"]),
        ("search=a.test", vec!["app@file"]),
        ("status=DISABLED", vec!["broken@file"]),
        ("serviceName=app@file", vec!["app@file", "low@file", "websecure-low@file"]),
        ("serviceName=app", vec!["app@file", "low@file", "websecure-low@file"]),
        ("serviceName=app@docker", vec!["app@file", "low@file", "websecure-low@file"]),
        ("serviceName=api&search=ops", vec![]),
        ("serviceName=api@internal&search=ops", vec!["ops@file"]),
        ("middlewareName=auth@file", vec!["app@file"]),
        (
            "search=@file&sortBy=priority",
            vec!["low@file", "websecure-low@file", "broken@file", "app@file", "ops@file"],
        ),
        (
            "search=@file&direction=desc",
            vec!["websecure-low@file", "ops@file", "low@file", "broken@file", "app@file"],
        ),
        (
            "search=@file&direction=DESC&page=1&per_page=1;page=2",
            vec!["websecure-low@file", "ops@file", "low@file", "broken@file", "app@file"],
        ),
        ("search=@file&per_page=2&page=2", vec!["low@file", "ops@file"]),
        ("search=nothing", vec![]),
    ] {
        assert_eq!(names(&api(&format!("/api/http/routers?{query}"), &view)), expected, "{query}");
    }
    let next = |query: &str| {
        let response = ask(Internal::Api, &format!("/api/http/routers?search=@file&{query}"), &view);
        header(&response, "X-Next-Page").map(str::to_owned)
    };
    assert_eq!([next("per_page=3"), next("per_page=3&page=2")], [Some("2".into()), Some("1".into())]);
    assert_eq!(
        names(&api("/api/http/services?sortBy=servers&direction=desc&per_page=1", &view)),
        ["app@file"]
    );
    assert_eq!(api("/api/tcp/routers", &view), json!([]));
}

#[test]
fn errors_are_traefiks() {
    let view = view();
    for (target, status, message) in [
        ("/api/http/routers/x%2Fy@file", 404, "router not found: x/y@file"),
        ("/api/http/services/x", 404, "service not found: x"),
        ("/api/http/middlewares/x", 404, "middleware not found: x"),
        ("/api/entrypoints/x", 404, "entry point not found: x"),
        ("/api/http/routers?page=9", 400, "invalid request: page: 9, per_page: 100"),
    ] {
        let response = ask(Internal::Api, target, &view);
        assert_eq!(response.status, status, "{target}");
        assert_eq!(text(&response).trim_end(), json!({ "message": message }).to_string());
        assert_eq!(header(&response, "Content-Type"), Some("text/plain; charset=utf-8"));
    }
    for target in ["/api", "/api/", "/api/nope", "/api/http/nope", "/api/http/routers/", "/apix"] {
        let response = ask(Internal::Api, target, &view);
        assert_eq!((response.status, text(&response)), (404, "404 page not found\n"), "{target}");
    }
    let metrics = lb_observe::metrics::Metrics::new(lb_observe::metrics::Settings::default(), 1);
    let admin = Admin::new(metrics, "1", started());
    assert_eq!(admin.respond(Internal::Api, "POST", "/api/version", "", &view).status, 405);
    for target in ["/api/providers/rest", "/api/nope"] {
        assert_eq!(admin.respond(Internal::Api, "PUT", target, "", &view).status, 404, "{target}");
    }
    assert_eq!(admin.respond(Internal::Noop, "POST", "/", "", &view).status, 418);
    let page = admin.respond(Internal::Prometheus, "GET", "/metrics", "", &view);
    assert!(text(&page).contains("traefik_config_reloads_total 0"));
    assert_eq!(header(&page, "Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
}
