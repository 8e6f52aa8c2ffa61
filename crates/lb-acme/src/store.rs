//! The file with account, certificates and keys: Traefik's `acme.json`.
//!
//! Read anew before each change, so that what other resolvers keep in the same file, and what we do not know, stays.
//! Replaced in one step where the directory allows it; a single file that is mounted into a container can only be
//! written in place, as Traefik does.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::client::Registration;
use crate::jws::AccountKey;
use crate::order::Issued;

/// Why a file cannot be used. A file is never overwritten that was not understood.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path:?} cannot be used: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("permissions {mode:o} for {path:?} are too open, please use 600")]
    Open { path: PathBuf, mode: u32 },
    #[error("{path:?} is no acme.json: {reason}")]
    Shape { path: PathBuf, reason: String },
    /// Another process has the file now.
    #[error("this process does not write {0:?} any more")]
    Closed(PathBuf),
}

pub(crate) struct Store {
    path: PathBuf,
    /// Whether this process may write; held while it does.
    open: Mutex<bool>,
}

/// What the file keeps for one resolver.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) account: Option<Account>,
    pub(crate) certificates: Vec<Stored>,
}

pub(crate) struct Account {
    pub(crate) email: String,
    pub(crate) uri: String,
    pub(crate) key: AccountKey,
}

/// PEM, both.
#[derive(Clone)]
pub(crate) struct Stored {
    /// The main one first.
    pub(crate) names: Vec<String>,
    pub(crate) chain: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

/// Looks at the file without changing anything; one that is not there yet is fine.
///
/// # Errors
/// What would keep a resolver from working with it.
pub fn check(path: &Path) -> Result<(), StoreError> {
    match path.try_exists() {
        Ok(false) => {
            let parent = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
            if parent.is_dir() {
                return Ok(());
            }
            let source = io::Error::new(io::ErrorKind::NotFound, "its directory does not exist");
            Err(StoreError::Io { path: path.to_owned(), source })
        }
        _ => read(path).map(drop),
    }
}

fn read(path: &Path) -> Result<Map<String, Value>, StoreError> {
    let broken = |source| StoreError::Io { path: path.to_owned(), source };
    let found = std::fs::metadata(path).map_err(broken)?;
    if !found.is_file() {
        // To read from a pipe would wait for whoever writes into it.
        return Err(broken(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Open { path: path.to_owned(), mode });
    }
    let text = std::fs::read_to_string(path).map_err(broken)?;
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let shape = |reason: String| StoreError::Shape { path: path.to_owned(), reason };
    match serde_json::from_str(&text).map_err(|error| shape(error.to_string()))? {
        Value::Object(resolvers) => Ok(resolvers),
        Value::Null => Ok(Map::new()),
        _ => Err(shape("it holds no object".to_owned())),
    }
}

impl Store {
    /// Makes the file if there is none, as Traefik does. Nothing is written before [`resume`](Self::resume).
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let broken = |source| StoreError::Io { path: path.to_owned(), source };
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(broken(error)),
        }
        // A link stays one when what it leads to is replaced.
        let path = path.canonicalize().map_err(broken)?;
        read(&path)?;
        Ok(Self { path, open: Mutex::new(false) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// From now on the file is another process's; returns when nothing is written any more.
    pub(crate) fn close(&self) {
        *self.open.lock() = false;
    }

    pub(crate) fn resume(&self) {
        *self.open.lock() = true;
    }

    pub(crate) fn read(&self, resolver: &str) -> Result<Kept, StoreError> {
        let resolvers = {
            // Another resolver may be writing it in place.
            let _open = self.open.lock();
            read(&self.path)?
        };
        let Some(own) = resolvers.get(resolver) else { return Ok(Kept::default()) };
        let certificates = own["Certificates"].as_array().into_iter().flatten().filter_map(stored).collect();
        let account = match &own["Account"] {
            Value::Object(account) => self.account(account)?,
            _ => None,
        };
        Ok(Kept { account, certificates })
    }

    /// `None` where the authority has not heard of it yet.
    fn account(&self, account: &Map<String, Value>) -> Result<Option<Account>, StoreError> {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let uri = text(account.get("Registration").and_then(|registration| registration.get("uri")));
        let key = text(account.get("PrivateKey"));
        if key.is_empty() {
            return Ok(None);
        }
        let shape = |reason: &str| StoreError::Shape { path: self.path.clone(), reason: reason.to_owned() };
        let key = STANDARD.decode(key).map_err(|_| shape("the account's PrivateKey is not base64"))?;
        let key = AccountKey::from_pkcs1(key)
            .map_err(|_| shape("the account's PrivateKey is no RSA key in PKCS#1"))?;
        Ok(Some(Account { email: text(account.get("Email")), uri, key }))
    }

    pub(crate) fn put_account(
        &self,
        resolver: &str,
        email: &str,
        registration: &Registration,
        key: &AccountKey,
    ) -> Result<(), StoreError> {
        let account = json!({
            "Email": email,
            "Registration": { "body": registration.body, "uri": registration.uri },
            "PrivateKey": STANDARD.encode(key.pkcs1()),
        });
        self.change(resolver, |own| drop(own.insert("Account".to_owned(), account)))
    }

    /// Replaces the certificate for the same names, or adds it.
    pub(crate) fn put_certificate(
        &self,
        resolver: &str,
        names: &[String],
        issued: &Issued,
    ) -> Result<(), StoreError> {
        let mut domain = json!({ "main": names.first() });
        if names.len() > 1 {
            domain["sans"] = json!(names[1..]);
        }
        let new = json!({
            "domain": domain,
            "certificate": STANDARD.encode(&issued.chain),
            "key": STANDARD.encode(&issued.key),
            "Store": "default",
        });
        self.change(resolver, |own| {
            let list = own.entry("Certificates").or_insert_with(|| json!([]));
            if !list.is_array() {
                *list = json!([]);
            }
            let Some(list) = list.as_array_mut() else { return };
            match list.iter_mut().find(|old| same(&names_of(old), names)) {
                Some(old) => *old = new,
                None => list.push(new),
            }
        })
    }

    /// Whether what is ordered can be kept; authorities issue only so many certificates for the same names.
    pub(crate) fn ready(&self) -> Result<(), StoreError> {
        if !*self.open.lock() {
            return Err(StoreError::Closed(self.path.clone()));
        }
        read(&self.path)?;
        let opened = OpenOptions::new().write(true).open(&self.path);
        opened.map(drop).map_err(|source| StoreError::Io { path: self.path.clone(), source })
    }

    fn change(&self, resolver: &str, change: impl FnOnce(&mut Map<String, Value>)) -> Result<(), StoreError> {
        let open = self.open.lock();
        if !*open {
            return Err(StoreError::Closed(self.path.clone()));
        }
        let mut resolvers = read(&self.path)?;
        let own =
            resolvers.entry(resolver).or_insert_with(|| json!({ "Account": null, "Certificates": null }));
        if !own.is_object() {
            *own = json!({});
        }
        if let Some(own) = own.as_object_mut() {
            change(own);
        }
        let text = serde_json::to_string_pretty(&resolvers).map_err(io::Error::from);
        let written = text.and_then(|text| write(&self.path, text.as_bytes()));
        written.map_err(|source| StoreError::Io { path: self.path.clone(), source })
    }
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let replaced = replacement(&beside, text).and_then(|()| std::fs::rename(&beside, path));
    match replaced {
        // The rename itself must outlive a power cut, too.
        Ok(()) => {
            path.parent().map_or(Ok(()), |parent| File::open(parent).and_then(|parent| parent.sync_all()))
        }
        Err(error) => {
            let _ = std::fs::remove_file(&beside);
            tracing::debug!(%error, path = %path.display(), "The file cannot be replaced, it is written in place");
            let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
            file.write_all(text)?;
            file.sync_all()
        }
    }
}

fn replacement(beside: &Path, text: &[u8]) -> io::Result<()> {
    // One that a crash left behind may have other permissions.
    match std::fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
    file.write_all(text)?;
    file.sync_all()
}

fn names_of(certificate: &Value) -> Vec<String> {
    let domain = &certificate["domain"];
    let sans = domain["sans"].as_array().into_iter().flatten();
    std::iter::once(&domain["main"]).chain(sans).filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

fn same(a: &[String], b: &[String]) -> bool {
    a.len() == b.len() && a.iter().all(|name| b.contains(name))
}

/// `None`: one of another store, which nobody is ever shown, or one that is not whole.
fn stored(certificate: &Value) -> Option<Stored> {
    if !matches!(certificate["Store"].as_str(), None | Some("" | "default")) {
        return None;
    }
    let pem = |key: &str| STANDARD.decode(certificate[key].as_str()?).ok();
    let (chain, key) = (pem("certificate")?, pem("key")?);
    let names = names_of(certificate);
    (!names.is_empty()).then_some(Stored { names, chain, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn text(path: &Path) -> Value {
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn issued(word: &str) -> Issued {
        Issued { chain: format!("chain {word}"), key: format!("key {word}") }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_is_kept_comes_back_and_what_is_not_ours_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("acme.json");
        std::fs::write(
            &path,
            r#"{"other": {"Certificates": [1], "x": 2}, "le": {"Account": null, "Certificates": null, "y": 3}}"#,
        )
        .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let store = Store::open(&path).unwrap();
        assert!(matches!(
            store.put_certificate("le", &names(&["a"]), &issued("0")),
            Err(StoreError::Closed(_))
        ));
        store.resume();
        store.put_certificate("le", &names(&["a", "b"]), &issued("1")).unwrap();
        store.put_certificate("le", &names(&["c"]), &issued("2")).unwrap();
        store.put_certificate("le", &names(&["b", "a"]), &issued("3")).unwrap();
        let kept = store.read("le").unwrap();
        assert!(kept.account.is_none());
        let chains: Vec<_> = kept.certificates.iter().map(|c| (c.names.clone(), c.chain.clone())).collect();
        assert_eq!(
            chains,
            [(names(&["b", "a"]), b"chain 3".to_vec()), (names(&["c"]), b"chain 2".to_vec())],
            "the one for the same names is replaced"
        );
        let text = text(&path);
        assert_eq!(text["other"], json!({ "Certificates": [1], "x": 2 }));
        assert_eq!(
            (&text["le"]["y"], &text["le"]["Certificates"][1]["domain"]),
            (&json!(3), &json!({ "main": "c" }))
        );
        assert_eq!(mode(&path), 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left behind");
        assert!(store.ready().is_ok());
        store.close();
        assert!(store.put_certificate("le", &names(&["a"]), &issued("4")).is_err());
        assert!(matches!(store.ready(), Err(StoreError::Closed(_))));
        store.resume();
        std::fs::write(&path, "[1]").unwrap();
        assert!(matches!(store.ready(), Err(StoreError::Shape { .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(store.ready(), Err(StoreError::Io { .. })));
    }

    #[test]
    fn an_account_is_kept_as_traefik_keeps_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("acme.json");
        let key = AccountKey::from_pkcs8(&crate::jws::rsa_pkcs8(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap())
            .unwrap();
        let account = json!({
            "Email": "a@b.c",
            "Registration": { "body": { "status": "valid" }, "uri": "https://ca/acct/1" },
            "PrivateKey": STANDARD.encode(key.pkcs1()),
        });
        // As Traefik writes it, with what only a later version may know.
        let mut written = account.clone();
        written["KeyType"] = "4096".into();
        std::fs::write(&path, json!({ "le": { "Account": written, "Certificates": null } }).to_string())
            .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let store = Store::open(&path).unwrap();
        let kept = store.read("le").unwrap().account.unwrap();
        assert_eq!((kept.email.as_str(), kept.uri.as_str()), ("a@b.c", "https://ca/acct/1"));
        assert_eq!(kept.key.pkcs1(), key.pkcs1());
        store.resume();
        store.put_certificate("le", &names(&["a"]), &issued("1")).unwrap();
        assert_eq!(text(&path)["le"]["Account"], written, "untouched");
        let registration =
            Registration { uri: "https://ca/acct/1".to_owned(), body: json!({ "status": "valid" }) };
        store.put_account("other", "a@b.c", &registration, &key).unwrap();
        assert_eq!(text(&path)["other"]["Account"], account);
        for broken in ["%", "AAAA"] {
            let text = json!({ "le": { "Account": { "PrivateKey": broken } } }).to_string();
            std::fs::write(&path, text).unwrap();
            assert!(matches!(store.read("le"), Err(StoreError::Shape { .. })), "{broken}");
        }
    }

    #[test]
    fn a_link_stays_one_and_a_new_file_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("real.json"), directory.path().join("acme.json"));
        Store::open(&file).unwrap();
        assert_eq!(mode(&file), 0o600);
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let store = Store::open(&link).unwrap();
        store.resume();
        store.put_certificate("le", &names(&["a"]), &issued("1")).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(text(&file)["le"]["Certificates"][0]["Store"], "default");
    }

    #[test]
    fn what_others_could_read_or_nobody_understands_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("acme.json");
        assert!(check(&path).is_ok(), "not there yet");
        for (content, permissions, expected) in [
            ("{}", 0o644, "permissions 644"),
            ("{}", 0o620, "please use 600"),
            ("{", 0o600, "is no acme.json"),
            ("[1]", 0o600, "it holds no object"),
        ] {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(permissions)).unwrap();
            let refused = check(&path).unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
            assert!(Store::open(&path).is_err());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content, "it is as it was");
        }
        assert!(check(&directory.path().join("no/acme.json")).is_err());
        let pipe = directory.path().join("pipe");
        let made = std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&pipe).status();
        assert!(made.unwrap().success());
        assert!(check(&pipe).is_err() && Store::open(&pipe).is_err());
    }
}
