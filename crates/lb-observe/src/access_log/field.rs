//! Which fields and headers a line holds.

use super::{FieldMode, Fields};

macro_rules! fields {
    ($($variant:ident = $name:literal),+ $(,)?) => {
        /// A field of the access log under Traefik's name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Field { $($variant),+ }

        impl Field {
            const ALL: &[Field] = &[$(Field::$variant),+];

            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The name as a key of a JSON object, with its colon.
            pub(super) fn key(self) -> &'static str {
                match self { $(Self::$variant => concat!("\"", $name, "\":")),+ }
            }
        }
    };
}

fields! {
    ClientAddr = "ClientAddr",
    ClientHost = "ClientHost",
    ClientPort = "ClientPort",
    ClientUsername = "ClientUsername",
    DownstreamContentSize = "DownstreamContentSize",
    DownstreamStatus = "DownstreamStatus",
    Duration = "Duration",
    GzipRatio = "GzipRatio",
    OriginContentSize = "OriginContentSize",
    OriginDuration = "OriginDuration",
    OriginStatus = "OriginStatus",
    Overhead = "Overhead",
    RequestAddr = "RequestAddr",
    RequestContentSize = "RequestContentSize",
    RequestCount = "RequestCount",
    RequestHost = "RequestHost",
    RequestMethod = "RequestMethod",
    RequestPath = "RequestPath",
    RequestPort = "RequestPort",
    RequestProtocol = "RequestProtocol",
    RequestScheme = "RequestScheme",
    RetryAttempts = "RetryAttempts",
    RouterName = "RouterName",
    ServiceAddr = "ServiceAddr",
    ServiceName = "ServiceName",
    ServiceUrl = "ServiceURL",
    SpanId = "SpanId",
    StartLocal = "StartLocal",
    StartUtc = "StartUTC",
    TlsCipher = "TLSCipher",
    TlsClientSubject = "TLSClientSubject",
    TlsVersion = "TLSVersion",
    TraceId = "TraceId",
    EntryPointName = "entryPointName",
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FieldSet(u64);

impl FieldSet {
    pub(super) fn new(fields: &Fields) -> Self {
        let kept = Field::ALL.iter().filter(|field| {
            let mode = fields.names.get(&field.name().to_ascii_lowercase()).unwrap_or(&fields.default_mode);
            *mode == FieldMode::Keep
        });
        Self(kept.fold(0, |set, field| set | 1 << *field as u32))
    }

    pub(super) fn keeps(self, field: Field) -> bool {
        self.0 & 1 << field as u32 != 0
    }
}

#[derive(Clone, Debug)]
pub(super) struct HeaderModes {
    default_mode: FieldMode,
    /// A handful: scanning needs no lower-case copy of the name looked for.
    modes: Vec<(String, FieldMode)>,
}

impl HeaderModes {
    pub(super) fn new(fields: &Fields) -> Self {
        let modes = fields.headers.iter().map(|(name, mode)| (name.clone(), *mode)).collect();
        Self { default_mode: fields.headers_default_mode, modes }
    }

    pub(super) fn mode(&self, name: &str) -> FieldMode {
        let found = self.modes.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or(self.default_mode, |(_, mode)| *mode)
    }

    pub(super) fn keeps(&self, name: &str) -> bool {
        self.mode(name) != FieldMode::Drop
    }

    pub(super) fn keeps_any(&self) -> bool {
        self.default_mode != FieldMode::Drop || self.modes.iter().any(|(_, mode)| *mode != FieldMode::Drop)
    }
}

/// What is printed for a redacted value.
pub(super) const REDACTED: &[u8] = b"REDACTED";
