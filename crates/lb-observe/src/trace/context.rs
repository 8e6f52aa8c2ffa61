//! Which trace and span something belongs to.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub(super) [u8; 16]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(pub(super) [u8; 8]);

/// W3C Trace Context section 3.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    pub trace: TraceId,
    pub span: SpanId,
    /// Bit 0: followed; bit 1: the trace's id is random. Beyond these two, what only B3 can say.
    pub flags: u8,
}

/// Nobody has decided yet.
pub(super) const DEFERRED: u8 = 4;
/// Followed whatever samplers say.
pub(super) const DEBUG: u8 = 8;

impl Context {
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    /// Those that W3C Trace Context knows.
    pub(super) fn known_flags(&self) -> u8 {
        self.flags & 3
    }
}

impl TraceId {
    pub(super) fn random(random: &mut impl FnMut() -> u64) -> Self {
        let [high, low] = [random(), random().max(1)];
        Self((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    /// `None`: not hexadecimal, or all zero, which is no id.
    pub(super) fn parse(text: &str) -> Option<Self> {
        hex(text).map(Self).filter(|id| id.0 != [0; 16])
    }
}

impl SpanId {
    pub fn random(random: &mut impl FnMut() -> u64) -> Self {
        Self(random().max(1).to_be_bytes())
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        hex(text).map(Self).filter(|id| id.0 != [0; 8])
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// Exactly so many bytes in lower-case hexadecimal: W3C Trace Context section 3.2.2.
pub(super) fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Whether a share of `rate` has this one: by its id, so that everybody with the same rate chooses the same traces.
pub(super) fn is_chosen(id: TraceId, rate: f64) -> bool {
    // The lower half of the id without its last bit, as OpenTelemetry's TraceIdRatioBased has it.
    let low = (u128::from_be_bytes(id.0) as u64) >> 1;
    rate >= 1.0 || (low as f64) < rate * (1_u64 << 63) as f64
}
