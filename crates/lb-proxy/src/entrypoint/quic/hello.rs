//! TLS in QUIC: the options are chosen by what the client's first message says, as over TCP.
//!
//! quinn asks for a session before it has read that message, and rustls for a configuration. So the session begins with
//! neither: it collects the ClientHello, has the entry point choose, and is rustls' from then on.

use std::any::Any;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::crypto::{
    self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, UnsupportedVersion,
};
use quinn::{ConnectionId, Side, TransportErrorCode};
use quinn_proto::TransportError;
use quinn_proto::transport_parameters::TransportParameters;
use rustls::quic::{KeyChange, Secrets, ServerConnection, Suite, Version};
use rustls::server::{Accepted, Acceptor};
use rustls::{CipherSuite, ServerConfig};
use rustls_pki_types::CertificateDer;
use tokio::time::Instant;

use crate::entrypoint::Entry;
use crate::snapshot::Snapshot;
use crate::tls::{TlsProfile, algorithms, config_for_suites};

/// The only version that is spoken: RFC 9000.
pub(super) const VERSION: u32 = 1;
/// RFC 9114 section 3.1.
const ALPN: &[u8] = b"h3";
/// The largest fragment of a record, in which rustls wants its first message: RFC 8446 section 5.1.
const FRAGMENT: usize = 1 << 14;
/// TLS alerts: RFC 8446 section 6, RFC 6066 section 3.
const UNRECOGNIZED_NAME: u8 = 112;
const INTERNAL_ERROR: u8 = 80;

/// What is the same for every connection: keys that anybody can derive.
pub(super) struct Common {
    packets: Arc<QuicServerConfig>,
    suite: Suite,
}

impl Common {
    pub(super) fn new() -> io::Result<Self> {
        let provider = algorithms::provider();
        let suite = provider.cipher_suites.iter().find_map(|suite| {
            (suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256).then(|| suite.tls13()?.quic_suite())?
        });
        let suite = suite.ok_or_else(|| io::Error::other("no cipher suite for QUIC"))?;
        let config = Arc::clone(&TlsProfile::for_nobody().config);
        let packets = QuicServerConfig::with_initial(config, suite).map_err(io::Error::other)?;
        Ok(Self { packets: Arc::new(packets), suite })
    }
}

/// For the endpoint, which never starts a session with it: each connection has an [`Offer`] of its own.
pub(super) fn without_sessions(common: &Common) -> Arc<dyn crypto::ServerConfig> {
    Arc::clone(&common.packets) as _
}

/// What one client is to be offered.
pub(super) struct Offer {
    pub(super) common: Arc<Common>,
    pub(super) entry: Arc<Entry>,
    pub(super) client: SocketAddr,
    /// The address that it has sent to.
    pub(super) local: IpAddr,
    /// Taken out when the choice is made.
    pub(super) snapshot: Mutex<Option<Arc<Snapshot>>>,
}

impl Offer {
    /// `None`: nothing to show this client.
    fn choose(&self, hello: &Accepted) -> Option<(Arc<TlsProfile>, ServerConfig)> {
        let snapshot = self.snapshot.lock().take()?;
        let hello = hello.client_hello();
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let profile = Arc::clone(snapshot.entry_points[self.entry.index].profile(name.as_deref())?);
        let config = match profile.depends_on_hello() {
            true => profile.config_for(name.as_deref(), self.local)?,
            false => Arc::clone(&profile.config),
        };
        let mut config = ServerConfig::clone(&config_for_suites(config, hello.cipher_suites()));
        config.alpn_protocols = vec![ALPN.to_vec()];
        Some((profile, config))
    }
}

impl crypto::ServerConfig for Offer {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.common.packets.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.common.packets.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, _: u32, params: &TransportParameters) -> Box<dyn crypto::Session> {
        let mut parameters = Vec::new();
        params.write(&mut parameters);
        let stage = Stage::Hello { acceptor: Acceptor::default(), read: Vec::new() };
        Box::new(Session { offer: self, parameters, stage })
    }
}

/// What a handshake has settled, beside the certificates.
pub(super) struct Settled {
    pub(super) profile: Arc<TlsProfile>,
    pub(super) suite: Option<CipherSuite>,
}

struct Session {
    offer: Arc<Offer>,
    /// Of this server, as they are sent.
    parameters: Vec<u8>,
    stage: Stage,
}

enum Stage {
    Hello { acceptor: Acceptor, read: Vec<u8> },
    Chosen(Box<Chosen>),
}

struct Chosen {
    tls: ServerConnection,
    profile: Arc<TlsProfile>,
    next: Option<Secrets>,
}

impl Session {
    fn chosen(&self) -> Option<&Chosen> {
        match &self.stage {
            Stage::Chosen(chosen) => Some(chosen),
            Stage::Hello { .. } => None,
        }
    }

    /// Reads on with the client's first message; true once it is complete.
    fn hello(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        let Stage::Hello { acceptor, read } = &mut self.stage else { return Ok(false) };
        read.extend_from_slice(bytes);
        for fragment in bytes.chunks(FRAGMENT) {
            // In a record, as over TCP: handshake, version 1.0, length.
            let [high, low] = (fragment.len() as u16).to_be_bytes();
            let record = [&[22, 3, 1, high, low][..], fragment].concat();
            let mut rest = &record[..];
            while !rest.is_empty() {
                if acceptor.read_tls(&mut rest).is_err() {
                    return Err(alert(INTERNAL_ERROR));
                }
            }
        }
        let hello = match acceptor.accept() {
            Ok(Some(hello)) => hello,
            Ok(None) => return Ok(false),
            Err((_, mut told)) => {
                let mut record = Vec::new();
                let _ = told.write(&mut record);
                // Of an alert the last byte says which.
                return Err(alert(record.last().copied().unwrap_or(INTERNAL_ERROR)));
            }
        };
        let (profile, config) = self.offer.choose(&hello).ok_or_else(|| alert(UNRECOGNIZED_NAME))?;
        // Options for TLS 1.2 alone have nothing for QUIC.
        let tls = ServerConnection::new(config.into(), Version::V1, std::mem::take(&mut self.parameters))
            .map_err(|_| alert(u8::from(rustls::AlertDescription::ProtocolVersion)))?;
        let read = std::mem::take(read);
        self.stage = Stage::Chosen(Box::new(Chosen { tls, profile, next: None }));
        self.handshake(&read)?;
        Ok(true)
    }

    fn handshake(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        let Stage::Chosen(chosen) = &mut self.stage else { return Ok(()) };
        chosen.tls.read_hs(bytes).map_err(|error| {
            let told = chosen.tls.alert().map_or(INTERNAL_ERROR, u8::from);
            let (entry, client) = (&self.offer.entry.config.name, self.offer.client);
            chosen.profile.report(&io::Error::other(error), entry, client, Instant::now().into_std());
            alert(told)
        })
    }
}

/// RFC 9001 section 4.8. What exactly is wrong is for the log.
fn alert(description: u8) -> TransportError {
    TransportError { code: TransportErrorCode::crypto(description), frame: None, reason: String::new() }
}

impl crypto::Session for Session {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        let side = match side {
            Side::Client => rustls::Side::Client,
            Side::Server => rustls::Side::Server,
        };
        let keys = self.offer.common.suite.keys(dst_cid, side, Version::V1);
        shown(keys)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let Chosen { tls, profile, .. } = self.chosen()?;
        let suite = tls.negotiated_cipher_suite().map(|suite| suite.suite());
        Some(Box::new(Settled { profile: Arc::clone(profile), suite }))
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        let chain: Vec<CertificateDer<'static>> = self.chosen()?.tls.peer_certificates()?.to_vec();
        Some(Box::new(chain))
    }

    /// There is no early data: it can be replayed, see [`TlsProfile`].
    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        self.chosen().is_none_or(|chosen| chosen.tls.is_handshaking())
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        match self.stage {
            Stage::Hello { .. } => self.hello(buf),
            Stage::Chosen(_) => self.handshake(buf).map(|()| false),
        }
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let Some(sent) = self.chosen().and_then(|chosen| chosen.tls.quic_transport_parameters()) else {
            return Ok(None);
        };
        // Named for whom they are read by.
        TransportParameters::read(Side::Server, &mut io::Cursor::new(sent)).map(Some).map_err(Into::into)
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let Stage::Chosen(chosen) = &mut self.stage else { return None };
        let keys = match chosen.tls.write_hs(buf)? {
            KeyChange::Handshake { keys } => keys,
            KeyChange::OneRtt { keys, next } => {
                chosen.next = Some(next);
                keys
            }
        };
        Some(shown(keys))
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let Stage::Chosen(chosen) = &mut self.stage else { return None };
        let keys = chosen.next.as_mut()?.next_packet_keys();
        Some(KeyPair { local: Box::new(keys.local), remote: Box::new(keys.remote) })
    }

    /// Only clients get them.
    fn is_valid_retry(&self, _: &ConnectionId, _: &[u8], _: &[u8]) -> bool {
        false
    }

    /// Nobody asks for it.
    fn export_keying_material(
        &self,
        _: &mut [u8],
        _: &[u8],
        _: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        Err(ExportKeyingMaterialError)
    }
}

/// The keys of rustls as quinn has them.
fn shown(keys: rustls::quic::Keys) -> Keys {
    Keys {
        header: KeyPair { local: Box::new(keys.local.header), remote: Box::new(keys.remote.header) },
        packet: KeyPair { local: Box::new(keys.local.packet), remote: Box::new(keys.remote.packet) },
    }
}
