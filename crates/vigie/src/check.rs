//! `vigie check` and `vigie healthcheck`: commands that look without serving.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use lb_acme::Validity;
use lb_config::dynamic::Tls;
use lb_config::{
    Context, DEFAULT_CERTIFICATE, Kind, Problem, Problems, Scope, Severity, StaticConfig, StaticSource,
    load_dynamic,
};
use lb_observe::rfc3339;

use crate::options::Options;
use crate::print::{complain, say};

/// How long `/ping` may take, as in Traefik.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Validates everything that can be validated without starting, all problems in one go.
pub(crate) fn check(options: &Options) -> ExitCode {
    let (source, mut problems) = match options.source() {
        Ok(found) => found,
        Err(error) => {
            complain(&format!("vigie: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let Findings { problems: further, read } = findings(&source);
    problems.extend(further);
    if problems.is_empty() {
        say(&format!("{}: no problems found", read.join(", ")));
        return ExitCode::SUCCESS;
    }
    report(&problems)
}

/// What a check found, and in which files.
struct Findings {
    problems: Vec<Problem>,
    read: Vec<String>,
}

fn findings(source: &StaticSource) -> Findings {
    let (config, mut problems) = match source.load() {
        Ok((config, warnings)) => (Some(config), warnings),
        Err(Problems(problems)) => (None, problems),
    };
    problems.extend(config.iter().flat_map(crate::acme::problems));
    let mut read = vec![source.to_string()];
    let found = match &config {
        Some(config) => {
            config.providers.file.as_ref().map(|file| (file.source.clone(), Context::from(config)))
        }
        None => source.find_dynamic(),
    };
    match found.map(|(source, context)| load_dynamic(&source, &context)) {
        None => {}
        Some(Err(Problems(found))) => problems.extend(found),
        Some(Ok(loaded)) => {
            read.extend(loaded.files.iter().map(|file| file.display().to_string()));
            problems.extend(loaded.problems);
            let mut found = match &config {
                Some(config) => crate::publish::compile_problems(config, &loaded.config),
                None => crate::publish::compile_problems_without_static(&loaded.config),
            };
            // The load has told what is missing, with the place that asks for it.
            found.retain(|problem| match &problem.scope {
                Scope::Object { kind: Kind::Middleware, name } => {
                    loaded.config.middlewares.contains_key(name)
                }
                _ => true,
            });
            // What other providers have only they know, and they are not asked. Of what files may name, they define
            // services and middlewares.
            let is_up_to = |provider: &str, problem: &Problem| {
                let missing = problem.message.ends_with(&format!("@{provider}\" does not exist"));
                missing
                    && (problem.message.contains("service \"") || problem.message.contains("middleware \""))
            };
            let others = config.iter().flat_map(|config| config.providers.names());
            for other in others.filter(|name| *name != "file") {
                found.retain(|problem| !is_up_to(other, problem));
            }
            found.extend(untimely(&loaded.config.tls, SystemTime::now()));
            found.iter_mut().for_each(|problem| loaded.places.locate(problem));
            problems.extend(found);
        }
    }
    Findings { problems, read }
}

/// Certificates that clients refuse because of the time.
fn untimely(tls: &Tls, now: SystemTime) -> Vec<Problem> {
    let named = tls.certificates.iter().map(|pair| (pair.origin.clone(), "tls.certificates", pair));
    let default = tls.default_certificate.iter();
    let all = named.chain(default.map(|pair| (DEFAULT_CERTIFICATE.to_owned(), DEFAULT_CERTIFICATE, pair)));
    let judged = all.filter_map(|(name, key, pair)| {
        let validity = Validity::of(&pair.cert.0)?;
        let (wrong, hint) = if validity.not_after < now {
            (format!("expired at {}", rfc3339(validity.not_after)), "renew it")
        } else if validity.not_before > now {
            (format!("is not valid before {}", rfc3339(validity.not_before)), "look at the clock")
        } else {
            return None;
        };
        Some(Problem {
            severity: Severity::Warning,
            scope: Scope::Object { kind: Kind::Certificate, name },
            file: "dynamic configuration".to_owned(),
            line: 0,
            column: 0,
            key: key.to_owned(),
            message: format!("{}: {wrong}", pair.origin),
            hint: Some(hint.to_owned()),
        })
    });
    judged.collect()
}

fn report(problems: &[Problem]) -> ExitCode {
    for problem in problems {
        complain(&problem.to_string());
    }
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    let warnings = problems.len() - errors;
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    complain(&match (errors, warnings) {
        (errors, 0) => format!("{} found", plural(errors, "problem")),
        (0, warnings) => format!("{}, no errors", plural(warnings, "warning")),
        (errors, warnings) => {
            format!("{} and {} found", plural(errors, "problem"), plural(warnings, "warning"))
        }
    });
    if errors > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Asks `/ping` of the running instance, where the static configuration says that it is. Errors elsewhere in that do not
/// matter: the instance runs with what it has read, and whoever asks may be allowed to read less than it (a token).
pub(crate) fn healthcheck(options: &Options) -> anyhow::Result<()> {
    let (source, _) = options.source()?;
    let address = match source.load() {
        Ok((config, _)) => ping_address(&config)?,
        Err(problems) => {
            let found = source.peek().and_then(|config| ping_address(&config).ok());
            let refused = format!("the static configuration is refused\n{problems}");
            let Some(address) = found else { bail!(refused) };
            complain(&format!("vigie: {refused}"));
            address
        }
    };
    let url = format!("http://{address}/ping");
    let status = ask(address).with_context(|| format!("Error calling healthcheck: {url}"))?;
    if status != 200 {
        bail!("Bad healthcheck status: {status}");
    }
    say(&format!("OK: {url}"));
    Ok(())
}

fn ping_address(config: &StaticConfig) -> anyhow::Result<SocketAddr> {
    let ping = config.ping.as_ref().context("please enable `ping` to use health check")?;
    let entry = config.entry_points.iter().find(|entry| entry.name == ping.entry_point);
    let address = entry.with_context(|| format!("ping: missing {:?} entry point", ping.entry_point))?.address;
    let is_every = address.ip().is_unspecified();
    Ok(if is_every { SocketAddr::from(([127, 0, 0, 1], address.port())) } else { address })
}

fn ask(address: SocketAddr) -> anyhow::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, PING_TIMEOUT)?;
    stream.set_read_timeout(Some(PING_TIMEOUT))?;
    stream.write_all(
        format!("HEAD /ping HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.context("the answer is no HTTP")
}

#[cfg(test)]
mod tests {
    use lb_testkit::Authority;

    use super::*;

    /// `key: message` of what is wrong with `vigie.yml` and the `dynamic.yml` that it names.
    fn problems(static_text: &str, dynamic: &str) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let provider = format!("providers: {{file: {{filename: '{}'}}}}\n", at("dynamic.yml").display());
        std::fs::write(at("vigie.yml"), provider + static_text).unwrap();
        std::fs::write(at("dynamic.yml"), dynamic).unwrap();
        let findings = findings(&StaticSource::File(at("vigie.yml")));
        findings.problems.iter().map(|problem| format!("{}: {}", problem.key, problem.message)).collect()
    }

    #[test]
    fn errors_of_the_static_file_hide_none_of_the_dynamic_ones() {
        let dynamic = "http: {services: {s: {loadBalancer: {servers: []}}}, \
                       routers: {r: {rule: 'Path(`/`)', service: t, entryPoints: [wbe]}}}\n\
                       tcp: {services: {s: {loadBalancer: {servers: []}}}, \
                       routers: {r: {rule: 'HostSNI(`*`)', service: s, entryPoints: [wbe]}}}\n\
                       udp: {services: {s: {loadBalancer: {servers: []}}}, \
                       routers: {r: {service: s, entryPoints: [wbe]}}}";
        let service = "http.routers.r.service: no service is called `t`";
        for (static_text, static_problem) in [
            ("entryPoints: {web: {adress: ':80'}}", "entryPoints.web.adress: there is no key `adress` here"),
            ("ping: {entryPoint: nope}", "ping.entryPoint: no entry point is called `nope`"),
        ] {
            let problems = problems(static_text, dynamic);
            for expected in [static_problem, service] {
                assert!(problems.iter().any(|problem| problem == expected), "{problems:?}");
            }
            // The entry point may be one that only its own mistake hides.
            assert!(!problems.iter().any(|problem| problem.contains("wbe")), "{problems:?}");
        }
        let right = problems("entryPoints: {web: {address: ':80'}}", dynamic);
        assert!(right.iter().any(|problem| problem.contains("no entry point is called `wbe`")), "{right:?}");
    }

    #[test]
    fn errors_of_the_static_file_hide_none_of_those_that_compiling_finds() {
        let authority = Authority::new("test");
        let directory = tempfile::tempdir().unwrap();
        let (certificate, _) = authority.issue(&["a.test"]).write(directory.path(), "a");
        let (_, key) = authority.issue(&["b.test"]).write(directory.path(), "b");
        let dynamic = format!(
            "tls: {{certificates: [{{certFile: '{}', keyFile: '{}'}}]}}\n\
             http: {{routers: {{r: {{rule: 'Path(`/`)', service: api@internal, entryPoints: [web]}}}}}}",
            certificate.display(),
            key.display()
        );
        let web = "entryPoints: {web: {address: ':80'}}\n";
        let right = problems(&format!("{web}api: {{}}"), &dynamic);
        let [mismatch] = right.as_slice() else { panic!("{right:?}") };
        let expected = "the private key does not belong to the certificate";
        assert_eq!(*mismatch, format!("tls.certificates: {}: {expected}", certificate.display()));
        let wrong = problems(&format!("{web}api: {{isecure: true}}"), &dynamic);
        assert_eq!(wrong, ["api.isecure: there is no key `isecure` here", mismatch]);
    }

    /// By a user who may not read the token, or while somebody edits the file.
    #[test]
    fn the_instance_is_asked_in_spite_of_errors_elsewhere() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let instance = std::thread::spawn(move || {
            for _ in 0..2 {
                let mut stream = listener.accept().unwrap().0;
                let _ = stream.read(&mut [0; 1024]).unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").unwrap();
            }
        });
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vigie.yml");
        let asked = |rest: &str| {
            let text = format!("entryPoints: {{web: {{address: '{address}'}}}}\n{rest}");
            std::fs::write(&path, text).unwrap();
            let options = Options { config_file: Some(path.clone()), ..Options::default() };
            healthcheck(&options).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(asked("ping: {entryPoint: web}\napi: {tokenFile: /nowhere/token}"), Ok(()));
        assert_eq!(asked("ping: {entryPoint: web}\nlog: {levle: INFO}"), Ok(()));
        instance.join().unwrap();
        assert!(asked("ping: {entryPoint: wbe}").unwrap_err().contains("no entry point is called `wbe`"));
        assert!(asked("log: {levle: INFO}").unwrap_err().contains("levle"));
        assert!(asked("ping: [").unwrap_err().contains("the static configuration is refused"));
    }

    #[test]
    fn certificates_that_clients_refuse_because_of_the_time_are_warned_of() {
        let issued = Authority::new("test").issue(&["a.test"]);
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = issued.write(directory.path(), "a");
        let text = format!(
            "tls: {{certificates: [{{certFile: '{0}', keyFile: '{1}'}}], \
             stores: {{default: {{defaultCertificate: {{certFile: '{0}', keyFile: '{1}'}}}}}}}}",
            certificate.display(),
            key.display()
        );
        let loaded = lb_config::parse_dynamic("d.yml", &text, "file", &Context::default()).unwrap();
        let validity = Validity::of(&loaded.config.tls.certificates[0].cert.0).unwrap();
        let second = Duration::from_secs(1);
        let told = |now| -> Vec<String> {
            untimely(&loaded.config.tls, now)
                .iter()
                .map(|problem| format!("{}: {}", problem.key, problem.message))
                .collect()
        };
        assert_eq!(told(validity.not_before + second), Vec::<String>::new());
        let file = certificate.display();
        let expired = format!("{file}: expired at {}", rfc3339(validity.not_after));
        let expected = ["tls.certificates", "tls.stores.default.defaultCertificate"]
            .map(|key| format!("{key}: {expired}"));
        assert_eq!(told(validity.not_after + second), expected);
        assert!(told(validity.not_before - second)[0].contains(": is not valid before "));
    }

    #[test]
    fn what_containers_may_define_is_not_missed() {
        let dynamic = "http: {services: {s: {loadBalancer: {servers: []}}}, \
                       routers: {a: {rule: 'Path(`/a`)', service: app@docker, middlewares: [auth@docker]}, \
                       b: {rule: 'Path(`/b`)', service: s, middlewares: [c]}}, \
                       middlewares: {c: {chain: {middlewares: [auth@docker]}}}}";
        let web = "entryPoints: {web: {address: ':80', http: {middlewares: [own@docker]}}}\n";
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("dynamic.yml"), dynamic).unwrap();
        let told = |docker: &str| {
            let file = at("dynamic.yml").display().to_string();
            let text = format!("{web}providers: {{file: {{filename: '{file}'}}, docker: {docker}}}");
            std::fs::write(at("vigie.yml"), text).unwrap();
            findings(&StaticSource::File(at("vigie.yml")))
                .problems
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(told("{endpoint: 'unix:///nowhere'}"), Vec::<String>::new());
        let told = told("false").join("\n");
        assert!(told.contains("the provider `docker` is not switched on: add `providers.docker`"), "{told}");
    }

    #[test]
    fn a_middleware_that_an_entry_point_misses_is_told_once() {
        let dynamic = "http: {services: {s: {loadBalancer: {servers: []}}}, \
                       middlewares: {broken: {retry: {attempts: 0}}}, \
                       routers: {a: {rule: 'Path(`/a`)', service: s}, b: {rule: 'Path(`/b`)', service: s}}}";
        let broken = "http.middlewares.broken.retry.attempts: 0 is out of range";
        for (middleware, expected) in [
            ("auth@file", "no middleware is called `auth`"),
            ("auth@docker", "no middleware is called `auth@docker`"),
            ("broken@file", ""),
        ] {
            // The routers are on both entry points, and the other one leads to them.
            let told = problems(
                &format!(
                    "entryPoints: {{web: {{address: ':80', http: {{middlewares: [{middleware}]}}}}, \
                     other: {{address: ':81'}}}}"
                ),
                dynamic,
            );
            let missing = format!("entryPoints.web.http.middlewares[0]: {expected}");
            let all = [broken, &missing];
            assert_eq!(told, all[..if expected.is_empty() { 1 } else { 2 }]);
        }
        let wrong = "entryPoints: {web: {address: ':80', http: {middlewares: [auth@file]}}}\nlog: {levl: x}";
        let told = problems(wrong, dynamic);
        let missing = "entryPoints.web.http.middlewares[0]: no middleware is called `auth`".to_owned();
        assert!(told.contains(&missing), "{told:?}");
    }
}
