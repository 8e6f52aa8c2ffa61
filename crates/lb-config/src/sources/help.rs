//! The options of the static configuration, as the command line explains them.
//!
//! Which there are is asked of the code that reads them; what they mean is written beside it, and a test holds the two
//! together, defaults included.

use std::fmt::Write as _;

use super::schema;

/// A line each: path, default, meaning.
const MEANINGS: &str = include_str!("options.txt");

/// Every option with its default and what it means, in the form of `traefik --help`.
pub fn explain_options() -> String {
    let mut text = String::new();
    for option in schema::options() {
        let (default, meaning) =
            meaning(&option).map_or(("", ""), |(_, default, meaning)| (default, meaning));
        // Into a string nothing fails.
        let _ = writeln!(text, "    --{option}  (Default: \"{default}\")\n        {meaning}\n");
    }
    text
}

/// The line for an option: its path as written there, default and meaning.
fn meaning(option: &str) -> Option<(&'static str, &'static str, &'static str)> {
    meanings().find(|(path, ..)| match path.split_once('*') {
        Some((before, after)) => {
            option.len() >= before.len() + after.len()
                && option.starts_with(before)
                && option.ends_with(after)
        }
        None => *path == option,
    })
}

fn meanings() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let lines = MEANINGS.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        let (path, rest) = line.split_once(" | ")?;
        let (default, meaning) = rest.split_once("| ")?;
        Some((path, default.trim_end(), meaning))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sources::tests::unplaced;
    use crate::{Settings, StaticSource};

    #[test]
    fn every_option_is_explained_and_nothing_else() {
        let mut used = BTreeSet::new();
        for option in schema::options() {
            let (path, ..) = meaning(&option).unwrap_or_else(|| panic!("{option} is not in options.txt"));
            used.insert(path);
        }
        let stale: Vec<_> = meanings().map(|(path, ..)| path).filter(|path| !used.contains(path)).collect();
        assert_eq!(stale, Vec::<&str>::new(), "no option is called so");
        assert_eq!(meanings().count(), MEANINGS.lines().filter(|line| !line.starts_with('#')).count());
    }

    /// What has to be said besides, for an option to be read at all.
    const BESIDES: [(&str, &str); 17] = [
        (
            "certificatesresolvers.<name>.acme.dnschallenge",
            "--certificatesresolvers.x.acme.dnschallenge.provider=exec",
        ),
        ("core.defaultrulesyntax", "--core.stricttlsoptions=false"),
        ("core.stricttlsoptions", "--core.defaultrulesyntax=v3"),
        (
            "entrypoints.<name>.http.encodedcharacters",
            "--entrypoints.x.http.encodedcharacters.allowencodedpercent=true",
        ),
        ("entrypoints.", "--entrypoints.x.address=:80"),
        ("entrypoints.<name>.http.redirections", "--entrypoints.x.http.redirections.entrypoint.to=:443"),
        ("certificatesresolvers.", "--certificatesresolvers.x.acme.tlschallenge"),
        ("certificatesresolvers.<name>.acme.httpchallenge", "--entrypoints.x.address=:80"),
        (
            "certificatesresolvers.<name>.acme.httpchallenge",
            "--certificatesresolvers.x.acme.httpchallenge.entrypoint=x",
        ),
        ("log.otlp", "--experimental.otlplogs"),
        ("accesslog.otlp", "--experimental.otlplogs"),
        ("providers.http.", "--providers.http.endpoint=http://127.0.0.1:1"),
        ("providers.file.", "--providers.file.directory=/x"),
        ("metrics.influxdb2.", "--metrics.influxdb2.address=http://localhost:8086"),
        ("metrics.influxdb2.", "--metrics.influxdb2.token=t"),
        ("metrics.influxdb2.", "--metrics.influxdb2.org=o"),
        ("metrics.influxdb2.", "--metrics.influxdb2.bucket=b"),
    ];

    /// To write these is more than their default: it switches TLS on, goes before what routers say, ...
    const SAYS_MORE: [&str; 4] =
        [".acme.tlschallenge", ".tls.insecureskipverify", ".observability.", ".underscoreheadersstrategy"];

    #[test]
    fn defaults_are_what_is_read_without_the_option() {
        let options = schema::options();
        let read = |line: &[String]| {
            let mut words = line.iter().map(Into::into).collect();
            match StaticSource::Flags(Settings::take_flags(&mut words)).load() {
                Ok((config, _)) => format!("{:?}", unplaced(config)),
                Err(problems) => problems.to_string(),
            }
        };
        let mut wrong = Vec::new();
        for option in &options {
            let Some((_, default, _)) = meaning(option).filter(|(_, default, _)| !default.is_empty()) else {
                continue;
            };
            let is_outer = |outer: &&String| {
                option.strip_prefix(outer.as_str()).is_some_and(|rest| rest.starts_with('.'))
            };
            let switches = options.iter().filter(is_outer).map(|outer| format!("--{outer}=true"));
            let besides =
                BESIDES.iter().filter(|(of, _)| option.starts_with(of)).map(|(_, besides)| *besides);
            let mut line: Vec<String> = switches.chain(besides.map(str::to_owned)).collect();
            line.push(format!("--{option}={default}"));
            let line: Vec<String> = line.iter().map(|flag| flag.replace("<name>", "x")).collect();
            let (with, without) = (read(&line), read(&line[..line.len() - 1]));
            let says_more = SAYS_MORE.iter().any(|part| option.contains(part));
            if with != without && !says_more {
                let differ = with.bytes().zip(without.bytes()).take_while(|(a, b)| a == b).count();
                let here =
                    |text: &str| text.chars().skip(differ.saturating_sub(30)).take(80).collect::<String>();
                wrong.push(format!("{}\n{}\n{}", line.join(" "), here(&with), here(&without)));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    }
}
