//! The variables that providers are configured by: lego's, so that what runs with Traefik runs here.

use std::time::Duration;

use lb_config::dynamic::Secret;

/// Reads variables of the environment, or of a test.
#[derive(Clone, Copy)]
pub(super) struct Variables<'a>(pub(super) &'a dyn Fn(&str) -> Option<String>);

/// Why a provider cannot be used. Values are not repeated: they may be secrets.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lacking {
    #[error("the environment lacks {0}")]
    Missing(String),
    #[error("{0} names a file that cannot be read: {1}")]
    File(String, std::io::ErrorKind),
    #[error("{0} {1}")]
    Bad(&'static str, String),
}

impl Variables<'_> {
    /// The first of these names that is set, itself or by the file that `<name>_FILE` names.
    pub(super) fn find(&self, names: &[&str]) -> Result<Option<Secret>, Lacking> {
        for name in names {
            if let Some(value) = (self.0)(name).filter(|value| !value.is_empty()) {
                return Ok(Some(Secret::new(&value)));
            }
            let by_file = format!("{name}_FILE");
            if let Some(path) = (self.0)(&by_file).filter(|path| !path.is_empty()) {
                let text =
                    std::fs::read_to_string(path).map_err(|error| Lacking::File(by_file, error.kind()))?;
                // As lego has it: an editor's last line end is not part of a secret.
                return Ok(Some(Secret::new(text.trim_end_matches(['\r', '\n']))));
            }
        }
        Ok(None)
    }

    pub(super) fn text(&self, names: &[&str]) -> Result<Option<String>, Lacking> {
        Ok(self.find(names)?.map(|value| value.reveal().to_owned()))
    }

    pub(super) fn require(&self, names: &[&str]) -> Result<Secret, Lacking> {
        self.find(names)?.ok_or_else(|| Lacking::Missing(names.join(" or ")))
    }

    pub(super) fn number(&self, names: &[&'static str], default: u32) -> Result<u32, Lacking> {
        let Some(value) = self.find(names)? else { return Ok(default) };
        value.reveal().parse().map_err(|_| Lacking::Bad(names[0], "is no whole number".to_owned()))
    }

    /// Whole seconds.
    pub(super) fn seconds(&self, names: &[&'static str], default: Duration) -> Result<Duration, Lacking> {
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
        let of = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "EMPTY" | "EMPTY_FILE" => Some(String::new()),
            "B_FILE" => Some(path.clone()),
            "C_FILE" => Some("/nowhere/x".to_owned()),
            _ => None,
        };
        let variables = Variables(&of);
        assert_eq!(variables.text(&["EMPTY", "B"]), Ok(Some("s3cret".to_owned())));
        assert_eq!(variables.text(&["EMPTY"]), Ok(None));
        assert_eq!(variables.require(&["X", "Y"]).unwrap_err().to_string(), "the environment lacks X or Y");
        let unread = variables.find(&["C"]).unwrap_err().to_string();
        assert!(unread.starts_with("C_FILE names a file that cannot be read"), "{unread}");
        assert_eq!(variables.seconds(&["A"], Duration::ZERO), Ok(Duration::from_secs(1)));
        assert_eq!(variables.seconds(&["X"], Duration::from_secs(9)), Ok(Duration::from_secs(9)));
        let bad = variables.number(&["B"], 1).unwrap_err().to_string();
        assert_eq!(bad, "B is no whole number", "without the value");
    }
}
