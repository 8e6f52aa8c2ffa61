//! The `digestAuth` middleware.

use std::collections::BTreeMap;

use super::auth::{header_field, lines, realm, users_file};
use crate::decode::{Block, Field};
use crate::dynamic::{DigestAuth, Middleware};
use crate::problem::quoted;

const HINT: &str = "write `user:realm:hash`, as `htdigest` does";

/// `user:realm` and the hash.
type User<'t> = (&'t str, &'t str);

pub(super) fn digest_auth(block: &Block<'_>) -> Option<Middleware> {
    let realm = block.take("realm").and_then(|field| realm(&field)).unwrap_or_else(|| "traefik".to_owned());
    let mut users = BTreeMap::new();
    let mut enter = |line: &str| {
        let (user, hash) = user(line)?;
        users.insert(user.to_owned(), hash.to_owned());
        Ok(never_matches((user, hash), &realm))
    };
    if let Some(text) = block.take("usersFile").and_then(|field| users_file(&field)) {
        lines(&text, HINT, &mut enter);
    }
    let listed = block.take("users");
    for text in listed.iter().flat_map(Field::texts) {
        match enter(text.value) {
            Ok(None) => {}
            Ok(Some(warning)) => text.warn(warning, None),
            Err(reason) => text.error(reason, Some(HINT.to_owned())),
        }
    }
    if users.is_empty() && !block.report.is_current_broken() {
        block.warn(
            "there are no users: nobody is let in".to_owned(),
            Some("list some under `users`, or name a `usersFile`".to_owned()),
        );
    }
    let header_field = block.take("headerField").and_then(|field| header_field(&field));
    let remove_header = block.take("removeHeader").and_then(|field| field.boolean()).unwrap_or(false);
    Some(Middleware::DigestAuth(DigestAuth { users, realm, header_field, remove_header }))
}

/// Neither the hash nor what stands in its place is ever repeated in a message.
fn user(line: &str) -> Result<User<'_>, &'static str> {
    const PARTS: &str = "the user is not three parts with `:` between them";
    let (user, hash) = line.rsplit_once(':').ok_or(PARTS)?;
    match user.split_once(':') {
        Some(("", _)) => Err("the user has no name"),
        Some((_, realm)) if !realm.contains(':') => Ok((user, hash)),
        _ => Err(PARTS),
    }
}

/// Why no password can match.
fn never_matches((user, hash): User<'_>, realm: &str) -> Option<String> {
    let (name, own) = user.split_once(':').unwrap_or((user, ""));
    let reason = if own != realm {
        format!("its realm is {}, that of the middleware {}", quoted(own), quoted(realm))
    } else if hash.len() != 32 || !hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        "its hash is not 32 hexadecimal digits in lower case".to_owned()
    } else {
        return None;
    };
    Some(format!("{} can never log in: {reason}", quoted(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{middleware, middleware_problems};

    const HASH: &str = "a2688e031edb4be6a3797f3882655c05";

    #[test]
    fn options_are_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("# staff\n\na:traefik:{HASH}\n b:traefik:{HASH} \n")).unwrap();
        let auth = |text: &str| match middleware(&format!("{{digestAuth: {text}}}")) {
            Ok(Middleware::DigestAuth(auth)) => auth,
            other => panic!("{other:?}"),
        };
        let read = auth(&format!(
            "{{usersFile: '{}', users: ['b:traefik:{}'], headerField: X-User, removeHeader: true}}",
            file.path().display(),
            HASH.replace('a', "0")
        ));
        let users = read.users.iter().map(|(user, hash)| (user.as_str(), hash.clone())).collect::<Vec<_>>();
        assert_eq!(users, [("a:traefik", HASH.to_owned()), ("b:traefik", HASH.replace('a', "0"))]);
        assert_eq!((read.realm.as_str(), read.header_field.as_deref()), ("traefik", Some("X-User")));
        assert!(read.remove_header);
        assert_eq!(auth(&format!("{{realm: staff, users: 'c:staff:{HASH}'}}")).realm, "staff");
    }

    #[test]
    fn what_cannot_work_is_told() {
        for (text, expected) in [
            ("{users: ['a:b']}", "users[0]: the user is not three parts with `:` between them".to_owned()),
            (
                "{users: ['a:b:c:d']}",
                "users[0]: the user is not three parts with `:` between them".to_owned(),
            ),
            ("{users: [':traefik:x']}", "users[0]: the user has no name".to_owned()),
            ("{realm: 'a\"b'}", "realm: `a\"b` cannot be a realm".to_owned()),
            (
                "{users: ['a:traefik:secret']}",
                "~users[0]: `a` can never log in: its hash is not 32 hexadecimal digits in lower case"
                    .to_owned(),
            ),
        ] {
            let told = middleware_problems(&format!("{{digestAuth: {text}}}"));
            assert_eq!(
                told,
                [expected.replacen("~", "~digestAuth.", 1)].map(|line| if line.starts_with('~') {
                    line
                } else {
                    format!("digestAuth.{line}")
                }),
                "{text}"
            );
        }
        let other =
            middleware_problems(&format!("{{digestAuth: {{realm: x, users: ['a:traefik:{HASH}']}}}}"));
        let reason = "its realm is `traefik`, that of the middleware `x`";
        assert_eq!(other, [format!("~digestAuth.users[0]: `a` can never log in: {reason}")]);
        let nobody = middleware_problems("{digestAuth: {realm: x}}");
        assert_eq!(nobody, ["~digestAuth: there are no users: nobody is let in"]);
    }
}
