//! `providers.docker` and `providers.swarm`.

use std::path::PathBuf;
use std::time::Duration;

use super::transport;
use crate::decode::{Block, Enabled, Field};
use crate::docker::{Constraints, RuleTemplate};
use crate::problem::quoted;
use crate::static_config::{ContainerSettings, Credentials, DockerEndpoint, DockerProvider, Orchestrator};

/// Defaults of reference 1.4.
const ENDPOINT: &str = "unix:///var/run/docker.sock";

/// How long the daemon may take for an answer where `httpClientTimeout` says nothing. Traefik waits for ever, and
/// with a daemon that hangs nobody would learn of it; chosen.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Time between two looks at containers that no event asked for; chosen.
const RESYNC: Duration = Duration::from_secs(30);

/// `providers.swarm.refreshSeconds` (reference 1.4). What happens on other nodes is no event here.
const REFRESH: Duration = Duration::from_secs(15);

pub(super) fn read(field: &Field<'_>, orchestrator: Orchestrator) -> Option<DockerProvider> {
    let mut docker = DockerProvider {
        endpoint: DockerEndpoint::Unix(PathBuf::from("/var/run/docker.sock")),
        endpoint_text: ENDPOINT.to_owned(),
        credentials: None,
        tls: None,
        timeout: TIMEOUT,
        watch: true,
        refresh: if orchestrator == Orchestrator::Swarm { REFRESH } else { RESYNC },
        containers: ContainerSettings { orchestrator, ..ContainerSettings::default() },
    };
    let block = match field.enabled() {
        Enabled::Off => return None,
        Enabled::Plain => return Some(docker),
        Enabled::With(block) => block,
    };
    if let Some(tls) = block.take("tls").and_then(|field| field.block()) {
        docker.tls = Some(transport::read(&tls, transport::plain(false)));
        tls.finish();
    }
    if let Some(field) = block.take_word("endpoint") {
        docker.endpoint_text = field.string().unwrap_or_default();
        if let Some(endpoint) = endpoint(&field, docker.tls.is_some()) {
            docker.endpoint = endpoint;
        }
    }
    if let DockerEndpoint::Tcp { tls: true, .. } = &docker.endpoint
        && docker.tls.is_none()
    {
        docker.tls = Some(transport::plain(false));
    }
    let (user, password) = (super::text(&block, "username"), super::text(&block, "password"));
    docker.credentials = match (user, password) {
        (Some(user), password) => Some(Credentials { user, password: password.unwrap_or_default() }),
        (None, None) => None,
        (None, Some(_)) => {
            block.error("`password` has no `username`".to_owned(), None);
            None
        }
    };
    if docker.credentials.is_some() && matches!(docker.endpoint, DockerEndpoint::Unix(_)) {
        block.warn("`username` has no effect on a Unix socket".to_owned(), Some("remove it".to_owned()));
    }
    if let Some(timeout) = block.take("httpClientTimeout").and_then(|field| field.timeout()) {
        docker.timeout = timeout.unwrap_or(TIMEOUT);
    }
    if let Some(watch) = block.take("watch").and_then(|field| field.boolean()) {
        docker.watch = watch;
    }
    if orchestrator == Orchestrator::Swarm
        && let Some(refresh) = block.take("refreshSeconds").and_then(|field| field.duration_or(REFRESH))
    {
        docker.refresh = refresh;
    }
    containers(&block, &mut docker.containers);
    if let Some(field) = block.take_unlisted("swarmMode") {
        let hint = "`providers.swarm` took its place".to_owned();
        field.error_at_key("Traefik v3 has no `swarmMode` any more".to_owned(), Some(hint));
    }
    block.finish();
    Some(docker)
}

/// What says which containers are used, and how.
fn containers(block: &Block<'_>, settings: &mut ContainerSettings) {
    for (key, place) in [
        ("exposedByDefault", &mut settings.exposed_by_default),
        ("allowEmptyServices", &mut settings.allow_empty_services),
        ("useBindPortIP", &mut settings.use_bind_port_ip),
    ] {
        if let Some(value) = block.take(key).and_then(|field| field.boolean()) {
            *place = value;
        }
    }
    settings.network = super::text(block, "network");
    if let Some(text) = block.take_word("constraints").and_then(|field| field.text()) {
        match Constraints::parse(text.value) {
            Ok(constraints) => settings.constraints = Some(constraints),
            Err((at, message)) => {
                let hint = "write ``Label(`key`,`value`)`` or ``LabelRegex(`key`,`value`)``, combined with `&&`, `||`, `!`";
                text.error_at(at, message, Some(hint.to_owned()));
            }
        }
    }
    // An empty one gives no rule to anybody.
    if let Some(text) = block.take("defaultRule").and_then(|field| field.text()) {
        match RuleTemplate::parse(text.value) {
            Ok(template) => settings.default_rule = template,
            Err(flaws) => flaws.into_iter().for_each(|(at, message, hint)| text.error_at(at, message, hint)),
        }
    }
}

fn endpoint(field: &Field<'_>, with_tls: bool) -> Option<DockerEndpoint> {
    let text = field.text()?;
    let hint = || Some("write `unix:///var/run/docker.sock` or `tcp://192.0.2.7:2375`".to_owned());
    let Some((scheme, rest)) = text.value.split_once("://") else {
        text.error(format!("{} has no scheme", text.quoted()), hint());
        return None;
    };
    let tls = match scheme {
        "unix" if rest.starts_with('/') => return Some(DockerEndpoint::Unix(PathBuf::from(rest))),
        "unix" => {
            text.error(format!("{} names no absolute path", text.quoted()), hint());
            return None;
        }
        "tcp" | "http" => with_tls,
        "https" => true,
        "ssh" | "npipe" => {
            text.error(format!("`{scheme}://` is not supported yet"), hint());
            return None;
        }
        _ => {
            text.error(format!("the scheme {} is not known", quoted(scheme)), hint());
            return None;
        }
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    // Docker's ports: 2375, and 2376 with TLS.
    let port = if tls { 2376 } else { 2375 };
    let has_port = authority.rsplit_once(':').is_some_and(|(_, after)| !after.contains(']'));
    let url = if has_port { format!("http://{authority}") } else { format!("http://{authority}:{port}") };
    match crate::net::server_url(&url) {
        Ok(parts) if parts.path.is_empty() && !parts.ignored => {
            Some(DockerEndpoint::Tcp { host: parts.host, port: parts.port, tls })
        }
        Ok(_) => {
            text.error("the address has a path", hint());
            None
        }
        Err((message, _)) => {
            text.error(message, hint());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Problems, parse_static};

    fn read(text: &str) -> Result<DockerProvider, Vec<String>> {
        match parse_static("vigie.yml", &format!("providers: {{docker: {text}}}")) {
            Ok((config, _)) => Ok(config.providers.docker.unwrap()),
            Err(Problems(problems)) => Err(problems.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn defaults_are_those_of_traefik() {
        for text in ["{}", "true", "{watch: true}"] {
            let docker = read(text).unwrap();
            assert_eq!(docker.endpoint, DockerEndpoint::Unix("/var/run/docker.sock".into()));
            assert!(docker.watch && docker.containers.exposed_by_default);
            assert!(!docker.containers.allow_empty_services && !docker.containers.use_bind_port_ip);
            assert!(docker.containers.network.is_none() && docker.tls.is_none());
        }
        assert!(
            parse_static("vigie.yml", "providers: {docker: false}").unwrap().0.providers.docker.is_none()
        );
    }

    #[test]
    fn keys_are_read() {
        let docker = read(
            "{endpoint: 'tcp://127.0.0.1:2375', exposedByDefault: false, network: front, useBindPortIP: true, \
             allowEmptyServices: true, watch: false, httpClientTimeout: 5s, username: u, password: p, \
             constraints: 'Label(`a`,`b`)', defaultRule: 'Host(`{{ .ContainerName }}.test`)'}",
        )
        .unwrap();
        assert_eq!(
            docker.endpoint,
            DockerEndpoint::Tcp { host: "127.0.0.1".to_owned(), port: 2375, tls: false }
        );
        assert!(!docker.watch && !docker.containers.exposed_by_default);
        assert!(docker.containers.allow_empty_services && docker.containers.use_bind_port_ip);
        assert_eq!(docker.containers.network.as_deref(), Some("front"));
        assert!(docker.containers.constraints.is_some());
        assert_eq!(docker.timeout, Duration::from_secs(5));
        assert!(!format!("{docker:?}").contains("\"p\""), "{docker:?}");
        let endpoint = |text: &str| read(&format!("{{endpoint: '{text}'}}")).unwrap().endpoint;
        let tcp = |host: &str, port, tls| DockerEndpoint::Tcp { host: host.to_owned(), port, tls };
        assert_eq!(endpoint("tcp://docker.test"), tcp("docker.test", 2375, false));
        assert_eq!(endpoint("https://docker.test/"), tcp("docker.test", 2376, true));
        assert_eq!(endpoint("http://[::1]"), tcp("::1", 2375, false));
    }

    #[test]
    fn a_swarm_is_asked_again_and_again() {
        let swarm = |text: &str| {
            let (config, warnings) =
                parse_static("vigie.yml", &format!("providers: {{swarm: {text}}}")).unwrap();
            let swarm = config.providers.swarm.unwrap();
            assert_eq!(swarm.containers.orchestrator, Orchestrator::Swarm);
            assert!(config.providers.docker.is_none());
            (swarm.refresh.as_secs(), warnings.len())
        };
        assert_eq!(swarm("{}"), (15, 0));
        assert_eq!(swarm("{refreshSeconds: 3, network: front}"), (3, 0));
        assert_eq!(swarm("{refreshSeconds: -1s}"), (15, 1));
        let both = parse_static("vigie.yml", "providers: {docker: {}, swarm: {}}").unwrap().0.providers;
        assert_eq!(both.names().collect::<Vec<_>>(), ["docker", "swarm"]);
    }

    #[test]
    fn mistakes_have_a_way_out() {
        for (text, expected) in [
            ("{endpoint: /var/run/docker.sock}", "docker.endpoint: `/var/run/docker.sock` has no scheme"),
            ("{endpoint: 'ssh://a'}", "docker.endpoint: `ssh://` is not supported yet"),
            ("{endpoint: 'unix://a'}", "docker.endpoint: `unix://a` names no absolute path"),
            ("{endpoint: 'tcp://a:b'}", "docker.endpoint: `b` is not a port"),
            ("{exposedByDefalt: false}", "docker.exposedByDefalt: there is no key `exposedByDefalt` here"),
            ("{constraints: 'Tag(`a`)'}", "docker.constraints: expected `Label` or `LabelRegex`"),
            (
                "{defaultRule: 'Host(`{{ lowr .Name }}`)'}",
                "vigie.yml:1:45: providers.docker.defaultRule: there is no template function `lowr`",
            ),
            ("{tls: {cert: a}}", "docker.tls: `key` is missing"),
            ("{refreshSeconds: 15}", "docker.refreshSeconds: there is no key `refreshSeconds` here"),
        ] {
            let told = read(text).unwrap_err().join("\n");
            assert!(told.contains(expected), "{text}: {told}");
            assert!(told.contains("hint: "), "{told}");
        }
        let (place, _) = (read("{constraints: 'Label(`a`,`b`) |'}").unwrap_err().join("\n"), ());
        assert!(place.starts_with("vigie.yml:1:"), "{place}");
    }
}
