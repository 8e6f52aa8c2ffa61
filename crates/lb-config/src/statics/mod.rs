//! The static configuration: from a tree to the checked [`StaticConfig`].

mod dns_challenge;
mod docker;
mod entry_points;
mod observe;
mod ocsp;
mod providers;
mod remote;
mod resolvers;
mod telemetry;
mod token;
mod transport;

pub(crate) use providers::PROVIDERS;
pub(crate) use remote::REMOTE;

use std::path::PathBuf;
use std::time::Duration;

use lb_core::route::Syntax;

use crate::decode::{Block, Enabled, Field, Report};
use crate::document::{Node, masked};
use crate::dynamic::ServersTransport;
use crate::dynamics::{default_tcp_transport, forwarding_timeouts, max_idle_conns};
use crate::net::is_udp;
use crate::pem;
use crate::problem::quoted;
use crate::static_config::{Api, Core, HostResolver, MemoryLimit, Ping, StaticConfig};
use crate::{size, suggest};

/// Idle connections kept per server by the default transport (reference 1.11).
const IDLE_CONNS: usize = 200;

/// Aliases of aliases that are followed: Traefik's default, and more than any name needs (chosen).
const ALIASES: usize = 5;
const MAX_ALIASES: i64 = 100;

/// More data-plane threads than any machine has processors; chosen.
const MAX_WORKERS: i64 = 1024;

/// What is left is for the kernel's part of the connections, which counts as well. Chosen.
const MEMORY_LIMIT: MemoryLimit = MemoryLimit::Percent(90);
/// Started, with a small configuration, on two processors; measured in November 2026.
const LEAST_MEMORY_BYTES: u64 = 16 << 20;

/// For a new process to get ready in an upgrade; chosen: far above what the largest configuration takes to compile.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(60);

/// Name of the internal entry point.
pub(crate) const TRAEFIK: &str = "traefik";

/// Reads the static file called `name`; what it returns may only be used if the report refuses nothing.
pub(crate) fn read(report: &Report<'_>, root: &Node, name: &str) -> Option<StaticConfig> {
    let written = masked(root);
    let root = Block::root(report, root)?;
    let (entry_points, resolvers_at) = entry_points::read(&root);
    let (mut udp_entry_points, mut entry_points): (Vec<_>, Vec<_>) =
        entry_points.into_iter().partition(|entry_point| is_udp(&entry_point.address_text));
    udp_entry_points.sort_by(|a, b| a.name.cmp(&b.name));
    let (api, insecure_at) = root.take("api").as_ref().and_then(api).unzip();
    let (ping, ping_at) = root.take("ping").as_ref().and_then(ping).unzip();
    let (providers, rest_at) = providers::read(root.take("providers").as_ref());
    let (metrics, metric_exports) = root.take("metrics").as_ref().and_then(observe::metrics).unzip();
    let (metrics, metrics_at) = metrics.flatten().unzip();

    let wants_internal = rest_at.is_some()
        || api.as_ref().is_some_and(|api| api.insecure || api.token.is_some())
        || ping.as_ref().is_some_and(|ping| ping.entry_point == TRAEFIK && !ping.manual_routing)
        || metrics.as_ref().is_some_and(|metrics| metrics.entry_point == TRAEFIK && !metrics.manual_routing);
    if wants_internal && !entry_points.iter().any(|entry_point| entry_point.name == TRAEFIK) {
        entry_points.push(entry_points::default_entry_point(TRAEFIK, ":8080"));
    }
    if let Some(Some(at)) = &insecure_at
        && let Some(entry_point) = entry_points.iter().find(|entry_point| entry_point.name == TRAEFIK)
    {
        let way_out = "lead a router with a password to `api@internal` instead";
        entry_points::warn_if_open(at, entry_point, "whoever reaches it reads the API", way_out);
    }
    if let Some(at) = &rest_at
        && let Some(entry_point) = entry_points.iter().find(|entry_point| entry_point.name == TRAEFIK)
    {
        let way_out = "lead a router with a password to `rest@internal` instead";
        entry_points::warn_if_open(at, entry_point, "whoever reaches it decides what is routed", way_out);
    }
    entry_points.sort_by(|a, b| a.name.cmp(&b.name));
    let names: Vec<&str> = entry_points.iter().map(|entry_point| entry_point.name.as_str()).collect();
    if let (Some(Some(at)), Some(ping)) = (&ping_at, &ping)
        && !ping.manual_routing
    {
        require_entry_point(at, &ping.entry_point, &names);
    }
    if let (Some(Some(at)), Some(metrics)) = (&metrics_at, &metrics)
        && !metrics.manual_routing
    {
        require_entry_point(at, &metrics.entry_point, &names);
    }

    let (certificates_resolvers, resolvers) = resolvers::read(&root, &names);
    entry_points::check_resolvers(&resolvers_at, &resolvers);
    let unlocked = root.take("experimental").and_then(|field| field.peek("otlpLogs"));
    let otlp_logs = unlocked.and_then(crate::decode::boolean) == Some(true);
    let config = StaticConfig {
        written,
        file: name.to_owned(),
        providers,
        log: observe::log(root.take("log").as_ref(), otlp_logs),
        access_log: root.take("accessLog").and_then(|field| observe::access_log(&field, otlp_logs)),
        servers_transport: servers_transport(root.take("serversTransport").as_ref()),
        tcp_servers_transport: default_tcp_transport(root.take("tcpServersTransport").as_ref()),
        core: core(root.take("core").as_ref()),
        ocsp: root.take("ocsp").as_ref().and_then(ocsp::read),
        entry_points,
        udp_entry_points,
        api,
        ping,
        metrics,
        metric_exports: metric_exports.unwrap_or_default(),
        tracing: root.take("tracing").as_ref().and_then(telemetry::tracing),
        certificates_resolvers,
        host_resolver: host_resolver(&root),
    };
    rest(&root);
    root.finish_root();
    Some(config)
}

/// The sections that configure nothing here: refused, or accepted because they change nothing.
fn rest(root: &Block<'_>) {
    if let Some(global) = root.take("global").and_then(|field| field.block()) {
        global.harmless(&["checkNewVersion", "sendAnonymousUsage"]);
        let why = "set `forwardedHeaders.notAppendXForwardedFor` on the entry point";
        global.without_effect(&["notAppendXForwardedFor"], why);
        global.finish();
    }
    if let Some(experimental) = root.take("experimental").and_then(|field| field.block()) {
        for key in ["plugins", "localPlugins"] {
            if let Some(field) = experimental.take_unlisted(key) {
                let hint = "remove it, and the middlewares of kind `plugin` from their routers".to_owned();
                field.error_at_key(format!("{} is not supported yet", quoted(key)), Some(hint));
            }
        }
        if let Some(field) = experimental.take_unlisted("http3") {
            let hint = "remove it: `http3` of the entry point is enough".to_owned();
            field.error_at_key("Traefik v3 has no `experimental.http3` any more".to_owned(), Some(hint));
        }
        experimental.harmless(&["abortOnPluginFailure"]);
        experimental.take("otlpLogs").and_then(|field| field.boolean());
        experimental.without_effect(&["fastProxy"], "Vigie has one proxy, and it is the fast one");
        experimental.without_effect(
            &["knative", "kubernetesGateway", "kubernetesIngressNGINX"],
            "the feature it unlocks is not supported yet",
        );
        experimental.finish();
    }
    root.unsupported(&["spiffe"]);
    if let Some(field) = root.take_unlisted("pilot") {
        field.error_at_key("Traefik v3 has no `pilot` any more".to_owned(), Some("remove it".to_owned()));
    }
    for key in ["http", "tls", "tcp", "udp"].into_iter().filter(|_| !root.report.is_of_arguments()) {
        if let Some(field) = root.take_unlisted(key) {
            field.warn_at_key(
                "belongs in the dynamic configuration and is ignored here".to_owned(),
                Some("move it to a file that `providers.file` names".to_owned()),
            );
        }
    }
}

fn require_entry_point(field: &Field<'_>, name: &str, names: &[&str]) {
    if !names.contains(&name) {
        let hint = suggest::hint(name, "entry points", names.iter().copied());
        field.error(format!("no entry point is called {}", quoted(name)), Some(hint));
    }
}

/// The API, and the field that opens it to all.
fn api<'a>(field: &Field<'a>) -> Option<(Api, Option<Field<'a>>)> {
    let mut api = Api {
        insecure: false,
        dashboard: true,
        debug: false,
        base_path: "/".to_owned(),
        dashboard_name: None,
        disable_dashboard_ad: false,
        token: None,
    };
    let block = match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => return Some((api, None)),
        Enabled::With(block) => block,
    };
    let insecure = block.take("insecure").filter(|field| field.boolean() == Some(true));
    api.insecure = insecure.is_some();
    let flag = |key, default| block.take(key).and_then(|field| field.boolean()).unwrap_or(default);
    api.dashboard = flag("dashboard", api.dashboard);
    api.debug = flag("debug", api.debug);
    api.disable_dashboard_ad = flag("disableDashboardAd", api.disable_dashboard_ad);
    if let Some(path) = block.take("basePath").and_then(|field| field.text()) {
        let fits = |c: char| c.is_ascii_alphanumeric() || "/_.:~-".contains(c);
        if !path.value.starts_with('/') || !path.value.chars().all(fits) {
            let hint = "it starts with `/` and has letters, digits and `_.:~-`".to_owned();
            path.error(format!("{} is not a path", quoted(path.value)), Some(hint));
        }
        api.base_path = path.value.to_owned();
    }
    api.dashboard_name = text(&block, "dashboardName");
    api.token = token::read(&block);
    block.finish();
    Some((api, insecure))
}

/// The ping, and the field that names its entry point.
fn ping<'a>(field: &Field<'a>) -> Option<(Ping, Option<Field<'a>>)> {
    let mut ping =
        Ping { entry_point: TRAEFIK.to_owned(), manual_routing: false, terminating_status_code: 503 };
    let block = match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => return Some((ping, None)),
        Enabled::With(block) => block,
    };
    let entry_point = block.take("entryPoint");
    if let Some(name) = entry_point.as_ref().and_then(|field| field.string()).filter(|name| !name.is_empty())
    {
        ping.entry_point = name;
    }
    if let Some(manual) = block.take("manualRouting").and_then(|field| field.boolean()) {
        ping.manual_routing = manual;
    }
    if let Some(status) = block.take("terminatingStatusCode").and_then(|field| field.u16(200, 599)) {
        ping.terminating_status_code = status;
    }
    block.finish();
    Some((ping, entry_point))
}

fn servers_transport(field: Option<&Field<'_>>) -> ServersTransport {
    let mut transport = ServersTransport::with_idle_conns(IDLE_CONNS);
    let Some(block) = field.and_then(|field| field.block()) else { return transport };
    if let Some(skip) = block.take("insecureSkipVerify").and_then(|field| field.boolean()) {
        transport.insecure_skip_verify = skip;
    }
    if let Some(roots) = block.take("rootCAs") {
        transport.root_cas = pem::certificate_list(&roots);
    }
    if let Some(field) = block.take("maxIdleConnsPerHost") {
        max_idle_conns(&field, &mut transport);
    }
    if let Some(timeouts) = block.take("forwardingTimeouts").and_then(|field| field.block()) {
        forwarding_timeouts(&timeouts, &mut transport);
        timeouts.finish();
    }
    block.unsupported(&["spiffe"]);
    block.finish();
    transport
}

/// `None` where no alias is asked for.
fn host_resolver(root: &Block<'_>) -> Option<HostResolver> {
    let Enabled::With(block) = root.take("hostResolver")?.enabled() else { return None };
    let wanted = block.take("cnameFlattening").and_then(|field| field.boolean()).unwrap_or(false);
    let file = block.take("resolvConfig").and_then(|field| field.string());
    let depth = block.take("resolvDepth").and_then(|field| field.integer(0..=MAX_ALIASES));
    block.finish();
    let depth = depth.and_then(|depth| usize::try_from(depth).ok()).unwrap_or(ALIASES);
    let resolv_config = file.unwrap_or_else(|| "/etc/resolv.conf".to_owned()).into();
    (wanted && depth > 0).then_some(HostResolver { resolv_config, depth })
}

fn core(field: Option<&Field<'_>>) -> Core {
    let mut core = Core {
        default_rule_syntax: None,
        strict_tls_options: false,
        workers: None,
        memory_limit: MEMORY_LIMIT,
        upgrade_timeout: UPGRADE_TIMEOUT,
    };
    let Some(block) = field.and_then(|field| field.block()) else { return core };
    if let Some(syntax) = block.take("defaultRuleSyntax").and_then(|field| field.text()) {
        match syntax.value {
            "v2" => core.default_rule_syntax = Some(Syntax::V2),
            "v3" => core.default_rule_syntax = Some(Syntax::V3),
            _ => syntax.unknown_word(["v3", "v2"]),
        }
    }
    if let Some(strict) = block.take("strictTLSOptions").and_then(|field| field.boolean()) {
        core.strict_tls_options = strict;
        core.default_rule_syntax.get_or_insert_default();
    }
    core.workers = block
        .take("workers")
        .and_then(|field| field.integer(1..=MAX_WORKERS))
        .and_then(|workers| usize::try_from(workers).ok());
    if let Some(limit) = block.take("memoryLimit").and_then(|field| memory_limit(&field)) {
        core.memory_limit = limit;
    }
    if let Some(timeout) = block.take("upgradeTimeout").and_then(|field| field.positive_duration()) {
        core.upgrade_timeout = timeout;
    }
    block.finish();
    core
}

fn memory_limit(field: &Field<'_>) -> Option<MemoryLimit> {
    let text = field.text()?;
    let refuse = |reason: &str| {
        let hint = "write an amount like `512MiB`, a share like `90%`, or `none`".to_owned();
        text.shape(format!("{} {reason}", text.quoted()), Some(hint));
        None
    };
    if text.value == "none" {
        return Some(MemoryLimit::Never);
    }
    if let Some(percent) = text.value.strip_suffix('%') {
        return match percent.trim_end().parse() {
            Ok(percent @ 1..=100) => Some(MemoryLimit::Percent(percent)),
            _ => refuse("is no share from 1% to 100%"),
        };
    }
    match size::parse(text.value) {
        Ok(bytes) if bytes >= LEAST_MEMORY_BYTES => Some(MemoryLimit::Bytes(bytes)),
        Ok(_) => refuse("is less than the 16 MiB that Vigie itself needs"),
        Err(reason) => refuse(reason),
    }
}

/// A text that says something: an empty one is as good as absent.
fn text(block: &Block<'_>, key: &'static str) -> Option<String> {
    block.take(key).and_then(|field| field.string()).filter(|text| !text.is_empty())
}

fn path(block: &Block<'_>, key: &'static str) -> Option<PathBuf> {
    text(block, key).map(PathBuf::from)
}

#[cfg(test)]
mod tests;
