//! Text of a configuration file, read within limits.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::MAX_BYTES;
use crate::problem::Problem;

/// What a file is written in, told by its extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Yaml,
    Toml,
}

impl Format {
    pub(crate) fn of(path: &Path) -> Option<Self> {
        // In any case, as Traefik.
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "yml" | "yaml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }
}

/// The bytes of a regular file that is not too big for a configuration.
///
/// # Errors
/// What the system says; `IsADirectory` and `InvalidInput` for what is no regular file, which would block or never
/// end, `FileTooLarge` for more than 16 MiB.
pub fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    // To open a device may do something to it.
    regular(&std::fs::metadata(path)?)?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too big from one that just fits.
    open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES { Err(ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// As [`read_bytes`], for what is text.
///
/// # Errors
/// As [`read_bytes`], and `InvalidData` for what is not UTF-8.
pub fn read_string(path: &Path) -> io::Result<String> {
    String::from_utf8(read_bytes(path)?).map_err(|_| ErrorKind::InvalidData.into())
}

/// Never blocks, even where a pipe has come in place of the file that was there.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    regular(&file.metadata()?)?;
    Ok(file)
}

fn regular(found: &Metadata) -> io::Result<()> {
    if found.is_file() {
        return Ok(());
    }
    Err(if found.is_dir() {
        ErrorKind::IsADirectory.into()
    } else {
        io::Error::new(ErrorKind::InvalidInput, "it is not a regular file")
    })
}

/// Whether a text defines nothing: white space, comments, keys and sections with nothing in them. It is what is seen of
/// a file while it is written, or when it was emptied; to define nothing on purpose is to write `{}`.
pub fn defines_nothing(text: &str) -> bool {
    text.trim_start_matches('\u{feff}').lines().all(|line| {
        let said = line.split_once(" #").map_or(line, |(said, _)| said).trim();
        let is_key = said.ends_with(':') && !said.starts_with("- ");
        let is_section = said.starts_with('[') && said.ends_with(']');
        is_key || is_section || said.is_empty() || said.starts_with('#') || matches!(said, "---" | "...")
    })
}

/// The file as text, without a byte order mark.
pub(crate) fn read_text(path: &Path) -> Result<String, Box<Problem>> {
    let name = path.display().to_string();
    let refuse = |message: String, hint: &str| {
        let hint = Some(hint.to_owned()).filter(|hint| !hint.is_empty());
        Err(Box::new(Problem::whole_file(&name, message, hint)))
    };
    let bytes = match read_bytes(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let hint = match error.kind() {
                ErrorKind::IsADirectory => "name a file in it, or use `directory`",
                ErrorKind::InvalidInput => "",
                ErrorKind::FileTooLarge => "split it and use `providers.file.directory`",
                _ => "check the path and its permissions",
            };
            return refuse(reason(&error), hint);
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.iter().filter(|b| **b == b'\n').count() + 1;
            refuse(format!("is not UTF-8 text (line {line})"), "save it as UTF-8")
        }
    }
}

/// What the system said, in lower case without its number.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "does not exist".to_owned(),
        ErrorKind::PermissionDenied => "may not be read (permission denied)".to_owned(),
        ErrorKind::IsADirectory => "is a directory, not a file".to_owned(),
        ErrorKind::NotADirectory => "is not a directory".to_owned(),
        ErrorKind::InvalidInput => "is not a regular file".to_owned(),
        ErrorKind::FileTooLarge => format!("is bigger than {} MiB", MAX_BYTES / 1024 / 1024),
        _ => format!("cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_that_came_in_place_of_the_file_does_not_block() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("a.yml");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(open(&pipe).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(open(directory.path()).unwrap_err().kind(), ErrorKind::IsADirectory);
    }

    #[test]
    fn comments_and_bare_keys_define_nothing() {
        for nothing in [
            "",
            " \n\t\n",
            "\u{feff}",
            "# managed by me\n",
            "---\n# a\n...\n",
            "http:",
            "http: # all of it\n  routers:\n#    a:\n    b:\n",
            "# toml\n[http]\n  [http.routers.a] # x\n",
        ] {
            assert!(defines_nothing(nothing), "{nothing:?}");
        }
        for something in
            ["{}", "http: {}", "http:\n  routers: {a: {}}", "a: b", "- a:", "http:\n  rou", "[a]\nb = 1"]
        {
            assert!(!defines_nothing(something), "{something:?}");
        }
    }
}
