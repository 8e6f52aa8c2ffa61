//! The command line, with Traefik's spelling of flags.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::server::ServerCommand;

/// A Layer-7 high-availability load balancer that reads Traefik's configuration.
#[derive(Debug, Parser)]
#[command(name = "vigie", version, disable_version_flag = true)]
pub(crate) struct Cli {
    /// Static configuration file. Without it Traefik's places are searched: /etc/traefik/traefik,
    /// $XDG_CONFIG_HOME/traefik, $HOME/.config/traefik, ./traefik (.toml, .yaml, .yml).
    #[arg(long = "configfile", value_name = "FILE", global = true)]
    pub(crate) config_file: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Validate the static and the dynamic configuration without starting; exit code 1 on errors.
    Check,
    /// Three API replicas behind Vigie on 127.0.0.1, to try things out.
    Demo {
        /// Port of the entry point; the replicas and the dashboard take free ones.
        #[arg(long, default_value_t = 8000)]
        port: u16,
    },
    /// Ask the running instance's /ping; exit code 0 when it answers.
    Healthcheck,
    /// Replace the running process by a new one that takes over its sockets; exit code 0 when that serves.
    ///
    /// The program is the file that is now where the running one was started from.
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
    /// Print the version.
    Version,
}

/// Go's flags: one dash or two, names in any case.
pub(crate) fn normalised(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
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

pub(crate) fn version() -> String {
    format!(
        "Version:      {}\nCodename:     vigie\nBuilt with:   rustc {}\nOS/Arch:      {}/{}",
        crate::VERSION,
        env!("CARGO_PKG_RUST_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_spelt_as_in_traefik() {
        for spelling in ["--configFile=a.yml", "-configfile=a.yml", "--CONFIGFILE=a.yml"] {
            let cli = Cli::try_parse_from(normalised([spelling.into()].into_iter())).unwrap();
            assert_eq!(cli.config_file, Some("a.yml".into()), "{spelling}");
        }
        let cli = Cli::try_parse_from(normalised(
            ["check".into(), "--configFile".into(), "b.yml".into()].into_iter(),
        ));
        assert_eq!(cli.unwrap().config_file, Some("b.yml".into()));
    }
}
