//! `defaultRule`: the rule of routers that give none.
//!
//! Of Go's templates only what names the container is understood: `.Name`, `.ContainerName`, `index .Labels "key"`
//! and `normalize` of these.

use super::container::{Container, normalize};

/// Traefik's.
pub(crate) const DEFAULT: &str = "Host(`{{ normalize .Name }}`)";

#[derive(Clone, Debug)]
pub struct RuleTemplate(Vec<Piece>);

#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    Value { of: Variable, normalized: bool },
}

#[derive(Clone, Debug)]
enum Variable {
    Name,
    ContainerName,
    Label(String),
}

impl RuleTemplate {
    /// # Errors
    /// The byte at which something is not understood, and what.
    pub(crate) fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut pieces = Vec::new();
        let mut rest = text;
        let mut trim = false;
        while let Some(open) = rest.find("{{") {
            let at = text.len() - rest.len() + open;
            let Some(length) = rest[open..].find("}}") else {
                return Err((at, "this `{{` has no `}}`".to_owned()));
            };
            let mut before = if trim { rest[..open].trim_start() } else { &rest[..open] };
            let mut action = &rest[open + 2..open + length];
            if let Some(inner) = action.strip_prefix("- ") {
                (before, action) = (before.trim_end(), inner);
            }
            trim = false;
            if let Some(inner) = action.strip_suffix(" -") {
                (trim, action) = (true, inner);
            }
            pieces.push(Piece::Text(before.to_owned()));
            let value = value(action.trim()).ok_or_else(|| {
                (at, format!("the template action `{}` is not supported yet", &rest[open..open + length + 2]))
            })?;
            pieces.push(value);
            rest = &rest[open + length + 2..];
        }
        pieces.push(Piece::Text(if trim { rest.trim_start() } else { rest }.to_owned()));
        Ok(Self(pieces))
    }

    pub(super) fn render(&self, container: &Container) -> String {
        let mut rule = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => rule.push_str(text),
                Piece::Value { of, normalized } => {
                    let value = match of {
                        Variable::Name => container.base_name(),
                        Variable::ContainerName => container.name.clone(),
                        Variable::Label(key) => container.labels.get(key).cloned().unwrap_or_default(),
                    };
                    rule.push_str(&if *normalized { normalize(&value) } else { value });
                }
            }
        }
        rule
    }
}

impl Default for RuleTemplate {
    fn default() -> Self {
        let normalized = Piece::Value { of: Variable::Name, normalized: true };
        Self(vec![Piece::Text("Host(`".to_owned()), normalized, Piece::Text("`)".to_owned())])
    }
}

/// `normalize X`, `X | normalize` or `X`, in parentheses or not.
fn value(action: &str) -> Option<Piece> {
    let (inner, normalized) = match action.strip_prefix("normalize ") {
        Some(inner) => (inner.trim(), true),
        None => match action.strip_suffix("normalize").and_then(|inner| inner.trim_end().strip_suffix('|')) {
            Some(inner) => (inner.trim(), true),
            None => (action, false),
        },
    };
    let inner = inner.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')).map_or(inner, str::trim);
    let of = match inner {
        ".Name" => Variable::Name,
        ".ContainerName" => Variable::ContainerName,
        _ => {
            let key = inner.strip_prefix("index ")?.trim_start().strip_prefix(".Labels ")?.trim();
            let quoted = |quote: char| key.strip_prefix(quote)?.strip_suffix(quote);
            let key = quoted('"').or_else(|| quoted('`'))?;
            if key.contains(['"', '`', '\\']) {
                return None;
            }
            Variable::Label(key.to_owned())
        }
    };
    Some(Piece::Value { of, normalized })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_container_is_filled_in() {
        let labels = [("app".to_owned(), "Shop_1".to_owned())].into();
        let container = Container { name: "web_1".to_owned(), labels, ..Container::default() };
        for (template, expected) in [
            (DEFAULT, "Host(`web-1`)"),
            ("Host(`{{ .ContainerName }}.example.com`)", "Host(`web_1.example.com`)"),
            ("Host(`{{index .Labels \"app\"}}`)", "Host(`Shop_1`)"),
            ("Host(`{{ normalize (index .Labels `app`) }}`)", "Host(`Shop-1`)"),
            ("Host(`{{ .ContainerName | normalize }}`)", "Host(`web-1`)"),
            ("a {{- .Name -}} b", "aweb-1b"),
            ("PathPrefix(`/`)", "PathPrefix(`/`)"),
            ("{{ index .Labels \"absent\" }}", ""),
        ] {
            let rule = RuleTemplate::parse(template).unwrap().render(&container);
            assert_eq!(rule, expected, "{template}");
        }
        assert_eq!(RuleTemplate::default().render(&container), "Host(`web-1`)");
    }

    #[test]
    fn other_actions_are_refused() {
        for template in
            ["{{ if .Name }}", "x{{ .Name | upper }}", "{{ .Labels.app }}", "{{ index .Labels app }}"]
        {
            let (_, message) = RuleTemplate::parse(template).unwrap_err();
            assert!(message.ends_with("is not supported yet"), "{message}");
        }
        assert_eq!(RuleTemplate::parse("ab{{ .Name").unwrap_err(), (2, "this `{{` has no `}}`".to_owned()));
    }
}
