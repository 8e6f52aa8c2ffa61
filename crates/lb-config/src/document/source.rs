//! Text of a configuration file, read within limits.

use std::fs::File;
use std::io::Read;
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
        match path.extension()?.to_str()? {
            "yml" | "yaml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }
}

/// The file as text, without a byte order mark.
pub(crate) fn read_text(path: &Path) -> Result<String, Box<Problem>> {
    let name = path.display().to_string();
    let refuse = |message: String, hint: &str| {
        let hint = Some(hint.to_owned()).filter(|hint| !hint.is_empty());
        Err(Box::new(Problem::whole_file(&name, message, hint)))
    };
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return refuse(reason(&error), "check the path and its permissions"),
    };
    if metadata.is_dir() {
        return refuse("is a directory, not a file".to_owned(), "name a file in it, or use `directory`");
    }
    // A named pipe or a device would block or never end.
    if !metadata.is_file() {
        return refuse("is not a regular file".to_owned(), "");
    }
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too big from one that just fits.
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        return refuse(reason(&error), "check its permissions");
    }
    if bytes.len() as u64 > MAX_BYTES {
        return refuse(
            format!("is bigger than {} MiB", MAX_BYTES / 1024 / 1024),
            "split it and use `providers.file.directory`",
        );
    }
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
pub(crate) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "does not exist".to_owned(),
        std::io::ErrorKind::PermissionDenied => "may not be read (permission denied)".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}
