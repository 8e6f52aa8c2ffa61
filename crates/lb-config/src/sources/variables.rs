//! `TRAEFIK_ENTRYPOINTS_WEB_ADDRESS=:80`: the path of a flag in capitals, `_` for each dot.

use std::ffi::OsString;

use super::{Setting, Settings, schema};
use crate::decode::Shape;

const PREFIX: &str = "TRAEFIK_";

impl Settings {
    /// Those of `variables` whose names begin as an option does: of `TRAEFIK_PINGER`, too, which is none, but not of
    /// `TRAEFIK_HOME`.
    pub fn of_variables(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut found: Vec<(String, OsString)> = variables
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        if found.is_empty() {
            return Self::default();
        }
        found.sort();
        let roots: Vec<String> = schema::roots().iter().map(|root| root.to_ascii_uppercase()).collect();
        found.retain(|(name, _)| roots.iter().any(|root| name[PREFIX.len()..].starts_with(root.as_str())));
        let setting = |(name, value): (String, OsString)| Setting {
            path: path(&name[PREFIX.len()..]),
            value: value.into_string().map_err(|_| "is no UTF-8 text"),
            name,
        };
        Self(found.into_iter().map(setting).collect())
    }
}

/// As a flag writes it. A number is a place where a list is read, and a name elsewhere.
fn path(name: &str) -> String {
    let mut path = String::new();
    for (index, part) in name.to_lowercase().split('_').enumerate() {
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if is_number && schema::shape(&path) == Some(Shape::List) {
            path.push_str(&format!("[{part}]"));
        } else {
            path.push_str(if index == 0 { "" } else { "." });
            path.push_str(part);
        }
    }
    path
}
