//! The static configuration, checked: what needs a restart to change.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use lb_core::route::Syntax;

use crate::acme::{Challenge, Resolver};
use crate::docker::{Constraints, RuleTemplate};
use crate::dynamic::{Observability, RouterTls, ServersTransport};
use crate::remote::{RemoteProvider, RestProvider};
use crate::telemetry::{MetricExports, OtlpLogs, Tracing};

/// Everything the static file says, with Traefik's defaults filled in.
#[derive(Clone, Debug)]
pub struct StaticConfig {
    /// Where it was read, as the operator named it.
    pub file: String,
    /// As it is written, with a mask over what is not known to be harmless: for the support dump.
    pub written: serde_json::Value,
    /// Sorted by name; includes the internal entry point `traefik` when a feature needs it.
    pub entry_points: Vec<EntryPoint>,
    /// The same for those of UDP, in which nothing counts that is of TCP or HTTP.
    pub udp_entry_points: Vec<EntryPoint>,
    pub providers: Providers,
    pub api: Option<Api>,
    pub ping: Option<Ping>,
    pub log: Log,
    pub access_log: Option<AccessLog>,
    pub metrics: Option<Metrics>,
    pub metric_exports: MetricExports,
    pub tracing: Option<Tracing>,
    /// Authorities that certificates are ordered from, by name.
    pub certificates_resolvers: BTreeMap<String, Resolver>,
    /// `default@internal`: the transport of every service that names none.
    pub servers_transport: ServersTransport,
    /// The same for TCP services.
    pub tcp_servers_transport: crate::tcp::ServersTransport,
    pub core: Core,
    /// OCSP responses are stapled.
    pub ocsp: Option<Ocsp>,
    /// Rules see what a host is an alias of (`hostResolver.cnameFlattening`).
    pub host_resolver: Option<HostResolver>,
}

/// Who is asked what a host is an alias of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostResolver {
    /// The `resolv.conf` that names the name servers.
    pub resolv_config: PathBuf,
    /// Aliases of aliases that are followed.
    pub depth: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ocsp {
    /// Responders to ask instead of those that certificates name.
    pub responder_overrides: BTreeMap<String, String>,
}

impl StaticConfig {
    /// The entry points at which challenges of ACME over HTTP are answered, in their order.
    pub fn http_challenges(&self) -> impl Iterator<Item = &EntryPoint> {
        let answers = |entry: &&EntryPoint| {
            self.certificates_resolvers.values().any(|resolver| {
                matches!(&resolver.challenge, Challenge::Http { entry_point, .. } if *entry_point == entry.name)
            })
        };
        self.entry_points.iter().filter(answers)
    }

    /// Whether a router that is attached to others as well is by itself on this entry point,
    /// `<entry point>-<router>` (reference 1.3, "models"): where either the entry point or `core` has something for it.
    pub fn shapes_routers(&self, entry_point: &EntryPoint) -> bool {
        self.core.default_rule_syntax.is_some() || entry_point.shapes_routers()
    }
}

#[derive(Clone, Debug)]
pub struct Core {
    /// `None`: the section says nothing that Traefik knows. As there, what it says makes copies of routers
    /// ([`StaticConfig::shapes_routers`]).
    pub default_rule_syntax: Option<Syntax>,
    pub strict_tls_options: bool,
    /// Data-plane threads. Extension of Vigie (`core.workers`); absent means one per processor.
    pub workers: Option<usize>,
    /// Extension of Vigie (`core.memoryLimit`).
    pub memory_limit: MemoryLimit,
    /// How long a new process may take to get ready in an upgrade (`core.upgradeTimeout`, an extension).
    pub upgrade_timeout: Duration,
}

/// From where on new requests are refused, lest the system end the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    Never,
    /// Of what the process may have: its control group's limit, or the machine's memory.
    Percent(u8),
    Bytes(u64),
}

#[derive(Clone, Debug)]
pub struct EntryPoint {
    pub name: String,
    /// `:80` is `[::]:80`, reached over IPv4 as well.
    pub address: SocketAddr,
    /// The address as the file writes it, for the API.
    pub address_text: String,
    pub as_default: bool,
    pub reuse_port: bool,
    /// Challenges of ACME go to users' routers first.
    pub allow_acme_by_pass: bool,
    pub request_accept_grace_timeout: Duration,
    pub grace_timeout: Duration,
    /// `None` is "no limit" in each of the timeouts (Traefik writes 0).
    pub read_timeout: Option<Duration>,
    pub write_timeout: Option<Duration>,
    pub idle_timeout: Option<Duration>,
    pub keep_alive_max_time: Option<Duration>,
    pub keep_alive_max_requests: Option<u64>,
    pub proxy_protocol: TrustedPeers,
    pub forwarded_headers: TrustedPeers,
    /// Names in a client's `Connection` that may survive the middlewares.
    pub forwarded_connection: Vec<String>,
    pub not_append_x_forwarded_for: bool,
    /// Servers get `X-Forwarded-Scheme` and `X-Scheme`, the same as `X-Forwarded-Proto`.
    pub add_scheme_headers: bool,
    pub http: EntryPointHttp,
    pub http2_max_concurrent_streams: u32,
    pub http3: Option<Http3>,
    pub limits: EntryPointLimits,
    /// After so long without a datagram a flow of UDP is forgotten.
    pub udp_timeout: Duration,
    /// What routers on this entry point take when they do not say. `Some` when the block was written at all.
    pub observability: Option<Observability>,
}

impl EntryPoint {
    /// Whether it has settings for the routers attached to it.
    fn shapes_routers(&self) -> bool {
        let http = &self.http;
        !http.middlewares.is_empty()
            || http.tls.is_some()
            || http.encoded_characters.is_some()
            || self.observability.is_some()
    }
}

/// HTTP/3 on the UDP port of the same number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Http3 {
    /// What clients are told; `None` is the port that the entry point listens on.
    pub advertised_port: Option<u16>,
}

/// How much of Vigie strangers may take up. Extension of Vigie (`limits`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryPointLimits {
    /// Open at a time; `None` is as many as there are descriptors.
    pub connections: Option<u64>,
    /// The same of one client: an IPv4 address, or an IPv6 network of 64 bits.
    pub connections_per_client: Option<u64>,
    /// Bytes a second of a body that the client sends or takes, while it alone is waited for ...
    pub min_body_rate: u64,
    /// ... on average over this time.
    pub body_rate_window: Duration,
}

/// Whose word is taken: nobody's, everybody's (`insecure`) or that of some networks.
#[derive(Clone, Debug, Default)]
pub struct TrustedPeers {
    pub insecure: bool,
    pub trusted_ips: Vec<IpNet>,
}

#[derive(Clone, Debug)]
pub struct EntryPointHttp {
    pub redirection: Option<Redirection>,
    /// Qualified (`name@provider`) where the file qualified them.
    pub middlewares: Vec<String>,
    /// Where each of them is written: whether it exists only the dynamic configuration shows.
    pub middleware_places: Vec<Place>,
    pub tls: Option<RouterTls>,
    /// False: a raw `;` in a query becomes `&`; true: `%3B`.
    pub encode_query_semicolons: bool,
    pub sanitize_path: bool,
    /// `Some` when the block was written at all.
    pub encoded_characters: Option<EncodedCharacters>,
    pub max_header_bytes: usize,
    pub alias_headers: AliasHeaders,
    /// Only names with `_` are meant by that: the older `underscoreHeadersStrategy`.
    pub only_underscores: bool,
}

/// Where the static file writes something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub line: u32,
    pub column: u32,
    pub key: String,
}

#[derive(Clone, Debug)]
pub struct Redirection {
    /// Target entry point name, or a literal port `:443`.
    pub to: String,
    pub scheme: String,
    pub permanent: bool,
    pub priority: i64,
}

impl Redirection {
    /// The priority of its router, which has this rule: as for other routers, 0 stands for the length of that.
    pub fn priority_with(&self, rule: &str) -> i64 {
        if self.priority == 0 { i64::try_from(rule.len()).unwrap_or(i64::MAX) } else { self.priority }
    }
}

/// Which percent-encoded characters a path may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedCharacters {
    pub slash: bool,
    pub back_slash: bool,
    pub null_character: bool,
    pub semicolon: bool,
    pub percent: bool,
    pub question_mark: bool,
    pub hash: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AliasHeaders {
    #[default]
    Keep,
    Delete,
    Reject,
}

#[derive(Clone, Debug)]
pub struct Providers {
    pub throttle: Duration,
    /// Provider names in tie-break order, lower case.
    pub precedence: Vec<String>,
    pub file: Option<FileProvider>,
    pub docker: Option<DockerProvider>,
    pub swarm: Option<DockerProvider>,
    pub remote: Vec<RemoteProvider>,
    pub rest: Option<RestProvider>,
}

impl Providers {
    /// Names of those that are switched on.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let daemons = self.daemons().map(|daemon| daemon.containers.orchestrator.provider());
        let remote = self.remote.iter().map(|remote| remote.name.as_str());
        self.file
            .as_ref()
            .map(|_| "file")
            .into_iter()
            .chain(daemons)
            .chain(remote)
            .chain(self.rest.map(|_| "rest"))
    }

    /// Those that ask a Docker daemon.
    pub fn daemons(&self) -> impl Iterator<Item = &DockerProvider> {
        self.docker.iter().chain(&self.swarm)
    }
}

/// Where containers are asked for.
#[derive(Clone, Debug)]
pub struct DockerProvider {
    pub endpoint: DockerEndpoint,
    /// As the file writes it, for messages.
    pub endpoint_text: String,
    pub credentials: Option<Credentials>,
    /// How to speak TLS, where the endpoint does.
    pub tls: Option<ServersTransport>,
    /// For one answer of the daemon.
    pub timeout: Duration,
    pub watch: bool,
    /// Time between two looks that no event asked for.
    pub refresh: Duration,
    pub containers: ContainerSettings,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerEndpoint {
    Unix(PathBuf),
    Tcp { host: String, port: u16, tls: bool },
}

/// A name and a password that does not show itself when printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Whose containers they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Orchestrator {
    /// One machine's daemon.
    #[default]
    Docker,
    /// A swarm: services, of which tasks are the containers.
    Swarm,
}

impl Orchestrator {
    /// The provider, what its objects are called after.
    pub fn provider(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Swarm => "swarm",
        }
    }
}

/// Which containers are used, and how they are reached.
#[derive(Clone, Debug)]
pub struct ContainerSettings {
    pub orchestrator: Orchestrator,
    pub exposed_by_default: bool,
    pub constraints: Option<Constraints>,
    /// Containers that are not healthy keep their routers and services, without a server.
    pub allow_empty_services: bool,
    /// The network in which they are reached, unless a label names another one.
    pub network: Option<String>,
    pub use_bind_port_ip: bool,
    pub default_rule: RuleTemplate,
}

impl Default for ContainerSettings {
    /// Traefik's.
    fn default() -> Self {
        Self {
            orchestrator: Orchestrator::Docker,
            exposed_by_default: true,
            constraints: None,
            allow_empty_services: false,
            network: None,
            use_bind_port_ip: false,
            default_rule: RuleTemplate::default(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct FileProvider {
    pub source: FileSource,
    pub watch: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileSource {
    File(PathBuf),
    Directory(PathBuf),
}

#[derive(Clone, Debug)]
pub struct Api {
    pub insecure: bool,
    pub dashboard: bool,
    pub debug: bool,
    pub base_path: String,
    pub dashboard_name: Option<String>,
    pub disable_dashboard_ad: bool,
    /// Who has it may change the state of servers, and reads the API on the entry point `traefik` even where
    /// that is not `insecure`. Extension of Vigie.
    pub token: Option<ApiToken>,
}

/// A secret that does not show itself when printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken(String);

impl ApiToken {
    pub fn new(token: &str) -> Self {
        Self(token.to_owned())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiToken(..)")
    }
}

#[derive(Clone, Debug)]
pub struct Ping {
    pub entry_point: String,
    pub manual_routing: bool,
    pub terminating_status_code: u16,
}

#[derive(Clone, Debug)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
    pub no_color: bool,
    /// `None` is standard output.
    pub file_path: Option<PathBuf>,
    /// Where lines go as well.
    pub otlp: Option<OtlpLogs>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Common,
    Json,
}

#[derive(Clone, Debug)]
pub struct AccessLog {
    /// `None` is standard output.
    pub file_path: Option<PathBuf>,
    pub format: AccessLogFormat,
    pub buffering_size: usize,
    pub add_internals: bool,
    pub filters: AccessLogFilters,
    pub fields: AccessLogFields,
    /// Where lines go instead, or as well with `dual_output`.
    pub otlp: Option<OtlpLogs>,
    pub dual_output: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    Common,
    GenericClf,
    Json,
}

/// Filters are OR-ed; none set keeps every line.
#[derive(Clone, Debug, Default)]
pub struct AccessLogFilters {
    /// Inclusive ranges.
    pub status_codes: Vec<(u16, u16)>,
    pub retry_attempts: bool,
    pub min_duration: Option<Duration>,
}

#[derive(Clone, Debug)]
pub struct AccessLogFields {
    pub default_mode: FieldMode,
    /// Keys in lower case.
    pub names: BTreeMap<String, FieldMode>,
    pub headers_default_mode: FieldMode,
    /// Keys in lower case.
    pub headers: BTreeMap<String, FieldMode>,
    pub query_parameters: FieldMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldMode {
    Keep,
    Drop,
    Redact,
}

#[derive(Clone, Debug)]
pub struct Metrics {
    pub add_internals: bool,
    /// Upper bounds in seconds, ascending, without `+Inf`.
    pub buckets: Vec<f64>,
    pub add_entry_points_labels: bool,
    pub add_routers_labels: bool,
    pub add_services_labels: bool,
    pub entry_point: String,
    pub manual_routing: bool,
    /// Label and request header, by label.
    pub header_labels: Vec<(String, String)>,
}
