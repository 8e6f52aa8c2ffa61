//! Lines on their way to a file: formatted by many threads, written by one, never waited for.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex};

use crate::civil::Clocks;

/// What all buffers together may hold while the file cannot be written. Chosen.
const LIMIT_BYTES: usize = 8 << 20;
/// What a single buffer may hold at least: some milliseconds of a busy worker's lines.
const LEAST_BUFFER_BYTES: usize = 1 << 20;
/// How long lines gather between two writes: late enough for large writes, early enough for `tail -f`.
const GATHER: Duration = Duration::from_millis(5);
/// Between two attempts to write to a file that refuses.
const RETRY: Duration = Duration::from_secs(1);
/// Between two messages about it.
const SILENCE: Duration = Duration::from_secs(60);
/// How long dropping a sink waits for its last lines.
const LAST_WORDS: Duration = Duration::from_secs(2);

pub(crate) struct SinkSettings {
    /// For messages and the thread's name.
    pub(crate) name: &'static str,
    /// `None` is standard output.
    pub(crate) path: Option<PathBuf>,
    pub(crate) buffers: usize,
    /// Lines lost.
    pub(crate) dropped: Arc<AtomicU64>,
    /// Says what is wrong, at most once a minute.
    pub(crate) report: fn(&str),
}

/// Owns the writer thread.
#[derive(Debug)]
pub(crate) struct Sink {
    shared: Arc<Shared>,
    writer: Thread,
}

#[derive(Debug)]
struct Shared {
    buffers: Box<[Mutex<Lines>]>,
    limit: usize,
    dropped: Arc<AtomicU64>,
    reopen: AtomicBool,
    stop: AtomicBool,
    /// Tickets of flushes asked for and done.
    asked: Mutex<u64>,
    done: Mutex<u64>,
    progress: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    clocks: Clocks,
}

/// One thread's way in; a clone shares the buffer.
#[derive(Clone, Debug)]
pub(crate) struct Buffer {
    shared: Arc<Shared>,
    index: usize,
    writer: Thread,
}

impl Sink {
    pub(crate) fn start(settings: SinkSettings) -> io::Result<Self> {
        let buffers = settings.buffers.max(1);
        let shared = Arc::new(Shared {
            buffers: (0..buffers).map(|_| Mutex::default()).collect(),
            limit: (LIMIT_BYTES / buffers).max(LEAST_BUFFER_BYTES),
            dropped: settings.dropped,
            reopen: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            asked: Mutex::new(0),
            done: Mutex::new(0),
            progress: Condvar::new(),
        });
        let output = Output::new(settings.name, settings.path, settings.report);
        let thread = thread::Builder::new().name(settings.name.to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run(output)
        })?;
        Ok(Self { shared, writer: thread.thread().clone() })
    }

    pub(crate) fn buffer(&self, index: usize) -> Buffer {
        let index = index % self.shared.buffers.len();
        Buffer { shared: Arc::clone(&self.shared), index, writer: self.writer.clone() }
    }

    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared.dropped)
    }

    pub(crate) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.writer.unpark();
    }

    pub(crate) fn flush(&self, patience: Duration) -> bool {
        let ticket = {
            let mut asked = self.shared.asked.lock();
            *asked += 1;
            *asked
        };
        self.writer.unpark();
        let mut done = self.shared.done.lock();
        let timeout = self.shared.progress.wait_while_for(&mut done, |done| *done < ticket, patience);
        !timeout.timed_out()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.flush(LAST_WORDS);
    }
}

impl Buffer {
    /// Lets `format` append one line, or counts it as lost when the file has been too slow for too long.
    pub(crate) fn append(&self, format: impl FnOnce(&mut Vec<u8>, &mut Clocks)) {
        let mut lines = self.shared.buffers[self.index].lock();
        if lines.bytes.len() >= self.shared.limit {
            drop(lines);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = lines.bytes.is_empty();
        let Lines { bytes, clocks } = &mut *lines;
        format(bytes, clocks);
        drop(lines);
        // Only the first line wakes: the writer empties the buffer before it sleeps again.
        if was_empty {
            self.writer.unpark();
        }
    }
}

impl Shared {
    fn run(&self, mut output: Output) {
        let mut chunk = Vec::new();
        output.begin();
        loop {
            let stopping = self.stop.load(Ordering::Acquire);
            let asked = *self.asked.lock();
            if self.reopen.swap(false, Ordering::AcqRel) {
                output.close();
                output.begin();
            }
            let mut idle = true;
            for buffer in &self.buffers {
                // The emptied chunk goes back in exchange, so that nothing is allocated in a steady state.
                std::mem::swap(&mut buffer.lock().bytes, &mut chunk);
                if !chunk.is_empty() {
                    idle = false;
                    self.write_out(&mut output, &chunk);
                    chunk.clear();
                    chunk.shrink_to(LEAST_BUFFER_BYTES);
                }
            }
            output.lost(self.dropped.load(Ordering::Relaxed));
            *self.done.lock() = if stopping { u64::MAX } else { asked };
            self.progress.notify_all();
            if stopping {
                return;
            }
            if idle { thread::park() } else { thread::sleep(GATHER) }
        }
    }

    /// Returns when all is written, or when the end of the process leaves no time for another attempt.
    fn write_out(&self, output: &mut Output, whole: &[u8]) {
        let mut chunk = whole;
        loop {
            match output.write(&mut chunk) {
                Ok(()) => return output.recovered(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::park_timeout(GATHER),
                Err(error) => {
                    output.close();
                    output.failed(&error, self.dropped.load(Ordering::Relaxed));
                    if !self.stop.load(Ordering::Acquire) {
                        thread::park_timeout(RETRY);
                    }
                }
            }
            if self.stop.load(Ordering::Acquire) && output.is_failing() {
                let lost = chunk.iter().filter(|byte| **byte == b'\n').count();
                self.dropped.fetch_add(lost as u64, Ordering::Relaxed);
                return;
            }
            if self.reopen.swap(false, Ordering::AcqRel) {
                output.close();
                chunk = from_line(whole, chunk);
            }
        }
    }
}

/// `rest`, which is the end of `whole`, from the beginning of its first line on: a new file begins with a line.
fn from_line<'a>(whole: &'a [u8], rest: &[u8]) -> &'a [u8] {
    let written = &whole[..whole.len() - rest.len()];
    let begin = written.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    &whole[begin..]
}

/// The file, opened when needed.
struct Output {
    name: &'static str,
    path: Option<PathBuf>,
    report: fn(&str),
    file: Option<File>,
    failing: bool,
    reported: Option<SystemTime>,
    /// Losses that were said already.
    said: u64,
}

impl Output {
    fn new(name: &'static str, path: Option<PathBuf>, report: fn(&str)) -> Self {
        Self { name, path, report, file: None, failing: false, reported: None, said: 0 }
    }

    fn write(&mut self, chunk: &mut &[u8]) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.open()?,
        };
        while !chunk.is_empty() {
            match file.write(chunk) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => *chunk = &chunk[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.file = Some(file);
                    return Err(error);
                }
            }
        }
        self.file = Some(file);
        Ok(())
    }

    fn open(&self) -> io::Result<File> {
        let Some(path) = &self.path else {
            // Past Rust's line buffer: chunks are whole lines already.
            return Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?));
        };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        OpenOptions::new().append(true).create(true).open(path)
    }

    /// Makes the file, so that it is there before its first line. What is wrong is said of the first line.
    fn begin(&mut self) {
        if self.path.is_some() && self.file.is_none() {
            self.file = self.open().ok();
        }
    }

    /// The next write opens it again.
    fn close(&mut self) {
        self.file = None;
    }

    fn is_failing(&self) -> bool {
        self.failing
    }

    fn failed(&mut self, error: &io::Error, dropped: u64) {
        self.failing = true;
        self.said = dropped;
        self.say(&format!(
            "cannot be written: {error}; {dropped} lines lost so far, traffic is not affected"
        ));
    }

    /// Lines may be lost without any error, when they come faster than the file takes them.
    fn lost(&mut self, dropped: u64) {
        if dropped > self.said && self.say(&format!("is too slow: {} lines lost", dropped - self.said)) {
            self.said = dropped;
        }
    }

    /// At most once in a while; false when it was too early.
    fn say(&mut self, what: &str) -> bool {
        if self.reported.is_some_and(|at| at.elapsed().is_ok_and(|elapsed| elapsed < SILENCE)) {
            return false;
        }
        self.reported = Some(SystemTime::now());
        let target = self.path.as_ref().map_or("standard output".into(), |path| path.to_string_lossy());
        (self.report)(&format!("{}: {target} {what}", self.name));
        true
    }

    fn recovered(&mut self) {
        self.failing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

    #[test]
    fn a_new_file_begins_with_a_line() {
        let whole = b"first\nsecond\nthird\n";
        for (written, expected) in [(0, 0), (3, 0), (6, 6), (9, 6), (13, 13), (19, 19)] {
            assert_eq!(from_line(whole, &whole[written..]), &whole[expected..], "{written}");
        }
    }

    #[test]
    fn trouble_is_said_once_a_minute() {
        let mut output =
            Output::new("access log", Some("/x".into()), |message| SAID.lock().push(message.to_owned()));
        output.lost(0);
        output.lost(7);
        output.lost(9);
        output.failed(&ErrorKind::StorageFull.into(), 9);
        assert_eq!(*SAID.lock(), ["access log: /x is too slow: 7 lines lost"]);
        output.reported = SystemTime::now().checked_sub(SILENCE);
        output.failed(&ErrorKind::StorageFull.into(), 12);
        let expected = "access log: /x cannot be written: no storage space; 12 lines lost so far, traffic is not affected";
        assert_eq!(SAID.lock()[1], expected);
    }
}
