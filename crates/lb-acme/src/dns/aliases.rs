//! What host names are aliases of (CNAME records), for rules that are to see that.

use std::path::PathBuf;
use std::time::Duration;

use lb_config::read_string;

use super::lookup::{DnsError, Recursive};

/// For one name server to answer: a client waits. Chosen.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the name servers of a `resolv.conf`, which is read anew each time.
#[derive(Clone, Debug)]
pub struct Aliases {
    resolv_config: PathBuf,
    /// Aliases of aliases that are followed.
    depth: usize,
}

/// Why nobody knows what a name is an alias of.
#[derive(Debug, thiserror::Error)]
pub enum AliasError {
    #[error("{0:?} cannot be read: {1}")]
    File(PathBuf, std::io::Error),
    #[error("{0}")]
    Dns(String),
}

impl Aliases {
    pub fn new(resolv_config: PathBuf, depth: usize) -> Self {
        Self { resolv_config, depth }
    }

    /// Where the aliases of `host` lead to, and for how long that holds. `None`: it is no alias.
    ///
    /// # Errors
    /// The file cannot be read, or no name server answers.
    pub async fn follow(&self, host: &str) -> Result<Option<(String, Duration)>, AliasError> {
        let text = read_string(&self.resolv_config);
        let text = text.map_err(|error| AliasError::File(self.resolv_config.clone(), error))?;
        match self.chain(&Recursive::system(&text, PATIENCE), host).await {
            // Clients say what they like.
            Err(DnsError::Name(_)) => Ok(None),
            found => found.map_err(|error| AliasError::Dns(error.to_string())),
        }
    }

    async fn chain(&self, servers: &Recursive, host: &str) -> Result<Option<(String, Duration)>, DnsError> {
        let mut name = format!("{}.", host.strip_suffix('.').unwrap_or(host));
        let mut found = None;
        for _ in 0..self.depth {
            match servers.alias(&name).await {
                Ok(Some((target, ttl))) => {
                    let (_, least) = found.unwrap_or((String::new(), u32::MAX));
                    found = Some((target.clone(), ttl.min(least)));
                    name = target;
                }
                Ok(None) => break,
                // What is known already is of use.
                Err(_) if found.is_some() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(found
            .map(|(name, ttl)| (name.trim_end_matches('.').to_owned(), Duration::from_secs(u64::from(ttl)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::message::CNAME;
    use crate::dns::testing::NameServer;

    fn name(labels: &[&str]) -> Vec<u8> {
        let mut name: Vec<u8> =
            labels.iter().flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
        name.push(0);
        name
    }

    #[tokio::test]
    async fn aliases_are_followed_as_far_as_wanted() {
        let server = NameServer::start(|asked, kind| match (asked, kind) {
            ("a.test.", CNAME) => vec![(CNAME, name(&["b", "test"]))],
            ("b.test.", CNAME) => vec![(CNAME, name(&["C", "test"]))],
            ("loop.test.", CNAME) => vec![(CNAME, name(&["pool", "test"]))],
            ("pool.test.", CNAME) => vec![(CNAME, name(&["loop", "test"]))],
            _ => vec![],
        })
        .await;
        let servers = Recursive::of(server.address);
        for (host, depth, expected) in [
            ("a.test", 5, Some("c.test")),
            ("a.test.", 5, Some("c.test")),
            ("a.test", 1, Some("b.test")),
            ("a.test", 0, None),
            ("c.test", 5, None),
            ("loop.test", 5, Some("pool.test")),
        ] {
            let aliases = Aliases::new("/dev/null".into(), depth);
            let found = aliases.chain(&servers, host).await.unwrap();
            let expected = expected.map(|name| (name.to_owned(), Duration::from_secs(60)));
            assert_eq!(found, expected, "{host} {depth}");
        }
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("resolv.conf");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let blocking = Aliases::new(pipe, 5).follow("a.test").await.unwrap_err().to_string();
        assert!(blocking.ends_with("cannot be read: it is not a regular file"), "{blocking}");
        let missing = Aliases::new("/nowhere/resolv.conf".into(), 5).follow("a.test").await;
        assert!(matches!(missing, Err(AliasError::File(..))));
        let empty = directory.path().join("empty");
        std::fs::write(&empty, "").unwrap();
        let invalid = Aliases::new(empty, 5).follow("a..test").await;
        assert!(matches!(invalid, Ok(None)));
    }
}
