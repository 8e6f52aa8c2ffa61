//! The `basicAuth` middleware.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::decode::{Block, Field, Text};
use crate::document::read_text;
use crate::dynamic::{BasicAuth, Middleware};
use crate::net::is_token;
use crate::problem::quoted;

pub(super) fn basic_auth(block: &Block<'_>) -> Option<Middleware> {
    let mut users = BTreeMap::new();
    if let Some(text) = block.take("usersFile").and_then(|field| users_file(&field)) {
        lines(&text, "write `user:hash`", |line| {
            let (name, hash) = user(line)?;
            users.insert(name.to_owned(), hash.to_owned());
            Ok(never_matches(hash).map(|reason| format!("{} can never log in: {reason}", quoted(name))))
        });
    }
    let listed = block.take("users");
    for text in listed.iter().flat_map(Field::texts) {
        match user(text.value) {
            Ok((name, hash)) => {
                if let Some(reason) = never_matches(hash) {
                    let hint = "make a line with `htpasswd -nB NAME`".to_owned();
                    text.warn(format!("{} can never log in: {reason}", quoted(name)), Some(hint));
                }
                users.insert(name.to_owned(), hash.to_owned());
            }
            Err(reason) => {
                text.error(reason, Some("write `user:hash`, as `htpasswd -nB NAME` prints it".to_owned()))
            }
        }
    }
    if users.is_empty() && !block.report.is_current_broken() {
        block.error(
            "there are no users".to_owned(),
            Some("list some under `users`, or name a `usersFile`".to_owned()),
        );
    }
    let realm = block.take("realm").and_then(|field| realm(&field));
    let header_field = block.take("headerField").and_then(|field| header_field(&field));
    let remove_header = block.take("removeHeader").and_then(|field| field.boolean()).unwrap_or(false);
    Some(Middleware::BasicAuth(BasicAuth {
        users,
        realm: realm.unwrap_or_else(|| "traefik".to_owned()),
        header_field,
        remove_header,
    }))
}

/// A `usersFile` that names a file.
pub(super) fn users_file<'a>(field: &Field<'a>) -> Option<Text<'a>> {
    field.text().filter(|text| !text.value.is_empty())
}

/// Has `read` each line of a file of users: one user per line; blank lines and those that begin with `#` do not count.
/// It says what to warn about, or why the line is none.
pub(super) fn lines(
    text: &Text<'_>,
    hint: &str,
    mut read: impl FnMut(&str) -> Result<Option<String>, &'static str>,
) {
    let path = Path::new(text.value);
    text.field.report.note_read(path);
    let content = match read_text(path) {
        Ok(content) => content,
        Err(problem) => {
            let hint = "the path is relative to the working directory".to_owned();
            return text.error(format!("{} {}", quoted(text.value), problem.message), Some(hint));
        }
    };
    for (line, number) in content.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match read(line) {
            Ok(None) => {}
            Ok(Some(warning)) => text.warn(format!("line {number}: {warning}"), None),
            Err(reason) => return text.error(format!("line {number}: {reason}"), Some(hint.to_owned())),
        }
    }
}

/// Name and hash. Neither the hash nor what stands in its place is ever repeated in a message.
fn user(line: &str) -> Result<(&str, &str), &'static str> {
    let (name, hash) = line.split_once(':').ok_or("the user has no `:` between name and hash")?;
    if hash.contains(':') {
        return Err("the user has more than one `:`");
    }
    if name.is_empty() {
        return Err("the user has no name");
    }
    Ok((name, hash))
}

/// Why no password can match, for the ways people get hashes wrong.
fn never_matches(hash: &str) -> Option<&'static str> {
    if hash.starts_with("$$") {
        return Some("every `$` is doubled, which only Docker Compose needs");
    }
    if ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|prefix| hash.starts_with(prefix)) {
        return hash.parse::<bcrypt::HashParts>().is_err().then_some("the bcrypt hash is damaged");
    }
    if let Some(digest) = hash.strip_prefix("{SHA}") {
        let valid = STANDARD.decode(digest).is_ok_and(|digest| digest.len() == 20);
        return (!valid).then_some("the SHA-1 hash is damaged");
    }
    if let Some(rest) = hash.strip_prefix("$apr1$").or_else(|| hash.strip_prefix("$1$")) {
        let valid = rest.split_once('$').is_some_and(|(salt, digest)| salt.is_ascii() && digest.len() == 22);
        return (!valid).then_some("the MD5 hash is damaged");
    }
    Some("this is no bcrypt, SHA-1 or MD5 hash")
}

pub(super) fn header_field(field: &Field<'_>) -> Option<String> {
    let name = field.string().filter(|name| !name.is_empty())?;
    if !is_token(&name) {
        field.error(format!("{} is not a header name", quoted(&name)), None);
    }
    Some(name)
}

pub(super) fn realm(field: &Field<'_>) -> Option<String> {
    let realm = field.string().filter(|realm| !realm.is_empty())?;
    // It is sent between quotes in every refusal.
    if realm.chars().any(|c| c.is_control() || matches!(c, '"' | '\\')) {
        field.error(
            format!("{} cannot be a realm", quoted(&realm)),
            Some("leave out quotes and backslashes".to_owned()),
        );
        return None;
    }
    Some(realm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_a_name_and_a_hash() {
        assert_eq!(user("a:b"), Ok(("a", "b")));
        for line in ["a", ":b", "a:b:c", ""] {
            assert!(user(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_user_that_cannot_be_read_is_told_once() {
        let told = crate::testing::middleware_problems("{basicAuth: {users: [':secret']}}");
        assert_eq!(told, ["basicAuth.users[0]: the user has no name"]);
        let told = crate::testing::middleware_problems("{basicAuth: {realm: staff}}");
        assert_eq!(told, ["basicAuth: there are no users"]);
    }

    #[test]
    fn hashes_that_never_match_are_told() {
        let bcrypt = "$2y$05$7f0TnFEcXKyLPjXQbMNxIuM1eqT1pTqhFoNqYnDPzJ6zOnvfJ2zPW";
        for (hash, matches) in [
            (bcrypt, true),
            (&bcrypt[..50], false),
            ("$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/", true),
            ("$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj", false),
            ("$1$1234567€$IgXLP6ewTrSuBkTrqE8wj/", false),
            ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", true),
            ("{SHA}abc", false),
            ("$$apr1$$H6uskkkW$$IgXLP6ewTrSuBkTrqE8wj/", false),
            ("secret", false),
        ] {
            assert_eq!(never_matches(hash).is_none(), matches, "{hash}");
        }
    }
}
