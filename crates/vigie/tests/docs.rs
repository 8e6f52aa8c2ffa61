//! The documentation says what is so: its examples pass the checks of `vigie check`, its links lead
//! somewhere, and its list of metrics is the list of metrics.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lb_config::{Context, Loaded, Problem, Problems, parse_dynamic, parse_static};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every page, with its path below the root.
fn pages() -> Vec<(String, String)> {
    let mut pages = Vec::new();
    for directory in ["", "docs", "docs/adr"] {
        for entry in fs::read_dir(root().join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let name = Path::new(directory).join(path.file_name().unwrap()).display().to_string();
                pages.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(pages.len() > 20, "pages are missing");
    pages
}

/// A fenced block of YAML, with the line it begins in.
struct Example {
    place: String,
    text: String,
}

fn examples() -> Vec<Example> {
    let mut examples = Vec::new();
    for (page, text) in pages() {
        let mut open: Option<Example> = None;
        for (line, number) in text.lines().zip(1..) {
            match (&mut open, line.trim_end()) {
                (None, "```yaml") => {
                    open = Some(Example { place: format!("{page}:{number}"), text: String::new() });
                }
                (Some(_), "```") => examples.extend(open.take()),
                (Some(example), line) => {
                    example.text.push_str(line);
                    example.text.push('\n');
                }
                (None, _) => {}
            }
        }
        assert!(open.is_none(), "{page}: a block has no end");
    }
    examples
}

/// Where the examples look for certificates and users.
const EXAMPLE_FILES: &str = "/etc/vigie/";

/// A stand-in for that directory. Only the form of these files is read here.
fn example_files() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    fs::create_dir(directory.path().join("tls")).unwrap();
    for (name, content) in [
        ("tls/example.com.crt", certificate),
        ("tls/example.com.key", key),
        ("tls/ca.crt", certificate),
        ("users", "ops:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/\n"),
    ] {
        fs::write(directory.path().join(name), content).unwrap();
    }
    directory
}

fn problems_of(text: &str, name: &str, kind: &str) -> Vec<Problem> {
    let context = Context {
        entry_points: Some(["web", "websecure", "metrics", "postgres"].map(str::to_owned).into()),
        ..Context::default()
    };
    let outcome = match kind {
        "# static" => parse_static(name, text).map(|(_, warnings)| warnings),
        "# dynamic" => parse_dynamic(name, text, "file", &context).map(|Loaded { problems, .. }| problems),
        _ => panic!("{name}: the first line of an example is `# static` or `# dynamic`, not `{kind}`"),
    };
    outcome.unwrap_or_else(|Problems(problems)| problems)
}

#[test]
fn every_example_passes_the_check() {
    let files = example_files();
    let directory = format!("{}/", files.path().display());
    let mut found = Vec::new();
    let examples = examples();
    assert!(examples.len() > 30, "examples are missing");
    for Example { place, text } in examples {
        let kind = text.lines().next().unwrap_or_default().to_owned();
        let text = text.replace(EXAMPLE_FILES, &directory);
        found.extend(problems_of(&text, &place, &kind).iter().map(|problem| format!("{problem}\n")));
    }
    assert!(found.is_empty(), "\n{}", found.concat());
}

/// The targets of `[text](target)` outside of code blocks.
fn links(text: &str) -> Vec<&str> {
    let mut links = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        in_code ^= line.starts_with("```");
        if in_code {
            continue;
        }
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, after)) = after.split_once(')') else { break };
            links.push(target);
            rest = after;
        }
    }
    links
}

/// The name under which a heading can be linked to, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

fn has_anchor(page: &Path, wanted: &str) -> bool {
    let text = fs::read_to_string(page).unwrap();
    let mut headings = text.lines().filter(|line| line.starts_with('#'));
    headings.any(|line| anchor(line.trim_start_matches('#').trim()) == wanted)
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for (page, text) in pages() {
        let here = root().join(&page);
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            let (file, wanted) = link.split_once('#').map_or((link, None), |(file, name)| (file, Some(name)));
            let target = if file.is_empty() { here.clone() } else { here.with_file_name("").join(file) };
            if !target.exists() || wanted.is_some_and(|wanted| !has_anchor(&target, wanted)) {
                broken.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// A row without a head above it is shown as plain text.
#[test]
fn every_table_is_in_one_piece() {
    let is_row = |line: &str| line.starts_with('|');
    for (page, text) in pages() {
        let lines: Vec<&str> = text.lines().collect();
        for (at, pair) in lines.windows(2).enumerate() {
            let begins = is_row(pair[0]) && (at == 0 || !is_row(lines[at - 1]));
            assert!(!begins || pair[1].starts_with("| ---"), "{page}:{}: a table without a head", at + 1);
        }
    }
}

#[test]
fn the_list_of_pages_has_each_once() {
    let list = fs::read_to_string(root().join("docs/README.md")).unwrap();
    for (page, _) in pages() {
        let Some(name) =
            page.strip_prefix("docs/").filter(|name| !name.contains('/') && *name != "README.md")
        else {
            continue;
        };
        assert_eq!(
            list.matches(&format!("| [{}]({name}) |", name.trim_end_matches(".md"))).count(),
            1,
            "{name}"
        );
    }
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    // The first cell of a row is the name.
    let documented: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name)
        .filter(|name| name.contains('_'))
        .collect();
    let real: BTreeSet<&str> = lb_observe::metrics::names::ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(documented, real);
    for metric in lb_observe::metrics::names::ALL {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{}`", metric.name))).unwrap();
        for label in metric.labels {
            assert!(row.contains(&format!("`{label}`")), "{}: the label {label} is missing", metric.name);
        }
    }
}
