//! How fields are stored: as the lines they will be on the wire, so that they are copied there as they are.

use std::ops::Range;

use crate::chars::find_control;
use crate::field::{Field, FieldName, MAX_BUFFER_BYTES, Span, key};
use crate::head::Head;

impl Head {
    /// Adds a field at the end, as [`append`](Self::append) does, under a name that is known to be one.
    #[inline]
    pub fn append_named(&mut self, name: FieldName, value: &[u8]) {
        let start = self.buffer.len();
        if self.begin_line(name, value.len()).is_none() {
            return;
        }
        self.buffer.extend_from_slice(value);
        self.end_line(name, start);
        let stored = &mut self.buffer[start + name.len() + 2..start + name.len() + 2 + value.len()];
        if let Some(at) = find_control(stored) {
            blank_controls(&mut stored[at..]);
        }
    }

    /// Adds a field whose value is what `part` picks from the first value under `source`; false if it picks nothing.
    #[inline]
    pub fn append_part(
        &mut self,
        name: FieldName,
        source: &str,
        part: impl FnOnce(&[u8]) -> Option<Range<usize>>,
    ) -> bool {
        let Some(source) = self.find(source.as_bytes(), key(source.as_bytes())).map(|field| field.value)
        else {
            return false;
        };
        let lies_within = |part: &Range<usize>| part.start <= part.end && part.end <= source.len as usize;
        let Some(part) = part(source.of(&self.buffer)).filter(lies_within) else {
            return false;
        };
        let (start, at) = (self.buffer.len(), source.range().start);
        if self.begin_line(name, part.len()).is_some() {
            self.buffer.extend_from_within(at + part.start..at + part.end);
            self.end_line(name, start);
        }
        true
    }

    /// Everything of a line that stands before its value; `None` if the buffer is full.
    #[inline]
    fn begin_line(&mut self, name: FieldName, value_len: usize) -> Option<()> {
        let len = name.len() + value_len + 4;
        if self.buffer.len() + len > MAX_BUFFER_BYTES {
            return None;
        }
        self.buffer.reserve(len);
        self.buffer.extend_from_slice(name.as_bytes());
        self.buffer.extend_from_slice(b": ");
        Some(())
    }

    /// Makes the line that began at `start` a field.
    #[inline]
    fn end_line(&mut self, name: FieldName, start: usize) {
        let value = start + name.len() + 2..self.buffer.len();
        self.buffer.extend_from_slice(b"\r\n");
        self.push(Field::of_line(name, start, value));
    }

    /// `None` if the buffer is full or the name too long.
    pub(crate) fn store_line(&mut self, name: NameSource<'_>, value: &[u8]) -> Option<Field> {
        let start = self.buffer.len();
        let name_len = match &name {
            NameSource::Caller(name) => name.len(),
            NameSource::Buffer(span) => span.len as usize,
        };
        if start + name_len + value.len() + 4 > MAX_BUFFER_BYTES {
            return None;
        }
        match name {
            NameSource::Caller(name) => self.buffer.extend_from_slice(name),
            NameSource::Buffer(span) if span.range().end <= start => {
                self.buffer.extend_from_within(span.range())
            }
            NameSource::Buffer(_) => return None,
        }
        self.buffer.extend_from_slice(b": ");
        let value_start = start + name_len + 2;
        self.buffer.extend_from_slice(value);
        let value_end = self.buffer.len();
        self.buffer.extend_from_slice(b"\r\n");
        let stored = &mut self.buffer[value_start..value_end];
        if let Some(at) = find_control(stored) {
            blank_controls(&mut stored[at..]);
        }
        Field::new(&self.buffer, start..start + name_len, value_start..value_end, true)
    }
}

pub(crate) enum NameSource<'a> {
    Caller(&'a [u8]),
    Buffer(Span),
}

/// Go's net/http does the same to values it writes: no value set by a middleware can start a line of its own.
#[cold]
fn blank_controls(mut value: &mut [u8]) {
    while let Some(at) = find_control(value) {
        value[at] = b' ';
        value = &mut value[at + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_under_known_names_are_as_any_other() {
        const PORT: FieldName = FieldName::new("X-Port");
        let mut head = Head::new();
        head.append("Host", b"a:80");
        head.append_named(PORT, b"1\r\nX-Admin: yes");
        assert!(head.append_part(PORT, "host", |host| Some(2..host.len())));
        assert!(!head.append_part(PORT, "host", |_| None));
        assert!(!head.append_part(PORT, "host", |host| Some(0..host.len() + 1)));
        assert!(!head.append_part(PORT, "absent", |_| Some(0..0)));
        assert_eq!(head.get_all("x-port").collect::<Vec<_>>(), [&b"1  X-Admin: yes"[..], b"80"]);
        let mut out = Vec::new();
        crate::write_response(&head, &mut out);
        assert!(out.ends_with(b"Host: a:80\r\nX-Port: 1  X-Admin: yes\r\nX-Port: 80\r\n\r\n"));
    }
}
