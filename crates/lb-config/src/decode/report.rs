//! Where the problems of one load are collected.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Asked;
use crate::document::{Files, Position};
use crate::problem::{Kind, Problem, Scope, Severity, escaped, printable};

/// Problems kept of one load; more only count. Chosen: nobody reads further, and a file of
/// a million typos must not become a million messages.
pub(crate) const KEPT: usize = 1_000;

/// Objects that cannot be loaded, with reasons as Traefik's API words them.
pub(crate) type Broken = BTreeMap<(Kind, String), Vec<String>>;

pub(crate) struct Report<'f> {
    files: &'f Files,
    problems: RefCell<Vec<Problem>>,
    more: Cell<usize>,
    /// Errors that spoil a whole file.
    refused: Cell<bool>,
    /// Files with one: whoever goes on without them has to know each, however many problems there are.
    misshapen_files: RefCell<BTreeSet<u32>>,
    /// The object being read.
    object: RefCell<Option<(Kind, String)>>,
    /// It, or what is read outside of any object, has an error of shape.
    misshapen: Cell<bool>,
    broken: RefCell<Broken>,
    /// Labels have no indentation that could hide an object: [`misfit`](Self::misfit) spoils the one it is in.
    is_flat: bool,
    /// Flags or variables are read, which stand for no file.
    is_of_arguments: bool,
    pub(super) asked: Option<&'f Asked>,
    /// Files that were read because the configuration names them: certificates, users.
    read: RefCell<Vec<PathBuf>>,
}

/// What a load found out besides the configuration.
pub(crate) struct Findings {
    /// Sorted by place.
    pub(crate) problems: Vec<Problem>,
    pub(crate) broken: Broken,
    pub(crate) read: Vec<PathBuf>,
    /// Nothing may be loaded.
    pub(crate) refused: bool,
}

impl<'f> Report<'f> {
    pub(crate) fn new(files: &'f Files, problems: Vec<Problem>) -> Self {
        let refused = problems.iter().any(Problem::is_error);
        Self {
            files,
            problems: RefCell::new(problems),
            more: Cell::new(0),
            refused: Cell::new(refused),
            misshapen_files: RefCell::new(BTreeSet::new()),
            object: RefCell::new(None),
            misshapen: Cell::new(false),
            broken: RefCell::new(Broken::new()),
            is_flat: false,
            is_of_arguments: false,
            asked: None,
            read: RefCell::new(Vec::new()),
        }
    }

    pub(crate) fn of_labels(files: &'f Files) -> Self {
        Self { is_flat: true, ..Self::new(files, Vec::new()) }
    }

    pub(crate) fn of_arguments(files: &'f Files, problems: Vec<Problem>) -> Self {
        Self { is_of_arguments: true, ..Self::new(files, problems) }
    }

    /// For what is read only to hear what is asked for.
    pub(crate) fn for_ears(files: &'f Files, asked: &'f Asked) -> Self {
        Self { asked: Some(asked), ..Self::of_arguments(files, Vec::new()) }
    }

    pub(crate) fn is_of_arguments(&self) -> bool {
        self.is_of_arguments
    }

    /// The file does not have the shape of a configuration: it is refused as a whole.
    pub(crate) fn shape(&self, at: Position, key: &str, message: String, hint: Option<String>) {
        self.refused.set(true);
        self.misshapen.set(true);
        self.push(at, key, message, hint, Severity::Error, Scope::File);
    }

    /// A key or value that does not belong here. It spoils the object it is in; where it might be the start of another
    /// object (`may_hide`: a map, perhaps just indented too far) the file is refused, or that one would be taken for
    /// removed.
    pub(crate) fn misfit(
        &self,
        at: Position,
        key: &str,
        message: String,
        hint: Option<String>,
        may_hide: bool,
    ) {
        if may_hide && !self.is_flat {
            self.shape(at, key, message, hint)
        } else {
            self.error(at, key, message, hint)
        }
    }

    /// What is being read cannot work: the current object is not loaded, or, outside of any object,
    /// the file is refused.
    pub(crate) fn error(&self, at: Position, key: &str, message: String, hint: Option<String>) {
        self.error_because(at, key, message, hint, None);
    }

    /// As [`error`](Self::error), with Traefik's wording where it differs from the message.
    pub(crate) fn error_because(
        &self,
        at: Position,
        key: &str,
        message: String,
        hint: Option<String>,
        reason: Option<String>,
    ) {
        let Some((kind, name)) = self.object.borrow().clone() else {
            return self.shape(at, key, message, hint);
        };
        self.error_on(kind, &name, at, key, message, hint, reason);
    }

    /// As [`error_because`](Self::error_because), for an object that is not being read just now.
    #[expect(clippy::too_many_arguments, reason = "one call site per problem, each argument a part of it")]
    pub(crate) fn error_on(
        &self,
        kind: Kind,
        name: &str,
        at: Position,
        key: &str,
        message: String,
        hint: Option<String>,
        reason: Option<String>,
    ) {
        self.disable(kind, name, reason.unwrap_or_else(|| message.clone()));
        self.push(at, key, message, hint, Severity::Error, Scope::Object { kind, name: name.to_owned() });
    }

    /// Works, though perhaps not as meant.
    pub(crate) fn warn(&self, at: Position, key: &str, message: String, hint: Option<String>) {
        let scope = match &*self.object.borrow() {
            Some((kind, name)) => Scope::Object { kind: *kind, name: name.clone() },
            None => Scope::File,
        };
        self.push(at, key, message, hint, Severity::Warning, scope);
    }

    /// An error of the current object that leaves it in use.
    pub(crate) fn tolerated(&self, at: Position, key: &str, message: String, hint: Option<String>) {
        let Some((kind, name)) = self.object.borrow().clone() else {
            return self.shape(at, key, message, hint);
        };
        self.push(at, key, message, hint, Severity::Error, Scope::Object { kind, name });
    }

    /// Part of a file is not loaded, and the rest of it does without.
    pub(crate) fn lacking(&self, at: Position, key: &str, message: String) {
        let file = Scope::Object { kind: Kind::File, name: self.files.name(at.file).to_owned() };
        self.push(at, key, message, None, Severity::Error, file);
    }

    /// Takes an object out without a problem of its own (something it uses has one).
    pub(crate) fn disable(&self, kind: Kind, name: &str, reason: String) {
        let mut broken = self.broken.borrow_mut();
        let reasons = broken.entry((kind, name.to_owned())).or_default();
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }

    pub(crate) fn disable_current(&self, reason: String) {
        let current = self.object.borrow().clone();
        if let Some((kind, name)) = current {
            self.disable(kind, &name, reason);
        }
    }

    pub(crate) fn is_broken(&self, kind: Kind, name: &str) -> bool {
        let broken = self.broken.borrow();
        !broken.is_empty() && broken.contains_key(&(kind, name.to_owned()))
    }

    /// Whether the object being read has an error already.
    pub(crate) fn is_current_broken(&self) -> bool {
        self.misshapen.get()
            || self.object.borrow().as_ref().is_some_and(|object| self.broken.borrow().contains_key(object))
    }

    pub(crate) fn broken_names(&self) -> Vec<(Kind, String)> {
        self.broken.borrow().keys().cloned().collect()
    }

    pub(crate) fn broken(&self) -> Broken {
        self.broken.borrow().clone()
    }

    /// Something outside of any object is wrong.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.get()
    }

    pub(crate) fn first_reason(&self, kind: Kind, name: &str) -> Option<String> {
        self.broken.borrow().get(&(kind, name.to_owned()))?.first().cloned()
    }

    /// Problems that `read` finds belong to this object.
    pub(crate) fn within<T>(&self, kind: Kind, name: &str, read: impl FnOnce() -> T) -> T {
        let outer = self.object.replace(Some((kind, name.to_owned())));
        let misshapen = self.misshapen.replace(false);
        let read = read();
        self.object.replace(outer);
        self.misshapen.set(misshapen);
        read
    }

    /// Further problems would only be counted: no need to look for hints.
    pub(crate) fn is_full(&self) -> bool {
        self.problems.borrow().len() >= KEPT
    }

    /// A problem of a file that is not one of this load.
    pub(crate) fn elsewhere(&self, problem: Problem) {
        self.keep(false, || problem);
    }

    fn push(
        &self,
        at: Position,
        key: &str,
        message: String,
        hint: Option<String>,
        severity: Severity,
        scope: Scope,
    ) {
        let is_of_form = scope == Scope::File && severity == Severity::Error;
        let is_first = is_of_form && self.misshapen_files.borrow_mut().insert(at.file);
        self.keep(is_first, || {
            // Other crates quote values as they are.
            let problem = self.files.problem(at, severity, escaped(&message), hint.as_deref().map(escaped));
            Problem { scope, key: printable(key), ..problem }
        });
    }

    fn keep(&self, always: bool, problem: impl FnOnce() -> Problem) {
        if self.is_full() && !always {
            self.more.set(self.more.get() + 1);
        } else {
            self.problems.borrow_mut().push(problem());
        }
    }

    /// Remembers a file whose change changes the configuration.
    pub(crate) fn note_read(&self, path: &Path) {
        self.read.borrow_mut().push(path.to_owned());
    }

    pub(crate) fn into_findings(self) -> Findings {
        let refused = self.refused.get();
        let mut problems = self.problems.into_inner();
        problems.sort_by_cached_key(|p| (self.files.order(&p.file), p.line, p.column));
        if self.more.get() > 0 {
            let file = problems.last().map_or("", |p| p.file.as_str());
            problems.push(Problem::whole_file(
                file,
                format!("{} more problems are not shown", self.more.get()),
                None,
            ));
        }
        Findings { problems, broken: self.broken.into_inner(), read: self.read.into_inner(), refused }
    }
}
