//! `/api/entrypoints`.

use serde_json::json;

use super::names;
use crate::testing::{api, view, with_entry_points};

#[test]
fn entry_points_have_traefiks_shape() {
    let view = view();
    assert_eq!(
        api("/api/entrypoints/websecure", &view),
        json!({
            "address": ":443", "asDefault": true,
            "transport": {
                "lifeCycle": {"graceTimeOut": "10s"},
                "respondingTimeouts": {"readTimeout": "1m30s", "idleTimeout": "3m0s"},
            },
            "forwardedHeaders": {},
            "http": {
                "middlewares": ["secure@file"], "tls": {}, "sanitizePath": true, "maxHeaderBytes": 1_048_576,
            },
            "http2": {
                "maxConcurrentStreams": 250, "maxDecoderHeaderTableSize": 4096, "maxEncoderHeaderTableSize": 4096,
            },
            "udp": {"timeout": "3s"}, "name": "websecure",
        })
    );
    assert_eq!(names(&api("/api/entrypoints", &view)), ["dns", "traefik", "web", "websecure"]);
    let unclean = with_entry_points("secure: {address: ':1', http: {sanitizePath: false}}");
    assert_eq!(api("/api/entrypoints/secure", &unclean)["http"]["sanitizePath"], false);
}
