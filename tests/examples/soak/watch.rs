//! Memory and descriptors of the process, once a second, and whether they stay flat.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinHandle;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) pid: u32,
    /// Since the start of the soak.
    pub(crate) at: Duration,
    pub(crate) rss_bytes: u64,
    pub(crate) descriptors: u64,
}

/// Takes samples until it is stopped.
pub(crate) struct Watch {
    task: JoinHandle<()>,
    samples: Arc<Mutex<Vec<Sample>>>,
}

impl Watch {
    /// `pid` is that of the process that serves, which an upgrade changes. A sample is missing where it has just
    /// ended; whoever reads the samples sees when they stopped.
    pub(crate) fn start(pid: Arc<AtomicU32>) -> Self {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&samples);
        let task = tokio::spawn(async move {
            let began = Instant::now();
            let mut tick = tokio::time::interval(Duration::from_secs(1));
            loop {
                tick.tick().await;
                if let Ok(sample) = Sample::take(pid.load(Ordering::SeqCst), began.elapsed()) {
                    sink.lock().expect("no panic under this lock").push(sample);
                }
            }
        });
        Self { task, samples }
    }

    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.samples.lock().expect("no panic under this lock").clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sample {
    fn take(pid: u32, at: Duration) -> anyhow::Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("process {pid} is gone"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("it is a zombie")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64;
        Ok(Self { pid, at, rss_bytes: kib * 1024, descriptors })
    }
}

/// How a quantity went over some time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trend {
    pub(crate) mean: f64,
    pub(crate) highest: f64,
    /// The highest of the first half.
    pub(crate) before: f64,
    /// From the first to the last sample, along the straight line that fits best: single peaks say little.
    pub(crate) growth: f64,
    /// What is left of it in the calm at the end, when it was least there: above the begin of that line.
    pub(crate) left: f64,
    pub(crate) allowed: f64,
}

impl Trend {
    /// Least squares over the second half; growth is fine up to `share` of the mean, and up to `slack` whatever the
    /// mean.
    pub(crate) fn of(
        [before, samples, calm]: [&[Sample]; 3],
        value: impl Fn(&Sample) -> u64,
        share: f64,
        slack: f64,
    ) -> Self {
        let count = samples.len().max(1) as f64;
        let points: Vec<(f64, f64)> = samples.iter().map(|s| (s.at.as_secs_f64(), value(s) as f64)).collect();
        let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
        let mean = points.iter().map(|(_, y)| y).sum::<f64>() / count;
        let covariance: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean)).sum();
        let variance: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        let span = points.last().map_or(0.0, |last| last.0 - points[0].0);
        let growth = if variance > 0.0 { covariance / variance * span } else { 0.0 };
        let highest = points.iter().map(|(_, y)| *y).fold(0.0, f64::max);
        let before = before.iter().map(|sample| value(sample) as f64).fold(0.0, f64::max);
        let settled = calm.iter().map(|sample| value(sample) as f64).fold(f64::INFINITY, f64::min);
        let left = settled - (mean - growth / 2.0);
        Self { mean, highest, before, growth, left, allowed: (share * mean).max(slack) }
    }

    /// What only comes back to where it has been does not grow: replicas that were killed take their connections
    /// with them. Nor does what is let go when the faults are over: a replica that hangs holds connections.
    pub(crate) fn is_flat(&self) -> bool {
        self.growth <= self.allowed || self.highest <= self.before || self.left <= self.allowed
    }
}
