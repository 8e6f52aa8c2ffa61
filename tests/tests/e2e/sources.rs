//! Where the static configuration comes from: a file, flags, or variables, as in Traefik.

use std::process::Command;

use lb_testkit::{Files, Origin, PATIENCE, VigieProcess, get};

use crate::harness::{HOST, STATIC, Vigie, app, binary, origin, repository};

const SECRET: &str = "hunter2-hunter2-hunter2";

/// Of [`STATIC`], and a secret.
const SETTINGS: [(&str, &str); 8] = [
    ("core.workers", "2"),
    ("entryPoints.web.address", "127.0.0.1:0"),
    ("entryPoints.traefik.address", "127.0.0.1:0"),
    ("providers.file.filename", "dynamic.yml"),
    ("api.insecure", "true"),
    ("api.token", SECRET),
    ("ping", "true"),
    ("metrics.prometheus.addRoutersLabels", "true"),
];

/// `vigie` in a directory of its own, where no file is found that nobody named.
fn vigie(files: &Files) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(files.path()).env("HOME", files.path().join("home")).env_remove("XDG_CONFIG_HOME");
    command
}

fn flag((path, value): (&str, &str)) -> String {
    format!("--{path}={value}")
}

fn variable(path: &str) -> String {
    format!("TRAEFIK_{}", path.replace('.', "_").to_uppercase())
}

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

/// All three serve, and their APIs tell the same.
#[tokio::test]
async fn flags_and_variables_serve_as_a_file_does() {
    let server = Origin::start("api").await;
    let mut seen: Vec<(String, Vec<serde_json::Value>)> = Vec::new();
    for source in ["./vigie.yml", "the command line", "the environment"] {
        let files = Files::new();
        files.write("dynamic.yml", &app("", &[server.url()]));
        let mut command = vigie(&files);
        match source {
            "the command line" => drop(command.args(SETTINGS.map(flag))),
            "the environment" => drop(command.envs(SETTINGS.map(|(path, value)| (variable(path), value)))),
            _ => drop(files.write("vigie.yml", &STATIC.replace("{dir}/", ""))),
        }
        let (process, addresses) = Vigie::spawn(&mut command).await;
        assert_eq!(origin(&get(addresses["web"], HOST, "/").await.unwrap()), "api", "{source}");
        let mut answers = Vec::new();
        for path in ["/api/entrypoints", "/api/overview", "/api/rawdata"] {
            let mut answer = get(addresses["traefik"], "localhost", path).await.unwrap().json();
            // What differs from one start to the next: the time of the load.
            answer.as_object_mut().map(|answer| answer.remove("configuration"));
            answers.push(answer);
        }
        let told = process.stderr();
        assert!(told.contains(&format!("configured by {source}\n")), "{told}");
        assert!(!told.contains("warning") && !told.contains(SECRET), "{told}");
        seen.push((source.to_owned(), answers));
    }
    for (source, answers) in &seen[1..] {
        assert_eq!(answers, &seen[0].1, "{source}");
    }
}

/// As Traefik ignores them; here it is said.
#[tokio::test]
async fn what_is_not_in_force_is_told_by_name() {
    let files = Files::new();
    files.write("dynamic.yml", &app("", &["http://127.0.0.1:1".to_owned()]));
    files.write("vigie.yml", &STATIC.replace("{dir}/", ""));
    files.write("other/named.yml", &STATIC.replace("{dir}", &files.path().display().to_string()));
    for (arguments, source) in
        [(&[][..], "./vigie.yml"), (&["--configFile=$FOLDER/other/named.yml"][..], "named.yml")]
    {
        let mut command = vigie(&files);
        command.args(arguments).args(["--ping.entryPoint=nope", &flag(("api.token", SECRET))]);
        command.env("FOLDER", files.path()).env("TRAEFIK_LOG_LEVEL", "nope").env("TRAEFIK_HOME", "nope");
        command.env("TRAEFIK_CONFIGFILE", "nope");
        let (process, _) = Vigie::spawn(&mut command).await;
        let told = process.stderr();
        let lines: Vec<&str> = told.lines().filter(|line| line.contains("warning")).collect();
        assert!(lines.len() == 3 && !told.contains(SECRET), "{told}");
        assert!(lines[0].starts_with("the command line: warning: not in force beside "), "{told}");
        assert!(lines[0].ends_with(&format!("{source}: --ping.entryPoint, --api.token")), "{told}");
        assert!(lines[1].starts_with("the environment: warning: not in force beside "), "{told}");
        assert!(lines[1].ends_with(&format!("{source}: TRAEFIK_LOG_LEVEL")), "{told}");
        assert_eq!(lines[2], "the environment: warning: not in force: TRAEFIK_CONFIGFILE");
        assert!(told.contains(&format!("{source}\n  ")), "{told}");
    }
}

#[tokio::test]
async fn commands_take_the_same_flags_and_variables() {
    let server = Origin::start("api").await;
    let files = Files::new();
    files.write("dynamic.yml", &app("", &[server.url()]));
    let elsewhere = Files::new();
    let (running, addresses) = Vigie::spawn(vigie(&files).args(SETTINGS.map(flag))).await;
    let traefik = flag(("entryPoints.traefik.address", &addresses["traefik"].to_string()));
    let dynamic = flag(("providers.file.filename", &files.path().join("dynamic.yml").to_string_lossy()));
    let token = flag(("api.token", SECRET));
    for (arguments, code, words) in [
        (&["healthcheck", &traefik, "--ping"][..], 0, "OK: http://127.0.0.1:"),
        (&["healthcheck", &traefik], 1, "please enable `ping`"),
        (&["server", "list", &traefik, &token], 0, "app@file "),
        (&["check", &traefik, &dynamic], 0, "the command line, "),
        (
            &["check", &dynamic, "--entrypoints.web.adress=:80"],
            1,
            "--entrypoints.web.adress: entryPoints.web.adress: there is no key",
        ),
        (
            &["check", "--entrypoints.web.address", ":80", "--providers.file.filename=/nowhere.yml"],
            1,
            "/nowhere.yml",
        ),
        (&["--entrypoints.web.address=:80", "--ping=perhaps"], 1, "--ping: ping: expected a map or `true`"),
        (&["--nope=1"], 1, "unexpected argument '--nope'"),
        (&["--api.insecure", "nope"], 1, "unrecognized subcommand 'nope'"),
        (
            &["demo", "--ping", "--configFile=a.yml"],
            1,
            "`demo` reads no configuration\n  hint: leave out --configFile, --ping",
        ),
        (&["check", "--configFile=${FOLDR}/vigie.yml"], 1, "the variable `FOLDR` is not set"),
        (&[], 1, "no configuration file found"),
        (&["version"], 0, "Version: "),
        (&["--help"], 0, "--entryPoints.web.address=:80"),
    ] {
        let outcome = run(vigie(&elsewhere).args(arguments)).await;
        let told = outcome.stdout + &outcome.stderr;
        assert_eq!(outcome.code, code, "{arguments:?}: {told}");
        assert!(told.contains(words) && !told.contains(SECRET), "{arguments:?}: {told}");
    }
    let mut command = vigie(&elsewhere);
    command.env("TRAEFIK_ENTRYPOINTS_WEB_ADRESS", SECRET).env("TRAEFIK_PING", "true").arg("check");
    let outcome = run(&mut command).await;
    assert!(outcome.code == 1 && !outcome.stderr.contains(SECRET), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("TRAEFIK_ENTRYPOINTS_WEB_ADRESS: entryPoints.web.adress: "),
        "{}",
        outcome.stderr
    );
    let outcome = run(vigie(&elsewhere).arg("version")).await;
    let labels: Vec<&str> = outcome.stdout.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    assert_eq!(labels, ["Version", "Codename", "Rust version", "Built", "OS/Arch"]);
    drop(running);
}

/// Its command lines are copied: they must be right.
#[tokio::test]
async fn the_example_of_flags_is_valid() {
    let files = Files::new();
    let text = std::fs::read_to_string(repository().join("deploy/compose/flags.yml")).unwrap();
    let of_vigie = text.split_once("    command:\n").unwrap().1;
    let flags: Vec<String> = of_vigie
        .lines()
        .map(str::trim)
        .take_while(|line| line.starts_with(['-', '#']))
        .filter_map(|line| Some(line.strip_prefix("- ")?.trim_matches('"').replace("/acme/", "")))
        .collect();
    assert!(flags.len() > 8, "{flags:?}");
    let outcome = run(vigie(&files).arg("check").args(&flags)).await;
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("error"), "{}", outcome.stderr);
}
