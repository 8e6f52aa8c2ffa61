//! `loadBalancer.sticky`.

use lb_core::sticky::{cookie_name, sanitize_name};

use crate::decode::{Block, Enabled, Field};
use crate::dynamic::{SameSite, StickyCookie};
use crate::problem::quoted;
use crate::suggest;

/// The cookie of the service `service` (its qualified name).
pub(super) fn read(field: &Field<'_>, service: &str) -> Option<StickyCookie> {
    let sticky = match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => {
            field.warn("has no effect without `cookie`".to_owned(), Some("write `cookie: {}`".to_owned()));
            return None;
        }
        Enabled::With(block) => block,
    };
    let cookie = sticky.take("cookie").and_then(|field| match field.enabled() {
        Enabled::Off => None,
        Enabled::Plain => Some(plain(service)),
        Enabled::With(block) => {
            let cookie = with(&block, service);
            block.finish();
            Some(cookie)
        }
    });
    sticky.finish();
    cookie
}

fn plain(service: &str) -> StickyCookie {
    StickyCookie {
        name: cookie_name(service),
        secure: false,
        http_only: false,
        same_site: None,
        max_age: None,
        path: "/".to_owned(),
        domain: None,
    }
}

fn with(block: &Block<'_>, service: &str) -> StickyCookie {
    let default = plain(service);
    StickyCookie {
        name: block.take("name").and_then(|field| name(&field)).unwrap_or(default.name),
        secure: block.take("secure").and_then(|field| field.boolean()).unwrap_or(default.secure),
        http_only: block.take("httpOnly").and_then(|field| field.boolean()).unwrap_or(default.http_only),
        same_site: block.take("sameSite").and_then(|field| same_site(&field)),
        max_age: block.take("maxAge").and_then(|field| max_age(&field)),
        path: block.take("path").and_then(|field| attribute(&field)).unwrap_or(default.path),
        domain: block.take("domain").and_then(|field| attribute(&field)).filter(|domain| !domain.is_empty()),
    }
}

fn name(field: &Field<'_>) -> Option<String> {
    let name = field.string().filter(|name| !name.is_empty())?;
    let usable = sanitize_name(&name);
    if usable != name {
        field.warn(
            format!("{} cannot be the name of a cookie; {} is used", quoted(&name), quoted(&usable)),
            Some(format!("write {}", quoted(&usable))),
        );
    }
    Some(usable)
}

/// In any letter case. An unknown word leaves the attribute out. Both as in Traefik.
fn same_site(field: &Field<'_>) -> Option<SameSite> {
    const WORDS: [(&str, SameSite); 3] =
        [("none", SameSite::None), ("lax", SameSite::Lax), ("strict", SameSite::Strict)];
    let text = field.text().filter(|text| !text.value.is_empty())?;
    let known = WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text.value)).map(|(_, value)| *value);
    if known.is_none() {
        text.warn(
            format!("{} is not a known value; the attribute is left out", quoted(text.value)),
            Some(suggest::hint(text.value, "values", WORDS.iter().map(|(word, _)| *word))),
        );
    }
    known
}

/// 0 leaves the attribute out, less than 0 says `Max-Age=0` (reference 2.6).
fn max_age(field: &Field<'_>) -> Option<u64> {
    match field.integer(i64::MIN..=i64::MAX)? {
        0 => None,
        seconds => Some(u64::try_from(seconds).unwrap_or(0)),
    }
}

/// Text that cannot break out of its attribute (RFC 6265 section 4.1.1).
fn attribute(field: &Field<'_>) -> Option<String> {
    let value = field.string()?;
    if value.chars().all(|c| (' '..='~').contains(&c) && c != ';') {
        return Some(value);
    }
    field.error(format!("{} cannot be part of a cookie", quoted(&value)), None);
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{load_balancer, load_balancer_problems};

    fn cookie(sticky: &str) -> Option<StickyCookie> {
        load_balancer(&format!("{{servers: [], sticky: {sticky}}}")).unwrap().sticky
    }

    #[test]
    fn the_name_is_derived_from_the_service() {
        assert_eq!(cookie("{cookie: true}"), Some(plain("x@file")));
        assert_eq!(cookie("{cookie: {}}"), Some(plain("x@file")));
        assert_eq!(cookie("{cookie: false}"), None);
        assert_eq!(cookie("false"), None);
        assert_eq!(cookie("true"), None);
    }

    #[test]
    fn attributes() {
        let all = "{cookie: {name: c, secure: true, httpOnly: 1, sameSite: lax, maxAge: 60, path: '', domain: a.test}}";
        assert_eq!(
            cookie(all),
            Some(StickyCookie {
                name: "c".to_owned(),
                secure: true,
                http_only: true,
                same_site: Some(SameSite::Lax),
                max_age: Some(60),
                path: String::new(),
                domain: Some("a.test".to_owned()),
            })
        );
        assert_eq!(cookie("{cookie: {maxAge: -1}}").unwrap().max_age, Some(0));
        assert_eq!(cookie("{cookie: {maxAge: 0}}").unwrap().max_age, None);
        for (word, expected) in [
            ("Strict", Some(SameSite::Strict)),
            ("LAX", Some(SameSite::Lax)),
            ("None", Some(SameSite::None)),
            ("laxx", None),
        ] {
            let cookie = cookie(&format!("{{cookie: {{sameSite: {word}}}}}"));
            assert_eq!(cookie.unwrap().same_site, expected, "{word}");
        }
    }

    #[test]
    fn what_is_told_about_a_cookie() {
        for (sticky, expected) in [
            ("{}", "~sticky: has no effect without `cookie`"),
            (
                "{cookie: {sameSite: laxx}}",
                "~sticky.cookie.sameSite: `laxx` is not a known value; the attribute is left out",
            ),
            ("{cookie: {path: '/; Secure'}}", "sticky.cookie.path: `/; Secure` cannot be part of a cookie"),
            (
                "{cookie: {name: 'a b'}}",
                "~sticky.cookie.name: `a b` cannot be the name of a cookie; `a_b` is used",
            ),
        ] {
            assert_eq!(load_balancer_problems(&format!("{{servers: [], sticky: {sticky}}}")), [expected]);
        }
    }
}
