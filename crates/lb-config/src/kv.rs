//! Stores of keys and values: from keys below a root to a checked configuration (reference 1.4, KV stores).
//!
//! `traefik/http/routers/api/rule` is what YAML nests and what a label writes with dots, so the keys become the same
//! tree as labels, and what is known of files holds for them: the same options, checks and hints. Problems name the
//! store in place of the file, and the key in place of line and key. One object's mistake spoils that object.

use std::collections::{BTreeMap, BTreeSet};

use crate::decode::Report;
use crate::docker::tree::{Branch, Part};
use crate::document::{Files, MAX_DEPTH, Position};
use crate::dynamics::{Draft, check_references};
use crate::load::{Context, Loaded};
use crate::problem::{Problem, Problems, printable};

/// The sections of a configuration; other keys below the root are somebody else's.
const SECTIONS: [&str; 4] = ["http", "tcp", "udp", "tls"];

/// Stands below a key whose value is no text: a map, which no value may be.
const NO_TEXT: &str = "(not UTF-8 text)";

/// The configuration that `pairs` make. Their keys are whole, and those outside of `root` mean nothing. `store` is
/// what problems name in place of a file.
///
/// # Errors
/// Every problem, when something outside of any object is wrong: then nothing of the load is used.
pub fn load_keys(
    provider: &str,
    store: &str,
    root: &str,
    pairs: &BTreeMap<String, Vec<u8>>,
    context: &Context,
) -> Result<Loaded, Problems> {
    let mut files = Files::default();
    let file = files.add(store);
    let mut tree = Branch::new(Position { file, line: 0, column: 0 });
    let keys: Vec<&str> = pairs.keys().map(String::as_str).collect();
    let mut remarks = Vec::new();
    let mut no_text = BTreeSet::new();
    // Lines count from 1.
    for (line, (key, value)) in (1..).zip(pairs) {
        let at = Position { file, line, column: 0 };
        let Some(mut parts) = parts(key, root) else { continue };
        if parts.len() > MAX_DEPTH {
            let hint = Some("remove the key".to_owned());
            remarks.push(files.error(at, "the key has too many parts".to_owned(), hint));
            continue;
        }
        match std::str::from_utf8(value) {
            Ok(value) => tree.set(&parts, value, at),
            // Whatever reads it finds no value, which is an error of the object it is in.
            Err(_) => {
                no_text.insert(printable(key));
                parts.push(Part::Field(NO_TEXT));
                tree.set(&parts, "", at);
            }
        }
    }
    let node = tree.into_map();
    let report = Report::of_labels(&files);
    let mut draft = Draft::new(&report, &files, context, provider);
    draft.read(&node);
    let removed = check_references(&mut draft);
    let (config, defined) = (draft.config, draft.defined);
    let found = report.into_findings();
    let refused = found.refused || !remarks.is_empty();
    let mut problems = remarks;
    problems.extend(found.problems);
    problems.truncate(crate::decode::KEPT);
    for problem in &mut problems {
        name_key(problem, &keys, root);
        if no_text.contains(&problem.key) {
            (problem.message, problem.hint) = ("the value is not UTF-8 text".to_owned(), None);
        }
    }
    if refused {
        return Err(Problems(problems));
    }
    Ok(Loaded::of_labels(config, problems, found.broken, removed, (files, defined), found.read))
}

/// Whether a key below `root` says anything about a configuration.
pub fn concerns(key: &str, root: &str) -> bool {
    parts(key, root).is_some()
}

/// What lies between the slashes; `None` for what is not of the configuration, and for the folders that some tools
/// make of keys with a slash at their end.
fn parts<'k>(key: &'k str, root: &str) -> Option<Vec<Part<'k>>> {
    let below = key.trim_start_matches('/').strip_prefix(root)?.strip_prefix('/')?;
    let words: Vec<&str> = below.split('/').filter(|word| !word.is_empty()).collect();
    let is = |at: usize, known: &[&str]| {
        words.get(at).is_some_and(|word| known.iter().any(|known| known.eq_ignore_ascii_case(word)))
    };
    if below.ends_with('/') || !is(0, &SECTIONS) {
        return None;
    }
    // Below these are names, which may be numbers; elsewhere a number is a place in a list.
    let named = is(0, &["http", "tcp", "udp"]) || is(1, &["options", "stores"]);
    let part = |(at, word): (usize, &&'k str)| {
        let is_name = (at == 2 && named) || (at > 0 && is(at - 1, &["statusRewrites"]));
        let index = word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse().ok()).flatten();
        index.filter(|_| !is_name).map_or(Part::Field(word), Part::Item)
    };
    Some(words.iter().enumerate().map(part).collect())
}

/// Puts the key where a file has its line and key, as far as the problem concerns it.
fn name_key(problem: &mut Problem, keys: &[&str], root: &str) {
    let index = usize::try_from(problem.line).unwrap_or(0).checked_sub(1);
    if let Some(key) = index.and_then(|index| keys.get(index)) {
        let above = root.split('/').count();
        let mut slashes = key.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
        let end = match usize::try_from(problem.column) {
            Ok(parts @ 1..) => slashes.nth(above + parts - 1),
            _ => None,
        };
        problem.key = printable(&key[..end.unwrap_or(key.len())]);
    }
    (problem.line, problem.column) = (0, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dynamic::Config;

    fn load(lines: &str) -> Result<Loaded, Problems> {
        let pair = |line: &str| {
            let (key, value) = line.trim().split_once(" = ").unwrap_or((line.trim(), ""));
            (key.to_owned(), value.as_bytes().to_vec())
        };
        let pairs = lines.lines().filter(|line| !line.trim().is_empty()).map(pair).collect();
        let context = Context { providers: ["redis".to_owned()].into(), ..Context::default() };
        load_keys("redis", "redis 127.0.0.1:6379", "traefik", &pairs, &context)
    }

    fn told(problems: &[Problem]) -> String {
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn keys_mean_what_a_file_says() {
        let loaded = load(
            "
            traefik/http/routers/a/rule = Path(`/a`)
            traefik/http/routers/a/service = s
            traefik/http/routers/A/priority = 7
            traefik/http/routers/a/middlewares/1 = p
            traefik/http/routers/a/middlewares/0 = c
            traefik/http/routers/a/tls = true
            traefik/http/routers/a/tls/domains/0/main = a.test
            traefik/http/routers/a/tls/domains/0/sans = b.test,c.test
            traefik/http/routers/7/rule = Path(`/7`)
            traefik/http/routers/7/service = s
            traefik/http/routers/7/entryPoints = web,other
            traefik/http/services/s/loadBalancer/servers/10/url = http://127.0.0.1:10
            traefik/http/services/s/loadbalancer/servers/2/url = http://127.0.0.1:2
            traefik/http/services/w/weighted/services/0/name = s
            traefik/http/services/w/weighted/services/0/weight = 3
            traefik/http/middlewares/c/compress = true
            traefik/http/middlewares/p/addPrefix/prefix = /x
            traefik/http/middlewares/e/errors/status/0 = 500-599
            traefik/http/middlewares/e/errors/service = s
            traefik/http/middlewares/e/errors/statusRewrites/418 = 404
            traefik/http/middlewares/h/headers/customRequestHeaders/X-Foo = a,b
            traefik/http/models/m/middlewares/0 = p
            traefik/http/
            traefik/acme/account = x
            traefikother/http/routers/b/rule = x
            ",
        )
        .unwrap();
        // As Traefik takes them from here.
        let models = "redis 127.0.0.1:6379: warning: traefik/http/models: has no effect: \
                      only the static configuration makes models, of entry points";
        assert_eq!(told(&loaded.problems), models);
        let yaml = "
            http:
              routers:
                A: {rule: 'Path(`/a`)', service: s, priority: 7, middlewares: [c, p],
                    tls: {domains: [{main: a.test, sans: [b.test, c.test]}]}}
                '7': {rule: 'Path(`/7`)', service: s, entryPoints: [web, other]}
              services:
                s: {loadBalancer: {servers: [{url: 'http://127.0.0.1:2'}, {url: 'http://127.0.0.1:10'}]}}
                w: {weighted: {services: [{name: s, weight: 3}]}}
              middlewares:
                c: {compress: {}}
                p: {addPrefix: {prefix: /x}}
                e: {errors: {status: [500-599], service: s, statusRewrites: {'418': 404}}}
                h: {headers: {customRequestHeaders: {X-Foo: 'a,b'}}}";
        let file = crate::parse_dynamic("a.yml", yaml, "redis", &Context::default()).unwrap();
        assert_eq!(loaded.config, file.config);
        assert_eq!(loaded.config.routers.len(), 2);
    }

    #[test]
    fn no_keys_are_an_empty_configuration() {
        for nothing in ["", "traefik/http/", "traefik/acme/account = x"] {
            let loaded = load(nothing).unwrap();
            assert_eq!((loaded.config, loaded.problems), (Config::default(), Vec::new()), "{nothing}");
        }
    }

    #[test]
    fn problems_name_store_and_key_and_spoil_their_object_only() {
        let loaded = load(
            "
            traefik/http/routers/a/rule = Path(`/a`)
            traefik/http/routers/a/service = s
            traefik/http/routers/b/rule = Pth(`/b`)
            traefik/http/routers/b/service = s
            traefik/http/routers/c/middlewares/0 = h
            traefik/http/middlewares/h/headers/bogus = 1
            traefik/http/services/s/loadBalancer/servers/0/url = http://127.0.0.1:2
            ",
        )
        .unwrap();
        assert!(loaded.config.routers.contains_key("a@redis"));
        assert!(!loaded.config.routers.contains_key("b@redis"));
        let told = told(&loaded.problems);
        let bogus =
            "redis 127.0.0.1:6379: traefik/http/middlewares/h/headers/bogus: there is no key `bogus` here";
        assert!(told.contains(bogus), "{told}");
        assert!(told.contains("redis 127.0.0.1:6379: traefik/http/routers/b/rule: "), "{told}");
        assert!(told.contains("redis 127.0.0.1:6379: traefik/http/routers/c: `rule` is missing"), "{told}");
        assert!(told.contains("hint: "), "{told}");
    }

    #[test]
    fn what_is_in_no_object_refuses_the_load() {
        for (keys, expected) in [
            ("traefik/http/routrs/a/rule = x", "traefik/http/routrs: there is no key `routrs` here"),
            ("traefik/http/routers = x", "traefik/http/routers: expected a map"),
            ("traefik/http = x", "traefik/http: expected a map"),
            ("/traefik/http/routrs/a/rule = x", ": /traefik/http/routrs: there is no key"),
        ] {
            let told = load(keys).unwrap_err().to_string();
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn a_value_that_is_no_text_spoils_its_object_only() {
        let pair = |key: &str, value: &[u8]| (format!("traefik/http/routers/{key}"), value.to_vec());
        let pairs = [
            pair("a/rule", b"Path(`/a`)"),
            pair("a/service", b"s"),
            pair("b/rule", b"Path(`/b`)"),
            pair("b/service", b"\xff"),
            pair("c/rule", b"Path(`/c`)"),
            pair("c/service", b"s"),
            pair("c/middlewares/0", b"\xff"),
            ("traefik/http/services/s/loadBalancer/servers/0/url".to_owned(), b"http://127.0.0.1:2".to_vec()),
        ];
        let pairs = pairs.into();
        let loaded = load_keys("redis", "redis a:1", "traefik", &pairs, &Context::default()).unwrap();
        assert!(loaded.config.routers.keys().eq(["a@redis"]), "{:?}", loaded.config.routers);
        let told = told(&loaded.problems);
        for key in ["b/service", "c/middlewares/0"] {
            assert!(
                told.contains(&format!("traefik/http/routers/{key}: the value is not UTF-8 text")),
                "{told}"
            );
        }
    }
}
