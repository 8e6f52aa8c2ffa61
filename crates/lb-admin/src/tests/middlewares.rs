//! `/api/http/middlewares`.

use serde_json::json;

use crate::testing::{api, view, view_of};

#[test]
fn middlewares_have_traefiks_shape_and_no_secrets() {
    let view = view();
    for (name, expected) in [
        (
            "limit",
            json!({"rateLimit": {"average": 100, "period": "1s", "burst": 50}, "status": "enabled", "name": "limit@file",
                   "provider": "file", "type": "ratelimit"}),
        ),
        (
            "auth",
            json!({"basicAuth": {"users": ["xxxx"]}, "status": "enabled", "usedBy": ["app@file"], "name": "auth@file",
                   "provider": "file", "type": "basicauth"}),
        ),
        (
            "secure",
            json!({"headers": {"stsSeconds": 60, "frameDeny": true}, "status": "enabled", "usedBy": ["app@file", "websecure-low@file"],
                   "name": "secure@file", "provider": "file", "type": "headers"}),
        ),
        (
            "retry",
            json!({"retry": {"attempts": 3, "initialInterval": "100ms", "maxRequestBodyBytes": 2_097_152},
                   "status": "enabled", "name": "retry@file", "provider": "file", "type": "retry"}),
        ),
    ] {
        assert_eq!(api(&format!("/api/http/middlewares/{name}@file"), &view), expected);
    }
    let everything = ["/api/rawdata", "/api/http/middlewares", "/api/http/services"]
        .map(|path| api(path, &view).to_string())
        .concat();
    for secret in ["2jmj7l5rSw0yVb", "bob", "hunter2"] {
        assert!(!everything.contains(secret), "{secret}");
    }
}

#[test]
fn an_older_name_is_shown_as_it_is_written() {
    let list = "{sourceRange: [127.0.0.1/32]}";
    let view = view_of(&format!(
        "http: {{middlewares: {{old: {{ipWhiteList: {list}}}, new: {{ipAllowList: {list}}}}}}}\n\
         tcp: {{middlewares: {{old: {{ipWhiteList: {list}}}}}}}"
    ));
    for (name, key) in [
        ("http/middlewares/old", "ipWhiteList"),
        ("http/middlewares/new", "ipAllowList"),
        ("tcp/middlewares/old", "ipWhiteList"),
    ] {
        let shown = api(&format!("/api/{name}@file"), &view);
        assert_eq!(shown[key], json!({"sourceRange": ["127.0.0.1/32"]}), "{name}");
        assert_eq!(shown["type"], json!(key.to_lowercase()), "{name}");
    }
}
