//! `vigie verify`: whether what runs is what should run, after a deployment or a change.
//!
//! The running instance is asked over its API, servers and entry points are tried from here, and `/proc` says why one
//! of this machine refuses. Nothing is changed.

mod certificates;
mod entry_points;
mod objects;
mod servers;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api_client::{ApiClient, Target};
use crate::attempt::{OnDisk, PATIENCE};
use crate::listening;
use crate::options::Options;
use crate::print::say;

/// Servers that are tried at a time: chosen, far below any limit of descriptors.
const AT_ONCE: usize = 64;
/// Between two rounds of `--wait`.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Ask again until nothing is wrong, for so long at most: after a change health checks take their time.
    #[arg(long, value_name = "TIME")]
    wait: Option<String>,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Exit code 0: nothing is wrong. Warnings are told, and change nothing about that.
pub(crate) fn run(options: &Options, verify: &Verify) -> anyhow::Result<ExitCode> {
    let wait = match &verify.wait {
        Some(text) => lb_config::duration(text)
            .map_err(|reason| anyhow::anyhow!("--wait: {text:?} {reason}; write `30s` or `2m`"))?,
        None => Duration::ZERO,
    };
    // What libraries and rustls may not find by themselves.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let api = ApiClient::for_reading(&verify.target, options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        let until = Instant::now() + wait;
        loop {
            let report = round(&api, options).await;
            if report.is_well() || Instant::now() + AGAIN > until {
                return report;
            }
            tokio::time::sleep(AGAIN).await;
        }
    });
    // A name server that is silent keeps no one waiting.
    runtime.shutdown_background();
    say(&if verify.json { report.json().to_string() } else { report.text() });
    Ok(if report.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Everything once.
async fn round(api: &ApiClient, options: &Options) -> Report {
    let mut report = Report::default();
    let instance = match Instance::ask(api, options).await {
        Ok(instance) => instance,
        Err(error) => {
            let hint = "is Vigie running? `vigie healthcheck` asks its /ping, its log says why it stopped";
            report.error("API", format!("{error:#}"), hint);
            return report;
        }
    };
    entry_points::verify(&instance, &mut report).await;
    objects::verify(&instance, &mut report);
    servers::verify(&instance, &mut report).await;
    objects::trouble(&instance, &mut report);
    certificates::verify(&instance, &mut report).await;
    report
}

/// The running instance as it describes itself, and what its machine tells.
struct Instance {
    entry_points: Vec<Value>,
    routers: Vec<Value>,
    services: Vec<Value>,
    configuration: Value,
    /// Of the API.
    address: SocketAddr,
    /// It runs on this machine.
    is_here: bool,
    /// What listens on this machine.
    sockets: Vec<SocketAddr>,
    on_disk: OnDisk,
}

impl Instance {
    async fn ask(api: &ApiClient, options: &Options) -> anyhow::Result<Self> {
        let list = async |path: &str| -> anyhow::Result<Vec<Value>> {
            let answer = api.ask("GET", &format!("{path}?per_page=1000000"), None).await?;
            answer.as_array().cloned().context("this is no API of Vigie")
        };
        let configuration = api.ask("GET", "/api/configuration", None).await?;
        let address = tokio::net::lookup_host(api.authority()).await?.next().context("no address")?;
        Ok(Self {
            entry_points: list("/api/entrypoints").await?,
            routers: list("/api/http/routers").await?,
            services: list("/api/http/services").await?,
            configuration,
            address,
            is_here: listening::is_here(address.ip()),
            sockets: listening::sockets(),
            on_disk: OnDisk::read(options),
        })
    }
}

/// What was found, and how much was looked at.
#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
    entry_points: usize,
    routers: usize,
    services: usize,
    servers: usize,
    certificates: usize,
}

struct Finding {
    is_error: bool,
    /// `service api@file, server http://192.0.2.7:3000`
    what: String,
    problem: String,
    /// The way out.
    hint: String,
}

impl Report {
    fn error(&mut self, what: impl Into<String>, problem: impl Into<String>, hint: impl Into<String>) {
        self.add(true, what.into(), problem.into(), hint.into());
    }

    fn warn(&mut self, what: impl Into<String>, problem: impl Into<String>, hint: impl Into<String>) {
        self.add(false, what.into(), problem.into(), hint.into());
    }

    /// Each finding is a line, whatever it quotes.
    fn add(&mut self, is_error: bool, what: String, problem: String, hint: String) {
        let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        self.findings.push(Finding {
            is_error,
            what: line(&what),
            problem: line(&problem),
            hint: line(&hint),
        });
    }

    fn is_well(&self) -> bool {
        self.findings.iter().all(|finding| !finding.is_error)
    }

    fn counts(&self) -> (usize, usize) {
        let errors = self.findings.iter().filter(|finding| finding.is_error).count();
        (errors, self.findings.len() - errors)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for Finding { is_error, what, problem, hint } in &self.findings {
            let severity = if *is_error { "error" } else { "warning" };
            text.push_str(&format!("{severity}: {what}: {problem}; {hint}\n"));
        }
        let plural =
            |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        let looked_at = [
            (self.entry_points, "entry point"),
            (self.routers, "router"),
            (self.services, "service"),
            (self.servers, "server"),
            (self.certificates, "certificate name"),
        ]
        .map(|(count, word)| plural(count, word))
        .join(", ");
        let (errors, warnings) = self.counts();
        let found = match (errors, warnings) {
            (0, 0) => "all is as it should be".to_owned(),
            (errors, warnings) => format!("{}, {}", plural(errors, "error"), plural(warnings, "warning")),
        };
        format!("{text}{found}: {looked_at}")
    }

    fn json(&self) -> Value {
        let finding = |finding: &Finding| {
            json!({
                "severity": if finding.is_error { "error" } else { "warning" },
                "what": finding.what,
                "problem": finding.problem,
                "hint": finding.hint,
            })
        };
        let (errors, warnings) = self.counts();
        json!({
            "ok": errors == 0,
            "errors": errors,
            "warnings": warnings,
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
            "checked": {
                "entryPoints": self.entry_points,
                "routers": self.routers,
                "services": self.services,
                "servers": self.servers,
                "certificateNames": self.certificates,
            },
        })
    }
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_with_its_way_out() {
        let mut report = Report { servers: 3, services: 1, ..Report::default() };
        assert_eq!(
            report.text(),
            "all is as it should be: 0 entry points, 0 routers, 1 service, 3 servers, 0 certificate names"
        );
        report.warn("server a", "it drains", "wait");
        assert!(report.is_well());
        report.error("server b", "broken\n  twice", "mend it");
        assert!(!report.is_well());
        let text = report.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[..2],
            ["warning: server a: it drains; wait", "error: server b: broken twice; mend it"]
        );
        assert!(lines[2].starts_with("1 error, 1 warning: "), "{text}");
        let json = report.json();
        assert_eq!((&json["ok"], &json["checked"]["servers"]), (&json!(false), &json!(3)));
        assert_eq!(json["findings"][1]["hint"], "mend it");
    }
}
