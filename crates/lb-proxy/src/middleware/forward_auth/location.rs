//! A `Location` as seen from the auth server, made one that clients can follow: RFC 3986 section 5.2.

use lb_config::dynamic::Scheme;
use lb_core::uri::remove_dot_segments;

/// `base` is scheme, authority, and path with query.
pub(super) fn absolute(location: &str, (scheme, authority, target): (Scheme, &str, &str)) -> String {
    let scheme = if scheme == Scheme::Https { "https" } else { "http" };
    if has_scheme(location) {
        return location.to_owned();
    }
    if location.starts_with("//") {
        return format!("{scheme}:{location}");
    }
    let (base_path, _) = target.split_once('?').unwrap_or((target, ""));
    let end = location.find(['?', '#']).unwrap_or(location.len());
    let (path, rest) = location.split_at(end);
    let resolved = match path {
        "" if rest.starts_with('#') => target.to_owned(),
        "" => base_path.to_owned(),
        _ if path.starts_with('/') => remove_dot_segments(path),
        _ => {
            let directory = base_path.rsplit_once('/').map_or("", |(directory, _)| directory);
            remove_dot_segments(&format!("{directory}/{path}"))
        }
    };
    format!("{scheme}://{authority}{resolved}{rest}")
}

/// RFC 3986 section 3.1.
fn has_scheme(reference: &str) -> bool {
    reference.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As real Traefik made them.
    #[test]
    fn references_are_resolved_against_the_auth_address() {
        for (location, expected) in [
            ("login?x=1", "http://auth:9/redir/login?x=1"),
            ("/login", "http://auth:9/login"),
            ("https://other.example/x", "https://other.example/x"),
            ("//h.example/a", "http://h.example/a"),
            ("?a=b", "http://auth:9/redir/q?a=b"),
            ("../a/../b", "http://auth:9/b"),
            ("./", "http://auth:9/redir/"),
            ("#f", "http://auth:9/redir/q?c#f"),
            ("../../..", "http://auth:9/"),
        ] {
            assert_eq!(absolute(location, (Scheme::Http, "auth:9", "/redir/q?c")), expected, "{location}");
        }
        assert_eq!(absolute("/a", (Scheme::Https, "h", "/")), "https://h/a");
    }
}
