//! The real binary, started, watched and stopped by a test.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;

use crate::eventually::eventually;

/// A `vigie` process. Dropping it kills it.
pub struct VigieProcess {
    child: Child,
    stdout: Output,
    stderr: Output,
}

impl VigieProcess {
    /// Starts `binary --configFile=<static_file>` and waits until `ready` accepts a connection.
    ///
    /// # Errors
    /// When it cannot be started, ends, or is not ready in time; its last words are in the error.
    pub async fn start(binary: &Path, static_file: &Path, ready: SocketAddr) -> anyhow::Result<Self> {
        let mut option = std::ffi::OsString::from("--configFile=");
        option.push(static_file);
        let mut vigie = Self::spawn(Command::new(binary).arg(option))?;
        vigie.wait_ready(ready).await?;
        Ok(vigie)
    }

    /// Starts any command line, for sub-commands and for what must fail to start.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let stdout = Output::capture(child.stdout.take().context("stdout is piped")?);
        let stderr = Output::capture(child.stderr.take().context("stderr is piped")?);
        Ok(Self { child, stdout, stderr })
    }

    /// Waits until `address` accepts a connection.
    ///
    /// # Errors
    /// When the process ends or is not ready in time; its last words are in the error.
    pub async fn wait_ready(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let child = &mut self.child;
        let ready = eventually(crate::PATIENCE, async || {
            TcpStream::connect(address).await.is_ok() || !matches!(child.try_wait(), Ok(None))
        })
        .await;
        if let Some(status) = self.child.try_wait()? {
            self.stderr.join();
            bail!("it ended with {status}: {}", self.stderr());
        }
        if !ready {
            bail!("not ready within {:?}: {}", crate::PATIENCE, self.stderr());
        }
        Ok(())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Sends a signal (`Signal::HUP`, `Signal::USR1`, `Signal::TERM`, ...).
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // The child has not been waited for while we own it, so its id is not another's.
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("a process id is not zero")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for its end; its output is complete then.
    ///
    /// # Errors
    /// When it does not end within `deadline`.
    pub async fn ended(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let mut status = None;
        let child = &mut self.child;
        let over = eventually(deadline, async || {
            status = child.try_wait().ok().flatten();
            status.is_some()
        });
        if !over.await {
            bail!("still running after {deadline:?}: {}", self.stderr());
        }
        self.stdout.join();
        self.stderr.join();
        status.context("it has ended")
    }

    /// SIGTERM, then its end.
    ///
    /// # Errors
    /// When it does not end within `deadline`.
    pub async fn stop(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.ended(deadline).await
    }
}

impl Drop for VigieProcess {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// A pipe emptied by a thread of its own, so that the process never blocks on it.
struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn capture(mut pipe: impl std::io::Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut block = [0; 4096];
            while let Ok(read @ 1..) = pipe.read(&mut block) {
                sink.lock().expect("no panic under this lock").extend_from_slice(&block[..read]);
            }
        });
        Self { bytes, reader: Some(reader) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("no panic under this lock")).into_owned()
    }

    /// Waits for the pipe's end. Only for a process that has ended.
    fn join(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader does not panic");
        }
    }
}
