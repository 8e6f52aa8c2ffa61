//! Static configuration by flags and variables. Vigie reads it from a file only: whoever comes with Traefik's
//! other two ways is told how the file says it.

use std::ffi::{OsStr, OsString};

/// The first keys of Traefik's static configuration (reference 1.2 and on), with those of v2.
const ROOTS: [&str; 18] = [
    "accessLog",
    "api",
    "certificatesResolvers",
    "core",
    "entryPoints",
    "experimental",
    "global",
    "hostResolver",
    "log",
    "metrics",
    "ocsp",
    "pilot",
    "ping",
    "providers",
    "serversTransport",
    "spiffe",
    "tcpServersTransport",
    "tracing",
];

/// What to say to `--entryPoints.web.address=:80` and the like; `None`: there are no such flags. `is_command` knows
/// what is no value.
pub(crate) fn refused_flags(arguments: &[OsString], is_command: impl Fn(&str) -> bool) -> Option<String> {
    let mut file = Tree::default();
    let mut names = Vec::new();
    let mut arguments = arguments.iter().filter_map(|argument| argument.to_str()).peekable();
    while let Some(argument) = arguments.next() {
        let bare = argument.trim_start_matches('-');
        if !(1..=2).contains(&(argument.len() - bare.len())) {
            continue;
        }
        let (name, value) = bare.split_once('=').map_or((bare, None), |(name, value)| (name, Some(value)));
        let path: Vec<&str> = name.split(['.', '[', ']']).filter(|key| !key.is_empty()).collect();
        if path.first().and_then(|first| root(first)).is_none() {
            continue;
        }
        names.push(&argument[..argument.len() - bare.len() + name.len()]);
        // Flags without a value are switched on.
        let next = || arguments.next_if(|next| !next.starts_with('-') && !is_command(next));
        file.insert(&path, &scalar(value.or_else(next).unwrap_or("true")));
    }
    let names = (!names.is_empty()).then(|| names.join(", "))?;
    Some(format!(
        "static configuration by flags is not supported yet: {names}\n  \
         hint: write it into the file that --configFile=FILE names\n{}",
        file.text()
    ))
}

/// What to say to `TRAEFIK_ENTRYPOINTS_WEB_ADDRESS` and the like where there is no file; `None`: there are none.
/// Their values, which may be secrets, are not repeated.
pub(crate) fn refused_variables(variables: impl Iterator<Item = OsString>) -> Option<String> {
    let mut names: Vec<String> = variables.filter_map(|name| name.into_string().ok()).collect();
    names.sort();
    let mut file = Tree::default();
    names.retain(|name| {
        let Some(path) = name.strip_prefix("TRAEFIK_") else { return false };
        let path = path.to_ascii_lowercase();
        let path: Vec<&str> = path.split('_').filter(|key| !key.is_empty()).collect();
        let known = path.first().and_then(|first| root(first)).is_some();
        if known {
            file.insert(&path, &format!("${name}"));
        }
        known
    });
    let names = (!names.is_empty()).then(|| names.join(", "))?;
    Some(format!(
        "static configuration by variables is not supported yet: {names}\n  \
         hint: write it, with their values, into the file that --configFile=FILE names\n{}",
        file.text()
    ))
}

fn root(name: &str) -> Option<&'static str> {
    ROOTS.into_iter().find(|root| root.eq_ignore_ascii_case(name))
}

/// A value as YAML: plain where that cannot mean anything else.
fn scalar(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./@".contains(c);
    if value.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/') && value.chars().all(plain) {
        value.to_owned()
    } else {
        serde_json::Value::from(value).to_string()
    }
}

/// A file in the making: keys in the order they came; keys of digits are places in a list.
#[derive(Default)]
struct Tree {
    value: String,
    below: Vec<(String, Tree)>,
}

impl Tree {
    fn insert(&mut self, path: &[&str], value: &str) {
        let Some((first, rest)) = path.split_first() else {
            // As Traefik reads a flag that is repeated.
            let comma = if self.value.is_empty() { "" } else { "," };
            self.value.push_str(&format!("{comma}{value}"));
            return;
        };
        let at = self.below.iter().position(|(key, _)| key.eq_ignore_ascii_case(first));
        let at = at.unwrap_or_else(|| {
            self.below.push(((*first).to_owned(), Self::default()));
            self.below.len() - 1
        });
        self.below[at].1.insert(rest, value);
    }

    fn text(&self) -> String {
        let lines = self.below.iter().flat_map(|(key, tree)| tree.lines(root(key).unwrap_or(key)));
        lines.map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
    }

    fn lines(&self, key: &str) -> Vec<String> {
        let is_place = key.bytes().all(|byte| byte.is_ascii_digit());
        let mut lines: Vec<String> = self.below.iter().flat_map(|(key, tree)| tree.lines(key)).collect();
        match (lines.first_mut(), is_place) {
            (None, true) => lines.push(format!("- {}", self.value)),
            (None, false) => lines.push(format!("{key}: {}", self.value)),
            (Some(first), true) => {
                *first = format!("- {first}");
                lines[1..].iter_mut().for_each(|line| line.insert_str(0, "  "));
            }
            (Some(_), false) => {
                lines.iter_mut().for_each(|line| line.insert_str(0, "  "));
                lines.insert(0, format!("{key}:"));
            }
        }
        lines
    }
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

    fn flags(line: &str) -> Option<String> {
        let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        refused_flags(&arguments, |word| word == "check")
    }

    #[test]
    fn flags_are_told_as_the_file_says_them() {
        let said = flags(
            "check --configFile=a.yml --entryPoints.web.address=:80 -entrypoints.web.http.tls.domains[0].main=a.test \
             --entrypoints.web.http.tls.domains[0].sans=b.test --log.level DEBUG --ping --ping.entryPoint=web \
             --providers.precedence=file --providers.precedence=docker --api check --port=1",
        )
        .unwrap();
        let expected = "\
static configuration by flags is not supported yet: --entryPoints.web.address, \
-entrypoints.web.http.tls.domains[0].main, --entrypoints.web.http.tls.domains[0].sans, --log.level, --ping, \
--ping.entryPoint, --providers.precedence, --providers.precedence, --api
  hint: write it into the file that --configFile=FILE names
    entryPoints:
      web:
        address: \":80\"
        http:
          tls:
            domains:
              - main: a.test
                sans: b.test
    log:
      level: DEBUG
    ping:
      entryPoint: web
    providers:
      precedence: file,docker
    api: true";
        assert_eq!(said, expected);
        let file: String = said.lines().skip(2).map(|line| format!("{line}\n")).collect();
        lb_config::parse_static("vigie.yml", &file.replace("docker", "swarm")).unwrap();
        assert_eq!(flags("--configFile=a.yml demo --port=1 --prot=2 --apis --tokenFile=log"), None);
    }

    #[test]
    fn variables_are_told_as_the_file_says_them_without_their_values() {
        let names = ["TRAEFIK_LOG_LEVEL", "TRAEFIK_ENTRYPOINTS_WEB_ADDRESS", "TRAEFIK_BOGUS", "PATH"];
        assert_eq!(
            refused_variables(names.map(OsString::from).into_iter()).unwrap(),
            "static configuration by variables is not supported yet: TRAEFIK_ENTRYPOINTS_WEB_ADDRESS, TRAEFIK_LOG_LEVEL\n  \
             hint: write it, with their values, into the file that --configFile=FILE names\n    \
             entryPoints:\n      web:\n        address: $TRAEFIK_ENTRYPOINTS_WEB_ADDRESS\n    \
             log:\n      level: $TRAEFIK_LOG_LEVEL"
        );
        assert_eq!(refused_variables(["TRAEFIK_BOGUS", "TRAEFIK_"].map(OsString::from).into_iter()), None);
    }

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
