//! `vigie server`: takes servers out of service and brings them back, over the API of the running instance.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api_client::{ApiClient, Refused, Target};
use crate::options::Options;
use crate::print::{complain, say};

/// How often `--wait` asks.
const POLL: Duration = Duration::from_millis(200);
/// How long `--wait` bears with an instance that does not answer: it may be restarted just then.
const GRACE: Duration = Duration::from_secs(10);
/// The state is set, but `--timeout` was over first.
const TIMED_OUT: u8 = 2;

const EXIT_CODES: &str = "\
Exit codes:
  0  the state is set, and with --wait the wait was rewarded
  1  nothing is set, or the wait broke off: another state was set, or the instance no longer answers
  2  the state is set, but --timeout was over first";

#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// No new clients. Those with a sticky cookie may finish there until the deadline; requests in flight always do.
    #[command(after_help = EXIT_CODES)]
    Drain {
        /// When clients with a sticky cookie have to move on as well: `10m`, `90s`, `0s`, or `none`.
        #[arg(long, value_name = "TIME", default_value = "10m")]
        deadline: String,
        #[command(flatten)]
        change: Change,
    },
    /// Nobody, sticky cookie or not. Requests in flight finish.
    #[command(after_help = EXIT_CODES)]
    Maintenance {
        #[command(flatten)]
        change: Change,
    },
    /// In service again.
    #[command(after_help = EXIT_CODES)]
    Ready {
        #[command(flatten)]
        change: Change,
    },
    /// Every server with its state.
    List {
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Change {
    /// `name@provider`, or the name alone where that is clear.
    service: String,
    /// Its URL, or `host:port`.
    server: String,
    /// Return when nothing is in flight on the server any more (`ready`: when it has passed a health check).
    #[arg(long)]
    wait: bool,
    /// How long to wait at most; exit code 2 after that. `none` waits for ever.
    #[arg(long, value_name = "TIME", default_value = "10m", requires = "wait")]
    timeout: String,
    /// Who says so, for the log. Default: user and host.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(options: &Options, command: &ServerCommand) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (state, deadline, change) = match command {
        ServerCommand::List { target } => {
            let api = ApiClient::for_reading(target, options)?;
            return runtime.block_on(list(&api));
        }
        ServerCommand::Drain { deadline, change } => ("drain", Some(deadline), change),
        ServerCommand::Maintenance { change } => ("maintenance", None, change),
        ServerCommand::Ready { change } => ("ready", None, change),
    };
    let timeout = match change.timeout.as_str() {
        "none" => None,
        text => match lb_config::duration(text) {
            Ok(timeout) => Some(timeout),
            Err(reason) => anyhow::bail!("--timeout: {text:?} {reason}; write `10m`, `90s` or `none`"),
        },
    };
    let api = ApiClient::new(&change.target, options)?;
    let mut order = json!({ "state": state, "by": change.by.clone().unwrap_or_else(whoami) });
    if let Some(deadline) = deadline {
        order["deadline"] = deadline.as_str().into();
    }
    runtime.block_on(set(&api, change, &order, timeout))
}

async fn set(
    api: &ApiClient,
    change: &Change,
    order: &Value,
    timeout: Option<Duration>,
) -> anyhow::Result<ExitCode> {
    let asked = path(&change.service, &change.server);
    let answer = api.ask("PUT", &asked, Some(order)).await?;
    if !answer["state"].is_string() || !answer["url"].is_string() {
        return Err(api.stranger("takes the order").into());
    }
    say(&line(&answer));
    if answer["state"] != "ready" && answer["serviceAvailable"] == false {
        let service = text(&answer, "service");
        complain(&format!(
            "warning: no other server of {service} is available: new clients are refused until one is"
        ));
    }
    if !change.wait {
        return Ok(ExitCode::SUCCESS);
    }
    // By its full name from now on: what else there is may change.
    let asked = path(text(&answer, "service"), text(&answer, "url"));
    let began = Instant::now();
    let mut answered = began;
    // What is known of a server's health may be from before somebody worked on it.
    let checked = answer["healthChecks"].clone();
    let mut shown = answer;
    while !is_done(&shown, &checked) {
        if timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
            complain(&format!("vigie: {} is over: {}", change.timeout, line(&shown)));
            return Ok(ExitCode::from(TIMED_OUT));
        }
        tokio::time::sleep(POLL).await;
        match api.ask("GET", &asked, None).await {
            Ok(now) => {
                answered = Instant::now();
                anyhow::ensure!(
                    now["state"] == shown["state"] || drained(&shown, &now),
                    "{}",
                    overruled(&now)
                );
                if line(&now) != line(&shown) {
                    say(&line(&now));
                }
                shown = now;
            }
            Err(error) if error.is::<Refused>() || answered.elapsed() > GRACE => return Err(error),
            Err(_) => {}
        }
    }
    if text(&shown, "state") == "drain"
        && let Some(until) = shown["stateUntil"].as_str()
    {
        say(&format!("note: clients with a sticky cookie may come back until {until}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// `checked`: how many health checks there had been when the order was given; null where there are none.
fn is_done(answer: &Value, checked: &Value) -> bool {
    match text(answer, "state") {
        "ready" => {
            text(answer, "health") != "unhealthy" && (checked.is_null() || answer["healthChecks"] != *checked)
        }
        _ => answer["inFlight"] == 0,
    }
}

/// The deadline of a drain has come.
fn drained(before: &Value, now: &Value) -> bool {
    before["state"] == "drain" && now["state"] == "maintenance"
}

fn overruled(now: &Value) -> String {
    format!("the wait is pointless: somebody has set another state meanwhile ({})", line(now))
}

async fn list(api: &ApiClient) -> anyhow::Result<ExitCode> {
    for kind in ["http", "tcp"] {
        let services = api.ask("GET", &format!("/api/{kind}/services?per_page=1000000"), None).await?;
        let Some(services) = services.as_array() else { return Err(api.stranger("answers 200").into()) };
        for service in services {
            for server in service["serverDetails"].as_array().into_iter().flatten() {
                let mut server = server.clone();
                server["service"] = service["name"].clone();
                say(&line(&server));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `app@file http://10.0.0.1:80: drain until 2026-11-22T09:24:03Z, healthy, 3 in flight`
fn line(answer: &Value) -> String {
    let mut line = format!("{} {}: {}", text(answer, "service"), text(answer, "url"), text(answer, "state"));
    if let Some(until) = answer["stateUntil"].as_str() {
        line.push_str(&format!(" until {until}"));
    }
    line.push_str(", ");
    line.push_str(answer["health"].as_str().unwrap_or("not in the configuration"));
    line.push_str(&format!(", {} in flight", answer["inFlight"]));
    line
}

fn text<'v>(answer: &'v Value, key: &str) -> &'v str {
    answer[key].as_str().unwrap_or_default()
}

pub(crate) fn path(service: &str, server: &str) -> String {
    format!("/api/http/services/{}/servers/{}/state", segment(service), segment(server))
}

/// One segment of a path, percent-encoded but for what is always plain (RFC 3986 section 2.3).
pub(crate) fn segment(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// As far as the environment tells: it is for the log, not for proof.
pub(crate) fn whoami() -> String {
    let user = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER"));
    let user = user.context("nobody says").unwrap_or_else(|_| "vigie server".to_owned());
    let host = crate::machine::host_name();
    format!("{user}@{host}").chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(subcommand)]
        command: ServerCommand,
    }

    #[test]
    fn names_become_segments_of_a_path() {
        assert_eq!(
            path("app@file", "http://[::1]:80/a b"),
            "/api/http/services/app@file/servers/http%3A%2F%2F%5B%3A%3A1%5D%3A80%2Fa%20b/state"
        );
    }

    #[test]
    fn a_wait_ends_with_the_last_request_or_with_good_health() {
        for (state, health, in_flight, checks, done) in [
            ("drain", "healthy", 1, 7, false),
            ("drain", "healthy", 0, 7, true),
            ("maintenance", "unhealthy", 0, 7, true),
            ("ready", "unhealthy", 0, 8, false),
            ("ready", "degraded", 5, 8, true),
            ("ready", "healthy", 0, 7, false), // as before the order
        ] {
            let answer =
                json!({"state": state, "health": health, "inFlight": in_flight, "healthChecks": checks});
            assert_eq!(is_done(&answer, &json!(7)), done, "{answer}");
        }
        let unchecked = json!({"state": "ready", "health": "healthy", "inFlight": 0});
        assert!(is_done(&unchecked, &Value::Null));
    }

    /// A page of something else on a wrong address must not look as if a server were drained.
    #[test]
    fn whoever_else_answers_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("token"), "0123456789abcdef").unwrap();
        let token = format!("--tokenfile={}", directory.path().join("token").display());
        for body in ["1.0\n", "{}", "\"drain\""] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = format!("--address=http://{}", listener.local_addr().unwrap());
            let stranger = std::thread::spawn(move || {
                for _ in 0..2 {
                    let (mut client, _) = listener.accept().unwrap();
                    let _ = client.read(&mut [0; 4096]).unwrap();
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                    client.write_all((head + body).as_bytes()).unwrap();
                }
            });
            for order in [&["", "list", &address, &token][..], &["", "drain", "api", "a:1", &address, &token]]
            {
                let told =
                    run(&Options::default(), &Line::parse_from(order).command).unwrap_err().to_string();
                assert!(
                    told.ends_with("but not as the API of Vigie: is the address right?"),
                    "{body}: {told}"
                );
            }
            stranger.join().unwrap();
        }
    }

    #[test]
    fn to_list_takes_no_token_where_the_api_wants_none() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("--address=http://{}", listener.local_addr().unwrap());
        let open = std::thread::spawn(move || {
            for _ in ["http", "tcp"] {
                let (mut client, _) = listener.accept().unwrap();
                let _ = client.read(&mut [0; 4096]).unwrap();
                client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]").unwrap();
            }
        });
        assert!(run(&Options::default(), &Line::parse_from(["", "list", &address]).command).is_ok());
        open.join().unwrap();
    }

    #[test]
    fn a_server_is_told_in_a_line() {
        let answer = json!({"service": "app@file", "url": "http://a", "state": "drain", "health": "healthy",
            "stateUntil": "2026-11-22T09:24:03Z", "inFlight": 3});
        assert_eq!(
            line(&answer),
            "app@file http://a: drain until 2026-11-22T09:24:03Z, healthy, 3 in flight"
        );
        let gone = json!({"service": "app@file", "url": "http://a", "state": "maintenance", "inFlight": 0});
        assert_eq!(line(&gone), "app@file http://a: maintenance, not in the configuration, 0 in flight");
    }
}
