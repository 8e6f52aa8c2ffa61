//! `basicAuth`: RFC 7617 against htpasswd users.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lb_config::dynamic as config;
use md5::{Digest, Md5};
use parking_lot::Mutex;
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use super::{Build, Middleware, Step};
use crate::exchange::Exchange;
use crate::http::forwarded::reads_as;
use crate::http::local::Local;

/// Checked against where there are no users.
const DUMMY: &str = "$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";

/// So many checks wait for their turn, each for perhaps 50 ms of those before it. Chosen.
const MOST_WAITING: usize = 64;

pub(crate) struct BasicAuth {
    options: config::BasicAuth,
    users: Arc<Users>,
    challenge: String,
}

/// The users, and who has already proven to be one.
struct Users {
    hashes: std::collections::BTreeMap<String, String>,
    /// A digest of the last password that each user was let in with, under a key of this process: a
    /// bcrypt check costs tens of milliseconds, and API clients send the same password every time.
    proven: Mutex<HashMap<String, [u8; 32]>>,
    salt: [u8; 16],
}

/// Turns to check a password, of all middlewares together: whoever guesses passwords takes no more than half the
/// processors from those who are served.
struct Turns {
    running: Semaphore,
    /// Those that run or wait.
    entered: Semaphore,
}

static TURNS: LazyLock<Turns> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let most = processors.div_ceil(2);
    Turns { running: Semaphore::new(most), entered: Semaphore::new(most + MOST_WAITING) }
});

/// What a [`Check`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    Right,
    Wrong,
    /// Not looked at: too many others wait.
    Busy,
}

/// One password to be checked.
pub(crate) struct Check {
    users: Arc<Users>,
    user: String,
    password: Vec<u8>,
}

impl BasicAuth {
    pub(crate) fn new(options: &config::BasicAuth, build: &Build<'_>) -> Self {
        let users = match build.previous {
            Some(Middleware::BasicAuth(before)) if before.options == *options => Arc::clone(&before.users),
            _ => Arc::new(Users {
                hashes: options.users.clone(),
                proven: Mutex::default(),
                salt: fastrand::u128(..).to_le_bytes(),
            }),
        };
        let realm = options.realm.replace('\\', "\\\\").replace('"', "\\\"");
        Self { users, challenge: format!("Basic realm=\"{realm}\""), options: options.clone() }
    }

    pub(crate) fn on_request(&self, x: &mut Exchange) -> Step {
        let Some((user, password)) = x.head.get("authorization").and_then(credentials) else {
            return self.refuse();
        };
        x.user = Some(user.clone());
        let check = Check { users: Arc::clone(&self.users), user, password };
        if check.is_proven() { self.let_in(x, &check.user) } else { Step::Check(Box::new(check)) }
    }

    pub(crate) fn on_checked(&self, x: &mut Exchange, check: &Check, checked: Checked) -> Step {
        match checked {
            Checked::Right => self.let_in(x, &check.user),
            Checked::Wrong => self.refuse(),
            Checked::Busy => Step::Respond(Local::status_text(503).with("Retry-After", "1")),
        }
    }

    fn let_in(&self, x: &mut Exchange, user: &str) -> Step {
        let_in(x, user, self.options.header_field.as_deref(), self.options.remove_header)
    }

    fn refuse(&self) -> Step {
        refuse(self.challenge.clone())
    }
}

/// The request goes on, with the name of its user and without its credentials where that is wanted.
pub(super) fn let_in(x: &mut Exchange, user: &str, header_field: Option<&str>, remove_header: bool) -> Step {
    if let Some(field) = header_field {
        // Nor may the client name another user in a spelling that the server takes for the same field.
        x.head.retain(|name, _| !reads_as(name.as_bytes(), field.as_bytes()));
        x.head.set(field, user.as_bytes());
    }
    if remove_header {
        x.head.remove("authorization");
    }
    Step::Next
}

/// RFC 9110 section 11.6.1.
pub(super) fn refuse(challenge: String) -> Step {
    Step::Respond(
        Local::bare(401)
            .with("Www-Authenticate", challenge)
            .with("Content-Type", "text/plain")
            .body(&b"401 Unauthorized\n"[..]),
    )
}

/// RFC 7617 section 2: the user ends at the first colon.
fn credentials(header: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, token) = header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut user = STANDARD.decode(token.trim_ascii()).ok()?;
    let colon = user.iter().position(|b| *b == b':')?;
    let password = user.split_off(colon + 1);
    user.pop();
    let user = String::from_utf8(user).ok()?;
    // It may become a header for the server: nothing in it may end a line.
    (!user.chars().any(char::is_control)).then_some((user, password))
}

impl Users {
    /// The user's hash; for anybody else that of one of the users, always the same one, so that the time tells nothing.
    fn hash_for(&self, user: &str) -> &str {
        if let Some(hash) = self.hashes.get(user) {
            return hash;
        }
        let digest = Sha256::new().chain_update(self.salt).chain_update(user).finalize();
        let number = digest.iter().take(4).fold(0, |number, byte| number << 8 | usize::from(*byte));
        self.hashes.values().nth(number % self.hashes.len().max(1)).map_or(DUMMY, String::as_str)
    }
}

impl Check {
    /// Runs the check where it blocks nobody.
    pub(crate) async fn run(self: Box<Self>) -> (Box<Self>, Checked) {
        let Ok(_entered) = TURNS.entered.try_acquire() else { return (self, Checked::Busy) };
        let Ok(turn) = TURNS.running.acquire().await else { return (self, Checked::Busy) };
        let users = Arc::clone(&self.users);
        let (user, password) = (self.user.clone(), self.password.clone());
        let passed = tokio::task::spawn_blocking(move || {
            // Kept to its end, which a client that leaves does not hasten.
            let _turn = turn;
            let matches = verify(&password, users.hash_for(&user));
            matches && users.hashes.contains_key(&user)
        })
        .await
        .unwrap_or(false);
        if !passed {
            return (self, Checked::Wrong);
        }
        self.users.proven.lock().insert(self.user.clone(), self.digest());
        (self, Checked::Right)
    }

    fn is_proven(&self) -> bool {
        let proven = self.users.proven.lock();
        proven.get(&self.user).is_some_and(|digest| digest.ct_eq(&self.digest()).into())
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::new().chain_update(self.users.salt).chain_update(&self.password).finalize().into()
    }
}

/// htpasswd's formats: bcrypt, `{SHA}`, and MD5-crypt for everything else.
fn verify(password: &[u8], hash: &str) -> bool {
    if hash.starts_with("$2") {
        // `$2x$` and `$2b$` compute the same for passwords of our time.
        let hash = hash.replacen("$2x$", "$2b$", 1);
        return bcrypt::verify(password, &hash).unwrap_or(false);
    }
    let computed = match hash.strip_prefix("{SHA}") {
        Some(_) => format!("{{SHA}}{}", STANDARD.encode(Sha1::digest(password))),
        None => {
            let mut parts = hash.split('$').skip(1);
            match (parts.next(), parts.next()) {
                (Some(magic @ ("apr1" | "1")), Some(salt)) => md5_crypt(password, magic, salt),
                _ => return false,
            }
        }
    };
    computed.as_bytes().ct_eq(hash.as_bytes()).into()
}

/// Poul-Henning Kamp's MD5-based crypt(3), with Apache's magic as well.
fn md5_crypt(password: &[u8], magic: &str, salt: &str) -> String {
    // A longer one is cut; one whose eighth byte is in the middle of a character is nobody's.
    let salt = salt.get(..8).unwrap_or(salt);
    let inner: [u8; 16] =
        Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize().into();
    let mut first = Md5::new();
    first.update(password);
    first.update(format!("${magic}${salt}"));
    for taken in (0..password.len()).step_by(16) {
        first.update(&inner[..(password.len() - taken).min(16)]);
    }
    let mut length = password.len();
    while length > 0 {
        if length & 1 == 1 {
            first.update([0]);
        } else {
            first.update(&password[..1]);
        }
        length >>= 1;
    }
    let mut digest: [u8; 16] = first.finalize().into();
    for round in 0..1000 {
        let mut next = Md5::new();
        if round & 1 == 1 {
            next.update(password)
        } else {
            next.update(digest)
        }
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        if round & 1 == 1 {
            next.update(digest)
        } else {
            next.update(password)
        }
        digest = next.finalize().into();
    }
    let mut text = format!("${magic}${salt}$");
    let mut encode = |mut value: u32, characters: usize| {
        const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        for _ in 0..characters {
            text.push(ALPHABET[(value & 63) as usize] as char);
            value >>= 6;
        }
    };
    for [a, b, c] in [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]] {
        encode(u32::from(digest[a]) << 16 | u32::from(digest[b]) << 8 | u32::from(digest[c]), 4);
    }
    encode(u32::from(digest[11]), 2);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl passwd -apr1 -salt 12345678 secret`, `openssl passwd -1 …`, `htpasswd -nbs`.
    #[test]
    fn every_htpasswd_format_verifies() {
        let hashes = [
            "$apr1$12345678$0lqb/6VUFP8JY/s/jTrIk0",
            "$1$12345678$hj0uLpdidjPhbMMZeno8X/",
            "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
        ];
        for hash in hashes {
            assert!(verify(b"secret", hash), "{hash}");
            assert!(!verify(b"Secret", hash), "{hash}");
        }
        let hash = bcrypt::hash("secret", 4).unwrap();
        assert!(verify(b"secret", &hash) && !verify(b"other", &hash));
        assert!(!verify(b"secret", "secret"), "plain text never matches");
        assert!(
            !verify(b"secret", "$apr1$1234567€$0lqb/6VUFP8JY/s/jTrIk0"),
            "what is in a file ends no process"
        );
    }

    #[test]
    fn credentials_end_the_user_at_the_first_colon() {
        let header = format!("Basic {}", STANDARD.encode("user:pa:ss"));
        assert_eq!(credentials(header.as_bytes()), Some(("user".to_owned(), b"pa:ss".to_vec())));
        assert_eq!(credentials(b"Basic !!"), None);
        assert_eq!(credentials(b"Bearer abc"), None);
    }

    fn users(hashes: &[(&str, &str)]) -> Arc<Users> {
        let hashes = hashes.iter().map(|(user, hash)| (user.to_string(), hash.to_string())).collect();
        Arc::new(Users { hashes, proven: Mutex::default(), salt: [7; 16] })
    }

    /// A hash of another kind would take another time and so tell that there is no such user.
    #[test]
    fn an_unknown_user_is_checked_like_one_of_the_known() {
        let known =
            [("a", "$apr1$12345678$0lqb/6VUFP8JY/s/jTrIk0"), ("b", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=")];
        let users = users(&known);
        let strangers: Vec<_> = (0..100).map(|number| users.hash_for(&format!("user{number}"))).collect();
        for (user, hash) in known {
            assert_eq!(users.hash_for(user), hash);
            assert!(strangers.contains(&hash), "{hash}");
        }
        assert!(strangers.iter().all(|hash| known.iter().any(|(_, known)| known == hash)));
        assert_eq!(users.hash_for("user1"), users.hash_for("user1"));
        assert_eq!(self::users(&[]).hash_for("a"), DUMMY);
    }

    #[tokio::test]
    async fn a_flood_of_passwords_takes_turns_and_is_bounded() {
        let users = users(&[("a", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=")]);
        let check = |password: &str| {
            let password = password.as_bytes().to_vec();
            Box::new(Check { users: Arc::clone(&users), user: "a".to_owned(), password })
        };
        let most = TURNS.running.available_permits();
        // As if passwords that take long were being checked.
        let others = TURNS.running.acquire_many(most as u32).await.unwrap();
        let room = TURNS.entered.available_permits();
        let waiting: Vec<_> = (0..room).map(|_| tokio::spawn(check("other").run())).collect();
        while TURNS.entered.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(check("secret").run().await.1, Checked::Busy);
        assert!(waiting.iter().all(|check| !check.is_finished()));
        drop(others);
        for check in waiting {
            assert_eq!(check.await.unwrap().1, Checked::Wrong);
        }
        assert_eq!(check("secret").run().await.1, Checked::Right);
        assert!(check("secret").is_proven());
        assert_eq!(TURNS.running.available_permits(), most);
    }
}
