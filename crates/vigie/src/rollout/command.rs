//! The operator's own commands: how one server gets another version, and how that is checked.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::{Instant, sleep};

/// How often it is looked whether a command has ended.
const POLL: Duration = Duration::from_millis(50);

/// What placeholders stand for.
#[derive(Debug)]
pub(super) struct Words<'a> {
    pub(super) service: &'a str,
    pub(super) url: &'a str,
    pub(super) version: &'a str,
}

impl Words<'_> {
    /// `command` with `{service}`, `{url}`, `{server}` (host:port), `{host}`, `{port}` and `{version}` filled in.
    ///
    /// # Errors
    /// A value has characters that a shell might read.
    pub(super) fn fill(&self, command: &str) -> anyhow::Result<String> {
        let server = self.url.split_once("://").map_or(self.url, |(_, rest)| rest);
        let server = server.split('/').next().unwrap_or_default();
        let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let (host, port) = match server.rsplit_once(':').filter(|(_, port)| is_port(port)) {
            Some((host, port)) => (host, port),
            None if self.url.starts_with("https://") => (server, "443"),
            None => (server, "80"),
        };
        let mut filled = command.to_owned();
        for (name, value) in [
            ("{service}", self.service),
            ("{url}", self.url),
            ("{server}", server),
            ("{host}", host),
            ("{port}", port),
            ("{version}", self.version),
        ] {
            if filled.contains(name) {
                let is_plain = |c: char| c.is_ascii_alphanumeric() || "._:/@+-[]".contains(c);
                ensure!(
                    value.chars().all(is_plain),
                    "{name} is {value:?}: a command takes letters, digits and ._:/@+-[] only"
                );
                filled = filled.replace(name, value);
            }
        }
        Ok(filled)
    }
}

/// Runs a command line of the shell to its end. It writes where we write, and Ctrl-C does not reach it: half a
/// replacement is worse than a whole one.
///
/// # Errors
/// It cannot be started, fails, or takes longer than `limit`; then it is killed with all that it has started.
pub(super) async fn run(command: &str, limit: Duration) -> anyhow::Result<()> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).stdin(Stdio::null()).process_group(0);
    let mut child = shell.spawn().with_context(|| format!("`{command}` cannot be started"))?;
    let until = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "`{command}` failed ({status})");
            return Ok(());
        }
        if Instant::now() >= until {
            // Not waited for yet, so the id is not another's.
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(pid, Signal::KILL);
            }
            let _ = child.wait();
            bail!("`{command}` has not ended within {limit:?}");
        }
        sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_in() {
        let command = "deploy {host} {port} {server} {url} {service} {version} ${HOME} {other}";
        for (url, expected) in [
            ("http://192.0.2.7:3000/x", "192.0.2.7 3000 192.0.2.7:3000 http://192.0.2.7:3000/x"),
            ("http://[::1]:81", "[::1] 81 [::1]:81 http://[::1]:81"),
            ("http://[::1]", "[::1] 80 [::1] http://[::1]"),
            ("https://api-1", "api-1 443 api-1 https://api-1"),
        ] {
            let words = Words { service: "api@file", url, version: "1.2.3" };
            let expected = format!("deploy {expected} api@file 1.2.3 ${{HOME}} {{other}}");
            assert_eq!(words.fill(command).unwrap(), expected);
        }
        let hostile = Words { service: "api@file", url: "http://a", version: "1; reboot" };
        assert!(
            hostile.fill("x {version}").unwrap_err().to_string().starts_with("{version} is \"1; reboot\"")
        );
        assert_eq!(hostile.fill("x {server}").unwrap(), "x a");
    }

    #[tokio::test]
    async fn a_command_that_fails_or_hangs_is_told() {
        let short = Duration::from_millis(200);
        run("true", Duration::from_secs(10)).await.unwrap();
        let told = run("exit 3", Duration::from_secs(10)).await.unwrap_err().to_string();
        assert_eq!(told, "`exit 3` failed (exit status: 3)");
        let told = run("sleep 60", short).await.unwrap_err().to_string();
        assert_eq!(told, "`sleep 60` has not ended within 200ms");
    }
}
