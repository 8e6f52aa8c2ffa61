//! The rules of the house, over `cargo metadata`: which crate may import which.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::harness::repository;

#[derive(Debug, Default)]
struct Package {
    normal: BTreeSet<String>,
    development: BTreeSet<String>,
}

/// The members of the workspace with their direct dependencies.
fn members() -> BTreeMap<String, Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(repository())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let mut members = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let mut own = Package::default();
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let name = dependency["name"].as_str().expect("a name").to_owned();
            // Build scripts run with what ships.
            let kind = if dependency["kind"] == "dev" { &mut own.development } else { &mut own.normal };
            kind.insert(name);
        }
        members.insert(package["name"].as_str().expect("a name").to_owned(), own);
    }
    members
}

const ROOTS: [&str; 2] = ["lb-core", "lb-http1"];
const KNOWLEDGE: [&str; 2] = ["lb-config", "lb-observe"];
const SIDES: [&str; 5] = ["lb-proxy", "lb-control", "lb-provider", "lb-acme", "lb-admin"];
/// What `vigie demo` puts behind itself; knows nothing of it.
const REPLICA: &str = "lb-replica";
/// What is never shipped.
const TESTS: [&str; 3] = ["lb-testkit", "lb-e2e", "lb-bench"];

#[test]
fn arrows_point_down_never_sideways() {
    let members = members();
    let ours: BTreeSet<_> = members.keys().map(String::as_str).collect();
    for (name, package) in &members {
        let imports: BTreeSet<_> =
            package.normal.iter().map(String::as_str).filter(|d| ours.contains(d)).collect();
        let allowed: Vec<&str> = match name.as_str() {
            name if ROOTS.contains(&name) => Vec::new(),
            name if KNOWLEDGE.contains(&name) => ROOTS.to_vec(),
            name if SIDES.contains(&name) => [&ROOTS[..], &KNOWLEDGE].concat(),
            "vigie" => [&ROOTS[..], &KNOWLEDGE, &SIDES, &[REPLICA]].concat(),
            // The judge shares no code with what it judges, nor does the reference replica.
            "lb-testkit" | REPLICA => Vec::new(),
            "lb-e2e" => vec!["vigie", REPLICA],
            "lb-bench" => [&ROOTS[..], &KNOWLEDGE, &SIDES, &["vigie", "lb-testkit"]].concat(),
            _ => panic!("{name} is new: give it a place in design.md, then here"),
        };
        for import in imports {
            assert!(allowed.contains(&import), "{name} imports {import}, which design.md does not allow");
        }
    }
}

#[test]
fn only_tests_use_the_testkit() {
    for (name, package) in members() {
        let ships = !TESTS.contains(&name.as_str());
        assert!(!ships || !package.normal.contains("lb-testkit"), "{name} ships lb-testkit");
    }
}

/// Errors of libraries have types; `anyhow` is for whoever only reports them.
#[test]
fn libraries_have_typed_errors() {
    for (name, package) in members() {
        let may = name == "vigie" || name == REPLICA || TESTS.contains(&name.as_str());
        assert!(may || !package.normal.contains("anyhow"), "{name} uses anyhow");
    }
}

/// Decisions are pure: no clock, no socket, no log.
#[test]
fn the_core_stays_pure() {
    let members = members();
    for name in ROOTS {
        for banned in
            ["tokio", "hyper", "hyper-util", "rustls", "tokio-rustls", "tracing", "h2", "socket2", "mio"]
        {
            assert!(!members[name].normal.contains(banned), "{name} imports {banned}");
        }
    }
    for name in KNOWLEDGE {
        for banned in ["tokio", "hyper", "socket2", "mio", "h2"] {
            assert!(!members[name].normal.contains(banned), "{name} knows no sockets but imports {banned}");
        }
    }
}

/// Versions and lints are said once, in the root.
#[test]
fn every_member_takes_versions_and_lints_from_the_root() {
    let root = repository();
    for folder in ["crates", "."] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let manifest = entry.unwrap().path().join("Cargo.toml");
            let Ok(text) = std::fs::read_to_string(&manifest) else { continue };
            if text.contains("[workspace]") {
                continue; // The root itself, and fuzz/, which needs a nightly compiler.
            }
            let shown = manifest.display();
            assert!(text.contains("[lints]\nworkspace = true"), "{shown} has lints of its own");
            let mut section = "";
            for line in text.lines() {
                if line.starts_with('[') {
                    section = line;
                } else if section.contains("dependencies") && line.contains('=') && !line.starts_with('#') {
                    assert!(line.contains("workspace = true"), "{shown}: {line}");
                }
            }
        }
    }
}
