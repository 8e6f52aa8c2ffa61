//! Which files a directory of dynamic configurations holds.

use std::path::{Path, PathBuf};

use crate::document::{Format, source_reason};
use crate::problem::{Problem, Problems};

/// More files are refused; chosen.
const MAX_FILES: usize = 10_000;
/// Deeper directories are refused; chosen.
const MAX_DEPTH: usize = 16;
/// Together the files may not be bigger; chosen, six of the biggest.
pub(crate) const MAX_TOTAL_BYTES: usize = 100 * 1024 * 1024;

/// Whether `path` has the name of a file that a directory is read for.
pub fn is_configuration(path: &Path) -> bool {
    Format::of(path).is_some()
}

/// All YAML and TOML files below `directory`, in lexicographic order, sub-directories in their place
/// (reference 6.4). Links to directories are not followed, and what begins with `..` is not looked at: in
/// a Kubernetes ConfigMap those are the versions (`..2026_11_22`, `..data`) that the visible links lead to.
pub(crate) fn list(directory: &Path) -> Result<Vec<PathBuf>, Problems> {
    let mut files = Vec::new();
    // Directories and files still to take, the next one last.
    let mut pending = vec![(directory.to_owned(), true, 0)];
    while let Some((path, is_directory, depth)) = pending.pop() {
        if !is_directory {
            if is_configuration(&path) {
                files.push(path);
            }
            if files.len() > MAX_FILES {
                return refuse(directory, format!("holds more than {MAX_FILES} files"));
            }
            continue;
        }
        if depth > MAX_DEPTH {
            return refuse(&path, format!("nested deeper than {MAX_DEPTH} directories"));
        }
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) => return refuse(&path, source_reason(&error)),
        };
        let mut inside = Vec::new();
        for entry in entries {
            let entry = match entry {
                Ok(entry) if entry.file_name().as_encoded_bytes().starts_with(b"..") => continue,
                entry => entry.and_then(|entry| Ok((entry.path(), entry.file_type()?.is_dir()))),
            };
            match entry {
                Ok((path, is_directory)) => inside.push((path, is_directory, depth + 1)),
                Err(error) => return refuse(&path, source_reason(&error)),
            }
        }
        inside.sort_by(|a, b| b.0.cmp(&a.0));
        pending.extend(inside);
    }
    Ok(files)
}

fn refuse<T>(path: &Path, message: String) -> Result<T, Problems> {
    let hint = if path.is_file() {
        "name a file by `providers.file.filename`"
    } else {
        "check `providers.file.directory`"
    }
    .to_owned();
    Err(Problem::whole_file(&path.display().to_string(), message, Some(hint)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_in_order_with_sub_directories_in_their_place() {
        let root = tempfile::tempdir().unwrap();
        for name in ["b.yml", "a/z.YAML", "a/y.toml", "c.txt", "d.yml", "a.yml"] {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found = list(root.path()).unwrap();
        let names: Vec<_> =
            found.iter().map(|path| path.strip_prefix(root.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a/y.toml", "a/z.YAML", "a.yml", "b.yml", "d.yml"]);
    }

    #[test]
    fn a_config_map_shows_each_file_once_while_its_versions_are_swapped() {
        use std::os::unix::fs::symlink;

        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for version in ["..v1", "..v2"] {
            std::fs::create_dir(at(version)).unwrap();
            std::fs::write(at(version).join("shop.yml"), format!("# {version}")).unwrap();
        }
        symlink("..v1", at("..data")).unwrap();
        symlink("..data/shop.yml", at("shop.yml")).unwrap();
        let read = || std::fs::read_to_string(&list(root.path()).unwrap()[0]).unwrap();
        assert_eq!(list(root.path()).unwrap(), [at("shop.yml")]);
        assert_eq!(read(), "# ..v1");
        // As the kubelet does it: a new link beside the old one, renamed over it.
        symlink("..v2", at("..data_tmp")).unwrap();
        assert_eq!(list(root.path()).unwrap(), [at("shop.yml")]);
        std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert_eq!(list(root.path()).unwrap(), [at("shop.yml")]);
        assert_eq!(read(), "# ..v2");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = list(Path::new("/does/not/exist")).unwrap_err().to_string();
        assert!(error.starts_with("/does/not/exist: does not exist\n"), "{error}");
    }
}
