//! `middlewares` of services.

use lb_testkit::{Origin, PATIENCE, Script, eventually};

use crate::harness::{Protocol, Vigie, origin};

fn dynamic(a: &Origin, average: u32) -> String {
    format!(
        "
http:
  services:
    a: {{loadBalancer: {{servers: [{{url: '{}'}}]}}, middlewares: [service, add]}}
    limited: {{loadBalancer: {{servers: [{{url: '{}'}}]}}, middlewares: [limit]}}
    plain: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
    both: {{weighted: {{services: [{{name: plain}}]}}, middlewares: [add, denied]}}
    chained: {{failover: {{service: plain, fallback: plain, errors: {{status: '500'}}}}, middlewares: [chain]}}
    none: {{loadBalancer: {{servers: []}}, middlewares: [pages]}}
  middlewares:
    router: {{headers: {{customRequestHeaders: {{X-Order: r}}, customResponseHeaders: {{X-Order: r, X-Router: r}}}}}}
    service: {{headers: {{customRequestHeaders: {{X-Order: s}}, customResponseHeaders: {{X-Order: s, X-Service: s}}}}}}
    add: {{addPrefix: {{prefix: /added}}}}
    denied: {{ipAllowList: {{sourceRange: [192.0.2.1]}}}}
    chain: {{chain: {{middlewares: [service, add]}}}}
    pages: {{errors: {{status: '503', service: plain, query: /page}}}}
    limit: {{rateLimit: {{average: {average}, period: 1h, burst: 1}}}}
  routers:
    a: {{rule: 'Path(`/a`)', service: a, middlewares: [router]}}
    one: {{rule: 'Path(`/one`)', service: limited}}
    two: {{rule: 'Path(`/two`)', service: limited, middlewares: [router]}}
    both: {{rule: 'Path(`/both`)', service: both, middlewares: [router]}}
    chained: {{rule: 'Path(`/chained`)', service: chained, middlewares: [router]}}
    none: {{rule: 'Path(`/none`)', service: none, middlewares: [router]}}
    root: {{rule: 'Path(`/root`)', middlewares: [router]}}
    child: {{rule: 'Path(`/root`)', parentRefs: [root], service: a}}
",
        a.url(),
        a.url(),
        a.url()
    )
}

#[tokio::test]
async fn they_come_between_those_of_the_router_and_the_service() {
    let a = Origin::start("a").await;
    let vigie = Vigie::start(&dynamic(&a, 1)).await;
    for protocol in Protocol::BOTH {
        for (path, status, target, order) in [
            ("/a", 200, "/added/a", Some("s")),
            ("/chained", 200, "/added/chained", Some("s")),
            ("/root", 200, "/added/root", Some("s")),
            ("/none", 503, "/page", Some("r")),
            ("/both", 403, "", None),
        ] {
            let before = a.requests();
            let response = protocol.get(vigie.web(), path).await;
            assert_eq!(response.status, status, "{protocol:?} {path}");
            // The router's see the answer last.
            assert_eq!((response.get("x-order"), response.get("x-router")), (Some("r"), Some("r")));
            assert_eq!(response.get("x-service").is_some(), order == Some("s"), "{path}");
            assert_eq!(a.requests() > before, order.is_some(), "{path}");
            if order.is_some() {
                assert_eq!(a.last().target, target);
            }
            if status == 200 {
                assert_eq!(a.last().fields.get("x-order"), order, "{path}");
                assert_eq!(origin(&response), "a");
            }
        }
    }
    let shown = vigie.json("/api/http/services/a@file").await;
    assert_eq!(shown["middlewares"], serde_json::json!(["service", "add"]));
}

#[tokio::test]
async fn all_routers_to_a_service_share_their_state_and_a_reload_keeps_it() {
    let a = Origin::start("a").await;
    let text = dynamic(&a, 1);
    let vigie = Vigie::start(&text).await;
    assert_eq!(vigie.get("/one").await.status, 200);
    assert_eq!(vigie.get("/two").await.status, 429, "the same bucket");
    vigie.write(&text.replace("Path(`/a`)", "Path(`/b`)"));
    assert!(eventually(PATIENCE, async || vigie.get("/b").await.status == 200).await);
    assert_eq!((vigie.get("/one").await.status, vigie.get("/two").await.status), (429, 429));
    vigie.write(&dynamic(&a, 3_600_000));
    assert!(eventually(PATIENCE, async || vigie.get("/two").await.status == 200).await);
}

/// As parts of others: each level has its own, and what one of them does is undone for its neighbour.
#[tokio::test]
async fn parts_of_other_services_have_their_own() {
    let (a, b) = tokio::join!(Origin::start("a"), Origin::start("b"));
    a.on("/in/in/fails", Script::status(500));
    b.on("/page/503", Script::text("page"));
    let text = format!(
        "
http:
  services:
    a: {{loadBalancer: {{servers: [{{url: '{}'}}]}}, middlewares: [add]}}
    b: {{loadBalancer: {{servers: [{{url: '{}'}}]}}, middlewares: [mark]}}
    outer: {{weighted: {{services: [{{name: inner}}], sticky: {{cookie: {{name: outer}}}}}}}}
    inner: {{weighted: {{services: [{{name: a}}], sticky: {{cookie: {{name: inner}}}}}}, middlewares: [add, mark]}}
    second: {{failover: {{service: inner, fallback: b, errors: {{status: '500'}}}}}}
    copied: {{mirroring: {{service: a, mirrors: [{{name: b, percent: 100}}]}}}}
    away: {{weighted: {{services: [{{name: moved}}], sticky: {{cookie: {{name: away}}}}}}}}
    moved: {{loadBalancer: {{servers: [{{url: '{}'}}]}}, middlewares: [move]}}
    whole: {{weighted: {{services: [{{name: kept}}], sticky: {{cookie: {{name: whole}}}}}}}}
    kept: {{loadBalancer: {{servers: [{{url: '{}'}}]}}, middlewares: [keep]}}
    none: {{loadBalancer: {{servers: []}}}}
  middlewares:
    add: {{addPrefix: {{prefix: /in}}}}
    mark: {{headers: {{customRequestHeaders: {{X-Mark: m, X-Forwarded-For: ''}}, customResponseHeaders: {{X-Mark: m}}}}}}
    move: {{redirectRegex: {{regex: '.*', replacement: '/there'}}}}
    keep: {{buffering: {{maxRequestBodyBytes: 10}}}}
    pages: {{errors: {{status: '503', service: b, query: '/page/{{status}}'}}}}
  routers:
    outer: {{rule: 'Path(`/outer`)', service: outer}}
    second: {{rule: 'Path(`/fails`)', service: second}}
    copied: {{rule: 'Path(`/copied`)', service: copied}}
    away: {{rule: 'Path(`/away`)', service: away}}
    whole: {{rule: 'Path(`/whole`)', service: whole}}
    none: {{rule: 'Path(`/none`)', service: none, middlewares: [pages]}}
",
        a.url(),
        b.url(),
        a.url(),
        a.url()
    );
    let vigie = Vigie::start(&text).await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        let outer = connection.request("POST", "/outer", &[], Some(b"body")).await;
        assert_eq!((outer.status, outer.get("x-mark")), (200, Some("m")), "{protocol:?}");
        let seen = a.last();
        assert_eq!(
            (&*seen.target, &*seen.body, seen.get("x-mark")),
            ("/in/in/outer", &b"body"[..], Some("m"))
        );
        assert_eq!(seen.get("x-forwarded-for"), None);
        let cookies = outer.fields.all("set-cookie");
        assert!(cookies.len() == 2 && cookies.iter().all(|line| line.contains("er=")), "{cookies:?}");

        let second = connection.request("PUT", "/fails", &[], Some(b"body")).await;
        assert_eq!(
            (second.status, origin(&second), second.fields.all("set-cookie").len()),
            (200, "b".into(), 0)
        );
        let (first, second) = (a.last(), b.last());
        assert_eq!((&*first.target, &*first.body), ("/in/in/fails", &b"body"[..]));
        assert_eq!(
            (&*second.target, &*second.body, second.get("x-mark")),
            ("/fails", &b"body"[..], Some("m"))
        );

        let before = b.requests();
        let copied = connection.request("GET", "/copied", &[], None).await;
        assert_eq!((copied.status, copied.get("x-mark")), (200, None));
        assert!(eventually(PATIENCE, async || b.requests() > before).await);
        assert_eq!((&*b.last().target, b.last().get("x-mark")), ("/copied", Some("m")));

        // Whoever has answered: the client comes back to the same one.
        let away = connection.request("GET", "/away", &[], None).await;
        assert_eq!((away.status, away.get("location")), (302, Some("/there")));
        assert!(away.get("set-cookie").unwrap().starts_with("away="));
        let whole = connection.request("POST", "/whole", &[], Some(b"body")).await;
        assert!(whole.status == 200 && whole.get("set-cookie").unwrap().starts_with("whole="));
        assert_eq!(connection.request("POST", "/whole", &[], Some(b"too long for it")).await.status, 413);

        let page = connection.request("GET", "/none", &[], None).await;
        assert_eq!((page.status, page.text(), page.get("x-mark")), (503, "page", Some("m")));
        assert_eq!(b.last().get("x-mark"), Some("m"));
    }
    let labels = [("service", "outer@file"), ("code", "200")];
    vigie.until_metric("traefik_service_requests_total", &labels, 2.0).await;
    let labels = [("service", "a@file"), ("code", "200")];
    vigie.until_metric("traefik_service_requests_total", &labels, 4.0).await;
}
