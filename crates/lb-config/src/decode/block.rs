//! A block of known keys.

use std::cell::RefCell;

use super::elsewhere::{at_the_top, in_a_block};
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
                Some(
                    in_a_block(&entry.key, &known).map_or_else(
                        || suggest::hint(&entry.key, "keys", known.iter().copied()),
                        str::to_owned,
                    ),
                ),
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
                at_the_top(&entry.key, &known).map(str::to_owned).or_else(|| {
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
    fn keys_of_a_block_that_belong_elsewhere_say_where() {
        let hint = |problem: &Problem| problem.hint.clone().unwrap_or_default();
        for (text, expected) in [
            ("entryPoints: {web: {address: ':1', redirections: {}}}", "below `http`"),
            ("entryPoints: {web: {address: ':1', tls: {options: a}}}", "below `http`"),
            (
                "entryPoints: {web: {address: ':1', respondingTimeouts: {readTimeout: 1}}}",
                "below `transport`",
            ),
            ("entryPoints: {web: {address: ':1', enableHTTP3: true}}", "`http3: {}`"),
            ("entryPoints: {web: {address: ':1', http: {redirect: {}}}}", "`redirections.entryPoint`"),
            ("certificatesResolvers: {le: {acme: {tlsChallenge: {}}, storage: a}}", "below `acme`"),
            ("tracing: {otlp: {endpoint: a}}", "below `http` or `grpc`"),
            ("providers: {docker: {domain: a}}", "`defaultRule`"),
            ("log: {path: a}", "`filePath`"),
            ("log: {nope: a}", "known keys: "),
        ] {
            let problems = parse_static("traefik.yml", text).unwrap_err().0;
            assert!(problems.iter().any(|problem| hint(problem).contains(expected)), "{text}: {problems:?}");
        }
        for (text, expected) in [
            ("http: {services: {a: {servers: [{url: 'http://a'}]}}}", "below `loadBalancer`"),
            ("http: {services: {a: {loadBalancer: {servers: [{address: 'a:1'}]}}}}", "`url: http://"),
            ("http: {services: {a: {loadBalancer: {url: 'http://a'}}}}", "`servers: [{url:"),
            ("tcp: {services: {a: {loadBalancer: {servers: [{url: 'tcp://a:1'}]}}}}", "`address: HOST:PORT`"),
            ("http: {tls: {certificates: []}}", "without indentation"),
        ] {
            let problems = match parse_dynamic("d.yml", text, "file", &Context::default()) {
                Ok(loaded) => loaded.problems,
                Err(problems) => problems.0,
            };
            assert!(problems.iter().any(|problem| hint(problem).contains(expected)), "{text}: {problems:?}");
        }
    }

    #[test]
    fn a_key_that_is_indented_too_little_is_told_from_a_name() {
        let hint = |text: &str| {
            let problems = match parse_dynamic("d.yml", text, "file", &Context::default()) {
                Ok(loaded) => loaded.problems,
                Err(problems) => problems.0,
            };
            problems.into_iter().find(Problem::is_error).and_then(|problem| problem.hint)
        };
        let told = hint("http:\n  routers:\n    api:\n    rule: Path(`/`)\n").unwrap();
        assert!(told.contains("`rule` is read as a name here"), "{told}");
        for (text, expected) in [
            ("http: {services: {a: {loadBalancer: {servers: ['http://a']}}}}", "`- key: value`"),
            ("http:\n  routers:\n    a:\n      rule:Path(`/`)\n", "write a blank after the colon"),
            ("http:\n  routers:\n    - a: b\n", "leave out the `- `"),
            ("http: {middlewares: {a: {headers: x}}}", "indented below"),
        ] {
            let told = hint(text).unwrap();
            assert!(told.contains(expected), "{text}: {told}");
        }
    }
}
