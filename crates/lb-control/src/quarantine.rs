//! What does not compile joins what was broken when it was read, and what is broken is told.

use std::collections::{BTreeMap, HashSet};

use lb_config::{Kind, Problem, Problems, Reasons, Scope, Settled};
use tracing::{error, info, warn};

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

/// Logs the problems that a provider's part has and the one before had not, wherever their lines have moved to. Those
/// of broken objects are told with these (`told_with`).
pub(crate) fn tell_problems(provider: &str, before: &[Problem], now: &[Problem], told_with: [&Reasons; 2]) {
    fn gist(problem: &Problem) -> (&str, &str, &str) {
        (&problem.file, &problem.key, &problem.message)
    }
    let known: HashSet<_> = before.iter().map(gist).collect();
    for problem in now.iter().filter(|problem| !known.contains(&gist(problem))) {
        if !problem.is_error() {
            warn!(provider, "{problem}");
        } else if !told_with.iter().any(|reasons| covers(reasons, problem)) {
            error!(provider, "{problem}");
        }
    }
}

/// Whether an error is told with its object.
fn covers(reasons: &Reasons, problem: &Problem) -> bool {
    let object = match &problem.scope {
        Scope::Object { kind, name } => (*kind, name.clone()),
        Scope::File => (Kind::File, problem.file.clone()),
    };
    reasons.contains_key(&object)
}

/// How it is told what has become of broken objects.
pub(crate) struct Words {
    begins: &'static str,
    ends: &'static str,
}

pub(crate) const STALE: Words =
    Words { begins: "in quarantine, its last good version is used", ends: "out of quarantine" };

pub(crate) const DISABLED: Words =
    Words { begins: "disabled, it has no good version to go back to", ends: "no longer disabled" };

impl Words {
    /// Says what has changed, one line for each object.
    pub(crate) fn tell(&self, before: &Reasons, now: &Reasons, complain: &dyn Fn(&str)) {
        let Self { begins, ends } = self;
        for ((kind, name), reasons) in
            now.iter().filter(|(object, reasons)| before.get(*object) != Some(*reasons))
        {
            let words = format!("the {kind} {name} is {begins}: {}", reasons.join("; "));
            error!(kind = kind.word(), name, "{words}");
            complain(&words);
        }
        for (kind, name) in before.keys().filter(|object| !now.contains_key(*object)) {
            let words = format!("the {kind} {name} is {ends}");
            info!(kind = kind.word(), name, "{words}");
            complain(&words);
        }
    }
}

/// How many there are of each kind, all kinds named.
pub(crate) fn counts(quarantined: &Reasons) -> Vec<(&'static str, usize)> {
    const KINDS: [(Kind, &str); 13] = [
        (Kind::Router, "router"),
        (Kind::Service, "service"),
        (Kind::Middleware, "middleware"),
        (Kind::ServersTransport, "servers_transport"),
        (Kind::TlsOptions, "tls_options"),
        (Kind::TcpRouter, "tcp_router"),
        (Kind::TcpService, "tcp_service"),
        (Kind::TcpMiddleware, "tcp_middleware"),
        (Kind::TcpServersTransport, "tcp_servers_transport"),
        (Kind::UdpRouter, "udp_router"),
        (Kind::UdpService, "udp_service"),
        (Kind::Certificate, "certificate"),
        (Kind::File, "file"),
    ];
    let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
    for (kind, _) in quarantined.keys() {
        *counts.entry(*kind).or_default() += 1;
    }
    KINDS.iter().map(|(kind, word)| (*word, counts.get(kind).copied().unwrap_or(0))).collect()
}
