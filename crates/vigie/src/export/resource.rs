//! Who says all this: the attributes that every signal of this process carries.

use std::collections::BTreeMap;

use lb_observe::otlp::{self, Value};

/// Later ones win: what is known of the process, the configuration, `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`.
pub(super) fn encoded(service: &str, configured: &BTreeMap<String, String>) -> Vec<u8> {
    let variable = |name: &str| std::env::var(name).ok();
    let attributes = merged(service, configured, variable);
    let pid = i64::from(std::process::id());
    let texts = attributes.iter().map(|(key, value)| (key.as_str(), Value::Text(value)));
    otlp::resource(texts.chain([("process.pid", Value::Int(pid))]))
}

fn merged(
    service: &str,
    configured: &BTreeMap<String, String>,
    variable: impl Fn(&str) -> Option<String>,
) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    let mut set = |key: &str, value: &str| drop(attributes.insert(key.to_owned(), value.to_owned()));
    set("host.name", &crate::machine::host_name());
    set("os.type", std::env::consts::OS);
    if let Ok(path) = std::env::current_exe() {
        let name = path.file_name().unwrap_or_default();
        set("process.executable.name", &name.to_string_lossy());
        set("process.executable.path", &path.to_string_lossy());
    }
    set("telemetry.sdk.language", "rust");
    set("telemetry.sdk.name", "vigie");
    set("telemetry.sdk.version", crate::VERSION);
    set("service.name", service);
    set("service.version", crate::VERSION);
    configured.iter().for_each(|(key, value)| set(key, value));
    let listed = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    for (key, value) in listed.split(',').filter_map(|pair| pair.split_once('=')) {
        set(key.trim(), value.trim());
    }
    if let Some(name) = variable("OTEL_SERVICE_NAME").filter(|name| !name.is_empty()) {
        set("service.name", &name);
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_has_the_last_word() {
        let configured = BTreeMap::from([("team".to_owned(), "blue".to_owned())]);
        let merged = |variables: &[(&str, &str)]| {
            let find = |name: &str| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            };
            merged("shop", &configured, find)
        };
        let plain = merged(&[]);
        assert_eq!((&*plain["service.name"], &*plain["team"]), ("shop", "blue"));
        let variables = [("OTEL_RESOURCE_ATTRIBUTES", "team=red, zone=a"), ("OTEL_SERVICE_NAME", "other")];
        let told = merged(&variables);
        assert_eq!((&*told["service.name"], &*told["team"], &*told["zone"]), ("other", "red", "a"));
    }
}
