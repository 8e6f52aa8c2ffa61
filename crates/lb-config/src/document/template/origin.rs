//! Which place of the file each character of the rendered text comes from.

use super::super::position::Position;
use super::super::source::Format;

/// A place in the file, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// Maps places in the rendered text back to the file.
pub(crate) struct Origin {
    /// Where a piece of the rendered text (by character index) comes from; empty: there was no template.
    pieces: Vec<Piece>,
}

struct Piece {
    /// Character index in the rendered text, its line and its column (both from 0).
    start: usize,
    start_line: u32,
    start_column: u32,
    /// Where that is in the file.
    from: Place,
    /// The piece is the value of an action: all of it lies at one place.
    replaced: bool,
}

impl Origin {
    pub(crate) fn untouched() -> Self {
        Self { pieces: Vec::new() }
    }

    /// Place in the file of a character of the rendered text; `line` from 1 and `column` from 0,
    /// as the parsers count.
    pub(crate) fn locate(&self, file: u32, index: usize, line: usize, column: usize) -> Position {
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (line, column) = (narrow(line), narrow(column));
        let after = self.pieces.partition_point(|piece| piece.start <= index);
        let Some(piece) = after.checked_sub(1).and_then(|at| self.pieces.get(at)) else {
            return Position { file, line, column: column + 1 };
        };
        let from = piece.from;
        if piece.replaced {
            return Position { file, line: from.line, column: from.column };
        }
        let lines = line.saturating_sub(1 + piece.start_line);
        let column =
            if lines == 0 { from.column + column.saturating_sub(piece.start_column) } else { column + 1 };
        Position { file, line: from.line + lines, column }
    }

    pub(crate) fn is_untouched(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// The rendered text as it grows.
#[derive(Default)]
pub(super) struct Output {
    pub(super) text: String,
    /// Byte offset, where it comes from, and whether it is the value of an action.
    pieces: Vec<(usize, Place, bool)>,
}

impl Output {
    /// Text of the file, which stands at `from`.
    pub(super) fn copy(&mut self, text: &str, from: Place) {
        self.pieces.push((self.text.len(), from, false));
        self.text.push_str(text);
    }

    /// What is written from now on is the value of the action at `from`.
    pub(super) fn replace(&mut self, from: Place) {
        self.pieces.push((self.text.len(), from, true));
    }

    /// `end` is the end of the file.
    pub(super) fn finish(mut self, format: Format, end: Place) -> (String, Origin) {
        self.pieces.push((self.text.len(), end, false));
        let mut cursor = Cursor::new(&self.text, format, Place { line: 0, column: 0 });
        let pieces = self.pieces.iter().map(|(offset, from, replaced)| {
            let Place { line, column } = cursor.at(*offset);
            let (start_line, start_column) = (line, column);
            Piece { start: cursor.index, start_line, start_column, from: *from, replaced: *replaced }
        });
        let origin = Origin { pieces: pieces.collect() };
        (self.text, origin)
    }
}

/// Counts lines as the parser of the format does.
pub(super) struct Cursor<'t> {
    text: &'t str,
    format: Format,
    offset: usize,
    index: usize,
    first_column: u32,
    place: Place,
}

impl<'t> Cursor<'t> {
    pub(super) fn new(text: &'t str, format: Format, start: Place) -> Self {
        Self { text, format, offset: 0, index: 0, first_column: start.column, place: start }
    }

    /// Place of the character at this byte; never before the last one that was asked for.
    pub(super) fn at(&mut self, offset: usize) -> Place {
        let mut chars = self.text[self.offset..offset].chars();
        while let Some(c) = chars.next() {
            self.index += 1;
            // YAML 1.2.2 section 5.4: a carriage return alone ends a line, too.
            let is_break = c == '\n'
                || (c == '\r'
                    && self.format == Format::Yaml
                    && !self.text[offset - chars.as_str().len()..].starts_with('\n'));
            if is_break {
                self.place.line += 1;
                self.place.column = self.first_column;
            } else {
                self.place.column += 1;
            }
        }
        self.offset = offset;
        self.place
    }
}
