//! `providers.http`, `.redis`, `.consul`, `.etcd` and `.rest`.

use std::time::Duration;

use super::transport;
use crate::decode::{Block, Enabled, Field, Text};
use crate::document::MAX_BYTES;
use crate::dynamic::{Scheme, ServersTransport};
use crate::middlewares::header_map;
use crate::net::{server_url, split_user};
use crate::problem::quoted;
use crate::remote::{
    ConsulOptions, Endpoint, Headers, HttpSource, KvSource, Login, RedisOptions, RemoteProvider,
    RemoteSource, RestProvider, Secret, Sentinel,
};
use crate::static_config::Credentials;

/// Defaults of reference 1.4.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
const POLL_TIMEOUT: Duration = Duration::from_secs(5);
const ROOT: &str = "traefik";

/// What is to be done about a missing one.
const ENDPOINT: &str = "write `endpoint: https://config.example.com/vigie.yml`";

/// Providers that are read here, as `providers` spells them.
pub(crate) const REMOTE: [&str; 5] = ["http", "redis", "consul", "etcd", "rest"];

pub(super) fn read(providers: &Block<'_>) -> Vec<RemoteProvider> {
    let mut found = Vec::new();
    let mut kv = |name: &'static str,
                  read: &dyn Fn(&Field<'_>, Option<&Block<'_>>) -> Vec<RemoteProvider>| {
        let Some(field) = providers.take(name) else { return };
        match field.enabled() {
            Enabled::Off => {}
            Enabled::Plain => found.extend(read(&field, None)),
            Enabled::With(block) => {
                found.extend(read(&field, Some(&block)));
                block.finish();
            }
        }
    };
    // In the order in which Traefik's overview lists them.
    kv("consul", &consul);
    kv("etcd", &etcd);
    kv("redis", &redis);
    if let Some(field) = providers.take("http") {
        match field.enabled() {
            Enabled::Off => {}
            Enabled::Plain => field.error("`endpoint` is missing".to_owned(), Some(ENDPOINT.to_owned())),
            Enabled::With(block) => found.extend(http(&field, block)),
        }
    }
    found
}

/// `providers.rest`, and the field that opens it to all.
pub(super) fn rest<'a>(field: &Field<'a>) -> Option<(RestProvider, Option<Field<'a>>)> {
    let block = match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => return Some((RestProvider { insecure: false }, None)),
        Enabled::With(block) => block,
    };
    let insecure = block.take("insecure").filter(|field| field.boolean() == Some(true));
    block.finish();
    Some((RestProvider { insecure: insecure.is_some() }, insecure))
}

fn http(field: &Field<'_>, block: Block<'_>) -> Option<RemoteProvider> {
    let mut tls = tls(&block);
    let endpoint = block.require("endpoint", ENDPOINT);
    let endpoint = endpoint.and_then(|field| field.text()).and_then(|text| http_endpoint(&text));
    let poll_interval = block.take("pollInterval").map_or(Some(POLL_INTERVAL), |f| f.positive_duration());
    let poll_timeout = block.take("pollTimeout").and_then(|field| field.timeout()).flatten();
    let headers = block.take("headers").map(|field| header_map(&field)).unwrap_or_default();
    let max_body_bytes = match block
        .take("maxResponseBodySize")
        .and_then(|field| field.integer(-1..=i64::MAX))
    {
        Some(0) => {
            block.error(
                "a `maxResponseBodySize` of 0 refuses every configuration".to_owned(),
                Some("write bytes, or -1 for no limit but that of every configuration, 16 MiB".to_owned()),
            );
            MAX_BYTES
        }
        size => size.and_then(|size| u64::try_from(size).ok()).unwrap_or(MAX_BYTES).min(MAX_BYTES),
    };
    block.finish();
    let (endpoint, is_tls, path_and_query, endpoint_text, credentials) = endpoint?;
    match (is_tls, &tls) {
        (true, None) => tls = Some(transport::plain(false)),
        (false, Some(_)) => {
            field.warn("`tls` has no effect: the endpoint is `http://`".to_owned(), None);
            tls = None;
        }
        _ => {}
    }
    let mut headers = headers;
    let has_own = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    if let Some(credentials) = credentials.filter(|_| !has_own) {
        headers.push(("Authorization".to_owned(), credentials));
    }
    let source = HttpSource {
        endpoint,
        endpoint_text,
        path_and_query,
        poll_interval: poll_interval?,
        poll_timeout: poll_timeout.unwrap_or(POLL_TIMEOUT),
        headers: Headers(headers),
        max_body_bytes,
    };
    Some(RemoteProvider { name: "http".to_owned(), source: RemoteSource::Http(source), tls })
}

/// Where, whether with TLS, path and query, the URL without a password, and what its user becomes.
type HttpEndpoint = (Endpoint, bool, String, String, Option<String>);

fn http_endpoint(text: &Text<'_>) -> Option<HttpEndpoint> {
    use base64::Engine as _;
    let hint = || Some("write `https://config.example.com/vigie.yml`".to_owned());
    let url = text.value.split('#').next().unwrap_or_default();
    let (url, user) = match split_user(url) {
        Some((url, user)) => (url, Some(user)),
        None => (url.to_owned(), None),
    };
    let parts = match server_url(&url) {
        Ok(parts) if parts.scheme != Scheme::H2c => parts,
        Ok(_) => {
            text.error("the scheme `h2c` cannot be used here", hint());
            return None;
        }
        Err((message, _)) => {
            text.error(message, hint());
            return None;
        }
    };
    let query = url.split_once('?').map_or("", |(_, query)| query);
    if query.chars().any(|c| c.is_control() || c == ' ' || !c.is_ascii()) {
        text.error("the query is not one", Some("percent-encode it".to_owned()));
        return None;
    }
    let mut path = if parts.path.is_empty() { "/".to_owned() } else { parts.path.clone() };
    if !query.is_empty() {
        path = format!("{path}?{query}");
    }
    let authorization = user.map(|user| {
        let user = if user.contains(':') { user.to_owned() } else { format!("{user}:") };
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(user))
    });
    let endpoint = Endpoint { host: parts.host, port: parts.port };
    Some((endpoint, parts.scheme == Scheme::Https, path, url, authorization))
}

fn redis(field: &Field<'_>, block: Option<&Block<'_>>) -> Vec<RemoteProvider> {
    let mut options = RedisOptions { login: Login::default(), db: 0, sentinel: None };
    if let Some(block) = block {
        options.login = login(block);
        if let Some(db) = block.take("db").and_then(|field| field.integer(0..=i64::from(i32::MAX))) {
            options.db = db;
        }
        options.sentinel = block.take("sentinel").and_then(|field| field.block()).and_then(|block| {
            let name = block.require("masterName", "write the name that the sentinels know the server by");
            let master_name = name.and_then(|field| field.string());
            let login = login(&block);
            let why = "keys are read from the server that the sentinels name, never from a replica that may lag behind";
            block.without_effect(&["latencyStrategy", "randomStrategy", "replicaStrategy"], why);
            block.without_effect(&["useDisconnectedReplicas"], why);
            block.finish();
            Some(Sentinel { master_name: master_name?, login })
        });
    }
    // Sentinels have a port of their own.
    let port = if options.sentinel.is_some() { 26379 } else { 6379 };
    one("redis", kv(field, block, port, options, RemoteSource::Redis))
}

fn consul(field: &Field<'_>, block: Option<&Block<'_>>) -> Vec<RemoteProvider> {
    let token = block.and_then(|block| super::text(block, "token")).map(Secret);
    let mut namespaces = Vec::new();
    for text in block.and_then(|block| block.take("namespaces")).map(|f| f.texts()).unwrap_or_default() {
        if text.value.is_empty() || text.value.contains('*') {
            let hint = "name each namespace".to_owned();
            text.error(format!("{} is not a namespace", quoted(text.value)), Some(hint));
        }
        namespaces.push(text.value.to_owned());
    }
    let options = |namespace| ConsulOptions { token: token.clone(), namespace };
    let Some((tls, source)) = kv_parts(field, block, 8500, options(None)) else { return Vec::new() };
    let provider = |name: String, namespace| RemoteProvider {
        name,
        source: RemoteSource::Consul(KvSource { options: options(namespace), ..source.clone() }),
        tls: tls.clone(),
    };
    if namespaces.is_empty() {
        return vec![provider("consul".to_owned(), None)];
    }
    namespaces.into_iter().map(|name| provider(format!("consul-{name}"), Some(name))).collect()
}

fn etcd(field: &Field<'_>, block: Option<&Block<'_>>) -> Vec<RemoteProvider> {
    let credentials = block.map(login).and_then(|login| {
        let password = login.password.map(|secret| secret.0).unwrap_or_default();
        Some(Credentials { user: login.user?, password })
    });
    one("etcd", kv(field, block, 2379, credentials, RemoteSource::Etcd))
}

fn one(name: &str, parts: Option<(Option<ServersTransport>, RemoteSource)>) -> Vec<RemoteProvider> {
    let provider = |(tls, source)| RemoteProvider { name: name.to_owned(), source, tls };
    parts.map(provider).into_iter().collect()
}

fn kv<T>(
    field: &Field<'_>,
    block: Option<&Block<'_>>,
    port: u16,
    options: T,
    source: impl Fn(KvSource<T>) -> RemoteSource,
) -> Option<(Option<ServersTransport>, RemoteSource)> {
    kv_parts(field, block, port, options).map(|(tls, found)| (tls, source(found)))
}

/// What all stores have in common.
fn kv_parts<T>(
    field: &Field<'_>,
    block: Option<&Block<'_>>,
    port: u16,
    options: T,
) -> Option<(Option<ServersTransport>, KvSource<T>)> {
    let local = || vec![Endpoint { host: "127.0.0.1".to_owned(), port }];
    let Some(block) = block else {
        return Some((None, KvSource { endpoints: local(), root: ROOT.to_owned(), options }));
    };
    let mut tls = tls(block);
    let written = block.take("endpoints");
    let texts = written.as_ref().map(|field| field.texts()).unwrap_or_default();
    let mut endpoints = Vec::with_capacity(texts.len());
    for text in &texts {
        let (endpoint, is_tls) = kv_endpoint(text, port)?;
        endpoints.push(endpoint);
        if is_tls {
            tls.get_or_insert_with(|| transport::plain(false));
        }
    }
    if written.is_none() {
        endpoints = local();
    } else if endpoints.is_empty() {
        field.error(
            "`endpoints` is empty".to_owned(),
            Some(format!("write `127.0.0.1:{port}`, or remove it")),
        );
        return None;
    }
    let root = super::text(block, "rootKey").unwrap_or_else(|| ROOT.to_owned());
    let root = root.trim_matches('/').to_owned();
    if root.is_empty() || root.split('/').any(str::is_empty) {
        field.error("`rootKey` names no key".to_owned(), Some("write `rootKey: traefik`".to_owned()));
        return None;
    }
    Some((tls, KvSource { endpoints, root, options }))
}

/// `HOST[:PORT]`, with `http://` or `https://` before it where somebody has written that.
fn kv_endpoint(text: &Text<'_>, port: u16) -> Option<(Endpoint, bool)> {
    let hint = || Some(format!("write `192.0.2.7:{port}`"));
    let (scheme, authority) = text.value.split_once("://").unwrap_or(("http", text.value));
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let has_port = authority.rsplit_once(':').is_some_and(|(_, after)| !after.contains(']'));
    let url = if has_port { format!("http://{authority}") } else { format!("http://{authority}:{port}") };
    let refusal = match (scheme, server_url(&url)) {
        ("http" | "https", Ok(parts)) if parts.path.is_empty() && !parts.ignored => {
            return Some((Endpoint { host: parts.host, port: parts.port }, scheme == "https"));
        }
        ("http" | "https", Ok(_)) => "the address has a path".to_owned(),
        ("http" | "https", Err((message, _))) => message,
        _ => format!("the scheme {} cannot be used here", quoted(scheme)),
    };
    text.error(refusal, hint());
    None
}

fn tls(block: &Block<'_>) -> Option<ServersTransport> {
    let tls = block.take("tls").and_then(|field| field.block())?;
    let transport = transport::read(&tls, transport::plain(false));
    tls.finish();
    Some(transport)
}

fn login(block: &Block<'_>) -> Login {
    let (user, password) = (super::text(block, "username"), super::text(block, "password"));
    Login { user, password: password.map(Secret) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Problems, parse_static};

    fn read(text: &str) -> Result<Vec<RemoteProvider>, String> {
        match parse_static("vigie.yml", &format!("providers: {text}")) {
            Ok((config, _)) => Ok(config.providers.remote),
            Err(Problems(problems)) => {
                Err(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
            }
        }
    }

    fn source(text: &str) -> RemoteSource {
        read(text).unwrap().remove(0).source
    }

    #[test]
    fn defaults_are_those_of_traefik() {
        let RemoteSource::Http(http) = source("{http: {endpoint: 'http://a.test'}}") else { panic!() };
        assert_eq!((http.endpoint.to_string().as_str(), &*http.path_and_query), ("a.test:80", "/"));
        assert_eq!((http.poll_interval, http.poll_timeout), (POLL_INTERVAL, POLL_TIMEOUT));
        assert_eq!(http.max_body_bytes, MAX_BYTES);
        for on in ["{}", "true", "{rootKey: traefik}"] {
            let RemoteSource::Redis(kv) = source(&format!("{{redis: {on}}}")) else { panic!() };
            assert_eq!((&*kv.root, kv.endpoints[0].to_string().as_str()), ("traefik", "127.0.0.1:6379"));
            assert_eq!(kv.options.db, 0);
            let RemoteSource::Consul(kv) = source(&format!("{{consul: {on}}}")) else { panic!() };
            assert_eq!((&*kv.root, kv.endpoints[0].to_string().as_str()), ("traefik", "127.0.0.1:8500"));
            let RemoteSource::Etcd(kv) = source(&format!("{{etcd: {on}}}")) else { panic!() };
            assert_eq!((&*kv.root, kv.endpoints[0].to_string().as_str()), ("traefik", "127.0.0.1:2379"));
        }
        assert!(read("{redis: false}").unwrap().is_empty());
    }

    #[test]
    fn keys_are_read() {
        let http = "{http: {endpoint: 'https://me:word@a.test:8443/x/y.yml?z=1', pollInterval: 1s, pollTimeout: 2s, \
                    headers: {Host: b.test, X-Token: hush}, maxResponseBodySize: 100}}";
        let provider = read(http).unwrap().remove(0);
        assert!(provider.tls.is_some());
        let shown = format!("{provider:?}");
        assert!(!shown.contains("word") && !shown.contains("hush"), "{shown}");
        let RemoteSource::Http(http) = provider.source else { panic!() };
        assert_eq!(http.endpoint, Endpoint { host: "a.test".to_owned(), port: 8443 });
        assert_eq!(http.path_and_query, "/x/y.yml?z=1");
        assert_eq!(http.endpoint_text, "https://a.test:8443/x/y.yml?z=1");
        assert_eq!(http.headers.0.last().unwrap().1, "Basic bWU6d29yZA==");
        assert_eq!(http.max_body_bytes, 100);
        let redis = "{redis: {endpoints: ['s1', 's2:7'], rootKey: /a/b, username: u, password: hush, db: 3, \
                     tls: {insecureSkipVerify: true}, sentinel: {masterName: m, password: hush, replicaStrategy: true}}}";
        let provider = read(redis).unwrap().remove(0);
        assert!(provider.tls.is_some() && !format!("{provider:?}").contains("hush"));
        let RemoteSource::Redis(kv) = provider.source else { panic!() };
        let endpoints: Vec<_> = kv.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!((endpoints, &*kv.root), (vec!["s1:26379".to_owned(), "s2:7".to_owned()], "a/b"));
        assert_eq!((kv.options.db, &*kv.options.sentinel.unwrap().master_name), (3, "m"));
        let named = read("{consul: {namespaces: [a, b], token: hush}}").unwrap();
        assert_eq!(named.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["consul-a", "consul-b"]);
        let etcd = read("{etcd: {endpoints: 'https://[::1]', username: u, password: hush}}").unwrap();
        assert!(etcd[0].tls.is_some() && !format!("{named:?}{etcd:?}").contains("hush"));
    }

    #[test]
    fn rest_is_closed_unless_it_is_opened_and_that_is_told() {
        let rest = |text: &str| {
            let (config, warnings) =
                parse_static("vigie.yml", &format!("providers: {{rest: {text}}}")).unwrap();
            let told = warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            let opens = config.entry_points.iter().any(|entry_point| entry_point.name == "traefik");
            (config.providers.rest.map(|rest| rest.insecure), opens, told)
        };
        assert_eq!(rest("{}"), (Some(false), false, String::new()));
        assert_eq!(rest("false"), (None, false, String::new()));
        let (insecure, opens, told) = rest("{insecure: true}");
        assert_eq!((insecure, opens), (Some(true), true));
        assert!(told.contains("providers.rest.insecure: ") && told.contains("rest@internal"), "{told}");
    }

    #[test]
    fn mistakes_have_a_way_out() {
        for (text, expected) in [
            ("{http: {pollInterval: 1s}}", "http: `endpoint` is missing"),
            ("{http: {endpoint: 'ftp://a'}}", "http.endpoint: the scheme `ftp` cannot be used"),
            ("{http: {endpoint: 'h2c://a'}}", "http.endpoint: the scheme `h2c` cannot be used here"),
            ("{http: {endpoint: 'http://a', pollInterval: 0s}}", "http.pollInterval: must be longer than 0"),
            ("{http: {endpoint: 'http://a', maxResponseBodySize: 0}}", "http: a `maxResponseBodySize` of 0"),
            (
                "{http: {endpoint: 'http://a', maxResponseBodySize: -2}}",
                "http.maxResponseBodySize: -2 is out",
            ),
            ("{http: {endpoint: 'http://a', headres: {}}}", "http.headres: there is no key `headres` here"),
            ("{redis: {endpoints: ['redis://a']}}", "redis.endpoints[0]: the scheme `redis` cannot be used"),
            ("{redis: {endpoints: ['a:b']}}", "redis.endpoints[0]: `b` is not a port"),
            ("{redis: {endpoints: []}}", "redis: `endpoints` is empty"),
            ("{redis: {rootKey: /}}", "redis: `rootKey` names no key"),
            ("{redis: {token: a}}", "redis.token: there is no key `token` here"),
            ("{redis: {sentinel: {username: a}}}", "redis.sentinel: `masterName` is missing"),
            ("{consul: {namespaces: '*'}}", "consul.namespaces: `*` is not a namespace"),
            ("{etcd: {tls: {cert: a}}}", "etcd.tls: `key` is missing"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(&format!("providers.{expected}")), "{text}: {told}");
            assert!(told.contains("hint: "), "{told}");
        }
    }
}
