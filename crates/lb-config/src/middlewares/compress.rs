//! `compress`: answers in a shorter form.

use lb_core::encoding::{Encoding, Offer};

use crate::decode::{Block, Text};
use crate::dynamic::{Compress, Middleware};
use crate::net::is_token;

/// Default of the reference, compress.
const MIN_RESPONSE_BODY_BYTES: u64 = 1024;

/// Without a block: all of its defaults.
pub(super) fn compress(block: Option<&Block<'_>>) -> Option<Middleware> {
    let mut compress = Compress {
        offer: Offer { encodings: Encoding::ALL.to_vec(), default: None },
        min_response_body_bytes: MIN_RESPONSE_BODY_BYTES,
        excluded_content_types: Vec::new(),
        included_content_types: Vec::new(),
    };
    let Some(block) = block else { return Some(Middleware::Compress(compress)) };
    if let Some(field) = block.take("encodings") {
        let texts = field.texts();
        if texts.is_empty() {
            let hint = "list some of `gzip`, `br`, `zstd`, or remove it".to_owned();
            field.warn("the list is empty, which means all of them".to_owned(), Some(hint));
        } else {
            compress.offer.encodings = texts.iter().filter_map(encoding).collect();
        }
    }
    if let Some(field) = block.take_word("defaultEncoding")
        && let Some(text) = field.text()
        && let Some(default) = encoding(&text)
    {
        if !compress.offer.encodings.contains(&default) && !block.report.is_current_broken() {
            let hint = "add it to `encodings`, or choose one of them".to_owned();
            text.error(format!("{} is not among the `encodings`", text.quoted()), Some(hint));
        }
        compress.offer.default = Some(default);
    }
    // Traefik takes its default for what is not more than 0.
    let min = block.take("minResponseBodyBytes").and_then(|field| field.integer(i64::MIN..=i64::MAX));
    let min = min.and_then(|min| u64::try_from(min).ok()).filter(|min| *min > 0);
    compress.min_response_body_bytes = min.unwrap_or(MIN_RESPONSE_BODY_BYTES);
    let types = |key| {
        let texts = block.take(key).map(|field| field.texts()).unwrap_or_default();
        texts.iter().filter_map(media_type).collect::<Vec<_>>()
    };
    compress.excluded_content_types = types("excludedContentTypes");
    compress.included_content_types = types("includedContentTypes");
    if !compress.excluded_content_types.is_empty() && !compress.included_content_types.is_empty() {
        let message = "`excludedContentTypes` and `includedContentTypes` exclude each other".to_owned();
        block.error(message, Some("keep one of them".to_owned()));
    }
    Some(Middleware::Compress(compress))
}

fn encoding(text: &Text<'_>) -> Option<Encoding> {
    let found = Encoding::ALL.into_iter().find(|encoding| encoding.name() == text.value);
    if found.is_none() {
        text.unknown_word(Encoding::ALL.map(Encoding::name));
    }
    found
}

fn media_type(text: &Text<'_>) -> Option<String> {
    let essence = text.value.split(';').next().unwrap_or_default().trim();
    let (kind, subtype) = essence.split_once('/').unwrap_or((essence, "any"));
    if !is_token(kind) || !is_token(subtype) {
        let hint = "write one such as `text/html`".to_owned();
        text.error(format!("{} is not a media type", text.quoted()), Some(hint));
        return None;
    }
    if subtype == "*" || !essence.contains('/') {
        text.warn(
            format!("no answer has the type {}", text.quoted()),
            Some("write each type in full, such as `text/html`".to_owned()),
        );
    }
    Some(text.string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{middleware, middleware_problems};

    fn compressed(text: &str) -> Compress {
        match middleware(&format!("{{compress: {text}}}")) {
            Ok(Middleware::Compress(compress)) => compress,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn compress_has_defaults() {
        let default = compressed("{}");
        assert_eq!(default.offer, Offer { encodings: Encoding::ALL.to_vec(), default: None });
        assert_eq!(default.min_response_body_bytes, 1024);
        for same in
            ["true", "{minResponseBodyBytes: 0}", "{minResponseBodyBytes: -5}", "{defaultEncoding: ''}"]
        {
            assert_eq!(compressed(same), default, "{same}");
        }
        let all = compressed(
            "{encodings: [zstd, br], defaultEncoding: br, minResponseBodyBytes: 7, \
             includedContentTypes: ['Text/HTML; charset=utf-8', application/json]}",
        );
        let encodings = vec![Encoding::Zstd, Encoding::Brotli];
        assert_eq!(all.offer, Offer { encodings, default: Some(Encoding::Brotli) });
        let none = compressed("{encodings: [], defaultEncoding: zstd}");
        assert_eq!(none.offer, Offer { encodings: Encoding::ALL.to_vec(), default: Some(Encoding::Zstd) });
        assert_eq!(all.min_response_body_bytes, 7);
        assert_eq!(all.included_content_types, ["Text/HTML; charset=utf-8", "application/json"]);
    }

    #[test]
    fn what_cannot_work_is_told() {
        for (text, expected) in [
            (
                "{compress: {encodings: []}}",
                "~compress.encodings: the list is empty, which means all of them",
            ),
            (
                "{compress: {encodings: [gzip, deflate]}}",
                "compress.encodings[1]: `deflate` is not a known value",
            ),
            (
                "{compress: {encodings: [gzip], defaultEncoding: br}}",
                "compress.defaultEncoding: `br` is not among the `encodings`",
            ),
            (
                "{compress: {excludedContentTypes: [a/b], includedContentTypes: [c/d]}}",
                "compress: `excludedContentTypes` and `includedContentTypes` exclude each other",
            ),
            (
                "{compress: {excludedContentTypes: ['text/']}}",
                "compress.excludedContentTypes[0]: `text/` is not a media type",
            ),
            (
                "{compress: {includedContentTypes: ['text/*']}}",
                "~compress.includedContentTypes[0]: no answer has the type `text/*`",
            ),
            (
                "{compress: {minResponseBodyBytes: x}}",
                "compress.minResponseBodyBytes: expected a whole number, found `x`",
            ),
            ("{compress: {level: 3}}", "compress.level: there is no key `level` here"),
            ("{compress: false}", ": the middleware has no kind"),
            ("{compress: maybe}", "compress: expected a map or `true`, found `maybe`"),
        ] {
            assert_eq!(middleware_problems(text), [expected], "{text}");
        }
    }
}
