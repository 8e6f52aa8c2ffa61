//! Middlewares that change where a request goes: `addPrefix`, `stripPrefix`, `replacePath`, `redirectScheme`.

use crate::decode::Block;
use crate::dynamic::{Middleware, RedirectScheme};
use crate::problem::quoted;

pub(super) fn add_prefix(block: &Block<'_>) -> Option<Middleware> {
    let field = block.require("prefix", "write `prefix: /api`")?;
    let prefix = field.string()?;
    if prefix.is_empty() {
        field.error("the prefix is empty".to_owned(), None);
        return None;
    }
    Some(Middleware::AddPrefix { prefix })
}

pub(super) fn strip_prefix(block: &Block<'_>) -> Option<Middleware> {
    let prefixes = block.take("prefixes").map(|field| field.texts()).unwrap_or_default();
    let prefixes = prefixes.iter().map(|text| text.value.to_owned()).collect();
    let force_slash = block.take_unlisted("forceSlash").and_then(|field| field.boolean());
    Some(Middleware::StripPrefix { prefixes, force_slash })
}

pub(super) fn replace_path(block: &Block<'_>) -> Option<Middleware> {
    let path = block.require("path", "write `path: /new`")?.string()?;
    Some(Middleware::ReplacePath { path })
}

pub(super) fn redirect_scheme(block: &Block<'_>) -> Option<Middleware> {
    let scheme = block.require("scheme", "write `scheme: https`").and_then(|field| field.text());
    let port = block.take("port").and_then(|field| field.text()).filter(|text| !text.value.is_empty());
    let permanent = block.take("permanent").and_then(|field| field.boolean()).unwrap_or(false);
    if let Some(port) = &port
        && (port.value.parse::<u16>().is_err() || port.value.starts_with('+'))
    {
        port.error(format!("{} is not a port", quoted(port.value)), None);
    }
    let scheme = scheme?;
    // RFC 3986 section 3.1; anything else would end up in the Location of every answer.
    let valid = scheme.value.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.value.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    if !valid {
        scheme.error(format!("{} is not a scheme", quoted(scheme.value)), Some("write `https`".to_owned()));
    }
    Some(Middleware::RedirectScheme(RedirectScheme {
        // As a URL is written (RFC 3986 section 6.2.2.1); it is compared with the scheme of the request.
        scheme: scheme.value.to_ascii_lowercase(),
        port: port.map(|text| text.value.to_owned()),
        permanent,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{middleware, middleware_problems};

    #[test]
    fn options_are_read() {
        let redirect = |port: Option<&str>, permanent| {
            let port = port.map(str::to_owned);
            Middleware::RedirectScheme(RedirectScheme { scheme: "https".to_owned(), port, permanent })
        };
        let strip = |force_slash| {
            let prefixes = vec!["/a".to_owned(), "/b".to_owned()];
            Middleware::StripPrefix { prefixes, force_slash }
        };
        for (text, expected) in [
            ("{addPrefix: {prefix: /a}}", Middleware::AddPrefix { prefix: "/a".to_owned() }),
            ("{replacePath: {path: /a}}", Middleware::ReplacePath { path: "/a".to_owned() }),
            ("{stripPrefix: {prefixes: '/a, /b'}}", strip(None)),
            ("{stripPrefix: {prefixes: [/a, /b], forceSlash: true}}", strip(Some(true))),
            ("{redirectScheme: {scheme: https, port: 8443}}", redirect(Some("8443"), false)),
            ("{redirectScheme: {scheme: HTTPS, permanent: true}}", redirect(None, true)),
        ] {
            assert_eq!(middleware(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_work_is_told() {
        for (text, expected) in [
            ("{addPrefix: {prefix: ''}}", "addPrefix.prefix: the prefix is empty"),
            ("{redirectScheme: {permanent: true}}", "redirectScheme: `scheme` is missing"),
            ("{redirectScheme: {scheme: 'ht tp'}}", "redirectScheme.scheme: `ht tp` is not a scheme"),
            ("{redirectScheme: {scheme: https, port: x}}", "redirectScheme.port: `x` is not a port"),
        ] {
            assert_eq!(middleware_problems(text), [expected], "{text}");
        }
    }
}
