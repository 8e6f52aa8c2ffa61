//! The dynamic configuration, checked: what may change at any time.
//!
//! Maps are keyed by qualified name (`api@file`), and every reference inside is qualified too.

mod asking;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use lb_core::breaker;
use lb_core::rewrite::Rewrite;
use lb_core::route::{Pattern, Rule};

pub use crate::static_config::ApiToken as Secret;
use crate::static_config::EncodedCharacters;

pub use crate::udp::{Udp, UdpChild, UdpRouter, UdpServer, UdpService};
pub use asking::{Errors, ForwardAuth};
use lb_core::encoding::Offer;
use lb_core::resend::Condition;

/// One provider's configuration, or the merge of all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub routers: BTreeMap<String, Router>,
    pub services: BTreeMap<String, Service>,
    /// Services made of others; no name is in both maps.
    pub composites: BTreeMap<String, Composite>,
    pub middlewares: BTreeMap<String, Middleware>,
    pub servers_transports: BTreeMap<String, ServersTransport>,
    pub tls: Tls,
    pub tcp: crate::tcp::Tcp,
    pub udp: Udp,
}

impl Config {
    /// The middlewares of a service, of whatever kind it is.
    pub fn middlewares_of(&self, service: &str) -> &[String] {
        let leaf = self.services.get(service).map(|service| &service.middlewares);
        leaf.or_else(|| self.composites.get(service).map(|composite| &composite.middlewares))
            .map_or(&[], Vec::as_slice)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Router {
    pub rule: Arc<Rule>,
    pub rule_text: String,
    /// `ruleSyntax` as written; empty: the default. The rule knows what it means.
    pub rule_syntax: String,
    /// Empty: the default entry points.
    pub entry_points: Vec<String>,
    /// Qualified names, in order.
    pub middlewares: Vec<String>,
    /// Empty where other routers name this one as a parent: they lead on.
    pub service: String,
    /// Qualified; those whose requests it gets. Empty: a root, which entry points lead to.
    pub parents: Vec<String>,
    /// As written, or the byte length of the rule.
    pub priority: i64,
    pub tls: Option<RouterTls>,
    pub observability: Observability,
}

/// `None` takes the entry point's value, which is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observability {
    pub access_logs: Option<bool>,
    pub metrics: Option<bool>,
    pub tracing: Option<bool>,
    pub trace_verbosity: Option<TraceVerbosity>,
}

/// How many spans a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceVerbosity {
    /// Its own, and one for each server that was asked.
    Minimal,
    /// One for its router and its service as well.
    Detailed,
}

impl Observability {
    /// Whether there are traces, and of what kind.
    pub fn traces(&self) -> Option<TraceVerbosity> {
        (self.tracing != Some(false)).then(|| self.trace_verbosity.unwrap_or(TraceVerbosity::Minimal))
    }

    /// Whose own value is missing takes that of `default`.
    pub fn or(self, default: Self) -> Self {
        Self {
            access_logs: self.access_logs.or(default.access_logs),
            metrics: self.metrics.or(default.metrics),
            tracing: self.tracing.or(default.tracing),
            trace_verbosity: self.trace_verbosity.or(default.trace_verbosity),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterTls {
    /// `default` or a qualified name.
    pub options: String,
    pub cert_resolver: Option<String>,
    pub domains: Vec<Domain>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    pub main: String,
    pub sans: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Qualified names, in order: between those of a router and this service.
    pub middlewares: Vec<String>,
    pub servers: Vec<Server>,
    pub strategy: Strategy,
    /// As written; [`cookie`](Self::cookie) is what is used of it.
    pub sticky: Option<StickyCookie>,
    pub health_check: Option<HealthCheck>,
    pub passive_health_check: Option<PassiveHealthCheck>,
    /// Extension: a growing share for servers that appear or come back (`slowStart`).
    pub slow_start: Option<SlowStart>,
    /// Extension: servers that fail request after request sit out (`outlierDetection`).
    pub outlier_detection: Option<OutlierDetection>,
    /// Extension: percent; with fewer servers eligible all are used (`panicThreshold`, 0 is never).
    pub panic_threshold: u8,
    pub pass_host_header: bool,
    /// `None`: flush after every write.
    pub flush_interval: Option<Duration>,
    /// Qualified, or `default@internal`.
    pub servers_transport: String,
    /// Extension: how much may be tried again (`retryBudget`).
    pub retry_budget: RetryBudget,
    /// Extension: where requests wait while every server has its `maxConnections` (`queue`).
    pub queue: Queue,
    /// How long requests and tunnels may go on on a server that a reload removes; `None`: until they end.
    /// Extension of Vigie.
    pub drain_timeout: Option<Duration>,
}

impl Service {
    /// The cookie that clients get, unless the strategy takes no notice of cookies.
    pub fn cookie(&self) -> Option<&StickyCookie> {
        self.sticky.as_ref().filter(|_| self.strategy != Strategy::HighestRandomWeight)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Requests that may wait; 0 refuses at once.
    pub size: usize,
    pub timeout: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        // Envoy's `max_pending_requests`, and the time that HAProxy's manual gives to `timeout queue`.
        Self { size: 1024, timeout: Duration::from_secs(5) }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Exactly as configured: the sticky cookie and the live state are keyed by it.
    pub url: String,
    pub scheme: Scheme,
    /// Host as in the URL, IPv6 without brackets.
    pub host: String,
    pub port: u16,
    /// Path of the URL, used with `preserve_path` and by probes; `/` or empty when there is none.
    pub path: String,
    pub preserve_path: bool,
    /// 0 gets nothing.
    pub weight: u32,
    /// Extension: requests in flight at most (`maxConnections`); `None` is no limit.
    pub max_connections: Option<NonZeroU32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
    H2c,
}

pub use crate::composite::{
    Composite, CompositeKind, FailoverErrors, Mirror, Mirroring, ServiceRef, WeightedChild,
};
pub use lb_core::balance::{SlowStart, Strategy};
pub use lb_core::health::OutlierSettings as OutlierDetection;
pub use lb_core::retry::Settings as RetryBudget;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyCookie {
    /// Configured or derived, always a valid token.
    pub name: String,
    pub secure: bool,
    pub http_only: bool,
    pub same_site: Option<SameSite>,
    /// `None` omits the attribute; `Some(0)` says `Max-Age=0`.
    pub max_age: Option<u64>,
    /// Empty omits the attribute.
    pub path: String,
    pub domain: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    None,
    Lax,
    Strict,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    pub mode: ProbeMode,
    pub path: String,
    pub scheme: Option<String>,
    pub method: String,
    /// `None`: any 2xx or 3xx.
    pub status: Option<u16>,
    pub port: Option<u16>,
    pub interval: Duration,
    pub unhealthy_interval: Duration,
    pub timeout: Duration,
    pub hostname: Option<String>,
    pub headers: Vec<(String, String)>,
    pub follow_redirects: bool,
    /// Extensions of Vigie, with values that mean what Traefik does when absent.
    /// Passes in a row that bring a server back (`healthyThreshold`, default 1).
    pub healthy_threshold: u32,
    /// Failures in a row that take a server out (`unhealthyThreshold`, default 1).
    pub unhealthy_threshold: u32,
    /// Failures do not count this long after a server first appeared (`startPeriod`, default 0).
    pub start_period: Duration,
    /// Servers wait for their first pass before they get traffic (`startUnhealthy`, default false).
    pub start_unhealthy: bool,
    /// Read `status: degraded` from a JSON answer (`degraded`, default true).
    pub degraded: bool,
    /// Share of its weight that a degraded server keeps, 0 to 1 (`degradedWeight`, default 0.5).
    pub degraded_weight: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeMode {
    Http,
    Grpc,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassiveHealthCheck {
    pub failure_window: Duration,
    pub max_failed_attempts: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ServersTransport {
    pub server_name: Option<String>,
    pub insecure_skip_verify: bool,
    /// PEM text of each root; empty means the system's roots.
    pub root_cas: Vec<Pem>,
    /// Client certificates.
    pub certificates: Vec<KeyPair>,
    /// `None` disables connection reuse (Traefik writes a negative number).
    pub max_idle_conns_per_host: Option<usize>,
    /// `None` is "no limit".
    pub dial_timeout: Option<Duration>,
    pub response_header_timeout: Option<Duration>,
    pub idle_conn_timeout: Option<Duration>,
    pub read_idle_timeout: Option<Duration>,
    pub ping_timeout: Option<Duration>,
    pub disable_http2: bool,
    pub min_version: Option<TlsVersion>,
    pub max_version: Option<TlsVersion>,
    pub cipher_suites: Vec<String>,
    pub peer_cert_uri: Option<String>,
}

/// PEM content, read from its file or written in place.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem(pub Arc<[u8]>);

/// A certificate chain and its private key; printing it shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPair {
    pub cert: Pem,
    pub key: Pem,
    /// Where the certificate came from, for messages: a path, or `<inline>` and perhaps a
    /// place.
    pub origin: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedCertificate {
    pub resolver: String,
    pub domain: Domain,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tls {
    /// Those of the store `default`.
    pub certificates: Vec<KeyPair>,
    pub default_certificate: Option<KeyPair>,
    /// Stands in for a default certificate that is not given: one that a resolver orders.
    pub default_generated: Option<GeneratedCertificate>,
    /// Keyed by `default` or a qualified name. `default` may be absent.
    pub options: BTreeMap<String, TlsOptions>,
    /// `default` is broken and has no last good version: whoever depends on it is not let in at all.
    pub refuse_default: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TlsOptions {
    /// `None`: TLS 1.2.
    pub min_version: Option<TlsVersion>,
    pub max_version: Option<TlsVersion>,
    /// IANA names, empty: the library's.
    pub cipher_suites: Vec<String>,
    pub curve_preferences: Vec<String>,
    pub client_auth: Option<ClientAuth>,
    pub sni_strict: bool,
    /// Empty: `h2`, `http/1.1`.
    pub alpn_protocols: Vec<String>,
    pub disable_session_tickets: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ClientAuth {
    pub ca: Vec<Pem>,
    pub kind: ClientAuthType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuthType {
    NoClientCert,
    RequestClientCert,
    RequireAnyClientCert,
    VerifyClientCertIfGiven,
    RequireAndVerifyClientCert,
}

impl ClientAuthType {
    /// Whether a client without a certificate is refused.
    pub fn requires_certificate(self) -> bool {
        matches!(self, Self::RequireAnyClientCert | Self::RequireAndVerifyClientCert)
    }
}

/// TLS 1.0 and 1.1 do not exist in rustls; asking for them as minimum means 1.2 with a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Middleware {
    RedirectScheme(RedirectScheme),
    Headers(Box<Headers>),
    StripPrefix {
        prefixes: Vec<String>,
        /// What leaves nothing of the path leaves `/`.
        force_slash: Option<bool>,
    },
    AddPrefix {
        prefix: String,
    },
    ReplacePath {
        path: String,
    },
    /// Qualified names.
    Chain {
        middlewares: Vec<String>,
    },
    RateLimit(RateLimit),
    InFlightReq(InFlightReq),
    IpAllowList(IpAllowList),
    BasicAuth(BasicAuth),
    ContentType {
        auto_detect: Option<bool>,
    },
    DigestAuth(DigestAuth),
    EncodedCharacters(EncodedCharacters),
    PassTlsClientCert(PassTlsClientCert),
    RedirectRegex(RedirectRegex),
    ReplacePathRegex(Rewrite),
    StripPrefixRegex(StripPrefixRegex),
    CircuitBreaker(CircuitBreaker),
    Errors(Errors),
    ForwardAuth(Box<ForwardAuth>),
    Retry(Retry),
    Compress(Compress),
    Buffering(Buffering),
    GrpcWeb {
        allow_origins: Vec<String>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compress {
    pub offer: Offer,
    /// An answer that says it is shorter is left as it is.
    pub min_response_body_bytes: u64,
    /// Media types as written; parameters mean nothing.
    pub excluded_content_types: Vec<String>,
    /// At most one of the two lists has something in it.
    pub included_content_types: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffering {
    pub request: BodyLimits,
    pub response: BodyLimits,
    pub retry: Option<Condition>,
}

/// How much of a body may come, and how much of it is kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    pub max_bytes: Option<u64>,
    pub mem_bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectScheme {
    pub scheme: String,
    pub port: Option<String>,
    pub permanent: bool,
}

/// Names as written; values `""` delete.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headers {
    pub custom_request_headers: Vec<(String, String)>,
    pub custom_response_headers: Vec<(String, String)>,
    pub access_control_allow_origin_list: Vec<String>,
    /// Compiled and checked when read; kept as text so that two configurations compare.
    pub access_control_allow_origin_list_regex: Vec<String>,
    pub access_control_allow_methods: Vec<String>,
    pub access_control_allow_headers: Vec<String>,
    pub access_control_expose_headers: Vec<String>,
    pub access_control_allow_credentials: bool,
    /// Seconds; a written 0 is sent, and keeps browsers from remembering the answer.
    pub access_control_max_age: Option<i64>,
    pub add_vary_header: bool,
    pub allowed_hosts: Vec<String>,
    pub hosts_proxy_headers: Vec<String>,
    pub ssl_proxy_headers: Vec<(String, String)>,
    pub sts_seconds: i64,
    pub sts_include_subdomains: bool,
    pub sts_preload: bool,
    pub force_sts_header: bool,
    pub frame_deny: bool,
    pub custom_frame_options_value: String,
    pub content_type_nosniff: bool,
    pub browser_xss_filter: bool,
    pub custom_browser_xss_value: String,
    pub content_security_policy: String,
    pub content_security_policy_report_only: String,
    pub referrer_policy: String,
    pub permissions_policy: String,
    pub is_development: bool,
}

/// What requests are counted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceCriterion {
    Ip(IpStrategy),
    /// First value of this header.
    Header(String),
    Host,
}

/// How the client's address is found (the default is the TCP peer).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpStrategy {
    /// 0: not used.
    pub depth: usize,
    pub excluded_ips: Vec<IpNet>,
    pub ipv6_subnet: Option<u8>,
}

/// Where limits are shared.
#[derive(Clone, Debug, PartialEq)]
pub struct Redis {
    /// As written, for the API.
    pub endpoints: Vec<String>,
    /// IPv6 without brackets.
    pub host: String,
    pub port: u16,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub db: i64,
    /// 0 leaves the number of connections to Vigie.
    pub pool_size: usize,
    pub max_active_conns: usize,
    pub dial_timeout: Duration,
    /// `None` is "no limit".
    pub read_timeout: Option<Duration>,
    pub write_timeout: Option<Duration>,
    pub tls: Option<ServersTransport>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// 0: no limit.
    pub average: u64,
    pub period: Duration,
    pub burst: u64,
    pub source: SourceCriterion,
    /// `None`: the limit is this process's.
    pub redis: Option<Box<Redis>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlightReq {
    pub amount: u64,
    pub source: SourceCriterion,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpAllowList {
    pub source_range: Vec<IpNet>,
    pub strategy: IpStrategy,
    pub reject_status_code: u16,
    /// It is written under its older name, `ipWhiteList`.
    pub is_white_list: bool,
}

#[derive(Clone, PartialEq, Eq)]
pub struct BasicAuth {
    /// User to hash, files already read, later entries of `users` win.
    pub users: BTreeMap<String, String>,
    pub realm: String,
    pub header_field: Option<String>,
    pub remove_header: bool,
}

#[derive(Clone, PartialEq, Eq)]
pub struct DigestAuth {
    /// `user:realm` to MD5 of `user:realm:password`, files already read, later entries of `users` win.
    pub users: BTreeMap<String, String>,
    pub realm: String,
    pub header_field: Option<String>,
    pub remove_header: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectRegex {
    pub rewrite: Rewrite,
    pub permanent: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripPrefixRegex {
    pub patterns: Vec<Pattern>,
    /// The same as written.
    pub texts: Vec<String>,
}

/// What servers are told of the client's certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassTlsClientCert {
    pub pem: bool,
    pub info: Option<ClientCertInfo>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertInfo {
    pub not_after: bool,
    pub not_before: bool,
    pub sans: bool,
    pub serial_number: bool,
    pub subject: Option<DistinguishedName>,
    pub issuer: Option<DistinguishedName>,
}

/// Which attributes of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DistinguishedName {
    pub country: bool,
    pub province: bool,
    pub locality: bool,
    pub organization: bool,
    /// Of subjects only.
    pub organizational_unit: bool,
    pub common_name: bool,
    pub serial_number: bool,
    pub domain_component: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CircuitBreaker {
    pub expression: breaker::Expression,
    pub expression_text: String,
    pub check_period: Duration,
    pub fallback_duration: Duration,
    pub recovery_duration: Duration,
    pub response_code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Total tries.
    pub attempts: u32,
    pub initial_interval: Duration,
    pub timeout: Option<Duration>,
    /// Inclusive ranges.
    pub status: Vec<(u16, u16)>,
    pub max_request_body_bytes: usize,
    pub disable_retry_on_network_error: bool,
    pub retry_non_idempotent_method: bool,
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pem({} bytes)", self.0.len())
    }
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BasicAuth")
            .field("users", &self.users.len())
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for DigestAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DigestAuth")
            .field("users", &self.users.len())
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}
