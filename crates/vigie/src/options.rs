//! Where the command line and the environment say that the static configuration is.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use lb_config::{Problem, Settings, Severity, StaticConfig, StaticSource};

/// Often tried, and read by nobody: in Traefik, too, only the flag names the file.
const CONFIG_FILE: &str = "TRAEFIK_CONFIGFILE";

/// What the command line says of the static configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) flags: Settings,
}

impl Options {
    /// `--configFile` and the names of the other flags, for whom they change nothing; `None`: there are none.
    pub(crate) fn names(&self) -> Option<String> {
        let file = self.config_file.as_ref().map(|_| "--configFile".to_owned());
        let names: Vec<String> = file.into_iter().chain(self.flags.names()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// Where the static configuration is, and what is ignored beside it.
    ///
    /// # Errors
    /// It is nowhere.
    pub(crate) fn source(&self) -> anyhow::Result<(StaticSource, Vec<Problem>)> {
        let variables = Settings::of_variables(std::env::vars_os());
        let found = StaticSource::find(self.config_file.as_deref(), self.flags.clone(), variables);
        let (source, mut ignored) = found.map_err(|problem| anyhow::anyhow!("{problem}"))?;
        ignored.extend(std::env::var_os(CONFIG_FILE).map(|_| no_variable()));
        match source {
            Some(source) => Ok((source, ignored)),
            None => anyhow::bail!(
                "no configuration file found\n  hint: name one with --configFile=FILE, or write flags such as \
                 --entryPoints.web.address=:80"
            ),
        }
    }

    /// The static configuration, or every reason why there is none.
    pub(crate) fn static_config(&self) -> anyhow::Result<(StaticConfig, Vec<Problem>)> {
        let (source, mut warnings) = self.source()?;
        let refused = |problems| anyhow::anyhow!("the static configuration is refused\n{problems}");
        let (config, further) = source.load().map_err(refused)?;
        warnings.extend(further);
        Ok((config, warnings))
    }
}

fn no_variable() -> Problem {
    let message = format!("not in force: {CONFIG_FILE}");
    let hint = "name the file with --configFile: no variable can".to_owned();
    Problem { severity: Severity::Warning, ..Problem::whole_file("the environment", message, Some(hint)) }
}

/// `$NAME` and `${NAME}` in the path of `--configFile` replaced by variables, as in Traefik, for which one that is not
/// set is empty.
pub(crate) fn expanded(
    path: &OsStr,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<OsString, String> {
    let Some(mut rest) = path.to_str() else { return Ok(path.to_owned()) };
    let mut expanded = OsString::new();
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push(before);
        let (name, further) = match after.strip_prefix('{').and_then(|after| after.split_once('}')) {
            Some(braced) => braced,
            None => {
                let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
                after.split_at(after.find(|c| !is_part(c)).unwrap_or(after.len()))
            }
        };
        if name.is_empty() {
            expanded.push("$");
        } else {
            expanded.push(variable(name).ok_or_else(|| format!("the variable `{name}` is not set"))?);
        }
        rest = further;
    }
    expanded.push(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_in_a_path_are_filled_in() {
        let variable = |name: &str| (name == "FOO").then(|| OsString::from("/etc/x"));
        for (path, expected) in [
            ("$FOO/t.yml", Ok("/etc/x/t.yml")),
            ("a${FOO}b$FOO", Ok("a/etc/xb/etc/x")),
            ("a$/b$", Ok("a$/b$")),
            ("plain.yml", Ok("plain.yml")),
            ("$BAR/t.yml", Err("the variable `BAR` is not set")),
            ("${BAR}", Err("the variable `BAR` is not set")),
        ] {
            let expanded = expanded(OsStr::new(path), variable);
            assert_eq!(
                expanded.as_deref(),
                expected.map(OsStr::new).map_err(str::to_owned).as_deref(),
                "{path}"
            );
        }
    }
}
