//! As a service of systemd: sockets that it has bound, and what it is told.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use lb_testkit::{Client, Origin, PATIENCE, get};
use rustix::io::{FdFlags, fcntl_setfd};

use super::dynasty::Dynasty;
use crate::harness::{HOST, STATIC, app, binary, repository};

/// A service manager's end of the notification socket.
struct Manager {
    socket: UnixDatagram,
    /// Lines of the message that is being read.
    lines: VecDeque<String>,
}

impl Manager {
    fn new(directory: &Path) -> Self {
        let socket = UnixDatagram::bind(directory.join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, lines: VecDeque::new() }
    }

    /// The next line, in the order that they were sent, without signs of life.
    async fn next(&mut self) -> String {
        while self.lines.is_empty() {
            let socket = self.socket.try_clone().unwrap();
            let message = tokio::task::spawn_blocking(move || {
                let mut block = [0; 4096];
                let count = socket.recv(&mut block).expect("a message in time");
                String::from_utf8(block[..count].to_vec()).unwrap()
            });
            let message = message.await.unwrap();
            self.lines.extend(message.lines().filter(|line| *line != "WATCHDOG=1").map(str::to_owned));
        }
        self.lines.pop_front().unwrap()
    }

    /// The next lines begin with these.
    async fn tells(&mut self, expected: &[&str]) {
        for expected in expected {
            let line = self.next().await;
            assert!(line.starts_with(expected), "{line:?} instead of {expected:?}");
        }
    }
}

#[tokio::test]
async fn the_service_manager_is_told() {
    let mut manager = None;
    let mut vigie = Dynasty::found_by(STATIC, &app("", &[]), |program, directory| {
        manager = Some(Manager::new(directory));
        let mut command = Command::new(program);
        command.env("NOTIFY_SOCKET", directory.join("notify"));
        command
    })
    .await;
    let mut manager = manager.unwrap();
    manager.tells(&["READY=1", "STATUS=serving"]).await;
    let upgrading = ["RELOADING=1", "MONOTONIC_USEC=", "STATUS=upgrading"];
    vigie.replace_program(Path::new("/bin/false"));
    vigie.try_upgrade().await.unwrap_err();
    manager.tells(&upgrading).await;
    manager.tells(&["READY=1", "STATUS=serving; the last upgrade failed"]).await;
    vigie.replace_program(binary());
    vigie.upgrade().await;
    manager.tells(&upgrading).await;
    // The new one speaks only when it is the one that is listened to.
    manager.tells(&[&format!("MAINPID={}", vigie.pid()), "READY=1", "STATUS="]).await;
    manager.tells(&["READY=1", "STATUS=serving"]).await;
    vigie.stop().await;
    manager.tells(&["STOPPING=1", "STATUS=stopping"]).await;
}

#[tokio::test]
async fn the_watchdog_gets_its_signs_of_life_across_upgrades() {
    let mut manager = None;
    let mut vigie = Dynasty::found_by(STATIC, &app("", &[]), |program, directory| {
        manager = Some(Manager::new(directory).socket);
        // systemd names the process that it starts.
        let mut command = Command::new("sh");
        command.args(["-c", "WATCHDOG_PID=$$ exec \"$0\" \"$@\""]).arg(program);
        command.env("NOTIFY_SOCKET", directory.join("notify")).env("WATCHDOG_USEC", "2000");
        command
    })
    .await;
    let manager = manager.unwrap();
    let sign_of_life = || {
        let mut block = [0; 4096];
        while manager.recv(&mut block).expect("a sign of life") < 10 || !block.starts_with(b"WATCHDOG=1") {
            block.fill(0);
        }
    };
    sign_of_life();
    // Nobody reads meanwhile: the queue of the socket is full soon, which holds nobody up.
    vigie.upgrade().await;
    vigie.until_alone().await;
    // What the old one has sent is read away first.
    manager.set_nonblocking(true).unwrap();
    while manager.recv(&mut [0; 4096]).is_ok() {}
    manager.set_nonblocking(false).unwrap();
    sign_of_life();
}

/// A client that waited in the socket before Vigie was there is served; the socket stays through upgrades.
#[tokio::test]
async fn sockets_of_the_service_manager_are_used() {
    let server = Origin::start("api").await;
    let activated = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = activated.local_addr().unwrap();
    let mut waiting = Client::connect(address).await.unwrap();
    let mut vigie = Dynasty::found_by(STATIC, &app("", &[server.url()]), |program, _| {
        fcntl_setfd(&activated, FdFlags::empty()).unwrap();
        let pass = format!(
            "exec 3<&{}; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec \"$0\" \"$@\"",
            activated.as_raw_fd()
        );
        // The plain shell knows no descriptors of two digits.
        let mut command = Command::new("bash");
        command.args(["-c", &pass]).arg(program);
        command
    })
    .await;
    drop(activated);
    assert_eq!(vigie.web(), address);
    assert_eq!(waiting.get(HOST, "/").await.unwrap().status, 200);
    for _ in 0..2 {
        vigie.upgrade().await;
        vigie.until_alone().await;
        assert_eq!(get(address, HOST, "/").await.unwrap().status, 200);
    }
}

/// The units that are shipped are understood.
#[test]
fn the_units_are_valid() {
    let directory = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for name in ["vigie.service", "vigie.socket", "vigie-verify.service", "vigie-verify.timer"] {
        let text = std::fs::read_to_string(repository().join("deploy/systemd").join(name)).unwrap();
        let unit = directory.path().join(name);
        std::fs::write(&unit, text.replace("/usr/local/bin/vigie", &binary().display().to_string())).unwrap();
        units.push(unit);
    }
    let Ok(verified) = Command::new("systemd-analyze").arg("verify").args(&units).output() else {
        return; // No systemd here.
    };
    let words = String::from_utf8_lossy(&verified.stderr);
    assert!(
        verified.status.success() && !words.contains("vigie.") && !words.contains("vigie-verify."),
        "{words}"
    );
}
