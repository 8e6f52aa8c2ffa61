//! Lists: filtered, sorted, cut into pages.

use std::cmp::Ordering;
use std::num::IntErrorKind;

use serde_json::Value;

use super::provider;
use crate::Response;
use crate::query::Query;

/// Whether `search` occurs in one of the texts, whatever the case.
pub(super) fn is_sought(query: &Query, texts: &[&str]) -> bool {
    let Some(search) = query.get("search") else { return true };
    let search = search.to_lowercase();
    texts.iter().any(|text| text.to_lowercase().contains(&search))
}

pub(super) fn has_status(query: &Query, status: &str) -> bool {
    query.get("status").is_none_or(|wanted| wanted.eq_ignore_ascii_case(status))
}

/// Whether `router` leads to the service that is asked for. Where the service is of the router's own provider its name
/// alone decides, whatever provider the question names, as in Traefik.
pub(super) fn is_of_service(query: &Query, router: &str, service: &str) -> bool {
    let Some(wanted) = query.get("serviceName") else { return true };
    match service.rsplit_once('@') {
        Some((name, of)) if of == provider(router) && of != "internal" => {
            wanted.split('@').next() == Some(name)
        }
        _ => wanted == service,
    }
}

/// Sorts by `compare`, ties by name, and turns the whole order round for each `direction` but `asc`.
pub(super) fn sort<T>(
    items: &mut [T],
    query: &Query,
    name: impl Fn(&T) -> &str,
    compare: impl Fn(&T, &T) -> Ordering,
) {
    items.sort_by(|a, b| compare(a, b).then_with(|| name(a).cmp(name(b))));
    if query.get("direction").is_some_and(|direction| direction != "asc") {
        items.reverse();
    }
}

/// The page that the query asks for; only its items are rendered.
pub(super) fn page<T>(items: Vec<T>, query: &Query, render: impl Fn(T) -> Value) -> Response {
    match Page::of(query, items.len()) {
        Err(message) => Response::error(400, &message),
        Ok(page) => {
            let shown = items.into_iter().skip(page.start).take(page.length).map(render);
            Response::json(200, &shown.collect()).with("X-Next-Page", page.next.to_string())
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Page {
    start: usize,
    length: usize,
    /// 1 when there is none.
    next: usize,
}

impl Page {
    fn of(query: &Query, total: usize) -> Result<Self, String> {
        let number = |key: &str, default: usize| match query.get(key) {
            None => Ok(default),
            Some(text) => match text.parse::<i64>() {
                Ok(number) if number > 0 => Ok(usize::try_from(number).unwrap_or(usize::MAX)),
                Ok(number) => Err(format!("invalid request: {key}: {number}")),
                // As Go's `Atoi` has it.
                Err(error) => {
                    let number = match error.kind() {
                        IntErrorKind::PosOverflow => i64::MAX,
                        IntErrorKind::NegOverflow => i64::MIN,
                        _ => 0,
                    };
                    Err(format!("invalid request: {key}: {number}"))
                }
            },
        };
        let per_page = number("per_page", 100)?;
        let page = number("page", 1)?;
        let start = (page - 1).saturating_mul(per_page);
        if start != 0 && start >= total {
            return Err(format!("invalid request: page: {page}, per_page: {per_page}"));
        }
        let next = if page.saturating_mul(per_page) < total { page + 1 } else { 1 };
        Ok(Self { start, length: per_page, next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_traefiks() {
        let page = |start, length, next| Ok(Page { start, length, next });
        for (query, total, expected) in [
            ("", 0, page(0, 100, 1)),
            ("", 250, page(0, 100, 2)),
            ("page=3", 250, page(200, 100, 1)),
            ("page=2&per_page=2", 4, page(2, 2, 1)),
            ("page=1&per_page=2", 4, page(0, 2, 2)),
            ("page=4", 250, Err("invalid request: page: 4, per_page: 100".into())),
            ("page=0", 9, Err("invalid request: page: 0".into())),
            ("per_page=x", 9, Err("invalid request: per_page: 0".into())),
            ("page=-2", 9, Err("invalid request: page: -2".into())),
            ("page=9223372036854775808", 9, Err("invalid request: page: 9223372036854775807".into())),
            (
                "page=9223372036854775807&per_page=9223372036854775807",
                9,
                Err("invalid request: page: 9223372036854775807, per_page: 9223372036854775807".into()),
            ),
        ] {
            assert_eq!(Page::of(&Query::parse(query), total), expected, "{query}");
        }
    }
}
