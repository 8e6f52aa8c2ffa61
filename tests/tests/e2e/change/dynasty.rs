//! A Vigie that is upgraded: one process after the other, under one command line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use lb_testkit::{Files, PATIENCE, VigieProcess, eventually, get};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{HOST, Metrics, Vigie, alive, binary};

pub(crate) struct Dynasty {
    pub(crate) first: VigieProcess,
    pub(crate) files: Files,
    addresses: BTreeMap<String, SocketAddr>,
    /// Every process so far, the newest last.
    pids: Vec<u32>,
}

impl Dynasty {
    /// With these files; `{dir}` in either text is their directory.
    pub(crate) async fn found(static_text: &str, dynamic: &str) -> Self {
        Self::found_by(static_text, dynamic, |program, _| Command::new(program)).await
    }

    /// As [`found`](Self::found), by a command line of the program and the directory; the arguments are appended.
    pub(crate) async fn found_by(
        static_text: &str,
        dynamic: &str,
        command: impl FnOnce(&Path, &Path) -> Command,
    ) -> Self {
        let files = Files::new();
        let config = write(&files, "vigie.yml", static_text);
        let with_file = |program: &Path, directory: &Path| {
            let mut command = command(program, directory);
            command.arg(format!("--configFile={config}"));
            command
        };
        Self::found_over(files, dynamic, with_file).await
    }

    /// As [`found_by`](Self::found_by), with nothing appended.
    pub(crate) async fn found_over(
        files: Files,
        dynamic: &str,
        command: impl FnOnce(&Path, &Path) -> Command,
    ) -> Self {
        write(&files, "dynamic.yml", dynamic);
        replace_program(&files, binary());
        let mut command = command(&files.path().join("vigie"), files.path());
        let (first, addresses) = Vigie::spawn(command.current_dir(files.path())).await;
        let pids = vec![first.pid()];
        Self { first, files, addresses, pids }
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        write(&self.files, name, text);
    }

    /// What the next upgrade starts.
    pub(crate) fn replace_program(&self, program: &Path) {
        replace_program(&self.files, program);
    }

    /// The process that serves.
    pub(crate) fn pid(&self) -> u32 {
        *self.pids.last().expect("there was a first")
    }

    pub(crate) fn web(&self) -> SocketAddr {
        self.addresses["web"]
    }

    pub(crate) fn websecure(&self) -> SocketAddr {
        self.addresses["websecure"]
    }

    pub(crate) fn address(&self, entry_point: &str) -> SocketAddr {
        self.addresses[entry_point]
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.addresses["traefik"]
    }

    /// `vigie upgrade` of the process that serves. Returns what it said, and why it failed if it did.
    pub(crate) async fn try_upgrade(&mut self) -> Result<String, String> {
        let Output { status, stdout, stderr } = upgrade(&["--pid", &self.pid().to_string()]).await;
        let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).expect("text"));
        match status.code() {
            Some(0) => {
                let pid =
                    stdout.split("handed over to process ").nth(1).and_then(|rest| rest.split(',').next());
                self.pids.push(pid.and_then(|pid| pid.parse().ok()).expect("the new process is named"));
                Ok(stdout)
            }
            Some(1) => Err(stderr),
            code => panic!("{code:?}: {stdout}{stderr}"),
        }
    }

    /// As [`try_upgrade`](Self::try_upgrade); it must succeed.
    pub(crate) async fn upgrade(&mut self) {
        if let Err(why) = self.try_upgrade().await {
            panic!("{why}\n{}", self.words());
        }
    }

    /// SIGUSR2 to the process that serves, until another does.
    pub(crate) async fn upgrade_by_signal(&mut self) {
        let old = self.pid();
        kill_process(process(old), Signal::USR2).expect("it runs");
        assert!(eventually(PATIENCE, async || !alive(old)).await, "{}", self.words());
        self.pids.push(self.listening().expect("one serves"));
    }

    /// The same, but the process that serves dies once `midway`.
    pub(crate) async fn die_upgrading(&mut self, midway: impl Fn() -> bool) {
        let old = process(self.pid());
        kill_process(old, Signal::USR2).expect("it runs");
        assert!(eventually(PATIENCE, async || midway()).await, "{}", self.words());
        kill_process(old, Signal::KILL).expect("it runs");
    }

    /// Waits until a process serves that nobody has named.
    pub(crate) async fn until_succeeded(&mut self) {
        let new = async || self.listening().is_some_and(|pid| !self.pids.contains(&pid));
        assert!(eventually(PATIENCE, new).await, "{}", self.words());
        self.pids.extend(self.listening());
    }

    /// The newest process that can be told to upgrade.
    fn listening(&self) -> Option<u32> {
        // Every Vigie listens under its number.
        let sockets = std::fs::read_to_string("/proc/net/unix").expect("readable");
        let pids = sockets.lines().filter_map(|line| line.rsplit("@vigie-").next()?.parse().ok());
        pids.filter(|pid| self.is_ours(*pid)).max()
    }

    /// Whether its command line names our files.
    fn is_ours(&self, pid: u32) -> bool {
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.contains(&*self.files.path().to_string_lossy())
    }

    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let response = get(self.admin(), "localhost", "/metrics").await.expect("an answer");
        Metrics::parse(response.text()).value(name, &[])
    }

    pub(crate) async fn status(&self) -> u16 {
        get(self.web(), HOST, "/").await.expect("an answer").status
    }

    /// Waits until every process but the newest has ended.
    pub(crate) async fn until_alone(&self) {
        let old = &self.pids[..self.pids.len() - 1];
        let alone = eventually(PATIENCE, async || !old.iter().any(|pid| alive(*pid)));
        assert!(alone.await, "of {:?}\n{}", self.pids, self.words());
    }

    /// SIGTERM to the process that serves, and its end.
    pub(crate) async fn stop(&self) {
        kill_process(process(self.pid()), Signal::TERM).expect("it runs");
        assert!(eventually(PATIENCE, async || !alive(self.pid())).await, "{}", self.words());
    }

    /// Everything the processes have written.
    pub(crate) fn words(&self) -> String {
        format!("--- stdout\n{}--- stderr\n{}", self.first.stdout(), self.first.stderr())
    }
}

impl Drop for Dynasty {
    fn drop(&mut self) {
        for pid in &self.pids[1..] {
            // Fails when it has ended already, and is another one's by now.
            if self.is_ours(*pid) {
                let _ = kill_process(process(*pid), Signal::KILL);
            }
        }
    }
}

/// The command, by itself.
pub(crate) async fn upgrade(arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.arg("upgrade").args(arguments);
    tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("it runs")
}

fn process(pid: u32) -> Pid {
    i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id")
}

fn write(files: &Files, name: &str, text: &str) -> String {
    files.write(name, &text.replace("{dir}", &files.path().display().to_string())).display().to_string()
}

/// A link, so that a test can put another program in the place of this one, in one step.
fn replace_program(files: &Files, program: &Path) {
    let next = files.path().join("vigie.next");
    std::os::unix::fs::symlink(program, &next).expect("writable");
    std::fs::rename(next, files.path().join("vigie")).expect("writable");
}
