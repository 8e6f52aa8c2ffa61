//! The `headers` middleware: custom fields, CORS, security.

use crate::decode::{Block, Field, Text};
use crate::dynamic::{Headers, Middleware};
use crate::net::is_token;
use crate::problem::quoted;

/// Options that Traefik still reads and does nothing with.
const WITHOUT_EFFECT: [&str; 6] =
    ["featurePolicy", "publicKey", "sslForceHost", "sslHost", "sslRedirect", "sslTemporaryRedirect"];

pub(super) fn headers(block: &Block<'_>) -> Option<Middleware> {
    let map = |key| block.take(key).map(|field| header_map(&field)).unwrap_or_default();
    let names = |key| block.take(key).map(|field| names(&field)).unwrap_or_default();
    let list = |key| block.take(key).map(|field| values(&field)).unwrap_or_default();
    let flag = |key| block.take(key).and_then(|field| field.boolean()).unwrap_or(false);
    let text = |key| block.take(key).and_then(|field| value(&field)).unwrap_or_default();
    let seconds = |key| block.take(key).and_then(|field| field.integer(0..=i64::MAX));
    let sts_seconds = seconds("stsSeconds");
    let headers = Headers {
        custom_request_headers: map("customRequestHeaders"),
        custom_response_headers: map("customResponseHeaders"),
        access_control_allow_origin_list: list("accessControlAllowOriginList"),
        access_control_allow_origin_list_regex: block
            .take("accessControlAllowOriginListRegex")
            .map(|field| patterns(&field))
            .unwrap_or_default(),
        access_control_allow_methods: list("accessControlAllowMethods"),
        access_control_allow_headers: list("accessControlAllowHeaders"),
        access_control_expose_headers: list("accessControlExposeHeaders"),
        access_control_allow_credentials: flag("accessControlAllowCredentials"),
        access_control_max_age: seconds("accessControlMaxAge"),
        add_vary_header: flag("addVaryHeader"),
        allowed_hosts: list("allowedHosts"),
        hosts_proxy_headers: names("hostsProxyHeaders"),
        ssl_proxy_headers: map("sslProxyHeaders"),
        sts_seconds: sts_seconds.unwrap_or(0),
        sts_include_subdomains: flag("stsIncludeSubdomains"),
        sts_preload: flag("stsPreload"),
        force_sts_header: flag("forceSTSHeader"),
        frame_deny: flag("frameDeny"),
        custom_frame_options_value: text("customFrameOptionsValue"),
        content_type_nosniff: flag("contentTypeNosniff"),
        browser_xss_filter: flag("browserXssFilter"),
        custom_browser_xss_value: text("customBrowserXSSValue"),
        content_security_policy: text("contentSecurityPolicy"),
        content_security_policy_report_only: text("contentSecurityPolicyReportOnly"),
        referrer_policy: text("referrerPolicy"),
        permissions_policy: text("permissionsPolicy"),
        is_development: flag("isDevelopment"),
    };
    let dead = WITHOUT_EFFECT.iter().any(|key| block.take_unlisted(key).is_some());
    block.without_effect(&WITHOUT_EFFECT, "Traefik v3 does nothing with it either");
    if headers == Headers::default() && !dead && !block.report.is_current_broken() {
        let (message, hint) =
            ("no option is set, so it would do nothing".to_owned(), Some("remove it".to_owned()));
        // A written 0 is enough for Traefik.
        if sts_seconds.is_some() { block.warn(message, hint) } else { block.error(message, hint) }
    }
    Some(Middleware::Headers(Box::new(headers)))
}

/// Field names to values, both checked to be sendable (RFC 9110 section 5).
pub(crate) fn header_map(field: &Field<'_>) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (entry, field) in field.map() {
        if !is_token(&entry.key) {
            field.error_at_key(format!("{} is not a header name", quoted(&entry.key)), None);
        } else if let Some(value) = value(&field) {
            headers.push((entry.key.to_string(), value));
        }
    }
    headers
}

/// Text that can be sent as a field value. The value is not repeated: it may be a secret.
fn value(field: &Field<'_>) -> Option<String> {
    let value = field.string()?;
    if value.chars().any(|c| c.is_control() && c != '\t') {
        let hint = "a header value is one line; `>-` folds several lines into one".to_owned();
        field.error("the value holds a line break or another control character".to_owned(), Some(hint));
        return None;
    }
    Some(value)
}

/// The elements of a list, each sendable in a field value.
fn values(field: &Field<'_>) -> Vec<String> {
    let mut values = Vec::new();
    for text in field.texts() {
        if text.value.chars().any(char::is_control) {
            text.error("the value holds a control character", None);
        } else {
            values.push(text.value.to_owned());
        }
    }
    values
}

pub(super) fn names(field: &Field<'_>) -> Vec<String> {
    let mut names = Vec::new();
    let texts = field.texts();
    for text in &texts {
        if is_token(text.value) {
            names.push(text.value.to_owned());
        } else if text.value.is_empty() && texts.iter().any(|other| !other.value.is_empty()) {
            // As in Traefik. An empty list may mean all names, so one with nothing else in it is wrong.
            text.warn("an empty name is left out", Some("remove the comma that is too much".to_owned()));
        } else {
            text.error(format!("{} is not a header name", quoted(text.value)), None);
        }
    }
    names
}

fn patterns(field: &Field<'_>) -> Vec<String> {
    field.texts().iter().filter_map(pattern).collect()
}

pub(super) fn pattern(text: &Text<'_>) -> Option<String> {
    if let Err(reason) = lb_core::route::go_regex(text.value) {
        let reason = reason.trim_start_matches("invalid regular expression: ");
        let hint = "look-around and back-references do not exist here".to_owned();
        text.error(format!("{} is not a regular expression: {reason}", quoted(text.value)), Some(hint));
        return None;
    }
    Some(text.value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{middleware, middleware_problems};

    #[test]
    fn headers_keep_their_spelling_and_order() {
        let Ok(Middleware::Headers(headers)) =
            middleware("{headers: {customRequestHeaders: {X-B: '1', x-a: '', X-N: 5}, stsSeconds: 60}}")
        else {
            panic!("no headers")
        };
        let names: Vec<_> = headers.custom_request_headers.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(names, ["X-B=1", "x-a=", "X-N=5"]);
        assert_eq!(headers.sts_seconds, 60);
    }

    #[test]
    fn a_written_zero_is_an_age() {
        for (text, expected) in [("accessControlMaxAge: 0", Some(0)), ("frameDeny: true", None)] {
            let Ok(Middleware::Headers(headers)) = middleware(&format!("{{headers: {{{text}}}}}")) else {
                panic!("no headers: {text}")
            };
            assert_eq!(headers.access_control_max_age, expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_work_is_told() {
        for (text, expected) in [
            ("{headers: {frameDeny: false}}", "headers: no option is set, so it would do nothing"),
            ("{headers: {stsSeconds: 0}}", "~headers: no option is set, so it would do nothing"),
            (
                "{headers: {customRequestHeaders: {X-A: {b: c}}}}",
                "headers.customRequestHeaders.X-A: expected a single value, found a map",
            ),
            (
                "{headers: {hostsProxyHeaders: 'X-A, X-B,', frameDeny: true}}",
                "~headers.hostsProxyHeaders: an empty name is left out",
            ),
            (
                "{headers: {hostsProxyHeaders: [' '], frameDeny: true}}",
                "headers.hostsProxyHeaders[0]: `` is not a header name",
            ),
            (
                "{headers: {sslRedirect: true}}",
                "~headers.sslRedirect: has no effect: Traefik v3 does nothing with it either",
            ),
            (
                "{headers: {customRequestHeaders: {'X A': b}}}",
                "headers.customRequestHeaders.X A: `X A` is not a header name",
            ),
            (
                "{headers: {customResponseHeaders: {X-A: \"b\\r\\nSet-Cookie: c\"}}}",
                "headers.customResponseHeaders.X-A: the value holds a line break or another control character",
            ),
            (
                "{headers: {frameDeny: true, customResponseHeaders: {X-A: }}}",
                "~headers.customResponseHeaders.X-A: `X-A` has no value and is ignored",
            ),
            (
                "{headers: {customResponseHeaders: {X-A: 1.10}}}",
                "~headers.customResponseHeaders.X-A: `1.10` without quotes is read as `1.100000`",
            ),
        ] {
            assert_eq!(middleware_problems(text), [expected], "{text}");
        }
        let of_go = r"{headers: {accessControlAllowOriginListRegex: ['^\Qhttps://a.test\E$']}}";
        assert!(middleware(of_go).is_ok());
        let regex = middleware_problems("{headers: {accessControlAllowOriginListRegex: ['(?!a)']}}");
        assert!(
            regex[0].contains("accessControlAllowOriginListRegex[0]: `(?!a)` is not a regular expression: "),
            "{regex:?}"
        );
    }
}
