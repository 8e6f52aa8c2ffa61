//! What the two processes say to each other: JSON behind its length, and descriptors.
//!
//! Versions differ between the two. Keys that one does not know it skips; what changes the meaning of the others
//! changes [`PROTOCOL`].

use std::collections::BTreeSet;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(super) const PROTOCOL: u32 = 1;
/// Descriptors in one message; Linux takes at most 253 (`SCM_MAX_FD`).
const BATCH: usize = 64;

/// First words of the running process. The descriptors follow: its standard error, then the sockets in this order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Offer {
    pub(super) protocol: u32,
    pub(super) sockets: Vec<Offered>,
    /// Behind them, two descriptors each: port and pipe.
    #[serde(default)]
    pub(super) datagrams: Vec<OfferedDatagrams>,
    /// Objects of the dynamic configuration that the running process does not serve either.
    pub(super) spoilt: BTreeSet<String>,
    pub(super) upgrades: u64,
    pub(super) upgrade_failures: u64,
    /// What the provider `rest` was sent so far: others may refer to it.
    #[serde(default)]
    pub(super) rest: Option<String>,
}

/// See [`lb_proxy::Inherited`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Offered {
    pub(super) entry_point: String,
    pub(super) configured: Option<SocketAddr>,
}

/// See [`lb_proxy::Datagrams`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OfferedDatagrams {
    pub(super) entry_point: String,
    pub(super) configured: SocketAddr,
    pub(super) tags: Vec<u32>,
}

/// The new process could accept connections now.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ready {
    pub(super) version: String,
}

/// It does.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Serving {}

pub(super) fn send(mut to: &UnixStream, what: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(what)?;
    let length = u32::try_from(text.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(&text)
}

pub(super) fn receive<T: DeserializeOwned>(mut from: &UnixStream) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    let mut text = Vec::new();
    from.take(length.into()).read_to_end(&mut text)?;
    if text.len() < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&text)?)
}

pub(super) fn send_descriptors(to: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    for batch in descriptors.chunks(BATCH) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(batch)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // They travel with a byte of their own.
        sendmsg(to, &[IoSlice::new(b"+")], &mut control, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

pub(super) fn receive_descriptors(from: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut received = Vec::new();
    while received.len() < count {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let bytes =
            recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
        let before = received.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                received.extend(descriptors);
            }
        }
        if bytes == 0 || received.len() == before {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn words_and_many_descriptors_arrive_in_order() {
        let (here, there) = UnixStream::pair().unwrap();
        let sockets: Vec<_> = (0..150).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        send(&here, &Ready { version: "1".to_owned() }).unwrap();
        send_descriptors(&here, &sockets.iter().map(AsFd::as_fd).collect::<Vec<_>>()).unwrap();
        send(&here, &Serving {}).unwrap();
        assert_eq!(receive::<Ready>(&there).unwrap().version, "1");
        let received = receive_descriptors(&there, sockets.len()).unwrap();
        receive::<Serving>(&there).unwrap();
        for (sent, received) in sockets.iter().zip(received) {
            assert_eq!(TcpListener::from(received).local_addr().unwrap(), sent.local_addr().unwrap());
        }
    }

    #[test]
    fn an_end_in_the_middle_is_told() {
        let (here, there) = UnixStream::pair().unwrap();
        (&here).write_all(&[0, 0, 0, 9, b'{']).unwrap();
        drop(here);
        assert_eq!(receive::<Serving>(&there).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(receive_descriptors(&there, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
