//! Whatever a file holds, reading it ends soon, uses little memory and never panics.

use std::fmt::Write as _;
use std::time::Duration;

use lb_config::static_config::FileSource;
use lb_config::{Context, LastGood, Problems, load_dynamic, load_static, parse_dynamic, parse_static};
use proptest::prelude::*;
use rustix::time::ClockId;

/// What this process has used: a machine that is busy with other things is no fault of what is tested.
fn processor_time() -> Duration {
    rustix::time::clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

/// The first problem, which must come within a time that only runaway work exceeds.
fn refusal(name: &str, text: &str) -> String {
    let start = processor_time();
    let outcome = parse_dynamic(name, text, "file", &Context::default());
    let took = processor_time() - start;
    assert!(took < Duration::from_secs(20), "took {took:?}");
    match outcome {
        Err(Problems(problems)) => problems.first().map(ToString::to_string).unwrap_or_default(),
        Ok(loaded) => panic!("accepted, with {} problems", loaded.problems.len()),
    }
}

#[test]
fn bombs_are_refused() {
    let nested = |open: &str, count: usize| format!("http: {}", open.repeat(count));
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = level - 1;
        let alias = format!("*a{below}, ").repeat(9);
        writeln!(laughs, "a{level}: &a{level} [{alias}*a{below}]").unwrap();
    }
    let mut merges = "a0: &a0 {k: v}\n".to_owned();
    for level in 1..70 {
        let below = level - 1;
        writeln!(merges, "a{level}: &a{level} {{x: *a{below}}}").unwrap();
    }
    for (bomb, expected) in [
        (laughs, "more than 2000000 values once aliases are followed"),
        (merges, "nested deeper than 64 levels once aliases are followed"),
        (nested("[", 100_000), "recursion limit exceeded"),
        (nested("{a: ", 100_000), "nested deeper than 64 levels"),
        (nested("{? ", 100_000), "nested deeper than 64 levels"),
        ("- ".repeat(100_000), "nested deeper than 64 levels"),
        ("a: &a [*a]".to_owned(), "this alias stands inside the value it refers to"),
        ("a: &a {b: {<<: *a}}".to_owned(), "this alias stands inside the value it refers to"),
        ("- a\n".repeat(2_100_000), "more than 2000000 values"),
        ("a: b\n".repeat(100_000), "the key `a` is given twice"),
        ("http: {routers: {r: {<<: 5}}}".to_owned(), "`<<` takes a map or a list of maps"),
        ("? [a]\n: b".to_owned(), "a key must be a single value"),
        ("a: *b".to_owned(), "refers to an anchor that does not exist"),
        ("a: 'b".to_owned() + &"\n x".repeat(500_000), "not valid YAML"),
        ("{".to_owned() + &"a, ".repeat(300_000), "not valid YAML"),
    ] {
        let refusal = refusal("bomb.yml", &bomb);
        assert!(refusal.contains(expected), "{refusal}\nfor {}", &bomb[..bomb.len().min(60)]);
    }
}

/// To be told that it says nothing would not help who has indented by tabs.
#[test]
fn a_file_that_cannot_be_read_is_not_called_empty() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text, expected) in [
        ("tabs.yml", "http:\n\trouters:\n\t\tapi:\n", "tabs.yml:2:2: not valid YAML: tabs disallowed"),
        ("open.yml", "a: {b:\n", "open.yml:2:1: not valid YAML"),
        ("twice.toml", "[http]\n[http]\n", "twice.toml:2:2: not valid TOML: duplicate key"),
        ("nothing.yml", "http:\n  routers:\n", "nothing.yml: the file defines nothing"),
    ] {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        let refused = load_dynamic(&FileSource::File(path), &Context::default()).unwrap_err();
        assert!(refused.0[0].to_string().contains(expected), "{refused}");
    }
    for (source, expected) in [
        (FileSource::File(directory.path().to_owned()), "is a directory, not a file"),
        (FileSource::Directory(directory.path().join("tabs.yml")), "is not a directory"),
    ] {
        let refused = load_dynamic(&source, &Context::default()).unwrap_err();
        assert!(refused.0[0].to_string().contains(expected), "{refused}");
    }
}

/// More problems than are kept must not hide which file is the broken one: it would hold up the others.
#[test]
fn a_broken_file_holds_up_no_other_however_many_problems_there_are() {
    let directory = tempfile::tempdir().unwrap();
    let source = FileSource::Directory(directory.path().to_owned());
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let prefix = |prefix: &str| format!("http: {{middlewares: {{m: {{addPrefix: {{prefix: {prefix}}}}}}}}}");
    let routers: String =
        (0..1_100).map(|n| format!("    r{n}: {{rule: Nope(`a`), service: s}}\n")).collect();
    write("a.yml", &format!("http:\n  routers:\n{routers}"));
    write("b.yml", &prefix("/old"));
    write("c.yml", "http: {middlewares: {n: {addPrefix: {prefix: /n}}}}");
    let mut last = LastGood::default();
    last.load(&source, &Context::default()).unwrap();
    last.accept();
    write("b.yml", &prefix("/new"));
    write("c.yml", "http: {middlewares: {n: {addPrefix: {prefix: /n}, x: {y: {}}}}}");
    let loaded = last.load(&source, &Context::default()).unwrap();
    assert_eq!(
        loaded.config.middlewares["m@file"],
        lb_config::dynamic::Middleware::AddPrefix { prefix: "/new".into() }
    );
    let stale: Vec<_> = loaded.stale_files.keys().map(|file| file.rsplit('/').next().unwrap()).collect();
    assert_eq!(stale, ["c.yml"]);
}

#[test]
fn template_bombs_are_refused() {
    let nested =
        |open: &str, close: &str, count: usize| format!("{}x{}", open.repeat(count), close.repeat(count));
    let double = |text: &str| {
        format!("{{{{ $s := `{text}` }}}}{{{{ range 64 }}}}{{{{ $s = print $s $s }}}}{{{{ end }}}}")
    };
    let many_faults = "{{ nope }}{{ if }}".repeat(100_000);
    let mut chain = "{{ $l0 := list 1 }}".to_owned();
    for level in 1..60 {
        let below = level - 1;
        write!(chain, "{{{{ $l{level} := list $l{below} $l{below} }}}}").unwrap();
    }
    for (bomb, expected) in [
        ("{{ range 1000000 }}{{ range 1000000 }}{{ end }}{{ end }}".to_owned(), "more than 5000000 steps"),
        ("{{ range 1000000 }}{{ range 1000000 }}xx{{ end }}{{ end }}".to_owned(), "more than 5000000 steps"),
        (
            "{{ range 1000000 }}0123456789012345678901234567890123456789{{ end }}".to_owned(),
            "writes more than 16 MiB",
        ),
        ("{{ until 1000000000000 }}".to_owned(), "makes more than 256 MiB of values"),
        ("{{ untilStep -9223372036854775807 9223372036854775807 1 }}".to_owned(), "makes more than 256 MiB"),
        ("{{ seq 1 9223372036854775807 }}".to_owned(), "makes more than 256 MiB"),
        ("{{ repeat 100000000 `abc` }}".to_owned(), "a text of more than 16 MiB"),
        ("{{ repeat 9223372036854775807 `abc` }}".to_owned(), "a text of more than 16 MiB"),
        ("{{ indent 100000000 `a` }}".to_owned(), "a text of more than 16 MiB"),
        ("{{ printf `%9999999d%9999999d%9999999d` 1 2 3 }}".to_owned(), "a text of more than 16 MiB"),
        (
            "{{ $a := repeat 9999 `a` }}{{ replace `a` (repeat 99999 `b`) $a }}".to_owned(),
            "a text of more than 16 MiB",
        ),
        (
            "{{ $a := repeat 9999 `a` }}{{ regexReplaceAll `.*` $a (repeat 9999 `$0`) }}".to_owned(),
            "a text of more than 16 MiB",
        ),
        (
            "{{ $a := repeat 16000000 `a` }}{{ range 1000000 }}{{ contains `b` $a }}{{ end }}".to_owned(),
            "steps",
        ),
        (
            "{{ $a := repeat 1000000 `a` }}{{ range 1000 }}{{ regexMatch `(x+x+)+y` $a }}{{ end }}"
                .to_owned(),
            "steps",
        ),
        ("{{ $l := until 100000 }}{{ uniq $l }}".to_owned(), "more than 5000000 steps"),
        (
            "{{ $l := list }}{{ range 100000 }}{{ $l = append $l . }}{{ end }}".to_owned(),
            "makes more than 256 MiB",
        ),
        (
            "{{ $l := list }}{{ range 100000 }}{{ $l = list $l }}{{ end }}".to_owned(),
            "nested deeper than 64 levels",
        ),
        ("{{ $d := dict }}{{ $_ := set $d `a` $d }}{{ $d }}".to_owned(), "nested deeper than 64 levels"),
        (
            "{{ $d := dict }}{{ $_ := set $d `a` $d }}{{ toJson $d }}".to_owned(),
            "nested deeper than 64 levels",
        ),
        (
            "{{ $d := dict }}{{ $_ := set $d `a` $d }}{{ deepCopy $d }}".to_owned(),
            "nested deeper than 64 levels",
        ),
        (
            "{{ $d := dict }}{{ range 5000000 }}{{ $d = dict . $d }}{{ end }}".to_owned(),
            "makes more than 256 MiB",
        ),
        (
            "{{ define `r` }}{{ template `r` . }}{{ end }}{{ template `r` }}".to_owned(),
            "nested deeper than 200 levels",
        ),
        (
            "{{ define `r` }}{{ range 9 }}{{ template `r` . }}{{ end }}{{ end }}{{ template `r` }}"
                .to_owned(),
            "nested deeper than 200 levels",
        ),
        (nested("{{ if true }}", "{{ end }}", 100_000), "nested deeper than 64 levels"),
        (nested("{{ (", ") }}", 1), "no template function `x`"),
        (format!("{{{{ {} }}}}", nested("(", ")", 9_000)), "more than 64 parentheses within each other"),
        (format!("{{{{ {} }}}}", "1 ".repeat(100_000)), "an action of more than 20000 words"),
        ("{{ fromJson `".to_owned() + &"[".repeat(100_000) + "` }}{{ fail `read` }}", "`fail`: read"),
        (
            "{{ mustFromJson `".to_owned() + &"[".repeat(100) + &"]".repeat(100) + "` }}",
            "nested deeper than 64 levels",
        ),
        (double("x"), "a text of more than 16 MiB"),
        (chain + "{{ $l59 }}", "more than 5000000 steps"),
        (many_faults, "there is no template function `nope`"),
        ("{{ $x := 1 }}".repeat(2_000), "more than 1000 variables"),
        ("{{.}}".repeat(600_000), "more than 500000 texts and actions"),
        ("{{".repeat(500_000), "an action of more than 20000 words"),
        ("{{/*".repeat(500_000), "this comment has no `*/`"),
        ("{{ \"a\n".repeat(500_000), "has no second"),
    ] {
        for name in ["bomb.yml", "bomb.toml"] {
            let refusal = refusal(name, &bomb);
            assert!(refusal.contains(expected), "{refusal}\nfor {}", &bomb[..bomb.len().min(90)]);
        }
    }
}

/// The deepest that is allowed fits onto the stack of a thread.
#[test]
fn what_is_nested_as_deep_as_it_may_be_is_run() {
    let parentheses = format!("{}len `aa`{}", "(".repeat(64), ")".repeat(64));
    let inner = format!("{}{{{{ {parentheses} }}}}{}", "{{ if true }}".repeat(60), "{{ end }}".repeat(60));
    let text = format!(
        "{{{{ define `r` }}}}{{{{ if lt . 67 }}}}{{{{ with . }}}}{{{{ template `r` (int (add1 .)) }}}}{{{{ end }}}}{{{{ else }}}}\
         {inner}{{{{ end }}}}{{{{ end }}}}\
         http: {{middlewares: {{a: {{addPrefix: {{prefix: /{{{{ template `r` 23 }}}}}}}}}}}}"
    );
    let loaded = parse_dynamic("deep.yml", &text, "file", &Context::default());
    assert!(loaded.is_ok(), "{}", loaded.unwrap_err());
}

#[test]
fn a_million_problems_are_counted_not_printed() {
    let mut text = "http: {routers: {r: {\n".to_owned();
    for key in 0..200_000 {
        writeln!(text, " k{key}: 1,").unwrap();
    }
    text += " }}}\n";
    let loaded = parse_dynamic("many.yml", &text, "file", &Context::default()).unwrap();
    assert!(loaded.config.routers.is_empty());
    let problems = loaded.problems;
    assert!(problems.len() <= 1_001, "{}", problems.len());
    let last = problems.last().unwrap().to_string();
    assert!(last.contains("more problems are not shown"), "{last}");
}

#[test]
fn toml_bombs_are_refused() {
    for (bomb, expected) in [
        ("a.".repeat(100_000) + "b = 1", "a key of more than 64 parts"),
        (format!("[{}b]", "a.".repeat(100_000)), "a key of more than 64 parts"),
        (format!("a = {{{}b = 1}}", "a.".repeat(100_000)), "a key of more than 64 parts"),
        ("a = ".to_owned() + &"[".repeat(100_000), "not valid TOML"),
        ("a = ".to_owned() + &"{a=".repeat(100_000), "not valid TOML"),
        ("# ".repeat(600_000), "TOML bigger than 1 MiB is not read"),
        ("a = 1\na = 2\n".to_owned(), "not valid TOML"),
    ] {
        let refusal = refusal("bomb.toml", &bomb);
        assert!(refusal.contains(expected), "{refusal}");
    }
}

#[test]
fn what_is_no_text_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let folder = directory.path().join("folder.yml");
    std::fs::create_dir(&folder).unwrap();
    for (path, expected) in [
        (write("latin1.yml", b"ok: 1\nname: caf\xe9\n"), "is not UTF-8 text (line 2)"),
        (write("big.yml", &vec![b'#'; 16 * 1024 * 1024 + 1]), "is bigger than 16 MiB"),
        (write("static.txt", b""), "the kind of file is not known"),
        (folder, "is a directory, not a file"),
        (directory.path().join("absent.yml"), "does not exist"),
    ] {
        for refusal in [
            load_static(&path).unwrap_err().to_string(),
            load_dynamic(&FileSource::File(path.clone()), &Context::default()).unwrap_err().to_string(),
        ] {
            assert!(refusal.starts_with(&format!("{}: {expected}", path.display())), "{refusal}");
        }
    }
    let fifty_mib_of_nothing = FileSource::File("/dev/zero".into());
    assert!(load_dynamic(&fifty_mib_of_nothing, &Context::default()).is_err());
}

#[test]
fn a_file_of_exactly_the_limit_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("full.yml");
    let mut text = b"{}\n".to_vec();
    text.resize(16 * 1024 * 1024, b'#');
    std::fs::write(&path, text).unwrap();
    assert!(load_dynamic(&FileSource::File(path), &Context::default()).is_ok());
}

/// As the server sees it: nobody defines nothing by accident.
#[test]
fn a_static_file_without_a_word_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text, refused) in [
        ("a.yml", "", true),
        ("a.yml", "\u{feff}# later\n---\n", true),
        ("a.yml", "{}", true),
        ("a.yml", "~", true),
        ("a.yml", "entryPoints:\nproviders:\n", true),
        ("a.toml", "# later\n", true),
        ("a.yml", "ping: {}", false),
        ("a.toml", "[ping]", false),
    ] {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        let told = load_static(&path).err().map(|problems| problems.0[0].message.clone());
        assert_eq!(told.as_deref(), refused.then_some("the file has no configuration"), "{text:?}");
    }
}

#[test]
fn a_file_that_defines_nothing_is_refused_where_it_is_all_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("blank.yml");
    for (text, expected) in
        [("\n", Some("is empty")), ("# later\nhttp:\n", Some("defines nothing")), ("{}", None)]
    {
        std::fs::write(&path, text).unwrap();
        let loaded = load_dynamic(&FileSource::File(path.clone()), &Context::default());
        let refusal = loaded.err().map(|problems| problems.to_string());
        assert_eq!(refusal.is_some(), expected.is_some(), "{text:?}");
        assert!(refusal.unwrap_or_default().contains(expected.unwrap_or_default()), "{text:?}");
        let many = load_dynamic(&FileSource::Directory(directory.path().into()), &Context::default());
        assert!(many.is_ok(), "{text:?}");
    }
}

#[test]
fn a_hundred_thousand_routers_are_read() {
    let mut text = "http:\n  services:\n    origin: {loadBalancer: {servers: [{url: 'http://192.0.2.7'}]}}\n  routers:\n".to_owned();
    for n in 0..100_000 {
        let rule = format!("Host(`h{n}.example.com`) && PathPrefix(`/api`)");
        writeln!(text, "    r{n}: {{rule: \"{rule}\", service: origin, entryPoints: [web], tls: {{}}}}")
            .unwrap();
    }
    assert!(text.len() > 10_000_000, "{} bytes are too easy", text.len());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("many.yml");
    std::fs::write(&path, text).unwrap();
    let loaded = load_dynamic(&FileSource::File(path), &Context::default()).unwrap();
    assert!(loaded.problems.is_empty(), "{}", loaded.problems[0]);
    assert_eq!(loaded.config.routers.len(), 100_000);
}

/// Pieces that the grammar and the decoder care about, so that random text gets somewhere.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        proptest::sample::select(vec![
            "http:",
            "  ",
            "    ",
            "\n",
            "routers:",
            "services:",
            "middlewares:",
            "rule:",
            "service:",
            "tls:",
            "{}",
            "[]",
            "{",
            "}",
            "[",
            "]",
            ", ",
            ": ",
            "- ",
            "&a ",
            "*a",
            "<<: ",
            "|\n",
            ">-\n",
            "'",
            "\"",
            "#",
            "---\n",
            "...\n",
            "~",
            "!!str ",
            "!x ",
            "? ",
            "r",
            "s@file",
            "loadBalancer:",
            "servers:",
            "url:",
            "http://[::1]:1/",
            "10s",
            "-1",
            "0.5",
            "true",
            "Host(`a`)",
            "options:",
            "default:",
            "certificates:",
            "certFile:",
            "chain:",
            "headers:",
            "users:",
            "customRequestHeaders:",
            "basicAuth:",
            "ipAllowList:",
            "sourceRange:",
            "10.0.0.0/8",
            "entryPoints:",
            "address:",
            ":80",
            "api:",
            "ping:",
            "accessLog:",
            "metrics:",
            "prometheus:",
            "buckets:",
            "providers:",
            "file:",
            "{{ env \"HOME\" }}",
            "{{",
            "}}",
            "\u{feff}",
            "\t",
            "\r\n",
            "é",
            "\0",
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// Words of templates, in any order.
fn actions() -> impl Strategy<Value = String> {
    let words = [
        "{{",
        "}}",
        "{{-",
        "-}}",
        " ",
        "\n",
        "\r",
        "-",
        "if",
        "else",
        "end",
        "range",
        "with",
        "define",
        "template",
        "block",
        "break",
        "continue",
        "nil",
        "true",
        "$",
        "$x",
        ":=",
        "=",
        ",",
        "|",
        "(",
        ")",
        ".",
        ".a",
        "1",
        "2.5",
        "0x1f",
        "'a'",
        "\"t\"",
        "`r`",
        "\"",
        "`",
        "'",
        "\\",
        "/*",
        "*/",
        "http:",
        "é",
        "list",
        "dict",
        "until",
        "printf",
        "\"%5d%v%\"",
        "index",
        "set",
        "splitList",
        "add",
        "len",
        "toJson",
        "fromJson",
        "regexSplit",
        "substr",
        "slice",
        "merge",
        "env",
    ];
    proptest::collection::vec(proptest::sample::select(words.to_vec()), 0..40)
        .prop_map(|words| words.concat())
}

/// What may stand between the words of an action that is well formed.
fn expressions() -> impl Strategy<Value = String> {
    let words = [
        "$x",
        ".",
        "1",
        "-1",
        "\"é\"",
        "\"a,b\"",
        "`$0`",
        "3.5",
        "true",
        "(list 1 \"é\" 3)",
        "(dict \"a\" 1)",
        "(until 3)",
        "nil",
        "(add 1 2)",
        "9223372036854775807",
        "-9223372036854775808",
        "\"%s%[2]*.3d\"",
        "\"[[1],{\\\"a\\\":2}]\"",
        "| len",
        "| print",
    ];
    let functions = include_str!("../../../docs/configuration.md");
    let (_, functions) = functions.split_once("## Templates").unwrap();
    let functions: Vec<String> = functions.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let word = proptest::sample::select(words.to_vec());
    let call = (proptest::sample::select(functions), proptest::collection::vec(word, 0..5));
    let call = call.prop_map(|(function, words)| format!("{function} {}", words.join(" ")));
    proptest::collection::vec(call, 1..6).prop_map(|calls| {
        let calls: String =
            calls.iter().map(|call| format!("{{{{ $y = {call} }}}}{{{{ print $y }}}}\n")).collect();
        format!("{{{{ $x := list 1 \"a\" }}}}{{{{ $y := 1 }}}}# {calls}")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn text_never_panics(text in pieces()) {
        for name in ["a.yml", "a.toml"] {
            if let Err(problems) = parse_dynamic(name, &text, "file", &Context::default()) {
                prop_assert!(problems.errors() > 0);
                let _ = problems.to_string();
            }
            if let Err(problems) = parse_static(name, &text) {
                prop_assert!(problems.errors() > 0);
            }
        }
    }

    #[test]
    fn templates_never_panic(text in prop_oneof![actions(), expressions()]) {
        for name in ["a.yml", "a.toml"] {
            if let Err(problems) = parse_dynamic(name, &text, "file", &Context::default()) {
                prop_assert!(problems.errors() > 0);
                let lines = text.split(['\n', '\r']).count();
                for problem in problems.iter() {
                    prop_assert!(usize::try_from(problem.line).unwrap() <= lines, "{problem}");
                }
            }
        }
    }
}
