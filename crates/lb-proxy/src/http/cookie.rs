//! The sticky cookie of a service: as the core wants it, and on its way to the client.

use lb_config::dynamic::{SameSite, StickyCookie};
use lb_core::sticky::{self, SetCookie};
use lb_http1::Head;

/// Puts `cookies` before those that `answer` has: the outermost level comes first, those of the server last. A
/// client keeps the last of one name, which is the server's.
pub(crate) fn put_first(answer: &mut Head, cookies: impl Iterator<Item = String>) {
    let mut cookies = cookies.peekable();
    if cookies.peek().is_none() {
        return;
    }
    let others: Vec<Vec<u8>> = answer.get_all("set-cookie").map(<[u8]>::to_vec).collect();
    answer.remove("set-cookie");
    cookies.for_each(|cookie| answer.append("Set-Cookie", cookie.as_bytes()));
    others.iter().for_each(|cookie| answer.append("Set-Cookie", cookie));
}

pub(crate) fn set_cookie(cookie: &StickyCookie) -> SetCookie {
    SetCookie {
        name: cookie.name.clone(),
        path: cookie.path.clone(),
        domain: cookie.domain.clone(),
        max_age: cookie.max_age,
        http_only: cookie.http_only,
        secure: cookie.secure,
        same_site: cookie.same_site.map(|same_site| match same_site {
            SameSite::None => sticky::SameSite::None,
            SameSite::Lax => sticky::SameSite::Lax,
            SameSite::Strict => sticky::SameSite::Strict,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_of_levels_come_from_the_outside_in() {
        let mut answer = Head::new();
        answer.append("set-cookie", b"own=1");
        answer.append("X-A", b"b");
        answer.append("Set-Cookie", b"own=2");
        put_first(&mut answer, ["inner".to_owned()].into_iter());
        put_first(&mut answer, ["one".to_owned(), "two".to_owned()].into_iter());
        put_first(&mut answer, std::iter::empty());
        let cookies: Vec<&[u8]> = answer.get_all("set-cookie").collect();
        assert_eq!(cookies, [&b"one"[..], b"two", b"inner", b"own=1", b"own=2"]);
        assert_eq!(answer.get("x-a"), Some(&b"b"[..]));
    }
}
