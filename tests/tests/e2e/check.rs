//! `vigie check`, and what a start refuses: every problem in one go, in bounded time and memory.

use std::process::Command;
use std::time::Duration;

use lb_testkit::{Files, PATIENCE, VigieProcess};
use tokio::time::Instant;

use crate::harness::{STATIC, app, binary, repository};

struct Outcome {
    code: i32,
    stdout: String,
    stderr: String,
}

async fn run(command: &mut Command) -> Outcome {
    let mut process = VigieProcess::spawn(command).unwrap();
    let status = process.ended(PATIENCE).await.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Outcome { code: status.code().unwrap_or(-1), stdout: process.stdout(), stderr: process.stderr() }
}

/// `vigie check` with these files; paths in the output are relative to their directory.
async fn check(static_text: &str, dynamic: &str) -> Outcome {
    let files = Files::new();
    files.write("vigie.yml", &static_text.replace("{dir}/", ""));
    files.write("dynamic.yml", dynamic);
    let mut command = Command::new(binary());
    run(command.args(["check", "--configFile=vigie.yml"]).current_dir(files.path())).await
}

#[tokio::test]
async fn a_good_configuration_is_named_and_accepted() {
    let good = check(STATIC, &app("", &["http://127.0.0.1:1".to_owned()])).await;
    assert_eq!((good.code, good.stderr.as_str()), (0, ""), "{}", good.stdout);
    assert_eq!(good.stdout, "vigie.yml, dynamic.yml: no problems found\n");
}

/// File, line, column, key, value and a way out, for all problems of both files.
#[tokio::test]
async fn every_problem_is_reported_in_one_go() {
    let dynamic = "\
http:
  routers:
    api:
      rule: Hst(`shop.example.com`)
      service: payments
    users:
      rule: PathPrefix(`/users`)
      entryPoints: [wbe]
      service: pyaments
  services:
    payments:
      loadBalancer:
        healthCheck: {path: /health, interval: 5s, timeout: 10q}
        servers:
          - ulr: http://127.0.0.1:1
";
    let outcome = check(&STATIC.replace("ping: {}", "pingg: {}\nlog: {level: NOISY}"), dynamic).await;
    assert_eq!(outcome.code, 1);
    assert_eq!(outcome.stdout, "");
    let lines: Vec<_> = outcome.stderr.lines().collect();
    for (place, words, hint) in [
        ("vigie.yml:8:1: warning: pingg: ", "pingg", "did you mean `ping`"),
        ("vigie.yml:9:14: warning: log.level: ", "NOISY", "INFO"),
        ("dynamic.yml:4:13: http.routers.api.rule: ", "Hst", "did you mean `Host`"),
        ("dynamic.yml:8:21: http.routers.users.entryPoints", "wbe", "did you mean `web`"),
        ("dynamic.yml:9:16: http.routers.users.service: ", "pyaments", "did you mean `payments`"),
        ("dynamic.yml:13:61: http.services.payments.loadBalancer.healthCheck.timeout: ", "10q", "10s"),
        (
            "dynamic.yml:15:13: http.services.payments.loadBalancer.servers[0].ulr: ",
            "ulr",
            "did you mean `url`",
        ),
    ] {
        let found = lines.iter().position(|line| line.starts_with(place) && line.contains(words));
        let Some(at) = found else { panic!("no {place:?} with {words:?} in\n{}", outcome.stderr) };
        let way_out = lines.get(at + 1).copied().unwrap_or_default();
        assert!(
            way_out.starts_with("  hint: ") && way_out.contains(hint),
            "{place}: {way_out:?}, not {hint:?}"
        );
    }
    let last = lines.last().unwrap();
    let problems = lines.iter().filter(|line| line.starts_with("dynamic.yml:")).count();
    assert_eq!(*last, format!("{problems} problems and 2 warnings found"));
}

/// An unknown key at the top is a warning, as Traefik ignores it; what is not built yet is said.
#[tokio::test]
async fn warnings_do_not_fail_and_gaps_are_named() {
    let good = app("", &["http://127.0.0.1:1".to_owned()]);
    let warned = check(&format!("{STATIC}nonsense: {{}}\n"), &good).await;
    assert_eq!(warned.code, 0, "{}", warned.stderr);
    assert!(
        warned.stderr.contains("nonsense") && warned.stderr.contains("1 warning, no errors"),
        "{}",
        warned.stderr
    );

    let plugin = format!("{good}  middlewares:\n    press: {{plugin: {{}}}}\n");
    let outcome = check(STATIC, &plugin).await;
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("not supported yet"), "{}", outcome.stderr);
}

/// Bytes that are no configuration: refused within a second and without eating the machine.
#[tokio::test]
async fn bombs_and_rubbish_are_refused_quickly() {
    let bomb = {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let below = format!("*a{}", level - 1);
            text.push_str(&format!("a{level}: &a{level} [{}]\n", [below.as_str(); 10].join(", ")));
        }
        format!("{text}http: {{routers: *a11}}\n")
    };
    let deep = format!("http: {}{}\n", "[".repeat(100_000), "]".repeat(100_000));
    let huge = format!(
        "http:\n  routers:\n{}",
        "    # padding that a machine wrote and nobody reads\n".repeat(420_000)
    );
    assert!(huge.len() > 20 << 20);
    for (what, bytes) in [
        ("a YAML bomb", bomb.as_bytes()),
        ("an alias cycle", b"http: &a\n  routers: *a\n"),
        ("deep nesting", deep.as_bytes()),
        ("a file of 20 MB", huge.as_bytes()),
        ("bytes that are no UTF-8", b"http:\n  routers: {\"\xff\xfe\": {}}\n"),
        ("a NUL", b"http:\n  routers: \0\n"),
        ("a tab", b"http:\n\trouters: {}\n"),
        ("a scalar", b"hello\n"),
        ("a duplicate key", b"http: {}\nhttp: {}\n"),
    ] {
        for broken in ["dynamic.yml", "vigie.yml"] {
            let files = Files::new();
            files.write("vigie.yml", &STATIC.replace("{dir}/", ""));
            files.write("dynamic.yml", &app("", &["http://127.0.0.1:1".to_owned()]));
            std::fs::write(files.path().join(broken), bytes).unwrap();
            let began = Instant::now();
            let mut limited = Command::new("sh");
            // Address space: 600 MB, threads and allocator included.
            limited.args(["-c", "ulimit -v 614400; exec \"$0\" check --configFile=vigie.yml"]).arg(binary());
            let outcome = run(limited.current_dir(files.path())).await;
            assert_eq!(outcome.code, 1, "{what} as {broken}: {}{}", outcome.stdout, outcome.stderr);
            assert!(outcome.stderr.contains(broken), "{what} as {broken}: {}", outcome.stderr);
            assert!(outcome.stderr.len() < 64 << 10, "{what} as {broken}: {} bytes", outcome.stderr.len());
            assert!(began.elapsed() < Duration::from_secs(5), "{what} as {broken}: {:?}", began.elapsed());
        }
    }
}

/// It would run and serve nobody.
#[tokio::test]
async fn too_few_descriptors_are_refused_at_start() {
    let files = Files::new();
    files.write("vigie.yml", &STATIC.replace("{dir}/", ""));
    files.write("dynamic.yml", "{}");
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 40; exec \"$0\" --configFile=vigie.yml"]).arg(binary());
    let outcome = run(limited.current_dir(files.path())).await;
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("40 file descriptors are too few"), "{}", outcome.stderr);
}

#[tokio::test]
async fn what_is_not_a_readable_file_is_refused() {
    let files = Files::new();
    files.write("vigie.yml", &STATIC.replace("{dir}/", ""));
    std::fs::create_dir(files.path().join("dynamic.yml")).unwrap();
    std::fs::create_dir(files.path().join("folder.yml")).unwrap();
    for (file, words) in
        [("vigie.yml", "dynamic.yml"), ("folder.yml", "folder.yml"), ("absent.yml", "absent.yml")]
    {
        let mut command = Command::new(binary());
        command.args(["check", &format!("--configFile={file}")]).current_dir(files.path());
        let outcome = run(&mut command).await;
        assert_eq!(outcome.code, 1, "{file}: {}{}", outcome.stdout, outcome.stderr);
        assert!(outcome.stderr.contains(words), "{file}: {}", outcome.stderr);
    }
}

/// A start without its file, or with a bad one, ends at once and says why.
#[tokio::test]
async fn a_start_without_a_good_static_file_is_an_error() {
    let files = Files::new();
    files.write("bad.yml", "entryPoints: {web: {adress: ':80'}}\n");
    for (file, words) in [
        ("absent.yml", &["absent.yml"][..]),
        ("bad.yml", &["bad.yml:1:21: entryPoints.web.adress: ", "did you mean `address`"]),
    ] {
        let mut command = Command::new(binary());
        let outcome = run(command.arg(format!("--configFile={file}")).current_dir(files.path())).await;
        assert_eq!(outcome.code, 1, "{file}: {}", outcome.stderr);
        assert!(words.iter().all(|word| outcome.stderr.contains(word)), "{file}: {}", outcome.stderr);
    }
    // A port that is taken is named with its entry point.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    files.write("taken.yml", &format!("entryPoints: {{web: {{address: '{address}'}}}}\n"));
    let mut command = Command::new(binary());
    let outcome = run(command.arg("--configFile=taken.yml").current_dir(files.path())).await;
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    for words in
        ["\"web\"", &address.to_string(), &format!("\n  hint: `ss -ltnp 'sport = :{}'`", address.port())]
    {
        assert!(outcome.stderr.contains(words), "{}", outcome.stderr);
    }
    let mut command = Command::new(binary());
    let outcome = run(command.args(["demo", &format!("--port={}", address.port())])).await;
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("\n  hint: name another port with --port="), "{}", outcome.stderr);
}

/// The static file is searched where Traefik searches.
#[tokio::test]
async fn the_static_file_is_found_where_traefik_finds_it() {
    for (variable, place) in
        [("XDG_CONFIG_HOME", "traefik.yml"), ("HOME", ".config/traefik.yaml"), ("", "traefik.yml")]
    {
        let files = Files::new();
        files.write(place, "entryPoints: {web: {address: '127.0.0.1:0'}}\n");
        let mut command = Command::new(binary());
        command.arg("check").env_remove("XDG_CONFIG_HOME").env("HOME", "/nonexistent").current_dir("/");
        if variable.is_empty() {
            command.current_dir(files.path());
        } else {
            command.env(variable, files.path());
        }
        let outcome = run(&mut command).await;
        assert_eq!(outcome.code, 0, "{place}: {}", outcome.stderr);
        assert!(outcome.stdout.contains(place), "{place}: {}", outcome.stdout);
    }
}

/// Everything under config/ is an example that people copy: it must be right.
#[tokio::test]
async fn every_shipped_configuration_is_valid() {
    let mut checked = 0;
    for folder in std::fs::read_dir(repository().join("config")).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path.is_file() && path.extension().is_some_and(|extension| extension == "yml") {
                let mut command = Command::new(binary());
                command
                    .arg("check")
                    .arg(format!("--configFile={}", path.display()))
                    .current_dir(repository());
                let outcome = run(&mut command).await;
                assert_eq!(outcome.code, 0, "{}: {}", path.display(), outcome.stderr);
                checked += 1;
            }
        }
    }
    assert!(checked >= 2, "{checked}");
}
