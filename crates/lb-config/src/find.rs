//! Where the static file is looked for.

use std::path::{Path, PathBuf};

use crate::problem::Problem;

/// The static file: the one named, or the first that exists of Traefik's places (reference 1.1), each
/// tried for `traefik` and then for `vigie`. `None`: there is no file.
///
/// # Errors
/// A file that was named and does not exist; Traefik would go on without it.
#[expect(clippy::result_large_err, reason = "called once, at start")]
pub(crate) fn find_static(config_file: Option<&Path>) -> Result<Option<PathBuf>, Problem> {
    if let Some(path) = config_file.filter(|path| !path.as_os_str().is_empty()) {
        if path.exists() {
            return Ok(Some(path.to_owned()));
        }
        let hint = "check the path given with --configFile".to_owned();
        return Err(Problem::whole_file(
            &path.display().to_string(),
            "does not exist".to_owned(),
            Some(hint),
        ));
    }
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    Ok(candidates(variable("XDG_CONFIG_HOME"), variable("HOME")).into_iter().find(|path| path.is_file()))
}

fn candidates(xdg_config_home: Option<PathBuf>, home: Option<PathBuf>) -> Vec<PathBuf> {
    let mut stems = vec![PathBuf::from("/etc/traefik/traefik"), PathBuf::from("/etc/vigie/vigie")];
    let homes = [xdg_config_home, home.map(|home| home.join(".config")), Some(PathBuf::from("."))];
    for directory in homes.into_iter().flatten() {
        stems.extend([directory.join("traefik"), directory.join("vigie")]);
    }
    let extensions = ["toml", "yaml", "yml"];
    stems.iter().flat_map(|stem| extensions.map(|extension| stem.with_extension(extension))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_tried_in_traefiks_order() {
        let all = candidates(Some("/x".into()), Some("/h".into()));
        let all: Vec<_> = all.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(
            all[..4],
            [
                "/etc/traefik/traefik.toml",
                "/etc/traefik/traefik.yaml",
                "/etc/traefik/traefik.yml",
                "/etc/vigie/vigie.toml"
            ]
        );
        assert_eq!(all[6], "/x/traefik.toml");
        assert_eq!(all[12], "/h/.config/traefik.toml");
        assert_eq!(all[18], "./traefik.toml");
        assert_eq!(all[23], "./vigie.yml");
        assert_eq!(candidates(None, None).len(), 12);
    }

    #[test]
    fn a_named_file_must_exist() {
        let error = find_static(Some(Path::new("/does/not/exist.yml"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/does/not/exist.yml: does not exist\n  hint: check the path given with --configFile"
        );
        assert_eq!(find_static(Some(Path::new("/etc/hostname"))).unwrap(), Some("/etc/hostname".into()));
    }
}
