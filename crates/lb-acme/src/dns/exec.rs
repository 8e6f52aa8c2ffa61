//! `exec`: a program sets the record.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::{sleep, timeout};

use super::variables::{Lacking, Variables};
use super::{Action, INTERVAL, ProviderError, Record, TIMEOUT, Timing};

/// For one run of the program. Chosen: some wait until the record is seen.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks whether it has ended. Chosen.
const LOOK: Duration = Duration::from_millis(10);
/// Of what it says, as much is repeated: bytes. Chosen.
const WORDS: usize = 500;

pub(super) struct Exec {
    path: PathBuf,
    /// It is told name, token and authorization and makes the record of these.
    is_raw: bool,
}

impl Exec {
    pub(super) fn open(variables: &Variables<'_>) -> Result<(Self, Timing), Lacking> {
        let path = PathBuf::from(variables.require(&["EXEC_PATH"])?.reveal());
        let is_raw = match variables.text(&["EXEC_MODE"])?.as_deref() {
            None => false,
            Some("RAW") => true,
            Some(_) => return Err(Lacking::bad("EXEC_MODE", "is neither `RAW` nor empty")),
        };
        let mut timing = Timing::of(variables, &["EXEC"], TIMEOUT, INTERVAL)?;
        // Most programs replace what was there, so there is one name after the other; the pause is lego's, too.
        timing.sequence = Some(variables.seconds(&["EXEC_SEQUENCE_INTERVAL"], TIMEOUT)?);
        Ok((Self { path, is_raw }, timing))
    }

    pub(super) async fn act(&self, action: Action, record: &Record) -> Result<(), ProviderError> {
        let mut command = Command::new(&self.path);
        command.arg(action.word());
        if self.is_raw {
            command.args(["--", &record.domain, &record.token, &record.authorization]);
        } else {
            command.args([&record.fqdn, &record.value]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |error| ProviderError::Run(self.path.clone(), error);
        let mut running = Running(command.spawn().map_err(failed)?);
        let out = running.0.stdout.take().map(OwnedFd::from);
        let err = running.0.stderr.take().map(OwnedFd::from);
        let run = async { tokio::join!(running.end(), last_words(out), last_words(err)) };
        let Ok((status, out, err)) = timeout(PATIENCE, run).await else {
            return Err(ProviderError::Refused(format!("{:?} ran for more than {PATIENCE:?}", self.path)));
        };
        let status = status.map_err(failed)?;
        let said = if err.is_empty() { out } else { err };
        tracing::debug!(path = %self.path.display(), action = action.word(), %status, said, "A program was run");
        if status.success() {
            return Ok(());
        }
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        Err(ProviderError::Refused(format!("{:?} ended with {status}{said}", self.path)))
    }
}

/// A program; if nobody waits for it any more it is ended.
struct Running(Child);

impl Running {
    async fn end(&mut self) -> std::io::Result<ExitStatus> {
        loop {
            match self.0.try_wait()? {
                Some(status) => return Ok(status),
                None => sleep(LOOK).await,
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both do nothing where it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The end of what is said, on one line. All of it is read: a program that cannot write stands still.
async fn last_words(pipe: Option<OwnedFd>) -> String {
    let Some(Ok(mut stream)) = pipe.map(Receiver::from_owned_fd) else { return String::new() };
    let (mut said, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = stream.read(&mut piece).await {
        said.extend(&piece[..length]);
        said.drain(..said.len().saturating_sub(WORDS));
    }
    let said = String::from_utf8_lossy(&said);
    said.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::dns::testing::{record, variables};

    /// A program with this body, and what it is called with.
    fn program(body: &str, mode: &str) -> (tempfile::TempDir, Exec) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hook");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = path.display().to_string();
        let set = [("EXEC_PATH", path.as_str()), ("EXEC_MODE", mode)];
        let exec = variables(&set, Exec::open).unwrap().0;
        (directory, exec)
    }

    #[tokio::test]
    async fn a_program_is_told_what_to_do() {
        for (mode, action, expected) in [
            ("", Action::Present, "present _acme-challenge.a.test. value\n"),
            ("", Action::CleanUp, "cleanup _acme-challenge.a.test. value\n"),
            ("RAW", Action::Present, "present -- a.test token token.thumb\n"),
        ] {
            let (directory, exec) = program(r#"echo "$@" > "${0%/*}/told""#, mode);
            exec.act(action, &record("a.test", "value")).await.unwrap();
            assert_eq!(std::fs::read_to_string(directory.path().join("told")).unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn what_a_program_says_is_repeated_when_it_fails() {
        let body = "i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done; echo 'no such\nzone' >&2; exit 3";
        let (_directory, exec) = program(body, "");
        let failed = exec.act(Action::Present, &record("a.test", "v")).await.unwrap_err().to_string();
        assert!(failed.ends_with("hook\" ended with exit status: 3: no such zone"), "{failed}");
        let (_directory, mut exec) = program("", "");
        exec.path = "/nowhere/hook".into();
        let failed = exec.act(Action::Present, &record("a.test", "v")).await.unwrap_err().to_string();
        assert!(failed.starts_with("\"/nowhere/hook\" cannot be run: No such file"), "{failed}");
    }

    #[test]
    fn one_name_after_the_other_as_lego_has_it() {
        let timing =
            |set: &[(&str, &str)]| variables(set, |variables| Exec::open(variables).map(|opened| opened.1));
        assert_eq!(timing(&[("EXEC_PATH", "x")]).unwrap().sequence, Some(Duration::from_secs(60)));
        let short = timing(&[("EXEC_PATH", "x"), ("EXEC_SEQUENCE_INTERVAL", "0")]).unwrap();
        assert_eq!(short.sequence, Some(Duration::ZERO));
        assert_eq!(timing(&[]).unwrap_err().to_string(), "the environment lacks EXEC_PATH");
        assert!(timing(&[("EXEC_PATH", "x"), ("EXEC_MODE", "raw")]).is_err());
    }
}
