//! Session tickets: one set of keys for the process.
//!
//! All workers, entry points and reloads share the keys, so a client resumes wherever its next connection lands.
//! That alone would let a session opened under options without client certificates continue under options that
//! demand one (the flaw of CVE-2025-23419), since a resumed handshake asks for no certificate. Hence each ticket
//! carries the class of the options it was issued under and is good for that class only. rustls binds it to the
//! server name as well. Keys are made anew every six hours and forgotten after twelve.

use std::sync::{Arc, LazyLock};

use rustls::server::ProducesTickets;

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

/// `None` if the system has no random numbers for the keys: every handshake is a full one then.
pub(super) fn ticketer(class: Class) -> Option<Arc<dyn ProducesTickets>> {
    static KEYS: LazyLock<Option<Arc<dyn ProducesTickets>>> =
        LazyLock::new(|| rustls::crypto::aws_lc_rs::Ticketer::new().ok());
    let keys = Arc::clone(KEYS.as_ref()?);
    Some(Arc::new(Ticketer { keys, class }))
}

#[derive(Debug)]
struct Ticketer {
    keys: Arc<dyn ProducesTickets>,
    class: Class,
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.keys.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut state = Vec::with_capacity(plain.len() + 1);
        state.extend_from_slice(plain);
        state.push(self.class as u8);
        self.keys.encrypt(&state)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let mut state = self.keys.decrypt(cipher)?;
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
            let ticket = ticketer(issued).unwrap().encrypt(b"state").unwrap();
            for used in classes {
                let state = ticketer(used).unwrap().decrypt(&ticket);
                assert_eq!(
                    state.as_deref(),
                    (issued == used).then_some(&b"state"[..]),
                    "{issued:?} at {used:?}"
                );
            }
        }
        assert_eq!(ticketer(Class::Anonymous).unwrap().decrypt(b""), None);
    }
}
