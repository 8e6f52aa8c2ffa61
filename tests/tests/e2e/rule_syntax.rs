//! Rules in the language of Traefik v2: of one router, and of all that do not say.

use lb_testkit::Origin;
use serde_json::Value;

use crate::harness::{Protocol, STATIC, Vigie, origin};

fn dynamic(old: &Origin, new: &Origin, syntax: &str) -> String {
    format!(
        "
http:
  routers:
    old:
      rule: 'Host(`a.test`, `b.test`) && (Path(`/items/{{id:[0-9]+}}`, `/all`) || Query(`item=`))'
      service: old
      {syntax}
    old-too: {{rule: 'HostRegexp(`{{sub}}.c.test`) && Headers(`X-A`, `1`, `X-B`, `2`)', service: old, {syntax}}}
    new: {{rule: 'HostRegexp(`^[ab].test$`) && PathPrefix(`/new`)', service: new, ruleSyntax: v3}}
  services:
    old: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
    new: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
",
        old.url(),
        new.url()
    )
}

async fn who(vigie: &Vigie, protocol: Protocol, host: &str, path: &str, fields: &[(&str, &str)]) -> String {
    let response = protocol.connect(vigie.web()).await.ask("GET", host, path, fields, None).await.unwrap();
    if response.status == 404 { "nobody".to_owned() } else { origin(&response) }
}

async fn routed(vigie: &Vigie) {
    for protocol in Protocol::BOTH {
        for (host, path, fields, expected) in [
            ("a.test", "/items/12", &[][..], "old"),
            ("B.test", "/all", &[], "old"),
            ("a.test", "/items/x", &[], "nobody"),
            ("a.test", "/items/1/2", &[], "nobody"),
            ("a.test", "/x?item", &[], "old"),
            ("c.test", "/all", &[], "nobody"),
            ("x.c.test", "/", &[("x-a", "1"), ("x-b", "2")], "old"),
            ("x.c.test", "/", &[("x-a", "1")], "nobody"),
            ("y.x.c.test", "/", &[("x-a", "1"), ("x-b", "2")], "nobody"),
            ("a.test", "/new", &[], "new"),
        ] {
            let found = who(vigie, protocol, host, path, fields).await;
            assert_eq!(found, expected, "{protocol:?} {host}{path} {fields:?}");
        }
    }
}

#[tokio::test]
async fn a_router_may_be_written_in_the_language_of_v2() {
    let (old, new) = tokio::join!(Origin::start("old"), Origin::start("new"));
    let vigie = Vigie::start(&dynamic(&old, &new, "ruleSyntax: v2")).await;
    routed(&vigie).await;
    let router = vigie.json("/api/http/routers/old@file").await;
    assert_eq!((&router["ruleSyntax"], &router["priority"]), (&"v2".into(), &Value::from(82)));
    vigie.write(&dynamic(&old, &new, "ruleSyntax: v3"));
    vigie.until_said("http.routers.old.rule: `Host` takes 1 value, not 2").await;
}

#[tokio::test]
async fn all_of_them_may_be_and_each_is_a_router_on_each_entry_point() {
    let (old, new) = tokio::join!(Origin::start("old"), Origin::start("new"));
    let text = STATIC
        .replace("core: {workers: 2}", "core: {workers: 2, defaultRuleSyntax: v2}")
        .replace("  traefik:", "  other: {address: '127.0.0.1:0'}\n  traefik:");
    let vigie = Vigie::with(&text, &dynamic(&old, &new, "priority: 0")).await;
    routed(&vigie).await;
    let routers = vigie.json("/api/http/routers?search=@file").await;
    let shown = routers.as_array().unwrap().iter().map(|router| {
        let text = |key: &str| router[key].as_str().unwrap_or_default().to_owned();
        format!("{} {}", text("name"), text("ruleSyntax"))
    });
    // As with Traefik, where the section makes a copy for each entry point.
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [
            "other-new@file v3",
            "other-old-too@file v2",
            "other-old@file v2",
            "web-new@file v3",
            "web-old-too@file v2",
            "web-old@file v2"
        ]
    );
}
