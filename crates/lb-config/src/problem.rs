//! What is wrong with a configuration, where, and how to get out of it.
//!
//! Every problem of a load is collected before anything is decided. Whether a load with problems
//! is refused as a whole or only loses some objects is the caller's choice; [`Scope`] tells the two apart.

use std::fmt;

/// One problem, printed as `file:line:column: key: message` and a second line with the hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    pub scope: Scope,
    /// As the operator named it.
    pub file: String,
    /// From 1; 0 when the problem concerns the whole file.
    pub line: u32,
    /// From 1, in characters; 0 when the problem concerns the whole file.
    pub column: u32,
    /// Path of the key, `http.routers.api.service`; empty for the whole file.
    pub key: String,
    pub message: String,
    /// The way out.
    pub hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Warning,
    Error,
}

/// What a problem spoils.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The file cannot be trusted to mean what it says: nothing of it is loaded.
    File,
    /// This object, named `name@provider`, and whatever uses it.
    Object { kind: Kind, name: String },
}

/// The kinds of named objects of a dynamic configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Router,
    Service,
    Middleware,
    ServersTransport,
    TlsOptions,
    TcpRouter,
    TcpService,
    TcpMiddleware,
    TcpServersTransport,
    UdpRouter,
    UdpService,
    /// Has no name and nothing refers to it: called by its `certFile`, or by its place when it has none,
    /// `<inline> a.yml:tls.certificates[0]`.
    Certificate,
    /// A file of a directory, by its path.
    File,
}

impl Kind {
    /// The word for it in messages.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Router => "router",
            Kind::Service => "service",
            Kind::Middleware => "middleware",
            Kind::ServersTransport => "servers transport",
            Kind::TlsOptions => "TLS options",
            Kind::TcpRouter => "TCP router",
            Kind::TcpService => "TCP service",
            Kind::TcpMiddleware => "TCP middleware",
            Kind::TcpServersTransport => "TCP servers transport",
            Kind::UdpRouter => "UDP router",
            Kind::UdpService => "UDP service",
            Kind::Certificate => "certificate",
            Kind::File => "file",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Problem {
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// All of it on one line, as logs and the API show it.
    pub fn line(&self) -> String {
        let hint = self.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{}{hint}", Self { hint: None, ..self.clone() })
    }

    /// An error about a file, or whatever stands for one, as a whole: unreadable, too big, not text.
    pub fn whole_file(file: &str, message: String, hint: Option<String>) -> Self {
        Self {
            severity: Severity::Error,
            scope: Scope::File,
            file: escaped(file),
            line: 0,
            column: 0,
            key: String::new(),
            message,
            hint,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if self.severity == Severity::Warning {
            f.write_str(": warning")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// All problems of a refused load, in the order of the file; at least one is an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    pub fn errors(&self) -> usize {
        self.0.iter().filter(|p| p.is_error()).count()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl From<Box<Problem>> for Problems {
    fn from(problem: Box<Problem>) -> Self {
        Self::from(*problem)
    }
}

/// The problems and then a count, `2 problems found`; the caller adds what stays in force.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}")?;
        }
        match self.0.len() {
            1 => f.write_str("1 problem found"),
            n => write!(f, "{n} problems found"),
        }
    }
}

/// The value in back-ticks, safe for a terminal and a log line: control characters are escaped,
/// a long one is cut.
pub(crate) fn quoted(value: &str) -> String {
    format!("`{}`", printable(value))
}

/// Characters of a value that a message shows; chosen, so that a line stays a line.
const SHOWN: usize = 120;

/// `value` with control characters escaped, cut when long.
pub(crate) fn printable(value: &str) -> String {
    match value.char_indices().nth(SHOWN) {
        Some((end, _)) => escaped(&value[..end]) + "...",
        None => escaped(value),
    }
}

/// `text` with control characters escaped.
pub(crate) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        // Unicode's direction marks reorder what an operator reads; they are escaped as well.
        if c.is_control()
            || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(severity: Severity) -> Problem {
        Problem {
            severity,
            scope: Scope::File,
            file: "config/shop.yml".to_owned(),
            line: 14,
            column: 16,
            key: "http.routers.api.service".to_owned(),
            message: "no service is called `pyaments`".to_owned(),
            hint: Some("did you mean `payments`? known services: payments, users".to_owned()),
        }
    }

    #[test]
    fn a_problem_prints_as_two_lines_that_editors_can_follow() {
        assert_eq!(
            problem(Severity::Error).to_string(),
            "config/shop.yml:14:16: http.routers.api.service: no service is called `pyaments`\n  \
             hint: did you mean `payments`? known services: payments, users"
        );
        assert_eq!(
            Problem { hint: None, ..problem(Severity::Warning) }.to_string(),
            "config/shop.yml:14:16: warning: http.routers.api.service: no service is called `pyaments`"
        );
        assert_eq!(
            Problem::whole_file("a.yml", "is a directory".to_owned(), None).to_string(),
            "a.yml: is a directory"
        );
    }

    #[test]
    fn many_problems_end_with_their_count() {
        let twice = Problems(vec![Problem { hint: None, ..problem(Severity::Error) }; 2]).to_string();
        assert_eq!(twice.lines().count(), 3);
        assert!(twice.ends_with("\n2 problems found"), "{twice}");
    }

    #[test]
    fn values_cannot_disturb_the_terminal_that_shows_them() {
        assert_eq!(quoted("a\x1b[31mb\nc"), "`a\\u{1b}[31mb\\nc`");
        assert_eq!(quoted("\u{202e}x"), "`\\u{202e}x`");
        assert_eq!(quoted(&"x".repeat(500)).len(), 120 + 3 + 2);
        assert_eq!(quoted("é`"), "`é``");
    }
}
