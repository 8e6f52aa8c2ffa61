//! `tracing`, and the `otlp` blocks wherever they are.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::observe::buckets;
use super::transport;
use crate::decode::{Block, Enabled, Field};
use crate::document::read_bytes;
use crate::dynamic::Scheme;
use crate::middlewares::header_names;
use crate::net::{is_token, server_url};
use crate::problem::quoted;
use crate::telemetry::{
    DatagramAddress, Datagrams, Influx, MetricExports, Otlp, OtlpLogs, OtlpMetrics, OtlpProtocol, Push,
    Tracing, UnixKind,
};

/// Defaults of reference 1.9.
const SERVICE_NAME: &str = "traefik";
const HTTP_ENDPOINT: &str = "https://localhost:4318";
/// Of reference 1.8.
const PUSH_INTERVAL: Duration = Duration::from_secs(10);
const BOUNDARIES: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const GRPC_ENDPOINT: &str = "localhost:4317";

pub(super) fn tracing(field: &Field<'_>) -> Option<Tracing> {
    const PATH: &str = "/v1/traces";
    let mut tracing = Tracing {
        service_name: SERVICE_NAME.to_owned(),
        resource_attributes: BTreeMap::new(),
        captured_request_headers: Vec::new(),
        captured_response_headers: Vec::new(),
        safe_query_params: Vec::new(),
        sample_rate: 1.0,
        add_internals: false,
        otlp: plain(PATH),
    };
    let block = match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => return Some(tracing),
        Enabled::With(block) => block,
    };
    for key in ["jaeger", "zipkin", "datadog", "instana", "haystack", "elastic"] {
        if let Some(field) = block.take_unlisted(key) {
            let message = format!("Traefik v3 has no `tracing.{key}` any more");
            field.error_at_key(
                message,
                Some("write `otlp`, which its receiver or a collector takes".to_owned()),
            );
        }
    }
    (tracing.service_name, tracing.resource_attributes) = resource(&block);
    // Deprecated by Traefik; the newer key wins.
    for (name, value) in
        block.take_unlisted("globalAttributes").map(|field| texts(&field)).unwrap_or_default()
    {
        tracing.resource_attributes.entry(name).or_insert(value);
    }
    for (key, place) in [
        ("capturedRequestHeaders", &mut tracing.captured_request_headers),
        ("capturedResponseHeaders", &mut tracing.captured_response_headers),
    ] {
        let names = block.take(key).map(|field| header_names(&field)).unwrap_or_default();
        *place = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    }
    if let Some(field) = block.take("safeQueryParams") {
        tracing.safe_query_params = field.texts().iter().map(|text| text.value.to_owned()).collect();
    }
    if let Some(field) = block.take("sampleRate")
        && let Some(rate) = field.float(f64::MIN..=f64::MAX)
    {
        tracing.sample_rate = rate.clamp(0.0, 1.0);
        if tracing.sample_rate != rate {
            let hint = "`1` is all of them, `0.05` one of twenty".to_owned();
            field.warn(format!("a share is from 0 to 1; {} is used", tracing.sample_rate), Some(hint));
        }
    }
    tracing.add_internals = block.take("addInternals").and_then(|field| field.boolean()).unwrap_or(false);
    if let Some(field) = block.take("otlp") {
        tracing.otlp = otlp(&field, PATH).unwrap_or(tracing.otlp);
    }
    block.finish();
    Some(tracing)
}

/// `serviceName` and `resourceAttributes`, which every signal has.
pub(super) fn resource(block: &Block<'_>) -> (String, BTreeMap<String, String>) {
    let name = super::text(block, "serviceName").unwrap_or_else(|| SERVICE_NAME.to_owned());
    let attributes = block.take("resourceAttributes").map(|field| texts(&field)).unwrap_or_default();
    (name, attributes)
}

/// A map of texts, whose keys may have dots.
fn texts(field: &Field<'_>) -> BTreeMap<String, String> {
    field.dotted().into_iter().filter_map(|(name, field)| Some((name, field.string()?))).collect()
}

/// `otlp` of a log, which Traefik has behind `experimental.otlpLogs`.
pub(super) fn logs(field: Option<Field<'_>>, is_unlocked: bool) -> Option<OtlpLogs> {
    const PATH: &str = "/v1/logs";
    let field = field?;
    let (service_name, resource_attributes) = (SERVICE_NAME.to_owned(), BTreeMap::new());
    let mut logs = OtlpLogs { service_name, resource_attributes, otlp: plain(PATH) };
    match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => {}
        Enabled::With(block) => {
            (logs.service_name, logs.resource_attributes) = resource(&block);
            logs.otlp = receiver(&block, PATH)?;
            block.finish();
        }
    }
    if !is_unlocked {
        let hint = "write `experimental: {otlpLogs: true}`, as Traefik wants it".to_owned();
        field.error_at_key("`otlp` of a log is locked".to_owned(), Some(hint));
    }
    Some(logs)
}

/// `metrics`, but for Prometheus.
pub(super) fn exports(block: &Block<'_>, add_internals: bool) -> MetricExports {
    let otlp = block.take("otlp").and_then(|field| otlp_metrics(&field));
    let statsd = block.take("statsD").and_then(|field| datagrams(&field, false));
    let datadog = block.take("datadog").and_then(|field| datagrams(&field, true));
    let influxdb = block.take("influxDB2").and_then(|field| influx(&field));
    let any = otlp.is_some() || statsd.is_some() || datadog.is_some() || influxdb.is_some();
    MetricExports { add_internals: add_internals && any, otlp, statsd, datadog, influxdb }
}

fn default_push() -> Push {
    Push { interval: PUSH_INTERVAL, entry_points: true, routers: false, services: true }
}

fn datagrams(field: &Field<'_>, may_be_unix: bool) -> Option<Datagrams> {
    let mut datagrams = Datagrams {
        to: DatagramAddress::Udp { host: "localhost".to_owned(), port: 8125 },
        prefix: SERVICE_NAME.to_owned(),
        push: default_push(),
    };
    let block = match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => return Some(datagrams),
        Enabled::With(block) => block,
    };
    push(&block, &mut datagrams.push);
    datagrams.prefix = super::text(&block, "prefix").unwrap_or(datagrams.prefix);
    if let Some(address) = block.take_word("address") {
        datagrams.to = match unix_socket(&address).filter(|_| may_be_unix) {
            Some(socket) => socket,
            None => {
                let (host, port) = host_and_port(&address, "statsd:8125")?;
                DatagramAddress::Udp { host, port }
            }
        };
    }
    block.finish();
    Some(datagrams)
}

fn unix_socket(address: &Field<'_>) -> Option<DatagramAddress> {
    let text = address.text()?.value;
    let (scheme, path) = text.split_once("://").filter(|(_, path)| !path.is_empty())?;
    let kind = match scheme {
        "unix" => None,
        "unixgram" => Some(UnixKind::Datagram),
        "unixstream" => Some(UnixKind::Stream),
        _ => return None,
    };
    Some(DatagramAddress::Unix { path: path.into(), kind })
}

fn influx(field: &Field<'_>) -> Option<Influx> {
    let block = field.block()?;
    let mut pushed = default_push();
    push(&block, &mut pushed);
    let labels = block.take("additionalLabels").map(|field| texts(&field)).unwrap_or_default();
    let word =
        |key, hint| block.require(key, hint).and_then(|field| field.string()).filter(|text| !text.is_empty());
    let token = word("token", "write the token, or name a file that holds it");
    let org = word("org", "name the organisation");
    let bucket = word("bucket", "name the bucket");
    let mut receiver = plain("/");
    (receiver.port, receiver.tls) = (8086, None);
    receiver.endpoint_text = "http://localhost:8086".to_owned();
    if let Some(address) = block.take_word("address") {
        receiver.endpoint_text = address.string()?;
        receiver.tls = Some(transport::plain(false));
        http_endpoint(&address, &mut receiver)?;
    }
    block.finish();
    let (token, org, bucket) = (token?, org?, bucket?);
    // As Traefik has it: a value that names a file stands for what is in it.
    let file = read_bytes(Path::new(&token)).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let token = file.map_or(token, |content| content.trim().to_owned());
    let OtlpProtocol::Http { path: before } = &receiver.protocol else { return None };
    let before = before.trim_end_matches('/');
    let path =
        format!("{before}/api/v2/write?bucket={}&org={}&precision=ns", encoded(&bucket), encoded(&org));
    receiver.protocol = OtlpProtocol::Http { path };
    receiver.headers = vec![("Authorization".to_owned(), format!("Token {token}"))];
    Some(Influx { receiver, labels, push: pushed })
}

/// As a value in a query.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let each = text.bytes();
    each.map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn otlp_metrics(field: &Field<'_>) -> Option<OtlpMetrics> {
    const PATH: &str = "/v1/metrics";
    let mut metrics = OtlpMetrics {
        service_name: SERVICE_NAME.to_owned(),
        resource_attributes: BTreeMap::new(),
        push: default_push(),
        boundaries: BOUNDARIES.to_vec(),
        otlp: plain(PATH),
    };
    let block = match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => return Some(metrics),
        Enabled::With(block) => block,
    };
    (metrics.service_name, metrics.resource_attributes) = resource(&block);
    push(&block, &mut metrics.push);
    if let Some(field) = block.take("explicitBoundaries") {
        metrics.boundaries = buckets(&field, &BOUNDARIES);
    }
    metrics.otlp = receiver(&block, PATH)?;
    block.finish();
    Some(metrics)
}

fn push(block: &Block<'_>, push: &mut Push) {
    if let Some(interval) = block.take("pushInterval").and_then(|field| field.duration_or(PUSH_INTERVAL)) {
        push.interval = interval;
    }
    for (key, place) in [
        ("addEntryPointsLabels", &mut push.entry_points),
        ("addRoutersLabels", &mut push.routers),
        ("addServicesLabels", &mut push.services),
    ] {
        if let Some(value) = block.take(key).and_then(|field| field.boolean()) {
            *place = value;
        }
    }
}

/// Where an `otlp` sends to; `None` when it is switched off, or not understood.
pub(super) fn otlp(field: &Field<'_>, path: &str) -> Option<Otlp> {
    let block = match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => return Some(plain(path)),
        Enabled::With(block) => block,
    };
    let otlp = receiver(&block, path);
    block.finish();
    otlp
}

/// What `http` and `grpc` of an `otlp` say.
fn receiver(block: &Block<'_>, path: &str) -> Option<Otlp> {
    let (http, grpc) = (block.take("http"), block.take("grpc"));
    let grpc = grpc.filter(|field| !matches!(field.enabled(), Enabled::Off));
    match (grpc, http) {
        (Some(grpc), http) => {
            if let Some(http) = http {
                http.warn_at_key("has no effect: `grpc` is there as well, and wins".to_owned(), None);
            }
            over(&grpc, path, true)
        }
        (None, Some(http)) => over(&http, path, false),
        (None, None) => Some(plain(path)),
    }
}

fn plain(path: &str) -> Otlp {
    Otlp {
        protocol: OtlpProtocol::Http { path: path.to_owned() },
        host: "localhost".to_owned(),
        port: 4318,
        tls: Some(transport::plain(false)),
        headers: Vec::new(),
        endpoint_text: HTTP_ENDPOINT.to_owned(),
    }
}

fn over(field: &Field<'_>, path: &str, grpc: bool) -> Option<Otlp> {
    let mut otlp = plain(path);
    if grpc {
        otlp.protocol = OtlpProtocol::Grpc;
        otlp.endpoint_text = GRPC_ENDPOINT.to_owned();
        otlp.port = 4317;
        otlp.tls = Some(transport::plain(true));
    }
    let block = match field.enabled() {
        Enabled::Off | Enabled::Plain => return Some(otlp),
        Enabled::With(block) => block,
    };
    if let Some(tls) = block.take("tls").and_then(|field| field.block()) {
        otlp.tls = Some(transport::read(&tls, transport::plain(grpc)));
        tls.finish();
        if grpc && let Some(insecure) = block.take("insecure").filter(|field| field.boolean() == Some(true)) {
            let hint = "remove one of them".to_owned();
            insecure.error("`tls` and `insecure` exclude each other".to_owned(), Some(hint));
        }
    } else if grpc && block.take("insecure").and_then(|field| field.boolean()) == Some(true) {
        otlp.tls = None;
    }
    otlp.headers = block.take("headers").map(|field| headers(&field)).unwrap_or_default();
    if let Some(endpoint) = block.take_word("endpoint") {
        otlp.endpoint_text = endpoint.string()?;
        if grpc { grpc_endpoint(&endpoint, &mut otlp)? } else { http_endpoint(&endpoint, &mut otlp)? }
    }
    block.finish();
    Some(otlp)
}

fn http_endpoint(field: &Field<'_>, otlp: &mut Otlp) -> Option<()> {
    let hint = || Some("write `http://collector:4318` or `https://collector:4318`".to_owned());
    let text = field.text()?;
    let parts = match server_url(text.value) {
        Ok(parts) if parts.scheme != Scheme::H2c && !parts.ignored => parts,
        Ok(_) => {
            field.error(format!("{} is not where OTLP can be sent over HTTP", text.quoted()), hint());
            return None;
        }
        Err((message, _)) => {
            field.error(message, hint());
            return None;
        }
    };
    if parts.scheme == Scheme::Http {
        otlp.tls = None;
    }
    (otlp.host, otlp.port) = (parts.host, parts.port);
    if !parts.path.is_empty() {
        otlp.protocol = OtlpProtocol::Http { path: parts.path };
    }
    Some(())
}

fn grpc_endpoint(field: &Field<'_>, otlp: &mut Otlp) -> Option<()> {
    (otlp.host, otlp.port) = host_and_port(field, "collector:4317")?;
    Some(())
}

/// As Traefik writes it.
fn host_and_port(field: &Field<'_>, example: &str) -> Option<(String, u16)> {
    let text = field.text()?;
    // As to Go, which dials this machine.
    let host = if text.value.starts_with(':') { "localhost" } else { "" };
    let parts = server_url(&format!("http://{host}{}", text.value)).ok();
    let parts = parts.filter(|parts| parts.path.is_empty() && !parts.ignored);
    match parts.filter(|parts| text.value.ends_with(&format!(":{}", parts.port))) {
        Some(parts) => Some((parts.host, parts.port)),
        None => {
            let hint = format!("write `{example}`, without a scheme");
            field.error(format!("{} is not a host and a port", text.quoted()), Some(hint));
            None
        }
    }
}

fn headers(field: &Field<'_>) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (name, field) in field.dotted() {
        let Some(value) = field.string() else { continue };
        if !is_token(&name) {
            field.error_at_key(format!("{} is not the name of a header", quoted(&name)), None);
        } else if value.chars().any(|c| c.is_control()) {
            // The value is not repeated: it may be a password.
            field.error("has a character that no header may have".to_owned(), None);
        } else {
            headers.push((name, value));
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Problems, parse_static};

    fn read(text: &str) -> Result<Tracing, Vec<String>> {
        match parse_static("vigie.yml", &format!("tracing: {text}")) {
            Ok((config, warnings)) if warnings.is_empty() => Ok(config.tracing.unwrap()),
            Ok((_, problems)) | Err(Problems(problems)) => {
                Err(problems.iter().map(|problem| format!("{}: {}", problem.key, problem.message)).collect())
            }
        }
    }

    #[test]
    fn defaults_are_those_of_traefik() {
        for text in ["{}", "true", "{otlp: {}}", "{otlp: {http: {}}}"] {
            let tracing = read(text).unwrap();
            assert_eq!(tracing.service_name, "traefik", "{text}");
            assert_eq!((tracing.sample_rate, tracing.add_internals), (1.0, false));
            let Otlp { protocol, host, port, tls, .. } = tracing.otlp;
            assert_eq!(protocol, OtlpProtocol::Http { path: "/v1/traces".to_owned() });
            assert_eq!((host.as_str(), port, tls.is_some()), ("localhost", 4318, true));
        }
        let grpc = read("{otlp: {grpc: {}}}").unwrap().otlp;
        assert_eq!((grpc.protocol, grpc.port, grpc.tls.is_some()), (OtlpProtocol::Grpc, 4317, true));
        assert!(parse_static("vigie.yml", "tracing: false").unwrap().0.tracing.is_none());
    }

    #[test]
    fn keys_are_read() {
        let tracing = read(
            "{serviceName: shop, resourceAttributes: {deployment.environment.name: prod}, \
             globalAttributes: {team: blue}, capturedRequestHeaders: 'X-Want, Accept', \
             capturedResponseHeaders: [X-Answer], safeQueryParams: [page], sampleRate: 0.5, addInternals: true, \
             otlp: {http: {endpoint: 'http://[::1]:9/a/b', headers: {Authorization: secret}}}}",
        )
        .unwrap();
        assert_eq!(tracing.service_name, "shop");
        assert_eq!(tracing.resource_attributes["deployment.environment.name"], "prod");
        assert_eq!(tracing.resource_attributes["team"], "blue");
        assert_eq!(tracing.captured_request_headers, ["x-want", "accept"]);
        assert_eq!(tracing.captured_response_headers, ["x-answer"]);
        assert_eq!((tracing.sample_rate, tracing.add_internals), (0.5, true));
        assert_eq!(tracing.safe_query_params, ["page"]);
        let otlp = &tracing.otlp;
        assert_eq!(otlp.protocol, OtlpProtocol::Http { path: "/a/b".to_owned() });
        assert_eq!((otlp.host.as_str(), otlp.port, otlp.tls.is_some()), ("::1", 9, false));
        assert_eq!(otlp.headers, [("Authorization".to_owned(), "secret".to_owned())]);
        assert!(!format!("{tracing:?}").contains("secret"));
        let grpc = read("{otlp: {grpc: {endpoint: 'c:7', insecure: true}}}").unwrap().otlp;
        assert_eq!((grpc.host.as_str(), grpc.port, grpc.tls.is_some()), ("c", 7, false));
        let tls =
            read("{otlp: {grpc: {endpoint: 'c:7', tls: {insecureSkipVerify: true}}}}").unwrap().otlp.tls;
        assert!(tls.unwrap().insecure_skip_verify);
    }

    #[test]
    fn names_of_attributes_may_be_nested() {
        let yaml = "tracing: {resourceAttributes: {deployment: {environment: {name: prod}}, team: blue}}";
        let toml = "[tracing.resourceAttributes]\ndeployment.environment.name = 'prod'\nteam = 'blue'";
        for (name, text) in [("vigie.yml", yaml), ("vigie.toml", toml)] {
            let attributes = parse_static(name, text).unwrap().0.tracing.unwrap().resource_attributes;
            let attributes: Vec<_> = attributes.iter().map(|(name, value)| (&**name, &**value)).collect();
            assert_eq!(attributes, [("deployment.environment.name", "prod"), ("team", "blue")], "{name}");
        }
    }

    #[test]
    fn an_empty_name_of_a_header_is_left_out() {
        let text = "tracing: {capturedRequestHeaders: 'X-A,', capturedResponseHeaders: [X-B, '']}";
        let (config, warnings) = parse_static("vigie.yml", text).unwrap();
        let tracing = config.tracing.unwrap();
        assert_eq!(
            (tracing.captured_request_headers, tracing.captured_response_headers),
            (vec!["x-a".to_owned()], vec!["x-b".to_owned()])
        );
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }

    #[test]
    fn metrics_go_to_receivers_as_well() {
        let read = |text: &str| parse_static("vigie.yml", text).unwrap_or_else(|p| panic!("{p}")).0;
        for text in [
            "metrics: {otlp: {}}",
            "metrics: {otlp: true}",
            "metrics: {otlp: {pushInterval: 0s, grpc: false}}",
        ] {
            let config = read(text);
            assert!(config.metrics.is_none());
            let otlp = config.metric_exports.otlp.unwrap();
            assert_eq!((otlp.push.interval, otlp.boundaries.len()), (Duration::from_secs(10), 14));
            assert!(otlp.push.entry_points && otlp.push.services && !otlp.push.routers);
            assert_eq!(otlp.otlp.protocol, OtlpProtocol::Http { path: "/v1/metrics".to_owned() });
        }
        let config = read(
            "metrics: {addInternals: true, prometheus: {}, otlp: {pushInterval: 5, explicitBoundaries: [1, 2], \
             serviceName: a, resourceAttributes: {b: c}, addRoutersLabels: true, addServicesLabels: false, \
             grpc: {endpoint: 'c:1', insecure: true}}}",
        );
        assert!(config.metrics.is_some() && config.metric_exports.add_internals);
        let otlp = config.metric_exports.otlp.unwrap();
        assert_eq!((otlp.push.interval, otlp.boundaries), (Duration::from_secs(5), vec![1.0, 2.0]));
        assert!(otlp.push.routers && !otlp.push.services);
        assert_eq!((otlp.service_name.as_str(), otlp.otlp.port), ("a", 1));
        assert!(read("metrics: {otlp: false}").metric_exports.otlp.is_none());
    }

    #[test]
    fn metrics_go_to_older_receivers_too() {
        let read = |text: &str| match parse_static("vigie.yml", &format!("metrics: {text}")) {
            Ok((config, _)) => Ok(config.metric_exports),
            Err(Problems(problems)) => {
                Err(problems.iter().map(|p| format!("{}: {}", p.key, p.message)).collect::<Vec<_>>())
            }
        };
        let exports =
            read("{statsD: {}, datadog: {address: 'dd:1', prefix: p, addRoutersLabels: true}}").unwrap();
        let (statsd, datadog) = (exports.statsd.unwrap(), exports.datadog.unwrap());
        assert_eq!((statsd.prefix.as_str(), datadog.prefix.as_str()), ("traefik", "p"));
        assert!(datadog.push.routers && !statsd.push.routers);
        let influx = read("{influxDB2: {token: t, org: my org, bucket: b, additionalLabels: {a: b}}}")
            .unwrap()
            .influxdb
            .unwrap();
        let path = "/api/v2/write?bucket=b&org=my%20org&precision=ns".to_owned();
        assert_eq!(influx.receiver.protocol, OtlpProtocol::Http { path });
        assert_eq!(
            (influx.receiver.port, influx.receiver.tls.is_some(), influx.labels.len()),
            (8086, false, 1)
        );
        for (text, expected) in [
            ("{influxDB2: {org: o, bucket: b}}", "metrics.influxDB2: `token` is missing"),
            (
                "{statsD: {address: 'unix:///x'}}",
                "metrics.statsD.address: `unix:///x` is not a host and a port",
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), [expected], "{text}");
        }
    }

    #[test]
    fn logs_are_behind_a_lock() {
        let logs =
            "log: {otlp: {serviceName: a}}\naccessLog: {dualOutput: true, otlp: {grpc: {endpoint: 'c:1'}}}\n";
        let (config, _) =
            parse_static("vigie.yml", &format!("experimental: {{otlpLogs: true}}\n{logs}")).unwrap();
        let own = config.log.otlp.unwrap();
        assert_eq!(own.otlp.protocol, OtlpProtocol::Http { path: "/v1/logs".to_owned() });
        assert_eq!(own.service_name, "a");
        let requests = config.access_log.unwrap();
        assert!(requests.dual_output);
        assert_eq!(requests.otlp.unwrap().otlp.protocol, OtlpProtocol::Grpc);
        let Err(Problems(problems)) = parse_static("vigie.yml", logs) else { panic!("it is locked") };
        assert_eq!(problems.len(), 2);
        assert!(problems[0].hint.as_deref().unwrap().contains("experimental: {otlpLogs: true}"));
    }

    #[test]
    fn problems_are_told() {
        for (text, expected) in [
            ("{otlp: {http: {endpoint: 'c:4318'}}}", "tracing.otlp.http.endpoint: `c:4318` has no scheme"),
            (
                "{otlp: {http: {endpoint: 'h2c://c'}}}",
                "tracing.otlp.http.endpoint: `h2c://c` is not where OTLP can be sent over HTTP",
            ),
            (
                "{otlp: {grpc: {endpoint: 'http://c:4317'}}}",
                "tracing.otlp.grpc.endpoint: `http://c:4317` is not a host and a port",
            ),
            ("{otlp: {grpc: {endpoint: c}}}", "tracing.otlp.grpc.endpoint: `c` is not a host and a port"),
            (
                "{otlp: {grpc: {insecure: true, tls: {insecureSkipVerify: true}}}}",
                "tracing.otlp.grpc.insecure: `tls` and `insecure` exclude each other",
            ),
            (
                "{otlp: {http: {}, grpc: {}}}",
                "tracing.otlp.http: has no effect: `grpc` is there as well, and wins",
            ),
            (
                "{otlp: {http: {headers: {'a b': c}}}}",
                "tracing.otlp.http.headers.a b: `a b` is not the name of a header",
            ),
            ("{sampleRate: 2}", "tracing.sampleRate: a share is from 0 to 1; 1 is used"),
            ("{sampleRate: much}", "tracing.sampleRate: expected a number, found `much`"),
            (
                "{capturedRequestHeaders: ['a b']}",
                "tracing.capturedRequestHeaders[0]: `a b` is not a header name",
            ),
            ("{zipkin: {}}", "tracing.zipkin: Traefik v3 has no `tracing.zipkin` any more"),
        ] {
            assert_eq!(read(text).unwrap_err(), [expected], "{text}");
        }
    }

    #[test]
    fn datagrams_go_to_ports_and_sockets() {
        let to = |text: &str| {
            let text = format!("metrics: {{{text}}}");
            let exports = parse_static("vigie.yml", &text).ok()?.0.metric_exports;
            Some(exports.datadog.or(exports.statsd).unwrap().to)
        };
        let udp = |host: &str, port| Some(DatagramAddress::Udp { host: host.to_owned(), port });
        let unix = |kind| Some(DatagramAddress::Unix { path: "/run/dd.sock".into(), kind });
        for (text, expected) in [
            ("datadog: {}", udp("localhost", 8125)),
            ("datadog: {address: ':1'}", udp("localhost", 1)),
            ("statsD: {address: ':1'}", udp("localhost", 1)),
            ("datadog: {address: 'dd:2'}", udp("dd", 2)),
            ("datadog: {address: 'unix:///run/dd.sock'}", unix(None)),
            ("datadog: {address: 'unixgram:///run/dd.sock'}", unix(Some(UnixKind::Datagram))),
            ("datadog: {address: 'unixstream:///run/dd.sock'}", unix(Some(UnixKind::Stream))),
            ("datadog: {address: 'unix://'}", None),
            ("datadog: {address: 'udp://dd:2'}", None),
            ("datadog: {address: ':'}", None),
            ("statsD: {address: 'unix:///run/dd.sock'}", None),
        ] {
            assert_eq!(to(text), expected, "{text}");
        }
    }
}
