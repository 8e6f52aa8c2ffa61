//! Configuration files of one test.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A directory that is removed when it is dropped.
pub struct Files {
    directory: TempDir,
}

impl Files {
    pub fn new() -> Self {
        Self { directory: TempDir::new().expect("the temporary directory is writable") }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes `name` in one step (rename), so that a watcher never reads half of it.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        let partial = path.with_extension("partial");
        std::fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("writable");
        std::fs::write(&partial, text).expect("writable");
        std::fs::rename(&partial, &path).expect("writable");
        path
    }

    /// Writes `name` the way editors and `cp` do: truncates it, then fills it.
    pub fn write_in_place(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).expect("writable");
        path
    }
}

impl Default for Files {
    fn default() -> Self {
        Self::new()
    }
}
