//! Asks name servers: one exchange with one of them, and what follows from several.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_config::read_string;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{self, Answer, Data, NO_ERROR, NO_NAME};

/// For one name server to answer: lego's, as is the number of aliases.
const PATIENCE: Duration = Duration::from_secs(10);
const ALIASES: usize = 50;
/// How often a question is sent over UDP: datagrams get lost. Chosen.
const SENDS: u32 = 3;
/// Name servers of one zone that are looked at; more than any zone has. Chosen.
const NAME_SERVERS: usize = 16;
const PORT: u16 = 53;

/// Why a name server's answer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DnsError {
    #[error("{0:?} is no name that can be asked for")]
    Name(String),
    #[error("no answer from the name server {0}: {1}")]
    Io(String, String),
    #[error("no answer from the name server {0} within {1:?}")]
    Late(String, Duration),
    #[error("the name server {0} answers {1}")]
    Code(String, String),
    #[error("no zone is found that {0} is in")]
    NoZone(String),
}

/// An answer with its bytes, which may be signed.
pub(super) struct Heard {
    pub(super) bytes: Vec<u8>,
    pub(super) answer: Answer,
}

/// An id that nobody guesses.
pub(super) fn id() -> u16 {
    let mut id = [0; 2];
    // Without randomness there is no TLS either; the port is random, too.
    let _ = aws_lc_rs::rand::fill(&mut id);
    u16::from_be_bytes(id)
}

/// Sends a message over UDP, and over TCP where the answer is too long for that (RFC 1035 section 4.2).
pub(super) async fn exchange(server: SocketAddr, message: &[u8], limit: Duration) -> Result<Heard, DnsError> {
    let failed = |error: std::io::Error| DnsError::Io(server.to_string(), error.to_string());
    let late = |_| DnsError::Late(server.to_string(), limit);
    let heard =
        timeout(limit, datagram(server, message, limit / SENDS)).await.map_err(late)?.map_err(failed)?;
    if !heard.answer.is_truncated {
        return Ok(heard);
    }
    timeout(limit, stream(server, message)).await.map_err(late)?.map_err(failed)
}

async fn datagram(server: SocketAddr, message: &[u8], again: Duration) -> std::io::Result<Heard> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // From now on the kernel drops what others send.
    socket.connect(server).await?;
    let mut bytes = vec![0; usize::from(u16::MAX)];
    loop {
        socket.send(message).await?;
        let answered = async {
            loop {
                let length = socket.recv(&mut bytes).await?;
                if let Some(answer) = answer_to(message, &bytes[..length]) {
                    return Ok(Heard { bytes: bytes[..length].to_vec(), answer });
                }
            }
        };
        match timeout(again, answered).await {
            Ok(heard) => return heard,
            Err(_) => tracing::debug!(%server, "A name server is asked again"),
        }
    }
}

async fn stream(server: SocketAddr, message: &[u8]) -> std::io::Result<Heard> {
    let length = u16::try_from(message.len()).map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await?;
    let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut bytes).await?;
    let answer = answer_to(message, &bytes).filter(|answer| !answer.is_truncated);
    let answer = answer.ok_or(std::io::ErrorKind::InvalidData)?;
    Ok(Heard { bytes, answer })
}

/// What is no answer to this message is not looked at: somebody else may have sent it.
fn answer_to(asked: &[u8], bytes: &[u8]) -> Option<Answer> {
    let answer = message::answer(bytes)?;
    let same_id = asked.get(..2) == Some(answer.id.to_be_bytes().as_slice());
    let same_question = answer.question.as_ref().is_none_or(|(name, kind)| {
        let mut question = Vec::new();
        // A name server may spell it in its own case.
        message::put_name(&mut question, name).is_some_and(|()| {
            question.extend(kind.to_be_bytes());
            let asked = asked.get(message::HEADER..).unwrap_or_default();
            asked.get(..question.len()).is_some_and(|asked| asked.eq_ignore_ascii_case(&question))
        })
    });
    (same_id && same_question).then_some(answer)
}

/// Asks one name server itself; an answer that the name does not exist is one.
pub(super) async fn ask(
    server: SocketAddr,
    name: &str,
    kind: u16,
    recursive: bool,
    limit: Duration,
) -> Result<Answer, DnsError> {
    let question = message::question(id(), name, kind, recursive);
    let question = question.ok_or_else(|| DnsError::Name(name.to_owned()))?;
    let answer = exchange(server, &question, limit).await?.answer;
    match answer.code {
        NO_ERROR | NO_NAME => Ok(answer),
        code => Err(DnsError::Code(server.to_string(), message::code(code))),
    }
}

/// The zone that `name` is in, as one name server sees it.
pub(super) async fn zone_at(server: SocketAddr, name: &str, limit: Duration) -> Result<String, DnsError> {
    for zone in suffixes(name) {
        if is_zone(&ask(server, zone, message::SOA, true, limit).await?, zone) {
            return Ok(zone.to_owned());
        }
    }
    Err(DnsError::NoZone(name.to_owned()))
}

fn is_zone(answer: &Answer, zone: &str) -> bool {
    answer.records.iter().any(|record| record.data == Data::Authority && record.name == zone)
}

/// The name and all above it but the root: `a.b.`, `b.`.
pub(super) fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, parent)| parent))
        .filter(|name| !name.is_empty())
}

/// Asks recursive name servers, each in turn until one answers.
#[derive(Clone, Debug)]
pub(super) struct Recursive {
    servers: Vec<(String, u16)>,
    /// Where authoritative name servers listen; another one in tests.
    pub(super) port: u16,
    pub(super) limit: Duration,
}

impl Recursive {
    /// Without servers those of the system, read anew.
    pub(super) fn new(servers: &[(String, u16)]) -> Self {
        let mut servers = servers.to_vec();
        if servers.is_empty() {
            let text = read_string("/etc/resolv.conf".as_ref()).unwrap_or_default();
            servers = system(&text);
        }
        Self { servers, port: PORT, limit: PATIENCE }
    }

    /// The name servers of the text of a `resolv.conf`.
    pub(super) fn system(text: &str, limit: Duration) -> Self {
        Self { servers: system(text), port: PORT, limit }
    }

    #[cfg(test)]
    pub(super) fn of(server: SocketAddr) -> Self {
        let servers = vec![(server.ip().to_string(), server.port())];
        Self { servers, port: PORT, limit: Duration::from_secs(5) }
    }

    pub(super) async fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        for (host, port) in &self.servers {
            match tokio::net::lookup_host((host.as_str(), *port)).await {
                Ok(found) => addresses.extend(found.take(1)),
                Err(error) => tracing::debug!(host, %error, "A name server has no address"),
            }
        }
        addresses
    }

    async fn ask(&self, name: &str, kind: u16) -> Result<Answer, DnsError> {
        let mut failed = DnsError::Io("(none)".to_owned(), "there is none to ask".to_owned());
        for server in self.addresses().await {
            match ask(server, name, kind, true, self.limit).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Where the aliases of `name` lead to: the record may be kept in another zone.
    pub(super) async fn follow(&self, name: &str) -> String {
        let mut name = name.to_owned();
        for _ in 0..ALIASES {
            match self.alias(&name).await {
                Ok(Some((target, _))) => name = target,
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(name, %error, "Whether the name is an alias cannot be found out");
                    break;
                }
            }
        }
        name
    }

    /// What `name`, which ends in a dot, is an alias of, and for how many seconds.
    pub(super) async fn alias(&self, name: &str) -> Result<Option<(String, u32)>, DnsError> {
        let records = self.ask(name, message::CNAME).await?.records;
        Ok(records.into_iter().find_map(|record| match record.data {
            Data::Alias(target) if record.name.eq_ignore_ascii_case(name) && target != name => {
                Some((target, record.ttl))
            }
            _ => None,
        }))
    }

    /// The authoritative name servers of the zone that `name` is in, by name and addresses.
    pub(super) async fn authorities(&self, name: &str) -> Result<Vec<(String, Vec<SocketAddr>)>, DnsError> {
        let zone = self.zone(name).await?;
        let answer = self.ask(&zone, message::NS).await?;
        let hosts = answer.records.into_iter().filter_map(|record| match record.data {
            Data::NameServer(host) => Some(host),
            _ => None,
        });
        let mut found = Vec::new();
        for host in hosts.take(NAME_SERVERS) {
            let mut addresses = Vec::new();
            for kind in [message::A, message::AAAA] {
                let answer = self.ask(&host, kind).await?;
                addresses.extend(answer.records.into_iter().filter_map(|record| match record.data {
                    Data::Address(ip) => Some(SocketAddr::new(ip, self.port)),
                    _ => None,
                }));
            }
            found.push((host, addresses));
        }
        if found.is_empty() { Err(DnsError::NoZone(name.to_owned())) } else { Ok(found) }
    }

    async fn zone(&self, name: &str) -> Result<String, DnsError> {
        for zone in suffixes(name) {
            if is_zone(&self.ask(zone, message::SOA).await?, zone) {
                return Ok(zone.to_owned());
            }
        }
        Err(DnsError::NoZone(name.to_owned()))
    }
}

/// The name servers of a `resolv.conf`; without any it is the machine itself (resolv.conf(5)).
fn system(text: &str) -> Vec<(String, u16)> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        Some((address.to_owned(), PORT))
    });
    let servers: Vec<_> = servers.collect();
    if servers.is_empty() { vec![("127.0.0.1".to_owned(), PORT)] } else { servers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_name_servers_are_those_of_resolv_conf() {
        let servers = |text: &str| system(text).into_iter().map(|(host, _)| host).collect::<Vec<_>>();
        assert_eq!(
            servers("# x\nsearch a.test\nnameserver 192.0.2.1\n nameserver ::1 # y\n"),
            ["192.0.2.1", "::1"]
        );
        assert_eq!(servers(""), ["127.0.0.1"]);
    }

    #[test]
    fn zones_are_looked_for_from_the_name_up() {
        assert_eq!(suffixes("_a.b.test.").collect::<Vec<_>>(), ["_a.b.test.", "b.test.", "test."]);
        assert_eq!(suffixes("").count(), 0);
    }
}
