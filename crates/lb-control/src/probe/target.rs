//! Where a probe goes: one server's address bent by the keys of its `healthCheck`.
//!
//! References (the configured `path`, a redirect's `Location`) are resolved as RFC 3986 section 5.2 says.

use http::uri::PathAndQuery;
use lb_config::dynamic::{HealthCheck, Scheme, Server};
use lb_core::uri::remove_dot_segments;

/// One place to send a probe to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) scheme: Scheme,
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query, always starting with `/`.
    pub(crate) path: String,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum TargetError {
    #[error("`{0}` is no scheme a probe can speak: use http, https or h2c")]
    Scheme(String),
    #[error("`{0}` is not a valid path for a request")]
    Path(String),
    #[error("`{0}` is not an address a probe can go to")]
    Address(String),
}

impl Target {
    /// The server's own address with the check's scheme, port and path.
    pub(crate) fn new(server: &Server, check: &HealthCheck) -> Result<Self, TargetError> {
        let scheme = match check.scheme.as_deref() {
            None | Some("") => server.scheme,
            Some(name) => parse_scheme(name)?,
        };
        // A port that the URL leaves to its scheme follows the scheme of the check.
        let own_port = if names_port(&server.url) { server.port } else { default_port(scheme) };
        let path = resolve(&server.path, &check.path)?;
        Ok(Self { scheme, host: server.host.clone(), port: check.port.unwrap_or(own_port), path })
    }

    /// Where a redirect leads from here.
    pub(crate) fn follow(&self, location: &str) -> Result<Self, TargetError> {
        let location = location.split('#').next().unwrap_or_default();
        let absolute = match location.strip_prefix("//") {
            Some(rest) => format!("{}://{rest}", scheme_name(self.scheme)),
            None if has_scheme(location) => location.to_owned(),
            None => return Ok(Self { path: resolve(&self.path, location)?, ..self.clone() }),
        };
        let invalid = || TargetError::Address(location.to_owned());
        let uri: http::Uri = absolute.parse().map_err(|_| invalid())?;
        let scheme = parse_scheme(uri.scheme_str().unwrap_or_default())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(invalid)?;
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        Ok(Self {
            scheme,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or_else(|| default_port(scheme)),
            path: resolve("/", path)?,
        })
    }

    /// What the `Host` field says: the port only where the scheme does not imply it.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.scheme) { host } else { format!("{host}:{}", self.port) }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", scheme_name(self.scheme), self.authority(), self.path)
    }
}

fn parse_scheme(name: &str) -> Result<Scheme, TargetError> {
    match name.to_ascii_lowercase().as_str() {
        "http" => Ok(Scheme::Http),
        "https" => Ok(Scheme::Https),
        "h2c" => Ok(Scheme::H2c),
        _ => Err(TargetError::Scheme(name.to_owned())),
    }
}

fn scheme_name(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
        Scheme::H2c => "h2c",
    }
}

fn default_port(scheme: Scheme) -> u16 {
    if scheme == Scheme::Https { 443 } else { 80 }
}

/// RFC 3986 section 3.1: does the reference start with a scheme?
fn has_scheme(reference: &str) -> bool {
    reference.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    })
}

/// Does the authority of this URL say its port?
fn names_port(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let after_host = authority.rsplit_once(']').map_or(authority, |(_, after)| after);
    after_host.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty())
}

/// Path and query that `reference` means seen from `base`; never leaves the server.
fn resolve(base: &str, reference: &str) -> Result<String, TargetError> {
    let reference = reference.split('#').next().unwrap_or_default();
    let (base_path, base_query) = split_query(base);
    let base_path = if base_path.is_empty() { "/" } else { base_path };
    let (path, query) = split_query(reference);
    let (path, query) = match (path, query) {
        ("", None) => (base_path.to_owned(), base_query),
        ("", query) => (base_path.to_owned(), query),
        (path, query) if path.starts_with('/') => (remove_dot_segments(path), query),
        (path, query) => {
            let directory = base_path.rsplit_once('/').map_or("", |(directory, _)| directory);
            (remove_dot_segments(&format!("{directory}/{path}")), query)
        }
    };
    let resolved = match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    match resolved.parse::<PathAndQuery>() {
        Ok(_) if resolved.starts_with('/') => Ok(resolved),
        _ => Err(TargetError::Path(resolved)),
    }
}

fn split_query(reference: &str) -> (&str, Option<&str>) {
    match reference.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (reference, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_resolve_as_rfc_3986_says() {
        for (base, reference, expected) in [
            ("", "", "/"),
            ("/api", "", "/api"),
            ("/api?x=1", "", "/api?x=1"),
            ("/", "/health", "/health"),
            ("/api", "/health?full=1", "/health?full=1"),
            ("/api", "health", "/health"),
            ("/api/", "health", "/api/health"),
            ("/api/v1", "?deep=1", "/api/v1?deep=1"),
            ("/a/b/c", "../d", "/a/d"),
            ("/a/b/c", "./", "/a/b/"),
            ("/a", "/x/../../y", "/y"),
            ("/a", "/health#fragment", "/health"),
        ] {
            assert_eq!(resolve(base, reference).as_deref(), Ok(expected), "{reference:?} from {base:?}");
        }
        assert!(resolve("/", "/with space").is_err());
    }

    #[test]
    fn a_redirect_may_lead_to_another_server_or_stay() {
        let here =
            Target { scheme: Scheme::Http, host: "10.0.0.1".into(), port: 3001, path: "/a/health".into() };
        for (location, expected) in [
            ("/ready", "http://10.0.0.1:3001/ready"),
            ("ready?x=a:b", "http://10.0.0.1:3001/a/ready?x=a:b"),
            ("https://other/x", "https://other/x"),
            ("//other:81/x", "http://other:81/x"),
            ("http://[::1]:90", "http://[::1]:90/"),
        ] {
            assert_eq!(here.follow(location).map(|t| t.to_string()).as_deref(), Ok(expected), "{location}");
        }
        assert!(here.follow("ftp://other/x").is_err());
        assert!(here.follow("http://").is_err());
    }

    #[test]
    fn only_a_written_port_counts_as_written() {
        for (url, written) in [
            ("http://a", false),
            ("http://a:80/x", true),
            ("http://[::1]", false),
            ("http://[::1]:80", true),
            ("http://a/x:80", false),
            ("http://user:secret@a", false),
        ] {
            assert_eq!(names_port(url), written, "{url}");
        }
    }
}
