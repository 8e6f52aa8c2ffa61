//! One broken object keeps its last good version, everything else of the same change comes into force, and API, log,
//! metric and health say so until it is mended.

use std::process::Command;
use std::time::Duration;

use lb_testkit::{
    Authority, Client, Failure, Files, Load, Origin, PATIENCE, Running, VigieProcess, eventually, get,
};
use serde_json::{Value, json};

use crate::harness::{HOST, STATIC, STATIC_TLS, Vigie, binary, origin};

const QUARANTINED: &str = "lb_config_quarantined_objects";
const DISABLED: &str = "lb_config_disabled_objects";
const USERS: &str = "someone:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";

/// Two services of one server each, a router for `/` and one for `/other`, behind a password. What is broken about it is
/// put in by replacement.
fn dynamic(app: &Origin, other: &Origin) -> String {
    format!(
        "http:
  routers:
    app:
      rule: PathPrefix(`/`)
      service: app
    guarded:
      rule: PathPrefix(`/guarded`)
      service: app
      middlewares: [chain]
    other:
      rule: PathPrefix(`/other`)
      service: other
  middlewares:
    chain: {{chain: {{middlewares: [auth]}}}}
    auth: {{basicAuth: {{users: ['{USERS}']}}}}
  services:
    app: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
    other: {{loadBalancer: {{servers: [{{url: '{}'}}]}}}}
",
        app.url(),
        other.url()
    )
}

async fn three() -> [Origin; 3] {
    [Origin::start("one").await, Origin::start("two").await, Origin::start("three").await]
}

/// Traffic that must notice nothing, and that never gets past the password.
fn load(vigie: &Vigie) -> Running {
    Load::new(vigie.web(), HOST).connections(2).pause(Duration::from_millis(1)).start()
}

async fn status(vigie: &Vigie, path: &str) -> u16 {
    vigie.get(path).await.status
}

/// Waits until `/other` is answered by this origin: the rest of a change is live.
async fn rest_is_live(vigie: &Vigie, name: &str) {
    let live = eventually(PATIENCE, async || origin(&vigie.get("/other").await) == name).await;
    assert!(live, "the rest of the change is live\n{}", vigie.words());
}

/// What `/health` lists soon after the change is live is as `wanted`.
async fn quarantined(vigie: &Vigie, wanted: impl Fn(&[Value]) -> bool) {
    let list = async || vigie.json("/health").await["configuration"]["quarantined"].clone();
    let told = eventually(PATIENCE, async || wanted(list().await.as_array().expect("a list"))).await;
    assert!(told, "{}", list().await);
}

fn without(text: &str, line_of: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with(line_of));
    lines.map(|line| format!("{line}\n")).collect()
}

#[tokio::test]
async fn a_broken_router_goes_on_as_it_was_and_the_rest_is_new() {
    let [one, two, three] = three().await;
    let good = dynamic(&one, &two);
    for (from, to, place, words) in [
        (
            "PathPrefix(`/`)",
            "PathPrefiks(`/`)",
            ":4:13: http.routers.app.rule: ",
            "did you mean `PathPrefix`?",
        ),
        (
            "service: app\n    guarded",
            "service: nobody\n    guarded",
            ":5:16: http.routers.app.service: ",
            "nobody",
        ),
        (
            "service: app\n    guarded",
            "service: app\n      middlewares: [missing]\n    guarded",
            ":6:21: http.routers.app.middlewares[0]: ",
            "missing",
        ),
        (
            "service: app\n    guarded",
            "service: app\n      entrypoint: web\n    guarded",
            ":6:7: http.routers.app.entrypoint: ",
            "entryPoints",
        ),
    ] {
        let vigie = Vigie::start(&good).await;
        let running = load(&vigie);
        let kind = [("kind", "router")];
        assert_eq!(vigie.metrics().await.value(QUARANTINED, &kind), Some(0.0));
        // One change: the router is broken, another service leads elsewhere, and there is a new router.
        let change = good.replace(from, to).replace(&two.url(), &three.url());
        assert!(change != good && change.contains(to));
        let new = "    new: {rule: PathPrefix(`/new`), service: other}\n  middlewares:\n    chain";
        let change = change.replace("  middlewares:\n    chain", new);
        vigie.write(&change);
        rest_is_live(&vigie, "three").await;
        assert_eq!(origin(&vigie.get("/new").await), "three");
        assert_eq!(origin(&vigie.get("/").await), "one", "the router serves as before");

        vigie.until_metric(QUARANTINED, &kind, 1.0).await;
        vigie.until_said("the router app@file is in quarantine").await;
        let said = vigie.process.stderr();
        let line = said.lines().find(|line| line.contains("the router app@file is in quarantine"));
        let line = line.unwrap_or_else(|| panic!("not said:\n{}", vigie.words()));
        assert!(line.contains(&format!("dynamic.yml{place}")) && line.contains(words), "{line}");
        assert_eq!(said.matches("app@file is in quarantine").count(), 1, "{said}");
        let router = vigie.json("/api/http/routers/app@file").await;
        assert_eq!(
            (&router["status"], &router["stale"], &router["rule"]),
            (&json!("warning"), &json!(true), &json!("PathPrefix(`/`)"))
        );
        assert!(router["error"][0].as_str().unwrap().contains(place), "{router}");
        let health = vigie.json("/health").await;
        assert_eq!(health["status"], "degraded", "{health}");
        let listed = &health["configuration"]["quarantined"];
        assert_eq!(
            (&listed[0]["kind"], &listed[0]["name"]),
            (&json!("router"), &json!("app@file")),
            "{health}"
        );
        let metrics = vigie.metrics().await;
        assert_eq!(metrics.value("lb_config_reload_failures_total", &[]), Some(0.0), "it is applied");

        // Mended, the marks are gone.
        vigie.write(&good.replace("PathPrefix(`/`)\n", "PathPrefix(`/`)\n      priority: 2\n"));
        rest_is_live(&vigie, "two").await;
        vigie.until_metric(QUARANTINED, &kind, 0.0).await;
        assert_eq!(vigie.json("/health").await["status"], "healthy");
        let router = vigie.json("/api/http/routers/app@file").await;
        assert_eq!((&router["status"], router.get("stale")), (&json!("enabled"), None), "{router}");
        assert_eq!(router["priority"], 2);
        running.stop().await.assert_flawless();
    }
}

/// Broken, renamed or removed: the router is never served without its password.
#[tokio::test]
async fn a_router_is_never_served_without_a_middleware_it_had() {
    let [one, two, three] = three().await;
    let good = dynamic(&one, &two);
    for (change, stale) in [
        (good.replace(USERS, "someone"), "middleware auth@file"),
        (good.replace("middlewares: [auth]", "middlewares: [auht]"), "middleware chain@file"),
        (without(&good, "auth:"), "middleware chain@file"),
        (without(&without(&good, "auth:"), "chain:"), "router guarded@file"),
        (
            good.replace("middlewares: [chain]", "middlewares: [chain, new]")
                .replace("    auth:", "    new: {retry: {attempts: 0}}\n    auth:"),
            "router guarded@file",
        ),
    ] {
        let vigie = Vigie::start(&good).await;
        let running = Load::new(vigie.web(), HOST)
            .connections(2)
            .target("/guarded")
            .pause(Duration::from_millis(1))
            .start();
        assert_ne!(change, good);
        vigie.write(&change.replace(&two.url(), &three.url()));
        rest_is_live(&vigie, "three").await;
        assert_eq!(status(&vigie, "/guarded").await, 401, "{change}");
        let mut client = Client::connect(vigie.web()).await.unwrap();
        let password = [("authorization", "Basic c29tZW9uZTpzZWNyZXQ=")];
        let let_in = client.request("GET", HOST, "/guarded", &password, None).await.unwrap();
        assert_eq!(origin(&let_in), "one", "{change}");
        let is = |object: &Value| {
            format!("{} {}", object["kind"].as_str().unwrap(), object["name"].as_str().unwrap()) == stale
        };
        quarantined(&vigie, |listed| listed.iter().any(is)).await;
        let report = running.stop().await;
        assert_eq!(
            report.failures.keys().collect::<Vec<_>>(),
            [&Failure::Status(401)],
            "{change}: {report:?}"
        );
        assert_eq!(report.ok, 0, "{change}");
        // Taken off on purpose, it is off.
        vigie.write(&without(&change, "middlewares: [chain"));
        let open = eventually(PATIENCE, async || status(&vigie, "/guarded").await == 200).await;
        assert!(open, "{}", vigie.words());
    }
}

#[tokio::test]
async fn a_service_keeps_its_servers_and_a_removed_one_serves_its_last_router() {
    let [one, two, three] = three().await;
    let good = dynamic(&one, &two);
    for change in [
        good.replace(&one.url(), "ftp://nowhere"),
        good.replace(&one.url(), "127.0.0.1:80"),
        without(&good, "app: {loadBalancer"),
    ] {
        let vigie = Vigie::start(&good).await;
        let running = load(&vigie);
        assert_ne!(change, good);
        vigie.write(&change.replace(&two.url(), &three.url()));
        rest_is_live(&vigie, "three").await;
        assert_eq!(origin(&vigie.get("/").await), "one");
        vigie.until_metric(QUARANTINED, &[("kind", "service")], 1.0).await;
        let service = vigie.json("/api/http/services/app@file").await;
        assert_eq!(
            (&service["stale"], &service["serverStatus"]),
            (&json!(true), &json!({one.url(): "UP"})),
            "{service}"
        );
        // It lasts over further changes, and goes when nobody needs it any more.
        vigie.write(&change);
        rest_is_live(&vigie, "two").await;
        assert_eq!(origin(&vigie.get("/").await), "one");
        running.stop().await.assert_flawless();
        vigie.write(&without(&good, "app: {loadBalancer").replace("service: app", "service: other"));
        vigie.until("the service is gone", |response| origin(response) == "two").await;
        quarantined(&vigie, <[Value]>::is_empty).await;
        assert_eq!(get(vigie.admin(), HOST, "/api/http/services/app@file").await.unwrap().status, 404);
    }
}

/// The certificate that a client is shown.
async fn shown(vigie: &Vigie, authority: &Authority, name: &str) -> anyhow::Result<Vec<u8>> {
    let client = Client::connect_tls(vigie.websecure(), authority.client_config(&[]), name).await?;
    Ok(client.tls().unwrap().peer_certificates().unwrap()[0].as_ref().to_vec())
}

/// Unreadable, or with a key that is not its own, which only building it finds out.
#[tokio::test]
async fn a_broken_certificate_keeps_the_last_good_one() {
    let [one, two, three] = three().await;
    let (authority, files) = (Authority::new("authority"), Files::new());
    let names = ["a.example.com", "b.example.com", "default.example.org"];
    for (stem, name) in ["a", "b", "default"].iter().zip(names) {
        authority.issue(&[name]).write(files.path(), stem);
    }
    let pair = |stem: &str| format!("{{certFile: '{{dir}}/{stem}.crt', keyFile: '{{dir}}/{stem}.key'}}");
    let tls = format!(
        "tls:\n  certificates:\n    - {}\n    - {}\n  stores: {{default: {{defaultCertificate: {}}}}}\n",
        pair("a"),
        pair("b"),
        pair("default")
    );
    let good = dynamic(&one, &two) + &tls;
    let vigie = Vigie::over(files, STATIC_TLS, &good).await;
    let running = load(&vigie);
    let mut before = Vec::new();
    for name in names {
        before.push(shown(&vigie, &authority, name).await.unwrap());
    }
    let path = |file: &str| vigie.files.path().join(file);
    let stranger = Authority::new("stranger").issue(&["a.example.com"]);
    for (file, content) in [
        ("a.crt", "no certificate\n".to_owned()),
        ("a.key", stranger.key_pem.clone()),
        ("default.key", stranger.key_pem),
    ] {
        let kept = std::fs::read_to_string(path(file)).unwrap();
        std::fs::write(path(file), content).unwrap();
        vigie.until_metric(QUARANTINED, &[("kind", "certificate")], 1.0).await;
        // A broken one does not hold up the others, nor a change of the configuration.
        authority.issue(&["b.example.com"]).write(vigie.files.path(), "b");
        vigie.write(&good.replace(&two.url(), &three.url()));
        rest_is_live(&vigie, "three").await;
        let renewed =
            eventually(PATIENCE, async || shown(&vigie, &authority, names[1]).await.unwrap() != before[1])
                .await;
        assert!(renewed, "{file}\n{}", vigie.words());
        before[1] = shown(&vigie, &authority, names[1]).await.unwrap();
        for at in [0, 2] {
            assert_eq!(
                shown(&vigie, &authority, names[at]).await.unwrap(),
                before[at],
                "{file}: {}",
                names[at]
            );
        }
        let stem = path(file).with_extension("").display().to_string();
        let told = async || {
            let said = vigie.process.stderr();
            let line = said.lines().rfind(|line| line.contains("in quarantine")).unwrap_or_default();
            line.contains(&stem) && line.contains("/dynamic.yml:2")
        };
        assert!(eventually(PATIENCE, told).await, "{file}\n{}", vigie.words());
        std::fs::write(path(file), kept).unwrap();
        vigie.write(&good);
        vigie.until_metric(QUARANTINED, &[("kind", "certificate")], 0.0).await;
        rest_is_live(&vigie, "two").await;
    }
    running.stop().await.assert_flawless();
}

/// A file that is no configuration at all keeps its last good state; those beside it move on.
#[tokio::test]
async fn a_broken_file_of_a_directory_holds_up_no_other() {
    let [one, two, three] = three().await;
    let files = Files::new();
    let text = dynamic(&one, &two);
    let (routers, services) = text.split_at(text.find("  services:").unwrap());
    files.write("dynamic/routers.yml", routers);
    files.write("dynamic/services.yml", &format!("http:\n{services}"));
    let text = STATIC.replace("filename: '{dir}/dynamic.yml'", "directory: '{dir}/dynamic'");
    let vigie = Vigie::launch(files, &text).await;
    let running = load(&vigie);
    for broken in ["http: [", "http:\n  routers:\n    app:\n      rules: {a: 1}\n"] {
        vigie.files.write("dynamic/routers.yml", broken);
        vigie.until_metric(QUARANTINED, &[("kind", "file")], 1.0).await;
        vigie
            .files
            .write("dynamic/services.yml", &format!("http:\n{}", services.replace(&two.url(), &three.url())));
        rest_is_live(&vigie, "three").await;
        assert_eq!(status(&vigie, "/guarded").await, 401);
        assert_eq!(origin(&vigie.get("/").await), "one");
        let is = |object: &Value| {
            object["kind"] == "file" && object["name"].as_str().unwrap().ends_with("routers.yml")
        };
        quarantined(&vigie, |listed| listed.first().is_some_and(is)).await;
        vigie.files.write("dynamic/routers.yml", routers);
        vigie.until_metric(QUARANTINED, &[("kind", "file")], 0.0).await;
        vigie.files.write("dynamic/services.yml", &format!("http:\n{services}"));
        rest_is_live(&vigie, "two").await;
    }
    running.stop().await.assert_flawless();
}

/// A new object that cannot work takes nothing along and is told like one in quarantine.
#[tokio::test]
async fn a_new_broken_object_is_left_out_and_told() {
    let [one, two, _three] = three().await;
    let good = dynamic(&one, &two);
    let vigie = Vigie::start(&good).await;
    let kind = [("kind", "router")];
    assert_eq!(vigie.metrics().await.value(DISABLED, &kind), Some(0.0));
    vigie.write(&good.replace("  routers:\n", "  routers:\n    new: {rule: Path(`/new`), service: nope}\n"));
    vigie.until_metric(DISABLED, &kind, 1.0).await;
    let place = "dynamic.yml:3:40: http.routers.new.service: no service is called `nope`";
    vigie.until_said("the router new@file is disabled, ").await;
    let said = vigie.process.stderr();
    let line = said.lines().find(|line| line.starts_with("the router new@file is disabled, "));
    assert!(line.is_some_and(|line| line.contains(place)), "{said}");
    let health = vigie.json("/health").await;
    // Traefik's words, and the place.
    let is_told = |error: &Value| {
        error[0] == "the service \"nope@file\" does not exist" && error[1].as_str().unwrap().contains(place)
    };
    assert!(is_told(&health["configuration"]["disabled"][0]["error"]), "{health}");
    let router = vigie.json("/api/http/routers/new@file").await;
    assert!(is_told(&router["error"]), "{router}");
    assert_eq!(origin(&vigie.get("/").await), "one");
    vigie.write(&good);
    vigie.until_metric(DISABLED, &kind, 0.0).await;
}

/// What changes nothing that is in force is warned about all the same, once, wherever it moves to.
#[tokio::test]
async fn a_warning_is_logged_once_even_if_nothing_else_changes() {
    let [one, two, three] = three().await;
    let files = Files::new();
    files.write("dynamic/a.yml", &dynamic(&one, &two));
    let text = STATIC.replace("filename: '{dir}/dynamic.yml'", "directory: '{dir}/dynamic'");
    let text = format!("{text}log: {{level: WARN}}\n");
    let vigie = Vigie::launch(files, &text).await;
    let told = |words: &'static str| vigie.words().matches(words).count();
    let duplicate = "the router `app` is already defined and this one is ignored";
    let misspelt = "the top-level key `htpp` is ignored";
    vigie.files.write("dynamic/b.yml", "http: {routers: {app: {rule: Path(`/b`), service: other}}}\n");
    assert!(eventually(PATIENCE, async || told(duplicate) == 1).await, "{}", vigie.words());
    vigie.files.write(
        "dynamic/b.yml",
        "# Moved.\nhttp: {routers: {app: {rule: Path(`/c`), service: other}}}\nhtpp: {routers: {}}\n",
    );
    assert!(eventually(PATIENCE, async || told(misspelt) == 1).await, "{}", vigie.words());
    vigie.files.write("dynamic/a.yml", &dynamic(&one, &three));
    rest_is_live(&vigie, "three").await;
    assert_eq!((told(duplicate), told(misspelt)), (1, 1), "{}", vigie.words());
}

/// With nothing to fall back on, what is broken is left out with all that uses it: 404, never without its password.
#[tokio::test]
async fn at_start_what_is_broken_is_left_out_and_the_rest_serves() {
    let [one, two, _three] = three().await;
    let broken = dynamic(&one, &two).replace(USERS, "someone").replace("PathPrefix(`/`)", "Path(`/`)");
    let vigie = Vigie::start(&broken).await;
    assert_eq!(origin(&vigie.get("/").await), "one");
    assert_eq!(origin(&vigie.get("/other").await), "two");
    assert_eq!(status(&vigie, "/guarded").await, 404);
    let health = vigie.json("/health").await;
    assert_eq!(health["configuration"]["quarantined"], json!([]), "{health}");
    let disabled: Vec<_> = health["configuration"]["disabled"]
        .as_array()
        .unwrap()
        .iter()
        .map(|object| object["name"].clone())
        .collect();
    assert_eq!(disabled, ["guarded@file", "auth@file", "chain@file"]);
    for name in ["router guarded@file", "middleware auth@file", "middleware chain@file"] {
        vigie.until_said(&format!("the {name} is disabled, ")).await;
        let said = vigie.process.stderr();
        let line = said.lines().find(|line| line.starts_with(&format!("the {name} is disabled, ")));
        assert!(line.is_some_and(|line| line.contains("dynamic.yml:15:")), "{name}: {said}");
    }
    assert_eq!(vigie.metrics().await.value(DISABLED, &[("kind", "middleware")]), Some(2.0));

    let mut command = Command::new(binary());
    command.args(["check", "--configFile=vigie.yml"]).current_dir(vigie.files.path());
    let mut check = VigieProcess::spawn(&mut command).unwrap();
    assert_eq!(check.ended(PATIENCE).await.unwrap().code(), Some(1), "{}", check.stderr());

    // Mended, it serves; broken again, it goes on.
    vigie.write(&dynamic(&one, &two));
    assert!(eventually(PATIENCE, async || status(&vigie, "/guarded").await == 401).await);
    vigie.write(&broken);
    vigie.until_metric(QUARANTINED, &[("kind", "middleware")], 1.0).await;
    assert_eq!(status(&vigie, "/guarded").await, 401);
}
