//! The command line, with Traefik's spelling of flags.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, StyledStr, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};
use lb_config::{Settings, explain_options};

use crate::options::{self, Options};
use crate::rollout::{self, Rollout};
use crate::server::ServerCommand;
use crate::verify::Verify;

const FLAGS: &str = "\
Without a file the static configuration is read from flags, and without flags from variables, as in Traefik. A flag is the
path of a key: --entryPoints.web.address=:80 --providers.docker --api.insecure. A variable is the same in capitals:
TRAEFIK_ENTRYPOINTS_WEB_ADDRESS=:80.";

/// A Layer-7 high-availability load balancer that reads Traefik's configuration.
#[derive(Debug, Parser)]
#[command(name = "vigie", after_help = FLAGS)]
pub(crate) struct Cli {
    /// Static configuration file; `$NAME` in it is the variable of that name. Without it Traefik's places are
    /// searched, and the same for Vigie: /etc/traefik/traefik, /etc/vigie/vigie, then `traefik` and `vigie` in
    /// $XDG_CONFIG_HOME, $HOME/.config and here (.toml, .yaml, .yml).
    // Of several the last counts, as of Go's flags.
    #[arg(long = "configfile", value_name = "FILE", global = true, overrides_with = "config_file", value_parser = path())]
    config_file: Option<PathBuf>,
    #[arg(skip)]
    flags: Settings,
    /// Print the version.
    #[arg(short = 'V', long)]
    pub(crate) version: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Validate the static and the dynamic configuration without starting; exit code 1 on errors.
    Check,
    /// Three API replicas behind Vigie on 127.0.0.1, to try things out.
    #[command(arg = no_configuration())]
    Demo {
        /// Port of the entry point, 0 for any free one. The replicas take free ones, the dashboard 8080 or, where
        /// that is taken, a free one.
        #[arg(long, default_value_t = 8000)]
        port: u16,
    },
    /// Ask the running instance's /ping; exit code 0 when it answers 200, else 1.
    Healthcheck,
    /// Replace the running process by a new one that takes over its sockets; exit code 0 when that serves, else 1.
    ///
    /// The program is the file that is now where the running one was started from.
    #[command(arg = no_configuration())]
    Upgrade {
        /// Which process, where several run.
        #[arg(long)]
        pid: Option<u32>,
    },
    /// Take servers of the running instance out of service, and bring them back.
    Server {
        #[command(subcommand)]
        command: ServerCommand,
    },
    /// Give the servers of a service another version, one at a time, and back again when one does not get well.
    #[command(after_help = rollout::EXIT_CODES)]
    Rollout(Rollout),
    /// Ask the running instance and its servers whether all is as the configuration says; exit code 1 where it is not.
    Verify(Verify),
    /// Print the version.
    #[command(arg = no_configuration())]
    Version,
}

impl Cli {
    pub(crate) fn options(&self) -> Options {
        Options { config_file: self.config_file.clone(), flags: self.flags.clone() }
    }
}

impl Command {
    /// `--configFile` changes nothing for it.
    pub(crate) fn reads_no_configuration(&self) -> Option<&'static str> {
        match self {
            Self::Demo { .. } => Some("demo"),
            Self::Upgrade { .. } => Some("upgrade"),
            Self::Version => Some("version"),
            Self::Check | Self::Healthcheck | Self::Rollout(_) | Self::Server { .. } | Self::Verify(_) => {
                None
            }
        }
    }
}

/// What the arguments (without the program's own name) ask for.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut arguments: Vec<OsString> = arguments.collect();
    let flags = Settings::take_flags(&mut arguments);
    let arguments = normalised(arguments.into_iter());
    let matches = Cli::command().try_get_matches_from(&arguments).map_err(|error| match error.kind() {
        // What is asked for of a command does not show this.
        ErrorKind::DisplayHelp => {
            let explained =
                format!("{FLAGS}\n\nOptions of the static configuration:\n\n{}", explain_options());
            let command = Cli::command().after_help(explained.trim_end().to_owned());
            command.try_get_matches_from(&arguments).err().unwrap_or(error)
        }
        _ => with_flag_of_file(error),
    })?;
    Ok(Cli { flags, ..Cli::from_arg_matches(&matches)? })
}

/// Says how a configuration file is named, to whoever wrote it without its flag.
fn with_flag_of_file(mut error: clap::Error) -> clap::Error {
    let word = [ContextKind::InvalidArg, ContextKind::InvalidSubcommand].into_iter().find_map(|kind| {
        match error.get(kind) {
            Some(ContextValue::String(word)) => Some(word.clone()),
            _ => None,
        }
    });
    let is_file = |word: &String| {
        let extension = Path::new(word).extension().and_then(|extension| extension.to_str());
        !word.starts_with('-') && matches!(extension, Some("yml" | "yaml" | "toml"))
    };
    if let Some(word) = word.filter(is_file) {
        let tip = StyledStr::from(format!("the configuration file is named with --configFile={word}"));
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    error
}

/// Stands for the global flag where that has no effect, and is not offered.
fn no_configuration() -> Arg {
    Arg::new("config_file").long("configfile").hide(true).value_parser(path())
}

/// Of a path in which variables are filled in.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new()
        .try_map(|path| options::expanded(&path, |name| std::env::var_os(name)).map(PathBuf::from))
}

/// Go's flags: one dash or two, names in any case.
fn normalised(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let flag = |argument: OsString| -> OsString {
        let Some(text) = argument.to_str() else { return argument };
        let bare = text.trim_start_matches('-');
        let dashes = text.len() - bare.len();
        if !(1..=2).contains(&dashes) || bare.len() < 2 {
            return argument;
        }
        match bare.split_once('=') {
            Some((name, value)) => format!("--{}={value}", name.to_ascii_lowercase()).into(),
            None => format!("--{}", bare.to_ascii_lowercase()).into(),
        }
    };
    std::iter::once(OsString::from("vigie")).chain(arguments.map(flag)).collect()
}

/// The five lines of `traefik version`.
pub(crate) fn version() -> String {
    // As Go calls them.
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!(
        "Version:      {}\nCodename:     vigie\nRust version: {}\nBuilt:        {}\nOS/Arch:      {}/{arch}",
        crate::VERSION,
        env!("CARGO_PKG_RUST_VERSION"),
        option_env!("VIGIE_BUILT").unwrap_or("unknown"),
        std::env::consts::OS,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_spelt_as_in_traefik() {
        for spelling in ["--configFile=a.yml", "-configfile=a.yml", "--CONFIGFILE=a.yml"] {
            let cli = parse([spelling.into()].into_iter()).unwrap();
            assert_eq!(cli.config_file, Some("a.yml".into()), "{spelling}");
        }
        let cli = parse(["check".into(), "--configFile".into(), "b.yml".into()].into_iter());
        assert_eq!(cli.unwrap().config_file, Some("b.yml".into()));
        let cli =
            parse(["--configFile=a.yml", "check", "--configfile=b.yml"].map(OsString::from).into_iter());
        assert_eq!(cli.unwrap().config_file, Some("b.yml".into()));
        let cli = parse(["--configFile=a.yml", "--configFile=b.yml"].map(OsString::from).into_iter());
        assert_eq!(cli.unwrap().config_file, Some("b.yml".into()));
        assert!(parse(["-V".into()].into_iter()).unwrap().version);
    }

    #[test]
    fn help_explains_every_option() {
        let told = |line: &str| parse(line.split(' ').map(OsString::from)).unwrap_err().to_string();
        for line in ["--help", "-h", "help", "--ping --help"] {
            let help = told(line);
            assert!(
                help.contains("\n    --entrypoints.<name>.address  (Default: \"\")\n        Where to"),
                "{line}"
            );
            assert!(help.contains("\n    --tracing.samplerate  (Default: \"1\")\n"), "{line}");
        }
        assert!(!told("check --help").contains("samplerate") && !told("help check").contains("samplerate"));
    }

    #[test]
    fn a_file_without_its_flag_is_told_how_to_be_named() {
        let told = |arguments: &[&str]| {
            let error = parse(arguments.iter().map(OsString::from)).unwrap_err();
            error.to_string().contains("--configFile=a/b.yml")
        };
        assert!(told(&["check", "a/b.yml"]) && told(&["a/b.yml"]));
        assert!(!told(&["check", "more"]) && !told(&["--nope=a/b.yml"]));
    }

    #[test]
    fn the_configuration_file_is_offered_where_it_is_read() {
        let help =
            |command: &str| parse([command.into(), "--help".into()].into_iter()).unwrap_err().to_string();
        for (command, offered) in
            [("check", true), ("healthcheck", true), ("demo", false), ("upgrade", false)]
        {
            assert_eq!(help(command).contains("--configfile"), offered, "{command}");
        }
    }
}
