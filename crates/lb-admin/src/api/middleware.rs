//! Middlewares: `/api/http/middlewares`.

use std::cmp::Ordering;
use std::time::Duration;

use lb_config::Kind;
use lb_config::dynamic::{
    BodyLimits, Buffering, ClientCertInfo, Compress, DistinguishedName, Errors, ForwardAuth, Headers,
    IpStrategy, Middleware, RateLimit, Redis, Retry, ServersTransport, SourceCriterion,
};
use lb_core::rewrite::Rewrite;
use serde_json::Value;

use super::duration::go_duration;
use super::object::Object;
use super::router::Router;
use super::{MASK, Model, encoded_characters, header_map, list, provider};
use crate::Response;
use crate::query::Query;

struct Entry<'m> {
    name: &'m str,
    /// `None`: left out because it is broken.
    config: Option<&'m Middleware>,
    status: &'static str,
}

fn entries<'m>(model: &'m Model<'_>) -> Vec<Entry<'m>> {
    let config = &model.view.config.middlewares;
    let written = config.iter().map(|(name, middleware)| Entry {
        name,
        config: Some(middleware),
        status: model.status(Kind::Middleware, name),
    });
    let left_out = model.left_out(Kind::Middleware, |name| config.contains_key(name));
    let left_out = left_out.map(|name| Entry { name, config: None, status: "disabled" });
    let mut entries: Vec<_> = written.chain(left_out).collect();
    entries.sort_by(|a, b| a.name.cmp(b.name));
    entries
}

impl Entry<'_> {
    fn kind(&self) -> String {
        self.config.map(|config| kind(config).to_lowercase()).unwrap_or_default()
    }

    fn body(&self, model: &Model<'_>, used_by: &[&str]) -> Object {
        let object = Object::new()
            .list("error", model.errors(Kind::Middleware, self.name))
            .set("status", self.status)
            .flag("stale", model.is_stale(Kind::Middleware, self.name))
            .list("usedBy", used_by);
        match self.config {
            Some(config) => object.set(kind(config), options(config, provider(self.name))),
            None => object,
        }
    }

    fn full(&self, model: &Model<'_>, used_by: &[&str]) -> Value {
        self.body(model, used_by)
            .set("name", self.name)
            .set("provider", provider(self.name))
            .text("type", &self.kind())
            .build()
    }
}

/// The key in the configuration.
fn kind(middleware: &Middleware) -> &'static str {
    match middleware {
        Middleware::RedirectScheme(_) => "redirectScheme",
        Middleware::Headers(_) => "headers",
        Middleware::StripPrefix { .. } => "stripPrefix",
        Middleware::AddPrefix { .. } => "addPrefix",
        Middleware::ReplacePath { .. } => "replacePath",
        Middleware::Chain { .. } => "chain",
        Middleware::RateLimit(_) => "rateLimit",
        Middleware::InFlightReq(_) => "inFlightReq",
        Middleware::IpAllowList(allow) if allow.is_white_list => "ipWhiteList",
        Middleware::IpAllowList(_) => "ipAllowList",
        Middleware::BasicAuth(_) => "basicAuth",
        Middleware::ContentType { .. } => "contentType",
        Middleware::DigestAuth(_) => "digestAuth",
        Middleware::EncodedCharacters(_) => "encodedCharacters",
        Middleware::PassTlsClientCert(_) => "passTLSClientCert",
        Middleware::RedirectRegex(_) => "redirectRegex",
        Middleware::ReplacePathRegex(_) => "replacePathRegex",
        Middleware::StripPrefixRegex(_) => "stripPrefixRegex",
        Middleware::CircuitBreaker(_) => "circuitBreaker",
        Middleware::Errors(_) => "errors",
        Middleware::ForwardAuth(_) => "forwardAuth",
        Middleware::Retry(_) => "retry",
        Middleware::Compress(_) => "compress",
        Middleware::Buffering(_) => "buffering",
        Middleware::GrpcWeb { .. } => "grpcWeb",
    }
}

/// `of` is the middleware's provider, which names of services there go without, as they are written.
fn options(middleware: &Middleware, of: &str) -> Value {
    let options = Object::new();
    let options = match middleware {
        Middleware::RedirectScheme(redirect) => options
            .set("scheme", redirect.scheme.as_str())
            .text("port", redirect.port.as_deref().unwrap_or_default())
            .flag("permanent", redirect.permanent),
        Middleware::Headers(headers) => self::headers(headers),
        Middleware::StripPrefix { prefixes, force_slash } => {
            options.list("prefixes", prefixes).some("forceSlash", *force_slash)
        }
        Middleware::AddPrefix { prefix } => options.set("prefix", prefix.as_str()),
        Middleware::ReplacePath { path } => options.set("path", path.as_str()),
        Middleware::Chain { middlewares } => options.list("middlewares", middlewares),
        Middleware::RateLimit(limit) => rate_limit(limit),
        Middleware::InFlightReq(limit) => options
            .set("amount", limit.amount)
            .some("sourceCriterion", source(&limit.source, &SourceCriterion::Host)),
        Middleware::IpAllowList(allow) => options
            .list("sourceRange", &texts(&allow.source_range))
            .object("ipStrategy", ip_strategy(&allow.strategy))
            .some("rejectStatusCode", Some(allow.reject_status_code).filter(|code| *code != 403)),
        Middleware::BasicAuth(auth) => options
            // Names are half of a credential: both halves are masked.
            .list("users", &vec![MASK; auth.users.len()])
            .text("realm", if auth.realm == "traefik" { "" } else { &auth.realm })
            .text("headerField", auth.header_field.as_deref().unwrap_or_default())
            .flag("removeHeader", auth.remove_header),
        Middleware::ContentType { auto_detect } => options.some("autoDetect", *auto_detect),
        Middleware::DigestAuth(auth) => options
            .list("users", &vec![MASK; auth.users.len()])
            .text("realm", if auth.realm == "traefik" { "" } else { &auth.realm })
            .text("headerField", auth.header_field.as_deref().unwrap_or_default())
            .flag("removeHeader", auth.remove_header),
        Middleware::EncodedCharacters(allowed) => encoded_characters(*allowed),
        Middleware::PassTlsClientCert(pass) => {
            options.flag("pem", pass.pem).some("info", pass.info.as_ref().map(client_cert_info))
        }
        Middleware::RedirectRegex(redirect) => {
            rewrite(&redirect.rewrite).flag("permanent", redirect.permanent)
        }
        Middleware::ReplacePathRegex(replace) => rewrite(replace),
        Middleware::StripPrefixRegex(strip) => options.list("regex", &strip.texts),
        Middleware::CircuitBreaker(breaker) => options
            .set("expression", breaker.expression_text.as_str())
            .duration("checkPeriod", breaker.check_period)
            .duration("fallbackDuration", breaker.fallback_duration)
            .duration("recoveryDuration", breaker.recovery_duration)
            .set("responseCode", breaker.response_code),
        Middleware::Errors(errors) => self::errors(errors, of),
        Middleware::ForwardAuth(auth) => forward_auth(auth),
        Middleware::Retry(retry) => self::retry(retry),
        Middleware::Compress(compress) => self::compress(compress),
        Middleware::Buffering(buffering) => self::buffering(buffering),
        Middleware::GrpcWeb { allow_origins } => options.list("allowOrigins", allow_origins),
    };
    options.build()
}

fn rewrite(rewrite: &Rewrite) -> Object {
    Object::new().text("regex", rewrite.regex()).text("replacement", rewrite.replacement())
}

fn client_cert_info(info: &ClientCertInfo) -> Value {
    let name = |name: &DistinguishedName| {
        Object::new()
            .flag("country", name.country)
            .flag("province", name.province)
            .flag("locality", name.locality)
            .flag("organization", name.organization)
            .flag("organizationalUnit", name.organizational_unit)
            .flag("commonName", name.common_name)
            .flag("serialNumber", name.serial_number)
            .flag("domainComponent", name.domain_component)
            .build()
    };
    Object::new()
        .flag("notAfter", info.not_after)
        .flag("notBefore", info.not_before)
        .flag("sans", info.sans)
        .flag("serialNumber", info.serial_number)
        .some("subject", info.subject.as_ref().map(name))
        .some("issuer", info.issuer.as_ref().map(name))
        .build()
}

fn compress(compress: &Compress) -> Object {
    let names: Vec<_> = compress.offer.encodings.iter().map(|encoding| encoding.name()).collect();
    Object::new()
        .list("excludedContentTypes", &compress.excluded_content_types)
        .list("includedContentTypes", &compress.included_content_types)
        .some("minResponseBodyBytes", Some(compress.min_response_body_bytes).filter(|min| *min != 1024))
        .list("encodings", &names)
        .text("defaultEncoding", compress.offer.default.map(|encoding| encoding.name()).unwrap_or_default())
}

fn buffering(buffering: &Buffering) -> Object {
    const DEFAULT_MEMORY: usize = 1024 * 1024;
    let memory = |limits: &BodyLimits| Some(limits.mem_bytes).filter(|bytes| *bytes != DEFAULT_MEMORY);
    Object::new()
        .some("maxRequestBodyBytes", buffering.request.max_bytes)
        .some("memRequestBodyBytes", memory(&buffering.request))
        .some("maxResponseBodyBytes", buffering.response.max_bytes)
        .some("memResponseBodyBytes", memory(&buffering.response))
        .text("retryExpression", buffering.retry.as_ref().map(|retry| retry.as_str()).unwrap_or_default())
}

fn rate_limit(limit: &RateLimit) -> Object {
    let by_peer = SourceCriterion::Ip(IpStrategy::default());
    let object = if limit.average == 0 { Object::new() } else { Object::new().set("average", limit.average) };
    object
        .duration("period", limit.period)
        .set("burst", limit.burst)
        .some("sourceCriterion", source(&limit.source, &by_peer))
        .some("redis", limit.redis.as_deref().map(redis))
}

fn redis(redis: &Redis) -> Value {
    let secret = |text: Option<&str>| text.map_or("", |_| MASK);
    let timeout = |limit: Option<Duration>| go_duration(limit.unwrap_or_default());
    Object::new()
        .list("endpoints", &redis.endpoints)
        .text("username", redis.username.as_deref().unwrap_or_default())
        .text("password", secret(redis.password.as_ref().map(|password| password.reveal())))
        .number("db", redis.db)
        .some("poolSize", Some(redis.pool_size).filter(|size| *size > 0))
        .some("maxActiveConns", Some(redis.max_active_conns).filter(|most| *most > 0))
        .set("readTimeout", timeout(redis.read_timeout))
        .set("writeTimeout", timeout(redis.write_timeout))
        .duration("dialTimeout", redis.dial_timeout)
        .some("tls", redis.tls.as_ref().map(client_tls))
        .build()
}

fn client_tls(transport: &ServersTransport) -> Value {
    let mask = |is_empty: bool| if is_empty { "" } else { MASK };
    Object::new()
        .text("ca", mask(transport.root_cas.is_empty()))
        .text("cert", mask(transport.certificates.is_empty()))
        .text("key", mask(transport.certificates.is_empty()))
        .flag("insecureSkipVerify", transport.insecure_skip_verify)
        .build()
}

fn source(source: &SourceCriterion, default: &SourceCriterion) -> Option<Value> {
    if source == default {
        return None;
    }
    let object = match source {
        SourceCriterion::Ip(strategy) => Object::new().set("ipStrategy", ip_strategy(strategy)),
        SourceCriterion::Header(name) => Object::new().set("requestHeaderName", name.as_str()),
        SourceCriterion::Host => Object::new().set("requestHost", true),
    };
    Some(object.build())
}

fn ip_strategy(strategy: &IpStrategy) -> Value {
    Object::new()
        .some("depth", Some(strategy.depth).filter(|depth| *depth != 0))
        .list("excludedIPs", &texts(&strategy.excluded_ips))
        .some("ipv6Subnet", strategy.ipv6_subnet)
        .build()
}

fn texts(values: &[impl ToString]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn range((from, to): &(u16, u16)) -> String {
    if from == to { from.to_string() } else { format!("{from}-{to}") }
}

fn errors(errors: &Errors, of: &str) -> Object {
    let rewrites = errors.status_rewrites.iter();
    let rewrites = rewrites.fold(Object::new(), |rewrites, (from, to)| rewrites.set(&range(from), *to));
    let headers = errors.error_request_headers.as_ref();
    let bare = errors.service.rsplit_once('@').filter(|(_, provider)| *provider == of);
    Object::new()
        .list("status", &errors.status.iter().map(range).collect::<Vec<_>>())
        .object("statusRewrites", rewrites.build())
        .set("service", bare.map_or(&*errors.service, |(name, _)| name))
        .text("query", &errors.query)
        .some("errorRequestHeaders", headers.cloned())
}

fn forward_auth(auth: &ForwardAuth) -> Object {
    let (body, response) = auth.bounds_written;
    let bytes = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
    Object::new()
        .set("address", auth.address.as_str())
        .object("tls", client_tls(&auth.transport))
        .some("trustForwardHeader", auth.trust_forward_header)
        .list("authResponseHeaders", &auth.auth_response_headers)
        .text("authResponseHeadersRegex", auth.auth_response_headers_regex.as_deref().unwrap_or_default())
        .list("authRequestHeaders", &auth.auth_request_headers)
        .list("addAuthCookiesToResponse", &auth.add_auth_cookies_to_response)
        .text("headerField", auth.header_field.as_deref().unwrap_or_default())
        .flag("forwardBody", auth.forward_body)
        // Traefik's way to say that nothing is written, which is never without a bound here.
        .set("maxBodySize", if body { bytes(auth.max_body_bytes) } else { -1 })
        .some("maxResponseBodySize", response.then(|| bytes(auth.max_response_body_bytes)))
        .flag("preserveLocationHeader", auth.preserve_location_header)
        .flag("preserveRequestMethod", auth.preserve_request_method)
        .text("authSigninURL", auth.auth_signin_url.as_deref().unwrap_or_default())
}

fn retry(retry: &Retry) -> Object {
    let nonzero = |duration: std::time::Duration| Some(duration).filter(|duration| !duration.is_zero());
    Object::new()
        .set("attempts", retry.attempts)
        .some("initialInterval", nonzero(retry.initial_interval).map(super::duration::go_duration))
        .some("timeout", retry.timeout.and_then(nonzero).map(super::duration::go_duration))
        .list("status", &retry.status.iter().map(range).collect::<Vec<_>>())
        .set("maxRequestBodyBytes", retry.max_request_body_bytes)
        .flag("disableRetryOnNetworkError", retry.disable_retry_on_network_error)
        .flag("retryNonIdempotentMethod", retry.retry_non_idempotent_method)
}

fn headers(headers: &Headers) -> Object {
    Object::new()
        .object("customRequestHeaders", header_map(&headers.custom_request_headers))
        .object("customResponseHeaders", header_map(&headers.custom_response_headers))
        .list("accessControlAllowOriginList", &headers.access_control_allow_origin_list)
        .list("accessControlAllowOriginListRegex", &headers.access_control_allow_origin_list_regex)
        .list("accessControlAllowMethods", &headers.access_control_allow_methods)
        .list("accessControlAllowHeaders", &headers.access_control_allow_headers)
        .list("accessControlExposeHeaders", &headers.access_control_expose_headers)
        .flag("accessControlAllowCredentials", headers.access_control_allow_credentials)
        .some("accessControlMaxAge", headers.access_control_max_age)
        .flag("addVaryHeader", headers.add_vary_header)
        .list("allowedHosts", &headers.allowed_hosts)
        .list("hostsProxyHeaders", &headers.hosts_proxy_headers)
        .object("sslProxyHeaders", header_map(&headers.ssl_proxy_headers))
        .number("stsSeconds", headers.sts_seconds)
        .flag("stsIncludeSubdomains", headers.sts_include_subdomains)
        .flag("stsPreload", headers.sts_preload)
        .flag("forceSTSHeader", headers.force_sts_header)
        .flag("frameDeny", headers.frame_deny)
        .text("customFrameOptionsValue", &headers.custom_frame_options_value)
        .flag("contentTypeNosniff", headers.content_type_nosniff)
        .flag("browserXssFilter", headers.browser_xss_filter)
        .text("customBrowserXSSValue", &headers.custom_browser_xss_value)
        .text("contentSecurityPolicy", &headers.content_security_policy)
        .text("contentSecurityPolicyReportOnly", &headers.content_security_policy_report_only)
        .text("referrerPolicy", &headers.referrer_policy)
        .text("permissionsPolicy", &headers.permissions_policy)
        .flag("isDevelopment", headers.is_development)
}

pub(super) fn list(model: &Model<'_>, query: &Query) -> Response {
    let mut wanted = entries(model);
    wanted.retain(|entry| list::has_status(query, entry.status) && list::is_sought(query, &[entry.name]));
    let by = query.get("sortBy").unwrap_or("name");
    list::sort(
        &mut wanted,
        query,
        |entry| entry.name,
        |a, b| match by {
            "type" => a.kind().cmp(&b.kind()),
            "provider" => provider(a.name).cmp(provider(b.name)),
            "status" => a.status.cmp(b.status),
            _ => Ordering::Equal,
        },
    );
    let users = model.users(Router::middlewares);
    let used_by = |name| users.get(name).map_or(&[][..], Vec::as_slice);
    list::page(wanted, query, |entry| entry.full(model, used_by(entry.name)))
}

pub(super) fn one(model: &Model<'_>, name: &str) -> Option<Value> {
    let entry = entries(model).into_iter().find(|entry| entry.name == name)?;
    let users = model.users(Router::middlewares);
    Some(entry.full(model, users.get(name).map_or(&[][..], Vec::as_slice)))
}

pub(super) fn all<'m>(model: &'m Model<'_>) -> Vec<(&'m str, Object)> {
    let users = model.users(Router::middlewares);
    let used_by = |name| users.get(name).map_or(&[][..], Vec::as_slice);
    entries(model).iter().map(|entry| (entry.name, entry.body(model, used_by(entry.name)))).collect()
}

pub(super) fn statuses(model: &Model<'_>) -> Vec<&'static str> {
    entries(model).iter().map(|entry| entry.status).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_switch_is_shown_where_it_is_written() {
        for (text, expected) in [
            ("{prefixes: [/a]}", json!({"prefixes": ["/a"]})),
            ("{prefixes: [/a], forceSlash: false}", json!({"prefixes": ["/a"], "forceSlash": false})),
            ("{prefixes: [/a], forceSlash: true}", json!({"prefixes": ["/a"], "forceSlash": true})),
        ] {
            let text = format!("http: {{middlewares: {{m: {{stripPrefix: {text}}}}}}}");
            let loaded = lb_config::parse_dynamic("d.yml", &text, "file", &lb_config::Context::default());
            assert_eq!(options(&loaded.unwrap().config.middlewares["m@file"], "file"), expected, "{text}");
        }
    }

    #[test]
    fn who_is_asked_is_shown_as_by_traefik() {
        let text = "http: {services: {p: {loadBalancer: {servers: []}}}, middlewares: {\
                    e: {errors: {status: ['404', 500-599], service: p, statusRewrites: {500-502: 418}}}, \
                    a: {forwardAuth: {address: 'http://a/v?x', authResponseHeaders: [X-A], headerField: X-A}}, \
                    b: {forwardAuth: {address: 'http://b', trustForwardHeader: false, forwardBody: true, maxBodySize: 9, \
                    maxResponseBodySize: 8, authSigninURL: 'http://in', tls: {insecureSkipVerify: true}}}}}";
        let loaded = lb_config::parse_dynamic("d.yml", text, "file", &lb_config::Context::default()).unwrap();
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        let shown = |name: &str| options(&loaded.config.middlewares[name], "file");
        let errors =
            json!({"status": ["404", "500-599"], "statusRewrites": {"500-502": 418}, "service": "p"});
        assert_eq!(shown("e@file"), errors);
        assert_eq!(
            shown("a@file"),
            json!({"address": "http://a/v?x", "authResponseHeaders": ["X-A"], "headerField": "X-A", "maxBodySize": -1})
        );
        assert_eq!(
            shown("b@file"),
            json!({"address": "http://b", "tls": {"insecureSkipVerify": true}, "trustForwardHeader": false,
                   "forwardBody": true, "maxBodySize": 9, "maxResponseBodySize": 8, "authSigninURL": "http://in"})
        );
    }
}
