//! How this crate's tests read a snippet.

use crate::{Context, Kind, Loaded, Problems, parse_dynamic};

/// The middlewares, services and so on of a dynamic file; panics when it is refused.
pub(crate) fn load(text: &str) -> Loaded {
    parse_dynamic("a.yml", text, "file", &Context::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

/// As `key: message` without place and hint, warnings marked by `~`, the prefix `cut` removed from keys.
fn brief(problems: &[crate::Problem], cut: &str) -> Vec<String> {
    let line = |problem: &crate::Problem| {
        let mark = if problem.is_error() { "" } else { "~" };
        let key = problem.key.strip_prefix(cut).unwrap_or(&problem.key);
        format!("{mark}{}: {}", key.trim_start_matches('.'), problem.message)
    };
    problems.iter().map(line).collect()
}

pub(crate) fn problems(text: &str) -> Vec<String> {
    match parse_dynamic("a.yml", text, "file", &Context::default()) {
        Ok(Loaded { problems, .. }) | Err(Problems(problems)) => brief(&problems, ""),
    }
}

/// The object called `x` of `section`, and the problems it has; `content` is its YAML on one line.
fn one(section: &str, content: &str) -> (Option<Loaded>, Vec<String>) {
    let text = format!("http: {{{section}: {{x: {content}}}}}");
    let cut = format!("http.{section}.x");
    match parse_dynamic("a.yml", &text, "file", &Context::default()) {
        Ok(loaded) => {
            let problems = brief(&loaded.problems, &cut);
            (Some(loaded), problems)
        }
        Err(Problems(problems)) => (None, brief(&problems, &cut)),
    }
}

/// A middleware as read, or what is wrong with it.
pub(crate) fn middleware(content: &str) -> Result<crate::dynamic::Middleware, Vec<String>> {
    let (loaded, problems) = one("middlewares", content);
    loaded.and_then(|mut loaded| loaded.config.middlewares.remove("x@file")).ok_or(problems)
}

/// What is wrong with a middleware, warnings included.
pub(crate) fn middleware_problems(content: &str) -> Vec<String> {
    one("middlewares", content).1
}

/// A load balancer as read, or what is wrong with it.
pub(crate) fn load_balancer(content: &str) -> Result<crate::dynamic::Service, Vec<String>> {
    let (loaded, problems) = one("services", &format!("{{loadBalancer: {content}}}"));
    loaded.and_then(|mut loaded| loaded.config.services.remove("x@file")).ok_or(problems)
}

pub(crate) fn load_balancer_problems(content: &str) -> Vec<String> {
    let cut = |problem: String| problem.replacen("loadBalancer.", "", 1);
    one("services", &format!("{{loadBalancer: {content}}}")).1.into_iter().map(cut).collect()
}

/// Names of what was left out.
pub(crate) fn disabled(loaded: &Loaded, kind: Kind) -> Vec<&str> {
    loaded.disabled.keys().filter(|(other, _)| *other == kind).map(|(_, name)| name.as_str()).collect()
}
