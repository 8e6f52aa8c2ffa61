//! `ocsp`: responses of authorities, stapled to certificates.

use crate::decode::{Enabled, Field};
use crate::problem::quoted;
use crate::static_config::Ocsp;

pub(super) fn read(field: &Field<'_>) -> Option<Ocsp> {
    let mut ocsp = Ocsp::default();
    let block = match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => return Some(ocsp),
        Enabled::With(block) => block,
    };
    for (name, field) in block.take("responderOverrides").map(|field| field.dotted()).unwrap_or_default() {
        let Some(text) = field.text() else { continue };
        if text.value.starts_with("http://") {
            ocsp.responder_overrides.insert(name, text.value.to_owned());
        } else {
            let message = match text.value {
                "" => "names no responder".to_owned(),
                other => format!("{} is no address of a responder", quoted(other)),
            };
            text.error(message, Some("write `http://HOST:PORT/`: the answers are signed".to_owned()));
        }
    }
    block.finish();
    Some(ocsp)
}

#[cfg(test)]
mod tests {
    use crate::parse_static;

    #[test]
    fn it_is_switched_on_by_its_presence() {
        for (text, overrides) in [
            ("ocsp: {}", Some(0)),
            ("ocsp: true", Some(0)),
            ("ocsp: false", None),
            ("", None),
            ("ocsp: {responderOverrides: {'http://a/': 'http://127.0.0.1:9/x', b: 'http://c'}}", Some(2)),
        ] {
            let (config, warnings) = parse_static("vigie.yml", text).unwrap();
            assert!(warnings.is_empty(), "{text}");
            assert_eq!(config.ocsp.map(|ocsp| ocsp.responder_overrides.len()), overrides, "{text}");
        }
        for (text, expected) in [
            ("ocsp: {responderOverrides: {a: ''}}", "ocsp.responderOverrides.a: names no responder"),
            (
                "ocsp: {responderOverrides: {a: 'https://b'}}",
                "ocsp.responderOverrides.a: `https://b` is no address of a responder",
            ),
            ("ocsp: {responder: x}", "ocsp.responder: there is no key `responder` here"),
        ] {
            let problems = parse_static("vigie.yml", text).unwrap_err().to_string();
            assert!(problems.contains(expected), "{text}: {problems}");
        }
    }
}
