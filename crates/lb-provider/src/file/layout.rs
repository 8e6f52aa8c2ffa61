//! What the source looks like on disk: which files it consists of, and where a change of them would show.
//!
//! A path means what the symbolic links on its way say, so every directory that holds one of those links is
//! part of the answer: swapping `..data` of a Kubernetes ConfigMap or `current` of a release directory
//! changes the configuration without touching the file itself.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::hash::Hasher;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use lb_config::static_config::FileSource;

/// Links followed on the way to one file; Linux gives up at 40 as well.
const MAX_LINKS: usize = 40;

/// A cheap look at the source: names and inodes, no content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// Every file that makes the configuration, by the path it was found at.
    files: BTreeMap<PathBuf, File>,
    /// Directories to watch, free of symbolic links.
    pub(super) directories: BTreeSet<PathBuf>,
    /// Entries of those directories that matter.
    names: BTreeSet<PathBuf>,
    /// Directories of which every entry matters.
    trees: BTreeSet<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    /// `None`: there is no such file.
    identity: Option<Identity>,
    role: Role,
}

/// Changes whenever the content does, as far as the clock of the file system can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// A file of the configuration itself.
    Source,
    /// A certificate, key or user list that it names.
    Referenced,
}

/// The files with what they hold, good enough to tell two states of the source apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents(BTreeMap<PathBuf, (Role, Content)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Missing,
    Unreadable(io::ErrorKind),
    /// It defines nothing.
    Blank,
    /// A hash of the bytes.
    Bytes(u64),
}

impl Layout {
    /// Looks at the source and at the files its last good configuration referred to.
    pub(super) fn look(source: &FileSource, referenced: &[PathBuf]) -> Self {
        let mut layout = Self::default();
        match source {
            FileSource::File(path) => layout.add(path, Role::Source),
            FileSource::Directory(path) => {
                if let Some(real) = layout.follow(path) {
                    layout.walk(path, &real);
                }
            }
        }
        for path in referenced {
            if !layout.files.contains_key(path) {
                layout.add(path, Role::Referenced);
            }
        }
        layout
    }

    /// Reads every file of it.
    pub(super) fn read(&self) -> Contents {
        let read = |(path, file): (&PathBuf, &File)| (path.clone(), (file.role, read(path)));
        Contents(self.files.iter().map(read).collect())
    }

    /// The files that have changed in this time. A clock that was set back says so of none.
    pub(super) fn changed_within(&self, span: Duration) -> impl Iterator<Item = &PathBuf> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let changed = move |identity: &Identity| {
            let (seconds, nanos) = identity.changed;
            let at = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?);
            now.checked_sub(at)
        };
        let files = self
            .files
            .iter()
            .filter(move |(_, file)| file.identity.as_ref().and_then(changed).is_some_and(|age| age < span));
        files.map(|(path, _)| path)
    }

    /// Can a change at `path` change the configuration?
    pub(super) fn concerns(&self, path: &Path) -> bool {
        self.names.contains(path)
            || self.directories.contains(path)
            || self.trees.iter().any(|tree| path.starts_with(tree))
    }

    /// Is a file at `path` one that is read?
    pub(super) fn holds(&self, path: &Path) -> bool {
        self.names.contains(path)
            || path.file_name().is_some_and(is_configuration)
                && self.trees.iter().any(|tree| path.starts_with(tree))
    }

    fn add(&mut self, path: &Path, role: Role) {
        let identity =
            self.follow(path).and_then(|real| fs::metadata(real).ok()).map(|found| Identity::new(&found));
        self.files.insert(path.to_owned(), File { identity, role });
    }

    /// Adds every configuration file below `real`, under the name it has seen from `shown`.
    fn walk(&mut self, shown: &Path, real: &Path) {
        self.directories.insert(real.to_owned());
        self.trees.insert(real.to_owned());
        let Ok(entries) = fs::read_dir(real) else { return };
        for entry in entries.flatten() {
            let (name, Ok(kind)) = (entry.file_name(), entry.file_type()) else { continue };
            // Kubernetes keeps the versions of a ConfigMap in `..<time>` and links to them from outside.
            if name.as_encoded_bytes().starts_with(b"..") {
                continue;
            }
            let (shown, real) = (shown.join(&name), real.join(&name));
            if kind.is_dir() {
                self.walk(&shown, &real);
            } else if is_configuration(&name) {
                if kind.is_symlink() {
                    self.add(&shown, Role::Source);
                } else {
                    let identity = entry.metadata().ok().map(|found| Identity::new(&found));
                    self.files.insert(shown, File { identity, role: Role::Source });
                }
            }
        }
    }

    /// Follows `path` to what it really names, noting each place where its meaning can change.
    /// `None`: it leads nowhere; then the deepest directory that exists is noted.
    fn follow(&mut self, path: &Path) -> Option<PathBuf> {
        let absolute = std::path::absolute(path).ok()?;
        let mut ahead: VecDeque<Step> = steps(&absolute).collect();
        let (mut here, mut links) = (PathBuf::from("/"), 0);
        while let Some(step) = ahead.pop_front() {
            let name = match step {
                Step::Up => {
                    here.pop();
                    continue;
                }
                Step::Into(name) => name,
            };
            let next = here.join(name);
            match fs::symlink_metadata(&next) {
                Ok(found) if found.is_symlink() => {
                    self.note(&here, &next);
                    links += 1;
                    let target = fs::read_link(&next).ok().filter(|_| links <= MAX_LINKS)?;
                    if target.is_absolute() {
                        here = PathBuf::from("/");
                    }
                    for step in steps(&target).collect::<Vec<_>>().into_iter().rev() {
                        ahead.push_front(step);
                    }
                }
                Ok(_) => here = next,
                Err(_) => {
                    self.note(&here, &next);
                    return None;
                }
            }
        }
        // The file in its directory, and the directory in its own: it may be moved away as a whole.
        if let Some(parent) = here.parent() {
            self.note(parent, &here);
            if let Some(grandparent) = parent.parent() {
                self.note(grandparent, parent);
            }
        }
        Some(here)
    }

    fn note(&mut self, directory: &Path, entry: &Path) {
        self.directories.insert(directory.to_owned());
        self.names.insert(entry.to_owned());
    }
}

enum Step {
    Into(OsString),
    Up,
}

fn steps(path: &Path) -> impl Iterator<Item = Step> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(Step::Into(name.to_owned())),
        Component::ParentDir => Some(Step::Up),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    })
}

/// Is it a file that `directory` reads?
fn is_configuration(name: &OsStr) -> bool {
    lb_config::is_configuration(Path::new(name))
}

fn read(path: &Path) -> Content {
    match lb_config::read_bytes(path) {
        Ok(bytes) if str::from_utf8(&bytes).is_ok_and(lb_config::defines_nothing) => Content::Blank,
        Ok(bytes) => {
            let mut hasher = DefaultHasher::new();
            hasher.write(&bytes);
            Content::Bytes(hasher.finish())
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Content::Missing
        }
        Err(error) => Content::Unreadable(error.kind()),
    }
}

impl Identity {
    fn new(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

impl Contents {
    /// The configuration files that say something.
    pub(super) fn speaking(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.iter().filter_map(|(path, (role, content))| {
            (*role == Role::Source && !matches!(content, Content::Missing | Content::Blank)).then_some(path)
        })
    }

    /// Drops the files that a newer configuration no longer names.
    pub(super) fn forget_unreferenced(&mut self, referenced: &[PathBuf]) {
        self.0.retain(|path, (role, _)| *role == Role::Source || referenced.contains(path));
    }

    pub(super) fn get(&self, path: &Path) -> Content {
        self.0.get(path).map_or(Content::Missing, |(_, content)| *content)
    }
}
