//! The providers `docker` and `swarm`: from containers and their labels to a checked configuration (reference 4).
//!
//! Each container becomes the document that a file with the same meaning would hold, so what is known of files holds
//! for labels: the same keys, checks and hints. Problems name the container in place of the file, and the label in
//! place of line and key. Then the containers' parts become one: those that define the same service are its servers.

mod configuration;
mod constraints;
mod container;
mod layer4;
mod merge;
mod rule_template;
pub(crate) mod tree;

use std::collections::BTreeMap;

pub use constraints::Constraints;
pub use container::{Addresses, Container, NetworkMode, Port};
pub use rule_template::RuleTemplate;

use crate::decode::Report;
use crate::document::{Files, Node};
use crate::dynamic::Config;
use crate::dynamics::Draft;
use crate::load::{Context, Loaded};
use crate::problem::{Kind, Problem, Scope, Severity, escaped, printable};
use crate::static_config::ContainerSettings;
use configuration::{Reader, Remark};

/// The providers whose objects are made by labels.
pub(crate) const LABELLED: [&str; 2] = ["docker", "swarm"];

/// Whether a closer look at a container is worth it.
pub fn is_candidate(
    labels: &BTreeMap<String, String>,
    is_running: bool,
    settings: &ContainerSettings,
) -> bool {
    let label = |name| switch(labels, name);
    // A value that is neither yes nor no is to be told.
    let enabled = label("traefik.enable").map_or(settings.exposed_by_default, |value| value != Some(false));
    enabled
        && (is_running || label("traefik.docker.allownonrunning").is_some_and(|value| value != Some(false)))
}

/// Whether a service of a swarm is reached at its virtual address, behind which the swarm balances.
pub fn is_balanced_by_swarm(labels: &BTreeMap<String, String>) -> bool {
    ["traefik.swarm.lbswarm", "traefik.docker.lbswarm"]
        .iter()
        .any(|name| switch(labels, name) == Some(Some(true)))
}

/// What a label says; within, `None` when that is neither yes nor no.
fn switch(labels: &BTreeMap<String, String>, name: &str) -> Option<Option<bool>> {
    let (_, value) = labels.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    Some(crate::decode::boolean(value))
}

/// The configuration that `containers` make.
///
/// One object's mistake spoils that object, one container's no other. Where containers define the same object
/// differently, the definition in `last` (what was loaded before) stays, if one of them still has it; without one the
/// object is dropped, as in Traefik.
pub fn load_containers(
    containers: &[Container],
    settings: &ContainerSettings,
    last: &Config,
    context: &Context,
) -> Loaded {
    let mut containers: Vec<&Container> = containers.iter().collect();
    containers.sort_by_cached_key(|container| (container.base_name(), container.id.clone()));
    let mut files = Files::default();
    let mut labels: Vec<&str> = Vec::new();
    let mut remarks: Vec<Remark> = Vec::new();
    let mut roots: Vec<Node> = Vec::new();
    for container in containers {
        let file = files.add(&container.title());
        // Lines count from 1.
        let first_line = u32::try_from(labels.len() + 1).unwrap_or(u32::MAX);
        labels.extend(container.labels.keys().map(String::as_str));
        let mut reader = Reader { container, settings, file, first_line, remarks: Vec::new() };
        roots.extend(reader.read().map(tree::Branch::into_node));
        remarks.append(&mut reader.remarks);
    }
    let reports: Vec<Report<'_>> = roots.iter().map(|_| Report::of_labels(&files)).collect();
    let draft = |report| Draft::new(report, &files, context, settings.orchestrator.provider());
    let drafts = roots.iter().zip(&reports).map(|(root, report)| {
        let mut draft = draft(report);
        draft.read(root);
        draft
    });
    let together = Report::of_labels(&files);
    let mut merged = draft(&together);
    merge::merge(&mut merged, drafts.collect(), last);
    let removed = crate::dynamics::check_references(&mut merged);
    let (config, defined) = (merged.config, merged.defined);
    let mut problems: Vec<Problem> = remarks.into_iter().map(|remark| problem(&files, remark)).collect();
    let found = together.into_findings();
    problems.extend(found.problems);
    let mut read = found.read;
    for report in reports {
        let found = report.into_findings();
        problems.extend(found.problems);
        read.extend(found.read);
    }
    for problem in &mut problems {
        name_label(problem, &labels);
    }
    problems.sort_by_cached_key(|Problem { file, key, message, .. }| {
        (files.order(file), key.clone(), message.clone())
    });
    // The tasks of a service have one set of labels.
    problems.dedup();
    problems.truncate(crate::decode::KEPT);
    read.sort();
    read.dedup();
    Loaded::of_labels(config, problems, found.broken, removed, (files, defined), read)
}

/// Puts the label where a file has its line and key.
fn name_label(problem: &mut Problem, labels: &[&str]) {
    let index = usize::try_from(problem.line).unwrap_or(0).checked_sub(1);
    if let Some(label) = index.and_then(|index| labels.get(index)) {
        problem.key = printable(label);
    }
    (problem.line, problem.column) = (0, 0);
}

fn problem(files: &Files, remark: Remark) -> Problem {
    let severity = if remark.is_error { Severity::Error } else { Severity::Warning };
    let scope = Scope::Object { kind: Kind::File, name: files.name(remark.at.file).to_owned() };
    let hint = remark.hint.as_deref().map(escaped);
    Problem { scope, ..files.problem(remark.at, severity, escaped(&remark.message), hint) }
}

#[cfg(test)]
mod tests;
