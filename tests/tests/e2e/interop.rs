//! Clients that others wrote: what they measure and print must be what ours see.

use std::process::Command;
use std::time::Duration;

use lb_testkit::{Origin, Script, VigieProcess};

use crate::harness::{STATIC_TLS, Vigie, app};

/// What a program of the test command's list prints.
async fn program(name: &str, arguments: &[&str]) -> String {
    let mut process = VigieProcess::spawn(Command::new(name).args(arguments))
        .unwrap_or_else(|error| panic!("{error:#}; tests/run installs it"));
    let status = process.ended(Duration::from_secs(30)).await.unwrap();
    let (stdout, stderr) = (process.stdout(), process.stderr());
    assert!(status.success(), "{name} {arguments:?}: {status}\n{stdout}{stderr}");
    stdout
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn curl_wrk_and_h2load_find_nothing_wrong() {
    let server = Origin::with("api", |_| Script::text("hello")).await;
    let vigie = Vigie::with(STATIC_TLS, &app("", &[server.url()])).await;
    let plain = format!("http://{}/", vigie.web());
    let tls = format!("https://{}/", vigie.websecure());

    let shown = "%{http_code} %{http_version} %{size_download}";
    for (options, url, expected) in [
        (&["--http1.1"][..], &plain, "hello200 1.1 5"),
        (&["--http1.0"], &plain, "hello200 1.1 5"),
        (&["--http2-prior-knowledge"], &plain, "hello200 2 5"),
        (&["--http2", "--insecure"], &tls, "hello200 2 5"),
        (&["--http1.1", "--insecure", "--tlsv1.2", "--tls-max", "1.2"], &tls, "hello200 1.1 5"),
        (&["--http1.1", "--data", "a=b", "--header", "Expect: 100-continue"], &plain, "hello200 1.1 5"),
    ] {
        let arguments =
            [options, &["--silent", "--show-error", "--noproxy", "*", "--write-out", shown, url]].concat();
        assert_eq!(program("curl", &arguments).await, expected, "{options:?}");
    }

    let wrk = program("wrk", &["--threads", "1", "--connections", "16", "--duration", "1s", &plain]).await;
    assert!(
        wrk.contains("Requests/sec") && !wrk.contains("Non-2xx") && !wrk.contains("Socket errors"),
        "{wrk}"
    );

    for url in [&plain, &tls] {
        let h2load = program("h2load", &["-n", "2000", "-c", "4", "-m", "16", url]).await;
        assert!(h2load.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{h2load}");
    }
}

/// The dashboard as a browser shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_dashboard_says_first_what_is_wrong() {
    let good = app("", &["http://127.0.0.1:9".to_owned()]);
    let vigie = Vigie::start(&good).await;
    let profile = tempfile::tempdir().unwrap();
    let show = async || {
        let profile = format!("--user-data-dir={}", profile.path().display());
        let page = format!("http://{}/dashboard/", vigie.admin());
        let arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", &profile];
        // Time runs on its own there, but not while the page waits for an answer.
        let dump = ["--virtual-time-budget=2000", "--dump-dom", &page];
        let shown = program("chromium", &[&arguments[..], &dump].concat()).await;
        let (top, rest) = shown.split_once("id=\"overview\"").expect("the dashboard");
        (top.split_once("<main>").unwrap().1.to_owned(), rest.to_owned())
    };
    let (top, rest) = show().await;
    assert!(!top.contains("<div"), "nothing is wrong: {top}");
    assert!(rest.contains(">1 router<"), "{rest}");

    vigie.write(
        &good
            .replace("service: app", "service: nope")
            .replace("  routers:\n", "  routers:\n    new: {rule: Path(`/new`), service: none}\n"),
    );
    vigie.until_metric("lb_config_quarantined_objects", &[("kind", "router")], 1.0).await;
    vigie.write("http: [");
    vigie.until_metric("lb_config_reload_failures_total", &[], 1.0).await;
    let (top, rest) = show().await;
    for words in [
        "provider file: the newest configuration was refused",
        "dynamic.yml:1:8: not valid YAML",
        "router new@file: disabled",
        "http.routers.new.service: no service is called `none`",
        "router app@file: in quarantine",
        "http.routers.app.service: no service is called `nope`",
    ] {
        assert!(top.contains(words), "{words} in: {top}");
    }
    assert!(rest.contains(">1 warning<"), "{rest}");
}
