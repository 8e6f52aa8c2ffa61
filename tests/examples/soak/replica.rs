//! One replica: a process of its own, which can be killed, stopped and told to misbehave.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use lb_testkit::{Origin, PATIENCE, Script, eventually, get, reserve_address};
use rustix::process::{Pid, Signal, kill_process};

/// Inside of the replica's process: serves until it is killed.
pub(crate) async fn serve(name: &str, address: SocketAddr) {
    let resetting = Arc::new(AtomicBool::new(false));
    let _origin = Origin::at(address, name, move |request| {
        match request.path() {
            "/ws" => return Script::upgrade_echo("websocket"),
            "/misbehave" => resetting.store(true, Ordering::SeqCst),
            "/behave" => resetting.store(false, Ordering::SeqCst),
            _ if resetting.load(Ordering::SeqCst) => return Script::reset(),
            _ => {}
        }
        Script::echo()
    })
    .await;
    std::future::pending().await
}

/// Outside: the handle of the process. Dropping it kills the process.
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    child: Option<Child>,
}

impl Replica {
    pub(crate) async fn start(name: &str) -> anyhow::Result<Self> {
        let mut replica = Self { name: name.to_owned(), address: reserve_address(), child: None };
        replica.restart().await?;
        Ok(replica)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// SIGKILL: no goodbye on any connection.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Starts the process where it was, and waits until it answers.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--replica", &self.name, &self.address.to_string()]).stdin(Stdio::null());
        self.child = Some(command.spawn()?);
        let answers = eventually(PATIENCE, async || self.ask("/").await.is_ok()).await;
        anyhow::ensure!(answers, "{} does not answer at {}", self.name, self.address);
        Ok(())
    }

    /// SIGSTOP: the kernel goes on accepting connections, and nobody answers.
    pub(crate) fn hang(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    pub(crate) fn go_on(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Every request, probes too, is answered with RST.
    pub(crate) async fn misbehave(&self) -> anyhow::Result<()> {
        self.ask("/misbehave").await
    }

    pub(crate) async fn behave(&self) -> anyhow::Result<()> {
        self.ask("/behave").await
    }

    async fn ask(&self, path: &str) -> anyhow::Result<()> {
        get(self.address, "replica", path).await.map(drop)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_ref().with_context(|| format!("{} is dead", self.name))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?).context("a process id is not zero")?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.kill();
    }
}
