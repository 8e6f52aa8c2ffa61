//! Where a field lies in the buffer of its head, and how it is found there.

use std::ops::Range;

use crate::chars::is_token_byte;

/// A piece of the buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    start: u32,
    pub(crate) len: u32,
}

impl Span {
    /// `range` lies below `MAX_BUFFER_BYTES`, which all writers see to.
    pub(crate) fn new(range: Range<usize>) -> Self {
        Self { start: range.start as u32, len: (range.end - range.start) as u32 }
    }

    pub(crate) fn range(self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.len as usize
    }

    /// Empty instead of a panic when the span points nowhere, as it does in a half-parsed head.
    pub(crate) fn of(self, buffer: &[u8]) -> &[u8] {
        buffer.get(self.range()).unwrap_or_default()
    }
}

/// Spans are 32 bits wide; far more than any limit an operator would set.
pub(crate) const MAX_BUFFER_BYTES: usize = 1 << 30;

/// A field name that was looked at when the program was built, so that no request pays for it.
#[derive(Clone, Copy, Debug)]
pub struct FieldName(&'static str, u8);

impl FieldName {
    /// # Panics
    /// When `name` is not a token; in a constant that is an error of the build.
    pub const fn new(name: &'static str) -> Self {
        let bytes = name.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            assert!(is_token_byte(bytes[at]), "not a field name");
            at += 1;
        }
        assert!(at > 0 && at <= u16::MAX as usize, "not a field name");
        Self(name, key(bytes))
    }

    #[inline]
    pub(crate) fn as_bytes(self) -> &'static [u8] {
        self.0.as_bytes()
    }

    #[inline]
    pub(crate) fn len(self) -> usize {
        self.0.len()
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    name_start: u32,
    pub(crate) value: Span,
    name_len: u16,
    key: u8,
    /// The buffer holds `name: value CRLF` in exactly this form, so the line can be copied as it is.
    verbatim: bool,
}

impl Field {
    /// `None` when the name is too long to be one.
    pub(crate) fn new(bytes: &[u8], name: Range<usize>, value: Range<usize>, verbatim: bool) -> Option<Self> {
        let name_len = u16::try_from(name.len()).ok()?;
        let key = key(bytes.get(name.clone())?);
        Some(Self { name_start: name.start as u32, value: Span::new(value), name_len, key, verbatim })
    }

    /// A line in this form.
    #[inline]
    pub(crate) fn of_line(name: FieldName, start: usize, value: Range<usize>) -> Self {
        let value = Span::new(value);
        Self { name_start: start as u32, value, name_len: name.0.len() as u16, key: name.1, verbatim: true }
    }

    /// The same field in a buffer that holds its line `by` bytes further on.
    pub(crate) fn moved(self, by: u32) -> Self {
        let value = Span { start: self.value.start + by, ..self.value };
        Self { name_start: self.name_start + by, value, ..self }
    }

    pub(crate) fn name(self) -> Span {
        Span { start: self.name_start, len: u32::from(self.name_len) }
    }

    pub(crate) fn key(self) -> u8 {
        self.key
    }

    pub(crate) fn name_of(self, buffer: &[u8]) -> &[u8] {
        self.name().of(buffer)
    }

    pub(crate) fn value_of(self, buffer: &[u8]) -> &[u8] {
        self.value.of(buffer)
    }

    pub(crate) fn is(self, buffer: &[u8], name: &[u8], key: u8) -> bool {
        self.key == key
            && usize::from(self.name_len) == name.len()
            && self.name_of(buffer).eq_ignore_ascii_case(name)
    }

    /// The whole line with its CRLF, if it stands in the buffer as it should on the wire.
    pub(crate) fn line(self) -> Option<Range<usize>> {
        self.verbatim.then(|| self.name_start as usize..self.value.range().end + 2)
    }
}

/// A cheap fingerprint of a field name, blind to case: length, first and last letter. Inlined on a literal
/// name it is a constant. The factors were searched so that what proxies ask for and what browsers send seldom meet.
#[inline]
pub(crate) const fn key(name: &[u8]) -> u8 {
    let [first, .., last] = name else {
        return if name.is_empty() { 0 } else { name[0] | 0x20 };
    };
    let (first, last) = ((*first | 0x20) as usize, (*last | 0x20) as usize);
    (name.len() * 3 + first * 43 + last * 19) as u8
}

#[inline]
pub(crate) const fn bit(key: u8) -> u64 {
    1 << (key & 63)
}
