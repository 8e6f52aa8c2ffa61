//! Middlewares: what happens to a request between its router and its service, and to the answer
//! on the way back. Each is written once, against [`Exchange`], whatever protocol is spoken.

mod allow_list;
mod auth;
mod circuit_breaker;
mod client_cert;
mod compress;
mod digest;
mod errors;
mod forward_auth;
mod go_url;
mod grpc_web;
mod headers;
mod limits;
mod path;
mod path_regex;
mod redirect;
mod redirect_regex;
mod shared_limit;
mod source;

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_config::dynamic::{self as config, Buffering, Middleware as Config, Retry};
use lb_config::static_config::EncodedCharacters;
use lb_core::rewrite::Rewrite;
use lb_core::route::Pattern;
use lb_observe::metrics::{LabelId, Metrics};

pub(crate) use allow_list::AllowList;
pub(crate) use auth::{BasicAuth, Check, Checked};
pub(crate) use circuit_breaker::{CircuitBreaker, NamedBreaker};
pub(crate) use client_cert::Certificates;
pub(crate) use compress::Compress;
pub(crate) use digest::DigestAuth;
pub(crate) use errors::Errors;
pub(crate) use forward_auth::{AuthCookie, ForwardAuth};
pub(crate) use grpc_web::{Form, GrpcWeb};
pub(crate) use headers::Headers;
pub(crate) use limits::{InFlight, RateLimit};
pub(crate) use redirect::RedirectScheme;

use crate::composite::Node;
use crate::exchange::Exchange;
use crate::http::local::Local;
use crate::snapshot::AuthServer;

/// One compiled middleware of one router.
pub(crate) enum Middleware {
    /// The entry point's policy on percent-encoded characters; not a middleware in YAML.
    EncodedCharacters(EncodedCharacters),
    RedirectScheme(RedirectScheme),
    Headers(Box<Headers>),
    StripPrefix {
        prefixes: Vec<String>,
        force_slash: bool,
    },
    AddPrefix {
        prefix: String,
    },
    ReplacePath {
        path: String,
    },
    RateLimit(RateLimit),
    InFlight(InFlight),
    AllowList(AllowList),
    BasicAuth(Box<BasicAuth>),
    /// Names the type of answers that nobody has named; carried out where they are sent.
    ContentType {
        detect: bool,
    },
    DigestAuth(Box<DigestAuth>),
    /// The middleware `encodedCharacters`.
    EncodedPath(EncodedCharacters),
    PassTlsClientCert(config::PassTlsClientCert),
    RedirectRegex(config::RedirectRegex),
    ReplacePathRegex(Rewrite),
    StripPrefixRegex(Vec<Pattern>),
    CircuitBreaker(CircuitBreaker),
    /// Carried out by whoever runs the chain: it takes a while, and perhaps the body.
    ForwardAuth(Box<ForwardAuth>),
    /// The same: it replaces what comes back from behind it.
    Errors(Box<Errors>),
    /// Carried out by whoever runs the chain: everything behind it may run again.
    Retry(Retry),
    Compress(Box<Compress>),
    /// Carried out by whoever runs the chain, as `Retry`.
    Buffering(Box<Buffering>),
    /// The same: the bodies of both directions pass through it.
    GrpcWeb(GrpcWeb),
}

/// What comes after a middleware has seen the request.
pub(crate) enum Step {
    Next,
    /// The chain ends here; the middlewares before see this answer.
    Respond(Local),
    /// The same, with the head in [`Exchange::response`] already, and this body.
    Answered(Cow<'static, [u8]>),
    /// A rate limit lets the request through after this time.
    Wait(Duration),
    /// Somebody else has to be asked first.
    Later(Pin<Box<dyn Future<Output = Step>>>),
    /// A password has to be checked, which takes long enough to do it elsewhere.
    Check(Box<Check>),
}

/// What a middleware is compiled from besides its own options.
pub(crate) struct Build<'a> {
    /// Qualified name of the middleware.
    pub(crate) name: &'a str,
    /// The same middleware of the same router in the snapshot before: its live state is taken over
    /// where its options did not change.
    pub(crate) previous: Option<&'a Middleware>,
    pub(crate) metrics: &'a Metrics,
    pub(crate) now: Instant,
    /// Whom a `forwardAuth` asks.
    pub(crate) auth_server: Option<Arc<AuthServer>>,
    /// The service of an `errors`.
    pub(crate) pages: Option<Node>,
}

impl Middleware {
    /// Compiles one middleware. `Chain` is none: its members stand in its place.
    ///
    /// # Errors
    /// A text for the operator when an option passed the configuration's checks but cannot run.
    pub(crate) fn compile(config: &Config, build: &Build<'_>) -> Result<Self, String> {
        Ok(match config {
            Config::RedirectScheme(options) => Self::RedirectScheme(RedirectScheme::new(options)),
            Config::Headers(options) => Self::Headers(Box::new(Headers::new(options)?)),
            Config::StripPrefix { prefixes, force_slash } => {
                Self::StripPrefix { prefixes: prefixes.clone(), force_slash: force_slash.unwrap_or(false) }
            }
            Config::AddPrefix { prefix } => Self::AddPrefix { prefix: prefix.clone() },
            Config::ReplacePath { path } => Self::ReplacePath { path: path.clone() },
            Config::RateLimit(options) => Self::RateLimit(RateLimit::new(options, build)),
            Config::InFlightReq(options) => Self::InFlight(InFlight::new(options, build)),
            Config::IpAllowList(options) => Self::AllowList(AllowList::new(options)),
            Config::BasicAuth(options) => Self::BasicAuth(Box::new(BasicAuth::new(options, build))),
            Config::ContentType { auto_detect } => Self::ContentType { detect: *auto_detect != Some(false) },
            Config::DigestAuth(options) => Self::DigestAuth(Box::new(DigestAuth::new(options, build)?)),
            Config::EncodedCharacters(allowed) => Self::EncodedPath(*allowed),
            Config::PassTlsClientCert(options) => Self::PassTlsClientCert(options.clone()),
            Config::RedirectRegex(options) => Self::RedirectRegex(options.clone()),
            Config::ReplacePathRegex(rewrite) => Self::ReplacePathRegex(rewrite.clone()),
            Config::StripPrefixRegex(options) => Self::StripPrefixRegex(options.patterns.clone()),
            Config::CircuitBreaker(options) => Self::CircuitBreaker(CircuitBreaker::new(options, build)),
            Config::Errors(options) => Self::Errors(Box::new(Errors::new(options, build)?)),
            Config::ForwardAuth(options) => Self::ForwardAuth(Box::new(ForwardAuth::new(options, build)?)),
            Config::Retry(options) => Self::Retry(options.clone()),
            Config::Buffering(options) => Self::Buffering(Box::new(options.clone())),
            Config::GrpcWeb { allow_origins } => Self::GrpcWeb(GrpcWeb::new(allow_origins)),
            Config::Compress(options) => Self::Compress(Box::new(Compress::new(options))),
            Config::Chain { .. } => return Err("a chain has no instance of its own".to_owned()),
        })
    }

    /// The metric label it counts under.
    pub(crate) fn label(&self) -> Option<LabelId> {
        match self {
            Self::RateLimit(limit) => Some(limit.label),
            Self::InFlight(limit) => Some(limit.label),
            Self::CircuitBreaker(breaker) => Some(breaker.label()),
            Self::Errors(errors) => Some(errors.label),
            Self::ForwardAuth(auth) => Some(auth.label),
            _ => None,
        }
    }

    /// What Traefik calls its span; those without one have none there either. A `retry` has one for each try.
    pub(crate) fn span_name(&self) -> Option<&'static str> {
        Some(match self {
            Self::Headers(_) => "Headers",
            Self::StripPrefix { .. } => "StripPrefix",
            Self::StripPrefixRegex(_) => "StripPrefixRegex",
            Self::AddPrefix { .. } => "AddPrefix",
            Self::ReplacePath { .. } => "ReplacePath",
            Self::ReplacePathRegex(_) => "ReplacePathRegex",
            Self::RedirectRegex(_) => "Redirect",
            Self::RateLimit(_) => "RateLimiter",
            Self::InFlight(_) => "InFlightReq",
            Self::AllowList(_) => "IPAllowLister",
            Self::BasicAuth(_) => "BasicAuth",
            Self::DigestAuth(_) => "digestAuth",
            Self::ForwardAuth(_) => "ForwardAuth",
            Self::PassTlsClientCert(_) => "PassClientTLSCert",
            Self::CircuitBreaker(_) => "CircuitBreaker",
            Self::Errors(_) => "CustomError",
            Self::Compress(_) => "Compress",
            Self::Buffering(_) => "Buffer",
            Self::EncodedPath(_) => "EncodedCharacters",
            Self::ContentType { .. }
            | Self::EncodedCharacters(_)
            | Self::GrpcWeb(_)
            | Self::RedirectScheme(_)
            | Self::Retry(_) => return None,
        })
    }

    /// What its span says where it has turned a request away; `None`: that is no failure.
    pub(crate) fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::BasicAuth(_) => Some("Authentication failed"),
            Self::DigestAuth(_) => Some("Digest authentication failed"),
            Self::AllowList(_) => Some("Rejecting IP: it matched none of the trusted IPs"),
            Self::RateLimit(_) => Some("No bursty traffic allowed"),
            Self::CircuitBreaker(_) => Some("Blocked by circuit breaker"),
            _ => None,
        }
    }

    /// Sees, changes or answers the request.
    pub(crate) fn on_request(&self, x: &mut Exchange) -> Step {
        match self {
            Self::EncodedCharacters(allowed) => path::check_encoded(x, allowed),
            Self::RedirectScheme(redirect) => redirect.on_request(x),
            Self::Headers(headers) => headers.on_request(x),
            Self::StripPrefix { prefixes, force_slash } => path::strip_prefix(x, prefixes, *force_slash),
            Self::AddPrefix { prefix } => path::add_prefix(x, prefix),
            Self::ReplacePath { path } => path::replace_path(x, path),
            Self::RateLimit(limit) => limit.on_request(x),
            Self::InFlight(limit) => limit.on_request(x),
            Self::AllowList(list) => list.on_request(x),
            Self::BasicAuth(auth) => auth.on_request(x),
            Self::ContentType { detect } => {
                x.detect_type |= detect;
                Step::Next
            }
            Self::DigestAuth(auth) => auth.on_request(x),
            Self::EncodedPath(allowed) => path::check_encoded(x, allowed),
            Self::PassTlsClientCert(options) => client_cert::on_request(options, x),
            Self::RedirectRegex(redirect) => redirect_regex::on_request(redirect, x),
            Self::ReplacePathRegex(rewrite) => path_regex::replace_path(x, rewrite),
            Self::StripPrefixRegex(patterns) => path_regex::strip_prefix(x, patterns),
            Self::CircuitBreaker(breaker) => breaker.on_request(x),
            Self::Buffering(_)
            | Self::Errors(_)
            | Self::ForwardAuth(_)
            | Self::GrpcWeb(_)
            | Self::Retry(_) => Step::Next,
            Self::Compress(compress) => compress.on_request(x),
        }
    }

    /// Sees and changes the head of the answer; runs in reverse order.
    pub(crate) fn on_response(&self, x: &mut Exchange) {
        match self {
            Self::Headers(headers) => headers.on_response(x),
            Self::CircuitBreaker(breaker) => breaker.on_response(x),
            Self::ForwardAuth(auth) => auth.on_response(x),
            Self::Compress(compress) => compress.on_response(x),
            _ => {}
        }
    }

    /// Whether it is carried out by whoever runs the chain, around what is behind it.
    pub(crate) fn wraps(&self) -> bool {
        matches!(
            self,
            Self::Buffering(_) | Self::Errors(_) | Self::ForwardAuth(_) | Self::GrpcWeb(_) | Self::Retry(_)
        )
    }

    /// What [`Step::Check`] asked for has been found out.
    pub(crate) fn on_checked(&self, x: &mut Exchange, check: &Check, checked: Checked) -> Step {
        match self {
            Self::BasicAuth(auth) => auth.on_checked(x, check, checked),
            _ => Step::Next,
        }
    }
}

/// Live state behind `Arc`, kept while the options that made it stay the same.
pub(crate) fn kept<T, O: PartialEq>(
    previous: Option<(&Arc<T>, &O)>,
    options: &O,
    new: impl FnOnce() -> T,
) -> Arc<T> {
    match previous {
        Some((state, before)) if before == options => Arc::clone(state),
        _ => Arc::new(new()),
    }
}
