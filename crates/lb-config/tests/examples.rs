//! Every file under `config/` runs as it stands: no error, and no warning either.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lb_config::docker::{Addresses, Container, load_containers};
use lb_config::static_config::ContainerSettings;
use lb_config::{Config, Context, load_dynamic, load_static};

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

/// It changes the working directory, against which paths in the files resolve.
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

/// The labels in the Compose files that ship make what they should, without a word.
#[test]
fn labels_of_compose_files_are_right() {
    let compose = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/compose");
    for path in yaml_below(&compose) {
        let text = std::fs::read_to_string(&path).unwrap();
        let label = |line: &str| {
            let label = line.trim().strip_prefix("- \"traefik.")?.strip_suffix('"')?;
            let (key, value) = label.split_once('=')?;
            Some((format!("traefik.{key}"), value.replace("$$", "$")))
        };
        let labels: std::collections::BTreeMap<_, _> = text.lines().filter_map(label).collect();
        assert!(labels.len() > 3, "{}", path.display());
        let networks = [("cartae".to_owned(), Addresses { v4: "10.0.0.2".parse().ok(), v6: None })].into();
        let name = "cartae-api-1".to_owned();
        let container = Container { name, labels, is_running: true, networks, ..Container::default() };
        let settings = ContainerSettings::default();
        let loaded = load_containers(&[container], &settings, &Config::default(), &Context::default());
        assert!(loaded.problems.is_empty(), "{}", loaded.problems[0]);
        if path.file_stem().unwrap() != "cartae" {
            assert!(!loaded.config.routers.is_empty(), "{}", path.display());
            continue;
        }
        assert_eq!(loaded.config.routers["api@docker"].middlewares, ["limit@docker"]);
        let service = &loaded.config.services["api@docker"];
        assert_eq!(service.servers[0].url, "http://10.0.0.2:3001");
        assert!(service.sticky.is_some() && service.health_check.is_some());
    }
}

/// It compiles with the toolchain that the workspace asks for.
#[test]
fn the_image_has_the_toolchain() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/docker/Dockerfile");
    let text = std::fs::read_to_string(file).unwrap();
    let from = format!("FROM rust:{}-", env!("CARGO_PKG_RUST_VERSION"));
    assert!(text.contains(&from), "{from}");
}
