//! `http.middlewares`: one file per family.

mod asking;
mod auth;
mod buffering;
mod client_cert;
mod compress;
mod digest;
mod headers;
mod limits;
mod paths;
mod redis;
mod resilience;
mod rewrites;

use std::cell::RefCell;

pub(crate) use headers::{header_map, names as header_names};
pub(crate) use rewrites::allowed_characters;

use crate::decode::{Block, Enabled, Field};
use crate::dynamic::Middleware;
use crate::dynamics::Draft;
use crate::problem::Kind;

/// What Traefik has beyond that; a middleware of such a kind is a problem, never a pass-through.
const UNSUPPORTED: [&str; 1] = ["plugin"];

/// The kinds of one middleware, read as they are found.
struct Kinds<'b, 'a> {
    block: &'b Block<'a>,
    found: RefCell<Vec<Option<Middleware>>>,
}

impl<'a> Kinds<'_, 'a> {
    fn of(&self, key: &'static str, read: impl FnOnce(&Block<'a>) -> Option<Middleware>) {
        if let Some(field) = self.block.take(key) {
            let middleware = field.block().and_then(|block| {
                let middleware = read(&block);
                block.finish();
                middleware
            });
            self.found.borrow_mut().push(middleware);
        }
    }

    /// As [`of`](Self::of), for a kind that `{}` or `true` switch on.
    fn switched(&self, key: &'static str, read: impl FnOnce(Option<&Block<'a>>) -> Option<Middleware>) {
        if let Some(field) = self.block.take(key) {
            let middleware = match field.enabled() {
                Enabled::Off if self.block.report.is_current_broken() => None,
                // As if it were not there.
                Enabled::Off => return,
                Enabled::Plain => read(None),
                Enabled::With(block) => {
                    let middleware = read(Some(&block));
                    block.finish();
                    middleware
                }
            };
            self.found.borrow_mut().push(middleware);
        }
    }
}

pub(crate) fn read<'a>(draft: &mut Draft<'a>, name: &str, field: &Field<'a>) -> Option<Middleware> {
    let block = field.object()?;
    let kinds = Kinds { block: &block, found: RefCell::new(Vec::new()) };
    kinds.of("addPrefix", paths::add_prefix);
    kinds.of("basicAuth", auth::basic_auth);
    kinds.of("buffering", buffering::buffering);
    kinds.of("chain", |block| chain(draft, name, block));
    kinds.of("circuitBreaker", resilience::circuit_breaker);
    kinds.switched("contentType", rewrites::content_type);
    kinds.of("digestAuth", digest::digest_auth);
    kinds.of("encodedCharacters", rewrites::encoded_characters);
    kinds.of("errors", |block| asking::errors(draft, name, block));
    kinds.of("forwardAuth", asking::forward_auth);
    kinds.switched("compress", compress::compress);
    kinds.of("grpcWeb", rewrites::grpc_web);
    kinds.of("headers", headers::headers);
    kinds.of("inFlightReq", limits::in_flight_req);
    kinds.of("ipAllowList", limits::ip_allow_list);
    kinds.of("ipWhiteList", limits::ip_white_list);
    kinds.of("passTLSClientCert", client_cert::pass_tls_client_cert);
    kinds.of("rateLimit", limits::rate_limit);
    kinds.of("redirectRegex", rewrites::redirect_regex);
    kinds.of("redirectScheme", paths::redirect_scheme);
    kinds.of("replacePath", paths::replace_path);
    kinds.of("replacePathRegex", rewrites::replace_path_regex);
    kinds.of("retry", resilience::retry);
    kinds.of("stripPrefix", paths::strip_prefix);
    kinds.of("stripPrefixRegex", rewrites::strip_prefix_regex);
    let mut found = kinds.found.into_inner();
    let others = UNSUPPORTED.iter().filter(|kind| block.take_unlisted(kind).is_some()).count();
    match found.len() + others {
        // A key that does not exist is likely to be the kind, misspelt.
        0 if !block.left_over().is_empty() => {}
        0 => block.error(
            "the middleware has no kind".to_owned(),
            Some("give it one, such as `headers` or `rateLimit`".to_owned()),
        ),
        1 => {}
        _ => block.error(
            "a middleware can be of one kind only".to_owned(),
            Some("declare one middleware for each kind; a `chain` combines them".to_owned()),
        ),
    }
    block.unsupported(&UNSUPPORTED);
    block.finish();
    found.pop()?
}

fn chain<'a>(draft: &mut Draft<'a>, name: &str, block: &Block<'a>) -> Option<Middleware> {
    let middlewares = block
        .take("middlewares")
        .map(|field| draft.references(Kind::Middleware, name, Kind::Middleware, &field))
        .unwrap_or_default();
    Some(Middleware::Chain { middlewares })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{load, middleware_problems};

    #[test]
    fn a_middleware_has_one_kind() {
        for (text, expected) in [
            ("{}", ": the middleware has no kind"),
            ("{plugin: {demo: {a: b}}}", "plugin: `plugin` is not supported yet"),
            ("{headers: {frameDeny: true}, retry: {attempts: 2}}", ": a middleware can be of one kind only"),
            ("{header: {frameDeny: true}}", "header: there is no key `header` here"),
            ("{stripPrefix: {}}", "stripPrefix: cannot be a standalone element: `{}` is empty"),
        ] {
            assert_eq!(middleware_problems(text)[0], expected, "{text}");
        }
    }

    /// It hides no other object.
    #[test]
    fn what_is_empty_spoils_its_own_object_only() {
        for wrong in ["inFlightReq: {}", "addPrefix: {prefix: {}}", "headers: {customRequestHeaders: {}}"] {
            let loaded =
                load(&format!("http: {{middlewares: {{x: {{{wrong}}}, y: {{addPrefix: {{prefix: /}}}}}}}}"));
            assert!(loaded.config.middlewares.keys().eq(["y@file"]), "{wrong}: {:?}", loaded.problems);
        }
    }

    #[test]
    fn chains_are_qualified() {
        let text = "http: {middlewares: {x: {chain: {middlewares: 'a, b@file'}}, a: &a {addPrefix: {prefix: /}}, b: *a}}";
        let expected = Middleware::Chain { middlewares: vec!["a@file".to_owned(), "b@file".to_owned()] };
        assert_eq!(load(text).config.middlewares["x@file"], expected);
    }
}
