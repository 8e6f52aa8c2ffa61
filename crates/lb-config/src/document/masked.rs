//! A configuration as it is written, for the eyes of strangers: whoever helps the operator.
//!
//! What is not known to be harmless is masked: addresses, users, paths of logs, values of headers.

use serde_json::Value as Json;

use super::{Node, Value};

/// The mask that Traefik prints over secrets.
const MASK: &str = "xxxx";

/// Keys whose texts are names within the configuration, one of a few words, or where it lies.
const SHOWN: [&str; 25] = [
    "aliasHeadersStrategy",
    "certResolver",
    "cipherSuites",
    "defaultMode",
    "defaultRuleSyntax",
    "directory",
    "encoding",
    "entryPoint",
    "filename",
    "format",
    "keyType",
    "level",
    "maxVersion",
    "memoryLimit",
    "middlewares",
    "minVersion",
    "options",
    "precedence",
    "preferredChain",
    "scheme",
    "serviceName",
    "storage",
    "to",
    "traceVerbosity",
    "underscoreHeadersStrategy",
];

/// What keys are called whose values are masked even where they look like a number.
const SECRET: [&str; 7] = ["headers", "hmac", "kid", "password", "secret", "token", "user"];

pub(crate) fn masked(node: &Node) -> Json {
    show(node, "", false)
}

fn show(node: &Node, key: &str, secret: bool) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Scalar(scalar) => text(scalar.written.as_ref().unwrap_or(&scalar.text), key, secret),
        Value::List(items) => items.iter().map(|item| show(item, key, secret)).collect(),
        Value::Map(entries) => {
            let shown = entries.iter().map(|entry| {
                let name = entry.key.to_ascii_lowercase();
                let secret = secret || SECRET.iter().any(|word| name.contains(word));
                (entry.key.to_string(), show(&entry.value, &entry.key, secret))
            });
            Json::Object(shown.collect())
        }
    }
}

fn text(text: &str, key: &str, secret: bool) -> Json {
    // What a log does with a field.
    let is_word = matches!(text, "" | "keep" | "drop" | "redact");
    let is_shown = || SHOWN.iter().any(|shown| shown.eq_ignore_ascii_case(key));
    let is_quantity = || text.parse::<f64>().is_ok() || crate::duration::duration(text).is_ok();
    if !secret && let Ok(number) = text.parse::<i64>() {
        return number.into();
    }
    if let Ok(flag) = text.parse::<bool>() {
        return flag.into();
    }
    if is_word || !secret && (is_shown() || is_quantity()) { text.into() } else { MASK.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn what_is_not_known_to_be_harmless_is_masked() {
        let text = "entryPoints: {web: {address: ':80', forwardedHeaders: {trustedIPs: [192.0.2.1]}, \
                    http: {middlewares: [auth@file], redirections: {entryPoint: {to: web, scheme: https}}}, \
                    transport: {respondingTimeouts: {readTimeout: 5s}}}}\n\
                    api: {insecure: true, token: '12345678901234567890'}\n\
                    providers: {http: {endpoint: 'http://u:p@example.com', headers: {X-Pin: '1234'}}, \
                    redis: {rootKey: t, username: u, password: p, db: 3}}\n\
                    accessLog: {filePath: /var/log/a, fields: {headers: {defaultMode: keep, names: {Cookie: redact}}}}\n\
                    tracing: {sampleRate: 0.5}\n";
        let (config, _) = crate::parse_static("traefik.yml", text).unwrap();
        assert_eq!(
            config.written,
            json!({
                "entryPoints": {"web": {"address": "xxxx", "forwardedHeaders": {"trustedIPs": ["xxxx"]},
                    "http": {"middlewares": ["auth@file"],
                             "redirections": {"entryPoint": {"to": "web", "scheme": "https"}}},
                    "transport": {"respondingTimeouts": {"readTimeout": "5s"}}}},
                "api": {"insecure": true, "token": "xxxx"},
                "providers": {"http": {"endpoint": "xxxx", "headers": {"X-Pin": "xxxx"}},
                    "redis": {"rootKey": "xxxx", "username": "xxxx", "password": "xxxx", "db": 3}},
                "accessLog": {"filePath": "xxxx",
                    "fields": {"headers": {"defaultMode": "keep", "names": {"Cookie": "redact"}}}},
                "tracing": {"sampleRate": "0.5"},
            })
        );
    }
}
