use std::path::Path;
use std::time::UNIX_EPOCH;

use super::*;

fn entry<'a>() -> Entry<'a> {
    Entry {
        start: UNIX_EPOCH + Duration::new(1_795_308_356, 279_804_185),
        duration: Duration::from_nanos(4_655_434),
        entry_point: "web",
        router: Some("refused@file"),
        service: Some("refused@file"),
        service_url: Some("http://127.0.0.1:18899"),
        service_addr: Some("127.0.0.1:18899"),
        client: "127.0.0.1:41456".parse().unwrap(),
        client_host: None,
        client_username: None,
        host: "127.0.0.1:18080",
        method: "GET",
        path: "/refused?q=1",
        protocol: "HTTP/1.1",
        scheme: "http",
        request_bytes: 0,
        origin: Some(Origin { status: 502, bytes: 11, duration: Duration::from_nanos(4_266_206) }),
        status: 502,
        response_bytes: 11,
        retry_attempts: 0,
        trace: None,
        tls: None,
        request_headers: None,
        origin_headers: None,
        downstream_headers: None,
    }
}

fn unrouted<'a>() -> Entry<'a> {
    Entry {
        router: None,
        service: None,
        service_url: None,
        service_addr: None,
        origin: None,
        host: "x",
        path: "/nope",
        status: 404,
        response_bytes: 19,
        ..entry()
    }
}

fn logged_at(path: &Path, settings: Settings, entries: &[Entry<'_>]) -> String {
    let log =
        AccessLog::open(Settings { file_path: Some(path.into()), ..settings }, 1, Arc::default(), |_| {})
            .unwrap();
    for entry in entries {
        log.shard(0).write(entry);
    }
    drop(log);
    std::fs::read_to_string(path).unwrap_or_default()
}

fn logged(settings: Settings, entries: &[Entry<'_>]) -> String {
    let directory = tempfile::tempdir().unwrap();
    logged_at(&directory.path().join("made/access.log"), settings, entries)
}

fn settings(format: Format) -> Settings {
    Settings { format, ..Settings::default() }
}

/// Lines of Traefik 3.7 itself (reference section 1.7), with the query that `entry()` has.
#[test]
fn json_lines_are_traefiks_byte_for_byte() {
    let text = logged(settings(Format::Json), &[entry(), unrouted()]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[0],
        concat!(
            r#"{"ClientAddr":"127.0.0.1:41456","ClientHost":"127.0.0.1","ClientPort":"41456","ClientUsername":"-","#,
            r#""DownstreamContentSize":11,"DownstreamStatus":502,"Duration":4655434,"OriginContentSize":11,"#,
            r#""OriginDuration":4266206,"OriginStatus":502,"Overhead":389228,"RequestAddr":"127.0.0.1:18080","#,
            r#""RequestContentSize":0,"RequestCount":1,"RequestHost":"127.0.0.1","RequestMethod":"GET","#,
            r#""RequestPath":"/refused?q=1","RequestPort":"18080","RequestProtocol":"HTTP/1.1","#,
            r#""RequestScheme":"http","RetryAttempts":0,"RouterName":"refused@file","#,
            r#""ServiceAddr":"127.0.0.1:18899","ServiceName":"refused@file","#,
            r#""ServiceURL":"http://127.0.0.1:18899","StartLocal":"2026-11-22T00:45:56.279804185Z","#,
            r#""StartUTC":"2026-11-22T00:45:56.279804185Z","entryPointName":"web","level":"info","msg":"","#,
            r#""time":"2026-11-22T00:45:56Z"}"#
        )
    );
    let second: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
    for (key, value) in [
        ("GzipRatio", serde_json::json!(0)),
        ("OriginStatus", 0.into()),
        ("OriginDuration", 0.into()),
        ("Overhead", 4_655_434.into()),
        ("RequestHost", "x".into()),
        ("RequestPort", "-".into()),
        ("RequestCount", 2.into()),
    ] {
        assert_eq!(second[key], value, "{key}");
    }
    assert!(second.get("RouterName").is_none() && second.get("ServiceURL").is_none());
}

#[test]
fn common_lines_are_traefiks() {
    let full = r#"127.0.0.1 - - [22/Nov/2026:00:45:56 +0000] "GET /refused?q=1 HTTP/1.1" 502 11 "-" "-""#;
    let cases: [(Format, Entry<'_>, String); 4] = [
        (Format::Common, entry(), format!("{full} 1 \"refused@file\" \"http://127.0.0.1:18899\" 4ms\n")),
        (Format::GenericClf, entry(), format!("{full}\n")),
        (
            Format::GenericClf,
            Entry { client_host: Some("203.0.113.9, 10.0.0.1"), client_username: Some("bob"), ..entry() },
            format!("{full}\n").replace("127.0.0.1 - -", "203.0.113.9, 10.0.0.1 - bob"),
        ),
        (
            // A user name comes out of base64 and may hold anything.
            Format::GenericClf,
            Entry { client_username: Some("a\n\"b - [] \\"), ..entry() },
            format!("{full}\n").replace(" - - ", r#" - a\x0a\"b\x20-\x20[]\x20\\ "#),
        ),
    ];
    for (format, entry, line) in cases {
        assert_eq!(logged(settings(format), &[entry]), line);
    }
    let text = logged(settings(Format::Common), &[unrouted()]);
    assert!(text.ends_with("404 19 \"-\" \"-\" 1 \"-\" \"-\" 4ms\n"), "{text}");
}

#[test]
fn filters_are_ored() {
    let slow = Entry { status: 200, duration: Duration::from_secs(2), ..entry() };
    let retried = Entry { status: 200, retry_attempts: 1, ..entry() };
    let plain = Entry { status: 200, ..entry() };
    let entries = [entry(), slow, retried, plain];
    let cases = [
        (Filters::default(), "1 2 3 4"),
        (Filters { status_codes: vec![(500, 599)], ..Filters::default() }, "1"),
        (Filters { min_duration: Some(Duration::from_secs(1)), ..Filters::default() }, "2"),
        (Filters { min_duration: Some(Duration::from_secs(2)), ..Filters::default() }, ""),
        (Filters { retry_attempts: true, status_codes: vec![(502, 502)], ..Filters::default() }, "1 3"),
    ];
    for (filters, kept) in cases {
        let text = logged(Settings { filters: filters.clone(), ..settings(Format::Json) }, &entries);
        let counts: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["RequestCount"].to_string())
            .collect();
        assert_eq!(counts.join(" "), kept, "{filters:?}");
    }
}

#[test]
fn field_modes_drop_fields_and_the_query() {
    let mode = |name: &str, mode| (name.to_owned(), mode);
    let fields = Fields {
        default_mode: FieldMode::Drop,
        names: [mode("requestpath", FieldMode::Keep), mode("routername", FieldMode::Keep)].into(),
        query_parameters: FieldMode::Drop,
        ..Fields::default()
    };
    let text = logged(Settings { fields: fields.clone(), ..settings(Format::Json) }, &[entry()]);
    assert_eq!(
        text,
        "{\"RequestPath\":\"/refused\",\"RouterName\":\"refused@file\",\"level\":\"info\",\"msg\":\"\",\
         \"time\":\"2026-11-22T00:45:56Z\"}\n"
    );
    let text = logged(Settings { fields, ..settings(Format::Common) }, &[entry()]);
    assert_eq!(text, "- - - [-] \"- /refused -\" - - \"-\" \"-\" - \"refused@file\" \"-\" 0ms\n");
}

#[test]
fn headers_are_kept_joined_redacted_or_dropped() {
    let request: &[(&str, &[u8])] = &[
        ("user-agent", b"curl \"8\""),
        ("X-TAG", b"a"),
        ("authorization", b"Basic c2VjcmV0"),
        ("x-tag", b"b"),
        ("cookie", b"secret"),
    ];
    let origin: &[(&str, &[u8])] = &[("server", b"origin")];
    let logged = |settings| {
        logged(
            settings,
            &[Entry {
                request_headers: Some(&|each| request.iter().for_each(|(name, value)| each(name, value))),
                origin_headers: Some(&|each| origin.iter().for_each(|(name, value)| each(name, value))),
                ..entry()
            }],
        )
    };
    let fields = Fields {
        headers_default_mode: FieldMode::Keep,
        headers: [("authorization".into(), FieldMode::Redact), ("cookie".into(), FieldMode::Drop)].into(),
        ..Fields::default()
    };
    let text = logged(Settings { fields: fields.clone(), ..settings(Format::Json) });
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (key, value) in [
        ("request_User-Agent", Some("curl \"8\"")),
        ("request_X-Tag", Some("a,b")),
        ("request_Authorization", Some("REDACTED")),
        ("request_Cookie", None),
        ("origin_Server", Some("origin")),
        ("downstream_Server", None),
    ] {
        assert_eq!(line.get(key).and_then(|v| v.as_str()), value, "{key}");
    }
    let text = logged(Settings { fields, ..settings(Format::GenericClf) });
    assert!(text.ends_with("\"-\" \"curl \\\"8\\\"\"\n"), "{text}");
    assert_eq!(logged(settings(Format::Json)).matches("request_").count(), 0, "dropped by default");
}

#[test]
fn tls_fields_appear_with_tls() {
    let tls = Tls { version: "1.3", cipher: "TLS_AES_128_GCM_SHA256", client_subject: Some("CN=bob") };
    let text = logged(settings(Format::Json), &[Entry { tls: Some(tls), ..entry() }]);
    let expected = r#""TLSCipher":"TLS_AES_128_GCM_SHA256","TLSClientSubject":"CN=bob","TLSVersion":"1.3""#;
    assert!(text.contains(expected), "{text}");
}

#[test]
fn a_rotated_file_is_made_anew_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let [path, old] = ["access.log", "access.log.1"].map(|name| directory.path().join(name));
    let settings = Settings { file_path: Some(path.clone()), ..settings(Format::Json) };
    let log = AccessLog::open(settings, 2, Arc::default(), |_| {}).unwrap();
    assert!(log.flush(Duration::from_secs(5)));
    assert!(path.exists(), "before its first line");
    log.shard(0).write(&entry());
    assert!(log.flush(Duration::from_secs(5)));
    std::fs::rename(&path, &old).unwrap();
    log.reopen();
    assert!(log.flush(Duration::from_secs(5)));
    assert!(path.exists(), "before the next line");
    log.shard(1).write(&entry());
    assert!(log.flush(Duration::from_secs(5)));
    let lines = [&path, &old].map(|path| std::fs::read_to_string(path).unwrap().lines().count());
    assert_eq!(lines, [1, 1]);
}

#[test]
fn an_unwritable_file_costs_lines_and_not_the_process() {
    let directory = tempfile::tempdir().unwrap();
    // A directory where the file should be: refused for root as well.
    let path = directory.path().join("access.log");
    std::fs::create_dir(&path).unwrap();
    let dropped = Arc::new(AtomicU64::new(0));
    let settings = Settings { file_path: Some(path.clone()), ..settings(Format::Common) };
    let log = AccessLog::open(settings, 1, Arc::clone(&dropped), |_| {}).unwrap();
    let long = "/".repeat(1 << 20);
    for _ in 0..30 {
        log.shard(0).write(&Entry { path: &long, ..entry() });
    }
    let lost = dropped.load(Ordering::Relaxed);
    // 8 MiB in the buffer, and up to as much in the hands of the writer.
    assert!((13..=22).contains(&lost), "more is not kept: {lost}");
    std::fs::remove_dir(&path).unwrap();
    log.reopen(); // wakes the writer out of its pause
    assert!(log.flush(Duration::from_secs(5)));
    let written = std::fs::read_to_string(&path).unwrap().lines().count() as u64;
    assert_eq!(written + lost, 30, "what was kept is written as soon as that works");
}

#[test]
fn lines_that_never_could_be_written_are_counted_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let dropped = Arc::new(AtomicU64::new(0));
    let settings = Settings { file_path: Some(directory.path().into()), ..settings(Format::Common) };
    let log = AccessLog::open(settings, 1, Arc::clone(&dropped), |_| {}).unwrap();
    for _ in 0..3 {
        log.shard(0).write(&entry());
    }
    drop(log);
    assert_eq!(dropped.load(Ordering::Relaxed), 3);
}
