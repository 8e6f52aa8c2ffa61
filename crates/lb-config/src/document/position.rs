//! Where something was written.

use crate::problem::{Problem, Scope, Severity, escaped};

/// A place in a file; lines and columns (in characters) count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// Index into [`Files`].
    pub(crate) file: u32,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Position {
    /// The same line, `by` characters further.
    pub(crate) fn right(self, by: u32) -> Self {
        Self { column: self.column.saturating_add(by), ..self }
    }
}

/// Names of the files of one load, as the operator gave them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files(Vec<String>);

impl Files {
    pub(crate) fn add(&mut self, name: &str) -> u32 {
        self.0.push(escaped(name));
        u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX)
    }

    pub(crate) fn name(&self, file: u32) -> &str {
        self.0.get(file as usize).map_or("", String::as_str)
    }

    /// Rank of a name in the order the files were read.
    pub(crate) fn order(&self, name: &str) -> usize {
        self.0.iter().position(|file| file == name).unwrap_or(usize::MAX)
    }

    /// An error of the whole file at this place.
    pub(crate) fn error(&self, at: Position, message: String, hint: Option<String>) -> Problem {
        self.problem(at, Severity::Error, message, hint)
    }

    pub(crate) fn problem(
        &self,
        at: Position,
        severity: Severity,
        message: String,
        hint: Option<String>,
    ) -> Problem {
        Problem {
            severity,
            scope: Scope::File,
            file: self.name(at.file).to_owned(),
            line: at.line,
            column: at.column,
            key: String::new(),
            message,
            hint,
        }
    }
}
