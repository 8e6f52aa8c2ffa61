//! Every metric by name, help text and labels: the list that the documentation is checked against.

/// How a metric is shown. `labels` are in the order that values are given in.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    pub name: &'static str,
    pub help: &'static str,
    pub labels: &'static [&'static str],
}

macro_rules! definitions {
    ($($constant:ident = $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(pub(super) const $constant: Definition =
            Definition { name: $name, help: $help, labels: &[$($label),*] };)+
        /// Everything that `/metrics` may show.
        pub const ALL: &[Definition] = &[$($constant),+];
    };
}

// The first block is Traefik's, word for word, so that its dashboards and alerts keep working.
definitions! {
    CONFIG_RELOADS = "traefik_config_reloads_total" [] "Config reloads";
    CONFIG_LAST_RELOAD_SUCCESS = "traefik_config_last_reload_success" [] "Last config reload success";
    OPEN_CONNECTIONS = "traefik_open_connections" ["entrypoint", "protocol"]
        "How many open connections exist, by entryPoint and protocol";
    TLS_CERTS_NOT_AFTER = "traefik_tls_certs_not_after" ["cn", "serial", "sans"] "Certificate expiration timestamp";
    ENTRY_POINT_REQUESTS = "traefik_entrypoint_requests_total" ["code", "method", "protocol", "entrypoint"]
        "How many HTTP requests processed on an entrypoint, partitioned by status code, protocol, and method.";
    ENTRY_POINT_TLS = "traefik_entrypoint_requests_tls_total" ["tls_version", "tls_cipher", "entrypoint"]
        "How many HTTP requests with TLS processed on an entrypoint, partitioned by TLS Version and TLS cipher Used.";
    ENTRY_POINT_DURATION = "traefik_entrypoint_request_duration_seconds" ["code", "method", "protocol", "entrypoint"]
        "How long it took to process the request on an entrypoint, partitioned by status code, protocol, and method.";
    ENTRY_POINT_REQUEST_BYTES = "traefik_entrypoint_requests_bytes_total" ["code", "method", "protocol", "entrypoint"]
        "The total size of requests in bytes handled by an entrypoint, partitioned by status code, protocol, and method.";
    ENTRY_POINT_RESPONSE_BYTES = "traefik_entrypoint_responses_bytes_total" ["code", "method", "protocol", "entrypoint"]
        "The total size of responses in bytes handled by an entrypoint, partitioned by status code, protocol, and method.";
    ROUTER_REQUESTS = "traefik_router_requests_total" ["code", "method", "protocol", "router", "service"]
        "How many HTTP requests are processed on a router, partitioned by service, status code, protocol, and method.";
    ROUTER_TLS = "traefik_router_requests_tls_total" ["tls_version", "tls_cipher", "router", "service"]
        "How many HTTP requests with TLS are processed on a router, partitioned by service, TLS Version, and TLS cipher Used.";
    ROUTER_DURATION = "traefik_router_request_duration_seconds" ["code", "method", "protocol", "router", "service"]
        "How long it took to process the request on a router, partitioned by service, status code, protocol, and method.";
    ROUTER_REQUEST_BYTES = "traefik_router_requests_bytes_total" ["code", "method", "protocol", "router", "service"]
        "The total size of requests in bytes handled by a router, partitioned by service, status code, protocol, and method.";
    ROUTER_RESPONSE_BYTES = "traefik_router_responses_bytes_total" ["code", "method", "protocol", "router", "service"]
        "The total size of responses in bytes handled by a router, partitioned by service, status code, protocol, and method.";
    SERVICE_REQUESTS = "traefik_service_requests_total" ["code", "method", "protocol", "service"]
        "How many HTTP requests processed on a service, partitioned by status code, protocol, and method.";
    SERVICE_TLS = "traefik_service_requests_tls_total" ["tls_version", "tls_cipher", "service"]
        "How many HTTP requests with TLS processed on a service, partitioned by TLS version and TLS cipher.";
    SERVICE_DURATION = "traefik_service_request_duration_seconds" ["code", "method", "protocol", "service"]
        "How long it took to process the request on a service, partitioned by status code, protocol, and method.";
    SERVICE_REQUEST_BYTES = "traefik_service_requests_bytes_total" ["code", "method", "protocol", "service"]
        "The total size of requests in bytes received by a service, partitioned by status code, protocol, and method.";
    SERVICE_RESPONSE_BYTES = "traefik_service_responses_bytes_total" ["code", "method", "protocol", "service"]
        "The total size of responses in bytes returned by a service, partitioned by status code, protocol, and method.";
    SERVICE_RETRIES = "traefik_service_retries_total" ["service"] "How many request retries happened on a service.";
    SERVER_UP = "traefik_service_server_up" ["service", "url"]
        "service server is up, described by gauge value of 0 or 1.";

    // Per server, named as the systems that Vigie replaces name them.
    REQUESTS = "lb_requests_total" ["instance", "method", "status", "path"]
        "Requests answered through a server (instance = its URL), by method, status and router (path).";
    REQUEST_DISTRIBUTION = "request_distribution_total" ["instance"] "Requests by the server that was asked last.";
    ACTIVE_CONNECTIONS = "active_connections" ["instance"] "Requests in flight on each server.";
    REQUEST_DURATION = "request_duration_seconds" ["instance", "method", "path", "status"]
        "Time from the request's head to the end of the response, by server, method, router (path) and status.";
    INSTANCE_HEALTH = "instance_health" ["instance"] "Health of each server: 1 healthy, 0.5 degraded, 0 unhealthy.";
    HEALTH_CHECK_DURATION = "health_check_duration_seconds" ["check_type", "instance"] "Time that health probes took.";
    HEALTH_CHECK_FAILURES = "health_check_failures_total" ["check_type", "instance"] "Health probes that failed.";
    HEALTH_CHECKS = "health_check_total" ["check_type", "instance"] "Health probes made.";

    // Vigie's own.
    REFUSED_REQUESTS = "lb_refused_requests_total" ["entrypoint", "reason"]
        "Requests refused before routing: malformed, ambiguous or over a limit.";
    ALIAS_LOOKUPS = "lb_alias_lookups_total" ["entrypoint", "result"]
        "Times that name servers were asked what a host is an alias of, by what came of it.";
    UPSTREAM_ERRORS = "lb_upstream_errors_total" ["service", "reason"]
        "Attempts on a server that failed without a usable response.";
    RETRIES = "lb_retries_total" ["service"] "Attempts after the first.";
    FAILOVERS = "lb_failovers_total" ["service", "reason"]
        "Requests that a failover service led to its fallback, by why: health, status or unsent.";
    MIRRORS_DROPPED = "lb_mirrors_dropped_total" ["service"]
        "Requests that a mirroring service did not mirror because too many copies were in progress.";
    RETRIES_REFUSED = "lb_retries_refused_total" ["service"]
        "Attempts after the first that the retry budget did not allow.";
    QUEUE_LENGTH = "lb_queue_length" ["service"] "Requests that wait for a server with room for them.";
    QUEUE_REFUSED = "lb_queue_refused_total" ["service", "reason"]
        "Requests answered 503 because every server was full: no room in the queue (full), waited too long (timeout).";
    BREAKER_STATE = "lb_circuit_breaker_state" ["middleware"] "Circuit breaker: 0 closed, 1 half-open, 2 open.";
    BREAKER_TRANSITIONS = "lb_circuit_breaker_transitions_total" ["middleware", "to"]
        "State changes of a circuit breaker, by the state entered.";
    EJECTIONS = "lb_ejections_total" ["service", "reason"]
        "Servers that outlier detection put aside, by the kind of failures in a row.";
    EJECTIONS_OVERFLOW = "lb_ejections_overflow_total" ["service"]
        "Ejections that did not happen, since enough servers were out or no other one would be left.";
    EJECTED_SERVERS = "lb_ejected_servers" ["service"] "Servers that outlier detection keeps aside now.";
    SLOW_START_SERVERS = "lb_slow_start_servers" ["service"] "Servers whose share is still growing.";
    PANIC_MODE = "lb_panic_mode" ["service"]
        "Whether too few servers are eligible, so that all are used: 1 or 0.";
    RATE_LIMITED = "lb_rate_limited_total" ["middleware"] "Requests that a rate limit or in-flight limit refused.";
    RATE_LIMIT_UNKNOWN = "lb_rate_limit_store_errors_total" ["middleware"]
        "Requests answered 500 because the Redis of a rate limit could not be asked.";
    FORWARD_AUTH = "lb_forward_auth_requests_total" ["middleware", "outcome"]
        "Requests that an auth server was asked about: allowed, denied, error (no usable answer), too_large.";
    FORWARD_AUTH_DURATION = "lb_forward_auth_duration_seconds" ["middleware"]
        "Time until an auth server had answered, or was given up.";
    ERROR_PAGES = "lb_error_pages_total" ["middleware", "outcome"]
        "Answers replaced by a page (served), or by what stands for a page that could not be had (failed).";
    TCP_CONNECTIONS = "lb_tcp_connections_total" ["service", "outcome"]
        "Connections of a TCP service that have ended or were refused, by how.";
    TCP_OPEN = "lb_tcp_open_connections" ["service"] "Connections that a TCP service has with its servers now.";
    TCP_BYTES = "lb_tcp_bytes_total" ["service", "direction"]
        "Bytes passed on: in to the servers, out to the clients.";
    TCP_DIAL_FAILURES = "lb_tcp_dial_failures_total" ["service", "reason"]
        "Servers of a TCP service that could not be reached for a connection: connect, tls.";
    SERVER_ADMIN_STATE = "lb_server_admin_state" ["service", "url"]
        "What the operator wants of a server: 0 ready, 1 drain, 2 maintenance.";
    REMOVED_CLOSED = "lb_removed_server_closed_total" []
        "Requests and tunnels on servers that a reload removed, ended because the drain time was over.";
    HANDED_OVER = "lb_connections_handed_over_total" []
        "Client connections that a worker accepted and another with fewer of them serves.";
    UDP_FLOWS = "lb_udp_flows" ["entrypoint"] "Clients of a UDP entry point that have a server now.";
    UDP_FLOWS_BEGUN = "lb_udp_flows_total" ["entrypoint"] "Flows that clients of a UDP entry point have begun.";
    UDP_DATAGRAMS = "lb_udp_datagrams_total" ["entrypoint", "direction"]
        "Datagrams that came from clients (in) and went to them (out).";
    UDP_BYTES = "lb_udp_bytes_total" ["entrypoint", "direction"]
        "Bytes in datagrams that came from clients (in) and went to them (out).";
    UDP_DROPPED = "lb_udp_dropped_total" ["entrypoint", "reason"] "Datagrams that went nowhere.";
    HTTP3_CONNECTIONS = "lb_http3_connections" ["entrypoint"] "Open connections of clients over QUIC.";
    UPSTREAM_CONNECTIONS = "lb_upstream_connections" ["service"] "Open connections to servers, idle ones included.";
    ACCESS_LOG_DROPPED = "lb_access_log_dropped_lines_total" []
        "Access log lines lost because the file could not be written in time.";
    TELEMETRY_SENT = "lb_telemetry_sent_total" ["signal"]
        "Spans and lines of logs that a receiver has taken, by signal: traces, logs, accessLogs.";
    TELEMETRY_DROPPED = "lb_telemetry_dropped_total" ["signal"]
        "Spans and lines of logs given up because the receiver was too slow, refused them or could not be reached.";
    MEMORY_LIMIT = "lb_memory_limit_bytes" [] "Resident memory from which on new requests are refused.";
    MEMORY_SHEDDING = "lb_memory_shedding" [] "1 while new requests are refused because memory is short, else 0.";
    LOG_DROPPED = "lb_log_dropped_lines_total" []
        "Lines of the diagnostics lost because the file could not be written in time.";
    RELOAD_FAILURES = "lb_config_reload_failures_total" [] "Configurations refused; the previous one stayed in force.";
    LAST_RELOAD_FAILURE = "lb_config_last_reload_failure" [] "Unix time of the last refused configuration, 0 if none.";
    QUARANTINED = "lb_config_quarantined_objects" ["kind"]
        "Objects whose last good version is in force because the newest one is broken, by kind.";
    DISABLED = "lb_config_disabled_objects" ["kind"]
        "Objects that are left out because they are broken and have no good version to go back to, by kind.";
    ACME_ORDERS = "lb_acme_orders_total" ["resolver", "outcome"]
        "Certificates that were ordered from an authority, by outcome: ordered, renewed, failed.";
    OCSP_RESPONSES = "lb_ocsp_responses_total" ["outcome"]
        "Answers of OCSP responders, by outcome: good (stapled), revoked, failed.";
    PROVIDER_STALE = "lb_provider_stale" ["provider"]
        "1 while a provider's newest configuration is refused or it cannot be asked, else 0.";
    UPGRADES = "lb_upgrades_total" [] "Upgrades of Vigie itself that led from the first process to this one.";
    UPGRADE_FAILURES = "lb_upgrade_failures_total" []
        "Upgrades that failed: this process went on, or one of those before it.";
    BUILD_INFO = "lb_build_info" ["version"] "Always 1; the version runs.";

    // The process, under the names that every Prometheus client library uses.
    PROCESS_CPU = "process_cpu_seconds_total" [] "Total user and system CPU time spent in seconds.";
    PROCESS_RESIDENT = "process_resident_memory_bytes" [] "Resident memory size in bytes.";
    PROCESS_VIRTUAL = "process_virtual_memory_bytes" [] "Virtual memory size in bytes.";
    PROCESS_OPEN_FDS = "process_open_fds" [] "Number of open file descriptors.";
    PROCESS_MAX_FDS = "process_max_fds" [] "Maximum number of open file descriptors.";
    PROCESS_START = "process_start_time_seconds" [] "Start time of the process since unix epoch in seconds.";
    PROCESS_THREADS = "process_threads" [] "Number of threads.";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_valid() {
        let names: HashSet<_> = ALL.iter().map(|d| d.name).collect();
        assert_eq!(names.len(), ALL.len());
        for Definition { name, help, labels } in ALL {
            let labels = labels.iter().map(|l| (*l).to_owned()).collect();
            prometheus::core::Desc::new((*name).into(), (*help).into(), labels, Default::default()).unwrap();
        }
    }
}
