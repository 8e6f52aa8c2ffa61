//! The variables that providers are configured by: lego's, so that what runs with Traefik runs here.

use std::time::Duration;

use lb_config::dynamic::Secret;
use lb_config::read_string;

use super::{HTTP_TIMEOUT, INTERVAL, TIMEOUT, TTL_SECONDS, Timing};

/// Reads variables of the environment, or of a test.
#[derive(Clone, Copy)]
pub(super) struct Variables<'a>(pub(super) &'a dyn Fn(&str) -> Option<String>);

/// Why a provider cannot be used. Values are not repeated: they may be secrets.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lacking {
    #[error("the environment lacks {0}")]
    Missing(String),
    #[error("{0} names a file that cannot be read: {1}")]
    File(String, String),
    #[error("{0} {1}")]
    Bad(String, String),
}

/// What each provider can be told, by variables that begin alike, and lego's defaults for it.
pub(super) struct Defaults {
    /// One or two that mean the same.
    pub(super) prefixes: &'static [&'static str],
    pub(super) ttl_seconds: u32,
    /// The provider takes no shorter one.
    pub(super) least_ttl_seconds: u32,
    pub(super) timeout: Duration,
    pub(super) interval: Duration,
    pub(super) http_timeout: Duration,
}

impl Defaults {
    /// Those of most providers.
    pub(super) const fn of(prefixes: &'static [&'static str]) -> Self {
        Self {
            prefixes,
            ttl_seconds: TTL_SECONDS,
            least_ttl_seconds: 0,
            timeout: TIMEOUT,
            interval: INTERVAL,
            http_timeout: HTTP_TIMEOUT,
        }
    }

    pub(super) fn read(&self, variables: &Variables<'_>) -> Result<Common, Lacking> {
        let names =
            |end: &str| self.prefixes.iter().map(|prefix| format!("{prefix}_{end}")).collect::<Vec<_>>();
        let ttl_seconds = variables.number(&names("TTL"), self.ttl_seconds)?;
        if ttl_seconds < self.least_ttl_seconds {
            let least = format!("is less than {}, the least that the provider takes", self.least_ttl_seconds);
            return Err(Lacking::bad(&names("TTL")[0], &least));
        }
        let timing = Timing::of(variables, self.prefixes, self.timeout, self.interval)?;
        let http_timeout = variables.seconds(&names("HTTP_TIMEOUT"), self.http_timeout)?;
        Ok(Common { ttl_seconds, timing, http_timeout })
    }
}

pub(super) struct Common {
    pub(super) ttl_seconds: u32,
    pub(super) http_timeout: Duration,
    pub(super) timing: Timing,
}

impl Lacking {
    pub(super) fn bad(variable: &str, why: &str) -> Self {
        Self::Bad(variable.to_owned(), why.to_owned())
    }
}

impl Variables<'_> {
    /// The first of these names that is set, itself or by the file that `<name>_FILE` names.
    pub(super) fn find(&self, names: &[impl AsRef<str>]) -> Result<Option<Secret>, Lacking> {
        for name in names.iter().map(AsRef::as_ref) {
            if let Some(value) = (self.0)(name).filter(|value| !value.is_empty()) {
                return Ok(Some(Secret::new(&value)));
            }
            let by_file = format!("{name}_FILE");
            if let Some(path) = (self.0)(&by_file).filter(|path| !path.is_empty()) {
                let text =
                    read_string(path.as_ref()).map_err(|error| Lacking::File(by_file, error.to_string()))?;
                // As lego has it: an editor's last line end is not part of a secret.
                return Ok(Some(Secret::new(text.trim_end_matches(['\r', '\n']))));
            }
        }
        Ok(None)
    }

    pub(super) fn text(&self, names: &[impl AsRef<str>]) -> Result<Option<String>, Lacking> {
        Ok(self.find(names)?.map(|value| value.reveal().to_owned()))
    }

    pub(super) fn require(&self, names: &[&str]) -> Result<Secret, Lacking> {
        self.find(names)?.ok_or_else(|| Lacking::Missing(names.join(" or ")))
    }

    pub(super) fn number(&self, names: &[impl AsRef<str>], default: u32) -> Result<u32, Lacking> {
        let Some(value) = self.find(names)? else { return Ok(default) };
        let bad = |_| Lacking::bad(names[0].as_ref(), "is no whole number");
        value.reveal().parse().map_err(bad)
    }

    /// As Go reads it.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, Lacking> {
        match self.text(&[name])?.as_deref() {
            None => Ok(default),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(_) => Err(Lacking::bad(name, "is neither `true` nor `false`")),
        }
    }

    /// Whole seconds.
    pub(super) fn seconds(&self, names: &[impl AsRef<str>], default: Duration) -> Result<Duration, Lacking> {
        let seconds = self.number(names, u32::try_from(default.as_secs()).unwrap_or(u32::MAX))?;
        Ok(Duration::from_secs(seconds.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_variable_or_in_the_file_that_another_one_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "s3cret\n").unwrap();
        let path = path.display().to_string();
        let pipe = directory.path().join("pipe").display().to_string();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let of = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "EMPTY" | "EMPTY_FILE" => Some(String::new()),
            "B_FILE" => Some(path.clone()),
            "C_FILE" => Some("/nowhere/x".to_owned()),
            "PIPE_FILE" => Some(pipe.clone()),
            _ => None,
        };
        let variables = Variables(&of);
        assert_eq!(variables.text(&["EMPTY", "B"]), Ok(Some("s3cret".to_owned())));
        assert_eq!(variables.text(&["EMPTY"]), Ok(None));
        assert_eq!(variables.require(&["X", "Y"]).unwrap_err().to_string(), "the environment lacks X or Y");
        let unread = variables.find(&["C"]).unwrap_err().to_string();
        assert!(unread.starts_with("C_FILE names a file that cannot be read"), "{unread}");
        let pipe = variables.find(&["PIPE"]).unwrap_err().to_string();
        assert_eq!(pipe, "PIPE_FILE names a file that cannot be read: it is not a regular file");
        assert_eq!(variables.seconds(&["A"], Duration::ZERO), Ok(Duration::from_secs(1)));
        assert_eq!(variables.seconds(&["X"], Duration::from_secs(9)), Ok(Duration::from_secs(9)));
        let bad = variables.number(&["B"], 1).unwrap_err().to_string();
        assert_eq!(bad, "B is no whole number", "without the value");
    }
}
