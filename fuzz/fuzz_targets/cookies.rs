//! Sticky cookies: what clients send, and what we give out. A line with a configured name, one with a path,
//! one with a domain, then lines of `Cookie`.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;
use std::time::Instant;

use lb_core::balance::{CookieMatch, MemberSpec, Pick, Service, Settings};
use lb_core::sticky::{SameSite, SetCookie, cookie_value, find_cookie, legacy_values, sanitize_name};
use libfuzzer_sys::fuzz_target;

const URLS: [&str; 3] = ["http://10.0.0.1:8080", "http://10.0.0.2:8080", "http://[::1]:80/base"];

static SERVICE: LazyLock<Service> = LazyLock::new(|| {
    // The last one has no weight: no cookie may lead to it.
    let members: Vec<_> =
        URLS.iter().zip([2, 1, 0]).map(|(url, weight)| MemberSpec { url: (*url).into(), weight }).collect();
    Service::new("app@file", Settings { sticky: true, ..Settings::default() }, &members, None, Instant::now())
});

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.splitn(4, |byte| *byte == b'\n');
    let mut text = || String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let (name, path, domain) = (sanitize_name(&text()), text(), text());
    let received = lines.next().unwrap_or_default();
    assert_eq!(sanitize_name(&name), name);
    assert!(name.is_empty() || lb_http1::is_token(&name));

    for line in received.split(|byte| *byte == b'\n') {
        let Some(value) = find_cookie(line, &name) else { continue };
        // Safe to log and to compare: no byte of it can end a field, a cookie or a string.
        assert!(
            value.bytes().all(|byte| matches!(byte, b' '..=b'~') && !b"\";\\".contains(&byte)),
            "{value:?}"
        );
        // What stands before it under the same name would have won; alone it is found again.
        assert_eq!(
            find_cookie(format!("{name}={value}").trim().as_bytes(), &name).map(str::trim),
            Some(value.trim())
        );
        let pick =
            Pick { client: IpAddr::V4(Ipv4Addr::LOCALHOST), sticky: Some(value), random: 7, tried: &[] };
        let picked = SERVICE.pick(&pick).expect("two servers are eligible");
        let url = picked.server().url();
        assert_ne!(url, URLS[2], "a server without weight");
        match picked.by_cookie() {
            CookieMatch::Current => assert_eq!(value, cookie_value(url)),
            CookieMatch::Legacy => assert!(legacy_values(url).iter().any(|legacy| legacy == value)),
            CookieMatch::None => {
                for url in &URLS[..2] {
                    assert!(
                        value != cookie_value(url)
                            && !legacy_values(url).iter().any(|legacy| legacy == value)
                    );
                }
            }
        }
    }

    if name.is_empty() {
        return;
    }
    let flags = received.first().copied().unwrap_or_default();
    let cookie = SetCookie {
        name: name.clone(),
        path: path.clone(),
        domain: Some(domain),
        max_age: (flags & 1 != 0).then_some(u64::MAX),
        http_only: flags & 2 != 0,
        secure: flags & 4 != 0,
        same_site: [None, Some(SameSite::None), Some(SameSite::Lax), Some(SameSite::Strict)]
            [usize::from(flags >> 6)],
    };
    let given = cookie.header_value(&cookie_value(URLS[0]));
    // One field, the cookie first, and no attribute that was not asked for.
    assert!(lb_http1::is_field_value(given.as_bytes()), "{given:?}");
    assert_eq!(find_cookie(given.as_bytes(), &name), Some(cookie_value(URLS[0]).as_str()));
    let mut attributes =
        given.split(';').skip(1).map(|attribute| attribute.trim().split('=').next().unwrap_or_default());
    let mut expected = vec![];
    if given.contains("; Path=") {
        expected.push("Path");
    }
    if given.contains("; Domain=") {
        expected.push("Domain");
    }
    expected.extend(
        [(flags & 1 != 0, "Max-Age"), (flags & 2 != 0, "HttpOnly"), (flags & 4 != 0, "Secure")]
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, name)| *name),
    );
    expected.extend(cookie.same_site.map(|_| "SameSite"));
    assert!(attributes.by_ref().eq(expected), "{given:?}");
});
