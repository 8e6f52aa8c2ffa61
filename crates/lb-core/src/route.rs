//! Which router takes a request: the rule languages of Traefik and a compiled index over many rules.
//!
//! A [`Rule`] is a condition on one request. A [`RouteIndex`] finds the first of many routes whose
//! rule holds, in order of priority, at a cost that does not grow with their number. What a route
//! leads to is the caller's business: the index carries a value per route and never looks at it.

mod expand;
mod explain;
mod few_paths;
mod index;
mod matcher;
mod path;
mod path_build;
mod path_index;
mod pattern;
mod query;
mod rule;
mod table;
pub mod tcp;
mod text;
mod v2;

use std::net::IpAddr;
use std::sync::Arc;

pub use self::explain::{Considered, Verdict};
pub use self::index::RouteIndex;
pub use self::path::routing_path;
pub use self::pattern::{Pattern, go_regex};
pub use self::rule::{Rule, Syntax};
pub use crate::syntax::SyntaxError as RuleError;

/// What rules may look at in a request.
pub trait Request {
    /// Canonical: lower case, without port and brackets; empty when the request names none.
    fn host(&self) -> &str;
    /// What the host is an alias of (CNAME), in the same form: `Host` and `HostRegexp` hold for either. `None`: of
    /// nothing, or nobody has asked.
    fn alias(&self) -> Option<&str> {
        None
    }
    /// The [`routing_path`].
    fn path(&self) -> &str;
    fn method(&self) -> &str;
    /// Raw, without the question mark.
    fn query(&self) -> &str;
    /// The TCP peer (after PROXY protocol), never what a header claims.
    fn client(&self) -> IpAddr;
    /// Whether `test` holds for any line of the field `name`, which is given in lower case.
    fn any_header(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool;
}

/// A rule with its place in the order of evaluation, and what it leads to.
#[derive(Clone, Debug)]
pub struct Route<T> {
    pub rule: Arc<Rule>,
    /// Higher is evaluated earlier.
    pub priority: i64,
    /// Decides among equal priorities, lower first (precedence of the provider); then the order given.
    pub rank: u32,
    pub value: T,
}

#[cfg(test)]
mod fake {
    use std::net::{IpAddr, Ipv4Addr};

    /// A request to write down in one line.
    #[derive(Clone, Debug)]
    pub(super) struct Fake {
        pub(super) host: String,
        pub(super) alias: Option<String>,
        pub(super) path: String,
        pub(super) method: String,
        pub(super) query: String,
        pub(super) client: IpAddr,
        pub(super) headers: Vec<(String, Vec<u8>)>,
    }

    impl Fake {
        /// From `host/path?query`.
        pub(super) fn get(url: &str) -> Self {
            let (host, rest) = url.find('/').map_or((url, "/"), |slash| url.split_at(slash));
            let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
            Self {
                host: host.into(),
                alias: None,
                path: super::routing_path(path).into_owned(),
                method: "GET".into(),
                query: query.into(),
                client: IpAddr::V4(Ipv4Addr::LOCALHOST),
                headers: Vec::new(),
            }
        }

        pub(super) fn alias(mut self, alias: &str) -> Self {
            self.alias = Some(alias.into());
            self
        }

        pub(super) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
            self.headers.push((name.into(), value.as_ref().to_vec()));
            self
        }
    }

    impl super::Request for Fake {
        fn host(&self) -> &str {
            &self.host
        }
        fn alias(&self) -> Option<&str> {
            self.alias.as_deref()
        }
        fn path(&self) -> &str {
            &self.path
        }
        fn method(&self) -> &str {
            &self.method
        }
        fn query(&self) -> &str {
            &self.query
        }
        fn client(&self) -> IpAddr {
            self.client
        }
        fn any_header(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            self.headers.iter().any(|(other, value)| other.eq_ignore_ascii_case(name) && test(value))
        }
    }
}
