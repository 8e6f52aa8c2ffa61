//! Keys of session tickets, renewed as they age. They can be handed to the process that follows this one, so that
//! its clients go on resuming; hence keys of our own, since those of rustls stay inside.
//!
//! A ticket is the key's name, a random nonce, and the state sealed with AES-256-GCM.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use parking_lot::RwLock;
use tokio::time::Instant;

/// Tickets are sealed with a key for so long, and opened for twice as long (as rustls has it).
const RENEWED_AFTER: Duration = Duration::from_secs(6 * 60 * 60);
const FORGOTTEN_AFTER: Duration = RENEWED_AFTER.saturating_mul(2);
const NAME_LEN: usize = 16;
const SECRET_LEN: usize = 32;

/// One key, for another process: secret.
#[derive(Clone)]
pub struct TicketKey {
    pub name: [u8; NAME_LEN],
    pub secret: [u8; SECRET_LEN],
    pub age: Duration,
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey").field("age", &self.age).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
pub(super) struct TicketKeys {
    /// The newest first.
    keys: RwLock<Vec<Key>>,
}

#[derive(Debug)]
struct Key {
    shared: TicketKey,
    /// When it was `shared.age` old.
    since: Instant,
    cipher: RandomizedNonceKey,
}

impl Key {
    fn random() -> Option<Self> {
        let (mut name, mut secret) = ([0; NAME_LEN], [0; SECRET_LEN]);
        aws_lc_rs::rand::fill(&mut name).ok()?;
        aws_lc_rs::rand::fill(&mut secret).ok()?;
        Self::new(TicketKey { name, secret, age: Duration::ZERO })
    }

    fn new(shared: TicketKey) -> Option<Self> {
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &shared.secret).ok()?;
        Some(Self { shared, since: Instant::now(), cipher })
    }

    fn age(&self) -> Duration {
        self.shared.age + self.since.elapsed()
    }

    fn seal(&self, mut state: Vec<u8>) -> Option<Vec<u8>> {
        let nonce = self.cipher.seal_in_place_append_tag(Aad::from(self.shared.name), &mut state).ok()?;
        Some([&self.shared.name[..], nonce.as_ref(), &state].concat())
    }
}

impl TicketKeys {
    /// `None` if the system has no random numbers.
    pub(super) fn seal(&self, state: Vec<u8>) -> Option<Vec<u8>> {
        let keys = self.keys.read();
        if let Some(newest) = keys.first().filter(|newest| newest.age() < RENEWED_AFTER) {
            return newest.seal(state);
        }
        drop(keys);
        let mut keys = self.keys.write();
        // Another worker may have been here meanwhile.
        if keys.first().is_none_or(|newest| newest.age() >= RENEWED_AFTER) {
            keys.insert(0, Key::random()?);
            keys.retain(|key| key.age() < FORGOTTEN_AFTER);
        }
        keys.first()?.seal(state)
    }

    /// `None` for whatever is no ticket of these keys.
    pub(super) fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_LEN)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let keys = self.keys.read();
        let key = keys.iter().find(|key| key.shared.name == name && key.age() < FORGOTTEN_AFTER)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut state = sealed.to_vec();
        let length = key.cipher.open_in_place(nonce, Aad::from(key.shared.name), &mut state).ok()?.len();
        state.truncate(length);
        Some(state)
    }

    pub(super) fn share(&self) -> Vec<TicketKey> {
        let keys = self.keys.read();
        keys.iter().map(|key| TicketKey { age: key.age(), ..key.shared.clone() }).collect()
    }

    /// Goes on with the keys of another process.
    pub(super) fn take_over(&self, shared: Vec<TicketKey>) {
        let keys = shared.into_iter().filter_map(Key::new);
        *self.keys.write() = keys.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn keys_are_renewed_and_forgotten() {
        let keys = TicketKeys::default();
        let ticket = keys.seal(b"state".to_vec()).unwrap();
        let hour = Duration::from_secs(60 * 60);
        for (hours, known, good) in [(5, 1, true), (2, 2, true), (4, 2, true), (2, 2, false)] {
            tokio::time::advance(hours * hour).await;
            keys.seal(b"other".to_vec()).unwrap();
            assert_eq!(keys.share().len(), known);
            assert_eq!(keys.open(&ticket).is_some(), good);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_process_opens_what_was_sealed_before() {
        let (old, new) = (TicketKeys::default(), TicketKeys::default());
        let ticket = old.seal(b"state".to_vec()).unwrap();
        assert_eq!(new.open(&ticket), None);
        tokio::time::advance(RENEWED_AFTER).await;
        new.take_over(old.share());
        assert_eq!(new.open(&ticket).as_deref(), Some(&b"state"[..]));
        assert!(!format!("{:?}", old.share()).contains("secret"));
        tokio::time::advance(RENEWED_AFTER).await;
        assert_eq!(new.open(&ticket), None, "ages go along");
    }

    #[test]
    fn what_was_changed_is_no_ticket() {
        let keys = TicketKeys::default();
        let ticket = keys.seal(b"state".to_vec()).unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(keys.open(&changed), None, "byte {at}");
            assert_eq!(keys.open(&ticket[..at]), None, "{at} bytes");
        }
    }
}
