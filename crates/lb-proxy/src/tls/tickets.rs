//! Session tickets: one set of keys for the process.
//!
//! All workers, entry points and reloads share the keys, so a client resumes wherever its next connection lands.
//! That alone would let a session opened under options without client certificates continue under options that
//! demand one (the flaw of CVE-2025-23419), since a resumed handshake asks for no certificate. Hence each ticket
//! carries the class of the options it was issued under and is good for that class only. rustls binds it to the
//! server name as well. Keys are made anew every six hours, forgotten after twelve, and outlive the process in an
//! upgrade.

use std::sync::{Arc, LazyLock};

use rustls::server::ProducesTickets;

use super::ticket_keys::{TicketKey, TicketKeys};

/// Seconds that a client may keep a ticket: as long as its key is known at most.
const LIFETIME: u32 = 12 * 60 * 60;

/// Options whose sessions may be continued under each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The client is not asked for a certificate.
    Anonymous,
    /// It is asked, and may have shown anything or nothing.
    Requested,
    /// It has shown some certificate, of which nothing was verified.
    Required,
}

static KEYS: LazyLock<TicketKeys> = LazyLock::new(TicketKeys::default);

/// The keys of this process, for the one that follows it.
pub fn ticket_keys() -> Vec<TicketKey> {
    KEYS.share()
}

/// Goes on with the keys of the process before this one; to be called before there are tickets.
pub fn take_over_ticket_keys(keys: Vec<TicketKey>) {
    KEYS.take_over(keys);
}

pub(super) fn ticketer(class: Class) -> Arc<dyn ProducesTickets> {
    Arc::new(Ticketer { class })
}

#[derive(Debug)]
struct Ticketer {
    class: Class,
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut state = Vec::with_capacity(plain.len() + 1);
        state.extend_from_slice(plain);
        state.push(self.class as u8);
        KEYS.seal(state)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let mut state = KEYS.open(cipher)?;
        (state.pop()? == self.class as u8).then_some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_for_its_class_only() {
        let classes = [Class::Anonymous, Class::Requested, Class::Required];
        for issued in classes {
            let ticket = ticketer(issued).encrypt(b"state").unwrap();
            for used in classes {
                let state = ticketer(used).decrypt(&ticket);
                assert_eq!(
                    state.as_deref(),
                    (issued == used).then_some(&b"state"[..]),
                    "{issued:?} at {used:?}"
                );
            }
        }
        assert_eq!(ticketer(Class::Anonymous).decrypt(b""), None);
    }
}
