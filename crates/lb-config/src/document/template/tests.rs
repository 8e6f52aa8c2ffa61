use super::*;

fn env(name: &str) -> Option<String> {
    match name {
        "HOST" => Some("example.com".to_owned()),
        "TWO" => Some("x\ny".to_owned()),
        "SECRET" => Some("hunter2".to_owned()),
        "TMPL_A" => Some("va".to_owned()),
        "TMPL_LIST" => Some("a,b,c".to_owned()),
        _ => None,
    }
}

/// The rendered text, and the place in the file of the first character in it that is `@`; or the problems.
fn run(text: &str) -> Result<String, String> {
    let mut files = Files::default();
    let file = files.add("a.yml");
    let mut problems = Vec::new();
    match render(text, Format::Yaml, file, &files, &env, &mut problems) {
        Some(rendered) => {
            let place = rendered.text.chars().position(|c| c == '@').map(|index| {
                let before: String = rendered.text.chars().take(index).collect();
                let before = before.replace('\r', "\n");
                let line = before.matches('\n').count() + 1;
                let column = before.chars().rev().take_while(|c| *c != '\n').count();
                let at = rendered.origin.locate(file, index, line, column);
                format!(" @{}:{}", at.line, at.column)
            });
            Ok(rendered.text.into_owned() + &place.unwrap_or_default())
        }
        None => Err(problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")),
    }
}

#[test]
fn the_environment_is_filled_in_and_places_stay_those_of_the_file() {
    assert_eq!(run("a: b @"), Ok("a: b @ @1:6".to_owned()));
    assert_eq!(run("h: {{ env \"HOST\" }} @"), Ok("h: example.com @ @1:21".to_owned()));
    assert_eq!(run("h: {{env `HOST`}}\nk: @"), Ok("h: example.com\nk: @ @2:4".to_owned()));
    assert_eq!(run("{{ env \"TWO\" }} @"), Ok("x\ny @ @1:17".to_owned()));
    assert_eq!(run("a:\r{{ env\r\"HOST\" }}\r @"), Ok("a:\rexample.com\r @ @4:2".to_owned()));
    assert_eq!(run("a\n{{ env \"NONE\" }}\n\n @"), Ok("a\n\n\n @ @4:2".to_owned()));
}

#[test]
fn what_a_loop_writes_lies_where_its_text_stands() {
    for (text, place) in [
        ("a\n{{ range until 3 }}\nb: @\n{{ end }}", " @3:4"),
        ("a\n{{ range until 3 }}\nb: {{ . }}\n{{ end }} @", " @4:11"),
        ("{{- range $i := until 3 -}}\n\n  x{{ $i }}: y\n{{ end }}k: @", " @4:13"),
        ("{{ range until 9 }}\nb{{ . }}: c\nd{{ . }}: {{ if eq . 7 }}@{{ end }}\n{{ end }}", " @3:26"),
        ("{{ define \"r\" }}\n  {{ . }}: @\n{{ end }}\n\n{{ template \"r\" \"a\" }}", " @2:12"),
        ("a\n  {{ printf \"%s\" `x\ny@` }}", " @2:3"),
        ("{{ with env \"TWO\" }}{{ . }}\n{{ . }}{{ end }}\nk: @", " @3:4"),
        ("a {{- /* \n\n */ -}} \n\n @", " @5:2"),
        ("a\n{{ nindent 2 \"b\" }}\n{{ \"@\" }}", " @3:1"),
    ] {
        let rendered = run(text).unwrap();
        assert!(rendered.ends_with(place), "{text:?}: {rendered:?}");
    }
}

/// A table of what Traefik answered.
#[test]
fn expressions_are_what_they_are_to_traefik() {
    let mut wrong = Vec::new();
    for line in include_str!("expressions.txt").lines().filter(|line| !line.starts_with('#')) {
        let (expression, expected) = line.split_once(" => ").unwrap();
        let got = run(&format!("{{{{ printf \"%v\" ({expression}) | toJson }}}}"));
        let same = match (&got, expected) {
            (Err(problem), "refused") => problem.starts_with("a.yml:1:"),
            (Ok(got), expected) => {
                let json = |text: &str| serde_json::from_str::<String>(text).ok();
                json(got.trim_end_matches(" @1:1")) == json(expected) && json(expected).is_some()
            }
            (Err(_), _) => false,
        };
        if !same {
            wrong.push(format!("{expression}: {got:?}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn structures_are_those_of_go() {
    for (text, expected) in [
        ("{{ range $i, $e := list \"x\" \"y\" }}{{ $i }}{{ $e }} {{ end }}", "0x 1y "),
        ("{{ range 3 }}{{ . }}{{ end }}{{ range $i := 2 }}{{ $i }}{{ end }}", "01201"),
        ("{{ range $k, $v := dict \"b\" 1 \"a\" 2 }}{{ $k }}{{ $v }}{{ end }}", "a2b1"),
        ("{{ range (list) }}x{{ else }}none {{ . }}{{ end }}", "none false"),
        (
            "{{ range until 9 }}{{ if eq . 4 }}{{ break }}{{ end }}{{ if eq . 1 }}{{ continue }}{{ end }}{{ . }}{{ end }}",
            "023",
        ),
        (
            "{{ range $i := until 4 }}{{ if eq $i 0 }}a{{ else if eq $i 1 2 }}b{{ else }}c{{ end }}{{ end }}",
            "abbc",
        ),
        ("{{ with \"\" }}a{{ else with \"b\" }}{{ . }}{{ else }}c{{ end }}", "b"),
        ("{{ with $x := \"v\" }}{{ $x }}{{ . }}{{ $ }}{{ end }}", "vvfalse"),
        ("{{ $x := 1 }}{{ range until 3 }}{{ $x = add $x . }}{{ end }}{{ $x }}", "4"),
        ("{{ $x := 1 }}{{ if true }}{{ $x := 2 }}{{ $x }}{{ end }}{{ $x }}", "21"),
        ("{{ $i := 0 }}{{ $e := 0 }}{{ range $i, $e = list 5 6 }}{{ end }}{{ $i }}{{ $e }}", "16"),
        (
            "{{ define \"t\" }}<{{ . }}{{ $ }}>{{ end }}{{ template \"t\" 1 }}{{ template \"t\" }}",
            "<11><<no value><no value>>",
        ),
        ("{{ block \"t\" \"x\" }}<{{ . }}>{{ end }}{{ template \"t\" \"y\" }}", "<x><y>"),
        (
            "{{ define \"t\" }}{{ end }}{{ define \"t\" }}a{{ end }}{{ define \"t\" }} {{ end }}{{ template \"t\" }}",
            "a",
        ),
        (
            "{{ define \"r\" }}{{ . }}{{ if lt . 5 }}{{ template \"r\" (add1 . | int) }}{{ end }}{{ end }}{{ template \"r\" 0 }}",
            "012345",
        ),
        ("a  {{- 1 -}}  b {{- /* c */ -}}  d {{/* e */}} f", "a1bd  f"),
        ("x {{-3}} {{- -3 -}} \n y", "x -3-3y"),
        ("{{ \"{{\" }} }} {{ `}}` }}", "{{ }} }}"),
        ("{{ print\n  1\n}}", "1"),
        ("{{ and false (fail \"x\") }}{{ or 1 (fail \"x\") }}", "false1"),
        ("{{ (dict).x }}{{ (dict).x.y }}{{ . }}", "<no value><no value>false"),
        (
            "{{ $d := dict \"a\" 1 }}{{ range $k, $v := $d }}{{ $_ := set $d \"b\" 2 }}{{ $k }}{{ end }}{{ len $d }}",
            "a2",
        ),
        ("{{ len (printf \"%.99999f%.99999e%.99999g%99999d\" 1.5 2.5 3.5 4) }}", "300008"),
        ("{{ ($x := \"v\") }}{{ $x }}{{ \"x\" | }}", "vvx"),
    ] {
        assert_eq!(run(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn faults_are_found_in_one_go_each_with_its_place() {
    for (text, expected) in [
        ("a {{ env", "a.yml:1:3: this `{{` has no `}}`"),
        (
            "a\n  {{ envv \"X\" }}",
            "a.yml:2:6: there is no template function `envv`\n  hint: did you mean `env`?",
        ),
        (
            "{{ now }}",
            "a.yml:1:4: the template function `now` is not supported\n  hint: a file must mean the same each time it is read",
        ),
        (
            "{{ $host := 1 }}{{ $hots }}",
            "a.yml:1:20: the variable `$hots` is not declared here\n  hint: did you mean `$host`?",
        ),
        ("{{ if true }}\n{{ range list }}x{{ end }}", "a.yml:1:1: this has no `{{ end }}`"),
        ("x{{ end }}", "a.yml:1:2: this `end` has nothing to end"),
        ("{{ if }}{{ end }}", "a.yml:1:1: a value is missing"),
        ("{{ \"a }}\n", "a.yml:1:4: this text has no second \""),
        ("{{ (1 }}", "a.yml:1:4: this `(` has no `)`"),
        ("{{ 1) }}", "a.yml:1:5: this `)` has no `(`"),
        (
            "{{ until (add 1 2) }}",
            "a.yml:1:10: `until` takes an int here; this is an int64\n  hint: `int` converts it",
        ),
        ("{{ upper }}", "a.yml:1:4: `upper` takes one argument, not 0"),
        ("{{ .name }}", "a.yml:1:4: there is no field `name` in a bool"),
        ("{{ template \"x\" }}", "a.yml:1:1: no template is called `x`"),
        ("{{ fail \"not\\nso\" }}", "a.yml:1:4: `fail`: not\\nso"),
        (
            "{{ define \"t\" }}a{{ end }}\n{{ define \"t\" }}b{{ end }}",
            "a.yml:2:1: the template `t` is defined twice",
        ),
    ] {
        let problems = run(text).unwrap_err();
        assert!(problems.starts_with(expected), "{text}: {problems}");
    }
    let many = run("{{ a }}\n{{ if b }}{{ $c }}{{ else }}{{ 'd }}{{ end }}\n{{ e | }}{{ end }}").unwrap_err();
    let places: Vec<&str> =
        many.lines().filter_map(|line| line.strip_prefix("a.yml:")?.split(": ").next()).collect();
    assert_eq!(places, ["1:4", "2:7", "2:14", "2:32", "3:4", "3:10"], "{many}");
}

#[test]
fn messages_do_not_tell_what_the_environment_holds() {
    for use_of_it in [
        "range env \"SECRET\"",
        "add1 (env \"SECRET\") | until",
        "index (env \"SECRET\") \"a\"",
        "index (dict) 1 (env \"SECRET\")",
        "(env \"SECRET\").x",
        "until (env \"SECRET\")",
        "lt 1 (env \"SECRET\")",
        "mustFromJson (env \"SECRET\")",
        "b64dec (env \"SECRET\")",
        "substr 6 2 (env \"SECRET\")",
        "first (env \"SECRET\")",
        "round 1 (env \"SECRET\")",
    ] {
        let end = if use_of_it.starts_with("range") { "{{ end }}" } else { "" };
        let problems = run(&format!("{{{{ {use_of_it} }}}}{end}")).unwrap_err();
        assert!(!problems.contains("hunter2"), "{problems}");
    }
}

/// What would take minutes, or more memory than there is.
#[test]
fn searches_that_begin_again_and_again_end() {
    for (text, expected) in [
        ("{{ trimAll (print (repeat 40000 \"a\") \"b\") (repeat 40000 \"b\") }}", Err("steps")),
        ("{{ regexReplaceAll \"a.*b|a\" (repeat 40000 \"a\") \"x\" }}", Err("steps")),
        ("{{ regexReplaceAll \"a.*b|a\" (repeat 3 \"a\") \"x\" }}", Ok("xxx")),
        ("{{ snakecase (repeat 40000 \"1\") | len }}", Ok("40000")),
        ("{{ printf \"%*d\" -9223372036854775808 1 }}", Ok("%!(BADWIDTH)1")),
    ] {
        match (run(text), expected) {
            (Ok(out), Ok(expected)) => assert_eq!(out, expected, "{text}"),
            (Err(told), Err(expected)) => assert!(told.contains(expected), "{text}: {told}"),
            (out, _) => panic!("{text}: {out:?}"),
        }
    }
}
