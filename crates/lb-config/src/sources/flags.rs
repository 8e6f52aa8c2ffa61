//! `--entryPoints.web.address=:80`: Go's flags, as Traefik has them.

use std::ffi::{OsStr, OsString};
use std::iter::Peekable;

use super::{Setting, Settings, schema};
use crate::decode::{Shape, boolean};

impl Settings {
    /// Takes the flags of the static configuration out of `arguments`: those with dots, and those of its first keys.
    /// The others, and commands, are left.
    pub fn take_flags(arguments: &mut Vec<OsString>) -> Self {
        let roots = schema::roots();
        let mut settings = Vec::new();
        let mut left = Vec::new();
        let mut coming = std::mem::take(arguments).into_iter().peekable();
        while let Some(argument) = coming.next() {
            if argument == "--" {
                left.push(argument);
                left.extend(coming);
                break;
            }
            match flag(&argument) {
                Some((name, path, value)) if is_option(path, &roots) => {
                    let value =
                        value.map_or_else(|| without_equals(path, &mut coming), |value| Ok(value.to_owned()));
                    settings.push(Setting { name: name.to_owned(), path: path.to_owned(), value });
                }
                _ => left.push(argument),
            }
        }
        *arguments = left;
        Self(settings)
    }
}

/// A flag with its dashes, without them, and the value in it.
fn flag(argument: &OsStr) -> Option<(&str, &str, Option<&str>)> {
    let text = argument.to_str()?;
    let bare = text.strip_prefix("--").or_else(|| text.strip_prefix('-'))?;
    if bare.is_empty() || bare.starts_with(['-', '=']) {
        return None;
    }
    let (path, value) = bare.split_once('=').map_or((bare, None), |(path, value)| (path, Some(value)));
    Some((&text[..text.len() - bare.len() + path.len()], path, value))
}

fn is_option(path: &str, roots: &[&str]) -> bool {
    path.contains(['.', '[']) || roots.iter().any(|root| root.eq_ignore_ascii_case(path))
}

/// The value of a flag without `=`: the next word, but that what can be switched on is.
fn without_equals(
    path: &str,
    coming: &mut Peekable<impl Iterator<Item = OsString>>,
) -> Result<String, &'static str> {
    let shape = schema::shape(path);
    let is_switch = matches!(shape, Some(Shape::Switch | Shape::Map | Shape::Names));
    let is_value = |word: &str| match word.strip_prefix('-') {
        _ if is_switch => boolean(word).is_some(),
        // Traefik takes the next flag for the value.
        Some(rest) => rest.starts_with(|c: char| c.is_ascii_digit()),
        None => true,
    };
    match coming.next_if(|word| word.to_str().is_some_and(is_value)) {
        Some(word) => Ok(word.to_string_lossy().into_owned()),
        // Nobody reads what changes nothing here, be it a switch or not.
        None if is_switch || shape.is_none() => Ok("true".to_owned()),
        None => Err("needs a value"),
    }
}
