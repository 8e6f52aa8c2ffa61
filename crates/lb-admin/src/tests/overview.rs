//! `/api/overview` and what holds everything.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;

use flate2::read::GzDecoder;
use serde_json::{Value, json};

use super::{assert_has, header};
use crate::testing::{api, ask, view};
use crate::{Fault, Internal, Trouble};

#[test]
fn overview_counts() {
    let mut view = view();
    view.faults.push(Fault {
        kind: lb_config::Kind::Router,
        name: "low@file".into(),
        trouble: Trouble::Warning,
        message: "odd".into(),
    });
    let overview = api("/api/overview", &view);
    assert_has(
        &overview,
        &[
            // Four of the file, one of them twice, and six internal.
            ("/http/routers", json!({"total": 11, "warnings": 2, "errors": 1})),
            ("/http/services", json!({"total": 7, "warnings": 0, "errors": 0})),
            ("/http/middlewares", json!({"total": 4, "warnings": 0, "errors": 0})),
            ("/udp/services/total", json!(0)),
            ("/features", json!({"tracing": "", "metrics": "Prometheus", "accessLog": true})),
            ("/providers", json!(["File"])),
        ],
    );
    let exported = "tracing: {}\nmetrics: {otlp: {}, statsD: {}}\nproviders: {file: {filename: d.yml}}";
    view.static_config = Arc::new(lb_config::parse_static("vigie.yml", exported).unwrap().0);
    let features = json!({"tracing": "OTLP", "metrics": "StatsD", "accessLog": false});
    assert_has(&api("/api/overview", &view), &[("/features", features)]);
}

#[test]
fn raw_data_leaves_out_what_its_keys_say() {
    let view = view();
    let raw = api("/api/rawdata", &view);
    assert_has(
        &raw,
        &[
            ("/routers/app@file/status", json!("enabled")),
            ("/services/app@file/serverStatus/http:~1~110.0.0.1:80", json!("UP")),
            ("/middlewares/limit@file/rateLimit/burst", json!(50)),
        ],
    );
    for (kind, name) in [("routers", "app@file"), ("services", "app@file"), ("middlewares", "auth@file")] {
        for key in ["name", "provider", "type", "priorityStr"] {
            assert_eq!(raw[kind][name].get(key), None, "{kind} {key}");
        }
    }
    assert_eq!(raw.get("tcpRouters"), None);
}

#[test]
fn a_support_dump_holds_everything_but_secrets() {
    let view = view();
    let response = ask(Internal::Api, "/api/support-dump", &view);
    assert_eq!(header(&response, "Content-Type"), Some("application/gzip"));
    assert_eq!(header(&response, "Content-Disposition"), Some("attachment; filename=support-dump.tar.gz"));
    let mut archive = Vec::new();
    GzDecoder::new(&response.body[..]).read_to_end(&mut archive).unwrap();
    let mut files = BTreeMap::new();
    let mut rest = &archive[..];
    while rest[0] != 0 {
        let (header, behind) = rest.split_at(512);
        let octal = |field: &[u8]| usize::from_str_radix(str::from_utf8(field).unwrap(), 8).unwrap();
        let sum: usize = header
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { usize::from(*byte) })
            .sum();
        assert_eq!((octal(&header[148..154]), &header[257..265]), (sum, &b"ustar\x0000"[..]));
        let (name, size) = (header.split(|byte| *byte == 0).next().unwrap(), octal(&header[124..135]));
        let content: Value = serde_json::from_slice(&behind[..size]).unwrap();
        files.insert(String::from_utf8(name.to_vec()).unwrap(), content);
        rest = &behind[size.next_multiple_of(512)..];
    }
    assert_eq!(rest, [0; 1024], "two empty blocks are the end");
    assert_eq!(files["version.json"]["version"], "1.2.3");
    assert_eq!(files["version.json"]["codename"], "vigie");
    assert_eq!(files["static-config.json"]["entryPoints"]["web"]["address"], "xxxx");
    assert_eq!(files["static-config.json"]["ping"]["terminatingStatusCode"], 410);
    assert_eq!(files["runtime-config.json"], api("/api/rawdata", &view));
    assert_eq!(files["configuration.json"], api("/api/configuration", &view));
}
