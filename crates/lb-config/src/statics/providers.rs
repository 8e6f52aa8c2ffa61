//! `providers`.

use std::time::Duration;

use crate::decode::Field;
use crate::problem::quoted;
use crate::static_config::{FileProvider, FileSource, Orchestrator, Providers};
use crate::suggest;

/// Default of reference 1.4.
const THROTTLE: Duration = Duration::from_secs(2);

/// The names of Traefik's providers (reference 1.4, `providers.precedence`).
pub(crate) const PROVIDERS: [&str; 17] = [
    "kubernetesgateway",
    "kubernetescrd",
    "kubernetes",
    "kubernetesingressnginx",
    "swarm",
    "docker",
    "file",
    "redis",
    "knative",
    "consul",
    "consulcatalog",
    "nomad",
    "etcd",
    "ecs",
    "http",
    "zookeeper",
    "rest",
];

const UNSUPPORTED: [&str; 10] = [
    "consulCatalog",
    "ecs",
    "knative",
    "kubernetesCRD",
    "kubernetesGateway",
    "kubernetesIngress",
    "kubernetesIngressNGINX",
    "nomad",
    "plugin",
    "zooKeeper",
];

/// The providers, and the field that opens one to all.
pub(super) fn read<'a>(field: Option<&Field<'a>>) -> (Providers, Option<Field<'a>>) {
    let mut providers = Providers {
        throttle: THROTTLE,
        precedence: PROVIDERS.iter().map(|name| (*name).to_owned()).collect(),
        file: None,
        docker: None,
        swarm: None,
        remote: Vec::new(),
        rest: None,
    };
    let Some(block) = field.and_then(Field::block) else { return (providers, None) };
    if let Some(throttle) = block.take("providersThrottleDuration").and_then(|field| field.duration()) {
        providers.throttle = throttle;
    }
    if let Some(names) =
        block.take("precedence").map(|field| precedence(&field)).filter(|names| !names.is_empty())
    {
        providers.precedence = names;
    }
    providers.file = block.take("file").and_then(|field| file(&field));
    providers.docker =
        block.take("docker").and_then(|field| super::docker::read(&field, Orchestrator::Docker));
    providers.swarm = block.take("swarm").and_then(|field| super::docker::read(&field, Orchestrator::Swarm));
    providers.remote = super::remote::read(&block);
    let (rest, insecure_at) = block.take("rest").as_ref().and_then(super::remote::rest).unzip();
    providers.rest = rest;
    block.unsupported(&UNSUPPORTED);
    for key in ["marathon", "rancher"] {
        if let Some(field) = block.take_unlisted(key) {
            field.error_at_key(format!("Traefik v3 has no provider `{key}` any more"), None);
        }
    }
    block.finish();
    (providers, insecure_at.flatten())
}

fn precedence(field: &Field<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for text in field.texts() {
        let name = text.value.to_ascii_lowercase();
        if PROVIDERS.contains(&name.as_str()) {
            names.push(name);
        } else {
            text.error(
                format!("no provider is called {}", quoted(text.value)),
                Some(suggest::hint(text.value, "providers", PROVIDERS)),
            );
        }
    }
    names
}

fn file(field: &Field<'_>) -> Option<FileProvider> {
    let block = field.block()?;
    let filename = super::path(&block, "filename");
    let directory = super::path(&block, "directory");
    let watch = block.take("watch").and_then(|field| field.boolean()).unwrap_or(true);
    block.without_effect(&["debugLogGeneratedTemplate"], "`vigie check` shows what a file means");
    let source = match (filename, directory) {
        (None, Some(directory)) => Some(FileSource::Directory(directory)),
        (Some(_), Some(directory)) => {
            let message = "`directory` wins: `filename` is not read".to_owned();
            block.warn(message, Some("keep one of them".to_owned()));
            Some(FileSource::Directory(directory))
        }
        (Some(filename), None) => Some(FileSource::File(filename)),
        (None, None) => {
            let hint = "write `directory: /etc/vigie/dynamic`".to_owned();
            block.error("neither `filename` nor `directory` is given".to_owned(), Some(hint));
            None
        }
    };
    block.finish();
    Some(FileProvider { source: source?, watch })
}
