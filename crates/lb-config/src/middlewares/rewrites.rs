//! Middlewares that look at the target by regular expressions, `encodedCharacters`, `contentType` and `grpcWeb`.

use lb_core::rewrite::Rewrite;
use lb_core::route::Pattern;

use crate::decode::{Block, Text};
use crate::dynamic::{Middleware, RedirectRegex, StripPrefixRegex};
use crate::problem::quoted;
use crate::static_config::EncodedCharacters;

const HINT: &str = "expressions are those of Go: without look-around and back-references";

pub(super) fn redirect_regex(block: &Block<'_>) -> Option<Middleware> {
    let rewrite = rewrite(block, "write `regex: ^http://old\\.example\\.com/(.*)`", |text| text);
    let permanent = block.take("permanent").and_then(|field| field.boolean()).unwrap_or(false);
    Some(Middleware::RedirectRegex(RedirectRegex { rewrite: rewrite?, permanent }))
}

pub(super) fn replace_path_regex(block: &Block<'_>) -> Option<Middleware> {
    // Traefik trims these two, and only here.
    rewrite(block, "write `regex: ^/old/(.*)`", str::trim).map(Middleware::ReplacePathRegex)
}

/// `regex` and `replacement`.
fn rewrite(block: &Block<'_>, hint: &str, trim: impl Fn(&str) -> &str) -> Option<Rewrite> {
    let regex = block.require("regex", hint).and_then(|field| field.text());
    let replacement = block.take("replacement").and_then(|field| field.text());
    let regex = regex?;
    let with = replacement.as_ref().map_or("", |text| trim(text.value));
    if trim(regex.value).is_empty() {
        regex.error("the expression is empty and matches everywhere", Some(hint.to_owned()));
        return None;
    }
    let rewrite = match Rewrite::new(trim(regex.value), with) {
        Ok(rewrite) => rewrite,
        Err(reason) => {
            invalid(&regex, &reason);
            return None;
        }
    };
    if let Some(text) = &replacement {
        for group in rewrite.missing() {
            let hint = Some("the number or name of a group ends where `{}` end it: `${1}x`".to_owned());
            text.warn(format!("{} is always empty: the expression has no such group", quoted(group)), hint);
        }
    }
    Some(rewrite)
}

fn invalid(text: &Text<'_>, reason: &str) {
    text.error(format!("{}: {reason}", quoted(text.value)), Some(HINT.to_owned()));
}

/// Without origins pages of other origins cannot ask, programs can.
pub(super) fn grpc_web(block: &Block<'_>) -> Option<Middleware> {
    let origins = block.take("allowOrigins").map(|field| field.texts()).unwrap_or_default();
    for text in &origins {
        // RFC 6454 section 6.2: scheme, host and port, which is what browsers send.
        if text.value != "*"
            && text.value != "null"
            && (!text.value.contains("://") || text.value.ends_with('/'))
        {
            let hint = "write `https://app.example.com`, without a path, or `*`".to_owned();
            text.warn(format!("{} is no origin that a browser sends", quoted(text.value)), Some(hint));
        }
    }
    Some(Middleware::GrpcWeb { allow_origins: origins.iter().map(|text| text.value.to_owned()).collect() })
}

pub(super) fn strip_prefix_regex(block: &Block<'_>) -> Option<Middleware> {
    let (mut patterns, mut texts) = (Vec::new(), Vec::new());
    for text in block.take("regex").map(|field| field.texts()).unwrap_or_default() {
        match Pattern::parse(text.value) {
            Ok(pattern) => {
                patterns.push(pattern);
                texts.push(text.value.to_owned());
            }
            Err(reason) => invalid(&text, &reason),
        }
    }
    Some(Middleware::StripPrefixRegex(StripPrefixRegex { patterns, texts }))
}

/// Unlike at an entry point, what is not allowed is denied.
pub(super) fn encoded_characters(block: &Block<'_>) -> Option<Middleware> {
    Some(Middleware::EncodedCharacters(allowed_characters(block, false)))
}

/// Entry points have the same keys, with another default.
pub(crate) fn allowed_characters(block: &Block<'_>, default: bool) -> EncodedCharacters {
    let allowed = |key| block.take(key).and_then(|field| field.boolean()).unwrap_or(default);
    EncodedCharacters {
        slash: allowed("allowEncodedSlash"),
        back_slash: allowed("allowEncodedBackSlash"),
        null_character: allowed("allowEncodedNullCharacter"),
        semicolon: allowed("allowEncodedSemicolon"),
        percent: allowed("allowEncodedPercent"),
        question_mark: allowed("allowEncodedQuestionMark"),
        hash: allowed("allowEncodedHash"),
    }
}

/// Traefik's old option `autoDetect: false` makes a middleware that does nothing.
pub(super) fn content_type(block: Option<&Block<'_>>) -> Option<Middleware> {
    let detect = block.and_then(|block| block.take("autoDetect"));
    if let Some(field) = &detect {
        field.warn_at_key(
            "is not needed: the middleware detects types".to_owned(),
            Some("write `{}`".to_owned()),
        );
    }
    let auto_detect = detect.and_then(|field| field.boolean());
    Some(Middleware::ContentType { auto_detect })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{middleware, middleware_problems};

    #[test]
    fn options_are_read() {
        let rewrite = |regex, with| Rewrite::new(regex, with).unwrap();
        let none = EncodedCharacters {
            slash: false,
            back_slash: false,
            null_character: false,
            semicolon: false,
            percent: false,
            question_mark: false,
            hash: false,
        };
        for (text, expected) in [
            (
                "{redirectRegex: {regex: '^http://(.*)', replacement: 'https://$1', permanent: true}}",
                Middleware::RedirectRegex(RedirectRegex {
                    rewrite: rewrite("^http://(.*)", "https://$1"),
                    permanent: true,
                }),
            ),
            (
                "{replacePathRegex: {regex: ' ^/(a) ', replacement: ' /$1 '}}",
                Middleware::ReplacePathRegex(rewrite("^/(a)", "/$1")),
            ),
            ("{replacePathRegex: {regex: ^/a}}", Middleware::ReplacePathRegex(rewrite("^/a", ""))),
            (
                "{grpcWeb: {allowOrigins: [https://a.test, '*']}}",
                Middleware::GrpcWeb { allow_origins: vec!["https://a.test".to_owned(), "*".to_owned()] },
            ),
            ("{contentType: {}}", Middleware::ContentType { auto_detect: None }),
            ("{contentType: true}", Middleware::ContentType { auto_detect: None }),
            ("{contentType: {autoDetect: false}}", Middleware::ContentType { auto_detect: Some(false) }),
            (
                "{encodedCharacters: {allowEncodedSlash: true, allowEncodedHash: false}}",
                Middleware::EncodedCharacters(EncodedCharacters { slash: true, ..none }),
            ),
        ] {
            assert_eq!(middleware(text), Ok(expected), "{text}");
        }
        let Ok(Middleware::StripPrefixRegex(strip)) =
            middleware("{stripPrefixRegex: {regex: ['^/a{1,2}', ' ^/b']}}")
        else {
            panic!("it is one");
        };
        assert_eq!(strip.texts, ["^/a{1,2}", "^/b"]);
        assert_eq!(strip.patterns[1].find("/bc"), Some("/b"));
    }

    #[test]
    fn what_cannot_work_is_told() {
        for (text, expected) in [
            ("{redirectRegex: {replacement: x}}", "redirectRegex: `regex` is missing"),
            (
                "{redirectRegex: {regex: '(', replacement: x}}",
                "redirectRegex.regex: `(`: invalid regular expression: unclosed group",
            ),
            (
                "{replacePathRegex: {regex: ' ', replacement: x}}",
                "replacePathRegex.regex: the expression is empty and matches everywhere",
            ),
            (
                "{replacePathRegex: {regex: '(a)', replacement: '/$1x'}}",
                "~replacePathRegex.replacement: `$1x` is always empty: the expression has no such group",
            ),
            (
                "{stripPrefixRegex: {regex: [a, '[']}}",
                "stripPrefixRegex.regex[1]: `[`: invalid regular expression: unclosed character class",
            ),
            (
                "{contentType: {autoDetect: true}}",
                "~contentType.autoDetect: is not needed: the middleware detects types",
            ),
            ("{grpcWeb: {}}", "grpcWeb: cannot be a standalone element: `{}` is empty"),
            ("{grpcWeb: {origins: a}}", "grpcWeb.origins: there is no key `origins` here"),
            (
                "{grpcWeb: {allowOrigins: [app.test]}}",
                "~grpcWeb.allowOrigins[0]: `app.test` is no origin that a browser sends",
            ),
            ("{contentType: false}", ": the middleware has no kind"),
            (
                "{encodedCharacters: {allowEncodedSlashes: true}}",
                "encodedCharacters.allowEncodedSlashes: there is no key `allowEncodedSlashes` here",
            ),
        ] {
            assert_eq!(middleware_problems(text), [expected], "{text}");
        }
    }
}
