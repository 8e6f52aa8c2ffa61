//! Keys in the wrong place: where people who come from other versions, or who have lost a level, mean them to be.

/// Where a key belongs that has no meaning at the top of a file with the keys `known`: in the other kind of file,
/// deeper, or in one of Traefik v1.
pub(super) fn at_the_top(key: &str, known: &[&str]) -> Option<&'static str> {
    let is_static = known.contains(&"entryPoints");
    let hint = match (is_static, key.to_ascii_lowercase().as_str()) {
        (true, "docker" | "file" | "consul" | "etcd" | "redis" | "rest" | "kubernetes") => {
            "providers stand below `providers`; Traefik v1 had them here"
        }
        (true, "defaultentrypoints") => {
            "a key of Traefik v1; since then `asDefault: true` marks an entry point"
        }
        (true, "acme") => "a key of Traefik v1; since then it stands below `certificatesResolvers.<name>`",
        (true, "loglevel") => "a key of Traefik v1; since then it is `log.level`",
        (_, "frontends" | "backends") => {
            "a key of Traefik v1; since then there are `http.routers` and `http.services`, in a dynamic file"
        }
        (false, "routers" | "services" | "middlewares" | "serverstransports") => {
            "indent it below `http`, `tcp` or `udp`"
        }
        (false, "labels") => {
            "labels stand at the container or service, in the Compose file, and need `providers.docker`"
        }
        (false, "apiversion") => {
            "a resource of Kubernetes, which is no configuration file: write its parts as `http.routers`, `http.services` ..."
        }
        (
            false,
            "accesslog"
            | "api"
            | "certificatesresolvers"
            | "entrypoints"
            | "global"
            | "log"
            | "metrics"
            | "ping"
            | "providers"
            | "tracing",
        ) => "it belongs in the static configuration, the file that `--configFile` names",
        _ => return None,
    };
    Some(hint)
}

/// The same for a block with the keys `known`.
pub(super) fn in_a_block(key: &str, known: &[&str]) -> Option<&'static str> {
    let has = |key: &str| known.contains(&key);
    Some(match key.to_ascii_lowercase().as_str() {
        // An entry point.
        "redirections"
        | "tls"
        | "middlewares"
        | "encodequerysemicolons"
        | "sanitizepath"
        | "encodedcharacters"
        | "maxheaderbytes"
        | "aliasheadersstrategy"
            if has("allowACMEByPass") =>
        {
            "it stands below `http`"
        }
        "lifecycle" | "respondingtimeouts" | "keepalivemaxtime" | "keepalivemaxrequests"
            if has("allowACMEByPass") =>
        {
            "it stands below `transport`"
        }
        "readtimeout" | "writetimeout" | "idletimeout"
            if has("respondingTimeouts") || has("allowACMEByPass") =>
        {
            "it stands below `transport.respondingTimeouts`"
        }
        "trustedips" | "insecure" if has("allowACMEByPass") => {
            "it stands below `forwardedHeaders` or `proxyProtocol`"
        }
        "enablehttp3" if has("allowACMEByPass") => "since Traefik v3 it is `http3: {}`",
        "redirect" if has("allowACMEByPass") => "since Traefik v2 it is `http.redirections.entryPoint`",
        "redirect" if has("redirections") => "since Traefik v2 it is `redirections.entryPoint`",
        // A resolver of certificates.
        "email" | "storage" | "caserver" | "keytype" | "eab" | "tlschallenge" | "httpchallenge"
        | "dnschallenge"
            if known == ["acme"] =>
        {
            "it stands below `acme`"
        }
        "endpoint" | "headers" | "insecure" | "tls"
            if known == ["http", "grpc"] || has("explicitBoundaries") =>
        {
            "it stands below `http` or `grpc`"
        }
        "domain" if has("exposedByDefault") => {
            "a key of Traefik v1; since then `defaultRule` makes names of hosts"
        }
        "path" | "file" if has("filePath") => "it is called `filePath`",
        // Services and their servers.
        "servers" | "healthcheck" | "passivehealthcheck" | "sticky" | "strategy" | "passhostheader"
        | "responseforwarding" | "serverstransport" | "proxyprotocol" | "terminationdelay"
            if has("loadBalancer") =>
        {
            "it stands below `loadBalancer`"
        }
        "url" if has("servers") => "write `servers: [{url: http://HOST:PORT}]`",
        "address" if has("servers") => "write `servers: [{address: HOST:PORT}]`",
        "address" if has("preservePath") => "servers of HTTP have `url: http://HOST:PORT`",
        "url" if known == ["address", "tls"] => "servers of TCP have `address: HOST:PORT`",
        "tls" if has("routers") => "`tls` stands beside `http`, without indentation",
        _ => return None,
    })
}
