//! Every file under `config/` runs as it stands: no error, and no warning either.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lb_config::{Context, load_dynamic, load_static};

fn yaml_below(directory: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(yaml_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml") {
            files.insert(path);
        }
    }
    files
}

/// The only test here: it changes the working directory, against which paths in the files resolve.
#[test]
fn every_example_loads_without_a_problem() {
    std::env::set_current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap();
    let mut unread = yaml_below(Path::new("config"));
    assert!(!unread.is_empty());
    for estate in std::fs::read_dir("config").unwrap() {
        let estate = estate.unwrap().path();
        let static_files: Vec<PathBuf> =
            yaml_below(&estate).into_iter().filter(|path| path.parent() == Some(&estate)).collect();
        assert!(!static_files.is_empty(), "{} has no static file", estate.display());
        for path in static_files {
            let (config, warnings) = load_static(&path).unwrap_or_else(|problems| panic!("{problems}"));
            assert!(warnings.is_empty(), "{}", warnings[0]);
            unread.remove(&path);
            let Some(provider) = &config.providers.file else { continue };
            let loaded = load_dynamic(&provider.source, &Context::from(&config));
            let loaded =
                loaded.and_then(lb_config::Loaded::strict).unwrap_or_else(|problems| panic!("{problems}"));
            assert!(loaded.problems.is_empty(), "{}", loaded.problems[0]);
            for entry_point in &config.entry_points {
                for middleware in &entry_point.http.middlewares {
                    assert!(loaded.config.middlewares.contains_key(middleware), "{middleware}");
                }
            }
            for file in loaded.files {
                unread.remove(&file);
            }
        }
    }
    assert!(unread.is_empty(), "no static file leads to {unread:?}");
}
