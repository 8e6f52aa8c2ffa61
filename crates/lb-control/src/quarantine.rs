//! What does not compile joins what was broken when it was read, and what is in quarantine is told.

use std::collections::BTreeMap;

use lb_config::{Kind, Problem, Problems, Reasons, Scope, Settled};
use tracing::{error, info};

/// Takes in what a build failed for; false when nothing is to be gained by another one.
///
/// An object that fails goes back to its version in force. One that fails again is left out, unless it is in force: then
/// the whole change is refused, rather than that something that works is lost.
pub(crate) fn learn(
    problems: &Problems,
    spoilt: &mut Reasons,
    left_out: &mut Reasons,
    settled: &Settled,
) -> bool {
    let mut failed = Reasons::new();
    for problem in problems.iter() {
        let Scope::Object { kind, name } = &problem.scope else { return false };
        failed.entry((*kind, name.clone())).or_default().push(problem.line());
    }
    let mut learnt = false;
    for (object, reasons) in failed {
        let again = spoilt.contains_key(&object);
        let known = if again { &mut *left_out } else { &mut *spoilt };
        let in_force = again && settled.stale.contains_key(&object);
        if !in_force && !known.contains_key(&object) {
            known.insert(object, reasons);
            learnt = true;
        }
    }
    learnt
}

/// Whether the problem is told with the quarantine of its object.
pub(crate) fn covers(quarantined: &Reasons, problem: &Problem) -> bool {
    let object = match &problem.scope {
        Scope::Object { kind, name } => (*kind, name.clone()),
        Scope::File => (Kind::File, problem.file.clone()),
    };
    problem.is_error() && quarantined.contains_key(&object)
}

/// Says what has changed, one line for each object.
pub(crate) fn tell(before: &Reasons, now: &Reasons, complain: &dyn Fn(&str)) {
    for ((kind, name), reasons) in
        now.iter().filter(|(object, reasons)| before.get(*object) != Some(*reasons))
    {
        let reasons = reasons.join("; ");
        error!(kind = kind.word(), name, "In quarantine, its last good version is used: {reasons}");
        complain(&format!("the {kind} {name} is in quarantine, its last good version is used: {reasons}"));
    }
    for (kind, name) in before.keys().filter(|object| !now.contains_key(*object)) {
        info!(kind = kind.word(), name, "Out of quarantine");
    }
}

/// How many there are of each kind, all kinds named.
pub(crate) fn counts(quarantined: &Reasons) -> Vec<(&'static str, usize)> {
    const KINDS: [(Kind, &str); 7] = [
        (Kind::Router, "router"),
        (Kind::Service, "service"),
        (Kind::Middleware, "middleware"),
        (Kind::ServersTransport, "servers_transport"),
        (Kind::TlsOptions, "tls_options"),
        (Kind::Certificate, "certificate"),
        (Kind::File, "file"),
    ];
    let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
    for (kind, _) in quarantined.keys() {
        *counts.entry(*kind).or_default() += 1;
    }
    KINDS.iter().map(|(kind, word)| (*word, counts.get(kind).copied().unwrap_or(0))).collect()
}
