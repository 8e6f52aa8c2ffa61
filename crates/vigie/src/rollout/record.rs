//! What a rollout has done so far, on disk before each step: whoever comes after a crash or Ctrl-C goes on from there.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

/// The last rollout of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) service: String,
    /// Where it leads.
    pub(super) version: String,
    /// Where `--rollback` leads.
    pub(super) previous: Option<String>,
    pub(super) phase: Phase,
    pub(super) by: String,
    pub(super) changed_at: String,
    /// Commands, for `--rollback` and for going on.
    pub(super) replace: String,
    pub(super) check: Option<String>,
    pub(super) servers: Vec<Machine>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Phase {
    Running,
    Done,
    RollingBack,
    RolledBack,
    /// Broken off: by Ctrl-C, or because going on would have left too few servers.
    Stopped,
}

impl Phase {
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::RolledBack)
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Running => "running, or killed",
            Self::Done => "done",
            Self::RollingBack => "rolling back, or killed while it did",
            Self::RolledBack => "rolled back",
            Self::Stopped => "stopped midway",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Machine {
    /// URL of the server.
    pub(super) server: String,
    /// What it runs; `None`: it was being replaced, and nobody knows.
    pub(super) version: Option<String>,
    /// What it ran before this rollout, and runs again if that fails.
    pub(super) before: String,
}

/// Where records are kept.
#[derive(Debug)]
pub(super) struct Store {
    file: PathBuf,
}

impl Store {
    /// # Errors
    /// The directory cannot be made.
    pub(super) fn open(directory: Option<&Path>, service: &str) -> anyhow::Result<Self> {
        let directory = match directory {
            Some(directory) => directory.to_owned(),
            None => default_directory()?,
        };
        fs::create_dir_all(&directory).with_context(|| {
            format!("{} cannot be made: name another one with --stateDir", directory.display())
        })?;
        let plain = |c: char| if c.is_ascii_alphanumeric() || "@._-".contains(c) { c } else { '_' };
        let name: String = service.chars().map(plain).collect();
        Ok(Self { file: directory.join(format!("{name}.json")) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.file
    }

    pub(super) fn load(&self) -> anyhow::Result<Option<Record>> {
        let shown = || format!("{} cannot be read", self.file.display());
        match fs::read(&self.file) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(shown)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(shown),
        }
    }

    /// In one step, and on the disk when it returns. Only its owner may read it: commands may hold secrets.
    pub(super) fn save(&self, record: &Record) -> anyhow::Result<()> {
        let new = self.file.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&serde_json::to_vec_pretty(record)?)?;
            file.sync_all()?;
            fs::rename(&new, &self.file)?;
            self.file.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
        };
        write().with_context(|| format!("{} cannot be written", self.file.display()))
    }
}

fn default_directory() -> anyhow::Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/vigie/rollout".into());
    }
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state"));
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home);
    Ok(state.context("$HOME is not set: name a directory with --stateDir")?.join("vigie/rollout"))
}

/// Held while servers of a service are replaced; gone with the process, however that ends.
///
/// A name in the abstract namespace of Unix sockets: one per machine, whoever runs the command and wherever the record
/// is. The names of sockets are short, so it has a digest of the instance and the service.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "it is held, not read")] UnixListener);

impl Lock {
    pub(super) fn take(instance: &str, service: &str) -> anyhow::Result<Self> {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut digest = DefaultHasher::new();
        (instance, service).hash(&mut digest);
        let name = format!("vigie-rollout-{:016x}", digest.finish());
        match UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?) {
            Ok(listener) => Ok(Self(listener)),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                bail!("another rollout of {service} is under way on this machine: wait for its end")
            }
            Err(error) => Err(error).context("the lock cannot be taken"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was_saved() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(Some(&directory.path().join("a/b")), "api/x@file").unwrap();
        assert!(store.path().ends_with("a/b/api_x@file.json"));
        assert_eq!(store.load().unwrap(), None);
        let machine = Machine { server: "http://a".to_owned(), version: None, before: "v1".to_owned() };
        let record = Record {
            service: "api/x@file".to_owned(),
            version: "v2".to_owned(),
            previous: Some("v1".to_owned()),
            phase: Phase::RollingBack,
            by: "alice".to_owned(),
            changed_at: String::new(),
            replace: "deploy {server} {version}".to_owned(),
            check: None,
            servers: vec![machine],
        };
        store.save(&record).unwrap();
        assert_eq!(store.load().unwrap(), Some(record));
        fs::write(store.path(), "{").unwrap();
        assert!(store.load().unwrap_err().to_string().ends_with("cannot be read"));
    }

    #[test]
    fn two_at_once_are_refused() {
        let instance = format!("{}", std::process::id());
        let first = Lock::take(&instance, "api@file").unwrap();
        let told = Lock::take(&instance, "api@file").unwrap_err().to_string();
        assert!(told.starts_with("another rollout of api@file is under way"), "{told}");
        Lock::take(&instance, "web@file").unwrap();
        drop(first);
        Lock::take(&instance, "api@file").unwrap();
    }
}
