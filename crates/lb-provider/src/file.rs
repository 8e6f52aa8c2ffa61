//! The file provider: one file, or every file below a directory, followed while it changes.
//!
//! An edit in place, a replacement by rename and a swapped symbolic link are live within 250 ms, in
//! sub-directories too, and so is a change of a certificate, key or user list that the configuration names.
//! A directory that does not exist yet is picked up when it appears.
//!
//! Editors truncate before they write, so what looks broken is looked at again before it is believed:
//! a file that is empty, missing or wrong gets [`PATIENCE`] to become better. If it does not, the
//! reading is refused with the reason, and whoever listens keeps what it has; of a directory the other files are
//! read all the same, with the last good text of the broken one. Only the removal of a file
//! from a directory that still holds others is taken as meant, after [`REMOVAL_PATIENCE`].
//!
//! Events of the operating system only say when to look; what is read decides whether anything changed.
//! Each second the source is compared by its inodes as well, which finds what no event announces (network
//! file systems) and is all there is, with a warning, where the system has no watches left.

mod layout;
mod watch;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use lb_config::static_config::FileSource;
use lb_config::{Context, LastGood, Loaded, Problem, Problems, Scope, Severity};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, info};

use layout::{Content, Contents, Layout};
use watch::{Change, Watch};

/// What the source said when it was read: a configuration, or why it was refused.
pub type Reading = Result<Loaded, Problems>;

/// Quiet that ends a burst of events: chosen, long enough for an editor's sequence of renames.
const QUIET: Duration = Duration::from_millis(20);
/// A burst that does not end is read this long after its first event, and again and again.
const LONGEST_BURST: Duration = Duration::from_millis(100);
/// How long a file that is being written is left alone when its writer does not close it.
const LONGEST_WRITE: Duration = Duration::from_millis(150);
/// How long a broken, empty or missing file may take to become better, from its last change.
const PATIENCE: Duration = Duration::from_millis(200);
/// The same for a file missing from a directory that holds others: its removal is live within 250 ms.
const REMOVAL_PATIENCE: Duration = Duration::from_millis(120);
/// A file that keeps changing and stays broken is reported after this long.
const LONGEST_DOUBT: Duration = Duration::from_secs(2);
/// What changed within this time may not be finished, for a process that follows one which would not believe it yet. Chosen:
/// twice [`PATIENCE`] and more, so that the other has told by then what it does not believe.
const REST: Duration = Duration::from_millis(500);
/// Time between two looks at a source in doubt.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// Time between two looks that no event asked for.
const POLL: Duration = Duration::from_secs(1);
/// Readings on their way to the listener; a slow listener delays the next reading, never loses one.
const READINGS: usize = 4;

/// Follows one source until it is dropped.
#[derive(Debug)]
pub struct FileProvider {
    wake: SyncSender<Wake>,
    reread: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

/// A provider that runs, what it read first, and what it will read.
#[derive(Debug)]
pub struct Started {
    pub provider: FileProvider,
    /// Read before [`FileProvider::start`] returned; a broken source is not waited for here.
    pub first: Reading,
    /// Closed when the provider ends.
    pub readings: mpsc::Receiver<Reading>,
}

#[derive(Debug)]
enum Wake {
    /// Something about the source may have changed.
    Changed(Change),
    /// One of the flags is set.
    Flag,
}

impl FileProvider {
    /// Reads the source, then follows it on a thread of its own; without `watch` it is read again only by
    /// [`reread`](Self::reread).
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(source: FileSource, watch: bool, context: Context) -> std::io::Result<Started> {
        Self::launch(source, |wake| watch.then(|| Watch::new(wake)), context, Follower::read_first)
    }

    /// The same for a process that follows one which serves on otherwise: what has just changed may not be finished, and
    /// is given time first.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn take_over(source: FileSource, watch: bool, context: Context) -> std::io::Result<Started> {
        Self::launch(source, |wake| watch.then(|| Watch::new(wake)), context, Follower::read_at_rest)
    }

    fn launch(
        source: FileSource,
        watch: impl FnOnce(SyncSender<Wake>) -> Option<Watch>,
        context: Context,
        read: fn(&mut Follower) -> Reading,
    ) -> std::io::Result<Started> {
        let (wake, events) = sync_channel(256);
        let (deliver, readings) = mpsc::channel(READINGS);
        let provider = Self { wake: wake.clone(), reread: Arc::default(), stop: Arc::default() };
        let mut follower = Follower {
            source,
            context,
            last_good: LastGood::default(),
            watch: watch(wake),
            reread: Arc::clone(&provider.reread),
            stop: Arc::clone(&provider.stop),
            deliver,
            referenced: Vec::new(),
            layout: Layout::default(),
            settled: None,
            good: None,
            errors: Vec::new(),
            refused: None,
            doubt: None,
        };
        let first = read(&mut follower);
        thread::Builder::new().name("vigie-file".to_owned()).spawn(move || follower.run(&events))?;
        Ok(Started { provider, first, readings })
    }

    /// Reads the source again, changed or not (`SIGHUP`). Returns at once.
    pub fn reread(&self) {
        self.reread.store(true, Ordering::Release);
        self.nudge();
    }

    fn nudge(&self) {
        // A full queue wakes the thread just as well, and it looks at the flags each time.
        let _ = self.wake.try_send(Wake::Flag);
    }
}

impl Drop for FileProvider {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.nudge();
    }
}

/// The thread's state.
struct Follower {
    source: FileSource,
    context: Context,
    last_good: LastGood,
    /// `None`: the source is not watched.
    watch: Option<Watch>,
    reread: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    deliver: mpsc::Sender<Reading>,
    /// Files that the last configuration named.
    referenced: Vec<PathBuf>,
    layout: Layout,
    /// What the source held when it was last delivered, good or not.
    settled: Option<Contents>,
    /// What it held when it was last good.
    good: Option<Contents>,
    /// What spoiled single objects of it.
    errors: Vec<Problem>,
    /// Why the last delivery was none.
    refused: Option<Problems>,
    doubt: Option<Doubt>,
}

/// Something that looks broken and may just not be finished.
struct Doubt {
    contents: Contents,
    /// What is delivered when nothing better comes.
    reading: Box<Reading>,
    since: Instant,
    until: Instant,
}

/// The thread's work is over.
struct Over;

impl Follower {
    fn read_first(&mut self) -> Reading {
        let contents = self.survey();
        let (contents, reading) = match self.suspect(&contents) {
            Some(problem) => (contents, Err(problem.into())),
            None => self.load(contents),
        };
        self.conclude(contents, &reading);
        reading
    }

    /// As [`read_first`](Self::read_first), once the files have been left alone for [`REST`]. Those that never are get
    /// [`LONGEST_DOUBT`]; one of them that is empty then was not meant so.
    fn read_at_rest(&mut self) -> Reading {
        let began = Instant::now();
        let mut contents = self.survey();
        while self.layout.changed_within(REST).next().is_some() {
            if began.elapsed() > LONGEST_DOUBT {
                let mut changing = self.layout.changed_within(REST);
                if let Some(file) = changing.find(|file| contents.get(file) == Content::Blank) {
                    return Err(about(file, "the file keeps changing, and is empty now", None).into());
                }
                break;
            }
            thread::sleep(LOOK_AGAIN);
            contents = self.survey();
        }
        self.read_first()
    }

    fn run(mut self, events: &Receiver<Wake>) {
        while self.step(events).is_ok() {}
        debug!("the file provider has ended");
    }

    /// Waits for something to happen and deals with it.
    fn step(&mut self, events: &Receiver<Wake>) -> Result<(), Over> {
        let patience = if self.doubt.is_some() { LOOK_AGAIN } else { POLL };
        let changed = match events.recv_timeout(patience) {
            Ok(Wake::Changed(change)) => {
                settle(events, change)?;
                true
            }
            Ok(Wake::Flag) => false,
            Err(RecvTimeoutError::Timeout) => self.watch.is_some() && self.has_moved(),
            Err(RecvTimeoutError::Disconnected) => return Err(Over),
        };
        if self.stop.load(Ordering::Acquire) {
            return Err(Over);
        }
        if self.reread.swap(false, Ordering::AcqRel) {
            info!("reading the dynamic configuration again, as asked");
            (self.settled, self.doubt) = (None, None);
            self.examine()
        } else if changed || self.doubt.is_some() {
            self.examine()
        } else if self.watch.is_some() && self.refused.is_some() {
            // What a refused configuration names is not known, so not watched: a certificate that was
            // missing may be there by now.
            self.try_again()
        } else {
            Ok(())
        }
    }

    /// Loads what was refused once more, and delivers only a different outcome.
    fn try_again(&mut self) -> Result<(), Over> {
        let contents = self.survey();
        if self.suspect(&contents).is_some() {
            return Ok(());
        }
        let (contents, reading) = self.load(contents);
        if reading.as_ref().err() == self.refused.as_ref() {
            Ok(())
        } else {
            self.settle_for(contents, reading)
        }
    }

    /// Does a look without an event find other files than before? Renews the watches by the way.
    fn has_moved(&mut self) -> bool {
        let before = self.layout.clone();
        self.arrange();
        self.layout != before
    }

    /// Reads what is there and delivers it if it is new and beyond doubt.
    fn examine(&mut self) -> Result<(), Over> {
        let contents = self.survey();
        if self.settled.as_ref() == Some(&contents) {
            self.doubt = None;
            return Ok(());
        }
        let now = Instant::now();
        if let Some(doubt) = self.doubt.take_if(|doubt| doubt.contents == contents) {
            if now < doubt.until {
                self.doubt = Some(doubt);
                return Ok(());
            }
            return self.settle_for(contents, *doubt.reading);
        }
        let (contents, reading, patience) = match self.suspect(&contents) {
            Some(problem) => (contents, Err(problem.into()), PATIENCE),
            None => {
                let (contents, reading) = self.load(contents);
                match &reading {
                    Ok(_) if self.lacks_files(&contents) => (contents, reading, REMOVAL_PATIENCE),
                    Ok(loaded) if self.has_new_errors(loaded) => (contents, reading, PATIENCE),
                    Ok(_) => return self.settle_for(contents, reading),
                    Err(_) => (contents, reading, PATIENCE),
                }
            }
        };
        let since = self.doubt.as_ref().map_or(now, |doubt| doubt.since);
        let until = (now + patience).min(since + LONGEST_DOUBT);
        self.doubt = Some(Doubt { contents, reading: Box::new(reading), since, until });
        Ok(())
    }

    fn settle_for(&mut self, contents: Contents, reading: Reading) -> Result<(), Over> {
        self.conclude(contents, &reading);
        self.deliver.blocking_send(reading).map_err(|_| Over)
    }

    /// Remembers what is being delivered.
    fn conclude(&mut self, mut contents: Contents, reading: &Reading) {
        match reading {
            Ok(loaded) => {
                self.last_good.accept();
                self.referenced.clone_from(&loaded.files);
                contents.forget_unreferenced(&self.referenced);
                self.good = Some(contents.clone());
                self.errors = errors(loaded);
                self.refused = None;
            }
            Err(problems) => self.refused = Some(problems.clone()),
        }
        self.doubt = None;
        self.settled = Some(contents);
    }

    /// Looks at the source with watches in place, so that no later change goes unnoticed, and reads it.
    fn survey(&mut self) -> Contents {
        self.arrange();
        self.layout.read()
    }

    fn arrange(&mut self) {
        self.layout = Layout::look(&self.source, &self.referenced);
        if let Some(watch) = &mut self.watch {
            // A directory that appeared together with its files may have got them before its watch.
            while watch.follow(&self.layout) {
                self.layout = Layout::look(&self.source, &self.referenced);
            }
        }
    }

    /// Loads the source, and once more if it names files that were not looked at before: what later looks
    /// are compared with must be older than what was loaded, or a change in between would go unnoticed.
    fn load(&mut self, contents: Contents) -> (Contents, Reading) {
        let reading = self.last_good.load(&self.source, &self.context);
        let Ok(loaded) = &reading else { return (contents, reading) };
        let before = self.referenced.len();
        for file in &loaded.files {
            if !self.referenced.contains(file) {
                self.referenced.push(file.clone());
            }
        }
        if self.referenced.len() == before {
            return (contents, reading);
        }
        let contents = self.survey();
        (contents, self.last_good.load(&self.source, &self.context))
    }

    /// What is wrong with the source before it is even parsed: it is gone.
    fn suspect(&self, contents: &Contents) -> Option<Problem> {
        match &self.source {
            FileSource::File(path) => {
                let missing = contents.get(path) == Content::Missing;
                missing.then(|| about(path, "there is no such file", None))
            }
            FileSource::Directory(path) => {
                let good = self.good.as_ref()?;
                let spoke = good.speaking().next().is_some() && contents.speaking().next().is_none();
                // A file that was emptied, and a directory that is not to be read, say so themselves.
                let emptied = good.speaking().any(|file| contents.get(file) == Content::Blank);
                let vanished = spoke && !emptied && path.read_dir().is_ok();
                let hint = "to remove everything leave one file that says `{}`";
                vanished.then(|| about(path, "no configuration file is left", Some(hint)))
            }
        }
    }

    /// Would objects be left out that were not before? A certificate or a user list may be half-written too.
    fn has_new_errors(&self, loaded: &Loaded) -> bool {
        let errors = errors(loaded);
        !errors.is_empty() && errors != self.errors
    }

    /// Has a file of the last good configuration been removed from the directory?
    fn lacks_files(&self, contents: &Contents) -> bool {
        let gone = |file: &PathBuf| contents.get(file) == Content::Missing;
        self.good.as_ref().is_some_and(|good| good.speaking().any(gone))
    }
}

fn errors(loaded: &Loaded) -> Vec<Problem> {
    loaded.problems.iter().filter(|problem| problem.is_error()).cloned().collect()
}

fn about(path: &std::path::Path, message: &str, hint: Option<&str>) -> Problem {
    Problem {
        severity: Severity::Error,
        scope: Scope::File,
        file: path.display().to_string(),
        line: 0,
        column: 0,
        key: String::new(),
        message: message.to_owned(),
        hint: hint.map(str::to_owned),
    }
}

/// Waits until a burst of events has ended and whoever writes has closed the file.
fn settle(events: &Receiver<Wake>, first: Change) -> Result<(), Over> {
    let start = Instant::now();
    let mut writing: HashSet<PathBuf> = HashSet::new();
    let mut next = Some(first);
    loop {
        match next.take() {
            Some(Change::Writing(path)) => {
                writing.insert(path);
            }
            Some(Change::Closed(path)) => {
                writing.remove(&path);
            }
            Some(Change::Other) | None => {}
        }
        let now = Instant::now();
        let until =
            if writing.is_empty() { (now + QUIET).min(start + LONGEST_BURST) } else { start + LONGEST_WRITE };
        match events.recv_timeout(until.saturating_duration_since(now)) {
            Ok(Wake::Changed(change)) if now < until => next = Some(change),
            Ok(Wake::Changed(_)) | Err(RecvTimeoutError::Timeout) => return Ok(()),
            // The flags are looked at next.
            Ok(Wake::Flag) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => return Err(Over),
        }
    }
}

#[cfg(test)]
mod tests;
