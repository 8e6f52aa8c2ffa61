//! `middlewares` of services.

use lb_testkit::{Origin, PATIENCE, eventually};

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
