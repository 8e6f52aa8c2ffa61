//! The fields that say which trace a request belongs to.

use super::context::{Context, DEBUG, DEFERRED, SpanId, TraceId, hex};

/// The longest `tracestate` that is passed on; W3C Trace Context section 3.3.1.5 asks for 512 at least.
const LONGEST_STATE: usize = 8 * 1024;

/// One way to say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `traceparent` and `tracestate`.
    W3c,
    /// `b3`, in one field.
    B3,
    /// `X-B3-TraceId` and others.
    B3Multi,
}

/// What a request says of the trace that it is part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub context: Context,
    pub state: Box<str>,
}

impl Format {
    /// The word of `OTEL_PROPAGATORS`.
    pub fn named(word: &str) -> Option<Self> {
        match word {
            "tracecontext" => Some(Self::W3c),
            "b3" => Some(Self::B3),
            "b3multi" => Some(Self::B3Multi),
            _ => None,
        }
    }

    /// `None`: nothing that can be understood.
    pub(super) fn read<'a>(self, field: &impl Fn(&str) -> Option<&'a str>) -> Option<Received> {
        let (context, state) = match self {
            Self::W3c => {
                let state = field("tracestate").filter(|state| state.len() <= LONGEST_STATE);
                (traceparent(field("traceparent")?.trim())?, state.unwrap_or_default().trim())
            }
            // Both read both: who calls may be older than who is called.
            Self::B3 | Self::B3Multi => (b3_single(field).or_else(|| b3_multi(field))?, ""),
        };
        Some(Received { context, state: state.into() })
    }

    pub(super) fn write(self, context: &Context, state: &str, set: &mut impl FnMut(&'static str, &str)) {
        let Context { trace, span, flags } = context;
        match self {
            Self::W3c => {
                set("Traceparent", &format!("00-{trace}-{span}-{:02x}", context.known_flags()));
                if !state.is_empty() {
                    set("Tracestate", state);
                }
            }
            Self::B3 => {
                let decision = match () {
                    () if flags & DEBUG != 0 => "-d",
                    () if flags & DEFERRED != 0 => "",
                    () if context.is_sampled() => "-1",
                    () => "-0",
                };
                set("B3", &format!("{trace}-{span}{decision}"));
            }
            Self::B3Multi => {
                set("X-B3-Traceid", &trace.to_string());
                set("X-B3-Spanid", &span.to_string());
                if flags & DEBUG != 0 {
                    set("X-B3-Flags", "1");
                } else if flags & DEFERRED == 0 {
                    set("X-B3-Sampled", if context.is_sampled() { "1" } else { "0" });
                }
            }
        }
    }
}

/// W3C Trace Context section 3.2; of later versions what this one knows.
fn traceparent(text: &str) -> Option<Context> {
    let mut parts = text.split('-');
    let [version] = hex::<1>(parts.next()?)?;
    let trace = TraceId::parse(parts.next()?)?;
    let span = SpanId::parse(parts.next()?)?;
    let [flags] = hex::<1>(parts.next()?)?;
    let is_whole = version != 0 || parts.next().is_none();
    (version != 0xff && is_whole).then_some(Context { trace, span, flags: flags & 3 })
}

/// `trace-span`, `trace-span-decision` or `trace-span-decision-parent`.
fn b3_single<'a>(field: &impl Fn(&str) -> Option<&'a str>) -> Option<Context> {
    let mut parts = field("b3")?.trim().split('-');
    let (trace, span) = (parts.next()?, parts.next()?);
    let flags = match parts.next() {
        None => DEFERRED,
        Some("0") => 0,
        Some("1") => 1,
        Some("d") => 1 | DEBUG,
        Some(_) => return None,
    };
    b3(trace, span, flags)
}

/// The same in a field each.
fn b3_multi<'a>(field: &impl Fn(&str) -> Option<&'a str>) -> Option<Context> {
    let flags = match field("x-b3-sampled").unwrap_or_default() {
        _ if field("x-b3-flags") == Some("1") => 1 | DEBUG,
        "" => DEFERRED,
        "0" | "false" => 0,
        "1" | "true" => 1,
        _ => return None,
    };
    b3(field("x-b3-traceid")?, field("x-b3-spanid")?, flags)
}

/// Ids of traces may have 64 bits.
fn b3(trace: &str, span: &str, flags: u8) -> Option<Context> {
    let trace = match trace.len() {
        16 => TraceId::parse(&format!("{trace:0>32}"))?,
        _ => TraceId::parse(trace)?,
    };
    Some(Context { trace, span: SpanId::parse(span)?, flags })
}
