//! The parameters of an `Authorization: Digest` field.

/// Names, as received, with their values; of repeated ones the last counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// `None` if the field is about another scheme.
    pub(super) fn read(field: &[u8]) -> Option<Self> {
        let (scheme, rest) = std::str::from_utf8(field).ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("digest") {
            return None;
        }
        let pair = |element: String| match element.split_once('=') {
            Some((name, value)) => {
                let quoted = value.len() > 1 && value.starts_with('"') && value.ends_with('"');
                let value = if quoted { &value[1..value.len() - 1] } else { value };
                (name.to_owned(), value.to_owned())
            }
            None => (element, String::new()),
        };
        Some(Self(elements(rest).into_iter().map(pair).collect()))
    }

    pub(super) fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Empty if it is absent.
    pub(super) fn get(&self, name: &str) -> &str {
        self.find(name).unwrap_or_default()
    }
}

/// The elements of a list, without what a `\` in quotes escapes.
fn elements(list: &str) -> Vec<String> {
    let (mut elements, mut element) = (Vec::new(), String::new());
    let (mut quoted, mut escaped) = (false, false);
    for c in list.chars() {
        match c {
            _ if escaped => {
                element.push(c);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            ',' if !quoted => elements.push(std::mem::take(&mut element)),
            _ => {
                quoted ^= c == '"';
                element.push(c);
            }
        }
    }
    elements.push(element);
    elements.iter().map(|element| element.trim().to_owned()).filter(|element| !element.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_lists_are() {
        let field =
            br#"digest username="a\"b, c", qop=auth,nc = 1 , uri="/x?a=b,c", empty=, bare, qop=last, q=""#;
        let params = Params::read(field).unwrap();
        for (name, value) in [
            ("username", Some("a\"b, c")),
            ("qop", Some("last")),
            ("uri", Some("/x?a=b,c")),
            ("empty", Some("")),
            ("bare", Some("")),
            ("q", Some("\"")),
            ("realm", None),
        ] {
            assert_eq!(params.find(name), value, "{name}");
        }
        for other in [&b"Basic YTpi"[..], b"Digest", b"Digest\xff a=b", b""] {
            assert_eq!(Params::read(other), None);
        }
    }
}
