//! `{{ env "NAME" }}` in dynamic files, replaced before the file is parsed.
//!
//! Traefik runs every dynamic file through Go's `text/template`. Only the environment is supported
//! here; any other action is a problem with its place, never text that silently stays.

use std::borrow::Cow;

use super::position::{Files, Position};
use super::source::Format;
use crate::problem::{Problem, quoted};

pub(crate) struct Rendered<'t> {
    pub(crate) text: Cow<'t, str>,
    pub(crate) origin: Origin,
}

/// Maps places in the rendered text back to the file.
pub(crate) struct Origin {
    /// Where a piece of the rendered text (by character index) comes from; empty: nothing was replaced.
    pieces: Vec<Piece>,
}

struct Piece {
    /// Character index in the rendered text, its line and its column (both from 0).
    start: usize,
    start_line: u32,
    start_column: u32,
    /// Where that is in the file (from 1).
    line: u32,
    column: u32,
    /// The piece is the value of an action: all of it lies at one place.
    replaced: bool,
}

impl Origin {
    pub(crate) fn untouched() -> Self {
        Self { pieces: Vec::new() }
    }

    /// Place in the file of a character of the rendered text; `line` from 1 and `column` from 0,
    /// as the parsers count. The flag says whether what follows on the line is as in the file.
    pub(crate) fn locate(&self, file: u32, index: usize, line: usize, column: usize) -> Position {
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (line, column) = (narrow(line), narrow(column));
        let after = self.pieces.partition_point(|piece| piece.start <= index);
        let Some(piece) = after.checked_sub(1).and_then(|at| self.pieces.get(at)) else {
            return Position { file, line, column: column + 1 };
        };
        if piece.replaced {
            return Position { file, line: piece.line, column: piece.column };
        }
        let lines = line.saturating_sub(1 + piece.start_line);
        let column =
            if lines == 0 { piece.column + column.saturating_sub(piece.start_column) } else { column + 1 };
        Position { file, line: piece.line + lines, column }
    }

    pub(crate) fn is_untouched(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// Replaces every action; `None` when one is not supported (all of them are reported).
pub(crate) fn render<'t>(
    text: &'t str,
    format: Format,
    file: u32,
    files: &Files,
    env: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<Problem>,
) -> Option<Rendered<'t>> {
    if !text.contains("{{") {
        return Some(Rendered { text: text.into(), origin: Origin::untouched() });
    }
    let mut rendered = Cursor { format, index: 0, line: 0, column: 0 };
    let mut source = Cursor { format, index: 0, line: 1, column: 1 };
    let mut out = String::with_capacity(text.len());
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut supported = true;
    let mut copy = |piece: &str, at: &Cursor, rendered: &mut Cursor, replaced: bool| {
        pieces.push(Piece {
            start: rendered.index,
            start_line: rendered.line,
            start_column: rendered.column,
            line: at.line,
            column: at.column,
            replaced,
        });
        out.push_str(piece);
        rendered.advance(piece, 0);
    };
    while let Some(open) = rest.find("{{") {
        copy(&rest[..open], &source, &mut rendered, false);
        source.advance(&rest[..open], 1);
        rest = &rest[open..];
        let action = rest.find("}}").map(|close| &rest[..close + 2]);
        match action.and_then(env_name) {
            Some(name) => {
                let value = env(name).unwrap_or_default();
                copy(&value, &source, &mut rendered, true);
            }
            None => {
                let at = Position { file, line: source.line, column: source.column };
                problems.push(unsupported(files, at, action));
                supported = false;
            }
        }
        // An action that never ends swallows the rest of the file.
        let length = action.map_or(rest.len(), str::len);
        source.advance(&rest[..length], 1);
        rest = &rest[length..];
    }
    copy(rest, &source, &mut rendered, false);
    supported.then_some(Rendered { text: out.into(), origin: Origin { pieces } })
}

fn unsupported(files: &Files, at: Position, action: Option<&str>) -> Problem {
    match action {
        Some(action) => files.error(
            at,
            format!("the template action {} is not supported yet", quoted(action)),
            Some("only {{ env \"NAME\" }} is; write the value itself".to_owned()),
        ),
        None => files.error(at, "this `{{` has no `}}`".to_owned(), None),
    }
}

/// `NAME` of `{{ env "NAME" }}` or of the same with back-ticks.
fn env_name(action: &str) -> Option<&str> {
    let inner = action.strip_prefix("{{")?.strip_suffix("}}")?.trim();
    let argument = inner.strip_prefix("env")?;
    let name = argument.trim_start();
    if name.len() == argument.len() {
        return None;
    }
    let name = match name.as_bytes() {
        [b'"', .., b'"'] | [b'`', .., b'`'] if name.len() >= 2 => &name[1..name.len() - 1],
        _ => return None,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    (!name.is_empty() && name.chars().all(plain)).then_some(name)
}

/// Counts lines as the parser of the format does.
struct Cursor {
    format: Format,
    index: usize,
    line: u32,
    column: u32,
}

impl Cursor {
    fn advance(&mut self, text: &str, first_column: u32) {
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            self.index += 1;
            // YAML 1.2.2 section 5.4: a carriage return alone ends a line, too.
            let is_break =
                c == '\n' || (c == '\r' && self.format == Format::Yaml && chars.peek() != Some(&'\n'));
            if is_break {
                self.line += 1;
                self.column = first_column;
            } else {
                self.column += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<String, String> {
        let mut files = Files::default();
        let file = files.add("a.yml");
        let mut problems = Vec::new();
        let env = |name: &str| match name {
            "HOST" => Some("example.com".to_owned()),
            "TWO" => Some("x\ny".to_owned()),
            _ => None,
        };
        match render(text, Format::Yaml, file, &files, &env, &mut problems) {
            Some(rendered) => {
                // The place in the file of the character that the rendered text calls `@`.
                let place = rendered.text.chars().position(|c| c == '@').map(|index| {
                    let before: String = rendered.text.chars().take(index).collect();
                    let before = before.replace('\r', "\n");
                    let line = before.matches('\n').count() + 1;
                    let column = before.chars().rev().take_while(|c| *c != '\n').count();
                    let at = rendered.origin.locate(file, index, line, column);
                    format!(" @{}:{}", at.line, at.column)
                });
                Ok(rendered.text.into_owned() + &place.unwrap_or_default())
            }
            None => Err(problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")),
        }
    }

    #[test]
    fn the_environment_is_filled_in_and_places_stay_those_of_the_file() {
        assert_eq!(run("a: b @"), Ok("a: b @ @1:6".to_owned()));
        assert_eq!(run("h: {{ env \"HOST\" }} @"), Ok("h: example.com @ @1:21".to_owned()));
        assert_eq!(run("h: {{env `HOST`}}\nk: @"), Ok("h: example.com\nk: @ @2:4".to_owned()));
        assert_eq!(run("{{ env \"TWO\" }} @"), Ok("x\ny @ @1:17".to_owned()));
        assert_eq!(run("a:\r{{ env\r\"HOST\" }}\r @"), Ok("a:\rexample.com\r @ @4:2".to_owned()));
        assert_eq!(run("a\n{{ env \"NONE\" }}\n\n @"), Ok("a\n\n\n @ @4:2".to_owned()));
    }

    #[test]
    fn other_actions_are_refused_with_their_place() {
        for action in
            ["{{ . }}", "{{ envX }}", "{{ env HOST }}", "{{- env \"HOST\" }}", "{{ env \"A\" | quote }}"]
        {
            let error = run(&format!("a\n  {action}")).unwrap_err();
            assert!(error.starts_with("a.yml:2:3: the template action `{{"), "{error}");
        }
        assert_eq!(run("a {{ env"), Err("a.yml:1:3: this `{{` has no `}}`".to_owned()));
        assert_eq!(run("{{a}}{{b}}").unwrap_err().matches("not supported yet").count(), 2);
    }
}
