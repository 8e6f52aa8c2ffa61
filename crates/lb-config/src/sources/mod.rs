//! Where the static configuration comes from: a file, flags, or variables of the environment, as in Traefik.
//!
//! `--entryPoints.web.address=:80` and `TRAEFIK_ENTRYPOINTS_WEB_ADDRESS=:80` become the tree that a file nests, and its
//! reader does the rest: there are no options that only one of the three knows. Problems name the flag or the variable
//! in place of a file, and never what it is set to, which may be a secret.

mod flags;
mod help;
mod schema;
mod variables;

pub use help::explain_options;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::decode::{Findings, Report, Shape};
use crate::docker::tree::Branch;
use crate::document::{Files, Node, Position, Value};
use crate::find::find_static;
use crate::load::{self, Context};
use crate::problem::{Problem, Problems, Scope, Severity, printable};
use crate::static_config::{FileSource, StaticConfig};
use crate::statics;

/// Flags or variables that a warning names; chosen, a few lines of a terminal.
const NAMED: usize = 20;

/// The one source of the static configuration: they are never mixed.
#[derive(Clone, Debug)]
pub enum StaticSource {
    File(PathBuf),
    Flags(Settings),
    Variables(Settings),
}

/// Options by flags or by variables, in their order.
#[derive(Clone, Default)]
pub struct Settings(Vec<Setting>);

#[derive(Clone)]
struct Setting {
    /// As written: `--entryPoints.web.address`.
    name: String,
    /// `entryPoints.web.address`
    path: String,
    /// What it is set to, or why it is set to nothing.
    value: Result<String, &'static str>,
}

impl StaticSource {
    /// The first of the three that says anything, as in Traefik; `None` when none does. What the others say is not in
    /// force, and the warnings tell so.
    ///
    /// # Errors
    /// A file that was named and does not exist.
    #[expect(clippy::result_large_err, reason = "called once, at start")]
    pub fn find(
        config_file: Option<&Path>,
        flags: Settings,
        variables: Settings,
    ) -> Result<(Option<Self>, Vec<Problem>), Problem> {
        let (source, ignored) = match find_static(config_file)? {
            Some(path) => (Self::File(path), [Some(Self::Flags(flags)), Some(Self::Variables(variables))]),
            None if !flags.is_empty() => (Self::Flags(flags), [Some(Self::Variables(variables)), None]),
            None if !variables.is_empty() => (Self::Variables(variables), [None, None]),
            None => return Ok((None, Vec::new())),
        };
        let warnings = ignored.iter().flatten().filter_map(|other| other.ignored_beside(&source)).collect();
        Ok((Some(source), warnings))
    }

    /// The configuration with its warnings.
    ///
    /// # Errors
    /// Every problem, when one of them is an error.
    pub fn load(&self) -> Result<(StaticConfig, Vec<Problem>), Problems> {
        match self {
            Self::File(path) => load::load_static(path),
            Self::Flags(settings) | Self::Variables(settings) => {
                load::unless_refused(settings.read(&self.to_string()))
            }
        }
    }

    /// What can be read of it in spite of its problems: to find something, never to serve with.
    pub fn peek(&self) -> Option<StaticConfig> {
        match self {
            Self::File(path) => load::peek_static(path),
            Self::Flags(settings) | Self::Variables(settings) => settings.read(&self.to_string()).0,
        }
    }

    /// As [`find_dynamic`](load::find_dynamic).
    pub fn find_dynamic(&self) -> Option<(FileSource, Context)> {
        load::dynamic_of(&self.peek()?)
    }

    fn ignored_beside(&self, source: &Self) -> Option<Problem> {
        let (Self::Flags(settings) | Self::Variables(settings)) = self else { return None };
        let names = settings.names()?;
        let message = format!("not in force beside {source}: {names}");
        let hint = match source {
            Self::File(_) => {
                "write them into the file, or remove it: file, flags and variables are not mixed"
            }
            _ => "write them as flags, or leave out all flags: the two are not mixed",
        };
        let warning = Problem::whole_file(&self.to_string(), message, Some(hint.to_owned()));
        Some(Problem { severity: Severity::Warning, scope: Scope::File, ..warning })
    }
}

/// The file's path, `the command line` or `the environment`.
impl fmt::Display for StaticSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Flags(_) => f.write_str("the command line"),
            Self::Variables(_) => f.write_str("the environment"),
        }
    }
}

impl Settings {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `None`: there are none.
    pub fn names(&self) -> Option<String> {
        let names: Vec<String> = self.0.iter().take(NAMED).map(|setting| printable(&setting.name)).collect();
        match self.0.len().saturating_sub(NAMED) {
            _ if names.is_empty() => None,
            0 => Some(names.join(", ")),
            more => Some(format!("{} and {more} more", names.join(", "))),
        }
    }

    /// The configuration may only be used if nothing is refused.
    fn read(&self, source: &str) -> (Option<StaticConfig>, Findings) {
        let mut files = Files::default();
        let everything = Position { file: files.add(source), line: 0, column: 0 };
        let mut problems = Vec::new();
        let root = self.tree(everything, &mut files, &mut problems);
        let report = Report::of_arguments(&files, problems);
        let config = statics::read(&report, &root, source);
        (config, report.into_findings())
    }

    fn tree(&self, at: Position, files: &mut Files, problems: &mut Vec<Problem>) -> Node {
        let mut root: Option<Branch> = None;
        let mut told: BTreeMap<String, String> = BTreeMap::new();
        for Setting { name, path, value } in &self.0 {
            let here = Position { file: files.add(name), ..at };
            // A name that is none is tried where it leaves nothing behind.
            let is_name =
                Branch::new(here).add(path, "", here).map_err(|reason| format!("the name {reason}"));
            let value = match is_name.and_then(|()| value.clone().map_err(str::to_owned)) {
                Ok(value) => value,
                Err(reason) => {
                    problems.push(files.error(here, reason, None));
                    continue;
                }
            };
            // Of a flag that is repeated the last value counts, or each of a list.
            let key = path.to_ascii_lowercase();
            let value = match told.get(&key) {
                Some(before) if schema::shape(path) == Some(Shape::List) => format!("{before},{value}"),
                _ => value,
            };
            let _ = root.get_or_insert_with(|| Branch::new(at)).add(path, &value, here);
            told.insert(key, value);
        }
        root.map_or(Node::new(at, Value::Null), Branch::into_node)
    }
}

/// Without values.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|setting| &setting.name)).finish()
    }
}

#[cfg(test)]
mod tests;
