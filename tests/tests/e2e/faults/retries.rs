//! Second tries: within their budget, and never on the same server while another is left.

use std::time::Duration;

use lb_testkit::{Failure, Load, Origin, PATIENCE, Script, eventually};

use crate::harness::{HOST, Protocol, STATIC, Vigie, app, app_with};

const SERVICE: [(&str, &str); 1] = [("service", "app@file")];

/// [`app_with`] behind a middleware `again`.
fn behind(retry: &str, balancer: &str, urls: &[String]) -> String {
    let app = app_with("middlewares: [again]", balancer, urls);
    format!("{app}  middlewares:\n    again: {{retry: {retry}}}\n")
}

/// Takes connections, so that it is asked again and again, and answers nothing.
async fn broken() -> Origin {
    Origin::with("broken", |_| Script::no_answer()).await
}

/// Nothing probes and nothing judges, and yet a server that refuses connections costs next to no second tries:
/// it is passed over, but for one request a second.
#[tokio::test]
async fn a_server_that_refuses_is_passed_over() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let mut gone = Origin::start("gone").await;
    let budget = "retryBudget: {percent: 0, minRetriesPerSecond: 10}";
    let dynamic = app(budget, &[a.url(), gone.url(), b.url()]);
    for h2 in [false, true] {
        gone.stop().await;
        let vigie = Vigie::start(&dynamic).await;
        let load = Load::new(vigie.web(), HOST).connections(8).requests(3000);
        let report = if h2 { load.h2().run().await } else { load.run().await };
        report.assert_flawless();
        let retries = vigie.metrics().await.value("lb_retries_total", &SERVICE).unwrap();
        assert!((1.0..=100.0).contains(&retries), "{retries} retries of 3000 requests");
        gone.restart().await;
        let before = gone.requests();
        let asked = eventually(Duration::from_secs(5), async || {
            Protocol::Http1.get(vigie.web(), "/").await;
            gone.requests() > before + 2
        });
        assert!(asked.await, "it is asked again soon after it is back");
    }
}

/// Two of three servers fail, and nothing takes them out: most requests fail, some twice. Retries stay
/// within a fifth of the requests, and what they do not save reaches the client as it is.
#[tokio::test]
async fn a_storm_stays_within_the_budget() {
    let (good, bad, worse) = (Origin::start("good").await, broken().await, broken().await);
    let budget = "retryBudget: {percent: 20, minRetriesPerSecond: 0}";
    let static_text = format!("{STATIC}log: {{level: DEBUG}}\n");
    for h2 in [false, true] {
        let vigie = Vigie::with(&static_text, &app(budget, &[bad.url(), good.url(), worse.url()])).await;
        let load = Load::new(vigie.web(), HOST).connections(8).requests(1000);
        let report = if h2 { load.h2().run().await } else { load.run().await };
        let metrics = vigie.metrics().await;
        let [retries, refused] = ["lb_retries_total", "lb_retries_refused_total"]
            .map(|name| metrics.value(name, &SERVICE).unwrap());
        // All of it is used: there is always somebody who would like to retry.
        assert!((180.0..=200.0).contains(&retries), "{retries} retries of 1000 requests");
        let failed = report.failures[&Failure::Status(502)];
        assert_eq!((report.failed(), report.ok + failed), (failed, 1000), "{:?}", report.examples);
        assert_eq!(refused, failed as f64, "each failed request was refused a retry");
        let said = async || vigie.words().matches("request is tried again").count() == retries as usize;
        assert!(eventually(PATIENCE, said).await, "each retry is logged");
        for line in ["the retry budget is used up", "server failed a request"] {
            let told = vigie.words().matches(line).count();
            assert!((1..=4).contains(&told), "said now and then, not {told} times: {line}");
        }
    }
}

/// Each one would cost a connection otherwise, and leave a port behind that nobody can use for a minute.
#[tokio::test]
async fn an_answer_that_nobody_gets_leaves_its_connection() {
    let busy = Origin::with("busy", |_| Script::answer(503, &[], "busy")).await;
    let app = behind("{attempts: 3, status: ['503']}", "", &[busy.url()]);
    let again = "    again: {buffering: {retryExpression: 'ResponseCode() == 503 && Attempts() < 3'}}";
    for dynamic in [app.clone(), app.replace("    again: {retry: {attempts: 3, status: ['503']}}", again)] {
        let (requests, connections) = (busy.requests(), busy.connections());
        let vigie = Vigie::start(&dynamic).await;
        let mut client = Protocol::Http1.connect(vigie.web()).await;
        for _ in 0..3 {
            assert_eq!(client.request("GET", "/", &[], None).await.status, 503);
        }
        assert_eq!((busy.requests() - requests, busy.connections() - connections), (9, 1), "{dynamic}");
    }
}

/// Ten retries are all there is; a reload brings no new ones.
#[tokio::test]
async fn the_budget_survives_a_reload() {
    let (good, bad) = (Origin::start("good").await, broken().await);
    let servers = [bad.url(), good.url()];
    let budget = "retryBudget: {percent: 0, minRetriesPerSecond: 1}";
    let vigie = Vigie::start(&app(budget, &servers)).await;
    let retries = async || {
        for n in 0..24 {
            Protocol::BOTH[n % 2].get(vigie.web(), "/").await;
        }
        vigie.metrics().await.value("lb_retries_total", &SERVICE)
    };
    assert_eq!(retries().await, Some(10.0));
    vigie.write(&app(&format!("{budget}\npassHostHeader: false"), &servers));
    vigie.until_metric("traefik_config_reloads_total", &[], 2.0).await;
    assert_eq!(retries().await, Some(10.0));
}

/// The middleware's tries and those without it share one budget.
#[tokio::test]
async fn the_middleware_has_no_budget_of_its_own() {
    let ill = Origin::with("ill", |_| Script::status(503)).await;
    let bad = broken().await;
    let budget = "retryBudget: {percent: 0, minRetriesPerSecond: 1}";
    let retry = "{attempts: 4, status: ['503']}";
    let vigie = Vigie::start(&behind(retry, budget, &[ill.url(), bad.url()])).await;
    for n in 0..20 {
        let status = Protocol::BOTH[n % 2].get(vigie.web(), "/").await.status;
        assert!(status == 503 || status == 502, "{status}");
    }
    let metrics = vigie.metrics().await;
    assert_eq!(metrics.value("lb_retries_total", &SERVICE), Some(10.0));
    // Twenty first tries and ten others: what reached `ill` and what `bad` left unanswered.
    let refused = metrics.value("lb_upstream_errors_total", &SERVICE).unwrap();
    assert_eq!(ill.requests() as f64 + refused, 30.0);
}

/// By network error and by status, whatever the strategy and whatever the client's cookie says.
#[tokio::test]
async fn no_server_is_asked_twice_while_another_is_left() {
    let ill = |_: &_| Script::status(503);
    let origins = [Origin::with("a", ill).await, Origin::with("b", ill).await, Origin::with("c", ill).await];
    let urls: Vec<_> = origins.iter().map(Origin::url).collect();
    let counts = || origins.each_ref().map(Origin::requests);
    let faults: [fn() -> Script; 2] =
        [|| Script::status(503), || Script::raw("garbage\r\n\r\n").then_close()];
    for strategy in ["wrr", "leastConn", "p2c", "hrw", "leasttime"] {
        for attempts in [2, 6] {
            let retry = format!("{{attempts: {attempts}, status: ['503']}}");
            let balancer = format!(
                "strategy: {strategy}\nsticky: {{cookie: {{name: c}}}}\nretryBudget: {{percent: 100, minRetriesPerSecond: 1000}}"
            );
            let vigie = Vigie::start(&behind(&retry, &balancer, &urls)).await;
            for (protocol, script) in Protocol::BOTH.into_iter().flat_map(|p| faults.map(|fault| (p, fault)))
            {
                origins.iter().for_each(|origin| origin.on("/", script()));
                let before = counts();
                let mut cookie = String::new();
                for _ in 0..4 {
                    let asked = counts();
                    let mut connection = protocol.connect(vigie.web()).await;
                    let response = connection.request("GET", "/", &[("cookie", &cookie)], None).await;
                    if let Some(set) = response.get("set-cookie") {
                        cookie = set.split(';').next().unwrap().to_owned();
                    }
                    let each: Vec<_> = counts().iter().zip(asked).map(|(now, then)| now - then).collect();
                    let (least, most) = (each.iter().min().unwrap(), each.iter().max().unwrap());
                    assert!(most - least <= 1, "{strategy}, {attempts} attempts, {protocol:?}: {each:?}");
                }
                let all: usize = counts().iter().zip(before).map(|(now, then)| now - then).sum();
                assert_eq!(all, 4 * attempts, "{strategy}, {attempts} attempts, {protocol:?}");
            }
        }
    }
}
