//! `providers.rest`.

use lb_testkit::{Client, Files, Response};

use super::{start, until_routers};
use crate::harness::Vigie;

fn router(name: &str) -> String {
    format!(
        r#"{{"http": {{"routers": {{"{name}": {{"rule": "Path(`/{name}`)", "service": "noop@internal"}}}}}}}}"#
    )
}

async fn put(vigie: &Vigie, path: &str, body: &str) -> Response {
    send(vigie.admin(), "PUT", path, body).await
}

async fn send(address: std::net::SocketAddr, method: &str, path: &str, body: &str) -> Response {
    let mut client = Client::connect(address).await.expect("it listens");
    client.request(method, "localhost", path, &[], Some(body.as_bytes())).await.expect("an answer")
}

const REST: &str = "/api/providers/rest";

#[tokio::test]
async fn what_is_sent_is_in_force_and_mistakes_are_told() {
    let vigie = start("{rest: {insecure: true}}").await;
    assert_eq!(vigie.json("/ready").await["status"], "ready");
    let answer = put(&vigie, REST, &router("a")).await;
    assert_eq!((answer.status, answer.get("Content-Type")), (200, Some("application/json; charset=UTF-8")));
    assert_eq!(answer.json()["http"]["routers"]["a"]["service"], "noop@internal");
    until_routers(&vigie, "rest", &["a"]).await;
    assert_eq!(vigie.get("/a").await.status, 418);
    // The last one is the whole of it.
    put(&vigie, REST, &router("b")).await;
    until_routers(&vigie, "rest", &["b"]).await;
    for (method, path, body, status, words) in [
        ("PUT", "/api/providers/web", "{}", 400, "Only 'rest' provider can be updated through the REST API"),
        ("PUT", REST, "{", 400, "PUT /api/providers/rest:1:1: this is no JSON"),
        ("PUT", REST, &router("c").replace("Path", "Pth"), 400, "http.routers.c.rule: "),
        ("PUT", REST, &router("c").replace("rule", "rul"), 400, "there is no key `rul` here"),
        ("PUT", "/api/providers/rest/x", "{}", 404, "404 page not found"),
        ("GET", REST, "", 405, ""),
        ("POST", REST, "{}", 405, ""),
    ] {
        let answer = send(vigie.admin(), method, path, body).await;
        assert_eq!(answer.status, status, "{method} {path} {body}");
        assert!(answer.text().contains(words), "{}", answer.text());
    }
    until_routers(&vigie, "rest", &["b"]).await;
    let long = format!("{{\"http\": {{\"routers\": {{}}}}{}}}", " ".repeat(200_000));
    assert_eq!(put(&vigie, REST, &long).await.status, 200);
    until_routers(&vigie, "rest", &[]).await;
    assert_eq!(vigie.json("/health").await["status"], "healthy");
}

#[tokio::test]
async fn without_insecure_a_router_leads_to_it() {
    let files = Files::new();
    // guest:hush
    let routes = "http: {routers: {in: {rule: 'PathPrefix(`/api/providers`)', service: rest@internal, middlewares: auth}}, \
                  middlewares: {auth: {basicAuth: {users: ['guest:{SHA}HyHjC/2o54DBcrn3W367/BjmyHk=']}}}}";
    files.write("dynamic.yml", routes);
    let vigie = super::over(files, "{rest: {}, file: {filename: '{dir}/dynamic.yml'}}").await;
    // That entry point has the API only, which knows no such place.
    assert_eq!(put(&vigie, REST, &router("a")).await.status, 404);
    assert_eq!(send(vigie.web(), "PUT", REST, &router("a")).await.status, 401);
    let head = format!(
        "PUT {REST} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic Z3Vlc3Q6aHVzaA==\r\nContent-Length: {}\r\n\r\n",
        router("a").len()
    );
    let mut client = Client::connect(vigie.web()).await.unwrap();
    client.send(head + &router("a")).await.unwrap();
    assert_eq!(client.response("PUT").await.unwrap().status, 200);
    until_routers(&vigie, "rest", &["a"]).await;
}
