//! The entry functions: from files to checked configurations.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use lb_core::route::Syntax;

use crate::decode::{Findings, Report};
use crate::document::{self, Files, Format, Node, Position, defines_nothing, read_text};
use crate::dynamic::Config;
use crate::dynamics::{Draft, Removed, check_references};
use crate::problem::{Kind, Problem, Problems, Scope, escaped};
use crate::quarantine::TOLD;
use crate::static_config::{EntryPoint, FileSource, Place, StaticConfig};
use crate::statics::TRAEFIK;
use crate::{directory, statics};

/// The provider whose configurations come from files.
pub(crate) const FILE: &str = "file";

/// What a dynamic configuration may refer to without defining it.
#[derive(Clone, Debug)]
pub struct Context {
    /// Names of the entry points; `None` accepts every name.
    pub entry_points: Option<BTreeSet<String>>,
    /// The same for UDP.
    pub udp_entry_points: Option<BTreeSet<String>>,
    /// Those of the routers that name none.
    pub default_entry_points: BTreeSet<String>,
    /// The middlewares that an entry point puts before its routers, as the static file writes them.
    pub entry_point_middlewares: BTreeMap<String, Vec<(String, Place)>>,
    /// The TLS options that entry points name for their connections.
    pub entry_point_tls_options: BTreeMap<String, String>,
    /// Where the middlewares are written, for problems.
    pub static_file: String,
    /// Those that are switched on: their objects may be named.
    pub providers: BTreeSet<String>,
    /// Names of the certificate resolvers, and whether they can order wildcards; `None` accepts every name.
    pub cert_resolvers: Option<BTreeMap<String, bool>>,
    /// Services of the provider `internal`, without `@internal`.
    pub internal_services: BTreeSet<String>,
    /// Of the routers that name none.
    pub rule_syntax: Syntax,
}

impl Default for Context {
    /// Everything that might exist.
    fn default() -> Self {
        let names = ["acme-http", "api", "dashboard", "noop", "ping", "prometheus", "rest"];
        Self {
            entry_points: None,
            udp_entry_points: None,
            default_entry_points: BTreeSet::new(),
            entry_point_middlewares: BTreeMap::new(),
            entry_point_tls_options: BTreeMap::new(),
            static_file: String::new(),
            providers: [FILE.to_owned()].into(),
            cert_resolvers: None,
            internal_services: names.map(str::to_owned).into(),
            rule_syntax: Syntax::V3,
        }
    }
}

impl From<&StaticConfig> for Context {
    fn from(config: &StaticConfig) -> Self {
        let dashboard = config.api.as_ref().is_some_and(|api| api.dashboard);
        let internal = [
            ("acme-http", config.http_challenges().next().is_some()),
            ("api", config.api.is_some()),
            ("dashboard", dashboard),
            ("noop", true),
            ("ping", config.ping.is_some()),
            ("prometheus", config.metrics.is_some()),
            ("rest", config.providers.rest.is_some()),
        ];
        let entry_points = || config.entry_points.iter();
        let explicit = entry_points().any(|e| e.as_default);
        let is_default = |e: &&EntryPoint| if explicit { e.as_default } else { e.name != TRAEFIK };
        Self {
            entry_points: Some(entry_points().map(|e| e.name.clone()).collect()),
            udp_entry_points: Some(config.udp_entry_points.iter().map(|e| e.name.clone()).collect()),
            default_entry_points: entry_points().filter(is_default).map(|e| e.name.clone()).collect(),
            entry_point_middlewares: entry_points()
                .filter(|e| !e.http.middlewares.is_empty())
                .map(|e| {
                    let places = e.http.middleware_places.iter().cloned();
                    (e.name.clone(), e.http.middlewares.iter().cloned().zip(places).collect())
                })
                .collect(),
            entry_point_tls_options: entry_points()
                .filter_map(|e| Some((e.name.clone(), e.http.tls.as_ref()?.options.clone())))
                .collect(),
            static_file: config.file.clone(),
            providers: config.providers.names().map(str::to_owned).collect(),
            cert_resolvers: Some(
                config
                    .certificates_resolvers
                    .iter()
                    .map(|(name, resolver)| (name.clone(), resolver.challenge.proves_wildcards()))
                    .collect(),
            ),
            internal_services: internal.iter().filter(|(_, on)| *on).map(|(n, _)| (*n).to_owned()).collect(),
            rule_syntax: config.core.default_rule_syntax.unwrap_or_default(),
        }
    }
}

/// A dynamic configuration that can run, and what was left out of it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Without the objects in `disabled`.
    pub config: Config,
    /// Warnings, and errors that spoil single objects ([`Scope::Object`](crate::Scope::Object)).
    pub problems: Vec<Problem>,
    /// Objects that were left out, with reasons as Traefik words them. One is here too because of
    /// something it uses, which then has a problem of its own.
    pub disabled: BTreeMap<(Kind, String), Vec<String>>,
    /// Those of `disabled` that are right in themselves: with an older version of what they use they may still work.
    pub waiting: Config,
    /// The routers of `disabled` that are wrong in themselves, as far as they can be read. Only to be shown.
    pub unfit: Config,
    /// Files with errors of form, of which the last good text was read, with the reasons.
    pub stale_files: BTreeMap<String, Vec<String>>,
    pub places: Places,
    /// Every file the configuration was made of: the configuration itself, certificates, user files.
    pub files: Vec<PathBuf>,
}

/// Where the objects of a load are defined.
#[derive(Clone, Debug, Default)]
pub struct Places {
    files: Files,
    defined: BTreeMap<Kind, HashMap<String, Position>>,
}

impl Places {
    /// Gives a problem that only building its object found the place of that object.
    pub fn locate(&self, problem: &mut Problem) {
        if let Scope::Object { kind, name } = &problem.scope
            && problem.line == 0
            && let Some(at) = self.defined.get(kind).and_then(|defined| defined.get(name))
        {
            (problem.line, problem.column) = (at.line, at.column);
            self.files.name(at.file).clone_into(&mut problem.file);
        }
    }
}

impl Loaded {
    /// What containers' labels make; they have no files whose text could go stale.
    pub(crate) fn of_labels(
        config: Config,
        problems: Vec<Problem>,
        disabled: BTreeMap<(Kind, String), Vec<String>>,
        Removed { waiting, unfit }: Removed,
        (files, defined): (Files, BTreeMap<Kind, HashMap<String, Position>>),
        read: Vec<PathBuf>,
    ) -> Self {
        let places = Places { files, defined: without_lines(defined) };
        Self { config, problems, disabled, waiting, unfit, stale_files: BTreeMap::new(), places, files: read }
    }

    /// The configuration, if nothing at all is wrong with it; warnings do not count.
    ///
    /// # Errors
    /// All problems, when one of them is an error.
    pub fn strict(self) -> Result<Self, Problems> {
        if self.problems.iter().any(Problem::is_error) { Err(Problems(self.problems)) } else { Ok(self) }
    }
}

/// Lines of labels mean nothing to anybody.
fn without_lines(
    mut defined: BTreeMap<Kind, HashMap<String, Position>>,
) -> BTreeMap<Kind, HashMap<String, Position>> {
    for at in defined.values_mut().flat_map(HashMap::values_mut) {
        at.line = 0;
    }
    defined
}

/// Reads a static file; the second part is the warnings.
///
/// # Errors
/// Every problem of the file, when one of them is an error.
pub fn load_static(path: &Path) -> Result<(StaticConfig, Vec<Problem>), Problems> {
    let (format, text) = (format_of(path)?, read_text(path)?);
    document::refuse_nothing(path, &text, format)?;
    read_static(&path.display().to_string(), &text, format)
}

/// Where the dynamic configuration lies, as far as a static file with errors elsewhere still says so, and what
/// a check can go on with: names that only the errors may hide are taken. `None` also when the file says nothing of it.
pub fn find_dynamic(path: &Path) -> Option<(FileSource, Context)> {
    dynamic_of(&peek_static(path)?)
}

/// What can be read of a static file in spite of its problems.
pub(crate) fn peek_static(path: &Path) -> Option<StaticConfig> {
    try_static(&path.display().to_string(), &read_text(path).ok()?, Format::of(path)?).0
}

/// As [`find_dynamic`], of what was read of any source.
pub(crate) fn dynamic_of(config: &StaticConfig) -> Option<(FileSource, Context)> {
    let Context { entry_points, udp_entry_points, internal_services, cert_resolvers, .. } =
        Context::default();
    let context = Context {
        entry_points,
        udp_entry_points,
        internal_services,
        cert_resolvers,
        ..Context::from(config)
    };
    Some((config.providers.file.as_ref()?.source.clone(), context))
}

/// As [`load_static`], from YAML text called `name` in problems.
///
/// # Errors
/// Every problem of the text, when one of them is an error.
pub fn parse_static(name: &str, text: &str) -> Result<(StaticConfig, Vec<Problem>), Problems> {
    read_static(name, text, Format::of(Path::new(name)).unwrap_or(Format::Yaml))
}

fn read_static(name: &str, text: &str, format: Format) -> Result<(StaticConfig, Vec<Problem>), Problems> {
    unless_refused(try_static(name, text, format))
}

pub(crate) fn unless_refused(
    read: (Option<StaticConfig>, Findings),
) -> Result<(StaticConfig, Vec<Problem>), Problems> {
    match read {
        (Some(config), findings) if !findings.refused => Ok((config, findings.problems)),
        (_, findings) => Err(Problems(findings.problems)),
    }
}

/// The configuration may only be used if nothing is refused.
fn try_static(name: &str, text: &str, format: Format) -> (Option<StaticConfig>, Findings) {
    let mut files = Files::default();
    let file = files.add(name);
    let mut problems = Vec::new();
    let root = document::parse(text, format, file, &files, &mut problems);
    let report = Report::new(&files, problems);
    let config = root.and_then(|root| statics::read(&report, &root, name));
    (config, report.into_findings())
}

/// Reads the dynamic configuration of the provider `file`.
///
/// # Errors
/// Every problem, when a file cannot be read or does not have the shape of a configuration: then
/// nothing of the load is used.
pub fn load_dynamic(source: &FileSource, context: &Context) -> Result<Loaded, Problems> {
    LastGood::default().load(source, context)
}

/// The files of a directory as they were when they last had the form of a configuration.
#[derive(Debug, Default)]
pub struct LastGood {
    texts: BTreeMap<String, String>,
    /// Those of the last load, which may have been a glance at something half-written.
    newest: BTreeMap<String, String>,
}

impl LastGood {
    /// What was loaded last is believed.
    pub fn accept(&mut self) {
        self.texts = std::mem::take(&mut self.newest);
    }

    /// As [`load_dynamic`], but the last good text stands in for files without the form of a configuration, unless
    /// they are all that there is. A file that never had a good text says nothing.
    ///
    /// # Errors
    /// As [`load_dynamic`], also while nothing was good yet: what a file that was never read protects is not known.
    pub fn load(&mut self, source: &FileSource, context: &Context) -> Result<Loaded, Problems> {
        let Sources { paths, mut texts, mut problems } = Sources::read(source)?;
        let env = |name: &str| std::env::var(name).ok();
        // Editors truncate, disks fill up: nobody removes everything by leaving nothing.
        texts.retain(|(name, text, format)| {
            let is_all = matches!(source, FileSource::File(_));
            let said = || self.texts.get(name).is_some_and(|last| !defines_nothing(last));
            let emptied = defines_nothing(text) && (is_all || said());
            if emptied {
                let faults = faults(name, text, *format, &env);
                if !faults.is_empty() {
                    problems.extend(faults);
                    return false;
                }
                let message =
                    if text.trim().is_empty() { "the file is empty" } else { "the file defines nothing" };
                let hint = "to remove everything it defines write `{}` into it".to_owned();
                problems.push(Problem::whole_file(name, message.to_owned(), Some(hint)));
            }
            !emptied
        });
        let refused = match read_dynamic(&texts, paths.clone(), problems, FILE, context, &env) {
            Ok(loaded) => {
                self.newest = texts.into_iter().map(|(name, text, _)| (name, text)).collect();
                return Ok(loaded);
            }
            Err(problems) => problems,
        };
        let of_form = |problem: &&Problem| problem.is_error() && problem.scope == Scope::File;
        let mut stale_files: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for problem in refused.iter().filter(of_form) {
            let told = stale_files.entry(problem.file.clone()).or_default();
            if told.len() < TOLD {
                told.push(problem.line());
            }
        }
        let mut good: HashMap<String, String> =
            texts.into_iter().map(|(name, text, _)| (name, text)).collect();
        let mut texts = Vec::with_capacity(paths.len());
        let mut broken = 0;
        for path in &paths {
            let name = path.display().to_string();
            let is_broken = stale_files.contains_key(&escaped(&name));
            broken += usize::from(is_broken);
            let text = if is_broken { self.texts.get(&name).cloned() } else { good.remove(&name) };
            texts.push((name, text.unwrap_or_default(), Format::of(path).unwrap_or(Format::Yaml)));
        }
        // All of them, or something that is none of them.
        if self.texts.is_empty() || broken == paths.len() || broken != stale_files.len() {
            return Err(refused);
        }
        let Ok(mut loaded) = read_dynamic(&texts, paths, Vec::new(), FILE, context, &env) else {
            return Err(refused);
        };
        self.newest = texts.into_iter().map(|(name, text, _)| (name, text)).collect();
        loaded.problems.extend(refused.0.into_iter().filter(|problem| of_form(&problem)));
        loaded.stale_files = stale_files;
        Ok(loaded)
    }
}

/// Why a text is none of its format.
fn faults(name: &str, text: &str, format: Format, env: &dyn Fn(&str) -> Option<String>) -> Vec<Problem> {
    let mut files = Files::default();
    let file = files.add(name);
    let mut problems = Vec::new();
    document::parse_template(text, format, file, &files, env, &mut problems);
    problems.retain(Problem::is_error);
    problems
}

/// What lies on disk.
struct Sources {
    paths: Vec<PathBuf>,
    texts: Vec<(String, String, Format)>,
    /// Of files that cannot be read.
    problems: Vec<Problem>,
}

impl Sources {
    fn read(source: &FileSource) -> Result<Self, Problems> {
        let paths = match source {
            FileSource::File(path) => {
                if !path.is_dir() {
                    format_of(path)?;
                }
                vec![path.clone()]
            }
            FileSource::Directory(path) => directory::list(path)?,
        };
        let mut problems = Vec::new();
        let mut texts = Vec::with_capacity(paths.len());
        let mut total = 0;
        for path in &paths {
            match read_text(path) {
                Ok(text) => {
                    total += text.len();
                    texts.push((path.display().to_string(), text, format_of(path)?));
                }
                Err(problem) => problems.push(*problem),
            }
            if total > directory::MAX_TOTAL_BYTES {
                let message = format!(
                    "the files are bigger than {} MiB in all",
                    directory::MAX_TOTAL_BYTES / 1024 / 1024
                );
                return Err(Problem::whole_file(&path.display().to_string(), message, None).into());
            }
        }
        Ok(Self { paths, texts, problems })
    }
}

/// As [`load_dynamic`], from the text of one file called `name` in problems. It is YAML unless `name`
/// ends in `.toml`.
///
/// # Errors
/// Every problem, when the text does not have the shape of a configuration.
pub fn parse_dynamic(name: &str, text: &str, provider: &str, context: &Context) -> Result<Loaded, Problems> {
    let format = Format::of(Path::new(name)).unwrap_or(Format::Yaml);
    let texts = [(name.to_owned(), text.to_owned(), format)];
    read_dynamic(&texts, Vec::new(), Vec::new(), provider, context, &|name| std::env::var(name).ok())
}

/// Reads what an HTTP endpoint answered, YAML or JSON, as the configuration of `provider`; problems name `endpoint`. It
/// is no template.
///
/// # Errors
/// Every problem, when the text does not have the shape of a configuration, or holds nothing of one: nobody removes
/// everything by an answer that something else gave.
pub fn parse_answer(
    provider: &str,
    endpoint: &str,
    body: &[u8],
    context: &Context,
) -> Result<Loaded, Problems> {
    let refuse = |message: &str| {
        let hint = Some("to remove everything answer `{}`".to_owned());
        Err(Problem::whole_file(endpoint, message.to_owned(), hint).into())
    };
    let Ok(text) = std::str::from_utf8(body) else { return refuse("the answer is not UTF-8 text") };
    if document::defines_nothing(text) {
        return refuse(if text.trim().is_empty() {
            "the answer is empty"
        } else {
            "the answer defines nothing"
        });
    }
    let mut files = Files::default();
    let file = files.add(endpoint);
    let mut problems = Vec::new();
    let root = document::parse(text, Format::Yaml, file, &files, &mut problems);
    if let Some(Node { value: document::Value::Map(entries), .. }) = &root {
        let is_section = |entry: &document::Entry| {
            ["http", "tcp", "udp", "tls"].iter().any(|section| section.eq_ignore_ascii_case(&entry.key))
        };
        if !entries.is_empty() && !entries.iter().any(is_section) {
            return refuse("the answer has none of the sections of a configuration");
        }
    }
    read_roots(files, root.into_iter().collect(), (Vec::new(), problems), provider, context)
}

fn read_dynamic(
    texts: &[(String, String, Format)],
    paths: Vec<PathBuf>,
    mut problems: Vec<Problem>,
    provider: &str,
    context: &Context,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Problems> {
    let mut files = Files::default();
    let mut roots: Vec<Node> = Vec::with_capacity(texts.len());
    for (name, text, format) in texts {
        let file = files.add(name);
        roots.extend(document::parse_template(text, *format, file, &files, env, &mut problems));
    }
    read_roots(files, roots, (paths, problems), provider, context)
}

fn read_roots(
    files: Files,
    roots: Vec<Node>,
    (mut paths, problems): (Vec<PathBuf>, Vec<Problem>),
    provider: &str,
    context: &Context,
) -> Result<Loaded, Problems> {
    // Without every file it is not known which names exist; nothing will be loaded anyway.
    let complete = !problems.iter().any(Problem::is_error);
    let report = Report::new(&files, problems);
    let mut draft = Draft::new(&report, &files, context, provider);
    for root in &roots {
        draft.read(root);
    }
    let Removed { waiting, unfit } = if complete { check_references(&mut draft) } else { Removed::default() };
    let (config, defined) = (draft.config, draft.defined);
    let findings = report.into_findings();
    if findings.refused {
        return Err(Problems(findings.problems));
    }
    paths.extend(findings.read);
    paths.sort();
    paths.dedup();
    let Findings { problems, broken: disabled, .. } = findings;
    Ok(Loaded {
        config,
        problems,
        disabled,
        waiting,
        unfit,
        stale_files: BTreeMap::new(),
        places: Places { files, defined },
        files: paths,
    })
}

fn format_of(path: &Path) -> Result<Format, Problems> {
    Format::of(path).ok_or_else(|| {
        let message = "the kind of file is not known".to_owned();
        let hint = "its name must end in `.yml`, `.yaml` or `.toml`".to_owned();
        Problem::whole_file(&path.display().to_string(), message, Some(hint)).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::problems;

    /// A directory with these files, loaded.
    fn load(files: &[(&str, &str)]) -> (Result<Loaded, Problems>, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        (load_dynamic(&FileSource::Directory(directory.path().to_owned()), &Context::default()), directory)
    }

    #[test]
    fn files_of_a_directory_share_their_names_and_the_first_definition_wins() {
        let (loaded, directory) = load(&[
            ("a.yml", "http: {services: {s: {loadBalancer: {servers: [{url: 'http://first'}]}}}}"),
            (
                "b.yaml",
                "http: {services: {s: {weighted: {}}}, routers: {r: {rule: 'Path(`/`)', service: s}}}",
            ),
            ("c/d.toml", "[http.routers.t]\nrule = 'Path(`/t`)'\nservice = 's@file'\n"),
            ("ignored.json", "{"),
        ]);
        let loaded = loaded.unwrap();
        assert_eq!(loaded.config.services["s@file"].servers[0].host, "first");
        assert_eq!(loaded.config.routers.len(), 2);
        let first = directory.path().join("a.yml");
        assert_eq!(loaded.problems.len(), 1);
        let problem = loaded.problems[0].to_string();
        assert!(
            problem.contains("b.yaml:1:19: warning: http.services.s: the service `s` is already defined"),
            "{problem}"
        );
        assert!(
            problem.ends_with(&format!("hint: the first definition wins: {}:1", first.display())),
            "{problem}"
        );
        assert_eq!(loaded.files.len(), 3);
    }

    #[test]
    fn one_bad_file_refuses_the_directory_and_all_files_are_reported() {
        let (loaded, _directory) =
            load(&[("a.yml", "http: {}"), ("b.yml", "tls: ["), ("c.yml", "http: {routers: {r: {rul: a}}}")]);
        let problems = loaded.unwrap_err();
        let files: Vec<&str> = problems.iter().map(|p| &p.file[p.file.len() - 5..]).collect();
        assert!(["a.yml", "b.yml", "c.yml"].iter().all(|file| files.contains(file)), "{problems}");
        let mut sorted = files.clone();
        sorted.sort_unstable();
        assert_eq!(files, sorted);
    }

    #[test]
    fn the_last_good_text_stands_in_for_a_file_that_lost_its_form() {
        let temporary = tempfile::tempdir().unwrap();
        // Longer than values are shown.
        let directory = temporary.path().join("d".repeat(150));
        std::fs::create_dir(&directory).unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
        let middleware =
            |name: &str| format!("http: {{middlewares: {{{name}: {{addPrefix: {{prefix: /}}}}}}}}");
        let mut last = LastGood::default();
        let mut load = |accept: bool| {
            let loaded = last.load(&FileSource::Directory(directory.clone()), &Context::default());
            if accept && loaded.is_ok() {
                last.accept();
            }
            loaded.map(|loaded| {
                let stale: Vec<_> = loaded
                    .stale_files
                    .keys()
                    .map(|file| file.rsplit('/').next().unwrap().to_owned())
                    .collect();
                (
                    loaded.config.middlewares.keys().map(|name| name[..1].to_owned()).collect::<String>(),
                    stale.join(" "),
                )
            })
        };
        let is = |names: &str, stale: &str| Ok((names.to_owned(), stale.to_owned()));
        write("1.yml", "http: [");
        write("2.yml", &middleware("b"));
        assert!(load(true).is_err(), "nothing was good yet");
        write("1.yml", &middleware("a"));
        assert_eq!(load(true), is("ab", ""));
        write("1.yml", "http: [");
        write("2.yml", &middleware("c"));
        assert_eq!(load(true), is("ac", "1.yml"));
        write("1.yml", " ");
        write("3.yml", "htt");
        assert_eq!(load(true), is("ac", "1.yml 3.yml"));
        write("2.yml", "http: {routers: {r: {x: {}}}}");
        assert!(load(true).is_err(), "none is left");
        // What was only glanced at is not what is gone back to.
        write("1.yml", &middleware("d"));
        assert_eq!(load(false), is("cd", "2.yml 3.yml"));
        write("1.yml", "http: [");
        write("2.yml", &middleware("c"));
        assert_eq!(load(true), is("ac", "1.yml 3.yml"));
        std::fs::remove_file(directory.join("1.yml")).unwrap();
        std::fs::remove_file(directory.join("3.yml")).unwrap();
        assert_eq!(load(true), is("c", ""));
    }

    #[test]
    fn the_environment_is_filled_in_before_a_dynamic_file_is_parsed() {
        let text =
            "http: {services: {s: {loadBalancer: {servers: [{url: 'http://{{ env \"BACKEND\" }}/'}]}}}}";
        let texts = [("a.yml".to_owned(), text.to_owned(), Format::Yaml)];
        let env = |name: &str| (name == "BACKEND").then(|| "10.0.0.1:80".to_owned());
        let loaded = read_dynamic(&texts, vec![], vec![], FILE, &Context::default(), &env).unwrap();
        assert_eq!(loaded.config.services["s@file"].servers[0].url, "http://10.0.0.1:80/");
        assert_eq!(problems("http: {{ if true }}").len(), 1);
    }

    #[test]
    fn a_wrong_static_file_may_still_say_where_the_dynamic_one_lies() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vigie.yml");
        let found = Some(FileSource::File("a.yml".into()));
        for (text, source) in [
            ("providers: {file: {filename: a.yml}}", found.clone()),
            ("providers: {file: {filename: a.yml, wacth: 1}}\nentryPoints: {web: {}}\napi: 5", found.clone()),
            ("log: {level: 1}\nlog: {}\nproviders: {docker: {}, file: {filename: a.yml}}", found),
            ("providers: {file: {}}", None),
            ("providers: {file: {filename: [a.yml]}}", None),
            ("providers: {file: {filename: a.yml}}\nlog: [", None),
            ("", None),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(find_dynamic(&path).map(|(source, _)| source), source, "{text}");
        }
        assert!(find_dynamic(&directory.path().join("absent.yml")).is_none());
    }

    #[test]
    fn what_entry_points_ask_of_dynamic_files_is_known_to_their_check() {
        let text = "entryPoints: {web: {address: ':1', http: {middlewares: a@file}}, tls: {address: ':2'}, \
                    traefik: {address: ':3'}}";
        let context = Context::from(&parse_static("vigie.yml", text).unwrap().0);
        assert_eq!(context.static_file, "vigie.yml");
        assert_eq!(context.default_entry_points, ["tls", "web"].map(str::to_owned).into());
        let place = Place { line: 1, column: 56, key: "entryPoints.web.http.middlewares".to_owned() };
        assert_eq!(context.entry_point_middlewares["web"], [("a@file".to_owned(), place)]);
        assert_eq!(context.entry_point_middlewares.len(), 1);
        let text = text.replace("':2'", "':2', asDefault: true");
        let context = Context::from(&parse_static("vigie.yml", &text).unwrap().0);
        assert_eq!(context.default_entry_points, ["tls".to_owned()].into());
    }

    #[test]
    fn an_empty_file_is_an_empty_configuration() {
        for text in ["", "# soon\n", "---\n", "~", "http:\n", "http:\n  routers:\n"] {
            let loaded = parse_dynamic("a.yml", text, FILE, &Context::default()).unwrap();
            assert_eq!(loaded.config, Config::default(), "{text}");
            assert!(loaded.problems.is_empty(), "{text}");
        }
    }

    #[test]
    fn an_answer_is_yaml_or_json_and_no_template() {
        let parse =
            |body: &str| parse_answer("http", "http://a.test/c", body.as_bytes(), &Context::default());
        let json = "{\n\t\"http\": {\n\t\t\"middlewares\": {\"m\": {\"addPrefix\": {\"prefix\": \"/{{x}}\"}}}\n\t}\n}\n";
        let yaml = "http:\n  middlewares:\n    m:\n      addPrefix: {prefix: '/{{x}}'}\n";
        for body in [json, yaml] {
            let loaded = parse(body).unwrap();
            assert!(loaded.config.middlewares.contains_key("m@http") && loaded.problems.is_empty(), "{body}");
        }
        assert_eq!(parse("{}").unwrap().config, Config::default());
        for (body, expected) in [
            ("", "http://a.test/c: the answer is empty"),
            ("http:\n", "http://a.test/c: the answer defines nothing"),
            ("{\"error\": 1}", "http://a.test/c: the answer has none of the sections of a configuration"),
            ("<html>Sign in</html>", "http://a.test/c:1:1: a configuration is a map"),
            ("http: {routers: {r: {rul: a}}}", "http://a.test/c:1:"),
            ("http: [", "http://a.test/c:1:"),
        ] {
            let told = match parse(body) {
                Ok(loaded) => loaded.problems.iter().map(ToString::to_string).collect(),
                Err(problems) => problems.to_string(),
            };
            assert!(told.contains(expected), "{body}: {told}");
        }
        assert!(parse_answer("http", "a", &[0xff], &Context::default()).is_err());
    }

    #[test]
    fn another_provider_names_its_own_objects() {
        let text = "http: {services: {s: {loadBalancer: {servers: []}}}, routers: {r: {rule: 'Path(`/`)', service: s}}}";
        let config = parse_dynamic("a.yml", text, "docker", &Context::default()).unwrap().config;
        assert_eq!(config.routers["r@docker"].service, "s@docker");
    }
}
