//! `/api/http/middlewares`.

use serde_json::json;

use crate::testing::{api, view};

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
