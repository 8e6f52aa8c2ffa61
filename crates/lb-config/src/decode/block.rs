//! A block of known keys.

use std::cell::RefCell;

use super::path::{Path, Segment};
use super::{Field, Report};
use crate::document::{Entry, Node, Position, Value};
use crate::problem::quoted;
use crate::suggest;

/// Keys that most blocks have room for without growing; chosen.
const KEYS: usize = 16;

/// A map whose keys are fields: matched whatever their case, each at most once.
pub(crate) struct Block<'a> {
    pub(crate) report: &'a Report<'a>,
    pub(crate) at: Position,
    pub(crate) path: Path<'a>,
    entries: &'a [Entry],
    taken: RefCell<Vec<bool>>,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Block<'a> {
    /// The root of a file; `None` when it is not a map. An empty file is an empty block.
    pub(crate) fn root(report: &'a Report<'a>, node: &'a Node) -> Option<Self> {
        match &node.value {
            Value::Map(entries) => Some(Self::new(report, node.at, Path::default(), entries)),
            Value::Null => Some(Self::new(report, node.at, Path::default(), &[])),
            Value::Scalar(_) | Value::List(_) => {
                let message = format!("a configuration is a map, this file holds {}", node.shape());
                report.shape(node.at, "", message, None);
                None
            }
        }
    }

    pub(super) fn new(report: &'a Report<'a>, at: Position, path: Path<'a>, entries: &'a [Entry]) -> Self {
        Self {
            report,
            at,
            path,
            entries,
            taken: RefCell::new(vec![false; entries.len()]),
            known: RefCell::new(Vec::with_capacity(KEYS)),
        }
    }

    /// The field of this name; `None` when absent or null, which mean the same everywhere.
    pub(crate) fn take(&self, key: &'static str) -> Option<Field<'a>> {
        self.known.borrow_mut().push(key);
        self.report.hear_key(self.at, key);
        self.take_unlisted(key)
    }

    /// As [`take`](Self::take) for the words that Traefik takes for absent when they are empty.
    pub(crate) fn take_word(&self, key: &'static str) -> Option<Field<'a>> {
        self.take(key).filter(|field| !field.is_empty_text())
    }

    /// As [`take`](Self::take), for a key that no hint should propose.
    pub(crate) fn take_unlisted(&self, key: &'static str) -> Option<Field<'a>> {
        if self.path.is_root() {
            self.report.hear_root(key);
        }
        let mut taken = self.taken.borrow_mut();
        let mut found: Option<&'a Entry> = None;
        for (entry, taken) in self.entries.iter().zip(taken.iter_mut()) {
            if !entry.key.eq_ignore_ascii_case(key) {
                continue;
            }
            *taken = true;
            match found {
                None => found = Some(entry),
                Some(first) if first.merged && !entry.merged => found = Some(entry),
                Some(_) if entry.merged => {}
                Some(first) => self.report.shape(
                    entry.at,
                    &self.key_path(&entry.key),
                    format!("{} is the same key as {}", quoted(&entry.key), quoted(&first.key)),
                    Some(format!("upper and lower case do not matter; keep one, written {}", quoted(key))),
                ),
            }
        }
        let entry = found.filter(|entry| !entry.value.is_null())?;
        Some(Field::new(self.report, &entry.value, entry.at, self.path.clone(), Segment::Key(key)))
    }

    /// Like [`take`](Self::take), reporting an error when the field is absent.
    pub(crate) fn require(&self, key: &'static str, hint: &str) -> Option<Field<'a>> {
        let field = self.take(key);
        if field.is_none() {
            self.error(format!("{} is missing", quoted(key)), Some(hint.to_owned()));
        }
        field
    }

    /// Features of Traefik that Vigie does not have yet: never ignored in silence.
    pub(crate) fn unsupported(&self, keys: &[&'static str]) {
        for &key in keys {
            if let Some(field) = self.take_unlisted(key) {
                field.error_at_key(format!("{} is not supported yet", quoted(key)), None);
            }
        }
    }

    /// Keys that are read by Traefik and change nothing here.
    pub(crate) fn without_effect(&self, keys: &[&'static str], why: &str) {
        for &key in keys {
            if let Some(field) = self.take_unlisted(key) {
                field.warn_at_key(format!("has no effect: {why}"), None);
            }
        }
    }

    /// Accepted without a word: what they ask for is so anyway.
    pub(crate) fn harmless(&self, keys: &[&'static str]) {
        for &key in keys {
            self.take_unlisted(key);
        }
    }

    /// Reports what nobody asked for.
    pub(crate) fn finish(self) {
        for entry in self.left_over() {
            if self.report.is_full() {
                // Only the count matters now; hints are not looked for.
                self.report.misfit(entry.at, "", String::new(), None, entry.value.holds_maps());
                continue;
            }
            let known = self.known.borrow();
            self.report.misfit(
                entry.at,
                &self.key_path(&entry.key),
                format!("there is no key {} here", quoted(&entry.key)),
                Some(suggest::hint(&entry.key, "keys", known.iter().copied())),
                entry.value.holds_maps(),
            );
        }
    }

    /// As [`finish`](Self::finish) for the root of a file, where Traefik ignores what it does not know
    /// (people keep templates for `<<` there). It does know its flags and variables.
    pub(crate) fn finish_root(self) {
        if self.report.is_of_arguments() {
            return self.finish();
        }
        for entry in self.left_over() {
            if self.report.is_full() || entry.key.starts_with("x-") {
                continue;
            }
            let known = self.known.borrow();
            self.report.warn(
                entry.at,
                &entry.key,
                format!("the top-level key {} is ignored", quoted(&entry.key)),
                elsewhere(&entry.key, &known).map(str::to_owned).or_else(|| {
                    let near = suggest::nearest(&entry.key, known.iter().copied());
                    near.map(|near| format!("did you mean {}?", quoted(near)))
                }),
            );
        }
    }

    /// The entries nobody took, for blocks whose keys are not all fields.
    pub(crate) fn left_over(&self) -> Vec<&'a Entry> {
        let taken = self.taken.borrow();
        self.entries.iter().zip(taken.iter()).filter(|(_, taken)| !**taken).map(|(entry, _)| entry).collect()
    }

    /// An error about the block as a whole.
    pub(crate) fn error(&self, message: String, hint: Option<String>) {
        self.report.error(self.at, &self.path.to_string(), message, hint);
    }

    pub(crate) fn warn(&self, message: String, hint: Option<String>) {
        self.report.warn(self.at, &self.path.to_string(), message, hint);
    }

    fn key_path(&self, key: &str) -> String {
        self.path.join(Segment::Key(key)).to_string()
    }
}

/// Where a key belongs that has no meaning at the top of a file with the keys `known`: in the other kind of file,
/// deeper, or in one of Traefik v1.
fn elsewhere(key: &str, known: &[&str]) -> Option<&'static str> {
    let is_static = known.contains(&"entryPoints");
    let hint = match (is_static, key.to_ascii_lowercase().as_str()) {
        (true, "docker" | "file" | "consul" | "etcd" | "redis" | "rest" | "kubernetes") => {
            "providers stand below `providers`; Traefik v1 had them here"
        }
        (true, "defaultentrypoints") => {
            "a key of Traefik v1; since then `asDefault: true` marks an entry point"
        }
        (true, "acme") => "a key of Traefik v1; since then it stands below `certificatesResolvers.<name>`",
        (true, "loglevel") => "a key of Traefik v1; since then it is `log.level`",
        (_, "frontends" | "backends") => {
            "a key of Traefik v1; since then there are `http.routers` and `http.services`, in a dynamic file"
        }
        (false, "routers" | "services" | "middlewares" | "serverstransports") => {
            "indent it below `http`, `tcp` or `udp`"
        }
        (
            false,
            "accesslog"
            | "api"
            | "certificatesresolvers"
            | "entrypoints"
            | "global"
            | "log"
            | "metrics"
            | "ping"
            | "providers"
            | "tracing",
        ) => "it belongs in the static configuration, the file that `--configFile` names",
        _ => return None,
    };
    Some(hint)
}

#[cfg(test)]
mod tests {
    use crate::{Context, Problem, parse_dynamic, parse_static};

    #[test]
    fn keys_at_the_top_that_belong_elsewhere_say_where() {
        let hints = |problems: Vec<Problem>| -> Vec<String> {
            problems.into_iter().map(|problem| problem.hint.unwrap_or_default()).collect()
        };
        let first = |text: &str| hints(parse_static("traefik.yml", text).unwrap().1).remove(0);
        assert!(first("docker: {}").contains("below `providers`"));
        assert!(first("defaultEntryPoints: [http]").contains("asDefault"));
        assert!(first("entrypoint: {}").contains("did you mean `entryPoints`?"));
        let dynamic =
            |text: &str| parse_dynamic("d.yml", text, "file", &Context::default()).unwrap().problems;
        let told = hints(dynamic("routers: {}\nentryPoints: {}\nfrontends: {}\nhtpp: {}"));
        for (hint, expected) in
            told.iter().zip(["below `http`", "static", "`http.routers`", "did you mean `http`?"])
        {
            assert!(hint.contains(expected), "{told:?}");
        }
    }

    #[test]
    fn a_key_that_is_indented_too_little_is_told_from_a_name() {
        let hint = |text: &str| {
            let loaded = parse_dynamic("d.yml", text, "file", &Context::default()).unwrap();
            loaded.problems.into_iter().find(Problem::is_error).and_then(|problem| problem.hint)
        };
        let told = hint("http:\n  routers:\n    api:\n    rule: Path(`/`)\n").unwrap();
        assert!(told.contains("`rule` is read as a name here"), "{told}");
        let told = hint("http: {services: {a: {loadBalancer: {servers: ['http://a']}}}}").unwrap();
        assert!(told.contains("`- key: value`"), "{told}");
    }
}
