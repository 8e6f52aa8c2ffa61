//! The operating system's notifications, reduced to what the file provider acts on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;

use super::Wake;
use super::layout::Layout;

/// How long the watcher rests when all it hears is about neighbours. A log in the same directory would wake it at
/// each line, which cost 2 µs of every request; meanwhile the system puts equal events together.
const REST: Duration = Duration::from_millis(5);
/// Events that came during a rest are gone through for this long before the next.
const ATTENTION: Duration = Duration::from_micros(500);

/// Something about the source may have changed.
#[derive(Debug)]
pub(super) enum Change {
    /// This file is being written; it is closed later.
    Writing(PathBuf),
    /// This file was written and closed, or is no longer there to be waited for.
    Closed(PathBuf),
    Other,
}

/// Watches on the directories of a [`Layout`].
pub(super) struct Watch {
    /// `None`: the system gives none; the provider polls.
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    /// Tells the events that matter from those of neighbours in the same directories.
    layout: Arc<Mutex<Layout>>,
    warned: bool,
}

impl Watch {
    pub(super) fn new(wake: SyncSender<Wake>) -> Self {
        let layout = Arc::new(Mutex::new(Layout::default()));
        let known = Arc::clone(&layout);
        let mut rested = Instant::now();
        let notice = move |event: notify::Result<Event>| {
            let changes = changes(event, &known.lock());
            if changes.is_empty() && rested.elapsed() > ATTENTION {
                thread::sleep(REST);
                rested = Instant::now();
            }
            for change in changes {
                // When the queue is full the provider has been told already.
                let _ = wake.try_send(Wake::Changed(change));
            }
        };
        let mut watch = Self { watcher: None, watched: BTreeSet::new(), layout, warned: false };
        match notify::recommended_watcher(notice) {
            Ok(watcher) => watch.watcher = Some(watcher),
            Err(error) => watch.warn(None, &error),
        }
        watch
    }

    /// What [`new`](Self::new) makes where the system has no notifications to give.
    #[cfg(test)]
    pub(super) fn without_notifications() -> Self {
        Self { watcher: None, watched: BTreeSet::new(), layout: Arc::default(), warned: true }
    }

    /// Watches the directories of `layout` and no others. True when some are new, and so may have changed
    /// between the look and the watch.
    pub(super) fn follow(&mut self, layout: &Layout) -> bool {
        self.layout.lock().clone_from(layout);
        let Some(mut watcher) = self.watcher.take() else { return false };
        for gone in self.watched.difference(&layout.directories) {
            // The watch of a directory that was removed is gone already.
            let _ = watcher.unwatch(gone);
        }
        self.watched.retain(|directory| layout.directories.contains(directory));
        let mut news = false;
        for directory in &layout.directories {
            // Watching twice is free, and the directory of this name may be another one than before.
            match watcher.watch(directory, RecursiveMode::NonRecursive) {
                Ok(()) => news |= self.watched.insert(directory.clone()),
                // It vanished since the look; its parent's watch tells when it is back.
                Err(error) if is_missing(&error) => {
                    self.watched.remove(directory);
                }
                Err(error) => self.warn(Some(directory), &error),
            }
        }
        self.watcher = Some(watcher);
        news
    }

    fn warn(&mut self, directory: Option<&Path>, error: &notify::Error) {
        if !std::mem::replace(&mut self.warned, true) {
            let directory = directory.map_or("files".to_owned(), |path| path.display().to_string());
            warn!(%error, "cannot watch {directory}: changes are looked for each second instead \
                   (on Linux raise fs.inotify.max_user_watches or max_user_instances)");
        }
    }
}

fn is_missing(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::PathNotFound => true,
        ErrorKind::Io(error) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

fn changes(event: notify::Result<Event>, layout: &Layout) -> Vec<Change> {
    let Ok(event) = event else { return vec![Change::Other] };
    if event.need_rescan() {
        return vec![Change::Other];
    }
    let paths = event.paths.into_iter().filter(|path| layout.concerns(path));
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => paths.map(Change::Closed).collect(),
        // Reading changes nothing, and we read ourselves.
        EventKind::Access(_) => Vec::new(),
        EventKind::Modify(ModifyKind::Data(_)) => paths
            // An editor keeps its swap file open for as long as it runs.
            .map(|path| if layout.holds(&path) { Change::Writing(path) } else { Change::Other })
            .collect(),
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => paths.map(Change::Closed).collect(),
        _ => paths.map(|_| Change::Other).collect(),
    }
}
