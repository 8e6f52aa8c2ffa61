//! `vigie demo`: what the banner promises, tried as a newcomer would, line by line.

use std::process::Command;
use std::time::Duration;

use lb_testkit::{PATIENCE, VigieProcess, eventually, get};
use rustix::process::Signal;

use crate::harness::{Vigie, binary};

/// Runs a line of the banner in a shell; what it prints.
async fn shell(line: &str) -> String {
    let mut process = VigieProcess::spawn(Command::new("sh").args(["-c", line])).unwrap();
    let status = process.ended(Duration::from_secs(20)).await.unwrap();
    assert!(status.success(), "{line}: {status}\n{}{}", process.stdout(), process.stderr());
    process.stdout()
}

#[tokio::test]
async fn the_printed_lines_do_what_they_say() {
    let (mut process, addresses) = Vigie::spawn(Command::new(binary()).args(["demo", "--port", "0"])).await;
    let banner = {
        let printed = eventually(PATIENCE, async || process.stdout().contains("Ctrl-C")).await;
        assert!(printed, "{}", process.stdout());
        process.stdout()
    };
    let web = addresses["web"];
    let serves = async || {
        let names = async |path| get(web, "localhost", path).await.is_ok_and(|answer| answer.status == 200);
        names("/").await && names("/sticky").await
    };
    assert!(eventually(PATIENCE, serves).await);
    assert!(banner.contains(&format!("http://{web}/")), "{banner}");
    assert!(banner.contains(&format!("http://{}/dashboard/", addresses["traefik"])), "{banner}");
    // A jar of an earlier run must not decide.
    let _ = std::fs::remove_file("/tmp/vigie-demo.jar");
    let lines: Vec<_> = banner
        .lines()
        .map(str::trim)
        .filter(|line| line.contains("curl ") && !line.starts_with('#'))
        .collect();
    assert_eq!(lines.len(), 4, "{banner}");
    let replicas = |output: &str| -> Vec<String> {
        let names = output.lines().filter(|line| line.starts_with("api-"));
        names.map(|line| line.split(' ').next().unwrap_or(line).to_owned()).collect()
    };

    let balance = replicas(&shell(lines[0]).await);
    assert_eq!(balance.len(), 6, "{balance:?}");
    assert!(
        ["api-1", "api-2", "api-3"].iter().all(|name| balance.iter().filter(|n| n == name).count() == 2),
        "{balance:?}"
    );

    let sticky = replicas(&shell(lines[1]).await);
    assert!(sticky.len() == 3 && sticky.iter().all(|name| *name == sticky[0]), "{sticky:?}");

    let output = shell(lines[2]).await;
    let killed = replicas(&output);
    assert!(killed.iter().filter(|name| *name != "api-3").count() >= 6, "{output}");

    // Nobody has to wait until it is back to see what the edit does.
    let edited = replicas(&shell(lines[3]).await);
    let of_first = edited.iter().filter(|name| *name == "api-1").count();
    assert!(edited.len() == 7 && of_first >= 5, "{edited:?}");

    let back = eventually(Duration::from_secs(40), async || process.stdout().contains("api-3 is back"));
    assert!(back.await, "{}", process.stdout());
    let healthy = async || {
        let mut names = Vec::new();
        for _ in 0..7 {
            names.extend(get(web, "localhost", "/").await.map(|answer| answer.text().to_owned()));
        }
        names.iter().any(|name| name.starts_with("api-3"))
    };
    assert!(eventually(PATIENCE, healthy).await);

    // Ctrl-C drains and stops.
    process.signal(Signal::INT).unwrap();
    assert!(process.ended(PATIENCE).await.unwrap().success());
    let config = banner.lines().find_map(|line| line.trim().strip_prefix("config")).unwrap().trim();
    assert!(!std::path::Path::new(config).exists(), "the scratch directory is gone");
}
