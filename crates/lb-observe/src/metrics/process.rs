//! `process_*`, read from `/proc/self`. What cannot be read is not shown.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::collect::descriptions;
use super::family::{Family, single};
use super::names;

/// `USER_HZ`: 100 on every architecture that Linux has (man 7 time).
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) struct Process {
    descriptions: Vec<Desc>,
}

impl Process {
    pub(super) fn new() -> Self {
        Self { descriptions: descriptions(names::ALL.iter().filter(|d| d.name.starts_with("process_"))) }
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (stat, status, limits) =
            (read("/proc/self/stat"), read("/proc/self/status"), read("/proc/self/limits"));
        let open = fs::read_dir("/proc/self/fd").map(|entries| entries.count() as f64).ok();
        let values = [
            (Family::counter(names::PROCESS_CPU), cpu_seconds(&stat)),
            (Family::gauge(names::PROCESS_START), start_seconds(&stat, &read("/proc/stat"))),
            (Family::gauge(names::PROCESS_RESIDENT), number_after(&status, "VmRSS:").map(|kib| kib * 1024.0)),
            (Family::gauge(names::PROCESS_VIRTUAL), number_after(&status, "VmSize:").map(|kib| kib * 1024.0)),
            (Family::gauge(names::PROCESS_THREADS), number_after(&status, "Threads:")),
            (Family::gauge(names::PROCESS_MAX_FDS), number_after(&limits, "Max open files")),
            // One is the directory handle that counts them.
            (Family::gauge(names::PROCESS_OPEN_FDS), open.map(|count| count - 1.0)),
        ];
        values.into_iter().filter_map(|(family, value)| Some(single(family, value?))).collect()
    }
}

/// The number behind `key` at the start of a line.
fn number_after(text: &str, key: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

/// Field `number` of `/proc/self/stat` as man 5 proc counts them, from the third on.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    // The second field is the command in parentheses and may hold spaces and parentheses itself.
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(number - 3)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) / TICKS_PER_SECOND)
}

fn start_seconds(stat: &str, system: &str) -> Option<f64> {
    Some(number_after(system, "btime")? + stat_field(stat, 22)? / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_shifts_no_field() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 250 150 0 0 20 0 4 0 5000 1 2 3";
        assert_eq!(cpu_seconds(stat), Some(4.0));
        assert_eq!(start_seconds(stat, "cpu 1 2\nbtime 1000\n"), Some(1050.0));
        assert_eq!(cpu_seconds("garbage"), None);
    }
}
