//! Certificates from authorities: lb-acme between the control plane and the data plane.

use std::sync::Arc;

use lb_acme::{Acme, Failing, Provider};
use lb_config::acme::Challenge;
use lb_config::{Problem, Severity, StaticConfig};
use lb_control::Control;
use lb_proxy::{InternalResponse, Validations};

/// Where the answers to challenges are asked for.
const PREFIX: &str = "/.well-known/acme-challenge/";

/// Attaches each resolver as a provider of certificates.
pub(crate) fn attach(control: &mut Control, providers: Vec<Provider>) {
    for Provider { name, first, readings } in providers {
        control.attach(&name, first.map(Ok), readings);
    }
}

/// Whether a provider is a resolver: having certificates is not yet having a configuration.
pub(crate) fn is_resolver(provider: &str) -> bool {
    provider.ends_with(".acme")
}

/// The handshakes that validate names; `None` where no resolver does it so.
pub(crate) fn validations(acme: &Acme, config: &StaticConfig) -> Option<Arc<Validations>> {
    let over_tls = |resolver: &lb_config::acme::Resolver| matches!(resolver.challenge, Challenge::Tls { .. });
    let answers = acme.answers();
    let wanted = config.certificates_resolvers.values().any(over_tls);
    wanted.then(|| Arc::new(move |name: &str| answers.tls(name)) as Arc<Validations>)
}

/// The answer for the path of a challenge.
pub(crate) fn answer(answers: &lb_acme::Answers, path: &str) -> InternalResponse {
    let expected = path.strip_prefix(PREFIX).and_then(|token| answers.http(token));
    match expected {
        Some(body) => InternalResponse {
            status: 200,
            // RFC 8555 section 8.3.
            headers: vec![("Content-Type", "application/octet-stream".into())],
            body: body.into_bytes(),
        },
        None => InternalResponse { status: 404, headers: Vec::new(), body: Vec::new() },
    }
}

/// What is failing, for `/health`.
pub(crate) fn failing(acme: &Acme) -> Vec<String> {
    let line = |failing: Failing| {
        let Failing { resolver, names, reason, next } = failing;
        let names = if names.is_empty() { String::new() } else { format!(", {}", names.join(" ")) };
        let next =
            next.map(|next| format!("; next try at {}", lb_observe::rfc3339(next))).unwrap_or_default();
        format!("certResolver {resolver}{names}: {reason}{next}")
    };
    acme.failing().into_iter().map(line).collect()
}

/// Files and DNS providers of resolvers that cannot be used.
pub(crate) fn problems(config: &StaticConfig) -> Vec<Problem> {
    let problem = |severity, key: String, message: String, hint: &str| Problem {
        severity,
        scope: lb_config::Scope::File,
        file: config.file.clone(),
        line: 0,
        column: 0,
        key: format!("certificatesResolvers.{key}"),
        message,
        hint: Some(hint.to_owned()),
    };
    let mut problems = Vec::new();
    for (name, resolver) in &config.certificates_resolvers {
        if let Err(error) = lb_acme::check(&resolver.storage) {
            let hint = "the path is relative to the working directory; `chmod 600` makes the file private";
            let key = format!("{name}.acme.storage");
            problems.push(problem(Severity::Error, key, error.to_string(), hint));
        }
        if let Challenge::Dns(dns) = &resolver.challenge
            && let Err(reason) = lb_acme::check_provider(dns.provider)
        {
            // A service may have what this shell has not.
            let hint =
                "this is what the check sees in its own environment: Vigie needs it in that of the service";
            let key = format!("{name}.acme.dnsChallenge.provider");
            problems.push(problem(Severity::Warning, key, reason, hint));
        }
    }
    problems
}
