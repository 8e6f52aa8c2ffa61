use std::ffi::OsString;

use proptest::prelude::*;

use super::*;
use crate::parse_static;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

/// Of the flags in `line`, and what is left of it.
fn flags(line: &str) -> (StaticSource, String) {
    let mut arguments = words(line);
    let flags = Settings::take_flags(&mut arguments);
    let left: Vec<&str> = arguments.iter().map(|argument| argument.to_str().unwrap()).collect();
    (StaticSource::Flags(flags), left.join(" "))
}

fn variables(pairs: &[(&str, &str)]) -> StaticSource {
    let pairs = pairs.iter().map(|(name, value)| (name.into(), value.into()));
    StaticSource::Variables(Settings::of_variables(pairs))
}

fn read(source: &StaticSource) -> StaticConfig {
    let (config, _) = source.load().unwrap_or_else(|problems| panic!("{problems}"));
    unplaced(config)
}

/// Without what only tells where something is written.
pub(super) fn unplaced(mut config: StaticConfig) -> StaticConfig {
    config.entry_points.iter_mut().for_each(|entry| entry.http.middleware_places.clear());
    StaticConfig { file: String::new(), written: serde_json::Value::Null, ..config }
}

fn of_file(text: &str) -> StaticConfig {
    let (config, _) = parse_static("vigie.yml", text).unwrap_or_else(|problems| panic!("{text}: {problems}"));
    unplaced(config)
}

/// What is wrong, a line each, hints in parentheses.
fn told(source: &StaticSource) -> Vec<String> {
    match source.load() {
        Ok((_, problems)) | Err(Problems(problems)) => problems.iter().map(Problem::line).collect(),
    }
}

#[test]
fn flags_say_what_a_file_says() {
    // Each also beside Traefik 3.7.15.
    for (line, file) in [
        ("--entrypoints.web.address=:80", "entryPoints: {web: {address: ':80'}}"),
        ("-entryPoints.Web.ADDRESS=:80", "entryPoints: {Web: {address: ':80'}}"),
        ("--entrypoints.web.address :80 --ping", "entryPoints: {web: {address: ':80'}}\nping: {}"),
        (
            "--entrypoints.a.address=:80 --entrypoints.A.asdefault",
            "entryPoints: {a: {address: ':80', asDefault: true}}",
        ),
        (
            "--entrypoints.web.address=:80 --entrypoints.web.http.tls.domains[0].main=a.test \
             --entrypoints.web.http.tls.domains[0].sans=b.test,c.test --entrypoints.web.http.tls.domains[1].main=d.test",
            "entryPoints: {web: {address: ':80', http: {tls: {domains: [{main: a.test, sans: [b.test, c.test]}, \
             {main: d.test}]}}}}",
        ),
        (
            "--entrypoints.web.address=:80 --entrypoints.web.http.middlewares=a@file,b@file \
             --entrypoints.web.http.middlewares=c@file",
            "entryPoints: {web: {address: ':80', http: {middlewares: [a@file, b@file, c@file]}}}",
        ),
        (
            "--entrypoints.web.address=:80 --entrypoints.web.http.middlewares[0]=a@file \
             --entrypoints.web.http.middlewares[1]=b@file",
            "entryPoints: {web: {address: ':80', http: {middlewares: [a@file, b@file]}}}",
        ),
        ("--log.level=DEBUG --log.level=INFO", "log: {level: INFO}"),
        ("--log.level INFO --api=true", "log: {level: INFO}\napi: {}"),
        ("--ping=true --ping.manualrouting", "ping: {manualRouting: true}"),
        ("--ping.manualrouting true --ping", "ping: {manualRouting: true}"),
        ("--ping= --api=false", "ping: {}"),
        ("--ping=false --ping.manualrouting --api", "api: {}"),
        ("--ping=TrUe --ping.manualrouting --api=tRUE", "ping: {manualRouting: true}\napi: {}"),
        // A block is switched on by nothing but `true`.
        ("--ping=1 --ping.manualrouting --accesslog=t --api=T", ""),
        ("--providers.http=false --providers.http.endpoint=http://127.0.0.1:1 --ping", "ping: {}"),
        ("--tcpserverstransport.tls=true", "tcpServersTransport: {tls: {}}"),
        (
            "--accesslog --accesslog.fields.headers.names.User-Agent=redact",
            "accessLog: {fields: {headers: {names: {User-Agent: redact}}}}",
        ),
        (
            "--providers.docker --providers.docker.exposedbydefault=false --providers.docker.network demo",
            "providers: {docker: {exposedByDefault: false, network: demo}}",
        ),
        (
            "--metrics.prometheus --metrics.prometheus.buckets=0.1,2.5",
            "metrics: {prometheus: {buckets: [0.1, 2.5]}}",
        ),
        (
            "--entrypoints.web.address=:80 --certificatesresolvers.le.acme.email=a@b.test \
             --certificatesresolvers.le.acme.tlschallenge --certificatesresolvers.le.acme.storage=/x.json",
            "entryPoints: {web: {address: ':80'}}\n\
             certificatesResolvers: {le: {acme: {email: a@b.test, tlsChallenge: {}, storage: /x.json}}}",
        ),
        (
            "--tracing.resourceattributes.service.version=1 --tracing.resourceattributes.A.b.C=2 \
             --accesslog.fields.headers.names.x.y=keep --ocsp.responderoverrides.http://a.test/=http://127.0.0.1:9",
            "tracing: {resourceAttributes: {service.version: '1', A.b.C: '2'}}\n\
             accessLog: {fields: {headers: {names: {x.y: keep}}}}\n\
             ocsp: {responderOverrides: {'http://a.test/': 'http://127.0.0.1:9'}}",
        ),
        ("--global.sendanonymoususage --global.checknewversion=false --ping", "ping: {}"),
        (
            "--entrypoints.web.address=:80 --entrypoints.web.transport.lifecycle.gracetimeout 5",
            "entryPoints: {web: {address: ':80', transport: {lifeCycle: {graceTimeOut: 5}}}}",
        ),
    ] {
        let (source, left) = flags(line);
        assert_eq!(format!("{:?}", read(&source)), format!("{:?}", of_file(file)), "{line}");
        assert_eq!(left, "", "{line}");
    }
}

#[test]
fn variables_say_what_a_file_says() {
    let web = ("TRAEFIK_ENTRYPOINTS_WEB_ADDRESS", ":80");
    for (pairs, file) in [
        (&[web, ("TRAEFIK_PING", "true")][..], "entryPoints: {web: {address: ':80'}}\nping: {}"),
        (
            &[web, ("TRAEFIK_PING", ""), ("TRAEFIK_HOME", "x"), ("PING", "x")],
            "entryPoints: {web: {address: ':80'}}\nping: {}",
        ),
        (
            &[web, ("traefik_ping", "true"), ("TRAEFIK_", "x"), ("TRAEFIK_HTTP_PORT", "1")],
            "entryPoints: {web: {address: ':80'}}",
        ),
        (&[("TRAEFIK_ENTRYPOINTS_É_ADDRESS", ":80")], "entryPoints: {é: {address: ':80'}}"),
        (&[("TRAEFIK_ENTRYPOINTS_0_ADDRESS", ":80")], "entryPoints: {'0': {address: ':80'}}"),
        (
            &[
                web,
                ("TRAEFIK_ENTRYPOINTS_WEB_HTTP_TLS_DOMAINS_1_MAIN", "d.test"),
                ("TRAEFIK_ENTRYPOINTS_WEB_HTTP_TLS_DOMAINS_0_MAIN", "a.test"),
                ("TRAEFIK_ENTRYPOINTS_WEB_HTTP_TLS_DOMAINS[0]_SANS", "b.test,c.test"),
            ],
            "entryPoints: {web: {address: ':80', http: {tls: {domains: [{main: a.test, sans: [b.test, c.test]}, \
             {main: d.test}]}}}}",
        ),
        (
            &[web, ("TRAEFIK_TRACING_RESOURCEATTRIBUTES_SERVICE_VERSION", "1")],
            "entryPoints: {web: {address: ':80'}}\ntracing: {resourceAttributes: {service.version: '1'}}",
        ),
        (
            &[web, ("TRAEFIK_ENTRYPOINTS_WEB_FORWARDEDHEADERS_TRUSTEDIPS_0", "192.0.2.1")],
            "entryPoints: {web: {address: ':80', forwardedHeaders: {trustedIPs: [192.0.2.1]}}}",
        ),
        (
            &[web, ("TRAEFIK_ENTRYPOINTS_WEB_HTTP2_MAXCONCURRENTSTREAMS", "7")],
            "entryPoints: {web: {address: ':80', http2: {maxConcurrentStreams: 7}}}",
        ),
    ] {
        let source = variables(pairs);
        assert_eq!(format!("{:?}", read(&source)), format!("{:?}", of_file(file)), "{pairs:?}");
    }
}

#[test]
fn commands_and_their_flags_are_left() {
    for (line, left) in [
        ("check --configFile=a.yml --ping", "check --configFile=a.yml"),
        ("--configFile a.b.yml -V --help --port=1 -h", "--configFile a.b.yml -V --help --port=1 -h"),
        ("--nope=1 --apis ---ping -- --ping", "--nope=1 --apis ---ping -- --ping"),
        ("--api check", "check"),
        ("--ping foo --log.level=INFO", "foo"),
        ("--nope.nope=1", ""),
    ] {
        assert_eq!(flags(line).1, left, "{line}");
    }
}

#[test]
fn problems_name_the_flag_or_the_variable_without_its_value() {
    let adress =
        "entryPoints.web.adress: there is no key `adress` here (did you mean `address`? known keys: ";
    let missing = "entryPoints.web: `address` is missing";
    for (line, expected) in [
        (
            "--entryPoints.web.adress=s3cret",
            &[
                &*format!("--entryPoints.web.adress: {missing}"),
                &format!("--entryPoints.web.adress: {adress}"),
            ][..],
        ),
        ("--entrypoints.web.address=nowhere", &["--entrypoints.web.address: entryPoints.web.address: "]),
        (
            "--entrypoint.web.address=:80",
            &[
                "--entrypoint.web.address: entrypoint: there is no key `entrypoint` here (did you mean `entryPoints`?",
            ],
        ),
        ("--api.token=s3cret", &["--api.token: api.token: the token is shorter than"]),
        ("--log.level --ping", &["--log.level: needs a value"]),
        ("--ping=yes", &["--ping: ping: expected a map or `true`, found `yes`"]),
        ("--metrics", &["--metrics: metrics: expected a map, found a single value"]),
        ("--entrypoints..web=1", &["--entrypoints..web: the name has an empty part"]),
        ("--http.routers.a.rule=x", &["--http.routers.a.rule: http: there is no key `http` here"]),
        ("--pilot.token=s3cret", &["--pilot.token: pilot: "]),
        (
            "--experimental.plugins.x.modulename=a",
            &["--experimental.plugins.x.modulename: experimental.plugins: `plugins` is not supported yet"],
        ),
    ] {
        let told = told(&flags(line).0);
        assert_eq!(told.len(), expected.len(), "{line}: {told:?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(expected) && !told.contains("s3cret"), "{line}: {told}");
        }
    }
    let source = variables(&[
        ("TRAEFIK_PING_NOPE", "s3cret"),
        ("TRAEFIK_PINGER", "s3cret"),
        ("TRAEFIK_API__DEBUG", "s3cret"),
    ]);
    let told = told(&source);
    for (told, expected) in told.iter().zip([
        "TRAEFIK_API__DEBUG: the name has an empty part",
        "TRAEFIK_PINGER: pinger: there is no key `pinger` here (did you mean `ping`?",
        "TRAEFIK_PING_NOPE: ping.nope: there is no key `nope` here",
    ]) {
        assert!(told.starts_with(expected) && !told.contains("s3cret"), "{told}");
    }
    assert_eq!(told.len(), 3);
    assert!(!format!("{source:?}").contains("s3cret"));
}

#[test]
fn one_source_is_in_force_and_the_others_are_told() {
    let take = |line: &str| Settings::take_flags(&mut words(line));
    let environment = || match variables(&[("TRAEFIK_PING", "true")]) {
        StaticSource::Variables(settings) => settings,
        other => panic!("{other}"),
    };
    let found = |file: Option<&str>, line: &str, environment: Settings| {
        let (source, warnings) = StaticSource::find(file.map(Path::new), take(line), environment).unwrap();
        assert!(warnings.iter().all(|warning| !warning.is_error()));
        let told: Vec<String> = warnings.iter().map(Problem::line).collect();
        (source.map(|source| source.to_string()), told)
    };
    let (source, told) = found(Some("/etc/hostname"), "--api --log.level=INFO", environment());
    assert_eq!(source.as_deref(), Some("/etc/hostname"));
    let hint = "(write them into the file, or remove it: file, flags and variables are not mixed)";
    assert_eq!(
        told,
        [
            format!(
                "the command line: warning: not in force beside /etc/hostname: --api, --log.level {hint}"
            ),
            format!("the environment: warning: not in force beside /etc/hostname: TRAEFIK_PING {hint}")
        ]
    );
    let (source, told) = found(None, "--api", environment());
    assert_eq!(source.as_deref(), Some("the command line"));
    assert!(
        told.len() == 1
            && told[0].starts_with("the environment: warning: not in force beside the command line")
    );
    assert_eq!(found(None, "", environment()), (Some("the environment".to_owned()), vec![]));
    assert_eq!(found(None, "", Settings::default()), (None, vec![]));
    let many: String = (0..30).map(|n| format!("--entrypoints.e{n}.address=:{n} ")).collect();
    assert!(take(&many).names().unwrap().ends_with("--entrypoints.e19.address and 10 more"));
}

#[test]
fn flags_with_errors_may_still_say_where_the_dynamic_files_lie() {
    let (source, _) = flags("--providers.file.directory=/d --ping.nope=1 --entrypoints.web.adress=:80");
    assert_eq!(source.find_dynamic().unwrap().0, FileSource::Directory("/d".into()));
    let (source, _) = flags("--ping");
    assert!(source.find_dynamic().is_none());
}

/// What every flag of Traefik is read as is found out by reading: a switch never takes the next word.
#[test]
fn the_reader_tells_what_an_option_is() {
    for (path, shape) in [
        ("ping", Some(Shape::Switch)),
        ("API.Insecure", Some(Shape::Switch)),
        ("providers.docker.tls.insecureskipverify", Some(Shape::Switch)),
        ("certificatesresolvers.x.acme.tlschallenge", Some(Shape::Switch)),
        ("entrypoints", Some(Shape::Names)),
        ("entrypoints.web", Some(Shape::Map)),
        ("entrypoints.web.http.tls.domains", Some(Shape::List)),
        ("entrypoints.web.http.tls.domains[3].main", Some(Shape::Word)),
        ("entrypoints.web.http.tls.domains[3].sans", Some(Shape::List)),
        ("entrypoints.web.transport.lifecycle.gracetimeout", Some(Shape::Word)),
        ("log.level", Some(Shape::Word)),
        ("log.nope", None),
        ("nope", None),
        ("global.checknewversion", None),
    ] {
        assert_eq!(schema::shape(path), shape, "{path}");
    }
    let roots = schema::roots();
    assert!(roots.contains(&"entryPoints") && roots.contains(&"pilot"), "{roots:?}");
    assert!(!roots.contains(&"http") && !roots.contains(&"address"), "{roots:?}");
}

proptest! {
    /// Whatever is written: what is no flag is left as it was, in its order, and reading ends.
    #[test]
    fn any_command_line_is_read(line in "((--?|)(ping|api|log|entrypoints|nope|check|=|\\.|\\[0\\]|\\[|x|:80|-1| )){0,30}") {
        let (source, left) = flags(&line);
        let mut words = line.split_whitespace();
        prop_assert!(left.split_whitespace().all(|left| words.any(|word| word == left)), "{line}: {left}");
        told(&source);
    }

    #[test]
    fn any_variable_is_read(name in "(TRAEFIK|PING|API|ENTRYPOINTS|HTTP|TLS|DOMAINS|0|_|\\[|\\.|x){0,12}") {
        told(&variables(&[(&format!("TRAEFIK_ENTRYPOINTS_{name}"), ":80"), (&format!("TRAEFIK_{name}"), "true")]));
    }
}
