//! Middlewares that know the target by regular expressions, and `encodedCharacters`.

use lb_testkit::Origin;

use crate::harness::{HOST, Protocol, Vigie};
use crate::middlewares::behind;

#[tokio::test]
async fn an_address_is_redirected_by_search_and_replace() {
    let server = Origin::start("api").await;
    let redirect = r"redirect: {redirectRegex: {regex: '^http://([^/]+)/old/(?P<rest>.*)$', replacement: 'https://www.$1/new/${rest}#$$1 é', permanent: true}}";
    let vigie = Vigie::start(&behind("redirect", redirect, &[server.url()])).await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        for (method, status) in [("GET", 301), ("POST", 308)] {
            let response = connection.request(method, "/old/x%2Fy?a=b;c", &[], None).await;
            let location = format!("https://www.{HOST}/new/x%2Fy?a=b;c#$1%20%C3%A9");
            assert_eq!((response.status, response.get("location")), (status, Some(location.as_str())));
        }
        assert_eq!(connection.request("GET", "/new/x", &[], None).await.status, 200, "{protocol:?}");
    }
    assert_eq!(server.requests(), 2);
    let shown = &vigie.json("/api/http/middlewares/redirect@file").await["redirectRegex"];
    assert_eq!(shown["replacement"], "https://www.$1/new/${rest}#$$1 é");
    assert_eq!((&shown["permanent"], shown["regex"].is_string()), (&true.into(), true));
}

#[tokio::test]
async fn paths_are_rewritten_by_expressions() {
    let server = Origin::start("api").await;
    let vigie = Vigie::start(&behind(
        "strip, replace",
        r"
strip: {stripPrefixRegex: {regex: ['/tenants/[0-9]+', '^/[a-z]{2}$']}}
replace: {replacePathRegex: {regex: '^/users/([^/]*)/(.*)', replacement: '/v1/$2/${1}x'}}",
        &[server.url()],
    ))
    .await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        for (path, target, prefix, replaced) in [
            ("/tenants/17/users/a%20b/c?q", "/v1/c/a%20bx?q", Some("/tenants/17"), Some("/users/a%20b/c")),
            ("/tenants/17/a", "/a", Some("/tenants/17"), None),
            ("/fr", "/", Some("/fr"), None),
            ("/x/tenants/17", "/x/tenants/17", None, None),
        ] {
            let response = connection.request("GET", path, &[], None).await;
            assert_eq!(response.status, 200, "{protocol:?} {path}");
            let seen = server.last();
            assert_eq!(seen.target, target, "{protocol:?}");
            assert_eq!((seen.get("x-forwarded-prefix"), seen.get("x-replaced-path")), (prefix, replaced));
        }
        // A part of the client's path must not open another one.
        let before = server.requests();
        let refused = connection.request("GET", "/users/a/?q", &[], None).await;
        assert_eq!((refused.status, refused.text()), (400, "Bad Request\n"), "{protocol:?}");
        assert_eq!(server.requests(), before);
    }
}

#[tokio::test]
async fn encoded_characters_are_denied_unless_allowed() {
    let server = Origin::start("api").await;
    let encoded = "encoded: {encodedCharacters: {allowEncodedSlash: true}}";
    let vigie = Vigie::start(&behind("encoded", encoded, &[server.url()])).await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        for (path, status) in [
            ("/a%2Fb", 200),
            ("/a%20b?%25", 200),
            ("/a%5cb", 400),
            ("/a%00", 400),
            ("/a%3B", 400),
            ("/a%25", 400),
            ("/a%3F", 400),
            ("/a%23", 400),
        ] {
            let response = connection.request("GET", path, &[], None).await;
            assert_eq!(response.status, status, "{protocol:?} {path}");
            assert!(status == 200 || response.body.is_empty());
        }
    }
}
